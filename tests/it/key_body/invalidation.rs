//! Reads that invalidate nothing, and writes that do.

use super::*;

#[tokio::test]
async fn reads_invalidate_nothing_and_writes_do() {
    let rules = || {
        let rules = KeyRules::builder().rule(KeyRule::path("/search").method("POST").body(BOUND));
        rules.build_with_bodies().unwrap()
    };
    let origin = echo();
    let bodies = rules();
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let purge = cache.purge();
    let stack = bodies.layer(cache.layer(front(&origin)));
    let reads = || [post_of("a"), post_of("b"), get_request(SEARCH)];
    let stored = ask_all(&stack, reads()).await;
    // Reads, with and without a key.
    ask(&stack, post_of("x".repeat(BOUND + 1))).await;
    ask(&stack, request("POST", SEARCH, &[("range", "bytes=0-0")], "a")).await;
    ask(&stack, request("QUERY", SEARCH, &[], "a")).await;
    // Writes to another URI.
    ask(&stack, request("POST", "http://h/search?page=2", &[("x-method-override", "PUT")], "a")).await;
    ask(&stack, request("POST", "http://h/other", &[], "a")).await;
    assert_eq!(ask_all(&stack, reads()).await, stored);

    let hidden = [("x-http-method-override", "DELETE")];
    let mut calls = origin.calls();
    for write in [
        request("PUT", SEARCH, &[], "a"),
        request("DELETE", SEARCH, &[], ""),
        request("POST", SEARCH, &hidden, "a"),
        request("POST", SEARCH, &[], "_method=DELETE"),
        request("POST", SEARCH, &[], r#"{"a": 1, "_method": "PUT"}"#),
    ] {
        ask(&stack, write).await;
        ask_all(&stack, reads()).await;
        assert_eq!(origin.calls(), calls + 4, "all that is stored for the URI went");
        calls += 4;
    }
    purge.url(SEARCH).unwrap();
    ask_all(&stack, reads()).await;
    assert_eq!(origin.calls(), calls + 3);
}

/// Another rule for the URI may give it another identity.
#[tokio::test]
async fn a_write_invalidates_the_identity_of_get() {
    let rules = KeyRules::builder().rule(search()).rule(KeyRule::path("/search").keep_query(["q"]));
    let bodies = rules.build_with_bodies().unwrap();
    let origin = echo();
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let stack = bodies.layer(cache.layer(front(&origin)));
    let at = |uri| request("POST", uri, &[], "a");
    let all = || [at("http://h/search?q=1&x=1"), at("http://h/search?q=1"), at("http://h/search?q=2")];
    ask_all(&stack, all()).await;
    ask(&stack, request("DELETE", "http://h/search?q=1&y=2", &[], "")).await;
    ask_all(&stack, all()).await;
    assert_eq!(origin.calls(), 3 + 1 + 2);
}
