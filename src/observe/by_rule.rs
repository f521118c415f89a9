//! What became of requests, by the key rule that decides about them.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{counters, snapshot::RuleStats};
use crate::exchange::Outcome;

/// So many rules are counted by their names.
const MAX_RULES: usize = 64;
/// Where the others are counted.
const OTHER: usize = MAX_RULES;
/// Where requests are counted that no rule is for.
const NONE: usize = MAX_RULES + 1;

/// One number for each of the [`OUTCOMES`].
type Numbers = [AtomicU64; OUTCOMES];
const OUTCOMES: usize = 6;

#[repr(align(128))]
struct Shard(Box<[Numbers]>);

/// Numbers that only grow, by rule. Threads add to parts of their own, as with the other counters.
pub(super) struct RuleCounters {
    /// In the order in which they were first seen.
    names: [OnceLock<Box<str>>; MAX_RULES],
    /// A power of two of them.
    shards: Box<[Shard]>,
}

impl RuleCounters {
    pub(super) fn new() -> Self {
        let numbers = || std::array::from_fn(|_| AtomicU64::new(0));
        let shard = || Shard(std::iter::repeat_with(numbers).take(NONE + 1).collect());
        let shards = std::iter::repeat_with(shard).take(counters::shards()).collect();
        Self { names: [const { OnceLock::new() }; MAX_RULES], shards }
    }

    pub(super) fn add(&self, rule: Option<&str>, outcome: Outcome) {
        let place = rule.map_or(NONE, |name| self.place_of(name));
        let shard = self.shards.get(counters::thread() & (self.shards.len() - 1));
        if let Some(number) =
            shard.and_then(|Shard(rules)| rules.get(place)).and_then(|numbers| numbers.get(index(outcome)))
        {
            number.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The place that has this name, or takes it. All look in the same order, so that none takes a second one.
    fn place_of(&self, rule: &str) -> usize {
        let has_name = |place: &OnceLock<Box<str>>| **place.get_or_init(|| rule.into()) == *rule;
        self.names.iter().position(has_name).unwrap_or(OTHER)
    }

    pub(super) fn snapshot(&self) -> Vec<RuleStats> {
        let of = |place: usize, rule: Option<Box<str>>, is_other: bool| {
            let sum = |index: usize| {
                let numbers = self.shards.iter().filter_map(|Shard(rules)| rules.get(place)?.get(index));
                numbers.map(|number| number.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
            };
            RuleStats {
                rule,
                is_other,
                hits: sum(0),
                stale: sum(1),
                forwarded: sum(2),
                unkeyed: sum(3),
                refused: sum(4),
                failed: sum(5),
            }
        };
        let names = self.names.iter().map_while(OnceLock::get).enumerate();
        let named = names.map(|(place, name)| of(place, Some(name.clone()), false));
        named.chain([of(OTHER, None, true), of(NONE, None, false)]).collect()
    }
}

const fn index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Hit => 0,
        Outcome::Stale(_) => 1,
        Outcome::Forwarded(_) => 2,
        Outcome::Unkeyed(_) => 3,
        Outcome::Refused(_) => 4,
        Outcome::Failed => 5,
    }
}

impl fmt::Debug for RuleCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleCounters").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_beyond_the_first_are_counted_together_and_each_of_the_first_by_itself() {
        let counters = RuleCounters::new();
        for round in 0..2 {
            for rule in 0..MAX_RULES + 6 {
                counters.add(Some(&format!("rule {rule}")), Outcome::Hit);
            }
            counters.add(None, Outcome::Failed);
            let seen = counters.snapshot();
            assert_eq!(seen.len(), MAX_RULES + 2);
            let [named @ .., other, none] = &seen[..] else { panic!("{seen:?}") };
            assert!(named.iter().all(|rule| rule.hits == round + 1 && rule.rule.is_some()));
            assert_eq!(
                (other.hits, other.is_other, none.hits, none.failed),
                (6 * (round + 1), true, 0, round + 1)
            );
        }
    }
}
