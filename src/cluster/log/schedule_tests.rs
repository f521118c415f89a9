//! Schedules that break one rule each, too rare for random ones.

use std::{cell::Cell, ops::RangeInclusive};

use super::{
    variant_tests::{Rules, Variant},
    *,
};
use crate::sequence::Strength;

/// Counts numbers and doubts.
#[derive(Default)]
struct Counting {
    current: Cell<u64>,
    doubts: Cell<u64>,
}

impl Counting {
    fn next(&self) -> u64 {
        self.current.set(self.current.get() + 1);
        self.current.get()
    }
}

impl Target for Counting {
    type Purge = ();

    fn purge(&self, (): &()) -> u64 {
        self.next()
    }

    fn doubt(&self, _: Strength) {
        self.doubts.set(self.doubts.get() + 1);
        self.next();
    }

    fn current(&self) -> u64 {
        self.current.get()
    }
}

const RUN: u64 = 1;

fn at(millis: u64) -> Position {
    Position { id: EntryId { millis, number: 0 }, nonce: millis + 100 }
}

fn as_of(run: u64, Position { id, nonce }: Position) -> AsOf {
    AsOf { run, id, nonce }
}

/// What a server says that has these entries, and nothing deleted.
fn reply(from: Option<Position>, entries: &[u64]) -> Reply<()> {
    let entries = entries.iter().map(|millis| Entry { position: at(*millis), purge: Some(()) });
    Reply {
        entries: entries.collect(),
        is_full: false,
        anchor: from.map(|from| from.nonce),
        deleted: EntryId::default(),
        has_failed: false,
        extent: None,
    }
}

/// A node that has read the log of the first run to its end.
fn node(rules: Rules, entries: &[u64], deleted: u64) -> (Variant, Counting) {
    let (mut log, target) = (Variant::new(rules, 4), Counting::default());
    log.connected(Some(RUN), Instant::now(), &target);
    let first = Reply { deleted: at(deleted).id, ..reply(None, entries) };
    log.replied(None, &first, &target);
    assert!(log.is_caught_up());
    (log, target)
}

/// A replica that was promoted may have lost entries that this node had not read: its log looks whole.
#[test]
fn a_new_run_is_a_gap() {
    let gaps = |rules| {
        let (mut log, target) = node(rules, &[5], 0);
        log.disconnected();
        log.connected(Some(RUN + 1), Instant::now(), &target);
        let from = log.next_read(Instant::now()).from;
        log.replied(from, &reply(from, &[]), &target);
        log.gaps()
    };
    assert_eq!(gaps(Rules::default()), 2);
    assert_eq!(gaps(Rules { new_run_is_gap: false, ..Rules::default() }), 1);
}

/// A server that does not say which it is may be any at each connection, and the same all the while.
#[test]
fn a_server_that_does_not_say_which_it_is_is_another_at_each_connection() {
    let (mut log, target) = node(Rules::default(), &[5], 0);
    for gaps in [2, 3] {
        log.disconnected();
        log.connected(None, Instant::now(), &target);
        assert_eq!(log.gaps(), gaps);
    }
}

/// The largest id that was deleted never goes down: a node that has read the log from its beginning knows of it.
#[test]
fn entries_that_were_deleted_before_are_no_gap_for_ever() {
    let gaps = |rules| {
        let (mut log, target) = node(rules, &[5, 6], 9);
        let from = log.next_read(Instant::now()).from;
        log.replied(from, &Reply { deleted: at(9).id, ..reply(from, &[]) }, &target);
        log.gaps()
    };
    assert_eq!(gaps(Rules::default()), 1);
    assert_eq!(gaps(Rules { knows_deleted: false, ..Rules::default() }), 2);
}

#[test]
fn entries_that_are_deleted_later_are_a_gap() {
    let (mut log, target) = node(Rules::default(), &[5, 6], 0);
    let from = log.next_read(Instant::now()).from;
    log.replied(from, &Reply { deleted: at(7).id, ..reply(from, &[]) }, &target);
    assert_eq!(log.gaps(), 2);
}

/// Entries that were trimmed do not count as deleted: they leave no other trace.
#[test]
fn a_log_that_was_trimmed_past_what_was_read_is_a_gap() {
    let gaps = |rules| {
        let (mut log, target) = node(rules, &[5], 0);
        log.disconnected();
        log.connected(Some(RUN), Instant::now(), &target);
        let from = log.next_read(Instant::now()).from;
        log.replied(from, &Reply { anchor: None, ..reply(from, &[8]) }, &target);
        log.gaps()
    };
    assert_eq!(gaps(Rules::default()), 2);
    assert_eq!(gaps(Rules { has_anchor: false, ..Rules::default() }), 1);
    assert_eq!(gaps(Rules { checks_each_read: false, ..Rules::default() }), 2, "on connecting");
}

