//! Random requests, edits and purges on two and on five nodes, by several clients at once.
//!
//! The origin has a version of each page. After an edit one node purges the page in one of many ways, and once that
//! is confirmed by all nodes, no request that begins later may get an older version, on any node. What an unsafe
//! request has changed is not confirmed: that holds at once on the node that it went through.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use tower::Layer;
use tower_readthrough::{
    DefaultKey, KeyExtractor, MemoryStore, Purge, PurgeError, Purged, ReadThrough, ReadThroughLayer, Rules,
    Tier, TierRead, cluster::Cluster, remote::RedisRemote,
};

use super::{
    node::{believed, until},
    server::{Server, server},
    support::{ScriptedOrigin, get, ok, request, secs, send},
};

const PAGES: usize = 60;
const CLIENTS: usize = 8;

type Versions = Arc<Vec<AtomicU64>>;

struct Node {
    purge: Purge,
    service: ReadThrough<ScriptedOrigin, MemoryStore>,
    cluster: Cluster,
    tier: Option<Tier>,
    /// What was confirmed of each page here.
    confirmed: Versions,
}

fn versions() -> Versions {
    Arc::new((0..PAGES).map(|_| AtomicU64::new(0)).collect())
}

fn url(page: usize) -> String {
    format!("http://example.com/{}/{page}?x=1", page % 5)
}

fn origin(versions: &Versions) -> ScriptedOrigin {
    let versions = Arc::clone(versions);
    ScriptedOrigin::unrecorded(move |_, head| {
        let page: usize = head.uri.path().rsplit('/').next().unwrap().parse().unwrap();
        if head.method == "POST" {
            versions[page].fetch_add(1, Ordering::SeqCst);
        }
        let tag = format!("group-{}", page % 5);
        ok(versions[page].load(Ordering::SeqCst).to_string()).header("surrogate-key", tag)
    })
}

impl Node {
    fn start(server: &Server, name: &str, versions: &Versions, has_tier: bool) -> Self {
        let rules = Rules::new().fixed_ttl(secs(3600));
        // Small enough to lose things now and then.
        let store = MemoryStore::builder(1 << 20).snapshots(has_tier).build().unwrap();
        let tier = has_tier.then(|| {
            let remote = RedisRemote::builder(server.url()).namespace("values").open().unwrap();
            Tier::builder(remote).single_fetch(true).build().unwrap()
        });
        let mut layer = ReadThroughLayer::builder(store).rules(rules);
        if let Some(tier) = &tier {
            layer = layer.second_tier(tier.clone());
        }
        let layer = layer.build().unwrap();
        let purge = layer.purge();
        let cluster = Cluster::builder(server.url(), purge.clone()).namespace("test").node(name);
        let cluster = cluster.open().unwrap();
        Self { service: layer.layer(origin(versions)), purge, cluster, tier, confirmed: self::versions() }
    }

    fn purge(&self, page: usize, kind: usize, is_soft: bool) -> Result<Purged, PurgeError> {
        let (purge, url) = (if is_soft { self.purge.soft() } else { self.purge.clone() }, url(page));
        let key = || {
            let head = http::Request::get(&url).body(()).unwrap().into_parts().0;
            DefaultKey::new().key(&head).unwrap()
        };
        match kind {
            0 => purge.url(&url),
            1 => Ok(purge.tag(&format!("group-{}", page % 5))),
            2 => purge.path_prefix(&format!("http://example.com/{}", page % 5)),
            3 => purge.pattern(&format!("http://example.com/*/{page}")),
            4 => purge.host("example.com"),
            5 => Ok(purge.key(&key())),
            6 => Ok(purge.key_prefix(&key().as_bytes()[..8])),
            _ => Ok(purge.everything()),
        }
    }
}

/// What is known of the run.
#[derive(Default)]
struct Run {
    left: AtomicUsize,
    purges: AtomicUsize,
}

fn raise(versions: &Versions, page: usize, version: u64) {
    versions[page].fetch_max(version, Ordering::SeqCst);
}

