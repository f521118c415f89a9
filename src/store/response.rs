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
    fresh_until: Instant,
    bytes: usize,
    refresh: RefreshMark,
    mark: Mark,
    /// What this is a copy of, if it is one.
    original: Option<Arc<Self>>,
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
        headers: HeaderMap,
        body: Bytes,
        trailers: Option<Arc<HeaderMap>>,
        selection: Option<Selection>,
        terms: Terms,
        origin: Origin,
    ) -> Self {
        let headers = complete_headers(status, headers, body.len());
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
            fresh_until: origin.fresh_until(&terms),
            origin,
            bytes,
            refresh: RefreshMark::default(),
            original: None,
        }
    }

    /// The same in memory of its own, so that its clones share no counter with those of the original.
    pub(super) fn copied(self: &Arc<Self>) -> Self {
        Self {
            status: self.status,
            headers: copied_headers(&self.headers),
            body: copied_bytes(&self.body),
            trailers: self.trailers.as_deref().map(|trailers| Arc::new(copied_headers(trailers))),
            selection: self.selection.clone(),
            terms: self.terms,
            origin: self.origin.clone(),
            fresh_until: self.fresh_until,
            bytes: self.bytes,
            refresh: RefreshMark::default(),
            mark: Mark::new(self.origin.begun),
            original: Some(Arc::clone(self.original.as_ref().unwrap_or(self))),
        }
    }

    /// Whether both are the same stored response, or copies of it.
    pub(crate) fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self.original.as_ref().unwrap_or(self), other.original.as_ref().unwrap_or(other))
    }

    /// What is to happen once for a response and all its copies is noted at the original.
    pub(super) fn refresh(&self) -> &RefreshMark {
        self.original.as_ref().map_or(&self.refresh, |original| &original.refresh)
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

    /// As [`refresh`](Self::refresh): what purged the original purged its copies.
    pub(super) fn mark(&self) -> &Mark {
        self.original.as_ref().map_or(&self.mark, |original| &original.mark)
    }

    /// Softly purged: not fresh from this moment on.
    pub(super) fn is_stale_since(&self, at: Instant) {
        let after = at.saturating_duration_since(self.origin.received_at);
        self.mark().is_stale_after(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
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
        match self.mark().stale_after() {
            None => self.fresh_until,
            Some(_) => self.until(Duration::ZERO),
        }
    }

    /// When a window closes that opens when the response ceases to be fresh: when its lifetime
    /// ends, or when it was purged softly before that.
    fn until(&self, window: Duration) -> Instant {
        let until = self.origin.until(&self.terms, window);
        match self.mark().stale_after() {
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
        // The first field: to look for it by its name would cost more than to set it.
        let age = self.age(now).as_secs();
        if age > 0
            && let Some(field) = response.headers_mut().values_mut().next()
        {
            *field = age_field(age);
        }
        status.mark_stored(&mut response);
        response
    }
}

/// The fields of the message alone, with a `Date` (RFC 9110 §6.6.1) and a true `Content-Length`,
/// behind an `Age` and a `Cache-Status` as the youngest of hits has them.
fn complete_headers(status: StatusCode, mut fields: HeaderMap, length: usize) -> HeaderMap {
    remove_hop_by_hop(&mut fields);
    if date(&fields, SystemTime::now()).is_none()
        && let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now()))
    {
        fields.insert(header::DATE, now);
    }
    if status == StatusCode::NO_CONTENT {
        fields.remove(header::CONTENT_LENGTH);
    } else {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut headers = HeaderMap::with_capacity(fields.keys_len() + 2);
    headers.insert(header::AGE, HeaderValue::from_static("0"));
    for (name, value) in fields.iter().filter(|(name, _)| **name != header::AGE) {
        headers.append(name.clone(), value.clone());
    }
    headers.append(CACHE_STATUS, CacheStatus::hit().to_value());
    // A clone is exact, while a map that was given a capacity keeps room for fields that never come.
    headers.clone()
}

/// The numbers of four digits, one after the other.
static DIGITS: &str = {
    const BYTES: [u8; 40_000] = {
        let mut digits = [0; 40_000];
        let mut at = 0;
        while at < digits.len() {
            let (number, place) = (at / 4, at % 4);
            digits[at] = b'0' + (number / [1000, 100, 10, 1][place] % 10) as u8;
            at += 1;
        }
        digits
    };
    match std::str::from_utf8(&BYTES) {
        Ok(digits) => digits,
        Err(_) => "",
    }
};

/// Without an allocation for the first hours.
fn age_field(seconds: u64) -> HeaderValue {
    let width = match seconds {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        1000..=9999 => 4,
        _ => return HeaderValue::from(seconds),
    };
    let end = (seconds as usize + 1) * 4;
    HeaderValue::from_static(&DIGITS[end - width..end])
}

fn copied_headers(headers: &HeaderMap) -> HeaderMap {
    let mut copy = headers.clone();
    // How it came about is told by a string that is in no memory of anybody's.
    for (_, value) in copy.iter_mut().filter(|(name, _)| **name != CACHE_STATUS) {
        let is_sensitive = value.is_sensitive();
        if let Ok(own) = HeaderValue::from_maybe_shared(copied_bytes(value.as_bytes())) {
            *value = own;
            value.set_sensitive(is_sensitive);
        }
    }
    copy
}

/// The first clone of bytes allocates their counter: it is made here.
fn copied_bytes(bytes: &[u8]) -> Bytes {
    let copy = Bytes::copy_from_slice(bytes);
    drop(copy.clone());
    copy
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_the_number_whether_it_is_written_out_or_not() {
        for seconds in (0..10_100).chain([u64::MAX]) {
            assert_eq!(age_field(seconds).as_bytes(), seconds.to_string().as_bytes());
        }
    }
}
