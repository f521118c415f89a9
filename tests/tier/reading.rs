//! What a node gets from the tier, and what it says of it.

use super::{support::Body, *};
use http::{HeaderValue, Request, request::Parts};
use tower::ServiceBuilder;
use tower_readthrough::{
    CacheStatus, DefaultKey, FillLayer, KeyLayer, LookupLayer, Purge, Purpose, Rules, StaleIfErrorLayer,
    TierLayer,
};

#[tokio::test(start_paused = true)]
async fn a_node_answers_by_what_another_one_has_fetched() {
    let site = Site::default();
    let (here, there) = (site.node(), site.node());
    assert_eq!(here.fill("/").await, "0");
    let reply = there.get("/").await;
    assert_eq!((&*reply.body, &*reply.cache()), (&b"0"[..], "hit; detail=second-tier"));
    assert_eq!(there.origin.calls(), 0);
    assert!(reply.cache_status.is_some_and(|status| status.is_from_second_tier()));
    // From then on it is stored here.
    let reads = site.reads();
    assert_eq!(there.get("/").await.cache(), "hit");
    assert_eq!((site.reads(), there.count(TierRead::Fresh)), (reads, 1));
    let stats = there.cache.stats().snapshot();
    assert_eq!((stats.hits, stats.stored), (2, 0));
    assert_eq!(stats.second_tier, Some(there.tier.status()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_restarted_asks_the_origin_for_nothing_that_is_fresh_in_the_tier() {
    let site = Site::default();
    let before = site.node();
    let pages: Vec<_> = (0..50).map(|page| format!("/{page}")).collect();
    for page in &pages {
        before.page(page).await;
    }
    before.written().await;
    before.cache.purge().tag("another");
    let pages = pages.iter().zip(0..);
    drop(before);
    let after = site.node();
    for (page, number) in pages {
        assert_eq!(after.page(page).await, number.to_string());
    }
    assert_eq!(after.origin.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_callers_of_a_cold_key_are_one_read_and_at_most_one_fetch_a_node() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| tagged(call).max_age(60).after(ms(50)));
    let (here, there) = (site.node_of(&origin), site.node_of(&origin));
    site.remote.delay(ms(5));
    let calls = |node: &Node| {
        let service = node.service.clone();
        (0..10_000).map(move |_| {
            let service = service.clone();
            tokio::spawn(async move { get(&service, "/").await.status })
        })
    };
    let all: Vec<_> = calls(&here).chain(calls(&there)).collect();
    for call in all {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert!(origin.calls() <= 2, "{}", origin.calls());
    assert_eq!(site.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn age_and_lifetime_are_those_of_the_first_fetch() {
    let site = Site::default();
    let aged = ScriptedOrigin::always(|| ok("x").max_age(60).header("age", "10"));
    let (here, there) = (site.node_of(&aged), site.node_of(&aged));
    here.fill("/").await;
    tokio::time::advance(secs(20)).await;
    let age = there.get("/").await.age();
    assert!(age == Some(30), "{age:?}");
    tokio::time::advance(secs(29)).await;
    assert!(there.get("/").await.is_hit());
    tokio::time::advance(secs(2)).await;
    assert!(!there.get("/").await.is_hit());
    assert_eq!(there.origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_is_confirmed_by_the_origin() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, head| match head.headers.get("if-none-match") {
        Some(tag) if tag == "\"0\"" => {
            status(304).header("etag", "\"0\"").header("cache-control", "max-age=60")
        }
        Some(tag) => panic!("{tag:?} at {call}"),
        None => tagged(call).max_age(60),
    });
    let (here, there) = (site.node_of(&origin), site.node_of(&origin));
    here.fill("/").await;
    tokio::time::advance(secs(70)).await;
    let reply = there.get("/").await;
    assert_eq!((&*reply.body, reply.status.as_u16()), (&b"0"[..], 200));
    assert_eq!(reply.cache(), "fwd=uri-miss; fwd-status=304; stored; detail=second-tier-stale");
    assert_eq!(there.count(TierRead::Stale), 1);
    // What the 304 has prolonged is written.
    there.written().await;
    let third = site.node_of(&origin);
    assert_eq!(third.get("/").await.cache(), "hit; detail=second-tier");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stale_response_covers_for_an_origin_that_fails() {
    let site = Site::default();
    let here = site.node();
    here.fill("/").await;
    tokio::time::advance(secs(70)).await;
    for failing in [
        ScriptedOrigin::always(error),
        ScriptedOrigin::always(|| status(503)),
        ScriptedOrigin::always(|| status(502).after(secs(1))),
    ] {
        let there = site.node_of(&failing);
        let reply = there.get("/").await;
        assert_eq!((&*reply.body, reply.status.as_u16()), (&b"0"[..], 200));
        assert!(reply.cache().ends_with("detail=stale-if-error"), "{}", reply.cache());
        assert_eq!(failing.calls(), 1);
        // It rests, as what was stored here does.
        let reply = there.get("/").await;
        assert_eq!((&*reply.cache(), failing.calls()), ("hit; detail=origin-failed", 1));
    }
    // What may not be served stale is not.
    let strict = ScriptedOrigin::always(|| ok("x").header("cache-control", "max-age=60, must-revalidate"));
    let here = site.node_of(&strict);
    here.fill("/strict").await;
    tokio::time::advance(secs(70)).await;
    assert_eq!(site.node_of(&ScriptedOrigin::always(|| status(503))).get("/strict").await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_share_what_covers_for_a_failure() {
    let site = Site::default();
    site.node().fill("/").await;
    tokio::time::advance(secs(70)).await;
    let failing = ScriptedOrigin::always(|| status(503).after(ms(10)));
    let there = site.node_of(&failing);
    let replies = futures_util::future::join_all((0..50).map(|_| there.get("/"))).await;
    assert!(replies.iter().all(|reply| reply.body == "0"));
    assert_eq!(failing.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_background_refresh_takes_what_another_node_has_refreshed() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| {
        tagged(call).header("cache-control", "max-age=60, stale-while-revalidate=600")
    });
    let (here, there) = (site.node_of(&origin), site.node_of(&origin));
    here.fill("/").await;
    assert_eq!(there.page("/").await, "0");
    tokio::time::advance(secs(70)).await;
    // Stale on both, and refreshed by the first that is asked.
    assert_eq!(here.page("/").await, "0");
    settle().await;
    here.written().await;
    assert_eq!((here.page("/").await, origin.calls()), ("1".to_owned(), 2));
    assert_eq!(there.page("/").await, "0");
    settle().await;
    assert_eq!((there.page("/").await, origin.calls()), ("1".to_owned(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_not_answered_by_what_the_node_has_written_itself() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| {
        tagged(call).header("cache-control", "max-age=60, stale-while-revalidate=600")
    });
    let node = site.node_of(&origin);
    node.fill("/").await;
    tokio::time::advance(secs(70)).await;
    node.page("/").await;
    settle().await;
    assert_eq!((node.page("/").await, node.count(TierRead::Unneeded)), ("1".to_owned(), 1));
    let purposes: Vec<_> = origin
        .requests()
        .iter()
        .map(|head| head.extensions.get::<tower_readthrough::CacheRequest>().map(|asked| asked.purpose()))
        .collect();
    assert_eq!(purposes, [Some(Purpose::Client), Some(Purpose::Refresh)]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_must_be_validated_does_not_read() {
    let site = Site::default();
    let (here, origin) = (site.node(), numbered());
    here.fill("/").await;
    let there = site.node_with(
        &origin,
        |tier| tier,
        |cache| cache.lookup(|lookup: LookupLayer<MemoryStore>| lookup.request_directives(true)),
    );
    let reads = site.reads();
    let reply = get_with(&there.service, "/", &[("cache-control", "no-cache")]).await;
    assert_eq!((reply.body.as_ref(), origin.calls()), (&b"0"[..], 1));
    assert_eq!(there.tier.status().reads.total(), 0);
    // What it has brought is written, dated by a clock that is read for that.
    there.written().await;
    assert_eq!(there.count_of_writes(TierWrite::Written), 1);
    assert_eq!(site.reads(), reads + 1);
}

#[tokio::test(start_paused = true)]
async fn head_and_ranges_are_answered_by_a_whole_response() {
    let site = Site::default();
    let origin = ScriptedOrigin::always(|| ok("0123456789").max_age(60).header("etag", "\"a\""));
    site.node_of(&origin).fill("/").await;
    let there = site.node_of(&origin);
    let reply = get_with(&there.service, "/", &[("range", "bytes=2-4")]).await;
    assert_eq!((reply.status.as_u16(), &*reply.body), (206, &b"234"[..]));
    assert_eq!(reply.cache(), "hit; detail=second-tier");
    let there = site.node_of(&origin);
    let reply = send(&there.service, request("HEAD", "/", &[])).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-length")), (200, Some("10")));
    assert_eq!(reply.cache(), "hit; detail=second-tier");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn parts_are_not_written() {
    let site = Site::default();
    let origin = ScriptedOrigin::always(|| {
        status(206).chunk("234").header("content-range", "bytes 2-4/10").header("etag", "\"a\"").max_age(60)
    });
    let node = site.node_of(&origin);
    get_with(&node.service, "/", &[("range", "bytes=2-4")]).await;
    node.written().await;
    assert_eq!(site.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_origin_is_asked_after_one_read_where_there_is_nothing() {
    let site = Site::default();
    let node = site.node();
    assert_eq!(node.get("/").await.cache(), "fwd=uri-miss");
    assert_eq!((site.reads(), node.count(TierRead::Miss)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hit_for_miss_is_not_looked_for() {
    let site = Site::default();
    let node = site.node_of(&ScriptedOrigin::always(|| ok("x").header("cache-control", "private")));
    node.get("/").await;
    let reads = site.reads();
    node.get("/").await;
    assert_eq!((site.reads(), site.writes()), (reads, 0));
}

#[tokio::test(start_paused = true)]
async fn layers_that_are_stacked_by_hand_do_the_same() {
    use tower::ServiceBuilder;
    use tower_readthrough::{CoalesceLayer, FillLayer, StaleIfErrorLayer, TierLayer};
    let site = Site::default();
    let node = |origin: &ScriptedOrigin| {
        let (store, tier) = (store(), Tier::builder(site.remote.clone()).build().unwrap());
        let lookup = LookupLayer::new(store.clone());
        let log = site.log.join(&lookup.purge()).unwrap();
        let service = ServiceBuilder::new()
            .layer(lookup)
            .layer(StaleIfErrorLayer::new(store.clone()))
            .layer(CoalesceLayer::new())
            .layer(TierLayer::new(store.clone(), tier.clone()).unwrap())
            .layer(FillLayer::new(store).rules(Rules::new().default_ttl(secs(60))))
            .service(origin.clone());
        (service, tier, log)
    };
    let origin = ScriptedOrigin::new(|call, _| ok((call - 1).to_string()));
    let ((here, tier, _a), (there, _, _b)) = (node(&origin), node(&origin));
    get(&here, "/").await;
    tier.flush(secs(9)).await;
    let reply = get(&there, "/").await;
    assert_eq!((&*reply.body, &*reply.cache()), (&b"0"[..], "hit; detail=second-tier"));
    assert!(CacheStatus::of(&http::Response::new(())).is_none());
    assert_eq!(origin.calls(), 1);
}

/// What the tier has was for requests without them, as what is stored here is (RFC 9111 §3.5).
#[tokio::test(start_paused = true)]
async fn a_response_to_anonymous_requests_is_not_for_credentials() {
    let credentials = [("cookie", "id=1"), ("x-api-key", "1"), ("authorization", "Basic x")];
    let answer = move |call: usize, head: &Parts| {
        let is_known = credentials.iter().any(|(name, _)| head.headers.contains_key(*name));
        match (call, is_known) {
            (_, false) => ok("for all"),
            (2..=4, true) => ok("personal"),
            (_, true) => status(503),
        }
    };
    let rules = || Rules::new().default_ttl(secs(60)).stale_if_error_for(secs(3600));
    let site = Site::default();
    let node = |origin: &ScriptedOrigin| site.node_with(origin, |tier| tier, |cache| cache.rules(rules()));
    let here = node(&ScriptedOrigin::new(answer));
    here.fill("/").await;
    for one in &credentials {
        let reply = get_with(&here.service, "/", &[*one]).await;
        assert_eq!(&*reply.body, b"personal", "{one:?}, where it was stored");
    }
    for one in &credentials {
        let there = node(&ScriptedOrigin::new(move |_, head| answer(9, head)));
        let reply = get_with(&there.service, "/", &[*one]).await;
        assert_eq!((reply.status.as_u16(), there.count(TierRead::Miss)), (503, 1), "{one:?} on another node");
        // Anonymous requests get it.
        let there = node(&ScriptedOrigin::new(answer));
        assert_eq!((there.page("/").await.as_str(), there.origin.calls()), ("for all", 0));
    }
}

/// RFC 9111 §5.2.1: what the tier has is older than the client takes, or fresh for less time.
#[tokio::test(start_paused = true)]
async fn a_request_that_wants_something_newer_does_not_read() {
    for wish in ["max-age=0", "max-age=5", "min-fresh=55"] {
        let site = Site::default();
        site.node().fill("/").await;
        tokio::time::advance(secs(10)).await;
        let follow = |cache: ReadThroughBuilder<MemoryStore>| {
            cache.lookup(|lookup: LookupLayer<MemoryStore>| lookup.request_directives(true))
        };
        let there = site.node_with(&numbered(), |tier| tier, follow);
        let wishes = [("cache-control", wish)];
        let (plain, wishing) = tokio::join!(there.get("/"), get_with(&there.service, "/", &wishes));
        assert_eq!((plain.cache(), wishing.is_hit()), ("hit; detail=second-tier".into(), false), "{wish}");
        assert_eq!(there.origin.calls(), 1, "{wish}");
    }
}

/// They are judged on what the tier has, as on what is stored here (RFC 9110 §13).
#[tokio::test(start_paused = true)]
async fn a_request_with_conditions_reads_too() {
    let site = Site::default();
    let origin = ScriptedOrigin::always(|| ok("page").header("etag", "\"1\"").max_age(60));
    site.node_of(&origin).fill("/").await;
    for (condition, value, expected) in [
        ("if-none-match", "\"1\"", (304, "")),
        ("if-none-match", "\"2\"", (200, "page")),
        ("if-match", "\"2\"", (412, "")),
    ] {
        let there = site.node();
        let reply = get_with(&there.service, "/", &[(condition, value)]).await;
        let body = std::str::from_utf8(&reply.body).unwrap();
        assert_eq!(
            (reply.status.as_u16(), body, there.origin.calls()),
            (expected.0, expected.1, 0),
            "{value}"
        );
    }
}

/// Without a layer above that judges the conditions of clients, only the origin can.
#[tokio::test(start_paused = true)]
async fn conditions_are_not_for_the_tier_where_nothing_above_has_judged_them() {
    let site = Site::default();
    site.node().fill("/").await;
    let (store, tier) = (store(), Tier::builder(site.remote.clone()).build().unwrap());
    let origin = numbered();
    let service = ServiceBuilder::new()
        .layer(KeyLayer::new(DefaultKey::new()))
        .layer(TierLayer::new(store.clone(), tier).unwrap())
        .layer(FillLayer::new(store.clone()))
        .service(origin.clone());
    let _log = site.log.join(&Purge::of(store, DefaultKey::new())).unwrap();
    let reads = site.reads();
    for field in [("if-match", "\"other\""), ("if-none-match", "\"0\"")] {
        get_with(&service, "/", &[field]).await;
    }
    assert_eq!((site.reads(), origin.calls()), (reads, 2));
    get(&service, "/").await;
    assert_eq!((site.reads(), origin.calls()), (reads + 1, 2));
}

/// It is known by what is stored here, also where the node has not asked the tier for it yet.
#[tokio::test(start_paused = true)]
async fn what_selects_a_stored_response_is_asked_for_in_one_read() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| tagged(call).header("vary", "accept-language").max_age(60));
    let store = store();
    let node = |tier: &Tier| {
        let cache = ReadThroughLayer::builder(store.clone()).second_tier(tier.clone()).build().unwrap();
        (cache.layer(origin.clone()), cache)
    };
    let tier = Tier::builder(site.remote.clone()).build().unwrap();
    let (service, cache) = node(&tier);
    let _log = site.log.join(&cache.purge()).unwrap();
    site.remote.hang(1);
    get_with(&service, "/", &[("accept-language", "de")]).await;
    let there = site.node_of(&origin);
    get_with(&there.service, "/", &[("accept-language", "de")]).await;
    there.written().await;
    tokio::time::advance(secs(70)).await;
    let reads = site.reads();
    get_with(&service, "/", &[("accept-language", "de")]).await;
    assert_eq!(site.reads() - reads, 1);
}

/// By hand: a layer below the tier that covers failures.
#[tokio::test(start_paused = true)]
async fn what_is_doubtful_covers_no_failure_below_the_tier_either() {
    let site = Site::default();
    site.node().fill("/").await;
    site.log.lose_everything();
    let (store, tier) = (store(), Tier::builder(site.remote.clone()).build().unwrap());
    let failing = ScriptedOrigin::always(|| status(503));
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .layer(TierLayer::new(store.clone(), tier.clone()).unwrap())
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store.clone()))
        .service(failing);
    let purge = Purge::of(store, DefaultKey::new());
    let _log = site.log.join(&purge).unwrap();
    assert_eq!(get(&service, "/").await.status, 503);
    assert_eq!(tier.status().reads.get(TierRead::Unproven), 1);
}

/// Of two that may have been purged since, the origin is asked for the one that is stored here.
#[tokio::test(start_paused = true)]
async fn what_is_stored_here_is_confirmed_rather_than_what_is_doubtful_elsewhere() {
    let site = Site::default();
    let newer = ScriptedOrigin::new(|call, _| tagged(call + 7).max_age(60));
    let (here, there) = (site.node(), site.node_of(&newer));
    here.fill("/").await;
    tokio::time::advance(secs(70)).await;
    there.fill("/").await;
    site.log.lose_everything();
    here.get("/").await;
    let last = here.origin.last_request();
    assert_eq!(last.headers["if-none-match"], "\"0\"");
    assert_eq!(here.count(TierRead::Unneeded), 1);
}

/// As if it had come with them: what a layer below adds to the request counts for what it may be answered with.
#[tokio::test(start_paused = true)]
async fn credentials_that_are_added_below_the_tier_count() {
    let site = Site::default();
    site.node().fill("/").await;
    let (store, tier) = (store(), Tier::builder(site.remote.clone()).build().unwrap());
    let origin = numbered();
    let with_credentials = |mut request: Request<Body>| {
        request.headers_mut().insert("authorization", HeaderValue::from_static("Basic dQ=="));
        request
    };
    let service = ServiceBuilder::new()
        .layer(KeyLayer::new(DefaultKey::new()))
        .layer(TierLayer::new(store.clone(), tier.clone()).unwrap())
        .map_request(with_credentials)
        .layer(FillLayer::new(store.clone()))
        .service(origin.clone());
    let _log = site.log.join(&Purge::of(store, DefaultKey::new())).unwrap();
    get(&service, "/").await;
    assert_eq!((tier.status().reads.get(TierRead::Fresh), origin.calls()), (1, 1));
}
