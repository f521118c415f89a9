//! Where responses are kept.
//!
//! A [`Store`] maps a [`CacheKey`] to an [`Entry`]: the stored variants of a response (RFC 9111 §4.1), parts
//! of it (§3.3), and whether its responses turned out not to be shareable. One lookup finds the variant that
//! a request selects, and one step drops them all.
//!
//! A store returns at once and never fails. [`MemoryStore`] is the one to use; the layers work with any other
//! that keeps the contract of the trait. All changes are [`Change`]s, so that a wrapper round a store can
//! log, queue or repeat them. A [`Snapshot`] is a stored response in a form that can leave the process.
//!
//! # A store that outlives its process
//!
//! With the feature `snapshot` a `SnapshotFile` writes a [`MemoryStore`] to a file and loads it when the next
//! process starts, so that it has something to serve even while its origin is down. An `Envelope` is one
//! snapshot as bytes, for stores of your own.
//!
//! # The engine
//!
//! [`MemoryStore`] is quick_cache, a sharded CLOCK-Pro with ghost entries in the manner of
//! S3-FIFO, to which bytes and time are added. Measured in November 2026 against moka, mini-moka,
//! lru, schnellru and sieve-cache on two cores: with room for 5 % of the keys of a Zipf(0.9) load
//! it hit 62.4 % (moka 61.5 %, LRU 52.9 %, an optimal cache 70.7 %), with a fifth of the requests
//! scanning 49.9 % (48.2 %, 39.2 %, 56.5 %), and a lookup took 30 ns (moka 384 ns). Its hit path
//! is one plain call, which a future that is ready at once can make.
//!
//! # The sequence
//!
//! Fetches are numbered by the store's [`Sequence`]. A response never replaces one of a later fetch, so a
//! slow response cannot undo a newer one.

mod entry;
#[cfg(feature = "snapshot")]
pub mod envelope;
mod head;
mod memory;
mod parts;
mod refresh;
mod response;
mod snapshot;
#[cfg(feature = "snapshot")]
pub mod snapshot_file;

