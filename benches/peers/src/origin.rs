//! The origin that every candidate wraps, and the response that it serves.

use std::{
    convert::Infallible,
    future::Future,
    marker::PhantomData,
    ops::Range,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tower::Service;

/// Ordinary response fields (eight, unless asked otherwise; three of them static strings, the
/// others built at run time, as a handler or a proxied upstream would produce them) and a
/// JSON-like body.
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

const FIELDS: usize = 8;

fn dynamic(value: &str) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value.as_bytes())).expect("a valid value")
}

fn body(len: usize) -> Bytes {
    let mut body = Vec::with_capacity(len);
    body.extend_from_slice(b"{\"data\":\"");
    while body.len() + 2 < len {
        body.push(b'a' + (body.len() % 26) as u8);
    }
    body.truncate(len.saturating_sub(2));
    body.extend_from_slice(b"\"}");
    body.truncate(len);
    Bytes::from(body)
}

/// In order of importance: a request for fewer fields gets the first ones. Freshness is given by the
/// first, and computed from the second.
fn fields(body_len: usize) -> [(HeaderName, HeaderValue); FIELDS] {
    let date = httpdate::fmt_http_date(SystemTime::now());
    [
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400")),
        (header::DATE, dynamic(&date)),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_LENGTH, dynamic(&body_len.to_string())),
        (header::ETAG, dynamic("\"33a64df551425fcc55e4d42a148795d9f25f89d4\"")),
        (header::LAST_MODIFIED, dynamic("Wed, 21 Oct 2026 07:28:00 GMT")),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        (HeaderName::from_static("x-request-id"), dynamic("7f1b2f6e-0e6a-4a0f-9a55-2f8f1f5a2c3d")),
    ]
}

impl Template {
    fn new(body_len: usize, count: usize) -> Self {
        let body = body(body_len);
        let mut headers = HeaderMap::with_capacity(count);
        headers.extend(fields(body.len()).into_iter().take(count));
        for n in FIELDS..count {
            let name = HeaderName::try_from(format!("x-field-{n}")).expect("a valid name");
            headers.insert(name, dynamic("7f1b2f6e-0e6a-4a0f-9a55-2f8f1f5a2c3d"));
        }
        let template = Self { headers, body };
        // A shared `Bytes` made from a Vec allocates its counter on the first clone: do that now.
        drop(template.clone());
        template
    }

    /// Fresh copies of everything that a real origin would allocate anew for each response.
    fn fresh(&self) -> Self {
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let value = match name.as_str() {
                "content-type" | "cache-control" | "vary" => value.clone(),
                _ => {
                    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value.as_bytes())).expect("a value")
                }
            };
            headers.insert(name.clone(), value);
        }
        Self { headers, body: Bytes::copy_from_slice(&self.body) }
    }

    pub(crate) fn response<B: From<Bytes>>(&self) -> Response<B> {
        let mut response = Response::new(B::from(self.body.clone()));
        *response.headers_mut() = self.headers.clone();
        response
    }

    fn into_response<B: From<Bytes>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.body));
        *response.headers_mut() = self.headers;
        response
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Hands out clones of one template: the cheapest origin, which isolates the cache's own cost.
    Shared,
    /// Allocates header values and body anew for each response: realistic for memory.
    Fresh,
}

/// What the origin answers, how and how fast.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) body: usize,
    pub(crate) fields: usize,
    pub(crate) mode: Mode,
    pub(crate) delay: Option<Duration>,
}

impl Answer {
    pub(crate) const fn new(body: usize, mode: Mode) -> Self {
        Self { body, fields: FIELDS, mode, delay: None }
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = (!delay.is_zero()).then_some(delay);
        self
    }

    pub(crate) const fn fields(mut self, fields: usize) -> Self {
        self.fields = fields;
        self
    }
}

struct Shared {
    template: Template,
    answer: Answer,
    calls: AtomicU64,
    purge: OnceLock<Box<dyn Fn(u64) + Send + Sync>>,
}

#[derive(Clone)]
pub(crate) struct OriginHandle(Arc<Shared>);

impl OriginHandle {
    pub(crate) fn new(answer: Answer) -> Self {
        let template = Template::new(answer.body, answer.fields);
        Self(Arc::new(Shared { template, answer, calls: AtomicU64::new(0), purge: OnceLock::new() }))
    }

    /// One that answers the same at once, with a counter of its own.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.0.answer.after(Duration::ZERO))
    }

    /// How the cache in front of this origin is told that something changed; the first one counts.
    pub(crate) fn purge_with(&self, purge: impl Fn(u64) + Send + Sync + 'static) {
        _ = self.0.purge.set(Box::new(purge));
    }

    /// Says that these things changed.
    pub(crate) fn purge(&self, things: Range<u64>) {
        if let Some(purge) = self.0.purge.get() {
            things.for_each(purge);
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn template(&self) -> &Template {
        &self.0.template
    }

    /// Answers any request with a `Response<B>`.
    pub(crate) fn service<B>(&self) -> Origin<B> {
        Origin { shared: Arc::clone(&self.0), body: PhantomData }
    }
}

pub(crate) struct Origin<B> {
    shared: Arc<Shared>,
    body: PhantomData<fn() -> B>,
}

impl<B> Clone for Origin<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), body: PhantomData }
    }
}

/// Lazy, like an `async fn` handler: nothing happens before the first poll.
pub(crate) struct OriginFuture<B> {
    shared: Arc<Shared>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    started: bool,
    body: PhantomData<fn() -> B>,
}

impl<B: From<Bytes>> Future for OriginFuture<B> {
    type Output = Result<Response<B>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.started {
            self.started = true;
            self.shared.calls.fetch_add(1, Ordering::Relaxed);
            self.sleep = self.shared.answer.delay.map(|delay| Box::pin(tokio::time::sleep(delay)));
        }
        if let Some(sleep) = self.sleep.as_mut() {
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(Ok(match self.shared.answer.mode {
            Mode::Shared => self.shared.template.response(),
            Mode::Fresh => self.shared.template.fresh().into_response(),
        }))
    }
}

impl<R, B: From<Bytes>> Service<Request<R>> for Origin<B> {
    type Response = Response<B>;
    type Error = Infallible;
    type Future = OriginFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<R>) -> Self::Future {
        OriginFuture { shared: Arc::clone(&self.shared), sleep: None, started: false, body: PhantomData }
    }
}
