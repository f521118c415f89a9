//! What a node of a cluster is configured with.

use std::time::Duration;

use tower_readthrough::{
    MemoryStore, PurgeState, ReadThroughLayer,
    cluster::{Cluster, ClusterError, WhenCutOff},
};

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let purge = || ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).purge();
    let open = |url: &str, namespace: &str| Cluster::builder(url, purge()).namespace(namespace).open();
    assert!(matches!(open("http://127.0.0.1/", "a"), Err(ClusterError::Url(_))));
    if cfg!(not(feature = "redis-tls")) {
        assert!(matches!(open("rediss://127.0.0.1/", "a"), Err(ClusterError::Url(_))), "TLS");
    }
    for name in ["", "a b", "{a}", &"x".repeat(65)] {
        assert!(matches!(open("redis://127.0.0.1:1/", name), Err(ClusterError::Name { .. })), "{name:?}");
    }
    for after in [Duration::ZERO, Duration::from_millis(2999), Duration::from_secs(3601)] {
        let cluster =
            Cluster::builder("redis://127.0.0.1:1/", purge()).when_cut_off(WhenCutOff::ValidateAfter(after));
        assert_eq!(cluster.open().err(), Some(ClusterError::WhenCutOff(after)));
    }
    let purge = purge();
    let first = Cluster::builder("redis://127.0.0.1:1/", purge.clone()).open().unwrap();
    let second = Cluster::builder("redis://127.0.0.1:1/", purge.clone()).open();
    assert_eq!(second.err(), Some(ClusterError::Joined));
    drop(first);
    assert_eq!(purge.everything().state(), PurgeState::Queued, "no node hears of it any more");
    let outside = std::thread::spawn(move || Cluster::builder("redis://127.0.0.1:1/", purge).open().err());
    assert_eq!(outside.join().unwrap(), Some(ClusterError::NoRuntime));
}
