//! What an entry takes.

use std::time::Instant;

use super::children::{Children, print_figures};
use crate::{
    alloc,
    args::Args,
    candidates::Config,
    clock::status_mib,
    origin::{Answer, Mode, OriginHandle},
    runner::{current_thread, one, request, unique, uri},
    table::{Column, Table, column},
};

const BODY: usize = 100;

const COLUMNS: [Column; 4] = [
    column("RSS bytes/entry", "rss_bytes", 0),
    column("heap bytes/entry", "heap_bytes", 0),
    column("% still held", "held_percent", 1),
    column("seconds to fill", "seconds", 1),
];

pub(crate) fn mem(args: &Args) -> Table {
    let (n, rounds) = (args.number("n", 1_000_000), args.number("rounds", 1));
    let (body, fields) = (args.number("body", BODY), args.number("fields", 8));
    let title = format!("Memory: {n} entries of {body} bytes and {fields} fields");
    let options = vec![("n", n), ("body", body), ("fields", fields)];
    let children = Children { sub: "mem-one", options, rounds, columns: &COLUMNS };
    children.table(title, args, |meta| !meta.special)
}

/// One candidate, in a process of its own.
pub(crate) fn mem_one(args: &Args) {
    let (n, body) = (args.number("n", 1_000_000), args.number("body", BODY));
    let candidate = one(args.text("cand").expect("--cand"));
    let absolute = candidate.meta().absolute_uri;
    let runtime = current_thread();
    let origin = OriginHandle::new(Answer::new(body, Mode::Fresh).fields(args.number("fields", 8)));
    let mut live = candidate.make(&Config::new(n + n / 10), &origin);
    let source = unique(absolute);
    live.ask(&runtime, &source, n as u64, 300);
    let rss = status_mib("VmRSS");
    alloc::track_from_here();
    let started = Instant::now();
    live.ask(&runtime, &source, 0, n);
    let seconds = started.elapsed().as_secs_f64();
    let heap = alloc::live();
    let rss = (status_mib("VmRSS") - rss) * f64::from(1 << 20);
    // How many of them are still held? Ask for a sample again.
    let before = origin.calls();
    let sample: Vec<u64> = (0..n as u64).step_by(100).collect();
    for at in &sample {
        runtime.block_on(live.get(request(uri(*at, absolute))));
    }
    let missing = (origin.calls() - before) as f64 / sample.len() as f64;
    print_figures(&[rss / n as f64, heap / n as f64, 100.0 * (1.0 - missing), seconds]);
}
