//! What attempts say of an origin: by how they ended, each key once, failures in a row and the share of
//! successes; and by how long they take, that it hangs.

use std::time::Duration;

use tokio::time::Instant;

use crate::http::storing::after;

/// So many failures in a row are an outage if they last, …
const STREAK: u32 = 5;
/// … for so long.
const STREAK_LASTS: Duration = Duration::from_secs(1);
/// So many in a row are one in any case.
const LONG_STREAK: u32 = 20;

const SECOND: Duration = Duration::from_secs(1);
/// The window has so many buckets of a second.
const WINDOW_SECONDS: usize = 10;
/// Fewer outcomes than these say nothing by their share.
const WINDOW_LEAST: u32 = 50;

const VOICES: usize = 64;

/// A key that has failed says nothing more until it has not failed for so long.
const SILENCE: Duration = Duration::from_secs(10);

/// So many keys have to wait before the origin counts as one that hangs. One alone may be a bad endpoint.
const STALLED_KEYS: usize = 5;
const LEAST_STALLED_KEYS: usize = 2;

const SLOTS: usize = 64;
/// A key is in one of so many slots that follow each other.
const REACH: u32 = 8;

/// Counts of attempts since a point in time.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    voices: Voices,
    /// Failures in a row, and when the first of them was seen.
    streak: u32,
    streak_began: Instant,
    succeeded_at: Option<Instant>,
    window: Window,
}

/// What a failure brings the counts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// So many in a row that this is an outage.
    pub(super) is_streak: bool,
    /// So many of those in the window.
    pub(super) is_majority: bool,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            voices: Voices::default(),
            streak: 0,
            streak_began: now,
            succeeded_at: None,
            window: Window::new(now),
        }
    }

    /// Counts from nothing again.
    pub(super) fn restart(&mut self, now: Instant) {
        self.voices.clear();
        self.streak = 0;
        self.succeeded_at = None;
        self.window = Window::new(now);
    }

    pub(super) fn success(&mut self, now: Instant) {
        self.streak = 0;
        self.succeeded_at = self.succeeded_at.max(Some(now));
        self.window.count(true, now);
    }

    /// Counts a failure of an attempt that began then, for this key. `None`: each counts.
    pub(super) fn failure(&mut self, key: Option<u64>, began: Instant, now: Instant) -> Verdict {
        if key.is_some_and(|key| !self.voices.speak(key, now)) {
            return Verdict::default();
        }
        self.window.count(false, now);
        // The origin has answered another one since it began: those that hang together fail together.
        if self.succeeded_at.is_some_and(|succeeded| began < succeeded) {
            return Verdict::default();
        }
        if self.streak == 0 {
            self.streak_began = now;
        }
        self.streak = self.streak.saturating_add(1);
        let lasts = now.saturating_duration_since(self.streak_began) >= STREAK_LASTS;
        Verdict {
            is_streak: self.streak >= LONG_STREAK || self.streak >= STREAK && lasts,
            is_majority: self.window.is_bad(),
        }
    }
}

/// The keys that have failed a short while ago: a cache asks again and again for what fails, and seldom for what
/// it holds, so that attempts are no fair sample of an origin.
#[derive(Clone, Debug, Default)]
struct Voices(Vec<(u64, Instant)>);

