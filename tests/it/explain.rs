//! What would become of a request, without the origin.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::request::Parts;
use tower::Layer;
use tower_readthrough::{
    Explanation, Failover, Forward, KeyRule, KeyRules, MemoryStore, OriginHealth, OriginLimitLayer,
    OriginState, Outcome, ReadThroughLayer, Rules, Stale, Unkeyed,
};

use crate::support::{
    ScriptedOrigin, get, get_with, ok, request, secs, send, settle, small_store, status, try_send,
};

fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> Parts {
    request(method, path, fields).into_parts().0
}

type Layered = ReadThroughLayer<MemoryStore, KeyRules>;

fn layer() -> Layered {
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/account/{*rest}").name("account").bypass())
        .rule(KeyRule::path("/p/{id}").name("product").keep_query(["v"]));
    let storing = Rules::new().stale_if_error_for(secs(60));
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    ReadThroughLayer::builder(store).key(rules.build().unwrap()).rules(storing).build().unwrap()
}

/// Each outcome is foreseen, and comes.
#[tokio::test(start_paused = true)]
async fn what_is_explained_happens() {
    let script = |_: usize, head: &Parts| match head.uri.path() {
        "/varied" => ok("x").max_age(10).header("vary", "accept-language"),
        "/swr" => ok("x").header("cache-control", "max-age=10, stale-while-revalidate=600"),
        "/own" => ok("x").header("cache-control", "private"),
        "/fails" if head.headers.contains_key("x-fail") => status(503),
        _ => ok("x").max_age(10),
    };
    let layer = layer();
    let service = layer.layer(ScriptedOrigin::new(script));
    let mut seen = Vec::new();
    let mut ask = async |method: &str, path: &str, fields: &[(&str, &str)]| {
        let before = layer.stats().snapshot();
        let explained = layer.explain(&head(method, path, fields));
        assert_eq!(layer.stats().snapshot().requests(), before.requests(), "it counts nothing");
        let reply = try_send(&service, request(method, path, fields)).await.unwrap();
        let outcome = explained.outcome();
        let said = reply.cache();
        let expected = match outcome {
            Some(Outcome::Hit) => "hit".to_owned(),
            Some(Outcome::Stale(why)) => format!("hit; detail={why}"),
            Some(Outcome::Forwarded(why)) => format!("fwd={why}"),
            Some(Outcome::Unkeyed(why)) => format!("fwd=bypass; detail={why}"),
            None => "none".to_owned(),
            other => panic!("{other:?}"),
        };
        assert!(outcome.is_none() || said.starts_with(&expected), "{said} instead of {expected}");
        seen.push(outcome);
    };
    ask("GET", "/p/1?v=1&utm=2", &[]).await;
    ask("GET", "/p/1?v=1&utm=3", &[]).await;
    ask("GET", "/account/1", &[]).await;
    ask("POST", "/p/1", &[]).await;
    ask("GET", "/varied", &[("accept-language", "de")]).await;
    ask("GET", "/varied", &[("accept-language", "en")]).await;
    ask("GET", "/own", &[]).await;
    ask("GET", "/own", &[]).await;
    ask("GET", "/swr", &[]).await;
    ask("GET", "/fails", &[]).await;
    tokio::time::advance(secs(11)).await;
    ask("GET", "/swr", &[]).await;
    ask("GET", "/p/1?v=1", &[]).await;
    // What the fetch then brings is not foreseen.
    get_with(&service, "/fails", &[("x-fail", "1")]).await;
    ask("GET", "/fails", &[]).await;
    let forwarded = |why| Some(Outcome::Forwarded(why));
    let expected = [
        forwarded(Forward::UriMiss),
        Some(Outcome::Hit),
        Some(Outcome::Unkeyed(Unkeyed::RuleBypass)),
        None,
        forwarded(Forward::UriMiss),
        forwarded(Forward::VaryMiss),
        forwarded(Forward::UriMiss),
        forwarded(Forward::Bypass),
        forwarded(Forward::UriMiss),
        forwarded(Forward::UriMiss),
        Some(Outcome::Stale(Stale::WhileRevalidating)),
        forwarded(Forward::Stale),
        Some(Outcome::Stale(Stale::OriginFailed)),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_told_with_its_windows_tags_and_audience() {
    let layer = layer();
    let origin = ScriptedOrigin::always(|| {
        ok("x").max_age(60).header("vary", "accept-language").header("surrogate-key", "a b")
    });
    let service = layer.layer(origin.clone());
    get_with(&service, "/p/1?v=1", &[("accept-language", "de")]).await;
    get_with(&service, "/p/1?v=1", &[("accept-language", "en")]).await;
    tokio::time::advance(secs(20)).await;
    let explained = layer.explain(&head("GET", "/p/1?v=1&token=secret", &[("accept-language", "de")]));
    assert_eq!(
        (explained.rule(), explained.stored().len(), explained.is_refreshed()),
        (Some("product"), 2, false)
    );
    let selected: Vec<_> = explained.stored().iter().filter(|stored| stored.is_selected).collect();
    let [only] = &selected[..] else { panic!("{explained:?}") };
    assert_eq!((only.status, only.age_seconds, only.fresh_for_seconds), (200, 20, 40));
    assert_eq!((only.stale_while_revalidate_seconds, only.stale_if_error_seconds), (0, 60));
    assert_eq!(
        (&only.selected_by[..], &only.not_for[..]),
        (&["accept-language".to_owned()][..], &["authorization"][..])
    );
    assert_eq!(only.tags.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
    let text = explained.to_string();
    assert!(
        text.starts_with("GET http://example.com/p/1?\u{2026}\n  outcome  hit\n  rule     product\n"),
        "{text}"
    );
    assert!(text.contains("fresh for 40 s, then served if the origin fails for 60 s"), "{text}");
    assert!(!text.contains("secret") && explained.show_query().to_string().contains("token=secret"));
    layer.purge().url("http://example.com/p/1?v=1").unwrap();
    let purged = layer.explain(&head("GET", "/p/1?v=1", &[("accept-language", "de")]));
    let lost = (Some(Outcome::Forwarded(Forward::Stale)), Some("purged"));
    assert_eq!((purged.outcome(), purged.detail()), lost);
    assert_eq!(origin.calls(), 2);
}

/// As a server gets it, with the host in a field.
#[tokio::test(start_paused = true)]
async fn a_request_without_a_scheme_is_shown_by_host_and_path() {
    let (mut head, ()) =
        http::Request::get("/p/1").header("host", "example.com").body(()).unwrap().into_parts();
    let explained = layer().explain(&head);
    assert!(explained.to_string().starts_with("GET example.com/p/1\n"), "{explained}");
    head.headers.clear();
    let explained = layer().explain(&head);
    assert!(explained.to_string().starts_with("GET /p/1\n  outcome  unkeyed=no-host"), "{explained}");
}

#[tokio::test(start_paused = true)]
async fn a_marker_is_told_with_the_time_that_is_left() {
    let layer = ReadThroughLayer::builder(small_store()).build().unwrap();
    let service = layer.layer(ScriptedOrigin::always(|| ok("x").header("cache-control", "private")));
    get(&service, "/").await;
    tokio::time::advance(secs(4)).await;
    let explained: Explanation = layer.explain(&head("GET", "/", &[]));
    assert_eq!(explained.hit_for_miss_for(), Some(secs(6)));
    assert!(explained.to_string().contains("hit-for-miss, for 6 s more"), "{explained}");
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn an_explanation_is_serialised_without_the_query() {
    let layer = layer();
    let explained = layer.explain(&head("GET", "/p/1?v=1", &[]));
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!((&json["outcome"], &json["reason"]), (&"forwarded".into(), &"uri-miss".into()));
    assert_eq!((&json["rule"], &json["url"]), (&"product".into(), &"http://example.com/p/1?\u{2026}".into()));
    assert_eq!(json["key"], explained.key().unwrap().digest());
    let json = serde_json::to_value(explained.show_query()).unwrap();
    assert_eq!(json["url"], "http://example.com/p/1?v=1");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_rests_is_not_said_to_be_refreshed() {
    let rules = Rules::new().default_ttl(secs(10)).stale_while_revalidate_for(secs(600));
    let layer = ReadThroughLayer::builder(small_store()).rules(rules).build().unwrap();
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("x") } else { status(503) });
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    let explained = layer.explain(&head("GET", "/", &[]));
    assert_eq!(
        (explained.outcome(), explained.is_refreshed()),
        (Some(Outcome::Stale(Stale::WhileRevalidating)), true)
    );
    get(&service, "/").await;
    settle().await;
    let explained = layer.explain(&head("GET", "/", &[]));
    assert_eq!(
        (explained.outcome(), explained.is_refreshed()),
        (Some(Outcome::Stale(Stale::OriginFailed)), false)
    );
    assert_eq!(get(&service, "/").await.cache(), "hit; detail=origin-failed");
    settle().await;
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_begins_no_refresh_is_not_said_to() {
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new().default_ttl(secs(10)).stale_while_revalidate_for(secs(600)))
        .lookup(|lookup| lookup.request_directives(true))
        .build()
        .unwrap();
    let origin = ScriptedOrigin::always(|| ok("x"));
    let service = layer.layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(11)).await;
    for (method, fields, refreshes) in [
        ("HEAD", &[][..], false),
        ("GET", &[("cache-control", "no-store")][..], false),
        ("GET", &[][..], true),
    ] {
        let explained = layer.explain(&head(method, "/", fields));
        assert_eq!(
            (explained.outcome(), explained.is_refreshed()),
            (Some(Outcome::Stale(Stale::WhileRevalidating)), refreshes),
            "{method} {fields:?}"
        );
        let calls = origin.calls();
        send(&service, request(method, "/", fields)).await;
        settle().await;
        assert_eq!(origin.calls() - calls, usize::from(refreshes), "{method} {fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_that_is_told_is_that_of_the_origin_of_the_request() {
    let health = OriginHealth::builder()
        .origin(|head| head.uri.path().split('/').nth(1).unwrap_or_default().to_owned().into())
        .build()
        .unwrap();
    let is_away = Arc::new(AtomicBool::new(false));
    let script = {
        let is_away = Arc::clone(&is_away);
        move |_: usize, head: &Parts| {
            let fails = head.uri.path().starts_with("/a/") && is_away.load(Ordering::Relaxed);
            if fails { status(503) } else { ok("x").max_age(10) }
        }
    };
    let layer = ReadThroughLayer::builder(small_store())
        .rules(Rules::new().stale_if_error_for(secs(3_600)))
        .outage(health.clone())
        .origin_limit(OriginLimitLayer::new(64))
        .build()
        .unwrap();
    let service = layer.layer(ScriptedOrigin::new(script));
    for path in ["/a/stale", "/b/stale"] {
        get(&service, path).await;
    }
    is_away.store(true, Ordering::Relaxed);
    tokio::time::advance(secs(11)).await;
    for key in 0..20 {
        get(&service, &format!("/a/{key}")).await;
    }
    let outcome = |path| layer.explain(&head("GET", path, &[])).outcome();
    assert_eq!(outcome("/a/stale"), Some(Outcome::Stale(Stale::OriginDown)));
    assert_eq!(outcome("/b/stale"), Some(Outcome::Forwarded(Forward::Stale)));
    is_away.store(false, Ordering::Relaxed);
    get(&service, "/a/new").await;
    assert_eq!(health.states()[0].1, OriginState::Recovering);
    assert_eq!(outcome("/a/stale"), Some(Outcome::Stale(Stale::OriginRecovering)));
    assert_eq!(outcome("/b/stale"), Some(Outcome::Forwarded(Forward::Stale)));
}

#[tokio::test(start_paused = true)]
async fn the_state_that_is_told_of_several_origins_is_that_of_all() {
    let is_away = Arc::new(AtomicBool::new(false));
    let second = {
        let is_away = Arc::clone(&is_away);
        move |_: usize, _: &Parts| if is_away.load(Ordering::Relaxed) { status(503) } else { ok("x") }
    };
    let origins = [ScriptedOrigin::always(|| status(503)), ScriptedOrigin::new(second)];
    let [first, second] = origins.clone();
    let failover = Failover::builder(first, [second]).build().unwrap();
    let health = failover.health().clone();
    let layer = ReadThroughLayer::builder(small_store()).outage(health.clone()).build().unwrap();
    let service = layer.layer(failover);
    let ask = async |begin: usize| {
        for key in begin..begin + 30 {
            get(&service, &format!("/{key}")).await;
        }
        (health.state(), layer.explain(&head("GET", "/", &[])).origin())
    };
    assert_eq!(ask(0).await, (OriginState::Up, OriginState::Up));
    assert_eq!(health.states()[0].1, OriginState::Down);
    is_away.store(true, Ordering::Relaxed);
    assert_eq!(ask(100).await, (OriginState::Down, OriginState::Down));
}
