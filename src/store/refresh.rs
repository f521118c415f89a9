//! When a stale response may be fetched again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{origin::KeyPause, store::StoredResponse};

/// When the next fetch for a stored response may begin, and how many have failed in a row: a [`Lease`].
#[derive(Debug, Default)]
pub(super) struct RefreshLease(AtomicU64);

/// The nanoseconds after which the next fetch may begin, counted from when the response came in, in units of
/// 64; whether a refresh has the lease until then; and how many fetches have failed in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease(u64);

const FAILURES: u64 = (1 << 5) - 1;
const IS_CLAIMED: u64 = 1 << 5;
const DUE: u64 = !(FAILURES | IS_CLAIMED);

impl Lease {
    /// Rounded up to the next unit, so that a pause is never too short.
    fn new(due: Duration, is_claimed: bool, failures: u32) -> Self {
        let nanos = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX).saturating_add(!DUE) & DUE;
        let claimed = if is_claimed { IS_CLAIMED } else { 0 };
        Self(nanos | claimed | u64::from(failures).min(FAILURES))
    }

    const fn due(self) -> Duration {
        Duration::from_nanos(self.0 & DUE)
    }

    const fn is_claimed(self) -> bool {
        self.0 & IS_CLAIMED != 0
    }

    const fn failures(self) -> u32 {
        (self.0 & FAILURES) as u32
    }

    /// Whether a fetch has failed, and the pause after it is not over.
    fn is_pause(self, now: Duration) -> bool {
        !self.is_claimed() && now < self.due()
    }
}

impl RefreshLease {
    fn read(&self) -> Lease {
        Lease(self.0.load(Ordering::Acquire))
    }

    /// Replaces a lease that is still the current one.
    fn replace(&self, current: Lease, new: Lease) -> bool {
        self.0.compare_exchange(current.0, new.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// What earlier fetches for a stored response came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastFetch {
    /// It has brought the response, or nothing better.
    Succeeded,
    /// It has failed, and the pause is over.
    Failed,
    /// It has failed, and the next one may not begin yet.
    Paused,
}

impl LastFetch {
    pub(crate) fn of(response: &StoredResponse, now: Instant) -> Self {
        let lease = response.refresh_lease().read();
        match lease.failures() {
            0 => Self::Succeeded,
            _ if lease.is_pause(since(response, now)) => Self::Paused,
            _ => Self::Failed,
        }
    }
}

/// Notes that a fetch for a response has failed: the next one may begin after `pause`, or after what the origin asked
/// for. Of several that fail within a pause the first one counts.
pub(crate) fn note_failed_fetch(
    response: &StoredResponse,
    now: Instant,
    pause: &KeyPause,
    asked_for: Option<Duration>,
) {
    let (lease, now) = (response.refresh_lease(), since(response, now));
    let current = lease.read();
    if current.failures() > 0 && current.is_pause(now) {
        return;
    }
    let failures = current.failures().saturating_add(1);
    let wait = pause.wait(failures, asked_for);
    // Else another fetch has failed meanwhile, or a refresh has begun.
    lease.replace(current, Lease::new(now.saturating_add(wait), false, failures));
}

/// One background refresh of a stored response, and the right to do it.
///
/// While it lives, no other refresh of the response begins. When it is dropped, the next one may begin after
/// a pause; a refresh that succeeded has replaced the response anyway. One that outlives its deadline has
/// lost the right, and has failed.
#[derive(Debug)]
pub(crate) struct Refresh {
    response: Arc<StoredResponse>,
    pause: KeyPause,
    /// What the lease says for as long as this has the right.
    held: Lease,
    has_response: bool,
}

impl Refresh {
    /// Takes the right to refresh for at most `deadline`, unless it is taken, or the pause after a failure is
    /// not over. `is_probe`: in any case. Who has had the right goes on without it.
    pub(crate) fn claim(
        response: &Arc<StoredResponse>,
        now: Instant,
        deadline: Duration,
        pause: &KeyPause,
        is_probe: bool,
    ) -> Option<Self> {
        let (lease, now) = (response.refresh_lease(), since(response, now));
        let current = lease.read();
        if now < current.due() && !is_probe {
            return None;
        }
        let held = Lease::new(now.saturating_add(deadline), true, current.failures());
        // With a deadline of zero each request would take the right; and a right that is taken over must be another.
        let held =
            if held == current { Lease(held.0.saturating_add(DUE & DUE.wrapping_neg())) } else { held };
        let claimed = lease.replace(current, held);
        claimed.then(|| Self {
            response: Arc::clone(response),
            pause: pause.clone(),
            held,
            has_response: false,
        })
    }
}

impl Refresh {
    /// Notes that the origin has responded. If that was a failure, the lease says so already.
    pub(crate) fn note_response(&mut self) {
        self.has_response = true;
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        let now = since(&self.response, Instant::now());
        let failures = self.held.failures();
        let (pause, failures) = match (self.has_response, now < self.held.due()) {
            // It brought nothing to store.
            (true, _) => (self.pause.min(), 0),
            // It was refused, or not made.
            (false, true) => (self.pause.min(), failures),
            (false, false) => (self.pause.wait(failures.saturating_add(1), None), failures.saturating_add(1)),
        };
        let next = Lease::new(now.saturating_add(pause), false, failures);
        _ = self.response.refresh_lease().replace(self.held, next);
    }
}

fn since(response: &StoredResponse, now: Instant) -> Duration {
    now.saturating_duration_since(response.received_at())
}
