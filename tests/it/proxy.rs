//! The `proxy` example as a program, over real sockets.
//!
//! `cargo test` builds the examples before it runs this. With `--test proxy` alone, build it
//! first: `cargo build --example proxy`.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::sockets::program::{Proxy, cache_status, command};
use crate::sockets::raw::{RawOrigin, exchange};
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    task::{JoinHandle, JoinSet},
};

/// Says what it was asked, and counts.
struct Origin {
    addr: SocketAddr,
    calls: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Origin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            // Dropped with the task, so that connections end with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                let service = service_fn(move |request| {
                    counter.fetch_add(1, Ordering::SeqCst);
                    answer(request)
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(connection.with_upgrades());
            }
        });
        Self { addr, calls, task }
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn kill(self) {
        self.task.abort();
        _ = self.task.await;
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/never" {
        std::future::pending::<()>().await;
    }
    if request.uri().path() == "/upgrade" {
        return Ok(upgrade(&mut request));
    }
    if let Some(len) = request.uri().path().strip_prefix("/page/") {
        return Ok(Response::new(Full::from(page(len.parse().unwrap()))));
    }
    let body = request.body_mut().collect().await.unwrap().to_bytes();
    let fields =
        request.headers().iter().map(|(name, value)| json!([name.as_str(), value.to_str().unwrap()]));
    let echo = json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "fields": fields.collect::<Vec<_>>(),
        "body": std::str::from_utf8(&body).unwrap(),
    });
    let response = Response::builder()
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .header("proxy-authenticate", "Basic")
        .header("x-end", "1")
        .header("vary", "x-lang")
        .body(Full::from(echo.to_string()));
    Ok(response.unwrap())
}

/// No two places in it look the same.
fn page(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(u32::to_be_bytes).take(len).collect()
}

/// Sends everything back, from then on.
fn upgrade(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let protocol = request.headers()["upgrade"].clone();
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
        _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", protocol);
    response.body(Full::default()).unwrap()
}

async fn echo(response: reqwest::Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

fn field<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = echo["fields"].as_array().unwrap().iter();
    fields.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_miss_is_followed_by_hits_in_both_versions() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;

    let miss = proxy.get("/a?b=c").await;
    assert_eq!(cache_status(&miss), "tower-readthrough;fwd=uri-miss;stored");
    let miss = echo(miss).await;
    assert_eq!(miss["target"], "/a?b=c");

    let hit = proxy.get("/a?b=c").await;
    assert_eq!(cache_status(&hit), "tower-readthrough;hit");
    assert_eq!(echo(hit).await, miss);

    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let hit = http2.get(proxy.url("/a?b=c")).send().await.unwrap();
    assert_eq!(hit.version(), http::Version::HTTP_2);
    assert_eq!(cache_status(&hit), "tower-readthrough;hit");
    assert_eq!(echo(hit).await, miss);

    let head = http2.head(proxy.url("/a?b=c")).send().await.unwrap();
    assert_eq!(cache_status(&head), "tower-readthrough;hit");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn pages_of_all_sizes_arrive_whole() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    let client = reqwest::Client::new();
    for len in (0..8192).step_by(101).chain([3_000_000]) {
        for _ in ["miss", "hit"] {
            let response = client.get(proxy.url(&format!("/page/{len}"))).send().await.unwrap();
            assert_eq!(response.content_length(), Some(len as u64));
            assert!(response.bytes().await.unwrap() == page(len), "{len} bytes");
        }
    }
}

