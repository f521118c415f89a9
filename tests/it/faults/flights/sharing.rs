//! One client does not end sharing for all others.

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use tower_readthrough::{OriginLimitLayer, ReadThroughLayer, RetryPolicy};

use crate::support::{
    ScriptedOrigin, ScriptedResponse, error, get, get_request, get_with, hangs, ms, ok, panics, request,
    response, secs, settle, status, store,
};

/// A page is refreshed in the background, and others come while its body is on its way.
#[tokio::test(start_paused = true)]
async fn requests_during_the_body_of_a_refresh_share_it() {
    let origin = ScriptedOrigin::with_future(|call, _| async move {
        let pause = if call == 1 { ms(0) } else { secs(1) };
        let chunks = futures_util::stream::unfold(0, move |n| async move {
            sleep(pause).await;
            (n < 30).then(|| (Ok::<_, std::io::Error>("x"), n + 1))
        });
        let control = "max-age=1, stale-while-revalidate=2";
        response(&[("cache-control", control)], crate::streamed(chunks))
    });
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let length = async || crate::support::call(&service, get_request("http://h/")).await.1.len();
    assert_eq!(length().await, 30);
    sleep(secs(2)).await;
    assert_eq!((length().await, origin.calls()), (30, 1), "stale");
    settle().await;
    assert_eq!(origin.calls(), 2, "refreshed");
    sleep(secs(5)).await;
    let callers = (0..20).map(async |n| {
        sleep(ms(n * 10)).await;
        length().await
    });
    assert_eq!(join_all(callers).await, [30; 20]);
    assert!(origin.calls() <= 3, "{}", origin.calls());
}

/// A response to a client with a session says nothing about responses to other clients.
#[tokio::test(start_paused = true)]
async fn a_response_for_a_client_with_a_session_leaves_all_others_together() {
    for (name, value) in [("cache-control", "private"), ("cache-control", "no-store"), ("set-cookie", "a=b")]
    {
        for credential in ["cookie", "x-api-key"] {
            let origin =
                ScriptedOrigin::unrecorded(move |_, head| match head.headers.contains_key(credential) {
                    true => ok("mine").header(name, value).after(ms(50)),
                    false => ok("page").max_age(60).after(ms(50)),
                });
            let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
            let fields = [(credential, "sid=1")];
            let first = get_with(&service, "/", &fields);
            let (first, replies) = tokio::join!(first, join_all((0..1000).map(|_| get(&service, "/"))));
            assert_eq!(first.body, "mine");
            assert!(replies.iter().all(|reply| reply.body == "page"));
            assert_eq!(origin.calls(), 2, "{credential} {value}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn some_errors_leave_the_rest_of_a_burst_shared() {
    for bad in [2, 10] {
        let origin = ScriptedOrigin::unrecorded(|_, head| match head.headers.contains_key("bad") {
            true => status(400).after(ms(50)),
            false => ok("page").max_age(60).after(ms(50)),
        });
        let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
        let callers = (0..1000).map(async |n| match n < bad {
            true => assert_eq!(get_with(&service, "/", &[("bad", "1")]).await.status, 400),
            false => assert_eq!(get(&service, "/").await.body, "page"),
        });
        join_all(callers).await;
        assert!(origin.calls() <= 16 * bad, "{bad}: {}", origin.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn errors_that_are_each_for_one_client_come_in_a_few_rounds() {
    for delay in [ms(50), secs(20)] {
        let origin = ScriptedOrigin::unrecorded(move |_, head| {
            let mine = head.headers["x-mine"].to_str().unwrap().to_owned();
            status(404).header("cache-control", "no-store").chunk(mine).after(delay)
        });
        let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
        let started = Instant::now();
        let callers = (0..1000).map(async |n| {
            let mine = n.to_string();
            let reply = get_with(&service, "/", &[("x-mine", &mine)]).await;
            assert_eq!((reply.status, &reply.body[..]), (StatusCode::NOT_FOUND, mine.as_bytes()));
        });
        join_all(callers).await;
        assert_eq!(origin.calls(), 1000);
        assert!(started.elapsed() <= 5 * delay, "{:?}", started.elapsed());
    }
}

/// The first fetch hangs, and all others fail.
#[tokio::test(start_paused = true)]
async fn failures_beside_a_fetch_that_hangs_are_shared_by_all() {
    type Fails = fn() -> ScriptedResponse;
    let all: [Fails; 4] = [|| status(500), || status(503).header("retry-after", "7"), error, panics];
    for fails in all {
        let origin =
            ScriptedOrigin::unrecorded(move |n, _| if n == 1 { hangs() } else { fails().after(ms(50)) });
        let layer = ReadThroughLayer::builder(store()).retry(RetryPolicy::never()).build().unwrap();
        let service = layer.layer(origin.clone());
        let first = tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
        settle().await;
        let started = Instant::now();
        let callers = (0..1000).map(|_| tokio::spawn(service.clone().oneshot(request("GET", "/", &[]))));
        for answer in join_all(callers.collect::<Vec<_>>()).await {
            assert!(!matches!(answer, Ok(Ok(response)) if response.status() == 200));
        }
        assert!(origin.calls() <= 6, "{}", origin.calls());
        assert!(started.elapsed() <= secs(32), "{:?}", started.elapsed());
        assert!(!first.is_finished());
        first.abort();
    }
}

/// A caller that has the response of another fetch no longer needs its own.
#[tokio::test(start_paused = true)]
async fn a_fetch_beside_another_ends_when_the_other_has_a_response() {
    let origin = ScriptedOrigin::new(|n, _| ok("x").max_age(60).after(secs(if n == 1 { 35 } else { 300 })));
    let service = ReadThroughLayer::builder(store()).build().unwrap().layer(origin.clone());
    let replies = join_all((0..10).map(|_| get(&service, "/"))).await;
    assert!(replies.iter().all(|reply| reply.body == "x"));
    assert!(origin.calls() > 2);
    sleep(ms(1)).await;
    assert_eq!(origin.under_way(), 0);
}

/// One limit for several stacks, one of which is made while the others use all of it.
#[tokio::test(start_paused = true)]
async fn a_limit_in_use_can_be_given_to_another_stack() {
    let origin = ScriptedOrigin::always(|| ok("x").after(secs(1)));
    let limit = OriginLimitLayer::new(1).max_queue_wait(secs(5));
    let build = || ReadThroughLayer::builder(store()).origin_limit(limit.clone()).build();
    let service = build().unwrap().layer(origin.clone());
    let first = tokio::spawn(async move { get(&service, "/").await });
    settle().await;
    assert_eq!(origin.under_way(), 1);
    let service = build().expect("the limit is in use, not zero").layer(origin.clone());
    assert_eq!(get(&service, "/").await.body, "x");
    assert_eq!(first.await.unwrap().body, "x");
    assert!(ReadThroughLayer::builder(store()).origin_limit(OriginLimitLayer::new(0)).build().is_err());
    let never = OriginLimitLayer::new(1).max_queue_wait(secs(0));
    assert!(ReadThroughLayer::builder(store()).origin_limit(never).build().is_err());
}
