//! An outage as it happens to a cache, on the core alone: requests and answers are events, and nothing is random
//! but by a seed. The bounds are wide: what they hold is the order of magnitude, and that an origin comes back.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    OriginState,
    core::{Claim, Core, CoreRules, Ticket},
    health::{AttemptOutcome, Health, HealthRules, Subject},
    pause::{Backoff, Draws, KeyPause},
    queue::Id,
    wish::{Decided, Decision, Wish},
};

/// What the origin does with an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// It takes as long as it takes.
    Work,
    Refuse,
    Hang,
    /// It fails with this probability, and works otherwise.
    Fail(f64),
    /// It answers after so many seconds.
    After(f64),
    /// It takes so many a second, and sends 429 to the rest.
    Rate(f64),
}

/// An origin with workers, which becomes slower when too much is in it, and may die of it.
struct Origin {
    workers: usize,
    /// Seconds of work for one attempt.
    cost: f64,
    /// The share of its speed with which it begins after it was down, to become whole in a minute.
    cold: f64,
    dies_at: usize,
    way: Box<dyn Fn(f64, i64) -> Way>,
    warm_since: Option<f64>,
    dead_until: f64,
    busy: usize,
    queue: VecDeque<u64>,
    working: Vec<u64>,
    tokens: (f64, f64),
    deaths: u32,
}

impl Origin {
    fn new(way: impl Fn(f64, i64) -> Way + 'static) -> Self {
        Self {
            workers: 10,
            cost: 0.05,
            cold: 1.0,
            dies_at: usize::MAX,
            way: Box::new(way),
            warm_since: None,
            dead_until: -1.0,
            busy: 0,
            queue: VecDeque::new(),
            working: Vec::new(),
            tokens: (1.0, 0.0),
            deaths: 0,
        }
    }

