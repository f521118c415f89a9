//! The page, the document and the purges over HTTP.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as HttpBody;
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use tower_service::Service;

use super::{board::Board, document::Document};
use crate::{
    body::BoxError,
    observe::Explanation,
    purge::{Access, Authorize, PurgeService, Sender},
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
        let resource = match self.admit(&head) {
            Ok(resource) => resource,
            Err(refusal) => return *refusal,
        };
        match (resource, &self.shared.purge) {
            (Resource::Page, _) => page(),
            (Resource::Document, _) => self.document(),
            (Resource::Explanation, _) => self.explanation(&head),
            (Resource::Purge, Some(purge)) => {
                let mut purge = purge.clone();
                let Ok(response) = purge.call(Request::from_parts(head, body)).await;
                guarded(response)
            }
            (Resource::Purge, None) => refuse(StatusCode::NOT_FOUND, "no such resource"),
        }
    }

    /// Returns what the request asks for, if it may have it.
    fn admit(&self, head: &Parts) -> Result<Resource, Box<Response<Full<Bytes>>>> {
        if !head.method.is_safe() && Sender::of(head) != Sender::SameOrigin {
            return refused(StatusCode::FORBIDDEN, "only a page of this origin may change anything", None);
        }
        match self.shared.check.authorize(head) {
            Access::Granted => {}
            Access::Unauthenticated => {
                let challenge = format!("{} realm=\"dashboard\"", self.shared.check.scheme());
                let challenge = Some((header::WWW_AUTHENTICATE, &*challenge));
                return refused(StatusCode::UNAUTHORIZED, "missing or invalid credentials", challenge);
            }
            Access::Forbidden => {
                let why = "these credentials do not permit to see this";
                return refused(StatusCode::FORBIDDEN, why, None);
            }
        }
        let Some(resource) = self.resource(head.uri.path()) else {
            return refused(StatusCode::NOT_FOUND, "no such resource", None);
        };
        let (is_allowed, allowed) = match resource {
            Resource::Purge => (head.method == Method::POST, "POST"),
            _ => (matches!(head.method, Method::GET | Method::HEAD), "GET, HEAD"),
        };
        if !is_allowed {
            let allowed = Some((header::ALLOW, allowed));
            return refused(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", allowed);
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

    fn explanation(&self, head: &Parts) -> Response<Full<Bytes>> {
        let Some(explain) = &self.shared.explain else {
            return refuse(StatusCode::NOT_FOUND, "no such resource");
        };
        let Some(asked) = head_named_by(head.uri.query().unwrap_or_default()) else {
            return refuse(StatusCode::BAD_REQUEST, "`url` must be an absolute URL, percent-encoded");
        };
        let mut explanation = explain(&asked);
        if self.shared.board.settings.shows_queries {
            explanation = explanation.show_query();
        }
        json(StatusCode::OK, serde_json::json!({ "text": explanation.to_string() }).to_string().into_bytes())
    }

    fn document(&self) -> Response<Full<Bytes>> {
        let (can_purge, can_explain) = (self.shared.purge.is_some(), self.shared.explain.is_some());
        let document = Document::of(&self.shared.board, can_purge, can_explain);
        match serde_json::to_vec(&document) {
            Ok(text) => json(StatusCode::OK, text),
            Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written as JSON"),
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
    guarded(response)
}

fn json(status: StatusCode, text: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    guarded(response)
}

fn refuse(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json(status, serde_json::json!({ "error": why }).to_string().into_bytes())
}

/// Boxed, since it is large and rare.
fn refused<T>(
    status: StatusCode,
    why: &str,
    field: Option<(HeaderName, &str)>,
) -> Result<T, Box<Response<Full<Bytes>>>> {
    let mut refusal = refuse(status, why);
    if let Some((name, Ok(value))) = field.map(|(name, value)| (name, HeaderValue::try_from(value))) {
        refusal.headers_mut().insert(name, value);
    }
    Err(Box::new(refusal))
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
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

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
