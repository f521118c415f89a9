//! Who gets what of a response: the leader, the subscribers, or both.
//!
//! A response that may be shared is split: its body goes into the flight for all, the leader gets the head
//! as it came, and the others the head without the fields that are withheld from them. A response that
//! may not be shared goes to the leader whole, and the others learn only that.

use std::{
    any::Any,
    panic::resume_unwind,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, header, request, response};
use http_body::Body as HttpBody;
use tokio::{sync::oneshot, time::Instant};

use super::{
    flight::{Flight, Subscriber},
    flights::FlightGuard,
    outcome::{FetchOutcome, SharedHead},
};
use crate::{
    body::{Body, BoxError, Declared},
    exchange::{
        CompletesItself, Refused, Verdict,
        copy::without_extensions,
        failures::FailurePolicy,
        status::{CacheStatus, Forward},
    },
    http::{
        credentials::Credentials,
        fields,
        freshness::{after, initial_age},
        range::Extent,
        response_fields::ResponseFields,
        rules::Rules,
        storing::{self, CDN_CACHE_CONTROL, RequestKind, ResponseHead, Unshareable},
    },
    key,
};

/// After how long a client may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Panic = Box<dyn Any + Send>;

/// What the leader gets, and no other caller.
enum LeaderOutcome<B, E> {
    /// The response is for the leader alone.
    Own(Response<B>),
    /// The leader reads the flight like all others, under the head as it came.
    ///
    /// The fields are with the flight, unless some are for the leader alone.
    Shared(response::Parts),
    Error(E),
    Panic(Panic),
}

/// Distributes what a fetch brings.
pub(super) struct Dispatch<B, E> {
    /// `None` once the leader has its outcome.
    leader: Option<oneshot::Sender<LeaderOutcome<B, E>>>,
    /// `None`: every response comes with a verdict.
    judge: Option<Box<Judge>>,
    /// A layer above shares the response as well.
    is_for_many: bool,
}

