//! What is stored of reads by POST and QUERY, and how it is revalidated.

use super::*;

#[tokio::test]
async fn responses_to_reads_by_post_follow_the_same_storing_rules() {
    const AUTH: (&str, &str) = ("authorization", "Basic x");
    let cases: [(Fields, Fields, usize); 6] = [
        (&[], &[], 1),
        (&[], &[AUTH], 2),
        (&[("cache-control", "public")], &[AUTH], 1),
        (&[("set-cookie", "a=b")], &[], 2),
        (&[("cache-control", "no-store")], &[], 2),
        (&[("cache-control", "private")], &[], 2),
    ];
    for (answer, asked, calls) in cases {
        let origin = echo_with(answer);
        let stack = stack(&origin);
        for _ in 0..2 {
            ask(&stack, request("POST", SEARCH, asked, "a")).await;
        }
        assert_eq!(origin.calls(), calls, "{answer:?} to {asked:?}");
    }
    let origin = echo();
    let stack = stack_by(search(), Rules::new(), &origin);
    ask_all(&stack, [post_of("a"), post_of("a")]).await;
    assert_eq!(origin.calls(), 2, "without freshness");
}

#[tokio::test]
async fn vary_and_the_settings_of_the_rule_apply_to_reads_by_post() {
    let origin = echo_with(&[("vary", "accept-language")]);
    let rule = search().headers(["x-tenant"]).fixed_ttl(ms(60_000)).tags(["searches"]);
    let bodies = layer(rule);
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).build().unwrap();
    let purge = cache.purge();
    let stack = bodies.layer(cache.layer(front(&origin)));
    let of = |field| request("POST", SEARCH, &[field], "a");
    let all = || [of(("accept-language", "de")), of(("accept-language", "en")), of(("x-tenant", "t"))];
    ask_all(&stack, all()).await;
    ask_all(&stack, all()).await;
    assert_eq!(origin.calls(), 3);
    purge.tag("searches");
    ask_all(&stack, all()).await;
    assert_eq!(origin.calls(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_sends_the_body_by_the_method_it_came_by() {
    for method in ["POST", "QUERY"] {
        let origin = echo_with(&[("etag", "\"a\"")]);
        let rules = fixed(50).stale_while_revalidate_for(Duration::from_secs(10));
        let stack = stack_by(search(), rules, &origin);
        let asked = || request(method, SEARCH, &[], "a");
        assert_eq!(ask(&stack, asked()).await, format!("1 {method} a"));
        advance(ms(51)).await;
        assert_eq!(ask(&stack, asked()).await, format!("1 {method} a"), "stale, and refreshed");
        sleep(ms(1)).await;
        assert_eq!(ask(&stack, asked()).await, format!("2 {method} a"));
        assert_eq!(origin.calls(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_is_fetched_again_and_served_if_that_fails() {
    let origin = ScriptedOrigin::with_future(|n, request| async move {
        assert!(!request.headers().contains_key("if-none-match"));
        let said = said(n, request).await;
        if n == 1 { response(&[("etag", "\"a\"")], said) } else { status(500) }
    });
    let rules = fixed(50).stale_if_error_for(Duration::from_secs(10));
    let stack = stack_by(search(), rules, &origin);
    ask(&stack, post_of("a")).await;
    advance(ms(51)).await;
    assert_eq!(ask(&stack, post_of("a")).await, "1 POST a");
    assert_eq!(origin.calls(), 2);
}

/// It could only be used after a revalidation, and there is none for such requests.
#[tokio::test]
async fn a_response_that_could_only_be_revalidated_is_not_stored() {
    let origin = echo_with(&[("etag", "\"a\""), ("cache-control", "no-cache")]);
    let stack = stack_by(search(), Rules::new(), &origin);
    let answer = stack.oneshot(post_of("a")).await.unwrap();
    let status = CacheStatus::of(&answer).unwrap().to_string();
    assert!(!status.contains("stored"), "{status}");
}
