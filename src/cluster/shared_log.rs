//! A log of purges in this process, for tests: several stores follow it by the same rules as nodes follow that of a
//! server.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    ClusterError,
    log::{Entry, Log, Next, Position, Reply, Ticket},
};
use crate::{
    http::storing::after,
    purge::Purge,
    sequence::{AsOf, EntryId, Journal, Message, NotEverywhere, NotEverywhereReason, Receipt},
};

/// A log of purges in this process, by which stores are nodes of a cluster without a server. For tests of
/// applications with several nodes or a [second tier](crate::tier).
///
/// What a node logs is read by all nodes before the call returns, except by those that [pause](PurgeLogNode::pause)
/// or are [cut off](PurgeLogNode::cut_off). A clone is the same log.
///
/// ```
/// use tower_readthrough::{MemoryStore, ReadThroughLayer, testing::PurgeLog};
///
/// let cache = || ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).build().unwrap();
/// let (here, there, log) = (cache(), cache(), PurgeLog::new());
/// let _nodes = [log.join(&here.purge()).unwrap(), log.join(&there.purge()).unwrap()];
/// here.purge().tag("product-7");
/// assert_eq!(log.entries(), 2); // and one to hold on to
/// ```
#[derive(Clone, Debug, Default)]
pub struct PurgeLog {
    server: Arc<Mutex<Server>>,
}

#[derive(Debug, Default)]
struct Server {
    run: u64,
    entries: Vec<(Position, Option<Message>)>,
    last_millis: u64,
    nodes: Vec<Weak<Node>>,
}

/// A store that follows a [`PurgeLog`]. It hears nothing any more when this is dropped.
#[derive(Debug)]
pub struct PurgeLogNode {
    node: Arc<Node>,
}

struct Node {
    purge: Purge,
    log: Mutex<Log>,
    is_connected: AtomicBool,
    reads: AtomicBool,
    /// One thread at a time applies entries.
    applying: Mutex<()>,
    server: Arc<Mutex<Server>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("log", &self.log).finish_non_exhaustive()
    }
}

impl PurgeLog {
    /// Returns an empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the store of this handle follow the log. It is caught up when this returns.
    ///
    /// # Errors
    ///
    /// If the store is part of a cluster already, or trusts what it has loaded from a file.
    pub fn join(&self, purge: &Purge) -> Result<PurgeLogNode, ClusterError> {
        let node = Arc::new(Node {
            purge: purge.clone(),
            log: Mutex::new(Log::new()),
            is_connected: AtomicBool::new(true),
            reads: AtomicBool::new(true),
            applying: Mutex::default(),
            server: Arc::clone(&self.server),
        });
        if !purge.keep_journal(Arc::new(Following(Arc::downgrade(&node)))) {
            return Err(ClusterError::of_store(purge));
        }
        node.connect();
        self.server.lock().nodes.push(Arc::downgrade(&node));
        settle(&self.server);
        Ok(PurgeLogNode { node })
    }

    /// Returns how many entries there are: purges, and one that is there to have something to hold on to.
    pub fn entries(&self) -> usize {
        self.server.lock().entries.len()
    }

    /// Loses all entries, as a server does that is replaced by another one: nodes notice it, and cannot know what
    /// they have missed.
    pub fn lose_everything(&self) {
        let nodes = {
            let mut server = self.server.lock();
            server.entries.clear();
            server.run += 1;
            server.nodes()
        };
        for node in nodes.iter().filter(|node| node.is_connected()) {
            node.log.lock().disconnected();
            node.connect();
        }
        settle(&self.server);
    }
}

impl PurgeLogNode {
    /// Reads no more entries until it [resumes](Self::resume), and does not know that it is behind: as a node to
    /// which the network is slow. What it logs itself is logged.
    pub fn pause(&self) {
        self.node.reads.store(false, Ordering::Release);
    }

    /// Reads what was logged meanwhile.
    pub fn resume(&self) {
        self.node.reads.store(true, Ordering::Release);
        settle(&self.node.server);
    }

    /// Loses the connection: it is not caught up until it [connects](Self::connect).
    pub fn cut_off(&self) {
        self.node.is_connected.store(false, Ordering::Release);
        self.node.log.lock().disconnected();
    }

    /// Connects again, and reads what was logged meanwhile.
    pub fn connect(&self) {
        self.node.is_connected.store(true, Ordering::Release);
        self.node.connect();
        settle(&self.node.server);
    }

    /// Whether the log was read to its end since the last connection.
    pub fn is_caught_up(&self) -> bool {
        self.node.log.lock().is_caught_up()
    }
}

impl Server {
    fn nodes(&mut self) -> Vec<Arc<Node>> {
        self.nodes.retain(|node| node.strong_count() > 0);
        self.nodes.iter().filter_map(Weak::upgrade).collect()
    }

