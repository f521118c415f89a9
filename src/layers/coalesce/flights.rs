//! The table of flights, and each fetch's hold on it.
//!
//! A [`FlightKey`] has at most one open flight in the table. The fetch task holds a [`FlightGuard`], which
//! takes the flight out of the table when it takes no more callers, and settles it however the task ends.
//!
//! Every flight counts against `max_flights` by a [`Permit`]. It is taken before the flight becomes
//! visible and outlives its place in the table, so the bound holds however many callers arrive at once,
//! and also while flights are replaced. Only `max_flight_age` returns a permit early.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use http::{HeaderValue, Method, header, request::Parts};
use quick_cache::DefaultHashBuilder;

use super::{budget::Budget, flight, settings::CoalesceSettings};
use crate::{
    body::BodyError,
    exchange::CacheRequest,
    http::{
        request_fields::{Credentials, first_line},
        storing,
        vary::Selection,
    },
    key::CacheKey,
    observe::{CoalesceStats, Stats},
    origin::Place,
};

/// Callers with equal keys want the same response, as far as can be told before it is there.
///
/// What a caller learns from a response that was not for it goes into its next key. So a key says more
/// with every move, and callers that learned the same meet again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlightKey {
    key: CacheKey,
    pub(super) is_head: bool,
    pub(super) is_forced: bool,
    credentials: CredentialClass,
    /// Set once the selecting fields are known.
    pub(super) selection: Option<Selection>,
    /// Set where only a part of the response is asked for.
    range: Option<Box<HeaderValue>>,
    /// Fetches that began below this number were invalidated before the callers arrived.
    floor: u64,
    /// How many fetches have failed these callers, or have brought nothing for them.
    pub(super) failures: u8,
    /// Which group of these callers asks together, after errors that may each be for one client.
    group: u16,
}

/// Most keys under way differ in their cache keys. Those that do not are told apart by what clients can
/// make many of; equality tells apart the rest.
impl Hash for FlightKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
        state.write_u64(self.floor);
        if self.selection.is_some() || self.range.is_some() {
            (&self.selection, &self.range).hash(state);
        }
        if self.group > 0 {
            state.write_u16(self.group);
        }
    }
}

/// Which requests may share a flight, by their credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CredentialClass {
    /// Whether a cookie prevents sharing is only known from the response, so requests with and without
    /// cookies start in one flight.
    AnyCookie { authorization: bool },
    /// Set after a response that turned out to be for others.
    Exactly(Credentials),
}

impl FlightKey {
    /// For a request, before anything is known of the response.
    pub(super) fn new(request: &CacheRequest, head: &Parts) -> Self {
        let range = first_line(&head.headers, &header::RANGE).map(|(line, _)| line);
        Self {
            key: request.key().clone(),
            is_head: head.method == Method::HEAD,
            is_forced: request.needs_newer(),
            credentials: CredentialClass::AnyCookie { authorization: request.credentials().authorization },
            selection: request.selection().cloned(),
            range: range.cloned().map(Box::new),
            floor: request.arrival().map_or(0, |arrival| arrival.floor),
            failures: 0,
            group: 0,
        }
    }

    /// Whether all callers of this key have exactly these credentials.
    pub(super) fn is_only_for(&self, credentials: Credentials) -> bool {
        self.credentials == CredentialClass::Exactly(credentials)
    }

    /// The key of those that have learned this in a flight of the present key.
    pub(super) fn with(&self, learned: Learned) -> Self {
        let mut key = self.clone();
        match learned {
            Learned::Failure => key.failures = 1,
            Learned::Error { group, groups } => {
                key.failures = key.failures.saturating_add(1);
                key.group = key.group.saturating_mul(groups).saturating_add(group);
            }
            Learned::TooOld => {}
            Learned::Floor(floor) => key.floor = key.floor.max(floor),
            Learned::OnlyFor(credentials) => key.credentials = CredentialClass::Exactly(credentials),
            Learned::Selection(selection) => key.selection = selection,
        }
        key
    }
}

/// What a caller has learned from a response that it cannot have.
pub(super) enum Learned {
    /// The fetch has failed.
    Failure,
    /// The response is an error that may be for one client. The caller belongs to this group of `groups`,
    /// into which its kind splits.
    Error { group: u16, groups: u16 },
    /// The fetch began before the caller came, which wants a newer one.
    TooOld,
    /// Fetches that began below this number are invalid.
    Floor(u64),
    /// The response is not for these credentials, which are the caller's.
    OnlyFor(Credentials),
    /// The response is another variant. The caller's has this selection.
    Selection(Option<Selection>),
}

