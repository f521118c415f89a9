//! Several origins in an order: a request goes to the first that is well.
//!
//! [`Failover`] stands where one origin would, for example below [`ReadThrough`](crate::ReadThrough), and has
//! services of one type. Each has its own [`OriginHealth`], which learns from each attempt, and its own
//! [limit](FailoverBuilder::origin_limit) if it is given one.
//!
//! * **A request goes to the first origin** in the list that is up, or recovers and has room for one more, or
//!   is due for a probe. If there is none, it goes to the first of all. So a few failures move no load: the
//!   first origin stays first until it is [down](crate::OriginState::Down), and it gets its load back as soon
//!   as it recovers.
//! * **A failure moves this one request on**: an error of the service, a [failure](FailoverBuilder::failures),
//!   or what the limit of that origin [refused](crate::Refused). It goes to each origin at most once. When all
//!   have failed, the last failure is the response. There is no wait, and no budget is drawn on: no origin gets
//!   more than it would get as the only one.
//! * **Only what may be repeated moves on**: an idempotent method (RFC 9110 §9.2.2), and no body, or a [read by
//!   its body](crate::key#keys-from-bodies). Other requests are no probes either, as long as there are some
//!   that can be. What has no key is never one, unless it
//!   [counts](crate::OriginHealthBuilder::count_without_key).
//! * **A stored response is confirmed by the origin that sent it**, and by no other: the fields `If-None-Match`
//!   and `If-Modified-Since` that the cache adds are left out for others, which would compare with validators
//!   of their own. [Replicas](FailoverBuilder::replicas) have the same ones.
//!
//! What [`Retry`](crate::Retry) above tries again goes to one origin each time, so that the attempts of a request
//! are at most one, one for each retry, and one for each other origin.
//!
//! A request that hangs does not move on: give each service a timeout, such as that of `tower::timeout`.
//! [`fetch_deadline`](crate::CoalesceLayer::fetch_deadline) is about all origins together.
//!
//! Which origin a response came from is in its extensions ([`AnsweredBy`]) and in the
//! [`Record`](crate::Record::answered_by).
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tower::{ServiceExt, service_fn};
//! use tower_readthrough::{AnsweredBy, Failover, OriginLimitLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Clients of two hosts, for example.
//! let [first, second] = [StatusCode::BAD_GATEWAY, StatusCode::OK].map(|status| {
//!     service_fn(move |_: Request<Full<Bytes>>| async move {
//!         Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::from("hello")).unwrap())
//!     })
//! });
//! # let (first, second) = (tower::util::BoxCloneSyncService::new(first), tower::util::BoxCloneSyncService::new(second));
//! let origins = Failover::builder(first, [second]).origin_limit(|_| OriginLimitLayer::new(64)).build()?;
//! let response = origins.oneshot(Request::new(Full::default())).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.extensions().get::<AnsweredBy>().unwrap().index(), 1);
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, header, request::Parts};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use smallvec::SmallVec;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    body::{Body, ResponseBody},
    build_error::BuildError,
    exchange::{
        self,
        failures::{FailurePolicy, Failures},
    },
    layers::{
        origin_limit::{OriginLimit, OriginLimitLayer},
        repeat::{KeptBody, KeptRequest},
        service::{BoxFuture, HttpService},
    },
    origin::{Answer, AnsweredBy, OriginHealth, Pass},
};

/// As many as a set of them has bits.
const MAX_ORIGINS: usize = 64;
/// For so long after a request that may be repeated, others are no probes.
const PROBED_BY_REPEATABLE: Duration = Duration::from_secs(10);

/// Builds a [`Failover`]; see the [module](self).
#[must_use]
pub struct FailoverBuilder<S> {
    services: Vec<S>,
    limit: Box<dyn Fn(usize) -> OriginLimitLayer>,
    failures: FailurePolicy,
    are_replicas: bool,
}

impl<S> FailoverBuilder<S> {
    /// How the attempts at the origin with this index are limited, prioritised and watched. 0 is the first.
    /// Default: [`OriginLimitLayer::unlimited`].
    ///
    /// Each origin needs a limit, and an [`OriginHealth`], of its own.
    pub fn origin_limit(self, limit: impl Fn(usize) -> OriginLimitLayer + 'static) -> Self {
        Self { limit: Box::new(limit), ..self }
    }

