//! A second tier of several nodes on a real server.

use tokio::time::Instant;
use tower::Layer;
use tower_readthrough::{
    MemoryStore, ReadThrough, ReadThroughLayer, Tier, TierRead, TierWrite,
    cluster::{Cluster, ClusterBuilder},
    remote::RedisRemote,
    tier::TierBuilder,
};

use super::{
    link::{Fault, Link},
    node::{LIMIT, until},
    server::{Server, server},
    support::{ScriptedOrigin, get, ms, ok, secs},
};

/// A node with a second tier on the server of its cluster.
pub(crate) struct Node {
    pub(crate) cache: ReadThroughLayer<MemoryStore>,
    pub(crate) service: ReadThrough<ScriptedOrigin, MemoryStore>,
    pub(crate) origin: ScriptedOrigin,
    pub(crate) cluster: Cluster,
    remote: RedisRemote,
    pub(crate) tier: Tier,
}

pub(crate) fn numbered() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, _| {
        let number = (call - 1).to_string();
        ok(number).header("surrogate-key", "red").header("cache-control", "max-age=3600, stale-if-error=3600")
    })
}

impl Node {
    pub(crate) fn start(
        log: &str,
        values: &str,
        name: &str,
        origin: &ScriptedOrigin,
        takes_turns: bool,
    ) -> Self {
        Self::open(log, values, origin, |cluster| cluster.node(name), |tier| tier.single_fetch(takes_turns))
    }

    pub(crate) fn start_with(
        log: &str,
        values: &str,
        name: &str,
        origin: &ScriptedOrigin,
        set: impl FnOnce(ClusterBuilder) -> ClusterBuilder,
    ) -> Self {
        Self::open(log, values, origin, |cluster| set(cluster.node(name)), |tier| tier)
    }

    fn open(
        log: &str,
        values: &str,
        origin: &ScriptedOrigin,
        set_cluster: impl FnOnce(ClusterBuilder) -> ClusterBuilder,
        set_tier: impl FnOnce(TierBuilder) -> TierBuilder,
    ) -> Self {
        // Where time is not what is tested, a busy machine must not make a miss of a hit.
        let remote = RedisRemote::builder(values).namespace("test").read_timeout(ms(800)).open().unwrap();
        let tier = set_tier(Tier::builder(remote.clone())).build().unwrap();
        let store = MemoryStore::builder(64 << 20).snapshots(true).build().unwrap();
        let cache = ReadThroughLayer::builder(store).second_tier(tier.clone()).build().unwrap();
        let cluster = Cluster::builder(log, cache.purge()).namespace("test");
        let cluster = set_cluster(cluster).open().unwrap();
        Self { service: cache.layer(origin.clone()), cache, origin: origin.clone(), cluster, remote, tier }
    }

    async fn ready(server: &Server, name: &str, origin: &ScriptedOrigin) -> Self {
        Self::ready_with(server, name, origin, false).await
    }

    async fn ready_with(server: &Server, name: &str, origin: &ScriptedOrigin, takes_turns: bool) -> Self {
        let node = Self::start(&server.url(), &server.url(), name, origin, takes_turns);
        node.is_ready().await;
        node
    }

    pub(crate) async fn is_ready(&self) {
        until("ready", || self.cluster.status().is_caught_up && self.remote.status().is_connected).await;
    }

    pub(crate) async fn page(&self, path: &str) -> String {
        String::from_utf8(get(&self.service, path).await.body.to_vec()).unwrap()
    }

    pub(crate) async fn written(&self) {
        assert_eq!(self.tier.flush(secs(20)).await.left, 0);
    }

    pub(crate) fn count(&self, read: TierRead) -> u64 {
        self.tier.status().reads.get(read)
    }
}

#[tokio::test]
async fn a_node_that_is_restarted_over_a_warm_tier_asks_its_origin_for_nothing() {
    let Some(server) = server().await else { return };
    let before = Node::ready(&server, "n1", &numbered()).await;
    let pages: Vec<_> = (0..100).map(|page| format!("/{page}")).collect();
    for page in &pages {
        before.page(page).await;
    }
    before.written().await;
    assert_eq!(before.tier.status().writes.get(TierWrite::Written), 100);
    _ = before.cache.purge().url("http://example.com/7").unwrap();
    until("read back", || before.cluster.status().waiting == 0).await;
    drop(before);
    let after = Node::ready(&server, "n1", &numbered()).await;
    for (number, page) in pages.iter().enumerate() {
        let expected = if number == 7 { 0 } else { number };
        assert_eq!(after.page(page).await, expected.to_string());
    }
    assert_eq!((after.origin.calls(), after.count(TierRead::Purged)), (1, 1));
}

#[tokio::test]
async fn a_purge_that_was_applied_everywhere_is_missing_in_the_tier_of_all() {
    let Some(server) = server().await else { return };
    let [here, there] =
        [Node::ready(&server, "n1", &numbered()).await, Node::ready(&server, "n2", &numbered()).await];
    for round in 0..20 {
        let page = format!("/{round}");
        let origin = here.origin.clone();
        let gate = origin.hold();
        // Begun before the purge, and written behind it.
        let service = here.service.clone();
        let path = page.clone();
        let fetch = tokio::spawn(async move { get(&service, &path).await.body });
        gate.waiting(1).await;
        let purged = there.cache.purge().tag("red");
        gate.open();
        fetch.await.unwrap();
        here.written().await;
        purged.applied_everywhere(LIMIT).await.unwrap();
        let calls = there.origin.calls();
        there.page(&page).await;
        assert_eq!(there.origin.calls(), calls + 1, "round {round}");
        there.written().await;
    }
}

