//! The attempts at one origin: those under way, each under a number, and what became of the others.

use std::time::Duration;

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

    pub(super) fn end(&mut self, outcome: AttemptOutcome, took: Duration) {
        match outcome {
            AttemptOutcome::Success => {}
            AttemptOutcome::Failure => self.failed = self.failed.saturating_add(1),
            AttemptOutcome::TimedOut => self.timed_out = self.timed_out.saturating_add(1),
            AttemptOutcome::TooMany => self.too_many = self.too_many.saturating_add(1),
            // Its caller has left, or it was refused: that says nothing of the origin.
            AttemptOutcome::Neither => return,
        }
        self.latency.note(took);
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

/// More room than this is given back when nothing is kept.
const KEPT_ROOM: usize = 64;

/// Values, each under a number that is its own for as long as it is kept. It has room for as many as were kept
/// at the same time.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

/// The number of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> Slot {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // Each stands for an attempt under way: there is no memory for so many.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.slots.get_mut(number as usize) {
            *slot = Some(value);
        }
        Slot(number)
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<&T> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: &Slot) -> Option<&mut T> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }

    /// Drops a value.
    pub(super) fn free(&mut self, Slot(number): Slot) {
        if let Some(slot) = self.slots.get_mut(number as usize).filter(|slot| slot.is_some()) {
            *slot = None;
            self.free.push(number);
            if self.free.len() == self.slots.len() && self.slots.capacity() > KEPT_ROOM {
                (self.slots, self.free) = (Vec::new(), Vec::new());
            }
        }
    }
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

    #[test]
    fn a_number_is_used_again_and_never_twice_at_the_same_time() {
        let mut slab = Slab::new();
        let (one, two) = (slab.insert("one"), slab.insert("two"));
        assert_eq!((slab.get(&one), slab.get(&two)), (Some(&"one"), Some(&"two")));
        slab.free(one);
        let three = slab.insert("three");
        assert_eq!(three, Slot(0));
        slab.free(two);
        slab.free(three);
        assert_eq!(slab.get(&Slot(0)), None);
    }

    #[test]
    fn room_for_many_is_given_back() {
        let mut slab = Slab::new();
        let slots: Vec<_> = (0..1_000).map(|value| slab.insert(value)).collect();
        for (mut value, slot) in slots.into_iter().enumerate() {
            assert!(slab.slots.capacity() >= 1_000);
            assert_eq!(slab.get_mut(&slot), Some(&mut value));
            slab.free(slot);
        }
        assert_eq!((slab.slots.capacity(), slab.free.capacity()), (0, 0));
        // Room for a few is not asked for again and again.
        let slot = slab.insert(1);
        slab.free(slot);
        assert!(slab.slots.capacity() > 0);
    }
}
