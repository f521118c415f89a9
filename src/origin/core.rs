//! Which attempt at one origin may begin now, decided in one place: permits, queue and state together.
//!
//! * A permit stands for one attempt, until its response body is over. All together there are as many as the
//!   limit says, and one more for the probe. In each state at most as many are given as its cap allows.
//!   A lower cap takes none away, and what an earlier state has given counts under the whole alone.
//! * What has something stale to serve instead may wait for a permit while the origin is up, and never
//!   otherwise: it is a probe, takes what is free during a recovery, or is served what is stale.
//! * Nothing here waits or wakes: what is decided about attempts that wait is [collected](Core::take_decided),
//!   for when the lock is free again.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    OriginState,
    attempts::{AttemptCounts, OriginGauges, Slab, Slot},
    change::News,
    health,
    queue::{Id, Pushed, Queue, Waiter},
    rate::Rate,
    wish,
};
use crate::http::storing::after;

/// The part of the permits that fetches with something stale may hold together.
const STALE_PART: wish::Part = wish::Part::new(3, 4);

/// A permit.
#[derive(Debug)]
pub(super) struct Hold {
    epoch: u64,
    has_stale: bool,
    probe: Option<health::ProbeId>,
}

/// A right that is taken before its attempt begins.
#[derive(Debug)]
pub(super) enum Claim {
    Probe(health::ProbeId),
    /// A permit during a recovery.
    Permit(Hold),
}

/// An attempt that has begun. Small, since it lies in the future of its response.
#[derive(Debug)]
pub(super) struct Ticket(Slot);

/// What is known of an attempt that has begun.
#[derive(Debug)]
struct UnderWay {
    /// `None`: it needs no permit.
    hold: Option<Hold>,
    begun: health::Begun,
    give_up_at: Option<Instant>,
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct CoreRules {
    /// Whether an attempt with nothing stored is refused while the origin is down.
    pub(super) fails_fast: bool,
    /// How long an attempt may take while the origin is down.
    pub(super) attempt_deadline: Duration,
}

#[derive(Debug)]
pub(super) struct Core<T> {
    rules: CoreRules,
    health: health::Health,
    rate: Rate,
    queue: Queue<Waiting<T>>,
    /// `None`: no limit.
    permits: Option<usize>,
    /// Permits in use, without that of the probe.
    used: usize,
    /// Those in use by attempts with something stale, and those that were given in this state.
    stale: usize,
    given: usize,
    epoch: u64,
    /// The attempt that has the permit of the probe.
    extra: Option<health::ProbeId>,
    under_way: Slab<UnderWay>,
    attempts: AttemptCounts,
    /// Attempts that have not ended.
    open: usize,
    decided: Vec<wish::Decided<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    wish: wish::Wish,
    item: T,
}

impl<T> Core<T> {
    pub(super) fn new(rules: CoreRules, health: health::Health) -> Self {
        Self {
            rules,
            epoch: health.epoch(),
            health,
            rate: Rate::new(),
            queue: Queue::new(0),
            permits: None,
            used: 0,
            stale: 0,
            given: 0,
            extra: None,
            under_way: Slab::new(),
            attempts: AttemptCounts::default(),
            open: 0,
            decided: Vec::new(),
        }
    }

    /// Sets the number of permits, and of places in the queue, before the first attempt.
    pub(super) fn limit(&mut self, permits: usize, places: usize) {
        self.permits = Some(permits);
        self.queue = Queue::new(places);
        self.health.limit(permits, STALE_PART.of(permits));
    }

    pub(super) const fn state(&self) -> OriginState {
        self.health.state()
    }

    pub(super) const fn standing(&self) -> wish::Standing {
        match self.health.state() {
            OriginState::Up if self.rate.is_bounded() => wish::Standing::Bounded,
            OriginState::Up => wish::Standing::Open,
            OriginState::Recovering => wish::Standing::Recovering,
            OriginState::Down => wish::Standing::Down,
        }
    }

    /// The first time at which the origin can turn out to hang, unless it answers before.
    pub(super) fn stall_due(&self) -> Option<Instant> {
        self.health.stall_due()
    }

    pub(super) fn gauges(&self) -> OriginGauges {
        OriginGauges {
            attempts: self.attempts,
            waiting: self.queue.len(),
            under_way: self.open,
            permits_in_use: self.permits.map_or(0, |_| self.used + usize::from(self.extra.is_some())),
            permits: self.permits,
        }
    }

