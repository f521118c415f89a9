//! The log, what is translated by it, and the registry under random schedules and faults: nodes with the real [`Log`],
//! [`Sequence`], [`Known`](registry::Known) and [`WhenCutOff`], and a scripted server with a replica that lags.
//!
//! Each call is at least two messages (executed, answered) that arrive in order, late or never. Three invariants:
//!
//! * A request that arrives after its node applied a purge gets nothing that was read at the origin before the
//!   purge was issued; after a soft one not as fresh, and after a gap only if a fetch failed.
//! * Once a receipt has said that a purge was applied everywhere, no node serves what it purged, whether it has
//!   applied it or is cut off: see [`receipts`].
//! * Once all is healed, no node holds as fresh what is older than a purge that did not end with its issuer.
//!
//! Run *i* of a variant depends on *i* alone. Each rule is seen missed where it is left out: those that are missed
//! often here, the others by a schedule that is written out, in [`written`] and `schedule_tests`.

mod receipts;
mod written;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;

use self::receipts::{Belonging, Confirmed, Look, Registration};
use super::{
    super::{
        cut_off::WhenCutOff,
        registry::{self, Survey},
    },
    outbox::Ticket,
    variant_tests::{self as variants, Begun, Own, Rules},
    *,
};
use crate::{
    MemoryStore, Purge as Handle,
    key::{CacheKey, DefaultKey},
    sequence::{Checked, MessageKind as Kind, PurgeCheck, PurgeKeys, Purging, Sequence, Strength},
    store::{PurgeTexts, Store},
};

const KEYS: usize = 3;
/// What a purge can name, and which keys that reaches.
const LABELS: [(&str, &[usize]); 6] =
    [("u0", &[0]), ("u1", &[1]), ("u2", &[2]), ("t01", &[0, 1]), ("t12", &[1, 2]), ("all", &[0, 1, 2])];

fn reaches(label: &str, key: usize) -> bool {
    LABELS.iter().any(|(name, keys)| *name == label && keys.contains(&key))
}

/// What a run leaves out of the rules.
#[derive(Clone, Copy, Debug)]
struct Variant {
    rules: Rules,
    judging: registry::Rules,
    registers_after_reading: bool,
    serves_unproven_while_revalidating: bool,
    is_silent_where_nothing_is_held: bool,
    /// What nodes do that are cut off; if it is not given, each run has its own.
    leases: Option<Leases>,
    runs: u64,
}

/// Which nodes validate once they were cut off for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leases {
    None,
    Some,
    All,
}

impl Default for Variant {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            judging: registry::Rules::default(),
            registers_after_reading: false,
            serves_unproven_while_revalidating: false,
            is_silent_where_nothing_is_held: false,
            leases: None,
            runs: 3000,
        }
    }
}

/// So long is a step of the simulation.
const STEP_MS: u64 = 40;

type PurgeId = usize;

/// What is known of a purge outside the nodes.
struct Issued {
    at: u64,
    label: &'static str,
    strength: Strength,
    by: usize,
    ticket: Option<Arc<Ticket>>,
    /// When it was in a log first.
    logged: Option<u64>,
    has_died: bool,
    confirmed: Option<Confirmed>,
}

/// A purge as the nodes apply it.
#[derive(Clone, Debug)]
struct Purge {
    nonce: u64,
    label: String,
    strength: Strength,
}

/// What was fetched, with what was found out about it.
struct Held {
    check: PurgeCheck,
    number: u64,
    keys: Arc<PurgeKeys>,
    read: u64,
}

impl Checked for Held {
    fn purge_check(&self) -> &PurgeCheck {
        &self.check
    }

    fn fetch_number(&self) -> u64 {
        self.number
    }

    fn purge_keys(&self) -> &Arc<PurgeKeys> {
        &self.keys
    }

    fn note_stale_since(&self, _: Instant) {
        self.check.is_stale_after(0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Fresh,
    WhileRevalidating,
    OnError,
}

/// How a request comes to what it gets.
#[derive(Clone)]
struct Request {
    key: usize,
    at: u64,
    /// The last purge that it knows of.
    floor: u64,
    applied: HashMap<PurgeId, Strength>,
}

struct Flight {
    node: u64,
    key: usize,
    begun: u64,
    floor: u64,
    requests: Vec<Request>,
    is_asked: bool,
    is_done: bool,
    is_slow: bool,
    patience: u64,
}

struct Node {
    /// Not the place: the process after a restart takes that over.
    id: u64,
    sequence: Arc<Sequence>,
    log: variants::Variant,
    keys: Vec<Arc<PurgeKeys>>,
    held: HashMap<usize, Held>,
    flights: BTreeMap<usize, usize>,
    writes: Vec<(usize, AsOf, u64)>,
    is_linked: bool,
    epoch: u64,
    is_reading: bool,
    is_hung: bool,
    away: u64,
    /// The process does nothing until then.
    stopped: u64,
    belonging: Belonging,
    applied: RefCell<HashMap<PurgeId, Strength>>,
}

/// What a node applies the log to, and what keeps count of it.
struct Applying<'a> {
    node: &'a Node,
    covers: &'a HashMap<u64, BTreeSet<PurgeId>>,
}

fn rank(strength: Option<Strength>) -> u8 {
    match strength {
        None => 0,
        Some(Strength::Hard) => 2,
        Some(_) => 1,
    }
}

impl Node {
    fn new(id: u64, name: String, when_cut_off: WhenCutOff, rules: Rules) -> Self {
        let store = MemoryStore::builder(1 << 16).floors(64).max_tag_records(1 << 12).max_prefix_records(16);
        let store = store.snapshots(true).build().unwrap();
        let sequence = Arc::clone(store.sequence());
        let belonging = Belonging::new(name, Handle::of(store, DefaultKey::new()), when_cut_off);
        let keys = (0..KEYS).map(|key| {
            let mut texts = PurgeTexts::default();
            texts.urls.push(format!("//h/{key}"));
            let labels = LABELS.iter().filter(|(label, _)| reaches(label, key));
            texts.tags = labels.map(|(label, _)| label.as_bytes().to_vec()).collect();
            let name = CacheKey::new(key.to_string());
            Arc::new(sequence.keys_from_texts(&name, texts).unwrap())
        });
        Self {
            id,
            keys: keys.collect(),
            sequence,
            log: variants::Variant::new(rules, 4),
            held: HashMap::new(),
            flights: BTreeMap::new(),
            writes: Vec::new(),
            is_linked: false,
            epoch: 0,
            is_reading: false,
            is_hung: false,
            away: 0,
            stopped: 0,
            belonging,
            applied: RefCell::default(),
        }
    }

