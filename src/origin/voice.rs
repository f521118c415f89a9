//! What keys say of an origin: each one once, and together that it hangs.

use std::time::Duration;

use tokio::time::Instant;

use crate::http::storing::after;

const VOICES: usize = 64;

/// A key that has failed says nothing more until it has not failed for so long.
const SILENCE: Duration = Duration::from_secs(10);

/// So many keys have to wait before the origin counts as one that hangs. One alone may be a bad endpoint.
const STALLED_KEYS: usize = 5;
const LEAST_STALLED_KEYS: usize = 2;

const SLOTS: usize = 64;
/// A key is in one of so many slots that follow each other.
const REACH: usize = 8;

/// The keys that have failed a short while ago: a cache asks again and again for what fails, and seldom for what
/// it holds, so that attempts are no fair sample of an origin.
#[derive(Clone, Debug, Default)]
pub(super) struct Voices(Vec<(u64, Instant)>);

impl Voices {
    /// Notes that a key has failed. Returns whether that counts: not if it has failed a short while ago.
    ///
    /// While more keys fail than are kept, each failure of the others counts.
    pub(super) fn speak(&mut self, key: u64, now: Instant) -> bool {
        let is_silent = |said: Instant| now.saturating_duration_since(said) >= SILENCE;
        if let Some((_, said)) = self.0.iter_mut().find(|(known, _)| *known == key) {
            let was_silent = is_silent(*said);
            *said = now.max(*said);
            return was_silent;
        }
        if self.0.len() < VOICES {
            self.0.push((key, now));
        } else if let Some(free) = self.0.iter_mut().find(|(_, said)| is_silent(*said)) {
            *free = (key, now);
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Watches for an origin that hangs: several keys under way for a long time, and no answer of any kind meanwhile.
///
/// It is looked at when something happens anyway; no task waits for it. It keeps a bounded number of keys: an
/// attempt beyond them is not watched.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Empty until the first key, then of fixed size.
    slots: Vec<Slot>,
    /// How many of them have attempts under way.
    keys: usize,
    /// How many keys have to wait.
    enough: usize,
    answered_at: Instant,
}

/// The attempts under way for one key.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: u64,
    began: Instant,
    attempts: u32,
}

/// The slot of an attempt under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watched(u8);

impl Watch {
    pub(super) const fn new(now: Instant) -> Self {
        Self { slots: Vec::new(), keys: 0, enough: STALLED_KEYS, answered_at: now }
    }

    /// Takes note of how many attempts may be under way at a time, of those that may be fewest: where it is less than
    /// five, fewer keys are enough.
    pub(super) fn limit(&mut self, attempts: usize) {
        self.enough = attempts.clamp(LEAST_STALLED_KEYS, STALLED_KEYS);
    }

    /// Notes an attempt. `None`: there is no room for its key.
    pub(super) fn begin(&mut self, key: u64, now: Instant) -> Option<Watched> {
        if self.slots.is_empty() {
            self.slots = vec![Slot { key: 0, began: now, attempts: 0 }; SLOTS];
        }
        let first = (key % SLOTS as u64) as usize;
        let mut free = None;
        for at in (first..first + REACH).map(|at| at % SLOTS) {
            let slot = &mut self.slots[at];
            if slot.attempts > 0 && slot.key == key {
                slot.attempts = slot.attempts.saturating_add(1);
                return Some(Watched(at as u8));
            }
            if slot.attempts == 0 && free.is_none() {
                free = Some(at);
            }
        }
        let at = free?;
        self.slots[at] = Slot { key, began: now, attempts: 1 };
        self.keys += 1;
        Some(Watched(at as u8))
    }

    /// Notes that an attempt is over that began after the last [`restart`](Self::restart).
    pub(super) fn end(&mut self, Watched(at): Watched, now: Instant) {
        if let Some(slot) = self.slots.get_mut(usize::from(at)) {
            self.keys -= usize::from(slot.attempts == 1);
            slot.attempts = slot.attempts.saturating_sub(1);
            // The others for the same key began at some time since: too late is on the safe side.
            slot.began = now;
        }
    }

    /// Notes an answer of any kind.
    pub(super) fn answered(&mut self, now: Instant) {
        self.answered_at = now.max(self.answered_at);
    }

    /// Whether several keys wait for so long, and nothing was answered meanwhile.
    pub(super) fn is_stalled(&self, time: Duration, now: Instant) -> bool {
        let is_long = |since: Instant| now.saturating_duration_since(since) >= time;
        self.keys >= self.enough
            && is_long(self.answered_at)
            && self.slots.iter().filter(|slot| slot.attempts > 0 && is_long(slot.began)).count()
                >= self.enough
    }

    /// The first time at which [`is_stalled`](Self::is_stalled) can be true, unless there is an answer before.
    /// `None`: too few keys are under way.
    pub(super) fn due(&self, time: Duration) -> Option<Instant> {
        (self.keys >= self.enough).then(|| after(self.answered_at, time))
    }

