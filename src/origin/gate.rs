//! The way to one origin: which attempts may begin, which wait, and what its answers say of it.
//!
//! All that is decided is decided in the [core](super::core), under one lock, which is held for no longer than
//! that. What waits is woken after it is free again. What holds anything of the gate – an attempt, a permit,
//! a pass, a place in the queue – gives it back when it is dropped, also by a panic.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    OriginState,
    attempts::OriginGauges,
    change::{Listener, News},
    core,
    health::{AttemptOutcome, Health, Subject},
    queue::Id,
    sync::{AtomicBool, AtomicU8, AtomicU64, Mutex, Ordering},
    wish,
};

/// The way to one origin.
#[derive(Debug)]
pub(crate) struct Gate {
    core: Mutex<core::Core<Seat>>,
    /// A [`Standing`](wish::Standing), as of the last change.
    standing: AtomicU8,
    began: Instant,
    /// From so many milliseconds after `began` on the origin can turn out to hang.
    stall_due: AtomicU64,
    counts_without_key: bool,
    listener: Option<Listener>,
}

/// What waits in the queue.
#[derive(Debug)]
struct Seat {
    answer: oneshot::Sender<Result<Attempt, wish::Refusal>>,
    place: Option<Arc<Place>>,
}

/// An attempt that is to be made.
#[derive(Debug, Default)]
pub(crate) struct Entrance {
    /// The hash of the key under which the response is stored. `None`: it has none.
    pub(crate) key: Option<u64>,
    /// Whether something can be served if the attempt is not made, or fails.
    pub(crate) has_stale: bool,
    pub(crate) kind: wish::Kind,
    /// The class, of which 0 is the best.
    pub(crate) class: u8,
    /// Whether several callers can wait for it.
    pub(crate) is_shared: bool,
    /// The place that they share, if the layer above knows of the queue.
    pub(crate) place: Option<Arc<Place>>,
    /// How long the head of the same response took the last time.
    pub(crate) last_cost: Option<Duration>,
    pub(crate) pass: Option<Arc<Pass>>,
    /// When it must not wait any longer. What waits sets a timer for it; no permit is given after it.
    pub(crate) leave_at: Option<Instant>,
    /// When the attempt is given up by dropping it: the origin has not answered in time then.
    pub(crate) deadline: Option<Instant>,
    /// Whether it takes no permit and never waits, such as a stream of events that goes on for hours.
    pub(crate) is_exempt: bool,
}

#[derive(Debug)]
pub(crate) enum Entered {
    Admitted(Attempt),
    Queued(Waiting),
    Refused(wish::Refusal),
}

/// What a request may do that does not need the origin: it has something usable stored, or another origin.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Ask the origin; with the right to do so if it is not up.
    Fetch(Option<Arc<Pass>>),
    /// Use the other one.
    Serve(wish::HeldBack),
}

impl Gate {
    pub(super) fn new(
        rules: core::CoreRules,
        health: Health,
        counts_without_key: bool,
        listener: Option<Listener>,
    ) -> Arc<Self> {
        let core = Mutex::new(core::Core::new(rules, health));
        let standing = AtomicU8::new(wish::Standing::Open as u8);
        let (began, stall_due) = (Instant::now(), AtomicU64::new(u64::MAX));
        Arc::new(Self { core, standing, began, stall_due, counts_without_key, listener })
    }

    /// Sets the number of permits, and of places in the queue, before the first attempt.
    pub(super) fn limit(&self, permits: usize, places: usize) {
        self.core.lock().limit(permits, places);
    }

    pub(crate) fn state(self: &Arc<Self>, now: Instant) -> OriginState {
        self.with(now, |core| core.state())
    }

    /// Why a request with something stale would not ask the origin, were it not one that finds out.
    pub(super) fn would_hold_back(self: &Arc<Self>, now: Instant) -> Option<wish::HeldBack> {
        self.with(now, |core| core.would_hold_back(now))
    }

    /// What its attempts are and were.
    pub(super) fn gauges(&self) -> OriginGauges {
        self.core.lock().gauges()
    }

    /// Whether the origin is up, as of what was last heard of it. A recovery may be over by time alone.
    pub(crate) fn is_up(self: &Arc<Self>) -> bool {
        let standing = self.standing.load(Ordering::Acquire);
        let is_recovering = standing == wish::Standing::Recovering as u8;
        standing <= wish::Standing::Bounded as u8
            || is_recovering && self.state(Instant::now()) == OriginState::Up
    }

