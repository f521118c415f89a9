//! Misses of a node that reads from a second tier and writes to it, beside those of a stack without one.
//!
//! A third side writes and does not read, so that each has its price.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use tower_readthrough::{
    TierWrite,
    remote::{RedisRemote, Remote, RemoteError, RemoteRead},
};

use super::{
    node::{Node, Origin, SIZES, Stack, patient_remote},
    server::Server,
    times::Times,
};

const TURNS: usize = 30;
const CALLERS: usize = 32;
const NAMESPACE: &str = "misses";

pub(crate) async fn measure() {
    for bytes in SIZES {
        for delay_ms in [0, 5] {
            // One for each, so that what they write is gone.
            let server = Server::start().await.unwrap();
            compare(&server, bytes, Duration::from_millis(delay_ms)).await;
        }
    }
}

/// In a turn, one by one.
const fn misses(bytes: usize) -> usize {
    if bytes > 300 << 10 { 10 } else { 50 }
}

async fn compare(server: &Server, bytes: usize, delay: Duration) {
    let origin = Origin::new(bytes).with_delay(delay);
    let node = Node::start(&server.url(), NAMESPACE, &origin).await;
    let remote = Unread(patient_remote(&server.url(), NAMESPACE).await);
    let writer = Node::over(remote, &server.url(), NAMESPACE, &origin).await;
    let mut sides = [
        Side::new("without a tier", Stack::alone(&origin), None),
        Side::new("that writes behind", writer.stack.clone(), Some(writer)),
        Side::new("that reads and writes", node.stack.clone(), Some(node)),
    ];
    let misses = misses(bytes);
    for _ in 0..TURNS {
        for side in &mut sides {
            side.one_by_one(misses).await;
        }
    }
    for _ in 0..TURNS {
        for side in &mut sides {
            side.at_once(misses).await;
        }
    }
    let (p50, rate) = (sides[0].times.p50(), sides[0].rate());
    println!("{:>4} KiB, origin {} ms:", bytes >> 10, delay.as_millis());
    for side in &mut sides {
        println!(
            "  {:>21}: p50 {:>7.1} µs ({:.2} times) p99 {:>8.1}, {CALLERS} callers {:>7.0}/s ({:.2} times){}",
            side.name,
            side.times.p50(),
            side.times.p50() / p50,
            side.times.p99(),
            side.rate(),
            side.rate() / rate,
            side.writes(),
        );
    }
}

/// What is never read: each read is answered at once, with nothing.
#[derive(Debug)]
struct Unread(RedisRemote);

impl Remote for Unread {
    fn read<'a>(&'a self, keys: &'a [&'a [u8]]) -> BoxFuture<'a, Result<RemoteRead, RemoteError>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let values = vec![None; keys.len()];
        Box::pin(async move { Ok(RemoteRead { now_ms: now.as_millis() as u64, values }) })
    }

    fn write<'a>(
        &'a self,
        key: &'a [u8],
        value: Bytes,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<(), RemoteError>> {
        self.0.write(key, value, lifetime)
    }

    fn forget<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<(), RemoteError>> {
        self.0.forget(key)
    }

    fn lease<'a>(
        &'a self,
        key: &'a [u8],
        token: u64,
        lifetime: Duration,
    ) -> BoxFuture<'a, Result<bool, RemoteError>> {
        self.0.lease(key, token, lifetime)
    }

    fn release<'a>(&'a self, key: &'a [u8], token: u64) -> BoxFuture<'a, Result<(), RemoteError>> {
        self.0.release(key, token)
    }
}

struct Side {
    name: &'static str,
    stack: Stack,
    node: Option<Node>,
    times: Times,
    next: usize,
    answered: usize,
    busy: Duration,
}

impl Side {
    fn new(name: &'static str, stack: Stack, node: Option<Node>) -> Self {
        Self { name, stack, node, times: Times::new(), next: 0, answered: 0, busy: Duration::ZERO }
    }

    fn path(&mut self) -> String {
        self.next += 1;
        // No side finds what another one has written.
        format!("/{}/{}", self.name.len(), self.next)
    }

    /// What is written behind them is written before the turn is over, so that it burdens no other side.
    async fn one_by_one(&mut self, misses: usize) {
        for _ in 0..misses {
            let path = self.path();
            let began = Instant::now();
            self.stack.get(&path, "").await;
            self.times.add(began);
        }
        self.written().await;
    }

    async fn at_once(&mut self, misses: usize) {
        let calls: Vec<_> = (0..CALLERS)
            .map(|_| {
                let paths: Vec<_> = (0..misses / 5).map(|_| self.path()).collect();
                let mut stack = self.stack.clone();
                async move {
                    for path in paths {
                        stack.get(&path, "").await;
                    }
                }
            })
            .collect();
        self.answered += CALLERS * (misses / 5);
        let began = Instant::now();
        join_all(calls.into_iter().map(tokio::spawn)).await.into_iter().for_each(Result::unwrap);
        self.busy += began.elapsed();
        self.written().await;
    }

    async fn written(&self) {
        if let Some(node) = &self.node {
            node.written().await;
        }
    }

    /// Answers a second, of callers at once.
    fn rate(&self) -> f64 {
        self.answered as f64 / self.busy.as_secs_f64()
    }

    fn writes(&self) -> String {
        let Some(node) = &self.node else { return String::new() };
        let writes = node.tier.status().writes;
        let written = writes.get(TierWrite::Written);
        format!(", {written} of {} written", writes.total())
    }
}
