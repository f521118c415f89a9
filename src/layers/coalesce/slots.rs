//! The fetches under way.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use http::{HeaderValue, Method, Response, header, request::Parts};
use http_body::Body as HttpBody;
use quick_cache::DefaultHashBuilder;
use tokio::time::Instant;

use super::{
    budget::Budget,
    flight::{Flight, Head, Outcome, Room, Subscriber, Subscription},
    layer::{CoalesceLayer, Settings},
};
use crate::{
    body::BodyError,
    exchange::{CacheRequest, Verdict},
    http::{
        credentials::Credentials,
        fields::{content_of, first_line},
        storing::is_error,
        vary::Selection,
    },
    key::CacheKey,
};

/// Callers of one slot want the same answer, as far as can be told before it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlightKey {
    pub(super) key: CacheKey,
    pub(super) is_head: bool,
    pub(super) is_forced: bool,
    pub(super) party: CredentialClass,
    /// Set once the selecting fields are known.
    pub(super) selection: Option<Selection>,
    /// Where only a part of the answer is asked for.
    pub(super) range: Option<Box<HeaderValue>>,
    /// What began below was invalidated before the callers came.
    pub(super) floor: u64,
    /// 0, or 1 after a fetch that failed, or that brought nothing for these callers. More after errors
    /// that are each for one client.
    pub(super) round: u8,
    /// Which part of the callers ask together, where they do not all.
    pub(super) lane: u16,
}

/// Most slots under way differ in their keys. Those of one key are told apart by what clients can make
/// many of, and the rest when they are compared.
impl Hash for FlightKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        state.write_u64(self.floor);
        if self.selection.is_some() || self.range.is_some() {
            (&self.selection, &self.range).hash(state);
        }
        if self.lane > 0 {
            state.write_u16(self.lane);
        }
    }
}

/// Whose fetches may be shared at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialClass {
    /// Cookies matter only where an answer says so, or rather does not say that they do not.
    WithOrWithoutCookie { authorization: bool },
    /// After an answer that turned out to be for others.
    Only(Credentials),
}

