use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers the beginnings of fetches in a store, from 1 on.
///
/// A request notes [`current`](Self::current) when it arrives, before it looks into the store;
/// whatever has a larger number began after it.
#[derive(Debug, Default)]
pub struct Sequence(AtomicU64);

impl Sequence {
    /// The number of the fetch that began last; 0 if none has.
    pub fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Numbers a fetch that begins now.
    pub fn begin(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }
}
