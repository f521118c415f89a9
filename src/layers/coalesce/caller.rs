//! What one caller does: join a flight, lead it or wait for its outcome, and take the response or go
//! elsewhere.
//!
//! A caller that cannot have a response has [`Learned`](flights::Learned) something: that a fetch failed, which fields select
//! a variant, that the response is for one kind of credentials only, that a purge came in between. It goes
//! on to the flight of all that have learned the same.
//!
//! # Why callers come to an end
//!
//! For as long as each move says something new, and no longer than `max_wait`, moves are free. After that,
//! or if a move says nothing new, there is one more: all callers that are still there share one last fetch,
//! with a failure noted in their key, and a caller that cannot have that response either gets 503. So an
//! origin that says something else each time costs a bounded time and one fetch more, not a fetch for
//! each caller.
//!
//! # Failures
//!
//! A failure may be the fault of the request that was sent, for example of a header field that the origin
//! does not like. So it is shared only after a second fetch, for another caller, has failed as well. More
//! would be wrong for an origin in trouble, where each fetch costs a timeout; less would let one client
//! fail all others.
//!
//! An error that may be for one client each (a 4xx) cannot be shared at all, however often it comes. Among
//! many callers there may still be some with which a response can be shared. So after two errors the
//! callers split into 16 groups, which ask side by side; after another error such a group splits
//! again, and after that each caller asks alone. A few hundred fetches then find the callers that can
//! share, instead of one fetch for each of a hundred thousand. 429 says that there are too many requests
//! already, and is the response for all after two.
//!
//! # Hedging
//!
//! If the head of a response is late, the fetch may be stuck, and one stuck fetch must not hold up all
//! callers. So from `max_wait` on they begin hedges: one at first, then 2, 4, 8, … in each second that
//! follows, which bounds the load on a slow origin. The fetch that is settled first decides for all, except
//! that a failed hedge fails only its own caller until a second one has failed.
//!
//! The probe of an origin that is down begins one at once: the fetches that are under way may be those by which
//! it was found to hang.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use tokio::time::{Instant, timeout, timeout_at};
use tower::ServiceExt;

use super::{alone::Limits, fetch, flight, flights, settings::CoalesceSettings};
use crate::{
    body::{Body, ResponseBody},
    exchange::{
        self,
        status::{CacheStatus, Forward},
    },
    executor::{Executor, Task},
    http::{
        request_fields::{Credentials, RequestFields},
        response_fields::age_value,
        storing::{self, after},
        vary,
    },
    layers::service::HttpService,
};

/// Into how many groups callers split after an error.
const GROUPS: u16 = 16;

/// After an error that follows so many failures, callers ask alone.
const MAX_FAILURES: u8 = 3;

/// One request, on its way to a response.
pub(super) struct Caller<S, ReqB> {
    flights: Arc<flights::Flights>,
    waiter: Waiter,
    body: ReqB,
    /// The service below, which is called once.
    inner: S,
    /// When moves to other flights have to come to an end. Set by the first one.
    moves_until: Option<Instant>,
}

/// What a wait for the outcome of a flight ended with.
enum Waited {
    /// This flight is settled. The subscriber can read its body if there is one.
    Settled(Arc<flight::Flight>, flight::Subscriber),
    /// There is no head yet, and the caller may hedge the fetch.
    Hedge(flight::Subscriber),
    Refused(exchange::Refused),
}

