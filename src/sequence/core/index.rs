//! The records of what was purged: a bounded number of each kind, found by what they are about.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    super::sync::{AtomicU64, Ordering, RwLock},
    Matter, Pattern, TagHash,
    record::Record,
};

const SHARDS: usize = 16;

/// The records of labels. A label that was purged again keeps one record.
#[derive(Debug)]
pub(super) struct Labels {
    shards: [RwLock<HashMap<u64, Record>>; SHARDS],
    /// The number of the newest record.
    newest: AtomicU64,
    fill: Fill,
}

/// How many records there are, and how many were noted since all that is stored was last looked at.
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

    /// Whether there are more than half of the records that there may be.
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

/// The labels in the order in which they were last purged; belongs to who writes.
#[derive(Debug, Default)]
pub(super) struct Order(BTreeMap<u64, TagHash>);

impl Labels {
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

    pub(super) fn get(&self, label: TagHash) -> Option<Record> {
        self.shard(label).read().get(&label.0).copied()
    }

    pub(super) fn note(&self, order: &mut Order, label: TagHash, number: u64, soft_at: Option<u64>) {
        let mut shard = self.shard(label).write();
        let record = shard.entry(label.0).or_default();
        order.0.remove(&record.last());
        record.note(number, soft_at);
        drop(shard);
        order.0.insert(number, label);
        self.fill.note(order.0.len());
        self.newest.store(number, Ordering::Release);
    }

    /// Forgets the record that is the next to go.
    pub(super) fn forget_oldest(&self, order: &mut Order) {
        if let Some((_, label)) = order.0.pop_first() {
            self.fill.count(order.0.len());
            let mut shard = self.shard(label).write();
            shard.remove(&label.0);
            // After a storm the room goes back too, in few steps.
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 8 {
                shard.shrink_to_fit();
            }
        }
    }

    fn shard(&self, label: TagHash) -> &RwLock<HashMap<u64, Record>> {
        &self.shards[label.0 as usize % SHARDS]
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
    pub(super) fn has(&self, matter: &Matter<'_>) -> bool {
        match self {
            Self::KeyPrefix(prefix) => matter.key.starts_with(prefix),
            Self::Paths(pattern) => pattern.is(matter),
        }
    }
}

/// The records of ranges, in the order in which they were last purged.
#[derive(Debug)]
pub(super) struct Ranges {
    records: RwLock<VecDeque<(Range, Record)>>,
    newest: AtomicU64,
    fill: Fill,
}

impl Ranges {
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

    pub(super) fn note(&self, range: Range, number: u64, soft_at: Option<u64>) {
        let mut records = self.records.write();
        let known = records.iter().position(|(known, _)| *known == range);
        let (range, mut record) =
            known.and_then(|at| records.remove(at)).unwrap_or_else(|| (range, Record::default()));
        record.note(number, soft_at);
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
