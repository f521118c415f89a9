//! The recommended stack, assembled.
//!
//! [`ReadThrough`] puts the layers of this crate round a service in the order that makes their
//! promises hold together, with defaults for all of them. It behaves as the layers stacked by
//! hand do; only a request without a key takes the short way round all of them. If the origin is ready and has
//! no limit, it is called at once, also for a response that is for one client alone. A fetch that can be shared
//! begins when the response is first polled.
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use tower_readthrough::{MemoryStore, OriginLimitLayer, ReadThroughLayer, Rules};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(256 << 20))
//!     .rules(Rules::new().default_ttl(Duration::from_secs(10)))
//!     .origin_limit(OriginLimitLayer::new(64))
//!     .build()?;
//! let app: Router = Router::new().route("/", get(async || "hello")).layer(cache);
//!
//! // What cannot work is refused.
//! assert!(ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(0)).build().is_err());
//! # let _ = app;
//! # Ok(())
//! # }
//! ```

pub mod failover;
mod service;
mod store_layer;

use std::{fmt, sync::Arc, time::Duration};

use http::request::Parts;
use tower_layer::Layer;

pub use self::{
    service::{ReadThrough, ReadThroughFuture},
    store_layer::StoreLayer,
};

use self::service::Layers;
#[cfg(feature = "redis")]
use crate::layers::tier;
#[cfg(feature = "metrics")]
use crate::observe::metrics;
use crate::{
    build_error::BuildError,
    exchange::{self, failures},
    executor::Task,
    http::{cookies, rules},
    key::{DefaultKey, KeyExtractor},
    layers::{coalesce, fill, lookup, origin_limit, retry, stale_if_error},
    observe,
    origin::OriginHealth,
    purge::Purge,
    store::{self, Store},
    tags::TagFields,
};

/// Builds the recommended stack; see the [module](self).
#[derive(Clone)]
#[must_use]
pub struct ReadThroughBuilder<St, K = DefaultKey, P = ()> {
    lookup: lookup::LookupLayer<St, K>,
    fill: fill::FillLayer<St, P>,
    others: Others<St>,
}

/// All that has nothing to do with the types of keys and policies.
#[derive(Clone)]
struct Others<St> {
    store: St,
    coalesce: coalesce::CoalesceLayer,
    rules: rules::Rules,
    failures: failures::FailurePolicy,
    retry: retry::RetryPolicy,
    origin_limit: origin_limit::OriginLimitLayer,
    /// `None`: that of the limit.
    health: Option<OriginHealth>,
    stats: OwnStats,
    reports_only: bool,
    #[cfg(feature = "redis")]
    tier: Option<tier::Tier>,
}

/// The counters of the layer that is built.
#[derive(Default)]
struct OwnStats(observe::Stats);

/// A clone of a builder is for another layer.
impl Clone for OwnStats {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<St: Store> ReadThroughBuilder<St> {
    fn new(store: St) -> Self {
        let others = Others {
            coalesce: coalesce::CoalesceLayer::new()
                .max_held_bytes(store.max_response_bytes())
                .max_total_bytes(store.capacity_bytes()),
            rules: rules::Rules::new(),
            failures: failures::FailurePolicy::default(),
            retry: retry::RetryPolicy::never(),
            origin_limit: origin_limit::OriginLimitLayer::unlimited(),
            health: None,
            stats: OwnStats::default(),
            reports_only: false,
            #[cfg(feature = "redis")]
            tier: None,
            store: store.clone(),
        };
        let fill = fill::FillLayer::new(store.clone());
        Self { lookup: lookup::LookupLayer::new(store), fill, others }
    }
}

impl<St: Store, K: KeyExtractor, P: fill::Policy> ReadThroughBuilder<St, K, P> {
    /// Derives keys in another way. Default: [`DefaultKey`].
    pub fn key<L: KeyExtractor>(self, extractor: L) -> ReadThroughBuilder<St, L, P> {
        let Self { lookup, fill, others } = self;
        ReadThroughBuilder { lookup: lookup.key(extractor), fill, others }
    }

