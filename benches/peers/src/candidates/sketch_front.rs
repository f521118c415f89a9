//! The front cache of `sketch-l0`: a few very hot entries per thread.

use std::{
    cell::RefCell,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::Full;

use super::sketch::{Packed, Store, respond};
use crate::clock::coarse_ms;

const SLOTS: usize = 64;
/// So many more votes than all others together let a key in.
const PROMOTE: u32 = 8;
/// Every so many hits the store behind is told that the entry is in use.
const TOUCH: u32 = 32;

struct Held {
    key: Box<str>,
    entry: Arc<Packed>,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Default)]
struct Slot {
    cache: u64,
    hash: u64,
    hits: u32,
    held: Option<Held>,
    /// Majority vote over the keys that missed this slot: only a key that dominates gets in.
    vote: (u64, u32),
}

thread_local! {
    static SLOTS_OF_THREAD: RefCell<Vec<Slot>> = RefCell::new((0..SLOTS).map(|_| Slot::default()).collect());
}

static NEXT: AtomicU64 = AtomicU64::new(1);

#[derive(Clone)]
pub(super) struct Front {
    id: u64,
    hasher: foldhash::fast::FixedState,
}

impl Default for Front {
    fn default() -> Self {
        let hasher = foldhash::fast::FixedState::with_seed(11);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), hasher }
    }
}

impl Front {
    #[inline]
    pub(super) fn hit(&self, store: &Store, key: &str) -> Option<Response<Full<Bytes>>> {
        let (hash, now) = (self.hasher.hash_one(key), coarse_ms());
        SLOTS_OF_THREAD.with_borrow_mut(|slots| {
            let slot = &mut slots[hash as usize % SLOTS];
            if slot.hash == hash && slot.cache == self.id {
                if let Some(response) = slot.answer(key, now) {
                    if slot.hits.is_multiple_of(TOUCH) {
                        _ = store.get(key);
                    }
                    return Some(response);
                }
                slot.held = None;
            }
            let entry = store.get(key).filter(|entry| entry.is_fresh(now))?;
            let response = respond(entry.status, &entry.headers, &entry.body);
            if slot.wins_vote(hash) {
                let (headers, body) = entry.replica();
                let held = Some(Held { key: key.into(), entry, headers, body });
                *slot = Slot { cache: self.id, hash, hits: 0, held, vote: (0, 0) };
            }
            Some(response)
        })
    }
}

impl Slot {
    #[inline]
    fn answer(&mut self, key: &str, now: u64) -> Option<Response<Full<Bytes>>> {
        let held = self.held.as_ref().filter(|held| &*held.key == key && held.entry.is_fresh(now))?;
        self.hits = self.hits.wrapping_add(1);
        Some(respond(held.entry.status, &held.headers, &held.body))
    }

    fn wins_vote(&mut self, hash: u64) -> bool {
        if self.vote.0 == hash {
            self.vote.1 += 1;
            return self.vote.1 >= PROMOTE;
        }
        if self.vote.1 == 0 {
            self.vote = (hash, 1);
        } else {
            self.vote.1 -= 1;
        }
        false
    }
}
