//! Invalidation by successful unsafe requests (RFC 9111 §4.4).

use std::time::Duration;

use http::{Extensions, HeaderValue, Method, Request, StatusCode, Uri, request::Parts};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CacheKey, CoalesceLayer, KeyExtractor, KeyLayer, LookupLayer, ReadThrough, ReadThroughLayer, Rules,
    Store, StoreLayer,
};

use crate::support::{Body, Failure, ScriptedOrigin, call, fixed, get_request, ms, response, status, store};

const URI: &str = "http://h/a";

/// Responds to GET with the number of the call, and to other methods with the status of `x-answer`.
fn origin() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        if request.method() == Method::GET {
            return response(&[("vary", "accept")], n.to_string());
        }
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let mut answer = status(header("x-answer").map_or(200, |code| code.parse().unwrap()));
        for name in ["location", "content-location"] {
            if let Some(value) = header(name) {
                answer.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        answer
    })
}

fn stack() -> (ReadThrough<ScriptedOrigin, tower_readthrough::MemoryStore>, ScriptedOrigin) {
    let layer: ReadThroughLayer<_> = crate::support::stack(fixed(60_000));
    let origin = origin();
    (layer.layer(origin.clone()), origin)
}

fn unsafe_request(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

/// Whether a stored GET survives this request.
async fn survives(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> bool {
    let (service, _) = stack();
    let before = call(&service, get_request(URI)).await.1;
    service.clone().oneshot(unsafe_request(method, uri, fields)).await.unwrap();
    call(&service, get_request(URI)).await.1 == before
}

#[tokio::test(start_paused = true)]
async fn unsafe_and_unknown_methods_invalidate_and_safe_ones_do_not() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "FROBNICATE"] {
        assert!(!survives(method, URI, &[]).await, "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"] {
        assert!(survives(method, URI, &[]).await, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_success_and_redirection_invalidate() {
    for code in ["200", "201", "204", "303", "399"] {
        assert!(!survives("POST", URI, &[("x-answer", code)]).await, "{code}");
    }
    for code in ["400", "403", "404", "500", "503"] {
        assert!(survives("POST", URI, &[("x-answer", code)]).await, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn location_and_content_location_count_on_the_same_origin_alone() {
    for field in ["location", "content-location"] {
        for reference in ["/a", "http://h/a", "//H/a", "a", "../a#x"] {
            assert!(!survives("POST", "http://h/b", &[(field, reference)]).await, "{reference}");
        }
        for reference in ["http://other/a", "//other/a", "https://h/a", "/a?q", "http://h:81/a", ":"] {
            assert!(survives("POST", "http://h/b", &[(field, reference)]).await, "{reference}");
        }
    }
    assert!(survives("POST", "http://h/b", &[]).await, "another path");
    assert!(survives("POST", "http://other/a", &[]).await, "another host");
    assert!(survives("POST", "http://h/a?q", &[]).await, "another query");
}

#[tokio::test(start_paused = true)]
async fn all_variants_are_invalidated() {
    let (service, origin) = stack();
    let variant = |accept: &'static str| {
        let mut request = get_request(URI);
        request.headers_mut().insert("accept", accept.parse().unwrap());
        request
    };
    for accept in ["a", "b", "a", "b"] {
        call(&service, variant(accept)).await;
    }
    assert_eq!(origin.calls(), 2);
    call(&service, unsafe_request("DELETE", URI, &[])).await;
    for accept in ["a", "b", "a", "b"] {
        call(&service, variant(accept)).await;
    }
    assert_eq!(origin.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn lookup_round_fill_invalidates_too() {
    let origin = origin();
    let service = StoreLayer::new(store()).rules(fixed(60_000)).layer(origin.clone());
    call(&service, get_request(URI)).await;
    call(&service, get_request(URI)).await;
    assert_eq!(origin.calls(), 1);
    call(&service, unsafe_request("PUT", URI, &[])).await;
    call(&service, get_request(URI)).await;
    assert_eq!(origin.calls(), 3);
}

/// One entry per product, for all clients.
struct ByProduct;

impl KeyExtractor for ByProduct {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        self.identity(&head.uri, None, &head.extensions)
    }

    fn identity(&self, uri: &Uri, _: Option<&HeaderValue>, _: &Extensions) -> Option<CacheKey> {
        let product = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("pid="))?;
        Some(CacheKey::from_parts(["product", product]))
    }
}

#[tokio::test(start_paused = true)]
async fn entries_for_another_spelling_of_the_same_identity_are_invalidated_too() {
    for (method, uri, fields, goes) in [
        ("POST", "http://h/p?pid=1&uid=9", [].as_slice(), true),
        ("DELETE", "http://other/?uid=9&pid=1", &[], true),
        ("POST", "http://h/p?pid=2&uid=5", &[], false),
        ("POST", "http://h/p?uid=5", &[], false),
        ("POST", "http://h/order", &[("location", "/q?uid=3&pid=1")], true),
        ("POST", "http://h/order", &[("content-location", "p?pid=1")], true),
        ("POST", "http://h/order", &[("location", "http://other/p?pid=1")], false),
        ("POST", "http://h/order", &[("location", "/p?pid=2")], false),
    ] {
        let full = ReadThroughLayer::builder(store()).key(ByProduct).rules(fixed(60_000)).build().unwrap();
        let (plain, origin) = (StoreLayer::new(store()).key(ByProduct).rules(fixed(60_000)), origin());
        let in_two =
            KeyLayer::new(ByProduct).layer(crate::support::stack(fixed(60_000)).layer(origin.clone()));
        survey(full.layer(origin.clone()), method, uri, fields, goes).await;
        survey(plain.layer(origin), method, uri, fields, goes).await;
        // A relative reference is resolved by the layer below, which does not know products.
        if fields.is_empty() {
            survey(in_two, method, uri, fields, goes).await;
        }
    }
}

async fn survey<S, B>(service: S, method: &str, uri: &str, fields: &[(&'static str, &str)], goes: bool)
where
    S: tower::Service<Request<Body>, Response = http::Response<B>, Error = Failure> + Clone,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let before = call(&service, get_request("http://h/p?pid=1&uid=5")).await.1;
    assert_eq!(call(&service, get_request("http://h/p?pid=1&uid=6")).await.1, before);
    call(&service, unsafe_request(method, uri, fields)).await;
    let after = call(&service, get_request("http://h/p?pid=1&uid=7")).await.1;
    assert_eq!(after != before, goes, "{method} {uri} {fields:?}");
}

/// A fetch that began before may have a response from before.
#[tokio::test(start_paused = true)]
async fn a_fetch_under_way_serves_earlier_requests_and_no_later_ones() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        if request.method() == Method::GET {
            sleep(ms(100)).await;
        }
        response(&[], n.to_string())
    });
    let service = crate::support::stack(fixed(60_000)).layer(origin.clone());
    let before: Vec<_> = (0..10)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { call(&service, get_request(URI)).await.1 })
        })
        .collect();
    sleep(ms(50)).await;
    call(&service, unsafe_request("POST", URI, &[])).await;
    let after: Vec<_> = (0..10)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { call(&service, get_request(URI)).await.1 })
        })
        .collect();
    for caller in before {
        assert_eq!(caller.await.unwrap(), "1");
    }
    for caller in after {
        assert_eq!(caller.await.unwrap(), "3", "one fetch of their own");
    }
    assert_eq!(call(&service, get_request(URI)).await.1, "3", "the late answer was not stored");
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_begins_meanwhile_is_invalidated_too() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        if request.method() == Method::POST {
            sleep(ms(100)).await;
        }
        response(&[], n.to_string())
    });
    let service = crate::support::stack(fixed(60_000)).layer(origin);
    let posting = service.clone();
    let posting = tokio::spawn(async move { call(&posting, unsafe_request("POST", URI, &[])).await });
    sleep(ms(50)).await;
    assert_eq!(call(&service, get_request(URI)).await.1, "2", "the first fetch there is");
    posting.await.unwrap();
    assert_eq!(call(&service, get_request(URI)).await.1, "3");
}

