//! Reading header fields, and which of them belong to one connection (RFC 9110 §7.6.1).

use std::cmp::Ordering;

use http::{HeaderMap, HeaderName, HeaderValue, header};

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

/// Removes the fields that must not be stored or forwarded (RFC 9111 §3.1), and those that `Connection`
/// names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // `Connection` is such a field itself: without any it names nothing.
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

/// Whether a request asks for a protocol other than HTTP on its connection (RFC 9110 §7.8): then its response
/// is a connection, not a message. Another version of HTTP, or TLS, would bring the same message.
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

/// Removes `Upgrade` from a request whose response may be shared: a response that switches protocols would be
/// for the connection of a single caller.
pub(crate) fn remove_upgrade(headers: &mut HeaderMap) {
    if has(headers, &header::UPGRADE) {
        remove_all(headers, |name| [header::UPGRADE, HTTP2_SETTINGS].contains(name));
    }
}

/// Removes fields and keeps the order of the others, which `HeaderMap::remove` does not.
pub(crate) fn remove_all(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&is_removed) {
        let kept = headers.iter().filter(|(name, _)| !is_removed(name));
        *headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    }
}

/// Whether a service behind CGI or the like takes both names for the same one (RFC 3875 §4.1.18).
pub(crate) fn is_spelling_of(own: &[u8], name: &[u8]) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    own.len() == name.len() && own.iter().zip(name).all(|(own, byte)| dashed(*own) == dashed(*byte))
}

/// An order of names in which [spellings](is_spelling_of) of one name are equal.
pub(crate) fn by_spelling(one: &HeaderName, other: &HeaderName) -> Ordering {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.as_str().bytes().map(dashed).cmp(other.as_str().bytes().map(dashed))
}

/// The first line of a field, and whether it has more lines.
///
/// Requests have few fields: comparing their names is faster than hashing one, as `HeaderMap::get` does.
#[inline]
pub(crate) fn first_line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<(&'a HeaderValue, bool)> {
    let mut fields = headers.iter();
    let (_, line) = fields.find(|(other, _)| *other == name)?;
    // All lines of a field follow each other.
    Some((line, fields.next().is_some_and(|(next, _)| next == name)))
}

/// The value of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Line<'a> {
    #[default]
    None,
    One(&'a HeaderValue),
    Several,
}

impl<'a> Line<'a> {
    pub(super) fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        match first_line(headers, name) {
            None => Self::None,
            Some((line, false)) => Self::One(line),
            Some((_, true)) => Self::Several,
        }
    }

    /// With one more line.
    pub(super) fn and(self, line: &'a HeaderValue) -> Self {
        match self {
            Self::None => Self::One(line),
            _ => Self::Several,
        }
    }
}

/// Whether a field is present, by comparing names as [`first_line`] does.
pub(crate) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|other| other == name)
}

/// Whether a field is about the content of one message, not about a representation: another part of that has
/// another digest (RFC 9530 §2).
pub(crate) fn is_digest(name: &HeaderName) -> bool {
    ["content-md5", "content-digest"].contains(&name.as_str())
}

/// Removes from trailers the fields that must not be there (RFC 9110 §6.5.1), and the withheld ones.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap, withheld: &[HeaderName]) {
    remove_hop_by_hop(trailers);
    remove_all(trailers, |name| *name == header::SET_COOKIE || withheld.contains(name));
}

/// The elements of a comma-separated list, trimmed and without empty ones (RFC 9110 §5.6.1). Commas inside
/// quoted strings do not separate (§5.6.4).
pub(crate) fn split_list(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    looked_at(line.len());
    let (mut quoted, mut escaped) = (false, false);
    let has_quotes = line.contains(&b'"');
    line.split(move |byte| {
        let separates = *byte == b',' && !quoted;
        match byte {
            _ if !has_quotes => {}
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        separates
    })
    .map(<[u8]>::trim_ascii)
    .filter(|element| !element.is_empty())
}

/// Parses a number of digits alone, without a sign (RFC 9110 §8.6). A number that is too large becomes the
/// largest.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    looked_at(text.len());
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let append = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| text.iter().fold(0, append))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_digits_and_nothing_else() {
        for (text, number) in [("0", 0), ("007", 7), ("18446744073709551616", u64::MAX)] {
            assert_eq!(digits(text.as_bytes()), Some(number));
        }
        for text in ["", "+7", "-7", " 7", "7 ", "7.0", "0x7", "\u{663}"] {
            assert_eq!(digits(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_first_line_comes_with_whether_it_is_the_only_one() {
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
    fn a_protocol_that_carries_http_is_not_another_one() {
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
    fn fields_of_the_connection_are_removed_and_others_stay() {
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
