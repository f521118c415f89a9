//! Throw-away sketches of what a purpose-built layer could do on the hit path, to measure how
//! close to `floor-service` one can get. Not a cache to use: no RFC 9111 rules, no Vary, no
//! error handling.
//!
//! * `Sketch<false>`: quick_cache, borrowed key, expiry and method check, its own coalescing, no
//!   boxed future on a hit, entries packed at insertion (values and a small body are slices of
//!   one buffer, so that a hit on a cold entry touches few cache lines).
//! * `Sketch<true>`: the same behind a small front cache per thread of very hot entries, whose
//!   reference counts are this thread's own, so that threads do not fight over them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tower::Service;

use super::{
    Config,
    sketch_front::Front,
    stores::{ReadFuture, path},
};
use crate::{
    clock::coarse_ms,
    origin::{Origin, OriginHandle},
};

pub(super) struct Packed {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// On the coarse clock, in ms.
    expires: u64,
    /// Cleared when the entry is replaced: front caches look at it.
    valid: AtomicBool,
}

const SMALL: usize = 4096;
const COMMON: [&str; 6] =
    ["application/json", "text/html; charset=utf-8", "text/plain", "accept-encoding", "gzip", "no-cache"];

fn common(value: &HeaderValue) -> Option<&'static str> {
    COMMON.into_iter().find(|text| text.as_bytes() == value.as_bytes())
}

/// Values as slices of one buffer, together with a small body. Well-known ones are static
/// strings, which have no counter at all.
pub(super) fn pack(headers: &HeaderMap, body: Bytes) -> (HeaderMap, Bytes) {
    let small = body.len() <= SMALL;
    let own = || headers.values().filter(|value| common(value).is_none()).map(HeaderValue::as_bytes);
    let split = own().map(<[u8]>::len).sum::<usize>();
    let mut all = Vec::with_capacity(split + if small { body.len() } else { 0 });
    own().for_each(|value| all.extend_from_slice(value));
    if small {
        all.extend_from_slice(&body);
    }
    let all = Bytes::from(all.into_boxed_slice());
    let (mut at, mut packed) = (0, HeaderMap::with_capacity(headers.len()));
    for (name, value) in headers {
        let value = common(value).map_or_else(
            || {
                let slice = all.slice(at..at + value.as_bytes().len());
                at += slice.len();
                HeaderValue::from_maybe_shared(slice).expect("it was a value")
            },
            HeaderValue::from_static,
        );
        packed.append(name.clone(), value);
    }
    let body = if small { all.slice(split..) } else { body };
    // A map that grew or was given a capacity holds spare room for a third more entries of 104
    // bytes; its clone is exact.
    (packed.clone(), body)
}

impl Packed {
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.expires > now && self.valid.load(Ordering::Acquire)
    }

    /// A replica with counters of its own. A big body gets one without copying the bytes.
    pub(super) fn replica(self: &Arc<Self>) -> (HeaderMap, Bytes) {
        let small = self.body.len() <= SMALL;
        let body = if small { self.body.clone() } else { Bytes::from_owner(Owner(Arc::clone(self))) };
        pack(&self.headers, body)
    }
}

struct Owner(Arc<Packed>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.body
    }
}

pub(super) fn respond(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.clone()));
    *response.status_mut() = status;
    *response.headers_mut() = headers.clone();
    response
}

pub(super) type Store =
    quick_cache::sync::Cache<Box<str>, Arc<Packed>, quick_cache::UnitWeighter, foldhash::fast::RandomState>;

#[derive(Clone)]
pub(super) struct Sketch<const FRONT: bool> {
    front: Front,
    store: Arc<Store>,
    inner: Origin<Full<Bytes>>,
    ttl: Duration,
}

impl<const FRONT: bool> Sketch<FRONT> {
    pub(super) fn new(config: &Config, origin: &OriginHandle) -> Self {
        let room = config.capacity;
        let store =
            Store::with(room, room as u64, Default::default(), Default::default(), Default::default());
        let store = Arc::new(store);
        Self { front: Front::default(), store, inner: origin.service(), ttl: config.explicit_ttl() }
    }

    #[inline]
    fn hit(&self, key: &str) -> Option<Response<Full<Bytes>>> {
        if FRONT {
            return self.front.hit(&self.store, key);
        }
        let entry = self.store.get(key).filter(|entry| entry.is_fresh(coarse_ms()))?;
        Some(respond(entry.status, &entry.headers, &entry.body))
    }

    async fn fetch(mut self, request: Request<Body>) -> Arc<Packed> {
        let Ok(response) = self.inner.call(request).await;
        let (head, body) = response.into_parts();
        let Ok(body) = body.collect().await;
        let (headers, body) = pack(&head.headers, body.to_bytes());
        let expires = coarse_ms() + self.ttl.as_millis() as u64;
        Arc::new(Packed { status: head.status, headers, body, expires, valid: AtomicBool::new(true) })
    }

    /// An expired entry has to go first, or coalescing would hand it out again.
    fn remove_stale(&self, key: &str) {
        if let Some(old) = self.store.peek(key).filter(|entry| !entry.is_fresh(coarse_ms())) {
            old.valid.store(false, Ordering::Release);
            self.store.remove_if(key, |current| Arc::ptr_eq(current, &old));
        }
    }
}

impl<const FRONT: bool> Service<Request<Body>> for Sketch<FRONT> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = ReadFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> ReadFuture {
        if request.method() == Method::GET
            && let Some(response) = self.hit(path(&request))
        {
            return ReadFuture::Hit(Some(response));
        }
        let this = self.clone();
        ReadFuture::Miss(Box::pin(async move {
            let key: Box<str> = path(&request).into();
            this.remove_stale(&key);
            let fetched = async { Ok::<_, Infallible>(this.clone().fetch(request).await) };
            let Ok(entry) = this.store.get_or_insert_async(&key, fetched).await;
            respond(entry.status, &entry.headers, &entry.body)
        }))
    }
}
