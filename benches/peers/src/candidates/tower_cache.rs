//! tower-cache keys its store by the whole request value, which has to be `Hash + Eq + Clone`;
//! `http::Request` is neither, so a user has to reduce it to something like this.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use tower::{Layer, Service};
use tower_cache::{CacheLayer, CacheService, lru::LruProvider};

use super::Config;
use crate::origin::{Origin, OriginFuture, OriginHandle};

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Method, Uri);

#[derive(Clone)]
pub(super) struct FromKey(Origin<Full<Bytes>>);

impl Service<Key> for FromKey {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = OriginFuture<Full<Bytes>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, key: Key) -> Self::Future {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = key.0;
        *request.uri_mut() = key.1;
        self.0.call(request)
    }
}

type Provider = LruProvider<'static, Key, Response<Full<Bytes>>>;
type Cached = CacheService<'static, FromKey, Provider>;

/// Its service is not `Clone`; servers need one that is.
pub(super) struct TowerCache {
    provider: Provider,
    inner: FromKey,
    service: Cached,
}

impl TowerCache {
    fn with(provider: Provider, inner: FromKey) -> Self {
        let service = CacheLayer::<_, Key>::new(provider.clone()).layer(inner.clone());
        Self { provider, inner, service }
    }
}

impl Clone for TowerCache {
    fn clone(&self) -> Self {
        Self::with(self.provider.clone(), self.inner.clone())
    }
}

impl Service<Request<Body>> for TowerCache {
    type Response = Response<Full<Bytes>>;
    type Error = tower_cache::Error;
    type Future = <Cached as Service<Key>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (head, _) = request.into_parts();
        self.service.call(Key(head.method, head.uri))
    }
}

pub(super) fn new(config: &Config, origin: &OriginHandle) -> TowerCache {
    TowerCache::with(LruProvider::new(config.capacity), FromKey(origin.service()))
}
