//! Directives of requests, where they are honoured (RFC 9111 §5.2.1).

use std::time::Duration;

use tower::Layer;
use tower_readthrough::{MemoryStore, ReadThrough, ReadThroughLayer, Refused, Rules};

use crate::support::{ScriptedOrigin, ScriptedResponse, get, get_with, ms, ok, secs, settle};

type Service = ReadThrough<ScriptedOrigin, MemoryStore>;

fn follows(origin: &ScriptedOrigin) -> Service {
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let layer =
        ReadThroughLayer::builder(store).lookup(|lookup| lookup.request_directives(true)).build().unwrap();
    layer.layer(origin.clone())
}

fn numbered(answer: impl Fn(ScriptedResponse) -> ScriptedResponse + Send + Sync + 'static) -> ScriptedOrigin {
    ScriptedOrigin::new(move |n, _| answer(ok(n.to_string())))
}

async fn said(service: &Service, directive: &str) -> (String, String) {
    let reply = get_with(service, "/", &[("cache-control", directive)]).await;
    (String::from_utf8(reply.body.to_vec()).unwrap(), reply.cache())
}

fn hit(body: &str) -> (String, String) {
    (body.into(), "hit".into())
}

fn fetched(body: &str, why: &str) -> (String, String) {
    (body.into(), format!("fwd={why}"))
}

#[tokio::test(start_paused = true)]
async fn no_cache_and_pragma_ask_the_origin_and_renew_what_is_stored() {
    let origin = numbered(|answer| answer.max_age(60));
    let service = follows(&origin);
    get(&service, "/").await;
    assert_eq!(said(&service, "no-cache").await, fetched("2", "request"));
    assert_eq!(get(&service, "/").await.body, "2");
    assert_eq!(get_with(&service, "/", &[("pragma", "no-cache")]).await.body, "3");
    let both = [("pragma", "no-cache"), ("cache-control", "max-age=60")];
    assert_eq!(get_with(&service, "/", &both).await.body, "3", "Pragma counts alone");
}

#[tokio::test(start_paused = true)]
async fn max_age_and_min_fresh_bound_what_a_client_takes() {
    let origin = numbered(|answer| answer.max_age(60));
    let service = follows(&origin);
    get(&service, "/").await;
    tokio::time::advance(secs(20)).await;
    assert_eq!(said(&service, "max-age=20").await, hit("1"));
    assert_eq!(said(&service, "min-fresh=39").await, hit("1"));
    assert_eq!(said(&service, "max-age=19").await, fetched("2", "request"));
    tokio::time::advance(secs(20)).await;
    assert_eq!(said(&service, "min-fresh=40").await, fetched("3", "request"));
    assert_eq!(said(&service, "max-age=0").await, hit("3"), "just made");
}

