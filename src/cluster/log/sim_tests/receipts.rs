//! Which nodes there are, how far each has applied the log, and what a receipt makes of that.
//!
//! A node registers with each read of the log, and hears by it of all that was purged. Once a receipt has said that a
//! purge was applied everywhere, a request gets nothing that is older: not as fresh, and after a hard purge not while it is
//! revalidated. That is so for nodes that have applied it, that are cut off and have a lease, and for those that join
//! later. One that serves on while it is cut off cannot be known where the registry was lost, and the receipt's node has
//! never seen it: it counts again once it has heard of all purges.

use super::{registry::Known, *};

const LEASE: Duration = Duration::from_secs(10);
const LEASE_STEPS: u64 = 250;
/// Between two looks at the registry.
const LOOK_STEPS: u64 = 50;
/// Of all clocks at the beginning.
const BEGUN_MS: u64 = 1_000_000;

/// How a node belongs to the cluster.
pub(super) struct Belonging {
    name: String,
    purge: Handle,
    when_cut_off: WhenCutOff,
    /// The run of the server from which the log is read.
    run: Option<String>,
    ahead_ms: i64,
    known: Known,
    looked: Option<u64>,
    /// When all was heard last.
    heard: Option<u64>,
}

/// What a node says of itself.
#[derive(Clone)]
pub(super) struct Registration {
    name: String,
    value: String,
    birth_field: String,
    at_ms: u64,
}

/// Of a receipt at the registry.
#[derive(Clone)]
pub(super) struct Look {
    purge: PurgeId,
    position: Position,
    pub(super) survey: Option<Survey>,
}

/// A receipt has said that the purge was applied everywhere.
pub(super) struct Confirmed {
    pub(super) at: u64,
    /// Nodes that the receipt could not know.
    unknown: BTreeSet<u64>,
}

impl Confirmed {
    /// Whether it says something about a request at that moment.
    pub(super) fn holds(&self, requested: u64, node: &Node) -> bool {
        let has_heard = node.belonging.heard.is_some_and(|heard| heard > self.at);
        self.at < requested && (has_heard || !self.unknown.contains(&node.id))
    }
}

/// Whether what a purge of this strength has reached is not served like that.
pub(super) fn is_denied(strength: Strength, how: How) -> bool {
    match how {
        How::Fresh => true,
        How::WhileRevalidating => strength == Strength::Hard,
        How::OnError => false,
    }
}

