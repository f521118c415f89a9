//! The default key, and the normal form of target URIs and hosts (RFC 9110 §4.2.3), in which spellings of one
//! resource are equal.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderValue, Uri, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};

use super::{CacheKey, KeyBuffer, KeyExtractor, Unkeyed};
use crate::{build_error::BuildError, http::request_fields::first_line, work::looked_at};

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
        let target = original_uri(head);
        let authority = Authority::of_request(target, &head.headers, self.scheme.as_ref())?;
        self.write_target_at(authority, head, key);
        Ok(())
    }

    /// Like [`write_target`](Self::write_target), with a known authority.
    #[inline]
    pub(super) fn write_target_at(&self, authority: Authority<'_>, head: &Parts, key: &mut KeyBuffer) {
        let target = original_uri(head);
        self.begin(target, authority, key);
        let asked = path_and_query(target);
        match asked.starts_with('/') {
            true => key.push(asked),
            false => key.push(&*rooted(asked)),
        }
        if !std::ptr::eq(target, &head.uri) && head.uri.path_and_query() != target.path_and_query() {
            key.push(path_and_query(&head.uri));
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
        key.push_overrides(&head.headers);
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
        fold(head, self.scheme.as_ref(), None);
    }
}

/// An authority in its normal form except for the case of letters: without an empty port or the default port
/// of its scheme.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Authority<'a> {
    text: &'a [u8],
    scheme: Option<&'a Scheme>,
}

impl<'a> Authority<'a> {
    /// Without a scheme it counts as that of an `http` URI, as requests over HTTP/1 do.
    #[inline(always)]
    pub(super) fn new(text: &'a [u8], scheme: Option<&'a Scheme>) -> Self {
        // An authority that ends in a letter, as nearly all do, has no port.
        let text = match text.last() {
            Some(b'0'..=b'9' | b':') => without_port(text, default_port(scheme)),
            _ => text,
        };
        Self { text, scheme }
    }

    /// Of a request for this URI, where all requests have `scheme`, if any. The default port of the URI's own
    /// scheme is removed as well.
    #[inline(always)]
    pub(super) fn of_target(text: &'a [u8], uri: &'a Uri, scheme: Option<&'a Scheme>) -> Self {
        match uri.scheme() {
            Some(own) if scheme.is_some_and(|scheme| scheme != own) => {
                Self::new(Self::new(text, Some(own)).text, scheme)
            }
            own => Self::new(text, scheme.or(own)),
        }
    }

    /// Of a request, which must have exactly one valid authority. All requests have `scheme`, if any.
    #[inline]
    pub(super) fn of_request(
        uri: &'a Uri,
        headers: &'a HeaderMap,
        scheme: Option<&'a Scheme>,
    ) -> Result<Self, Unkeyed> {
        let host = match first_line(headers, &header::HOST) {
            Some((_, true)) => return Err(Unkeyed::UnusableHost),
            Some((host, false)) => Some(host.as_bytes()),
            None => None,
        };
        let authority = match (uri.authority().map(|authority| authority.as_str().as_bytes()), host) {
            (Some(named), Some(host)) => {
                let [named, host] = [named, host].map(|text| Self::of_target(text, uri, scheme));
                named.is(host).then_some(named).ok_or(Unkeyed::UnusableHost)?
            }
            (Some(text), None) | (None, Some(text)) => Self::of_target(text, uri, scheme),
            (None, None) => return Err(Unkeyed::NoHost),
        };
        authority.is_valid().then_some(authority).ok_or(Unkeyed::UnusableHost)
    }

    /// With the first of the hosts that are the same as this one.
    #[inline]
    pub(super) fn among(self, hosts: Option<&'a SameHosts>) -> Self {
        match hosts.and_then(|hosts| hosts.first_of(self.text)) {
            Some(text) => Self { text, ..self },
            None => self,
        }
    }

    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.text
    }

    /// Whether both are equal without case.
    pub(super) fn is(self, other: Self) -> bool {
        self.text.eq_ignore_ascii_case(other.text)
    }

    /// The host without a final dot, and the port or the default one.
    pub(super) fn host_and_port(self) -> (&'a [u8], &'a [u8]) {
        let (host, port) = match self.text.iter().rposition(|byte| matches!(byte, b':' | b']')) {
            Some(at) if self.text[at] == b':' => (&self.text[..at], &self.text[at + 1..]),
            _ => (self.text, default_port(self.scheme)),
        };
        (host.strip_suffix(b".").unwrap_or(host), port)
    }

    /// Whether it has a host, no userinfo, and no character that would end a host (RFC 9110 §4.2).
    fn is_valid(self) -> bool {
        // Four bytes at a time and without a branch for each: this is on the path of every hit.
        let is_host = |byte: &u8| IS_HOST[usize::from(*byte)];
        let (chunks, rest) = self.text.as_chunks::<4>();
        let are_of_host = chunks
            .iter()
            .fold(true, |are, [a, b, c, d]| are & is_host(a) & is_host(b) & is_host(c) & is_host(d));
        let are_of_host = rest.iter().fold(are_of_host, |are, byte| are & is_host(byte));
        are_of_host && !matches!(self.text.first(), None | Some(b':'))
    }
}

