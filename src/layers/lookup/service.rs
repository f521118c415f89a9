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
use tower::util::Oneshot;
use tower_service::Service;

use super::{
    route::{Keyless, Route},
    select::Reader,
};
use crate::{
    body::{Body, ResponseBody},
    exchange::CacheRequest,
    key::{DefaultKey, KeyExtractor},
    layers::{
        key::WithoutKey,
        service::{EagerOneshot, HttpService, ResponseFuture},
    },
    store::Store,
};

/// The service of [`LookupLayer`](super::LookupLayer).
pub struct Lookup<S, St, K = DefaultKey> {
    inner: S,
    // One counter: a service may be cloned for each request, by all threads.
    reader: Arc<Reader<St, K>>,
}

impl<S, St, K> Lookup<S, St, K> {
    pub(super) const fn new(inner: S, reader: Arc<Reader<St, K>>) -> Self {
        Self { inner, reader }
    }
}

impl<S: Clone, St, K> Clone for Lookup<S, St, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), reader: Arc::clone(&self.reader) }
    }
}

impl<S: fmt::Debug, St, K> fmt::Debug for Lookup<S, St, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, St, K, ReqB, B> Service<Request<ReqB>> for Lookup<S, St, K>
where
    S: HttpService<ReqB, Response = Response<B>>,
    St: Store,
    K: KeyExtractor,
    ReqB: HttpBody + Send + 'static,
    B: ResponseBody,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<Below<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: a hit does not wait for the service below.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        self.reader.route(request, Direct(&mut self.inner))
    }
}

/// All requests go to the one service below.
struct Direct<'s, S>(&'s mut S);

impl<S, ReqB, B> Route<ReqB> for Direct<'_, S>
where
    S: HttpService<ReqB, Response = Response<B>>,
    ReqB: HttpBody + Send + 'static,
    B: ResponseBody,
{
    type Stored = B;
    type Below = B;
    type Error = S::Error;
    type Call = Below<S, Request<ReqB>>;
    type Refresh = Self::Call;
    type Future = ResponseFuture<Self::Call, B, S::Error>;

    fn call_below(&mut self, request: Request<ReqB>) -> Self::Call {
        Below::keyed(self.0.clone(), request)
    }

    fn refresh_below(&mut self, request: Request<ReqB>) -> Self::Refresh {
        Below::keyed(self.0.clone(), request)
    }

    fn stored(self, response: Response<Body<B>>) -> Self::Future {
        ResponseFuture::ready(response)
    }

    fn forwarded(self, response: Self::Future) -> Self::Future {
        response
    }

    fn keyless(self, mut request: Request<ReqB>, keyless: Keyless) -> Self::Future {
        if keyless.says_why() {
            request.extensions_mut().insert(WithoutKey);
        }
        ResponseFuture::pass(Below::keyless(self.0, request, keyless))
    }

    fn passed(mut self, mut request: Request<ReqB>) -> Self::Future {
        request.extensions_mut().get_mut().map(CacheRequest::pass);
        ResponseFuture::pass(self.call_below(request))
    }
}

pin_project! {
    /// A call of the service below.
    #[project = BelowProj]
    pub enum Below<S, R>
    where
        S: Service<R>,
    {
        // Lazy on purpose: the request that starts a background refresh must not block on it or inherit
        // its panic.
        Keyed { #[pin] oneshot: Oneshot<S, R> },
        Keyless { #[pin] call: EagerOneshot<S, R>, keyless: Keyless },
    }
}

impl<S, R> Below<S, R>
where
    S: Service<R> + Clone,
{
    fn keyed(service: S, request: R) -> Self {
        Self::Keyed { oneshot: Oneshot::new(service, request) }
    }

    fn keyless(service: &mut S, request: R, keyless: Keyless) -> Self {
        Self::Keyless { call: EagerOneshot::new(service, request), keyless }
    }
}

impl<S, R, B> Future for Below<S, R>
where
    S: Service<R, Response = Response<B>>,
    B: HttpBody,
{
    type Output = Result<Response<B>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            BelowProj::Keyed { oneshot } => oneshot.poll(cx),
            BelowProj::Keyless { call, keyless } => {
                let mut result = ready!(call.poll(cx));
                match &mut result {
                    Ok(response) => keyless.finish(response, None),
                    Err(_) => keyless.fail(),
                }
                Poll::Ready(result)
            }
        }
    }
}
