//! Many callers of one key, and the calls of the origin.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Layer, Service, ServiceExt};
use tower_readthrough::{RetryPolicy, Rules};

use crate::support::{
    Body, Failure, ScriptedOrigin, bytes, call, fixed, get_request, ms, response, stack, status, store,
};

const URI: &str = "http://shop.example/p?id=1";

/// Sends `n` requests at once, checks the bodies, and returns how often each status came.
async fn crowd<S, B>(service: &S, n: usize, body: &'static [u8]) -> Vec<(StatusCode, usize)>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Failure> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body + Send,
    B::Data: Send,
    B::Error: std::fmt::Debug,
{
    let mut callers = JoinSet::new();
    for _ in 0..n {
        let service = service.clone();
        callers.spawn(async move { call(&service, get_request(URI)).await });
    }
    let mut seen = std::collections::BTreeMap::new();
    for (status, got) in callers.join_all().await {
        if status == StatusCode::OK {
            assert_eq!(got, body);
        }
        *seen.entry(status.as_u16()).or_default() += 1;
    }
    seen.into_iter().map(|(status, n)| (StatusCode::from_u16(status).unwrap(), n)).collect()
}

fn slow(delay: u64) -> ScriptedOrigin {
    ScriptedOrigin::with_future(move |_, _| async move {
        sleep(ms(delay)).await;
        response(&[], "hello")
    })
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_a_cold_key_are_one_call() {
    let origin = slow(50);
    let service = stack(fixed(1000)).layer(origin.clone());
    assert_eq!(crowd(&service, 10_000, b"hello").await, [(StatusCode::OK, 10_000)]);
    assert_eq!(origin.calls(), 1);

    // At the very moment of expiry: the response is 50 ms old when it arrives.
    sleep(ms(950)).await;
    assert_eq!(crowd(&service, 10_000, b"hello").await, [(StatusCode::OK, 10_000)]);
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn sixty_thousand_callers_of_a_cold_key_are_one_call() {
    let origin = slow(50);
    let service = stack(fixed(1000)).layer(origin.clone());
    assert_eq!(crowd(&service, 60_000, b"hello").await, [(StatusCode::OK, 60_000)]);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_on_several_threads_are_one_call() {
    for _ in 0..20 {
        let origin = slow(20);
        let service = stack(fixed(60_000)).layer(origin.clone());
        assert_eq!(crowd(&service, 500, b"hello").await, [(StatusCode::OK, 500)]);
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_may_leave_before_the_head() {
    let origin = slow(50);
    let service = stack(fixed(1000)).layer(origin.clone());
    let first = tokio::spawn(service.clone().oneshot(get_request(URI)));
    sleep(ms(10)).await;
    assert_eq!(origin.calls(), 1);
    let crowd = crowd(&service, 1000, b"hello");
    let leave = async {
        sleep(ms(10)).await;
        first.abort();
    };
    assert_eq!(tokio::join!(crowd, leave).0, [(StatusCode::OK, 1000)]);
    assert_eq!(origin.calls(), 1);
}

/// A body of ten chunks, one every ten milliseconds.
fn drip() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|_, _| async {
        let chunks = futures_util::stream::iter(0..10_u8).then(|n| async move {
            sleep(ms(10)).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'0' + n])))
        });
        response(&[], Body::new(StreamBody::new(chunks)))
    })
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_may_leave_between_head_and_end_of_body() {
    let origin = drip();
    let service = stack(fixed(1000)).layer(origin.clone());
    let first = service.clone().oneshot(get_request(URI)).await.unwrap();
    let crowd = crowd(&service, 1000, b"0123456789");
    let leave = async {
        sleep(ms(35)).await;
        drop(first);
    };
    assert_eq!(tokio::join!(crowd, leave).0, [(StatusCode::OK, 1000)]);
    assert_eq!(call(&service, get_request(URI)).await, (StatusCode::OK, "0123456789".into()));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_every_caller_left_still_fills_the_store() {
    let origin = drip();
    let service = stack(fixed(1000)).layer(origin.clone());
    drop(service.clone().oneshot(get_request(URI)).await.unwrap());
    sleep(ms(100)).await;
    let started = Instant::now();
    assert_eq!(call(&service, get_request(URI)).await, (StatusCode::OK, "0123456789".into()));
    assert_eq!((origin.calls(), started.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_short_lifetime_under_fire_is_one_call_each_time_it_ends() {
    let origin = ScriptedOrigin::with_future(|_, _| async { response(&[], "hello") });
    let service = stack(fixed(50)).layer(origin.clone());
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(1) {
        for _ in 0..10 {
            call(&service, get_request(URI)).await;
        }
        sleep(ms(1)).await;
    }
    assert!((20..=21).contains(&origin.calls()), "{}", origin.calls());
}

#[tokio::test(start_paused = true)]
async fn an_origin_slower_than_the_lifetime_is_still_asked_once_at_a_time() {
    let origin = slow(60);
    let service = stack(fixed(50)).layer(origin.clone());
    let mut callers = JoinSet::new();
    for _ in 0..1000 {
        for _ in 0..10 {
            let service = service.clone();
            callers.spawn(async move { call(&service, get_request(URI)).await });
        }
        sleep(ms(1)).await;
    }
    callers.join_all().await;
    assert!((16..=20).contains(&origin.calls()), "{}", origin.calls());
}

#[tokio::test(start_paused = true)]
async fn an_unshareable_response_releases_all_waiting_callers_and_is_remembered() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        sleep(ms(100)).await;
        response(&[("cache-control", "no-store")], "hello")
    });
    let service = stack(Rules::new()).layer(origin.clone());
    let started = Instant::now();
    assert_eq!(crowd(&service, 60_000, b"hello").await, [(StatusCode::OK, 60_000)]);
    assert!(started.elapsed() <= ms(300), "{:?}", started.elapsed());
    assert_eq!(origin.calls(), 60_000);

    let started = Instant::now();
    crowd(&service, 1000, b"hello").await;
    assert!(started.elapsed() <= ms(102), "the next burst does not wait: {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_hit_for_miss_the_key_is_coalesced_again() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        sleep(ms(10)).await;
        response(&[("cache-control", if n == 1 { "no-store" } else { "max-age=60" })], "hello")
    });
    let service = stack(Rules::new().hit_for_miss_for(Duration::from_secs(5))).layer(origin.clone());
    call(&service, get_request(URI)).await;
    sleep(Duration::from_secs(5)).await;
    crowd(&service, 100, b"hello").await;
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_first_storable_response_removes_the_hit_for_miss() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        sleep(ms(10)).await;
        response(&[("cache-control", if n == 1 { "no-store" } else { "max-age=1" })], "hello")
    });
    let service = stack(Rules::new().hit_for_miss_for(Duration::from_secs(60))).layer(origin.clone());
    call(&service, get_request(URI)).await;
    call(&service, get_request(URI)).await;
    sleep(Duration::from_secs(2)).await;
    crowd(&service, 100, b"hello").await;
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn all_waiting_callers_get_a_503_after_a_second_sequence_of_retries() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        sleep(ms(10)).await;
        status(503)
    });
    let retry = RetryPolicy::new();
    let layer = tower_readthrough::ReadThroughLayer::builder(store()).retry(retry.clone()).build().unwrap();
    let service = layer.layer(origin.clone());
    assert_eq!(crowd(&service, 10_000, b"").await, [(StatusCode::SERVICE_UNAVAILABLE, 10_000)]);
    assert_eq!(origin.calls() as u64, 2 + retry.retries());
    assert!(retry.retries() <= 4);
}