impl<S, ReqB, B> Caller<S, ReqB>
where
    S: HttpService<ReqB, Response = Response<B>>,
    S::Error: Clone + Sync + 'static,
    ReqB: Send + 'static,
    B: ResponseBody,
{
    /// For a request that others may share a response with.
    pub(super) fn new(
        flights: &Arc<flights::Flights>,
        key: flights::FlightKey,
        credentials: Credentials,
        (head, body): (Parts, ReqB),
        inner: S,
    ) -> Self {
        let class = flights.settings().priority.as_ref().map(|priority| priority.class(&head));
        let waiter = Waiter { head, key, credentials, class, arrived: flights.begun() };
        Self { flights: Arc::clone(flights), waiter, body, inner, moves_until: None }
    }

    /// As [`run`](Self::run), for no longer than `limit`.
    pub(super) async fn run_within(self, limit: Duration) -> Result<Response<Body<B>>, S::Error> {
        // Outside a runtime there are no timers.
        if !Executor::is_available() {
            return Box::pin(self.alone()).await;
        }
        let why = self.waiter.why();
        let response = timeout(limit, self.run()).await;
        response.unwrap_or_else(|_| Ok(fetch::refuse(exchange::Refused::WaitTimeout, why)))
    }

    #[allow(clippy::manual_async_fn, reason = "an `async fn` would take up the room of `self` twice")]
    pub(super) fn run(mut self) -> impl Future<Output = Result<Response<Body<B>>, S::Error>> + Send {
        async move {
            let wants_newer = self.waiter.key.is_forced;
            if let Some(forced) = self.flights.forced(&self.waiter.key) {
                self.waiter.key = forced;
            }
            // Outside a runtime there are no tasks, and so no flights.
            while Executor::is_available() {
                let Waiter { key, credentials, class, .. } = &self.waiter;
                let subscriber = match self.flights.join(key, (*credentials, *class), wants_newer) {
                    flights::Joined::Follow(subscriber) => {
                        subscriber.flight().note_joined();
                        match self.waiter.right_to_ask() {
                            Right::None => {}
                            Right::Probe => return Box::pin(self.hedge(subscriber)).await,
                            Right::Permit => self.waiter.drop_right_to_ask(),
                        }
                        subscriber
                    }
                    flights::Joined::Lead(subscriber, guard) => return self.lead(subscriber, guard).await,
                    flights::Joined::Full => {
                        return Ok(self.waiter.refuse(exchange::Refused::TooManyWaiters));
                    }
                    flights::Joined::Alone => break,
                };
                let next = match self.waiter.wait(&self.flights, subscriber).await {
                    Waited::Settled(flight, subscriber) => self.waiter.next(&flight, subscriber),
                    Waited::Refused(refused) => return Ok(self.waiter.refuse(refused)),
                    // Boxed: it is rare, and every caller would have to have room for it.
                    Waited::Hedge(slow) => return Box::pin(self.hedge(slow)).await,
                };
                let learned = match next {
                    Next::Respond(response) => return response,
                    Next::Alone => break,
                    Next::Rejoin(learned) => learned,
                };
                let is_split = matches!(learned, flights::Learned::Error { .. });
                if !self.rejoin(learned) {
                    match is_split {
                        true => break,
                        false => return Ok(self.waiter.refuse(exchange::Refused::FetchAborted)),
                    }
                }
            }
            // Boxed: it is rare, and every caller would have to have room for it.
            Box::pin(self.alone()).await
        }
    }

    /// Asks the service below for this caller alone.
    async fn alone(mut self) -> Result<Response<Body<B>>, S::Error> {
        // How long the caller waits in all is counted since it came.
        match Limits::begin(&mut self.waiter.head, self.flights.settings(), None) {
            None => self.ask_alone().await,
            Some(limits) => limits.hold(self.ask_alone()).await,
        }
    }

    async fn ask_alone(self) -> Result<Response<Body<B>>, S::Error> {
        let response = self.inner.oneshot(Request::from_parts(self.waiter.head, self.body)).await?;
        Ok(fetch::own_response(response, self.flights.settings(), self.waiter.key.is_head))
    }

    /// Moves the caller to the flight of all that have learned the same. Returns whether it may still
    /// move.
    fn rejoin(&mut self, learned: flights::Learned) -> bool {
        let now = Instant::now();
        let max_wait = self.flights.settings().max_wait;
        let moves_until = *self.moves_until.get_or_insert_with(|| after(now, max_wait));
        let is_later = matches!(learned, flights::Learned::TooOld);
        let key = self.waiter.key.with(learned);
        if (is_later || key != self.waiter.key) && now < moves_until {
            self.waiter.key = key;
            return true;
        }
        let is_last = self.waiter.key.failures == 0;
        if is_last {
            self.waiter.key = key.with(flights::Learned::Failure);
        }
        is_last
    }

    /// Begins the fetch of a new flight, and waits for the leader's response.
    fn lead(
        self,
        subscriber: flight::Subscriber,
        guard: flights::FlightGuard,
    ) -> impl Future<Output = Result<Response<Body<B>>, S::Error>> + Send {
        let executor = self.flights.settings().executor.clone();
        let patience = Patience::of_leader(&self.waiter, &self.flights, subscriber.flight());
        let (task, leader) = self.begin(subscriber, guard);
        async move {
            executor.start(task).await;
            match patience {
                None => leader.await,
                // Boxed: it is rare, and every leader would have to have room for it.
                Some(patience) => Box::pin(patience.wait(leader)).await,
            }
        }
    }

    /// The fetch of a new flight, which has not begun yet, and the leader's response.
    fn begin(
        self,
        subscriber: flight::Subscriber,
        guard: flights::FlightGuard,
    ) -> (Task, fetch::Leader<B, S::Error>) {
        let Waiter { mut head, key, credentials, .. } = self.waiter;
        let span = subscriber.flight().trace(&head, self.flights.settings().traces_queries);
        let (fetch, leader) = fetch::Fetch::new(subscriber, guard, &mut head, credentials);
        let fetch = fetch.run(move || self.inner.oneshot(Request::from_parts(head, self.body)));
        (Box::pin(span.around(self.flights.lead(key, fetch))), leader)
    }

    /// Begins a fetch for this caller beside a slow one, and takes whichever response is there first.
    async fn hedge(self, slow: flight::Subscriber) -> Result<Response<Body<B>>, S::Error> {
        let (flights, waiter) = (Arc::clone(&self.flights), self.waiter.clone());
        let begun = flights.hedge(&waiter.key, (waiter.credentials, waiter.class), slow.flight());
        let Some((subscriber, guard)) = begun else { return Box::pin(self.alone()).await };
        let (task, mut leader) = self.begin(subscriber, guard);
        flights.settings().executor.start(task).await;
        let settled = match select(&mut leader, pin!(slow.flight().settled())).await {
            Either::Left((response, _)) => return response,
            Either::Right((settled, _)) => settled,
        };
        let is_own = leader.subscriber().is_some_and(|own| Arc::ptr_eq(own.flight(), &settled));
        if !is_own
            && let Ok(Waited::Settled(flight, subscriber)) = change_over(&flights, slow, settled)
            && let Next::Respond(response) = waiter.next(&flight, subscriber)
        {
            if flight.head().is_some_and(|head| head.shareability.is_shareable()) {
                leader.leave_for_another();
            }
            return response;
        }
        leader.await
    }
}

