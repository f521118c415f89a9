use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::http::{
    not_stored::NotStored,
    request_fields::{Credentials, RequestFields},
    storing::after,
    vary::Forms,
};
use crate::{
    sequence::{Loss, Sequence},
    store::{
        Applied, Change, RequestHeaders, StoredResponse,
        memory::{Due, Version},
        parts::{Part, Parts},
    },
};

/// Variants that one key may have. The next one takes the place of the least used one, so that made-up values
/// of a selecting field do not push out variants in use.
pub(crate) const MAX_VARIANTS: usize = 32;

/// For so long after its last use a variant counts as in use, and goes after all that do not.
const IN_USE_FOR: Duration = Duration::from_secs(60);

/// All that is stored under one key: the variants of a response, parts of responses (206), and each
/// [`HitForMiss`].
///
/// Parts serve only requests for a range within them.
// In this order in memory: the variants are next to the counter that each hit touches.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Entry {
    /// By [rank](StoredResponse::rank). Most keys never have another one.
    variants: SmallVec<[Arc<StoredResponse>; 1]>,
    /// Apart from the variants, so that no part is taken for a whole.
    parts: Option<Box<Parts>>,
    markers: Vec<HitForMiss>,
    shelf: Shelf,
}

/// How [`MemoryStore`](super::MemoryStore) keeps it.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) bytes: u64,
    pub(super) version: Version,
    /// Where it is in the index of what expires.
    pub(super) due: Option<Due>,
    /// Set once the store does not hold it any more.
    is_retired: AtomicBool,
    /// The copies of threads. They go with it.
    copies: Mutex<Copies>,
}

/// Most entries have none.
pub(super) type Copies = Option<Box<Vec<Arc<Entry>>>>;

impl Shelf {
    pub(super) fn new(bytes: u64, version: Version, due: Option<Due>) -> Self {
        Self { bytes, version, due, ..Self::default() }
    }
}

/// A clone is not in the store.
impl Clone for Shelf {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A note that responses to some requests could not be shared a moment ago, so that the next burst of
/// requests does not wait for one response in vain.
///
/// It holds for requests with the same kinds of credentials: a response to one client says nothing about
/// those for all. And either for requests for one part or for all others: what is too large as a whole is not
/// as a part, and an origin without ranges may have the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HitForMiss {
    credentials: Credentials,
    /// Whether a part was asked for.
    is_for_part: bool,
    until: Instant,
}

impl HitForMiss {
    /// When it ceases to hold.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Returns one for requests like this one. Its response came in at `received_at`.
    pub(crate) fn new(
        method: &Method,
        request: &RequestFields<'_>,
        received_at: Instant,
        window: Duration,
    ) -> Self {
        Self {
            credentials: request.credentials,
            is_for_part: request.facts(method).asks_for_one_part(),
            until: after(received_at, window),
        }
    }
}

impl Entry {
    /// Returns what a change makes of an entry, `None` if nothing is left, and what came of the change.
    ///
    /// It depends on nothing else, not even on the time. Purges are the exception that a store need not see
    /// to: each request checks what it selects against the store's [`Sequence`].
    pub fn apply(current: Option<&Self>, change: Change) -> (Option<Self>, Applied) {
        let mut entry = current.cloned().unwrap_or_default();
        let applied = entry.change(change);
        ((!entry.is_empty()).then_some(entry), applied)
    }

    fn change(&mut self, change: Change) -> Applied {
        match change {
            Change::Put { response, request, at } | Change::Confirm { response, request, at } => {
                self.put(response, request.headers(), at)
            }
            Change::PutPart { part, request, at } => self.put_part(part, request.headers(), at),
            Change::HitForMiss(hit_for_miss) => self.note(hit_for_miss),
            Change::Supersede { request, fetch_number, spared_tag, hit_for_miss } => {
                let removed = self.supersede(&request, fetch_number, spared_tag.as_ref());
                hit_for_miss.map_or(removed, |hit_for_miss| self.note(hit_for_miss))
            }
            Change::Purge { number } => self.purge(number),
            Change::Prune { at } => {
                let before = self.count();
                self.prune(at);
                Applied::removed(self.count() < before)
            }
        }
    }

    /// How many things it holds.
    fn count(&self) -> usize {
        self.variants.len() + self.parts().count() + self.markers.len()
    }