    /// A handle to purge what is stored, which names URLs as the layer does that is built, also by a
    /// [`key`](Self::key) that is set afterwards, but not as a clone of the builder does.
    pub fn purge(&self) -> Purge {
        self.lookup.purge().counted_by(Some(&self.others.stats.0))
    }

    /// Returns the counters of the layer that is built, but not of one that a clone of the builder builds.
    pub fn stats(&self) -> observe::Stats {
        self.others.stats.0.clone()
    }

    /// Whether `Surrogate-Key`, `Cache-Tag` and the other [fields](Self::tag_fields) that name tags are
    /// removed from responses, those included that the cache has nothing else to do with; see
    /// [`FillLayer::strip_tags`](crate::FillLayer::strip_tags). Default: yes.
    pub fn strip_tags(mut self, strip: bool) -> Self {
        self.fill = self.fill.strip_tags(strip);
        self
    }

    /// Fields of responses that name [tags](crate::tags), beside `Surrogate-Key` and `Cache-Tag`. Their tags
    /// count as those do, and the fields are [stripped](Self::strip_tags) as those are. Those of the
    /// [key rules](crate::KeyRulesBuilder::tag_fields) count as well. Default: none.
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_readthrough::{MemoryStore, ReadThroughLayer, tags::{Separator, TagFields}};
    ///
    /// let magento = (HeaderName::from_static("x-magento-tags"), Separator::Comma);
    /// let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
    ///     .tag_fields(TagFields::from_iter([magento]))
    ///     .build();
    /// assert!(cache.is_ok());
    /// ```
    pub fn tag_fields(mut self, fields: TagFields) -> Self {
        self.fill = self.fill.tag_fields(fields);
        self
    }

    /// How responses are stored. Default: [`Rules::new`](crate::Rules::new), the origin decides.
    pub fn rules(mut self, rules: rules::Rules) -> Self {
        self.lookup = self.lookup.rules(rules.clone());
        self.fill = self.fill.rules(rules.clone());
        self.others.rules = rules;
        self
    }

    /// Decides for each response. Default: the rules as they are.
    pub fn policy<Q: fill::Policy>(self, policy: Q) -> ReadThroughBuilder<St, K, Q> {
        let Self { lookup, fill, others } = self;
        ReadThroughBuilder { lookup, fill: fill.policy(policy), others }
    }

    /// Changes the settings of background refreshes.
    pub fn lookup(
        mut self,
        change: impl FnOnce(lookup::LookupLayer<St, K>) -> lookup::LookupLayer<St, K>,
    ) -> Self {
        self.lookup = change(self.lookup);
        self
    }

    /// Changes the limits of coalescing. What one shared body may hold, and all of them, is what the
    /// store takes of one response and of all, if not set here.
    pub fn coalesce(
        mut self,
        change: impl FnOnce(coalesce::CoalesceLayer) -> coalesce::CoalesceLayer,
    ) -> Self {
        self.others.coalesce = change(self.others.coalesce);
        self
    }

    /// Which responses of the service are failures: a stale response is served instead, callers that
    /// wait share them, they are stored only with freshness of their own, and [`retry`](Self::retry)
    /// tries them again. Default: [`DefaultFailures`](crate::DefaultFailures).
    pub fn failures(mut self, failures: impl failures::Failures) -> Self {
        self.others.failures = failures::FailurePolicy::new(failures);
        self
    }

    /// When to try again what may be tried again, [`RetryPolicy::new`](crate::RetryPolicy::new) for example.
    /// Default: [`RetryPolicy::never`](crate::RetryPolicy::never), each request is sent once.
    pub fn retry(mut self, policy: retry::RetryPolicy) -> Self {
        self.others.retry = policy;
        self
    }

