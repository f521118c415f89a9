//! Which statuses are stored, through the whole registry (RFC 9110 §16.2.1).

use super::Both;
use tower_readthrough::Rules;

use crate::support::{ScriptedOrigin, request, secs, status};

/// All that IANA has registered, and the one that RFC 9110 §15.4.7 reserves.
const REGISTRY: [u16; 63] = [
    100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305,
    306, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417,
    418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510,
];

const STORED_IF_IT_SAYS_SO: [u16; 32] = [
    200, 201, 202, 203, 204, 205, 207, 208, 300, 301, 302, 303, 307, 308, 402, 403, 404, 409, 410, 418, 423,
    424, 451, 500, 502, 503, 504, 506, 507, 299, 499, 599,
];

#[tokio::test(start_paused = true)]
async fn a_status_about_the_message_or_the_connection_is_never_stored() {
    let rules = Rules::new().fixed_ttl(secs(60)).negative_ttl(secs(60));
    for code in REGISTRY.into_iter().chain([511, 299, 499, 599]) {
        for rules in [Rules::new(), rules.clone()] {
            let origin = ScriptedOrigin::always(move || status(code).max_age(60));
            let is_stored = Both::new(rules, origin).store("/", &[]).await;
            assert_eq!(is_stored, STORED_IF_IT_SAYS_SO.contains(&code), "{code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_about_one_message_is_not_shared_for_head_either() {
    for code in [400, 401, 405, 414, 425, 429, 431, 501, 505, 511] {
        let origin =
            ScriptedOrigin::always(move || status(code).header("cache-control", "public, max-age=60"));
        let both = Both::new(Rules::new(), origin);
        both.get("/", &[]).await;
        let heads = both.send(|| request("HEAD", "/", &[])).await;
        assert!(heads.iter().all(|reply| !reply.is_hit()), "{code}");
        assert_eq!(both.origin.calls(), 4, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_never_stored_leaves_the_stored_response() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 | 2 => status(200).header("cache-control", "max-age=1, stale-if-error=60"),
        3 | 4 => status(431).max_age(60),
        _ => status(503),
    });
    let both = Both::new(Rules::new(), origin);
    both.get("/", &[]).await;
    tokio::time::advance(secs(2)).await;
    assert_eq!(both.get("/", &[]).await.map(|reply| reply.status.as_u16()), [431, 431]);
    let [stack, _] = both.get("/", &[]).await;
    assert_eq!(stack.cache(), "fwd=stale; fwd-status=503; detail=stale-if-error");
}

#[tokio::test(start_paused = true)]
async fn a_negative_lifetime_is_for_404_and_410() {
    for code in REGISTRY {
        let origin = ScriptedOrigin::always(move || status(code));
        let is_stored = Both::new(Rules::new().negative_ttl(secs(60)), origin).store("/", &[]).await;
        assert_eq!(is_stored, matches!(code, 404 | 410), "{code}");
    }
}
