//! Message framing: declared lengths, transfer codings, connections.

use std::{
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_readthrough::{
    CoalesceLayer, FillLayer, KeyLayer, LookupLayer, NotStored, OriginLimitLayer, ReadThroughLayer,
    RequestBody, SharedError, StaleIfErrorLayer, StoreLayer,
};

use crate::support::{
    Reply, ScriptedOrigin, ScriptedResponse, collect, get, get_with, ok, request, send, small_store, status,
};

/// Serves HTTP/1 on a port of its own.
async fn serve<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    addr
}

/// Sends the same bytes for each request that has no body, and counts the requests.
async fn raw_origin(response: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, calls) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        counter.fetch_add(1, Ordering::SeqCst);
                        stream.write_all(response.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    (addr, calls)
}

/// A body that knows its end only when it is polled once more, as that of a file does.
fn unaware(chunks: Vec<&'static str>) -> impl HttpBody<Data = Bytes, Error = Infallible> + Send + 'static {
    StreamBody::new(stream::iter(chunks).map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))))
}

#[tokio::test]
async fn a_response_is_stored_at_its_declared_length_by_a_server_that_asks_for_no_more() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let files = service_fn(move |request: Request<RequestBody<Incoming>>| {
        counter.fetch_add(1, Ordering::SeqCst);
        let (length, chunks) = match request.uri().path() {
            "/one" => ("5", vec!["hello"]),
            "/two" => ("5", vec!["hel", "lo"]),
            _ => ("0", vec![]),
        };
        let response =
            Response::builder().header("cache-control", "max-age=60").header("content-length", length);
        async move { Ok::<_, Infallible>(response.body(unaware(chunks)).unwrap()) }
    });
    let together = StoreLayer::new(small_store()).layer(files.clone());
    let shared = small_store();
    let apart = LookupLayer::new(shared.clone()).layer(FillLayer::new(shared).layer(files));
    let wrap = |request: Request<Incoming>| request.map(RequestBody::new);
    for addr in [serve(together.map_request(wrap)).await, serve(apart.map_request(wrap)).await] {
        for (path, body) in [("/one", "hello"), ("/two", "hello"), ("/none", "")] {
            let before = calls.load(Ordering::SeqCst);
            for status in ["tower-readthrough;fwd=uri-miss;stored", "tower-readthrough;hit"] {
                let response = reqwest::get(format!("http://{addr}{path}")).await.unwrap();
                assert_eq!(response.headers()["cache-status"], status, "{path}");
                assert_eq!(response.text().await.unwrap(), body);
            }
            assert_eq!(calls.load(Ordering::SeqCst), before + 1, "{path}");
        }
    }
}

/// Whether a response is stored if its client reads this many bytes of the body, or finds it at its end,
/// and then drops it.
async fn is_stored_after(bytes: usize, fields: &[(&str, &str)], answer: fn() -> ScriptedResponse) -> bool {
    let store = small_store();
    let service = StoreLayer::new(store.clone()).layer(ScriptedOrigin::always(move || answer().max_age(60)));
    let body = service.oneshot(request("GET", "/", fields)).await.unwrap().into_body();
    let mut read = 0;
    {
        let mut body = pin!(body);
        while read < bytes
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    }
    store.stats().entries == 1
}

#[tokio::test(start_paused = true)]
async fn the_declared_length_completes_a_body_and_nothing_else_does() {
    fn hello() -> ScriptedResponse {
        ok("hel").chunk("lo").chunk("!").header("content-length", "5")
    }
    assert!(!is_stored_after(3, &[], hello).await);
    assert!(is_stored_after(5, &[], hello).await, "what follows is not part of the message");
    assert!(!is_stored_after(6, &[], hello).await, "unless it was seen to be there");
    fn broken() -> ScriptedResponse {
        ok("hello").header("content-length", "5").cut()
    }
    assert!(is_stored_after(5, &[], broken).await);
    assert!(!is_stored_after(6, &[], broken).await);
    fn by_itself() -> ScriptedResponse {
        ok("hel").chunk("lo").trailer("x-sum", "1").declares(5)
    }
    assert!(!is_stored_after(3, &[], by_itself).await);
    assert!(is_stored_after(5, &[], by_itself).await);
    fn undeclared() -> ScriptedResponse {
        ok("hello").chunk("!")
    }
    assert!(!is_stored_after(5, &[], undeclared).await);
    fn part() -> ScriptedResponse {
        let answer = status(206).header("content-range", "bytes 0-4/9").header("etag", "\"1\"");
        answer.chunk("hel").chunk("lo").chunk("!").header("content-length", "5")
    }
    let range = [("range", "bytes=0-4")];
    assert!(!is_stored_after(3, &range, part).await);
    assert!(is_stored_after(5, &range, part).await);
}

