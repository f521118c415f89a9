//! An origin that was away comes back: cold, warm, and after hours.

use tower_readthrough::OriginState;

use crate::{
    load::Load,
    origin::{Model, Way},
    row, run,
    world::{FOR_EVER, Setup, World},
};

fn refuses_until(end: f64) -> impl Fn(f64, i64) -> Way + Send + Sync + 'static {
    move |t, _| if t < end { Way::Refuse } else { Way::Work }
}

#[test]
fn a_hot_key_of_an_origin_that_refuses_is_fetched_a_few_times_in_ten_seconds() {
    run(async {
        let mut world = Setup::default().build(1, refuses_until(f64::MAX)).await;
        world.send(&Load::new(1, 1_000.0, 0.0), 10.0).await;
        let (got, calls) = (world.end(5.0).await, world.origin.counts().calls);
        assert_eq!(got.total().stale, got.requests);
        assert!((4..=12).contains(&calls), "{calls}");
        row("hot stale key, refused, 10,000 requests in 10 s", &format!("{calls} attempts, all stale"));
    });
}

/// An outage of this length, and a minute after it.
async fn hours(outage: f64) -> World {
    let setup = Setup { ttl: 300.0, ..Setup::default() };
    let mut world = setup.build(1_000, refuses_until(outage)).await;
    world.send(&Load::new(1_000, 100.0, 0.0), outage + 60.0).await;
    world
}

async fn check_hours(outage: f64) -> String {
    let world = hours(outage).await;
    let (got, counts, states) = (world.end(60.0).await, world.origin.counts(), world.states());
    assert_eq!(got.total().failed, 0);
    let attempts = counts.between(0.0, outage);
    // Those until the origin is down, and a probe each 7.5 s on average, as long as the schedule goes.
    let most = 20 + 10 + (outage / 5.0) as u64 + 5;
    assert!(attempts <= most, "{attempts} attempts in {outage} s");
    let most_in_a_second =
        counts.calls_by_second[..outage as usize].iter().max().copied().unwrap_or_default();
    assert!(most_in_a_second <= 30, "{most_in_a_second}");
    assert_eq!((states.outages(), states.last()), (1, OriginState::Up));
    let fresh_after = got.fresh_after(outage, 99.0);
    assert!(fresh_after.is_some_and(|seconds| seconds <= 15), "{fresh_after:?}");
    format!(
        "{attempts} attempts, at most {most_in_a_second} a second, failed 0, 99 % fresh after {fresh_after:?} s"
    )
}

#[test]
fn an_outage_of_minutes_fails_no_client_and_is_over_when_it_is_over() {
    run(async { check_hours(400.0).await });
}

#[test]
#[ignore = "of full size"]
fn an_outage_of_six_hours() {
    row("6 h, 1,000 keys, 100 requests/s", &run(check_hours(6.0 * 3_600.0)));
}

/// The origin dies if too much is in it, and is cold at first.
async fn cold(dies_at: usize, permits: usize, keys: usize, rate: f64, until: f64) -> World {
    let model = Model { cold: 0.2, dies_at, ..Model::default() };
    let setup = Setup {
        model,
        permits: Some(permits),
        places: 512,
        revalidate_for: FOR_EVER,
        fetch_deadline: Some(10.0),
        ..Setup::default()
    };
    let mut world = setup.build(keys, refuses_until(30.0)).await;
    world.send(&Load::new(keys, rate, 0.0), until).await;
    world
}

async fn check_cold(
    dies_at: usize,
    permits: usize,
    keys: usize,
    rate: f64,
    until: f64,
    most_stale: f64,
) -> String {
    let world = cold(dies_at, permits, keys, rate, until).await;
    let (got, counts, states) = (world.end(60.0).await, world.origin.counts(), world.states());
    assert_eq!(counts.deaths, 0, "the origin dies again");
    assert!(counts.most_inside <= dies_at);
    assert_eq!((states.outages(), got.total().failed), (1, 0));
    let stale = got.stale_share(30.0, until);
    assert!(stale <= most_stale, "{stale} % are stale");
    format!(
        "deaths 0, stale {stale:.1} %, at most {} in it, 80 / 95 % fresh after {:?} / {:?} s",
        counts.most_inside,
        got.fresh_after(30.0, 80.0),
        got.fresh_after(30.0, 95.0)
    )
}

#[test]
fn a_cold_origin_is_not_killed_when_it_comes_back() {
    run(async { check_cold(40, 64, 2_000, 300.0, 80.0, 55.0).await });
}

#[test]
fn a_limit_far_above_what_the_origin_bears_does_not_kill_it_either() {
    run(async { check_cold(100, 1_024, 2_000, 300.0, 80.0, 55.0).await });
}

#[test]
#[ignore = "of full size"]
fn a_cold_origin_of_full_size() {
    for (dies_at, permits) in [(40, 64), (100, 1_024)] {
        let figures = run(check_cold(dies_at, permits, 20_000, 2_000.0, 240.0, 40.0));
        row(&format!("cold origin that dies at {dies_at}, limit {permits}, 20,000 stale keys"), &figures);
    }
}

