//! What happens to header fields on their way through.
//!
//! Requests are changed in front of the cache, except for their target: what the cache sees is
//! then what the origin sees, and an answer that varies by a field is stored for the value that
//! the origin went by. A client could otherwise name a selecting field in `Connection`, and have
//! the answer to a request without it stored for those who send it.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{self, Entry, InvalidHeaderValue},
    uri::{Authority, Scheme},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How a client's address is told to the origin.
pub(crate) fn address(peer: SocketAddr) -> HeaderValue {
    let peer = peer.ip().to_canonical().to_string();
    HeaderValue::from_str(&peer).unwrap_or(HeaderValue::from_static("unknown"))
}

/// What this proxy tells the origin about itself.
pub(crate) struct Hop {
    /// No other one has it, so that a request which comes back is known (RFC 9110 §7.6.3).
    name: String,
    via: [HeaderValue; 3],
    /// How clients ask, whatever a terminator in front makes of it.
    scheme: Option<Scheme>,
}

impl Hop {
    pub(crate) fn new(scheme: Option<Scheme>) -> Result<Self, InvalidHeaderValue> {
        let name = format!("tower-readthrough-{:016x}", fastrand::u64(..));
        let via = |version| HeaderValue::try_from(format!("{version} {name}"));
        let via = [via("1.0")?, via("1.1")?, via("2")?];
        Ok(Self { name, via, scheme })
    }

    /// Whether a request has been here before.
    pub(crate) fn has_seen(&self, headers: &HeaderMap) -> bool {
        let mut names = list(headers, &header::VIA)
            .filter_map(|hop| hop.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty()).nth(1));
        names.any(|name| *name == *self.name.as_bytes())
    }

    /// Makes the fields of a client's request those of the request to the origin.
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
        remove(headers, |name| is_hop_by_hop(name) || is_claim(name));
        if let Some(upgrade) = upgrade {
            headers.insert(header::UPGRADE, upgrade);
        }
        join_cookies(headers);
        append_peer(headers, peer);
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host);
        }
        headers.insert(X_FORWARDED_PROTO, proto);
        headers.append(header::VIA, via.clone());
    }

    /// HTTP/1 does not tell one.
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

/// An `Upgrade` that is left is wanted: asks the origin for it, and says so.
pub(crate) fn ask_for_upgrade(headers: &mut HeaderMap) -> bool {
    let wanted = headers.contains_key(header::UPGRADE);
    if wanted {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    wanted
}

/// Makes the origin's answer ours, and says whether it switches protocols.
pub(crate) fn from_origin<B>(response: &mut Response<B>) -> bool {
    *response.version_mut() = Version::HTTP_11;
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    let upgrade = headers.get(header::UPGRADE).cloned();
    remove(headers, is_hop_by_hop);
    if let (true, Some(upgrade)) = (upgraded, upgrade) {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    upgraded
}

/// HTTP/1.1 alone can switch to something else, if both fields say so (RFC 9110 §7.8). To HTTP/2
/// it is not worth it: `curl --http2` asks for that on every request, and would get no hits.
fn wanted_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let upgrade = headers.get(header::UPGRADE)?;
    let is_named = list(headers, &header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    let to_http2 = list(headers, &header::UPGRADE).any(|name| name.eq_ignore_ascii_case(b"h2c"));
    (request.version() == Version::HTTP_11 && is_named && !to_http2).then(|| upgrade.clone())
}

/// The authority that the client asked for: the URI's wins (RFC 9112 §3.2.2).
fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    match request.uri().authority().map(Authority::as_str) {
        Some(authority) => HeaderValue::from_str(authority).ok(),
        None => request.headers().get(header::HOST).cloned(),
    }
}

/// Removes these fields, and those that `Connection` names. To look at what there is costs less than
/// to look for each that there could be.
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

/// What a client says about where it comes from, and may not.
fn is_claim(name: &HeaderName) -> bool {
    matches!(name.as_str(), "forwarded" | "x-forwarded-host")
}

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

/// Makes all values of a field, and perhaps a further one, a single value.
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
