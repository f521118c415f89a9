//! A client that collects whole responses.

use std::fmt;

use bytes::Bytes;
use http::{Extensions, HeaderMap, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};
use tower_readthrough::{CacheStatus, testing::Seen};

use super::Body;

/// A response with its whole body, or with as much of it as came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) cache_status: Option<CacheStatus>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    /// Whether the body ended with an error.
    pub(crate) is_cut: bool,
}

impl Reply {
    /// The first field of this name.
    ///
    /// # Panics
    ///
    /// If the value is not text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_else(|_| panic!("{name}: {value:?} is not text")))
    }

    /// The value of `Age`, in seconds.
    ///
    /// # Panics
    ///
    /// If the field is not a number.
    pub(crate) fn age(&self) -> Option<u64> {
        self.header("age")
            .map(|age| age.parse().unwrap_or_else(|_| panic!("age: {age:?} is not a number of seconds")))
    }

    /// How the response came about, in the words of RFC 9211; `not asked` without a cache.
    pub(crate) fn cache(&self) -> String {
        self.cache_status.map_or_else(|| "not asked".into(), |status| status.to_string())
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.cache_status.is_some_and(|status| status.is_hit())
    }
}

/// Reads a response to its end, or to its error.
pub(crate) async fn collect<B: HttpBody>(response: Response<B>) -> Reply {
    let seen = Seen::of(response).await;
    Reply {
        status: seen.status,
        headers: seen.headers,
        extensions: seen.extensions,
        cache_status: seen.decision,
        body: seen.body,
        trailers: seen.trailers,
        is_cut: seen.is_cut,
    }
}

/// A request with these fields and without a body. A target that is a path is one at `http://example.com`.
///
/// # Panics
///
/// If there is no such request.
pub(crate) fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let host = if target.starts_with('/') { "http://example.com" } else { "" };
    let mut request = Request::builder().method(method).uri(format!("{host}{target}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty());
    request.unwrap_or_else(|error| panic!("{method} {target} with {fields:?}: {error}"))
}

/// A GET request without fields.
pub(crate) fn get_request(target: &str) -> Request<Body> {
    request("GET", target, &[])
}

/// Sends a request through a clone of the service.
pub(crate) async fn try_send<S, B>(service: &S, request: Request<Body>) -> Result<Reply, S::Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    B: HttpBody<Data = Bytes>,
{
    Ok(collect(service.clone().oneshot(request).await?).await)
}

/// Sends a request through a clone of the service, which must not fail.
pub(crate) async fn send<S, B>(service: &S, request: Request<Body>) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Data = Bytes>,
{
    let target = format!("{} {}", request.method(), request.uri());
    let reply = try_send(service, request).await;
    reply.unwrap_or_else(|error| panic!("{target} has a response, not the error {error:?}"))
}

/// Sends a request as a server does: makes the service ready, and calls that very one.
pub(crate) async fn serve<S, B>(service: &mut S, request: Request<Body>) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug>,
    B: HttpBody<Data = Bytes>,
{
    let ready = service.ready().await;
    let ready =
        ready.unwrap_or_else(|error| panic!("the service becomes ready, and fails not with {error:?}"));
    let response = ready.call(request).await;
    collect(response.unwrap_or_else(|error| panic!("there is a response, not the error {error:?}"))).await
}

pub(crate) async fn get<S, B>(service: &S, target: &str) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Data = Bytes>,
{
    send(service, get_request(target)).await
}

pub(crate) async fn get_with<S, B>(service: &S, target: &str, fields: &[(&str, &str)]) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Data = Bytes>,
{
    send(service, request("GET", target, fields)).await
}

/// The whole body of a response.
///
/// # Panics
///
/// If the body breaks off.
pub(crate) async fn bytes<B>(response: Response<B>) -> Bytes
where
    B: HttpBody<Error: fmt::Debug>,
{
    match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => panic!("the body is whole, and does not break off with {error:?}"),
    }
}

/// The status and the whole body of the response to a request.
pub(crate) async fn call<S, B>(service: &S, request: Request<Body>) -> (StatusCode, Bytes)
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Error: fmt::Debug>,
{
    let target = format!("{} {}", request.method(), request.uri());
    let response = service.clone().oneshot(request).await;
    let response =
        response.unwrap_or_else(|error| panic!("{target} has a response, not the error {error:?}"));
    (response.status(), bytes(response).await)
}

/// The whole body of the response to a request, as text.
pub(crate) async fn text<S, B>(service: &S, request: Request<Body>) -> String
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Error: fmt::Debug>,
{
    let (_, body) = call(service, request).await;
    String::from_utf8(body.into()).unwrap_or_else(|error| panic!("the body is text: {error}"))
}
