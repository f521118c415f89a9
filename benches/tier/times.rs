//! How long something took, many times over.

use std::time::Duration;

use tokio::time::Instant;

pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, began: Instant) {
        self.0.push(began.elapsed());
    }

    pub(crate) fn micros(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6
    }

    pub(crate) fn p50(&mut self) -> f64 {
        self.micros(0.5)
    }

    pub(crate) fn p99(&mut self) -> f64 {
        self.micros(0.99)
    }
}
