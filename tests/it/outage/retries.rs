//! What is tried again while the origin fails.

use http::StatusCode;
use tokio::time::advance;
use tower::Layer;
use tower_readthrough::{MemoryStore, ReadThrough, ReadThroughLayer, RetryPolicy, Rules};

use crate::support::{ScriptedOrigin, get, ok, secs, settle, small_store, status};

fn cached(policy: RetryPolicy, origin: &ScriptedOrigin) -> ReadThrough<ScriptedOrigin, MemoryStore> {
    let rules = Rules::new().default_ttl(secs(1)).stale_if_error_for(secs(86_400));
    let layer = ReadThroughLayer::builder(small_store()).rules(rules).retry(policy).build().unwrap();
    layer.layer(origin.clone())
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_again_while_a_stale_response_can_be_served() {
    for (policy, attempts) in [(RetryPolicy::new(), 1), (RetryPolicy::new().despite_stale(true), 3)] {
        let origin = ScriptedOrigin::new(|call, _| if call == 1 { ok("good") } else { status(503) });
        let service = cached(policy, &origin);
        get(&service, "/").await;
        advance(secs(2)).await;
        assert_eq!(get(&service, "/").await.body, "good");
        settle().await;
        assert_eq!(origin.calls(), 1 + attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stored_is_tried_again_while_the_origin_is_up() {
    let origin = ScriptedOrigin::new(|call, _| if call < 3 { status(503) } else { ok("good") });
    let service = cached(RetryPolicy::new(), &origin);
    assert_eq!(get(&service, "/").await.status, StatusCode::OK);
    assert_eq!(origin.calls(), 3);
}
