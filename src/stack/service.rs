use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    body::{Body, BoxError},
    http::request_fields::RequestFields,
    key::{DefaultKey, KeyBuffer, KeyExtractor, Unkeyed, is_for_cache},
    layers::coalesce::Coalesce,
    layers::fill::{Fill, Policy},
    layers::future::{BoxFuture, ResponseFuture},
    layers::lookup::{Keyless, Lookup, Open},
    layers::origin_limit::{Attempt, OriginLimitLayer},
    layers::retry::RetryLayer,
    layers::stale_if_error::StaleIfError,
    store::Store,
    tags::TagFields,
};

/// What the layers answer that a miss goes through, from the inside outwards.
type Fetched<B, E> = BoxFuture<Result<Response<Body<Body<B>>>, E>>;
type Coalesced<B, E> = ResponseFuture<Fetched<B, E>, Body<Body<B>>, E>;
type Rescued<B, E> = ResponseFuture<Coalesced<B, E>, Body<Body<Body<B>>>, E>;
type Missed<B, E> = ResponseFuture<Rescued<B, E>, Body<Body<Body<Body<B>>>>, E>;
type Filled<St, P> = Fill<(), St, P>;
type WithStale<St, P> = StaleIfError<Coalesce<Filled<St, P>>, St>;

/// All layers, round nothing: they are asked one after the other, and the origin is added where it is
/// called. Servers clone a service for each request, which takes one counter so, and not one for each
/// layer.
pub(super) struct Layers<St, K, P> {
    pub(super) stack: Lookup<WithStale<St, P>, St, K>,
    pub(super) retry: RetryLayer,
    pub(super) origin_limit: OriginLimitLayer,
}

impl<St, K, P> Layers<St, K, P> {
    fn with_stale(&self) -> &WithStale<St, P> {
        &self.stack.inner
    }

    pub(super) fn coalesced(&self) -> &Coalesce<Filled<St, P>> {
        &self.with_stale().inner
    }

    fn filled(&self) -> &Filled<St, P> {
        &self.coalesced().inner
    }
}

/// The service of [`ReadThroughLayer`](super::ReadThroughLayer).
pub struct ReadThrough<S, St, K = DefaultKey, P = ()> {
    origin: S,
    layers: Arc<Layers<St, K, P>>,
}

impl<S, St, K, P> ReadThrough<S, St, K, P> {
    pub(super) fn new(origin: S, layers: Arc<Layers<St, K, P>>) -> Self {
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
    S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Clone + Send + Sync + 'static,
    St: Store,
    K: KeyExtractor,
    P: Policy,
    ReqB: HttpBody + Default + Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ReadThroughFuture<S, ReqB, B>;

    /// Always ready: a hit does not wait for the origin.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let stack = &self.layers.stack;
        if !is_for_cache(&request) {
            // What is done to it is done here: who passes on what he has looked into moves it.
            let why = Unkeyed::of(&request);
            let keyless = stack.keyless(&mut request, why);
            return self.round(request, keyless);
        }
        let (mut head, body) = request.into_parts();
        let edition = stack.note(&mut head);
        let edition = edition.as_deref();
        let mut glance = RequestFields::of(&head.headers);
        let mut key = KeyBuffer::new();
        if let Err(why) = stack.find_key(edition, &head, &glance, &mut key) {
            let mut request = Request::from_parts(head, body);
            let keyless = stack.keyless(&mut request, Some(why));
            return self.round(request, keyless);
        }
        if stack.normalises(edition) {
            stack.normalise(edition, &mut head, &mut key);
            glance = RequestFields::of(&head.headers);
        }
        // Each of the ways at once: what all went through would be moved once more.
        match stack.read((&key, edition), &head, &mut glance, flatten) {
            Ok(response) => ReadThroughFuture { way: Way::Stored { response: Some(response) } },
            Err(Open::Pass) => {
                // Its fetch has a place at the origin already, and its responses are for the layers above.
                let origin = OriginLimitLayer::unlimited();
                let attempt = origin.attempt(&self.origin, Request::from_parts(head, body));
                ReadThroughFuture { way: Way::Round { attempt, keyless: Keyless::PASSED, strips_tags: None } }
            }
            Err(open) => {
                let future =
                    stack.go_on(open, (&key, edition), (head, body), |head, body| self.missed(head, body));
                ReadThroughFuture { way: Way::Through { future } }
            }
        }
    }
}

