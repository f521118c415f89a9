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
    server::server,
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
