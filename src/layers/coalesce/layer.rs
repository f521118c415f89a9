use std::{
    borrow::Cow,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body as HttpBody;
use tower::{ServiceExt, util::Oneshot};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    caller::Caller,
    flights::{FlightKey, Flights},
    settings::{CoalesceSettings, SharedExtractor},
    waiter::Waiter,
};
use crate::{
    body::{Body, BoxError},
    build_error::BuildError,
    exchange::{
        CacheRequest, Observer, Observers,
        failures::{FailurePolicy, Failures},
        status::{CacheStatus, Forward},
    },
    executor::{Executor, Task},
    http::{fields::remove_upgrade, rules::Rules},
    key::KeyExtractor,
    layers::{future::ResponseFuture, key::derive_alone},
};

/// Lets callers share fetches; see the [module](crate::coalesce).
///
/// The fetches under way belong to the layer value and its clones: services made by one of them
/// share fetches, also with each other.
#[derive(Clone, Debug, Default)]
pub struct CoalesceLayer {
    flights: Arc<Flights>,
}

/// What the fetches of a [`CoalesceLayer`] hold, and what happened to their readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoalesceStats {
    /// Fetches under way.
    pub fetches: usize,
    /// Bytes held at the moment for callers that have not read them yet, by fetches that are complete
    /// too; see [`CoalesceLayer::max_total_bytes`].
    pub held_bytes: u64,
    /// The configured bound of these bytes.
    pub max_total_bytes: u64,
    /// Readers that lost their place for lack of room since the layer was made.
    pub lagged: u64,
}

impl CoalesceLayer {
    /// With the default limits; see the [module](crate::coalesce).
    pub fn new() -> Self {
        Self::default()
    }

    /// Derives keys in another way where no layer above did: [`Lookup`](crate::Lookup) or
    /// [`Key`](crate::Key). Default: [`DefaultKey`].
    #[must_use]
    pub fn key(self, extractor: impl KeyExtractor) -> Self {
        self.set(|settings| settings.extractor = SharedExtractor::new(extractor))
    }

    /// Tells this observer of each response that the service returns, if no [`Lookup`](crate::Lookup) above
    /// it does. Default: none.
    #[must_use]
    pub fn observer(self, observer: impl Observer) -> Self {
        self.set(|settings| settings.observers = Observers::new(observer))
    }

    /// How many fetches may be under way that callers can join, those included that all callers have
    /// left. Default: 16,384. Further requests go to the service below on their own: nothing is shared
    /// with them, and their fetch ends with their client.
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

    /// How long callers rely on a fetch that another caller began and whose response head is not there
    /// yet, counted from its beginning. Default: 30 seconds.
    ///
    /// Then a caller for whom a stale response may be served gets that one. Of the others one begins
    /// a fetch of its own, a second later two more, then four, and so on, until one of the responses
    /// says whether it may be shared. The first fetch goes on.
    #[must_use]
    pub fn max_wait(self, limit: Duration) -> Self {
        self.set(|settings| settings.max_wait = limit)
    }

    /// For how long a fetch takes new callers on that has no response head yet, or whose body stands
    /// still. Default: 60 seconds. After that the next request begins another fetch, and this one does
    /// not count for [`max_flights`](Self::max_flights) any more. It goes on for the callers it has.
    #[must_use]
    pub fn max_flight_age(self, limit: Duration) -> Self {
        self.set(|settings| settings.max_flight_age = limit)
    }

    /// How long any caller waits for a response head, the first one included. Default: without limit.
    ///
    /// Then it gets a stale response where [`StaleIfError`](crate::StaleIfError) has one, else 504. The
    /// fetch goes on as one without this caller.
    #[must_use]
    pub fn wait_at_most(self, limit: Duration) -> Self {
        self.set(|settings| settings.wait_at_most = Some(limit))
    }

