//! Hits of a node with a second tier whose server is up, slow, stopped or gone, beside those of a stack without one.
//!
//! Both have misses beside them, so that the tier has something to wait for.

use std::time::Duration;

use tokio::time::Instant;

use tower_readthrough::remote::RedisRemote;

use super::{
    link::Link,
    node::{Node, Origin, Stack, connected},
    server::Server,
    times::Times,
};

const TURNS: usize = 300;
const HITS: usize = 1000;
const MISSES: usize = 5;
const SLOW: Duration = Duration::from_millis(200);

pub(crate) async fn measure(mut server: Server) {
    let link = Link::to(server.port()).await;
    let origin = Origin::new(1 << 10);
    let remote = connected(RedisRemote::builder(link.url()).namespace("hits").open().unwrap()).await;
    let node = Node::over(remote, &link.url(), "hits", &origin).await;
    let mut sides = [Side::new(Stack::alone(&origin)), Side::new(node.stack.clone())];
    turns(&mut sides, "up").await;
    link.delay(SLOW);
    turns(&mut sides, "slow").await;
    link.delay(Duration::ZERO);
    server.signal("-STOP");
    turns(&mut sides, "stopped").await;
    server.signal("-CONT");
    server.kill();
    turns(&mut sides, "gone").await;
    println!("reads of the tier meanwhile: {:?}", node.tier.status().reads);
}

struct Side {
    stack: Stack,
    times: Times,
    misses: usize,
}

impl Side {
    fn new(stack: Stack) -> Self {
        Self { stack, times: Times::new(), misses: 0 }
    }

    fn miss(&mut self) {
        let (mut stack, path) = (self.stack.clone(), format!("/other/{}", self.misses));
        self.misses += 1;
        tokio::spawn(async move { stack.get(&path, "").await });
    }

    async fn turn(&mut self) {
        (0..MISSES).for_each(|_| self.miss());
        for _ in 0..HITS {
            let began = Instant::now();
            let body = self.stack.get("/hot", "").await;
            self.times.add(began);
            assert_eq!(body.len(), 1 << 10);
        }
        // So that a slow server has time to be slow.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn turns([alone, tier]: &mut [Side; 2], server: &str) {
    for side in [&mut *alone, &mut *tier] {
        side.stack.get("/hot", "").await;
        side.times = Times::new();
    }
    for _ in 0..TURNS {
        alone.turn().await;
        tier.turn().await;
    }
    let [alone, tier] = [alone, tier].map(|side| &mut side.times);
    println!(
        "server {server:>7}: without a tier p50 {:.2} µs p99 {:.2} µs, with one p50 {:.2} µs p99 {:.2} µs ({:.2} and {:.2} times)",
        alone.p50(),
        alone.p99(),
        tier.p50(),
        tier.p99(),
        tier.p50() / alone.p50(),
        tier.p99() / alone.p99(),
    );
}
