//! What a hit costs.

use tokio::runtime::Runtime;

use super::{
    rounds::{self, Contender},
    workload::Workload,
};
use crate::{
    args::Args,
    runner::{Sample, Source, chosen, current_thread, threads},
    table::Table,
};

/// One thread.
pub(crate) fn hit(args: &Args) -> Table {
    measure(args, 1)
}

/// Several threads at once, each with requests of its own.
pub(crate) fn mt(args: &Args) -> Table {
    measure(args, args.number("threads", 2))
}

fn measure(args: &Args, thread_count: usize) -> Table {
    let (count, target_ms) = (args.number("rounds", 21), args.number("ms", 10));
    let workload = Workload::new(args);
    let alone = current_thread();
    let several = (thread_count > 1).then(|| threads(thread_count));
    let mut contenders = Vec::new();
    for candidate in chosen(args.only(), |meta| !meta.special && meta.name != "bare-origin") {
        let mut contender = workload.contender(&*candidate, &alone);
        let sources = workload.sources(thread_count, contender.meta.absolute_uri);
        size_rounds(&mut contender, &alone, &sources[0], target_ms);
        contenders.push((contender, sources));
    }
    for round in 0..count {
        for (contender, sources) in &mut contenders {
            contender.purge(args.number("purges", 0));
            round_of(contender, &alone, several.as_ref(), sources, round as u64 * 100_003);
        }
    }
    let contenders: Vec<_> = contenders.into_iter().map(|(contender, _)| contender).collect();
    let threads =
        if thread_count == 1 { "1 thread".into() } else { format!("{thread_count} threads, ns per thread") };
    rounds::table(format!("Hit, {}, {threads} ({count} rounds)", workload.name), &contenders)
}

/// Warms up, and finds out how many requests take as long as a round is to take.
fn size_rounds(contender: &mut Contender, runtime: &Runtime, source: &Source, target_ms: usize) {
    let target_ns = target_ms as f64 * 1e6;
    contender.count = 16;
    loop {
        let ns = contender.live.ask(runtime, source, 0, contender.count).ns;
        if ns * contender.count as f64 > target_ns / 2.0 || contender.count > 1 << 20 {
            contender.count = ((target_ns / ns) as usize).max(16);
            return;
        }
        contender.count *= 2;
    }
}

fn round_of(
    contender: &mut Contender,
    alone: &Runtime,
    several: Option<&Runtime>,
    sources: &[Source],
    from: u64,
) {
    let (before, count) = (contender.origin.calls(), contender.count);
    let sample = match several {
        None => Some(contender.live.ask(alone, &sources[0], from, count)),
        Some(runtime) => {
            let ns = contender.live.together(runtime, sources, from, count);
            ns.map(|ns| Sample { ns, allocs: f64::NAN, bytes: f64::NAN })
        }
    };
    contender.samples.push(sample);
    let missed = contender.origin.calls() - before;
    if missed > (count / 100) as u64 {
        eprintln!("warning: {} called the origin {missed} times in {count} hits", contender.meta.name);
    }
}
