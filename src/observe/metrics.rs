//! The numbers of a cache through the [`metrics`](https://docs.rs/metrics/0.24) facade (feature `metrics`).
//!
//! A [`MetricsExporter`] hands on what [`Stats`] have counted, at an interval or when it is told to, as from the
//! handler of a scrape. A request pays nothing for it: what is counted once per request reaches the facade as the
//! difference since the export before, and only what is measured once per fetch is recorded when it happens. The
//! recorder is looked up each time, so that it may be installed late; what was exported before is lost then. An
//! exporter in place of one that was dropped goes on where that has ended, if name and [`Stats`] are the same.
//!
//! ```
//! use std::time::Duration;
//! use tower_readthrough::{MemoryStore, ReadThroughLayer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).cache_name("edge-1").build()?;
//! let exporter = cache.metrics()?;
//! // In a runtime: `exporter.spawn(Duration::from_secs(10))`. Or where the metrics are rendered:
//! exporter.export();
//! // Two of one name would count twice.
//! assert!(cache.metrics().is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # Series
//!
//! Each has the label `cache`, which is the [name](crate::ReadThroughBuilder::cache_name) of the cache. The values
//! of all other labels are names of this crate, but for `origin`, the first 16 origins by their names, and `rule`, the
//! first 64 key rules by theirs; the rest of either is `other`. A request that no rule is for has the rule `none`. The
//! series with `rule` is there if the cache [counts by rule](crate::LookupLayer::count_by_rule). A counter begins
//! with 0, also where what it counts comes later than the first export, such as a file.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `readthrough_requests_total` | counter | `outcome`, `reason` | requests, once the head of their response is handed on |
//! | `readthrough_lost_total` | counter | `reason` | requests whose stored response was stale or gone for another reason than the end of its lifetime |
//! | `readthrough_collapsed_total` | counter | | requests that shared the fetch of another one |
//! | `readthrough_rule_requests_total` | counter | `rule`, `outcome` | requests that have or could have a key, by the key rule that decides about them |
//! | `readthrough_stored_total` | counter | | responses that were stored |
//! | `readthrough_not_stored_total` | counter | `reason` | responses that were not |
//! | `readthrough_refreshes_total` | counter | `result` | background refreshes that ended |
//! | `readthrough_purges_total` | counter | `kind` | purges |
//! | `readthrough_soft_purges_total` | counter | | soft ones of them |
//! | `readthrough_retries_total` | counter | | attempts beyond the first |
//! | `readthrough_saved_total` | counter | | requests that would not have reached the origin, of a cache that only reports |
//! | `readthrough_lagged_readers_total` | counter | | readers that lost their place for lack of room |
//! | `readthrough_evictions_total` | counter | | keys pushed out of the store |
//! | `readthrough_expirations_total` | counter | | keys given back by the store |
//! | `readthrough_attempts_total` | counter | `origin` | attempts at the origin that began |
//! | `readthrough_failed_attempts_total` | counter | `origin`, `result` | those that failed, timed out or got a 429 |
//! | `readthrough_fetches` | gauge | | shared fetches under way |
//! | `readthrough_waiters` | gauge | | callers that wait for one of them |
//! | `readthrough_held_bytes` | gauge | | bytes held for readers of shared fetches |
//! | `readthrough_store_bytes` | gauge | | bytes in the store |
//! | `readthrough_store_capacity_bytes` | gauge | | its capacity |
//! | `readthrough_store_responses` | gauge | | responses in the store |
//! | `readthrough_store_markers` | gauge | | hit-for-miss markers in the store |
//! | `readthrough_tier_reads_total` | counter | `result` | fetches for which there was a second tier, by what it had |
//! | `readthrough_tier_writes_total` | counter | `result` | responses that were to be written to it, by what came of them |
//! | `readthrough_tier_waits_total` | counter | `result` | fetches that waited for that of another node, by what came of that |
//! | `readthrough_tier_queued` | gauge | | changes that wait to be written to it |
//! | `readthrough_tier_queued_bytes` | gauge | | the bytes of the responses among them |
//! | `readthrough_tier_standing` | gauge | `state` | 1 for how its node stands to the cluster, 0 for the others |
//! | `readthrough_tier_breaker` | gauge | `call`, `state` | 1 for the state of the breaker of reads and of writes, 0 for the others |
//! | `readthrough_tier_remote_connected` | gauge | | 1 while there is a connection to its server; as the next one, only if the remote [says so](crate::TierStatus::remote) |
//! | `readthrough_tier_remote_connections_total` | counter | | connections to it that were made |
//! | `readthrough_origin_state` | gauge | `origin`, `state` | 1 for the state that the origin is in, 0 for the others |
//! | `readthrough_origin_waiting` | gauge | `origin` | attempts that wait for a permit |
//! | `readthrough_origin_under_way` | gauge | `origin` | attempts under way |
//! | `readthrough_cluster_state` | gauge | `state` | 1 for the state that the node is in, 0 for the others, and for all once it has left; as all that follow with `cluster`, only once it has joined |
//! | `readthrough_cluster_heard_seconds` | gauge | | since the log of purges was read to its end; before the first time, since the node is cut off; goes on growing once it has left |
//! | `readthrough_cluster_must_validate` | gauge | | 1 while all that is stored is confirmed before it is used, since that is too long |
//! | `readthrough_cluster_behind` | gauge | | entries of the log that were not applied when it was last read; it stays as it was while the node is cut off, until the log is read again, and once the node has left |
//! | `readthrough_cluster_waiting` | gauge | | own purges that wait, or were not read back yet; 0 once the node has left |
//! | `readthrough_cluster_gaps_total` | counter | | times that purges may have been missed |
//! | `readthrough_cluster_nodes` | gauge | `state` | the other nodes: `heard`, or `silent` for more than ten seconds; 0 once the node has left |
//! | `readthrough_snapshot_file_writes_total` | counter | `result` | writes of the snapshot file: `written`, or `failed`; as all that follow with `snapshot_file`, only once one was opened |
//! | `readthrough_snapshot_file_written_seconds` | gauge | | since it was last written; before the first time, since it was opened; goes on growing once it is closed |
//! | `readthrough_snapshot_file_bytes` | gauge | | its length when it was last written |
//! | `readthrough_snapshot_file_responses` | gauge | `result` | responses of the last write: `written`, or `skipped` since they do not fit into an envelope |
//! | `readthrough_snapshot_file_load` | gauge | `end` | 1 for how the load has ended, or `loading`, 0 for the others, and for all while no file is open |
//! | `readthrough_snapshot_file_load_responses` | gauge | `result` | responses of the load: `loaded`, `unneeded`, `skipped`; 0 while no file is open |
//! | `readthrough_fetch_seconds` | histogram | | from the request of a fetch to the head of its response |
//! | `readthrough_queue_seconds` | histogram | | of that, before the last attempt began: in the queue, and in attempts before |
//! | `readthrough_body_bytes` | histogram | | length of the bodies that were stored |

