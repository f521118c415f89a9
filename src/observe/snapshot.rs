//! What the numbers are at one moment: plain data.

use std::{fmt, marker::PhantomData, time::Duration};

use super::cluster_status::ClusterStatus;
#[cfg(feature = "snapshot")]
use crate::store::SnapshotFileStats;
use crate::{
    exchange::{
        Refused,
        status::{Forward, Lost, Stale},
    },
    http::not_stored::NotStored,
    key::Unkeyed,
    observe::tier::TierStatus,
    origin::{Latency, OriginState},
    reasons::{Named, names},
    store::StoreStats,
};

names! {
    /// What was purged.
    pub enum PurgeKind {
        /// [A URL](crate::Purge::url).
        Url => "url",
        /// [A key](crate::Purge::key).
        Key => "key",
        /// [A tag](crate::Purge::tag).
        Tag => "tag",
        /// [A path and what is below it](crate::Purge::path_prefix).
        PathPrefix => "path-prefix",
        /// [A host](crate::Purge::host).
        Host => "host",
        /// [A pattern of paths](crate::Purge::pattern).
        Pattern => "pattern",
        /// [Keys with the same beginning](crate::Purge::key_prefix).
        KeyPrefix => "key-prefix",
        /// [Everything](crate::Purge::everything).
        Everything => "everything",
        /// What an unsafe request has changed (RFC 9111 §4.4).
        Invalidation => "invalidation",
    }
}

/// A number for each of a set of names.
///
/// ```
/// use tower_readthrough::{Forward, Stats};
///
/// let forwarded = Stats::new().snapshot().forwarded;
/// assert_eq!((forwarded.get(Forward::UriMiss), forwarded.total()), (0, 0));
/// assert_eq!(forwarded.iter().count(), Forward::ALL.len());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Counts<R> {
    counts: Box<[u64]>,
    names: PhantomData<R>,
}

impl<R: Named> Counts<R> {
    pub(crate) fn from_fn(count: impl FnMut(R) -> u64) -> Self {
        Self { counts: R::ALL.iter().copied().map(count).collect(), names: PhantomData }
    }

    /// Returns the number for a name.
    pub fn get(&self, name: R) -> u64 {
        self.counts.get(name.index()).copied().unwrap_or_default()
    }

    /// Returns the sum of all.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns all names with their numbers, those that are 0 included.
    pub fn iter(&self) -> impl Iterator<Item = (R, u64)> {
        R::ALL.iter().copied().zip(self.counts.iter().copied())
    }

    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self::from_fn(|name| self.get(name).saturating_sub(earlier.get(name)))
    }
}

impl<R: Named> Default for Counts<R> {
    fn default() -> Self {
        Self::from_fn(|_| 0)
    }
}

impl<R: Named> fmt::Debug for Counts<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.iter().filter(|(_, count)| *count > 0);
        f.debug_map().entries(counted.map(|(name, count)| (name.as_str(), count))).finish()
    }
}

/// What the fetches of a [`CoalesceLayer`](crate::CoalesceLayer) hold, and what happened to their readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct CoalesceStats {
    /// Fetches under way.
    pub fetches: usize,
    /// Callers that wait for the head of a response that another caller has asked for, of the fetches that
    /// further callers can join.
    pub waiters: usize,
    /// Bytes held for callers that have not read them yet, by complete fetches too; see
    /// [`CoalesceLayer::max_total_bytes`](crate::CoalesceLayer::max_total_bytes).
    pub held_bytes: u64,
    /// The configured limit of these bytes.
    pub max_total_bytes: u64,
    /// Readers that lost their place for lack of room since the layer was made.
    pub lagged: u64,
}

/// What became of background refreshes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct Refreshes {
    /// Those that began.
    pub begun: u64,
    /// Those that ended with a response, of whatever status.
    pub responded: u64,
    /// Those that ended with an error of the service below.
    pub failed: u64,
    /// Those that took longer than [`refresh_deadline`](crate::LookupLayer::refresh_deadline).
    pub timed_out: u64,
    /// Those that panicked, or whose task was dropped.
    pub aborted: u64,
}

impl Refreshes {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            begun: self.begun.saturating_sub(earlier.begun),
            responded: self.responded.saturating_sub(earlier.responded),
            failed: self.failed.saturating_sub(earlier.failed),
            timed_out: self.timed_out.saturating_sub(earlier.timed_out),
            aborted: self.aborted.saturating_sub(earlier.aborted),
        }
    }
}

