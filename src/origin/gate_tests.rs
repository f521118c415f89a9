use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use futures_util::FutureExt;

use super::*;
use AttemptOutcome::{Failure, Success};

#[path = "gate_setup_tests.rs"]
mod setup;

use self::setup::{admitted, free, go_down, miss, queued};

const SECOND: Duration = Duration::from_secs(1);

/// A gate with so many permits, and places in the queue.
fn gate(permits: usize, places: usize) -> Arc<Gate> {
    let health = OriginHealth::builder().seed(1).build().unwrap();
    assert!(health.limit(permits, places));
    health.gate(&http::Request::new(()).into_parts().0)
}

fn stale(key: u64) -> Entrance {
    Entrance { has_stale: true, ..miss(key) }
}

async fn wait_for_probe() {
    tokio::time::advance(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_permit_wakes_the_next_that_waits() {
    let gate = gate(1, 10);
    let first = admitted(&gate, miss(1));
    let mut second = queued(&gate, miss(2));
    let mut third = queued(&gate, miss(3));
    assert!((&mut second).now_or_never().is_none());
    let permit = first.finish(Success, Instant::now());
    assert!((&mut second).now_or_never().is_none(), "the body is not over");
    drop(permit);
    let second = (&mut second).now_or_never().unwrap().unwrap();
    assert!((&mut third).now_or_never().is_none());
    drop(second);
    assert!(third.now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn whatever_is_dropped_gives_everything_back() {
    let gate = gate(1, 10);
    // An attempt, a permit, a place in the queue, and a permit that was granted and never taken.
    drop(admitted(&gate, miss(1)));
    drop(admitted(&gate, miss(1)).finish(Success, Instant::now()));
    let first = admitted(&gate, miss(1));
    drop(queued(&gate, miss(2)));
    let granted = queued(&gate, miss(3));
    let next = queued(&gate, miss(4));
    drop(first);
    drop(granted);
    assert!(next.now_or_never().unwrap().is_ok());
    let panics = catch_unwind(AssertUnwindSafe(|| {
        let _attempt = admitted(&gate, miss(5));
        panic!("the service panics");
    }));
    assert!(panics.is_err());
    assert_eq!(free(&gate), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pass_is_free_when_it_is_dropped() {
    let gate = gate(64, 10);
    go_down(&gate);
    assert!(matches!(gate.ask_with_stale(Instant::now()), Answer::Serve(HeldBack::Down)));
    wait_for_probe().await;
    for _ in 0..3 {
        let Answer::Fetch(Some(pass)) = gate.ask_with_stale(Instant::now()) else { panic!() };
        assert_eq!(pass.reason(), HeldBack::Down);
        assert!(matches!(gate.ask_with_stale(Instant::now()), Answer::Serve(HeldBack::Down)));
        let other = Arc::clone(&pass);
        drop(pass);
        assert!(matches!(gate.ask_with_stale(Instant::now()), Answer::Serve(HeldBack::Down)));
        drop(other);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_lets_one_attempt_in() {
    let gate = gate(64, 10);
    go_down(&gate);
    wait_for_probe().await;
    let Answer::Fetch(Some(pass)) = gate.ask_with_stale(Instant::now()) else { panic!() };
    let with_pass = |pass| Entrance { pass: Some(pass), ..stale(1) };
    let probe = admitted(&gate, with_pass(Arc::clone(&pass)));
    let again = gate.enter(with_pass(Arc::clone(&pass)), Instant::now());
    assert!(matches!(again, Entered::Refused(Refusal::HeldBack(HeldBack::Down))), "{again:?}");
    // The pass has been used: nothing comes back with it.
    drop(pass);
    assert!(matches!(gate.ask_with_stale(Instant::now()), Answer::Serve(HeldBack::Down)));
    drop(probe.finish(Success, Instant::now()));
    assert_eq!(gate.state(Instant::now()), OriginState::Recovering);
    let Answer::Fetch(Some(pass)) = gate.ask_with_stale(Instant::now()) else { panic!() };
    assert_eq!(pass.reason(), HeldBack::Recovering);
    drop(admitted(&gate, with_pass(pass)));
    assert_eq!(free(&gate), 8);
}

#[tokio::test(start_paused = true)]
async fn a_pass_of_another_origin_is_none() {
    let (one, other) = (gate(64, 10), gate(64, 10));
    [&one, &other].into_iter().for_each(go_down);
    wait_for_probe().await;
    let Answer::Fetch(Some(pass)) = one.ask_with_stale(Instant::now()) else { panic!() };
    assert!(pass.is_for(&one) && !pass.is_for(&other));
    // The other one has a probe of its own that is due.
    let _probe = admitted(&other, Entrance { pass: Some(Arc::clone(&pass)), ..stale(1) });
    let _probe = admitted(&one, Entrance { pass: Some(pass), ..stale(1) });
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_makes_room_for_the_next() {
    let gate = gate(64, 10);
    go_down(&gate);
    for _ in 0..3 {
        wait_for_probe().await;
        let Answer::Fetch(Some(pass)) = gate.ask_with_stale(Instant::now()) else { panic!() };
        drop(admitted(&gate, Entrance { pass: Some(pass), ..stale(1) }));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_knows_when_to_be_given_up() {
    let gate = gate(64, 10);
    assert_eq!(admitted(&gate, miss(1)).give_up_at(), None);
    go_down(&gate);
    let times: Vec<_> = (0..200)
        .map(|key| admitted(&gate, miss(key)).give_up_at().unwrap().saturating_duration_since(Instant::now()))
        .collect();
    assert!(times.iter().all(|time| (4 * SECOND..=5 * SECOND).contains(time)), "{times:?}");
    let mean = times.iter().sum::<Duration>() / 200;
    assert!(
        mean.abs_diff(4 * SECOND + SECOND / 2) < SECOND / 10,
        "those that begin together do not end together"
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_no_attempt_ends_an_outage() {
    let gate = gate(64, 10);
    go_down(&gate);
    gate.probed(false, Instant::now());
    assert_eq!(gate.state(Instant::now()), OriginState::Down);
    gate.probed(true, Instant::now());
    assert_eq!(gate.state(Instant::now()), OriginState::Recovering);
}

#[tokio::test(start_paused = true)]
async fn who_is_displaced_is_told() {
    let gate = gate(1, 1);
    let _held = admitted(&gate, miss(1));
    let worse = queued(&gate, Entrance { class: 2, ..miss(2) });
    let refused = gate.enter(Entrance { class: 2, ..miss(3) }, Instant::now());
    assert!(matches!(refused, Entered::Refused(Refusal::QueueFull)));
    let _better = queued(&gate, Entrance { class: 1, ..miss(3) });
    assert_eq!(worse.now_or_never().unwrap().unwrap_err(), Refusal::QueueFull);
}

#[tokio::test(start_paused = true)]
async fn a_place_takes_the_best_class_among_its_callers() {
    let gate = gate(1, 10);
    let held = admitted(&gate, miss(1));
    let place = Place::new(5);
    assert!(!place.may_leave());
    let shared = queued(&gate, Entrance { place: Some(Arc::clone(&place)), class: 5, ..miss(2) });
    let single = queued(&gate, Entrance { class: 3, ..miss(3) });
    assert!(place.may_leave());
    place.raise(2);
    drop(held);
    let attempt = shared.now_or_never().unwrap().unwrap();
    assert!(!place.may_leave());
    // A class of before it was queued counts as well, and a lower one never.
    place.raise(7);
    let again = queued(&gate, Entrance { place: Some(Arc::clone(&place)), class: 6, ..miss(2) });
    assert!(place.may_leave());
    drop(attempt);
    assert!(again.now_or_never().unwrap().is_ok());
    assert!(single.now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_place_is_left_with_the_queue() {
    let gate = gate(1, 1);
    let _held = admitted(&gate, miss(1));
    let place = Place::new(5);
    let entrance = || Entrance { place: Some(Arc::clone(&place)), class: 5, ..miss(2) };
    drop(queued(&gate, entrance()));
    assert!(!place.may_leave());
    let displaced = queued(&gate, entrance());
    let _better = queued(&gate, Entrance { class: 0, ..miss(3) });
    assert!(!place.may_leave());
    assert!(displaced.now_or_never().unwrap().is_err());
    place.raise(0);
    drop(gate);
    place.raise(0);
}

#[tokio::test(start_paused = true)]
async fn an_open_origin_is_not_asked_under_the_lock() {
    let gate = gate(1, 1);
    gate.while_locked(|| {
        assert!(matches!(gate.ask_with_stale(Instant::now()), Answer::Fetch(None)));
        assert!(matches!(gate.invite((true, true), Instant::now()), Answer::Fetch(None)));
        assert!(gate.is_up());
    });
}

#[test]
fn an_attempt_at_an_origin_that_is_up_allocates_nothing() {
    let unlimited = OriginHealth::new().gate(&http::Request::new(()).into_parts().0);
    for gate in [unlimited, gate(4, 4)] {
        let attempt = |key| drop(admitted(&gate, miss(key)).finish(Success, Instant::now()));
        attempt(1);
        let counted = allocation_counter::measure(|| (2..50).for_each(attempt));
        assert_eq!(counted.count_total, 0);
        let waiting = || drop(std::hint::black_box(Place::new(1)));
        assert_eq!(allocation_counter::measure(waiting).count_total, 1, "the counter counts");
    }
}

/// Threads that enter, wait, leave and finish as chance has it, against a count of their own.
#[test]
fn threads_never_hold_more_permits_than_there_are() {
    const PERMITS: usize = 3;
    let gate = gate(PERMITS, 6);
    let (held, highest, granted) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Barrier::new(4);
    let hold = |attempt: Attempt, rng: &mut fastrand::Rng| {
        let now = held.fetch_add(1, SeqCst) + 1;
        highest.fetch_max(now, SeqCst);
        granted.fetch_add(1, SeqCst);
        for _ in 0..rng.u32(0..50) {
            std::hint::spin_loop();
        }
        held.fetch_sub(1, SeqCst);
        if rng.bool() {
            drop(attempt.finish(Success, Instant::now()));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (gate, start, hold) = (&gate, &start, &hold);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                start.wait();
                for n in 0..2_000 {
                    let place = rng.bool().then(|| Place::new(4));
                    let entrance = Entrance { class: rng.u8(0..8), place: place.clone(), ..miss(n) };
                    match gate.enter(entrance, Instant::now()) {
                        Entered::Admitted(attempt) => hold(attempt, &mut rng),
                        Entered::Queued(waiting) if rng.u8(0..4) == 0 => drop(waiting),
                        Entered::Queued(waiting) => {
                            place.iter().for_each(|place| place.raise(rng.u8(0..8)));
                            if let Ok(attempt) = runtime.block_on(waiting) {
                                hold(attempt, &mut rng);
                            }
                        }
                        Entered::Refused(refusal) => assert_eq!(refusal, Refusal::QueueFull),
                    }
                }
            });
        }
    });
    assert!((1..=PERMITS).contains(&highest.load(SeqCst)));
    assert!(granted.load(SeqCst) > 1_000);
    assert_eq!(free(&gate), PERMITS);
    assert_eq!(held.load(SeqCst), 0);
}
