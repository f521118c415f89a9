//! Counters that threads do not contend for.

use std::{
    cell::Cell,
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread::available_parallelism,
};

use crate::{
    exchange::{
        RefreshResult, Refused,
        status::{Forward, Lost, Stale},
    },
    http::not_stored::NotStored,
    key::Unkeyed,
    observe::snapshot::{Counts, PurgeKind},
    reasons::Named,
};

/// One number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counter(usize);

/// A number for each name of a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    first: usize,
    length: usize,
}

impl Family {
    const fn after(before: Self, length: usize) -> Self {
        Self { first: before.first + before.length, length }
    }

    pub(super) fn of<R: Named>(self, name: R) -> Counter {
        debug_assert_eq!(self.length, R::ALL.len());
        Counter(self.first + name.index())
    }
}

impl Counter {
    pub(super) const HIT: Self = Self(0);
    pub(super) const FAILED: Self = Self(1);
    pub(super) const OTHER_METHOD: Self = Self(2);
    pub(super) const COLLAPSED: Self = Self(3);
    pub(super) const STORED: Self = Self(4);
    pub(super) const SOFT_PURGE: Self = Self(5);
    pub(super) const UNPROVEN_PURGE: Self = Self(6);
    pub(super) const REFRESH_BEGAN: Self = Self(7);
    pub(super) const SAVED: Self = Self(8);
    const REFRESH_ENDED: usize = 9;

    pub(super) const fn of_refresh(result: RefreshResult) -> Self {
        Self(
            Self::REFRESH_ENDED
                + match result {
                    RefreshResult::Responded(_) => 0,
                    RefreshResult::Failed => 1,
                    RefreshResult::TimedOut => 2,
                    RefreshResult::Aborted => 3,
                },
        )
    }
}

const SINGLE: Family = Family { first: 0, length: Counter::REFRESH_ENDED + 4 };
pub(super) const STALE: Family = Family::after(SINGLE, Stale::ALL.len());
pub(super) const FORWARDED: Family = Family::after(STALE, Forward::ALL.len());
pub(super) const UNKEYED: Family = Family::after(FORWARDED, Unkeyed::ALL.len());
pub(super) const REFUSED: Family = Family::after(UNKEYED, Refused::ALL.len());
pub(super) const NOT_STORED: Family = Family::after(REFUSED, NotStored::ALL.len());
pub(super) const PURGES: Family = Family::after(NOT_STORED, PurgeKind::ALL.len());
pub(super) const LOST: Family = Family::after(PURGES, Lost::ALL.len());
/// Written out: with a function in the length of `Shard`, rustc 1.95 finds a cycle in a release build of the tests.
const COUNTERS: usize = 85;
const _: () = assert!(COUNTERS == LOST.first + LOST.length);

/// More threads than that share.
const MAX_SHARDS: usize = 64;

/// What some threads have counted. Lines of memory are fetched in pairs, so no two shards have one in common.
#[repr(align(128))]
struct Shard([AtomicU64; COUNTERS]);

/// Numbers that only grow. Each thread adds to a part of its own, as long as there are enough of them.
pub(super) struct Counters {
    /// A power of two of them.
    shards: Box<[Shard]>,
}

impl Counters {
    pub(super) fn new() -> Self {
        let shard = || Shard(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { shards: std::iter::repeat_with(shard).take(shards()).collect() }
    }

    #[inline(always)]
    pub(super) fn add(&self, counter: Counter) {
        let shard = thread() & (self.shards.len() - 1);
        if let Some(count) = self.shards.get(shard).and_then(|Shard(counts)| counts.get(counter.0)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self, counter: Counter) -> u64 {
        let counts = self.shards.iter().map(|Shard(counts)| counts[counter.0].load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }

    pub(super) fn all<R: Named>(&self, family: Family) -> Counts<R> {
        Counts::from_fn(|name| self.get(family.of(name)))
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

/// How many parts there are of what threads count: a power of two.
pub(super) fn shards() -> usize {
    let threads = available_parallelism().map_or(1, |threads| threads.get());
    threads.saturating_mul(2).clamp(1, MAX_SHARDS).next_power_of_two()
}

/// The number of this thread.
#[inline(always)]
pub(super) fn thread() -> usize {
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(UNKNOWN) };
    }
    NUMBER.with(|number| match number.get() {
        UNKNOWN => {
            let new = next_thread();
            number.set(new);
            new
        }
        known => known,
    })
}

const UNKNOWN: usize = usize::MAX;

#[cold]
fn next_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    // Never the number that stands for none.
    THREADS.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_counter_of_its_own() {
        let counters = Counters::new();
        for reason in NotStored::ALL {
            counters.add(NOT_STORED.of(*reason));
        }
        counters.add(REFUSED.of(Refused::NotStored));
        counters.add(PURGES.of(PurgeKind::Url));
        counters.add(Counter::of_refresh(RefreshResult::Aborted));
        let counts = counters.all::<NotStored>(NOT_STORED);
        assert!(NotStored::ALL.iter().all(|reason| counts.get(*reason) == 1));
        assert_eq!(counters.all::<Refused>(REFUSED).total(), 1);
        assert_eq!(counters.all::<PurgeKind>(PURGES).total(), 1);
        assert_eq!(counters.all::<Stale>(STALE).total(), 0);
    }

    #[test]
    fn threads_lose_no_count() {
        const THREADS: u64 = 4;
        let counters = Counters::new();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..10_000).for_each(|_| counters.add(Counter::HIT)));
            }
        });
        assert_eq!(counters.get(Counter::HIT), THREADS * 10_000);
    }

    #[test]
    fn threads_count_in_different_lines_of_memory() {
        let numbers: std::collections::HashSet<_> =
            (0..8).map(|_| std::thread::spawn(thread).join().unwrap_or(UNKNOWN)).collect();
        assert_eq!(numbers.len(), 8);
        assert_eq!(align_of::<Shard>(), 128);
    }
}
