//! A request that the second tier answers, through the whole stack, beside a bare `GET` of the same bytes by the same
//! library, and beside what the tier asks its remote for. Also over a link that takes its time, and with a remote in the
//! process.

use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;
use tower_readthrough::{
    TierRead,
    remote::{RedisRemote, Remote},
    testing::ScriptedRemote,
};

use super::{
    link::Link,
    node::{Node, Origin, SIZES, patient_remote},
    server::Server,
    times::Times,
};

/// Paths that another node has written. Each is asked for once in a round, by a node that starts with nothing.
const fn paths(bytes: usize) -> usize {
    if bytes > 300 << 10 { 200 } else { 1000 }
}

const ROUNDS: usize = 5;

/// That of a network: there is none within the machine.
const DELAY: Duration = Duration::from_millis(1);

pub(crate) async fn measure(server: &Server) {
    let url = server.url();
    let mut bare = connect(&url).await;
    let link = Link::to(server.port()).await;
    let mut far = connect(&link.url()).await;
    without_a_network(&url, &mut bare).await;
    for bytes in SIZES {
        let mut sides = Sides::new();
        let written = Written::by_a_node(&url, &mut bare, bytes, "").await;
        for _ in 0..ROUNDS {
            let node = Node::start(&url, &written.namespace, &written.origin).await;
            written.read_by(&node, &url, &mut bare, &mut sides, "").await;
        }
        sides.print(bytes, "without Vary");
        let mut sides = Sides::new();
        let node = Node::start(&link.url(), &written.namespace, &written.origin).await;
        link.delay(DELAY);
        written.read_by(&node, &link.url(), &mut far, &mut sides, "").await;
        link.delay(Duration::ZERO);
        sides.print(bytes, "over a link of 1 ms");
        written.remove(&mut bare).await;

        let [mut unknown, mut known] = [const { Sides::new() }; 2];
        let written = Written::by_a_node(&url, &mut bare, bytes, "accept-language").await;
        for _ in 0..ROUNDS {
            let node = Node::start(&url, &written.namespace, &written.origin).await;
            written.read_by(&node, &url, &mut bare, &mut unknown, "de").await;
            written.read_by(&node, &url, &mut bare, &mut known, "fr").await;
        }
        unknown.print(bytes, "Vary, two round trips");
        known.print(bytes, "Vary, its index read before");
        written.remove(&mut bare).await;
    }
}

/// What the processor does for an answer: the remote is in the process. Once with one answer after another, and once
/// with a bare `GET` before each, which is not part of the time, but leaves little of this in the caches.
async fn without_a_network(url: &str, bare: &mut MultiplexedConnection) {
    let (remote, mut in_a_row, mut after_a_get) = (ScriptedRemote::new(), Times::new(), Times::new());
    let origin = Origin::new(SIZES[0]);
    let pages: Vec<_> = (0..paths(SIZES[0])).map(|n| format!("/pages/{n}")).collect();
    let node = Node::over(remote.clone(), url, "process", &origin).await;
    for page in &pages {
        node.stack.clone().get(page, "").await;
        node.written().await;
    }
    for round in 0..2 * ROUNDS {
        let is_after_a_get = round % 2 == 1;
        let answers = if is_after_a_get { &mut after_a_get } else { &mut in_a_row };
        let node = Node::over(remote.clone(), url, "process", &origin).await;
        let mut stack = node.stack.clone();
        for page in &pages {
            if is_after_a_get {
                let nothing: Option<Bytes> =
                    redis::cmd("GET").arg("nothing").query_async(bare).await.unwrap();
                assert_eq!(nothing, None);
            }
            let began = Instant::now();
            stack.get(page, "").await;
            answers.add(began);
        }
    }
    assert_eq!(origin.calls(), pages.len() as u64);
    println!(
        "{:>4} KiB,     remote in the process: answer p50 {:>7.1} µs in a row, {:>7.1} µs after a GET",
        SIZES[0] >> 10,
        in_a_row.p50(),
        after_a_get.p50()
    );
}

async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// What one node has written for others.
struct Written {
    namespace: String,
    origin: Origin,
    /// As they stand on the server.
    keys: Vec<String>,
    paths: Vec<String>,
    calls: u64,
}

impl Written {
    async fn by_a_node(
        url: &str,
        bare: &mut MultiplexedConnection,
        bytes: usize,
        vary: &'static str,
    ) -> Self {
        let namespace = format!("answers-{bytes}-{}", if vary.is_empty() { "one" } else { "vary" });
        let origin = Origin::new(bytes).with_vary(vary);
        let paths: Vec<_> = (0..paths(bytes)).map(|n| format!("/pages/{n}")).collect();
        let accepts: &[_] = if vary.is_empty() { &[""] } else { &["de", "fr"] };
        let node = Node::start(url, &namespace, &origin).await;
        for path in &paths {
            let mut stack = node.stack.clone();
            for accept in accepts {
                stack.get(path, accept).await;
                node.written().await;
            }
        }
        let pattern = format!("{namespace}:1:1:v:*");
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(bare).await.unwrap();
        assert_eq!(keys.len(), paths.len() * accepts.len());
        let calls = origin.calls();
        Self { namespace, origin, keys, paths, calls }
    }

    /// Each path once, by turns with the other sides.
    async fn read_by(
        &self,
        node: &Node,
        url: &str,
        bare: &mut MultiplexedConnection,
        sides: &mut Sides,
        accept: &str,
    ) {
        let remote: RedisRemote = patient_remote(url, &self.namespace).await;
        let mut stack = node.stack.clone();
        let prefix = format!("{}:1:", self.namespace);
        for (path, key) in self.paths.iter().zip(&self.keys) {
            let began = Instant::now();
            let got: Bytes = redis::cmd("GET").arg(key).query_async(bare).await.unwrap();
            sides.gets.add(began);

            let asked = &key.as_bytes()[prefix.len()..];
            let began = Instant::now();
            let read = remote.read(&[b"none", asked]).await.unwrap();
            sides.reads.add(began);
            assert_eq!(read.values[1].as_ref(), Some(&got));
            drop((got, read));

            let began = Instant::now();
            let body = stack.get(path, accept).await;
            sides.answers.add(began);
            assert_eq!(body.len(), self.origin.bytes());
        }
        assert_eq!(self.origin.calls(), self.calls, "the origin has nothing to do with it");
        assert!(node.tier.status().reads.get(TierRead::Fresh) >= self.paths.len() as u64);
    }

    async fn remove(self, bare: &mut MultiplexedConnection) {
        let _: u64 = redis::cmd("UNLINK").arg(&self.keys).query_async(bare).await.unwrap();
    }
}

struct Sides {
    gets: Times,
    reads: Times,
    answers: Times,
}

impl Sides {
    const fn new() -> Self {
        Self { gets: Times::new(), reads: Times::new(), answers: Times::new() }
    }

    fn print(&mut self, bytes: usize, what: &str) {
        let Self { gets, reads, answers } = self;
        println!(
            "{:>4} KiB, {what:>27}: GET p50 {:>7.1} µs p99 {:>8.1}, read p50 {:>7.1} ({:.2} times), answer p50 {:>7.1} \
             ({:.2} times) p99 {:>8.1} ({:.2} times)",
            bytes >> 10,
            gets.p50(),
            gets.p99(),
            reads.p50(),
            reads.p50() / gets.p50(),
            answers.p50(),
            answers.p50() / gets.p50(),
            answers.p99(),
            answers.p99() / gets.p99(),
        );
    }
}
