//! Limits how many requests the origin handles at the same time.
//!
//! [`OriginLimit`] lets a fixed number of attempts through. Each holds a permit until its response body is
//! complete, or has been [left unread](OriginLimitLayer::max_read_pause) for too long. Further attempts
//! wait in a queue that is bounded in length and time. An attempt that finds the queue full, or waits in it for too
//! long, gets 503 with `Retry-After`, marked with [`Refused`]: [`RetryPolicy`](crate::RetryPolicy) does not
//! try it again, and [`StaleIfError`](crate::StaleIfError) may serve a stale response instead.
//!
//! The layer belongs below `Retry`, so that a request holds no permit while it waits for its next attempt.
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

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use self::held::Holders;
use crate::{
    body::{Body, ResponseBody},
    build_error::BuildError,
    exchange::{
        Refused, ResponseFacts,
        status::{CacheStatus, Forward},
    },
    executor::Executor,
    http::{response_fields, storing::after},
    layers::service::{BoxFuture, EagerOneshot, HttpService},
};

/// Limits the attempts under way; see the [module](self).
///
/// The limit belongs to the layer value and its clones: all services made by them share it.
#[derive(Clone, Debug)]
pub struct OriginLimitLayer {
    /// `None`: no limit.
    limit: Option<Arc<Limit>>,
}

#[derive(Clone)]
struct Limit {
    max_attempts: usize,
    max_queue: usize,
    attempts: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    holders: Arc<Holders>,
    max_queue_wait: Duration,
    max_read_pause: Duration,
    retry_after: Duration,
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("attempts", &self.attempts)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl OriginLimitLayer {
    /// Lets at most `max_attempts` through at a time, with the default queue.
    pub fn new(max_attempts: usize) -> Self {
        let max_queue = 1024;
        let limit = Limit {
            max_attempts,
            max_queue,
            attempts: semaphore(max_attempts),
            queue: semaphore(max_queue),
            holders: Arc::default(),
            max_queue_wait: Duration::from_secs(1),
            max_read_pause: Duration::from_secs(90),
            retry_after: Duration::from_secs(1),
        };
        Self { limit: Some(Arc::new(limit)) }
    }

    /// Lets everything through.
    pub(crate) const fn unlimited() -> Self {
        Self { limit: None }
    }

    pub(crate) const fn is_unlimited(&self) -> bool {
        self.limit.is_none()
    }

    /// How many attempts may wait for a permit. Default: 1024. With 0 an attempt without a permit is refused
    /// at once.
    #[must_use]
    pub fn max_queue(self, attempts: usize) -> Self {
        self.set(|limit| (limit.max_queue, limit.queue) = (attempts, semaphore(attempts)))
    }

    /// How long an attempt may wait for a permit. Default: one second.
    #[must_use]
    pub fn max_queue_wait(self, wait: Duration) -> Self {
        self.set(|limit| limit.max_queue_wait = wait)
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
        self.set(|limit| limit.max_read_pause = pause)
    }

    /// The `Retry-After` of attempts that are refused, rounded up to whole seconds. Default: one second.
    #[must_use]
    pub fn retry_after(self, retry_after: Duration) -> Self {
        self.set(|limit| limit.retry_after = retry_after)
    }

    fn set(mut self, change: impl FnOnce(&mut Limit)) -> Self {
        if let Some(limit) = &mut self.limit {
            change(Arc::make_mut(limit));
        }
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        match &self.limit {
            Some(limit) if limit.max_attempts == 0 => {
                let consequence = "nothing ever reaches the origin";
                Err(BuildError::ZeroLimit { setting: "max_attempts", consequence })
            }
            Some(limit) if limit.max_queue_wait.is_zero() && limit.max_queue > 0 => {
                let consequence = "no attempt ever waits; use `max_queue(0)` for that";
                Err(BuildError::ZeroDuration { setting: "max_queue_wait", consequence })
            }
            Some(limit) if limit.max_read_pause.is_zero() => {
                let consequence = "every body is broken off while another attempt waits";
                Err(BuildError::ZeroDuration { setting: "max_read_pause", consequence })
            }
            _ => Ok(()),
        }
    }
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

impl<S> Layer<S> for OriginLimitLayer {
    type Service = OriginLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
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
        let kind = match &self.layer.limit {
            None => Kind::Free { response: EagerOneshot::new(&self.inner, request) },
            Some(limit) => {
                let response = Arc::clone(limit).admitted(self.inner.clone(), request);
                Kind::Queued { response: Box::pin(response) }
            }
        };
        OriginLimitFuture { kind }
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
        Free { #[pin] response: F },
        Queued { response: BoxFuture<Result<Response<Body<B>>, E>> },
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
            KindProj::Queued { response } => response.as_mut().poll(cx),
            KindProj::Free { response } => response.poll(cx).map_ok(|mut response| {
                response_fields::settle_length(&mut response);
                response.map(Body::inner)
            }),
        }
    }
}

impl<F, B, E> fmt::Debug for OriginLimitFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginLimitFuture").finish_non_exhaustive()
    }
}

