//! A cache that only reports what it would do.

use std::sync::{Arc, Mutex};

use http::{Request, request::Parts};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CacheStatus, Forward, KeyRule, KeyRules, MemoryStore, NotStored, Observer, OriginLimitLayer, Outcome,
    ReadThroughBuilder, ReadThroughLayer, Record, Refused, Rules, Stale, Stats, Unkeyed,
};

use crate::support::{
    Body, Failure, Reply, ScriptedOrigin, collect, error, ms, ok, request, secs, settle, small_store, status,
};

fn builder() -> ReadThroughBuilder<MemoryStore> {
    ReadThroughLayer::builder(small_store()).report_only()
}

/// What each request gets from the origin, and what is told of it.
struct Reporting<S> {
    service: S,
    stats: Stats,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told(Mutex<Vec<Record>>);

impl Observer for Told {
    fn finished(&self, record: &Record) {
        self.0.lock().unwrap().push(*record);
    }
}

impl Told {
    fn last(&self) -> Record {
        *self.0.lock().unwrap().last().expect("something was told")
    }
}

fn reporting(
    builder: ReadThroughBuilder<MemoryStore>,
    origin: ScriptedOrigin,
) -> Reporting<impl tower::Service<Request<Body>, Response = Reply, Error = Failure> + Clone> {
    let told = Arc::new(Told::default());
    let layer = builder.observer(Arc::clone(&told)).build().unwrap();
    let stats = layer.stats();
    let service = layer.layer(origin);
    let service = tower::service_fn(move |request| {
        let call = service.clone().oneshot(request);
        async move { Ok(collect(call.await?).await) }
    });
    Reporting { service, stats, told }
}

#[tokio::test(start_paused = true)]
async fn each_request_reaches_the_origin_and_what_the_cache_would_have_done_is_told() {
    let script = |_: usize, head: &Parts| match head.uri.path() {
        "/swr" => ok("x").header("cache-control", "max-age=10, stale-while-revalidate=600"),
        "/own" => ok("x").header("cache-control", "private"),
        "/error" => error(),
        "/broken" => status(503),
        _ => ok("x").max_age(10),
    };
    let origin = ScriptedOrigin::new(script);
    let cache = reporting(builder(), origin.clone());
    let ask = async |path: &str| {
        let calls = origin.calls();
        let result = cache.service.clone().oneshot(request("GET", path, &[])).await;
        settle().await;
        assert_eq!(origin.calls(), calls + 1, "{path}");
        if let Ok(reply) = result {
            assert_eq!(reply.header("cache-status"), None);
        }
        cache.told.last().outcome()
    };
    let forwarded = Outcome::Forwarded;
    assert_eq!([ask("/").await, ask("/").await], [forwarded(Forward::UriMiss), Outcome::Hit]);
    assert_eq!(
        [ask("/own").await, ask("/own").await],
        [forwarded(Forward::UriMiss), forwarded(Forward::Bypass)]
    );
    assert_eq!(cache.told.last().not_stored_reason(), Some(NotStored::Private));
    assert_eq!([ask("/swr").await, ask("/error").await], [forwarded(Forward::UriMiss), Outcome::Failed]);
    assert_eq!(ask("/broken").await, forwarded(Forward::UriMiss));
    tokio::time::advance(secs(11)).await;
    assert_eq!(ask("/").await, forwarded(Forward::Stale));
    assert_eq!(ask("/").await, Outcome::Hit, "it was stored once more");
    // One would have been refreshed in the background, which costs the origin a call.
    assert_eq!(ask("/swr").await, Outcome::Stale(Stale::WhileRevalidating));
    assert_eq!(ask("/swr").await, Outcome::Hit);
    let counts = cache.stats.snapshot();
    assert_eq!((counts.hits, counts.saved, counts.reports_only), (3, 3, true));
    assert_eq!(counts.requests(), origin.calls() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_head_takes_no_refresh_away_from_a_get_that_would_have_begun_it() {
    let origin =
        ScriptedOrigin::always(|| ok("x").header("cache-control", "max-age=10, stale-while-revalidate=600"));
    let cache = reporting(builder(), origin);
    let ask = async |method: &str| {
        cache.service.clone().oneshot(request(method, "/", &[])).await.unwrap();
        settle().await;
        cache.told.last().outcome()
    };
    ask("GET").await;
    tokio::time::advance(secs(11)).await;
    let stale = Outcome::Stale(Stale::WhileRevalidating);
    assert_eq!([ask("HEAD").await, ask("GET").await, ask("GET").await], [stale, stale, Outcome::Hit]);
    let counts = cache.stats.snapshot();
    assert_eq!(counts.saved, 2, "the HEAD, and the hit");
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_the_response_of_the_origin_as_it_is_and_the_origin_the_request() {
    let script = |_: usize, _: &Parts| {
        ok("x")
            .max_age(60)
            .header("surrogate-key", "a")
            .header("set-cookie", "a=b")
            .header("connection", "close")
    };
    let origin = ScriptedOrigin::new(script);
    let rules = KeyRules::builder().rule(KeyRule::path("/p/{id}").keep_query(["v"]).cookies([]));
    let layer = ReadThroughLayer::builder(small_store())
        .key(rules.build().unwrap())
        .rules(Rules::new().store_without(["set-cookie"]))
        .report_only()
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    for n in 0..2 {
        let fields = [("cookie", "sid=1"), ("if-none-match", "\"1\""), ("range", "bytes=0-1")];
        let fields = if n == 0 { &fields[..1] } else { &fields[..] };
        let response = service.clone().oneshot(request("GET", "/p/1?utm=1&v=2", fields)).await.unwrap();
        let names = ["surrogate-key", "set-cookie", "connection"];
        assert!(names.iter().all(|name| response.headers().contains_key(*name)), "{response:?}");
        assert_eq!((response.headers().len(), CacheStatus::of(&response)), (4, None));
        collect(response).await;
        let sent = origin.last_request();
        assert_eq!(sent.uri.query(), Some("utm=1&v=2"));
        assert!(fields.iter().all(|(name, value)| sent.headers[*name] == *value), "{sent:?}");
    }
    assert_eq!(layer.stats().snapshot().hits, 1, "by the key that the rules make");
}

/// No client waits for another one, nor for a place in a queue.
#[tokio::test(start_paused = true)]
async fn requests_at_the_same_time_reach_the_origin_each_by_itself() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).after(ms(100)));
    let limit = OriginLimitLayer::new(1).max_queue(0);
    let cache = reporting(builder().origin_limit(limit), origin.clone());
    let ask = || cache.service.clone().oneshot(request("GET", "/", &[]));
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    assert!([one, two, three].into_iter().all(|reply| reply.is_ok_and(|reply| reply.status == 200)));
    assert_eq!((origin.calls(), origin.most_under_way()), (3, 3));
    let counts = cache.stats.snapshot();
    assert_eq!((counts.forwarded.get(Forward::UriMiss), counts.collapsed, counts.saved), (3, 2, 2));
    assert_eq!(counts.stored, 1, "there would have been one fetch");
}

#[tokio::test(start_paused = true)]
async fn purges_and_unsafe_requests_count_as_ever() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let builder = builder();
    let purge = builder.purge();
    let cache = reporting(builder, origin);
    let ask = async |method: &str, path: &str| {
        cache.service.clone().oneshot(request(method, path, &[])).await.unwrap();
        cache.told.last().outcome()
    };
    ask("GET", "/a").await;
    ask("GET", "/b").await;
    purge.url("http://example.com/a").unwrap();
    assert_eq!(ask("GET", "/a").await, Outcome::Forwarded(Forward::Stale));
    ask("DELETE", "/b").await;
    assert_eq!(ask("GET", "/b").await, Outcome::Forwarded(Forward::Stale));
    assert_eq!(ask("GET", "/b").await, Outcome::Hit);
    assert_eq!(cache.stats.snapshot().other_methods, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_would_have_been_covered_is_told_so() {
    let script = |n: usize, _: &Parts| if n == 1 { ok("x").max_age(10) } else { status(503) };
    let rules = Rules::new().stale_if_error_for(secs(600));
    let cache = reporting(builder().rules(rules), ScriptedOrigin::new(script));
    let ask = async || {
        let reply = cache.service.clone().oneshot(request("GET", "/", &[])).await.unwrap();
        (reply.status.as_u16(), cache.told.last().outcome())
    };
    assert_eq!(ask().await, (200, Outcome::Forwarded(Forward::UriMiss)));
    tokio::time::advance(secs(11)).await;
    assert_eq!(ask().await, (503, Outcome::Stale(Stale::IfError)));
    // In the pause after that nothing would have been asked.
    assert_eq!(ask().await, (503, Outcome::Stale(Stale::OriginFailed)));
    assert_eq!(cache.stats.snapshot().saved, 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_and_one_for_what_is_stored_alone_are_told() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let directives = builder().lookup(|lookup| lookup.request_directives(true));
    let cache = reporting(directives, origin.clone());
    let ask = async |request: Request<Body>| {
        let reply = cache.service.clone().oneshot(request).await.unwrap();
        (reply.status.as_u16(), cache.told.last().outcome())
    };
    let upgrade = request("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")]);
    assert_eq!(ask(upgrade).await, (200, Outcome::Unkeyed(Unkeyed::Upgrade)));
    let only_stored = request("GET", "/", &[("cache-control", "only-if-cached")]);
    assert_eq!(ask(only_stored).await, (200, Outcome::Refused(Refused::NotStored)));
    assert_eq!(origin.calls(), 2);
}
