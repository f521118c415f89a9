//! How each response came about, in one record, and the observers that are told.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use http::{Extensions, Response, StatusCode};

use crate::{
    exchange::{
        Attempts, CacheRequest, Refused, ResponseFacts,
        status::{CacheStatus, Forward, Lost, Stale},
    },
    http::not_stored::NotStored,
    key::{CacheKey, Unkeyed},
    observe::{Stats, TierRead},
    origin::AnsweredBy,
    sequence::Sequence,
    store::{self, Applied, Store},
    trace,
};

/// How the response to one request came about, for an [`Observer`].
///
/// It is a small value to copy. The names of its reasons are closed sets and do not change, so that they
/// can be labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    came_about: CacheStatus,
    /// `None`: there is no response.
    status: Option<StatusCode>,
    role: Role,
    attempts: Option<u32>,
    answered_by: Option<AnsweredBy>,
}

const _: () = assert!(size_of::<Record>() <= 32);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// A fresh response was served from the store.
    Hit,
    /// A stale response was served from the store, also if the origin was asked in vain before
    /// ([`CacheStatus::forward_reason`]).
    Stale(Stale),
    /// The origin was asked, by this request or by another one that shares its response.
    Forwarded(Forward),
    /// The request has no key and was passed on.
    Unkeyed(Unkeyed),
    /// The cache itself responded, with an error.
    Refused(Refused),
    /// The service below returned an error, and there is no response.
    Failed,
}

/// What a request was to the fetch that brought its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// There was no fetch, or one for this request alone.
    Alone,
    /// The fetch was begun by this request, and others could share it.
    Leader,
    /// The fetch was begun by another request.
    Follower,
}

impl Record {
    /// Of a response with all that layers have said of it, where it came about as it says itself, or else so.
    pub(crate) fn of<B>(response: &Response<B>, otherwise: CacheStatus) -> Self {
        let came_about = CacheStatus::of(response).unwrap_or(otherwise);
        let extensions = response.extensions();
        let role = match came_about.is_collapsed() {
            true => Role::Follower,
            false if ResponseFacts::completes_itself(extensions) => Role::Leader,
            false => Role::Alone,
        };
        let attempts = extensions.get::<Attempts>().map(|attempts| attempts.count());
        let answered_by = extensions.get().copied();
        Self { came_about, status: Some(response.status()), role, attempts, answered_by }
    }

    /// The same without what only an observer asks for.
    pub(crate) fn to_count<B>(response: &Response<B>, otherwise: CacheStatus) -> Self {
        let came_about = CacheStatus::of(response).unwrap_or(otherwise);
        let role = if came_about.is_collapsed() { Role::Follower } else { Role::Alone };
        Self { came_about, status: Some(response.status()), role, attempts: None, answered_by: None }
    }

    /// Of a request whose response would come about like this.
    pub(crate) fn foreseen(came_about: CacheStatus) -> Self {
        Self::of(&Response::new(()), came_about)
    }

    /// Of a request that was sent on for this reason and that the service below failed.
    pub(crate) fn failed(why: CacheStatus) -> Self {
        Self { came_about: why, status: None, role: Role::Alone, attempts: None, answered_by: None }
    }

    /// Says so in an event.
    pub(crate) fn trace(&self) {
        let (outcome, status) = (self.outcome(), self.status.map(|status| status.as_u16()));
        let not_stored = self.not_stored_reason().map(NotStored::as_str);
        let is_collapsed = self.role == Role::Follower;
        trace::decided(
            outcome.as_str(),
            outcome.reason(),
            status,
            not_stored,
            (self.is_stored(), is_collapsed),
            trace::Elsewhere {
                lost: self.came_about.lost_reason().map(Lost::as_str),
                second_tier: self.came_about.second_tier().map(TierRead::as_str),
                waited: self.came_about.has_waited_for_node().then_some(true),
            },
        );
    }

    /// Returns what became of the request.
    pub const fn outcome(&self) -> Outcome {
        let Self { came_about, .. } = self;
        if self.status.is_none() {
            return Outcome::Failed;
        }
        if let Some(why) = came_about.stale_reason() {
            return Outcome::Stale(why);
        }
        if let Some(why) = came_about.refused_reason() {
            return Outcome::Refused(why);
        }
        if let Some(why) = came_about.unkeyed_reason() {
            return Outcome::Unkeyed(why);
        }
        match came_about.forward_reason() {
            Some(why) => Outcome::Forwarded(why),
            None => Outcome::Hit,
        }
    }

