//! The stack in an axum application, over real sockets where sockets matter.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{ConnectInfo, Path, State},
    response::{Sse, sse::Event},
    routing::{get, post},
};
use futures_util::StreamExt;
use http::{Extensions, HeaderValue, Request, StatusCode, Uri, request::Parts};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, time::sleep};
use tower::ServiceExt;
use tower_readthrough::{
    CacheKey, CacheStatus, DefaultKey, KeyExtractor, LookupLayer, MemoryStore, ReadThroughLayer, RetryPolicy,
    Rules, StoreLayer,
};

use crate::support::{bytes, fixed, ms, stack, store};

/// Serves on a free port, for as long as the test runs.
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    address
}

fn request(path: &str) -> Request<Body> {
    Request::get(path).header("host", "app.example").body(Body::empty()).unwrap()
}

async fn text(app: &Router, request: Request<Body>) -> String {
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    String::from_utf8(bytes(response).await.to_vec()).unwrap()
}

type Calls = Arc<AtomicUsize>;

/// A handler that needs everything that axum puts into the extensions of a request.
async fn greedy(
    State(calls): State<Calls>,
    Path(id): Path<u32>,
    Extension(tenant): Extension<&'static str>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> (StatusCode, String) {
    let n = calls.fetch_add(1, Ordering::SeqCst) + 1;
    // Every second attempt fails, and is retried.
    let status = if n.is_multiple_of(2) { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    (status, format!("{id} {tenant} {peer} {n}"))
}

#[tokio::test(start_paused = true)]
async fn extractors_work_on_a_miss_a_retry_and_a_background_refresh() {
    let calls = Calls::default();
    let peer: SocketAddr = "10.0.0.1:7".parse().unwrap();
    let rules = fixed(50).stale_while_revalidate_for(Duration::from_secs(10));
    let retry = RetryPolicy::new().backoff(ms(1), ms(1)).despite_stale(true);
    let cache = ReadThroughLayer::builder(store()).rules(rules).retry(retry).build().unwrap();
    let app = Router::new()
        .route("/item/{id}", get(greedy))
        .with_state(Arc::clone(&calls))
        .layer(cache)
        .layer(Extension("acme"))
        .layer(axum::extract::connect_info::MockConnectInfo(peer));

    // The first attempt fails, and the retry succeeds.
    assert_eq!(text(&app, request("/item/7")).await, "7 acme 10.0.0.1:7 2");
    sleep(ms(60)).await;
    // Stale, and refreshed in the background, with a retry as well.
    assert_eq!(text(&app, request("/item/7")).await, "7 acme 10.0.0.1:7 2");
    sleep(ms(5)).await;
    assert_eq!(text(&app, request("/item/7")).await, "7 acme 10.0.0.1:7 4");
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn nested_routers_that_share_a_store_do_not_share_entries() {
    let shared = store();
    let cache = || ReadThroughLayer::builder(shared.clone()).rules(fixed(60_000)).build().unwrap();
    let inner = |name: &'static str| Router::new().route("/x", get(async move || name)).layer(cache());
    let app = Router::new()
        .nest("/a", inner("a"))
        .nest("/b", Router::new().nest("/c", inner("c")))
        .merge(inner("top"));
    for _ in 0..2 {
        assert_eq!(text(&app, request("/a/x")).await, "a");
        assert_eq!(text(&app, request("/b/c/x")).await, "c");
        assert_eq!(text(&app, request("/x")).await, "top");
    }
    assert_eq!(shared.stats().entries, 3);
}

/// One entry per product, by the URI that a nested router sees.
struct ByProduct;

impl KeyExtractor for ByProduct {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        self.identity(&head.uri, None, &head.extensions)
    }

    fn identity(&self, uri: &Uri, _: Option<&HeaderValue>, _: &Extensions) -> Option<CacheKey> {
        let product = uri.path().strip_prefix("/product/")?;
        Some(CacheKey::from_parts(["product", product]))
    }
}

#[tokio::test]
async fn in_a_nested_router_an_identity_is_of_the_same_uri_as_the_key() {
    let price = Arc::new(AtomicUsize::new(0));
    let (read, write) = (Arc::clone(&price), price);
    let product = get(async move || read.load(Ordering::Relaxed).to_string())
        .post(async move || write.fetch_add(1, Ordering::Relaxed).to_string());
    let cache = ReadThroughLayer::builder(store()).key(ByProduct).rules(fixed(60_000)).build().unwrap();
    let app = Router::new().nest("/api", Router::new().route("/product/{id}", product).layer(cache));
    assert_eq!(text(&app, request("/api/product/7?a")).await, "0");
    let changed = Request::post("/api/product/7?b").header("host", "app.example").body(Body::empty());
    text(&app, changed.unwrap()).await;
    assert_eq!(text(&app, request("/api/product/7?a")).await, "1");
}

#[tokio::test]
async fn a_namespace_keeps_services_apart_that_share_a_store_and_a_host() {
    let shared = store();
    let app = |name: &'static str| {
        let cache = ReadThroughLayer::builder(shared.clone())
            .key(DefaultKey::new().namespace(name))
            .rules(fixed(60_000))
            .build()
            .unwrap();
        Router::new().route("/x", get(async move || name)).layer(cache)
    };
    let (first, second) = (app("first"), app("second"));
    for _ in 0..2 {
        assert_eq!(text(&first, request("/x")).await, "first");
        assert_eq!(text(&second, request("/x")).await, "second");
    }
}

