//! What attempts say of an origin, by how they ended: failures in a row, and the share of successes.

use std::time::Duration;

use tokio::time::Instant;

use super::voice::Voices;

/// So many failures in a row are an outage if they last, …
const STREAK: u32 = 5;
/// … for so long.
const STREAK_LASTS: Duration = Duration::from_secs(1);
/// So many in a row are one in any case.
const LONG_STREAK: u32 = 20;

/// The window has so many buckets of a second.
const WINDOW_SECONDS: usize = 10;
/// Fewer outcomes than these say nothing by their share.
const WINDOW_LEAST: u32 = 50;

/// Counts of attempts since a point in time.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    voices: Voices,
    /// Failures in a row, and when the first of them was seen.
    streak: u32,
    streak_began: Instant,
    succeeded_at: Option<Instant>,
    window: Window,
}

/// What a failure brings the counts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// So many in a row that this is an outage.
    pub(super) is_streak: bool,
    /// So many of those in the window.
    pub(super) is_majority: bool,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            voices: Voices::default(),
            streak: 0,
            streak_began: now,
            succeeded_at: None,
            window: Window::new(now),
        }
    }

    /// Counts from nothing again.
    pub(super) fn restart(&mut self, now: Instant) {
        self.voices.clear();
        self.streak = 0;
        self.succeeded_at = None;
        self.window = Window::new(now);
    }

    pub(super) fn success(&mut self, now: Instant) {
        self.streak = 0;
        self.succeeded_at = self.succeeded_at.max(Some(now));
        self.window.count(true, now);
    }

    /// Counts a failure of an attempt that began then, for this key. `None`: each counts.
    pub(super) fn failure(&mut self, key: Option<u64>, began: Instant, now: Instant) -> Verdict {
        if key.is_some_and(|key| !self.voices.speak(key, now)) {
            return Verdict::default();
        }
        self.window.count(false, now);
        // The origin has answered another one since it began: those that hang together fail together.
        if self.succeeded_at.is_some_and(|succeeded| began < succeeded) {
            return Verdict::default();
        }
        if self.streak == 0 {
            self.streak_began = now;
        }
        self.streak = self.streak.saturating_add(1);
        let lasts = now.saturating_duration_since(self.streak_began) >= STREAK_LASTS;
        Verdict {
            is_streak: self.streak >= LONG_STREAK || self.streak >= STREAK && lasts,
            is_majority: self.window.is_bad(),
        }
    }
}

