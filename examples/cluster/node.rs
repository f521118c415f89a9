//! A node: a stack with a store of its own, as one process of a service has it.

use std::{
    convert::Infallible,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, to_bytes};
use http::{Request, Response};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_readthrough::{
    MemoryStore, Purge, ReadThroughLayer, Rules, cluster::Cluster, remote::RedisRemote, tier::Tier,
};

/// What all pages say: the number of the last edit. And how often it was asked for the slow one.
#[derive(Clone, Default)]
pub(crate) struct Origin {
    edits: Arc<AtomicU64>,
    slow_calls: Arc<AtomicU64>,
}

/// The page of this number takes its time.
pub(crate) const SLOW: u32 = u32::MAX;

impl Origin {
    /// Changes all pages, and returns the new number.
    pub(crate) fn edit(&self) -> u64 {
        self.edits.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn slow_calls(&self) -> u64 {
        self.slow_calls.load(Ordering::SeqCst)
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        if request.uri().path()[1..] == SLOW.to_string() {
            self.slow_calls.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(100)).await;
        }
        Ok(self.page())
    }

    fn page(&self) -> Response<Body> {
        let mut page = Response::new(Body::from(self.edits.load(Ordering::SeqCst).to_string()));
        page.headers_mut().insert("surrogate-key", http::HeaderValue::from_static("all"));
        page
    }
}

pub(crate) struct Node {
    service: BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>,
    purge: Purge,
    cluster: Cluster,
}

impl Node {
    pub(crate) fn start(name: &str, server: &str, origin: &Origin) -> Result<Self, Box<dyn Error>> {
        let remote = RedisRemote::builder(server).namespace("example").open()?;
        let tier = Tier::builder(remote).single_fetch(true).build()?;
        let layer = ReadThroughLayer::builder(MemoryStore::builder(256 << 20).snapshots(true).build()?)
            .second_tier(tier)
            .rules(Rules::new().fixed_ttl(Duration::from_secs(3600)))
            .build()?;
        let purge = layer.purge();
        let cluster = Cluster::builder(server, purge.clone()).namespace("example").node(name).open()?;
        let origin = origin.clone();
        let origin = service_fn(move |request: Request<Body>| origin.clone().answer(request));
        let service = layer.layer(origin).map_response(|response| response.map(Body::new));
        Ok(Self { service: BoxCloneSyncService::new(service), purge, cluster })
    }

    pub(crate) async fn caught_up(&self) {
        while !self.cluster.status().is_caught_up {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks for a page, and returns the number of the edit that it shows.
    pub(crate) async fn get(&self, page: u32) -> Option<u64> {
        let request = Request::get(format!("http://example.com/{page}")).body(Body::empty()).ok()?;
        let response = self.service.clone().oneshot(request).await.ok()?;
        let body = to_bytes(response.into_body(), 64).await.ok()?;
        str::from_utf8(&body).ok()?.parse().ok()
    }

    pub(crate) fn purge(&self) -> &Purge {
        &self.purge
    }

    pub(crate) async fn leave(&self) {
        self.cluster.clone().leave().await;
    }
}
