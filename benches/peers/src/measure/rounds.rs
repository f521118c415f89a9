//! Candidates take turns round by round in one process, ratios are taken within each round, and
//! medians of the ratios are reported: what disturbs the machine disturbs all of them.

use crate::{
    candidates::{Config, Meta},
    origin::{Answer, OriginHandle},
    runner::{Candidate, Live, Sample},
    table::{Cell, Column, Table, column, median, sorted},
};

/// A candidate that is up, and what was measured so far.
pub(super) struct Contender {
    pub(super) meta: Meta,
    pub(super) live: Box<dyn Live>,
    pub(super) origin: OriginHandle,
    /// Requests per round.
    pub(super) count: usize,
    /// One per round; None if it is not to count.
    pub(super) samples: Vec<Option<Sample>>,
}

impl Contender {
    pub(super) fn new(candidate: &dyn Candidate, config: &Config, answer: Answer) -> Self {
        let origin = OriginHandle::new(answer);
        let live = candidate.make(config, &origin);
        Self { meta: candidate.meta(), live, origin, count: 0, samples: Vec::new() }
    }

    /// Before each round, so many purges of what is not there.
    pub(super) fn purge(&self, count: usize) {
        let round = self.samples.len();
        self.origin.purge((round * count) as u64..((round + 1) * count) as u64);
    }

    fn each(&self, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.as_ref().map_or(f64::NAN, &value)).collect()
    }

    fn ns(&self) -> Vec<f64> {
        self.each(|sample| sample.ns)
    }
}

pub(super) const COLUMNS: [Column; 8] = [
    column("ns/op median", "ns", 0),
    column("min", "ns_min", 0),
    column("max", "ns_max", 0),
    column("x floor-service", "x_floor_service", 2),
    column("x floor-arc-str", "x_floor_arc_str", 2),
    column("x Lookup+Fill", "x_store", 2),
    column("allocs/op", "allocs", 1),
    column("bytes/op", "bytes", 0),
];

/// The median of the ratios to a reference, if it takes part.
fn ratio(contenders: &[Contender], of: &Contender, to: &str) -> f64 {
    let Some(reference) = contenders.iter().find(|each| each.meta.name == to) else { return f64::NAN };
    let pairs = of.ns().into_iter().zip(reference.ns());
    median(&pairs.map(|(ns, reference)| ns / reference).collect::<Vec<_>>())
}

pub(super) fn cells(contenders: &[Contender], of: &Contender) -> Vec<Cell> {
    let ns = sorted(&of.ns());
    let numbers = [
        median(&ns),
        ns.first().copied().unwrap_or(f64::NAN),
        ns.last().copied().unwrap_or(f64::NAN),
        ratio(contenders, of, "floor-service"),
        ratio(contenders, of, "floor-arc-str"),
        ratio(contenders, of, "tower-readthrough-store"),
        median(&of.each(|sample| sample.allocs)),
        median(&of.each(|sample| sample.bytes)),
    ];
    numbers.map(Cell::Number).into()
}

pub(super) fn table(title: impl Into<String>, contenders: &[Contender]) -> Table {
    let mut table = Table::new(title, &COLUMNS);
    for contender in contenders {
        warn_of_dropped_rounds(contender);
        table.row(contender.meta.name, cells(contenders, contender));
    }
    table
}

fn warn_of_dropped_rounds(of: &Contender) {
    let dropped = of.samples.iter().filter(|sample| sample.is_none()).count();
    if dropped > 0 {
        let (name, all) = (of.meta.name, of.samples.len());
        eprintln!("{name}: {dropped} of {all} rounds dropped, the threads did not overlap");
    }
}
