//! What all fetches of a layer hold together for their callers.

use std::{
    collections::{BinaryHeap, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use quick_cache::DefaultHashBuilder;

use super::{
    flight::Flight,
    log::{Dropped, Spare},
};

/// One fetch may be ahead of its fastest reader by this part of what is free: the more is held, the
/// closer every fetch keeps to its readers.
const SHARE: u64 = 4;

/// Of this part of the budget each fetch uses no more than one chunk at a time.
const RESERVE: u64 = 4;

/// Once full, this part of the budget is made free at a time, so that not each chunk looks for room.
const ROOM: u64 = 32;

#[derive(Debug, Default)]
pub(super) struct Budget {
    held: AtomicU64,
    /// Readers that lost their place for lack of room.
    lagged: AtomicU64,
    /// Whatever holds something, by its address.
    flights: Mutex<HashMap<usize, Weak<Flight>, DefaultHashBuilder>>,
    /// Held while room is made, so that several fetches do not make more than they need.
    making_room: Mutex<()>,
}

impl Budget {
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    pub(super) fn allowance(&self, limit: u64) -> u64 {
        (limit - limit / RESERVE).saturating_sub(self.held()) / SHARE
    }

    pub(super) fn enter(&self, flight: &Arc<Flight>) {
        self.flights.lock().insert(address(flight), Arc::downgrade(flight));
    }

    /// `flight` is about to be dropped.
    pub(super) fn leave(&self, flight: &Flight, held: u64) {
        self.release(held);
        let gone = self.flights.lock().remove(&address(flight));
        drop(gone);
    }

    pub(super) fn release(&self, bytes: u64) {
        if bytes > 0 {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Takes up that a log holds so much now. Returns whether that is too much for all of them.
    pub(super) fn replace(&self, before: u64, after: u64, limit: u64) -> bool {
        self.release(before.saturating_sub(after));
        let more = after.saturating_sub(before);
        self.held.fetch_add(more, Ordering::Relaxed).saturating_add(more) > limit
    }

    /// Lets what is furthest behind give way to what a fetch has brought.
    #[cold]
    pub(super) fn make_room(&self, limit: u64, pusher: &Arc<Flight>) {
        // Dropped last: no lock is held then.
        let (mut flights, mut dropped) = (Vec::new(), Vec::new());
        let making_room = self.making_room.lock();
        if self.held() <= limit {
            return;
        }
        flights.extend(self.flights.lock().values().filter_map(Weak::upgrade));
        let goal = limit - limit / ROOM;
        let spare = |at: usize| {
            let flight: &Arc<Flight> = &flights[at];
            // What has just come in is not given up for itself.
            let may_go = |spare: &Spare| !(matches!(spare, Spare::Alone(_)) && Arc::ptr_eq(flight, pusher));
            flight.spare().filter(may_go).map(|spare| (spare, at))
        };
        let mut candidates: BinaryHeap<_> = (0..flights.len()).filter_map(spare).collect();
        while self.held() > goal
            && let Some((found, at)) = candidates.pop()
        {
            // The others are taken only as far as there is no other way.
            if !matches!(found, Spare::Behind(_)) && self.held() <= limit {
                break;
            }
            let given: Dropped = flights[at].give_way();
            self.lagged.fetch_add(given.readers as u64, Ordering::Relaxed);
            dropped.push(given);
            candidates.extend(spare(at));
        }
        drop(making_room);
    }
}

fn address(flight: &Flight) -> usize {
    std::ptr::from_ref(flight).addr()
}
