//! Which keys to look at when, so that what is of no use any more is given back in time.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::key::CacheKey;

const SHARDS: usize = 16;

/// Names one version of what is stored under a key.
pub(super) type Version = u64;

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

    /// When the first key is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.shards.iter().filter_map(|shard| shard.lock().first_key_value().map(|((at, _), _)| *at)).min()
    }

    fn shard(&self, version: Version) -> &Mutex<BTreeMap<(Instant, Version), CacheKey>> {
        &self.shards[version as usize % SHARDS]
    }
}
