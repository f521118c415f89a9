//! One fetch, many readers. Knows no Tower.
//!
//! The fetch task appends what comes in to a [`Log`]. Subscribers wait for the outcome and then read the
//! log, each at its own pace. As long as the body is within the limit the log is kept from its first
//! chunk on, so that a caller can join at any time. A body that turns out larger closes the flight to
//! newcomers, and the log becomes a window around the fastest reader: the fetch waits for it, and a reader
//! that falls too far behind gets an error. What all logs hold together is bounded by a [`Budget`].
//!
//! # Why two cells
//!
//! The outcome is set once and read by every subscriber without a lock. The rest is behind one mutex,
//! [`State`], which is held for a few instructions at a time: no waker is called, nothing is freed and no
//! other lock is taken under it. A task that waits registers with `changed` first and looks again
//! after that, so that no change in between is missed. The first task that waits makes `changed`: most
//! flights have a single caller, which finds everything there.
//!
//! # Order of locks
//!
//! A shard of the table of flights, then the state of one flight: a caller subscribes under the shard's
//! lock, so that a flight cannot be closed and replaced in between. The budget's lock that makes room is
//! taken before states, and never under one. Dropping the last reference of a flight takes the
//! budget's list, which is why flights are never dropped under any of these locks.

use std::{
    any::Any,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::{
    sync::{
        Notify,
        futures::{Notified, OwnedNotified},
    },
    time::Instant,
};

use super::{
    budget::{Budget, Holder},
    log::{self, Log},
};
use crate::{
    body::{Body, BodyError},
    exchange::{Refused, Shareability, status::CacheStatus},
    http::{request_fields::Credentials, storing::after},
    origin::Place,
    trace::{FetchSpan, SpanOfFetch},
};

/// How long a fetch waits for readers that would lose their place: their tasks may not have been
/// scheduled yet.
const CATCH_UP: Duration = Duration::from_millis(100);

/// How often a fetch that is ahead of its readers looks whether the budget has more room by now.
const LOOK: Duration = Duration::from_secs(1);

/// What became of a fetch, apart from its body.
#[derive(Debug)]
pub(super) enum FetchOutcome {
    Head(Box<SharedHead>),
    /// The service's own error, of whatever type it is.
    Error(Arc<dyn Any + Send + Sync>),
    /// The fetch panicked or was dropped.
    Aborted,
    /// The fetch took too long, and was ended.
    TimedOut,
}

/// The head of a response, as all callers but the leader get it. Plain data.
#[derive(Debug)]
pub(super) struct SharedHead {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) shareability: Shareability,
    /// How the response came about, if its fields do not say so, or will not when some of them are gone.
    pub(super) came_about: Option<CacheStatus>,
    /// The size of the body, if it is known.
    pub(super) size: Option<u64>,
    /// Set if a layer below refused the request, which then is not at fault.
    pub(super) refused: Option<Refused>,
}

#[derive(Debug)]
pub(super) struct Flight {
    started_at: Instant,
    /// Its place in the order in which the fetches of a layer begin.
    number: u64,
    /// Of the request that was sent.
    leader: Credentials,
    /// Its place in the queue to the origin, if there is one.
    place: Option<Arc<Place>>,
    /// That of the fetch, for as long as it goes on: readers may be here long after.
    span: SpanOfFetch,
    outcome: OnceLock<FetchOutcome>,
    state: Mutex<State>,
    /// Set with the end in the log, so that a second end takes no lock.
    has_ended: AtomicBool,
    /// A reader has moved on, or the last subscriber has left. Only the fetch task waits for it.
    moved: Notify,
    room: Room,
    /// How many subscribers have been told when to hedge.
    hedges: AtomicU32,
    failed_hedges: AtomicU32,
    /// How many subscribers have been assigned to a group.
    grouped: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    /// Wakes all that wait for the outcome, or for the log to grow or end.
    changed: Option<Arc<Notify>>,
    /// The budget counts what the log holds.
    is_counted: bool,
    /// The last subscriber left with the response of another flight.
    is_superseded: bool,
    /// Another flight for the same, which got its head first.
    redirect: Option<Arc<Flight>>,
}

impl State {
    fn subscribe(&mut self) {
        self.log.subscribe();
        self.is_superseded = false;
    }

    fn next_change(&mut self) -> OwnedNotified {
        Arc::clone(self.changed.get_or_insert_default()).notified_owned()
    }
}

/// How much a flight may hold, alone and with all others. Plain data.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) max_held: usize,
    pub(super) max_total: u64,
    pub(super) budget: Arc<Budget>,
}

pub(super) enum Subscription {
    Subscribed(Subscriber),
    /// The flight has as many subscribers as it may have.
    Full,
    /// The flight takes no more subscribers.
    Closed,
}

