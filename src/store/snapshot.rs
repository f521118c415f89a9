//! Stored responses in a form that leaves the process.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::time::Instant;

use super::{HeadBuilder, Origin, StoredResponse};
#[cfg(feature = "redis")]
use crate::http::{request_fields::RequestFields, vary::Forms};
use crate::{
    http::{
        request_fields::Credentials,
        storing::{self, Freshness},
        vary::Selection,
    },
    key::CacheKey,
    sequence::{Checked, Loading, PurgeTexts, Sequence},
};

/// A body up to this length is copied: the rest of an envelope may be as long, and is charged to no store.
const COPIED_BODY: usize = 16 << 10;

/// A stored response without anything that has a meaning in one process alone: plain values, in words and in
/// wall-clock time, for a second tier or another process.
///
/// [`StoredResponse::snapshot`] takes one, [`restore`](Self::restore) makes a stored response of it again.
/// With the feature `snapshot`, [`Envelope`](crate::store::Envelope) is the form of both as bytes. To read one of
/// your own, start from [`Snapshot::default`] and set all fields.
///
/// ```
/// use std::sync::Arc;
/// use tower_readthrough::{CacheKey, Store, store::{Change, Moment, RequestHeaders, Snapshot}};
///
/// /// Stores a snapshot that `read` returns. Purges from the beginning of the read on reach it.
/// fn load(store: &impl Store, key: &CacheKey, read: impl FnOnce() -> Option<Snapshot>) {
///     let loading = store.sequence().begin_load();
///     let Some(snapshot) = read() else { return };
///     let now = Moment::now();
///     if let Ok(response) = snapshot.restore(key, &loading, now) {
///         let (response, request) = (Arc::new(response), RequestHeaders::default());
///         store.apply(key, Change::Put { response, request, at: now.instant });
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The status.
    pub status: StatusCode,
    /// The header fields of the message, without `Age` and those that belong to a connection.
    pub headers: HeaderMap,
    /// The whole body. Above 16 KiB it is [restored](Self::restore) without a copy, and keeps alive what it may be a
    /// part of.
    pub body: Bytes,
    /// The trailer fields, if there are any.
    pub trailers: Option<HeaderMap>,
    /// The request fields that its `Vary` names, if it has one.
    pub selection: Option<Vec<SelectingField>>,
    /// For how long it may be used.
    pub lifetimes: Lifetimes,
    /// Which requests may have it.
    pub audience: Audience,
    /// When its head came in.
    pub received_at: SystemTime,
    /// How old it was then (RFC 9111 §4.2.3).
    pub initial_age: Duration,
    /// From the request to its head.
    pub delay: Duration,
    /// How long after it came in a soft purge made it stale, if one did.
    pub stale_after: Option<Duration>,
    /// Whether the origin has to confirm it before it is used: purges may have been missed. See
    /// [`StoredResponse::is_unproven`].
    pub is_unproven: bool,
    /// What purges compare with it.
    pub texts: PurgeTexts,
}

/// A request field that selects a response (RFC 9111 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectingField {
    /// Its name.
    pub name: HeaderName,
    /// Its value. `None`: only requests without the field are selected.
    pub value: Option<SelectingValue>,
}

/// The value of a [`SelectingField`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectingValue {
    /// In the normal form in which values are compared.
    pub normal: Box<[u8]>,
    /// As it was written in one line. Empty if that is the normal form, or too long.
    pub written: Box<[u8]>,
}

/// For how long a response may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// For how long it is fresh, counted from when it was made.
    pub fresh_for: Duration,
    /// For how long after that it is served while it is revalidated (RFC 5861 §3).
    pub stale_while_revalidate_for: Duration,
    /// For how long after its lifetime it is served if the origin fails (RFC 5861 §4).
    pub stale_if_error_for: Duration,
    /// For how long after its lifetime it is kept to be revalidated.
    pub revalidate_for: Duration,
    /// Whether the lifetime is configured here: then it counts from when the response was asked for, however
    /// old that was.
    pub is_configured: bool,
    /// Whether it is never served stale on the request of a client (RFC 9111 §4.2.4).
    pub forbids_stale: bool,
}

