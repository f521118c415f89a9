//! What attempts say about the origin, and what its state means for attempts.

use super::*;
use tower_readthrough::{CacheKey, OriginHealth, OriginState, ReadThrough, ReadThroughLayer};

/// One of many keys: each failure of another key counts.
fn keyed(number: usize) -> Request<crate::support::Body> {
    let mut request = request("GET", &format!("/{number}"), &[]);
    request.extensions_mut().insert(CacheKey::new(format!("key {number}")));
    request
}

fn watched(layer: OriginLimitLayer, origin: &ScriptedOrigin) -> (OriginHealth, Service) {
    let health = OriginHealth::new();
    (health.clone(), layer.health(health).layer(origin.clone()))
}

/// As many failures of different keys as bring an origin down at once.
const ENOUGH: usize = 20;

/// What becomes of the origin after so many responses of this kind to different keys.
async fn state_after(answer: impl Fn() -> ScriptedResponse + Send + Sync + 'static) -> OriginState {
    let (health, service) = watched(OriginLimitLayer::unlimited(), &ScriptedOrigin::always(answer));
    for number in 0..ENOUGH {
        _ = tokio::spawn(service.clone().oneshot(keyed(number))).await;
    }
    health.state()
}

#[tokio::test(start_paused = true)]
async fn failures_count_by_the_policy() {
    for code in [408, 500, 502, 503, 504] {
        assert_eq!(state_after(move || status(code)).await, OriginState::Down, "{code}");
    }
    for code in [200, 304, 400, 404, 501] {
        assert_eq!(state_after(move || status(code)).await, OriginState::Up, "{code}");
    }
    assert_eq!(state_after(error).await, OriginState::Down);

    let origin = ScriptedOrigin::always(|| status(404));
    let layer =
        OriginLimitLayer::unlimited().failures(|status: StatusCode, _: &http::HeaderMap| status == 404);
    let (health, service) = watched(layer, &origin);
    for number in 0..ENOUGH {
        assert_eq!(send(&service, keyed(number)).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(health.state(), OriginState::Down);
}

#[tokio::test(start_paused = true)]
async fn a_panic_counts_as_a_failure() {
    assert_eq!(state_after(panics).await, OriginState::Down);
}

#[tokio::test(start_paused = true)]
async fn a_429_and_a_refusal_of_another_layer_do_not_count() {
    assert_eq!(state_after(|| status(429)).await, OriginState::Up);
    assert_eq!(state_after(|| status(503).extension(Refused::QueueFull)).await, OriginState::Up);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_says_nothing() {
    for layer in [OriginLimitLayer::unlimited(), OriginLimitLayer::new(8)] {
        let origin = ScriptedOrigin::always(hangs);
        let (health, service) = watched(layer, &origin);
        for number in 0..ENOUGH {
            let caller = tokio::spawn(service.clone().oneshot(keyed(number)));
            settle().await;
            caller.abort();
            assert!(caller.await.unwrap_err().is_cancelled());
        }
        assert_eq!(origin.calls(), ENOUGH);
        assert_eq!(health.state(), OriginState::Up);
    }
}

#[tokio::test(start_paused = true)]
async fn own_refusals_say_nothing() {
    let origin = ScriptedOrigin::always(hangs);
    let (health, service) = watched(OriginLimitLayer::new(1).max_queue(0), &origin);
    let _holder = open(&service, "/");
    settle().await;
    for number in 0..ENOUGH {
        assert_eq!(refused(&send(&service, keyed(number)).await), Some(Refused::QueueFull));
    }
    assert_eq!(health.state(), OriginState::Up);
}

#[tokio::test(start_paused = true)]
async fn without_a_key_an_attempt_says_nothing() {
    let (health, service) = watched(OriginLimitLayer::unlimited(), &ScriptedOrigin::always(|| status(503)));
    for _ in 0..ENOUGH {
        assert_eq!(get(&service, "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(health.state(), OriginState::Up);
}

#[tokio::test(start_paused = true)]
async fn what_is_exempt_is_reported_all_the_same() {
    let layer = OriginLimitLayer::new(1).exempt(|_| true);
    let (health, service) = watched(layer, &ScriptedOrigin::always(|| status(503)));
    for number in 0..ENOUGH {
        assert_eq!(send(&service, keyed(number)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(health.state(), OriginState::Down);
}

#[tokio::test(start_paused = true)]
async fn each_layer_has_a_health_of_its_own_and_its_clones_share_it() {
    let (layer, other) = (OriginLimitLayer::unlimited(), OriginLimitLayer::unlimited());
    let service = layer.clone().layer(ScriptedOrigin::always(|| status(503)));
    for number in 0..ENOUGH {
        send(&service, keyed(number)).await;
    }
    assert_eq!(layer.origin_health().state(), OriginState::Down);
    assert_eq!(other.origin_health().state(), OriginState::Up);
}

/// An origin that is down, and hangs from then on.
async fn down(layer: OriginLimitLayer) -> (ScriptedOrigin, OriginHealth, Service) {
    let origin = ScriptedOrigin::new(|call, _| if call <= ENOUGH { status(503) } else { hangs() });
    let (health, service) = watched(layer, &origin);
    for number in 0..ENOUGH {
        send(&service, keyed(number)).await;
    }
    assert_eq!(health.state(), OriginState::Down);
    (origin, health, service)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_at_an_origin_that_is_down_is_given_up_after_four_to_five_seconds() {
    let (origin, _, service) = down(OriginLimitLayer::new(64)).await;
    let begun = Instant::now();
    let reply = send(&service, keyed(100)).await;
    assert_eq!((reply.status, refused(&reply)), (StatusCode::GATEWAY_TIMEOUT, Some(Refused::AttemptTimeout)));
    assert!((secs(4)..=secs(5)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(reply.header("retry-after"), None);
    assert_eq!((origin.calls(), origin.under_way()), (ENOUGH + 1, 0));
    // One that began while it was up has all the time.
    let (_, _, service) = {
        let origin = ScriptedOrigin::always(|| ok("x").after(secs(9)));
        let (health, service) = watched(OriginLimitLayer::new(64), &origin);
        (origin, health, service)
    };
    assert_eq!(send(&service, keyed(0)).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nothing_is_given_up() {
    let (origin, _, service) = down(OriginLimitLayer::unlimited()).await;
    let waiting = tokio::spawn(service.clone().oneshot(keyed(100)));
    tokio::time::sleep(secs(60)).await;
    assert!(!waiting.is_finished());
    assert_eq!(origin.under_way(), 1);
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn few_go_on_at_an_origin_that_is_down_and_the_others_queue() {
    let (origin, _, service) = down(OriginLimitLayer::new(64)).await;
    let clients: Vec<_> =
        (0..20).map(|number| tokio::spawn(service.clone().oneshot(keyed(100 + number)))).collect();
    settle().await;
    assert_eq!(origin.under_way(), 8);
    for client in clients {
        let response = client.await.unwrap().unwrap();
        let why = *response.extensions().get::<Refused>().unwrap();
        assert!([Refused::AttemptTimeout, Refused::QueueTimeout].contains(&why), "{why}");
    }
    assert_eq!(origin.most_under_way(), 8);
}

#[tokio::test(start_paused = true)]
async fn fail_fast_refuses_what_has_nothing_stored_until_the_next_probe() {
    for (least, most, wait) in [(secs(1), secs(1), "1"), (ms(8_200), ms(8_200), "9")] {
        let origin = ScriptedOrigin::always(|| status(503));
        let health =
            OriginHealth::builder().fail_fast(true).probe_every(least, most).seed(1).build().unwrap();
        let service = OriginLimitLayer::unlimited().health(health.clone()).layer(origin.clone());
        for number in 0..ENOUGH {
            send(&service, keyed(number)).await;
        }
        let reply = send(&service, keyed(100)).await;
        assert_eq!(
            (reply.status, refused(&reply)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(Refused::OriginDown))
        );
        let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        // One half of the wait is random.
        assert!((1..=wait.parse().unwrap()).contains(&seconds), "{seconds}");
        assert!(seconds * 2_000 >= u64::try_from(least.as_millis()).unwrap(), "{seconds}");
        assert_eq!(origin.calls(), ENOUGH);
        // What has no key goes on.
        assert_eq!(refused(&get(&service, "/").await), None);
    }
}

/// A store over a limit, without anything between them that serves what is stale.
#[tokio::test(start_paused = true)]
async fn what_has_something_stale_is_refused_while_the_origin_is_down_but_for_one_probe() {
    for layer in [OriginLimitLayer::unlimited(), OriginLimitLayer::new(64)] {
        let origin = ScriptedOrigin::new(|_, head| match head.uri.path() {
            "/stale" => ok("x").max_age(1).after(ms(10)),
            _ => status(503),
        });
        let (health, limited) = watched(layer, &origin);
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let service = StoreLayer::new(store).layer(limited.clone());
        assert_eq!(get(&service, "/stale").await.body, "x");
        tokio::time::sleep(secs(2)).await;
        for number in 0..ENOUGH {
            send(&limited, keyed(number)).await;
        }
        assert_eq!(health.state(), OriginState::Down);
        let calls = origin.calls();
        let reply = get(&service, "/stale").await;
        assert_eq!(
            (reply.status, refused(&reply)),
            (StatusCode::SERVICE_UNAVAILABLE, Some(Refused::OriginDown))
        );
        assert_eq!((origin.calls(), reply.header("retry-after")), (calls, Some("1")));
        // The probe is due.
        tokio::time::sleep(secs(1)).await;
        let (probe, other) = tokio::join!(get(&service, "/stale"), get(&service, "/stale"));
        assert_eq!((probe.body, refused(&other)), ("x".into(), Some(Refused::OriginDown)));
        assert_eq!(health.state(), OriginState::Recovering);
    }
}

fn stack(
    health: &OriginHealth,
    limit: OriginLimitLayer,
    origin: &ScriptedOrigin,
) -> ReadThrough<ScriptedOrigin, MemoryStore> {
    ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
        .outage(health.clone())
        .origin_limit(limit)
        .coalesce(|layer| layer.fetch_deadline(secs(10)))
        .build()
        .unwrap()
        .layer(origin.clone())
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_given_up_at_its_deadline_counts_as_a_failure() {
    for limit in [OriginLimitLayer::unlimited(), OriginLimitLayer::new(64)] {
        // One answer is enough for an origin that does not hang.
        let health = OriginHealth::builder().stalled_after(secs(60)).build().unwrap();
        let origin = ScriptedOrigin::always(hangs);
        let service = stack(&health, limit, &origin);
        let clients: Vec<_> = (0..ENOUGH)
            .map(|number| {
                let service = service.clone();
                tokio::spawn(async move { get(&service, &format!("/{number}")).await })
            })
            .collect();
        tokio::time::sleep(ms(9_990)).await;
        assert_eq!((health.state(), origin.under_way()), (OriginState::Up, ENOUGH));
        for client in clients {
            assert_eq!(refused(&client.await.unwrap()), Some(Refused::FetchTimeout));
        }
        assert_eq!((health.state(), origin.under_way()), (OriginState::Down, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_the_deadline_is_the_longest_wait_for_a_permit() {
    let (health, origin) = (OriginHealth::new(), ScriptedOrigin::always(hangs));
    for (max_wait, waited) in [(secs(60), secs(5)), (secs(3), secs(3))] {
        let limit = OriginLimitLayer::new(1).max_queue_wait(max_wait).health(OriginHealth::new());
        let health = limit.origin_health().clone();
        let service = stack(&health, limit, &origin);
        let holder = tokio::spawn(service.clone().oneshot(request("POST", "/", &[])));
        settle().await;
        let came = Instant::now();
        let reply = get(&service, "/x").await;
        assert_eq!(
            (refused(&reply), came.elapsed().as_secs()),
            (Some(Refused::QueueTimeout), waited.as_secs())
        );
        holder.abort();
    }
    assert_eq!((origin.calls(), health.state()), (2, OriginState::Up));
}

#[tokio::test(start_paused = true)]
async fn the_stack_reports_to_the_health_that_it_asks() {
    // Given to the stack, to the limit, or to none of both.
    let given = OriginHealth::new();
    let by_limit = OriginLimitLayer::new(64);
    let ways = [
        (Some(given.clone()), OriginLimitLayer::unlimited(), given),
        (None, by_limit.clone(), by_limit.origin_health().clone()),
    ];
    for (outage, limit, health) in ways {
        let builder =
            ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).origin_limit(limit);
        let builder = match outage {
            Some(health) => builder.outage(health),
            None => builder,
        };
        let failures = |status: StatusCode, _: &http::HeaderMap| status == 404;
        let service =
            builder.failures(failures).build().unwrap().layer(ScriptedOrigin::always(|| status(404)));
        for number in 0..ENOUGH {
            get(&service, &format!("/{number}")).await;
        }
        assert_eq!(health.state(), OriginState::Down);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_key_count_if_that_is_asked_for_also_in_a_stack_without_a_limit() {
    for counts in [false, true] {
        let health = OriginHealth::builder().count_without_key(counts).build().unwrap();
        let builder =
            ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).outage(health.clone());
        let service = builder.build().unwrap().layer(ScriptedOrigin::always(|| status(503)));
        for _ in 0..ENOUGH {
            send(&service, request("POST", "/", &[])).await;
        }
        assert_eq!(health.state() == OriginState::Down, counts);
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let build = |limit: OriginLimitLayer, outage: Option<OriginHealth>| {
        let builder =
            ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).origin_limit(limit);
        let built = match outage {
            Some(health) => builder.outage(health).build(),
            None => builder.build(),
        };
        built.map_err(|error| error.to_string()).err()
    };
    let unlimited = OriginLimitLayer::unlimited;
    for (setting, limit) in [
        ("max_queue", unlimited().max_queue(1)),
        ("max_queue_wait", unlimited().max_queue_wait(secs(1))),
        ("max_read_pause", unlimited().max_read_pause(secs(1))),
        ("retry_after", unlimited().retry_after(secs(1))),
        ("priority", unlimited().priority(|_| 0)),
        ("exempt", unlimited().exempt(|_| true)),
    ] {
        let error = build(limit, None).expect(setting);
        assert!(error.contains(&format!("`{setting}` has no effect: there is no limit")), "{error}");
    }
    let health = OriginHealth::new();
    let limit = || OriginLimitLayer::new(2).health(health.clone());
    assert_eq!(build(limit(), Some(health.clone())), None);
    assert_eq!(build(limit(), None), None);
    let error = build(limit(), Some(OriginHealth::new())).expect("two healths");
    assert!(error.contains("`outage` has no effect"), "{error}");
    let error = build(limit().max_queue(1), None).expect("two limits");
    assert!(error.contains("another size"), "{error}");
}
