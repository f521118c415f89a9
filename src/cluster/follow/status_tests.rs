//! What a node says of itself and of the others, by what a server has answered.

use std::{ops::RangeInclusive, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, advance};

use super::{Entry, Reply, Survey};
use crate::{
    DefaultKey, MemoryStore, Purge,
    cluster::{
        Cluster,
        log::{Extent, Position},
        registry::registration,
    },
    sequence::{Message, MessageKind, Strength},
    store::EntryId,
};

const RUN: &str = "run";
const NOW_MS: u64 = 1_000_000;

fn at(millis: u64) -> Position {
    Position { id: EntryId { millis, number: 0 }, nonce: millis }
}

/// Its tasks get no turn: nothing here waits.
fn cluster() -> Cluster {
    let purge = Purge::of(MemoryStore::with_capacity_bytes(1 << 16), DefaultKey::new());
    let cluster = Cluster::builder("redis://127.0.0.1:1/", purge).node("n1").open().unwrap();
    cluster.shared.connected(Some(RUN), false);
    cluster
}

/// The server has answered a read with these entries, of so many that there are. Entry `n` has the id `n`.
fn read(cluster: &Cluster, entries: RangeInclusive<u64>, added: u64) -> Option<u64> {
    let asked = cluster.shared.log.lock().next_read(Instant::now());
    let message = Message::new(MessageKind::Tag, b"news", Strength::Hard);
    let reply = Reply {
        is_full: *entries.end() < added,
        entries: entries.map(|n| Entry { position: at(n), purge: Some(message.clone()) }).collect(),
        anchor: asked.from.map(|from| from.nonce),
        deleted: EntryId::default(),
        has_failed: false,
        extent: Some(Extent { added, length: added, last: at(added).id }),
    };
    cluster.shared.apply(asked, reply, true, None);
    cluster.status().behind
}

/// The registry says that the other node has applied the log up to there, 9 seconds ago.
fn surveyed(cluster: &Cluster, run: &str, applied: u64) -> Option<u64> {
    let registered = registration(run, Some(at(applied)), NOW_MS - 9_000, None);
    let fields = vec![("n1".to_owned(), registered.clone()), ("n2".to_owned(), registered)];
    let survey = Survey { run: RUN.to_owned(), now_ms: NOW_MS, nonce: None, fields };
    assert_eq!(cluster.shared.surveyed(&survey), Vec::<String>::new());
    other(cluster)
}

fn other(cluster: &Cluster) -> Option<u64> {
    let others = cluster.status().others;
    assert_eq!(others.iter().map(|other| &*other.name).collect::<Vec<_>>(), ["n2"]);
    others[0].behind
}

/// Positions are told once a read, and the registry is looked at every other second.
#[tokio::test(start_paused = true)]
async fn how_far_another_node_is_behind_is_that_of_when_it_was_looked_at() {
    let cluster = cluster();
    assert_eq!(read(&cluster, 1..=5, 5), Some(0));
    assert_eq!(surveyed(&cluster, RUN, 3), Some(2));
    assert_eq!(read(&cluster, 6..=2_005, 2_005), Some(0));
    assert_eq!(other(&cluster), Some(2), "what was logged since says nothing of that node");
    assert_eq!(surveyed(&cluster, RUN, 2_000), Some(5));
    assert_eq!(surveyed(&cluster, RUN, 2_006), Some(0), "logged after the read, and before the look");
    assert_eq!(surveyed(&cluster, "another", 2_000), None, "an entry of another log");
    // A part of what there is.
    assert_eq!(read(&cluster, 2_006..=2_517, 3_000), Some(483));
    let behind = [2_517, 2_999, 3_000].map(|applied| surveyed(&cluster, RUN, applied));
    assert_eq!(behind, [Some(483), None, Some(0)]);
}

#[tokio::test(start_paused = true)]
async fn the_silence_of_another_node_grows_while_nothing_is_looked_at() {
    let cluster = cluster();
    read(&cluster, 1..=5, 5);
    surveyed(&cluster, RUN, 5);
    for (seconds, is_silent) in [(0, false), (1, false), (1, true)] {
        // It has passed at the first poll.
        _ = advance(Duration::from_secs(seconds)).now_or_never();
        assert_eq!(cluster.status().others[0].is_silent, is_silent);
    }
    assert_eq!(cluster.status().others[0].heard, Duration::from_secs(11));
    cluster.shared.standing.failed("n1", "gone");
    assert_eq!(cluster.status().others, []);
}
