use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio::time::Instant;

use super::{
    head::{self, Head, StoredHead},
    refresh::RefreshLease,
};
use crate::{
    body::Body,
    http::{
        conditions::is_strong_tag,
        request_fields::RequestFields,
        response_fields::ResponseFields,
        storing::{Freshness, after},
        vary::{Forms, Selection},
    },
    origin::AnsweredBy,
    sequence::{Checked, PurgeCheck, PurgeKeys},
};

/// A complete response as the store keeps it.
///
/// Everything that a hit has to know was parsed when it was stored.
///
/// In this order in memory: what a hit reads comes first, for it is most often not in the processor's cache.
#[derive(Debug)]
#[repr(C)]
pub struct StoredResponse {
    purge_check: PurgeCheck,
    /// The response of which this is a copy, if it is one.
    original: Option<Arc<Self>>,
    selection: Option<Selection>,
    fresh_until: Instant,
    origin: Origin,
    head: Head,
    body: Bytes,
    trailers: Option<Arc<HeaderMap>>,
    status: StatusCode,
    answered_by: Option<AnsweredBy>,
    last_use: LastUse,
    terms: Freshness,
    bytes: usize,
    refresh_lease: RefreshLease,
}

/// The age of a response when it was served last, in whole seconds, and one more. 0: never.
#[derive(Debug, Default)]
struct LastUse(AtomicU32);

impl LastUse {
    fn at_age(seconds: u64) -> u32 {
        // One less than the most, for the one more.
        seconds.min(u64::from(u32::MAX) - 1) as u32 + 1
    }

    /// The age, if there is one.
    fn age(&self) -> Option<Duration> {
        let seconds = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_secs(seconds.into()))
    }
}

/// When and how old a response came from the origin.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Origin {
    pub(crate) received_at: Instant,
    pub(crate) initial_age: Duration,
    /// From the request to the response.
    pub(crate) delay: Duration,
    /// The number of the fetch in the store's sequence.
    pub(crate) fetch_number: u64,
    pub(crate) purge_keys: Arc<PurgeKeys>,
}

impl Origin {
    /// For a response whose head came in now, to a request that was sent at `sent_at`.
    pub(crate) fn new(
        response_fields: &ResponseFields,
        sent_at: Instant,
        fetch_number: u64,
        purge_keys: Arc<PurgeKeys>,
    ) -> Self {
        let received_at = Instant::now();
        let delay = received_at.saturating_duration_since(sent_at);
        Self { received_at, initial_age: response_fields.initial_age(delay), delay, fetch_number, purge_keys }
    }

    /// When a response ceases to be fresh.
    pub(crate) fn fresh_until(&self, terms: &Freshness) -> Instant {
        self.until(terms, Duration::ZERO)
    }

    /// When a window after the lifetime closes.
    fn until(&self, terms: &Freshness, window: Duration) -> Instant {
        terms.closes_at(self.received_at, (self.delay, self.initial_age), window)
    }
}

impl StoredResponse {
    pub(crate) fn new(
        kept: StoredHead,
        trailers: Option<Arc<HeaderMap>>,
        selection: Option<Selection>,
        terms: Freshness,
        origin: Origin,
    ) -> Self {
        let (status, head, body) = kept.into_parts();
        let bytes = body.len()
            + head.bytes()
            + trailers.as_deref().map_or(0, head::bytes)
            + selection.as_ref().map_or(0, Selection::heap_bytes)
            + origin.purge_keys.bytes()
            + size_of::<Self>();
        Self {
            status,
            answered_by: None,
            head,
            body,
            trailers,
            selection,
            terms,
            purge_check: PurgeCheck::new(origin.fetch_number),
            fresh_until: origin.fresh_until(&terms),
            origin,
            bytes,
            refresh_lease: RefreshLease::default(),
            last_use: LastUse::default(),
            original: None,
        }
    }

    /// The same of one of several origins.
    pub(crate) fn answered_by(self, origin: Option<AnsweredBy>) -> Self {
        Self { answered_by: origin, ..self }
    }

    /// Which of several origins it came from, if that is known.
    pub(crate) fn answering_origin(&self) -> Option<AnsweredBy> {
        self.answered_by
    }

    /// The same in memory of its own, so that its clones share no counter with those of the original.
    pub(super) fn copied(self: &Arc<Self>) -> Self {
        let mut body = Bytes::copy_from_slice(&self.body);
        let head = Head::ready(self.head.complete().into_owned(), &mut body);
        Self {
            status: self.status,
            answered_by: self.answered_by,
            head,
            body,
            trailers: self.trailers.clone(),
            selection: self.selection.clone(),
            terms: self.terms,
            origin: self.origin.clone(),
            fresh_until: self.fresh_until,
            bytes: self.bytes,
            refresh_lease: RefreshLease::default(),
            last_use: LastUse::default(),
            purge_check: PurgeCheck::new(self.origin.fetch_number),
            original: Some(Arc::clone(self.original.as_ref().unwrap_or(self))),
        }
    }

