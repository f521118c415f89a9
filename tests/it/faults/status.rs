//! What `Cache-Status` says of how a response came about (RFC 9211).

use http::{Method, StatusCode};
use tower::{Layer, ServiceBuilder};
use tower_readthrough::{
    CacheKey, CoalesceLayer, DefaultKey, Fill, FillLayer, KeyExtractor, Lookup, LookupLayer, MemoryStore,
    OriginLimitLayer, Purge, ReadThrough, ReadThroughLayer, RetryPolicy, Rules, Stale, StaleIfErrorLayer,
    StoreLayer,
};

use crate::support::{
    Reply, ScriptedOrigin, ScriptedResponse, error, get, get_with, hangs, ok, request, secs, send, settle,
    status,
};

type Stack = ReadThrough<ScriptedOrigin, MemoryStore>;

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(8 << 20)
}

fn stack(origin: &ScriptedOrigin) -> (Stack, MemoryStore) {
    let store = store();
    let layer = ReadThroughLayer::builder(store.clone()).retry(RetryPolicy::never());
    let layer = layer.lookup(|lookup| lookup.request_directives(true)).build().unwrap();
    (layer.layer(origin.clone()), store)
}

/// Without coalescing, and without stale responses on error.
fn single(origin: &ScriptedOrigin) -> (Lookup<Fill<ScriptedOrigin, MemoryStore>, MemoryStore>, MemoryStore) {
    let store = store();
    let lookup = LookupLayer::new(store.clone()).request_directives(true);
    (lookup.layer(FillLayer::new(store.clone()).layer(origin.clone())), store)
}

/// Runs the same steps in the assembled stack and in single layers.
macro_rules! in_both {
    ($origin:expr, |$service:ident, $store:ident, $origin_name:ident| $steps:block) => {{
        {
            let $origin_name = $origin;
            let ($service, $store) = stack(&$origin_name);
            $steps
        }
        {
            let $origin_name = $origin;
            let ($service, $store) = single(&$origin_name);
            $steps
        }
    }};
}

/// A tag for everything, and ten minutes.
fn page() -> ScriptedResponse {
    ok("page").max_age(600).header("surrogate-key", "red")
}

fn key() -> CacheKey {
    let (head, ()) = http::Request::get("http://example.com/").body(()).unwrap().into_parts();
    DefaultKey::new().key(&head).unwrap()
}

type Apply = fn(&Purge);

const PURGES: [(&str, Apply); 6] = [
    ("url", |purge| _ = purge.url("http://example.com/").unwrap()),
    ("key", |purge| _ = purge.key(&key())),
    ("tag", |purge| _ = purge.tag("red")),
    ("path", |purge| _ = purge.path_prefix("http://example.com/").unwrap()),
    ("prefix", |purge| _ = purge.key_prefix([])),
    ("everything", |purge| _ = purge.everything()),
];

// Purged responses.

