//! Stale responses while they are revalidated (RFC 5861 §3).

use super::*;

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_in_the_window_start_one_refresh_and_wait_for_nothing() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("v1") } else { ok("v2").after(ms(500)) });
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    let came = Instant::now();
    for _ in 0..1_000 {
        let reply = get(&service, "/").await;
        assert!(is_refreshing(&reply));
        assert_eq!((&reply.body[..], reply.age()), (&b"v1"[..], Some(12)));
        assert_eq!(reply.cache(), "hit; detail=stale-while-revalidate");
    }
    assert_eq!(came.elapsed(), Duration::ZERO);
    settle().await;
    assert_eq!(origin.calls(), 2);
    tokio::time::sleep(ms(501)).await;
    let reply = get(&service, "/").await;
    assert_eq!((reply.cache().as_str(), &reply.body[..]), ("hit", &b"v2"[..]));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_window_begins_and_ends_to_the_millisecond() {
    for (after, cache) in [
        (9_999, "hit"),
        (10_000, "hit; detail=stale-while-revalidate"),
        (69_999, "hit; detail=stale-while-revalidate"),
        (70_000, "fwd=stale"),
    ] {
        let service = cached(refreshing(), &numbered());
        get(&service, "/").await;
        tokio::time::advance(ms(after)).await;
        assert_eq!(get(&service, "/").await.cache(), cache, "{after}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_origin_sets_the_window_and_may_forbid_it() {
    for (said, refreshes) in [
        ("max-age=10, stale-while-revalidate=5", true),
        ("max-age=10, stale-while-revalidate=1", false),
        ("max-age=10, stale-while-revalidate=5, must-revalidate", false),
        ("s-maxage=10, stale-while-revalidate=5", true),
        ("s-maxage=10, stale-while-revalidate=5, proxy-revalidate", false),
        ("max-age=10", false),
    ] {
        let origin = ScriptedOrigin::always(move || ok("x").header("cache-control", said));
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(12)).await;
        assert_eq!(is_refreshing(&get(&service, "/").await), refreshes, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_stale_response_has_a_refresh_of_its_own() {
    let origin =
        ScriptedOrigin::new(|_, head| ok(head.uri.path().to_owned()).header("vary", "accept").after(ms(10)));
    let service = cached(refreshing(), &origin);
    let asked = [("/a", "1"), ("/a", "2"), ("/b", "1")];
    for (path, accept) in asked {
        get_with(&service, path, &[("accept", accept)]).await;
    }
    tokio::time::advance(secs(12)).await;
    for _ in 0..10 {
        for (path, accept) in asked {
            assert!(is_refreshing(&get_with(&service, path, &[("accept", accept)]).await));
        }
    }
    settle().await;
    assert_eq!(origin.calls(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_the_clients_request_without_its_conditions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Tenant(u32);
    let origin = ScriptedOrigin::always(|| ok("x").header("etag", "\"1\""));
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    let fields = [("if-none-match", "\"mine\""), ("if-modified-since", MODIFIED), ("x", "1")];
    let mut request = request("GET", "/", &fields);
    request.extensions_mut().insert(Tenant(7));
    let reply = send(&service, request).await;
    assert!(is_refreshing(&reply));
    settle().await;
    let refresh = origin.request(2);
    assert_eq!(refresh.method, "GET");
    assert_eq!(refresh.extensions.get(), Some(&Tenant(7)));
    assert_eq!(refresh.extensions.get::<CacheRequest>().unwrap().purpose(), Purpose::Refresh);
    assert_eq!(refresh.headers["x"], "1");
    assert_eq!(refresh.headers["if-none-match"], "\"1\"", "the condition is that of the store");
    assert!(!refresh.headers.contains_key("if-modified-since"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_with_a_304_makes_the_response_fresh() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("v1").header("etag", "\"1\""),
        _ => status(304),
    });
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    for calls in 2..5 {
        tokio::time::advance(secs(12)).await;
        assert!(is_refreshing(&get(&service, "/").await));
        settle().await;
        let reply = get(&service, "/").await;
        assert_eq!((reply.cache().as_str(), &reply.body[..], reply.age()), ("hit", &b"v1"[..], Some(0)));
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_is_not_repeated_before_the_pause_is_over() {
    let failures: [fn() -> ScriptedResponse; 4] =
        [error, || status(503), || ok("half").cut(), || ok("short").header("content-length", "9")];
    for failure in failures {
        for pause in [ms(1_000), ms(3_000)] {
            let origin = failing(failure);
            let health = OriginHealth::builder().key_pause(pause, pause).build().unwrap();
            let service = cached_with(refreshing(), &origin, |lookup| lookup.health(health));
            get(&service, "/").await;
            tokio::time::advance(secs(10)).await;
            // Ten requests a second for thirty seconds.
            for request in 0..300 {
                let reply = get(&service, "/").await;
                assert!(if request == 0 { is_refreshing(&reply) } else { is_resting(&reply) });
                assert_eq!(reply.body, "v1");
                settle().await;
                tokio::time::advance(ms(100)).await;
            }
            // Half of each pause is random, and refreshes begin with a request.
            let pauses = 30_000 / pause.as_millis();
            let refreshes = origin.calls() as u128 - 1;
            assert!((pauses..=2 * pauses).contains(&refreshes), "{refreshes}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_a_failed_refresh_doubles_from_a_second() {
    let origin = failing(error);
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    // Half of each pause is random.
    for (step, calls) in [(0, 2), (499, 2), (502, 3), (999, 3), (1_002, 4), (1_999, 4), (2_002, 5)] {
        tokio::time::advance(ms(step)).await;
        get(&service, "/").await;
        settle().await;
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_panics_lets_the_next_one_begin_after_the_pause() {
    let origin = failing(panics);
    let service = cached(refreshing(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    for calls in 2..6 {
        for _ in 0..10 {
            assert!(is_refreshing(&get(&service, "/").await));
            settle().await;
        }
        assert_eq!(origin.calls(), calls);
        tokio::time::advance(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_hangs_is_given_up_at_its_deadline() {
    let origin = failing(hangs);
    let service = cached_with(refreshing(), &origin, |lookup| lookup.refresh_deadline(secs(5)));
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    for calls in 2..5 {
        get(&service, "/").await;
        settle().await;
        assert_eq!((origin.calls(), origin.under_way()), (calls, 1));
        tokio::time::sleep(ms(4_990)).await;
        let reply = get(&service, "/").await;
        assert!(if calls == 2 { is_refreshing(&reply) } else { is_resting(&reply) });
        assert_eq!((origin.calls(), origin.under_way()), (calls, 1), "no other refresh may begin");
        tokio::time::sleep(ms(20)).await;
        assert!(is_resting(&get(&service, "/").await));
        assert_eq!((origin.calls(), origin.under_way()), (calls, 0), "now the pause");
        tokio::time::sleep(secs(4)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_whose_body_hangs_is_given_up_too() {
    let origin = ScriptedOrigin::always(|| ok("v1"));
    let stuck = Arc::new(AtomicUsize::new(0));
    let alive = Arc::clone(&stuck);
    // From the second response on the body never arrives.
    let calls = Arc::new(AtomicUsize::new(0));
    let below = ServiceBuilder::new()
        .map_response(move |response: Response<Body>| {
            let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            response.map(|body| if is_first { Stuck::Not(body) } else { Stuck::new(&alive) })
        })
        .service(origin);
    let store = small_store();
    let fill = FillLayer::new(store.clone()).rules(refreshing());
    let service = LookupLayer::new(store).refresh_deadline(secs(5)).layer(fill.layer(below));
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    get(&service, "/").await;
    settle().await;
    assert_eq!(stuck.load(Ordering::SeqCst), 1);
    tokio::time::sleep(ms(5_001)).await;
    assert_eq!(stuck.load(Ordering::SeqCst), 0, "the body is dropped");
    assert_eq!(get(&service, "/").await.body, "v1");
}

enum Stuck {
    Not(Body),
    For(Arc<AtomicUsize>),
}

impl Stuck {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self::For(Arc::clone(alive))
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        if let Self::For(alive) = self {
            alive.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl http_body::Body for Stuck {
    type Data = bytes::Bytes;
    type Error = tower::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, tower::BoxError>>> {
        match &mut *self {
            Self::Not(body) => std::pin::Pin::new(body).poll_frame(cx),
            Self::For(_) => std::task::Poll::Pending,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_finds_the_response_gone_removes_it() {
    let answers: [fn() -> ScriptedResponse; 3] =
        [|| status(404), || status(410), || ok("mine").header("cache-control", "private")];
    for answer in answers {
        let origin = failing(answer);
        let service = cached(refreshing(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(12)).await;
        assert_eq!(get(&service, "/").await.body, "v1");
        settle().await;
        let reply = get(&service, "/").await;
        assert!(!reply.is_hit());
        assert_eq!((&reply.body == "v1", origin.calls()), (false, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_refreshes_at_a_time_than_allowed() {
    let origin = ScriptedOrigin::new(|call, _| if call <= 10 { ok("x") } else { ok("x").after(ms(100)) });
    let service = cached_with(refreshing(), &origin, |lookup| lookup.max_refreshes(3));
    let paths: Vec<_> = (0..10).map(|n| format!("/{n}")).collect();
    for path in &paths {
        get(&service, path).await;
    }
    tokio::time::advance(secs(12)).await;
    for batch in 1..=4 {
        for path in &paths {
            assert!(get(&service, path).await.is_hit());
        }
        settle().await;
        assert!(origin.under_way() <= 3);
        assert_eq!(origin.calls(), 10 + (3 * batch).min(10), "a request that got no place tries again later");
        tokio::time::sleep(ms(101)).await;
    }
    assert_eq!(origin.most_under_way(), 3);
    for path in &paths {
        assert_eq!(get(&service, path).await.cache(), "hit");
    }
}

#[tokio::test(start_paused = true)]
async fn a_custom_executor_runs_the_refreshes() {
    let origin = numbered();
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let queue = Arc::clone(&tasks);
    let service = cached_with(refreshing(), &origin, |lookup| {
        lookup.executor(move |task| queue.lock().unwrap().push(task))
    });
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    for _ in 0..3 {
        assert_eq!(get(&service, "/").await.body, "v1");
    }
    let task = tasks.lock().unwrap().pop().unwrap();
    assert!(tasks.lock().unwrap().is_empty(), "one refresh, one task");
    assert_eq!(origin.calls(), 1);
    task.await;
    assert_eq!(origin.calls(), 2);
    assert_eq!(get(&service, "/").await.body, "v2");
    // A task that is dropped releases the right to refresh.
    tokio::time::advance(secs(12)).await;
    get(&service, "/").await;
    drop(tasks.lock().unwrap().pop().unwrap());
    tokio::time::advance(secs(1)).await;
    get(&service, "/").await;
    let task = tasks.lock().unwrap().pop().unwrap();
    task.await;
    assert_eq!(get(&service, "/").await.body, "v3");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_ends_after_its_deadline_leaves_its_successor_alone() {
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let queue = Arc::clone(&tasks);
    let service = cached_with(refreshing(), &numbered(), |lookup| {
        lookup.refresh_deadline(secs(5)).executor(move |task| queue.lock().unwrap().push(task))
    });
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    get(&service, "/").await;
    tokio::time::advance(secs(5)).await;
    get(&service, "/").await;
    assert_eq!(tasks.lock().unwrap().len(), 2, "the first one's time is over");
    let late = tasks.lock().unwrap().remove(0);
    drop(late);
    for _ in 0..4 {
        tokio::time::advance(ms(1_200)).await;
        get(&service, "/").await;
        assert_eq!(tasks.lock().unwrap().len(), 1, "the second one is under way");
    }
    tokio::time::advance(ms(200)).await;
    get(&service, "/").await;
    assert_eq!(tasks.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_refresh_does_not_replace_a_newer_response() {
    // The refresh is slow, the window ends, and a request in the foreground is quicker.
    let origin = ScriptedOrigin::new(|call, _| match call {
        2 => ok("v2").after(secs(20)),
        call => ok(format!("v{call}")),
    });
    let service = cached(ttl().stale_while_revalidate_for(secs(5)), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(12)).await;
    get(&service, "/").await;
    settle().await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(get(&service, "/").await.body, "v3");
    tokio::time::sleep(secs(11)).await;
    assert_eq!(origin.under_way(), 0, "the refresh has come to its end");
    let reply = get(&service, "/").await;
    assert_eq!((&reply.body[..], is_refreshing(&reply)), (&b"v3"[..], true));
}