    /// Whether it is this response, or the copy of a thread.
    pub(crate) fn is_or_copies(&self, other: &Arc<Self>) -> bool {
        std::ptr::eq(self, &**other)
            || self.original.as_ref().is_some_and(|original| Arc::ptr_eq(original, other))
    }

    /// That of the original: a response and its copies are refreshed once.
    pub(super) fn refresh_lease(&self) -> &RefreshLease {
        self.original.as_ref().map_or(&self.refresh_lease, |original| &original.refresh_lease)
    }

    /// Notes that it was served at this age, in whole seconds. Most often another request was served in
    /// the same second, and there is nothing to write.
    #[inline]
    fn note_use(&self, age: u64) {
        let served = LastUse::at_age(age);
        if self.last_use.0.load(Ordering::Relaxed) != served {
            self.set_last_use(served);
        }
    }

    #[inline(never)]
    fn set_last_use(&self, served: u32) {
        for response in [Some(self), self.original.as_deref()].into_iter().flatten() {
            response.last_use.0.store(served, Ordering::Relaxed);
        }
    }

    /// Takes the place of another response, and counts as used if that one was.
    pub(super) fn inherit_use(&self, other: &Self) {
        if other.last_use.age().is_some() && self.last_use.age().is_none() {
            self.set_last_use(LastUse::at_age(self.origin.initial_age.as_secs()));
        }
    }

    /// When it was served last, to the second, if it was.
    pub(super) fn used_at(&self) -> Option<Instant> {
        let age = self.last_use.age()?;
        Some(after(self.origin.received_at, age.saturating_sub(self.origin.initial_age)))
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the header fields as the origin sent them, without `Age` and those that belong to a
    /// connection.
    ///
    /// Most responses are kept in less room than a map takes: it is made anew for each call.
    pub fn headers(&self) -> HeaderMap {
        self.head.message()
    }

    /// Returns the same with those that a hit adds. Costs nothing for a head that is kept as a map.
    pub(super) fn hit_fields(&self) -> Cow<'_, HeaderMap> {
        self.head.complete()
    }

