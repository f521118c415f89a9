//! Layers round the cache and below it, which tell the dashboard of requests.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::board::{Board, Target};
use crate::exchange::{CacheRequest, Record, status::CacheStatus};

/// A cache that a [`Dashboard`](super::Dashboard) watches: the layer of the cache, with one layer above and one below
/// it.
///
/// Neither changes requests or responses.
#[derive(Clone, Debug)]
pub struct Watched<L> {
    cache: L,
    board: Arc<Board>,
}

impl<L> Watched<L> {
    pub(super) fn new(cache: L, board: Arc<Board>) -> Self {
        Self { cache, board }
    }
}

impl<S, L: Layer<WatchedOrigin<S>>> Layer<S> for Watched<L> {
    type Service = WatchedCache<L::Service>;

    fn layer(&self, origin: S) -> Self::Service {
        let origin = WatchedOrigin { inner: origin, board: Arc::clone(&self.board) };
        WatchedCache { inner: self.cache.layer(origin), board: Arc::clone(&self.board) }
    }
}

/// A cache whose decisions a [`Dashboard`](super::Dashboard) shows.
#[derive(Clone, Debug)]
pub struct WatchedCache<S> {
    inner: S,
    board: Arc<Board>,
}

/// An origin whose time a [`Dashboard`](super::Dashboard) shows by key.
#[derive(Clone, Debug)]
pub struct WatchedOrigin<S> {
    inner: S,
    board: Arc<Board>,
}

pin_project! {
    /// The future of a [`WatchedCache`].
    #[derive(Debug)]
    pub struct WatchedCacheFuture<F> {
        #[pin]
        inner: F,
        target: Target,
        began: Instant,
        board: Arc<Board>,
    }
}

pin_project! {
    /// The future of a [`WatchedOrigin`].
    #[derive(Debug)]
    pub struct WatchedOriginFuture<F> {
        #[pin]
        inner: F,
        attempt: Option<Attempt>,
    }
}

/// A request that the origin works on. Its time ends when this is dropped, also if nothing waits for it any more.
#[derive(Debug)]
struct Attempt {
    target: Target,
    /// Why the request was sent on.
    why: CacheStatus,
    began: Instant,
    board: Arc<Board>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.board.fetched(&self.target, self.began.elapsed());
    }
}

impl<S, ReqB, B> Service<Request<ReqB>> for WatchedCache<S>
where
    S: Service<Request<ReqB>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = WatchedCacheFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let target = Target::of(request.method(), request.uri(), request.headers(), request.extensions());
        let board = Arc::clone(&self.board);
        board.sample();
        WatchedCacheFuture { began: Instant::now(), inner: self.inner.call(request), target, board }
    }
}

impl<F, B, E> Future for WatchedCacheFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx));
        let record = match &response {
            Ok(response) => CacheStatus::of(response).map(|status| Record::of(response, status)),
            // Not known of a request without a key.
            Err(_) => Some(Record::failed(this.board.why_failed(this.target).unwrap_or(CacheStatus::hit()))),
        };
        if let Some(record) = record {
            this.board.decided(this.target, record, this.began.elapsed());
        }
        Poll::Ready(response)
    }
}

impl<S, ReqB> Service<Request<ReqB>> for WatchedOrigin<S>
where
    S: Service<Request<ReqB>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WatchedOriginFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        // What has no key is not the cache's.
        let asked = request.extensions().get::<CacheRequest>();
        let attempt = asked.map(|asked| Attempt {
            target: Target::of(request.method(), request.uri(), request.headers(), request.extensions()),
            why: asked.why(),
            began: Instant::now(),
            board: Arc::clone(&self.board),
        });
        WatchedOriginFuture { inner: self.inner.call(request), attempt }
    }
}

impl<F: Future<Output = Result<T, E>>, T, E> Future for WatchedOriginFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = ready!(this.inner.poll(cx));
        if let Some(attempt) = this.attempt.take().filter(|_| output.is_err()) {
            attempt.board.failed(&attempt.target, attempt.why);
        }
        Poll::Ready(output)
    }
}
