//! Requests on all nodes, all the while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};

use super::node::Node;

const CLIENTS_OF_A_NODE: usize = 4;

/// Of each client, between two of its requests.
const PAUSE: Duration = Duration::from_millis(2);

/// Clients that ask for pages at random, until it is dropped.
pub(crate) struct Load {
    counts: Arc<Counts>,
    _clients: JoinSet<()>,
}

/// What came of the requests.
#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    stale: AtomicU64,
    /// The edit of which all nodes have confirmed the purge.
    confirmed: AtomicU64,
}

impl Load {
    pub(crate) fn on(nodes: &[Arc<Node>], pages: u32) -> Self {
        let (counts, mut clients) = (Arc::<Counts>::default(), JoinSet::new());
        for node in nodes.iter().flat_map(|node| [node; CLIENTS_OF_A_NODE]) {
            clients.spawn(ask(Arc::clone(node), pages, Arc::clone(&counts)));
        }
        Self { counts, _clients: clients }
    }

    /// From now on pages from before this edit are too old.
    pub(crate) fn confirm(&self, edit: u64) {
        self.counts.confirmed.store(edit, Ordering::SeqCst);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::SeqCst)
    }

    pub(crate) fn stale(&self) -> u64 {
        self.counts.stale.load(Ordering::SeqCst)
    }
}

async fn ask(node: Arc<Node>, pages: u32, counts: Arc<Counts>) {
    loop {
        let least = counts.confirmed.load(Ordering::SeqCst);
        let answer = node.get(fastrand::u32(..pages)).await;
        counts.requests.fetch_add(1, Ordering::SeqCst);
        counts.failed.fetch_add(u64::from(answer.is_none()), Ordering::SeqCst);
        counts.stale.fetch_add(u64::from(answer.is_some_and(|edit| edit < least)), Ordering::SeqCst);
        sleep(PAUSE).await;
    }
}
