//! The state of one origin, by the outcomes of attempts and by time. Without locks, tasks or clocks of its own.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    OriginState,
    change::News,
    pause::{Backoff, Draws},
    ramp::Ramp,
    tally::{Tally, Verdict, Watch, Watched},
};
use crate::http::storing::after;

/// So many attempts may be under way while the origin is down, and when it begins to recover: a share of the permits
/// would be too many where the limit is far above what the origin bears.
const DOWN_CAP: usize = 8;
/// Without a limit a recovery is over when the origin bears so many attempts at the same time.
const GOAL_WITHOUT_LIMIT: usize = 64;

/// What one outcome weighs in the mean cost of an origin that is well.
const USUAL_WEIGHT: f64 = 1.0 / 64.0;
/// Costs below this differ by chance, in seconds.
const LEAST_COST: f64 = 0.001;

/// The settings of an origin's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HealthRules {
    pub(super) probe_every: Backoff,
    pub(super) probe_deadline: Duration,
    pub(super) stalled_after: Duration,
    /// Whether the state ever changes.
    pub(super) is_watched: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    Success,
    /// The origin has answered, or refused to, with a failure.
    Failure,
    /// The attempt was given up when its time was over.
    TimedOut,
    /// 429.
    TooMany,
    /// It says nothing about the origin: cancelled, or refused by the cache itself.
    Neither,
}

impl AttemptOutcome {
    const fn is_answer(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::TooMany)
    }
}

/// One of the probes of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProbeId(u64);

/// What is known of an attempt when it begins.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    epoch: u64,
    at: Instant,
    /// `None` with `counts`: each of its failures counts.
    key: Option<u64>,
    counts: bool,
    watched: Option<Watched>,
    probe: Option<ProbeId>,
    /// What a fetch of the same cost before.
    last_cost: Option<Duration>,
}

impl Begun {
    /// How long ago that was.
    pub(super) fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    /// Whether its outcome says anything about the origin.
    pub(super) const fn counts(&self) -> bool {
        self.counts
    }
}

/// What an attempt says of itself before it begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Subject {
    pub(super) key: Option<u64>,
    /// Whether its outcome counts at all.
    pub(super) counts: bool,
    pub(super) last_cost: Option<Duration>,
    pub(super) probe: Option<ProbeId>,
}

/// The state of one origin.
#[derive(Clone, Debug)]
pub(super) struct Health {
    rules: HealthRules,
    draws: Arc<Draws>,
    permits: Option<usize>,
    phase: Phase,
    /// The number of the state: it changes with it.
    epoch: u64,
    tally: Tally,
    watch: Watch,
    /// The mean cost of successes while the origin is up, in seconds.
    usual: Option<f64>,
    /// Since the origin was up.
    failed_probes: u32,
    /// When that was, and how often it went down again since.
    outage: Option<(Instant, u32)>,
    /// What is to be told of it.
    news: Vec<News>,
    probes: u64,
}

#[derive(Clone, Debug)]
enum Phase {
    Up,
    Down(Probing),
    Recovering(Ramp),
}

#[derive(Clone, Copy, Debug)]
enum Probing {
    Due(Instant),
    UnderWay { id: ProbeId, began: Instant },
}

impl Health {
    pub(super) fn new(rules: HealthRules, permits: Option<usize>, draws: Arc<Draws>, now: Instant) -> Self {
        Self {
            rules,
            draws,
            permits,
            phase: Phase::Up,
            epoch: 0,
            tally: Tally::new(now),
            watch: Watch::new(now),
            usual: None,
            failed_probes: 0,
            outage: None,
            news: Vec::new(),
            probes: 0,
        }
    }

    /// Sets the number of permits, of which what has something stale may hold so many.
    pub(super) fn limit(&mut self, permits: usize, of_stale: usize) {
        self.permits = Some(permits);
        self.watch.limit(of_stale);
    }