/// The same on a connection that lives.
#[test]
fn a_log_that_is_trimmed_while_it_is_read_is_a_gap() {
    let gaps = |rules| {
        let (mut log, target) = node(rules, &[5], 0);
        let from = log.next_read(Instant::now()).from;
        log.replied(from, &Reply { anchor: None, ..reply(from, &[8]) }, &target);
        log.gaps()
    };
    assert_eq!(gaps(Rules::default()), 2);
    assert_eq!(gaps(Rules { checks_each_read: false, ..Rules::default() }), 1);
}

/// A slow reader is overtaken by trimming on a connection that lives.
#[test]
fn the_anchor_is_looked_for_at_each_read() {
    let (mut log, target) = node(Rules::default(), &[5], 0);
    let from = log.next_read(Instant::now()).from;
    log.replied(from, &reply(from, &[6]), &target);
    assert_eq!(log.gaps(), 1);
    let from = log.next_read(Instant::now()).from;
    // Read before the anchor went, and applied by no node: what came before it may be missing.
    log.replied(from, &Reply { anchor: None, ..reply(from, &[8]) }, &target);
    assert_eq!((log.gaps(), log.is_caught_up(), log.position()), (2, false, None));
    let from = log.next_read(Instant::now()).from;
    let other = Reply { anchor: Some(1), ..reply(from, &[8]) };
    log.replied(from, &other, &target);
    assert_eq!(log.gaps(), 2, "from the beginning there is nothing to hold on to");
}

#[test]
fn everything_is_unproven_when_a_gap_is_noticed_and_when_the_log_is_read_again() {
    let (mut log, target) = (Log::new(), Counting::default());
    log.connected(Some(RUN), Instant::now(), &target);
    assert_eq!(target.doubts.get(), 1);
    assert_eq!(log.replied(None, &reply(None, &[]), &target), Next::Mark);
    log.replied(None, &reply(None, &[5]), &target);
    assert!(target.doubts.get() >= 2);
    let doubts = target.doubts.get();
    let from = log.next_read(Instant::now()).from;
    log.replied(from, &reply(from, &[6]), &target);
    assert_eq!(target.doubts.get(), doubts);
}

/// After a failover an entry of the lost tail and a new one may share an id, and replicated ones are in both.
#[test]
fn an_entry_of_another_run_says_nothing() {
    let begun = |rules| {
        let (mut log, target) = node(rules, &[5, 6], 0);
        log.begun(as_of(RUN + 1, at(5)), &target)
    };
    assert_eq!(begun(Rules::default()), None);
    assert!(begun(Rules { has_run_in_as_of: false, ..Rules::default() }).is_some());
}

/// A purge between the two may have been deleted before this node read the log.
#[test]
fn an_entry_before_a_deleted_one_says_nothing() {
    let begun = |rules| {
        let (mut log, target) = node(rules, &[5, 9], 7);
        [5, 9].map(|millis| log.begun(as_of(RUN, at(millis)), &target).is_some())
    };
    assert_eq!(begun(Rules::default()), [false, true]);
    assert_eq!(begun(Rules { has_floor: false, ..Rules::default() }), [true, true]);
}

#[test]
fn only_the_very_entry_says_something() {
    let (mut log, target) = node(Rules::default(), &[5, 7], 0);
    let latest = begun_of_latest(&log, &target);
    let mut begun = |position| log.begun(as_of(RUN, position), &target);
    assert!(begun(at(5)).is_some_and(|begun| begun < latest));
    assert_eq!(begun(at(6)), None, "between two that are known");
    assert_eq!(begun(at(8)), None, "newer than what was read");
    assert_eq!(begun(Position { nonce: 0, ..at(5) }), None, "another one in its place");
    let (mut log, target) = node(Rules { matches_exactly: false, ..Rules::default() }, &[5, 7], 0);
    let mut begun = |position| log.begun(as_of(RUN, position), &target);
    assert_eq!(begun(at(6)), begun(at(5)), "a purge in the place of that one was missed by some node");
    assert_eq!(begun(at(8)), begun(at(7)));
    assert_eq!(begun(Position { nonce: 0, ..at(5) }), begun(at(5)));
}

