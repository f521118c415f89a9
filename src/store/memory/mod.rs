//! The store in memory: quick_cache, with bytes and time added.

mod sweeper;
mod thread_cache;

use std::{
    fmt,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, sync::Cache};
use smallvec::SmallVec;
use tokio::{runtime::Handle, time::Instant};

pub(super) use self::sweeper::{Due, Version};
use self::sweeper::{Expiry, PurgeSweep, Sweeper};
#[cfg(feature = "snapshot")]
use crate::store::{SnapshotFileStats, snapshot_file::FileOfStore};
use crate::{
    build_error::BuildError,
    http::not_stored::NotStored,
    key::CacheKey,
    sequence::{DEFAULT_PREFIX_RECORDS, DEFAULT_TAG_RECORDS, Loss, Sequence},
    store::{Applied, Change, Entry, Store, StoredResponse, entry::Shelf},
};

/// Per key: its slot in the table and the eviction queue, its entry in the expiry index, the
/// counted blocks of key and value, and what the allocator adds. Measured, rounded up.
const ENTRY_OVERHEAD: usize = 360;

/// The engine's default: the part of its capacity for what was asked for more than once.
const HOT_SHARE: f64 = 0.97;

const STRIPES: usize = 64;

const MAX_FLOORS: usize = 1 << 20;

/// Keys that are checked with each purge while there are many.
const CHECKED_PER_PURGE: usize = 16;

/// A [`Store`] in memory, bounded in bytes.
///
/// * **Bound.** Keys, header fields, bodies and a fixed overhead for each entry are charged;
///   the sum never exceeds the capacity. What does not fit pushes out what was least useful,
///   by recency and frequency, so that a crawler does not empty the store.
/// * **Large responses.** One that is larger than its share of the capacity (1/16, see
///   [`MemoryStoreBuilder::max_response_share`]) is refused and counted, not stored.
/// * **Expiry.** What can never be used again, not even stale or for revalidation, is given
///   back in time by a small background task. It is started by the first response that is
///   stored inside a tokio runtime and ends with the store or the runtime. Outside a runtime
///   the same is done bit by bit whenever something is stored.
/// * **Threads** keep copies of the entries that they serve most, so that they do not contend for the
///   reference counters of one response: of at most 64 keys and 16 KiB each, so 1 MiB a thread
///   beside the capacity. A copy is kept only for as long as its original is stored.
/// * **Heads** of which only some values differ share the rest, in all stores of a process: at most
///   256 such shapes, of at most 64 fields, beside the capacity. Other heads are charged what a
///   `HeaderMap` takes.
/// * **Time** is tokio's clock, in nanoseconds.
///
/// ```
/// use tower_readthrough::MemoryStore;
///
/// let store = MemoryStore::with_capacity_bytes(64 << 20);
/// assert_eq!(store.stats().entries, 0);
/// assert_eq!(store.stats().capacity_bytes, 64 << 20);
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

/// Configures a [`MemoryStore`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct MemoryStoreBuilder {
    capacity_bytes: u64,
    max_response_share: f64,
    max_tag_records: usize,
    max_prefix_records: usize,
    floors: Option<usize>,
    keeps_texts: bool,
}

