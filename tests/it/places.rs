//! The places where a decision can be seen beside the response and the observer: metrics, spans and events, the figures
//! of the dashboard, and the explanation before it.

use std::sync::atomic::{AtomicU32, Ordering};

use ::metrics::with_local_recorder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tower_readthrough::{
    Lost, NotStored, Outcome, Stats, dashboard::Dashboard, metrics::MetricsExporter, purge::Access,
    testing::Client,
};

use crate::tracing::Events;

pub(crate) struct Places {
    exporter: MetricsExporter,
    recorder: DebuggingRecorder,
    snapshotter: Snapshotter,
    dashboard: Client<Dashboard>,
    events: Events,
}

type Grown = (String, Vec<(String, String)>, u64);

/// What each place has said between two looks.
pub(crate) struct Seen {
    /// Name, labels without that of the cache, and by how much it grew.
    series: Vec<Grown>,
    totals: serde_json::Value,
    events: Vec<String>,
}

impl Places {
    pub(crate) fn of(stats: &Stats) -> Self {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let name = format!("places-{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let recorder = DebuggingRecorder::new();
        let dashboard = Dashboard::new(stats.clone(), |_: &http::request::Parts| Access::Granted);
        Self {
            exporter: MetricsExporter::new(stats, &name).unwrap(),
            snapshotter: recorder.snapshotter(),
            recorder,
            dashboard: Client::new(dashboard),
            events: Events::listen(),
        }
    }

    /// What was said since the last look.
    pub(crate) async fn look(&self) -> Seen {
        with_local_recorder(&self.recorder, || self.exporter.export());
        let series = self.snapshotter.snapshot().into_vec().into_iter();
        let grown = series.filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(more @ 1..) => {
                let (name, labels) = key.key().clone().into_parts();
                let labels = labels.iter().skip(1);
                let labels = labels.map(|label| (label.key().to_owned(), label.value().to_owned()));
                Some((name.as_str().to_owned(), labels.collect(), more))
            }
            _ => None,
        });
        let figures = self.dashboard.get("/data.json").send().await;
        let mut figures: serde_json::Value = serde_json::from_slice(&figures.body).unwrap();
        let mut events = self.events.take();
        events.retain(|event| event.contains("asked"));
        Seen { series: grown.collect(), totals: figures["totals"].take(), events }
    }
}

impl Seen {
    fn grown(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let is_it = |own: &[(String, String)]| {
            labels.iter().all(|(key, value)| own.iter().any(|own| (&*own.0, &*own.1) == (*key, *value)))
        };
        self.series
            .iter()
            .filter(|(own, labels, _)| own == name && is_it(labels))
            .map(|(.., more)| more)
            .sum()
    }

    fn total(&self, outcome: Outcome) -> u64 {
        let name = match outcome.as_str() {
            "hit" => "hits",
            other => other,
        };
        let total = &self.totals[name];
        outcome.reason().map_or(total, |reason| &total[reason]).as_u64().unwrap()
    }

    /// Asserts that one request ended like this, at each place, since `before`.
    #[track_caller]
    pub(crate) fn expect_outcome(&self, before: &Self, outcome: Outcome) {
        assert_eq!(self.grown("readthrough_requests_total", &[]), 1, "{outcome}: {:?}", self.series);
        let labels = [("outcome", outcome.as_str()), ("reason", outcome.reason().unwrap_or("none"))];
        assert_eq!(self.grown("readthrough_requests_total", &labels), 1, "{outcome}: {:?}", self.series);
        assert_eq!(
            self.total(outcome) - before.total(outcome),
            1,
            "{outcome} in the figures of the dashboard"
        );
        let ended: Vec<_> = self.events.iter().filter(|event| event.contains(" outcome=")).collect();
        let [event] = &ended[..] else { panic!("one event: {:?}", self.events) };
        assert!(event.contains(&format!(" outcome={:?}", outcome.as_str())), "{outcome}: {event}");
        let reason = outcome.reason().map(|reason| format!(" reason={reason:?}"));
        assert!(reason.is_none_or(|reason| event.contains(&reason)), "{outcome}: {event}");
    }

    /// Asserts that what is stored was not used for one request, for this reason, at each place, since `before`.
    #[track_caller]
    pub(crate) fn expect_lost(&self, before: &Self, why: Lost) {
        let name = "readthrough_lost_total";
        assert_eq!((self.grown(name, &[]), self.grown(name, &[("reason", why.as_str())])), (1, 1), "{why}");
        let total = |seen: &Self| seen.totals["lost"][why.as_str()].as_u64().unwrap();
        assert_eq!(total(self) - total(before), 1, "{why} in the figures of the dashboard");
        let said = format!("lost={:?}", why.as_str());
        assert_eq!(self.events.iter().filter(|event| event.contains(&said)).count(), 1, "{:?}", self.events);
    }

    /// Asserts that one response was not stored, for this reason, at each place, since `before`.
    #[track_caller]
    pub(crate) fn expect_not_stored(&self, before: &Self, why: NotStored) {
        let name = "readthrough_not_stored_total";
        assert_eq!((self.grown(name, &[]), self.grown(name, &[("reason", why.as_str())])), (1, 1), "{why}");
        let total = |seen: &Self| seen.totals["not_stored"][why.as_str()].as_u64().unwrap();
        assert_eq!(total(self) - total(before), 1, "{why} in the figures of the dashboard");
        let said = format!("stored=false not_stored={:?}", why.as_str());
        let told = self.events.iter().filter(|event| !event.contains(" outcome=") && event.contains(&said));
        assert_eq!(told.count(), 1, "{why}: {:?}", self.events);
    }
}
