//! What every layer needs to wrap a service: the bounds, a call at once, and the response future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use http::{Request, Response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_service::Service;

use crate::{
    body::Body,
    exchange::{
        Observers, Record,
        status::{CacheStatus, Forward, Lost},
    },
    key::Unkeyed,
    layers::invalidation::pass_on,
    observe::Stats,
    tags::TagFields,
};

/// A service that a layer here can wrap: one of HTTP requests, which can be cloned and sent to other threads,
/// and so can its futures and errors.
pub(crate) trait HttpService<ReqB>:
    Service<Request<ReqB>, Error: Send, Future: Send> + Clone + Send + 'static
{
}

impl<S, ReqB> HttpService<ReqB> for S where
    S: Service<Request<ReqB>, Error: Send, Future: Send> + Clone + Send + 'static
{
}

pin_project! {
    /// One call of a service, made at once if the service is ready, for layers that are always ready
    /// themselves.
    ///
    /// Unlike [`Oneshot`] it need not keep the request of a service that is ready, as most are.
    #[project = EagerProj]
    pub enum EagerOneshot<S, R>
    where
        S: Service<R>,
    {
        Called { #[pin] future: S::Future },
        Failed { error: Option<S::Error> },
        // Boxed, so that no other call has to have room for a request.
        Waiting { oneshot: Pin<Box<Oneshot<S, R>>> },
    }
}

impl<S: Service<R> + Clone, R> EagerOneshot<S, R> {
    /// Calls a clone, which is gone after the call: what was polled may have got a place in a queue, also if
    /// it is ready (`LoadShed`), and its turn would come without a task to be woken.
    // Not inlined, the request is moved once more.
    #[inline(always)]
    pub(crate) fn new(service: &S, request: R) -> Self {
        let mut called = service.clone();
        match called.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Self::Called { future: called.call(request) },
            Poll::Ready(Err(error)) => Self::Failed { error: Some(error) },
            Poll::Pending => {
                drop(called);
                Self::Waiting { oneshot: Box::pin(Oneshot::new(service.clone(), request)) }
            }
        }
    }

    /// Calls the service itself if it is a layer of this crate: those are always ready, and a poll leaves
    /// nothing in them. Otherwise as [`new`](Self::new). Spares a clone of all that is below.
    #[inline(always)]
    pub(crate) fn through(service: &mut S, is_own_layer: bool, request: R) -> Self {
        match is_own_layer {
            true => Self::Called { future: service.call(request) },
            false => Self::new(service, request),
        }
    }
}

impl<S: Service<R>, R> Future for EagerOneshot<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            EagerProj::Called { future } => future.poll(cx),
            #[allow(clippy::expect_used)]
            EagerProj::Failed { error } => Poll::Ready(Err(error.take().expect("polled after completion"))),
            EagerProj::Waiting { oneshot } => oneshot.as_mut().poll(cx),
        }
    }
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    /// The response future of every layer here.
    ///
    /// A response from the store is ready at once, and a request that does not concern the layer is passed
    /// on without a box. Only a call whose response the layer has work to do on is boxed.
    pub struct ResponseFuture<F, B, E> {
        #[pin]
        kind: Kind<F, B, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, B, E> {
        Ready { response: Option<Response<Body<B>>> },
        Pass { #[pin] below: F, finish: Finish },
        Boxed { future: BoxFuture<Result<Response<Body<B>>, E>> },
    }
}

/// What is to be done with a response that is passed on. Small, since futures nest.
enum Finish {
    Nothing,
    /// The same over a layer of this crate, which has corrected what the response says of its length.
    Settled,
    StripTags(TagFields),
    SayWhy(Unkeyed),
    /// Counts what became of a request that was sent on for this reason, and whether it is over such a layer.
    Count(Stats, Why, bool),
}

/// Why a request was sent on. Smaller than the status that says so, which says more of a response.
#[derive(Clone, Copy)]
struct Why(Forward, Option<Lost>);

impl Why {
    fn of(status: CacheStatus) -> Option<Self> {
        status.forward_reason().map(|why| Self(why, status.lost_reason()))
    }

    fn status(self) -> CacheStatus {
        let Self(why, lost) = self;
        lost.map_or(CacheStatus::forwarded(why), CacheStatus::lost)
    }
}

impl Finish {
    fn finish<B: HttpBody, E>(&self, result: &mut Result<Response<B>, E>) {
        match result {
            Ok(response) => self.apply(response),
            Err(_) => {
                if let Self::Count(stats, why, _) = self {
                    stats.count(&Record::failed(why.status()));
                }
            }
        }
    }

    fn apply<B: HttpBody>(&self, response: &mut Response<B>) {
        match self {
            Self::Nothing => pass_on(response, None, None),
            Self::Settled => {}
            Self::StripTags(own) => pass_on(response, None, Some(own)),
            Self::SayWhy(why) => {
                pass_on(response, None, None);
                CacheStatus::unkeyed(*why).mark_passed(response);
            }
            Self::Count(stats, why, is_settled) => {
                if !is_settled {
                    pass_on(response, None, None);
                }
                stats.count(&Record::to_count(response, why.status()));
            }
        }
    }
}

impl<F, B, E> ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    pub(crate) fn ready(response: Response<Body<B>>) -> Self {
        Self { kind: Kind::Ready { response: Some(response) } }
    }

    /// The response of the service below.
    pub(crate) const fn pass(below: F) -> Self {
        Self { kind: Kind::Pass { below, finish: Finish::Nothing } }
    }

    /// As [`pass`](Self::pass). `is_over_own_layer`: whether the service below is a layer of this crate.
    pub(crate) const fn pass_over(below: F, is_over_own_layer: bool) -> Self {
        let finish = if is_over_own_layer { Finish::Settled } else { Finish::Nothing };
        Self { kind: Kind::Pass { below, finish } }
    }

    /// As [`pass`](Self::pass), without the fields that name tags, if no other layer removes them.
    pub(crate) fn pass_without_tags(below: F, own: Option<TagFields>) -> Self {
        Self { kind: Kind::Pass { below, finish: own.map_or(Finish::Nothing, Finish::StripTags) } }
    }

    /// As [`pass`](Self::pass), and says why the request has no key, if there is a reason to give.
    pub(crate) fn pass_unkeyed(below: F, why: Option<Unkeyed>) -> Self {
        Self { kind: Kind::Pass { below, finish: why.map_or(Finish::Nothing, Finish::SayWhy) } }
    }

    /// As [`pass_over`](Self::pass_over), and counts what became of a request that was sent on for this reason.
    pub(crate) fn pass_counted(
        below: F,
        is_over_own_layer: bool,
        observers: &Observers,
        why: CacheStatus,
    ) -> Self {
        match (observers.stats(), Why::of(why)) {
            (Some(stats), Some(why)) => {
                let finish = Finish::Count(stats.clone(), why, is_over_own_layer);
                Self { kind: Kind::Pass { below, finish } }
            }
            _ => Self::pass_over(below, is_over_own_layer),
        }
    }

    pub(crate) fn boxed(future: impl Future<Output = Result<Response<Body<B>>, E>> + Send + 'static) -> Self {
        Self { kind: Kind::Boxed { future: Box::pin(future) } }
    }
}

