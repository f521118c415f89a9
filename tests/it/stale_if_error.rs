//! Stale responses that are served instead of a failure (RFC 5861 §4).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_readthrough::{
    FillLayer, KeyLayer, LookupLayer, MemoryStore, OriginLimitLayer, Refused, Rules, Stale, StaleIfErrorLayer,
};

use crate::support::{
    Body, Failure, Reply, ScriptedOrigin, ScriptedResponse, collect, error, get, get_with, hangs, ms, ok,
    request, secs, send, settle, status, try_send,
};

type Boxed<E = Failure> = BoxCloneService<Request<Body>, Response<Stored>, E>;
type Stored = tower_readthrough::Body<tower_readthrough::Body<tower_readthrough::Body<Body>>>;

/// Lookup, StaleIfError and Fill over an origin.
fn stack(rules: Rules, origin: &ScriptedOrigin) -> Boxed {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(rules))
        .service(origin.clone())
        .boxed_clone()
}

fn rules() -> Rules {
    Rules::new().default_ttl(secs(10)).stale_if_error_for(secs(60))
}

/// An origin that responds once, and fails from then on.
fn failing(
    first: impl Fn() -> ScriptedResponse + Send + Sync + 'static,
    then: impl Fn() -> ScriptedResponse + Send + Sync + 'static,
) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, _| if call == 1 { first() } else { then() })
}

fn is_stale(reply: &Reply) -> bool {
    reply.cache_status.and_then(|status| status.stale_reason()) == Some(Stale::IfError)
}

