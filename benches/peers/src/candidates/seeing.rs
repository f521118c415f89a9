//! The crate with each switch by which one sees what it does, for what that costs a hit.

use bytes::Bytes;
use http::request::Parts;
use http_body_util::Full;
use tower::Layer;
use tower_readthrough::{
    CacheStatusDetail, MemoryStore, Observer, ReadThroughBuilder, ReadThroughLayer, Stats, StoreLayer,
    dashboard::Dashboard, purge::Access,
};
use tracing::level_filters::LevelFilter;

use super::{
    Config, Kind, Meta, Visitor, meta,
    ours::{key_rules, rules, store},
};
use crate::origin::OriginHandle;

/// An observer that does nothing, so that only the records cost.
struct Nothing;

impl Observer for Nothing {}

fn special(name: &'static str) -> Meta {
    Meta { special: true, short_ttl: false, ..meta(name, Kind::Layer) }
}

fn builder(config: &Config, origin: &OriginHandle) -> ReadThroughBuilder<MemoryStore> {
    ReadThroughLayer::builder(store(config, origin)).rules(rules(config))
}

/// Writes events of this level and above as text, to nowhere. Once for the process: name one such candidate at a time.
fn subscribe(level: LevelFilter) {
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::sink);
    _ = subscriber.try_init();
}

pub(super) fn visit<V: Visitor>(visitor: &mut V) {
    visitor.visit(special("tower-readthrough-store-stats"), |config: &Config, origin: &OriginHandle| {
        let layer = StoreLayer::new(store(config, origin)).rules(rules(config)).counted_by(&Stats::new());
        layer.layer(origin.service::<Full<Bytes>>())
    });
    with(visitor, "tower-readthrough-observer", |builder| builder.observer(Nothing));
    with(visitor, "tower-readthrough-full-status", |builder| builder.cache_status(CacheStatusDetail::Full));
    with(visitor, "tower-readthrough-report-only", ReadThroughBuilder::report_only);
    for (name, level) in
        [("tower-readthrough-info", LevelFilter::INFO), ("tower-readthrough-debug", LevelFilter::DEBUG)]
    {
        visitor.visit(special(name), move |config: &Config, origin: &OriginHandle| {
            subscribe(level);
            let layer = builder(config, origin).build().expect("sound settings");
            layer.layer(origin.service::<Full<Bytes>>())
        });
    }
    visitor.visit(special("tower-readthrough-metrics"), |config: &Config, origin: &OriginHandle| {
        let layer = builder(config, origin).build().expect("sound settings");
        // As long as the process: a second one of its name is refused.
        _ = layer.metrics().map(std::mem::forget);
        layer.layer(origin.service::<Full<Bytes>>())
    });
    visitor.visit(special("tower-readthrough-by-rule"), |config: &Config, origin: &OriginHandle| {
        let layer = ReadThroughLayer::builder(store(config, origin)).key(key_rules(config.key_rules));
        let layer = layer.count_by_rule().build().expect("sound settings");
        layer.layer(origin.service::<Full<Bytes>>())
    });
    for (name, sampled) in
        [("tower-readthrough-dashboard", None), ("tower-readthrough-dashboard-keys", Some(10))]
    {
        visitor.visit(special(name), move |config: &Config, origin: &OriginHandle| {
            let cache = builder(config, origin).build().expect("sound settings");
            let dashboard = Dashboard::builder(cache.stats(), |_: &Parts| Access::Granted);
            let dashboard =
                sampled.into_iter().fold(dashboard, |dashboard, every| dashboard.sample_requests(every));
            let dashboard = dashboard.build().expect("sound settings");
            dashboard.watch(cache).layer(origin.service::<Full<Bytes>>())
        });
    }
}

/// The stack with one setting changed.
fn with<V: Visitor>(
    visitor: &mut V,
    name: &'static str,
    change: fn(ReadThroughBuilder<MemoryStore>) -> ReadThroughBuilder<MemoryStore>,
) {
    visitor.visit(special(name), move |config: &Config, origin: &OriginHandle| {
        let layer = change(builder(config, origin)).build().expect("sound settings");
        layer.layer(origin.service::<Full<Bytes>>())
    });
}