    fn learn(&self, purge: PurgeId, strength: Strength) {
        let mut applied = self.applied.borrow_mut();
        if rank(Some(strength)) > rank(applied.get(&purge).copied()) {
            applied.insert(purge, strength);
        }
    }

    fn purge(&self, label: &str, strength: Strength) -> u64 {
        let what = match label {
            "all" => Purging::everything(),
            label => self.sequence.of_tag(label),
        };
        self.sequence.purge(&what, strength).0
    }

    fn floor(&self, key: usize) -> u64 {
        self.sequence.arrival(self.sequence.current(), Arc::clone(&self.keys[key])).floor
    }

    fn hold(&self, key: usize, number: u64, read: u64) -> Held {
        Held { check: PurgeCheck::new(number), number, keys: Arc::clone(&self.keys[key]), read }
    }

    /// What purges have left of it. `None`: nothing.
    fn judge(&self, held: &Held) -> Option<Strength> {
        if !self.sequence.admits(held) {
            return None;
        }
        Some(match (held.check.is_unproven(), held.check.stale_after()) {
            (true, _) => Strength::Unproven,
            (false, Some(_)) => Strength::Soft,
            // Stands for nothing at all here.
            (false, None) => Strength::Hard,
        })
    }
}

impl Target for Applying<'_> {
    type Purge = Purge;

    fn purge(&self, Purge { nonce, label, strength }: &Purge) -> u64 {
        for purge in self.covers.get(nonce).into_iter().flatten() {
            self.node.learn(*purge, *strength);
        }
        self.node.purge(label, *strength)
    }

    fn doubt(&self, strength: Strength) {
        self.node.sequence.purge(&Purging::everything(), strength);
    }

    fn current(&self) -> u64 {
        self.node.sequence.current()
    }
}

#[derive(Clone, Default)]
struct Server {
    run: u64,
    clock: i64,
    log: Option<Vec<(Position, Option<Purge>)>>,
    last: u64,
    deleted: u64,
    second_tier: HashMap<usize, (AsOf, u64)>,
    nodes: BTreeMap<String, String>,
    /// By how much its clock is ahead.
    ahead_ms: i64,
}

fn entry_id(number: u64) -> EntryId {
    EntryId { millis: number, number: 0 }
}

impl Server {
    fn add(&mut self, now: u64, nonce: u64, purge: Option<Purge>) -> Position {
        if self.log.is_none() {
            (self.last, self.deleted) = (0, 0);
        }
        self.last = (self.last + 1).max((now * 10).saturating_add_signed(self.clock));
        let position = Position { id: entry_id(self.last), nonce };
        self.log.get_or_insert_default().push((position, purge));
        position
    }
}

#[derive(Clone)]
enum Call {
    Register { registration: Registration, then: Option<Read> },
    Read { read: Read, registration: Option<Registration> },
    Check { read: Read, entries: Vec<(Position, Option<Purge>)>, is_full: bool, at: u64 },
    Answered { read: Read, reply: Reply<Purge>, at: u64, survey: Option<Survey> },
    Look(Look),
    Looked(Look),
    Mark,
    Send(Sending),
    Acknowledge(Position),
    Ask(usize),
    Told(usize, Option<(AsOf, u64)>),
    GiveUp(usize),
    AtOrigin(usize),
    Back(usize, u64, bool),
    Write(usize, (AsOf, u64)),
}

impl Call {
    /// Whether it is about reading the log.
    fn is_of_reader(&self) -> bool {
        matches!(self, Self::Register { .. } | Self::Read { .. } | Self::Check { .. } | Self::Answered { .. })
    }

    /// Whether it is executed by the server.
    fn is_of_server(&self) -> bool {
        matches!(
            self,
            Self::Register { .. }
                | Self::Read { .. }
                | Self::Check { .. }
                | Self::Look(_)
                | Self::Mark
                | Self::Send(_)
                | Self::Ask(_)
                | Self::Write(..)
        )
    }
}

struct Sent {
    node: u64,
    epoch: u64,
    call: Call,
    /// Comes in any order.
    is_late: bool,
    after: u64,
}