    /// Returns the same in the terms of RFC 9211, as the `Cache-Status` field of the response has it.
    pub const fn cache_status(&self) -> CacheStatus {
        self.came_about
    }

    /// Returns the status of the response. `None`: the service below returned an error.
    pub const fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Returns the status of the response of the origin: the
    /// [`forward_status`](CacheStatus::forward_status), or that of the response. `None`: it did not respond.
    pub fn origin_status(&self) -> Option<StatusCode> {
        let is_of_origin = matches!(self.outcome(), Outcome::Forwarded(_) | Outcome::Unkeyed(_));
        self.came_about.forward_status().or(self.status.filter(|_| is_of_origin))
    }

    /// Whether the response is being stored. What came of it is told by [`Observer::committed`].
    pub const fn is_stored(&self) -> bool {
        self.came_about.is_stored()
    }

    /// Returns why the response of the origin is not stored, as far as that is known with its head.
    pub const fn not_stored_reason(&self) -> Option<NotStored> {
        self.came_about.not_stored_reason()
    }

    /// Returns what the request was to the fetch that brought its response.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Returns how many attempts the fetch took. `None`: no [retries](crate::RetryPolicy) are configured,
    /// or the fetch is that of another request.
    pub const fn attempts(&self) -> Option<u32> {
        self.attempts
    }

    /// Returns which origin the response came from. `None`: there is [one](crate::Failover) only, the response
    /// was stored, or the fetch is that of another request.
    pub const fn answered_by(&self) -> Option<AnsweredBy> {
        self.answered_by
    }
}

impl Outcome {
    /// Returns its name, in kebab case, without the reason. It does not change between versions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale(_) => "stale",
            Self::Forwarded(_) => "forwarded",
            Self::Unkeyed(_) => "unkeyed",
            Self::Refused(_) => "refused",
            Self::Failed => "failed",
        }
    }

    /// Returns the name of the reason, if it has one.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Stale(why) => Some(why.as_str()),
            Self::Forwarded(why) => Some(why.as_str()),
            Self::Unkeyed(why) => Some(why.as_str()),
            Self::Refused(why) => Some(why.as_str()),
            Self::Hit | Self::Failed => None,
        }
    }
}

impl fmt::Display for Outcome {
    /// Such as `hit`, or `forwarded=uri-miss`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        self.reason().map_or(Ok(()), |reason| write!(f, "={reason}"))
    }
}

/// Learns what the cache does: the base of metrics, logs and dashboards.
///
/// All methods do nothing by default, and `()` is an observer that does nothing. A layer without an
/// observer makes no records.
///
/// The calls are made where the response or the body is handed on: a slow observer slows these down, so
/// one that does more than to count sends what it has to another task. A panic in an observer is caught
/// and changes no response; the panic hook of the process is called as for any other.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use tower_readthrough::{MemoryStore, Observer, Outcome, ReadThroughLayer, Record};
///
/// #[derive(Default)]
/// struct Counters {
///     hits: AtomicU64,
///     others: AtomicU64,
/// }
///
/// impl Observer for Counters {
///     fn finished(&self, record: &Record) {
///         let counter = match record.outcome() {
///             Outcome::Hit => &self.hits,
///             _ => &self.others,
///         };
///         counter.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let counters = Arc::new(Counters::default());
/// let store = MemoryStore::with_capacity_bytes(64 << 20);
/// let cache = ReadThroughLayer::builder(store).observer(Arc::clone(&counters)).build()?;
/// # let _ = cache;
/// # Ok(())
/// # }
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Called once for each response that the cache had to do with, when its head is handed on, and for
    /// each error of the service below.
    ///
    /// Not for requests of methods that never have a key, such as POST; not for a request that its client
    /// gave up before, or whose fetch panicked; not for a request that a fetch of the same layers makes for
    /// the key that it fetches; and not for background refreshes, which no client waits for.
    fn finished(&self, _record: &Record) {}

    /// Called once for each response of a fetch, as soon as it is known whether it is stored, or why it is not:
    /// with its head, or at the end of its body ([`NotStored::known`]).
    fn committed(&self, _key: &CacheKey, _applied: store::Applied) {}

    /// Called for what happens without a client that waits for it.
    fn background(&self, _event: BackgroundEvent<'_>) {}
}

