//! Purges and fetches in one sequence.
//!
//! Both take their numbers from one counter. A response is purged if a purge that matches it has a larger
//! number than its fetch. What a purge matches by:
//!
//! * **Floors**, for the hashes of target URIs and keys. A purge raises the floor to its number.
//! * **Tags**: hashes of what responses share, such as tags and the prefixes of paths, and one that all
//!   responses have. A purge leaves a record, found by the hash.
//! * **Ranges**: prefixes of keys and patterns of paths. A purge leaves a record in a list.
//!
//! # Why it is correct
//!
//! 1. Under one lock a purge takes its number, makes its floor or record visible, and only then
//!    [publishes](Purges::latest) the number. A reader of a published number therefore finds all records up
//!    to it, and a response that was checked up to it needs no second check until another one is published.
//!    Fetches take their numbers under the same lock: one that then finds a stored response not purged, to
//!    have it confirmed, cannot confirm what a purge with a smaller number is about to reach.
//! 2. Records are bounded. Before one is dropped, [`dropped`](Purges::dropped) rises to its number, and it is
//!    read after the records. A reader that missed the record therefore sees that it may have, and a
//!    response that was last checked before that number counts as purged.
//! 3. A record that can match nothing any more may be dropped: when all that is stored was checked, and all
//!    fetches that began before are over. Hence the set of fetches under way.
//! 4. Most unsafe requests go to URIs that are never fetched. So a fetch sets the `BEGUN` bit of its floor
//!    once it has its number and before it asks the origin, and an [invalidation](Purges::invalidate) that
//!    finds the bit unset does nothing. Anything that began there earlier was purged when the bit was
//!    cleared, under a larger, already published number; anything that begins later sees the origin after the
//!    change. A request that may wait for another one's fetch [sets the bit](Purges::arrive) as well, once it
//!    has read the floor: where no layer numbers fetches, floors alone tell requests before an invalidation
//!    from those after it.
//! 5. Where others purge too, and may be out of reach, a stored response has to be looked at each time that it
//!    is used, and not only after a purge. Then the [gate](Purges::gate) is above all numbers, so that each
//!    check asks whether there is doubt; the records are read only after a purge, or in doubt. Otherwise it is
//!    the published number, and a check costs what it did.
//!
//! Knows neither HTTP nor time: the moments of soft purges are numbers given by the caller.

mod keys;
mod records;

use std::collections::BTreeMap;

pub use self::keys::PurgeTexts;
pub(crate) use self::keys::{FloorIndex, Glob, Loss, Pattern, PurgeKeys, PurgeKind, Segment, TagHash};
use self::records::{Order, Range, RangeRecords, Record, TagRecords};
use super::sync::{AtomicU64, Mutex, Ordering};

/// What a purge makes of what it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Gone,
    /// Stale from this moment on.
    StaleSince(u64),
    /// Not to be used before the origin has confirmed it, but for a fetch that failed.
    Unproven,
}

/// What purges have left of the worth of a response that may still be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doubts {
    /// Stale from this moment on.
    pub(crate) stale_since: Option<u64>,
    pub(crate) is_unproven: bool,
}

/// Fetches that a load is compared with. Where there are more it is taken to be older than the next one.
const MAX_SCANNED: usize = 1024;

#[derive(Debug, Default)]
struct Book {
    order: Order,
    /// The numbers of the fetches and loads that may still bring a response to store. Of fetches with the floor of
    /// the key.
    under_way: BTreeMap<u64, Option<FloorIndex>>,
}

#[derive(Debug)]
pub(crate) struct Purges {
    /// The number of the fetch or purge that began last.
    current: AtomicU64,
    /// The number of the last purge. Its record is visible, and so are all before it.
    latest: AtomicU64,
    /// What was checked up to this number is admitted without a look: as [`latest`](Self::latest), unless the
    /// caller has [more to ask](Self::always_ask).
    gate: AtomicU64,
    /// Records up to this number may have been dropped.
    dropped: AtomicU64,
    /// How many loads are under way, of what may be at any floor.
    loads: AtomicU64,
    floors: Floors,
    tags: TagRecords,
    ranges: RangeRecords,
    /// Held to take a number or to drop a record.
    book: Mutex<Book>,
    max_tags: usize,
    max_ranges: usize,
    /// Not 0: records that nothing here needs any more are kept, up to half of the most.
    keeps_records: AtomicU64,
}

