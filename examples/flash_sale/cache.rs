//! The layers of this crate between the clients and the shop: a server, the stack, a client.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use http::{Request, Response, StatusCode, Uri};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;
use tower::{Layer, Service, ServiceExt, util::BoxCloneSyncService};
use tower_readthrough::{
    Body, BuildError, KeyRule, KeyRules, MemoryStore, OriginLimitLayer, ReadThroughLayer, RequestBody,
    RuleError, Rules, SharedError,
};

type Page = Response<Body<Incoming>>;
pub(crate) type Stack = BoxCloneSyncService<Request<RequestBody<Incoming>>, Page, SharedError>;

/// The number of pages that the shop can make at a time.
const ORIGIN_LIMIT: usize = 40;

pub(crate) fn build(origin: SocketAddr, ttl: Duration) -> Result<Stack, BuildError> {
    let layers = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
        .key(by_product()?)
        .rules(Rules::new().fixed_ttl(ttl))
        .origin_limit(OriginLimitLayer::new(ORIGIN_LIMIT))
        .build()?;
    let client: Client<_, RequestBody<Incoming>> = Client::builder(TokioExecutor::new()).build_http();
    let client = client
        .map_request(move |request| to_origin(request, origin))
        // All callers that wait for the same page get the same error.
        .map_err(|error: legacy::Error| SharedError::new(error));
    Ok(BoxCloneSyncService::new(layers.layer(client)))
}

/// User, session and cookies do not change the page of a product.
fn by_product() -> Result<KeyRules, RuleError> {
    KeyRules::builder()
        .rule(KeyRule::path("/get_fprod.php?uid={_}&pid={pid}&sid={_}").forward_unkeyed().cookies([]))
        .build()
}

fn to_origin(
    mut request: Request<RequestBody<Incoming>>,
    origin: SocketAddr,
) -> Request<RequestBody<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(origin.to_string()).path_and_query(path);
    if let Ok(uri) = uri.build() {
        *request.uri_mut() = uri;
    }
    request
}

pub(crate) async fn serve(listener: std::net::TcpListener, stack: Stack) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let stack = stack.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            // Always ready, as all layers here are.
            let answer = stack.clone().call(request.map(RequestBody::new));
            async { Ok::<_, Infallible>(answer.await.unwrap_or_else(|_| bad_gateway())) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn bad_gateway() -> Page {
    let mut page = Response::new(Body::default());
    *page.status_mut() = StatusCode::BAD_GATEWAY;
    page
}
