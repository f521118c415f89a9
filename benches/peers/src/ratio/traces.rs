//! What is asked for.

use super::KEYS;
use crate::zipf::{Rng, Zipf};

const WINDOW: usize = 50_000;

/// Zipf(0.9) over the key space. With scans, every 50,000 requests 12,500 keys are mixed in that
/// are asked for once and never again (20 % of all requests).
pub(super) fn zipf(n: usize, scans: bool) -> Vec<u64> {
    let mut zipf = Zipf::new(KEYS, 0.9, 1);
    let mut trace = Vec::with_capacity(n + 2);
    let mut fresh = 1_u64 << 40;
    for at in (0..WINDOW).cycle() {
        if trace.len() >= n {
            break;
        }
        trace.push(u64::from(zipf.next()));
        // The scan runs as a burst: one of its keys after every other request of half the window.
        if scans && at >= WINDOW / 2 && at.is_multiple_of(2) {
            trace.push(fresh);
            fresh += 1;
        }
    }
    trace.truncate(n);
    trace
}

/// Made up to be like the web: 70 % Zipf(0.9) whose popular keys change over time, 12 % a crawler
/// that walks the catalogue in order again and again, 10 % repeats of one of the last 2,000
/// requests, and 8 % keys asked for once only.
pub(super) fn web_like(n: usize) -> Vec<u64> {
    let (mut zipf, mut rng) = (Zipf::new(KEYS, 0.9, 2), Rng::new(3));
    let mut catalogue = Catalogue { keys: (0..KEYS as u64).collect(), next: KEYS as u64 };
    let (mut crawled, mut once) = (0, 1_u64 << 40);
    let mut trace: Vec<u64> = Vec::with_capacity(n);
    for at in 0..n {
        if at.is_multiple_of(WINDOW) && at > 0 {
            catalogue.drift(&mut rng);
        }
        let kind = rng.fraction();
        trace.push(if kind < 0.70 || at < 2_000 {
            catalogue.keys[zipf.next() as usize]
        } else if kind < 0.82 {
            crawled += 1;
            catalogue.keys[crawled % KEYS]
        } else if kind < 0.92 {
            trace[at - 1 - rng.below(2_000) as usize]
        } else {
            once += 1;
            once
        });
    }
    trace
}

/// The keys by rank.
struct Catalogue {
    keys: Vec<u64>,
    next: u64,
}

impl Catalogue {
    /// 3 % of the ranks get a new key, and 60 of the 2,000 most popular ones.
    fn drift(&mut self, rng: &mut Rng) {
        let anywhere = std::iter::repeat_n(KEYS as u64, KEYS * 3 / 100);
        for below in anywhere.chain(std::iter::repeat_n(2_000, 60)) {
            self.keys[rng.below(below) as usize] = self.next;
            self.next += 1;
        }
    }
}