#[tokio::test(start_paused = true)]
async fn a_purged_response_is_reported_stale_swept_or_not() {
    for (kind, apply) in PURGES {
        for is_soft in [false, true] {
            for is_swept in [false, true] {
                in_both!(ScriptedOrigin::always(page), |service, store, origin| {
                    get(&service, "/").await;
                    let purge = LookupLayer::new(store.clone()).purge();
                    apply(&if is_soft { purge.soft() } else { purge });
                    if is_swept {
                        tokio::time::sleep(secs(5)).await;
                    }
                    let reply = get(&service, "/").await;
                    let case = format!("{kind}, soft: {is_soft}, swept: {is_swept}");
                    assert_eq!(reply.cache(), "fwd=stale; detail=purged", "{case}");
                    assert!(get(&service, "/").await.is_hit(), "{case}");
                    assert_eq!(origin.calls(), 2, "{case}");
                });
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_purged_with_all_its_variants_is_stale_for_every_selection() {
    for is_swept in [false, true] {
        in_both!(
            ScriptedOrigin::always(|| page().header("vary", "accept-language")),
            |service, store, origin| {
                for language in ["de", "en"] {
                    get_with(&service, "/", &[("accept-language", language)]).await;
                }
                LookupLayer::new(store.clone()).purge().tag("red");
                if is_swept {
                    tokio::time::sleep(secs(5)).await;
                }
                let reply = get_with(&service, "/", &[("accept-language", "fr")]).await;
                assert_eq!(reply.cache(), "fwd=stale; detail=purged", "swept: {is_swept}");
                // From now on a response is stored again.
                let reply = get_with(&service, "/", &[("accept-language", "de")]).await;
                assert_eq!(reply.cache(), "fwd=vary-miss", "swept: {is_swept}");
                assert_eq!(origin.calls(), 4);
            }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_purged_variant_beside_another_is_a_vary_miss_swept_or_not() {
    for is_swept in [false, true] {
        let script = |_: usize, head: &http::request::Parts| {
            let language = head.headers["accept-language"].to_str().unwrap().to_owned();
            ok("x").max_age(600).header("vary", "accept-language").header("surrogate-key", language)
        };
        in_both!(ScriptedOrigin::new(script), |service, store, origin| {
            for language in ["de", "en"] {
                get_with(&service, "/", &[("accept-language", language)]).await;
            }
            LookupLayer::new(store.clone()).purge().tag("de");
            if is_swept {
                tokio::time::sleep(secs(5)).await;
            }
            let reply = get_with(&service, "/", &[("accept-language", "de")]).await;
            assert_eq!(reply.cache(), "fwd=vary-miss", "swept: {is_swept}");
            assert_eq!(origin.calls(), 3);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidated_response_is_reported_stale() {
    in_both!(ScriptedOrigin::always(page), |service, _store, origin| {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            get(&service, "/").await;
            assert!(get(&service, "/").await.is_hit());
            send(&service, request(method, "/", &[])).await;
            let reply = get(&service, "/").await;
            assert_eq!(reply.cache(), "fwd=stale; detail=invalidated", "{method}");
        }
        send(&service, request("POST", "/", &[])).await;
        let answer = send(&service, request("HEAD", "/", &[])).await;
        assert_eq!(answer.cache(), "fwd=stale; detail=invalidated", "HEAD");
        assert_eq!(origin.calls(), 11);
    });
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_not_reported_after_the_response_was_stored_again() {
    in_both!(
        ScriptedOrigin::new(|_, head| {
            let path = head.uri.path().to_owned();
            ok(path).max_age(10)
        }),
        |service, store, origin| {
            get(&service, "/").await;
            LookupLayer::new(store.clone()).purge().url("http://example.com/").unwrap();
            assert_eq!(get(&service, "/").await.cache(), "fwd=stale; detail=purged");
            tokio::time::advance(secs(10)).await;
            assert_eq!(get(&service, "/").await.cache(), "fwd=stale", "its lifetime has ended");
            // Removed when it expires, so that nothing is left of it.
            tokio::time::sleep(secs(90_000)).await;
            assert_eq!(store.stats().entries, 0);
            assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss");
            assert_eq!(get(&service, "/never").await.cache(), "fwd=uri-miss");
            assert_eq!(origin.calls(), 5);
        }
    );
}

// Reasons in the request.

#[tokio::test(start_paused = true)]
async fn a_miss_because_of_credentials_is_not_reported_as_a_vary_miss() {
    let cases: [(&str, Rules); 2] =
        [("authorization", Rules::new()), ("cookie", Rules::new().default_ttl(secs(600)))];
    for (field, rules) in cases {
        for (after, why) in [(599, "request"), (600, "stale")] {
            let answer = move || if field == "cookie" { ok("x") } else { ok("x").max_age(600) };
            let origin = ScriptedOrigin::always(answer);
            let service = StoreLayer::new(store()).rules(rules.clone()).layer(origin.clone());
            get(&service, "/").await;
            tokio::time::advance(secs(after)).await;
            let reply = get_with(&service, "/", &[(field, "a=b")]).await;
            assert_eq!(reply.cache(), format!("fwd={why}; detail={field}"));
            assert_eq!(origin.calls(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_the_reason_only_if_a_response_could_be_served_without_its_directives() {
    in_both!(ScriptedOrigin::always(page), |service, _store, origin| {
        let no_cache = [("cache-control", "no-cache")];
        assert_eq!(get_with(&service, "/", &no_cache).await.cache(), "fwd=uri-miss");
        assert_eq!(get_with(&service, "/", &no_cache).await.cache(), "fwd=request");
        tokio::time::advance(secs(600)).await;
        assert_eq!(get_with(&service, "/", &no_cache).await.cache(), "fwd=stale");
        assert_eq!(origin.calls(), 3);
    });
}

#[tokio::test(start_paused = true)]
async fn a_stored_part_is_partial_for_a_request_that_wants_more() {
    let script = |_: usize, head: &http::request::Parts| match head.headers.get("range") {
        Some(_) => {
            let part = status(206).chunk("he").header("content-range", "bytes 0-1/5").header("etag", "\"1\"");
            part.max_age(600)
        }
        None => ok("hello").header("etag", "\"1\"").max_age(600),
    };
    in_both!(ScriptedOrigin::new(script), |service, _store, origin| {
        assert_eq!(get_with(&service, "/", &[("range", "bytes=0-1")]).await.cache(), "fwd=uri-miss");
        assert!(get_with(&service, "/", &[("range", "bytes=0-1")]).await.is_hit());
        assert_eq!(get(&service, "/").await.cache(), "fwd=partial");
        assert_eq!(origin.calls(), 2);
    });
}

// The status of the origin.

fn rescued(origin: &ScriptedOrigin) -> impl AsyncFn() -> Reply {
    let store = store();
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(Rules::new().stale_if_error_for(secs(600))))
        .service(origin.clone());
    async move || get(&service, "/").await
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_after_a_failure_has_the_status_of_the_origin() {
    for code in [500, 502, 503, 504] {
        let script = move |call: usize, _: &http::request::Parts| {
            if call == 1 { ok("page").max_age(10) } else { status(code) }
        };
        let origin = ScriptedOrigin::new(script);
        let ask = rescued(&origin);
        ask().await;
        tokio::time::advance(secs(10)).await;
        let reply = ask().await;
        let expected = format!("fwd=stale; fwd-status={code}; detail=stale-if-error");
        assert_eq!((reply.status, reply.cache()), (StatusCode::OK, expected.clone()));
        let field = reply.header("cache-status").unwrap();
        assert_eq!(field, format!("tower-readthrough;{}", expected.replace("; ", ";")));
        let came_about = reply.cache_status.unwrap();
        assert!(!came_about.is_hit() && came_about.stale_reason() == Some(Stale::IfError));

        let origin = ScriptedOrigin::new(script);
        let (service, _) = stack(&origin);
        get(&service, "/").await;
        tokio::time::advance(secs(10)).await;
        assert_eq!(get(&service, "/").await.cache(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_after_an_error_has_no_status_of_the_origin() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("page").max_age(10) } else { error() });
    let ask = rescued(&origin);
    ask().await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(ask().await.cache(), "fwd=stale; detail=stale-if-error");
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_instead_of_a_full_queue_is_a_hit() {
    let origin = ScriptedOrigin::new(|_, head| match head.uri.path() {
        "/slow" => hangs(),
        _ => ok("page").max_age(10),
    });
    let limit = OriginLimitLayer::new(1).max_queue(1).max_queue_wait(secs(1));
    let layer =
        ReadThroughLayer::builder(store()).retry(RetryPolicy::never()).origin_limit(limit).build().unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    let slow = tokio::spawn({
        let service = service.clone();
        async move { get(&service, "/slow").await }
    });
    settle().await;
    assert_eq!(get(&service, "/").await.cache(), "hit; detail=stale-if-error");
    assert_eq!(origin.calls(), 2, "the origin was not asked");
    slow.abort();
}

#[tokio::test(start_paused = true)]
async fn the_status_of_the_origin_is_reported_where_the_client_gets_another() {
    let script = |_: usize, head: &http::request::Parts| {
        if head.headers.contains_key("if-none-match") {
            return status(304).header("etag", "\"1\"").max_age(10);
        }
        ok("hello").header("etag", "\"1\"").max_age(10)
    };
    in_both!(ScriptedOrigin::new(script), |service, _store, origin| {
        // The complete response is fetched for all clients, and this client gets its range of it.
        let reply = get_with(&service, "/", &[("if-none-match", "\"1\"")]).await;
        assert_eq!((reply.status.as_u16(), reply.cache()), (304, "fwd=uri-miss; fwd-status=200".into()));
        settle().await;
        tokio::time::advance(secs(10)).await;
        assert_eq!(get(&service, "/").await.cache(), "fwd=stale; fwd-status=304; stored");
        tokio::time::advance(secs(10)).await;
        let reply = get_with(&service, "/", &[("if-none-match", "\"1\"")]).await;
        assert_eq!((reply.status.as_u16(), reply.cache()), (304, "fwd=stale; stored".into()));
        tokio::time::advance(secs(10)).await;
        let reply = get_with(&service, "/", &[("if-match", "\"2\"")]).await;
        assert_eq!((reply.status.as_u16(), reply.cache()), (412, "fwd=stale; fwd-status=304; stored".into()));
        assert_eq!(origin.calls(), 4);
    });
}

#[tokio::test(start_paused = true)]
async fn every_follower_of_a_failed_fetch_reports_the_same() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("page").max_age(10),
        _ => status(503).after(secs(1)),
    });
    let (service, _) = stack(&origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    let said = futures_util::future::join_all((0..3).map(|_| get(&service, "/"))).await;
    let said: Vec<_> = said.iter().map(Reply::cache).collect();
    assert_eq!(said[0], "fwd=stale; fwd-status=503; detail=stale-if-error");
    for follower in &said[1..] {
        assert_eq!(*follower, "fwd=stale; fwd-status=503; collapsed; detail=stale-if-error");
    }
    assert_eq!((origin.calls(), Method::GET), (2, origin.last_request().method));
}

// Forced requests.

#[tokio::test(start_paused = true)]
async fn forced_requests_share_a_fetch_where_no_store_numbers_it() {
    let origin = ScriptedOrigin::always(|| ok("page").max_age(60).after(secs(1)));
    let store = store();
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store).request_directives(true))
        .layer(CoalesceLayer::new().rules(Rules::new().default_ttl(secs(60))))
        .service(origin.clone());
    let ask = || get_with(&service, "/", &[("cache-control", "no-cache")]);
    let replies = futures_util::future::join_all((0..20).map(|_| ask())).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    // The others came after the first fetch had begun, and share the next one.
    assert_eq!(origin.calls(), 2);
    ask().await;
    assert_eq!(origin.calls(), 3, "one that comes later gets a newer response");
}
