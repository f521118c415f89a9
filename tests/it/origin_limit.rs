//! The limit of attempts at the origin at a time, the queue, and refusals.

use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use tokio::{task::JoinHandle, time::Instant};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_readthrough::{Body, MemoryStore, OriginLimit, OriginLimitLayer, Refused, Rules, StoreLayer};

mod order;
mod outcomes;
mod whole;

use crate::support::{
    Failure, Reply, ScriptedOrigin, ScriptedResponse, collect, error, get, hangs, ms, ok, panics, request,
    secs, send, serve, settle, status, try_send,
};

type Service = OriginLimit<ScriptedOrigin>;
type Answered = Result<Response<Body<crate::support::Body>>, Failure>;

/// Sends a request from a client that holds the response without reading it.
fn open(service: &Service, path: &str) -> JoinHandle<Answered> {
    tokio::spawn(service.clone().oneshot(request("GET", path, &[])))
}

/// A response with an unread body.
async fn opened(service: &Service) -> Response<Body<crate::support::Body>> {
    service.clone().oneshot(request("GET", "/", &[])).await.unwrap()
}

/// One place at the origin and none in the queue: a second request is refused at once.
fn single(answer: impl Fn() -> ScriptedResponse + Send + Sync + 'static) -> (ScriptedOrigin, Service) {
    let origin = ScriptedOrigin::always(answer);
    let service = OriginLimitLayer::new(1).max_queue(0).layer(origin.clone());
    (origin, service)
}

fn refused(reply: &Reply) -> Option<Refused> {
    reply.extensions.get().copied()
}

#[tokio::test(start_paused = true)]
async fn attempts_at_a_time_never_exceed_the_limit() {
    for limit in [1, 3, 10] {
        let origin = ScriptedOrigin::always(|| ok("x").after(ms(10)));
        let layer = OriginLimitLayer::new(limit).max_queue_wait(secs(60));
        let service = layer.layer(origin.clone());
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let service = service.clone();
                tokio::spawn(async move { get(&service, "/").await.status })
            })
            .collect();
        for client in clients {
            assert_eq!(client.await.unwrap(), StatusCode::OK);
        }
        assert_eq!(origin.calls(), 100);
        assert_eq!(origin.most_under_way(), limit);
    }
}

