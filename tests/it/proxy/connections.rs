//! Connections to the origin, the command line, and the shutdown.

use super::*;

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

/// An origin that closes each connection at its second request, after sending this.
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
async fn a_request_that_may_have_had_an_effect_is_not_repeated() {
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

#[tokio::test]
async fn arguments_that_cannot_work_are_refused_with_a_reason() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    for (args, reason) in [
        (&["--default-ttl", "0s"][..], "`default_ttl` is zero"),
        (&["--max-bytes", "0"], "give it a larger capacity"),
        (&["--origin-limit", "0"], "nothing ever reaches the origin"),
        (&["--default-ttl", "1s", "--force-ttl", "1s"], "cannot be used with"),
        (&["--stale-after", "0s"], "`stale_after` is zero"),
        (&["--refresh-ahead", "1.5"], "`refresh_ahead` is an invalid share"),
        (&["--fail-fast"], "--origin-limit"),
        (&["--probe", "no path"], "--probe"),
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
