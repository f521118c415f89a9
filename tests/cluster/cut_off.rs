//! For how long a node that is cut off serves what it has.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_readthrough::{
    PurgeState,
    cluster::{ClusterState, WhenCutOff},
};

use super::{
    link::{Fault, Link},
    node::{LIMIT, Node, PAGE, until},
    server::{Server, server},
    support::secs,
};

#[tokio::test]
async fn a_node_that_is_cut_off_for_too_long_asks_the_origin_until_it_hears_again() {
    let Some(server) = server().await else { return };
    let link = Link::to(server.port()).await;
    let here = Node::start(&server, "n1");
    let there = Node::start_with(&link.url(), "n2", WhenCutOff::ValidateAfter(secs(3)));
    assert!(there.cluster.status().must_validate, "it has heard of nothing yet");
    there.caught_up().await;
    for fault in [Fault::Hole, Fault::Cut] {
        there.page(PAGE).await;
        let calls = there.origin.calls();
        // It hears that there is nothing once a second.
        sleep(secs(4)).await;
        there.page(PAGE).await;
        assert_eq!((there.origin.calls(), there.cluster.status().must_validate), (calls, false), "{fault:?}");
        link.set(fault);
        let cut_off_at = Instant::now();
        until("cut off", || there.cluster.status().must_validate).await;
        assert!(cut_off_at.elapsed() > secs(1), "it had heard all but a moment ago");
        for asked in 1..=3 {
            there.page(PAGE).await;
            assert_eq!(there.origin.calls(), calls + asked, "{fault:?}");
        }
        let purged = here.layer.purge().tag("red");
        until("sent", || purged.state() == PurgeState::Sent).await;
        link.set(Fault::None);
        until("back", || !there.cluster.status().must_validate).await;
        there.page(PAGE).await;
        let calls = there.origin.calls();
        there.page(PAGE).await;
        assert_eq!(there.origin.calls(), calls, "{fault:?}");
    }
}

/// One that answers late is not away: nothing fails, and purges come late.
#[tokio::test]
async fn a_server_that_answers_slowly_delays_purges_and_nothing_else() {
    let Some(server) = server().await else { return };
    let link = Link::to(server.port()).await;
    let (here, there) = (Node::start(&server, "n1"), Node::start_at(&link.url(), "n2"));
    here.caught_up().await;
    there.caught_up().await;
    there.page(PAGE).await;
    link.set(Fault::Slow(Duration::from_millis(500)));
    for _ in 0..3 {
        let began = Instant::now();
        here.layer.purge().tag("red");
        there.loses(PAGE, "a page").await;
        assert!(began.elapsed() < LIMIT);
        let own = there.layer.purge().tag("red");
        until("sent", || own.state() == PurgeState::Sent).await;
    }
    let status = there.cluster.status();
    assert!(status.is_connected && status.state != ClusterState::CutOff, "{status:?}");
}

/// The others cannot see it: to them it is silent, and safe once its time is over.
#[tokio::test]
async fn a_node_that_may_not_register_hears_nothing_until_it_may() {
    let Some(server) = server().await else { return };
    let node = Node::start_with(&server.url(), "n1", WhenCutOff::ValidateAfter(secs(3)));
    for (forbid, allow, error) in [
        (&["ACL", "SETUSER", "default", "-hset"][..], &["ACL", "SETUSER", "default", "+hset"][..], "NOPERM "),
        (&["ACL", "SETUSER", "default", "-hsetnx"], &["ACL", "SETUSER", "default", "+hsetnx"], "NOPERM "),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"], "READONLY "),
    ] {
        until("heard", || !node.cluster.status().must_validate).await;
        server.command(forbid).await.unwrap();
        until("gone", || {
            let status = node.cluster.status();
            !status.is_connected && status.last_error.is_some_and(|told| told.starts_with(error))
        })
        .await;
        until("validates", || node.cluster.status().must_validate).await;
        server.command(allow).await.unwrap();
        until("heard again", || !node.cluster.status().must_validate).await;
        assert_eq!(node.cluster.status().last_error, None, "{forbid:?}");
    }
}

/// It goes on reading, which needs no memory.
#[tokio::test]
async fn a_node_that_is_not_registered_since_the_memory_is_full_validates_and_goes_on_reading() {
    let Some(server) = server().await else { return };
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await.unwrap();
    let node = Node::start_with(&server.url(), "n1", WhenCutOff::ValidateAfter(secs(3)));
    until("heard", || !node.cluster.status().must_validate).await;
    let before = node.cluster.status();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    until("validates", || node.cluster.status().must_validate).await;
    let status = node.cluster.status();
    assert!(status.is_connected && status.is_caught_up, "{status:?}");
    assert_eq!((status.gaps, status.position), (before.gaps, before.position), "nothing was missed");
    // One that finds no log cannot begin one.
    let late = Node::start_in(&server, "n2", "other");
    until("told", || late.cluster.status().last_error.is_some_and(|told| told.starts_with("OOM "))).await;
    assert!(!late.cluster.status().is_caught_up);
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    until("heard again", || !node.cluster.status().must_validate).await;
    late.caught_up().await;
    assert_eq!((node.cluster.status().last_error, late.cluster.status().last_error), (None, None));
}

/// Of `XADD`, where it is about commands.
async fn counted(server: &Server, section: &str, name: &str) -> u64 {
    let info = server.command(&["INFO", section]).await.unwrap();
    let info = redis::from_redis_value::<String>(info).unwrap();
    let line = info.lines().find(|line| line.starts_with("cmdstat_xadd:") || line.starts_with(name)).unwrap();
    let (_, number) = line.split_once(name).unwrap();
    number.split(',').next().unwrap().parse().unwrap()
}

/// Each time that is refused it connects anew, after a pause.
#[tokio::test]
async fn a_node_that_may_not_begin_an_empty_log_says_so() {
    let Some(server) = server().await else { return };
    server.command(&["ACL", "SETUSER", "default", "-xadd"]).await.unwrap();
    let node = Node::start(&server, "n1");
    until("told", || node.cluster.status().last_error.is_some_and(|told| told.starts_with("NOPERM "))).await;
    let connections = counted(&server, "stats", "total_connections_received:").await;
    let refused = counted(&server, "commandstats", "rejected_calls=").await;
    assert!((1..=connections).contains(&refused), "{refused} over {connections}");
    server.command(&["ACL", "SETUSER", "default", "+xadd"]).await.unwrap();
    node.caught_up().await;
}
