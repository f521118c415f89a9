//! Responses that may not be shared, and failures.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_unshareable_response_leaves_a_hit_for_miss_that_expires() {
    let origin = ScriptedOrigin::always(|| ok("x").header("cache-control", "no-store"));
    let store = small_store();
    let service = cached_in(&store, Rules::new().hit_for_miss_for(secs(3)), &origin);
    assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; detail=no-store");
    assert_eq!(store.stats().entries, 1);
    assert_eq!(get(&service, "/").await.cache(), "fwd=bypass; detail=no-store");
    tokio::time::advance(ms(2_999)).await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=bypass; detail=no-store");
    tokio::time::advance(ms(3_000)).await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; detail=no-store");
    let service = cached(Rules::new().hit_for_miss_for(Duration::ZERO), &origin);
    for _ in 0..2 {
        assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; detail=no-store");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storable_response_removes_the_hit_for_miss() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        2 => ok("x").max_age(1),
        _ => ok("x").header("cache-control", "no-store"),
    });
    let service = cached(Rules::new().stale_if_error_for(Duration::ZERO), &origin);
    get(&service, "/").await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=bypass");
    assert_eq!(get(&service, "/").await.cache(), "hit");
    // A hit-for-miss that is still there would show once the response is gone.
    tokio::time::advance(secs(2)).await;
    assert!(!get(&service, "/").await.cache().contains("bypass"));
}

#[tokio::test(start_paused = true)]
async fn responses_to_authorized_requests_say_nothing_about_anonymous_ones() {
    for field in ["authorization", "cookie"] {
        let origin = ScriptedOrigin::always(|| ok("x").header("cache-control", "private"));
        let service = cached(Rules::new(), &origin);
        get_with(&service, "/", &[(field, "me")]).await;
        assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; detail=private", "{field}");
        assert_eq!(get_with(&service, "/", &[(field, "you")]).await.cache(), "fwd=bypass; detail=private");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unshareable_response_for_one_client_leaves_the_stored_one() {
    for (field, answer) in [
        ("authorization", (|| ok("mine").max_age(10)) as fn() -> ScriptedResponse),
        ("cookie", || ok("mine")),
    ] {
        let origin = ScriptedOrigin::new(move |_, head| match head.headers.contains_key(field) {
            true => answer(),
            false => ok("for all").max_age(10).header("etag", "\"1\""),
        });
        let service = cached(ttl(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(10)).await;
        let mine = get_with(&service, "/", &[(field, "me")]).await;
        assert!(unshareable(&mine).is_some());
        get(&service, "/").await;
        assert!(origin.last_request().headers.contains_key("if-none-match"), "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_leave_no_hit_for_miss() {
    for answer in
        [(|| status(500)) as fn() -> ScriptedResponse, || status(502), || status(503), || status(504), error]
    {
        let origin = ScriptedOrigin::always(answer);
        let store = small_store();
        let service = cached_in(&store, ttl(), &origin);
        _ = try_send(&service, request("GET", "/", &[])).await;
        assert_eq!(store.stats().entries, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn revalidations_by_clients_do_not_renew_the_hit_for_miss() {
    // An unshareable response has become storable. All requests are conditional.
    let origin = ScriptedOrigin::new(|call, head| match head.headers.get("if-none-match") {
        Some(tag) if tag == "\"1\"" => status(304).header("etag", "\"1\"").max_age(60),
        _ if call == 1 => ok("x").header("etag", "\"1\"").header("cache-control", "no-store"),
        _ => ok("x").header("etag", "\"1\"").max_age(60),
    });
    let service = cached(Rules::new().hit_for_miss_for(secs(3)), &origin);
    get(&service, "/").await;
    for _ in 0..3 {
        let reply = get_with(&service, "/", &[("if-none-match", "\"1\"")]).await;
        assert_eq!(reply.status, StatusCode::NOT_MODIFIED);
        tokio::time::advance(secs(1)).await;
    }
    // The hit-for-miss has expired: this request is fetched for all clients again.
    assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss");
}

#[tokio::test(start_paused = true)]
async fn with_a_hit_for_miss_the_condition_of_the_client_goes_to_the_origin() {
    let origin = ScriptedOrigin::new(|_, head| match head.headers.contains_key("if-none-match") {
        true => status(304).header("etag", "\"1\""),
        false => ok("x").header("etag", "\"1\"").header("cache-control", "private"),
    });
    let service = cached(Rules::new(), &origin);
    let mine = [("if-none-match", "\"1\"")];
    // Without a hit-for-miss the request is sent for all clients, and the condition is evaluated here.
    assert_eq!(get_with(&service, "/", &mine).await.status, StatusCode::NOT_MODIFIED);
    assert!(!origin.last_request().headers.contains_key("if-none-match"));
    assert_eq!(get_with(&service, "/", &mine).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(origin.last_request().headers["if-none-match"], "\"1\"");
}

#[tokio::test(start_paused = true)]
async fn a_failure_never_replaces_a_stale_response() {
    let failures: [fn() -> ScriptedResponse; 4] = [
        error,
        || status(503),
        || status(503).max_age(60),
        || status(500).header("cache-control", "private"),
    ];
    for failure in failures {
        let origin = ScriptedOrigin::new(move |call, _| match call {
            1 => ok("good").max_age(10).header("etag", "\"1\""),
            2 | 3 => failure(),
            _ => status(304).max_age(10),
        });
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(10)).await;
        for _ in 0..2 {
            let failed = try_send(&service, request("GET", "/", &[])).await;
            assert!(failed.is_err() || failed.unwrap().status.is_server_error());
        }
        let reply = get(&service, "/").await;
        assert_eq!(
            (reply.status, &reply.body[..]),
            (StatusCode::OK, &b"good"[..]),
            "it was there to confirm"
        );
        assert_eq!(origin.calls(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_service_reaches_the_caller_unchanged() {
    let origin = ScriptedOrigin::always(error);
    assert_eq!(try_send(&cached(ttl(), &origin), request("GET", "/", &[])).await.unwrap_err(), Failure);
}