async fn filled(rules: Rules, origin: &ScriptedOrigin) -> Boxed {
    let service = stack(rules, origin);
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
    assert_eq!(origin.calls(), 1);
    service
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_failure_is_covered_by_a_stale_response() {
    type Failing = fn() -> ScriptedResponse;
    let failures: [(&str, Failing); 5] = [
        ("an error", error),
        ("500", || status(500).chunk("broken")),
        ("502", || status(502)),
        ("503", || status(503).header("retry-after", "9")),
        ("504", || status(504)),
    ];
    for (name, failure) in failures {
        let origin = failing(|| ok("good").header("x", "kept"), failure);
        let service = filled(rules(), &origin).await;
        tokio::time::advance(secs(30)).await;
        for calls in 2..5 {
            let reply = get(&service, "/").await;
            assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"good"[..]), "{name}");
            assert!(is_stale(&reply), "{name}");
            let from_origin = if name == "an error" { String::new() } else { format!(" fwd-status={name};") };
            assert_eq!(reply.cache(), format!("fwd=stale;{from_origin} detail=stale-if-error"));
            assert_eq!((reply.age(), reply.header("x")), (Some(30), Some("kept")), "{name}");
            assert_eq!(reply.header("retry-after"), None);
            assert_eq!(origin.calls(), calls, "the origin is asked each time");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_other_status_is_passed_on() {
    for code in [301, 304, 400, 401, 403, 404, 405, 410, 418, 429, 451, 501, 505, 507, 599] {
        let origin = failing(|| ok("good"), move || status(code).header("x", "mine").chunk("body"));
        let service = filled(rules(), &origin).await;
        tokio::time::advance(secs(30)).await;
        let reply = get(&service, "/").await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (code, &b"body"[..]));
        assert_eq!(reply.header("x"), Some("mine"), "{code}");
        assert!(!is_stale(&reply));
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_response_is_fresh_the_origin_is_not_called() {
    let origin = failing(|| ok("good"), error);
    let service = filled(rules(), &origin).await;
    tokio::time::advance(ms(9_999)).await;
    let reply = get(&service, "/").await;
    assert_eq!((reply.cache().as_str(), origin.calls()), ("hit", 1));
    assert!(!is_stale(&reply));
}

#[tokio::test(start_paused = true)]
async fn the_window_ends_to_the_millisecond() {
    for (after, usable) in [(10_000, true), (69_999, true), (70_000, false), (70_001, false)] {
        let origin = failing(|| ok("good"), || status(503));
        let service = filled(rules(), &origin).await;
        tokio::time::advance(ms(after)).await;
        let reply = get(&service, "/").await;
        assert_eq!(origin.calls(), 2);
        assert_eq!((is_stale(&reply), reply.status == StatusCode::OK), (usable, usable), "{after}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_is_checked_when_the_failure_arrives() {
    for (delay, usable) in [(999, true), (1_000, false)] {
        let origin = failing(|| ok("good"), move || status(503).after(ms(delay)));
        let service = filled(rules(), &origin).await;
        tokio::time::advance(ms(69_000)).await;
        let reply = get(&service, "/").await;
        assert_eq!(is_stale(&reply), usable, "{delay}");
        if usable {
            assert_eq!(reply.age(), Some(69), "the age is that of the moment in which it goes out");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_counts_from_the_end_of_the_lifetime_even_if_the_response_came_stale() {
    for (after, usable) in [(ms(4_999), true), (ms(5_000), false)] {
        // Kept for revalidation for longer, so that it is the window that ends here.
        let said = "max-age=10, stale-if-error=10";
        let first =
            move || ok("good").header("cache-control", said).header("age", "15").header("etag", "\"1\"");
        let origin = failing(first, || status(503));
        let service = filled(rules(), &origin).await;
        tokio::time::advance(after).await;
        assert_eq!(is_stale(&get(&service, "/").await), usable, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_of_zero_is_none() {
    let origin = failing(|| ok("good").header("etag", "\"1\""), || status(503));
    let service = filled(rules().stale_if_error_for(Duration::ZERO), &origin).await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(get(&service, "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_window_without_end_lasts_for_decades() {
    let origin = failing(|| ok("good"), || status(503));
    let service = filled(rules().stale_if_error_for(Duration::MAX), &origin).await;
    tokio::time::advance(secs(30 * 365 * 24 * 3600)).await;
    let reply = get(&service, "/").await;
    assert!(is_stale(&reply));
    assert_eq!(reply.age(), Some(30 * 365 * 24 * 3600));
}

#[tokio::test(start_paused = true)]
async fn the_default_window_is_an_hour() {
    let origin = failing(|| ok("good").max_age(10), error);
    let service = filled(Rules::new(), &origin).await;
    tokio::time::advance(ms(3_609_999)).await;
    assert!(is_stale(&get(&service, "/").await));
    tokio::time::advance(ms(1)).await;
    assert!(try_send(&service, request("GET", "/", &[])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_window_of_the_response_wins() {
    for (said, last, first_too_late) in [
        ("max-age=10, stale-if-error=5", Some(14_999), 15_000),
        ("max-age=10, stale-if-error=100", Some(109_999), 110_000),
        ("max-age=10, stale-if-error=0", None, 10_000),
        ("max-age=10, stale-if-error=soon", Some(69_999), 70_000),
    ] {
        let origin = failing(move || ok("good").header("cache-control", said), || status(502));
        let service = filled(rules(), &origin).await;
        let begun = tokio::time::Instant::now();
        if let Some(last) = last {
            tokio::time::advance(ms(last)).await;
            assert!(is_stale(&get(&service, "/").await), "{said}");
        }
        tokio::time::advance(ms(first_too_late) - begun.elapsed()).await;
        assert_eq!(get(&service, "/").await.status, StatusCode::BAD_GATEWAY, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn directives_that_forbid_a_stale_response_win() {
    for said in [
        "max-age=10, must-revalidate",
        "max-age=10, proxy-revalidate",
        "s-maxage=10",
        "max-age=10, stale-if-error=60, must-revalidate",
    ] {
        for window in [secs(60), Duration::MAX] {
            let first = move || ok("good").header("cache-control", said).header("etag", "\"1\"");
            let origin = failing(first, || status(503));
            let service = filled(rules().stale_if_error_for(window), &origin).await;
            tokio::time::advance(ms(9_999)).await;
            assert_eq!(get(&service, "/").await.cache(), "hit", "{said}");
            tokio::time::advance(ms(1)).await;
            assert_eq!(get(&service, "/").await.status, StatusCode::SERVICE_UNAVAILABLE, "{said}");
        }
    }
    // No lifetime at all: kept for revalidation, and for nothing else.
    let origin = failing(|| ok("good").header("cache-control", "no-cache").header("etag", "\"1\""), error);
    let service = filled(rules(), &origin).await;
    assert!(try_send(&service, request("GET", "/", &[])).await.is_err());
    assert_eq!(origin.last_request().headers["if-none-match"], "\"1\"", "it was there to be confirmed");
    // Nor does a fixed lifetime open a window that the origin closed.
    let origin = failing(|| ok("good").header("cache-control", "no-cache"), error);
    let service = filled(rules().fixed_ttl(secs(10)), &origin).await;
    tokio::time::advance(secs(10)).await;
    assert!(try_send(&service, request("GET", "/", &[])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_head_request_gets_the_head_of_the_stale_response() {
    let origin = failing(|| ok("good"), error);
    let service = filled(rules(), &origin).await;
    tokio::time::advance(secs(11)).await;
    let reply = send(&service, request("HEAD", "/", &[])).await;
    assert!(is_stale(&reply));
    assert_eq!((reply.status, reply.header("content-length")), (StatusCode::OK, Some("4")));
    assert_eq!(reply.age(), Some(11));
    assert!(reply.body.is_empty());
    assert_eq!(origin.last_request().method, "HEAD");
}

#[tokio::test(start_paused = true)]
async fn the_condition_of_the_client_applies_to_the_stale_response() {
    let origin = failing(|| ok("good").header("etag", "\"1\""), error);
    let service = filled(rules(), &origin).await;
    tokio::time::advance(secs(11)).await;
    let reply = get_with(&service, "/", &[("if-none-match", "\"1\"")]).await;
    assert_eq!((reply.status, reply.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert!(is_stale(&reply));
    let reply = get_with(&service, "/", &[("if-none-match", "\"2\"")]).await;
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"good"[..]));
}

#[tokio::test(start_paused = true)]
async fn nothing_stored_means_the_failure_passes() {
    let origin = ScriptedOrigin::always(|| status(503).header("x", "mine").chunk("down"));
    let service = stack(rules(), &origin);
    let reply = get(&service, "/").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("x"), &reply.body[..]),
        (503, Some("mine"), &b"down"[..])
    );
    let origin = ScriptedOrigin::always(error);
    assert_eq!(try_send(&stack(rules(), &origin), request("GET", "/", &[])).await.unwrap_err(), Failure);
}

#[tokio::test(start_paused = true)]
async fn other_keys_methods_and_variants_get_no_stale_response() {
    let origin = failing(|| ok("good").header("vary", "accept-language"), || status(503));
    let service = filled(rules(), &origin).await;
    tokio::time::advance(secs(11)).await;
    for other in [
        request("GET", "/other", &[]),
        request("POST", "/", &[]),
        request("GET", "/", &[("accept-language", "de")]),
        request("GET", "/", &[]).map(|_| Body::from("content")),
    ] {
        assert_eq!(send(&service, other).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(is_stale(&get(&service, "/").await));
    let part = get_with(&service, "/", &[("range", "bytes=0-1")]).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &b"go"[..]), "and a part of it");
}

#[tokio::test(start_paused = true)]
async fn a_response_to_anonymous_requests_covers_no_failure_for_credentials() {
    let origin = failing(|| ok("good"), || status(503));
    let service = filled(rules(), &origin).await;
    tokio::time::advance(secs(11)).await;
    for field in ["authorization", "cookie"] {
        let reply = get_with(&service, "/", &[(field, "me")]).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_origin_recovers_its_response_is_served() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("old"),
        2 | 3 => status(500),
        _ => ok("new"),
    });
    let service = filled(rules(), &origin).await;
    tokio::time::advance(secs(11)).await;
    assert_eq!(get(&service, "/").await.body, "old");
    assert_eq!(get(&service, "/").await.body, "old");
    assert_eq!(get(&service, "/").await.body, "new");
    assert_eq!(get(&service, "/").await.cache(), "hit");
    assert_eq!(origin.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_a_lifetime_does_not_displace_a_stale_response() {
    async fn check<S, B>(service: S, origin: &ScriptedOrigin)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Failure> + Clone,
        B: http_body::Body<Data = bytes::Bytes>,
    {
        assert_eq!(get(&service, "/").await.body, "good");
        tokio::time::advance(secs(11)).await;
        for calls in 2..5 {
            let reply = get(&service, "/").await;
            assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"good"[..]));
            assert_eq!(origin.calls(), calls);
        }
        // Without a better response the failure is stored, as it asks for.
        tokio::time::advance(secs(60)).await;
        for _ in 0..3 {
            let reply = get(&service, "/").await;
            assert_eq!((reply.status.as_u16(), origin.calls()), (503, 5));
        }
    }
    // An empty body is complete with its head.
    let fails = || failing(|| ok("good"), || status(503).max_age(60));
    let below = |store: &MemoryStore, origin: &ScriptedOrigin| {
        let fill = FillLayer::new(store.clone()).rules(rules());
        StaleIfErrorLayer::new(store.clone()).layer(fill.layer(origin.clone()))
    };
    let (store, origin) = (MemoryStore::with_capacity_bytes(1 << 20), fails());
    check(LookupLayer::new(store.clone()).layer(below(&store, &origin)), &origin).await;
    let (store, origin) = (MemoryStore::with_capacity_bytes(1 << 20), fails());
    check(KeyLayer::default().layer(below(&store, &origin)), &origin).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_for_one_client_does_not_displace_the_stored_response() {
    let german = ("accept-language", "de");
    for (client, vary) in [(("authorization", "Basic eA=="), None), (german, Some("accept-language"))] {
        let origin = failing(
            move || {
                let answer = ok("good").max_age(60);
                if let Some(vary) = vary { answer.header("vary", vary) } else { answer }
            },
            || status(503).header("cache-control", "public, max-age=60"),
        );
        let service = filled(rules(), &origin).await;
        assert_eq!(get_with(&service, "/", &[client]).await.status, 503);
        let reply = get(&service, "/").await;
        assert_eq!((reply.body, origin.calls()), ("good".into(), 2), "{client:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stored_failure_does_not_keep_the_next_one_out() {
    let origin = ScriptedOrigin::always(|| status(503).max_age(10));
    let service = stack(rules(), &origin);
    for round in 1..=3 {
        get(&service, "/").await;
        assert!(get(&service, "/").await.is_hit());
        assert_eq!(origin.calls(), round);
        tokio::time::advance(secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_without_lookup_finds_the_stale_response() {
    let origin = failing(|| ok("good"), || status(503));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ServiceBuilder::new()
        .layer(KeyLayer::default())
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(rules()))
        .service(origin.clone());
    assert_eq!(get(&service, "/").await.body, "good");
    assert_eq!(get(&service, "/").await.body, "good");
    assert_eq!(origin.calls(), 1, "Fill looks into the store too");
    tokio::time::advance(secs(69)).await;
    let reply = get(&service, "/").await;
    assert!(is_stale(&reply));
    assert_eq!((&reply.body[..], reply.age(), origin.calls()), (&b"good"[..], Some(69), 2));
    let head = send(&service, request("HEAD", "/", &[])).await;
    assert!(is_stale(&head) && head.body.is_empty());
    tokio::time::advance(secs(1)).await;
    assert_eq!(get(&service, "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_passes_a_request_without_a_key_through() {
    let origin = ScriptedOrigin::always(|| status(503));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = StaleIfErrorLayer::new(store).layer(origin.clone());
    assert_eq!(get(&service, "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&service, "/").await.cache(), "not asked");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_below_is_a_failure() {
    let origin = failing(|| ok("good"), hangs);
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(rules()))
        .timeout(secs(2))
        .service(origin.clone());
    assert_eq!(get(&service, "/").await.body, "good");
    tokio::time::advance(secs(20)).await;
    let reply = get(&service, "/").await;
    assert!(is_stale(&reply));
    assert_eq!((&reply.body[..], reply.age()), (&b"good"[..], Some(22)));
    tokio::time::advance(secs(60)).await;
    let error: BoxError = try_send(&service, request("GET", "/", &[])).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "the error is the one of the service");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_origin_limit_is_a_failure() {
    let origin = ScriptedOrigin::new(|_, head| if head.uri.path() == "/slow" { hangs() } else { ok("good") });
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(rules()))
        .layer(OriginLimitLayer::new(1).max_queue_wait(ms(50)))
        .service(origin.clone());
    assert_eq!(get(&service, "/").await.body, "good");
    let slow = tokio::spawn(service.clone().oneshot(request("GET", "/slow", &[])));
    settle().await;
    tokio::time::advance(secs(20)).await;
    let reply = get(&service, "/").await;
    assert!(is_stale(&reply));
    assert_eq!((&reply.body[..], origin.calls()), (&b"good"[..], 2));
    let cold = get(&service, "/cold").await;
    assert_eq!((cold.status.as_u16(), cold.extensions.get()), (503, Some(&Refused::QueueTimeout)));
    slow.abort();
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_gets_the_failure_of_the_origin() {
    // A stale response given to the refresh would be taken for one of the origin.
    let down = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&down);
    let origin =
        ScriptedOrigin::new(move |_, _| if switch.load(Ordering::SeqCst) { status(503) } else { ok("good") });
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let learned = Arc::new(Mutex::new(Vec::new()));
    let spy = Arc::clone(&learned);
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .map_response(move |response: Response<_>| {
            spy.lock().unwrap().push(response.status().as_u16());
            response
        })
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(rules().stale_while_revalidate_for(secs(30))))
        .service(origin.clone());
    get(&service, "/").await;
    down.store(true, Ordering::SeqCst);
    tokio::time::advance(secs(11)).await;
    let reply = get(&service, "/").await;
    let reason = reply.cache_status.unwrap().stale_reason();
    assert_eq!(reason, Some(Stale::WhileRevalidating));
    settle().await;
    assert_eq!(origin.calls(), 2);
    assert_eq!(*learned.lock().unwrap(), [200, 503]);
    assert_eq!(get(&service, "/").await.age(), Some(11), "the failure changed nothing");
    // Past that window the same response is served while the origin fails.
    tokio::time::advance(secs(30)).await;
    let reply = get(&service, "/").await;
    assert!(is_stale(&reply));
    assert_eq!(reply.age(), Some(41));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_passed_on_and_the_stale_response_kept() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("good"),
        2 => ok("ba").cut(),
        _ => status(503),
    });
    let service = filled(rules(), &origin).await;
    tokio::time::advance(secs(11)).await;
    let reply = get(&service, "/").await;
    assert!(reply.is_cut);
    let reply = get(&service, "/").await;
    assert!(is_stale(&reply));
    assert_eq!(reply.body, "good");
}

#[tokio::test(start_paused = true)]
async fn stale_if_error_is_ready_when_its_service_is_not() {
    let (mut service, mut origin) = tower_test::mock::spawn_with(|mock| {
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let fill = FillLayer::new(store.clone()).rules(rules());
        KeyLayer::default().layer(StaleIfErrorLayer::new(store).layer(fill.layer(mock)))
    });
    origin.allow(1);
    let answer = tokio::spawn(service.get_mut().clone().oneshot(request("GET", "/", &[])));
    let (_, respond) = origin.next_request().await.unwrap();
    respond.send_response(Response::new(Body::from("good")));
    collect(answer.await.unwrap().unwrap()).await;
    tokio::time::advance(secs(11)).await;
    // Even a service that fails for good is covered.
    tokio_test::assert_ready_ok!(service.poll_ready());
    origin.send_error(Failure);
    let reply = service.get_mut().clone().oneshot(request("GET", "/", &[])).await.unwrap();
    assert_eq!(collect(reply).await.body, "good");
}

#[test]
fn stale_if_error_works_without_a_runtime() {
    // The response arrives as old as its lifetime, so that no clock is needed.
    let origin = failing(|| ok("good").max_age(1).header("age", "1"), || status(503));
    let service = stack(Rules::new(), &origin);
    assert_eq!(get(&service, "/").now_or_never().unwrap().body, "good");
    let reply = get(&service, "/").now_or_never().unwrap();
    assert!(is_stale(&reply));
    assert_eq!((&reply.body[..], origin.calls()), (&b"good"[..], 2));
}
