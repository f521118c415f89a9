//! What reaches the `metrics` facade.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::UdpSocket,
    sync::{Arc, Mutex, mpsc},
};

use ::metrics::{
    self, Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit, with_local_recorder,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_exporter_statsd::StatsdBuilder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::Layer;
use tower_readthrough::{
    CacheKey, Forward, KeyRule, KeyRules, LookupLayer, Lost, MemoryStore, NotStored, OriginHealth,
    OriginState, PurgeKind, ReadThroughBuilder, ReadThroughLayer, Refused, Sequence, Stale, Stats, Store,
    Unkeyed,
    metrics::MetricsExporter,
    store::{Applied, Change, Entry, StoreStats},
};

use crate::support::{
    ScriptedOrigin, get, ms, ok, request, send,
    series::{Series, listed, rows, series},
    small_store, status,
};
#[cfg(feature = "snapshot")]
use tower_readthrough::store::SnapshotFile;

fn builder(name: &str) -> ReadThroughBuilder<MemoryStore> {
    ReadThroughLayer::builder(small_store()).cache_name(name)
}

fn origin() -> ScriptedOrigin {
    ScriptedOrigin::new(|_, head| match head.uri.path() {
        "/own" => ok("x").header("cache-control", "private"),
        "/broken" => status(503),
        _ => ok("hello").max_age(60).after(ms(50)),
    })
}

/// The sum of the counters of a name with this label.
fn sum(series: &[Series], name: &str, label: (&str, &str)) -> u64 {
    let is_it =
        |own: &[(String, String)]| own.iter().any(|(key, value)| (key.as_str(), value.as_str()) == label);
    let counts = series.iter().filter(|(own, labels, _)| own == name && is_it(labels));
    counts
        .map(|(_, _, value)| match value {
            DebugValue::Counter(count) => *count,
            other => panic!("{name}: {other:?}"),
        })
        .sum()
}

#[tokio::test(start_paused = true)]
async fn counters_are_the_differences_and_add_up_to_what_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = builder("sums").build().unwrap();
    let (stats, service, exporter) = (layer.stats(), layer.layer(origin()), layer.metrics().unwrap());
    let (mut hits, mut misses, mut private) = (0, 0, 0);
    for round in 1..=3 {
        for path in ["/a", "/a", "/own", "/broken"] {
            get(&service, path).await;
        }
        send(&service, request("POST", "/a", &[])).await;
        exporter.export();
        let series = series(&snapshotter);
        // The debugging recorder resets counters as they are read.
        hits += sum(&series, "readthrough_requests_total", ("outcome", "hit"));
        misses += sum(&series, "readthrough_requests_total", ("outcome", "forwarded"));
        private += sum(&series, "readthrough_not_stored_total", ("reason", "private"));
        let seen = stats.snapshot();
        let expected = (seen.hits, seen.forwarded.total(), seen.not_stored.get(NotStored::Private));
        assert_eq!((hits, misses, private), expected, "round {round}");
    }
    exporter.export();
    let quiet = series(&snapshotter);
    assert_eq!(sum(&quiet, "readthrough_requests_total", ("cache", "sums")), 0, "nothing is counted twice");
}

