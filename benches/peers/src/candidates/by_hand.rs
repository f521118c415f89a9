//! What one would write by hand around a general-purpose cache, with time and coalescing.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tower::Service;

use super::{
    Config, Kind, Meta, Visitor, meta,
    sketch::Sketch,
    stores::{DashStr, DashU64, Entry, MokaSync, Quick, ReadFuture, ReadStore, fetch, path},
};
use crate::origin::{Origin, OriginHandle};

type BoxFuture = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

/// moka::future with `get` first and its own coalescing `get_with` on a miss.
#[derive(Clone)]
struct MokaFuture {
    cache: moka::future::Cache<Box<str>, Arc<Entry>>,
    inner: Origin<Full<Bytes>>,
    ttl: Duration,
}

impl Service<Request<Body>> for MokaFuture {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> BoxFuture {
        let Self { cache, inner, ttl } = self.clone();
        Box::pin(async move {
            if let Some(entry) = cache.get(path(&request)).await {
                return Ok(entry.response());
            }
            let key: Box<str> = path(&request).into();
            Ok(cache.get_with(key, fetch(inner, request, ttl)).await.response())
        })
    }
}

/// quick_cache with its own coalescing (`get_or_insert_async`): a hit does not allocate a future.
#[derive(Clone)]
struct QuickCoalesce {
    cache: Quick,
    inner: Origin<Full<Bytes>>,
    ttl: Duration,
}

impl Service<Request<Body>> for QuickCoalesce {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = ReadFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ReadFuture {
        let key = path(&request);
        if request.method() == Method::GET
            && let Some(entry) = self.cache.get(key)
        {
            if entry.expires > Instant::now() {
                return ReadFuture::Hit(Some(entry.response()));
            }
            self.cache.remove_if(key, |current| Arc::ptr_eq(current, &entry));
        }
        let Self { cache, inner, ttl } = self.clone();
        ReadFuture::Miss(Box::pin(async move {
            let key: Box<str> = path(&request).into();
            let fetched = async { Ok::<_, Infallible>(fetch(inner, request, ttl).await) };
            let Ok(entry) = cache.get_or_insert_async(&key, fetched).await;
            entry.response()
        }))
    }
}

fn moka_future(config: &Config, origin: &OriginHandle) -> MokaFuture {
    let ttl = config.explicit_ttl();
    let cache = moka::future::Cache::builder().max_capacity(config.capacity as u64).time_to_live(ttl);
    MokaFuture { cache: cache.build(), inner: origin.service(), ttl }
}

fn quick_coalesce(config: &Config, origin: &OriginHandle) -> QuickCoalesce {
    let cache = Arc::new(quick_cache::sync::Cache::new(config.capacity));
    QuickCoalesce { cache, inner: origin.service(), ttl: config.explicit_ttl() }
}

pub(super) fn visit<V: Visitor>(visitor: &mut V) {
    let timeless = |name| Meta { short_ttl: false, ..meta(name, Kind::ByHand) };
    let unbounded = |name| Meta { bounded: false, ..timeless(name) };
    visitor.visit(unbounded("floor-arc"), ReadStore::<DashU64>::new);
    visitor.visit(unbounded("floor-arc-str"), ReadStore::<DashStr>::new);
    visitor.visit(timeless("quick_cache"), ReadStore::<Quick>::new);
    visitor.visit(meta("quick_cache+ttl+coalesce", Kind::ByHand), quick_coalesce);
    visitor.visit(timeless("moka-sync"), ReadStore::<MokaSync>::new);
    visitor.visit(meta("moka-future+get_with", Kind::ByHand), moka_future);
    visitor.visit(meta("sketch", Kind::ByHand), Sketch::<false>::new);
    visitor.visit(meta("sketch-l0", Kind::ByHand), Sketch::<true>::new);
}
