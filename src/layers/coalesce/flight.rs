//! One fetch, many readers. Knows no Tower.
//!
//! A task of its own drives the fetch and appends what comes in to a log; callers wait for the
//! head and then read the log, each at its own pace. As long as the body is within the limit
//! the log is kept from its first chunk on, so that a caller can join at any time. A body that
//! turns out larger closes the flight to newcomers, and the log becomes a window round the
//! fastest reader: the fetch waits for it, and a reader that falls too far behind gets an error.
//! What all logs hold together is bounded by a [`Budget`].

use std::{
    any::Any,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version};
use parking_lot::Mutex;
use tokio::{
    sync::{
        Notify,
        futures::{Notified, OwnedNotified},
    },
    time::Instant,
};

use super::{
    budget::Budget,
    log::{Bounds, Chunk, Dropped, Log, Pace, Spare},
};
use crate::{
    body::BodyError,
    exchange::status::CacheStatus,
    exchange::{Refused, Verdict},
    http::{credentials::Credentials, freshness::after},
};

/// So long a fetch waits for readers that would lose their place: they may not have had a turn yet.
const TURN: Duration = Duration::from_millis(100);

/// After so long a fetch that is ahead of its readers looks whether there is more room by now.
const LOOK: Duration = Duration::from_secs(1);

/// What became of the fetch, apart from the body.
#[derive(Debug)]
pub(super) enum Outcome {
    Head(Box<Head>),
    /// The service's own error, of whatever type it is.
    Error(Arc<dyn Any + Send + Sync>),
    /// The fetch panicked or was dropped.
    Aborted,
}

/// The head of an answer, as all callers get it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) verdict: Verdict,
    /// How it came about, if the fields do not say it, or not any more.
    pub(super) came_about: Option<CacheStatus>,
    /// The size of the body, if the head told it.
    pub(super) size: Option<u64>,
    /// Set if a layer below did not let the request through: no fault of the request.
    pub(super) refused: Option<Refused>,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) started_at: Instant,
    /// In the order in which the fetches of a layer begin.
    number: u64,
    /// Of the request that was sent.
    asker: Credentials,
    outcome: OnceLock<Outcome>,
    log: Mutex<Log>,
    /// Set with the end in the log, so that a second end need not look there.
    has_ended: AtomicBool,
    /// A reader has moved on, or the last caller has left.
    moved: Notify,
    room: Room,
    /// How many callers have been told when to ask beside this fetch.
    turns: AtomicU32,
    /// How many callers have been sent apart by its response.
    parted: AtomicU32,
    /// How many fetches beside this one have failed.
    failed_beside: AtomicU32,
}

/// What a flight may hold, alone and with all others.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) max_held: usize,
    pub(super) max_total: u64,
    pub(super) budget: Arc<Budget>,
}

/// What a reader finds at its place in the log.
pub(super) enum Found {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing yet.
    Pending,
    End,
    Failed(BodyError),
}

/// Whether a newcomer got on.
pub(super) enum Subscription {
    Aboard(Subscriber),
    Full,
    Closed,
}

impl Flight {
    pub(super) fn new(room: Room) -> Self {
        Self {
            started_at: Instant::now(),
            number: 0,
            asker: Credentials::default(),
            outcome: OnceLock::new(),
            log: Mutex::default(),
            has_ended: AtomicBool::new(false),
            moved: Notify::new(),
            room,
            turns: AtomicU32::new(0),
            parted: AtomicU32::new(0),
            failed_beside: AtomicU32::new(0),
        }
    }