#[tokio::test(start_paused = true)]
async fn services_made_from_one_layer_and_its_clones_share_the_limit() {
    let origin = ScriptedOrigin::always(|| ok("x").after(secs(1)));
    let layer = OriginLimitLayer::new(1).max_queue(0);
    let (one, two) = (layer.layer(origin.clone()), layer.clone().layer(origin.clone()));
    let first = open(&one, "/");
    settle().await;
    assert_eq!(refused(&get(&two, "/").await), Some(Refused::QueueFull));
    assert_eq!(refused(&get(&one.clone(), "/").await), Some(Refused::QueueFull));
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    let other = OriginLimitLayer::new(1).max_queue(0).layer(origin.clone());
    let (here, there) = tokio::join!(get(&one, "/"), get(&other, "/"));
    assert_eq!((here.status, there.status), (StatusCode::OK, StatusCode::OK), "two layers, two limits");
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_body_ends() {
    use http_body_util::BodyExt;
    let (_, service) = single(|| ok("one").chunk("two"));
    let mut body = opened(&service).await.into_body();
    assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull));
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull));
    // With the last frame the body is at its end, and is not polled once more.
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(get(&service, "/").await.body, "onetwo");
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_trailers_are_in() {
    use http_body_util::BodyExt;
    let (_, service) = single(|| ok("one").trailer("x-sum", "1"));
    let mut body = opened(&service).await.into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull));
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert_eq!(get(&service, "/").await.trailers.unwrap()["x-sum"], "1");
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_body_is_dropped() {
    let (origin, service) = single(|| ok("x"));
    let response = opened(&service).await;
    assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull));
    drop(response);
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_body_fails() {
    use http_body_util::BodyExt;
    let (_, service) = single(|| ok("x").cut());
    let mut body = opened(&service).await.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull));
    assert!(body.frame().await.unwrap().is_err());
    assert!(get(&service, "/").await.is_cut, "the next one got through");
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_holds_nothing() {
    let (_, service) = single(|| ok(""));
    let held = opened(&service).await;
    assert_eq!(opened(&service).await.status(), StatusCode::OK);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_frees_its_permit() {
    let (origin, service) = single(error);
    for calls in 1..5 {
        assert_eq!(try_send(&service, request("GET", "/", &[])).await.unwrap_err(), Failure);
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_frees_its_permit() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { hangs() } else { ok("x") });
    let service = OriginLimitLayer::new(1).max_queue(0).layer(origin.clone());
    let first = open(&service, "/");
    settle().await;
    assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull));
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_panic_frees_its_permit() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { panics() } else { ok("x") });
    let service = OriginLimitLayer::new(1).max_queue(0).layer(origin.clone());
    assert!(open(&service, "/").await.unwrap_err().is_panic());
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_never_polled_holds_nothing() {
    let (_, service) = single(|| ok("x"));
    let lazy = service.clone().oneshot(request("GET", "/", &[]));
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
    drop(lazy);
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_queue_are_refused() {
    for places in [0, 1, 5] {
        let origin = ScriptedOrigin::always(|| ok("").after(ms(100)));
        let service = OriginLimitLayer::new(2).max_queue(places).layer(origin.clone());
        let clients: Vec<_> = (0..2 + places).map(|_| open(&service, "/")).collect();
        settle().await;
        // The queue is full, and later requests are refused at once.
        let came = Instant::now();
        for _ in 0..3 {
            assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull), "{places}");
        }
        assert_eq!(came.elapsed(), Duration::ZERO);
        for client in clients {
            assert_eq!(client.await.unwrap().unwrap().status(), StatusCode::OK);
        }
        assert_eq!(origin.calls(), 2 + places);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_the_queue_frees_its_place() {
    let origin = ScriptedOrigin::always(|| ok("").after(ms(100)));
    let service = OriginLimitLayer::new(1).max_queue(1).layer(origin.clone());
    let first = open(&service, "/");
    settle().await;
    for _ in 0..10 {
        let waiting = open(&service, "/");
        settle().await;
        assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull));
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
    }
    let next = open(&service, "/");
    assert!(first.await.unwrap().is_ok());
    assert_eq!(next.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(origin.calls(), 2, "a caller that left never reached the origin");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_refused_after_max_queue_wait() {
    let origin = ScriptedOrigin::always(|| ok("").after(ms(1_000)));
    let service = OriginLimitLayer::new(1).max_queue_wait(ms(250)).layer(origin.clone());
    let first = open(&service, "/");
    settle().await;
    let came = Instant::now();
    assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueTimeout));
    assert!(came.elapsed() >= ms(250) && came.elapsed() <= ms(251), "{:?}", came.elapsed());
    assert!(first.await.unwrap().is_ok());
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gets_a_permit_before_the_deadline_passes() {
    let origin = ScriptedOrigin::always(|| ok("").after(ms(90)));
    let service = OriginLimitLayer::new(1).max_queue_wait(ms(100)).layer(origin.clone());
    let (first, second, third) = tokio::join!(get(&service, "/"), get(&service, "/"), get(&service, "/"));
    assert_eq!([first.status, second.status].map(|status| status.as_u16()), [200, 200]);
    assert_eq!(refused(&third), Some(Refused::QueueTimeout));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_timeout_the_place_in_the_queue_is_free_again() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { hangs() } else { ok("") });
    let service = OriginLimitLayer::new(1).max_queue(1).max_queue_wait(ms(10)).layer(origin.clone());
    let first = open(&service, "/");
    settle().await;
    for _ in 0..5 {
        assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueTimeout));
    }
    first.abort();
    assert!(first.await.is_err());
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_wait_may_be_unbounded() {
    let origin = ScriptedOrigin::always(|| ok("").after(secs(3600)));
    let service = OriginLimitLayer::new(1).max_queue_wait(Duration::MAX).layer(origin.clone());
    let (first, second) = tokio::join!(get(&service, "/"), get(&service, "/"));
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_first_in_first_out() {
    // Less than the time after which the newest goes first.
    let origin = ScriptedOrigin::always(|| ok("").after(ms(5)));
    let service = OriginLimitLayer::new(1).layer(origin.clone());
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(open(&service, &format!("/{number}")));
        settle().await;
    }
    for client in clients {
        assert!(client.await.unwrap().is_ok());
    }
    let order: Vec<_> = (1..=20).map(|call| origin.request(call).uri.path().to_owned()).collect();
    assert_eq!(order, (0..20).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_new_request_does_not_overtake_the_queue_when_a_permit_is_freed() {
    let origin = ScriptedOrigin::always(|| ok("x"));
    let service = OriginLimitLayer::new(1).layer(origin.clone());
    let holder = opened(&service).await;
    let waiting = open(&service, "/waiting");
    settle().await;
    drop(holder);
    let late = open(&service, "/late");
    let waiting = waiting.await.unwrap().unwrap();
    assert_eq!(origin.last_request().uri.path(), "/waiting");
    drop(waiting);
    assert!(late.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_empty_503_with_retry_after_in_whole_seconds() {
    for (retry_after, seconds) in [
        (ms(0), "0"),
        (ms(1), "1"),
        (ms(1_000), "1"),
        (ms(1_001), "2"),
        (Duration::MAX, "18446744073709551615"),
    ] {
        let origin = ScriptedOrigin::always(hangs);
        let service = OriginLimitLayer::new(1).max_queue(0).retry_after(retry_after).layer(origin.clone());
        let _first = open(&service, "/");
        settle().await;
        let reply = get(&service, "/").await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(reply.header("retry-after"), Some(seconds));
        assert_eq!(refused(&reply), Some(Refused::QueueFull));
        assert!(reply.body.is_empty());
    }
    let (_, service) = single(|| ok("x"));
    let _held = opened(&service).await;
    assert_eq!(get(&service, "/").await.header("retry-after"), Some("1"), "the default");
}

#[tokio::test(start_paused = true)]
async fn a_response_passes_unchanged() {
    let origin =
        ScriptedOrigin::always(|| ok("one").chunk("two").header("x", "1").header("x", "2").declares(6));
    let service = OriginLimitLayer::new(1).layer(origin.clone());
    let response = opened(&service).await;
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(6));
    let reply = collect(response).await;
    assert_eq!(reply.body, "onetwo");
    assert_eq!(reply.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(reply.headers.len(), 2);
    assert_eq!(refused(&reply), None);
}

#[tokio::test(start_paused = true)]
async fn requests_of_every_method_are_limited() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { hangs() } else { ok("") });
    let service = OriginLimitLayer::new(1).max_queue(0).layer(origin.clone());
    let _first = open(&service, "/");
    settle().await;
    for method in ["POST", "HEAD", "DELETE"] {
        let reply = try_send(&service, request(method, "/", &[])).await.unwrap();
        assert_eq!(refused(&reply), Some(Refused::QueueFull), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn over_a_concurrency_limit_of_one_nothing_hangs() {
    let origin = ScriptedOrigin::always(|| ok("x").after(ms(10)));
    let service =
        ServiceBuilder::new().layer(OriginLimitLayer::new(8)).concurrency_limit(1).service(origin.clone());
    // As a server does: make the service ready, then call that very one.
    let mut own = service.clone();
    for _ in 0..3 {
        assert_eq!(serve(&mut own, request("GET", "/", &[])).await.body, "x");
    }
    // A service that was made ready and is not called takes no permit.
    let mut idle = service.clone();
    ServiceExt::<Request<crate::support::Body>>::ready(&mut idle).await.unwrap();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { get(&service, "/").await.status })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(origin.most_under_way(), 1);
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn the_time_in_the_queue_is_not_part_of_the_age() {
    let origin = ScriptedOrigin::always(|| ok("x").after(secs(3)));
    let service = ServiceBuilder::new()
        .layer(
            StoreLayer::new(MemoryStore::with_capacity_bytes(1 << 20))
                .rules(Rules::new().default_ttl(secs(10))),
        )
        .layer(OriginLimitLayer::new(1).max_queue_wait(secs(60)))
        .service(origin.clone());
    let begun = Instant::now();
    tokio::join!(get(&service, "/first"), get(&service, "/second"));
    assert_eq!(begun.elapsed(), secs(6));
    let second = get(&service, "/second").await;
    assert!(second.cache_status.unwrap().is_hit());
    assert_eq!(second.age(), Some(3), "the attempt alone counts, not the wait for it");
    assert_eq!(get(&service, "/first").await.age(), Some(6));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_never_stored() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { hangs() } else { ok("x") });
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ServiceBuilder::new()
        .layer(
            StoreLayer::new(store.clone()).rules(Rules::new().default_ttl(secs(10)).negative_ttl(secs(10))),
        )
        .layer(OriginLimitLayer::new(1).max_queue(0))
        .service(origin.clone());
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/slow", &[])));
    settle().await;
    assert_eq!(get(&service, "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(store.stats().entries, 0, "neither the answer nor a marker");
    first.abort();
    assert!(first.await.is_err());
    assert_eq!(get(&service, "/").await.body, "x");
}

#[test]
fn the_limit_works_without_a_runtime() {
    let (origin, service) = single(|| ok("x"));
    assert_eq!(get(&service, "/").now_or_never().unwrap().body, "x");
    let queued = OriginLimitLayer::new(1).layer(origin);
    let held = opened(&queued).now_or_never().unwrap();
    let mut waiting = Box::pin(get(&queued, "/"));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(held);
    assert_eq!(waiting.now_or_never().unwrap().body, "x");
}

#[test]
fn enormous_limits_are_no_panic() {
    let origin = ScriptedOrigin::always(|| ok("x"));
    let service = OriginLimitLayer::new(usize::MAX).max_queue(usize::MAX).layer(origin);
    assert_eq!(get(&service, "/").now_or_never().unwrap().body, "x");
}
