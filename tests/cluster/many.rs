//! Two and five nodes, and many responses.

use futures_util::future::join_all;

use super::{
    node::{Node, believed},
    server::server,
    support::secs,
};

/// All that the nodes serve, and how many of it are older than the last purge.
async fn ask_for_all(nodes: &[Node], before: &[usize], pages: usize) -> usize {
    let stale = nodes.iter().zip(before).map(async |(node, before)| {
        let mut stale = 0;
        for page in 0..pages {
            let call: usize = node.page(&format!("http://example.com/{page}")).await.parse().unwrap();
            // Calls are counted from 1.
            stale += usize::from(call <= *before);
        }
        stale
    });
    join_all(stale).await.into_iter().sum()
}

async fn check(count: usize, pages: usize) {
    let Some(server) = server().await else { return };
    let nodes: Vec<_> = (1..=count).map(|number| Node::start(&server, &format!("n{number}"))).collect();
    for node in &nodes {
        node.caught_up().await;
    }
    let calls = || nodes.iter().map(|node| node.origin.calls()).collect::<Vec<_>>();
    ask_for_all(&nodes, &calls(), pages).await;
    assert_eq!(calls(), vec![pages; count]);
    believed(&nodes[0].layer.purge()).await;
    let before = calls();
    nodes[0].layer.purge().tag("red").applied_everywhere(secs(10)).await.unwrap();
    assert_eq!(ask_for_all(&nodes, &before, pages).await, 0);
    assert_eq!(calls(), vec![2 * pages; count]);
    let others = nodes[count - 1].cluster.status().others;
    let names: Vec<_> = others.iter().map(|node| node.name.to_string()).collect();
    assert_eq!(names, (1..count).map(|number| format!("n{number}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_of_five_serves_any_of_ten_thousand_responses_after_their_purge_is_confirmed() {
    check(5, 2000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_of_two_serves_any_of_four_thousand_responses_after_their_purge_is_confirmed() {
    check(2, 2000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a hundred thousand requests take a while"]
async fn no_node_of_two_or_five_serves_any_of_ten_thousand_responses_each_after_their_purge_is_confirmed() {
    for count in [2, 5] {
        check(count, 10_000).await;
    }
}
