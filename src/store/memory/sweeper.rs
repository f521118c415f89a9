//! Gives back what has expired or is purged.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use super::Inner;
use crate::{http::storing::after, key::CacheKey, sequence::Sequence};

/// Entries that are given back before other tasks get a turn, if they have expired.
const BATCH: usize = 256;

/// Entries that are checked for purges before other tasks get a turn, if none is given back. When all of them could be,
/// the 99th percentile of purges on five nodes was 18 ms, and not 7.
const PURGE_BATCH: usize = 512;
/// About as many checks take as long as giving one entry back.
const CHECKS_PER_REMOVAL: usize = 16;
/// Keys of one shard that are copied and checked at a time.
const CHECKED_AT_ONCE: usize = 16;
const PURGE_PAUSE: Duration = Duration::from_millis(1);

/// Between two wake-ups, at least.
const PAUSE: Duration = Duration::from_millis(100);

/// The background task, if it runs.
#[derive(Debug)]
pub(super) struct Sweeper {
    is_running: AtomicBool,
    /// When the task will wake up by itself.
    wakes_at: Mutex<Option<Instant>>,
    wake: Notify,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self { is_running: AtomicBool::new(false), wakes_at: Mutex::new(None), wake: Notify::new() }
    }
}

impl Sweeper {
    /// Starts the task unless it runs.
    pub(super) fn ensure(store: &Arc<Inner>, runtime: &Handle) {
        let is_running = &store.sweeper.is_running;
        if is_running.load(Ordering::Relaxed) || is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = Running(Arc::clone(&store.sweeper));
        runtime.spawn(Self::run(Arc::downgrade(store), running));
    }

    /// Holds the store only while it sweeps, and sleeps until the next entry is due or something
    /// is purged.
    async fn run(store: Weak<Inner>, running: Running) {
        let sweeper = &*running.0;
        loop {
            // From here on each insertion wakes the task, so that nothing slips in between.
            *sweeper.wakes_at.lock() = None;
            let Some(inner) = store.upgrade() else { return };
            let next = Self::step(&inner);
            let sequence = Arc::clone(&inner.sequence);
            drop(inner);
            *sweeper.wakes_at.lock() = next;
            let woken = async {
                futures_util::future::select(pin!(sweeper.wake.notified()), pin!(sequence.next_purge()))
                    .await;
            };
            match next {
                Some(at) if at <= Instant::now() => tokio::task::yield_now().await,
                Some(at) => _ = tokio::time::timeout_at(at, woken).await,
                None => woken.await,
            }
        }
    }

    /// Returns when there is more to do.
    fn step(store: &Inner) -> Option<Instant> {
        let now = Instant::now();
        if store.sweep(now, BATCH) {
            return Some(now);
        }
        let expiry = store.expiry.next().map(|at| at.max(now + PAUSE));
        // Records that are dropped for new ones cost more than a late turn of other tasks.
        let (most, pause) = match store.sequence.purges().is_crowded() {
            true => (4 * PURGE_BATCH, Duration::ZERO),
            false => (PURGE_BATCH, PURGE_PAUSE),
        };
        let purge = store.sweep_purged(now, most).map(|at| at.max(now + pause));
        expiry.into_iter().chain(purge).min()
    }

    /// Wakes the task, to see that its store is gone.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Wakes the task if it would sleep past this time.
    pub(super) fn wake_before(&self, at: Instant) {
        if self.wakes_at.lock().is_none_or(|planned| at + PAUSE < planned) {
            self.wake.notify_one();
        }
    }
}

/// Lets another task take over when this one ends, also with its runtime.
struct Running(Arc<Sweeper>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Release);
    }
}

const SHARDS: usize = 16;

/// Times are rounded up to a tick, so that a sweep finds many keys at once.
const TICK: Duration = Duration::from_nanos(NANOS as u64);
const NANOS: u32 = 1_000_000_000 / TICKS as u32;
/// In a second.
const TICKS: u64 = 20;

/// Names one version of what is stored under a key.
pub(crate) type Version = u64;

/// The tick at which a version is due: where it is in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due(u64);

type Shard = BTreeMap<(Due, Version), CacheKey>;

/// How far a [walk](Expiry::walk) has come: the shard, and the last that was seen there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WalkPosition {
    shard: usize,
    last: Option<(Due, Version)>,
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