/// The flights of a layer, and its settings. Clones with other settings share the flights.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights {
    table: Arc<Table>,
    settings: CoalesceSettings,
}

#[derive(Debug, Default)]
struct Table {
    open: DashMap<FlightKey, Arc<flight::Flight>, DefaultHashBuilder>,
    /// Permits taken.
    under_way: AtomicUsize,
    /// Those of them that are for forced fetches, which others like to join.
    forced: AtomicUsize,
    /// How many fetches have begun, which numbers them.
    begun: AtomicU64,
    budget: Arc<Budget>,
}

pub(super) enum Joined {
    Follow(flight::Subscriber),
    /// The flight is new, and needs its fetch at once.
    Lead(flight::Subscriber, FlightGuard),
    /// The flight has as many subscribers as it may have.
    Full,
    /// As many fetches are under way as may be.
    Alone,
}

impl Flights {
    pub(super) fn settings(&self) -> &CoalesceSettings {
        &self.settings
    }

    pub(super) fn settings_mut(&mut self) -> &mut CoalesceSettings {
        &mut self.settings
    }

    pub(super) fn stats(&self) -> CoalesceStats {
        self.table.stats(self.settings.max_total_bytes)
    }

    /// Lets these read the same, without the settings.
    pub(super) fn tell(&self, stats: &Stats) {
        let (table, max_total_bytes) = (Arc::clone(&self.table), self.settings.max_total_bytes);
        stats.read_coalesce(move || table.stats(max_total_bytes));
    }

    /// The number of the fetch that began last.
    pub(super) fn begun(&self) -> u64 {
        self.table.begun.load(Ordering::Acquire)
    }

    /// Joins the flight of this key, or begins one, for a caller with these credentials and of this class.
    ///
    /// `wants_newer`: only a response will do that was fetched after the caller came.
    pub(super) fn join(
        self: &Arc<Self>,
        key: &FlightKey,
        (credentials, class): (Credentials, Option<u8>),
        wants_newer: bool,
    ) -> Joined {
        let entry = self.table.open.entry(key.clone());
        if let Entry::Occupied(entry) = &entry
            && takes_newcomers(entry.get(), &self.settings, wants_newer)
        {
            match entry.get().subscribe(self.settings.max_subscribers()) {
                flight::Subscription::Subscribed(subscriber) => {
                    return Joined::Follow(subscriber.of_class(class));
                }
                flight::Subscription::Full => return Joined::Full,
                flight::Subscription::Closed => {}
            }
        }
        let Some(permit) = Permit::take(self, key.is_forced) else { return Joined::Alone };
        let leader = self.begin(credentials, class);
        let flight = Arc::clone(leader.flight());
        // A flight that was there keeps its subscribers. Its guard will find it gone.
        let replaced = match entry {
            Entry::Occupied(mut entry) => Some(entry.insert(Arc::clone(&flight))),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(&flight));
                None
            }
        };
        let slower = replaced.filter(|replaced| replaced.outcome().is_none());
        Joined::Lead(leader, FlightGuard::new(permit, key, flight, slower))
    }

    /// Begins a fetch beside a slow one, for a subscriber of that one. `None`: too many are under way.
    pub(super) fn hedge(
        self: &Arc<Self>,
        key: &FlightKey,
        (credentials, class): (Credentials, Option<u8>),
        slow: &Arc<flight::Flight>,
    ) -> Option<(flight::Subscriber, FlightGuard)> {
        let permit = Permit::take(self, key.is_forced)?;
        let leader = self.begin(credentials, class);
        let (flight, slower) = (Arc::clone(leader.flight()), Some(Arc::clone(slow)));
        Some((leader, FlightGuard::new(permit, key, flight, slower)))
    }

    fn begin(&self, credentials: Credentials, class: Option<u8>) -> flight::Subscriber {
        let (table, settings) = (&self.table, &self.settings);
        let room = flight::Room {
            max_held: settings.max_held_bytes,
            max_total: settings.max_total_bytes,
            budget: Arc::clone(&table.budget),
        };
        let number = table.begun.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        flight::Flight::begin(room, number, credentials, class.map(Place::new))
    }

    /// The key of a forced fetch for the same that is under way: what it brings will do for all others.
    pub(super) fn forced(&self, key: &FlightKey) -> Option<FlightKey> {
        if key.is_forced || self.table.forced.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let forced = FlightKey { is_forced: true, ..key.clone() };
        let is_open =
            |flight: &flight::Flight| takes_newcomers(flight, &self.settings, false) && !flight.is_closed();
        self.table.open.get(&forced).is_some_and(|flight| is_open(&flight)).then_some(forced)
    }

    /// Runs a fetch so that requests made below it are recognised by [`is_leading`](Self::is_leading).
    // Not inlined, the fetch is moved once more.
    #[inline(always)]
    pub(super) fn lead<F: Future>(
        &self,
        key: FlightKey,
        fetch: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let outer = LEADING.try_with(|outer| Arc::new(outer.clone())).ok();
        LEADING.scope(Leading { table: self.address(), key: key.key, outer }, fetch)
    }

    /// Whether this code runs as a part of a fetch of this key, for which it must not wait.
    pub(super) fn is_leading(&self, key: &CacheKey) -> bool {
        let is_led = |innermost: &Leading| {
            std::iter::successors(Some(innermost), |leading| leading.outer.as_deref())
                .any(|leading| leading.table == self.address() && leading.key == *key)
        };
        LEADING.try_with(is_led).unwrap_or(false)
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.table).addr()
    }
}

