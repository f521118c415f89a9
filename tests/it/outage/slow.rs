//! Three limits: for how long a client waits that could have something stale, for how long any client waits,
//! and how long a fetch takes.

use std::sync::{Arc, Mutex};

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::time::{Instant, advance, timeout};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    BackgroundEvent, CoalesceLayer, MemoryStore, Observer, OriginLimitLayer, ReadThrough, ReadThroughLayer,
    RefreshResult, Refused, Rules, Stale,
};

use crate::support::{
    Body, Reply, ScriptedOrigin, get, get_request, get_with, hangs, ms, ok, response, secs, settle,
    small_store, status,
};

type Service = ReadThrough<ScriptedOrigin, MemoryStore>;

fn slow(origin: &ScriptedOrigin, change: impl FnOnce(CoalesceLayer) -> CoalesceLayer) -> Service {
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new().default_ttl(secs(1)).stale_if_error_for(secs(86_400)))
        .coalesce(change)
        .build()
        .unwrap();
    layer.layer(origin.clone())
}

/// A response is stored and stale.
async fn stale(origin: &ScriptedOrigin, change: impl FnOnce(CoalesceLayer) -> CoalesceLayer) -> Service {
    let service = slow(origin, change);
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
    advance(secs(2)).await;
    service
}

fn why(reply: &Reply) -> Option<Stale> {
    reply.cache_status.and_then(|status| status.stale_reason())
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_for_a_slow_origin_no_longer_than_it_has_to() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("old"),
        _ => ok("new").max_age(60).after(secs(2)),
    });
    let service = stale(&origin, |layer| layer.stale_after(ms(50))).await;
    let begun = Instant::now();
    let reply = get(&service, "/").await;
    assert_eq!((&reply.body[..], begun.elapsed()), (&b"old"[..], ms(50)));
    assert_eq!(reply.cache(), "fwd=stale; detail=origin-slow");
    // The flight remembers that it is slow.
    for _ in 0..100 {
        let sent = Instant::now();
        let reply = get(&service, "/").await;
        assert_eq!((why(&reply), sent.elapsed()), (Some(Stale::OriginSlow), ms(0)));
    }
    tokio::time::sleep_until(begun + ms(2_001)).await;
    settle().await;
    let reply = get(&service, "/").await;
    assert!(reply.is_hit());
    assert_eq!((&reply.body[..], origin.calls()), (&b"new"[..], 2), "what arrives late is stored");
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_together_get_the_stale_response_together() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("old") } else { hangs() });
    let service = stale(&origin, |layer| layer.stale_after(ms(50))).await;
    let begun = Instant::now();
    let early = (0..50).map(|_| get(&service, "/"));
    let late = async {
        tokio::time::sleep(ms(30)).await;
        get(&service, "/").await
    };
    let (early, late) = tokio::join!(futures_util::future::join_all(early), late);
    assert_eq!(begun.elapsed(), ms(50), "counted from the beginning of the fetch");
    assert!(early.iter().chain([&late]).all(|reply| why(reply) == Some(Stale::OriginSlow)));
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_with_nothing_to_fall_back_on_waits_as_long_as_ever() {
    let origin = ScriptedOrigin::always(|| ok("late").after(secs(300)));
    let service = slow(&origin, |layer| layer.stale_after(ms(50)));
    assert_eq!(get(&service, "/").await.body, "late");
}