/// Without a layer that numbers its fetches.
#[tokio::test(start_paused = true)]
async fn a_shared_fetch_without_a_number_serves_no_later_request() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        if request.method() == Method::GET {
            sleep(ms(100)).await;
        }
        response(&[], n.to_string())
    });
    let coalesced = CoalesceLayer::new().rules(fixed(60_000)).layer(origin);
    let service = LookupLayer::new(store()).layer(coalesced);
    let ask = || {
        let service = service.clone();
        tokio::spawn(async move { call(&service, get_request(URI)).await.1 })
    };
    let mut answers = Vec::new();
    for _ in 0..2 {
        answers.push([ask(), ask()]);
        sleep(ms(20)).await;
        call(&service, unsafe_request("POST", URI, &[])).await;
    }
    answers.push([ask(), ask()]);
    for (pair, expected) in answers.into_iter().zip(["1", "3", "5"]) {
        for answer in pair {
            assert_eq!(answer.await.unwrap(), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_was_fetched_there_is_nothing_to_invalidate() {
    let store = store();
    let service = StoreLayer::new(store.clone()).rules(fixed(60_000)).layer(origin());
    let post = async |fields| call(&service, unsafe_request("POST", URI, fields)).await;
    let number = || store.sequence().current();
    post(&[]).await;
    post(&[("location", "/b")]).await;
    assert_eq!(number(), 0);
    call(&service, get_request(URI)).await;
    assert_eq!(number(), 1);
    post(&[("x-answer", "404")]).await;
    post(&[("location", "/b")]).await;
    assert_eq!(number(), 2, "one purge, of the target");
    post(&[]).await;
    assert_eq!(number(), 2, "nothing began since");
    call(&service, get_request("http://h/b")).await;
    post(&[("location", "/b")]).await;
    assert_eq!(number(), 4, "a fetch, and the purge of what was fetched");
}

#[tokio::test(start_paused = true)]
async fn a_revalidation_under_way_does_not_restore_an_invalidated_response() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        match n {
            1 => response(&[("cache-control", "max-age=1"), ("etag", "\"1\"")], "old"),
            2 => {
                assert!(request.headers().contains_key("if-none-match"));
                sleep(ms(100)).await;
                let mut confirmed = status(304);
                confirmed.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
                confirmed
            }
            3 => status(204),
            _ => response(&[("cache-control", "max-age=60")], "new"),
        }
    });
    let service = crate::support::stack(Rules::new()).layer(origin.clone());
    call(&service, get_request(URI)).await;
    sleep(Duration::from_secs(2)).await;
    let confirming = service.clone();
    let confirming = tokio::spawn(async move { call(&confirming, get_request(URI)).await.1 });
    sleep(ms(50)).await;
    call(&service, unsafe_request("PUT", URI, &[])).await;
    assert_eq!(confirming.await.unwrap(), "old");
    assert_eq!(call(&service, get_request(URI)).await.1, "new");
}

