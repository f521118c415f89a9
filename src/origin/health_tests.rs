use proptest::prelude::*;

use super::*;
use AttemptOutcome::{Failure, Neither, Success, TimedOut, TooMany};

const RULES: HealthRules = HealthRules {
    probe_every: Backoff { min: Duration::from_secs(1), max: Duration::from_secs(10) },
    probe_deadline: Duration::from_secs(5),
    stalled_after: Duration::from_secs(10),
    is_watched: true,
};

/// An origin and its clock.
#[derive(Clone, Debug)]
struct Origin {
    health: Health,
    now: Instant,
    next_key: u64,
}

impl Origin {
    fn new(permits: Option<usize>) -> Self {
        let now = Instant::now();
        Self { health: Health::new(RULES, permits, Draws::new(1), now), now, next_key: 0 }
    }

    fn down(permits: Option<usize>) -> Self {
        let mut origin = Self::new(permits);
        for _ in 0..20 {
            origin.attempt(Failure);
        }
        assert_eq!(origin.health.state(), OriginState::Down);
        origin
    }

    fn recovering(permits: Option<usize>) -> Self {
        let mut origin = Self::down(permits);
        origin.attempt(Success);
        assert_eq!(origin.health.state(), OriginState::Recovering);
        origin
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.health.tick(self.now);
    }

    /// Begins an attempt with a key of its own.
    fn begin(&mut self) -> Begun {
        self.next_key += 1;
        self.begin_with(Some(self.next_key), None)
    }

    fn begin_with(&mut self, key: Option<u64>, probe: Option<ProbeId>) -> Begun {
        self.health.begin(Subject { key, counts: true, last_cost: None, probe }, self.now)
    }

    fn begin_probe(&mut self) -> Option<Begun> {
        let probe = self.health.claim_probe(self.now)?;
        self.next_key += 1;
        Some(self.begin_with(Some(self.next_key), Some(probe)))
    }

    fn end(&mut self, begun: &Begun, outcome: AttemptOutcome) {
        self.health.end(begun, outcome, begun.took(self.now), self.now);
    }

    fn attempt(&mut self, outcome: AttemptOutcome) {
        let begun = self.begin();
        self.end(&begun, outcome);
    }

    /// An attempt that takes so long.
    fn attempt_of(&mut self, seconds: f64, last_cost: Option<f64>) {
        self.next_key += 1;
        let last_cost = last_cost.map(Duration::from_secs_f64);
        let subject = Subject { key: Some(self.next_key), counts: true, last_cost, probe: None };
        let begun = self.health.begin(subject, self.now);
        self.now += Duration::from_secs_f64(seconds);
        self.end(&begun, Success);
    }

    fn state(&self) -> OriginState {
        self.health.state()
    }

    fn cap(&self) -> usize {
        self.health.cap(self.now)
    }

    fn next_probe(&self) -> f64 {
        self.health.next_probe_in(self.now).as_secs_f64()
    }
}

#[test]
fn an_origin_is_up_until_its_outcomes_say_otherwise() {
    let mut origin = Origin::new(Some(64));
    assert_eq!((origin.state(), origin.cap()), (OriginState::Up, 64));
    for outcome in [Success, Failure, TooMany, Neither, TimedOut] {
        origin.attempt(outcome);
    }
    assert_eq!((origin.state(), origin.health.epoch()), (OriginState::Up, 0));
    assert_eq!(Origin::new(None).cap(), usize::MAX);
}

#[test]
fn failures_in_a_row_are_an_outage() {
    for outcome in [Failure, TimedOut] {
        let mut origin = Origin::new(None);
        for _ in 0..19 {
            origin.attempt(outcome);
        }
        assert_eq!(origin.state(), OriginState::Up);
        origin.attempt(outcome);
        assert_eq!((origin.state(), origin.health.epoch()), (OriginState::Down, 1));
    }
}

#[test]
fn neither_an_outcome_that_says_nothing_nor_429_is_a_failure_or_a_success() {
    for outcome in [TooMany, Neither] {
        let mut origin = Origin::new(None);
        for _ in 0..100 {
            origin.attempt(outcome);
        }
        assert_eq!(origin.state(), OriginState::Up);
        for _ in 0..10 {
            origin.attempt(Failure);
            origin.attempt(outcome);
            origin.attempt(Failure);
        }
        assert_eq!(origin.state(), OriginState::Down);
    }
}