    /// Whether anything was decided about attempts that waited, or is to be told of the origin.
    pub(super) fn has_to_tell(&self) -> bool {
        !self.decided.is_empty() || self.health.has_news()
    }

    /// What was decided about attempts that waited.
    pub(super) fn take_decided(&mut self) -> Vec<wish::Decided<T>> {
        std::mem::take(&mut self.decided)
    }

    /// What is to be told of the origin.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        self.health.take_news()
    }

    /// Does what is due by time. Before anything else under the lock.
    #[inline]
    pub(super) fn tick(&mut self, now: Instant) {
        if !(self.health.is_calm() && self.is_settled()) {
            self.catch_up(now);
        }
    }

    fn catch_up(&mut self, now: Instant) {
        if !self.queue.is_empty() {
            self.health.hold_back(now);
        }
        self.health.tick(now);
        self.settle(now);
    }

    /// Follows a change of the state or of the permits. After everything else under the lock.
    #[inline]
    pub(super) fn settle(&mut self, now: Instant) {
        if !self.is_settled() {
            self.follow(now);
        }
    }

    /// Whether nothing waits, nothing has changed, and no probe has a permit.
    fn is_settled(&self) -> bool {
        self.epoch == self.health.epoch() && self.extra.is_none() && self.queue.is_empty()
    }

    fn follow(&mut self, now: Instant) {
        if self.epoch != self.health.epoch() {
            self.epoch = self.health.epoch();
            self.given = 0;
            if self.state() == OriginState::Down {
                self.refuse_waiting(now);
            }
        }
        self.settle_extra();
        if !self.queue.is_empty() {
            self.pump(now);
        }
    }

    /// What waits with something stale is served it, and with `fails_fast` the rest fails.
    fn refuse_waiting(&mut self, now: Instant) {
        let fails_fast = self.rules.fails_fast;
        let is_refused = |_: &Waiter, waiting: &Waiting<T>| {
            waiting.wish.is_spare() || fails_fast && waiting.wish.subject.counts
        };
        let refused = self.queue.remove_where(is_refused);
        for waiting in refused {
            let refusal = self.refusal_while_down(&waiting.wish, now);
            self.decided.push(wish::Decided::Refused(waiting.item, refusal));
        }
    }

    fn refusal_while_down(&self, wish: &wish::Wish, now: Instant) -> wish::Refusal {
        match wish.is_spare() {
            true => wish::Refusal::HeldBack(wish::HeldBack::Down),
            false => wish::Refusal::Down { next_probe: self.health.next_probe_in(now) },
        }
    }

    /// A probe that is over its time holds an ordinary permit as soon as there is one.
    fn settle_extra(&mut self) {
        if self.extra.is_some_and(|probe| !self.health.is_probe(probe)) && self.has_permit() {
            self.extra = None;
            self.used += 1;
        }
    }

    fn pump(&mut self, now: Instant) {
        while self.has_room(now) {
            let may_hold_stale = self.may_hold_stale();
            let next = self.queue.pop(now, |waiter| !waiter.has_stale || may_hold_stale);
            let Some((_, Waiting { wish, item })) = next else { break };
            let decided = match wish.leave_at {
                Some(leave_at) if leave_at <= now => wish::Decided::Refused(item, wish::Refusal::TooLate),
                _ => {
                    let hold = self.take_permit(wish.has_stale);
                    wish::Decided::Granted(item, self.begin(&wish, Some(hold), now))
                }
            };
            self.decided.push(decided);
        }
    }

    pub(super) fn has_permit(&self) -> bool {
        self.permits.is_none_or(|permits| self.used < permits)
    }

    /// Whether an attempt with nothing stored may begin.
    fn has_room(&self, now: Instant) -> bool {
        self.permits.is_none() || self.has_permit() && self.given < self.health.cap(now)
    }

    fn may_hold_stale(&self) -> bool {
        // Of a single permit three quarters are none.
        self.stale == 0 || self.permits.is_none_or(|permits| STALE_PART.holds(self.stale + 1, permits))
    }

    /// Whether so much is free that an attempt may begin for which no client waits.
    fn is_below(&self, kind: wish::Kind, now: Instant) -> bool {
        let Some(part) = kind.part() else { return true };
        self.permits.is_none_or(|permits| part.is_above(self.used, permits))
            && part.is_above(self.given, self.health.cap(now))
    }

    /// Whether an attempt may take a permit that no other needs. Attempts that wait cannot use what is free: it would
    /// have been let in.
    fn has_spare_room(&self, wish: &wish::Wish, now: Instant) -> bool {
        let is_free = self.has_permit() && self.given < self.health.cap(now);
        is_free && (!wish.has_stale || self.may_hold_stale()) && self.is_below(wish.kind, now)
    }

