//! Nodes of a test.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tower::Layer;
use tower_readthrough::{
    MemoryStore, Purge, ReadThrough, ReadThroughLayer, Rules,
    cluster::{Cluster, ClusterBuilder, WhenCutOff},
    store::SnapshotFile,
};

use super::{
    server::Server,
    support::{ScriptedOrigin, get, ok, secs},
};

pub(crate) const LIMIT: Duration = secs(20);

pub(crate) struct Node {
    pub(crate) layer: ReadThroughLayer<MemoryStore>,
    pub(crate) service: ReadThrough<ScriptedOrigin, MemoryStore>,
    pub(crate) origin: ScriptedOrigin,
    pub(crate) cluster: Cluster,
}

impl Node {
    pub(crate) fn start(server: &Server, name: &str) -> Self {
        Self::start_in(server, name, "test")
    }

    /// With what an earlier process has left in a file.
    pub(crate) async fn start_with_file(server: &Server, name: &str, path: &Path) -> (Self, SnapshotFile) {
        let store = MemoryStore::builder(16 << 20).snapshots(true).build().unwrap();
        let node = Self::start_over(store.clone(), &server.url(), name, "test");
        let file = SnapshotFile::builder(store, path).open().unwrap();
        file.loaded().await;
        node.caught_up().await;
        (node, file)
    }

    pub(crate) fn start_in(server: &Server, name: &str, namespace: &str) -> Self {
        Self::start_over(MemoryStore::with_capacity_bytes(16 << 20), &server.url(), name, namespace)
    }

    pub(crate) fn start_at(url: &str, name: &str) -> Self {
        Self::start_over(MemoryStore::with_capacity_bytes(16 << 20), url, name, "test")
    }

    pub(crate) fn start_with(url: &str, name: &str, when_cut_off: WhenCutOff) -> Self {
        Self::open(MemoryStore::with_capacity_bytes(16 << 20), url, |cluster| {
            cluster.namespace("test").node(name).when_cut_off(when_cut_off)
        })
    }

    pub(crate) fn start_over(store: MemoryStore, url: &str, name: &str, namespace: &str) -> Self {
        Self::open(store, url, |cluster| cluster.namespace(namespace).node(name))
    }

    fn open(store: MemoryStore, url: &str, set: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Self {
        let rules = Rules::new().fixed_ttl(secs(3600)).stale_if_error_for(secs(3600));
        let layer = ReadThroughLayer::builder(store).rules(rules).build().unwrap();
        let origin = ScriptedOrigin::new(|call, _| {
            ok(call.to_string()).header("surrogate-key", "red").header("cache-groups", "\"group\"")
        });
        let cluster = set(Cluster::builder(url, layer.purge())).open().unwrap();
        Self { service: layer.layer(origin.clone()), layer, origin, cluster }
    }

    pub(crate) async fn caught_up(&self) {
        until("caught up", || self.cluster.status().is_caught_up).await;
    }

    /// What the node serves, which is the number of the call to its origin.
    pub(crate) async fn page(&self, path: &str) -> String {
        String::from_utf8(get(&self.service, path).await.body.to_vec()).unwrap()
    }

    /// Waits until a page that was stored is fetched anew.
    pub(crate) async fn loses(&self, path: &str, what: &str) {
        let before = self.origin.calls();
        let began = Instant::now();
        while self.origin.calls() == before {
            assert!(began.elapsed() < LIMIT, "{what} is never lost");
            self.page(path).await;
            sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = timeout(LIMIT, async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never {what}");
}

/// Waits until the registry of nodes is old enough to be believed.
pub(crate) async fn believed(purge: &Purge) {
    purge.tag("nothing has it").applied_everywhere(LIMIT).await.unwrap();
}

pub(crate) async fn two(server: &Server) -> [Node; 2] {
    let nodes = [Node::start(server, "n1"), Node::start(server, "n2")];
    for node in &nodes {
        node.caught_up().await;
    }
    nodes
}

pub(crate) const PAGE: &str = "http://example.com/a/b?c=1";