/// How long a caller waits that has something stale to fall back on.
struct Patience {
    until: Instant,
    fallback: exchange::Fallback,
    why: Option<CacheStatus>,
}

impl Patience {
    /// `None`: the leader waits for its own fetch as long as that takes.
    fn of_leader(waiter: &Waiter, flights: &flights::Flights, flight: &flight::Flight) -> Option<Self> {
        let limit = flights.settings().stale_after?;
        let fallback = waiter.fallback()?.clone();
        Some(Self { until: after(flight.started_at(), limit), fallback, why: waiter.why() })
    }

    /// Waits for the response, and gives up if the stale one can be served then.
    async fn wait<B, E>(self, mut leader: fetch::Leader<B, E>) -> Result<Response<Body<B>>, E>
    where
        B: ResponseBody,
    {
        match timeout_at(self.until, &mut leader).await {
            Ok(response) => response,
            Err(_) if self.fallback.is_usable() => {
                Ok(fetch::refuse(exchange::Refused::WaitTimeout, self.why))
            }
            Err(_) => leader.await,
        }
    }
}

/// Takes a subscriber over to a flight that is settled. An error if that one takes no subscribers any
/// more: then the subscriber is where it was.
fn change_over(
    flights: &flights::Flights,
    subscriber: flight::Subscriber,
    settled: Arc<flight::Flight>,
) -> Result<Waited, flight::Subscriber> {
    if Arc::ptr_eq(&settled, subscriber.flight()) {
        return Ok(Waited::Settled(settled, subscriber));
    }
    match settled.subscribe(flights.settings().max_subscribers()) {
        flight::Subscription::Subscribed(subscriber) => Ok(Waited::Settled(settled, subscriber)),
        flight::Subscription::Full => Ok(Waited::Refused(exchange::Refused::TooManyWaiters)),
        // There is nothing to be read but the head.
        flight::Subscription::Closed if has_no_body(&settled) => Ok(Waited::Settled(settled, subscriber)),
        flight::Subscription::Closed => {
            subscriber.flight().forget_redirect(&settled);
            Err(subscriber)
        }
    }
}

