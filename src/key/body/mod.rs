use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, request::Parts};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use self::read::{Body, read};
pub(super) use self::{
    graphql::Persisted,
    json::{Action, JsonShape, parse_pointer},
    reading::{Form, Reading},
};
use super::{
    KeyRules, KeyRulesBuilder, RuleError, method_field::is_in_body, read::ReadByRule, rules::BodyRule,
};
use crate::{http::framing::content_length, layers::future::BoxFuture, request_body::RequestBody};

mod graphql;
mod json;
mod read;
mod reading;

/// Puts keys that hold a digest of the body into the requests that a rule with a
/// [`body`](super::KeyRule::body) is for, and passes on all others at once; see
/// [`key`](crate::key#keys-from-bodies).
///
/// Made by [`KeyRulesBuilder::build_with_bodies`]. With the feature `serde` it can be
/// deserialised like [`KeyRules`].
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "KeyRulesBuilder"))]
#[must_use]
pub struct BodyKeyLayer {
    rules: KeyRules,
}

impl BodyKeyLayer {
    pub(crate) fn new(rules: KeyRules) -> Self {
        Self { rules }
    }

    /// All rules, for the layers below: [`ReadThroughBuilder::key`](crate::ReadThroughBuilder::key).
    pub fn rules(&self) -> KeyRules {
        self.rules.clone()
    }
}

impl TryFrom<KeyRulesBuilder> for BodyKeyLayer {
    type Error = RuleError;

    fn try_from(builder: KeyRulesBuilder) -> Result<Self, RuleError> {
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
/// It is ready when the service below is, which it keeps for the request while it reads a body.
#[derive(Clone, Debug)]
pub struct BodyKey<S> {
    inner: S,
    rules: KeyRules,
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
        let future = Box::pin(async move { inner.call(with_key(head, body, rule).await).await });
        BodyKeyFuture { kind: Kind::Read { future } }
    }
}

/// The request with its key, if its body is one for a key.
async fn with_key<B>(mut head: Parts, body: B, rule: BodyRule) -> Request<RequestBody<B>>
where
    B: HttpBody<Data = Bytes> + 'static,
{
    let reading = rule.reading.as_deref();
    // Where the body has to say that it is a read, those that are not looked into are not known to be one.
    let is_any_read = reading.is_none_or(|reading| reading.graphql.is_none());
    let without_key = |head: &mut Parts| {
        is_any_read.then(|| head.extensions.insert(ReadByRule::WITHOUT_KEY));
    };
    let Some(place) = rule.place.filter(|_| !is_declared_beyond(&head, rule.max_bytes)) else {
        without_key(&mut head);
        return Request::from_parts(head, RequestBody::new(body));
    };
    let is_read = |head: &Parts, bytes: &Bytes| reading.is_none_or(|reading| reading.is_read(head, bytes));
    let body = match read(body, rule.max_bytes).await {
        // Frameworks take it for another method than its own, or it may be a mutation.
        Body::Whole(bytes) if is_in_body(&bytes) || !is_read(&head, &bytes) => RequestBody::from(bytes),
        Body::Whole(bytes) if is_as_declared(&head, &bytes) => {
            let form = reading.map_or_else(|| Form::of_bytes(&bytes), |reading| reading.form(&head, &bytes));
            place.give_key(&mut head, &form);
            form.tell_length(&mut head.headers);
            head.extensions.insert(ReadByRule::with_content::<B>(form.sent.clone()));
            RequestBody::from(form.sent)
        }
        Body::Whole(bytes) => {
            without_key(&mut head);
            RequestBody::from(bytes)
        }
        Body::Begun(begun) => {
            without_key(&mut head);
            RequestBody::begun(begun)
        }
    };
    Request::from_parts(head, body)
}

fn is_declared_beyond(head: &Parts, max_bytes: usize) -> bool {
    content_length(&head.headers).is_ok_and(|length| length.is_some_and(|length| length > max_bytes as u64))
}

/// Whether the body has the length that its head declares. A shorter one has been cut off.
fn is_as_declared(head: &Parts, body: &Bytes) -> bool {
    content_length(&head.headers).is_ok_and(|length| length.is_none_or(|length| length == body.len() as u64))
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