mod elsewhere;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::metrics::{
    Label, SharedString, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use parking_lot::Mutex;

use self::elsewhere::Said;
use super::{
    ClusterStatus, FetchSample, Stats, StatsSnapshot,
    snapshot::{CoalesceStats, OriginStats, RuleStats},
    stats::Sampler,
};
#[cfg(feature = "snapshot")]
use crate::store::SnapshotFileStats;
use crate::{origin::OriginState, store::StoreStats};

/// So many origins have labels of their own.
const MAX_ORIGINS: usize = 16;
/// The label of the others, and of rules beyond the first.
const OTHER: &str = "other";
/// A shorter interval counts as this.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// The names that are in use.
static NAMES: LazyLock<Mutex<HashSet<Arc<str>>>> = LazyLock::new(Mutex::default);

/// Another exporter has this name: both would add to the same series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another cache exports metrics as `{0}`: give each a `cache_name` of its own")]
pub struct CacheNameTaken(Box<str>);

/// A name that is in use until this is dropped.
struct Name(Arc<str>);

impl Name {
    fn take(name: &str) -> Result<Self, CacheNameTaken> {
        let name: Arc<str> = name.into();
        match NAMES.lock().insert(Arc::clone(&name)) {
            true => Ok(Self(name)),
            false => Err(CacheNameTaken((*name).into())),
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        NAMES.lock().remove(&self.0);
    }
}

/// Hands the numbers of one cache on to the `metrics` facade.
pub struct MetricsExporter {
    stats: Stats,
    name: Name,
    sampler: Sampler,
    last: Mutex<Exported>,
    /// Whether there was an export.
    has_begun: AtomicBool,
}

/// What was exported the last time under a name.
#[derive(Default)]
pub(super) struct Exported {
    snapshot: Option<StatsSnapshot>,
    /// How many exports there were.
    count: u64,
    /// Those with labels of their own.
    origins: Vec<Box<str>>,
    /// Of a node that may have left.
    cluster: Option<Said<ClusterStatus>>,
    /// It may be closed.
    #[cfg(feature = "snapshot")]
    file: Option<Said<SnapshotFileStats>>,
}

/// What one export hands on.
struct Batch {
    since: StatsSnapshot,
    /// What the export before has read.
    earlier: Option<StatsSnapshot>,
    /// By their labels.
    origins: Vec<(SharedString, OriginStats)>,
    cluster: Option<Said<ClusterStatus>>,
    #[cfg(feature = "snapshot")]
    file: Option<Said<SnapshotFileStats>>,
}

impl Batch {
    /// Whether this was not there at the export before.
    fn is_new(&self, was_there: impl Fn(&StatsSnapshot) -> bool) -> bool {
        !self.earlier.as_ref().is_some_and(was_there)
    }