    fn speed(&mut self, t: f64) -> f64 {
        let since = *self.warm_since.get_or_insert(t);
        (self.cold + (1.0 - self.cold) * (t - since) / 60.0).min(1.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request(u8),
    Work(u64),
    Answer(u64, u8),
    TimeOver(u64),
    LeaveQueue(u32),
}

const OUTCOMES: [AttemptOutcome; 4] =
    [AttemptOutcome::Success, AttemptOutcome::Failure, AttemptOutcome::TimedOut, AttemptOutcome::TooMany];

struct Flight {
    deadline: f64,
    is_stale: bool,
}

#[derive(Debug, Default)]
struct Counts {
    calls: u32,
    calls_by_second: Vec<u32>,
    fresh: u32,
    stale: u32,
    stale_by_second: Vec<u32>,
    held_by_second: Vec<u32>,
    answered: u32,
    failed: u32,
    failed_by_second: Vec<u32>,
    too_many: u32,
    downs: u32,
}

/// A cache in front of one origin.
struct World {
    core: Core<u32>,
    origin: Origin,
    rng: fastrand::Rng,
    start: Instant,
    t: f64,
    until: f64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events_ever: u64,
    /// Requests a second for stored keys, and for keys that are asked for once.
    rates: [f64; 2],
    keys: usize,
    popularity: Vec<f64>,
    ttl: f64,
    deadline: f64,
    pause: KeyPause,
    fresh_until: HashMap<i64, f64>,
    failures: HashMap<i64, (u32, f64)>,
    flights: HashMap<i64, Flight>,
    attempts: HashMap<u64, (i64, Ticket)>,
    waiting: HashMap<u32, (i64, Id)>,
    next: u64,
    counts: Counts,
    was_down: bool,
}

fn count(by_second: &mut Vec<u32>, t: f64) {
    let second = t as usize;
    by_second.resize(by_second.len().max(second + 1), 0);
    by_second[second] += 1;
}

fn between(by_second: &[u32], from: usize, to: usize) -> u32 {
    by_second.iter().take(to).skip(from).sum()
}

impl World {
    fn new(origin: Origin, permits: usize, keys: usize) -> Self {
        Self::with(origin, permits, keys, false, true)
    }

    fn with(origin: Origin, permits: usize, keys: usize, fails_fast: bool, is_watched: bool) -> Self {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let rules = HealthRules {
            probe_every: Backoff { min: second, max: 10 * second },
            probe_deadline: 5 * second,
            stalled_after: 10 * second,
            is_watched,
        };
        let draws = Draws::new(5);
        let pause = KeyPause::new(Backoff { min: second, max: 30 * second }, draws.clone());
        let health = Health::new(rules, None, draws, start);
        let mut core = Core::new(CoreRules { fails_fast, attempt_deadline: 5 * second }, health);
        core.limit(permits, 256);
        let mut sum = 0.0;
        let popularity = (1..=keys)
            .map(|rank| {
                sum += (rank as f64).powf(-0.9);
                sum
            })
            .collect();
        Self {
            core,
            origin,
            rng: fastrand::Rng::with_seed(11),
            start,
            t: 0.0,
            until: 0.0,
            events: BinaryHeap::new(),
            events_ever: 0,
            rates: [0.0; 2],
            keys,
            popularity,
            ttl: 600.0,
            deadline: 10.0,
            pause,
            fresh_until: HashMap::new(),
            failures: HashMap::new(),
            flights: HashMap::new(),
            attempts: HashMap::new(),
            waiting: HashMap::new(),
            next: 0,
            counts: Counts::default(),
            was_down: false,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.t)
    }

    fn at(&mut self, t: f64, event: Event) {
        self.events_ever += 1;
        self.events.push(Reverse(((t * 1e6) as u64, self.events_ever, event)));
    }

    fn run(&mut self, stored: f64, unique: f64, until: f64) {
        self.rates = [stored, unique];
        self.until = until;
        for source in 0..2 {
            self.ask_again(source);
        }
        while let Some(Reverse((micros, _, event))) = self.events.pop() {
            self.t = micros as f64 / 1e6;
            self.core.tick(self.now());
            self.follow();
            self.happen(event);
            self.core.settle(self.now());
            self.follow();
            let is_down = self.core.state() == OriginState::Down;
            self.counts.downs += u32::from(is_down && !self.was_down && self.t <= self.until);
            self.was_down = is_down;
        }
        // At the end nothing is left.
        assert_eq!((self.attempts.len(), self.waiting.len(), self.flights.len()), (0, 0, 0));
    }

    fn ask_again(&mut self, source: u8) {
        let rate = self.rates[usize::from(source)];
        let t = self.t - (1.0 - self.rng.f64()).ln() / rate;
        if rate > 0.0 && t < self.until {
            self.at(t, Event::Request(source));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Request(source) => {
                let key = match source {
                    0 => {
                        let at = self.rng.f64() * self.popularity[self.keys - 1];
                        self.popularity.partition_point(|sum| *sum < at).min(self.keys - 1) as i64
                    }
                    _ => {
                        self.next += 1;
                        -(self.next as i64)
                    }
                };
                self.request(key);
                self.ask_again(source);
            }
            Event::Work(attempt) => self.work_done(attempt),
            Event::Answer(attempt, outcome) => self.answer(attempt, OUTCOMES[usize::from(outcome)]),
            Event::TimeOver(attempt) => self.time_over(attempt),
            Event::LeaveQueue(item) => {
                if let Some((key, id)) = self.waiting.remove(&item) {
                    self.core.leave(id);
                    self.fail(key, false);
                }
            }
        }
    }

    fn request(&mut self, key: i64) {
        if self.fresh_until.get(&key).is_some_and(|until| *until > self.t) {
            self.counts.fresh += 1;
            return;
        }
        if key < 0 {
            self.fly(key, None, false);
            return;
        }
        self.counts.stale += 1;
        count(&mut self.counts.stale_by_second, self.t);
        let is_paused = self.failures.get(&key).is_some_and(|(_, until)| self.t < *until);
        if self.flights.contains_key(&key) || is_paused && self.core.state() == OriginState::Up {
            return;
        }
        match self.core.ask(self.now()) {
            Ok(claim) => self.fly(key, claim, true),
            Err(_) => count(&mut self.counts.held_by_second, self.t),
        }
    }

    fn fly(&mut self, key: i64, claim: Option<Claim>, has_stale: bool) {
        let deadline = self.t + self.deadline;
        self.flights.insert(key, Flight { deadline, is_stale: has_stale });
        let hash = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        let last_cost = has_stale.then(|| Duration::from_secs_f64(self.origin.cost));
        let subject = Subject { key: Some(hash), counts: true, last_cost, probe: None };
        let wish = Wish { subject, has_stale, ..Wish::default() };
        match self.core.enter(&wish, claim, self.now()) {
            Decision::Grant(ticket) => self.call(key, ticket),
            Decision::Refuse(_) => self.fail(key, false),
            Decision::Queue => {
                self.next += 1;
                let item = self.next as u32;
                match self.core.push(wish, (u8::from(has_stale), has_stale), item, self.now()) {
                    Err(_) => self.fail(key, false),
                    Ok(id) => {
                        self.waiting.insert(item, (key, id));
                        self.at(self.t + self.deadline / 2.0, Event::LeaveQueue(item));
                    }
                }
            }
        }
    }

    /// Takes over what was decided about those that wait.
    fn follow(&mut self) {
        for decided in self.core.take_decided() {
            match decided {
                Decided::Granted(item, ticket) => {
                    let (key, _) = self.waiting.remove(&item).unwrap();
                    self.call(key, ticket);
                }
                Decided::Refused(item, _) => {
                    let (key, _) = self.waiting.remove(&item).unwrap();
                    self.fail(key, false);
                }
            }
        }
    }

    fn call(&mut self, key: i64, ticket: Ticket) {
        self.next += 1;
        let attempt = self.next;
        self.counts.calls += 1;
        count(&mut self.counts.calls_by_second, self.t);
        let mut over = self.flights[&key].deadline;
        if let Some(give_up_at) = self.core.give_up_at(&ticket) {
            over = over.min((give_up_at - self.start).as_secs_f64() + 1e-6);
        }
        self.attempts.insert(attempt, (key, ticket));
        self.at(over, Event::TimeOver(attempt));
        self.send(attempt, key);
    }

    /// A probe goes on to the deadline of its flight if it may.
    fn time_over(&mut self, attempt: u64) {
        self.core.tick(self.now());
        let Some((key, ticket)) = self.attempts.get(&attempt) else { return };
        match self.flights.get(key).map(|flight| flight.deadline) {
            // Events have times in whole microseconds.
            Some(deadline) if self.t + 1e-5 < deadline && self.core.may_go_on(ticket) => {
                self.at(deadline, Event::TimeOver(attempt));
            }
            _ => self.answer(attempt, AttemptOutcome::TimedOut),
        }
    }

    fn send(&mut self, attempt: u64, key: i64) {
        let t = self.t;
        let way = if t < self.origin.dead_until { Way::Refuse } else { (self.origin.way)(t, key) };
        match way {
            Way::Refuse => self.at(t + 0.001, Event::Answer(attempt, 1)),
            Way::Hang => {}
            Way::Fail(share) if self.rng.f64() < share => self.at(t + 0.005, Event::Answer(attempt, 1)),
            Way::After(seconds) => self.at(t + seconds, Event::Answer(attempt, 0)),
            Way::Rate(rate) => {
                let (tokens, since) = self.origin.tokens;
                let tokens = (tokens + (t - since) * rate).min(rate);
                let is_taken = tokens >= 1.0;
                self.origin.tokens = (tokens - f64::from(u8::from(is_taken)), t);
                self.at(t + 0.02, Event::Answer(attempt, if is_taken { 0 } else { 3 }));
            }
            Way::Work | Way::Fail(_) => {
                if self.origin.busy + self.origin.queue.len() + 1 > self.origin.dies_at {
                    self.die(attempt);
                    return;
                }
                self.origin.queue.push_back(attempt);
                self.work();
            }
        }
    }

    fn work(&mut self) {
        while self.origin.busy < self.origin.workers
            && let Some(attempt) = self.origin.queue.pop_front()
        {
            let origin = &mut self.origin;
            origin.busy += 1;
            let inside = origin.busy + origin.queue.len();
            let crowd = inside.saturating_sub(2 * origin.workers) as f64 / (8.0 * origin.workers as f64);
            let work = origin.cost * (0.5 + self.rng.f64()) * (1.0 + crowd) / origin.speed(self.t);
            origin.working.push(attempt);
            self.at(self.t + work, Event::Work(attempt));
        }
    }

    fn work_done(&mut self, attempt: u64) {
        let Some(at) = self.origin.working.iter().position(|working| *working == attempt) else { return };
        self.origin.working.swap_remove(at);
        self.origin.busy -= 1;
        self.answer(attempt, AttemptOutcome::Success);
        self.work();
    }

    fn die(&mut self, last: u64) {
        let origin = &mut self.origin;
        origin.deaths += 1;
        let victims: Vec<_> = origin.working.drain(..).chain(origin.queue.drain(..)).chain([last]).collect();
        origin.busy = 0;
        (origin.dead_until, origin.warm_since) = (self.t + 10.0, None);
        for victim in victims {
            self.at(self.t + 0.001, Event::Answer(victim, 1));
        }
    }

    fn answer(&mut self, attempt: u64, outcome: AttemptOutcome) {
        let Some((key, ticket)) = self.attempts.remove(&attempt) else { return };
        let now = self.now();
        if let Some(hold) = self.core.end(ticket, outcome, now) {
            self.core.release(&hold);
        }
        match outcome {
            AttemptOutcome::Success => {
                self.failures.remove(&key);
                if key >= 0 {
                    self.fresh_until.insert(key, self.t + self.ttl);
                }
                let flight = self.flights.remove(&key).unwrap();
                self.counts.answered += u32::from(!flight.is_stale);
            }
            _ => {
                self.counts.too_many += u32::from(outcome == AttemptOutcome::TooMany);
                self.fail(key, true);
            }
        }
    }

    fn fail(&mut self, key: i64, by_origin: bool) {
        let flight = self.flights.remove(&key).unwrap();
        if by_origin && key >= 0 {
            let (failures, until) = self.failures.entry(key).or_default();
            *failures += 1;
            *until = self.t + self.pause.wait(*failures, None).as_secs_f64();
        }
        if !flight.is_stale {
            self.counts.failed += 1;
            count(&mut self.counts.failed_by_second, self.t);
        }
    }

    fn stale_share(&self, from: usize, to: usize, rate: f64) -> f64 {
        f64::from(between(&self.counts.stale_by_second, from, to)) / ((to - from) as f64 * rate)
    }
}

fn refuses_until(seconds: f64) -> Origin {
    Origin::new(move |t, _| if t < seconds { Way::Refuse } else { Way::Work })
}

#[test]
fn one_hot_key_of_an_origin_that_refuses_is_tried_a_few_times() {
    let mut world = World::new(refuses_until(1e9), 64, 1);
    world.run(1_000.0, 0.0, 10.0);
    assert!((3..=12).contains(&world.counts.calls), "{:?}", world.counts.calls);
    assert_eq!(world.core.state(), OriginState::Up);
}

#[test]
fn an_outage_of_an_hour_costs_the_origin_a_few_probes() {
    let outage = 3_600.0;
    let mut world = World::new(refuses_until(outage), 64, 1_000);
    world.ttl = 300.0;
    world.run(100.0, 0.0, outage + 60.0);
    let Counts { calls_by_second, held_by_second, downs, .. } = &world.counts;
    let attempts = between(calls_by_second, 0, outage as usize);
    assert!((20..=20 + 3_600 / 5 + 5).contains(&attempts), "{attempts}");
    assert!(calls_by_second[..outage as usize].iter().max() <= Some(&22));
    assert_eq!(*downs, 1);
    let held_back = |from, to| between(held_by_second, outage as usize + from, outage as usize + to);
    assert_eq!(held_back(15, 60), 0, "{held_by_second:?}");
    assert!(between(held_by_second, 0, outage as usize) > 300_000);
    assert_eq!(world.core.state(), OriginState::Up);
}

#[test]
fn requests_with_nothing_stored_make_no_more_attempts_than_they_are() {
    let mut world = World::new(refuses_until(1e9), 64, 1);
    world.run(0.0, 1_000.0, 60.0);
    let Counts { calls, failed, .. } = world.counts;
    assert!(calls <= failed, "{calls} {failed}");
}

#[test]
fn a_cold_origin_comes_back_without_dying_again() {
    let cold = || Origin { cold: 0.2, dies_at: 40, ..refuses_until(30.0) };
    let mut world = World::new(cold(), 64, 20_000);
    world.run(2_000.0, 0.0, 150.0);
    assert_eq!((world.origin.deaths, world.counts.downs), (0, 1));
    let stale = world.stale_share(30, 150, 2_000.0);
    assert!(stale < 0.5, "{stale}");
    // Without a state it never does.
    let mut world = World::with(cold(), 64, 20_000, false, false);
    world.run(2_000.0, 0.0, 150.0);
    assert!(world.origin.deaths >= 5, "{}", world.origin.deaths);
}

#[test]
fn a_warm_origin_has_all_that_is_for_it_after_a_few_seconds() {
    let origin = Origin { workers: 100, ..refuses_until(20.0) };
    let mut world = World::new(origin, 64, 100_000);
    world.run(3_000.0, 0.0, 40.0);
    let calls = &world.counts.calls_by_second;
    assert!(between(calls, 31, 36) > 4_000, "{calls:?}");
}

#[test]
fn noise_after_an_outage_does_not_hold_it_down() {
    for share in [0.0, 0.01, 0.05] {
        let way = move |t, _| if t < 30.0 { Way::Refuse } else { Way::Fail(share) };
        let mut world = World::new(Origin { workers: 100, ..Origin::new(way) }, 64, 1_000);
        world.ttl = 20.0;
        world.run(300.0, 0.0, 120.0);
        assert_eq!((world.counts.downs, world.core.state()), (1, OriginState::Up), "{share}");
        let stale = world.stale_share(60, 120, 300.0);
        assert!(stale < 0.25, "{share}: {stale}");
    }
}

#[test]
fn an_origin_that_flaps_is_used_while_it_works() {
    let way = |t: f64, _| if ((t / 5.0) as u32).is_multiple_of(2) { Way::Work } else { Way::Refuse };
    let mut world = World::new(Origin { workers: 100, ..Origin::new(way) }, 64, 1_000);
    world.ttl = 20.0;
    world.run(100.0, 0.0, 300.0);
    let stale = world.stale_share(0, 300, 100.0);
    assert!(stale < 0.5, "{stale}");
}

#[test]
fn most_failures_with_nothing_stored_still_let_the_others_through() {
    let way = |t: f64, _| if (30.0..=90.0).contains(&t) { Way::Fail(0.6) } else { Way::Work };
    let run = |fails_fast| {
        let mut world = World::with(Origin { workers: 100, ..Origin::new(way) }, 64, 500, fails_fast, true);
        world.ttl = 30.0;
        world.run(50.0, 50.0, 120.0);
        let failed = between(&world.counts.failed_by_second, 30, 90);
        (failed, world.core.state())
    };
    let (goes_on, state) = run(false);
    assert_eq!(state, OriginState::Up);
    // 3,000 requests, of which two of five succeed.
    assert!((1_600..2_000).contains(&goes_on), "{goes_on}");
    let (fails_fast, state) = run(true);
    assert_eq!(state, OriginState::Up);
    assert!(fails_fast > goes_on + 300, "{fails_fast}");
}

#[test]
fn the_end_of_a_hang_is_seen_soon() {
    for fails_fast in [false, true] {
        let (mut worst, mut failed) = (0.0_f64, 0);
        for phase in 0..4 {
            let end = 80.0 + 2.7 * f64::from(phase);
            let way = move |t: f64, _| if (30.0..end).contains(&t) { Way::Hang } else { Way::Work };
            let mut world = World::with(Origin::new(way), 64, 500, fails_fast, true);
            (world.ttl, world.deadline) = (30.0, 30.0);
            world.run(50.0, 50.0, end + 40.0);
            assert_eq!(world.core.state(), OriginState::Up);
            assert_eq!(world.counts.downs, 1);
            let calls = &world.counts.calls_by_second;
            let seen = (end as usize..).find(|second| calls.get(*second).is_none_or(|calls| *calls > 20));
            worst = worst.max(seen.unwrap_or_default() as f64 - end);
            failed += between(&world.counts.failed_by_second, end as usize + 1, end as usize + 31);
        }
        assert!(worst <= 12.0, "{fails_fast}: {worst} s");
        // Of 1,500 requests each.
        assert!(failed / 4 < if fails_fast { 500 } else { 150 }, "{fails_fast}: {failed}");
    }
}

#[test]
fn keys_that_hang_leave_permits_to_the_others() {
    let way = |t: f64, key: i64| if t >= 30.0 && key % 2 == 1 { Way::Hang } else { Way::Work };
    let mut world = World::new(Origin { workers: 100, ..Origin::new(way) }, 64, 400);
    (world.ttl, world.deadline) = (10.0, 60.0);
    world.run(200.0, 40.0, 200.0);
    let Counts { failed, answered, .. } = world.counts;
    assert!(f64::from(failed) < 0.03 * f64::from(failed + answered), "{failed} of {answered}");
}

#[test]
fn an_origin_that_sends_429_gets_about_what_it_takes() {
    let way = |_, _| Way::Rate(50.0);
    let mut world = World::new(Origin::new(way), 64, 5_000);
    world.ttl = 30.0;
    world.run(300.0, 0.0, 120.0);
    let Counts { calls, too_many, downs, .. } = world.counts;
    let good = f64::from(calls - too_many) / 120.0;
    assert!((40.0..=51.0).contains(&good), "{good} a second");
    assert!(too_many < 120 * 8, "{too_many}");
    assert_eq!(downs, 0);
}

#[test]
fn an_origin_that_needs_eight_seconds_for_everything_is_up() {
    let mut world = World::new(Origin::new(|_, _| Way::After(8.0)), 1_000, 200);
    (world.ttl, world.deadline) = (10.0, 60.0);
    world.run(20.0, 1.0, 300.0);
    assert_eq!(world.counts.downs, 0);
    let way = |_, key| if key % 20 == 3 { Way::After(30.0) } else { Way::Work };
    let mut world = World::new(Origin::new(way), 1_000, 200);
    (world.ttl, world.deadline) = (10.0, 60.0);
    world.run(20.0, 1.0, 300.0);
    assert_eq!(world.counts.downs, 0);
}
