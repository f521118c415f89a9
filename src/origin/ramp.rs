//! How many attempts an origin gets that has just come back.
//!
//! What grows is a cap on attempts under way, and what paces it are the answers: an origin that is still cold
//! makes each of them slower, and the cap falls before the origin does.

use std::time::Duration;

use tokio::time::Instant;

/// The cap never falls below this, …
const FLOOR: f64 = 4.0;
/// … and below so much more for each second: no measure may hold it down for ever.
const FLOOR_RISES: f64 = 0.25;

/// A mean cost up to so many times the least one is quick enough.
const GATE: f64 = 2.0;
/// What each quick answer adds, divided by the cap: two for as many answers as may be under way.
const STEP: f64 = 2.0;
const CUT: f64 = 0.5;
/// What one answer weighs in the mean.
const WEIGHT: f64 = 1.0 / 8.0;
/// After a cut, and at first, so many answers change nothing, or half as many as the cap.
const LEAST_ANSWERS: f64 = 8.0;
/// The least mean is looked for from this answer on.
const FIRST_BEST: u32 = 5;
/// Failures cut once in this time.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// A ramp that has held nothing back for so long is over.
const ENOUGH: Duration = Duration::from_secs(5);

/// The cap on attempts under way during a recovery.
#[derive(Clone, Debug)]
pub(super) struct Ramp {
    began: Instant,
    cap: f64,
    goal: f64,
    mean: Option<f64>,
    best: f64,
    /// Answers in this recovery, and since the last cut.
    answers: u32,
    answers_since: u32,
    failed_at: Option<Instant>,
    held_back_at: Instant,
}

impl Ramp {
    /// Begins at `cap` attempts, and is over at `goal`.
    pub(super) fn new(cap: usize, goal: usize, now: Instant) -> Self {
        Self {
            began: now,
            cap: cap as f64,
            goal: goal as f64,
            mean: None,
            best: f64::INFINITY,
            answers: 0,
            answers_since: 0,
            failed_at: None,
            held_back_at: now,
        }
    }

    /// How many attempts may be under way.
    pub(super) fn cap(&self, now: Instant) -> usize {
        self.level(now) as usize
    }

    fn level(&self, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        self.cap.max(FLOOR_RISES.mul_add(seconds, FLOOR).min(self.goal))
    }

