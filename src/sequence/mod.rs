//! The order of fetches and purges in a store.

#[cfg(feature = "snapshot")]
mod as_of;
mod core;
mod hearing;
mod loading;
mod message;
mod purging;
mod sync;

#[cfg(feature = "snapshot")]
pub use self::as_of::{AsOf, EntryId};
pub(crate) use self::core::{Doubts, Glob, Loss, PurgeCheck, PurgeKeys, Segment};
pub(crate) use self::message::{Journal, Message, MessageKind, Receipt};
pub(crate) use self::purging::Purging;
pub use self::{
    core::PurgeTexts,
    loading::Loading,
    message::{NotEverywhere, NotEverywhereReason},
};

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, request::Parts};
use quick_cache::DefaultHashBuilder;
use tokio::{sync::Notify, time::Instant};

use self::{
    core::{FloorIndex, Purges, TagHash},
    hearing::Hearing,
    sync::{AtomicU64, Ordering},
};
use crate::{
    http::response_fields::ResponseFields,
    key::{self, KeyExtractor},
    tags::{self, TagFields, Tags},
};

/// URIs share a floor by their hash.
const DEFAULT_FLOORS: usize = 1 << 16;
pub(super) const DEFAULT_TAG_RECORDS: usize = 1 << 16;
pub(super) const DEFAULT_PREFIX_RECORDS: usize = 1 << 10;

/// What a purge makes of what it reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strength {
    /// It is gone.
    #[default]
    Hard,
    /// It is stale from then on, and served as stale responses are.
    Soft,
    /// It is not used before the origin has confirmed it, and never served while it is revalidated. If the
    /// fetch fails it may be served, for as long as if nothing had been purged.
    Unproven,
}

/// Numbers the fetches of a store and the purges of their responses, in one sequence from 1 on.
///
/// A request notes [`current`](Self::current) when it arrives, before it looks into the store; whatever has a
/// larger number began after it. A response that a purge matches, with a fetch of a smaller number than the
/// purge, is neither stored nor served any more, and such a fetch that is under way is not shared. The cost
/// does not depend on how much is stored; a hit takes one atomic load for as long as nothing is purged.
///
/// # What is kept of purges
///
/// * Of a URI or a key, purged or invalidated by an unsafe request: the number of the purge, in one of 65,536
///   floors by default. URIs with the same hash share a floor and are purged together, so each purge takes
///   one in 65,536 of all that is stored along: under 100 unsafe requests a second, half of it within eight
///   minutes. Unsafe requests to a URI that was not fetched since its last purge, which most are, purge
///   nothing and take no number.
/// * Of a tag, a group, a prefix of paths, everything, and of each purge that is not a hard one: a record, at most 65,536 by
///   default. Of a prefix of keys or a pattern of paths: a record of at most 1,024 bytes, at most 1,024 by
///   default.
/// * A record is dropped as soon as it can match nothing any more; in a cluster, where responses may be loaded that
///   are older, only once half of them are taken. Once half of them are taken, all that is
///   stored is checked without a pause, with each further purge and in the background. At the limit the
///   oldest record is dropped, and all that began before it and was not checked since counts as purged.
pub struct Sequence {
    purges: Purges,
    floors: usize,
    hasher: DefaultHashBuilder,
    /// The moments of soft purges count from here.
    made_at: Instant,
    /// Notified of purges that leave memory to give back.
    purged: Notify,
    losses: Losses,
    keeps_texts: bool,
    /// Of a cluster, if the store is part of one.
    /// `None` once it is settled that there will be none.
    journal: OnceLock<Option<Arc<dyn Journal>>>,
    hearing: Hearing,
}

impl Default for Sequence {
    fn default() -> Self {
        Self::with_floors(DEFAULT_FLOORS)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence").field("current", &self.current()).finish_non_exhaustive()
    }
}