    /// Which responses move a request on, and count against the origin where its
    /// [limit](Self::origin_limit) has no [failures](OriginLimitLayer::failures) of its own. Default:
    /// [`DefaultFailures`](crate::DefaultFailures). Errors of a service do so in any case.
    pub fn failures(self, failures: impl Failures) -> Self {
        Self { failures: FailurePolicy::new(failures), ..self }
    }

    /// Whether the origins give the same response the same validators (`ETag`, `Last-Modified`), so that each
    /// may confirm what another one sent. Default: no.
    pub fn replicas(self, are_replicas: bool) -> Self {
        Self { are_replicas, ..self }
    }

    /// The service, if the settings make sense.
    ///
    /// # Errors
    ///
    /// Says which setting cannot work, and what to change: there is no second origin, or there are more than
    /// 64; two origins share their health; a limit cannot work.
    pub fn build(self) -> Result<Failover<S>, BuildError> {
        let Self { services, limit, failures, are_replicas } = self;
        if services.len() < 2 {
            let reason = "there is no other origin; give it one, or use the service alone";
            return Err(BuildError::NoEffect { setting: "Failover::builder", reason });
        }
        if services.len() > MAX_ORIGINS {
            let reason = "it takes up to 64 origins; give it fewer";
            return Err(BuildError::NoEffect { setting: "Failover::builder", reason });
        }
        let limits: Vec<_> =
            (0..services.len()).map(|index| limit(index).shared_failures(&failures)).collect();
        limits.iter().try_for_each(OriginLimitLayer::check)?;
        let healths: Box<[_]> = limits.iter().map(|limit| limit.origin_health().clone()).collect();
        let is_shared = |(index, health): (usize, &OriginHealth)| {
            healths[..index].iter().any(|other| other.is_same(health))
        };
        if healths.iter().enumerate().any(is_shared) {
            let reason = "two origins share a limit or a health; make one for each index";
            return Err(BuildError::NoEffect { setting: "origin_limit", reason });
        }
        // There are some.
        let group = OriginHealth::group(&healths).unwrap_or_default();
        let members = limits.iter().zip(services).map(|(limit, service)| limit.layer(service)).collect();
        let began = Instant::now();
        let last_repeatable = AtomicU64::new(0);
        let shared = Shared { healths, group, failures, are_replicas, began, last_repeatable };
        Ok(Failover { members, shared: Arc::new(shared) })
    }
}

impl<S> fmt::Debug for FailoverBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverBuilder").field("origins", &self.services.len()).finish_non_exhaustive()
    }
}

/// Several origins in an order; see the [module](self).
///
/// It wraps any services of [`http::Request`]s that can be cloned and sent to another thread, and so can their
/// futures and errors. Clones share all that is known of the origins.
pub struct Failover<S> {
    members: Members<S>,
    shared: Arc<Shared>,
}

/// Two is what there are most often.
type Members<S> = SmallVec<[OriginLimit<S>; 2]>;

impl<S> Failover<S> {
    /// The origins in their order. There is at least one other, or [`build`](FailoverBuilder::build) refuses.
    pub fn builder(first: S, others: impl IntoIterator<Item = S>) -> FailoverBuilder<S> {
        FailoverBuilder {
            services: std::iter::once(first).chain(others).collect(),
            limit: Box::new(|_| OriginLimitLayer::unlimited()),
            failures: FailurePolicy::default(),
            are_replicas: false,
        }
    }

    /// Returns the health of all: down only while each of them is, and up if any is. It is for
    /// [`ReadThroughBuilder::outage`](crate::ReadThroughBuilder::outage).
    pub fn health(&self) -> &OriginHealth {
        &self.shared.group
    }
}

