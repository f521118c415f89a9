//! Records of purges: a bounded number of each kind, found by what was purged.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    super::sync::{AtomicU64, Ordering, RwLock},
    Effect, Pattern, PurgeKeys, TagHash,
};

const SHARDS: usize = 16;

/// The records of tags. A tag that is purged again keeps one record.
#[derive(Debug)]
pub(super) struct TagRecords {
    shards: [RwLock<HashMap<u64, Record>>; SHARDS],
    /// The number of the newest record.
    newest: AtomicU64,
    fill: Fill,
}

/// How many records there are, and how many were noted since the last walk through all that is stored began.
#[derive(Debug)]
pub(super) struct Fill {
    most: u64,
    records: AtomicU64,
    noted: AtomicU64,
}

impl Fill {
    fn new(most: usize) -> Self {
        Self { most: most as u64, records: AtomicU64::new(0), noted: AtomicU64::new(0) }
    }

    /// Under the lock for writing.
    fn note(&self, records: usize) {
        self.count(records);
        self.noted.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, records: usize) {
        self.records.store(records as u64, Ordering::Relaxed);
    }

    /// Whether more than half of the records are taken.
    pub(super) fn is_half_full(&self) -> bool {
        self.is_half(&self.records)
    }

    /// Whether so many were noted since the beginning of the last [walk](Self::walk_begins).
    pub(super) fn is_half_new(&self) -> bool {
        self.is_half(&self.noted)
    }

    pub(super) fn walk_begins(&self) {
        self.noted.store(0, Ordering::Relaxed);
    }

    fn is_half(&self, number: &AtomicU64) -> bool {
        number.load(Ordering::Relaxed) > self.most / 2
    }
}

/// The tags in the order in which they were last purged. Held under the lock of the writers.
#[derive(Debug, Default)]
pub(super) struct Order(BTreeMap<u64, TagHash>);

impl TagRecords {
    pub(super) fn new(most: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::new(HashMap::new())),
            newest: AtomicU64::new(0),
            fill: Fill::new(most),
        }
    }

    pub(super) fn fill(&self) -> &Fill {
        &self.fill
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    pub(super) fn get(&self, tag: TagHash) -> Option<Record> {
        self.shard(tag).read().get(&tag.get()).copied()
    }

    pub(super) fn note(&self, order: &mut Order, tag: TagHash, number: u64, effect: Effect) {
        let mut shard = self.shard(tag).write();
        let record = shard.entry(tag.get()).or_default();
        order.0.remove(&record.last());
        record.note(number, effect);
        drop(shard);
        order.0.insert(number, tag);
        self.fill.note(order.0.len());
        self.newest.store(number, Ordering::Release);
    }

    /// Forgets the record that is the next to go.
    pub(super) fn forget_oldest(&self, order: &mut Order) {
        if let Some((_, tag)) = order.0.pop_first() {
            self.fill.count(order.0.len());
            let mut shard = self.shard(tag).write();
            shard.remove(&tag.get());
            // After a storm the room goes back too, in few steps.
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
                shard.shrink_to_fit();
            }
        }
    }

    fn shard(&self, tag: TagHash) -> &RwLock<HashMap<u64, Record>> {
        &self.shards[tag.get() as usize % SHARDS]
    }
}

impl Order {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.0.first_key_value().map(|(number, _)| *number)
    }
}

/// A part of the keys or of the paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Range {
    KeyPrefix(Box<[u8]>),
    Paths(Box<Pattern>),
}

impl Range {
    pub(super) fn matches(&self, keys: &PurgeKeys) -> bool {
        match self {
            Self::KeyPrefix(prefix) => keys.key().starts_with(prefix),
            Self::Paths(pattern) => pattern.matches(keys),
        }
    }
}

/// The records of ranges, in the order in which they were last purged.
#[derive(Debug)]
pub(super) struct RangeRecords {
    records: RwLock<VecDeque<(Range, Record)>>,
    newest: AtomicU64,
    fill: Fill,
}

