//! The handle to the numbers.

#[cfg(feature = "metrics")]
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

#[cfg(feature = "metrics")]
use parking_lot::Mutex;
use parking_lot::RwLock;
use tokio::time::Instant;

#[cfg(feature = "metrics")]
use super::metrics::Exported;
use super::{
    by_rule::RuleCounters,
    cluster_status::ClusterStatus,
    counters::{self, Counter, Counters},
    snapshot,
    tier::TierStatus,
};
#[cfg(feature = "snapshot")]
use crate::store::SnapshotFileStats;
use crate::{
    exchange,
    http::not_stored::NotStored,
    origin::OriginHealth,
    sequence::Strength,
    store::{Applied, Store, StoreStats},
};

/// What a cache has done so far, in numbers.
///
/// Each stack counts, with no feature and no observer: [`ReadThroughLayer::stats`](crate::ReadThroughLayer::stats)
/// and [`ReadThroughBuilder::stats`](crate::ReadThroughBuilder::stats) return the handle. Layers stacked by hand
/// are given one by [`LookupLayer::counted_by`](crate::LookupLayer::counted_by) and the method of that name of the
/// other layers. A hit adds to one counter. Threads do not contend for it: twice as many threads as the machine runs
/// at a time, and 64 at most, have counters of their own.
///
/// Clones are handles to the same numbers. They keep the store alive.
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, body::Body, routing::get};
/// use http::Request;
/// use tower::ServiceExt;
/// use tower_readthrough::{Forward, ReadThroughLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = ReadThroughLayer::with_ttl(Duration::from_secs(10));
/// let stats = cache.stats();
/// let app = Router::new().route("/", get(async || "hello")).layer(cache);
/// for _ in 0..3 {
///     let request = Request::get("/").header("host", "example.com").body(Body::empty())?;
///     let response = app.clone().oneshot(request).await?;
///     axum::body::to_bytes(response.into_body(), 1024).await?;
/// }
/// let seen = stats.snapshot();
/// assert_eq!((seen.hits, seen.forwarded.get(Forward::UriMiss), seen.stored), (2, 1, 1));
/// assert_eq!(seen.store.map(|store| store.responses), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Stats {
    shared: Arc<Shared>,
}

struct Shared {
    counters: Counters,
    /// Made when requests are first counted by rule.
    by_rule: OnceLock<RuleCounters>,
    began: Instant,
    sources: RwLock<Sources>,
    /// Each is called with all samples.
    #[cfg(feature = "metrics")]
    samplers: RwLock<Arc<[Sampler]>>,
    /// What was exported by those that are gone, by their names.
    #[cfg(feature = "metrics")]
    exported: Mutex<HashMap<Arc<str>, Exported>>,
}

#[cfg(feature = "metrics")]
pub(super) type Sampler = Arc<dyn Fn(FetchSample) + Send + Sync>;

/// What is measured once for each fetch.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum FetchSample {
    /// The head is there. In seconds, since the request was sent on, and how much of that was before the last
    /// attempt.
    Head { took: f64, queued: f64 },
    /// A body was stored, of so many bytes.
    Body(usize),
}

type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// Where numbers are that are counted elsewhere.
#[derive(Clone, Default)]
struct Sources {
    store: Option<Source<Option<StoreStats>>>,
    coalesce: Option<Source<snapshot::CoalesceStats>>,
    retries: Option<Source<u64>>,
    health: Option<OriginHealth>,
    tier: Option<Source<TierStatus>>,
    reports_only: bool,
    cluster: Option<Source<Option<ClusterStatus>>>,
    #[cfg(feature = "snapshot")]
    file: Option<Source<Option<SnapshotFileStats>>>,
}

