use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use http_body::Body as HttpBody;
use tower_layer::Layer;
use tower_service::Service;

use crate::{http::rules, key, layers::derived_key};

/// Puts the key of a request into its extensions, for the layers below.
///
/// Only needed where several layers without a [`LookupLayer`](crate::LookupLayer) share a key, which it
/// derives itself. A [`CoalesceLayer`](crate::CoalesceLayer) or a
/// [`StaleIfErrorLayer`](crate::StaleIfErrorLayer) alone does so too.
///
/// **A [`LookupLayer`](crate::LookupLayer) below needs the same extractor**: what has no key here, by a rule
/// that bypasses for example, has the key there that its own extractor says, which is by default the URI.
///
/// ```
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_readthrough::{CacheKey, KeyLayer};
///
/// # futures_util::future::FutureExt::now_or_never(async {
/// let service = KeyLayer::default().layer(service_fn(async |request: http::Request<String>| {
///     Ok::<_, std::convert::Infallible>(request.extensions().get::<CacheKey>().is_some())
/// }));
/// let request = http::Request::get("http://example.com/").body(String::new()).unwrap();
/// assert!(service.oneshot(request).await.unwrap());
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct KeyLayer<K = key::DefaultKey> {
    extractor: Arc<K>,
    rules: rules::RequestRules,
}

impl<K: key::KeyExtractor> KeyLayer<K> {
    /// Derives keys with this extractor.
    pub fn new(extractor: K) -> Self {
        Self { extractor: Arc::new(extractor), rules: rules::RequestRules::default() }
    }

    /// Which [cookies](crate::Rules::cookies) are in the key, and what is a
    /// [credential](crate::Rules::credentials): the same rules as those of the layer below. All other rules are
    /// for that layer alone. Default: [`Rules::new`](crate::Rules::new).
    #[must_use]
    pub fn rules(mut self, rules: rules::Rules) -> Self {
        self.rules = rules.request;
        self
    }
}

impl Default for KeyLayer {
    fn default() -> Self {
        Self::new(key::DefaultKey::new())
    }
}

impl<S, K> Layer<S> for KeyLayer<K> {
    type Service = Key<S, K>;

    fn layer(&self, inner: S) -> Self::Service {
        Key { inner, extractor: Arc::clone(&self.extractor), rules: self.rules.clone() }
    }
}

/// The service of [`KeyLayer`].
#[derive(Debug)]
pub struct Key<S, K = key::DefaultKey> {
    inner: S,
    extractor: Arc<K>,
    rules: rules::RequestRules,
}

impl<S: Clone, K> Clone for Key<S, K> {
    fn clone(&self) -> Self {
        let (extractor, rules) = (Arc::clone(&self.extractor), self.rules.clone());
        Self { inner: self.inner.clone(), extractor, rules }
    }
}

impl<S, K, B> Service<Request<B>> for Key<S, K>
where
    S: Service<Request<B>>,
    K: key::KeyExtractor,
    B: HttpBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        let (head, body, _) = derived_key::derive(&*self.extractor, &self.rules, request);
        self.inner.call(Request::from_parts(head, body))
    }
}
