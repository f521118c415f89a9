//! Copies of the hottest entries, for each thread.
//!
//! Threads that serve the same response contend for its reference counters: on two cores that alone doubles
//! the cost of a hit. So each thread keeps copies of the few entries that dominate there, with counters of
//! their own.
//!
//! A copy belongs to its original: whatever replaces, removes or evicts an entry
//! [retires](Entry::retire) it, and its copies with it, before it returns. A thread has no more than
//! a weak reference, so that neither outlives what the table holds. All else that is decided for each
//! request (purges, freshness, variants) is decided as ever.
//!
//! Bound: [`SLOTS`] copies of at most [`MAX_BYTES`] in each thread, 1 MiB together, beside the
//! capacity of the stores. A copy lives until its original goes, another key takes its slot, or the
//! thread ends.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};

use crate::store::Entry;

const SLOTS: usize = 64;

/// Larger entries are not copied: to send them costs far more than to count references.
const MAX_BYTES: usize = 16 << 10;

/// A key needs so many requests more than all others of its slot.
const LEAD: u32 = 8;

/// One of so many uses of a copy is reported to the table, so that it does not evict what is in use.
const SILENT_USES: u32 = 16;

thread_local! {
    static FRONT: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// Room for one copy, and the vote on which key gets it (after Boyer and Moore).
#[derive(Default)]
struct Slot {
    held: Option<Held>,
    candidate: u64,
    lead: u32,
}

struct Held {
    /// Keeps apart the same key in different stores.
    store: u64,
    key: Box<[u8]>,
    original: Weak<Entry>,
    copy: Weak<Entry>,
    uses: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(original) = self.original.upgrade() {
            original.let_go(&self.copy);
        }
    }
}

enum Use {
    /// And whether to report it to the table.
    Copy(Arc<Entry>, bool),
    None,
}

/// Returns this thread's copy of the entry under a key, or else what the table has.
pub(super) fn get(store: u64, key: &[u8], table: impl Fn() -> Option<Arc<Entry>>) -> Option<Arc<Entry>> {
    let hash = mix(store, key);
    match FRONT.try_with(|front| use_copy(&mut front.borrow_mut(), hash, store, key)) {
        Ok(Use::Copy(copy, false)) => return Some(copy),
        Ok(Use::Copy(copy, true)) => {
            drop(table());
            return Some(copy);
        }
        _ => {}
    }
    let original = table()?;
    let leads = FRONT.try_with(|front| has_lead(&mut front.borrow_mut(), hash)).unwrap_or(false);
    if leads && original.bytes() <= MAX_BYTES {
        let copy = Arc::new(original.copied());
        if original.keep(&copy) {
            let (copy, original) = (Arc::downgrade(&copy), Arc::downgrade(&original));
            hold(hash, Held { store, key: key.into(), original, copy, uses: 0 });
        }
    }
    Some(original)
}

fn use_copy(front: &mut [Slot], hash: u64, store: u64, key: &[u8]) -> Use {
    let Some(slot) = front.get_mut(hash as usize % SLOTS) else { return Use::None };
    match &mut slot.held {
        Some(held) if held.store == store && *held.key == *key => {
            let Some(copy) = held.copy.upgrade().filter(|copy| copy.is_current()) else { return Use::None };
            slot.lead = slot.lead.saturating_sub(1);
            held.uses = held.uses.wrapping_add(1);
            Use::Copy(copy, held.uses.is_multiple_of(SILENT_USES))
        }
        _ => Use::None,
    }
}

/// Counts a vote, and says whether it was the last that was needed.
fn has_lead(front: &mut Vec<Slot>, hash: u64) -> bool {
    if front.is_empty() {
        front.resize_with(SLOTS, Slot::default);
    }
    let slot = &mut front[hash as usize % SLOTS];
    match slot.lead {
        0 => (slot.candidate, slot.lead) = (hash, 1),
        _ if slot.candidate == hash => slot.lead += 1,
        _ => slot.lead -= 1,
    }
    slot.candidate == hash && slot.lead >= LEAD
}

/// Values are dropped where nothing is borrowed: dropping a body may run code of the application.
fn hold(hash: u64, held: Held) {
    let before = FRONT.try_with(|front| {
        let mut front = front.borrow_mut();
        let slot = front.get_mut(hash as usize % SLOTS)?;
        slot.lead = 0;
        slot.held.replace(held)
    });
    drop(before);
}

/// A cheap hash: keys that it does not tell apart share a slot, and no more.
fn mix(store: u64, key: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
    // Keys differ in their ends before all.
    let end: [u8; 32] = key.last_chunk().copied().unwrap_or_else(|| {
        let mut padded = [0; 32];
        padded[..key.len()].copy_from_slice(key);
        padded
    });
    let words = end.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    words.fold(mix(store, key.len() as u64), mix).wrapping_mul(FACTOR) >> 7
}
