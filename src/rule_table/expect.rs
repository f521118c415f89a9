//! What a row expects, against what it gives.

use std::{collections::BTreeSet, fmt, time::Duration};

use http::{HeaderMap, HeaderName};

use super::{
    error::TableMiss,
    format::{Fields, Lines},
    trial::{Trial, Trials},
};
use crate::{
    http::{
        freshness::Freshness,
        tag_fields::{CACHE_GROUPS, for_each_tag, groups},
    },
    key::rules::Span,
    tags::Tags,
};

/// All in which a row, taken alone, does not give what it must.
pub(super) fn misses_of(trials: &Trials<'_>, trial: &Trial<'_>) -> Vec<TableMiss> {
    let messages = [
        rule(trial),
        bypass(trial),
        lifetime(trial, "ttl", trial.row.ttl, |terms| terms.fresh_for),
        lifetime(trial, "stale_while_revalidate", trial.row.stale_while_revalidate, |terms| {
            terms.stale_while_revalidate_for
        }),
        lifetime(trial, "stale_if_error", trial.row.stale_if_error, |terms| terms.stale_if_error_for),
        not_stored(trial),
        tags(trial),
        origin(trial),
    ];
    let label = trial.row.label();
    let fields = origin_headers(trial).into_iter().chain(stored_headers(trial));
    let purges = purges(trials, trial);
    let all = messages.into_iter().flatten().chain(fields).chain(purges);
    all.map(|message| TableMiss::of_row(trial.index, &label, message)).collect()
}

fn differ(expectation: &str, wanted: impl fmt::Display, found: impl fmt::Display) -> Option<String> {
    Some(format!("`{expectation}` must be {wanted}, and is {found}"))
}

fn rule(trial: &Trial<'_>) -> Option<String> {
    let wanted = trial.row.rule.as_ref()?;
    let name = |rule: &Option<String>| rule.as_ref().map_or("none".into(), |name| format!("`{name}`"));
    (*wanted != trial.rule).then(|| differ("rule", name(wanted), name(&trial.rule)))?
}

fn bypass(trial: &Trial<'_>) -> Option<String> {
    let wanted = trial.row.bypass.as_ref()?;
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
    match &trial.stored {
        Some(stored) => {
            let found = humantime::format_duration(of(stored.terms()));
            (wanted.to_string() != found.to_string()).then(|| differ(expectation, wanted, found))?
        }
        None => Some(format!("`{expectation}` must be {wanted}, and {}", trial.no_response())),
    }
}

fn not_stored(trial: &Trial<'_>) -> Option<String> {
    let wanted = trial.row.not_stored.as_ref()?;
    let reason = trial.sent.status.and_then(|status| status.unshareable_reason());
    match (&trial.stored, reason) {
        (None, Some(reason)) if reason.as_str() == wanted => None,
        (None, _) => Some(format!("`not_stored` must be `{wanted}`, and {}", trial.no_response())),
        (Some(_), _) => Some(format!("`not_stored` must be `{wanted}`, and the response is stored")),
    }
}

fn tags(trial: &Trial<'_>) -> Option<String> {
    let wanted: BTreeSet<&str> = trial.row.tags.as_ref()?.iter().map(String::as_str).collect();
    if trial.stored.is_none() {
        return Some(format!("`tags` must be {wanted:?}, and {}", trial.no_response()));
    }
    let found = trial.tags();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    (wanted != found).then(|| differ("tags", format!("{wanted:?}"), format!("{found:?}")))?
}

fn origin(trial: &Trial<'_>) -> Option<String> {
    let wanted = trial.row.origin.as_ref()?;
    let found = trial.sent.at_origin.as_ref().map(|head| head.uri.to_string()).unwrap_or_default();
    (*wanted != found).then(|| differ("origin", format!("`{wanted}`"), format!("`{found}`")))?
}

fn origin_headers(trial: &Trial<'_>) -> Vec<String> {
    let none = HeaderMap::new();
    let headers = trial.sent.at_origin.as_ref().map_or(&none, |head| &head.headers);
    fields("origin_headers", &trial.row.origin_headers, headers)
}

fn stored_headers(trial: &Trial<'_>) -> Vec<String> {
    match &trial.stored {
        _ if trial.row.stored_headers.is_empty() => Vec::new(),
        Some(stored) => fields("stored_headers", &trial.row.stored_headers, &stored.headers()),
        None => vec![format!("`stored_headers` are of a stored response, and {}", trial.no_response())],
    }
}

fn fields(expectation: &str, wanted: &Fields, found: &HeaderMap) -> Vec<String> {
    let check = |(name, lines): (&String, &Option<Lines>)| {
        let Ok(field) = HeaderName::from_bytes(name.as_bytes()) else {
            return Some(format!("`{expectation}`: `{name}` is no field"));
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
    let row = trial.row;
    if row.purged_by.is_empty() && row.kept_by.is_empty() {
        return Vec::new();
    }
    if trial.stored.is_none() {
        return vec![format!(
            "`purged_by` and `kept_by` are about a stored response, and {}",
            trial.no_response()
        )];
    }
    let check = |text: &String, is_to_reach: bool| match trials.is_purged_by(trial, text) {
        Err(reason) => Some(format!("`{text}` is no purge: {reason}")),
        Ok(is_reached) if is_reached == is_to_reach => None,
        Ok(true) => Some(format!("`kept_by`: `{text}` purges the response")),
        Ok(false) => Some(format!("`purged_by`: `{text}` does not purge the response")),
    };
    let kept = row.kept_by.iter().filter_map(|text| check(text, false));
    kept.chain(row.purged_by.iter().filter_map(|text| check(text, true))).collect()
}

impl Trial<'_> {
    fn unkeyed(&self) -> Option<&'static str> {
        match self.sent.status {
            Some(status) => status.unkeyed_reason().map(|reason| reason.as_str()),
            None => Some("method"),
        }
    }

    /// Why there is no stored response to speak of.
    pub(super) fn no_response(&self) -> String {
        let reason = self.sent.status.and_then(|status| status.unshareable_reason());
        match (self.unkeyed(), reason) {
            (Some(reason), _) => format!("the request has no key: `{reason}`"),
            (None, Some(reason)) => format!("the response is not stored: `{reason}`"),
            (None, None) => "the response is not stored".into(),
        }
    }

    /// As the store reads them.
    fn tags(&self) -> BTreeSet<String> {
        let mut tags = BTreeSet::new();
        let headers = self.answer_headers();
        for_each_tag(headers, &self.tag_fields, |tag| {
            _ = tags.insert(String::from_utf8_lossy(tag).into_owned());
        });
        tags.extend(groups(headers, &CACHE_GROUPS));
        let of_request = self.sent.at_origin.as_ref().and_then(|head| head.extensions.get::<Tags>());
        tags.extend(of_request.into_iter().flat_map(Tags::iter).map(String::from));
        tags
    }
}
