use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tokio::time::{Instant, Sleep};
use tower::retry::{
    Policy,
    budget::{Budget, TpsBudget},
};

use crate::{
    build_error::BuildError,
    exchange::{
        self,
        failures::{FailurePolicy, Failures},
    },
    executor::Executor,
    http::{response_fields::retry_after, storing::after},
    key,
    layers::repeat::may_be_repeated,
    origin::OriginHealth,
};

/// When to try again; see the [module](crate::retry). Clones share the budget and the count.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// In one piece, since a policy is cloned for each request.
    settings: Arc<Settings>,
    /// Of the request at hand.
    attempts: u32,
    began_at: Option<Instant>,
    attempt_began_at: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    budget: Arc<TpsBudget>,
    retries: Arc<AtomicU64>,
    max_retries: u32,
    min_backoff: Duration,
    max_backoff: Duration,
    max_retry_after: Duration,
    deadline: Duration,
    /// What is tried again.
    own: FailurePolicy,
    /// What the layers around it take for a failure: tried again, but for 500.
    shared: FailurePolicy,
    /// Nothing is tried again unless this origin is up.
    health: Option<OriginHealth>,
    despite_stale: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl RetryPolicy {
    /// Two retries within ten seconds, after at most 100 ms and 200 ms, in a budget of a fifth of
    /// the successful requests of the last ten seconds and ten a second.
    pub fn new() -> Self {
        let settings = Settings {
            budget: Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2)),
            retries: Arc::default(),
            max_retries: 2,
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            max_retry_after: Duration::from_secs(2),
            deadline: Duration::from_secs(10),
            own: FailurePolicy::default(),
            shared: FailurePolicy::default(),
            health: None,
            despite_stale: false,
        };
        Self { settings: Arc::new(settings), attempts: 0, began_at: None, attempt_began_at: None }
    }

    /// Tries nothing again.
    pub fn never() -> Self {
        Self::new().max_retries(0)
    }

    /// How often one request is tried again at most. Default: 2; 0: never.
    #[must_use]
    pub fn max_retries(self, retries: u32) -> Self {
        self.set(|settings| settings.max_retries = retries)
    }

    /// The wait before the first retry lies between 0 and `min`, and doubles with each further
    /// one up to `max`. Default: 100 ms and 2 s.
    #[must_use]
    pub fn backoff(self, min: Duration, max: Duration) -> Self {
        self.set(|settings| (settings.min_backoff, settings.max_backoff) = (min, max))
    }

    /// The longest `Retry-After` that is waited for; what asks for more is not tried again.
    /// Default: 2 seconds.
    #[must_use]
    pub fn max_retry_after(self, bound: Duration) -> Self {
        self.set(|settings| settings.max_retry_after = bound)
    }

    /// No attempt begins later than this after the first one. Default: ten seconds.
    ///
    /// It does not end an attempt that is under way; a timeout below does that.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.deadline = deadline)
    }

    /// Which responses are tried again, 500 included if it is among them. Default: the
    /// [`Failures`](crate::ReadThroughBuilder::failures) of the stack, or the
    /// [default ones](crate::DefaultFailures), without 500, which tends to come again.
    ///
    /// Errors of the service are tried again in any case, and what a layer here refused
    /// ([`Refused`](crate::Refused)) never.
    #[must_use]
    pub fn failures(self, failures: impl Failures) -> Self {
        self.set(|settings| settings.own = FailurePolicy::new(failures))
    }

    /// What the layers around it take for a failure.
    pub(crate) fn shared_failures(self, failures: FailurePolicy) -> Self {
        self.set(|settings| settings.shared = failures)
    }

    /// Tries nothing again unless this origin is up: an origin in trouble gets one attempt for each fetch,
    /// which bounds what an outage costs it. Default: [that of the stack](crate::ReadThroughBuilder::outage);
    /// on its own, none.
    #[must_use]
    pub fn health(self, health: OriginHealth) -> Self {
        self.set(|settings| settings.health = Some(health))
    }

    /// Whether a fetch is tried again although a stale response may be served instead. Default: no.
    ///
    /// With 30 % of errors it makes responses fresher by two to five points of a hundred, and lets clients
    /// wait for it.
    #[must_use]
    pub fn despite_stale(self, repeat: bool) -> Self {
        self.set(|settings| settings.despite_stale = repeat)
    }

    /// The health of the stack, unless it has been given another one.
    pub(crate) fn or_health(self, health: &OriginHealth) -> Self {
        self.set(|settings| _ = settings.health.get_or_insert_with(|| health.clone()))
    }

    /// Takes retries from this budget. Default: see [`new`](Self::new).
    #[must_use]
    pub fn budget(self, budget: TpsBudget) -> Self {
        self.set(|settings| settings.budget = Arc::new(budget))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// How many retries this policy and its clones have begun.
    pub fn retries(&self) -> u64 {
        self.settings.retries.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let Settings { max_retries, min_backoff, max_backoff, deadline, .. } = *self.settings;
        if max_retries > 0 && deadline.is_zero() {
            let reason = "its deadline is over when the first attempt begins; use `RetryPolicy::never()` or a longer deadline";
            return Err(BuildError::NoEffect { setting: "retry", reason });
        }
        if max_backoff < min_backoff {
            let reason = "the shortest backoff is longer than the longest; swap them";
            return Err(BuildError::NoEffect { setting: "backoff", reason });
        }
        Ok(())
    }

    /// How long to wait before the next attempt, or `None` if there is to be none.
    fn next_wait(&self, is_up: impl FnOnce() -> bool, asked_for: Option<Duration>) -> Option<Duration> {
        let Settings { max_retries, min_backoff, max_backoff, max_retry_after, deadline, .. } =
            *self.settings;
        if self.attempts >= max_retries || !Executor::is_available() || !is_up() {
            return None;
        }
        let asked_for = asked_for.unwrap_or_default();
        if asked_for > max_retry_after {
            return None;
        }
        let ceiling = min_backoff.saturating_mul(1 << self.attempts.min(30)).min(max_backoff);
        let wait = ceiling.mul_f64(fastrand::f64()).max(asked_for);
        let is_late = self.began_at.is_some_and(|began| after(began, deadline) < after(Instant::now(), wait));
        (!is_late && self.settings.budget.withdraw()).then_some(wait)
    }
}