#[tokio::test(start_paused = true)]
async fn max_stale_accepts_a_stale_response_unless_it_forbids_that() {
    for (forbids, directive) in
        [(false, "max-age=10"), (true, "max-age=10, must-revalidate"), (true, "s-maxage=10")]
    {
        let origin = ScriptedOrigin::new(move |n, _| {
            ok(n.to_string()).header("cache-control", directive).header("etag", "\"1\"")
        });
        let service = follows(&origin);
        get(&service, "/").await;
        tokio::time::advance(secs(15)).await;
        let stale = ("1".to_owned(), "hit; detail=max-stale".to_owned());
        let expected = |stale| if forbids { fetched("2", "stale") } else { stale };
        assert_eq!(said(&service, "max-stale=5").await, expected(stale.clone()));
        if !forbids {
            assert_eq!(said(&service, "max-stale").await, stale);
            assert_eq!(said(&service, "max-stale=4").await, fetched("2", "stale"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_never_asks_the_origin() {
    let origin = numbered(|answer| answer.max_age(10));
    let service = follows(&origin);
    let reply = get_with(&service, "/", &[("cache-control", "only-if-cached")]).await;
    assert_eq!((reply.status.as_u16(), origin.calls()), (504, 0));
    assert_eq!(reply.extensions.get(), Some(&Refused::NotStored));
    get(&service, "/").await;
    assert_eq!(said(&service, "only-if-cached").await, hit("1"));
    tokio::time::advance(secs(11)).await;
    assert_eq!(get_with(&service, "/", &[("cache-control", "only-if-cached")]).await.status, 504);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_store_leaves_nothing_behind() {
    let origin = numbered(|answer| answer.max_age(60));
    let service = follows(&origin);
    for call in ["1", "2"] {
        assert_eq!(said(&service, "no-store").await, (call.into(), "fwd=request; detail=no-store".into()));
    }
    get(&service, "/").await;
    assert_eq!(said(&service, "no-store").await, hit("3"));
}

/// RFC 9111 §5.2.1.5: no response to it is stored, so it is not sent on as a refresh.
#[tokio::test(start_paused = true)]
async fn no_store_refreshes_nothing() {
    let stale = || {
        let origin = ScriptedOrigin::new(|n, _| {
            ok(n.to_string()).header("cache-control", "max-age=10, stale-while-revalidate=60")
        });
        (follows(&origin), origin, 15)
    };
    let ahead = || {
        let origin = numbered(|answer| answer.max_age(10));
        let layer = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
            .rules(Rules::new().refresh_ahead(0.1))
            .lookup(|lookup| lookup.request_directives(true))
            .build()
            .unwrap();
        (layer.layer(origin.clone()), origin, 9)
    };
    for (why, (service, origin, age)) in [("stale", stale()), ("due", ahead())] {
        fastrand::seed(1);
        get(&service, "/").await;
        tokio::time::advance(secs(age) + ms(990)).await;
        let (body, cache) = said(&service, "no-store").await;
        settle().await;
        assert_eq!((&body[..], origin.calls()), ("1", 1), "{why}: {cache}");
        assert_eq!(get(&service, "/").await.body, "1", "{why}");
        settle().await;
        assert_eq!(
            (origin.calls(), &get(&service, "/").await.body[..]),
            (2, &b"2"[..]),
            "{why}: it takes nothing away"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_demands_a_new_response_does_not_share_a_refresh() {
    let origin = ScriptedOrigin::new(|n, _| {
        ok(n.to_string()).header("cache-control", "max-age=10, stale-while-revalidate=60")
    });
    let service = follows(&origin);
    get(&service, "/").await;
    tokio::time::advance(secs(15)).await;
    assert_eq!(said(&service, "no-cache").await, fetched("2", "request"));
    tokio::time::advance(secs(15)).await;
    assert_eq!(said(&service, "max-age=20").await.1, "hit; detail=stale-while-revalidate");
    settle().await;
    assert_eq!(origin.calls(), 3);
}

/// A request that forces a fetch while one is under way shares the next one.
#[tokio::test(start_paused = true)]
async fn requests_that_force_a_fetch_share_it() {
    let origin = ScriptedOrigin::new(|n, _| ok(n.to_string()).max_age(60).after(ms(100)));
    let service = follows(&origin);
    get(&service, "/").await;
    let force = |delay: Duration| {
        let service = service.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            said(&service, "no-cache").await.0
        })
    };
    let first: Vec<_> = (0..100).map(|_| force(ms(0))).collect();
    let second: Vec<_> = (0..100).map(|_| force(ms(50))).collect();
    for caller in first {
        assert!(["2", "3"].contains(&caller.await.unwrap().as_str()));
    }
    for caller in second {
        assert_eq!(caller.await.unwrap(), "3");
    }
    assert_eq!((origin.calls(), origin.most_under_way()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn without_the_switch_nothing_of_it_counts() {
    let origin = numbered(|answer| answer.max_age(60));
    let layer = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
        .rules(Rules::new())
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    for directive in ["no-cache", "no-store", "max-age=0", "min-fresh=100", "only-if-cached"] {
        assert_eq!(said(&service, directive).await, hit("1"), "{directive}");
    }
}
