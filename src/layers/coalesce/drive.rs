//! The task that drives a fetch.

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
    flight::{Flight, Outcome},
    landing::Landing,
    log::Pace,
    slots::FlightGuard,
};
use crate::{
    body::{BodyError, BoxError, Declared},
    http::{
        fields::{clean_trailers, has},
        freshness::after,
    },
};

/// A fetch that is about to begin.
pub(super) struct FetchTask<B, E> {
    pub(super) seat: FlightGuard,
    pub(super) landing: Landing<B, E>,
}

impl<B, E> FetchTask<B, E>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
    E: Clone + Send + Sync + 'static,
{
    /// Asks in the task, wherever that runs: what the layers below note of the time is true then.
    #[allow(clippy::manual_async_fn, reason = "an `async fn` would take up the room of `self` twice")]
    pub(super) fn run<F>(mut self, ask: impl FnOnce() -> F + Send) -> impl Future<Output = ()> + Send
    where
        F: Future<Output = Result<Response<B>, E>> + Send,
    {
        async move {
            // A panic is passed on to the caller who would have seen it; nothing is used after it.
            let fetch = match catch_unwind(AssertUnwindSafe(ask)) {
                Ok(fetch) => fetch,
                Err(panic) => return self.landing.panicked(&self.seat, panic),
            };
            let Some(body) = self.landed(fetch).await else { return };
            let limit = self.seat.settings().max_held_bytes as u64;
            if body.size_hint().upper().is_none_or(|upper| upper > limit) {
                // The first caller need not be the only one: who comes with him has to be aboard
                // before the body turns out too large and closes the flight.
                tokio::task::yield_now().await;
            }
            let pumped = AssertUnwindSafe(pump(&self.seat, body)).catch_unwind().await;
            self.seat.flight().end(pumped.unwrap_or(Err(BodyError::Cancelled)));
        }
    }

    /// Waits for a head, and returns the body if it is for all callers. That there is none is known to
    /// all of them after that.
    async fn landed(
        &mut self,
        fetch: impl Future<Output = Result<Response<B>, E>> + Send,
    ) -> Option<Declared<B>> {
        let Self { seat, landing } = self;
        let flight = seat.flight();
        let mut fetch = pin!(Some(fetch));
        let landed = {
            // At once: a response is large, and moved whenever it is handed on.
            let landed = poll_fn(|cx| {
                let Some(asked) = fetch.as_mut().as_pin_mut() else { return Poll::Pending };
                let answer = ready!(asked.poll(cx));
                // It has let go of its place at the origin before anybody may try again.
                fetch.set(None);
                Poll::Ready(landing.take(seat, answer))
            });
            let landed = pin!(AssertUnwindSafe(landed).catch_unwind());
            seat.watch(|| flight.started_at, None, landed).await
        };
        // So has what is given up.
        fetch.set(None);
        match landed {
            Ok(Ok(body)) => return body,
            Ok(Err(panic)) => landing.panicked(seat, panic),
            Err(Abandoned) => {}
        }
        None
    }
}

/// The fetch has had no caller for too long.
struct Abandoned;

/// A body that has no reader, and that does not say where it ends, is taken for a stream without end
/// when nothing comes for so long.
const STANDSTILL: Duration = Duration::from_secs(1);

/// What a wait for a head or for a part of a body ended with.
enum Event<T> {
    Output(T),
    /// Readers have moved on, or the last caller has left.
    Moved,
    Due,
}