    /// Whether the origin is down, as of what was last heard of it.
    pub(crate) fn is_down(&self) -> bool {
        self.standing.load(Ordering::Acquire) == wish::Standing::Down as u8
    }

    /// Whether it may be asked without a look at anything else. Where it hangs, nothing is heard of it: that is
    /// for the next request to notice.
    fn is_open(&self, now: Instant) -> bool {
        self.standing.load(Ordering::Acquire) == wish::Standing::Open as u8
            && self.millis(now) < self.stall_due.load(Ordering::Relaxed)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether all permits are in use.
    pub(crate) fn is_full(&self) -> bool {
        !self.core.lock().has_permit()
    }

    /// Takes note of a probe that is no attempt.
    pub(crate) fn probed(self: &Arc<Self>, is_success: bool, now: Instant) {
        self.with(now, |core| core.probed(is_success, now));
    }

    /// Whether a request with something usable stored may ask the origin.
    pub(crate) fn ask_with_stale(self: &Arc<Self>, now: Instant) -> Answer {
        self.ask(now, |core| core.ask(now))
    }

    /// Whether a request that another origin may answer as well should ask this one. [`Answer::Serve`]: the
    /// other one is to be asked.
    ///
    /// `may_probe`: it may find out whether this one is back, if its outcome counts, as that of one with a key does.
    pub(crate) fn invite(self: &Arc<Self>, (has_key, may_probe): (bool, bool), now: Instant) -> Answer {
        let may_probe = may_probe && (has_key || self.counts_without_key);
        self.ask(now, |core| core.invite(may_probe, now))
    }

    fn ask(
        self: &Arc<Self>,
        now: Instant,
        claim: impl FnOnce(&mut core::Core<Seat>) -> Result<Option<core::Claim>, wish::HeldBack>,
    ) -> Answer {
        if self.is_open(now) {
            return Answer::Fetch(None);
        }
        match self.with(now, claim) {
            Ok(None) => Answer::Fetch(None),
            Ok(Some(claim)) => Answer::Fetch(Some(Pass::new(Arc::clone(self), claim))),
            Err(why) => Answer::Serve(why),
        }
    }

    /// Lets an attempt begin, wait, or not be made.
    pub(crate) fn enter(self: &Arc<Self>, entrance: Entrance, now: Instant) -> Entered {
        let Entrance {
            key,
            has_stale,
            kind,
            class,
            is_shared,
            place,
            last_cost,
            pass,
            leave_at,
            deadline,
            is_exempt,
        } = entrance;
        let counts = key.is_some() || self.counts_without_key;
        let subject = Subject { key, counts, last_cost, probe: None };
        let wish = wish::Wish { subject, has_stale, kind, leave_at, deadline, is_exempt };
        let claim = pass.as_ref().and_then(|pass| pass.take(self));
        let entered = self.with(now, |core| match core.enter(&wish, claim, now) {
            wish::Decision::Grant(ticket) => Step::Granted(ticket),
            wish::Decision::Refuse(refusal) => Step::Refused(refusal),
            wish::Decision::Queue => self.queue(core, wish, (class, is_shared), place, now),
        });
        match entered {
            Step::Granted(ticket) => Entered::Admitted(Attempt::new(Arc::clone(self), ticket)),
            Step::Queued(id, answer) => {
                let gate = Arc::clone(self);
                Entered::Queued(Waiting { gate, id, answer, is_over: false })
            }
            Step::Refused(refusal) => Entered::Refused(refusal),
            Step::Full(seat) => {
                // Without the lock.
                drop(seat);
                Entered::Refused(wish::Refusal::QueueFull)
            }
        }
    }

    fn queue(
        self: &Arc<Self>,
        core: &mut core::Core<Seat>,
        wish: wish::Wish,
        (class, is_shared): (u8, bool),
        place: Option<Arc<Place>>,
        now: Instant,
    ) -> Step {
        let class = place.as_ref().map_or(class, |place| class.min(place.class()));
        let (answer, waits) = oneshot::channel();
        let seat = Seat { answer, place: place.clone() };
        match core.push(wish, (class, is_shared), seat, now) {
            Err(seat) => Step::Full(seat),
            Ok(id) => {
                if let Some(place) = place {
                    place.sit(self, id);
                    // It may have been raised before it was known where it sits.
                    core.promote(id, place.class());
                }
                Step::Queued(id, waits)
            }
        }
    }

    /// Does something under the lock, and tells those that waited what was decided after it.
    fn with<R>(self: &Arc<Self>, now: Instant, act: impl FnOnce(&mut core::Core<Seat>) -> R) -> R {
        let mut core = self.core.lock();
        core.tick(now);
        let result = act(&mut core);
        core.settle(now);
        let stall_due = core.stall_due().map_or(u64::MAX, |at| self.millis(at));
        self.stall_due.store(stall_due, Ordering::Relaxed);
        self.standing.store(core.standing() as u8, Ordering::Release);
        let told = core.has_to_tell().then(|| (core.take_decided(), core.take_news()));
        drop(core);
        if let Some((decided, news)) = told {
            self.tell_all(decided, news);
        }
        result
    }

    /// Not inlined, since it is rare.
    #[inline(never)]
    fn tell_all(self: &Arc<Self>, decided: Vec<wish::Decided<Seat>>, news: Vec<News>) {
        for decided in decided {
            self.tell(decided);
        }
        for news in news {
            news.trace();
            if let Some(listener) = &self.listener {
                listener.tell(news);
            }
        }
    }

    fn tell(self: &Arc<Self>, decided: wish::Decided<Seat>) {
        let (seat, result) = match decided {
            wish::Decided::Granted(seat, ticket) => (seat, Ok(Attempt::new(Arc::clone(self), ticket))),
            wish::Decided::Refused(seat, refusal) => (seat, Err(refusal)),
        };
        // First, since what is told may take the place again.
        if let Some(place) = &seat.place {
            place.leave();
        }
        // A future that is gone gives back what was granted: the attempt is dropped.
        drop(seat.answer.send(result));
    }
}

/// What came of an attempt that wants to enter.
enum Step {
    Granted(core::Ticket),
    Queued(Id, oneshot::Receiver<Result<Attempt, wish::Refusal>>),
    Refused(wish::Refusal),
    Full(Seat),
}

/// An attempt that waits for a permit. When it is dropped, it waits no longer.
#[derive(Debug)]
pub(crate) struct Waiting {
    gate: Arc<Gate>,
    id: Id,
    answer: oneshot::Receiver<Result<Attempt, wish::Refusal>>,
    is_over: bool,
}

impl Future for Waiting {
    type Output = Result<Attempt, wish::Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        self.is_over = true;
        // The gate answers all that wait.
        Poll::Ready(answer.unwrap_or(Err(wish::Refusal::QueueFull)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_over {
            let seat = self.gate.with(Instant::now(), |core| core.leave(self.id));
            if let Some(place) = seat.as_ref().and_then(|seat| seat.place.as_ref()) {
                place.leave();
            }
        }
    }
}

/// The place of one attempt that several callers wait for: where it stands in the queue, for as long as it is
/// there.
#[derive(Debug)]
pub(crate) struct Place {
    class: AtomicU8,
    /// The attempt is made also if no client waits for it any more.
    is_kept: AtomicBool,
    seat: Mutex<Option<(Weak<Gate>, Id)>>,
}

impl Place {
    /// `class`: that of the first caller, of which 0 is the best.
    pub(crate) fn new(class: u8) -> Arc<Self> {
        Arc::new(Self {
            class: AtomicU8::new(class),
            is_kept: AtomicBool::new(false),
            seat: Mutex::new(None),
        })
    }

