//! What is tried again, when, and how often.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use crate::support::{
    Answer, Body, Origin, collect, error, get, ms, ok, request, secs, send, serve, status, try_send,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::{Duration, Instant};
use tower::{Layer, ServiceBuilder, ServiceExt, retry::budget::TpsBudget, service_fn};
use tower_readthrough::{
    Attempts, CacheRequest, FillLayer, KeyLayer, LookupLayer, MemoryStore, OriginLimitLayer, ReadThrough,
    ReadThroughLayer, Refused, Retry, RetryLayer, RetryPolicy, Rules,
};

fn retried(policy: RetryPolicy, origin: &Origin) -> Retry<Origin> {
    RetryLayer::new(policy).layer(origin.clone())
}

/// Any number of retries, at once: what ends them is not the budget, nor the time.
fn eager() -> RetryPolicy {
    RetryPolicy::new().max_retries(1000).backoff(Duration::ZERO, Duration::ZERO).budget(TpsBudget::new(
        secs(10),
        100_000,
        0.2,
    ))
}

/// Fails `failures` times, then answers.
fn recovering(failures: usize, failure: impl Fn() -> Answer + Send + Sync + 'static) -> Origin {
    Origin::new(move |call, _| if call <= failures { failure() } else { ok("fine") })
}

/// When the calls of the origin began, after the first one.
fn timed(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Origin, Arc<Mutex<Vec<Instant>>>) {
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    let origin = Origin::always(move || {
        noted.lock().unwrap().push(Instant::now());
        answer()
    });
    (origin, times)
}

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
    let origin = Origin::always(|| status(502).header("x", "kept").chunk("why"));
    let reply = get(&retried(eager().max_retries(3), &origin), "/").await;
    assert_eq!((reply.status.as_u16(), reply.header("x"), &reply.body[..]), (502, Some("kept"), &b"why"[..]));
    let origin = Origin::always(error);
    assert!(try_send(&retried(eager().max_retries(3), &origin), request("GET", "/", &[])).await.is_err());
    assert_eq!(origin.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_retries_as_allowed() {
    for retries in [0, 1, 2, 7] {
        let origin = Origin::always(|| status(503));
        let policy = eager().max_retries(retries);
        let reply = get(&retried(policy.clone(), &origin), "/").await;
        assert_eq!(origin.calls() as u32, retries + 1);
        assert_eq!(reply.extensions.get::<Attempts>().unwrap().count(), retries + 1);
        assert_eq!(policy.retries(), u64::from(retries));
    }
    let origin = Origin::always(|| status(503));
    get(&retried(RetryPolicy::never(), &origin), "/").await;
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_policy_count_their_retries_together() {
    let origin = Origin::always(|| status(503));
    let policy = eager().max_retries(2);
    let (one, other) = (retried(policy.clone(), &origin), retried(policy.clone(), &origin));
    get(&one, "/").await;
    get(&other, "/").await;
    assert_eq!(policy.retries(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_first_answer_counts_as_one_attempt() {
    let origin = Origin::always(|| ok(""));
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
    let origin = Origin::always(|| status(503));
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

    let origin = Origin::always(move || status(503).header("retry-after", &late));
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
        let origin = Origin::always(move || status(503).header("retry-after", &value));
        get(&retried(eager(), &origin), "/").await;
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline() {
    // 300 ms each, from 0: attempts begin at 0, 300, 600 and 900, and one at 1200 would be late.
    let origin = Origin::always(|| status(503).after(ms(300)));
    let begun = Instant::now();
    get(&retried(eager().deadline(ms(1_000)), &origin), "/").await;
    assert_eq!(origin.calls(), 4);
    assert_eq!(begun.elapsed(), ms(1_200));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_end_after_the_deadline_is_not_begun() {
    let begun = Instant::now();
    let origin = Origin::always(|| status(503).header("retry-after", "2"));
    get(&retried(eager().deadline(ms(5_000)), &origin), "/").await;
    assert_eq!(origin.calls(), 3);
    assert_eq!(begun.elapsed(), secs(4), "the answer does not wait for a retry that is never made");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_for_each_request_anew() {
    let origin = Origin::always(|| status(503).after(ms(300)));
    // The very same service each time, not a clone of it.
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
        std::future::ready(Err::<Response<Body>, _>(crate::support::Failure))
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
    let origin = Origin::new(|_, head| if head.uri.path() == "/ok" { ok("") } else { status(503) });
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
async fn what_failed_or_was_refused_pays_nothing_into_the_budget() {
    let origin = service_fn(async |request: Request<Body>| {
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = match request.uri().path() {
            "/500" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        if request.uri().path() == "/refused" {
            response.extensions_mut().insert(Refused::QueueFull);
        }
        Ok::<_, crate::support::Failure>(response)
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

#[tokio::test(start_paused = true)]
async fn a_retry_is_the_same_request_with_its_extensions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Tenant(&'static str);
    let origin = recovering(2, || status(503));
    let mut request = request("PUT", "/a?b", &[("x", "1"), ("x", "2")]);
    request.extensions_mut().insert(Tenant("t"));
    *request.version_mut() = http::Version::HTTP_2;
    send(&retried(eager(), &origin), request).await;
    for call in 1..=3 {
        let head = origin.request(call);
        assert_eq!(head.method, "PUT");
        assert_eq!(head.uri, "http://example.com/a?b");
        assert_eq!(head.version, http::Version::HTTP_2);
        assert_eq!(head.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.extensions.get(), Some(&Tenant("t")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_limit_refused_is_not_tried_again() {
    let origin = Origin::always(|| ok("").after(secs(60)));
    let policy = eager();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy.clone()))
        .layer(OriginLimitLayer::new(1).max_queue(0))
        .service(origin.clone());
    let first = tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
    crate::support::settle().await;
    let reply = get(&service, "/").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.extensions.get(), Some(&Refused::QueueFull));
    assert_eq!(policy.retries(), 0);
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_to_be_tried_again_holds_no_permit() {
    let origin = Origin::new(|_, head| match head.uri.path() {
        "/sick" => status(503).header("retry-after", "2"),
        _ => ok("well"),
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(eager().max_retries(1)))
        .layer(OriginLimitLayer::new(1).max_queue(0))
        .service(origin.clone());
    let sick = tokio::spawn(service.clone().oneshot(request("GET", "/sick", &[])));
    crate::support::settle().await;
    assert_eq!(get(&service, "/well").await.body, "well");
    assert_eq!(sick.await.unwrap().unwrap().extensions().get::<Attempts>().unwrap().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_made_for_a_further_attempt_and_not_before() {
    static MADE: AtomicUsize = AtomicUsize::new(0);

    /// Cannot be cloned, and counts the bodies that are made for repetitions.
    struct Counted;

    impl Default for Counted {
        fn default() -> Self {
            MADE.fetch_add(1, Ordering::Relaxed);
            Self
        }
    }

    impl http_body::Body for Counted {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(None)
        }

        fn is_end_stream(&self) -> bool {
            true
        }
    }

    for (failures, method, made) in [(0, "GET", 0), (2, "GET", 2), (2, "POST", 0)] {
        MADE.store(0, Ordering::Relaxed);
        let calls = Arc::new(AtomicUsize::new(0));
        let origin = service_fn(move |_: Request<Counted>| {
            let status = if calls.fetch_add(1, Ordering::Relaxed) < failures { 503 } else { 200 };
            let response = Response::builder().status(status).body(Full::<Bytes>::default());
            async { response }
        });
        let request = Request::builder().method(method).body(Counted).unwrap();
        RetryLayer::new(eager()).layer(origin).oneshot(request).await.unwrap();
        assert_eq!(MADE.load(Ordering::Relaxed), made, "{failures} {method}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_above_has_changed_is_in_each_attempt() {
    let origin = recovering(1, || status(503));
    let sign = |mut request: Request<Body>| {
        request.headers_mut().insert("authorization", http::HeaderValue::from_static("to the origin"));
        request
    };
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(FillLayer::new(store))
        .map_request(sign)
        .layer(RetryLayer::new(eager()))
        .service(origin.clone());
    assert_eq!(get(&service, "/").await.body, "fine");
    for call in 1..=2 {
        assert_eq!(origin.request(call).headers["authorization"], "to the origin");
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_is_one_for_towers_own_layer_too() {
    let origin = recovering(2, || status(503));
    let service = ServiceBuilder::new().retry(eager()).service(origin.clone());
    let reply = get(&service, "/").await;
    assert_eq!((&*reply.body, reply.extensions.get::<Attempts>().unwrap().count()), (&b"fine"[..], 3));
    let sent_once =
        send(&ServiceBuilder::new().retry(eager()).service(origin), request("POST", "/", &[])).await;
    assert_eq!(sent_once.extensions.get::<Attempts>(), None);
}

// Through the assembled stack, which copies less of a request than `Retry` alone does.

fn stacked(policy: RetryPolicy, origin: &Origin) -> ReadThrough<Origin, MemoryStore> {
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
            assert_eq!(head.extensions.len(), origin.request(1).extensions.len());
            assert_eq!(
                head.extensions.get().map(CacheRequest::key),
                origin.request(1).extensions.get().map(CacheRequest::key)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn through_the_stack_a_revalidation_that_is_tried_again_still_is_one() {
    let origin = Origin::new(|call, _| match call {
        1 => ok("hello").max_age(1).header("etag", "\"1\""),
        2 | 3 => status(503),
        _ => status(304).max_age(1).header("etag", "\"1\""),
    });
    let service = stacked(eager(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(2)).await;
    assert_eq!(get(&service, "/").await.body, "hello");
    assert_eq!(origin.calls(), 4);
    for call in 2..=4 {
        assert_eq!(origin.request(call).headers["if-none-match"], "\"1\"");
    }
}

#[tokio::test(start_paused = true)]
async fn through_the_stack_what_may_do_harm_or_is_no_failure_is_asked_once() {
    let policy = eager();
    for (method, answer) in [("POST", 503), ("GET", 404), ("GET", 500)] {
        let origin = Origin::always(move || status(answer));
        assert_eq!(send(&stacked(policy.clone(), &origin), request(method, "/", &[])).await.status, answer);
        assert_eq!(origin.calls(), 1, "{method} {answer}");
    }
    let origin = Origin::always(|| status(503));
    let reply = get(&stacked(policy.clone().max_retries(3), &origin), "/").await;
    assert_eq!((reply.status, origin.calls()), (StatusCode::SERVICE_UNAVAILABLE, 4));
    assert_eq!(policy.retries(), 3);
}

#[tokio::test(start_paused = true)]
async fn through_the_stack_a_request_that_waits_to_be_tried_again_holds_no_permit() {
    let origin = Origin::new(|call, head| match head.uri.path() {
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
async fn the_time_of_failed_attempts_and_waits_does_not_age_the_answer() {
    let origin = Origin::new(|call, _| match call {
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

#[test]
fn without_a_runtime_nothing_is_tried_again_and_nothing_panics() {
    let origin = Origin::always(|| status(503).header("retry-after", "1"));
    let policy = RetryPolicy::new();
    let reply = get(&retried(policy.clone(), &origin), "/").now_or_never().unwrap();
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((origin.calls(), policy.retries()), (1, 0));
    assert_eq!(reply.extensions.get::<Attempts>().unwrap().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_not_asked_for_again() {
    let origin = Origin::always(|| ok("hel").cut());
    let service = KeyLayer::default().layer(retried(eager(), &origin));
    let response = service.oneshot(request("GET", "/", &[])).await.unwrap();
    let reply = collect(response).await;
    assert!(reply.is_cut);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn services_are_waited_for_before_each_attempt() {
    let (service, mut origin) =
        tower_test::mock::spawn_with(|mock| RetryLayer::new(eager().max_retries(1)).layer(mock));
    let mut service: tower_test::mock::Spawn<Retry<tower_test::mock::Mock<Request<Body>, Response<Body>>>> =
        service;
    origin.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut answer = tokio_test::task::spawn(service.call(request("GET", "/", &[])));
    tokio_test::assert_pending!(answer.poll());
    let (_, respond) = origin.next_request().await.unwrap();
    respond.send_response(Response::builder().status(503).body(Body::default()).unwrap());
    tokio_test::assert_pending!(answer.poll());
    tokio::time::advance(ms(1)).await;
    // The origin is not ready: the retry waits, and is not called unready.
    tokio_test::assert_pending!(answer.poll());
    tokio_test::assert_pending!(origin.poll_request());
    origin.allow(1);
    tokio_test::assert_pending!(answer.poll());
    let (_, respond) = origin.next_request().await.unwrap();
    respond.send_response(Response::new(Body::default()));
    assert_eq!(tokio_test::assert_ready_ok!(answer.poll()).status(), StatusCode::OK);
}
