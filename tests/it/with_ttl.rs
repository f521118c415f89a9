//! The stack of `ReadThroughLayer::with_ttl`.

use std::time::Duration;

use tower::Layer;
use tower_readthrough::{MemoryStore, ReadThrough, ReadThroughLayer};

use crate::support::{ScriptedOrigin, ScriptedResponse, get, get_with, ms, ok, secs};

type Stack = ReadThrough<ScriptedOrigin, MemoryStore>;

fn stack(
    ttl: Duration,
    response: impl Fn() -> ScriptedResponse + Send + Sync + 'static,
) -> (Stack, ScriptedOrigin) {
    let origin = ScriptedOrigin::always(response);
    (ReadThroughLayer::with_ttl(ttl).layer(origin.clone()), origin)
}

/// How often the origin is called for two requests in a row.
async fn calls_for_two(ttl: Duration, response: fn() -> ScriptedResponse) -> usize {
    let (service, origin) = stack(ttl, response);
    get(&service, "/").await;
    get(&service, "/").await;
    origin.calls()
}

/// Whether a response is a hit until this time after it was stored, and none from then on.
async fn is_fresh_for(ttl: Duration, lifetime: Duration, response: fn() -> ScriptedResponse) -> bool {
    let (service, _) = stack(ttl, response);
    get(&service, "/").await;
    tokio::time::advance(lifetime - ms(1)).await;
    let before = get(&service, "/").await.is_hit();
    tokio::time::advance(ms(1)).await;
    before && !get(&service, "/").await.is_hit()
}

#[tokio::test(start_paused = true)]
async fn a_response_without_freshness_is_stored_for_the_ttl() {
    assert!(is_fresh_for(secs(10), secs(10), || ok("x")).await);
    assert!(is_fresh_for(ms(50), ms(50), || ok("x").header("content-type", "text/html")).await);
    assert!(is_fresh_for(secs(10), secs(10), || ok("x").header("cache-control", "public")).await);
}

#[tokio::test(start_paused = true)]
async fn the_lifetime_of_the_response_wins_over_the_ttl() {
    assert!(is_fresh_for(secs(10), secs(2), || ok("x").max_age(2)).await);
    assert!(is_fresh_for(secs(10), secs(60), || ok("x").max_age(60)).await);
    assert!(
        is_fresh_for(secs(10), secs(3), || ok("x").header("cache-control", "max-age=60, s-maxage=3")).await
    );
    assert_eq!(calls_for_two(secs(10), || ok("x").max_age(0)).await, 2);
    assert_eq!(calls_for_two(secs(10), || ok("x").header("expires", "0")).await, 2);
}

#[tokio::test(start_paused = true)]
async fn directives_that_forbid_storing_win_over_the_ttl() {
    assert_eq!(calls_for_two(secs(10), || ok("x").header("cache-control", "no-store")).await, 2);
    assert_eq!(calls_for_two(secs(10), || ok("x").header("cache-control", "private")).await, 2);
    assert_eq!(calls_for_two(secs(10), || ok("x").header("cache-control", "no-cache")).await, 2);
    assert_eq!(calls_for_two(secs(10), || ok("x").header("set-cookie", "sid=1")).await, 2);
}

/// The ttl says nothing about which clients may have the response.
#[tokio::test(start_paused = true)]
async fn a_response_to_credentials_is_not_stored_for_the_ttl() {
    for credential in ["authorization", "cookie"] {
        let (service, origin) = stack(secs(10), || ok("x"));
        get_with(&service, "/", &[(credential, "me")]).await;
        assert!(!get(&service, "/").await.is_hit(), "{credential}");
        assert_eq!(origin.calls(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ttl_of_zero_stores_only_what_has_freshness_of_its_own() {
    assert_eq!(calls_for_two(Duration::ZERO, || ok("x")).await, 2);
    assert!(is_fresh_for(Duration::ZERO, secs(2), || ok("x").max_age(2)).await);
}

#[tokio::test(start_paused = true)]
async fn the_longest_ttl_is_accepted() {
    let (service, origin) = stack(Duration::MAX, || ok("x"));
    get(&service, "/").await;
    tokio::time::advance(secs(86_400 * 365)).await;
    assert!(get(&service, "/").await.is_hit());
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_layer_with_a_ttl_has_a_store_of_its_own() {
    let origin = ScriptedOrigin::always(|| ok("x"));
    let [one, other] = [secs(10), secs(10)].map(ReadThroughLayer::with_ttl);
    get(&one.layer(origin.clone()), "/").await;
    assert!(!get(&other.layer(origin.clone()), "/").await.is_hit());
    assert!(get(&one.layer(origin.clone()), "/").await.is_hit(), "services of one layer share its store");
}
