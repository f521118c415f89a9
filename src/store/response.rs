use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use tokio::time::Instant;

use super::{lineage::Subject, purges::Mark, refresh::RefreshMark};
use crate::{
    body::Body,
    http::{
        fields::remove_hop_by_hop,
        freshness::{after, date, initial_age},
        storing::{Credentials, Terms},
        vary::Selection,
    },
    status::{CACHE_STATUS, CacheStatus},
};

/// What a header map needs on the heap for one field, apart from its value.
const FIELD_OVERHEAD: usize = 112;

/// A complete response as the store keeps it.
///
/// Everything that a hit has to know was parsed when it was stored.
#[derive(Debug)]
pub struct StoredResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<Arc<HeaderMap>>,
    selection: Option<Selection>,
    terms: Terms,
    origin: Origin,
    bytes: usize,
    pub(super) refresh: RefreshMark,
    mark: Mark,
}

/// When and how old a response came from the origin.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) received_at: Instant,
    pub(crate) initial_age: Duration,
    /// From the request to the response.
    pub(crate) delay: Duration,
    /// The number of the fetch in the store's sequence.
    pub(crate) begun: u64,
    pub(crate) subject: Arc<Subject>,
}

impl Origin {
    /// For a response whose head came in now, to a request that was sent `delay` ago.
    pub(crate) fn new(headers: &HeaderMap, delay: Duration, begun: u64, subject: Arc<Subject>) -> Self {
        Self {
            received_at: Instant::now(),
            initial_age: initial_age(headers, delay, SystemTime::now()),
            delay,
            begun,
            subject,
        }
    }

    /// When a response ceases to be fresh.
    pub(crate) fn fresh_until(&self, terms: &Terms) -> Instant {
        self.until(terms, Duration::ZERO)
    }

    /// When a window after the lifetime closes.
    fn until(&self, terms: &Terms, window: Duration) -> Instant {
        let age = if terms.is_ours { self.delay } else { self.initial_age };
        after(self.received_at, terms.fresh_for.saturating_add(window).saturating_sub(age))
    }
}

impl StoredResponse {
    pub(crate) fn new(
        status: StatusCode,
        mut headers: HeaderMap,
        body: Bytes,
        trailers: Option<Arc<HeaderMap>>,
        selection: Option<Selection>,
        terms: Terms,
        origin: Origin,
    ) -> Self {
        complete_headers(status, &mut headers, body.len());
        // A clone is exact, while a map that grew keeps room for fields that never come.
        let headers = headers.clone();
        let bytes = body.len()
            + header_bytes(&headers)
            + trailers.as_deref().map_or(0, header_bytes)
            + selection.as_ref().map_or(0, Selection::heap_bytes)
            + origin.subject.bytes()
            + size_of::<Self>();
        Self {
            status,
            headers,
            body,
            trailers,
            selection,
            terms,
            mark: Mark::new(origin.begun),
            origin,
            bytes,
            refresh: RefreshMark::default(),
        }
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The header fields, without those that belong to a connection. `Age` is a placeholder.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The whole body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What it costs to keep: its fields and their table, body, trailers, selecting values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When its head came from the origin.
    pub fn received_at(&self) -> Instant {
        self.origin.received_at
    }

    /// The number of its fetch in the store's [`Sequence`](super::Sequence).
    pub fn begun(&self) -> u64 {
        self.origin.begun
    }

    /// How old it is: its age when it came in and the time since (RFC 9111 §4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.origin.initial_age.saturating_add(now.saturating_duration_since(self.origin.received_at))
    }

    /// Whether it may be served without asking the origin.
    pub fn is_fresh(&self, now: Instant) -> bool {
        now < self.fresh_until()
    }

    /// Whether it may be served while a fresh one is being fetched (RFC 5861 §3).
    pub fn is_usable_while_revalidating(&self, now: Instant) -> bool {
        self.is_usable_for(self.terms.stale_while_revalidate_for, now)
    }