impl MemoryStoreBuilder {
    fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            max_response_share: 1.0 / 16.0,
            max_tag_records: DEFAULT_TAG_RECORDS,
            max_prefix_records: DEFAULT_PREFIX_RECORDS,
            floors: None,
            keeps_texts: false,
        }
    }

    /// The largest part of the capacity that one response may take: more than 0, at most 1.
    /// Default: 1/16.
    ///
    /// The store is divided into shards, and a response has to fit into one: a share over 1/2 leaves a single
    /// shard.
    pub fn max_response_share(mut self, share: f64) -> Self {
        self.max_response_share = share;
        self
    }

    /// How many purges of tags, groups, prefixes of paths and of everything, and soft purges of URLs and
    /// keys, are kept at a time, each in about 100 bytes. Purging the same again takes no more. At the limit
    /// the oldest one is dropped, and all that began before it and was not checked since counts as purged.
    /// Default: 65,536.
    ///
    /// They are dropped anyway once all that is stored was checked, which takes a background task some
    /// seconds, or a minute where a million entries are to be given back, and all fetches that began before
    /// are over. The default suffices for 10,000 different tags a second.
    pub fn max_tag_records(mut self, records: usize) -> Self {
        self.max_tag_records = records;
        self
    }

    /// As [`max_tag_records`](Self::max_tag_records), for purges of prefixes of keys and of patterns of
    /// paths, together. Default: 1,024. A miss compares its key and its path with all of them.
    pub fn max_prefix_records(mut self, records: usize) -> Self {
        self.max_prefix_records = records;
        self
    }

    /// How many [floors](crate::Sequence#what-is-kept-of-purges) there are for URLs, of eight bytes each, and a
    /// quarter as many for keys. URLs that share one are purged together. At most 1,048,576. Default:
    /// one for each 4 KiB of the capacity, at least 1,024.
    ///
    /// With a second tier each purge of a URL, and each unsafe request, takes the part of all that the tier holds
    /// along that shares its floor: give it the most there.
    pub fn floors(mut self, floors: usize) -> Self {
        self.floors = Some(floors);
        self
    }

    /// Whether [snapshots](crate::store::Snapshot) can be taken of what is stored. The texts of tags and URLs
    /// are kept for that, which takes their length and 40 bytes each, charged to the response. Default: no.
    pub fn snapshots(mut self, keep_texts: bool) -> Self {
        self.keeps_texts = keep_texts;
        self
    }

    /// Makes the store.
    ///
    /// # Errors
    ///
    /// If the capacity or a number of records is zero, if the share is not more than 0 and at most 1, or if
    /// the largest response would have less than 640 bytes.
    pub fn build(self) -> Result<MemoryStore, BuildError> {
        if self.capacity_bytes == 0 {
            return Err(BuildError::EmptyStore);
        }
        if !(self.max_response_share > 0.0 && self.max_response_share <= 1.0) {
            return Err(BuildError::ResponseShare(self.max_response_share));
        }
        for (setting, records) in
            [("max_tag_records", self.max_tag_records), ("max_prefix_records", self.max_prefix_records)]
        {
            if records == 0 {
                let consequence = "each purge would purge everything";
                return Err(BuildError::ZeroLimit { setting, consequence });
            }
        }
        let consequence = "they take 10 MiB and more";
        match self.floors {
            Some(0) => {
                let consequence = "each purge of a URL would purge everything";
                return Err(BuildError::ZeroLimit { setting: "floors", consequence });
            }
            Some(floors) if floors > MAX_FLOORS => {
                return Err(BuildError::LargeLimit { setting: "floors", most: MAX_FLOORS, consequence });
            }
            _ => {}
        }
        let store = MemoryStore::made_by(&self);
        BuildError::check_room(store.max_response_bytes())?;
        Ok(store)
    }
}

/// What a [`MemoryStore`] holds and what happened to the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct StoreStats {
    /// Bytes charged at the moment, never more than the capacity.
    pub bytes: u64,
    /// The configured bound in bytes.
    pub capacity_bytes: u64,
    /// Keys stored at the moment, those included that hold only a hit-for-miss marker.
    pub entries: u64,
    /// Responses stored at the moment, each variant and each part of its own.
    pub responses: u64,
    /// Notes stored at the moment that responses could not be shared ([`HitForMiss`](crate::store::HitForMiss)).
    pub markers: u64,
    /// Keys pushed out for lack of room since the store was made.
    pub evictions: u64,
    /// Keys given back because nothing of them could be used any more.
    pub expirations: u64,
    /// Responses refused because they were larger than their share of the store.
    pub refused: u64,
}

