//! Faults at random, the same ones each time.

mod body;
mod service;

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tower_layer::Layer;

pub use self::{body::FaultyBody, service::Faults};

/// Makes requests fail at random: with an error status or an error of the service, with a delay, without an end, or
/// in the middle of the body.
///
/// Meant for tests that ask what an application does with a bad origin: it goes below the cache, in place of the
/// origin or round it. Which request gets which fault depends on the seed and on the number of the request alone.
/// Each kind is drawn for itself, at its rate from 0 (never, the default) to 1 (always). Of several kinds that one
/// request has drawn, a delay comes first; then the request hangs, or else gets an error, or else a status; a body
/// is cut only if there is a response of the service.
///
/// ```
/// use tower::Layer;
/// use tower_readthrough::testing::{Answer, Client, FaultsLayer, ScriptedOrigin};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let origin = ScriptedOrigin::always(|| Answer::ok("fine"));
/// # let in_release = true;
/// let faults = FaultsLayer::seeded(7).error_status(0.2, 503).cut_body(0.1).allow_in_release(in_release).build()?;
/// let client = Client::new(faults.layer(origin.clone()));
/// for _ in 0..1_000 {
///     client.get("/").send().await;
/// }
/// let injected = faults.injected();
/// assert!((150..250).contains(&injected.statuses), "{injected:?}");
/// assert_eq!(origin.calls() as u64, 1_000 - injected.statuses);
/// # Ok(())
/// # }
/// ```
pub struct FaultsLayer<E = NoError> {
    plan: Arc<Plan<E>>,
}

/// Settings of a [`FaultsLayer`].
#[derive(Clone, Debug)]
#[must_use = "the settings do nothing until `build`"]
pub struct FaultsBuilder<E = NoError> {
    rates: Rates,
    seed: u64,
    make_error: E,
    is_allowed_in_release: bool,
}

/// How often which fault happens.
#[derive(Clone, Debug, Default)]
struct Rates {
    status: f64,
    code: u16,
    error: f64,
    delay: f64,
    delays: Option<RangeInclusive<Duration>>,
    hang: f64,
    cut: f64,
}

/// What the services of one layer share.
struct Plan<E> {
    rates: Rates,
    status: StatusCode,
    seed: u64,
    make_error: E,
    requests: AtomicU64,
    injected: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    statuses: AtomicU64,
    errors: AtomicU64,
    delays: AtomicU64,
    hangs: AtomicU64,
    cuts: AtomicU64,
}

/// How many faults of each kind a [`FaultsLayer`] has injected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// Responses with the error status.
    pub statuses: u64,
    /// Errors of the service.
    pub errors: u64,
    /// Delays.
    pub delays: u64,
    /// Requests that never get a response.
    pub hangs: u64,
    /// Bodies that were to be cut.
    pub cuts: u64,
}

/// Why a [`FaultsBuilder`] cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultsError(String);

/// Makes the errors of a service that fails.
pub trait MakeError<E>: Send + Sync + 'static {
    /// Returns the error, or `None` if there is none to make.
    fn make_error(&self) -> Option<E>;
}

/// No errors: that of a [`FaultsLayer`] without [`service_error`](FaultsBuilder::service_error).
#[derive(Clone, Copy, Debug)]
pub struct NoError;

impl<E> MakeError<E> for NoError {
    fn make_error(&self) -> Option<E> {
        None
    }
}

impl<E, F: Fn() -> E + Send + Sync + 'static> MakeError<E> for F {
    fn make_error(&self) -> Option<E> {
        Some(self())
    }
}

impl FaultsLayer {
    /// Begins with this seed and without faults.
    pub fn seeded(seed: u64) -> FaultsBuilder {
        FaultsBuilder { rates: Rates::default(), seed, make_error: NoError, is_allowed_in_release: false }
    }
}

impl<E> FaultsLayer<E> {
    /// Returns how many faults there were so far, of all services of this layer.
    pub fn injected(&self) -> Injected {
        let Counters { statuses, errors, delays, hangs, cuts } = &self.plan.injected;
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Injected {
            statuses: count(statuses),
            errors: count(errors),
            delays: count(delays),
            hangs: count(hangs),
            cuts: count(cuts),
        }
    }
}

impl<E> FaultsBuilder<E> {
    /// Responds with this status to so many requests, without asking the service.
    pub fn error_status(mut self, rate: f64, code: u16) -> Self {
        (self.rates.status, self.rates.code) = (rate, code);
        self
    }

