use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use crate::{
    body::{Body, BoxError},
    exchange::{CacheRequest, without_extensions},
    layers::fill::{Client, Sent},
    layers::origin_limit::OriginLimit,
    layers::retry::RetryPolicy,
};

/// The way to the origin, and when to go it again.
///
/// As [`Retry`](tower::retry::Retry), which would copy every request, be it ever so rare that one is
/// tried again: here the copy that [`Fill`](crate::Fill) has of most of them does for both.
#[derive(Clone)]
pub(super) struct Retrying<S> {
    policy: RetryPolicy,
    origin: OriginLimit<S>,
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
        let again = again.map(|body| Again::new(&head, sent.and_then(|sent| sent.client), body));
        async move {
            // Not before: a refresh is begun by somebody who is not to wait for it, nor to panic with it.
            let (again, wait) = {
                let mut result = origin.call(Request::from_parts(head, body)).await;
                let Some(again) = again else { return result };
                let Some(wait) = policy.next(&mut result) else { return result };
                // The result goes here, with what it holds, such as a place at the origin.
                (again, wait)
            };
            // Boxed, for it is rare, and everybody else would have to have room for it.
            Box::pin(again.ask(policy, origin, wait)).await
        }
    }
}

/// A request that may have to be asked again.
struct Again<ReqB> {
    kept: Kept,
    body: ReqB,
}

/// The head of a request.
enum Kept {
    /// Most have nothing in their extensions but what is asked of the cache, and all that is kept of
    /// them for judging the answer.
    Client(Arc<Client>),
    Extended(Arc<Client>, Extensions),
    Whole(Box<Parts>),
}

impl Kept {
    fn of(head: &Parts, client: Option<Arc<Client>>) -> Self {
        match client {
            Some(client) if head.extensions.len() == 1 && head.extensions.get::<CacheRequest>().is_some() => {
                Self::Client(client)
            }
            Some(client) => Self::Extended(client, head.extensions.clone()),
            None => Self::Whole(Box::new(head.clone())),
        }
    }

    fn head(&self) -> Parts {
        match self {
            Self::Client(client) => {
                let mut head = without_extensions(&client.head);
                head.extensions.insert(client.asked.clone());
                head
            }
            Self::Extended(client, extensions) => {
                let mut head = without_extensions(&client.head);
                head.extensions.clone_from(extensions);
                head
            }
            Self::Whole(head) => (**head).clone(),
        }
    }
}

impl<ReqB> Again<ReqB> {
    fn new(head: &Parts, client: Option<Arc<Client>>, body: ReqB) -> Self {
        Self { kept: Kept::of(head, client), body }
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
            let head = self.kept.head();
            let next = policy.begin(Instant::now(), &head.method, &head.extensions, &self.body);
            let mut result = origin.call(Request::from_parts(head, self.body)).await;
            let Some(body) = next else { return result };
            let Some(again) = policy.next(&mut result) else { return result };
            (self.body, wait) = (body, again);
        }
    }
}