    fn add(&mut self, nonce: u64, message: Option<Message>) -> Position {
        self.last_millis += 1;
        let position = Position { id: EntryId { millis: self.last_millis, number: 0 }, nonce };
        self.entries.push((position, message));
        position
    }

    /// What there is behind a position, and the nonce of the entry at that position.
    fn read(&self, from: Option<Position>) -> (Vec<(Position, Option<Message>)>, Option<u64>) {
        let is_later =
            |(position, _): &&(Position, Option<Message>)| from.is_none_or(|from| position.id > from.id);
        let at = |from: Position| self.entries.iter().find(|(position, _)| position.id == from.id);
        let anchor = from.and_then(at).map(|(position, _)| position.nonce);
        (self.entries.iter().filter(is_later).cloned().collect(), anchor)
    }
}

impl Node {
    fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Acquire)
    }

    fn connect(&self) {
        let run = self.server.lock().run;
        self.log.lock().connected(Some(run), Instant::now(), &self.purge);
    }

    /// Sends what waits. Whether there was something.
    fn send(&self) -> bool {
        let mut has_sent = false;
        while self.is_connected() {
            // Unsafe requests are told at once.
            let next = self.log.lock().next_to_send(after(Instant::now(), Duration::from_secs(1)));
            let Some(sending) = next else { break };
            let position = self.server.lock().add(sending.nonce, Some(sending.message));
            self.log.lock().acknowledged(position);
            has_sent = true;
        }
        has_sent
    }

    /// Reads and applies. Whether there was something.
    fn read(&self) -> bool {
        if !self.is_connected() || !self.reads.load(Ordering::Acquire) {
            return false;
        }
        let _applying = self.applying.lock();
        let (from, was_caught_up) = {
            let log = self.log.lock();
            (log.next_read(Instant::now()).from, log.is_caught_up())
        };
        let (entries, anchor) = self.server.lock().read(from);
        let read = |(position, message): (Position, Option<Message>)| Entry {
            position,
            purge: message.map(|message| self.purge.read(&message)),
        };
        let entries: Vec<_> = entries.into_iter().map(read).collect();
        let has_new = !entries.is_empty();
        let (deleted, extent) = (EntryId::default(), None);
        let reply = Reply { entries, is_full: false, anchor, deleted, has_failed: false, extent };
        let next = self.log.lock().replied(from, &reply, &self.purge);
        let purges = reply.entries.iter().filter_map(|entry| entry.purge.as_ref());
        purges.for_each(|purge| self.purge.settle(purge));
        if next == Next::Mark {
            self.server.lock().add(fastrand::u64(..), None);
        }
        has_new || next == Next::Mark || !was_caught_up
    }
}

/// Lets all nodes send and read until there is nothing left.
fn settle(server: &Mutex<Server>) {
    loop {
        let nodes = server.lock().nodes();
        let mut has_moved = false;
        for node in &nodes {
            has_moved |= node.send();
        }
        for node in &nodes {
            has_moved |= node.read();
        }
        if !has_moved {
            return;
        }
    }
}

#[derive(Debug)]
struct Following(Weak<Node>);

impl Journal for Following {
    fn record(
        &self,
        message: &Message,
        is_invalidation: bool,
        purge: &mut dyn FnMut() -> u64,
    ) -> (u64, Arc<dyn Receipt>) {
        let Some(node) = self.0.upgrade() else { return (purge(), Arc::new(Logged(Arc::default()))) };
        let (number, ticket) = node.log.lock().issue(message, is_invalidation, Instant::now(), purge);
        settle(&node.server);
        (number, Arc::new(Logged(ticket)))
    }

    fn as_of(&self, fetch_number: u64) -> Option<AsOf> {
        self.0.upgrade()?.log.lock().as_of(fetch_number)
    }

    fn begun(&self, as_of: AsOf) -> Option<u64> {
        let node = self.0.upgrade()?;
        let log = node.log.lock();
        log.begun(as_of, &node.purge)
    }

    fn is_caught_up(&self) -> bool {
        self.0.upgrade().is_some_and(|node| node.log.lock().is_caught_up())
    }
}

/// A purge in the log, or on its way there.
#[derive(Debug)]
struct Logged(Arc<Ticket>);

impl Receipt for Logged {
    fn is_sent(&self) -> bool {
        self.0.position().is_some()
    }

    /// Nodes that read at all have read it before the purge has returned.
    fn applied_everywhere(&self, _: Duration) -> BoxFuture<'_, Result<(), NotEverywhere>> {
        let result = match self.is_sent() {
            true => Ok(()),
            false => Err(NotEverywhere::new(NotEverywhereReason::NotSent, Vec::new())),
        };
        Box::pin(std::future::ready(result))
    }
}