impl Voices {
    /// Notes that a key has failed. Returns whether that counts: not if it has failed a short while ago.
    ///
    /// While more keys fail than are kept, each failure of the others counts.
    fn speak(&mut self, key: u64, now: Instant) -> bool {
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

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// The outcomes of the last ten seconds, by second.
#[derive(Clone, Debug)]
struct Window {
    began: Instant,
    /// Seconds after the begin of the bucket that is written, and when the next one begins.
    newest: u64,
    next: Instant,
    buckets: [Bucket; WINDOW_SECONDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    successes: u32,
    failures: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, newest: 0, next: after(now, SECOND), buckets: Default::default() }
    }

    fn count(&mut self, is_success: bool, now: Instant) {
        if now >= self.next {
            self.move_on(now);
        }
        let bucket = self.bucket(self.newest);
        let count = if is_success { &mut bucket.successes } else { &mut bucket.failures };
        *count = count.saturating_add(1);
    }

    fn move_on(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs().max(self.newest);
        for passed in 1..=(second - self.newest).min(WINDOW_SECONDS as u64) {
            *self.bucket(second - (passed - 1)) = Bucket::default();
        }
        self.newest = second;
        self.next = after(self.began, Duration::from_secs(second.saturating_add(1)));
    }

    fn bucket(&mut self, second: u64) -> &mut Bucket {
        &mut self.buckets[(second % WINDOW_SECONDS as u64) as usize]
    }

    fn is_bad(&self) -> bool {
        let sum = |count: fn(&Bucket) -> u32| self.buckets.iter().map(count).fold(0, u32::saturating_add);
        let (successes, failures) = (sum(|bucket| bucket.successes), sum(|bucket| bucket.failures));
        successes.saturating_add(failures) >= WINDOW_LEAST && successes < failures
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
    /// A bit for each of them that has attempts under way, so that only those are looked at.
    used: u64,
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
        Self { slots: Vec::new(), used: 0, enough: STALLED_KEYS, answered_at: now }
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
        let first = (key % SLOTS as u64) as u32;
        // Of the slots in reach, from the first one on.
        let used = self.used.rotate_right(first) & ((1 << REACH) - 1);
        let mut others = used;
        while others != 0 {
            let at = (first + others.trailing_zeros()) % SLOTS as u32;
            let slot = &mut self.slots[at as usize];
            if slot.key == key {
                slot.attempts = slot.attempts.saturating_add(1);
                return Some(Watched(at as u8));
            }
            others &= others - 1;
        }
        let free = used.trailing_ones();
        if free >= REACH {
            return None;
        }
        let at = (first + free) % SLOTS as u32;
        self.slots[at as usize] = Slot { key, began: now, attempts: 1 };
        self.used |= 1 << at;
        Some(Watched(at as u8))
    }

    /// How many keys have attempts under way.
    const fn keys(&self) -> usize {
        self.used.count_ones() as usize
    }

    /// Notes that an attempt is over that began after the last [`restart`](Self::restart).
    pub(super) fn end(&mut self, Watched(at): Watched, now: Instant) {
        if let Some(slot) = self.slots.get_mut(usize::from(at)) {
            slot.attempts = slot.attempts.saturating_sub(1);
            if slot.attempts == 0 {
                self.used &= !(1 << at);
            }
            // The others for the same key began at some time since: too late is on the safe side.
            slot.began = now;
        }
    }

    /// Notes an answer of any kind.
    pub(super) fn answered(&mut self, now: Instant) {
        self.answered_at = now.max(self.answered_at);
    }

    /// Whether too few keys are under way for a stall.
    pub(super) const fn is_calm(&self) -> bool {
        self.keys() < self.enough
    }

    /// Whether several keys wait for so long, and nothing was answered meanwhile.
    pub(super) fn is_stalled(&self, time: Duration, now: Instant) -> bool {
        let is_long = |since: Instant| now.saturating_duration_since(since) >= time;
        !self.is_calm()
            && is_long(self.answered_at)
            && self.slots.iter().filter(|slot| slot.attempts > 0 && is_long(slot.began)).count()
                >= self.enough
    }

    /// The first time at which [`is_stalled`](Self::is_stalled) can be true, unless there is an answer before.
    /// `None`: too few keys are under way.
    pub(super) fn due(&self, time: Duration) -> Option<Instant> {
        (!self.is_calm()).then(|| after(self.answered_at, time))
    }

    /// Forgets all attempts.
    pub(super) fn restart(&mut self, now: Instant) {
        self.slots.iter_mut().for_each(|slot| slot.attempts = 0);
        self.used = 0;
        self.answered(now);
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
