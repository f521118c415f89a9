//! Which keys lost to a purge what was stored under them.

use crate::sequence::Loss;
use crate::sequence::sync::{AtomicU64, Ordering};

/// Keys that are remembered. The next one takes the place of another with the same slot.
const SLOTS: usize = 1024;

const PURGED: u64 = 1;
const INVALIDATED: u64 = 2;
const KINDS: u64 = PURGED | INVALIDATED;

/// The keys under which everything was purged and nothing was stored since, by their hashes.
///
/// What is purged is given back sooner or later. A request says the same of it before and after.
pub(super) struct Losses(Box<[AtomicU64]>);

impl Default for Losses {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Losses {
    pub(super) fn note(&self, hash: u64, loss: Loss) {
        let kind = if loss == Loss::Invalidated { INVALIDATED } else { PURGED };
        if let Some(word) = self.word(hash) {
            word.store(hash & !KINDS | kind, Ordering::Relaxed);
        }
    }

    /// Something is stored under the key again.
    pub(super) fn forget(&self, hash: u64) {
        if let Some(word) = self.word(hash)
            && word.load(Ordering::Relaxed) & !KINDS == hash & !KINDS
        {
            word.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn find(&self, hash: u64) -> Option<Loss> {
        let word = self.word(hash)?.load(Ordering::Relaxed);
        match word & KINDS {
            _ if word & !KINDS != hash & !KINDS => None,
            PURGED => Some(Loss::Purged),
            INVALIDATED => Some(Loss::Invalidated),
            _ => None,
        }
    }

    fn word(&self, hash: u64) -> Option<&AtomicU64> {
        self.0.get((hash >> 32) as usize % SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_remembered_until_something_is_stored_again_or_the_slot_is_taken() {
        let losses = Losses::default();
        let (a, other_slot, same_slot) = (0x10, 1 << 32 | 0x10, 0x20);
        assert_eq!(losses.find(a), None);
        losses.note(a, Loss::Purged);
        losses.note(other_slot, Loss::Invalidated);
        assert_eq!(losses.find(a), Some(Loss::Purged));
        assert_eq!(losses.find(other_slot), Some(Loss::Invalidated));
        assert_eq!(losses.find(same_slot), None);
        losses.forget(same_slot);
        assert_eq!(losses.find(a), Some(Loss::Purged), "another key");
        losses.forget(a);
        assert_eq!(losses.find(a), None);
        losses.note(a, Loss::Purged);
        losses.note(same_slot, Loss::Purged);
        assert_eq!((losses.find(a), losses.find(same_slot)), (None, Some(Loss::Purged)));
    }
}
