use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower::{ServiceExt, util::Oneshot};
use tower_layer::Layer;
use tower_service::Service;

#[cfg(feature = "redis")]
use crate::layers::tier;
use crate::{
    body,
    key::{DefaultKey, KeyExtractor},
    layers::{
        coalesce, fill, lookup, origin_limit, retry,
        service::{BoxFuture, EagerOneshot, HttpService, ResponseFuture},
        stale_if_error,
    },
    observe::Stats,
    store::Store,
    tags::TagFields,
};

/// What a miss goes through below the lookup.
type Below<S, St, P> = stale_if_error::StaleIfError<coalesce::Coalesce<Flight<S, St, P>>, St>;

/// What a fetch goes through that several callers share.
#[cfg(feature = "redis")]
type Flight<S, St, P> = tier::TierService<Filled<S, St, P>, St>;
#[cfg(not(feature = "redis"))]
type Flight<S, St, P> = Filled<S, St, P>;

type Filled<S, St, P> = fill::Fill<retry::Retry<origin_limit::OriginLimit<S>>, St, P>;

/// The body of what that responds with, in a layer each: Retry has none of its own.
type Nested<B> = body::Body<body::Body<body::Body<body::Body<B>>>>;

/// The layers, in one piece: servers clone a service for each request, which takes one counter so, and not
/// one for each layer.
pub(super) struct Layers<St, K, P> {
    pub(super) lookup: Arc<lookup::Reader<St, K>>,
    pub(super) stale_if_error: stale_if_error::StaleIfErrorLayer<St>,
    pub(super) coalesce: coalesce::CoalesceLayer,
    #[cfg(feature = "redis")]
    pub(super) tier: Option<tier::TierLayer<St>>,
    pub(super) fill: fill::FillLayer<St, P>,
    pub(super) retry: retry::RetryLayer,
    pub(super) origin_limit: origin_limit::OriginLimitLayer,
    pub(super) stats: Stats,
}

impl<St, K, P> Layers<St, K, P> {
    /// Puts them together for one request, which takes a counter each.
    fn below<S>(&self, origin: S) -> Below<S, St, P> {
        // Next to the origin: each attempt takes a permit, and a backoff holds none.
        let limited = self.origin_limit.layer(origin);
        // Inside the fetch: callers that share it share its retries too.
        let retried = self.retry.layer(limited);
        // Sees the response once per fetch, and stores it before the fetch ends.
        let filled = self.fill.layer(retried);
        // Inside the fetch: one read for all that share it.
        #[cfg(feature = "redis")]
        let filled = tier::TierService::optional(self.tier.as_ref(), filled);
        // From here on outwards things happen once per client.
        let coalesced = self.coalesce.layer(filled);
        // Outside Coalesce, so that a caller that waited in vain gets a stale response too.
        self.stale_if_error.layer(coalesced)
    }
}

/// The service of [`ReadThroughLayer`](super::ReadThroughLayer).
///
/// It wraps any service of [`http::Request`]s that can be cloned and sent to another thread, and so can its
/// futures and errors.
pub struct ReadThrough<S, St, K = DefaultKey, P = ()> {
    origin: S,
    layers: Arc<Layers<St, K, P>>,
}

impl<S, St, K, P> ReadThrough<S, St, K, P> {
    pub(super) const fn new(origin: S, layers: Arc<Layers<St, K, P>>) -> Self {
        Self { origin, layers }
    }
}

impl<S: Clone, St, K, P> Clone for ReadThrough<S, St, K, P> {
    fn clone(&self) -> Self {
        Self { origin: self.origin.clone(), layers: Arc::clone(&self.layers) }
    }
}

impl<S, St, K, P> fmt::Debug for ReadThrough<S, St, K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThrough").finish_non_exhaustive()
    }
}

impl<S, St, K, P, ReqB, B> Service<Request<ReqB>> for ReadThrough<S, St, K, P>
where
    S: HttpService<ReqB, Response = Response<B>>,
    S::Error: Clone + Sync + 'static,
    St: Store,
    K: KeyExtractor,
    P: fill::Policy,
    ReqB: HttpBody + Default + Send + 'static,
    B: body::ResponseBody,
{
    type Response = Response<body::Body<B>>;
    type Error = S::Error;
    type Future = ReadThroughFuture<
        EagerOneshot<S, Request<ReqB>>,
        <Below<S, St, P> as Service<Request<ReqB>>>::Future,
        B,
        S::Error,
    >;

    /// Always ready: a hit does not wait for the origin.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let Self { origin, layers } = self;
        layers.lookup.route(request, Through { origin, layers })
    }
}

/// Misses go through all layers, and requests without a key round them.
struct Through<'s, S, St, K, P> {
    origin: &'s mut S,
    layers: &'s Layers<St, K, P>,
}

