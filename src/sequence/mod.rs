//! One order of fetches and purges.

pub(crate) mod core;
mod losses;
pub(crate) mod provenance;
mod sync;

pub(crate) use self::core::{Glob, Loss, Segment};
pub(crate) use self::provenance::{Provenance, PurgeSnapshot, Subject};

use std::{
    fmt,
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, request::Parts};
use quick_cache::DefaultHashBuilder;
use tokio::{sync::Notify, time::Instant};

use self::core::{FloorIndex, Pattern, PurgeKind, Purges, TagHash};
use self::losses::Losses;
use crate::store::StoredResponse;
use crate::{
    http::{response_fields::ResponseFields, tag_fields},
    key::{CacheKey, KeyExtractor, Origins, Target},
    tags::{TagFields, Tags},
};

/// URIs share a floor by their hash.
const DEFAULT_FLOORS: usize = 1 << 16;
pub(super) const DEFAULT_TAG_RECORDS: usize = 1 << 16;
pub(super) const DEFAULT_PREFIX_RECORDS: usize = 1 << 10;

/// Longer prefixes of keys are cut off here, and purge more.
const MAX_PREFIX_BYTES: usize = 1024;

/// Numbers the beginnings of fetches in a store, from 1 on, and what purges their answers.
///
/// A request notes [`current`](Self::current) when it arrives, before it looks into the store;
/// whatever has a larger number began after it. A purge takes a number as well: no answer that
/// it matches and whose fetch began below it is stored or served any more, nor is a fetch shared
/// that is still under way. That costs the same however much is stored, and a hit one atomic load
/// for as long as nothing is purged.
///
/// # What is kept of purges
///
/// * Of URIs and keys, those included that unsafe requests invalidate: one number for all that have
///   the same hash. They are purged together. With the default of 65,536 such floors, what is stored
///   loses one in 65,536 to each purge of something else: under 100 unsafe requests a second, half
///   of it within eight minutes. Unsafe requests to where nothing was fetched since the last purge,
///   which most are, purge nothing and take no number.
/// * Of tags, groups and prefixes of paths, of everything, and of what was purged softly: a record.
///   By default there are at most 65,536. Of prefixes of keys and patterns of paths at most
///   1,024, of 1,024 bytes each.
/// * A record is dropped as soon as nothing can match it any more. Once half of them are taken, all
///   that is stored is looked at without a rest, with each further purge and in the background, so
///   that a storm of purges takes nothing else along. If there are too many before that is done, the
///   oldest one is dropped, and whatever began before it and was not looked at since counts as purged.
pub struct Sequence {
    purges: Purges,
    floors: usize,
    hasher: DefaultHashBuilder,
    /// The moments of soft purges count from here.
    made_at: Instant,
    /// Told of purges that leave something to give back.
    purged: Notify,
    losses: Losses,
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
    /// A sequence with so many floors for URIs, of eight bytes each, and a quarter as many for keys:
    /// more keep them better apart. At least one, at most 2^24.
    pub fn with_floors(floors: usize) -> Self {
        Self::with_records(floors, DEFAULT_TAG_RECORDS, DEFAULT_PREFIX_RECORDS)
    }

    /// With so many floors, and at most so many records of what was purged: of tags and the like,
    /// of about 100 bytes each, and of prefixes of keys and patterns of paths. At least one of each.
    pub fn with_records(floors: usize, tags: usize, prefixes: usize) -> Self {
        let floors = floors.clamp(1, 1 << 24);
        Self {
            purges: Purges::new(floors + key_floors(floors), tags.max(1), prefixes.max(1)),
            floors,
            hasher: DefaultHashBuilder::default(),
            made_at: Instant::now(),
            purged: Notify::new(),
            losses: Losses::default(),
        }
    }

    /// The number of the fetch or purge that began last; 0 if none has.
    pub fn current(&self) -> u64 {
        self.purges.current()
    }

    /// The records of purges at the moment: of tags and the like, and of prefixes of keys and
    /// patterns of paths.
    pub fn records(&self) -> (usize, usize) {
        self.purges.records()
    }

    /// Numbers a fetch that begins now, and may bring an answer for as long as this is kept.
    pub(crate) fn begin(self: &Arc<Self>, subject: &Subject) -> Fetching {
        Fetching { sequence: Arc::clone(self), number: self.purges.begin(subject.named()) }
    }