/// Whether a flight is settled without a body for any caller but the leader.
fn has_no_body(flight: &flight::Flight) -> bool {
    let is_unshareable = |head: &flight::SharedHead| head.shareability.is_unshareable();
    flight.outcome().is_some() && flight.head().is_none_or(is_unshareable)
}

/// A request that waits for the response of another one.
#[derive(Clone)]
struct Waiter {
    head: Parts,
    key: flights::FlightKey,
    credentials: Credentials,
    /// Its class in the queue to the origin, if there is one.
    class: Option<u8>,
    /// The number of the fetch that had begun last when the request arrived.
    arrived: u64,
}

/// The right of a request to ask an origin that is not up.
enum Right {
    None,
    /// It is to find out whether the origin is back. What is under way may have hung since before.
    Probe,
    /// It has a permit of a recovery.
    Permit,
}

/// What a caller does once the outcome of a flight is known.
enum Next<B, E> {
    Respond(Result<Response<Body<B>>, E>),
    /// Join the flight of all that have learned the same.
    Rejoin(flights::Learned),
    /// Ask the origin for this caller alone.
    Alone,
}

impl Waiter {
    /// `None`: the request is cached by its key alone.
    fn request(&self) -> Option<&exchange::CacheRequest> {
        self.head.extensions.get()
    }

    /// Why the request is on its way to the origin.
    fn why(&self) -> Option<CacheStatus> {
        self.request().map(exchange::CacheRequest::why)
    }

    /// What a layer above serves instead of a failure.
    fn fallback(&self) -> Option<&exchange::Fallback> {
        self.request().and_then(exchange::CacheRequest::fallback)
    }

    fn has_fallback(&self) -> bool {
        self.fallback().is_some()
    }

    fn right_to_ask(&self) -> Right {
        match self.request().and_then(exchange::CacheRequest::origin_pass) {
            None => Right::None,
            Some(pass) if pass.is_probe() => Right::Probe,
            Some(_) => Right::Permit,
        }
    }

    /// Leaves the right to ask an origin that is not up to others: a caller that waits for the fetch of another one
    /// makes no use of it. If it leads a fetch later, that one begins without.
    fn drop_right_to_ask(&mut self) {
        drop(exchange::CacheRequest::take_pass(&mut self.head.extensions));
    }

    /// Waits for the outcome of a flight, or until the caller may hedge it. One that has something stale to
    /// fall back on gives up instead.
    async fn wait(&self, flights: &flights::Flights, mut subscriber: flight::Subscriber) -> Waited {
        let flight = Arc::clone(subscriber.flight());
        if flight.outcome().is_some() {
            return Waited::Settled(flight, subscriber);
        }
        let CoalesceSettings { max_wait, stale_after, .. } = *flights.settings();
        let mut fallback = self.fallback();
        let mut hedge_at = None;
        loop {
            let patience = fallback.and(stale_after).unwrap_or(max_wait);
            let until = hedge_at.unwrap_or_else(|| after(flight.started_at(), patience));
            match timeout_at(until, flight.settled()).await {
                Ok(settled) => match change_over(flights, subscriber, settled) {
                    Ok(waited) => return waited,
                    Err(back) => subscriber = back,
                },
                Err(_) if fallback.is_some_and(exchange::Fallback::is_usable) => {
                    return Waited::Refused(exchange::Refused::WaitTimeout);
                }
                // It has been purged, or its window has closed: this caller waits as the others do.
                Err(_) if fallback.take().is_some() => {}
                Err(_) if hedge_at.is_some() => return Waited::Hedge(subscriber),
                Err(_) => hedge_at = Some(flight.next_hedge_at(max_wait)),
            }
        }
    }

    fn refuse<B>(&self, refused: exchange::Refused) -> Response<Body<B>> {
        fetch::refuse(refused, self.why())
    }