impl Sequence {
    /// Returns a sequence with this many floors for URIs, of eight bytes each, and a quarter as many for
    /// keys. More of them keep more URIs apart. At least one, at most 2^24. Default: 65,536.
    pub fn with_floors(floors: usize) -> Self {
        Self::with_records(floors, DEFAULT_TAG_RECORDS, DEFAULT_PREFIX_RECORDS)
    }

    /// Returns a sequence with this many floors and at most so many records of purges: of `tags` and the
    /// like, of about 100 bytes each, and of `prefixes` of keys and patterns of paths. At least one of each.
    pub fn with_records(floors: usize, tags: usize, prefixes: usize) -> Self {
        let floors = floors.clamp(1, 1 << 24);
        Self {
            purges: Purges::new(floors + key_floors(floors), tags.max(1), prefixes.max(1)),
            floors,
            hasher: DefaultHashBuilder::default(),
            made_at: Instant::now(),
            purged: Notify::new(),
            losses: Losses::default(),
            keeps_texts: false,
            journal: OnceLock::new(),
            hearing: Hearing::default(),
        }
    }

    /// Returns the number of the last fetch or purge; 0 if there was none.
    pub fn current(&self) -> u64 {
        self.purges.current()
    }

    /// Returns how many records of purges there are: of tags and the like, and of prefixes of keys and
    /// patterns of paths.
    pub fn records(&self) -> (usize, usize) {
        self.purges.records()
    }

    /// Numbers a fetch that begins now. Its response may be stored for as long as the result is kept.
    pub(crate) fn begin(self: &Arc<Self>, keys: &PurgeKeys) -> Fetching {
        Fetching { sequence: Arc::clone(self), number: self.purges.begin(keys.floors()) }
    }

    /// Whether nothing has purged the response since its fetch began. Notes since when it is stale if it was
    /// purged softly.
    ///
    /// One atomic load where nothing was purged since the response was last checked.
    #[inline(always)]
    pub(crate) fn admits(&self, response: &impl Checked) -> bool {
        let keys = || &**response.purge_keys();
        let note = |doubts| self.note_doubts(response, doubts);
        let is_in_doubt = || self.is_cut_off();
        self.purges.admits(response.purge_check(), response.fetch_number(), keys, is_in_doubt, note)
    }

    #[cold]
    fn note_doubts(&self, response: &impl Checked, doubts: Doubts) {
        if let Some(at) = doubts.stale_since {
            response.note_stale_since(self.instant(at));
        }
        if doubts.is_unproven {
            response.purge_check().note_unproven();
        }
    }

    /// What purged a response that is not [admitted](Self::admits).
    pub(crate) fn loss(&self, response: &impl Checked) -> Loss {
        self.purges.loss(response.purge_keys(), response.fetch_number())
    }

    /// What purged everything under a key, if nothing was stored there since.
    pub(crate) fn loss_of_key(&self, key: &[u8]) -> Option<Loss> {
        self.losses.find(self.hasher.hash_one(key))
    }

    /// Notes that nothing is stored under the key any more because of a purge.
    pub(super) fn note_loss(&self, key: &[u8], loss: Loss) {
        self.losses.note(self.hasher.hash_one(key), loss);
    }

    /// Notes that something is stored under the key where nothing was.
    pub(super) fn note_stored(&self, key: &[u8]) {
        self.losses.forget(self.hasher.hash_one(key));
    }

    /// Returns what a request that arrives now knows of purges.
    pub(crate) fn arrival(&self, number: u64, keys: Arc<PurgeKeys>) -> PurgeSnapshot {
        let floor = self.purges.arrive(&keys);
        PurgeSnapshot { number, floor, keys, sequence: self.address(), is_cut_off: self.is_cut_off() }
    }

    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Returns what purges can match of a request: its key, what its URI names by the extractor's
    /// [identity](KeyExtractor::identity), and the prefixes of its path.
    pub(crate) fn keys(
        &self,
        extractor: &dyn KeyExtractor,
        head: &Parts,
        key: &key::CacheKey,
    ) -> Arc<PurgeKeys> {
        let target = key::Target::of(head, key::Origins::of(extractor));
        let identity = target.identity(extractor, (&head.uri, &head.extensions));
        let url = if self.keeps_texts { target.to_text() } else { None };
        let texts = url.map(|url| {
            let mut texts = PurgeTexts::default();
            texts.urls.push(url);
            texts.identity = identity.as_ref().map(|identity| identity.as_bytes().to_vec());
            texts
        });
        Arc::new(self.keys_of(target, key, target.hash_of(identity, &self.hasher), texts))
    }

