//! A node ends and comes back.

use tower::Layer;
use tower_readthrough::{
    MemoryStore, PurgeState, ReadThroughLayer, Store,
    cluster::{Cluster, ClusterError},
    store::{SnapshotFile, SnapshotFileError},
    testing::PurgeLog,
};

use super::{
    node::{Node, until},
    server::server,
    support::{ScriptedOrigin, get, ok, secs},
};

/// And of what was purged while it was not there it has to ask for no more than that.
#[tokio::test]
async fn a_node_that_restarts_uses_what_nothing_has_purged() {
    let Some(mut server) = server().await else { return };
    let path = std::env::temp_dir().join(format!("trt-restart-{}", std::process::id()));
    let other = Node::start(&server, "n1");
    other.caught_up().await;
    other.layer.purge().tag("before");
    for round in ["purged", "lost"] {
        let (node, file) = Node::start_with_file(&server, "n2", &path).await;
        for path in ["/red", "/blue", "/green"] {
            node.page(path).await;
        }
        // Purged there before it was fetched anew, and so not since.
        other.layer.purge().url("http://example.com/green").unwrap();
        node.loses("/green", "an earlier purge").await;
        file.write().await.unwrap();
        drop((node, file));
        match round {
            "purged" => {
                let purged = other.layer.purge().url("http://example.com/red").unwrap();
                until("sent", || purged.state() == PurgeState::Sent).await;
            }
            // The log begins anew: nothing is known of what was purged.
            _ => {
                server.kill();
                server.start().await;
                other.caught_up().await;
            }
        }
        let (node, file) = Node::start_with_file(&server, "n2", &path).await;
        let report = file.loaded().await;
        for (path, is_used) in [("/red", false), ("/blue", round == "purged"), ("/green", round == "purged")]
        {
            let calls = node.origin.calls();
            node.page(path).await;
            assert_eq!(node.origin.calls() == calls, is_used, "{round}: {path}, {report:?}");
        }
        assert_eq!(report.loaded, if round == "purged" { 2 } else { 3 }, "{round}: {report:?}");
        drop((node, file));
        std::fs::remove_file(&path).unwrap();
    }
    _ = std::fs::remove_file(path.with_extension("lock"));
}

/// It would not know what was purged on other nodes since it was written.
#[tokio::test]
async fn a_node_of_a_cluster_does_not_trust_a_file() {
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let purge = ReadThroughLayer::builder(store.clone()).purge();
    let _cluster = Cluster::builder("redis://127.0.0.1:1/", purge).open().unwrap();
    let path = std::env::temp_dir().join(format!("trt-cluster-{}", std::process::id()));
    let refused = SnapshotFile::builder(store, path).trust_freshness().open().unwrap_err();
    assert!(matches!(refused, SnapshotFileError::Setting { setting: "trust_freshness", .. }), "{refused}");
}

#[tokio::test]
async fn a_store_that_trusts_a_file_joins_no_cluster() {
    let store = MemoryStore::builder(1 << 20).snapshots(true).build().unwrap();
    let path = std::env::temp_dir().join(format!("trt-trusts-{}", std::process::id()));
    let trusting = |store: &MemoryStore| SnapshotFile::builder(store.clone(), &path).trust_freshness().open();
    let _file = trusting(&store).unwrap();
    let purge = ReadThroughLayer::builder(store).purge();
    assert_eq!(PurgeLog::new().join(&purge).err(), Some(ClusterError::TrustsFile));
    let refused = Cluster::builder("redis://127.0.0.1:1/", purge).open().unwrap_err();
    assert_eq!(refused, ClusterError::TrustsFile);
    // A file that is not opened settles nothing.
    let store = MemoryStore::builder(1 << 20).build().unwrap();
    let purge = ReadThroughLayer::builder(store.clone()).purge();
    assert!(matches!(trusting(&store), Err(SnapshotFileError::NoTexts)));
    assert!(PurgeLog::new().join(&purge).is_ok());
    _ = std::fs::remove_file(path.with_extension("lock"));
}

/// What the origin says is newer than what a file has, also to a fetch that began before the file was opened.
#[tokio::test]
async fn what_is_fetched_while_a_file_is_loaded_stays() {
    let Some(server) = server().await else { return };
    let path = std::env::temp_dir().join(format!("trt-meanwhile-{}", std::process::id()));
    let other = Node::start(&server, "n1");
    other.caught_up().await;
    other.layer.purge().tag("before");
    let (node, file) = Node::start_with_file(&server, "n2", &path).await;
    node.page("/k").await;
    file.write().await.unwrap();
    drop((node, file));

    let store = MemoryStore::builder(16 << 20).snapshots(true).build().unwrap();
    let node = Node::start_over(store.clone(), &server.url(), "n2", "test");
    node.caught_up().await;
    let origin = ScriptedOrigin::always(|| ok("new"));
    let (gate, service) = (origin.hold(), node.layer.layer(origin.clone()));
    let fetched = tokio::spawn({
        let service = service.clone();
        async move { get(&service, "/k").await.body }
    });
    gate.waiting(1).await;
    let file = SnapshotFile::builder(store, &path).open().unwrap();
    let report = file.loaded().await;
    gate.open();
    assert_eq!(fetched.await.unwrap(), "new");
    tokio::time::timeout(secs(20), async {
        while origin.under_way() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let reply = get(&service, "/k").await;
    assert_eq!((&*reply.body, origin.calls()), (&b"new"[..], 1), "{report:?}");
    drop((node, file));
    std::fs::remove_file(&path).unwrap();
    _ = std::fs::remove_file(path.with_extension("lock"));
}

/// Although the node has stored something before it opens the file, and what it no longer needed for that is gone.
#[tokio::test]
async fn a_file_that_is_opened_late_is_judged_as_one_that_is_opened_at_once() {
    let Some(mut server) = server().await else { return };
    let path = std::env::temp_dir().join(format!("trt-late-{}", std::process::id()));
    let other = Node::start(&server, "n1");
    other.caught_up().await;
    other.layer.purge().tag("before");
    let (node, file) = Node::start_with_file(&server, "n2", &path).await;
    for path in ["/a/red", "/blue"] {
        node.page(path).await;
    }
    file.write().await.unwrap();
    drop((node, file));
    // By a record, which is dropped when nothing can match it.
    let purged = other.layer.purge().path_prefix("http://example.com/a").unwrap();
    until("sent", || purged.state() == PurgeState::Sent).await;
    for round in ["known", "lost"] {
        if round == "lost" {
            server.kill();
            server.start().await;
            other.caught_up().await;
            // The purge is of the last minute, and so known to the new server too.
            until("sent again", || other.cluster.status().waiting == 0).await;
        }
        let store = MemoryStore::builder(16 << 20).snapshots(true).build().unwrap();
        let node = Node::start_over(store.clone(), &server.url(), "n2", "test");
        node.caught_up().await;
        node.page("/warm").await;
        // As long as it takes to sweep, if that drops anything.
        let swept = until("swept", || store.sequence().records() == (0, 0));
        _ = tokio::time::timeout(secs(3), swept).await;
        let file = SnapshotFile::builder(store, &path).open().unwrap();
        let report = file.loaded().await;
        let calls = node.origin.calls();
        node.page("/blue").await;
        assert_eq!(node.origin.calls() == calls, round == "known", "{report:?}");
        assert_eq!((report.loaded, report.unneeded), (1, 1), "{round}: {report:?}");
        drop((node, file));
    }
    std::fs::remove_file(&path).unwrap();
    _ = std::fs::remove_file(path.with_extension("lock"));
}
