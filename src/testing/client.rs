//! A client of any service, which collects whole responses.

use std::{fmt, future::Future, marker::PhantomData, panic::Location, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body as HttpBody;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_service::Service;

use super::{Seen, TestBody, answer::field};

/// Sends requests to clones of a service, and returns what a client sees of it.
///
/// `B` is the body of the requests, [`TestBody`] unless [`with_body`](Self::with_body) says otherwise. It has to be
/// one that can be empty and made of bytes.
///
/// A target that is a path is one at `http://example.com`, since a request without a host has no key; see
/// [`host`](Self::host).
///
/// ```
/// use std::time::Duration;
/// use tower::Layer;
/// use tower_readthrough::{Forward, ReadThroughLayer, testing::{Answer, Client, ScriptedOrigin}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let origin = ScriptedOrigin::always(|| Answer::ok("hello"));
/// let client = Client::new(ReadThroughLayer::with_ttl(Duration::from_secs(60)).layer(origin.clone()));
/// client.get("/").send().await.expect_status(200).expect_miss(Forward::UriMiss);
/// client.get("/").header("accept", "text/html").send().await.expect_hit().expect_body("hello");
/// # }
/// ```
pub struct Client<S, B = TestBody> {
    service: S,
    host: Box<str>,
    headers: HeaderMap,
    body: PhantomData<fn() -> B>,
}

impl<S> Client<S> {
    /// Makes a client of this service.
    pub fn new(service: S) -> Self {
        Self { service, host: "http://example.com".into(), headers: HeaderMap::new(), body: PhantomData }
    }

    /// Makes a client whose requests have a body of the type `B`, for a service that takes no other.
    pub fn with_body<B>(service: S) -> Client<S, B> {
        let Self { service, host, headers, .. } = Self::new(service);
        Client { service, host, headers, body: PhantomData }
    }
}

impl<S: Clone, B> Client<S, B> {
    /// Sets what stands before a target that is a path: scheme and host, without a slash at the end. Default:
    /// `http://example.com`. An empty one leaves the target a path, as a server gets it; then the host needs a
    /// [field](Self::header).
    #[must_use]
    pub fn host(mut self, host: impl Into<Box<str>>) -> Self {
        self.host = host.into();
        self
    }

    /// Appends a header field to every request.
    ///
    /// # Panics
    ///
    /// If the name or the value is invalid.
    #[must_use]
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = field(name, value.as_ref());
        self.headers.append(name, value);
        self
    }

    /// Begins a GET request.
    ///
    /// # Panics
    ///
    /// If the target is invalid.
    #[track_caller]
    pub fn get(&self, target: &str) -> ClientRequest<S, B> {
        self.request("GET", target)
    }

    /// Begins a HEAD request.
    ///
    /// # Panics
    ///
    /// If the target is invalid.
    #[track_caller]
    pub fn head(&self, target: &str) -> ClientRequest<S, B> {
        self.request("HEAD", target)
    }

    /// Begins a POST request.
    ///
    /// # Panics
    ///
    /// If the target is invalid.
    #[track_caller]
    pub fn post(&self, target: &str) -> ClientRequest<S, B> {
        self.request("POST", target)
    }

    /// Begins a request of this method.
    ///
    /// # Panics
    ///
    /// If the method or the target is invalid.
    #[track_caller]
    pub fn request(&self, method: &str, target: &str) -> ClientRequest<S, B> {
        let host = if target.starts_with('/') { &*self.host } else { "" };
        let name = method;
        let Ok(method) = Method::from_bytes(name.as_bytes()) else { panic!("{name:?} is not a method") };
        let uri = match format!("{host}{target}").parse() {
            Ok(uri) => uri,
            Err(error) => panic!("{target:?} is not a target: {error}"),
        };
        ClientRequest {
            service: self.service.clone(),
            method,
            uri,
            headers: self.headers.clone(),
            content: Bytes::new(),
            label: format!("{name} {target}").into(),
            body: PhantomData,
        }
    }
}

/// A request of a [`Client`] that is not sent yet.
#[must_use = "a request does nothing until it is sent"]
pub struct ClientRequest<S, B = TestBody> {
    service: S,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    content: Bytes,
    label: Box<str>,
    body: PhantomData<fn() -> B>,
}

