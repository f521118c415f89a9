//! What an observer is told: every outcome, each once.

use std::{
    collections::HashSet,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body::Body as HttpBody;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};
use tower_readthrough::{
    BackgroundEvent, CacheKey, CoalesceLayer, Explanation, FillLayer, Forward, Guard, KeyExtractor, KeyLayer,
    KeyRule, KeyRules, Known, LookupLayer, Lost, MemoryStore, NotStored, Observer, OriginHealth,
    OriginLimitLayer, OriginState, Outcome, Purge, ReadThroughBuilder, ReadThroughLayer, Record,
    RefreshResult, Refused, RetryPolicy, Role, Rules, Sequence, Stale, StaleIfErrorLayer, Stats,
    StatsSnapshot, Store, StoreLayer, Unkeyed, When,
    store::{Applied, Change, Entry},
};

use crate::support::{
    Body, Failure, Reply, ScriptedOrigin, ScriptedResponse, collect, error, get, hangs, ms, ok, panics,
    request, response, secs, settle, small_store, status,
};

type Boxed = BoxCloneService<Request<Body>, Reply, Failure>;

/// A service whose bodies are read to their end.
fn boxed<S, B>(service: S) -> Boxed
where
    S: Service<Request<Body>, Response = Response<B>, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send,
{
    BoxCloneService::new(service_fn(move |request| {
        let call = service.clone().oneshot(request);
        async move { Ok(collect(call.await?).await) }
    }))
}

#[derive(Default)]
struct Watch {
    records: Mutex<Vec<Record>>,
    commits: Mutex<Vec<(CacheKey, Applied)>>,
    events: Mutex<Vec<String>>,
}

impl Observer for Watch {
    fn finished(&self, record: &Record) {
        self.records.lock().unwrap().push(*record);
    }

    fn committed(&self, key: &CacheKey, applied: Applied) {
        self.commits.lock().unwrap().push((key.clone(), applied));
    }

    fn background(&self, event: BackgroundEvent<'_>) {
        self.events.lock().unwrap().push(match event {
            BackgroundEvent::RefreshBegan(_) => "began".into(),
            BackgroundEvent::RefreshEnded(_, result) => format!("{result:?}"),
            other => panic!("{other:?}"),
        });
    }
}

impl Watch {
    fn applied(&self) -> Vec<Applied> {
        self.commits.lock().unwrap().iter().map(|(_, applied)| *applied).collect()
    }

    fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }
}

/// A service, what its observer was told, and what it has counted.
struct Cache {
    service: Boxed,
    watch: Arc<Watch>,
    stats: Stats,
    /// What would become of a request. `None`: layers by hand do not say.
    explain: Option<Explain>,
    #[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
    places: crate::places::Places,
    /// Requests that end with the cache, so that none is told of in what follows.
    held: Mutex<JoinSet<Result<Reply, Failure>>>,
}

type Explain = Box<dyn Fn(&Parts) -> Explanation>;

/// What a request was told to have become, and what was foreseen.
struct Asked {
    record: Record,
    foreseen: Option<Explanation>,
}

impl Deref for Asked {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// How many requests ended like this.
fn counted(stats: &StatsSnapshot, outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Hit => stats.hits,
        Outcome::Stale(why) => stats.stale.get(why),
        Outcome::Forwarded(why) => stats.forwarded.get(why),
        Outcome::Unkeyed(why) => stats.unkeyed.get(why),
        Outcome::Refused(why) => stats.refused.get(why),
        Outcome::Failed => stats.failed,
        other => panic!("{other:?}"),
    }
}

impl Cache {
    fn new(service: Boxed, watch: Arc<Watch>, stats: Stats) -> Self {
        Self {
            service,
            watch,
            explain: None,
            #[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
            places: crate::places::Places::of(&stats),
            stats,
            held: Mutex::default(),
        }
    }

    fn of<K: KeyExtractor>(
        layer: ReadThroughLayer<MemoryStore, K>,
        watch: Arc<Watch>,
        origin: ScriptedOrigin,
    ) -> Self {
        let cache = Self::new(boxed(layer.layer(origin)), watch, layer.stats());
        Self { explain: Some(Box::new(move |head| layer.explain(head))), ..cache }
    }

    /// Sends a request, of which the observer has to be told once, and in the words of the response. It is
    /// counted once, by what the observer is told, and so say all places.
    async fn ask(&self, request: Request<Body>) -> Asked {
        let (head, body) = request.into_parts();
        let foreseen = self.explain.as_ref().map(|explain| explain(&head));
        let request = Request::from_parts(head, body);
        #[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
        let seen = self.places.look().await;
        let before = self.watch.records.lock().unwrap().len();
        let counts = self.stats.snapshot();
        let result = self.call(request).await;
        let record = {
            let records = self.watch.records.lock().unwrap();
            assert_eq!(records.len(), before + 1, "told once: {result:?}");
            records[before]
        };
        let counts = self.stats.snapshot().since(&counts);
        assert_eq!((counts.requests(), counted(&counts, record.outcome())), (1, 1), "{record:?}");
        match &result {
            Ok(reply) => {
                assert_eq!(record.status(), Some(reply.status));
                assert!(reply.cache_status.is_none_or(|said| said == record.cache_status()), "{reply:?}");
            }
            Err(Failure) => assert_eq!((record.status(), record.outcome()), (None, Outcome::Failed)),
        }
        #[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
        self.places.look().await.expect_outcome(&seen, record.outcome());
        Asked { record, foreseen }
    }

    /// In a span by which its events are told from those of others.
    fn call(&self, request: Request<Body>) -> impl Future<Output = Result<Reply, Failure>> + use<> {
        let call = self.service.clone().oneshot(request);
        #[cfg(feature = "tracing")]
        let call = ::tracing::Instrument::instrument(call, ::tracing::info_span!("asked"));
        call
    }

