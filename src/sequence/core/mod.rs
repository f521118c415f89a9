//! Which purges there were, in one sequence with the fetches.
//!
//! Fetches and purges take their numbers from one counter. An answer is purged if a purge that
//! matches it has a larger number than its fetch. What there is to match:
//!
//! * **Places**: floors for the hashes of target URIs and keys. A purge raises the floor.
//! * **Labels**: hashes of what an answer shares with others, such as its tags and the prefixes of
//!   its path, and one that all answers have. A purge leaves a record, found by the hash.
//! * **Ranges**: prefixes of keys and patterns of paths, a list of records.
//!
//! # What makes it right
//!
//! 1. A purge takes its number, makes its floor or record visible and only then
//!    [publishes](Purges::latest) the number, all under one lock. So who has read a published
//!    number finds all records up to it, and an answer that was checked up to it needs no second
//!    check until another one is published. Fetches take their numbers under the lock as well: one
//!    that then finds a stored answer to be confirmed not purged confirms nothing that a purge with
//!    a smaller number is just about to reach.
//! 2. Records are bounded. Before one is dropped, [`dropped`](Purges::dropped) rises to its
//!    number; it is read after the records. So who missed the record sees that he may have, and
//!    an answer that was checked last before that number counts as purged.
//! 3. Records that nothing can match are dropped without harm: when all that is stored was checked
//!    and all fetches that began before are over. Hence the list of fetches under way.
//! 4. Most unsafe requests go where nothing is ever fetched. So a fetch leaves a mark at its place
//!    once it has its number and before it asks the origin, and an [invalidation](Purges::invalidate)
//!    that finds none does nothing: what began there before is purged already, by the purge that removed
//!    its mark, has a larger number and published it, and what begins later finds the origin as it is
//!    now. A request that may wait for another one's fetch [leaves a mark](Purges::arrive) as well,
//!    once it has seen the floor: where nobody numbers fetches, floors alone tell those who came
//!    before an invalidation from those who came after it.
//!
//! Knows neither HTTP nor time: the moments of soft purges are numbers that somebody else made.

mod check;
mod floors;
mod index;
mod matter;
mod pattern;
mod record;

use std::collections::BTreeSet;

pub(crate) use self::{
    check::PurgeCheck,
    matter::{FloorIndex, Matter, PurgeKind, TagHash},
};
use self::{
    floors::Floors,
    index::{Labels, Order, Range, Ranges},
    record::Record,
};
pub(crate) use self::{
    matter::Loss,
    pattern::{Glob, Pattern, Segment},
};
use super::sync::{AtomicU64, Mutex, Ordering};

/// What purges say about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Untouched,
    /// Stale from this moment on.
    StaleSince(u64),
    Purged,
}

#[derive(Debug, Default)]
struct Book {
    order: Order,
    /// The numbers of the fetches that may still bring an answer.
    under_way: BTreeSet<u64>,
}

#[derive(Debug)]
pub(crate) struct Purges {
    /// The number of the fetch or purge that began last.
    current: AtomicU64,
    /// The number of the last purge whose record is visible, as are all before it.
    latest: AtomicU64,
    /// Records up to this number may have been dropped.
    dropped: AtomicU64,
    floors: Floors,
    labels: Labels,
    ranges: Ranges,
    /// Held by whoever takes a number or drops a record.
    book: Mutex<Book>,
    max_labels: usize,
    max_ranges: usize,
}

impl Purges {
    pub(crate) fn new(floors: usize, max_labels: usize, max_ranges: usize) -> Self {
        Self {
            current: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            floors: Floors::new(floors),
            labels: Labels::new(max_labels),
            ranges: Ranges::new(max_ranges),
            book: Mutex::new(Book::default()),
            max_labels,
            max_ranges,
        }
    }

    pub(crate) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// What was checked up to this number need not be checked again.
    pub(crate) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// Numbers a fetch that begins now, and that invalidations of the place are to reach. Purges with
    /// smaller numbers are visible.
    pub(crate) fn begin(&self, place: FloorIndex) -> u64 {
        let mut book = self.book.lock();
        let number = self.next();
        book.under_way.insert(number);
        drop(book);
        self.floors.begin(place);
        number
    }

    /// The fetch will not bring an answer to be stored any more.
    pub(crate) fn end(&self, number: u64) {
        self.book.lock().under_way.remove(&number);
    }

