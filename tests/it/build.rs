//! Configurations that cannot work are refused with an error that says what to change.

use std::time::Duration;

use tower::Layer;
use tower_readthrough::{
    BuildError, MemoryStore, OriginLimitLayer, ReadThroughBuilder, ReadThroughLayer, RetryPolicy, Rules,
};

use crate::support::{ScriptedOrigin, call, get_request, response, status};

fn builder() -> ReadThroughBuilder<MemoryStore> {
    ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20))
}

#[test]
fn the_defaults_are_accepted() {
    assert!(builder().build().is_ok());
    assert!(builder().origin_limit(OriginLimitLayer::new(1)).retry(RetryPolicy::never()).build().is_ok());
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    const ZERO: Duration = Duration::ZERO;
    let refused = [
        (
            "accepts responses of up to 0 bytes",
            ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(0)).build(),
        ),
        ("`fixed_ttl` is zero", builder().rules(Rules::new().fixed_ttl(ZERO)).build()),
        ("`default_ttl` is zero", builder().rules(Rules::new().default_ttl(ZERO)).build()),
        ("`negative_ttl` is zero", builder().rules(Rules::new().negative_ttl(ZERO)).build()),
        ("`heuristic` is zero", builder().rules(Rules::new().heuristic(0.1, ZERO)).build()),
        (
            "`heuristic` has an invalid share",
            builder().rules(Rules::new().heuristic(0.0, Duration::MAX)).build(),
        ),
        (
            "`heuristic` has an invalid share",
            builder().rules(Rules::new().heuristic(1.1, Duration::MAX)).build(),
        ),
        (
            "`heuristic` has an invalid share",
            builder().rules(Rules::new().heuristic(f64::NAN, Duration::MAX)).build(),
        ),
        ("`max_wait` is zero", builder().coalesce(|layer| layer.max_wait(ZERO)).build()),
        ("`max_flight_age` is zero", builder().coalesce(|layer| layer.max_flight_age(ZERO)).build()),
        ("`wait_at_most` is zero", builder().coalesce(|layer| layer.wait_at_most(ZERO)).build()),
        ("`max_waiters` is zero", builder().coalesce(|layer| layer.max_waiters(0)).build()),
        ("`max_held_bytes` is zero", builder().coalesce(|layer| layer.max_held_bytes(0)).build()),
        (
            "`CoalesceLayer::rules` has no effect",
            builder().coalesce(|layer| layer.rules(Rules::new().never_store())).build(),
        ),
        ("`refresh_deadline` is zero", builder().lookup(|layer| layer.refresh_deadline(ZERO)).build()),
        ("`max_refreshes` is zero", builder().lookup(|layer| layer.max_refreshes(0)).build()),
        ("`retry` has no effect", builder().retry(RetryPolicy::new().deadline(ZERO)).build()),
        (
            "`backoff` has no effect",
            builder().retry(RetryPolicy::new().backoff(Duration::from_secs(2), ZERO)).build(),
        ),
        ("`max_attempts` is zero", builder().origin_limit(OriginLimitLayer::new(0)).build()),
        (
            "`max_queue_wait` is zero",
            builder().origin_limit(OriginLimitLayer::new(1).max_queue_wait(ZERO)).build(),
        ),
    ];
    for (expected, built) in refused {
        let error = built.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_share_of_one_response_is_more_than_nothing_and_at_most_all() {
    for share in [0.0, -1.0, 1.01, f64::NAN, f64::INFINITY] {
        let built = MemoryStore::builder(1 << 20).max_response_share(share).build();
        assert!(matches!(built, Err(BuildError::ResponseShare(_))), "{share}");
    }
    for share in [0.01, 0.5, 1.0] {
        assert!(MemoryStore::builder(1 << 20).max_response_share(share).build().is_ok(), "{share}");
    }
    assert_eq!(MemoryStore::builder(0).build().unwrap_err(), BuildError::EmptyStore);
}

/// A store that is too small for any response is refused like an empty one.
#[test]
fn a_store_too_small_for_any_response_is_refused() {
    let built = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(100)).build();
    assert!(matches!(built, Err(BuildError::SmallStore { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_longest_durations_are_accepted_and_work() {
    let max = Duration::MAX;
    let rules = Rules::new()
        .fixed_ttl(max)
        .negative_ttl(max)
        .stale_if_error_for(max)
        .stale_while_revalidate_for(max)
        .revalidate_for(max)
        .hit_for_miss_for(max);
    let built = builder()
        .rules(rules)
        .coalesce(|layer| layer.max_wait(max).max_flight_age(max))
        .lookup(|layer| layer.refresh_deadline(max).max_stale_while_up(max))
        .retry(RetryPolicy::new().deadline(max).backoff(Duration::from_secs(1), max).max_retry_after(max))
        .origin_limit(
            OriginLimitLayer::new(usize::MAX).max_queue(usize::MAX).max_queue_wait(max).retry_after(max),
        )
        .build();
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        if n == 1 { status(503) } else { response(&[], "hello") }
    });
    let service = built.unwrap().layer(origin.clone());
    for _ in 0..2 {
        assert_eq!(call(&service, get_request("http://h/")).await.1, "hello");
        tokio::time::advance(Duration::from_secs(86_400)).await;
    }
    assert_eq!(origin.calls(), 2);
}