impl Stats {
    /// Returns a handle to numbers that are all 0, for layers that are stacked by hand.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                counters: Counters::new(),
                by_rule: OnceLock::new(),
                began: Instant::now(),
                sources: RwLock::default(),
                #[cfg(feature = "metrics")]
                samplers: RwLock::new(Arc::new([])),
                #[cfg(feature = "metrics")]
                exported: Mutex::default(),
            }),
        }
    }

    /// Returns what the numbers are now. They are not read at the same instant: a request that ends meanwhile
    /// may be in some and not in others.
    pub fn snapshot(&self) -> snapshot::StatsSnapshot {
        // Called without the lock: a store may be the user's own.
        let sources = self.shared.sources.read().clone();
        let Sources { store, coalesce, retries, health, tier, reports_only, cluster, .. } = sources;
        let counters = &self.shared.counters;
        let ended = |result| counters.get(Counter::of_refresh(result));
        use crate::exchange::RefreshResult::{Aborted, Failed, Responded, TimedOut};
        snapshot::StatsSnapshot {
            over: self.shared.began.elapsed(),
            hits: counters.get(Counter::HIT),
            stale: counters.all(counters::STALE),
            forwarded: counters.all(counters::FORWARDED),
            unkeyed: counters.all(counters::UNKEYED),
            refused: counters.all(counters::REFUSED),
            failed: counters.get(Counter::FAILED),
            other_methods: counters.get(Counter::OTHER_METHOD),
            lost: counters.all(counters::LOST),
            collapsed: counters.get(Counter::COLLAPSED),
            stored: counters.get(Counter::STORED),
            not_stored: counters.all(counters::NOT_STORED),
            refreshes: snapshot::Refreshes {
                begun: counters.get(Counter::REFRESH_BEGAN),
                responded: ended(Responded(http::StatusCode::OK)),
                failed: ended(Failed),
                timed_out: ended(TimedOut),
                aborted: ended(Aborted),
            },
            purges: counters.all(counters::PURGES),
            soft_purges: counters.get(Counter::SOFT_PURGE),
            reports_only,
            saved: counters.get(Counter::SAVED),
            unproven_purges: counters.get(Counter::UNPROVEN_PURGE),
            retries: retries.map_or(0, |retries| retries()),
            coalesce: coalesce.map(|coalesce| coalesce()),
            store: store.and_then(|store| store()),
            second_tier: tier.map(|tier| tier()),
            origins: health.map(|health| origins(&health)).unwrap_or_default(),
            cluster: cluster.and_then(|cluster| cluster()),
            #[cfg(feature = "snapshot")]
            snapshot_file: sources.file.and_then(|file| file()),
            rules: self.shared.by_rule.get().map(RuleCounters::snapshot).unwrap_or_default(),
        }
    }

    /// Reads what this store says of itself.
    pub(crate) fn read_store(&self, store: &impl Store) {
        #[cfg(feature = "snapshot")]
        {
            let store = store.clone();
            self.read::<Source<_>>(|sources| &mut sources.file, Arc::new(move || store.snapshot_file()));
        }
        let store = store.clone();
        self.read::<Source<_>>(|sources| &mut sources.store, Arc::new(move || store.stats()));
    }

    /// Reads what fetches hold.
    pub(crate) fn read_coalesce(&self, stats: impl Fn() -> snapshot::CoalesceStats + Send + Sync + 'static) {
        self.read::<Source<_>>(|sources| &mut sources.coalesce, Arc::new(stats));
    }

    /// Reads how the node stands to its cluster.
    #[cfg(feature = "redis")]
    pub(crate) fn read_cluster(&self, status: impl Fn() -> Option<ClusterStatus> + Send + Sync + 'static) {
        self.read::<Source<_>>(|sources| &mut sources.cluster, Arc::new(status));
    }

    /// Reads how many retries have begun.
    pub(crate) fn read_retries(&self, retries: impl Fn() -> u64 + Send + Sync + 'static) {
        self.read::<Source<_>>(|sources| &mut sources.retries, Arc::new(retries));
    }

    /// Reads what a second tier says of itself.
    #[cfg(feature = "redis")]
    pub(crate) fn read_tier(&self, status: impl Fn() -> TierStatus + Send + Sync + 'static) {
        self.read::<Source<_>>(|sources| &mut sources.tier, Arc::new(status));
    }

    /// Reads the attempts at these origins.
    pub(crate) fn read_origins(&self, health: &OriginHealth) {
        self.read(|sources| &mut sources.health, health.clone());
    }

    /// Reads from this source from now on. The one before is dropped without the lock: it may hold a store of the
    /// user's own.
    fn read<T>(&self, place: impl FnOnce(&mut Sources) -> &mut Option<T>, source: T) {
        let replaced = place(&mut self.shared.sources.write()).replace(source);
        drop(replaced);
    }

    /// Calls this with each sample, beside those before.
    #[cfg(feature = "metrics")]
    pub(super) fn sample_fetches(&self, sampler: Sampler) {
        let mut samplers = self.shared.samplers.write();
        *samplers = samplers.iter().cloned().chain([sampler]).collect();
    }

    #[cfg(feature = "metrics")]
    pub(super) fn sample_fetches_no_more(&self, sampler: &Sampler) {
        let mut samplers = self.shared.samplers.write();
        *samplers = samplers.iter().filter(|known| !Arc::ptr_eq(known, sampler)).cloned().collect();
    }

    /// Takes what was last exported under this name.
    #[cfg(feature = "metrics")]
    pub(super) fn take_exported(&self, name: &str) -> Exported {
        self.shared.exported.lock().remove(name).unwrap_or_default()
    }

    #[cfg(feature = "metrics")]
    pub(super) fn keep_exported(&self, name: &Arc<str>, exported: Exported) {
        self.shared.exported.lock().insert(Arc::clone(name), exported);
    }

    #[cfg(feature = "metrics")]
    fn sample(&self, sample: impl FnOnce() -> FetchSample) {
        // Called without the lock: a recorder is the user's own.
        let samplers = Arc::clone(&self.shared.samplers.read());
        if samplers.is_empty() {
            return;
        }
        let sample = sample();
        for sampler in samplers.iter() {
            // As with an observer, a panic changes no response.
            _ = catch_unwind(AssertUnwindSafe(|| sampler(sample)));
        }
    }

    /// Takes note of the head of a fetched response, which is there now: of when the request was sent on, and when
    /// the last attempt began.
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, clippy::unused_self))]
    pub(crate) fn fetched(&self, sent_at: Instant, attempt_began: Instant) {
        #[cfg(feature = "metrics")]
        self.sample(|| FetchSample::Head {
            took: sent_at.elapsed().as_secs_f64(),
            queued: attempt_began.saturating_duration_since(sent_at).as_secs_f64(),
        });
    }

    /// Takes note of the length of a body that was stored.
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, clippy::unused_self))]
    pub(crate) fn stored_body(&self, bytes: usize) {
        #[cfg(feature = "metrics")]
        self.sample(|| FetchSample::Body(bytes));
    }

    /// Counts a fresh response from the store.
    #[inline(always)]
    pub(crate) fn hit(&self) {
        self.shared.counters.add(Counter::HIT);
    }

    /// Counts what became of a request that no observer is told of.
    pub(crate) fn count(&self, record: &exchange::Record) {
        record.trace();
        self.finished(record);
    }

    /// Counts what became of a request.
    pub(crate) fn finished(&self, record: &exchange::Record) {
        let counters = &self.shared.counters;
        counters.add(match record.outcome() {
            exchange::Outcome::Hit => Counter::HIT,
            exchange::Outcome::Stale(why) => counters::STALE.of(why),
            exchange::Outcome::Forwarded(why) => counters::FORWARDED.of(why),
            exchange::Outcome::Unkeyed(why) => counters::UNKEYED.of(why),
            exchange::Outcome::Refused(why) => counters::REFUSED.of(why),
            exchange::Outcome::Failed => Counter::FAILED,
        });
        if let Some(why) = record.cache_status().lost_reason() {
            counters.add(counters::LOST.of(why));
        }
        if record.role() == exchange::Role::Follower {
            counters.add(Counter::COLLAPSED);
        }
    }

    /// Counts what became of a request by the rule that decides about it, if there is one.
    pub(crate) fn finished_by(&self, rule: Option<&str>, outcome: exchange::Outcome) {
        self.shared.by_rule.get_or_init(RuleCounters::new).add(rule, outcome);
    }

    /// Counts by rule from now on, so that requests that no rule is for are there with 0.
    pub(crate) fn count_by_rule(&self) {
        _ = self.shared.by_rule.get_or_init(RuleCounters::new);
    }

    /// Counts a request that would not have reached the origin.
    pub(crate) fn saved(&self) {
        self.shared.counters.add(Counter::SAVED);
    }

    /// Says that the cache only reports what it would do.
    pub(crate) fn note_report_only(&self) {
        self.shared.sources.write().reports_only = true;
    }

    /// Counts a request of a method that never has a key.
    pub(crate) fn other_method(&self) {
        self.shared.counters.add(Counter::OTHER_METHOD);
    }

    /// Counts what came of storing a response.
    pub(crate) fn committed(&self, applied: Applied) {
        let counters = &self.shared.counters;
        match applied {
            Applied::Stored => counters.add(Counter::STORED),
            Applied::NotStored(why) => self.not_stored(why),
            Applied::Removed | Applied::Unchanged => self.not_stored(NotStored::StoreRefused),
        }
    }

    /// Counts a response that was not to be stored.
    pub(crate) fn not_stored(&self, why: NotStored) {
        self.shared.counters.add(counters::NOT_STORED.of(why));
    }

    pub(crate) fn background(&self, event: &exchange::BackgroundEvent<'_>) {
        self.shared.counters.add(match event {
            exchange::BackgroundEvent::RefreshBegan(_) => Counter::REFRESH_BEGAN,
            exchange::BackgroundEvent::RefreshEnded(_, result) => Counter::of_refresh(*result),
        });
    }

    pub(crate) fn purged(&self, kind: snapshot::PurgeKind, strength: Strength) {
        self.shared.counters.add(counters::PURGES.of(kind));
        match strength {
            Strength::Hard => {}
            Strength::Soft => self.shared.counters.add(Counter::SOFT_PURGE),
            Strength::Unproven => self.shared.counters.add(Counter::UNPROVEN_PURGE),
        }
    }
}

