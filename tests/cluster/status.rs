//! What a node says of itself and of the others.

use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tower_readthrough::{
    Stats,
    cluster::{Cluster, ClusterState, WhenCutOff},
    remote::RedisRemote,
};

use super::{
    fake::{self, Fake, Saying},
    link::{Fault, Link},
    node::{Node, until},
    remote::eventually,
    server::{Server, server, server_with},
    support::secs,
};

#[tokio::test]
async fn a_node_knows_the_others_and_what_it_has_applied() {
    let Some(mut server) = server().await else { return };
    let here = Node::start(&server, "n1");
    let there = Node::start_with(&server.url(), "n2", WhenCutOff::ValidateAfter(secs(30)));
    here.caught_up().await;
    there.caught_up().await;
    until("both seen", || here.cluster.status().others.len() == 1).await;
    here.layer.purge().tag("red");
    until("read back", || here.cluster.status().waiting == 0).await;
    let position = here.cluster.status().position.unwrap();
    until("applied there", || {
        here.cluster.status().others.iter().any(|other| other.position.as_ref() == Some(&position))
    })
    .await;
    let status = here.cluster.status();
    let other = &status.others[0];
    assert_eq!((&*status.node, status.state, status.validates_after), ("n1", ClusterState::CaughtUp, None));
    assert_eq!((&*other.name, other.is_silent, other.validates_after), ("n2", false, Some(secs(30))));
    assert!(status.heard.unwrap() < secs(5) && other.heard < secs(8), "{status:?}");
    // The numbers of the cache say the same.
    let counted = here.layer.stats().snapshot().cluster.unwrap();
    assert_eq!((counted.node, counted.position, counted.gaps), (status.node, status.position, 1));
    // One that leaves is not there any more.
    there.cluster.clone().leave().await;
    until("gone", || here.cluster.status().others.is_empty()).await;

    let state = || here.cluster.status().state;
    server.kill();
    until("cut off", || state() == ClusterState::CutOff).await;
    let status = here.cluster.status();
    assert!(status.last_error.is_some() && status.heard.is_some() && !status.must_validate, "{status:?}");
    server.start().await;
    until("caught up", || state() == ClusterState::CaughtUp).await;
    let before = here.layer.stats().snapshot();
    assert_eq!(
        (before.cluster.as_ref().unwrap().gaps, &before.cluster.as_ref().unwrap().last_error),
        (2, &None)
    );
    assert_eq!(here.layer.stats().snapshot().since(&before).cluster.unwrap().gaps, 0);
}

/// Positions alone do not say how much there is between them.
#[tokio::test]
async fn a_node_says_how_many_entries_it_and_the_others_have_not_applied() {
    let Some(mut server) = server().await else { return };
    let nodes = super::node::two(&server).await;
    let [here, there] = &nodes;
    until("both seen", || here.cluster.status().others.len() == 1).await;
    for number in 0..20 {
        here.layer.purge().tag(&format!("tag-{number}"));
    }
    until("read back", || here.cluster.status().waiting == 0).await;
    let behind = || here.cluster.status().behind;
    until("nothing is left", || behind() == Some(0)).await;
    let position = |node: &Node| node.cluster.status().position;
    until("applied there", || position(there) == position(here)).await;
    let other = || here.cluster.status().others.remove(0);
    until("seen", || other().position == position(here)).await;
    assert_eq!((other().position, other().behind), (position(there), Some(0)));
    assert_eq!(here.layer.stats().snapshot().cluster.unwrap().behind, Some(0));
    server.kill();
    until("cut off", || behind().is_none()).await;
}

