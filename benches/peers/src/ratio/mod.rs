//! Hit ratio at equal capacity, in entries, on made-up traces.

mod caches;
mod references;
mod services;
mod traces;

use std::time::Instant;

use crate::{
    args::Args,
    table::{Cell, Column, Table, column},
};

const KEYS: usize = 200_000;
const PERCENT: [usize; 3] = [1, 5, 10];

const COLUMNS: [Column; 10] = [
    column("Zipf: 1 %", "zipf_1", 2),
    column("5 %", "zipf_5", 2),
    column("10 %", "zipf_10", 2),
    column("with scans: 1 %", "scans_1", 2),
    column("5 %", "scans_5", 2),
    column("10 %", "scans_10", 2),
    column("web-like: 1 %", "web_1", 2),
    column("5 %", "web_5", 2),
    column("10 %", "web_10", 2),
    column("ns per request, Zipf 5 %", "ns", 0),
];

/// A cache that is asked for keys.
trait Sim {
    /// True on a hit; inserts on a miss.
    fn access(&mut self, key: u64) -> bool;

    /// Entries held now, where the cache can tell.
    fn held(&self) -> Option<usize> {
        None
    }
}

/// Makes a cache with room for so many entries; some look at the trace first.
type Make = Box<MakeFn>;
type MakeFn = dyn Fn(&[u64], usize) -> Box<dyn Sim>;

fn all() -> Vec<(&'static str, Make)> {
    let mut all = references::all();
    all.extend(services::all());
    all.extend(caches::all());
    all
}

fn chosen(only: Option<&str>) -> Vec<(&'static str, Make)> {
    let keep = |name: &str| only.is_none_or(|only| only.split(',').any(|each| each == name));
    all().into_iter().filter(|(name, _)| keep(name)).collect()
}

pub(crate) fn ratio(args: &Args) -> Table {
    let n = args.number("n", 3_000_000);
    let traces = [traces::zipf(n, false), traces::zipf(n, true), traces::web_like(n)];
    let title = format!(
        "Hit ratio in %, room for so many % of {KEYS} keys, {n} requests of which the first fifth warms up"
    );
    let mut table = Table::new(title, &COLUMNS).first("cache");
    for (name, make) in chosen(args.only()) {
        eprintln!("{name}");
        let runs: Vec<(f64, f64)> = traces
            .iter()
            .flat_map(|trace| PERCENT.map(|percent| run(name, &*make, trace, KEYS * percent / 100)))
            .collect();
        let mut cells: Vec<_> = runs.iter().map(|(ratio, _)| Cell::Number(*ratio)).collect();
        cells.push(Cell::Number(runs[1].1));
        table.row(name, cells);
    }
    table
}

/// The ratio in %, and ns per request.
fn run(name: &str, make: &MakeFn, trace: &[u64], room: usize) -> (f64, f64) {
    let mut cache = make(trace, room);
    let (warm_up, measured) = trace.split_at(trace.len() / 5);
    let started = Instant::now();
    for key in warm_up {
        cache.access(*key);
    }
    let hits = measured.iter().filter(|key| cache.access(**key)).count();
    let ns = started.elapsed().as_nanos() as f64 / trace.len() as f64;
    if let Some(held) = cache.held() {
        assert!(held <= room, "{name} holds {held} of {room}");
    }
    (100.0 * hits as f64 / measured.len() as f64, ns)
}
