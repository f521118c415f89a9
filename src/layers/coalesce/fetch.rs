//! A fetch: the task that runs it, and what it gives to which caller.
//!
//! The task asks for the response, settles the flight with its head, and pumps the body into the log. No
//! client can cancel it. It ends early only if it has had no subscriber for too long or takes longer than it
//! may, which [`watch`] looks for while it waits.
//!
//! A response that may be shared is split: its body goes into the flight for all, the leader gets the head
//! as it came, and the others the head without the fields that are withheld from them. A response that
//! may not be shared goes to the leader whole, and the others learn only that.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, Response, header, request, response};
use http_body::Body as HttpBody;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    flight::{FetchOutcome, SharedHead, Subscriber},
    flights::FlightGuard,
    log::Pace,
    settings::CoalesceSettings,
};
use crate::{
    body,
    exchange::{self, status::CacheStatus},
    http::{
        cache_control,
        conditions::{self, Extent},
        fields,
        request_fields::Credentials,
        response_fields::{self, ResponseFields},
        rules::Rules,
        storing,
    },
    key,
};

/// After how long a client that was refused may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a body without subscribers and without a declared length may stand still. It is taken for a
/// stream without end after that.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Why a fetch ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GivenUp {
    /// It has had no subscriber for too long.
    Abandoned,
    /// Its deadline is over.
    Overdue,
}

type Panic = Box<dyn Any + Send>;

/// A fetch that is about to begin.
pub(super) struct Fetch<B, E> {
    guard: FlightGuard,
    dispatch: Dispatch<B, E>,
}

impl<B, E> Fetch<B, E>
where
    B: body::ResponseBody,
    E: Clone + Send + Sync + 'static,
{
    /// The fetch of a new flight for this request, and the leader's response. Notes in the request that
    /// several callers may get the response.
    pub(super) fn new(
        subscriber: Subscriber,
        guard: FlightGuard,
        request: &mut request::Parts,
        credentials: Credentials,
    ) -> (Self, Leader<B, E>) {
        let settings = guard.settings();
        let mut cache_request = request.extensions.get_mut::<exchange::CacheRequest>();
        if let (Some(request), Some(limit)) = (&mut cache_request, settings.fetch_deadline) {
            request.end_at(storing::after(guard.flight().started_at(), limit));
        }
        if let (Some(request), Some(place)) = (&mut cache_request, guard.flight().place()) {
            request.take_place(Arc::clone(place));
            if request.has_stale() {
                place.keep();
            }
        }
        let key_watch = cache_request.as_deref().and_then(exchange::CacheRequest::key_watch);
        let why = cache_request.as_deref().map(exchange::CacheRequest::why);
        let is_for_many = match cache_request {
            Some(request) => {
                request.note_flight();
                request.want_shareability(true)
            }
            None => {
                exchange::CacheRequest::note_bare_flight(&mut request.extensions);
                false
            }
        };
        let judge = settings.rules.as_ref().map(|rules| {
            let rules = key::RuleOverrides::rules_for(&request.extensions, rules).for_flight();
            let kind = key::kind_of(request);
            Box::new(Judge { request: exchange::without_extensions(request), kind, credentials, rules })
        });
        let (sender, outcome) = oneshot::channel();
        let leader = Leader { outcome, subscriber: Some(subscriber) };
        let dispatch = Dispatch { leader: Some(sender), judge, is_for_many, key_watch, why };
        (Self { guard, dispatch }, leader)
    }

    /// Calls `ask` in the task, wherever that runs, so that what the layers below note of the time is true.
    #[allow(clippy::manual_async_fn, reason = "an `async fn` would take up the room of `self` twice")]
    #[inline(always)]
    pub(super) fn run<F>(mut self, ask: impl FnOnce() -> F + Send) -> impl Future<Output = ()> + Send
    where
        F: Future<Output = Result<Response<B>, E>> + Send,
    {
        async move {
            // A panic is passed on to the leader; nothing is used after it.
            let fetch = match catch_unwind(AssertUnwindSafe(ask)) {
                Ok(fetch) => fetch,
                Err(panic) => return self.dispatch.panicked(&self.guard, panic),
            };
            let Some(body) = self.dispatched(fetch).await else { return };
            let limit = self.guard.settings().max_held_bytes as u64;
            if body.size_hint().upper().is_none_or(|upper| upper > limit) {
                // Callers that arrived together with the leader have to subscribe before the body turns
                // out too large and closes the flight.
                tokio::task::yield_now().await;
            }
            let pumped = AssertUnwindSafe(pump(&self.guard, body)).catch_unwind().await;
            self.guard.flight().end(pumped.unwrap_or(Err(body::BodyError::Cancelled)));
        }
    }

    /// Waits for the head, and returns the body if it is for all subscribers. They know the outcome then.
    async fn dispatched(
        &mut self,
        fetch: impl Future<Output = Result<Response<B>, E>> + Send,
    ) -> Option<body::Declared<B>> {
        let Self { guard, dispatch } = self;
        let started_at = guard.flight().started_at();
        let mut fetch = pin!(Some(fetch));
        let dispatched = {
            // In place: a response is large, and moved whenever it is handed on.
            let dispatched = poll_fn(|cx| {
                let Some(polled) = fetch.as_mut().as_pin_mut() else { return Poll::Pending };
                let response = ready!(polled.poll(cx));
                // The fetch lets go of its place at the origin before another caller may try again.
                fetch.set(None);
                Poll::Ready(dispatch.settle(guard, response))
            });
            let dispatched = pin!(AssertUnwindSafe(dispatched).catch_unwind());
            watch(guard, || started_at, None, dispatched).await
        };
        // So does one that panicked or is given up.
        fetch.set(None);
        match dispatched {
            Ok(Ok(body)) => return body,
            Ok(Err(panic)) => dispatch.panicked(guard, panic),
            Err(given_up) => dispatch.given_up(guard, given_up),
        }
        None
    }
}