    fn take_permit(&mut self, has_stale: bool) -> Hold {
        self.used += 1;
        self.given += 1;
        self.stale += usize::from(has_stale);
        Hold { epoch: self.epoch, has_stale, probe: None }
    }

    /// Takes a permit back.
    pub(super) fn release(&mut self, hold: &Hold) {
        if let Some(probe) = hold.probe {
            if self.extra == Some(probe) {
                self.extra = None;
                return;
            }
        } else {
            self.stale -= usize::from(hold.has_stale);
            self.given -= usize::from(hold.epoch == self.epoch);
        }
        self.used -= 1;
    }

    /// Whether a request with something stale may ask the origin. `Ok(None)`: as if nothing were wrong.
    pub(super) fn ask(&mut self, now: Instant) -> Result<Option<Claim>, wish::HeldBack> {
        match self.state() {
            OriginState::Up | OriginState::Recovering if !self.rate.allows(now) => {
                Err(wish::HeldBack::RateLimited)
            }
            _ => self.claim(true, now),
        }
    }

    /// Why a request with something stale would not [ask](Self::ask) the origin, were it not one that finds out whether it
    /// is back.
    pub(super) fn would_hold_back(&self, now: Instant) -> Option<wish::HeldBack> {
        match self.state() {
            OriginState::Up | OriginState::Recovering if !self.rate.allows(now) => {
                Some(wish::HeldBack::RateLimited)
            }
            OriginState::Up => None,
            OriginState::Down => Some(wish::HeldBack::Down),
            OriginState::Recovering => Some(wish::HeldBack::Recovering),
        }
    }

    /// Whether a request that another origin may answer as well should ask this one.
    pub(super) fn invite(&mut self, may_probe: bool, now: Instant) -> Result<Option<Claim>, wish::HeldBack> {
        match self.state() {
            OriginState::Down if !may_probe => Err(wish::HeldBack::Down),
            _ => self.claim(false, now),
        }
    }

    fn claim(&mut self, has_stale: bool, now: Instant) -> Result<Option<Claim>, wish::HeldBack> {
        let wish = wish::Wish { has_stale, ..wish::Wish::default() };
        match self.state() {
            OriginState::Up => Ok(None),
            OriginState::Down => {
                self.claim_probe(now).map(Claim::Probe).map(Some).ok_or(wish::HeldBack::Down)
            }
            OriginState::Recovering if self.has_spare_room(&wish, now) => {
                Ok(Some(Claim::Permit(self.take_permit(has_stale))))
            }
            OriginState::Recovering => {
                self.health.hold_back(now);
                Err(wish::HeldBack::Recovering)
            }
        }
    }

    /// Not while the one before still has the permit of a probe.
    fn claim_probe(&mut self, now: Instant) -> Option<health::ProbeId> {
        if self.extra.is_none() { self.health.claim_probe(now) } else { None }
    }

    /// Takes a right back of which no use was made.
    pub(super) fn unclaim(&mut self, claim: &Claim, now: Instant) {
        match claim {
            Claim::Probe(probe) => self.health.leave_probe(*probe, now),
            Claim::Permit(hold) => self.release(hold),
        }
    }

    /// Decides about an attempt that has come. [`push`](Self::push) lets it wait, if that is decided.
    pub(super) fn enter(&mut self, wish: &wish::Wish, claim: Option<Claim>, now: Instant) -> wish::Decision {
        if wish.is_exempt {
            return wish::Decision::Grant(self.begin_exempt(wish, claim, now));
        }
        let hold = claim.and_then(|claim| self.redeem(claim, now));
        let way = match (hold, self.state()) {
            (Some(hold), _) => Ok(Way::With(hold)),
            (None, OriginState::Up) => self.enter_up(wish, now),
            (None, OriginState::Down) => self.enter_down(wish, now),
            (None, OriginState::Recovering) => self.enter_recovering(wish, now),
        };
        match way {
            Ok(Way::With(hold)) => wish::Decision::Grant(self.begin(wish, Some(hold), now)),
            Ok(Way::Now) => {
                // Without a limit a permit is a number that tells how much a recovery bears.
                let needs_permit = self.permits.is_some() || wish.subject.counts;
                let hold = needs_permit.then(|| self.take_permit(wish.has_stale));
                wish::Decision::Grant(self.begin(wish, hold, now))
            }
            Ok(Way::Wait) if wish.leave_at.is_some_and(|at| at <= now) => {
                wish::Decision::Refuse(wish::Refusal::TooLate)
            }
            Ok(Way::Wait) => wish::Decision::Queue,
            Err(refusal) => wish::Decision::Refuse(refusal),
        }
    }