    async fn get(&self, path: &str) -> Asked {
        self.ask(request("GET", path, &[])).await
    }

    async fn get_with(&self, path: &str, field: (&str, &str)) -> Asked {
        self.ask(request("GET", path, &[field])).await
    }

    /// A request that is never answered.
    async fn hold(&self, path: &str) {
        self.held.lock().unwrap().spawn(self.service.clone().oneshot(request("GET", path, &[])));
        settle().await;
    }
}

type Builder = ReadThroughBuilder<MemoryStore>;

fn stack(origin: ScriptedOrigin, change: impl FnOnce(Builder) -> Builder) -> Cache {
    let watch = Arc::new(Watch::default());
    let builder = ReadThroughLayer::builder(small_store()).lookup(|lookup| lookup.request_directives(true));
    let layer = change(builder).observer(Arc::clone(&watch)).build().unwrap();
    Cache::of(layer, watch, origin)
}

fn keyed(origin: ScriptedOrigin, rules: KeyRules) -> Cache {
    let watch = Arc::new(Watch::default());
    let layer =
        ReadThroughLayer::builder(small_store()).key(rules).observer(Arc::clone(&watch)).build().unwrap();
    Cache::of(layer, watch, origin)
}

fn always(answer: impl Fn() -> ScriptedResponse + Send + Sync + 'static) -> Cache {
    stack(ScriptedOrigin::always(answer), |builder| builder)
}

/// Fresh for ten seconds at first, and then this.
fn then(answer: fn() -> ScriptedResponse, rules: Rules) -> Cache {
    let script = move |n: usize, _: &Parts| if n == 1 { ok("x").max_age(10) } else { answer() };
    stack(ScriptedOrigin::new(script), |builder| builder.rules(rules))
}

/// A stack over an origin of which `/stale` is stored and stale, and which is down.
async fn down(answer: fn() -> ScriptedResponse, health: OriginHealth) -> Cache {
    let script = move |n: usize, _: &Parts| if n == 1 { ok("x").max_age(10) } else { answer() };
    let cache = stack(ScriptedOrigin::new(script), |builder| {
        builder.outage(health.clone()).origin_limit(OriginLimitLayer::new(64))
    });
    cache.get("/stale").await;
    for key in 0..30 {
        cache.get(&format!("/{key}")).await;
        tokio::time::advance(ms(400)).await;
    }
    assert_eq!(health.state(), OriginState::Down);
    cache
}

/// A store over a limit, without a layer that serves what is stale.
fn without_fallback(
    script: impl Fn(usize, &Parts) -> ScriptedResponse + Send + Sync + 'static,
    limit: &OriginLimitLayer,
) -> Cache {
    let (watch, stats) = (Arc::new(Watch::default()), Stats::new());
    let layer = StoreLayer::new(small_store())
        .rules(Rules::new().stale_if_error_for(secs(3_600)))
        .observer(Arc::clone(&watch))
        .counted_by(&stats);
    let service = layer.layer(limit.layer(ScriptedOrigin::new(script)));
    Cache::new(boxed(service), watch, stats)
}

/// After the first probe has brought a response.
async fn recovering() -> Cache {
    let script = |n: usize, head: &Parts| match (n, head.uri.path()) {
        (1 | 2, _) => ok("x").max_age(10),
        (3..=32, _) => status(503),
        (_, "/probe") => ok("y").max_age(10),
        _ => hangs(),
    };
    let health = OriginHealth::new();
    let cache = stack(ScriptedOrigin::new(script), |builder| {
        builder.outage(health.clone()).origin_limit(OriginLimitLayer::new(64))
    });
    for path in ["/probe", "/stale"] {
        cache.get(path).await;
    }
    for key in 0..30 {
        cache.get(&format!("/{key}")).await;
        tokio::time::advance(ms(400)).await;
    }
    cache.get("/probe").await;
    settle().await;
    assert_eq!(health.state(), OriginState::Recovering);
    // They take all that the recovery allows.
    for key in 0..10 {
        cache.hold(&format!("/held/{key}")).await;
    }
    cache
}

type Case = (Outcome, Pin<Box<dyn Future<Output = Asked>>>);

fn case(outcome: Outcome, run: impl Future<Output = Asked> + 'static) -> Case {
    (outcome, Box::pin(run))
}

fn served() -> Vec<Case> {
    let usable = || Rules::new().stale_while_revalidate_for(secs(60));
    vec![
        case(Outcome::Hit, async {
            let cache = always(|| ok("x").max_age(60));
            cache.get("/").await;
            cache.get("/").await
        }),
        case(Outcome::Stale(Stale::WhileRevalidating), async move {
            let cache = then(hangs, usable());
            cache.get("/").await;
            tokio::time::advance(secs(11)).await;
            cache.get("/").await
        }),
        case(Outcome::Stale(Stale::IfError), async {
            let cache = then(|| status(503), Rules::new().stale_if_error_for(secs(60)));
            cache.get("/").await;
            tokio::time::advance(secs(11)).await;
            let record = cache.get("/").await;
            assert_eq!(record.origin_status(), Some(StatusCode::SERVICE_UNAVAILABLE));
            record
        }),
        case(Outcome::Stale(Stale::OriginFailed), async {
            let cache = then(|| status(503), Rules::new().stale_if_error_for(secs(60)));
            cache.get("/").await;
            tokio::time::advance(secs(11)).await;
            cache.get("/").await;
            cache.get("/").await
        }),
        case(Outcome::Stale(Stale::OriginDown), async {
            let cache = down(|| status(503), OriginHealth::new()).await;
            // The first one carries a probe.
            cache.get("/stale").await;
            cache.get("/stale").await
        }),
        case(Outcome::Stale(Stale::OriginRecovering), async {
            let cache = recovering().await;
            cache.get("/stale").await
        }),
        case(Outcome::Stale(Stale::OriginBusy), async {
            let script = |n: usize, _: &Parts| if n <= 2 { ok("x").max_age(10) } else { status(429) };
            let cache = stack(ScriptedOrigin::new(script), |builder| builder);
            cache.get("/one").await;
            cache.get("/two").await;
            tokio::time::advance(secs(11)).await;
            cache.get("/one").await;
            cache.get("/two").await
        }),
        case(Outcome::Stale(Stale::OriginSlow), async {
            let script = |n: usize, _: &Parts| if n == 1 { ok("x").max_age(10) } else { hangs() };
            let cache = stack(ScriptedOrigin::new(script), |builder| {
                builder.coalesce(|coalesce| coalesce.stale_after(ms(50)))
            });
            cache.get("/").await;
            tokio::time::advance(secs(11)).await;
            cache.get("/").await
        }),
        case(Outcome::Stale(Stale::AsRequested), async {
            let cache = always(|| ok("x").max_age(10));
            cache.get("/").await;
            tokio::time::advance(secs(11)).await;
            cache.get_with("/", ("cache-control", "max-stale=60")).await
        }),
        case(Outcome::Failed, async { always(error).get("/").await }),
    ]
}