/// What is in the next chunk may have purged it.
#[test]
fn an_entry_says_nothing_before_the_log_was_read_to_its_end() {
    let begun = |rules| {
        let (mut log, target) = (Variant::new(rules, 4), Counting::default());
        log.connected(Some(RUN), Instant::now(), &target);
        log.replied(None, &Reply { is_full: true, ..reply(None, &[5]) }, &target);
        let early = log.begun(as_of(RUN, at(5)), &target);
        let purge = target.current() + 1;
        let from = log.next_read(Instant::now()).from;
        log.replied(from, &reply(from, &[6]), &target);
        let late = log.begun(as_of(RUN, at(5)), &target);
        assert!(late.is_some_and(|late| late < purge));
        early
    };
    assert_eq!(begun(Rules::default()), None);
    assert!(begun(Rules { translates_at_end: false, ..Rules::default() }).is_some());
}

/// A node counts as one that has heard of all purges from when it said that it is there.
#[test]
fn all_is_heard_by_an_answer_at_the_end_of_the_log_as_of_its_request() {
    let asked_at = Instant::now() + std::time::Duration::from_secs(5);
    let heard = |rules, is_full, anchor| {
        let (mut log, target) = node(rules, &[5], 0);
        let read = log.next_read(asked_at);
        let back = Reply { is_full, ..reply(read.from, &[6]) };
        let back = Reply { anchor: back.anchor.filter(|_| anchor), ..back };
        log.replied(read.from, &back, &target);
        log.heard_by(read, &back)
    };
    assert_eq!(heard(Rules::default(), false, true), Some(asked_at));
    assert_eq!(heard(Rules::default(), true, true), None, "there is more");
    assert_eq!(heard(Rules::default(), false, false), None, "a gap");
    let early = Rules { hears_at_end: false, ..Rules::default() };
    assert_eq!(heard(early, false, false), Some(asked_at));
    let late = Rules { hears_from_asking: false, ..Rules::default() };
    assert!(heard(late, false, true).is_some_and(|heard| heard != asked_at));
}

/// In the same write the others are told.
#[test]
fn a_position_is_told_only_where_the_log_was_read_to_its_end() {
    let (mut log, target) = (Log::new(), Counting::default());
    log.connected(Some(RUN), Instant::now(), &target);
    let told = |log: &Log| log.next_read(Instant::now()).reported();
    log.replied(None, &Reply { is_full: true, ..reply(None, &[5]) }, &target);
    assert_eq!(told(&log), None);
    log.replied(Some(at(5)), &reply(Some(at(5)), &[6]), &target);
    assert_eq!(told(&log), Some(at(6)));
    log.disconnected();
    assert_eq!(told(&log), None);
}

fn begun_of_latest(log: &Log, target: &Counting) -> u64 {
    log.begun(as_of(RUN, at(7)), target).unwrap()
}

/// An own purge is in no entry yet that others could have seen.
#[test]
fn what_began_before_an_own_purge_that_is_not_read_back_is_before_it() {
    let begun = |rules| {
        let (mut log, target) = node(rules, &[5], 0);
        let message = Message::doubt();
        let (number, _) = log.issue(&message, false, Instant::now(), || target.next());
        log.begun(as_of(RUN, at(5)), &target).unwrap() < number
    };
    assert!(begun(Rules::default()));
    assert!(!begun(Rules { cuts_at_unread: false, ..Rules::default() }));
}

/// The purge between is sent when the pause is over, and not left out.
#[test]
fn of_a_burst_of_unsafe_requests_the_last_one_is_sent_too() {
    use crate::sequence::MessageKind;
    let (mut log, target) = node(Rules::default(), &[5], 0);
    let message = Message::new(MessageKind::Url, b"//h/", Strength::Hard);
    let begun = Instant::now();
    let later = |millis| begun + std::time::Duration::from_millis(millis);
    let issue = |log: &mut Log, now| drop(log.issue(&message, true, now, || target.next()));
    issue(&mut log, later(0));
    assert!(log.next_to_send(later(0)).is_some());
    issue(&mut log, later(10));
    issue(&mut log, later(20));
    assert_eq!(log.next_to_send(later(99)), None, "at most once in 100 ms");
    assert_eq!(log.next_send_at(), Some(later(100)));
    assert!(log.next_to_send(later(100)).is_some());
    assert_eq!(log.next_to_send(later(900)), None, "and the two are one");
    let (mut log, target) = node(Rules { sends_last_of_burst: false, ..Rules::default() }, &[5], 0);
    let issue = |log: &mut Variant, now| drop(log.issue(&message, true, now, || target.next()));
    issue(&mut log, later(0));
    assert!(log.next_to_send(later(0)).is_some());
    issue(&mut log, later(10));
    assert_eq!((log.next_to_send(later(900)), log.waiting()), (None, 1), "no node hears of it");
}

