//! What a stored answer remembers of purges.

use super::super::sync::{AtomicU64, Ordering};

/// What was found out about a stored response since it is stored.
#[derive(Debug)]
pub(crate) struct PurgeCheck {
    checked: AtomicU64,
    /// In nanoseconds after the response came in.
    stale_after: AtomicU64,
}

impl PurgeCheck {
    pub(crate) fn new(begun: u64) -> Self {
        Self { checked: AtomicU64::new(begun), stale_after: AtomicU64::new(u64::MAX) }
    }

    /// Nothing up to this number has purged it.
    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(Ordering::Acquire)
    }

    pub(crate) fn check(&self, number: u64) {
        self.checked.fetch_max(number, Ordering::AcqRel);
    }

    pub(crate) fn stale_after(&self) -> Option<u64> {
        Some(self.stale_after.load(Ordering::Relaxed)).filter(|after| *after != u64::MAX)
    }

    /// The first moment counts.
    pub(crate) fn is_stale_after(&self, nanos: u64) {
        self.stale_after.fetch_min(nanos, Ordering::Relaxed);
    }
}