fn without_port<'a>(text: &'a [u8], port: &[u8]) -> &'a [u8] {
    let without = text.strip_suffix(port).and_then(|rest| rest.strip_suffix(b":"));
    without.or_else(|| text.strip_suffix(b":")).unwrap_or(text)
}

#[inline]
fn default_port(scheme: Option<&Scheme>) -> &'static [u8] {
    match scheme {
        None => b"80",
        Some(scheme) if *scheme == Scheme::HTTP => b"80",
        Some(scheme) if *scheme == Scheme::HTTPS => b"443",
        Some(scheme) => match scheme.as_str() {
            "ws" => b"80",
            "wss" => b"443",
            _ => b"",
        },
    }
}

static IS_HOST: [bool; 256] = {
    let mut is_host = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        is_host[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'['
                    | b']'
            );
        byte += 1;
    }
    is_host
};

/// A path, or a path and a query, in normal form: exactly the octets that are not unreserved are encoded, in
/// upper case (RFC 3986 §6.2.2).
///
/// Purges and invalidation compare this form. Keys hold the path as written, since services may distinguish
/// the spellings.
pub(crate) fn normal_form(target: &str) -> Cow<'_, str> {
    looked_at(target.len());
    if is_normal(target) {
        return Cow::Borrowed(target);
    }
    let mut normal = String::with_capacity(target.len());
    let mut rest = target.as_bytes();
    while let [byte, after @ ..] = rest {
        let encoded = match (byte, after) {
            (b'%', [high, low, ..]) => octet(*high, *low),
            _ => None,
        };
        rest = if encoded.is_some() { &after[2..] } else { after };
        let octet = encoded.unwrap_or(*byte);
        match encoded.map_or_else(|| needs_encoding(octet), |octet| !is_unreserved(octet)) {
            true => normal.push_str(&format!("%{octet:02X}")),
            false => normal.push(char::from(octet)),
        }
    }
    Cow::Owned(normal)
}

/// Whether nothing in it is encoded or has to be.
pub(super) fn is_normal(target: &str) -> bool {
    target.bytes().all(|byte| IS_PLAIN[usize::from(byte)])
}

/// A path and a query with a non-empty path (RFC 9110 §4.2.3): `http://h?q` is `http://h/?q`.
pub(super) fn rooted(target: &str) -> Cow<'_, str> {
    match target.starts_with('?') {
        true => Cow::Owned(format!("/{target}")),
        false => Cow::Borrowed(target),
    }
}

/// The URI with its path and query in normal form, unless they already are.
pub(super) fn normal_uri(uri: &Uri) -> Option<Uri> {
    let Cow::Owned(normal) = normal_form(path_and_query(uri)) else { return None };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::from_maybe_shared(Bytes::from(normal)).ok();
    Uri::from_parts(parts).ok()
}

/// Whether a URI cannot have this character (RFC 3986 §2).
fn needs_encoding(byte: u8) -> bool {
    byte != b'%' && !IS_PLAIN[usize::from(byte)]
}

/// A table: with a search for each character a POST takes 7,459 instructions instead of 6,219
/// (`peers instr post`).
static IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let is_other = matches!(byte, b'"' | b'%' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
        is_plain[byte as usize] = byte.is_ascii_graphic() && !is_other;
        byte += 1;
    }
    is_plain
};

pub(super) fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
}

