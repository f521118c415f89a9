//! Which keys to look at when, so that what is of no use any more is given back in time.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{http::freshness::after, key::CacheKey};

const SHARDS: usize = 16;

/// What is due at nearly the same time is kept together, and is due with the last of it: nobody comes
/// to fetch it more often than this.
const TICK: Duration = Duration::from_nanos(NANOS as u64);
const NANOS: u32 = 1_000_000_000 / TICKS as u32;
/// In a second.
const TICKS: u64 = 20;

/// A shard with room for more gives it back once there is nothing in it.
const SMALL: usize = 64;

/// Names one version of what is stored under a key.
pub(in crate::store) type Version = u64;

/// How far a [walk](Expiry::walk) has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    shard: usize,
    node: usize,
}

/// The keys of a store in the order of their expiry.
///
/// Each stored version has exactly one entry here for as long as it is stored, so this is as
/// bounded as the store.
#[derive(Debug)]
pub(super) struct Expiry {
    made_at: Instant,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug)]
struct Shard {
    /// Some node of the list of those that are due at a tick.
    lists: BTreeMap<u64, usize>,
    nodes: Vec<Node>,
    /// The first of the list of nodes without a key, linked by what is `next`.
    free: usize,
}

#[derive(Debug)]
struct Node {
    version: Version,
    key: Option<CacheKey>,
    tick: u64,
    previous: usize,
    next: usize,
}

/// No node.
const NONE: usize = usize::MAX;

impl Default for Expiry {
    fn default() -> Self {
        Self { made_at: Instant::now(), shards: Default::default() }
    }
}

impl Expiry {
    /// Returns the node to be [removed](Self::remove), and whether nothing in its shard is due as soon.
    pub(super) fn insert(&self, at: Instant, version: Version, key: CacheKey) -> (usize, bool) {
        let tick = self.tick(at, u32::div_ceil).unwrap_or(0);
        self.shard(version).lock().insert(Node { version, key: Some(key), tick, previous: NONE, next: NONE })
    }

    pub(super) fn remove(&self, node: usize, version: Version) {
        let removed = self.shard(version).lock().remove(node, version);
        drop(removed);
    }

    /// Takes at most `most` keys out that are due.
    pub(super) fn take_due(&self, now: Instant, most: usize) -> Vec<(Version, CacheKey)> {
        let mut due = Vec::new();
        // The clock of this runtime may be behind the one in which the store was made.
        let Some(now) = self.tick(now, |nanos, tick| nanos / tick) else { return due };
        for shard in &self.shards {
            let mut shard = shard.lock();
            while due.len() < most
                && let Some((tick, node)) = shard.lists.first_key_value()
                && *tick <= now
            {
                let (node, version) = (*node, shard.nodes[*node].version);
                due.extend(shard.remove(node, version).map(|key| (version, key)));
            }
        }
        due
    }

    /// The keys of the next nodes from `place` on, at most `most` of them and of one shard. Moves
    /// `place` on, to `None` after the last.
    pub(super) fn walk(&self, place: &mut Option<Place>, most: usize) -> Vec<CacheKey> {
        let Some(Place { shard, node }) = place.take() else { return Vec::new() };
        let Some(nodes) = self.shards.get(shard).map(|shard| shard.lock()) else { return Vec::new() };
        let end = node + most;
        let keys = nodes.nodes.iter().take(end).skip(node).filter_map(|node| node.key.clone()).collect();
        *place = match end < nodes.nodes.len() {
            true => Some(Place { shard, node: end }),
            false if shard + 1 < SHARDS => Some(Place { shard: shard + 1, node: 0 }),
            false => None,
        };
        keys
    }

    /// When the first key is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = |shard: &Mutex<Shard>| shard.lock().lists.first_key_value().map(|(tick, _)| *tick);
        let tick = self.shards.iter().filter_map(first).min()?;
        let rest = TICK * (tick % TICKS) as u32;
        Some(after(self.made_at, Duration::from_secs(tick / TICKS) + rest))
    }

    /// `None` before the first one.
    fn tick(&self, at: Instant, of_second: fn(u32, u32) -> u32) -> Option<u64> {
        let after = at.checked_duration_since(self.made_at)?;
        let tick = u64::from(of_second(after.subsec_nanos(), NANOS));
        Some(after.as_secs().saturating_mul(TICKS).saturating_add(tick))
    }

    fn shard(&self, version: Version) -> &Mutex<Shard> {
        &self.shards[version as usize % SHARDS]
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self { lists: BTreeMap::new(), nodes: Vec::new(), free: NONE }
    }
}

impl Shard {
    fn insert(&mut self, mut node: Node) -> (usize, bool) {
        let at = if self.free == NONE { self.nodes.len() } else { self.free };
        let is_new = match self.lists.entry(node.tick) {
            Entry::Vacant(list) => {
                list.insert(at);
                true
            }
            // Behind the one that stands for the list.
            Entry::Occupied(list) => {
                node.previous = *list.get();
                node.next = std::mem::replace(&mut self.nodes[node.previous].next, at);
                if let Some(next) = self.nodes.get_mut(node.next) {
                    next.previous = at;
                }
                false
            }
        };
        let is_next = is_new && self.lists.first_key_value().is_some_and(|(first, _)| *first == node.tick);
        match self.nodes.get_mut(at) {
            Some(free) => {
                self.free = free.next;
                *free = node;
            }
            None => self.nodes.push(node),
        }
        (at, is_next)
    }