impl<S, St, K, P> ReadThrough<S, St, K, P>
where
    St: Store,
    K: KeyExtractor,
{
    /// The way of a request without a key.
    // As what it calls: each call that is not would move the request.
    #[inline(always)]
    fn round<ReqB, B>(&self, request: Request<ReqB>, keyless: Keyless) -> ReadThroughFuture<S, ReqB, B>
    where
        S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        ReqB: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let strips_tags = self.layers.filled().strips_tags();
        let attempt = self.layers.origin_limit.attempt(&self.origin, request);
        ReadThroughFuture { way: Way::Round { attempt, keyless, strips_tags } }
    }
}

impl<S, St, K, P> ReadThrough<S, St, K, P>
where
    St: Store,
    P: Policy,
{
    /// What is below Lookup, from there inwards. To call one layer after the other as services
    /// would take a clone of all that is below at each of them; here the fetch alone has one.
    fn missed<ReqB, B>(&self, head: Parts, body: ReqB) -> Rescued<B, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Clone + Send + Sync + 'static,
        ReqB: HttpBody + Default + Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let layers = &*self.layers;
        layers.with_stale().ask(head, body, |head, body| {
            let filled = layers.filled().clone();
            let retried = layers.retry.layer(layers.origin_limit.layer(self.origin.clone()));
            layers.coalesced().ask(head, body, |head, body| {
                let below = move |(), head, body| retried.oneshot(Request::from_parts(head, body));
                filled.ask(head, body, below).into_boxed()
            })
        })
    }
}

pin_project! {
    /// The response future of [`ReadThrough`].
    pub struct ReadThroughFuture<S, ReqB, B>
    where
        S: Service<Request<ReqB>>,
    {
        #[pin]
        way: Way<S, ReqB, B>,
    }
}

pin_project! {
    #[project = WayProj]
    enum Way<S, ReqB, B>
    where
        S: Service<Request<ReqB>>,
    {
        Stored { response: Option<Response<Body<B>>> },
        Through { #[pin] future: Missed<B, S::Error> },
        Round { #[pin] attempt: Attempt<S, Request<ReqB>, B>, keyless: Keyless, strips_tags: Option<TagFields> },
    }
}

impl<S, ReqB, B> Future for ReadThroughFuture<S, ReqB, B>
where
    S: Service<Request<ReqB>, Response = Response<B>>,
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<Body<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().way.project() {
            #[allow(clippy::expect_used)]
            WayProj::Stored { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion")))
            }
            WayProj::Through { future } => future.poll_with(cx, flatten),
            // No other layer removes the fields that are for caches alone.
            WayProj::Round { attempt, keyless, strips_tags } => {
                let result = attempt.poll_with(cx, |mut answer| {
                    keyless.finish(&mut answer, strips_tags.as_ref());
                    answer
                });
                if matches!(result, Poll::Ready(Err(_))) {
                    keyless.fail();
                }
                result
            }
        }
    }
}

impl<S, ReqB, B> fmt::Debug for ReadThroughFuture<S, ReqB, B>
where
    S: Service<Request<ReqB>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThroughFuture").finish_non_exhaustive()
    }
}

/// A body that went through every layer.
type Nested<B> = Body<Body<Body<Body<Body<B>>>>>;

#[inline]
fn flatten<B>(nested: Nested<B>) -> Body<B> {
    nested.flatten().flatten().flatten().flatten()
}
