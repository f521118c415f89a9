//! What became of requests, by the key rule that decides about them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

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
    names: RwLock<Vec<Arc<str>>>,
    /// A power of two of them.
    shards: Box<[Shard]>,
}

impl RuleCounters {
    pub(super) fn new() -> Self {
        let numbers = || std::array::from_fn(|_| AtomicU64::new(0));
        let shard = || Shard(std::iter::repeat_with(numbers).take(NONE + 1).collect());
        let shards = std::iter::repeat_with(shard).take(counters::shards()).collect();
        Self { names: RwLock::default(), shards }
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

    fn place_of(&self, rule: &str) -> usize {
        let find = |names: &[Arc<str>]| names.iter().position(|name| **name == *rule);
        let known = {
            let names = self.names.read();
            find(&names).or((names.len() >= MAX_RULES).then_some(OTHER))
        };
        if let Some(place) = known {
            return place;
        }
        let mut names = self.names.write();
        match find(&names) {
            Some(place) => place,
            None if names.len() >= MAX_RULES => OTHER,
            None => {
                names.push(rule.into());
                names.len() - 1
            }
        }
    }

    pub(super) fn snapshot(&self) -> Vec<RuleStats> {
        let names = self.names.read().clone();
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
        let named = names.iter().enumerate().map(|(place, name)| of(place, Some((**name).into()), false));
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
