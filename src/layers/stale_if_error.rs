//! When the origin fails, a stale response may be better than none (RFC 5861 §4).
//!
//! [`StaleIfError`] serves a stored response past its lifetime if the service below fails: if it
//! returns an error, panics, or responds with a status that is a failure by the
//! [`Failures`](crate::Failures) of the layer (408, 500, 502, 503 and 504 unless it is told otherwise). Any other
//! response passes, 404 and 429 included. A response by which [`OriginLimit`](crate::OriginLimit) or
//! [`Coalesce`](crate::Coalesce) [refuses](crate::Refused) a request is a failure as well. A panic
//! goes on where nothing stored may be served.
//!
//! The directives of a request (RFC 9111 §5.2.1) are wishes: what could have been served without
//! them, fresh or stale, is served if the fetch that they forced fails.
//!
//! The window is the `stale-if-error` of the stored response, else
//! [`Rules::stale_if_error_for`](crate::Rules::stale_if_error_for), counted from the end of its
//! lifetime. `must-revalidate`, `proxy-revalidate` and `no-cache` in the stored response close it, and so
//! does `s-maxage` unless the response names the window itself (RFC 9111 §4.2.4);
//! [`Rules::stale_despite_revalidate`](crate::Rules::stale_despite_revalidate) opens it all the same. A
//! stored failure has none.
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
    borrow::Cow,
    fmt,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as HttpBody;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    body::{Body, ResponseBody},
    exchange::{
        self, failures,
        status::{self, CacheStatus},
    },
    http::{request_fields, response_fields, rules},
    key::{DefaultKey, KeyExtractor},
    layers::{
        derived_key,
        service::{EagerOneshot, HttpService, ResponseFuture},
    },
    observe::Stats,
    origin,
    sequence::Sequence,
    store::{self, Store},
};

/// Serves stale responses while the origin fails; see the [module](self).
#[derive(Clone)]
pub struct StaleIfErrorLayer<St> {
    shared: Arc<Shared<St>>,
}

#[derive(Clone)]
struct Shared<St> {
    store: St,
    failures: failures::FailurePolicy,
    extractor: Arc<dyn KeyExtractor>,
    observers: exchange::Observers,
    /// Of requests that no layer above has looked up.
    health: Option<origin::OriginHealth>,
    /// Whether the service below is a layer of this crate.
    is_over_own_layer: bool,
}

impl<St: Store> StaleIfErrorLayer<St> {
    /// Takes stale responses from this store, if [`Lookup`](crate::Lookup) has not found one already.
    pub fn new(store: St) -> Self {
        let (failures, extractor) = (failures::FailurePolicy::default(), Arc::new(DefaultKey::new()));
        let observers = exchange::Observers::NONE;
        let (health, is_over_own_layer) = (None, false);
        Self { shared: Arc::new(Shared { store, failures, extractor, observers, health, is_over_own_layer }) }
    }

    /// Which responses are failures. Default: [`DefaultFailures`](crate::DefaultFailures). Errors of
    /// the service and [refusals](crate::Refused) of the layers below are failures in any case.
    #[must_use]
    pub fn failures(self, failures: impl failures::Failures) -> Self {
        self.failure_policy(failures::FailurePolicy::new(failures))
    }

    pub(crate) fn failure_policy(self, failures: failures::FailurePolicy) -> Self {
        self.set(|shared| shared.failures = failures)
    }

    /// Tells this observer of each response that the service returns, if no [`Lookup`](crate::Lookup) above
    /// it does. Default: none.
    #[must_use]
    pub fn observer(self, observer: impl exchange::Observer) -> Self {
        self.set(|shared| shared.observers.observe(observer))
    }

    /// Counts what the service returns, if no [`Lookup`](crate::Lookup) above it counts; see [`Stats`].
    /// Default: none.
    #[must_use]
    pub fn counted_by(self, stats: &Stats) -> Self {
        stats.read_store(&self.shared.store);
        self.set(|shared| shared.observers.count(stats))
    }

