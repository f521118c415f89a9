use std::{
    borrow::Cow,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    alone::Limits,
    caller::Caller,
    flights::{FlightKey, Flights},
    settings::{CoalesceSettings, SharedExtractor},
};
use crate::{
    body::{Body, ResponseBody},
    build_error::BuildError,
    exchange::{
        self, failures,
        status::{CacheStatus, Forward},
    },
    executor::{Executor, Task},
    http::{
        fields::remove_upgrade,
        rules::{RequestRules, Rules},
    },
    key::{KeyExtractor, Unkeyed},
    layers::{
        derived_key::derive_alone,
        service::{EagerOneshot, HttpService, ResponseFuture},
    },
    observe::{CoalesceStats, Stats},
    origin::Priority,
};

/// Lets callers share fetches; see the [module](crate::coalesce).
///
/// The fetches under way belong to the layer value and its clones: all services made by them share
/// fetches with each other.
#[derive(Clone, Debug, Default)]
pub struct CoalesceLayer {
    flights: Arc<Flights>,
}

impl CoalesceLayer {
    /// Creates a layer with the default limits; see the [module](crate::coalesce).
    pub fn new() -> Self {
        Self::default()
    }

    /// Derives the key of a request that has none from a layer above ([`Lookup`](crate::Lookup) or
    /// [`Key`](crate::Key)). Default: [`DefaultKey`](crate::DefaultKey).
    #[must_use]
    pub fn key(self, extractor: impl KeyExtractor) -> Self {
        self.set(|settings| settings.extractor = SharedExtractor::new(extractor))
    }

    /// Tells this observer of each response that the service returns, if no [`Lookup`](crate::Lookup) above
    /// does so. Default: none.
    #[must_use]
    pub fn observer(self, observer: impl exchange::Observer) -> Self {
        self.set(|settings| settings.observers.observe(observer))
    }

    /// Counts what the service does, and lets these numbers say what its fetches hold; see [`Stats`]. Default:
    /// none.
    #[must_use]
    pub fn counted_by(self, stats: &Stats) -> Self {
        let layer = self.set(|settings| settings.observers.count(stats));
        layer.flights.tell(stats);
        layer
    }

    /// Whether the span of each fetch has the query of its URL, beside method and path: as the field `query`.
    /// Queries may hold what is personal, or a secret. Default: no.
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn trace_queries(self, show: bool) -> Self {
        self.set(|settings| settings.traces_queries = show)
    }

    pub(crate) fn tell(&self, stats: &Stats) {
        self.flights.tell(stats);
    }

    /// How many fetches that callers can join may be under way, including those that all callers have
    /// left. Default: 16,384.
    ///
    /// Further requests go to the service below on their own: nothing is shared with them, and their fetch
    /// ends with their client.
    #[must_use]
    pub fn max_flights(self, limit: usize) -> Self {
        self.set(|settings| settings.max_flights = limit)
    }

    /// How many callers besides the first may wait for or read one fetch. Default: 131,072.
    ///
    /// The next one gets 503 with `Retry-After: 1`.
    #[must_use]
    pub fn max_waiters(self, limit: usize) -> Self {
        self.set(|settings| settings.max_waiters = limit)
    }

    /// How long callers wait for the response head of a fetch that another caller began, counted from its
    /// beginning. Default: 30 seconds.
    ///
    /// After that, a caller for which a stale response may be served gets that one. One of the others
    /// begins a fetch of its own, a second later two more do, then four, and so on, until one of the
    /// responses says whether it may be shared. The first fetch goes on.
    #[must_use]
    pub fn max_wait(self, limit: Duration) -> Self {
        self.set(|settings| settings.max_wait = limit)
    }

    /// For how long callers can join a fetch while no response head arrives, or while its body stands
    /// still. Default: 60 seconds.
    ///
    /// After that the next request begins another fetch, and this one no longer counts against
    /// [`max_flights`](Self::max_flights). It goes on for the callers that it has.
    #[must_use]
    pub fn max_flight_age(self, limit: Duration) -> Self {
        self.set(|settings| settings.max_flight_age = limit)
    }

    /// How long a caller waits for a response head if a stale response can be served instead, counted from
    /// the beginning of the fetch: a caller that comes later than that does not wait at all. Default:
    /// [`max_wait`](Self::max_wait), and the first caller waits without a limit.
    ///
    /// [`StaleIfError`](crate::StaleIfError) serves the stale response, within its window for errors or for
    /// revalidation. The fetch goes on, and what arrives late is stored. It is neither a failure nor
    /// tried again. It has to be shorter than `max_wait`, [`wait_at_most`](Self::wait_at_most) and
    /// [`fetch_deadline`](Self::fetch_deadline).
    #[must_use]
    pub fn stale_after(self, limit: Duration) -> Self {
        self.set(|settings| settings.stale_after = Some(limit))
    }

