//! What is known of the other nodes.

use std::time::Duration;

use tokio::time::sleep;
use tower_readthrough::purge::NotEverywhereReason;

use super::{
    node::{Node, PAGE, two},
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
    sleep(secs(10)).await;
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
