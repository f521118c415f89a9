//! The failure of one client is not shared with all others.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use http::{Request, StatusCode};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use tower_readthrough::{
    CoalesceLayer, KeyLayer, OriginLimitLayer, ReadThroughLayer, Refused, RetryPolicy, SharedError,
};

use crate::support::{
    Body, ScriptedOrigin, fixed, get, get_request, get_with, ms, ok, response, secs, settle, status, store,
};

/// The service of the whole stack, without retries.
fn stack(
    origin: &ScriptedOrigin,
) -> tower_readthrough::ReadThrough<ScriptedOrigin, tower_readthrough::MemoryStore> {
    let layer = ReadThroughLayer::builder(store()).retry(RetryPolicy::never()).build().unwrap();
    layer.layer(origin.clone())
}

#[tokio::test(start_paused = true)]
async fn a_request_that_makes_the_handler_fail_fails_alone() {
    for code in [500, 502, 503, 504] {
        for control in ["max-age=60", "no-store"] {
            let origin = ScriptedOrigin::new(move |_, head| {
                let answer = if head.headers.contains_key("x-bad") { status(code) } else { ok("x") };
                answer
                    .header("cache-control", if head.headers.contains_key("x-bad") { "" } else { control })
                    .after(ms(50))
            });
            let service = stack(&origin);
            for _ in 0..3 {
                let bad = get_with(&service, "/", &[("x-bad", "1")]);
                let (bad, replies) = tokio::join!(bad, join_all((0..40).map(|_| get(&service, "/"))));
                assert!(replies.iter().all(|reply| reply.status == 200), "{code} {control}");
                assert!(bad.status == code || bad.is_hit());
                sleep(secs(20)).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_two_callers_is_shared_by_all() {
    let origin = ScriptedOrigin::always(|| status(500).header("retry-after", "7").after(ms(50)));
    let service = stack(&origin);
    let replies = join_all((0..10_000).map(|_| get(&service, "/"))).await;
    assert!(replies.iter().all(|reply| reply.status == 500 && reply.header("retry-after") == Some("7")));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_or_a_panic_of_the_first_request_is_its_own() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let service = service_fn(async |request: Request<Body>| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        sleep(ms(50)).await;
        assert!(!request.headers().contains_key("x-panic"), "the handler panics");
        match request.headers().contains_key("x-bad") {
            true => Err(SharedError::new("bad request")),
            false => Ok(response(&[], "x").into_response()),
        }
    });
    let service = KeyLayer::default().layer(CoalesceLayer::new().rules(fixed(60_000)).layer(service));
    for field in ["x-bad", "x-panic"] {
        let before = CALLS.load(Ordering::SeqCst);
        let mut request = get_request("http://h/");
        request.headers_mut().insert(field, http::HeaderValue::from_static("1"));
        let bad = tokio::spawn(service.clone().oneshot(request));
        settle().await;
        let answers = join_all((0..40).map(|_| service.clone().oneshot(get_request("http://h/")))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == StatusCode::OK));
        assert!(bad.await.map_or(true, |answer| answer.is_err()));
        assert_eq!(CALLS.load(Ordering::SeqCst) - before, 2);
    }
}

/// A request that a limit of the cache refused is not retried: that would add to the load.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_cache_is_shared_at_once() {
    let origin = ScriptedOrigin::new(|_, head| {
        ok("x").max_age(60).after(if head.uri.path() == "/busy" { secs(5) } else { ms(50) })
    });
    let limit = OriginLimitLayer::new(1).max_queue_wait(ms(100));
    let layer =
        ReadThroughLayer::builder(store()).retry(RetryPolicy::never()).origin_limit(limit).build().unwrap();
    let service = layer.layer(origin.clone());
    let busy = get(&service, "/busy");
    let others = async {
        settle().await;
        let started = tokio::time::Instant::now();
        let replies = join_all((0..100).map(|_| get(&service, "/"))).await;
        (replies, started.elapsed())
    };
    let (_, (replies, elapsed)) = tokio::join!(busy, others);
    let is_refused = |reply: &crate::support::Reply| reply.extensions.get() == Some(&Refused::QueueTimeout);
    assert!(replies.iter().all(is_refused));
    assert_eq!((origin.calls(), elapsed), (1, ms(100)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_not_tried_again_where_a_stale_response_is_served() {
    let origin = ScriptedOrigin::new(|n, _| match n {
        1 => ok("x").header("cache-control", "max-age=1, stale-if-error=600"),
        _ => status(500).after(ms(50)),
    });
    let service = stack(&origin);
    get(&service, "/").await;
    sleep(secs(2)).await;
    let replies = join_all((0..100).map(|_| get(&service, "/"))).await;
    assert!(replies.iter().all(|reply| reply.body == "x"));
    assert_eq!(origin.calls(), 2);
}
