//! Nodes that share purges over a real server.
//!
//! Time is real, since sockets take part. Tests wait for what a node says of itself, within a limit that only a
//! node that never gets there reaches.

#[allow(dead_code, unused_imports, reason = "the kit of the other tests, of which these use a part")]
#[path = "../it/support/mod.rs"]
mod support;

mod fake;
mod link;
mod remote;
mod server;
#[cfg(feature = "redis-tls")]
mod tls;

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tower::Layer;
use tower_readthrough::{
    CacheKey, MemoryStore, PurgeState, ReadThrough, ReadThroughLayer, Rules, StoreLayer,
    cluster::{Cluster, ClusterError},
    purge::NotEverywhereReason,
    store::{SnapshotFile, SnapshotFileError},
};

use self::{
    link::{Fault, Link},
    server::{Server, server},
    support::{ScriptedOrigin, get, ok, request, secs, send, status},
};

const LIMIT: Duration = secs(20);

struct Node {
    layer: ReadThroughLayer<MemoryStore>,
    service: ReadThrough<ScriptedOrigin, MemoryStore>,
    origin: ScriptedOrigin,
    cluster: Cluster,
}

impl Node {
    fn start(server: &Server, name: &str) -> Self {
        Self::start_in(server, name, "test")
    }

    /// With what an earlier process has left in a file.
    async fn start_with_file(server: &Server, name: &str, path: &Path) -> (Self, SnapshotFile) {
        let store = MemoryStore::builder(16 << 20).snapshots(true).build().unwrap();
        let node = Self::start_over(store.clone(), &server.url(), name, "test");
        let file = SnapshotFile::builder(store, path).open().unwrap();
        file.loaded().await;
        node.caught_up().await;
        (node, file)
    }

    fn start_in(server: &Server, name: &str, namespace: &str) -> Self {
        Self::start_over(MemoryStore::with_capacity_bytes(16 << 20), &server.url(), name, namespace)
    }

    fn start_at(url: &str, name: &str) -> Self {
        Self::start_over(MemoryStore::with_capacity_bytes(16 << 20), url, name, "test")
    }

    fn start_over(store: MemoryStore, url: &str, name: &str, namespace: &str) -> Self {
        let rules = Rules::new().fixed_ttl(secs(3600)).stale_if_error_for(secs(3600));
        let layer = ReadThroughLayer::builder(store).rules(rules).build().unwrap();
        let origin = ScriptedOrigin::new(|call, _| {
            ok(call.to_string()).header("surrogate-key", "red").header("cache-groups", "\"group\"")
        });
        let cluster = Cluster::builder(url, layer.purge()).namespace(namespace).node(name);
        let cluster = cluster.open().unwrap();
        Self { service: layer.layer(origin.clone()), layer, origin, cluster }
    }

    async fn caught_up(&self) {
        until("caught up", || self.cluster.status().is_caught_up).await;
    }

    /// What the node serves, which is the number of the call to its origin.
    async fn page(&self, path: &str) -> String {
        String::from_utf8(get(&self.service, path).await.body.to_vec()).unwrap()
    }

    /// Waits until a page that was stored is fetched anew.
    async fn loses(&self, path: &str, what: &str) {
        let before = self.origin.calls();
        let began = Instant::now();
        while self.origin.calls() == before {
            assert!(began.elapsed() < LIMIT, "{what} is never lost");
            self.page(path).await;
            sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = timeout(LIMIT, async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never {what}");
}

async fn two(server: &Server) -> [Node; 2] {
    let nodes = [Node::start(server, "n1"), Node::start(server, "n2")];
    for node in &nodes {
        node.caught_up().await;
    }
    nodes
}

const PAGE: &str = "http://example.com/a/b?c=1";

#[tokio::test]
async fn a_purge_of_any_kind_reaches_the_other_node() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    let key = {
        use tower_readthrough::{DefaultKey, KeyExtractor};
        DefaultKey::new().key(&http::Request::get(PAGE).body(()).unwrap().into_parts().0).unwrap()
    };
    let purge = here.layer.purge();
    let kinds: [(&str, &dyn Fn()); 8] = [
        ("url", &|| _ = purge.url(PAGE).unwrap()),
        ("key", &|| _ = purge.key(&key)),
        ("tag", &|| _ = purge.tag("red")),
        ("path", &|| _ = purge.path_prefix("http://example.com/a").unwrap()),
        ("pattern", &|| _ = purge.pattern("http://example.com/*/b").unwrap()),
        ("host", &|| _ = purge.host("example.com").unwrap()),
        ("key prefix", &|| _ = purge.key_prefix(&key.as_bytes()[..4])),
        ("everything", &|| _ = purge.everything()),
    ];
    for (kind, apply) in kinds {
        let before = there.page(PAGE).await;
        assert_eq!(there.page(PAGE).await, before, "a hit before");
        apply();
        there.loses(PAGE, kind).await;
        // A response to a purge that was not meant stays.
        purge.tag("other");
        let after = there.page(PAGE).await;
        until("read back", || here.cluster.status().waiting == 0).await;
        sleep(Duration::from_millis(20)).await;
        assert_eq!(there.page(PAGE).await, after, "{kind}");
    }
}

#[tokio::test]
async fn what_an_unsafe_request_invalidates_is_invalidated_on_the_other_node() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    there.page(PAGE).await;
    // Nothing was ever stored for it here.
    send(&here.service, request("PUT", PAGE, &[])).await;
    there.loses(PAGE, "the target").await;
    let origin = ScriptedOrigin::always(|| ok("").header("cache-group-invalidation", "\"group\""));
    send(&here.layer.layer(origin), request("POST", "/other", &[])).await;
    there.loses(PAGE, "the group").await;
    let origin = ScriptedOrigin::always(|| ok("").header("location", "/a/b?c=1"));
    send(&here.layer.layer(origin), request("POST", "/other", &[])).await;
    there.loses(PAGE, "the reference").await;
}

#[tokio::test]
async fn strengths_travel() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    let failing = there.layer.layer(ScriptedOrigin::always(|| status(503)));
    for (purge, covered) in [
        (here.layer.purge().soft(), true),
        (here.layer.purge().unproven(), true),
        (here.layer.purge(), false),
    ] {
        there.page(PAGE).await;
        let purged = purge.everything();
        until("sent", || purged.state() == PurgeState::Sent).await;
        // The entry behind it is applied after it.
        there.page("/mark").await;
        here.layer.purge().url("http://example.com/mark").unwrap();
        there.loses("/mark", "the mark").await;
        let reply = get(&failing, PAGE).await;
        assert_eq!(reply.status == 200, covered, "{purged:?}: {}", reply.cache());
        there.page(PAGE).await;
    }
}

