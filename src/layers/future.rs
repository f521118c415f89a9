use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;

use crate::{
    body::Body,
    exchange::{Observers, status::CacheStatus},
    key::Unkeyed,
    layers::invalidation::pass_on,
    tags::TagFields,
};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    /// The response future of every layer here.
    ///
    /// An answer from the store is ready at once, and a request that does not concern the layer
    /// is passed on without a box; only what takes its time at the origin is boxed.
    pub struct ResponseFuture<F, B, E> {
        #[pin]
        kind: Kind<F, B, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, B, E> {
        Ready { response: Option<Response<Body<B>>> },
        Pass { #[pin] below: F, strips_tags: Option<TagFields>, unkeyed: Option<Unkeyed> },
        Boxed { future: BoxFuture<Result<Response<Body<B>>, E>> },
    }
}

impl<F, B, E> ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    /// Removes the fields that are for caches alone from what is passed on, which no other layer
    /// will do.
    pub(crate) fn strip_tags(mut self, strip: Option<TagFields>) -> Self {
        if let Kind::Pass { strips_tags, .. } = &mut self.kind {
            *strips_tags = strip;
        }
        self
    }

    /// Says of what is passed on why the request has no key.
    pub(crate) fn say(mut self, why: Option<Unkeyed>) -> Self {
        if let Kind::Pass { unkeyed, .. } = &mut self.kind {
            *unkeyed = why;
        }
        self
    }

    pub(crate) fn ready(response: Response<Body<B>>) -> Self {
        Self { kind: Kind::Ready { response: Some(response) } }
    }

    /// What the service below answers.
    pub(crate) fn pass(below: F) -> Self {
        Self { kind: Kind::Pass { below, strips_tags: None, unkeyed: None } }
    }

    pub(crate) fn boxed(future: impl Future<Output = Result<Response<Body<B>>, E>> + Send + 'static) -> Self {
        Self::waiting(Box::pin(future))
    }

    pub(crate) fn waiting(future: BoxFuture<Result<Response<Body<B>>, E>>) -> Self {
        Self { kind: Kind::Boxed { future } }
    }

    /// Tells the observers what became of a request that was sent on for this reason.
    pub(crate) fn observed(self, observers: &Observers, why: CacheStatus) -> Self
    where
        F: Send + 'static,
        B: HttpBody + Send + 'static,
        E: Send + 'static,
    {
        if observers.is_empty() {
            return self;
        }
        let observers = observers.clone();
        Self::boxed(async move {
            let result = self.await;
            match &result {
                Ok(response) => observers.finish(response, why),
                Err(_) => observers.fail(why),
            }
            result
        })
    }

    /// In a box, but not in a second one.
    pub(crate) fn into_boxed(self) -> BoxFuture<Result<Response<Body<B>>, E>>
    where
        F: Send + 'static,
        B: HttpBody + Send + 'static,
        E: Send + 'static,
    {
        match self.kind {
            Kind::Boxed { future } => future,
            kind => Box::pin(Self { kind }),
        }
    }
}

impl<F, B, E> ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody,
{
    /// As `poll`, with the body in something else: a response is large, and moved but once here.
    pub(crate) fn poll_with<C>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        wrap: impl FnOnce(Body<B>) -> C,
    ) -> Poll<Result<Response<C>, E>> {
        match self.project().kind.project() {
            #[allow(clippy::expect_used)]
            KindProj::Ready { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion").map(wrap)))
            }
            KindProj::Boxed { future } => future.as_mut().poll(cx).map_ok(|answer| answer.map(wrap)),
            KindProj::Pass { below, strips_tags, unkeyed } => below.poll(cx).map_ok(|mut response| {
                pass_on(&mut response, None, strips_tags.as_ref());
                if let Some(why) = *unkeyed {
                    CacheStatus::unkeyed(why).mark_passed(&mut response);
                }
                response.map(|body| wrap(Body::inner(body)))
            }),
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody,
{
    type Output = Result<Response<Body<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_with(cx, std::convert::identity)
    }
}

impl<F, B, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