    /// Bounds the attempts under way at the origin, those included that the cache has nothing
    /// to do with. Default: no bound.
    pub fn origin_limit(mut self, limit: origin_limit::OriginLimitLayer) -> Self {
        self.others.origin_limit = limit;
        self
    }

    /// Decides by this health of the origin what is done while the origin is down or recovers; see
    /// [`OriginHealth`]. Default: that of the [limit](Self::origin_limit), which is one of its own for one
    /// origin if none was given.
    pub fn outage(mut self, health: OriginHealth) -> Self {
        self.others.health = Some(health);
        self
    }

    /// Asks a second tier before the origin, and writes to it what is stored; see its [module](crate::tier). Default:
    /// none.
    ///
    /// The tier is of use once the store has joined a [`Cluster`](crate::cluster::Cluster).
    #[cfg(feature = "redis")]
    pub fn second_tier(mut self, tier: tier::Tier) -> Self {
        self.others.tier = Some(tier);
        self
    }

    /// Tells this observer of each response, of what comes of storing it, and of what happens in the
    /// background. Default: none, which costs nothing.
    pub fn observer(mut self, observer: impl exchange::Observer) -> Self {
        let observer: Arc<dyn exchange::Observer> = Arc::new(observer);
        self.lookup = self.lookup.observer(Arc::clone(&observer));
        self.fill = self.fill.observer(observer);
        self
    }

    /// See [`LookupLayer::count_by_rule`](crate::LookupLayer::count_by_rule).
    pub fn count_by_rule(mut self) -> Self {
        self.lookup = self.lookup.count_by_rule();
        self
    }

    /// See [`CoalesceLayer::trace_queries`](crate::CoalesceLayer::trace_queries).
    #[cfg(feature = "tracing")]
    pub fn trace_queries(mut self, show: bool) -> Self {
        self.others.coalesce = self.others.coalesce.trace_queries(show);
        self
    }

    /// See [`LookupLayer::cache_status`](crate::LookupLayer::cache_status).
    pub fn cache_status(mut self, detail: impl Into<exchange::CacheStatusDetail>) -> Self {
        self.lookup = self.lookup.cache_status(detail);
        self
    }

    /// See [`LookupLayer::full_cache_status_for`](crate::LookupLayer::full_cache_status_for).
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_readthrough::{MemoryStore, ReadThroughLayer};
    ///
    /// let field = HeaderName::from_static("x-cache-debug");
    /// let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
    ///     .full_cache_status_for(field, "rather long, and random")
    ///     .cache_name("edge-1")
    ///     .build();
    /// assert!(cache.is_ok());
    /// ```
    pub fn full_cache_status_for(mut self, field: http::HeaderName, secret: impl AsRef<[u8]>) -> Self {
        self.lookup = self.lookup.full_cache_status_for(field, secret);
        self
    }

    /// See [`LookupLayer::cache_name`](crate::LookupLayer::cache_name).
    pub fn cache_name(mut self, name: impl AsRef<str>) -> Self {
        self.lookup = self.lookup.cache_name(name);
        self
    }

