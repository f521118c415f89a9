//! What a cache counts, and what it says of the present moment.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CoalesceLayer, FillLayer, Forward, KeyRule, KeyRules, LookupLayer, MemoryStore, NotStored, OriginHealth,
    OriginLimitLayer, OriginState, PurgeKind, ReadThroughLayer, RetryPolicy, Rules, Stats, StatsSnapshot,
};

use crate::support::{
    ScriptedOrigin, collect, error, get, get_with, hangs, ms, ok, request, secs, send, settle, small_store,
    status, try_send,
};

/// What was counted while something was done.
async fn during(stats: &Stats, run: impl AsyncFnOnce()) -> StatsSnapshot {
    let before = stats.snapshot();
    run().await;
    settle().await;
    stats.snapshot().since(&before)
}

#[tokio::test(start_paused = true)]
async fn a_response_is_stored_or_counted_with_a_reason_once_for_each_fetch() {
    let origin = ScriptedOrigin::new(|_, head| match head.uri.path() {
        "/private" => ok("x").header("cache-control", "private"),
        "/broken" => status(503),
        "/missing" => status(404),
        "/large" => ok(vec![b'x'; 2 << 20]).max_age(60),
        "/declared" => ok("x").max_age(60).declares(1 << 30),
        "/cut" => ok("x").max_age(60).cut(),
        _ => ok("x").max_age(60),
    });
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let (stats, service) = (layer.stats(), layer.layer(origin));
    let rows = [
        ("GET", "/private", Some(NotStored::Private)),
        ("GET", "/broken", Some(NotStored::Failure)),
        ("GET", "/missing", Some(NotStored::Status)),
        ("GET", "/large", Some(NotStored::TooLarge)),
        ("GET", "/declared", Some(NotStored::TooLarge)),
        ("GET", "/cut", Some(NotStored::Incomplete)),
        ("HEAD", "/head", Some(NotStored::Method)),
        ("GET", "/", None),
    ];
    for (method, path, why) in rows {
        let counts =
            during(&stats, async || drop(try_send(&service, request(method, path, &[])).await)).await;
        let not_stored = counts.not_stored.iter().find(|(_, count)| *count > 0).map(|(why, _)| why);
        assert_eq!((not_stored, counts.not_stored.total() + counts.stored), (why, 1), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_share_a_fetch_are_counted_as_collapsed_and_their_fetch_once() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).after(ms(100)));
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let (stats, service) = (layer.stats(), layer.layer(origin.clone()));
    let ask = || tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
    let asked = [ask(), ask(), ask()];
    settle().await;
    let now = stats.snapshot();
    assert_eq!(now.coalesce.map(|now| (now.fetches, now.waiters)), Some((1, 2)));
    assert_eq!(now.origins.iter().map(|origin| origin.under_way).sum::<usize>(), 1);
    assert_eq!(now.requests(), 0, "nothing is handed on yet");
    for response in asked {
        collect(response.await.unwrap().unwrap()).await;
    }
    settle().await;
    let after = stats.snapshot();
    assert_eq!(after.coalesce.map(|now| (now.fetches, now.waiters)), Some((0, 0)));
    assert_eq!((after.forwarded.get(Forward::UriMiss), after.collapsed, after.stored), (3, 2, 1));
    let [only] = &after.origins[..] else { panic!("{after:?}") };
    assert_eq!((only.attempts, only.under_way, only.failures, origin.calls()), (1, 0, 0, 1));
    assert_eq!((only.latency.count(), only.latency.sum()), (1, ms(100)));
    assert_eq!(only.latency.buckets()[4], 1, "100 ms or less");
}

