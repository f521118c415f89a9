//! Purges of this node of which the others have to hear.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::ring::Position;
use crate::{
    http::storing::after,
    sequence::{Message, MessageKind, Strength},
};

/// Where a purge stands that was issued here.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Mutex<Option<Position>>);

impl Ticket {
    /// Its entry in the log, once the server has said that it is there.
    pub(crate) fn position(&self) -> Option<Position> {
        *self.0.lock()
    }

    fn note(&self, position: Position) {
        *self.0.lock() = Some(position);
    }
}

/// One entry to be sent.
///
/// Once it was sent it says nothing more: a copy is known by its nonce, and does nothing where the first one was
/// applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) nonce: u64,
    pub(crate) message: Message,
}

#[derive(Debug)]
struct Waiting {
    sending: Sending,
    /// The least number of the purges for which it stands.
    number: u64,
    state: State,
    not_before: Option<Instant>,
    issued_at: Instant,
    /// Of all that it says, the one that it was made for first.
    tickets: Vec<Arc<Ticket>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The server cannot have it.
    New,
    /// The server may have it.
    Sent,
    /// The server may have it, and has to be told once more.
    Again,
}

/// What is to be sent, and what was sent and not read back yet: until then the server may have lost it.
///
/// To add, send and read back one is a few look-ups in sorted sets, also where most have to [pause](Pauses): after a
/// long absence of the server there may be as many as there is room for.
#[derive(Debug)]
pub(super) struct Outbox {
    /// In the order in which they are sent.
    waiting: BTreeMap<Place, Waiting>,
    places: HashMap<u64, Place>,
    /// Those with which others that are about the same may be merged.
    new: HashMap<Subject, Vec<Place>>,
    /// To be sent, the first in its order next.
    unsent: BTreeSet<Place>,
    /// To be sent from these moments on.
    paused: BTreeSet<(Instant, Place)>,
    numbers: BTreeSet<(u64, Place)>,
    /// What was read back lately, the oldest first.
    recent: VecDeque<Waiting>,
    most: usize,
    pauses: Pauses,
}

type Place = i64;
type Subject = (MessageKind, Box<[u8]>);

fn subject(message: &Message) -> Subject {
    (message.kind, message.argument.clone())
}

/// What of an own purge came of adding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It has an entry of its own.
    New,
    /// An entry that is not sent yet says it, too.
    Merged,
    /// There are too many. All of them are one entry now, which leaves everything unproven.
    Overflow,
}

/// So many purges that were read back are remembered, and for so long.
const MAX_RECENT: usize = 1024;
const RECENT: Duration = Duration::from_secs(60);

