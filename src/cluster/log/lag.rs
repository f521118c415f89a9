//! How many entries of the log this node has not applied yet.

use crate::store::EntryId;

/// What the server says of the log as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Entries that there ever were, those included that were trimmed.
    pub(crate) added: u64,
    /// Entries that are there.
    pub(crate) length: u64,
    /// The last one that there ever was.
    pub(crate) last: EntryId,
}

/// Counts the entries that were applied as the server counts those that were added.
///
/// The server says how many there are after it was read, and in a command of its own: what it trims between the two
/// counts as applied until the end of the log is reached the next time.
#[derive(Debug, Default)]
pub(super) struct Lag {
    applied: Option<u64>,
    said: Option<Said>,
}

/// What came of the last answer over this connection.
#[derive(Clone, Copy, Debug)]
struct Said {
    behind: u64,
    last: EntryId,
}

impl Lag {
    /// The place in the log is lost.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// How much there is of the log is not known until the server says so again. What was applied of it still is.
    pub(super) fn disconnected(&mut self) {
        self.said = None;
    }

    /// So many entries were applied, up to this one. `is_first`: there is nothing before them in the log.
    pub(super) fn applied(&mut self, entries: usize, up_to: Option<EntryId>, extent: Extent, is_first: bool) {
        let Extent { added, length, last } = extent;
        let before = if is_first { Some(added.saturating_sub(length)) } else { self.applied };
        self.applied = match up_to {
            Some(id) if id >= last => Some(added),
            _ => before.map(|before| before.saturating_add(entries as u64).min(added)),
        };
        self.said = self.applied.map(|applied| Said { behind: added - applied, last });
    }

    /// Entries that are not applied, as far as that was said.
    pub(super) fn behind(&self) -> Option<u64> {
        self.said.map(|said| said.behind)
    }

    /// Whether there was nothing after this entry, as far as that was said.
    pub(super) fn is_end(&self, id: EntryId) -> bool {
        self.said.is_some_and(|said| id >= said.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> EntryId {
        EntryId { millis, number: 0 }
    }

    /// Of a log whose entry `n` has the id `n`.
    fn extent(added: u64, length: u64) -> Extent {
        Extent { added, length, last: id(added) }
    }

    #[test]
    fn what_is_read_in_parts_counts_down_to_nothing() {
        let mut lag = Lag::default();
        assert_eq!(lag.behind(), None);
        // 100 were trimmed before.
        lag.applied(512, Some(id(612)), extent(1_700, 1_600), true);
        assert_eq!(lag.behind(), Some(1_088));
        lag.applied(512, Some(id(1_124)), extent(1_800, 1_700), false);
        assert_eq!(lag.behind(), Some(676));
        lag.applied(676, Some(id(1_800)), extent(1_800, 1_700), false);
        assert_eq!(lag.behind(), Some(0));
        // Added between the two commands.
        lag.applied(1, Some(id(1_801)), extent(1_803, 1_703), false);
        assert_eq!(lag.behind(), Some(2));
        assert_eq!([1_802, 1_803, 1_804].map(|of| lag.is_end(id(of))), [false, true, true]);
    }

    #[test]
    fn what_was_applied_is_known_over_a_lost_connection_and_not_over_a_lost_place() {
        for (is_lost, behind) in [(false, Some(600)), (true, None)] {
            let mut lag = Lag::default();
            lag.applied(100, Some(id(100)), extent(100, 100), true);
            lag.disconnected();
            if is_lost {
                lag.forget();
            }
            assert_eq!((lag.behind(), lag.is_end(id(100))), (None, false), "the server has not said it");
            lag.applied(400, Some(id(500)), extent(1_100, 1_100), false);
            assert_eq!(lag.behind(), behind);
        }
    }

    #[test]
    fn what_was_trimmed_meanwhile_is_mended_at_the_end() {
        let mut lag = Lag::default();
        // 50 of the 512 that were read are gone by the second command.
        lag.applied(512, Some(id(512)), extent(1_000, 950), true);
        assert_eq!(lag.behind(), Some(438));
        lag.applied(488, Some(id(1_000)), extent(1_000, 950), false);
        assert_eq!(lag.behind(), Some(0));
        lag.applied(0, Some(id(1_000)), extent(1_004, 954), false);
        assert_eq!(lag.behind(), Some(4));
    }

    #[test]
    fn a_server_that_contradicts_itself_is_not_behind_by_less_than_nothing() {
        let mut lag = Lag::default();
        lag.applied(9, Some(id(9)), Extent { added: 3, length: 8, last: id(20) }, true);
        assert_eq!(lag.behind(), Some(0));
        lag.applied(0, None, Extent::default(), false);
        assert_eq!(lag.behind(), Some(0));
    }
}