async fn check_callers(callers: usize) {
    let Some(server) = server().await else { return };
    for (takes_turns, most) in [(false, 2), (true, 1)] {
        let origin =
            ScriptedOrigin::new(|_, _| ok("x").header("cache-control", "max-age=3600").after(ms(200)));
        let nodes = [
            Node::ready_with(&server, "n1", &origin, takes_turns).await,
            Node::ready_with(&server, "n2", &origin, takes_turns).await,
        ];
        let path = format!("/{takes_turns}");
        // The nodes have come to the same key before any caller is done.
        let calls: Vec<_> = nodes
            .iter()
            .flat_map(|node| (0..callers).map(|_| node.service.clone()))
            .map(|service| {
                let path = path.clone();
                tokio::spawn(async move { get(&service, &path).await.status })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), 200);
        }
        assert!((1..=most).contains(&origin.calls()), "{} {takes_turns}", origin.calls());
    }
}

#[tokio::test]
async fn many_callers_on_each_of_two_nodes_are_at_most_two_calls_of_the_origin_and_one_in_turns() {
    check_callers(500).await;
}

#[tokio::test]
#[ignore = "a debug build takes so long for twenty thousand tasks that nodes wait no longer for each other"]
async fn ten_thousand_callers_on_each_of_two_nodes_are_at_most_two_calls_of_the_origin_and_one_in_turns() {
    check_callers(10_000).await;
}

#[tokio::test]
async fn without_the_server_everything_is_answered_and_with_it_again_the_tier_is_of_use() {
    let Some(mut server) = server().await else { return };
    let node = Node::ready(&server, "n1", &numbered()).await;
    node.page("/").await;
    node.written().await;
    server.kill();
    until("alone", || !node.cluster.status().is_connected && !node.remote.status().is_connected).await;
    for page in 0..50 {
        assert_eq!(get(&node.service, &format!("/away-{page}")).await.status, 200);
    }
    // It begins empty: what it had is unknown, and what is fetched from now on is kept.
    server.start().await;
    node.is_ready().await;
    let began = Instant::now();
    let other = loop {
        node.page(&format!("/back-{}", node.origin.calls())).await;
        node.written().await;
        let other = Node::ready(&server, "n2", &numbered()).await;
        let last = format!("/back-{}", node.origin.calls() - 1);
        if get(&other.service, &last).await.is_hit() {
            break other;
        }
        assert!(began.elapsed() < secs(20), "{:?}", node.tier.status());
    };
    assert_eq!(other.origin.calls(), 0);
}

/// Each fault is on the way to the values alone: the log is heard, so that the tier is asked.
#[tokio::test]
async fn a_way_to_the_values_that_loses_everything_or_breaks_costs_no_response() {
    let Some(server) = server().await else { return };
    Node::ready(&server, "n0", &numbered()).await;
    for (number, fault) in [Fault::Hole, Fault::Cut, Fault::Half, Fault::Garbage].into_iter().enumerate() {
        let link = Link::to(server.port()).await;
        let name = format!("n{number}");
        let node = Node::start(&server.url(), &link.url(), &name, &numbered(), false);
        node.is_ready().await;
        node.page(&format!("/{number}")).await;
        node.written().await;
        link.set(fault);
        let began = Instant::now();
        for page in 0..20 {
            assert_eq!(get(&node.service, &format!("/{number}/{page}")).await.status, 200);
        }
        assert!(began.elapsed() < secs(15), "{fault:?} {:?}", began.elapsed());
        link.set(Fault::None);
        until("connected again", || node.remote.status().is_connected).await;
    }
}

#[tokio::test]
async fn the_numbers_of_the_cache_say_how_the_tier_stands_to_its_server() {
    let Some(mut server) = server().await else { return };
    let node = Node::ready(&server, "n1", &numbered()).await;
    let remote = || node.cache.stats().snapshot().second_tier.unwrap().remote.unwrap();
    let before = node.cache.stats().snapshot();
    assert_eq!((remote().is_connected, remote().connections, remote().last_error), (true, 1, None));
    server.kill();
    until("lost", || !remote().is_connected && remote().last_error.is_some()).await;
    server.start().await;
    until("back", || remote().is_connected).await;
    assert_eq!(remote(), node.remote.status());
    let since = node.cache.stats().snapshot().since(&before).second_tier.unwrap().remote.unwrap();
    assert_eq!((since.is_connected, since.connections), (true, remote().connections - 1));
}

#[cfg(feature = "tracing")]
#[tokio::test]
async fn a_lost_connection_of_the_tier_is_told_once_and_so_is_its_return() {
    let Some(mut server) = server().await else { return };
    // Where there is one subscriber alone, a thread without one decides for all of them.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let (warnings, _listening) = super::status::Warnings::listen();
    let remote = RedisRemote::builder(server.url()).namespace("test").open().unwrap();
    until("connected", || remote.status().is_connected).await;
    assert_eq!(warnings.told(), Vec::<String>::new());
    server.kill();
    // It is tried several times.
    until("refused", || remote.status().last_error.is_some_and(|error| error.contains("refused"))).await;
    server.start().await;
    until("connected again", || remote.status().is_connected).await;
    let told = warnings.told();
    let [lost, back] = &told[..] else { panic!("{told:?}") };
    assert!(lost.starts_with("no connection") && back.ends_with("again"), "{told:?}");
}