    /// Everything that matches and began before now is purged for who comes after this returned.
    /// With a moment it is stale from then on, else gone.
    pub(crate) fn purge(&self, what: PurgeKind<'_>, soft_at: Option<u64>) -> u64 {
        self.lose(what, soft_at, Loss::Purged)
    }

    fn lose(&self, what: PurgeKind<'_>, soft_at: Option<u64>, loss: Loss) -> u64 {
        let order = &mut self.book.lock().order;
        let number = self.next();
        match (what, soft_at) {
            (PurgeKind::Place(place), None) => self.floors.raise(place, number, loss),
            (PurgeKind::Place(place), soft_at) => self.note(order, TagHash::of_place(place), number, soft_at),
            (PurgeKind::TagHash(label), soft_at) => self.note(order, label, number, soft_at),
            (PurgeKind::KeyPrefix(prefix), soft_at) => {
                self.note_range(Range::KeyPrefix(prefix.into()), number, soft_at);
            }
            (PurgeKind::Paths(pattern), soft_at) => {
                self.note_range(Range::Paths(Box::new(pattern.clone())), number, soft_at);
            }
        }
        // Whatever it purges is visible by now, and so is all that was purged before.
        self.latest.store(number, Ordering::Release);
        number
    }

    /// Purges a place, unless nothing began there since that was done last.
    pub(crate) fn invalidate(&self, place: FloorIndex) {
        // Another one that is just about to do so is not waited for: its number may not be published.
        let is_done = |floor| floor <= self.latest();
        if !self.floors.idle_since(place).is_some_and(is_done) {
            self.lose(PurgeKind::Place(place), None, Loss::Invalidated);
        }
    }