    /// Begins without a permit. A probe it is all the same: else what has something stale would begin one attempt
    /// after the other while the origin is down.
    fn begin_exempt(&mut self, wish: &wish::Wish, claim: Option<Claim>, now: Instant) -> Ticket {
        let probe = match claim {
            Some(Claim::Probe(probe)) => Some(probe).filter(|probe| self.health.is_probe(*probe)),
            Some(Claim::Permit(hold)) => {
                self.release(&hold);
                None
            }
            None => None,
        };
        let subject = health::Subject { probe, ..wish.subject };
        self.begin(&wish::Wish { subject, ..*wish }, None, now)
    }

    /// Makes use of a right. `None`: it has ended with its state, or with its time.
    fn redeem(&mut self, claim: Claim, now: Instant) -> Option<Hold> {
        match claim {
            Claim::Probe(probe) => self.begin_probe(probe),
            Claim::Permit(hold) if hold.epoch == self.epoch => Some(hold),
            Claim::Permit(hold) => {
                self.release(&hold);
                self.settle(now);
                None
            }
        }
    }

    /// Its permit is free: as long as it is not, no attempt gets the right to probe.
    fn begin_probe(&mut self, probe: health::ProbeId) -> Option<Hold> {
        if !self.health.is_probe(probe) {
            return None;
        }
        self.extra = Some(probe);
        Some(Hold { epoch: self.epoch, has_stale: false, probe: Some(probe) })
    }

    fn enter_up(&self, wish: &wish::Wish, now: Instant) -> Result<Way, wish::Refusal> {
        if wish.is_spare() && !self.rate.allows(now) {
            return Err(wish::Refusal::HeldBack(wish::HeldBack::RateLimited));
        }
        if wish.kind != wish::Kind::Request {
            return if self.has_spare_room(wish, now) { Ok(Way::Now) } else { Err(wish::Refusal::Busy) };
        }
        Ok(self.now_or_later(wish, now))
    }

    fn enter_down(&mut self, wish: &wish::Wish, now: Instant) -> Result<Way, wish::Refusal> {
        let health::Subject { counts, .. } = wish.subject;
        if !(wish.is_spare() || counts && self.rules.fails_fast) {
            return Ok(self.now_or_later(wish, now));
        }
        let probe = if counts { self.claim_probe(now) } else { None };
        match probe.and_then(|probe| self.begin_probe(probe)) {
            Some(hold) => Ok(Way::With(hold)),
            None => Err(self.refusal_while_down(wish, now)),
        }
    }

    fn enter_recovering(&mut self, wish: &wish::Wish, now: Instant) -> Result<Way, wish::Refusal> {
        if wish.is_spare() && !self.rate.allows(now) {
            return Err(wish::Refusal::HeldBack(wish::HeldBack::RateLimited));
        }
        let way = match wish.is_spare() {
            true if self.has_spare_room(wish, now) => return Ok(Way::Now),
            true => Err(wish::Refusal::HeldBack(wish::HeldBack::Recovering)),
            false => Ok(self.now_or_later(wish, now)),
        };
        // An attempt for which no client waits does not make a recovery longer.
        if !matches!(way, Ok(Way::Now)) && wish.kind == wish::Kind::Request {
            self.health.hold_back(now);
        }
        way
    }

    /// No attempt that waits may begin: it would have.
    fn now_or_later(&self, wish: &wish::Wish, now: Instant) -> Way {
        match self.has_room(now) && (!wish.has_stale || self.may_hold_stale()) {
            true => Way::Now,
            false => Way::Wait,
        }
    }

    /// Lets an attempt wait for a permit, in this class.
    pub(super) fn push(
        &mut self,
        wish: wish::Wish,
        (class, is_shared): (u8, bool),
        item: T,
        now: Instant,
    ) -> Result<Id, T> {
        let waiter = Waiter { class, is_shared, has_stale: wish.has_stale, arrived: now };
        match self.queue.push(waiter, Waiting { wish, item }) {
            Pushed::Placed(id) => Ok(id),
            Pushed::Displacing(id, displaced) => {
                self.decided.push(wish::Decided::Refused(displaced.item, wish::Refusal::QueueFull));
                Ok(id)
            }
            Pushed::Full(waiting) => Err(waiting.item),
        }
    }

