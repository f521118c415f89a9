//! Compares the expectations of rows with their results.

use std::{collections::BTreeSet, fmt, time::Duration};

use http::{HeaderMap, HeaderName};

use super::{
    TableMiss,
    format::{HeaderFields, Lines},
    trial::{Trial, Trials},
};
use crate::{http::storing::Freshness, key::rules::Span};

/// The points in which a row by itself does not meet its expectations.
pub(super) fn misses_of(trials: &Trials<'_>, trial: &Trial<'_>) -> Vec<TableMiss> {
    let messages = [
        rule(trial),
        bypass(trial),
        lifetime(trial, "ttl", trial.row().ttl, |freshness| freshness.fresh_for),
        lifetime(trial, "stale_while_revalidate", trial.row().stale_while_revalidate, |freshness| {
            freshness.stale_while_revalidate_for
        }),
        lifetime(trial, "stale_if_error", trial.row().stale_if_error, |freshness| {
            freshness.stale_if_error_for
        }),
        not_stored(trial),
        tags(trial),
        origin(trial),
    ];
    let label = trial.row().label();
    let fields = origin_headers(trial).into_iter().chain(stored_headers(trial));
    let purges = purges(trials, trial);
    let all = messages.into_iter().flatten().chain(fields).chain(purges);
    all.map(|message| TableMiss::of_row(trial.index(), &label, message)).collect()
}

fn differ(expectation: &str, wanted: impl fmt::Display, found: impl fmt::Display) -> Option<String> {
    Some(format!("`{expectation}` must be {wanted}, and is {found}"))
}

fn rule(trial: &Trial<'_>) -> Option<String> {
    let wanted = trial.row().rule.as_ref()?;
    let name = |rule: Option<&str>| rule.map_or("none".into(), |name| format!("`{name}`"));
    (wanted.as_deref() != trial.rule())
        .then(|| differ("rule", name(wanted.as_deref()), name(trial.rule())))?
}

fn bypass(trial: &Trial<'_>) -> Option<String> {
    let wanted = trial.row().bypass.as_ref()?;
    match trial.unkeyed() {
        Some(reason) if reason == wanted => None,
        Some(reason) => differ("bypass", format!("`{wanted}`"), format!("`{reason}`")),
        None => Some(format!("`bypass` must be `{wanted}`, and the request has a key")),
    }
}

fn lifetime(
    trial: &Trial<'_>,
    expectation: &str,
    wanted: Option<Span>,
    of: impl Fn(&Freshness) -> Duration,
) -> Option<String> {
    let wanted = humantime::format_duration(wanted?.into());
    match trial.stored() {
        Some(stored) => {
            let found = humantime::format_duration(of(stored.terms()));
            (wanted.to_string() != found.to_string()).then(|| differ(expectation, wanted, found))?
        }
        None => Some(format!("`{expectation}` must be {wanted}, and {}", trial.no_response())),
    }
}

fn not_stored(trial: &Trial<'_>) -> Option<String> {
    let wanted = trial.row().not_stored.as_ref()?;
    match (trial.stored(), trial.unshareable()) {
        (None, Some(reason)) if reason == wanted => None,
        (None, _) => Some(format!("`not_stored` must be `{wanted}`, and {}", trial.no_response())),
        (Some(_), _) => Some(format!("`not_stored` must be `{wanted}`, and the response is stored")),
    }
}

fn tags(trial: &Trial<'_>) -> Option<String> {
    let wanted: BTreeSet<&str> = trial.row().tags.as_ref()?.iter().map(String::as_str).collect();
    if trial.stored().is_none() {
        return Some(format!("`tags` must be {wanted:?}, and {}", trial.no_response()));
    }
    let found = trial.tags();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    (wanted != found).then(|| differ("tags", format!("{wanted:?}"), format!("{found:?}")))?
}

fn origin(trial: &Trial<'_>) -> Option<String> {
    let wanted = trial.row().origin.as_ref()?;
    let found = trial.at_origin().map(|head| head.uri.to_string()).unwrap_or_default();
    (*wanted != found).then(|| differ("origin", format!("`{wanted}`"), format!("`{found}`")))?
}

fn origin_headers(trial: &Trial<'_>) -> Vec<String> {
    let none = HeaderMap::new();
    let headers = trial.at_origin().map_or(&none, |head| &head.headers);
    fields("origin_headers", &trial.row().origin_headers, headers)
}