    fn is_new_origin(&self, label: &str) -> bool {
        self.is_new(|earlier| match label {
            OTHER if earlier.origins.len() > MAX_ORIGINS => true,
            label => earlier.origins.iter().any(|origin| *origin.name == *label),
        })
    }
}

impl Exported {
    fn batch(&mut self, since: StatsSnapshot, earlier: Option<StatsSnapshot>) -> Batch {
        Said::note(&mut self.cluster, since.cluster.as_ref());
        #[cfg(feature = "snapshot")]
        Said::note(&mut self.file, since.snapshot_file.as_ref());
        Batch {
            origins: labelled(&mut self.origins, &since.origins),
            cluster: self.cluster.clone(),
            #[cfg(feature = "snapshot")]
            file: self.file.clone(),
            since,
            earlier,
        }
    }
}

impl MetricsExporter {
    /// Exports these numbers as those of the cache of this name.
    ///
    /// # Errors
    ///
    /// If there is an exporter of this name, which has not been dropped.
    pub fn new(stats: &Stats, cache: &str) -> Result<Self, CacheNameTaken> {
        let name = Name::take(cache)?;
        let label = cache_label(&name.0);
        let sampler: Sampler = Arc::new(move |sample| record(&label, sample));
        stats.sample_fetches(Arc::clone(&sampler));
        // An exporter before this one may have had the name.
        let last = Mutex::new(stats.take_exported(&name.0));
        Ok(Self { stats: stats.clone(), name, sampler, last, has_begun: AtomicBool::new(false) })
    }

    /// Exports what was counted since the last time, and what is now.
    pub fn export(&self) {
        let batch = self.advance();
        let is_first = !self.has_begun.swap(true, Ordering::Relaxed);
        if is_first {
            describe();
        }
        let cache = cache_label(&self.name.0);
        let scope = |is_new: bool| Scope { cache: cache.clone(), is_first: is_first || is_new };
        let of = |was_there: fn(&StatsSnapshot) -> bool| scope(batch.is_new(was_there));
        let since = &batch.since;
        scope(false).requests(since);
        scope(false).responses(since);
        since.coalesce.iter().for_each(|now| of(|earlier| earlier.coalesce.is_some()).coalesce(now));
        since.store.iter().for_each(|now| of(|earlier| earlier.store.is_some()).store(now));
        since.second_tier.iter().for_each(|now| of(|earlier| earlier.second_tier.is_some()).second_tier(now));
        batch.cluster.iter().for_each(|said| of(|earlier| earlier.cluster.is_some()).cluster(said));
        #[cfg(feature = "snapshot")]
        batch.file.iter().for_each(|said| of(|earlier| earlier.snapshot_file.is_some()).snapshot_file(said));
        for rule in &since.rules {
            let is_new = batch.is_new(|earlier| earlier.rules.iter().any(|known| known.is_of_same(rule)));
            scope(is_new).rule(rule);
        }
        for (label, origin) in &batch.origins {
            scope(batch.is_new_origin(label)).origin(label, origin);
        }
    }

    /// Returns what is to be exported now.
    fn advance(&self) -> Batch {
        loop {
            let count = self.last.lock().count;
            // Without the lock: a store may be the user's own.
            let snapshot = self.stats.snapshot();
            let mut last = self.last.lock();
            // What another thread has exported meanwhile may be later than this.
            if last.count == count {
                let earlier = last.snapshot.take();
                let since =
                    earlier.as_ref().map_or_else(|| snapshot.clone(), |earlier| snapshot.since(earlier));
                (last.snapshot, last.count) = (Some(snapshot), count + 1);
                return last.batch(since, earlier);
            }
        }
    }

    /// Exports at this interval, of at least 100 ms, until the task is aborted or the runtime ends.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn(self, interval: Duration) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval.max(LEAST_INTERVAL));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.export();
            }
        })
    }
}

impl fmt::Debug for MetricsExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsExporter").field("cache", &self.name.0).finish_non_exhaustive()
    }
}