/// Distributes what a fetch brings.
struct Dispatch<B, E> {
    /// `None` once the leader has its outcome.
    leader: Option<oneshot::Sender<LeaderOutcome<B, E>>>,
    /// `None`: the layers below decide for every response.
    judge: Option<Box<Judge>>,
    /// A layer above shares the response as well.
    is_for_many: bool,
    /// What has to know that the fetch has failed, before the next one can begin.
    key_watch: Option<exchange::KeyWatch>,
    /// Why the leader's request is on its way to the origin.
    why: Option<CacheStatus>,
}

impl<B, E> Dispatch<B, E>
where
    B: body::ResponseBody,
    E: Clone + Send + Sync + 'static,
{
    fn tell_leader(&mut self, outcome: LeaderOutcome<B, E>) {
        if let Some(leader) = self.leader.take() {
            _ = leader.send(outcome);
        }
    }

    fn note_failure(&self) {
        if let Some(watch) = &self.key_watch {
            watch.note_failed_fetch(None);
        }
    }

    /// Tells all callers that there will be no head, if the fetch was ended while they wait for it.
    fn given_up(&mut self, guard: &FlightGuard, why: GivenUp) {
        // What another fetch has brought is not needed.
        if !guard.flight().is_superseded() {
            self.note_failure();
        }
        if why == GivenUp::Overdue {
            guard.close();
            guard.fail(FetchOutcome::TimedOut);
            self.tell_leader(LeaderOutcome::Own(refuse(exchange::Refused::FetchTimeout, self.why)));
        }
    }

    /// Gives the panic to the leader, and tells all others that there is no head.
    fn panicked(&mut self, guard: &FlightGuard, panic: Panic) {
        self.note_failure();
        guard.close();
        guard.fail(FetchOutcome::Aborted);
        self.tell_leader(LeaderOutcome::Panic(panic));
    }

    /// Settles the flight, and returns the body if it is for all subscribers.
    fn settle(&mut self, guard: &FlightGuard, response: Result<Response<B>, E>) -> Option<body::Declared<B>> {
        match response {
            Ok(response) => self.settle_response(guard, response),
            Err(error) => {
                guard.close();
                guard.fail(FetchOutcome::Error(Arc::new(error.clone())));
                self.tell_leader(LeaderOutcome::Error(error));
                None
            }
        }
    }

    fn settle_response(
        &mut self,
        guard: &FlightGuard,
        mut response: Response<B>,
    ) -> Option<body::Declared<B>> {
        let shareability = self.shareability(guard, &mut response);
        if !shareability.is_shareable() {
            guard.close();
        }
        if self.is_for_many {
            exchange::ResponseFacts::note_shareability(response.extensions_mut(), shareability.clone());
        }
        let came_about = unwritten_status(&response, &shareability);
        if shareability.is_unshareable() {
            let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
            let bare = retry_after.map(|value| (header::RETRY_AFTER, value)).into_iter().collect();
            guard.settle(shared_head(&response, bare, came_about, shareability));
            let response = own_response(response, guard.settings(), guard.is_head());
            self.tell_leader(LeaderOutcome::Own(response));
            return None;
        }
        let length = response_fields::content_of(guard.is_head(), &response);
        let mut response = response.map(|body| body::Declared::new(body, length));
        fields::remove_hop_by_hop(response.headers_mut());
        let shared = shared_fields(response.headers_mut(), &shareability);
        if response.body().is_end_stream() {
            guard.flight().end(Ok(()));
        }
        guard.settle(shared_head(&response, shared, came_about, shareability));
        let (parts, body) = response.into_parts();
        self.tell_leader(LeaderOutcome::Shared(parts));
        Some(body)
    }

    fn shareability(&self, guard: &FlightGuard, response: &mut Response<B>) -> exchange::Shareability {
        if let Some(shareability) = exchange::ResponseFacts::take_shareability(response.extensions_mut()) {
            return shareability;
        }
        match &self.judge {
            _ if response.body().size_hint().lower() > guard.settings().max_held_bytes as u64 => {
                exchange::Shareability::unshareable(storing::NotStored::TooLarge)
            }
            // A `Fill` below was not told that the response may be shared, and may have judged it otherwise.
            Some(_) if CacheStatus::of(response).is_some_and(is_of_a_fetch) => {
                exchange::Shareability::unshareable(storing::NotStored::Policy)
            }
            Some(judge) => {
                judge.shareability(response, guard.flight().started_at(), &guard.settings().failures)
            }
            None => exchange::Shareability::unshareable(storing::NotStored::Policy),
        }
    }
}

