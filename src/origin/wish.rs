//! What an attempt asks for, and what the [core](super::core) decides about it.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use http::request::Parts;
use tokio::time::Instant;

use super::{core::Ticket, health::Subject};

/// What an attempt is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request of a client, or a refresh of something stale.
    #[default]
    Request,
    /// A refresh of something that is still fresh. It never waits.
    RefreshAhead,
    /// A fetch that no client has asked for. It never waits.
    WarmUp,
}

impl Kind {
    /// The part of the permits below which it begins. `None`: it needs a permit alone.
    pub(super) const fn part(self) -> Option<Part> {
        match self {
            Self::Request => None,
            Self::RefreshAhead => Some(Part::new(7, 8)),
            Self::WarmUp => Some(Part::new(1, 2)),
        }
    }
}

/// Why the origin is not asked although it might be: something stale can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldBack {
    Down,
    Recovering,
    /// It has sent 429.
    RateLimited,
}

/// Why an attempt does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no place for it, or a better one has taken its place.
    QueueFull,
    /// Its time in the queue was over.
    TooLate,
    /// It has something stale.
    HeldBack(HeldBack),
    /// It has nothing stored, and is not to wait. The next probe may begin after this time.
    Down { next_probe: Duration },
    /// It may not wait, and too many permits are in use.
    Busy,
}

/// What an attempt asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    pub(super) subject: Subject,
    pub(super) has_stale: bool,
    pub(super) kind: Kind,
    pub(super) leave_at: Option<Instant>,
    /// When the attempt is given up.
    pub(super) deadline: Option<Instant>,
    /// Whether it takes no permit and never waits.
    pub(super) is_exempt: bool,
}

impl Wish {
    /// Whether something can be served if the attempt is not made.
    pub(super) fn is_spare(&self) -> bool {
        self.has_stale || self.kind != Kind::Request
    }
}

/// A part of a whole: `take` of each `of`.
#[derive(Clone, Copy)]
pub(super) struct Part {
    take: usize,
    of: usize,
}

impl Part {
    pub(super) const fn new(take: usize, of: usize) -> Self {
        Self { take, of }
    }

    /// So much is this part of a whole, rounded down.
    pub(super) const fn of(self, whole: usize) -> usize {
        whole.saturating_mul(self.take) / self.of
    }

    /// Whether a number is less than this part of a whole.
    pub(super) const fn is_above(self, number: usize, whole: usize) -> bool {
        number.saturating_mul(self.of) < whole.saturating_mul(self.take)
    }

    /// Whether a number is at most this part of a whole.
    pub(super) const fn holds(self, number: usize, whole: usize) -> bool {
        number.saturating_mul(self.of) <= whole.saturating_mul(self.take)
    }
}

/// Of a request of which nothing is said.
pub(crate) const DEFAULT_CLASS: u8 = 3;
pub(crate) const LOWEST_CLASS: u8 = 7;

type Classify = dyn Fn(&Parts) -> u8 + Send + Sync;

/// Which class a request has, from 0, the best, to 7.
#[derive(Clone, Default)]
pub(crate) struct Priority(Option<Arc<Classify>>);

impl Priority {
    pub(crate) fn new(classify: impl Fn(&Parts) -> u8 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(classify)))
    }

    /// Whether it says anything.
    pub(crate) const fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// The class of a request. The lowest one if the code of the application panics, or says more than that.
    pub(crate) fn class(&self, head: &Parts) -> u8 {
        let Some(classify) = &self.0 else { return DEFAULT_CLASS };
        catch_unwind(AssertUnwindSafe(|| classify(head))).unwrap_or(LOWEST_CLASS).min(LOWEST_CLASS)
    }
}

impl fmt::Debug for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Priority(custom)" } else { "Priority(default)" })
    }
}

/// What becomes of an attempt that has come.
#[derive(Debug)]
pub(super) enum Decision {
    Grant(Ticket),
    Queue,
    Refuse(Refusal),
}

/// What was decided about an attempt that waited.
#[derive(Debug)]
pub(super) enum Decided<T> {
    Granted(T, Ticket),
    Refused(T, Refusal),
}

/// How the origin stands, in one number that can be read without the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be asked without a question.
    Open = 0,
    /// It is up, and a rate bounds what has something stale.
    Bounded = 1,
    Recovering = 2,
    Down = 3,
}