#[tokio::test]
async fn hits_arrive_whole_at_a_client_that_reads_late() {
    const HITS: usize = 4000;
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    proxy.get("/page/3000").await;
    let (read, mut write) = TcpStream::connect(proxy.addr).await.unwrap().into_split();
    let request = format!("GET /page/3000 HTTP/1.1\r\nhost: {}\r\n\r\n", proxy.addr);
    let asking =
        tokio::spawn(async move { write.write_all(request.repeat(HITS).as_bytes()).await.map(|()| write) });
    // Until then the proxy has filled the connection, and can send no answer whole.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut read, mut body) = (BufReader::new(read), vec![0; 3000]);
    for _ in 0..HITS {
        let head = read_head(&mut read).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        read.read_exact(&mut body).await.unwrap();
        assert!(body == page(3000));
    }
    asking.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_burst_over_one_connection_is_one_call_for_each_page() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let mut burst = JoinSet::new();
    for number in 0..500 {
        let request = http2.get(proxy.url(&format!("/{}", number % 5)));
        burst.spawn(async move { request.send().await.unwrap().status() });
    }
    while let Some(status) = burst.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(origin.calls(), 5);
}

#[tokio::test]
async fn fields_of_a_connection_end_with_it() {
    let origin = Origin::start().await;
    // Stored or not: the cache strips what it stores, too.
    for args in [&[][..], &["--default-ttl", "1h"]] {
        let proxy = Proxy::start(origin.addr, args).await;
        let names = ["x-secret", "te", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"];
        let mut request = reqwest::Client::new().get(proxy.url("/")).header("connection", "X-Secret");
        for name in names {
            request = request.header(name, "h2c");
        }
        let response = request.header("x-kept", "1").send().await.unwrap();
        for name in ["connection", "x-hop", "keep-alive", "proxy-authenticate"] {
            assert!(!response.headers().contains_key(name), "{name}");
        }
        assert_eq!(response.headers()["x-end"], "1");
        let echo = echo(response).await;
        for name in names.iter().chain(&["connection", "transfer-encoding"]) {
            assert_eq!(field(&echo, name), Vec::<&str>::new(), "{name}");
        }
        assert_eq!(field(&echo, "x-kept"), ["1"]);
    }
}

#[tokio::test]
async fn a_variant_is_stored_for_what_the_origin_saw() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    let get = || reqwest::Client::new().get(proxy.url("/")).header("x-lang", "de");
    let hidden = get().header("connection", "x-lang").send().await.unwrap();
    assert_eq!(field(&echo(hidden).await, "x-lang"), Vec::<&str>::new());
    let german = get().send().await.unwrap();
    assert_eq!(field(&echo(german).await, "x-lang"), ["de"]);
}

#[tokio::test]
async fn the_cookies_that_pages_depend_on_are_in_the_key_and_at_the_origin_and_no_others() {
    let origin = Origin::start().await;
    let get = |proxy: &Proxy, cookie: &'static str| {
        reqwest::Client::new().get(proxy.url("/")).header("cookie", cookie).send()
    };
    let without = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    for calls in [1, 2] {
        let response = get(&without, "_ga=1").await.unwrap();
        assert!(cache_status(&response).contains("detail=cookie"), "{}", cache_status(&response));
        assert_eq!(origin.calls(), calls);
    }
    let named = Proxy::start(origin.addr, &["--default-ttl", "1h", "--cookies", "lang"]).await;
    for (cookie, lang, calls) in
        [("lang=de; _ga=1", "de", 3), ("_ga=2; lang=de", "de", 3), ("lang=en; _ga=1", "en", 4)]
    {
        let response = get(&named, cookie).await.unwrap();
        assert_eq!(field(&echo(response).await, "cookie"), [format!("lang={lang}")], "{cookie}");
        assert_eq!(origin.calls(), calls, "{cookie}");
    }
    let none = Proxy::start(origin.addr, &["--default-ttl", "1h", "--cookies", ""]).await;
    for cookie in ["lang=de", "_ga=1"] {
        let response = get(&none, cookie).await.unwrap();
        assert_eq!(field(&echo(response).await, "cookie"), [""; 0], "{cookie}");
        assert_eq!(origin.calls(), 5, "{cookie}");
    }
}

