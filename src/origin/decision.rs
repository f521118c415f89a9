//! What the [core](super::core) has decided, for the gate to act on.

use super::{core::Ticket, wish::Refusal};

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