impl Default for Expiry {
    fn default() -> Self {
        Self { made_at: Instant::now(), shards: Default::default() }
    }
}

impl Expiry {
    /// Returns where it is, to [remove](Self::remove) it, and whether nothing in its shard is due as soon.
    pub(super) fn insert(&self, at: Instant, version: Version, key: CacheKey) -> (Due, bool) {
        let due = Due(self.tick(at, u32::div_ceil).unwrap_or(0));
        let mut shard = self.shard(version).lock();
        let is_next = shard.first_key_value().is_none_or(|((first, _), _)| due < *first);
        shard.insert((due, version), key);
        (due, is_next)
    }

    pub(super) fn remove(&self, due: Due, version: Version) {
        let removed = self.shard(version).lock().remove(&(due, version));
        drop(removed);
    }

    /// Takes at most `most` keys out that are due.
    pub(super) fn take_due(&self, now: Instant, most: usize) -> Vec<(Version, CacheKey)> {
        let mut taken = Vec::new();
        // The clock of this runtime may be behind the one in which the store was made.
        let Some(now) = self.tick(now, |nanos, tick| nanos / tick) else { return taken };
        for shard in &self.shards {
            let mut shard = shard.lock();
            while taken.len() < most
                && let Some(first) = shard.first_entry()
                && first.key().0 <= Due(now)
            {
                let ((_, version), key) = first.remove_entry();
                taken.push((version, key));
            }
        }
        taken
    }

    /// The next keys from `position` on, at most `most` of them and of one shard. Moves `position` on, to
    /// `None` after the last. What is inserted during a walk may be left out.
    pub(super) fn walk(&self, position: &mut Option<WalkPosition>, most: usize) -> Vec<CacheKey> {
        let Some(WalkPosition { shard, last }) = position.take() else { return Vec::new() };
        let Some(entries) = self.shards.get(shard).map(|shard| shard.lock()) else { return Vec::new() };
        let rest = entries.range((last.map_or(Unbounded, Excluded), Unbounded));
        let found: Vec<_> = rest.take(most).map(|(at, key)| (*at, key.clone())).collect();
        drop(entries);
        *position = match found.last() {
            Some((last, _)) if found.len() == most => Some(WalkPosition { shard, last: Some(*last) }),
            _ if shard + 1 < SHARDS => Some(WalkPosition { shard: shard + 1, last: None }),
            _ => None,
        };
        found.into_iter().map(|(_, key)| key).collect()
    }

    /// When the first key is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = |shard: &Mutex<Shard>| shard.lock().first_key_value().map(|((due, _), _)| *due);
        let Due(tick) = self.shards.iter().filter_map(first).min()?;
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

/// Between the end of a walk and the beginning of the next.
const WALK_PAUSE: Duration = Duration::from_secs(1);

/// Walks through all keys after purges that left a record.
///
/// When a walk has ended, all that is stored was checked up to the purge that was the last when it began:
/// what is stored meanwhile is checked as it goes in. Then the records up to there are dropped, but for those
/// that fetches under way may need.
///
/// A pause follows a walk, unless so many records come in that they would be too many before it is over: what
/// is not checked by then would be lost.
#[derive(Debug, Default)]
pub(super) struct PurgeSweep(Mutex<WalkState>);

#[derive(Debug, Default)]
struct WalkState {
    /// How far the walk under way has come.
    position: Option<WalkPosition>,
    /// The last purge that this walk covers, or the last one did.
    until: u64,
    /// All that is stored was checked up to this purge.
    checked: u64,
    ended_at: Option<Instant>,
}

impl PurgeSweep {
    /// Calls `check` with up to `most` keys, and drops up to as many records. `check` returns whether it gave an entry
    /// back, which counts as several keys. Returns when there is more to do, if there is.
    pub(super) fn step(
        &self,
        sequence: &Sequence,
        expiry: &Expiry,
        now: Instant,
        most: usize,
        check: impl Fn(&CacheKey) -> bool,
    ) -> Option<Instant> {
        // Another thread does it.
        let Some(mut state) = self.0.try_lock() else { return Some(now + WALK_PAUSE) };
        let purges = sequence.purges();
        let is_due = state.is_due(purges.newest_record(), now) || purges.is_walk_due();
        if state.position.is_none() && is_due {
            state.position = Some(WalkPosition::default());
            state.until = purges.begin_walk();
        }
        if state.position.is_some() {
            state.check_some(expiry, most, check);
            if state.position.is_none() {
                state.checked = state.until;
                state.ended_at = Some(now);
            }
        }
        let has_more = purges.forget(state.checked, most);
        if state.position.is_some() || has_more {
            return Some(now);
        }
        // Records are left: of purges since, or some that a fetch may need.
        (purges.records() != (0, 0)).then(|| state.pause_ends_at().unwrap_or(now).max(now + WALK_PAUSE / 10))
    }
}

impl WalkState {
    fn check_some(&mut self, expiry: &Expiry, most: usize, check: impl Fn(&CacheKey) -> bool) {
        let mut left = most;
        while left > 0 && self.position.is_some() {
            for key in expiry.walk(&mut self.position, left.min(CHECKED_AT_ONCE)) {
                left = left.saturating_sub(if check(&key) { CHECKS_PER_REMOVAL } else { 1 });
            }
        }
    }

