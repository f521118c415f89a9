//! One normal form of a target URI, for keys, invalidation, purges and what is forwarded.

use std::sync::Arc;

use axum::extract::OriginalUri;
use http::{Request, Uri, header, uri::Scheme};
use tower::Layer;
use tower_readthrough::{DefaultKey, KeyRule, KeyRules, ReadThroughLayer, StoreLayer};

use crate::support::{Body, ScriptedOrigin, ok, request, send, small_store};

fn ask(method: &str, uri: &str, host: Option<&str>) -> Request<Body> {
    let request = Request::builder().method(method).uri(uri);
    let request = match host {
        Some(host) => request.header(header::HOST, host),
        None => request,
    };
    request.body(Body::default()).unwrap()
}

fn fresh() -> ScriptedOrigin {
    ScriptedOrigin::always(|| ok("x").max_age(60))
}

/// Spellings of one target, as HTTP/1 and HTTP/2 have them.
const SAME: [(&str, Option<&str>); 7] = [
    ("/a", Some("h")),
    ("/a", Some("H")),
    ("/a", Some("h:80")),
    ("/a", Some("h:")),
    ("http://h/a", None),
    ("http://H:80/a", None),
    ("http://h:80/a", Some("h")),
];

#[tokio::test(start_paused = true)]
async fn a_default_port_does_not_change_the_key() {
    let origin = fresh();
    let stack = ReadThroughLayer::builder(small_store()).build().unwrap().layer(origin.clone());
    let rules = KeyRules::builder().rule(KeyRule::path("/{id}").headers(["x-a"])).build().unwrap();
    let by_rules = StoreLayer::new(small_store()).key(rules).layer(origin.clone());
    for (uri, host) in SAME {
        send(&stack, ask("GET", uri, host)).await;
        send(&by_rules, ask("GET", uri, host)).await;
        assert_eq!(origin.calls(), 2, "{uri} {host:?}");
    }
    for (uri, host) in [("/a", "h:443"), ("/a", "h:8080"), ("https://h/a", "h")] {
        let calls = origin.calls();
        send(&stack, ask("GET", uri, Some(host))).await;
        assert_eq!(origin.calls(), calls + 1, "{uri} {host}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_default_port_is_that_of_the_scheme_of_all_requests() {
    let origin = fresh();
    let key = DefaultKey::new().scheme(Scheme::HTTPS);
    let stack = ReadThroughLayer::builder(small_store()).key(key).build().unwrap().layer(origin.clone());
    for (uri, host) in [("/a", "h"), ("/a", "h:443"), ("https://h:443/a", "h"), ("http://h/a", "h")] {
        send(&stack, ask("GET", uri, Some(host))).await;
        assert_eq!(origin.calls(), 1, "{uri} {host}");
    }
    send(&stack, ask("GET", "/a", Some("h:80"))).await;
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn every_spelling_invalidates_and_purges_the_same() {
    let origin = fresh();
    let cache = ReadThroughLayer::builder(small_store()).build().unwrap();
    let (purge, stack) = (cache.purge(), cache.layer(origin.clone()));
    for path in ["/~a/caf%C3%A9", "/%7Ea/caf%c3%a9", "/%7ea/%63af%C3%a9"] {
        for (number, change) in ["PUT", "url", "prefix"].into_iter().enumerate() {
            let calls = origin.calls();
            send(&stack, ask("GET", "/~a/caf%C3%A9", Some("h"))).await;
            send(&stack, ask("GET", "/~a/caf%C3%A9", Some("h"))).await;
            assert!(origin.calls() <= calls + 1, "stored");
            let url = format!("http://H:80{path}");
            match number {
                0 => _ = send(&stack, ask("PUT", path, Some("H:80"))).await,
                1 => _ = purge.url(&url).unwrap(),
                _ => _ = purge.path_prefix(&url).unwrap(),
            }
            let calls = origin.calls();
            send(&stack, ask("GET", "/~a/caf%C3%A9", Some("h"))).await;
            assert_eq!(origin.calls(), calls + 1, "{change} {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entries_of_one_rule_are_invalidated_in_every_spelling() {
    let origin = fresh();
    let rules = KeyRules::builder().rule(KeyRule::path("/{*path}").ignore_query(["utm_*"])).build().unwrap();
    let cache = ReadThroughLayer::builder(small_store()).key(rules).build().unwrap();
    let (purge, stack) = (cache.purge(), cache.layer(origin.clone()));
    for url in ["http://h/caf%c3%a9?utm_a=1", "http://h:80/c%61f%C3%A9"] {
        send(&stack, ask("GET", "/caf%C3%A9", Some("h"))).await;
        purge.url(url).unwrap();
        let calls = origin.calls();
        send(&stack, ask("GET", "/caf%C3%A9", Some("h"))).await;
        assert_eq!(origin.calls(), calls + 1, "{url}");
    }
}

/// RFC 9111 §4.4: another origin cannot be spoken for.
#[tokio::test(start_paused = true)]
async fn a_location_of_another_scheme_invalidates_nothing() {
    for (scheme, location, is_same) in [
        (Scheme::HTTP, "http://h/b", true),
        (Scheme::HTTP, "http://h:80/b", true),
        (Scheme::HTTP, "//h:80/b", true),
        (Scheme::HTTP, "https://h/b", false),
        (Scheme::HTTP, "https://h:80/b", false),
        (Scheme::HTTPS, "https://h/b", true),
        (Scheme::HTTPS, "https://h:443/b", true),
        (Scheme::HTTPS, "http://h/b", false),
        (Scheme::HTTPS, "http://h:443/b", false),
    ] {
        for field in ["location", "content-location"] {
            let origin = ScriptedOrigin::new(move |_, head| match head.method.as_str() {
                "GET" => ok("x").max_age(60),
                _ => ok("").header(field, location),
            });
            let key = DefaultKey::new().scheme(scheme.clone());
            let stack =
                ReadThroughLayer::builder(small_store()).key(key).build().unwrap().layer(origin.clone());
            send(&stack, ask("GET", "/b", Some("h"))).await;
            send(&stack, ask("POST", "/a", Some("h"))).await;
            send(&stack, ask("GET", "/b", Some("h"))).await;
            assert_eq!(origin.calls(), 2 + usize::from(is_same), "{scheme} {field}: {location}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_weekday_does_not_make_a_response_stale() {
    let origin = ScriptedOrigin::always(|| {
        ok("x")
            .header("date", "Mon, 06 Nov 2096 08:00:00 GMT")
            .header("expires", "Mon, 06 Nov 2096 09:00:00 GMT")
    });
    let stack = ReadThroughLayer::builder(small_store()).build().unwrap().layer(origin.clone());
    for _ in 0..2 {
        send(&stack, request("GET", "/", &[])).await;
    }
    assert_eq!(origin.calls(), 1);
}

/// The request to the origin has the target in the normal form of the key.
#[tokio::test(start_paused = true)]
async fn the_origin_sees_the_target_as_the_key_has_it() {
    let rules = || KeyRules::builder().rule(KeyRule::path("/{id}").headers(["x-a"])).build().unwrap();
    let origin = fresh();
    let by_default = ReadThroughLayer::builder(small_store()).build().unwrap().layer(origin.clone());
    let by_rules =
        ReadThroughLayer::builder(small_store()).key(rules()).build().unwrap().layer(origin.clone());
    for (number, (uri, host)) in SAME.into_iter().enumerate() {
        for is_default in [true, false] {
            let uri = uri.replace("/a", &format!("/a{number}"));
            let request = ask("GET", &uri, host);
            match is_default {
                true => send(&by_default, request).await,
                false => send(&by_rules, request).await,
            };
            let seen = origin.last_request();
            assert_eq!(seen.headers.get("host").is_some(), host.is_some());
            assert!(seen.headers.get("host").is_none_or(|seen| seen == "h"), "{uri} {host:?}: {seen:?}");
            assert!(seen.uri.authority().is_none_or(|seen| seen.as_str() == "h"), "{uri}: {}", seen.uri);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_origin_sees_the_scheme_of_all_requests_and_routers_do_too() {
    let origin = fresh();
    let key = DefaultKey::new().scheme(Scheme::HTTPS);
    let stack = ReadThroughLayer::builder(small_store()).key(key).build().unwrap().layer(origin.clone());
    let mut first = ask("GET", "http://H/a", None);
    first.extensions_mut().insert(OriginalUri(Uri::from_static("http://H/nested/a")));
    send(&stack, first).await;
    let seen = origin.last_request();
    assert_eq!(seen.uri, "https://h/a");
    assert_eq!(seen.extensions.get::<OriginalUri>().unwrap().0, "https://h/nested/a");
}

/// A request without a key is left as it came.
#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_is_not_changed() {
    let origin = fresh();
    let stack = Arc::new(ReadThroughLayer::builder(small_store()).build().unwrap().layer(origin.clone()));
    send(&*stack, ask("POST", "/a", Some("H:80"))).await;
    assert_eq!(origin.last_request().headers["host"], "H:80");
}

/// With a scheme set for all requests, the default port of the scheme in a URI is not the default port.
#[tokio::test(start_paused = true)]
async fn requests_that_share_a_key_under_another_scheme_look_the_same_to_the_service() {
    let spellings = [
        ("http://h:80/a", Some("h:80")),
        ("http://h:80/a", None),
        ("http://h:80/a", Some("h")),
        ("/a", Some("h")),
    ];
    for (uri, host) in spellings {
        let origin = ScriptedOrigin::new(|_, head| {
            let host = head.headers.get(header::HOST).map_or("h", |host| host.to_str().unwrap());
            let authority = head.uri.authority().map_or("h", |authority| authority.as_str());
            ok(format!("{host} {authority}")).max_age(60)
        });
        let cache = ReadThroughLayer::builder(small_store())
            .key(DefaultKey::new().scheme(Scheme::HTTPS))
            .build()
            .unwrap();
        let stack = cache.layer(origin.clone());
        assert_eq!(send(&stack, ask("GET", uri, host)).await.body, "h h", "{uri} {host:?}");
        send(&stack, ask("GET", "/a", Some("h"))).await;
        assert_eq!(origin.calls(), 1, "{uri} {host:?}");
        for (calls, spelling) in [(3, (uri, host)), (5, ("/a", Some("h"))), (7, (uri, host))] {
            send(&stack, ask("PUT", spelling.0, spelling.1)).await;
            send(&stack, ask("GET", "/a", Some("h"))).await;
            assert_eq!(origin.calls(), calls, "a change reaches what is stored: {uri} {host:?}");
        }
    }
}

/// RFC 9875: a group is one of its origin, however a request for that is written.
#[tokio::test(start_paused = true)]
async fn a_group_is_invalidated_in_every_spelling_of_its_origin() {
    for host in ["h", "h:443", "H:443"] {
        let origin = ScriptedOrigin::new(|_, head| match head.method.as_str() {
            "GET" => ok("x").max_age(60).header("cache-groups", "\"g\""),
            _ => ok("x").header("cache-group-invalidation", "\"g\""),
        });
        let cache = ReadThroughLayer::builder(small_store())
            .key(DefaultKey::new().scheme(Scheme::HTTPS))
            .build()
            .unwrap();
        let stack = cache.layer(origin.clone());
        for (calls, [get, post]) in [(3, [host, "h"]), (5, ["h", host])] {
            send(&stack, ask("GET", "/a", Some(get))).await;
            send(&stack, ask("POST", "/b", Some(post))).await;
            send(&stack, ask("GET", "/a", Some("h"))).await;
            assert_eq!(origin.calls(), calls, "{host}");
        }
    }
}
