//! Purges over HTTP, for deploy hooks and content management systems (feature `purge-service`).
//!
//! [`PurgeService`] is a Tower service, to be mounted at any path. It takes
//!
//! * `PURGE <url>`: an absolute URL as the request target, or a path and a `Host`;
//! * `PURGE` with tags in a field of the request, in place of the URL: `Surrogate-Key`, `Cache-Tag`,
//!   `Cache-Tags`, `Edge-Cache-Tag`, `xkey`, `xkey-purge`, `X-Drupal-Cache-Tags`, `X-Magento-Tags`, those of
//!   the [key rules](crate::KeyRulesBuilder::tag_fields), and `X-Magento-Tags-Pattern` as Magento writes it.
//!   Several tags are purged at once;
//! * `PURGE <url>` with `X-Purge-Method: regex`, as a WordPress plugin sends it: `.*` at the end of the URL
//!   stands for anything;
//! * `POST /purge`, or to any path that ends so, with a JSON object: any of `urls`, `tags`, `prefixes`,
//!   `patterns` and `hosts` (lists of strings, for [`url`](Purge::url), [`tag`](Purge::tag),
//!   [`path_prefix`](Purge::path_prefix), [`pattern`](Purge::pattern) and [`host`](Purge::host)), `all` (true
//!   purges everything) and `soft` (true makes all of it [soft](Purge::soft)).
//!
//! A `PURGE` with `Fastly-Soft-Purge: 1` is soft.
//!
//! The response to what was done is 200 with a JSON object, which says what was understood: how many `urls`,
//! `tags`, `prefixes`, `patterns` and `hosts` were purged, whether `all` was, whether it was `soft`, the
//! `number` of the last purge, and in `purged` for each of them its `kind` and its `argument` in the form
//! in which it is compared; for a URL also the key `rule` by which it is named, if one is. How many
//! responses that reached is not known. What cannot reach anything is refused.
//!
//! | status | when, with the reason in `error`; nothing is purged |
//! |---|---|
//! | 400 | it is not such an object, names nothing, or has an unknown field or too many items |
//! | 400 | something in it cannot match: an invalid URL, host or pattern, a URL with a wildcard or with a query that no rule for its path stores, a tag with a comma, white space, `*` or braces, another regular expression, an unknown field that says what to purge, such as `X-Purge-Regex` |
//! | 401, 403 | the check denies access |
//! | 403 | a browser sent it for a page of another origin, by `Sec-Fetch-Site` or else by `Origin` |
//! | 404, 405 | another path, another method |
//! | 408 | the body was not complete within ten seconds |
//! | 413 | the body is too large |
//! | 415 | `Content-Type` does not say that the body is JSON, or says nothing |
//!
//! No request purges before a check has granted it access: the service cannot be made without one.
//! [`Bearer`](super::Bearer) is a check that compares a token. A check sees the head of the request alone,
//! before the body is read. Where it goes by cookies, a page of another site cannot purge with the cookies
//! of its visitors: what browsers send without a preflight, such as a form, is refused by its
//! `Content-Type` and its origin.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::ServiceExt;
//! use tower_readthrough::{MemoryStore, ReadThroughLayer, purge::{Bearer, PurgeService}};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20));
//! let service = PurgeService::new(cache.purge(), Bearer::new("a long secret"));
//! let ask = async |token: &str| {
//!     let request = Request::post("/purge").header("authorization", token);
//!     let request = request.header("content-type", "application/json");
//!     let request = request.body(Full::<Bytes>::from(r#"{"tags": ["product-7"]}"#)).unwrap();
//!     let response = service.clone().oneshot(request).await.unwrap();
//!     (response.status(), response.into_body().collect().await.unwrap().to_bytes())
//! };
//! assert_eq!(ask("Bearer guess").await.0, StatusCode::UNAUTHORIZED);
//! let (status, said) = ask("Bearer a long secret").await;
//! assert_eq!(status, StatusCode::OK);
//! let understood = r#""number":1,"purged":[{"kind":"tag","argument":"product-7"}]}"#;
//! assert!(said.ends_with(understood.as_bytes()));
//! # }
//! ```

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts, uri::Authority};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tower_service::Service;

