//! The spans and events of a cache.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, LazyLock, Mutex},
};

use ::tracing::{
    Dispatch, Event, Instrument, Subscriber,
    field::Field,
    info_span,
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, NoSubscriber, set_default},
};
#[cfg(feature = "snapshot")]
use tokio::runtime::Runtime;
use tower::{Layer as _, ServiceExt};
#[cfg(feature = "snapshot")]
use tower_readthrough::{
    MemoryStore,
    store::{LoadEnd, SnapshotFile},
};
use tower_readthrough::{OriginHealth, OriginState, ReadThroughLayer, Rules};
use tracing_subscriber::{
    Layer, Registry,
    filter::LevelFilter,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::support::{
    Body, ScriptedOrigin, ScriptedResponse, collect, get, ms, ok, request, secs, settle, small_store, status,
};

/// What was seen, one line each.
#[derive(Clone, Default)]
struct Capture {
    lines: Arc<Mutex<Vec<String>>>,
    names: Arc<Mutex<HashMap<u64, String>>>,
}

#[derive(Default)]
struct Fields(String);

impl ::tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Capture {
    fn push(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    fn name(&self, id: &Id) -> String {
        self.names.lock().unwrap()[&id.into_u64()].clone()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let name = format!("{}{}", attributes.metadata().name(), fields.0);
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| self.name(&parent.id())));
        self.push(format!("span {name} in {}", parent.as_deref().unwrap_or("nothing")));
        self.names.lock().unwrap().insert(id.into_u64(), name);
    }

    fn on_record(&self, _: &Id, _: &Record<'_>, _: Context<'_, S>) {}

    fn on_follows_from(&self, span: &Id, follows: &Id, _: Context<'_, S>) {
        self.push(format!("{} follows {}", self.name(span), self.name(follows)));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let scope = context.event_scope(event).into_iter().flatten().map(|span| self.name(&span.id()));
        let scope = scope.collect::<Vec<_>>().join(" < ");
        self.push(format!("{}{} in [{scope}]", event.metadata().level(), fields.0));
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.push(format!("closed {}", self.name(&id)));
    }
}

fn subscriber(capture: &Capture, level: LevelFilter) -> impl Subscriber + Send + Sync + use<> {
    Registry::default().with(capture.clone().with_filter(level))
}

/// Makes this the subscriber of the thread.
///
/// Where it is the only one of the process, a thread without one that meets an event first decides that it is of no
/// interest, for all threads. So there is always another one.
fn listen(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static OTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
    LazyLock::force(&OTHER);
    set_default(subscriber)
}

/// The events of this thread.
#[cfg(all(feature = "dashboard", feature = "metrics"))]
#[derive(Clone)]
pub(crate) struct Events(Capture);

#[cfg(all(feature = "dashboard", feature = "metrics"))]
impl Events {
    /// Listens to this thread as long as it runs.
    pub(crate) fn listen() -> Self {
        thread_local! {
            static EVENTS: Events = {
                let capture = Capture::default();
                std::mem::forget(listen(subscriber(&capture, LevelFilter::DEBUG)));
                Events(capture)
            };
        }
        EVENTS.with(Self::clone)
    }

    /// What was told since the last look.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut lines = self.0.take();
        lines.retain(|line| line.starts_with("DEBUG "));
        lines
    }
}

