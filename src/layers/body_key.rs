//! The layer that keys requests by their body.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{key, layers::service::BoxFuture, request_body::RequestBody};

/// Keys the requests that a rule with a [`body`](crate::KeyRule::body) is for by a digest of their body, and
/// passes on all others at once; see [`key`](crate::key#keys-from-bodies).
///
/// Built by [`build_with_bodies`](crate::KeyRulesBuilder::build_with_bodies). With the feature `serde` it can be deserialised like
/// [`KeyRules`](crate::KeyRules).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "key::KeyRulesBuilder"))]
#[must_use]
pub struct BodyKeyLayer {
    rules: key::KeyRules,
}

impl key::KeyRulesBuilder {
    /// As [`build`](Self::build), with rules that have a [`body`](crate::KeyRule::body).
    ///
    /// The layer goes directly in front of the cache, which gets the same [rules](BodyKeyLayer::rules).
    /// [`build`](Self::build) refuses such rules, so that the layer cannot be forgotten.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with_bodies(self) -> Result<BodyKeyLayer, key::RuleError> {
        self.compile().map(BodyKeyLayer::new)
    }
}

impl BodyKeyLayer {
    pub(crate) fn new(rules: key::KeyRules) -> Self {
        Self { rules }
    }

    /// All rules, for the layers below: [`ReadThroughBuilder::key`](crate::ReadThroughBuilder::key).
    pub fn rules(&self) -> key::KeyRules {
        self.rules.clone()
    }
}

impl TryFrom<key::KeyRulesBuilder> for BodyKeyLayer {
    type Error = key::RuleError;

    fn try_from(builder: key::KeyRulesBuilder) -> Result<Self, key::RuleError> {
        builder.build_with_bodies()
    }
}

impl<S> Layer<S> for BodyKeyLayer {
    type Service = BodyKey<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BodyKey { inner, rules: self.rules() }
    }
}

/// The service of [`BodyKeyLayer`].
///
/// Ready when the inner service is, which it reserves for the request while it reads a body.
#[derive(Clone, Debug)]
pub struct BodyKey<S> {
    inner: S,
    rules: key::KeyRules,
}

impl<S, B> Service<Request<B>> for BodyKey<S>
where
    S: Service<Request<RequestBody<B>>> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BodyKeyFuture<S::Future, S::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        let Some(rule) = self.rules.body_rule(&head, !body.is_end_stream()) else {
            let future = self.inner.call(Request::from_parts(head, RequestBody::new(body)));
            return BodyKeyFuture { kind: Kind::Pass { future } };
        };
        // The clone was not made ready: it is left behind for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let future = Box::pin(async move { inner.call(key::with_body_key(head, body, rule).await).await });
        BodyKeyFuture { kind: Kind::Read { future } }
    }
}

pin_project! {
    /// The response future of [`BodyKey`].
    pub struct BodyKeyFuture<F, T, E> {
        #[pin]
        kind: Kind<F, T, E>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, T, E> {
        Pass { #[pin] future: F },
        Read { future: BoxFuture<Result<T, E>> },
    }
}

impl<F: Future<Output = Result<T, E>>, T, E> Future for BodyKeyFuture<F, T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, E>> {
        match self.project().kind.project() {
            KindProj::Pass { future } => future.poll(cx),
            KindProj::Read { future } => future.as_mut().poll(cx),
        }
    }
}

impl<F, T, E> fmt::Debug for BodyKeyFuture<F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyKeyFuture").finish_non_exhaustive()
    }
}
