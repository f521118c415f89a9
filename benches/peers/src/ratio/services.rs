//! This crate: whole requests through its layers, with a store of as many bytes as so many
//! entries take.

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};
use tower_readthrough::{MemoryStore, ReadThroughLayer, StoreLayer};

use super::{Make, Sim};
use crate::{
    candidates::ours::bytes_per_entry,
    origin::{Answer, Mode, Origin, OriginHandle},
    runner::current_thread,
};

const BODY: usize = 1024;

fn get(key: u64) -> Request<Body> {
    // All keys are equally long, so that all entries are equally large.
    let uri = format!("http://bench.local/{key:013}");
    Request::get(uri).body(Body::empty()).expect("a request")
}

struct CacheRequest<S> {
    service: S,
    store: MemoryStore,
    origin: OriginHandle,
    runtime: Runtime,
}

impl<S> CacheRequest<S> {
    fn new<L: Layer<Origin<Full<Bytes>>, Service = S>>(layer: L, store: &MemoryStore) -> Self {
        let origin = OriginHandle::new(Answer::new(BODY, Mode::Shared));
        let runtime = current_thread();
        Self { service: layer.layer(origin.service()), store: store.clone(), origin, runtime }
    }
}

impl<S, B> Sim for CacheRequest<S>
where
    S: Service<Request<Body>, Response = http::Response<B>>,
    B: http_body::Body,
{
    fn access(&mut self, key: u64) -> bool {
        let before = self.origin.calls();
        let service = &mut self.service;
        self.runtime.block_on(async {
            let Ok(service) = service.ready().await else { panic!("ready") };
            let Ok(response) = service.call(get(key)).await else { panic!("an answer") };
            assert!(response.into_body().collect().await.is_ok());
        });
        self.origin.calls() == before
    }

    fn held(&self) -> Option<usize> {
        Some(self.store.stats().entries as usize)
    }
}

fn store(room: usize) -> MemoryStore {
    let origin = OriginHandle::new(Answer::new(BODY, Mode::Shared));
    MemoryStore::with_capacity_bytes(room as u64 * bytes_per_entry(&origin, get(0)))
}

pub(super) fn all() -> Vec<(&'static str, Make)> {
    vec![
        (
            "tower-readthrough",
            Box::new(|_, room| {
                let store = store(room);
                let stack = ReadThroughLayer::builder(store.clone()).build().expect("sound settings");
                Box::new(CacheRequest::new(stack, &store))
            }),
        ),
        (
            "tower-readthrough-store",
            Box::new(|_, room| {
                let store = store(room);
                Box::new(CacheRequest::new(StoreLayer::new(store.clone()), &store))
            }),
        ),
    ]
}