    fn keys_of(
        &self,
        target: key::Target<'_>,
        key: &key::CacheKey,
        hash: u64,
        texts: Option<PurgeTexts>,
    ) -> PurgeKeys {
        let floors = [self.floor(hash), self.key_floor(key)];
        let tags = target.path_hashes(&self.hasher).map(TagHash::new);
        PurgeKeys::new(key.to_shared(), floors, tags, &target.path(), texts)
    }

    /// The same as [`keys`](Self::keys) and [`tagged`](Self::tagged) have made of these texts. `None` if
    /// there is no URL, or one cannot be read.
    pub(crate) fn keys_from_texts(&self, key: &key::CacheKey, texts: PurgeTexts) -> Option<PurgeKeys> {
        let mut keys = None::<PurgeKeys>;
        for url in &texts.urls {
            let (uri, host) = key::Target::parse_text(url)?;
            let target = key::Target::new(&uri, host.as_ref(), key::Origins::default());
            let identity = texts.identity.as_ref().filter(|_| keys.is_none()).map(key::CacheKey::new);
            let kept = self.keeps_texts.then(PurgeTexts::default);
            let more = self.keys_of(target, key, target.hash_of(identity, &self.hasher), kept);
            keys = Some(match keys {
                Some(keys) => keys.and(&more),
                None => more,
            });
        }
        let mut tags: Vec<_> = texts.tags.iter().map(|tag| self.tag(tag)).collect();
        for (url, group) in &texts.groups {
            let (uri, host) = key::Target::parse_text(url)?;
            self.push_group(group, key::Target::new(&uri, host.as_ref(), key::Origins::default()), &mut tags);
        }
        Some(keys?.of_texts(texts, &tags))
    }

    /// The keys of a response, with the tags that its request and the response itself give it.
    pub(crate) fn tagged(
        &self,
        keys: &Arc<PurgeKeys>,
        request: &Parts,
        response: Tagged<'_>,
        own: Option<&Tags>,
    ) -> Arc<PurgeKeys> {
        let tags = [request.extensions.get::<Tags>(), own];
        let ResponseFields { has_tags, has_groups, .. } = response.response_fields;
        match *has_tags || *has_groups || tags.iter().any(Option::is_some) {
            true => self.with_tags(keys, request, response, tags),
            false => Arc::clone(keys),
        }
    }

    #[inline(never)]
    fn with_tags(
        &self,
        keys: &Arc<PurgeKeys>,
        request: &Parts,
        Tagged { headers, response_fields, fields }: Tagged<'_>,
        given: [Option<&Tags>; 2],
    ) -> Arc<PurgeKeys> {
        let (mut tags, mut texts) = (Vec::new(), keys.texts().map(|_| PurgeTexts::default()));
        let mut push = |tag: &[u8]| {
            tags.push(self.tag(tag));
            texts.iter_mut().for_each(|texts| texts.tags.push(tag.to_vec()));
        };
        if response_fields.has_tags {
            tags::for_each_tag(headers, fields, &mut push);
        }
        given.into_iter().flatten().flat_map(Tags::iter).for_each(|tag| push(tag.as_bytes()));
        if response_fields.has_groups {
            let target = key::Target::of(request, key::Origins::default());
            for group in tags::groups(headers, &tags::CACHE_GROUPS) {
                self.push_group(&group, target, &mut tags);
                let url = target.origin_text().map(|origin| origin + "/").unwrap_or_default();
                texts.iter_mut().for_each(|texts| texts.groups.push((url.clone(), group.clone())));
            }
        }
        match tags.is_empty() {
            true => Arc::clone(keys),
            false => Arc::new(keys.with(&tags, texts.as_ref())),
        }
    }

