//! The gate under the interleavings that shuttle explores.
//!
//! It is compiled once more with the primitives of shuttle, which runs threads one step at a time in an order of
//! its own, and says so if one of them waits for ever. Time stands still but for what a test adds.

#[allow(
    clippy::duplicate_mod,
    dead_code,
    reason = "the same gate over other primitives, of which a model uses a part"
)]
#[path = "gate.rs"]
mod gate;

/// As beside the gate, but with other primitives.
mod sync {
    use shuttle::sync::MutexGuard;
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

    #[derive(Debug)]
    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        pub(super) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap()
        }
    }
}

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use shuttle::{future::block_on, thread};
use tokio::time::Instant;

#[allow(clippy::duplicate_mod, reason = "the same over another gate")]
#[path = "gate_setup_tests.rs"]
mod setup;

use self::{
    gate::{Answer, Attempt, Entered, Entrance, Gate, Pass, Place, Waiting},
    setup::{admitted, free, go_down, miss, queued},
};
use super::{
    OriginState, attempts, change,
    core::{self, CoreRules},
    health::{self, AttemptOutcome, Health, HealthRules},
    pause::{Backoff, Draws},
    queue,
    wish::{self, HeldBack, Refusal},
};
use AttemptOutcome::{Failure, Success};

const SECOND: Duration = Duration::from_secs(1);
const SCHEDULES: usize = 400;

/// Runs this under so many schedules, each with a clock that stands still.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    shuttle::check_random(model, SCHEDULES);
}

fn gate(permits: usize, places: usize) -> Arc<Gate> {
    let rules = HealthRules {
        probe_every: Backoff { min: SECOND, max: 10 * SECOND },
        probe_deadline: 5 * SECOND,
        stalled_after: 10 * SECOND,
        is_watched: true,
    };
    let health = Health::new(rules, None, Draws::new(1), Instant::now());
    let gate = Gate::new(CoreRules { fails_fast: false, attempt_deadline: 5 * SECOND }, health, false, None);
    gate.limit(permits, places);
    gate
}

fn stale(key: u64, pass: Option<Arc<Pass>>) -> Entrance {
    Entrance { has_stale: true, pass, ..miss(key) }
}

/// A number that never passes its bound.
struct Bounded {
    now: AtomicUsize,
    bound: usize,
}

impl Bounded {
    fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { now: AtomicUsize::new(0), bound })
    }

    fn enter(&self) {
        assert!(self.now.fetch_add(1, SeqCst) < self.bound);
        thread::yield_now();
    }

    fn leave(&self) {
        self.now.fetch_sub(1, SeqCst);
    }
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn permits_are_never_more_than_there_are_and_each_that_waits_gets_one() {
    explore(|| {
        let (gate, held) = (gate(2, 8), Bounded::new(2));
        let threads = (0..4_u64).map(|number| {
            let (gate, held) = (Arc::clone(&gate), Arc::clone(&held));
            thread::spawn(move || {
                let attempt = match gate.enter(miss(number), Instant::now()) {
                    Entered::Admitted(attempt) => attempt,
                    Entered::Queued(waiting) => block_on(waiting).unwrap(),
                    Entered::Refused(refusal) => panic!("{refusal:?}"),
                };
                held.enter();
                let permit = number.is_multiple_of(2).then_some(attempt).map(|attempt| {
                    let permit = attempt.finish(Success, Instant::now());
                    thread::yield_now();
                    permit
                });
                held.leave();
                drop(permit);
            })
        });
        join(threads.collect());
        assert_eq!(free(&gate), 2);
    });
}

#[test]
fn who_leaves_the_queue_while_it_is_let_in_gives_the_permit_to_the_next() {
    explore(|| {
        let gate = gate(1, 8);
        let held = admitted(&gate, miss(1));
        let leaves = queued(&gate, miss(2));
        let stays = queued(&gate, miss(3));
        let threads = vec![
            thread::spawn(move || drop(held)),
            thread::spawn(move || drop(leaves)),
            thread::spawn(move || drop(block_on(stays).unwrap())),
        ];
        join(threads);
        assert_eq!(free(&gate), 1);
    });
}

#[test]
fn a_better_caller_of_a_fetch_moves_it_up_whenever_it_comes() {
    explore(|| {
        let gate = gate(1, 8);
        let held = admitted(&gate, miss(1));
        let single = queued(&gate, Entrance { class: 3, ..miss(2) });
        let place = Place::new(5);
        let raising = Arc::clone(&place);
        let raise = thread::spawn(move || raising.raise(1));
        let shared = queued(&gate, Entrance { class: 5, place: Some(Arc::clone(&place)), ..miss(3) });
        raise.join().unwrap();
        drop(held);
        let attempt = block_on(shared).unwrap();
        assert!(!place.may_leave());
        drop(attempt);
        drop(block_on(single).unwrap());
    });
}