fn forwarded() -> Vec<Case> {
    let by = Outcome::Forwarded;
    vec![
        case(by(Forward::UriMiss), async { always(|| ok("x").max_age(60)).get("/").await }),
        case(by(Forward::VaryMiss), async {
            let cache = always(|| ok("x").max_age(60).header("vary", "accept-language"));
            cache.get_with("/", ("accept-language", "de")).await;
            cache.get_with("/", ("accept-language", "en")).await
        }),
        // No layer has looked.
        case(by(Forward::Miss), async {
            let (watch, stats) = (Arc::new(Watch::default()), Stats::new());
            let fill = FillLayer::new(small_store()).observer(Arc::clone(&watch)).counted_by(&stats);
            let service =
                KeyLayer::default().layer(fill.layer(ScriptedOrigin::always(|| ok("x").max_age(60))));
            Cache::new(boxed(service), watch, stats).get("/").await
        }),
        case(by(Forward::Stale), async {
            let cache = always(|| ok("x").max_age(10).header("etag", "\"1\""));
            cache.get("/").await;
            tokio::time::advance(secs(11)).await;
            cache.get("/").await
        }),
        case(by(Forward::Partial), async {
            let part = || status(206).chunk("he").header("content-range", "bytes 0-1/5").max_age(60);
            let cache = stack(
                ScriptedOrigin::new(
                    move |n, _| if n == 1 { part().header("etag", "\"1\"") } else { ok("hello") },
                ),
                |builder| builder,
            );
            cache.get_with("/", ("range", "bytes=0-1")).await;
            cache.get("/").await
        }),
        case(by(Forward::Bypass), async {
            let cache = always(|| ok("x").header("cache-control", "no-store"));
            cache.get("/").await;
            cache.get("/").await
        }),
        case(by(Forward::Request), async {
            let cache = always(|| ok("x").max_age(60));
            cache.get("/").await;
            cache.get_with("/", ("cache-control", "no-cache")).await
        }),
    ]
}