    /// How long a fetch may take until the head of its response is there, counted from its beginning, the
    /// time in a queue and all attempts included; and how long its body may stand still after that, if it is
    /// shared. Default: no limit.
    ///
    /// After that the fetch ends with all that it holds, such as its place at the origin, and has failed:
    /// its callers get a stale response if [`StaleIfError`](crate::StaleIfError) has one, else 504, or a body
    /// error. [`OriginLimit`](crate::OriginLimit) lets it wait in its queue for half of this time at most.
    ///
    /// It holds for each request that has a key, also where no other caller can share the fetch, such as after a
    /// response that was for one client, or for several ranges of what is not stored. Requests without a key have no
    /// limit here.
    #[must_use]
    pub fn fetch_deadline(self, limit: Duration) -> Self {
        self.set(|settings| settings.fetch_deadline = Some(limit))
    }

    /// How long any caller waits for a response head, including the first one. Default: no limit.
    ///
    /// After that it gets a stale response if [`StaleIfError`](crate::StaleIfError) has one, else 504. The
    /// fetch goes on without this caller, unless no other one can share it: then it ends, as if its client had
    /// left.
    ///
    /// It holds for each request that has a key, as [`fetch_deadline`](Self::fetch_deadline) does, but for
    /// refreshes in the background, for which no client waits.
    #[must_use]
    pub fn wait_at_most(self, limit: Duration) -> Self {
        self.set(|settings| settings.wait_at_most = Some(limit))
    }

