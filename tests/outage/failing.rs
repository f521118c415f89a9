//! An origin that fails in part: how seldom it is down, and which clients get a response.

use tower_readthrough::OriginState;

use crate::{
    load::{Load, percent},
    origin::{Model, Way},
    row, run,
    world::Setup,
};

const LARGE: Model =
    Model { workers: 1_000, cost: 0.01, cold: 1.0, dies_at: usize::MAX, seed: 11, timeout: None };

/// Nothing is stored at first, and keys live for a minute.
async fn check_false_downs(
    mode: impl Fn(f64, i64) -> Way + Send + Sync + 'static,
    rate: f64,
    until: f64,
    not_up: std::ops::RangeInclusive<f64>,
) -> String {
    let setup = Setup { model: LARGE, ttl: 60.0, is_stored: false, ..Setup::default() };
    let mut world = setup.build(1_000, mode).await;
    world.send(&Load::new(1_000, rate, 0.0), until).await;
    let states = world.states();
    world.end(60.0).await;
    assert!(not_up.contains(&states.not_up()), "{} % of the time not up", states.not_up());
    format!("left Up {} times, not up {:.1} % of the time", states.outages(), states.not_up())
}

const fn one_in_a_hundred(_: f64, key: i64) -> Way {
    if key % 100 == 7 { Way::Status(500) } else { Way::Work }
}

const fn hottest(_: f64, key: i64) -> Way {
    if key == 0 { Way::Status(500) } else { Way::Work }
}

#[test]
fn a_few_keys_that_fail_are_no_outage() {
    run(async { check_false_downs(one_in_a_hundred, 300.0, 40.0, 0.0..=0.0).await });
}

#[test]
fn the_hottest_key_failing_is_no_outage() {
    run(async { check_false_downs(hottest, 300.0, 40.0, 0.0..=0.0).await });
}

#[test]
fn a_third_of_failures_is_no_outage_and_two_thirds_are_one() {
    run(async { check_false_downs(|_, _| Way::Fail(0.3), 100.0, 60.0, 0.0..=5.0).await });
    run(async { check_false_downs(|_, _| Way::Fail(0.66), 100.0, 40.0, 60.0..=100.0).await });
}

#[test]
#[ignore = "of full size"]
fn false_downs_of_full_size() {
    for (rate, until) in [(100.0, 1_800.0), (1_000.0, 300.0)] {
        let name = |what: &str| format!("{what}, {rate} requests/s, {until} s");
        let figures = run(check_false_downs(one_in_a_hundred, rate, until, 0.0..=0.0));
        row(&name("1 % of the keys fail, not stored"), &figures);
        row(&name("the hottest key fails"), &run(check_false_downs(hottest, rate, until, 0.0..=0.0)));
        row(&name("1 % noise"), &run(check_false_downs(|_, _| Way::Fail(0.01), rate, until, 0.0..=0.0)));
        row(&name("30 % errors"), &run(check_false_downs(|_, _| Way::Fail(0.3), rate, until, 0.0..=10.0)));
        row(&name("60 % errors"), &run(check_false_downs(|_, _| Way::Fail(0.6), rate, until, 60.0..=100.0)));
    }
}

/// Stored keys and others in equal parts, and a bad time from 30 s on.
async fn in_bad_times(bad: Way, length: f64, after: f64, fails_fast: bool) -> (u64, u64, u64) {
    let (begin, end) = (30.0, 30.0 + length);
    let mode = move |t: f64, _| if (begin..end).contains(&t) { bad } else { Way::Work };
    let setup = Setup {
        ttl: 30.0,
        fetch_deadline: Some(30.0),
        wait_at_most: Some(10.0),
        stale_after: Some(0.5),
        fails_fast,
        is_stored: false,
        ..Setup::default()
    };
    let mut world = setup.build(500, mode).await;
    world.send(&Load::new(500, 50.0, 50.0), end + after).await;
    let states = world.states();
    let got = world.end(60.0).await;
    assert_eq!(states.last(), OriginState::Up);
    let (during, after) = (got.sum(begin, end), got.sum(end, f64::MAX));
    (during.fresh, during.failed, after.failed)
}

#[test]
fn most_failures_leave_the_successes_to_what_has_nothing_stored() {
    let (fresh, failed, after) = run(in_bad_times(Way::Fail(0.6), 40.0, 20.0, false));
    // 2,000 requests for what is not stored, of which two of five succeed.
    assert!((760..=1_300).contains(&fresh), "{fresh} fresh, {failed} failed");
    assert!(after <= 5, "{after} failed after it");
    let (fast, ..) = run(in_bad_times(Way::Fail(0.6), 40.0, 20.0, true));
    assert!(fast < fresh * 9 / 10, "{fast} with fail_fast");
}