impl Belonging {
    pub(super) fn new(name: String, purge: Handle, when_cut_off: WhenCutOff) -> Self {
        when_cut_off.begin(&purge);
        Self {
            name,
            purge,
            when_cut_off,
            run: None,
            ahead_ms: 0,
            known: Known::default(),
            looked: None,
            heard: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn connected(&mut self, server: &Server) {
        (self.run, self.ahead_ms) = (Some(server.run_name()), server.ahead_ms);
    }
}

impl Server {
    fn run_name(&self) -> String {
        format!("r{}", self.run)
    }
}

fn clock_ms(now: u64, ahead_ms: i64) -> u64 {
    (BEGUN_MS + now * STEP_MS).saturating_add_signed(ahead_ms)
}

impl World {
    pub(super) fn node(&mut self, id: u64, name: String) -> Node {
        let has_lease = match self.leases {
            Leases::None => false,
            Leases::Some => self.random.bool(),
            Leases::All => true,
        };
        let when = if has_lease { WhenCutOff::ValidateAfter(LEASE) } else { WhenCutOff::ServeOn };
        Node::new(id, name, when, self.variant.rules)
    }

    pub(super) fn registration(&self, node: usize, read: Read) -> Registration {
        let Belonging { name, run, when_cut_off, ahead_ms, .. } = &self.nodes[node].belonging;
        let run = run.as_deref().unwrap_or_default();
        let at_ms = clock_ms(self.now, *ahead_ms);
        Registration {
            name: name.clone(),
            value: registry::registration(run, read.reported(), at_ms, when_cut_off.lease()),
            birth_field: registry::birth_field(run),
            at_ms,
        }
    }

    pub(super) fn register(&mut self, registration: &Registration) {
        let Registration { name, value, birth_field, at_ms } = registration.clone();
        self.server.nodes.insert(name, value);
        self.server.nodes.entry(birth_field).or_insert_with(|| at_ms.to_string());
    }

    pub(super) fn depart(&mut self, node: usize) {
        let departure = registry::departure(clock_ms(self.now, self.server.ahead_ms));
        self.server.nodes.insert(self.nodes[node].belonging.name.clone(), departure);
    }

    /// What the registry says, and the log at that position.
    pub(super) fn survey_of(&self, position: Option<Position>) -> Survey {
        let log = self.server.log.as_deref().unwrap_or_default();
        let entry = log.iter().find(|(at, _)| position.is_some_and(|position| position.id == at.id));
        Survey {
            run: self.server.run_name(),
            now_ms: clock_ms(self.now, self.server.ahead_ms),
            nonce: entry.map(|(at, _)| at.nonce),
            fields: self.server.nodes.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    pub(super) fn is_look_due(&mut self, node: usize) -> bool {
        let looked = &mut self.nodes[node].belonging.looked;
        let is_due = looked.is_none_or(|looked| self.now >= looked + LOOK_STEPS);
        if is_due {
            *looked = Some(self.now);
        }
        is_due
    }

    pub(super) fn heard(&mut self, node: usize, by: Option<Instant>, survey: Option<Survey>) {
        let now = self.now;
        let belonging = &mut self.nodes[node].belonging;
        if let Some(told_at) = by {
            belonging.heard = Some(now);
            belonging.when_cut_off.heard(&belonging.purge, told_at);
        }
        if let Some(survey) = survey {
            belonging.known.note(&survey);
        }
    }

    pub(super) fn ask_everywhere(&mut self, node: usize) {
        let is_asked = |(id, issued): (PurgeId, &Issued)| {
            let position = issued.ticket.as_ref()?.position()?;
            (issued.by == node && !issued.has_died && issued.confirmed.is_none()).then_some((id, position))
        };
        let asked: Vec<_> = self.purges.iter().enumerate().filter_map(is_asked).collect();
        if let Some((purge, position)) = self.random.choice(asked) {
            self.send(node, Call::Look(Look { purge, position, survey: None }), true);
        }
    }

    /// The server looks at the log and the registry, and then at its clock.
    pub(super) fn look(&mut self, node: usize, look: Look) {
        let now = self.survey_of(Some(look.position));
        let (call, is_late) = match look.survey {
            None => (Call::Look(Look { survey: Some(now), ..look }), true),
            Some(survey) => {
                let survey = Survey { run: now.run, now_ms: now.now_ms, ..survey };
                (Call::Looked(Look { survey: Some(survey), ..look }), true)
            }
        };
        self.send(node, call, is_late);
    }

    pub(super) fn looked(&mut self, node: usize, Look { purge, position, survey }: Look) {
        let Some(survey) = survey else { return };
        let rules = self.variant.judging;
        let Belonging { known, run, .. } = &mut self.nodes[node].belonging;
        let checked = known.check_by(rules, &survey, position, run.as_deref());
        if checked.is_err() || self.purges[purge].confirmed.is_some() {
            return;
        }
        let known = &self.nodes[node].belonging.known;
        let is_known = |name: &str| known.has(name) || survey.nodes().any(|(other, _)| other == name);
        let is_unknown = |node: &&Node| {
            let Belonging { name, when_cut_off, .. } = &node.belonging;
            when_cut_off.lease().is_none() && !is_known(name)
        };
        let unknown = self.nodes.iter().filter(is_unknown).map(|node| node.id).collect();
        let is_without = |node: &Node| !node.applied.borrow().contains_key(&purge);
        self.confirmed_without += u64::from(self.nodes.iter().any(is_without));
        self.confirmed += 1;
        self.purges[purge].confirmed = Some(Confirmed { at: self.now, unknown });
    }

    /// A node is away, or its answer late, for about the time of a lease, while another one purges and asks for its
    /// receipt.
    pub(super) fn lapse(&mut self, node: usize) {
        let other = self.random.usize(..self.nodes.len());
        let is_stopped = |node: usize| self.is_stopped(self.nodes[node].id);
        if other == node || !self.nodes[other].is_linked || is_stopped(node) || is_stopped(other) {
            return;
        }
        match self.random.usize(..4) {
            0 => {
                self.restart(node);
                self.connect(node);
                self.read(node);
                self.some(4);
                self.read(node);
            }
            1 => {
                self.drop_link(node);
                self.nodes[node].away = self.now + 10 * LEASE_STEPS;
            }
            2 => self.nodes[node].stopped = self.now + LEASE_STEPS + self.random.u64(..LEASE_STEPS),
            _ => self.nodes[node].is_hung = self.nodes[node].is_linked,
        }
        self.request(node, 0);
        self.up_to(6);
        // Enough of them are read in more than one piece.
        for _ in 0..self.random.usize(..4) {
            let label = LABELS[self.random.usize(..LABELS.len())].0;
            self.issue(other, label, Strength::Hard, false);
            self.send_purge(other);
            self.read(other);
            self.some(8);
        }
        self.issue(other, "all", Strength::Hard, false);
        self.send_purge(other);
        for _ in 0..8 {
            let steps = [0, LEASE_STEPS / 8, LEASE_STEPS / 6][self.random.usize(..3)];
            self.pass(steps);
            self.read(other);
            let count = self.random.u64(2..=8);
            self.some(count);
        }
        (0..3).for_each(|_| self.ask_everywhere(other));
        self.up_to(16);
        (self.nodes[node].away, self.nodes[node].stopped) = (0, 0);
        if self.nodes[node].is_hung {
            self.drop_link(node);
        }
        self.connect(node);
        self.read(node);
        self.up_to(6);
        self.request(node, 0);
    }

    fn some(&mut self, count: u64) {
        (0..count).for_each(|_| self.deliver());
    }

    fn up_to(&mut self, most: u64) {
        let count = self.random.u64(..=most);
        self.some(count);
    }
}

#[test]
fn each_rule_of_receipts_is_missed_where_it_is_left_out() {
    let all = Variant::default();
    let ids_alone = registry::Rules {
        finds_entry: false,
        compares_runs: false,
        names_silent: false,
        remembers_nodes: false,
        has_grace: false,
    };
    let variants = [
        ("the ids alone are compared", Variant { judging: ids_alone, leases: Some(Leases::None), ..all }),
        (
            "a lease counts before the log was read",
            Variant { rules: Rules { hears_at_end: false, ..all.rules }, leases: Some(Leases::All), ..all },
        ),
    ];
    assert_eq!(unnoticed("everywhere", variants), Vec::<&str>::new());
}
