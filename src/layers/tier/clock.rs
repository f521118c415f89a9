//! The clock of the remote, by which all nodes date what they write.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::store::Moment;

/// By so much a response may be dated into the future before its date says nothing.
pub(super) const FUTURE: Duration = Duration::from_secs(1);

/// What the clock of the remote said, and when that was asked and answered.
///
/// It was read at some moment between the two. Each use takes the end that makes a response older.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    now: SystemTime,
    sent_at: Instant,
    answered_at: Instant,
}

impl Clock {
    pub(super) fn new(now_ms: u64, sent_at: Instant) -> Option<Self> {
        let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(now_ms))?;
        Some(Self { now, sent_at, answered_at: Instant::now() })
    }

    /// For what is read: the request was sent no later than the clock was read. The milliseconds were cut off.
    pub(super) fn for_reading(self) -> Moment {
        let now = self.now.checked_add(Duration::from_millis(1)).unwrap_or(self.now);
        Moment { instant: self.sent_at, time: now }
    }

    /// For what is written: the clock was read no later than the answer came.
    pub(super) fn for_writing(self) -> Moment {
        Moment { instant: self.answered_at, time: self.now }
    }

    /// Whether this moment lies so far ahead that clocks differ.
    pub(super) fn is_ahead(self, time: SystemTime) -> bool {
        time.duration_since(self.now).is_ok_and(|ahead| ahead > FUTURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_response_is_never_younger_here_than_where_it_came_from() {
        // Of each round trip: how long it takes, and after what time the remote looks at its clock.
        for (writing, reading, waited) in [
            ((0, 0), (0, 0), 0),
            ((7, 3), (7, 3), 90),
            ((300, 0), (0, 0), 5),
            ((300, 300), (0, 0), 5),
            ((0, 0), (300, 0), 5),
            ((0, 0), (300, 300), 5),
            ((300, 300), (300, 0), 0),
        ] {
            let written_at = Instant::now();
            let look = async |(takes, looks): (u64, u64)| {
                let sent = Instant::now();
                let wall = 1_000_000 + (sent - written_at).as_millis() as u64 + looks;
                tokio::time::advance(Duration::from_millis(takes)).await;
                Clock::new(wall, sent).unwrap()
            };
            let Moment { instant, time } = look(writing).await.for_writing();
            let stored = time.checked_sub(instant - written_at).unwrap();
            tokio::time::advance(Duration::from_millis(waited)).await;
            let Moment { instant, time } = look(reading).await.for_reading();
            let age = time.duration_since(stored).unwrap() + (Instant::now() - instant);
            let true_age = Instant::now() - written_at;
            let most = true_age + Duration::from_millis(writing.0 + reading.0 + 2);
            assert!((true_age..=most).contains(&age), "{age:?} of {true_age:?}: {writing:?} {reading:?}");
        }
    }

    #[test]
    fn a_date_ahead_by_more_than_a_second_says_nothing() {
        let clock = Clock::new(5_000, Instant::now()).unwrap();
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        assert!(!clock.is_ahead(at(4_000)) && !clock.is_ahead(at(6_000)));
        assert!(clock.is_ahead(at(6_001)));
    }
}
