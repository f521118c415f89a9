//! What no cache can be faster than.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, header};
use http_body_util::Full;
use tower::Service;

use super::{Config, Kind, Visitor, meta};
use crate::origin::{OriginHandle, Template};

/// The limit of any cache that returns an `http::Response`: HeaderMap clone + Bytes clone.
struct FloorService<B>(Arc<Template>, PhantomData<fn() -> B>);

impl<B> FloorService<B> {
    fn new(template: Template) -> Self {
        Self(Arc::new(template), PhantomData)
    }
}

impl<B> Clone for FloorService<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<B: From<Bytes>> Service<Request<Body>> for FloorService<B> {
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Ready<Result<Response<B>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(self.0.response()))
    }
}

/// What the measurement itself costs: an empty response without fields.
#[derive(Clone)]
struct Noop;

impl Service<Request<Body>> for Noop {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Full::default())))
    }
}

/// The same response with every value a static string: no counters to touch.
fn without_counters(origin: &OriginHandle) -> Template {
    let mut template = origin.template().clone();
    for value in template.headers.values_mut() {
        let text = value.to_str().expect("ASCII").to_owned();
        *value = HeaderValue::from_static(Box::leak(text.into_boxed_str()));
    }
    template
}

/// The same response with what a cache has to add to it (RFC 9111 §5.1, RFC 9211).
fn with_cache_fields(origin: &OriginHandle) -> Template {
    let mut template = origin.template().clone();
    template.headers.insert(header::AGE, HeaderValue::from_static("0"));
    let name = HeaderName::from_static("cache-status");
    template.headers.insert(name, HeaderValue::from_static("tower-readthrough;hit"));
    // A clone has no room to spare, and neither has what a cache keeps.
    template.headers = template.headers.clone();
    template
}

pub(super) fn visit<V: Visitor>(visitor: &mut V) {
    visitor.visit(meta("noop", Kind::Limit), |_: &Config, _: &OriginHandle| Noop);
    // The service that every candidate wraps, with nothing round it.
    visitor.visit(meta("bare-origin", Kind::Limit), |_: &Config, origin: &OriginHandle| {
        origin.service::<Full<Bytes>>()
    });
    visitor.visit(meta("floor-service", Kind::Limit), |_: &Config, origin: &OriginHandle| {
        FloorService::<Full<Bytes>>::new(origin.template().clone())
    });
    visitor.visit(meta("floor-service-axum", Kind::Limit), |_: &Config, origin: &OriginHandle| {
        FloorService::<Body>::new(origin.template().clone())
    });
    visitor.visit(meta("floor-service-cached", Kind::Limit), |_: &Config, origin: &OriginHandle| {
        FloorService::<Full<Bytes>>::new(with_cache_fields(origin))
    });
    visitor.visit(meta("floor-service-static", Kind::Limit), |_: &Config, origin: &OriginHandle| {
        FloorService::<Full<Bytes>>::new(without_counters(origin))
    });
}