#[tokio::test]
async fn a_named_credential_keeps_a_response_with_its_client() {
    let origin = Origin::start().await;
    let get = |proxy: &Proxy, pass: Option<&'static str>| {
        let request = reqwest::Client::new().get(proxy.url("/"));
        pass.into_iter().fold(request, |request, pass| request.header("x-pass", pass)).send()
    };
    let args = ["--default-ttl", "1h", "--credentials", "x-other,x-pass"];
    let proxy = Proxy::start(origin.addr, &args).await;
    for (pass, calls) in [(Some("a"), 1), (None, 2), (Some("b"), 3), (None, 3)] {
        let echo = echo(get(&proxy, pass).await.unwrap()).await;
        assert_eq!(field(&echo, "x-pass"), pass.into_iter().collect::<Vec<_>>());
        assert_eq!(origin.calls(), calls, "{pass:?}");
    }
}

#[tokio::test]
async fn the_origin_learns_who_asked_for_what() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &[]).await;
    let echo = echo(proxy.get("/").await).await;
    assert_eq!(field(&echo, "host"), [origin.addr.to_string()]);
    assert_eq!(field(&echo, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(field(&echo, "x-forwarded-host"), [proxy.addr.to_string()]);
    assert_eq!(field(&echo, "x-forwarded-proto"), ["http"]);
    assert!(field(&echo, "via")[0].starts_with("1.1 tower-readthrough-"));
    let behind_terminator = Proxy::start(origin.addr, &["--scheme", "https"]).await;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for client in [reqwest::Client::new(), http2] {
        let answer = client.get(behind_terminator.url("/")).send().await.unwrap();
        assert_eq!(field(&self::echo(answer).await, "x-forwarded-proto"), ["https"]);
    }
}

#[tokio::test]
async fn a_request_that_comes_back_is_refused() {
    let origin = Origin::start().await;
    let [proxy, other] = [Proxy::start(origin.addr, &[]).await, Proxy::start(origin.addr, &[]).await];
    let echo = echo(proxy.get("/").await).await;
    let (_, name) = field(&echo, "via")[0].split_once(' ').unwrap();
    let asked = async |proxy: &Proxy, via: &str| {
        let request = reqwest::Client::new().get(proxy.url("/")).header("via", via);
        request.send().await.unwrap().status()
    };
    for hop in [format!("1.1 {name}"), format!("1.1\t{name}"), format!("2  {name}\t(x)")] {
        assert_eq!(asked(&proxy, &format!("1.0 fred, {hop}")).await, StatusCode::LOOP_DETECTED, "{hop:?}");
    }
    assert_eq!(origin.calls(), 1);
    assert_eq!(asked(&other, &format!("1.1 {name}")).await, StatusCode::OK);
}

#[tokio::test]
async fn what_a_client_claims_about_itself_is_appended_to_or_replaced() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &[]).await;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let mut request = http2.get(proxy.url("/"));
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-for", "192.0.2.2"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "gopher"),
        ("forwarded", "host=evil.example"),
        ("via", "1.0 fred"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
    ] {
        request = request.header(HeaderName::from_static(name), value);
    }
    let echo = echo(request.send().await.unwrap()).await;
    assert_eq!(field(&echo, "x-forwarded-for"), ["192.0.2.1, 192.0.2.2, 127.0.0.1"]);
    assert_eq!(field(&echo, "x-forwarded-host"), [proxy.addr.to_string()]);
    assert_eq!(field(&echo, "x-forwarded-proto"), ["http"]);
    assert_eq!(field(&echo, "forwarded"), Vec::<&str>::new());
    let via = field(&echo, "via");
    assert!(via.len() == 2 && via[0] == "1.0 fred" && via[1].starts_with("2 tower-readthrough-"), "{via:?}");
    assert_eq!(field(&echo, "cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn a_post_passes_with_its_body() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--force-ttl", "1h"]).await;
    for calls in 1..=2 {
        let request = reqwest::Client::new().post(proxy.url("/form")).body("hello");
        let echo = echo(request.send().await.unwrap()).await;
        assert_eq!((&echo["method"], &echo["body"]), (&json!("POST"), &json!("hello")));
        assert_eq!(field(&echo, "content-length"), ["5"]);
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test]
async fn a_dead_origin_means_502_or_what_is_stale() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1ms", "--retries", "0"]).await;
    let first = echo(proxy.get("/").await).await;
    origin.kill().await;

    // The first ones may still find it fresh.
    let stale = loop {
        let response = proxy.get("/").await;
        assert_eq!(response.status(), StatusCode::OK);
        if cache_status(&response).ends_with(";detail=stale-if-error") {
            break response;
        }
    };
    assert_eq!(echo(stale).await, first);

    assert_eq!(proxy.get("/unknown").await.status(), StatusCode::BAD_GATEWAY);
    let post = reqwest::Client::new().post(proxy.url("/")).body("hello").send().await.unwrap();
    assert_eq!(post.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_silent_origin_means_504() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--origin-timeout", "50ms", "--retries", "0"]).await;
    assert_eq!(proxy.get("/never").await.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn an_upgrade_passes_through() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--force-ttl", "1h"]).await;
    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    let request = "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: chat\r\n"), "{head}");

    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
}

