//! What a node does that hears of no purges.

use std::time::Duration;

use tokio::time::Instant;

use crate::purge::Purge;

/// What a node does with what it has stored while it hears of no purges of the others.
///
/// Purges that it is told itself hold at once in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenCutOff {
    /// It serves what it has, for as long as it is fresh: a server that is away does not become an origin that is
    /// flooded. What another node has purged is served until the connection is back.
    #[default]
    ServeOn,
    /// As that for so long, counted from the last time that it had heard of all purges. From then on until it has
    /// heard of them again everything is [unproven](crate::purge::Strength::Unproven): it is confirmed by the origin before it
    /// is used, and used without that only if the origin fails. So what another node has purged is used for at most
    /// this long, also by a process that was stopped and goes on. A node that has not reached the server yet has
    /// heard of nothing, and neither has one that the server does not register, for example since its memory is full:
    /// the others cannot see it.
    ///
    /// Other nodes need not wait for a node that has been silent for longer than this and a second: what was purged
    /// is not served there. Then [`applied_everywhere`](crate::Purged::applied_everywhere) does not name it. It may
    /// take as long before a server that was restarted is believed to know all nodes, if that is more than ten seconds.
    ///
    /// From 3 seconds to 1 hour. A hit then takes a look at the clock; at the records of purges only after a purge, as ever.
    ///
    /// Needs clocks that run at the same rate, within a second over that time: they need not show the same time.
    /// If the clock of the server is set forward by more than that time, any node may count as silent for two seconds,
    /// until it has read that clock anew.
    ValidateAfter(Duration),
}

/// Longer than two reads that nothing came of.
const LEAST: Duration = Duration::from_secs(3);
/// A read of the log waits for so long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Longer silence is forgotten.
const MOST: Duration = Duration::from_secs(3600);

impl WhenCutOff {
    /// The time, if it is not one that works.
    pub(super) fn invalid(self) -> Option<Duration> {
        self.lease().filter(|after| !(LEAST..=MOST).contains(after))
    }

    /// What the others are told.
    pub(super) fn lease(self) -> Option<Duration> {
        match self {
            Self::ServeOn => None,
            Self::ValidateAfter(after) => Some(after),
        }
    }

    /// For how long a read of the log may wait for something new. Two of them are well within the time.
    pub(super) fn longest_wait(self) -> Duration {
        self.lease().map_or(LONGEST_WAIT, |after| LONGEST_WAIT.min(after / 4))
    }

    /// Nothing was heard yet.
    pub(super) fn begin(self, purge: &Purge) {
        if self.lease().is_some() {
            purge.limit_hearing();
        }
    }

    /// The others were told at this moment that the node is there, and all that was purged by then is applied.
    pub(super) fn heard(self, purge: &Purge, told_at: Instant) {
        if let Some(after) = self.lease() {
            purge.heard(told_at, after);
        }
    }
}