    pub(super) const fn state(&self) -> OriginState {
        match self.phase {
            Phase::Up => OriginState::Up,
            Phase::Down(_) => OriginState::Down,
            Phase::Recovering(_) => OriginState::Recovering,
        }
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many attempts that began in this state may be under way.
    pub(super) fn cap(&self, now: Instant) -> usize {
        let all = self.permits.unwrap_or(usize::MAX);
        match &self.phase {
            Phase::Up => all,
            Phase::Down(_) => self.down_cap(),
            Phase::Recovering(ramp) => ramp.cap(now).min(all),
        }
    }

    fn down_cap(&self) -> usize {
        self.permits.map_or(DOWN_CAP, |permits| DOWN_CAP.min(permits))
    }

    /// Whether this is the probe that is under way.
    pub(super) fn is_probe(&self, probe: ProbeId) -> bool {
        matches!(self.phase, Phase::Down(Probing::UnderWay { id, .. }) if id == probe)
    }

    /// Whether nothing is due, nor can become so by time alone.
    #[inline]
    pub(super) const fn is_calm(&self) -> bool {
        matches!(self.phase, Phase::Up) && self.watch.is_calm()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        match &self.phase {
            Phase::Down(Probing::UnderWay { began, .. })
                if now.saturating_duration_since(*began) >= self.rules.probe_deadline =>
            {
                let over = after(*began, self.rules.probe_deadline);
                self.probe_failed(over);
            }
            Phase::Recovering(ramp) if ramp.is_over(now) => self.go(Phase::Up, now),
            _ => {}
        }
        self.look_for_a_stall(now);
    }

    #[inline]
    fn look_for_a_stall(&mut self, now: Instant) {
        if !self.watch.is_calm() {
            self.end_a_stall(now);
        }
    }

    fn end_a_stall(&mut self, now: Instant) {
        let is_down = matches!(self.phase, Phase::Down(_));
        if !is_down && self.rules.is_watched && self.watch.is_stalled(self.rules.stalled_after, now) {
            self.go_down(now);
        }
    }

    /// Takes the place of the probe, if one is due.
    pub(super) fn claim_probe(&mut self, now: Instant) -> Option<ProbeId> {
        self.is_probe_due(now).then(|| {
            self.probes = self.probes.wrapping_add(1);
            let id = ProbeId(self.probes);
            self.phase = Phase::Down(Probing::UnderWay { id, began: now });
            id
        })
    }

    /// Gives the place of a probe back that has not begun.
    pub(super) fn leave_probe(&mut self, probe: ProbeId, now: Instant) {
        if self.is_probe(probe) {
            self.phase = Phase::Down(Probing::Due(now));
        }
    }

    /// The first time at which the origin can turn out to hang, unless it answers before.
    pub(super) fn stall_due(&self) -> Option<Instant> {
        let is_looked_for = self.rules.is_watched && !matches!(self.phase, Phase::Down(_));
        is_looked_for.then(|| self.watch.due(self.rules.stalled_after)).flatten()
    }

    /// When an attempt that begins now and is no probe has to be given up, if the state asks for that: at random in
    /// the last fifth of its time. Those that begin together would end together, and the next ones begin together
    /// again.
    pub(super) fn give_up_at(&self, deadline: Duration, now: Instant) -> Instant {
        after(now, self.draws.up_to_a_fifth_less(deadline))
    }

    /// Whether a probe may begin.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Down(Probing::Due(at)) if at <= now)
    }

    /// How long it takes until a probe may begin, as far as is known.
    pub(super) fn next_probe_in(&self, now: Instant) -> Duration {
        match self.phase {
            Phase::Down(Probing::Due(at)) => at.saturating_duration_since(now),
            Phase::Down(Probing::UnderWay { began, .. }) => {
                after(began, self.rules.probe_deadline).saturating_duration_since(now)
            }
            _ => Duration::ZERO,
        }
    }

    /// Notes that an attempt was held back by the cap of this state.
    pub(super) fn hold_back(&mut self, now: Instant) {
        if let Phase::Recovering(ramp) = &mut self.phase {
            ramp.hold_back(now);
        }
    }

    pub(super) fn begin(&mut self, subject: Subject, now: Instant) -> Begun {
        let Subject { key, counts, last_cost, probe } = subject;
        let watched = key.filter(|_| counts).and_then(|key| self.watch.begin(key, now));
        Begun { epoch: self.epoch, at: now, key, counts, watched, probe, last_cost }
    }

