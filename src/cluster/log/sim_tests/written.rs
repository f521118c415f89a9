//! Schedules that break one rule each, too rare for random ones. What random there is in them differs from seed to seed.

use super::*;

/// How it goes with these rules, and whether it is broken by that.
type Played = fn(&mut World) -> bool;

const SEEDS: u64 = 12;

/// In how many runs an invariant is broken.
fn broken(variant: Variant, leases: Leases, play: Played) -> usize {
    let is_broken = |seed: &u64| {
        played(|| {
            let mut world = World::new(*seed, Variant { leases: Some(leases), ..variant });
            (world.has_faults, world.promptness) = (false, 0.0);
            world.nodes.truncate(2);
            assert!(play(&mut world), "run {seed} is another schedule");
            world.violation.inspect(|violation| println!("run {seed}: {violation}")).is_some()
        })
    };
    (0..SEEDS).filter(is_broken).count()
}

fn judging(judging: registry::Rules) -> Variant {
    Variant { judging, ..Variant::default() }
}

impl World {
    fn all(&mut self) {
        while !self.sent.is_empty() {
            self.deliver();
        }
    }

    /// The first message of this kind from or to the node.
    fn only(&mut self, node: usize, is_it: impl Fn(&Call) -> bool) {
        let id = self.nodes[node].id;
        let place = self.sent.iter().position(|sent| sent.node == id && is_it(&sent.call));
        let sent = self.sent.remove(place.expect("it was sent"));
        self.pass(1);
        self.execute(node, sent.call);
    }

    /// Connects, and reads the log to its end.
    fn catch_up(&mut self, node: usize) {
        self.connect(node);
        for _ in 0..4 {
            self.read(node);
            self.all();
        }
        assert!(self.nodes[node].log.is_caught_up());
    }

    /// Stores what the origin has for the key now.
    fn fill(&mut self, node: usize, key: usize) {
        while !self.nodes[node].held.contains_key(&key) {
            self.request(node, key);
            self.all();
        }
    }

    /// A hard purge, that is in the log and read by its own node.
    fn purge(&mut self, node: usize, label: &'static str) {
        self.pass(1);
        self.issue(node, label, Strength::Hard, false);
        self.send_purge(node);
        self.only(node, |call| matches!(call, Call::Send(_)));
        self.only(node, |call| matches!(call, Call::Acknowledge(_)));
    }

    /// The node reads what there is, and then what is left to read.
    fn read_alone(&mut self, node: usize) {
        for _ in 0..2 {
            self.read(node);
            let id = self.nodes[node].id;
            while self.sent.iter().any(|sent| sent.node == id && sent.call.is_of_reader()) {
                self.only(node, Call::is_of_reader);
            }
        }
    }

    /// Whether a receipt of the last purge says that it is everywhere.
    fn confirm(&mut self, node: usize) -> bool {
        self.ask_everywhere(node);
        self.only(node, |call| matches!(call, Call::Look(_)));
        self.only(node, |call| matches!(call, Call::Look(_)));
        self.only(node, |call| matches!(call, Call::Looked(_)));
        self.purges.last().is_some_and(|purge| purge.confirmed.is_some())
    }

    /// Two nodes, of which the second has what is purged in a moment, and a registry that is old enough.
    fn begin(&mut self) {
        self.catch_up(0);
        self.catch_up(1);
        self.pass(300);
        self.catch_up(0);
        self.catch_up(1);
        self.fill(1, 0);
        self.catch_up(1);
    }
}

/// The others count the silence of a node from when it was told of, up to three seconds before the node has the answer.
#[test]
fn a_lease_counts_from_before_it_was_told_of() {
    let play: Played = |world| {
        world.begin();
        world.read(1);
        world.only(1, |call| matches!(call, Call::Register { .. }));
        world.only(1, |call| matches!(call, Call::Read { .. }));
        world.only(1, |call| matches!(call, Call::Check { .. }));
        world.pass(70);
        world.only(1, |call| matches!(call, Call::Answered { .. }));
        world.purge(0, "u0");
        world.pass(276 - 70);
        world.read_alone(0);
        let is_confirmed = world.confirm(0);
        world.pass(1);
        world.request(1, 0);
        is_confirmed
    };
    assert_eq!(broken(Variant::default(), Leases::All, play), 0);
    let late = Rules { hears_from_asking: false, ..Rules::default() };
    let late = Variant { rules: late, ..Variant::default() };
    assert_eq!(broken(late, Leases::All, play), usize::try_from(SEEDS).unwrap());
}