impl StoreStats {
    /// The same with what happened since an earlier moment alone.
    pub(crate) fn since(self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else { return self };
        Self {
            evictions: self.evictions.saturating_sub(earlier.evictions),
            expirations: self.expirations.saturating_sub(earlier.expirations),
            refused: self.refused.saturating_sub(earlier.refused),
            ..self
        }
    }
}

impl MemoryStore {
    /// Returns a store that holds at most so many bytes, with the default settings.
    ///
    /// A capacity of 0 makes a store that holds nothing, which
    /// [`ReadThroughBuilder::build`](crate::ReadThroughBuilder::build) refuses.
    pub fn with_capacity_bytes(capacity_bytes: u64) -> Self {
        Self::made_by(&Self::builder(capacity_bytes))
    }

    /// Returns a builder with the default settings for a store of so many bytes.
    pub fn builder(capacity_bytes: u64) -> MemoryStoreBuilder {
        MemoryStoreBuilder::new(capacity_bytes)
    }

    fn made_by(settings: &MemoryStoreBuilder) -> Self {
        let parts = (1.0 / settings.max_response_share / 2.0).clamp(1.0, 64.0);
        // Rounded down to a power of two: the engine rounds up.
        let parts = 1_usize << (parts as usize).ilog2();
        let options = OptionsBuilder::new()
            .weight_capacity(settings.capacity_bytes)
            .estimated_items_capacity(
                usize::try_from(settings.capacity_bytes / 2048).unwrap_or(usize::MAX).clamp(1, 1 << 24),
            )
            .shards(parts)
            .hot_allocation(HOT_SHARE)
            .build();
        // The builder fails only where a required option was not given.
        #[allow(clippy::expect_used)]
        let options = options.expect("all required options are given");
        let (weigher, hasher) = (ChargedBytes, DefaultHashBuilder::default());
        let table = Cache::with_options(options, weigher, hasher.clone(), NoteEvicted);
        let share = (settings.capacity_bytes as f64 * settings.max_response_share) as usize;
        // The engine refuses what is larger than that.
        let max_entry_bytes = (table.shard_capacity() as f64 * HOT_SHARE) as usize;
        let max_response_bytes = share.min(max_entry_bytes);
        let by_capacity = usize::try_from(settings.capacity_bytes / 4096).unwrap_or(usize::MAX);
        let floors = settings.floors.unwrap_or(by_capacity.clamp(1 << 10, MAX_FLOORS));
        let sequence = Sequence::with_records(floors, settings.max_tag_records, settings.max_prefix_records);
        let sequence = if settings.keeps_texts { sequence.keep_texts() } else { sequence };
        Self {
            inner: Arc::new(Inner {
                id: STORES.fetch_add(1, Ordering::Relaxed),
                table,
                hasher,
                stripes: std::array::from_fn(|_| Mutex::new(())),
                sequence: Arc::new(sequence),
                expiry: Expiry::default(),
                purge_sweep: PurgeSweep::default(),
                sweeper: Arc::default(),
                versions: AtomicU64::new(0),
                contents: Contents::default(),
                evictions: AtomicU64::new(0),
                expirations: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                #[cfg(feature = "snapshot")]
                file: FileOfStore::default(),
                capacity_bytes: settings.capacity_bytes,
                max_response_bytes,
                max_entry_bytes,
            }),
        }
    }

    /// Returns what is stored, in no order. What is stored or removed meanwhile may be left out. Nothing
    /// counts as used by that.
    pub fn entries(&self) -> impl Iterator<Item = (CacheKey, Arc<Entry>)> {
        self.inner.table.iter()
    }

    /// What is stored under a key, without counting as used.
    #[cfg(feature = "snapshot")]
    pub(crate) fn peek(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.inner.table.peek(key)
    }

    /// What says how the file does that keeps what is stored here.
    #[cfg(feature = "snapshot")]
    pub(super) fn file(&self) -> &FileOfStore {
        &self.inner.file
    }

