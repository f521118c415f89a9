//! A condition that the cache adds fails no request: a 304 that does not match is followed by
//! one request without conditions, in the same fetch (RFC 9111 §4.3.4, RFC 9110 §13.1.3).

use std::time::Duration;

use futures_util::future::join_all;
use http::request::Parts;
use tower::{Layer, ServiceBuilder, limit::ConcurrencyLimitLayer};
use tower_readthrough::{OriginLimitLayer, ReadThroughLayer, RetryPolicy, Rules, StoreLayer};

use super::on_each;

use crate::support::{
    ScriptedOrigin, ScriptedResponse, error, get, get_with, ms, ok, panics, request, secs, send, settle,
    small_store, status,
};

const OLDER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn is_conditional(head: &Parts) -> bool {
    ["if-none-match", "if-modified-since"].iter().any(|name| head.headers.contains_key(*name))
}

/// Responds with new content each time, under these validators, and to conditions with this response.
fn answering(validators: &'static [(&str, &str)], conditional: fn() -> ScriptedResponse) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, head| {
        if is_conditional(head) {
            return conditional().max_age(10);
        }
        let answer = ok(call.to_string()).max_age(10);
        validators.iter().fold(answer, |answer, (name, value)| answer.header(name, value))
    })
}

/// Validators, and the response to a condition with them.
type Misfit = (&'static [(&'static str, &'static str)], fn() -> ScriptedResponse);

/// Validators of a 200, and a response to a condition with them that does not match.
const MISFITS: &[Misfit] = &[
    (&[("etag", "\"1\"")], || status(304).header("etag", "\"2\"")),
    (&[("etag", "\"abc-gzip\"")], || status(304).header("etag", "\"abc\"")),
    (&[("etag", "W/\"1\"")], || status(304).header("etag", "W/\"2\"")),
    (&[("last-modified", DATE)], || status(304).header("last-modified", OLDER)),
    (&[("etag", "\"1\""), ("last-modified", DATE)], || status(304).header("last-modified", OLDER)),
    (&[("etag", "\"1\"")], || status(304).header("etag", "\"1\"").header("vary", "cookie")),
    (&[("etag", "\"1\"")], || status(412)),
];

#[tokio::test(start_paused = true)]
async fn a_304_that_does_not_match_is_followed_by_one_request_without_conditions() {
    for (at, (validators, conditional)) in MISFITS.iter().enumerate() {
        on_each!(answering(validators, *conditional), async |service: &_, origin: &ScriptedOrigin| {
            assert_eq!(get(service, "/").await.body, "1");
            tokio::time::advance(secs(11)).await;
            let reply = get(service, "/").await;
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"3"[..]), "misfit {at}");
            assert_eq!(reply.cache(), "fwd=stale");
            assert!(is_conditional(&origin.request(2)) && !is_conditional(&origin.request(3)));
            let hit = get(service, "/").await;
            assert!(hit.is_hit() && hit.body == "3");
            assert_eq!(origin.calls(), 3);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_candidate_is_confirmed_by_its_date_or_by_a_bare_304() {
    for (validators, conditional) in [
        (&[("last-modified", DATE)][..], (|| status(304)) as fn() -> ScriptedResponse),
        (&[("last-modified", DATE)], || status(304).header("last-modified", DATE)),
        (&[("last-modified", DATE)], || status(304).header("last-modified", DATE).header("etag", "\"1\"")),
        (&[("etag", "\"1\""), ("last-modified", DATE)], || status(304).header("last-modified", DATE)),
        (&[("etag", "\"1\"")], || status(304)),
        (&[("etag", "W/\"1\"")], || status(304).header("etag", "\"1\"")),
    ] {
        on_each!(answering(validators, conditional), async |service: &_, origin: &ScriptedOrigin| {
            get(service, "/").await;
            tokio::time::advance(secs(11)).await;
            assert_eq!(get(service, "/").await.body, "1");
            assert!(get(service, "/").await.is_hit());
            assert_eq!(origin.calls(), 2);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn all_callers_get_the_response_to_the_second_request() {
    let origin = answering(MISFITS[0].0, || status(304).header("etag", "\"2\"").after(ms(20)));
    let service = super::stack(&origin);
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    let replies = join_all((0..100).map(|_| get(&service, "/"))).await;
    assert!(replies.iter().all(|reply| reply.body == "3"));
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_asks_again_too() {
    let origin = || {
        ScriptedOrigin::new(|call, head| match is_conditional(head) {
            true => status(304).header("etag", "\"2\""),
            false => ok(call.to_string())
                .header("cache-control", "max-age=10, stale-while-revalidate=60")
                .header("etag", "\"1\""),
        })
    };
    on_each!(origin(), async |service: &_, origin: &ScriptedOrigin| {
        get(service, "/").await;
        tokio::time::advance(secs(11)).await;
        assert_eq!(get(service, "/").await.body, "1");
        settle().await;
        let reply = get(service, "/").await;
        assert!(reply.is_hit() && reply.body == "3");
        assert_eq!(origin.calls(), 3);
    });
}

#[tokio::test(start_paused = true)]
async fn a_304_to_the_second_request_is_a_failure_of_the_origin() {
    let origin = || {
        ScriptedOrigin::new(|call, _| match call {
            1 => ok("1").header("cache-control", "max-age=10, must-revalidate").header("etag", "\"1\""),
            _ => status(304).max_age(10).header("etag", "\"2\""),
        })
    };
    on_each!(origin(), async |service: &_, origin: &ScriptedOrigin| {
        get(service, "/").await;
        tokio::time::advance(secs(11)).await;
        let reply = get(service, "/").await;
        assert_eq!((reply.status.as_u16(), origin.calls()), (502, 3));
        assert!(!reply.is_hit());
    });
}

/// 200 that may be used for a minute if the origin fails, then a 304 that does not fit, then this.
fn failing(last: fn() -> ScriptedResponse) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, _| match call {
        1 => ok("1").header("cache-control", "max-age=10, stale-if-error=60").header("etag", "\"1\""),
        2 => status(304).header("etag", "\"2\""),
        _ => last(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_covers_a_failure_of_the_second_request() {
    for last in
        [|| status(503), error, || status(304).header("etag", "\"2\"")] as [fn() -> ScriptedResponse; 3]
    {
        let origin = failing(last);
        let service = super::stack(&origin);
        get(&service, "/").await;
        tokio::time::advance(secs(11)).await;
        let reply = get(&service, "/").await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"1"[..]));
        assert_eq!(origin.calls(), 3);
        // The stale response is still there for the next failure.
        assert_eq!(get(&service, "/").await.body, "1");
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the origin panics")]
async fn a_panic_of_the_second_request_goes_on() {
    let service = super::single(&failing(panics));
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    get(&service, "/").await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_second_request_is_tried_again_without_conditions() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("1").max_age(10).header("etag", "\"1\""),
        2 => status(304).header("etag", "\"2\""),
        3 => status(503),
        _ => ok("4").max_age(10),
    });
    let layer = ReadThroughLayer::builder(small_store())
        .retry(RetryPolicy::new().despite_stale(true))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    assert_eq!(get(&service, "/").await.body, "4");
    assert!(!is_conditional(&origin.request(3)) && !is_conditional(&origin.request(4)));
}

#[tokio::test(start_paused = true)]
async fn the_second_request_needs_no_second_place_at_the_origin() {
    let misfit = || answering(MISFITS[0].0, MISFITS[0].1);
    let limit = OriginLimitLayer::new(1).max_queue(0);
    let layer = ReadThroughLayer::builder(small_store()).origin_limit(limit).build().unwrap();
    let (stack, single) = (
        layer.layer(misfit()),
        ServiceBuilder::new()
            .layer(StoreLayer::new(small_store()).rules(Rules::new()))
            .layer(ConcurrencyLimitLayer::new(1))
            .service(misfit()),
    );
    get(&stack, "/").await;
    get(&single, "/").await;
    tokio::time::advance(secs(11)).await;
    assert_eq!(get(&stack, "/").await.body, "3");
    assert_eq!(tokio::time::timeout(secs(5), get(&single, "/")).await.unwrap().body, "3");
}

#[tokio::test(start_paused = true)]
async fn the_second_request_is_the_client_s_and_its_age_begins_with_it() {
    let origin = ScriptedOrigin::new(|call, head| match is_conditional(head) {
        true => status(304).header("etag", "\"2\"").after(secs(7)),
        false => ok(call.to_string()).max_age(10).header("etag", "\"1\"").header("vary", "accept"),
    });
    let service = super::single(&origin);
    let fields = [("accept", "text/html"), ("x-trace", "1")];
    get_with(&service, "/", &fields).await;
    tokio::time::advance(secs(11)).await;
    let mut asked = request("GET", "/", &fields);
    asked.extensions_mut().insert(Duration::from_secs(42));
    send(&service, asked).await;
    let second = origin.request(3);
    assert_eq!(
        (&second.headers["accept"], &second.headers["x-trace"]),
        (&"text/html".parse().unwrap(), &"1".parse().unwrap())
    );
    assert_eq!(second.extensions.get::<Duration>(), Some(&secs(42)));
    assert_eq!(get_with(&service, "/", &fields).await.age(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_response_purged_between_the_two_requests_is_not_stored() {
    let origin = ScriptedOrigin::new(|call, head| match is_conditional(head) {
        true => status(304).header("etag", "\"2\"").after(ms(50)),
        false => {
            ok(call.to_string()).max_age(10).header("etag", "\"1\"").after(ms(if call > 1 { 50 } else { 0 }))
        }
    });
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let (purge, service) = (layer.purge(), layer.layer(origin.clone()));
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    let purging = async {
        tokio::time::sleep(ms(75)).await;
        purge.everything();
    };
    let (reply, ()) = tokio::join!(get(&service, "/"), purging);
    assert_eq!(reply.body, "3");
    assert_eq!(get(&service, "/").await.body, "4");
}

#[tokio::test(start_paused = true)]
async fn a_412_to_the_condition_of_the_client_is_passed_on() {
    // A key with a hit-for-miss: the condition of the client goes to the origin unchanged.
    let origin = || {
        ScriptedOrigin::new(|call, head| match is_conditional(head) {
            true => status(304).header("etag", "\"2\""),
            false => ok(call.to_string()).header("cache-control", "private").header("etag", "\"1\""),
        })
    };
    on_each!(origin(), async |service: &_, origin: &ScriptedOrigin| {
        get(service, "/").await;
        let reply = get_with(service, "/", &[("if-none-match", "\"9\"")]).await;
        assert_eq!((reply.status.as_u16(), origin.calls()), (304, 2));
    });
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_does_not_end_the_second_request() {
    let origin = ScriptedOrigin::new(|call, head| match is_conditional(head) {
        true => status(304).header("etag", "\"2\"").after(ms(20)),
        false => ok(call.to_string()).max_age(10).header("etag", "\"1\"").after(ms(20)),
    });
    let service = super::stack(&origin);
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    assert!(tokio::time::timeout(ms(30), get(&service, "/")).await.is_err());
    tokio::time::sleep(ms(50)).await;
    assert_eq!(get(&service, "/").await.body, "3");
    assert_eq!(origin.calls(), 3);
}
