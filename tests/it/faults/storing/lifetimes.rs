//! Lifetimes and stale windows by default and by rules.

use super::Both;
use tower::Layer;
use tower_readthrough::{KeyRule, KeyRules, MemoryStore, ReadThroughLayer, RetryPolicy, Rules, StaleWindow};

use crate::support::{ScriptedOrigin, get, ok, secs, status};

#[tokio::test(start_paused = true)]
async fn nothing_is_fresh_by_heuristics_unless_a_rule_asks_for_it() {
    for line in ["x", "public"] {
        let origin = ScriptedOrigin::always(move || {
            ok("x").header("cache-control", line).header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        });
        assert!(!Both::new(Rules::new(), origin).store("/", &[]).await);
    }
}

#[tokio::test(start_paused = true)]
async fn heuristics_apply_where_a_rule_asks_for_them() {
    let dated = || ok("x").header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let guess = Rules::new().heuristic(0.1, secs(60));
    let both = Both::new(guess, ScriptedOrigin::always(dated));
    assert!(both.store("/", &[]).await);
    tokio::time::advance(secs(61)).await;
    assert!(both.get("/", &[]).await.iter().all(|reply| !reply.is_hit()), "a minute at most");
    let rules = KeyRules::builder().rule(KeyRule::path("/files/{*rest}").heuristic(0.1, secs(60)));
    let layer =
        ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).key(rules.build().unwrap());
    let service = layer.build().unwrap().layer(ScriptedOrigin::always(dated));
    for (path, is_hit) in [("/files/a", false), ("/files/a", true), ("/b", false), ("/b", false)] {
        assert_eq!(get(&service, path).await.is_hit(), is_hit, "{path}");
    }
    for (share, at_most) in [(0.0, 1), (-0.1, 1), (1.5, 1), (f64::NAN, 1), (0.1, 0)] {
        let rule = KeyRule::any().heuristic(share, secs(at_most));
        assert!(KeyRules::builder().rule(rule).build().is_err(), "{share} {at_most}");
    }
}

/// How a response is served a second after its lifetime, by a stack whose origin fails or is
/// slow.
async fn served_stale(rules: Rules, line: &'static str) -> [bool; 2] {
    let mut served = [false; 2];
    for (at, answer) in [ok("y").after(secs(5)), status(503)].into_iter().enumerate() {
        let mut answer = Some(answer);
        let second = std::sync::Mutex::new(answer.take());
        let origin = ScriptedOrigin::new(move |call, _| match call {
            1 => ok("x").header("cache-control", line),
            _ => second.lock().unwrap().take().unwrap_or_else(|| status(503)),
        });
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let layer = ReadThroughLayer::builder(store)
            .rules(rules.clone())
            .retry(RetryPolicy::never())
            .build()
            .unwrap();
        let service = layer.layer(origin);
        get(&service, "/").await;
        tokio::time::advance(secs(61)).await;
        served[at] = get(&service, "/").await.body == "x";
    }
    served
}

#[tokio::test(start_paused = true)]
async fn a_window_that_the_response_names_beside_s_maxage_counts() {
    let rules = Rules::new().stale_while_revalidate_for(secs(600)).stale_if_error_for(secs(600));
    for (line, expected) in [
        ("s-maxage=60", [false, false]),
        ("s-maxage=60, stale-while-revalidate=300", [true, true]),
        ("s-maxage=60, stale-if-error=300", [false, true]),
        ("s-maxage=60, stale-if-error=0", [false, false]),
        ("max-age=60, must-revalidate, stale-while-revalidate=300", [false, false]),
        ("max-age=60, proxy-revalidate, stale-if-error=300", [false, false]),
        ("s-maxage=60, must-revalidate, stale-if-error=300", [false, false]),
        ("max-age=60", [true, true]),
    ] {
        assert_eq!(served_stale(rules.clone(), line).await, expected, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_opens_a_stale_window_despite_must_revalidate() {
    let rules = Rules::new().stale_while_revalidate_for(secs(600)).stale_if_error_for(secs(600));
    let all = [StaleWindow::WhileRevalidating, StaleWindow::IfError];
    for line in ["s-maxage=60", "max-age=60, must-revalidate", "max-age=60, proxy-revalidate"] {
        let open = |windows: &[StaleWindow]| {
            served_stale(rules.clone().stale_despite_revalidate(windows.iter().copied()), line)
        };
        assert_eq!(open(&[]).await, [false, false], "{line}");
        assert_eq!(open(&[StaleWindow::IfError]).await, [false, true], "{line}");
        assert_eq!(open(&all).await, [true, true], "{line}");
    }
    let no_cache = Rules::new().stale_if_error_for(secs(600)).stale_despite_revalidate(all);
    assert_eq!(served_stale(no_cache, "no-cache, stale-if-error=600").await, [false, true]);
}
