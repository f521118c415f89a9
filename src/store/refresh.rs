use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::store::StoredResponse;

/// When the next background refresh of a stored response may begin, in nanoseconds after the
/// response came in.
#[derive(Debug, Default)]
pub(super) struct RefreshLease(AtomicU64);

/// One background refresh of a stored response, and the right to do it.
///
/// While it lives, no other refresh of the response begins. When it is dropped, the next one may begin after
/// a pause; a refresh that succeeded has replaced the response anyway. One that outlives its deadline has
/// lost the right.
#[derive(Debug)]
pub(crate) struct Refresh {
    response: Arc<StoredResponse>,
    pause: Duration,
    /// What the lease says for as long as this has the right.
    until: u64,
}

impl Refresh {
    /// Takes the right to refresh for at most `deadline`, unless it is taken.
    pub(crate) fn claim(
        response: &Arc<StoredResponse>,
        now: Instant,
        deadline: Duration,
        pause: Duration,
    ) -> Option<Self> {
        let lease = &response.refresh_lease().0;
        let due = lease.load(Ordering::Acquire);
        if nanos(response, now) < due {
            return None;
        }
        let until = nanos(response, now).saturating_add(nanos_of(deadline));
        // With a deadline of zero each request would take the right.
        let until = until.max(due.saturating_add(1));
        let claimed = lease.compare_exchange(due, until, Ordering::AcqRel, Ordering::Acquire);
        claimed.is_ok().then(|| Self { response: Arc::clone(response), pause, until })
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        let next = nanos(&self.response, Instant::now()).saturating_add(nanos_of(self.pause));
        let lease = &self.response.refresh_lease().0;
        _ = lease.compare_exchange(self.until, next, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn nanos(response: &StoredResponse, now: Instant) -> u64 {
    nanos_of(now.saturating_duration_since(response.received_at()))
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
