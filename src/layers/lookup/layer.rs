use std::{
    any::TypeId,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderName, Request, Response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;

use tokio::sync::Semaphore;
use tower::util::Oneshot;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    report::Report,
    route::{Keyless, Route},
    select::{Reader, Settings},
};
use crate::{
    body::{Body, ResponseBody},
    build_error::BuildError,
    exchange::{self, CacheStatusDetail},
    executor::{Executor, Task},
    http::rules::Rules,
    key::{DefaultKey, KeyExtractor},
    layers::{
        derived_key::WithoutKey,
        service::{EagerOneshot, HttpService, ResponseFuture},
    },
    observe::Stats,
    origin::OriginHealth,
    purge::{Naming, Purge},
    store::Store,
    tags::TagFields,
};

/// Serves responses from a store; see the [module](crate::lookup).
pub struct LookupLayer<St, K = DefaultKey> {
    store: St,
    extractor: Arc<K>,
    /// Shared with the purge handles of this value.
    naming: Naming,
    settings: Arc<Settings>,
}

impl<St: Clone, K> Clone for LookupLayer<St, K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            extractor: Arc::clone(&self.extractor),
            // Its key may be set anew, which handles of the original do not follow.
            naming: Naming::new(self.naming.extractor()),
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<St: Store> LookupLayer<St> {
    /// Serves responses from this store under the [`DefaultKey`].
    pub fn new(store: St) -> Self {
        let extractor = Arc::new(DefaultKey::new());
        Self { store, naming: Naming::new(extractor.clone()), extractor, settings: Arc::default() }
    }
}

impl<St: Store, K: KeyExtractor> LookupLayer<St, K> {
    /// Derives keys in another way. Default: [`DefaultKey`].
    #[must_use]
    pub fn key<L: KeyExtractor>(self, extractor: L) -> LookupLayer<St, L> {
        let Self { store, naming, settings, .. } = self;
        let extractor = Arc::new(extractor);
        naming.set(extractor.clone());
        LookupLayer { store, extractor, naming, settings }
    }

    /// The fields that name tags by the extractor.
    pub(crate) fn tag_fields(&self) -> TagFields {
        self.extractor.tag_fields()
    }

    /// Which [cookies](Rules::cookies) are in the key, and what is a [credential](Rules::credentials): the
    /// same rules as those of the layer below that stores. The others of them are for that layer alone.
    /// Default: [`Rules::new`].
    #[must_use]
    pub fn rules(self, rules: Rules) -> Self {
        self.set(|settings| settings.request = rules.request)
    }

    /// A handle to purge what is stored, which names URLs as this layer does: also by a
    /// [`key`](Self::key) that is set afterwards, but not by one of a clone of the layer.
    pub fn purge(&self) -> Purge {
        Purge::new(self.store.clone(), self.naming.clone()).counted_by(self.settings.observers.stats())
    }