    fn push_group(&self, group: &str, target: key::Target<'_>, tags: &mut Vec<TagHash>) {
        tags.push(self.tag(group.as_bytes()));
        tags.extend(target.group_hashes(group, &self.hasher).map(TagHash::new));
    }

    /// What lets others know of the purges here, and this process of theirs, if there is such a thing.
    pub(crate) fn journal(&self) -> Option<&Arc<dyn Journal>> {
        self.journal.get()?.as_ref()
    }

    /// Lets others know of all purges from now on. False if there is a journal already, or will be none.
    #[cfg(feature = "redis")]
    pub(crate) fn keep_journal(&self, journal: Arc<dyn Journal>) -> bool {
        self.journal.set(Some(journal)).is_ok()
    }

    /// Settles that others do not hear of purges here, nor the other way round. False if they do.
    #[cfg(feature = "snapshot")]
    pub(crate) fn keep_no_journal(&self) -> bool {
        self.journal.get_or_init(|| None).is_none()
    }

    /// From now on what is stored is unproven where it was not [heard](Self::heard) in time which purges there
    /// were elsewhere. Each check then asks for the time.
    #[cfg(feature = "redis")]
    pub(crate) fn limit_hearing(&self) {
        self.hearing.limit();
        self.purges.always_ask();
    }

    /// All purges that others knew of at that moment have been applied, which is enough for so long.
    #[cfg(feature = "redis")]
    pub(crate) fn heard(&self, at: Instant, enough_for: Duration) {
        let until = crate::http::storing::after(at, enough_for);
        self.hearing.heard(nanos(until.saturating_duration_since(self.made_at)));
    }

    /// Whether there may have been purges elsewhere that were not heard in time.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.hearing.is_over(|| self.moment())
    }

    pub(crate) fn purges(&self) -> &Purges {
        &self.purges
    }

    pub(super) fn hasher(&self) -> &DefaultHashBuilder {
        &self.hasher
    }

    /// Keeps the texts of tags and URLs beside their hashes, so that [snapshots](crate::store::Snapshot) can
    /// be taken of what is stored from now on. That takes their length and 40 bytes each for each stored
    /// response. Default: they are not kept.
    #[must_use]
    pub fn keep_texts(mut self) -> Self {
        self.keeps_texts = true;
        self
    }

    /// Whether the texts of tags and URLs are [kept](Self::keep_texts).
    #[cfg(feature = "snapshot")]
    pub(crate) fn has_texts(&self) -> bool {
        self.keeps_texts
    }

    /// Keeps up to half of the [records](Self#what-is-kept-of-purges) that are possible, also where nothing that
    /// is stored needs them: what a second tier has may be older than they are.
    #[cfg(feature = "redis")]
    pub(crate) fn keep_records(&self) {
        self.purges.keep_records();
    }

    /// Resolves after a purge that leaves memory to give back.
    pub(super) async fn next_purge(&self) {
        self.purged.notified().await;
    }

    fn tag(&self, tag: &[u8]) -> TagHash {
        let mut state = self.hasher.build_hasher();
        state.write(b"tag");
        state.write(tag);
        TagHash::new(state.finish())
    }

    fn key_floor(&self, key: &key::CacheKey) -> FloorIndex {
        // Apart from the URIs, so that unsafe requests reach no keys by chance.
        let index = self.hasher.hash_one(key) % key_floors(self.floors) as u64;
        FloorIndex::new((self.floors as u64 + index) as u32)
    }

    fn floor(&self, hash: u64) -> FloorIndex {
        FloorIndex::new((hash % self.floors as u64) as u32)
    }

    fn moment(&self) -> u64 {
        nanos(self.made_at.elapsed())
    }

    fn instant(&self, moment: u64) -> Instant {
        crate::http::storing::after(self.made_at, Duration::from_nanos(moment))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Fewer: keys are purged by code alone, and not by each unsafe request.
fn key_floors(floors: usize) -> usize {
    (floors / 4).max(1)
}

/// The head of a response, and which of its fields name tags beside the two that always do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tagged<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) response_fields: &'a ResponseFields,
    pub(crate) fields: &'a TagFields,
}