impl Purges {
    pub(crate) fn new(floors: usize, max_tags: usize, max_ranges: usize) -> Self {
        Self {
            current: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            gate: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            floors: Floors::new(floors),
            tags: TagRecords::new(max_tags),
            ranges: RangeRecords::new(max_ranges),
            book: Mutex::new(Book::default()),
            max_tags,
            max_ranges,
            keeps_records: AtomicU64::new(0),
        }
    }

    /// Keeps records as long as there is room, from now on: responses may come from elsewhere that were fetched
    /// before any purge that is known.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "there is no second tier"))]
    pub(crate) fn keep_records(&self) {
        self.keeps_records.store(1, Ordering::Release);
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

    /// Numbers a fetch that begins now, and that invalidations of the floor of its URI are to reach. Purges with
    /// smaller numbers are visible.
    pub(crate) fn begin(&self, [of_uri, of_key]: [FloorIndex; 2]) -> u64 {
        let mut book = self.book.lock();
        let number = self.next();
        book.under_way.insert(number, Some(of_key));
        drop(book);
        self.floors.begin(of_uri);
        number
    }

    /// Notes that something is about to be loaded that was fetched in the past. Returns a number to
    /// [end](Self::end_load) that with, and the number under which it is stored: of the last purge, which is
    /// not that of any fetch.
    pub(crate) fn begin_load(&self) -> (u64, u64) {
        self.loads.fetch_add(1, Ordering::AcqRel);
        let mut book = self.book.lock();
        let number = self.next();
        book.under_way.insert(number, None);
        (number, self.latest())
    }

    /// The same number, or a smaller one: below those of all fetches for the key that are under way. What is stored
    /// under it takes the place of nothing that they bring, which is newer than what is loaded.
    pub(crate) fn below_fetches(&self, number: u64, of_key: FloorIndex) -> u64 {
        let book = self.book.lock();
        let mut earlier = book.under_way.range(..=number).enumerate();
        let is_below = |(at, (_, place)): (usize, (&u64, &Option<FloorIndex>))| {
            at >= MAX_SCANNED || *place == Some(of_key)
        };
        let first = earlier.find(|one| is_below(*one)).map(|(_, (number, _))| *number);
        first.map_or(number, |first| first.saturating_sub(1))
    }

    /// What was loaded is about to be stored: invalidations of the floor are to reach it from now on.
    pub(crate) fn loaded(&self, floor: FloorIndex) {
        self.floors.begin(floor);
    }

    pub(crate) fn end_load(&self, number: u64) {
        self.end(number);
        self.loads.fetch_sub(1, Ordering::AcqRel);
    }

    /// The response of the fetch will not be stored any more.
    pub(crate) fn end(&self, number: u64) {
        self.book.lock().under_way.remove(&number);
    }

    /// Purges all that matches and began before now, for all requests that arrive after this has returned.
    pub(crate) fn purge(&self, what: PurgeKind<'_>, effect: Effect) -> u64 {
        self.lose(what, effect, Loss::Purged)
    }

    fn lose(&self, what: PurgeKind<'_>, effect: Effect, loss: Loss) -> u64 {
        let order = &mut self.book.lock().order;
        let number = self.next();
        match (what, effect) {
            (PurgeKind::Floor(floor), Effect::Gone) => self.floors.raise(floor, number, loss),
            (PurgeKind::Floor(floor), effect) => self.note(order, TagHash::of_floor(floor), number, effect),
            (PurgeKind::Tag(tag), effect) => self.note(order, tag, number, effect),
            (PurgeKind::KeyPrefix(prefix), effect) => {
                self.note_range(Range::KeyPrefix(prefix.into()), number, effect);
            }
            (PurgeKind::Paths(pattern), effect) => {
                self.note_range(Range::Paths(Box::new(pattern.clone())), number, effect);
            }
        }
        // Its record is visible by now, and so are all before it.
        // The gate first: an invalidation that finds the number published does nothing more.
        self.gate.fetch_max(number, Ordering::AcqRel);
        self.latest.store(number, Ordering::Release);
        number
    }

    /// From now on each [check](Self::admits) asks whether the response is in doubt.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "there are no other nodes"))]
    pub(crate) fn always_ask(&self) {
        self.gate.store(u64::MAX, Ordering::Release);
    }

    /// Purges a floor, unless nothing began there since that was done last.
    pub(crate) fn invalidate(&self, floor: FloorIndex) {
        // The purge that cleared the bit may not have published its number yet.
        let is_done = |floor| floor <= self.latest();
        let is_load_under_way = self.loads.load(Ordering::Acquire) > 0;
        if is_load_under_way || !self.floors.idle_since(floor).is_some_and(is_done) {
            self.lose(PurgeKind::Floor(floor), Effect::Gone, Loss::Invalidated);
        }
    }

    /// Purges a floor as an unsafe request does, whatever began there.
    pub(crate) fn invalidate_always(&self, floor: FloorIndex) {
        self.lose(PurgeKind::Floor(floor), Effect::Gone, Loss::Invalidated);
    }

    /// Whether nothing has purged a response since its fetch began. Calls `note` with what softer purges have
    /// left of it, if there were any.
    ///
    /// One atomic load where nothing was purged since the response was last checked.
    #[inline(always)]
    pub(crate) fn admits<'a>(
        &self,
        check: &PurgeCheck,
        begun: u64,
        keys: impl FnOnce() -> &'a PurgeKeys,
        is_in_doubt: impl FnOnce() -> bool,
        note: impl FnOnce(Doubts),
    ) -> bool {
        if check.checked() >= self.gate.load(Ordering::Acquire) {
            return true;
        }
        // Before the records are read: what takes the doubt away was noted in them by then.
        let is_in_doubt = is_in_doubt();
        let latest = self.latest();
        // Where each use asks, the gate is above all numbers.
        if !is_in_doubt && check.checked() >= latest {
            return true;
        }
        let Some(mut doubts) = self.judge(keys(), begun, check.checked()) else { return false };
        doubts.is_unproven |= is_in_doubt;
        if doubts != Doubts::default() {
            note(doubts);
        }
        // Not further: only these were published before the records were read.
        check.raise(latest);
        true
    }

