//! The series that reach a recorder, and those that the documentation lists.

use std::collections::BTreeSet;

use metrics::Label;
use metrics_util::debugging::{DebugValue, Snapshotter};

/// The name, the labels and the value.
pub(crate) type Series = (String, Vec<(String, String)>, DebugValue);

pub(crate) fn series(snapshotter: &Snapshotter) -> Vec<Series> {
    let all = snapshotter.snapshot().into_vec().into_iter();
    all.map(|(key, _, _, value)| {
        let (name, labels) = key.key().clone().into_parts();
        let label = |label: Label| (label.key().to_owned(), label.value().to_owned());
        (name.as_str().to_owned(), labels.into_iter().map(label).collect(), value)
    })
    .collect()
}

/// As the table of the documentation has them: the name, the kind and the labels, without that of the cache.
pub(crate) fn rows(series: &[Series]) -> BTreeSet<String> {
    let row = |(name, labels, value): &Series| {
        let kind = match value {
            DebugValue::Counter(_) => "counter",
            DebugValue::Gauge(_) => "gauge",
            DebugValue::Histogram(_) => "histogram",
        };
        let labels: Vec<_> = labels[1..].iter().map(|(key, _)| format!("`{key}`")).collect();
        format!("| `{name}` | {kind} | {} |", labels.join(", ")).replace("|  |", "| |")
    };
    series.iter().map(row).collect()
}

/// The rows of the documentation that are meant.
pub(crate) fn listed(is_meant: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let page = include_str!("../../../src/observe/metrics.rs").lines();
    let rows = page
        .filter_map(|line| line.strip_prefix("//! ")?.starts_with("| `readthrough_").then_some(&line[4..]));
    let row = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        format!("| {} | {} | {} |", cells[1], cells[2], cells[3]).replace("|  |", "| |")
    };
    rows.filter(|row| is_meant(row)).map(row).collect()
}
