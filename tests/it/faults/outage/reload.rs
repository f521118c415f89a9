//! A client's wish for something newer is advisory: if the fetch that it forced fails, the client
//! receives what it would have received without the wish.

use http::StatusCode;
use tower::{Layer, ServiceBuilder};
use tower_readthrough::{FillLayer, LookupLayer, ReadThroughLayer, Rules, StaleIfErrorLayer};

use super::{Cache, boxed, caches};

use crate::support::{
    Reply, ScriptedOrigin, ScriptedResponse, error, get_with, ms, ok, panics, request, secs, send,
    small_store, status,
};

const WISHES: [(&str, &str); 7] = [
    ("cache-control", "no-cache"),
    ("cache-control", "max-age=0"),
    ("cache-control", "min-fresh=999999"),
    ("cache-control", "no-cache, max-age=0"),
    ("cache-control", "no-cache, no-store"),
    ("cache-control", "no-store, max-age=0"),
    ("pragma", "no-cache"),
];

type Failing = fn() -> ScriptedResponse;

fn failures() -> [Failing; 7] {
    [|| status(408), || status(500), || status(502), || status(503), || status(504), error, panics]
}

/// Gives this response once, and fails from then on.
fn failing(first: Failing, then: Failing) -> ScriptedOrigin {
    ScriptedOrigin::new(move |call, _| if call == 1 { first() } else { then() })
}

fn is_page(reply: &Reply) -> bool {
    (reply.status, &reply.body[..]) == (StatusCode::OK, b"page")
}

#[tokio::test(start_paused = true)]
async fn what_is_fresh_is_served_if_a_forced_fetch_fails() {
    for wish in WISHES {
        for failure in failures() {
            for (name, cache) in caches(Rules::new()) {
                let origin = failing(|| ok("page").max_age(60), failure);
                let service = cache(origin.clone());
                get_with(&service, "/", &[]).await;
                tokio::time::advance(secs(10)).await;
                let reply = get_with(&service, "/", &[wish]).await;
                assert!(is_page(&reply), "{name} {wish:?}: {}", reply.status);
                assert_eq!((reply.age(), origin.calls()), (Some(10), 2), "{name} {wish:?}");
                // Nothing has become of what is stored.
                assert_eq!(get_with(&service, "/", &[]).await.cache(), "hit", "{name} {wish:?}");
            }
        }
    }
}