struct World {
    random: fastrand::Rng,
    variant: Variant,
    now: u64,
    server: Server,
    replica: Server,
    nodes: Vec<Node>,
    flights: Vec<Flight>,
    sent: Vec<Sent>,
    purges: Vec<Issued>,
    /// The purges for which an entry stands, by its nonce.
    covers: HashMap<u64, BTreeSet<PurgeId>>,
    ids: u64,
    has_faults: bool,
    promptness: f64,
    busy: f64,
    weights: [f64; 10],
    leases: Leases,
    favourite: usize,
    violation: Option<String>,
    is_at_rest: bool,
    fresh_from_second_tier: u64,
    confirmed: u64,
    confirmed_without: u64,
}

const FAULTS: [(f64, Fault); 14] = [
    (0.3, World::drop_link),
    (0.12, World::trim),
    (0.04, World::delete),
    (0.03, World::flush),
    (0.05, World::delete_one),
    (0.5, World::replicate),
    (0.08, World::fail_over),
    (0.06, World::restart),
    (0.25, World::burst),
    (0.12, World::cut_off),
    (0.05, World::slow_fetch),
    (0.1, World::hang),
    (0.1, World::lapse),
    (0.06, World::stop),
];

type Fault = fn(&mut World, usize);

impl World {
    fn new(seed: u64, variant: Variant) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = if random.bool() { 2 } else { 3 };
        let leases = [Leases::None, Leases::Some, Leases::All][random.usize(..3)];
        let weights = std::array::from_fn(|_| [1.0, 2.0, 4.0][random.usize(..3)]);
        let mut world = Self {
            promptness: [0.3, 0.6, 0.8, 0.9][random.usize(..4)],
            busy: [0.15, 0.4, 1.0, 2.0][random.usize(..4)],
            favourite: random.usize(..FAULTS.len() + 4),
            has_faults: random.f64() > 0.2,
            weights,
            leases: variant.leases.unwrap_or(leases),
            random,
            variant,
            now: 0,
            server: Server::default(),
            replica: Server::default(),
            nodes: Vec::new(),
            flights: Vec::new(),
            sent: Vec::new(),
            purges: Vec::new(),
            covers: HashMap::new(),
            ids: 10,
            violation: None,
            is_at_rest: true,
            fresh_from_second_tier: 0,
            confirmed: 0,
            confirmed_without: 0,
        };
        world.nodes = (0..count).map(|id| world.node(id, format!("n{id}"))).collect();
        world
    }

    /// Time passes, for all alike.
    fn pass(&mut self, steps: u64) {
        self.now += steps;
        // It has passed at the first poll, and gives others a turn after that.
        _ = tokio::time::advance(Duration::from_millis(steps * STEP_MS)).now_or_never();
    }

    fn is_stopped(&self, id: u64) -> bool {
        self.by_id(id).is_some_and(|node| self.now < self.nodes[node].stopped)
    }

    fn by_id(&self, id: u64) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    fn with_log<R>(&mut self, node: usize, f: impl FnOnce(&mut variants::Variant, &Applying<'_>) -> R) -> R {
        let none = variants::Variant::new(self.variant.rules, 0);
        let mut log = std::mem::replace(&mut self.nodes[node].log, none);
        let target = Applying { node: &self.nodes[node], covers: &self.covers };
        let result = f(&mut log, &target);
        self.nodes[node].log = log;
        result
    }

    fn send(&mut self, node: usize, call: Call, is_late: bool) {
        let Node { id, epoch, .. } = self.nodes[node];
        self.sent.push(Sent { node: id, epoch, call, is_late, after: 0 });
    }

    // Purges.

    fn issue(&mut self, node: usize, label: &'static str, strength: Strength, is_unsafe: bool) {
        if self.is_stopped(self.nodes[node].id) {
            return;
        }
        let is_idle = (0..KEYS).filter(|key| reaches(label, *key)).all(|key| {
            !self.nodes[node].held.contains_key(&key) && !self.nodes[node].flights.contains_key(&key)
        });
        let purge = self.purges.len();
        self.nodes[node].learn(purge, strength);
        let issued = Issued {
            at: self.now,
            label,
            strength,
            by: node,
            ticket: None,
            logged: None,
            has_died: false,
            confirmed: None,
        };
        self.purges.push(issued);
        if is_unsafe && is_idle && self.variant.is_silent_where_nothing_is_held {
            self.nodes[node].purge(label, strength);
            return;
        }
        let message = match label {
            "all" => Message::new(Kind::Everything, b"", strength),
            label => Message::new(Kind::Tag, label.as_bytes(), strength),
        };
        let ticket = self.with_log(node, |log, target| {
            let purge = || target.node.purge(label, strength);
            log.issue(&message, is_unsafe, Instant::now(), purge).1
        });
        self.purges[purge].ticket = Some(ticket);
        self.note_covers(node);
    }

    /// Which entries stand for which purges is only settled when they are sent.
    fn note_covers(&mut self, node: usize) {
        for (id, purge) in self.purges.iter().enumerate().filter(|(_, purge)| purge.by == node) {
            let nonce = purge.ticket.as_ref().and_then(|ticket| self.nodes[node].log.outbox.nonce_of(ticket));
            if let Some(nonce) = nonce {
                self.covers.entry(nonce).or_default().insert(id);
            }
        }
    }

    fn send_purge(&mut self, node: usize) {
        if self.nodes[node].is_linked
            && let Some(sending) = self.nodes[node].log.next_to_send(Instant::now())
        {
            self.send(node, Call::Send(sending), true);
        }
    }

    // Messages.

    fn deliver(&mut self) {
        let mut heads = Vec::new();
        let mut seen = BTreeSet::new();
        for (place, sent) in self.sent.iter().enumerate() {
            let is_first = sent.is_late || seen.insert(sent.node);
            let is_taken = sent.call.is_of_server() || !self.is_stopped(sent.node);
            if is_first && is_taken && sent.after <= self.now {
                heads.push(place);
            }
        }
        self.pass(1);
        if heads.is_empty() {
            return;
        }
        let Sent { node, epoch, call, is_late, .. } =
            self.sent.remove(heads[self.random.usize(..heads.len())]);
        let Some(place) = self.by_id(node) else { return };
        let Node { is_hung, epoch: current, .. } = self.nodes[place];
        // The connection of the log leads nowhere.
        if is_hung && !is_late && call.is_of_server() {
            return;
        }
        if epoch != current && !(is_late && self.random.bool()) {
            return;
        }
        self.execute(place, call);
    }

    fn execute(&mut self, node: usize, call: Call) {
        match call {
            Call::Register { registration, then } => {
                self.register(&registration);
                if let Some(read) = then {
                    self.send(node, Call::Read { read, registration: None }, false);
                }
            }
            Call::Read { read, registration } => {
                let log = self.server.log.as_deref().unwrap_or_default();
                let is_new =
                    |entry: &&(Position, Option<Purge>)| read.from.is_none_or(|from| entry.0.id > from.id);
                let entries: Vec<_> = log.iter().filter(is_new).take(3).cloned().collect();
                let is_full = entries.len() == 3;
                if let Some(registration) = registration {
                    self.send(node, Call::Register { registration, then: None }, false);
                }
                self.send(node, Call::Check { read, entries, is_full, at: self.now }, false);
            }
            Call::Check { read, entries, is_full, at } => {
                let log = self.server.log.as_deref().unwrap_or_default();
                let is_there = |position: &Position| read.from.is_some_and(|from| from.id == position.id);
                let anchor = log.iter().find(|(position, _)| is_there(position));
                let entry = |(position, purge)| Entry { position, purge };
                let reply = Reply {
                    entries: entries.into_iter().map(entry).collect(),
                    is_full,
                    anchor: anchor.map(|(position, _)| position.nonce),
                    deleted: entry_id(self.server.deleted),
                    has_failed: read.from.is_some() && self.server.log.is_none(),
                    extent: None,
                };
                let survey = self.is_look_due(node).then(|| self.survey_of(None));
                self.send(node, Call::Answered { read, reply, at, survey }, false);
            }
            Call::Answered { read, reply, at, survey } => self.answered(node, read, &reply, at, survey),
            Call::Look(look) => self.look(node, look),
            Call::Looked(look) => self.looked(node, look),
            Call::Mark => {
                let nonce = self.random.u64(..);
                self.server.add(self.now, nonce, None);
            }
            Call::Send(Sending { nonce, message }) => {
                let label =
                    if message.kind == Kind::Everything { "all".into() } else { message.text().into() };
                let purge = Purge { nonce, label, strength: message.strength };
                let position = self.server.add(self.now, nonce, Some(purge));
                for covered in self.covers.get(&nonce).into_iter().flatten() {
                    self.purges[*covered].logged.get_or_insert(self.now);
                }
                self.send(node, Call::Acknowledge(position), false);
            }
            Call::Acknowledge(position) => self.with_log(node, |log, _| log.acknowledged(position)),
            Call::Ask(flight) => {
                let found = self.server.second_tier.get(&self.flights[flight].key).copied();
                self.send(node, Call::Told(flight, found), true);
            }
            Call::Told(flight, found) => self.told(node, flight, found),
            Call::GiveUp(flight) => self.ask_origin(node, flight),
            Call::AtOrigin(flight) => self.at_origin(node, flight),
            Call::Back(flight, read, fails) => match fails {
                true => self.fail(node, flight),
                false => {
                    let begun = self.flights[flight].begun;
                    self.land(node, flight, read, begun, true);
                }
            },
            Call::Write(key, value) => drop(self.server.second_tier.insert(key, value)),
        }
    }

    fn answered(&mut self, node: usize, read: Read, reply: &Reply<Purge>, at: u64, survey: Option<Survey>) {
        self.nodes[node].is_reading = false;
        let gaps = self.nodes[node].log.gaps();
        let (next, heard_by) = self.with_log(node, |log, target| {
            let next = log.replied(read.from, reply, target);
            (next, log.heard_by(read, reply))
        });
        self.heard(node, heard_by, survey);
        let is_again = read.from.is_none() && self.nodes[node].log.position().is_some();
        if self.nodes[node].log.gaps() > gaps || is_again {
            self.know_gap(node, at);
        }
        if next == Next::Mark {
            self.send(node, Call::Mark, false);
        }
    }

    /// What a gap has to make up for: all that was in any log before.
    fn know_gap(&mut self, node: usize, at: u64) {
        for (id, purge) in self.purges.iter().enumerate() {
            let was_logged = purge.logged.is_some_and(|logged| logged <= at);
            if was_logged && !self.nodes[node].applied.borrow().contains_key(&id) {
                self.nodes[node].learn(id, Strength::Unproven);
            }
        }
    }

    // Connections.

    fn connect(&mut self, node: usize) {
        if self.nodes[node].is_linked || self.now < self.nodes[node].away && self.has_faults {
            return;
        }
        self.nodes[node].is_linked = true;
        let run = self.server.run;
        self.nodes[node].belonging.connected(&self.server);
        self.with_log(node, |log, target| log.connected(Some(run), Instant::now(), target));
    }

    fn read(&mut self, node: usize) {
        let is_stopped = self.is_stopped(self.nodes[node].id);
        if self.nodes[node].is_linked && !self.nodes[node].is_reading && !is_stopped {
            self.nodes[node].is_reading = true;
            let read = self.nodes[node].log.next_read(Instant::now());
            let registration = self.registration(node, read);
            let call = match self.variant.registers_after_reading {
                true => Call::Read { read, registration: Some(registration) },
                false => Call::Register { registration, then: Some(read) },
            };
            self.send(node, call, false);
        }
    }

    fn drop_link(&mut self, node: usize) {
        if !self.nodes[node].is_linked {
            return;
        }
        let Node { id, epoch, .. } = self.nodes[node];
        let mut kept = Vec::new();
        for mut sent in std::mem::take(&mut self.sent) {
            if sent.node == id && sent.epoch == epoch && !sent.is_late {
                // What the kernel has may still be executed.
                if !sent.call.is_of_server() || self.random.f64() > 0.4 {
                    continue;
                }
                (sent.epoch, sent.is_late) = (epoch + 1, true);
            }
            kept.push(sent);
        }
        self.sent = kept;
        let node = &mut self.nodes[node];
        (node.is_linked, node.is_reading, node.is_hung) = (false, false, false);
        node.epoch += 1;
        node.log.disconnected();
    }

    // Requests.

    fn request(&mut self, node: usize, key: usize) {
        let place = &self.nodes[node];
        if self.is_stopped(place.id) {
            return;
        }
        let applied = place.applied.borrow().clone();
        let request = Request { key, at: self.now, floor: place.floor(key), applied };
        let held = place.held.get(&key).map(|held| (place.judge(held), held.read));
        match held {
            Some((Some(Strength::Hard), read)) => return self.answer(node, &request, read, How::Fresh),
            Some((Some(left), read))
                if left == Strength::Soft || self.variant.serves_unproven_while_revalidating =>
            {
                self.answer(node, &request, read, How::WhileRevalidating);
                if !self.nodes[node].flights.contains_key(&key) {
                    self.fly(node, key, false);
                }
                return;
            }
            _ => {}
        }
        self.join(node, request, false);
    }

    /// Waits for a fetch that began after all purges of which the request knows.
    fn join(&mut self, node: usize, request: Request, skips_second_tier: bool) {
        let floor = self.nodes[node].floor(request.key);
        // Only what is fetched from now on will do.
        let is_cut_off = self.nodes[node].sequence.is_cut_off();
        let open = self.nodes[node].flights.get(&request.key).copied().filter(|_| !is_cut_off);
        let flight = match open.filter(|flight| self.flights[*flight].floor == floor) {
            Some(flight) if !skips_second_tier || self.flights[flight].is_asked => flight,
            _ => self.fly(node, request.key, skips_second_tier),
        };
        self.flights[flight].requests.push(request);
    }

    fn fly(&mut self, node: usize, key: usize, skips_second_tier: bool) -> usize {
        let place = &self.nodes[node];
        let floor = place.floor(key);
        let begun = place.sequence.begin(&place.keys[key]).number;
        let flight = Flight {
            node: place.id,
            key,
            begun,
            floor,
            requests: Vec::new(),
            is_asked: false,
            is_done: false,
            is_slow: false,
            patience: self.now + 100,
        };
        let id = self.flights.len();
        self.flights.push(flight);
        self.nodes[node].flights.insert(key, id);
        let place = &self.nodes[node];
        if place.is_linked && place.log.is_caught_up() && !skips_second_tier && self.random.f64() < 0.8 {
            self.send(node, Call::Ask(id), true);
            if self.random.f64() < 0.1 {
                self.send(node, Call::GiveUp(id), true);
            }
        } else {
            self.ask_origin(node, id);
        }
        id
    }

    fn told(&mut self, node: usize, flight: usize, found: Option<(AsOf, u64)>) {
        let Flight { is_done, is_asked, key, .. } = self.flights[flight];
        if is_done || is_asked {
            return;
        }
        if let Some((as_of, read)) = found {
            let begun = self.with_log(node, |log, target| log.begun(as_of, target));
            if let Some(begun) = begun {
                let held = self.nodes[node].hold(key, begun, read);
                if self.nodes[node].judge(&held) == Some(Strength::Hard) {
                    self.fresh_from_second_tier += 1;
                    return self.land(node, flight, read, begun, false);
                }
            }
        }
        self.ask_origin(node, flight);
    }

    fn ask_origin(&mut self, node: usize, flight: usize) {
        if !self.flights[flight].is_done && !self.flights[flight].is_asked {
            self.flights[flight].is_asked = true;
            self.send(node, Call::AtOrigin(flight), true);
        }
    }

    fn at_origin(&mut self, node: usize, flight: usize) {
        let (read, fails) = (self.now, self.random.f64() < 0.15);
        let takes_long = self.flights[flight].is_slow || self.random.f64() < 0.1;
        let after = self.now + if takes_long { self.random.u64(10..60) } else { 0 };
        let Node { id, epoch, .. } = self.nodes[node];
        let call = Call::Back(flight, read, fails);
        self.sent.push(Sent { node: id, epoch, call, is_late: true, after });
    }

    fn land(&mut self, node: usize, flight: usize, read: u64, begun: u64, is_from_origin: bool) {
        self.flights[flight].is_done = true;
        let key = self.flights[flight].key;
        if self.nodes[node].flights.get(&key) == Some(&flight) {
            self.nodes[node].flights.remove(&key);
        }
        let place = &self.nodes[node];
        let held = place.hold(key, begun, read);
        let is_newer = place.held.get(&key).is_none_or(|old| old.number <= begun);
        let is_stored = is_newer && place.judge(&held).is_some();
        let as_of = place.log.as_of(self.flights[flight].begun).filter(|_| is_from_origin && place.is_linked);
        let place = &mut self.nodes[node];
        place.writes.extend(as_of.map(|as_of| (key, as_of, read)));
        if is_stored {
            place.held.insert(key, held);
        }
        for request in std::mem::take(&mut self.flights[flight].requests) {
            // A purge of which the request knows lies after the beginning.
            if request.floor > begun {
                self.join(node, request, true);
            } else {
                self.answer(node, &request, read, How::Fresh);
            }
        }
    }

    fn fail(&mut self, node: usize, flight: usize) {
        self.flights[flight].is_done = true;
        let key = self.flights[flight].key;
        if self.nodes[node].flights.get(&key) == Some(&flight) {
            self.nodes[node].flights.remove(&key);
        }
        for request in std::mem::take(&mut self.flights[flight].requests) {
            let place = &self.nodes[node];
            let held = place.held.get(&key).filter(|held| place.judge(held).is_some());
            if let Some(read) = held.map(|held| held.read) {
                self.answer(node, &request, read, How::OnError);
            }
        }
    }

    /// The first two invariants.
    fn answer(&mut self, node: usize, request: &Request, read: u64, how: How) {
        for (id, purge) in self.purges.iter().enumerate() {
            if !reaches(purge.label, request.key) || read >= purge.at {
                continue;
            }
            let is_wrong = match request.applied.get(&id) {
                Some(Strength::Hard) => true,
                Some(Strength::Soft) => how == How::Fresh,
                Some(Strength::Unproven) => how != How::OnError,
                None => false,
            };
            let known = request.applied.get(&id);
            let confirmed =
                purge.confirmed.as_ref().filter(|confirmed| confirmed.holds(request.at, &self.nodes[node]));
            if let Some(confirmed) =
                confirmed.filter(|_| !is_wrong && receipts::is_denied(purge.strength, how))
            {
                self.violation.get_or_insert(format!(
                    "node {node} key {}: {how:?}, read at {read}, before purge {id} of {} at {}, which was \
                     everywhere at {}, known as {known:?} at {}",
                    request.key, purge.label, purge.at, confirmed.at, request.at
                ));
            }
            if is_wrong {
                self.violation.get_or_insert(format!(
                    "node {node} key {}: {how:?}, read at {read}, before purge {id} of {} at {}, known as {known:?} \
                     at {}",
                    request.key, purge.label, purge.at, request.at
                ));
            }
        }
    }

    // What happens.

    fn step(&mut self) {
        self.pass(1);
        let node = self.random.usize(..self.nodes.len());
        if self.is_stopped(self.nodes[node].id) {
            return self.deliver();
        }
        for flight in self.nodes[node].flights.values().copied().collect::<Vec<_>>() {
            if self.flights[flight].patience < self.now && self.flights[flight].node == self.nodes[node].id {
                self.ask_origin(node, flight);
            }
        }
        while !self.sent.is_empty() && self.random.f64() < self.promptness {
            self.deliver();
        }
        let acts: [(f64, Fault); 9] = [
            (8.0, Self::any_request),
            (2.0 * self.busy, Self::any_purge),
            (self.busy, Self::any_unsafe),
            (4.0, Self::read),
            (3.0, Self::send_purge),
            (4.0, Self::write),
            (4.0, |world, _| world.deliver()),
            (2.0, Self::evict),
            (2.0, Self::ask_everywhere),
        ];
        let mut all: Vec<(f64, Fault)> =
            acts.iter().zip(self.weights).map(|((share, act), weight)| (share * weight, *act)).collect();
        if self.has_faults {
            for (place, (share, fault)) in FAULTS.into_iter().enumerate() {
                all.push((share * if place == self.favourite { 12.0 } else { 1.0 }, fault));
            }
        }
        let total: f64 = all.iter().map(|(share, _)| share).sum();
        let mut left = self.random.f64() * total;
        let chosen = all.iter().position(|(share, _)| {
            left -= share;
            left < 0.0
        });
        let chosen = chosen.unwrap_or_default();
        let needs_link = [3, 4, 5, 8].contains(&chosen);
        if needs_link && !self.nodes[node].is_linked {
            if !self.has_faults || self.random.f64() < 0.3 {
                self.connect(node);
            }
            return;
        }
        all[chosen].1(self, node);
    }

    fn any_request(&mut self, node: usize) {
        let key = self.random.usize(..KEYS);
        self.request(node, key);
    }

    fn any_purge(&mut self, node: usize) {
        let label = ["t01", "t12", "t01", "t12", "u0", "u1", "all"][self.random.usize(..7)];
        let strength = [Strength::Hard, Strength::Hard, Strength::Soft][self.random.usize(..3)];
        self.issue(node, label, strength, false);
    }

    fn any_unsafe(&mut self, node: usize) {
        let label = ["u0", "u1", "u2"][self.random.usize(..3)];
        self.issue(node, label, Strength::Hard, true);
    }

    fn write(&mut self, node: usize) {
        let place = &mut self.nodes[node];
        if place.writes.is_empty() || !place.is_linked || !place.log.is_caught_up() {
            return;
        }
        let (key, as_of, read) = place.writes.swap_remove(self.random.usize(..place.writes.len()));
        self.send(node, Call::Write(key, (as_of, read)), true);
    }

    fn evict(&mut self, node: usize) {
        let key = self.random.usize(..KEYS);
        self.nodes[node].held.remove(&key);
    }

    // Faults.

    fn trim(&mut self, _: usize) {
        let left = [1, 2, 4][self.random.usize(..3)];
        if let Some(log) = &mut self.server.log {
            log.drain(..log.len().saturating_sub(left));
        }
    }

    fn delete(&mut self, _: usize) {
        (self.server.log, self.server.last, self.server.deleted) = (None, 0, 0);
    }

    fn flush(&mut self, node: usize) {
        self.delete(node);
        self.server.second_tier.clear();
        self.server.nodes.clear();
    }

    fn delete_one(&mut self, _: usize) {
        if let Some(log) = self.server.log.as_mut().filter(|log| !log.is_empty()) {
            let (position, _) = log.remove(self.random.usize(..log.len()));
            self.server.deleted = self.server.deleted.max(position.id.millis);
        }
    }

    fn replicate(&mut self, _: usize) {
        self.replica = self.server.clone();
    }

    fn fail_over(&mut self, _: usize) {
        self.ids += 1;
        self.server = Server { run: self.ids, ..self.replica.clone() };
        self.server.clock = [0, 0, -40, 60][self.random.usize(..4)];
        self.server.ahead_ms = [0, 0, -5_000, 60_000][self.random.usize(..4)];
        for node in 0..self.nodes.len() {
            if self.random.bool() {
                self.drop_link(node);
            } else if self.nodes[node].is_linked {
                self.nodes[node].is_hung = true;
            }
        }
        // What was on its way to the old server is gone.
        self.sent.retain(|sent| !sent.call.is_of_server());
    }

    fn restart(&mut self, node: usize) {
        self.ids += 1;
        let old = self.nodes[node].id;
        for purge in self.purges.iter_mut().filter(|purge| purge.by == node) {
            // Whether it is in the log or not: it may be lost from there, and no node is left to send it again.
            purge.has_died = true;
        }
        self.sent.retain(|sent| sent.node != old);
        let before = self.nodes[node].belonging.name().to_owned();
        if self.nodes[node].is_linked && self.random.f64() < 0.2 {
            self.depart(node);
        }
        let name = if self.random.bool() { before } else { format!("n{}", self.ids) };
        self.nodes[node] = self.node(self.ids, name);
    }

    fn burst(&mut self, node: usize) {
        let other = self.random.usize(..self.nodes.len());
        let (key, label) = [(0, "u0"), (1, "u1"), (2, "u2")][self.random.usize(..3)];
        let some = |world: &mut Self, most: usize| {
            for _ in 0..world.random.usize(..=most) {
                world.deliver();
            }
        };
        self.issue(node, label, Strength::Hard, true);
        self.send_purge(node);
        some(self, 3);
        self.read(other);
        some(self, 4);
        self.request(other, key);
        some(self, 4);
        if self.random.bool() {
            self.drop_link(node);
        }
        self.issue(node, label, Strength::Hard, true);
    }

    fn slow_fetch(&mut self, node: usize) {
        let key = self.random.usize(..KEYS);
        self.nodes[node].held.remove(&key);
        let flight = self.fly(node, key, true);
        self.flights[flight].is_slow = true;
        let other = self.random.usize(..self.nodes.len());
        for _ in 0..self.random.usize(2..6) {
            self.deliver();
        }
        let labels: Vec<_> = LABELS.iter().filter(|(label, _)| reaches(label, key)).collect();
        let label = labels[self.random.usize(..labels.len())].0;
        self.issue(other, label, Strength::Hard, false);
        self.send_purge(other);
        for _ in 0..self.random.usize(2..9) {
            self.deliver();
        }
        (0..self.nodes.len()).for_each(|node| self.read(node));
    }

    fn cut_off(&mut self, node: usize) {
        self.drop_link(node);
        self.nodes[node].away = self.now + self.random.u64(0..600);
    }

    fn hang(&mut self, node: usize) {
        if self.nodes[node].is_linked && self.random.bool() {
            self.nodes[node].is_hung = true;
        } else {
            self.drop_link(node);
        }
    }

    /// It goes on with what it was about to do.
    fn stop(&mut self, node: usize) {
        self.nodes[node].stopped = self.now + self.random.u64(0..600);
    }

    /// The third invariant.
    fn settle(&mut self) {
        self.has_faults = false;
        for node in 0..self.nodes.len() {
            self.nodes[node].stopped = 0;
            if self.nodes[node].is_hung {
                self.drop_link(node);
            }
        }
        for _ in 0..40 {
            self.pass(1);
            for node in 0..self.nodes.len() {
                self.connect(node);
                self.read(node);
                self.send_purge(node);
            }
            while !self.sent.is_empty() {
                self.deliver();
            }
        }
        for (place, node) in self.nodes.iter().enumerate() {
            self.is_at_rest &= node.log.is_caught_up() && node.log.waiting() == 0;
            for (key, held) in &node.held {
                let Some(left) = node.judge(held).filter(|left| *left != Strength::Unproven) else {
                    continue;
                };
                for (id, purge) in self.purges.iter().enumerate() {
                    let is_known = node.applied.borrow().contains_key(&id);
                    let is_older = reaches(purge.label, *key) && held.read < purge.at;
                    let is_wrong = left == Strength::Hard || purge.strength == Strength::Hard;
                    if is_older && is_wrong && (!purge.has_died || is_known) {
                        self.violation.get_or_insert(format!(
                            "at rest node {place} holds key {key}, read at {}, before purge {id} of {} at {}",
                            held.read, purge.label, purge.at
                        ));
                    }
                }
            }
        }
    }

    fn run(&mut self) {
        for node in 0..self.nodes.len() {
            if self.random.f64() < 0.8 {
                self.connect(node);
            }
        }
        if self.random.f64() < 0.7 {
            for _ in 0..12 {
                for node in 0..self.nodes.len() {
                    self.read(node);
                }
                while !self.sent.is_empty() {
                    self.deliver();
                }
            }
            if self.random.bool() {
                // The registry is old enough.
                self.pass(260);
                (0..self.nodes.len()).for_each(|node| self.read(node));
                (0..40).for_each(|_| self.deliver());
            }
        }
        for _ in 0..self.random.usize(80..360) {
            self.step();
        }
        self.settle();
    }
}

