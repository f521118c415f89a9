//! A probe of its own tells when an origin is back.

use http::Request;
use tokio::time::Instant;
use tower::Layer;
use tower_readthrough::{OriginHealth, OriginLimitLayer, OriginState, ReadThroughLayer, Rules, probe::Probe};

use crate::support::{
    Body, ScriptedOrigin, error, get_request, hangs, ms, ok, secs, small_store, status, try_send,
};

/// An origin that is down, by requests for which nothing is stored.
async fn down(origin: &ScriptedOrigin) -> OriginHealth {
    let health = OriginHealth::new();
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new())
        .outage(health.clone())
        .origin_limit(OriginLimitLayer::new(64))
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    for key in 0..30 {
        _ = try_send(&service, get_request(&format!("/{key}"))).await;
        tokio::time::advance(ms(100)).await;
    }
    assert_eq!(health.state(), OriginState::Down);
    health
}

fn probe(health: &OriginHealth) -> Probe {
    Probe::new(health.clone(), Request::get("http://origin.example/healthz").body(()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_probe_notices_without_traffic_that_an_origin_is_back() {
    let began = Instant::now();
    let origin = ScriptedOrigin::new(move |_, _| if began.elapsed() < secs(60) { error() } else { ok("up") });
    let health = down(&origin).await;
    let calls = origin.calls();
    let task = tokio::spawn(probe(&health).every(secs(2)).run::<_, Body, _>(origin.clone()));
    tokio::time::sleep_until(began + secs(59)).await;
    assert_eq!(health.state(), OriginState::Down);
    assert!((28..=30).contains(&(origin.calls() - calls)), "{}", origin.calls() - calls);
    tokio::time::sleep(secs(4)).await;
    assert_ne!(health.state(), OriginState::Down);
    assert_eq!(origin.last_request().uri, "http://origin.example/healthz");
    tokio::time::sleep(secs(60)).await;
    assert_eq!(health.state(), OriginState::Up);
    let calls = origin.calls();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(origin.calls(), calls, "an origin that is up is not asked");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_probe_waits_for_no_longer_than_it_may_and_asks_once_at_a_time() {
    let origin = ScriptedOrigin::new(|call, _| if call <= 30 { error() } else { hangs() });
    let health = down(&origin).await;
    let task = tokio::spawn(probe(&health).every(ms(0)).timeout(secs(1)).run::<_, Body, _>(origin.clone()));
    tokio::time::sleep(ms(10_500)).await;
    assert_eq!((origin.calls() - 30, origin.most_under_way()), (11, 1));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_counts_as_a_failure_can_be_said() {
    let origin = ScriptedOrigin::new(|call, _| if call <= 30 { error() } else { status(404) });
    let health = down(&origin).await;
    let strict = probe(&health).failures(|status: http::StatusCode, _: &http::HeaderMap| status != 200);
    let task = tokio::spawn(strict.run::<_, Body, _>(origin.clone()));
    tokio::time::sleep(secs(30)).await;
    assert_eq!(health.state(), OriginState::Down);
    task.abort();
    let task = tokio::spawn(probe(&health).run::<_, Body, _>(origin));
    tokio::time::sleep(secs(1)).await;
    assert_ne!(health.state(), OriginState::Down);
    task.abort();
}