/// The attempts at one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct OriginStats {
    /// Its name by [`OriginHealthBuilder::origin`](crate::OriginHealthBuilder::origin), `default` without
    /// that. Of a [`Failover`](crate::Failover) its place follows, counted from 1, as in `default-2`.
    pub name: Box<str>,
    /// Whether it is up.
    pub state: OriginState,
    /// Attempts that began: retries included, and requests without a key only where they are limited.
    pub attempts: u64,
    /// Those that ended with an error of the service, or with a response that is a
    /// [failure](crate::Failures).
    pub failures: u64,
    /// Those that were given up because they took too long.
    pub timed_out: u64,
    /// Those to which the origin responded with 429.
    pub too_many: u64,
    /// How long attempts took.
    pub latency: Latency,
    /// Attempts that wait for a permit now.
    pub waiting: usize,
    /// Attempts now under way, up to the head of their response.
    pub under_way: usize,
    /// Permits in use now, those of bodies included that are still read. 0 without a
    /// [limit](crate::OriginLimitLayer::new).
    pub permits_in_use: usize,
    /// How many permits there are. `None`: no limit.
    pub permits: Option<usize>,
}

impl OriginStats {
    /// Of both together, but for the name and the state.
    #[cfg(feature = "metrics")]
    pub(super) fn add(&mut self, other: &Self) {
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.failures = self.failures.saturating_add(other.failures);
        self.timed_out = self.timed_out.saturating_add(other.timed_out);
        self.too_many = self.too_many.saturating_add(other.too_many);
        self.waiting = self.waiting.saturating_add(other.waiting);
        self.under_way = self.under_way.saturating_add(other.under_way);
    }

    fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else { return self.clone() };
        Self {
            attempts: self.attempts.saturating_sub(earlier.attempts),
            failures: self.failures.saturating_sub(earlier.failures),
            timed_out: self.timed_out.saturating_sub(earlier.timed_out),
            too_many: self.too_many.saturating_sub(earlier.too_many),
            latency: self.latency.since(&earlier.latency),
            ..self.clone()
        }
    }
}

/// What became of the requests that one [key rule](crate::KeyRule) decides about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct RuleStats {
    /// The [name](crate::KeyRule::name) of the rule, or its path if it has none. `None`: requests that no rule is
    /// for, or the [others](Self::is_other).
    pub rule: Option<Box<str>>,
    /// Whether these are the requests of all rules that came after the first 64.
    pub is_other: bool,
    /// Fresh responses from the store.
    pub hits: u64,
    /// Stale responses from the store.
    pub stale: u64,
    /// Responses of the origin.
    pub forwarded: u64,
    /// Responses to requests without a key.
    pub unkeyed: u64,
    /// Error responses of the cache itself.
    pub refused: u64,
    /// Requests that the service below returned an error for.
    pub failed: u64,
}

impl RuleStats {
    fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else { return self.clone() };
        Self {
            rule: self.rule.clone(),
            is_other: self.is_other,
            hits: self.hits.saturating_sub(earlier.hits),
            stale: self.stale.saturating_sub(earlier.stale),
            forwarded: self.forwarded.saturating_sub(earlier.forwarded),
            unkeyed: self.unkeyed.saturating_sub(earlier.unkeyed),
            refused: self.refused.saturating_sub(earlier.refused),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }

    pub(super) fn is_of_same(&self, other: &Self) -> bool {
        (&self.rule, self.is_other) == (&other.rule, other.is_other)
    }
}

/// What [`Stats`](crate::Stats) say at one moment, or of the time between two.
///
/// Each request that the cache had to do with is in exactly one of `hits`, `stale`, `forwarded`, `unkeyed`,
/// `refused`, `failed` and `other_methods`, once the head of its response is handed on.
///
/// Serialised (feature `serde`), reasons are keys in kebab case, and times are in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct StatsSnapshot {
    /// How long was counted: since the cache was made, or between two snapshots.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "over_seconds", serialize_with = "crate::reasons::seconds")
    )]
    pub over: Duration,
    /// Fresh responses from the store.
    pub hits: u64,
    /// Stale responses from the store, also if the origin was asked in vain before.
    pub stale: Counts<Stale>,
    /// Responses of the origin, by why it was asked.
    pub forwarded: Counts<Forward>,
    /// Responses to requests that have no key and were passed on.
    pub unkeyed: Counts<Unkeyed>,
    /// Error responses of the cache itself.
    pub refused: Counts<Refused>,
    /// Requests that the service below returned an error for, and no response.
    pub failed: u64,
    /// Requests of methods that never have a key, such as POST. They are counted when they are passed on.
    pub other_methods: u64,
    /// Requests, of those above, whose stored response was stale or gone for another reason than the end of its
    /// lifetime, by that reason.
    pub lost: Counts<Lost>,
    /// Requests, of those above, that shared the fetch of another one.
    pub collapsed: u64,
    /// Responses that were stored, refreshed or confirmed ones and parts included.
    pub stored: u64,
    /// Responses that were not, once for each fetch.
    pub not_stored: Counts<NotStored>,
    /// Background refreshes.
    pub refreshes: Refreshes,
    /// Purges by the [handles](crate::Purge) of this cache, hard and soft.
    pub purges: Counts<PurgeKind>,
    /// Those of the purges that were [soft](crate::Purge::soft).
    pub soft_purges: u64,
    /// Those of the purges that made what they reached [unproven](crate::Purge::unproven).
    pub unproven_purges: u64,
    /// Whether the cache [only reports](crate::ReadThroughBuilder::report_only): then all of this is what would
    /// have been.
    pub reports_only: bool,
    /// Requests that would not have reached the origin, of a cache that only reports.
    pub saved: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Shared fetches now. `None`: no layer shares them.
    pub coalesce: Option<CoalesceStats>,
    /// The store now. `None`: it [does not say](crate::Store::stats).
    pub store: Option<StoreStats>,
    /// The second tier. `None`: there is none.
    pub second_tier: Option<TierStatus>,
    /// The origins that have been asked. None: no layer reports attempts.
    pub origins: Vec<OriginStats>,
    /// The first 64 key rules that have decided about a request, the other ones together, and the requests that no
    /// rule is for. None: requests are not [counted by rule](crate::LookupLayer::count_by_rule).
    pub rules: Vec<RuleStats>,
    /// The node and the others, now. `None`: the store has not joined a cluster.
    pub cluster: Option<ClusterStatus>,
    /// The [file](crate::store::SnapshotFile) that keeps what is stored; of several, the one that was opened last.
    /// `None`: there is none, it is open no more, or the store does [not say](crate::Store::snapshot_file).
    #[cfg(feature = "snapshot")]
    pub snapshot_file: Option<SnapshotFileStats>,
}

