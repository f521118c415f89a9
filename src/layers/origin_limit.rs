//! Limits how many requests the origin handles at the same time, and learns from them whether it is well.
//!
//! [`OriginLimit`] lets a fixed number of attempts through. Each holds a permit until its response body is
//! complete, or has been [left unread](OriginLimitLayer::max_read_pause) for too long. Further attempts wait in
//! a queue that is bounded in length and time. An attempt that finds the queue full, or waits in it for too
//! long, gets 503 with `Retry-After`, marked with [`Refused`](crate::Refused):
//! [`RetryPolicy`](crate::RetryPolicy) does not try it again, and [`StaleIfError`](crate::StaleIfError) may
//! serve a stale response instead.
//!
//! The layer belongs below `Retry`, so that a request holds no permit while it waits for its next attempt.
//!
//! # What waits, and for how long
//!
//! * Better [classes](OriginLimitLayer::priority) go first. In a class the oldest does, until it has waited for
//!   100 ms. From then on it is the newest, for the oldest will soon be given up. Fetches that several callers
//!   share keep their order.
//! * Where the queue is full, the newest of the lowest class is refused, which may be the one that comes.
//! * One place in four, and every fourth permit, is for fetches that several callers share.
//! * Fetches with something stale to serve instead hold at most three of four permits, so that a slow part of
//!   the origin does not take all of them.
//! * What is still fresh is [refreshed](crate::Rules::refresh_ahead) only while fewer than seven of eight
//!   permits are in use, and a store is [warmed up](crate::warm_up) while fewer than half of them are.
//!
//! Choose a limit that the origin bears: what it handles at the same time when it is just busy. Nothing here
//! makes up for one under which it breaks down.
//!
//! # While the origin is not up
//!
//! How each attempt ends is reported to an [`OriginHealth`](origin::OriginHealth), also [without a
//! limit](OriginLimitLayer::unlimited). It decides what is let through while the origin is down or recovers: of
//! what has something stale a probe at a time, and then as much as the origin bears. What has nothing stored
//! goes on while the origin is down, eight attempts at a time, and each is given up after four to five seconds.
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Empty;
//! use bytes::Bytes;
//! use tower::{Layer, ServiceExt, service_fn};
//! use tower_readthrough::{OriginLimitLayer, Refused};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let service = OriginLimitLayer::new(1).max_queue_wait(Duration::from_millis(100)).layer(
//!     service_fn(async |_: Request<()>| {
//!         tokio::time::sleep(Duration::from_secs(1)).await;
//!         Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
//!     }),
//! );
//! let (first, second) = tokio::join!(
//!     service.clone().oneshot(Request::new(())),
//!     service.clone().oneshot(Request::new(())),
//! );
//! assert_eq!(first.unwrap().status(), StatusCode::OK);
//! let second = second.unwrap();
//! assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
//! assert_eq!(second.extensions().get(), Some(&Refused::QueueTimeout));
//! # }
//! ```

mod held;
mod settings;
mod whole;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode, request::Parts};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use self::{settings::Settings, whole::CutOff};
use crate::{
    body::{Body, ResponseBody},
    build_error::BuildError,
    exchange::{
        Refused,
        failures::{FailurePolicy, Failures},
    },
    http::response_fields,
    layers::service::{BoxFuture, EagerOneshot, HttpService},
    origin,
};

/// Limits the attempts under way and reports how they end; see the [module](self).
///
/// The limit and the [health](Self::origin_health) belong to the layer value and its clones: all services made
/// by them share both.
#[derive(Clone, Debug)]
pub struct OriginLimitLayer {
    settings: Arc<Settings>,
}

impl OriginLimitLayer {
    /// Lets at most `max_attempts` through at a time, with the default queue. With several
    /// [origins](crate::OriginHealthBuilder::origin), so many at each.
    pub fn new(max_attempts: usize) -> Self {
        Self { settings: Arc::new(Settings::limited(max_attempts)) }
    }

    /// Lets everything through, and reports to the [health](Self::health) alone.
    ///
    /// Where another layer limits the same health, this one has that limit as well, with the default queue wait.
    pub fn unlimited() -> Self {
        Self { settings: Arc::new(Settings::unlimited()) }
    }

