//! The fetches under way.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use http::{HeaderValue, Method, Response, header, request::Parts};
use http_body::Body as HttpBody;
use quick_cache::DefaultHashBuilder;
use tokio::time::Instant;

use super::{
    budget::Budget,
    flight::{Boarding, Caller, Flight, Outcome, Room},
    layer::{CoalesceLayer, Settings},
};
use crate::{
    body::BodyError,
    exchange::{Asked, Verdict},
    http::{fields::content_of, glance::Glance, storing::Credentials, vary::Selection},
    key::CacheKey,
};

/// Callers of one slot want the same answer, as far as can be told before it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) key: CacheKey,
    pub(super) is_head: bool,
    pub(super) is_forced: bool,
    pub(super) party: Party,
    /// Set once the selecting fields are known.
    pub(super) selection: Option<Selection>,
    /// Where only a part of the answer is asked for.
    pub(super) range: Option<HeaderValue>,
    /// What began below was invalidated before the callers came.
    pub(super) floor: u64,
    /// 0, or 1 after a fetch that panicked or was dropped.
    pub(super) round: u8,
}

/// Most slots under way differ in their keys. Those of one key are told apart by what clients can make
/// many of, and the rest when they are compared.
impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        state.write_u64(self.floor);
        if self.selection.is_some() || self.range.is_some() {
            (&self.selection, &self.range).hash(state);
        }
    }
}

/// Whose fetches may be shared at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// Cookies matter only where an answer says so, or rather does not say that they do not.
    WithOrWithoutCookie { authorization: bool },
    /// After an answer that turned out to be for others.
    Only(Credentials),
}

impl Slot {
    /// Of a request, before anything is known of the answer.
    pub(super) fn new(asked: &Asked, head: &Parts) -> Self {
        let glance = Glance::of(&head.headers);
        let range = if glance.has_range { head.headers.get(header::RANGE) } else { None };
        Self {
            key: asked.key.clone(),
            is_head: head.method == Method::HEAD,
            is_forced: asked.is_forced,
            party: Party::WithOrWithoutCookie { authorization: glance.credentials.authorization },
            selection: asked.selection.clone(),
            range: range.cloned(),
            floor: asked.arrival.as_ref().map_or(0, |arrival| arrival.floor),
            round: 0,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    flights: DashMap<Slot, Arc<Flight>, DefaultHashBuilder>,
    /// Fetches under way, those included whose slot has been taken by another.
    under_way: AtomicUsize,
    /// Those of them that are forced, which others like to join.
    forced: AtomicUsize,
    pub(super) budget: Arc<Budget>,
}

pub(super) enum Joined {
    Follow(Caller),
    /// The flight is new, and needs a [`Seat`] at once.
    Lead(Caller),
    /// Too many callers of this fetch.
    Full,
    /// Too many fetches under way.
    Alone,
}

impl Slots {
    pub(super) fn join(&self, slot: Slot, settings: &Settings) -> Joined {
        let entry = self.flights.entry(slot);
        if let Entry::Occupied(entry) = &entry
            && takes_newcomers(entry.key(), entry.get(), settings)
        {
            match entry.get().board(settings.max_waiters.saturating_add(1)) {
                Boarding::Aboard(caller) => return Joined::Follow(caller),
                Boarding::Full => return Joined::Full,
                Boarding::Closed => {}
            }
        }
        if self.under_way.load(Ordering::Relaxed) >= settings.max_flights {
            return Joined::Alone;
        }
        let caller = Flight::begin(self.room(settings));
        let flight = Arc::clone(caller.flight());
        // A flight that was there stays with its callers; its seat will find it gone.
        let replaced = match entry {
            Entry::Occupied(mut entry) => Some(entry.insert(flight)),
            Entry::Vacant(entry) => {
                entry.insert(flight);
                None
            }
        };
        drop(replaced);
        Joined::Lead(caller)
    }

    fn room(&self, settings: &Settings) -> Room {
        let budget = Arc::clone(&self.budget);
        Room { max_held: settings.max_held_bytes, max_total: settings.max_total_bytes, budget }
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether any forced fetch is under way: the cheap half of [`has`](Self::has).
    pub(super) fn have_forced(&self) -> bool {
        self.forced.load(Ordering::Relaxed) > 0
    }

    /// Whether a fetch is under way in this slot.
    pub(super) fn has(&self, slot: &Slot) -> bool {
        self.flights.contains_key(slot)
    }
}

/// A newcomer may wait for a head that is not overdue, and share one that is still fresh.
fn takes_newcomers(slot: &Slot, flight: &Flight, settings: &Settings) -> bool {
    match flight.outcome() {
        None => flight.started_at.elapsed() < settings.max_flight_age,
        // Who wants something newer than what there is cannot be given what came in before.
        Some(Outcome::Head(head)) if !slot.is_forced => {
            matches!(head.verdict, Verdict::Shareable { fresh_until, .. } if Instant::now() < fresh_until)
        }
        Some(_) => false,
    }
}

/// The fetch's hold on its slot. Dropped with the task that drives the fetch, however it ends.
#[derive(Debug)]
pub(super) struct Seat {
    layer: Arc<CoalesceLayer>,
    slot: Slot,
    flight: Arc<Flight>,
}

impl Seat {
    /// Of a flight that was put into this slot a moment ago.
    pub(super) fn take(layer: Arc<CoalesceLayer>, slot: Slot, flight: Arc<Flight>) -> Self {
        layer.slots.under_way.fetch_add(1, Ordering::Relaxed);
        if slot.is_forced {
            layer.slots.forced.fetch_add(1, Ordering::Relaxed);
        }
        Self { layer, slot, flight }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.layer.settings
    }

    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// How large a body is fetched although no caller is left: what is being stored, or what callers
    /// who come later may share.
    pub(super) fn unread(&self) -> u64 {
        let held = self.settings().max_held_bytes as u64;
        match self.flight.outcome() {
            Some(Outcome::Head(head)) => head.verdict.stored_up_to().max(held),
            _ => held,
        }
    }

    /// How long the content of the response is, if it says so.
    pub(super) fn content<B: HttpBody>(&self, response: &Response<B>) -> Option<u64> {
        content_of(self.slot.is_head, response)
    }

    /// Takes on no more callers. A newer flight in the same slot is left alone.
    pub(super) fn close(&self) {
        let flights = &self.layer.slots.flights;
        let removed = flights.remove_if(&self.slot, |_, flight| Arc::ptr_eq(flight, &self.flight));
        drop(removed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.close();
        self.flight.settle(Outcome::Aborted);
        self.flight.end(Err(BodyError::Cancelled));
        self.flight.close();
        if self.slot.is_forced {
            self.layer.slots.forced.fetch_sub(1, Ordering::Relaxed);
        }
        self.layer.slots.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn what_clients_can_make_many_of_is_in_the_hash() {
        let slot = Slot {
            key: CacheKey::new("key"),
            is_head: false,
            is_forced: false,
            party: Party::WithOrWithoutCookie { authorization: false },
            selection: None,
            range: None,
            floor: 0,
            round: 0,
        };
        let hasher = DefaultHashBuilder::default();
        let range = |value| Some(HeaderValue::from_static(value));
        let hashes = [
            Slot { floor: 1, ..slot.clone() },
            Slot { range: range("bytes=0-1"), ..slot.clone() },
            Slot { range: range("bytes=0-2"), ..slot.clone() },
            slot,
        ]
        .map(|slot| hasher.hash_one(slot));
        let unique: std::collections::HashSet<_> = hashes.into_iter().collect();
        assert_eq!(unique.len(), hashes.len());
    }
}