fn origin() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|_, _| async {
        tokio::time::sleep(ms(50)).await;
        ::tracing::info!("asked");
        ok("x").max_age(10)
    })
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_request_reaches_its_fetch_and_those_that_wait_are_linked() {
    let capture = Capture::default();
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let service = layer.layer(origin());
    let ask = |n: u32| {
        let call = service.clone().oneshot(request("GET", "/a?token=secret", &[]));
        async { collect(call.await.unwrap()).await }.instrument(info_span!("request", n))
    };
    let _guard = listen(subscriber(&capture, LevelFilter::INFO));
    tokio::join!(ask(1), ask(2));
    let seen = capture.take();
    let fetch = "fetch method=GET path=\"/a\"";
    for line in [
        format!("span {fetch} in request n=1"),
        format!("{fetch} follows request n=2"),
        format!("INFO message=asked in [{fetch} < request n=1]"),
    ] {
        assert!(seen.contains(&line), "{line}: {seen:#?}");
    }
    assert_eq!(seen.iter().filter(|line| line.starts_with("span fetch")).count(), 1, "{seen:#?}");
    assert!(!seen.iter().any(|line| line.contains("secret")), "{seen:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_span_of_a_fetch_has_the_query_if_that_is_asked_for() {
    let capture = Capture::default();
    let layer = ReadThroughLayer::builder(small_store()).trace_queries(true).build().unwrap();
    let service = layer.layer(origin());
    let _guard = listen(subscriber(&capture, LevelFilter::INFO));
    get(&service, "/a?id=7").await;
    get(&service, "/a").await;
    let seen = capture.take();
    let spans: Vec<_> = seen.iter().filter(|line| line.starts_with("span fetch")).collect();
    let expected = [
        "span fetch method=GET path=\"/a\" query=\"id=7\" in nothing",
        "span fetch method=GET path=\"/a\" in nothing",
    ];
    assert_eq!(spans, expected);
}

#[tokio::test(start_paused = true)]
async fn what_comes_of_storing_a_response_is_an_event_at_debug_once_it_is_known() {
    let capture = Capture::default();
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let script = |n: usize, _: &http::request::Parts| {
        if n == 1 { ok("x").max_age(9) } else { ok("x").max_age(9).cut() }
    };
    let service = layer.layer(ScriptedOrigin::new(script));
    let _guard = listen(subscriber(&capture, LevelFilter::DEBUG));
    get(&service, "/a").await;
    get(&service, "/b").await;
    settle().await;
    let seen = capture.take();
    let told: Vec<_> = seen.iter().filter(|line| line.starts_with("DEBUG stored")).collect();
    assert!(told[0].starts_with("DEBUG stored=true in ["), "{told:?}");
    assert!(told[1].starts_with("DEBUG stored=false not_stored=\"incomplete\" in ["), "{told:?}");
    assert_eq!(told.len(), 2);
}

/// Although the span of the fetch is filtered out.
#[tokio::test(start_paused = true)]
async fn what_happens_in_a_fetch_is_in_the_span_of_the_request_where_only_that_is_wanted() {
    let capture = Capture::default();
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let service = layer.layer(origin());
    let filter = tracing_subscriber::filter::filter_fn(|metadata| metadata.target() != "tower_readthrough");
    let _guard = listen(Registry::default().with(capture.clone().with_filter(filter)));
    let call = service.oneshot(request("GET", "/a", &[])).instrument(info_span!("request"));
    collect(call.await.unwrap()).await;
    let seen = capture.take();
    assert!(seen.contains(&"INFO message=asked in [request]".to_owned()), "{seen:#?}");
}

#[tokio::test(start_paused = true)]
async fn each_decision_is_an_event_at_debug() {
    let capture = Capture::default();
    let rules = Rules::new().stale_while_revalidate_for(secs(60));
    let layer = ReadThroughLayer::builder(small_store()).rules(rules).build().unwrap();
    let service = layer.layer(origin());
    let _guard = listen(subscriber(&capture, LevelFilter::DEBUG));
    get(&service, "/a").await;
    get(&service, "/a").await;
    tokio::time::advance(secs(11)).await;
    get(&service, "/a").await;
    tokio::time::sleep(secs(1)).await;
    let seen = capture.take();
    let decisions: Vec<_> = seen.iter().filter(|line| line.starts_with("DEBUG outcome")).collect();
    assert_eq!(
        decisions,
        [
            "DEBUG outcome=\"forwarded\" reason=\"uri-miss\" status=200 stored=true collapsed=false in []",
            "DEBUG outcome=\"hit\" in []",
            "DEBUG outcome=\"stale\" reason=\"stale-while-revalidate\" status=200 stored=false collapsed=false in []",
        ]
    );
    let fetch = "fetch method=GET path=\"/a\"";
    assert!(seen.contains(&format!("INFO message=asked in [{fetch} < refresh]")), "{seen:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_warning_comes_when_the_origin_goes_down_and_when_it_is_up_again_and_not_between() {
    let capture = Capture::default();
    let health = OriginHealth::new();
    let script = |n: usize, _: &http::request::Parts| if n < 60 { status(503) } else { ok("x") };
    let layer = ReadThroughLayer::builder(small_store()).outage(health.clone()).build().unwrap();
    let service = layer.layer(ScriptedOrigin::new(script));
    let _guard = listen(subscriber(&capture, LevelFilter::WARN));
    for n in 0..300 {
        get(&service, &format!("/{n}")).await;
        tokio::time::advance(ms(400)).await;
        settle().await;
    }
    let seen = capture.take();
    assert_eq!(health.state(), OriginState::Up);
    let [down, up] = &seen[..] else { panic!("{seen:#?}") };
    assert!(down.starts_with("WARN message=the origin is down"), "{down}");
    assert!(
        up.starts_with("WARN message=the origin is up again seconds=") && up.contains("relapses="),
        "{up}"
    );
}

/// The slowest reader of a shared body has a span of its own.
#[tokio::test(start_paused = true)]
async fn the_spans_of_a_fetch_and_its_request_end_with_them_also_while_others_read() {
    let capture = Capture::default();
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let (sender, body) = Body::fed();
    let body = Mutex::new(Some(body));
    let answer = move || ScriptedResponse::with_body(body.lock().unwrap().take().unwrap()).max_age(10);
    let service = layer.layer(ScriptedOrigin::always(answer));
    let ask =
        |n: u32| service.clone().oneshot(request("GET", "/a", &[])).instrument(info_span!("request", n));
    let _guard = listen(subscriber(&capture, LevelFilter::INFO));
    let (leader, follower) = tokio::join!(ask(1), ask(2));
    sender.send("all of it");
    drop(sender);
    collect(leader.unwrap()).await;
    settle().await;
    let seen = capture.take();
    for line in ["closed request n=2", "closed fetch method=GET path=\"/a\"", "closed request n=1"] {
        assert!(seen.iter().any(|own| own == line), "{line}: {seen:#?}");
    }
    assert_eq!(collect(follower.unwrap()).await.body, "all of it");
}

/// A runtime whose blocking threads, which read and write files, have this subscriber.
#[cfg(feature = "snapshot")]
fn with_files_told<S: Subscriber + Send + Sync>(
    subscriber: impl Fn() -> S + Send + Sync + 'static,
) -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.on_thread_start(move || std::mem::forget(listen(subscriber())));
    runtime.build().unwrap()
}

#[cfg(feature = "snapshot")]
fn store_for_files() -> MemoryStore {
    MemoryStore::builder(1 << 20).snapshots(true).build().unwrap()
}

/// A new namespace, and two processes that overlap for a moment, are part of a deployment.
#[cfg(feature = "snapshot")]
#[test]
fn what_is_part_of_a_deployment_is_no_warning() {
    let (capture, directory) = (Capture::default(), crate::snapshot_file::Directory::new());
    let runtime = with_files_told({
        let capture = capture.clone();
        move || subscriber(&capture, LevelFilter::DEBUG)
    });
    runtime.block_on(async {
        let of = |name: &str| SnapshotFile::builder(store_for_files(), directory.file()).namespace(name);
        let old = of("shop 1").open().unwrap();
        old.write().await.unwrap();
        let new = of("shop 2").overlapping(true).open().unwrap();
        assert_eq!(new.loaded().await.end, LoadEnd::OtherNamespace);
        assert!(new.write().await.is_err());
        drop(old);
        new.write().await.unwrap();
    });
    // Its threads have ended.
    drop(runtime);
    let told = capture.take();
    let is_told = |what: &str| told.iter().any(|line| line.starts_with("DEBUG ") && line.contains(what));
    assert!(is_told("other-namespace") && is_told("another process has it"), "{told:?}");
    assert!(told.iter().all(|line| line.starts_with("DEBUG ")), "{told:?}");
}

#[cfg(feature = "snapshot")]
#[test]
fn a_write_that_fails_is_told_once_and_so_is_the_next_one_that_works() {
    let (capture, directory) = (Capture::default(), crate::snapshot_file::Directory::new());
    let runtime = with_files_told({
        let capture = capture.clone();
        move || subscriber(&capture, LevelFilter::WARN)
    });
    // A directory where the second file is to be.
    let obstacle = directory.file().with_file_name("cache.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    runtime.block_on(async {
        let file = SnapshotFile::builder(store_for_files(), directory.file()).open().unwrap();
        assert!(file.write().await.is_err() && file.write().await.is_err());
        std::fs::remove_dir(&obstacle).unwrap();
        file.write().await.unwrap();
        file.write().await.unwrap();
    });
    drop(runtime);
    let told = capture.take();
    let [fails, works] = &told[..] else { panic!("{told:?}") };
    assert!(fails.contains("cannot be written"), "{told:?}");
    // It was never written before.
    assert!(works.contains("was written") && !works.contains("again"), "{told:?}");
}

/// A subscriber is code of the application.
#[cfg(feature = "snapshot")]
#[test]
fn a_subscriber_that_panics_changes_nothing_about_a_load() {
    struct Panics;
    impl<S: Subscriber> Layer<S> for Panics {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            panic!("as the test wants it")
        }
    }
    let directory = crate::snapshot_file::Directory::new();
    let runtime = with_files_told(|| Registry::default().with(Panics));
    let file = runtime.block_on(async {
        let file = SnapshotFile::builder(store_for_files(), directory.file()).open().unwrap();
        assert_eq!(file.loaded().await.end, LoadEnd::Missing);
        file
    });
    drop(runtime);
    assert_eq!(file.stats().load.map(|load| load.end), Some(LoadEnd::Missing));
}
