//! Requests that pass the cache unchanged.

use super::*;

#[tokio::test(start_paused = true)]
async fn other_methods_bodies_and_upgrades_pass_untouched() {
    let origin = numbered();
    let service = cached(Rules::new().fixed_ttl(secs(10)), &origin);
    assert_eq!(get(&service, "/").await.body, "v1");
    let others = || {
        let methods = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "CONNECT"];
        methods
            .map(|method| request(method, "/", &[("if-none-match", "*")]))
            .into_iter()
            .chain([request("GET", "/", &[]).map(|_| Body::from("content"))])
            .chain([request("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")])])
    };
    let mut calls = 1;
    for _ in 0..2 {
        for request in others() {
            let fields = request.headers().clone();
            let says = match (request.method().as_str(), fields.contains_key("upgrade")) {
                ("GET", true) => "fwd=bypass; detail=upgrade",
                ("GET", false) => "fwd=bypass; detail=body",
                _ => "not asked",
            };
            let reply = send(&service, request).await;
            calls += 1;
            assert_eq!((reply.cache().as_str(), origin.calls()), (says, calls));
            assert_eq!((reply.status, origin.last_request().headers), (StatusCode::OK, fields));
        }
    }
    // Those that are not safe have invalidated it (RFC 9111 §4.4).
    assert_eq!(get(&service, "/").await.body, format!("v{}", calls + 1));
}

#[tokio::test(start_paused = true)]
async fn directives_of_a_client_do_not_force_the_origin() {
    let origin = numbered();
    let service = cached(ttl(), &origin);
    get(&service, "/").await;
    for said in ["no-cache", "no-store", "max-age=0", "only-if-cached", "min-fresh=1000"] {
        assert!(get_with(&service, "/", &[("cache-control", said), ("pragma", "no-cache")]).await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_lookup_refuses_is_hidden_from_the_layers_below() {
    let origin = numbered();
    let service = cached(ttl(), &origin);
    let mut range = request("GET", "/", &[("range", "bytes=0-1")]);
    range.extensions_mut().insert(CacheKey::new("mine"));
    send(&service, range).await;
    assert!(origin.last_request().extensions.get::<CacheKey>().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_cache_request_of_one_cache_is_not_used_by_another() {
    let (outer, inner, origin) = (small_store(), small_store(), numbered());
    let service = ServiceBuilder::new()
        .layer(StoreLayer::new(outer.clone()).rules(ttl()))
        .layer(StoreLayer::new(inner.clone()).rules(ttl()).key(|_: &Parts| None))
        .service(origin);
    get(&service, "/").await;
    assert_eq!((outer.stats().entries, inner.stats().entries), (1, 0));
}