/// What happens in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackgroundEvent<'a> {
    /// The refresh of a stale response under this key began; or the probe of an [origin](crate::OriginHealth) that
    /// is down, by a request for it whose response is not stored, such as HEAD.
    RefreshBegan(&'a CacheKey),
    /// It ended.
    RefreshEnded(&'a CacheKey, RefreshResult),
}

/// How a background refresh ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshResult {
    /// With a response of this status. Whether that is stored is told by [`Observer::committed`].
    Responded(StatusCode),
    /// The service below returned an error.
    Failed,
    /// It took longer than [`refresh_deadline`](crate::LookupLayer::refresh_deadline).
    TimedOut,
    /// It panicked, or its task was dropped.
    Aborted,
}

impl Observer for () {}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn finished(&self, record: &Record) {
        (**self).finished(record);
    }

    fn committed(&self, key: &CacheKey, applied: store::Applied) {
        (**self).committed(key, applied);
    }

    fn background(&self, event: BackgroundEvent<'_>) {
        (**self).background(event);
    }
}

/// In the extensions of a request: a layer above tells an observer of the response.
#[derive(Clone, Copy)]
struct Told;

/// The observer of a layer and its counters, if it was given some.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    observer: Option<Arc<dyn Observer>>,
    stats: Option<Stats>,
    by_rule: bool,
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.makes_no_records() { "Observer(none)" } else { "Observer(custom)" })
    }
}

impl Observers {
    pub(crate) const NONE: Self = Self { observer: None, stats: None, by_rule: false };

    pub(crate) fn observe(&mut self, observer: impl Observer) {
        self.observer = Some(Arc::new(observer));
    }

    pub(crate) fn count(&mut self, stats: &Stats) {
        self.stats = Some(stats.clone());
        if self.by_rule {
            stats.count_by_rule();
        }
    }

    /// Counts by rule as well, where there are counters.
    pub(crate) fn count_by_rule(&mut self) {
        self.by_rule = true;
        if let Some(stats) = &self.stats {
            stats.count_by_rule();
        }
        // So that records are made, and a hit where this is off has nothing more to look at.
        self.observer.get_or_insert_with(|| Arc::new(()));
    }

    /// Whether the rule of a request is wanted.
    pub(crate) const fn counts_by_rule(&self) -> bool {
        self.by_rule
    }

    pub(crate) fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref()
    }

    /// Whether nothing is told, nor counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.makes_no_records() && self.stats.is_none()
    }

    /// Whether there is no observer, and things are only counted.
    #[inline]
    pub(crate) fn makes_no_records(&self) -> bool {
        self.observer.is_none()
    }

    /// Counts a fresh response from the store where no observer has to be told.
    #[inline(always)]
    pub(crate) fn count_hit(&self) {
        if let Some(stats) = &self.stats {
            stats.hit();
        }
        trace::hit();
    }

    /// Counts a request that would not have reached the origin.
    pub(crate) fn count_saved(&self) {
        if let Some(stats) = &self.stats {
            stats.saved();
        }
    }

    /// Tells of a response that came from the origin, and would have come about like this.
    pub(crate) fn foresaw<B>(&self, response: &Response<B>, came_about: CacheStatus, rule: Option<&str>) {
        if !self.is_empty() {
            let record = Record { came_about, ..Record::of(response, came_about) };
            let role = if came_about.is_collapsed() { Role::Follower } else { Role::Alone };
            self.finished(&Record { role, ..record }, rule);
        }
    }

    /// Counts a request of a method that never has a key.
    pub(crate) fn count_other_method(&self) {
        if let Some(stats) = &self.stats {
            stats.other_method();
        }
    }

    /// Counts a response that was not to be stored.
    pub(crate) fn count_not_stored(&self, why: NotStored) {
        if let Some(stats) = &self.stats {
            stats.not_stored(why);
        }
    }

    /// Those to tell of a request with a key, or without one for this reason: none if a lookup above tells
    /// its own, or another layer above does.
    pub(crate) fn of_outermost(&self, request: &mut Extensions, unkeyed: Option<Unkeyed>) -> Self {
        if self.is_empty() {
            return Self::NONE;
        }
        let asked = request.get::<CacheRequest>();
        let is_told = asked.is_some_and(|asked| asked.arrival().is_some()) || request.get::<Told>().is_some();
        let has_key = || asked.is_some() || request.get::<CacheKey>().is_some();
        if is_told || !(unkeyed.is_some() || has_key()) {
            return Self::NONE;
        }
        request.insert(Told);
        self.clone()
    }

    /// Tells of a response that leaves the cache. It came about as it says itself, else so. `rule`: that of the
    /// request, if it is [wanted](Self::counts_by_rule) and there is one.
    pub(crate) fn finish<B>(&self, response: &Response<B>, otherwise: CacheStatus, rule: Option<&str>) {
        if !self.is_empty() {
            self.finished(&Record::of(response, otherwise), rule);
        }
    }

    /// Tells of an error instead of the response to a request that was sent on for this reason.
    pub(crate) fn fail(&self, why: CacheStatus, rule: Option<&str>) {
        if !self.is_empty() {
            self.finished(&Record::failed(why), rule);
        }
    }

    fn finished(&self, record: &Record, rule: Option<&str>) {
        record.trace();
        if let Some(stats) = &self.stats {
            stats.finished(record);
            if self.by_rule {
                stats.finished_by(rule, record.outcome());
            }
        }
        self.tell(|observer| observer.finished(record));
    }

    pub(crate) fn background(&self, event: BackgroundEvent<'_>) {
        if let Some(stats) = &self.stats {
            stats.background(&event);
        }
        self.tell(|observer| observer.background(event));
    }

    fn tell(&self, call: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = &self.observer {
            _ = catch_unwind(AssertUnwindSafe(|| call(&**observer)));
        }
    }
}

