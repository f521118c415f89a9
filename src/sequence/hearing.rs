//! For how long what is stored may be used without hearing of the purges of other nodes.

use super::sync::{AtomicU64, Ordering};

/// Until when what was heard last is enough.
#[derive(Debug)]
pub(super) struct Hearing(AtomicU64);

/// There is no limit.
const FOR_EVER: u64 = u64::MAX;

impl Default for Hearing {
    fn default() -> Self {
        Self(AtomicU64::new(FOR_EVER))
    }
}

impl Hearing {
    /// From now on nothing is enough that was not [heard](Self::heard).
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "there are no other nodes"))]
    pub(super) fn limit(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// All purges were heard that there were at some moment, which is enough until before this one.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "there are no other nodes"))]
    pub(super) fn heard(&self, until: u64) {
        self.0.store(until.min(FOR_EVER - 1), Ordering::Release);
    }

    pub(super) fn is_over(&self, moment: impl FnOnce() -> u64) -> bool {
        let until = self.0.load(Ordering::Acquire);
        until != FOR_EVER && moment() >= until
    }
}
