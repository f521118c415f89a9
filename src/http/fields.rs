//! Header fields that belong to one connection and not to the message (RFC 9110 §7.6.1).

use std::cmp::Ordering;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Body;

use super::{cache_control::split_list, framing::content_length};
use crate::work::looked_at;

pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION
        | header::TE
        | header::TRANSFER_ENCODING
        | header::UPGRADE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection" | "proxy-authentication-info"),
    }
}

/// Removes what must not be stored or sent on (RFC 9111 §3.1), also the fields that
/// `Connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // `Connection` is such a field itself: without any there is nothing that it names.
    if headers.keys().any(is_hop_by_hop) {
        let named = named_by_connection(headers);
        remove_all(headers, |name| is_hop_by_hop(name) || named.contains(name));
    }
}

/// The fields that `Connection` names.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    if !has(headers, &header::CONNECTION) {
        return Vec::new();
    }
    let lines = headers.get_all(header::CONNECTION).iter();
    let names = lines.flat_map(|line| split_list(line.as_bytes()));
    names.filter_map(|name| HeaderName::from_bytes(name).ok()).collect()
}

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Whether a request asks for another protocol than HTTP on its connection (RFC 9110 §7.8): its response
/// is a connection then, and no message. Another version of HTTP, or TLS, would bring the same message.
#[cold]
pub(crate) fn asks_for_another_protocol(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::UPGRADE).iter().inspect(|line| looked_at(line.len()));
    let mut protocols = lines.flat_map(|line| split_list(line.as_bytes()));
    named_by_connection(headers).contains(&header::UPGRADE)
        && protocols.any(|protocol| !carries_http(protocol))
}

fn carries_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    [&b"http"[..], b"h2c", b"h2", b"tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Removes a wish for another version of HTTP from a request whose response may be shared: one that
/// switches would be for the connection of a single caller.
pub(crate) fn remove_upgrade(headers: &mut HeaderMap) {
    if has(headers, &header::UPGRADE) {
        remove_all(headers, |name| [header::UPGRADE, HTTP2_SETTINGS].contains(name));
    }
}

/// Removes fields and keeps the others in order, which `HeaderMap::remove` would not.
pub(crate) fn remove_all(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&goes) {
        let kept = headers.iter().filter(|(name, _)| !goes(name));
        *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    }
}

/// Whether a service behind CGI or the like takes both names for the same (RFC 3875 §4.1.18).
pub(crate) fn is_spelling_of(own: &[u8], name: &[u8]) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    own.len() == name.len() && own.iter().zip(name).all(|(own, byte)| dashed(*own) == dashed(*byte))
}

/// The order of names, in which those that may be taken for the same are equal.
pub(crate) fn by_spelling(one: &HeaderName, other: &HeaderName) -> Ordering {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.as_str().bytes().map(dashed).cmp(other.as_str().bytes().map(dashed))
}

/// The first line of a field, and whether there are more.
///
/// Requests have few fields, and to compare their names is faster than to hash one, which is how
/// `HeaderMap::get` begins.
#[inline]
pub(crate) fn first_line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<(&'a HeaderValue, bool)> {
    let mut fields = headers.iter();
    let (_, line) = fields.find(|(other, _)| *other == name)?;
    // All lines of a field come one after the other.
    Some((line, fields.next().is_some_and(|(next, _)| next == name)))
}

/// Whether there is such a field, by comparing names as [`first_line`] does.
pub(crate) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|other| other == name)
}

/// Fields that are about the content of one message, and not about a representation: another part
/// of it has another one (RFC 9530 §2).
pub(crate) fn is_digest(name: &HeaderName) -> bool {
    ["content-md5", "content-digest"].contains(&name.as_str())
}

/// How long the content of a response is, if its head or its body says so (RFC 9110 §8.6).
pub(crate) fn content_of<B: Body>(is_head: bool, response: &Response<B>) -> Option<u64> {
    let declared = || content_length(response.headers()).ok().flatten();
    match has_content(is_head, response.status()) {
        true => declared().or_else(|| response.body().size_hint().exact()),
        false => None,
    }
}

/// Whether a response has content by the method of its request and its status (RFC 9110 §6.4.1).
pub(crate) fn has_content(is_head: bool, status: StatusCode) -> bool {
    let is_without = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    !is_head && !status.is_informational() && !is_without.contains(&status)
}

/// Removes from trailers what must not be there (RFC 9110 §6.5.1), and what others may not have.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap, withheld: &[HeaderName]) {
    remove_hop_by_hop(trailers);
    remove_all(trailers, |name| *name == header::SET_COOKIE || withheld.contains(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_knows_whether_it_is_the_only_one() {
        let mut headers = HeaderMap::new();
        for (name, line) in [("a", "1"), ("b", "2"), ("c", "3"), ("b", "4")] {
            headers.append(name, HeaderValue::from_static(line));
        }
        let first = |name| first_line(&headers, &HeaderName::from_static(name));
        assert_eq!(first("a"), Some((&HeaderValue::from_static("1"), false)));
        assert_eq!(first("b"), Some((&HeaderValue::from_static("2"), true)));
        assert_eq!(first("c"), Some((&HeaderValue::from_static("3"), false)));
        assert_eq!(first("d"), None);
    }

    #[test]
    fn a_protocol_that_carries_http_is_no_other_one() {
        let asks = |connection: &[&'static str], upgrade: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in connection {
                headers.append(header::CONNECTION, HeaderValue::from_static(line));
            }
            for line in upgrade {
                headers.append(header::UPGRADE, HeaderValue::from_static(line));
            }
            asks_for_another_protocol(&headers)
        };
        let named = ["Upgrade, HTTP2-Settings"];
        for http in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.2", "TLS/1.0, HTTP/1.1", "h2,h2c", ""] {
            assert!(!asks(&named, &[http]), "{http}");
        }
        for other in ["websocket", "WebSocket", "h2c, websocket", "echo/1", "h2cx"] {
            assert!(asks(&named, &[other]), "{other}");
            assert!(asks(&["close", "upgrade"], &["h2c", other]), "{other}");
            assert!(!asks(&["keep-alive"], &[other]), "{other}");
            assert!(!asks(&[], &[other]), "{other}");
        }
        assert!(!asks(&named, &[]));
    }

    #[test]
    fn fields_of_the_connection_go_and_all_else_stays() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, "close, X-Hop".parse().unwrap());
        headers.append(header::CONNECTION, "x-other".parse().unwrap());
        for name in ["x-hop", "x-other", "keep-alive", "te", "proxy-authenticate", "x-kept", "etag"] {
            headers.append(name, "1".parse().unwrap());
        }
        remove_hop_by_hop(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-kept", "etag"]);
    }
}
