//! The crate itself, put together as its documentation says and with its defaults.

use bytes::Bytes;
use http_body_util::Full;
use tower::Layer;
use tower_readthrough::{MemoryStore, ReadThrough, Rules, StoreLayer};

use super::{Config, Kind, Meta, Visitor, meta};
use crate::origin::OriginHandle;

/// The store is bounded in bytes. What an entry is charged besides its body, for eight fields and
/// a short key; `miss` and `mem` say how many entries it then holds.
const CHARGED_BESIDES_BODY: usize = 1280;

fn store(config: &Config) -> MemoryStore {
    MemoryStore::with_capacity_bytes((config.capacity * (config.body + CHARGED_BESIDES_BODY)) as u64)
}

/// The default is that the origin decides.
fn rules(config: &Config) -> Rules {
    config.ttl.map_or(Rules::new(), |ttl| Rules::new().fixed_ttl(ttl))
}

pub(super) fn visit<V: Visitor>(visitor: &mut V) {
    visitor.visit(meta("tower-readthrough", Kind::Layer), |config: &Config, origin: &OriginHandle| {
        let stack = ReadThrough::new(store(config)).rules(rules(config)).build().expect("sound settings");
        stack.layer(origin.service::<Full<Bytes>>())
    });
    visitor.visit(meta("tower-readthrough-store", Kind::Layer), |config: &Config, origin: &OriginHandle| {
        StoreLayer::new(store(config)).rules(rules(config)).layer(origin.service::<Full<Bytes>>())
    });
    let swr = Meta { only_ttl: true, ..meta("tower-readthrough-swr", Kind::Layer) };
    visitor.visit(swr, |config: &Config, origin: &OriginHandle| {
        // What is stale is served while one refresh is under way.
        let rules = rules(config).stale_while_revalidate_for(config.explicit_ttl());
        let stack = ReadThrough::new(store(config)).rules(rules).build().expect("sound settings");
        stack.layer(origin.service::<Full<Bytes>>())
    });
}
