//! What became of the attempts at one origin.

use std::time::Duration;

use tokio::time::Instant;

use super::health::AttemptOutcome;

/// How long attempts took to the head of their response, or to their end without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
pub struct Latency {
    count: u64,
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "sum_seconds", serialize_with = "crate::reasons::seconds")
    )]
    sum: Duration,
    buckets: [u64; Self::BOUNDS.len() + 1],
}

impl Latency {
    /// The upper bounds of all buckets but the last, which has none.
    pub const BOUNDS: [Duration; 11] = [
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(25),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_millis(500),
        Duration::from_millis(1_000),
        Duration::from_millis(2_500),
        Duration::from_millis(5_000),
        Duration::from_millis(10_000),
    ];

    /// Returns how many there were.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns how long all of them took together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns how many took as long as a bound or less, and longer than the bound before; and last, how many
    /// took longer than all of [`BOUNDS`](Self::BOUNDS).
    pub const fn buckets(&self) -> &[u64; Self::BOUNDS.len() + 1] {
        &self.buckets
    }

    /// Returns how long they took on average. `None`: there were none.
    pub fn mean(&self) -> Option<Duration> {
        (self.count > 0).then(|| self.sum.div_f64(self.count as f64))
    }

    pub(super) fn note(&mut self, took: Duration) {
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(took);
        let bucket = Self::BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(Self::BOUNDS.len());
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
    }

    /// What was added since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            sum: self.sum.saturating_sub(earlier.sum),
            buckets: std::array::from_fn(|n| self.buckets[n].saturating_sub(earlier.buckets[n])),
        }
    }
}

/// What became of the attempts at one origin since it was first asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttemptCounts {
    /// Those that began.
    pub(crate) begun: u64,
    pub(crate) failed: u64,
    /// Those that were given up because they took too long.
    pub(crate) timed_out: u64,
    /// Those that got a 429.
    pub(crate) too_many: u64,
    /// Of those that ended with a response or an error, or took too long.
    pub(crate) latency: Latency,
}

impl AttemptCounts {
    pub(super) fn begin(&mut self) {
        self.begun = self.begun.saturating_add(1);
    }

    pub(super) fn end(&mut self, outcome: AttemptOutcome, began: Instant, now: Instant) {
        match outcome {
            AttemptOutcome::Success => {}
            AttemptOutcome::Failure => self.failed = self.failed.saturating_add(1),
            AttemptOutcome::TimedOut => self.timed_out = self.timed_out.saturating_add(1),
            AttemptOutcome::TooMany => self.too_many = self.too_many.saturating_add(1),
            // Its caller has left, or it was refused: that says nothing of the origin.
            AttemptOutcome::Neither => return,
        }
        self.latency.note(now.saturating_duration_since(began));
    }
}

/// The attempts at one origin, now and before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OriginGauges {
    pub(crate) attempts: AttemptCounts,
    /// Those that wait for a permit now.
    pub(crate) waiting: usize,
    /// Those under way now.
    pub(crate) under_way: usize,
    /// Permits in use now, by bodies that are still read as well.
    pub(crate) permits_in_use: usize,
    /// `None`: no limit.
    pub(crate) permits: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it() {
        let mut latency = Latency::default();
        for millis in [0, 5, 6, 10_000, 10_001] {
            latency.note(Duration::from_millis(millis));
        }
        assert_eq!(latency.buckets(), &[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((latency.count(), latency.sum()), (5, Duration::from_millis(20_012)));
        assert_eq!(latency.mean(), Some(Duration::from_micros(4_002_400)));
        assert_eq!(Latency::default().mean(), None);
    }
}
