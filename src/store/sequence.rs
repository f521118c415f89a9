use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use quick_cache::DefaultHashBuilder;

use super::StoredResponse;
use crate::key::Target;

/// URIs share a floor by their hash. Two that do are invalidated together, which costs a miss.
const FLOORS: usize = 4096;

/// Numbers the beginnings of fetches in a store, from 1 on, and what invalidates their answers.
///
/// A request notes [`current`](Self::current) when it arrives, before it looks into the store;
/// whatever has a larger number began after it. Invalidating a URI takes a number as well, which
/// becomes the floor of that URI: no answer whose fetch began below it is stored or served any
/// more, nor is a fetch shared that is still under way. That costs the same however much is
/// stored, and a hit one atomic load.
pub struct Sequence {
    current: AtomicU64,
    floors: Box<[AtomicU64]>,
    hasher: DefaultHashBuilder,
}

/// Where the floor of a URI stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u16);

impl Default for Sequence {
    fn default() -> Self {
        Self {
            current: AtomicU64::new(0),
            floors: (0..FLOORS).map(|_| AtomicU64::new(0)).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence").field("current", &self.current()).finish_non_exhaustive()
    }
}

impl Sequence {
    /// The number of the fetch or invalidation that began last; 0 if none has.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Numbers a fetch that begins now.
    pub fn begin(&self) -> u64 {
        self.current.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether nothing has invalidated the response since its fetch began.
    pub(crate) fn admits(&self, response: &StoredResponse) -> bool {
        response.begun() > self.floor(response.place())
    }

    pub(crate) fn place_of(&self, head: &Parts) -> Place {
        Self::place(Target::of(head).hash(&self.hasher))
    }

    pub(crate) fn floor(&self, place: Place) -> u64 {
        self.floors[usize::from(place.0) % FLOORS].load(Ordering::Acquire)
    }

    fn place(hash: u64) -> Place {
        Place((hash % FLOORS as u64) as u16)
    }

    fn invalidate(&self, hash: u64) {
        let number = self.begin();
        self.floors[usize::from(Self::place(hash).0)].fetch_max(number, Ordering::AcqRel);
    }
}

/// What an unsafe request invalidates once it has succeeded (RFC 9111 §4.4).
#[derive(Debug)]
pub(crate) struct Invalidation {
    sequence: Arc<Sequence>,
    target: Target,
}

impl Invalidation {
    /// None for methods that are known to be safe (RFC 9110 §9.2.1, and QUERY).
    pub(crate) fn of(sequence: &Arc<Sequence>, head: &Parts) -> Option<Self> {
        let is_safe = matches!(
            head.method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::CONNECT
        ) || head.method.as_str() == "QUERY";
        (!is_safe).then(|| Self { sequence: Arc::clone(sequence), target: Target::of(head) })
    }

    /// The target URI, and what `Location` and `Content-Location` refer to on the same origin,
    /// unless the request failed.
    pub(crate) fn apply(&self, status: StatusCode, headers: &HeaderMap) {
        if !(status.is_success() || status.is_redirection()) {
            return;
        }
        let hasher = &self.sequence.hasher;
        self.sequence.invalidate(self.target.hash(hasher));
        for field in [header::LOCATION, header::CONTENT_LOCATION] {
            let reference = headers.get(field).and_then(|value| value.to_str().ok());
            if let Some(hash) =
                reference.and_then(|reference| self.target.hash_of_reference(reference, hasher))
            {
                self.sequence.invalidate(hash);
            }
        }
    }
}
