//! The crate as one node of several, for what that costs a hit.

use bytes::Bytes;
use http_body_util::Full;
use tower::Layer;
use tower_readthrough::{
    MemoryStore, ReadThroughLayer, Tier,
    testing::{PurgeLog, ScriptedRemote},
};

use super::{Config, Kind, Meta, Visitor, meta, ours::rules};
use crate::origin::OriginHandle;

pub(super) fn visit<V: Visitor>(visitor: &mut V) {
    let meta = Meta { special: true, short_ttl: false, ..meta("tower-readthrough-node", Kind::Layer) };
    visitor.visit(meta, |config: &Config, origin: &OriginHandle| {
        let store = MemoryStore::builder(256 << 20).snapshots(true).build().expect("sound settings");
        let tier = Tier::builder(ScriptedRemote::new()).build().expect("sound settings");
        let builder = ReadThroughLayer::builder(store).rules(rules(config)).second_tier(tier);
        let cache = builder.build().expect("sound settings");
        // As long as the process: a node that has left writes and reads nothing.
        std::mem::forget(PurgeLog::new().join(&cache.purge()).expect("the first log of the store"));
        cache.layer(origin.service::<Full<Bytes>>())
    });
}