    /// The health of the origin: it learns from the attempts, and decides about them while the origin is not up.
    /// Default: one of its own.
    ///
    /// One health is for one limit: what another layer limits counts as well, and [the
    /// stack](crate::ReadThroughBuilder::build) refuses a limit of another size.
    #[must_use]
    pub fn health(self, health: origin::OriginHealth) -> Self {
        self.set(|settings| settings.give_health(health))
    }

    /// Returns the health of the origin.
    #[must_use]
    pub fn origin_health(&self) -> &origin::OriginHealth {
        self.settings.health()
    }

    /// Which responses are failures of the origin. Default: the
    /// [`Failures`](crate::ReadThroughBuilder::failures) of the stack, or the [default
    /// ones](crate::DefaultFailures).
    ///
    /// Errors and panics of the service are failures in any case. 429 is none: it bounds how many fetches a
    /// second begin that have something stale. What was [refused](crate::Refused) by the cache itself, and an
    /// attempt that was cancelled before its deadline, say nothing.
    #[must_use]
    pub fn failures(self, failures: impl Failures) -> Self {
        self.set(|settings| settings.failures = FailurePolicy::new(failures))
    }

    /// The class of a request, from 0, the best, to 7: a better one goes first, and where the queue is full the
    /// newest attempt of the lowest class is refused. Default: 3 for all.
    ///
    /// A larger number counts as 7, and so does a panic. One place in four, and every fourth permit, is for
    /// fetches that several callers can share, of whatever class: else requests that are not shared would starve
    /// them.
    ///
    /// ```
    /// use http::Method;
    /// use tower_readthrough::OriginLimitLayer;
    ///
    /// let limit = OriginLimitLayer::new(64).priority(|head| match head.method {
    ///     Method::GET => 3,
    ///     _ if head.uri.path().starts_with("/checkout") => 0,
    ///     _ => 1,
    /// });
    /// # let _ = limit;
    /// ```
    #[must_use]
    pub fn priority(self, class: impl Fn(&Parts) -> u8 + Send + Sync + 'static) -> Self {
        self.set_of_limit("priority", |settings| settings.priority = origin::Priority::new(class))
    }

    /// Which requests take no permit and never wait, such as those for streams of events, which would keep a
    /// permit for hours. How their attempts end counts all the same. Default: none. A panic exempts nothing.
    ///
    /// ```
    /// use tower_readthrough::OriginLimitLayer;
    ///
    /// let limit = OriginLimitLayer::new(64).exempt(|head| head.uri.path() == "/events");
    /// # let _ = limit;
    /// ```
    #[must_use]
    pub fn exempt(self, is_exempt: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Self {
        self.set_of_limit("exempt", |settings| settings.exempt = Some(Arc::new(is_exempt)))
    }

    /// How many attempts may wait for a permit. Default: 1024. With 0 an attempt without a permit is refused
    /// at once.
    #[must_use]
    pub fn max_queue(self, attempts: usize) -> Self {
        self.set_of_limit("max_queue", |settings| settings.max_queue = attempts)
    }

    /// How long an attempt may wait for a permit. Default: one second. A fetch with a
    /// [deadline](crate::CoalesceLayer::fetch_deadline) waits for half of that at most, so that there is time
    /// left for the origin.
    #[must_use]
    pub fn max_queue_wait(self, wait: Duration) -> Self {
        self.set_of_limit("max_queue_wait", |settings| settings.max_queue_wait = wait)
    }

    /// How long a caller may leave a body unread while another attempt waits for a permit. Default: 90
    /// seconds, which is longer than a shared fetch waits for its readers
    /// ([`CoalesceLayer::max_read_pause`](crate::CoalesceLayer::max_read_pause)).
    ///
    /// After that the body that has been left unread longest ends with
    /// [`BodyError::Idle`](crate::BodyError::Idle), and its permit is free. While no other attempt waits, a
    /// body may be left unread for any time. A body is not unread while its caller waits for the origin.
    #[must_use]
    pub fn max_read_pause(self, pause: Duration) -> Self {
        self.set_of_limit("max_read_pause", |settings| settings.max_read_pause = pause)
    }

    /// Holds a response until its body is complete, if its head declares at most so many bytes
    /// (`Content-Length`). Default: none is held, and clients get what comes as it comes.
    ///
    /// A body that breaks off, or is not as long as it was declared, is a failure of the origin then, with status
    /// 502: it counts for the [health](Self::health), is [tried again](crate::RetryPolicy), moves the request on to
    /// the next origin of a [`Failover`](crate::Failover), and something stale is served instead where there is
    /// some. A client gets the first byte of such a response when the last one has come. One that stands still
    /// is waited for as one that does not begin: [`fetch_deadline`](crate::CoalesceLayer::fetch_deadline)
    /// bounds that.
    ///
    /// Held are responses to safe methods other than HEAD, and to all requests that have a key. Those of
    /// unknown length, such as streams of events, and longer ones are passed on as they come. Each attempt holds up to
    /// so many bytes. From 1 to 1,048,576: 0 and more are an error where the stack is built, and without it
    /// count as none and as that.
    ///
    /// ```
    /// use tower_readthrough::{MemoryStore, OriginLimitLayer, ReadThroughLayer, RetryPolicy};
    ///
    /// # fn main() -> Result<(), tower_readthrough::BuildError> {
    /// let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
    ///     .retry(RetryPolicy::new())
    ///     .origin_limit(OriginLimitLayer::new(64).hold_until_complete(64 << 10))
    ///     .build()?;
    /// # drop(cache);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn hold_until_complete(self, bytes: usize) -> Self {
        self.set(|settings| settings.hold_until_complete = Some(bytes))
    }

