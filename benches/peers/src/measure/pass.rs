//! What a cache costs a request that it has nothing to do with.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Method, Request, header};

use super::rounds::{self, Contender};
use crate::{
    args::Args,
    candidates::Config,
    origin::{Answer, Mode},
    runner::{Source, chosen, current_thread, request, uri},
    table::{Cell, Column, Table, column, median},
};

const BODY: usize = 1024;

const COLUMNS: [Column; 6] = [
    column("ns/op median", "ns", 0),
    column("min", "ns_min", 0),
    column("max", "ns_max", 0),
    column("ns over the bare service", "ns_over_bare", 0),
    column("allocs/op", "allocs", 1),
    column("allocs over the bare service", "allocs_over_bare", 1),
];

/// A POST, which has no key, beside the bare service that answers it.
pub(crate) fn pass(args: &Args) -> Table {
    let (rounds, count) = (args.number("rounds", 21), args.number("ops", 20_000));
    let runtime = current_thread();
    // tower-cache caches POST like anything else.
    let keep = |meta: &crate::candidates::Meta| {
        ["bare-origin", "tower-http-cache", "axum-response-cache", "http-cache-tower"].contains(&meta.name)
            || meta.name.starts_with("tower-readthrough") && !meta.special
    };
    let mut contenders: Vec<_> = chosen(args.only(), keep)
        .iter()
        .map(|candidate| Contender::new(&**candidate, &Config::new(1000), Answer::new(BODY, Mode::Shared)))
        .collect();
    for _ in 0..=rounds {
        for contender in &mut contenders {
            let source = post(contender.meta.absolute_uri);
            let sample = contender.live.ask(&runtime, &source, 0, count);
            contender.samples.push(Some(sample));
        }
    }
    // The first round warms up.
    contenders.iter_mut().for_each(|contender| _ = contender.samples.remove(0));
    table(&contenders, rounds)
}

pub(super) fn post(absolute: bool) -> Source {
    let uri = uri(1, absolute);
    Arc::new(move |_| {
        let mut request: Request<Body> = request(uri.clone());
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        request
    })
}

fn table(contenders: &[Contender], rounds: usize) -> Table {
    let title = format!("POST, nothing to do with the cache ({rounds} rounds)");
    let mut table = Table::new(title, &COLUMNS);
    let bare = contenders.iter().find(|each| each.meta.name == "bare-origin");
    for contender in contenders {
        let mut cells = rounds::cells(contenders, contender);
        let allocs = cells.swap_remove(6);
        cells.truncate(3);
        let over = |value: fn(&crate::runner::Sample) -> f64| {
            let pairs = contender.samples.iter().zip(bare.into_iter().flat_map(|bare| &bare.samples));
            let over =
                pairs.filter_map(|(sample, bare)| Some(value(sample.as_ref()?) - value(bare.as_ref()?)));
            Cell::Number(median(&over.collect::<Vec<_>>()))
        };
        cells.extend([over(|sample| sample.ns), allocs, over(|sample| sample.allocs)]);
        table.row(contender.meta.name, cells);
    }
    table
}
