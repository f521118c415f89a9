//! The task that drives a fetch.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use http::{HeaderMap, Response, StatusCode, request::Parts, response};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
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
        fields::{clean_trailers, remove_all, remove_hop_by_hop},
        freshness::{after, initial_age},
        outline::Outline,
        range::Extent,
        rules::Rules,
        storing::{CDN_CACHE_CONTROL, Unshareable, decide},
    },
    status::{CacheStatus, Forward},
};

/// What the caller who started the fetch gets that nobody else does.
pub(super) enum Delivery<B, E> {
    /// The answer is for him alone.
    Own(Response<B>),
    /// He reads the log like all others, under the head as it came.
    Shared(Box<response::Parts>),
    Error(E),
    Panic(Box<dyn Any + Send>),
}

/// A fetch that is about to begin.
pub(super) struct Drive<B, E> {
    pub(super) seat: Seat,
    pub(super) leader: oneshot::Sender<Delivery<B, E>>,
    pub(super) settings: Arc<Settings>,
    /// The head of the request, for judging an answer that comes without a verdict, and by which
    /// rules that is done.
    pub(super) request: Parts,
    pub(super) rules: Rules,
}

impl<B, E> Drive<B, E>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
    E: Clone + Send + Sync + 'static,
{
    pub(super) async fn run(self, fetch: impl Future<Output = Result<Response<B>, E>> + Send) {
        let flight = Arc::clone(self.seat.flight());
        let deadline = after(flight.started_at, self.settings.max_flight_age);
        // A panic is passed on to the caller who would have seen it; nothing is used after it.
        let fetch = tokio::time::timeout_at(deadline, AssertUnwindSafe(fetch).catch_unwind());
        let Some(fetched) = self.settings.unless_abandoned(&flight, fetch).await else { return };
        match fetched {
            Ok(Ok(Ok(response))) => self.answer(&flight, response).await,
            Ok(Ok(Err(error))) => {
                self.seat.close();
                flight.settle(Outcome::Error(Arc::new(error.clone())));
                _ = self.leader.send(Delivery::Error(error));
            }
            Ok(Err(panic)) => _ = self.leader.send(Delivery::Panic(panic)),
            Err(_) => {
                self.seat.close();
                flight.settle(Outcome::Refused(Refused::FetchTimeout));
            }
        }
    }

    async fn answer(self, flight: &Flight, response: Response<B>) {
        let verdict = self.verdict(&response);
        let head = shared_head(&response, verdict.clone());
        if !matches!(verdict, Verdict::Shareable { .. }) {
            self.seat.close();
        }
        if matches!(verdict, Verdict::Unshareable(_)) {
            flight.settle(Outcome::Head(Box::new(head)));
            _ = self.leader.send(Delivery::Own(response));
            return;
        }
        let (parts, body) = response.into_parts();
        if body.is_end_stream() {
            flight.end(Ok(()));
        }
        flight.settle(Outcome::Head(Box::new(head)));
        _ = self.leader.send(Delivery::Shared(Box::new(parts)));
        if body.size_hint().upper().is_none_or(|upper| upper > self.settings.max_held_bytes as u64) {
            // The first caller need not be the only one: who comes with him has to be aboard before
            // the body turns out too large and closes the flight.
            tokio::task::yield_now().await;
        }
        let pumped = AssertUnwindSafe(pump(flight, &self.seat, &self.settings, body)).catch_unwind().await;
        flight.end(pumped.unwrap_or(Err(BodyError::Cancelled)));
    }

    fn verdict(&self, response: &Response<B>) -> Verdict {
        if let Some(verdict) = response.extensions().get::<Verdict>() {
            return verdict.clone();
        }
        if response.body().size_hint().lower() > self.settings.max_held_bytes as u64 {
            return Verdict::Unshareable(Unshareable::TooLarge);
        }
        let headers = response.headers();
        let outline = Outline::of(headers, SystemTime::now());
        let targets = [CDN_CACHE_CONTROL];
        let Parts { method, headers: request, .. } = &self.request;
        let extent = Extent::for_all(method, request, response.status(), headers);
        let status = extent.map_or(response.status(), |_| StatusCode::OK);
        let decision = decide(&self.request, status, headers, &outline, &self.rules, &targets);
        let selection = outline.vary.selection(&self.request.headers);
        let delay = self.seat.flight().started_at.elapsed();
        let age = if decision.terms.is_ours { delay } else { initial_age(&outline, delay) };
        let fresh_until = after(Instant::now(), decision.terms.fresh_for.saturating_sub(age));
        Verdict::new(decision, selection, fresh_until, None)
    }
}

impl Settings {
    /// `None` if the last caller left first, and that is to end the fetch.
    async fn unless_abandoned<T>(&self, flight: &Flight, future: impl Future<Output = T>) -> Option<T> {
        if !self.cancel_when_abandoned {
            return Some(future.await);
        }
        match select(pin!(future), pin!(flight.abandoned())).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

/// What all callers get of the head: the message, and nothing of the connection or of the one
/// who asked for it.
fn shared_head<B: HttpBody>(response: &Response<B>, verdict: Verdict) -> Head {
    let mut headers = response.headers().clone();
    remove_hop_by_hop(&mut headers);
    if let Verdict::Shareable { withheld, .. } = &verdict {
        remove_all(&mut headers, |name| withheld.contains(name));
    }
    Head {
        status: response.status(),
        version: response.version(),
        headers,
        verdict,
        came_about: CacheStatus::of(response).unwrap_or(CacheStatus::forwarded(Forward::Miss)),
        received_at: Instant::now(),
        size: response.body().size_hint().exact(),
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
async fn pump<B>(flight: &Flight, seat: &Seat, settings: &Settings, body: B) -> Result<(), BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    loop {
        match flight.pace().await {
            Pace::GoOn => {}
            Pace::Close => {
                seat.close();
                continue;
            }
            Pace::Stop => return Err(BodyError::Cancelled),
        }
        let frame = tokio::time::timeout(settings.max_flight_age, body.frame());
        let frame = match settings.unless_abandoned(flight, frame).await {
            None => return Err(BodyError::Cancelled),
            Some(Err(_)) => return Err(BodyError::Stalled),
            Some(Ok(None)) => return Ok(()),
            Some(Ok(Some(Err(error)))) => return Err(BodyError::new(error)),
            Some(Ok(Some(Ok(frame)))) => frame,
        };
        match frame.into_data() {
            Ok(data) => flight.push_data(data, body.is_end_stream()),
            Err(frame) => frame
                .into_trailers()
                .map_or((), |trailers| flight.push_trailers(shared_trailers(trailers, flight))),
        }
        // A body that is always ready must not starve its readers.
        tokio::task::coop::consume_budget().await;
    }
}
