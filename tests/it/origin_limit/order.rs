//! Which requests go first, which are dropped, and which do not wait at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use tower_readthrough::{CoalesceLayer, Failover, OriginHealth, ReadThrough, ReadThroughLayer};

/// The class that a request names in a field.
fn by_field(head: &http::request::Parts) -> u8 {
    let class = head.headers.get("class").and_then(|value| value.to_str().ok()?.parse().ok());
    class.unwrap_or(3)
}

fn with_class(path: &str, class: &str) -> Request<crate::support::Body> {
    request("GET", path, &[("class", class)])
}

/// A service whose only place is taken until the holder is dropped. Each attempt after that takes 1 ms.
async fn taken(layer: OriginLimitLayer) -> (ScriptedOrigin, Service, JoinHandle<Answered>) {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { hangs() } else { ok("").after(ms(1)) });
    let service = layer.layer(origin.clone());
    let holder = open(&service, "/holder");
    settle().await;
    (origin, service, holder)
}

async fn waits(service: &Service, request: Request<crate::support::Body>) -> JoinHandle<Answered> {
    let waiting = tokio::spawn(service.clone().oneshot(request));
    settle().await;
    waiting
}

/// The paths that reached the origin after the first, in their order.
fn order(origin: &ScriptedOrigin) -> Vec<String> {
    (2..=origin.calls()).map(|call| origin.request(call).uri.path().to_owned()).collect()
}

async fn release(holder: JoinHandle<Answered>) {
    holder.abort();
    assert!(holder.await.is_err());
    tokio::time::sleep(ms(500)).await;
}

#[tokio::test(start_paused = true)]
async fn the_best_class_goes_first() {
    let (origin, service, holder) = taken(OriginLimitLayer::new(1).priority(by_field)).await;
    for (path, class) in [("/7", "7"), ("/default", "-"), ("/3", "3"), ("/4", "4"), ("/0", "0")] {
        drop(waits(&service, with_class(path, class)).await);
    }
    release(holder).await;
    assert_eq!(order(&origin), ["/0", "/default", "/3", "/4", "/7"]);
}

#[tokio::test(start_paused = true)]
async fn without_an_extractor_all_are_alike() {
    let (origin, service, holder) = taken(OriginLimitLayer::new(1)).await;
    for (path, class) in [("/7", "7"), ("/0", "0")] {
        drop(waits(&service, with_class(path, class)).await);
    }
    release(holder).await;
    assert_eq!(order(&origin), ["/7", "/0"]);
}

#[tokio::test(start_paused = true)]
async fn a_class_that_there_is_not_and_a_panic_are_the_lowest() {
    let extractor = |head: &http::request::Parts| match head.uri.path() {
        "/panic" => panic!("on purpose"),
        "/255" => 255,
        "/8" => 8,
        _ => 6,
    };
    let (origin, service, holder) = taken(OriginLimitLayer::new(1).priority(extractor)).await;
    for path in ["/panic", "/255", "/8", "/6"] {
        drop(waits(&service, request("GET", path, &[])).await);
    }
    release(holder).await;
    assert_eq!(order(&origin), ["/6", "/panic", "/255", "/8"]);
}