    /// What this caller does, given the outcome of a flight that it has joined or was redirected to.
    #[inline(never)]
    fn next<B, E: Clone + 'static>(
        &self,
        flight: &flight::Flight,
        subscriber: flight::Subscriber,
    ) -> Next<B, E> {
        let shares_failures = self.key.failures > 0 || self.has_fallback();
        let aborted = || Next::Respond(Ok(self.refuse(exchange::Refused::FetchAborted)));
        match flight.outcome() {
            Some(flight::FetchOutcome::Head(head)) => self.next_after(head, flight, subscriber),
            Some(flight::FetchOutcome::Error(error)) if shares_failures => {
                // The type differs where one layer value wraps services of different errors.
                let error = error.downcast_ref::<E>();
                error.map_or_else(aborted, |error| Next::Respond(Err(error.clone())))
            }
            Some(flight::FetchOutcome::Aborted) if shares_failures => aborted(),
            // All of them have waited long enough.
            Some(flight::FetchOutcome::TimedOut) => {
                Next::Respond(Ok(self.refuse(exchange::Refused::FetchTimeout)))
            }
            Some(flight::FetchOutcome::Error(_) | flight::FetchOutcome::Aborted) | None => {
                Next::Rejoin(flights::Learned::Failure)
            }
        }
    }

    fn next_after<B, E>(
        &self,
        head: &flight::SharedHead,
        flight: &flight::Flight,
        subscriber: flight::Subscriber,
    ) -> Next<B, E> {
        let said = &head.shareability;
        if let storing::Sharing::Unshareable(why) = said.sharing() {
            return self.next_after_unshareable(why, head, flight);
        }
        // The tags were not known before, and were purged since this request arrived.
        if let Some(provenance) = said.provenance()
            && !provenance.is_for(self.request().and_then(exchange::CacheRequest::arrival))
        {
            return Next::Rejoin(flights::Learned::Floor(provenance.floor()));
        }
        if let storing::Sharing::Failed { for_all } = said.sharing() {
            // What a layer below refused is not the fault of a request, and another one makes it worse.
            if self.key.failures == 0 && head.refused.is_none() && !self.has_fallback() {
                return Next::Rejoin(flights::Learned::Failure);
            }
            let is_shared = for_all && self.is_selected(said.selection());
            return self.respond(head, is_shared.then_some(subscriber));
        }
        // Begun before this caller came: all of its kind share the next one.
        if self.is_too_old(said.provenance().map(|provenance| provenance.fetch_number()), flight.number()) {
            return Next::Rejoin(flights::Learned::TooOld);
        }
        if !self.credentials.admitted_to(said.audience()) {
            return Next::Rejoin(flights::Learned::OnlyFor(self.credentials));
        }
        if !self.is_selected(said.selection()) {
            return Next::Rejoin(flights::Learned::Selection(self.own_selection(said.selection())));
        }
        self.respond(head, Some(subscriber))
    }

    fn next_after_unshareable<B, E>(
        &self,
        why: storing::NotStored,
        head: &flight::SharedHead,
        flight: &flight::Flight,
    ) -> Next<B, E> {
        if self.is_of_session(why, head, flight.leader_credentials()) {
            return Next::Rejoin(flights::Learned::OnlyFor(self.credentials));
        }
        let failures = self.key.failures;
        match storing::is_error(head.status) {
            true if failures == 0 => Next::Rejoin(flights::Learned::Failure),
            // An origin that says so twice is not asked again for all the others.
            _ if head.status == StatusCode::TOO_MANY_REQUESTS => self.respond(head, None),
            true if failures < MAX_FAILURES => {
                let group = flight.next_group(GROUPS);
                Next::Rejoin(flights::Learned::Error { group, groups: GROUPS })
            }
            _ => Next::Alone,
        }
    }

    /// Responds with the shared response, or without a subscriber with its status alone.
    fn respond<B, E>(&self, head: &flight::SharedHead, subscriber: Option<flight::Subscriber>) -> Next<B, E> {
        let mut response = match subscriber {
            Some(subscriber) => shared_response(head, subscriber),
            None => bare_response(head),
        };
        // A layer above shares the response as well.
        if self.request().is_some_and(exchange::CacheRequest::wants_shareability) {
            exchange::ResponseFacts::note_shareability(
                response.extensions_mut(),
                head.shareability.handed_on(),
            );
        }
        Next::Respond(Ok(response))
    }

    fn is_selected(&self, selection: Option<&vary::Selection>) -> bool {
        let headers = &self.head.headers;
        let known = || self.request().map(|request| request.fields(headers));
        selection.is_none_or(|selection| {
            let fields = known().unwrap_or_else(|| RequestFields::of(headers));
            selection.matches(&fields, &mut vary::Forms::default())
        })
    }

    /// This request's values of all fields that are known to select a response, those that were known
    /// before included: where responses differ in what they name, a caller must not come back to a
    /// flight key that it has had.
    fn own_selection(&self, named: Option<&vary::Selection>) -> Option<vary::Selection> {
        let known = self.key.selection.as_ref().map_or(&[][..], |known| known.fields());
        let fields = named.map(|named| all_fields(known, named.fields()));
        fields.map(|fields| vary::Selection::new(&fields, &self.head.headers))
    }

    /// Whether a response may be for one client because the leader's request had a session, while this
    /// one has none.
    fn is_of_session(&self, why: storing::NotStored, head: &flight::SharedHead, leader: Credentials) -> bool {
        use storing::NotStored::{Cookie, NoStore, NotFresh, Private, SetCookie, Status, Token};
        let has_session = leader.cookie || leader.token;
        let is_of_session = match why {
            Cookie | Token => true,
            NoStore | Private | SetCookie | NotFresh | Status => {
                has_session && head.status != StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        };
        let own = self.credentials;
        is_of_session && !own.cookie && !own.token && !self.key.is_only_for(own)
    }

    /// Whether only a fetch will do that began after this caller came, and this one did not: by the number
    /// that the store gave it, else by that of its flight.
    fn is_too_old(&self, begun: Option<u64>, flight: u64) -> bool {
        let is_newer = |request: &exchange::CacheRequest| match begun {
            Some(begun) => begun > request.arrived_at(),
            None => flight > self.arrived,
        };
        self.request().is_some_and(|request| request.needs_newer() && !is_newer(request))
    }
}