#[tokio::test]
async fn a_wish_for_http2_does_not_go_past_the_cache() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    for (n, upgrade) in ["h2c", "h2c", "HTTP/2.0, h2", "TLS/1.2"].into_iter().enumerate() {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: h\r\nupgrade: {upgrade}\r\nhttp2-settings: AAMAAABk\r\n\
             connection: upgrade, http2-settings, close\r\n\r\n"
        );
        let response = exchange(proxy.addr, &request).await;
        assert_eq!(response.contains("cache-status: tower-readthrough;hit\r\n"), n > 0, "{response}");
        assert!(!response.contains("http2-settings"), "the origin is not told: {response}");
    }
    assert_eq!(origin.calls(), 1);

    let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
    let request = "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c, chat\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("\r\nupgrade: chat\r\n"), "{head}");
}

#[tokio::test]
async fn what_would_bend_a_stored_page_does_not_arrive() {
    const NAMES: [&str; 22] = [
        "base-url",
        "forwarded",
        "front-end-https",
        "x-forwarded",
        "x-forwarded-path",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-protocol",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-forwarded-uri",
        "x-host",
        "x-http-host-override",
        "x-http-method-override",
        "x-method-override",
        "x-original-host",
        "x-original-uri",
        "x-original-url",
        "x-rewrite-url",
        "x-url-scheme",
        "x_forwarded_port",
    ];
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &[]).await;
    for method in ["GET", "POST"] {
        let mut request = reqwest::Client::new().request(method.parse().unwrap(), proxy.url("/"));
        for name in NAMES.iter().chain(&["x-kept"]) {
            request = request.header(*name, "evil.example");
        }
        let echo = echo(request.send().await.unwrap()).await;
        for name in NAMES {
            assert_eq!(field(&echo, name), Vec::<&str>::new(), "{name}");
        }
        assert_eq!(field(&echo, "x-kept"), ["evil.example"]);
    }
}

fn lines(count: usize) -> String {
    (0..count).map(|n| format!("x-{n}: 1\r\n")).collect()
}

