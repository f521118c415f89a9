//! Settings work, or `build()` says what to change.

use std::sync::Arc;

use http::{Request, request::Parts};
use tower::{Layer, ServiceExt, service_fn};
use tower_readthrough::{
    BuildError, CacheKey, CoalesceLayer, DefaultKey, FillLayer, KeyLayer, KeyRule, KeyRules, LookupLayer,
    MemoryStore, OriginLimitLayer, ReadThroughLayer, Rules, StaleIfErrorLayer, StoreLayer, Unkeyed,
};

use super::{ask, boxed};

use crate::support::{
    Body, Failure, Reply, ScriptedOrigin, ScriptedResponse, hangs, ms, ok, request, secs, send, settle,
    small_store, status,
};

/// Several callers before the first response.
async fn ask_together<S, B>(service: &S, count: usize, request: impl Fn() -> Request<Body>) -> Vec<Reply>
where
    S: tower::Service<Request<Body>, Response = http::Response<B>, Error = Failure> + Clone,
    B: http_body::Body<Data = bytes::Bytes>,
{
    let asked = (0..count).map(|_| send(service, request()));
    futures_util::future::join_all(asked).await
}

fn slow(answer: impl Fn() -> ScriptedResponse + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::always(move || answer().after(ms(50)))
}

#[tokio::test(start_paused = true)]
async fn a_coalesce_layer_alone_shares_responses_that_allow_it() {
    let origin = slow(|| ok("x"));
    let service = CoalesceLayer::new().layer(origin.clone());
    let replies = ask_together(&service, 10, || request("GET", "/", &[])).await;
    assert!(replies.iter().all(|reply| reply.body == "x"));
    assert_eq!(origin.calls(), 1);
    send(&service, request("GET", "/", &[])).await;
    assert_eq!(origin.calls(), 2, "nothing is kept");
}

#[tokio::test(start_paused = true)]
async fn a_coalesce_layer_alone_shares_no_private_response() {
    let headers: [(&str, &str); 8] = [
        ("cache-control", "private"),
        ("cache-control", "no-store"),
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("expires", "0"),
        ("set-cookie", "a=b"),
        ("vary", "*"),
        ("content-type", "text/event-stream"),
    ];
    for (name, value) in headers {
        let origin = slow(move || ok("x").header(name, value));
        let service = CoalesceLayer::new().layer(origin.clone());
        ask_together(&service, 3, || request("GET", "/", &[])).await;
        assert_eq!(origin.calls(), 3, "{name}: {value}");
    }
    for field in ["authorization", "cookie"] {
        let origin = slow(|| ok("x"));
        let service = CoalesceLayer::new().layer(origin.clone());
        ask_together(&service, 3, || request("GET", "/", &[(field, "a=b")])).await;
        assert_eq!(origin.calls(), 3, "{field}");
    }
}

/// A refusal of the origin limit goes to all waiting callers, after one more attempt.
#[tokio::test(start_paused = true)]
async fn a_coalesce_layer_alone_shares_a_refusal() {
    let origin = ScriptedOrigin::new(|_, head| if head.uri.path() == "/held" { hangs() } else { ok("x") });
    let limit = OriginLimitLayer::new(1).max_queue(1).max_queue_wait(ms(10));
    let service = boxed(CoalesceLayer::new().layer(limit.layer(origin.clone())));
    let held = tokio::spawn(ask(&service, request("GET", "/held", &[])));
    settle().await;
    let asked = (0..5).map(|_| ask(&service, request("GET", "/", &[])));
    for reply in futures_util::future::join_all(asked).await {
        assert_eq!((reply.status.as_u16(), &*reply.cache()), (503, "detail=queue-timeout"));
    }
    assert_eq!(origin.calls(), 1);
    held.abort();
}

#[tokio::test(start_paused = true)]
async fn a_coalesce_layer_alone_takes_another_key_and_says_why_there_is_none() {
    let origin = slow(|| ok("x"));
    let one = |_: &Parts| Some(CacheKey::new("one"));
    let service = CoalesceLayer::new().key(one).layer(origin.clone());
    let (a, b) =
        tokio::join!(send(&service, request("GET", "/a", &[])), send(&service, request("GET", "/b", &[])));
    assert_eq!((origin.calls(), a.body, b.body), (1, "x".into(), "x".into()));
    let rules = KeyRules::builder().rule(KeyRule::path("/a").bypass()).build().unwrap();
    let service = CoalesceLayer::new().key(rules).layer(origin);
    let reply = send(&service, request("GET", "/a", &[])).await;
    assert_eq!(reply.cache_status.unwrap().unkeyed_reason(), Some(Unkeyed::RuleBypass));
}

