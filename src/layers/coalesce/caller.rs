//! What one caller does: join a flight, lead it or wait for its outcome, and take the response or go
//! elsewhere.
//!
//! # Why callers come to an end
//!
//! A caller whose response is not for it moves to another flight key, and may do so again. For as long as
//! each move says something new, and no longer than `max_wait`, that is free: see
//! [`Waiter::next`]. After that, or if a move says nothing new, there is one more: all callers that are
//! still there share one last fetch, with a failure noted in their key, and what does not have a
//! response after that one gets 503. So an origin that says something else each time costs a bounded time
//! and one fetch more, not a fetch for each caller.
//!
//! # Hedging
//!
//! A flight whose head is late may be stuck, and one stuck fetch must not hold up all callers. So from
//! `max_wait` on they begin hedges: one at first, then 2, 4, 8, … in each second that follows, which bounds
//! what a slow origin gets in addition. The outcome of whichever fetch is settled first is the outcome for
//! all, except that a failure is one only if two hedges have failed.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Response, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    dispatch::{self, Dispatch, Judge, Leader, LengthCheck},
    flight::{Flight, Subscriber, Subscription},
    flights::{FlightGuard, FlightKey, Flights, Joined},
    outcome::FetchOutcome,
    task::FetchTask,
    waiter::{Next, Waiter},
};
use crate::{
    body::{Body, BoxError},
    exchange::Refused,
    executor::{Executor, Task},
    http::freshness::after,
    key::RuleOverrides,
};

/// One request, on its way to a response.
pub(super) struct Caller<N, ReqB> {
    flights: Arc<Flights>,
    waiter: Waiter,
    body: ReqB,
    /// Asks the service below, once.
    below: N,
    /// When moves to other flights have to come to an end. Set by the first one.
    moves_until: Option<Instant>,
}

/// What a wait for the outcome of a flight ended with.
enum Waited {
    /// This flight is settled. The subscriber can read its body if there is one.
    Settled(Arc<Flight>, Subscriber),
    /// There is no head yet, and the caller may hedge the fetch.
    Hedge(Subscriber),
    Refused(Refused),
}

