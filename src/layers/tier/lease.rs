//! The right to be the one node that fetches, where nodes take turns.
//!
//! Nothing depends on it: a lease that ends too soon costs a second fetch, and one that is not given back a wait.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::handle::{Shared, until};

/// So long a node that fetches keeps others from it: after that it may have died.
const LIFETIME: Duration = Duration::from_secs(10);

/// A remote has a bound of its own for each call. This one is for those that have not.
const BOUND: Duration = Duration::from_secs(1);

/// How long a node waits between two looks at what another one fetches: at first, and twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// How long a node waits for another one at most.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Given back when it is dropped.
pub(super) struct Lease {
    key: Vec<u8>,
    token: u64,
    tier: Weak<Shared>,
}

/// What came of asking for a lease.
pub(super) enum Turn {
    /// This node fetches. Without a lease where the remote gives none.
    Own(Option<Lease>),
    /// Another node fetches.
    Other,
}

impl Shared {
    /// Asks for the lease under this key.
    pub(super) async fn take_turn(self: &Arc<Self>, key: &[u8]) -> Turn {
        let Some(breaker) = self.writing.call() else { return Turn::Own(None) };
        let token = fastrand::u64(..);
        // Before it is asked: it may be given, and the answer lost.
        let lease = Lease { key: key.to_vec(), token, tier: Arc::downgrade(self) };
        let answer = until(Instant::now() + BOUND, async { self.remote.lease(key, token, LIFETIME).await });
        match answer.await {
            Ok(true) => {
                breaker.succeeded();
                Turn::Own(Some(lease))
            }
            Ok(false) => {
                breaker.succeeded();
                lease.forget();
                Turn::Other
            }
            Err(_) => {
                breaker.failed();
                Turn::Own(None)
            }
        }
    }

    /// Gives a lease back, in the background.
    fn release(self: &Arc<Self>, key: Vec<u8>, token: u64) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let tier = Arc::clone(self);
        runtime.spawn(async move {
            // Else it ends by itself.
            _ = until(Instant::now() + BOUND, async { tier.remote.release(&key, token).await }).await;
        });
    }
}

impl Lease {
    /// It was not given.
    fn forget(mut self) {
        self.tier = Weak::new();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(tier) = self.tier.upgrade() {
            tier.release(std::mem::take(&mut self.key), self.token);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

/// The pauses between looks.
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    /// Up to half of it longer or shorter, so that nodes do not ask at the same time.
    pub(super) fn next(&mut self, random: f64) -> Duration {
        let pause = self.0.mul_f64(0.5 + random);
        self.0 = self.0.saturating_mul(2).min(PATIENCE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double() {
        let pauses = |random| {
            let mut pauses = Pauses::new();
            [(); 4].map(|()| pauses.next(random).as_millis())
        };
        assert_eq!(pauses(0.5), [25, 50, 100, 200]);
        assert_eq!(pauses(0.0), [12, 25, 50, 100]);
    }
}
