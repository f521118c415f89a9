//! Purges under key rules.

use http::Request;
use tower::Layer;
use tower_readthrough::{
    Guard, KeyExtractor, KeyRule, KeyRules, MemoryStore, Purge, ReadThrough, ReadThroughLayer,
};

use crate::support::{Body, ScriptedOrigin, call, fixed, get_request, response, store};

struct Site {
    service: ReadThrough<ScriptedOrigin, MemoryStore, KeyRules>,
    purge: Purge,
    rules: KeyRules,
}

/// Responds with the number of the call.
fn site() -> Site {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        let mut answer = response(&[], n.to_string());
        if request.uri().path() == "/search" {
            answer.headers_mut().insert("no-vary-search", "params=(\"sid\")".parse().unwrap());
        }
        answer
    });
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/p?uid={_}&pid={pid}").tags(["product-{pid}", "product"]))
        .rule(KeyRule::path("/u/{_}/{id}").headers(["x-a"]).forward_unkeyed())
        .rule(KeyRule::path("/search").no_vary_search())
        .rule(KeyRule::any().ignore_query(["utm_*"]).sort_query())
        .guard(Guard::new())
        .build()
        .unwrap();
    let store = store();
    let cache =
        ReadThroughLayer::builder(store.clone()).key(rules.clone()).rules(fixed(60_000)).build().unwrap();
    Site { service: cache.layer(origin), purge: Purge::of(store, rules.clone()), rules }
}

const STORED: [&str; 7] =
    ["/p?uid=1&pid=7", "/p?uid=1&pid=8", "/u/1/7", "/u/1/8", "/search?q=1&sid=1", "/a/b?x=1&y=2", "/a/c"];

/// The entries that a purge reaches.
async fn reached(what: &str, purge: impl FnOnce(&Site)) -> Vec<&'static str> {
    let site = site();
    let answers = async || {
        let mut answers = Vec::new();
        for path in STORED {
            answers.push(call(&site.service, get_request(&format!("http://h{path}"))).await.1);
        }
        answers
    };
    // Twice, since the first response says which parameters count.
    answers().await;
    let before = answers().await;
    assert_eq!(answers().await, before, "stored before the purge of {what}");
    purge(&site);
    let after = answers().await;
    let pairs = before.iter().zip(&after).zip(STORED);
    pairs.filter(|((before, after), _)| before != after).map(|(_, path)| path).collect()
}

#[tokio::test(start_paused = true)]
async fn a_url_reaches_entries_of_every_spelling() {
    let none: [&str; 0] = [];
    for (url, expected) in [
        ("/p?pid=7&uid=999", &["/p?uid=1&pid=7"][..]),
        ("/p?pid=9&uid=1", &none),
        ("/p?pid=7", &none),
        ("/u/999/8", &["/u/1/8"]),
        ("/search?q=other", &["/search?q=1&sid=1"]),
        ("/a/b?utm_source=x&y=2&x=1", &["/a/b?x=1&y=2"]),
        ("/a/b?y=2", &none),
        ("/a/c?utm_id", &["/a/c"]),
    ] {
        let purge = |site: &Site| _ = site.purge.url(&format!("https://H{url}")).unwrap();
        assert_eq!(reached(url, purge).await, expected, "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn tags_of_rules_are_tags_like_others() {
    let tagged = async |tag: &str| reached(tag, |site| _ = site.purge.tag(tag)).await;
    assert_eq!(tagged("product-8").await, ["/p?uid=1&pid=8"]);
    assert_eq!(tagged("product").await, ["/p?uid=1&pid=7", "/p?uid=1&pid=8"]);
    assert!(tagged("product-{pid}").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn keys_and_prefixes_reach_entries_made_by_rules() {
    let key = reached("key", |site| {
        let (head, ()) = get_request("http://h/p?pid=7&uid=5").map(drop).into_parts();
        site.purge.key(&site.rules.key(&head).unwrap());
    });
    assert_eq!(key.await, ["/p?uid=1&pid=7"]);
    let prefix = reached("prefix", |site| _ = site.purge.path_prefix("http://h/u/1").unwrap());
    assert_eq!(prefix.await, ["/u/1/7", "/u/1/8"]);
    assert_eq!(reached("everything", |site| _ = site.purge.everything()).await, STORED);
}