/// Whether a layer below has fetched a response, and not refused to.
fn is_of_a_fetch(status: CacheStatus) -> bool {
    !status.is_from_store() && status.refused_reason().is_none()
}

/// The head of `response`, with the fields for all callers instead of its own.
fn shared_head<B: HttpBody>(
    response: &Response<B>,
    headers: HeaderMap,
    came_about: Option<CacheStatus>,
    shareability: exchange::Shareability,
) -> SharedHead {
    let size = response.body().size_hint().exact();
    let refused = response.extensions().get().copied();
    let (status, version) = (response.status(), response.version());
    SharedHead { status, version, headers, shareability, came_about, size, refused }
}

/// Returns the fields that all callers get. If some are withheld, `headers` keeps all for the leader.
fn shared_fields(headers: &mut HeaderMap, shareability: &exchange::Shareability) -> HeaderMap {
    let withheld = shareability.withheld();
    match has_any(headers, withheld) {
        true => {
            let mut shared = headers.clone();
            fields::remove_all(&mut shared, |name| withheld.contains(name));
            shared
        }
        false => std::mem::take(headers),
    }
}

fn has_any(headers: &HeaderMap, names: &[HeaderName]) -> bool {
    headers.keys().any(|name| names.contains(name))
}

/// How a response came about, if its fields do not say so, or will not when some of them are gone.
fn unwritten_status<B>(response: &Response<B>, shareability: &exchange::Shareability) -> Option<CacheStatus> {
    let headers = response.headers();
    let loses_fields = shareability.is_unshareable()
        || has_any(headers, shareability.withheld())
        || fields::has(headers, &header::CONNECTION);
    if loses_fields { CacheStatus::of(response) } else { response.extensions().get().copied() }
}

/// Decides which requests may share a response if no layer below has decided.
struct Judge {
    request: request::Parts,
    kind: storing::RequestKind,
    credentials: Credentials,
    rules: Rules,
}

impl Judge {
    fn shareability<B: HttpBody>(
        &self,
        response: &mut Response<B>,
        started_at: Instant,
        failures: &exchange::failures::FailurePolicy,
    ) -> exchange::Shareability {
        let request::Parts { method, headers: request, .. } = &self.request;
        let mut response_fields = ResponseFields::of(response.headers(), SystemTime::now());
        response_fields.settle_length(method, response);
        let headers = response.headers();
        let asks_for_one_part = conditions::asks_for_one_part(method, request);
        let head = storing::ResponseHead::new(response.status(), headers, &response_fields)
            .with_extent(Extent::for_all(asks_for_one_part, response.status(), headers))
            .with_breakdown(failures.is_breakdown(response.status(), headers));
        let targets = [cache_control::CDN_CACHE_CONTROL];
        let decision = storing::judge(self.kind, self.credentials, &head, &self.rules, &targets);
        let selection = response_fields.vary.selection(request);
        let received_at = Instant::now();
        let delay = received_at.saturating_duration_since(started_at);
        let ages = (delay, response_fields.initial_age(delay));
        let fresh_until = decision.terms.closes_at(received_at, ages, Duration::ZERO);
        exchange::Shareability::new(decision, selection, (received_at, fresh_until), None)
    }
}