impl Flight {
    fn new(room: Room, number: u64, leader: Credentials, place: Option<Arc<Place>>) -> Self {
        Self {
            started_at: Instant::now(),
            number,
            leader,
            place,
            span: SpanOfFetch::new(),
            outcome: OnceLock::new(),
            state: Mutex::default(),
            has_ended: AtomicBool::new(false),
            moved: Notify::new(),
            room,
            hedges: AtomicU32::new(0),
            failed_hedges: AtomicU32::new(0),
            grouped: AtomicU32::new(0),
        }
    }

    /// A new flight, with its leader subscribed.
    pub(super) fn begin(
        room: Room,
        number: u64,
        leader: Credentials,
        place: Option<Arc<Place>>,
    ) -> Subscriber {
        let mut flight = Self::new(room, number, leader, place);
        flight.state.get_mut().subscribe();
        Subscriber { flight: Arc::new(flight), index: 0 }
    }

    /// Begins the span of the fetch, for this request.
    pub(super) fn trace(&self, head: &request::Parts, shows_query: bool) -> FetchSpan {
        self.span.begin(head, shows_query)
    }

    /// Notes that another request waits for the fetch.
    pub(super) fn note_joined(&self) {
        self.span.joined();
    }

    /// The fetch is over. What is left of its span is that of its future.
    pub(super) fn end_span(&self) {
        self.span.end();
    }

    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The credentials of the request that was sent.
    pub(super) fn leader_credentials(&self) -> Credentials {
        self.leader
    }