/// The octet with these two hexadecimal digits.
pub(super) fn octet(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Rewrites the target of a request into the form that its key has, so that a shared response does not show
/// how one client wrote it: the host in lower case and without the default port of the scheme, or the first
/// of its group of same hosts, and the scheme of all requests, if any. The path and the query stay.
pub(super) fn fold(head: &mut Parts, scheme: Option<&Scheme>, hosts: Option<&SameHosts>) {
    let host = head.headers.get(header::HOST);
    if let Some(folded) = host.and_then(|host| folded(host.as_bytes(), original_uri(head), scheme, hosts))
        && let Ok(folded) = HeaderValue::from_maybe_shared(Bytes::from(folded))
        && let Some(host) = head.headers.get_mut(header::HOST)
    {
        *host = folded;
    }
    if let Some(uri) = folded_uri(&head.uri, scheme, hosts) {
        head.uri = uri;
    }
    #[cfg(feature = "axum")]
    if let Some(original) = head.extensions.get_mut::<axum::extract::OriginalUri>()
        && let Some(uri) = folded_uri(&original.0, scheme, hosts)
    {
        original.0 = uri;
    }
}

/// `None` if it already has that form.
fn folded(
    authority: &[u8],
    uri: &Uri,
    scheme: Option<&Scheme>,
    hosts: Option<&SameHosts>,
) -> Option<Vec<u8>> {
    let normal = Authority::of_target(authority, uri, scheme).among(hosts).text;
    let is_folded = normal == authority && !normal.iter().any(u8::is_ascii_uppercase);
    (!is_folded).then(|| normal.to_ascii_lowercase())
}

fn folded_uri(uri: &Uri, scheme: Option<&Scheme>, hosts: Option<&SameHosts>) -> Option<Uri> {
    let authority = uri.authority()?;
    let scheme = scheme.filter(|_| uri.scheme().is_some());
    let folded = folded(authority.as_str().as_bytes(), uri, scheme, hosts);
    let is_other_scheme = scheme.is_some_and(|scheme| uri.scheme() != Some(scheme));
    if folded.is_none() && !is_other_scheme {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    if let Some(folded) = folded {
        parts.authority = Some(http::uri::Authority::from_maybe_shared(Bytes::from(folded)).ok()?);
    }
    parts.scheme = scheme.cloned().or(parts.scheme);
    Uri::from_parts(parts).ok()
}

/// The URI before axum's routers cut off a prefix.
#[inline]
pub(crate) fn original_uri(head: &Parts) -> &Uri {
    original(&head.uri, &head.extensions)
}

#[inline]
#[cfg_attr(not(feature = "axum"), allow(unused_variables, reason = "only routers of axum cut off a prefix"))]
pub(crate) fn original<'a>(uri: &'a Uri, extensions: &'a Extensions) -> &'a Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    uri
}

/// The path and query. An empty query differs from an absent one.
pub(super) fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// Groups of hosts with the same resources, which share entries, purges and invalidations. Built by
/// [`KeyRulesBuilder::same_hosts`](crate::KeyRulesBuilder::same_hosts).
#[derive(Clone, Debug)]
pub struct SameHosts {
    /// In lower case and sorted, with the indices of their groups.
    names: Box<[(Box<[u8]>, usize)]>,
    /// The first host of each group, which is in keys in place of all others.
    firsts: Box<[Box<[u8]>]>,
}

impl SameHosts {
    /// Of groups without repeated hosts. The default ports are those of this scheme.
    pub(super) fn new(groups: &[Vec<String>], scheme: Option<&Scheme>) -> Self {
        let normal = |host: &str| -> Box<[u8]> {
            Authority::new(host.as_bytes(), scheme).as_bytes().to_ascii_lowercase().into()
        };
        let named = |(at, group): (usize, &Vec<String>)| -> Vec<_> {
            group.iter().map(|host| (normal(host), at)).collect()
        };
        let mut names: Vec<_> = groups.iter().enumerate().flat_map(named).collect();
        names.sort();
        let firsts = groups.iter().filter_map(|group| Some(normal(group.first()?))).collect();
        Self { names: names.into(), firsts }
    }

    /// The first host of the group of `host`, if it is in any. Hosts include their ports, unless these are
    /// the default ones.
    pub(super) fn first_of(&self, host: &[u8]) -> Option<&[u8]> {
        let compared =
            |(own, _): &(Box<[u8]>, usize)| own.iter().copied().cmp(host.iter().map(u8::to_ascii_lowercase));
        let at = self.names.binary_search_by(compared).ok()?;
        self.firsts.get(self.names[at].1).map(AsRef::as_ref)
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
#[path = "uri_tests.rs"]
mod tests;
