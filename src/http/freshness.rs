//! For how long a response may be used (RFC 9111 §4.2, RFC 5861).

use std::time::Duration;

use tokio::time::Instant;

use super::{cache_control::MAX_DELTA, credentials::Credentials};

/// For how long a response may be used, counted from when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Freshness {
    /// Which credentials a request may have to get the response. First in memory: every hit reads it.
    pub(crate) audience: Credentials,
    pub(crate) fresh_for: Duration,
    pub(crate) stale_while_revalidate_for: Duration,
    pub(crate) stale_if_error_for: Duration,
    /// How long it is kept only to be revalidated.
    pub(crate) revalidate_for: Duration,
    /// Whether the lifetime comes from the rules: then it starts with the request, however old the response
    /// was. One from the response's own dates, even a heuristic one, does not (RFC 9111 §4.2).
    pub(crate) is_ours: bool,
    /// Whether even a client that accepts stale responses gets none (§4.2.4).
    pub(crate) forbids_stale: bool,
}

impl Freshness {
    /// Of a response that must not be used again.
    pub(crate) const NONE: Self = Self {
        fresh_for: Duration::ZERO,
        stale_while_revalidate_for: Duration::ZERO,
        stale_if_error_for: Duration::ZERO,
        revalidate_for: Duration::ZERO,
        is_ours: false,
        forbids_stale: true,
        audience: Credentials { authorization: false, cookie: false, token: false },
    };

    /// When a window after the lifetime closes, of a response whose head came in then: so long after it was
    /// asked for (`delay`), and so old (`initial_age`).
    pub(crate) fn closes_at(
        &self,
        received_at: Instant,
        (delay, initial_age): (Duration, Duration),
        window: Duration,
    ) -> Instant {
        let age = if self.is_ours { delay } else { initial_age };
        after(received_at, self.fresh_for.saturating_add(window).saturating_sub(age))
    }
}

/// The point in time `duration` after `start`, at most [`MAX_DELTA`] after it.
pub(crate) fn after(start: Instant, duration: Duration) -> Instant {
    let duration = duration.min(MAX_DELTA);
    start.checked_add(duration).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_times_saturate() {
        let now = Instant::now();
        assert!(after(now, Duration::MAX) > now);
        assert_eq!(after(now, Duration::ZERO), now);
    }
}
