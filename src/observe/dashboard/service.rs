//! The page, the document and the purges over HTTP.

use std::{
    convert::Infallible,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as HttpBody;
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use tower_service::Service;

use super::{board::Board, document::Document};
use crate::{
    body::BoxError,
    observe::Explanation,
    purge::{
        Authorize, PurgeService, Sender,
        frame::{Refusal, Responding, json},
    },
};

const PAGE: &str = include_str!("page.html");

/// The largest body of a purge, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 16 << 10;

/// Shows what a cache does; see the [module](super).
///
/// Clones show the same.
#[derive(Clone)]
pub struct Dashboard {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) board: Arc<Board>,
    pub(super) check: Box<dyn Authorize>,
    pub(super) purge: Option<PurgeService>,
    pub(super) explain: Option<Box<Explain>>,
    pub(super) mounted_at: Box<str>,
}

/// What would become of a request with this head.
pub(super) type Explain = dyn Fn(&Parts) -> Explanation + Send + Sync;

/// What there is, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Page,
    Document,
    Explanation,
    Purge,
}

impl Dashboard {
    pub(super) fn from_shared(shared: Shared) -> Self {
        shared.board.sample();
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.shared.board
    }

    async fn answer<B>(self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.shared.board.sample();
        let (head, body) = request.into_parts();
        let response = match (self.admit(&head), &self.shared.purge) {
            (Ok(Resource::Page), _) => Ok(page()),
            (Ok(Resource::Document), _) => self.document(),
            (Ok(Resource::Explanation), _) => self.explanation(&head),
            (Ok(Resource::Purge), Some(purge)) => {
                let mut purge = purge.clone();
                let Ok(response) = purge.call(Request::from_parts(head, body)).await;
                Ok(response)
            }
            (Ok(Resource::Purge), None) => Err(no_such_resource()),
            (Err(refusal), _) => Err(refusal),
        };
        guarded(response.unwrap_or_else(Refusal::into_response))
    }

    /// Returns what the request asks for, if it may have it.
    fn admit(&self, head: &Parts) -> Result<Resource, Refusal> {
        if !head.method.is_safe() && Sender::of(head) != Sender::SameOrigin {
            let reason = "only a page of this origin may change anything";
            return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
        }
        Refusal::unless_granted(&*self.shared.check, head, "dashboard", "see this")?;
        let resource = self.resource(head.uri.path()).ok_or_else(no_such_resource)?;
        let (is_allowed, allowed) = match resource {
            Resource::Purge => (head.method == Method::POST, "POST"),
            _ => (matches!(head.method, Method::GET | Method::HEAD), "GET, HEAD"),
        };
        if !is_allowed {
            return Err(Refusal::not_allowed(allowed, "method not allowed"));
        }
        Ok(resource)
    }

    fn resource(&self, path: &str) -> Option<Resource> {
        match path.strip_prefix(&*self.shared.mounted_at)? {
            "" | "/" => Some(Resource::Page),
            "/data.json" => Some(Resource::Document),
            "/explain.json" => self.shared.explain.as_ref().map(|_| Resource::Explanation),
            "/purge" => self.shared.purge.as_ref().map(|_| Resource::Purge),
            _ => None,
        }
    }

    fn explanation(&self, head: &Parts) -> Result<Response<Full<Bytes>>, Refusal> {
        let explain = self.shared.explain.as_ref().ok_or_else(no_such_resource)?;
        let asked = head_named_by(head.uri.query().unwrap_or_default())
            .ok_or_else(|| Refusal::bad("`url` must be an absolute URL, percent-encoded"))?;
        let mut explanation = explain(&asked);
        if self.shared.board.settings.shows_queries {
            explanation = explanation.show_query();
        }
        let document = serde_json::json!({ "text": explanation.to_string() });
        Ok(json(StatusCode::OK, document.to_string().into_bytes()))
    }

    fn document(&self) -> Result<Response<Full<Bytes>>, Refusal> {
        let (can_purge, can_explain) = (self.shared.purge.is_some(), self.shared.explain.is_some());
        let document = Document::of(&self.shared.board, can_purge, can_explain);
        match serde_json::to_vec(&document) {
            Ok(text) => Ok(json(StatusCode::OK, text)),
            Err(_) => {
                let reason = "the figures cannot be written as JSON";
                Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, reason))
            }
        }
    }
}

/// The head of a GET request to the URL that the query names.
fn head_named_by(query: &str) -> Option<Parts> {
    let url = query.split('&').find_map(|parameter| parameter.strip_prefix("url="))?;
    let url = percent_decode_str(url).decode_utf8().ok()?;
    let head = Request::get(&*url).body(()).ok()?.into_parts().0;
    head.uri.authority().is_some().then_some(head)
}

/// The page, whose script and style run by a nonce that is new each time.
fn page() -> Response<Full<Bytes>> {
    let nonce = nonce();
    let mut response = Response::new(Full::from(PAGE.replace("{nonce}", &nonce)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn no_such_resource() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no such resource")
}

/// What keeps a response from being stored, framed, or taken for something else.
fn guarded(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

/// A text that cannot be guessed: numbers under a keyed hash (SipHash) whose key the system has drawn.
fn nonce() -> String {
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [first, second] = &*KEYS;
    format!("{:016x}{:016x}", first.hash_one(number), second.hash_one(number))
}

impl<B> Service<Request<B>> for Dashboard
where
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Responding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let dashboard = self.clone();
        Box::pin(async move {
            let is_head = request.method() == Method::HEAD;
            let response = dashboard.answer(request).await;
            // RFC 9110 §9.3.2.
            Ok(if is_head { response.map(|_| Full::default()) } else { response })
        })
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.shared.board.settings;
        f.debug_struct("Dashboard").field("settings", settings).finish_non_exhaustive()
    }
}
