//! The JSON document that the page reads.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    board::{Board, Decision},
    history::{SLOTS, STEP},
    sketch::Sum,
};
use crate::{
    exchange::{Outcome, Record},
    observe::StatsSnapshot,
};

/// How many keys are listed.
const LISTED: usize = 12;

/// What the dashboard shows.
#[derive(Serialize)]
pub(super) struct Document {
    name: Box<str>,
    version: &'static str,
    /// Since the counters began.
    totals: StatsSnapshot,
    /// Of the last five minutes, or since the dashboard began if that is later.
    recent: StatsSnapshot,
    requests: Requests,
    hit_ratio: Option<f64>,
    history: Steps,
    keys: Keys,
    decisions: Vec<Decided>,
    hits_sampled: Option<u32>,
    can_purge: bool,
    can_explain: bool,
}

#[derive(Serialize)]
struct Requests {
    total: u64,
    recent: u64,
}

/// One value for each step, the oldest first.
#[derive(Serialize)]
struct Steps {
    step_seconds: u64,
    slots: usize,
    hit_ratio: Vec<Option<f64>>,
    requests: Vec<f64>,
    origin_calls: Vec<f64>,
    origin_seconds: Vec<Option<f64>>,
}

#[derive(Serialize)]
struct Keys {
    by_time: Vec<Time>,
    by_fetches: Vec<Count>,
    by_requests: Option<Vec<Count>>,
    sampled: Option<u32>,
}

#[derive(Serialize)]
struct Time {
    key: Box<str>,
    seconds: f64,
    error_seconds: f64,
}

#[derive(Serialize)]
struct Count {
    key: Box<str>,
    count: u64,
    error: u64,
}

#[derive(Serialize)]
struct Decided {
    ago_seconds: f64,
    method: String,
    target: Box<str>,
    outcome: &'static str,
    reason: Option<&'static str>,
    /// What else the `Cache-Status` field says of why.
    detail: Option<&'static str>,
    /// What the second tier had.
    second_tier: Option<&'static str>,
    stored: bool,
    not_stored: Option<&'static str>,
    status: Option<u16>,
    seconds: f64,
}

impl Document {
    pub(super) fn of(board: &Board, can_purge: bool, can_explain: bool) -> Self {
        let totals = board.stats.snapshot();
        let (slots, first) = {
            let history = board.history.lock();
            (history.slots(), history.first())
        };
        let recent = first.map_or_else(|| totals.clone(), |first| totals.since(&first));
        let settings = &board.settings;
        let decisions: Vec<Decision> = board.decisions.lock().iter().rev().cloned().collect();
        let now = Instant::now();
        let by_requests = settings.requests_sampled.map(|every| {
            let sums = board.by_requests.lock().largest(LISTED);
            sums.into_iter().map(|sum| Count::of(sum, every.into())).collect()
        });
        let (by_time, by_fetches) =
            (board.by_time.lock().largest(LISTED), board.by_fetches.lock().largest(LISTED));
        Self {
            name: settings.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            requests: Requests { total: totals.requests(), recent: recent.requests() },
            hit_ratio: recent.hit_ratio(),
            totals,
            recent,
            history: Steps {
                step_seconds: STEP.as_secs(),
                slots: SLOTS,
                hit_ratio: slots.iter().map(|slot| slot.hit_ratio).collect(),
                requests: slots.iter().map(|slot| slot.requests_per_second).collect(),
                origin_calls: slots.iter().map(|slot| slot.origin_calls_per_second).collect(),
                origin_seconds: slots.iter().map(|slot| slot.origin_seconds).collect(),
            },
            keys: Keys {
                by_time: by_time.into_iter().map(Time::of).collect(),
                by_fetches: by_fetches.into_iter().map(|sum| Count::of(sum, 1)).collect(),
                by_requests,
                sampled: settings.requests_sampled,
            },
            decisions: decisions.into_iter().map(|decision| Decided::of(decision, now)).collect(),
            hits_sampled: settings.hits_sampled,
            can_purge,
            can_explain,
        }
    }
}

impl Time {
    fn of(sum: Sum) -> Self {
        let seconds = |micros| Duration::from_micros(micros).as_secs_f64();
        Self { key: sum.label, seconds: seconds(sum.sum), error_seconds: seconds(sum.error) }
    }
}

impl Count {
    fn of(sum: Sum, times: u64) -> Self {
        Self { key: sum.label, count: sum.sum.saturating_mul(times), error: sum.error.saturating_mul(times) }
    }
}

/// Why the request was sent on that the service below returned an error for.
fn why_failed(record: &Record) -> Option<&'static str> {
    let why = record.cache_status().forward_reason().filter(|_| record.outcome() == Outcome::Failed);
    why.map(|why| why.as_str())
}

impl Decided {
    fn of(decision: Decision, now: Instant) -> Self {
        let Decision { at, method, target, record, took } = decision;
        let reason = record.outcome().reason().or(why_failed(&record));
        Self {
            ago_seconds: now.saturating_duration_since(at).as_secs_f64(),
            method: method.as_str().into(),
            target,
            outcome: record.outcome().as_str(),
            reason,
            detail: record.cache_status().detail().filter(|detail| Some(*detail) != reason),
            second_tier: record.cache_status().second_tier().map(|had| had.as_str()),
            stored: record.is_stored(),
            not_stored: record.not_stored_reason().map(|why| why.as_str()),
            status: record.status().map(|status| status.as_u16()),
            seconds: took.as_secs_f64(),
        }
    }
}
