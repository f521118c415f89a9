//! The sequence of purges under the interleavings that shuttle explores.
//!
//! This is the code of the crate, compiled once more with the primitives of shuttle, which runs
//! threads one step at a time in an order of its own. Around it is a store for one key, with
//! the steps of the layers: look up, fetch and store, revalidate, wait for another fetch, sweep.
//!
//! The content of the origin has a number. Each purge comes after new content, and is announced to the
//! readers after it has returned. From then on no reader may get older content.

#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the source of the crate, of which a model uses a part"
)]
#[path = "../src/sequence/core/mod.rs"]
mod core;

/// As in the crate, but with other primitives.
mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    use shuttle::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    #[derive(Debug, Default)]
    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }

    #[derive(Debug)]
    pub(super) struct RwLock<T>(shuttle::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(super) fn new(value: T) -> Self {
            Self(shuttle::sync::RwLock::new(value))
        }

        pub(super) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap()
        }

        pub(super) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap()
        }
    }
}

use std::sync::{Arc, LazyLock};

use self::{
    core::{Effect, FloorIndex, PurgeCheck, PurgeKeys, PurgeKind, Purges, TagHash},
    sync::{AtomicU64, Mutex, Ordering},
};

const KEY: &[u8] = b"key";
const FLOOR: FloorIndex = FloorIndex::new(0);
const TAG: TagHash = TagHash::new(7);
/// Nothing has it.
const OTHER: TagHash = TagHash::new(9);

/// What is known of a request when it arrives: not the tag.
static ASKED: LazyLock<PurgeKeys> = LazyLock::new(|| keys(&[]));

static ANSWERED: LazyLock<PurgeKeys> = LazyLock::new(|| keys(&[TAG]));

fn keys(tags: &[TagHash]) -> PurgeKeys {
    PurgeKeys::new(KEY.into(), [FLOOR, FLOOR], tags.iter().copied(), "/", None)
}

struct Entry {
    content: u64,
    begun: u64,
    mark: PurgeCheck,
}

impl Entry {
    fn new(content: u64, begun: u64) -> Arc<Self> {
        Arc::new(Self { content, begun, mark: PurgeCheck::new(begun) })
    }
}

#[derive(Clone, Copy)]
struct Flight {
    content: u64,
    /// `None`: no layer below numbers fetches.
    begun: Option<u64>,
    /// The fetch that others may join.
    floor: u64,
}

struct World {
    purges: Purges,
    stored: Mutex<Option<Arc<Entry>>>,
    /// A fetch that others may wait for.
    flight: Mutex<Option<Flight>>,
    /// The content of the origin.
    content: AtomicU64,
    /// Purges up to this content have returned.
    returned: AtomicU64,
}

impl World {
    /// With room for one record, so that others push it out.
    fn new(max_records: usize) -> Self {
        Self {
            purges: Purges::new(1, max_records, max_records),
            stored: Mutex::new(None),
            flight: Mutex::new(None),
            content: AtomicU64::new(1),
            returned: AtomicU64::new(1),
        }
    }

    fn edit(&self, what: PurgeKind<'_>) {
        self.change(|purges| _ = purges.purge(what, Effect::Gone));
    }

    fn doubt(&self, what: PurgeKind<'_>) {
        self.change(|purges| _ = purges.purge(what, Effect::Unproven));
    }

    /// An unsafe request.
    fn post(&self) {
        self.change(|purges| purges.invalidate(FLOOR));
    }

    fn change(&self, purge: impl FnOnce(&Purges)) {
        let content = self.content.fetch_add(1, Ordering::SeqCst) + 1;
        purge(&self.purges);
        self.returned.fetch_max(content, Ordering::SeqCst);
    }

    fn admits(&self, entry: &Entry) -> bool {
        self.purges.admits(
            &entry.mark,
            entry.begun,
            || &ANSWERED,
            || false,
            |doubts| {
                if doubts.is_unproven {
                    entry.mark.note_unproven();
                }
            },
        )
    }

    fn select(&self) -> Option<Arc<Entry>> {
        let stored = self.stored.lock().clone();
        stored.filter(|entry| self.admits(entry))
    }

