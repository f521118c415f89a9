//! The service that fails at random.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tower::ServiceExt;
use tower_service::Service;

use super::{FaultyBody, MakeError, Plan, body};
use crate::body::BoxError;

/// A service with faults; see [`FaultsLayer`](super::FaultsLayer).
///
/// It is always ready: the wrapped service is made ready for requests that reach it.
pub struct Faults<S, E = super::NoError> {
    inner: S,
    plan: Arc<Plan<E>>,
}

/// What one request has drawn.
#[derive(Clone, Copy, Debug)]
struct Draw {
    delay: Option<Duration>,
    hangs: bool,
    fails: bool,
    has_status: bool,
    /// The share of the first chunk after which the body breaks off.
    cut: Option<f64>,
}

impl<E> Plan<E> {
    fn draw(&self) -> Draw {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        // One generator for each request: what others draw at the same time changes nothing.
        let mut random = fastrand::Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The first output of generators with similar seeds is similar.
        random.u64(..);
        let mut drawn = |rate: f64| random.f64() < rate;
        let rates = &self.rates;
        let (delays, hangs, fails) = (drawn(rates.delay), drawn(rates.hang), drawn(rates.error));
        let (has_status, is_cut) = (drawn(rates.status), drawn(rates.cut));
        let delay = rates.delays.as_ref().filter(|_| delays);
        let delay = delay.map(|times| *times.start() + (*times.end() - *times.start()).mul_f64(random.f64()));
        Draw { delay, hangs, fails, has_status, cut: is_cut.then(|| random.f64()) }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

impl<S, E> Faults<S, E> {
    pub(super) fn new(inner: S, plan: Arc<Plan<E>>) -> Self {
        Self { inner, plan }
    }
}

impl<S, E, ReqB, B> Service<Request<ReqB>> for Faults<S, E>
where
    S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    E: MakeError<S::Error>,
    ReqB: Send + 'static,
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<FaultyBody<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (inner, plan) = (self.inner.clone(), Arc::clone(&self.plan));
        let draw = plan.draw();
        Box::pin(async move {
            let injected = &plan.injected;
            if let Some(delay) = draw.delay {
                count(&injected.delays);
                tokio::time::sleep(delay).await;
            }
            if draw.hangs {
                count(&injected.hangs);
                return std::future::pending().await;
            }
            if let Some(error) = draw.fails.then(|| plan.make_error.make_error()).flatten() {
                count(&injected.errors);
                return Err(error);
            }
            if draw.has_status {
                count(&injected.statuses);
                let mut response = Response::new(body::FaultyBody::empty());
                *response.status_mut() = plan.status;
                return Ok(response);
            }
            let response = inner.oneshot(request).await?;
            Ok(match draw.cut {
                Some(share) => {
                    count(&injected.cuts);
                    response.map(|body| FaultyBody::cut(body, share))
                }
                None => response.map(FaultyBody::whole),
            })
        })
    }
}

impl<S: Clone, E> Clone for Faults<S, E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), plan: Arc::clone(&self.plan) }
    }
}

impl<S, E> fmt::Debug for Faults<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}
