//! The results, as a table and as JSON.

use serde_json::{Value, json};

/// The figures of one run.
pub(crate) struct Run {
    pub(crate) offered: u64,
    pub(crate) ok_share: f64,
    pub(crate) mean_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) origin_calls: u64,
    pub(crate) origin_busy: f64,
}

impl Run {
    fn json(&self) -> Value {
        json!({
            "offered": self.offered,
            "ok_share": self.ok_share,
            "mean_ms": self.mean_ms,
            "p99_ms": self.p99_ms,
            "origin_calls": self.origin_calls,
            "origin_busy": self.origin_busy,
        })
    }
}

pub(crate) fn json(without: &Run, with: &Run) -> Value {
    json!({ "without": without.json(), "with": with.json() })
}

pub(crate) fn table(without: &Run, with: &Run) -> String {
    let row =
        |name: &str, cell: fn(&Run) -> String| format!("\n{name:<20}{:>12}{:>12}", cell(without), cell(with));
    format!("{:<20}{:>12}{:>12}", "", "without", "with")
        + &row("offered", |run| run.offered.to_string())
        + &row("answered 200", |run| format!("{:.1} %", run.ok_share * 100.0))
        + &row("mean latency", |run| format!("{:.1} ms", run.mean_ms))
        + &row("p99 latency", |run| format!("{:.1} ms", run.p99_ms))
        + &row("origin calls", |run| run.origin_calls.to_string())
        + &row("origin busy", |run| format!("{:.1} %", run.origin_busy * 100.0))
}
