//! Gives back what is purged, and the records that say so.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::key::CacheKey;
use crate::sequence::Sequence;
use crate::store::memory::expiry::{Expiry, Place};

/// Between the end of a walk and the beginning of the next.
const REST: Duration = Duration::from_secs(1);

/// Walks through all keys after purges that left a record.
///
/// When a walk has ended, all that is stored was checked up to the purge that was the last when it
/// began: what is stored meanwhile is checked as it goes in. Then the records up to there are
/// dropped, but for those that fetches under way may need.
///
/// After a walk there is a rest, unless so many records come in meanwhile that they would be too many
/// before it is over: what is not looked at by then would be lost.
#[derive(Debug, Default)]
pub(super) struct PurgeSweep(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How far the walk under way has come.
    place: Option<Place>,
    /// The last purge that this walk covers, or the last one did.
    until: u64,
    /// All that is stored was checked up to this purge.
    checked: u64,
    ended_at: Option<Instant>,
}

impl PurgeSweep {
    /// Lets `check` look at up to `most` keys and drops up to as many records. Returns when there is
    /// more to do, if there is.
    pub(super) fn step(
        &self,
        sequence: &Sequence,
        expiry: &Expiry,
        now: Instant,
        most: usize,
        check: impl Fn(&CacheKey),
    ) -> Option<Instant> {
        // Somebody else is at it.
        let Some(mut state) = self.0.try_lock() else { return Some(now + REST) };
        let purges = sequence.purges();
        let is_due = state.is_due(purges.newest_record(), now) || purges.is_walk_due();
        if state.place.is_none() && is_due {
            state.place = Some(Place::default());
            state.until = purges.begin_walk();
        }
        if state.place.is_some() {
            expiry.walk(&mut state.place, most).iter().for_each(check);
            if state.place.is_none() {
                state.checked = state.until;
                state.ended_at = Some(now);
            }
        }
        let has_more = purges.forget(state.checked, most);
        if state.place.is_some() || has_more {
            return Some(now);
        }
        // Records are left: of purges since, or some that a fetch may need.
        (purges.records() != (0, 0)).then(|| state.rested_at().unwrap_or(now).max(now + REST / 10))
    }
}

impl State {
    fn is_due(&self, newest_record: u64, now: Instant) -> bool {
        newest_record > self.until && self.rested_at().is_none_or(|at| at <= now)
    }

    fn rested_at(&self) -> Option<Instant> {
        self.ended_at.map(|at| at + REST)
    }
}