    /// Returns the first value of a field, without making the others.
    pub(crate) fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        self.head.value(name)
    }

    /// Returns its entity tag, if that is a strong one (RFC 9110 §8.8.1).
    pub(crate) fn strong_tag(&self) -> Option<HeaderValue> {
        self.value(&header::ETAG).filter(is_strong_tag)
    }

    /// Returns the whole body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns what it costs to keep, in bytes: its fields, body, trailers and selecting values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns when its head came from the origin.
    pub fn received_at(&self) -> Instant {
        self.origin.received_at
    }

    /// Returns the number of its fetch in the store's [`Sequence`](super::Sequence).
    pub fn fetch_number(&self) -> u64 {
        self.origin.fetch_number
    }

    /// Returns how old it is: its age when it came in and the time since (RFC 9111 §4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.origin.initial_age.saturating_add(now.saturating_duration_since(self.origin.received_at))
    }

    /// Whether it may be served without asking the origin.
    pub fn is_fresh(&self, now: Instant) -> bool {
        now < self.fresh_until()
    }

    /// Whether the origin has to confirm it before it is used, because it may have been purged: it is not
    /// fresh, and serves only where a fetch failed. See [`Purge::unproven`](crate::Purge::unproven).
    pub fn is_unproven(&self) -> bool {
        self.purge_check().is_unproven()
    }

    /// Whether it is fresh, and to be refreshed before it is not.
    #[inline]
    pub(crate) fn is_refresh_due(&self, now: Instant) -> bool {
        self.terms.lead.is_some_and(|lead| {
            let end = now.checked_add(lead.of(self.terms.fresh_for));
            end.is_none_or(|end| end >= self.fresh_until)
        })
    }

    /// Whether it may be served while a fresh one is being fetched (RFC 5861 §3).
    pub fn is_usable_while_revalidating(&self, now: Instant) -> bool {
        !self.is_unproven() && self.is_usable_for(self.terms.stale_while_revalidate_for, now)
    }

    /// Whether it may be served because the origin fails (RFC 5861 §4).
    pub fn is_usable_on_error(&self, now: Instant) -> bool {
        self.is_usable_for(self.terms.stale_if_error_for, now)
    }

    /// Whether it may be served to a client that takes responses which are stale for so long (RFC 9111
    /// §5.2.1.2). The response may forbid that (§4.2.4).
    pub(crate) fn is_usable_if_stale_by(&self, window: Duration, now: Instant) -> bool {
        !self.terms.forbids_stale && !self.is_unproven() && now <= self.until(window)
    }

    /// Whether no more than this time has passed since it ceased to be fresh.
    pub(crate) fn is_stale_by_at_most(&self, limit: Duration, now: Instant) -> bool {
        now < self.until(limit)
    }

    fn is_usable_for(&self, window: Duration, now: Instant) -> bool {
        // A window of zero closes when the lifetime ends, to the nanosecond.
        now < self.until(window)
    }

    /// Returns when it ceases to be of any use.
    pub fn expires_at(&self) -> Instant {
        let Freshness { stale_while_revalidate_for, stale_if_error_for, revalidate_for, .. } = self.terms;
        let window = stale_while_revalidate_for.max(stale_if_error_for).max(revalidate_for);
        self.until(window)
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether it would be fresh, had it not been purged softly or become unproven.
    pub(crate) fn is_stale_by_purge(&self, now: Instant) -> bool {
        now < self.fresh_until && !self.is_fresh(now)
    }

    pub(crate) fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    /// How many seconds it stays fresh; less than 0 if it is stale.
    pub(crate) fn ttl(&self, now: Instant) -> i64 {
        let until = self.fresh_until();
        let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match until.checked_duration_since(now) {
            Some(left) => seconds(left),
            None => -seconds(now.saturating_duration_since(until)),
        }
    }

    pub(crate) fn terms(&self) -> &Freshness {
        &self.terms
    }

    pub(crate) fn trailers(&self) -> Option<&Arc<HeaderMap>> {
        self.trailers.as_ref()
    }

    pub(crate) fn fresh_until(&self) -> Instant {
        match self.purge_check().is_untouched() {
            true => self.fresh_until,
            false => self.doubted_until(),
        }
    }

    #[cold]
    fn doubted_until(&self) -> Instant {
        match self.is_unproven() {
            true => self.origin.received_at,
            false => self.until(Duration::ZERO),
        }
    }

    /// When a window closes that opens when the response ceases to be fresh: when its lifetime
    /// ends, or when it was purged softly before that.
    fn until(&self, window: Duration) -> Instant {
        let until = self.origin.until(&self.terms, window);
        match self.purge_check().stale_after() {
            None => until,
            Some(nanos) => {
                let purged_at = after(self.origin.received_at, Duration::from_nanos(nanos));
                until.min(after(purged_at, window))
            }
        }
    }

    /// Its place among the responses of its key, the greatest first: one without `Vary` behind those with
    /// one, since resources omit the field where a request expresses no preference (RFC 9111 §4.1), and else
    /// the latest first.
    pub(super) fn rank(&self) -> (bool, u64) {
        (self.selection.is_some(), self.fetch_number())
    }

    /// Whether it came from a later fetch than another response, and the same requests select it.
    pub(super) fn supersedes(&self, other: &Self) -> bool {
        self.fetch_number() > other.fetch_number()
            && (self.selection.is_none() || self.selection == other.selection)
    }

    /// Whether a request selects it that writes the selecting fields in the same way.
    #[inline]
    pub(super) fn is_written_for(&self, request: &RequestFields<'_>) -> bool {
        request.credentials.admitted_to(self.terms.audience)
            && self.selection.as_ref().is_none_or(|selection| selection.is_written_by(request))
    }

    /// Whether a request with these fields selects it, and may have it.
    #[inline]
    pub(crate) fn matches(&self, request: &RequestFields<'_>, forms: &mut Forms) -> bool {
        request.credentials.admitted_to(self.terms.audience) && self.is_selected_by(request, forms)
    }

    /// Whether a request with these fields selects it by its `Vary` (RFC 9111 §4.1).
    #[inline]
    pub(crate) fn is_selected_by(&self, request: &RequestFields<'_>, forms: &mut Forms) -> bool {
        self.selection.as_ref().is_none_or(|selection| selection.matches(request, forms))
    }

    /// Returns the response of a hit, with its `Age` (RFC 9111 §5.1) and its `Cache-Status`, and the body
    /// wrapped.
    ///
    /// A response to HEAD says how long the body would be, and has none.
    // Inlined, so that the response is not moved once more.
    #[inline(always)]
    pub(crate) fn to_hit<B, T>(
        &self,
        head_only: bool,
        now: Instant,
        wrap: impl FnOnce(Body<B>) -> T,
    ) -> Response<T> {
        // Loads from memory what may not be in the processor's cache, while the rest is made.
        std::hint::black_box((self.head.touch(), self.body.is_unique()));
        let body =
            if head_only { Body::default() } else { Body::stored(self.body.clone(), self.trailers.clone()) };
        let mut headers = self.head.to_map();
        // It is the first field: a lookup by its name would cost more than all of this.
        let age = self.age(now).as_secs();
        self.note_use(age);
        if age > 0
            && let Some(field) = headers.values_mut().next()
        {
            *field = head::number(age);
        }
        let mut response = Response::new(wrap(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

impl Checked for StoredResponse {
    /// That of the original: what purged it purged its copies.
    fn purge_check(&self) -> &PurgeCheck {
        self.original.as_ref().map_or(&self.purge_check, |original| &original.purge_check)
    }

    fn fetch_number(&self) -> u64 {
        self.origin.fetch_number
    }

    fn purge_keys(&self) -> &Arc<PurgeKeys> {
        &self.origin.purge_keys
    }

    fn note_stale_since(&self, at: Instant) {
        let after = at.saturating_duration_since(self.origin.received_at);
        self.purge_check().is_stale_after(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
    }
}