#[tokio::test(start_paused = true)]
async fn a_purge_while_a_client_waits_lets_it_wait_for_the_response() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("old"),
        _ => ok("new").after(secs(2)),
    });
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new().default_ttl(secs(1)).stale_if_error_for(secs(86_400)))
        .coalesce(|layer| layer.stale_after(ms(50)))
        .build()
        .unwrap();
    let (service, purge) = (layer.layer(origin.clone()), layer.purge());
    get(&service, "/").await;
    advance(secs(2)).await;
    let (leader, follower, ()) = tokio::join!(get(&service, "/"), get(&service, "/"), async {
        tokio::time::sleep(ms(10)).await;
        purge.everything();
    });
    for reply in [leader, follower] {
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"new"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_hangs_holds_nothing_after_the_deadline() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("old") } else { hangs() });
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new().default_ttl(secs(1)).stale_if_error_for(secs(86_400)))
        .coalesce(|layer| layer.stale_after(ms(50)).fetch_deadline(secs(10)))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    advance(secs(2)).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::OriginSlow));
    assert_eq!((origin.under_way(), layer.coalesce_stats().fetches), (1, 1));
    tokio::time::sleep(secs(10)).await;
    settle().await;
    assert_eq!((origin.under_way(), layer.coalesce_stats().fetches), (0, 0));
    let sent = Instant::now();
    let reply = get(&service, "/").await;
    assert_eq!((why(&reply), sent.elapsed()), (Some(Stale::OriginFailed), ms(0)), "its pause has begun");
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_all_callers_of_a_fetch_get_504() {
    let origin = ScriptedOrigin::always(hangs);
    let service = slow(&origin, |layer| layer.fetch_deadline(secs(10)));
    let begun = Instant::now();
    let late = async {
        tokio::time::sleep(secs(9)).await;
        get(&service, "/").await
    };
    let (first, second, late) = tokio::join!(get(&service, "/"), get(&service, "/"), late);
    assert_eq!(begun.elapsed(), secs(10));
    for reply in [first, second, late] {
        assert_eq!(reply.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(
            reply.cache_status.and_then(|status| status.refused_reason()),
            Some(Refused::FetchTimeout)
        );
    }
    assert_eq!((origin.calls(), origin.under_way()), (1, 0));
    // The slot is free.
    let (next, ()) = tokio::join!(get(&service, "/"), async {
        settle().await;
        assert_eq!((origin.calls(), origin.under_way()), (2, 1));
    });
    assert_eq!(next.status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_ends_at_the_deadline_and_one_that_goes_on_does_not() {
    let dripping = || {
        let (sender, body) = Body::fed();
        tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(secs(9)).await;
                sender.send("x");
            }
        });
        response(&[("cache-control", "max-age=60")], body)
    };
    let origin = ScriptedOrigin::always(dripping);
    let service = slow(&origin, |layer| layer.fetch_deadline(secs(10)));
    assert_eq!(get(&service, "/").await.body, "xxxxxxxxxx");
    let stuck = || {
        let (sender, body) = Body::fed();
        sender.send("x");
        // Never ends.
        std::mem::forget(sender);
        response(&[("cache-control", "max-age=60")], body)
    };
    let origin = ScriptedOrigin::always(stuck);
    let service = slow(&origin, |layer| layer.fetch_deadline(secs(10)));
    let begun = Instant::now();
    let response = service.clone().oneshot(get_request("/")).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(begun.elapsed(), secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_deadline_is_a_failure() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("old") } else { status(503).after(ms(20)) });
    let service = stale(&origin, |layer| layer.stale_after(ms(50))).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::IfError));
    // One that comes after the client has left lets the key rest as well.
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("old") } else { status(503).after(ms(80)) });
    let service = stale(&origin, |layer| layer.stale_after(ms(50))).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::OriginSlow));
    tokio::time::sleep(ms(40)).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::OriginFailed));
    assert_eq!(origin.calls(), 2);
}

#[test]
fn limits_that_come_too_late_are_refused() {
    type Change = fn(CoalesceLayer) -> CoalesceLayer;
    let refused: [(Change, &str); 6] = [
        (|layer| layer.stale_after(secs(1)).wait_at_most(secs(1)), "stale_after"),
        (|layer| layer.stale_after(secs(1)).fetch_deadline(secs(1)), "stale_after"),
        (|layer| layer.stale_after(secs(30)), "stale_after"),
        (|layer| layer.wait_at_most(secs(11)).fetch_deadline(secs(10)), "wait_at_most"),
        (|layer| layer.stale_after(secs(0)), "stale_after"),
        (|layer| layer.fetch_deadline(secs(0)), "fetch_deadline"),
    ];
    for (change, setting) in refused {
        let error = ReadThroughLayer::builder(small_store()).coalesce(change).build().unwrap_err();
        assert!(error.to_string().contains(setting), "{error}");
    }
    let fits: Change = |layer| layer.stale_after(ms(50)).wait_at_most(secs(5)).fetch_deadline(secs(5));
    assert!(ReadThroughLayer::builder(small_store()).coalesce(fits).build().is_ok());
}

