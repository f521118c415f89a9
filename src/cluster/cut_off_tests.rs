//! What a node serves by when it has last heard of the purges of others.

use std::time::Duration;

use tokio::time::Instant;
use tower::Layer;

use super::WhenCutOff;
use crate::{
    MemoryStore, Purge, ReadThroughLayer, Rules,
    testing::{Answer, Client, ScriptedOrigin, time},
};

const AFTER: Duration = Duration::from_secs(10);
const LIMIT: WhenCutOff = WhenCutOff::ValidateAfter(AFTER);

/// Confirms what it is asked about, and fails for `/broken` the second time.
fn origin() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, head| match head.uri.path() {
        "/broken" if head.headers.contains_key("if-none-match") => Answer::ok("").status(503),
        _ if head.headers.contains_key("if-none-match") => Answer::ok("").status(304).max_age(3600),
        "/slow" => Answer::ok(call.to_string()).max_age(3600).after(Duration::from_millis(100)),
        _ => Answer::ok(call.to_string()).max_age(3600).header("etag", "\"1\""),
    })
}

fn node() -> (Purge, ScriptedOrigin, Client<crate::ReadThrough<ScriptedOrigin, MemoryStore>>) {
    let rules = Rules::new().stale_if_error_for(Duration::from_secs(7200));
    let layer = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).rules(rules);
    let layer = layer.build().unwrap();
    let origin = origin();
    (layer.purge(), origin.clone(), Client::new(layer.layer(origin)))
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_heard_nothing_for_too_long_asks_the_origin_each_time() {
    let (purge, origin, client) = node();
    LIMIT.begin(&purge);
    LIMIT.heard(&purge, Instant::now());
    client.get("/").send().await;
    client.get("/broken").send().await;
    time::pass(AFTER.saturating_sub(Duration::from_millis(1))).await;
    client.get("/").send().await.expect_hit().expect_body("1");
    time::pass(Duration::from_millis(1)).await;
    let calls = origin.calls();
    for asked in 1..=3 {
        client.get("/").send().await.expect_body("1");
        assert_eq!(origin.calls(), calls + asked);
        assert!(origin.last_request().headers.contains_key("if-none-match"), "nothing is thrown away");
    }
    // Without an origin it is better than nothing.
    client.get("/broken").send().await.expect_status(200).expect_body("2");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_again_serves_what_it_has_at_once() {
    let (purge, origin, client) = node();
    LIMIT.begin(&purge);
    LIMIT.heard(&purge, Instant::now());
    for path in ["/", "/other"] {
        client.get(path).send().await;
    }
    time::pass(AFTER * 2).await;
    client.get("/").send().await;
    let calls = origin.calls();
    LIMIT.heard(&purge, Instant::now());
    client.get("/other").send().await.expect_hit();
    assert_eq!(origin.calls(), calls);
    // What was confirmed while it was not known whether that would do has to be confirmed once more.
    client.get("/").send().await;
    client.get("/").send().await.expect_hit();
    assert_eq!(origin.calls(), calls + 1);
}

/// The time runs from before the others were told, not from their answer.
#[tokio::test(start_paused = true)]
async fn the_time_runs_from_the_moment_that_others_were_told_of() {
    let (purge, origin, client) = node();
    LIMIT.begin(&purge);
    let told_at = Instant::now();
    time::pass(Duration::from_secs(3)).await;
    LIMIT.heard(&purge, told_at);
    client.get("/").send().await;
    time::pass(AFTER.saturating_sub(Duration::from_millis(3001))).await;
    client.get("/").send().await.expect_hit();
    time::pass(Duration::from_millis(1)).await;
    client.get("/").send().await;
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_never_heard_anything_has_to_ask() {
    let (purge, origin, client) = node();
    LIMIT.begin(&purge);
    for calls in 1..=3 {
        client.get("/").send().await;
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_node_serves_on() {
    let (purge, origin, client) = node();
    WhenCutOff::ServeOn.begin(&purge);
    WhenCutOff::ServeOn.heard(&purge, Instant::now());
    client.get("/").send().await;
    time::pass(Duration::from_secs(3000)).await;
    client.get("/").send().await.expect_hit();
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn purges_hold_as_ever_where_there_is_a_limit() {
    let (purge, origin, client) = node();
    LIMIT.begin(&purge);
    LIMIT.heard(&purge, Instant::now());
    client.get("/").send().await.expect_body("1");
    client.get("/").send().await.expect_hit();
    purge.everything();
    client.get("/").send().await.expect_body("2");
    client.get("/").send().await.expect_hit();
    purge.soft().everything();
    client.get("/").send().await.expect_body("2");
    assert_eq!(origin.calls(), 3);
}

/// What another caller has asked for before may be older than a purge that all others have applied since.
#[tokio::test(start_paused = true)]
async fn a_caller_that_comes_while_the_node_is_cut_off_does_not_wait_for_an_earlier_fetch() {
    // Of a hundred the first begins a fetch, and the others share one more.
    for (when, calls) in [(WhenCutOff::ServeOn, 1), (LIMIT, 2)] {
        let (purge, origin, client) = node();
        when.begin(&purge);
        let early = async {
            client.get("/slow").send().await.expect_body("1");
        };
        let late = async {
            time::pass(Duration::from_millis(50)).await;
            client.get("/slow").burst(100).await
        };
        let ((), seen) = tokio::join!(early, late);
        let is_older = |seen: &&crate::testing::Seen| seen.body == "1";
        assert_eq!(
            (seen.iter().filter(is_older).count(), origin.calls()),
            (if calls == 1 { 100 } else { 0 }, calls)
        );
    }
}