/// Of a node that reads first nothing is known while a purge is logged that it has not read.
#[test]
fn a_node_registers_before_it_reads_the_log() {
    fn play(world: &mut World) -> bool {
        world.catch_up(0);
        world.pass(300);
        world.catch_up(0);
        world.fill(0, 0);
        while !world.nodes[0].writes.is_empty() {
            world.write(0);
            world.all();
        }
        world.connect(1);
        world.read(1);
        // What it sends is done up to where it has read.
        if !world.variant.registers_after_reading {
            world.only(1, |call| matches!(call, Call::Register { .. }));
        }
        world.only(1, |call| matches!(call, Call::Read { .. }));
        world.purge(0, "u0");
        world.read_alone(0);
        let is_confirmed = world.confirm(0);
        world.pass(1);
        if world.variant.registers_after_reading {
            world.only(1, |call| matches!(call, Call::Register { .. }));
        }
        world.only(1, |call| matches!(call, Call::Check { .. }));
        world.only(1, |call| matches!(call, Call::Answered { .. }));
        world.request(1, 0);
        world.all();
        is_confirmed == world.variant.registers_after_reading
    }
    assert_eq!(broken(Variant::default(), Leases::None, play), 0);
    let late = Variant { registers_after_reading: true, ..Variant::default() };
    assert!(broken(late, Leases::None, play) > 0);
}

/// The registry was lost, and with it that of a node which serves on while its lease lasts.
#[test]
fn a_registry_that_is_young_does_not_know_all_nodes() {
    fn play(world: &mut World) -> bool {
        world.begin();
        world.drop_link(1);
        world.server.nodes.clear();
        world.restart(0);
        world.catch_up(0);
        world.purge(0, "u0");
        world.read_alone(0);
        let is_confirmed = world.confirm(0);
        world.pass(1);
        world.request(1, 0);
        is_confirmed != world.variant.judging.has_grace
    }
    assert_eq!(broken(Variant::default(), Leases::All, play), 0);
    let rules = registry::Rules { has_grace: false, ..registry::Rules::default() };
    assert_eq!(broken(judging(rules), Leases::All, play), usize::try_from(SEEDS).unwrap());
}

/// A node that serves on while it is cut off.
fn cut_off(world: &mut World, registry_is_lost: bool) -> bool {
    world.begin();
    world.catch_up(0);
    world.drop_link(1);
    if registry_is_lost {
        world.server.nodes.clear();
    }
    world.read_alone(0);
    world.purge(0, "u0");
    world.pass(300);
    world.read_alone(0);
    let is_confirmed = world.confirm(0);
    world.pass(1);
    world.request(1, 0);
    is_confirmed
}

#[test]
fn a_node_that_is_silent_is_named_and_not_left_out() {
    let play: Played = |world| cut_off(world, false) != world.variant.judging.names_silent;
    assert_eq!(broken(Variant::default(), Leases::None, play), 0);
    let rules = registry::Rules { names_silent: false, ..registry::Rules::default() };
    assert_eq!(broken(judging(rules), Leases::None, play), usize::try_from(SEEDS).unwrap());
}

#[test]
fn a_node_that_was_seen_in_a_registry_that_is_lost_is_named() {
    let play: Played = |world| cut_off(world, true) != world.variant.judging.remembers_nodes;
    assert_eq!(broken(Variant::default(), Leases::None, play), 0);
    let rules = registry::Rules { remembers_nodes: false, ..registry::Rules::default() };
    assert_eq!(broken(judging(rules), Leases::None, play), usize::try_from(SEEDS).unwrap());
}
