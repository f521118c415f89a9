//! A fixed number of requests to one candidate, for callgrind.

use super::{pass::post, rounds::Contender, workload::Workload};
use crate::{
    args::Args,
    candidates::Config,
    origin::{Answer, Mode},
    runner::{current_thread, each, one as candidate},
};

pub(crate) fn one(args: &Args) {
    let runtime = current_thread();
    let candidate = candidate(args.text("cand").expect("--cand"));
    let ops = args.number("ops", 1000);
    let bare = |capacity| {
        Contender::new(
            &*candidate,
            &Config::new(capacity),
            Answer::new(args.number("body", 1024), Mode::Shared),
        )
    };
    let absolute = candidate.meta().absolute_uri;
    match args.text("kind").unwrap_or("hit") {
        "hit" => {
            let workload = Workload::new(args);
            let source = workload.sources(1, absolute).remove(0);
            workload.contender(&*candidate, &runtime).live.ask(&runtime, &source, 0, ops);
        }
        "miss" => {
            let capacity = args.number("capacity", 10_000);
            let (mut contender, source) = (bare(capacity), each(1, absolute));
            contender.live.ask(&runtime, &source, 0, 2 * capacity + ops);
        }
        "post" => _ = bare(1000).live.ask(&runtime, &post(absolute), 0, ops),
        kind => panic!("--kind {kind}: hit, miss or post"),
    }
}
