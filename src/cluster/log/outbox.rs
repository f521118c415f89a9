//! Purges of this node of which the others have to hear.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::ring::Position;
use crate::{
    http::storing::after,
    sequence::{Message, Strength},
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
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Waiting>,
    /// What was read back lately, the oldest first.
    recent: VecDeque<Waiting>,
    most: usize,
    pauses: Pauses,
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
        Self { waiting: VecDeque::new(), recent: VecDeque::new(), most, pauses: Pauses::default() }
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
        let ticket = Arc::new(Ticket::default());
        let unsent = self.waiting.iter_mut().rev().filter(|waiting| waiting.state == State::New);
        for waiting in unsent.filter(|waiting| is_about_the_same(&waiting.sending.message, message)) {
            if let Some(strength) = merged(waiting.sending.message.strength, message.strength) {
                waiting.sending.message.strength = strength;
                waiting.number = waiting.number.min(number);
                waiting.tickets.push(Arc::clone(&ticket));
                return (Added::Merged, ticket);
            }
        }
        if self.waiting.len() >= self.most {
            self.overflow(nonce, number, &ticket, now);
            return (Added::Overflow, ticket);
        }
        let not_before = if is_invalidation { self.pauses.next(message, now) } else { None };
        self.waiting.push_back(Waiting {
            sending: Sending { nonce, message: message.clone() },
            number,
            state: State::New,
            not_before,
            issued_at: now,
            tickets: vec![Arc::clone(&ticket)],
        });
        (Added::New, ticket)
    }

    /// One entry for all, with the least of their numbers.
    fn overflow(&mut self, nonce: u64, number: u64, ticket: &Arc<Ticket>, now: Instant) {
        let number = self.least_number().min(number);
        let mut tickets: Vec<_> = self.waiting.drain(..).flat_map(|waiting| waiting.tickets).collect();
        tickets.push(Arc::clone(ticket));
        let sending = Sending { nonce, message: Message::doubt() };
        let state = State::New;
        self.waiting.push_back(Waiting { sending, number, state, not_before: None, issued_at: now, tickets });
    }

    /// The next entry to be sent, which counts as sent from now on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Sending> {
        let is_due = |waiting: &&mut Waiting| {
            waiting.state != State::Sent && waiting.not_before.is_none_or(|not_before| not_before <= now)
        };
        let next = self.waiting.iter_mut().find(is_due)?;
        next.state = State::Sent;
        Some(next.sending.clone())
    }

    /// When the next entry may be sent, if one has to wait.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let unsent = self.waiting.iter().filter(|waiting| waiting.state != State::Sent);
        unsent.filter_map(|waiting| waiting.not_before).min()
    }

    pub(super) fn acknowledged(&self, position: Position) {
        let is_it = |waiting: &&Waiting| waiting.sending.nonce == position.nonce;
        for ticket in self.waiting.iter().find(is_it).into_iter().flat_map(|waiting| &waiting.tickets) {
            ticket.note(position);
        }
    }

    /// The entry was read back: the log has it.
    pub(super) fn read_back(&mut self, position: Position) {
        self.acknowledged(position);
        // Most often it is the first.
        let at = self.waiting.iter().position(|waiting| waiting.sending.nonce == position.nonce);
        if let Some(waiting) = at.and_then(|at| self.waiting.remove(at)) {
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
        // The newest, if there is no room for all, and in the order in which they were issued.
        for waiting in again.into_iter().rev().take(room) {
            self.waiting.push_front(waiting);
        }
    }

    /// Nothing is known any more of what was sent: all of it goes out once more.
    pub(super) fn send_again(&mut self) {
        let sent = self.waiting.iter_mut().filter(|waiting| waiting.state == State::Sent);
        sent.for_each(|waiting| waiting.state = State::Again);
    }

    /// Of the purges that the log may not have.
    pub(super) fn least_number(&self) -> u64 {
        self.waiting.iter().map(|waiting| waiting.number).min().unwrap_or(u64::MAX)
    }

    /// The entry that stands for the purge of this ticket, until it is read back.
    #[cfg(test)]
    pub(super) fn nonce_of(&self, ticket: &Arc<Ticket>) -> Option<u64> {
        let is_it = |own: &Arc<Ticket>| Arc::ptr_eq(own, ticket);
        self.waiting.iter().find(|waiting| waiting.tickets.iter().any(is_it)).map(|w| w.sending.nonce)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn is_about_the_same(a: &Message, b: &Message) -> bool {
    a.kind == b.kind && a.argument == b.argument
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
