//! What a miss costs.

use tokio::runtime::Runtime;

use super::rounds::{self, Contender};
use crate::{
    args::Args,
    candidates::Config,
    clock::process_cpu_ns,
    origin::{Answer, Mode},
    runner::{Sample, Source, chosen, current_thread, each, threads},
    table::{Cell, Table, column},
};

/// Nothing is asked for twice. Caches that are bounded have room for 10,000 entries, so they
/// evict.
pub(crate) fn miss(args: &Args) -> Table {
    let (rounds, count) = (args.number("rounds", 15), args.number("ops", 5_000));
    let (capacity, body) = (args.number("capacity", 10_000), args.number("body", 1024));
    let (variants, thread_count) = (args.number("variants", 1), args.number("threads", 1));
    let answer = Answer::new(body, Mode::Shared).fields(args.number("fields", 8));
    let config = Config { key_rules: args.number("key-rules", 1), ..Config::new(capacity) };
    let alone = current_thread();
    let several = (thread_count > 1).then(|| threads(thread_count));
    let warm_up = 2 * capacity;
    let mut contenders = Vec::new();
    for candidate in chosen(args.only(), |meta| !meta.special && meta.name != "noop") {
        let mut contender = Contender::new(&*candidate, &config, answer);
        let source = each(variants as u64, contender.meta.absolute_uri);
        contender.live.ask(&alone, &source, 0, warm_up);
        contenders.push((contender, source));
    }
    for round in 0..rounds {
        let from = (warm_up + round * count) as u64;
        for (contender, source) in &mut contenders {
            contender.purge(args.number("purges", 0));
            let sample = match &several {
                None => contender.live.ask(&alone, source, from, count),
                Some(runtime) => on_threads(contender, runtime, thread_count, source, from, count),
            };
            contender.samples.push(Some(sample));
        }
    }
    let contenders: Vec<_> = contenders.into_iter().map(|(contender, _)| contender).collect();
    let title = format!(
        "Miss: nothing asked for twice, {body} bytes, room for {capacity} entries, {thread_count} thread(s) \
         ({rounds} rounds of {count})"
    );
    table(title, &contenders)
}

/// CPU time of the whole process, since a fetch may go on on another thread. Requests and futures
/// are made before.
fn on_threads(
    contender: &Contender,
    runtime: &Runtime,
    threads: usize,
    source: &Source,
    from: u64,
    count: usize,
) -> Sample {
    let futures: Vec<_> = (0..count as u64).map(|at| contender.live.get(source(from + at))).collect();
    let mut futures = futures.into_iter();
    let shares: Vec<Vec<_>> =
        (0..threads).map(|_| futures.by_ref().take(count.div_ceil(threads)).collect()).collect();
    let started = process_cpu_ns();
    let spawn = |share: Vec<_>| {
        runtime.spawn(async {
            for answer in share {
                answer.await;
            }
        })
    };
    let tasks: Vec<_> = shares.into_iter().map(spawn).collect();
    for task in tasks {
        runtime.block_on(task).expect("no panic");
    }
    let ns = (process_cpu_ns() - started) as f64 / count as f64;
    Sample { ns, allocs: f64::NAN, bytes: f64::NAN }
}

fn table(title: String, contenders: &[Contender]) -> Table {
    let mut columns = rounds::COLUMNS.to_vec();
    columns.push(column("bounded", "bounded", 0));
    let mut table = Table::new(title, &columns);
    for contender in contenders {
        let mut cells = rounds::cells(contenders, contender);
        cells.push(Cell::Text(if contender.meta.bounded { "yes" } else { "no" }.into()));
        table.row(contender.meta.name, cells);
    }
    table
}
