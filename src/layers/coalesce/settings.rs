//! What a [`CoalesceLayer`](super::CoalesceLayer) is set to.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    build_error::BuildError,
    exchange::{Observers, failures::FailurePolicy},
    executor::Executor,
    http::rules::Rules,
    key::{DefaultKey, KeyExtractor},
};

/// Plain data: the builder of the layer sets it, and the other files read it.
#[derive(Clone, Debug)]
pub(super) struct CoalesceSettings {
    pub(super) max_flights: usize,
    pub(super) max_waiters: usize,
    pub(super) max_wait: Duration,
    pub(super) max_flight_age: Duration,
    pub(super) max_held_bytes: usize,
    pub(super) max_total_bytes: u64,
    pub(super) max_read_pause: Duration,
    pub(super) wait_at_most: Option<Duration>,
    pub(super) abandoned_deadline: Duration,
    /// `None`: the layers below decide which requests may share a response.
    pub(super) rules: Option<Rules>,
    pub(super) failures: FailurePolicy,
    pub(super) executor: Executor,
    /// For requests that have no key from a layer above.
    pub(super) extractor: SharedExtractor,
    pub(super) observers: Observers,
}

#[derive(Clone)]
pub(super) struct SharedExtractor(Arc<dyn KeyExtractor>);

impl SharedExtractor {
    pub(super) fn new(extractor: impl KeyExtractor) -> Self {
        Self(Arc::new(extractor))
    }

    pub(super) fn get(&self) -> &dyn KeyExtractor {
        &*self.0
    }
}

impl fmt::Debug for SharedExtractor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedExtractor").finish_non_exhaustive()
    }
}

impl Default for CoalesceSettings {
    fn default() -> Self {
        Self {
            max_flights: 1 << 14,
            max_waiters: 1 << 17,
            max_wait: Duration::from_secs(30),
            max_flight_age: Duration::from_secs(60),
            max_held_bytes: 4 << 20,
            max_total_bytes: 64 << 20,
            max_read_pause: Duration::from_secs(60),
            wait_at_most: None,
            abandoned_deadline: Duration::from_secs(30),
            rules: Some(Rules::new()),
            failures: FailurePolicy::default(),
            executor: Executor::default(),
            extractor: SharedExtractor::new(DefaultKey::new()),
            observers: Observers::NONE,
        }
    }
}

impl CoalesceSettings {
    /// How many subscribers a flight may have, its leader included.
    pub(super) fn max_subscribers(&self) -> usize {
        self.max_waiters.saturating_add(1)
    }

    /// Refuses what leaves the layer without effect.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        for (setting, value, consequence) in [
            ("max_wait", Some(self.max_wait), "no caller relies on the fetch of another"),
            ("max_flight_age", Some(self.max_flight_age), "no caller can join a fetch"),
            ("wait_at_most", self.wait_at_most, "no caller waits for a response that takes any time"),
            ("max_read_pause", Some(self.max_read_pause), "every body too large to hold is broken off"),
        ] {
            if value.is_some_and(|value| value.is_zero()) {
                return Err(BuildError::ZeroDuration { setting, consequence });
            }
        }
        for (setting, value, consequence) in [
            ("max_flights", self.max_flights, "no fetch can be shared"),
            ("max_waiters", self.max_waiters, "no fetch can be shared"),
            ("max_held_bytes", self.max_held_bytes, "no body can be shared"),
        ] {
            if value == 0 {
                return Err(BuildError::ZeroLimit { setting, consequence });
            }
        }
        if self.max_total_bytes < self.max_held_bytes as u64 {
            let reason = "no body as large as `max_held_bytes` fits; raise the one or lower the other";
            return Err(BuildError::NoEffect { setting: "CoalesceLayer::max_total_bytes", reason });
        }
        Ok(())
    }
}
