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
use crate::{http::fields::lines, key::Target};

/// URIs share a floor by their hash.
const DEFAULT_FLOORS: usize = 1 << 16;

/// Numbers the beginnings of fetches in a store, from 1 on, and what invalidates their answers.
///
/// A request notes [`current`](Self::current) when it arrives, before it looks into the store;
/// whatever has a larger number began after it. Invalidating a URI takes a number as well, which
/// becomes the floor of that URI: no answer whose fetch began below it is stored or served any
/// more, nor is a fetch shared that is still under way. That costs the same however much is
/// stored, and a hit one atomic load.
///
/// URIs whose hashes fall together are invalidated together. With the default of 65,536 floors,
/// what is stored loses one in 65,536 to each invalidation of something else: under 100 unsafe
/// requests a second, half of it within eight minutes.
pub struct Sequence {
    current: AtomicU64,
    floors: Box<[AtomicU64]>,
    hasher: DefaultHashBuilder,
}

/// Where the floor of a URI stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

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
    /// A sequence with so many floors, of eight bytes each: more keep URIs better apart. At least
    /// one, at most 2^24.
    pub fn with_floors(floors: usize) -> Self {
        let floors = floors.clamp(1, 1 << 24);
        Self {
            current: AtomicU64::new(0),
            floors: (0..floors).map(|_| AtomicU64::new(0)).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

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
        self.place(Target::of(head).hash(&self.hasher))
    }

    pub(crate) fn floor(&self, place: Place) -> u64 {
        self.floors.get(place.0 as usize).map_or(0, |floor| floor.load(Ordering::Acquire))
    }

    fn place(&self, hash: u64) -> Place {
        Place((hash % self.floors.len() as u64) as u32)
    }

    fn invalidate(&self, hash: u64) {
        let number = self.begin();
        if let Some(floor) = self.floors.get(self.place(hash).0 as usize) {
            floor.fetch_max(number, Ordering::AcqRel);
        }
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

    /// The target URI, unless the request failed; if it succeeded, also what `Location` and
    /// `Content-Location` refer to on the same origin. The target of a redirection is only where
    /// the client goes next, for example after a login.
    pub(crate) fn apply(&self, status: StatusCode, headers: &HeaderMap) {
        if !(status.is_success() || status.is_redirection()) {
            return;
        }
        let hasher = &self.sequence.hasher;
        self.sequence.invalidate(self.target.hash(hasher));
        if !status.is_success() {
            return;
        }
        for field in [&header::LOCATION, &header::CONTENT_LOCATION] {
            let reference = lines(headers, field).next().and_then(|value| value.to_str().ok());
            if let Some(hash) =
                reference.and_then(|reference| self.target.hash_of_reference(reference, hasher))
            {
                self.sequence.invalidate(hash);
            }
        }
    }
}
