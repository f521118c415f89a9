//! Asks an origin that is down at an interval whether it is back.
//!
//! The layers find that out by requests that are made anyway, as soon as one can carry it. A [`Probe`] asks
//! with a request of its own, so that it is noticed without traffic as well, and where nothing is stored that
//! could be served meanwhile. It tells what it finds to an [`OriginHealth`](crate::OriginHealth): a success begins
//! the recovery.
//!
//! ```
//! use std::time::Duration;
//! use http::Request;
//! use tower_readthrough::{OriginHealth, probe::Probe};
//! # use std::convert::Infallible;
//! # use bytes::Bytes;
//! # use http::Response;
//! # use http_body_util::Full;
//! # use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! # let client = service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
//! let health = OriginHealth::new();
//! let request = Request::get("http://127.0.0.1:9000/healthz").body(()).unwrap();
//! let probe = Probe::new(health.clone(), request).every(Duration::from_secs(5));
//! // For as long as the program runs.
//! let task = tokio::spawn(probe.run(client));
//! # tokio::time::sleep(Duration::from_secs(12)).await;
//! # assert_eq!(health.state().as_str(), "up");
//! # task.abort();
//! # }
//! ```

use std::time::Duration;

use http::{Request, Response};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tower::{Service, ServiceExt};

use crate::{
    exchange::{
        failures::{FailurePolicy, Failures},
        head_of,
    },
    origin::{OriginHealth, OriginState},
};

/// The shortest interval, and the shortest time for an answer.
const LEAST: Duration = Duration::from_millis(1);

/// Asks an origin that is down at an interval whether it is back; see the [module](self).
#[derive(Debug)]
pub struct Probe {
    health: OriginHealth,
    request: Request<()>,
    every: Duration,
    timeout: Duration,
    failures: FailurePolicy,
}

impl Probe {
    /// Tells this health what becomes of this request. Of a health of several
    /// [origins](crate::OriginHealthBuilder::origin) the one that the request is for.
    pub fn new(health: OriginHealth, request: Request<()>) -> Self {
        let (every, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
        Self { health, request, every, timeout, failures: FailurePolicy::default() }
    }

    /// How much time passes from one probe to the next while the origin is down. Default: five seconds. At least a millisecond: less
    /// counts as that.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { every: interval.max(LEAST), ..self }
    }

    /// How long the head of a response may take. Default: two seconds. At least a millisecond: less counts as
    /// that.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.max(LEAST), ..self }
    }

    /// Which responses are failures. Default: [`DefaultFailures`](crate::DefaultFailures). Errors of the service,
    /// and no response in time, are failures in any case.
    #[must_use]
    pub fn failures(self, failures: impl Failures) -> Self {
        Self { failures: FailurePolicy::new(failures), ..self }
    }

    /// Asks this service, the client of the origin, whenever an interval is over and the origin is down. Never
    /// returns: spawn it, and abort the task to stop.
    ///
    /// The service is asked directly, without the layers of this crate. A probe that takes longer than the
    /// interval delays the next one.
    pub async fn run<S, ReqB, B>(self, service: S)
    where
        S: Service<Request<ReqB>, Response = Response<B>> + Clone,
        ReqB: Default,
    {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (head, ()) = head_of(&self.request).into_parts();
        loop {
            ticks.tick().await;
            if self.health.gate(&head).state(Instant::now()) != OriginState::Down {
                continue;
            }
            let request = head_of(&self.request).map(|()| ReqB::default());
            let answer = timeout(self.timeout, service.clone().oneshot(request)).await;
            let is_success = matches!(answer, Ok(Ok(response)) if !self.failures.has_failed(&response));
            self.health.gate(&head).probed(is_success, Instant::now());
        }
    }
}
