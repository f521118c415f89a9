//! What happened in the last five minutes, in steps of two seconds.

use std::{collections::VecDeque, time::Duration};

use crate::observe::StatsSnapshot;

/// How often the counters are read.
pub(super) const STEP: Duration = Duration::from_secs(2);

/// How many steps are kept.
pub(super) const SLOTS: usize = 150;

/// How many steps lie between two snapshots that are kept whole.
const STEPS_BETWEEN: usize = 5;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Slot {
    /// `None`: nothing was asked of the cache.
    pub(super) hit_ratio: Option<f64>,
    pub(super) requests_per_second: f64,
    pub(super) origin_calls_per_second: f64,
    /// The mean. `None`: no attempt ended.
    pub(super) origin_seconds: Option<f64>,
}

impl Slot {
    fn of(step: &StatsSnapshot) -> Self {
        let seconds = step.over.as_secs_f64().max(1e-9);
        let ended: u64 = step.origins.iter().map(|origin| origin.latency.count()).sum();
        let took: Duration = step.origins.iter().map(|origin| origin.latency.sum()).sum();
        let attempts: u64 = step.origins.iter().map(|origin| origin.attempts).sum();
        Self {
            hit_ratio: step.hit_ratio(),
            requests_per_second: step.requests() as f64 / seconds,
            origin_calls_per_second: attempts as f64 / seconds,
            origin_seconds: (ended > 0).then(|| took.as_secs_f64() / ended as f64),
        }
    }
}

/// The last steps, and the snapshots that the sums of the whole time are taken from.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<StatsSnapshot>,
    slots: VecDeque<Slot>,
    snapshots: VecDeque<StatsSnapshot>,
    steps: usize,
}

impl History {
    /// Adds a step that ends now. Returns what is kept no longer, to be dropped without a lock.
    pub(super) fn push(&mut self, now: StatsSnapshot) -> [Option<StatsSnapshot>; 2] {
        if let Some(last) = &self.last {
            self.slots.push_back(Slot::of(&now.since(last)));
            if self.slots.len() > SLOTS {
                self.slots.pop_front();
            }
        }
        let mut oldest = None;
        if self.steps.is_multiple_of(STEPS_BETWEEN) {
            self.snapshots.push_back(now.clone());
            if self.snapshots.len() > SLOTS / STEPS_BETWEEN {
                oldest = self.snapshots.pop_front();
            }
        }
        self.steps = self.steps.wrapping_add(1);
        [self.last.replace(now), oldest]
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        self.slots.iter().copied().collect()
    }

    /// The snapshot at the beginning of the time that is kept.
    pub(super) fn first(&self) -> Option<StatsSnapshot> {
        self.snapshots.front().cloned()
    }
}
