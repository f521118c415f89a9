//! What is done with what a fetch brings.

use std::{any::Any, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode, header, request::Parts, response};
use http_body::Body as HttpBody;
use tokio::{sync::oneshot, time::Instant};

use super::{
    flight::{Head, Outcome},
    slots::FlightGuard,
};
use crate::{
    body::{BoxError, Declared},
    exchange::Verdict,
    exchange::failures::FailurePolicy,
    exchange::status::{CacheStatus, Forward},
    http::{
        credentials::Credentials,
        fields::{has, remove_all, remove_hop_by_hop},
        freshness::{after, initial_age},
        range::Extent,
        response_fields::ResponseFields,
        rules::Rules,
        storing::{CDN_CACHE_CONTROL, Judged, Unshareable, decide},
    },
};

type Panic = Box<dyn Any + Send>;

/// What the caller that started the fetch gets, and no other caller.
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

/// Tells those who wait for it, and keeps apart what is for one alone.
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
    pub(super) credentials: Credentials,
    pub(super) rules: Rules,
}

impl<B, E> Landing<B, E>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
    E: Clone + Send + Sync + 'static,
{
    pub(super) fn deliver(&mut self, delivery: Delivery<B, E>) {
        if let Some(leader) = self.leader.take() {
            _ = leader.send(delivery);
        }
    }

    /// Gives the panic to the caller who would have seen it, and tells all others that there is no head.
    pub(super) fn panicked(&mut self, seat: &FlightGuard, panic: Panic) {
        seat.close();
        seat.fail(Outcome::Aborted);
        self.deliver(Delivery::Panic(panic));
    }

    /// Tells all callers of what came, and returns the body if it is for all of them.
    pub(super) fn take(&mut self, seat: &FlightGuard, answer: Result<Response<B>, E>) -> Option<Declared<B>> {
        match answer {
            Ok(response) => self.land(seat, response),
            Err(error) => {
                seat.close();
                seat.fail(Outcome::Error(Arc::new(error.clone())));
                self.deliver(Delivery::Error(error));
                None
            }
        }
    }

    fn land(&mut self, seat: &FlightGuard, mut response: Response<B>) -> Option<Declared<B>> {
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
            seat.settle(Head::new(&response, bare, came_about, verdict));
            self.deliver(Delivery::Own(response));
            return None;
        }
        let content = seat.content(&response);
        let mut response = response.map(|body| Declared::new(body, content));
        remove_hop_by_hop(response.headers_mut());
        let fields = shared_fields(response.headers_mut(), &verdict);
        if response.body().is_end_stream() {
            flight.end(Ok(()));
        }
        seat.settle(Head::new(&response, fields, came_about, verdict));
        let (parts, body) = response.into_parts();
        self.deliver(Delivery::Shared(parts));
        Some(body)
    }

    fn verdict(&self, seat: &FlightGuard, response: &mut Response<B>) -> Verdict {
        if let Some(verdict) = response.extensions_mut().remove() {
            return verdict;
        }
        match &self.judge {
            _ if response.body().size_hint().lower() > seat.settings().max_held_bytes as u64 => {
                Verdict::Unshareable(Unshareable::TooLarge)
            }
            // A `Fill` below was not told that the response may be shared, and may have judged it otherwise.
            Some(_) if CacheStatus::of(response).is_some_and(is_of_a_fetch) => {
                Verdict::Unshareable(Unshareable::Rules)
            }
            Some(judge) => judge.verdict(response, seat.flight().started_at, &seat.settings().failures),
            None => Verdict::Unshareable(Unshareable::Rules),
        }
    }
}

/// Whether a layer below has fetched a response, and not refused to.
fn is_of_a_fetch(status: CacheStatus) -> bool {
    !status.is_from_store() && status.refused_reason().is_none()
}

impl Judge {
    fn verdict<B: HttpBody>(
        &self,
        response: &mut Response<B>,
        started_at: Instant,
        failures: &FailurePolicy,
    ) -> Verdict {
        let Parts { method, headers: request, .. } = &self.request;
        let mut outline = ResponseFields::of(response.headers(), SystemTime::now());
        outline.settle_length(method, response);
        let headers = response.headers();
        let targets = [CDN_CACHE_CONTROL];
        let extent = Extent::for_all(method, request, response.status(), headers);
        let status = extent.map_or(response.status(), |_| StatusCode::OK);
        let is_breakdown = failures.is_breakdown(response.status(), headers);
        let judged = Judged { status, headers, is_breakdown };
        let decision = decide(&self.request, self.credentials, judged, &outline, &self.rules, &targets);
        let selection = outline.vary.selection(&self.request.headers);
        let received_at = Instant::now();
        let delay = received_at.saturating_duration_since(started_at);
        let age = if decision.terms.is_ours { delay } else { initial_age(&outline, delay) };
        let fresh_until = after(received_at, decision.terms.fresh_for.saturating_sub(age));
        Verdict::new(decision, selection, (received_at, fresh_until), None)
    }
}

/// The fields that all callers get. The first one has more of his own only where some are withheld
/// from the others.
fn shared_fields(headers: &mut HeaderMap, verdict: &Verdict) -> HeaderMap {
    let withheld = verdict.withheld();
    match loses_fields(headers, withheld) {
        true => {
            let mut shared = headers.clone();
            remove_all(&mut shared, |name| withheld.contains(name));
            shared
        }
        false => std::mem::take(headers),
    }
}

fn loses_fields(headers: &HeaderMap, withheld: &[HeaderName]) -> bool {
    headers.keys().any(|name| withheld.contains(name))
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
        let refused = response.extensions().get().copied();
        let (status, version) = (response.status(), response.version());
        Self { status, version, headers, verdict, came_about, size, refused }
    }

    /// How it came about for those who share it.
    pub(super) fn collapsed(&self) -> CacheStatus {
        let shown = || CacheStatus::shown(&self.headers);
        self.came_about.or_else(shown).unwrap_or(CacheStatus::forwarded(Forward::Miss)).collapsed()
    }
}

/// How a response came about, if its fields do not say it, or will not when some of them are gone.
fn unwritten_status<B>(response: &Response<B>, verdict: &Verdict) -> Option<CacheStatus> {
    let loses_all = matches!(verdict, Verdict::Unshareable(_));
    match loses_all
        || loses_fields(response.headers(), verdict.withheld())
        || has(response.headers(), &header::CONNECTION)
    {
        true => CacheStatus::of(response),
        false => response.extensions().get().copied(),
    }
}