#[tokio::test(start_paused = true)]
async fn each_fetch_is_recorded_once_when_it_happens() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = builder("samples").build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    get(&service, "/a").await;
    get(&service, "/a").await;
    let samples = |name: &str| {
        let values = series(&snapshotter).into_iter().filter(|(own, _, _)| own == name);
        let values: Vec<_> = values.map(|(_, _, value)| value).collect();
        match &values[..] {
            [DebugValue::Histogram(samples)] => {
                samples.iter().map(|sample| sample.into_inner()).collect::<Vec<_>>()
            }
            other => panic!("{name}: {other:?}"),
        }
    };
    assert_eq!(samples("readthrough_fetch_seconds"), [0.05]);
    get(&service, "/b").await;
    assert_eq!(samples("readthrough_body_bytes"), [5.0]);
    drop(exporter);
    get(&service, "/c").await;
    let recorded = series(&snapshotter).into_iter().map(|(_, _, value)| match value {
        DebugValue::Histogram(samples) => samples.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(recorded.sum::<usize>(), 0, "without an exporter nothing is recorded");
}

/// Labels are from closed lists, or they could grow without a bound.
#[tokio::test(start_paused = true)]
async fn no_label_has_a_value_of_which_there_may_be_many() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let health = OriginHealth::builder()
        .origin(|head| head.uri.path().trim_start_matches('/').to_owned().into())
        .build()
        .unwrap();
    let rules = (0..70).fold(KeyRules::builder(), |rules, n| {
        rules.rule(KeyRule::path(format!("/{n}")).name(format!("rule {n}")))
    });
    let layer = builder("labels").key(rules.build().unwrap()).count_by_rule().outage(health).build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    for n in 0..71 {
        get(&service, &format!("/{n}")).await;
    }
    with_local_recorder(&recorder, || exporter.export());
    let reasons = Stale::ALL.iter().map(|why| why.as_str());
    let reasons = reasons.chain(Forward::ALL.iter().map(|why| why.as_str()));
    let reasons = reasons.chain(Unkeyed::ALL.iter().map(|why| why.as_str()));
    let reasons = reasons.chain(Refused::ALL.iter().map(|why| why.as_str()));
    let reasons = reasons.chain(Lost::ALL.iter().map(|why| why.as_str()));
    let reasons: BTreeSet<_> =
        reasons.chain(NotStored::ALL.iter().map(|why| why.as_str())).chain(["none"]).collect();
    let outcomes = ["hit", "stale", "forwarded", "unkeyed", "refused", "failed", "other-method"];
    let results = ["responded", "failed", "timed-out", "aborted", "too-many"];
    let (mut origins, mut rules) = (BTreeSet::new(), BTreeMap::new());
    for (name, labels, measured) in series(&snapshotter) {
        assert!(name.starts_with("readthrough_"), "{name}");
        assert_eq!(
            labels.first().map(|(key, value)| (&key[..], &value[..])),
            Some(("cache", "labels")),
            "{name}"
        );
        for (key, value) in &labels[1..] {
            let is_known = match key.as_str() {
                "outcome" => outcomes.contains(&value.as_str()),
                "reason" => reasons.contains(value.as_str()),
                "result" => results.contains(&value.as_str()),
                "kind" => PurgeKind::ALL.iter().any(|kind| kind.as_str() == value),
                "state" => OriginState::ALL.iter().any(|state| state.as_str() == value),
                "origin" => {
                    origins.insert(value.clone());
                    true
                }
                "rule" => {
                    let DebugValue::Counter(more) = &measured else { panic!("{name}: {measured:?}") };
                    *rules.entry(value.clone()).or_insert(0) += more;
                    true
                }
                _ => false,
            };
            assert!(is_known, "{name} has {key}={value}");
        }
    }
    assert_eq!((origins.len(), origins.contains("other")), (17, true), "{origins:?}");
    // Each of the first by itself, the six others together, and what no rule is for.
    assert_eq!((rules.len(), rules["rule 63"], rules["other"], rules["none"]), (66, 1, 6, 1), "{rules:?}");
}

#[tokio::test(start_paused = true)]
async fn without_counting_by_rule_no_series_has_a_rule() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let rules = KeyRules::builder().rule(KeyRule::path("/a").name("a")).build().unwrap();
    let layer = builder("without rules").key(rules).build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    get(&service, "/a").await;
    with_local_recorder(&recorder, || exporter.export());
    assert!(series(&snapshotter).iter().all(|(_, labels, _)| labels.iter().all(|(key, _)| key != "rule")));
}

/// The recorder is the user's own.
#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_changes_no_response() {
    struct Broken;
    impl metrics::Recorder for Broken {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            panic!("as the test wants it")
        }
    }
    let _guard = metrics::set_default_local_recorder(&Broken);
    let layer = builder("panics").build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    assert_eq!(
        (get(&service, "/a").await.cache(), get(&service, "/a").await.cache()),
        ("fwd=uri-miss".into(), "hit".into())
    );
    drop(exporter);
}

/// With a second tier, where there is such a thing. Its server is not there.
fn with_second_tier(name: &str, store: &MemoryStore) -> ReadThroughBuilder<MemoryStore> {
    let builder = ReadThroughLayer::builder(store.clone()).cache_name(name);
    #[cfg(feature = "redis")]
    let builder = {
        use tower_readthrough::{Tier, remote::RedisRemote};
        let remote = RedisRemote::builder("redis://127.0.0.1:1/").open().unwrap();
        builder.second_tier(Tier::builder(remote).build().unwrap())
    };
    builder
}