impl<S: Clone> Clone for Failover<S> {
    fn clone(&self) -> Self {
        Self { members: self.members.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for Failover<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover").field("health", &self.shared.group).finish_non_exhaustive()
    }
}

/// What all clones share.
struct Shared {
    healths: Box<[OriginHealth]>,
    group: OriginHealth,
    failures: FailurePolicy,
    are_replicas: bool,
    began: Instant,
    /// When a request came that may be repeated, in milliseconds. 0: none has come.
    last_repeatable: AtomicU64,
}

/// The origins to which a request was sent, by index.
#[derive(Clone, Copy, Default)]
struct Asked(u64);

impl Asked {
    const fn has(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    const fn note(&mut self, index: usize) {
        self.0 |= 1 << index;
    }
}

/// Where a request goes, and the right to ask there if that is needed.
struct Choice {
    index: usize,
    pass: Option<Arc<Pass>>,
}

impl Shared {
    /// The first origin that may be asked, of those that were not; else the first of them. `None`: all were.
    ///
    /// `asks`: whether the request has a key, and whether it may find out if an origin is back.
    fn choose(&self, head: &Parts, asked: Asked, asks: (bool, bool)) -> Option<Choice> {
        let left = || (0..self.healths.len()).filter(|index| !asked.has(*index));
        let now = Instant::now();
        let invited = |index: usize| match self.healths[index].gate(head).invite(asks, now) {
            Answer::Fetch(pass) => Some(Choice { index, pass }),
            Answer::Serve(_) => None,
        };
        left().find_map(invited).or_else(|| left().next().map(|index| Choice { index, pass: None }))
    }

    /// As [`choose`](Self::choose), for the first attempt. A right that a layer above has got is used.
    fn choose_first(&self, head: &mut Parts, is_repeatable: bool) -> Choice {
        let pass = exchange::CacheRequest::take_pass(&mut head.extensions);
        let is_of = |pass: &Pass| self.healths.iter().position(|health| pass.is_for(&health.gate(head)));
        if let Some(index) = pass.as_deref().and_then(is_of) {
            return Choice { index, pass };
        }
        let has_key = exchange::CacheRequest::has_key(&head.extensions);
        let asks = (has_key, self.may_probe(has_key, is_repeatable));
        self.choose(head, Asked::default(), asks).unwrap_or(Choice { index: 0, pass: None })
    }

    /// Whether a request may find out if an origin is back: none whose outcome does not count, and one that cannot be
    /// repeated only if there are no others.
    fn may_probe(&self, has_key: bool, is_repeatable: bool) -> bool {
        if !has_key && !self.group.counts_without_key() {
            return false;
        }
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        if is_repeatable {
            self.last_repeatable.store(now, Ordering::Relaxed);
            return true;
        }
        let last = self.last_repeatable.load(Ordering::Relaxed);
        last == 0 || u128::from(now.saturating_sub(last)) >= PROBED_BY_REPEATABLE.as_millis()
    }

    /// Makes a request one for this origin.
    fn prepare(&self, head: &mut Parts, choice: Choice) {
        let validators = exchange::CacheRequest::own_validators(&head.extensions);
        if validators.is_some_and(|validators| !validators.are_of(choice.index)) && !self.are_replicas {
            head.headers.remove(header::IF_NONE_MATCH);
            head.headers.remove(header::IF_MODIFIED_SINCE);
        }
        exchange::CacheRequest::put_pass(&mut head.extensions, choice.pass);
    }

    fn has_failed<B, E>(&self, result: &Result<Response<B>, E>) -> bool {
        result.as_ref().map_or(true, |response| self.failures.has_failed(response))
    }
}

/// Says which origin a response came from, unless it is one of the cache itself.
fn sign<B, E>(result: &mut Result<Response<B>, E>, index: usize) {
    if let Ok(response) = result
        && response.extensions().get::<exchange::Refused>().is_none()
        && let Some(origin) = AnsweredBy::at(index)
    {
        response.extensions_mut().insert(origin);
    }
}

impl<S, ReqB, B> Service<Request<ReqB>> for Failover<S>
where
    S: HttpService<ReqB, Response = Response<B>>,
    ReqB: HttpBody + Default + Send + 'static,
    B: ResponseBody,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = FailoverFuture<<OriginLimit<S> as Service<Request<ReqB>>>::Future, B, S::Error>;

