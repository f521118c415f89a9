//! The task that runs a fetch: it asks for the response, dispatches the head, and pumps the body into the
//! flight.
//!
//! No client can cancel it. It ends early only if it has had no subscriber for too long, which
//! [`watch`] looks for while it waits.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Response, header};
use http_body::Body as HttpBody;
use tokio::time::{Instant, sleep_until};

use super::{
    dispatch::Dispatch,
    flights::FlightGuard,
    log::Pace,
    outcome::{FetchOutcome, SharedHead},
};
use crate::{
    body::{BodyError, BoxError, Declared},
    http::{fields, freshness::after},
};

/// How long a body without subscribers and without a declared length may stand still. It is taken for a
/// stream without end after that.
const STANDSTILL: Duration = Duration::from_secs(1);

/// The fetch has had no subscriber for too long.
struct Abandoned;

/// A fetch that is about to begin.
pub(super) struct FetchTask<B, E> {
    guard: FlightGuard,
    dispatch: Dispatch<B, E>,
}

impl<B, E> FetchTask<B, E>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
    E: Clone + Send + Sync + 'static,
{
    pub(super) fn new(guard: FlightGuard, dispatch: Dispatch<B, E>) -> Self {
        Self { guard, dispatch }
    }

    /// Calls `ask` in the task, wherever that runs, so that what the layers below note of the time is true.
    #[allow(clippy::manual_async_fn, reason = "an `async fn` would take up the room of `self` twice")]
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
            self.guard.flight().end(pumped.unwrap_or(Err(BodyError::Cancelled)));
        }
    }

    /// Waits for the head, and returns the body if it is for all subscribers. They know the outcome then.
    async fn dispatched(
        &mut self,
        fetch: impl Future<Output = Result<Response<B>, E>> + Send,
    ) -> Option<Declared<B>> {
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
            Err(Abandoned) => {}
        }
        None
    }
}

/// Moves the body into the log, and returns how it ended.
async fn pump<B>(guard: &FlightGuard, body: B) -> Result<(), BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let flight = guard.flight();
    let max_unread = guard.max_unread();
    let standstill = (!has_known_length(guard, &body)).then_some(STANDSTILL);
    let mut body = pin!(body);
    loop {
        let frame = pin!(poll_fn(|cx| body.as_mut().poll_frame(cx)));
        let frame = watch(guard, Instant::now, standstill, frame).await;
        let frame = frame.map_err(|Abandoned| BodyError::Cancelled)?;
        let Some(frame) = frame.transpose().map_err(BodyError::new)? else { return Ok(()) };
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
async fn keep_pace(guard: &FlightGuard, max_unread: u64) -> Result<(), BodyError> {
    loop {
        match guard.flight().pace(max_unread, guard.settings().max_read_pause).await {
            Pace::Close => guard.close(),
            Pace::Stop => return Err(BodyError::Cancelled),
            Pace::GoOn | Pace::Ahead | Pace::Lagging => return Ok(()),
        }
    }
}

fn has_known_length(guard: &FlightGuard, body: &impl HttpBody) -> bool {
    let is_declared = |head: &SharedHead| fields::has(head.headers(), &header::CONTENT_LENGTH);
    body.size_hint().exact().is_some() || shared_head(guard).is_some_and(is_declared)
}

/// Trailers without the fields that are withheld from all but the leader.
fn shared_trailers(guard: &FlightGuard, mut trailers: HeaderMap) -> HeaderMap {
    let withheld = shared_head(guard).map_or(&[][..], |head| head.verdict().withheld());
    fields::clean_trailers(&mut trailers, withheld);
    trailers
}

fn shared_head(guard: &FlightGuard) -> Option<&SharedHead> {
    guard.flight().outcome().and_then(FetchOutcome::head)
}

/// What a wait for a head or for a part of a body ended with.
enum Event<T> {
    Output(T),
    /// A reader has moved on, or the last subscriber has left.
    Moved,
    Due,
}

/// Waits for `future`. After `max_flight_age`, counted from `since`, the flight takes no more callers and
/// returns its permit; the fetch ends only if it has been without subscribers for too long.
async fn watch<T>(
    guard: &FlightGuard,
    since: impl FnOnce() -> Instant,
    standstill: Option<Duration>,
    mut future: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Abandoned> {
    // What is there already needs no clock.
    if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        return Ok(output);
    }
    let (flight, began) = (guard.flight(), since());
    let mut closes_at = Some(after(began, guard.settings().max_flight_age));
    // The future will wake this task: to poll it again in the same turn would delay other tasks.
    let mut was_polled = true;
    loop {
        let mut moved = pin!(flight.moved());
        let unread = flight.unread_since();
        let ends_at = unread.map(|unread| ends_at(guard, unread, began, standstill));
        let mut due = pin!(closes_at.into_iter().chain(ends_at).min().map(sleep_until));
        let event = poll_fn(|cx| {
            if !std::mem::take(&mut was_polled)
                && let Poll::Ready(output) = future.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Output(output));
            }
            if moved.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Moved);
            }
            due.as_mut().as_pin_mut().map_or(Poll::Pending, |due| due.poll(cx).map(|()| Event::Due))
        });
        match event.await {
            Event::Output(output) => return Ok(output),
            Event::Moved => continue,
            Event::Due => {}
        }
        let now = Instant::now();
        if closes_at.take_if(|at| *at <= now).is_some() {
            guard.release();
        }
        if let (Some(unread), Some(ends_at)) = (unread, ends_at)
            && ends_at <= now
            && flight.close_if_unread_since(unread)
        {
            return Err(Abandoned);
        }
    }
}

/// As [`watch`], for a body that is always ready.
fn check_abandoned(guard: &FlightGuard) -> Result<(), BodyError> {
    let flight = guard.flight();
    match flight.unread_since() {
        Some(unread)
            if ends_at(guard, unread, unread, None) <= Instant::now()
                && flight.close_if_unread_since(unread) =>
        {
            Err(BodyError::Cancelled)
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
    if guard.flight().is_superseded() {
        return unread;
    }
    let at = after(unread, guard.settings().abandoned_deadline);
    standstill.map_or(at, |standstill| at.min(after(unread.max(waits_since), standstill)))
}