#[tokio::test(start_paused = true)]
async fn an_invalidated_response_is_not_served_stale() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        match n {
            1 => response(&[], "old"),
            _ if request.method() == Method::POST => status(200),
            _ => status(502),
        }
    });
    let rules = fixed(1000).stale_while_revalidate_for(ms(60_000)).stale_if_error_for(ms(60_000));
    let service = crate::support::stack(rules).layer(origin.clone());
    call(&service, get_request(URI)).await;
    sleep(Duration::from_secs(2)).await;
    call(&service, unsafe_request("POST", URI, &[])).await;
    assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::BAD_GATEWAY);
}

#[tokio::test(start_paused = true)]
async fn a_response_invalidated_during_an_outage_is_not_served_stale() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        match n {
            1 => response(&[], "old"),
            _ if request.method() == Method::POST => status(200),
            _ => {
                sleep(ms(100)).await;
                status(500)
            }
        }
    });
    let service = crate::support::stack(fixed(1000)).layer(origin.clone());
    call(&service, get_request(URI)).await;
    sleep(Duration::from_secs(2)).await;
    let failing = service.clone();
    let failing = tokio::spawn(async move { call(&failing, get_request(URI)).await.0 });
    sleep(ms(50)).await;
    call(&service, unsafe_request("POST", URI, &[])).await;
    assert_eq!(failing.await.unwrap(), StatusCode::INTERNAL_SERVER_ERROR);
}