    /// Returns the stored variants, the latest first, but one without `Vary` last.
    pub fn variants(&self) -> &[Arc<StoredResponse>] {
        &self.variants
    }

    /// The variant of the latest fetch.
    pub(crate) fn latest(&self) -> Option<&Arc<StoredResponse>> {
        self.variants.iter().max_by_key(|variant| variant.fetch_number())
    }

    /// Whether there is nothing worth keeping.
    pub fn is_empty(&self) -> bool {
        self.variants.is_empty() && self.parts.is_none() && self.markers.is_empty()
    }

    /// Whether there is no response, nor a part of one.
    pub(super) fn has_no_response(&self) -> bool {
        self.variants.is_empty() && self.parts.is_none()
    }

    /// Returns what it costs to keep, in bytes, without its key.
    pub fn bytes(&self) -> usize {
        let variants: usize = self.variants.iter().map(|variant| variant.bytes()).sum();
        let parts = self.parts.as_ref().map_or(0, |parts| parts.bytes() + size_of::<Parts>());
        variants
            + parts
            + if self.variants.spilled() { self.variants.capacity() * size_of::<usize>() } else { 0 }
            + self.markers.capacity() * size_of::<HitForMiss>()
    }

    /// The same in memory of its own; see [`StoredResponse::copied`].
    pub(super) fn copied(&self) -> Self {
        let variants = self.variants.iter().map(|variant| Arc::new(variant.copied())).collect();
        let (parts, markers) = (self.parts.clone(), self.markers.clone());
        Self { variants, parts, markers, shelf: Shelf::default() }
    }

    pub(super) fn put_on(self, shelf: Shelf) -> Self {
        Self { shelf, ..self }
    }

    pub(super) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Whether the store holds it, or its original. Once false, it stays so. Meaningless for a clone.
    pub(super) fn is_current(&self) -> bool {
        !self.shelf.is_retired.load(Ordering::Acquire)
    }

    /// Keeps a copy for as long as the store holds this. False if it does not any more.
    pub(super) fn keep(&self, copy: &Arc<Self>) -> bool {
        let mut copies = self.shelf.copies.lock();
        if self.is_current() {
            copies.get_or_insert_default().push(Arc::clone(copy));
        }
        self.is_current()
    }

    /// Drops a copy that its thread does not use any more.
    pub(super) fn let_go(&self, copy: &Weak<Self>) {
        let mut copies = self.shelf.copies.lock();
        let at = copies
            .iter()
            .flat_map(|copies| copies.iter())
            .position(|kept| copy.as_ptr() == Arc::as_ptr(kept));
        let gone = copies.as_mut().zip(at).map(|(copies, at)| copies.swap_remove(at));
        drop(copies);
        drop(gone);
    }

    /// Ends the use of the copies: no request that begins after this gets one. Returns whether the entry was
    /// stored until now, and the copies, to be dropped where no lock is held.
    pub(super) fn retire(&self) -> (bool, Copies) {
        let mut copies = self.shelf.copies.lock();
        let was_stored = !self.shelf.is_retired.swap(true, Ordering::AcqRel);
        for copy in copies.iter().flat_map(|copies| copies.iter()) {
            copy.shelf.is_retired.store(true, Ordering::Release);
        }
        (was_stored, copies.take())
    }

    /// How many responses it holds, parts included, and how many markers.
    pub(super) fn contents(&self) -> (usize, usize) {
        (self.variants.len() + self.parts().count(), self.markers.len())
    }

    /// Returns when [`Change::Prune`] will first remove something.
    pub fn next_expiry(&self) -> Option<Instant> {
        let variants = self.variants.iter().map(|variant| variant.expires_at());
        let parts = self.parts().map(|part| part.response().fresh_until());
        variants.chain(parts).chain(self.markers.iter().map(|marker| marker.until)).min()
    }

    fn prune(&mut self, now: Instant) {
        self.variants.retain(|variant| now < variant.expires_at());
        self.retain_parts(|part| part.is_fresh(now));
        self.markers.retain(|marker| now < marker.until);
    }