impl Drop for MetricsExporter {
    fn drop(&mut self) {
        self.stats.sample_fetches_no_more(&self.sampler);
        self.stats.keep_exported(&self.name.0, std::mem::take(self.last.get_mut()));
    }
}

fn cache_label(name: &Arc<str>) -> Label {
    Label::new("cache", SharedString::from(Arc::clone(name)))
}

fn record(cache: &Label, sample: FetchSample) {
    let labels = vec![cache.clone()];
    match sample {
        FetchSample::Head { took, queued } => {
            histogram!("readthrough_fetch_seconds", labels.clone()).record(took);
            histogram!("readthrough_queue_seconds", labels).record(queued);
        }
        FetchSample::Body(bytes) => histogram!("readthrough_body_bytes", labels).record(bytes as f64),
    }
}

/// The origins by their labels: those beyond the most together.
fn labelled(known: &mut Vec<Box<str>>, origins: &[OriginStats]) -> Vec<(SharedString, OriginStats)> {
    let mut labelled: Vec<(SharedString, OriginStats)> = Vec::new();
    for origin in origins {
        if !known.contains(&origin.name) && known.len() < MAX_ORIGINS {
            known.push(origin.name.clone());
        }
        if known.contains(&origin.name) {
            labelled.push((origin.name.to_string().into(), origin.clone()));
        } else if let Some((_, other)) = labelled.iter_mut().find(|(name, _)| name.as_ref() == OTHER) {
            other.add(origin);
        } else {
            labelled.push((OTHER.into(), origin.clone()));
        }
    }
    labelled
}

/// One export, or a part of it.
struct Scope {
    cache: Label,
    /// It is the first one with what is counted: all counters are made, so that they begin with 0.
    is_first: bool,
}