/// The kinds of credentials with which a request may have a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// `Authorization`, and the fields that [`Rules::credentials`](crate::Rules::credentials) names.
    pub authorization: bool,
    /// `Cookie`.
    pub cookie: bool,
    /// [`Rules::WELL_KNOWN_CREDENTIALS`](crate::Rules::WELL_KNOWN_CREDENTIALS).
    pub token: bool,
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock of lifetimes.
    pub instant: Instant,
    /// By the wall clock.
    pub time: SystemTime,
}

impl Moment {
    /// Reads both clocks.
    pub fn now() -> Self {
        Self { instant: Instant::now(), time: SystemTime::now() }
    }

    fn time_of(self, instant: Instant) -> SystemTime {
        let time = match self.instant.checked_duration_since(instant) {
            Some(before) => self.time.checked_sub(before),
            None => self.time.checked_add(instant.saturating_duration_since(self.instant)),
        };
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn instant_of(self, time: SystemTime) -> Option<Instant> {
        match self.time.duration_since(time) {
            Ok(before) => self.instant.checked_sub(before),
            Err(later) => self.instant.checked_add(later.duration()),
        }
    }
}

/// Why a [`Snapshot`] is no stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Purges could not find it.
    #[error("`texts.urls` is empty, or a URL in `texts` is not `scheme://host/path` or `//host/path`")]
    InvalidUrl,
    /// 1xx, 206 and 304 are no responses that can be stored as a whole.
    #[error("`status` is not that of a whole response")]
    InvalidStatus,
    /// Tags, groups or URLs are more than a stored response has.
    #[error("`texts` has more than 1,024 tags, groups or URLs")]
    TooManyTexts,
    /// The clock of this process cannot express when it came in.
    #[error("`received_at` is out of the range of this process's clock")]
    OutOfRange,
}

/// As many as a stored response has at most.
const MAX_TEXTS: usize = 1024;

/// Whether a response with this status is one by itself.
fn is_whole(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::PARTIAL_CONTENT && status != StatusCode::NOT_MODIFIED
}

impl StoredResponse {
    /// Returns the response in a form that leaves the process. A moment is needed to put times into
    /// wall-clock time.
    ///
    /// `None` if it was purged or is a part (206), or if the texts of its tags and URLs were not kept, without which purges could not reach it after
    /// a restore: see [`MemoryStoreBuilder::snapshots`](crate::MemoryStoreBuilder::snapshots) and
    /// [`Sequence::keep_texts`](crate::Sequence::keep_texts).
    pub fn snapshot(&self, sequence: &Sequence, now: Moment) -> Option<Snapshot> {
        if !sequence.admits(self) || !is_whole(self.status()) {
            return None;
        }
        let (origin, texts) = (self.origin(), self.purge_keys().texts()?.clone());
        let Credentials { authorization, cookie, token } = self.terms().audience;
        Some(Snapshot {
            status: self.status(),
            headers: self.headers(),
            body: self.body().clone(),
            trailers: self.trailers().map(|trailers| (**trailers).clone()),
            selection: self.selection().map(to_fields),
            lifetimes: Lifetimes::of(self.terms()),
            audience: Audience { authorization, cookie, token },
            received_at: now.time_of(origin.received_at),
            initial_age: origin.initial_age,
            delay: origin.delay,
            stale_after: self.purge_check().stale_after().map(Duration::from_nanos),
            is_unproven: self.is_unproven(),
            texts,
        })
    }
}

impl Snapshot {
    /// Returns the response, to be stored under this key at once. It is purged by all that comes after the
    /// beginning of the load, and of the oldest fetch under way: what that brings is newer.
    ///
    /// # Errors
    ///
    /// If it is not a whole response, if a URL in its [`texts`](Self::texts) is invalid or there is none, if
    /// there are more than 1,024 of them, or if the clock cannot express when it came in.
    pub fn restore(
        self,
        key: &CacheKey,
        loading: &Loading,
        now: Moment,
    ) -> Result<StoredResponse, RestoreError> {
        let number = loading.number();
        self.restore_as(number, key, loading, now)
    }

    /// Whether requests with such credentials may have it.
    #[cfg(feature = "redis")]
    pub(crate) fn is_for(&self, credentials: Credentials) -> bool {
        credentials.admitted_to(self.audience.into())
    }