    /// Whether nothing has purged an answer since its fetch began. Tells since when it is stale if it
    /// was purged softly.
    ///
    /// One atomic load where nothing was purged since the answer was last looked at.
    #[inline(always)]
    pub(crate) fn admits<'a>(
        &self,
        mark: &PurgeCheck,
        begun: u64,
        matter: impl FnOnce() -> Matter<'a>,
        is_stale_since: impl FnOnce(u64),
    ) -> bool {
        let latest = self.latest();
        if mark.checked() >= latest {
            return true;
        }
        match self.judge(&matter(), begun, mark.checked()) {
            Judgement::Purged => return false,
            Judgement::StaleSince(at) => is_stale_since(at),
            Judgement::Untouched => {}
        }
        // Only what was published before the records were read.
        mark.check(latest);
        true
    }

    /// What it was that purged an answer which began with this number.
    pub(crate) fn loss(&self, matter: &Matter<'_>, begun: u64) -> Loss {
        let floors = matter.places.iter().map(|place| (self.floors.at(*place), *place));
        match floors.max_by_key(|(floor, _)| *floor) {
            Some((floor, place)) if floor > begun && self.floors.is_invalidated(place) => Loss::Invalidated,
            _ => Loss::Purged,
        }
    }

    /// What purges say about an answer that began with this number and was checked up to that one.
    #[cold]
    fn judge(&self, matter: &Matter<'_>, begun: u64, checked: u64) -> Judgement {
        if matter.places.iter().any(|place| self.floors.at(*place) > begun) {
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

    /// The floor of a request that may wait for another one's fetch, and share it if that one had the
    /// same. Invalidations of the place raise it from now on.
    pub(crate) fn arrive(&self, matter: &Matter<'_>, place: FloorIndex) -> u64 {
        let floor = self.floor(matter);
        self.floors.begin(place);
        floor
    }

    /// The number of the last purge that matches, hard or soft.
    pub(crate) fn floor(&self, matter: &Matter<'_>) -> u64 {
        let mut floor = matter.places.iter().map(|place| self.floors.at(*place)).max().unwrap_or(0);
        self.for_each_record(matter, 0, |record| floor = floor.max(record.last()));
        floor
    }

    /// Whether no purge lies between the beginning of a fetch and the arrival of a request that
    /// waited for it, as far as that is known; up to `checked` there is none.
    ///
    /// The request has seen what purged its own matter, and waits with those who saw the same. What
    /// is left are the tags, and the URI of another request with the same key. Where nobody looked
    /// when the request arrived, anything that purged the answer counts.
    pub(crate) fn serves(
        &self,
        matter: &Matter<'_>,
        checked: u64,
        arrival: Option<(u64, Matter<'_>)>,
    ) -> bool {
        match arrival {
            _ if checked >= self.latest() => true,
            None => self.floor(matter) <= checked && self.dropped() <= checked,
            Some((number, known)) => {
                number <= checked || !self.may_lie_between(matter, &known, checked, number)
            }
        }
    }

    /// Whether something may have purged what was checked up to `after`, not later than `until`.
    /// What `known` matches is left out.
    fn may_lie_between(&self, matter: &Matter<'_>, known: &Matter<'_>, after: u64, until: u64) -> bool {
        let places = || matter.places.into_iter().filter(|place| !known.places.contains(place));
        let labels = matter.labels.iter().copied().filter(|label| !known.labels.contains(label));
        let mut records =
            labels.chain(places().map(TagHash::of_place)).filter_map(|label| self.labels.get(label));
        records.any(|record| record.may_lie_between(after, until))
            || places().any(|place| self.floors.at(place) > after)
            // Under one key there may be responses of several paths.
            || self.ranges.any(after, |range, record| {
                record.may_lie_between(after, until) && range.has(matter) && !range.has(known)
            })
            // Read after the records, as above.
            || after < self.dropped()
    }

    /// Everything that is stored was checked up to this number: drops at most `most` of the records
    /// that nothing can match any more. Returns whether there are more.
    pub(crate) fn forget(&self, checked: u64, most: usize) -> bool {
        let Book { order, under_way } = &mut *self.book.lock();
        let until = under_way.first().map_or(checked, |oldest| checked.min(oldest - 1));
        let is_due = |number: Option<u64>| number.is_some_and(|number| number <= until);
        if !is_due(order.oldest()) && !is_due(self.ranges.oldest()) {
            return false;
        }
        self.drop_until(Some(until));
        for _ in 0..most {
            match (is_due(order.oldest()), is_due(self.ranges.oldest())) {
                (true, _) => self.labels.forget_oldest(order),
                (false, true) => self.ranges.forget_oldest(),
                (false, false) => return false,
            }
        }
        true
    }

    /// The records of labels and of ranges.
    pub(crate) fn records(&self) -> (usize, usize) {
        let labels = self.book.lock().order.len();
        (labels, self.ranges.len())
    }

    /// The number of the last purge that left a record.
    pub(crate) fn newest_record(&self) -> u64 {
        self.labels.newest().max(self.ranges.newest())
    }

    /// Whether there are more than half of the records that there may be, of one kind or the other.
    pub(crate) fn is_crowded(&self) -> bool {
        self.labels.fill().is_half_full() || self.ranges.fill().is_half_full()
    }

    /// Whether so many are new that all that is stored should be looked at before they are too many.
    pub(crate) fn is_walk_due(&self) -> bool {
        self.labels.fill().is_half_new() || self.ranges.fill().is_half_new()
    }

    /// All that is stored is looked at from now on, and what is noted later needs another walk. Returns
    /// the number up to which everything is checked once that is done.
    pub(crate) fn begin_walk(&self) -> u64 {
        self.labels.fill().walk_begins();
        self.ranges.fill().walk_begins();
        self.latest()
    }

    fn next(&self) -> u64 {
        self.current.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn note(&self, order: &mut Order, label: TagHash, number: u64, soft_at: Option<u64>) {
        self.labels.note(order, label, number, soft_at);
        if order.len() > self.max_labels {
            self.drop_until(order.oldest());
            self.labels.forget_oldest(order);
        }
    }

    /// Under the lock.
    fn note_range(&self, range: Range, number: u64, soft_at: Option<u64>) {
        self.ranges.note(range, number, soft_at);
        if self.ranges.len() > self.max_ranges {
            self.drop_until(self.ranges.oldest());
            self.ranges.forget_oldest();
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
            let places = matter.places.map(TagHash::of_place);
            let labels = matter.labels.iter().copied();
            let all = labels.chain(places).chain([TagHash::EVERYTHING]);
            all.filter_map(|label| self.labels.get(label)).for_each(&mut f);
        }
        self.ranges.any(after, |range, record| {
            if range.has(matter) {
                f(record);
            }
            false
        });
    }
}