impl<ReqB, B, E> Policy<Request<ReqB>, Response<B>, E> for RetryPolicy
where
    ReqB: HttpBody + Default + 'static,
{
    type Future = Sleep;

    fn retry(&mut self, request: &mut Request<ReqB>, result: &mut Result<Response<B>, E>) -> Option<Sleep> {
        let settings = Arc::clone(&self.settings);
        self.next(result, || settings.is_up(request))
    }

    fn clone_request(&mut self, request: &Request<ReqB>) -> Option<Request<ReqB>> {
        self.begin();
        if !may_be_repeated(request) || !self.settings.is_worth_it(request) {
            return None;
        }
        let body = key::copy_of_body(request.body(), request.extensions())?;
        Some(exchange::head_of(request).map(|()| body))
    }
}

impl RetryPolicy {
    pub(super) fn shared(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// The policy for a request with its first attempt at this time, if that matters.
    pub(super) const fn begun(settings: Arc<Settings>, at: Option<Instant>) -> Self {
        Self { settings, attempts: 0, began_at: at, attempt_began_at: at }
    }

    /// Notes that an attempt begins now.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        if self.attempts == 0 {
            self.began_at = Some(now);
        }
        self.attempt_began_at = Some(now);
    }

    #[cfg(test)]
    pub(crate) fn is_never(&self) -> bool {
        self.settings.is_never()
    }

    /// How long to wait before the next attempt, or `None` if `result` is the response.
    /// `is_up`: whether the origin of the request is.
    pub(super) fn next<B, E>(
        &mut self,
        result: &mut Result<Response<B>, E>,
        is_up: impl FnOnce() -> bool,
    ) -> Option<Sleep> {
        let wait = match result {
            Ok(response) if self.settings.may_recover(response) => {
                self.next_wait(is_up, retry_after(response.headers(), SystemTime::now()))
            }
            Ok(response) => {
                // What failed pays for no retry, and neither does what never reached the origin.
                if !response.status().is_server_error() && !self.settings.shared.has_failed(response) {
                    self.settings.budget.deposit();
                }
                None
            }
            Err(_) => self.next_wait(is_up, None),
        };
        self.attempts += 1;
        let Some(wait) = wait else {
            self.sign(result);
            return None;
        };
        self.settings.retries.fetch_add(1, Ordering::Relaxed);
        Some(tokio::time::sleep(wait))
    }

    fn sign<B, E>(&self, result: &mut Result<Response<B>, E>) {
        let Ok(response) = result else { return };
        let extensions = response.extensions_mut();
        extensions.insert(exchange::Attempts::new(self.attempts));
        // The first one began at once.
        if self.attempts > 1
            && let (Some(began), None) =
                (self.attempt_began_at, exchange::ResponseFacts::attempt_began(extensions))
        {
            exchange::ResponseFacts::note_attempt(extensions, began);
        }
    }
}

impl Settings {
    const fn is_never(&self) -> bool {
        self.max_retries == 0
    }

    /// Whether the origin of this request is up, as far as that is known.
    pub(super) fn is_up<ReqB>(&self, request: &Request<ReqB>) -> bool {
        let is_up = |health: &OriginHealth| health.is_up(&exchange::head_of(request).into_parts().0);
        self.health.as_ref().is_none_or(is_up)
    }

    /// Whether a failure of this request may be tried again at all.
    pub(super) fn is_worth_it<ReqB>(&self, request: &Request<ReqB>) -> bool {
        let has_stale =
            || request.extensions().get::<exchange::CacheRequest>().is_some_and(|asked| asked.has_stale());
        !self.is_never() && (self.despite_stale || !has_stale())
    }

    /// Whether the origin may do better a moment later, and was asked at all.
    fn may_recover<B>(&self, response: &Response<B>) -> bool {
        let (status, headers) = (response.status(), response.headers());
        let is_worth_it = match self.own.is_given() {
            true => self.own.is_failure(status, headers),
            false => status != StatusCode::INTERNAL_SERVER_ERROR && self.shared.is_failure(status, headers),
        };
        is_worth_it && response.extensions().get::<exchange::Refused>().is_none()
    }
}

#[cfg(test)]
impl RetryPolicy {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::{span, switch};
        let Settings {
            budget: _,
            retries: _,
            max_retries,
            min_backoff,
            max_backoff,
            max_retry_after,
            deadline,
            own: _,
            shared: _,
            health: _,
            despite_stale,
        } = &*self.settings;
        vec![
            ("RetryPolicy::max_retries", max_retries.to_string()),
            ("RetryPolicy::backoff", format!("{}, {}", span(*min_backoff), span(*max_backoff))),
            ("RetryPolicy::max_retry_after", span(*max_retry_after)),
            ("RetryPolicy::deadline", span(*deadline)),
            ("RetryPolicy::despite_stale", switch(*despite_stale)),
        ]
    }
}
