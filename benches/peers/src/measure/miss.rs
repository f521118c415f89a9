//! What a miss costs.

use super::rounds::{self, Contender};
use crate::{
    args::Args,
    candidates::Config,
    origin::{Answer, Mode},
    runner::{chosen, current_thread, unique},
    table::{Cell, Table, column},
};

const CAPACITY: usize = 10_000;
const BODY: usize = 1024;

/// Unique keys only. Caches that are bounded have room for 10,000 entries, so they evict.
pub(crate) fn miss(args: &Args) -> Table {
    let (rounds, count) = (args.number("rounds", 15), args.number("ops", 5_000));
    let runtime = current_thread();
    let warm_up = 2 * CAPACITY;
    let mut contenders = Vec::new();
    for candidate in chosen(args.only(), |meta| !meta.only_ttl && meta.name != "noop") {
        let answer = Answer::new(BODY, Mode::Shared);
        let mut contender = Contender::new(&*candidate, &Config::new(CAPACITY, BODY), answer);
        let source = unique(contender.meta.absolute_uri);
        contender.live.ask(&runtime, &source, 0, warm_up);
        contenders.push((contender, source));
    }
    for round in 0..rounds {
        let from = (warm_up + round * count) as u64;
        for (contender, source) in &mut contenders {
            let sample = contender.live.ask(&runtime, source, from, count);
            contender.samples.push(Some(sample));
        }
    }
    let contenders: Vec<_> = contenders.into_iter().map(|(contender, _)| contender).collect();
    let title = format!("Miss: unique keys, 1 KiB, room for 10,000 entries ({rounds} rounds of {count})");
    let mut columns = rounds::COLUMNS.to_vec();
    columns.push(column("bounded", "bounded", 0));
    let mut table = Table::new(title, &columns);
    for contender in &contenders {
        let mut cells = rounds::cells(&contenders, contender);
        cells.push(Cell::Text(if contender.meta.bounded { "yes" } else { "no" }.into()));
        table.row(contender.meta.name, cells);
    }
    table
}
