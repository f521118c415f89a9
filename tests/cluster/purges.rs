//! Purges of each kind and strength reach the other nodes.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower::Layer;
use tower_readthrough::{CacheKey, MemoryStore, PurgeState, Rules, StoreLayer, cluster::Cluster};

use super::{
    node::{LIMIT, Node, PAGE, two, until},
    server::server,
    support::{ScriptedOrigin, get, ok, request, secs, send, status},
};

#[tokio::test]
async fn a_purge_of_any_kind_reaches_the_other_node() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    let key = {
        use tower_readthrough::{DefaultKey, KeyExtractor};
        DefaultKey::new().key(&http::Request::get(PAGE).body(()).unwrap().into_parts().0).unwrap()
    };
    let purge = here.layer.purge();
    let kinds: [(&str, &dyn Fn()); 8] = [
        ("url", &|| _ = purge.url(PAGE).unwrap()),
        ("key", &|| _ = purge.key(&key)),
        ("tag", &|| _ = purge.tag("red")),
        ("path", &|| _ = purge.path_prefix("http://example.com/a").unwrap()),
        ("pattern", &|| _ = purge.pattern("http://example.com/*/b").unwrap()),
        ("host", &|| _ = purge.host("example.com").unwrap()),
        ("key prefix", &|| _ = purge.key_prefix(&key.as_bytes()[..4])),
        ("everything", &|| _ = purge.everything()),
    ];
    for (kind, apply) in kinds {
        let before = there.page(PAGE).await;
        assert_eq!(there.page(PAGE).await, before, "a hit before");
        apply();
        there.loses(PAGE, kind).await;
        // A response to a purge that was not meant stays.
        purge.tag("other");
        let after = there.page(PAGE).await;
        until("read back", || here.cluster.status().waiting == 0).await;
        sleep(Duration::from_millis(20)).await;
        assert_eq!(there.page(PAGE).await, after, "{kind}");
    }
}

#[tokio::test]
async fn what_an_unsafe_request_invalidates_is_invalidated_on_the_other_node() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    there.page(PAGE).await;
    // Nothing was ever stored for it here.
    send(&here.service, request("PUT", PAGE, &[])).await;
    there.loses(PAGE, "the target").await;
    let origin = ScriptedOrigin::always(|| ok("").header("cache-group-invalidation", "\"group\""));
    send(&here.layer.layer(origin), request("POST", "/other", &[])).await;
    there.loses(PAGE, "the group").await;
    let origin = ScriptedOrigin::always(|| ok("").header("location", "/a/b?c=1"));
    send(&here.layer.layer(origin), request("POST", "/other", &[])).await;
    there.loses(PAGE, "the reference").await;
}

#[tokio::test]
async fn strengths_travel() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    let failing = there.layer.layer(ScriptedOrigin::always(|| status(503)));
    for (purge, covered) in [
        (here.layer.purge().soft(), true),
        (here.layer.purge().unproven(), true),
        (here.layer.purge(), false),
    ] {
        there.page(PAGE).await;
        let purged = purge.everything();
        until("sent", || purged.state() == PurgeState::Sent).await;
        // The entry behind it is applied after it.
        there.page("/mark").await;
        here.layer.purge().url("http://example.com/mark").unwrap();
        there.loses("/mark", "the mark").await;
        let reply = get(&failing, PAGE).await;
        assert_eq!(reply.status == 200, covered, "{purged:?}: {}", reply.cache());
        there.page(PAGE).await;
    }
}

/// Key rules are code of the application.
#[tokio::test]
async fn rules_that_panic_do_not_end_what_reads_the_log() {
    let Some(server) = server().await else { return };
    let here = Node::start(&server, "n1");
    let by_path = |head: &http::request::Parts| {
        assert!(!head.uri.path().starts_with("/panic"), "as the rules of an application may");
        Some(CacheKey::new(head.uri.path()))
    };
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let layer = StoreLayer::new(store).rules(Rules::new().fixed_ttl(secs(3600))).key(by_path);
    let cluster = Cluster::builder(server.url(), layer.purge()).namespace("test").node("n2").open().unwrap();
    until("caught up", || cluster.status().is_caught_up && here.cluster.status().is_caught_up).await;
    let origin = ScriptedOrigin::new(|call, _| ok(call.to_string()));
    let service = layer.layer(origin.clone());
    get(&service, "/a").await;
    here.layer.purge().url("http://example.com/panic").unwrap();
    // It may have meant anything.
    let began = Instant::now();
    while origin.calls() == 1 {
        assert!(began.elapsed() < LIMIT, "nothing became unproven");
        get(&service, "/a").await;
        sleep(Duration::from_millis(2)).await;
    }
    here.layer.purge().everything();
    let calls = origin.calls();
    while origin.calls() == calls {
        assert!(began.elapsed() < LIMIT, "it hears no more");
        get(&service, "/a").await;
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn namespaces_do_not_hear_each_other() {
    let Some(server) = server().await else { return };
    let (here, there) = (Node::start(&server, "n1"), Node::start_in(&server, "n1", "other"));
    here.caught_up().await;
    there.caught_up().await;
    there.page(PAGE).await;
    here.layer.purge().everything();
    until("read back", || here.cluster.status().waiting == 0).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(there.page(PAGE).await, "1");
}

#[tokio::test]
async fn many_purges_at_once_reach_the_other_node_in_bounded_room() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    there.page(PAGE).await;
    server.signal("-STOP");
    for n in 0..12_000 {
        here.layer.purge().tag(&format!("t{n}"));
    }
    assert!(here.cluster.status().waiting <= 10_000);
    server.signal("-CONT");
    there.loses(PAGE, "what became of too many").await;
    until("all read back", || here.cluster.status().waiting == 0).await;
}