/// Lookup or Key above has looked for a key already.
#[tokio::test(start_paused = true)]
async fn a_layer_derives_no_key_where_one_above_found_none() {
    let rules = || KeyRules::builder().rule(KeyRule::path("/a").bypass()).build().unwrap();
    let origin = slow(|| ok("x").max_age(60));
    let by_lookup =
        LookupLayer::new(small_store()).key(rules()).layer(CoalesceLayer::new().layer(origin.clone()));
    ask_together(&by_lookup, 3, || request("GET", "/a", &[])).await;
    assert_eq!(origin.calls(), 3);
    let by_key = KeyLayer::new(rules()).layer(CoalesceLayer::new().layer(origin.clone()));
    ask_together(&by_key, 3, || request("GET", "/a", &[])).await;
    assert_eq!(origin.calls(), 6);
    let ranges = || request("GET", "/b", &[("range", "bytes=0-0,2-2")]);
    let by_lookup = LookupLayer::new(small_store()).layer(CoalesceLayer::new().layer(origin.clone()));
    ask_together(&by_lookup, 3, ranges).await;
    assert_eq!(origin.calls(), 9, "for each client alone");
}

#[tokio::test(start_paused = true)]
async fn a_stale_if_error_layer_without_a_key_above_derives_its_own() {
    let store = small_store();
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("x").max_age(1) } else { status(503) });
    let fill = FillLayer::new(store.clone()).rules(Rules::new().stale_if_error_for(secs(600)));
    let service = StaleIfErrorLayer::new(store).layer(fill.layer(origin.clone()));
    send(&service, request("GET", "/", &[])).await;
    tokio::time::advance(secs(10)).await;
    let reply = send(&service, request("GET", "/", &[])).await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (200, &b"x"[..]));
    assert_eq!(origin.calls(), 2);
}

#[test]
fn a_store_without_room_for_a_usual_response_is_refused() {
    for capacity in [1, 1_000, 8_000] {
        let error = MemoryStore::builder(capacity).build().unwrap_err();
        assert!(matches!(error, BuildError::SmallStore { .. }), "{error}");
        assert!(error.to_string().contains("capacity"), "{error}");
        let error =
            ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(capacity)).build().unwrap_err();
        assert!(matches!(error, BuildError::SmallStore { .. }), "{error}");
    }
    let all = MemoryStore::builder(8_000).max_response_share(1.0).build();
    assert!(ReadThroughLayer::builder(all.unwrap()).build().is_ok());
    assert!(MemoryStore::builder(1 << 20).max_response_share(1e-9).build().is_err());
}

fn rules() -> KeyRules {
    KeyRules::builder().rule(KeyRule::path("/p").ignore_query(["utm_*"])).build().unwrap()
}

/// A handle taken before the key is set names URLs by the key that the layer gets.
#[tokio::test(start_paused = true)]
async fn a_handle_taken_before_the_key_reaches_what_the_rules_name() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let builder = ReadThroughLayer::builder(small_store());
    let early = builder.purge();
    let stack = boxed(builder.key(rules()).build().unwrap().layer(origin.clone()));
    let own = small_store();
    let layers = LookupLayer::new(own.clone());
    let early_of_layers = layers.purge();
    let layers = boxed(layers.key(rules()).layer(FillLayer::new(own).layer(origin.clone())));
    let plain = StoreLayer::new(small_store());
    let early_of_plain = plain.purge();
    let plain = boxed(plain.key(rules()).layer(origin.clone()));
    for (purge, service) in [(early, stack), (early_of_layers, layers), (early_of_plain, plain)] {
        let get = |path| ask(&service, request("GET", path, &[]));
        get("/p?utm_a=1").await;
        let calls = origin.calls();
        get("/p?utm_a=2").await;
        assert_eq!(origin.calls(), calls, "stored");
        purge.url("http://example.com/p?utm_a=3").unwrap();
        get("/p?utm_a=1").await;
        assert_eq!(origin.calls(), calls + 1);
    }
}

/// A clone has keys of its own.
#[tokio::test(start_paused = true)]
async fn a_handle_follows_the_layer_that_it_was_taken_from_and_not_its_clones() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let own = small_store();
    let layer = LookupLayer::new(own.clone());
    let purge = layer.purge();
    let other = layer.clone().key(|_: &Parts| None::<CacheKey>);
    let service = layer.key(rules()).layer(FillLayer::new(own).layer(origin.clone()));
    drop(other);
    send(&service, request("GET", "/p?utm_a=1", &[])).await;
    purge.url("http://example.com/p").unwrap();
    send(&service, request("GET", "/p", &[])).await;
    assert_eq!(origin.calls(), 2);
}

/// Every layer knows a request without a body as such.
#[tokio::test(start_paused = true)]
async fn a_key_set_by_the_caller_is_used_unchanged() {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let note = Arc::clone(&seen);
    let service =
        CoalesceLayer::new().key(DefaultKey::new()).layer(service_fn(move |request: Request<Body>| {
            *note.lock().unwrap() = request.extensions().get::<CacheKey>().cloned();
            async { Ok::<_, Failure>(http::Response::new(Body::default())) }
        }));
    let own = CacheKey::new("mine");
    let mut asked = request("GET", "/", &[]);
    asked.extensions_mut().insert(own.clone());
    service.oneshot(asked).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), Some(own));
}
