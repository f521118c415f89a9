//! How many fetches a second an origin takes that asks to be spared (429).
//!
//! Each key by itself would wait for its `Retry-After`, and hundreds of them would still ask every second. So
//! what went well in a second bounds what is begun in the next, for fetches that have something stale to serve
//! instead. The bound grows by a tenth and one a second until the origin asks again, and ends where it says
//! nothing any more.

use std::time::Duration;

use tokio::time::Instant;

use crate::http::storing::after;

const SECOND: Duration = Duration::from_secs(1);
/// A bound above this is none.
const HIGHEST: u32 = 4096;

/// The rate of one origin, in seconds that begin with the first attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    /// When the current second began, and when it is over. `None`: nothing has happened yet.
    second: Option<(Instant, Instant)>,
    /// How many may be admitted in a second. `None`: any number.
    bound: Option<u32>,
    current: Counts,
    /// How many went well in the second before.
    good_before: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    admitted: u32,
    good: u32,
    is_limited: bool,
}

impl Rate {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Whether there is a bound, or was when something last happened.
    pub(super) const fn is_bounded(&self) -> bool {
        self.bound.is_some()
    }

    /// Whether a fetch with something stale may begin.
    pub(super) fn allows(&self, now: Instant) -> bool {
        if self.bound.is_none() {
            return true;
        }
        let mut rate = self.clone();
        rate.move_on(now);
        rate.bound.is_none_or(|bound| rate.current.admitted < bound)
    }

    /// An attempt begins, with something stale or without.
    pub(super) fn admitted(&mut self, now: Instant) {
        self.move_on(now);
        self.current.admitted = self.current.admitted.saturating_add(1);
    }

    /// An attempt went well.
    pub(super) fn succeeded(&mut self, now: Instant) {
        self.move_on(now);
        self.current.good = self.current.good.saturating_add(1);
    }

    /// The origin has sent 429.
    pub(super) fn limited(&mut self, now: Instant) {
        self.move_on(now);
        self.current.is_limited = true;
        // At least one, or nothing would ever show that the origin takes more.
        let good = self.good_before.max(self.current.good).max(1);
        self.bound.get_or_insert(good);
    }

    /// Ends the seconds that are over.
    #[inline]
    fn move_on(&mut self, now: Instant) {
        match self.second {
            // Times are compared with less work than their difference.
            Some((_, end)) if now < end => {}
            Some((began, _)) => self.end_seconds(began, now),
            None => self.begin_second(now),
        }
    }

    fn begin_second(&mut self, began: Instant) {
        self.second = Some((began, after(began, SECOND)));
    }

    fn end_seconds(&mut self, began: Instant, now: Instant) {
        let passed = now.saturating_duration_since(began).as_secs();
        let ended = std::mem::take(&mut self.current);
        self.begin_second(after(began, Duration::from_secs(passed)));
        self.good_before = if passed == 1 { ended.good } else { 0 };
        let mut quiet = passed;
        if ended.is_limited {
            self.bound = Some(ended.good.max(1));
            quiet -= 1;
        }
        while quiet > 0
            && let Some(bound) = self.bound
        {
            let grown = bound.saturating_add(bound / 10).saturating_add(1);
            self.bound = Some(grown).filter(|grown| *grown <= HIGHEST);
            quiet -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Admits as many as are allowed at this moment.
    fn admit_all(rate: &mut Rate, now: Instant) -> u32 {
        (1..=10_000).take_while(|_| rate.allows(now).then(|| rate.admitted(now)).is_some()).count() as u32
    }

    fn succeed(rate: &mut Rate, times: u32, now: Instant) {
        for _ in 0..times {
            rate.succeeded(now);
        }
    }

    /// A rate at the end of a second in which so many went well, and the begin of the next one.
    fn after_good(times: u32) -> (Rate, Instant) {
        let mut rate = Rate::new();
        let start = Instant::now();
        rate.admitted(start);
        succeed(&mut rate, times, start);
        (rate, start + SECOND)
    }

    #[test]
    fn without_a_429_there_is_no_bound() {
        let (mut rate, now) = after_good(1);
        assert_eq!(admit_all(&mut rate, now), 10_000);
        assert_eq!(admit_all(&mut rate, now + 100 * SECOND), 10_000);
    }

    #[test]
    fn the_first_429_bounds_to_what_went_well_in_the_second_before() {
        let (mut rate, now) = after_good(50);
        assert!(rate.allows(now));
        rate.admitted(now);
        succeed(&mut rate, 3, now);
        rate.limited(now);
        // One of fifty is begun already.
        assert_eq!(admit_all(&mut rate, now), 49);
        // Another one in the same second changes nothing.
        rate.limited(now);
        assert_eq!(admit_all(&mut rate, now), 0);
    }

    #[test]
    fn in_the_very_first_second_what_went_well_so_far_is_the_bound() {
        let mut rate = Rate::new();
        let now = Instant::now();
        succeed(&mut rate, 20, now);
        rate.limited(now);
        assert_eq!(admit_all(&mut rate, now), 20);
    }

    #[test]
    fn what_went_well_longer_ago_is_no_bound() {
        let (mut rate, now) = after_good(50);
        rate.limited(now + SECOND);
        assert_eq!(admit_all(&mut rate, now + SECOND), 1);
    }

    #[test]
    fn after_a_second_with_a_429_what_went_well_in_it_is_the_bound() {
        let (mut rate, now) = after_good(50);
        rate.limited(now);
        succeed(&mut rate, 30, now);
        assert_eq!(admit_all(&mut rate, now + SECOND), 30);
        rate.limited(now + SECOND);
        // Never nothing at all.
        assert_eq!(admit_all(&mut rate, now + 2 * SECOND), 1);
    }

    #[test]
    fn each_second_without_a_429_adds_a_tenth_and_one() {
        let (mut rate, now) = after_good(50);
        rate.limited(now);
        succeed(&mut rate, 30, now);
        for (second, bound) in [(1, 30), (2, 34), (3, 38), (4, 42)] {
            assert_eq!(admit_all(&mut rate, now + second * SECOND), bound, "{second}");
        }
        // Also those in which nothing was asked for.
        assert_eq!(admit_all(&mut rate, now + 6 * SECOND), 52);
    }

    #[test]
    fn a_bound_beyond_all_need_is_gone() {
        let (mut rate, now) = after_good(HIGHEST);
        rate.limited(now);
        assert_eq!(admit_all(&mut rate, now), HIGHEST);
        succeed(&mut rate, HIGHEST, now);
        assert_eq!(admit_all(&mut rate, now + SECOND), HIGHEST);
        assert_eq!(admit_all(&mut rate, now + 2 * SECOND), 10_000);
        // So is a small one in the end, however long that is ago.
        let (mut rate, now) = after_good(1);
        rate.limited(now);
        assert!(admit_all(&mut rate, now + 40 * SECOND) < 1000);
        assert_eq!(admit_all(&mut rate, now + 1_000_000 * SECOND), 10_000);
    }

    #[test]
    fn a_bound_is_known_from_the_first_429_until_it_is_gone() {
        let (mut rate, now) = after_good(1);
        assert!(!rate.is_bounded());
        rate.limited(now);
        assert!(rate.is_bounded());
        rate.admitted(now + 1_000_000 * SECOND);
        assert!(!rate.is_bounded());
    }

    #[test]
    fn a_look_changes_nothing() {
        let (mut rate, now) = after_good(1);
        rate.limited(now);
        for second in 1..100 {
            rate.allows(now + second * SECOND);
        }
        assert_eq!(admit_all(&mut rate, now), 1);
    }
}
