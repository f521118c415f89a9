//! What happens while the origin fails, and what one client's request does to the entry of all.

mod errors;
mod failures;
mod head;
mod panics;
mod reload;
mod retries;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_readthrough::{CoalesceLayer, FillLayer, LookupLayer, ReadThroughLayer, Rules, StaleIfErrorLayer};

use crate::support::{Body, Failure, ScriptedOrigin, small_store};

type Served = BoxCloneService<Request<Body>, Response<UnsyncBoxBody<Bytes, Failed>>, Failure>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Wraps a service. Services of one cache share its store and its fetches.
type Cache = Box<dyn Fn(ScriptedOrigin) -> Served>;

fn boxed<S, B>(service: S) -> Served
where
    S: Service<Request<Body>, Response = Response<B>, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Failed>,
{
    service
        .map_response(|response: Response<B>| response.map(|body| body.map_err(Into::into).boxed_unsync()))
        .boxed_clone()
}

/// The assembled stack, and the layers put together by hand with and without shared fetches, all of
/// which follow the directives of requests.
fn caches(rules: Rules) -> [(&'static str, Cache); 3] {
    [
        ("the stack", stack(rules.clone())),
        ("layers", layers(rules.clone())),
        ("without Coalesce", uncoalesced(rules)),
    ]
}

fn stack(rules: Rules) -> Cache {
    let cache = ReadThroughLayer::builder(small_store())
        .rules(rules)
        .lookup(|lookup| lookup.request_directives(true));
    let layer = cache.build().unwrap();
    Box::new(move |origin| boxed(layer.layer(origin)))
}

fn layers(rules: Rules) -> Cache {
    let store = small_store();
    let layers = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()).request_directives(true))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(CoalesceLayer::new())
        .layer(FillLayer::new(store).rules(rules));
    Box::new(move |origin| boxed(layers.service(origin)))
}

fn uncoalesced(rules: Rules) -> Cache {
    let store = small_store();
    let layers = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()).request_directives(true))
        .layer(StaleIfErrorLayer::new(store.clone()))
        .layer(FillLayer::new(store).rules(rules));
    Box::new(move |origin| boxed(layers.service(origin)))
}