/// What the leader gets, and no other caller.
enum LeaderOutcome<B, E> {
    /// The response is for the leader alone.
    Own(Response<body::Body<B>>),
    /// The leader reads the flight like all others, under the head as it came.
    ///
    /// The fields are with the flight, unless some are for the leader alone.
    Shared(response::Parts),
    Error(E),
    Panic(Panic),
}

/// The leader's response, once it is there.
pub(super) struct Leader<B, E> {
    outcome: oneshot::Receiver<LeaderOutcome<B, E>>,
    /// `None` once the response is there.
    subscriber: Option<Subscriber>,
}

impl<B, E> Leader<B, E> {
    /// Gives up the response for that of another flight.
    pub(super) fn leave_for_another(self) {
        if let Some(subscriber) = self.subscriber {
            subscriber.leave_for_another();
        }
    }

    pub(super) fn subscriber(&self) -> Option<&Subscriber> {
        self.subscriber.as_ref()
    }
}

impl<B, E> Future for Leader<B, E>
where
    B: body::ResponseBody,
{
    type Output = Result<Response<body::Body<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        let aborted = || refuse(exchange::Refused::FetchAborted, None);
        let subscriber = self.subscriber.take();
        Poll::Ready(match outcome {
            Ok(LeaderOutcome::Shared(head)) => {
                Ok(subscriber.map_or_else(aborted, |subscriber| leader_response(subscriber, head)))
            }
            Ok(LeaderOutcome::Own(response)) => Ok(response),
            Ok(LeaderOutcome::Error(error)) => Err(error),
            Ok(LeaderOutcome::Panic(payload)) => resume_unwind(payload),
            Err(_) => Ok(aborted()),
        })
    }
}

/// The head as it came, except for what belongs to the connection.
fn leader_response<B>(mut subscriber: Subscriber, mut head: response::Parts) -> Response<body::Body<B>> {
    if head.headers.is_empty() {
        head.headers = subscriber.take_headers();
    }
    exchange::ResponseFacts::note_shared_body(&mut head.extensions);
    let shared = subscriber.flight().head();
    let (came_about, size) = shared.map_or((None, None), |head| (head.came_about, head.size));
    // Set where the origin named the field as one of the connection.
    if let Some(came_about) = came_about
        && !head.headers.contains_key(header::CACHE_STATUS)
    {
        head.extensions.insert(came_about);
    }
    Response::from_parts(head, subscriber.into_body(size))
}

/// A response that is not shared. Its length is checked, unless a layer below does so.
pub(super) fn own_response<B>(
    response: Response<B>,
    settings: &CoalesceSettings,
    is_head: bool,
) -> Response<body::Body<B>>
where
    B: body::ResponseBody,
{
    let is_checked = settings.rules.is_some();
    let length = is_checked.then(|| response_fields::content_of(is_head, &response)).flatten();
    response.map(|body| body::Body::declared(body, length))
}

/// The response to a request that the cache does not serve, which was on its way to the origin for the
/// reason `why`.
pub(super) fn refuse<B>(refused: exchange::Refused, why: Option<CacheStatus>) -> Response<body::Body<B>> {
    let why = why.unwrap_or(CacheStatus::forwarded(exchange::status::Forward::Miss));
    refused.to_response(RETRY_AFTER, why)
}