fn refused() -> Vec<Case> {
    let by = Outcome::Refused;
    let limited = |queue: usize| {
        let limit = OriginLimitLayer::new(1).max_queue(queue).max_queue_wait(ms(10));
        stack(ScriptedOrigin::always(hangs), |builder| builder.origin_limit(limit))
    };
    vec![
        case(by(Refused::QueueFull), async move {
            let cache = limited(0);
            cache.hold("/held").await;
            cache.get("/").await
        }),
        case(by(Refused::QueueTimeout), async move {
            let cache = limited(1);
            cache.hold("/held").await;
            cache.get("/").await
        }),
        case(by(Refused::TooManyWaiters), async {
            let cache = stack(ScriptedOrigin::always(hangs), |builder| {
                builder.coalesce(|coalesce| coalesce.max_waiters(1))
            });
            cache.hold("/").await;
            cache.hold("/").await;
            cache.get("/").await
        }),
        case(by(Refused::WaitTimeout), async {
            let cache = stack(ScriptedOrigin::always(hangs), |builder| {
                builder.coalesce(|coalesce| coalesce.wait_at_most(secs(1)))
            });
            cache.get("/").await
        }),
        case(by(Refused::OriginDown), async {
            let health = OriginHealth::builder().fail_fast(true).build().unwrap();
            let cache = down(|| status(503), health).await;
            cache.get("/nothing").await;
            let record = cache.get("/nothing").await;
            assert_eq!(record.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
            record
        }),
        case(by(Refused::OriginRecovering), async {
            let health = OriginHealth::new();
            let script = |n: usize, head: &Parts| match (n, head.uri.path()) {
                (1, _) | (_, "/back") => ok("x").max_age(10),
                (2..=31, _) => status(503),
                _ => hangs(),
            };
            let cache = without_fallback(script, &OriginLimitLayer::new(64).health(health.clone()));
            cache.get("/stale").await;
            for key in 0..30 {
                cache.get(&format!("/{key}")).await;
                tokio::time::advance(ms(400)).await;
            }
            cache.get("/back").await;
            assert_eq!(health.state(), OriginState::Recovering);
            for key in 0..10 {
                cache.hold(&format!("/held/{key}")).await;
            }
            cache.get("/stale").await
        }),
        case(by(Refused::OriginBusy), async {
            let script = |n: usize, _: &Parts| if n <= 2 { ok("x").max_age(10) } else { status(429) };
            let cache = without_fallback(script, &OriginLimitLayer::unlimited());
            cache.get("/one").await;
            cache.get("/two").await;
            tokio::time::advance(secs(11)).await;
            cache.get("/one").await;
            cache.get("/two").await
        }),
        case(by(Refused::AttemptTimeout), async {
            let script = |n: usize, _: &Parts| if n <= 31 { status(503) } else { hangs() };
            let health = OriginHealth::new();
            let cache = stack(ScriptedOrigin::new(script), |builder| {
                builder.outage(health.clone()).origin_limit(OriginLimitLayer::new(64))
            });
            for key in 0..31 {
                cache.get(&format!("/{key}")).await;
                tokio::time::advance(ms(100)).await;
            }
            assert_eq!(health.state(), OriginState::Down);
            cache.get("/nothing").await
        }),
        case(by(Refused::FetchTimeout), async {
            let cache = stack(ScriptedOrigin::always(hangs), |builder| {
                builder.coalesce(|coalesce| coalesce.fetch_deadline(secs(1)))
            });
            cache.get("/").await
        }),
        case(by(Refused::FetchAborted), async {
            let cache = stack(ScriptedOrigin::always(hangs), |builder| {
                builder.coalesce(|coalesce| coalesce.executor(drop))
            });
            cache.get("/").await
        }),
        case(by(Refused::NotStored), async {
            always(|| ok("x")).get_with("/", ("cache-control", "only-if-cached")).await
        }),
    ]
}

fn unkeyed() -> Vec<Case> {
    let bare = |fields: &[(&str, &str)]| {
        let (mut head, body) = request("GET", "/", fields).into_parts();
        head.uri = http::Uri::from_static("/");
        Request::from_parts(head, body)
    };
    let rules = || {
        let bot = When::new().headers(["user-agent: *bot*"]);
        let rules = KeyRules::builder()
            .rule(KeyRule::path("/account/{*rest}").bypass())
            .rule(KeyRule::path("/report/{id}").extensions(["tenant"]))
            .rule(KeyRule::path("/bots/{id}").when(bot).cookies([]))
            .rule(KeyRule::path("/a/{id}").ignore_query(["utm_*"]))
            .extension("tenant", |tenant: &u8| Some(std::slice::from_ref(tenant).into()));
        rules.guard(Guard::new()).build().unwrap()
    };
    let requests = vec![
        (Unkeyed::NoHost, bare(&[])),
        (Unkeyed::UnusableHost, bare(&[("host", "a b")])),
        (Unkeyed::RuleBypass, request("GET", "/account/7", &[])),
        (Unkeyed::AmbiguousPath, request("GET", "/x/..%2faccount/7", &[])),
        (Unkeyed::AmbiguousCondition, request("GET", "/bots/7", &[("user_agent", "a bot")])),
        (Unkeyed::MissingExtension, request("GET", "/report/7", &[])),
        (Unkeyed::Body, request("GET", "/", &[]).map(|_| Body::from("body"))),
        (Unkeyed::Upgrade, request("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")])),
        (Unkeyed::MethodOverride, request("GET", "/", &[("x-http-method-override", "DELETE")])),
    ];
    let mut cases: Vec<_> = requests
        .into_iter()
        .map(|(why, request)| {
            let cache = keyed(ScriptedOrigin::always(|| ok("x")), rules());
            case(Outcome::Unkeyed(why), async move { cache.ask(request).await })
        })
        .collect();
    cases.push(case(Outcome::Unkeyed(Unkeyed::NoKey), async {
        let watch = Arc::new(Watch::default());
        let layer = ReadThroughLayer::builder(small_store()).key(|_: &Parts| None::<CacheKey>);
        let layer = layer.observer(Arc::clone(&watch)).build().unwrap();
        Cache::of(layer, watch, ScriptedOrigin::always(|| ok("x"))).get("/").await
    }));
    cases
}

/// Whether it is known before the fetch, by the head alone. Of refusals only that is foreseen which the request itself
/// demands: limits are those of the moment.
fn is_foreseeable(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Hit | Outcome::Forwarded(_) => true,
        Outcome::Unkeyed(why) => why != Unkeyed::Body,
        Outcome::Stale(why) => why.known() == Known::BeforeFetch,
        Outcome::Refused(why) => why == Refused::NotStored,
        _ => false,
    }
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_told_once_at_each_place() {
    let mut seen = HashSet::new();
    for (outcome, run) in served().into_iter().chain(forwarded()).chain(refused()).chain(unkeyed()) {
        let Asked { record, foreseen } = run.await;
        assert_eq!(record.outcome(), outcome, "{record:?}");
        if let Some(foreseen) = foreseen.filter(|_| is_foreseeable(outcome)) {
            assert_eq!(foreseen.outcome(), Some(outcome), "{foreseen}");
        }
        seen.insert(outcome);
    }
    // A reason without a case of its own fails here.
    let all = [Outcome::Hit, Outcome::Failed].into_iter();
    let all = all.chain(Stale::ALL.iter().copied().map(Outcome::Stale));
    let all = all.chain(Forward::ALL.iter().copied().map(Outcome::Forwarded));
    let all = all.chain(Refused::ALL.iter().copied().map(Outcome::Refused));
    let all = all.chain(Unkeyed::ALL.iter().copied().map(Outcome::Unkeyed));
    let missing: Vec<_> = all.filter(|outcome| !seen.contains(outcome)).collect();
    assert_eq!(missing, []);
}

type LostCase = (Lost, Pin<Box<dyn Future<Output = (Asked, StatsSnapshot)>>>);

