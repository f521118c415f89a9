//! Which rows share what is stored.

use super::{
    error::TableMiss,
    trial::{Trial, Trials},
};

/// All rows that share an entry although the table does not say so, or do not although it does.
pub(super) fn misses_of_pairs(trials: &Trials<'_>) -> Vec<TableMiss> {
    let mut misses: Vec<TableMiss> = trials.iter().filter_map(|trial| miss_of_entry(trials, trial)).collect();
    for first in trials.iter().filter(|trial| trial.stored.is_some()) {
        let others = trials.iter().filter(|second| second.index != first.index);
        misses.extend(others.filter_map(|second| miss_of_pair(trials, first, second)));
    }
    misses
}

/// An entry without anything stored would hold whatever shares it.
fn miss_of_entry(trials: &Trials<'_>, trial: &Trial<'_>) -> Option<TableMiss> {
    let label = trial.row.entry.as_ref()?;
    let of_entry = |other: &&Trial<'_>| other.row.entry.as_ref() == Some(label);
    let is_stored = trials.iter().filter(of_entry).any(|other| other.stored.is_some());
    let reason = match is_stored {
        true if trial.has_key() => return None,
        true => trial.no_response(),
        false => format!("no row of it has a stored response; here {}", trial.no_response()),
    };
    Some(TableMiss::of_row(trial.index, &trial.row.label(), format!("`entry` is `{label}`, and {reason}")))
}

fn miss_of_pair(trials: &Trials<'_>, first: &Trial<'_>, second: &Trial<'_>) -> Option<TableMiss> {
    let is_shared = trials.may_share(first, second) && trials.answers(first, second);
    let entry = |trial: &Trial<'_>| trial.row.entry.clone();
    let is_same_entry = entry(first).is_some() && entry(first) == entry(second);
    let (index, request) = (first.index, &first.row.request);
    let message = match (is_same_entry, is_shared) {
        (true, false) if second.has_key() => {
            let label = entry(second).unwrap_or_default();
            format!(
                "`entry` is `{label}`, and what is stored by row {index} (`{request}`) does not answer it"
            )
        }
        (false, true) => format!(
            "it gets what is stored by row {index} (`{request}`), and no common `entry` says that it may"
        ),
        _ => return None,
    };
    Some(TableMiss::of_row(second.index, &second.row.label(), message))
}
