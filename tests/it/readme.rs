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

#[tokio::test(start_paused = true)]
async fn stored_pages_outlast_an_outage() -> Result {
    use std::time::Duration;
    use tower::Layer;
    use tower_readthrough::{
        MemoryStore, OriginLimitLayer, ReadThroughLayer, Rules, Stale,
        testing::{Answer, Client, ScriptedOrigin, time},
    };

    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let cache = ReadThroughLayer::builder(store)
        .rules(Rules::new().stale_if_error_for(Duration::from_secs(6 * 3600)))
        .coalesce(|fetches| fetches.stale_after(Duration::from_millis(200)))
        .origin_limit(OriginLimitLayer::new(64))
        .build()?;
    let origin = ScriptedOrigin::strict()
        .on("/", Answer::ok("hello").max_age(60).then(Answer::never()).then(Answer::error()).repeat());
    let client = Client::new(cache.layer(origin));
    client.get("/").send().await.expect_body("hello");
    time::pass(Duration::from_secs(61)).await;
    client.get("/").send().await.expect_stale(Stale::OriginSlow);
    time::pass(Duration::from_secs(5 * 3600)).await;
    client.get("/").send().await.expect_body("hello");
    Ok(())
}

#[tokio::test]
async fn a_dashboard_stands_beside_the_cache() -> Result {
    use axum::{Router, body::Body, routing::get};
    use http::{Request, StatusCode};
    use std::time::Duration;
    use tower::ServiceExt;
    use tower_readthrough::{ReadThroughLayer, dashboard::Dashboard, purge::Basic};

    let cache = ReadThroughLayer::with_ttl(Duration::from_secs(10));
    let app = Router::new().route("/", get(async || "hello"));
    let check = Basic::new("ops", "a long password");
    let dashboard = Dashboard::builder(cache.stats(), check).purge(cache.purge()).build()?;
    let app = app.layer(dashboard.watch(cache)).nest_service("/-/cache", dashboard);

    let status = async |path: &str| -> Result<StatusCode> {
        Ok(app.clone().oneshot(Request::get(path).body(Body::empty())?).await?.status())
    };
    assert_eq!(status("http://h/").await?, StatusCode::OK);
    assert_eq!(status("http://h/-/cache").await?, StatusCode::UNAUTHORIZED);
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
