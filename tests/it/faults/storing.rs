//! What may be stored, and with which requests a stored response may be shared.

mod cookies;
mod credentials;
mod directives;
mod lifetimes;
mod statuses;

use tower::Layer;
use tower_readthrough::{
    Fill, Lookup, MemoryStore, ReadThrough, ReadThroughLayer, RetryPolicy, Rules, StoreLayer,
};

use crate::support::{Body, Reply, ScriptedOrigin, request, send};

/// The assembled stack, and the single layers of a cache.
struct Both {
    stack: ReadThrough<ScriptedOrigin, MemoryStore>,
    layers: Lookup<Fill<ScriptedOrigin, MemoryStore>, MemoryStore>,
    /// Of both together.
    origin: ScriptedOrigin,
}

impl Both {
    fn new(rules: Rules, origin: ScriptedOrigin) -> Self {
        let store = || MemoryStore::with_capacity_bytes(1 << 20);
        let stack = ReadThroughLayer::builder(store())
            .rules(rules.clone())
            .retry(RetryPolicy::never())
            .build()
            .unwrap();
        Self {
            stack: stack.layer(origin.clone()),
            layers: StoreLayer::new(store()).rules(rules).layer(origin.clone()),
            origin,
        }
    }

    /// The responses of both to a request with these fields.
    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> [Reply; 2] {
        self.send(|| request("GET", path, fields)).await
    }

    async fn send(&self, request: impl Fn() -> http::Request<Body>) -> [Reply; 2] {
        [send(&self.stack, request()).await, send(&self.layers, request()).await]
    }

    /// Whether the second of two such requests is a hit in both; panics if they differ.
    async fn store(&self, path: &str, fields: &[(&str, &str)]) -> bool {
        self.get(path, fields).await;
        let [stack, layers] = self.get(path, fields).await.map(|reply| reply.is_hit());
        assert_eq!(stack, layers, "{path} {fields:?}");
        stack
    }
}