    /// Counts how an attempt ended, and how long it took. What began in another state says nothing about this one.
    pub(super) fn end(&mut self, begun: &Begun, outcome: AttemptOutcome, took: Duration, now: Instant) {
        if outcome.is_answer() {
            self.watch.answered(now);
        } else {
            // Before it is forgotten that it was under way.
            self.look_for_a_stall(now);
        }
        if begun.epoch != self.epoch {
            return;
        }
        if let Some(watched) = begun.watched {
            self.watch.end(watched, now);
        }
        let probe = begun.probe.filter(|probe| self.is_probe(*probe));
        match outcome {
            AttemptOutcome::Success if begun.counts => self.succeeded(begun, took, now),
            AttemptOutcome::Failure | AttemptOutcome::TimedOut if begun.counts => {
                self.failed(begun, probe, now);
            }
            // An origin that asks to be spared is alive.
            AttemptOutcome::TooMany if begun.counts => self.is_alive(now),
            _ => {
                if probe.is_some() {
                    // As if it had not been, and no sooner than the next one: callers that go away must not
                    // make one probe follow the other.
                    let wait = self.rules.probe_every.wait(self.failed_probes.saturating_add(1), &self.draws);
                    self.phase = Phase::Down(Probing::Due(after(begun.at, wait)));
                }
            }
        }
    }

    fn succeeded(&mut self, begun: &Begun, took: Duration, now: Instant) {
        let cost = seconds(took);
        match &mut self.phase {
            Phase::Up => {
                let usual = self.usual.get_or_insert(cost);
                *usual += (cost - *usual) * USUAL_WEIGHT;
                self.tally.success(now);
            }
            Phase::Down(_) => self.is_alive(now),
            Phase::Recovering(ramp) => {
                let usual = *self.usual.get_or_insert(cost);
                ramp.success(cost / begun.last_cost.map_or(usual, seconds), now);
                self.tally.success(now);
                self.tick(now);
            }
        }
    }

    fn failed(&mut self, begun: &Begun, probe: Option<ProbeId>, now: Instant) {
        let verdict = match &mut self.phase {
            Phase::Down(_) => {
                if probe.is_some() {
                    self.probe_failed(now);
                }
                return;
            }
            Phase::Up => self.tally.failure(begun.key, begun.at, now),
            Phase::Recovering(ramp) => {
                ramp.failure(now);
                // The share of failures is the ramp's affair.
                let verdict = self.tally.failure(begun.key, begun.at, now);
                Verdict { is_majority: false, ..verdict }
            }
        };
        if self.rules.is_watched && (verdict.is_streak || verdict.is_majority) {
            self.go_down(now);
        }
    }

    fn is_alive(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Down(_)) {
            let goal = self.permits.unwrap_or(GOAL_WITHOUT_LIMIT);
            self.go(Phase::Recovering(Ramp::new(self.down_cap(), goal, now)), now);
        }
    }

    fn probe_failed(&mut self, now: Instant) {
        self.failed_probes = self.failed_probes.saturating_add(1);
        self.phase = Phase::Down(self.next_probe(now));
    }

    fn next_probe(&self, now: Instant) -> Probing {
        let failures = self.failed_probes.saturating_add(1);
        Probing::Due(after(now, self.rules.probe_every.wait(failures, &self.draws)))
    }

    fn go_down(&mut self, now: Instant) {
        self.go(Phase::Down(self.next_probe(now)), now);
    }

    fn go(&mut self, phase: Phase, now: Instant) {
        self.note_news(&phase, now);
        if matches!(phase, Phase::Up) {
            self.failed_probes = 0;
        }
        self.phase = phase;
        self.epoch = self.epoch.wrapping_add(1);
        self.tally.restart(now);
        self.watch.restart(now);
    }

    fn note_news(&mut self, next: &Phase, now: Instant) {
        match (next, &mut self.outage) {
            (Phase::Down(_), None) => {
                self.outage = Some((now, 0));
                self.news.push(News::Down);
            }
            (Phase::Down(_), Some((_, relapses))) => *relapses = relapses.saturating_add(1),
            (Phase::Up, Some((began, relapses))) => {
                let lasted = now.saturating_duration_since(*began);
                self.news.push(News::UpAgain { lasted, relapses: *relapses });
                self.outage = None;
            }
            _ => {}
        }
    }

    /// Whether there is anything to tell.
    pub(super) const fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// What is to be told since the last call.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Takes note of a probe from outside the cache: a success ends an outage, and a failure says as much as that of
    /// a probe of our own. While the origin is not down neither means anything.
    pub(super) fn probed(&mut self, is_success: bool, now: Instant) {
        match &self.phase {
            Phase::Down(_) if is_success => self.is_alive(now),
            Phase::Down(Probing::Due(_)) => self.probe_failed(now),
            _ => {}
        }
    }
}

/// A cost to compare.
fn seconds(cost: Duration) -> f64 {
    cost.as_secs_f64().max(LEAST_COST)
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
