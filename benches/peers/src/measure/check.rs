//! Is it measured what is meant to be measured?

use crate::{
    args::Args,
    candidates::Config,
    origin::{Answer, Mode, OriginHandle},
    runner::{Candidate, all, chosen, current_thread, request, uri},
    table::{Cell, Column, Table, column},
};

const COLUMNS: [Column; 5] = [
    column("status", "status", 0),
    column("body bytes", "body", 0),
    column("origin calls", "origin_calls", 0),
    column("changed or lost", "lost", 0),
    column("added", "added", 0),
];

/// Does each candidate give back on a hit what the origin sent?
pub(crate) fn check(args: &Args) -> Table {
    let mut table = Table::new("What comes back when one key is asked for twice", &COLUMNS);
    for candidate in chosen(args.only(), |_| true) {
        table.row(candidate.meta().name, second_answer(&*candidate));
    }
    table
}

fn second_answer(candidate: &dyn Candidate) -> Vec<Cell> {
    let runtime = current_thread();
    let origin = OriginHandle::new(Answer::new(1024, Mode::Fresh));
    let live = candidate.make(&Config::new(1000), &origin);
    let request = || request(uri(0, candidate.meta().absolute_uri));
    runtime.block_on(live.get(request()));
    let (head, body) = match runtime.block_on(live.head(request())) {
        Ok(answer) => answer,
        Err(error) => return vec![Cell::Text(error)],
    };
    let sent = &origin.template().headers;
    let lost = sent.iter().filter(|(name, value)| head.headers.get(*name) != Some(value));
    let lost: Vec<_> = lost.map(|(name, _)| name.as_str()).collect();
    let added = head.headers.keys().filter(|name| !sent.contains_key(*name));
    let added: Vec<_> = added.map(|name| name.as_str()).collect();
    vec![
        Cell::Text(head.status.as_str().into()),
        Cell::Number(body as f64),
        Cell::Number(origin.calls() as f64),
        Cell::Text(lost.join(" ")),
        Cell::Text(added.join(" ")),
    ]
}

/// What there is to measure.
pub(crate) fn list() -> Table {
    let columns = [
        column("kind", "kind", 0),
        column("bounded", "bounded", 0),
        column("TTL below a second", "short_ttl", 0),
        column("bytes of its future", "future_bytes", 0),
    ];
    let mut table = Table::new("Candidates", &columns);
    for candidate in all() {
        let meta = candidate.meta();
        let flag = |is: bool| Cell::Text(if is { "yes" } else { "no" }.into());
        let kind = Cell::Text(format!("{:?}", meta.kind));
        let future = Cell::Number(candidate.future_bytes() as f64);
        table.row(meta.name, vec![kind, flag(meta.bounded), flag(meta.short_ttl), future]);
    }
    table
}