impl FlightGuard {
    /// Waits for what is next. After `max_flight_age`, counted `since` then, the fetch takes on no more
    /// callers and gives up its place; it ends only if it has no caller.
    async fn watch<T>(
        &self,
        since: impl FnOnce() -> Instant,
        standstill: Option<Duration>,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Abandoned> {
        // What is there already needs no clock.
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Ok(output);
        }
        // What is not will wake this task: to ask again in the same turn would keep others from theirs.
        let mut is_asked = true;
        let (flight, began) = (self.flight(), since());
        let mut closes_at = Some(after(began, self.settings().max_flight_age));
        loop {
            let mut moved = pin!(flight.moved());
            let unread = flight.unread_since();
            let ends_at = unread.map(|unread| self.ends_at(unread, began, standstill));
            let mut due = pin!(closes_at.into_iter().chain(ends_at).min().map(sleep_until));
            let event = poll_fn(|cx| {
                if !std::mem::take(&mut is_asked)
                    && let Poll::Ready(output) = future.as_mut().poll(cx)
                {
                    return Poll::Ready(Event::Output(output));
                }
                if moved.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Moved);
                }
                match due.as_mut().as_pin_mut() {
                    Some(due) => due.poll(cx).map(|()| Event::Due),
                    None => Poll::Pending,
                }
            });
            match event.await {
                Event::Output(output) => return Ok(output),
                Event::Moved => {}
                Event::Due => {
                    let now = Instant::now();
                    if closes_at.is_some_and(|at| at <= now) {
                        self.release();
                        closes_at = None;
                    }
                    if let (Some(unread), Some(at)) = (unread, ends_at)
                        && at <= now
                        && flight.close_if_unread_since(unread)
                    {
                        return Err(Abandoned);
                    }
                }
            }
        }
    }

    /// When a fetch ends that has had no caller since then.
    fn ends_at(&self, unread: Instant, waits_since: Instant, standstill: Option<Duration>) -> Instant {
        if self.flight().is_needless() {
            return unread;
        }
        let at = after(unread, self.settings().abandoned_deadline);
        standstill.map_or(at, |standstill| at.min(after(unread.max(waits_since), standstill)))
    }

    /// The same of a body that never lets anything wait.
    fn check_abandoned(&self) -> Result<(), BodyError> {
        match self.flight().unread_since() {
            Some(unread)
                if self.ends_at(unread, unread, None) <= Instant::now()
                    && self.flight().close_if_unread_since(unread) =>
            {
                Err(BodyError::Cancelled)
            }
            _ => Ok(()),
        }
    }
}

/// Trailers are fields like others, for those who may have them.
fn shared_trailers(mut trailers: HeaderMap, flight: &Flight) -> HeaderMap {
    let withheld = match flight.outcome() {
        Some(Outcome::Head(head)) => head.verdict.withheld(),
        _ => &[],
    };
    clean_trailers(&mut trailers, withheld);
    trailers
}

/// Moves the body into the log, and says how it ended.
async fn pump<B>(seat: &FlightGuard, body: B) -> Result<(), BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let flight = seat.flight();
    let unread = seat.unread();
    let standstill = (!says_where_it_ends(flight, &body)).then_some(STANDSTILL);
    let mut body = pin!(body);
    loop {
        let frame = pin!(poll_fn(|cx| body.as_mut().poll_frame(cx)));
        let frame = seat.watch(Instant::now, standstill, frame).await;
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
                .map_or((), |trailers| flight.push_trailers(shared_trailers(trailers, flight))),
        }
        keep_pace(seat, unread).await?;
        seat.check_abandoned()?;
        // A body that is always ready must not starve its readers.
        tokio::task::coop::consume_budget().await;
    }
}

/// Waits until there is room for more.
async fn keep_pace(seat: &FlightGuard, unread: u64) -> Result<(), BodyError> {
    loop {
        match seat.flight().pace(unread, seat.settings().max_read_pause).await {
            Pace::Close => seat.close(),
            Pace::Stop => return Err(BodyError::Cancelled),
            _ => return Ok(()),
        }
    }
}

/// Whether it is known how long the body is.
fn says_where_it_ends(flight: &Flight, body: &impl HttpBody) -> bool {
    let is_declared = |outcome: &Outcome| match outcome {
        Outcome::Head(head) => has(&head.headers, &header::CONTENT_LENGTH),
        _ => false,
    };
    body.size_hint().exact().is_some() || flight.outcome().is_some_and(is_declared)
}
