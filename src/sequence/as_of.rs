//! What a response has seen of the purges of other processes.

use std::fmt;

/// Up to which entry of a log of purges a process had applied that log when a fetch began.
///
/// Only equality means something: a process that does not know this very entry does not know which purges the
/// response has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AsOf {
    /// Which run of the server: a hash of its name for itself.
    pub run: u64,
    /// The entry.
    pub id: EntryId,
    /// The random number in the entry: after a loss of data another one may have the same id.
    pub nonce: u64,
}

/// Names an entry of a log, in the order in which entries were added: the server's milliseconds, and a number
/// within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds.
    pub millis: u64,
    /// The number among the entries of the same millisecond.
    pub number: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}