    /// Takes out an attempt that no longer waits.
    pub(super) fn leave(&mut self, id: Id) -> Option<T> {
        self.queue.remove(id).map(|waiting| waiting.item)
    }

    pub(super) fn promote(&mut self, id: Id, class: u8) {
        self.queue.promote(id, class);
    }

    fn begin(&mut self, wish: &wish::Wish, hold: Option<Hold>, now: Instant) -> Ticket {
        let probe = hold.as_ref().and_then(|hold| hold.probe).or(wish.subject.probe);
        let begun = self.health.begin(health::Subject { probe, ..wish.subject }, now);
        if wish.subject.counts {
            self.rate.admitted(now);
        }
        let give_up_at = self.give_up_time(wish, probe, now);
        let deadline = wish.deadline;
        self.attempts.begin();
        self.open += 1;
        Ticket(self.under_way.insert(UnderWay { hold, begun, give_up_at, deadline }))
    }

    /// When an attempt has to be given up, if it must not go on for longer than a probe has.
    fn give_up_time(
        &self,
        wish: &wish::Wish,
        probe: Option<health::ProbeId>,
        now: Instant,
    ) -> Option<Instant> {
        let deadline = self.rules.attempt_deadline;
        if self.permits.is_none() || wish.is_exempt {
            return None;
        }
        match probe {
            // It goes on if there is another permit that it can hold while the next probe has this one.
            Some(_) => Some(after(now, deadline)),
            None => (self.state() == OriginState::Down && wish.subject.key.is_some())
                .then(|| self.health.give_up_at(deadline, now)),
        }
    }

    /// Counts how an attempt ended. Returns the permit that it holds until its response body is over.
    pub(super) fn end(
        &mut self,
        ticket: Ticket,
        outcome: health::AttemptOutcome,
        now: Instant,
    ) -> Option<Hold> {
        let hold = self.conclude(&ticket, |_| outcome, now);
        self.under_way.free(ticket.0);
        hold
    }

    /// Counts an attempt that was given up: at its deadline the origin is slow, before that its caller has left.
    pub(super) fn cancel(&mut self, ticket: Ticket, now: Instant) {
        let outcome = |attempt: &UnderWay| match attempt.deadline.is_some_and(|deadline| deadline <= now) {
            true => health::AttemptOutcome::TimedOut,
            false => health::AttemptOutcome::Neither,
        };
        let hold = self.conclude(&ticket, outcome, now);
        self.under_way.free(ticket.0);
        hold.iter().for_each(|hold| self.release(hold));
    }

    /// When an attempt has to be given up, unless it [may go on](Self::may_go_on) then.
    pub(super) fn give_up_at(&self, ticket: &Ticket) -> Option<Instant> {
        self.under_way.get(&ticket.0)?.give_up_at
    }

    /// Whether an attempt goes on whose time is over: a probe that has an ordinary permit by now.
    pub(super) fn may_go_on(&self, ticket: &Ticket) -> bool {
        let attempt = self.under_way.get(&ticket.0);
        let probe = attempt.and_then(|attempt| attempt.hold.as_ref()?.probe);
        probe.is_some() && probe != self.extra
    }

    /// Where it lies, since to move it costs more than the rest.
    fn conclude(
        &mut self,
        ticket: &Ticket,
        outcome: impl FnOnce(&UnderWay) -> health::AttemptOutcome,
        now: Instant,
    ) -> Option<Hold> {
        let attempt = self.under_way.get_mut(&ticket.0)?;
        let outcome = outcome(attempt);
        let UnderWay { hold, begun, .. } = attempt;
        let took = begun.took(now);
        self.attempts.end(outcome, took);
        self.open -= 1;
        self.health.end(begun, outcome, took, now);
        match outcome {
            health::AttemptOutcome::Success if begun.counts() => self.rate.succeeded(now),
            health::AttemptOutcome::TooMany if begun.counts() => self.rate.limited(now),
            _ => {}
        }
        let hold = hold.take();
        if self.permits.is_some() {
            return hold;
        }
        hold.iter().for_each(|hold| self.release(hold));
        None
    }

    /// Takes note of a probe from outside the cache.
    pub(super) fn probed(&mut self, is_success: bool, now: Instant) {
        self.health.probed(is_success, now);
    }
}

/// How an attempt begins.
#[derive(Debug)]
enum Way {
    Now,
    With(Hold),
    Wait,
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
