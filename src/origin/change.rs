//! What is told of an origin: that an outage begins, and that it is over.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::OriginState;
use crate::trace;

/// An origin is no longer up, or up again: what [`on_change`](super::OriginHealthBuilder::on_change) is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OriginChange {
    /// The name of the origin, as [`states`](super::OriginHealth::states) has it.
    pub origin: Box<str>,
    /// The state that it is in now: [`Down`](OriginState::Down) or [`Up`](OriginState::Up).
    pub state: OriginState,
    /// How long it was not up. Zero when an outage begins.
    pub lasted: Duration,
    /// How often it began to recover meanwhile, and went down again. 0 when an outage begins, and after one that
    /// ended with the first recovery.
    pub relapses: u32,
}

/// A change of a state, as of the origin that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Down,
    UpAgain { lasted: Duration, relapses: u32 },
}

impl News {
    /// Says so in an event.
    pub(super) fn trace(self) {
        match self {
            Self::Down => trace::outage_began(),
            Self::UpAgain { lasted, relapses } => trace::outage_ended(lasted, relapses),
        }
    }
}

type Call = dyn Fn(&OriginChange) + Send + Sync;

/// What is told of one origin.
#[derive(Clone)]
pub(super) struct Listener {
    origin: Box<str>,
    call: Arc<Call>,
}

/// What is told of all origins of a health.
#[derive(Clone)]
pub(super) struct OnChange(Arc<Call>);

impl OnChange {
    pub(super) fn new(call: impl Fn(&OriginChange) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(super) fn of(&self, origin: &str) -> Listener {
        Listener { origin: origin.into(), call: Arc::clone(&self.0) }
    }
}

impl Listener {
    pub(super) fn tell(&self, news: News) {
        let (state, lasted, relapses) = match news {
            News::Down => (OriginState::Down, Duration::ZERO, 0),
            News::UpAgain { lasted, relapses } => (OriginState::Up, lasted, relapses),
        };
        let change = OriginChange { origin: self.origin.clone(), state, lasted, relapses };
        // Code of the application, which must not take a request down.
        _ = catch_unwind(AssertUnwindSafe(|| (self.call)(&change)));
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("origin", &self.origin).finish_non_exhaustive()
    }
}
