//! The order in which attempts wait for a permit.
//!
//! Attempts are of two kinds. One that several callers share, such as the fetch behind a key, is the only way to
//! a response for all of them, and is bounded by the number of keys. One with a single caller is bounded by
//! nothing. If either kind always went first, the other would starve in an overload, so each has something of
//! its own: a quarter of the places and every fourth grant are for shared attempts, the rest goes by class.
//!
//! * **Which goes next**: the best class. In it the kind whose oldest has waited longer. Shared attempts in the
//!   order in which they came; single callers too, until the oldest has waited for [`LONG_WAIT`]. From then on
//!   the newest goes first: the oldest will have gone before its response is there.
//! * **Which is dropped** where all places are taken: the newest of the lowest class, which may be the one that
//!   comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

/// The class of an attempt, from 0, the best, to this one.
pub(super) const LOWEST_CLASS: u8 = 7;
/// Once the oldest single caller of a class has waited for this long, the newest goes first.
const LONG_WAIT: Duration = Duration::from_millis(100);
/// One in so many places, and grants, is for shared attempts.
const SHARED_PART: usize = 4;

const CLASSES: usize = LOWEST_CLASS as usize + 1;

/// An attempt that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    /// 0 is the best; what is above [`LOWEST_CLASS`] counts as that.
    pub(super) class: u8,
    /// Whether several callers may wait for it.
    pub(super) is_shared: bool,
    /// Whether its callers have something stale.
    pub(super) has_stale: bool,
    /// When it came.
    pub(super) arrived: Instant,
}

/// One attempt in one queue. A later one is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(u64);

/// What became of an attempt that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed<T> {
    /// It waits.
    Placed(Id),
    /// It waits, in the place of this one.
    Displacing(Id, T),
    /// There is no place for it.
    Full(T),
}

/// Attempts that wait, each with a `T`.
#[derive(Debug)]
pub(super) struct Queue<T> {
    places: usize,
    waiters: BTreeMap<Id, (Waiter, T)>,
    classes: [Class; CLASSES],
    shared: usize,
    next_id: u64,
    /// How many single callers went first, one after the other, while a shared attempt waited.
    passed_over: usize,
}

/// The attempts of one class. All of a lane are alike, but for their age.
#[derive(Debug, Default)]
struct Class {
    lanes: [BTreeSet<Id>; 4],
}

/// The next of a class, by kind.
#[derive(Clone, Copy, Default)]
struct Heads {
    oldest_shared: Option<Id>,
    oldest_single: Option<Id>,
    newest_single: Option<Id>,
}

impl Waiter {
    fn class(&self) -> usize {
        usize::from(self.class.min(LOWEST_CLASS))
    }

    fn lane(&self) -> usize {
        usize::from(self.is_shared) | (usize::from(self.has_stale) << 1)
    }
}

impl Class {
    fn is_empty(&self) -> bool {
        self.lanes.iter().all(BTreeSet::is_empty)
    }

    fn shared(&self) -> impl Iterator<Item = &BTreeSet<Id>> {
        [&self.lanes[1], &self.lanes[3]].into_iter()
    }

    fn single(&self) -> impl Iterator<Item = &BTreeSet<Id>> {
        [&self.lanes[0], &self.lanes[2]].into_iter()
    }

    /// The newest of those that may be dropped.
    fn newest(&self, may_drop_shared: bool) -> Option<Id> {
        let shared = self.shared().filter_map(BTreeSet::last).filter(|_| may_drop_shared);
        self.single().filter_map(BTreeSet::last).chain(shared).max().copied()
    }
}

impl<T> Queue<T> {
    /// A queue with so many places. It has memory for as many as wait.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places,
            waiters: BTreeMap::new(),
            classes: Default::default(),
            shared: 0,
            next_id: 0,
            passed_over: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Lets an attempt wait, which has come after all others.
    pub(super) fn push(&mut self, waiter: Waiter, item: T) -> Pushed<T> {
        if self.len() < self.places {
            return Pushed::Placed(self.place(waiter, item));
        }
        match self.victim(&waiter).and_then(|id| self.take(id)) {
            Some((_, dropped)) => Pushed::Displacing(self.place(waiter, item), dropped),
            None => Pushed::Full(item),
        }
    }