/// A response that is stored and fresh, and that this makes unusable.
fn lost_by(why: Lost, lose: fn(&Purge)) -> LostCase {
    let run = async move {
        let watch = Arc::new(Watch::default());
        let layer = ReadThroughLayer::builder(small_store()).observer(Arc::clone(&watch)).build().unwrap();
        let purge = layer.purge();
        let cache = Cache::of(layer, watch, ScriptedOrigin::always(|| ok("x").max_age(60)));
        cache.get("/").await;
        lose(&purge);
        if why == Lost::Invalidated {
            cache.call(request("POST", "/", &[])).await.unwrap();
        }
        let before = cache.stats.snapshot();
        #[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
        let seen = cache.places.look().await;
        let reply = cache.call(request("GET", "/", &[])).await.unwrap();
        let record = *cache.watch.records.lock().unwrap().last().unwrap();
        assert_eq!(reply.cache_status, Some(record.cache_status()));
        assert_eq!(reply.cache(), format!("fwd=stale; detail={why}"));
        #[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
        cache.places.look().await.expect_lost(&seen, why);
        let counts = cache.stats.snapshot().since(&before);
        // And what would become of the next one.
        lose(&purge);
        if why == Lost::Invalidated {
            cache.call(request("POST", "/", &[])).await.unwrap();
        }
        let head = request("GET", "/", &[]).into_parts().0;
        let foreseen = cache.explain.as_ref().map(|explain| explain(&head));
        (Asked { record, foreseen }, counts)
    };
    (why, Box::pin(run))
}

fn lost() -> Vec<LostCase> {
    vec![
        lost_by(Lost::Purged, |purge| _ = purge.everything()),
        lost_by(Lost::Purged, |purge| _ = purge.soft().everything()),
        lost_by(Lost::Invalidated, |_| {}),
        lost_by(Lost::Unproven, |purge| _ = purge.unproven().everything()),
        #[cfg(feature = "redis")]
        lost_by(Lost::CutOff, |purge| {
            use tower_readthrough::cluster::{Cluster, WhenCutOff};
            // A node that has never reached the server has heard of nothing. Dropped, it is in the cluster all the
            // same.
            let limit = WhenCutOff::ValidateAfter(secs(3));
            drop(Cluster::builder("redis://127.0.0.1:1/", purge.clone()).when_cut_off(limit).open());
        }),
    ]
}

/// Why a response that is stored was not used, at each place where the request is seen.
#[tokio::test(start_paused = true)]
async fn every_reason_why_a_stored_response_cannot_be_used_is_told_at_each_place() {
    let mut seen = HashSet::new();
    for (why, run) in lost() {
        let (Asked { record, foreseen }, counts) = run.await;
        let status = record.cache_status();
        assert_eq!((status.lost_reason(), status.detail()), (Some(why), Some(why.as_str())));
        assert_eq!((counts.lost.get(why), counts.lost.total()), (1, 1), "{why}: {:?}", counts.lost);
        assert_eq!(foreseen.unwrap().detail(), Some(why.as_str()));
        seen.insert(why);
    }
    let is_here = |why: &&Lost| cfg!(feature = "redis") || **why != Lost::CutOff;
    let missing: Vec<_> = Lost::ALL.iter().filter(is_here).filter(|why| !seen.contains(why)).collect();
    assert_eq!(missing, Vec::<&Lost>::new());
}

/// Also of what is served all the same, and where the origin gave no response, with an observer or without.
#[tokio::test(start_paused = true)]
async fn what_made_a_response_stale_is_counted_whatever_was_served_instead() {
    type Origin = fn() -> ScriptedOrigin;
    let lost_after = async |rules: Rules, origin: Origin, lose: fn(&Purge)| {
        let plain = ReadThroughLayer::builder(small_store()).rules(rules.clone()).build().unwrap();
        let seen = ReadThroughLayer::builder(small_store()).rules(rules).observer(()).build().unwrap();
        let mut outcomes = Vec::new();
        for layer in [plain, seen] {
            let service = layer.layer(origin());
            get(&service, "/").await;
            lose(&layer.purge());
            let reply = boxed(service).oneshot(request("GET", "/", &[])).await;
            let status = reply.ok().and_then(|reply| reply.cache_status);
            let counts = layer.stats().snapshot().lost;
            assert_eq!(counts.total(), 1, "{status:?}");
            outcomes.push((status.map(|status| status.to_string()), counts));
        }
        assert_eq!(outcomes[0], outcomes[1]);
        let (status, counts) = outcomes.remove(0);
        (status, Lost::ALL.iter().copied().find(|why| counts.get(*why) == 1))
    };
    let soft: fn(&Purge) = |purge| _ = purge.soft().everything();
    let hard: fn(&Purge) = |purge| _ = purge.everything();
    let unproven: fn(&Purge) = |purge| _ = purge.unproven().everything();
    let good: Origin = || ScriptedOrigin::always(|| ok("x").max_age(60));
    let once: Origin =
        || ScriptedOrigin::new(|call, _| if call == 1 { ok("x").max_age(60) } else { error() });
    let (plain, no_stale) = (Rules::new(), Rules::new().stale_if_error_for(ms(0)));
    let revalidating = plain.clone().stale_while_revalidate_for(secs(60));
    let told = |status: &str, why| (Some(status.to_owned()), Some(why));
    assert_eq!(
        lost_after(revalidating, good, soft).await,
        told("hit; detail=stale-while-revalidate", Lost::Purged)
    );
    assert_eq!(
        lost_after(plain, once, unproven).await,
        told("fwd=stale; detail=stale-if-error", Lost::Unproven)
    );
    assert_eq!(lost_after(no_stale, once, hard).await, (None, Some(Lost::Purged)));
}

/// A response that is for one client alone, and the request for it.
type Own = (NotStored, Cache, Request<Body>);