    /// Whether the fetch waits in the queue and may leave it once it has no callers.
    pub(super) fn is_of_no_use_in_queue(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.may_leave())
    }

    /// Its place in the queue to the origin, if there is one.
    pub(super) fn place(&self) -> Option<&Arc<Place>> {
        self.place.as_ref()
    }

    pub(super) fn outcome(&self) -> Option<&FetchOutcome> {
        self.outcome.get()
    }

    /// The head of the response, if there is one.
    pub(super) fn head(&self) -> Option<&SharedHead> {
        match self.outcome()? {
            FetchOutcome::Head(head) => Some(head),
            FetchOutcome::Error(_) | FetchOutcome::Aborted | FetchOutcome::TimedOut => None,
        }
    }

    /// Sets the outcome. The first one counts.
    pub(super) fn settle(&self, outcome: FetchOutcome) {
        if self.outcome.set(outcome).is_ok() {
            let changed = self.state.lock().changed.clone();
            wake(changed);
        }
    }

    /// Waits for the outcome of this flight, or of another one for the same. Returns the flight that has
    /// it.
    pub(super) async fn settled(self: &Arc<Self>) -> Arc<Self> {
        loop {
            let (changed, redirect) = {
                let mut state = self.state.lock();
                (state.next_change(), state.redirect.clone())
            };
            if self.outcome.get().is_some() {
                return Arc::clone(self);
            }
            match redirect {
                Some(other) => return other,
                None => changed.await,
            }
        }
    }

    /// Sends all that wait for this flight's outcome to another flight, which has one.
    pub(super) fn redirect_to(&self, other: &Arc<Self>) {
        let (changed, replaced) = {
            let mut state = self.state.lock();
            (state.changed.clone(), state.redirect.replace(Arc::clone(other)))
        };
        drop(replaced);
        wake(changed);
    }

    /// Sends no more subscribers to a flight that takes none any more.
    pub(super) fn forget_redirect(&self, other: &Arc<Self>) {
        let forgotten = self.state.lock().redirect.take_if(|redirect| Arc::ptr_eq(redirect, other));
        drop(forgotten);
    }

    /// When one more subscriber may hedge this fetch: one when the head has been awaited for `max_wait`,
    /// and twice as many in each second that follows.
    pub(super) fn next_hedge_at(&self, max_wait: Duration) -> Instant {
        let hedge = self.hedges.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let seconds = hedge.checked_ilog2().unwrap_or_default();
        after(after(self.started_at, max_wait), Duration::from_secs(seconds.into()))
    }

    /// Notes that a hedge of this fetch has failed. Returns whether another one had failed before.
    pub(super) fn note_failed_hedge(&self) -> bool {
        self.failed_hedges.fetch_add(1, Ordering::Relaxed) > 0
    }

    /// Assigns subscribers to so many groups in turn.
    pub(super) fn next_group(&self, groups: u16) -> u16 {
        let group = self.grouped.fetch_add(1, Ordering::Relaxed) % u32::from(groups.max(1));
        u16::try_from(group).unwrap_or_default()
    }

    pub(super) fn push_data(self: &Arc<Self>, data: Bytes, is_last: bool) {
        self.push(log::Chunk::Data(data), is_last);
    }

    pub(super) fn push_trailers(self: &Arc<Self>, trailers: HeaderMap) {
        if !trailers.is_empty() {
            self.push(log::Chunk::Trailers(Arc::new(trailers)), false);
        }
    }

    fn push(self: &Arc<Self>, chunk: log::Chunk, is_last: bool) {
        let mut state = self.state.lock();
        let before = if state.is_counted { state.log.held() } else { 0 };
        let unread = state.log.push(chunk);
        if is_last {
            state.log.end(Ok(()));
            self.has_ended.store(true, Ordering::Release);
        }
        let is_new = !state.is_counted && !state.log.is_handed_over();
        state.is_counted |= is_new;
        // Under the lock: what a reader takes at once must be counted before it is released.
        let is_over =
            state.is_counted && self.room.budget.replace(before, state.log.held(), self.room.max_total);
        let changed = state.changed.clone();
        drop(state);
        drop(unread);
        wake(changed);
        if is_new {
            self.room.budget.enter(self);
        }
        if is_over {
            self.room.budget.make_room(self.room.max_total, self);
        }
    }

    /// Ends the body. The first end counts.
    pub(super) fn end(&self, end: Result<(), BodyError>) {
        if self.has_ended.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock();
        if state.log.end(end) {
            self.has_ended.store(true, Ordering::Release);
            let changed = state.changed.clone();
            drop(state);
            wake(changed);
        }
    }

    /// Waits until there is room for more, but no longer than `max_pause` for readers that stand still.
    /// Once the body is beyond the limit, the first call says that the flight is to be closed.
    ///
    /// `max_unread`: how large a body is fetched even if no subscriber is left.
    pub(super) async fn pace(&self, max_unread: u64, max_pause: Duration) -> log::Pace {
        let Room { max_held, max_total, budget } = &self.room;
        let (mut paused_at, mut lagging_at) = (None, None);
        loop {
            let moved = self.moved.notified();
            let bounds =
                log::Bounds { max_held: *max_held, max_unread, max_ahead: budget.max_ahead(*max_total) };
            let pace = self.state.lock().log.pace(&bounds, lagging_at.is_some());
            let (since, limit) = match pace {
                log::Pace::Ahead => (&mut paused_at, max_pause),
                log::Pace::Lagging => (&mut lagging_at, CATCH_UP),
                _ => return pace,
            };
            let until = after(*since.get_or_insert_with(Instant::now), limit);
            let next_look = until.min(after(Instant::now(), LOOK));
            if tokio::time::timeout_at(next_look, moved).await.is_ok() {
                paused_at = None;
            } else if Instant::now() >= until {
                match pace {
                    log::Pace::Lagging => self.change(|log| log.drop_laggards(*max_held)),
                    _ => self.change(Log::end_waiting),
                };
            }
        }
    }

    /// Changes the log, and releases from the budget what it does not hold any more.
    fn change(&self, change: impl FnOnce(&mut Log) -> log::Dropped) -> log::Dropped {
        let mut state = self.state.lock();
        let dropped = change(&mut state.log);
        let is_counted = state.is_counted;
        drop(state);
        if is_counted {
            self.room.budget.release(dropped.bytes);
        }
        dropped
    }

    /// Takes no more subscribers.
    pub(super) fn close(&self) {
        self.change(Log::close);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().log.is_closed()
    }

    /// Takes no more subscribers if there has been none since this moment or an earlier one. Returns
    /// whether that is so.
    pub(super) fn close_if_unread_since(&self, moment: Instant) -> bool {
        self.state.lock().log.close_if_unread_since(moment)
    }

    /// How many callers wait for the head beside the first.
    pub(super) fn waiters(&self) -> usize {
        if self.outcome.get().is_some() { 0 } else { self.state.lock().log.readers().saturating_sub(1) }
    }

    /// Since when there has been no subscriber.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        self.state.lock().log.unread_since()
    }

    /// Whether the last subscriber left with the response of another flight.
    pub(super) fn is_superseded(&self) -> bool {
        self.state.lock().is_superseded
    }

    /// Resolves once a reader has moved on or the last subscriber has left, since it last resolved.
    pub(super) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// One more subscriber, unless there are `limit` already.
    pub(super) fn subscribe(self: &Arc<Self>, limit: usize) -> Subscription {
        let mut state = self.state.lock();
        if state.log.is_closed() {
            return Subscription::Closed;
        }
        if state.log.readers() >= limit {
            return Subscription::Full;
        }
        state.subscribe();
        Subscription::Subscribed(Subscriber { flight: Arc::clone(self), index: 0 })
    }

    /// The body, if all of it is there in one small chunk of this length, and nothing else.
    fn whole(&self, length: u64) -> Option<Bytes> {
        self.state.lock().log.whole().filter(|data| data.len() as u64 == length).cloned()
    }
}

