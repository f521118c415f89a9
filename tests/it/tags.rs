//! Where the tags of a response come from, and that clients do not see them.

use std::time::Duration;

use http::{HeaderMap, Request, Response, request::Parts};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CacheKey, CacheStatus, KeyExtractor, MemoryStore, Purge, ReadThrough, ReadThroughLayer, Rules, Store,
    StoreLayer, Tags,
};

use crate::support::{Body, ScriptedOrigin, bytes, call, fixed, get_request, ms, response, status, store};

const URI: &str = "http://h/a";

fn stack_of(
    origin: &ScriptedOrigin,
    rules: Rules,
) -> (ReadThrough<ScriptedOrigin, MemoryStore>, Purge, MemoryStore) {
    let store = store();
    let layer = ReadThroughLayer::builder(store.clone()).rules(rules).build().unwrap();
    (layer.layer(origin.clone()), layer.purge(), store)
}

/// The tags whose purge reaches a response with these fields.
async fn tags_of(
    fields: &'static [(&'static str, &'static str)],
    tags: &[&'static str],
) -> Vec<&'static str> {
    let origin = ScriptedOrigin::with_future(move |n, _| async move { response(fields, n.to_string()) });
    let (service, purge, _) = stack_of(&origin, fixed(60_000));
    let mut found = Vec::new();
    for tag in tags {
        call(&service, get_request(URI)).await;
        let before = origin.calls();
        purge.tag(tag);
        call(&service, get_request(URI)).await;
        if origin.calls() > before {
            found.push(*tag);
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn tags_come_from_three_fields() {
    let fields = &[
        ("surrogate-key", "a b"),
        ("surrogate-key", " c"),
        ("cache-tag", "d, e f,g"),
        ("cache-groups", "\"h\", \"i j\";x"),
        ("x-tag", "k"),
    ];
    let all = ["a", "b", "c", "d", "e f", "g", "h", "i j", "k", "a b", "e", "f", "i", "x", "\"h\"", "A"];
    assert_eq!(tags_of(fields, &all).await, all[..8]);
    assert_eq!(
        tags_of(&[("cache-groups", "token, \"h\"")], &["token", "h"]).await,
        [""; 0],
        "not a list of strings"
    );
}

#[tokio::test(start_paused = true)]
async fn tags_come_from_the_extensions_of_request_and_response() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        response(&[("cache-tag", "c")], n.to_string()).extension(Tags::from_iter(["of-response"]))
    });
    let (service, purge, _) = stack_of(&origin, fixed(60_000));
    let ask = async || {
        let mut request = get_request(URI);
        request.extensions_mut().insert(Tags::from_iter(["of-request"]));
        call(&service, request).await.1
    };
    for (n, tag) in ["of-request", "of-response", "c"].into_iter().enumerate() {
        assert_eq!(ask().await, (n + 1).to_string());
        assert_eq!(ask().await, (n + 1).to_string());
        purge.tag("other");
        assert_eq!(ask().await, (n + 1).to_string());
        purge.tag(tag);
    }
    assert_eq!(ask().await, "4");
}

/// A rule gives tags when the request is made ready for the origin.
struct Rule;

