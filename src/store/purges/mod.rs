//! Which purges there were, in one sequence with the fetches.
//!
//! Fetches and purges take their numbers from one counter. An answer is purged if a purge that
//! matches it has a larger number than its fetch. What there is to match:
//!
//! * **Places**: floors for the hashes of target URIs and keys. A purge raises the floor.
//! * **Labels**: hashes of what an answer shares with others, such as its tags and the prefixes of
//!   its path, and one that all answers have. A purge leaves a record, found by the hash.
//! * **Key prefixes**: a list of records.
//!
//! # What makes it right
//!
//! 1. A purge takes its number, makes its floor or record visible and only then
//!    [publishes](Purges::latest) the number, all under one lock. So who has read a published
//!    number finds all records up to it, and an answer that was checked up to it needs no second
//!    check until another one is published.
//! 2. Records are bounded. Before one is dropped, [`dropped`](Purges::dropped) rises to its
//!    number; it is read after the records. So who missed the record sees that he may have, and
//!    an answer that was checked last before that number counts as purged.
//! 3. Records that nothing can match are dropped without harm: when all that is stored was checked
//!    and all fetches that began before are over. Hence the list of fetches under way.
//!
//! Knows neither HTTP nor time: the moments of soft purges are numbers that somebody else made.

mod index;
mod record;

use std::collections::BTreeSet;

use self::{
    index::{Labels, Order, Prefixes},
    record::Record,
};
use super::sync::{AtomicU64, Mutex, Ordering};

/// Where the floor of a URI or a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(super) u32);

/// The hash of something that answers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label(pub(super) u64);

impl Label {
    /// All answers have it.
    pub(super) const EVERYTHING: Self = Self(0);