    /// The `Retry-After` of attempts that find no place in the queue, or wait in it for too long, rounded up to
    /// whole seconds. Default: one second.
    #[must_use]
    pub fn retry_after(self, retry_after: Duration) -> Self {
        self.set_of_limit("retry_after", |settings| settings.retry_after = retry_after)
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Changes what means nothing without a limit.
    fn set_of_limit(self, name: &'static str, change: impl FnOnce(&mut Settings)) -> Self {
        self.set(|settings| {
            settings.note_setting_of_limit(name);
            change(settings);
        })
    }

    /// As [`failures`](Self::failures), where none were given.
    pub(crate) fn shared_failures(self, failures: &FailurePolicy) -> Self {
        match self.settings.failures.is_given() {
            true => self,
            false => self.set(|settings| settings.failures = failures.clone()),
        }
    }

    /// As [`health`](Self::health), where none was given. With a health of several origins another layer below
    /// reports, and this one does not.
    pub(crate) fn shared_health(self, health: &origin::OriginHealth) -> Self {
        match self.settings.health_is_given() {
            true => self,
            false => self.set(|settings| settings.share_health(health)),
        }
    }

    /// Leaves it to a layer above to correct what responses say of their length.
    pub(crate) fn under_own_layer(self) -> Self {
        self.set(Settings::note_own_layer_above)
    }

    /// Whether attempts can be reported to this health, if there is one.
    pub(crate) fn may_report_to(&self, health: Option<&origin::OriginHealth>) -> bool {
        !self.settings.health_is_given() || health.is_none_or(|health| health.is_same(self.origin_health()))
    }

    /// The classes of requests, if they may have to wait.
    pub(crate) fn classes(&self) -> Option<&origin::Priority> {
        self.settings.classes()
    }

    /// Whether a request without a key passes as if there were no layer.
    pub(crate) fn ignores_keyless(&self) -> bool {
        self.settings.ignores_keyless()
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        self.settings.check()
    }
}

impl<S> Layer<S> for OriginLimitLayer {
    type Service = OriginLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        self.settings.take_effect();
        OriginLimit { inner, layer: self.clone() }
    }
}

/// The service of [`OriginLimitLayer`].
///
/// It wraps any service of [`http::Request`]s that can be cloned and sent to another thread, and so can its
/// futures and errors.
#[derive(Clone, Debug)]
pub struct OriginLimit<S> {
    inner: S,
    layer: OriginLimitLayer,
}