    fn put(&self, new: Arc<Entry>) {
        if self.admits(&new) {
            let mut stored = self.stored.lock();
            if stored.as_ref().is_none_or(|old| old.begun < new.begun) {
                *stored = Some(new);
            }
        }
    }

    fn fetch(&self) {
        let floor = self.purges.arrive(&ASKED);
        let begun = self.purges.begin([FLOOR; 2]);
        let content = self.content.load(Ordering::SeqCst);
        // A purge counts even if the content has not changed.
        *self.flight.lock() = Some(Flight { content, begun: Some(begun), floor });
        self.put(Entry::new(content, begun));
        self.purges.end(begun);
    }

    /// A response from below without a number is not stored.
    fn fetch_unnumbered(&self) {
        let floor = self.purges.arrive(&ASKED);
        let content = self.content.load(Ordering::SeqCst);
        *self.flight.lock() = Some(Flight { content, begun: None, floor });
    }

    /// A 304: the stored response, under a new number.
    fn confirm(&self) {
        let Some(known) = self.select() else { return };
        let begun = self.purges.begin([FLOOR; 2]);
        // What is unproven is only stored again if it is still what the origin has.
        let content = self.content.load(Ordering::SeqCst);
        if self.admits(&known) && (!known.mark.is_unproven() || known.content == content) {
            self.put(Entry::new(known.content, begun));
        }
        self.purges.end(begun);
    }

    fn look(&self) {
        let at_least = self.returned.load(Ordering::SeqCst);
        if let Some(entry) = self.select()
            && !entry.mark.is_unproven()
        {
            assert!(entry.content >= at_least, "{} from the store, {at_least} purged", entry.content);
        }
    }

    fn wait(&self) {
        let at_least = self.returned.load(Ordering::SeqCst);
        let number = self.purges.current();
        let own_floor = self.purges.arrive(&ASKED);
        let flight = *self.flight.lock();
        let Some(Flight { content, begun, floor }) = flight else { return };
        let is_served = |begun| self.purges.serves(&ANSWERED, begun, Some((number, &*ASKED)));
        if own_floor == floor && begun.is_none_or(is_served) {
            assert!(content >= at_least, "{content} from a fetch, {at_least} purged");
        }
        let Some(begun) = begun else { return };
        // A caller without a known arrival.
        let at_least = self.returned.load(Ordering::SeqCst);
        if self.purges.serves(&ANSWERED, begun, None) {
            assert!(content >= at_least, "{content} from a fetch, {at_least} purged");
        }
    }

    fn sweep(&self) {
        let until = self.purges.latest();
        let entry = self.stored.lock().clone();
        if let Some(entry) = entry
            && !self.admits(&entry)
        {
            let mut stored = self.stored.lock();
            if stored.as_ref().is_some_and(|stored| Arc::ptr_eq(stored, &entry)) {
                *stored = None;
            }
        }
        while self.purges.forget(until, 1) {}
    }
}

/// Runs these at the same time, in many orders.
fn explore(max_records: usize, threads: Vec<fn(&World)>) {
    explore_from(|_| {}, max_records, threads);
}

