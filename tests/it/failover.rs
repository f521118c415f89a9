//! Several origins in an order: which one a request goes to, and what moves it on.

use http::{Request, StatusCode};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    AnsweredBy, Failover, FailoverBuilder, MemoryStore, OriginHealth, OriginLimitLayer, OriginState,
    ReadThrough, ReadThroughLayer, Refused, Rules,
};

use crate::support::{
    Body, Failure, Reply, ScriptedOrigin, ScriptedResponse, error, get, hangs, ms, ok, panics, request, secs,
    send, settle, status, try_send,
};

type Origins = Failover<ScriptedOrigin>;

fn build(builder: FailoverBuilder<ScriptedOrigin>) -> Origins {
    builder.build().unwrap()
}

/// Two origins that respond with these, to all requests.
fn two(
    first: impl Fn() -> ScriptedResponse + Send + Sync + 'static,
    second: impl Fn() -> ScriptedResponse + Send + Sync + 'static,
) -> ([ScriptedOrigin; 2], Origins) {
    let origins = [ScriptedOrigin::always(first), ScriptedOrigin::always(second)];
    let failover = build(Failover::builder(origins[0].clone(), [origins[1].clone()]));
    (origins, failover)
}

/// A request of a key of its own, whose failures count.
fn keyed(method: &str, number: usize) -> Request<Body> {
    let mut request = request(method, &format!("/{number}"), &[]);
    request.extensions_mut().insert(tower_readthrough::CacheKey::new(format!("key {number}")));
    request
}

fn answered_by(reply: &Reply) -> Option<usize> {
    reply.extensions.get::<AnsweredBy>().map(|origin| origin.index())
}

fn calls<const N: usize>(origins: &[ScriptedOrigin; N]) -> [usize; N] {
    origins.each_ref().map(ScriptedOrigin::calls)
}

