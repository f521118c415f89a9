//! The log of all nodes' purges, as one node follows it. Knows no server and no clock of its own: what is asked
//! and answered is handed in, so that any schedule can be played.
//!
//! # What it keeps
//!
//! * **A purge of another node is applied once**, in the order of the log, under a number of this node's own
//!   [`Sequence`](crate::Sequence).
//! * **An own purge is applied at once**, and keeps its number when it is read back. Until then it is sent
//!   again after each disconnection and each gap, under the same nonce: the server may have lost it. Those of
//!   the last minute are sent once more to a server that is another one.
//! * **The anchor** is the last entry that was applied, with its nonce. At each read the server says whether
//!   that very entry is still there. If not, or if the server is another one, or entries were deleted, purges
//!   may have been missed: a **gap**.
//! * **A gap** leaves all that is held unproven, twice: when it is noticed, and when the log has been read
//!   again from its beginning, since entries that came and went between the two were missed as well. Until the
//!   log was read to its end again the node is not caught up.
//! * **The first connection is a gap**, so that a node that has served before it reached the server is right.
//!
//! # What a snapshot has seen
//!
//! A node that writes a snapshot says up to which entry it had applied the log when its fetch
//! [began](Log::as_of). A node that reads it [translates](Log::begun) that entry into a number of its own
//! sequence: below the number of each purge that the writer may not have known, so that the sequence judges
//! the value as if it had been fetched here. Only an entry that is known exactly says anything.

mod lag;
mod outbox;
mod ring;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod variant_tests;

use std::sync::Arc;

use tokio::time::Instant;

pub(crate) use self::lag::Extent;
use self::{
    lag::Lag,
    outbox::{Added, Outbox},
    ring::{Numbers, Ring},
};
pub(crate) use self::{
    outbox::{Sending, Ticket},
    ring::Position,
};
use crate::{
    sequence::{Message, Strength},
    store::{AsOf, EntryId},
};

/// What the entries of the log are applied to.
pub(crate) trait Target {
    /// A purge that is ready to be applied: no code of the application runs under the lock of the log.
    type Purge;

    /// Purges, and returns the least number that it took.
    fn purge(&self, purge: &Self::Purge) -> u64;

    /// Leaves all that is held unproven, or what else a purge of that strength leaves of it.
    fn doubt(&self, strength: Strength);

    /// The number of the last fetch or purge.
    fn current(&self) -> u64;
}

/// An entry that was read.
#[derive(Clone, Debug)]
pub(crate) struct Entry<P> {
    pub(crate) position: Position,
    /// `None`: it is there to have something to hold on to.
    pub(crate) purge: Option<P>,
}

/// From where the log is read next, and whether the read may wait for a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) from: Option<Position>,
    pub(crate) may_wait: bool,
    /// Before anything of it was sent.
    pub(crate) asked_at: Instant,
}

impl Read {
    /// Up to where the others are told that the log is applied here: nothing before it was read to its end.
    pub(crate) fn reported(&self) -> Option<Position> {
        self.from.filter(|_| self.may_wait)
    }
}

/// What the server said to a [`Read`], all of it later than the read itself.
#[derive(Clone, Debug)]
pub(crate) struct Reply<P> {
    pub(crate) entries: Vec<Entry<P>>,
    /// Whether there may be more.
    pub(crate) is_full: bool,
    /// The nonce of the entry at the position that was read from.
    pub(crate) anchor: Option<u64>,
    /// The largest id that was deleted one by one.
    pub(crate) deleted: EntryId,
    /// A command failed, and not because the connection is gone.
    pub(crate) has_failed: bool,
    /// How much there is of the log, if the server says so.
    pub(crate) extent: Option<Extent>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Read,
    /// The log is empty: an entry is needed to hold on to.
    Mark,
}

/// Entries that are known, with their local numbers.
pub(crate) const RING: usize = 1 << 16;

/// Own purges that are not read back.
pub(crate) const OUTBOX: usize = 10_000;