    fn class(&self) -> u8 {
        self.class.load(Ordering::Relaxed)
    }

    /// Takes note of a caller of this class. The best one of all callers counts.
    pub(crate) fn raise(&self, class: u8) {
        if self.class.fetch_min(class, Ordering::Relaxed) <= class {
            return;
        }
        // The lock orders this with `sit`: one of both sees the other.
        let seat = self.seat.lock().clone();
        let Some((gate, id)) = seat else { return };
        if let Some(gate) = gate.upgrade() {
            gate.with(Instant::now(), |core| core.promote(id, class));
        }
    }

    /// Lets the attempt wait also if no client waits for it any more: callers that are served something stale
    /// instead leave, and need it all the same.
    pub(crate) fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
    }

    /// Whether the attempt waits for a permit, and is of no use if no client waits for it.
    pub(crate) fn may_leave(&self) -> bool {
        !self.is_kept.load(Ordering::Relaxed) && self.seat.lock().is_some()
    }

    fn sit(&self, gate: &Arc<Gate>, id: Id) {
        *self.seat.lock() = Some((Arc::downgrade(gate), id));
    }

    fn leave(&self) {
        let seat = self.seat.lock().take();
        drop(seat);
    }
}

/// The right of one attempt to ask an origin that is not up. When it is dropped without use, another one has it.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    reason: wish::HeldBack,
    claim: Mutex<Option<core::Claim>>,
}