    /// Serves everything from the origin, and only tells what the cache would have done: for a first look at real
    /// traffic before it is trusted. Default: no.
    ///
    /// Requests reach the origin as they are, at once and each by itself, and clients get its responses as they
    /// are, without `Cache-Status`. Responses are stored and purged as ever, so that what is foreseen is true: the
    /// [`Record`](crate::Record)s of an [`Observer`](crate::Observer), [`Stats`](observe::Stats) and
    /// [`explain`](ReadThroughLayer::explain) tell hits, reasons and what is not stored, and
    /// [`StatsSnapshot::saved`](crate::StatsSnapshot::saved) how many requests would not have reached the origin.
    ///
    /// What differs from the cache itself: retries, the limits in time and that of the origin are not in use, and
    /// nothing is learned of the state of the origin. A client's own conditions and range reach the origin, so
    /// that what answers them is not stored: there would be more hits than are told. A request that would have
    /// shared the fetch of another one is told to have done so if it came before the head of that response.
    ///
    /// ```
    /// use axum::{Router, body::Body, routing::get};
    /// use http::{Request, header};
    /// use tower::ServiceExt;
    /// use tower_readthrough::{MemoryStore, ReadThroughLayer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).report_only().build()?;
    /// let stats = cache.stats();
    /// let page = async || ([(header::CACHE_CONTROL, "max-age=60")], "hello");
    /// let app = Router::new().route("/", get(page)).layer(cache);
    /// for _ in 0..3 {
    ///     let request = Request::get("/").header("host", "example.com").body(Body::empty())?;
    ///     let response = app.clone().oneshot(request).await?;
    ///     axum::body::to_bytes(response.into_body(), 1024).await?;
    /// }
    /// assert_eq!((stats.snapshot().hits, stats.snapshot().saved), (2, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn report_only(mut self) -> Self {
        self.others.reports_only = true;
        self
    }

    /// Runs fetches and refreshes with this function; see
    /// [`CoalesceLayer::executor`](crate::CoalesceLayer::executor).
    pub fn executor(mut self, spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        let spawn = Arc::new(spawn);
        let shared = Arc::clone(&spawn);
        self.lookup = self.lookup.executor(move |task| shared(task));
        self.others.coalesce = self.others.coalesce.executor(move |task| spawn(task));
        self
    }

    /// The layer, if the settings make sense.
    ///
    /// # Errors
    ///
    /// Says which setting cannot work, and what to change.
    pub fn build(self) -> Result<ReadThroughLayer<St, K, P>, BuildError> {
        self.lookup.check()?;
        self.others.coalesce.check()?;
        self.others.retry.check()?;
        if !self.others.origin_limit.may_report_to(self.others.health.as_ref()) {
            let reason =
                "`origin_limit` reports to another health; give both the same one, or one of them none";
            return Err(BuildError::NoEffect { setting: "outage", reason });
        }
        self.watched_limit().0.check()?;
        self.others.rules.check()?;
        check_names(&self.others.rules.request)?;
        if let Some(name) = self.fill.own_tag_fields().invalid() {
            let reason =
                "clients read this field, and tags are for caches alone; give them a field of their own";
            return Err(BuildError::TagField { name: name.as_str().into(), reason });
        }
        if self.others.coalesce.has_rules() {
            let reason = "the rules of `ReadThrough` decide; give them to `ReadThroughBuilder::rules`";
            return Err(BuildError::NoEffect { setting: "CoalesceLayer::rules", reason });
        }
        if self.others.coalesce.has_failures() {
            let reason = "the failures of `ReadThrough` decide; give them to `ReadThroughBuilder::failures`";
            return Err(BuildError::NoEffect { setting: "CoalesceLayer::failures", reason });
        }
        #[cfg(feature = "redis")]
        self.check_tier()?;
        Ok(self.assembled())
    }

    #[cfg(feature = "redis")]
    fn check_tier(&self) -> Result<(), BuildError> {
        let Some(tier) = &self.others.tier else { return Ok(()) };
        if self.others.reports_only {
            let reason = "a cache that only reports asks the origin for each request; leave one of them out";
            return Err(BuildError::NoEffect { setting: "second_tier", reason });
        }
        tier::TierLayer::new(self.others.store.clone(), tier.clone()).map(|_| ())
    }

    /// The limit as it reports, and what it reports to.
    fn watched_limit(&self) -> (origin_limit::OriginLimitLayer, OriginHealth) {
        let limit = self.others.origin_limit.clone().shared_failures(&self.others.failures);
        let health = self.others.health.as_ref().unwrap_or_else(|| limit.origin_health()).clone();
        (limit.shared_health(&health), health)
    }

    fn assembled(self) -> ReadThroughLayer<St, K, P> {
        ReadThroughLayer { layers: Arc::new(self.assemble()) }
    }