/// Key rules are code of the application.
#[tokio::test]
async fn rules_that_panic_do_not_end_what_reads_the_log() {
    let Some(server) = server().await else { return };
    let here = Node::start(&server, "n1");
    let by_path = |head: &http::request::Parts| {
        assert!(!head.uri.path().starts_with("/panic"), "as the rules of an application may");
        Some(CacheKey::new(head.uri.path()))
    };
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let layer = StoreLayer::new(store).rules(Rules::new().fixed_ttl(secs(3600))).key(by_path);
    let cluster = Cluster::builder(server.url(), layer.purge()).namespace("test").node("n2").open().unwrap();
    until("caught up", || cluster.status().is_caught_up && here.cluster.status().is_caught_up).await;
    let origin = ScriptedOrigin::new(|call, _| ok(call.to_string()));
    let service = layer.layer(origin.clone());
    get(&service, "/a").await;
    here.layer.purge().url("http://example.com/panic").unwrap();
    // It may have meant anything.
    let began = Instant::now();
    while origin.calls() == 1 {
        assert!(began.elapsed() < LIMIT, "nothing became unproven");
        get(&service, "/a").await;
        sleep(Duration::from_millis(2)).await;
    }
    here.layer.purge().everything();
    let calls = origin.calls();
    while origin.calls() == calls {
        assert!(began.elapsed() < LIMIT, "it hears no more");
        get(&service, "/a").await;
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn namespaces_do_not_hear_each_other() {
    let Some(server) = server().await else { return };
    let (here, there) = (Node::start(&server, "n1"), Node::start_in(&server, "n1", "other"));
    here.caught_up().await;
    there.caught_up().await;
    there.page(PAGE).await;
    here.layer.purge().everything();
    until("read back", || here.cluster.status().waiting == 0).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(there.page(PAGE).await, "1");
}

#[tokio::test]
async fn a_node_starts_and_purges_while_the_server_is_away_and_tells_when_it_is_back() {
    if server().await.is_none() {
        return;
    }
    let mut server = Server::absent();
    let [here, there] = [Node::start(&server, "n1"), Node::start(&server, "n2")];
    let before = there.page(PAGE).await;
    here.page(PAGE).await;
    let purged = here.layer.purge().tag("red");
    assert_eq!(here.page(PAGE).await, "2", "at once here");
    assert_eq!(there.page(PAGE).await, before);
    assert_eq!(purged.state(), PurgeState::Queued);
    let error = purged.applied_everywhere(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.reason(), NotEverywhereReason::NotSent);
    until("told", || here.cluster.status().last_error.is_some()).await;
    server.start().await;
    there.loses(PAGE, "the page").await;
    until("sent", || purged.state() == PurgeState::Sent).await;
    assert_eq!(here.cluster.status().last_error, None);
}

/// What each does to the log, and whether anything was missed.
#[tokio::test]
async fn after_a_loss_of_the_log_everything_is_confirmed_before_it_is_used() {
    let Some(mut server) = server().await else { return };
    let [here, there] = two(&server).await;
    for fault in ["flush", "delete", "trim", "delete one", "wrong type", "restart"] {
        there.page(PAGE).await;
        let gaps = there.cluster.status().gaps;
        match fault {
            "flush" => drop(server.command(&["FLUSHALL"]).await.unwrap()),
            "delete" => drop(server.command(&["DEL", "{test}:1:purges"]).await.unwrap()),
            "trim" => drop(server.command(&["XTRIM", "{test}:1:purges", "MAXLEN", "0"]).await.unwrap()),
            "delete one" => {
                // Added and deleted between two reads of the node, as far as it can tell.
                let script = "local id = redis.call('XADD', KEYS[1], '*', 'k', 'mark', 'n', '1') \
                              return redis.call('XDEL', KEYS[1], id)";
                server.command(&["EVAL", script, "1", "{test}:1:purges"]).await.unwrap();
            }
            "wrong type" => {
                server.command(&["SET", "{test}:1:purges", "x"]).await.unwrap();
                until("a gap", || there.cluster.status().gaps > gaps).await;
                server.command(&["DEL", "{test}:1:purges"]).await.unwrap();
            }
            _ => {
                server.kill();
                server.start().await;
            }
        }
        until(fault, || there.cluster.status().gaps > gaps).await;
        there.caught_up().await;
        there.loses(PAGE, fault).await;
        // And it hears again.
        here.caught_up().await;
        here.layer.purge().tag("red");
        there.loses(PAGE, "after the fault").await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_delays_purges_and_fails_no_request() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    there.page(PAGE).await;
    server.signal("-STOP");
    let purged = here.layer.purge().tag("red");
    until("noticed", || !there.cluster.status().is_connected && !here.cluster.status().is_connected).await;
    assert_eq!(there.page(PAGE).await, "1", "it serves what it has");
    assert_eq!(purged.state(), PurgeState::Queued);
    server.signal("-CONT");
    there.loses(PAGE, "the page").await;
    until("sent", || purged.state() == PurgeState::Sent).await;
    there.caught_up().await;
}

/// One node of two. What it serves while it is cut off is what it had; nothing fails, and it needs no restart.
#[tokio::test]
async fn a_node_that_is_cut_off_goes_on_and_makes_up_for_what_it_has_missed() {
    let Some(server) = server().await else { return };
    let link = Link::to(server.port()).await;
    let (here, there) = (Node::start(&server, "n1"), Node::start_at(&link.url(), "n2"));
    here.caught_up().await;
    there.caught_up().await;
    for fault in [Fault::Cut, Fault::Hole, Fault::Half, Fault::Garbage] {
        let before = there.page(PAGE).await;
        link.set(fault);
        until("noticed", || !there.cluster.status().is_connected).await;
        let purged = here.layer.purge().tag("red");
        until("sent", || purged.state() == PurgeState::Sent).await;
        assert_eq!(there.page(PAGE).await, before, "{fault:?}");
        // Its own purges count at once, and are told later.
        let own = there.layer.purge().tag("green");
        assert_eq!(own.state(), PurgeState::Queued, "{fault:?}");
        link.set(Fault::None);
        there.loses(PAGE, "what was purged meanwhile").await;
        until("sent", || own.state() == PurgeState::Sent).await;
        there.caught_up().await;
    }
}

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

/// What the `cluster` example shows.
#[tokio::test]
async fn the_example_finds_no_old_page_and_no_failure() {
    if server().await.is_none() {
        return;
    }
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join("cluster");
    assert!(program.exists(), "run `cargo build --all-features --example cluster` first");
    let mut command = tokio::process::Command::new(program);
    command.args(["--json", "--pages", "1000", "--purges", "50"]).kill_on_drop(true);
    let output = timeout(secs(120), command.output()).await.expect("it ends").unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert_eq!((&report["failed"], &report["stale_after_purge"]), (&0.into(), &0.into()));
    assert!(report["purge_p99_ms"].is_f64() && report["recovered_seconds"].is_f64(), "{report}");
}

#[tokio::test]
async fn many_purges_at_once_reach_the_other_node_in_bounded_room() {
    let Some(server) = server().await else { return };
    let [here, there] = two(&server).await;
    there.page(PAGE).await;
    server.signal("-STOP");
    for n in 0..12_000 {
        here.layer.purge().tag(&format!("t{n}"));
    }
    assert!(here.cluster.status().waiting <= 10_000);
    server.signal("-CONT");
    there.loses(PAGE, "what became of too many").await;
    until("all read back", || here.cluster.status().waiting == 0).await;
}

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
    let purge = purge();
    let first = Cluster::builder("redis://127.0.0.1:1/", purge.clone()).open().unwrap();
    let second = Cluster::builder("redis://127.0.0.1:1/", purge.clone()).open();
    assert_eq!(second.err(), Some(ClusterError::Joined));
    drop(first);
    assert_eq!(purge.everything().state(), PurgeState::Queued, "no node hears of it any more");
    let outside = std::thread::spawn(move || Cluster::builder("redis://127.0.0.1:1/", purge).open().err());
    assert_eq!(outside.join().unwrap(), Some(ClusterError::NoRuntime));
}
