//! The normal form of target URIs and hosts (RFC 9110 §4.2.3), in which spellings of one resource are equal.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderValue, Uri, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};

use super::Unkeyed;
use crate::{http::request_fields::first_line, work::looked_at};

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
pub(super) fn original<'a>(uri: &'a Uri, extensions: &'a Extensions) -> &'a Uri {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn default_and_empty_ports_do_not_count() {
        fn normal<'a>(text: &'a str, scheme: Option<&'a Scheme>) -> &'a [u8] {
            Authority::new(text.as_bytes(), scheme).text
        }
        let https = Some(Scheme::HTTPS);
        for (text, http, secure) in [
            ("h", "h", "h"),
            ("h:", "h", "h"),
            ("h:80", "h", "h:80"),
            ("h:443", "h:443", "h"),
            ("h:8080", "h:8080", "h:8080"),
            ("[::1]:80", "[::1]", "[::1]:80"),
            ("[::80]", "[::80]", "[::80]"),
        ] {
            assert_eq!(normal(text, None), http.as_bytes(), "{text}");
            assert_eq!(normal(text, https.as_ref()), secure.as_bytes(), "{text}");
        }
    }

    #[test]
    fn hosts_and_ports_are_split() {
        for (text, host, port) in [
            ("h", "h", "80"),
            ("h:81", "h", "81"),
            ("h.", "h", "80"),
            ("h.:81", "h", "81"),
            ("[::1]", "[::1]", "80"),
            ("[::1]:81", "[::1]", "81"),
        ] {
            let expected = (host.as_bytes(), port.as_bytes());
            assert_eq!(Authority::new(text.as_bytes(), None).host_and_port(), expected, "{text}");
        }
    }

    #[test]
    fn spellings_of_one_target_have_one_form() {
        for (target, normal) in [
            ("/a/b?c=d", "/a/b?c=d"),
            ("/%61%7e%7E", "/a~~"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/a%2fb%20c", "/a%2Fb%20c"),
            ("/a{b}", "/a%7Bb%7D"),
            ("/%zz%2", "/%zz%2"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(normal_form(target), normal, "{target}");
        }
    }

    #[test]
    fn a_path_is_never_empty() {
        for (target, rooted_target) in [("?q", "/?q"), ("/?q", "/?q"), ("*", "*")] {
            assert_eq!(rooted(target), rooted_target);
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own(target in "/[a%27eE~{\u{e9}?/]{0,12}") {
            let normal = normal_form(&target).into_owned();
            // What was encoded twice is still encoded once.
            if !target.contains("%25") {
                prop_assert_eq!(normal_form(&normal).into_owned(), normal);
            }
        }
    }

    #[test]
    fn the_first_host_of_a_group_is_found_in_any_case() {
        let groups = [vec!["B.example", "a.example", "c.example:8080"], vec!["d:80", "[::1]"]];
        let groups = groups.map(|group| group.iter().map(ToString::to_string).collect());
        let hosts = SameHosts::new(&groups, None);
        for (host, first) in [
            ("A.example", Some("b.example")),
            ("b.example", Some("b.example")),
            ("c.example:8080", Some("b.example")),
            ("D", Some("d")),
            ("[::1]", Some("d")),
            ("c.example", None),
            ("a.example.", None),
            ("a.exampl", None),
            ("xa.example", None),
            ("", None),
        ] {
            assert_eq!(hosts.first_of(host.as_bytes()), first.map(str::as_bytes), "{host}");
        }
    }
}