#[test]
fn a_blip_harms_none_that_comes_after_it() {
    let (_, failed, after) = run(in_bad_times(Way::Refuse, 3.0, 20.0, false));
    assert!((100..=250).contains(&failed), "{failed}");
    assert_eq!(after, 0);
    let (_, _, after) = run(in_bad_times(Way::Refuse, 3.0, 20.0, true));
    assert!(after >= 30, "{after} with fail_fast");
}

#[test]
#[ignore = "of full size"]
fn what_has_nothing_stored_while_down_of_full_size() {
    for (name, bad, length) in [
        ("60 % errors for 120 s", Way::Fail(0.6), 120.0),
        ("90 % errors for 120 s", Way::Fail(0.9), 120.0),
        ("refused for 3 s", Way::Refuse, 3.0),
        ("refused for 120 s", Way::Refuse, 120.0),
    ] {
        let (fresh, failed, after) = run(in_bad_times(bad, length, 50.0, false));
        let (fast_fresh, fast_failed, fast_after) = run(in_bad_times(bad, length, 50.0, true));
        let goes_on = format!("{fresh} of {} answered, {after} failed after it", fresh + failed);
        let fast =
            format!("{fast_fresh} of {} answered, {fast_after} failed after it", fast_fresh + fast_failed);
        row(&format!("nothing stored, {name}"), &format!("goes on: {goes_on}; fail_fast: {fast}"));
    }
}

/// Nothing is stored. Returns attempts and requests, and the share that was served, in percent.
async fn retried(mode: Way, rate: f64, until: f64) -> (f64, f64, usize) {
    let setup =
        Setup { model: LARGE, permits: Some(64), retries: true, is_stored: false, ..Setup::default() };
    let mut world = setup.build(1, move |_, _| mode).await;
    world.send(&Load::new(1, 0.0, rate), until).await;
    let got = world.end(60.0).await;
    let calls = world.origin.counts();
    let served = percent(got.total().fresh, got.requests);
    (calls.calls as f64 / got.requests as f64, served, calls.most_inside)
}

#[test]
fn nothing_stored_over_an_origin_that_fails_is_no_storm() {
    for mode in [Way::Refuse, Way::Status(503)] {
        let (attempts, served, _) = run(retried(mode, 1_000.0, 3.0));
        assert!((1.0..=1.1).contains(&attempts), "{attempts} attempts for each request");
        assert_eq!(served, 0.0);
    }
}

#[test]
fn retries_make_up_for_failures_as_far_as_their_budget_goes() {
    let (attempts, served, _) = run(retried(Way::Fail(0.3), 300.0, 8.0));
    // A fifth of 2,400 requests, and a reserve of 100: `TpsBudget` forgets after five to ten seconds that it was spent,
    // so that it is there once or twice.
    assert!((1.1..=1.29).contains(&attempts), "{attempts}");
    assert!((78.0..=90.0).contains(&served), "{served}");
    let (_, served, _) = run(retried(Way::Fail(0.05), 300.0, 6.0));
    assert!(served >= 99.0, "{served}");
}

#[test]
#[ignore = "of full size"]
fn retries_of_full_size() {
    for (name, mode) in [
        ("refused", Way::Refuse),
        ("503", Way::Status(503)),
        ("5 % errors", Way::Fail(0.05)),
        ("30 % errors", Way::Fail(0.3)),
    ] {
        let (attempts, served, inside) = run(retried(mode, 1_000.0, 60.0));
        let figures =
            format!("{attempts:.4} attempts for each request, served {served:.1} %, at most {inside} in it");
        row(&format!("nothing stored, 1,000 requests/s, 60 s, {name}"), &figures);
    }
}

/// An origin that lets 50 a second through.
async fn check_429(keys: usize, rate: f64, until: f64) -> String {
    let model = Model { workers: 100, ..Model::default() };
    let setup = Setup { model, ttl: 30.0, revalidate_for: 1e6, ..Setup::default() };
    let mut world = setup.build(keys, |_, _| Way::Rate(50.0)).await;
    world.send(&Load::new(keys, rate, 0.0), until).await;
    let got = world.end(60.0).await;
    let counts = world.origin.counts();
    let good = (counts.calls - counts.too_many) as f64 / until;
    let too_many = counts.too_many as f64 / until;
    assert!((36.0..=51.0).contains(&good), "{good} good ones a second");
    assert!(too_many <= 8.0, "{too_many} 429s a second");
    assert_eq!((got.total().failed, world.states().outages()), (0, 0));
    format!("{good:.1} good/s, {too_many:.1} 429s/s, stale {:.1} %", got.stale_share(0.0, until))
}

#[test]
fn an_origin_that_sends_429_gets_what_it_takes() {
    run(async { check_429(3_000, 300.0, 60.0).await });
}

#[test]
#[ignore = "of full size"]
fn an_origin_that_sends_429_of_full_size() {
    row("429: 50/s let through, 10,000 keys, 1,000 requests/s", &run(check_429(10_000, 1_000.0, 300.0)));
}