impl Outbox {
    pub(super) fn new(most: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            new: HashMap::new(),
            unsent: BTreeSet::new(),
            paused: BTreeSet::new(),
            numbers: BTreeSet::new(),
            recent: VecDeque::new(),
            most,
            pauses: Pauses::default(),
        }
    }

    /// Adds a purge with its local number. `nonce` is used unless another entry says it.
    pub(super) fn add(
        &mut self,
        nonce: u64,
        message: &Message,
        number: u64,
        is_invalidation: bool,
        now: Instant,
    ) -> (Added, Arc<Ticket>) {
        if let Some(ticket) = self.merge(message, number) {
            return (Added::Merged, ticket);
        }
        let ticket = Arc::new(Ticket::default());
        if self.waiting.len() >= self.most {
            self.overflow(nonce, number, &ticket, now);
            return (Added::Overflow, ticket);
        }
        let not_before = if is_invalidation { self.pauses.next(message, now) } else { None };
        self.push(Waiting {
            sending: Sending { nonce, message: message.clone() },
            number,
            state: State::New,
            not_before,
            issued_at: now,
            tickets: vec![Arc::clone(&ticket)],
        });
        (Added::New, ticket)
    }

    /// Lets an entry that the server cannot have yet say this as well, if there is one that can. It becomes of both
    /// what becomes of the entry.
    fn merge(&mut self, message: &Message, number: u64) -> Option<Arc<Ticket>> {
        for place in self.new.get(&subject(message)).into_iter().flatten().rev() {
            let Some(waiting) = self.waiting.get_mut(place) else { continue };
            if let Some(strength) = merged(waiting.sending.message.strength, message.strength) {
                waiting.sending.message.strength = strength;
                self.numbers.remove(&(waiting.number, *place));
                waiting.number = waiting.number.min(number);
                self.numbers.insert((waiting.number, *place));
                return Some(waiting.tickets.first().map(Arc::clone).unwrap_or_default());
            }
        }
        None
    }

    fn push(&mut self, waiting: Waiting) {
        let place = self.waiting.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        self.put(place, waiting);
    }

    fn put(&mut self, place: Place, waiting: Waiting) {
        self.places.insert(waiting.sending.nonce, place);
        self.numbers.insert((waiting.number, place));
        match waiting.not_before {
            _ if waiting.state == State::Sent => {}
            Some(not_before) => _ = self.paused.insert((not_before, place)),
            None => _ = self.unsent.insert(place),
        }
        if waiting.state == State::New {
            self.new.entry(subject(&waiting.sending.message)).or_default().push(place);
        }
        self.waiting.insert(place, waiting);
    }

    fn take(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.waiting.remove(&place)?;
        self.places.remove(&waiting.sending.nonce);
        self.numbers.remove(&(waiting.number, place));
        self.unsent.remove(&place);
        if let Some(not_before) = waiting.not_before {
            self.paused.remove(&(not_before, place));
        }
        self.is_not_new(place, &waiting.sending.message);
        Some(waiting)
    }

    /// Nothing can be merged with it any more.
    fn is_not_new(&mut self, place: Place, message: &Message) {
        let subject = subject(message);
        if let Some(places) = self.new.get_mut(&subject) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.new.remove(&subject);
            }
        }
    }

    /// One entry for all, with the least of their numbers.
    fn overflow(&mut self, nonce: u64, number: u64, ticket: &Arc<Ticket>, now: Instant) {
        let number = self.least_number().min(number);
        let replaced = std::mem::take(&mut self.waiting).into_values().flat_map(|waiting| waiting.tickets);
        let is_asked_for = |ticket: &Arc<Ticket>| Arc::strong_count(ticket) > 1;
        let tickets = std::iter::once(Arc::clone(ticket)).chain(replaced.filter(is_asked_for)).collect();
        (self.places, self.new) = (HashMap::new(), HashMap::new());
        (self.unsent, self.paused, self.numbers) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let sending = Sending { nonce, message: Message::doubt() };
        let state = State::New;
        self.push(Waiting { sending, number, state, not_before: None, issued_at: now, tickets });
    }

    /// The next entry to be sent, which counts as sent from now on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Sending> {
        while let Some((not_before, place)) = self.paused.first().copied()
            && not_before <= now
        {
            self.paused.pop_first();
            self.unsent.insert(place);
        }
        let place = self.unsent.pop_first()?;
        let waiting = self.waiting.get_mut(&place)?;
        waiting.state = State::Sent;
        let sending = waiting.sending.clone();
        self.is_not_new(place, &sending.message);
        Some(sending)
    }

    /// When the next entry may be sent, if one has to wait.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.paused.first().map(|(not_before, _)| *not_before)
    }

    pub(super) fn acknowledged(&self, position: Position) {
        let waiting = self.places.get(&position.nonce).and_then(|place| self.waiting.get(place));
        waiting.into_iter().flat_map(|waiting| &waiting.tickets).for_each(|ticket| ticket.note(position));
    }

    /// The entry was read back: the log has it.
    pub(super) fn read_back(&mut self, position: Position) {
        self.acknowledged(position);
        let place = self.places.get(&position.nonce).copied();
        if let Some(waiting) = place.and_then(|place| self.take(place)) {
            if self.recent.len() >= MAX_RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(waiting);
        }
    }

    /// The server is another one, which may have lost what it had. Nodes that had not read it learn what was
    /// purged, and not only that something is missing.
    pub(super) fn tell_again(&mut self, now: Instant) {
        let room = self.most.saturating_sub(self.waiting.len());
        let is_recent = |waiting: &Waiting| now < after(waiting.issued_at, RECENT);
        let recent = std::mem::take(&mut self.recent).into_iter().filter(is_recent);
        let again: Vec<_> = recent.map(|waiting| Waiting { state: State::Again, ..waiting }).collect();
        let first = self.waiting.first_key_value().map_or(0, |(first, _)| *first);
        // The newest, if there is no room for all, and in the order in which they were issued.
        for (before, waiting) in (1..).zip(again.into_iter().rev().take(room)) {
            self.put(first.saturating_sub(before), waiting);
        }
    }

    /// Nothing is known any more of what was sent: all of it goes out once more.
    pub(super) fn send_again(&mut self) {
        for (place, waiting) in self.waiting.iter_mut().filter(|(_, waiting)| waiting.state == State::Sent) {
            waiting.state = State::Again;
            self.unsent.insert(*place);
        }
    }

    /// Of the purges that the log may not have.
    pub(super) fn least_number(&self) -> u64 {
        self.numbers.first().map_or(u64::MAX, |(number, _)| *number)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// What only tests ask, and what only a log does that leaves out a rule.
#[cfg(test)]
impl Outbox {
    /// The entry that stands for the purge of this ticket, until it is read back.
    pub(super) fn nonce_of(&self, ticket: &Arc<Ticket>) -> Option<u64> {
        let is_it = |own: &Arc<Ticket>| Arc::ptr_eq(own, ticket);
        self.waiting.values().find(|waiting| waiting.tickets.iter().any(is_it)).map(|w| w.sending.nonce)
    }

    /// How many of those that asked are kept.
    pub(super) fn tickets(&self) -> usize {
        self.waiting.values().map(|waiting| waiting.tickets.len()).sum()
    }

    /// Whether this own purge is not read back yet.
    pub(super) fn has(&self, nonce: u64) -> bool {
        self.places.contains_key(&nonce)
    }

    /// As if the server had none of it.
    pub(super) fn forget_sent(&mut self) {
        (self.unsent, self.paused) = (BTreeSet::new(), BTreeSet::new());
        for (place, mut waiting) in std::mem::take(&mut self.waiting) {
            waiting.state = State::New;
            self.is_not_new(place, &waiting.sending.message);
            self.put(place, waiting);
        }
    }

    /// As if no other node needed to know, where it would have to wait.
    pub(super) fn forget_paused(&mut self, nonce: u64) {
        let place = self.places.get(&nonce).copied();
        let is_paused = |place: &Place| self.waiting.get(place).is_some_and(|w| w.not_before.is_some());
        place.filter(is_paused).and_then(|place| self.take(place));
    }
}

/// What is left of two purges of the same, if one of them says it all: a hard one. What a soft one and one
/// that leaves things unproven make of them are different things.
fn merged(a: Strength, b: Strength) -> Option<Strength> {
    match (a, b) {
        (Strength::Hard, _) | (_, Strength::Hard) => Some(Strength::Hard),
        _ => (a == b).then_some(a),
    }
}

/// Unsafe requests to one URI are many: they are sent at most once in a [`PAUSE`], and the last one is.
#[derive(Debug, Default)]
struct Pauses(HashMap<Message, Instant>);

const PAUSE: Duration = Duration::from_millis(100);

/// URIs that are known at a time. At the limit the others are sent without a pause.
const MAX_PAUSES: usize = 4096;

impl Pauses {
    /// When the message may be sent, if not at once. What is said of it until then is merged with it.
    fn next(&mut self, message: &Message, now: Instant) -> Option<Instant> {
        let last = self.0.get(message).map(|last| after(*last, PAUSE)).filter(|next| now < *next);
        if self.0.len() >= MAX_PAUSES {
            self.0.retain(|_, last| now < after(*last, PAUSE));
        }
        if self.0.len() < MAX_PAUSES {
            self.0.insert(message.clone(), last.unwrap_or(now));
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_unsent(waiting: &Waiting) -> bool {
        waiting.state != State::Sent
    }

    /// Told again to another server, with its old pause, and read back before it was sent there.
    #[test]
    fn what_is_read_back_is_not_in_the_way_of_what_is_to_be_sent() {
        let (mut outbox, begun) = (Outbox::new(8), Instant::now());
        let later = |millis| begun + Duration::from_millis(millis);
        let message = |uri| Message::new(MessageKind::Url, &[uri], Strength::Hard);
        let id = crate::store::EntryId::default();
        for (nonce, millis) in [(1, 0), (2, 10)] {
            drop(outbox.add(nonce, &message(1), nonce, true, later(millis)));
            assert_eq!(outbox.next(later(nonce * 90)).unwrap().nonce, nonce);
            outbox.read_back(Position { id, nonce });
        }
        outbox.tell_again(later(200));
        assert_eq!(outbox.len(), 2);
        drop(outbox.add(3, &message(3), 3, true, later(200)));
        for nonce in [1, 2] {
            outbox.read_back(Position { id, nonce });
        }
        assert_eq!(outbox.next_at(), None);
        assert_eq!(outbox.next(later(300)).unwrap().nonce, 3);
    }

    proptest::proptest! {
        /// Unsafe requests to a few URIs, and all that becomes of what they left, in any order.
        #[test]
        fn what_is_sent_next_and_when_is_that_of_a_walk(
            steps in proptest::collection::vec((0_u8..8, 0_u8..3, 0_u64..80), 1..60),
        ) {
            let (mut outbox, begun) = (Outbox::new(8), Instant::now());
            let (mut now, mut sent) = (begun, Vec::new());
            for (nonce, (step, uri, millis)) in (1_u64..).zip(steps) {
                now += Duration::from_millis(millis);
                let message = Message::new(MessageKind::Url, &[uri], Strength::Hard);
                match step {
                    0..=2 => drop(outbox.add(nonce, &message, nonce, step != 0, now)),
                    3..=4 => {
                        let is_due = |waiting: &Waiting| waiting.not_before.is_none_or(|at| at <= now);
                        let mut walk = outbox.waiting.values().filter(|waiting| is_unsent(waiting));
                        let expected = walk.find(|waiting| is_due(waiting)).map(|waiting| waiting.sending.clone());
                        let next = outbox.next(now);
                        proptest::prop_assert_eq!(&next, &expected);
                        sent.extend(next.map(|sending| sending.nonce));
                        if expected.is_none() {
                            let walk = outbox.waiting.values().filter(|waiting| is_unsent(waiting));
                            let at = walk.filter_map(|waiting| waiting.not_before).min();
                            proptest::prop_assert_eq!(outbox.next_at(), at);
                        }
                    }
                    5 => outbox.send_again(),
                    6 => outbox.tell_again(now),
                    _ => {
                        // Also once more.
                        let nonce = sent.get(millis as usize % sent.len().max(1)).copied().unwrap_or_default();
                        outbox.read_back(Position { id: crate::store::EntryId::default(), nonce });
                    }
                }
                let unsent = outbox.waiting.values().filter(|waiting| is_unsent(waiting)).count();
                proptest::prop_assert_eq!(outbox.unsent.len() + outbox.paused.len(), unsent);
            }
        }
    }
}