/// When a client drops its request or its response; see [`drop_after`](ClientRequest::drop_after).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropAfter {
    /// At the head of the response.
    Head,
    /// When at least so many bytes of the body have arrived.
    Bytes(usize),
    /// When so much time has passed, by tokio's clock, and the response is not complete.
    Time(Duration),
}

impl<S, B> ClientRequest<S, B> {
    /// Appends a header field.
    ///
    /// # Panics
    ///
    /// If the name or the value is invalid.
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = field(name, value.as_ref());
        self.headers.append(name, value);
        self
    }

    /// Sets the body.
    pub fn body(mut self, content: impl Into<Bytes>) -> Self {
        self.content = content.into();
        self
    }
}

impl<S, B, R> ClientRequest<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Default + From<Bytes>,
    R: HttpBody,
{
    fn call(&self) -> impl Future<Output = Result<Response<R>, S::Error>> + use<S, B, R> {
        let body = if self.content.is_empty() { B::default() } else { self.content.clone().into() };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        self.service.clone().oneshot(request)
    }

    /// Sends the request through a clone of the service, and reads the response to its end.
    ///
    /// # Errors
    ///
    /// That of the service.
    pub async fn try_send(self) -> Result<Seen, S::Error> {
        let response = self.call().await?;
        Ok(Seen::of(response).await.to(&self.label))
    }

    /// Sends the request through a clone of the service, and reads the response to its end.
    ///
    /// # Panics
    ///
    /// If the service returns an error. The message says where the request was sent.
    #[track_caller]
    pub fn send(self) -> impl Future<Output = Seen> + use<S, B, R>
    where
        S::Error: fmt::Debug,
    {
        let here = Location::caller();
        async move {
            let response = responded(self.call().await, &self.label, here);
            Seen::of(response).await.to(&self.label)
        }
    }

    /// Sends the request so many times at once, and reads all responses to their ends.
    ///
    /// # Panics
    ///
    /// If the service returns an error.
    #[track_caller]
    pub fn burst(self, requests: usize) -> impl Future<Output = Vec<Seen>> + use<S, B, R>
    where
        S::Error: fmt::Debug,
    {
        let here = Location::caller();
        let label = self.label.clone();
        let calls: Vec<_> = (0..requests).map(|_| self.call()).collect();
        let answers = calls.into_iter().map(move |call| {
            let label = label.clone();
            async move { Seen::of(responded(call.await, &label, here)).await.to(&label) }
        });
        join_all(answers)
    }

    /// Sends the request, and drops it or its response before the end, as a client does that has gone away.
    ///
    /// Returns what came until then. `None`: not even a head.
    ///
    /// # Panics
    ///
    /// If the service returns an error.
    #[track_caller]
    pub fn drop_after(self, when: DropAfter) -> impl Future<Output = Option<Seen>> + use<S, B, R>
    where
        S::Error: fmt::Debug,
    {
        let here = Location::caller();
        async move {
            let head = async { responded(self.call().await, &self.label, here) };
            let seen = match when {
                DropAfter::Head => Some(Seen::until(head.await, 0).await),
                DropAfter::Bytes(bytes) => Some(Seen::until(head.await, bytes).await),
                DropAfter::Time(time) => timeout(time, async { Seen::of(head.await).await }).await.ok(),
            };
            seen.map(|seen| seen.to(&self.label))
        }
    }
}

fn responded<R, E: fmt::Debug>(
    response: Result<Response<R>, E>,
    label: &str,
    sent_at: &Location<'_>,
) -> Response<R> {
    response.unwrap_or_else(|error| {
        panic!("{label} must have a response, and the service failed: {error:?} (sent at {sent_at})")
    })
}

impl<S: Clone, B> Clone for Client<S, B> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            host: self.host.clone(),
            headers: self.headers.clone(),
            body: PhantomData,
        }
    }
}

impl<S, B> fmt::Debug for Client<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.host).finish_non_exhaustive()
    }
}

impl<S, B> fmt::Debug for ClientRequest<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRequest").field("request", &self.label).finish_non_exhaustive()
    }
}
