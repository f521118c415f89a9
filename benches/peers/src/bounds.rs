//! What the crate holds itself to, measured.

use serde_json::Value;

use crate::{
    args::Args,
    itself::{figures, words},
    table::{Cell, Column, Table, column},
};

const STACK: &str = "tower-readthrough";

/// One measurement, and what its figures have to be.
struct Measured {
    command: &'static str,
    bounds: &'static [Bound],
}

struct Bound {
    what: &'static str,
    candidate: &'static str,
    key: &'static str,
    limit: Limit,
}

#[derive(Clone, Copy)]
enum Limit {
    Most(f64),
    Least(f64),
    /// What another row of the measurement has, less what its runs differ by among themselves.
    LeastOf(&'static str, f64),
}

impl Limit {
    fn word(self) -> String {
        match self {
            Self::Most(most) => format!("at most {most}"),
            Self::Least(least) => format!("at least {least}"),
            Self::LeastOf(other, slack) => format!("at least {other} - {slack}"),
        }
    }

    fn holds(self, figure: f64, figures: &Value, key: &str) -> bool {
        match self {
            Self::Most(most) => figure <= most,
            Self::Least(least) => figure >= least,
            Self::LeastOf(other, slack) => figure >= number(&figures[other][key]) - slack,
        }
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

const fn bound(what: &'static str, key: &'static str, most: f64) -> Bound {
    Bound { what, candidate: STACK, key, limit: Limit::Most(most) }
}

const fn at_least(what: &'static str, candidate: &'static str, key: &'static str, least: f64) -> Bound {
    Bound { what, candidate, key, limit: Limit::Least(least) }
}

/// Both draw their hashes anew for each run.
const fn ratio(what: &'static str, key: &'static str) -> Bound {
    Bound { what, candidate: STACK, key, limit: Limit::LeastOf("quick_cache", 0.1) }
}

const ALL: &[Measured] = &[
    Measured {
        command: "hit --rounds 41 --only floor-service,tower-readthrough-store,tower-readthrough",
        bounds: &[
            bound("hit, 1 KiB, x floor-service", "x_floor_service", 1.45),
            bound("hit, 1 KiB, the stack x Lookup + Fill", "x_store", 1.05),
            bound("allocations per hit", "allocs", 4.0),
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
                limit: Limit::Most(0.1),
            },
        ],
    },
    Measured {
        command: "mem --n 1000000 --only tower-readthrough",
        bounds: &[bound("memory of 1,000,000 entries, 100 bytes, 8 fields: RSS each", "rss_bytes", 1300.0)],
    },
    Measured {
        command: "ratio --n 1000000 --only tower-readthrough,quick_cache",
        bounds: &[
            ratio("hit ratio, Zipf, room for 1 %", "zipf_1"),
            ratio("the same, 5 %", "zipf_5"),
            ratio("the same, 10 %", "zipf_10"),
            ratio("hit ratio, Zipf with scans, room for 1 %", "scans_1"),
            ratio("the same, 5 %", "scans_5"),
            ratio("the same, 10 %", "scans_10"),
            ratio("hit ratio, web-like, room for 1 %", "web_1"),
            ratio("the same, 5 %", "web_5"),
            ratio("the same, 10 %", "web_10"),
        ],
    },
    Measured {
        command: "e2e --rounds 7 --only raw,tower-readthrough,proxy,nginx,varnish",
        bounds: &[
            at_least("loopback, 1 KiB, x raw axum", STACK, "per_core_x_raw", 0.96),
            at_least("proxy, 1 KiB, x nginx", "proxy", "per_core_x_nginx", 1.4),
            at_least("proxy, 1 KiB, x Varnish", "proxy", "per_core_x_varnish", 2.0),
        ],
    },
    Measured {
        command: "e2e --rounds 7 --body 614400 --conns 16 --only raw,tower-readthrough",
        bounds: &[at_least("loopback, 600 KiB, x raw axum", STACK, "per_core_x_raw", 0.98)],
    },
];

const COLUMNS: [Column; 3] =
    [column("has to be", "has_to_be", 0), column("measured", "measured", 2), column("", "held", 0)];

/// Fails if one is missed.
pub(crate) fn bounds(args: &Args) -> Result<(), String> {
    let mut table = Table::new("What it holds itself to", &COLUMNS).first("figure");
    let mut missed = Vec::new();
    for Measured { command, bounds } in ALL {
        let figures = figures(&words(command)).unwrap_or_else(|error| {
            eprintln!("{error}");
            Value::Null
        });
        for Bound { what, candidate, key, limit } in *bounds {
            let figure = number(&figures[candidate][key]);
            let held = limit.holds(figure, &figures, key);
            let word = match figure.is_nan() {
                true => "not measured",
                false if held => "held",
                false => "missed",
            };
            table.row(*what, vec![Cell::Text(limit.word()), Cell::Number(figure), Cell::Text(word.into())]);
            if !held {
                missed.push(*what);
            }
        }
    }
    table.print(args);
    if missed.is_empty() { Ok(()) } else { Err(format!("missed: {}", missed.join("; "))) }
}
