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
/// While it lives nobody else refreshes the response. When it is dropped, for whatever reason,
/// the next refresh may begin after a pause; a refresh that succeeded has put another response
/// in this one's place anyway. One that outlives its deadline has lost the right.
#[derive(Debug)]
pub(crate) struct Refresh {
    response: Arc<StoredResponse>,
    pause: Duration,
    /// What the mark says for as long as the right is ours.
    until: u64,
}

impl Refresh {
    /// Takes the right to refresh for at most `deadline`, unless somebody has it already.
    pub(crate) fn claim(
        response: &Arc<StoredResponse>,
        now: Instant,
        deadline: Duration,
        pause: Duration,
    ) -> Option<Self> {
        let mark = &response.refresh_lease().0;
        let due = mark.load(Ordering::Acquire);
        if nanos(response, now) < due {
            return None;
        }
        let until = nanos(response, now).saturating_add(nanos_of(deadline));
        // A deadline of zero would give the right to everybody.
        let until = until.max(due.saturating_add(1));
        let claimed = mark.compare_exchange(due, until, Ordering::AcqRel, Ordering::Acquire);
        claimed.is_ok().then(|| Self { response: Arc::clone(response), pause, until })
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        let next = nanos(&self.response, Instant::now()).saturating_add(nanos_of(self.pause));
        let mark = &self.response.refresh_lease().0;
        _ = mark.compare_exchange(self.until, next, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn nanos(response: &StoredResponse, now: Instant) -> u64 {
    nanos_of(now.saturating_duration_since(response.received_at()))
}

fn nanos_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