/// Whether a row of the documentation is about something that there is with these features. How far a node is behind
/// is known only with a connection: the tests with a server look at that.
fn is_exported(row: &str) -> bool {
    let is_of = |prefix: &str| row.contains(&format!("`readthrough_{prefix}_"));
    let is_of_nodes = is_of("tier") || is_of("cluster");
    (cfg!(feature = "redis") || !is_of_nodes)
        && (cfg!(feature = "snapshot") || !is_of("snapshot_file"))
        && !row.contains("`readthrough_cluster_behind`")
}

/// What the documentation lists is what is exported.
#[tokio::test(start_paused = true)]
async fn each_series_is_listed_in_the_documentation_with_its_labels() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rules = KeyRules::builder().rule(KeyRule::path("/a").name("a")).build().unwrap();
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    #[cfg(feature = "snapshot")]
    let directory = crate::snapshot_file::Directory::new();
    #[cfg(feature = "snapshot")]
    let file =
        tower_readthrough::store::SnapshotFile::builder(store.clone(), directory.file()).open().unwrap();
    #[cfg(feature = "snapshot")]
    file.loaded().await;
    let layer = with_second_tier("listed", &store).key(rules).count_by_rule().build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    get(&service, "/a").await;
    // Its tasks get no turn.
    #[cfg(feature = "redis")]
    let _cluster =
        tower_readthrough::cluster::Cluster::builder("redis://127.0.0.1:1/", layer.purge()).open().unwrap();
    exporter.export();
    assert_eq!(rows(&series(&snapshotter)), listed(is_exported));
}

/// The panels for a cluster ask for what there is of one, of a second tier and of a file, and for all of it.
#[test]
fn the_dashboard_of_a_cluster_asks_for_all_series_of_what_outlives_a_process() {
    fn queries(value: &serde_json::Value, found: &mut String) {
        match value {
            serde_json::Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(|query| query.as_str()));
                fields.values().for_each(|value| queries(value, found));
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
            _ => {}
        }
    }
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|byte: char| !byte.is_ascii_alphanumeric() && byte != '_');
        words.filter(|word| word.starts_with("readthrough_")).map(str::to_owned).collect()
    };
    let mut found = String::new();
    queries(&serde_json::from_str(include_str!("../../examples/cluster/grafana.json")).unwrap(), &mut found);
    let rows = include_str!("../../src/observe/metrics.rs").lines();
    let rows = rows.filter_map(|line| line.strip_prefix("//! | `readthrough_")?.split('`').next());
    let is_one = |name: &&str| ["cluster_", "tier_", "snapshot_file_"].iter().any(|of| name.starts_with(of));
    let listed: BTreeSet<_> = rows.filter(is_one).map(|name| format!("readthrough_{name}")).collect();
    assert_eq!(listed.len(), 7 + 9 + 6);
    assert_eq!(names(&found), listed);
}

#[test]
fn two_exporters_of_one_name_are_refused() {
    let (one, other) = (Stats::new(), Stats::new());
    let first = MetricsExporter::new(&one, "same").unwrap();
    let refused = MetricsExporter::new(&other, "same").unwrap_err();
    assert!(refused.to_string().contains("`same`"), "{refused}");
    assert!(MetricsExporter::new(&other, "another").is_ok());
    drop(first);
    assert!(MetricsExporter::new(&other, "same").is_ok());
}

/// A recorder that is installed after the exporter gets all that is counted from then on.
#[tokio::test(start_paused = true)]
async fn prometheus_shows_what_is_counted_although_its_recorder_comes_late() {
    let layer = builder("late").build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    get(&service, "/a").await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    with_local_recorder(&recorder, || exporter.export());
    get(&service, "/a").await;
    with_local_recorder(&recorder, || exporter.export());
    let text = handle.render();
    for line in [
        r#"readthrough_requests_total{cache="late",outcome="hit",reason="none"} 1"#,
        r#"readthrough_requests_total{cache="late",outcome="forwarded",reason="uri-miss"} 1"#,
        r#"readthrough_requests_total{cache="late",outcome="refused",reason="queue-full"} 0"#,
        r#"readthrough_store_responses{cache="late"} 1"#,
        r#"readthrough_origin_state{cache="late",origin="default",state="up"} 1"#,
    ] {
        assert!(text.lines().any(|own| own == line), "{line}\n{text}");
    }
}