    /// A new one, with its first caller aboard.
    pub(super) fn begin(room: Room, number: u64, asker: Credentials) -> Subscriber {
        let mut flight = Self::new(room);
        (flight.number, flight.asker) = (number, asker);
        flight.log.get_mut().subscribe();
        Subscriber { flight: Arc::new(flight), place: 0 }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The credentials of the request that was sent.
    pub(super) fn asker(&self) -> Credentials {
        self.asker
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Whether there is nothing to be read for any caller but the first, be it a response or not.
    pub(super) fn has_no_body(&self) -> bool {
        match self.outcome() {
            Some(Outcome::Head(head)) => matches!(head.verdict, Verdict::Unshareable(_)),
            Some(Outcome::Error(_) | Outcome::Aborted) => true,
            None => false,
        }
    }

    /// Waits until a head is known, or that there will be none: of this fetch, or of another one for
    /// the same. Returns the flight that has it.
    pub(super) async fn heard(self: &Arc<Self>) -> Arc<Self> {
        loop {
            // Registered before looking, so that no change in between is missed.
            let (changed, relayed) = {
                let mut log = self.log.lock();
                (Arc::clone(log.changed.get_or_insert_default()).notified_owned(), log.relayed.clone())
            };
            if self.outcome.get().is_some() {
                return Arc::clone(self);
            }
            match relayed {
                Some(other) => return other,
                None => changed.await,
            }
        }
    }

    /// Sends those who wait for this flight's head to another flight, which has one.
    pub(super) fn relay(&self, other: &Arc<Self>) {
        let (changed, replaced) = {
            let mut log = self.log.lock();
            (log.changed.clone(), log.relayed.replace(Arc::clone(other)))
        };
        drop(replaced);
        wake(changed);
    }

    /// Forgets a flight that takes no callers any more.
    pub(super) fn forget_relayed(&self, other: &Arc<Self>) {
        let forgotten = self.log.lock().relayed.take_if(|relayed| Arc::ptr_eq(relayed, other));
        drop(forgotten);
    }

    /// When one more caller may ask beside this fetch, whose head is `max_wait` late by then: one caller
    /// at first, and twice as many each second.
    pub(super) fn next_turn(&self, max_wait: Duration) -> Instant {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let rounds = turn.checked_ilog2().unwrap_or_default();
        after(after(self.started_at, max_wait), Duration::from_secs(rounds.into()))
    }

    /// Which of so many parts of its callers the next one belongs to.
    pub(super) fn next_part(&self, parts: u16) -> u16 {
        let parted = self.parted.fetch_add(1, Ordering::Relaxed) % u32::from(parts.max(1));
        u16::try_from(parted).unwrap_or_default()
    }

    /// Notes that a fetch beside this one has failed. Whether another one did before.
    pub(super) fn note_failure_beside(&self) -> bool {
        self.failed_beside.fetch_add(1, Ordering::Relaxed) > 0
    }

    /// The first outcome stands.
    pub(super) fn settle(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            let changed = self.log.lock().changed.clone();
            wake(changed);
        }
    }

    pub(super) fn push_data(self: &Arc<Self>, data: Bytes, is_last: bool) {
        self.push(Chunk::Data(data), is_last);
    }

    pub(super) fn push_trailers(self: &Arc<Self>, trailers: HeaderMap) {
        if !trailers.is_empty() {
            self.push(Chunk::Trailers(Arc::new(trailers)), false);
        }
    }

    fn push(self: &Arc<Self>, chunk: Chunk, is_last: bool) {
        let budget = &self.room.budget;
        let mut log = self.log.lock();
        let before = if log.is_counted { log.held() } else { 0 };
        log.push(chunk);
        if is_last {
            log.end.get_or_insert(Ok(()));
            self.has_ended.store(true, Ordering::Release);
        }
        // If no caller reads it and none can subscribe any more.
        let unread = log.trim();
        let is_new = !log.is_counted && !log.is_handed_over();
        log.is_counted |= is_new;
        // Under the lock: what is read at once must not be given back before it is taken up.
        let is_over = log.is_counted && budget.replace(before, log.held(), self.room.max_total);
        let changed = log.changed.clone();
        drop(log);
        drop(unread);
        wake(changed);
        if is_new {
            budget.enter(self);
        }
        if is_over {
            budget.make_room(self.room.max_total, self);
        }
    }

    fn release(&self, dropped: &Dropped) {
        self.room.budget.release(dropped.bytes);
    }

    /// As [`Log::spare`].
    pub(super) fn spare(&self) -> Option<Spare> {
        self.log.lock().spare()
    }

    /// As [`Log::give_way`].
    pub(super) fn give_way(&self) -> Dropped {
        let dropped = self.change(Log::give_way);
        self.moved.notify_one();
        dropped
    }

    /// Changes the log, and gives back to the budget what it does not hold any more.
    fn change(&self, change: impl FnOnce(&mut Log) -> Dropped) -> Dropped {
        let mut log = self.log.lock();
        let dropped = change(&mut log);
        let is_counted = log.is_counted;
        drop(log);
        if is_counted {
            self.release(&dropped);
        }
        dropped
    }

    /// Takes on no more callers.
    pub(super) fn close(&self) {
        self.change(Log::close);
    }

    /// The body has ended. The first end stands.
    pub(super) fn end(&self, end: Result<(), BodyError>) {
        if self.has_ended.load(Ordering::Acquire) {
            return;
        }
        let mut log = self.log.lock();
        // Who sees a body break off and asks again gets another one.
        log.is_closed |= end.is_err();
        if log.end.is_none() {
            log.end = Some(end);
            self.has_ended.store(true, Ordering::Release);
            let changed = log.changed.clone();
            drop(log);
            wake(changed);
        }
    }

    /// Lets the fetch go on when there is room. At the first call beyond the limit it is told to
    /// close the flight. Waits no longer than `max_pause` for readers that stand still.
    ///
    /// `unread`: how large a body is fetched although no caller is left.
    pub(super) async fn pace(&self, unread: u64, max_pause: Duration) -> Pace {
        let (mut pause, mut turn) = (None, None);
        loop {
            let moved = self.moved.notified();
            let allowance = self.room.budget.allowance(self.room.max_total);
            let bounds = Bounds { max_held: self.room.max_held, unread, allowance };
            let pace = self.log.lock().pace(&bounds, turn.is_some());
            let (since, limit) = match pace {
                Pace::Ahead => (&mut pause, max_pause),
                Pace::Turn => (&mut turn, TURN),
                _ => return pace,
            };
            let until = after(*since.get_or_insert_with(Instant::now), limit);
            let next_look = until.min(after(Instant::now(), LOOK));
            if tokio::time::timeout_at(next_look, moved).await.is_ok() {
                pause = None;
            } else if Instant::now() >= until {
                match pace {
                    Pace::Turn => self.change(|log| log.drop_laggards(self.room.max_held)),
                    _ => self.change(Log::end_waiting),
                };
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.log.lock().is_closed
    }

    /// Whether its last caller has left with the response of another fetch.
    pub(super) fn is_needless(&self) -> bool {
        self.log.lock().is_needless
    }

    /// Resolves when a reader has moved on or the last caller has left, since the last such time.
    pub(super) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Since when it has had no caller.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        self.log.lock().unread_since
    }

    /// Takes on no more callers if it has had none since this moment or an earlier one.
    pub(super) fn close_if_unread_since(&self, moment: Instant) -> bool {
        let mut log = self.log.lock();
        let is_unread = log.unread_since.is_some_and(|since| since <= moment);
        log.is_closed |= is_unread;
        is_unread
    }

    /// One more caller, unless there are `limit` already.
    pub(super) fn subscribe(self: &Arc<Self>, limit: usize) -> Subscription {
        let mut log = self.log.lock();
        if log.is_closed {
            return Subscription::Closed;
        }
        if log.callers >= limit {
            return Subscription::Full;
        }
        log.subscribe();
        Subscription::Aboard(Subscriber { flight: Arc::clone(self), place: 0 })
    }

    /// Resolves at the next change after this call.
    pub(super) fn next_change(&self) -> OwnedNotified {
        let changed = Arc::clone(self.log.lock().changed.get_or_insert_default());
        changed.notified_owned()
    }

    /// The body, if all of it is there in one small piece of this length, and nothing else.
    pub(super) fn whole(&self, length: u64) -> Option<Bytes> {
        self.log.lock().whole().filter(|data| data.len() as u64 == length).cloned()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let log = self.log.get_mut();
        if log.is_counted {
            let held = log.held();
            self.room.budget.leave(self, held);
        }
    }
}

/// Tells of a change those who wait for one, if there are any.
fn wake(changed: Option<Arc<Notify>>) {
    if let Some(changed) = changed {
        changed.notify_waiters();
    }
}

/// A caller's seat on a flight, and its place in the log; given up when dropped.
#[derive(Debug)]
pub(super) struct Subscriber {
    flight: Arc<Flight>,
    /// The number of the chunk that it reads next.
    place: usize,
}

impl Subscriber {
    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// The fields of the shared head. A caller that holds the flight alone needs no copy: no other one
    /// can subscribe it any more.
    pub(super) fn take_fields(&mut self) -> HeaderMap {
        let own = Arc::get_mut(&mut self.flight).and_then(|own| own.outcome.get_mut());
        if let Some(Outcome::Head(head)) = own {
            return std::mem::take(&mut head.headers);
        }
        match self.flight.outcome() {
            Some(Outcome::Head(head)) => head.headers.clone(),
            _ => HeaderMap::new(),
        }
    }

    /// Leaves with the response of another fetch. This one is not needed any more if no caller is left.
    pub(super) fn leave_for_another(self) {
        let mut log = self.flight.log.lock();
        log.is_needless = log.callers <= 1;
        drop(log);
    }

    /// The next of the log.
    pub(super) fn read(&mut self) -> Found {
        let flight = &*self.flight;
        let mut log = flight.log.lock();
        let Some((chunk, dropped)) = log.advance(self.place) else {
            return match log.end_at(self.place) {
                None => Found::Pending,
                Some(Ok(())) => Found::End,
                Some(Err(error)) => Found::Failed(error),
            };
        };
        self.place += 1;
        let (is_waited_for, is_counted) = (log.take_waiting(), log.is_counted);
        drop(log);
        if is_counted {
            flight.release(&dropped);
        }
        drop(dropped);
        if is_waited_for {
            flight.moved.notify_one();
        }
        match chunk {
            Chunk::Data(data) => Found::Data(data),
            Chunk::Trailers(trailers) => Found::Trailers(Arc::unwrap_or_clone(trailers)),
        }
    }

    /// Whether it has had everything.
    pub(super) fn is_at_end(&self) -> bool {
        self.flight.log.lock().is_end(self.place)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let (mut is_noticed, mut forgotten) = (false, None);
        let dropped = self.flight.change(|log| {
            let dropped = log.leave(self.place);
            is_noticed = log.callers == 0 || log.take_waiting();
            if log.callers == 0 {
                forgotten = log.relayed.take();
            }
            dropped
        });
        drop((dropped, forgotten));
        if is_noticed {
            self.flight.moved.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