fn stored_headers(trial: &Trial<'_>) -> Vec<String> {
    match trial.stored() {
        _ if trial.row().stored_headers.is_empty() => Vec::new(),
        Some(stored) => fields("stored_headers", &trial.row().stored_headers, &stored.headers()),
        None => vec![format!("`stored_headers` needs a stored response, and {}", trial.no_response())],
    }
}

fn fields(expectation: &str, wanted: &HeaderFields, found: &HeaderMap) -> Vec<String> {
    let check = |(name, lines): (&String, &Option<Lines>)| {
        let Ok(field) = HeaderName::from_bytes(name.as_bytes()) else {
            return Some(format!("`{expectation}`: `{name}` is not a field name"));
        };
        let found = found.get_all(field).iter().map(|line| line.as_bytes().escape_ascii().to_string());
        let found: Vec<String> = found.collect();
        let wanted = lines.as_ref().map(Lines::as_slice).unwrap_or_default();
        let shown = |lines: &[String]| if lines.is_empty() { "absent".into() } else { format!("{lines:?}") };
        (wanted != found).then(|| differ(&format!("{expectation}.{name}"), shown(wanted), shown(&found)))?
    };
    wanted.iter().filter_map(check).collect()
}

fn purges(trials: &Trials<'_>, trial: &Trial<'_>) -> Vec<String> {
    let row = trial.row();
    if row.purged_by.is_empty() && row.kept_by.is_empty() {
        return Vec::new();
    }
    if trial.stored().is_none() {
        return vec![format!(
            "`purged_by` and `kept_by` need a stored response, and {}",
            trial.no_response()
        )];
    }
    let check = |text: &String, is_to_reach: bool| match trials.is_purged_by(trial, text) {
        Err(reason) => Some(format!("invalid purge `{text}`: {reason}")),
        Ok(is_reached) if is_reached == is_to_reach => None,
        Ok(true) => Some(format!("`kept_by`: `{text}` purges the response")),
        Ok(false) => Some(format!("`purged_by`: `{text}` does not purge the response")),
    };
    let kept = row.kept_by.iter().filter_map(|text| check(text, false));
    kept.chain(row.purged_by.iter().filter_map(|text| check(text, true))).collect()
}

/// The points in which pairs of rows share an entry unexpectedly, or do not share one that they should.
pub(super) fn misses_of_pairs(trials: &Trials<'_>) -> Vec<TableMiss> {
    let mut misses: Vec<TableMiss> = trials.iter().filter_map(|trial| miss_of_entry(trials, trial)).collect();
    for first in trials.iter().filter(|trial| trial.stored().is_some()) {
        let others = trials.iter().filter(|second| second.index() != first.index());
        misses.extend(others.filter_map(|second| miss_of_pair(trials, first, second)));
    }
    misses
}

/// Without a stored response, an expectation about an entry would always hold.
fn miss_of_entry(trials: &Trials<'_>, trial: &Trial<'_>) -> Option<TableMiss> {
    let label = trial.row().entry.as_ref()?;
    let of_entry = |other: &&Trial<'_>| other.row().entry.as_ref() == Some(label);
    let is_stored = trials.iter().filter(of_entry).any(|other| other.stored().is_some());
    let reason = match is_stored {
        true if trial.has_key() => return None,
        true => trial.no_response(),
        false => format!("no row of this entry has a stored response; here {}", trial.no_response()),
    };
    Some(TableMiss::of_row(
        trial.index(),
        &trial.row().label(),
        format!("`entry` is `{label}`, and {reason}"),
    ))
}

fn miss_of_pair(trials: &Trials<'_>, first: &Trial<'_>, second: &Trial<'_>) -> Option<TableMiss> {
    let is_shared = trials.may_share(first, second) && trials.shares_response(first, second);
    let entry = |trial: &Trial<'_>| trial.row().entry.clone();
    let is_same_entry = entry(first).is_some() && entry(first) == entry(second);
    let (index, request) = (first.index(), first.row().request());
    let message = match (is_same_entry, is_shared) {
        (true, false) if second.has_key() => {
            let label = entry(second).unwrap_or_default();
            format!(
                "`entry` is `{label}`, but it does not get the response stored by row {index} (`{request}`)"
            )
        }
        (false, true) => format!(
            "it gets the response stored by row {index} (`{request}`), with which it has no `entry` in common"
        ),
        _ => return None,
    };
    Some(TableMiss::of_row(second.index(), &second.row().label(), message))
}