/// The log, as one node follows it.
#[derive(Debug)]
pub(crate) struct Log {
    /// The run of the server from which the log was read.
    run: Option<u64>,
    position: Option<Position>,
    is_caught_up: bool,
    ring: Ring,
    numbers: Numbers,
    outbox: Outbox,
    /// Entries up to here may have been deleted before the log was read from its beginning.
    floor: EntryId,
    gaps: u64,
    lag: Lag,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::with_outbox(OUTBOX)
    }

    /// So many own purges may wait.
    fn with_outbox(most: usize) -> Self {
        Self {
            run: None,
            position: None,
            is_caught_up: false,
            ring: Ring::new(RING),
            // As many again: own purges, and what was applied before a gap.
            numbers: Numbers::new(2 * RING),
            outbox: Outbox::new(most),
            floor: EntryId::default(),
            gaps: 0,
            lag: Lag::default(),
        }
    }

    /// A connection is made to this run of the server; `None`: the server does not say which it is, and may be
    /// any.
    pub(crate) fn connected(&mut self, run: Option<u64>, now: Instant, target: &impl Target) {
        let is_new = run.is_none() || run != self.run;
        let is_first = self.run.is_none();
        // No other node can mean it.
        self.run = Some(run.unwrap_or_else(|| fastrand::u64(..)));
        if is_new {
            self.lose(target);
        }
        if is_new && !is_first {
            self.outbox.tell_again(now);
        }
    }

    /// The connection is lost. What was sent may not have arrived.
    pub(crate) fn disconnected(&mut self) {
        self.is_caught_up = false;
        self.lag.disconnected();
        self.send_again();
    }

    /// Purges may have been missed.
    fn lose(&mut self, target: &impl Target) {
        self.gaps += 1;
        self.lag.forget();
        target.doubt(Strength::Unproven);
        self.ring.clear();
        self.position = None;
        self.is_caught_up = false;
    }

    /// What was sent may not have arrived.
    pub(crate) fn send_again(&mut self) {
        self.outbox.send_again();
    }

    /// What is to be read next. The others are told before that, in the same write: what they log from then on is
    /// read.
    pub(crate) fn next_read(&self, now: Instant) -> Read {
        Read { from: self.position, may_wait: self.is_caught_up, asked_at: now }
    }

    /// The server has answered a read from `from`. Applies what is new.
    pub(crate) fn replied<T: Target>(
        &mut self,
        from: Option<Position>,
        reply: &Reply<T::Purge>,
        target: &T,
    ) -> Next {
        if from != self.position {
            return Next::Read;
        }
        match from {
            Some(position) if self.is_gap(position, reply) => {
                self.lose(target);
                return Next::Read;
            }
            Some(_) => {}
            None => {
                // What was logged and trimmed since the gap was noticed was missed as well.
                target.doubt(Strength::Unproven);
                self.floor = reply.deleted;
            }
        }
        for entry in &reply.entries {
            self.apply(entry, target);
        }
        match reply.extent {
            Some(extent) => {
                let up_to = self.position.map(|position| position.id);
                self.lag.applied(reply.entries.len(), up_to, extent, from.is_none());
            }
            None => self.lag.forget(),
        }
        if self.position.is_none() {
            return Next::Mark;
        }
        if !reply.is_full && !self.is_caught_up {
            self.is_caught_up = true;
            self.send_again();
        }
        Next::Read
    }

    /// By when the others were told that this node is there, if all that was logged by then is applied: the answer to
    /// this read was, and it was at the end of the log.
    pub(crate) fn heard_by<P>(&self, read: Read, reply: &Reply<P>) -> Option<Instant> {
        let is_at_end = self.is_caught_up && !reply.is_full;
        // To the others the silence begins when they were told, and not with the answer.
        is_at_end.then_some(read.asked_at)
    }

    /// Whether the anchor is gone, or entries were deleted that were not read.
    fn is_gap<P>(&self, position: Position, reply: &Reply<P>) -> bool {
        // What was deleted before the log was read from its beginning is known, and stays the largest for ever.
        let known = self.floor.max(position.id);
        reply.has_failed || reply.anchor != Some(position.nonce) || reply.deleted > known
    }

    fn apply<T: Target>(&mut self, Entry { position, purge }: &Entry<T::Purge>, target: &T) {
        let number = self.numbers.get(position.nonce).unwrap_or_else(|| {
            let number = purge.as_ref().map(|purge| target.purge(purge));
            self.numbers.note(position.nonce, number);
            number
        });
        self.outbox.read_back(*position);
        // Behind the purge: what begins with a larger number has seen it.
        self.ring.push(*position, number, target.current());
        self.position = Some(*position);
    }

    /// Purges here, and lets the others know. Nothing that begins meanwhile is between the two.
    pub(crate) fn issue(
        &mut self,
        message: &Message,
        is_invalidation: bool,
        now: Instant,
        purge: impl FnOnce() -> u64,
    ) -> (u64, Arc<Ticket>) {
        let (nonce, number) = (fastrand::u64(..), purge());
        let (added, ticket) = self.outbox.add(nonce, message, number, is_invalidation, now);
        match added {
            Added::New => self.numbers.note(nonce, Some(number)),
            Added::Merged => {}
            // Each of them was applied here.
            Added::Overflow => self.numbers.note(nonce, Some(self.outbox.least_number())),
        }
        (number, ticket)
    }

    /// The next own purge to be sent. Only where the log was read to its end.
    pub(crate) fn next_to_send(&mut self, now: Instant) -> Option<Sending> {
        self.is_caught_up.then(|| self.outbox.next(now))?
    }

    /// When the next own purge may be sent, if it has to wait for that moment alone.
    pub(crate) fn next_send_at(&self) -> Option<Instant> {
        // Nothing is sent before the log was read to its end.
        self.is_caught_up.then(|| self.outbox.next_at())?
    }

    /// The server has added an own purge.
    pub(crate) fn acknowledged(&mut self, position: Position) {
        self.outbox.acknowledged(position);
    }

    /// Up to where the log was applied when the fetch of this number began, as far as that is known.
    pub(crate) fn as_of(&self, fetch_number: u64) -> Option<AsOf> {
        let Position { id, nonce } = self.ring.last_before(fetch_number)?;
        Some(AsOf { run: self.run?, id, nonce })
    }

    /// The number in this node's sequence from which a fetch counts as begun, of which the writer had applied
    /// the log up to `as_of`. `None` if that entry is not known, or if purges may have been missed here.
    pub(crate) fn begun(&self, as_of: AsOf, target: &impl Target) -> Option<u64> {
        let AsOf { run, id, nonce } = as_of;
        if !self.is_caught_up || Some(run) != self.run || id <= self.floor {
            return None;
        }
        let at = self.ring.find(Position { id, nonce })?;
        let (unread, next) = (self.outbox.least_number(), target.current().saturating_add(1));
        Some(self.ring.least_after(at).min(unread).min(next).saturating_sub(1))
    }

    /// Whether the log was read to its end since the last gap and the last connection.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// The entry that was applied last.
    pub(crate) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Entries that were not applied when the log was last read. `None` before that over this connection, and where
    /// the server does not say how many there are.
    pub(crate) fn behind(&self) -> Option<u64> {
        self.lag.behind()
    }

    /// Entries that a node had not applied when the log was last read here, of which this one is the last. `None` if
    /// that is not known.
    pub(crate) fn behind_of(&self, applied: EntryId) -> Option<u64> {
        let behind = self.behind()?;
        if self.lag.is_end(applied) {
            return Some(0);
        }
        Some(self.ring.count_after(applied)?.saturating_add(behind))
    }

    /// How often purges may have been missed, the first connection included.
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Own purges that are not read back yet.
    pub(crate) fn waiting(&self) -> usize {
        self.outbox.len()
    }
}