    /// Whether nothing has purged the response since its fetch began. Notes since when it is stale
    /// if it was purged softly.
    ///
    /// One atomic load where nothing was purged since the response was last looked at.
    #[inline(always)]
    pub(crate) fn admits(&self, response: &StoredResponse) -> bool {
        let matter = || response.subject().matter();
        let is_stale_since = |at| response.is_stale_since(self.instant(at));
        self.purges.admits(response.mark(), response.begun(), matter, is_stale_since)
    }

    /// What it was that purged a response which is not [admitted](Self::admits).
    pub(crate) fn loss(&self, response: &StoredResponse) -> Loss {
        self.purges.loss(&response.subject().matter(), response.begun())
    }

    /// What it was that purged everything under a key, if nothing was stored there since.
    pub(crate) fn loss_of_key(&self, key: &[u8]) -> Option<Loss> {
        self.losses.find(self.hasher.hash_one(key))
    }

    /// Nothing is stored under the key any more, because of a purge.
    pub(super) fn note_loss(&self, key: &[u8], loss: Loss) {
        self.losses.note(self.hasher.hash_one(key), loss);
    }

    /// Something is stored under the key, where nothing was.
    pub(super) fn note_stored(&self, key: &[u8]) {
        self.losses.forget(self.hasher.hash_one(key));
    }

    /// What is known about purges when a request arrives.
    pub(crate) fn arrival(&self, number: u64, subject: Arc<Subject>) -> PurgeSnapshot {
        let floor = self.purges.arrive(&subject.matter(), subject.named());
        PurgeSnapshot { number, floor, subject, sequence: self.address() }
    }

    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// What purges can match of a request: its key, what its URI names by the extractor's
    /// [identity](KeyExtractor::identity), and the prefixes of its path.
    pub(crate) fn subject(&self, extractor: &dyn KeyExtractor, head: &Parts, key: &CacheKey) -> Arc<Subject> {
        let target = Target::of(head, Origins::of(extractor));
        let named = target.hash_named(extractor, (&head.uri, &head.extensions), &self.hasher);
        let places = [self.place(named), self.place_of_key(key)];
        let labels = target.path_hashes(&self.hasher).map(TagHash);
        Arc::new(Subject::new(key.clone(), places, labels, &target.path()))
    }

    /// The subject of an answer, with the tags that its request and the answer itself give it.
    pub(crate) fn tagged(
        &self,
        subject: &Arc<Subject>,
        request: &Parts,
        response: Tagged<'_>,
        own: Option<&Tags>,
    ) -> Arc<Subject> {
        let tags = [request.extensions.get::<Tags>(), own];
        let ResponseFields { has_tags, has_groups, .. } = response.outline;
        match *has_tags || *has_groups || tags.iter().any(Option::is_some) {
            true => self.with_tags(subject, request, response, tags),
            false => Arc::clone(subject),
        }
    }

    #[inline(never)]
    fn with_tags(
        &self,
        subject: &Arc<Subject>,
        request: &Parts,
        Tagged { headers, outline, fields }: Tagged<'_>,
        tags: [Option<&Tags>; 2],
    ) -> Arc<Subject> {
        let mut labels = Vec::new();
        if outline.has_tags {
            tag_fields::for_each_tag(headers, fields, |tag| labels.push(self.tag(tag)));
        }
        let tags = tags.into_iter().flatten();
        labels.extend(tags.flat_map(Tags::iter).map(|tag| self.tag(tag.as_bytes())));
        if outline.has_groups {
            let target = Target::of(request, Origins::default());
            for group in tag_fields::groups(headers, &tag_fields::CACHE_GROUPS) {
                labels.push(self.tag(group.as_bytes()));
                labels.extend(target.group_hashes(&group, &self.hasher).map(TagHash));
            }
        }
        match labels.is_empty() {
            true => Arc::clone(subject),
            false => Arc::new(subject.with(&labels)),
        }
    }

    /// What the target of a request names.
    pub(crate) fn purge_target(&self, extractor: &dyn KeyExtractor, head: &Parts, is_soft: bool) -> u64 {
        let target = Target::of(head, Origins::of(extractor));
        let hashes = target.hashes_named(extractor, (&head.uri, &head.extensions), &self.hasher);
        hashes.iter().map(|hash| self.purge_place(*hash, is_soft)).max().unwrap_or_default()
    }