    /// Whether a purge since then has removed the response of the fetch with this number.
    #[inline]
    pub(crate) fn has_removed(&self, keys: &PurgeKeys, begun: u64) -> bool {
        self.latest() > begun && self.judge(keys, begun, begun).is_none()
    }

    /// What purged the response of the fetch with this number.
    pub(crate) fn loss(&self, keys: &PurgeKeys, begun: u64) -> Loss {
        let purged = keys.floors().map(|floor| (self.floors.at(floor), floor));
        match purged.into_iter().max_by_key(|(number, _)| *number) {
            Some((number, floor)) if number > begun && self.floors.is_invalidated(floor) => Loss::Invalidated,
            _ => Loss::Purged,
        }
    }

    /// What purges have left of the response of the fetch `begun` that was checked up to `checked`. `None`:
    /// it is purged.
    #[cold]
    fn judge(&self, keys: &PurgeKeys, begun: u64, checked: u64) -> Option<Doubts> {
        if keys.floors().iter().any(|floor| self.floors.at(*floor) > begun) {
            return None;
        }
        let (mut is_purged, mut doubts) = (false, Doubts::default());
        self.for_each_record(keys, checked, |record| {
            is_purged |= record.is_purged_since(begun);
            doubts.is_unproven |= record.is_unproven_since(begun);
            doubts.stale_since = doubts.stale_since.into_iter().chain(record.stale_since(begun)).min();
        });
        // Read after the records: it tells of those that were dropped by then.
        (!is_purged && checked >= self.dropped()).then_some(doubts)
    }

    /// The floor of a request that may wait for another one's fetch, and share it if that has the same.
    /// Invalidations raise it from now on.
    pub(crate) fn arrive(&self, keys: &PurgeKeys) -> u64 {
        let last = self.floor(keys);
        self.floors.begin(keys.uri_floor());
        last
    }

    /// The number of the last purge that matches, of any strength.
    pub(crate) fn floor(&self, keys: &PurgeKeys) -> u64 {
        let mut last = keys.floors().iter().map(|floor| self.floors.at(*floor)).max().unwrap_or(0);
        self.for_each_record(keys, 0, |record| last = last.max(record.last()));
        last
    }

    /// Whether no purge lies between the beginning of a fetch and the arrival of a request that
    /// waited for it, as far as that is known; up to `checked` there is none.
    ///
    /// The request has seen what purged its own keys, and waits with requests that saw the same. What is left
    /// are the tags, and the URI of another request with the same key. Without an arrival, anything that
    /// purged the response counts.
    pub(crate) fn serves(&self, keys: &PurgeKeys, checked: u64, arrival: Option<(u64, &PurgeKeys)>) -> bool {
        match arrival {
            _ if checked >= self.latest() => true,
            None => self.floor(keys) <= checked && self.dropped() <= checked,
            Some((number, known)) => number <= checked || !self.may_lie_between(keys, known, checked, number),
        }
    }

