//! A second tier that several nodes have in common: what is read from it, and what is written to it.
//!
//! Nodes of one process follow a log of purges in memory, which has the rules of the real one.

#[allow(dead_code, unused_imports, reason = "the kit of the other tests, of which these use a part")]
#[path = "../it/support/mod.rs"]
mod support;

mod failing;
mod guards;
mod model;
mod purging;
mod reading;
mod records;
mod turns;
mod variants;
mod writing;

use self::support::{
    Reply, ScriptedOrigin, ScriptedResponse, error, get, get_with, ms, ok, request, secs, send, settle,
    status,
};
use tower::Layer;
use tower_readthrough::{
    MemoryStore, ReadThrough, ReadThroughBuilder, ReadThroughLayer, Tier, TierRead, TierWrite,
    testing::{PurgeLog, PurgeLogNode, RemoteCall, ScriptedRemote},
    tier::TierBuilder,
};

/// Lets what was stored begin to be written: its response has a head start of a millisecond.
async fn begin_writing() {
    settle().await;
    tokio::time::advance(ms(1)).await;
    settle().await;
}

/// What nodes have in common.
#[derive(Clone, Default)]
struct Site {
    remote: ScriptedRemote,
    log: PurgeLog,
}

/// One process.
struct Node {
    cache: ReadThroughLayer<MemoryStore>,
    service: ReadThrough<ScriptedOrigin, MemoryStore>,
    origin: ScriptedOrigin,
    tier: Tier,
    log: PurgeLogNode,
}

fn store() -> MemoryStore {
    MemoryStore::builder(64 << 20).snapshots(true).build().unwrap()
}

/// Answers with the number of calls before, fresh for a minute.
fn numbered() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, _| tagged(call).max_age(60))
}

fn tagged(call: usize) -> ScriptedResponse {
    let before = call - 1;
    ok(before.to_string()).header("surrogate-key", "red").header("etag", format!("\"{before}\""))
}

impl Site {
    fn node(&self) -> Node {
        self.node_of(&numbered())
    }

    fn node_of(&self, origin: &ScriptedOrigin) -> Node {
        self.node_with(origin, |tier| tier, |cache| cache)
    }

    fn node_with(
        &self,
        origin: &ScriptedOrigin,
        set_tier: impl FnOnce(TierBuilder) -> TierBuilder,
        set_cache: impl FnOnce(ReadThroughBuilder<MemoryStore>) -> ReadThroughBuilder<MemoryStore>,
    ) -> Node {
        let tier = set_tier(Tier::builder(self.remote.clone())).build().unwrap();
        let builder = set_cache(ReadThroughLayer::builder(store()).second_tier(tier.clone()));
        let cache = builder.build().unwrap();
        let log = self.log.join(&cache.purge()).unwrap();
        Node { service: cache.layer(origin.clone()), cache, origin: origin.clone(), tier, log }
    }

    fn reads(&self) -> u64 {
        self.remote.calls(RemoteCall::Read)
    }

    fn writes(&self) -> u64 {
        self.remote.calls(RemoteCall::Write)
    }
}

impl Node {
    async fn get(&self, target: &str) -> Reply {
        get(&self.service, target).await
    }

    /// The body alone.
    async fn page(&self, target: &str) -> String {
        String::from_utf8(self.get(target).await.body.to_vec()).unwrap()
    }

    /// Fetches, and waits until all is written.
    async fn fill(&self, target: &str) -> String {
        let page = self.page(target).await;
        self.written().await;
        page
    }

    async fn written(&self) {
        let left = self.tier.flush(secs(60)).await.left;
        assert_eq!(left, 0, "all is written");
    }

    fn count(&self, read: TierRead) -> u64 {
        self.tier.status().reads.get(read)
    }

    fn count_of_writes(&self, write: TierWrite) -> u64 {
        self.tier.status().writes.get(write)
    }
}
