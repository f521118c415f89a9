//! The client of the API: requests by path, over reqwest, with retries and a cache.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, uri::PathAndQuery};
use http_body_util::{BodyExt, Empty};
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_readthrough::{
    Body, BodyError, BuildError, CacheStatus, MemoryStore, ReadThroughLayer, RetryPolicy, Rules, SharedError,
};

type Stack = BoxCloneSyncService<Request<Empty<Bytes>>, Response<Body<reqwest::Body>>, SharedError>;

/// For so long a response covers for an API that fails.
const COVERS_FOR: Duration = Duration::from_secs(24 * 3600);

const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Api {
    base: Uri,
    stack: Stack,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) cache_status: String,
    pub(crate) body: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0:?} is not a path")]
    Path(String),
    #[error("the API does not answer: {0}")]
    Transport(#[from] SharedError),
    #[error("the API broke off")]
    Body(#[from] BodyError),
}

impl Api {
    pub(crate) fn new(base: Uri, store: MemoryStore) -> Result<Self, Box<dyn std::error::Error>> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let transport = service_fn(move |request: Request<Empty<Bytes>>| send(client.clone(), request));
        let transport = transport.map_err(|error: reqwest::Error| SharedError::new(error));
        Ok(Self { base, stack: BoxCloneSyncService::new(cache(store)?.layer(transport)) })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        let not_a_path = || Error::Path(path.to_owned());
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(path.parse::<PathAndQuery>().map_err(|_| not_a_path())?);
        let uri = Uri::from_parts(parts).map_err(|_| not_a_path())?;
        let request = Request::get(uri).body(Empty::new()).map_err(|_| not_a_path())?;
        let response = self.stack.clone().oneshot(request).await?;
        let status = response.status();
        let cache_status = CacheStatus::of(&response).map_or_else(String::new, |status| status.to_string());
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Answer { status, cache_status, body: String::from_utf8_lossy(&body).trim_end().to_owned() })
    }
}

fn cache(store: MemoryStore) -> Result<ReadThroughLayer<MemoryStore>, BuildError> {
    ReadThroughLayer::builder(store)
        .rules(Rules::new().stale_if_error_for(COVERS_FOR))
        .retry(RetryPolicy::new())
        .build()
}

async fn send(
    client: reqwest::Client,
    request: Request<Empty<Bytes>>,
) -> Result<Response<reqwest::Body>, reqwest::Error> {
    let request = reqwest::Request::try_from(request.map(|_| reqwest::Body::default()))?;
    client.execute(request).await.map(Response::from)
}
