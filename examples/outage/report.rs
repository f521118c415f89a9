//! The timeline, line by line, and what it comes to.

use serde_json::json;
use tower_readthrough::OriginState;

use crate::load::Counts;

/// The phase in which no origin is up, and the one in which both are again.
const OUTAGE: usize = 2;
const RECOVERY: usize = 3;
/// The share of fresh pages that counts as recovered.
const FRESH: f64 = 0.99;

pub(crate) struct Timeline {
    rate: u32,
    seconds: u32,
    total: Counts,
    /// How often each origin has been asked.
    asked: [u64; 2],
    attempts_while_down: u64,
    seconds_of_recovery: u32,
    seconds_to_fresh: Option<u32>,
}

impl Timeline {
    pub(crate) const fn new(rate: u32) -> Self {
        Self {
            rate,
            seconds: 0,
            total: Counts { requests: 0, failed: 0, stale: 0 },
            asked: [0; 2],
            attempts_while_down: 0,
            seconds_of_recovery: 0,
            seconds_to_fresh: None,
        }
    }

    /// Adds a second, and returns its line.
    pub(crate) fn add(
        &mut self,
        phase: usize,
        counts: Counts,
        asked: [u64; 2],
        states: [OriginState; 2],
    ) -> String {
        self.seconds += 1;
        self.total.requests += counts.requests;
        self.total.failed += counts.failed;
        self.total.stale += counts.stale;
        let attempts = [asked[0] - self.asked[0], asked[1] - self.asked[1]];
        self.asked = asked;
        let stale = counts.stale as f64 / counts.requests.max(1) as f64;
        match phase {
            OUTAGE => self.attempts_while_down += attempts.iter().sum::<u64>(),
            RECOVERY => {
                self.seconds_of_recovery += 1;
                if 1.0 - stale >= FRESH {
                    self.seconds_to_fresh.get_or_insert(self.seconds_of_recovery);
                }
            }
            _ => {}
        }
        let bar = "#".repeat((stale * 20.0).round() as usize);
        format!(
            "{:>4} s {:>6} requests {:>4} failed  stale {:>3.0} % |{bar:<20}|  asked {:>4} {:>4}  {} {}",
            self.seconds,
            counts.requests,
            counts.failed,
            stale * 100.0,
            attempts[0],
            attempts[1],
            states[0],
            states[1],
        )
    }

    pub(crate) fn json(&self) -> String {
        json!({
            "requests": self.total.requests,
            "failed": self.total.failed,
            "stale": self.total.stale,
            "origin_calls": self.asked.iter().sum::<u64>(),
            "attempts_while_down": self.attempts_while_down,
            "seconds_to_fresh": self.seconds_to_fresh,
        })
        .to_string()
    }

    pub(crate) fn summary(&self) -> String {
        let recovered = match self.seconds_to_fresh {
            Some(seconds) => format!("99 % of the pages were fresh {seconds} s after both came back"),
            None => "the pages were not fresh again in the time there was".to_owned(),
        };
        format!(
            "{} requests ({} a second), {} failed, {} got a stale page\n\
             {} calls of the origins, {} of them while both were gone; {recovered}",
            self.total.requests,
            self.rate,
            self.total.failed,
            self.total.stale,
            self.asked.iter().sum::<u64>(),
            self.attempts_while_down,
        )
    }
}