impl KeyExtractor for Rule {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        Some(CacheKey::new(head.uri.path()))
    }

    fn prepare(&self, head: &mut Parts) {
        head.extensions.insert(Tags::from_iter(["by-rule"]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_rule_gives_tags() {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let builder = ReadThroughLayer::builder(store()).key(Rule).rules(fixed(60_000));
    let (purge, service) = (builder.purge(), builder.build().unwrap().layer(origin.clone()));
    call(&service, get_request(URI)).await;
    purge.tag("by-rule");
    assert_eq!(call(&service, get_request(URI)).await.1, "2");
    assert_eq!(call(&service, get_request(URI)).await.1, "2");
}

const TAG_FIELDS: [(&str, &str); 4] =
    [("surrogate-key", "a"), ("cache-tag", "b"), ("cache-groups", "\"c\""), ("etag", "\"1\"")];

fn names(headers: &HeaderMap) -> Vec<&'static str> {
    let all = ["surrogate-key", "cache-tag", "cache-groups", "etag"];
    all.into_iter().filter(|name| headers.contains_key(*name)).collect()
}

/// Also where the response is for this client alone, whatever is stored.
#[tokio::test(start_paused = true)]
async fn a_client_that_wants_nothing_stored_does_not_see_tag_fields() {
    let origin = ScriptedOrigin::with_future(|_, _| async { response(&TAG_FIELDS, "x") });
    let layer = ReadThroughLayer::builder(store())
        .rules(fixed(1_000).stale_if_error_for(ms(60_000)))
        .lookup(|layer| layer.request_directives(true))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    let ask = async |wish: &'static str| {
        let mut request = get_request(URI);
        request.headers_mut().insert("cache-control", wish.parse().unwrap());
        names(service.clone().oneshot(request).await.unwrap().headers())
    };
    let seen = ["cache-groups", "etag"];
    assert_eq!(ask("no-store").await, seen, "nothing is stored");
    assert_eq!(ask("max-age=10").await, seen);
    assert_eq!(ask("no-store, no-cache").await, seen, "something fresh is");
    tokio::time::advance(ms(2_000)).await;
    assert_eq!(ask("no-store").await, seen, "something stale is");
    assert_eq!(origin.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn clients_do_not_see_tag_fields() {
    for strip in [true, false] {
        let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
            match n {
                1 | 2 => response(&TAG_FIELDS, "x"),
                3 => {
                    let mut confirmed = status(304);
                    confirmed.headers_mut().extend(response(&TAG_FIELDS, "").headers().clone());
                    confirmed
                }
                _ if request.method() == "GET" => {
                    let mut response = response(&TAG_FIELDS, "x");
                    response.headers_mut().insert("cache-control", "no-store".parse().unwrap());
                    response
                }
                _ => response(&TAG_FIELDS, "x"),
            }
        });
        let expected = match strip {
            true => &["cache-groups", "etag"][..],
            false => &["surrogate-key", "cache-tag", "cache-groups", "etag"],
        };
        let rules = Rules::new().default_ttl(ms(1_000));
        let layer =
            ReadThroughLayer::builder(store()).rules(rules.clone()).strip_tags(strip).build().unwrap();
        let stack = layer.layer(origin.clone());
        let plain = StoreLayer::new(store()).rules(rules).strip_tags(strip).layer(origin.clone());
        let ask = async |uri: &str| stack.clone().oneshot(get_request(uri)).await.unwrap();
        let post = || Request::post(URI).body(Body::empty()).unwrap();

        let of_plain = plain.clone().oneshot(get_request(URI)).await.unwrap();
        assert_eq!(names(of_plain.headers()), expected, "fetched");
        for _ in 0..2 {
            let answer = ask(URI).await;
            assert_eq!(names(answer.headers()), expected, "fetched, and a hit");
            bytes(answer).await;
        }
        assert_eq!(origin.calls(), 2);
        sleep(ms(2_000)).await;
        let answer = ask(URI).await;
        assert_eq!(names(answer.headers()), expected, "{:?}", CacheStatus::of(&answer));
        assert_eq!(origin.calls(), 3, "confirmed");
        assert_eq!(names(ask("http://h/not-stored").await.headers()), expected, "not stored");
        assert_eq!(names(stack.clone().oneshot(post()).await.unwrap().headers()), expected, "without a key");
        assert_eq!(names(plain.clone().oneshot(post()).await.unwrap().headers()), expected, "without a key");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_callers_do_not_see_tag_fields() {
    let origin = ScriptedOrigin::with_future(|_, _| async {
        sleep(ms(50)).await;
        response(&TAG_FIELDS, "x")
    });
    let (service, ..) = stack_of(&origin, fixed(60_000));
    let ask = || service.clone().oneshot(get_request(URI));
    let (one, two) = tokio::join!(ask(), ask());
    for answer in [one, two] {
        assert_eq!(names(answer.unwrap().headers()), ["cache-groups", "etag"]);
    }
    assert_eq!(origin.calls(), 1);
}

/// Not even if a response says that a field is for its own client.
#[tokio::test(start_paused = true)]
async fn tag_fields_named_private_are_shown_to_no_client() {
    for control in ["max-age=1, private=\"surrogate-key\"", "max-age=1, no-cache=\"surrogate-key\""] {
        let origin = ScriptedOrigin::with_future(move |n, _| async move {
            let fields = [("cache-control", control), ("surrogate-key", "a"), ("etag", "\"1\"")];
            if n == 2 { response(&fields, "").status(304) } else { response(&fields, "x") }
        });
        let (service, ..) = stack_of(&origin, Rules::new());
        for _ in 0..2 {
            let answer = service.clone().oneshot(get_request(URI)).await.unwrap();
            assert_eq!(names(answer.headers()), ["etag"], "{control}");
            bytes(answer).await;
            sleep(ms(2_000)).await;
        }
        assert_eq!(origin.calls(), 2, "{control}");
    }
}

async fn confirmed_then_purged(tag: &str) -> bytes::Bytes {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        match n {
            2 => {
                let mut confirmed = status(304);
                confirmed.headers_mut().insert("surrogate-key", "new".parse().unwrap());
                confirmed.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
                confirmed
            }
            _ => response(
                &[
                    ("cache-control", "max-age=1"),
                    ("etag", "\"1\""),
                    ("surrogate-key", "old"),
                    ("cache-tag", "too"),
                ],
                n.to_string(),
            ),
        }
    });
    let (service, purge, _) = stack_of(&origin, Rules::new().revalidate_for(ms(60_000)));
    call(&service, get_request(URI)).await;
    sleep(ms(2_000)).await;
    assert_eq!(call(&service, get_request(URI)).await.1, "1", "confirmed");
    purge.tag(tag);
    call(&service, get_request(URI)).await.1
}

#[tokio::test(start_paused = true)]
async fn a_304_adds_its_tags_and_removes_none() {
    for (tag, expected) in [("old", "3"), ("new", "3"), ("too", "3"), ("other", "1")] {
        assert_eq!(confirmed_then_purged(tag).await, expected, "{tag}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_with_too_many_tags_is_passed_on_and_not_stored() {
    let many: &'static str = (0..5_000).map(|n| format!("t{n} ")).collect::<String>().leak();
    let origin = ScriptedOrigin::with_future(move |n, _| async move {
        response(&[("surrogate-key", many)], n.to_string())
    });
    let (service, _, store) = stack_of(&origin, fixed(60_000));
    assert_eq!(call(&service, get_request(URI)).await.1, "1");
    assert_eq!(call(&service, get_request(URI)).await.1, "2");
    assert!(store.get(&CacheKey::new("")).is_none());

    let some: &'static str = (0..1_000).map(|n| format!("t{n} ")).collect::<String>().leak();
    let origin = ScriptedOrigin::with_future(move |n, _| async move {
        response(&[("surrogate-key", some)], n.to_string())
    });
    let (service, purge, _) = stack_of(&origin, fixed(60_000));
    for _ in 0..2 {
        assert_eq!(call(&service, get_request(URI)).await.1, "1");
    }
    purge.tag("t999");
    assert_eq!(call(&service, get_request(URI)).await.1, "2");
}

#[tokio::test(start_paused = true)]
async fn tags_are_charged_to_the_store() {
    let bytes_with = async |tags: usize| {
        let value: &'static str = (0..tags).map(|n| format!("{n} ")).collect::<String>().leak();
        let origin =
            ScriptedOrigin::with_future(
                move |_, _| async move { response(&[("surrogate-key", value)], "x") },
            );
        let (service, _, store) = stack_of(&origin, fixed(60_000));
        call(&service, get_request(URI)).await;
        store.stats().bytes
    };
    let (none, many) = (bytes_with(0).await, bytes_with(1_000).await);
    assert!((8_000..8_100).contains(&(many - none)), "{none} {many}");
}

// RFC 9875 §3.

/// Whether a response to this request that names these groups invalidates `URI`.
async fn invalidates(method: &str, uri: &str, code: u16, groups: &'static str) -> bool {
    let origin = ScriptedOrigin::with_future(move |n, request: Request<Body>| async move {
        if request.headers().contains_key("x-act") {
            let mut response = status(code);
            response.headers_mut().insert("cache-group-invalidation", groups.parse().unwrap());
            return response;
        }
        response(&[("cache-groups", "\"news\", \"sport\"")], n.to_string())
    });
    let (service, ..) = stack_of(&origin, fixed(60_000));
    let before = call(&service, get_request(URI)).await.1;
    let request =
        Request::builder().method(method).uri(uri).header("x-act", "1").body(Body::empty()).unwrap();
    let answer: Response<_> = service.clone().oneshot(request).await.unwrap();
    assert!(answer.headers().contains_key("cache-group-invalidation"), "it is for all caches");
    call(&service, get_request(URI)).await.1 != before
}

#[tokio::test(start_paused = true)]
async fn responses_to_unsafe_requests_invalidate_groups_of_their_origin() {
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert!(invalidates(method, "http://h/b", 200, "\"news\"").await, "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "QUERY"] {
        assert!(!invalidates(method, "http://h/b", 200, "\"news\"").await, "{method}");
    }
    for groups in ["\"sport\"", "\"x\", \"sport\";q=1", "\"news\", \"sport\""] {
        assert!(invalidates("POST", "http://h/b", 200, groups).await, "{groups}");
    }
    for groups in ["\"other\"", "news", "\"news\", sport", "\"NEWS\"", ""] {
        assert!(!invalidates("POST", "http://h/b", 200, groups).await, "{groups}");
    }
    for uri in ["http://other/b", "http://h:81/b", "https://h/b"] {
        assert!(!invalidates("POST", uri, 200, "\"news\"").await, "{uri}");
    }
    for code in [303, 404, 500] {
        assert!(invalidates("POST", "http://h/b", code, "\"news\"").await, "{code}: it says so");
    }
}

/// HTTP/1 does not tell the scheme.
#[tokio::test(start_paused = true)]
async fn a_group_matches_under_an_unknown_scheme() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        match request.method().as_str() {
            "GET" => response(&[("cache-groups", "\"news\"")], n.to_string()),
            _ => response(&[("cache-group-invalidation", "\"news\"")], ""),
        }
    });
    let request = |method: &str, uri: &str| {
        let request = Request::builder().method(method).uri(uri);
        let request = if uri.starts_with('/') { request.header("host", "h") } else { request };
        request.body(Body::empty()).unwrap()
    };
    for (stored, unsafe_one) in
        [("/a", "https://h/b"), ("https://h/a", "/b"), ("/a", "/b"), ("https://h/a", "https://H/b")]
    {
        let (service, ..) = stack_of(&origin, fixed(60_000));
        let before = call(&service, request("GET", stored)).await.1;
        call(&service, request("POST", unsafe_one)).await;
        assert_ne!(call(&service, request("GET", stored)).await.1, before, "{stored} {unsafe_one}");
    }
}

#[tokio::test(start_paused = true)]
async fn entries_invalidated_by_group_are_removed() {
    let origin = ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        match request.method().as_str() {
            "GET" => response(&[("cache-groups", "\"news\"")], "x"),
            _ => response(&[("cache-group-invalidation", "\"news\"")], ""),
        }
    });
    let (service, _, store) = stack_of(&origin, fixed(3_600_000));
    for n in 0..100 {
        call(&service, get_request(&format!("http://h/{n}"))).await;
    }
    call(&service, Request::post("http://h/edit").body(Body::empty()).unwrap()).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!((store.stats().entries, store.sequence().records()), (0, (0, 0)));
}