fn unshareable() -> Vec<Own> {
    let plain = || request("GET", "/", &[]);
    let with = |field| request("GET", "/", &[field]);
    let said = |name, value: &'static str| always(move || ok("x").header(name, value));
    let ours = |answer: fn() -> ScriptedResponse| {
        stack(ScriptedOrigin::always(answer), |builder| builder.rules(Rules::new().default_ttl(secs(60))))
    };
    let never = |builder: Builder| builder.rules(Rules::new().never_store());
    let parts = || status(206).chunk("01").header("content-type", "multipart/byteranges; boundary=x");
    vec![
        (NotStored::NoStore, said("cache-control", "no-store"), plain()),
        (NotStored::Private, said("cache-control", "private, max-age=60"), plain()),
        (NotStored::SetCookie, always(|| ok("x").max_age(60).header("set-cookie", "a=b")), plain()),
        (NotStored::Authorization, always(|| ok("x").max_age(60)), with(("authorization", "Basic x"))),
        (NotStored::Cookie, ours(|| ok("x")), with(("cookie", "a=b"))),
        (NotStored::Token, ours(|| ok("x")), with(("x-api-key", "secret"))),
        (NotStored::VaryStar, always(|| ok("x").max_age(60).header("vary", "*")), plain()),
        (NotStored::NotFresh, always(|| ok("x")), plain()),
        (NotStored::Status, always(|| status(404)), plain()),
        (NotStored::Partial, always(parts), plain()),
        (NotStored::Framing, always(|| ok("x").max_age(60).header("content-length", "")), plain()),
        (NotStored::Stream, ours(|| ok("x").header("content-type", "text/event-stream")), plain()),
        (NotStored::Policy, stack(ScriptedOrigin::always(|| ok("x").max_age(60)), never), plain()),
        (
            NotStored::TooManyTags,
            always(|| ok("x").max_age(60).header("surrogate-key", many_tags())),
            plain(),
        ),
        (NotStored::Failure, always(|| status(503)), plain()),
        (NotStored::Method, always(|| ok("x").max_age(60)), request("HEAD", "/", &[])),
    ]
}

fn many_tags() -> String {
    (0..5_000).map(|n| format!("t{n} ")).collect()
}

/// What is known when the head is there.
async fn with_head() -> Vec<Told> {
    let mut told = Vec::new();
    for (why, cache, request) in unshareable() {
        told.push(Told::by(why, &cache, request).await);
    }
    // What the first response left out of the key the second one does not.
    let script = |n: usize, _: &Parts| {
        ok("x").max_age(60).header("no-vary-search", if n == 1 { "params" } else { "?" })
    };
    let rules = KeyRules::builder().rule(KeyRule::path("/{*rest}").no_vary_search()).build().unwrap();
    let cache = keyed(ScriptedOrigin::new(script), rules);
    cache.get("/a?id=0").await;
    tokio::time::advance(secs(61)).await;
    told.push(Told::by(NotStored::NoVarySearch, &cache, request("GET", "/a?id=1", &[])).await);
    told
}

/// A response that is over long before its body is.
fn slow_body() -> ScriptedResponse {
    let (sender, body) = Body::fed();
    tokio::spawn(async move {
        tokio::time::sleep(secs(7_200)).await;
        sender.send("x");
    });
    response(&[("cache-control", "max-age=1")], body)
}

/// What is known when the body is over.
async fn after_body() -> Vec<Told> {
    let plain = || request("GET", "/", &[]);
    let mut told = Vec::new();
    for (why, cache) in [
        (NotStored::Incomplete, always(|| ok("x").max_age(60).cut())),
        (NotStored::TooLarge, always(|| ok(vec![b'x'; 2 << 20]).max_age(60))),
        (NotStored::Expired, always(slow_body)),
    ] {
        told.push(Told::by(why, &cache, plain()).await);
    }
    let watch = Arc::new(Watch::default());
    let layer = ReadThroughLayer::builder(small_store()).observer(Arc::clone(&watch)).build().unwrap();
    let purge = layer.purge();
    let origin = ScriptedOrigin::new(move |_, _| {
        let (sender, body) = Body::fed();
        let purge = purge.clone();
        tokio::spawn(async move {
            tokio::time::sleep(secs(1)).await;
            purge.everything();
            sender.send("x");
        });
        response(&[("cache-control", "max-age=60")], body)
    });
    let purged = Cache::of(layer, watch, origin);
    told.push(Told::by(NotStored::PurgedMeanwhile, &purged, plain()).await);
    told.push(outdated().await);
    let (watch, stats) = (Arc::new(Watch::default()), Stats::new());
    let layer = StoreLayer::new(KeepsNothing::default()).observer(Arc::clone(&watch)).counted_by(&stats);
    let service = boxed(layer.layer(ScriptedOrigin::always(|| ok("x").max_age(60))));
    told.push(Told::by(NotStored::StoreRefused, &Cache::new(service, watch, stats), plain()).await);
    told
}

/// A response that comes after one that was asked for later.
async fn outdated() -> Told {
    let script = |n: usize, _: &Parts| {
        let response = ok("x").max_age(60);
        if n == 1 { response.after(secs(10)) } else { response }
    };
    let (watch, stats) = (Arc::new(Watch::default()), Stats::new());
    let layer = StoreLayer::new(small_store()).observer(Arc::clone(&watch)).counted_by(&stats);
    let cache = Cache::new(boxed(layer.layer(ScriptedOrigin::new(script))), watch, stats);
    let slow = tokio::spawn(cache.service.clone().oneshot(request("GET", "/", &[])));
    settle().await;
    cache.get("/").await;
    let (stats, applied) = (cache.stats.snapshot(), cache.watch.applied().len());
    let reply = slow.await.unwrap().unwrap();
    settle().await;
    let record = *cache.watch.records.lock().unwrap().last().unwrap();
    let (counts, applied) = (cache.stats.snapshot().since(&stats), cache.watch.applied().split_off(applied));
    Told { why: NotStored::Outdated, record, counts, applied, field: reply.cache() }
}

/// A store that keeps nothing, and does not say why.
#[derive(Clone, Default)]
struct KeepsNothing(Arc<Sequence>);

impl Store for KeepsNothing {
    fn get(&self, _: &[u8]) -> Option<Arc<Entry>> {
        None
    }

    fn apply(&self, _: &CacheKey, _: Change) -> Applied {
        Applied::Unchanged
    }

    fn sequence(&self) -> &Arc<Sequence> {
        &self.0
    }

    fn max_response_bytes(&self) -> usize {
        10_000
    }
}