#[tokio::test(start_paused = true)]
async fn a_failure_leaves_no_hit_for_miss() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        sleep(ms(10)).await;
        if n == 1 { status(503) } else { response(&[("cache-control", "max-age=60")], "hello") }
    });
    let layer =
        tower_readthrough::ReadThroughLayer::builder(store()).retry(RetryPolicy::never()).build().unwrap();
    let service = layer.layer(origin.clone());
    let statuses = [(StatusCode::OK, 99), (StatusCode::SERVICE_UNAVAILABLE, 1)];
    assert_eq!(crowd(&service, 100, b"hello").await, statuses);
    assert_eq!(crowd(&service, 100, b"hello").await, [(StatusCode::OK, 100)]);
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn all_waiting_callers_get_a_service_error_after_a_second_one() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let failing = tower::service_fn(async |_: Request<Body>| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        sleep(ms(10)).await;
        Err::<Response<Body>, _>(tower_readthrough::SharedError::new("no route"))
    });
    let layer =
        tower_readthrough::ReadThroughLayer::builder(store()).retry(RetryPolicy::never()).build().unwrap();
    let service = layer.layer(failing);
    let mut callers = JoinSet::new();
    for _ in 0..10_000 {
        callers.spawn(service.clone().oneshot(get_request(URI)));
    }
    for answer in callers.join_all().await {
        assert_eq!(answer.unwrap_err().to_string(), "no route");
    }
    assert_eq!(CALLS.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_two_calls_and_every_caller_gets_a_response() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        sleep(ms(10)).await;
        panic!("handler");
    });
    let service = stack(fixed(1000)).layer(origin.clone());
    let mut callers = JoinSet::new();
    for _ in 0..10_000 {
        let service = service.clone();
        callers.spawn(async move { call(&service, get_request(URI)).await });
    }
    let (mut panics, mut unavailable) = (0, 0);
    while let Some(caller) = callers.join_next().await {
        match caller {
            Err(failure) => {
                assert_eq!(failure.into_panic().downcast_ref::<&str>(), Some(&"handler"));
                panics += 1;
            }
            Ok((status, _)) => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                unavailable += 1;
            }
        }
    }
    assert_eq!((origin.calls(), panics, unavailable), (2, 2, 9_998));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_usable_again_after_a_panic() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        assert!(n > 1, "the first call panics");
        response(&[], "hello")
    });
    let service = stack(fixed(1000)).layer(origin.clone());
    let panicking = service.clone();
    let first = tokio::spawn(async move { call(&panicking, get_request(URI)).await });
    assert!(first.await.unwrap_err().is_panic());
    assert_eq!(call(&service, get_request(URI)).await, (StatusCode::OK, "hello".into()));
}