impl StatsSnapshot {
    /// Returns how many requests were counted.
    pub fn requests(&self) -> u64 {
        [
            self.hits,
            self.stale.total(),
            self.forwarded.total(),
            self.unkeyed.total(),
            self.refused.total(),
            self.failed,
            self.other_methods,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// Returns the part of the responses to requests with a key that came from the store, fresh or stale: from
    /// 0 to 1. `None`: there were none.
    ///
    /// Collapsed requests are not from the store, although they cost the origin nothing.
    pub fn hit_ratio(&self) -> Option<f64> {
        let served = self.hits.saturating_add(self.stale.total());
        let asked = served
            .saturating_add(self.forwarded.total())
            .saturating_add(self.refused.total())
            .saturating_add(self.failed);
        (asked > 0).then(|| served as f64 / asked as f64)
    }

    /// Returns what was counted since an earlier snapshot of the same [`Stats`](crate::Stats). What is said of
    /// the present moment, such as fetches and bytes, stays.
    ///
    /// ```
    /// use tower_readthrough::Stats;
    ///
    /// let stats = Stats::new();
    /// let earlier = stats.snapshot();
    /// // … a while later
    /// let lately = stats.snapshot().since(&earlier);
    /// let hits_per_second = lately.hits as f64 / lately.over.as_secs_f64().max(1e-9);
    /// assert_eq!(hits_per_second, 0.0);
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let store = self.store.map(|store| store.since(earlier.store.as_ref()));
        let coalesce = self.coalesce.map(|now| {
            let lagged = earlier.coalesce.map_or(0, |earlier| earlier.lagged);
            CoalesceStats { lagged: now.lagged.saturating_sub(lagged), ..now }
        });
        let origins = self
            .origins
            .iter()
            .map(|origin| origin.since(earlier.origins.iter().find(|earlier| earlier.name == origin.name)));
        let gaps = earlier.cluster.as_ref().map_or(0, |earlier| earlier.gaps);
        let cluster =
            self.cluster.clone().map(|now| ClusterStatus { gaps: now.gaps.saturating_sub(gaps), ..now });
        let rule = |now: &RuleStats| now.since(earlier.rules.iter().find(|rule| rule.is_of_same(now)));
        Self {
            over: self.over.saturating_sub(earlier.over),
            hits: self.hits.saturating_sub(earlier.hits),
            stale: self.stale.since(&earlier.stale),
            forwarded: self.forwarded.since(&earlier.forwarded),
            unkeyed: self.unkeyed.since(&earlier.unkeyed),
            refused: self.refused.since(&earlier.refused),
            failed: self.failed.saturating_sub(earlier.failed),
            other_methods: self.other_methods.saturating_sub(earlier.other_methods),
            lost: self.lost.since(&earlier.lost),
            collapsed: self.collapsed.saturating_sub(earlier.collapsed),
            stored: self.stored.saturating_sub(earlier.stored),
            not_stored: self.not_stored.since(&earlier.not_stored),
            refreshes: self.refreshes.since(&earlier.refreshes),
            purges: self.purges.since(&earlier.purges),
            soft_purges: self.soft_purges.saturating_sub(earlier.soft_purges),
            reports_only: self.reports_only,
            saved: self.saved.saturating_sub(earlier.saved),
            unproven_purges: self.unproven_purges.saturating_sub(earlier.unproven_purges),
            retries: self.retries.saturating_sub(earlier.retries),
            coalesce,
            store,
            second_tier: self.second_tier.as_ref().map(|now| now.since(earlier.second_tier.as_ref())),
            origins: origins.collect(),
            cluster,
            #[cfg(feature = "snapshot")]
            snapshot_file: self.snapshot_file.as_ref().map(|now| now.since(earlier.snapshot_file.as_ref())),
            rules: self.rules.iter().map(rule).collect(),
        }
    }
}