#[test]
fn most_of_fifty_outcomes_are_an_outage_without_a_streak() {
    let mut origin = Origin::new(None);
    let mut attempts = 0;
    while origin.state() == OriginState::Up {
        assert!(attempts < 60);
        origin.attempt(Success);
        origin.attempt(Failure);
        origin.attempt(Failure);
        attempts += 3;
    }
    assert!(attempts >= 50, "{attempts}");
}

#[test]
fn what_does_not_count_says_nothing() {
    let mut origin = Origin::new(None);
    for _ in 0..100 {
        let subject = Subject { key: None, counts: false, ..Subject::default() };
        let begun = origin.health.begin(subject, origin.now);
        origin.end(&begun, Failure);
    }
    assert_eq!(origin.state(), OriginState::Up);
    let mut origin = Origin::down(None);
    let begun = origin.health.begin(Subject::default(), origin.now);
    origin.end(&begun, Success);
    assert_eq!(origin.state(), OriginState::Down);
}

#[test]
fn an_outcome_counts_in_the_state_in_which_its_attempt_began() {
    let mut origin = Origin::new(None);
    let old: Vec<_> = (0..60).map(|_| origin.begin()).collect();
    for _ in 0..20 {
        origin.attempt(Failure);
    }
    // A success of before says nothing about the outage.
    origin.end(&old[0], Success);
    assert_eq!(origin.state(), OriginState::Down);
    let probed = origin.begin();
    origin.end(&probed, Success);
    assert_eq!(origin.state(), OriginState::Recovering);
    let cap = origin.cap();
    for begun in &old[1..] {
        origin.wait(0.1);
        origin.end(begun, TimedOut);
        origin.health.hold_back(origin.now);
    }
    assert_eq!(origin.state(), OriginState::Recovering);
    assert!(origin.cap() >= cap);
    assert_eq!(origin.health.epoch(), 2);
}

#[test]
fn five_keys_that_hang_for_ten_seconds_are_an_outage() {
    let mut origin = Origin::new(None);
    let begun: Vec<_> = (0..5).map(|_| origin.begin()).collect();
    origin.wait(9.999);
    assert_eq!(origin.state(), OriginState::Up);
    let mut answered = origin.clone();
    let other = answered.begin();
    answered.end(&other, TooMany);
    answered.wait(0.001);
    assert_eq!(answered.state(), OriginState::Up);
    let mut cancelled = origin.clone();
    cancelled.end(&begun[0], Neither);
    cancelled.wait(0.001);
    assert_eq!(cancelled.state(), OriginState::Up);
    // One that is given up is no answer; it is seen with it that the others hang.
    let mut timed_out = origin.clone();
    timed_out.now += Duration::from_millis(1);
    timed_out.end(&begun[0], TimedOut);
    assert_eq!(timed_out.state(), OriginState::Down);
    origin.wait(0.001);
    assert_eq!(origin.state(), OriginState::Down);
}

#[test]
fn one_key_alone_does_not_hang_an_origin() {
    let mut origin = Origin::new(None);
    for _ in 0..5 {
        _ = origin.begin_with(Some(7), None);
    }
    let keyless = Subject { key: None, counts: true, ..Subject::default() };
    for _ in 0..20 {
        _ = origin.health.begin(keyless, origin.now);
    }
    origin.wait(60.0);
    assert_eq!(origin.state(), OriginState::Up);
}

#[test]
fn what_hung_before_a_state_does_not_stall_it() {
    let mut origin = Origin::new(None);
    let _hung: Vec<_> = (0..60).map(|_| origin.begin()).collect();
    origin.wait(10.0);
    assert_eq!(origin.state(), OriginState::Down);
    origin.attempt(Success);
    origin.wait(4.0);
    assert_eq!(origin.state(), OriginState::Recovering);
    origin.wait(60.0);
    assert_eq!(origin.state(), OriginState::Up);
    origin.wait(60.0);
    assert_eq!(origin.state(), OriginState::Up);
}

#[test]
fn a_recovering_origin_that_hangs_is_down() {
    let mut origin = Origin::recovering(Some(64));
    let _hung: Vec<_> = (0..5).map(|_| origin.begin()).collect();
    for _ in 0..9 {
        origin.wait(1.0);
        origin.health.hold_back(origin.now);
    }
    assert_eq!(origin.state(), OriginState::Recovering);
    origin.wait(1.0);
    assert_eq!(origin.state(), OriginState::Down);
}

