//! A steady stream for one key that expires again and again.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::children::{Children, print_figures};
use crate::{
    args::Args,
    candidates::Config,
    origin::{Answer, Mode, OriginHandle},
    runner::{Live, one, request, threads, uri},
    table::{Column, Table, column, sorted},
};

const TTL: Duration = Duration::from_millis(50);
const REQUESTS: usize = 10_000;

const COLUMNS: [Column; 4] = [
    column("origin calls", "origin_calls", 0),
    column("wall ms", "wall_ms", 0),
    column("p50 ms", "p50_ms", 3),
    column("p99 ms", "p99_ms", 3),
];

pub(crate) fn ttl(args: &Args) -> Table {
    let (delay_ms, rounds) = (args.number("delay-ms", 0), args.number("rounds", 3));
    let title = format!(
        "10,000 req/s for 1 s against a TTL of 50 ms, origin {delay_ms} ms (median of {rounds} processes, range)"
    );
    let options = vec![("delay-ms", delay_ms)];
    let children = Children { sub: "ttl-one", options, rounds, columns: &COLUMNS };
    children.table(title, args, |meta| meta.short_ttl)
}

/// One candidate, in a process of its own.
pub(crate) fn ttl_one(args: &Args) {
    let delay = Duration::from_millis(args.number("delay-ms", 0) as u64);
    let candidate = one(args.text("cand").expect("--cand"));
    let runtime = threads(2);
    let origin = OriginHandle::new(Answer::new(1024, Mode::Fresh).after(delay));
    let config = Config { ttl: Some(TTL), ..Config::new(10_000) };
    let live = candidate.make(&config, &origin);
    let absolute = candidate.meta().absolute_uri;
    let (wall, tasks) = runtime.block_on(open_loop(&*live, absolute));
    let mut waits = Vec::with_capacity(tasks.len());
    for task in tasks {
        waits.push(runtime.block_on(task).expect("no panic").as_secs_f64() * 1e3);
    }
    let waits = sorted(&waits);
    let share = |percent: usize| waits[waits.len() * percent / 100];
    print_figures(&[origin.calls() as f64, wall.as_secs_f64() * 1e3, share(50), share(99)]);
}

/// Sends what is due every millisecond, whatever became of what was sent before.
async fn open_loop(live: &dyn Live, absolute: bool) -> (Duration, Vec<JoinHandle<Duration>>) {
    let uri = uri(0, absolute);
    let mut tasks = Vec::with_capacity(REQUESTS);
    let started = Instant::now();
    while tasks.len() < REQUESTS {
        let due = (started.elapsed().as_secs_f64() * REQUESTS as f64) as usize;
        while tasks.len() < due.min(REQUESTS) {
            let answer = live.get(request(uri.clone()));
            tasks.push(tokio::spawn(async move {
                let asked = Instant::now();
                answer.await;
                asked.elapsed()
            }));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (started.elapsed(), tasks)
}