    fn assemble(self) -> Layers<St, K, P> {
        let (origin_limit, health) = self.watched_limit();
        let Self { lookup, fill, others } = self;
        #[cfg(feature = "redis")]
        let tier = others.tier.clone().and_then(|tier| {
            let status = tier.clone();
            others.stats.0.read_tier(move || status.status());
            // Checked before.
            tier::TierLayer::new(others.store.clone(), tier).ok()
        });
        let Others { store, coalesce, failures, retry, stats: OwnStats(stats), reports_only, .. } = others;
        let (lookup, fill, origin_limit) = match reports_only {
            true => {
                stats.note_report_only();
                let fill = fill.strip_tags(false).strip_targets(false);
                (lookup.report_only(), fill, origin_limit::OriginLimitLayer::unlimited())
            }
            false => (lookup, fill, origin_limit),
        };
        coalesce.tell(&stats);
        stats.read_origins(&health);
        let policy = retry.clone();
        stats.read_retries(move || policy.retries());
        let (lookup, fill) = (lookup.counted_by(&stats), fill.counted_by(&stats));
        let fill = fill.and_tag_fields(&lookup.tag_fields());
        let stale_if_error = stale_if_error::StaleIfErrorLayer::new(store);
        #[cfg(feature = "redis")]
        let tier = tier
            .map(|tier| tier.health(health.clone()).over_own_layer().waiting_at_most(coalesce.soft_limit()));
        Layers {
            lookup: lookup.health(health.clone()).reader(),
            stale_if_error: stale_if_error.failure_policy(failures.clone()).over_own_layer(),
            coalesce: coalesce.judged_below().queued(origin_limit.classes().cloned()),
            #[cfg(feature = "redis")]
            tier,
            fill: fill.failure_policy(failures.clone()).over_own_layer(),
            retry: retry::RetryLayer::new(retry.shared_failures(failures).or_health(&health)),
            origin_limit: origin_limit.under_own_layer(),
            stats,
        }
    }
}

fn check_names(rules: &rules::RequestRules) -> Result<(), BuildError> {
    let cookie =
        rules.keyed.cookies().and_then(cookies::CookieNames::invalid).map(|name| ("cookies", name.into()));
    match cookie.or(rules.credentials.invalid().map(|name| ("credentials", name.into()))) {
        Some((setting, name)) => Err(BuildError::Name { setting, name }),
        None => Ok(()),
    }
}

impl<St, K, P> fmt::Debug for ReadThroughBuilder<St, K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThroughBuilder")
            .field("rules", &self.others.rules)
            .field("lookup", &self.lookup)
            .field("coalesce", &self.others.coalesce)
            .field("failures", &self.others.failures)
            .field("retry", &self.others.retry)
            .field("origin_limit", &self.others.origin_limit)
            .finish_non_exhaustive()
    }
}

/// The recommended stack as a layer, made by [`ReadThroughBuilder::build`].
///
/// What its services share (store, fetches under way, limits, budget) belongs to the layer value
/// and its clones.
pub struct ReadThroughLayer<St, K = DefaultKey, P = ()> {
    layers: Arc<Layers<St, K, P>>,
}

impl<St: Store> ReadThroughLayer<St> {
    /// Returns a builder of the stack over this store: with the default key, [`Rules`](crate::Rules) and limits,
    /// without retries, and without a limit to the origin.
    pub fn builder(store: St) -> ReadThroughBuilder<St> {
        ReadThroughBuilder::new(store)
    }
}

