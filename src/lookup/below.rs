use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower::util::Oneshot;
use tower_service::Service;

use crate::{
    called::Called,
    store::{Invalidation, pass_on},
};

pin_project! {
    /// What the service below is asked.
    #[project = BelowProj]
    pub enum Below<S, R>
    where
        S: Service<R>,
    {
        // Not before it is polled: a refresh is begun by somebody who is not to wait for it, nor to
        // panic with it.
        Keyed { #[pin] oneshot: Oneshot<S, R> },
        Keyless { #[pin] called: Called<S, R>, invalidation: Option<Invalidation> },
    }
}

impl<S, R> Below<S, R>
where
    S: Service<R> + Clone,
{
    pub(super) fn keyed(service: S, request: R) -> Self {
        Self::Keyed { oneshot: Oneshot::new(service, request) }
    }

    /// Invalidates something once the answer is there.
    pub(super) fn keyless(service: S, request: R, invalidation: Option<Invalidation>) -> Self {
        Self::Keyless { called: Called::new(service, request), invalidation }
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
            BelowProj::Keyless { called, invalidation } => {
                let mut answer = ready!(called.poll(cx));
                if let Ok(response) = &mut answer {
                    pass_on(response, invalidation.as_ref(), false);
                }
                Poll::Ready(answer)
            }
        }
    }
}
