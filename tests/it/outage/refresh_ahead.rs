//! What keeps responses that were stored together from being fetched together.

use http::request::Parts;
use tokio::time::advance;
use tower::Layer;
use tower_readthrough::{
    CacheRequest, MemoryStore, OriginHealth, OriginState, Purpose, ReadThrough, ReadThroughLayer, Rules,
};

use crate::support::{ScriptedOrigin, get, ms, ok, secs, settle, stack, status, store};

fn cached(rules: Rules, origin: &ScriptedOrigin) -> ReadThrough<ScriptedOrigin, MemoryStore> {
    stack(rules).layer(origin.clone())
}

fn numbered() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, _| ok(format!("v{call}")))
}

/// How often the origin was called in each second in which all keys are requested, after all were stored
/// together.
async fn calls_by_second(rules: Rules, keys: usize, seconds: usize) -> Vec<usize> {
    fastrand::seed(7);
    let origin = ScriptedOrigin::unrecorded(|_, _| ok("x"));
    let service = cached(rules, &origin);
    let mut calls = Vec::new();
    for _ in 0..=seconds {
        let before = origin.calls();
        for key in 0..keys {
            get(&service, &format!("/{key}")).await;
        }
        settle().await;
        calls.push(origin.calls() - before);
        advance(secs(1)).await;
    }
    assert_eq!(calls.remove(0), keys);
    calls
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_begins_with_a_request_in_the_last_part_of_the_lifetime() {
    let mut moments = Vec::new();
    for seed in 0..50 {
        fastrand::seed(seed);
        let origin = numbered();
        let service = cached(Rules::new().default_ttl(secs(100)).refresh_ahead(0.6), &origin);
        get(&service, "/").await;
        for second in 0..=100 {
            // Drawn from the last second.
            if second == 100 {
                moments.push(second);
                break;
            }
            let reply = get(&service, "/").await;
            assert!(reply.is_hit(), "second {second}");
            settle().await;
            if origin.calls() == 2 {
                assert_eq!(reply.body, "v1", "nothing waits for it");
                assert_eq!(get(&service, "/").await.body, "v2");
                let purpose = |head: &Parts| head.extensions.get::<CacheRequest>().unwrap().purpose();
                assert_eq!(purpose(&origin.last_request()), Purpose::RefreshAhead);
                moments.push(second);
                break;
            }
            advance(secs(1)).await;
        }
    }
    moments.sort_unstable();
    assert!(moments[0] >= 60, "{moments:?}");
    let (early, late) = (moments[moments.len() / 4], moments[3 * moments.len() / 4]);
    assert!((62..78).contains(&early) && (82..98).contains(&late), "spread evenly: {moments:?}");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_no_client_asks_for_is_not_refreshed() {
    let origin = numbered();
    let service = cached(Rules::new().default_ttl(secs(100)).refresh_ahead(0.6), &origin);
    get(&service, "/").await;
    advance(secs(99)).await;
    settle().await;
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_refresh_ahead_is_under_way_at_a_time_and_a_failed_one_rests() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("v1") } else { status(503).after(ms(500)) });
    let service = cached(Rules::new().default_ttl(secs(1_000)).refresh_ahead(0.001), &origin);
    get(&service, "/").await;
    advance(secs(999)).await;
    for _ in 0..50 {
        assert!(get(&service, "/").await.is_hit());
        settle().await;
    }
    assert_eq!(origin.calls(), 2);
    advance(ms(501)).await;
    for _ in 0..50 {
        settle().await;
        assert!(get(&service, "/").await.is_hit());
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_is_early_enough_for_a_slow_origin() {
    let mut early = 0;
    for seed in 0..100 {
        fastrand::seed(seed);
        let origin = ScriptedOrigin::new(|_, _| ok("x").max_age(100).after(secs(10)));
        let service = cached(Rules::new().refresh_ahead(0.999), &origin);
        get(&service, "/").await;
        // Ten seconds before its end, of which ten have passed when it arrives.
        advance(secs(80)).await;
        get(&service, "/").await;
        settle().await;
        early += usize::from(origin.calls() == 2);
    }
    // e^-1 of them.
    assert!((25..50).contains(&early), "{early}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_refreshed_within_a_second_of_storing() {
    for ttl in [ms(500), secs(1), ms(1_500)] {
        let origin = numbered();
        let service = cached(Rules::new().default_ttl(ttl).refresh_ahead(0.01), &origin);
        get(&service, "/").await;
        advance(ttl.min(secs(1)) - ms(1)).await;
        get(&service, "/").await;
        settle().await;
        assert_eq!(origin.calls(), 1, "{ttl:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_herd_is_spread_to_three_times_the_mean() {
    let ttl = Rules::new().default_ttl(secs(60));
    for (name, rules) in [
        ("refresh_ahead", ttl.clone().refresh_ahead(0.6)),
        ("ttl_jitter", ttl.clone().ttl_jitter(0.4).stale_while_revalidate_for(secs(10))),
    ] {
        let calls = calls_by_second(rules, 1_000, 62).await;
        let (worst, sum) = (*calls.iter().max().unwrap(), calls.iter().sum::<usize>());
        let mean = sum as f64 / calls.len() as f64;
        assert!((worst as f64) < 3.0 * mean + 10.0, "{name}: {worst} of {mean}: {calls:?}");
    }
    let calls = calls_by_second(ttl, 100, 62).await;
    assert_eq!(calls.iter().max(), Some(&100), "all in one second without them");
}

#[tokio::test(start_paused = true)]
async fn jitter_makes_lifetimes_shorter_and_never_longer() {
    let calls = calls_by_second(Rules::new().fixed_ttl(secs(50)).ttl_jitter(0.5), 500, 51).await;
    assert_eq!(calls[..24].iter().sum::<usize>(), 0, "{calls:?}");
    assert!(calls[..49].iter().sum::<usize>() > 450, "{calls:?}");
    assert!(calls.iter().sum::<usize>() >= 500, "{calls:?}");
}

#[test]
fn impossible_shares_are_refused() {
    let rules = Rules::new;
    for (rules, setting) in [
        (rules().ttl_jitter(0.0), "ttl_jitter"),
        (rules().ttl_jitter(0.51), "ttl_jitter"),
        (rules().ttl_jitter(f64::NAN), "ttl_jitter"),
        (rules().refresh_ahead(0.0), "refresh_ahead"),
        (rules().refresh_ahead(1.0), "refresh_ahead"),
        (rules().refresh_ahead(-1.0), "refresh_ahead"),
    ] {
        let error = ReadThroughLayer::builder(store()).rules(rules).build().unwrap_err();
        assert!(error.to_string().starts_with(&format!("`{setting}` is an invalid share")), "{error}");
    }
    let possible = rules().ttl_jitter(0.5).refresh_ahead(0.999_999);
    assert!(ReadThroughLayer::builder(store()).rules(possible).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_is_over_by_time_keeps_no_refresh_ahead_away() {
    fastrand::seed(7);
    let origin = ScriptedOrigin::new(|call, _| if call <= 20 { status(503) } else { ok("x") });
    let health = OriginHealth::new();
    let layer = ReadThroughLayer::builder(store())
        .rules(Rules::new().default_ttl(secs(100)).refresh_ahead(0.6))
        .outage(health.clone())
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    for key in 0..20 {
        get(&service, &format!("/{key}")).await;
    }
    assert_eq!(health.state(), OriginState::Down);
    get(&service, "/").await;
    assert_eq!(health.state(), OriginState::Recovering);
    // Only hits from now on, which ask for no state.
    for _ in 0..98 {
        advance(secs(1)).await;
        assert!(get(&service, "/").await.is_hit());
        settle().await;
    }
    assert_eq!(origin.calls(), 22, "it was refreshed while it was fresh");
    let purpose = origin.last_request().extensions.get::<CacheRequest>().unwrap().purpose();
    assert_eq!(purpose, Purpose::RefreshAhead);
}