impl Scope {
    fn labels<const N: usize>(&self, labels: [(&'static str, SharedString); N]) -> Vec<Label> {
        let own = labels.into_iter().map(|(name, value)| Label::new(name, value));
        std::iter::once(self.cache.clone()).chain(own).collect()
    }

    fn count<const N: usize>(
        &self,
        name: &'static str,
        labels: [(&'static str, SharedString); N],
        more: u64,
    ) {
        if more > 0 || self.is_first {
            counter!(name, self.labels(labels)).increment(more);
        }
    }

    fn set<const N: usize>(&self, name: &'static str, labels: [(&'static str, SharedString); N], value: f64) {
        gauge!(name, self.labels(labels)).set(value);
    }

    fn request(&self, outcome: &'static str, reason: &'static str, more: u64) {
        let labels = [("outcome", outcome.into()), ("reason", reason.into())];
        self.count("readthrough_requests_total", labels, more);
    }

    fn requests(&self, since: &StatsSnapshot) {
        self.request("hit", "none", since.hits);
        since.stale.iter().for_each(|(why, more)| self.request("stale", why.as_str(), more));
        since.forwarded.iter().for_each(|(why, more)| self.request("forwarded", why.as_str(), more));
        since.unkeyed.iter().for_each(|(why, more)| self.request("unkeyed", why.as_str(), more));
        since.refused.iter().for_each(|(why, more)| self.request("refused", why.as_str(), more));
        self.request("failed", "none", since.failed);
        self.request("other-method", "none", since.other_methods);
        for (why, more) in since.lost.iter() {
            self.count("readthrough_lost_total", [("reason", why.as_str().into())], more);
        }
        self.count("readthrough_collapsed_total", [], since.collapsed);
        self.count("readthrough_saved_total", [], since.saved);
        self.count("readthrough_retries_total", [], since.retries);
    }

    fn rule(&self, since: &RuleStats) {
        let name: SharedString = match (&since.rule, since.is_other) {
            (Some(name), _) => name.to_string().into(),
            (None, true) => OTHER.into(),
            (None, false) => "none".into(),
        };
        for (outcome, more) in [
            ("hit", since.hits),
            ("stale", since.stale),
            ("forwarded", since.forwarded),
            ("unkeyed", since.unkeyed),
            ("refused", since.refused),
            ("failed", since.failed),
        ] {
            let labels = [("rule", name.clone()), ("outcome", outcome.into())];
            self.count("readthrough_rule_requests_total", labels, more);
        }
    }

    fn responses(&self, since: &StatsSnapshot) {
        self.count("readthrough_stored_total", [], since.stored);
        for (why, more) in since.not_stored.iter() {
            self.count("readthrough_not_stored_total", [("reason", why.as_str().into())], more);
        }
        let refreshes = since.refreshes;
        for (result, more) in [
            ("responded", refreshes.responded),
            ("failed", refreshes.failed),
            ("timed-out", refreshes.timed_out),
            ("aborted", refreshes.aborted),
        ] {
            self.count("readthrough_refreshes_total", [("result", result.into())], more);
        }
        for (kind, more) in since.purges.iter() {
            self.count("readthrough_purges_total", [("kind", kind.as_str().into())], more);
        }
        self.count("readthrough_soft_purges_total", [], since.soft_purges);
    }

    fn coalesce(&self, now: &CoalesceStats) {
        self.set("readthrough_fetches", [], now.fetches as f64);
        self.set("readthrough_waiters", [], now.waiters as f64);
        self.set("readthrough_held_bytes", [], now.held_bytes as f64);
        self.count("readthrough_lagged_readers_total", [], now.lagged);
    }

    fn store(&self, now: &StoreStats) {
        self.set("readthrough_store_bytes", [], now.bytes as f64);
        self.set("readthrough_store_capacity_bytes", [], now.capacity_bytes as f64);
        self.set("readthrough_store_responses", [], now.responses as f64);
        self.set("readthrough_store_markers", [], now.markers as f64);
        self.count("readthrough_evictions_total", [], now.evictions);
        self.count("readthrough_expirations_total", [], now.expirations);
    }

    fn origin(&self, name: &SharedString, origin: &OriginStats) {
        let own = || [("origin", name.clone())];
        self.count("readthrough_attempts_total", own(), origin.attempts);
        for (result, more) in
            [("failed", origin.failures), ("timed-out", origin.timed_out), ("too-many", origin.too_many)]
        {
            let labels = [("origin", name.clone()), ("result", result.into())];
            self.count("readthrough_failed_attempts_total", labels, more);
        }
        for state in OriginState::ALL {
            let labels = [("origin", name.clone()), ("state", state.as_str().into())];
            self.set("readthrough_origin_state", labels, f64::from(u8::from(*state == origin.state)));
        }
        self.set("readthrough_origin_waiting", own(), origin.waiting as f64);
        self.set("readthrough_origin_under_way", own(), origin.under_way as f64);
    }
}

/// Says what the series are, to recorders that pass it on.
fn describe() {
    use ::metrics::Unit::{Bytes, Count, Seconds};
    describe_counter!("readthrough_requests_total", Count, "Requests by what became of them");
    describe_counter!(
        "readthrough_rule_requests_total",
        Count,
        "Requests by the key rule that decides about them"
    );
    describe_counter!("readthrough_collapsed_total", Count, "Requests that shared the fetch of another one");
    describe_counter!("readthrough_stored_total", Count, "Responses that were stored");
    describe_counter!("readthrough_not_stored_total", Count, "Responses that were not stored, by reason");
    describe_counter!("readthrough_refreshes_total", Count, "Background refreshes, by result");
    describe_counter!("readthrough_purges_total", Count, "Purges by what they name");
    describe_counter!("readthrough_attempts_total", Count, "Attempts at an origin");
    describe_counter!("readthrough_failed_attempts_total", Count, "Attempts at an origin that failed");
    describe_gauge!(
        "readthrough_cluster_heard_seconds",
        Seconds,
        "Since all purges of other nodes were heard"
    );
    describe_gauge!("readthrough_cluster_behind", Count, "Entries of the log that are not applied");
    describe_gauge!(
        "readthrough_cluster_waiting",
        Count,
        "Own purges that other nodes cannot have heard yet"
    );
    describe_counter!("readthrough_cluster_gaps_total", Count, "Times that purges may have been missed");
    describe_gauge!(
        "readthrough_snapshot_file_written_seconds",
        Seconds,
        "Since the snapshot file was written"
    );
    describe_gauge!("readthrough_snapshot_file_bytes", Bytes, "Length of the snapshot file");
    describe_counter!("readthrough_evictions_total", Count, "Keys pushed out of the store");
    describe_gauge!("readthrough_store_bytes", Bytes, "Bytes in the store");
    describe_gauge!("readthrough_store_capacity_bytes", Bytes, "Capacity of the store");
    describe_gauge!("readthrough_held_bytes", Bytes, "Bytes held for readers of shared fetches");
    describe_gauge!("readthrough_fetches", Count, "Shared fetches under way");
    describe_histogram!("readthrough_fetch_seconds", Seconds, "From the request of a fetch to its head");
    describe_histogram!("readthrough_queue_seconds", Seconds, "Of that, before the last attempt began");
    describe_histogram!("readthrough_body_bytes", Bytes, "Length of stored bodies");
}
