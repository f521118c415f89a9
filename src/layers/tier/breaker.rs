//! Whether a remote is asked at all: after failures in a row it is not, for some time.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::observe::BreakerState;

const FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

const CLOSED: u64 = 0;
const PROBING: u64 = u64::MAX;

/// Opens after five failures in a row, for two seconds. Then one call finds out whether the remote is back; each
/// one that fails doubles the pause, up to 30 seconds.
///
/// A call that asks costs one atomic load while it is closed or open.
#[derive(Debug)]
pub(super) struct Breaker {
    /// [`CLOSED`], [`PROBING`], or until when it is open, in milliseconds since `made_at`, and one more.
    state: AtomicU64,
    failures: AtomicU32,
    pause_ms: AtomicU64,
    made_at: Instant,
}

/// The right to one call. Dropped without a word on how the call ended, it says nothing.
#[derive(Debug)]
pub(super) struct Call<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    is_told: bool,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU64::new(CLOSED),
            failures: AtomicU32::new(0),
            pause_ms: AtomicU64::new(0),
            made_at: Instant::now(),
        }
    }

    /// `None`: the remote is not to be asked.
    pub(super) fn call(&self) -> Option<Call<'_>> {
        let state = self.state.load(Ordering::Acquire);
        let is_probe = match state {
            CLOSED => false,
            PROBING => return None,
            until if self.now() < until => return None,
            until => {
                let begun =
                    self.state.compare_exchange(until, PROBING, Ordering::AcqRel, Ordering::Relaxed).is_ok();
                begun.then_some(true)?
            }
        };
        Some(Call { breaker: self, is_probe, is_told: false })
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => BreakerState::Closed,
            PROBING => BreakerState::Probing,
            _ => BreakerState::Open,
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
    }

    fn open(&self) {
        let (first, longest) = (FIRST_PAUSE.as_millis() as u64, LONGEST_PAUSE.as_millis() as u64);
        let pause = self.pause_ms.load(Ordering::Relaxed).saturating_mul(2).clamp(first, longest);
        self.pause_ms.store(pause, Ordering::Relaxed);
        self.open_until(self.now().saturating_add(pause));
    }

    fn open_until(&self, until: u64) {
        self.state.store(until.min(PROBING - 1), Ordering::Release);
    }
}

impl Call<'_> {
    pub(super) fn succeeded(mut self) {
        self.is_told = true;
        self.breaker.failures.store(0, Ordering::Relaxed);
        if self.is_probe {
            self.breaker.pause_ms.store(0, Ordering::Relaxed);
            self.breaker.state.store(CLOSED, Ordering::Release);
        }
    }

    pub(super) fn failed(mut self) {
        self.is_told = true;
        if self.is_probe {
            return self.breaker.open();
        }
        let failures = self.breaker.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures >= FAILURES && self.breaker.state.load(Ordering::Relaxed) == CLOSED {
            self.breaker.open();
        }
    }
}

impl Drop for Call<'_> {
    /// The next call is the probe.
    fn drop(&mut self) {
        if self.is_probe && !self.is_told {
            self.breaker.open_until(self.breaker.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(breaker: &Breaker, times: usize) {
        (0..times).for_each(|_| breaker.call().unwrap().failed());
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_five_failures_in_a_row() {
        let breaker = Breaker::new();
        fail(&breaker, 4);
        breaker.call().unwrap().succeeded();
        fail(&breaker, 4);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1);
        assert!(breaker.call().is_none());
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_goes_out_after_each_pause_and_pauses_double_up_to_a_bound() {
        let breaker = Breaker::new();
        fail(&breaker, 5);
        for pause in [2, 4, 8, 16, 30, 30] {
            advance(SECOND * pause - Duration::from_millis(1)).await;
            assert!(breaker.call().is_none(), "{pause}");
            advance(Duration::from_millis(1)).await;
            let probe = breaker.call().unwrap();
            assert!(breaker.call().is_none(), "one at a time");
            probe.failed();
        }
        advance(SECOND * 30).await;
        breaker.call().unwrap().succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 5);
        advance(SECOND * 2).await;
        assert!(breaker.call().is_some(), "the pauses begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_leaves_the_probe_to_the_next_call() {
        let breaker = Breaker::new();
        fail(&breaker, 5);
        advance(SECOND * 2).await;
        drop(breaker.call().unwrap());
        assert!(breaker.call().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_fail_late_do_not_lengthen_the_pause() {
        let breaker = Breaker::new();
        let late: Vec<_> = (0..9).map(|_| breaker.call().unwrap()).collect();
        late.into_iter().for_each(Call::failed);
        advance(SECOND * 2).await;
        assert!(breaker.call().is_some());
    }
}