/// A fetch under way. Dropped when its response cannot be stored any more.
#[derive(Debug)]
pub(crate) struct Fetching {
    sequence: Arc<Sequence>,
    pub(crate) number: u64,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.sequence.purges.end(self.number);
    }
}

/// A response that remembers up to which purge it was checked.
pub(crate) trait Checked {
    fn purge_check(&self) -> &PurgeCheck;

    /// The number of its fetch.
    fn fetch_number(&self) -> u64;

    fn purge_keys(&self) -> &Arc<PurgeKeys>;

    /// A soft purge has made it stale from this moment on.
    fn note_stale_since(&self, at: Instant);
}

impl<T: Checked> Checked for Arc<T> {
    fn purge_check(&self) -> &PurgeCheck {
        (**self).purge_check()
    }

    fn fetch_number(&self) -> u64 {
        (**self).fetch_number()
    }

    fn purge_keys(&self) -> &Arc<PurgeKeys> {
        (**self).purge_keys()
    }

    fn note_stale_since(&self, at: Instant) {
        (**self).note_stale_since(at);
    }
}

/// What a request knows of purges when it arrives.
#[derive(Clone, Debug)]
pub(crate) struct PurgeSnapshot {
    /// The number of the store's sequence.
    pub(crate) number: u64,
    /// The number of the last purge that matches the request.
    pub(crate) floor: u64,
    pub(crate) keys: Arc<PurgeKeys>,
    /// The address of the sequence, for comparison alone.
    sequence: usize,
    is_cut_off: bool,
}

impl PurgeSnapshot {
    /// Whether it was noted by this sequence.
    pub(crate) fn is_of(&self, sequence: &Sequence) -> bool {
        self.sequence == sequence.address()
    }

    /// Whether there may have been purges that were [not heard](Sequence::limit_hearing) in time.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }
}

/// Which fetch a response came from, for requests that share it.
#[derive(Clone, Debug)]
pub(crate) struct Provenance {
    sequence: Arc<Sequence>,
    keys: Arc<PurgeKeys>,
    fetch_number: u64,
    /// Nothing up to this number has purged it.
    checked: u64,
}

impl Provenance {
    /// That of a fetch.
    pub(crate) fn of_fetch(sequence: &Arc<Sequence>, keys: &Arc<PurgeKeys>, fetch_number: u64) -> Self {
        let (sequence, keys) = (Arc::clone(sequence), Arc::clone(keys));
        Self { sequence, keys, fetch_number, checked: fetch_number }
    }

    /// That of a stored response.
    pub(crate) fn of_stored(sequence: &Arc<Sequence>, stored: &impl Checked) -> Self {
        let checked = stored.purge_check().checked();
        Self { checked, ..Self::of_fetch(sequence, stored.purge_keys(), stored.fetch_number()) }
    }

    pub(crate) fn fetch_number(&self) -> u64 {
        self.fetch_number
    }

    /// Whether no purge lies between the beginning of the fetch and the arrival of a request that waited for
    /// it, as far as that is known. Without an arrival, anything that purged the response counts.
    pub(crate) fn is_for(&self, arrival: Option<&PurgeSnapshot>) -> bool {
        let arrival = arrival.map(|arrival| (arrival.number, &*arrival.keys));
        self.sequence.purges().serves(&self.keys, self.checked, arrival)
    }

    /// A request that it does not serve waits for a fetch that began after this number.
    pub(crate) fn floor(&self) -> u64 {
        let purges = self.sequence.purges();
        let floor = purges.floor(&self.keys);
        let dropped = purges.dropped();
        if dropped > self.checked { floor.max(dropped) } else { floor }
    }
}

/// Losses that are remembered. The next one takes the place of another with the same slot.
const LOSS_SLOTS: usize = 1024;

