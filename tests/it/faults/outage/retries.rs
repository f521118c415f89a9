//! A request is sent once unless the application asks for retries.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::get};
use http::StatusCode;
use tower::{Layer, ServiceExt};
use tower_readthrough::{ReadThroughLayer, RetryPolicy, Rules};

use super::{boxed, stack};

use crate::support::{ScriptedOrigin, ScriptedResponse, error, request, small_store, status, try_send};

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_runs_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let handler = {
        let calls = Arc::clone(&calls);
        async move || {
            calls.fetch_add(1, Ordering::SeqCst);
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let cache = ReadThroughLayer::builder(small_store()).build().unwrap();
    let app: Router = Router::new().route("/", get(handler)).layer(cache);
    let request = http::Request::get("/").header("host", "app.example").body(crate::support::Body::empty());
    let response = app.oneshot(request.unwrap()).await.unwrap();
    assert_eq!((response.status(), calls.load(Ordering::SeqCst)), (StatusCode::SERVICE_UNAVAILABLE, 1));
}

#[tokio::test(start_paused = true)]
async fn no_failure_is_tried_again_until_it_is_asked_for() {
    let failures: [fn() -> ScriptedResponse; 5] =
        [|| status(408), || status(502), || status(503), || status(504), error];
    for failure in failures {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            let origin = ScriptedOrigin::always(failure);
            _ = try_send(&stack(Rules::new())(origin.clone()), request(method, "/", &[])).await;
            assert_eq!(origin.calls(), 1, "{method}");
        }
        let origin = ScriptedOrigin::always(failure);
        let layer = ReadThroughLayer::builder(small_store()).retry(RetryPolicy::new()).build().unwrap();
        _ = try_send(&boxed(layer.layer(origin.clone())), request("GET", "/", &[])).await;
        assert_eq!(origin.calls(), 3);
    }
}