    /// Derives keys in another way where no layer above did: [`Lookup`](crate::Lookup) or
    /// [`Key`](crate::Key). Default: [`DefaultKey`].
    #[must_use]
    pub fn key(self, extractor: impl KeyExtractor) -> Self {
        self.set(|shared| shared.extractor = Arc::new(extractor))
    }

    /// Serves a stale response at once while this origin is down, and in the pause after a failed fetch, for
    /// requests that no [`Lookup`](crate::Lookup) above has decided about. Default: the origin is asked for
    /// each of them.
    ///
    /// [`OriginLimit`](crate::OriginLimit) next to the origin has to report to the same health.
    #[must_use]
    pub fn health(self, health: origin::OriginHealth) -> Self {
        self.set(|shared| shared.health = Some(health))
    }

    /// Says that the service below is a layer of this crate.
    pub(crate) fn over_own_layer(self) -> Self {
        self.set(|shared| shared.is_over_own_layer = true)
    }

    fn set(mut self, change: impl FnOnce(&mut Shared<St>)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl<St: fmt::Debug> fmt::Debug for StaleIfErrorLayer<St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { store, failures, .. } = &*self.shared;
        let mut layer = f.debug_struct("StaleIfErrorLayer");
        layer.field("store", store).field("failures", failures).finish_non_exhaustive()
    }
}

impl<S, St> Layer<S> for StaleIfErrorLayer<St> {
    type Service = StaleIfError<S, St>;

    fn layer(&self, inner: S) -> Self::Service {
        StaleIfError { inner, shared: Arc::clone(&self.shared) }
    }
}

/// The service of [`StaleIfErrorLayer`].
///
/// It wraps any service of [`http::Request`]s that can be cloned and sent to another thread, and so can its
/// futures and errors.
pub struct StaleIfError<S, St> {
    inner: S,
    shared: Arc<Shared<St>>,
}

impl<S: Clone, St> Clone for StaleIfError<S, St> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

/// What may be served instead of a failure.
struct Fallback {
    stored: Arc<store::StoredResponse>,
    /// The part that it is, if it is one, for a request with these fields.
    part: Option<(Box<store::Part>, HeaderMap)>,
    head_only: bool,
    /// Only the client's directives keep it from being served without asking the origin.
    is_servable: bool,
    /// Whether a layer above has decided that the origin is to be asked.
    is_decided: bool,
    /// Why the origin is asked all the same.
    why: CacheStatus,
}

impl Fallback {
    /// For a request that came through Lookup, or has a key.
    fn of(head: &Parts, store: &impl Store) -> Option<Self> {
        let asked = exchange::CacheRequest::with_private(head, &request_fields::CredentialNames::DEFAULT)?;
        // What no client waits for is there to learn what the origin says.
        if asked.purpose().is_refresh() || asked.purpose() == exchange::Purpose::WarmUp {
            return None;
        }
        let (stored, part, is_servable) = match asked.candidate() {
            exchange::StaleCandidate::Unknown => {
                (store::select(store, asked.key(), &asked.fields(&head.headers))?, None, false)
            }
            exchange::StaleCandidate::Whole { response, is_servable } => {
                (Arc::clone(response), None, *is_servable)
            }
            // A request that Lookup has made one for the whole is not for a part any more.
            exchange::StaleCandidate::Part(part) if asked.facts().has_range() => {
                (Arc::clone(part.response()), Some((part.clone(), range_fields(&head.headers))), false)
            }
            exchange::StaleCandidate::Part(_) | exchange::StaleCandidate::None => return None,
        };
        let is_decided = !matches!(asked.candidate(), exchange::StaleCandidate::Unknown);
        let (why, head_only) = (why(&stored, asked.why()), head.method == Method::HEAD);
        let fallback = Self { stored, part, head_only, is_servable, is_decided, why };
        fallback.is_usable(store.sequence()).then_some(fallback)
    }