#[test]
fn the_first_probe_is_due_after_half_a_second_to_a_second() {
    for seed in 0..50 {
        let mut origin = Origin::new(None);
        origin.health.draws = Draws::new(seed);
        for _ in 0..20 {
            origin.attempt(Failure);
        }
        assert!((0.5..=1.0).contains(&origin.next_probe()), "{}", origin.next_probe());
        assert!(origin.begin_probe().is_none());
        origin.wait(origin.next_probe());
        assert!(origin.begin_probe().is_some());
        assert!(origin.begin_probe().is_none(), "one at a time");
    }
}

#[test]
fn probes_that_fail_back_off_to_ten_seconds() {
    let mut origin = Origin::down(None);
    for whole in [2.0, 4.0, 8.0, 10.0, 10.0, 10.0] {
        origin.wait(origin.next_probe());
        let probe = origin.begin_probe().unwrap();
        origin.end(&probe, Failure);
        assert!((whole / 2.0..=whole).contains(&origin.next_probe()), "{}", origin.next_probe());
    }
}

#[test]
fn failures_of_others_leave_the_schedule_alone() {
    let mut origin = Origin::down(None);
    let due = origin.next_probe();
    for _ in 0..100 {
        origin.attempt(Failure);
    }
    assert_eq!(origin.next_probe(), due);
}

#[test]
fn the_backoff_is_reset_by_up_alone() {
    let mut origin = Origin::down(None);
    for _ in 0..5 {
        origin.wait(origin.next_probe());
        let probe = origin.begin_probe().unwrap();
        origin.end(&probe, Failure);
    }
    origin.attempt(Success);
    for _ in 0..20 {
        origin.attempt(Failure);
    }
    assert_eq!(origin.state(), OriginState::Down);
    assert!(origin.next_probe() >= 5.0);
    origin.attempt(Success);
    origin.wait(5.0);
    assert_eq!(origin.state(), OriginState::Up);
    for _ in 0..20 {
        origin.attempt(Failure);
    }
    assert!(origin.next_probe() <= 1.0);
}

#[test]
fn after_its_deadline_a_probe_makes_room_for_the_next_and_still_counts() {
    let mut origin = Origin::down(None);
    origin.wait(origin.next_probe());
    let slow = origin.begin_probe().unwrap();
    origin.wait(4.999);
    assert!(origin.health.is_probe(slow.probe.unwrap()));
    origin.wait(0.001);
    assert!(!origin.health.is_probe(slow.probe.unwrap()));
    assert!((1.0..=2.0).contains(&origin.next_probe()), "{}", origin.next_probe());
    origin.wait(2.0);
    let next = origin.begin_probe().unwrap();
    let mut late = origin.clone();
    origin.end(&slow, TimedOut);
    assert!(origin.health.is_probe(next.probe.unwrap()), "the next one is still under way");
    late.end(&slow, Success);
    assert_eq!(late.state(), OriginState::Recovering);
}

#[test]
fn each_end_of_a_probe_schedules_the_next() {
    for outcome in [Failure, TimedOut, Neither] {
        let mut origin = Origin::down(None);
        origin.wait(origin.next_probe());
        let probe = origin.begin_probe().unwrap();
        origin.end(&probe, outcome);
        assert!(origin.next_probe() > 0.0, "{outcome:?}");
        origin.wait(origin.next_probe());
        assert!(origin.begin_probe().is_some(), "{outcome:?}");
    }
    for outcome in [Success, TooMany] {
        let mut origin = Origin::down(None);
        origin.wait(origin.next_probe());
        let probe = origin.begin_probe().unwrap();
        origin.end(&probe, outcome);
        assert_eq!(origin.state(), OriginState::Recovering, "{outcome:?}");
    }
}

#[test]
fn a_probe_that_never_began_leaves_its_place_at_once() {
    let mut origin = Origin::down(None);
    origin.wait(origin.next_probe());
    let probe = origin.health.claim_probe(origin.now).unwrap();
    origin.health.leave_probe(probe, origin.now);
    let next = origin.health.claim_probe(origin.now).unwrap();
    origin.health.leave_probe(probe, origin.now);
    assert!(origin.health.is_probe(next), "one that has no place leaves none");
}

#[test]
fn a_probe_that_is_cancelled_does_not_make_the_backoff_longer() {
    let mut origin = Origin::down(None);
    for _ in 0..20 {
        origin.wait(origin.next_probe());
        let probe = origin.begin_probe().unwrap();
        origin.end(&probe, Neither);
        assert!((0.5..=1.0).contains(&origin.next_probe()));
    }
}