    /// Whether a request with these fields selects it by its `Vary` (RFC 9111 §4.1).
    #[cfg(feature = "redis")]
    pub(crate) fn selects(&self, request: &RequestFields<'_>, forms: &mut Forms) -> bool {
        self.selection.clone().is_none_or(|selection| from_fields(selection).matches(request, forms))
    }

    /// The same of a fetch that began with this number.
    pub(crate) fn restore_as(
        self,
        fetch_number: u64,
        key: &CacheKey,
        loading: &Loading,
        now: Moment,
    ) -> Result<StoredResponse, RestoreError> {
        if !is_whole(self.status) {
            return Err(RestoreError::InvalidStatus);
        }
        let texts = &self.texts;
        if texts.urls.len().max(texts.tags.len()).max(texts.groups.len()) > MAX_TEXTS {
            return Err(RestoreError::TooManyTexts);
        }
        // A clock that was set back makes it no younger than it is.
        let received_at = now.instant_of(self.received_at).ok_or(RestoreError::OutOfRange)?.min(now.instant);
        let keys = loading.sequence().keys_from_texts(key, self.texts).ok_or(RestoreError::InvalidUrl)?;
        loading.loaded(&keys);
        let freshness = self.lifetimes.for_audience(self.audience);
        let origin = Origin {
            received_at,
            initial_age: self.initial_age,
            delay: self.delay,
            fetch_number: loading.below_fetches(fetch_number, &keys),
            purge_keys: Arc::new(keys),
        };
        let body = match self.body.len() {
            ..=COPIED_BODY => Bytes::copy_from_slice(&self.body),
            _ => self.body,
        };
        let head = HeadBuilder::new(self.status, &self.headers, Some(body.len())).with_shared(body);
        let (trailers, selection) = (self.trailers.map(Arc::new), self.selection.map(from_fields));
        let response = StoredResponse::new(head, trailers, selection, freshness, origin);
        if let Some(after) = self.stale_after {
            response.note_stale_since(storing::after(received_at, after));
        }
        if self.is_unproven {
            response.purge_check().note_unproven();
        }
        Ok(response)
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            trailers: None,
            selection: None,
            lifetimes: Lifetimes::default(),
            audience: Audience::default(),
            received_at: SystemTime::UNIX_EPOCH,
            initial_age: Duration::ZERO,
            delay: Duration::ZERO,
            stale_after: None,
            is_unproven: false,
            texts: PurgeTexts::default(),
        }
    }
}

impl From<Audience> for Credentials {
    fn from(Audience { authorization, cookie, token }: Audience) -> Self {
        Self { authorization, cookie, token }
    }
}

impl Lifetimes {
    fn of(freshness: &Freshness) -> Self {
        Self {
            fresh_for: freshness.fresh_for,
            stale_while_revalidate_for: freshness.stale_while_revalidate_for,
            stale_if_error_for: freshness.stale_if_error_for,
            revalidate_for: freshness.revalidate_for,
            is_configured: freshness.is_ours,
            forbids_stale: freshness.forbids_stale,
        }
    }

    fn for_audience(self, audience: Audience) -> Freshness {
        Freshness {
            audience: audience.into(),
            fresh_for: self.fresh_for,
            lead: None,
            stale_while_revalidate_for: self.stale_while_revalidate_for,
            stale_if_error_for: self.stale_if_error_for,
            revalidate_for: self.revalidate_for,
            is_ours: self.is_configured,
            forbids_stale: self.forbids_stale,
        }
    }
}

fn to_fields(selection: &Selection) -> Vec<SelectingField> {
    let value =
        |(normal, written): (&[u8], &[u8])| SelectingValue { normal: normal.into(), written: written.into() };
    let fields = selection.to_parts().map(|(name, parts)| (name.clone(), parts.map(value)));
    fields.map(|(name, value)| SelectingField { name, value }).collect()
}

fn from_fields(fields: Vec<SelectingField>) -> Selection {
    let parts = |value: SelectingValue| (value.normal, value.written);
    Selection::from_parts(fields.into_iter().map(|field| (field.name, field.value.map(parts))).collect())
}