/// Two nodes, of which the second has heard nothing of 1,500 purges of the first, and reads the log when it is let to.
async fn one_that_has_missed_purges(server: &Server) -> ([Node; 2], Link) {
    let link = Link::to(server.port()).await;
    let [here, there] = [Node::start(server, "n1"), Node::start_at(&link.url(), "n2")];
    here.caught_up().await;
    there.caught_up().await;
    let position = |node: &Node| node.cluster.status().position;
    until("at the end", || position(&here) == position(&there)).await;
    let seen = || here.cluster.status().others;
    until("seen", || seen().iter().any(|other| other.position == position(&there))).await;
    link.set(Fault::Cut);
    until("cut off", || !there.cluster.status().is_connected).await;
    for number in 0..1_500 {
        here.layer.purge().tag(&format!("tag-{number}"));
    }
    until("read back", || here.cluster.status().waiting == 0).await;
    until("missed", || seen()[0].behind == Some(1_500)).await;
    link.set(Fault::Held);
    until("connected", || there.cluster.status().is_connected).await;
    ([here, there], link)
}

/// Reads of 512 entries at a time.
#[tokio::test]
async fn a_node_that_was_cut_off_says_how_much_it_has_still_to_read() {
    let Some(server) = server().await else { return };
    let ([here, there], link) = one_that_has_missed_purges(&server).await;
    let status = || there.cluster.status();
    assert_eq!((status().state, status().behind), (ClusterState::CatchingUp, None));
    for left in [988, 476, 0] {
        link.let_read();
        until("read", || status().behind == Some(left)).await;
        assert_eq!(there.layer.stats().snapshot().cluster.unwrap().behind, Some(left));
    }
    link.set(Fault::None);
    until("seen", || here.cluster.status().others[0].behind == Some(0)).await;
    assert_eq!((status().gaps, status().position), (1, here.cluster.status().position));
}

/// How far it is behind is known only with a connection.
#[cfg(feature = "metrics")]
#[tokio::test]
async fn each_series_of_a_cluster_is_listed_in_the_documentation_with_its_labels() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use tower_readthrough::metrics::MetricsExporter;

    use super::support::series::{listed, rows, series};

    let Some(server) = server().await else { return };
    let ([_here, there], link) = one_that_has_missed_purges(&server).await;
    let exporter = MetricsExporter::new(&there.layer.stats(), "has missed purges").unwrap();
    link.let_read();
    until("read", || there.cluster.status().behind == Some(988)).await;
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || exporter.export());
    let mut exported = series(&recorder.snapshotter());
    exported.retain(|(name, _, _)| name.starts_with("readthrough_cluster_"));
    assert_eq!(rows(&exported), listed(|row| row.contains("`readthrough_cluster_")));
    let labels = vec![("cache".to_owned(), "has missed purges".to_owned())];
    let behind = ("readthrough_cluster_behind".to_owned(), labels, DebugValue::Gauge(988.0.into()));
    assert!(exported.contains(&behind), "{exported:?}");
}

#[tokio::test]
async fn a_server_that_may_drop_the_log_is_told_of() {
    for (policy, is_told) in [("allkeys-lru", true), ("volatile-lru", false), ("noeviction", false)] {
        let options = ["--maxmemory", "100mb", "--maxmemory-policy", policy];
        let Some(server) = server_with(&options).await else { return };
        let node = Node::start(&server, "n1");
        node.caught_up().await;
        assert_eq!(node.cluster.status().may_evict_log, is_told, "{policy}");
    }
    // It may be forbidden to ask.
    let options = ["--maxmemory-policy", "allkeys-lru", "--rename-command", "CONFIG", "HIDDEN"];
    let Some(server) = server_with(&options).await else { return };
    let node = Node::start(&server, "n1");
    node.caught_up().await;
    assert!(!node.cluster.status().may_evict_log);
}