#[tokio::test(start_paused = true)]
async fn the_first_bytes_of_a_slow_body_reach_all_before_the_last_have_left_the_origin() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        // 600 KB in 60 chunks over six seconds.
        let chunks = futures_util::stream::iter(0..60).then(|_| async move {
            sleep(ms(100)).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; 10_000])))
        });
        response(&[], Body::new(StreamBody::new(chunks)))
    });
    let service = stack(fixed(60_000)).layer(origin.clone());
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..1000 {
        let service = service.clone();
        callers.spawn(async move {
            let mut body = service.oneshot(get_request(URI)).await.unwrap().into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            let first_at = started.elapsed();
            let rest = body.collect().await.unwrap().to_bytes();
            (first_at, first.len() + rest.len())
        });
    }
    for (first_at, length) in callers.join_all().await {
        assert!(first_at < ms(200), "{first_at:?}");
        assert_eq!(length, 600_000);
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_variant_is_one_call() {
    let origin = ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        sleep(ms(50)).await;
        let language = request.headers()["accept-language"].to_str().unwrap().to_owned();
        response(&[("vary", "accept-language"), ("cache-control", "max-age=60")], language)
    });
    let service = stack(Rules::new()).layer(origin.clone());
    let mut callers = JoinSet::new();
    for n in 0..3000 {
        let service = service.clone();
        let language = ["de", "en", "fr"][n % 3];
        callers.spawn(async move {
            let mut request = get_request(URI);
            request.headers_mut().insert("accept-language", language.parse().unwrap());
            (language, call(&service, request).await.1)
        });
    }
    for (language, got) in callers.join_all().await {
        assert_eq!(got, language);
    }
    assert_eq!(origin.calls(), 3);
}

