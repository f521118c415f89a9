//! The target URI of a request (RFC 9110 §7.1), and other URIs of the same origin.

use std::{
    borrow::Cow,
    hash::{BuildHasher, Hasher},
};

use http::{Extensions, HeaderMap, HeaderValue, Request, Uri, header, request::Parts, uri::Scheme};
use smallvec::SmallVec;

use super::{
    CacheKey, Identity, KeyExtractor,
    uri::{Authority, SameHosts, is_normal, normal_form, original, path_and_query, rooted},
};
use crate::http::request_fields::first_line;

/// Few URIs have more than one rule.
pub(crate) type Hashes = SmallVec<[u64; 2]>;

/// The host and 32 segments.
const MAX_PREFIXES: usize = 33;

/// What a request names, whatever its key: what unsafe requests to it invalidate (RFC 9111 §4.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    uri: &'a Uri,
    host: Option<&'a HeaderValue>,
    origins: Origins<'a>,
}

/// What an extractor knows about the origins of all requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origins<'a> {
    /// The scheme of all requests, whatever their URIs have.
    scheme: Option<&'a Scheme>,
    hosts: Option<&'a SameHosts>,
}

impl<'a> Origins<'a> {
    pub(crate) fn of(extractor: &'a dyn KeyExtractor) -> Self {
        Self { scheme: extractor.assumed_scheme(), hosts: extractor.same_hosts() }
    }
}

impl<'a> Target<'a> {
    pub(crate) fn of(head: &'a Parts, origins: Origins<'a>) -> Self {
        Self::of_fields((&head.uri, &head.headers, &head.extensions), origins)
    }

    /// Of a request that is still in one piece.
    pub(crate) fn of_request<B>(request: &'a Request<B>, origins: Origins<'a>) -> Self {
        Self::of_fields((request.uri(), request.headers(), request.extensions()), origins)
    }

    fn of_fields(
        (uri, headers, extensions): (&'a Uri, &'a HeaderMap, &'a Extensions),
        origins: Origins<'a>,
    ) -> Self {
        let host = first_line(headers, &header::HOST).map(|(host, _)| host);
        Self::new(original(uri, extensions), host, origins)
    }

    /// Of a request for this URI with this `Host` field.
    pub(crate) fn new(uri: &'a Uri, host: Option<&'a HeaderValue>, origins: Origins<'a>) -> Self {
        Self { uri, host, origins }
    }

    /// Its URI and `Host`.
    pub(crate) fn parts(self) -> (&'a Uri, Option<&'a HeaderValue>) {
        (self.uri, self.host)
    }

    /// What it names as the target of a request with this URI, as routers left it, and these extensions: what
    /// the extractor says, or one above that gave the request its key. `None`: the URI itself.
    pub(crate) fn identity(
        self,
        extractor: &dyn KeyExtractor,
        (uri, extensions): (&Uri, &Extensions),
    ) -> Option<CacheKey> {
        match extensions.get::<Identity>() {
            Some(Identity(outer)) => outer.first().cloned().flatten(),
            None => extractor.identity(uri, self.host, extensions),
        }
    }

    /// A text from which [`parse_text`](Self::parse_text) makes a target with the same hashes. `None` if the
    /// host is not text.
    pub(crate) fn to_text(self) -> Option<String> {
        let mut text = self.origin_text()?;
        text.push_str(path_and_query(self.uri));
        Some(text)
    }

    /// The same without path and query.
    pub(crate) fn origin_text(self) -> Option<String> {
        let authority = self.authority();
        let host = str::from_utf8(authority.as_bytes()).ok()?.to_ascii_lowercase();
        // The scheme by which the default port was left out, so that no other port is when it is read.
        let scheme = self.origins.scheme.or_else(|| self.uri.scheme());
        let (scheme, colon) = scheme.map_or(("", ""), |scheme| (scheme.as_str(), ":"));
        Some(format!("{scheme}{colon}//{host}"))
    }

    /// The URI and the `Host` of a target.
    pub(crate) fn parse_text(text: &str) -> Option<(Uri, Option<HeaderValue>)> {
        let (scheme, rest) = text.split_once("//")?;
        if !scheme.is_empty() {
            return Some((text.parse().ok()?, None));
        }
        let (host, path) = rest.split_at(rest.find('/')?);
        Some((path.parse().ok()?, Some(host.parse().ok()?)))
    }

    /// The hashes of all that the target may name for any request: what a purge of it reaches.
    pub(crate) fn hashes_named(
        self,
        extractor: &dyn KeyExtractor,
        (uri, extensions): (&Uri, &Extensions),
        hasher: &impl BuildHasher,
    ) -> Hashes {
        let mut hashes = Hashes::new();
        match extensions.get::<Identity>() {
            Some(Identity(outer)) => {
                hashes.extend(outer.iter().map(|named| self.hash_of(named.clone(), hasher)));
            }
            None => extractor.identities(uri, self.host, extensions, &mut |named| {
                hashes.push(self.hash_of(named, hasher));
            }),
        }
        hashes
    }

    /// A number for what it names, the same for HTTP/1 and HTTP/2.
    pub(crate) fn hash_of(self, named: Option<CacheKey>, hasher: &impl BuildHasher) -> u64 {
        named.map_or_else(|| self.hash(hasher), |named| hasher.hash_one(named))
    }

    /// Its host in lower case, and the port unless it is the default one.
    pub(crate) fn host(&self) -> String {
        String::from_utf8_lossy(self.authority().as_bytes()).to_ascii_lowercase()
    }

    /// Its path in the normal form in which purges compare it.
    pub(crate) fn path(&self) -> Cow<'a, str> {
        normal_form(self.uri.path())
    }

