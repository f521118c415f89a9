//! What the tests of the layers share: an origin that plays a script, and a client that collects
//! what it gets.

pub(crate) mod open;

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceExt};
use tower_readthrough::CacheStatus;

pub(crate) type Body = Full<Bytes>;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// How the origin fails, as a service or in the middle of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the origin failed")
    }
}

impl std::error::Error for Failure {}

/// A body of exactly these frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    left: VecDeque<Result<Frame<Bytes>, Failure>>,
    declared: Option<u64>,
}

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Poll::Ready(self.left.pop_front())
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// One answer of the origin.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response<Frames>,
    outcome: Outcome,
    delay: Duration,
}

#[derive(Debug)]
enum Outcome {
    Respond,
    Fail,
    Panic,
    Hang,
}

/// 200 with this body, in one chunk.
pub(crate) fn ok(body: impl Into<Bytes>) -> Answer {
    let answer = Answer { response: Response::default(), outcome: Outcome::Respond, delay: Duration::ZERO };
    answer.chunk(body)
}

pub(crate) fn status(status: u16) -> Answer {
    let mut answer = ok("");
    *answer.response.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// The service itself fails.
pub(crate) fn error() -> Answer {
    Answer { outcome: Outcome::Fail, ..ok("") }
}

pub(crate) fn panics() -> Answer {
    Answer { outcome: Outcome::Panic, ..ok("") }
}

pub(crate) fn hangs() -> Answer {
    Answer { outcome: Outcome::Hang, ..ok("") }
}

impl Answer {
    pub(crate) fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
        self.response.headers_mut().append(HeaderName::from_static(name), value);
        self
    }

    pub(crate) fn max_age(self, seconds: u64) -> Self {
        self.header("cache-control", format!("max-age={seconds}"))
    }

    pub(crate) fn chunk(mut self, chunk: impl Into<Bytes>) -> Self {
        let chunk = chunk.into();
        if !chunk.is_empty() {
            self.response.body_mut().left.push_back(Ok(Frame::data(chunk)));
        }
        self
    }

    /// The body breaks off here.
    pub(crate) fn cut(mut self) -> Self {
        self.response.body_mut().left.push_back(Err(Failure));
        self
    }

    pub(crate) fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let trailers = [(HeaderName::from_static(name), HeaderValue::from_static(value))];
        self.response.body_mut().left.push_back(Ok(Frame::trailers(trailers.into_iter().collect())));
        self
    }

    /// What the body says about its length, true or not.
    pub(crate) fn declares(mut self, length: u64) -> Self {
        self.response.body_mut().declared = Some(length);
        self
    }

    /// The head takes its time.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Script = dyn Fn(usize, &request::Parts) -> Answer + Send + Sync;

/// A service that answers by a script, counts the calls, and remembers the requests.
#[derive(Clone)]
pub(crate) struct Origin {
    script: Arc<Script>,
    calls: Arc<AtomicUsize>,
    /// `None`: they are not remembered.
    requests: Option<Arc<Mutex<Vec<request::Parts>>>>,
    under_way: Arc<AtomicUsize>,
    most_under_way: Arc<AtomicUsize>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Origin {
    /// The script gets the number of the call, from 1 on, and the head of the request.
    pub(crate) fn new(script: impl Fn(usize, &request::Parts) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            calls: Arc::default(),
            requests: Some(Arc::default()),
            under_way: Arc::default(),
            most_under_way: Arc::default(),
        }
    }

    /// One that remembers no requests, for very many of them.
    pub(crate) fn forgetful(
        script: impl Fn(usize, &request::Parts) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self { requests: None, ..Self::new(script) }
    }

    pub(crate) fn always(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self::new(move |_, _| answer())
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Calls whose head is not out yet.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    pub(crate) fn most_under_way(&self) -> usize {
        self.most_under_way.load(Ordering::SeqCst)
    }

    pub(crate) fn request(&self, number: usize) -> request::Parts {
        self.requests.as_ref().unwrap().lock().unwrap()[number - 1].clone()
    }

    pub(crate) fn last_request(&self) -> request::Parts {
        self.requests.as_ref().unwrap().lock().unwrap().last().unwrap().clone()
    }
}

struct Leaves(Arc<AtomicUsize>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<B: Send + 'static> Service<Request<B>> for Origin {
    type Response = Response<Frames>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Frames>, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        let leaves = Leaves(Arc::clone(&self.under_way));
        let answer = (self.script)(call, &head);
        if let Some(requests) = &self.requests {
            requests.lock().unwrap().push(head);
        }
        Box::pin(async move {
            let _leaves = leaves;
            if !answer.delay.is_zero() {
                tokio::time::sleep(answer.delay).await;
            }
            drop(body);
            match answer.outcome {
                Outcome::Respond => Ok(answer.response),
                Outcome::Fail => Err(Failure),
                Outcome::Panic => panic!("the origin panics, as the test wants it"),
                Outcome::Hang => std::future::pending().await,
            }
        })
    }
}

/// A response with its whole body, or with as much as came of it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) came_about: Option<CacheStatus>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) is_cut: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn age(&self) -> Option<u64> {
        self.header("age").map(|age| age.parse().unwrap())
    }

    /// How the answer came about, in the words of RFC 9211.
    pub(crate) fn cache(&self) -> String {
        self.came_about.map_or_else(|| "not asked".into(), |status| status.to_string())
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.came_about.is_some_and(|status| status.is_hit())
    }
}

pub(crate) async fn collect<B>(response: Response<B>) -> Reply
where
    B: HttpBody<Data = Bytes>,
{
    let came_about = CacheStatus::of(&response);
    let (head, body) = response.into_parts();
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut trailers, mut is_cut) = (Vec::new(), None, false);
    // As hyper does: a body that says it is at its end is not polled any more.
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(_) => {
                is_cut = true;
                break;
            }
        }
    }
    let (status, headers, extensions) = (head.status, head.headers, head.extensions);
    Reply { status, headers, extensions, came_about, body: bytes.into(), trailers, is_cut }
}

/// A request for a path at one host, with these fields.
pub(crate) fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(format!("http://example.com{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::default()).unwrap()
}

pub(crate) async fn try_send<S, B>(service: &S, request: Request<Body>) -> Result<Reply, S::Error>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    B: HttpBody<Data = Bytes>,
{
    Ok(collect(service.clone().oneshot(request).await?).await)
}

pub(crate) async fn send<S, B>(service: &S, request: Request<Body>) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Data = Bytes>,
{
    try_send(service, request).await.unwrap()
}

/// As a server does: makes the service ready, and calls that very one.
pub(crate) async fn serve<S, B>(service: &mut S, request: Request<Body>) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug>,
    B: HttpBody<Data = Bytes>,
{
    collect(service.ready().await.unwrap().call(request).await.unwrap()).await
}

pub(crate) async fn get<S, B>(service: &S, path: &str) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Data = Bytes>,
{
    send(service, request("GET", path, &[])).await
}

pub(crate) async fn get_with<S, B>(service: &S, path: &str, fields: &[(&str, &str)]) -> Reply
where
    S: Service<Request<Body>, Response = Response<B>, Error: fmt::Debug> + Clone,
    B: HttpBody<Data = Bytes>,
{
    send(service, request("GET", path, fields)).await
}

/// Lets all tasks run that can, without letting time pass.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