#[test]
fn statsd_gets_the_same_sums_through_a_socket() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let statsd = StatsdBuilder::from("127.0.0.1", socket.local_addr().unwrap().port());
    let recorder = statsd.with_buffer_size(1).build(None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let layer = builder("statsd").build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    let ask = |times: u32| {
        runtime.block_on(async {
            for _ in 0..times {
                get(&service, "/a").await;
            }
        });
        with_local_recorder(&recorder, || exporter.export());
    };
    ask(3);
    ask(4);
    // The last one that is sent: when it is there, all others are.
    let (mut hits, mut buffer) = (0, [0; 2048]);
    let stats = layer.stats().snapshot();
    while hits < stats.hits {
        let length = socket.recv(&mut buffer).expect("a datagram with the rest of the hits");
        let text = str::from_utf8(&buffer[..length]).unwrap();
        for line in text.lines().filter(|line| line.starts_with("readthrough_requests_total:")) {
            if line.contains("outcome:hit") {
                let (_, rest) = line.split_once(':').unwrap();
                hits += rest.split('|').next().unwrap().parse::<u64>().unwrap();
            }
        }
    }
    assert_eq!((hits, stats.hits), (6, 6));
}

/// A store that is slow to say how it is, once.
#[derive(Clone)]
struct SlowToTell {
    inner: MemoryStore,
    next: Arc<Mutex<Option<Meeting>>>,
}

/// Says that it is asked, and waits for leave to answer.
type Meeting = (mpsc::Sender<()>, mpsc::Receiver<()>);

impl Store for SlowToTell {
    fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.inner.get(key)
    }

    fn apply(&self, key: &CacheKey, change: Change) -> Applied {
        self.inner.apply(key, change)
    }

    fn sequence(&self) -> &Arc<Sequence> {
        self.inner.sequence()
    }

    fn max_response_bytes(&self) -> usize {
        self.inner.max_response_bytes()
    }

    fn stats(&self) -> Option<StoreStats> {
        let meeting = self.next.lock().unwrap().take();
        if let Some((asked, leave)) = meeting {
            asked.send(()).unwrap();
            leave.recv().unwrap();
        }
        Some(self.inner.stats())
    }
}

fn hits(series: &[Series]) -> u64 {
    sum(series, "readthrough_requests_total", ("outcome", "hit"))
}