/// On a clock of its own.
fn played<R>(f: impl FnOnce() -> R) -> R {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let _guard = runtime.enter();
    f()
}

/// Runs a variant until an invariant is broken in words that have these, at most as often as it says.
fn first_broken(variant: Variant, words: &str) -> Option<(u64, String)> {
    (0..variant.runs).find_map(|seed| {
        let violation = played(|| {
            let mut world = World::new(seed, variant);
            world.run();
            world.violation
        });
        violation.filter(|violation| violation.contains(words)).map(|violation| (seed, violation))
    })
}

#[test]
fn the_rules_hold_under_random_schedules() {
    let runs = std::env::var("LOG_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(400);
    let (mut fresh, mut confirmed, mut confirmed_without, mut broken) = (0, 0, 0, None);
    for seed in 0..runs {
        let world = played(|| {
            let mut world = World::new(seed, Variant::default());
            world.run();
            world
        });
        assert!(world.is_at_rest, "run {seed} does not come to rest");
        fresh += world.fresh_from_second_tier;
        confirmed += world.confirmed;
        confirmed_without += world.confirmed_without;
        broken = broken.or(world.violation.map(|violation| (seed, violation)));
    }
    println!(
        "{runs} runs: {fresh} fresh from the second tier, {confirmed} confirmed, {confirmed_without} of them without a node"
    );
    assert_eq!(broken, None);
    assert!(fresh > runs / 2, "the second tier is of use: {fresh} times in {runs} runs");
    assert!(confirmed > runs / 2, "receipts are of use: {confirmed} in {runs} runs");
    assert!(
        confirmed_without > runs / 20,
        "nodes are not waited for: {confirmed_without} times in {runs} runs"
    );
}

/// Those of these variants in which nothing is ever broken in words that have these.
fn unnoticed(words: &str, variants: impl IntoIterator<Item = (&'static str, Variant)>) -> Vec<&'static str> {
    let is_unnoticed = |(name, variant)| match first_broken(variant, words) {
        Some((seed, violation)) => {
            println!("{name}: run {seed}: {violation}");
            None
        }
        None => Some(name),
    };
    variants.into_iter().filter_map(is_unnoticed).collect()
}

/// Each rule by itself.
#[test]
fn each_rule_of_the_log_is_missed_where_it_is_left_out() {
    let all = Rules::default();
    let with = |rules| Variant { rules, ..Variant::default() };
    let variants = [
        ("no gap is found", with(Rules { finds_gaps: false, new_run_is_gap: false, ..all })),
        ("the ring is kept over a gap", with(Rules { clears_ring: false, ..all })),
        ("own purges are forgotten when they are acknowledged", with(Rules { resends: false, ..all })),
        ("purges are merged with what was sent", with(Rules { knows_sent: false, ..all })),
        ("own purges that are not read back do not count", with(Rules { cuts_at_unread: false, ..all })),
        ("own purges are paired with their first number", with(Rules { own: Own::Paired, ..all })),
        ("own purges are applied twice", with(Rules { own: Own::AppliedTwice, ..all })),
        ("unproven once", with(Rules { doubts_twice: false, ..all })),
        ("a gap is a soft purge", with(Rules { gap_is_unproven: false, ..all })),
        ("an unknown entry is taken for the newest", with(Rules { begun: Begun::UnknownAsNow, ..all })),
        ("what the second tier has begins with the flight", with(Rules { begun: Begun::Now, ..all })),
        ("the entry is noted when the response is stored", with(Rules { as_of_from_begin: false, ..all })),
        ("a full outbox becomes a soft purge", with(Rules { overflow_is_unproven: false, ..all })),
    ];
    assert_eq!(unnoticed("", variants), Vec::<&str>::new());
}

#[test]
fn each_rule_of_a_node_is_missed_where_it_is_left_out() {
    let all = Variant::default();
    let variants = [
        (
            "unproven responses are served while they are revalidated",
            Variant { serves_unproven_while_revalidating: true, ..all },
        ),
        (
            "unsafe requests are silent where nothing is held",
            Variant { is_silent_where_nothing_is_held: true, ..all },
        ),
    ];
    assert_eq!(unnoticed("", variants), Vec::<&str>::new());
}
