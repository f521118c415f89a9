use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_service::Service;

use crate::{body::Body, http::tag_fields, store::Invalidation};

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
        invalidation: Option<Invalidation>,
        strips_tags: bool,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<S, R, B>
    where
        S: Service<R>,
    {
        Ready { response: Option<Response<Body<B>>> },
        Pass { #[pin] inner: Oneshot<S, R> },
        Boxed { future: BoxFuture<Result<Response<Body<B>>, S::Error>> },
    }
}

impl<S, R, B> ResponseFuture<S, R, B>
where
    S: Service<R, Response = Response<B>>,
{
    fn new(kind: Kind<S, R, B>) -> Self {
        Self { kind, invalidation: None, strips_tags: false }
    }

    /// Invalidates something once the response is there.
    pub(crate) fn then(self, invalidation: Option<Invalidation>) -> Self {
        Self { invalidation, ..self }
    }

    /// Removes the fields that are for caches alone, which no other layer will do.
    pub(crate) fn strip_tags(self, strip: bool) -> Self {
        Self { strips_tags: strip, ..self }
    }

    pub(crate) fn ready(response: Response<Body<B>>) -> Self {
        Self::new(Kind::Ready { response: Some(response) })
    }

    /// The inner service is made ready first: what is above was always ready.
    pub(crate) fn pass(inner: S, request: R) -> Self {
        Self::new(Kind::Pass { inner: Oneshot::new(inner, request) })
    }

    pub(crate) fn boxed(
        future: impl Future<Output = Result<Response<Body<B>>, S::Error>> + Send + 'static,
    ) -> Self {
        Self::new(Kind::Boxed { future: Box::pin(future) })
    }
}

impl<S, R, B> Future for ResponseFuture<S, R, B>
where
    S: Service<R, Response = Response<B>>,
{
    type Output = Result<Response<Body<B>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = match this.kind.project() {
            #[allow(clippy::expect_used)]
            KindProj::Ready { response } => Ok(response.take().expect("polled after completion")),
            KindProj::Pass { inner } => ready!(inner.poll(cx)).map(|response| response.map(Body::inner)),
            KindProj::Boxed { future } => ready!(future.as_mut().poll(cx)),
        };
        if let (Some(invalidation), Ok(response)) = (this.invalidation.take(), &answer) {
            invalidation.apply(response.status(), response.headers());
        }
        if let (true, Ok(response)) = (*this.strips_tags, &mut answer) {
            tag_fields::strip(response.headers_mut());
        }
        Poll::Ready(answer)
    }
}

impl<S: Service<R>, R, B> fmt::Debug for ResponseFuture<S, R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
