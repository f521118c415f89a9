//! Retries through the assembled stack.

use super::*;

fn stacked(policy: RetryPolicy, origin: &ScriptedOrigin) -> ReadThrough<ScriptedOrigin, MemoryStore> {
    let stack = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).retry(policy);
    stack.build().unwrap().layer(origin.clone())
}

#[tokio::test(start_paused = true)]
async fn through_the_stack_a_retry_is_the_same_request_with_its_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Tenant(&'static str);
    let fields = [("x", "1"), ("x", "2")];
    let bypassing = [("x", "1"), ("x", "2"), ("cache-control", "no-store")];
    for (tenant, fields) in [(None, &fields[..]), (Some(Tenant("t")), &fields), (None, &bypassing)] {
        let origin = recovering(2, || status(503));
        let policy = eager();
        let mut request = request("GET", "/a?b", fields);
        tenant.clone().map(|tenant| request.extensions_mut().insert(tenant));
        *request.version_mut() = http::Version::HTTP_2;
        let reply = send(&stacked(policy.clone(), &origin), request).await;
        assert_eq!((&*reply.body, reply.extensions.get::<Attempts>().unwrap().count()), (&b"fine"[..], 3));
        assert_eq!((origin.calls(), policy.retries()), (3, 2));
        for call in 1..=3 {
            let head = origin.request(call);
            assert_eq!(head.method, "GET");
            assert_eq!(head.uri, "http://example.com/a?b");
            assert_eq!(head.version, http::Version::HTTP_2);
            assert_eq!(head.headers, origin.request(1).headers);
            assert_eq!(head.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert_eq!(head.extensions.get(), tenant.as_ref());
            // A retry is marked as one, for a service over several origins.
            let marks = usize::from(call > 1);
            assert_eq!(head.extensions.len(), origin.request(1).extensions.len() + marks);
            assert_eq!(
                head.extensions.get().map(CacheRequest::key),
                origin.request(1).extensions.get().map(CacheRequest::key)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn through_the_stack_a_retried_revalidation_is_still_conditional() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("hello").max_age(1).header("etag", "\"1\""),
        2 | 3 => status(503),
        _ => status(304).max_age(1).header("etag", "\"1\""),
    });
    let service = stacked(eager().despite_stale(true), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    assert_eq!(get(&service, "/").await.body, "hello");
    assert_eq!(origin.calls(), 4);
    for call in 2..=4 {
        assert_eq!(origin.request(call).headers["if-none-match"], "\"1\"");
    }
}

#[tokio::test(start_paused = true)]
async fn through_the_stack_unsafe_requests_and_successes_are_sent_once() {
    let policy = eager();
    for (method, answer) in [("POST", 503), ("GET", 404), ("GET", 500)] {
        let origin = ScriptedOrigin::always(move || status(answer));
        assert_eq!(send(&stacked(policy.clone(), &origin), request(method, "/", &[])).await.status, answer);
        assert_eq!(origin.calls(), 1, "{method} {answer}");
    }
    let origin = ScriptedOrigin::always(|| status(503));
    let reply = get(&stacked(policy.clone().max_retries(3), &origin), "/").await;
    assert_eq!((reply.status, origin.calls()), (StatusCode::SERVICE_UNAVAILABLE, 4));
    assert_eq!(policy.retries(), 3);
}

#[tokio::test(start_paused = true)]
async fn through_the_stack_a_request_that_waits_for_a_retry_holds_no_permit() {
    let origin = ScriptedOrigin::new(|call, head| match head.uri.path() {
        "/sick" if call < 4 => status(503).chunk("sorry").header("retry-after", "2"),
        _ => ok("well"),
    });
    let limit = OriginLimitLayer::new(1).max_queue(0);
    let stack = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
        .retry(eager())
        .origin_limit(limit);
    let service = stack.build().unwrap().layer(origin.clone());
    let sick = tokio::spawn(service.clone().oneshot(request("GET", "/sick", &[])));
    for wait in [ms(10), secs(2)] {
        tokio::time::sleep(wait).await;
        assert_eq!(get(&service, "/well").await.body, "well");
    }
    assert_eq!(sick.await.unwrap().unwrap().extensions().get::<Attempts>().unwrap().count(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_failed_attempts_is_not_part_of_the_age() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => status(503).after(secs(3)).header("retry-after", "2"),
        _ => ok("hello").after(secs(1)),
    });
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(Rules::new().default_ttl(secs(10))))
        .retry(eager())
        .service(origin.clone());
    let begun = Instant::now();
    assert_eq!(get(&service, "/").await.body, "hello");
    assert_eq!(begun.elapsed(), secs(6));
    let hit = get(&service, "/").await;
    assert!(hit.is_hit());
    assert_eq!(hit.age(), Some(1), "the last attempt alone counts");
    // And the lifetime is shortened by just that second.
    tokio::time::advance(ms(8_999)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!get(&service, "/").await.is_hit());
}
