//! HEAD with a handler of its own: whatever a HEAD sets off, GET is never asked of that handler.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::get};
use http::StatusCode;
use tower::ServiceExt;
use tower_readthrough::{ReadThroughLayer, Rules};

use super::caches;

use crate::support::{ScriptedOrigin, get as get_page, ms, ok, request, secs, send, settle, small_store};

/// Fresh for a second, and usable while it is refreshed for a minute.
fn rules() -> Rules {
    Rules::new().default_ttl(secs(1)).stale_while_revalidate_for(secs(60))
}

#[tokio::test(start_paused = true)]
async fn a_head_of_a_stale_page_never_fills_it_from_a_head_handler() {
    let pages = Arc::new(AtomicUsize::new(0));
    let page = {
        let pages = Arc::clone(&pages);
        async move || format!("page {}", pages.fetch_add(1, Ordering::SeqCst) + 1)
    };
    let cache = ReadThroughLayer::builder(small_store()).rules(rules()).build().unwrap();
    let app: Router = Router::new().route("/", get(page).head(async || "")).layer(cache);
    let ask = async |method: &str| {
        let request = http::Request::builder().method(method).uri("/").header("host", "app.example");
        let response =
            app.clone().oneshot(request.body(crate::support::Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = axum::body::to_bytes(response.into_body(), 1 << 10).await.unwrap();
        settle().await;
        body
    };
    assert_eq!(ask("GET").await, "page 1");
    tokio::time::advance(ms(1_001)).await;
    ask("HEAD").await;
    assert_eq!(ask("GET").await, "page 1", "stale, and it begins a refresh");
    assert_eq!(ask("GET").await, "page 2");
}

#[tokio::test(start_paused = true)]
async fn no_request_for_the_head_changes_its_method_or_what_get_receives() {
    let fields: [&[(&str, &str)]; 7] = [
        &[],
        &[("cache-control", "no-cache")],
        &[("pragma", "no-cache")],
        &[("cache-control", "max-age=0")],
        &[("if-none-match", "\"v\"")],
        &[("range", "bytes=0-1")],
        &[("authorization", "Basic eA==")],
    ];
    // Cold, fresh, stale within the window, and past it.
    for age in [None, Some(0), Some(2_000), Some(100_000)] {
        for fields in fields {
            for (name, cache) in caches(rules()) {
                let page = || ok("page").header("etag", "\"v\"");
                let (gets, heads) =
                    (ScriptedOrigin::always(page), ScriptedOrigin::always(|| ok("").header("etag", "\"v\"")));
                let (get_service, head_service) = (cache(gets.clone()), cache(heads.clone()));
                if let Some(age) = age {
                    get_page(&get_service, "/").await;
                    tokio::time::advance(ms(age)).await;
                }
                send(&head_service, request("HEAD", "/", fields)).await;
                settle().await;
                for call in 1..=heads.calls() {
                    assert_eq!(heads.request(call).method, "HEAD", "{name} {age:?} {fields:?}");
                }
                for _ in 0..2 {
                    let reply = get_page(&get_service, "/").await;
                    assert_eq!(reply.body, "page", "{name} {age:?} {fields:?}");
                    settle().await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_takes_no_refresh_away_from_a_get() {
    for (name, cache) in caches(rules()) {
        let origin = ScriptedOrigin::new(|call, _| ok(format!("page {call}")));
        let service = cache(origin.clone());
        get_page(&service, "/").await;
        tokio::time::advance(ms(1_001)).await;
        for _ in 0..3 {
            let head = send(&service, request("HEAD", "/", &[])).await;
            assert_eq!(head.cache(), "hit; detail=stale-while-revalidate", "{name}");
            settle().await;
        }
        assert_eq!(origin.calls(), 1, "{name}");
        assert_eq!(get_page(&service, "/").await.body, "page 1", "{name}");
        settle().await;
        assert_eq!(origin.calls(), 2, "{name}: no pause after what a HEAD did");
        assert_eq!(get_page(&service, "/").await.body, "page 2", "{name}");
    }
}
