//! The crate itself, put together as its documentation says and with its defaults.

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    KeyRule, KeyRules, KeyRulesHandle, LookupLayer, MemoryStore, ReadThroughLayer, Rules, StoreLayer,
};

use super::{Config, Kind, Meta, Visitor, meta};
use crate::{
    origin::OriginHandle,
    runner::{current_thread, request, uri},
};

/// What the store charges for the answer to this request. It is bounded in bytes; others are given
/// a number of entries.
pub(crate) fn bytes_per_entry(origin: &OriginHandle, request: Request<Body>) -> u64 {
    let body = origin.template().body.len() as u64;
    let store = MemoryStore::with_capacity_bytes(64 * (body + (64 << 10)));
    let service = StoreLayer::new(store.clone()).layer(origin.another().service::<Full<Bytes>>());
    current_thread().block_on(async {
        let Ok(response) = service.oneshot(request).await;
        assert!(response.into_body().collect().await.is_ok());
    });
    assert_eq!(store.stats().entries, 1);
    store.stats().bytes
}

pub(super) fn store(config: &Config, origin: &OriginHandle) -> MemoryStore {
    let bytes = bytes_per_entry(origin, request(uri(0, false)));
    let store = MemoryStore::with_capacity_bytes(config.capacity as u64 * bytes);
    let purge = LookupLayer::new(store.clone()).purge();
    // Of tags that nothing has: what is stored stays, but has to be compared with them.
    origin.purge_with(move |n| _ = purge.tag(&format!("other-{n}")));
    store
}

/// Only the last of them is for the requests in question; all others begin like it.
pub(super) fn key_rules(count: usize) -> KeyRules {
    let others = (1..count).map(|n| KeyRule::path(format!("/api/v1/other{n}/{{id}}")));
    let last = KeyRule::path("/api/v1/items/{id}").ignore_query(["utm_*"]);
    let rules = others.chain([last]).fold(KeyRules::builder(), |rules, rule| rules.rule(rule));
    rules.build().expect("sound rules")
}

/// The default is that the origin decides.
pub(super) fn rules(config: &Config) -> Rules {
    config.ttl.map_or(Rules::new(), |ttl| Rules::new().fixed_ttl(ttl))
}

pub(super) fn visit<V: Visitor>(visitor: &mut V) {
    visitor.visit(meta("tower-readthrough", Kind::Layer), |config: &Config, origin: &OriginHandle| {
        let stack = ReadThroughLayer::builder(store(config, origin))
            .rules(rules(config))
            .build()
            .expect("sound settings");
        stack.layer(origin.service::<Full<Bytes>>())
    });
    visitor.visit(meta("tower-readthrough-store", Kind::Layer), |config: &Config, origin: &OriginHandle| {
        StoreLayer::new(store(config, origin)).rules(rules(config)).layer(origin.service::<Full<Bytes>>())
    });
    let swr = Meta { special: true, ..meta("tower-readthrough-swr", Kind::Layer) };
    visitor.visit(swr, |config: &Config, origin: &OriginHandle| {
        // What is stale is served while one refresh is under way.
        let rules = rules(config).stale_while_revalidate_for(config.explicit_ttl());
        let stack =
            ReadThroughLayer::builder(store(config, origin)).rules(rules).build().expect("sound settings");
        stack.layer(origin.service::<Full<Bytes>>())
    });
    let with_rules = Meta { special: true, short_ttl: false, ..meta("tower-readthrough-rules", Kind::Layer) };
    visitor.visit(with_rules, |config: &Config, origin: &OriginHandle| {
        let stack = ReadThroughLayer::builder(store(config, origin)).key(key_rules(config.key_rules));
        stack.build().expect("sound settings").layer(origin.service::<Full<Bytes>>())
    });
    let with_handle =
        Meta { special: true, short_ttl: false, ..meta("tower-readthrough-handle", Kind::Layer) };
    visitor.visit(with_handle, |config: &Config, origin: &OriginHandle| {
        let rules = KeyRulesHandle::new(key_rules(config.key_rules)).expect("rules without bodies");
        let stack = ReadThroughLayer::builder(store(config, origin)).key(rules);
        stack.build().expect("sound settings").layer(origin.service::<Full<Bytes>>())
    });
}