    /// Always ready: attempts queue in their futures.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let body = KeptBody::of(&request);
        let (mut head, content) = request.into_parts();
        let choice = self.shared.choose_first(&mut head, body.is_some());
        let index = choice.index;
        let request = Request::from_parts(head, content);
        // It was at each of them before.
        let is_repeated = request.extensions().get::<exchange::Repeated>().is_some();
        let others = body.filter(|_| !is_repeated).map(|body| {
            let mut asked = Asked::default();
            asked.note(index);
            let (members, shared) = (self.members.clone(), Arc::clone(&self.shared));
            let others = Others { members, shared, request: body.with_head_of(&request), asked };
            Box::new(others) as Box<dyn MoveOn<B, S::Error>>
        });
        let (mut head, content) = request.into_parts();
        self.shared.prepare(&mut head, choice);
        let attempt = self.members[index].call(Request::from_parts(head, content));
        FailoverFuture { state: State::First { attempt, index, others } }
    }
}

/// What a request needs to move on.
struct Others<S, ReqB> {
    members: Members<S>,
    shared: Arc<Shared>,
    request: KeptRequest<ReqB>,
    asked: Asked,
}

impl<S, ReqB, B> Others<S, ReqB>
where
    S: HttpService<ReqB, Response = Response<B>>,
    ReqB: HttpBody + Default + Send + 'static,
    B: ResponseBody,
{
    /// The request as it goes to the next origin. `None`: it was at all of them.
    fn next(&mut self) -> Option<(usize, Request<ReqB>)> {
        let (mut head, content) = self.request.to_request()?.into_parts();
        // Of the attempt before.
        drop(exchange::CacheRequest::take_pass(&mut head.extensions));
        let asks = (exchange::CacheRequest::has_key(&head.extensions), true);
        let choice = self.shared.choose(&head, self.asked, asks)?;
        let index = choice.index;
        self.asked.note(index);
        self.shared.prepare(&mut head, choice);
        Some((index, Request::from_parts(head, content)))
    }

    async fn run(
        mut self: Box<Self>,
        (mut index, mut request): (usize, Request<ReqB>),
    ) -> Result<Response<Body<B>>, S::Error> {
        loop {
            let mut result = self.members[index].call(request).await;
            if self.shared.has_failed(&result)
                && let Some(next) = self.next()
            {
                // What it holds, such as a place at the origin, goes before the next attempt.
                drop(result);
                (index, request) = next;
                continue;
            }
            sign(&mut result, index);
            return result;
        }
    }
}

/// Moves a request on, whatever it is.
trait MoveOn<B, E>: Send {
    fn has_failed(&self, result: &Result<Response<Body<B>>, E>) -> bool;
    /// `None`: there is no other origin left.
    fn move_on(self: Box<Self>) -> Option<BoxFuture<Result<Response<Body<B>>, E>>>;
}

impl<S, ReqB, B> MoveOn<B, S::Error> for Others<S, ReqB>
where
    S: HttpService<ReqB, Response = Response<B>>,
    ReqB: HttpBody + Default + Send + 'static,
    B: ResponseBody,
{
    fn has_failed(&self, result: &Result<Response<Body<B>>, S::Error>) -> bool {
        self.shared.has_failed(result)
    }

    fn move_on(mut self: Box<Self>) -> Option<BoxFuture<Result<Response<Body<B>>, S::Error>>> {
        let next = self.next()?;
        Some(Box::pin(self.run(next)))
    }
}

pin_project! {
    /// The response future of [`Failover`].
    pub struct FailoverFuture<F, B, E> {
        #[pin]
        state: State<F, B, E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B, E> {
        // `None`: the request may not be repeated.
        First { #[pin] attempt: F, index: usize, others: Option<Box<dyn MoveOn<B, E>>> },
        Further { future: BoxFuture<Result<Response<Body<B>>, E>> },
    }
}

impl<F, B, E> Future for FailoverFuture<F, B, E>
where
    F: Future<Output = Result<Response<Body<B>>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = match self.as_mut().project().state.project() {
            StateProj::Further { future } => return future.as_mut().poll(cx),
            StateProj::First { attempt, index, others } => {
                let mut result = ready!(attempt.poll(cx));
                let others = others.take().filter(|others| others.has_failed(&result));
                let Some(future) = others.and_then(MoveOn::move_on) else {
                    sign(&mut result, *index);
                    return Poll::Ready(result);
                };
                future
            }
        };
        self.as_mut().project().state.set(State::Further { future });
        self.poll(cx)
    }
}

impl<F, B, E> fmt::Debug for FailoverFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverFuture").finish_non_exhaustive()
    }
}
