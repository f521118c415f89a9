//! Published Tower layers, set up as their documentation says.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::Full;
use tower::Layer;

use super::{Config, Kind, Meta, Visitor, meta, tower_cache};
use crate::origin::OriginHandle;

pub(super) fn visit<V: Visitor>(visitor: &mut V) {
    tower_http_cache(visitor);
    axum_response_cache(visitor);
    http_cache_tower(visitor);
    hitbox(visitor);
    hitbox_bincode(visitor);
    let timeless = Meta { short_ttl: false, ..meta("tower-cache", Kind::Layer) };
    visitor.visit(timeless, tower_cache::new);
}

fn tower_http_cache<V: Visitor>(visitor: &mut V) {
    use tower_http_cache::{backend::memory::InMemoryBackend, layer::CacheLayer};
    visitor.visit(meta("tower-http-cache", Kind::Layer), |config: &Config, origin: &OriginHandle| {
        CacheLayer::builder(InMemoryBackend::new(config.capacity as u64))
            .ttl(config.explicit_ttl())
            .build()
            .layer(origin.service::<Full<Bytes>>())
    });
}

fn axum_response_cache<V: Visitor>(visitor: &mut V) {
    use axum_response_cache::CacheLayer;
    let unbounded = Meta { bounded: false, ..meta("axum-response-cache", Kind::Layer) };
    visitor.visit(unbounded, |config: &Config, origin: &OriginHandle| {
        CacheLayer::with_lifespan(config.explicit_ttl()).layer(origin.service::<Body>())
    });
    visitor.visit(meta("axum-response-cache-lru", Kind::Layer), |config: &Config, origin: &OriginHandle| {
        CacheLayer::with(cached::LruTtlCache::with_size_and_ttl(config.capacity, config.explicit_ttl()))
            .layer(origin.service::<Body>())
    });
}

/// Takes its lifetimes from the origin, in whole seconds.
fn http_cache_tower<V: Visitor>(visitor: &mut V) {
    use http_cache::{CacheMode, HttpCache, HttpCacheOptions, MokaCache, MokaManager};
    let strict = Meta { absolute_uri: true, short_ttl: false, ..meta("http-cache-tower", Kind::Layer) };
    visitor.visit(strict, |config: &Config, origin: &OriginHandle| {
        http_cache_tower::HttpCacheLayer::with_cache(HttpCache {
            mode: CacheMode::Default,
            manager: MokaManager::new(MokaCache::new(config.capacity as u64)),
            options: HttpCacheOptions::default(),
        })
        .layer(origin.service::<Full<Bytes>>())
    });
}

/// Its default: JSON in moka, no coalescing.
fn hitbox<V: Visitor>(visitor: &mut V) {
    use hitbox_http::{
        extractors::{Method, path::PathExtractor},
        predicates::{NeutralRequestPredicate, NeutralResponsePredicate},
    };
    visitor.visit(meta("hitbox-tower", Kind::Layer), |config: &Config, origin: &OriginHandle| {
        let policy = hitbox::policy::PolicyConfig::builder().ttl(config.explicit_ttl()).build();
        let endpoint = hitbox::Config::builder()
            .request_predicate(NeutralRequestPredicate::new())
            .response_predicate(NeutralResponsePredicate::new())
            .extractor(Method::new().path("/{path}*"))
            .policy(policy)
            .build();
        let backend = hitbox_moka::MokaBackend::builder().max_entries(config.capacity as u64).build();
        hitbox_tower::Cache::builder()
            .backend(backend)
            .config(endpoint)
            .build()
            .layer(origin.service::<Full<Bytes>>())
    });
}

/// Bincode and broadcast coalescing: the fastest that it offers in memory.
fn hitbox_bincode<V: Visitor>(visitor: &mut V) {
    use hitbox::policy::{ConcurrencyLimit, PolicyConfig};
    use hitbox_http::{
        extractors::{Method, path::PathExtractor},
        predicates::{NeutralRequestPredicate, NeutralResponsePredicate},
    };
    visitor.visit(meta("hitbox-tower-bincode", Kind::Layer), |config: &Config, origin: &OriginHandle| {
        let one = ConcurrencyLimit::new(1).expect("not zero");
        let policy = PolicyConfig::builder().ttl(config.explicit_ttl()).concurrency(one).build();
        let endpoint = hitbox::Config::builder()
            .request_predicate(NeutralRequestPredicate::new())
            .response_predicate(NeutralResponsePredicate::new())
            .extractor(Method::new().path("/{path}*"))
            .policy(policy)
            .build();
        let backend = hitbox_moka::MokaBackend::builder()
            .max_entries(config.capacity as u64)
            .value_format(hitbox_backend::format::BincodeFormat)
            .build();
        hitbox_tower::Cache::builder()
            .backend(backend)
            .config(endpoint)
            .concurrency_manager(hitbox::concurrency::BroadcastConcurrencyManager::new())
            .build()
            .layer(origin.service::<Full<Bytes>>())
    });
}