impl<S, St, K, P, ReqB, B> lookup::Route<ReqB> for Through<'_, S, St, K, P>
where
    S: HttpService<ReqB, Response = Response<B>>,
    S::Error: Clone + Sync + 'static,
    St: Store,
    K: KeyExtractor,
    P: fill::Policy,
    ReqB: HttpBody + Default + Send + 'static,
    B: body::ResponseBody,
{
    const IS_OVER_OWN_LAYER: bool = true;
    type Stored = B;
    type Below = Nested<B>;
    type Error = S::Error;
    type Call = <Below<S, St, P> as Service<Request<ReqB>>>::Future;
    type Refresh = Oneshot<Below<S, St, P>, Request<ReqB>>;
    type Future = ReadThroughFuture<EagerOneshot<S, Request<ReqB>>, Self::Call, B, S::Error>;

    // Called at once: all layers are ready, and the future has no room for a request.
    fn call_below(&mut self, request: Request<ReqB>) -> Self::Call {
        self.layers.below(self.origin.clone()).call(request)
    }

    fn refresh_below(&mut self, request: Request<ReqB>) -> Self::Refresh {
        self.layers.below(self.origin.clone()).oneshot(request)
    }

    #[inline(always)]
    fn stored(self, response: Response<body::Body<B>>) -> Self::Future {
        ReadThroughFuture { way: Way::Stored { response: Some(response) } }
    }

    fn forwarded(self, response: ResponseFuture<Self::Call, Nested<B>, S::Error>) -> Self::Future {
        ReadThroughFuture { way: Way::Through { response } }
    }

    #[inline(always)]
    fn keyless(self, request: Request<ReqB>, keyless: lookup::Keyless) -> Self::Future {
        // No other layer removes the fields that are for caches alone.
        let strips_tags = self.layers.fill.strips_tags();
        let way = match self.layers.origin_limit.ignores_keyless() {
            true => Way::Round { response: EagerOneshot::new(self.origin, request), keyless, strips_tags },
            false => {
                let response = self.layers.origin_limit.layer(self.origin.clone()).call(request);
                Way::Limited { response, keyless, strips_tags }
            }
        };
        ReadThroughFuture { way }
    }

    fn report(self, request: Request<ReqB>, mut report: lookup::Report) -> Self::Future {
        let fetch = report.take_fetch().and_then(|(head, stores)| self.layers.fill.report(head, stores));
        let call = EagerOneshot::new(self.origin, request);
        let response = Box::pin(async move {
            let response = match call.await {
                Ok(response) => response,
                Err(error) => {
                    report.fail();
                    return Err(error);
                }
            };
            let (response, decision) = match fetch {
                Some(fetch) => {
                    let (response, decision) = fetch.conclude(response);
                    (response, Some(decision))
                }
                None => (response.map(body::Body::inner), None),
            };
            report.finish(&response, decision.as_ref());
            Ok(response)
        });
        ReadThroughFuture { way: Way::Reported { response } }
    }

    /// Its fetch has a place at the origin already, and its responses are for the layers above.
    fn passed(self, request: Request<ReqB>) -> Self::Future {
        let response = EagerOneshot::new(self.origin, request);
        ReadThroughFuture {
            way: Way::Round { response, keyless: lookup::Keyless::PASSED, strips_tags: None },
        }
    }
}

pin_project! {
    /// The response future of [`ReadThrough`].
    pub struct ReadThroughFuture<O, T, B, E> {
        #[pin]
        way: Way<O, T, B, E>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<O, T, B, E> {
        Stored { response: Option<Response<body::Body<B>>> },
        Through { #[pin] response: ResponseFuture<T, Nested<B>, E> },
        Reported { response: BoxFuture<Result<Response<body::Body<B>>, E>> },
        Round { #[pin] response: O, keyless: lookup::Keyless, strips_tags: Option<TagFields> },
        Limited { #[pin] response: origin_limit::OriginLimitFuture<O, B, E>, keyless: lookup::Keyless, strips_tags: Option<TagFields> },
    }
}

impl<O, T, B, E> Future for ReadThroughFuture<O, T, B, E>
where
    O: Future<Output = Result<Response<B>, E>>,
    T: Future<Output = Result<Response<Nested<B>>, E>>,
    B: HttpBody<Data = Bytes>,
    B::Error: Into<body::BoxError>,
{
    type Output = Result<Response<body::Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().way.project() {
            #[allow(clippy::expect_used)]
            WayProj::Stored { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion")))
            }
            WayProj::Through { response } => response
                .poll(cx)
                .map_ok(|response| response.map(|body| body.flatten().flatten().flatten().flatten())),
            WayProj::Reported { response } => response.as_mut().poll(cx),
            WayProj::Round { response, keyless, strips_tags } => {
                let result = keyless.finished(ready!(response.poll(cx)), strips_tags.as_ref());
                Poll::Ready(result.map(|response| response.map(body::Body::inner)))
            }
            WayProj::Limited { response, keyless, strips_tags } => {
                Poll::Ready(keyless.finished(ready!(response.poll(cx)), strips_tags.as_ref()))
            }
        }
    }
}

impl<O, T, B, E> fmt::Debug for ReadThroughFuture<O, T, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThroughFuture").finish_non_exhaustive()
    }
}
