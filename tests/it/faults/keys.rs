//! Keys: targets, authorities, and configuration that cannot have an effect.

mod configuration;
mod reasons;
mod rules;
mod targets;

use bytes::Bytes;
use http::Request;
use tower::{Service, util::BoxCloneService};

use crate::support::{Body, Failure, Reply, collect};

pub(crate) type Boxed = BoxCloneService<Request<Body>, Reply, Failure>;

/// A service whose bodies are read to their end.
pub(crate) fn boxed<S, B>(service: S) -> Boxed
where
    S: Service<Request<Body>, Response = http::Response<B>, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send,
{
    BoxCloneService::new(tower::service_fn(move |request| {
        let call = tower::ServiceExt::oneshot(service.clone(), request);
        async move { Ok(collect(call.await?).await) }
    }))
}

pub(crate) fn ask(service: &Boxed, request: Request<Body>) -> impl Future<Output = Reply> + Send + use<> {
    let call = tower::ServiceExt::oneshot(service.clone(), request);
    async move { call.await.unwrap() }
}