#[tokio::test(start_paused = true)]
async fn the_first_origin_answers_while_it_can() {
    let (origins, failover) = two(|| ok("1"), || ok("2"));
    for _ in 0..10 {
        let reply = get(&failover, "/").await;
        assert_eq!((&*reply.body, answered_by(&reply)), (b"1".as_slice(), Some(0)));
    }
    assert_eq!(calls(&origins), [10, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_moves_one_request_on_and_no_other() {
    for fails in [error, || status(500), || status(503), || status(408)] {
        let origins = [
            ScriptedOrigin::new(move |call, _| if call == 1 { fails() } else { ok("1") }),
            ScriptedOrigin::always(|| ok("2")),
        ];
        let failover = build(Failover::builder(origins[0].clone(), [origins[1].clone()]));
        let moved = get(&failover, "/").await;
        assert_eq!((&*moved.body, answered_by(&moved)), (b"2".as_slice(), Some(1)));
        assert_eq!(get(&failover, "/").await.body, "1");
        assert_eq!(calls(&origins), [2, 1]);
    }
    // What is no failure is the response.
    for code in [404, 429, 304] {
        let (origins, failover) = two(move || status(code), || ok("2"));
        assert_eq!(get(&failover, "/").await.status, code);
        assert_eq!(calls(&origins), [1, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_failures_of_the_application_decide() {
    let origins = [ScriptedOrigin::always(|| status(404)), ScriptedOrigin::always(|| status(503))];
    let builder = Failover::builder(origins[0].clone(), [origins[1].clone()]);
    let failures = |status: StatusCode, _: &http::HeaderMap| status == 404;
    let failover = build(builder.failures(failures));
    assert_eq!(get(&failover, "/").await.status, 503);
    assert_eq!(calls(&origins), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_the_response_and_each_origin_was_asked_once() {
    let origins = [502, 503, 504].map(|code| ScriptedOrigin::always(move || status(code)));
    let [first, second, third] = origins.clone();
    let failover = build(Failover::builder(first, [second, third]));
    let reply = get(&failover, "/").await;
    assert_eq!((reply.status, answered_by(&reply)), (StatusCode::GATEWAY_TIMEOUT, Some(2)));
    assert_eq!(calls(&origins), [1, 1, 1]);

    let (origins, failover) = two(|| status(503), error);
    assert_eq!(try_send(&failover, request("GET", "/", &[])).await.unwrap_err(), Failure);
    assert_eq!(calls(&origins), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_sent_once() {
    let (origins, failover) = two(|| status(503), || ok("2"));
    for method in ["POST", "PATCH"] {
        assert_eq!(send(&failover, request(method, "/", &[])).await.status, 503, "{method}");
    }
    let with_body = request("PUT", "/", &[]).map(|_| Body::from("body"));
    assert_eq!(send(&failover, with_body).await.status, 503);
    assert_eq!(calls(&origins), [3, 0]);
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        assert_eq!(answered_by(&send(&failover, request(method, "/", &[])).await), Some(1), "{method}");
    }
    assert_eq!(calls(&origins), [7, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_the_same_at_each_origin() {
    let (origins, failover) = two(|| status(503), || ok("2"));
    let mut request = request("GET", "/a?b", &[("x-a", "1"), ("x-a", "2"), ("if-none-match", "\"client\"")]);
    request.extensions_mut().insert(7_u32);
    send(&failover, request).await;
    let [one, two] = origins.map(|origin| origin.request(1));
    assert_eq!((one.method, one.uri, one.headers), (two.method, two.uri, two.headers));
    assert_eq!([one.extensions.get::<u32>(), two.extensions.get()], [Some(&7), Some(&7)]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_not_sent_on() {
    let (origins, failover) = two(panics, || ok("2"));
    let call = tokio::spawn(failover.oneshot(request("GET", "/", &[])));
    assert!(call.await.unwrap_err().is_panic());
    assert_eq!(calls(&origins), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_limit_moves_a_request_on() {
    let origins = [ScriptedOrigin::always(hangs), ScriptedOrigin::always(|| ok("2"))];
    let builder = Failover::builder(origins[0].clone(), [origins[1].clone()]);
    let failover = build(builder.origin_limit(|index| match index {
        0 => OriginLimitLayer::new(1).max_queue(0),
        _ => OriginLimitLayer::new(8),
    }));
    let held = tokio::spawn(failover.clone().oneshot(request("GET", "/held", &[])));
    settle().await;
    let reply = get(&failover, "/").await;
    assert_eq!((&*reply.body, answered_by(&reply)), (b"2".as_slice(), Some(1)));
    assert_eq!(calls(&origins), [1, 1]);
    held.abort();
}

#[tokio::test(start_paused = true)]
async fn when_the_limits_of_all_refuse_that_is_no_answer_of_an_origin() {
    let origins = [0, 1].map(|_| ScriptedOrigin::always(hangs));
    let builder = Failover::builder(origins[0].clone(), [origins[1].clone()]);
    let failover = build(builder.origin_limit(|_| OriginLimitLayer::new(1).max_queue(0)));
    let held = [0, 1].map(|_| tokio::spawn(failover.clone().oneshot(request("GET", "/held", &[]))));
    settle().await;
    assert_eq!(calls(&origins), [1, 1], "the second one was refused by the first origin");
    let reply = get(&failover, "/").await;
    assert_eq!((reply.extensions.get(), answered_by(&reply)), (Some(&Refused::QueueFull), None));
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

/// An origin that responds in 5 ms, or fails during a time.
fn away(from: u64, until: u64, fails: fn() -> ScriptedResponse) -> ScriptedOrigin {
    let start = Instant::now();
    ScriptedOrigin::new(move |_, _| match start.elapsed() {
        now if (secs(from)..secs(until)).contains(&now) => fails(),
        _ => ok("x").max_age(60).after(ms(5)),
    })
}

/// Sends a request for a key of its own every 10 ms, and returns how many failed, and the calls of the first
/// origin in each second.
async fn load(failover: &Origins, first: &ScriptedOrigin, seconds: u64) -> (usize, Vec<usize>) {
    let (mut sent, mut by_second, mut number) = (Vec::new(), Vec::new(), 0);
    for _ in 0..seconds {
        let before = first.calls();
        for _ in 0..100 {
            number += 1;
            let failover = failover.clone();
            let sending = async move { try_send(&failover, keyed("GET", number)).await };
            sent.push(tokio::spawn(async move { sending.await.is_ok_and(|reply| reply.status == 200) }));
            tokio::time::sleep(ms(10)).await;
        }
        by_second.push(first.calls() - before);
    }
    let answered = futures_util::future::join_all(sent).await;
    (answered.into_iter().filter(|is_ok| !is_ok.as_ref().unwrap()).count(), by_second)
}

#[tokio::test(start_paused = true)]
async fn noise_of_one_percent_leaves_the_first_origin_its_load() {
    let first =
        ScriptedOrigin::new(|call, _| if call % 100 == 0 { status(503) } else { ok("1").after(ms(5)) });
    let second = ScriptedOrigin::always(|| ok("2").after(ms(5)));
    let failover = build(Failover::builder(first.clone(), [second.clone()]));
    let (failed, _) = load(&failover, &first, 60).await;
    assert_eq!((failed, first.calls(), second.calls()), (0, 6_000, 60));
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_away_fails_no_request_and_gets_its_load_back() {
    for fails in [|| status(503), error] {
        let (first, second) = (away(10, 70, fails), away(1_000, 1_000, hangs));
        let builder = Failover::builder(first.clone(), [second.clone()]);
        let failover = build(builder.origin_limit(|index| {
            let health = OriginHealth::builder().seed(7 + index as u64).build().unwrap();
            OriginLimitLayer::new(64).health(health)
        }));
        let (failed, by_second) = load(&failover, &first, 100).await;
        assert_eq!(failed, 0);
        // Before it was known, and one probe at a time.
        assert!(by_second[10..70].iter().sum::<usize>() <= 21 + 60, "{by_second:?}");
        assert!(by_second[15..70].iter().all(|calls| *calls <= 1), "{by_second:?}");
        // A probe is due after ten seconds at most.
        assert!(by_second[85..].iter().all(|calls| *calls == 100), "{by_second:?}");
        assert_eq!(failover.health().state(), OriginState::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_hangs_is_left_when_that_is_noticed() {
    // Each attempt has five seconds.
    let (first, second) = (away(10, 70, || error().after(secs(5))), away(1_000, 1_000, hangs));
    let builder = Failover::builder(first.clone(), [second.clone()]);
    let failover = build(builder.origin_limit(|index| {
        let health = OriginHealth::builder().stalled_after(secs(3)).seed(index as u64).build().unwrap();
        OriginLimitLayer::new(512).health(health)
    }));
    let (failed, by_second) = load(&failover, &first, 100).await;
    assert_eq!(failed, 0);
    assert!(by_second[10..13].iter().all(|calls| *calls == 100), "{by_second:?}");
    assert!(by_second[14..70].iter().all(|calls| *calls <= 1), "{by_second:?}");
    assert!(by_second[87..].iter().all(|calls| *calls == 100), "{by_second:?}");
}

#[tokio::test(start_paused = true)]
async fn when_both_are_down_each_is_probed_and_the_rest_goes_to_the_first() {
    let origins = [away(0, 60, || status(503)), away(0, 30, || status(502))];
    let builder = Failover::builder(origins[0].clone(), [origins[1].clone()]);
    let failover = build(builder.origin_limit(|index| {
        let health = OriginHealth::builder().seed(index as u64).build().unwrap();
        OriginLimitLayer::unlimited().health(health)
    }));
    for number in 0..30 {
        let reply = send(&failover, keyed("GET", number)).await;
        assert!([502, 503].contains(&reply.status.as_u16()));
    }
    assert_eq!(failover.health().state(), OriginState::Down);
    // Each of them is asked once by each request, and fails once.
    assert_eq!(calls(&origins), [30, 30]);
    // The second one comes back first.
    tokio::time::sleep(secs(45)).await;
    assert_eq!(answered_by(&send(&failover, keyed("GET", 100)).await), Some(1));
    assert_ne!(failover.health().state(), OriginState::Down);
    tokio::time::sleep(secs(30)).await;
    assert_eq!(answered_by(&send(&failover, keyed("GET", 101)).await), Some(0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_repeated_is_no_probe_while_others_can_be() {
    let origins = [away(0, 60, || status(503)), away(1_000, 1_000, hangs)];
    let failover = build(Failover::builder(origins[0].clone(), [origins[1].clone()]));
    for number in 0..30 {
        send(&failover, keyed("GET", number)).await;
    }
    let asked = origins[0].calls();
    tokio::time::sleep(secs(5)).await;
    for number in 0..10 {
        assert_eq!(answered_by(&send(&failover, keyed("POST", number)).await), Some(1));
    }
    assert_eq!(origins[0].calls(), asked);
    // Nothing else came for ten seconds.
    tokio::time::sleep(secs(60)).await;
    assert_eq!(answered_by(&send(&failover, keyed("POST", 100)).await), Some(0));
}

fn cached(failover: Origins) -> ReadThrough<Origins, MemoryStore> {
    ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
        .rules(Rules::new().stale_if_error_for(secs(3_600)))
        .outage(failover.health().clone())
        .build()
        .unwrap()
        .layer(failover)
}

/// An origin with a validator of its own, and 304 to it.
fn validating(tag: &'static str, body: &'static str, is_down: fn(Instant) -> bool) -> ScriptedOrigin {
    let start = Instant::now();
    ScriptedOrigin::new(move |_, head| {
        let is_same = head.headers.get("if-none-match").is_some_and(|value| value == tag);
        match is_down(start) {
            true => status(503),
            false if is_same => status(304).header("etag", tag).max_age(1),
            false => ok(body).header("etag", tag).max_age(1),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_stored_response_is_confirmed_by_the_origin_that_sent_it_and_by_no_other() {
    for are_replicas in [false, true] {
        let first = validating("\"a\"", "1", |start| (secs(5)..secs(8)).contains(&start.elapsed()));
        let second = validating("\"a\"", "2", |_| false);
        let builder = Failover::builder(first.clone(), [second.clone()]).replicas(are_replicas);
        let service = cached(build(builder));
        assert_eq!(get(&service, "/").await.body, "1");
        tokio::time::sleep(secs(2)).await;
        // Confirmed by the first.
        assert_eq!(get(&service, "/").await.body, "1");
        assert_eq!(first.last_request().headers["if-none-match"], "\"a\"");
        // The second gets no validator of the first, whose tag is the same by chance.
        tokio::time::sleep(ms(3_500)).await;
        let reply = get(&service, "/").await;
        assert_eq!(first.last_request().headers["if-none-match"], "\"a\"", "it was asked first");
        let sent = second.request(1).headers.contains_key("if-none-match");
        assert_eq!((sent, &*reply.body), (are_replicas, if are_replicas { "1" } else { "2" }.as_bytes()));
        if are_replicas {
            continue;
        }
        // What is stored now is of the second.
        tokio::time::sleep(secs(4)).await;
        assert_eq!(get(&service, "/").await.body, "1");
        assert!(!first.last_request().headers.contains_key("if-none-match"));
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let origin = || ScriptedOrigin::always(|| ok(""));
    let of = |others: usize| Failover::builder(origin(), (0..others).map(|_| origin()));
    let error = |builder: FailoverBuilder<ScriptedOrigin>| builder.build().unwrap_err().to_string();
    assert!(error(of(0)).contains("there is no other origin"), "{}", error(of(0)));
    assert!(error(of(64)).contains("up to 64"), "{}", error(of(64)));
    assert!(of(63).build().is_ok());
    let shared = OriginLimitLayer::new(8);
    assert!(error(of(1).origin_limit(move |_| shared.clone())).contains("share"));
    assert!(error(of(1).origin_limit(|_| OriginLimitLayer::new(0))).contains("max_attempts"));
}

/// Two origins, of which the first fails during a time. It is down, by requests whose failures count.
async fn first_is_down(until: u64) -> ([ScriptedOrigin; 2], Origins) {
    let origins = [away(0, until, || status(503)), away(1_000, 1_000, hangs)];
    let builder = Failover::builder(origins[0].clone(), [origins[1].clone()]);
    let failover = build(builder.origin_limit(|index| {
        let health = OriginHealth::builder().seed(index as u64).build().unwrap();
        OriginLimitLayer::new(64).health(health)
    }));
    for number in 0..30 {
        assert_eq!(send(&failover, keyed("GET", number)).await.status, 200);
    }
    (origins, failover)
}

#[tokio::test(start_paused = true)]
async fn what_does_not_count_is_never_a_probe() {
    let (origins, failover) = first_is_down(1_000).await;
    let asked = origins[0].calls();
    tokio::time::sleep(secs(15)).await;
    for method in ["POST", "GET"] {
        for _ in 0..20 {
            let reply = send(&failover, request(method, "/", &[])).await;
            assert_eq!((reply.status.as_u16(), answered_by(&reply)), (200, Some(1)), "{method}");
            tokio::time::sleep(secs(1)).await;
        }
    }
    assert_eq!(origins[0].calls(), asked);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_count_leaves_the_probes_to_what_does() {
    let (_, failover) = first_is_down(20).await;
    tokio::time::sleep(secs(20)).await;
    let back = Instant::now();
    for number in 0.. {
        match number % 20 {
            19 => send(&failover, keyed("GET", number)).await,
            _ => get(&failover, "/").await,
        };
        if failover.health().states()[0].1 != OriginState::Down {
            break;
        }
        tokio::time::sleep(ms(50)).await;
        assert!(back.elapsed() < secs(12), "{:?}", failover.health());
    }
}

#[tokio::test(start_paused = true)]
async fn with_each_origin_down_what_does_not_count_goes_to_the_first_and_is_no_probe() {
    let origins = [503, 502].map(|code| ScriptedOrigin::always(move || status(code)));
    let builder = Failover::builder(origins[0].clone(), [origins[1].clone()]);
    let failover = build(builder.origin_limit(|index| {
        let health = OriginHealth::builder().seed(index as u64).build().unwrap();
        OriginLimitLayer::new(64).health(health)
    }));
    for number in 0..30 {
        send(&failover, keyed("GET", number)).await;
    }
    assert_eq!(failover.health().state(), OriginState::Down);
    tokio::time::sleep(secs(15)).await;
    let before = calls(&origins);
    for _ in 0..5 {
        send(&failover, request("POST", "/", &[])).await;
    }
    assert_eq!(calls(&origins), [before[0] + 5, before[1]]);
    // The probe is still there for what counts: the second origin would not be asked first else.
    send(&failover, keyed("POST", 100)).await;
    assert_eq!(calls(&origins), [before[0] + 6, before[1]]);
}

#[tokio::test(start_paused = true)]
async fn attempts_of_a_fetch_are_at_most_one_for_each_retry_and_each_other_origin() {
    for (count, retries, most) in [(2, 2, 4), (3, 2, 5), (2, 1, 3), (3, 0, 3)] {
        let origins: Vec<_> = (0..count).map(|_| ScriptedOrigin::always(|| status(503))).collect();
        let failover = build(Failover::builder(origins[0].clone(), origins[1..].iter().cloned()));
        let layer = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
            .outage(failover.health().clone())
            .retry(tower_readthrough::RetryPolicy::new().max_retries(retries))
            .build()
            .unwrap();
        assert_eq!(get(&layer.layer(failover), "/").await.status, 503);
        let attempts: usize = origins.iter().map(ScriptedOrigin::calls).sum();
        assert!((count..=most).contains(&attempts), "{count} origins, {retries} retries: {attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_the_origin_that_is_well_by_then() {
    let origins = [
        ScriptedOrigin::new(|call, _| if call == 1 { status(503) } else { ok("1") }),
        ScriptedOrigin::always(|| status(503)),
    ];
    let failover = build(Failover::builder(origins[0].clone(), [origins[1].clone()]));
    let layer = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
        .outage(failover.health().clone())
        .retry(tower_readthrough::RetryPolicy::new())
        .build()
        .unwrap();
    assert_eq!(get(&layer.layer(failover), "/").await.body, "1");
    assert_eq!(calls(&origins), [2, 1]);
}