impl RangeRecords {
    pub(super) fn new(most: usize) -> Self {
        Self { records: RwLock::new(VecDeque::new()), newest: AtomicU64::new(0), fill: Fill::new(most) }
    }

    pub(super) fn fill(&self) -> &Fill {
        &self.fill
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Whether one of the records above `after` is so.
    pub(super) fn any(&self, after: u64, mut f: impl FnMut(&Range, Record) -> bool) -> bool {
        if self.newest() <= after {
            return false;
        }
        let records = self.records.read();
        let mut newer = records.iter().rev().take_while(|(_, record)| record.last() > after);
        newer.any(|(range, record)| f(range, *record))
    }

    pub(super) fn note(&self, range: Range, number: u64, effect: Effect) {
        let mut records = self.records.write();
        let known = records.iter().position(|(known, _)| *known == range);
        let (range, mut record) =
            known.and_then(|at| records.remove(at)).unwrap_or_else(|| (range, Record::default()));
        record.note(number, effect);
        records.push_back((range, record));
        self.fill.note(records.len());
        drop(records);
        self.newest.store(number, Ordering::Release);
    }

    pub(super) fn len(&self) -> usize {
        self.records.read().len()
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.records.read().front().map(|(_, record)| record.last())
    }

    pub(super) fn forget_oldest(&self) {
        let mut records = self.records.write();
        let oldest = records.pop_front();
        self.fill.count(records.len());
        drop(records);
        drop(oldest);
    }
}

/// The numbers of the last two purges; 0 where there was none.
///
/// Two, so that a response is still given to requests that came before a purge of the same thing during its
/// fetch. With three or more purges within one fetch it errs on the safe side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Numbers {
    last: u64,
    before: u64,
}

impl Numbers {
    fn push(&mut self, number: u64) {
        *self = Self { last: number, before: self.last };
    }

    /// Whether there may be one above `after` and not above `until`.
    fn may_lie_between(self, after: u64, until: u64) -> bool {
        match self.last <= until {
            true => self.last > after,
            false => self.before > after,
        }
    }
}

/// The purges of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    hard: Numbers,
    soft: Numbers,
    unproven: Numbers,
    /// The moment of the last soft one.
    soft_at: u64,
}

impl Record {
    fn note(&mut self, number: u64, effect: Effect) {
        match effect {
            Effect::Gone => self.hard.push(number),
            Effect::StaleSince(at) => {
                self.soft.push(number);
                self.soft_at = at;
            }
            Effect::Unproven => self.unproven.push(number),
        }
    }

    /// Whether a hard purge has a number above this.
    pub(super) fn is_purged_since(&self, number: u64) -> bool {
        self.hard.last > number
    }

    /// The moment of the last soft purge, if its number is above this.
    pub(super) fn stale_since(&self, number: u64) -> Option<u64> {
        (self.soft.last > number).then_some(self.soft_at)
    }

    /// Whether a purge that leaves things unproven has a number above this.
    pub(super) fn is_unproven_since(&self, number: u64) -> bool {
        self.unproven.last > number
    }

    pub(super) fn last(&self) -> u64 {
        self.numbers().map(|numbers| numbers.last).into_iter().max().unwrap_or_default()
    }

    pub(super) fn may_lie_between(&self, after: u64, until: u64) -> bool {
        self.numbers().iter().any(|numbers| numbers.may_lie_between(after, until))
    }

    fn numbers(&self) -> [Numbers; 3] {
        [self.hard, self.soft, self.unproven]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_purges_it_is_known_between_what_they_lie() {
        let mut numbers = Numbers::default();
        assert!(!numbers.may_lie_between(0, u64::MAX));
        numbers.push(5);
        assert!(numbers.may_lie_between(4, 5) && !numbers.may_lie_between(5, 9));
        assert!(!numbers.may_lie_between(3, 4), "it came later");
        numbers.push(8);
        assert!(numbers.may_lie_between(4, 6) && !numbers.may_lie_between(5, 7));
        numbers.push(10);
        assert!(numbers.may_lie_between(4, 6), "forgotten, so it may be");
    }
}