#[test]
fn purges_that_wait_unsent_are_merged_by_the_stronger_one() {
    use crate::sequence::MessageKind;
    let (mut log, target) = node(Rules::default(), &[5], 0);
    let mut issue = |strength| {
        let message = Message::new(MessageKind::Tag, b"news", strength);
        drop(log.issue(&message, false, Instant::now(), || target.next()));
        log.waiting()
    };
    assert_eq!(issue(Strength::Soft), 1);
    assert_eq!(issue(Strength::Soft), 1);
    assert_eq!(issue(Strength::Unproven), 2, "neither says what the other does");
    assert_eq!(issue(Strength::Hard), 2);
    let strengths = [(); 2].map(|()| log.next_to_send(Instant::now()).unwrap().message.strength);
    assert_eq!(strengths, [Strength::Soft, Strength::Hard]);
    assert_eq!(log.next_to_send(Instant::now()), None);
}

#[test]
fn a_purge_is_sent_again_under_its_nonce_until_it_is_read_back() {
    let (mut log, target) = node(Rules::default(), &[5], 0);
    let message = Message::doubt();
    let (_, ticket) = log.issue(&message, false, Instant::now(), || target.next());
    let first = log.next_to_send(Instant::now()).unwrap();
    let position = Position { id: at(6).id, nonce: first.nonce };
    log.acknowledged(position);
    assert_eq!((ticket.position(), log.waiting()), (Some(position), 1));
    log.disconnected();
    assert_eq!(log.next_to_send(Instant::now()), None, "not before the log was read to its end");
    log.connected(Some(RUN), Instant::now(), &target);
    let from = log.next_read(Instant::now()).from;
    log.replied(from, &reply(from, &[]), &target);
    assert_eq!(log.next_to_send(Instant::now()), Some(first));
    let current = target.current();
    let back = Reply { entries: vec![Entry { position, purge: Some(()) }], ..reply(from, &[]) };
    log.replied(from, &back, &target);
    assert_eq!((log.waiting(), target.current()), (0, current), "it is not applied a second time");
}

/// Other nodes may have applied the entry, and fetched again, before the second purge was issued.
#[test]
fn a_purge_is_not_merged_with_one_that_was_sent_before_the_connection_was_lost() {
    use crate::sequence::MessageKind;
    let (mut log, target) = node(Rules::default(), &[5], 0);
    let message = Message::new(MessageKind::Tag, b"news", Strength::Hard);
    let issue = |log: &mut Log| log.issue(&message, false, Instant::now(), || target.next()).1;
    let early = issue(&mut log);
    let first = log.next_to_send(Instant::now()).unwrap();
    log.disconnected();
    let late = issue(&mut log);
    assert_eq!(log.waiting(), 2);
    log.connected(Some(RUN), Instant::now(), &target);
    let from = log.next_read(Instant::now()).from;
    let position = Position { id: at(6).id, nonce: first.nonce };
    let back = Reply { entries: vec![Entry { position, purge: Some(()) }], ..reply(from, &[]) };
    log.replied(from, &back, &target);
    assert_eq!((early.position(), late.position(), log.waiting()), (Some(position), None, 1));
    assert_ne!(log.next_to_send(Instant::now()).unwrap().nonce, first.nonce);
    assert_eq!(log.next_to_send(Instant::now()), None);
}

/// The task that sends would not sleep, for as long as the server is away.
#[test]
fn nothing_is_due_while_nothing_can_be_sent() {
    use crate::sequence::MessageKind;
    let (mut log, target) = node(Rules::default(), &[5], 0);
    let message = Message::new(MessageKind::Url, b"//h/", Strength::Hard);
    let begun = Instant::now();
    let later = |millis| begun + std::time::Duration::from_millis(millis);
    let issue = |log: &mut Log, now| drop(log.issue(&message, true, now, || target.next()));
    issue(&mut log, later(0));
    assert!(log.next_to_send(later(0)).is_some());
    issue(&mut log, later(10));
    log.disconnected();
    assert_eq!((log.next_to_send(later(200)), log.next_send_at()), (None, None));
    log.connected(Some(RUN), Instant::now(), &target);
    let from = log.next_read(Instant::now()).from;
    log.replied(from, &reply(from, &[]), &target);
    assert!(log.next_to_send(later(50)).is_some(), "the first one again");
    assert_eq!(log.next_send_at(), Some(later(100)), "and the other one in its time");
}

