//! What the crate holds itself to, measured.

use crate::{
    args::Args,
    itself::{figures, words},
    table::{Cell, Column, Table, column},
};

const STACK: &str = "tower-readthrough";

/// One measurement, and what its figures may be at most.
struct Measured {
    command: &'static str,
    bounds: &'static [Bound],
}

struct Bound {
    what: &'static str,
    candidate: &'static str,
    key: &'static str,
    most: f64,
}

const fn bound(what: &'static str, key: &'static str, most: f64) -> Bound {
    Bound { what, candidate: STACK, key, most }
}

const ALL: &[Measured] = &[
    Measured {
        command: "hit --rounds 41 --only floor-service,tower-readthrough-store,tower-readthrough",
        bounds: &[
            bound("hit, 1 KiB, x floor-service", "x_floor_service", 1.45),
            bound("hit, 1 KiB, the stack x Lookup + Fill", "x_store", 1.05),
            bound("allocations per hit", "allocs", 6.0),
        ],
    },
    Measured {
        command: "mt --rounds 41 --only floor-service,tower-readthrough",
        bounds: &[bound("hit, 1 KiB, 2 threads, x floor-service", "x_floor_service", 1.0)],
    },
    Measured {
        command: "hit --workload zipf --rounds 31 --only floor-service,floor-arc-str,tower-readthrough",
        bounds: &[bound("hit, Zipf over 100,000 keys, x floor-arc-str", "x_floor_arc_str", 1.15)],
    },
    Measured {
        command: "hit --workload hot600k --rounds 41 --only floor-service,tower-readthrough",
        bounds: &[bound("hit, 600 KiB, x floor-service", "x_floor_service", 1.45)],
    },
    Measured {
        command: "miss --rounds 31 --only floor-service,tower-readthrough",
        bounds: &[bound("miss with eviction, x floor-service", "x_floor_service", 8.0)],
    },
    Measured {
        command: "post --rounds 41 --only bare-origin,tower-readthrough",
        bounds: &[
            bound("POST, ns over the bare service", "ns_over_bare", 100.0),
            bound("POST, allocations over the bare service", "allocs_over_bare", 0.0),
        ],
    },
    Measured {
        command: "stampede --rounds 9 --only tower-readthrough",
        bounds: &[
            bound("10,000 callers of a cold key, origin calls", "origin_calls", 1.0),
            bound("the same, ms until all are answered (origin 50 ms)", "wall_ms", 75.0),
            bound("the same, MiB of heap at the peak", "peak_heap_mib", 30.0),
        ],
    },
    Measured {
        command: "stampede --rounds 3 --callers 60000 --body 614400 --only tower-readthrough",
        bounds: &[
            bound("60,000 callers of 600 KiB, origin calls", "origin_calls", 1.0),
            bound("the same, MiB of heap at the peak", "peak_heap_mib", 100.0),
        ],
    },
    Measured {
        command: "ttl --rounds 5 --only tower-readthrough",
        bounds: &[bound("10,000 req/s, TTL 50 ms, instant origin, calls in 1 s", "origin_calls", 20.0)],
    },
    Measured {
        command: "ttl --rounds 5 --delay-ms 5 --only tower-readthrough,tower-readthrough-swr",
        bounds: &[
            bound("the same, origin 5 ms, ms of the 99th percentile", "p99_ms", 7.0),
            Bound {
                what: "the same, stale-while-revalidate",
                candidate: "tower-readthrough-swr",
                key: "p99_ms",
                most: 0.1,
            },
        ],
    },
];

const COLUMNS: [Column; 3] =
    [column("at most", "at_most", 2), column("measured", "measured", 2), column("", "held", 0)];

/// Fails if one is missed.
pub(crate) fn bounds(args: &Args) -> Result<(), String> {
    let mut table = Table::new("What it holds itself to", &COLUMNS).first("figure");
    let mut missed = Vec::new();
    for Measured { command, bounds } in ALL {
        let figures = figures(&words(command))?;
        for Bound { what, candidate, key, most } in *bounds {
            let figure = figures[candidate][key].as_f64().unwrap_or(f64::NAN);
            let held = figure <= *most;
            let word = if held { "held" } else { "missed" };
            table.row(*what, vec![Cell::Number(*most), Cell::Number(figure), Cell::Text(word.into())]);
            if !held {
                missed.push(*what);
            }
        }
    }
    table.print(args);
    if missed.is_empty() { Ok(()) } else { Err(format!("missed: {}", missed.join("; "))) }
}
