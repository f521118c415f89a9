//! What all flights of a layer hold together for their readers.

use std::{
    collections::{BinaryHeap, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use quick_cache::DefaultHashBuilder;

use super::log::{Dropped, Reclaim};

/// One flight may be ahead of its fastest reader by this part of what is free: the more is held, the
/// closer every flight keeps to its readers.
const SHARE: u64 = 4;

/// In this last part of the budget each flight uses no more than one chunk at a time.
const RESERVE: u64 = 4;

/// At the limit this part of the budget is freed at once, so that not every chunk looks for room.
const ROOM: u64 = 32;

/// Holds bytes that a budget counts.
pub(super) trait Holder: Send + Sync {
    /// What [`reclaim`](Self::reclaim) gives up next.
    fn reclaimable(&self) -> Option<Reclaim>;

    /// Gives up something, and releases it from the budget.
    fn reclaim(&self) -> Dropped;
}

/// A soft bound of the bytes that all holders have: beyond it they give up what is needed least.
#[derive(Debug, Default)]
pub(super) struct Budget {
    held: AtomicU64,
    /// Readers that lost their place for lack of room.
    lagged: AtomicU64,
    /// All that hold something, by their addresses.
    holders: Mutex<HashMap<usize, Weak<dyn Holder>, DefaultHashBuilder>>,
    /// Held while room is made, so that several fetches do not free more than they need.
    making_room: Mutex<()>,
}

impl Budget {
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    /// How far one flight may be ahead of its fastest reader now.
    pub(super) fn max_ahead(&self, limit: u64) -> u64 {
        (limit - limit / RESERVE).saturating_sub(self.held()) / SHARE
    }

    pub(super) fn enter<H: Holder + 'static>(&self, holder: &Arc<H>) {
        let weak = Arc::downgrade(holder);
        self.holders.lock().insert(address(&**holder), weak);
    }

    /// Releases all that `holder` has, which is about to be dropped.
    pub(super) fn leave<H>(&self, holder: &H, held: u64) {
        self.release(held);
        let gone = self.holders.lock().remove(&address(holder));
        drop(gone);
    }

    pub(super) fn release(&self, bytes: u64) {
        if bytes > 0 {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Counts `after` bytes of a holder instead of `before`. Returns whether all together are beyond the
    /// limit now.
    pub(super) fn replace(&self, before: u64, after: u64, limit: u64) -> bool {
        self.release(before.saturating_sub(after));
        let more = after.saturating_sub(before);
        self.held.fetch_add(more, Ordering::Relaxed).saturating_add(more) > limit
    }

    /// Makes room for what `pusher` has brought: readers that are behind others go first, then what is
    /// kept for newcomers, and last the only readers of other flights.
    #[cold]
    pub(super) fn make_room<H>(&self, limit: u64, pusher: &Arc<H>) {
        // Dropped last: no lock is held then.
        let (mut holders, mut dropped) = (Vec::new(), Vec::new());
        let making_room = self.making_room.lock();
        if self.held() <= limit {
            return;
        }
        holders.extend(self.holders.lock().values().filter_map(Weak::upgrade));
        let goal = limit - limit / ROOM;
        let candidate = |at: usize| {
            let holder: &Arc<dyn Holder> = &holders[at];
            let is_pusher = address(&**holder) == address(&**pusher);
            // What has just come in is not given up for itself.
            let may_go = |reclaim: &Reclaim| !(matches!(reclaim, Reclaim::OnlyReaders(_)) && is_pusher);
            holder.reclaimable().filter(may_go).map(|reclaim| (reclaim, at))
        };
        let mut candidates: BinaryHeap<_> = (0..holders.len()).filter_map(candidate).collect();
        while self.held() > goal
            && let Some((reclaim, at)) = candidates.pop()
        {
            // All but slow readers go only as far as needed.
            if !matches!(reclaim, Reclaim::SlowestReader(_)) && self.held() <= limit {
                break;
            }
            let given_up = holders[at].reclaim();
            self.lagged.fetch_add(given_up.readers as u64, Ordering::Relaxed);
            dropped.push(given_up);
            candidates.extend(candidate(at));
        }
        drop(making_room);
    }
}

fn address<H: ?Sized>(holder: &H) -> usize {
    std::ptr::from_ref(holder).addr()
}