use std::{
    fmt,
    hash::BuildHasher,
    sync::{Arc, LazyLock},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use quick_cache::DefaultHashBuilder;
use smallvec::SmallVec;
use tokio::time::Instant;

#[cfg(feature = "zstd")]
#[doc(inline)]
pub use self::envelope::Compression;
pub use self::{
    entry::{Entry, HitForMiss},
    memory::{MemoryStore, MemoryStoreBuilder, StoreStats},
    parts::Part,
    response::StoredResponse,
    snapshot::{Audience, Lifetimes, Moment, RestoreError, SelectingField, SelectingValue, Snapshot},
};
#[cfg(feature = "snapshot")]
#[doc(inline)]
pub use self::{
    envelope::{AsOf, EntryId, Envelope, EnvelopeError},
    snapshot_file::{
        LoadEnd, LoadReport, SnapshotFile, SnapshotFileBuilder, SnapshotFileError, SnapshotFileStats,
        WriteReport,
    },
};
pub(crate) use self::{
    head::{BodyBuffer, HIT, HeadBuilder},
    parts::{Arrived, Stored},
    refresh::{LastFetch, Refresh, note_failed_fetch},
    response::Origin,
};

pub use crate::sequence::{Loading, PurgeTexts};
use crate::{
    http::{
        not_stored::NotStored,
        request_fields::{Line, RequestFields},
        vary::{Selection, Vary},
    },
    key::CacheKey,
    sequence::Sequence,
};

/// Keeps entries under their keys.
///
/// A clone is a handle to the same store. All methods return at once: they are called while a request is
/// polled. A store that cannot keep something drops it; to the layers that is a miss.
///
/// What a change means is decided by [`Entry::apply`] alone, for every store. A store only keeps what that
/// returns:
///
/// ```
/// use std::{collections::HashMap, sync::{Arc, Mutex}};
/// use tower_readthrough::{CacheKey, Sequence, Store, store::{Applied, Change, Entry}};
///
/// #[derive(Clone, Default)]
/// struct Map {
///     entries: Arc<Mutex<HashMap<CacheKey, Arc<Entry>>>>,
///     sequence: Arc<Sequence>,
/// }
///
/// impl Store for Map {
///     fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
///         self.entries.lock().unwrap().get(key).cloned()
///     }
///
///     fn apply(&self, key: &CacheKey, change: Change) -> Applied {
///         let mut entries = self.entries.lock().unwrap();
///         let (entry, applied) = Entry::apply(entries.get(key).map(|entry| &**entry), change);
///         match entry {
///             Some(entry) => _ = entries.insert(key.clone(), Arc::new(entry)),
///             None => _ = entries.remove(key),
///         }
///         applied
///     }
///
///     fn sequence(&self) -> &Arc<Sequence> {
///         &self.sequence
///     }
///
///     fn max_response_bytes(&self) -> usize {
///         1 << 20
///     }
/// }
/// ```
pub trait Store: Clone + Send + Sync + 'static {
    /// Returns what is stored under the key of these bytes.
    fn get(&self, key: &[u8]) -> Option<Arc<Entry>>;

    /// Replaces what is stored under the key by what [`Entry::apply`] makes of it, and returns what came
    /// of the change.
    ///
    /// Two changes of one key never overlap. Once this has returned, [`get`](Self::get) returns nothing
    /// older in any thread.
    fn apply(&self, key: &CacheKey, change: Change) -> Applied;

    /// Returns the sequence that numbers the fetches and purges of this store.
    fn sequence(&self) -> &Arc<Sequence>;

    /// Returns the largest response that the store takes, in bytes as [`StoredResponse::bytes`] counts them.
    /// Larger ones are passed on without being held in memory. 0: it takes none.
    fn max_response_bytes(&self) -> usize;

    /// Returns how many bytes it holds at most. Bodies under way may take as much beside it; see
    /// [`CoalesceLayer::max_total_bytes`](crate::CoalesceLayer::max_total_bytes). Default: 16 of the largest
    /// responses.
    fn capacity_bytes(&self) -> u64 {
        (self.max_response_bytes() as u64).saturating_mul(16)
    }

    /// Returns what it holds and what happened to the rest, for [`Stats`](crate::Stats). Default: `None`, it
    /// does not say.
    fn stats(&self) -> Option<StoreStats> {
        None
    }

    /// Returns what the file does that keeps what is stored here, for [`Stats`](crate::Stats). A wrapper round a store
    /// asks that. Default: `None`, there is none.
    #[cfg(feature = "snapshot")]
    fn snapshot_file(&self) -> Option<SnapshotFileStats> {
        None
    }

    /// Called after a purge through a [handle](crate::Purge), so that a store can check a part of what it
    /// holds before there are too many [records](Sequence#what-is-kept-of-purges). Default: nothing.
    fn purged(&self) {}

    /// Called for a response that was to be stored and did not become a [`Change`], with the reason: it is
    /// too large, incomplete, or was purged meanwhile. Default: nothing.
    fn not_stored(&self, _key: &CacheKey, _reason: Applied) {}
}

/// A change to what is stored under one key.
///
/// [`Entry::apply`] defines its meaning, for every store. It owns what it holds, and a
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
        /// The number of the purge in the store's [`Sequence`].
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

    /// What is told of it, and the request that led to it.
    pub(crate) fn write_behind(&self) -> Option<(Arc<dyn WriteBehind>, RequestHeaders)> {
        match self {
            Self::Put { request, .. } | Self::Confirm { request, .. } | Self::Supersede { request, .. } => {
                Some((Arc::clone(request.write_behind()?), request.clone()))
            }
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
    /// What the change brought is not stored, for this reason.
    NotStored(NotStored),
}

impl Applied {
    /// Whether what the change brought is stored.
    pub const fn is_stored(self) -> bool {
        matches!(self, Self::Stored)
    }

    const fn removed(is_removed: bool) -> Self {
        if is_removed { Self::Removed } else { Self::Unchanged }
    }
}

/// The header fields of the request that a response answers.
///
/// A clone shares them. They may contain credentials; `Debug` shows names alone.
#[derive(Clone)]
pub struct RequestHeaders(Arc<dyn Headers>);

/// Learns what the fetch of a request has changed in the store.
pub(crate) trait WriteBehind: fmt::Debug + Send + Sync + 'static {
    /// A whole response is stored.
    fn stored(&self, key: &CacheKey, response: &Arc<StoredResponse>);

    /// What these fields select is not what the origin sends any more.
    fn superseded(&self, key: &CacheKey, request: &HeaderMap);
}

