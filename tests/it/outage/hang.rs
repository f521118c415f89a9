//! An origin that hangs is noticed by requests that need nothing of it.

use http::request::Parts;
use tokio::time::{Instant, advance};
use tower::Layer;
use tower_readthrough::{
    MemoryStore, OriginHealth, OriginLimitLayer, ReadThrough, ReadThroughLayer, Rules, Stale,
};

use crate::support::{Reply, ScriptedOrigin, get, hangs, ms, ok, secs, settle, small_store, status};

fn why(reply: &Reply) -> Option<Stale> {
    reply.cache_status.and_then(|status| status.stale_reason())
}

/// So many keys are stored, and stale.
async fn stale(
    origin: &ScriptedOrigin,
    rules: Rules,
    limit: OriginLimitLayer,
    keys: usize,
) -> ReadThrough<ScriptedOrigin, MemoryStore> {
    let layer = ReadThroughLayer::builder(small_store())
        .rules(rules.default_ttl(secs(1)))
        .outage(OriginHealth::builder().seed(1).build().unwrap())
        .origin_limit(limit)
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    for key in 0..keys {
        assert_eq!(get(&service, &format!("/{key}")).await.body, "good");
    }
    advance(secs(2)).await;
    service
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_hangs_is_down_also_where_no_request_waits_for_it() {
    for keys in [5, 40] {
        let origin = ScriptedOrigin::new(move |call, _| if call <= keys { ok("good") } else { hangs() });
        let rules = Rules::new().stale_while_revalidate_for(secs(86_400));
        let service = stale(&origin, rules, OriginLimitLayer::new(64), keys).await;
        let begun = Instant::now();
        let down_after = loop {
            for key in 0..keys {
                let reply = get(&service, &format!("/{key}")).await;
                if why(&reply) == Some(Stale::OriginDown) {
                    break;
                }
                assert_eq!(why(&reply), Some(Stale::WhileRevalidating));
            }
            if why(&get(&service, "/0").await) == Some(Stale::OriginDown) {
                break begun.elapsed();
            }
            settle().await;
            assert_eq!(origin.under_way(), keys, "one fetch for each key");
            advance(ms(100)).await;
            assert!(begun.elapsed() < secs(20), "the hang is not noticed");
        };
        assert!((secs(10)..ms(10_300)).contains(&down_after), "{down_after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn four_keys_that_hang_are_no_outage() {
    let origin = ScriptedOrigin::new(|call, _| if call <= 4 { ok("good") } else { hangs() });
    let rules = Rules::new().stale_while_revalidate_for(secs(86_400));
    let service = stale(&origin, rules, OriginLimitLayer::new(64), 4).await;
    for second in 0..60 {
        for key in 0..4 {
            let reply = get(&service, &format!("/{key}")).await;
            assert_ne!(why(&reply), Some(Stale::OriginDown), "after {second} s");
        }
        advance(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_exempt_from_the_limit_probes_no_more_often_than_the_rest() {
    for rules in
        [Rules::new().stale_while_revalidate_for(secs(86_400)), Rules::new().stale_if_error_for(secs(86_400))]
    {
        let origin = ScriptedOrigin::unrecorded(|call, _| if call <= 25 { ok("good") } else { status(503) });
        let service = stale(&origin, rules, OriginLimitLayer::new(64).exempt(|_| true), 25).await;
        let before = origin.calls();
        for _ in 0..120 {
            for key in 0..25 {
                assert_eq!(get(&service, &format!("/{key}")).await.body, "good");
            }
            settle().await;
            advance(ms(500)).await;
        }
        // Those until the origin is down, and the probes of a minute: after 1 s, 2, 4, 8, and 10 each at most.
        let attempts = origin.calls() - before;
        assert!((20 + 7..=25 + 16).contains(&attempts), "{attempts}");
    }
}

/// Asks for each of the keys in turn, every 100 ms, and returns when the origin was no longer down after it had
/// been.
async fn seconds_of_hang(service: &ReadThrough<ScriptedOrigin, MemoryStore>, keys: usize) -> f64 {
    let (begun, mut was_down) = (Instant::now(), false);
    while begun.elapsed() < secs(60) {
        for key in 0..keys {
            let is_down = why(&get(service, &format!("/{key}")).await) == Some(Stale::OriginDown);
            if was_down && !is_down {
                return begun.elapsed().as_secs_f64();
            }
            was_down |= is_down;
        }
        settle().await;
        advance(ms(100)).await;
    }
    panic!("{}", if was_down { "it stays down" } else { "it is never down" });
}

#[tokio::test(start_paused = true)]
async fn refreshes_that_hang_do_not_keep_an_origin_from_being_probed() {
    let rules = || Rules::new().stale_while_revalidate_for(secs(86_400));
    for keys in [5, 6, 40] {
        let hang = keys + 1..=2 * keys;
        let script = move |call: usize, _: &Parts| if hang.contains(&call) { hangs() } else { ok("good") };
        let service = stale(&ScriptedOrigin::new(script), rules(), OriginLimitLayer::new(64), keys).await;
        // Down after 10 s, and the first probe a second later.
        let after = seconds_of_hang(&service, keys).await;
        assert!((10.5..13.0).contains(&after), "{keys} keys: {after} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_number_of_refreshes_does_not_keep_an_origin_from_being_probed() {
    let origin = ScriptedOrigin::new(|call, _| if (7..=11).contains(&call) { hangs() } else { ok("good") });
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new().default_ttl(secs(1)).stale_while_revalidate_for(secs(86_400)))
        .lookup(|lookup| lookup.max_refreshes(5))
        .outage(OriginHealth::builder().seed(1).build().unwrap())
        .build()
        .unwrap();
    let service = layer.layer(origin.clone());
    for key in 0..6 {
        get(&service, &format!("/{key}")).await;
    }
    advance(secs(2)).await;
    let after = seconds_of_hang(&service, 6).await;
    assert!((10.5..13.0).contains(&after), "{after} s");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_does_not_keep_its_key_from_the_next_one() {
    for rules in
        [Rules::new().stale_while_revalidate_for(secs(86_400)), Rules::new().stale_if_error_for(secs(86_400))]
    {
        let origin = ScriptedOrigin::new(|call, _| match call {
            ..=21 => ok("good"),
            22..=41 => status(503),
            42 => hangs(),
            _ => ok("good").max_age(60),
        });
        let service = stale(&origin, rules, OriginLimitLayer::new(64), 21).await;
        for key in 0..20 {
            get(&service, &format!("/{key}")).await;
            settle().await;
        }
        assert_eq!(origin.calls(), 41);
        // One key is asked for from now on: the first probe after a second, the next one 5 s and a pause later.
        let begun = Instant::now();
        while origin.calls() < 43 {
            assert_eq!(get(&service, "/20").await.body, "good");
            settle().await;
            advance(ms(100)).await;
            assert!(begun.elapsed() < secs(12), "{} calls", origin.calls());
        }
        settle().await;
        assert!(get(&service, "/20").await.is_hit(), "what the second probe brought is stored");
    }
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_hangs_is_down_also_under_a_small_limit() {
    for limit in [3, 4, 5, 6, 7] {
        let origin = ScriptedOrigin::new(|call, _| if call <= 20 { ok("good") } else { hangs() });
        let rules = Rules::new().stale_if_error_for(secs(86_400));
        let service = stale(&origin, rules, OriginLimitLayer::new(limit), 20).await;
        let begun = Instant::now();
        loop {
            for key in 0..20 {
                let service = service.clone();
                tokio::spawn(async move { get(&service, &format!("/{key}")).await });
            }
            settle().await;
            advance(ms(100)).await;
            let reply = tokio::time::timeout(ms(1), get(&service, "/0")).await;
            if reply.is_ok_and(|reply| why(&reply) == Some(Stale::OriginDown)) {
                break;
            }
            assert!(begun.elapsed() < ms(11_500), "limit {limit}: the hang is not noticed");
        }
        assert!(begun.elapsed() > secs(9), "{:?}", begun.elapsed());
    }
}
