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
use tower_readthrough::{MemoryStore, Purge, ReadThroughLayer, Rules, cluster::Cluster};

/// What all pages say: the number of the last edit.
#[derive(Clone, Default)]
pub(crate) struct Origin(Arc<AtomicU64>);

impl Origin {
    /// Changes all pages, and returns the new number.
    pub(crate) fn edit(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn page(&self) -> Response<Body> {
        let mut page = Response::new(Body::from(self.0.load(Ordering::SeqCst).to_string()));
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
        let layer = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(256 << 20))
            .rules(Rules::new().fixed_ttl(Duration::from_secs(3600)))
            .build()?;
        let purge = layer.purge();
        let cluster = Cluster::builder(server, purge.clone()).namespace("example").node(name).open()?;
        let origin = origin.clone();
        let origin = service_fn(move |_: Request<Body>| {
            let page = origin.page();
            async move { Ok::<_, Infallible>(page) }
        });
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

    pub(crate) async fn leave(self) {
        self.cluster.leave().await;
    }
}
