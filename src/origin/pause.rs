//! How long to wait after failures: doubling, with equal jitter.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::build_error::BuildError;

/// Random shares from one seed, for all threads.
#[derive(Debug)]
pub(super) struct Draws(AtomicU64);

impl Draws {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed)))
    }

    /// Returns a share of at least 0 and less than 1.
    fn share(&self) -> f64 {
        // The step is odd, so that no seed comes twice before all others.
        let seed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        fastrand::Rng::with_seed(seed).f64()
    }

    /// Returns a time between four fifths of this one and all of it.
    pub(super) fn up_to_a_fifth_less(&self, time: Duration) -> Duration {
        time.saturating_sub((time / 5).mul_f64(self.share()))
    }
}

/// The shortest and the longest of waits that double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row: half of it is fixed, the other half random.
    pub(super) fn wait(self, failures: u32, draws: &Draws) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.min.saturating_mul(1 << doublings).min(self.max);
        let half = whole / 2;
        whole.saturating_sub(half.mul_f64(draws.share()))
    }

    pub(super) fn check(self, setting: &'static str) -> Result<(), BuildError> {
        if self.min.is_zero() {
            let consequence = "there is no wait after a failure";
            return Err(BuildError::ZeroDuration { setting, consequence });
        }
        match self.min > self.max {
            true => Err(BuildError::InvertedRange { setting }),
            false => Ok(()),
        }
    }
}

/// How long the origin may ask for (`Retry-After`): no single response puts a key out of reach for longer.
const MAX_ASKED_FOR: Duration = Duration::from_secs(60);

/// How long a key is left alone after fetches that failed.
#[derive(Clone, Debug)]
pub(crate) struct KeyPause {
    backoff: Backoff,
    draws: Arc<Draws>,
}

impl KeyPause {
    pub(super) const fn new(backoff: Backoff, draws: Arc<Draws>) -> Self {
        Self { backoff, draws }
    }

    /// Returns the shortest pause.
    pub(crate) const fn min(&self) -> Duration {
        self.backoff.min
    }

    /// Returns how long to wait after so many failures in a row: doubling up to the longest pause, of which
    /// one half is fixed and the other half random. Longer if the origin has asked for that, with up to a
    /// fifth more at random, so that what it sent away together does not come back together.
    pub(crate) fn wait(&self, failures: u32, asked_for: Option<Duration>) -> Duration {
        let pause = self.backoff.wait(failures, &self.draws);
        asked_for.map_or(pause, |asked_for| {
            pause.max(asked_for.min(MAX_ASKED_FOR).mul_f64(1.0 + self.draws.share() / 5.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(min: u64, max: u64) -> Backoff {
        Backoff { min: Duration::from_secs(min), max: Duration::from_secs(max) }
    }

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let draws = Draws::new(7);
        let means: Vec<_> = (1..=7)
            .map(|failures| {
                let sum: Duration = (0..1000).map(|_| seconds(1, 30).wait(failures, &draws)).sum();
                (sum / 1000).as_secs_f64()
            })
            .collect();
        for (mean, whole) in means.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]) {
            assert!((mean / whole - 0.75).abs() < 0.02, "{means:?}");
        }
    }

    #[test]
    fn a_seed_repeats_its_draws() {
        let waits = |seed| {
            let pause = KeyPause::new(seconds(1, 30), Draws::new(seed));
            (1..50).map(|failures| pause.wait(failures, None)).collect::<Vec<_>>()
        };
        assert_eq!(waits(3), waits(3));
        assert_ne!(waits(3), waits(4));
    }

    proptest! {
        #[test]
        fn a_wait_is_between_half_and_the_whole(
            failures in any::<u32>(), seed in any::<u64>(), min in 1..u64::MAX, more in any::<u64>(),
        ) {
            let (min, max) = (Duration::from_nanos(min), Duration::from_nanos(min.saturating_add(more)));
            let wait = Backoff { min, max }.wait(failures, &Draws::new(seed));
            prop_assert!(min / 2 <= wait && wait <= max, "{wait:?}");
            if failures >= 65 && more == 0 {
                prop_assert!(max / 2 <= wait);
            }
        }
    }

    #[test]
    fn a_wait_of_zero_and_an_inverted_range_are_refused() {
        let zero = Backoff { min: Duration::ZERO, max: Duration::from_secs(1) };
        assert!(matches!(
            zero.check("key_pause"),
            Err(BuildError::ZeroDuration { setting: "key_pause", .. })
        ));
        let inverted = seconds(2, 1).check("key_pause");
        assert_eq!(inverted, Err(BuildError::InvertedRange { setting: "key_pause" }));
        assert_eq!(seconds(1, 1).check("key_pause"), Ok(()));
    }
}
