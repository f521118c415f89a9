//! When the origin fails, a stale answer may be better than none (RFC 5861 §4).
//!
//! [`StaleIfError`] serves a stored response past its lifetime if the service below returns an
//! error, or a 500, 502, 503 or 504, and only then: any other status is an answer and passes,
//! 404 and 429 included. A timeout below is one or the other, and so is an answer of
//! [`OriginLimit`](crate::OriginLimit) or [`Coalesce`](crate::Coalesce) that the origin is busy.
//!
//! The window is the `stale-if-error` of the stored response, else
//! [`Rules::stale_if_error_for`](crate::Rules::stale_if_error_for), counted from the end of its
//! lifetime. `must-revalidate`, `proxy-revalidate`, `s-maxage` and `no-cache` in the stored
//! response close it (RFC 9111 §4.2.4). A stored failure has none.
//!
//! A body that fails after its head went out cannot be taken back.
//!
//! ```
//! use std::{convert::Infallible, sync::atomic::{AtomicBool, Ordering}, time::Duration};
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
//! use tower_readthrough::{FillLayer, LookupLayer, MemoryStore, StaleIfErrorLayer, Rules};
//!
//! static DOWN: AtomicBool = AtomicBool::new(false);
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let store = MemoryStore::with_capacity_bytes(1 << 20);
//! let service = ServiceBuilder::new()
//!     .layer(LookupLayer::new(store.clone()))
//!     .layer(StaleIfErrorLayer::new(store.clone()))
//!     .layer(FillLayer::new(store).rules(Rules::new().default_ttl(Duration::from_secs(5))))
//!     .service(service_fn(async |_: Request<Full<Bytes>>| {
//!         let mut response = Response::new(Full::<Bytes>::from("hello"));
//!         if DOWN.load(Ordering::Relaxed) {
//!             *response.status_mut() = StatusCode::BAD_GATEWAY;
//!         }
//!         Ok::<_, Infallible>(response)
//!     }));
//! let get = async || {
//!     let request = Request::get("http://example.com/").body(Full::default()).unwrap();
//!     let response = service.clone().oneshot(request).await.unwrap();
//!     (response.status(), response.into_body().collect().await.unwrap().to_bytes())
//! };
//! assert_eq!(get().await, (StatusCode::OK, "hello".into()));
//! DOWN.store(true, Ordering::Relaxed);
//! tokio::time::advance(Duration::from_secs(60)).await;
//! assert_eq!(get().await, (StatusCode::OK, "hello".into()));
//! # }
//! ```

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tower::{ServiceExt, util::Oneshot};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    body::{Body, BoxError},
    exchange::{Asked, Refused},
    future::ResponseFuture,
    http::storing::is_failure,
    status::{CacheStatus, Forward, Stale},
    store::{Store, StoredResponse, select},
};

/// Serves stale answers while the origin fails; see the [module](self).
#[derive(Clone, Debug)]
pub struct StaleIfErrorLayer<St> {
    store: St,
}

impl<St: Store> StaleIfErrorLayer<St> {
    /// Takes stale answers from this store, if [`Lookup`](crate::Lookup) has not found one already.
    pub fn new(store: St) -> Self {
        Self { store }
    }
}

impl<S, St: Clone> Layer<S> for StaleIfErrorLayer<St> {
    type Service = StaleIfError<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        StaleIfError { inner, store: self.store.clone() }
    }
}

/// The service of [`StaleIfErrorLayer`].
#[derive(Clone)]
pub struct StaleIfError<S, St> {
    pub(crate) inner: S,
    store: St,
}

impl<S, St: Store> StaleIfError<S, St> {
    /// What may be served instead of a failure, and why the origin is asked all the same.
    fn fallback(&self, head: &Parts) -> Option<(Arc<StoredResponse>, CacheStatus)> {
        let asked = Asked::of(head)?;
        // A refresh is there to learn what the origin says.
        if asked.is_forced {
            return None;
        }
        let stored = match &asked.stored {
            Some(known) => known.clone(),
            None => select(&self.store, &asked.key, &head.headers),
        };
        let stored = stored.filter(|stored| stored.is_usable_on_error(Instant::now()))?;
        let why = why(&stored, asked.why);
        Some((stored, why))
    }

    /// As `call`, of whatever is `below`.
    pub(crate) fn ask<F, ReqB, B, E>(
        &self,
        head: Parts,
        body: ReqB,
        below: impl FnOnce(Parts, ReqB) -> F,
    ) -> ResponseFuture<F, B, E>
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // On a miss there is nothing, as `Lookup` has seen.
        if let Some(Asked { stored: Some(None), .. }) = head.extensions.get() {
            return ResponseFuture::pass(below(head, body));
        }
        let fallback = self.fallback(&head);
        let head_only = head.method == Method::HEAD;
        let answer = below(head, body);
        let Some((stored, why)) = fallback else { return ResponseFuture::pass(answer) };
        let sequence = Arc::clone(self.store.sequence());
        ResponseFuture::boxed(async move {
            let answer = answer.await;
            let has_failed = answer.as_ref().map_or(true, |response| is_failure(response.status()));
            let now = Instant::now();
            // In this order: a soft purge that is noticed now may have closed the window.
            let is_usable = sequence.admits(&stored) && stored.is_usable_on_error(now);
            if !has_failed || !is_usable {
                return answer.map(|response| response.map(Body::inner));
            }
            Ok(stored.to_response(head_only, now, came_about(why, answer.ok().as_ref(), stored.status())))
        })
    }
}

/// Why the origin is asked, where this response is what there is instead.
fn why(stored: &StoredResponse, known: CacheStatus) -> CacheStatus {
    match known.forward_reason() {
        // No layer above has looked.
        Some(Forward::Miss) if stored.is_fresh(Instant::now()) => CacheStatus::forwarded(Forward::Request),
        Some(Forward::Miss) => CacheStatus::forwarded(Forward::Stale),
        _ => known,
    }
}

/// How a stale response came about that is served with this status instead of a failure: as a hit
/// only if the origin was not asked (RFC 9211 §2.2).
fn came_about<B>(why: CacheStatus, failure: Option<&Response<B>>, sent: StatusCode) -> CacheStatus {
    let Some(failure) = failure else { return why.rescued() };
    let said = CacheStatus::of(failure);
    let why = if said.is_some_and(|said| said.is_collapsed()) { why.collapsed() } else { why };
    match failure.extensions().get::<Refused>() {
        Some(refused) if refused.is_before_origin() => CacheStatus::stale(Stale::IfError),
        // What a layer here answered is not what the origin did.
        Some(_) => why.rescued(),
        None => {
            let from_origin = said.and_then(|said| said.forward_status()).unwrap_or(failure.status());
            why.rescued().answered(from_origin, sent)
        }
    }
}

impl<S: fmt::Debug, St> fmt::Debug for StaleIfError<S, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleIfError").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, St, ReqB, B> Service<Request<ReqB>> for StaleIfError<S, St>
where
    S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    St: Store,
    ReqB: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<Oneshot<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: it may have to answer just because the service below is not.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let (head, body) = request.into_parts();
        self.ask(head, body, |head, body| self.inner.clone().oneshot(Request::from_parts(head, body)))
    }
}