impl FlightKey {
    /// Of a request, before anything is known of the answer.
    pub(super) fn new(asked: &CacheRequest, head: &Parts) -> Self {
        let range = first_line(&head.headers, &header::RANGE).map(|(line, _)| line);
        Self {
            key: asked.key.clone(),
            is_head: head.method == Method::HEAD,
            is_forced: asked.is_forced,
            party: CredentialClass::WithOrWithoutCookie { authorization: asked.credentials.authorization },
            selection: asked.selection.clone(),
            range: range.cloned().map(Box::new),
            floor: asked.arrival.as_ref().map_or(0, |arrival| arrival.floor),
            round: 0,
            lane: 0,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: DashMap<FlightKey, Arc<Flight>, DefaultHashBuilder>,
    /// Places taken, those included of fetches whose slot another fetch has.
    under_way: AtomicUsize,
    /// Those of them that are forced, which others like to join.
    forced: AtomicUsize,
    /// Fetches that have begun, which numbers them.
    begun: AtomicU64,
    pub(super) budget: Arc<Budget>,
}

pub(super) enum Joined {
    Follow(Subscriber),
    /// The flight is new, and needs its [`FlightGuard`] at once.
    Lead(Subscriber, FlightGuard),
    /// Too many callers of this fetch.
    Full,
    /// Too many fetches under way.
    Alone,
}

/// Joins the fetch in this slot, or begins one there, for a caller with these credentials.
///
/// `wants_newer`: only a response will do that was fetched after the caller came.
pub(super) fn join(
    layer: &Arc<CoalesceLayer>,
    slot: &FlightKey,
    credentials: Credentials,
    wants_newer: bool,
) -> Joined {
    let CoalesceLayer { slots, settings } = &**layer;
    let entry = slots.flights.entry(slot.clone());
    if let Entry::Occupied(entry) = &entry
        && takes_newcomers(entry.get(), settings, wants_newer)
    {
        match entry.get().subscribe(settings.max_callers()) {
            Subscription::Aboard(caller) => return Joined::Follow(caller),
            Subscription::Full => return Joined::Full,
            Subscription::Closed => {}
        }
    }
    let Some(place) = Place::take(layer, slot.is_forced) else { return Joined::Alone };
    let caller = Flight::begin(slots.room(settings), slots.next(), credentials);
    let flight = Arc::clone(caller.flight());
    // A flight that was there stays with its callers; its seat will find it gone.
    let replaced = match entry {
        Entry::Occupied(mut entry) => Some(entry.insert(Arc::clone(&flight))),
        Entry::Vacant(entry) => {
            entry.insert(Arc::clone(&flight));
            None
        }
    };
    let behind = replaced.filter(|replaced| replaced.outcome().is_none());
    Joined::Lead(caller, FlightGuard::new(place, slot, flight, behind))
}

/// Begins a fetch beside one that is slow, for a caller of that one. `None`: too many are under way.
pub(super) fn join_beside(
    layer: &Arc<CoalesceLayer>,
    slot: &FlightKey,
    credentials: Credentials,
    slow: &Arc<Flight>,
) -> Option<(Subscriber, FlightGuard)> {
    let place = Place::take(layer, slot.is_forced)?;
    let caller = Flight::begin(layer.slots.room(&layer.settings), layer.slots.next(), credentials);
    let (flight, behind) = (Arc::clone(caller.flight()), Some(Arc::clone(slow)));
    Some((caller, FlightGuard::new(place, slot, flight, behind)))
}

impl Flights {
    fn room(&self, settings: &Settings) -> Room {
        let budget = Arc::clone(&self.budget);
        Room { max_held: settings.max_held_bytes, max_total: settings.max_total_bytes, budget }
    }

    /// The number of the fetch that begins now.
    fn next(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// The number of the fetch that began last.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether any forced fetch is under way: the cheap half of [`takes`](Self::takes).
    pub(super) fn have_forced(&self) -> bool {
        self.forced.load(Ordering::Relaxed) > 0
    }

    /// Whether a fetch is under way in this slot that takes on a caller who wants nothing newer.
    pub(super) fn takes(&self, slot: &FlightKey, settings: &Settings) -> bool {
        let is_open = |flight: &Flight| takes_newcomers(flight, settings, false) && !flight.is_closed();
        self.flights.get(slot).is_some_and(|flight| is_open(&flight))
    }

    /// Takes the slot from a flight that has no head yet, and returns it. The response of `flight`, which
    /// has one, is the slot's from then on if it is for all.
    fn take_over(&self, slot: &FlightKey, flight: &Arc<Flight>, is_for_all: bool) -> Option<Arc<Flight>> {
        let is_other = |other: &Arc<Flight>| !Arc::ptr_eq(other, flight) && other.outcome().is_none();
        match is_for_all {
            true => {
                let mut held = self.flights.get_mut(slot).filter(|held| is_other(held))?;
                Some(std::mem::replace(&mut *held, Arc::clone(flight)))
            }
            false => self.flights.remove_if(slot, |_, held| is_other(held)).map(|(_, other)| other),
        }
    }
}

/// A newcomer may wait for a head that is not overdue, and share one that is still fresh.
fn takes_newcomers(flight: &Flight, settings: &Settings, wants_newer: bool) -> bool {
    match flight.outcome() {
        None => flight.started_at.elapsed() < settings.max_flight_age,
        // Who wants something newer than what there is cannot be given what came in before.
        Some(Outcome::Head(head)) if !wants_newer => {
            matches!(head.verdict, Verdict::Shareable { fresh_until, .. } if Instant::now() < fresh_until)
        }
        Some(_) => false,
    }
}

/// One of the fetches that may be under way at a time.
#[derive(Debug)]
struct Place {
    layer: Arc<CoalesceLayer>,
    is_forced: bool,
    is_held: AtomicBool,
}

impl Place {
    /// Counted before the fetch is visible to others, so that the bound holds however many begin at
    /// once.
    fn take(layer: &Arc<CoalesceLayer>, is_forced: bool) -> Option<Self> {
        let CoalesceLayer { slots, settings } = &**layer;
        let one_more = |count| (count < settings.max_flights).then_some(count + 1);
        slots.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        if is_forced {
            slots.forced.fetch_add(1, Ordering::Relaxed);
        }
        Some(Self { layer: Arc::clone(layer), is_forced, is_held: AtomicBool::new(true) })
    }

    fn release(&self) {
        if self.is_held.swap(false, Ordering::Relaxed) {
            let slots = &self.layer.slots;
            if self.is_forced {
                slots.forced.fetch_sub(1, Ordering::Relaxed);
            }
            slots.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release();
    }
}

/// The fetch's hold on its slot. Dropped with the task that drives the fetch, however it ends.
#[derive(Debug)]
pub(super) struct FlightGuard {
    place: Place,
    slot: FlightKey,
    flight: Arc<Flight>,
    /// An older fetch for the same, whose callers may get the response of this one.
    behind: Option<Arc<Flight>>,
    /// Callers of other fetches are on their way to this one.
    has_relayed: AtomicBool,
}

impl FlightGuard {
    fn new(place: Place, slot: &FlightKey, flight: Arc<Flight>, behind: Option<Arc<Flight>>) -> Self {
        Self { place, slot: slot.clone(), flight, behind, has_relayed: AtomicBool::new(false) }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.place.layer.settings
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

    /// Takes no caller on any more. A newer flight in the same slot is left alone.
    pub(super) fn close(&self) {
        let flights = &self.place.layer.slots.flights;
        let removed = flights.remove_if(&self.slot, |_, flight| Arc::ptr_eq(flight, &self.flight));
        drop(removed);
    }

    /// Closes a fetch that takes long, and lets another one have its place. Its callers keep it.
    pub(super) fn release(&self) {
        self.close();
        self.place.release();
    }

    /// Tells all callers of the head, and those of other fetches for the same that are not so far.
    pub(super) fn settle(&self, head: Head) {
        let is_for_all = matches!(head.verdict, Verdict::Shareable { .. });
        // An error may be the fault of the one request that was sent.
        let is_for_one = matches!(head.verdict, Verdict::Unshareable(_)) && !is_error(head.status);
        // What a layer below refused says nothing about the fetches of others.
        let has_failed = matches!(head.verdict, Verdict::Failed { .. }) && head.refused.is_none();
        self.flight.settle(Outcome::Head(Box::new(head)));
        if has_failed {
            return self.tell_of_failure();
        }
        let has_slot = self.behind.is_none() && self.place.is_held.load(Ordering::Relaxed);
        if has_slot || !(is_for_all || is_for_one) {
            return;
        }
        let current = self.place.layer.slots.take_over(&self.slot, &self.flight, is_for_all);
        for waiting in [&current, &self.behind].into_iter().flatten() {
            self.relay_to(waiting);
        }
    }

    /// Tells all callers that there will be no head.
    pub(super) fn fail(&self, outcome: Outcome) {
        self.flight.settle(outcome);
        self.tell_of_failure();
    }

    /// Sends the callers of an older fetch here, which still has no head, once two fetches beside it have
    /// failed: what is no fault of one request is not tried by all of them. One that was given up has
    /// not failed.
    fn tell_of_failure(&self) {
        if let Some(behind) = &self.behind
            && self.flight.unread_since().is_none()
            && behind.outcome().is_none()
            && behind.note_failure_beside()
        {
            self.relay_to(behind);
        }
    }

    fn relay_to(&self, waiting: &Flight) {
        waiting.relay(&self.flight);
        self.has_relayed.store(true, Ordering::Relaxed);
    }
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        self.close();
        if self.flight.outcome().is_none() {
            self.fail(Outcome::Aborted);
        }
        self.flight.end(Err(BodyError::Cancelled));
        if !self.has_relayed.load(Ordering::Relaxed) {
            self.flight.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn what_clients_can_make_many_of_is_in_the_hash() {
        let slot = FlightKey {
            key: CacheKey::new("key"),
            is_head: false,
            is_forced: false,
            party: CredentialClass::WithOrWithoutCookie { authorization: false },
            selection: None,
            range: None,
            floor: 0,
            round: 0,
            lane: 0,
        };
        let hasher = DefaultHashBuilder::default();
        let range = |value| Some(Box::new(HeaderValue::from_static(value)));
        let hashes = [
            FlightKey { floor: 1, ..slot.clone() },
            FlightKey { range: range("bytes=0-1"), ..slot.clone() },
            FlightKey { range: range("bytes=0-2"), ..slot.clone() },
            FlightKey { lane: 1, ..slot.clone() },
            slot,
        ]
        .map(|slot| hasher.hash_one(slot));
        let unique: std::collections::HashSet<_> = hashes.into_iter().collect();
        assert_eq!(unique.len(), hashes.len());
    }
}
