//! Rules in the layers of a cache.

use super::*;

#[tokio::test(start_paused = true)]
async fn no_tenant_never_means_the_tenant_of_another_request() {
    #[derive(Clone)]
    struct Tenant(u64);
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/report").extensions(["tenant"]))
        .extension("tenant", |tenant: &Tenant| Some(tenant.0.to_be_bytes().to_vec().into()))
        .build()
        .unwrap();
    let origin = counting();
    let service = stack(rules, &origin);
    let ask = async |tenant: Option<u64>| {
        let mut request = get_request("http://h/report");
        tenant.map(|tenant| request.extensions_mut().insert(Tenant(tenant)));
        call(&service, request).await.1
    };
    assert_eq!(ask(Some(1)).await, "1");
    assert_eq!(ask(Some(1)).await, "1");
    assert_eq!(ask(Some(2)).await, "2");
    assert_eq!(ask(None).await, "3");
    assert_eq!(ask(None).await, "4", "not stored");
    assert_eq!(ask(Some(2)).await, "2");
}

#[tokio::test(start_paused = true)]
async fn a_rule_changes_what_it_mentions_about_storing_and_nothing_else() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        match (n, request.uri().path()) {
            (2, _) => status(502),
            (_, "/long") => response(&[("cache-control", "max-age=1000")], n.to_string()),
            _ => response(&[], n.to_string()),
        }
    });
    let base =
        Rules::new().default_ttl(Duration::from_secs(10)).stale_if_error_for(Duration::from_secs(7200));
    let keys =
        rules([KeyRule::path("/short").default_ttl(ms(100)), KeyRule::path("/long").fixed_ttl(ms(100))]);
    let cache = ReadThroughLayer::builder(store())
        .key(keys)
        .rules(base)
        .retry(tower_readthrough::RetryPolicy::never());
    let service = cache.build().unwrap().layer(origin.clone());
    let ask = async |path: &str| call(&service, get_request(&format!("http://h{path}"))).await;
    assert_eq!(ask("/short").await.1, "1");
    tokio::time::advance(Duration::from_secs(5400)).await;
    assert_eq!(ask("/short").await.1, "1", "stale, within the window that the rule does not mention");
    assert_eq!(ask("/other").await.1, "3");
    assert_eq!(ask("/long").await.1, "4");
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(ask("/other").await.1, "3");
    assert_eq!(ask("/long").await.1, "5");
}

/// Rules that a middleware sets for one request win over the configured ones.
#[tokio::test(start_paused = true)]
async fn rules_and_keys_of_a_middleware_go_first() {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let keys = rules([KeyRule::any().fixed_ttl(ms(60_000)).ignore_query(["x"])]);
    let service = stack(keys, &origin);
    for expected in ["1", "2"] {
        let mut request = get_request("http://h/?x=1");
        request.extensions_mut().insert(Rules::new().never_store());
        assert_eq!(call(&service, request).await.1, expected);
    }
    let own = |name: &str| {
        let mut request = get_request("http://h/?x=1");
        request.extensions_mut().insert(CacheKey::new(name));
        request
    };
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(call(&service, own("a")).await.1, "3");
    assert_eq!(call(&service, own("b")).await.1, "4");
    assert_eq!(call(&service, own("a")).await.1, "3");
}

