//! What the record of a response says of the second tier.

use super::*;
use std::sync::{Arc, Mutex};
use tower_readthrough::{
    CacheStatus, Lost, Observer, OriginLimitLayer, Outcome, Record, Role, Stale, TierWait,
};

/// What a node has told of its last response, which is what the response says of itself.
async fn told(node: &Node, watch: &Watch) -> CacheStatus {
    told_of(node, watch, "/").await
}

async fn told_of(node: &Node, watch: &Watch, target: &str) -> CacheStatus {
    let reply = node.get(target).await;
    let record = watch.0.lock().unwrap().pop().unwrap();
    assert_eq!(reply.cache_status, Some(record.cache_status()));
    assert_eq!(reply.cache(), record.cache_status().to_string());
    record.cache_status()
}

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Vec<Record>>>);

impl Observer for Watch {
    fn finished(&self, record: &Record) {
        self.0.lock().unwrap().push(*record);
    }
}

impl Site {
    fn watched(&self, origin: &ScriptedOrigin, takes_turns: bool) -> (Node, Watch) {
        let watch = Watch::default();
        let set_tier = |tier: TierBuilder| tier.single_fetch(takes_turns);
        (self.node_with(origin, set_tier, |cache| cache.observer(watch.clone())), watch)
    }
}

/// Confirms what it is asked about.
fn confirming() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, head| match head.headers.contains_key("if-none-match") {
        true => status(304).header("etag", "\"0\"").max_age(60),
        false => tagged(call).max_age(60),
    })
}

#[tokio::test(start_paused = true)]
async fn a_record_says_what_the_tier_had_and_the_field_why_the_origin_was_asked() {
    let site = Site::default();
    // Nothing, and then a fresh response.
    let (node, watch) = site.watched(&confirming(), false);
    let status = told(&node, &watch).await;
    assert_eq!((status.second_tier(), &*status.to_string()), (Some(TierRead::Miss), "fwd=uri-miss"));
    node.written().await;
    let (node, watch) = site.watched(&confirming(), false);
    let status = told(&node, &watch).await;
    assert_eq!(status.second_tier(), Some(TierRead::Fresh));
    assert!(status.is_from_second_tier() && !status.has_waited_for_node());
    let status = told(&node, &watch).await;
    assert_eq!((status.second_tier(), &*status.to_string()), (None, "hit"), "it is stored here by now");
    // A stale one, which is confirmed. What that prolongs stays here.
    let _held = site.remote.hold([RemoteCall::Write]);
    tokio::time::advance(secs(70)).await;
    let (node, watch) = site.watched(&confirming(), false);
    let status = told(&node, &watch).await;
    assert_eq!(status.second_tier(), Some(TierRead::Stale));
    assert_eq!(status.detail(), Some("second-tier-stale"));
    assert!(!status.is_from_second_tier());
    // The same instead of a failure.
    let (node, watch) = site.watched(&ScriptedOrigin::always(|| super::status(503)), false);
    let status = told(&node, &watch).await;
    assert_eq!((status.second_tier(), status.detail()), (Some(TierRead::Stale), Some("stale-if-error")));
    // One of which it is not known what was purged since: the log is another one.
    let other = Site { remote: site.remote.clone(), log: PurgeLog::new() };
    let (node, watch) = other.watched(&confirming(), false);
    let status = told(&node, &watch).await;
    assert_eq!(status.second_tier(), Some(TierRead::Unproven));
    assert_eq!(status.detail(), Some("second-tier-unproven"));
    // No answer, and not asked.
    let (node, watch) = site.watched(&confirming(), false);
    site.remote.fail(1);
    assert_eq!(told(&node, &watch).await.second_tier(), Some(TierRead::Failed));
    node.log.cut_off();
    let status = told_of(&node, &watch, "/other").await;
    assert_eq!((status.second_tier(), status.detail()), (Some(TierRead::Behind), None));
}

#[tokio::test(start_paused = true)]
async fn a_record_says_that_another_node_had_its_turn() {
    let site = Site::default();
    let slow = ScriptedOrigin::new(|call, _| tagged(call).max_age(60).after(ms(300)));
    let ((first, ours), (second, theirs)) = (site.watched(&slow, true), site.watched(&slow, true));
    let (_, status) = tokio::join!(told(&first, &ours), async {
        settle().await;
        told(&second, &theirs).await
    });
    assert_eq!(&*status.to_string(), "hit; detail=second-tier");
    assert!(status.has_waited_for_node() && status.is_from_second_tier());
    let waits = |node: &Node| node.tier.status().waits;
    assert_eq!((waits(&first).total(), waits(&second).get(TierWait::Found)), (0, 1));
    // In vain.
    let hanging = ScriptedOrigin::always(ScriptedResponse::never);
    let (stuck, _) = site.watched(&hanging, true);
    let service = stuck.service.clone();
    let call = tokio::spawn(async move { get(&service, "/stuck").await });
    settle().await;
    let status = told_of(&second, &theirs, "/stuck").await;
    assert_eq!(&*status.to_string(), "fwd=uri-miss; detail=other-node");
    assert!(status.has_waited_for_node() && !status.is_from_second_tier());
    assert_eq!(waits(&second).get(TierWait::Fetched), 1);
    call.abort();
}