    /// How long a fetch goes on, for the store below, after its last caller has left. Default: 30
    /// seconds; zero ends it with its last caller.
    ///
    /// A body that does not declare its length ends sooner if nothing of it comes for a second: it may
    /// have no end. A body that turns out larger than the store takes and than
    /// [`max_held_bytes`](Self::max_held_bytes) ends with its last caller.
    #[must_use]
    pub fn abandoned_deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.abandoned_deadline = deadline)
    }

    /// How much of a shared body may be held, 64 bytes a chunk included, for callers to join at
    /// any time. Default: 4 MiB; [`ReadThrough`](crate::ReadThrough) takes what its store
    /// takes. Beyond it see the [module](crate::coalesce#limits).
    #[must_use]
    pub fn max_held_bytes(self, limit: usize) -> Self {
        self.set(|settings| settings.max_held_bytes = limit)
    }

    /// How much of all shared bodies together may be held for callers that have not read it yet, 64
    /// bytes a chunk included. Default: 64 MiB; [`ReadThrough`](crate::ReadThrough) takes as much as
    /// its store holds. [`stats`](Self::stats) tells how much it is.
    ///
    /// The fuller it is, the closer each fetch keeps to its fastest reader: none is further ahead than
    /// a quarter of what is free, and in the last quarter of the budget than one chunk. At the limit the reader that is furthest behind ends with
    /// [`BodyError::Lagged`](crate::BodyError::Lagged): first those of complete or closed fetches; then
    /// the largest fetch under way takes on no more callers, so that its beginning can go; at last the
    /// readers of a fetch that none of them reads on. A fetch that is being stored goes on in any case.
    ///
    /// Not counted: what a caller has been handed already, as is the whole of a stored response, and of
    /// a shared one that comes in one chunk of at most 64 KiB; what is read past the cache; and what a
    /// store collects until a body is complete.
    #[must_use]
    pub fn max_total_bytes(self, limit: u64) -> Self {
        self.set(|settings| settings.max_total_bytes = limit)
    }

    /// How long a fetch that is ahead of its readers waits for any of them to read on. Default: 60
    /// seconds.
    ///
    /// Then all readers of a body larger than [`max_held_bytes`](Self::max_held_bytes) end with
    /// [`BodyError::Idle`](crate::BodyError::Idle), and the fetch ends too, unless what it brings is
    /// being stored. A smaller body is fetched to its end without waiting for them.
    #[must_use]
    pub fn max_read_pause(self, limit: Duration) -> Self {
        self.set(|settings| settings.max_read_pause = limit)
    }

    /// Gauges and counters as they stand, of all services made by this layer and its clones.
    pub fn stats(&self) -> CoalesceStats {
        CoalesceStats {
            fetches: self.flights.under_way(),
            held_bytes: self.flights.budget().held(),
            max_total_bytes: self.flights.settings().max_total_bytes,
            lagged: self.flights.budget().lagged(),
        }
    }

    /// Who may share an answer, if there is no [`Fill`](crate::Fill) below that says so. Default:
    /// [`Rules::new`].
    ///
    /// To share a fetch takes no lifetime: a response without a word about its freshness is shared by
    /// those who wait for it, as [`Rules::default_ttl`] would let them, unless the rules give it a
    /// lifetime. Then those who come later share it too, for as long as its body is on its way.
    #[must_use]
    pub fn rules(self, rules: Rules) -> Self {
        self.set(|settings| settings.rules = Some(rules))
    }

    /// Which responses are failures, if there is no [`Fill`](crate::Fill) below that says so: callers
    /// who wait for the same fetch share them. Default:
    /// [`DefaultFailures`](crate::DefaultFailures). Any 5xx but 501 is shared so in any case.
    #[must_use]
    pub fn failures(self, failures: impl Failures) -> Self {
        self.set(|settings| settings.failures = FailurePolicy::new(failures))
    }

    /// Runs fetches with this function instead of `tokio::spawn`.
    ///
    /// It is called where the request is handled, so it can see task-locals and the current
    /// tracing span and put them round the task. It must run the task on a tokio runtime. A task
    /// that it drops counts as a fetch that was cancelled.
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
/// The error of the service below is cloned for everybody who shared the fetch;
/// [`SharedError`](crate::SharedError) makes any error cloneable.
#[derive(Clone, Debug)]
pub struct Coalesce<S> {
    pub(crate) inner: S,
    flights: Arc<Flights>,
}

impl<S, ReqB, B> Service<Request<ReqB>> for Coalesce<S>
where
    S: Service<Request<ReqB>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Clone + Send + Sync + 'static,
    ReqB: HttpBody + Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<Oneshot<S, Request<ReqB>>, B, S::Error>;

    /// Always ready: a fetch that can be shared is under way already.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let inner = self.inner.clone();
        let settings = self.flights.settings();
        let (head, body, why) = derive_alone(settings.extractor.get(), settings.request_rules(), request);
        let observers = settings.observers.of_outermost(&head.extensions, why);
        let reason = why.map_or(CacheStatus::forwarded(Forward::Miss), CacheStatus::unkeyed);
        self.ask(head, body, |head, body| inner.oneshot(Request::from_parts(head, body)))
            .say(why)
            .observed(&observers, reason)
    }
}

impl<S> Coalesce<S> {
    /// See [`CoalesceLayer::stats`].
    pub fn stats(&self) -> CoalesceStats {
        CoalesceLayer { flights: Arc::clone(&self.flights) }.stats()
    }

    /// As `call`, of whatever is `below`.
    pub(crate) fn ask<F, ReqB, B, E>(
        &self,
        mut head: Parts,
        body: ReqB,
        below: impl FnOnce(Parts, ReqB) -> F + Send + 'static,
    ) -> ResponseFuture<F, B, E>
    where
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        E: Clone + Send + Sync + 'static,
        ReqB: Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Conditions make the response one client's own; a range alone is the same for all that ask so.
        let is_shared = |request: &Cow<'_, CacheRequest>| {
            !request.is_hit_for_miss()
                && request.facts().is_for_all()
                && !self.flights.is_leading(request.key())
        };
        let settings = self.flights.settings();
        match CacheRequest::of(&head, settings.credential_names()).filter(is_shared) {
            None => ResponseFuture::pass(below(head, body)),
            Some(request) => {
                let (key, credentials) = (FlightKey::new(&request, &head), request.credentials());
                remove_upgrade(&mut head.headers);
                let waiter = Waiter::new(head, key, credentials, self.flights.begun());
                let caller = Caller::new(Arc::clone(&self.flights), waiter, body, below);
                match settings.wait_at_most {
                    None => ResponseFuture::boxed(caller.run()),
                    Some(limit) => ResponseFuture::boxed(caller.run_within(limit)),
                }
            }
        }
    }
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
            wait_at_most,
            abandoned_deadline,
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
            ("CoalesceLayer::wait_at_most", option(*wait_at_most, span)),
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
