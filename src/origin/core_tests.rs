use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::origin::{
    health::{AttemptOutcome, Health, HealthRules, ProbeId, Subject},
    pause::{Backoff, Draws},
    wish::{Decided, Decision, HeldBack, Kind, Refusal, Standing, Wish},
};
use AttemptOutcome::{Failure, Neither, Success, TimedOut, TooMany};

const SECOND: Duration = Duration::from_secs(1);

fn core(permits: Option<usize>, places: usize, fails_fast: bool, now: Instant) -> Core<u32> {
    let rules = HealthRules {
        probe_every: Backoff { min: SECOND, max: 10 * SECOND },
        probe_deadline: 5 * SECOND,
        stalled_after: 10 * SECOND,
        is_watched: true,
    };
    let health = Health::new(rules, None, Draws::new(1), now);
    let mut core = Core::new(CoreRules { fails_fast, attempt_deadline: 5 * SECOND }, health);
    if let Some(permits) = permits {
        core.limit(permits, places);
    }
    core
}

/// An origin, its clock, and what waits.
struct Bench {
    core: Core<u32>,
    now: Instant,
    next_key: u64,
    next_item: u32,
    ids: HashMap<u32, Id>,
}

/// What came of an attempt.
#[derive(Debug)]
enum Came {
    In(Ticket),
    Waits(u32),
    Refused(Refusal),
}

impl Bench {
    fn with(permits: Option<usize>, places: usize, fails_fast: bool) -> Self {
        let now = Instant::now();
        let core = core(permits, places, fails_fast, now);
        Self { core, now, next_key: 0, next_item: 0, ids: HashMap::new() }
    }

    fn new(permits: usize) -> Self {
        Self::with(Some(permits), 1_000, false)
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.core.tick(self.now);
    }

    fn wait_for_probe(&mut self) {
        self.wait(self.core.health.next_probe_in(self.now));
    }

    /// A wish for a key of its own.
    fn miss(&mut self) -> Wish {
        self.next_key += 1;
        let subject = Subject { key: Some(self.next_key), counts: true, ..Subject::default() };
        Wish { subject, ..Wish::default() }
    }

    fn stale(&mut self) -> Wish {
        Wish { has_stale: true, ..self.miss() }
    }

    fn spare(&mut self, kind: Kind) -> Wish {
        Wish { kind, has_stale: kind == Kind::RefreshAhead, ..self.miss() }
    }

    fn enter_with(&mut self, wish: Wish, claim: Option<Claim>, class: u8, is_shared: bool) -> Came {
        self.core.tick(self.now);
        let came = match self.core.enter(&wish, claim, self.now) {
            Decision::Grant(ticket) => Came::In(ticket),
            Decision::Refuse(refusal) => Came::Refused(refusal),
            Decision::Queue => {
                self.next_item += 1;
                match self.core.push(wish, (class, is_shared), self.next_item, self.now) {
                    Ok(id) => {
                        self.ids.insert(self.next_item, id);
                        Came::Waits(self.next_item)
                    }
                    Err(_) => Came::Refused(Refusal::QueueFull),
                }
            }
        };
        self.core.settle(self.now);
        came
    }

    fn enter(&mut self, wish: Wish) -> Came {
        self.enter_with(wish, None, 0, false)
    }

