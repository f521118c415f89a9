//! Random schedules of three nodes with one tier: no request that came after its node had applied a purge gets what
//! was read at the origin before the purge.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::*;
use tokio::task::JoinHandle;

/// A small generator, so that run *i* depends on *i* alone.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

struct World {
    site: Site,
    nodes: Vec<Node>,
    random: Random,
    /// Grows with each step: what the origin answers, and when a purge is issued.
    now: Arc<AtomicU64>,
    /// The last purge that each node has applied, and whether it hears of those of others.
    applied: Vec<u64>,
    is_paused: Vec<bool>,
    is_cut: Vec<bool>,
    /// Nodes that have to read the log before they send purges of their own.
    is_behind: Vec<bool>,
    /// The last purge that is in the log, and the last one of each node that waits to be sent.
    logged: u64,
    waiting: Vec<u64>,
    requests: Vec<(String, u64, JoinHandle<Reply>)>,
    /// What has happened, for a run that fails.
    steps: Vec<String>,
}

impl World {
    fn new(seed: u64, is_in_turns: bool) -> Self {
        let (site, now) = (Site::default(), Arc::new(AtomicU64::new(1)));
        let clock = Arc::clone(&now);
        let origin = ScriptedOrigin::new(move |call, _| {
            let read = clock.load(Ordering::Relaxed);
            ok(read.to_string()).header("surrogate-key", "red").max_age(60).after(ms(call as u64 * 7 % 40))
        });
        let node = |_| site.node_with(&origin, |tier| tier.single_fetch(is_in_turns), |cache| cache);
        let nodes: Vec<_> = (0..3).map(node).collect();
        Self {
            nodes,
            site,
            random: Random(seed),
            now,
            applied: vec![0; 3],
            is_paused: vec![false; 3],
            is_cut: vec![false; 3],
            is_behind: vec![false; 3],
            logged: 0,
            waiting: vec![0; 3],
            requests: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// All that is in the log was applied by each node that reads it.
    fn read(&mut self) {
        for node in 0..3 {
            let reads = !self.is_cut[node] && !self.is_paused[node];
            self.is_behind[node] &= !reads;
            if !self.is_cut[node] && !self.is_behind[node] {
                self.logged = self.logged.max(self.waiting[node]);
            }
        }
        for node in 0..3 {
            if !self.is_cut[node] && !self.is_paused[node] {
                self.applied[node] = self.applied[node].max(self.logged);
            }
        }
    }

    fn purge(&mut self, node: usize) {
        let issued = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.nodes[node].cache.purge().tag("red");
        (self.applied[node], self.waiting[node]) = (issued, issued);
        self.read();
    }

    fn request(&mut self, node: usize) {
        let path = format!("/{}", self.random.below(2));
        let (service, target) = (self.nodes[node].service.clone(), path.clone());
        let task = tokio::spawn(async move { get(&service, &target).await });
        self.requests.push((format!("node {node} {path}"), self.applied[node], task));
    }

    async fn step(&mut self) {
        self.now.fetch_add(1, Ordering::Relaxed);
        let (node, kind) = (self.random.below(3) as usize, self.random.below(24));
        let now = self.now.load(Ordering::Relaxed);
        self.steps.push(format!("{now}: {kind} on {node}, applied {:?}", self.applied));
        match kind {
            0..=9 => self.request(node),
            10..=12 => self.purge(node),
            13 => {
                self.nodes[node].log.pause();
                self.is_paused[node] = true;
            }
            14..=15 => {
                self.nodes[node].log.resume();
                self.is_paused[node] = false;
                self.read();
            }
            16 => {
                self.nodes[node].log.cut_off();
                (self.is_cut[node], self.is_behind[node]) = (true, true);
            }
            17 if self.is_cut[node] => {
                self.nodes[node].log.connect();
                self.is_cut[node] = false;
                self.read();
            }
            18 => self.site.remote.delay(ms(self.random.below(4) * 15)),
            19 if self.random.below(6) == 0 => {
                self.site.log.lose_everything();
                self.is_behind = vec![true; 3];
                self.read();
            }
            _ => tokio::time::advance(ms(self.random.below(60))).await,
        }
        match self.random.below(3) {
            0 => {}
            1 => settle().await,
            _ => begin_writing().await,
        }
    }

    async fn run(mut self) -> (u64, Vec<String>) {
        for _ in 0..60 {
            self.step().await;
        }
        let mut violations = Vec::new();
        for (what, applied, task) in self.requests {
            let reply = task.await.unwrap();
            assert_eq!(reply.status, 200);
            let read: u64 = std::str::from_utf8(&reply.body).unwrap().parse().unwrap();
            if read < applied {
                violations.append(&mut self.steps);
                violations.push(format!("{what} got {read} after {applied}: {}", reply.cache()));
            }
        }
        let found = self.nodes.iter().map(|node| node.count(TierRead::Fresh)).sum();
        (found, violations)
    }
}

#[test]
fn a_purge_wins_in_random_schedules_of_three_nodes() {
    let runs = std::env::var("TIER_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(60);
    let mut found = 0;
    for seed in 0..runs {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let (fresh, violations) =
            runtime.unwrap().block_on(async { World::new(seed, seed % 4 == 0).run().await });
        assert_eq!(violations, Vec::<String>::new(), "run {seed}");
        found += fresh;
    }
    assert!(found > runs / 2, "the tier is of use: {found} times in {runs} runs");
}