/// All that is said of a response that is not stored.
struct Told {
    why: NotStored,
    record: Record,
    counts: StatsSnapshot,
    applied: Vec<Applied>,
    field: String,
}

impl Told {
    async fn by(why: NotStored, cache: &Cache, request: Request<Body>) -> Self {
        #[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
        let seen = cache.places.look().await;
        let (stats, applied) = (cache.stats.snapshot(), cache.watch.applied().len());
        let reply = cache.call(request).await.unwrap();
        settle().await;
        let record = *cache.watch.records.lock().unwrap().last().unwrap();
        let counts = cache.stats.snapshot().since(&stats);
        #[cfg(all(feature = "dashboard", feature = "metrics", feature = "tracing"))]
        cache.places.look().await.expect_not_stored(&seen, why);
        Self { why, record, counts, applied: cache.watch.applied().split_off(applied), field: reply.cache() }
    }
}

/// Each reason, at each place where it can be told by then.
#[tokio::test(start_paused = true)]
async fn every_reason_why_a_response_is_not_stored_is_told_where_it_can_be() {
    let mut seen = HashSet::new();
    for told in with_head().await.into_iter().chain(after_body().await) {
        let Told { why, record, counts, applied, field } = told;
        seen.insert(why);
        assert_eq!(counts.not_stored.get(why), 1, "{why}: {counts:?}");
        assert_eq!((counts.not_stored.total(), counts.stored), (1, 0), "{why}: {counts:?}");
        assert_eq!(applied, [Applied::NotStored(why)]);
        let is_known_with_head = why.known() <= Known::WithHead;
        assert_eq!(record.not_stored_reason(), is_known_with_head.then_some(why), "{why}: {record:?}");
        assert_eq!(record.is_stored(), !is_known_with_head, "{why}: it was to be stored");
        // What the method or the status says is not repeated.
        let is_in_field = is_known_with_head && !matches!(why, NotStored::Method | NotStored::Failure);
        assert_eq!(field.ends_with(&format!("detail={why}")), is_in_field, "{why}: {field}");
    }
    let missing: Vec<_> = NotStored::ALL.iter().filter(|why| !seen.contains(why)).collect();
    assert_eq!(missing, Vec::<&NotStored>::new());
}

#[tokio::test(start_paused = true)]
async fn a_shared_fetch_is_told_of_its_leader_and_of_each_follower() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).after(ms(10)));
    let cache = stack(origin.clone(), |builder| builder.retry(RetryPolicy::new()));
    let ask = || cache.service.clone().oneshot(request("GET", "/", &[]));
    let (first, second, third) = tokio::join!(ask(), ask(), ask());
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    let mut records = cache.watch.records.lock().unwrap().clone();
    records.sort_by_key(|record| record.role() == Role::Follower);
    let told: Vec<_> = records.iter().map(|record| (record.role(), record.attempts())).collect();
    assert_eq!(told, [(Role::Leader, Some(1)), (Role::Follower, None), (Role::Follower, None)]);
    assert_eq!(origin.calls(), 1);
    drop(records);
    let alone = always(|| ok("x").header("cache-control", "no-store")).get("/").await;
    assert_eq!(alone.role(), Role::Alone);
}

