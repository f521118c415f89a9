use http::{
    request::Parts,
    uri::{Scheme, Uri},
};

use super::{
    CacheKey, KeyBuffer, KeyExtractor, Unkeyed,
    normal::{self, Authority},
    overrides::push_overrides,
};
use crate::build_error::BuildError;

/// The default key: scheme, authority, path and query, the target URI of RFC 9110 §7.1 as the client wrote
/// it.
///
/// * The authority is the one of the URI (HTTP/2, or HTTP/1 in absolute form), else the
///   `Host` field, in lower case and without the default port of the scheme (RFC 9110 §4.2.3). A
///   request with none, with several or with an invalid one has no key; nor has one whose URI and `Host`
///   disagree, since only the service knows which of them it uses.
/// * The scheme is the one of the URI, else `http`: HTTP/1 servers cannot see it. With
///   [`scheme`](Self::scheme) a server behind TLS shares keys between HTTP/1 and HTTP/2.
/// * The `Host` of a forwarded request, and its URI if that is absolute, have this form, so that
///   the shared response does not show how one client wrote them.
/// * Path and query are taken byte for byte: `/a`, `/a/`, `/%61` and `/a?` are four keys.
/// * A field that overrides the target, such as `X-Forwarded-Host`, `Forwarded` or `X-Forwarded-Proto`, is in
///   the key of a request that has it: an application may build its links from it. Addresses in `Forwarded`
///   are left out. A purge by URL reaches the entries with and without these fields.
/// * Inside `axum::Router::nest`, which cuts off a prefix of the URI, the key also holds the URI
///   that the client sent (feature `axum`, on by default), so that nested routers can
///   share a store. This is the `nest` of axum 0.8: with another version the layer belongs outside
///   `nest`. Without the feature see [`whole_uri`](Self::whole_uri).
///
/// ```
/// use http::Request;
/// use tower_readthrough::{DefaultKey, KeyExtractor};
///
/// let key = |request: http::request::Builder| {
///     DefaultKey::new().key(&request.body(()).unwrap().into_parts().0)
/// };
/// let http1 = key(Request::get("/a?b=c").header("host", "Example.com"));
/// let http2 = key(Request::get("http://example.com/a?b=c"));
/// assert!(http1.is_some());
/// assert_eq!(http1, http2);
/// assert_eq!(key(Request::get("/a?b=c")), None);
/// ```
#[derive(Clone, Debug)]
pub struct DefaultKey {
    namespace: Box<str>,
    scheme: Option<Scheme>,
    /// Whether the URI is stated not to be cut.
    is_whole: bool,
    /// The beginning of most keys: the namespace, and this scheme or else `http`.
    start: CacheKey,
}

impl Default for DefaultKey {
    fn default() -> Self {
        Self {
            namespace: Box::default(),
            scheme: None,
            is_whole: false,
            start: CacheKey::from_parts(["", "http"]),
        }
    }
}

