//! Directives that are separated by anything but commas (RFC 9111 §5.2).

use super::Both;
use tower_readthrough::Rules;

use crate::support::{ScriptedOrigin, ok, secs, status};

async fn is_stored(rules: Rules, field: &'static str, line: &'static str) -> bool {
    let origin = ScriptedOrigin::always(move || ok("x").header(field, line));
    Both::new(rules, origin).store("/", &[]).await
}

#[tokio::test(start_paused = true)]
async fn directives_that_forbid_count_between_any_separators() {
    let ttl = Rules::new().fixed_ttl(secs(60));
    for line in [
        "private; max-age=60",
        "no-store;",
        "max-age=60; no-store",
        "public no-store",
        "max-age=60|private",
        "x=\"1, no-store",
        "max-age=\"60, private",
        "x=private",
    ] {
        assert!(!is_stored(ttl.clone(), "cache-control", line).await, "{line}");
        assert!(!is_stored(Rules::new(), "cache-control", line).await, "{line}");
    }
    assert!(
        is_stored(ttl.clone(), "cache-control", "x=\"no-store; private\"").await,
        "a quoted word forbids nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn no_cache_and_a_zero_lifetime_count_between_any_separators() {
    let ttl = Rules::new().default_ttl(secs(60));
    for line in ["no-cache; public", "public; max-age=0", "public; max-age", "public s-maxage=0"] {
        assert!(!is_stored(ttl.clone(), "cache-control", line).await, "{line}");
    }
    assert!(is_stored(Rules::new(), "cache-control", "public; max-age=60").await);
}

#[tokio::test(start_paused = true)]
async fn a_targeted_field_forbids_in_parameters_and_where_it_cannot_be_parsed() {
    let ttl = Rules::new().fixed_ttl(secs(60));
    for line in ["max-age=60; private", "max-age=60;no-store", "Private", "no-store,"] {
        assert!(!is_stored(ttl.clone(), "cdn-cache-control", line).await, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_misplaced_directive_allows_nothing_for_requests_with_credentials() {
    for line in ["max-age=60, x; public", "max-age=60, x; must-revalidate", "max-age=60, x; s-maxage=60"] {
        let origin = ScriptedOrigin::always(move || ok("x").header("cache-control", line));
        let both = Both::new(Rules::new(), origin);
        assert!(!both.store("/", &[("authorization", "Basic x")]).await, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_misplaced_must_revalidate_or_s_maxage_forbids_stale_responses() {
    for line in ["max-age=60, x; must-revalidate", "public; s-maxage=60", "max-age=60, x; s-maxage=60"] {
        let origin = ScriptedOrigin::new(move |call, _| match call {
            1 | 2 => ok("x").header("cache-control", line),
            _ => status(503),
        });
        let both = Both::new(Rules::new(), origin);
        both.get("/", &[]).await;
        assert!(both.get("/", &[]).await.iter().all(|reply| reply.is_hit()), "{line}");
        tokio::time::advance(secs(61)).await;
        let statuses = both.get("/", &[]).await.map(|reply| reply.status.as_u16());
        assert_eq!(statuses, [503, 503], "{line}");
    }
}