#[tokio::test(start_paused = true)]
async fn trailers_after_a_declared_length_are_stored() {
    let origin = ScriptedOrigin::always(|| {
        ok("hello").header("content-length", "5").trailer("x-sum", "1").max_age(60)
    });
    let service = StoreLayer::new(small_store()).layer(origin.clone());
    for _ in 0..2 {
        assert_eq!(get(&service, "/").await.trailers.unwrap()["x-sum"], "1");
    }
    assert_eq!(origin.calls(), 1);
}

/// The response through each layer alone, and through all of them together.
async fn through_each_layer(method: &str, answer: fn() -> ScriptedResponse) -> Vec<(&'static str, Reply)> {
    async fn ask<S, B>(service: S, method: &str) -> Reply
    where
        S: Service<Request<crate::support::Body>, Response = Response<B>, Error: std::fmt::Debug> + Clone,
        B: HttpBody<Data = Bytes>,
    {
        collect(service.oneshot(request(method, "/", &[])).await.unwrap()).await
    }
    let origin = ScriptedOrigin::always(answer);
    let store = small_store();
    let unmarked = LookupLayer::new(store.clone()).cache_status(false);
    vec![
        (
            "stack",
            ask(ReadThroughLayer::builder(store.clone()).build().unwrap().layer(origin.clone()), method)
                .await,
        ),
        ("store", ask(StoreLayer::new(store.clone()).layer(origin.clone()), method).await),
        ("lookup", ask(LookupLayer::new(store.clone()).layer(origin.clone()), method).await),
        ("unmarked lookup", ask(unmarked.layer(origin.clone()), method).await),
        (
            "fill",
            ask(KeyLayer::default().layer(FillLayer::new(store.clone()).layer(origin.clone())), method).await,
        ),
        (
            "coalesce",
            ask(KeyLayer::default().layer(CoalesceLayer::new().layer(origin.clone())), method).await,
        ),
        ("stale-if-error", ask(StaleIfErrorLayer::new(store).layer(origin.clone()), method).await),
        ("origin limit", ask(OriginLimitLayer::new(1).layer(origin), method).await),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_layer_removes_a_length_that_would_cut_the_body() {
    type Row = (fn() -> ScriptedResponse, Option<&'static str>);
    let rows: [Row; 6] = [
        (|| ok("hello").header("content-length", "3").header("transfer-encoding", "chunked"), None),
        (|| ok("hello").header("content-length", "3").declares(5), None),
        (|| ok("hello").header("content-length", "+5"), None),
        (|| ok("hello").header("content-length", "5").header("content-length", "6"), None),
        (|| ok("hello").header("content-length", "5, 5"), Some("5")),
        (|| ok("hello").header("content-length", "5").header("content-length", "5"), Some("5")),
    ];
    for (answer, length) in rows {
        for method in ["GET", "POST"] {
            for (layer, reply) in through_each_layer(method, answer).await {
                assert_eq!(reply.body, "hello");
                let lines: Vec<_> = reply.headers.get_all("content-length").iter().collect();
                assert_eq!(lines, length.as_slice(), "{layer}, {method}: {:?}", answer());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_without_a_body_to_cut_stays() {
    for (method, code) in [("HEAD", 200), ("GET", 304)] {
        let answer: fn() -> ScriptedResponse = match code {
            200 => || ok("").declares(0).header("content-length", "5"),
            _ => || status(304).declares(0).header("content-length", "5"),
        };
        for (layer, reply) in through_each_layer(method, answer).await {
            assert_eq!(reply.header("content-length"), Some("5"), "{layer}, {method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_stored_reports_stored() {
    type Row = (fn() -> ScriptedResponse, bool);
    let rows: [Row; 15] = [
        (|| ok("hello").header("content-length", "5"), true),
        (|| ok("hello").header("content-length", "5, 5"), true),
        (|| ok("hello").header("content-length", "5").header("content-length", "5"), true),
        (|| ok("hello").header("content-length", "3").header("transfer-encoding", "chunked"), true),
        (|| ok("hello").header("content-length", "x").header("transfer-encoding", "Chunked"), true),
        (|| status(204).header("content-length", "5"), true),
        (|| ok("hello").header("content-length", "5").header("content-length", "6"), false),
        (|| ok("hello").header("content-length", "5, 6"), false),
        (|| ok("hello").header("content-length", "five"), false),
        (|| ok("hello").header("content-length", "+5"), false),
        (|| ok("hello").header("content-length", ""), false),
        (|| ok("hello").header("content-length", "3").declares(5), false),
        (|| ok("hello").header("content-length", "9").declares(5), false),
        (|| ok("hello").header("transfer-encoding", "gzip, chunked"), false),
        (|| ok("hello").header("transfer-encoding", "gzip").header("transfer-encoding", "chunked"), false),
    ];
    for (answer, is_stored) in rows {
        let origin = ScriptedOrigin::always(move || answer().max_age(60));
        let shared = small_store();
        let stack = ReadThroughLayer::builder(small_store()).build().unwrap().layer(origin.clone());
        let single = StoreLayer::new(shared).layer(origin.clone());
        for n in 0..2 {
            let ask = async || if n == 0 { get(&stack, "/").await } else { get(&single, "/").await };
            let first = ask().await.cache_status.unwrap();
            assert_eq!(first.is_stored(), is_stored, "{:?}", answer());
            let why = (!is_stored).then_some(NotStored::Framing);
            assert_eq!(first.not_stored_reason(), why, "{:?}", answer());
            assert_eq!(ask().await.is_hit(), is_stored, "{:?}", answer());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_with_the_length_of_its_range_reports_stored() {
    for (length, is_stored) in [("5", true), ("5, 5", true), ("4", false), ("x", false)] {
        let origin = ScriptedOrigin::always(move || {
            let answer =
                status(206).header("content-range", "bytes 0-4/9").header("etag", "\"1\"").max_age(60);
            answer.chunk("hello").header("content-length", length)
        });
        let service = StoreLayer::new(small_store()).layer(origin);
        let ask = async || get_with(&service, "/", &[("range", "bytes=0-4")]).await;
        assert_eq!(ask().await.cache_status.unwrap().is_stored(), is_stored, "{length}");
        assert_eq!(ask().await.is_hit(), is_stored, "{length}");
    }
}

/// A message that cannot be framed says nothing about what is stored.
#[tokio::test(start_paused = true)]
async fn a_broken_response_displaces_nothing() {
    let origin = ScriptedOrigin::new(|n, _| match n {
        2 => ok("hello").header("content-length", "+5").max_age(60),
        _ => ok("good").header("cache-control", "max-age=60").header("vary", "x"),
    });
    let shared = small_store();
    let service = StoreLayer::new(shared.clone()).layer(origin.clone());
    get(&service, "/").await;
    send(&FillLayer::new(shared).layer(origin), request("GET", "/", &[])).await;
    assert_eq!(get(&service, "/").await.body, "good");
}

#[tokio::test]
async fn a_length_beside_a_transfer_coding_cuts_nothing_over_hyper_s_client() {
    const BOTH: &str = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 3\r\n\
        transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    const TWICE: &str = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5, 5\r\n\r\nhello";
    for response in [BOTH, TWICE] {
        let (origin, calls) = raw_origin(response).await;
        let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<Incoming>>();
        let to_origin = move |mut request: Request<Incoming>| {
            *request.uri_mut() = format!("http://{origin}/").parse().unwrap();
            request.headers_mut().remove("host");
            request.map(RequestBody::new)
        };
        let cache = ReadThroughLayer::builder(small_store()).build().unwrap();
        let stack = cache.layer(client.map_err(SharedError::new)).map_request(to_origin);
        let addr = serve(stack).await;
        for (n, method) in ["DELETE", "GET", "GET"].into_iter().enumerate() {
            let request = reqwest::Client::new().request(method.parse().unwrap(), format!("http://{addr}/"));
            let response = request.send().await.unwrap();
            let came_about = response.headers().get("cache-status").cloned();
            if let Some(length) = response.content_length() {
                assert_eq!(length, 5, "{method}");
            }
            assert_eq!(response.text().await.unwrap(), "hello", "{method}");
            assert_eq!(calls.load(Ordering::SeqCst), (n + 1).min(2), "{came_about:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_to_another_version_of_http_goes_through_the_cache() {
    let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")];
    let origin = ScriptedOrigin::always(|| ok("hello").max_age(60));
    let stack = ReadThroughLayer::builder(small_store()).build().unwrap().layer(origin.clone());
    let single = StoreLayer::new(small_store()).layer(origin.clone());
    let shared = small_store();
    let fill = KeyLayer::default().layer(FillLayer::new(shared).layer(origin.clone()));
    let coalesced = KeyLayer::default().layer(CoalesceLayer::new().layer(origin.clone()));
    let wants = |head: &http::request::Parts| {
        head.headers.contains_key("upgrade") || head.headers.contains_key("http2-settings")
    };
    get_with(&stack, "/", &h2c).await;
    assert!(!wants(&origin.last_request()), "a shared response cannot switch one connection");
    assert!(get_with(&stack, "/", &h2c).await.is_hit());
    get_with(&single, "/", &h2c).await;
    assert!(!wants(&origin.last_request()));
    assert!(get_with(&single, "/", &h2c).await.is_hit());
    assert_eq!(origin.calls(), 2);
    for reply in [get_with(&fill, "/", &h2c).await, get_with(&coalesced, "/", &h2c).await] {
        assert_eq!(reply.body, "hello");
        assert!(!wants(&origin.last_request()));
    }

    let websocket = [("connection", "upgrade"), ("upgrade", "h2c, websocket")];
    for n in 5..7 {
        get_with(&stack, "/", &websocket).await;
        assert_eq!(origin.calls(), n);
        assert!(wants(&origin.last_request()), "what has no key passes untouched");
    }
    assert!(get_with(&stack, "/", &[("upgrade", "websocket")]).await.is_hit(), "not without `Connection`");
}