    fn is_usable(&self, sequence: &Sequence) -> bool {
        is_usable(&self.stored, self.part.is_some(), self.is_servable, sequence)
    }

    /// Why the response is served without asking the origin, or else the right to ask it if one is needed.
    fn ask(
        &self,
        health: &origin::OriginHealth,
        head: &Parts,
    ) -> Result<Option<Arc<origin::Pass>>, status::Stale> {
        let now = Instant::now();
        if store::LastFetch::of(&self.stored, now) == store::LastFetch::Paused && !health.is_down(head) {
            return Err(status::Stale::OriginFailed);
        }
        match health.ask_with_stale(head, now) {
            origin::Answer::Serve(why) => Err(why.into()),
            origin::Answer::Fetch(pass) => Ok(pass),
        }
    }

    /// Lets the layers below know that a failure will not reach the client, and for how long; and where no
    /// layer above has done so, of the stale response.
    fn announce(
        &self,
        head: &mut Parts,
        sequence: &Arc<Sequence>,
        undecided: Option<(&origin::OriginHealth, Option<Arc<origin::Pass>>)>,
    ) {
        let asked = exchange::CacheRequest::of(head, &request_fields::CredentialNames::DEFAULT);
        if let Some(mut asked) = asked.map(Cow::into_owned) {
            if let Some((health, pass)) = undecided {
                asked = asked.with_stale(Arc::clone(&self.stored), health).with_pass(pass);
            }
            let (stored, sequence) = (Arc::clone(&self.stored), Arc::clone(sequence));
            let (is_part, is_servable) = (self.part.is_some(), self.is_servable);
            asked.announce_fallback(exchange::Fallback::new(move || {
                // It is asked where the fetch is only slow, and has not failed.
                is_usable(&stored, is_part, is_servable, &sequence) && !stored.is_unproven()
            }));
            head.extensions.insert(asked);
        }
    }

    /// The response without asking the origin.
    fn at_once<B>(&self, why: status::Stale) -> Response<Body<B>> {
        let stored = self.stored.to_hit(self.head_only, Instant::now(), |body| body);
        self.why.served_stale(why).serve(stored)
    }

    /// The response instead of this one, if there was one.
    fn instead_of<A, B>(&self, failure: Option<&Response<A>>) -> Response<Body<B>> {
        let now = Instant::now();
        match &self.part {
            Some((part, fields)) => {
                let status = exchange::served_instead(self.why, failure, StatusCode::PARTIAL_CONTENT);
                status.serve(part.to_hit(fields, now))
            }
            None => {
                let status = exchange::served_instead(self.why, failure, self.stored.status());
                status.serve(self.stored.to_hit(self.head_only, now, |body| body))
            }
        }
    }
}

/// Whether a stored response may be served if the fetch fails now. `is_servable`: in the window for
/// revalidation as well.
fn is_usable(stored: &store::StoredResponse, is_part: bool, is_servable: bool, sequence: &Sequence) -> bool {
    // First, for it notes what is stale by a soft purge, which may have closed the window.
    if !sequence.admits(stored) {
        return false;
    }
    let now = Instant::now();
    match is_part {
        true => stored.is_fresh(now),
        false => stored.is_usable_on_error(now) || is_servable && stored.is_usable_while_revalidating(now),
    }
}

/// What of a request decides about a part.
fn range_fields(request: &HeaderMap) -> HeaderMap {
    let names = [header::RANGE, header::IF_RANGE];
    names.into_iter().filter_map(|name| Some((name.clone(), request.get(&name)?.clone()))).collect()
}