impl Limit {
    /// Calls the service once there is a permit.
    async fn admitted<S, ReqB, B>(
        self: Arc<Self>,
        inner: S,
        request: Request<ReqB>,
    ) -> Result<Response<Body<B>>, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<B>>,
        B: ResponseBody,
    {
        let permit = match self.admit().await {
            Ok(permit) => permit,
            Err(refused) => {
                return Ok(refused.to_response(self.retry_after, CacheStatus::forwarded(Forward::Miss)));
            }
        };
        let began = Instant::now();
        let mut response = inner.oneshot(request).await?;
        response_fields::settle_length(&mut response);
        ResponseFacts::note_attempt(response.extensions_mut(), began);
        Ok(response.map(|body| self.hold(permit, body)))
    }

    async fn admit(&self) -> Result<OwnedSemaphorePermit, Refused> {
        if let Ok(permit) = Arc::clone(&self.attempts).try_acquire_owned() {
            return Ok(permit);
        }
        let Ok(_queued) = self.queue.try_acquire() else { return Err(Refused::QueueFull) };
        let mut permit = pin!(Arc::clone(&self.attempts).acquire_owned());
        if !Executor::is_available() {
            // No runtime, no clock: the wait is bounded by the queue alone.
            return permit.await.map_err(|_| Refused::QueueFull);
        }
        let deadline = after(Instant::now(), self.max_queue_wait);
        loop {
            let next_look = self.holders.make_room(self.max_read_pause);
            match tokio::time::timeout_at(next_look.min(deadline), permit.as_mut()).await {
                Ok(permit) => return permit.map_err(|_| Refused::QueueFull),
                Err(_) if Instant::now() >= deadline => return Err(Refused::QueueTimeout),
                Err(_) => {}
            }
        }
    }

    /// Keeps the permit until the body is complete, or is no longer read.
    fn hold<B>(&self, permit: OwnedSemaphorePermit, body: B) -> Body<B>
    where
        B: ResponseBody,
    {
        match body.is_end_stream() {
            true => Body::inner(body),
            false => Body::shared(self.holders.hold(permit, body)),
        }
    }
}

#[cfg(test)]
impl OriginLimitLayer {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::span;
        let Some(limit) = &self.limit else { return Vec::new() };
        let Limit { max_queue, max_queue_wait, max_read_pause, retry_after, .. } = &**limit;
        vec![
            ("OriginLimitLayer::max_queue", max_queue.to_string()),
            ("OriginLimitLayer::max_queue_wait", span(*max_queue_wait)),
            ("OriginLimitLayer::max_read_pause", span(*max_read_pause)),
            ("OriginLimitLayer::retry_after", span(*retry_after)),
        ]
    }
}