/// The same, once this was done.
fn explore_from(begin: fn(&World), max_records: usize, threads: Vec<fn(&World)>) {
    const ORDERS: usize = 1_000;
    let run = move || {
        let world = Arc::new(World::new(max_records));
        begin(&world);
        world.fetch();
        let threads: Vec<_> = threads
            .iter()
            .map(|thread| {
                let (world, thread) = (Arc::clone(&world), *thread);
                shuttle::thread::spawn(move || thread(&world))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        world.look();
        world.wait();
    };
    shuttle::check_random(run.clone(), ORDERS);
    shuttle::check_pct(run, ORDERS, 3);
}

fn looks(world: &World) {
    for _ in 0..3 {
        world.look();
    }
}

fn waits(world: &World) {
    for _ in 0..3 {
        world.wait();
    }
}

fn fetches(world: &World) {
    world.fetch();
    world.fetch();
}

fn sweeps(world: &World) {
    world.sweep();
    world.sweep();
}

fn posts(world: &World) {
    world.post();
    world.post();
}

const KINDS: [fn(&World); 5] = [
    posts,
    |world| world.edit(PurgeKind::Tag(TAG)),
    |world| world.edit(PurgeKind::Floor(FLOOR)),
    |world| world.edit(PurgeKind::KeyPrefix(b"ke")),
    |world| world.edit(PurgeKind::Tag(TagHash::EVERYTHING)),
];

/// As [`KINDS`], of purges that leave things unproven.
const DOUBTS: [fn(&World); 4] = [
    |world| world.doubt(PurgeKind::Tag(TAG)),
    |world| world.doubt(PurgeKind::Floor(FLOOR)),
    |world| world.doubt(PurgeKind::KeyPrefix(b"ke")),
    |world| world.doubt(PurgeKind::Tag(TagHash::EVERYTHING)),
];

/// No reader gets as proven what may be older than a purge of this kind.
#[test]
fn what_began_before_is_unproven_after() {
    for kind in DOUBTS {
        explore(8, vec![kind, fetches, looks]);
        explore(8, vec![kind, World::confirm, looks]);
        explore(8, vec![kind, fetches, waits]);
        explore(8, vec![kind, sweeps, fetches, looks]);
        explore(1, vec![kind, KINDS[1], World::confirm, looks]);
    }
}

/// Where others purge too, each use asks.
#[test]
fn what_is_asked_about_at_each_use_is_admitted_no_longer() {
    let asks: fn(&World) = |world| world.purges.always_ask();
    for kind in KINDS {
        explore_from(asks, 8, vec![kind, World::confirm, looks]);
    }
    explore_from(asks, 8, vec![KINDS[1], sweeps, fetches, looks]);
    explore_from(asks, 1, vec![KINDS[1], KINDS[3], looks]);
    explore_from(asks, 8, vec![DOUBTS[0], World::confirm, looks]);
}

#[test]
fn a_purge_beats_a_fetch() {
    for kind in KINDS {
        explore(8, vec![kind, fetches, looks]);
    }
}

#[test]
fn a_purge_beats_a_confirmation() {
    for kind in KINDS {
        explore(8, vec![kind, World::confirm, looks]);
    }
}

#[test]
fn a_request_after_a_purge_does_not_share_an_older_fetch() {
    for kind in KINDS {
        explore(8, vec![kind, fetches, waits]);
    }
}

/// The second of two unsafe requests finds only responses that began after the first.
#[test]
fn a_request_after_an_unsafe_request_gets_nothing_older() {
    let shares: fn(&World) = |world| {
        world.fetch_unnumbered();
        world.fetch_unnumbered();
    };
    explore(8, vec![posts, World::fetch, World::fetch, looks]);
    explore(8, vec![posts, World::post, fetches, waits]);
    explore(8, vec![posts, shares, waits]);
    explore(8, vec![posts, KINDS[2], fetches, looks]);
    explore(8, vec![posts, World::fetch, World::confirm, looks]);
}

#[test]
fn purges_at_the_same_time_are_all_seen() {
    let both: [fn(&World); 2] = [KINDS[1], KINDS[3]];
    explore(8, vec![both[0], both[1], looks]);
    explore(8, vec![both[0], |world| _ = world.purges.purge(PurgeKind::Tag(OTHER), Effect::Gone), looks]);
    explore(8, vec![both[0], both[0], fetches, waits]);
}

#[test]
fn a_purge_counts_after_its_record_is_dropped() {
    let others: fn(&World) = |world| {
        world.purges.purge(PurgeKind::Tag(OTHER), Effect::Gone);
        world.purges.purge(PurgeKind::Tag(TagHash::new(10)), Effect::Gone);
    };
    explore(1, vec![KINDS[1], others, fetches, looks]);
    explore(1, vec![KINDS[1], others, World::confirm, waits]);
}

#[test]
fn a_sweep_drops_no_record_that_is_needed() {
    explore(8, vec![KINDS[1], sweeps, fetches, looks]);
    explore(8, vec![KINDS[1], sweeps, World::confirm, waits]);
    explore(8, vec![KINDS[3], sweeps, fetches, looks]);
}