#[test]
fn any_success_ends_an_outage() {
    let mut origin = Origin::down(None);
    origin.attempt(Success);
    assert_eq!(origin.state(), OriginState::Recovering);
}

#[test]
fn probes_of_others_end_an_outage_and_move_the_schedule() {
    let mut origin = Origin::down(None);
    origin.health.probed(false, origin.now);
    assert!((1.0..=2.0).contains(&origin.next_probe()));
    origin.health.probed(true, origin.now);
    assert_eq!(origin.state(), OriginState::Recovering);
    let epoch = origin.health.epoch();
    for is_success in [true, false] {
        origin.health.probed(is_success, origin.now);
        assert_eq!(origin.health.epoch(), epoch);
    }
}

#[test]
fn while_down_eight_may_be_under_way_whatever_the_limit() {
    for (permits, cap) in [(None, 8), (Some(1), 1), (Some(7), 7), (Some(64), 8), (Some(1_024), 8)] {
        assert_eq!(Origin::down(permits).cap(), cap, "{permits:?}");
    }
}

#[test]
fn a_recovery_begins_at_the_cap_of_the_outage_and_ends_at_the_permits() {
    let mut origin = Origin::recovering(Some(32));
    assert_eq!(origin.cap(), 8);
    let mut answers = 0;
    while origin.state() == OriginState::Recovering {
        origin.attempt_of(0.001, None);
        answers += 1;
        assert!(answers < 1_000 && origin.cap() <= 32);
    }
    assert_eq!((origin.state(), origin.cap()), (OriginState::Up, 32));
    assert!(answers > 200, "{answers}");
    let mut origin = Origin::recovering(None);
    let mut highest = 0;
    while origin.state() == OriginState::Recovering {
        highest = origin.cap();
        origin.attempt_of(0.001, None);
    }
    assert_eq!((highest, origin.state()), (63, OriginState::Up));
}

#[test]
fn a_recovery_compares_costs_with_those_of_before() {
    for (last_cost, grows) in [(Some(0.05), true), (Some(0.001), false)] {
        let mut origin = Origin::new(Some(64));
        (0..100).for_each(|_| origin.attempt_of(0.001, None));
        (0..20).for_each(|_| origin.attempt(Failure));
        origin.attempt(Success);
        (0..20).for_each(|_| origin.attempt_of(0.001, None));
        let before = origin.cap();
        // Keys that are as dear as ever, or fifty times as dear.
        (0..20).for_each(|_| origin.attempt_of(0.05, last_cost));
        assert_eq!(origin.cap() > before, grows, "{before} {}", origin.cap());
    }
}

#[test]
fn without_a_cost_of_its_own_a_key_is_compared_with_the_mean() {
    let mut origin = Origin::new(Some(64));
    (0..500).for_each(|_| origin.attempt_of(0.02, None));
    let usual = origin.health.usual.unwrap();
    assert!((usual - 0.02).abs() < 1e-6, "{usual}");
    // An origin that was never up: the first answer is the measure.
    let mut origin = Origin::down(Some(64));
    origin.attempt(Success);
    (0..40).for_each(|_| origin.attempt_of(0.5, None));
    assert!(origin.cap() > 12, "{}", origin.cap());
}

#[test]
fn a_failure_in_a_recovery_halves_the_cap_and_a_streak_ends_it() {
    let mut origin = Origin::recovering(Some(64));
    origin.attempt(Failure);
    assert_eq!((origin.state(), origin.cap()), (OriginState::Recovering, 4));
    for _ in 0..18 {
        origin.attempt(Failure);
    }
    assert_eq!((origin.state(), origin.cap()), (OriginState::Recovering, 4));
    origin.attempt(Failure);
    assert_eq!(origin.state(), OriginState::Down);
}

#[test]
fn a_recovery_goes_on_through_noise() {
    let mut origin = Origin::recovering(Some(64));
    let mut noisy = |seconds: u32, holds_back: bool| {
        for n in 0..seconds * 300 {
            origin.now += Duration::from_millis(3);
            if holds_back {
                origin.health.hold_back(origin.now);
            }
            origin.health.tick(origin.now);
            origin.attempt(if n % 100 == 50 { Failure } else { Success });
            assert_ne!(origin.state(), OriginState::Down);
        }
        (origin.state(), origin.cap())
    };
    let (state, cap) = noisy(20, true);
    assert_eq!(state, OriginState::Recovering);
    assert!(cap >= 20, "{cap}");
    assert_eq!(noisy(6, false).0, OriginState::Up);
}