#[tokio::test]
async fn numbers_know_nothing_of_a_cluster_that_is_gone_or_was_joined_by_another_handle() {
    let node = Node::start_at("redis://127.0.0.1:1/", "n1");
    let stats = node.layer.stats();
    assert_eq!(stats.snapshot().cluster.unwrap().state, ClusterState::CutOff);
    drop(node);
    until("gone", || stats.snapshot().cluster.is_none()).await;
    let store = tower_readthrough::MemoryStore::with_capacity_bytes(1 << 20);
    let purge = tower_readthrough::StoreLayer::new(store).purge();
    let _cluster = Cluster::builder("redis://127.0.0.1:1/", purge).open().unwrap();
    assert_eq!(Stats::new().snapshot().cluster, None);
}

/// A step of the server's clock, or of that of a machine that was suspended, would leave a live node silent in the eyes of
/// the others.
#[tokio::test]
async fn the_time_that_a_node_registers_with_follows_the_clock_of_the_server() {
    let slow = Saying { delay: Duration::from_millis(5), ..Saying::GOOD };
    let fake = Fake::start(slow).await;
    let _node = Node::start_at(&fake.url(), "n1");
    let registered = |from: usize| {
        let told = fake.told().split_off(from);
        let at = |words: &[String]| words[1].split(' ').nth(2).unwrap().parse::<u64>().unwrap();
        told.iter().map(|(connection, words)| (*connection, at(words))).collect::<Vec<_>>()
    };
    until("registered", || fake.told().len() >= 2).await;
    let (connection, at) = registered(0)[0];
    assert!((1_700_000_000_123..1_700_000_030_000).contains(&at), "{at}");
    fake.say(Saying { time: fake::LATER, ..slow });
    // The next one may be on its way.
    let next = fake.told().len() + 1;
    until("registered again", || fake.told().len() >= next + 3).await;
    for (over, at) in registered(next) {
        assert_eq!(over, connection);
        assert!(at >= 1_700_000_060_123, "{at}");
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_in_one_line() {
    let fake = Fake::start(Saying { version: "6.2.14", ..Saying::GOOD }).await;
    let node = Node::start_at(&fake.url(), "n1");
    until("refused", || node.cluster.status().last_error.is_some()).await;
    let status = node.cluster.status();
    let told = "Redis 6.2.14 is too old: Redis 7.0 or Valkey 7.2 is needed";
    assert_eq!((status.last_error.as_deref(), status.is_connected), (Some(told), false));
}

const NODES: &str = "{test}:1:nodes";
const LOG: &str = "{test}:1:purges";

/// Also where none waits for the others.
#[tokio::test]
async fn nodes_that_were_not_heard_for_an_hour_are_not_shown_and_are_forgotten() {
    let Some(server) = server().await else { return };
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let (recent, old) = (format!("run 1-0 {now_ms}"), format!("run 1-0 {}", now_ms - 2 * 3_600_000));
    server.command(&["HSET", NODES, "recent", &recent, "old", &old, "strange", "?"]).await.unwrap();
    server.command(&["ACL", "SETUSER", "default", "-hdel"]).await.unwrap();
    let node = Node::start(&server, "n1");
    until("looked at", || !node.cluster.status().others.is_empty()).await;
    let others = node.cluster.status().others;
    assert_eq!(others.iter().map(|other| &*other.name).collect::<Vec<_>>(), ["recent"]);
    server.command(&["ACL", "SETUSER", "default", "+hdel"]).await.unwrap();
    eventually("it is forgotten", || async {
        server.command(&["HEXISTS", NODES, "old"]).await.unwrap() == redis::Value::Int(0)
    })
    .await;
    let left = server.command(&["HMGET", NODES, "recent", "strange"]).await.unwrap();
    assert_eq!(redis::from_redis_value::<[String; 2]>(left).unwrap(), [recent, "?".to_owned()]);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_told_of_while_that_lasts() {
    let Some(server) = server().await else { return };
    let node = Node::start(&server, "n1");
    for (harm, heal, error) in [
        (&["SET", LOG, "x"][..], &["DEL", LOG][..], "WRONGTYPE "),
        (&["ACL", "SETUSER", "default", "-xread"], &["ACL", "SETUSER", "default", "+xread"], "NOPERM "),
        (&["ACL", "SETUSER", "default", "-xinfo"], &["ACL", "SETUSER", "default", "+xinfo"], "NOPERM "),
    ] {
        node.caught_up().await;
        server.command(harm).await.unwrap();
        let told = || node.cluster.status().last_error.is_some_and(|told| told.starts_with(error));
        until("told", told).await;
        let entries = server.command(&["XLEN", LOG]).await.ok();
        for _ in 0..3 {
            let said = server.command(&["HGET", NODES, "n1"]).await.unwrap();
            eventually("it tries again", || async {
                server.command(&["HGET", NODES, "n1"]).await.unwrap() != said
            })
            .await;
            assert!(told() && node.cluster.status().is_connected, "{harm:?}");
        }
        assert_eq!(
            server.command(&["XLEN", LOG]).await.ok(),
            entries,
            "it adds nothing to what it cannot read"
        );
        server.command(heal).await.unwrap();
        until("healed", || {
            let status = node.cluster.status();
            status.is_caught_up && status.last_error.is_none()
        })
        .await;
    }
}

/// What was told by events at `warn` on this thread.
#[cfg(feature = "tracing")]
#[derive(Clone, Default)]
pub(crate) struct Warnings(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

#[cfg(feature = "tracing")]
impl Warnings {
    /// Listens on this thread for as long as the guard is kept.
    pub(crate) fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        use tracing_subscriber::layer::SubscriberExt;
        let warnings = Self::default();
        let subscriber = tracing_subscriber::registry().with(warnings.clone());
        (warnings, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[cfg(feature = "tracing")]
impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}").trim_matches('"').to_owned();
                }
            }
        }
        if *event.metadata().level() == tracing::Level::WARN {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

/// Each change once, however often it is tried to connect.
#[cfg(feature = "tracing")]
#[tokio::test]
async fn events_tell_of_changes_alone() {
    let Some(mut server) = server_with(&["--maxmemory-policy", "allkeys-lfu"]).await else { return };
    // Where there is one subscriber alone, a thread without one decides for all of them.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let (warnings, _listening) = Warnings::listen();
    let told = || warnings.told();
    let node = Node::start(&server, "n1");
    node.caught_up().await;
    assert_eq!(told().len(), 1, "{:?}", told());
    assert!(told()[0].contains("maxmemory-policy"), "{:?}", told());
    for round in 1..=2 {
        server.kill();
        until("cut off", || node.cluster.status().state == ClusterState::CutOff).await;
        // It is tried several times.
        let instead = TcpListener::bind(("127.0.0.1", server.port())).await.unwrap();
        for _ in 0..3 {
            drop(instead.accept().await.unwrap());
        }
        drop(instead);
        server.start().await;
        node.caught_up().await;
        let told = told().split_off(1);
        let [.., cut_off, back] = &told[..] else { panic!("{told:?}") };
        assert!(cut_off.starts_with("cut off") && back.ends_with("heard again"), "{told:?}");
        assert_eq!(told.len(), 2 * round);
    }
}

/// Where a server comes later than what uses it.
#[cfg(feature = "tracing")]
#[tokio::test]
async fn what_was_never_reached_before_is_not_reached_again() {
    if server().await.is_none() {
        return;
    }
    let mut server = Server::absent();
    // Where there is one subscriber alone, a thread without one decides for all of them.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let (warnings, _listening) = Warnings::listen();
    let node = Node::start(&server, "n1");
    let remote = RedisRemote::builder(server.url()).namespace("test").open().unwrap();
    until("told", || warnings.told().len() == 2).await;
    server.start().await;
    node.caught_up().await;
    until("connected", || remote.status().is_connected).await;
    let mut told = warnings.told().split_off(2);
    told.sort();
    let expected = ["connected to the server of the second tier", "the purges of the other nodes are heard"];
    assert_eq!(told, expected);
}
