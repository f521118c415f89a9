//! What is answered from the store, and how it is kept fresh.

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{
    Answer, Body, Failure, Frames, Origin, Reply, error, get, get_with, hangs, ms, ok, panics, request, secs,
    send, serve, settle, status, try_send,
};
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, request::Parts};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_readthrough::{
    CacheKey, CacheRequest, DefaultKey, Fill, FillLayer, Lookup, LookupLayer, MemoryStore, Purpose, Rules,
    Stale, StoreLayer,
};

type Cached = Lookup<Fill<Origin, MemoryStore>, MemoryStore>;

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(1 << 20)
}

fn cached(rules: Rules, origin: &Origin) -> Cached {
    StoreLayer::new(store()).rules(rules).layer(origin.clone())
}

/// A cache whose lookup is set up in a way of its own.
fn cached_with(
    rules: Rules,
    origin: &Origin,
    setup: impl FnOnce(LookupLayer<MemoryStore>) -> LookupLayer<MemoryStore>,
) -> Cached {
    let store = store();
    let fill = FillLayer::new(store.clone()).rules(rules);
    setup(LookupLayer::new(store)).layer(fill.layer(origin.clone()))
}

fn ttl() -> Rules {
    Rules::new().default_ttl(secs(10))
}

fn refreshing() -> Rules {
    ttl().stale_while_revalidate_for(secs(60))
}

fn is_refreshing(reply: &Reply) -> bool {
    reply.came_about.and_then(|status| status.stale_reason()) == Some(Stale::WhileRevalidating)
}

/// Answers with its number, or as `then` says from the second call on.
fn numbered() -> Origin {
    Origin::new(|call, _| ok(format!("v{call}")))
}

fn failing(then: impl Fn() -> Answer + Send + Sync + 'static) -> Origin {
    Origin::new(move |call, _| if call == 1 { ok("v1") } else { then() })
}

// Hits.

