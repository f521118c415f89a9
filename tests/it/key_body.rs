//! Keys from request bodies: reads by POST and QUERY.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use crate::support::open::{Origin, bytes, call, fixed, get, ms, response, status, store};
use axum::{Router, body::Body, routing::post};
use bytes::Bytes;
use futures_util::{StreamExt, future::join_all, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use tokio::time::{advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
use tower_readthrough::{
    BodyKey, BodyKeyLayer, CacheKey, CacheStatus, CoalesceLayer, JsonBody, KeyExtractor, KeyLayer, KeyRule,
    KeyRules, MemoryStore, ReadThrough, ReadThroughLayer, RequestBody, RetryPolicy, Rules, SharedError,
    StoreLayer,
};

const SEARCH: &str = "http://h/search";
const BOUND: usize = 64;

type Fields = &'static [(&'static str, &'static str)];

/// The origin takes any body, as it comes out of the layers.
type Front = tower::util::MapRequest<Origin, fn(Request<RequestBody<Body>>) -> Request<Body>>;
type Stack = BodyKey<ReadThrough<Front, MemoryStore, KeyRules>>;

fn front(origin: &Origin) -> Front {
    origin.clone().map_request(|request| request.map(Body::new))
}

fn search() -> KeyRule {
    KeyRule::path("/search").method("POST").method("QUERY").body(BOUND)
}

fn layer(rule: KeyRule) -> BodyKeyLayer {
    KeyRules::builder().rule(rule).build_with_bodies().unwrap()
}

fn stack_by(rule: KeyRule, rules: Rules, origin: &Origin) -> Stack {
    let bodies = layer(rule);
    let retry = RetryPolicy::new().backoff(ms(1), ms(1));
    let cache =
        ReadThroughLayer::builder(store()).key(bodies.rules()).rules(rules).retry(retry).build().unwrap();
    bodies.layer(cache.layer(front(origin)))
}

fn stack(origin: &Origin) -> Stack {
    stack_by(search(), fixed(60_000), origin)
}

/// Answers with the number of the call, the method and the body.
fn echo() -> Origin {
    echo_with(&[])
}

fn echo_with(fields: Fields) -> Origin {
    Origin::new(move |n, request| async move { response(fields, said(n, request).await) })
}

async fn said(n: usize, request: Request<Body>) -> String {
    let method = request.method().clone();
    let body = request.into_body().collect().await;
    let body = body.map_or_else(|error| error.to_string(), |body| text(&body.to_bytes()));
    format!("{n} {method} {body}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn request(method: &str, uri: &str, fields: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn post_of(body: impl Into<Body>) -> Request<Body> {
    request("POST", SEARCH, &[], body)
}

async fn ask(stack: &Stack, request: Request<Body>) -> String {
    text(&call(stack, request).await.1)
}

async fn ask_all(stack: &Stack, requests: impl IntoIterator<Item = Request<Body>>) -> Vec<String> {
    let mut answers = Vec::new();
    for request in requests {
        answers.push(ask(stack, request).await);
    }
    answers
}

/// Of unknown length, in these pieces.
fn pieces<const N: usize>(pieces: [&'static str; N]) -> Body {
    Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
}

#[tokio::test]
async fn each_body_costs_the_origin_one_request() {
    let origin = Origin::new(|_, request| async move { response(&[], request.into_body()) });
    let stack = stack(&origin);
    for n in 0..1000 {
        let body = format!("body {}", n % 10);
        assert_eq!(ask(&stack, post_of(body.clone())).await, body);
    }
    assert_eq!(origin.calls(), 10);
}

#[tokio::test]
async fn what_differs_in_anything_that_counts_has_an_entry_of_its_own() {
    let (origin, json) = (echo(), ("content-type", "application/json"));
    let stack = stack(&origin);
    let all = || {
        [
            post_of("a"),
            post_of("b"),
            post_of(""),
            request("POST", SEARCH, &[json], "a"),
            request("POST", SEARCH, &[("content-type", "text/plain")], "a"),
            request("POST", SEARCH, &[("content-encoding", "gzip")], "a"),
            request("POST", SEARCH, &[("content-language", "de")], "a"),
            request("POST", SEARCH, &[("content-type", "x"), ("content-type", "y")], "a"),
            request("QUERY", SEARCH, &[], "a"),
            request("POST", "http://h/search?page=2", &[], "a"),
            request("POST", "http://other/search", &[], "a"),
            get(SEARCH),
        ]
    };
    let first = ask_all(&stack, all()).await;
    assert_eq!(first[0], "1 POST a");
    assert_eq!(first[2], "3 POST ");
    assert_eq!(first[8], "9 QUERY a");
    assert_eq!(first[11], "12 GET ");
    assert_eq!(ask_all(&stack, all()).await, first, "and each is served again");
    assert_eq!(origin.calls(), all().len());
}

#[tokio::test]
async fn how_a_body_arrives_does_not_count() {
    let origin = echo();
    let stack = stack(&origin);
    let first = ask(&stack, post_of("abc")).await;
    assert_eq!(ask(&stack, post_of(pieces(["a", "", "bc"]))).await, first);
    assert_eq!(ask(&stack, request("POST", SEARCH, &[("content-length", "3")], "abc")).await, first);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn a_body_of_just_the_bound_has_a_key_and_a_longer_one_passes_intact() {
    let origin = echo();
    let stack = stack(&origin);
    let (fits, beyond) = ("x".repeat(BOUND), "x".repeat(BOUND + 1));
    for _ in 0..2 {
        assert_eq!(ask(&stack, post_of(fits.clone())).await, format!("1 POST {fits}"));
    }
    for n in [2, 3] {
        assert_eq!(ask(&stack, post_of(beyond.clone())).await, format!("{n} POST {beyond}"));
    }
    let half = || Bytes::from("x".repeat(BOUND / 2));
    for n in [4, 5] {
        let unknown = stream::iter([Ok::<_, Infallible>(half()), Ok(half()), Ok(Bytes::from("y"))]);
        let answer = ask(&stack, post_of(Body::from_stream(unknown))).await;
        assert_eq!(answer, format!("{n} POST {fits}y"));
    }
}

/// What is longer than the bound is not waited for.
#[tokio::test(start_paused = true)]
async fn a_long_body_streams_to_the_origin() {
    let origin = Origin::new(|_, request| async move {
        let mut body = request.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        response(&[], first)
    });
    let stack = stack(&origin);
    let begin = Bytes::from("x".repeat(BOUND));
    let endless =
        stream::iter([Ok::<_, Infallible>(begin.clone()), Ok(Bytes::from("y"))]).chain(stream::pending());
    assert_eq!(call(&stack, post_of(Body::from_stream(endless))).await, (StatusCode::OK, begin));
}

/// Of a length that is known, and yet to come.
struct Announced;

impl http_body::Body for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(BOUND as u64 + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_declared_to_be_long_is_not_even_begun() {
    let stack = stack(&Origin::new(|_, _| async { status(204) }));
    let by_header = request(
        "POST",
        SEARCH,
        &[("content-length", "65")],
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()),
    );
    for request in [by_header, post_of(Body::new(Announced))] {
        let answer = tokio::time::timeout(ms(10), call(&stack, request)).await;
        assert_eq!(answer.expect("not waited for").0, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_body_that_fails_or_is_cut_off_is_passed_on_so_and_not_stored() {
    let origin = echo();
    let stack = stack(&origin);
    let broken = || {
        let failing = stream::iter([Ok("ab"), Err(std::io::Error::other("gone"))]);
        post_of(Body::from_stream(failing))
    };
    let short = || request("POST", SEARCH, &[("content-length", "3")], pieces(["ab"]));
    assert_eq!(ask_all(&stack, [broken(), broken()]).await, ["1 POST gone", "2 POST gone"]);
    assert_eq!(ask_all(&stack, [short(), short()]).await, ["3 POST ab", "4 POST ab"]);
    assert_eq!(ask(&stack, post_of("ab")).await, "5 POST ab");
}

#[tokio::test]
async fn a_body_with_trailers_is_passed_on_with_them_and_not_stored() {
    let origin = Origin::new(|_, request| async move {
        let body = request.into_body().collect().await.unwrap();
        let trailer = body.trailers().map_or_else(String::new, |fields| format!("{:?}", fields["x-sum"]));
        response(&[], format!("{}{trailer}", text(&body.to_bytes())))
    });
    let stack = stack(&origin);
    for _ in 0..2 {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from("ab"))), Ok(Frame::trailers(trailers))];
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        assert_eq!(ask(&stack, post_of(body)).await, "ab\"1\"");
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn conditions_ranges_upgrades_and_hidden_methods_are_left_to_the_origin() {
    let origin = echo();
    let stack = stack(&origin);
    ask(&stack, post_of("a")).await;
    let fields: [Fields; 7] = [
        &[("if-none-match", "*")],
        &[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")],
        &[("if-match", "\"a\"")],
        &[("range", "bytes=0-0")],
        &[("if-range", "\"a\"")],
        &[("connection", "upgrade"), ("upgrade", "websocket")],
        &[("x-http-method-override", "DELETE")],
    ];
    for (n, fields) in fields.into_iter().enumerate() {
        assert_eq!(ask(&stack, request("POST", SEARCH, fields, "a")).await, format!("{} POST a", n + 2));
    }
    let http2 = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c")];
    for _ in 0..2 {
        assert_eq!(ask(&stack, request("POST", SEARCH, &http2, "a")).await, "9 POST a", "it is stored");
    }
}

#[tokio::test]
async fn a_key_of_somebody_elses_making_does_not_stand_for_a_body() {
    let origin = echo();
    let stack = stack(&origin);
    for n in [1, 2] {
        let mut request = post_of("a");
        request.extensions_mut().insert(CacheKey::new("mine"));
        assert_eq!(ask(&stack, request).await, format!("{n} POST a"));
    }
}

#[tokio::test]
async fn the_rules_of_storing_are_those_of_other_answers() {
    const AUTH: (&str, &str) = ("authorization", "Basic x");
    let cases: [(Fields, Fields, usize); 6] = [
        (&[], &[], 1),
        (&[], &[AUTH], 2),
        (&[("cache-control", "public")], &[AUTH], 1),
        (&[("set-cookie", "a=b")], &[], 2),
        (&[("cache-control", "no-store")], &[], 2),
        (&[("cache-control", "private")], &[], 2),
    ];
    for (answer, asked, calls) in cases {
        let origin = echo_with(answer);
        let stack = stack(&origin);
        for _ in 0..2 {
            ask(&stack, request("POST", SEARCH, asked, "a")).await;
        }
        assert_eq!(origin.calls(), calls, "{answer:?} to {asked:?}");
    }
    let origin = echo();
    let stack = stack_by(search(), Rules::new(), &origin);
    ask_all(&stack, [post_of("a"), post_of("a")]).await;
    assert_eq!(origin.calls(), 2, "nobody says that it is fresh");
}

#[tokio::test]
async fn the_answer_varies_and_the_rule_has_its_say() {
    let origin = echo_with(&[("vary", "accept-language")]);
    let rule = search().headers(["x-tenant"]).fixed_ttl(ms(60_000)).tags(["searches"]);
    let bodies = layer(rule);
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).build().unwrap();
    let purge = cache.purge();
    let stack = bodies.layer(cache.layer(front(&origin)));
    let of = |field| request("POST", SEARCH, &[field], "a");
    let all = || [of(("accept-language", "de")), of(("accept-language", "en")), of(("x-tenant", "t"))];
    ask_all(&stack, all()).await;
    ask_all(&stack, all()).await;
    assert_eq!(origin.calls(), 3);
    purge.tag("searches");
    ask_all(&stack, all()).await;
    assert_eq!(origin.calls(), 6);
}

#[tokio::test(start_paused = true)]
async fn equal_bodies_share_a_fetch() {
    let origin = Origin::new(|n, request| async move {
        sleep(ms(10)).await;
        response(&[("cache-control", "max-age=60")], said(n, request).await)
    });
    let stack = stack_by(search(), Rules::new(), &origin);
    let answers = join_all((0..100).map(|n| ask(&stack, post_of(["a", "b"][n % 2])))).await;
    assert_eq!(origin.calls(), 2);
    assert!(answers.iter().enumerate().all(|(n, answer)| answer.ends_with(["POST a", "POST b"][n % 2])));
}

#[tokio::test(start_paused = true)]
async fn those_who_cannot_share_a_fetch_send_their_own_bodies() {
    let origin = Origin::new(|n, request| async move {
        sleep(ms(10)).await;
        response(&[("cache-control", "private")], said(n, request).await)
    });
    let stack = stack(&origin);
    let mut answers = join_all((0..5).map(|_| ask(&stack, post_of("a")))).await;
    answers.sort();
    assert_eq!(answers, (1..=5).map(|n| format!("{n} POST a")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_retry_sends_the_body_again() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let origin = {
        let seen = Arc::clone(&seen);
        Origin::new(move |n, request| {
            let seen = Arc::clone(&seen);
            async move {
                let said = said(n, request).await;
                seen.lock().unwrap().push(said.clone());
                if n < 3 { status(503) } else { response(&[], said) }
            }
        })
    };
    assert_eq!(ask(&stack(&origin), post_of(pieces(["a", "b"]))).await, "3 POST ab");
    assert_eq!(*seen.lock().unwrap(), ["1 POST ab", "2 POST ab", "3 POST ab"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_an_error_of_the_service_sends_the_body_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let origin = service_fn(move |request: Request<RequestBody<Body>>| {
        let n = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            match n {
                0 => Err(SharedError::new(std::io::Error::other("refused"))),
                _ => Ok(Response::new(Body::from(body))),
            }
        }
    });
    let bodies = layer(search());
    let retry = tower_readthrough::RetryPolicy::new();
    let cache =
        ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(50)).retry(retry).build().unwrap();
    let answer = bodies.layer(cache.layer(origin)).oneshot(request("QUERY", SEARCH, &[], "a")).await.unwrap();
    assert_eq!((bytes(answer).await, calls.load(Ordering::SeqCst)), ("a".into(), 2));
}

/// Whoever makes another body of it may have changed it, so that it cannot be made again.
#[tokio::test(start_paused = true)]
async fn a_body_that_another_layer_has_made_is_not_sent_again_empty() {
    let origin = Origin::new(|n, request| async move {
        let said = said(n, request).await;
        if n == 1 { status(503) } else { response(&[], said) }
    });
    let bodies = layer(search());
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let inner =
        cache.layer(origin.clone()).map_request(|request: Request<RequestBody<Body>>| request.map(Body::new));
    let stack = bodies.layer(inner);
    assert_eq!(call(&stack, post_of("a")).await, (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()));
    for _ in 0..2 {
        assert_eq!(call(&stack, post_of("a")).await, (StatusCode::OK, "2 POST a".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_sends_the_body_by_the_method_it_came_by() {
    for method in ["POST", "QUERY"] {
        let origin = echo_with(&[("etag", "\"a\"")]);
        let rules = fixed(50).stale_while_revalidate_for(Duration::from_secs(10));
        let stack = stack_by(search(), rules, &origin);
        let asked = || request(method, SEARCH, &[], "a");
        assert_eq!(ask(&stack, asked()).await, format!("1 {method} a"));
        advance(ms(51)).await;
        assert_eq!(ask(&stack, asked()).await, format!("1 {method} a"), "stale, and refreshed");
        sleep(ms(1)).await;
        assert_eq!(ask(&stack, asked()).await, format!("2 {method} a"));
        assert_eq!(origin.calls(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_fetched_whole_and_served_if_that_fails() {
    let origin = Origin::new(|n, request| async move {
        assert!(!request.headers().contains_key("if-none-match"));
        let said = said(n, request).await;
        if n == 1 { response(&[("etag", "\"a\"")], said) } else { status(500) }
    });
    let rules = fixed(50).stale_if_error_for(Duration::from_secs(10));
    let stack = stack_by(search(), rules, &origin);
    ask(&stack, post_of("a")).await;
    advance(ms(51)).await;
    assert_eq!(ask(&stack, post_of("a")).await, "1 POST a");
    assert_eq!(origin.calls(), 2);
}

/// It could only be used after a revalidation, which there is none of.
#[tokio::test]
async fn what_could_only_be_revalidated_is_not_stored() {
    let origin = echo_with(&[("etag", "\"a\""), ("cache-control", "no-cache")]);
    let stack = stack_by(search(), Rules::new(), &origin);
    let answer = stack.oneshot(post_of("a")).await.unwrap();
    let status = CacheStatus::of(&answer).unwrap().to_string();
    assert!(!status.contains("stored"), "{status}");
}

#[tokio::test]
async fn reads_invalidate_nothing_and_writes_do() {
    let rules = || {
        let rules = KeyRules::builder().rule(KeyRule::path("/search").method("POST").body(BOUND));
        rules.build_with_bodies().unwrap()
    };
    let origin = echo();
    let bodies = rules();
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let purge = cache.purge();
    let stack = bodies.layer(cache.layer(front(&origin)));
    let reads = || [post_of("a"), post_of("b"), get(SEARCH)];
    let stored = ask_all(&stack, reads()).await;
    // Reads all, with a key or without.
    ask(&stack, post_of("x".repeat(BOUND + 1))).await;
    ask(&stack, request("POST", SEARCH, &[("range", "bytes=0-0")], "a")).await;
    ask(&stack, request("QUERY", SEARCH, &[], "a")).await;
    // Writes of something else.
    ask(&stack, request("POST", "http://h/search?page=2", &[("x-method-override", "PUT")], "a")).await;
    ask(&stack, request("POST", "http://h/other", &[], "a")).await;
    assert_eq!(ask_all(&stack, reads()).await, stored);

    let hidden = [("x-http-method-override", "DELETE")];
    let mut calls = origin.calls();
    for write in [
        request("PUT", SEARCH, &[], "a"),
        request("DELETE", SEARCH, &[], ""),
        request("POST", SEARCH, &hidden, "a"),
        request("POST", SEARCH, &[], "_method=DELETE"),
        request("POST", SEARCH, &[], r#"{"a": 1, "_method": "PUT"}"#),
    ] {
        ask(&stack, write).await;
        ask_all(&stack, reads()).await;
        assert_eq!(origin.calls(), calls + 4, "all that is stored for the URI went");
        calls += 4;
    }
    purge.url(SEARCH).unwrap();
    ask_all(&stack, reads()).await;
    assert_eq!(origin.calls(), calls + 3);
}

/// Another rule for the URI may know it by another name.
#[tokio::test]
async fn what_a_write_invalidates_is_what_get_names() {
    let rules = KeyRules::builder().rule(search()).rule(KeyRule::path("/search").keep_query(["q"]));
    let bodies = rules.build_with_bodies().unwrap();
    let origin = echo();
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let stack = bodies.layer(cache.layer(front(&origin)));
    let at = |uri| request("POST", uri, &[], "a");
    let all = || [at("http://h/search?q=1&x=1"), at("http://h/search?q=1"), at("http://h/search?q=2")];
    ask_all(&stack, all()).await;
    ask(&stack, request("DELETE", "http://h/search?q=1&y=2", &[], "")).await;
    ask_all(&stack, all()).await;
    assert_eq!(origin.calls(), 3 + 1 + 2);
}

#[tokio::test]
async fn nothing_else_is_read_by_a_rule() {
    let origin = echo();
    let stack = stack(&origin);
    let others = [
        ("POST", "http://h/other"),
        ("PUT", SEARCH),
        ("PATCH", SEARCH),
        // Routers differ about what it names.
        ("POST", "http://h//search"),
    ];
    for (method, uri) in others {
        let asked = || request(method, uri, &[], "a");
        let answers = ask_all(&stack, [asked(), asked()]).await;
        assert_ne!(answers[0], answers[1], "{method} {uri}");
    }
}

#[tokio::test]
async fn a_request_without_an_extension_of_the_rule_has_no_key() {
    #[derive(Clone)]
    struct Tenant(&'static str);
    let rules = KeyRules::builder()
        .rule(search().extensions(["tenant"]))
        .extension("tenant", |tenant: &Tenant| Some(tenant.0.as_bytes().into()));
    let bodies = rules.build_with_bodies().unwrap();
    let origin = echo();
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let stack = bodies.layer(cache.layer(front(&origin)));
    let of = |tenant: Option<&'static str>| {
        let mut request = post_of("a");
        tenant.map(|tenant| request.extensions_mut().insert(Tenant(tenant)));
        request
    };
    let all = || [of(Some("t")), of(Some("u")), of(None)];
    ask_all(&stack, all()).await;
    assert_eq!(ask_all(&stack, all()).await, ["1 POST a", "2 POST a", "4 POST a"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_sends_its_body_leaves_nothing_behind() {
    let origin = echo();
    let stack = stack(&origin);
    let (sender, receiver) = tokio::sync::mpsc::channel::<&str>(1);
    let body = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|chunk| (Ok::<_, Infallible>(chunk), receiver))
    });
    sender.send("a").await.unwrap();
    let left = tokio::time::timeout(ms(10), ask(&stack, post_of(Body::from_stream(body)))).await;
    assert!(left.is_err() && sender.is_closed());
    assert_eq!(origin.calls(), 0);
    assert_eq!(ask(&stack, post_of("a")).await, "1 POST a");
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_made_ready_is_the_one_that_is_called() {
    let bodies = layer(search());
    let origin = ConcurrencyLimitLayer::new(1).layer(front(&echo()));
    let mut service = bodies.layer(origin);
    for n in 1..=3 {
        let answer = async { service.ready().await.unwrap().call(post_of("a")).await.unwrap() };
        let answer = tokio::time::timeout(ms(10), answer).await.expect("not stuck");
        assert_eq!(bytes(answer).await, format!("{n} POST a"));
    }
}

#[tokio::test(start_paused = true)]
async fn layers_stacked_by_hand_do_the_same() {
    let origin = echo();
    let bodies = layer(search().fixed_ttl(ms(60_000)));
    let stored = ServiceBuilder::new()
        .layer(bodies.clone())
        .layer(StoreLayer::new(store()).key(bodies.rules()))
        .service(front(&origin));
    assert_eq!(call(&stored, post_of("a")).await.1, "1 POST a");
    assert_eq!(call(&stored, post_of("a")).await.1, "1 POST a");

    let slow = Origin::new(|n, request| async move {
        sleep(ms(10)).await;
        response(&[], said(n, request).await)
    });
    let shared = ServiceBuilder::new()
        .layer(bodies.clone())
        .layer(KeyLayer::new(bodies.rules()))
        .layer(CoalesceLayer::new())
        .service(front(&slow));
    let answers = join_all((0..4).map(|_| call(&shared, post_of("a")))).await;
    assert!(answers.iter().all(|(_, answer)| answer == "1 POST a"));
}

/// The cache below has keys of its own, and none for a body.
#[tokio::test]
async fn another_cache_below_lets_such_requests_through() {
    let origin = echo();
    let below = ReadThroughLayer::builder(store()).rules(fixed(60_000)).build().unwrap();
    let inner = below.layer(front(&origin)).map_response(|answer| answer.map(Body::new));
    let bodies = layer(search().fixed_ttl(ms(60_000)));
    let above = ReadThroughLayer::builder(store()).key(bodies.rules()).build().unwrap();
    let stack = bodies.layer(above.layer(inner));
    call(&stack, get(SEARCH)).await;
    for body in ["a", "b", "a"] {
        let answer = call(&stack, post_of(body)).await.1;
        assert!(answer.ends_with(body.as_bytes()));
    }
    call(&stack, get(SEARCH)).await;
    // GET is not stored above, only below: the reads have not invalidated it.
    assert_eq!(origin.calls(), 3);
}

async fn served() -> (String, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let bodies = layer(search());
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let handler = async move |body: Bytes| {
        counter.fetch_add(1, Ordering::SeqCst);
        body
    };
    let app =
        Router::new().route("/search", post(handler)).layer(ServiceBuilder::new().layer(bodies).layer(cache));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/search", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, calls)
}

#[tokio::test]
async fn over_sockets_it_is_the_same() {
    let (url, calls) = served().await;
    let client = reqwest::Client::new();
    let ask = async |body: reqwest::Body| {
        let answer = client.post(&url).body(body).send().await.unwrap();
        text(&answer.bytes().await.unwrap())
    };
    for body in ["a", "b", "a", "b"] {
        assert_eq!(ask(body.into()).await, body);
    }
    let chunked = stream::iter(["a", ""].map(Ok::<_, Infallible>));
    assert_eq!(ask(reqwest::Body::wrap_stream(chunked)).await, "a");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let long = "x".repeat(1 << 20);
    for _ in 0..2 {
        assert_eq!(ask(long.clone().into()).await, long);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

#[test]
fn rules_that_cannot_work_are_refused_by_name() {
    let path = "a rule with a `body` has all of the path in its keys; remove `no_vary_search`, and name the captures of \
                the path";
    let cases = [
        (
            KeyRule::path("/s").body(1),
            "a rule with a `body` needs a `method`; name those of GET, POST and QUERY that are reads",
        ),
        (
            search().method("HEAD"),
            "a rule with a `body` cannot have the method `HEAD`; use GET, POST or QUERY",
        ),
        (search().body(0), "`body` is zero, so no body is short enough for a key"),
        (
            search().body((1 << 20) + 1),
            "a `body` of 1048577 bytes is too large for a key; the limit is 1048576",
        ),
        (search().no_vary_search(), path),
        (KeyRule::path("/s/{_}").method("POST").body(1), path),
        (
            search().bypass(),
            "`bypass` has no effect: a rule that bypasses has no key and stores nothing; remove its other settings",
        ),
        (
            KeyRule::path("/s").method("POST"),
            "requests of method `POST` have no key; use GET or HEAD, or give the rule a `body`",
        ),
    ];
    for (rule, problem) in cases {
        let error = KeyRules::builder().rule(rule.name("r")).build_with_bodies().unwrap_err();
        assert_eq!(error.to_string(), format!("key rule 0 (`r`): {problem}"));
    }
    let error =
        KeyRules::builder().rule(KeyRule::any().bypass()).rule(search()).build_with_bodies().unwrap_err();
    assert_eq!(
        error.to_string(),
        "key rule 1 (`/search`): this rule is never reached: rule 0 matches all of its requests"
    );
    let guard = tower_readthrough::Guard::new().headers(["content-type"]);
    let error = KeyRules::builder().guard(guard).rule(search()).build_with_bodies().unwrap_err();
    assert_eq!(
        error.to_string(),
        "key rules: `content-type` is not a field that a guard can remove; write a name, or a prefix like \
         `x-forwarded-*`"
    );
}

#[tokio::test]
async fn a_rule_without_methods_leaves_reads_to_the_rules_after_it_unless_it_bypasses() {
    let origin = echo();
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/search/account").bypass())
        .rule(KeyRule::any().fixed_ttl(ms(60_000)))
        .rule(KeyRule::any().method("POST").body(BOUND).fixed_ttl(ms(60_000)));
    let bodies = rules.build_with_bodies().unwrap();
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).build().unwrap();
    let stack = bodies.layer(cache.layer(front(&origin)));
    assert_eq!(ask_all(&stack, [post_of("a"), post_of("a")]).await, ["1 POST a", "1 POST a"]);
    let account = || request("POST", "http://h/search/account", &[], "a");
    assert_eq!(ask_all(&stack, [account(), account()]).await, ["2 POST a", "3 POST a"]);
}

#[test]
fn nobody_can_forget_the_layer() {
    let error = KeyRules::builder().rule(KeyRule::any().tags(["t"])).rule(search()).build().unwrap_err();
    assert_eq!(error.index(), Some(1));
    assert_eq!(
        error.to_string(),
        "key rule 1 (`/search`): a rule with a `body` needs a layer that reads bodies; use \
         `KeyRulesBuilder::build_with_bodies`",
    );
    let (head, ()) = Request::post(SEARCH).body(()).unwrap().into_parts();
    assert_eq!(layer(search()).rules().key(&head), None, "nobody has read a body");
}

#[cfg(feature = "serde")]
#[test]
fn documents_have_bodies_too() {
    let text = r#"{ "rules": [{ "path": "/search", "method": ["POST", "QUERY"], "body": 64 }] }"#;
    assert_eq!(serde_json::from_str::<KeyRule>(&text[12..text.len() - 3]).unwrap(), search());
    assert!(serde_json::from_str::<BodyKeyLayer>(text).is_ok());
    let error = serde_json::from_str::<KeyRules>(text).unwrap_err().to_string();
    assert!(error.starts_with("key rule 0 (`/search`): a rule with a `body` needs a layer"), "{error}");
    assert!(serde_json::from_str::<BodyKeyLayer>(r#"{ "rules": [] }"#).is_ok());
}

/// What of a request counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CacheRequest {
    path: &'static str,
    query: Option<&'static str>,
    method: &'static str,
    content_type: Vec<&'static str>,
    body: Vec<u8>,
}

fn asked() -> impl Strategy<Value = CacheRequest> {
    let path = prop::sample::select(vec!["/a", "/b", "/b/c"]);
    let query = prop::option::of(prop::sample::select(vec!["", "x", "x=1"]));
    let method = prop::sample::select(vec!["POST", "QUERY"]);
    let content_type = prop::collection::vec(prop::sample::select(vec!["", "a", "b"]), 0..3);
    let body = prop::collection::vec(0..2_u8, 0..3);
    (path, query, method, content_type, body).prop_map(|(path, query, method, content_type, body)| {
        CacheRequest { path, query, method, content_type, body }
    })
}

impl CacheRequest {
    /// In one frame for each byte, if `split`.
    fn key(&self, split: bool) -> CacheKey {
        let rules =
            [KeyRule::path("/a"), KeyRule::any()].map(|rule| rule.method("POST").method("QUERY").body(8));
        let [first, second] = rules;
        let bodies = KeyRules::builder().rule(first).rule(second).build_with_bodies().unwrap();
        let uri = format!(
            "http://h{}{}",
            self.path,
            self.query.map_or_else(String::new, |query| format!("?{query}"))
        );
        let fields: Vec<_> = self.content_type.iter().map(|value| ("content-type", *value)).collect();
        let body = match split {
            true => {
                Body::from_stream(stream::iter(self.body.clone()).map(|byte| Ok::<_, Infallible>(vec![byte])))
            }
            false => Body::from(self.body.clone()),
        };
        let service = bodies.layer(service_fn(async |request: Request<RequestBody<Body>>| {
            Ok::<_, Infallible>(request.extensions().get::<CacheKey>().cloned())
        }));
        let answer = service.oneshot(request(self.method, &uri, &fields, body));
        futures_util::FutureExt::now_or_never(answer).unwrap().unwrap().expect("a key")
    }
}

/// What the origin and purges make of a request that has a key.
#[derive(Debug, PartialEq)]
struct Seen {
    method: Method,
    target: String,
    content_type: Option<String>,
    body: Bytes,
    identity: Option<CacheKey>,
}

/// The key of a request under rules that leave parts of it out, and what comes of it.
fn seen(method: &str, target: &str, content_type: Option<&str>, body: String) -> (Option<CacheKey>, Seen) {
    let reads = |path: &str| KeyRule::path(path).method("POST").method("QUERY").method("GET").body(64);
    let rules = KeyRules::builder()
        .rule(reads("/a").keep_query(["q"]).json_body(JsonBody::new().ignore(["/s"])))
        .rule(reads("/b?q={q}&u={_}").json_body(JsonBody::new().replace("/s", 1)))
        .rule(reads("/c").sort_query().json_body(JsonBody::new().include(["/a"])))
        .rule(reads("/d").graphql().ignore_query(["u*"]))
        .rule(KeyRule::path("/a").ignore_query(["u*"]))
        .rule(KeyRule::path("/b").keep_query(["u"]));
    let bodies = rules.build_with_bodies().unwrap();
    let rules = bodies.rules();
    let service =
        bodies.layer(service_fn(async |request: Request<RequestBody<Body>>| Ok::<_, Infallible>(request)));
    let fields: Vec<_> = content_type.iter().map(|value| ("content-type", *value)).collect();
    let answer = service.oneshot(request(method, &format!("http://h{target}"), &fields, body));
    let (mut head, body) = futures_util::FutureExt::now_or_never(answer).unwrap().unwrap().into_parts();
    let body = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap().to_bytes();
    let key = head.extensions.get::<CacheKey>().cloned();
    let identity = rules.identity(&head.uri, head.headers.get("host"), &head.extensions);
    rules.prepare(&mut head);
    let content_type = head.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned());
    (key, Seen { method: head.method, target: head.uri.to_string(), content_type, body, identity })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Two requests share an entry only if the origin would see the same, and a purge of one reaches it.
    #[test]
    fn what_shares_a_key_looks_the_same_to_the_origin_and_has_one_name(
        path in prop::sample::select(vec!["/a", "/b", "/c", "/d"]),
        queries in prop::array::uniform2(prop::sample::select(vec![
            "", "?q=1", "?q=1&u=1", "?u=2&q=1", "?q=2&u=1", "?q=1;u=2", "?Q=1&q=1", "?_method=PUT&q=1",
        ])),
        methods in prop::array::uniform2(prop::sample::select(vec!["POST", "POST", "QUERY", "GET"])),
        types in prop::array::uniform2(prop::sample::select(vec![
            Some("application/json"), Some("application/json"), Some("text/plain"), None,
        ])),
        bodies in prop::array::uniform2(prop::sample::select(vec![
            r#"{"a":1,"s":2}"#, r#"{ "s":3, "a":1}"#, r#"{"a":1.0,"s":2}"#, r#"{"a":1}"#, r#"{"a":1,"A":2}"#,
            r#"{"a":1,"a":2}"#, r#"{"s":1}"#, r#"{"query":"{a}"}"#, r#"{"query":"mutation{a}"}"#, "{", "1",
        ])),
        differs in prop::bits::u8::masked(0b1111),
    ) {
        let of = |n: u8| {
            // The second request is the first one but for some parts.
            let at = |bit: u8| usize::from(n & differs >> bit & 1);
            let target = format!("{path}{}", queries[at(0)]);
            seen(methods[at(1)], &target, types[at(2)], bodies[at(3)].to_owned())
        };
        let ((first, one), (second, other)) = (of(0), of(1));
        if first.is_some() && first == second {
            prop_assert_eq!(one, other);
        }
    }
}

proptest! {
    #[test]
    fn keys_are_equal_only_for_equal_requests(a in asked(), b in asked()) {
        prop_assert_eq!(a.key(false) == b.key(true), a == b);
        prop_assert_eq!(a.key(false), a.key(true));
    }

    #[test]
    fn whatever_is_not_read_to_its_end_passes_byte_for_byte(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let all = chunks.concat();
        let service = layer(search()).layer(service_fn(async |request: Request<RequestBody<Body>>| {
            let has_key = request.extensions().get::<CacheKey>().is_some();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>((has_key, body))
        }));
        let body = Body::from_stream(stream::iter(chunks).map(Ok::<_, Infallible>));
        let (has_key, seen) = runtime.block_on(service.oneshot(post_of(body))).unwrap();
        prop_assert_eq!(has_key, all.len() <= BOUND);
        prop_assert_eq!(seen, all);
    }
}

#[test]
fn methods_are_compared_as_written() {
    assert_ne!(Method::from_bytes(b"query").unwrap().as_str(), "QUERY");
    let error = KeyRules::builder().rule(KeyRule::any().method("query").body(1)).build_with_bodies();
    assert!(error.is_err());
}