impl<F, B, E> ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: HttpBody + Send + 'static,
    E: Send + 'static,
{
    /// Tells the observers what became of a request that was sent on for this reason.
    pub(crate) fn observed(self, observers: &Observers, why: CacheStatus) -> Self {
        if observers.is_empty() {
            return self;
        }
        let observers = observers.clone();
        Self::boxed(async move {
            let result = self.await;
            match &result {
                Ok(response) => observers.finish(response, why, None),
                Err(_) => observers.fail(why, None),
            }
            result
        })
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody,
{
    type Output = Result<Response<Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            #[allow(clippy::expect_used)]
            KindProj::Ready { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion")))
            }
            KindProj::Boxed { future } => future.as_mut().poll(cx),
            KindProj::Pass { below, finish } => {
                let mut result = ready!(below.poll(cx));
                finish.finish(&mut result);
                Poll::Ready(result.map(|response| response.map(Body::inner)))
            }
        }
    }
}

impl<F, B, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        convert::Infallible,
        future::{Ready, ready},
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };
    use tower::{ServiceExt, limit::ConcurrencyLimit};

    /// Counts from the moment of the call, and not of the first poll.
    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicU32>);

    impl Service<u32> for Counting {
        type Response = u32;
        type Error = Infallible;
        type Future = Ready<Result<u32, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: u32) -> Self::Future {
            self.0.fetch_add(1, Ordering::Relaxed);
            ready(Ok(request))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ready_service_is_called_at_once_and_any_other_in_its_turn() {
        let counting = Counting::default();
        let called = || counting.0.load(Ordering::Relaxed);
        let mut limited = ConcurrencyLimit::new(counting.clone(), 1);
        let first = EagerOneshot::new(&limited, 1);
        assert_eq!(called(), 1);
        let permit = tokio::spawn(EagerOneshot::new(&limited, 2));
        tokio::task::yield_now().await;
        assert_eq!(called(), 1, "its permit is taken");
        assert_eq!(first.await, Ok(1));
        assert_eq!(permit.await.unwrap(), Ok(2));
        // A future that is not polled has no place in the queue, where the turn would end with it.
        let held = limited.ready().await.unwrap().call(3);
        let unpolled = EagerOneshot::new(&limited, 4);
        drop(held);
        let next = tokio::time::timeout(Duration::from_secs(1), EagerOneshot::new(&limited, 5));
        assert_eq!(next.await, Ok(Ok(5)));
        assert_eq!(unpolled.await, Ok(4));
    }

    #[tokio::test]
    async fn a_service_that_cannot_become_ready_says_why() {
        #[derive(Clone)]
        struct Broken;

        impl Service<()> for Broken {
            type Response = ();
            type Error = &'static str;
            type Future = Ready<Result<(), &'static str>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
                Poll::Ready(Err("broken"))
            }

            fn call(&mut self, (): ()) -> Self::Future {
                unreachable!("it is not ready")
            }
        }

        assert_eq!(EagerOneshot::new(&Broken, ()).await, Err("broken"));
    }
}
