//! What the dashboard remembers: the last steps, the largest keys, the last decisions.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Extensions, HeaderMap, HeaderValue, Method, Uri, header};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    history::{History, STEP},
    sketch::Sketch,
};
use crate::{
    exchange::{Outcome, Record, status::CacheStatus},
    key::original_uri_of,
    observe::Stats,
};

/// How many decisions are kept.
const DECISIONS: usize = 50;

/// How many bytes of a target are kept.
const MAX_LABEL: usize = 240;

/// What is shared by the service and by the layers that watch requests.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) stats: Stats,
    pub(super) settings: Settings,
    pub(super) history: Mutex<History>,
    pub(super) by_time: Mutex<Sketch>,
    pub(super) by_fetches: Mutex<Sketch>,
    pub(super) by_requests: Mutex<Sketch>,
    pub(super) decisions: Mutex<VecDeque<Decision>>,
    /// What the origin has returned errors for, with the reason why it was asked. As many as decisions.
    failures: Mutex<VecDeque<(String, CacheStatus)>>,
    hits: AtomicU32,
    requests: AtomicU32,
    is_sampled: AtomicBool,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) name: Box<str>,
    pub(super) shows_queries: bool,
    /// One hit in so many is among the decisions.
    pub(super) hits_sampled: Option<u32>,
    /// One request in so many is counted by its key.
    pub(super) requests_sampled: Option<u32>,
}

/// What became of one request.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) at: Instant,
    pub(super) method: Method,
    pub(super) target: Box<str>,
    pub(super) record: Record,
    pub(super) took: Duration,
}

/// What a request is for, as far as it is needed later. Cheap to make: the text is made when it is kept.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
}

impl Target {
    pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Self {
        let uri = original_uri_of(uri, extensions).clone();
        let host = if uri.authority().is_none() { headers.get(header::HOST).cloned() } else { None };
        Self { method: method.clone(), uri, host }
    }

    /// Host, path and, where it is to be shown, the query.
    fn label(&self, shows_query: bool) -> String {
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        let host = self.uri.authority().map(|authority| authority.as_str()).or(host).unwrap_or_default();
        // Without credentials, which nothing should show.
        let host = host.rsplit('@').next().unwrap_or_default();
        let mut label = format!("{host}{}", self.uri.path());
        if let Some(query) = self.uri.query().filter(|_| shows_query) {
            label.push('?');
            label.push_str(query);
        }
        if label.len() > MAX_LABEL {
            // A URI is ASCII, and what is not is cut at a character.
            let end = (0..=MAX_LABEL).rev().find(|end| label.is_char_boundary(*end)).unwrap_or_default();
            label.truncate(end);
            label.push('…');
        }
        label
    }
}

impl Board {
    pub(super) fn new(stats: Stats, settings: Settings) -> Self {
        let mut history = History::default();
        // What happens before the first step counts too.
        history.push(stats.snapshot());
        Self {
            stats,
            settings,
            history: Mutex::new(history),
            by_time: Mutex::default(),
            by_fetches: Mutex::default(),
            by_requests: Mutex::default(),
            decisions: Mutex::default(),
            failures: Mutex::default(),
            hits: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            is_sampled: AtomicBool::new(false),
        }
    }

    /// Begins to read the counters at each step, unless that has begun, or there is no runtime.
    pub(super) fn sample(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.is_sampled.swap(true, Ordering::Relaxed) {
            runtime.spawn(sample(Arc::downgrade(self)));
        }
    }

    /// Notes what became of a request.
    pub(super) fn decided(&self, target: &Target, record: Record, took: Duration) {
        if self.settings.requests_sampled.is_some_and(|every| is_due(&self.requests, every)) {
            let label = target.label(self.settings.shows_queries);
            let evicted = self.by_requests.lock().add(&label, 1);
            drop(evicted);
        }
        if record.outcome() == Outcome::Hit
            && !self.settings.hits_sampled.is_some_and(|every| is_due(&self.hits, every))
        {
            return;
        }
        let label = target.label(self.settings.shows_queries).into();
        let (at, method) = (Instant::now(), target.method.clone());
        let decision = Decision { at, method, target: label, record, took };
        let mut decisions = self.decisions.lock();
        let oldest = if decisions.len() == DECISIONS { decisions.pop_front() } else { None };
        decisions.push_back(decision);
        drop(decisions);
        drop(oldest);
    }

    /// Notes that the origin has returned an error for a request that was sent on for this reason.
    pub(super) fn failed(&self, target: &Target, why: CacheStatus) {
        let failure = (target.label(true), why);
        let mut failures = self.failures.lock();
        let oldest = if failures.len() == DECISIONS { failures.pop_front() } else { None };
        failures.push_back(failure);
        drop(failures);
        drop(oldest);
    }

    /// Returns why the last request for this target was sent on for which the origin returned an error.
    pub(super) fn why_failed(&self, target: &Target) -> Option<CacheStatus> {
        let label = target.label(true);
        let failures = self.failures.lock();
        failures.iter().rev().find(|(own, _)| *own == label).map(|(_, why)| *why)
    }

    /// Notes that the origin has worked on a request for so long.
    pub(super) fn fetched(&self, target: &Target, took: Duration) {
        let label = target.label(self.settings.shows_queries);
        let micros = took.as_micros().try_into().unwrap_or(u64::MAX).max(1);
        let by_time = self.by_time.lock().add(&label, micros);
        let by_fetches = self.by_fetches.lock().add(&label, 1);
        drop((by_time, by_fetches));
    }
}

/// Whether this is one of so many: the first, and each one after so many others.
fn is_due(counter: &AtomicU32, every: u32) -> bool {
    counter.fetch_add(1, Ordering::Relaxed).is_multiple_of(every.max(1))
}

/// Reads the counters at each step, as long as there is a dashboard.
async fn sample(board: Weak<Board>) {
    let mut steps = interval_at(Instant::now() + STEP, STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        steps.tick().await;
        let Some(board) = board.upgrade() else { return };
        let now = board.stats.snapshot();
        let replaced = board.history.lock().push(now);
        drop(replaced);
    }
}