/// Found stale in the tier, it is served stale by whatever refuses to ask the origin.
#[tokio::test(start_paused = true)]
async fn what_is_stale_in_the_tier_is_no_fresh_hit_where_there_is_no_room_for_a_request_to_the_origin() {
    let site = Site::default();
    site.node().fill("/").await;
    tokio::time::advance(secs(70)).await;
    let watch = Watch::default();
    let limit = OriginLimitLayer::new(1).max_queue(0);
    let busy = site.node_with(
        &ScriptedOrigin::always(ScriptedResponse::never),
        |tier| tier,
        |cache| cache.observer(watch.clone()).origin_limit(limit),
    );
    let service = busy.service.clone();
    let holding = tokio::spawn(async move { get(&service, "/hanging").await });
    settle().await;
    site.remote.delay(ms(10));
    let replies = tokio::join!(busy.get("/"), busy.get("/"));
    let records = std::mem::take(&mut *watch.0.lock().unwrap());
    for (reply, role) in [(replies.0, Role::Leader), (replies.1, Role::Follower)] {
        let status = reply.cache_status.unwrap();
        assert_eq!(reply.cache(), "hit; detail=stale-if-error");
        let record = records.iter().find(|record| record.cache_status() == status).unwrap();
        assert_eq!((record.outcome(), record.role()), (Outcome::Stale(Stale::IfError), role));
        assert_eq!((status.second_tier(), status.is_from_second_tier()), (Some(TierRead::Stale), false));
    }
    holding.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_served_instead_of_a_failure_says_what_the_tier_had_for_the_fetch() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| if call == 1 { tagged(1).max_age(60) } else { status(503) });
    let (node, watch) = site.watched(&origin, false);
    node.fill("/").await;
    tokio::time::advance(secs(70)).await;
    site.remote.fail(1);
    let status = told(&node, &watch).await;
    assert_eq!((status.detail(), status.second_tier()), (Some("stale-if-error"), Some(TierRead::Failed)));
}

#[tokio::test(start_paused = true)]
async fn a_tier_is_not_asked_for_what_only_the_origin_may_answer_also_where_it_is_behind() {
    let site = Site::default();
    let watch = Watch::default();
    let node = site.node_with(
        &numbered(),
        |tier| tier,
        |cache| cache.observer(watch.clone()).lookup(|lookup| lookup.request_directives(true)),
    );
    node.log.cut_off();
    get_with(&node.service, "/", &[("cache-control", "no-cache")]).await;
    let status = watch.0.lock().unwrap().pop().unwrap().cache_status();
    assert_eq!((status.second_tier(), node.tier.status().reads.total()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hit_of_the_tier_says_what_has_removed_what_was_stored_here() {
    let site = Site::default();
    let ((here, _), (there, watch)) = (site.watched(&numbered(), false), site.watched(&numbered(), false));
    here.fill("/").await;
    told(&there, &watch).await;
    here.cache.purge().tag("red");
    here.fill("/").await;
    let status = told(&there, &watch).await;
    assert_eq!((status.detail(), status.lost_reason()), (Some("second-tier"), Some(Lost::Purged)));
    let counts = there.cache.stats().snapshot();
    assert_eq!((counts.lost.get(Lost::Purged), counts.forwarded.total()), (1, 0));
}

/// What waits for another node gets something stale by that, and asks the origin.
#[tokio::test(start_paused = true)]
async fn a_stale_response_is_not_what_the_wait_for_another_node_was_for() {
    let site = Site::default();
    let slow = ScriptedOrigin::new(|call, _| {
        tagged(call).header("cache-control", "max-age=0, stale-if-error=60").after(ms(300))
    });
    let ((first, ours), (second, theirs)) = (site.watched(&slow, true), site.watched(&slow, true));
    let (_, status) = tokio::join!(told(&first, &ours), async {
        settle().await;
        told(&second, &theirs).await
    });
    assert!(status.has_waited_for_node() && !status.is_hit());
    let waits = second.tier.status().waits;
    assert_eq!((waits.get(TierWait::Found), waits.get(TierWait::Fetched)), (0, 1));
}