    pub(crate) fn purge_key(&self, key: &CacheKey, is_soft: bool) -> u64 {
        self.purge(PurgeKind::Place(self.place_of_key(key)), is_soft)
    }

    pub(crate) fn purge_tag(&self, tag: &str, is_soft: bool) -> u64 {
        self.purge(PurgeKind::TagHash(self.tag(tag.as_bytes())), is_soft)
    }

    /// Everything at the target's path and below.
    pub(crate) fn purge_path(&self, extractor: &dyn KeyExtractor, head: &Parts, is_soft: bool) -> u64 {
        let hash = Target::of(head, Origins::of(extractor)).path_hashes(&self.hasher).last();
        self.purge(PurgeKind::TagHash(hash.map_or(TagHash::EVERYTHING, TagHash)), is_soft)
    }

    /// All at the paths of a pattern, of the target's host if there is one.
    pub(crate) fn purge_paths(
        &self,
        extractor: &dyn KeyExtractor,
        host: Option<&Parts>,
        paths: &Glob,
        is_soft: bool,
    ) -> u64 {
        let first =
            |head| Target::of(head, Origins::of(extractor)).path_hashes(&self.hasher).next().map(TagHash);
        self.purge(PurgeKind::Paths(&Pattern::new(host.and_then(first), paths.clone())), is_soft)
    }

    pub(crate) fn purge_key_prefix(&self, prefix: &[u8], is_soft: bool) -> u64 {
        let prefix = &prefix[..prefix.len().min(MAX_PREFIX_BYTES)];
        self.purge(PurgeKind::KeyPrefix(prefix), is_soft)
    }

    pub(crate) fn purge_everything(&self, is_soft: bool) -> u64 {
        self.purge(PurgeKind::TagHash(TagHash::EVERYTHING), is_soft)
    }

    /// What an unsafe request does to what has this number.
    pub(super) fn invalidate(&self, hash: u64) {
        self.purges.invalidate(self.place(hash));
    }

    fn purge_place(&self, hash: u64, is_soft: bool) -> u64 {
        self.purge(PurgeKind::Place(self.place(hash)), is_soft)
    }

    pub(super) fn purge_label(&self, hash: u64) -> u64 {
        self.purge(PurgeKind::TagHash(TagHash(hash)), false)
    }

    fn purge(&self, what: PurgeKind<'_>, is_soft: bool) -> u64 {
        let soft_at = is_soft.then(|| self.moment());
        let number = self.purges.purge(what, soft_at);
        if !matches!((what, is_soft), (PurgeKind::Place(_), false)) {
            self.purged.notify_one();
        }
        number
    }

    pub(super) fn purges(&self) -> &Purges {
        &self.purges
    }

    pub(super) fn hasher(&self) -> &DefaultHashBuilder {
        &self.hasher
    }

    /// Resolves after a purge that leaves something to give back.
    pub(super) async fn next_purge(&self) {
        self.purged.notified().await;
    }

    fn tag(&self, tag: &[u8]) -> TagHash {
        let mut state = self.hasher.build_hasher();
        state.write(b"tag");
        state.write(tag);
        TagHash(state.finish())
    }

    fn place_of_key(&self, key: &CacheKey) -> FloorIndex {
        // Apart from the URIs, so that unsafe requests reach no keys by chance.
        let place = self.hasher.hash_one(key) % key_floors(self.floors) as u64;
        FloorIndex((self.floors as u64 + place) as u32)
    }

    fn place(&self, hash: u64) -> FloorIndex {
        FloorIndex((hash % self.floors as u64) as u32)
    }

    fn moment(&self) -> u64 {
        u64::try_from(self.made_at.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn instant(&self, moment: u64) -> Instant {
        crate::http::freshness::after(self.made_at, Duration::from_nanos(moment))
    }
}

/// Keys are purged by code alone, and not by every unsafe request.
fn key_floors(floors: usize) -> usize {
    (floors / 4).max(1)
}

/// The head of a response, and which of its fields name tags beside the two that always do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tagged<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) outline: &'a ResponseFields,
    pub(crate) fields: &'a TagFields,
}

/// A fetch that may bring an answer to be stored. Dropped when it cannot any more.
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