/// axum applies a layer once per route and clones services per request.
#[tokio::test]
async fn routes_under_one_layer_share_its_store_and_its_fetches() {
    let calls = Calls::default();
    let count = |calls: &Calls| {
        let calls = Arc::clone(calls);
        get(async move || {
            calls.fetch_add(1, Ordering::SeqCst);
            sleep(ms(20)).await;
            "hello"
        })
    };
    let layer: ReadThroughLayer<MemoryStore> = stack(fixed(60_000));
    let app = Router::new().route("/a", count(&calls)).route("/b", count(&calls)).layer(layer);
    let asks = (0..100).map(|n| {
        let app = app.clone();
        async move { text(&app, request(["/a", "/b"][n % 2])).await }
    });
    assert!(futures_util::future::join_all(asks).await.iter().all(|answer| answer == "hello"));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_layers_fit_a_router_a_method_router_and_a_handler() {
    use axum::handler::Handler;
    let one = StoreLayer::new(store());
    let app: Router = Router::new()
        .route("/method", get(async || "m").layer(one.clone()))
        .route_service("/handler", (async || "h").layer(one).with_state(()))
        .route_layer(LookupLayer::new(store()))
        .layer(stack(Rules::new()));
    assert_eq!(text(&app, request("/method")).await, "m");
    assert_eq!(text(&app, request("/handler")).await, "h");
}

#[tokio::test]
async fn http1_and_http2_share_entries() {
    let calls = Calls::default();
    let handler = Arc::clone(&calls);
    let app = Router::new()
        .route("/x", get(async move || handler.fetch_add(1, Ordering::SeqCst).to_string()))
        .layer(stack(fixed(60_000)));
    let url = format!("http://{}/x", serve(app).await);
    let http1 = reqwest::Client::new();
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    assert_eq!(http1.get(&url).send().await.unwrap().text().await.unwrap(), "0");
    let answer = http2.get(&url).send().await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert!(answer.headers().contains_key("age"));
    assert_eq!(answer.text().await.unwrap(), "0");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn hits_and_misses_have_a_length_and_head_is_a_hit_of_get() {
    let app = Router::new().route("/x", get(async || "hello")).layer(stack(fixed(60_000)));
    let url = format!("http://{}/x", serve(app).await);
    let client = reqwest::Client::new();
    for _ in 0..2 {
        let answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.headers()["content-length"], "5");
        assert!(answer.headers().contains_key("date"));
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
    let head = client.head(&url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "5");
    assert!(head.headers().contains_key("age"));
    assert_eq!(head.text().await.unwrap(), "");
}

#[tokio::test]
async fn an_endless_event_stream_arrives_at_once_and_is_never_held_back() {
    let events = async || {
        let events = futures_util::stream::iter(["first"]).chain(futures_util::stream::pending());
        Sse::new(events.map(|text| Ok::<_, Infallible>(Event::default().data(text))))
    };
    for rules in [Rules::new(), fixed(60_000), Rules::new().default_ttl(ms(60_000))] {
        let app = Router::new().route("/events", get(events)).layer(stack(rules));
        let url = format!("http://{}/events", serve(app).await);
        for _ in 0..2 {
            let mut answer = reqwest::get(&url).await.unwrap();
            assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: first\n\n");
        }
    }
}

#[tokio::test]
async fn posts_pass_with_their_body_and_are_never_stored() {
    let shared = store();
    let cache = ReadThroughLayer::builder(shared.clone()).rules(fixed(60_000)).build().unwrap();
    let app = Router::new().route("/x", post(async |body: String| body)).layer(cache);
    let url = format!("http://{}/x", serve(app).await);
    for body in ["one", "two"] {
        let answer = reqwest::Client::new().post(&url).body(body).send().await.unwrap();
        assert!(!answer.headers().contains_key("age"));
        assert_eq!(answer.text().await.unwrap(), body);
    }
    assert_eq!(shared.stats().entries, 0);
}

/// A GET may have a body that a handler reads; the cache does not handle such a request.
#[tokio::test]
async fn a_get_with_a_body_is_not_cached_over_either_version_of_http() {
    let app = Router::new().route("/x", get(async |body: String| body)).layer(stack(fixed(60_000)));
    let url = format!("http://{}/x", serve(app).await);
    let http1 = reqwest::Client::new();
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for body in ["one", "two", ""] {
        let sent = http1.get(&url).body(body).send().await.unwrap();
        assert_eq!(sent.text().await.unwrap(), body);
        // A stream, so that no header field tells of the body.
        let stream = futures_util::stream::iter([Ok::<_, Infallible>(body)]);
        let sent = http2.get(&url).body(reqwest::Body::wrap_stream(stream)).send().await.unwrap();
        assert_eq!(sent.text().await.unwrap(), body);
    }
}

#[tokio::test]
async fn a_protocol_switch_passes_untouched() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let echo = async |mut request: Request<Body>| {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let mut line = [0; 4];
            io.read_exact(&mut line).await.unwrap();
            io.write_all(&line).await.unwrap();
        });
        crate::support::status(101).header("connection", "upgrade").header("upgrade", "echo").into_response()
    };
    let app = Router::new().route("/ws", get(echo)).layer(stack(fixed(60_000)));
    let address = serve(app).await;
    for _ in 0..2 {
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        let ask = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nping";
        connection.write_all(ask).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ping") {
            assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0, "closed early");
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_panicking_handler_closes_the_connection_as_it_would_without_the_layers() {
    let handler = async || -> &'static str { panic!("handler") };
    let plain = Router::new().route("/x", get(handler));
    let cached = plain.clone().layer(stack(fixed(60_000)));
    for app in [plain, cached] {
        let error = reqwest::get(format!("http://{}/x", serve(app).await)).await.unwrap_err();
        assert!(error.is_request(), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_response_has_a_cache_status() {
    let app = Router::new().route("/x", get(async || "hello")).layer(stack(fixed(1000)));
    let status = async || {
        let response = app.clone().oneshot(request("/x")).await.unwrap();
        let status = CacheStatus::of(&response).unwrap();
        bytes(response).await;
        status.to_string()
    };
    assert_eq!(status().await, "fwd=uri-miss; stored");
    assert_eq!(status().await, "hit");
    sleep(ms(1000)).await;
    assert_eq!(status().await, "fwd=stale; stored");
}

#[tokio::test]
async fn a_body_over_the_limit_reaches_every_client_whole() {
    let big = MemoryStore::with_capacity_bytes(1 << 20);
    let cache = ReadThroughLayer::builder(big.clone()).rules(fixed(60_000)).build().unwrap();
    let chunks = async || {
        let chunks = futures_util::stream::repeat(vec![b'x'; 64 << 10]).take(160);
        Body::from_stream(chunks.map(Ok::<_, Infallible>))
    };
    let app = Router::new().route("/x", get(chunks)).layer(cache);
    let url = format!("http://{}/x", serve(app).await);
    for _ in 0..2 {
        let mut answer = reqwest::get(&url).await.unwrap();
        let mut length = 0;
        while let Some(chunk) = answer.chunk().await.unwrap() {
            length += chunk.len();
        }
        assert_eq!(length, 10 << 20);
    }
    assert_eq!(big.stats().refused, 2);
}

#[tokio::test]
async fn bodies_of_the_stack_report_their_exact_size() {
    use http_body::Body as _;
    let app = Router::new().route("/x", get(async || "hello")).layer(stack(fixed(60_000)));
    for _ in 0..2 {
        let body = app.clone().oneshot(request("/x")).await.unwrap().into_body();
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    }
}
