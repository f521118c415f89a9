use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use crate::{
    body::{Body, BoxError},
    exchange::{Asked, without_extensions},
    fill::Sent,
    origin_limit::OriginLimit,
    retry::RetryPolicy,
};

/// The way to the origin, and when to go it again.
///
/// As [`Retry`](tower::retry::Retry), which would copy every request, be it ever so rare that one is
/// tried again: here the copy that [`Fill`](crate::Fill) has of most of them does for both.
#[derive(Clone)]
pub(super) struct Retrying<S> {
    policy: RetryPolicy,
    pub(super) origin: OriginLimit<S>,
}

impl<S> Retrying<S> {
    pub(super) fn new(policy: RetryPolicy, origin: OriginLimit<S>) -> Self {
        Self { policy, origin }
    }

    /// What goes out just now.
    pub(super) fn ask<ReqB, B>(
        self,
        head: Parts,
        body: ReqB,
        sent: Option<Sent>,
    ) -> impl Future<Output = Result<Response<Body<B>>, S::Error>> + Send
    where
        S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        ReqB: HttpBody + Default + Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Self { mut policy, mut origin } = self;
        let now = sent.as_ref().map_or_else(Instant::now, |sent| sent.at);
        let again = policy.begin(now, &head.method, &head.extensions, &body);
        let again = again.map(|body| Again::new(&head, sent.and_then(|sent| sent.copy), body));
        async move {
            // Not before: a refresh is begun by somebody who is not to wait for it, nor to panic with it.
            let mut result = origin.call(Request::from_parts(head, body)).await;
            let Some(again) = again else { return result };
            let Some(wait) = policy.next(&mut result) else { return result };
            // With what it holds, such as a place at the origin.
            drop(result);
            // Boxed, for it is rare, and everybody else would have to have room for it.
            Box::pin(again.ask(policy, origin, wait)).await
        }
    }
}

/// A request that may have to be asked again.
struct Again<ReqB> {
    head: Arc<Parts>,
    extensions: Kept,
    body: ReqB,
}

/// The extensions of a request. Most have none but what is asked of the cache, for which to copy it
/// alone is much less work.
enum Kept {
    Asked(Asked),
    All(Extensions),
}

impl Kept {
    fn of(extensions: &Extensions) -> Self {
        match extensions.get() {
            Some(asked) if extensions.len() == 1 => Self::Asked(Asked::clone(asked)),
            _ => Self::All(extensions.clone()),
        }
    }

    fn copy_to(&self, extensions: &mut Extensions) {
        match self {
            Self::Asked(asked) => _ = extensions.insert(asked.clone()),
            Self::All(all) => extensions.clone_from(all),
        }
    }
}

impl<ReqB> Again<ReqB> {
    fn new(head: &Parts, kept: Option<Arc<Parts>>, body: ReqB) -> Self {
        let extensions = Kept::of(&head.extensions);
        Self { head: kept.unwrap_or_else(|| Arc::new(without_extensions(head))), extensions, body }
    }

    fn head(&self) -> Parts {
        let mut head = without_extensions(&self.head);
        self.extensions.copy_to(&mut head.extensions);
        head
    }

    async fn ask<S, B>(
        mut self,
        mut policy: RetryPolicy,
        mut origin: OriginLimit<S>,
        mut wait: Sleep,
    ) -> Result<Response<Body<B>>, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Send,
        ReqB: HttpBody + Default + Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        loop {
            wait.await;
            let head = self.head();
            let next = policy.begin(Instant::now(), &head.method, &head.extensions, &self.body);
            let mut result = origin.call(Request::from_parts(head, self.body)).await;
            let Some(body) = next else { return result };
            let Some(again) = policy.next(&mut result) else { return result };
            (self.body, wait) = (body, again);
        }
    }
}