    /// Forgets all attempts.
    pub(super) fn restart(&mut self, now: Instant) {
        self.slots.iter_mut().for_each(|slot| slot.attempts = 0);
        self.keys = 0;
        self.answered(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    const AFTER: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_key_counts_again_once_it_has_been_silent_for_ten_seconds() {
        let (start, mut voices) = (Instant::now(), Voices::default());
        let mut speaks = |key, at| voices.speak(key, start + ms(at));
        assert!(speaks(1, 0));
        assert!(!speaks(1, 1));
        assert!(speaks(2, 1));
        assert!(!speaks(1, 9_999));
        assert!(!speaks(1, 19_998), "it has not been silent");
        assert!(speaks(1, 29_998));
    }

    #[test]
    fn a_full_table_counts() {
        let (start, mut voices) = (Instant::now(), Voices::default());
        for key in 0..64 {
            assert!(voices.speak(key, start));
        }
        assert!(!voices.speak(63, start));
        assert!(voices.speak(64, start));
        assert!(voices.speak(64, start), "there is no room for it");
        assert_eq!(voices.0.len(), 64);
        assert!(voices.speak(64, start + SILENCE));
        assert!(!voices.speak(64, start + SILENCE), "it has taken the place of a silent one");
        assert_eq!(voices.0.len(), 64);
    }

    proptest! {
        /// Against a table without bounds, as long as there is room.
        #[test]
        fn few_keys_speak_as_in_a_table_without_bounds(
            calls in prop::collection::vec((0..60_u64, 0..3_000_u64), 1..400),
        ) {
            let (mut now, mut voices) = (Instant::now(), Voices::default());
            let mut said: HashMap<u64, Instant> = HashMap::new();
            for (key, wait) in calls {
                now += ms(wait);
                let last = said.insert(key, now);
                prop_assert_eq!(voices.speak(key, now), last.is_none_or(|last| now - last >= SILENCE));
            }
        }
    }

    #[test]
    fn five_keys_that_wait_for_ten_seconds_without_an_answer_are_a_stall() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        for key in 0..4 {
            watch.begin(key, start);
        }
        watch.begin(3, start);
        assert!(!watch.is_stalled(AFTER, start + AFTER), "four keys");
        let fifth = watch.begin(4, start + ms(1)).unwrap();
        assert!(!watch.is_stalled(AFTER, start + AFTER), "the fifth not for long enough");
        assert!(watch.is_stalled(AFTER, start + AFTER + ms(1)));
        let mut answered = watch.clone();
        answered.answered(start + ms(5_000));
        assert!(!answered.is_stalled(AFTER, start + ms(14_999)));
        assert!(answered.is_stalled(AFTER, start + ms(15_000)));
        watch.end(fifth, start + AFTER);
        assert!(!watch.is_stalled(AFTER, start + 2 * AFTER));
    }

    #[test]
    fn keys_that_share_slots_are_told_apart() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let same_slot = |n: u64| 60 + n * SLOTS as u64;
        let watched: Vec<_> = (0..9).map(|n| watch.begin(same_slot(n), start)).collect();
        assert_eq!(watched.iter().flatten().count(), 8, "the ninth is not watched");
        assert!(watch.is_stalled(AFTER, start + AFTER));
        // A slot in the middle is free, and the last key is still known.
        watch.end(watched[3].unwrap(), start);
        assert_eq!(watch.begin(same_slot(7), start), watched[7]);
        assert_eq!(watch.begin(same_slot(9), start), watched[3]);
    }

    #[test]
    fn a_restart_forgets_what_is_under_way() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        (0..64).for_each(|key| _ = watch.begin(key, start));
        watch.restart(start + ms(1));
        assert!(!watch.is_stalled(AFTER, start + 3 * AFTER));
        (0..5).for_each(|key| _ = watch.begin(key, start + ms(1)));
        assert!(watch.is_stalled(AFTER, start + ms(10_001)));
    }

    proptest! {
        /// Against all attempts under way: never a stall that is none, and none missed while each key has one
        /// attempt and there is room.
        #[test]
        fn a_stall_is_seen_as_by_a_list_of_all_attempts(
            steps in prop::collection::vec((0..4_u8, 0..40_u64, 0..6_000_u64), 1..300), is_single in any::<bool>(),
        ) {
            let mut now = Instant::now();
            let (mut watch, mut answered) = (Watch::new(now), now);
            let mut out: Vec<(u64, Instant, Option<Watched>)> = Vec::new();
            for (step, key, wait) in steps {
                now += ms(wait);
                let is_out = out.iter().any(|(known, ..)| *known == key);
                match step {
                    0 | 1 if !is_single || !is_out => out.push((key, now, watch.begin(key, now))),
                    2 if !out.is_empty() => {
                        let (_, _, watched) = out.swap_remove(key as usize % out.len());
                        watched.into_iter().for_each(|watched| watch.end(watched, now));
                    }
                    3 if key < 4 => {
                        watch.answered(now);
                        answered = now;
                    }
                    _ => {}
                }
                let is_long = |(_, began, _): &&(u64, Instant, Option<Watched>)| now - *began >= AFTER;
                let long: HashSet<_> = out.iter().filter(is_long).map(|(key, ..)| key).collect();
                let is_stalled = long.len() >= STALLED_KEYS && now - answered >= AFTER;
                let seen = watch.is_stalled(AFTER, now);
                prop_assert!(is_stalled || !seen);
                let has_room = out.iter().all(|(_, _, watched)| watched.is_some());
                prop_assert!(seen == is_stalled || !is_single || !has_room);
            }
        }
    }
}
