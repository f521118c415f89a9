//! Which requests are retried, how often, and after which wait.

use super::*;

#[tokio::test(start_paused = true)]
async fn idempotent_requests_without_a_body_are_tried_again() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let origin = recovering(1, || status(503));
        let reply = send(&retried(eager(), &origin), request(method, "/", &[])).await;
        assert_eq!((reply.status.as_u16(), origin.calls()), (200, 2), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_do_harm_twice_is_sent_once() {
    for method in ["POST", "PATCH", "CONNECT", "INVENTED"] {
        let origin = recovering(1, || status(503));
        let reply = send(&retried(eager(), &origin), request(method, "/", &[])).await;
        assert_eq!((reply.status.as_u16(), origin.calls()), (503, 1), "{method}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let origin = recovering(1, || status(503));
        let request = request(method, "/", &[]).map(|_| Body::from("content"));
        let reply = send(&retried(eager(), &origin), request).await;
        assert_eq!((reply.status.as_u16(), origin.calls()), (503, 1), "{method} with a body");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_and_gateway_statuses_are_tried_again_and_nothing_else() {
    for (code, calls) in [
        (200, 1),
        (304, 1),
        (404, 1),
        (408, 2),
        (429, 1),
        (500, 1),
        (501, 1),
        (502, 2),
        (503, 2),
        (504, 2),
        (505, 1),
    ] {
        let origin = recovering(1, move || status(code));
        let reply = get(&retried(eager(), &origin), "/").await;
        assert_eq!(origin.calls(), calls, "{code}");
        assert_eq!(reply.status.as_u16(), if calls == 2 { 200 } else { code }, "{code}");
    }
    let origin = recovering(1, error);
    let reply = get(&retried(eager(), &origin), "/").await;
    assert_eq!((reply.status.as_u16(), origin.calls()), (200, 2));
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_goes_to_the_client_as_it_came() {
    let origin = ScriptedOrigin::always(|| status(502).header("x", "kept").chunk("why"));
    let reply = get(&retried(eager().max_retries(3), &origin), "/").await;
    assert_eq!((reply.status.as_u16(), reply.header("x"), &reply.body[..]), (502, Some("kept"), &b"why"[..]));
    let origin = ScriptedOrigin::always(error);
    assert!(try_send(&retried(eager().max_retries(3), &origin), request("GET", "/", &[])).await.is_err());
    assert_eq!(origin.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_retries_as_allowed() {
    for retries in [0, 1, 2, 7] {
        let origin = ScriptedOrigin::always(|| status(503));
        let policy = eager().max_retries(retries);
        let reply = get(&retried(policy.clone(), &origin), "/").await;
        assert_eq!(origin.calls() as u32, retries + 1);
        assert_eq!(reply.extensions.get::<Attempts>().unwrap().count(), retries + 1);
        assert_eq!(policy.retries(), u64::from(retries));
    }
    let origin = ScriptedOrigin::always(|| status(503));
    get(&retried(RetryPolicy::never(), &origin), "/").await;
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_policy_count_their_retries_together() {
    let origin = ScriptedOrigin::always(|| status(503));
    let policy = eager().max_retries(2);
    let (one, other) = (retried(policy.clone(), &origin), retried(policy.clone(), &origin));
    get(&one, "/").await;
    get(&other, "/").await;
    assert_eq!(policy.retries(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_first_response_counts_as_one_attempt() {
    let origin = ScriptedOrigin::always(|| ok(""));
    let policy = eager();
    let service = retried(policy.clone(), &origin);
    for _ in 0..3 {
        assert_eq!(get(&service, "/").await.extensions.get::<Attempts>().unwrap().count(), 1);
    }
    assert_eq!(policy.retries(), 0);
}

#[tokio::test(start_paused = true)]
async fn waits_lie_anywhere_between_zero_and_a_ceiling_that_doubles() {
    let (min, max) = (ms(100), ms(1_000));
    let ceilings = [100, 200, 400, 800, 1_000, 1_000].map(ms);
    let mut waits = [const { Vec::new() }; 6];
    for _ in 0..200 {
        let (origin, times) = timed(|| status(503));
        get(&retried(eager().max_retries(6).backoff(min, max), &origin), "/").await;
        let times = times.lock().unwrap();
        assert_eq!(times.len(), 7);
        for (retry, wait) in times.windows(2).map(|pair| pair[1] - pair[0]).enumerate() {
            // The timer rounds up to whole milliseconds.
            assert!(wait <= ceilings[retry] + ms(1), "{wait:?} before retry {}", retry + 1);
            waits[retry].push(wait);
        }
    }
    // Full jitter: each quarter of the range is hit. One of 200 misses it once in 10^25 runs.
    for (waits, ceiling) in waits.iter().zip(ceilings) {
        for quarter in 0..4 {
            let range = ceiling * quarter / 4..=ceiling * (quarter + 1) / 4 + ms(1);
            assert!(waits.iter().any(|wait| range.contains(wait)), "quarter {quarter} of {ceiling:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn extreme_backoffs_do_not_panic() {
    let extremes = [(Duration::MAX, Duration::MAX, 1), (Duration::ZERO, Duration::MAX, 2), (ms(5), ms(1), 2)];
    for (min, max, calls) in extremes {
        let origin = recovering(1, || status(503));
        get(&retried(eager().backoff(min, max).max_retry_after(Duration::MAX), &origin), "/").await;
        assert_eq!(origin.calls(), calls, "a wait beyond the deadline is not begun");
    }
    let origin = recovering(1, || status(503));
    get(&retried(eager().deadline(Duration::MAX), &origin), "/").await;
    assert_eq!(origin.calls(), 2);
    let origin = ScriptedOrigin::always(|| status(503));
    get(&retried(eager().max_retries(100).backoff(ms(1), ms(2)).deadline(secs(3600)), &origin), "/").await;
    assert_eq!(origin.calls(), 101, "more doublings than a number has bits");
}

#[tokio::test(start_paused = true)]
async fn retry_after_in_seconds_is_waited_for_within_its_bound() {
    for (asked, bound, waited) in [("2", 2, Some(2)), ("3", 2, None), ("0", 2, Some(0)), ("007", 7, Some(7))]
    {
        let (origin, times) = timed(move || status(503).header("retry-after", asked));
        get(&retried(eager().max_retries(1).max_retry_after(secs(bound)), &origin), "/").await;
        let times = times.lock().unwrap();
        let wait = (times.len() == 2).then(|| (times[1] - times[0]).as_secs());
        assert_eq!(wait, waited, "{asked} within {bound}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_does_not_shorten_the_backoff() {
    // With a ceiling of an hour 50 waits of less than a second each do not happen.
    let mut longest = Duration::ZERO;
    for _ in 0..50 {
        let (origin, times) = timed(|| status(503).header("retry-after", "1"));
        let policy = eager().max_retries(1).backoff(secs(3600), secs(3600)).deadline(secs(7200));
        get(&retried(policy, &origin), "/").await;
        let times = times.lock().unwrap();
        assert!(times[1] - times[0] >= secs(1));
        longest = longest.max(times[1] - times[0]);
    }
    assert!(longest > secs(60), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_after_as_a_date_is_waited_for_within_its_bound() {
    let at = |ahead| httpdate::fmt_http_date(SystemTime::now() + secs(ahead));
    let (soon, late) = (at(30), at(3600));
    let (origin, times) = timed(move || status(503).header("retry-after", &soon));
    get(&retried(eager().max_retries(1).max_retry_after(secs(60)).deadline(secs(100)), &origin), "/").await;
    let times = times.lock().unwrap().clone();
    assert_eq!(times.len(), 2);
    let wait = times[1] - times[0];
    // Dates count whole seconds, and the clock on the wall goes on.
    assert!((secs(20)..=secs(31)).contains(&wait), "{wait:?}");

    let origin = ScriptedOrigin::always(move || status(503).header("retry-after", &late));
    get(&retried(eager().max_retry_after(secs(60)), &origin), "/").await;
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_or_past_retry_after_is_none() {
    for value in ["soon", "-1", "1.5", "", "\u{fc}", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let origin = recovering(1, move || status(503).header("retry-after", value));
        get(&retried(eager(), &origin), "/").await;
        assert_eq!(origin.calls(), 2, "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_enormous_retry_after_is_not_waited_for() {
    for value in ["2147483648", "18446744073709551616", &"9".repeat(4000)] {
        let value = value.to_owned();
        let origin = ScriptedOrigin::always(move || status(503).header("retry-after", &value));
        get(&retried(eager(), &origin), "/").await;
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline() {
    // 300 ms each: attempts begin at 0, 300, 600 and 900, and one at 1200 would be late.
    let origin = ScriptedOrigin::always(|| status(503).after(ms(300)));
    let begun = Instant::now();
    get(&retried(eager().deadline(ms(1_000)), &origin), "/").await;
    assert_eq!(origin.calls(), 4);
    assert_eq!(begun.elapsed(), ms(1_200));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_end_after_the_deadline_is_not_begun() {
    let begun = Instant::now();
    let origin = ScriptedOrigin::always(|| status(503).header("retry-after", "2"));
    get(&retried(eager().deadline(ms(5_000)), &origin), "/").await;
    assert_eq!(origin.calls(), 3);
    assert_eq!(begun.elapsed(), secs(4), "the answer does not wait for a retry that is never made");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_for_each_request_anew() {
    let origin = ScriptedOrigin::always(|| status(503).after(ms(300)));
    // The same service each time, not a clone of it.
    let mut service = retried(eager().deadline(ms(500)), &origin);
    for requests in 1..4 {
        serve(&mut service, request("GET", "/", &[])).await;
        assert_eq!(origin.calls(), 2 * requests);
        tokio::time::advance(secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_fails_for_a_minute_is_asked_little_more_than_usual() {
    const REQUESTS: usize = 60_000;
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let origin = service_fn(move |_: Request<Body>| {
        counter.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err::<Response<Body>, _>(Failure))
    });
    let policy = RetryPolicy::new();
    let service = RetryLayer::new(policy.clone()).layer(origin);
    // 1,000 a second, in steps of ten milliseconds.
    let mut clients = FuturesUnordered::new();
    for sent in 1..=REQUESTS {
        clients.push(service.clone().oneshot(request("GET", "/", &[])));
        if sent % 10 == 0 {
            while let Some(Some(_)) = clients.next().now_or_never() {}
            tokio::time::advance(ms(10)).await;
        }
    }
    while clients.next().await.is_some() {}
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls * 10 <= REQUESTS * 12, "{calls} attempts for {REQUESTS} requests");
    assert!(calls > REQUESTS, "the reserve allows some retries");
    assert_eq!(policy.retries(), (calls - REQUESTS) as u64);
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_allows_no_retry_and_successes_fill_it() {
    let origin = ScriptedOrigin::new(|_, head| if head.uri.path() == "/ok" { ok("") } else { status(503) });
    let service = retried(eager().max_retries(1).budget(TpsBudget::new(secs(10), 0, 0.5)), &origin);
    get(&service, "/bad").await;
    assert_eq!(origin.calls(), 1);
    get(&service, "/ok").await;
    get(&service, "/ok").await;
    get(&service, "/bad").await;
    assert_eq!(origin.calls(), 5, "two successes pay for one retry");
    get(&service, "/bad").await;
    assert_eq!(origin.calls(), 6);
}

#[tokio::test(start_paused = true)]
async fn failed_and_refused_requests_add_nothing_to_the_retry_budget() {
    let origin = service_fn(async |request: Request<Body>| {
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = match request.uri().path() {
            "/500" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        if request.uri().path() == "/refused" {
            response.extensions_mut().insert(Refused::QueueFull);
        }
        Ok::<_, Failure>(response)
    });
    let policy = eager().budget(TpsBudget::new(secs(10), 0, 1.0));
    let service = RetryLayer::new(policy.clone()).layer(origin);
    for path in ["/refused", "/500"] {
        for _ in 0..5 {
            get(&service, path).await;
        }
        get(&service, "/503").await;
        assert_eq!(policy.retries(), 0, "{path}");
    }
}

#[test]
fn without_a_runtime_nothing_is_retried_and_nothing_panics() {
    let origin = ScriptedOrigin::always(|| status(503).header("retry-after", "1"));
    let policy = RetryPolicy::new();
    let reply = get(&retried(policy.clone(), &origin), "/").now_or_never().unwrap();
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((origin.calls(), policy.retries()), (1, 0));
    assert_eq!(reply.extensions.get::<Attempts>().unwrap().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_not_retried() {
    let origin = ScriptedOrigin::always(|| ok("hel").cut());
    let service = KeyLayer::default().layer(retried(eager(), &origin));
    let response = service.oneshot(request("GET", "/", &[])).await.unwrap();
    let reply = collect(response).await;
    assert!(reply.is_cut);
    assert_eq!(origin.calls(), 1);
}
