//! After a failed fetch a key rests: what is stale is served at once, and the origin is not asked.

use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::{Instant, advance};
use tower::{Layer, ServiceBuilder};
use tower_readthrough::{
    FillLayer, KeyLayer, MemoryStore, OriginHealth, OriginLimitLayer, OriginState, ReadThrough,
    ReadThroughLayer, Rules, Stale, StaleIfErrorLayer,
};

use crate::support::{
    Reply, ScriptedOrigin, error, get, get_with, hangs, ms, ok, panics, request, secs, send, settle,
    small_store, status,
};

type Service = ReadThrough<ScriptedOrigin, MemoryStore>;

/// Fresh for a second, and usable for a day while the origin fails.
fn rules() -> Rules {
    Rules::new().default_ttl(secs(1)).stale_if_error_for(secs(86_400))
}

/// A response of this origin is stored, and stale.
async fn stale(origin: &ScriptedOrigin) -> Service {
    let layer = ReadThroughLayer::builder(small_store()).rules(rules()).build().unwrap();
    let service = layer.layer(origin.clone());
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
    advance(secs(2)).await;
    service
}

fn why(reply: &Reply) -> Option<Stale> {
    reply.cache_status.and_then(|status| status.stale_reason())
}

fn then_refuses() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, _| if call == 1 { ok("good") } else { status(503) })
}