impl<S, ReqB, B> Service<Request<ReqB>> for OriginLimit<S>
where
    S: HttpService<ReqB, Response = Response<B>>,
    ReqB: Send + 'static,
    B: ResponseBody,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = OriginLimitFuture<EagerOneshot<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: attempts queue in their futures.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let settings = &self.layer.settings;
        if let Some(limit) = settings.holds(&request) {
            let response = Arc::clone(settings).call_and_hold(self.inner.clone(), request, limit);
            return OriginLimitFuture::boxed(response);
        }
        if settings.is_idle() {
            return OriginLimitFuture::free(Watched::unwatched(EagerOneshot::new(&self.inner, request)));
        }
        if !settings.is_limited()
            && let Some((gate, entrance)) = settings.entrance(&request)
        {
            return self.begin(gate.enter(entrance, Instant::now()), request);
        }
        let (request, gate, entrance) = settings.entrance_of(request);
        if settings.is_limited() && !entrance.is_exempt {
            let inner = self.inner.clone();
            let call = move || inner.oneshot(request);
            return OriginLimitFuture::boxed(Arc::clone(settings).admit(gate, entrance, |_| false, call));
        }
        self.begin(gate.enter(entrance, Instant::now()), request)
    }
}

impl<S> OriginLimit<S> {
    /// Without a permit. Not inlined, the request is moved once more.
    #[inline(always)]
    fn begin<ReqB, B>(
        &self,
        entered: origin::Entered,
        request: Request<ReqB>,
    ) -> OriginLimitFuture<EagerOneshot<S, Request<ReqB>>, B, S::Error>
    where
        S: HttpService<ReqB, Response = Response<B>>,
        ReqB: Send + 'static,
        B: ResponseBody,
    {
        let settings = &self.layer.settings;
        match entered {
            origin::Entered::Admitted(attempt) => {
                let watch = Watch::new(attempt, Arc::clone(settings));
                OriginLimitFuture::free(Watched::begin(watch, || EagerOneshot::new(&self.inner, request)))
            }
            origin::Entered::Refused(refusal) => OriginLimitFuture::refused(settings, refusal),
            origin::Entered::Queued(waiting) => {
                // What is exempt never waits, and nothing does before there is a limit: this is for the compiler.
                drop(waiting);
                OriginLimitFuture::refused(settings, origin::Refusal::QueueFull)
            }
        }
    }
}

pin_project! {
    /// The response future of [`OriginLimit`].
    // It has no room for a response, since it is at the heart of larger futures.
    pub struct OriginLimitFuture<F, B, E> {
        #[pin]
        kind: Kind<F, B, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, B, E> {
        Free { #[pin] response: Watched<F> },
        Boxed { response: BoxFuture<Result<Response<Body<B>>, E>> },
    }
}

impl<F, B, E> OriginLimitFuture<F, B, E> {
    const fn free(response: Watched<F>) -> Self {
        Self { kind: Kind::Free { response } }
    }

    fn boxed(response: impl Future<Output = Result<Response<Body<B>>, E>> + Send + 'static) -> Self {
        Self { kind: Kind::Boxed { response: Box::pin(response) } }
    }

    /// Not inlined, since it is rare.
    #[inline(never)]
    fn refused(settings: &Settings, refusal: origin::Refusal) -> Self
    where
        B: Send + 'static,
        E: 'static,
    {
        let response = settings.refuse(refusal);
        Self::boxed(async move { Ok(response) })
    }
}

impl<F, B, E> Future for OriginLimitFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody,
{
    type Output = Result<Response<Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Boxed { response } => response.as_mut().poll(cx),
            KindProj::Free { response } => {
                let mut ended = None;
                response.poll_end(cx, &mut ended).map_ok(|mut response| {
                    if ended.is_none_or(|ended| ended.settings.settles_length()) {
                        response_fields::settle_length(&mut response);
                    }
                    response.map(Body::inner)
                })
            }
        }
    }
}

impl<F, B, E> fmt::Debug for OriginLimitFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginLimitFuture").finish_non_exhaustive()
    }
}

/// Reports how an attempt ends. Dropped before, the attempt was given up.
struct Watch {
    attempt: origin::Attempt,
    settings: Arc<Settings>,
}