fn all_fields(known: &[HeaderName], named: &Arc<[HeaderName]>) -> Arc<[HeaderName]> {
    if known.iter().all(|field| named.contains(field)) {
        return Arc::clone(named);
    }
    let mut all: Vec<_> = known.iter().chain(&**named).cloned().collect();
    all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    all.dedup();
    all.into()
}

/// The response as every caller but the leader gets it.
fn shared_response<B>(head: &flight::SharedHead, subscriber: flight::Subscriber) -> Response<Body<B>> {
    let mut response = Response::new(subscriber.into_body(head.size));
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers.clone();
    update_age(response.headers_mut(), &head.shareability);
    if let Some(came_about) = head.came_about
        && CacheStatus::of(&response).is_none()
    {
        // As in the leader's response: what follows takes its place.
        response.extensions_mut().insert(came_about);
    }
    mark_collapsed(&mut response, head);
    response
}

/// The response where fields and body are for another client: its status, and when to come back.
fn bare_response<B>(head: &flight::SharedHead) -> Response<Body<B>> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = head.status;
    if let Some(retry_after) = head.headers.get(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after.clone());
    }
    mark_collapsed(&mut response, head);
    response
}

/// A caller that joins while a slow body comes in gets a response that is older by then.
fn update_age(headers: &mut HeaderMap, shareability: &exchange::Shareability) {
    let waited = shareability.received_at().elapsed().as_secs();
    if waited > 0 && !shareability.is_unshareable() {
        let age = headers.get(header::AGE).map(age_value).unwrap_or_default();
        let age = HeaderValue::from(age.as_secs().saturating_add(waited));
        headers.insert(header::AGE, age);
    }
}

fn mark_collapsed<B>(response: &mut Response<Body<B>>, head: &flight::SharedHead) {
    if let Some(refused) = head.refused {
        refused.tell(response.headers_mut());
        response.extensions_mut().insert(refused);
    }
    let shown = || CacheStatus::shown(&head.headers);
    let status = head.came_about.or_else(shown).unwrap_or(CacheStatus::forwarded(Forward::Miss));
    status.collapsed().mark(response);
}
