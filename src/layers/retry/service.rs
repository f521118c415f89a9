use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use super::policy::{RetryPolicy, Settings};
use crate::{
    exchange::Repeated,
    layers::{
        repeat::{KeptBody, KeptRequest},
        service::{BoxFuture, HttpService},
    },
};

/// Repeats requests that failed; see the [module](crate::retry).
///
/// The budget belongs to the policy and its clones: all services made by this layer share it.
#[derive(Clone, Debug)]
pub struct RetryLayer {
    policy: RetryPolicy,
}

impl RetryLayer {
    /// Repeats requests as this policy says.
    pub const fn new(policy: RetryPolicy) -> Self {
        Self { policy }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry { inner, settings: self.policy.shared() }
    }
}

/// The service of [`RetryLayer`].
///
/// It wraps any service of [`http::Request`]s that can be cloned and sent to another thread, and so can its
/// futures and errors.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S, ReqB, B> Service<Request<ReqB>> for Retry<S>
where
    S: HttpService<ReqB, Response = Response<B>>,
    ReqB: HttpBody + Default + Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = RetryFuture<S, ReqB>;

    /// Ready when the service below is. Before a further attempt that is waited for again.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let decision = KeptBody::of(&request).map(|body| {
            let settings = Arc::clone(&self.settings);
            let repetition = settings.is_worth_it(&request).then(|| {
                let (inner, request) = (self.inner.clone(), body.with_head_of(&request));
                Repetition { inner, request, began_at: Instant::now() }
            });
            Decision { settings, repetition }
        });
        RetryFuture { state: State::First { attempt: self.inner.call(request), decision } }
    }
}

/// What becomes of the first response to a request that may be repeated.
struct Decision<S, ReqB> {
    settings: Arc<Settings>,
    /// `None` under a policy that repeats nothing.
    repetition: Option<Repetition<S, ReqB>>,
}

/// All that a further attempt needs.
struct Repetition<S, ReqB> {
    inner: S,
    request: KeptRequest<ReqB>,
    began_at: Instant,
}

impl<S, ReqB> Repetition<S, ReqB>
where
    ReqB: HttpBody + Default + 'static,
{
    /// Makes further attempts until one succeeds, or there are to be no more.
    async fn run<B>(
        mut self,
        mut policy: RetryPolicy,
        mut request: Request<ReqB>,
        mut wait: Sleep,
    ) -> Result<Response<B>, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<B>>,
    {
        loop {
            wait.await;
            policy.begin();
            // What a failed response holds, such as a place at the origin, goes before the next wait.
            let mut result = (&mut self.inner).oneshot(request).await;
            match next(&mut policy, Some(&self), &mut result) {
                Some((next_wait, next_request)) => (wait, request) = (next_wait, next_request),
                None => return result,
            }
        }
    }
}

/// The wait before the next attempt, and its request, which is made only if there is to be one.
fn next<S, ReqB, B>(
    policy: &mut RetryPolicy,
    repetition: Option<&Repetition<S, ReqB>>,
    result: &mut Result<Response<B>, S::Error>,
) -> Option<(Sleep, Request<ReqB>)>
where
    S: Service<Request<ReqB>, Response = Response<B>>,
    ReqB: HttpBody + Default + 'static,
{
    let settings = policy.shared();
    let mut request = None;
    let wait = policy.next(result, || {
        request = repetition.and_then(|repetition| repetition.request.to_request());
        request.as_mut().is_some_and(|request| {
            request.extensions_mut().insert(Repeated);
            settings.is_up(request)
        })
    })?;
    Some((wait, request?))
}

pin_project! {
    /// The response future of [`Retry`].
    pub struct RetryFuture<S, ReqB>
    where
        S: Service<Request<ReqB>>,
    {
        #[pin]
        state: State<S, ReqB>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, ReqB>
    where
        S: Service<Request<ReqB>>,
    {
        // `None`: a request that may not be repeated.
        First { #[pin] attempt: S::Future, decision: Option<Decision<S, ReqB>> },
        // Boxed, for it is rare, and other requests need not have room for it.
        Further { future: BoxFuture<Result<S::Response, S::Error>> },
    }
}

impl<S, ReqB, B> Future for RetryFuture<S, ReqB>
where
    S: Service<Request<ReqB>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    ReqB: HttpBody + Default + Send + 'static,
    B: Send + 'static,
{
    type Output = Result<Response<B>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let further = match self.as_mut().project().state.project() {
            StateProj::Further { future } => return future.as_mut().poll(cx),
            StateProj::First { attempt, decision } => {
                let mut result = ready!(attempt.poll(cx));
                let Some(Decision { settings, repetition }) = decision.take() else {
                    return Poll::Ready(result);
                };
                let began_at = repetition.as_ref().map(|repetition| repetition.began_at);
                let mut policy = RetryPolicy::begun(settings, began_at);
                let next = next(&mut policy, repetition.as_ref(), &mut result);
                let (Some((wait, request)), Some(repetition)) = (next, repetition) else {
                    return Poll::Ready(result);
                };
                repetition.run(policy, request, wait)
            }
        };
        self.as_mut().project().state.set(State::Further { future: Box::pin(further) });
        self.poll(cx)
    }
}

impl<S, ReqB> fmt::Debug for RetryFuture<S, ReqB>
where
    S: Service<Request<ReqB>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture").finish_non_exhaustive()
    }
}
