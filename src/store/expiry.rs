//! Which keys to look at when, so that what is of no use any more is given back in time.

use std::{collections::BTreeMap, ops::Bound};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::key::CacheKey;

const SHARDS: usize = 16;

/// Names one version of what is stored under a key.
pub(super) type Version = u64;

/// How far a [walk](Expiry::walk) has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    shard: usize,
    after: Option<(Instant, Version)>,
}

/// The keys of a store in the order of their expiry.
///
/// Each stored version has exactly one entry here for as long as it is stored, so this is as
/// bounded as the store.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    shards: [Mutex<BTreeMap<(Instant, Version), CacheKey>>; SHARDS],
}

impl Expiry {
    pub(super) fn insert(&self, at: Instant, version: Version, key: CacheKey) {
        self.shard(version).lock().insert((at, version), key);
    }

    pub(super) fn remove(&self, at: Instant, version: Version) {
        let removed = self.shard(version).lock().remove(&(at, version));
        drop(removed);
    }

    /// Takes at most `most` keys out that are due.
    pub(super) fn take_due(&self, now: Instant, most: usize) -> Vec<(Version, CacheKey)> {
        let mut due = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            while due.len() < most
                && let Some(first) = shard.first_entry()
                && first.key().0 <= now
            {
                let ((_, version), key) = first.remove_entry();
                due.push((version, key));
            }
        }
        due
    }

    /// The next keys after `place`, at most `most` of them and of one shard. Moves `place` on, to
    /// `None` after the last.
    pub(super) fn walk(&self, place: &mut Option<Place>, most: usize) -> Vec<CacheKey> {
        let Some(Place { shard, after }) = place.take() else { return Vec::new() };
        let Some(entries) = self.shards.get(shard) else { return Vec::new() };
        let entries = entries.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut keys = Vec::new();
        let mut last = after;
        for (at, key) in entries.range((from, Bound::Unbounded)).take(most) {
            last = Some(*at);
            keys.push(key.clone());
        }
        *place = match keys.len() == most {
            true => Some(Place { shard, after: last }),
            false if shard + 1 < SHARDS => Some(Place { shard: shard + 1, after: None }),
            false => None,
        };
        keys
    }

    /// When the first key is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.shards.iter().filter_map(|shard| shard.lock().first_key_value().map(|((at, _), _)| *at)).min()
    }

    fn shard(&self, version: Version) -> &Mutex<BTreeMap<(Instant, Version), CacheKey>> {
        &self.shards[version as usize % SHARDS]
    }
}
