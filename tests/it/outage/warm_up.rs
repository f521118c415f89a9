//! A store is filled before clients ask for what is in it.

use http::request::Parts;
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    CacheRequest, MemoryStore, OriginLimitLayer, Purpose, ReadThrough, ReadThroughLayer, Rules,
    warm_up::{MAX_REPORTED, warm_up},
};

use crate::support::{
    ScriptedOrigin, error, get, get_request, ms, ok, request, secs, settle, stack, status, store, ttl,
};

#[tokio::test(start_paused = true)]
async fn what_was_warmed_up_is_a_hit() {
    let origin = ScriptedOrigin::new(|_, _| ok("x").after(ms(100)));
    let service = stack(ttl()).layer(origin.clone());
    get(&service, "/0").await;
    let begun = tokio::time::Instant::now();
    let report = warm_up(&service, (0..20).map(|page| get_request(&format!("/{page}"))), 5).await;
    assert_eq!((report.total, report.stored, report.fresh, report.not_stored), (20, 19, 1, 0));
    assert_eq!((origin.calls(), origin.most_under_way()), (20, 5));
    assert!(begun.elapsed() <= ms(400), "{:?}", begun.elapsed());
    for page in 0..20 {
        assert!(get(&service, &format!("/{page}")).await.is_hit());
    }
    let purpose = |head: &Parts| head.extensions.get::<CacheRequest>().unwrap().purpose();
    assert_eq!(purpose(&origin.last_request()), Purpose::WarmUp);
}

#[tokio::test(start_paused = true)]
async fn the_report_says_what_became_of_what_was_not_stored() {
    let origin = ScriptedOrigin::new(|_, head| match head.uri.path() {
        "/error" => error(),
        "/private" => ok("x").header("cache-control", "private"),
        "/503" => status(503),
        "/cut" => ok("x").cut(),
        _ => ok("x"),
    });
    let service = stack(ttl()).layer(origin.clone());
    let paths = ["/error", "/private", "/503", "/cut", "/good"];
    let report = warm_up(&service, paths.map(get_request), 0).await;
    assert_eq!((report.total, report.stored, report.not_stored), (5, 1, 4));
    assert_eq!(origin.most_under_way(), 1, "0 counts as 1");
    let said: Vec<_> = report
        .failures
        .iter()
        .map(|failure| {
            let detail = failure.cache_status.and_then(|status| status.detail());
            (failure.uri.path(), failure.status.map(|status| status.as_u16()), detail)
        })
        .collect();
    assert_eq!(
        said,
        [
            ("/error", None, None),
            ("/private", Some(200), Some("private")),
            ("/503", Some(503), None),
            ("/cut", None, None),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_report_is_bounded() {
    let origin = ScriptedOrigin::unrecorded(|_, _| status(404));
    let service = stack(Rules::new()).layer(origin);
    let requests = (0..MAX_REPORTED + 10).map(|page| get_request(&format!("/{page}")));
    let report = warm_up(&service, requests, 8).await;
    assert_eq!((report.not_stored, report.failures.len()), (MAX_REPORTED + 10, MAX_REPORTED));
}

#[tokio::test(start_paused = true)]
async fn nothing_to_warm_up_ends_at_once() {
    let service = stack(ttl()).layer(ScriptedOrigin::always(|| ok("x")));
    assert_eq!(warm_up(&service, [""; 0].map(get_request), 8).await.total, 0);
}

/// Pages that are stored, and stale, under these rules.
async fn stale_pages(
    pages: usize,
    rules: Rules,
    origin: &ScriptedOrigin,
    limit: OriginLimitLayer,
) -> ReadThrough<ScriptedOrigin, MemoryStore> {
    let layer = ReadThroughLayer::builder(store()).rules(rules).origin_limit(limit).build().unwrap();
    let service = layer.layer(origin.clone());
    for page in 0..pages {
        get(&service, &format!("/{page}")).await;
    }
    tokio::time::advance(secs(11)).await;
    service
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_is_fetched_and_not_served() {
    let windows = [
        ttl().stale_while_revalidate_for(secs(3_600)),
        ttl().stale_if_error_for(secs(3_600)),
        ttl().stale_while_revalidate_for(secs(3_600)).stale_if_error_for(secs(3_600)),
    ];
    for rules in windows {
        let origin = ScriptedOrigin::new(|call, _| match call {
            ..=20 => ok("old"),
            _ => ok("new").after(ms(100)),
        });
        let service = stale_pages(20, rules, &origin, OriginLimitLayer::new(64)).await;
        let report = warm_up(&service, (0..20).map(|page| get_request(&format!("/{page}"))), 5).await;
        assert_eq!((report.total, report.stored, report.fresh, report.not_stored), (20, 20, 0, 0));
        assert_eq!((origin.calls(), origin.most_under_way()), (40, 5));
        let purpose = |head: &Parts| head.extensions.get::<CacheRequest>().unwrap().purpose();
        assert_eq!(purpose(&origin.last_request()), Purpose::WarmUp);
        for page in 0..20 {
            let reply = get(&service, &format!("/{page}")).await;
            assert!(reply.is_hit() && reply.body == "new");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stale_waits_for_a_place_as_what_is_not_stored() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        2 => ok("").after(secs(1)),
        _ => ok("x"),
    });
    let rules = ttl().stale_if_error_for(secs(3_600));
    let service = stale_pages(1, rules, &origin, OriginLimitLayer::new(2)).await;
    let held = tokio::spawn(service.clone().oneshot(request("POST", "/held", &[])));
    settle().await;
    let report = warm_up(&service, [get_request("/0")], 1).await;
    assert_eq!((report.stored, origin.calls()), (1, 3), "{report:?}");
    assert!(held.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_rests_is_not_fetched_for_a_warm_up() {
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("old") } else { status(503) });
    let rules = ttl().stale_while_revalidate_for(secs(3_600)).stale_if_error_for(secs(3_600));
    let service = stale_pages(1, rules, &origin, OriginLimitLayer::new(64)).await;
    get(&service, "/0").await;
    settle().await;
    assert_eq!(origin.calls(), 2);
    let report = warm_up(&service, [get_request("/0")], 1).await;
    assert_eq!((report.not_stored, origin.calls()), (1, 2));
}