    /// Returns the current gauges and counters.
    pub fn stats(&self) -> StoreStats {
        let inner = &*self.inner;
        StoreStats {
            bytes: inner.table.weight(),
            capacity_bytes: inner.capacity_bytes,
            entries: inner.table.len() as u64,
            responses: inner.contents.responses.load(Ordering::Relaxed),
            markers: inner.contents.markers.load(Ordering::Relaxed),
            evictions: inner.evictions.load(Ordering::Relaxed),
            expirations: inner.expirations.load(Ordering::Relaxed),
            refused: inner.refused.load(Ordering::Relaxed),
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        thread_cache::get(self.inner.id, key, || self.inner.table.get(key))
    }

    fn apply(&self, key: &CacheKey, change: Change) -> Applied {
        // What is restored was not measured before.
        if let Change::Put { response, .. } = &change
            && response.bytes() > self.max_response_bytes()
        {
            self.not_stored(key, Applied::NotStored(NotStored::TooLarge));
            return Applied::NotStored(NotStored::TooLarge);
        }
        let (applied, _) = self.inner.apply(key, change);
        match Handle::try_current() {
            Ok(runtime) => Sweeper::ensure(&self.inner, &runtime),
            // The runtime of a sweeper, if there is one, may not be running now.
            Err(_) => {
                self.inner.sweep(Instant::now(), 4);
                self.inner.sweep_purged(Instant::now(), 4);
            }
        }
        applied
    }

    fn sequence(&self) -> &Arc<Sequence> {
        &self.inner.sequence
    }

    fn max_response_bytes(&self) -> usize {
        self.inner.max_response_bytes.saturating_sub(ENTRY_OVERHEAD)
    }

    fn capacity_bytes(&self) -> u64 {
        self.inner.capacity_bytes
    }

    fn stats(&self) -> Option<StoreStats> {
        Some(self.stats())
    }

    #[cfg(feature = "snapshot")]
    fn snapshot_file(&self) -> Option<SnapshotFileStats> {
        self.inner.file.stats()
    }

    /// The sweeper may not get its turn among many purges.
    fn purged(&self) {
        if self.inner.sequence.purges().is_crowded() {
            self.inner.sweep_purged(Instant::now(), CHECKED_PER_PURGE);
        }
    }

    fn not_stored(&self, _: &CacheKey, reason: Applied) {
        if reason == Applied::NotStored(NotStored::TooLarge) {
            self.inner.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryStore").field(&self.stats()).finish()
    }
}

static STORES: AtomicU64 = AtomicU64::new(0);

pub(super) struct Inner {
    /// Keeps stores apart in the copies of threads.
    id: u64,
    table: Cache<CacheKey, Arc<Entry>, ChargedBytes, DefaultHashBuilder, NoteEvicted>,
    hasher: DefaultHashBuilder,
    /// Held while a key is updated. Readers never take one.
    stripes: [Mutex<()>; STRIPES],
    sequence: Arc<Sequence>,
    expiry: Expiry,
    purge_sweep: PurgeSweep,
    sweeper: Arc<Sweeper>,
    versions: AtomicU64,
    contents: Contents,
    evictions: AtomicU64,
    expirations: AtomicU64,
    refused: AtomicU64,
    #[cfg(feature = "snapshot")]
    file: FileOfStore,
    capacity_bytes: u64,
    max_response_bytes: usize,
    /// All variants of a key have to fit into one part of the table.
    max_entry_bytes: usize,
}

impl Inner {
    /// Returns what came of the change, and whether nothing is left of what was stored.
    fn apply(&self, key: &CacheKey, change: Change) -> (Applied, bool) {
        let mut evicted = Evicted::default();
        let changed = change.response().cloned();
        let purged = matches!(change, Change::Purge { .. }).then_some(Loss::Purged);
        let stripe = &self.stripes[self.hasher.hash_one(key) as usize % STRIPES];
        let updating = stripe.lock();
        let old = self.table.peek(key);
        let (mut new, mut applied) = Entry::apply(old.as_deref(), change);
        let is_gone = new.is_none() && old.is_some();
        // Nothing purged goes in, and what stays need not be checked soon.
        let sifted = new.as_mut().and_then(|entry| entry.sift(&self.sequence));
        let is_kept = |entry: Option<&Entry>| match (&changed, entry) {
            (Some(changed), Some(entry)) => entry.responses().any(|kept| Arc::ptr_eq(kept, changed)),
            (changed, _) => changed.is_none(),
        };
        if sifted.is_some() {
            new = new.filter(|entry| !entry.is_empty());
            if applied.is_stored() && !is_kept(new.as_ref()) {
                applied = Applied::NotStored(NotStored::PurgedMeanwhile);
            }
        }
        let is_shrunk = new.as_mut().is_some_and(|entry| self.shrink(key, entry));
        if is_shrunk && applied.is_stored() && !is_kept(new.as_ref()) {
            applied = Applied::NotStored(NotStored::TooLarge);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        self.note_loss(key, sifted, purged, [old.as_deref(), new.as_ref()]);
        let has_room = new.map(|entry| self.insert(key, entry, &mut evicted));
        let removed = if has_room == Some(true) { None } else { self.table.remove(key) };
        if has_room == Some(false) {
            applied = Applied::NotStored(NotStored::TooLarge);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(old) = &old {
            self.forget(old);
        }
        let retire = |entry: &Arc<Entry>| {
            let (was_stored, copies) = entry.retire();
            if was_stored {
                self.contents.remove(entry);
            }
            copies
        };
        let copies: SmallVec<[_; 4]> = evicted.0.iter().chain(&old).filter_map(retire).collect();
        drop(updating);
        // The engine reports what was replaced as evicted, too.
        let is_replaced = |entry: &&Arc<Entry>| old.as_ref().is_some_and(|old| Arc::ptr_eq(old, entry));
        let pushed_out = evicted.0.iter().filter(|entry| !is_replaced(entry)).count();
        self.evictions.fetch_add(pushed_out as u64, Ordering::Relaxed);
        evicted.0.iter().for_each(|entry| self.forget(entry));
        // Values are dropped where no lock is held.
        drop((old, removed, copies));
        (applied, is_gone)
    }

    /// Remembers that everything under a key was purged, until something is stored there again.
    fn note_loss(
        &self,
        key: &CacheKey,
        sifted: Option<Loss>,
        purged: Option<Loss>,
        entries: [Option<&Entry>; 2],
    ) {
        let [had, has] = entries.map(|entry| entry.is_some_and(|entry| !entry.has_no_response()));
        match sifted.or(purged.filter(|_| had)) {
            Some(loss) if !has => self.sequence.note_loss(key.as_bytes(), loss),
            None if has && !had => self.sequence.note_stored(key.as_bytes()),
            _ => {}
        }
    }

    /// Makes an entry fit under its key, if it does not. Whether something had to go.
    fn shrink(&self, key: &CacheKey, entry: &mut Entry) -> bool {
        let room = self.max_entry_bytes.saturating_sub(ENTRY_OVERHEAD + key.as_bytes().len());
        let is_larger = entry.bytes() > room;
        if is_larger {
            entry.shrink_to(room);
        }
        is_larger
    }

    /// False if there is no room for so much under one key.
    fn insert(&self, key: &CacheKey, entry: Entry, evicted: &mut Evicted) -> bool {
        let bytes = ENTRY_OVERHEAD + key.as_bytes().len() + entry.bytes();
        if bytes > self.max_entry_bytes {
            return false;
        }
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        let due = entry.next_expiry().map(|at| {
            let (due, is_next) = self.expiry.insert(at, version, key.clone());
            if is_next {
                self.sweeper.wake_before(at);
            }
            due
        });
        let shelf = Shelf::new(bytes as u64, version, due);
        self.contents.add(&entry);
        self.table.insert_with_lifecycle(key.clone(), Arc::new(entry.put_on(shelf)), evicted);
        true
    }

    fn forget(&self, entry: &Entry) {
        let shelf = entry.shelf();
        if let Some(due) = shelf.due {
            self.expiry.remove(due, shelf.version);
        }
    }

    /// Checks the entries of at most `most` keys for purges. Returns when there is more to do, if there is.
    pub(super) fn sweep_purged(&self, now: Instant, most: usize) -> Option<Instant> {
        self.purge_sweep.step(&self.sequence, &self.expiry, now, most, |key| {
            let Some(entry) = self.table.peek(key) else { return false };
            let is_useless =
                |stored: &Arc<StoredResponse>| !self.sequence.admits(stored) || stored.expires_at() <= now;
            let has_useless = entry.responses().any(is_useless);
            if has_useless {
                self.apply(key, Change::Prune { at: now });
            }
            has_useless
        })
    }

    /// Gives back at most `most` entries that are due. Returns whether there may be more.
    pub(super) fn sweep(&self, now: Instant, most: usize) -> bool {
        let due = self.expiry.take_due(now, most);
        for (version, key) in &due {
            if self.table.peek(key).is_some_and(|entry| entry.shelf().version == *version) {
                let (_, is_gone) = self.apply(key, Change::Prune { at: now });
                self.expirations.fetch_add(u64::from(is_gone), Ordering::Relaxed);
            }
        }
        due.len() == most
    }
}

/// What all entries hold together.
#[derive(Debug, Default)]
struct Contents {
    responses: AtomicU64,
    markers: AtomicU64,
}

impl Contents {
    fn add(&self, entry: &Entry) {
        let (responses, markers) = entry.contents();
        self.responses.fetch_add(responses as u64, Ordering::Relaxed);
        self.markers.fetch_add(markers as u64, Ordering::Relaxed);
    }

    fn remove(&self, entry: &Entry) {
        let (responses, markers) = entry.contents();
        self.responses.fetch_sub(responses as u64, Ordering::Relaxed);
        self.markers.fetch_sub(markers as u64, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
struct ChargedBytes;

impl Weighter<CacheKey, Arc<Entry>> for ChargedBytes {
    fn weight(&self, _: &CacheKey, entry: &Arc<Entry>) -> u64 {
        entry.shelf().bytes
    }
}

/// Collects what an insertion pushed out, to be dropped after the engine let go of its lock.
#[derive(Clone, Debug)]
struct NoteEvicted;

#[derive(Default)]
struct Evicted(SmallVec<[Arc<Entry>; 4]>);

impl Lifecycle<CacheKey, Arc<Entry>> for NoteEvicted {
    type RequestState = Evicted;

    fn on_evict(&self, state: &mut Evicted, _: CacheKey, entry: Arc<Entry>) {
        state.0.push(entry);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sweeper.wake();
    }
}

#[cfg(test)]
impl MemoryStoreBuilder {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        let Self {
            capacity_bytes: _,
            max_response_share,
            max_tag_records,
            max_prefix_records,
            floors,
            keeps_texts,
        } = self;
        let floors = floors.map_or_else(|| "capacity / 4096".to_owned(), |floors| floors.to_string());
        vec![
            ("MemoryStoreBuilder::max_response_share", format!("1/{}", max_response_share.recip())),
            ("MemoryStoreBuilder::max_tag_records", max_tag_records.to_string()),
            ("MemoryStoreBuilder::max_prefix_records", max_prefix_records.to_string()),
            ("MemoryStoreBuilder::floors", floors),
            ("MemoryStoreBuilder::snapshots", crate::defaults::tests::switch(*keeps_texts)),
        ]
    }
}