/// While the server is away there is no end of them.
#[test]
fn purges_that_are_repeated_take_no_memory() {
    use crate::sequence::MessageKind;
    let (mut log, target) = node(Rules::default(), &[5], 0);
    log.disconnected();
    let issue = |log: &mut Log, tag: u32| {
        let message = Message::new(MessageKind::Tag, &tag.to_be_bytes(), Strength::Hard);
        log.issue(&message, false, Instant::now(), || target.next()).1
    };
    let held = issue(&mut log, 0);
    for _ in 0..10_000 {
        issue(&mut log, 0);
    }
    assert_eq!((log.waiting(), log.outbox.tickets()), (1, 1), "the same again and again");
    for tag in 0..10_000 {
        issue(&mut log, tag);
    }
    assert!(log.outbox.tickets() < 10, "{}", log.outbox.tickets());
    log.connected(Some(RUN), Instant::now(), &target);
    let from = log.next_read(Instant::now()).from;
    log.replied(from, &reply(from, &[]), &target);
    while let Some(Sending { nonce, .. }) = log.next_to_send(Instant::now()) {
        log.acknowledged(Position { id: at(6).id, nonce });
    }
    assert!(held.position().is_some(), "what is asked for is told");
}

/// Here each of them was applied by itself.
#[test]
fn more_purges_than_may_wait_leave_nothing_unproven_here() {
    use crate::sequence::{MessageKind, Strength};
    let (mut log, target) = node(Rules::default(), &[5], 0);
    let doubts = target.doubts.get();
    let mut issue = |tag: u8| {
        let message = Message::new(MessageKind::Tag, &[tag], Strength::Hard);
        log.issue(&message, false, Instant::now(), || target.next()).0
    };
    let numbers: Vec<_> = (0..5).map(&mut issue).collect();
    assert_eq!((log.waiting(), target.doubts.get()), (1, doubts));
    assert_eq!(log.begun(as_of(RUN, at(5)), &target), Some(numbers[0] - 1));
    let sending = log.next_to_send(Instant::now()).unwrap();
    assert_eq!(sending.message, Message::doubt(), "the others confirm everything");
    let from = log.next_read(Instant::now()).from;
    let position = Position { id: at(6).id, nonce: sending.nonce };
    let back = Reply { entries: vec![Entry { position, purge: Some(()) }], ..reply(from, &[]) };
    let current = target.current();
    log.replied(from, &back, &target);
    assert_eq!((target.current(), target.doubts.get()), (current, doubts));
    assert_eq!(log.begun(as_of(RUN, at(5)), &target), Some(numbers[0] - 1));
}

/// A purge that was issued, sent and read back under this nonce.
fn read_back(log: &mut Log, target: &Counting, millis: u64, now: Instant) -> Sending {
    let message = Message::new(crate::sequence::MessageKind::Tag, &millis.to_be_bytes(), Strength::Hard);
    drop(log.issue(&message, false, now, || target.next()));
    let sending = log.next_to_send(now).unwrap();
    let position = Position { id: at(millis).id, nonce: sending.nonce };
    let from = log.next_read(Instant::now()).from;
    let back = Reply { entries: vec![Entry { position, purge: Some(()) }], ..reply(from, &[]) };
    log.replied(from, &back, target);
    assert_eq!(log.waiting(), 0);
    sending
}

/// All that is sent after a connection to this run, whose log has one entry.
fn sent_to(log: &mut Log, target: &Counting, run: u64, now: Instant) -> Vec<Sending> {
    log.disconnected();
    log.connected(Some(run), now, target);
    let from = log.next_read(Instant::now()).from;
    let first: &[u64] = if from.is_none() { &[5] } else { &[] };
    log.replied(from, &reply(from, first), target);
    std::iter::from_fn(|| log.next_to_send(now)).collect()
}