use super::{
    Authorize, Purge, Sender,
    frame::{Refusal, Responding, json},
    order::{Done, Order},
};
use crate::{body::BoxError, key::original_uri};

/// For the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes purges over HTTP; see the [module](self).
#[derive(Clone)]
pub struct PurgeService {
    purge: Purge,
    check: Arc<dyn Authorize>,
    max_body_bytes: usize,
    max_items: usize,
}

impl PurgeService {
    /// Purges through this handle what a request names, if the check grants it access.
    pub fn new(purge: Purge, check: impl Authorize) -> Self {
        Self { purge, check: Arc::new(check), max_body_bytes: 64 << 10, max_items: 1024 }
    }

    /// The largest body that is read, in bytes, at least 2. Default: 64 KiB.
    #[must_use]
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes.max(2);
        self
    }

    /// How many URLs, tags, prefixes, patterns and hosts one request may name, all together, at least 1.
    /// Default: 1,024.
    #[must_use]
    pub fn max_items(mut self, items: usize) -> Self {
        self.max_items = items.max(1);
        self
    }

    async fn answer<B>(self, request: Request<B>) -> Result<Done, Refusal>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        if !head.method.is_safe() && Sender::of(&head) == Sender::OtherOrigin {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "a request from a page of another origin may not purge",
            ));
        }
        Refusal::unless_granted(&*self.check, &head, "purge", "purge")?;
        let order = match head.method.as_str() {
            "PURGE" => Order::of_purge(&head.headers, &self.purge.tag_fields(), || url_of(&head))?,
            _ if !original_uri(&head).path().ends_with("/purge") => {
                let reason = "no such resource: send PURGE to a URL, or POST to /purge";
                return Err(Refusal::new(StatusCode::NOT_FOUND, reason));
            }
            "POST" if !is_json(&head.headers) => {
                return Err(Refusal::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "`Content-Type` must be application/json",
                ));
            }
            "POST" => self.read(body).await?,
            _ => {
                let reason = "method not allowed: send POST with a JSON object, or PURGE";
                return Err(Refusal::not_allowed("POST", reason));
            }
        };
        order.apply(&self.purge, self.max_items)
    }

    async fn read<B>(&self, body: B) -> Result<Order, Refusal>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let whole = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, self.max_body_bytes).collect());
        let whole = match whole.await {
            Err(_) => {
                return Err(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body was not complete within ten seconds",
                ));
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                let reason = format!("the body has more than {} bytes", self.max_body_bytes);
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
            }
            Ok(Err(error)) => return Err(Refusal::bad(format!("the body could not be read: {error}"))),
            Ok(Ok(whole)) => whole.to_bytes(),
        };
        Order::of_json(&whole)
    }
}

/// Whether `Content-Type` says JSON, which an HTML form cannot send.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/json")
}

/// Returns the URL to purge: the target of the request (RFC 9110 §7.1).
fn url_of(head: &Parts) -> Result<String, Refusal> {
    let target = original_uri(head);
    if !target.path().starts_with('/') {
        return Err(Refusal::bad("the request target is not a URL"));
    }
    if target.authority().is_some() {
        return Ok(target.to_string());
    }
    let mut hosts = head.headers.get_all(header::HOST).iter().map(HeaderValue::to_str);
    match (hosts.next(), hosts.next()) {
        // Parsed, since it might go on with a path.
        (Some(Ok(host)), None) if host.parse::<Authority>().is_ok() => Ok(format!("http://{host}{target}")),
        _ => Err(Refusal::bad("no host: send an absolute URL, or one valid `Host`")),
    }
}

impl<B> Service<Request<B>> for PurgeService
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
        let service = self.clone();
        Box::pin(async move {
            Ok(match service.answer(request).await {
                Ok(done) => json(StatusCode::OK, serde_json::to_vec(&done).unwrap_or_default()),
                Err(refusal) => refusal.into_response(),
            })
        })
    }
}

impl fmt::Debug for PurgeService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PurgeService")
            .field("max_body_bytes", &self.max_body_bytes)
            .field("max_items", &self.max_items)
            .finish_non_exhaustive()
    }
}