impl Fallback {
    /// Serves the response of the service below, or the stored one if that is a failure.
    async fn cover<B, E>(
        self,
        response: impl Future<Output = Result<Response<B>, E>>,
        sequence: Arc<Sequence>,
        failures: failures::FailurePolicy,
    ) -> Result<Response<Body<B>>, E>
    where
        B: HttpBody<Data = Bytes>,
    {
        let outcome = AssertUnwindSafe(response).catch_unwind().await;
        let has_failed = match &outcome {
            Ok(Ok(response)) => failures.has_failed(response),
            Ok(Err(_)) | Err(_) => true,
        };
        // Once more: the failure may have come late.
        if has_failed && self.is_usable(&sequence) && !(self.stored.is_unproven() && is_going_on(&outcome)) {
            return Ok(self.instead_of(outcome.as_ref().ok().and_then(|result| result.as_ref().ok())));
        }
        match outcome {
            Ok(result) => result.map(|mut response| {
                response_fields::settle_length(&mut response);
                response.map(Body::inner)
            }),
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Whether the fetch goes on without this caller, and may still succeed.
fn is_going_on<B, E, P>(outcome: &Result<Result<Response<B>, E>, P>) -> bool {
    let Ok(Ok(response)) = outcome else { return false };
    response.extensions().get().is_some_and(|refused: &exchange::Refused| refused.leaves_fetch())
}

/// Why the origin is asked, where this response is what there is instead.
fn why(stored: &store::StoredResponse, known: CacheStatus) -> CacheStatus {
    match known.forward_reason() {
        // No layer above has looked.
        Some(status::Forward::Miss) if stored.is_fresh(Instant::now()) => {
            CacheStatus::forwarded(status::Forward::Request)
        }
        Some(status::Forward::Miss) => CacheStatus::forwarded(status::Forward::Stale),
        _ => known,
    }
}

impl<S: fmt::Debug, St> fmt::Debug for StaleIfError<S, St> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleIfError").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, St, ReqB, B> Service<Request<ReqB>> for StaleIfError<S, St>
where
    S: HttpService<ReqB, Response = Response<B>>,
    St: Store,
    ReqB: HttpBody + Send + 'static,
    B: ResponseBody,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<EagerOneshot<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: it may have to respond just because the service below is not.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        // On a miss there is nothing, as `Lookup` has seen. Then the request is not even taken apart.
        let known =
            request.extensions().get::<exchange::CacheRequest>().map(exchange::CacheRequest::candidate);
        if known.is_some_and(exchange::StaleCandidate::is_none) {
            let is_own = self.shared.is_over_own_layer;
            return ResponseFuture::pass_over(
                EagerOneshot::through(&mut self.inner, is_own, request),
                is_own,
            );
        }
        let Shared { store, failures, extractor, observers, health, .. } = &*self.shared;
        let (mut head, body, why) =
            derived_key::derive_alone(&**extractor, &rules::RequestRules::DEFAULT, request);
        let observers = observers.of_outermost(&mut head.extensions, why);
        let reason = why.map_or(CacheStatus::forwarded(status::Forward::Miss), CacheStatus::unkeyed);
        let response = match Fallback::of(&head, store) {
            None => {
                let response = EagerOneshot::new(&self.inner, Request::from_parts(head, body));
                ResponseFuture::pass_unkeyed(response, why)
            }
            Some(fallback) => {
                let undecided = health.as_ref().filter(|_| !fallback.is_decided);
                let asked = undecided.map(|health| (health, fallback.ask(health, &head)));
                let undecided = match asked {
                    Some((_, Err(why))) => {
                        let served = ResponseFuture::ready(fallback.at_once(why));
                        return served.observed(&observers, fallback.why.served_stale(why));
                    }
                    Some((health, Ok(pass))) => Some((health, pass)),
                    None => None,
                };
                fallback.announce(&mut head, store.sequence(), undecided);
                // Called once it is polled, where a panic is caught.
                let response = self.inner.clone().oneshot(Request::from_parts(head, body));
                ResponseFuture::boxed(fallback.cover(
                    response,
                    Arc::clone(store.sequence()),
                    failures.clone(),
                ))
            }
        };
        response.observed(&observers, reason)
    }
}