impl DefaultKey {
    /// The default key, in no namespace.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts every key into a namespace of its own.
    ///
    /// Layers in front of different services need different namespaces to share one store,
    /// unless their requests differ by host or path. Default: the empty one.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<Box<str>>) -> Self {
        self.namespace = namespace.into();
        self.restarted()
    }

    /// The scheme of all requests, whatever their URIs have. Default: that of the URI, or `http`.
    #[must_use]
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self.restarted()
    }

    /// States that no router above the cache cuts off a part of the path, so that the URI of a request is the
    /// one that the client sent.
    ///
    /// Required without the feature `axum`, where `axum::Router::nest` is not recognised:
    /// [`ReadThroughBuilder::build`](crate::ReadThroughBuilder::build) refuses the key otherwise. No effect
    /// with the feature.
    #[must_use]
    pub fn whole_uri(mut self) -> Self {
        self.is_whole = true;
        self
    }

    fn restarted(mut self) -> Self {
        let scheme = self.scheme.as_ref().map_or("http", Scheme::as_str);
        self.start = CacheKey::from_parts([&*self.namespace, scheme]);
        self
    }

    /// Writes the part of the key that is from the target URI.
    #[inline]
    pub(super) fn write_target(&self, head: &Parts, key: &mut KeyBuffer) -> Result<(), Unkeyed> {
        let target = normal::original_uri(head);
        let authority = Authority::of_request(target, &head.headers, self.scheme.as_ref())?;
        self.write_target_at(authority, head, key);
        Ok(())
    }

    /// Like [`write_target`](Self::write_target), with a known authority.
    #[inline]
    pub(super) fn write_target_at(&self, authority: Authority<'_>, head: &Parts, key: &mut KeyBuffer) {
        let target = normal::original_uri(head);
        self.begin(target, authority, key);
        let asked = normal::path_and_query(target);
        match asked.starts_with('/') {
            true => key.push(asked),
            false => key.push(&*normal::rooted(asked)),
        }
        if !std::ptr::eq(target, &head.uri) && head.uri.path_and_query() != target.path_and_query() {
            key.push(normal::path_and_query(&head.uri));
        }
    }

    /// Writes the beginning of every key: namespace, scheme and authority.
    #[inline]
    pub(super) fn begin(&self, target: &Uri, authority: Authority<'_>, key: &mut KeyBuffer) {
        match target.scheme() {
            Some(scheme) if self.scheme.is_none() && *scheme != Scheme::HTTP => {
                key.push(self.namespace.as_bytes());
                key.push(scheme.as_str());
            }
            _ => key.extend(&self.start),
        }
        key.push_lower_case(authority.as_bytes());
    }
}

impl KeyExtractor for DefaultKey {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        let mut key = KeyBuffer::new();
        self.write_key(head, &mut key).ok().map(|()| key.to_key())
    }

    #[inline]
    fn write_key(&self, head: &Parts, key: &mut KeyBuffer) -> Result<(), Unkeyed> {
        self.write_target(head, key)?;
        push_overrides(&head.headers, key);
        Ok(())
    }

    fn assumed_scheme(&self) -> Option<&Scheme> {
        self.scheme.as_ref()
    }

    fn check(&self) -> Result<(), BuildError> {
        let is_known = cfg!(feature = "axum") || self.is_whole;
        is_known.then_some(()).ok_or(BuildError::CutUri)
    }

    fn normalises(&self) -> bool {
        false
    }

    fn prepare(&self, head: &mut Parts) {
        normal::fold(head, self.scheme.as_ref(), None);
    }
}