/// The outcomes of the last ten seconds, by second.
#[derive(Clone, Debug)]
struct Window {
    began: Instant,
    /// Seconds after the begin of the bucket that is written.
    newest: u64,
    buckets: [Bucket; WINDOW_SECONDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    successes: u32,
    failures: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, newest: 0, buckets: Default::default() }
    }

    fn count(&mut self, is_success: bool, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs().max(self.newest);
        for passed in 1..=(second - self.newest).min(WINDOW_SECONDS as u64) {
            *self.bucket(second - (passed - 1)) = Bucket::default();
        }
        self.newest = second;
        let bucket = self.bucket(second);
        let count = if is_success { &mut bucket.successes } else { &mut bucket.failures };
        *count = count.saturating_add(1);
    }

    fn bucket(&mut self, second: u64) -> &mut Bucket {
        &mut self.buckets[(second % WINDOW_SECONDS as u64) as usize]
    }

    fn is_bad(&self) -> bool {
        let sum = |count: fn(&Bucket) -> u32| self.buckets.iter().map(count).fold(0, u32::saturating_add);
        let (successes, failures) = (sum(|bucket| bucket.successes), sum(|bucket| bucket.failures));
        successes.saturating_add(failures) >= WINDOW_LEAST && successes < failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Fails other keys at these milliseconds. Returns how many failures it took.
    fn fails_at(tally: &mut Tally, start: Instant, at: impl IntoIterator<Item = u64>) -> Option<usize> {
        let mut verdicts = at.into_iter().enumerate().map(|(key, at)| {
            let now = start + ms(at);
            tally.failure(Some(key as u64), now, now).is_streak
        });
        verdicts.position(|is_streak| is_streak).map(|before| before + 1)
    }

    #[test]
    fn five_in_a_row_count_once_the_first_is_a_second_ago() {
        let start = Instant::now();
        let took = |at: &[u64]| fails_at(&mut Tally::new(start), start, at.iter().copied());
        assert_eq!(took(&[0, 10, 20, 30, 1_000]), Some(5));
        assert_eq!(took(&[0, 10, 20, 30, 999, 1_000]), Some(6));
        assert_eq!(took(&[0, 500, 1_000, 2_000]), None);
        assert_eq!(took(&[5_000, 5_010, 5_020, 5_030, 5_999]), None);
    }

    #[test]
    fn twenty_in_a_row_count_at_once() {
        let start = Instant::now();
        assert_eq!(fails_at(&mut Tally::new(start), start, [0; 19]), None);
        assert_eq!(fails_at(&mut Tally::new(start), start, [0; 30]), Some(20));
    }

    #[test]
    fn a_success_begins_the_streak_anew() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        assert_eq!(fails_at(&mut tally, start, [0, 1, 2, 3]), None);
        tally.success(start + ms(500));
        let at = start + ms(5_000);
        let verdicts: Vec<_> = (10..15)
            .map(|key| tally.failure(Some(key), at + ms(key - 10), at + ms(key - 10)).is_streak)
            .collect();
        assert_eq!(verdicts, [false; 5], "the first of them is not a second ago");
    }

    #[test]
    fn a_key_counts_once() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        let fails = (0..60).map(|n| tally.failure(Some(1), start, start + ms(n * 150)));
        assert!(fails.into_iter().all(|verdict| verdict == Verdict::default()));
        let fails = (0..20).map(|n| tally.failure(None, start, start + ms(n)).is_streak);
        assert!(fails.into_iter().any(|is_streak| is_streak), "without a key each counts");
    }

    #[test]
    fn a_failure_that_began_before_the_last_success_is_not_one_in_a_row() {
        let start = Instant::now();
        let mut tally = Tally::new(start);
        tally.success(start + ms(2_000));
        let mut fails = |began: u64| {
            let verdicts = (0..48).map(|key| {
                tally.failure(Some(began * 100 + key), start + ms(began), start + ms(3_000)).is_streak
            });
            verdicts.into_iter().filter(|is_streak| *is_streak).count()
        };
        assert_eq!(fails(1_999), 0);
        assert_eq!(fails(2_000), 29);
    }

    #[test]
    fn fewer_successes_than_failures_of_fifty_are_a_majority() {
        let start = Instant::now();
        let majority_after = |pattern: &[bool]| {
            let mut tally = Tally::new(start);
            let outcomes = pattern.iter().cycle().take(200).enumerate();
            let mut verdicts = outcomes.map(|(n, is_success)| {
                let now = start + ms(n as u64);
                match is_success {
                    true => {
                        tally.success(now);
                        false
                    }
                    false => tally.failure(Some(n as u64), now, now).is_majority,
                }
            });
            verdicts.position(|is_majority| is_majority).map(|before| before + 1)
        };
        assert_eq!(majority_after(&[true, false]), None, "one half is not less than half");
        assert_eq!(majority_after(&[true, false, false]), Some(50));
        assert_eq!(majority_after(&[false, true, true]), None);
    }

    #[test]
    fn the_window_forgets_after_ten_seconds() {
        let start = Instant::now();
        let mut window = Window::new(start);
        (0..60).for_each(|_| window.count(false, start + ms(500)));
        assert!(window.is_bad());
        window.count(true, start + ms(9_999));
        assert!(window.is_bad());
        window.count(true, start + ms(10_000));
        assert!(!window.is_bad());
        window.count(false, start + Duration::from_secs(1 << 40));
        assert!(!window.is_bad());
    }

    proptest! {
        /// Against a list of all outcomes.
        #[test]
        fn the_window_is_the_sum_of_its_seconds(
            steps in prop::collection::vec((any::<bool>(), 0..900_u64, 1..40_u32), 1..200),
        ) {
            let start = Instant::now();
            let (mut window, mut all, mut at) = (Window::new(start), Vec::new(), 0);
            for (is_success, wait, count) in steps {
                at += wait;
                for _ in 0..count {
                    window.count(is_success, start + ms(at));
                    all.push((at / 1000, is_success));
                }
                let inside = |second: u64| second + 10 > at / 1000;
                let kept: Vec<_> = all.iter().filter(|(second, _)| inside(*second)).collect();
                let good = kept.iter().filter(|(_, is_success)| *is_success).count();
                prop_assert_eq!(window.is_bad(), kept.len() >= 50 && good * 2 < kept.len());
            }
        }
    }
}
