//! Rules that are replaced while requests are served.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::Request;
use tokio::sync::Notify;
use tower::Layer;
use tower_readthrough::{
    Guard, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder, KeyRulesHandle, MemoryStore, Purge, ReadThrough,
    ReadThroughLayer,
};

use crate::support::{Body, ScriptedOrigin, call, fixed, get_request, ms, response, store};

fn rules(rules: impl IntoIterator<Item = KeyRule>) -> KeyRules {
    rules.into_iter().fold(KeyRules::builder(), KeyRulesBuilder::rule).build().unwrap()
}

fn product() -> KeyRule {
    KeyRule::path("/p?uid={_}&pid={pid}").tags(["product-{pid}"])
}

fn search() -> KeyRule {
    KeyRule::path("/search").keep_query(["q"])
}

struct Site {
    service: ReadThrough<ScriptedOrigin, MemoryStore, KeyRulesHandle>,
    purge: Purge,
    rules: KeyRulesHandle,
}

impl Site {
    /// Responds with the number of the call and the query that it saw.
    fn new(rules: KeyRules) -> Self {
        let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
            response(&[], format!("{n} {}", request.uri().query().unwrap_or_default()))
        });
        let rules = KeyRulesHandle::new(rules).unwrap();
        let cache = ReadThroughLayer::builder(store()).key(rules.clone()).rules(fixed(60_000));
        let purge = cache.purge();
        Self { service: cache.build().unwrap().layer(origin), purge, rules }
    }

    async fn ask(&self, target: &str) -> String {
        let body = call(&self.service, get_request(&format!("http://h{target}"))).await.1;
        String::from_utf8(body.to_vec()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn entries_of_unchanged_rules_survive_a_replacement_and_can_be_purged() {
    let site = Site::new(rules([product(), search()]));
    let mut seen = Vec::new();
    for target in ["/p?uid=1&pid=7", "/p?uid=1&pid=8", "/search?q=a&x=1", "/plain?y"] {
        seen.push(site.ask(target).await);
    }
    assert_eq!(seen, ["1 pid=7", "2 pid=8", "3 q=a", "4 y"]);

    // Another rule at the top, the others in another order, with other names and lifetimes.
    let account = KeyRule::path("/account/{**rest}").bypass();
    let before = site.rules.replace(rules([account, search().name("s").fixed_ttl(ms(9)), product()]));
    assert!(before.unwrap().key(&get_request("http://h/account").map(drop).into_parts().0).is_some());
    assert_eq!(site.ask("/account").await, "5 ");
    assert_eq!(site.ask("/account").await, "6 ", "the new rule counts");
    assert_eq!(site.ask("/p?pid=7&uid=2").await, "1 pid=7");
    assert_eq!(site.ask("/search?x=2&q=a").await, "3 q=a");
    assert_eq!(site.ask("/plain?y").await, "4 y");

    // Handles that were taken before reach what was stored before.
    site.purge.url("http://h/p?uid=9&pid=7").unwrap();
    site.purge.url("http://h/search?q=a").unwrap();
    assert_eq!(site.ask("/p?pid=7&uid=2").await, "7 pid=7");
    assert_eq!(site.ask("/search?q=a").await, "8 q=a");
    site.purge.tag("product-8");
    assert_eq!(site.ask("/p?pid=8&uid=2").await, "9 pid=8");
    site.purge.path_prefix("http://h/plain").unwrap();
    assert_eq!(site.ask("/plain?y").await, "10 y");
    call(&site.service, Request::post("http://h/p?uid=3&pid=8").body(Body::empty()).unwrap()).await;
    assert_eq!(site.ask("/p?pid=8&uid=2").await, "12 pid=8", "an unsafe request too");
}

#[tokio::test(start_paused = true)]
async fn a_changed_rule_starts_with_an_empty_cache() {
    let site = Site::new(rules([product()]));
    assert_eq!(site.ask("/p?uid=1&pid=7").await, "1 pid=7");
    site.rules.replace(rules([product().headers(["x-a"])])).unwrap();
    assert_eq!(site.ask("/p?uid=1&pid=7").await, "2 pid=7");
    site.rules.replace(rules([])).unwrap();
    assert_eq!(site.ask("/p?uid=1&pid=7").await, "3 uid=1&pid=7");
    // Purges are under the rules of the moment.
    site.purge.url("http://h/p?uid=1&pid=7").unwrap();
    assert_eq!(site.ask("/p?uid=1&pid=7").await, "4 uid=1&pid=7");
    site.rules.replace(rules([product()])).unwrap();
    assert_eq!(site.ask("/p?uid=2&pid=7").await, "1 pid=7", "as documented");
}

/// An extractor with which a test replaces the rules at any point of a request.
#[derive(Clone)]
struct Replacing {
    rules: KeyRulesHandle,
    next: KeyRules,
    is_armed: Arc<AtomicBool>,
}

impl KeyExtractor for Replacing {
    fn key(&self, head: &http::request::Parts) -> Option<tower_readthrough::CacheKey> {
        self.rules.key(head)
    }

    fn edition(&self) -> Option<Arc<dyn KeyExtractor>> {
        let edition = self.rules.edition();
        if self.is_armed.load(Ordering::Relaxed) {
            self.rules.replace(self.next.clone()).unwrap();
        }
        edition
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_under_one_edition_of_the_rules_to_its_end() {
    // Where they were mixed, the key of the first edition would have the query, or the tags, of the other.
    let builder = || KeyRules::builder().guard(Guard::new().headers(["x-a"]));
    let first = builder().rule(KeyRule::path("/p").keep_query(["a"]).tags(["first"])).build().unwrap();
    let next = rules([KeyRule::path("/p").keep_query(["b"]).tags(["next"])]);
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        let has_field = request.headers().contains_key("x-a");
        response(&[], format!("{n} {} {has_field}", request.uri().query().unwrap_or_default()))
    });
    let handle = KeyRulesHandle::new(first.clone()).unwrap();
    let is_armed = Arc::new(AtomicBool::new(true));
    let extractor = Replacing { rules: handle.clone(), next: next.clone(), is_armed: Arc::clone(&is_armed) };
    let cache = ReadThroughLayer::builder(store()).key(extractor).rules(fixed(60_000));
    let purge = cache.purge();
    let service = cache.build().unwrap().layer(origin);
    let ask = async || {
        let request = Request::get("http://h/p?a=1&b=2").header("x-a", "x").body(Body::empty()).unwrap();
        String::from_utf8(call(&service, request).await.1.to_vec()).unwrap()
    };
    assert_eq!(ask().await, "1 a=1 false", "the rules were replaced right after it arrived");
    is_armed.store(false, Ordering::Relaxed);
    assert_eq!(ask().await, "2 b=2 true");
    purge.tag("next");
    assert_eq!(ask().await, "3 b=2 true");
    handle.replace(first).unwrap();
    assert_eq!(ask().await, "1 a=1 false");
    purge.tag("first");
    assert_eq!(ask().await, "4 a=1 false");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_under_way_is_stored_by_the_rules_that_it_began_with() {
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let origin = {
        let (asked, go_on) = (Arc::clone(&asked), Arc::clone(&go_on));
        ScriptedOrigin::with_future(move |n, _: Request<Body>| {
            let (asked, go_on) = (Arc::clone(&asked), Arc::clone(&go_on));
            async move {
                if n == 1 {
                    asked.notify_one();
                    go_on.notified().await;
                }
                response(&[], n.to_string())
            }
        })
    };
    let handle = KeyRulesHandle::new(rules([search(), product()])).unwrap();
    let cache = ReadThroughLayer::builder(store()).key(handle.clone()).rules(fixed(60_000)).build().unwrap();
    let service = cache.layer(origin);
    let first = tokio::spawn({
        let service = service.clone();
        async move { call(&service, get_request("http://h/search?q=1&x=1")).await.1 }
    });
    asked.notified().await;
    handle.replace(rules([product(), search()])).unwrap();
    let second = tokio::spawn({
        let service = service.clone();
        async move { call(&service, get_request("http://h/search?q=1&x=2")).await.1 }
    });
    tokio::task::yield_now().await;
    go_on.notify_one();
    assert_eq!(first.await.unwrap(), "1");
    assert_eq!(second.await.unwrap(), "1", "it has waited for the same fetch");
    assert_eq!(call(&service, get_request("http://h/search?q=1")).await.1, "1");
}

#[cfg(feature = "body-key")]
#[test]
fn rules_with_bodies_are_not_for_a_handle() {
    let read = KeyRule::path("/read").method("POST").body(9);
    let bodies = KeyRules::builder().rule(product()).rule(read).build_with_bodies().unwrap();
    let error = KeyRulesHandle::new(bodies.rules()).unwrap_err().to_string();
    assert!(error.starts_with("key rule 1 (`/read`): a rule with a `body`"), "{error}");
    let handle = KeyRulesHandle::new(rules([product()])).unwrap();
    assert_eq!(handle.replace(bodies.rules()).unwrap_err().to_string(), error);
    let key =
        |rules: &dyn KeyExtractor| rules.key(&get_request("http://h/p?uid=1&pid=2").map(drop).into_parts().0);
    assert_eq!(key(&handle.current()), key(&rules([product()])), "nothing has changed");
    assert_eq!(key(&handle), key(&handle.current()));
}

/// What an unsafe request changes may have been stored by rules that came while it was under way.
#[tokio::test(start_paused = true)]
async fn an_unsafe_request_reaches_what_was_stored_by_rules_that_came_after_it() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        if request.method() == "PUT" {
            tokio::time::sleep(ms(100)).await;
        }
        response(&[("content-location", "/list?q=b")], n.to_string())
    });
    let rule = |ignored: &str| rules([KeyRule::path("/{name}").ignore_query([ignored])]);
    let handle = KeyRulesHandle::new(rule("x")).unwrap();
    let layer = ReadThroughLayer::builder(store()).key(handle.clone()).rules(fixed(60_000)).build().unwrap();
    let service = layer.layer(origin.clone());
    let put = tokio::spawn({
        let service = service.clone();
        async move {
            let request = Request::put("http://h/search?q=a").body(Body::empty()).unwrap();
            call(&service, request).await
        }
    });
    tokio::time::sleep(ms(10)).await;
    handle.replace(rule("y")).unwrap();
    let stored = ["http://h/search?q=a", "http://h/list?q=b", "http://h/list?q=c"];
    for uri in stored {
        call(&service, get_request(uri)).await;
    }
    put.await.unwrap();
    for (uri, fetches) in stored.into_iter().zip([1, 1, 0]) {
        let before = origin.calls();
        call(&service, get_request(uri)).await;
        assert_eq!(origin.calls() - before, fetches, "{uri}");
    }
}