    /// Hashes of the host, and of each prefix of whole segments of the path, the shortest first and up to 32
    /// segments long. A final slash does not count.
    pub(crate) fn path_hashes(
        &self,
        hasher: &impl BuildHasher<Hasher: Clone>,
    ) -> impl Iterator<Item = u64> + Clone {
        let path = self.uri.path();
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut host = hasher.build_hasher();
        host.write(b"path");
        self.write_authority(&mut host);
        // The first segment is empty: the host alone. Each hash includes the one before it.
        let is_normal = is_normal(path);
        segments(path).take(MAX_PREFIXES).scan(host.finish(), move |before, segment| {
            let segment = if is_normal { Cow::Borrowed(segment) } else { normal_form(segment) };
            let mut state = hasher.build_hasher();
            state.write_u64(*before);
            state.write(segment.as_bytes());
            *before = state.finish();
            Some(*before)
        })
    }

    /// Hashes of a group of this origin (RFC 9875 §2.1): one for purges without a scheme, and one for purges
    /// with it, where `?` is the unknown scheme of HTTP/1.
    pub(crate) fn group_hashes(&self, group: &str, hasher: &impl BuildHasher) -> [u64; 2] {
        ["*", self.uri.scheme_str().unwrap_or("?")].map(|scheme| self.group_hash(scheme, group, hasher))
    }

    /// The hashes of a group of this origin in all responses that a purge of it has to reach.
    pub(crate) fn groups_to_purge(&self, group: &str, hasher: &impl BuildHasher) -> Vec<u64> {
        let schemes = match self.uri.scheme_str() {
            Some(scheme) => vec![scheme, "?"],
            None => vec!["*"],
        };
        schemes.into_iter().map(|scheme| self.group_hash(scheme, group, hasher)).collect()
    }

    fn group_hash(&self, scheme: &str, group: &str, hasher: &impl BuildHasher) -> u64 {
        let mut state = hasher.build_hasher();
        state.write(b"group");
        state.write(scheme.as_bytes());
        state.write_u8(0);
        self.write_authority(&mut state);
        state.write(group.as_bytes());
        state.finish()
    }

    fn hash(&self, hasher: &impl BuildHasher) -> u64 {
        self.hash_with(path_and_query(self.uri), hasher)
    }

    /// The hashes of what a `Location` or `Content-Location` refers to. None for another origin, which this
    /// one cannot invalidate.
    pub(crate) fn hashes_of_reference(
        &self,
        reference: &str,
        extractor: &dyn KeyExtractor,
        hasher: &impl BuildHasher,
    ) -> Hashes {
        let mut hashes = Hashes::new();
        let Some(target) = self.resolve(reference) else { return hashes };
        let mut each = |named: Option<CacheKey>| {
            hashes.push(match named {
                Some(identity) => hasher.hash_one(identity),
                None => self.hash_with(&target, hasher),
            });
        };
        match self.at(&target) {
            Some(uri) => extractor.identities(&uri, self.host, &Extensions::new(), &mut each),
            // An invalid URI cannot have been requested; a hash of it does no harm.
            None => each(None),
        }
        hashes
    }

    /// The [text](Self::to_text) of what a reference is to, on the same origin.
    pub(crate) fn text_of_reference(&self, reference: &str) -> Option<String> {
        let uri = self.at(&self.resolve(reference)?)?;
        Target::new(&uri, self.host, self.origins).to_text()
    }

