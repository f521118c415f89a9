//! Revalidation of stale responses (RFC 9111 §4.3).

use super::*;

#[tokio::test(start_paused = true)]
async fn a_revalidated_response_is_fresh_again_with_the_fields_of_the_304() {
    let origin = confirming(|_| {
        let update = status(304).max_age(20).header("x", "new").header("y", "1");
        update.header("content-length", "0").header("content-type", "c/d")
    });
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    let reply = get(&service, "/").await;
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"hello"[..]));
    assert_eq!((reply.header("x"), reply.header("y"), reply.age()), (Some("new"), Some("1"), Some(0)));
    assert_eq!(reply.header("content-length"), Some("5"), "the length is that of the stored body");
    assert_eq!(reply.header("content-type"), Some("c/d"), "every other field is that of the 304");
    assert_eq!(reply.cache(), "fwd=stale; fwd-status=304; stored");
    for (at, is_hit) in [(19_999, true), (1, false)] {
        tokio::time::advance(ms(at)).await;
        let reply = get(&service, "/").await;
        assert_eq!(reply.is_hit(), is_hit);
        assert_eq!((reply.header("x"), &reply.body[..]), (Some("new"), &b"hello"[..]));
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_age_after_a_revalidation_is_that_of_the_304() {
    let origin = confirming(|_| status(304).max_age(20).after(secs(2)).header("age", "3"));
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(15)).await;
    assert_eq!(get(&service, "/").await.age(), Some(5));
    tokio::time::advance(secs(4)).await;
    assert_eq!(get(&service, "/").await.age(), Some(9));
}

#[tokio::test(start_paused = true)]
async fn an_expiry_date_in_the_past_is_not_renewed_by_a_304_without_freshness() {
    let (date, expires) = (SystemTime::now() - secs(100), SystemTime::now() - secs(40));
    let origin = ScriptedOrigin::new(move |_, head| match head.headers.contains_key("if-none-match") {
        true => status(304),
        false => ok("x")
            .header("etag", "\"1\"")
            .header("date", httpdate::fmt_http_date(date))
            .header("expires", httpdate::fmt_http_date(expires)),
    });
    let service = cached(Rules::new(), &origin);
    for call in 1..4 {
        assert!(!get(&service, "/").await.is_hit());
        assert_eq!(origin.calls(), call, "it expired forty seconds ago");
    }
}

#[tokio::test(start_paused = true)]
async fn last_modified_is_a_validator_too() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = ScriptedOrigin::new(move |_, head| match head.headers.get("if-modified-since") {
        Some(since) if since == date => status(304),
        _ => ok("hello").max_age(10).header("last-modified", date),
    });
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(get(&service, "/").await.body, "hello");
    assert!(origin.last_request().headers.get("if-none-match").is_none());
    assert!(get(&service, "/").await.is_hit(), "it keeps the lifetime that it had");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_changed_response_replaces_the_stale_one() {
    let origin = ScriptedOrigin::new(|call, _| {
        ok(format!("v{call}")).max_age(10).header("etag", format!("\"{call}\""))
    });
    let service = cached(Rules::new(), &origin);
    for version in 1..4 {
        assert_eq!(get(&service, "/").await.body, format!("v{version}"));
        assert!(get(&service, "/").await.is_hit());
        tokio::time::advance(secs(10)).await;
    }
    assert_eq!(origin.last_request().headers["if-none-match"], "\"2\"");
}

#[tokio::test(start_paused = true)]
async fn a_304_that_makes_the_response_private_removes_it() {
    let updates: [fn() -> ScriptedResponse; 3] = [
        || status(304).header("cache-control", "private"),
        || status(304).header("cache-control", "no-store"),
        || status(304).header("set-cookie", "a=b"),
    ];
    for update in updates {
        let origin = confirming(move |_| update());
        let store = small_store();
        let service = cached_in(&store, Rules::new().hit_for_miss_for(Duration::ZERO), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(10)).await;
        let reply = get(&service, "/").await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"hello"[..]), "its client gets it");
        assert_eq!(store.stats().entries, 0);
        get(&service, "/").await;
        assert!(!origin.last_request().headers.contains_key("if-none-match"), "there is nothing to confirm");
    }
}

#[tokio::test(start_paused = true)]
async fn a_no_cache_response_is_revalidated_each_time() {
    let origin = ScriptedOrigin::new(|_, head| match head.headers.contains_key("if-none-match") {
        true => status(304),
        false => ok("hello").header("cache-control", "no-cache").header("etag", "\"1\""),
    });
    let service = cached(ttl(), &origin);
    for call in 1..5 {
        let reply = get(&service, "/").await;
        assert_eq!((&reply.body[..], origin.calls()), (&b"hello"[..], call));
        assert_eq!(origin.last_request().headers.contains_key("if-none-match"), call > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_is_kept_for_revalidation_for_its_window_only() {
    for (after, is_kept) in [(ms(15_000 - 1), true), (ms(15_000), false)] {
        let origin = confirming(|_| status(304));
        let service =
            cached(Rules::new().revalidate_for(secs(5)).stale_if_error_for(Duration::ZERO), &origin);
        get(&service, "/").await;
        tokio::time::advance(after).await;
        get(&service, "/").await;
        assert_eq!(origin.last_request().headers.contains_key("if-none-match"), is_kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revalidation_sends_the_other_fields_of_the_client_too() {
    let origin = confirming(|_| status(304).max_age(10));
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    get_with(&service, "/", &[("if-none-match", "\"mine\""), ("x", "1")]).await;
    let sent = origin.last_request();
    assert_eq!(sent.headers.get_all("if-none-match").iter().collect::<Vec<_>>(), ["\"1\""]);
    assert_eq!(sent.headers["x"], "1");
}

/// RFC 9111 §4.3.4: it must not freshen what it is not about.
#[tokio::test(start_paused = true)]
async fn only_a_success_is_revalidated() {
    for code in [200, 301, 404, 410, 503] {
        let origin = ScriptedOrigin::new(move |n, head| match head.headers.contains_key("if-none-match") {
            true => status(304).max_age(10).header("etag", "\"1\""),
            false if n == 1 => status(code).max_age(10).header("etag", "\"1\""),
            false => ok("well").max_age(10),
        });
        let service = cached(Rules::new(), &origin);
        assert_eq!(get(&service, "/").await.status, code);
        tokio::time::advance(secs(10)).await;
        assert_eq!(get(&service, "/").await.status, StatusCode::OK, "{code}");
        assert_eq!(origin.last_request().headers.contains_key("if-none-match"), code == 200);
    }
}