/// A waiting caller never gets a response for the first caller alone.
#[tokio::test(start_paused = true)]
async fn no_caller_gets_a_private_response_of_another() {
    for personal in [("cache-control", "private, max-age=60"), ("set-cookie", "sid=1"), ("vary", "*")] {
        let origin = ScriptedOrigin::with_future(move |n, request: Request<Body>| async move {
            sleep(ms(10)).await;
            let who = request.headers()["x-who"].to_str().unwrap().to_owned();
            if n == 1 {
                // Storable at first, with a validator; personal from then on, also as 304.
                return response(&[("cache-control", "max-age=1"), ("etag", "\"1\"")], "shared");
            }
            match request.headers().contains_key("if-none-match") {
                true => response(&[personal], "").status(304),
                false => response(&[personal], who),
            }
        });
        let service = stack(Rules::new()).layer(origin.clone());
        let ask = |who: usize| {
            let service = service.clone();
            async move {
                let mut request = get_request(URI);
                request.headers_mut().insert("x-who", who.into());
                service.oneshot(request).await.unwrap()
            }
        };
        assert_eq!(bytes(ask(0).await).await, "shared");
        sleep(Duration::from_secs(2)).await;
        let answers = futures_util::future::join_all((1..100).map(ask)).await;
        let mut signed = 0;
        for (answer, who) in answers.into_iter().zip(1..) {
            signed += usize::from(answer.headers().contains_key(personal.0));
            let body = bytes(answer).await;
            assert!(body == who.to_string() || body == "shared", "{body:?} for {who}");
        }
        // A 304 with `Vary: *` confirms nothing: the request is sent once more without conditions.
        let calls = if personal.0 == "vary" { 2 } else { 1 };
        assert_eq!(origin.calls(), 1 + calls * signed, "{personal:?}: each personal answer has its own call");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_with_and_without_authorization_share_no_private_fetch() {
    let origin = ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        sleep(ms(10)).await;
        let who = request.headers().get("authorization").map_or("anonymous", |who| who.to_str().unwrap());
        response(&[("cache-control", "max-age=60")], who.to_owned())
    });
    let service = stack(Rules::new()).layer(origin.clone());
    let answers = futures_util::future::join_all((0..200).map(|n| {
        let service = service.clone();
        async move {
            let mut request = get_request(URI);
            if n % 2 == 0 {
                request.headers_mut().insert("authorization", format!("user {n}").parse().unwrap());
            }
            (n, call(&service, request).await.1)
        }
    }))
    .await;
    for (n, body) in answers {
        assert_eq!(body, if n % 2 == 0 { format!("user {n}") } else { "anonymous".into() });
    }
    assert_eq!(origin.calls(), 101, "one for all anonymous requests");
}

#[tokio::test(start_paused = true)]
async fn requests_with_cookies_do_not_share_a_response_fresh_by_rules_alone() {
    let origin = ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        sleep(ms(10)).await;
        let who = request.headers().get("cookie").map_or("anonymous", |who| who.to_str().unwrap());
        response(&[], who.to_owned())
    });
    for first_has_cookie in [true, false] {
        let service = stack(fixed(60_000)).layer(origin.clone());
        let before = origin.calls();
        let answers = futures_util::future::join_all((0..200).map(|n| {
            let service = service.clone();
            async move {
                let mut request = get_request(URI);
                if (n % 2 == 0) == first_has_cookie {
                    request.headers_mut().insert("cookie", format!("u={n}").parse().unwrap());
                }
                (n, call(&service, request).await.1)
            }
        }))
        .await;
        for (n, body) in answers {
            let has_cookie = (n % 2 == 0) == first_has_cookie;
            assert_eq!(body, if has_cookie { format!("u={n}") } else { "anonymous".into() });
        }
        assert_eq!(origin.calls() - before, 101);
    }
}
