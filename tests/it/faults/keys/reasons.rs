//! The reasons why a request has no key, and the refusals of the cache in `Cache-Status`.

use http::{Request, StatusCode};
use tower::{Layer, ServiceBuilder};
use tower_readthrough::{
    CacheKey, CacheStatus, CoalesceLayer, FillLayer, Forward, Guard, KeyRule, KeyRules, LookupLayer,
    MemoryStore, OriginLimitLayer, ReadThroughLayer, Refused, Rules, StoreLayer, Unkeyed,
};

use super::{Boxed, ask, boxed};

use crate::support::{Body, Reply, ScriptedOrigin, hangs, ms, ok, request, secs, send, settle, small_store};

fn rules() -> KeyRules {
    KeyRules::builder()
        .rule(KeyRule::path("/account/{*rest}").bypass())
        .rule(KeyRule::path("/report/{id}").extensions(["tenant"]))
        .rule(KeyRule::path("/a/{id}").ignore_query(["utm_*"]))
        .extension("tenant", |tenant: &u8| Some(std::slice::from_ref(tenant).into()))
        .guard(Guard::new())
        .build()
        .unwrap()
}

/// The assembled stack, the two layers round a store, and all layers by hand.
fn caches(shows_status: bool) -> [(&'static str, Boxed, ScriptedOrigin); 3] {
    let origin = || ScriptedOrigin::always(|| ok("x").max_age(60));
    let (first, second, third) = (origin(), origin(), origin());
    let stack = ReadThroughLayer::builder(small_store())
        .key(rules())
        .lookup(|lookup| lookup.cache_status(shows_status))
        .build()
        .unwrap();
    let own = small_store();
    let plain = ServiceBuilder::new()
        .layer(LookupLayer::new(own.clone()).key(rules()).cache_status(shows_status))
        .layer(FillLayer::new(own));
    let own = small_store();
    let by_hand = ServiceBuilder::new()
        .layer(LookupLayer::new(own.clone()).key(rules()).cache_status(shows_status))
        .layer(CoalesceLayer::new())
        .layer(FillLayer::new(own));
    [
        ("stack", boxed(stack.layer(first.clone())), first),
        ("store", boxed(plain.service(second.clone())), second),
        ("layers", boxed(by_hand.service(third.clone())), third),
    ]
}

fn without_host(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path)
}

