use super::*;
use proptest::prelude::*;

const MILLISECOND: Duration = Duration::from_millis(1);

fn waiter(class: u8, arrived: Instant) -> Waiter {
    Waiter { class, is_shared: false, has_stale: false, arrived }
}

fn shared(class: u8, arrived: Instant) -> Waiter {
    Waiter { is_shared: true, ..waiter(class, arrived) }
}

fn stale(waiter: Waiter) -> Waiter {
    Waiter { has_stale: true, ..waiter }
}

/// A queue and a name for each attempt.
struct Bench {
    queue: Queue<&'static str>,
    now: Instant,
}

impl Bench {
    fn new(places: usize) -> Self {
        Self { queue: Queue::new(places), now: Instant::now() }
    }

    fn wait(&mut self, milliseconds: u32) {
        self.now += milliseconds * MILLISECOND;
    }

    #[track_caller]
    fn place(&mut self, name: &'static str, waiter: impl Fn(Instant) -> Waiter) -> Id {
        match self.queue.push(waiter(self.now), name) {
            Pushed::Placed(id) => id,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[track_caller]
    fn displaces(&mut self, name: &'static str, waiter: impl Fn(Instant) -> Waiter) -> &'static str {
        match self.queue.push(waiter(self.now), name) {
            Pushed::Displacing(_, dropped) => dropped,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[track_caller]
    fn is_refused(&mut self, name: &'static str, waiter: impl Fn(Instant) -> Waiter) {
        assert_eq!(self.queue.push(waiter(self.now), name), Pushed::Full(name));
    }

    fn pop(&mut self) -> Option<&'static str> {
        self.queue.pop(self.now, |_| true).map(|(_, name)| name)
    }

    fn pop_all(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

#[test]
fn the_best_class_goes_first_and_what_is_below_the_lowest_counts_as_lowest() {
    let mut bench = Bench::new(8);
    bench.place("lowest", |now| waiter(7, now));
    bench.place("below", |now| waiter(200, now));
    bench.place("middle", |now| waiter(3, now));
    bench.place("best", |now| waiter(0, now));
    assert_eq!(bench.pop_all(), ["best", "middle", "lowest", "below"]);
    assert!(bench.queue.is_empty());
}

#[test]
fn single_callers_go_in_their_order_until_the_oldest_has_waited_long() {
    let mut bench = Bench::new(8);
    bench.place("1", |now| waiter(3, now));
    bench.wait(50);
    bench.place("2", |now| waiter(3, now));
    bench.place("3", |now| waiter(3, now));
    bench.place("4", |now| waiter(3, now));
    bench.place("other class", |now| waiter(4, now));
    bench.wait(49);
    assert_eq!(bench.pop(), Some("1"));
    // The oldest of those that are left came later.
    bench.wait(50);
    assert_eq!(bench.pop(), Some("2"));
    bench.wait(1);
    assert_eq!(bench.pop_all(), ["4", "3", "other class"]);
}

#[test]
fn shared_attempts_keep_their_order_however_long_they_wait() {
    let mut bench = Bench::new(8);
    for name in ["1", "2", "3"] {
        bench.place(name, |now| shared(3, now));
    }
    bench.wait(10_000);
    assert_eq!(bench.pop_all(), ["1", "2", "3"]);
}

#[test]
fn in_a_class_the_kind_whose_oldest_has_waited_longer_goes_first() {
    let mut bench = Bench::new(8);
    bench.place("single 1", |now| waiter(3, now));
    bench.place("shared 1", |now| shared(3, now));
    bench.place("single 2", |now| waiter(3, now));
    bench.wait(200);
    // The newest single caller, in place of the oldest.
    assert_eq!(bench.pop_all(), ["single 2", "single 1", "shared 1"]);

    bench.place("shared 1", |now| stale(shared(3, now)));
    bench.place("single 1", |now| waiter(3, now));
    bench.place("shared 2", |now| shared(3, now));
    assert_eq!(bench.pop_all(), ["shared 1", "single 1", "shared 2"]);
}

#[test]
fn every_fourth_grant_goes_to_a_shared_attempt_if_one_waits() {
    let mut bench = Bench::new(16);
    for name in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        bench.place(name, |now| waiter(0, now));
    }
    bench.place("low", |now| shared(7, now));
    bench.place("better", |now| stale(shared(5, now)));
    let order = ["1", "2", "3", "better", "4", "5", "6", "low", "7", "8"];
    assert_eq!(bench.pop_all(), order);
    // Grants while no shared attempt waited are not counted.
    bench.place("shared", |now| shared(7, now));
    bench.place("single", |now| waiter(0, now));
    assert_eq!(bench.pop_all(), ["single", "shared"]);
}

#[test]
fn the_newest_of_the_lowest_class_is_dropped() {
    let mut bench = Bench::new(3);
    bench.place("5 a", |now| waiter(5, now));
    bench.place("5 b", |now| waiter(5, now));
    bench.place("2", |now| waiter(2, now));
    bench.is_refused("5 c", |now| waiter(5, now));
    bench.is_refused("6", |now| waiter(6, now));
    assert_eq!(bench.displaces("4", |now| waiter(4, now)), "5 b");
    assert_eq!(bench.displaces("1", |now| waiter(1, now)), "5 a");
    assert_eq!(bench.displaces("0", |now| waiter(0, now)), "4");
    assert_eq!(bench.queue.len(), 3);
    assert_eq!(bench.pop_all(), ["0", "1", "2"]);
}

#[test]
fn a_quarter_of_the_places_is_for_shared_attempts() {
    let mut bench = Bench::new(8);
    for name in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        bench.place(name, |now| waiter(1, now));
    }
    assert_eq!(bench.displaces("a", |now| shared(7, now)), "8");
    assert_eq!(bench.displaces("b", |now| shared(7, now)), "7");
    // The quarter is full, and of the lowest class.
    bench.is_refused("c", |now| shared(7, now));
    assert_eq!(bench.displaces("d", |now| shared(3, now)), "b");
    // Single callers do not get at it, but drop each other.
    bench.is_refused("9", |now| waiter(1, now));
    assert_eq!(bench.displaces("0", |now| waiter(0, now)), "6");
    // A better class gets more than the quarter.
    assert_eq!(bench.displaces("e", |now| shared(0, now)), "a");
    assert_eq!(bench.displaces("f", |now| shared(0, now)), "d");
    assert_eq!(bench.displaces("g", |now| shared(0, now)), "5");
    // What is above the quarter can be dropped again.
    let mut bench = Bench::new(4);
    for name in ["a", "b", "c", "d"] {
        bench.place(name, |now| shared(6, now));
    }
    assert_eq!(bench.displaces("1", |now| waiter(5, now)), "d");
    assert_eq!(bench.displaces("2", |now| waiter(5, now)), "c");
    assert_eq!(bench.displaces("3", |now| waiter(5, now)), "b");
    bench.is_refused("4", |now| waiter(5, now));
}

#[test]
fn without_places_no_attempt_waits() {
    let mut bench = Bench::new(0);
    bench.is_refused("single", |now| waiter(0, now));
    bench.is_refused("shared", |now| shared(0, now));
    assert_eq!(bench.pop(), None);
}

#[test]
fn an_attempt_that_is_not_allowed_stands_before_no_other() {
    let mut bench = Bench::new(8);
    bench.place("stale 1", |now| stale(shared(0, now)));
    bench.place("stale 2", |now| stale(waiter(3, now)));
    bench.place("single", |now| waiter(3, now));
    bench.place("shared", |now| shared(3, now));
    bench.wait(200);
    let pop = |bench: &mut Bench| bench.queue.pop(bench.now, |waiter| !waiter.has_stale);
    assert_eq!(pop(&mut bench).unwrap().1, "single");
    assert_eq!(pop(&mut bench).unwrap().1, "shared");
    assert_eq!(pop(&mut bench), None);
    assert_eq!(bench.pop_all(), ["stale 1", "stale 2"]);
}

#[test]
fn the_turn_of_shared_attempts_waits_for_one_that_is_allowed() {
    let mut bench = Bench::new(16);
    for name in ["1", "2", "3", "4", "5"] {
        bench.place(name, |now| waiter(0, now));
    }
    bench.place("shared", |now| stale(shared(7, now)));
    for name in ["1", "2", "3", "4"] {
        assert_eq!(bench.queue.pop(bench.now, |waiter| !waiter.has_stale).unwrap().1, name);
    }
    assert_eq!(bench.pop_all(), ["shared", "5"]);
}

#[test]
fn what_leaves_is_out_once_and_frees_a_place() {
    let mut bench = Bench::new(2);
    let first = bench.place("1", |now| shared(3, now));
    let second = bench.place("2", |now| waiter(3, now));
    assert_eq!(bench.queue.remove(first), Some("1"));
    assert_eq!(bench.queue.remove(first), None);
    bench.place("3", |now| waiter(3, now));
    assert_eq!(bench.pop(), Some("2"));
    assert_eq!(bench.queue.remove(second), None);
    assert_eq!(bench.pop_all(), ["3"]);
}

#[test]
fn a_better_class_moves_an_attempt_up_and_leaves_it_its_age() {
    let mut bench = Bench::new(8);
    let first = bench.place("1", |now| shared(6, now));
    bench.place("2", |now| shared(3, now));
    bench.place("3", |now| shared(2, now));
    bench.queue.promote(first, 3);
    bench.queue.promote(first, 5);
    assert_eq!(bench.pop_all(), ["3", "1", "2"]);
    // It is gone.
    bench.queue.promote(first, 0);
    assert!(bench.queue.is_empty());
}

/// The rules once more, over a list in the order of arrival.
struct Model {
    places: usize,
    waiting: Vec<(Id, Waiter, u32)>,
    passed_over: usize,
}

impl Model {
    fn shared(&self) -> usize {
        self.waiting.iter().filter(|(_, waiter, _)| waiter.is_shared).count()
    }

    /// Which is dropped for a newcomer: `Err` is the newcomer itself.
    fn victim(&self, newcomer: &Waiter) -> Result<usize, ()> {
        let quarter = self.places / 4;
        let claims = newcomer.is_shared && self.shared() < quarter;
        let droppable = |waiter: &Waiter| match (waiter.is_shared, newcomer.is_shared) {
            (false, _) => true,
            (true, true) => !claims,
            (true, false) => self.shared() > quarter,
        };
        let all = self.waiting.iter().enumerate().filter(|(_, (_, waiter, _))| droppable(waiter));
        let lowest = all.map(|(at, (_, waiter, _))| (waiter.class, at)).max().ok_or(())?;
        if claims || lowest.0 > newcomer.class { Ok(lowest.1) } else { Err(()) }
    }

    fn pop(&mut self, now: Instant, is_allowed: impl Fn(&Waiter) -> bool) -> Option<u32> {
        let all: Vec<_> = self.waiting.iter().map(|(id, waiter, _)| (*id, *waiter)).collect();
        let allowed: Vec<_> = all.iter().filter(|(_, waiter)| is_allowed(waiter)).collect();
        let best = |shared: bool| {
            let of_kind = allowed.iter().filter(move |(_, waiter)| waiter.is_shared || !shared);
            of_kind.map(|(_, waiter)| waiter.class).min()
        };
        let in_class = |class: u8, shared: bool| {
            let found = allowed.iter().filter(move |(_, w)| w.class == class && w.is_shared == shared);
            found.copied().copied().collect::<Vec<_>>()
        };
        let shared_turn = if self.passed_over >= 3 { best(true) } else { None };
        let id = if let Some(class) = shared_turn {
            in_class(class, true)[0].0
        } else {
            let class = best(false)?;
            let (shared, single) = (in_class(class, true), in_class(class, false));
            match (shared.first(), single.first()) {
                (Some(shared), Some(single)) if shared.0 < single.0 => shared.0,
                (Some(shared), None) => shared.0,
                (_, Some(oldest)) if now - oldest.1.arrived >= LONG_WAIT => single.last()?.0,
                (_, Some(oldest)) => oldest.0,
                (None, None) => return None,
            }
        };
        let at = self.waiting.iter().position(|(other, ..)| *other == id)?;
        let (_, waiter, name) = self.waiting.remove(at);
        let passes = !waiter.is_shared && self.shared() > 0;
        self.passed_over = if passes { self.passed_over + 1 } else { 0 };
        Some(name)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { class: u8, is_shared: bool, has_stale: bool },
    Pop { may_stale: bool },
    Remove(usize),
    Promote(usize, u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let push = (0_u8..8, any::<bool>(), any::<bool>());
    prop_oneof![
        6 => push.prop_map(|(class, is_shared, has_stale)| Step::Push { class, is_shared, has_stale }),
        4 => any::<bool>().prop_map(|may_stale| Step::Pop { may_stale }),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), 0_u8..8).prop_map(|(at, class)| Step::Promote(at, class)),
        2 => (0_u64..80).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn the_queue_is_as_its_rules_say(places in 0_usize..12, steps in prop::collection::vec(step(), 0..200)) {
        let mut now = Instant::now();
        let mut queue = Queue::new(places);
        let mut model = Model { places, waiting: Vec::new(), passed_over: 0 };
        for (name, step) in (0_u32..).zip(steps) {
            match step {
                Step::Push { class, is_shared, has_stale } => {
                    let waiter = Waiter { class, is_shared, has_stale, arrived: now };
                    let victim = (model.waiting.len() >= places).then(|| model.victim(&waiter));
                    let dropped = victim.and_then(Result::ok).map(|at| model.waiting.remove(at).2);
                    match queue.push(waiter, name) {
                        Pushed::Placed(id) => {
                            prop_assert_eq!(victim, None);
                            model.waiting.push((id, waiter, name));
                        }
                        Pushed::Displacing(id, other) => {
                            prop_assert_eq!(Some(other), dropped);
                            model.waiting.push((id, waiter, name));
                        }
                        Pushed::Full(item) => {
                            prop_assert_eq!(item, name);
                            prop_assert_eq!(victim, Some(Err(())));
                        }
                    }
                }
                Step::Pop { may_stale } => {
                    let is_allowed = |waiter: &Waiter| may_stale || !waiter.has_stale;
                    let popped = queue.pop(now, is_allowed).map(|(_, name)| name);
                    prop_assert_eq!(popped, model.pop(now, is_allowed));
                }
                Step::Remove(at) if !model.waiting.is_empty() => {
                    let (id, _, name) = model.waiting.remove(at % model.waiting.len());
                    prop_assert_eq!(queue.remove(id), Some(name));
                }
                Step::Promote(at, class) if !model.waiting.is_empty() => {
                    let at = at % model.waiting.len();
                    let (id, waiter, _) = &mut model.waiting[at];
                    waiter.class = waiter.class.min(class);
                    queue.promote(*id, class);
                }
                Step::Remove(_) | Step::Promote(..) => {}
                Step::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
            }
            prop_assert_eq!(queue.len(), model.waiting.len());
            prop_assert!(queue.len() <= places);
        }
    }
}