#[tokio::test]
async fn heads_of_many_lines_pass_up_to_a_bound() {
    let origin = RawOrigin::start(|request| {
        let count = if request.line() == "get /large" { 200 } else { 0 };
        let count = if request.line() == "get /too-large" { 300 } else { count };
        Some(format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", lines(count)))
    })
    .await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1h"]).await;
    let ask = async |path: &str, count: usize| {
        let fields = lines(count);
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\n{fields}connection: close\r\n\r\n");
        exchange(proxy.addr, &request).await
    };
    for status in ["fwd=uri-miss;stored", "hit"] {
        let response = ask("/large", 200).await;
        assert!(response.starts_with("HTTP/1.1 200 ") && response.contains(status), "{response}");
        assert!(response.contains("\r\nx-199: 1\r\n"), "{response}");
    }
    assert!(origin.last().has_field("x-199"));
    assert!(ask("/small", 300).await.starts_with("HTTP/1.1 431 "));
    assert!(ask("/too-large", 0).await.starts_with("HTTP/1.1 502 "));
}

/// An origin that ends each connection with its second request, and says this of it.
async fn impatient(parting: Option<&'static str>) -> RawOrigin {
    RawOrigin::start(move |request| match request.place {
        0 => Some("HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: 0\r\n\r\n".into()),
        _ => parting.map(Into::into),
    })
    .await
}

async fn ask_twice(proxy: &Proxy, method: &str, body: &'static str) -> [u16; 2] {
    let client = reqwest::Client::new();
    let ask = async || {
        let request = client.request(method.parse().unwrap(), proxy.url("/")).body(body);
        request.send().await.unwrap().status().as_u16()
    };
    [ask().await, ask().await]
}

#[tokio::test]
async fn an_idempotent_request_is_repeated_if_a_pooled_connection_was_closed() {
    let late = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    for parting in [None, Some(late)] {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            let origin = impatient(parting).await;
            let proxy = Proxy::start(origin.addr, &[]).await;
            assert_eq!(ask_twice(&proxy, method, "").await, [200, 200], "{method}");
            let places: Vec<_> = origin.arrived().iter().map(|at| (at.connection, at.place)).collect();
            assert_eq!(places, [(0, 0), (0, 1), (1, 0)], "{method}");
        }
    }
}

#[tokio::test]
async fn what_may_have_had_an_effect_is_not_repeated() {
    for (method, body) in [("POST", ""), ("POST", "hello"), ("PATCH", "hello"), ("PUT", "hello")] {
        let origin = impatient(None).await;
        let proxy = Proxy::start(origin.addr, &[]).await;
        assert_eq!(ask_twice(&proxy, method, body).await, [200, 502], "{method} {body}");
        assert_eq!(origin.arrived().len(), 2, "{method} {body}");
    }
}

#[tokio::test]
async fn a_request_is_repeated_once_and_only_for_a_connection_that_had_worked() {
    let dead = RawOrigin::start(|_| None).await;
    let proxy = Proxy::start(dead.addr, &[]).await;
    assert_eq!(proxy.get("/").await.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(dead.arrived().len(), 1);

    let dying = RawOrigin::start(|request| match (request.connection, request.place) {
        (0, 0) => Some("HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: 0\r\n\r\n".into()),
        _ => None,
    })
    .await;
    let proxy = Proxy::start(dying.addr, &[]).await;
    assert_eq!(ask_twice(&proxy, "GET", "").await, [200, 502]);
    assert_eq!(dying.arrived().len(), 3);
}

#[tokio::test]
async fn a_request_without_or_with_two_hosts_is_refused() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(origin.addr, &[]).await;
    for hosts in ["", "host: a\r\nhost: b\r\n"] {
        let mut stream = TcpStream::connect(proxy.addr).await.unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    }
    assert_eq!(origin.calls(), 0);
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_a_reason() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    for (args, reason) in [
        (&["--default-ttl", "0s"][..], "`default_ttl` is zero"),
        (&["--max-bytes", "0"], "give it a larger capacity"),
        (&["--origin-limit", "0"], "nothing ever reaches the origin"),
        (&["--default-ttl", "1s", "--force-ttl", "1s"], "cannot be used with"),
    ] {
        let output: io::Result<Output> = command(nowhere, args).output().await;
        let Output { status, stderr, .. } = output.unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(!status.success() && stderr.contains(reason), "{args:?}: {stderr}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_request_under_way_survives_the_shutdown() {
    let origin = Origin::start().await;
    let args = ["--origin-timeout", "500ms", "--retries", "0"];
    let mut proxy = Proxy::start(origin.addr, &args).await;
    let calls = Arc::clone(&origin.calls);
    let url = proxy.url("/never");
    let request = tokio::spawn(reqwest::get(url));
    while calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let id = proxy.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let response = tokio::time::timeout(Duration::from_secs(5), request).await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(proxy.child.wait().await.unwrap().success());
}