#[test]
fn there_is_one_probe_at_a_time_and_always_a_next_one() {
    explore(|| {
        let gate = gate(4, 8);
        go_down(&gate);
        let (due, probes) = (Instant::now() + 2 * SECOND, Bounded::new(1));
        let threads = (0..4_u64).map(|number| {
            let (gate, probes) = (Arc::clone(&gate), Arc::clone(&probes));
            thread::spawn(move || match gate.ask_with_stale(due) {
                Answer::Serve(why) => assert_eq!(why, HeldBack::Down),
                Answer::Fetch(pass) => probe(&gate, &probes, pass.unwrap(), number),
            })
        });
        join(threads.collect());
        // Whatever became of the others, there is a next one.
        let much_later = due + 20 * SECOND;
        let Answer::Fetch(Some(pass)) = gate.ask_with_stale(much_later) else { panic!("no probe is due") };
        assert!(pass.is_probe());
        assert_eq!(gate.state(much_later), OriginState::Down);
    });
}

/// Makes use of a right to probe, in one of four ways that end it.
fn probe(gate: &Arc<Gate>, probes: &Bounded, pass: Arc<Pass>, number: u64) {
    probes.enter();
    if number == 0 {
        probes.leave();
        return drop(pass);
    }
    // It is shared with those that wait for the same fetch.
    let other = Arc::clone(&pass);
    let attempt = admitted(gate, stale(number, Some(pass)));
    drop(other);
    thread::yield_now();
    probes.leave();
    match number {
        1 => drop(attempt),
        _ => drop(attempt.finish(Failure, Instant::now())),
    }
}

#[test]
fn a_right_is_used_once_however_many_have_it() {
    explore(|| {
        let gate = gate(4, 8);
        go_down(&gate);
        let Answer::Fetch(Some(pass)) = gate.ask_with_stale(Instant::now() + 2 * SECOND) else { panic!() };
        let used = Bounded::new(1);
        let threads = (0..3_u64).map(|number| {
            let (gate, pass, used) = (Arc::clone(&gate), Arc::clone(&pass), Arc::clone(&used));
            thread::spawn(move || match gate.enter(stale(number, Some(pass)), Instant::now()) {
                Entered::Admitted(attempt) => {
                    used.enter();
                    std::mem::forget(attempt);
                }
                Entered::Refused(refusal) => assert_eq!(refusal, Refusal::HeldBack(HeldBack::Down)),
                Entered::Queued(waiting) => panic!("{waiting:?}"),
            })
        });
        join(threads.collect());
        assert_eq!(used.now.load(SeqCst), 1);
    });
}

#[test]
fn all_that_wait_are_told_when_the_origin_goes_down() {
    explore(|| {
        let gate = gate(20, 8);
        let attempts: Vec<_> = (100..120).map(|key| admitted(&gate, miss(key))).collect();
        let failing = thread::spawn(move || {
            for attempt in attempts {
                drop(attempt.finish(Failure, Instant::now()));
            }
        });
        let threads = (0..3_u64).map(|number| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || match gate.enter(stale(number, None), Instant::now()) {
                Entered::Queued(waiting) => match block_on(waiting) {
                    Ok(attempt) => drop(attempt.finish(Failure, Instant::now())),
                    Err(refusal) => assert_eq!(refusal, Refusal::HeldBack(HeldBack::Down)),
                },
                Entered::Admitted(attempt) => drop(attempt.finish(Failure, Instant::now())),
                Entered::Refused(refusal) => assert_eq!(refusal, Refusal::HeldBack(HeldBack::Down)),
            })
        });
        join(threads.chain([failing]).collect());
        assert!(gate.is_down());
    });
}

#[test]
fn what_is_read_without_the_lock_is_what_is_the_case() {
    explore(|| {
        let gate = gate(30, 8);
        let mut attempts: Vec<_> = (100..120).map(|key| admitted(&gate, miss(key))).collect();
        for attempt in attempts.drain(..19) {
            drop(attempt.finish(Failure, Instant::now()));
        }
        assert!(gate.is_up());
        let others = (0..2_u64).map(|number| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || std::mem::forget(gate.enter(miss(number), Instant::now())))
        });
        let last = attempts.remove(0);
        let failing = thread::spawn(move || std::mem::forget(last.finish(Failure, Instant::now())));
        join(others.chain([failing]).collect());
        assert_eq!((gate.is_up(), gate.is_down()), (false, true));
    });
}