    /// Whether the origin may have all it is asked for.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.level(now) >= self.goal || now.saturating_duration_since(self.held_back_at) >= ENOUGH
    }

    /// Notes that the cap has held an attempt back.
    pub(super) fn hold_back(&mut self, now: Instant) {
        self.held_back_at = now.max(self.held_back_at);
    }

    /// Counts a success. `cost`: compared with what the same costs when all is well.
    pub(super) fn success(&mut self, cost: f64, now: Instant) {
        self.cap = self.level(now);
        let mean = self.mean.map_or(cost, |mean| WEIGHT.mul_add(cost - mean, mean));
        self.mean = Some(mean);
        self.answers = self.answers.saturating_add(1);
        self.answers_since = self.answers_since.saturating_add(1);
        if self.answers >= FIRST_BEST {
            self.best = self.best.min(mean);
        }
        if f64::from(self.answers_since) < LEAST_ANSWERS.max(self.cap / 2.0) {
            return;
        }
        if mean <= GATE * self.best {
            self.cap += STEP / self.cap.max(1.0);
        } else {
            self.cut();
            self.answers_since = 0;
            self.mean = None;
        }
    }

    pub(super) fn failure(&mut self, now: Instant) {
        self.cap = self.level(now);
        let is_due = |last: Instant| now.saturating_duration_since(last) >= FAILURE_PAUSE;
        if self.failed_at.is_none_or(is_due) {
            self.failed_at = Some(now);
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.cap = (self.cap * CUT).max(FLOOR.min(self.goal));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ramp() -> (Instant, Ramp) {
        let start = Instant::now();
        (start, Ramp::new(8, 64, start))
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn quick_answers_add_two_for_each_round() {
        let (start, mut ramp) = ramp();
        for _ in 0..7 {
            ramp.success(1.0, start);
        }
        assert_eq!(ramp.level(start), 8.0, "the first answers change nothing");
        for round in 1..=5 {
            for _ in 0..ramp.cap(start) {
                ramp.success(1.0, start);
            }
            let grown = (ramp.level(start) - 8.0) / f64::from(round);
            assert!((1.7..=2.0).contains(&grown), "{round}: {grown}");
        }
    }

    #[test]
    fn the_ramp_is_over_at_the_goal() {
        let (start, mut ramp) = ramp();
        let mut answers = 0;
        while !ramp.is_over(start) {
            assert!(ramp.cap(start) < 64);
            ramp.success(1.0, start);
            answers += 1;
        }
        // (64² − 8²) / 4, and the first seven.
        assert!((1_000..1_030).contains(&answers), "{answers}");
    }

    #[test]
    fn a_mean_above_twice_the_least_one_halves_the_cap_and_starts_anew() {
        let (start, mut ramp) = ramp();
        (0..50).for_each(|_| ramp.success(1.0, start));
        let before = ramp.level(start);
        // The mean of eight takes a few answers to pass 2.
        let mut slow = 0;
        while ramp.mean.is_some() {
            ramp.success(5.0, start);
            slow += 1;
            assert!(slow < 8);
        }
        let cut = ramp.level(start);
        assert!((cut / before - 0.5).abs() < 0.02, "{before} {cut}");
        (0..7).for_each(|_| ramp.success(5.0, start));
        assert_eq!(ramp.level(start), cut, "too few answers since the cut");
        (0..6).for_each(|_| ramp.success(5.0, start));
        assert!(ramp.level(start) < cut);
    }

    #[test]
    fn costs_up_to_twice_the_least_ones_are_quick_enough() {
        for (cost, grows) in [(1.99, true), (2.01, false)] {
            let (start, mut ramp) = ramp();
            (0..20).for_each(|_| ramp.success(1.0, start));
            let before = ramp.level(start);
            (0..60).for_each(|_| ramp.success(cost, start));
            assert_eq!(ramp.level(start) > before + 5.0, grows, "{cost}");
        }
    }

    #[test]
    fn failures_halve_the_cap_once_a_second() {
        let (start, mut ramp) = ramp();
        ramp.cap = 40.0;
        ramp.failure(start);
        ramp.failure(start + seconds(0.999));
        assert_eq!(ramp.cap(start), 20);
        ramp.failure(start + seconds(1.0));
        assert_eq!(ramp.cap(start), 10);
        for at in 2..10 {
            ramp.failure(start + seconds(f64::from(at)));
        }
        assert_eq!(ramp.cap(start + seconds(9.0)), 6, "the floor: 4, and a quarter for each second");
    }

    #[test]
    fn the_floor_rises_whatever_the_answers_say() {
        let (start, mut ramp) = ramp();
        let mut now = start;
        while !ramp.is_over(now) {
            now += seconds(0.5);
            ramp.failure(now);
            ramp.hold_back(now);
        }
        assert_eq!(now - start, seconds(240.0));
    }

    #[test]
    fn the_ramp_is_over_once_nothing_was_held_back_for_five_seconds() {
        let (start, mut ramp) = ramp();
        assert!(!ramp.is_over(start + seconds(4.999)));
        assert!(ramp.is_over(start + seconds(5.0)));
        ramp.hold_back(start + seconds(4.0));
        assert!(!ramp.is_over(start + seconds(8.999)));
        assert!(ramp.is_over(start + seconds(9.0)));
    }

    #[test]
    fn a_small_limit_is_its_own_ramp() {
        let start = Instant::now();
        for permits in 1..=8 {
            let mut ramp = Ramp::new(permits, permits, start);
            assert!(ramp.is_over(start));
            ramp.failure(start);
            assert!((permits.div_ceil(2)..=permits).contains(&ramp.cap(start)), "{ramp:?}");
        }
    }

    proptest! {
        #[test]
        fn the_cap_stays_between_the_floor_and_one_above_the_goal(
            goal in 1..200_usize,
            steps in prop::collection::vec((any::<bool>(), 0.0..1e9_f64, 0..2_000_u64), 1..500),
        ) {
            let start = Instant::now();
            let mut ramp = Ramp::new(goal.min(8), goal, start);
            let mut now = start;
            for (is_success, cost, wait) in steps {
                now += Duration::from_millis(wait);
                match is_success {
                    true => ramp.success(cost, now),
                    false => ramp.failure(now),
                }
                let floor = (4 + (now - start).as_secs() as usize / 4).min(goal);
                prop_assert!(ramp.cap(now) >= floor);
                if ramp.is_over(now) {
                    break;
                }
                prop_assert!(ramp.cap(now) < goal);
            }
        }
    }
}