/// The windows of the stored response, how old it is, and whether it may be served.
#[tokio::test(start_paused = true)]
async fn what_is_stale_is_served_as_far_as_its_windows_allow_without_the_wish() {
    let cases = [
        ("max-age=10, stale-if-error=60", 30, true),
        ("max-age=10, stale-if-error=60", 71, false),
        ("max-age=10, stale-while-revalidate=60, stale-if-error=0", 30, true),
        ("max-age=10, stale-while-revalidate=60, stale-if-error=0", 71, false),
        ("max-age=10, stale-if-error=60, must-revalidate", 5, true),
        ("max-age=10, stale-if-error=60, must-revalidate", 30, false),
        ("max-age=10, stale-if-error=0", 5, true),
        ("max-age=10, stale-if-error=0", 30, false),
    ];
    for wish in WISHES {
        for (directives, age, is_served) in cases {
            for (name, cache) in caches(Rules::new()) {
                let origin = ScriptedOrigin::new(move |call, _| match call {
                    1 => ok("page").header("cache-control", directives),
                    _ => status(503),
                });
                let service = cache(origin.clone());
                get_with(&service, "/", &[]).await;
                tokio::time::advance(secs(age)).await;
                let reply = get_with(&service, "/", &[wish]).await;
                assert_eq!(is_page(&reply), is_served, "{name} {wish:?} {directives} {age}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wish_not_to_store_does_not_refuse_what_is_stale() {
    for (name, cache) in caches(Rules::new()) {
        let origin = failing(|| ok("page").max_age(10), || status(503));
        let service = cache(origin.clone());
        get_with(&service, "/", &[]).await;
        tokio::time::advance(secs(30)).await;
        let reply = get_with(&service, "/", &[("cache-control", "no-store")]).await;
        assert!(is_page(&reply), "{name}: {}", reply.status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_to_a_wish_not_to_store_is_neither_stored_nor_shared() {
    let no_store = [("cache-control", "no-store, no-cache")];
    for (name, cache) in caches(Rules::new()) {
        let origin = ScriptedOrigin::new(|call, _| ok(format!("page {call}")).max_age(60).after(ms(10)));
        let service = cache(origin.clone());
        get_with(&service, "/", &[]).await;
        let (one, two) = tokio::join!(get_with(&service, "/", &no_store), get_with(&service, "/", &no_store));
        assert_ne!(one.body, two.body, "{name}");
        assert_eq!(get_with(&service, "/", &[]).await.body, "page 1", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_method_condition_and_range_of_the_request_count() {
    let first: Failing = || ok("page").max_age(60).header("etag", "\"v\"");
    for (name, cache) in caches(Rules::new()) {
        let service = cache(failing(first, || status(503)));
        get_with(&service, "/", &[]).await;
        let forced = ("cache-control", "no-cache");
        let head = send(&service, request("HEAD", "/", &[forced])).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{name}");
        assert_eq!(head.header("content-length"), Some("4"), "{name}");
        let reply = get_with(&service, "/", &[forced, ("if-none-match", "\"v\"")]).await;
        assert_eq!(reply.status, StatusCode::NOT_MODIFIED, "{name}");
        let reply = get_with(&service, "/", &[forced, ("range", "bytes=1-2")]).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, &b"ag"[..]), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stored_part_is_served_if_a_forced_fetch_of_it_fails() {
    let part: Failing = || {
        status(206)
            .max_age(60)
            .header("etag", "\"v\"")
            .header("content-range", "bytes 0-3/10")
            .header("content-length", "4")
            .chunk("0123")
    };
    for wish in WISHES.into_iter().filter(|(_, wish)| !wish.contains("no-store")) {
        for (name, cache) in caches(Rules::new()) {
            let origin = failing(part, || status(503));
            let service = cache(origin.clone());
            get_with(&service, "/", &[("range", "bytes=0-3")]).await;
            let reply = get_with(&service, "/", &[wish, ("range", "bytes=1-2")]).await;
            assert_eq!(
                (reply.status.as_u16(), &reply.body[..], reply.header("content-range")),
                (206, &b"12"[..], Some("bytes 1-2/10")),
                "{name} {wish:?}"
            );
            // Not past its lifetime, as without the wish.
            tokio::time::advance(secs(61)).await;
            let reply = get_with(&service, "/", &[wish, ("range", "bytes=1-2")]).await;
            assert_eq!(reply.status.as_u16(), 503, "{name} {wish:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_purged_meanwhile_is_not_served() {
    let store = small_store();
    let purge = LookupLayer::new(store.clone()).purge();
    let stack = ReadThroughLayer::builder(store.clone()).lookup(|lookup| lookup.request_directives(true));
    let stack = stack.build().unwrap();
    let layers = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()).request_directives(true))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store.clone()));
    let caches: [Cache; 2] = [
        Box::new(move |origin| boxed(stack.layer(origin))),
        Box::new(move |origin| boxed(layers.service(origin))),
    ];
    for cache in caches {
        let service = cache(failing(|| ok("page").max_age(60), || status(503).after(secs(1))));
        get_with(&service, "/", &[]).await;
        let fields = [("cache-control", "no-cache")];
        let forced = get_with(&service, "/", &fields);
        let purged = async {
            tokio::time::sleep(ms(500)).await;
            purge.everything();
        };
        assert_eq!(tokio::join!(forced, purged).0.status, StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_forces_no_fetch() {
    for (name, cache) in caches(Rules::new()) {
        let origin = failing(|| ok("page").max_age(60), || status(503));
        let service = cache(origin.clone());
        get_with(&service, "/", &[]).await;
        let reply = get_with(&service, "/", &[("cache-control", "only-if-cached, no-cache")]).await;
        assert_eq!((reply.status.as_u16(), origin.calls()), (504, 1), "{name}");
    }
}