#[tokio::test(start_paused = true)]
async fn in_a_full_queue_the_newest_of_the_lowest_class_is_refused() {
    let (origin, service, holder) = taken(OriginLimitLayer::new(1).max_queue(2).priority(by_field)).await;
    let first = waits(&service, with_class("/5a", "5")).await;
    let second = waits(&service, with_class("/5b", "5")).await;
    let third = waits(&service, with_class("/5c", "5")).await;
    assert!(third.is_finished() && !first.is_finished() && !second.is_finished());
    let better = waits(&service, with_class("/1", "1")).await;
    assert!(second.is_finished() && !first.is_finished() && !better.is_finished());
    for refused in [second, third] {
        let response = refused.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.extensions().get(), Some(&Refused::QueueFull));
    }
    release(holder).await;
    assert_eq!(order(&origin), ["/1", "/5a"]);
    assert!(first.await.unwrap().is_ok() && better.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_newest_goes_first_once_the_oldest_has_waited_for_100_ms() {
    let (origin, service, holder) = taken(OriginLimitLayer::new(1)).await;
    for path in ["/1", "/2", "/3"] {
        drop(waits(&service, request("GET", path, &[])).await);
    }
    tokio::time::advance(ms(100)).await;
    release(holder).await;
    assert_eq!(order(&origin), ["/3", "/2", "/1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_exempt_takes_no_permit_and_no_place() {
    let is_stream = |head: &http::request::Parts| head.uri.path() == "/events";
    let layer = OriginLimitLayer::new(1).max_queue(0).exempt(is_stream);
    let (_, service, holder) = taken(layer).await;
    let events = waits(&service, request("GET", "/events", &[])).await;
    assert!(!events.is_finished());
    tokio::time::sleep(ms(2)).await;
    let events = events.await.unwrap().unwrap();
    assert_eq!(events.status(), StatusCode::OK);
    assert_eq!(refused(&get(&service, "/").await), Some(Refused::QueueFull));
    // It takes none from the others either.
    holder.abort();
    assert!(holder.await.is_err());
    let stream = waits(&service, request("GET", "/events", &[])).await;
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
    assert!(stream.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_predicate_exempts_nothing() {
    let layer = OriginLimitLayer::new(1).max_queue(0).exempt(|_| panic!("on purpose"));
    let (origin, service, _holder) = taken(layer).await;
    assert_eq!(refused(&get(&service, "/events").await), Some(Refused::QueueFull));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_class_of_an_attempt_is_asked_for_once() {
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let layer = OriginLimitLayer::new(1).priority(|_| {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        3
    });
    let service = layer.layer(ScriptedOrigin::always(|| ok("").after(ms(1))));
    let (one, two) = tokio::join!(get(&service, "/"), get(&service, "/"));
    assert_eq!((one.status, two.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(LOOKS.load(Ordering::Relaxed), 2, "one of them has waited");
}

/// The same in a stack, where callers share fetches.
async fn taken_stack(layer: OriginLimitLayer) -> (ScriptedOrigin, Stack, JoinHandle<Answered>) {
    let quick = || ok("").max_age(60).after(ms(1));
    let origin = ScriptedOrigin::new(move |call, _| if call == 1 { hangs() } else { quick() });
    let stack = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).origin_limit(layer);
    let service = stack.build().unwrap().layer(origin.clone());
    let holder = tokio::spawn(service.clone().oneshot(request("POST", "/holder", &[])));
    settle().await;
    (origin, service, holder)
}

type Stack = ReadThrough<ScriptedOrigin, MemoryStore>;

async fn joins(service: &Stack, method: &str, path: &str, class: &str) {
    drop(tokio::spawn(service.clone().oneshot(request(method, path, &[("class", class)]))));
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_as_the_best_of_its_callers() {
    let (origin, service, holder) = taken_stack(OriginLimitLayer::new(1).priority(by_field)).await;
    for (method, path, class) in
        [("GET", "/shared", "7"), ("POST", "/single", "3"), ("GET", "/low", "7"), ("GET", "/shared", "0")]
    {
        joins(&service, method, path, class).await;
    }
    release(holder).await;
    assert_eq!(order(&origin), ["/shared", "/single", "/low"]);
}

#[tokio::test(start_paused = true)]
async fn every_fourth_permit_is_for_a_fetch_that_callers_can_share() {
    let (origin, service, holder) = taken_stack(OriginLimitLayer::new(1).priority(by_field)).await;
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        joins(&service, "POST", path, "0").await;
    }
    joins(&service, "GET", "/shared", "7").await;
    release(holder).await;
    assert_eq!(order(&origin), ["/1", "/2", "/3", "/shared", "/4", "/5"]);
}

#[tokio::test(start_paused = true)]
async fn one_place_in_four_is_for_fetches_that_callers_can_share() {
    let (origin, service, holder) =
        taken_stack(OriginLimitLayer::new(1).max_queue(4).priority(by_field)).await;
    for path in ["/1", "/2", "/3", "/4"] {
        joins(&service, "POST", path, "0").await;
    }
    joins(&service, "GET", "/shared", "7").await;
    joins(&service, "POST", "/5", "0").await;
    release(holder).await;
    assert_eq!(order(&origin), ["/1", "/2", "/3", "/shared"]);
}

/// As [`taken_stack`], where the limit belongs to the first of two origins, and the stack knows of none.
async fn taken_origins(
    limit: fn() -> OriginLimitLayer,
) -> (ScriptedOrigin, ReadThrough<Failover<ScriptedOrigin>, MemoryStore>, JoinHandle<Answered>) {
    let quick = || ok("").max_age(60).after(ms(1));
    let origin = ScriptedOrigin::new(move |call, _| if call == 1 { hangs() } else { quick() });
    let origins = Failover::builder(origin.clone(), [ScriptedOrigin::always(hangs)])
        .origin_limit(move |index| if index == 0 { limit() } else { OriginLimitLayer::unlimited() })
        .build()
        .unwrap();
    let stack = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
        .outage(origins.health().clone())
        .build()
        .unwrap();
    let service = stack.layer(origins);
    let holder = service.clone().oneshot(request("POST", "/holder", &[]));
    let holder = tokio::spawn(async move { holder.await.map(|response| response.map(|_| Body::default())) });
    settle().await;
    (origin, service, holder)
}

#[tokio::test(start_paused = true)]
async fn what_callers_can_share_has_its_part_under_the_limit_of_one_of_several_origins() {
    let (origin, service, holder) = taken_origins(|| OriginLimitLayer::new(1).priority(by_field)).await;
    let sent = |method: &str, path: &str, class: &str| {
        drop(tokio::spawn(service.clone().oneshot(request(method, path, &[("class", class)]))));
    };
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        sent("POST", path, "0");
        settle().await;
    }
    sent("GET", "/shared", "7");
    settle().await;
    release(holder).await;
    assert_eq!(order(&origin), ["/1", "/2", "/3", "/shared", "/4", "/5"]);
}

#[tokio::test(start_paused = true)]
async fn the_classes_of_one_of_several_origins_hold_for_what_callers_share() {
    let (origin, service, holder) = taken_origins(|| OriginLimitLayer::new(1).priority(by_field)).await;
    for (path, class) in [("/low", "7"), ("/high", "0"), ("/mean", "3")] {
        drop(tokio::spawn(service.clone().oneshot(request("GET", path, &[("class", class)]))));
        settle().await;
    }
    release(holder).await;
    assert_eq!(order(&origin), ["/high", "/mean", "/low"]);
}

#[tokio::test(start_paused = true)]
async fn what_callers_can_share_has_its_part_in_layers_put_together_by_hand() {
    let quick = || ok("").max_age(60).after(ms(1));
    let origin = ScriptedOrigin::new(move |call, _| if call == 1 { hangs() } else { quick() });
    let service = ServiceBuilder::new()
        .layer(CoalesceLayer::new())
        .layer(OriginLimitLayer::new(1).priority(by_field))
        .service(origin.clone());
    let sent = |method: &str, path: &str, class: &str| {
        tokio::spawn(service.clone().oneshot(request(method, path, &[("class", class)])))
    };
    let holder = sent("POST", "/holder", "0");
    settle().await;
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        drop(sent("POST", path, "0"));
        settle().await;
    }
    drop(sent("GET", "/shared", "7"));
    settle().await;
    holder.abort();
    assert!(holder.await.is_err());
    tokio::time::sleep(ms(500)).await;
    assert_eq!(order(&origin), ["/1", "/2", "/3", "/shared", "/4", "/5"]);
}

#[tokio::test(start_paused = true)]
async fn a_layer_without_a_limit_waits_under_that_of_another_one_with_the_same_health() {
    for method in ["GET", "POST"] {
        let health = OriginHealth::new();
        let origin = ScriptedOrigin::new(|call, _| if call == 1 { hangs() } else { ok("x") });
        let builder = || ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20));
        let (limited, plain) = (
            builder().outage(health.clone()).origin_limit(OriginLimitLayer::new(1)).build().unwrap(),
            builder().outage(health.clone()).build().unwrap(),
        );
        let (limited, plain) = (limited.layer(origin.clone()), plain.layer(origin.clone()));
        let held = tokio::spawn(limited.oneshot(request("GET", "/held", &[])));
        settle().await;
        let waiting = tokio::spawn(async move { send(&plain, request(method, "/", &[])).await });
        settle().await;
        assert_eq!(refused(&waiting.await.unwrap()), Some(Refused::QueueTimeout), "{method}");
        assert_eq!(origin.calls(), 1);
        held.abort();
    }
}
