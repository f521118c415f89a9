//! A store is filled before clients ask for what is in it.

use http::request::Parts;
use tower::Layer;
use tower_readthrough::{
    CacheRequest, Purpose, Rules,
    warm_up::{MAX_REPORTED, warm_up},
};

use crate::support::{ScriptedOrigin, error, get, get_request, ms, ok, stack, status, ttl};

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