    /// How long a refresh in the background may take, body included, before it is given up and
    /// another one may begin. Default: 30 seconds.
    ///
    /// So long may it also take to read what a client leaves of a body that is to be stored, because
    /// it asks for a part of it or has it already (RFC 9110 §13, §14). Then the body is dropped.
    #[must_use]
    pub fn refresh_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.refresh_deadline = deadline)
    }

    /// Lets this health of the origin decide whether a request goes on for which a stale response may be
    /// served because the origin fails (RFC 5861 §4): not while the origin is down, nor in the pause after a
    /// failed fetch. Then the stale response is served at once, and the next fetch goes on in the background.
    /// Default: each such request goes on, and only refreshes have a pause.
    ///
    /// [`StaleIfError`](crate::StaleIfError) below serves the stale response where a fetch fails, and
    /// [`OriginLimit`](crate::OriginLimit) next to the origin has to report to the same health.
    #[must_use]
    pub fn health(self, health: OriginHealth) -> Self {
        self.set(|settings| (settings.health, settings.serves_in_outages) = (health, true))
    }

    /// How stale a response may be that is served without waiting while the origin is up, within its
    /// `stale-while-revalidate` window (RFC 5861 §3). Default: as stale as the window allows.
    ///
    /// The rest of the window is for the time in which the origin is not up, or fails.
    #[must_use]
    pub fn max_stale_while_up(self, limit: Duration) -> Self {
        self.set(|settings| settings.max_stale_while_up = Some(limit))
    }

    /// How many refreshes may be under way at a time, in all services of this layer together.
    /// At the limit stale responses are served without a refresh. Default: 1024.
    #[must_use]
    pub fn max_refreshes(self, limit: usize) -> Self {
        self.set(|settings| settings.refreshes = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
    }

    /// How much responses that the cache had a part in say in a `Cache-Status` field of how they came about
    /// (RFC 9211). `true` and `false` stand for [`Short`](CacheStatusDetail::Short) and
    /// [`Off`](CacheStatusDetail::Off). Default: short.
    #[must_use]
    pub fn cache_status(self, detail: impl Into<CacheStatusDetail>) -> Self {
        self.set(|settings| settings.field.show(detail.into()))
    }

    /// Says [everything](CacheStatusDetail::Full) to clients that send this secret in this request field.
    /// Default: to none.
    ///
    /// The field is removed from each request before its key is made: it never reaches the origin, and no
    /// response is selected by it (`Vary`). The secret is compared in constant time.
    /// [`ReadThroughBuilder::build`](crate::ReadThroughBuilder::build) refuses secrets of less than 16 bytes,
    /// and fields that HTTP gives a meaning to.
    #[must_use]
    pub fn full_cache_status_for(self, field: HeaderName, secret: impl AsRef<[u8]>) -> Self {
        self.set(|settings| settings.field.show_full_for(field, secret.as_ref()))
    }

    /// The name of this cache in `Cache-Status` and `Proxy-Status` (RFC 9211 §2, RFC 9209 §2), and the label
    /// of its metrics: 1 to 64 printable ASCII characters, or [`build`](crate::ReadThroughBuilder::build)
    /// refuses it. Default: `tower-readthrough`.
    ///
    /// Any other name than the default takes a hit a few allocations.
    #[must_use]
    pub fn cache_name(self, name: impl AsRef<str>) -> Self {
        self.set(|settings| settings.field.name(name.as_ref()))
    }

    /// Tells this observer of each response that the service returns, and of its background refreshes.
    /// Default: none.
    ///
    /// What comes of storing a response is told by [`FillLayer::observer`](crate::FillLayer::observer).
    #[must_use]
    pub fn observer(self, observer: impl exchange::Observer) -> Self {
        self.set(|settings| settings.observers.observe(observer))
    }

    /// Counts what the service does, and lets these numbers say what is in the store; see [`Stats`]. Default:
    /// none.
    #[must_use]
    pub fn counted_by(self, stats: &Stats) -> Self {
        stats.read_store(&self.store);
        self.set(|settings| settings.observers.count(stats))
    }

    /// Counts requests by the [key rule](crate::KeyRule) that decides about them as well, in
    /// [`StatsSnapshot::rules`](crate::StatsSnapshot::rules), with the counters of [`counted_by`](Self::counted_by).
    /// Default: no.
    ///
    /// The first 64 rules are counted by their names, and the others together. A rule is known by its name, also
    /// when rules are [replaced](crate::KeyRulesHandle). It takes a request to find its rule once more, and to copy
    /// the name. [`ReadThroughBuilder::build`](crate::ReadThroughBuilder::build) refuses it without rules.
    #[must_use]
    pub fn count_by_rule(self) -> Self {
        self.set(|settings| settings.observers.count_by_rule())
    }

    /// What is done with a range of something that is not stored: fetch the whole, so that others
    /// can share the fetch, and serve the range out of it (RFC 9110 §14.2 allows to serve the
    /// whole, which is done where its length is not known, and for several ranges). Default: no,
    /// the origin is asked for the range, and the part is kept: a client that wants a minute of a
    /// film should not have to wait for all of it, nor the store take it.
    ///
    /// Of what is stored but stale the whole is asked for in any case.
    #[must_use]
    pub fn fetch_whole_for_ranges(self, whole: bool) -> Self {
        self.set(|settings| settings.fetches_whole = whole)
    }

    /// Whether cache directives in requests are followed (RFC 9111 §5.2.1, and `Pragma: no-cache`):
    /// `no-cache`, `no-store`, `max-age`, `min-fresh`, `max-stale` and `only-if-cached`.
    ///
    /// Default: no. They let any client ask the origin for something newer than what is stored,
    /// which is what browsers do when a page is reloaded. Requests that do so at the same time
    /// share a fetch, so that a key costs the origin one request at a time; only requests with
    /// `no-store` go there on their own.
    #[must_use]
    pub fn request_directives(self, follow: bool) -> Self {
        self.set(|settings| settings.follows_requests = follow)
    }

    /// Runs refreshes with this function instead of `tokio::spawn`; as
    /// [`CoalesceLayer::executor`](crate::CoalesceLayer::executor).
    #[must_use]
    pub fn executor(self, spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.executor = Executor::new(spawn))
    }

    /// Lets each response come from the origin, and only tells what would have become of the request.
    pub(crate) fn report_only(self) -> Self {
        self.cache_status(false).set(|settings| settings.reports = Some(Arc::default()))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        self.extractor.check()?;
        BuildError::check_room(self.store.max_response_bytes())?;
        self.settings.field.check()?;
        if self.settings.refresh_deadline.is_zero() {
            let consequence = "no refresh can ever succeed";
            return Err(BuildError::ZeroDuration { setting: "refresh_deadline", consequence });
        }
        if self.settings.refreshes.available_permits() == 0 {
            let consequence = "what is stale is never refreshed in the background";
            return Err(BuildError::ZeroLimit { setting: "max_refreshes", consequence });
        }
        if self.settings.observers.counts_by_rule() && TypeId::of::<K>() == TypeId::of::<DefaultKey>() {
            let reason = "the default key has no rules; give `key` some `KeyRules`";
            return Err(BuildError::NoEffect { setting: "count_by_rule", reason });
        }
        Ok(())
    }
}