    /// Whether it may be served because the origin fails (RFC 5861 §4).
    pub fn is_usable_on_error(&self, now: Instant) -> bool {
        self.is_usable_for(self.terms.stale_if_error_for, now)
    }

    /// Whether it may be served to a client that takes answers which are stale for so long
    /// (RFC 9111 §5.2.1.2), which the answer may forbid (§4.2.4).
    pub(crate) fn is_usable_if_stale_by(&self, window: Duration, now: Instant) -> bool {
        !self.terms.forbids_stale && now <= self.until(window)
    }

    fn is_usable_for(&self, window: Duration, now: Instant) -> bool {
        // A window of zero closes when the lifetime ends, to the nanosecond.
        now < self.until(window)
    }

    /// From when on it is of no use at all.
    pub fn expires_at(&self) -> Instant {
        let Terms { stale_while_revalidate_for, stale_if_error_for, revalidate_for, .. } = self.terms;
        let window = stale_while_revalidate_for.max(stale_if_error_for).max(revalidate_for);
        self.until(window)
    }

    pub(crate) fn subject(&self) -> &Arc<Subject> {
        &self.origin.subject
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Softly purged: not fresh from this moment on.
    pub(super) fn is_stale_since(&self, at: Instant) {
        let after = at.saturating_duration_since(self.origin.received_at);
        self.mark.is_stale_after(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn selection(&self) -> Option<&Selection> {
        self.selection.as_ref()
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(crate) fn trailers(&self) -> Option<&Arc<HeaderMap>> {
        self.trailers.as_ref()
    }

    pub(crate) fn fresh_until(&self) -> Instant {
        self.until(Duration::ZERO)
    }

    /// When a window closes that opens when the response ceases to be fresh: when its lifetime
    /// ends, or when it was purged softly before that.
    fn until(&self, window: Duration) -> Instant {
        let until = self.origin.until(&self.terms, window);
        match self.mark.stale_after() {
            None => until,
            Some(nanos) => {
                let purged_at = after(self.origin.received_at, Duration::from_nanos(nanos));
                until.min(after(purged_at, window))
            }
        }
    }

    /// Whether it answers a request with these fields.
    pub(crate) fn matches(&self, request: &HeaderMap, credentials: Credentials) -> bool {
        credentials.admitted_to(self.terms.audience)
            && self.selection.as_ref().is_none_or(|selection| selection.matches(request))
    }

    /// The response as a client gets it, with its `Age` (RFC 9111 §5.1) and how it came about.
    ///
    /// An answer to HEAD says how long the body would be, and has none.
    pub(crate) fn to_response<B>(
        &self,
        head_only: bool,
        now: Instant,
        status: CacheStatus,
    ) -> Response<Body<B>> {
        let body =
            if head_only { Body::default() } else { Body::stored(self.body.clone(), self.trailers.clone()) };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        // `insert` would let a full map grow before it looks for the name.
        if let Some(age) = response.headers_mut().get_mut(header::AGE) {
            *age = age_field(self.age(now).as_secs());
        }
        status.mark_stored(&mut response);
        response
    }
}

/// The fields of the message alone, with a `Date` (RFC 9110 §6.6.1), a true `Content-Length`,
/// and room for `Age` and `Cache-Status`, so that a hit need not make it.
fn complete_headers(status: StatusCode, headers: &mut HeaderMap, length: usize) {
    remove_hop_by_hop(headers);
    if date(headers, SystemTime::now()).is_none()
        && let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(header::DATE, now);
    }
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    } else {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers.insert(header::AGE, HeaderValue::from_static("0"));
    headers.append(CACHE_STATUS, CacheStatus::hit().to_value());
}

/// Young answers are the most of all, and theirs costs no allocation.
fn age_field(seconds: u64) -> HeaderValue {
    const YOUNG: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    match usize::try_from(seconds).ok().and_then(|seconds| YOUNG.get(seconds)) {
        Some(digit) => HeaderValue::from_static(digit),
        None => HeaderValue::from(seconds),
    }
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}