/// A cache below uses its own rules.
#[tokio::test(start_paused = true)]
async fn a_rule_applies_to_its_own_cache_only() {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let inner = StoreLayer::new(store()).layer(origin.clone());
    let rule = KeyRule::path("/a").headers(["x-a"]).fixed_ttl(ms(60_000));
    let outer = StoreLayer::new(store()).key(rules([rule])).layer(inner);
    for (field, expected) in [("1", "1"), ("1", "1"), ("2", "2"), ("1", "1")] {
        assert_eq!(call(&outer, request("http://h/a", &[("x-a", field)])).await.1, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn tags_reach_the_origin_with_their_captures_decoded() {
    let origin = ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        let tags = request.extensions().get::<Tags>().map(|tags| tags.iter().collect::<Vec<_>>().join(" "));
        response(&[], tags.unwrap_or_default())
    });
    let service = stack(
        rules([
            KeyRule::path("/u/{id}").tags(["user", "user-{id}"]),
            KeyRule::path("/p?pid={pid}&s={_}").tags(["product-{pid}"]),
            KeyRule::path("/all").tags(["all"]),
        ]),
        &origin,
    );
    for (path, expected) in [
        ("/u/7", "user user-7"),
        ("/u/%37", "user user-7"),
        ("/p?s=1&pid=a+b%21", "product-a%20b!"),
        ("/all", "all"),
        ("/x", ""),
    ] {
        assert_eq!(call(&service, get_request(&format!("http://h{path}"))).await.1, expected, "{path}");
    }
    let mut tagged = get_request("http://h/u/8");
    tagged.extensions_mut().insert(Tags::from_iter(["own"]));
    assert_eq!(call(&service, tagged).await.1, "own user user-8");
}

/// The layers alone take the same rules.
#[tokio::test(start_paused = true)]
async fn rules_work_above_coalesce_and_fill_alone() {
    use tower_readthrough::{CoalesceLayer, FillLayer, LookupLayer};
    let keys = || rules([KeyRule::path("/a").keep_query(["b"]).fixed_ttl(ms(60_000))]);
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        tokio::time::sleep(ms(10)).await;
        response(&[], n.to_string())
    });
    let shared = KeyLayer::new(keys()).layer(CoalesceLayer::new().layer(origin.clone()));
    let asks = (0..100).map(|n| {
        let shared = shared.clone();
        async move { call(&shared, get_request(&format!("http://h/a?b=1&n={n}"))).await.1 }
    });
    assert!(futures_util::future::join_all(asks).await.iter().all(|answer| answer == "1"));

    let store = store();
    let lookup = LookupLayer::new(store.clone()).key(keys());
    let service = lookup.layer(FillLayer::new(store).layer(origin.clone()));
    assert_eq!(call(&service, get_request("http://h/a?b=2&n=1")).await.1, "2");
    assert_eq!(call(&service, get_request("http://h/a?b=2&n=2")).await.1, "2");
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_request_invalidates_every_request_that_shares_its_entry() {
    let origin = counting();
    let service = stack(
        rules([
            KeyRule::path("/p").keep_query(["pid"]),
            KeyRule::path("/u/{_}/{id}").headers(["x-a"]).forward_unkeyed(),
        ]),
        &origin,
    );
    for (stored, posted, goes) in [
        ("/p?pid=1&uid=5", "/p?pid=1&uid=9", true),
        ("/p?pid=1&uid=5", "/p?uid=5&pid=2", false),
        ("/p?pid=1&uid=5", "/p?uid=5", false),
        ("/u/1/7", "/u/2/7", true),
        ("/u/1/7", "/u/1/8", false),
        ("/x?a", "/x?a", true),
        ("/x?a", "/x?b", false),
    ] {
        let before = call(&service, get_request(&format!("http://h{stored}"))).await.1;
        let post = Request::post(posted).header("host", "H").body(Body::empty()).unwrap();
        call(&service, post).await;
        let after = call(&service, get_request(&format!("http://h{stored}"))).await.1;
        assert_eq!(after != before, goes, "{stored} {posted}");
    }
}

/// A request that a rule bypasses passes the cache unchanged.
#[tokio::test(start_paused = true)]
async fn bypassed_requests_pass_untouched() {
    let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        assert_eq!(request.headers()["accept-encoding"], "zstd, gzip");
        assert_eq!(request.headers()["x-forwarded-host"], "h");
        assert_eq!(request.uri(), "http://h/live?utm_a=1");
        response(&[("cache-control", "max-age=60")], n.to_string())
    });
    let keys = KeyRules::builder()
        .rule(KeyRule::path("/live").bypass())
        .rule(KeyRule::any().ignore_query(["utm_*"]))
        .guard(tower_readthrough::Guard::new())
        .accept_encoding(["gzip"])
        .build()
        .unwrap();
    let service = stack(keys, &origin);
    for n in ["1", "2"] {
        let live =
            request("http://h/live?utm_a=1", &[("accept-encoding", "zstd, gzip"), ("x-forwarded-host", "h")]);
        let response = service.clone().oneshot(live).await.unwrap();
        let why = CacheStatus::of(&response).and_then(|status| status.unkeyed_reason());
        assert_eq!(why, Some(tower_readthrough::Unkeyed::RuleBypass));
        assert_eq!((response.status(), bytes(response).await), (StatusCode::OK, n.into()));
    }
}