    /// How long a fetch goes on for the store below after its last caller has left. Default: 30 seconds;
    /// zero ends it with its last caller.
    ///
    /// A body without a declared length may have no end, so its fetch ends sooner if nothing arrives for
    /// a second. The fetch of a body that turns out to be larger than both the limit of the store and
    /// [`max_held_bytes`](Self::max_held_bytes) ends with its last caller.
    #[must_use]
    pub fn abandoned_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.abandoned_deadline = deadline)
    }

    /// How large a shared body may become, counting 64 bytes more for each chunk, for callers to join at
    /// any time. Default: 4 MiB; in [`ReadThrough`](crate::ReadThrough) the largest body that its store
    /// takes. The [module](crate::coalesce#limits) says what happens to larger ones.
    #[must_use]
    pub fn max_held_bytes(self, limit: usize) -> Self {
        self.set(|settings| settings.max_held_bytes = limit)
    }

    /// How many bytes of all shared bodies together may be held for callers that have not read them yet,
    /// counting 64 bytes more for each chunk. Default: 64 MiB; in [`ReadThrough`](crate::ReadThrough) the
    /// capacity of its store. [`stats`](Self::stats) tells how many are held.
    ///
    /// The more is held, the closer each fetch keeps to its fastest reader: it is ahead by no more than a
    /// quarter of what is free, and in the last quarter of the budget by no more than one chunk.
    ///
    /// At the limit, readers end with [`BodyError::Lagged`](crate::BodyError::Lagged), in this order: the
    /// slowest readers of complete or closed fetches; then the largest fetch under way takes no more
    /// callers, so that the beginning of its body can go; then the readers of a fetch that have all
    /// stopped reading. A fetch that is being stored goes on in any case.
    ///
    /// Not counted: what has been handed to a caller (all of a stored response, and all of a shared one
    /// that comes in one chunk of at most 64 KiB), what is read past the cache, and what a store collects
    /// until a body is complete.
    #[must_use]
    pub fn max_total_bytes(self, limit: u64) -> Self {
        self.set(|settings| settings.max_total_bytes = limit)
    }

    /// How long a fetch that is ahead of its readers waits for any of them to read on. Default: 60
    /// seconds.
    ///
    /// After that all readers of a body larger than [`max_held_bytes`](Self::max_held_bytes) end with
    /// [`BodyError::Idle`](crate::BodyError::Idle), and the fetch ends too, unless what it brings is
    /// being stored. A smaller body is fetched to its end without waiting for them.
    #[must_use]
    pub fn max_read_pause(self, limit: Duration) -> Self {
        self.set(|settings| settings.max_read_pause = limit)
    }

    /// Returns the gauges and counters of all services made by this layer and its clones.
    pub fn stats(&self) -> CoalesceStats {
        self.flights.stats()
    }

    /// Which requests may share a response, if there is no [`Fill`](crate::Fill) below to say so. Default:
    /// [`Rules::new`].
    ///
    /// Sharing a fetch takes no lifetime: a response that says nothing about its freshness is shared by the
    /// callers that wait for it. If the rules give it a lifetime, callers that arrive later share it too,
    /// for as long as its body is coming in.
    #[must_use]
    pub fn rules(self, rules: Rules) -> Self {
        self.set(|settings| settings.rules = Some(rules))
    }

    /// Which responses are failures, if there is no [`Fill`](crate::Fill) below to say so: callers that wait
    /// for the same fetch share them. Default: [`DefaultFailures`](crate::DefaultFailures). Any 5xx but 501
    /// is shared in this way in any case.
    #[must_use]
    pub fn failures(self, failures: impl failures::Failures) -> Self {
        self.set(|settings| settings.failures = failures::FailurePolicy::new(failures))
    }

    /// Runs fetches with this function instead of `tokio::spawn`.
    ///
    /// The function is called where the request is handled, so it can read task-locals and the current
    /// tracing span and wrap the task in them. It must run the task on a tokio runtime. If it drops the
    /// task, the fetch counts as cancelled.
    ///
    /// ```
    /// use tower_readthrough::CoalesceLayer;
    ///
    /// tokio::task_local!(static REQUEST_ID: u64);
    ///
    /// let layer = CoalesceLayer::new().executor(|task| {
    ///     match REQUEST_ID.try_with(|id| *id) {
    ///         Ok(id) => drop(tokio::spawn(REQUEST_ID.scope(id, task))),
    ///         Err(_) => drop(tokio::spawn(task)),
    ///     }
    /// });
    /// # drop(layer);
    /// ```
    #[must_use]
    pub fn executor(self, spawn: impl Fn(Task) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.executor = Executor::new(spawn))
    }

    fn set(mut self, change: impl FnOnce(&mut CoalesceSettings)) -> Self {
        change(Arc::make_mut(&mut self.flights).settings_mut());
        self
    }

    /// Whether rules were given, which count only where there is no `Fill` below.
    pub(crate) fn has_rules(&self) -> bool {
        self.flights.settings().rules.as_ref().is_some_and(|rules| *rules != Rules::new())
    }

    /// Whether failures were named, which count only where there is no `Fill` below.
    pub(crate) fn has_failures(&self) -> bool {
        self.flights.settings().failures.is_given()
    }

    /// Leaves it to [`Fill`](crate::Fill) below to judge the responses, so that no request has to be kept
    /// for that.
    pub(crate) fn judged_below(self) -> Self {
        self.set(|settings| settings.rules = None)
    }

    /// Lets the callers of a fetch share its place in the queue of the layer below, by these classes.
    /// `None`: there is no queue.
    pub(crate) fn queued(self, priority: Option<Priority>) -> Self {
        self.set(|settings| settings.priority = priority)
    }

    /// How long a fetch may wait for something else than the origin: callers wait for no longer.
    #[cfg(feature = "redis")]
    pub(crate) fn soft_limit(&self) -> Option<Duration> {
        let CoalesceSettings { stale_after, wait_at_most, .. } = self.flights.settings();
        // The other half is for the origin.
        let halves = wait_at_most.map(|limit| limit / 2);
        stale_after.iter().chain(&halves).min().copied()
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        self.flights.settings().check()
    }
}

impl<S> Layer<S> for CoalesceLayer {
    type Service = Coalesce<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Coalesce { inner, flights: Arc::clone(&self.flights) }
    }
}

/// The service of [`CoalesceLayer`].
///
/// The error of the service below is cloned for every caller that shared the fetch;
/// [`SharedError`](crate::SharedError) makes any error cloneable.
#[derive(Clone, Debug)]
pub struct Coalesce<S> {
    inner: S,
    flights: Arc<Flights>,
}

impl<S, ReqB, B> Service<Request<ReqB>> for Coalesce<S>
where
    S: HttpService<ReqB, Response = Response<B>>,
    S::Error: Clone + Sync + 'static,
    ReqB: HttpBody + Send + 'static,
    B: ResponseBody,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<EagerOneshot<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: a fetch that can be shared is under way already.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let settings = self.flights.settings();
        let (mut head, body, why) = derive_alone(settings.extractor.get(), request_rules(settings), request);
        let observers = settings.observers.of_outermost(&mut head.extensions, why);
        if observers.is_empty() {
            return self.respond(head, body, why);
        }
        let reason = why.map_or(CacheStatus::forwarded(Forward::Miss), CacheStatus::unkeyed);
        self.respond(head, body, why).observed(&observers, reason)
    }
}

