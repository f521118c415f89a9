//! Request smuggling and response desynchronisation through the proxy.

use crate::sockets::program::{Proxy, cache_status};
use crate::sockets::raw::{RawOrigin, exchange};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn proxy(origin: &RawOrigin) -> Proxy {
    Proxy::start(origin.addr, &["--default-ttl", "1h"]).await
}

/// The smuggled request is the body of a request that the origin refuses before it has read that.
#[tokio::test]
async fn smuggling_in_the_body_of_a_request_that_expects_100() {
    let origin = RawOrigin::always(OK).await;
    let proxy = proxy(&origin).await;
    let smuggled = "GET /victim HTTP/1.1\r\nhost: h\r\nx: 1\r\n\r\n";
    let head = format!(
        "POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        smuggled.len()
    );
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    let mut interim = vec![0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    client.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 "), "the proxy says so itself");
    client.write_all(smuggled.as_bytes()).await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let post = origin.last();
    assert!(!post.has_field("expect"), "{}", post.head);
    assert_eq!(post.body, smuggled);

    assert_eq!(proxy.get("/victim").await.text().await.unwrap(), "ok");
    let victim = origin.last();
    assert_eq!(victim.line(), "get /victim");
    assert_ne!(victim.connection, post.connection, "no page is read from a connection that had a body");
}

#[tokio::test]
async fn expectations_of_any_kind_end_at_the_proxy() {
    let origin = RawOrigin::always(OK).await;
    let proxy = proxy(&origin).await;
    for (method, expect) in [("GET", "100-continue"), ("PUT", "100-Continue"), ("POST", "something-else")] {
        let request = format!(
            "{method} / HTTP/1.1\r\nhost: h\r\nexpect: {expect}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let response = exchange(proxy.addr, &request).await;
        assert!(response.contains("HTTP/1.1 200 "), "{response}");
        assert!(!origin.last().has_field("expect"), "{method}");
    }
}

#[tokio::test]
async fn fields_smuggled_in_the_trailers_of_a_request() {
    let origin = RawOrigin::always(OK).await;
    let proxy = proxy(&origin).await;
    let request = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ntrailer: x-user\r\n\
        connection: close\r\n\r\n5\r\nhello\r\n0\r\nx-user: admin\r\n\r\n";
    let response = exchange(proxy.addr, request).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let arrived = origin.last();
    assert!(!arrived.has_field("trailer"), "{}", arrived.head);
    assert_eq!(arrived.body, "5\r\nhello\r\n0\r\n\r\n");
}

#[tokio::test]
async fn requests_with_and_without_bodies_share_no_connection() {
    let origin = RawOrigin::always(OK).await;
    let proxy = proxy(&origin).await;
    let client = reqwest::Client::new();
    let mut connections = [Vec::new(), Vec::new()];
    for n in 0..3 {
        proxy.get(&format!("/{n}")).await.bytes().await.unwrap();
        connections[0].push(origin.last().connection);
        client.post(proxy.url("/")).body("hello").send().await.unwrap().bytes().await.unwrap();
        connections[1].push(origin.last().connection);
    }
    let [without, with] = connections;
    assert!(without.iter().all(|connection| !with.contains(connection)), "{without:?} {with:?}");
}

#[tokio::test]
async fn a_chunked_body_that_is_broken_is_the_fault_of_its_client() {
    let origin = RawOrigin::always(OK).await;
    let proxy = proxy(&origin).await;
    for body in
        ["x\r\nhello\r\n", "5\r\nhello!\r\n0\r\n\r\n", "5\r\nhello\r\n-1\r\n", "ffffffffffffffffff\r\n"]
    {
        let request = format!("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        let response = exchange(proxy.addr, &request).await;
        assert!(response.starts_with("HTTP/1.1 400 "), "{body:?}: {response}");
    }
    assert!(origin.arrived().is_empty(), "no such request arrives whole");
}

#[tokio::test]
async fn transfer_codings_that_only_one_of_two_servers_knows() {
    let origin = RawOrigin::always(OK).await;
    let proxy = proxy(&origin).await;
    for (codings, status) in [
        ("transfer-encoding: gzip, chunked", 501),
        ("transfer-encoding: identity, chunked", 501),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked", 501),
        ("transfer-encoding: xchunked, chunked", 501),
        ("transfer-encoding: chunked, chunked", 400),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", 400),
        ("transfer-encoding: chunked, gzip", 400),
        ("transfer-encoding: xchunked", 400),
        ("transfer-encoding: chunked;q=1", 400),
    ] {
        for method in ["GET", "POST"] {
            let request =
                format!("{method} / HTTP/1.1\r\nhost: h\r\n{codings}\r\nconnection: close\r\n\r\n0\r\n\r\n");
            let response = exchange(proxy.addr, &request).await;
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{codings}: {response}");
        }
    }
    assert!(origin.arrived().is_empty());
    let request =
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: Chunked\r\nconnection: close\r\n\r\n0\r\n\r\n";
    assert!(exchange(proxy.addr, request).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_response_with_a_length_beside_a_transfer_coding() {
    const BOTH: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nhello\r\n0\r\n\r\n";
    const TWICE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello";
    const REPEATED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello";
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    // The length beside a coding counts for nothing, so that it is not known when the head is.
    for (bytes, miss) in
        [(BOTH, "fwd=uri-miss"), (TWICE, "fwd=uri-miss;stored"), (REPEATED, "fwd=uri-miss;stored")]
    {
        let origin = RawOrigin::always(bytes).await;
        let proxy = proxy(&origin).await;
        for (path, client) in [("/1", reqwest::Client::new()), ("/2", http2.clone())] {
            for status in [miss, "hit"].map(|status| format!("tower-readthrough;{status}")) {
                let response = client.get(proxy.url(path)).send().await.unwrap();
                assert_eq!(cache_status(&response), status, "{bytes:?}");
                assert!([None, Some("5")].contains(&length(&response)), "{:?}", response.headers());
                assert_eq!(response.text().await.unwrap(), "hello", "{bytes:?}");
            }
            let passed = client.delete(proxy.url(path)).send().await.unwrap();
            assert!([None, Some("5")].contains(&length(&passed)), "{:?}", passed.headers());
            assert_eq!(passed.text().await.unwrap(), "hello");
        }
    }
}

fn length(response: &reqwest::Response) -> Option<&str> {
    response.headers().get("content-length").map(|length| length.to_str().unwrap())
}

#[tokio::test]
async fn a_response_that_cannot_be_framed_is_not_passed_on() {
    for fields in [
        "content-length: +5",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: gzip",
    ] {
        let origin = RawOrigin::always(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello")).await;
        let proxy = proxy(&origin).await;
        assert_eq!(proxy.get("/").await.status(), 502, "{fields}");
    }
}

/// CGI, WSGI, Rack and PHP read both spellings as one variable.
#[tokio::test]
async fn fields_with_an_underscore_for_a_hyphen() {
    let origin = RawOrigin::always(OK).await;
    let proxy = proxy(&origin).await;
    let fields =
        "x_forwarded_host: evil\r\nx_tenant: b\r\nx-tenant_id: b\r\ncontent_length: 5\r\nx-tenant: a\r\n";
    for method in ["GET", "DELETE"] {
        let request = format!("{method} / HTTP/1.1\r\nhost: h\r\n{fields}connection: close\r\n\r\n");
        assert!(exchange(proxy.addr, &request).await.starts_with("HTTP/1.1 200 "));
        let arrived = origin.last();
        let names = arrived.head.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name);
        assert_eq!(names.filter(|name| name.contains('_')).count(), 0, "{}", arrived.head);
        assert!(arrived.has_field("x-tenant"));
    }
}
