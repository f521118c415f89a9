//! Stores, rules and caches that many tests begin with.

use tower::Layer;
use tower_readthrough::{Fill, Lookup, MemoryStore, ReadThroughLayer, Rules, StoreLayer};

use super::{ScriptedOrigin, ms, secs};

/// A store over a scripted origin, without the other layers.
pub(crate) type Cached = Lookup<Fill<ScriptedOrigin, MemoryStore>, MemoryStore>;

/// A store that has room for all that a test brings.
pub(crate) fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(256 << 20)
}

/// A store of 1 MiB, which takes 64 KiB of one response.
pub(crate) fn small_store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(1 << 20)
}

/// Rules by which everything is fresh for this long, whatever the response says.
pub(crate) fn fixed(millis: u64) -> Rules {
    Rules::new().fixed_ttl(ms(millis))
}

/// Rules by which a response that says nothing of its freshness is fresh for ten seconds.
pub(crate) fn ttl() -> Rules {
    Rules::new().default_ttl(secs(10))
}

/// The default stack under these rules.
pub(crate) fn stack(rules: Rules) -> ReadThroughLayer<MemoryStore> {
    let built = ReadThroughLayer::builder(store()).rules(rules).build();
    built.unwrap_or_else(|error| panic!("the rules of the stack can work: {error}"))
}

pub(crate) fn cached(rules: Rules, origin: &ScriptedOrigin) -> Cached {
    cached_in(&small_store(), rules, origin)
}

pub(crate) fn cached_in(store: &MemoryStore, rules: Rules, origin: &ScriptedOrigin) -> Cached {
    StoreLayer::new(store.clone()).rules(rules).layer(origin.clone())
}