#[tokio::test(start_paused = true)]
async fn a_hit_is_the_stored_answer_with_its_age_and_nothing_else() {
    let origin = Origin::always(|| ok("hello").header("x", "1").header("x", "2").header("etag", "\"1\""));
    let service = cached(ttl(), &origin);
    assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; stored");
    tokio::time::advance(ms(3_500)).await;
    let hit = get(&service, "/").await;
    assert_eq!((hit.cache().as_str(), &hit.body[..], hit.age()), ("hit", &b"hello"[..], Some(3)));
    assert_eq!(hit.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_one_clients_response_leaks_into_anothers() {
    #[derive(Clone)]
    struct Secret;
    let origin = Origin::always(|| ok("hello"));
    let service = ServiceBuilder::new()
        .layer(StoreLayer::new(store()).rules(ttl()))
        .map_response(|mut response: Response<Frames>| {
            response.extensions_mut().insert(Secret);
            response
        })
        .service(origin);
    assert!(get(&service, "/").await.extensions.get::<Secret>().is_some());
    let hit = get(&service, "/").await;
    assert!(hit.is_hit());
    assert!(hit.extensions.get::<Secret>().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_hit_does_not_wait_for_the_service_below() {
    let origin = Origin::new(|call, _| if call == 1 { ok("x") } else { hangs() });
    let service = ServiceBuilder::new()
        .layer(StoreLayer::new(store()).rules(ttl()))
        .concurrency_limit(1)
        .service(origin.clone());
    get(&service, "/").await;
    let other = tokio::spawn(service.clone().oneshot(request("GET", "/other", &[])));
    settle().await;
    assert_eq!(origin.under_way(), 1, "the only permit is taken");
    for _ in 0..10 {
        let reply = serve(&mut service.clone(), request("GET", "/", &[])).now_or_never().unwrap();
        assert!(reply.is_hit());
    }
    other.abort();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_misses_over_one_permit_all_get_through() {
    let origin = Origin::always(|| ok("x").after(ms(1)));
    let service = ServiceBuilder::new()
        .layer(StoreLayer::new(store()).rules(Rules::new().never_store()))
        .concurrency_limit(1)
        .service(origin.clone());
    let clients: Vec<_> = (0..1_000)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move { serve(&mut service, request("GET", "/", &[])).await.status })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), StatusCode::OK);
    }
    assert_eq!((origin.calls(), origin.most_under_way()), (1_000, 1));
}

#[tokio::test(start_paused = true)]
async fn paths_queries_and_hosts_are_kept_apart() {
    let origin = Origin::new(|_, head| ok(head.uri.to_string()));
    let service = cached(ttl(), &origin);
    let uris = ["http://a/", "http://b/", "http://a/x", "http://a/x?y", "http://a/x?y=1", "https://a/"];
    for _ in 0..2 {
        for uri in uris {
            let request = Request::get(uri).body(Body::default()).unwrap();
            assert_eq!(send(&service, request).await.body, uri);
        }
    }
    assert_eq!(origin.calls(), uris.len());
}

#[tokio::test(start_paused = true)]
async fn an_extractor_and_a_key_in_the_request_decide_what_is_the_same() {
    let by_path = |head: &Parts| (head.uri.path() != "/none").then(|| CacheKey::new(head.uri.path()));
    let origin = numbered();
    let service = StoreLayer::new(store()).rules(ttl()).key(by_path).layer(origin.clone());
    assert_eq!(get(&service, "/a?1").await.body, "v1");
    assert_eq!(get(&service, "/a?2").await.body, "v1");
    let mut own = request("GET", "/b", &[]);
    own.extensions_mut().insert(CacheKey::new("/a"));
    assert_eq!(send(&service, own).await.body, "v1");
    for call in 2..4 {
        let reply = get(&service, "/none").await;
        assert_eq!((reply.cache().as_str(), origin.calls()), ("fwd=bypass; detail=no-key", call));
    }
}

#[tokio::test(start_paused = true)]
async fn stores_shared_by_several_services_are_kept_apart_by_namespaces() {
    let (store, one, two) = (store(), numbered(), numbered());
    let layer =
        |name: &str| StoreLayer::new(store.clone()).rules(ttl()).key(DefaultKey::new().namespace(name));
    let (first, second) = (layer("one").layer(one.clone()), layer("two").layer(two.clone()));
    let same = layer("one").layer(error_only());
    get(&first, "/").await;
    assert!(!get(&second, "/").await.is_hit());
    assert!(get(&same, "/").await.is_hit());
    assert_eq!((one.calls(), two.calls()), (1, 1));
}

fn error_only() -> Origin {
    Origin::always(error)
}

#[tokio::test(start_paused = true)]
async fn services_below_learn_that_a_client_forced_the_fetch() {
    let origin = numbered();
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let lookup = LookupLayer::new(store.clone()).request_directives(true);
    let service = lookup.layer(FillLayer::new(store).rules(ttl()).layer(origin.clone()));
    let purpose = || origin.last_request().extensions.get::<CacheRequest>().unwrap().purpose();
    get(&service, "/").await;
    assert_eq!(purpose(), Purpose::Client);
    for directive in ["no-cache", "max-age=0", "min-fresh=1000000"] {
        tokio::time::advance(secs(1)).await;
        get_with(&service, "/", &[("cache-control", directive)]).await;
        assert_eq!(purpose(), Purpose::Forced, "{directive}");
    }
    assert_eq!(origin.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn services_below_learn_what_was_asked() {
    let origin = numbered();
    let service = cached(ttl(), &origin);
    get(&service, "/").await;
    let asked = origin.last_request().extensions.get::<CacheRequest>().cloned().unwrap();
    assert_eq!(asked.purpose(), Purpose::Client);
    assert!(asked.key().as_bytes().ends_with(b"/"));
    send(&service, request("POST", "/", &[])).await;
    assert!(origin.last_request().extensions.get::<CacheRequest>().is_none());
}

// What passes untouched.

#[tokio::test(start_paused = true)]
async fn other_methods_bodies_and_upgrades_pass_untouched() {
    let origin = numbered();
    let service = cached(Rules::new().fixed_ttl(secs(10)), &origin);
    assert_eq!(get(&service, "/").await.body, "v1");
    let others = || {
        let methods = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "CONNECT"];
        methods
            .map(|method| request(method, "/", &[("if-none-match", "*")]))
            .into_iter()
            .chain([request("GET", "/", &[]).map(|_| Body::from("content"))])
            .chain([request("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")])])
    };
    let mut calls = 1;
    for _ in 0..2 {
        for request in others() {
            let fields = request.headers().clone();
            let says = match (request.method().as_str(), fields.contains_key("upgrade")) {
                ("GET", true) => "fwd=bypass; detail=upgrade",
                ("GET", false) => "fwd=bypass; detail=body",
                _ => "not asked",
            };
            let reply = send(&service, request).await;
            calls += 1;
            assert_eq!((reply.cache().as_str(), origin.calls()), (says, calls));
            assert_eq!((reply.status, origin.last_request().headers), (StatusCode::OK, fields));
        }
    }
    // Those that are not safe have invalidated it (RFC 9111 §4.4).
    assert_eq!(get(&service, "/").await.body, format!("v{}", calls + 1));
}

