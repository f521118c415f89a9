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
    exchange::{Observers, status::CacheStatus},
    key::Unkeyed,
    layers::eager_oneshot::EagerOneshot,
    layers::invalidation::{Invalidation, pass_on},
    tags::TagFields,
};

/// What is to be done with the response to a request without a key.
pub(crate) struct Keyless {
    /// What it invalidates.
    pub(super) invalidation: Option<Invalidation>,
    /// Why there is no key, if responses to such requests say it.
    pub(super) why: Option<Unkeyed>,
    pub(super) shows_status: bool,
    pub(super) observers: Observers,
}

impl Keyless {
    /// Nothing: the request is that of a fetch of this very cache.
    pub(crate) const PASSED: Self =
        Self { invalidation: None, why: None, shows_status: true, observers: Observers::NONE };

    #[inline]
    pub(crate) fn finish<B: HttpBody>(&self, response: &mut Response<B>, strips_tags: Option<&TagFields>) {
        pass_on(response, self.invalidation.as_ref(), strips_tags);
        if let Some(why) = self.why {
            let came_about = CacheStatus::unkeyed(why);
            came_about.mark_passed(response);
            self.observers.finish(response, came_about);
        }
        if !self.shows_status {
            CacheStatus::hide(response);
        }
    }

    /// Tells observers that there is no response.
    pub(crate) fn fail(&self) {
        if let Some(why) = self.why {
            self.observers.fail(CacheStatus::unkeyed(why));
        }
    }
}

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
        Keyless { #[pin] called: EagerOneshot<S, R>, keyless: Keyless },
    }
}

impl<S, R> Below<S, R>
where
    S: Service<R> + Clone,
{
    pub(super) fn keyed(service: S, request: R) -> Self {
        Self::Keyed { oneshot: Oneshot::new(service, request) }
    }

    pub(super) fn keyless(service: S, request: R, keyless: Keyless) -> Self {
        Self::Keyless { called: EagerOneshot::new(service, request), keyless }
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
            BelowProj::Keyless { called, keyless } => {
                let mut answer = ready!(called.poll(cx));
                match &mut answer {
                    Ok(response) => keyless.finish(response, None),
                    Err(_) => keyless.fail(),
                }
                Poll::Ready(answer)
            }
        }
    }
}
