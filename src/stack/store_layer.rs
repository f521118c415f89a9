use std::{fmt, sync::Arc};

use tower_layer::Layer;

use crate::{
    exchange,
    http::rules::Rules,
    key::{DefaultKey, KeyExtractor},
    layers::{fill, lookup},
    observe::Stats,
    purge::Purge,
    store::Store,
    tags::TagFields,
};

/// [`Lookup`](crate::Lookup) directly round [`Fill`](crate::Fill): a cache, without coalescing or stale responses on error.
///
/// A body is stored when the client has read it to its end, or as far as its declared length and then
/// dropped it, as hyper does over HTTP/1. If it wants only a part of what is fetched
/// for all clients, or has it already, the rest is read in the background.
#[derive(Clone)]
pub struct StoreLayer<St, K = DefaultKey, P = ()> {
    lookup: lookup::LookupLayer<St, K>,
    fill: fill::FillLayer<St, P>,
}

impl<St: Store> StoreLayer<St> {
    /// Keeps responses in this store, with the default key and [`Rules`].
    pub fn new(store: St) -> Self {
        Self { lookup: lookup::LookupLayer::new(store.clone()), fill: fill::FillLayer::new(store) }
    }
}

impl<St: Store, K: KeyExtractor, P: fill::Policy> StoreLayer<St, K, P> {
    /// See [`LookupLayer::key`](crate::LookupLayer::key).
    #[must_use]
    pub fn key<L: KeyExtractor>(self, extractor: L) -> StoreLayer<St, L, P> {
        StoreLayer { lookup: self.lookup.key(extractor), fill: self.fill }
    }

    /// See [`LookupLayer::purge`](crate::LookupLayer::purge).
    pub fn purge(&self) -> Purge {
        self.lookup.purge()
    }

    /// See [`FillLayer::rules`](crate::FillLayer::rules).
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.lookup = self.lookup.rules(rules.clone());
        self.fill = self.fill.rules(rules);
        self
    }

    /// See [`FillLayer::strip_tags`](crate::FillLayer::strip_tags).
    #[must_use]
    pub fn strip_tags(mut self, strip: bool) -> Self {
        self.fill = self.fill.strip_tags(strip);
        self
    }

    /// See [`FillLayer::tag_fields`](crate::FillLayer::tag_fields). Those of the [key rules](crate::KeyRulesBuilder::tag_fields) count as
    /// well.
    #[must_use]
    pub fn tag_fields(mut self, fields: TagFields) -> Self {
        self.fill = self.fill.tag_fields(fields);
        self
    }

    /// Tells this observer of each response, of what comes of storing it, and of background refreshes.
    /// Default: none.
    #[must_use]
    pub fn observer(mut self, observer: impl exchange::Observer) -> Self {
        let observer: Arc<dyn exchange::Observer> = Arc::new(observer);
        self.lookup = self.lookup.observer(Arc::clone(&observer));
        self.fill = self.fill.observer(observer);
        self
    }

    /// Counts what the service does, and lets these numbers say what is in the store; see [`Stats`]. Default:
    /// none.
    #[must_use]
    pub fn counted_by(mut self, stats: &Stats) -> Self {
        self.lookup = self.lookup.counted_by(stats);
        self.fill = self.fill.counted_by(stats);
        self
    }

    /// See [`FillLayer::policy`](crate::FillLayer::policy).
    #[must_use]
    pub fn policy<Q: fill::Policy>(self, policy: Q) -> StoreLayer<St, K, Q> {
        StoreLayer { lookup: self.lookup, fill: self.fill.policy(policy) }
    }
}

impl<St, K, P> fmt::Debug for StoreLayer<St, K, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLayer").field("lookup", &self.lookup).field("fill", &self.fill).finish()
    }
}

impl<S, St: Store, K: KeyExtractor, P> Layer<S> for StoreLayer<St, K, P> {
    type Service = lookup::Lookup<fill::Fill<S, St, P>, St, K>;

    fn layer(&self, inner: S) -> Self::Service {
        let fill = self.fill.clone().and_tag_fields(&self.lookup.tag_fields());
        self.lookup.layer(fill.layer(inner))
    }
}