impl<B, E> Dispatch<B, E>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
    E: Clone + Send + Sync + 'static,
{
    /// Returns the leader's end, too.
    pub(super) fn new(
        subscriber: Subscriber,
        length_check: LengthCheck,
        judge: Option<Box<Judge>>,
        is_for_many: bool,
    ) -> (Self, Leader<B, E>) {
        let (sender, outcome) = oneshot::channel();
        let leader = Leader { outcome, subscriber: Some(subscriber), length_check };
        (Self { leader: Some(sender), judge, is_for_many }, leader)
    }

    fn tell_leader(&mut self, outcome: LeaderOutcome<B, E>) {
        if let Some(leader) = self.leader.take() {
            _ = leader.send(outcome);
        }
    }

    /// Gives the panic to the leader, and tells all others that there is no head.
    pub(super) fn panicked(&mut self, guard: &FlightGuard, panic: Panic) {
        guard.close();
        guard.fail(FetchOutcome::Aborted);
        self.tell_leader(LeaderOutcome::Panic(panic));
    }

    /// Settles the flight, and returns the body if it is for all subscribers.
    pub(super) fn settle(
        &mut self,
        guard: &FlightGuard,
        response: Result<Response<B>, E>,
    ) -> Option<Declared<B>> {
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

    fn settle_response(&mut self, guard: &FlightGuard, mut response: Response<B>) -> Option<Declared<B>> {
        let verdict = self.verdict(guard, &mut response);
        if !verdict.is_shareable() {
            guard.close();
        }
        if self.is_for_many {
            response.extensions_mut().insert(verdict.clone());
        }
        let came_about = unwritten_status(&response, &verdict);
        if let Verdict::Unshareable(_) = verdict {
            let retry_after = response.headers().get(header::RETRY_AFTER).cloned();
            let bare = retry_after.map(|value| (header::RETRY_AFTER, value)).into_iter().collect();
            guard.settle(SharedHead::new(&response, bare, came_about, verdict));
            self.tell_leader(LeaderOutcome::Own(response));
            return None;
        }
        let length = guard.content_length(&response);
        let mut response = response.map(|body| Declared::new(body, length));
        fields::remove_hop_by_hop(response.headers_mut());
        let shared = shared_fields(response.headers_mut(), &verdict);
        if response.body().is_end_stream() {
            guard.flight().end(Ok(()));
        }
        guard.settle(SharedHead::new(&response, shared, came_about, verdict));
        let (parts, body) = response.into_parts();
        self.tell_leader(LeaderOutcome::Shared(parts));
        Some(body)
    }

    fn verdict(&self, guard: &FlightGuard, response: &mut Response<B>) -> Verdict {
        if let Some(verdict) = response.extensions_mut().remove() {
            return verdict;
        }
        match &self.judge {
            _ if response.body().size_hint().lower() > guard.settings().max_held_bytes as u64 => {
                Verdict::Unshareable(Unshareable::TooLarge)
            }
            // A `Fill` below was not told that the response may be shared, and may have judged it otherwise.
            Some(_) if CacheStatus::of(response).is_some_and(is_of_a_fetch) => {
                Verdict::Unshareable(Unshareable::Rules)
            }
            Some(judge) => judge.verdict(response, guard.flight(), &guard.settings().failures),
            None => Verdict::Unshareable(Unshareable::Rules),
        }
    }
}

/// Whether a layer below has fetched a response, and not refused to.
fn is_of_a_fetch(status: CacheStatus) -> bool {
    !status.is_from_store() && status.refused_reason().is_none()
}

/// Returns the fields that all callers get. If some are withheld, `headers` keeps all for the leader.
fn shared_fields(headers: &mut HeaderMap, verdict: &Verdict) -> HeaderMap {
    let withheld = verdict.withheld();
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
fn unwritten_status<B>(response: &Response<B>, verdict: &Verdict) -> Option<CacheStatus> {
    let headers = response.headers();
    let loses_fields = matches!(verdict, Verdict::Unshareable(_))
        || has_any(headers, verdict.withheld())
        || fields::has(headers, &header::CONNECTION);
    if loses_fields { CacheStatus::of(response) } else { response.extensions().get().copied() }
}

/// Decides who may share a response that comes without a verdict.
pub(super) struct Judge {
    request: request::Parts,
    kind: RequestKind,
    credentials: Credentials,
    rules: Rules,
}

impl Judge {
    pub(super) fn new(request: &request::Parts, credentials: Credentials, rules: Rules) -> Self {
        Self { request: without_extensions(request), kind: key::kind_of(request), credentials, rules }
    }

    fn verdict<B: HttpBody>(
        &self,
        response: &mut Response<B>,
        flight: &Flight,
        failures: &FailurePolicy,
    ) -> Verdict {
        let request::Parts { method, headers: request, .. } = &self.request;
        let mut outline = ResponseFields::of(response.headers(), SystemTime::now());
        outline.settle_length(method, response);
        let headers = response.headers();
        let head = ResponseHead::new(response.status(), headers, &outline)
            .with_extent(Extent::for_all(method, request, response.status(), headers))
            .with_breakdown(failures.is_breakdown(response.status(), headers));
        let decision = storing::judge(self.kind, self.credentials, &head, &self.rules, &[CDN_CACHE_CONTROL]);
        let selection = outline.vary.selection(request);
        let received_at = Instant::now();
        let delay = received_at.saturating_duration_since(flight.started_at());
        let age = if decision.terms.is_ours { delay } else { initial_age(&outline, delay) };
        let fresh_until = after(received_at, decision.terms.fresh_for.saturating_sub(age));
        Verdict::new(decision, selection, (received_at, fresh_until), None)
    }
}

/// Which responses that are not shared have yet to be checked for the length that they declare.
#[derive(Clone, Copy)]
pub(super) enum LengthCheck {
    /// None: a layer below does so.
    Below,
    Here {
        is_head: bool,
    },
}

impl LengthCheck {
    pub(super) fn wrap<B>(self, response: Response<B>) -> Response<Body<B>>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match self {
            Self::Below => response.map(Body::inner),
            Self::Here { is_head } => {
                let length = fields::content_of(is_head, &response);
                response.map(|body| Body::declared(body, length))
            }
        }
    }
}

/// The leader's response, once it is there.
pub(super) struct Leader<B, E> {
    outcome: oneshot::Receiver<LeaderOutcome<B, E>>,
    /// `None` once the response is there.
    subscriber: Option<Subscriber>,
    length_check: LengthCheck,
}

impl<B, E> Leader<B, E> {
    /// Gives up the response for that of another flight.
    pub(super) fn leave_for_another(self) {
        if let Some(subscriber) = self.subscriber {
            subscriber.leave_for_another();
        }
    }

    pub(super) fn flight(&self) -> Option<&Arc<Flight>> {
        self.subscriber.as_ref().map(Subscriber::flight)
    }
}

impl<B, E> Future for Leader<B, E>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<Body<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(cx));
        let aborted = || refuse(Refused::FetchAborted, None);
        let subscriber = self.subscriber.take();
        Poll::Ready(match outcome {
            Ok(LeaderOutcome::Shared(head)) => {
                Ok(subscriber.map_or_else(aborted, |subscriber| leader_response(subscriber, head)))
            }
            Ok(LeaderOutcome::Own(response)) => Ok(self.length_check.wrap(response)),
            Ok(LeaderOutcome::Error(error)) => Err(error),
            Ok(LeaderOutcome::Panic(payload)) => resume_unwind(payload),
            Err(_) => Ok(aborted()),
        })
    }
}

/// The head as it came, except for what belongs to the connection.
fn leader_response<B>(mut subscriber: Subscriber, mut head: response::Parts) -> Response<Body<B>> {
    if head.headers.is_empty() {
        head.headers = subscriber.take_headers();
    }
    head.extensions.insert(CompletesItself);
    let shared = subscriber.flight().outcome().and_then(FetchOutcome::head);
    let (came_about, size) = shared.map_or((None, None), |head| (head.came_about(), head.size()));
    // Set where the origin named the field as one of the connection.
    if let Some(came_about) = came_about
        && !head.headers.contains_key(header::CACHE_STATUS)
    {
        head.extensions.insert(came_about);
    }
    Response::from_parts(head, subscriber.into_body(size))
}

/// The response to a request that the cache does not serve, which was on its way to the origin for the
/// reason `why`.
pub(super) fn refuse<B>(refused: Refused, why: Option<CacheStatus>) -> Response<Body<B>> {
    refused.to_response(RETRY_AFTER, why.unwrap_or(CacheStatus::forwarded(Forward::Miss)))
}