    /// Whether something may have purged what was checked up to `after`, not later than `until`.
    /// What `known` matches is left out.
    fn may_lie_between(&self, keys: &PurgeKeys, known: &PurgeKeys, after: u64, until: u64) -> bool {
        let floors = || keys.floors().into_iter().filter(|floor| !known.floors().contains(floor));
        let tags = keys.tags().iter().copied().filter(|tag| !known.tags().contains(tag));
        let mut records = tags.chain(floors().map(TagHash::of_floor)).filter_map(|tag| self.tags.get(tag));
        records.any(|record| record.may_lie_between(after, until))
            || floors().any(|floor| self.floors.at(floor) > after)
            // Under one key there may be responses of several paths.
            || self.ranges.any(after, |range, record| {
                record.may_lie_between(after, until) && range.matches(keys) && !range.matches(known)
            })
            // Read after the records, as above.
            || after < self.dropped()
    }

    /// Drops at most `most` of the records that can match nothing any more, now that all that is stored was
    /// checked up to this number. Returns whether there are more.
    pub(crate) fn forget(&self, checked: u64, most: usize) -> bool {
        let Book { order, under_way, .. } = &mut *self.book.lock();
        let until = under_way.first_key_value().map_or(checked, |(oldest, _)| checked.min(oldest - 1));
        let is_due = |number: Option<u64>| number.is_some_and(|number| number <= until);
        let keeps_records = self.keeps_records.load(Ordering::Acquire) != 0;
        let may_go = |fill: &records::Fill| !keeps_records || fill.is_half_full();
        let due_tag = |order: &Order| order.oldest().filter(|_| may_go(self.tags.fill()));
        let due_range = || self.ranges.oldest().filter(|_| may_go(self.ranges.fill()));
        if !is_due(due_tag(order)) && !is_due(due_range()) {
            return false;
        }
        for _ in 0..most {
            let (tag, range) = (due_tag(order), due_range());
            // No further than what is dropped: what is being loaded was checked up to less than its number.
            match (is_due(tag), is_due(range)) {
                (true, _) => {
                    self.drop_until(tag);
                    self.tags.forget_oldest(order);
                }
                (false, true) => {
                    self.drop_until(range);
                    self.ranges.forget_oldest();
                }
                (false, false) => return false,
            }
        }
        true
    }

    /// The records of tags and of ranges.
    pub(crate) fn records(&self) -> (usize, usize) {
        let tags = self.book.lock().order.len();
        (tags, self.ranges.len())
    }

    /// The number of the last purge that left a record.
    pub(crate) fn newest_record(&self) -> u64 {
        self.tags.newest().max(self.ranges.newest())
    }

    /// Whether more than half of the records of one kind are taken.
    pub(crate) fn is_crowded(&self) -> bool {
        self.tags.fill().is_half_full() || self.ranges.fill().is_half_full()
    }

    /// Whether so many are new that all that is stored should be checked before they are too many.
    pub(crate) fn is_walk_due(&self) -> bool {
        self.tags.fill().is_half_new() || self.ranges.fill().is_half_new()
    }

    /// Begins to check all that is stored; what is noted later needs another walk. Returns the number up to
    /// which everything is checked when the walk ends.
    pub(crate) fn begin_walk(&self) -> u64 {
        self.tags.fill().walk_begins();
        self.ranges.fill().walk_begins();
        self.latest()
    }