#[tokio::test(start_paused = true)]
async fn the_attempts_of_each_origin_are_counted_with_what_became_of_them() {
    let origin = ScriptedOrigin::new(|_, head| match head.uri.path() {
        "/fails/a" => status(500),
        "/fails/b" => error(),
        "/fails/c" => status(429),
        _ => ok("x").max_age(60),
    });
    let health = OriginHealth::builder()
        .origin(|head| if head.uri.path().starts_with("/fails") { "a" } else { "b" }.into())
        .build()
        .unwrap();
    let layer = ReadThroughLayer::builder(small_store()).outage(health).build().unwrap();
    let (stats, service) = (layer.stats(), layer.layer(origin));
    for path in ["/fails/a", "/fails/b", "/fails/c", "/well"] {
        _ = try_send(&service, request("GET", path, &[])).await;
    }
    let seen = stats.snapshot();
    let of = |name: &str| seen.origins.iter().find(|origin| &*origin.name == name).unwrap();
    assert_eq!((of("a").attempts, of("a").failures, of("a").too_many), (3, 2, 1));
    assert_eq!((of("b").attempts, of("b").failures, of("b").state), (1, 0, OriginState::Up));
    let later = stats.snapshot().since(&seen);
    assert!(later.origins.iter().all(|origin| (origin.attempts, origin.latency.count()) == (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_queue_to_the_origin_and_its_permits_are_told() {
    let open = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&open);
    let origin = ScriptedOrigin::with_future(move |_, _| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            ok("x").max_age(60)
        }
    });
    let limit = OriginLimitLayer::new(1).max_queue_wait(secs(60));
    let layer = ReadThroughLayer::builder(small_store()).origin_limit(limit).build().unwrap();
    let (stats, service) = (layer.stats(), layer.layer(origin));
    let ask = |path| tokio::spawn(service.clone().oneshot(request("GET", path, &[])));
    let asked = [ask("/1"), ask("/2"), ask("/3")];
    settle().await;
    let gauges = |stats: &Stats| {
        let seen = stats.snapshot();
        let [only] = &seen.origins[..] else { panic!("{seen:?}") };
        (only.under_way, only.waiting, only.permits_in_use, only.permits)
    };
    assert_eq!(gauges(&stats), (1, 2, 1, Some(1)));
    open.add_permits(3);
    for response in asked {
        collect(response.await.unwrap().unwrap()).await;
    }
    settle().await;
    assert_eq!(gauges(&stats), (0, 0, 0, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn refreshes_and_retries_are_counted_with_their_results() {
    let origin = ScriptedOrigin::new(|n, _| match n {
        1 => ok("x").max_age(10),
        2 => status(503),
        3 => ok("y").max_age(10),
        4 => error(),
        _ => hangs(),
    });
    let rules = Rules::new().stale_while_revalidate_for(secs(3_600));
    let retry = RetryPolicy::new().max_retries(1).despite_stale(true);
    let layer = ReadThroughLayer::builder(small_store()).rules(rules).retry(retry).build().unwrap();
    let (stats, service) = (layer.stats(), layer.layer(origin));
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    let counts = during(&stats, async || {
        get(&service, "/").await;
        tokio::time::sleep(secs(5)).await;
    });
    let counts = counts.await;
    assert_eq!((counts.refreshes.begun, counts.refreshes.responded, counts.retries), (1, 1, 1));
    tokio::time::advance(secs(11)).await;
    let counts = during(&stats, async || {
        get(&service, "/").await;
        tokio::time::sleep(secs(60)).await;
    });
    let counts = counts.await;
    assert_eq!((counts.refreshes.begun, counts.refreshes.timed_out, counts.retries), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn purges_are_counted_by_what_they_name() {
    let builder = ReadThroughLayer::builder(small_store());
    let (early, stats) = (builder.purge(), builder.stats());
    let layer = builder.build().unwrap();
    let (purge, service) = (layer.purge(), layer.layer(ScriptedOrigin::always(|| ok("x").max_age(60))));
    purge.url("http://h/a").unwrap();
    early.urls(["http://h/a", "http://h/b"]).unwrap();
    purge.soft().tag("t");
    purge.tags(["t", "u"]);
    purge.host("h").unwrap();
    purge.path_prefix("http://h/a").unwrap();
    purge.pattern("http://h/*.png").unwrap();
    purge.key(&tower_readthrough::CacheKey::new("k"));
    purge.key_prefix("k");
    purge.everything();
    assert!(purge.url("not a URL").is_err());
    send(&service, request("DELETE", "/a", &[])).await;
    let counts = stats.snapshot();
    let rows = [
        (PurgeKind::Url, 3),
        (PurgeKind::Key, 1),
        (PurgeKind::Tag, 3),
        (PurgeKind::PathPrefix, 1),
        (PurgeKind::Host, 1),
        (PurgeKind::Pattern, 1),
        (PurgeKind::KeyPrefix, 1),
        (PurgeKind::Everything, 1),
        (PurgeKind::Invalidation, 1),
    ];
    assert_eq!(counts.purges.iter().collect::<Vec<_>>(), rows);
    assert_eq!((counts.soft_purges, counts.other_methods), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_store_tells_responses_and_markers_apart() {
    let origin = ScriptedOrigin::new(|_, head| match head.uri.path() {
        "/own" => ok("x").header("cache-control", "no-store"),
        "/varied" => ok("x").max_age(60).header("vary", "accept-language"),
        _ => ok("x").max_age(10),
    });
    let store = MemoryStore::with_capacity_bytes(64 << 10);
    let layer = ReadThroughLayer::builder(store).build().unwrap();
    let (stats, purge, service) = (layer.stats(), layer.purge(), layer.layer(origin));
    let held = |stats: &Stats| stats.snapshot().store.map(|store| (store.responses, store.markers));
    assert_eq!(held(&stats), Some((0, 0)));
    for language in ["de", "en", "de"] {
        send(&service, request("GET", "/varied", &[("accept-language", language)])).await;
    }
    get(&service, "/own").await;
    get(&service, "/own").await;
    assert_eq!(held(&stats), Some((2, 1)));
    purge.url("http://example.com/varied").unwrap();
    assert_eq!(held(&stats), Some((0, 1)));
    // Far more than there is room for.
    for n in 0..500 {
        get(&service, &format!("/{n}")).await;
    }
    let seen = stats.snapshot().store.unwrap();
    assert!(seen.evictions > 0, "{seen:?}");
    assert_eq!(seen.responses + seen.markers, seen.entries, "each key holds one thing: {seen:?}");
    tokio::time::sleep(secs(7_200)).await;
    settle().await;
    assert_eq!(held(&stats), Some((0, 0)), "all are over");
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_a_builder_counts_for_itself() {
    let builder = ReadThroughLayer::builder(small_store());
    let (other, stats) = (builder.clone(), builder.stats());
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let layer = other.build().unwrap();
    get(&layer.layer(origin), "/").await;
    assert_eq!((layer.stats().snapshot().requests(), stats.snapshot().requests()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn layers_by_hand_say_what_they_hold() {
    let (store, stats) = (small_store(), Stats::new());
    let layers = tower::ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()).counted_by(&stats))
        .layer(CoalesceLayer::new().counted_by(&stats))
        .layer(FillLayer::new(store).counted_by(&stats));
    let service = layers.service(ScriptedOrigin::always(|| ok("x").max_age(60)));
    get(&service, "/").await;
    get(&service, "/").await;
    let seen = stats.snapshot();
    assert_eq!((seen.hits, seen.forwarded.total(), seen.stored), (1, 1, 1));
    assert_eq!(seen.store.map(|store| store.responses), Some(1));
    assert!(seen.coalesce.is_some() && seen.origins.is_empty());
    assert_eq!(seen.hit_ratio(), Some(0.5));
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn numbers_are_serialised_by_the_names_of_reasons() {
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let (stats, service) = (layer.stats(), layer.layer(ScriptedOrigin::always(|| ok("x").max_age(60))));
    get(&service, "/").await;
    tokio::time::advance(ms(1_500)).await;
    let json = serde_json::to_value(stats.snapshot()).unwrap();
    assert_eq!(json["over_seconds"], 1.5);
    assert_eq!((&json["forwarded"]["uri-miss"], &json["not_stored"]["set-cookie"]), (&1.into(), &0.into()));
    assert_eq!(
        (&json["origins"][0]["name"], &json["origins"][0]["state"]),
        (&"default".into(), &"up".into())
    );
    assert_eq!(json["origins"][0]["latency"]["count"], 1);
    assert_eq!(json["store"]["responses"], 1);
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_by_the_rule_that_decides_about_them() {
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/p/{id}").name("product"))
        .rule(KeyRule::path("/account").name("account").bypass())
        .build()
        .unwrap();
    let script = |_: usize, head: &http::request::Parts| match head.uri.path() {
        "/p/2" => error(),
        "/p/3" => status(503),
        _ => ok("x").max_age(10),
    };
    let build = |report_only: bool| {
        let layer = ReadThroughLayer::builder(small_store())
            .key(rules.clone())
            .rules(Rules::new().stale_while_revalidate_for(secs(60)))
            .lookup(|lookup| lookup.request_directives(true))
            .count_by_rule();
        if report_only { layer.report_only() } else { layer }.build().unwrap()
    };
    for report_only in [false, true] {
        let layer = build(report_only);
        let (stats, service) = (layer.stats(), layer.layer(ScriptedOrigin::new(script)));
        let before = stats.snapshot();
        assert_eq!(before.rules.len(), 2, "the others, and those without a rule");
        for path in ["/p/1", "/p/1?b=2&a=1", "/p/1", "/account", "/elsewhere", "/p/3"] {
            get(&service, path).await;
        }
        assert!(try_send(&service, request("GET", "/p/2", &[])).await.is_err());
        get_with(&service, "/p/9", &[("cache-control", "only-if-cached")]).await;
        tokio::time::advance(secs(11)).await;
        get(&service, "/p/1").await;
        send(&service, request("POST", "/p/1", &[])).await;
        let seen = stats.snapshot().since(&before);
        let counts = |rule: Option<&str>| {
            let own = seen.rules.iter().find(|own| own.rule.as_deref() == rule && !own.is_other).unwrap();
            [own.hits, own.stale, own.forwarded, own.unkeyed, own.refused, own.failed]
        };
        assert_eq!(counts(Some("product")), [1, 1, 3, 0, 1, 1], "{report_only}");
        assert_eq!(counts(Some("account")), [0, 0, 0, 1, 0, 0], "{report_only}");
        assert_eq!(counts(None), [0, 0, 1, 0, 0, 0], "{report_only}");
        let totals = [
            seen.hits,
            seen.stale.total(),
            seen.forwarded.total(),
            seen.unkeyed.total(),
            seen.refused.total(),
            seen.failed,
        ];
        assert_eq!(totals, [1, 1, 4, 1, 1, 1], "no request is counted twice");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_not_counted_by_rule_unless_that_is_asked_for_and_there_are_rules() {
    let rules = KeyRules::builder().rule(KeyRule::path("/p/{id}").name("product")).build().unwrap();
    let layer = ReadThroughLayer::builder(small_store()).key(rules).build().unwrap();
    get(&layer.layer(ScriptedOrigin::always(|| ok("x"))), "/p/1").await;
    assert_eq!(layer.stats().snapshot().rules, []);
    let refused = ReadThroughLayer::builder(small_store()).count_by_rule().build().unwrap_err();
    assert!(refused.to_string().contains("count_by_rule"), "{refused}");
}