#[tokio::test(start_paused = true)]
async fn directives_of_a_client_do_not_force_the_origin() {
    let origin = numbered();
    let service = cached(ttl(), &origin);
    get(&service, "/").await;
    for said in ["no-cache", "no-store", "max-age=0", "only-if-cached", "min-fresh=1000"] {
        assert!(get_with(&service, "/", &[("cache-control", said), ("pragma", "no-cache")]).await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_lookup_refuses_is_hidden_from_the_layers_below() {
    let origin = numbered();
    let service = cached(ttl(), &origin);
    let mut range = request("GET", "/", &[("range", "bytes=0-1")]);
    range.extensions_mut().insert(CacheKey::new("mine"));
    send(&service, range).await;
    assert!(origin.last_request().extensions.get::<CacheKey>().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_one_cache_asked_is_not_taken_for_what_another_one_asks() {
    let (outer, inner, origin) = (store(), store(), numbered());
    let service = ServiceBuilder::new()
        .layer(StoreLayer::new(outer.clone()).rules(ttl()))
        .layer(StoreLayer::new(inner.clone()).rules(ttl()).key(|_: &Parts| None))
        .service(origin);
    get(&service, "/").await;
    assert_eq!((outer.stats().entries, inner.stats().entries), (1, 0));
}

// HEAD.

#[tokio::test(start_paused = true)]
async fn head_is_answered_from_get_with_its_length() {
    let origin = Origin::always(|| ok("hello").header("x", "1"));
    let service = cached(ttl(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    let head = send(&service, request("HEAD", "/", &[])).await;
    assert_eq!((head.cache().as_str(), head.status, head.body.len()), ("hit", StatusCode::OK, 0));
    assert_eq!(
        (head.header("content-length"), head.header("x"), head.age()),
        (Some("5"), Some("1"), Some(2))
    );
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn get_is_never_answered_from_head() {
    for length in [Some("5"), None] {
        let origin = Origin::new(move |_, head| match (head.method.as_str(), length) {
            ("HEAD", Some(length)) => ok("").max_age(60).header("content-length", length),
            ("HEAD", None) => ok("").max_age(60),
            _ => ok("hello").max_age(60),
        });
        let service = cached(Rules::new(), &origin);
        for calls in 1..3 {
            let head = send(&service, request("HEAD", "/", &[])).await;
            assert_eq!((head.header("content-length"), head.body.len()), (length, 0));
            assert_eq!((origin.last_request().method.as_str(), origin.calls()), ("HEAD", calls));
        }
        assert_eq!(get(&service, "/").await.body, "hello");
        assert_eq!(get(&service, "/").await.body, "hello");
        assert_eq!(origin.calls(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_head_says_does_not_take_the_stored_answer_away() {
    let origin = Origin::new(|_, head| match head.method == "HEAD" {
        true => status(404).header("cache-control", "no-store"),
        false => ok("hello").max_age(10).header("etag", "\"1\""),
    });
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(send(&service, request("HEAD", "/", &[])).await.status, StatusCode::NOT_FOUND);
    get(&service, "/").await;
    assert_eq!(origin.last_request().headers["if-none-match"], "\"1\"", "it is still there to confirm");
}

// The client's own conditions.

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn with_validators() -> Origin {
    Origin::always(|| {
        ok("hello")
            .max_age(60)
            .header("etag", "\"1\"")
            .header("last-modified", MODIFIED)
            .header("content-type", "text/plain")
            .header("content-length", "5")
            .header("vary", "accept")
    })
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_the_answer_is_told_so_on_hit_and_on_miss() {
    let yes: [&[(&str, &str)]; 7] = [
        &[("if-none-match", "\"1\"")],
        &[("if-none-match", "W/\"1\"")],
        &[("if-none-match", "\"0\", \"1\"")],
        &[("if-none-match", "\"0\""), ("if-none-match", "\"1\"")],
        &[("if-none-match", "*")],
        &[("if-modified-since", MODIFIED)],
        &[("if-modified-since", "Sun, 06 Nov 1994 08:49:38 GMT")],
    ];
    let no: [&[(&str, &str)]; 5] = [
        &[("if-none-match", "\"2\"")],
        &[("if-none-match", "1")],
        &[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")],
        &[("if-modified-since", "yesterday")],
        &[("if-none-match", "\"2\""), ("if-modified-since", MODIFIED)],
    ];
    for is_hit in [false, true] {
        for (fields, has_it) in yes.map(|f| (f, true)).into_iter().chain(no.map(|f| (f, false))) {
            let origin = with_validators();
            let service = cached(Rules::new(), &origin);
            if is_hit {
                get(&service, "/").await;
            }
            let reply = get_with(&service, "/", fields).await;
            assert_eq!(reply.is_hit(), is_hit);
            assert_eq!(reply.status.as_u16(), if has_it { 304 } else { 200 }, "{fields:?}");
            assert_eq!(reply.body, if has_it { "" } else { "hello" });
            assert_eq!(reply.header("content-length"), (!has_it).then_some("5"));
            assert_eq!(reply.header("content-type"), (!has_it).then_some("text/plain"));
            for (name, value) in [("etag", "\"1\""), ("cache-control", "max-age=60"), ("vary", "accept")] {
                assert_eq!(reply.header(name), Some(value));
            }
            assert_eq!(origin.calls(), 1);
            let sent = origin.request(1).headers;
            assert!(!sent.contains_key("if-none-match") && !sent.contains_key("if-modified-since"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_of_a_head_request_are_answered_too() {
    let service = cached(Rules::new(), &with_validators());
    get(&service, "/").await;
    let condition = |tag| request("HEAD", "/", &[("if-none-match", tag)]);
    assert_eq!(send(&service, condition("\"1\"")).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(send(&service, condition("\"2\"")).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn only_a_success_can_turn_into_not_modified() {
    for code in [301, 404, 500] {
        let origin = Origin::always(move || status(code).max_age(60).header("etag", "\"1\""));
        let service = cached(Rules::new(), &origin);
        for _ in 0..2 {
            let reply = get_with(&service, "/", &[("if-none-match", "\"1\"")]).await;
            assert_eq!(reply.status.as_u16(), code);
        }
    }
}

// Stale while revalidating.

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_in_the_window_start_one_refresh_and_wait_for_nothing() {
    let origin = Origin::new(|call, _| if call == 1 { ok("v1") } else { ok("v2").after(ms(500)) });
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    let came = Instant::now();
    for _ in 0..1_000 {
        let reply = get(&service, "/").await;
        assert!(is_refreshing(&reply));
        assert_eq!((&reply.body[..], reply.age()), (&b"v1"[..], Some(12)));
        assert_eq!(reply.cache(), "hit; detail=stale-while-revalidate");
    }
    assert_eq!(came.elapsed(), Duration::ZERO);
    settle().await;
    assert_eq!(origin.calls(), 2);
    tokio::time::sleep(ms(501)).await;
    let reply = get(&service, "/").await;
    assert_eq!((reply.cache().as_str(), &reply.body[..]), ("hit", &b"v2"[..]));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_window_begins_and_ends_to_the_millisecond() {
    for (after, cache) in [
        (9_999, "hit"),
        (10_000, "hit; detail=stale-while-revalidate"),
        (69_999, "hit; detail=stale-while-revalidate"),
        (70_000, "fwd=stale; stored"),
    ] {
        let service = cached(refreshing(), &numbered());
        get(&service, "/").await;
        tokio::time::advance(ms(after)).await;
        assert_eq!(get(&service, "/").await.cache(), cache, "{after}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_origin_sets_the_window_and_may_forbid_it() {
    for (said, refreshes) in [
        ("max-age=10, stale-while-revalidate=5", true),
        ("max-age=10, stale-while-revalidate=1", false),
        ("max-age=10, stale-while-revalidate=5, must-revalidate", false),
        ("s-maxage=10, stale-while-revalidate=5", true),
        ("s-maxage=10, stale-while-revalidate=5, proxy-revalidate", false),
        ("max-age=10", false),
    ] {
        let origin = Origin::always(move || ok("x").header("cache-control", said));
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(12)).await;
        assert_eq!(is_refreshing(&get(&service, "/").await), refreshes, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_stale_answer_has_a_refresh_of_its_own() {
    let origin = Origin::new(|_, head| ok(head.uri.path().to_owned()).header("vary", "accept").after(ms(10)));
    let service = cached(refreshing(), &origin);
    let asked = [("/a", "1"), ("/a", "2"), ("/b", "1")];
    for (path, accept) in asked {
        get_with(&service, path, &[("accept", accept)]).await;
    }
    tokio::time::advance(secs(12)).await;
    for _ in 0..10 {
        for (path, accept) in asked {
            assert!(is_refreshing(&get_with(&service, path, &[("accept", accept)]).await));
        }
    }
    settle().await;
    assert_eq!(origin.calls(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_the_clients_request_without_its_conditions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Tenant(u32);
    let origin = Origin::always(|| ok("x").header("etag", "\"1\""));
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    let fields = [("if-none-match", "\"mine\""), ("if-modified-since", MODIFIED), ("x", "1")];
    let mut request = request("GET", "/", &fields);
    request.extensions_mut().insert(Tenant(7));
    let reply = send(&service, request).await;
    assert!(is_refreshing(&reply));
    settle().await;
    let refresh = origin.request(2);
    assert_eq!(refresh.method, "GET");
    assert_eq!(refresh.extensions.get(), Some(&Tenant(7)));
    assert_eq!(refresh.extensions.get::<CacheRequest>().unwrap().purpose(), Purpose::Refresh);
    assert_eq!(refresh.headers["x"], "1");
    assert_eq!(refresh.headers["if-none-match"], "\"1\"", "the condition is that of the store");
    assert!(!refresh.headers.contains_key("if-modified-since"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_confirmed_makes_the_answer_fresh() {
    let origin = Origin::new(|call, _| match call {
        1 => ok("v1").header("etag", "\"1\""),
        _ => status(304),
    });
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    for calls in 2..5 {
        tokio::time::advance(secs(12)).await;
        assert!(is_refreshing(&get(&service, "/").await));
        settle().await;
        let reply = get(&service, "/").await;
        assert_eq!((reply.cache().as_str(), &reply.body[..], reply.age()), ("hit", &b"v1"[..], Some(0)));
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_is_not_repeated_before_the_pause_is_over() {
    let failures: [fn() -> Answer; 4] =
        [error, || status(503), || ok("half").cut(), || ok("short").header("content-length", "9")];
    for failure in failures {
        for pause in [ms(1_000), ms(3_000)] {
            let origin = failing(failure);
            let service = cached_with(refreshing(), &origin, |lookup| lookup.refresh_pause(pause));
            get(&service, "/").await;
            tokio::time::advance(secs(10)).await;
            // Ten requests a second for thirty seconds.
            for _ in 0..300 {
                let reply = get(&service, "/").await;
                assert!(is_refreshing(&reply));
                assert_eq!(reply.body, "v1");
                settle().await;
                tokio::time::advance(ms(100)).await;
            }
            assert_eq!(origin.calls() as u128, 1 + 30_000 / pause.as_millis());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_word_the_pause_is_a_second() {
    let origin = failing(error);
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    for (step, calls) in [(0, 2), (999, 2), (1, 3), (999, 3), (1, 4)] {
        tokio::time::advance(ms(step)).await;
        get(&service, "/").await;
        settle().await;
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_panics_lets_the_next_one_begin_after_the_pause() {
    let origin = failing(panics);
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    for calls in 2..6 {
        for _ in 0..10 {
            assert!(is_refreshing(&get(&service, "/").await));
            settle().await;
        }
        assert_eq!(origin.calls(), calls);
        tokio::time::advance(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_hangs_is_given_up_at_its_deadline() {
    let origin = failing(hangs);
    let service = cached_with(refreshing(), &origin, |lookup| lookup.refresh_deadline(secs(5)));
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    for calls in 2..5 {
        get(&service, "/").await;
        settle().await;
        assert_eq!((origin.calls(), origin.under_way()), (calls, 1));
        tokio::time::sleep(ms(4_990)).await;
        assert!(is_refreshing(&get(&service, "/").await));
        assert_eq!((origin.calls(), origin.under_way()), (calls, 1), "nobody else may begin one");
        tokio::time::sleep(ms(20)).await;
        assert!(is_refreshing(&get(&service, "/").await));
        assert_eq!((origin.calls(), origin.under_way()), (calls, 0), "now the pause");
        tokio::time::sleep(ms(1_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_whose_body_hangs_is_given_up_too() {
    let origin = Origin::always(|| ok("v1"));
    let stuck = Arc::new(AtomicUsize::new(0));
    let alive = Arc::clone(&stuck);
    // From the second answer on the body never comes.
    let calls = Arc::new(AtomicUsize::new(0));
    let below = ServiceBuilder::new()
        .map_response(move |response: Response<Frames>| {
            let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            response.map(|body| if is_first { Stuck::Not(body) } else { Stuck::new(&alive) })
        })
        .service(origin);
    let store = store();
    let fill = FillLayer::new(store.clone()).rules(refreshing());
    let service = LookupLayer::new(store).refresh_deadline(secs(5)).layer(fill.layer(below));
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    get(&service, "/").await;
    settle().await;
    assert_eq!(stuck.load(Ordering::SeqCst), 1);
    tokio::time::sleep(ms(5_001)).await;
    assert_eq!(stuck.load(Ordering::SeqCst), 0, "the body is dropped");
    assert_eq!(get(&service, "/").await.body, "v1");
}

enum Stuck {
    Not(Frames),
    For(Arc<AtomicUsize>),
}

impl Stuck {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self::For(Arc::clone(alive))
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        if let Self::For(alive) = self {
            alive.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl http_body::Body for Stuck {
    type Data = bytes::Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Failure>>> {
        match &mut *self {
            Self::Not(body) => std::pin::Pin::new(body).poll_frame(cx),
            Self::For(_) => std::task::Poll::Pending,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_says_the_answer_is_gone_takes_it_out() {
    let answers: [fn() -> Answer; 3] =
        [|| status(404), || status(410), || ok("mine").header("cache-control", "private")];
    for answer in answers {
        let origin = failing(answer);
        let service = cached(refreshing(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(12)).await;
        assert_eq!(get(&service, "/").await.body, "v1");
        settle().await;
        let reply = get(&service, "/").await;
        assert!(!reply.is_hit());
        assert_eq!((&reply.body == "v1", origin.calls()), (false, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_refreshes_at_a_time_than_allowed() {
    let origin = Origin::new(|call, _| if call <= 10 { ok("x") } else { ok("x").after(ms(100)) });
    let service = cached_with(refreshing(), &origin, |lookup| lookup.max_refreshes(3));
    let paths: Vec<_> = (0..10).map(|n| format!("/{n}")).collect();
    for path in &paths {
        get(&service, path).await;
    }
    tokio::time::advance(secs(12)).await;
    for batch in 1..=4 {
        for path in &paths {
            assert!(get(&service, path).await.is_hit());
        }
        settle().await;
        assert!(origin.under_way() <= 3);
        assert_eq!(origin.calls(), 10 + (3 * batch).min(10), "who did not get a place tries again later");
        tokio::time::sleep(ms(101)).await;
    }
    assert_eq!(origin.most_under_way(), 3);
    for path in &paths {
        assert_eq!(get(&service, path).await.cache(), "hit");
    }
}

#[tokio::test(start_paused = true)]
async fn an_executor_of_ones_own_runs_the_refreshes() {
    let origin = numbered();
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let queue = Arc::clone(&tasks);
    let service = cached_with(refreshing(), &origin, |lookup| {
        lookup.executor(move |task| queue.lock().unwrap().push(task))
    });
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    for _ in 0..3 {
        assert_eq!(get(&service, "/").await.body, "v1");
    }
    let task = tasks.lock().unwrap().pop().unwrap();
    assert!(tasks.lock().unwrap().is_empty(), "one refresh, one task");
    assert_eq!(origin.calls(), 1);
    task.await;
    assert_eq!(origin.calls(), 2);
    assert_eq!(get(&service, "/").await.body, "v2");
    // A task that is thrown away does not hold the right to refresh for ever.
    tokio::time::advance(secs(12)).await;
    get(&service, "/").await;
    drop(tasks.lock().unwrap().pop().unwrap());
    tokio::time::advance(secs(1)).await;
    get(&service, "/").await;
    let task = tasks.lock().unwrap().pop().unwrap();
    task.await;
    assert_eq!(get(&service, "/").await.body, "v3");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_ends_after_its_deadline_leaves_its_successor_alone() {
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let queue = Arc::clone(&tasks);
    let service = cached_with(refreshing(), &numbered(), |lookup| {
        lookup.refresh_deadline(secs(5)).executor(move |task| queue.lock().unwrap().push(task))
    });
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    get(&service, "/").await;
    tokio::time::advance(secs(5)).await;
    get(&service, "/").await;
    assert_eq!(tasks.lock().unwrap().len(), 2, "the first one's time is over");
    let late = tasks.lock().unwrap().remove(0);
    drop(late);
    for _ in 0..4 {
        tokio::time::advance(ms(1_200)).await;
        get(&service, "/").await;
        assert_eq!(tasks.lock().unwrap().len(), 1, "the second one is under way");
    }
    tokio::time::advance(ms(200)).await;
    get(&service, "/").await;
    assert_eq!(tasks.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_refresh_does_not_undo_a_newer_answer() {
    // The refresh is slow. Its window ends, and a request in the foreground is quicker.
    let origin = Origin::new(|call, _| match call {
        2 => ok("v2").after(secs(20)),
        call => ok(format!("v{call}")),
    });
    let service = cached(ttl().stale_while_revalidate_for(secs(5)), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    get(&service, "/").await;
    settle().await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(get(&service, "/").await.body, "v3");
    tokio::time::sleep(secs(11)).await;
    assert_eq!(origin.under_way(), 0, "the refresh has come to its end");
    let reply = get(&service, "/").await;
    assert_eq!((&reply.body[..], is_refreshing(&reply)), (&b"v3"[..], true));
}

// Without a runtime.

#[test]
fn without_a_runtime_hits_misses_and_stale_answers_work() {
    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().unwrap()
    }
    let origin = Origin::new(|call, _| match call {
        // As old as its lifetime when it comes, so that no clock is needed.
        1 => ok("stale").header("cache-control", "max-age=1, stale-while-revalidate=60").header("age", "1"),
        _ => ok("fresh").max_age(60),
    });
    let service = cached(Rules::new(), &origin);
    assert_eq!(now(get(&service, "/")).body, "stale");
    // Nothing can run in the background, so the origin is asked at once.
    assert_eq!(now(get(&service, "/")).body, "fresh");
    assert!(now(get(&service, "/")).is_hit());
    assert_eq!(origin.calls(), 2);
    assert!(now(try_send(&cached(ttl(), &error_only()), request("GET", "/", &[]))).is_err());
}
