//! The log with some of its rules left out, so that a test sees each of them missed. The log itself knows nothing of
//! that: what a rule is about is hidden from it, and what it does by a rule is undone.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use tokio::time::Instant;

use super::*;

/// What is left out if it is `false`, or another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) finds_gaps: bool,
    pub(super) new_run_is_gap: bool,
    pub(super) has_anchor: bool,
    pub(super) checks_each_read: bool,
    pub(super) doubts_twice: bool,
    pub(super) gap_is_unproven: bool,
    pub(super) knows_deleted: bool,
    pub(super) clears_ring: bool,
    pub(super) has_run_in_as_of: bool,
    pub(super) has_floor: bool,
    pub(super) matches_exactly: bool,
    pub(super) translates_at_end: bool,
    pub(super) as_of_from_begin: bool,
    pub(super) begun: Begun,
    pub(super) own: Own,
    pub(super) cuts_at_unread: bool,
    pub(super) resends: bool,
    pub(super) knows_sent: bool,
    pub(super) sends_last_of_burst: bool,
    pub(super) overflow_is_unproven: bool,
    pub(super) hears_at_end: bool,
    pub(super) hears_from_asking: bool,
}

/// From where what was fetched elsewhere counts as begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    Translated,
    UnknownAsNow,
    Now,
}

/// How an entry is paired with a local number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// The least one of all that follows.
    Least,
    /// That of the last purge up to there.
    Paired,
    /// The same, and own purges take a second one when they are read back.
    AppliedTwice,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            finds_gaps: true,
            new_run_is_gap: true,
            has_anchor: true,
            checks_each_read: true,
            doubts_twice: true,
            gap_is_unproven: true,
            knows_deleted: true,
            clears_ring: true,
            has_run_in_as_of: true,
            has_floor: true,
            matches_exactly: true,
            translates_at_end: true,
            as_of_from_begin: true,
            begun: Begun::Translated,
            own: Own::Least,
            cuts_at_unread: true,
            resends: true,
            knows_sent: true,
            sends_last_of_burst: true,
            overflow_is_unproven: true,
            hears_at_end: true,
            hears_from_asking: true,
        }
    }
}

/// A log that is followed by these rules. By all of them it is the log, with nothing around it.
#[derive(Debug)]
pub(super) struct Variant {
    log: Log,
    rules: Rules,
}

impl Deref for Variant {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl DerefMut for Variant {
    fn deref_mut(&mut self) -> &mut Log {
        &mut self.log
    }
}

/// What is told of gaps by the rules.
struct Doubting<'a, T> {
    target: &'a T,
    is_told: bool,
    is_unproven: bool,
}

impl<T: Target> Target for Doubting<'_, T> {
    type Purge = T::Purge;

    fn purge(&self, purge: &T::Purge) -> u64 {
        self.target.purge(purge)
    }

    fn doubt(&self, strength: Strength) {
        if self.is_told {
            self.target.doubt(if self.is_unproven { strength } else { Strength::Soft });
        }
    }

    fn current(&self) -> u64 {
        self.target.current()
    }
}

impl Variant {
    pub(super) fn new(rules: Rules, outbox: usize) -> Self {
        Self { log: Log::with_outbox(outbox), rules }
    }

