//! Fetches under way when a purge comes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_fetch_under_way_serves_earlier_requests_and_no_later_ones() {
    for (kind, apply) in KINDS {
        for is_soft in [false, true] {
            let content = Arc::new(AtomicU64::new(1));
            let origin = slow(&content);
            let (service, purge, store) = stack_of(&origin, fixed(60_000));
            let before = crowd(&service, 50);
            sleep(ms(50)).await;
            content.store(2, Ordering::SeqCst);
            apply(&if is_soft { purge.soft() } else { purge });
            let after = crowd(&service, 50);
            assert!(before.join_all().await.iter().all(|body| body == "1"), "{kind}");
            assert!(after.join_all().await.iter().all(|body| body == "2"), "{kind}");
            assert_eq!(seen(&service, URI).await, ("hit".into(), "2".into()), "{kind}");
            assert_eq!(origin.calls(), 2, "{kind}: later requests share a fetch");
            let stored = store.get(&key(URI)).unwrap();
            assert_eq!(stored.variants().len(), 1);
        }
    }
}

/// A failure may be purged like any other response.
#[tokio::test(start_paused = true)]
async fn a_failure_under_way_is_for_earlier_requests_and_no_later_ones() {
    for (kind, apply) in KINDS {
        let origin = ScriptedOrigin::with_future(|n, _| async move {
            sleep(ms(100)).await;
            response(&[("surrogate-key", "red")], n.to_string()).status(500)
        });
        let (service, purge, _) = stack_of(&origin, Rules::new());
        let before = crowd(&service, 50);
        sleep(ms(50)).await;
        apply(&purge);
        let after = crowd(&service, 50);
        let (before, after) = (before.join_all().await, after.join_all().await);
        assert!(before.iter().any(|body| body == "1"), "{kind}: {before:?}");
        assert!(after.iter().all(|body| body != "1"), "{kind}: {after:?}");
        // Two for each crowd: a failure is shared once a second caller's fetch failed too.
        assert!(origin.calls() <= 4, "{kind}: {}", origin.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_purged_while_its_body_arrives_is_not_stored() {
    for (kind, apply) in KINDS {
        let origin = ScriptedOrigin::with_future(|n, _| async move {
            let chunks = futures_util::stream::unfold(0, move |at| async move {
                sleep(ms(50)).await;
                (at < 2).then(|| (Ok::<_, std::convert::Infallible>(n.to_string()), at + 1))
            });
            response(&[("surrogate-key", "red")], crate::streamed(chunks))
        });
        let (service, purge, store) = stack_of(&origin, fixed(60_000));
        let response = service.clone().oneshot(get_request(URI)).await.unwrap();
        apply(&purge);
        let late = service.clone().oneshot(get_request(URI)).await.unwrap();
        assert_eq!(bytes(response).await, "11", "{kind}");
        assert_eq!(bytes(late).await, "22", "{kind}: a later request did not join");
        sleep(ms(500)).await;
        assert_eq!(seen(&service, URI).await.1, "22", "{kind}");
        assert_eq!((origin.calls(), store.stats().entries), (2, 1), "{kind}");
    }
}

/// Frequent purges of a tag cause no additional fetches.
#[tokio::test(start_paused = true)]
async fn a_purge_storm_does_not_multiply_fetches() {
    let content = Arc::new(AtomicU64::new(1));
    let origin = slow(&content);
    let (service, purge, _) = stack_of(&origin, fixed(60_000));
    let mut callers = JoinSet::new();
    for n in 1..=1_000_u64 {
        let (at_least, service) = (content.load(Ordering::SeqCst), service.clone());
        callers.spawn(async move { (at_least, seen(&service, URI).await.1.parse::<u64>().unwrap()) });
        sleep(ms(1)).await;
        content.store(n + 1, Ordering::SeqCst);
        purge.tag("red");
    }
    for (at_least, got) in callers.join_all().await {
        assert!(got >= at_least, "{got} was purged, {at_least} was there");
    }
    assert!(origin.calls() <= 50, "{} calls for 1,000 callers in 1.1 s", origin.calls());
}

#[tokio::test(start_paused = true)]
async fn a_revalidation_under_way_does_not_restore_a_purged_response() {
    for (kind, apply) in KINDS {
        let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
            match n {
                1 => response(
                    &[("cache-control", "max-age=1"), ("etag", "\"1\""), ("surrogate-key", "red")],
                    "old",
                ),
                2 => {
                    assert!(request.headers().contains_key("if-none-match"));
                    sleep(ms(100)).await;
                    let mut confirmed = status(304);
                    confirmed.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
                    confirmed
                }
                _ => response(&[("cache-control", "max-age=60")], "new"),
            }
        });
        let (service, purge, _) = stack_of(&origin, Rules::new());
        seen(&service, URI).await;
        sleep(ms(2_000)).await;
        let confirming = service.clone();
        let confirming = tokio::spawn(async move { seen(&confirming, URI).await.1 });
        sleep(ms(50)).await;
        apply(&purge);
        let after = service.clone();
        let after = tokio::spawn(async move { seen(&after, URI).await.1 });
        assert_eq!(confirming.await.unwrap(), "old", "{kind}: the request came before");
        assert_eq!(after.await.unwrap(), "new", "{kind}");
        assert_eq!(seen(&service, URI).await.1, "new", "{kind}");
    }
}

/// A caller whose fetch failed fetches by itself, and knows of a stored response that is purged by then.
#[tokio::test(start_paused = true)]
async fn a_response_purged_before_the_fetch_is_not_revalidated() {
    for (kind, apply) in KINDS {
        let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
            let fields = [("cache-control", "max-age=1"), ("etag", "\"1\""), ("surrogate-key", "red")];
            match n {
                1 => response(&fields, "old"),
                2 => {
                    sleep(ms(100)).await;
                    panic!("the origin broke down");
                }
                _ if request.headers().contains_key("if-none-match") => status(304),
                _ => response(&[("cache-control", "max-age=60")], "new"),
            }
        });
        // No stale response covers the failure.
        let rules = Rules::new().stale_if_error_for(Duration::ZERO);
        let (service, purge, _) = stack_of(&origin, rules);
        seen(&service, URI).await;
        sleep(ms(2_000)).await;
        let mut callers = crowd(&service, 2);
        sleep(ms(50)).await;
        apply(&purge);
        while callers.join_next().await.is_some() {}
        assert_eq!(origin.calls(), 3, "{kind}");
        assert_eq!(seen(&service, URI).await.1, "new", "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_under_way_does_not_restore_a_purged_response() {
    for (kind, apply) in KINDS {
        let content = Arc::new(AtomicU64::new(1));
        let origin = slow(&content);
        let (service, purge, _) = stack_of(&origin, fixed(1_000).stale_while_revalidate_for(ms(60_000)));
        seen(&service, URI).await;
        sleep(ms(2_000)).await;
        assert_eq!(seen(&service, URI).await.1, "1", "{kind}: stale");
        sleep(ms(50)).await;
        content.store(2, Ordering::SeqCst);
        apply(&purge);
        assert_eq!(seen(&service, URI).await.1, "2", "{kind}");
        sleep(ms(500)).await;
        assert_eq!(seen(&service, URI).await.1, "2", "{kind}");
    }
}

/// The arrival of the request is not known here.
/// Parts of one representation grow together, but not with what was purged meanwhile.
#[tokio::test(start_paused = true)]
async fn a_part_under_way_does_not_restore_a_purged_part() {
    for (kind, apply) in KINDS {
        let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
            let is_first = request.headers()["range"] == "bytes=0-4";
            let body = futures_util::stream::once(async move {
                sleep(ms(if n == 1 { 100 } else { 0 })).await;
                Ok::<_, std::convert::Infallible>(n.to_string().repeat(5))
            });
            let extent = if is_first { "bytes 0-4/15" } else { "bytes 5-9/15" };
            let fields = [("content-range", extent), ("etag", "\"1\""), ("surrogate-key", "red")];
            response(&fields, crate::streamed(body)).status(206)
        });
        let (service, purge, _) = stack_of(&origin, fixed(60_000));
        let range = |range: &'static str| {
            let mut request = get_request(URI);
            request.headers_mut().insert("range", range.parse().unwrap());
            request
        };
        let slow = service.clone().oneshot(range("bytes=0-4")).await.unwrap();
        apply(&purge);
        assert_eq!(call(&service, range("bytes=5-9")).await.1, "22222", "{kind}");
        assert_eq!(bytes(slow).await, "11111", "{kind}: it came before");
        sleep(ms(200)).await;
        assert_eq!(call(&service, range("bytes=0-4")).await.1, "33333", "{kind}");
        assert_eq!(call(&service, range("bytes=3-7")).await.1, "33222", "{kind}: of one piece again");
        assert_eq!(origin.calls(), 3, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn coalescing_without_lookup_shares_nothing_across_a_purge() {
    for (kind, apply) in KINDS {
        let content = Arc::new(AtomicU64::new(1));
        let origin = slow(&content);
        let store = store();
        let fill = FillLayer::new(store.clone()).rules(fixed(60_000));
        let stack = KeyLayer::default().layer(CoalesceLayer::new().layer(fill.layer(origin.clone())));
        let callers = |n| {
            let mut callers = JoinSet::new();
            for _ in 0..n {
                let stack = stack.clone();
                callers.spawn(async move { call(&stack, get_request(URI)).await.1 });
            }
            callers
        };
        let before = callers(10);
        sleep(ms(50)).await;
        content.store(2, Ordering::SeqCst);
        apply(&LookupLayer::new(store.clone()).purge());
        let after = callers(10);
        before.join_all().await;
        assert!(after.join_all().await.iter().all(|body| body == "2"), "{kind}");
        assert!(origin.calls() <= 3, "{kind}: {}", origin.calls());
    }
}
