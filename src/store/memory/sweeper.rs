//! The background task that gives back what has expired.

use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use crate::store::memory::Inner;

/// Entries that are given back before other tasks get a turn.
const BATCH: usize = 256;

/// Keys that are looked at, whether what is stored there is purged, before others get a turn and a
/// pause. Some hundred microseconds.
const PURGE_BATCH: usize = 512;
const PURGE_PAUSE: Duration = Duration::from_millis(1);

/// Waking up more often than this is not worth it.
const PAUSE: Duration = Duration::from_millis(100);

/// The task, or that there is none yet.
#[derive(Debug)]
pub(super) struct Sweeper {
    is_running: AtomicBool,
    /// When the task will wake up by itself.
    wakes_at: Mutex<Option<Instant>>,
    wake: Notify,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self { is_running: AtomicBool::new(false), wakes_at: Mutex::new(None), wake: Notify::new() }
    }
}

impl Sweeper {
    /// Starts the task unless it runs.
    pub(super) fn ensure(store: &Arc<Inner>, runtime: &Handle) {
        let is_running = &store.sweeper.is_running;
        if is_running.load(Ordering::Relaxed) || is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = Running(Arc::clone(&store.sweeper));
        runtime.spawn(Self::run(Arc::downgrade(store), running));
    }

    /// Holds the store only while it sweeps, and sleeps until the next entry is due or something
    /// is purged.
    async fn run(store: Weak<Inner>, running: Running) {
        let sweeper = &*running.0;
        loop {
            // From here on whoever inserts wakes us, so that nothing slips in between.
            *sweeper.wakes_at.lock() = None;
            let Some(inner) = store.upgrade() else { return };
            let next = Self::step(&inner);
            let sequence = Arc::clone(&inner.sequence);
            drop(inner);
            *sweeper.wakes_at.lock() = next;
            let woken = async {
                futures_util::future::select(pin!(sweeper.wake.notified()), pin!(sequence.next_purge()))
                    .await;
            };
            match next {
                Some(at) if at <= Instant::now() => tokio::task::yield_now().await,
                Some(at) => _ = tokio::time::timeout_at(at, woken).await,
                None => woken.await,
            }
        }
    }

    /// Returns when the next one is due.
    fn step(store: &Inner) -> Option<Instant> {
        let now = Instant::now();
        if store.sweep(now, BATCH) {
            return Some(now);
        }
        let expiry = store.expiry.next().map(|at| at.max(now + PAUSE));
        let pause = if store.sequence.purges().is_crowded() { Duration::ZERO } else { PURGE_PAUSE };
        let purge = store.sweep_purged(now, PURGE_BATCH).map(|at| at.max(now + pause));
        expiry.into_iter().chain(purge).min()
    }

    /// Lets the task see that its store is gone.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Wakes the task if it would sleep past this time.
    pub(super) fn wake_before(&self, at: Instant) {
        if self.wakes_at.lock().is_none_or(|planned| at + PAUSE < planned) {
            self.wake.notify_one();
        }
    }
}

/// Lets another task take over when this one ends, be it with its runtime.
struct Running(Arc<Sweeper>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Release);
    }
}