    /// The key of a node, if it is still the node of this version.
    fn remove(&mut self, at: usize, version: Version) -> Option<CacheKey> {
        let node = self.nodes.get_mut(at).filter(|node| node.version == version)?;
        let key = node.key.take()?;
        let (tick, previous, next) = (node.tick, node.previous, node.next);
        node.next = std::mem::replace(&mut self.free, at);
        if let Some(next) = self.nodes.get_mut(next) {
            next.previous = previous;
        }
        match self.nodes.get_mut(previous) {
            Some(previous) => previous.next = next,
            None if next == NONE => _ = self.lists.remove(&tick),
            None => _ = self.lists.insert(tick, next),
        }
        if self.lists.is_empty() && self.nodes.len() > SMALL {
            *self = Self::default();
        }
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(version: Version) -> CacheKey {
        CacheKey::new(version.to_be_bytes())
    }

    /// All that is in there, by walking.
    fn all(expiry: &Expiry) -> Vec<CacheKey> {
        let (mut place, mut keys) = (Some(Place::default()), Vec::new());
        while place.is_some() {
            keys.extend(expiry.walk(&mut place, 3));
        }
        keys.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        keys
    }

    proptest! {
        #[test]
        fn what_is_put_in_is_there_until_it_is_removed_or_due(
            steps in proptest::collection::vec((0_u8..3, 0_u64..400, any::<prop::sample::Index>()), 0..300),
        ) {
            let expiry = Expiry::default();
            let at = |millis| expiry.made_at + Duration::from_millis(millis);
            // By version: when it is due, and where it is.
            let mut model: BTreeMap<Version, (u64, usize)> = BTreeMap::new();
            for (version, (step, millis, index)) in steps.into_iter().enumerate() {
                let version = version as Version;
                match step {
                    0 if !model.is_empty() => {
                        let (version, (_, node)) = model.pop_first().unwrap();
                        expiry.remove(node, version);
                        // A second time it is nobody, or somebody else.
                        expiry.remove(node, version);
                    }
                    1 if !model.is_empty() => {
                        let chosen = *index.get(&model.keys().copied().collect::<Vec<_>>());
                        let (_, node) = model.remove(&chosen).unwrap();
                        expiry.remove(node, chosen);
                    }
                    2 if millis < 100 => {
                        let due: Vec<_> = expiry.take_due(at(millis * 4), 1 + millis as usize % 5);
                        for (version, name) in due {
                            prop_assert_eq!(name, key(version));
                            let (when, _) = model.remove(&version).unwrap();
                            prop_assert!(when <= millis * 4);
                        }
                    }
                    _ => {
                        let (node, _) = expiry.insert(at(millis), version, key(version));
                        model.insert(version, (millis, node));
                    }
                }
                prop_assert_eq!(all(&expiry), model.keys().map(|version| key(*version)).collect::<Vec<_>>());
                let first = model.values().map(|(when, _)| at(*when)).min();
                let next = expiry.next();
                prop_assert_eq!(next.is_some(), first.is_some());
                prop_assert!(next >= first && next <= first.map(|first| first + TICK));
            }
            let rest = expiry.take_due(at(450), usize::MAX).len();
            prop_assert_eq!((rest, expiry.next()), (model.len(), None));
        }
    }

    #[test]
    fn nothing_is_due_by_a_clock_that_is_behind() {
        let mut expiry = Expiry::default();
        let now = expiry.made_at;
        expiry.made_at += Duration::from_secs(3600);
        expiry.insert(now + Duration::from_secs(60), 0, key(0));
        assert_eq!(expiry.take_due(now, 1), []);
        assert_eq!(expiry.take_due(expiry.next().unwrap(), 1).len(), 1);
    }

    #[test]
    fn who_is_due_before_all_others_of_his_shard_is_told_so() {
        let expiry = Expiry::default();
        let insert = |millis, version| {
            expiry
                .insert(expiry.made_at + Duration::from_millis(millis), version * SHARDS as u64, key(version))
                .1
        };
        assert_eq!(
            [insert(500, 0), insert(500, 1), insert(700, 2), insert(300, 3)],
            [true, false, false, true]
        );
    }

    #[test]
    fn the_room_of_many_is_given_back_when_none_is_left() {
        let expiry = Expiry::default();
        let versions = (0..4 * SMALL as u64).map(|version| version * SHARDS as u64);
        let nodes: Vec<_> = versions
            .map(|version| (expiry.insert(expiry.made_at, version, key(version)).0, version))
            .collect();
        nodes.into_iter().for_each(|(node, version)| expiry.remove(node, version));
        assert_eq!(expiry.shards[0].lock().nodes.capacity(), 0);
    }
}
