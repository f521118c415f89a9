//! What may happen to an entry, and what came of it.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::{
    http::request_fields::RequestFields,
    store::{HitForMiss, Part, StoredResponse},
};

/// A change to what is stored under one key.
///
/// [`Entry::apply`](super::Entry::apply) defines its meaning, for every store. It owns what it holds, and a
/// clone copies no body: a wrapper round a store can queue it, to repeat it elsewhere.
///
/// More kinds may come: a store passes those that it does not know on to `Entry::apply`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Stores a complete response in place of its variant, and removes the variants and parts that it
    /// supersedes (RFC 9111 §4.1), what has expired, and each [`HitForMiss`] that it disproves.
    Put {
        /// The response.
        response: Arc<StoredResponse>,
        /// The request that it answers.
        request: RequestHeaders,
        /// When it was complete.
        at: Instant,
    },
    /// As [`Put`](Self::Put), of a response which the origin has confirmed (RFC 9111 §4.3.4): only its
    /// fields and lifetimes are new.
    Confirm {
        /// The response under its new fields.
        response: Arc<StoredResponse>,
        /// The request that it answers.
        request: RequestHeaders,
        /// When it was confirmed.
        at: Instant,
    },
    /// Stores a part of a response (RFC 9111 §3.3), and removes what it supersedes.
    PutPart {
        /// The part, combined with the stored parts that it touches.
        part: Part,
        /// The request that it answers.
        request: RequestHeaders,
        /// When it was complete.
        at: Instant,
    },
    /// Notes that responses to some requests could not be shared a moment ago.
    HitForMiss(HitForMiss),
    /// Removes what a request selects, if it came from an earlier fetch: the origin has sent something
    /// else since, which is not stored.
    Supersede {
        /// The request.
        request: RequestHeaders,
        /// The number of the fetch that brought something else.
        fetch_number: u64,
        /// Parts with this strong entity tag stay.
        spared_tag: Option<HeaderValue>,
        /// Noted at the same time.
        hit_for_miss: Option<HitForMiss>,
    },
    /// Removes what fetches up to this number brought, and each [`HitForMiss`].
    Purge {
        /// The number of the purge in the store's [`Sequence`](crate::Sequence).
        number: u64,
    },
    /// Removes what has expired.
    Prune {
        /// The time of the check.
        at: Instant,
    },
}

impl Change {
    /// The response or the part that it brings.
    pub fn response(&self) -> Option<&Arc<StoredResponse>> {
        match self {
            Self::Put { response, .. } | Self::Confirm { response, .. } => Some(response),
            Self::PutPart { part, .. } => Some(part.response()),
            _ => None,
        }
    }
}

/// What came of a [`Change`], or of a response that was to become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Applied {
    /// What the change brought is stored.
    Stored,
    /// What the change was to remove was there, and is not any more.
    Removed,
    /// There was nothing to do.
    Unchanged,
    /// Not stored: the result of a later fetch is.
    Outdated,
    /// Not stored: its lifetime and all windows after it are over.
    Expired,
    /// Not stored: purged since its fetch began.
    Purged,
    /// Not stored: larger than [`max_response_bytes`](super::Store::max_response_bytes).
    TooLarge,
    /// Not stored: its body broke off, or was not as long as its head said.
    Incomplete,
}

impl Applied {
    /// Whether what the change brought is stored.
    pub const fn is_stored(self) -> bool {
        matches!(self, Self::Stored)
    }

    pub(super) const fn removed(is_removed: bool) -> Self {
        if is_removed { Self::Removed } else { Self::Unchanged }
    }
}

/// The header fields of the request that a response answers.
///
/// A clone shares them. They may contain credentials; `Debug` shows names alone.
#[derive(Clone)]
pub struct RequestHeaders(Arc<dyn Headers>);

/// Something that holds the header fields of a request.
pub(crate) trait Headers: Send + Sync + 'static {
    fn headers(&self) -> &HeaderMap;

    fn fields(&self) -> RequestFields<'_> {
        RequestFields::of(self.headers())
    }
}

impl Headers for HeaderMap {
    fn headers(&self) -> &HeaderMap {
        self
    }
}

impl RequestHeaders {
    pub(crate) fn shared(holder: Arc<impl Headers>) -> Self {
        Self(holder)
    }

    /// The fields.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    pub(crate) fn fields(&self) -> RequestFields<'_> {
        self.0.fields()
    }
}

impl Default for RequestHeaders {
    fn default() -> Self {
        HeaderMap::new().into()
    }
}

impl From<HeaderMap> for RequestHeaders {
    fn from(headers: HeaderMap) -> Self {
        Self(Arc::new(headers))
    }
}

impl fmt::Debug for RequestHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.headers().keys()).finish()
    }
}
