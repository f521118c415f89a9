//! What a second tier has done, in numbers.

use crate::{observe::snapshot::Counts, reasons::names};

names! {
    /// What came of a look into the second tier, one for each fetch that it was there for.
    pub enum TierRead {
        /// A fresh response, which was stored here, and served.
        Fresh => "fresh",
        /// A stale one, which was stored here: the origin was asked to confirm it, and it covers for a failure.
        Stale => "stale",
        /// One of which it is not known what was purged since: the origin was asked to confirm it.
        Unproven => "unproven",
        /// Nothing.
        Miss => "miss",
        /// A response that was purged since.
        Purged => "purged",
        /// Nothing newer than what is stored here.
        Unneeded => "unneeded",
        /// A response that does not fit into the store here.
        TooLarge => "too-large",
        /// A response of another key or of another variant, whose digests are the same by chance.
        OtherKey => "other-key",
        /// Bytes that do not begin like an [envelope](crate::store::envelope).
        Foreign => "foreign",
        /// An envelope of another version, in a form that this one does not read.
        OtherSchema => "other-schema",
        /// An envelope that was cut, or that something follows.
        WrongLength => "wrong-length",
        /// An envelope that was changed.
        WrongChecksum => "wrong-checksum",
        /// An envelope of which a part is not what it has to be, such as a field or a URL.
        Invalid => "invalid",
        /// An envelope whose body is compressed, in a build without the feature `zstd`.
        Compressed => "compressed",
        /// No answer in time.
        Timeout => "timeout",
        /// The remote has failed, or is not there.
        Failed => "failed",
        /// The remote was not asked, since it has failed before.
        Open => "open",
        /// The tier was not asked, since the node has not heard of all purges.
        Behind => "behind",
        /// The tier was not asked, since the store is not part of a cluster.
        NotJoined => "not-joined",
    }
}

names! {
    /// What came of a response that was to be written to the second tier.
    pub enum TierWrite {
        /// It was written.
        Written => "written",
        /// The origin has sent something else, which is not stored: what the tier may have was removed.
        Removed => "removed",
        /// A newer one of the same took its place before its turn came.
        Replaced => "replaced",
        /// Too much was waiting.
        QueueFull => "queue-full",
        /// It was purged, or is unproven, before its turn came.
        Purged => "purged",
        /// It could be used no more when its turn came.
        Expired => "expired",
        /// It has more fields, tags or text than an envelope takes.
        TooLarge => "too-large",
        /// It is not known what was purged before its fetch began.
        Undated => "undated",
        /// The node has not heard of all purges.
        Behind => "behind",
        /// No answer in time.
        Timeout => "timeout",
        /// The remote has failed, or is not there.
        Failed => "failed",
        /// The remote was not asked, since it has failed before.
        Open => "open",
        /// The runtime ended before.
        Aborted => "aborted",
    }
}

names! {
    /// What came of a fetch that waited for that of another node, where nodes [take turns](crate::tier#turns).
    pub enum TierWait {
        /// The other node has brought a fresh response.
        Found => "found",
        /// It has not, or it took too long: this node asked the origin as well, unless one was stored here meanwhile.
        Fetched => "fetched",
    }
}

names! {
    /// How the node of a second tier stands to its cluster.
    pub enum TierStanding {
        /// The store is not part of a cluster: the tier does nothing.
        NotJoined => "not-joined",
        /// Purges may have been missed, or are still being read: the tier does nothing until they are.
        Behind => "behind",
        /// The tier is in use.
        Joined => "joined",
    }
}

names! {
    /// Whether the remote of a second tier is asked.
    pub enum BreakerState {
        /// It is.
        Closed => "closed",
        /// It has failed several times in a row, and is not asked for some time.
        Open => "open",
        /// One call finds out whether it is back.
        Probing => "probing",
    }
}

/// How a [remote](crate::TierStatus::remote) stands to its server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct RemoteStatus {
    /// Whether there is a connection.
    pub is_connected: bool,
    /// Connections that were made so far.
    pub connections: u64,
    /// Why the last connection was lost or could not be made, while there is none.
    pub last_error: Option<String>,
}

impl RemoteStatus {
    fn since(&self, earlier: Option<&Self>) -> Self {
        let connections = earlier.map_or(0, |earlier| earlier.connections);
        Self { connections: self.connections.saturating_sub(connections), ..self.clone() }
    }
}

/// What a second tier has done, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(any(feature = "serde", feature = "dashboard"), derive(serde::Serialize))]
#[non_exhaustive]
pub struct TierStatus {
    /// How the node stands to its cluster.
    pub standing: TierStanding,
    /// Whether the remote is asked for responses.
    pub reads_breaker: BreakerState,
    /// Whether responses are written to it.
    pub writes_breaker: BreakerState,
    /// What came of each fetch that the tier was there for.
    pub reads: Counts<TierRead>,
    /// What came of each response that was to be written.
    pub writes: Counts<TierWrite>,
    /// What came of each fetch that waited for that of another node.
    pub waits: Counts<TierWait>,
    /// Changes that wait to be written, and those that are being written now.
    pub queued: usize,
    /// The bytes of the responses among them.
    pub queued_bytes: u64,
    /// The connection to the server of the tier. `None`: the remote has none, or does not say.
    pub remote: Option<RemoteStatus>,
}

impl TierStatus {
    /// The same with what happened since an earlier moment alone.
    pub(crate) fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else { return self.clone() };
        let (reads, writes) = (self.reads.since(&earlier.reads), self.writes.since(&earlier.writes));
        let remote = self.remote.as_ref().map(|now| now.since(earlier.remote.as_ref()));
        Self { reads, writes, waits: self.waits.since(&earlier.waits), remote, ..self.clone() }
    }
}

/// Counts by name, of what happens once per fetch at most.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(crate) struct NamedCounters<R>(Box<[std::sync::atomic::AtomicU64]>, std::marker::PhantomData<R>);

#[cfg(feature = "redis")]
impl<R: crate::reasons::Named> NamedCounters<R> {
    pub(crate) fn add(&self, name: R) {
        if let Some(count) = self.0.get(name.index()) {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> Counts<R> {
        let count = |name: R| self.0.get(name.index());
        Counts::from_fn(|name| {
            count(name).map_or(0, |count| count.load(std::sync::atomic::Ordering::Relaxed))
        })
    }
}

#[cfg(feature = "redis")]
impl<R: crate::reasons::Named> Default for NamedCounters<R> {
    fn default() -> Self {
        Self(R::ALL.iter().map(|_| std::sync::atomic::AtomicU64::new(0)).collect(), std::marker::PhantomData)
    }
}
