//! What the README shows compiles and does what it says.

use std::{collections::HashSet, error::Error};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const README: &str = include_str!("../../README.md");
const HERE: &str = include_str!("readme.rs");

/// The blocks of code in a language.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let fence = format!("```{language}\n");
    let starts: Vec<_> = README.match_indices(&fence).map(|(at, _)| at + fence.len()).collect();
    starts.into_iter().filter_map(|at| README[at..].split("\n```").next())
}

#[test]
fn every_line_of_rust_is_one_of_those_below() {
    // In whatever columns.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let here: HashSet<_> = HERE.lines().map(words).collect();
    let unknown: Vec<_> =
        blocks("rust").flat_map(str::lines).filter(|line| !here.contains(&words(line))).collect();
    assert_eq!(unknown, Vec::<&str>::new());
}

/// The first program, as it stands in the README.
#[allow(dead_code, reason = "it serves for ever; the test below sends requests to such a router")]
mod first_program {
    use axum::{Router, routing::get};
    use std::time::Duration;
    use tower_readthrough::ReadThroughLayer;

    #[tokio::main]
    async fn main() -> std::io::Result<()> {
        let cache = ReadThroughLayer::with_ttl(Duration::from_secs(10));
        let app = Router::new().route("/", get(async || "hello")).layer(cache);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
        axum::serve(listener, app).await
    }
}

#[tokio::test]
async fn the_first_program_serves_hits() -> Result {
    use axum::{Router, routing::get};
    use std::time::Duration;
    use tower_readthrough::ReadThroughLayer;

    let cache = ReadThroughLayer::with_ttl(Duration::from_secs(10));
    let app = Router::new().route("/", get(async || "hello")).layer(cache);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let server = tokio::spawn(async { axum::serve(listener, app).await });
    for expected in ["tower-readthrough;fwd=uri-miss;stored", "tower-readthrough;hit"] {
        let response = reqwest::get(&url).await?;
        assert!(response.headers()["cache-status"].to_str()?.starts_with(expected));
        assert_eq!(response.text().await?, "hello");
    }
    server.abort();
    Ok(())
}

#[tokio::test]
async fn cookies_are_named() -> Result {
    use axum::{Router, body::Body, routing::get};
    use http::Request;
    use std::time::Duration;
    use tower::ServiceExt;
    use tower_readthrough::{CacheStatus, MemoryStore, ReadThroughLayer, Rules};

    let rules = Rules::new().default_ttl(Duration::from_secs(10)).cookies(["session", "lang"]);
    let store = MemoryStore::with_capacity_bytes(256 << 20);
    let cache = ReadThroughLayer::builder(store).rules(rules).build()?;
    let app = Router::new().route("/", get(async || "hello")).layer(cache);
    let expected = [("session=1", false), ("_ga=7; session=1", true), ("session=2", false)];
    for (cookies, is_hit) in expected {
        let request = Request::get("http://h/").header("cookie", cookies).body(Body::empty())?;
        let response = app.clone().oneshot(request).await?;
        let status = CacheStatus::of(&response).ok_or("no status")?;
        assert_eq!(status.is_hit(), is_hit, "{cookies}");
        axum::body::to_bytes(response.into_body(), 1024).await?;
    }
    Ok(())
}

#[test]
fn a_handle_purges() -> Result {
    use tower_readthrough::{MemoryStore, ReadThroughLayer};

    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20));
    let purge = cache.purge(); // a cheap handle; feature `purge-service` takes purges over HTTP
    purge.tag("product-7"); // Surrogate-Key, Cache-Tag, or `Tags` in the extensions of a response
    purge.url("https://shop.example/p?pid=7")?; // in all variants
    purge.soft().path_prefix("https://shop.example/blog")?; // stale from now on, and revalidated
    Ok(())
}

#[test]
fn a_client_of_hyper_is_an_origin() -> Result {
    use hyper::body::Incoming;
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};
    use tower::{ServiceBuilder, ServiceExt};
    use tower_readthrough::{MemoryStore, ReadThroughLayer, RequestBody, SharedError};

    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build()?;
    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<Incoming>>();
    let proxy = ServiceBuilder::new().layer(cache).service(client.map_err(SharedError::new));
    drop(proxy);
    Ok(())
}

#[tokio::test]
async fn a_reqwest_client_serves_hits() -> Result {
    use http_body_util::BodyExt;
    use std::time::Duration;
    use tower::{ServiceBuilder, ServiceExt, service_fn};
    use tower_readthrough::{CacheStatus, ReadThroughLayer, SharedError};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let api = axum::Router::new().route("/", axum::routing::get(async || "from the API"));
    let server = tokio::spawn(async { axum::serve(listener, api).await });

    let (client, cache) = (reqwest::Client::new(), ReadThroughLayer::with_ttl(Duration::from_secs(60)));
    let send = service_fn(move |request: http::Request<reqwest::Body>| {
        let call = request.try_into().map(|request| client.execute(request));
        async { Ok::<_, reqwest::Error>(http::Response::<reqwest::Body>::from(call?.await?)) }
    });
    let api = ServiceBuilder::new().layer(cache).service(send.map_err(SharedError::new));

    let get = async || -> Result<(bool, bytes::Bytes)> {
        let response = api.clone().oneshot(http::Request::get(&url).body(reqwest::Body::default())?).await?;
        let is_hit = CacheStatus::of(&response).ok_or("no status")?.is_hit();
        Ok((is_hit, response.into_body().collect().await?.to_bytes()))
    };
    assert_eq!(get().await?, (false, "from the API".into()));
    server.abort();
    assert!(server.await.is_err(), "the API is gone");
    assert_eq!(get().await?, (true, "from the API".into()));
    Ok(())
}

mod paused_clock {
    use axum::{Router, routing::get};
    use std::time::Duration;
    use tower_readthrough::{Forward, ReadThroughLayer, testing};

    fn app(ttl: Duration) -> Router {
        Router::new().route("/", get(async || "hello")).layer(ReadThroughLayer::with_ttl(ttl))
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_fresh_for_ten_seconds() {
        let client = testing::Client::new(app(Duration::from_secs(10)));
        client.get("/").send().await.expect_miss(Forward::UriMiss).expect_body("hello");
        client.get("/").send().await.expect_hit();
        testing::time::pass(Duration::from_secs(10)).await;
        client.get("/").send().await.expect_miss(Forward::Stale);
    }
}

#[test]
fn it_is_read_in_one_sitting() {
    assert!(README.lines().count() <= 150);
}