    /// Takes the attempt that goes next, if there is one that may.
    ///
    /// `is_allowed` must not depend on more than class, kind, and whether there is something stale: it is asked
    /// for one of those that are alike. One that is not allowed holds up no other.
    pub(super) fn pop(&mut self, now: Instant, is_allowed: impl Fn(&Waiter) -> bool) -> Option<(Waiter, T)> {
        let is_turn_of_shared = self.passed_over + 1 >= SHARED_PART;
        let mut next = None;
        for class in self.classes.iter().filter(|class| !class.is_empty()) {
            let heads = self.heads(class, &is_allowed);
            if is_turn_of_shared && heads.oldest_shared.is_some() {
                next = heads.oldest_shared;
                break;
            }
            next = next.or_else(|| self.next_of(heads, now));
            if next.is_some() && !is_turn_of_shared {
                break;
            }
        }
        let (waiter, item) = self.take(next?)?;
        self.passed_over = match waiter.is_shared || self.shared == 0 {
            true => 0,
            false => self.passed_over.saturating_add(1),
        };
        Some((waiter, item))
    }

    /// Takes out an attempt that no longer waits.
    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        self.take(id).map(|(_, item)| item)
    }

    /// Takes out all attempts of which this is true, in the order in which they came.
    pub(super) fn remove_where(&mut self, is_removed: impl Fn(&Waiter, &T) -> bool) -> Vec<T> {
        let waiting = self.waiters.iter().filter(|(_, (waiter, item))| is_removed(waiter, item));
        let ids: Vec<_> = waiting.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Gives an attempt a better class. It keeps its age. A lower class changes nothing.
    pub(super) fn promote(&mut self, id: Id, class: u8) {
        let Some((waiter, _)) = self.waiters.get_mut(&id) else { return };
        if class >= waiter.class {
            return;
        }
        let (lane, before) = (waiter.lane(), waiter.class());
        waiter.class = class;
        let now = waiter.class();
        self.classes[before].lanes[lane].remove(&id);
        self.classes[now].lanes[lane].insert(id);
    }

    fn place(&mut self, waiter: Waiter, item: T) -> Id {
        let id = Id(self.next_id);
        self.next_id = self.next_id.saturating_add(1);
        self.classes[waiter.class()].lanes[waiter.lane()].insert(id);
        self.shared += usize::from(waiter.is_shared);
        self.waiters.insert(id, (waiter, item));
        id
    }

    fn take(&mut self, id: Id) -> Option<(Waiter, T)> {
        let (waiter, item) = self.waiters.remove(&id)?;
        self.classes[waiter.class()].lanes[waiter.lane()].remove(&id);
        self.shared -= usize::from(waiter.is_shared);
        Some((waiter, item))
    }

    /// The one that gives up its place to one that comes.
    fn victim(&self, newcomer: &Waiter) -> Option<Id> {
        let reserve = self.places / SHARED_PART;
        let claims_reserve = newcomer.is_shared && self.shared < reserve;
        let may_drop_shared = !claims_reserve && (newcomer.is_shared || self.shared > reserve);
        let lowest = self.classes.iter().enumerate().rev();
        let (class, id) =
            lowest.filter_map(|(class, waiting)| Some((class, waiting.newest(may_drop_shared)?))).next()?;
        (claims_reserve || class > newcomer.class()).then_some(id)
    }

    fn heads(&self, class: &Class, is_allowed: impl Fn(&Waiter) -> bool) -> Heads {
        let is_allowed = |lane: &&BTreeSet<Id>| {
            let oldest = lane.first().and_then(|id| self.waiters.get(id));
            oldest.is_some_and(|(waiter, _)| is_allowed(waiter))
        };
        Heads {
            oldest_shared: class.shared().filter(is_allowed).filter_map(BTreeSet::first).min().copied(),
            oldest_single: class.single().filter(is_allowed).filter_map(BTreeSet::first).min().copied(),
            newest_single: class.single().filter(is_allowed).filter_map(BTreeSet::last).max().copied(),
        }
    }

    fn next_of(&self, heads: Heads, now: Instant) -> Option<Id> {
        let Some(oldest) = heads.oldest_single else { return heads.oldest_shared };
        if let Some(shared) = heads.oldest_shared
            && shared < oldest
        {
            return Some(shared);
        }
        let (waiter, _) = self.waiters.get(&oldest)?;
        let is_long = now.saturating_duration_since(waiter.arrived) >= LONG_WAIT;
        if is_long { heads.newest_single } else { Some(oldest) }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
