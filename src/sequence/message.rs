//! Purges in words, for other processes: each reads them by its own rules and hashes.

#[cfg(feature = "redis")]
use std::borrow::Cow;
use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

#[cfg(feature = "snapshot")]
use super::AsOf;
use super::Strength;

/// What is purged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    pub(crate) kind: MessageKind,
    pub(crate) argument: Box<[u8]>,
    pub(crate) strength: Strength,
}

/// What the argument of a [`Message`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MessageKind {
    /// A URL, as a purge or an unsafe request names it.
    Url,
    /// A cache key.
    Key,
    Tag,
    /// A URL of an origin, a line feed, and a group of that origin (RFC 9875).
    Group,
    /// A URL whose path is a prefix.
    Path,
    /// A pattern of URLs.
    Pattern,
    /// The beginning of a cache key.
    KeyPrefix,
    Everything,
}

/// Longer arguments are not sent: everything is unproven elsewhere instead.
const MAX_ARGUMENT_BYTES: usize = 4096;

impl Message {
    pub(crate) fn new(kind: MessageKind, argument: &[u8], strength: Strength) -> Self {
        match argument.len() <= MAX_ARGUMENT_BYTES {
            true => Self { kind, argument: argument.into(), strength },
            false => Self::doubt(),
        }
    }

    /// All that is held is unproven.
    pub(crate) fn doubt() -> Self {
        let strength = Strength::Unproven;
        Self { kind: MessageKind::Everything, argument: Box::default(), strength }
    }

    /// The argument as text. What is not text was not written here.
    #[cfg(feature = "redis")]
    pub(crate) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.argument)
    }
}

/// Lets other processes know of purges.
pub(crate) trait Journal: fmt::Debug + Send + Sync {
    /// Purges by the call, which returns a number, and passes the message on. No fetch begins between the two
    /// as far as other processes can tell.
    fn record(
        &self,
        message: &Message,
        is_invalidation: bool,
        purge: &mut dyn FnMut() -> u64,
    ) -> (u64, Arc<dyn Receipt>);

    /// Up to where the log was applied when the fetch of this number began, as far as that is known.
    #[cfg(feature = "snapshot")]
    fn as_of(&self, fetch_number: u64) -> Option<AsOf>;

    /// The number in this process's sequence from which a fetch counts as begun, of which the process had
    /// applied the log up to there. `None` if that entry is not known.
    #[cfg(feature = "snapshot")]
    fn begun(&self, as_of: AsOf) -> Option<u64>;

    /// Whether the log was read to its end.
    #[cfg(feature = "snapshot")]
    fn is_caught_up(&self) -> bool;
}

/// What is known of a purge that was passed on.
pub(crate) trait Receipt: fmt::Debug + Send + Sync {
    fn is_sent(&self) -> bool;

    /// Returns when all processes have applied it, or after so long.
    fn applied_everywhere(&self, within: Duration) -> BoxFuture<'_, Result<(), NotEverywhere>>;
}

/// Why it is not known that a purge was applied everywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", named(.nodes))]
pub struct NotEverywhere {
    reason: NotEverywhereReason,
    nodes: Vec<String>,
}

/// The reason of a [`NotEverywhere`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NotEverywhereReason {
    /// The server does not have it: it waits to be sent, or the connection is gone.
    #[error("the purge is not in the log")]
    NotSent,
    /// Some nodes have not said that they have applied it: they are slow, cut off, or gone without a word.
    #[error("some nodes have not applied the purge")]
    Behind,
    /// The server, or what it knows of nodes, is younger than ten seconds, or than the longest time for which a
    /// node serves while it is cut off: there may be nodes that have not registered yet.
    #[error("the server has known its nodes for too short a time")]
    Young,
}

impl NotEverywhere {
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "there are no other nodes"))]
    pub(crate) fn new(reason: NotEverywhereReason, nodes: Vec<String>) -> Self {
        Self { reason, nodes }
    }

    /// Returns why.
    pub fn reason(&self) -> NotEverywhereReason {
        self.reason
    }

    /// Returns the names of the nodes that have not said that they have applied it.
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }
}

fn named(nodes: &[String]) -> String {
    if nodes.is_empty() { String::new() } else { format!(": {}", nodes.join(", ")) }
}
