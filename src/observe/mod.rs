//! What the cache has done, in numbers.
//!
//! [`Stats`] are counters that each thread has a part of, so that a hit pays for one addition, and handles to
//! what is counted elsewhere. A [`StatsSnapshot`] is what they say at one moment.

mod by_rule;
mod cluster_status;
mod counters;
#[cfg(feature = "dashboard")]
pub mod dashboard;
mod explanation;
#[cfg(feature = "metrics")]
pub mod metrics;
mod serial;
mod snapshot;
mod stats;
mod tier;

#[cfg(feature = "metrics")]
pub(crate) use self::stats::FetchSample;
#[cfg(feature = "redis")]
pub(crate) use self::tier::NamedCounters;
pub use self::{
    cluster_status::{ClusterState, ClusterStatus, NodeStatus},
    explanation::{Explanation, StoredSummary},
    snapshot::{CoalesceStats, Counts, OriginStats, PurgeKind, Refreshes, RuleStats, StatsSnapshot},
    stats::Stats,
    tier::{BreakerState, RemoteStatus, TierRead, TierStanding, TierStatus, TierWait, TierWrite},
};