    fn is_due(&self, newest_record: u64, now: Instant) -> bool {
        newest_record > self.until && self.pause_ends_at().is_none_or(|at| at <= now)
    }

    fn pause_ends_at(&self) -> Option<Instant> {
        self.ended_at.map(|at| at + WALK_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, ReadThroughLayer, Rules};
    use bytes::Bytes;
    use futures_util::FutureExt;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use proptest::prelude::*;
    use std::convert::Infallible;
    use tower::{Layer, ServiceExt, service_fn};

    fn key(version: Version) -> CacheKey {
        CacheKey::new(version.to_be_bytes())
    }

    #[test]
    fn what_is_given_back_counts_as_several_checks() {
        let checked = |is_given_back| {
            let expiry = Expiry::default();
            for version in 0..1000 {
                expiry.insert(expiry.made_at, version, key(version));
            }
            let mut state = WalkState { position: Some(WalkPosition::default()), ..WalkState::default() };
            let count = std::cell::Cell::new(0);
            state.check_some(&expiry, PURGE_BATCH, |_| {
                count.set(count.get() + 1);
                is_given_back
            });
            assert!(state.position.is_some());
            count.get()
        };
        assert_eq!(checked(false), PURGE_BATCH);
        // A group of keys that was begun is checked to its end.
        let most = PURGE_BATCH / CHECKS_PER_REMOVAL;
        assert!((most..most + CHECKED_AT_ONCE).contains(&checked(true)));
    }

    #[test]
    fn what_was_purged_is_given_back_a_batch_at_a_time() {
        let store = MemoryStore::with_capacity_bytes(16 << 20);
        let rules = Rules::new().fixed_ttl(Duration::from_secs(60));
        let layer = ReadThroughLayer::builder(store.clone()).rules(rules).build().unwrap();
        let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| {
            let response = Response::builder().header("surrogate-key", "red").body(Full::<Bytes>::default());
            std::future::ready(Ok::<_, Infallible>(response.unwrap()))
        }));
        // Outside a runtime nothing is given back in the background.
        for page in 0..1000 {
            let request = Request::get(format!("http://h/{page}")).body(Full::default()).unwrap();
            let response = service.clone().oneshot(request).now_or_never().unwrap().unwrap();
            response.into_body().collect().now_or_never().unwrap().unwrap();
        }
        layer.purge().tag("red");
        let given_back = || {
            let before = store.stats().entries;
            store.inner.sweep_purged(Instant::now(), PURGE_BATCH);
            before - store.stats().entries
        };
        let most = (PURGE_BATCH / CHECKS_PER_REMOVAL) as u64;
        for _ in 0..3 {
            assert!((most..most + CHECKED_AT_ONCE as u64).contains(&given_back()));
        }
    }

    /// All that is in there, by walking.
    fn all(expiry: &Expiry) -> Vec<CacheKey> {
        let (mut position, mut keys) = (Some(WalkPosition::default()), Vec::new());
        while position.is_some() {
            keys.extend(expiry.walk(&mut position, 3));
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
            let mut model: BTreeMap<Version, (u64, Due)> = BTreeMap::new();
            for (version, (step, millis, index)) in steps.into_iter().enumerate() {
                let version = version as Version;
                match step {
                    0 if !model.is_empty() => {
                        let (version, (_, node)) = model.pop_first().unwrap();
                        expiry.remove(node, version);
                        // A second time it removes nothing.
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
    fn an_insertion_tells_whether_nothing_in_its_shard_is_due_as_soon() {
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
}
