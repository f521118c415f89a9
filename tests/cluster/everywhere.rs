//! What is known of the other nodes.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tower_readthrough::{PurgeState, purge::NotEverywhereReason};

use super::{
    node::{Node, PAGE, believed, two, until},
    server::server,
    support::secs,
};

#[tokio::test]
async fn everywhere_means_all_nodes_and_names_the_others() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    let third = Node::start(&server, "n3");
    third.caught_up().await;
    let within = Duration::from_millis(300);
    let error = here.layer.purge().tag("red").applied_everywhere(within).await.unwrap_err();
    assert_eq!(error.reason(), NotEverywhereReason::Young, "there may be nodes that have not registered yet");
    believed(&here.layer.purge()).await;
    for _ in 0..20 {
        let before = there.page(PAGE).await;
        here.layer.purge().tag("red").applied_everywhere(secs(5)).await.unwrap();
        assert_ne!(there.page(PAGE).await, before);
    }
    let both = here.layer.purge().tags(["red", "green"]).unwrap();
    both.applied_everywhere(secs(5)).await.unwrap();
    // One that leaves is not waited for, and one that is gone without a word is named.
    third.cluster.clone().leave().await;
    here.layer.purge().tag("red").applied_everywhere(secs(5)).await.unwrap();
    drop(there);
    let error = here.layer.purge().tag("red").applied_everywhere(within).await.unwrap_err();
    assert_eq!((error.reason(), error.nodes()), (NotEverywhereReason::Behind, &["n2".to_owned()][..]));
    assert!(error.to_string().ends_with("n2"), "{error}");
}

/// All at once, and not one after the other.
#[tokio::test]
async fn all_that_wait_are_told_in_time_although_the_server_hangs() {
    let Some(server) = server().await else { return };
    let [here, _there] = two(&server).await;
    let purged: Vec<_> = (0..20).map(|n| here.layer.purge().tag(&format!("t{n}"))).collect();
    until("sent", || purged.iter().all(|purged| purged.state() == PurgeState::Sent)).await;
    server.signal("-STOP");
    let all = join_all(purged.iter().map(|purged| purged.applied_everywhere(secs(1))));
    // Each look at a server that hangs takes a second by itself.
    let all = timeout(secs(8), all).await.expect("all are told");
    assert!(all.iter().all(Result::is_err));
    server.signal("-CONT");
}
