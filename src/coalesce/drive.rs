//! The task that drives a fetch.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use http::{HeaderMap, Response, StatusCode, header, request::Parts, response};
use http_body::{Body as HttpBody, Frame};
use tokio::{sync::oneshot, time::Instant};

use super::{
    flight::{Flight, Head, Outcome, Pace},
    layer::Settings,
    slots::Seat,
};
use crate::{
    body::{BodyError, BoxError},
    exchange::{Refused, Verdict},
    http::{
        fields::{clean_trailers, has, remove_all, remove_hop_by_hop},
        freshness::{after, initial_age},
        outline::Outline,
        range::Extent,
        rules::Rules,
        storing::{CDN_CACHE_CONTROL, Credentials, Unshareable, decide},
    },
    status::{CacheStatus, Forward},
};

type Panic = Box<dyn Any + Send>;

/// What the caller who started the fetch gets that nobody else does.
pub(super) enum Delivery<B, E> {
    /// The answer is for him alone.
    Own(Response<B>),
    /// He reads the log like all others, under the head as it came.
    ///
    /// Its fields are with the flight, unless some are for him alone.
    Shared(response::Parts),
    Error(E),
    Panic(Panic),
}

/// A fetch that is about to begin.
pub(super) struct Drive<B, E> {
    pub(super) seat: Seat,
    pub(super) landing: Landing<B, E>,
}

/// What is done with what a fetch brings.
pub(super) struct Landing<B, E> {
    /// `None` once he has what is his.
    pub(super) leader: Option<oneshot::Sender<Delivery<B, E>>>,
    /// `None`: every answer comes with a verdict.
    pub(super) judge: Option<Box<Judge>>,
    /// Somebody above shares it as well.
    pub(super) is_for_more: bool,
}