impl Pass {
    fn new(gate: Arc<Gate>, claim: core::Claim) -> Arc<Self> {
        let reason = match claim {
            core::Claim::Probe(_) => wish::HeldBack::Down,
            core::Claim::Permit(_) => wish::HeldBack::Recovering,
        };
        Arc::new(Self { gate, reason, claim: Mutex::new(Some(claim)) })
    }

    /// Whether it is the right to probe an origin that is down.
    pub(crate) fn is_probe(&self) -> bool {
        self.reason == wish::HeldBack::Down
    }

    /// Why the others are held back.
    pub(crate) const fn reason(&self) -> wish::HeldBack {
        self.reason
    }

    /// Whether it is for this origin.
    pub(crate) fn is_for(&self, gate: &Arc<Gate>) -> bool {
        Arc::ptr_eq(&self.gate, gate)
    }

    fn take(&self, gate: &Arc<Gate>) -> Option<core::Claim> {
        if self.is_for(gate) { self.claim.lock().take() } else { None }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.get_mut().take() {
            let now = Instant::now();
            self.gate.with(now, |core| core.unclaim(&claim, now));
        }
    }
}

/// An attempt that may ask the origin. When it is dropped without an outcome, it was cancelled, or given up at
/// its deadline.
#[derive(Debug)]
pub(crate) struct Attempt {
    gate: Arc<Gate>,
    /// `None`: it has ended.
    ticket: Option<core::Ticket>,
}

impl Attempt {
    const fn new(gate: Arc<Gate>, ticket: core::Ticket) -> Self {
        Self { gate, ticket: Some(ticket) }
    }

    /// When the attempt has to be given up, unless it [may go on](Self::may_go_on) then: while the origin is down its
    /// permits must not be held for long.
    pub(crate) fn give_up_at(&self) -> Option<Instant> {
        self.gate.core.lock().give_up_at(self.ticket.as_ref()?)
    }

    /// Whether the attempt goes on although its time is over.
    pub(crate) fn may_go_on(&self, now: Instant) -> bool {
        let ticket = self.ticket.as_ref();
        ticket.is_some_and(|ticket| self.gate.with(now, |core| core.may_go_on(ticket)))
    }

    /// Says how the attempt ended. The permit belongs to the response body.
    pub(crate) fn finish(mut self, outcome: AttemptOutcome, now: Instant) -> Permit {
        let hold = self.end(outcome, now);
        Permit(hold.map(|hold| (Arc::clone(&self.gate), hold)))
    }

    fn end(&mut self, outcome: AttemptOutcome, now: Instant) -> Option<core::Hold> {
        let ticket = self.ticket.take()?;
        self.gate.with(now, |core| core.end(ticket, outcome, now))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = Instant::now();
            self.gate.with(now, |core| core.cancel(ticket, now));
        }
    }
}

/// The permit of an attempt that has a response. When it is dropped, another attempt may begin.
#[derive(Debug)]
pub(crate) struct Permit(Option<(Arc<Gate>, core::Hold)>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((gate, hold)) = self.0.take() {
            gate.with(Instant::now(), |core| core.release(&hold));
        }
    }
}

// It lies in the response future of each request.
const _: () = assert!(size_of::<Option<Attempt>>() <= 2 * size_of::<usize>());

#[cfg(test)]
impl Gate {
    /// Does something that must not need the lock.
    pub(super) fn while_locked<R>(&self, act: impl FnOnce() -> R) -> R {
        let _locked = self.core.lock();
        act()
    }
}
