use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, request::Parts};
use http_body::Body as HttpBody;
use smallvec::SmallVec;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    exchange::CacheRequest,
    http::{credentials, request_fields::RequestFields, rules},
    key,
};

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

    /// Which [cookies](Rules::cookies) are in the key, and what is a [credential](Rules::credentials): the
    /// same rules as those of the layer below. The others of them are for that layer alone. Default:
    /// [`Rules::new`](crate::Rules::new).
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
        let (head, body, _) = derive(&*self.extractor, &self.rules, request);
        self.inner.call(Request::from_parts(head, body))
    }
}

/// A layer above has looked for a key, and there is none: in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithoutKey;

/// Puts the key of a request into its extensions, or that it has none. Also returns why, if responses to
/// such requests say it.
fn derive<B: HttpBody>(
    extractor: &dyn key::KeyExtractor,
    rules: &rules::RequestRules,
    request: Request<B>,
) -> (Parts, B, Option<key::Unkeyed>) {
    let edition = extractor.edition();
    let extractor = edition.as_deref().unwrap_or(extractor);
    let is_for_cache = key::is_for_cache(&request);
    let why = if is_for_cache { None } else { key::Unkeyed::of(&request) };
    let (mut head, body) = request.into_parts();
    // What a cache above this one has asked is not what is asked here.
    head.extensions.remove::<CacheRequest>();
    if is_for_cache {
        extractor.note(&mut head);
    }
    // Before what follows changes the URI.
    match identity_of(extractor, &head) {
        Some(identity) => drop(head.extensions.insert(identity)),
        None => drop(head.extensions.remove::<key::Identity>()),
    }
    let mut buffer = key::KeyBuffer::new();
    let found = match is_for_cache {
        true => {
            key::find(extractor, rules, &head, &RequestFields::of(&head.headers), &mut buffer).map_err(Some)
        }
        false => Err(why),
    };
    match found {
        Ok(()) => {
            key::normalise(extractor, rules, &mut head, &mut buffer);
            key::prepare(extractor, &buffer, &mut head);
            head.extensions.insert(buffer.to_key());
            note_facts(rules, &mut head, buffer.keyed());
            (head, body, None)
        }
        Err(why) => {
            head.extensions.remove::<key::CacheKey>();
            head.extensions.remove::<key::KeyFacts>();
            head.extensions.insert(WithoutKey);
            (head, body, why)
        }
    }
}

/// What the target of a request names, if it is not its URI alone.
fn identity_of(extractor: &dyn key::KeyExtractor, head: &Parts) -> Option<key::Identity> {
    let (_, host) = key::Target::of(head, key::Origins::default()).parts();
    let mut named = SmallVec::new();
    match key::is_get_or_head(&head.method) || key::is_read_by_rule(&head.extensions) {
        true => named.push(extractor.identity(&head.uri, host, &head.extensions)),
        false => {
            let mut each = |identity| named.push(identity);
            extractor.identities(&head.uri, host, &head.extensions, &mut each);
        }
    }
    named.iter().any(Option::is_some).then_some(key::Identity(named))
}

/// As [`derive`], by a layer that needs a key and may stand alone: not if a layer above has looked for one.
pub(crate) fn derive_alone<B: HttpBody>(
    extractor: &dyn key::KeyExtractor,
    rules: &rules::RequestRules,
    request: Request<B>,
) -> (Parts, B, Option<key::Unkeyed>) {
    let extensions = request.extensions();
    let is_known = extensions.get::<CacheRequest>().is_some()
        || extensions.get::<WithoutKey>().is_some()
        || extensions.get::<key::CacheKey>().is_some();
    // What never has a key costs nothing here.
    if is_known || !key::is_get_or_head(request.method()) {
        let (head, body) = request.into_parts();
        return (head, body, None);
    }
    derive(extractor, rules, request)
}

/// Notes for the layers below what the fields of the request do not say.
fn note_facts(rules: &rules::RequestRules, head: &mut Parts, keyed: &credentials::Keyed) {
    match keyed.is_nothing() && rules.credentials.is_default() {
        true => drop(head.extensions.remove::<key::KeyFacts>()),
        false => {
            let credentials = credentials::Credentials::of(&head.headers, &rules.credentials, keyed);
            head.extensions.insert(key::KeyFacts::new(keyed.clone(), credentials));
        }
    }
}