#[test]
fn a_recovery_that_holds_nothing_back_is_over_after_five_seconds() {
    let mut origin = Origin::recovering(Some(64));
    origin.wait(4.0);
    origin.health.hold_back(origin.now);
    origin.wait(4.999);
    assert_eq!(origin.state(), OriginState::Recovering);
    origin.wait(0.001);
    assert_eq!(origin.state(), OriginState::Up);
}

#[test]
fn an_origin_that_is_not_watched_is_always_up() {
    let rules = HealthRules { is_watched: false, ..RULES };
    let mut origin = Origin::new(Some(4));
    origin.health = Health::new(rules, Some(4), Draws::new(1), origin.now);
    let _hung: Vec<_> = (0..20).map(|_| origin.begin()).collect();
    for _ in 0..100 {
        origin.attempt(Failure);
        origin.wait(1.0);
    }
    assert_eq!((origin.state(), origin.health.epoch()), (OriginState::Up, 0));
}

/// An hour of requests to an origin that fails as `fails` says by the number of the attempt and its key.
/// Returns how often it went down.
fn downs(rate: f64, keys: u64, fails: impl Fn(&mut fastrand::Rng, u64) -> bool) -> u32 {
    let (mut origin, mut rng) = (Origin::new(Some(64)), fastrand::Rng::with_seed(5));
    let (mut downs, mut before) = (0, OriginState::Up);
    for _ in 0..(3_600.0 * rate) as u64 {
        origin.wait(-(1.0 - rng.f64()).ln() / rate);
        // The smaller, the more often.
        let key = (keys as f64 * rng.f64().powi(3)) as u64;
        let begun = match origin.state() {
            OriginState::Down => origin.begin_probe(),
            _ => Some(origin.begin_with(Some(key), None)),
        };
        let outcome = if fails(&mut rng, key) { Failure } else { Success };
        begun.inspect(|begun| origin.end(begun, outcome));
        downs += u32::from(origin.state() == OriginState::Down && before != OriginState::Down);
        before = origin.state();
    }
    downs
}

#[test]
fn noise_is_no_outage_at_any_traffic() {
    for rate in [1.0 / 60.0, 1.0, 100.0] {
        assert_eq!(downs(rate, 1_000, |rng, _| rng.f64() < 0.01), 0, "{rate}");
    }
    // Five in a row come once in 586 attempts, which are as many seconds only where there is little traffic.
    for (rate, most) in [(1.0 / 60.0, 1), (1.0, 12), (100.0, 0)] {
        let third = downs(rate, 1_000, |rng, _| rng.f64() < 0.3);
        assert!(third <= most, "{rate}: {third}");
    }
    assert!(downs(100.0, 1_000, |rng, _| rng.f64() < 0.6) > 10);
}

#[test]
fn keys_that_always_fail_take_the_others_down_at_no_traffic() {
    for rate in [1.0 / 60.0, 1.0, 100.0] {
        assert_eq!(downs(rate, 1_000, |_, key| key % 100 == 7), 0, "{rate}");
        // The key that is asked for most: a tenth of all attempts.
        assert_eq!(downs(rate, 1_000, |_, key| key == 0), 0, "{rate}");
    }
    // Even where hardly anything else is asked for.
    let hottest_alone = |rng: &mut fastrand::Rng, key| key == 0 && rng.f64() < 1.0;
    assert_eq!(downs(10.0, 3, hottest_alone), 0);
}

#[test]
fn an_outage_is_seen_after_about_twenty_failures() {
    for (rate, most_attempts, most_seconds) in [(100.0, 25, 0.5), (1.0, 8, 8.0), (1.0 / 60.0, 6, 400.0)] {
        let (mut origin, mut rng) = (Origin::new(Some(64)), fastrand::Rng::with_seed(3));
        let (start, mut attempts) = (origin.now, 0);
        while origin.state() == OriginState::Up {
            origin.wait(-(1.0 - rng.f64()).ln() / rate);
            origin.attempt(Failure);
            attempts += 1;
        }
        let took = (origin.now - start).as_secs_f64();
        assert!(attempts <= most_attempts && took <= most_seconds, "{rate}: {attempts} in {took} s");
    }
}