/// A store that tells an observer what came of storing each response.
#[derive(Clone, Debug)]
pub(crate) struct ObservedStore<St> {
    store: St,
    observers: Observers,
}

impl<St> ObservedStore<St> {
    pub(crate) fn new(store: St) -> Self {
        Self { store, observers: Observers::default() }
    }

    pub(crate) fn observers_mut(&mut self) -> &mut Observers {
        &mut self.observers
    }

    /// The store itself.
    pub(crate) fn unobserved(&self) -> &St {
        &self.store
    }

    pub(crate) fn observers(&self) -> &Observers {
        &self.observers
    }

    /// Tells why a response is not to be stored.
    pub(crate) fn judged(&self, key: &CacheKey, why: NotStored) {
        self.committed(key, Applied::NotStored(why));
    }

    fn committed(&self, key: &CacheKey, applied: store::Applied) {
        trace::committed(match applied {
            Applied::NotStored(why) => Some(why.as_str()),
            Applied::Stored | Applied::Removed | Applied::Unchanged => None,
        });
        if let Some(stats) = self.observers.stats() {
            stats.committed(applied);
        }
        self.observers.tell(|observer| observer.committed(key, applied));
    }
}

impl<St: Store> Store for ObservedStore<St> {
    fn get(&self, key: &[u8]) -> Option<Arc<store::Entry>> {
        self.store.get(key)
    }

    fn apply(&self, key: &CacheKey, change: store::Change) -> store::Applied {
        let length = change.response().map(|response| response.body().len());
        let behind = change.write_behind().map(|behind| (behind, change.response().cloned()));
        let applied = self.store.apply(key, change);
        match behind {
            Some(((behind, _), Some(response))) if applied.is_stored() => behind.stored(key, &response),
            Some(((behind, request), None)) => behind.superseded(key, request.headers()),
            _ => {}
        }
        let Some(length) = length else { return applied };
        let applied = match applied {
            Applied::Stored | Applied::NotStored(_) => applied,
            Applied::Removed | Applied::Unchanged => Applied::NotStored(NotStored::StoreRefused),
        };
        if let (Applied::Stored, Some(stats)) = (applied, self.observers.stats()) {
            stats.stored_body(length);
        }
        self.committed(key, applied);
        applied
    }

    fn sequence(&self) -> &Arc<Sequence> {
        self.store.sequence()
    }

    fn max_response_bytes(&self) -> usize {
        self.store.max_response_bytes()
    }

    fn capacity_bytes(&self) -> u64 {
        self.store.capacity_bytes()
    }

    fn purged(&self) {
        self.store.purged();
    }

    fn stats(&self) -> Option<store::StoreStats> {
        self.store.stats()
    }

    #[cfg(feature = "snapshot")]
    fn snapshot_file(&self) -> Option<store::SnapshotFileStats> {
        self.store.snapshot_file()
    }

    fn not_stored(&self, key: &CacheKey, reason: store::Applied) {
        self.store.not_stored(key, reason);
        self.committed(key, reason);
    }
}
