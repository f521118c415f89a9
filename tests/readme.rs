//! What the README shows compiles and does what it says.

#![cfg(all(feature = "body-key", feature = "serde"))]

use std::{collections::HashSet, error::Error};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const README: &str = include_str!("../README.md");
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

#[tokio::test]
async fn five_lines_make_a_cache() -> Result {
    use axum::{Router, routing::get};
    use std::time::Duration;
    use tower::ServiceExt;
    use tower_readthrough::{MemoryStore, ReadThroughLayer, Rules};

    async fn handler() -> &'static str {
        "hello"
    }

    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(256 << 20))
        .rules(Rules::new().default_ttl(Duration::from_secs(10)).cookies([]))
        .build()?;
    let app = Router::new().route("/", get(handler)).layer(cache);

    for status in ["tower-readthrough;fwd=uri-miss;stored", "tower-readthrough;hit"] {
        let request = http::Request::get("http://h/").body(axum::body::Body::empty())?;
        let answer = app.clone().oneshot(request).await?;
        assert!(answer.headers()["cache-status"].to_str()?.starts_with(status));
    }
    Ok(())
}

#[test]
fn the_document_is_taken_as_rules() -> Result {
    use tower_readthrough::{KeyRules, MemoryStore, ReadThroughLayer};

    let text = blocks("json").next().ok_or("no document")?.to_owned();
    let rules: KeyRules = serde_json::from_str(&text)?; // refuses what cannot work, naming the rule
    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(256 << 20)).key(rules).build()?;
    drop(cache);
    Ok(())
}

#[test]
fn bodies_are_read_in_front_of_the_cache() -> Result {
    use axum::Router;
    use std::time::Duration;
    use tower::ServiceBuilder;
    use tower_readthrough::{KeyRule, KeyRules, MemoryStore, ReadThroughLayer};

    let (app, store) = (Router::new(), MemoryStore::with_capacity_bytes(1 << 20));
    let search = KeyRule::path("/search").method("POST").body(64 << 10).default_ttl(Duration::from_secs(5));
    let bodies = KeyRules::builder().rule(search).build_with_bodies()?;
    let cache = ReadThroughLayer::builder(store).key(bodies.rules()).build()?;
    let app = app.layer(ServiceBuilder::new().layer(bodies).layer(cache));
    drop::<Router>(app);
    Ok(())
}

#[test]
fn a_handle_purges() -> Result {
    use std::time::Duration;
    use tower_readthrough::{MemoryStore, ReadThroughLayer, Rules};

    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let cache = ReadThroughLayer::builder(store).rules(Rules::new().fixed_ttl(Duration::from_secs(86_400)));
    let purge = cache.purge(); // a handle, cheap to clone

    purge.tag("product-7"); // Surrogate-Key, Cache-Tag, Cache-Groups, Tags
    purge.url("https://shop.example/p?pid=7")?; // all variants, by the key rules
    purge.path_prefix("https://shop.example/blog")?;
    purge.pattern("https://shop.example/user/{id}")?; // all that the pattern of a rule covers
    purge.host("shop.example")?;
    purge.soft().everything(); // stale from now on, and revalidated
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