    fn next(&self) -> u64 {
        self.current.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn note(&self, order: &mut Order, tag: TagHash, number: u64, effect: Effect) {
        self.tags.note(order, tag, number, effect);
        if order.len() > self.max_tags {
            self.drop_until(order.oldest());
            self.tags.forget_oldest(order);
        }
    }

    /// Under the lock.
    fn note_range(&self, range: Range, number: u64, effect: Effect) {
        self.ranges.note(range, number, effect);
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
    fn for_each_record(&self, keys: &PurgeKeys, after: u64, mut f: impl FnMut(Record)) {
        if self.tags.newest() > after {
            let floors = keys.floors().map(TagHash::of_floor);
            let tags = keys.tags().iter().copied();
            let all = tags.chain(floors).chain([TagHash::EVERYTHING]);
            all.filter_map(|tag| self.tags.get(tag)).for_each(&mut f);
        }
        self.ranges.any(after, |range, record| {
            if range.matches(keys) {
                f(record);
            }
            false
        });
    }
}

/// For each floor the number of its last purge, and whether anything began there since.
///
/// Both are in one word, and every access that decides something is a read-modify-write of it: these have one
/// order for each floor, and each sees what the threads of the earlier ones had done before.
#[derive(Debug)]
struct Floors(Box<[AtomicU64]>);

/// Something began.
const BEGUN: u64 = 1;

/// The last purge came from an unsafe request.
const UNSAFE: u64 = 1 << 1;

/// The number is in the bits from here on.
const NUMBER: u32 = 2;

impl Floors {
    fn new(floors: usize) -> Self {
        Self((0..floors).map(|_| AtomicU64::new(0)).collect())
    }

    /// The number of the last purge; 0 if there was none.
    fn at(&self, floor: FloorIndex) -> u64 {
        self.word(floor).map_or(0, |word| word.load(Ordering::Acquire) >> NUMBER)
    }

    /// Whether the last purge came from an unsafe request.
    fn is_invalidated(&self, floor: FloorIndex) -> bool {
        self.word(floor).is_some_and(|word| word.load(Ordering::Acquire) & UNSAFE != 0)
    }

    /// A purge with this number, which reaches all that began so far.
    fn raise(&self, floor: FloorIndex, number: u64, loss: Loss) {
        let by = if loss == Loss::Invalidated { UNSAFE } else { 0 };
        if let Some(word) = self.word(floor) {
            word.swap(number << NUMBER | by, Ordering::AcqRel);
        }
    }

    /// A fetch begins that invalidations are to reach.
    fn begin(&self, floor: FloorIndex) {
        if let Some(word) = self.word(floor) {
            word.fetch_or(BEGUN, Ordering::AcqRel);
        }
    }

    /// The number of the last purge, if nothing began since. Not a mere load: a fetch that begins later has
    /// to see all that the caller did before.
    fn idle_since(&self, floor: FloorIndex) -> Option<u64> {
        let word = self.word(floor).map_or(0, |word| word.fetch_or(0, Ordering::AcqRel));
        (word & BEGUN == 0).then_some(word >> NUMBER)
    }

    fn word(&self, floor: FloorIndex) -> Option<&AtomicU64> {
        self.0.get(floor.get())
    }
}

/// What was found out about a stored response since it is stored.
#[derive(Debug)]
pub(crate) struct PurgeCheck {
    checked: AtomicU64,
    /// [`UNTOUCHED`], or what softer purges have left of it.
    doubts: AtomicU64,
}

/// Neither stale by a purge nor unproven.
const UNTOUCHED: u64 = u64::MAX;

/// Unset once the response is unproven. In the other bits are the nanoseconds after which it is stale,
/// counted from when it came in, or all of them are set.
const PROVEN: u64 = 1 << 63;

impl PurgeCheck {
    pub(crate) fn new(begun: u64) -> Self {
        Self { checked: AtomicU64::new(begun), doubts: AtomicU64::new(UNTOUCHED) }
    }

    /// Nothing up to this number has purged it.
    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(Ordering::Acquire)
    }

    fn raise(&self, number: u64) {
        self.checked.fetch_max(number, Ordering::AcqRel);
    }

    /// Whether no softer purge has reached it.
    #[inline(always)]
    pub(crate) fn is_untouched(&self) -> bool {
        self.doubts.load(Ordering::Relaxed) == UNTOUCHED
    }

    /// How long after it came in a soft purge made it stale, in nanoseconds.
    pub(crate) fn stale_after(&self) -> Option<u64> {
        Some(self.doubts.load(Ordering::Relaxed) & !PROVEN).filter(|after| *after != !PROVEN)
    }

    /// Whether the origin has to confirm it before it is used.
    pub(crate) fn is_unproven(&self) -> bool {
        self.doubts.load(Ordering::Relaxed) & PROVEN == 0
    }

    /// The first moment counts.
    pub(crate) fn is_stale_after(&self, nanos: u64) {
        // Below what stands for none. Both halves change by one operation each, and keep the other.
        let nanos = nanos.min(!PROVEN - 1);
        let mut doubts = self.doubts.load(Ordering::Relaxed);
        while doubts & !PROVEN > nanos {
            let stale = doubts & PROVEN | nanos;
            match self.doubts.compare_exchange(doubts, stale, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => doubts = changed,
            }
        }
    }

    pub(crate) fn note_unproven(&self) {
        self.doubts.fetch_and(!PROVEN, Ordering::Relaxed);
    }
}