#[test]
fn the_purges_of_the_last_minute_are_sent_again_to_another_server() {
    let (mut log, target) = node(Rules::default(), &[5], 0);
    let begun = Instant::now();
    let later = |seconds| begun + std::time::Duration::from_secs(seconds);
    read_back(&mut log, &target, 6, later(0));
    let recent = [read_back(&mut log, &target, 7, later(5)), read_back(&mut log, &target, 8, later(6))];
    let numbers = target.current();
    assert_eq!(sent_to(&mut log, &target, RUN + 1, later(61)), recent);
    // The copy that is read back has the number of its purge.
    let gap = target.current();
    for (millis, sending) in [(10, &recent[0]), (11, &recent[1])] {
        let position = Position { id: at(millis).id, nonce: sending.nonce };
        let from = log.next_read(Instant::now()).from;
        let back = Reply { entries: vec![Entry { position, purge: Some(()) }], ..reply(from, &[]) };
        log.replied(from, &back, &target);
    }
    assert_eq!((log.waiting(), target.current()), (0, gap));
    assert!(log.begun(as_of(RUN + 1, at(5)), &target).is_some_and(|begun| begun < numbers));
    // And again, while it is not too old.
    assert_eq!(sent_to(&mut log, &target, RUN + 2, later(63)), recent);
    assert_eq!(sent_to(&mut log, &target, RUN + 2, later(64)), recent, "the server may have none of them");
}

#[test]
fn only_the_newest_purges_are_sent_again() {
    let (mut log, target) = (Log::new(), Counting::default());
    let now = Instant::now();
    log.connected(Some(RUN), now, &target);
    log.replied(None, &reply(None, &[5]), &target);
    let all: Vec<_> = (0..1100).map(|n| read_back(&mut log, &target, 10 + n, now)).collect();
    assert_eq!(sent_to(&mut log, &target, RUN + 1, now), all[1100 - 1024..]);
}

/// A read to which the server adds how much there is of the log, entry `n` of which has the id `n`.
fn read_of(log: &mut Log, target: &Counting, entries: RangeInclusive<u64>, added: u64) -> Option<u64> {
    let from = log.next_read(Instant::now()).from;
    let extent = Some(Extent { added, length: added, last: at(added).id });
    let is_full = *entries.end() < added;
    log.replied(from, &Reply { extent, is_full, ..reply(from, &entries.collect::<Vec<_>>()) }, target);
    log.behind()
}

/// It says how far it is behind, and how far others are.
#[test]
fn a_node_knows_how_much_of_the_log_it_has_not_applied() {
    let (mut log, target) = node(Rules::default(), &[1, 2, 3], 0);
    assert_eq!(log.behind(), None, "the server does not say how much there is");
    let mut read = |entries, added| {
        read_of(&mut log, &target, entries, added);
        (log.behind(), [2, 8, 9, 10].map(|entry| log.behind_of(at(entry).id)))
    };
    let ahead = Some(0);
    assert_eq!(read(4..=4, 4), (Some(0), [Some(2), ahead, ahead, ahead]));
    assert_eq!(read(5..=6, 9), (Some(3), [Some(7), None, ahead, ahead]), "8 may be any of three");
    assert_eq!(read(7..=9, 9), (Some(0), [Some(7), Some(1), Some(0), ahead]));
    log.disconnected();
    assert_eq!((log.behind(), log.behind_of(at(2).id)), (None, None), "nothing is heard");
}

/// Where a node was cut off there is the most that it has not applied.
#[test]
fn a_node_that_connects_again_knows_how_much_it_has_missed() {
    let (mut log, target) = (Log::new(), Counting::default());
    log.connected(Some(RUN), Instant::now(), &target);
    assert_eq!(read_of(&mut log, &target, 1..=512, 600), Some(88));
    for (entries, added, behind) in [(513..=1_024, 1_500, 476), (1_025..=1_536, 2_048, 512)] {
        log.disconnected();
        assert_eq!(log.behind(), None);
        log.connected(Some(RUN), Instant::now(), &target);
        assert_eq!(log.behind(), None, "nothing was heard yet");
        assert_eq!(read_of(&mut log, &target, entries, added), Some(behind));
    }
    assert_eq!(read_of(&mut log, &target, 1_537..=2_048, 2_048), Some(0));
    assert_eq!(log.gaps(), 1);
    // Of another server it knows nothing before it has read that one's log from the beginning.
    log.disconnected();
    log.connected(Some(RUN + 1), Instant::now(), &target);
    assert_eq!(read_of(&mut log, &target, 1..=512, 700), Some(188));
}