    /// A soft purge of a place leaves a record: it has a moment, for which a floor has no room.
    fn of_place(place: Place) -> Self {
        Self(u64::from(place.0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// What is purged.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    Place(Place),
    Label(Label),
    KeyPrefix(&'a [u8]),
}

/// What purges can match of an answer, or of the request for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matter<'a> {
    pub(super) key: &'a [u8],
    pub(super) places: [Place; 2],
    pub(super) labels: &'a [Label],
}

/// What purges say about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Untouched,
    /// Stale from this moment on.
    StaleSince(u64),
    Purged,
}

#[derive(Debug)]
pub(super) struct Purges {
    /// The number of the fetch or purge that began last.
    current: AtomicU64,
    /// The number of the last purge whose record is visible, as are all before it.
    latest: AtomicU64,
    /// Records up to this number may have been dropped.
    dropped: AtomicU64,
    floors: Box<[AtomicU64]>,
    labels: Labels,
    prefixes: Prefixes,
    /// Held while something is purged or a record dropped.
    order: Mutex<Order>,
    /// The numbers of the fetches that may still bring an answer.
    under_way: Mutex<BTreeSet<u64>>,
    max_labels: usize,
    max_prefixes: usize,
}

impl Purges {
    pub(super) fn new(floors: usize, max_labels: usize, max_prefixes: usize) -> Self {
        Self {
            current: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            floors: (0..floors).map(|_| AtomicU64::new(0)).collect(),
            labels: Labels::new(),
            prefixes: Prefixes::new(),
            order: Mutex::new(Order::default()),
            under_way: Mutex::new(BTreeSet::new()),
            max_labels,
            max_prefixes,
        }
    }

    pub(super) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// What was checked up to this number need not be checked again.
    pub(super) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// Numbers a fetch that begins now.
    pub(super) fn begin(&self) -> u64 {
        // Numbered under the lock: nobody takes it for one that has ended before it is listed.
        let mut under_way = self.under_way.lock();
        let number = self.next();
        under_way.insert(number);
        number
    }

    /// The fetch will not bring an answer to be stored any more.
    pub(super) fn end(&self, number: u64) {
        self.under_way.lock().remove(&number);
    }

    /// Everything that matches and began before now is purged for who comes after this returned.
    /// With a moment it is stale from then on, else gone.
    pub(super) fn purge(&self, what: What<'_>, soft_at: Option<u64>) -> u64 {
        let mut order = self.order.lock();
        let number = self.next();
        match (what, soft_at) {
            (What::Place(place), None) => {
                if let Some(floor) = self.floors.get(place.0 as usize) {
                    floor.store(number, Ordering::Release);
                }
            }
            (What::Place(place), soft_at) => self.note(&mut order, Label::of_place(place), number, soft_at),
            (What::Label(label), soft_at) => self.note(&mut order, label, number, soft_at),
            (What::KeyPrefix(prefix), soft_at) => {
                self.prefixes.note(prefix, number, soft_at);
                if self.prefixes.len() > self.max_prefixes {
                    self.drop_until(self.prefixes.oldest());
                    self.prefixes.forget_oldest();
                }
            }
        }
        // Whatever it purges is visible by now, and so is all that was purged before.
        self.latest.store(number, Ordering::Release);
        number
    }

    /// What purges say about an answer that began with this number and was checked up to that one.
    pub(super) fn judge(&self, matter: &Matter<'_>, begun: u64, checked: u64) -> Judgement {
        if matter.places.iter().any(|place| self.floor_at(*place) > begun) {
            return Judgement::Purged;
        }
        let (mut is_purged, mut stale_since) = (false, None::<u64>);
        self.for_each_record(matter, checked, |record| {
            is_purged |= record.hard.last > begun;
            if record.soft.last > begun {
                stale_since = Some(stale_since.map_or(record.soft_at, |at| at.min(record.soft_at)));
            }
        });
        // Read after the records: of one that was gone by then this tells.
        if is_purged || checked < self.dropped() {
            return Judgement::Purged;
        }
        stale_since.map_or(Judgement::Untouched, Judgement::StaleSince)
    }

    /// The number of the last purge that matches, hard or soft.
    pub(super) fn floor(&self, matter: &Matter<'_>) -> u64 {
        let mut floor = matter.places.iter().map(|place| self.floor_at(*place)).max().unwrap_or(0);
        self.for_each_record(matter, 0, |record| floor = floor.max(record.last()));
        floor
    }

    /// Whether something may have purged what was checked up to `after`, not later than `until`.
    /// What `known` matches is left out.
    pub(super) fn may_lie_between(
        &self,
        matter: &Matter<'_>,
        known: &Matter<'_>,
        after: u64,
        until: u64,
    ) -> bool {
        let places = || matter.places.into_iter().filter(|place| !known.places.contains(place));
        let labels = matter.labels.iter().copied().filter(|label| !known.labels.contains(label));
        let mut records =
            labels.chain(places().map(Label::of_place)).filter_map(|label| self.labels.get(label));
        records.any(|record| record.may_lie_between(after, until))
            || places().any(|place| self.floor_at(place) > after)
            // Read after the records, as above.
            || after < self.dropped()
    }

    /// Everything that is stored was checked up to this number: drops at most `most` of the records
    /// that nothing can match any more. Returns whether there are more.
    pub(super) fn forget(&self, checked: u64, most: usize) -> bool {
        let oldest_fetch = self.under_way.lock().first().copied();
        let until = oldest_fetch.map_or(checked, |oldest| checked.min(oldest - 1));
        let mut order = self.order.lock();
        let is_due = |number: Option<u64>| number.is_some_and(|number| number <= until);
        if !is_due(order.oldest()) && !is_due(self.prefixes.oldest()) {
            return false;
        }
        self.drop_until(Some(until));
        for _ in 0..most {
            match (is_due(order.oldest()), is_due(self.prefixes.oldest())) {
                (true, _) => self.labels.forget_oldest(&mut order),
                (false, true) => self.prefixes.forget_oldest(),
                (false, false) => return false,
            }
        }
        true
    }

    /// The records of labels and of key prefixes.
    pub(super) fn records(&self) -> (usize, usize) {
        let labels = self.order.lock().len();
        (labels, self.prefixes.len())
    }

    /// The number of the last purge that left a record.
    pub(super) fn newest_record(&self) -> u64 {
        self.labels.newest().max(self.prefixes.newest())
    }

    fn next(&self) -> u64 {
        self.current.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn floor_at(&self, place: Place) -> u64 {
        self.floors.get(place.0 as usize).map_or(0, |floor| floor.load(Ordering::Acquire))
    }

    fn note(&self, order: &mut Order, label: Label, number: u64, soft_at: Option<u64>) {
        self.labels.note(order, label, number, soft_at);
        if order.len() > self.max_labels {
            self.drop_until(order.oldest());
            self.labels.forget_oldest(order);
        }
    }

    /// Under the lock, before the records go.
    fn drop_until(&self, number: Option<u64>) {
        if let Some(number) = number {
            self.dropped.fetch_max(number, Ordering::AcqRel);
        }
    }

    /// The records above `after` that match.
    fn for_each_record(&self, matter: &Matter<'_>, after: u64, mut f: impl FnMut(Record)) {
        if self.labels.newest() > after {
            let places = matter.places.map(Label::of_place);
            let labels = matter.labels.iter().copied();
            let all = labels.chain(places).chain([Label::EVERYTHING]);
            all.filter_map(|label| self.labels.get(label)).for_each(&mut f);
        }
        self.prefixes.for_each(matter.key, after, f);
    }
}
