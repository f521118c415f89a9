//! The task that drives a fetch.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};
use tokio::time::Instant;

use super::{
    flight::{Flight, Outcome},
    landing::{Delivery, Landing},
    layer::Settings,
    log::Pace,
    slots::Seat,
};
use crate::{
    body::{BodyError, BoxError, Declared},
    exchange::{Refused, Verdict},
    http::{fields::clean_trailers, freshness::after},
};

/// A fetch that is about to begin.
pub(super) struct Drive<B, E> {
    pub(super) seat: Seat,
    pub(super) landing: Landing<B, E>,
}

impl<B, E> Drive<B, E>
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
                Err(panic) => return self.landing.deliver(Delivery::Panic(panic)),
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
            seat.settings().in_time(flight, || flight.started_at, landed).await
        };
        // So has what is given up.
        fetch.set(None);
        match landed {
            Ok(Ok(body)) => return body,
            Ok(Err(panic)) => landing.deliver(Delivery::Panic(panic)),
            Err(GivenUp::Late) => {
                seat.close();
                flight.settle(Outcome::Refused(Refused::FetchTimeout));
            }
            Err(GivenUp::Abandoned) => {}
        }
        None
    }
}

/// Why something is not waited for any longer.
enum GivenUp {
    /// It took too long.
    Late,
    /// The last caller left first, and that is to end the fetch.
    Abandoned,
}

impl Settings {
    /// What there is within the time that a fetch has for it, counted `since` then.
    async fn in_time<T>(
        &self,
        flight: &Flight,
        since: impl FnOnce() -> Instant,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, GivenUp> {
        // What is there already needs no clock.
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Ok(output);
        }
        // What is not will wake this task: to ask again in the same turn would keep others from theirs.
        let mut is_asked = true;
        let rest = poll_fn(|cx| match std::mem::take(&mut is_asked) {
            true => Poll::Pending,
            false => future.as_mut().poll(cx),
        });
        let rest = tokio::time::timeout_at(after(since(), self.max_flight_age), rest);
        if !self.cancel_when_abandoned {
            return rest.await.map_err(|_| GivenUp::Late);
        }
        match select(pin!(rest), pin!(flight.abandoned())).await {
            Either::Left((output, _)) => output.map_err(|_| GivenUp::Late),
            Either::Right(_) => Err(GivenUp::Abandoned),
        }
    }
}

/// Trailers are fields like others, for those who may have them.
fn shared_trailers(mut trailers: HeaderMap, flight: &Flight) -> HeaderMap {
    let withheld = match flight.outcome() {
        Some(Outcome::Head(head)) => match &head.verdict {
            Verdict::Shareable { withheld, .. } => withheld.as_slice(),
            _ => &[],
        },
        _ => &[],
    };
    clean_trailers(&mut trailers, withheld);
    trailers
}

/// Moves the body into the log, and says how it ended.
async fn pump<B>(seat: &Seat, body: B) -> Result<(), BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (flight, settings) = (seat.flight(), seat.settings());
    let unread = seat.unread();
    let mut body = pin!(body);
    loop {
        let Some(frame) = next_frame(flight, settings, body.as_mut()).await? else { return Ok(()) };
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
        // A body that is always ready must not starve its readers.
        tokio::task::coop::consume_budget().await;
    }
}

/// Waits until there is room for more.
async fn keep_pace(seat: &Seat, unread: u64) -> Result<(), BodyError> {
    loop {
        match seat.flight().pace(unread, seat.settings().max_read_pause).await {
            Pace::Close => seat.close(),
            Pace::Stop => return Err(BodyError::Cancelled),
            _ => return Ok(()),
        }
    }
}

async fn next_frame<B>(
    flight: &Flight,
    settings: &Settings,
    mut body: Pin<&mut B>,
) -> Result<Option<Frame<Bytes>>, BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let frame = pin!(poll_fn(|cx| body.as_mut().poll_frame(cx)));
    match settings.in_time(flight, Instant::now, frame).await {
        Ok(frame) => frame.transpose().map_err(BodyError::new),
        Err(GivenUp::Late) => Err(BodyError::Stalled),
        Err(GivenUp::Abandoned) => Err(BodyError::Cancelled),
    }
}