    /// Returns the variant that a request selects, if it is not purged: the latest one that has a `Vary`, or
    /// the one without (RFC 9111 §4.1).
    #[inline(always)]
    pub(crate) fn select(
        &self,
        request: &RequestFields<'_>,
        sequence: &Sequence,
    ) -> Option<&Arc<StoredResponse>> {
        if let Some(first) = self.variants.first()
            && sequence.admits(first)
            && first.is_written_for(request)
        {
            return Some(first);
        }
        self.select_by_form(request, sequence)
    }

    /// As [`select`](Self::select), where a normal form of some field may be needed.
    #[inline(never)]
    fn select_by_form(
        &self,
        request: &RequestFields<'_>,
        sequence: &Sequence,
    ) -> Option<&Arc<StoredResponse>> {
        let mut forms = Forms::default();
        let answers = |variant: &&Arc<StoredResponse>| {
            sequence.admits(*variant) && variant.matches(request, &mut forms)
        };
        self.variants.iter().find(answers)
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().flat_map(|parts| parts.iter())
    }

    /// Returns a fresh part that has all of the range that a request asks for.
    pub(crate) fn select_part(
        &self,
        request: &RequestFields<'_>,
        sequence: &Sequence,
        now: Instant,
    ) -> Option<&Part> {
        self.parts.as_ref()?.select(request, sequence, now)
    }

    fn put_part(&mut self, part: Part, request: &HeaderMap, now: Instant) -> Applied {
        self.prune(now);
        let response = part.response();
        if self.variants.iter().any(|variant| variant.supersedes(response)) {
            return Applied::NotStored(NotStored::Outdated);
        }
        let is_fresh = response.is_fresh(now);
        let mut forms = Forms::default();
        self.retain_parts(|stored| !is_superseded(stored, response, request, &mut forms));
        let audience = response.terms().audience;
        let is_stored = self.parts.get_or_insert_default().put(part, now);
        self.retain_parts(|_| true);
        if is_stored {
            self.markers.retain(|marker| !marker.is_for_part || !marker.credentials.admitted_to(audience));
        }
        match is_stored {
            true => Applied::Stored,
            false if is_fresh => Applied::NotStored(NotStored::Outdated),
            false => Applied::NotStored(NotStored::Expired),
        }
    }

    fn retain_parts(&mut self, keeps: impl FnMut(&Arc<StoredResponse>) -> bool) {
        if let Some(parts) = &mut self.parts {
            parts.retain(keeps);
            if parts.is_empty() {
                self.parts = None;
            }
        }
    }

    /// Whether responses to such requests could not be shared a moment ago.
    pub(crate) fn is_hit_for_miss(&self, credentials: Credentials, is_for_part: bool, now: Instant) -> bool {
        self.hit_for_miss_until(credentials, is_for_part).is_some_and(|until| now < until)
    }

    /// Until when that holds, or held.
    pub(crate) fn hit_for_miss_until(&self, credentials: Credentials, is_for_part: bool) -> Option<Instant> {
        let has_kind =
            |marker: &&HitForMiss| (marker.credentials, marker.is_for_part) == (credentials, is_for_part);
        self.markers.iter().filter(has_kind).map(|marker| marker.until).max()
    }

    fn put(&mut self, response: Arc<StoredResponse>, request: &HeaderMap, now: Instant) -> Applied {
        self.prune(now);
        let same = |variant: &Arc<StoredResponse>| variant.selection() == response.selection();
        let is_late = self.variants.iter().any(|variant| variant.supersedes(&response));
        if is_late || self.parts.as_ref().is_some_and(|parts| parts.outdate(&response)) {
            return Applied::NotStored(NotStored::Outdated);
        }
        if response.expires_at() <= now {
            return Applied::NotStored(NotStored::Expired);
        }
        if let Some(before) = self.variants.iter().find(|variant| same(variant)) {
            response.inherit_use(before);
        }
        self.variants.retain(|variant| !same(variant));
        let mut forms = Forms::default();
        self.variants.retain(|variant| !is_superseded(variant, &response, request, &mut forms));
        self.retain_parts(|part| !is_superseded(part, &response, request, &mut forms));
        if self.variants.len() >= MAX_VARIANTS {
            self.drop_least_used(now, None);
        }
        let place = self.variants.partition_point(|variant| variant.rank() > response.rank());
        self.retain_parts(|part| {
            part.selection() != response.selection() || part.fetch_number() > response.fetch_number()
        });
        if response.is_fresh(now) {
            let audience = response.terms().audience;
            self.markers.retain(|marker| !marker.credentials.admitted_to(audience));
        }
        self.variants.reserve_exact(1);
        self.variants.insert(place, response);
        Applied::Stored
    }