#[test]
fn timeouts_of_a_hang_do_not_count_after_the_recovery() {
    let mut origin = Origin::new(Some(64));
    let hung: Vec<_> = (0..60).map(|_| origin.begin()).collect();
    origin.wait(10.0);
    assert_eq!(origin.state(), OriginState::Down);
    origin.attempt(Success);
    for (n, begun) in hung.iter().enumerate() {
        origin.wait(0.3);
        origin.end(begun, TimedOut);
        origin.attempt(Success);
        assert_ne!(origin.state(), OriginState::Down, "{n}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Begin { key: u64 },
    Probe,
    End { which: usize, outcome: usize },
    HoldBack,
    Wait { millis: u64 },
    Leave,
    Probed(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..40_u64).prop_map(|key| Step::Begin { key }),
        2 => Just(Step::Probe),
        6 => (any::<usize>(), 0..9_usize).prop_map(|(which, outcome)| Step::End { which, outcome }),
        1 => Just(Step::HoldBack),
        3 => (0..4_000_u64).prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::Leave),
        1 => any::<bool>().prop_map(Step::Probed),
    ];
    prop::collection::vec(step, 1..400)
}

/// What an outcome of another epoch must not change.
fn counts(health: &Health) -> String {
    format!("{:?} {} {:?} {:?}", health.phase, health.epoch, health.tally, health.failed_probes)
}

proptest! {
    #[test]
    fn the_promises_hold_at_each_step(steps in steps(), permits in prop::option::of(1..100_usize)) {
        let mut origin = Origin::new(permits);
        let mut out: Vec<Begun> = Vec::new();
        let outcomes =
            [Success, Failure, Failure, Failure, Failure, TimedOut, TimedOut, TooMany, Neither];
        for step in steps {
            let (state, epoch) = (origin.state(), origin.health.epoch());
            let mut is_cause = true;
            match step {
                Step::Begin { key } => {
                    is_cause = false;
                    let begun = origin.begin_with(Some(key), None);
                    out.push(begun);
                }
                Step::Probe => {
                    is_cause = false;
                    let was_due = origin.health.is_probe_due(origin.now);
                    let probe = origin.begin_probe();
                    prop_assert_eq!(probe.is_some(), was_due);
                    out.extend(probe);
                }
                Step::End { which, outcome } if !out.is_empty() => {
                    let begun = out.swap_remove(which % out.len());
                    let (outcome, before) = (outcomes[outcome], counts(&origin.health));
                    origin.end(&begun, outcome);
                    let is_stale = begun.epoch != epoch;
                    prop_assert!(!is_stale || counts(&origin.health) == before || !outcome.is_answer());
                    if !is_stale && outcome == Success {
                        prop_assert_ne!(origin.state(), OriginState::Down);
                    }
                }
                Step::End { .. } => {}
                Step::HoldBack => {
                    is_cause = false;
                    origin.health.hold_back(origin.now);
                }
                Step::Wait { millis } => origin.wait(millis as f64 / 1_000.0),
                Step::Leave => {
                    is_cause = false;
                    if let Some(probe) = origin.health.claim_probe(origin.now) {
                        origin.health.leave_probe(probe, origin.now);
                        prop_assert!(origin.health.is_probe_due(origin.now));
                    }
                }
                Step::Probed(is_success) => origin.health.probed(is_success, origin.now),
            }
            prop_assert_eq!(state != origin.state(), epoch != origin.health.epoch());
            prop_assert!(is_cause || state == origin.state());
            let probes = out.iter().filter_map(|begun| begun.probe);
            prop_assert!(probes.filter(|probe| origin.health.is_probe(*probe)).count() <= 1);
            // The next one is never further away than this.
            prop_assert!(origin.next_probe() <= 10.0);
            prop_assert!(origin.cap() >= 1);
            prop_assert!(permits.is_none_or(|permits| origin.cap() <= permits));
        }
        // Time alone changes nothing but what is due.
        let before = counts(&origin.health);
        let is_recovering = origin.state() == OriginState::Recovering;
        let is_probed = matches!(origin.health.phase, Phase::Down(Probing::UnderWay { .. }));
        let is_hung = !out.is_empty();
        for _ in 0..5 {
            origin.wait(3_600.0);
        }
        prop_assert!(is_recovering || is_probed || is_hung || counts(&origin.health) == before);
        if origin.state() == OriginState::Down {
            origin.wait(20.0);
            prop_assert!(origin.begin_probe().is_some());
        }
    }
}