impl<St, K> fmt::Debug for LookupLayer<St, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupLayer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<St: Clone, K> LookupLayer<St, K> {
    /// What all services of this layer share.
    pub(crate) fn reader(&self) -> Arc<Reader<St, K>> {
        let (store, extractor, settings) =
            (self.store.clone(), Arc::clone(&self.extractor), Arc::clone(&self.settings));
        Arc::new(Reader { store, extractor, settings })
    }
}

impl<S, St: Clone, K> Layer<S> for LookupLayer<St, K> {
    type Service = Lookup<S, St, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Lookup::new(inner, self.reader())
    }
}

/// The service of [`LookupLayer`](super::LookupLayer).
pub struct Lookup<S, St, K = DefaultKey> {
    inner: S,
    // One counter: a service may be cloned for each request, by all threads.
    reader: Arc<Reader<St, K>>,
}

impl<S, St, K> Lookup<S, St, K> {
    pub(super) const fn new(inner: S, reader: Arc<Reader<St, K>>) -> Self {
        Self { inner, reader }
    }
}

impl<S: Clone, St, K> Clone for Lookup<S, St, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), reader: Arc::clone(&self.reader) }
    }
}

impl<S: fmt::Debug, St, K> fmt::Debug for Lookup<S, St, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, St, K, ReqB, B> Service<Request<ReqB>> for Lookup<S, St, K>
where
    S: HttpService<ReqB, Response = Response<B>>,
    St: Store,
    K: KeyExtractor,
    ReqB: HttpBody + Send + 'static,
    B: ResponseBody,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<Below<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: a hit does not wait for the service below.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        self.reader.route(request, Direct(&mut self.inner))
    }
}