/// The origins under names of their own.
fn origins(health: &OriginHealth) -> Vec<snapshot::OriginStats> {
    let gauges = health.gauges().into_iter();
    let stats = gauges.map(|(name, state, gauges)| snapshot::OriginStats {
        name,
        state,
        attempts: gauges.attempts.begun,
        failures: gauges.attempts.failed,
        timed_out: gauges.attempts.timed_out,
        too_many: gauges.attempts.too_many,
        latency: gauges.attempts.latency,
        waiting: gauges.waiting,
        under_way: gauges.under_way,
        permits_in_use: gauges.permits_in_use,
        permits: gauges.permits,
    });
    stats.collect()
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stats").field(&self.snapshot()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Weak,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::{
        key::CacheKey,
        sequence::Sequence,
        store::{Change, Entry, MemoryStore},
    };

    /// Looks whether the lock is free when it is cloned and dropped, as code of the application may, and counts.
    struct Looks {
        stats: Weak<Shared>,
        times: Arc<AtomicU64>,
    }

    impl Looks {
        fn at(stats: &Stats) -> Self {
            Self { stats: Arc::downgrade(&stats.shared), times: Arc::default() }
        }

        fn number(&self) -> u64 {
            self.times.load(Ordering::Relaxed)
        }

        fn look(&self) {
            let Some(shared) = self.stats.upgrade() else { return };
            assert!(shared.sources.try_write().is_some(), "code of the application runs under the lock");
            self.times.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Clone for Looks {
        fn clone(&self) -> Self {
            self.look();
            Self { stats: Weak::clone(&self.stats), times: Arc::clone(&self.times) }
        }
    }

    impl Drop for Looks {
        fn drop(&mut self) {
            self.look();
        }
    }

    /// A store of the application.
    #[derive(Clone)]
    struct Own {
        store: MemoryStore,
        _looks: Looks,
    }

    impl Store for Own {
        fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
            self.store.get(key)
        }

        fn apply(&self, key: &CacheKey, change: Change) -> Applied {
            self.store.apply(key, change)
        }

        fn sequence(&self) -> &Arc<Sequence> {
            self.store.sequence()
        }

        fn max_response_bytes(&self) -> usize {
            self.store.max_response_bytes()
        }
    }

    #[test]
    fn no_source_is_cloned_or_dropped_under_the_lock() {
        let stats = Stats::new();
        let looks = Looks::at(&stats);
        let own = Own { store: MemoryStore::with_capacity_bytes(1 << 20), _looks: looks.clone() };
        let begun = looks.number();
        // The second time the first ones are replaced.
        for _ in 0..2 {
            stats.read_store(&own);
            let held = looks.clone();
            stats.read_retries(move || held.number());
            let held = looks.clone();
            stats.read_coalesce(move || snapshot::CoalesceStats {
                lagged: held.number(),
                ..Default::default()
            });
            #[cfg(feature = "redis")]
            {
                let held = looks.clone();
                stats.read_cluster(move || unreachable!("{}", held.number()));
                let held = looks.clone();
                stats.read_tier(move || unreachable!("{}", held.number()));
            }
        }
        let sources = 3 + u64::from(cfg!(feature = "snapshot")) + 2 * u64::from(cfg!(feature = "redis"));
        // Each was cloned twice and dropped once.
        assert_eq!(looks.number() - begun, 3 * sources);
    }
}
