//! Changes of header fields in both directions.
//!
//! Requests are changed in front of the cache, except for their target: the cache then sees the
//! fields that the origin sees, and a response that varies by a field is stored for the value that
//! the origin used. Otherwise a client could name a selecting field in `Connection`, and the response
//! to a request without the field would be stored for requests with it.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{self, Entry, InvalidHeaderValue},
    uri::{Authority, Scheme},
};

/// Lines in a head over HTTP/1, in both directions. Beyond 100 hyper allocates memory for each head.
pub(crate) const MAX_FIELDS: usize = 256;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The field with the address of the client.
pub(crate) fn address(peer: SocketAddr) -> HeaderValue {
    let peer = peer.ip().to_canonical().to_string();
    HeaderValue::from_str(&peer).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Fields that the proxy adds to requests.
pub(crate) struct Hop {
    /// Unique, so that a request that comes back is recognised (RFC 9110 §7.6.3).
    name: String,
    via: [HeaderValue; 3],
    /// The scheme of the clients, whether or not a terminator is in front.
    scheme: Option<Scheme>,
}

impl Hop {
    pub(crate) fn new(scheme: Option<Scheme>) -> Result<Self, InvalidHeaderValue> {
        let name = format!("tower-readthrough-{:016x}", fastrand::u64(..));
        let via = |version| HeaderValue::try_from(format!("{version} {name}"));
        let via = [via("1.0")?, via("1.1")?, via("2")?];
        Ok(Self { name, via, scheme })
    }

    /// Whether a request has passed this proxy before.
    pub(crate) fn has_seen(&self, headers: &HeaderMap) -> bool {
        let mut names = list(headers, &header::VIA)
            .filter_map(|hop| hop.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty()).nth(1));
        names.any(|name| *name == *self.name.as_bytes())
    }

    /// Turns the fields of the client's request into those of the request to the origin.
    pub(crate) fn take_over<B>(&self, request: &mut Request<B>, peer: &HeaderValue) {
        self.set_scheme(request.uri_mut());
        let upgrade = wanted_upgrade(request);
        let host = host(request);
        let proto = self.proto(request.uri());
        let [http10, http11, http2] = &self.via;
        let via = match request.version() {
            Version::HTTP_10 => http10,
            Version::HTTP_2 => http2,
            _ => http11,
        };
        let headers = request.headers_mut();
        remove(headers, |name| is_hop_by_hop(name) || is_of_message_framing(name) || is_claim(name));
        if let Some(upgrade) = upgrade {
            headers.insert(header::UPGRADE, upgrade);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        join_cookies(headers);
        append_peer(headers, peer);
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host);
        }
        headers.insert(X_FORWARDED_PROTO, proto);
        headers.append(header::VIA, via.clone());
    }

    /// An HTTP/1 request does not have one.
    fn set_scheme(&self, uri: &mut Uri) {
        if self.scheme.is_some() && uri.scheme().is_some() {
            let mut parts = std::mem::take(uri).into_parts();
            parts.scheme.clone_from(&self.scheme);
            *uri = Uri::from_parts(parts).unwrap_or_default();
        }
    }

    fn proto(&self, uri: &Uri) -> HeaderValue {
        match self.scheme.as_ref().or(uri.scheme()) == Some(&Scheme::HTTPS) {
            true => const { HeaderValue::from_static("https") },
            false => const { HeaderValue::from_static("http") },
        }
    }
}

/// Turns the response of the origin into that of the proxy, and returns whether it switches protocols.
pub(crate) fn from_origin<B>(response: &mut Response<B>) -> bool {
    *response.version_mut() = Version::HTTP_11;
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    let upgrade = headers.get(header::UPGRADE).cloned();
    // A transfer coding overrides the length (RFC 9112 §6.3).
    let has_coding = headers.contains_key(header::TRANSFER_ENCODING);
    remove(headers, |name| is_hop_by_hop(name) || has_coding && *name == header::CONTENT_LENGTH);
    if let (true, Some(upgrade)) = (upgraded, upgrade) {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    upgraded
}

/// Whether the body has a transfer coding other than `chunked`.
pub(crate) fn is_coded(headers: &HeaderMap) -> bool {
    unknown_coding(headers).is_some()
}

/// The response to a request with a body that cannot be read, since its transfer codings are not
/// `chunked` alone, once (RFC 9112 §6.1, §7.1).
pub(crate) fn unknown_coding(headers: &HeaderMap) -> Option<StatusCode> {
    let mut codings = list(headers, &header::TRANSFER_ENCODING).filter(|coding| !coding.is_empty());
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(only), None) if is_chunked(only) => None,
        (Some(first), Some(second)) if is_chunked(first) && is_chunked(second) => {
            Some(StatusCode::BAD_REQUEST)
        }
        _ => Some(StatusCode::NOT_IMPLEMENTED),
    }
}