#[tokio::test(start_paused = true)]
async fn a_stale_key_over_an_origin_that_refuses_is_fetched_a_few_times_in_ten_seconds() {
    let origin = then_refuses();
    let service = stale(&origin).await;
    for _ in 0..10_000 {
        let sent = Instant::now();
        let reply = get(&service, "/").await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"good"[..]));
        assert!(sent.elapsed() < ms(1), "{:?}", sent.elapsed());
        advance(ms(1)).await;
    }
    let attempts = origin.calls() - 1;
    assert!((4..=12).contains(&attempts), "{attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn what_fails_rests_whatever_the_failure() {
    for failure in [error, panics, || status(500), || status(502), || status(504), || status(408)] {
        let origin = ScriptedOrigin::new(move |call, _| if call == 1 { ok("good") } else { failure() });
        let service = stale(&origin).await;
        assert_eq!(why(&get(&service, "/").await), Some(Stale::IfError));
        for _ in 0..10 {
            let reply = get(&service, "/").await;
            assert_eq!(
                (why(&reply), reply.cache()),
                (Some(Stale::OriginFailed), "hit; detail=origin-failed".into())
            );
        }
        assert_eq!(origin.calls(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn other_responses_do_not_let_a_key_rest() {
    for code in [400, 403, 404, 501] {
        let origin = ScriptedOrigin::new(move |call, _| if call == 1 { ok("good") } else { status(code) });
        let service = stale(&origin).await;
        for calls in 2..5 {
            assert_eq!(get(&service, "/").await.status.as_u16(), code);
            assert_eq!(origin.calls(), calls);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_lets_a_key_rest_for_as_long_as_the_origin_asks_but_a_minute_at_most() {
    for (asked_for, least, most) in [("20", 20, 24), ("3600", 60, 72)] {
        let origin = ScriptedOrigin::new(move |call, _| match call {
            1 => ok("good"),
            _ => status(429).header("retry-after", asked_for),
        });
        let service = stale(&origin).await;
        assert_eq!(get(&service, "/").await.status, StatusCode::TOO_MANY_REQUESTS, "the client that asked");
        advance(secs(least) - ms(1)).await;
        assert_eq!(why(&get(&service, "/").await), Some(Stale::OriginFailed));
        assert_eq!(origin.calls(), 2);
        advance(secs(most - least) + ms(1)).await;
        get(&service, "/").await;
        settle().await;
        assert_eq!(origin.calls(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_doubles_to_half_a_minute_and_half_of_it_is_random() {
    let origin = then_refuses();
    let service = stale(&origin).await;
    get(&service, "/").await;
    for ceiling in [1, 2, 4, 8, 16, 30, 30, 30] {
        let calls = origin.calls();
        advance(secs(ceiling) / 2 - ms(1)).await;
        get(&service, "/").await;
        settle().await;
        assert_eq!(origin.calls(), calls, "before half of {ceiling} s");
        advance(secs(ceiling) / 2 + ms(2)).await;
        get(&service, "/").await;
        settle().await;
        assert_eq!(origin.calls(), calls + 1, "after {ceiling} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_pauses() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("old"),
        2 | 4 => status(500),
        _ => ok("new"),
    });
    let service = stale(&origin).await;
    get(&service, "/").await;
    advance(secs(1)).await;
    assert_eq!(get(&service, "/").await.body, "new", "its client waits for it");
    assert!(get(&service, "/").await.is_hit());
    // The next failure is the first one again: its client waits for it, and the pause is short.
    advance(secs(2)).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::IfError));
    advance(secs(1)).await;
    get(&service, "/").await;
    settle().await;
    assert_eq!(origin.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn after_the_pause_all_clients_wait_for_one_fetch() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("old"),
        2 => status(500),
        _ => ok("new").after(secs(2)),
    });
    let service = stale(&origin).await;
    get(&service, "/").await;
    advance(secs(1)).await;
    let replies = join_all((0..100).map(|_| get(&service, "/"))).await;
    assert!(replies.iter().all(|reply| reply.body == "new"));
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_client_waits_for_the_probe_of_an_origin_that_is_down() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        ..=21 => ok("good"),
        22..=41 => status(503),
        _ => hangs(),
    });
    let layer = ReadThroughLayer::builder(small_store()).rules(rules()).build().unwrap();
    let service = layer.layer(origin.clone());
    let keys: Vec<_> = (0..=20).map(|key| format!("/{key}")).collect();
    for _ in 0..2 {
        for key in &keys {
            assert_eq!(get(&service, key).await.body, "good");
        }
        advance(secs(2)).await;
    }
    for _ in 0..100 {
        let sent = Instant::now();
        let reply = get(&service, "/20").await;
        assert_eq!((&reply.body[..], why(&reply)), (&b"good"[..], Some(Stale::OriginDown)));
        assert_eq!(sent.elapsed(), Duration::ZERO);
    }
    settle().await;
    assert_eq!((origin.calls(), origin.under_way()), (42, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_hangs_has_failed_at_its_deadline() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("good") } else { hangs() });
    let layer = ReadThroughLayer::builder(small_store())
        .rules(rules().stale_while_revalidate_for(secs(86_400)))
        .lookup(|lookup| lookup.refresh_deadline(secs(30)))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    advance(secs(2)).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::WhileRevalidating));
    tokio::time::sleep(secs(30)).await;
    settle().await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::OriginFailed));
    assert_eq!(origin.calls(), 2, "its pause has begun");
}

#[tokio::test(start_paused = true)]
async fn the_pause_of_one_key_is_not_that_of_another() {
    let origin = ScriptedOrigin::new(|call, head| match (call, head.uri.path()) {
        (1 | 2, _) | (_, "/b") => ok("good"),
        _ => status(503),
    });
    let layer = ReadThroughLayer::builder(small_store()).rules(rules()).build().unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/a").await;
    get(&service, "/b").await;
    advance(secs(2)).await;
    assert_eq!(why(&get(&service, "/a").await), Some(Stale::IfError));
    assert_eq!(get(&service, "/b").await.cache(), "fwd=stale");
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_served_stale_is_fetched_in_a_pause() {
    let first = || ok("good").header("cache-control", "max-age=1, stale-if-error=10").header("etag", "\"1\"");
    let origin = ScriptedOrigin::new(move |call, _| if call == 1 { first() } else { status(503) });
    let service = stale(&origin).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::IfError));
    assert_eq!(origin.calls(), 2);
    // With credentials, which what is stored is not for.
    assert_eq!(get_with(&service, "/", &[("authorization", "me")]).await.status.as_u16(), 503);
    assert_eq!(origin.calls(), 3);
    // HEAD may, as GET.
    assert_eq!(why(&send(&service, request("HEAD", "/", &[])).await), Some(Stale::OriginFailed));
    assert_eq!(origin.calls(), 3);
    advance(secs(10)).await;
    for calls in 4..6 {
        assert_eq!(get(&service, "/").await.status.as_u16(), 503, "its window is over");
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn staleness_while_the_origin_is_up_can_be_bounded() {
    let origin = ScriptedOrigin::new(|call, _| if call < 3 { ok(format!("v{call}")) } else { status(503) });
    let layer = ReadThroughLayer::builder(small_store())
        .rules(rules().stale_while_revalidate_for(secs(3_600)).stale_if_error_for(secs(0)))
        .lookup(|lookup| lookup.max_stale_while_up(secs(10)))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    advance(secs(11)).await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=stale", "too stale, so the client waits");
    advance(secs(11) - ms(1)).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::WhileRevalidating));
    settle().await;
    assert_eq!(origin.calls(), 3);
    // The rest of the window is for the time in which it fails.
    advance(secs(1_000)).await;
    assert_eq!(get(&service, "/").await.body, "v2");
}

#[tokio::test(start_paused = true)]
async fn a_key_rests_without_a_lookup_above_too() {
    let origin = then_refuses();
    let store = small_store();
    let service = ServiceBuilder::new()
        .layer(KeyLayer::default())
        .layer(StaleIfErrorLayer::new(store.clone()).health(OriginHealth::new()))
        .layer(FillLayer::new(store).rules(rules()))
        .service(origin.clone());
    get(&service, "/").await;
    advance(secs(2)).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::IfError));
    for _ in 0..10 {
        assert_eq!(get(&service, "/").await.cache(), "hit; detail=origin-failed");
    }
    assert_eq!(origin.calls(), 2);
    advance(secs(1)).await;
    assert_eq!(why(&get(&service, "/").await), Some(Stale::IfError), "asked again after the pause");
    assert_eq!(origin.calls(), 3);
}

