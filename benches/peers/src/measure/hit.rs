//! What a hit costs.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::rounds::{self, Contender};
use crate::{
    args::Args,
    candidates::Config,
    origin::{Answer, Mode},
    runner::{Candidate, Load, Sample, chosen, current_thread, one as candidate, threads},
    table::Table,
    zipf::Zipf,
};

struct Workload {
    keys: usize,
    body: usize,
    mode: Mode,
    order: Arc<[u32]>,
}

fn workload(name: &str) -> Workload {
    let hot = |body| Workload { keys: 1, body, mode: Mode::Shared, order: [0].into() };
    match name {
        "hot1k" => hot(1024),
        "hot600k" => hot(600 * 1024),
        "zipf" => Workload {
            keys: 100_000,
            body: 1024,
            mode: Mode::Fresh,
            order: Zipf::new(100_000, 0.99, 42).take(1 << 20).into(),
        },
        _ => panic!("--workload hot1k | zipf | hot600k"),
    }
}

impl Workload {
    fn loads(&self, threads: usize, absolute: bool) -> Vec<Load> {
        (0..threads).map(|_| Load::new(self.keys, &self.order, absolute)).collect()
    }

    fn contender(&self, candidate: &dyn Candidate) -> Contender {
        let config = Config::new((self.keys * 2).max(1000), self.body);
        Contender::new(candidate, &config, Answer::new(self.body, self.mode))
    }
}

/// One thread.
pub(crate) fn hit(args: &Args) -> Table {
    measure(args, 1)
}

/// Several threads at once, each with requests of its own.
pub(crate) fn mt(args: &Args) -> Table {
    measure(args, args.number("threads", 2))
}

fn measure(args: &Args, thread_count: usize) -> Table {
    let name = args.text("workload").unwrap_or("hot1k");
    let (count, target_ms) = (args.number("rounds", 21), args.number("ms", 10));
    let workload = workload(name);
    let alone = current_thread();
    let several = (thread_count > 1).then(|| threads(thread_count));
    let loads = [false, true].map(|absolute| workload.loads(thread_count, absolute));
    let mut contenders = Vec::new();
    for candidate in chosen(args.only(), |meta| !meta.only_ttl && meta.name != "bare-origin") {
        let mut contender = workload.contender(&*candidate);
        let load = &loads[usize::from(contender.meta.absolute_uri)][0];
        contender.live.ask(&alone, &load.each(), 0, workload.keys);
        size_rounds(&mut contender, &alone, load, target_ms);
        contenders.push(contender);
    }
    for round in 0..count {
        for contender in &mut contenders {
            let loads = &loads[usize::from(contender.meta.absolute_uri)];
            round_of(contender, &alone, several.as_ref(), loads, round as u64 * 100_003);
        }
    }
    let threads =
        if thread_count == 1 { "1 thread".into() } else { format!("{thread_count} threads, ns per thread") };
    rounds::table(format!("Hit, {name}, {threads} ({count} rounds)"), &contenders)
}

/// Warms up, and finds out how many requests take as long as a round is to take.
fn size_rounds(contender: &mut Contender, runtime: &Runtime, load: &Load, target_ms: usize) {
    let target_ns = target_ms as f64 * 1e6;
    contender.count = 16;
    loop {
        let ns = contender.live.ask(runtime, &load.ordered(), 0, contender.count).ns;
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
    loads: &[Load],
    from: u64,
) {
    let (before, count) = (contender.origin.calls(), contender.count);
    let sample = match several {
        None => Some(contender.live.ask(alone, &loads[0].ordered(), from, count)),
        Some(runtime) => {
            let sources: Vec<_> = loads.iter().map(Load::ordered).collect();
            let ns = contender.live.together(runtime, &sources, from, count);
            ns.map(|ns| Sample { ns, allocs: f64::NAN, bytes: f64::NAN })
        }
    };
    contender.samples.push(sample);
    let missed = contender.origin.calls() - before;
    if missed > (count / 100) as u64 {
        eprintln!("warning: {} called the origin {missed} times in {count} hits", contender.meta.name);
    }
}

/// A fixed number of hits of one candidate, for callgrind.
pub(crate) fn one(args: &Args) {
    let workload = workload(args.text("workload").unwrap_or("hot1k"));
    let runtime = current_thread();
    let candidate = candidate(args.text("cand").expect("--cand"));
    let mut contender = workload.contender(&*candidate);
    let load = Load::new(workload.keys, &workload.order, contender.meta.absolute_uri);
    contender.live.ask(&runtime, &load.each(), 0, workload.keys);
    contender.live.ask(&runtime, &load.ordered(), 0, args.number("ops", 1000));
}