impl<S> Coalesce<S> {
    /// Inlined, what it returns is moved once more.
    #[inline(never)]
    fn respond<ReqB, B>(
        &self,
        mut head: Parts,
        body: ReqB,
        why: Option<Unkeyed>,
    ) -> ResponseFuture<EagerOneshot<S, Request<ReqB>>, B, S::Error>
    where
        S: HttpService<ReqB, Response = Response<B>>,
        S::Error: Clone + Sync + 'static,
        ReqB: HttpBody + Send + 'static,
        B: ResponseBody,
    {
        let settings = self.flights.settings();
        // Conditions make the response one client's own; a range alone is the same for all that ask so.
        let is_shared = |request: &Cow<'_, exchange::CacheRequest>| {
            !request.is_hit_for_miss()
                && request.facts().is_for_all()
                && !self.flights.is_leading(request.key())
        };
        match exchange::CacheRequest::of(&head, &request_rules(settings).credentials).filter(is_shared) {
            None => {
                let limits = self.limits_of_one(&mut head);
                let response = EagerOneshot::new(&self.inner, Request::from_parts(head, body));
                let passed = ResponseFuture::pass_unkeyed(response, why);
                match limits {
                    None => passed,
                    Some(limits) => ResponseFuture::boxed(limits.hold(passed)),
                }
            }
            Some(request) => {
                let (key, credentials) = (FlightKey::new(&request, &head), request.credentials());
                let wait_at_most = wait_at_most(settings, &request);
                remove_upgrade(&mut head.headers);
                let inner = self.inner.clone();
                let caller = Caller::new(&self.flights, key, credentials, (head, body), inner);
                match wait_at_most {
                    None => ResponseFuture::boxed(caller.run()),
                    Some(limit) => ResponseFuture::boxed(caller.run_within(limit)),
                }
            }
        }
    }

    /// Those of a fetch that is not shared, if it is one of the cache.
    fn limits_of_one(&self, head: &mut Parts) -> Option<Limits> {
        let settings = self.flights.settings();
        // Else no request is looked at for this.
        settings.wait_at_most.or(settings.fetch_deadline)?;
        let asked = exchange::CacheRequest::with_private(head, &request_rules(settings).credentials)?;
        let wait_at_most = wait_at_most(settings, &asked);
        Limits::begin(head, settings, wait_at_most)
    }

    /// See [`CoalesceLayer::stats`].
    pub fn stats(&self) -> CoalesceStats {
        self.flights.stats()
    }
}

/// For how long the caller of a request waits. A refresh has a deadline of its own, and no client that waits.
fn wait_at_most(settings: &CoalesceSettings, asked: &exchange::CacheRequest) -> Option<Duration> {
    settings.wait_at_most.filter(|_| !asked.purpose().is_refresh())
}

/// How requests are read. Where a `Fill` below decides, that and `Lookup` have rules of their own.
fn request_rules(settings: &CoalesceSettings) -> &RequestRules {
    static DEFAULT: RequestRules = RequestRules::DEFAULT;
    settings.rules.as_ref().map_or(&DEFAULT, |rules| &rules.request)
}

#[cfg(test)]
impl CoalesceLayer {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::{option, span};
        let CoalesceSettings {
            max_flights,
            max_waiters,
            max_wait,
            max_flight_age,
            max_held_bytes,
            max_total_bytes,
            max_read_pause,
            stale_after,
            wait_at_most,
            fetch_deadline,
            abandoned_deadline,
            traces_queries: _,
            priority: _,
            rules: _,
            failures: _,
            executor: _,
            extractor: _,
            observers: _,
        } = self.flights.settings();
        vec![
            ("CoalesceLayer::max_flights", max_flights.to_string()),
            ("CoalesceLayer::max_waiters", max_waiters.to_string()),
            ("CoalesceLayer::max_wait", span(*max_wait)),
            ("CoalesceLayer::max_flight_age", span(*max_flight_age)),
            ("CoalesceLayer::stale_after", option(*stale_after, span)),
            ("CoalesceLayer::wait_at_most", option(*wait_at_most, span)),
            ("CoalesceLayer::fetch_deadline", option(*fetch_deadline, span)),
            ("CoalesceLayer::abandoned_deadline", span(*abandoned_deadline)),
            ("CoalesceLayer::max_held_bytes", format!("{} MiB", max_held_bytes >> 20)),
            ("CoalesceLayer::max_total_bytes", format!("{} MiB", max_total_bytes >> 20)),
            ("CoalesceLayer::max_read_pause", span(*max_read_pause)),
        ]
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