/// Moves the body into the log, and returns how it ended.
async fn pump<B>(guard: &FlightGuard, body: B) -> Result<(), body::BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<body::BoxError>,
{
    let flight = guard.flight();
    let max_unread = guard.max_unread();
    let standstill = (!has_known_length(guard, &body)).then_some(STANDSTILL);
    let mut body = pin!(body);
    loop {
        let frame = pin!(poll_fn(|cx| body.as_mut().poll_frame(cx)));
        let frame = watch(guard, Instant::now, standstill, frame).await;
        let frame = frame.map_err(|_| body::BodyError::Cancelled)?;
        let Some(frame) = frame.transpose().map_err(body::BodyError::new)? else { return Ok(()) };
        match frame.into_data() {
            Ok(data) => {
                let is_last = body.is_end_stream();
                flight.push_data(data, is_last);
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => frame
                .into_trailers()
                .map_or((), |trailers| flight.push_trailers(shared_trailers(guard, trailers))),
        }
        keep_pace(guard, max_unread).await?;
        check_abandoned(guard)?;
        // A body that is always ready must not starve its readers.
        tokio::task::coop::consume_budget().await;
    }
}

/// Waits until there is room for more.
async fn keep_pace(guard: &FlightGuard, max_unread: u64) -> Result<(), body::BodyError> {
    loop {
        match guard.flight().pace(max_unread, guard.settings().max_read_pause).await {
            Pace::Close => guard.close(),
            Pace::Stop => return Err(body::BodyError::Cancelled),
            Pace::GoOn | Pace::Ahead | Pace::Lagging => return Ok(()),
        }
    }
}

fn has_known_length(guard: &FlightGuard, body: &impl HttpBody) -> bool {
    let is_declared = |head: &SharedHead| fields::has(&head.headers, &header::CONTENT_LENGTH);
    body.size_hint().exact().is_some() || guard.flight().head().is_some_and(is_declared)
}

/// Trailers without the fields that are withheld from all but the leader.
fn shared_trailers(guard: &FlightGuard, mut trailers: HeaderMap) -> HeaderMap {
    let withheld = guard.flight().head().map_or(&[][..], |head| head.shareability.withheld());
    fields::clean_trailers(&mut trailers, withheld);
    trailers
}

/// What a wait for a head or for a part of a body ended with.
enum Event<T> {
    Output(T),
    /// A reader has moved on, or the last subscriber has left.
    Moved,
    Due,
}

/// Waits for `future`. After `max_flight_age`, counted from `since`, the flight takes no more callers and
/// returns its permit; the fetch ends only if it has been without subscribers for too long, or at its
/// deadline.
async fn watch<T>(
    guard: &FlightGuard,
    since: impl FnOnce() -> Instant,
    standstill: Option<Duration>,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, GivenUp> {
    // What is there already needs no clock.
    if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        return Ok(output);
    }
    let (flight, began) = (guard.flight(), since());
    let mut closes_at = Some(storing::after(began, guard.settings().max_flight_age));
    let overdue_at = guard.settings().fetch_deadline.map(|limit| storing::after(began, limit));
    // The future will wake this task: to poll it again in the same turn would delay other tasks.
    let mut was_polled = true;
    loop {
        let moved = flight.moved();
        let unread = flight.unread_since();
        let ends_at = unread.map(|unread| ends_at(guard, unread, began, standstill));
        let due = closes_at.into_iter().chain(ends_at).chain(overdue_at).min();
        match next_event(future.as_mut(), moved, due, std::mem::take(&mut was_polled)).await {
            Event::Output(output) => return Ok(output),
            Event::Moved => continue,
            Event::Due => {}
        }
        let now = Instant::now();
        if overdue_at.is_some_and(|at| at <= now) {
            return Err(GivenUp::Overdue);
        }
        if closes_at.take_if(|at| *at <= now).is_some() {
            guard.release();
        }
        if let (Some(unread), Some(ends_at)) = (unread, ends_at)
            && ends_at <= now
            && flight.close_if_unread_since(unread)
        {
            return Err(GivenUp::Abandoned);
        }
    }
}

/// Waits for whatever comes first. `is_polled`: the future has just been polled.
async fn next_event<T>(
    mut future: Pin<&mut impl Future<Output = T>>,
    moved: impl Future<Output = ()>,
    due: Option<Instant>,
    mut is_polled: bool,
) -> Event<T> {
    let (mut moved, mut due) = (pin!(moved), pin!(due.map(sleep_until)));
    poll_fn(|cx| {
        if !std::mem::take(&mut is_polled)
            && let Poll::Ready(output) = future.as_mut().poll(cx)
        {
            return Poll::Ready(Event::Output(output));
        }
        if moved.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Moved);
        }
        due.as_mut().as_pin_mut().map_or(Poll::Pending, |due| due.poll(cx).map(|()| Event::Due))
    })
    .await
}

/// As [`watch`], for a body that is always ready.
fn check_abandoned(guard: &FlightGuard) -> Result<(), body::BodyError> {
    let flight = guard.flight();
    match flight.unread_since() {
        Some(unread)
            if ends_at(guard, unread, unread, None) <= Instant::now()
                && flight.close_if_unread_since(unread) =>
        {
            Err(body::BodyError::Cancelled)
        }
        _ => Ok(()),
    }
}

/// When a fetch ends that has had no subscriber since `unread`, and has waited for the same thing since
/// `waits_since`.
fn ends_at(
    guard: &FlightGuard,
    unread: Instant,
    waits_since: Instant,
    standstill: Option<Duration>,
) -> Instant {
    if guard.flight().is_superseded() || guard.flight().is_of_no_use_in_queue() {
        return unread;
    }
    let at = storing::after(unread, guard.settings().abandoned_deadline);
    standstill.map_or(at, |standstill| at.min(storing::after(unread.max(waits_since), standstill)))
}