    /// The path and query of a reference to the same origin.
    fn resolve<'b>(&self, reference: &'b str) -> Option<Cow<'b, str>> {
        let reference = reference.split('#').next()?;
        if let Some((scheme, rest)) = reference.split_once("://")
            && !scheme.contains(['/', '?'])
        {
            return self.resolve_absolute(Some(scheme), rest);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return self.resolve_absolute(None, rest);
        }
        let base = self.uri.path();
        Some(match reference {
            absolute if absolute.starts_with('/') => Cow::Borrowed(absolute),
            query if query.starts_with('?') => Cow::Owned(format!("{base}{query}")),
            "" => Cow::Owned(path_and_query(self.uri).to_owned()),
            relative => Cow::Owned(resolve(base, relative)),
        })
    }

    fn resolve_absolute<'b>(&self, scheme: Option<&str>, rest: &'b str) -> Option<Cow<'b, str>> {
        let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        let own = self.scheme();
        // As in keys, requests over HTTP/1 count as `http`.
        let has_own_scheme = |scheme: &str| scheme.eq_ignore_ascii_case(own.map_or("http", Scheme::as_str));
        let other = Authority::new(authority.as_bytes(), own).among(self.origins.hosts);
        let is_same = scheme.is_none_or(has_own_scheme) && self.authority().is(other);
        let target = &rest[authority.len()..];
        is_same.then(|| match target.starts_with('/') {
            true => Cow::Borrowed(target),
            false => Cow::Owned(format!("/{target}")),
        })
    }

    /// A URI with this path and query of the same origin.
    fn at(&self, path_and_query: &str) -> Option<Uri> {
        let mut uri = self.uri.clone().into_parts();
        uri.path_and_query = Some(path_and_query.parse().ok()?);
        Uri::from_parts(uri).ok()
    }

    fn scheme(&self) -> Option<&Scheme> {
        self.origins.scheme.or(self.uri.scheme())
    }

    fn authority(&self) -> Authority<'_> {
        let authority = match (self.uri.authority(), self.host) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) => b"",
        };
        Authority::of_target(authority, self.uri, self.origins.scheme).among(self.origins.hosts)
    }

    fn hash_with(&self, path_and_query: &str, hasher: &impl BuildHasher) -> u64 {
        let mut state = hasher.build_hasher();
        self.write_authority(&mut state);
        state.write(normal_form(&rooted(path_and_query)).as_bytes());
        state.finish()
    }

    /// In lower case (RFC 9110 §4.2.3), and with its length, which ends it.
    fn write_authority(&self, state: &mut impl Hasher) {
        let mut text = SmallVec::<[u8; 64]>::from_slice(self.authority().as_bytes());
        text.make_ascii_lowercase();
        state.write(&text);
        state.write_usize(text.len());
    }
}

/// A relative path resolved against the path of the base (RFC 3986 §5.2.3, §5.2.4).
fn resolve(base: &str, relative: &str) -> String {
    let (path, query) = relative.split_at(relative.find('?').unwrap_or(relative.len()));
    let directory = base.rsplit_once('/').map_or("", |(directory, _)| directory);
    join_segments(directory.split('/').skip(1).chain(path.split('/')), true, false) + query
}

/// A path of these segments (RFC 3986 §5.2.4), with `.` and `..` resolved if `resolves_dots`, and without empty segments if
/// `merges_slashes`. It ends with a slash if the last segment is empty or resolved.
pub(super) fn join_segments<'s>(
    segments: impl Iterator<Item = &'s str>,
    resolves_dots: bool,
    merges_slashes: bool,
) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        let is_dots = resolves_dots && matches!(segment, "." | "..");
        ends_in_directory = segment.is_empty() || is_dots;
        match segment {
            ".." if is_dots => drop(kept.pop()),
            _ if is_dots => {}
            "" if merges_slashes || segments.peek().is_none() => {}
            segment => kept.push(segment),
        }
    }
    let mut path: String = kept.iter().flat_map(|segment| ["/", segment]).collect();
    if ends_in_directory || path.is_empty() {
        path.push('/');
    }
    path
}

/// The segments of a path. They are short, and a search for the next character in a text is made for long ones.
fn segments(path: &str) -> impl Iterator<Item = &str> + Clone {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.bytes().position(|byte| byte == b'/') {
            None => rest.take(),
            Some(at) => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
        }
    })
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