/// Twenty-one keys are stored and stale, and twenty of them have failed: the origin is down.
async fn down(service: &Service) {
    for _ in 0..2 {
        for key in 0..=20 {
            assert_eq!(get(service, &format!("/{key}")).await.body, "good");
            settle().await;
        }
        advance(secs(2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn callers_of_the_same_fetch_take_one_permit_of_a_recovery() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        ..=21 => ok("good"),
        22..=41 => status(503),
        _ => ok("new").max_age(60).after(secs(3)),
    });
    let layer = ReadThroughLayer::builder(small_store())
        .rules(rules())
        .origin_limit(OriginLimitLayer::new(64))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    down(&service).await;
    // The probe.
    get(&service, "/20").await;
    tokio::time::sleep(secs(3)).await;
    settle().await;
    assert_eq!((origin.calls(), origin.under_way()), (42, 0));
    let ask = |path: &'static str| {
        let service = service.clone();
        tokio::spawn(async move { get(&service, path).await })
    };
    let hot: Vec<_> = (0..100).map(|_| ask("/0")).collect();
    settle().await;
    assert_eq!(origin.under_way(), 1);
    let others = [ask("/1"), ask("/missing")];
    settle().await;
    assert_eq!(origin.under_way(), 3, "what is stale, and what is not stored, has a permit of the recovery");
    for other in others {
        assert_eq!(other.await.unwrap().body, "new");
    }
    for reply in join_all(hot).await {
        assert_eq!(reply.unwrap().body, "new", "all of them wait for the one fetch");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_does_not_wait_for_the_probe_of_an_origin_that_is_down() {
    for revalidates in [false, true] {
        let origin = ScriptedOrigin::new(|call, _| match call {
            ..=21 => ok("good"),
            22..=41 => status(503),
            _ => hangs(),
        });
        let rules = if revalidates { rules().stale_while_revalidate_for(secs(86_400)) } else { rules() };
        let layer = ReadThroughLayer::builder(small_store()).rules(rules).build().unwrap();
        let service = layer.layer(origin.clone());
        down(&service).await;
        for _ in 0..10 {
            let head = send(&service, request("HEAD", "/20", &[]));
            let reply = tokio::time::timeout(secs(1), head).await.expect("it is served");
            assert_eq!((reply.status, why(&reply)), (StatusCode::OK, Some(Stale::OriginDown)));
        }
        settle().await;
        assert_eq!((origin.calls(), origin.under_way()), (42, 1), "the first HEAD is the probe");
        assert_eq!(origin.last_request().method, "HEAD", "the service below may be one for HEAD alone");
        assert_eq!(why(&get(&service, "/20").await), Some(Stale::OriginDown));
        settle().await;
        assert_eq!((origin.calls(), origin.under_way()), (42, 1), "one at a time");
    }
}

/// What refreshes nothing, and for which something stale may be served.
const NOT_STORED: [(&str, &[(&str, &str)]); 2] = [("HEAD", &[]), ("GET", &[("cache-control", "no-store")])];

#[tokio::test(start_paused = true)]
async fn what_refreshes_nothing_finds_out_that_an_origin_is_back() {
    for (method, fields) in NOT_STORED {
        for revalidates in [false, true] {
            let origin = ScriptedOrigin::new(|call, head| match (call, head.method.as_str()) {
                (22..=42, _) => status(503),
                // Longer than a client would wait.
                (43, _) => ok("").max_age(60).after(secs(3)),
                (..=21, _) => ok("good"),
                _ => ok("new").max_age(60),
            });
            let health = OriginHealth::new();
            let rules = if revalidates { rules().stale_while_revalidate_for(secs(86_400)) } else { rules() };
            let layer = ReadThroughLayer::builder(small_store())
                .rules(rules)
                .outage(health.clone())
                .lookup(|lookup| lookup.request_directives(true))
                .coalesce(|layer| layer.wait_at_most(secs(2)))
                .build()
                .unwrap();
            let service = layer.layer(origin.clone());
            down(&service).await;
            assert_eq!(health.state(), OriginState::Down);
            let ask = async || {
                let reply = send(&service, request(method, "/20", fields)).await;
                settle().await;
                (reply.status, why(&reply))
            };
            assert_eq!((ask().await, origin.calls()), ((StatusCode::OK, Some(Stale::OriginDown)), 42));
            // That probe has failed, and the next one waits for its time, whatever rests.
            let failed = Instant::now();
            while health.state() == OriginState::Down {
                assert!(failed.elapsed() < secs(6), "{method} {revalidates}");
                assert_eq!(ask().await, (StatusCode::OK, Some(Stale::OriginDown)));
                advance(ms(100)).await;
            }
            assert!(failed.elapsed() >= secs(4), "half of two seconds at least: {:?}", failed.elapsed());
            assert_eq!(
                (origin.calls(), health.state()),
                (43, OriginState::Recovering),
                "{method} {revalidates}"
            );
            // Neither was stored, nor is it in the way of what is.
            let reply = get(&service, "/20").await;
            settle().await;
            let expected = if revalidates { "good" } else { "new" };
            assert_eq!(
                (&reply.body[..], origin.calls()),
                (expected.as_bytes(), 44),
                "{method} {revalidates}"
            );
            assert_eq!(get(&service, "/20").await.body, "new");
        }
    }
}