/// Something that holds the header fields of a request.
pub(crate) trait Headers: Send + Sync + 'static {
    fn headers(&self) -> &HeaderMap;

    /// What is told of changes that the request has led to.
    fn write_behind(&self) -> Option<&Arc<dyn WriteBehind>> {
        None
    }

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

    pub(crate) fn write_behind(&self) -> Option<&Arc<dyn WriteBehind>> {
        self.0.write_behind()
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

/// Returns the latest response that a request selects and that is not purged.
pub(crate) fn select(
    store: &impl Store,
    key: &CacheKey,
    request: &RequestFields<'_>,
) -> Option<Arc<StoredResponse>> {
    store.get(key)?.select(request, store.sequence()).cloned()
}

/// The selections that were stored last, once for many responses.
///
/// Most clients accept one of a few things. Sharing the selection of their responses saves a miss four
/// allocations and each of these responses about 200 bytes.
static COMMON: [Mutex<Option<Selection>>; 64] = [const { Mutex::new(None) }; 64];

static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Larger ones are not worth it.
const MAX_COMMON_BYTES: usize = 512;

/// Returns what a request has for the fields that a response to it names, to be stored with the response.
pub(crate) fn selection(vary: &Vary, request: &RequestFields<'_>) -> Option<Selection> {
    match vary {
        Vary::Fields(fields) if fields.iter().all(has_few_values) => Some(common(fields, request)),
        vary => vary.selection(request.fields),
    }
}

/// Most often it is known, and then nothing is allocated.
fn common(fields: &Arc<[HeaderName]>, request: &RequestFields<'_>) -> Selection {
    let lines: SmallVec<[Line<'_>; 4]> = fields.iter().map(|name| request.line(name)).collect();
    let slot = &COMMON[HASHER.hash_one(&lines) as usize % COMMON.len()];
    if let Some(known) = &*slot.lock()
        && known.is_written_in(fields, &lines)
    {
        return known.clone();
    }
    let selection = Selection::new(fields, request.fields);
    if selection.heap_bytes() <= MAX_COMMON_BYTES {
        let before = slot.lock().replace(selection.clone());
        // Where nothing is locked.
        drop(before);
    }
    selection
}

/// Whether many clients send the same value. All else may be a secret of one client, not to be kept beyond
/// its response.
fn has_few_values(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::ACCEPT_CHARSET
            | header::ORIGIN
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn alike(second: HeaderName, value: &str) -> Selection {
        let fields = Arc::from([header::ACCEPT_ENCODING, second]);
        let mut request = HeaderMap::new();
        for (name, value) in [(header::ACCEPT_ENCODING, value), (header::ORIGIN, "a"), (header::COOKIE, "a")]
        {
            request.insert(name, value.parse().unwrap());
        }
        super::selection(&Vary::Fields(fields), &RequestFields::of(&request)).unwrap()
    }

    #[test]
    fn selections_that_are_written_alike_are_the_same_in_memory() {
        let of = |value| alike(header::ORIGIN, value);
        let first = of("gzip, br");
        assert!(first.is_same_memory(&of("gzip, br")));
        // It means the same, but what is written like this must not be compared the slow way.
        let other = of("br, gzip");
        assert!(other == first && !other.is_same_memory(&first));
        assert!(other.is_same_memory(&of("br, gzip")));
    }

    #[test]
    fn what_is_long_or_may_be_secret_is_not_kept() {
        let long = "x".repeat(MAX_COMMON_BYTES);
        assert!(!alike(header::ORIGIN, &long).is_same_memory(&alike(header::ORIGIN, &long)));
        assert!(!alike(header::COOKIE, "gzip").is_same_memory(&alike(header::COOKIE, "gzip")));
    }
}