    /// Returns an error that this function makes for so many requests, without asking the service.
    pub fn service_error<M>(self, rate: f64, make_error: M) -> FaultsBuilder<M> {
        let Self { rates, seed, is_allowed_in_release, .. } = self;
        FaultsBuilder { rates: Rates { error: rate, ..rates }, seed, make_error, is_allowed_in_release }
    }

    /// Delays so many requests by a time out of this range, before anything else.
    pub fn delay(mut self, rate: f64, times: RangeInclusive<Duration>) -> Self {
        (self.rates.delay, self.rates.delays) = (rate, Some(times));
        self
    }

    /// Never responds to so many requests.
    pub fn hang(mut self, rate: f64) -> Self {
        self.rates.hang = rate;
        self
    }

    /// Breaks so many bodies off, after a part of their first chunk.
    pub fn cut_body(mut self, rate: f64) -> Self {
        self.rates.cut = rate;
        self
    }

    /// Whether the layer may be built into a program that is compiled without debug assertions, as releases are.
    /// Default: no, so that a layer that was forgotten in the code fails where it is deployed.
    pub fn allow_in_release(mut self, is_allowed: bool) -> Self {
        self.is_allowed_in_release = is_allowed;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If a rate is not from 0 to 1, the status is not one from 400 to 599, a range of delays is empty, no fault
    /// would ever happen, or the program is a release and does not [allow](Self::allow_in_release) it.
    pub fn build(self) -> Result<FaultsLayer<E>, FaultsError> {
        self.build_for(!cfg!(debug_assertions))
    }

    fn build_for(self, is_release: bool) -> Result<FaultsLayer<E>, FaultsError> {
        let Self { rates, seed, make_error, is_allowed_in_release } = self;
        if is_release && !is_allowed_in_release {
            return Err(FaultsError::new(
                "`FaultsLayer` is for tests: in a release it needs `allow_in_release(true)`",
            ));
        }
        let status = rates.check()?;
        let (requests, injected) = Default::default();
        Ok(FaultsLayer { plan: Arc::new(Plan { rates, status, seed, make_error, requests, injected }) })
    }
}

impl Rates {
    /// Returns the status, if all of them can work.
    fn check(&self) -> Result<StatusCode, FaultsError> {
        let Self { status, code, error, delay, delays, hang, cut } = self;
        let rates = [
            ("error_status", status),
            ("service_error", error),
            ("delay", delay),
            ("hang", hang),
            ("cut_body", cut),
        ];
        for (name, rate) in rates {
            if !(0.0..=1.0).contains(rate) {
                return Err(FaultsError(format!("the rate of `{name}` is from 0 to 1, and not {rate}")));
            }
        }
        if rates.iter().all(|(_, rate)| **rate == 0.0) {
            return Err(FaultsError::new("all rates are 0: no fault would ever happen"));
        }
        if delays.as_ref().is_some_and(RangeInclusive::is_empty) {
            return Err(FaultsError::new("the range of `delay` is empty"));
        }
        let is_error = *status == 0.0 || (400..600).contains(code);
        let code = StatusCode::from_u16(*code).ok().filter(|_| is_error);
        match code.or((*status == 0.0).then_some(StatusCode::INTERNAL_SERVER_ERROR)) {
            Some(code) => Ok(code),
            None => Err(FaultsError(format!("`error_status` is from 400 to 599, and not {}", self.code))),
        }
    }
}

impl FaultsError {
    fn new(message: &str) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for FaultsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FaultsError {}

impl<S, E> Layer<S> for FaultsLayer<E> {
    type Service = Faults<S, E>;

    fn layer(&self, inner: S) -> Faults<S, E> {
        Faults::new(inner, Arc::clone(&self.plan))
    }
}

impl<E> Clone for FaultsLayer<E> {
    fn clone(&self) -> Self {
        Self { plan: Arc::clone(&self.plan) }
    }
}

impl<E> fmt::Debug for FaultsLayer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)
    }
}

impl<E> fmt::Debug for Plan<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("seed", &self.seed).field("rates", &self.rates).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::FaultsLayer;

    #[test]
    fn a_release_has_faults_only_where_they_are_allowed() {
        let faults = || FaultsLayer::seeded(1).hang(0.5);
        let refusal = faults().build_for(true).map(drop).unwrap_err();
        let why = "`FaultsLayer` is for tests: in a release it needs `allow_in_release(true)`";
        assert_eq!(refusal.to_string(), why);
        assert!(faults().allow_in_release(true).build_for(true).is_ok());
        assert!(faults().build_for(false).is_ok());
    }
}