impl Watch {
    const fn new(attempt: origin::Attempt, settings: Arc<Settings>) -> Self {
        Self { attempt, settings }
    }

    fn may_go_on(&self) -> bool {
        self.attempt.may_go_on(Instant::now())
    }

    fn end(self, outcome: origin::AttemptOutcome) -> origin::Permit {
        self.attempt.finish(outcome, Instant::now())
    }

    fn end_with<B, E>(self, result: &Result<Response<B>, E>) -> Ended {
        let outcome = match result {
            Ok(response) => self.outcome_of(response),
            Err(_) => origin::AttemptOutcome::Failure,
        };
        Ended { permit: self.attempt.finish(outcome, Instant::now()), settings: self.settings }
    }

    fn outcome_of<B>(&self, response: &Response<B>) -> origin::AttemptOutcome {
        let (status, headers) = (response.status(), response.headers());
        if status.as_u16() < 400 && !self.settings.failures.is_given() {
            return origin::AttemptOutcome::Success;
        }
        if response.extensions().get::<Refused>().is_some() {
            return origin::AttemptOutcome::Neither;
        }
        if response.extensions().get::<CutOff>().is_some() {
            return origin::AttemptOutcome::Failure;
        }
        // It is well, and asks to be spared.
        if status == StatusCode::TOO_MANY_REQUESTS {
            return origin::AttemptOutcome::TooMany;
        }
        match self.settings.failures.is_failure(status, headers) {
            true => origin::AttemptOutcome::Failure,
            false => origin::AttemptOutcome::Success,
        }
    }
}

/// What an attempt leaves that has a response.
struct Ended {
    permit: origin::Permit,
    settings: Arc<Settings>,
}

/// Reports a failure unless it is disarmed before it is dropped, which a panic of the service prevents.
struct Unwinding<'a>(Option<&'a mut Option<Watch>>);

impl<'a> Unwinding<'a> {
    const fn of(watch: &'a mut Option<Watch>) -> Self {
        Self(Some(watch))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if let Some(watch) = self.0.take().and_then(Option::take) {
            drop(watch.end(origin::AttemptOutcome::Failure));
        }
    }
}

pin_project! {
    /// The call of a service, under watch.
    struct Watched<F> {
        #[pin]
        call: F,
        // `None`: it is not watched, or over.
        watch: Option<Watch>,
    }
}

impl<F> Watched<F> {
    const fn unwatched(call: F) -> Self {
        Self { call, watch: None }
    }

    // Not inlined, the call is moved once more.
    #[inline(always)]
    fn begin(watch: Watch, call: impl FnOnce() -> F) -> Self {
        let mut watch = Some(watch);
        let unwinding = Unwinding::of(&mut watch);
        let call = call();
        unwinding.disarm();
        Self { call, watch }
    }

    /// Whether the attempt goes on although its time is over.
    fn may_go_on(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::may_go_on)
    }

    /// Ends the attempt in this way, if it is not over.
    fn end(self: Pin<&mut Self>, outcome: origin::AttemptOutcome) {
        drop(self.project().watch.take().map(|watch| watch.end(outcome)));
    }

    /// As [`Future::poll`]. What else there is is left in `ended`: in one piece with the response it would be moved
    /// again.
    #[inline]
    fn poll_end<B, E>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        ended: &mut Option<Ended>,
    ) -> Poll<F::Output>
    where
        F: Future<Output = Result<Response<B>, E>>,
    {
        let this = self.project();
        let unwinding = Unwinding::of(this.watch);
        let polled = this.call.poll(cx);
        unwinding.disarm();
        if let Poll::Ready(result) = &polled {
            *ended = this.watch.take().map(|watch| watch.end_with(result));
        }
        polled
    }

    /// Resolves as the call, and with what else there is.
    async fn ended<B, E>(mut self: Pin<&mut Self>) -> (F::Output, Option<Ended>)
    where
        F: Future<Output = Result<Response<B>, E>>,
    {
        let mut ended = None;
        let result = poll_fn(|cx| self.as_mut().poll_end(cx, &mut ended)).await;
        (result, ended)
    }
}

#[cfg(test)]
impl OriginLimitLayer {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        self.settings.rows()
    }
}