#[test]
#[ignore = "of full size"]
fn a_cold_origin_with_a_million_stale_keys() {
    // It never gets all that is for it, so that the cap rises to the limit, which the origin must bear.
    let figures = run(check_cold(100, 64, 1_000_000, 2_000.0, 240.0, 80.0));
    row("cold origin that dies at 100, limit 64, 1,000,000 stale keys, 2,000 requests/s", &figures);
}

/// A warm origin comes back to many stale keys.
async fn check_storm(keys: usize, rate: f64, least_calls: u64) -> String {
    let model = Model { workers: 100, dies_at: 1_000, ..Model::default() };
    let setup = Setup { model, revalidate_for: FOR_EVER, fetch_deadline: Some(10.0), ..Setup::default() };
    let mut world = setup.build(keys, refuses_until(20.0)).await;
    world.send(&Load::new(keys, rate, 0.0), 40.0).await;
    let (got, counts, states) = (world.end(30.0).await, world.origin.counts(), world.states());
    assert_eq!((counts.deaths, states.outages(), got.total().failed), (0, 1, 0));
    let seen = 20.0 + states.seen_after(20.0).expect("the end of the outage is seen");
    assert!(seen <= 31.0, "{seen}");
    let at = |seconds: f64| counts.between(seen.ceil() + seconds, seen.ceil() + seconds + 1.0);
    assert!(at(3.0) >= least_calls, "{} calls", at(3.0));
    // One in the origin for each permit, and one for the probe.
    assert!(counts.most_inside <= 65, "{}", counts.most_inside);
    format!(
        "calls a second after the recovery {:?}, stale 30..40 s {:.1} %, at most {} in it",
        [0.0, 1.0, 2.0, 3.0, 4.0].map(at),
        got.stale_share(30.0, 40.0),
        counts.most_inside
    )
}

#[test]
fn a_warm_origin_has_its_load_back_after_a_few_seconds() {
    run(async { check_storm(6_000, 600.0, 150).await });
}

#[test]
#[ignore = "of full size"]
fn a_storm_of_a_million_stale_keys() {
    row("warm origin, 1,000,000 stale keys, 5,000 requests/s", &run(check_storm(1_000_000, 5_000.0, 850)));
}

/// An outage of a minute, and noise after it.
async fn check_noise(name: &str, after: Way, bad_key: bool, until: f64) -> String {
    let mode = move |t: f64, key: i64| match t {
        t if t < 60.0 => Way::Refuse,
        _ if bad_key && key % 100 == 7 => Way::Status(500),
        _ => after,
    };
    let model = Model { workers: 100, ..Model::default() };
    let setup = Setup { model, ttl: 20.0, revalidate_for: FOR_EVER, ..Setup::default() };
    let mut world = setup.build(1_000, mode).await;
    world.send(&Load::new(1_000, 300.0, 0.0), until).await;
    let (got, states) = (world.end(60.0).await, world.states());
    let up_after = states.up_after(60.0);
    assert_eq!(states.outages(), 1, "{name}");
    assert!(up_after.is_some_and(|seconds| seconds <= 30.0), "{name}: {up_after:?}");
    let stale = got.stale_share(70.0, until);
    assert!(stale <= 22.0, "{name}: {stale} % are stale");
    format!("up after {up_after:?} s, stale {stale:.1} %")
}

#[test]
fn noise_does_not_hold_a_recovery_back() {
    run(async { check_noise("1 % noise", Way::Fail(0.01), false, 95.0).await });
}

#[test]
#[ignore = "of full size"]
fn noise_after_an_outage_of_full_size() {
    for (name, after, bad_key) in [
        ("no noise", Way::Work, false),
        ("1 % noise", Way::Fail(0.01), false),
        ("5 % noise", Way::Fail(0.05), false),
        ("1 % of the keys fail", Way::Work, true),
    ] {
        row(&format!("refused for 60 s, then {name}"), &run(check_noise(name, after, bad_key, 360.0)));
    }
}

/// Five seconds of each.
async fn check_flapping(until: f64) -> String {
    let mode = |t: f64, _| if ((t / 5.0) as u64).is_multiple_of(2) { Way::Work } else { Way::Refuse };
    let model = Model { workers: 100, ..Model::default() };
    let setup = Setup { model, ttl: 20.0, ..Setup::default() };
    let mut world = setup.build(1_000, mode).await;
    world.send(&Load::new(1_000, 100.0, 0.0), until).await;
    let (got, counts) = (world.end(60.0).await, world.origin.counts());
    assert_eq!(got.total().failed, 0);
    let stale = got.stale_share(0.0, until);
    assert!(stale <= 60.0, "{stale} % are stale");
    let calls = counts.calls as f64 / until;
    assert!((2.0..=20.0).contains(&calls), "{calls} calls a second");
    format!("stale {stale:.1} %, {calls:.1} calls/s, failed 0, left Up {} times", world.states().outages())
}

#[test]
fn an_origin_that_flaps_is_used_while_it_works() {
    run(async { check_flapping(120.0).await });
}

#[test]
#[ignore = "of full size"]
fn an_origin_that_flaps_of_full_size() {
    row("flapping, 5 s good, 5 s refused, 100 requests/s", &run(check_flapping(600.0)));
}
