//! Hits: what is served from the store.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hit_is_the_stored_response_with_its_age_and_nothing_else() {
    let origin =
        ScriptedOrigin::always(|| ok("hello").header("x", "1").header("x", "2").header("etag", "\"1\""));
    let service = cached(ttl(), &origin);
    assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss");
    tokio::time::advance(ms(3_500)).await;
    let hit = get(&service, "/").await;
    assert_eq!((hit.cache().as_str(), &hit.body[..], hit.age()), ("hit", &b"hello"[..], Some(3)));
    assert_eq!(hit.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn extensions_of_one_response_do_not_reach_another_client() {
    #[derive(Clone)]
    struct Secret;
    let origin = ScriptedOrigin::always(|| ok("hello"));
    let service = ServiceBuilder::new()
        .layer(StoreLayer::new(small_store()).rules(ttl()))
        .map_response(|mut response: Response<Body>| {
            response.extensions_mut().insert(Secret);
            response
        })
        .service(origin);
    assert!(get(&service, "/").await.extensions.get::<Secret>().is_some());
    let hit = get(&service, "/").await;
    assert!(hit.is_hit());
    assert!(hit.extensions.get::<Secret>().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_hit_does_not_wait_for_the_service_below() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("x") } else { hangs() });
    let service = ServiceBuilder::new()
        .layer(StoreLayer::new(small_store()).rules(ttl()))
        .concurrency_limit(1)
        .service(origin.clone());
    get(&service, "/").await;
    let other = tokio::spawn(service.clone().oneshot(request("GET", "/other", &[])));
    settle().await;
    assert_eq!(origin.under_way(), 1, "the only permit is taken");
    for _ in 0..10 {
        let reply = serve(&mut service.clone(), request("GET", "/", &[])).now_or_never().unwrap();
        assert!(reply.is_hit());
    }
    other.abort();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_misses_over_one_permit_all_get_through() {
    let origin = ScriptedOrigin::always(|| ok("x").after(ms(1)));
    let service = ServiceBuilder::new()
        .layer(StoreLayer::new(small_store()).rules(Rules::new().never_store()))
        .concurrency_limit(1)
        .service(origin.clone());
    let clients: Vec<_> = (0..1_000)
        .map(|_| {
            let mut service = service.clone();
            tokio::spawn(async move { serve(&mut service, request("GET", "/", &[])).await.status })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), StatusCode::OK);
    }
    assert_eq!((origin.calls(), origin.most_under_way()), (1_000, 1));
}

#[tokio::test(start_paused = true)]
async fn paths_queries_and_hosts_are_kept_apart() {
    let origin = ScriptedOrigin::new(|_, head| ok(head.uri.to_string()));
    let service = cached(ttl(), &origin);
    let uris = ["http://a/", "http://b/", "http://a/x", "http://a/x?y", "http://a/x?y=1", "https://a/"];
    for _ in 0..2 {
        for uri in uris {
            let request = Request::get(uri).body(Body::default()).unwrap();
            assert_eq!(send(&service, request).await.body, uri);
        }
    }
    assert_eq!(origin.calls(), uris.len());
}

#[tokio::test(start_paused = true)]
async fn an_extractor_and_a_key_in_the_request_decide_what_is_the_same() {
    let by_path = |head: &Parts| (head.uri.path() != "/none").then(|| CacheKey::new(head.uri.path()));
    let origin = numbered();
    let service = StoreLayer::new(small_store()).rules(ttl()).key(by_path).layer(origin.clone());
    assert_eq!(get(&service, "/a?1").await.body, "v1");
    assert_eq!(get(&service, "/a?2").await.body, "v1");
    let mut own = request("GET", "/b", &[]);
    own.extensions_mut().insert(CacheKey::new("/a"));
    assert_eq!(send(&service, own).await.body, "v1");
    for call in 2..4 {
        let reply = get(&service, "/none").await;
        assert_eq!((reply.cache().as_str(), origin.calls()), ("fwd=bypass; detail=no-key", call));
    }
}

#[tokio::test(start_paused = true)]
async fn stores_shared_by_several_services_are_kept_apart_by_namespaces() {
    let (store, one, two) = (small_store(), numbered(), numbered());
    let layer =
        |name: &str| StoreLayer::new(store.clone()).rules(ttl()).key(DefaultKey::new().namespace(name));
    let (first, second) = (layer("one").layer(one.clone()), layer("two").layer(two.clone()));
    let same = layer("one").layer(error_only());
    get(&first, "/").await;
    assert!(!get(&second, "/").await.is_hit());
    assert!(get(&same, "/").await.is_hit());
    assert_eq!((one.calls(), two.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn services_below_learn_that_a_client_forced_the_fetch() {
    let origin = numbered();
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let lookup = LookupLayer::new(store.clone()).request_directives(true);
    let service = lookup.layer(FillLayer::new(store).rules(ttl()).layer(origin.clone()));
    let purpose = || origin.last_request().extensions.get::<CacheRequest>().unwrap().purpose();
    get(&service, "/").await;
    assert_eq!(purpose(), Purpose::Client);
    for directive in ["no-cache", "max-age=0", "min-fresh=1000000"] {
        tokio::time::advance(secs(1)).await;
        get_with(&service, "/", &[("cache-control", directive)]).await;
        assert_eq!(purpose(), Purpose::Forced, "{directive}");
    }
    assert_eq!(origin.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn services_below_see_the_cache_request() {
    let origin = numbered();
    let service = cached(ttl(), &origin);
    get(&service, "/").await;
    let asked = origin.last_request().extensions.get::<CacheRequest>().cloned().unwrap();
    assert_eq!(asked.purpose(), Purpose::Client);
    assert!(asked.key().as_bytes().ends_with(b"/"));
    send(&service, request("POST", "/", &[])).await;
    assert!(origin.last_request().extensions.get::<CacheRequest>().is_none());
}

#[test]
fn without_a_runtime_hits_misses_and_stale_responses_work() {
    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().unwrap()
    }
    let origin = ScriptedOrigin::new(|call, _| match call {
        // The response arrives as old as its lifetime, so that no clock is needed.
        1 => ok("stale").header("cache-control", "max-age=1, stale-while-revalidate=60").header("age", "1"),
        _ => ok("fresh").max_age(60),
    });
    let service = cached(Rules::new(), &origin);
    assert_eq!(now(get(&service, "/")).body, "stale");
    // Without a runtime nothing runs in the background, so the origin is called at once.
    assert_eq!(now(get(&service, "/")).body, "fresh");
    assert!(now(get(&service, "/")).is_hit());
    assert_eq!(origin.calls(), 2);
    assert!(now(try_send(&cached(ttl(), &error_only()), request("GET", "/", &[]))).is_err());
}