tokio::task_local! {
    /// Set while a fetch is polled, up to the first task that the service below spawns.
    static LEADING: Leading;
}

/// A fetch under way, and the fetch that made the request for it.
#[derive(Clone)]
struct Leading {
    /// The address of the table, for comparison alone.
    table: usize,
    key: CacheKey,
    outer: Option<Arc<Self>>,
}

impl Table {
    fn stats(&self, max_total_bytes: u64) -> CoalesceStats {
        CoalesceStats {
            fetches: self.under_way.load(Ordering::Relaxed),
            waiters: self.open.iter().map(|flight| flight.waiters()).sum(),
            held_bytes: self.budget.held(),
            max_total_bytes,
            lagged: self.budget.lagged(),
        }
    }

    /// Takes a flight that has no head yet out of the table, and returns it. `flight` has one: where it is
    /// for all, it takes the place of the other.
    fn supersede(
        &self,
        key: &FlightKey,
        flight: &Arc<flight::Flight>,
        is_for_all: bool,
    ) -> Option<Arc<flight::Flight>> {
        let is_slower =
            |other: &Arc<flight::Flight>| !Arc::ptr_eq(other, flight) && other.outcome().is_none();
        match is_for_all {
            true => {
                let mut open = self.open.get_mut(key).filter(|open| is_slower(open))?;
                Some(std::mem::replace(&mut *open, Arc::clone(flight)))
            }
            false => self.open.remove_if(key, |_, open| is_slower(open)).map(|(_, other)| other),
        }
    }
}

/// A newcomer may wait for a head that is not overdue, and share one that is still fresh.
fn takes_newcomers(flight: &flight::Flight, settings: &CoalesceSettings, wants_newer: bool) -> bool {
    if flight.outcome().is_none() {
        return flight.started_at().elapsed() < settings.max_flight_age;
    }
    // What came in before the caller is not newer.
    !wants_newer && flight.head().is_some_and(|head| head.shareability.is_fresh())
}

/// One of the `max_flights` fetches that may be under way.
#[derive(Debug)]
struct Permit {
    flights: Arc<Flights>,
    is_forced: bool,
    is_held: AtomicBool,
}

impl Permit {
    fn take(flights: &Arc<Flights>, is_forced: bool) -> Option<Self> {
        let Flights { table, settings } = &**flights;
        let one_more = |count| (count < settings.max_flights).then_some(count + 1);
        table.under_way.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        if is_forced {
            table.forced.fetch_add(1, Ordering::Relaxed);
        }
        Some(Self { flights: Arc::clone(flights), is_forced, is_held: AtomicBool::new(true) })
    }

    fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    fn release(&self) {
        if self.is_held.swap(false, Ordering::Relaxed) {
            let table = &self.flights.table;
            if self.is_forced {
                table.forced.fetch_sub(1, Ordering::Relaxed);
            }
            table.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release();
    }
}

/// A fetch's hold on the table. Dropped with the fetch task, however that ends.
#[derive(Debug)]
pub(super) struct FlightGuard {
    permit: Permit,
    key: FlightKey,
    flight: Arc<flight::Flight>,
    /// An older flight for the same. Its subscribers may get the response of this one.
    slower: Option<Arc<flight::Flight>>,
    /// Subscribers of other flights are on their way to this one, which has to stay open for them.
    has_redirected: AtomicBool,
}

impl FlightGuard {
    fn new(
        permit: Permit,
        key: &FlightKey,
        flight: Arc<flight::Flight>,
        slower: Option<Arc<flight::Flight>>,
    ) -> Self {
        Self { permit, key: key.clone(), flight, slower, has_redirected: AtomicBool::new(false) }
    }

    pub(super) fn settings(&self) -> &CoalesceSettings {
        &self.permit.flights.settings
    }

    pub(super) fn is_head(&self) -> bool {
        self.key.is_head
    }