/// As where two scrapes come at the same time.
#[tokio::test(start_paused = true)]
async fn what_two_export_at_the_same_time_is_counted_once() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let store = SlowToTell { inner: small_store(), next: Arc::default() };
    let layer = ReadThroughLayer::builder(store.clone()).cache_name("concurrent").build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    for _ in 0..3 {
        get(&service, "/a").await;
    }
    let ((asked, is_asked), (leave, is_left)) = (mpsc::channel(), mpsc::channel());
    *store.next.lock().unwrap() = Some((asked, is_left));
    let (service, mut counted) = (&service, 0);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| with_local_recorder(&recorder, || exporter.export()));
        is_asked.recv().unwrap();
        // It has read the counters by now.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let more = scope.spawn(move || runtime.block_on(get(service, "/a")).is_hit());
        assert!(more.join().unwrap());
        scope.spawn(|| with_local_recorder(&recorder, || exporter.export())).join().unwrap();
        leave.send(()).unwrap();
        slow.join().unwrap();
        counted += hits(&series(&snapshotter));
    });
    with_local_recorder(&recorder, || exporter.export());
    counted += hits(&series(&snapshotter));
    assert_eq!((counted, layer.stats().snapshot().hits), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn an_exporter_that_is_dropped_takes_nothing_from_another_one() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = builder("unused").build().unwrap();
    let (stats, service) = (layer.stats(), layer.layer(origin()));
    let first = MetricsExporter::new(&stats, "two a").unwrap();
    let second = MetricsExporter::new(&stats, "two b").unwrap();
    let fetched = |cache: &str| {
        let all = series(&snapshotter).into_iter();
        let own = all.filter(|(name, labels, _)| {
            name == "readthrough_fetch_seconds" && labels.contains(&("cache".into(), cache.into()))
        });
        own.map(|(_, _, value)| match value {
            DebugValue::Histogram(samples) => samples.len(),
            other => panic!("{other:?}"),
        })
        .sum::<usize>()
    };
    get(&service, "/a").await;
    assert_eq!(fetched("two a"), 1);
    get(&service, "/b").await;
    assert_eq!(fetched("two b"), 1);
    drop(first);
    get(&service, "/c").await;
    assert_eq!(fetched("two b"), 1, "the other one goes on");
    drop(second);
    get(&service, "/d").await;
    assert_eq!(fetched("two b"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_exporter_in_place_of_another_one_goes_on_where_that_has_ended() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = builder("again").build().unwrap();
    let service = layer.layer(origin());
    let mut counted = 0;
    for _ in 0..3 {
        let exporter = layer.metrics().unwrap();
        get(&service, "/a").await;
        exporter.export();
        counted += hits(&series(&snapshotter));
    }
    assert_eq!((counted, layer.stats().snapshot().hits), (2, 2));
    // Under another name they are others.
    let other = MetricsExporter::new(&layer.stats(), "again, but another").unwrap();
    other.export();
    assert_eq!(hits(&series(&snapshotter)), 2);
}

/// What a gauge has with these labels, beside that of the cache.
#[cfg(any(feature = "snapshot", feature = "redis"))]
fn gauge(series: &[Series], name: &str, labels: &[(&str, &str)]) -> f64 {
    let is_it = |own: &[(String, String)]| {
        own[1..].iter().map(|(key, value)| (&**key, &**value)).eq(labels.iter().copied())
    };
    match series.iter().find(|(own, own_labels, _)| own == name && is_it(own_labels)) {
        Some((_, _, DebugValue::Gauge(value))) => value.into_inner(),
        other => panic!("{name} {labels:?}: {other:?}"),
    }
}

/// For which values of this label there is the series.
fn values<'a>(series: impl IntoIterator<Item = &'a Series>, name: &str, label: &str) -> BTreeSet<String> {
    let labels = series.into_iter().filter(|(own, ..)| own == name).flat_map(|(_, labels, _)| labels);
    labels.filter(|(key, _)| key == label).map(|(_, value)| value.clone()).collect()
}

/// Which of these values is 1 while all others are 0. None: none is.
#[cfg(any(feature = "snapshot", feature = "redis"))]
fn marked(series: &[Series], name: &str, label: &str) -> Vec<String> {
    let mut marked = Vec::new();
    for value in values(series, name, label) {
        match gauge(series, name, &[(label, &value)]) {
            0.0 => {}
            1.0 => marked.push(value),
            other => panic!("{name} of {value}: {other}"),
        }
    }
    marked
}

/// A counter that begins with what it counts hides that from a rate.
#[tokio::test(start_paused = true)]
async fn counters_of_what_comes_later_begin_with_0() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let rules = KeyRules::builder().rule(KeyRule::path("/a").name("a")).build().unwrap();
    let health = OriginHealth::builder()
        .origin(|head| head.uri.path().trim_start_matches('/').to_owned().into())
        .build()
        .unwrap();
    let layer = builder("later").key(rules).count_by_rule().outage(health).build().unwrap();
    let (service, exporter) = (layer.layer(origin()), layer.metrics().unwrap());
    exporter.export();
    let early = series(&snapshotter);
    assert_eq!(
        values(&early, "readthrough_rule_requests_total", "rule"),
        ["none", "other"].map(str::to_owned).into()
    );
    get(&service, "/a").await;
    exporter.export();
    let late = series(&snapshotter);
    let of = |key: &str| {
        let own = (key.to_owned(), "a".to_owned());
        late.iter().filter(move |(_, labels, _)| labels.contains(&own))
    };
    assert_eq!(
        values(of("rule"), "readthrough_rule_requests_total", "outcome"),
        ["hit", "stale", "forwarded", "unkeyed", "refused", "failed"].map(str::to_owned).into()
    );
    assert_eq!(
        values(of("origin"), "readthrough_failed_attempts_total", "result"),
        ["failed", "timed-out", "too-many"].map(str::to_owned).into()
    );
    // Of numbers that were exported before there was a cache.
    let stats = Stats::new();
    let exporter = MetricsExporter::new(&stats, "later still").unwrap();
    exporter.export();
    let _layer = LookupLayer::new(small_store()).counted_by(&stats);
    exporter.export();
    let all = series(&snapshotter);
    let is_there = |(name, labels, _): &Series| {
        name == "readthrough_evictions_total" && labels.contains(&("cache".into(), "later still".into()))
    };
    assert!(all.iter().any(is_there));
}

