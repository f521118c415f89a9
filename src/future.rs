use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    body::Body,
    called::Called,
    store::{Invalidation, pass_on},
};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

pin_project! {
    /// The response future of every layer here.
    ///
    /// An answer from the store is ready at once, and a request that does not concern the layer
    /// is passed on without a box; only what takes its time at the origin is boxed.
    pub struct ResponseFuture<S, R, B>
    where
        S: Service<R>,
    {
        #[pin]
        kind: Kind<S, R, B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<S, R, B>
    where
        S: Service<R>,
    {
        Ready { response: Option<Response<Body<B>>> },
        Pass { #[pin] inner: Called<S, R>, invalidation: Option<Box<Invalidation>>, strips_tags: bool },
        Boxed { future: BoxFuture<Result<Response<Body<B>>, S::Error>> },
    }
}

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<R, Response = Response<B>>,
{
    /// Invalidates something once the response to a request is there that was passed on. Rare and
    /// large, so that it is boxed: futures of a stack contain each other.
    pub(crate) fn then(mut self, then: Option<Invalidation>) -> Self {
        if let Kind::Pass { invalidation, .. } = &mut self.kind {
            *invalidation = then.map(Box::new);
        }
        self
    }

    /// Removes the fields that are for caches alone from what is passed on, which no other layer
    /// will do.
    pub(crate) fn strip_tags(mut self, strip: bool) -> Self {
        if let Kind::Pass { strips_tags, .. } = &mut self.kind {
            *strips_tags = strip;
        }
        self
    }

    pub(crate) fn ready(response: Response<Body<B>>) -> Self {
        Self { kind: Kind::Ready { response: Some(response) } }
    }

    /// The inner service is made ready first: what is above was always ready.
    pub(crate) fn pass(inner: S, request: R) -> Self {
        Self::called(Called::new(inner, request))
    }

    pub(crate) fn called(inner: Called<S, R>) -> Self {
        Self { kind: Kind::Pass { inner, invalidation: None, strips_tags: false } }
    }

    pub(crate) fn boxed(
        future: impl Future<Output = Result<Response<Body<B>>, S::Error>> + Send + 'static,
    ) -> Self {
        Self::waiting(Box::pin(future))
    }

    pub(crate) fn waiting(future: BoxFuture<Result<Response<Body<B>>, S::Error>>) -> Self {
        Self { kind: Kind::Boxed { future } }
    }
}

impl<S, R, B> Future for ResponseFuture<S, R, B>
where
    S: Service<R, Response = Response<B>>,
{
    type Output = Result<Response<Body<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            #[allow(clippy::expect_used)]
            KindProj::Ready { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion")))
            }
            KindProj::Boxed { future } => future.as_mut().poll(cx),
            KindProj::Pass { inner, invalidation, strips_tags } => {
                let mut answer = ready!(inner.poll(cx));
                if let Ok(response) = &mut answer {
                    pass_on(response, invalidation.as_deref(), *strips_tags);
                }
                Poll::Ready(answer.map(|response| response.map(Body::inner)))
            }
        }
    }
}

impl<S: Service<R>, R, B> fmt::Debug for ResponseFuture<S, R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