/// Later responses do not come, and what came first is for one client.
fn private_then_hangs() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, _| match call {
        1 => ok("x").header("cache-control", "private"),
        _ => hangs(),
    })
}

fn refused(reply: &Reply) -> Option<Refused> {
    reply.cache_status.and_then(|status| status.refused_reason())
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_not_shared_has_the_same_limits() {
    type Change = fn(CoalesceLayer) -> CoalesceLayer;
    let limits: [(Change, u64, Refused); 3] = [
        (|layer| layer.wait_at_most(secs(5)).fetch_deadline(secs(10)), 5, Refused::WaitTimeout),
        (|layer| layer.wait_at_most(secs(5)), 5, Refused::WaitTimeout),
        (|layer| layer.fetch_deadline(secs(10)), 10, Refused::FetchTimeout),
    ];
    for (change, after, why) in limits {
        let origin = private_then_hangs();
        let service = slow(&origin, change);
        assert_eq!(get(&service, "/").await.status, StatusCode::OK);
        let begun = Instant::now();
        let reply = timeout(secs(60), get(&service, "/")).await.expect("it is given up");
        assert_eq!((reply.status, refused(&reply)), (StatusCode::GATEWAY_TIMEOUT, Some(why)));
        assert_eq!((begun.elapsed(), origin.calls()), (secs(after), 2));
        settle().await;
        assert_eq!(origin.under_way(), 0, "its place at the origin is free");
    }
    // Without them it takes as long as it takes.
    let service = slow(&private_then_hangs(), |layer| layer);
    get(&service, "/").await;
    assert!(timeout(secs(86_400), get(&service, "/")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_for_which_there_was_no_place_among_the_shared_ones_has_the_same_deadline() {
    let origin = ScriptedOrigin::always(hangs);
    let service = slow(&origin, |layer| layer.max_flights(1).fetch_deadline(secs(10)));
    let held = tokio::spawn(service.clone().oneshot(get_request("/held")));
    settle().await;
    let begun = Instant::now();
    let reply = timeout(secs(60), get(&service, "/")).await.expect("it is given up");
    assert_eq!((refused(&reply), begun.elapsed()), (Some(Refused::FetchTimeout), secs(10)));
    assert_eq!(held.await.unwrap().unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((origin.calls(), origin.under_way()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_refuses_what_is_stored_gets_it_at_the_deadline_and_its_key_rests() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("old") } else { hangs() });
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new().default_ttl(secs(1)).stale_if_error_for(secs(86_400)))
        .lookup(|layer| layer.request_directives(true))
        .coalesce(|layer| layer.fetch_deadline(secs(10)))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    advance(secs(2)).await;
    // Its response is for this client alone.
    let own = get_with(&service, "/", &[("cache-control", "no-store")]);
    let reply = timeout(secs(60), own).await.expect("it is given up");
    assert_eq!((&reply.body[..], why(&reply)), (&b"old"[..], Some(Stale::IfError)));
    let sent = Instant::now();
    let reply = get(&service, "/").await;
    assert_eq!((why(&reply), sent.elapsed()), (Some(Stale::OriginFailed), ms(0)));
    assert_eq!((origin.calls(), origin.under_way()), (2, 0));
}

/// How refreshes ended.
#[derive(Default)]
struct Refreshes(Mutex<Vec<RefreshResult>>);

impl Observer for Refreshes {
    fn background(&self, event: BackgroundEvent<'_>) {
        if let BackgroundEvent::RefreshEnded(_, result) = event {
            self.0.lock().unwrap().push(result);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_takes_longer_than_clients_wait_succeeds() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("old"),
        _ => ok("new").max_age(60).after(secs(3)),
    });
    let refreshes = Arc::new(Refreshes::default());
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new().default_ttl(secs(1)).stale_while_revalidate_for(secs(60)))
        .coalesce(|layer| layer.wait_at_most(secs(2)))
        .observer(Arc::clone(&refreshes))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    advance(secs(2)).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::WhileRevalidating));
    tokio::time::sleep(secs(4)).await;
    settle().await;
    assert_eq!(*refreshes.0.lock().unwrap(), [RefreshResult::Responded(StatusCode::OK)]);
    assert_eq!((&get(&service, "/").await.body[..], origin.calls()), (&b"new"[..], 2));
}

/// Nothing is stored, and the response is for the client alone.
const FOR_ONE_CLIENT: [&[(&str, &str)]; 4] = [
    &[("cache-control", "no-store")],
    &[("range", "bytes=0-1,3-4")],
    &[("range", "bytes=0-1"), ("if-range", "\"1\"")],
    &[("range", "bytes=0-1"), ("if-none-match", "\"1\"")],
];

fn follows(origin: &ScriptedOrigin, change: impl FnOnce(CoalesceLayer) -> CoalesceLayer) -> Service {
    let layer = ReadThroughLayer::builder(small_store())
        .lookup(|layer| layer.request_directives(true))
        .coalesce(change)
        .origin_limit(OriginLimitLayer::new(1).max_queue_wait(secs(600)))
        .build()
        .unwrap();
    layer.layer(origin.clone())
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_response_is_for_its_client_alone_has_the_same_limits() {
    type Change = fn(CoalesceLayer) -> CoalesceLayer;
    let limits: [(Change, u64, Refused); 3] = [
        (|layer| layer.wait_at_most(secs(5)).fetch_deadline(secs(10)), 5, Refused::WaitTimeout),
        (|layer| layer.wait_at_most(secs(5)), 5, Refused::WaitTimeout),
        (|layer| layer.fetch_deadline(secs(10)), 10, Refused::FetchTimeout),
    ];
    for (change, after, why) in limits {
        for fields in FOR_ONE_CLIENT {
            let origin = ScriptedOrigin::always(hangs);
            let service = follows(&origin, change);
            let begun = Instant::now();
            let reply = timeout(secs(60), get_with(&service, "/", fields)).await.expect("it is given up");
            assert_eq!(
                (reply.status, refused(&reply)),
                (StatusCode::GATEWAY_TIMEOUT, Some(why)),
                "{fields:?}"
            );
            assert_eq!((begun.elapsed(), origin.calls()), (secs(after), 1), "{fields:?}");
            settle().await;
            assert_eq!(origin.under_way(), 0, "{fields:?}");
        }
    }
    for fields in FOR_ONE_CLIENT {
        let service = follows(&ScriptedOrigin::always(|| ok("x").after(secs(300))), |layer| layer);
        assert_eq!(
            get_with(&service, "/", fields).await.status,
            StatusCode::OK,
            "without limits it takes its time"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_response_is_for_its_client_alone_waits_in_the_queue_for_half_of_its_time() {
    for fields in FOR_ONE_CLIENT {
        let origin = ScriptedOrigin::always(|| ok("x").after(secs(9)));
        let service = follows(&origin, |layer| layer.fetch_deadline(secs(10)));
        let held = tokio::spawn(service.clone().oneshot(get_request("/held")));
        settle().await;
        let begun = Instant::now();
        let reply = timeout(secs(60), get_with(&service, "/", fields)).await.expect("it leaves the queue");
        assert_eq!((refused(&reply), begun.elapsed()), (Some(Refused::QueueTimeout), secs(5)), "{fields:?}");
        assert_eq!(held.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!(origin.calls(), 1);
    }
}