/// Each layer by itself tells what it returns, if no other one above it does.
#[tokio::test(start_paused = true)]
async fn layers_that_stand_alone_tell_each_response_once() {
    let script = |_: usize, head: &Parts| match head.uri.path() {
        "/error" => error(),
        _ => ok("x").max_age(60),
    };
    let origin = || ScriptedOrigin::new(script);
    let cache = |make: &dyn Fn(Arc<Watch>, &Stats) -> Boxed| {
        let (watch, stats) = (Arc::new(Watch::default()), Stats::new());
        Cache::new(make(Arc::clone(&watch), &stats), watch, stats)
    };
    let caches = [
        (
            "lookup",
            cache(&|watch, stats| {
                boxed(LookupLayer::new(small_store()).observer(watch).counted_by(stats).layer(origin()))
            }),
        ),
        (
            "store",
            cache(&|watch, stats| {
                boxed(StoreLayer::new(small_store()).observer(watch).counted_by(stats).layer(origin()))
            }),
        ),
        (
            "coalesce",
            cache(&|watch, stats| {
                boxed(CoalesceLayer::new().observer(watch).counted_by(stats).layer(origin()))
            }),
        ),
        (
            "stale if error",
            cache(&|watch, stats| {
                let layer = StaleIfErrorLayer::new(small_store()).observer(watch).counted_by(stats);
                boxed(layer.layer(origin()))
            }),
        ),
        (
            "fill",
            cache(&|watch, stats| {
                let fill = FillLayer::new(small_store()).observer(watch).counted_by(stats);
                boxed(KeyLayer::default().layer(fill.layer(origin())))
            }),
        ),
        (
            "without a lookup",
            cache(&|watch, stats| {
                let store = small_store();
                let layers = ServiceBuilder::new()
                    .layer(StaleIfErrorLayer::new(store.clone()))
                    .layer(CoalesceLayer::new().observer(Arc::clone(&watch)).counted_by(stats))
                    .layer(FillLayer::new(store).observer(watch).counted_by(stats));
                boxed(layers.service(origin()))
            }),
        ),
        (
            "by hand",
            cache(&|watch, stats| {
                let own = small_store();
                let stale_if_error = StaleIfErrorLayer::new(own.clone()).observer(Arc::clone(&watch));
                let layers = ServiceBuilder::new()
                    .layer(LookupLayer::new(own.clone()).observer(Arc::clone(&watch)).counted_by(stats))
                    .layer(stale_if_error.counted_by(stats))
                    .layer(CoalesceLayer::new().observer(Arc::clone(&watch)).counted_by(stats))
                    .layer(FillLayer::new(own).observer(watch).counted_by(stats));
                boxed(layers.service(origin()))
            }),
        ),
    ];
    for (name, cache) in caches {
        for path in ["/", "/", "/error"] {
            let record = cache.get(path).await;
            assert_eq!(record.outcome() == Outcome::Failed, path == "/error", "{name}");
        }
        let before = cache.watch.records.lock().unwrap().len();
        assert!(cache.service.clone().oneshot(request("POST", "/", &[])).await.is_ok());
        assert_eq!(cache.watch.records.lock().unwrap().len(), before, "{name}: other methods are not told");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_of_storing_is_told() {
    let cache = always(|| ok("x").max_age(60));
    cache.get("/").await;
    assert_eq!(cache.watch.applied(), [Applied::Stored]);
    cache.get("/").await;
    assert_eq!(cache.watch.applied().len(), 1, "a hit stores nothing");
    let cut = always(|| ok("x").max_age(60).cut());
    cut.get("/").await;
    settle().await;
    assert_eq!(cut.watch.applied(), [Applied::NotStored(NotStored::Incomplete)]);
    let large = always(|| ok(vec![b'x'; 2 << 20]).max_age(60));
    large.get("/").await;
    settle().await;
    assert_eq!(large.watch.applied(), [Applied::NotStored(NotStored::TooLarge)]);
    let watch = Arc::new(Watch::default());
    let layer = ReadThroughLayer::builder(small_store()).observer(Arc::clone(&watch)).build().unwrap();
    let purge = layer.purge();
    let origin = ScriptedOrigin::new(move |_, _| {
        purge.everything();
        ok("x").max_age(60)
    });
    let purged = Cache::of(layer, watch, origin);
    let record = purged.get("/").await.record;
    assert_eq!(purged.watch.applied(), [Applied::NotStored(NotStored::PurgedMeanwhile)]);
    // It was purged before its head was there.
    assert_eq!(record.not_stored_reason(), Some(NotStored::PurgedMeanwhile));
    assert_eq!(record.cache_status().to_string(), "fwd=uri-miss; detail=purged-meanwhile");
}

#[tokio::test(start_paused = true)]
async fn refreshes_are_told_with_their_results_and_not_as_responses() {
    let rows: [(fn() -> ScriptedResponse, RefreshResult); 4] = [
        (|| ok("y").max_age(10), RefreshResult::Responded(StatusCode::OK)),
        (error, RefreshResult::Failed),
        (hangs, RefreshResult::TimedOut),
        (panics, RefreshResult::Aborted),
    ];
    for (answer, result) in rows {
        let cache = then(answer, Rules::new().stale_while_revalidate_for(secs(600)));
        cache.get("/").await;
        tokio::time::advance(secs(11)).await;
        cache.get("/").await;
        tokio::time::sleep(secs(40)).await;
        assert_eq!(cache.watch.events(), ["began".to_owned(), format!("{result:?}")]);
        assert_eq!(cache.watch.records.lock().unwrap().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_changes_nothing() {
    struct Broken;
    impl Observer for Broken {
        fn finished(&self, _: &Record) {
            panic!("as the test wants it");
        }

        fn committed(&self, _: &CacheKey, _: Applied) {
            panic!("as the test wants it");
        }

        fn background(&self, _: BackgroundEvent<'_>) {
            panic!("as the test wants it");
        }
    }
    let origin = ScriptedOrigin::always(|| ok("x").max_age(10));
    let rules = Rules::new().stale_while_revalidate_for(secs(60));
    let layer = ReadThroughLayer::builder(small_store()).rules(rules).observer(Broken).build().unwrap();
    let service = boxed(layer.layer(origin.clone()));
    let ask = async || service.clone().oneshot(request("GET", "/", &[])).await.unwrap().cache();
    assert_eq!([ask().await, ask().await], ["fwd=uri-miss", "hit"]);
    tokio::time::advance(secs(11)).await;
    assert_eq!(ask().await, "hit; detail=stale-while-revalidate");
    settle().await;
    assert_eq!((ask().await, origin.calls()), ("hit".to_owned(), 2), "it was refreshed");
}

/// It holds up the request that it is told of, and the caller of no other one.
#[test]
fn an_observer_that_blocks_holds_up_no_other_request() {
    struct Slow(Barrier, AtomicBool);
    impl Slow {
        fn block_once(&self) {
            if !self.1.swap(true, Ordering::Relaxed) {
                // It is being told, and then goes on.
                self.0.wait();
                self.0.wait();
            }
        }
    }
    impl Observer for Slow {
        fn finished(&self, record: &Record) {
            if record.outcome() == Outcome::Hit {
                self.block_once();
            }
        }

        fn committed(&self, _: &CacheKey, applied: Applied) {
            if applied == Applied::NotStored(NotStored::NoStore) {
                self.block_once();
            }
        }
    }
    let script = |n: usize, head: &Parts| match head.uri.path() {
        "/own" if n == 2 => ok("x").header("cache-control", "no-store"),
        _ => ok("x").max_age(60),
    };
    for blocked in ["/", "/own"] {
        let observer = Arc::new(Slow(Barrier::new(2), AtomicBool::new(false)));
        let layer = ReadThroughLayer::builder(small_store()).observer(Arc::clone(&observer)).build().unwrap();
        let service = boxed(layer.layer(ScriptedOrigin::new(script)));
        let ask = |path: &'static str| {
            let service = service.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(service.oneshot(request("GET", path, &[]))).unwrap().cache()
            }
        };
        ask("/")();
        let held_up = std::thread::spawn(ask(blocked));
        observer.0.wait();
        // The same key and others, from the store and from the origin.
        assert_eq!((ask("/")(), ask("/other")()), ("hit".into(), "fwd=uri-miss".into()));
        layer.purge().url("http://example.com/").unwrap();
        assert!(!held_up.is_finished());
        observer.0.wait();
        held_up.join().unwrap();
    }
}