/// All requests go to the one service below.
struct Direct<'s, S>(&'s mut S);

impl<S, ReqB, B> Route<ReqB> for Direct<'_, S>
where
    S: HttpService<ReqB, Response = Response<B>>,
    ReqB: HttpBody + Send + 'static,
    B: ResponseBody,
{
    const IS_OVER_OWN_LAYER: bool = false;
    type Stored = B;
    type Below = B;
    type Error = S::Error;
    type Call = Below<S, Request<ReqB>>;
    type Refresh = Self::Call;
    type Future = ResponseFuture<Self::Call, B, S::Error>;

    fn call_below(&mut self, request: Request<ReqB>) -> Self::Call {
        Below::keyed(self.0.clone(), request)
    }

    fn refresh_below(&mut self, request: Request<ReqB>) -> Self::Refresh {
        Below::keyed(self.0.clone(), request)
    }

    fn stored(self, response: Response<Body<B>>) -> Self::Future {
        ResponseFuture::ready(response)
    }

    fn forwarded(self, response: Self::Future) -> Self::Future {
        response
    }

    fn report(mut self, request: Request<ReqB>, _: Report) -> Self::Future {
        // Only the stack reports.
        ResponseFuture::pass(self.call_below(request))
    }

    fn keyless(self, mut request: Request<ReqB>, keyless: Keyless) -> Self::Future {
        if keyless.says_why() {
            request.extensions_mut().insert(WithoutKey);
        }
        ResponseFuture::pass(Below::keyless(self.0, request, keyless))
    }

    fn passed(mut self, mut request: Request<ReqB>) -> Self::Future {
        request.extensions_mut().get_mut().map(exchange::CacheRequest::pass);
        ResponseFuture::pass(self.call_below(request))
    }
}

pin_project! {
    /// A call of the service below.
    #[project = BelowProj]
    pub enum Below<S, R>
    where
        S: Service<R>,
    {
        // Lazy on purpose: the request that starts a background refresh must not block on it or inherit
        // its panic.
        Keyed { #[pin] oneshot: Oneshot<S, R> },
        Keyless { #[pin] call: EagerOneshot<S, R>, keyless: Keyless },
    }
}

impl<S, R> Below<S, R>
where
    S: Service<R> + Clone,
{
    fn keyed(service: S, request: R) -> Self {
        Self::Keyed { oneshot: Oneshot::new(service, request) }
    }

    fn keyless(service: &S, request: R, keyless: Keyless) -> Self {
        Self::Keyless { call: EagerOneshot::new(service, request), keyless }
    }
}

impl<S, R, B> Future for Below<S, R>
where
    S: Service<R, Response = Response<B>>,
    B: HttpBody,
{
    type Output = Result<Response<B>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            BelowProj::Keyed { oneshot } => oneshot.poll(cx),
            BelowProj::Keyless { call, keyless } => {
                Poll::Ready(keyless.finished(ready!(call.poll(cx)), None))
            }
        }
    }
}

#[cfg(test)]
impl<St, K> LookupLayer<St, K> {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::{option, span, switch};
        let Settings {
            refresh_deadline,
            health: _,
            serves_in_outages: _,
            max_stale_while_up,
            refreshes,
            executor: _,
            field,
            observers: _,
            follows_requests,
            fetches_whole,
            request: _,
            reports: _,
        } = &*self.settings;
        vec![
            ("LookupLayer::refresh_deadline", span(*refresh_deadline)),
            ("LookupLayer::max_stale_while_up", option(*max_stale_while_up, span)),
            ("LookupLayer::max_refreshes", refreshes.available_permits().to_string()),
            ("LookupLayer::cache_status", format!("{:?}", field.detail()).to_lowercase()),
            ("LookupLayer::cache_name", field.cache_name().to_owned()),
            ("LookupLayer::request_directives", switch(*follows_requests)),
            ("LookupLayer::fetch_whole_for_ranges", switch(*fetches_whole)),
        ]
    }
}