const PURGED: u64 = 1;
const INVALIDATED: u64 = 2;
const KINDS: u64 = PURGED | INVALIDATED;

/// The keys under which everything was purged and nothing was stored since, by their hashes.
///
/// So that `Cache-Status` says the same before and after the memory was given back.
struct Losses(Box<[AtomicU64]>);

impl Default for Losses {
    fn default() -> Self {
        Self((0..LOSS_SLOTS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Losses {
    fn note(&self, hash: u64, loss: Loss) {
        let kind = if loss == Loss::Invalidated { INVALIDATED } else { PURGED };
        if let Some(word) = self.word(hash) {
            word.store(hash & !KINDS | kind, Ordering::Relaxed);
        }
    }

    /// Notes that something is stored under the key again.
    fn forget(&self, hash: u64) {
        if let Some(word) = self.word(hash)
            && word.load(Ordering::Relaxed) & !KINDS == hash & !KINDS
        {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn find(&self, hash: u64) -> Option<Loss> {
        let word = self.word(hash)?.load(Ordering::Relaxed);
        match word & KINDS {
            _ if word & !KINDS != hash & !KINDS => None,
            PURGED => Some(Loss::Purged),
            INVALIDATED => Some(Loss::Invalidated),
            _ => None,
        }
    }

    fn word(&self, hash: u64) -> Option<&AtomicU64> {
        self.0.get((hash >> 32) as usize % LOSS_SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        core::{Effect, PurgeKind},
        *,
    };

    #[test]
    fn a_loss_is_remembered_until_something_is_stored_again_or_the_slot_is_taken() {
        let losses = Losses::default();
        let (a, other_slot, same_slot) = (0x10, 1 << 32 | 0x10, 0x20);
        assert_eq!(losses.find(a), None);
        losses.note(a, Loss::Purged);
        losses.note(other_slot, Loss::Invalidated);
        assert_eq!(losses.find(a), Some(Loss::Purged));
        assert_eq!(losses.find(other_slot), Some(Loss::Invalidated));
        assert_eq!(losses.find(same_slot), None);
        losses.forget(same_slot);
        assert_eq!(losses.find(a), Some(Loss::Purged), "another key");
        losses.forget(a);
        assert_eq!(losses.find(a), None);
        losses.note(a, Loss::Purged);
        losses.note(same_slot, Loss::Purged);
        assert_eq!((losses.find(a), losses.find(same_slot)), (None, Some(Loss::Purged)));
    }

    /// Each use asks whether there is doubt, and reads the records once after each purge.
    #[test]
    fn where_each_use_asks_a_response_is_judged_only_after_a_purge() {
        let purges = Purges::new(1, 8, 8);
        purges.always_ask();
        let floor = FloorIndex::new(0);
        let keys = PurgeKeys::new(b"k"[..].into(), [floor; 2], [TagHash::new(7)], "/", None);
        let begun = purges.begin([floor; 2]);
        let check = PurgeCheck::new(begun);
        let judged = std::cell::Cell::new(0);
        let admits = |is_in_doubt| {
            let look = || {
                judged.set(judged.get() + 1);
                &keys
            };
            let mut is_unproven = false;
            let note = |doubts: Doubts| is_unproven = doubts.is_unproven;
            let is_admitted = purges.admits(&check, begun, look, || is_in_doubt, note);
            (is_admitted, is_unproven, judged.get())
        };
        purges.purge(PurgeKind::Tag(TagHash::new(8)), Effect::Gone);
        assert_eq!(admits(false), (true, false, 1), "a purge of something else");
        assert_eq!(admits(false), (true, false, 1));
        assert_eq!(admits(true), (true, true, 2), "doubt is always noted");
        assert_eq!(admits(false), (true, false, 2));
        purges.purge(PurgeKind::Tag(TagHash::new(7)), Effect::Gone);
        assert_eq!(admits(false), (false, false, 3));
        assert_eq!(admits(false), (false, false, 4), "what is purged stays purged");
    }
}