impl Holder for Flight {
    fn reclaimable(&self) -> Option<log::Reclaim> {
        self.state.lock().log.reclaimable()
    }

    fn reclaim(&self) -> log::Dropped {
        let dropped = self.change(Log::reclaim);
        self.moved.notify_one();
        dropped
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.is_counted {
            let held = state.log.held();
            self.room.budget.leave(self, held);
        }
    }
}

/// Wakes all that wait for a change, if there are any.
fn wake(changed: Option<Arc<Notify>>) {
    if let Some(changed) = changed {
        changed.notify_waiters();
    }
}

/// One caller's part in a flight, and its place in the log. Dropping it unsubscribes.
#[derive(Debug)]
pub(super) struct Subscriber {
    flight: Arc<Flight>,
    /// The index of the chunk to read next.
    index: usize,
}

/// What a subscriber finds at its place in the log.
enum Next {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Nothing yet.
    Pending,
    End,
    Failed(BodyError),
}

impl Subscriber {
    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// The fields of the shared head. A subscriber that is the last to hold the flight needs no copy: no
    /// other caller can subscribe any more.
    pub(super) fn take_headers(&mut self) -> HeaderMap {
        let own = Arc::get_mut(&mut self.flight).and_then(|own| own.outcome.get_mut());
        if let Some(FetchOutcome::Head(head)) = own {
            return std::mem::take(&mut head.headers);
        }
        self.flight.head().map_or_else(HeaderMap::new, |head| head.headers.clone())
    }

    /// Lets the fetch wait in the queue as the best of its callers would, of which this is one.
    pub(super) fn of_class(self, class: Option<u8>) -> Self {
        if let (Some(place), Some(class)) = (&self.flight.place, class) {
            place.raise(class);
        }
        self
    }

    /// Leaves with the response of another flight. If no subscriber is left then, this fetch may end.
    pub(super) fn leave_for_another(self) {
        let mut state = self.flight.state.lock();
        state.is_superseded = state.log.readers() <= 1;
        drop(state);
    }

    /// The body, of this size if that is known. What is there in one piece needs no reader.
    pub(super) fn into_body<B>(self, size: Option<u64>) -> Body<B> {
        match size.and_then(|size| self.flight.whole(size)) {
            Some(whole) => Body::stored(whole, None),
            None => Body::shared(SharedBody { subscriber: self, remaining: size, change: None }),
        }
    }

    fn next(&mut self) -> Next {
        let flight = &*self.flight;
        let mut state = flight.state.lock();
        let Some((chunk, dropped)) = state.log.advance(self.index) else {
            return match state.log.end_at(self.index) {
                None => Next::Pending,
                Some(Ok(())) => Next::End,
                Some(Err(error)) => Next::Failed(error),
            };
        };
        self.index += 1;
        let (is_waited_for, is_counted) = (state.log.take_waiting(), state.is_counted);
        drop(state);
        if is_counted {
            flight.room.budget.release(dropped.bytes);
        }
        drop(dropped);
        if is_waited_for {
            flight.moved.notify_one();
        }
        match chunk {
            log::Chunk::Data(data) => Next::Data(data),
            log::Chunk::Trailers(trailers) => Next::Trailers(Arc::unwrap_or_clone(trailers)),
        }
    }

    /// Resolves at the next change after this call.
    fn next_change(&self) -> OwnedNotified {
        self.flight.state.lock().next_change()
    }

    fn is_at_end(&self) -> bool {
        self.flight.state.lock().log.is_complete_at(self.index)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut state = self.flight.state.lock();
        let dropped = state.log.leave(self.index);
        let is_last = state.log.readers() == 0;
        let is_noticed = is_last || state.log.take_waiting();
        let redirect = if is_last { state.redirect.take() } else { None };
        let is_counted = state.is_counted;
        drop(state);
        if is_counted {
            self.flight.room.budget.release(dropped.bytes);
        }
        drop((dropped, redirect));
        if is_noticed {
            self.flight.moved.notify_one();
        }
    }
}

pin_project! {
    /// The body of a shared response, as one subscriber reads it.
    struct SharedBody {
        subscriber: Subscriber,
        // Bytes yet to come, if the size is known.
        remaining: Option<u64>,
        #[pin]
        change: Option<OwnedNotified>,
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut this = self.project();
        loop {
            match this.subscriber.next() {
                Next::Data(data) => {
                    *this.remaining = this.remaining.map(|bytes| bytes.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Next::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Next::End => return Poll::Ready(None),
                Next::Failed(error) => return Poll::Ready(Some(Err(error))),
                Next::Pending => {}
            }
            match this.change.as_mut().as_pin_mut() {
                None => this.change.set(Some(this.subscriber.next_change())),
                Some(change) => {
                    ready!(change.poll(cx));
                    this.change.set(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.subscriber.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