    /// Drops a variant that is not in use, or else the one with the earliest last use; not the one of this
    /// fetch.
    fn drop_least_used(&mut self, now: Instant, spared: Option<&Arc<StoredResponse>>) {
        let use_of = |variant: &Arc<StoredResponse>| {
            let used_at = variant.used_at();
            let is_in_use = used_at.is_some_and(|used_at| now < after(used_at, IN_USE_FOR));
            (is_in_use, used_at.unwrap_or(variant.received_at()), variant.fetch_number())
        };
        let is_spared =
            |variant: &Arc<StoredResponse>| spared.is_some_and(|spared| Arc::ptr_eq(spared, variant));
        let others = self.variants.iter().enumerate().filter(|(_, variant)| !is_spared(variant));
        if let Some((least, _)) = others.min_by_key(|(_, variant)| use_of(variant)) {
            self.variants.remove(least);
        }
    }

    fn supersede(&mut self, request: &RequestHeaders, number: u64, spared: Option<&HeaderValue>) -> Applied {
        if self.has_no_response() {
            return Applied::Unchanged;
        }
        let (before, request, mut forms) = (self.count(), request.fields(), Forms::default());
        let mut stays = |stored: &Arc<StoredResponse>| {
            stored.fetch_number() >= number || !stored.matches(&request, &mut forms)
        };
        self.variants.retain(|variant| stays(variant));
        let is_spared = |part: &Arc<StoredResponse>| spared.is_some() && part.strong_tag().as_ref() == spared;
        self.retain_parts(|part| stays(part) || is_spared(part));
        Applied::removed(self.count() < before)
    }

    fn purge(&mut self, number: u64) -> Applied {
        let before = self.count();
        self.variants.retain(|variant| variant.fetch_number() > number);
        self.retain_parts(|part| part.fetch_number() > number);
        self.markers.clear();
        Applied::removed(self.count() < before)
    }

    /// The variants and the responses of the parts.
    pub(super) fn responses(&self) -> impl Iterator<Item = &Arc<StoredResponse>> {
        self.variants.iter().chain(self.parts().map(Part::response))
    }

    /// Drops what is purged, and says by what.
    pub(super) fn sift(&mut self, sequence: &Sequence) -> Option<Loss> {
        let lost = self.responses().map(|stored| (!sequence.admits(stored)).then(|| sequence.loss(stored)));
        let loss = lost.fold(None, Option::or);
        self.variants.retain(|variant| sequence.admits(variant));
        self.retain_parts(|part| sequence.admits(part));
        loss
    }

    fn note(&mut self, hit_for_miss: HitForMiss) -> Applied {
        let kind = (hit_for_miss.credentials, hit_for_miss.is_for_part);
        self.markers.retain(|other| (other.credentials, other.is_for_part) != kind);
        self.markers.push(hit_for_miss);
        Applied::Stored
    }

    /// Makes room: drops parts, then the variants that are used least, until the rest takes no more than
    /// `max_bytes`. The latest variant stays, whatever it takes.
    pub fn shrink_to(&mut self, max_bytes: usize) {
        while self.bytes() > max_bytes {
            match &mut self.parts {
                Some(parts) if parts.len() > 1 || !self.variants.is_empty() => {
                    parts.drop_oldest();
                    self.retain_parts(|_| true);
                }
                _ if self.variants.len() > 1 => {
                    // By its address: what was restored together has one number.
                    let latest = self.latest().cloned();
                    self.drop_least_used(Instant::now(), latest.as_ref());
                }
                _ => return,
            }
        }
    }
}

/// Whether a stored response is outdated because a later fetch brought a response without `Vary` for a
/// request with these fields, which would go on to select the stored one.
fn is_superseded(
    stored: &StoredResponse,
    by: &StoredResponse,
    request: &HeaderMap,
    forms: &mut Forms,
) -> bool {
    by.selection().is_none()
        && stored.selection().is_some()
        && stored.fetch_number() < by.fetch_number()
        && stored.matches(&RequestFields::of(request).with(Credentials::default()), forms)
}
