//! A gate at which calls of the origin wait, in place of sleeps.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

/// How long, by tokio's clock, a test waits for calls to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Holds the calls of a [`ScriptedOrigin`](super::ScriptedOrigin) until it is opened; see
/// [`hold`](super::ScriptedOrigin::hold). Opens when it is dropped.
pub struct Gate(Arc<Barrier>);

/// What the origin has of a [`Gate`].
pub(super) struct Barrier {
    /// Closed once the gate is open.
    passes: Semaphore,
    waiting: watch::Sender<usize>,
}

impl Gate {
    pub(super) fn new() -> (Self, Arc<Barrier>) {
        let barrier = Arc::new(Barrier { passes: Semaphore::new(0), waiting: watch::Sender::new(0) });
        (Self(Arc::clone(&barrier)), barrier)
    }

    /// Returns once at least this many calls wait at the gate. A call whose future is dropped waits no longer.
    ///
    /// # Panics
    ///
    /// If they do not arrive within a minute of tokio's clock, which passes at once if it is paused and nothing
    /// else can run.
    pub async fn waiting(&self, calls: usize) {
        let mut waiting = self.0.waiting.subscribe();
        let have_arrived = timeout(PATIENCE, waiting.wait_for(|there| *there >= calls)).await.is_ok();
        let there = self.calls_waiting();
        assert!(have_arrived, "{calls} calls were to wait at the gate within a minute, and {there} do");
    }

    /// Returns how many calls wait at the gate now.
    pub fn calls_waiting(&self) -> usize {
        *self.0.waiting.borrow()
    }

    /// Lets this many calls pass, those that have waited longest first, and keeps the others.
    pub fn pass(&self, calls: usize) {
        self.0.passes.add_permits(calls);
    }

    /// Lets all calls pass, from now on without a wait.
    pub fn open(&self) {
        self.0.passes.close();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = self.0.is_open();
        f.debug_struct("Gate").field("is_open", &is_open).field("waiting", &self.calls_waiting()).finish()
    }
}

impl Barrier {
    pub(super) fn is_open(&self) -> bool {
        self.passes.is_closed()
    }

    /// Returns once the call may pass.
    pub(super) async fn wait(self: Arc<Self>) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _here = Waiting(&self.waiting);
        if let Ok(pass) = self.passes.acquire().await {
            pass.forget();
        }
    }
}

struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}
