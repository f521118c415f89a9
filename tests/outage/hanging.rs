//! An origin that is slow, or hangs.

use std::time::Duration;

use tower_readthrough::OriginState;

use crate::{
    load::{Load, percent},
    origin::{Model, Way},
    row, run,
    world::Setup,
};

/// Every answer takes two seconds.
async fn check_slow(until: f64) -> String {
    let setup = Setup { permits: None, ttl: 10.0, stale_after: Some(0.05), ..Setup::default() };
    let mut world = setup.build(200, |_, _| Way::After(2.0)).await;
    world.send(&Load::new(200, 200.0, 0.0), until).await;
    let got = world.end(30.0).await;
    assert_eq!((got.total().failed, world.states().outages()), (0, 0));
    let p99 = got.stale_wait(99.0);
    assert!(p99 <= Duration::from_millis(60), "{p99:?}");
    let waited = got.stale_waits.iter().filter(|wait| !wait.is_zero()).count() as u64;
    let waited = percent(waited, got.requests);
    assert!(waited <= 12.0, "{waited} % waited");
    let calls = world.origin.counts().calls as f64 / until;
    assert!((10.0..=20.0).contains(&calls), "{calls} calls a second");
    format!("p99 of stale {p99:?}, waited at all {waited:.1} %, {calls:.1} calls/s")
}

#[test]
fn no_client_waits_long_for_an_origin_that_is_slow() {
    run(async { check_slow(40.0).await });
}

#[test]
#[ignore = "of full size"]
fn a_slow_origin_of_full_size() {
    row("2 s origin, stale_after 50 ms, 200 keys, 200 requests/s", &run(check_slow(300.0)));
}

/// From 30 s on nothing is answered.
async fn check_hang(rate: f64, until: f64) -> String {
    let mode = |t: f64, _| if t >= 30.0 { Way::Hang } else { Way::Work };
    let model = Model { workers: 100, ..Model::default() };
    let setup = Setup { model, ttl: 10.0, stale_after: Some(0.05), ..Setup::default() };
    let mut world = setup.build(1_000, mode).await;
    world.send(&Load::new(1_000, rate, 0.0), until).await;
    let states = world.states();
    // No task and no slot is left after the deadline.
    let got = world.end(61.0).await;
    assert_eq!((states.outages(), states.last(), got.total().failed), (1, OriginState::Down, 0));
    let p99 = got.stale_wait(99.0);
    assert!(p99 <= Duration::from_millis(60), "{p99:?}");
    let waited = got.stale_waits.iter().filter(|wait| !wait.is_zero()).count() as u64;
    let (stale, calls) = (got.stale_waits.len() as u64, world.origin.counts().between(60.0, until));
    let calls = calls as f64 / (until - 60.0);
    assert!(calls <= 1.0, "{calls} calls a second");
    format!("{calls:.2} calls/s, 0 left, stale that waited {:.1} %, p99 {p99:?}", percent(waited, stale))
}

#[test]
fn an_origin_that_hangs_is_down_and_nothing_is_left_of_it() {
    run(async { check_hang(100.0, 100.0).await });
}

#[test]
#[ignore = "of full size"]
fn a_hang_of_full_size() {
    row("everything hangs from 30 s on, stale_after 50 ms", &run(check_hang(200.0, 300.0)));
}

/// Half of the keys hang, and others are not stored.
async fn check_region(until: f64, deadline: f64) -> String {
    let mode = |t: f64, key: i64| if t >= 30.0 && key % 2 == 1 { Way::Hang } else { Way::Work };
    let model = Model { workers: 100, ..Model::default() };
    let setup = Setup {
        model,
        ttl: 10.0,
        stale_after: Some(0.05),
        wait_at_most: Some(5.0),
        fetch_deadline: Some(deadline),
        ..Setup::default()
    };
    let mut world = setup.build(400, mode).await;
    world.send(&Load::new(400, 200.0, 40.0), until).await;
    let got = world.end(deadline + 1.0).await;
    let (misses, served) = got.by_class[0];
    let failed = percent(misses - served, misses);
    assert!(failed <= 2.0, "{failed} % of what is not stored failed");
    format!("misses failed {failed:.1} %, stale {:.1} %, 0 left", got.stale_share(0.0, until))
}

#[test]
fn keys_that_hang_leave_permits_to_the_others() {
    run(async { check_region(75.0, 60.0).await });
}

#[test]
#[ignore = "of full size"]
fn keys_that_hang_of_full_size() {
    for deadline in [60.0, 10.0] {
        let figures = run(check_region(300.0, deadline));
        row(&format!("half of the keys hang, limit 64, fetch_deadline {deadline} s"), &figures);
    }
}

/// A hang from 30 s on, with requests for what is not stored. Returns when its end was seen, and how many of 1,500
/// requests failed in the 30 s after it.
async fn after_a_hang(phase: u64, until: f64, fails_fast: bool) -> (f64, u64) {
    let end = until + phase as f64 * 2.7;
    let mode = move |t: f64, _| if (30.0..end).contains(&t) { Way::Hang } else { Way::Work };
    let setup = Setup {
        ttl: 30.0,
        fetch_deadline: Some(30.0),
        wait_at_most: Some(10.0),
        stale_after: Some(0.5),
        fails_fast,
        is_stored: false,
        seed: 31 + phase,
        ..Setup::default()
    };
    let mut world = setup.build(500, mode).await;
    world.send(&Load::new(500, 50.0, 50.0), end + 40.0).await;
    let states = world.states();
    let got = world.end(61.0).await;
    (states.seen_after(end).unwrap_or(99.0), got.sum(end.floor() + 1.0, end.floor() + 31.0).failed)
}

#[test]
fn the_end_of_a_hang_is_seen_soon_and_few_fail_after_it() {
    let (seen, failed) = run(after_a_hang(0, 70.0, false));
    assert!(seen <= 6.0, "{seen} s");
    assert!(failed <= 200, "{failed} of 1,500");
}

#[test]
#[ignore = "of full size"]
fn the_end_of_a_hang_of_full_size() {
    for (name, fails_fast, most) in [("goes on", false, 110), ("fail_fast", true, 450)] {
        let runs: Vec<_> = (0..12).map(|phase| run(after_a_hang(phase, 150.0, fails_fast))).collect();
        let seen = runs.iter().map(|(seen, _)| seen).sum::<f64>() / 12.0;
        let worst = runs.iter().map(|(seen, _)| *seen).fold(0.0, f64::max);
        let failed = runs.iter().map(|(_, failed)| failed).sum::<u64>() / 12;
        assert!(failed <= most, "{name}: {failed}");
        let figures = format!("seen after {seen:.1} s (worst {worst:.1}), {failed} of 1,500 failed after it");
        row(&format!("hang of 120 s and more, {name} (12 phases)"), &figures);
    }
}