/// Who says whose an answer is that comes without a verdict.
pub(super) struct Judge {
    pub(super) request: Parts,
    pub(super) rules: Rules,
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
    async fn landed(&mut self, fetch: impl Future<Output = Result<Response<B>, E>> + Send) -> Option<B> {
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

impl<B, E> Landing<B, E>
where
    B: HttpBody<Data = Bytes>,
    E: Clone + Send + Sync + 'static,
{
    fn deliver(&mut self, delivery: Delivery<B, E>) {
        if let Some(leader) = self.leader.take() {
            _ = leader.send(delivery);
        }
    }

    /// Tells all callers of what came, and returns the body if it is for all of them.
    fn take(&mut self, seat: &Seat, answer: Result<Response<B>, E>) -> Option<B> {
        match answer {
            Ok(response) => self.land(seat, response),
            Err(error) => {
                seat.close();
                seat.flight().settle(Outcome::Error(Arc::new(error.clone())));
                self.deliver(Delivery::Error(error));
                None
            }
        }
    }

    fn land(&mut self, seat: &Seat, mut response: Response<B>) -> Option<B> {
        let flight = seat.flight();
        let verdict = self.verdict(seat, &mut response);
        if !matches!(verdict, Verdict::Shareable { .. }) {
            seat.close();
        }
        if self.is_for_more {
            response.extensions_mut().insert(verdict.clone());
        }
        let came_about = unwritten_status(&response, &verdict);
        if let Verdict::Unshareable(_) = verdict {
            let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
            let bare = retry_after.map(|value| (header::RETRY_AFTER, value)).into_iter().collect();
            flight.settle(Outcome::Head(Box::new(Head::new(&response, bare, came_about, verdict))));
            self.deliver(Delivery::Own(response));
            return None;
        }
        remove_hop_by_hop(response.headers_mut());
        let fields = shared_fields(response.headers_mut(), &verdict);
        if response.body().is_end_stream() {
            flight.end(Ok(()));
        }
        flight.settle(Outcome::Head(Box::new(Head::new(&response, fields, came_about, verdict))));
        let (parts, body) = response.into_parts();
        self.deliver(Delivery::Shared(parts));
        Some(body)
    }

    fn verdict(&self, seat: &Seat, response: &mut Response<B>) -> Verdict {
        if let Some(verdict) = response.extensions_mut().remove() {
            return verdict;
        }
        match &self.judge {
            _ if response.body().size_hint().lower() > seat.settings().max_held_bytes as u64 => {
                Verdict::Unshareable(Unshareable::TooLarge)
            }
            // A `Fill` below has not heard that somebody may share it, and may have known better.
            Some(_) if CacheStatus::of(response).is_some_and(|status| !status.is_hit()) => {
                Verdict::Unshareable(Unshareable::Rules)
            }
            Some(judge) => judge.verdict(response, seat.flight().started_at),
            None => Verdict::Unshareable(Unshareable::Rules),
        }
    }
}

impl Judge {
    fn verdict<B>(&self, response: &Response<B>, started_at: Instant) -> Verdict {
        let headers = response.headers();
        let outline = Outline::of(headers, SystemTime::now());
        let targets = [CDN_CACHE_CONTROL];
        let Parts { method, headers: request, .. } = &self.request;
        let extent = Extent::for_all(method, request, response.status(), headers);
        let status = extent.map_or(response.status(), |_| StatusCode::OK);
        let credentials = Credentials::of(request);
        let decision = decide(&self.request, credentials, status, headers, &outline, &self.rules, &targets);
        let selection = outline.vary.selection(&self.request.headers);
        let received_at = Instant::now();
        let delay = received_at.saturating_duration_since(started_at);
        let age = if decision.terms.is_ours { delay } else { initial_age(&outline, delay) };
        let fresh_until = after(received_at, decision.terms.fresh_for.saturating_sub(age));
        Verdict::new(decision, selection, (received_at, fresh_until), None)
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

/// The fields that all callers get. The first one has more of his own only where some are withheld
/// from the others.
fn shared_fields(headers: &mut HeaderMap, verdict: &Verdict) -> HeaderMap {
    match verdict {
        Verdict::Shareable { withheld, .. } if !withheld.is_empty() => {
            let mut shared = headers.clone();
            remove_all(&mut shared, |name| withheld.contains(name));
            shared
        }
        _ => std::mem::take(headers),
    }
}

impl Head {
    /// With the fields for all callers. What is for one alone leaves them `Retry-After`.
    pub(super) fn new<B: HttpBody>(
        response: &Response<B>,
        headers: HeaderMap,
        came_about: Option<CacheStatus>,
        verdict: Verdict,
    ) -> Self {
        let size = response.body().size_hint().exact();
        Self { status: response.status(), version: response.version(), headers, verdict, came_about, size }
    }

    /// How it came about for those who share it.
    pub(super) fn collapsed(&self) -> CacheStatus {
        let shown = || CacheStatus::shown(&self.headers);
        self.came_about.or_else(shown).unwrap_or(CacheStatus::forwarded(Forward::Miss)).collapsed()
    }
}

/// How a response came about, if its fields do not say it, or will not when some of them are gone.
fn unwritten_status<B>(response: &Response<B>, verdict: &Verdict) -> Option<CacheStatus> {
    let loses_fields = match verdict {
        Verdict::Shareable { withheld, .. } => !withheld.is_empty(),
        Verdict::Unshareable(_) => true,
        Verdict::Failed { .. } => false,
    };
    match loses_fields || has(response.headers(), &header::CONNECTION) {
        true => CacheStatus::of(response),
        false => response.extensions().get().copied(),
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
        keep_pace(seat).await?;
        // A body that is always ready must not starve its readers.
        tokio::task::coop::consume_budget().await;
    }
}

/// Waits until there is room for more.
async fn keep_pace(seat: &Seat) -> Result<(), BodyError> {
    loop {
        match seat.flight().pace().await {
            Pace::GoOn => return Ok(()),
            Pace::Close => seat.close(),
            Pace::Stop => return Err(BodyError::Cancelled),
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