/// The protocols to switch to, of those that a request names. HTTP/1.1 alone can, if both fields say so
/// (RFC 9110 §7.8). Another version of HTTP, or TLS, would give the same response, and `curl --http2` names
/// one in every request: such a request is handled without a switch.
fn wanted_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    headers.get(header::UPGRADE)?;
    let is_named = list(headers, &header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    if request.version() != Version::HTTP_11 || !is_named {
        return None;
    }
    let protocols: Vec<_> =
        list(headers, &header::UPGRADE).filter(|protocol| !carries_http(protocol)).collect();
    match protocols.is_empty() {
        true => None,
        false => HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok(),
    }
}

fn carries_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    name.is_empty()
        || [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The authority of the client's request: that of the URI wins (RFC 9112 §3.2.2).
fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    match request.uri().authority().map(Authority::as_str) {
        Some(authority) => HeaderValue::from_str(authority).ok(),
        None => request.headers().get(header::HOST).cloned(),
    }
}

/// Removes these fields, and those that `Connection` names. Going through the fields of the message costs
/// less than looking up each of these.
fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let named = list(headers, &header::CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok());
    let unwanted = headers.keys().filter(|name| is_unwanted(name)).cloned();
    let ending: Vec<_> = unwanted.chain(named).collect();
    for name in &ending {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields about the transfer of a request body, which ends here. Settings of another version of HTTP are
/// removed with `Upgrade`.
fn is_of_message_framing(name: &HeaderName) -> bool {
    matches!(name.as_str(), "expect" | "trailer" | "http2-settings")
}

/// Fields that override the host, scheme, port, path or method of a request: the key does not hold them.
/// `X-Forwarded-For` is appended to instead.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Origins that make variables of names read an underscore as a hyphen.
    if name.contains('_') {
        return true;
    }
    match name {
        "x-forwarded-for" => false,
        "base-url"
        | "cf-visitor"
        | "cloudfront-forwarded-proto"
        | "forwarded"
        | "front-end-https"
        | "proxy"
        | "request-uri"
        | "x-accel-mapping"
        | "x-arr-ssl"
        | "x-base-url"
        | "x-host"
        | "x-http-host-override"
        | "x-http-method"
        | "x-http-method-override"
        | "x-https"
        | "x-method-override"
        | "x-proto"
        | "x-request-uri"
        | "x-scheme"
        | "x-script-name"
        | "x-sendfile-type"
        | "x-url-scheme" => true,
        _ => CLAIMS.iter().any(|start| name.starts_with(start)),
    }
}

const CLAIMS: [&str; 4] = ["x-forwarded", "x-original", "x-rewrite", "x-envoy-original"];

/// HTTP/2 may send cookies in several fields, HTTP/1 may not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        set_joined(headers, header::COOKIE, b"; ", None);
    }
}

fn append_peer(headers: &mut HeaderMap, peer: &HeaderValue) {
    if let Entry::Vacant(unclaimed) = headers.entry(X_FORWARDED_FOR) {
        unclaimed.insert(peer.clone());
    } else {
        set_joined(headers, X_FORWARDED_FOR, b", ", Some(peer.as_bytes()));
    }
}

/// Joins all values of a field, and an optional further one, into one value.
fn set_joined(headers: &mut HeaderMap, name: HeaderName, separator: &[u8], further: Option<&[u8]>) {
    let values = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
    let joined = values.chain(further).collect::<Vec<_>>().join(separator);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, joined);
    }
}

/// The members of a field that is a list.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}
