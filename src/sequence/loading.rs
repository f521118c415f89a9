//! What is loaded from elsewhere takes its place among the fetches.

use std::sync::Arc;

use super::{Sequence, core::PurgeKeys};

impl Sequence {
    /// Notes that a [snapshot](crate::store::Snapshot) is about to be read, to be stored for as long as the
    /// result is kept: it counts as fetched now, so that purges from now on reach it. What fetches under way
    /// bring is newer, and takes its place.
    pub fn begin_load(self: &Arc<Self>) -> Loading {
        let (under_way, number) = self.purges.begin_load();
        Loading { sequence: Arc::clone(self), under_way, number }
    }
}

/// A load of a [snapshot](crate::store::Snapshot) that is under way. Kept until the response is stored.
#[derive(Debug)]
pub struct Loading {
    sequence: Arc<Sequence>,
    under_way: u64,
    number: u64,
}

impl Loading {
    /// The sequence in which it is.
    pub(crate) fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// The number of the fetch for which it stands.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The number under which something is stored that stands for the fetch of this one, so that it takes the
    /// place of nothing that a fetch under way brings for these keys.
    pub(crate) fn below_fetches(&self, number: u64, keys: &PurgeKeys) -> u64 {
        let [_, of_key] = keys.floors();
        self.sequence.purges.below_fetches(number, of_key)
    }

    /// Unsafe requests from now on reach what has these keys.
    pub(crate) fn loaded(&self, keys: &PurgeKeys) {
        self.sequence.purges.loaded(keys.uri_floor());
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.sequence.purges.end_load(self.under_way);
    }
}