async fn client(seed: u64, run: &Run, nodes: &[Node], pages: &Versions, everywhere: &Versions) {
    let mut random = fastrand::Rng::with_seed(seed);
    let one = |left: usize| left.checked_sub(1);
    while run.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_ok() {
        let (page, node) = (random.usize(..PAGES), &nodes[random.usize(..nodes.len())]);
        match random.usize(..100) {
            0..5 => {
                let version = pages[page].fetch_add(1, Ordering::SeqCst) + 1;
                // Everything and a host are rare: they leave nothing to be found.
                let kind = [0, 0, 1, 2, 3, 5, 5, random.usize(..8)][random.usize(..8)];
                let purged = node.purge(page, kind, random.bool()).unwrap();
                raise(&node.confirmed, page, version);
                purged.applied_everywhere(secs(20)).await.unwrap();
                raise(everywhere, page, version);
                run.purges.fetch_add(1, Ordering::Relaxed);
            }
            5..8 => {
                let answer = send(&node.service, request("POST", &url(page), &[])).await;
                raise(
                    &node.confirmed,
                    page,
                    String::from_utf8(answer.body.to_vec()).unwrap().parse().unwrap(),
                );
            }
            _ => {
                let least = [everywhere, &node.confirmed].map(|known| known[page].load(Ordering::SeqCst));
                let answer = get(&node.service, &url(page)).await;
                assert_eq!(answer.status, 200);
                let version: u64 = String::from_utf8(answer.body.to_vec()).unwrap().parse().unwrap();
                assert!(least.iter().all(|least| version >= *least), "page {page}: {version} of {least:?}");
            }
        }
    }
}

async fn check(nodes: usize, operations: usize, has_tier: bool) {
    let Some(server) = server().await else { return };
    let (pages, everywhere) = (versions(), versions());
    let start = |n| Node::start(&server, &format!("n{n}"), &pages, has_tier);
    let nodes: Vec<_> = (1..=nodes).map(start).collect();
    for node in &nodes {
        until("caught up", || node.cluster.status().is_caught_up).await;
    }
    believed(&nodes[0].purge).await;
    let run = Run { left: AtomicUsize::new(operations), ..Run::default() };
    let clients = (0..CLIENTS).map(|seed| client(seed as u64, &run, &nodes, &pages, &everywhere));
    join_all(clients).await;
    assert!(run.purges.into_inner() > operations / 60);
    for tier in nodes.iter().filter_map(|node| node.tier.as_ref()) {
        let reads = tier.status().reads;
        assert!(reads.get(TierRead::Fresh) > 0 && reads.get(TierRead::Purged) > 0, "{reads:?}");
    }
    let gaps = nodes.iter().map(|node| node.cluster.status().gaps);
    assert_eq!(gaps.collect::<Vec<_>>(), vec![1; nodes.len()], "only the first connection was one");
}

#[tokio::test]
async fn no_response_of_two_nodes_is_older_than_a_purge_that_both_have_confirmed() {
    check(2, 4000, false).await;
}

#[tokio::test]
async fn no_response_of_five_nodes_is_older_than_a_purge_that_all_have_confirmed() {
    check(5, 2000, false).await;
}

#[tokio::test]
#[ignore = "a hundred thousand operations take a while"]
async fn no_response_of_two_nodes_of_many_is_older_than_a_purge_that_both_have_confirmed() {
    check(2, 100_000, false).await;
}

#[tokio::test]
#[ignore = "a hundred thousand operations take a while"]
async fn no_response_of_five_nodes_of_many_is_older_than_a_purge_that_all_have_confirmed() {
    check(5, 100_000, false).await;
}

#[tokio::test]
async fn no_response_of_two_nodes_with_a_second_tier_is_older_than_a_purge_that_both_have_confirmed() {
    check(2, 4000, true).await;
}

#[tokio::test]
#[ignore = "a hundred thousand operations take a while"]
async fn no_response_of_two_nodes_of_many_with_a_second_tier_is_older_than_a_purge_that_both_have_confirmed()
{
    check(2, 100_000, true).await;
}