impl ReadThroughLayer<store::MemoryStore> {
    /// Returns a stack over a [`MemoryStore`](crate::MemoryStore) of 64 MiB of its own, in which responses that
    /// say nothing themselves are fresh for this long ([`Rules::default_ttl`](crate::Rules::default_ttl)).
    ///
    /// A response that says for how long it is fresh, or that it is not to be stored, is right: `max-age`,
    /// `no-store` and `private` win. `Duration::ZERO` adds nothing. Everything else is as in
    /// [`builder`](Self::builder).
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, routing::get};
    /// use tower_readthrough::ReadThroughLayer;
    ///
    /// let app: Router = Router::new()
    ///     .route("/", get(async || "hello"))
    ///     .layer(ReadThroughLayer::with_ttl(Duration::from_secs(10)));
    /// # let _ = app;
    /// ```
    #[must_use]
    pub fn with_ttl(ttl: Duration) -> Self {
        let rules = if ttl.is_zero() { rules::Rules::new() } else { rules::Rules::new().default_ttl(ttl) };
        Self::builder(store::MemoryStore::with_capacity_bytes(64 << 20)).rules(rules).assembled()
    }
}

impl<St: Store, K: KeyExtractor, P> ReadThroughLayer<St, K, P> {
    /// A handle to purge what is stored, which names URLs as this layer does.
    pub fn purge(&self) -> Purge {
        self.layers.lookup.purge()
    }

    /// Returns what would become of a request with this head and without a body, and why, by what is stored now
    /// and by the state of the origin. The origin is not asked, and nothing is changed or counted.
    ///
    /// ```
    /// use http::Request;
    /// use tower_readthrough::{Forward, Outcome, ReadThroughLayer};
    ///
    /// let cache = ReadThroughLayer::with_ttl(std::time::Duration::from_secs(10));
    /// let (head, ()) = Request::get("http://example.com/?token=1").body(()).unwrap().into_parts();
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # let _guard = runtime.enter();
    /// let explanation = cache.explain(&head);
    /// assert_eq!(explanation.outcome(), Some(Outcome::Forwarded(Forward::UriMiss)));
    /// assert!(explanation.to_string().starts_with("GET http://example.com/?\u{2026}\n  outcome  forwarded=uri-miss"));
    /// ```
    pub fn explain(&self, head: &Parts) -> observe::Explanation {
        self.layers.lookup.explain(head)
    }

    /// Returns an exporter of the counters through the `metrics` facade, under the
    /// [name](ReadThroughBuilder::cache_name) of this cache; see [`metrics`].
    ///
    /// # Errors
    ///
    /// If there is an exporter of this name, which has not been dropped.
    #[cfg(feature = "metrics")]
    pub fn metrics(&self) -> Result<metrics::MetricsExporter, metrics::CacheNameTaken> {
        metrics::MetricsExporter::new(&self.layers.stats, self.layers.lookup.cache_name())
    }

    /// Returns the counters of this layer and its clones.
    pub fn stats(&self) -> observe::Stats {
        self.layers.stats.clone()
    }

    /// What the fetches under way hold; see [`CoalesceLayer::stats`](crate::CoalesceLayer::stats).
    pub fn coalesce_stats(&self) -> observe::CoalesceStats {
        self.layers.coalesce.stats()
    }
}

impl<St, K, P> Clone for ReadThroughLayer<St, K, P> {
    fn clone(&self) -> Self {
        Self { layers: Arc::clone(&self.layers) }
    }
}

impl<St, K, P> fmt::Debug for ReadThroughLayer<St, K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadThroughLayer").finish_non_exhaustive()
    }
}

impl<S, St, K, P> Layer<S> for ReadThroughLayer<St, K, P> {
    type Service = ReadThrough<S, St, K, P>;

    fn layer(&self, origin: S) -> Self::Service {
        ReadThrough::new(origin, Arc::clone(&self.layers))
    }
}

#[cfg(test)]
impl<St, K, P> ReadThroughBuilder<St, K, P> {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        let limit = if self.others.origin_limit.settings().is_empty() { "none" } else { "some" };
        let retry = if self.others.retry.is_never() { "never" } else { "some" };
        vec![
            ("ReadThroughBuilder::origin_limit", limit.to_owned()),
            ("ReadThroughBuilder::retry", retry.to_owned()),
        ]
    }
}