#[cfg(test)]
impl DefaultKey {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::option;
        let namespace = if self.namespace.is_empty() { "empty" } else { "some" };
        let scheme = option(self.scheme.as_ref(), ToString::to_string);
        vec![("DefaultKey::namespace", namespace.to_owned()), ("DefaultKey::scheme", scheme)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    fn key(request: http::request::Builder) -> Option<CacheKey> {
        DefaultKey::new().key(&request.body(()).unwrap().into_parts().0)
    }

    fn at(uri: &str) -> http::request::Builder {
        Request::get(uri)
    }

    #[test]
    fn the_parts_of_another_extractor_stay() {
        for uri in ["http://h/p", "https://h/p", "/p"] {
            let head = at(uri).header("host", "h").body(()).unwrap().into_parts().0;
            let keys = ["one", "two"].map(|tenant| {
                let mut key = KeyBuffer::new();
                key.push(tenant);
                assert_eq!(DefaultKey::new().write_key(&head, &mut key), Ok(()));
                key.to_key()
            });
            assert_ne!(keys[0], keys[1], "{uri}");
        }
    }

    #[test]
    fn http1_and_http2_share_a_key() {
        let expected = key(at("http://host:8080/p?q"));
        assert!(expected.is_some());
        assert_eq!(key(at("/p?q").header("host", "HOST:8080")), expected);
        assert_eq!(key(at("http://host:8080/p?q").header("host", "host:8080")), expected);
        assert_eq!(key(at("http://host:80")), key(at("/").header("host", "host")));
    }

    #[test]
    fn requests_with_different_responses_have_different_keys() {
        let targets = [
            "http://a/",
            "https://a/",
            "http://b/",
            "http://a:81/",
            "http://a/x",
            "http://a/x/",
            "http://a/x?",
            "http://a/x?y",
            "http://a//x",
            "http://a/%78",
            "http://a/./x",
            "http://a/x?y&",
        ];
        let keys: std::collections::HashSet<_> = targets.iter().map(|uri| key(at(uri)).unwrap()).collect();
        assert_eq!(keys.len(), targets.len());
    }

    #[test]
    fn unusable_authorities_give_no_key() {
        assert_eq!(key(at("/")), None);
        for host in ["", ":80", "a b", "user@host", "a/b", "a?b", "h\u{e9}", "a\"b"] {
            let value = http::HeaderValue::from_bytes(host.as_bytes()).unwrap();
            assert_eq!(key(at("/").header("host", value)), None, "{host:?}");
        }
        assert_eq!(key(at("/").header("host", "a").header("host", "a")), None);
        assert_eq!(key(at("http://a/").header("host", "b")), None);
        assert!(key(at("/").header("host", "[::1]:3000")).is_some());
    }

    #[test]
    fn a_namespace_and_a_scheme_change_the_key() {
        let (head, ()) = at("http://h/").body(()).unwrap().into_parts();
        let plain = DefaultKey::new().key(&head);
        assert_ne!(DefaultKey::new().namespace("n").key(&head), plain);
        assert_ne!(DefaultKey::new().scheme(Scheme::HTTPS).key(&head), plain);
        assert_eq!(DefaultKey::new().scheme(Scheme::HTTP).key(&head), plain);
        let both = Some(CacheKey::from_parts(["n", "https", "h", "/"]));
        let (before, after) = (DefaultKey::new().namespace("n"), DefaultKey::new().scheme(Scheme::HTTPS));
        assert_eq!(before.clone().scheme(Scheme::HTTPS).key(&head), both);
        assert_eq!(after.namespace("n").key(&head), both);
        let (https, ()) = at("https://h/").body(()).unwrap().into_parts();
        assert_eq!(before.key(&https), both);
        assert_eq!(
            before.scheme(Scheme::HTTP).key(&https),
            Some(CacheKey::from_parts(["n", "http", "h", "/"]))
        );
    }

    #[test]
    fn a_path_that_may_be_cut_is_refused_unless_it_is_known_or_stated_to_be_whole() {
        let built = |key: DefaultKey| {
            let store = crate::MemoryStore::with_capacity_bytes(1 << 20);
            crate::ReadThroughLayer::builder(store).key(key).build().map(drop)
        };
        let rules = || crate::KeyRules::builder();
        match cfg!(feature = "axum") {
            true => {
                assert_eq!(built(DefaultKey::new()), Ok(()));
                assert!(rules().build().is_ok());
            }
            false => {
                assert_eq!(built(DefaultKey::new()), Err(BuildError::CutUri));
                let error = rules().build().unwrap_err();
                assert!(error.to_string().contains("`whole_uri`"), "{error}");
            }
        }
        assert_eq!(built(DefaultKey::new().whole_uri()), Ok(()));
        assert!(rules().whole_uri().build().is_ok());
    }

    #[cfg(feature = "axum")]
    #[test]
    fn a_nested_router_is_keyed_by_the_uri_of_the_client() {
        let nested_at = |original: &'static str, inner: &str| {
            let (mut head, ()) = at(inner).header("host", "h").body(()).unwrap().into_parts();
            head.extensions.insert(axum::extract::OriginalUri(Uri::from_static(original)));
            DefaultKey::new().key(&head)
        };
        let nested = |original| nested_at(original, "/x");
        assert_ne!(nested_at("/a/x", "/x"), nested_at("/a/x", "/y"), "rewritten on the way");
        assert!(nested("/a/x").is_some());
        assert_ne!(nested("/a/x"), nested("/b/x"));
        assert_ne!(nested("/a/x"), key(at("/x").header("host", "h")));
    }

    proptest! {
        #[test]
        fn any_host_and_path_are_taken_without_panic(host in proptest::collection::vec(any::<u8>(), 0..64), path in "/[!-~]{0,40}") {
            let mut request = Request::get("/");
            if let Ok(uri) = path.parse::<Uri>() {
                request = request.uri(uri);
            }
            if let Ok(value) = http::HeaderValue::from_bytes(&host) {
                request = request.header("host", value);
            }
            if let Ok(request) = request.body(()) {
                let _ = DefaultKey::new().key(&request.into_parts().0);
            }
        }
    }
}
