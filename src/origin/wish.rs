//! What an attempt asks for, and why it does not begin.

use std::time::Duration;

use tokio::time::Instant;

use super::health::Subject;

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