    fn doubting<'a, T>(&self, target: &'a T) -> Doubting<'a, T> {
        Doubting { target, is_told: true, is_unproven: self.rules.gap_is_unproven }
    }

    pub(super) fn connected(&mut self, run: Option<u64>, now: Instant, target: &impl Target) {
        let is_other = self.log.run.is_some() && self.log.run != run;
        let target = self.doubting(target);
        if is_other && !self.rules.new_run_is_gap {
            // The same one to the log, but for the purges that are told again.
            self.log.run = run;
            self.log.outbox.tell_again(now);
        }
        self.over_gap(|log| log.connected(run, now, &target));
    }

    pub(super) fn disconnected(&mut self) {
        self.log.disconnected();
        self.has_sent_again();
    }

    pub(super) fn replied<T: Target<Purge: Clone>>(
        &mut self,
        from: Option<Position>,
        reply: &Reply<T::Purge>,
        target: &T,
    ) -> Next {
        let mut target = self.doubting(target);
        target.is_told = from.is_some() || self.rules.doubts_twice;
        let reply = self.without_signs_of_a_gap(from, reply.clone());
        if self.rules.own == Own::AppliedTwice {
            let own = reply.entries.iter().map(|entry| entry.position.nonce);
            own.filter(|nonce| self.log.outbox.has(*nonce)).for_each(|nonce| self.log.numbers.forget(nonce));
        }
        let (floor, was_caught_up) = (self.log.floor, self.log.is_caught_up);
        if from.is_some() && !self.rules.knows_deleted {
            self.log.floor = EntryId::default();
        }
        let next = self.over_gap(|log| log.replied(from, &reply, &target));
        if from.is_some() {
            self.log.floor = floor;
        }
        if self.log.is_caught_up && !was_caught_up {
            self.has_sent_again();
        }
        next
    }

    fn without_signs_of_a_gap<P>(&self, from: Option<Position>, mut reply: Reply<P>) -> Reply<P> {
        let Some(position) = from else { return reply };
        let is_checked = self.rules.finds_gaps && (self.rules.checks_each_read || !self.log.is_caught_up);
        if !is_checked {
            (reply.has_failed, reply.deleted) = (false, EntryId::default());
        }
        if !is_checked || !self.rules.has_anchor {
            reply.anchor = Some(position.nonce);
        }
        reply
    }

    /// What may find a gap.
    fn over_gap<R>(&mut self, f: impl FnOnce(&mut Log) -> R) -> R {
        let kept = (!self.rules.clears_ring).then(|| (self.log.ring.clone(), self.log.position));
        let gaps = self.log.gaps;
        let result = f(&mut self.log);
        if let Some(kept) = kept.filter(|_| self.log.gaps > gaps) {
            (self.log.ring, self.log.position) = kept;
        }
        result
    }

    /// What was sent may not have arrived.
    fn has_sent_again(&mut self) {
        if !self.rules.knows_sent {
            self.log.outbox.forget_sent();
        }
    }

    pub(super) fn heard_by<P>(&self, read: Read, reply: &Reply<P>) -> Option<Instant> {
        let heard = self.log.heard_by(read, reply);
        let heard = if self.rules.hears_at_end { heard } else { Some(read.asked_at) };
        if self.rules.hears_from_asking { heard } else { heard.map(|_| Instant::now()) }
    }

    pub(super) fn issue(
        &mut self,
        message: &Message,
        is_invalidation: bool,
        now: Instant,
        purge: impl FnOnce() -> u64,
    ) -> (u64, Arc<Ticket>) {
        let (number, ticket) = self.log.issue(message, is_invalidation, now, purge);
        if !self.rules.sends_last_of_burst
            && let Some(nonce) = self.log.outbox.nonce_of(&ticket)
        {
            self.log.outbox.forget_paused(nonce);
        }
        (number, ticket)
    }

    pub(super) fn next_to_send(&mut self, now: Instant) -> Option<Sending> {
        let mut sending = self.log.next_to_send(now)?;
        if !self.rules.overflow_is_unproven && sending.message == Message::doubt() {
            sending.message.strength = Strength::Soft;
        }
        Some(sending)
    }

    pub(super) fn acknowledged(&mut self, position: Position) {
        self.log.acknowledged(position);
        if !self.rules.resends {
            self.log.outbox.read_back(position);
        }
    }

    pub(super) fn as_of(&self, fetch_number: u64) -> Option<AsOf> {
        self.log.as_of(if self.rules.as_of_from_begin { fetch_number } else { u64::MAX })
    }

    pub(super) fn begun(&mut self, as_of: AsOf, target: &impl Target) -> Option<u64> {
        let now = self.log.is_caught_up.then(|| target.current());
        match self.rules.begun {
            Begun::Translated => self.translated(as_of, target),
            Begun::UnknownAsNow => self.translated(as_of, target).or(now),
            Begun::Now => now,
        }
    }

    fn translated(&mut self, mut as_of: AsOf, target: &impl Target) -> Option<u64> {
        let rules = self.rules;
        if !rules.has_run_in_as_of {
            as_of.run = self.log.run?;
        }
        if !rules.matches_exactly {
            let Position { id, nonce } = self.log.ring.positions().rfind(|at| at.id <= as_of.id)?;
            as_of = AsOf { id, nonce, ..as_of };
        }
        let (is_caught_up, floor) = (self.log.is_caught_up, self.log.floor);
        self.log.is_caught_up |= !rules.translates_at_end;
        if !rules.has_floor {
            self.log.floor = EntryId::default();
        }
        let begun = self.log.begun(as_of, target);
        (self.log.is_caught_up, self.log.floor) = (is_caught_up, floor);
        match rules {
            Rules { own: Own::Least, cuts_at_unread: true, .. } => begun,
            Rules { own: Own::Least, .. } => begun.and_then(|_| self.read_after(as_of, target)),
            _ => begun.map(|_| self.paired(as_of)),
        }
    }

    /// By the purges that were read alone.
    fn read_after(&self, AsOf { id, nonce, .. }: AsOf, target: &impl Target) -> Option<u64> {
        let at = self.log.ring.find(Position { id, nonce })?;
        Some(self.log.ring.least_after(at).min(target.current().saturating_add(1)).saturating_sub(1))
    }

    /// By the number of the last purge up to there.
    fn paired(&self, as_of: AsOf) -> u64 {
        let back = self.log.ring.positions().rev().skip_while(|at| at.id > as_of.id);
        back.into_iter().find_map(|at| self.log.numbers.get(at.nonce)?).unwrap_or(0)
    }
}
