//! What the origin gets of a request, and the client of a response.

use super::*;

#[tokio::test]
async fn fields_of_a_connection_end_with_it() {
    let origin = Origin::start().await;
    // Whether it is stored or not: the cache strips the fields from stored responses too.
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
async fn the_origin_gets_the_forwarded_fields_of_the_client() {
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
async fn forwarded_fields_of_a_client_are_appended_to_or_replaced() {
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
async fn an_upgrade_to_http2_does_not_bypass_the_cache() {
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
async fn fields_that_would_change_a_stored_page_do_not_reach_the_origin() {
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