/// An alarm on the age of the file is raised although nothing says any more how old it is.
#[cfg(feature = "snapshot")]
#[tokio::test(start_paused = true)]
async fn the_series_of_a_file_begin_when_it_is_opened_and_say_when_it_is_no_more() {
    const LOAD: &str = "readthrough_snapshot_file_load";
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let directory = crate::snapshot_file::Directory::new();
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let layer = ReadThroughLayer::builder(store.clone()).cache_name("file").build().unwrap();
    let exporter = layer.metrics().unwrap();
    let exported = || {
        exporter.export();
        series(&snapshotter)
    };
    assert!(!exported().iter().any(|(name, ..)| name.starts_with("readthrough_snapshot_file")));
    let open = || SnapshotFile::builder(store.clone(), directory.file()).open().unwrap();
    let file = open();
    file.loaded().await;
    let opened = exported();
    assert_eq!(
        values(&opened, "readthrough_snapshot_file_writes_total", "result"),
        ["failed", "written"].map(str::to_owned).into()
    );
    assert_eq!(marked(&opened, LOAD, "end"), ["missing"]);

    let bytes = file.write().await.unwrap().bytes;
    let age = |series: &[Series]| gauge(series, "readthrough_snapshot_file_written_seconds", &[]);
    tokio::time::advance(ms(7000)).await;
    assert_eq!(age(&exported()), 7.0);
    drop(file);
    for seconds in [7.0, 57.0, 107.0] {
        let gone = exported();
        assert_eq!((age(&gone), marked(&gone, LOAD, "end")), (seconds, vec![]));
        let load = gauge(&gone, "readthrough_snapshot_file_load_responses", &[("result", "loaded")]);
        assert_eq!((load, gauge(&gone, "readthrough_snapshot_file_bytes", &[])), (0.0, bytes as f64));
        tokio::time::advance(ms(50_000)).await;
    }
    // Another one takes its place.
    let file = open();
    file.loaded().await;
    let again = exported();
    assert_eq!((age(&again), marked(&again, LOAD, "end")), (0.0, vec!["complete".to_owned()]));
    file.write().await.unwrap();
    assert_eq!(sum(&exported(), "readthrough_snapshot_file_writes_total", ("result", "written")), 1);
    // Also between two exports.
    drop(file);
    tokio::time::advance(ms(1)).await;
    let file = open();
    file.write().await.unwrap();
    assert_eq!(sum(&exported(), "readthrough_snapshot_file_writes_total", ("result", "written")), 1);
}

#[cfg(feature = "snapshot")]
#[test]
fn a_load_that_was_aborted_is_exported_as_such() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let directory = crate::snapshot_file::Directory::new();
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let layer = ReadThroughLayer::builder(store.clone()).cache_name("aborted").build().unwrap();
    let _file = crate::snapshot_file::never_loaded(&store, &directory.file());
    with_local_recorder(&recorder, || layer.metrics().unwrap().export());
    assert_eq!(marked(&series(&snapshotter), "readthrough_snapshot_file_load", "end"), ["aborted"]);
}

/// A node that is no part of its cluster any more hears of no purges.
#[cfg(feature = "redis")]
#[tokio::test(start_paused = true)]
async fn the_series_of_a_node_begin_when_it_joins_and_say_when_it_has_left() {
    use tower_readthrough::cluster::{Cluster, WhenCutOff};
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let layer = builder("node").build().unwrap();
    let exporter = layer.metrics().unwrap();
    let exported = || {
        exporter.export();
        series(&snapshotter)
    };
    assert!(!exported().iter().any(|(name, ..)| name.starts_with("readthrough_cluster")));
    // Its tasks get no turn.
    let when_cut_off = WhenCutOff::ValidateAfter(ms(20_000));
    let cluster = Cluster::builder("redis://127.0.0.1:1/", layer.purge()).when_cut_off(when_cut_off);
    let cluster = cluster.open().unwrap();
    layer.purge().tag("a");
    let joined = exported();
    assert_eq!(sum(&joined, "readthrough_cluster_gaps_total", ("cache", "node")), 0);
    assert!(values(&joined, "readthrough_cluster_gaps_total", "cache").contains("node"));
    assert_eq!(marked(&joined, "readthrough_cluster_state", "state"), ["cut-off"]);
    let of = |series: &[Series]| {
        ["heard_seconds", "waiting", "must_validate"]
            .map(|name| gauge(series, &format!("readthrough_cluster_{name}"), &[]))
    };
    assert_eq!(of(&joined), [0.0, 1.0, 1.0]);
    drop(cluster);
    for seconds in [0.0, 30.0, 60.0] {
        let left = exported();
        assert_eq!(marked(&left, "readthrough_cluster_state", "state"), Vec::<String>::new());
        // It confirms all that it has.
        assert_eq!(of(&left), [seconds, 0.0, 1.0]);
        tokio::time::advance(ms(30_000)).await;
    }
}
