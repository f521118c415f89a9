//! An origin whose answers are futures with bodies of any kind, where a script is not enough:
//! for crowds, slow bodies and whole applications. Never fails as a service.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};
use tower_readthrough::{MemoryStore, ReadThroughLayer, Rules};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Handler = dyn Fn(usize, Request<Body>) -> BoxFuture<Response<Body>> + Send + Sync;

/// A service that counts its calls and answers with what the test says.
#[derive(Clone)]
pub(crate) struct Origin {
    calls: Arc<AtomicUsize>,
    handler: Arc<Handler>,
}

impl Origin {
    /// The handler gets the number of the call, from 1 on.
    pub(crate) fn new<F, Fut>(handler: F) -> Self
    where
        F: Fn(usize, Request<Body>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        Self { calls: Arc::default(), handler: Arc::new(move |n, request| Box::pin(handler(n, request))) }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Service<Request<Body>> for Origin {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let n = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = (self.handler)(n, request);
        Box::pin(async move { Ok(answer.await) })
    }
}

pub(crate) fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).unwrap()
}

/// A 200 with these header fields.
pub(crate) fn response(fields: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut builder = Response::builder();
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

pub(crate) fn status(code: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

pub(crate) async fn bytes<B>(response: Response<B>) -> Bytes
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    response.into_body().collect().await.unwrap().to_bytes()
}

/// The status and body that one caller gets.
pub(crate) async fn call<S, B>(service: &S, request: Request<Body>) -> (StatusCode, Bytes)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let response = service.clone().oneshot(request).await.unwrap();
    (response.status(), bytes(response).await)
}

/// The same body as text.
pub(crate) async fn text<S, B>(service: &S, request: Request<Body>) -> String
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    String::from_utf8(call(service, request).await.1.to_vec()).unwrap()
}

/// A GET with these fields.
pub(crate) fn request(uri: &str, fields: &[(&'static str, &str)]) -> Request<Body> {
    let request =
        fields.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

pub(crate) fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(256 << 20)
}

/// The default stack under these rules.
pub(crate) fn stack(rules: Rules) -> ReadThroughLayer<MemoryStore> {
    ReadThroughLayer::builder(store()).rules(rules).build().unwrap()
}

pub(crate) fn fixed(millis: u64) -> Rules {
    Rules::new().fixed_ttl(ms(millis))
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
