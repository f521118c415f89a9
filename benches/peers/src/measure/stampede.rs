//! Many ask for one cold key at once.

use std::time::{Duration, Instant};

use super::children::{Children, print_figures};
use crate::{
    alloc,
    args::Args,
    candidates::Config,
    clock::status_mib,
    origin::{Answer, Mode, OriginHandle},
    runner::{one, request, threads, uri},
    table::{Column, Table, column},
};

const COLUMNS: [Column; 4] = [
    column("origin calls", "origin_calls", 0),
    column("wall ms", "wall_ms", 1),
    column("peak heap MiB", "peak_heap_mib", 1),
    column("peak RSS growth MiB", "peak_rss_mib", 1),
];

struct Options {
    callers: usize,
    body: usize,
    delay_ms: usize,
    workers: usize,
}

fn options(args: &Args) -> Options {
    Options {
        callers: args.number("callers", args.number("n", 10_000)),
        body: args.number("body", 1024),
        delay_ms: args.number("delay-ms", 50),
        workers: args.number("threads", 2),
    }
}

pub(crate) fn stampede(args: &Args) -> Table {
    let Options { callers, body, delay_ms, workers } = options(args);
    let title = format!(
        "{callers} callers of one cold key, {body} bytes, origin {delay_ms} ms, {workers} threads \
         (median of {} processes, range)",
        args.number("rounds", 5)
    );
    let options = vec![("callers", callers), ("body", body), ("delay-ms", delay_ms), ("threads", workers)];
    let rounds = args.number("rounds", 5);
    let children = Children { sub: "stampede-one", options, rounds, columns: &COLUMNS };
    children.table(title, args, |meta| !meta.special)
}

/// One candidate, in a process of its own.
pub(crate) fn stampede_one(args: &Args) {
    let Options { callers, body, delay_ms, workers } = options(args);
    let candidate = one(args.text("cand").expect("--cand"));
    let runtime = threads(workers);
    let delay = Duration::from_millis(delay_ms as u64);
    let origin = OriginHandle::new(Answer::new(body, Mode::Fresh).after(delay));
    let live = candidate.make(&Config::new(1000), &origin);
    let uri = uri(0, candidate.meta().absolute_uri);
    let requests: Vec<_> = (0..callers).map(|_| request(uri.clone())).collect();
    let rss = status_mib("VmRSS");
    alloc::track_from_here();
    let started = Instant::now();
    let tasks: Vec<_> = requests.into_iter().map(|request| runtime.spawn(live.get(request))).collect();
    let read: usize = runtime.block_on(async {
        let mut read = 0;
        for task in tasks {
            read += task.await.expect("no panic");
        }
        read
    });
    let wall = started.elapsed();
    assert_eq!(read, callers * body);
    print_figures(&[
        origin.calls() as f64,
        wall.as_secs_f64() * 1e3,
        alloc::peak() / f64::from(1 << 20),
        status_mib("VmHWM") - rss,
    ]);
}