impl<N, F, ReqB, B, E> Caller<N, ReqB>
where
    N: FnOnce(Parts, ReqB) -> F + Send + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    E: Clone + Send + Sync + 'static,
    ReqB: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(flights: Arc<Flights>, waiter: Waiter, body: ReqB, below: N) -> Self {
        Self { flights, waiter, body, below, moves_until: None }
    }

    /// As [`run`](Self::run), for no longer than `limit`.
    pub(super) async fn run_within(self, limit: Duration) -> Result<Response<Body<B>>, E> {
        // Outside a runtime there are no timers.
        if !Executor::is_available() {
            return self.alone().await;
        }
        let why = self.waiter.why();
        let response = timeout(limit, self.run()).await;
        response.unwrap_or_else(|_| Ok(dispatch::refuse(Refused::WaitTimeout, why)))
    }

    #[allow(clippy::manual_async_fn, reason = "an `async fn` would take up the room of `self` twice")]
    pub(super) fn run(mut self) -> impl Future<Output = Result<Response<Body<B>>, E>> + Send {
        async move {
            let wants_newer = self.waiter.key().is_forced();
            if let Some(forced) = self.flights.forced(self.waiter.key()) {
                self.waiter.set_key(forced);
            }
            // Outside a runtime there are no tasks, and so no flights.
            while Executor::is_available() {
                let (key, credentials) = (self.waiter.key(), self.waiter.credentials());
                let subscriber = match self.flights.join(key, credentials, wants_newer) {
                    Joined::Follow(subscriber) => subscriber,
                    Joined::Lead(subscriber, guard) => {
                        let executor = self.flights.settings().executor.clone();
                        let (task, leader) = self.begin(subscriber, guard);
                        executor.start(task).await;
                        return leader.await;
                    }
                    Joined::Full => return Ok(self.waiter.refuse(Refused::TooManyWaiters)),
                    Joined::Alone => break,
                };
                let next = match wait(&self.flights, subscriber, self.waiter.has_fallback()).await {
                    Waited::Settled(flight, subscriber) => self.waiter.next(&flight, subscriber),
                    Waited::Refused(refused) => return Ok(self.waiter.refuse(refused)),
                    // Boxed: it is rare, and every caller would have to have room for it.
                    Waited::Hedge(slow) => return Box::pin(self.hedge(slow)).await,
                };
                let has_moved = match next {
                    Next::Respond(response) => return response,
                    Next::Alone => break,
                    Next::Rejoin(key) => self.rejoin(key, false),
                    Next::RejoinLater => self.rejoin(self.waiter.key().clone(), true),
                    Next::Split(key) => match self.rejoin(key, false) {
                        true => continue,
                        false => break,
                    },
                };
                if !has_moved {
                    return Ok(self.waiter.refuse(Refused::FetchAborted));
                }
            }
            self.alone().await
        }
    }

    /// Asks the service below for this caller alone.
    async fn alone(self) -> Result<Response<Body<B>>, E> {
        let length_check = self.length_check();
        let response = (self.below)(self.waiter.into_head(), self.body);
        response.await.map(|response| length_check.wrap(response))
    }

    fn length_check(&self) -> LengthCheck {
        match self.flights.settings().rules {
            None => LengthCheck::Below,
            Some(_) => LengthCheck::Here { is_head: self.waiter.key().is_head() },
        }
    }

    /// Moves the caller to another flight key, if it may still move. `is_later`: its flight has passed,
    /// so that the same key is a new one.
    fn rejoin(&mut self, key: FlightKey, is_later: bool) -> bool {
        let now = Instant::now();
        let max_wait = self.flights.settings().max_wait;
        let moves_until = *self.moves_until.get_or_insert_with(|| after(now, max_wait));
        if (is_later || key != *self.waiter.key()) && now < moves_until {
            self.waiter.set_key(key);
            return true;
        }
        let is_last = self.waiter.key().failures() == 0;
        if is_last {
            self.waiter.set_key(key.after_failure());
        }
        is_last
    }

    /// The fetch of a new flight, which has not begun yet, and its response.
    fn begin(mut self, subscriber: Subscriber, guard: FlightGuard) -> (Task, Leader<B, E>) {
        let length_check = self.length_check();
        let is_for_many = self.waiter.set_for_many();
        let (head, credentials) = (self.waiter.head(), self.waiter.credentials());
        let judge = self.flights.settings().rules.as_ref().map(|rules| {
            let rules = RuleOverrides::rules_for(&head.extensions, rules).for_flight();
            Box::new(Judge::new(head, credentials, rules))
        });
        let (dispatch, leader) = Dispatch::new(subscriber, length_check, judge, is_for_many);
        let key = self.waiter.key().cache_key().clone();
        let ask = move || (self.below)(self.waiter.into_head(), self.body);
        let fetch = FetchTask::new(guard, dispatch).run(ask);
        (Box::pin(self.flights.lead(key, fetch)), leader)
    }

    /// Begins a fetch for this caller beside a slow one, and takes whichever response is there first.
    async fn hedge(self, slow: Subscriber) -> Result<Response<Body<B>>, E> {
        let (flights, waiter) = (Arc::clone(&self.flights), self.waiter.clone());
        let begun = flights.hedge(waiter.key(), waiter.credentials(), slow.flight());
        let Some((subscriber, guard)) = begun else { return self.alone().await };
        let (task, mut leader) = self.begin(subscriber, guard);
        flights.settings().executor.start(task).await;
        let settled = match select(&mut leader, pin!(slow.flight().settled())).await {
            Either::Left((response, _)) => return response,
            Either::Right((settled, _)) => settled,
        };
        let is_own = leader.flight().is_some_and(|own| Arc::ptr_eq(own, &settled));
        if !is_own
            && let Ok(Waited::Settled(flight, subscriber)) = change_over(&flights, slow, settled)
            && let Next::Respond(response) = waiter.next(&flight, subscriber)
        {
            let head = flight.outcome().and_then(FetchOutcome::head);
            if head.is_some_and(|head| head.verdict().is_shareable()) {
                leader.leave_for_another();
            }
            return response;
        }
        leader.await
    }
}

/// Waits for the outcome of a flight, or until the caller may hedge it. One with a fallback does not.
async fn wait(flights: &Flights, mut subscriber: Subscriber, has_fallback: bool) -> Waited {
    let flight = Arc::clone(subscriber.flight());
    if flight.outcome().is_some() {
        return Waited::Settled(flight, subscriber);
    }
    let max_wait = flights.settings().max_wait;
    let mut hedge_at = None;
    loop {
        let until = hedge_at.unwrap_or_else(|| after(flight.started_at(), max_wait));
        match timeout_at(until, flight.settled()).await {
            Ok(settled) => match change_over(flights, subscriber, settled) {
                Ok(waited) => return waited,
                Err(back) => subscriber = back,
            },
            Err(_) if has_fallback => return Waited::Refused(Refused::WaitTimeout),
            Err(_) if hedge_at.is_some() => return Waited::Hedge(subscriber),
            Err(_) => hedge_at = Some(flight.next_hedge_at(max_wait)),
        }
    }
}

/// Takes a subscriber over to a flight that is settled. An error if that one takes no subscribers any
/// more: then the subscriber is where it was.
fn change_over(
    flights: &Flights,
    subscriber: Subscriber,
    settled: Arc<Flight>,
) -> Result<Waited, Subscriber> {
    if Arc::ptr_eq(&settled, subscriber.flight()) {
        return Ok(Waited::Settled(settled, subscriber));
    }
    match settled.subscribe(flights.settings().max_subscribers()) {
        Subscription::Subscribed(subscriber) => Ok(Waited::Settled(settled, subscriber)),
        Subscription::Full => Ok(Waited::Refused(Refused::TooManyWaiters)),
        // There is nothing to be read but the verdict.
        Subscription::Closed if settled.outcome().is_some_and(FetchOutcome::has_no_body) => {
            Ok(Waited::Settled(settled, subscriber))
        }
        Subscription::Closed => {
            subscriber.flight().forget_redirect(&settled);
            Err(subscriber)
        }
    }
}
