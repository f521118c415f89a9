//! The keys with the largest sums, in bounded memory.

/// How many keys are tracked.
pub(super) const TRACKED: usize = 64;

/// Sums by label, of which the largest are kept (Metwally et al., "Efficient computation of frequent and top-k
/// elements in data streams", 2005).
///
/// A label that comes new to a full sketch takes the place of the one with the least sum, and begins with that
/// sum, which is noted as its error: no sum is too small, and each is too large by its error at most.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    sums: Vec<Sum>,
}

/// The sum of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) label: Box<str>,
    pub(super) sum: u64,
    /// By how much the sum is too large at most.
    pub(super) error: u64,
}

impl Sketch {
    /// Adds to the sum of a label. Returns the label that lost its place, to be dropped without a lock.
    pub(super) fn add(&mut self, label: &str, weight: u64) -> Option<Box<str>> {
        if let Some(own) = self.sums.iter_mut().find(|sum| *sum.label == *label) {
            own.sum = own.sum.saturating_add(weight);
            return None;
        }
        if self.sums.len() < TRACKED {
            self.sums.push(Sum { label: label.into(), sum: weight, error: 0 });
            return None;
        }
        let least = self.sums.iter_mut().min_by_key(|sum| sum.sum)?;
        let error = least.sum;
        let new = Sum { label: label.into(), sum: error.saturating_add(weight), error };
        Some(std::mem::replace(least, new).label)
    }

    /// The largest sums, in their order.
    pub(super) fn largest(&self, rows: usize) -> Vec<Sum> {
        let mut sums = self.sums.clone();
        sums.sort_by(|a, b| b.sum.cmp(&a.sum).then_with(|| a.label.cmp(&b.label)));
        sums.truncate(rows);
        sums
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn sums_are_exact_while_there_is_room() {
        let mut sketch = Sketch::default();
        for label in ["b", "a", "b", "c", "b", "a"] {
            assert_eq!(sketch.add(label, 2), None);
        }
        let largest: Vec<_> =
            sketch.largest(2).into_iter().map(|sum| (sum.label, sum.sum, sum.error)).collect();
        assert_eq!(largest, [("b".into(), 6, 0), ("a".into(), 4, 0)]);
    }

    #[test]
    fn a_frequent_label_is_found_among_any_number_of_others_within_its_error() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut sketch, mut exact) = (Sketch::default(), HashMap::<String, u64>::new());
        for _ in 0..50_000 {
            let label = match random.u8(..10) {
                0 => "frequent".to_owned(),
                1 => "often".to_owned(),
                _ => format!("rare {}", random.u32(..)),
            };
            let weight = random.u64(1..10);
            sketch.add(&label, weight);
            *exact.entry(label).or_default() += weight;
        }
        assert_eq!(sketch.sums.len(), TRACKED);
        let labels: Vec<_> = sketch.largest(2).into_iter().map(|sum| sum.label).collect();
        assert_eq!(labels.concat().len(), "frequentoften".len());
        for Sum { label, sum, error } in sketch.largest(TRACKED) {
            let truth = exact[&*label];
            assert!(
                truth <= sum && sum - error <= truth,
                "{label}: {truth} is within {} and {sum}",
                sum - error
            );
        }
    }
}
