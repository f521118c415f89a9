//! Which entries of the log were applied, and under which local numbers.

use std::collections::{HashMap, VecDeque};

use crate::store::EntryId;

/// One entry of the log, as a node names it: after a loss of data another one may have the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) id: EntryId,
    pub(crate) nonce: u64,
}

#[derive(Clone, Copy, Debug)]
struct Applied {
    at: Position,
    /// The sequence had come to this number when it was applied.
    applied_at: u64,
}

/// Where an entry is: by how many others have been in the ring before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u64);

/// The entries that were applied last, in the order of the log.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Ring {
    entries: VecDeque<Applied>,
    /// How many entries have left the ring at its front.
    gone: u64,
    /// By how many entries came before, of those with a number below that of all later ones.
    minima: VecDeque<(u64, u64)>,
    most: usize,
}

impl Ring {
    pub(super) fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), gone: 0, minima: VecDeque::new(), most }
    }

    pub(super) fn clear(&mut self) {
        self.gone += self.entries.len() as u64;
        self.entries.clear();
        self.minima.clear();
    }

    /// Adds the next entry of the log. `number` is that of the purge, if it is one.
    pub(super) fn push(&mut self, at: Position, number: Option<u64>, applied_at: u64) {
        if self.entries.len() >= self.most {
            self.entries.pop_front();
            self.gone += 1;
            while self.minima.front().is_some_and(|(place, _)| *place < self.gone) {
                self.minima.pop_front();
            }
        }
        let place = self.gone + self.entries.len() as u64;
        self.entries.push_back(Applied { at, applied_at });
        if let Some(number) = number {
            while self.minima.back().is_some_and(|(_, least)| *least >= number) {
                self.minima.pop_back();
            }
            self.minima.push_back((place, number));
        }
    }

    /// The last entry that was applied before the sequence gave this number.
    pub(super) fn last_before(&self, number: u64) -> Option<Position> {
        let count = self.entries.partition_point(|entry| entry.applied_at < number);
        self.entries.get(count.checked_sub(1)?).map(|entry| entry.at)
    }

    /// How many entries came after the one with this id. `None` if that is not known.
    pub(super) fn count_after(&self, id: EntryId) -> Option<u64> {
        self.index_of(id).map(|index| (self.entries.len() - 1 - index) as u64)
    }

    /// Where this very entry is, if it is known.
    pub(super) fn find(&self, at: Position) -> Option<Place> {
        let index = self.index_of(at.id)?;
        self.entries.get(index).filter(|entry| entry.at == at)?;
        Some(Place(self.gone + index as u64))
    }

    fn index_of(&self, id: EntryId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.at.id).ok()
    }

    /// The least number of the purges after an entry, [`u64::MAX`] if there are none.
    pub(super) fn least_after(&self, Place(place): Place) -> u64 {
        let later = self.minima.partition_point(|(of, _)| *of <= place);
        self.minima.get(later).map_or(u64::MAX, |(_, number)| *number)
    }

    /// All entries that are known, the first first.
    #[cfg(test)]
    pub(super) fn positions(&self) -> impl DoubleEndedIterator<Item = Position> {
        self.entries.iter().map(|entry| entry.at)
    }
}

/// The local numbers of purges, by their nonces: also of those that were applied before a gap.
#[derive(Debug)]
pub(super) struct Numbers {
    numbers: HashMap<u64, Option<u64>>,
    order: VecDeque<u64>,
    most: usize,
}

impl Numbers {
    pub(super) fn new(most: usize) -> Self {
        Self { numbers: HashMap::new(), order: VecDeque::new(), most }
    }

    pub(super) fn get(&self, nonce: u64) -> Option<Option<u64>> {
        self.numbers.get(&nonce).copied()
    }

    /// Notes the number of what is new.
    pub(super) fn note(&mut self, nonce: u64, number: Option<u64>) {
        if self.numbers.insert(nonce, number).is_none() {
            self.order.push_back(nonce);
        }
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
    }

    #[cfg(test)]
    pub(super) fn forget(&mut self, nonce: u64) {
        self.numbers.remove(&nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Position {
        Position { id: EntryId { millis, number: 0 }, nonce: millis ^ 0xff }
    }

    fn least_after(ring: &Ring, at: Position) -> Option<u64> {
        ring.find(at).map(|place| ring.least_after(place))
    }

    proptest::proptest! {
        #[test]
        fn the_least_number_of_what_follows_is_that_of_a_walk(
            numbers in proptest::collection::vec(proptest::option::of(0_u64..50), 1..60),
            most in 1_usize..20,
        ) {
            let mut ring = Ring::new(most);
            for (millis, number) in numbers.iter().enumerate() {
                ring.push(at(millis as u64), *number, millis as u64);
                let kept = (millis + 1).saturating_sub(most)..=millis;
                for of in 0..=millis + 1 {
                    let by_walk = kept.contains(&of).then(|| {
                        numbers[of + 1..=millis].iter().flatten().min().copied().unwrap_or(u64::MAX)
                    });
                    proptest::prop_assert_eq!(least_after(&ring, at(of as u64)), by_walk, "after {}", of);
                }
            }
        }
    }

    #[test]
    fn an_entry_is_only_known_by_its_own_nonce() {
        let mut ring = Ring::new(4);
        ring.push(at(1), Some(5), 5);
        assert_eq!(least_after(&ring, at(1)), Some(u64::MAX));
        assert_eq!(least_after(&ring, Position { nonce: 0, ..at(1) }), None);
        ring.clear();
        assert_eq!(least_after(&ring, at(1)), None);
        assert_eq!(ring.count_after(at(1).id), None);
    }

    #[test]
    fn what_began_before_an_entry_was_applied_has_seen_the_one_before() {
        let mut ring = Ring::new(2);
        for (millis, applied_at) in [(1, 5), (2, 5), (3, 9)] {
            ring.push(at(millis), None, applied_at);
        }
        let after = [1, 2, 3, 4].map(|millis| ring.count_after(at(millis).id));
        assert_eq!(after, [None, Some(1), Some(0), None]);
        let before = [5, 6, 9, 10].map(|number| ring.last_before(number).map(|at| at.id.millis));
        assert_eq!(before, [None, Some(2), Some(2), Some(3)]);
    }

    #[test]
    fn the_oldest_numbers_are_forgotten() {
        let mut numbers = Numbers::new(2);
        for nonce in 1..=3 {
            numbers.note(nonce, Some(nonce));
        }
        assert_eq!([1, 2, 3].map(|nonce| numbers.get(nonce)), [None, Some(Some(2)), Some(Some(3))]);
    }
}