    pub(super) fn flight(&self) -> &Arc<flight::Flight> {
        &self.flight
    }

    /// How large a body is fetched even if no subscriber is left: what is being stored, or what later
    /// callers may share.
    pub(super) fn max_unread(&self) -> u64 {
        let held = self.settings().max_held_bytes as u64;
        self.flight.head().map_or(held, |head| head.shareability.max_stored().max(held))
    }

    /// Takes no more callers. A newer flight with the same key is left alone.
    pub(super) fn close(&self) {
        let open = &self.permit.flights.table.open;
        let removed = open.remove_if(&self.key, |_, flight| Arc::ptr_eq(flight, &self.flight));
        drop(removed);
    }

    /// Closes a flight that takes long, and returns its permit. It keeps its subscribers.
    pub(super) fn release(&self) {
        self.close();
        self.permit.release();
    }

    /// Tells the head to all subscribers, and to those of other flights for the same that have none yet.
    pub(super) fn settle(&self, head: flight::SharedHead) {
        let is_for_all = head.shareability.is_shareable();
        let is_for_one = head.shareability.is_unshareable() && !storing::is_error(head.status);
        // What a layer below refused says nothing about the fetches of others.
        let has_failed = head.shareability.is_failed() && head.refused.is_none();
        self.flight.settle(flight::FetchOutcome::Head(Box::new(head)));
        if has_failed {
            return self.note_failure();
        }
        let is_current = self.slower.is_none() && self.permit.is_held();
        if is_current || !(is_for_all || is_for_one) {
            return;
        }
        let superseded = self.permit.flights.table.supersede(&self.key, &self.flight, is_for_all);
        for waiting in [&superseded, &self.slower].into_iter().flatten() {
            self.redirect(waiting);
        }
    }

    /// Tells all subscribers that there will be no head.
    pub(super) fn fail(&self, outcome: flight::FetchOutcome) {
        self.flight.settle(outcome);
        self.note_failure();
    }

    /// Redirects the subscribers of a slower flight here once two hedges of it have failed: then no
    /// single request is at fault, and the rest need not try. A fetch that was given up has not failed.
    fn note_failure(&self) {
        if let Some(slower) = &self.slower
            && self.flight.unread_since().is_none()
            && slower.outcome().is_none()
            && slower.note_failed_hedge()
        {
            self.redirect(slower);
        }
    }

    fn redirect(&self, waiting: &flight::Flight) {
        waiting.redirect_to(&self.flight);
        self.has_redirected.store(true, Ordering::Relaxed);
    }
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        self.close();
        if self.flight.outcome().is_none() {
            self.fail(flight::FetchOutcome::Aborted);
        }
        self.flight.end(Err(BodyError::Cancelled));
        self.flight.end_span();
        if !self.has_redirected.load(Ordering::Relaxed) {
            self.flight.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn the_hash_covers_all_that_clients_can_vary() {
        let key = FlightKey {
            key: CacheKey::new("key"),
            is_head: false,
            is_forced: false,
            credentials: CredentialClass::AnyCookie { authorization: false },
            selection: None,
            range: None,
            floor: 0,
            failures: 0,
            group: 0,
        };
        let hasher = DefaultHashBuilder::default();
        let range = |value| Some(Box::new(HeaderValue::from_static(value)));
        let hashes = [
            FlightKey { floor: 1, ..key.clone() },
            FlightKey { range: range("bytes=0-1"), ..key.clone() },
            FlightKey { range: range("bytes=0-2"), ..key.clone() },
            FlightKey { group: 1, ..key.clone() },
            key,
        ]
        .map(|key| hasher.hash_one(key));
        let unique: std::collections::HashSet<_> = hashes.into_iter().collect();
        assert_eq!(unique.len(), hashes.len());
    }

    #[test]
    fn threads_never_hold_more_permits_than_there_are() {
        const THREADS: usize = 4;
        let mut flights = Flights::default();
        flights.settings_mut().max_flights = 1;
        let (flights, start) = (Arc::new(flights), std::sync::Barrier::new(THREADS));
        let held = AtomicUsize::new(0);
        let take_often = || {
            start.wait();
            for _ in 0..20_000 {
                if let Some(_permit) = Permit::take(&flights, false) {
                    let others = held.fetch_add(1, Ordering::SeqCst);
                    // Long enough for another holder to be noticed.
                    (0..50).for_each(|_| std::hint::spin_loop());
                    held.fetch_sub(1, Ordering::SeqCst);
                    assert_eq!(others, 0);
                }
            }
        };
        std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(take_often))));
        assert_eq!(flights.stats().fetches, 0);
    }
}