/// Requests without a key, each with its reason.
fn unkeyed() -> Vec<(Request<Body>, Unkeyed, &'static str)> {
    let empty = |request: http::request::Builder| request.body(Body::default()).unwrap();
    let two_hosts = without_host("GET", "/").header("host", "a").header("host", "a");
    vec![
        (empty(without_host("GET", "/")), Unkeyed::NoHost, "no-host"),
        (empty(without_host("HEAD", "/")), Unkeyed::NoHost, "no-host"),
        (empty(two_hosts), Unkeyed::UnusableHost, "unusable-host"),
        (empty(without_host("GET", "/").header("host", "a b")), Unkeyed::UnusableHost, "unusable-host"),
        (request("GET", "/", &[("host", "other.example")]), Unkeyed::UnusableHost, "unusable-host"),
        (request("GET", "/account/7", &[]), Unkeyed::RuleBypass, "rule-bypass"),
        (request("HEAD", "/account/7", &[]), Unkeyed::RuleBypass, "rule-bypass"),
        (request("GET", "/x/..%2faccount/7", &[]), Unkeyed::AmbiguousPath, "ambiguous-path"),
        (request("GET", "/report/7", &[]), Unkeyed::MissingExtension, "missing-extension"),
        (request("GET", "/", &[]).map(|_| Body::from("body")), Unkeyed::Body, "body"),
        (
            request("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")]),
            Unkeyed::Upgrade,
            "upgrade",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn get_and_head_without_a_key_report_the_reason() {
    for (name, cache, origin) in caches(true) {
        for (number, (request, why, text)) in unkeyed().into_iter().enumerate() {
            let reply = ask(&cache, request).await;
            assert_eq!(reply.cache(), format!("fwd=bypass; detail={text}"), "{name}");
            let status = reply.cache_status.unwrap();
            assert_eq!(status.unkeyed_reason(), Some(why), "{name}");
            assert_eq!(status.forward_reason(), Some(Forward::Bypass), "{name}");
            let field = format!("tower-readthrough;fwd=bypass;detail={text}");
            assert_eq!(reply.header("cache-status"), Some(&*field), "{name}");
            assert_eq!(why.to_string(), text);
            assert_eq!(origin.calls(), number + 1, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_extractor_without_a_reason_reports_the_general_one() {
    let cache = ReadThroughLayer::builder(small_store())
        .key(|_: &http::request::Parts| None::<CacheKey>)
        .build()
        .unwrap();
    let reply = send(&cache.layer(ScriptedOrigin::always(|| ok("x"))), request("GET", "/", &[])).await;
    assert_eq!(reply.cache(), "fwd=bypass; detail=no-key");
}

#[tokio::test(start_paused = true)]
async fn other_methods_say_nothing_and_hidden_reasons_stay_in_the_extensions() {
    for (name, cache, _) in caches(true) {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let reply = ask(&cache, request(method, "/", &[])).await;
            assert_eq!((reply.cache_status, reply.header("cache-status")), (None, None), "{name} {method}");
        }
    }
    for (name, cache, _) in caches(false) {
        let reply = ask(&cache, request("GET", "/account/7", &[])).await;
        assert_eq!(reply.header("cache-status"), None, "{name}");
        assert_eq!(reply.cache(), "fwd=bypass; detail=rule-bypass", "{name}");
    }
}

/// The outer cache only passed the request on, and the inner cache decided.
#[tokio::test(start_paused = true)]
async fn the_cache_status_of_a_cache_below_is_kept() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let inner = ReadThroughLayer::builder(small_store()).build().unwrap();
    let outer = ReadThroughLayer::builder(small_store()).key(rules()).build().unwrap();
    let service = outer.layer(inner.layer(origin.clone()));
    send(&service, request("GET", "/account/7", &[])).await;
    let reply = send(&service, request("GET", "/account/7", &[])).await;
    assert_eq!(reply.cache(), "hit");
    assert_eq!(reply.headers.get_all("cache-status").iter().count(), 1);
    assert_eq!(origin.calls(), 1);
}

/// A request that is fetched for one client alone has a `Cache-Status` too.
#[tokio::test(start_paused = true)]
async fn a_request_with_a_key_that_is_for_one_client_alone_says_how_it_came_about() {
    let origin = ScriptedOrigin::always(|| ok("0123456789").max_age(60));
    let stack = ReadThroughLayer::builder(small_store()).lookup(|lookup| lookup.request_directives(true));
    let service = stack.build().unwrap().layer(origin);
    for (fields, says) in [
        (("cache-control", "no-store"), "fwd=request; detail=no-store"),
        (("range", "bytes=0-1,4-5"), "fwd=uri-miss; detail=partial"),
    ] {
        let reply = send(&service, request("GET", "/", &[fields])).await;
        assert_eq!(reply.cache(), says);
        assert_eq!(reply.headers.get_all("cache-status").iter().count(), 1);
    }
}

fn assert_refused(reply: &Reply, status: u16, refused: Refused, says: &str) {
    assert_eq!(reply.status, StatusCode::from_u16(status).unwrap(), "{says}");
    assert_eq!(reply.extensions.get(), Some(&refused), "{says}");
    assert_eq!(reply.cache(), says);
    let field = format!("tower-readthrough;{}", says.replace("; ", ";"));
    assert_eq!(reply.header("cache-status"), Some(&*field));
    assert_eq!(reply.cache_status.unwrap().refused_reason(), Some(refused), "{says}");
    assert!(!reply.cache_status.unwrap().is_hit(), "{says}");
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_without_a_stored_response_is_reported() {
    let directives = |lookup: LookupLayer<MemoryStore>| lookup.request_directives(true);
    let ask_for = || request("GET", "/", &[("cache-control", "only-if-cached")]);
    let stack = ReadThroughLayer::builder(small_store()).lookup(directives).build().unwrap();
    let reply = send(&stack.layer(ScriptedOrigin::always(|| ok("x"))), ask_for()).await;
    assert_refused(&reply, 504, Refused::NotStored, "detail=not-stored");
    assert_eq!(reply.cache_status.unwrap().forward_reason(), None, "it was not forwarded");
    let hidden = directives(LookupLayer::new(small_store())).cache_status(false);
    let reply = send(&hidden.layer(ScriptedOrigin::always(|| ok("x"))), ask_for()).await;
    assert_eq!((reply.header("cache-status"), &*reply.cache()), (None, "detail=not-stored"));
}

#[tokio::test(start_paused = true)]
async fn a_caller_beyond_max_waiters_is_reported() {
    let stack = ReadThroughLayer::builder(small_store()).coalesce(|coalesce| coalesce.max_waiters(1));
    let service = boxed(stack.build().unwrap().layer(ScriptedOrigin::always(hangs)));
    let first = tokio::spawn(ask(&service, request("GET", "/", &[])));
    settle().await;
    let second = tokio::spawn(ask(&service, request("GET", "/", &[])));
    settle().await;
    let third = ask(&service, request("GET", "/", &[])).await;
    assert_refused(&third, 503, Refused::TooManyWaiters, "detail=too-many-waiters");
    first.abort();
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn a_full_origin_queue_is_reported_with_and_without_a_key() {
    let limit = OriginLimitLayer::new(1).max_queue(0).max_queue_wait(ms(10));
    let stack = ReadThroughLayer::builder(small_store()).origin_limit(limit).build().unwrap();
    let service = boxed(stack.layer(ScriptedOrigin::always(hangs)));
    let held = tokio::spawn(ask(&service, request("GET", "/held", &[])));
    settle().await;
    for (method, uri) in [("GET", "/"), ("HEAD", "/"), ("POST", "/")] {
        let reply = ask(&service, request(method, uri, &[])).await;
        assert_refused(&reply, 503, Refused::QueueFull, "detail=queue-full");
    }
    let reply = ask(&service, without_host("GET", "/").body(Body::default()).unwrap()).await;
    assert_refused(&reply, 503, Refused::QueueFull, "detail=queue-full");
    held.abort();
}

/// A layer alone, without Lookup above it.
#[tokio::test(start_paused = true)]
async fn an_origin_limit_alone_reports_a_full_queue() {
    let limit = OriginLimitLayer::new(1).max_queue_wait(ms(10));
    let service = boxed(limit.layer(ScriptedOrigin::always(hangs)));
    let held = tokio::spawn(ask(&service, request("GET", "/held", &[])));
    settle().await;
    let reply = ask(&service, request("GET", "/", &[])).await;
    assert_refused(&reply, 503, Refused::QueueTimeout, "detail=queue-timeout");
    held.abort();
}

#[test]
fn a_store_layer_shows_reasons_too() {
    let cache = StoreLayer::new(small_store()).rules(Rules::new().default_ttl(secs(1)));
    let reply = futures_util::FutureExt::now_or_never(send(
        &cache.layer(ScriptedOrigin::always(|| ok("x"))),
        without_host("GET", "/").body(Body::default()).unwrap(),
    ));
    let status: Option<CacheStatus> = reply.unwrap().cache_status;
    assert_eq!(status.and_then(|status| status.unkeyed_reason()), Some(Unkeyed::NoHost));
}
