//! What a [`CoalesceLayer`](super::CoalesceLayer) is set to.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    build_error::BuildError,
    exchange::{Observers, failures::FailurePolicy},
    executor::Executor,
    http::rules::Rules,
    key::{DefaultKey, KeyExtractor},
    origin::Priority,
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
    pub(super) stale_after: Option<Duration>,
    pub(super) wait_at_most: Option<Duration>,
    pub(super) fetch_deadline: Option<Duration>,
    pub(super) abandoned_deadline: Duration,
    /// `None`: fetches do not wait for the origin in a queue.
    pub(super) priority: Option<Priority>,
    /// `None`: the layers below decide which requests may share a response.
    pub(super) rules: Option<Rules>,
    pub(super) failures: FailurePolicy,
    pub(super) executor: Executor,
    /// For requests that have no key from a layer above.
    pub(super) extractor: SharedExtractor,
    pub(super) observers: Observers,
    /// Whether the span of a fetch has the query of its URL.
    pub(super) traces_queries: bool,
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
            stale_after: None,
            wait_at_most: None,
            fetch_deadline: None,
            abandoned_deadline: Duration::from_secs(30),
            priority: None,
            rules: Some(Rules::new()),
            failures: FailurePolicy::default(),
            executor: Executor::default(),
            extractor: SharedExtractor::new(DefaultKey::new()),
            observers: Observers::NONE,
            traces_queries: false,
        }
    }
}

impl CoalesceSettings {
    /// How many subscribers a flight may have, its leader included.
    pub(super) fn max_subscribers(&self) -> usize {
        self.max_waiters.saturating_add(1)
    }

    /// Refuses limits of which a later one comes too soon to have an effect.
    fn check_order(&self) -> Result<(), BuildError> {
        let Self { stale_after, wait_at_most, fetch_deadline, max_wait, .. } = *self;
        let is_too_late = |soft: Option<Duration>, hard: Option<Duration>| {
            soft.zip(hard).is_some_and(|(soft, hard)| soft >= hard)
        };
        let (setting, reason) = if is_too_late(stale_after, wait_at_most.or(fetch_deadline)) {
            (
                "stale_after",
                "no caller waits so long; make it shorter than `wait_at_most` and `fetch_deadline`",
            )
        } else if is_too_late(stale_after, Some(max_wait)) {
            ("stale_after", "callers wait for `max_wait` at most; make it shorter than that")
        } else if wait_at_most.zip(fetch_deadline).is_some_and(|(wait, deadline)| wait > deadline) {
            ("wait_at_most", "the fetch ends before; make it no longer than `fetch_deadline`")
        } else {
            return Ok(());
        };
        Err(BuildError::NoEffect { setting, reason })
    }

    /// Refuses what leaves the layer without effect.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        for (setting, value, consequence) in [
            ("max_wait", Some(self.max_wait), "no caller relies on the fetch of another"),
            ("max_flight_age", Some(self.max_flight_age), "no caller can join a fetch"),
            ("stale_after", self.stale_after, "no caller waits at all where a stale response can be served"),
            ("wait_at_most", self.wait_at_most, "no caller waits for a response that takes any time"),
            ("fetch_deadline", self.fetch_deadline, "no fetch that takes any time succeeds"),
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
        self.check_order()?;
        if self.max_total_bytes < self.max_held_bytes as u64 {
            let reason = "no body as large as `max_held_bytes` fits; raise the one or lower the other";
            return Err(BuildError::NoEffect { setting: "CoalesceLayer::max_total_bytes", reason });
        }
        Ok(())
    }
}
