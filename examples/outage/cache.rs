//! The layers of this crate over the clients of two origins.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Layer, ServiceExt, util::BoxCloneSyncService};
use tower_readthrough::{
    Body, Failover, MemoryStore, OriginHealth, OriginLimitLayer, OriginState, ReadThroughLayer, SharedError,
};

pub(crate) type ReqBody = Full<Bytes>;
/// Each layer wraps the body: the limit of an origin, the choice of the origin, and the stack.
type Page = http::Response<Body<Body<Incoming>>>;
pub(crate) type Stack = BoxCloneSyncService<Request<ReqBody>, Page, SharedError>;

/// How many requests may be under way at an origin.
const LIMIT: usize = 32;

/// The cache, and what can be seen of its origins.
pub(crate) struct Cache {
    pub(crate) stack: Stack,
    asked: [Arc<AtomicU64>; 2],
    health: [OriginHealth; 2],
}

impl Cache {
    /// How often each origin has been asked.
    pub(crate) fn asked(&self) -> [u64; 2] {
        self.asked.each_ref().map(|asked| asked.load(Ordering::Relaxed))
    }

    pub(crate) fn states(&self) -> [OriginState; 2] {
        self.health.each_ref().map(OriginHealth::state)
    }
}

pub(crate) fn build(addresses: [SocketAddr; 2]) -> Result<Cache, Box<dyn Error>> {
    let asked = <[Arc<AtomicU64>; 2]>::default();
    let health = [OriginHealth::new(), OriginHealth::new()];
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(1)));
    let client: Client<_, ReqBody> = Client::builder(TokioExecutor::new()).build(connector);
    let origin = |index: usize| {
        let (asked, address) = (Arc::clone(&asked[index]), addresses[index]);
        let asking = client.clone().map_request(move |request| {
            asked.fetch_add(1, Ordering::Relaxed);
            to_origin(request, address)
        });
        // All callers that wait for the same page get the same error.
        BoxCloneSyncService::new(asking.map_err(|error: legacy::Error| SharedError::new(error)))
    };
    let limits = health.clone();
    let origins = Failover::builder(origin(0), [origin(1)])
        .origin_limit(move |index| OriginLimitLayer::new(LIMIT).health(limits[index].clone()))
        .build()?;
    let layers = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
        .outage(origins.health().clone())
        .coalesce(|coalesce| coalesce.fetch_deadline(Duration::from_secs(5)))
        .build()?;
    Ok(Cache { stack: BoxCloneSyncService::new(layers.layer(origins)), asked, health })
}

fn to_origin(mut request: Request<ReqBody>, address: SocketAddr) -> Request<ReqBody> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query(path);
    if let Ok(uri) = uri.build() {
        *request.uri_mut() = uri;
    }
    request
}
