//! General-purpose maps and caches behind one minimal read-through service (`ReadStore`):
//! practical floors.

use std::{
    convert::Infallible,
    future::Future,
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use tower::Service;

use super::Config;
use crate::origin::{Origin, OriginHandle};

pub(super) struct Entry {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
    pub(super) expires: Instant,
}

impl Entry {
    #[inline]
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.status_mut() = self.status;
        *response.version_mut() = self.version;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

pub(super) fn path(request: &Request<Body>) -> &str {
    request.uri().path_and_query().map_or("/", |path| path.as_str())
}

pub(super) async fn fetch(
    mut inner: Origin<Full<Bytes>>,
    request: Request<Body>,
    ttl: Duration,
) -> Arc<Entry> {
    let Ok(response) = inner.call(request).await;
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    Arc::new(Entry {
        status: head.status,
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        expires: Instant::now() + ttl,
    })
}

pub(super) trait Store: Clone + Send + Sync + 'static {
    fn with_capacity(entries: usize) -> Self;
    fn get(&self, key: &str) -> Option<Arc<Entry>>;
    fn put(&self, key: Box<str>, entry: Arc<Entry>);
}

/// No method, no time, no coalescing: a lookup and nothing else.
#[derive(Clone)]
pub(super) struct ReadStore<St> {
    store: St,
    inner: Origin<Full<Bytes>>,
    ttl: Duration,
}

impl<St: Store> ReadStore<St> {
    pub(super) fn new(config: &Config, origin: &OriginHandle) -> Self {
        Self {
            store: St::with_capacity(config.capacity),
            inner: origin.service(),
            ttl: config.explicit_ttl(),
        }
    }
}

type Boxed = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// A hit is an already finished future: no allocation. Only a miss boxes its future.
pub(super) enum ReadFuture {
    Hit(Option<Response<Full<Bytes>>>),
    Miss(Boxed),
}

impl Future for ReadFuture {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Hit(response) => Poll::Ready(Ok(response.take().expect("polled once"))),
            Self::Miss(fetch) => fetch.as_mut().poll(cx).map(Ok),
        }
    }
}

impl<St: Store> Service<Request<Body>> for ReadStore<St> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = ReadFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> ReadFuture {
        if let Some(entry) = self.store.get(path(&request)) {
            return ReadFuture::Hit(Some(entry.response()));
        }
        let Self { store, inner, ttl } = self.clone();
        ReadFuture::Miss(Box::pin(async move {
            let key: Box<str> = path(&request).into();
            let entry = fetch(inner, request, ttl).await;
            store.put(key, Arc::clone(&entry));
            entry.response()
        }))
    }
}

#[derive(Default, Clone, Copy)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed")
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// DashMap keyed by a 64-bit hash of the path: no key string is kept or compared (not safe
/// against collisions; a lower bound for a lookup).
#[derive(Clone)]
pub(super) struct DashU64 {
    map: Arc<dashmap::DashMap<u64, Arc<Entry>, BuildHasherDefault<Identity>>>,
    hash: foldhash::fast::FixedState,
}

impl Store for DashU64 {
    fn with_capacity(_: usize) -> Self {
        Self { map: Arc::default(), hash: foldhash::fast::FixedState::with_seed(7) }
    }

    #[inline]
    fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.map.get(&self.hash.hash_one(key)).map(|entry| Arc::clone(&entry))
    }

    fn put(&self, key: Box<str>, entry: Arc<Entry>) {
        self.map.insert(self.hash.hash_one(&*key), entry);
    }
}

/// DashMap keyed by the path, looked up by `&str`.
#[derive(Clone)]
pub(super) struct DashStr(Arc<dashmap::DashMap<Box<str>, Arc<Entry>, foldhash::fast::RandomState>>);

impl Store for DashStr {
    fn with_capacity(_: usize) -> Self {
        Self(Arc::default())
    }

    #[inline]
    fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.0.get(key).map(|entry| Arc::clone(&entry))
    }

    fn put(&self, key: Box<str>, entry: Arc<Entry>) {
        self.0.insert(key, entry);
    }
}

pub(super) type Quick = Arc<quick_cache::sync::Cache<Box<str>, Arc<Entry>>>;

impl Store for Quick {
    fn with_capacity(entries: usize) -> Self {
        Self::new(quick_cache::sync::Cache::new(entries))
    }

    #[inline]
    fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.as_ref().get(key)
    }

    fn put(&self, key: Box<str>, entry: Arc<Entry>) {
        self.insert(key, entry);
    }
}

pub(super) type MokaSync = moka::sync::Cache<Box<str>, Arc<Entry>>;

impl Store for MokaSync {
    fn with_capacity(entries: usize) -> Self {
        Self::new(entries as u64)
    }

    #[inline]
    fn get(&self, key: &str) -> Option<Arc<Entry>> {
        Self::get(self, key)
    }

    fn put(&self, key: Box<str>, entry: Arc<Entry>) {
        self.insert(key, entry);
    }
}
