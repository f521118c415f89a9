//! How a node stands to the other nodes of its cluster: plain data.

use std::time::Duration;

use crate::reasons::names;

names! {
    /// Whether a node hears of the purges of the other nodes.
    pub enum ClusterState {
        /// It does not: there is no connection to the server over which the log is read.
        CutOff => "cut-off",
        /// There is a connection, and the log is being read.
        CatchingUp => "catching-up",
        /// The log was read to its end, and what is added is applied as it comes.
        CaughtUp => "caught-up",
    }
}

/// How a node stands to its cluster.
///
/// Of a [`Cluster`](crate::cluster::Cluster#method.status), or of the
/// [`StatsSnapshot`](crate::StatsSnapshot::cluster) of the cache. Serialised (feature `serde`), times are in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The name of this node.
    pub node: Box<str>,
    /// Whether it hears of the purges of the others.
    pub state: ClusterState,
    /// For how long it has been in this state.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "since_seconds", serialize_with = "crate::reasons::seconds")
    )]
    pub since: Duration,
    /// Whether there is a connection to the server over which the log is read.
    pub is_connected: bool,
    /// Whether the log was read to its end since.
    pub is_caught_up: bool,
    /// How long ago the log was last read to its end. At most a little more than a second while the node hears of
    /// purges. `None`: it never was.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "heard_seconds_ago", serialize_with = "crate::reasons::maybe_seconds")
    )]
    pub heard: Option<Duration>,
    /// After how long of hearing nothing it confirms all that it has before it is used. `None`: it does not.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "validates_after_seconds", serialize_with = "crate::reasons::maybe_seconds")
    )]
    pub validates_after: Option<Duration>,
    /// Whether all that is stored is confirmed by the origin before it is used, since the node was cut off for too
    /// long; see [`when_cut_off`](crate::cluster::ClusterBuilder#method.when_cut_off).
    pub must_validate: bool,
    /// The entry of the log that was applied last.
    pub position: Option<Box<str>>,
    /// How many entries behind that the log had when it was last read: those are not applied yet. `None` while there is
    /// no connection, and until the log was read over a new one.
    pub behind: Option<u64>,
    /// Own purges that wait to be sent, or were not read back yet.
    pub waiting: usize,
    /// How often purges may have been missed, so that all that was held became unproven. The first connection
    /// counts.
    pub gaps: u64,
    /// The other nodes, as they stood in the registry two seconds ago or later. Empty while the node is cut off.
    pub others: Vec<NodeStatus>,
    /// Whether the server may drop the log when its memory is full, since its `maxmemory-policy` begins with
    /// `allkeys`. Each time it does, all nodes have to confirm all that they hold. `false` if the server does not say.
    pub may_evict_log: bool,
    /// Why the last connection failed, while there is none. With a connection, why the server refuses a part of what it
    /// is asked at each read of the log, in its words and for as long as it does: the log may not be readable
    /// (`WRONGTYPE`, `NOPERM`), or this node cannot register since the memory is full (`OOM`).
    pub last_error: Option<String>,
}

/// What another node of a cluster has said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its name.
    pub name: Box<str>,
    /// The entry of the log that it had applied last. `None`: it had not read the log to its end.
    pub position: Option<Box<str>>,
    /// How many entries behind that the log had when this node read what the other one has said. The other one may have
    /// applied them since. `None`: that entry is not among the last 65,536 that were applied here by then, or is one of
    /// another run of the server.
    pub behind: Option<u64>,
    /// How long ago it said so, by the clock of the server.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "heard_seconds_ago", serialize_with = "crate::reasons::seconds")
    )]
    pub heard: Duration,
    /// Whether that is more than ten seconds ago: it is cut off, hangs, or has ended without a word.
    pub is_silent: bool,
    /// After how long of being cut off it confirms all that it has before it is used. `None`: it does not.
    #[cfg_attr(
        any(feature = "serde", feature = "dashboard"),
        serde(rename = "validates_after_seconds", serialize_with = "crate::reasons::maybe_seconds")
    )]
    pub validates_after: Option<Duration>,
}