    #[track_caller]
    fn begin(&mut self, wish: Wish) -> Ticket {
        match self.enter(wish) {
            Came::In(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn waits(&mut self, wish: Wish) -> u32 {
        match self.enter(wish) {
            Came::Waits(item) => item,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn is_refused(&mut self, wish: Wish) -> Refusal {
        match self.enter(wish) {
            Came::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn misses(&mut self, count: usize) -> Vec<Ticket> {
        (0..count)
            .map(|_| {
                let wish = self.miss();
                self.begin(wish)
            })
            .collect()
    }

    fn stales(&mut self, count: usize) -> Vec<Ticket> {
        (0..count)
            .map(|_| {
                let wish = self.stale();
                self.begin(wish)
            })
            .collect()
    }

    fn end(&mut self, ticket: Ticket, outcome: AttemptOutcome) -> Option<Hold> {
        self.core.tick(self.now);
        let hold = self.core.end(ticket, outcome, self.now);
        self.core.settle(self.now);
        hold
    }

    /// Ends an attempt and its response body.
    fn close(&mut self, ticket: Ticket, outcome: AttemptOutcome) {
        if let Some(hold) = self.end(ticket, outcome) {
            self.core.release(&hold);
            self.core.settle(self.now);
        }
    }

    /// Outcomes without permits.
    fn outcomes(&mut self, outcome: AttemptOutcome, count: usize) {
        for _ in 0..count {
            let Wish { subject, .. } = self.miss();
            let begun = self.core.health.begin(subject, self.now);
            self.core.health.end(&begun, outcome, begun.took(self.now), self.now);
            self.core.settle(self.now);
        }
    }

    fn go_down(&mut self) {
        self.outcomes(Failure, 20);
        assert_eq!(self.core.state(), OriginState::Down);
    }

    fn recover(&mut self) {
        self.outcomes(Success, 1);
        assert_eq!(self.core.state(), OriginState::Recovering);
    }

    fn granted(&mut self) -> Vec<(u32, Ticket)> {
        let decided = self.core.take_decided().into_iter();
        decided
            .map(|decided| match decided {
                Decided::Granted(item, ticket) => (item, ticket),
                Decided::Refused(item, refusal) => panic!("{item}: {refusal:?}"),
            })
            .collect()
    }

    fn refused(&mut self) -> Vec<(u32, Refusal)> {
        let decided = self.core.take_decided().into_iter();
        decided
            .map(|decided| match decided {
                Decided::Refused(item, refusal) => (item, refusal),
                Decided::Granted(item, _) => panic!("{item}"),
            })
            .collect()
    }

    fn in_use(&self) -> usize {
        self.core.used + usize::from(self.core.extra.is_some())
    }
}

#[test]
fn each_attempt_holds_a_permit_until_its_body_is_over() {
    let mut bench = Bench::new(2);
    let mut tickets = bench.misses(2);
    let wish = bench.miss();
    let item = bench.waits(wish);
    let hold = bench.end(tickets.remove(0), Success).unwrap();
    assert!(bench.granted().is_empty());
    bench.core.release(&hold);
    bench.core.settle(bench.now);
    assert_eq!(bench.granted()[0].0, item);
    assert_eq!(bench.in_use(), 2);
}

#[test]
fn without_a_limit_what_has_nothing_stored_always_begins() {
    let mut bench = Bench::with(None, 0, false);
    let up = bench.misses(100);
    bench.go_down();
    let down = bench.misses(100);
    assert!(down.iter().all(|ticket| bench.core.give_up_at(ticket).is_none()));
    bench.recover();
    bench.misses(100);
    for ticket in up.into_iter().chain(down) {
        assert!(bench.end(ticket, Success).is_none(), "there is no permit for the body");
    }
    assert_eq!(bench.in_use(), 100);
}

#[test]
fn while_down_eight_go_on_for_four_to_five_seconds_each() {
    let mut bench = Bench::new(64);
    bench.go_down();
    let tickets = bench.misses(8);
    let after = |ticket| bench.core.give_up_at(ticket).unwrap() - bench.now;
    assert!(tickets.iter().all(|ticket| (4 * SECOND..=5 * SECOND).contains(&after(ticket))));
    assert!(tickets.iter().any(|ticket| after(ticket) != after(&tickets[0])), "not all at the same time");
    let wish = bench.miss();
    let ninth = bench.waits(wish);
    for ticket in tickets {
        bench.close(ticket, TimedOut);
    }
    assert_eq!(bench.granted()[0].0, ninth);
    // What may change something is never broken off.
    let keyless = bench.begin(Wish::default());
    assert_eq!(bench.core.give_up_at(&keyless), None);
}

#[test]
fn what_is_exempt_begins_in_any_state_and_takes_nothing() {
    let mut bench = Bench::with(Some(1), 0, true);
    let _holder = bench.misses(1);
    let exempt = |bench: &mut Bench| Wish { is_exempt: true, ..bench.miss() };
    let wish = exempt(&mut bench);
    let ticket = bench.begin(wish);
    assert_eq!(bench.in_use(), 1);
    assert!(bench.end(ticket, Success).is_none());
    for _ in 0..20 {
        let wish = exempt(&mut bench);
        let ticket = bench.begin(wish);
        bench.close(ticket, Failure);
    }
    assert_eq!(bench.core.state(), OriginState::Down, "it counts");
    // It may be the probe: then the next one is due after it, and not at once.
    bench.wait_for_probe();
    let Ok(claim @ Some(Claim::Probe(_))) = bench.core.ask(bench.now) else { panic!("the probe is due") };
    let wish = exempt(&mut bench);
    let Decision::Grant(ticket) = bench.core.enter(&wish, claim, bench.now) else { panic!("it never waits") };
    assert_eq!((bench.in_use(), bench.core.give_up_at(&ticket)), (1, None));
    assert!(matches!(bench.core.ask(bench.now), Err(HeldBack::Down)));
    bench.close(ticket, Failure);
    assert!(matches!(bench.core.ask(bench.now), Err(HeldBack::Down)));
    // Without the right to be the probe it is none, and a failure of it says nothing.
    bench.wait_for_probe();
    let wish = Wish { has_stale: true, ..exempt(&mut bench) };
    let ticket = bench.begin(wish);
    assert!(bench.core.health.is_probe_due(bench.now));
    bench.close(ticket, Failure);
    assert!(bench.core.health.is_probe_due(bench.now));
    let ticket = bench.begin(wish);
    bench.close(ticket, Success);
    assert_eq!(bench.core.state(), OriginState::Recovering);
    // Nor does it keep a permit of the recovery.
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.recover();
    let Ok(claim @ Some(Claim::Permit(_))) = bench.core.ask(bench.now) else { panic!("one is free") };
    assert_eq!(bench.in_use(), 1);
    let Decision::Grant(_) = bench.core.enter(&wish, claim, bench.now) else { panic!("it never waits") };
    assert_eq!(bench.in_use(), 0);
}

#[test]
fn an_attempt_that_is_cancelled_at_its_deadline_has_failed() {
    for (after_begin, state) in
        [(SECOND, OriginState::Down), (SECOND - Duration::from_millis(1), OriginState::Up)]
    {
        let mut bench = Bench::new(64);
        let deadline = Some(bench.now + SECOND);
        let begin = |bench: &mut Bench| {
            let wish = Wish { deadline, ..bench.miss() };
            bench.begin(wish)
        };
        let tickets: Vec<_> = (0..20).map(|_| begin(&mut bench)).collect();
        bench.wait(after_begin);
        for ticket in tickets {
            bench.core.cancel(ticket, bench.now);
        }
        assert_eq!((bench.core.state(), bench.in_use()), (state, 0));
    }
}

#[test]
fn what_has_something_stale_is_held_back_while_down_but_for_one_probe() {
    let mut bench = Bench::new(64);
    bench.go_down();
    let wish = bench.stale();
    assert_eq!(bench.is_refused(wish), Refusal::HeldBack(HeldBack::Down));
    assert!(matches!(bench.core.ask(bench.now), Err(HeldBack::Down)));
    bench.wait_for_probe();
    let probe = bench.begin(wish);
    assert_eq!(bench.is_refused(wish), Refusal::HeldBack(HeldBack::Down));
    assert_eq!(bench.core.give_up_at(&probe), Some(bench.now + 5 * SECOND));
    bench.close(probe, Success);
    assert_eq!((bench.core.state(), bench.in_use()), (OriginState::Recovering, 0));
}

#[test]
fn a_probe_has_a_permit_of_its_own() {
    let mut bench = Bench::new(8);
    let _hung = bench.misses(8);
    bench.go_down();
    bench.wait_for_probe();
    let wish = bench.stale();
    let probe = bench.begin(wish);
    assert_eq!(bench.in_use(), 9);
    let wish = bench.miss();
    bench.waits(wish);
    // There is no other one that it could have, so that the next probe needs it.
    assert_eq!(bench.core.give_up_at(&probe), Some(bench.now + 5 * SECOND));
    bench.close(probe, TimedOut);
    assert!(bench.granted().is_empty(), "it is no permit for others");
    bench.wait_for_probe();
    let wish = bench.stale();
    bench.begin(wish);
    assert_eq!(bench.in_use(), 9);
}

#[test]
fn a_probe_over_its_time_holds_an_ordinary_permit() {
    let mut bench = Bench::new(9);
    let mut hung = bench.misses(8);
    bench.go_down();
    let mut slow = Vec::new();
    for in_use in [9, 10] {
        bench.wait_for_probe();
        let wish = bench.stale();
        slow.push(bench.begin(wish));
        assert_eq!(bench.in_use(), in_use);
        bench.wait(5 * SECOND);
    }
    assert_eq!((bench.core.used, bench.core.extra.is_some()), (9, true));
    // All permits and that of the probe are out: the next one has to wait.
    bench.wait_for_probe();
    let wish = bench.stale();
    assert_eq!(bench.is_refused(wish), Refusal::HeldBack(HeldBack::Down));
    assert!(bench.core.ask(bench.now).is_err());
    // The first permit that comes back is for it, before those that wait.
    let wish = bench.miss();
    bench.waits(wish);
    bench.close(hung.remove(0), TimedOut);
    assert!(bench.granted().is_empty());
    assert_eq!((bench.core.used, bench.core.extra), (9, None));
    let wish = bench.stale();
    let next = bench.begin(wish);
    for ticket in slow.into_iter().chain(hung).chain([next]) {
        bench.close(ticket, TimedOut);
    }
    assert_eq!((bench.granted().len(), bench.in_use()), (1, 1));
}

#[test]
fn a_late_success_of_a_probe_counts() {
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.wait_for_probe();
    let wish = bench.stale();
    let slow = bench.begin(wish);
    bench.wait(7 * SECOND);
    bench.close(slow, Success);
    assert_eq!((bench.core.state(), bench.in_use()), (OriginState::Recovering, 0));
}

#[test]
fn a_right_to_probe_that_is_not_used_is_free_at_once() {
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.wait_for_probe();
    let claim = bench.core.ask(bench.now).unwrap().unwrap();
    assert!(bench.core.ask(bench.now).is_err());
    bench.core.unclaim(&claim, bench.now);
    let claim = bench.core.ask(bench.now).unwrap();
    let wish = bench.stale();
    assert!(matches!(bench.enter_with(wish, claim, 0, false), Came::In(_)));
}

#[test]
fn a_right_ends_with_its_state() {
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.wait_for_probe();
    let probe = bench.core.ask(bench.now).unwrap();
    bench.wait(5 * SECOND);
    let wish = bench.stale();
    let came = bench.enter_with(wish, probe, 0, false);
    assert!(matches!(came, Came::Refused(Refusal::HeldBack(HeldBack::Down))), "{came:?}");
    bench.recover();
    let permit = bench.core.ask(bench.now).unwrap();
    assert_eq!(bench.in_use(), 1);
    bench.go_down();
    let came = bench.enter_with(wish, permit, 0, false);
    assert!(matches!(came, Came::Refused(Refusal::HeldBack(HeldBack::Down))), "{came:?}");
    assert_eq!(bench.in_use(), 0);
}

#[test]
fn fail_fast_refuses_what_has_nothing_stored_but_for_the_probe() {
    let mut bench = Bench::with(Some(64), 10, true);
    let _held = bench.misses(64);
    let wish = bench.miss();
    let waiting = bench.waits(wish);
    let keyless = bench.waits(Wish::default());
    bench.go_down();
    let next_probe = bench.core.health.next_probe_in(bench.now);
    assert_eq!(bench.refused(), [(waiting, Refusal::Down { next_probe })]);
    assert_eq!(bench.is_refused(wish), Refusal::Down { next_probe });
    assert!(bench.core.leave(bench.ids[&keyless]).is_some(), "it says nothing about the origin");
    bench.wait_for_probe();
    let probe = bench.begin(wish);
    assert!(matches!(bench.is_refused(wish), Refusal::Down { .. }));
    bench.close(probe, Success);
    assert_eq!(bench.core.state(), OriginState::Recovering);
}

#[test]
fn by_default_what_has_nothing_stored_is_no_probe() {
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.wait_for_probe();
    bench.misses(8);
    assert!(bench.core.health.is_probe_due(bench.now));
    let wish = bench.miss();
    bench.waits(wish);
}

#[test]
fn one_that_another_origin_may_answer_is_a_probe_or_takes_what_is_free() {
    let mut bench = Bench::new(64);
    assert!(matches!(bench.core.invite(true, bench.now), Ok(None)));
    // 429 is about what has something stale.
    let limited = bench.misses(1).remove(0);
    bench.close(limited, TooMany);
    assert!(bench.core.ask(bench.now).is_err());
    assert!(matches!(bench.core.invite(true, bench.now), Ok(None)));
    bench.go_down();
    assert!(matches!(bench.core.invite(true, bench.now), Err(HeldBack::Down)));
    bench.wait_for_probe();
    assert!(
        matches!(bench.core.invite(false, bench.now), Err(HeldBack::Down)),
        "it leaves the probe to others"
    );
    let claim = bench.core.invite(true, bench.now).unwrap();
    assert!(bench.core.invite(true, bench.now).is_err());
    let wish = bench.miss();
    let Came::In(probe) = bench.enter_with(wish, claim, 0, false) else { panic!() };
    bench.close(probe, Success);
    assert_eq!(bench.core.state(), OriginState::Recovering);
    let claims: Vec<_> = (0..8).map(|n| bench.core.invite(n % 2 == 0, bench.now).unwrap()).collect();
    assert_eq!((bench.core.stale, bench.core.given), (0, 8));
    assert!(matches!(bench.core.invite(true, bench.now), Err(HeldBack::Recovering)));
    claims.iter().flatten().for_each(|claim| bench.core.unclaim(claim, bench.now));
    let _misses = bench.misses(8);
    let wish = bench.miss();
    bench.waits(wish);
    assert!(bench.core.invite(true, bench.now).is_err());
}

#[test]
fn what_waits_with_something_stale_is_served_it_when_the_origin_goes_down() {
    let mut bench = Bench::new(4);
    let _held = bench.misses(4);
    let (stale, miss) = (bench.stale(), bench.miss());
    let (stale, _) = (bench.waits(stale), bench.waits(miss));
    bench.go_down();
    assert_eq!(bench.refused(), [(stale, Refusal::HeldBack(HeldBack::Down))]);
}

#[test]
fn what_has_something_stale_holds_three_quarters_at_most() {
    for (permits, most) in [(64, 48), (4, 3), (3, 2), (2, 1), (1, 1)] {
        let mut bench = Bench::new(permits);
        let mut held = bench.stales(most);
        if permits == 1 {
            continue;
        }
        let wish = bench.stale();
        let waiting = bench.waits(wish);
        // Those with nothing stored take what is left, past the one that waits for its share.
        let _misses = bench.misses(permits - most);
        let wish = bench.miss();
        bench.waits(wish);
        bench.close(held.remove(0), Success);
        assert_eq!(bench.granted()[0].0, waiting);
    }
}

#[test]
fn what_is_still_fresh_begins_below_a_part_in_use_and_never_waits() {
    for (kind, most) in [(Kind::RefreshAhead, 56), (Kind::WarmUp, 32)] {
        let mut bench = Bench::new(64);
        let mut held = bench.misses(most - 1);
        let wish = bench.spare(kind);
        held.push(bench.begin(wish));
        assert_eq!(bench.is_refused(wish), Refusal::Busy);
        bench.close(held.remove(0), Success);
        bench.begin(wish);
        assert!(bench.core.queue.is_empty());
    }
    // Not before those that wait.
    let mut bench = Bench::new(64);
    let _held = bench.stales(48);
    let stale = bench.stale();
    bench.waits(stale);
    let wish = bench.spare(Kind::WarmUp);
    assert_eq!(bench.is_refused(wish), Refusal::Busy);
}

#[test]
fn without_a_limit_what_is_still_fresh_begins_while_the_origin_is_up() {
    let mut bench = Bench::with(None, 0, false);
    for kind in [Kind::RefreshAhead, Kind::WarmUp] {
        let wish = bench.spare(kind);
        bench.begin(wish);
    }
    bench.go_down();
    let wish = bench.spare(Kind::RefreshAhead);
    assert_eq!(bench.is_refused(wish), Refusal::HeldBack(HeldBack::Down));
    bench.wait_for_probe();
    bench.begin(wish);
}

#[test]
fn during_a_recovery_what_has_something_stale_takes_only_what_is_free() {
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.recover();
    let mut tickets = bench.stales(8);
    let stale = bench.stale();
    assert_eq!(bench.is_refused(stale), Refusal::HeldBack(HeldBack::Recovering));
    assert!(matches!(bench.core.ask(bench.now), Err(HeldBack::Recovering)));
    let miss = bench.miss();
    let miss = bench.waits(miss);
    bench.close(tickets.remove(0), Success);
    assert_eq!(bench.granted()[0].0, miss);
    bench.close(tickets.remove(0), Success);
    let claim = bench.core.ask(bench.now).unwrap().unwrap();
    assert!(bench.core.ask(bench.now).is_err(), "a right is a permit");
    bench.core.unclaim(&claim, bench.now);
    assert!(bench.core.ask(bench.now).is_ok());
}

#[test]
fn without_a_limit_a_recovery_counts_what_says_something() {
    let mut bench = Bench::with(None, 0, false);
    bench.go_down();
    bench.recover();
    for _ in 0..100 {
        bench.begin(Wish::default());
    }
    bench.misses(5);
    bench.stales(3);
    let wish = bench.stale();
    assert_eq!(bench.is_refused(wish), Refusal::HeldBack(HeldBack::Recovering));
}

#[test]
fn permits_of_before_do_not_count_under_the_cap() {
    let mut bench = Bench::new(64);
    let hung = bench.misses(50);
    bench.go_down();
    let also_hung = bench.misses(8);
    bench.recover();
    let _new = bench.misses(6);
    assert_eq!(bench.in_use(), 64);
    let wish = bench.miss();
    bench.waits(wish);
    for ticket in hung.into_iter().chain(also_hung) {
        bench.close(ticket, TimedOut);
    }
    // Two more under the cap of eight.
    assert_eq!(bench.granted().len(), 1);
    bench.misses(1);
    let wish = bench.miss();
    bench.waits(wish);
    assert_eq!(bench.core.state(), OriginState::Recovering);
}

#[test]
fn a_recovery_goes_on_while_something_is_held_back() {
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.recover();
    let mut held = bench.misses(8);
    let miss = bench.miss();
    bench.waits(miss);
    // What waits is held back all the time.
    bench.wait(6 * SECOND);
    assert_eq!(bench.core.state(), OriginState::Recovering);
    held.drain(..).for_each(|ticket| bench.close(ticket, Neither));
    bench.wait(5 * SECOND);
    assert_eq!(bench.core.state(), OriginState::Up);
    // A refresh that no client waits for is no reason to go on.
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.recover();
    let _held = bench.stales(8);
    for _ in 0..5 {
        let wish = bench.spare(Kind::RefreshAhead);
        bench.is_refused(wish);
        bench.wait(SECOND);
    }
    assert_eq!(bench.core.state(), OriginState::Up);
}

#[test]
fn up_gives_all_permits_to_those_that_wait() {
    let mut bench = Bench::new(64);
    bench.go_down();
    bench.recover();
    let _held = bench.misses(8);
    for _ in 0..30 {
        let wish = bench.miss();
        bench.waits(wish);
    }
    bench.core.health.probed(true, bench.now);
    for _ in 0..2_000 {
        bench.outcomes(Success, 1);
    }
    assert_eq!(bench.core.state(), OriginState::Up);
    assert_eq!(bench.granted().len(), 30);
}

#[test]
fn a_permit_is_not_given_to_one_whose_time_is_over() {
    let mut bench = Bench::new(1);
    let mut held = bench.misses(1);
    let soon = Duration::from_millis(50);
    let late = Wish { leave_at: Some(bench.now + soon), ..bench.miss() };
    let late = bench.waits(late);
    let miss = bench.miss();
    let miss = bench.waits(miss);
    bench.wait(soon);
    bench.close(held.remove(0), Success);
    let decided = bench.core.take_decided();
    assert!(
        matches!(&decided[..], [Decided::Refused(one, Refusal::TooLate), Decided::Granted(other, _)]
            if (*one, *other) == (late, miss)),
        "{decided:?}"
    );
    let late = Wish { leave_at: Some(bench.now), ..bench.miss() };
    assert_eq!(bench.is_refused(late), Refusal::TooLate);
}

#[test]
fn a_full_queue_refuses_and_a_better_class_displaces() {
    let mut bench = Bench::with(Some(1), 1, false);
    let _held = bench.misses(1);
    let wish = bench.miss();
    let Came::Waits(worse) = bench.enter_with(wish, None, 3, false) else { panic!() };
    assert!(matches!(bench.enter_with(wish, None, 3, false), Came::Refused(Refusal::QueueFull)));
    assert!(matches!(bench.enter_with(wish, None, 2, false), Came::Waits(_)));
    assert_eq!(bench.refused(), [(worse, Refusal::QueueFull)]);
}

#[test]
fn a_free_permit_is_given_also_where_no_place_is_left() {
    let mut bench = Bench::with(Some(4), 1, false);
    let _held = bench.stales(3);
    let stale = bench.stale();
    bench.waits(stale);
    bench.misses(1);
}

#[test]
fn an_origin_that_asks_to_be_spared_bounds_what_has_something_stale() {
    let mut bench = Bench::new(64);
    assert_eq!(bench.core.standing(), Standing::Open);
    let tickets = bench.stales(2);
    for ticket in tickets {
        bench.close(ticket, TooMany);
    }
    assert_eq!((bench.core.state(), bench.core.standing()), (OriginState::Up, Standing::Bounded));
    let stale = bench.stale();
    assert_eq!(bench.is_refused(stale), Refusal::HeldBack(HeldBack::RateLimited));
    assert!(matches!(bench.core.ask(bench.now), Err(HeldBack::RateLimited)));
    let wish = bench.spare(Kind::WarmUp);
    assert_eq!(bench.is_refused(wish), Refusal::HeldBack(HeldBack::RateLimited));
    bench.misses(3);
    bench.wait(2 * SECOND);
    assert!(matches!(bench.core.ask(bench.now), Ok(None)));
    // 429 to a request that says nothing about the origin does not count.
    let mut bench = Bench::new(64);
    let keyless = bench.begin(Wish::default());
    bench.close(keyless, TooMany);
    assert_eq!(bench.core.standing(), Standing::Open);
}

#[test]
fn an_origin_that_hangs_is_noticed_by_the_next_attempt() {
    let mut bench = Bench::new(64);
    let _hung = bench.misses(5);
    bench.now += 10 * SECOND;
    let stale = bench.stale();
    assert_eq!(bench.is_refused(stale), Refusal::HeldBack(HeldBack::Down));
}

#[derive(Clone, Debug)]
enum Step {
    Enter { wish: usize, class: u8, is_shared: bool },
    Ask,
    Invite,
    Unclaim(usize),
    End { which: usize, outcome: usize },
    Release(usize),
    Leave(usize),
    Promote(usize),
    Wait { millis: u64 },
    Weather { fails: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (0..9_usize, 0..8_u8, any::<bool>())
            .prop_map(|(wish, class, is_shared)| Step::Enter { wish, class, is_shared }),
        2 => Just(Step::Ask),
        1 => Just(Step::Invite),
        1 => any::<usize>().prop_map(Step::Unclaim),
        10 => (any::<usize>(), 0..12_usize).prop_map(|(which, outcome)| Step::End { which, outcome }),
        7 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Promote),
        3 => (0..3_000_u64).prop_map(|millis| Step::Wait { millis }),
        1 => prop_oneof![Just(0_u8), Just(5), Just(12)].prop_map(|fails| Step::Weather { fails }),
    ];
    prop::collection::vec(step, 1..600)
}

/// All that is out of one core, and the promises about it.
#[derive(Default)]
struct Out {
    tickets: Vec<Ticket>,
    holds: Vec<Hold>,
    claims: Vec<Claim>,
    waiting: Vec<u32>,
}

impl Out {
    fn all_holds<'a>(&'a self, core: &'a Core<u32>) -> Vec<&'a Hold> {
        let under_way = self.tickets.iter().filter_map(|ticket| core.under_way.get(&ticket.0));
        let tickets = under_way.filter_map(|attempt| attempt.hold.as_ref());
        let claims = self.claims.iter().filter_map(|claim| match claim {
            Claim::Permit(hold) => Some(hold),
            Claim::Probe(_) => None,
        });
        tickets.chain(&self.holds).chain(claims).collect()
    }

    fn probes(&self, core: &Core<u32>) -> Vec<ProbeId> {
        let claims = self.claims.iter().filter_map(|claim| match claim {
            Claim::Probe(probe) => Some(*probe),
            Claim::Permit(_) => None,
        });
        self.all_holds(core).iter().filter_map(|hold| hold.probe).chain(claims).collect()
    }

    /// Takes over what was decided about those that wait.
    fn follow(&mut self, bench: &mut Bench) -> Result<(), TestCaseError> {
        for decided in bench.core.take_decided() {
            let item = match decided {
                Decided::Refused(item, _) => item,
                Decided::Granted(item, ticket) => {
                    self.tickets.push(ticket);
                    item
                }
            };
            let at = self.waiting.iter().position(|waiting| *waiting == item);
            prop_assert!(at.is_some(), "{} is decided and does not wait", item);
            at.into_iter().for_each(|at| _ = self.waiting.remove(at));
        }
        Ok(())
    }

    fn check(&self, bench: &Bench, given_before: (u64, usize)) -> Result<(), TestCaseError> {
        let Bench { core, now, .. } = bench;
        let holds = self.all_holds(core);
        prop_assert_eq!(bench.in_use(), holds.len(), "permits out are permits in use");
        let given = holds.iter().filter(|hold| hold.probe.is_none() && hold.epoch == core.epoch).count();
        prop_assert_eq!(core.given, given);
        let has_grown = given_before.0 != core.epoch || core.given > given_before.1;
        let needs_cap = core.permits.is_some() && has_grown;
        prop_assert!(!needs_cap || given <= core.health.cap(*now), "{} of {}", given, core.health.cap(*now));
        let stale = holds.iter().filter(|hold| hold.probe.is_none() && hold.has_stale).count();
        prop_assert_eq!(core.stale, stale);
        if let Some(permits) = core.permits {
            prop_assert!(core.used <= permits && holds.len() <= permits + 1);
            prop_assert!(stale <= (permits * 3 / 4).max(1));
            let waits_in_vain = core.queue.is_empty() || !core.has_room(*now) || !core.may_hold_stale();
            prop_assert!(waits_in_vain, "a permit is free for one that waits");
        }
        let probes = self.probes(core);
        prop_assert!(probes.iter().filter(|probe| core.health.is_probe(**probe)).count() <= 1);
        if core.state() == OriginState::Down {
            // Under way, or scheduled.
            let next = core.health.next_probe_in(*now);
            let is_under_way = probes.iter().any(|probe| core.health.is_probe(*probe));
            prop_assert!(
                next <= 10 * SECOND
                    && (is_under_way || next > Duration::ZERO || core.health.is_probe_due(*now))
            );
        }
        prop_assert_eq!(core.queue.len(), self.waiting.len());
        Ok(())
    }
}

fn wish(bench: &mut Bench, n: usize) -> Wish {
    match n {
        0..=2 => bench.stale(),
        3..=5 => bench.miss(),
        6 => Wish::default(),
        7 => bench.spare(Kind::RefreshAhead),
        _ => Wish { leave_at: Some(bench.now + SECOND), ..bench.miss() },
    }
}

fn take<T>(of: &mut Vec<T>, which: usize) -> Option<T> {
    (!of.is_empty()).then(|| of.swap_remove(which % of.len()))
}

fn outcome(n: usize, fails: u8) -> AttemptOutcome {
    match n {
        10 => Neither,
        11 => TooMany,
        n if n < usize::from(fails) => [Failure, TimedOut][n % 2],
        _ => Success,
    }
}

proptest! {
    #[test]
    fn the_promises_hold_at_each_step(
        steps in steps(), permits in prop::option::weighted(0.9, 1..40_usize), places in 0..12_usize,
        fails_fast in any::<bool>(),
    ) {
        let mut bench = Bench::with(permits, places, fails_fast);
        let (mut out, mut fails) = (Out::default(), 0);
        for step in steps {
            let before = (bench.core.epoch, bench.core.given);
            bench.core.tick(bench.now);
            out.follow(&mut bench)?;
            match step {
                Step::Enter { wish: n, class, is_shared } => {
                    let wish = wish(&mut bench, n);
                    let claim = if wish.subject.counts { out.claims.pop() } else { None };
                    match bench.enter_with(wish, claim, class, is_shared) {
                        Came::In(ticket) => out.tickets.push(ticket),
                        Came::Waits(item) => out.waiting.push(item),
                        Came::Refused(_) => {}
                    }
                }
                Step::Ask => out.claims.extend(bench.core.ask(bench.now).ok().flatten()),
                Step::Invite => out.claims.extend(bench.core.invite(true, bench.now).ok().flatten()),
                Step::Unclaim(which) => {
                    if let Some(claim) = take(&mut out.claims, which) {
                        bench.core.unclaim(&claim, bench.now);
                    }
                }
                Step::End { which, outcome: n } => {
                    if let Some(ticket) = take(&mut out.tickets, which) {
                        let hold = bench.end(ticket, outcome(n, fails));
                        out.holds.extend(hold);
                    }
                }
                Step::Release(which) => {
                    if let Some(hold) = take(&mut out.holds, which) {
                        bench.core.release(&hold);
                    }
                }
                Step::Leave(which) => {
                    if let Some(item) = take(&mut out.waiting, which) {
                        prop_assert_eq!(bench.core.leave(bench.ids[&item]), Some(item));
                    }
                }
                Step::Promote(which) => {
                    if let Some(item) = out.waiting.get(which % out.waiting.len().max(1)) {
                        bench.core.promote(bench.ids[item], 0);
                    }
                }
                Step::Wait { millis } => bench.wait(Duration::from_millis(millis)),
                Step::Weather { fails: n } => fails = n,
            }
            bench.core.settle(bench.now);
            out.follow(&mut bench)?;
            out.check(&bench, before)?;
        }
        // In the end nothing is left.
        while let Some(claim) = out.claims.pop() {
            bench.core.unclaim(&claim, bench.now);
        }
        while !(out.tickets.is_empty() && out.holds.is_empty() && out.waiting.is_empty()) {
            while let Some(ticket) = out.tickets.pop() {
                let hold = bench.end(ticket, Neither);
                out.holds.extend(hold);
            }
            out.holds.drain(..).for_each(|hold| bench.core.release(&hold));
            bench.core.settle(bench.now);
            out.follow(&mut bench)?;
        }
        prop_assert_eq!((bench.in_use(), bench.core.given, bench.core.stale), (0, 0, 0));
        prop_assert!(bench.core.queue.is_empty());
        if bench.core.state() == OriginState::Down {
            bench.wait(10 * SECOND);
            prop_assert!(matches!(bench.core.ask(bench.now), Ok(Some(Claim::Probe(_)))));
        }
    }
}

#[test]
fn a_probe_has_its_own_permit_for_its_time_and_no_longer() {
    let mut bench = Bench::new(2);
    bench.go_down();
    bench.wait_for_probe();
    let wish = bench.stale();
    let probe = bench.begin(wish);
    // What is never given up takes the ordinary ones while it is under way.
    let _held = [(); 2].map(|()| bench.begin(Wish::default()));
    let give_up_at = bench.core.give_up_at(&probe).expect("it may keep the next one from its permit");
    assert_eq!(give_up_at, bench.now + 5 * SECOND);
    bench.wait(5 * SECOND);
    assert_eq!(bench.in_use(), 3);
    assert!(!bench.core.may_go_on(&probe));
    bench.close(probe, TimedOut);
    bench.wait_for_probe();
    assert!(matches!(bench.core.ask(bench.now), Ok(Some(Claim::Probe(_)))));
}

#[test]
fn a_probe_that_has_an_ordinary_permit_after_its_time_goes_on() {
    let mut bench = Bench::new(2);
    bench.go_down();
    bench.wait_for_probe();
    let wish = bench.stale();
    let probe = bench.begin(wish);
    bench.wait(5 * SECOND);
    assert!(bench.core.may_go_on(&probe), "its permit is an ordinary one now");
    assert_eq!(bench.in_use(), 1);
    bench.close(probe, Success);
    assert_eq!(bench.core.state(), OriginState::Recovering, "its late success counts");
}
