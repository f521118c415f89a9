//! Header fields that say something else than the target URI and `Host` do.
//!
//! Frameworks build links and redirects from them, so a response made from one of them must not
//! answer a request without it, whatever its `Vary` says.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::KeyBuffer;
use crate::{
    http::{
        bounds::MAX_NORMAL_BYTES,
        cache_control::split_list,
        fields::{asks_for_another_protocol, is_spelling_of},
    },
    work::looked_at,
};

/// Fields by which a request overrides the host, the path or the scheme of its target.
pub(crate) const TARGET_OVERRIDES: [&str; 29] = [
    "forwarded",
    "front-end-https",
    "x-arr-ssl",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-proxied-https",
    "x-replaced-path",
    "x-rewrite-url",
    "x-scheme",
    "x-script-name",
    "x-url-scheme",
    "x-waws-unencoded-url",
];

/// Fields by which many frameworks take a request for one of another method.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

/// Fields that most requests have and that override nothing: told by constants, without a look at their
/// text.
#[inline]
fn is_usual(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::AUTHORIZATION
            | header::CACHE_CONTROL
            | header::CONNECTION
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::COOKIE
            | header::HOST
            | header::IF_MODIFIED_SINCE
            | header::IF_NONE_MATCH
            | header::ORIGIN
            | header::PRAGMA
            | header::RANGE
            | header::REFERER
            | header::TE
            | header::UPGRADE_INSECURE_REQUESTS
            | header::USER_AGENT
            | header::VIA
    )
}

/// What the names of a request's fields override, found in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// Frameworks may take it for a request of another method.
    pub(super) method: bool,
    /// It asks for another protocol than HTTP.
    protocol: bool,
    /// Its host, its path or its scheme may be taken for another one.
    pub(super) target: bool,
}

impl Overrides {
    #[inline]
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut overrides = Self::default();
        for name in headers.keys() {
            if !is_usual(name) {
                overrides.note(name, headers);
            }
        }
        overrides
    }

    #[inline(never)]
    fn note(&mut self, name: &HeaderName, headers: &HeaderMap) {
        if *name == header::UPGRADE {
            self.protocol = asks_for_another_protocol(headers);
        }
        self.method |= is_one_of(&METHOD_OVERRIDES, name);
        self.target |= is_one_of(&TARGET_OVERRIDES, name);
    }

    /// Whether the request may have a key.
    #[inline]
    pub(super) fn leave_a_key(self) -> bool {
        !self.method && !self.protocol
    }
}

fn is_one_of(names: &[&str], name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // All of them begin so, and few other names do.
    matches!(name.first(), Some(b'f' | b'x')) && names.iter().any(|own| is_spelling_of(own.as_bytes(), name))
}

/// Appends the fields of a request that override its target.
#[inline]
pub(super) fn push_overrides(headers: &HeaderMap, key: &mut KeyBuffer) {
    if key.may_hold_overrides() {
        push_each_override(headers, key);
    }
}

#[inline(never)]
fn push_each_override(headers: &HeaderMap, key: &mut KeyBuffer) {
    for (name, value) in headers {
        if is_one_of(&TARGET_OVERRIDES, name) {
            push_field(name, value, key);
        }
    }
}

/// Appends one line of a field.
pub(super) fn push_field(name: &HeaderName, value: &HeaderValue, key: &mut KeyBuffer) {
    key.push(name.as_str());
    match name.as_str() {
        "forwarded" if value.len() <= MAX_NORMAL_BYTES => key.push(without_addresses(value.as_bytes())),
        _ => key.push(value.as_bytes()),
    }
}

/// A line of `Forwarded` (RFC 7239 §4) without the addresses of the client and of the proxies, which
/// name no target: with them each client would have entries of its own.
fn without_addresses(line: &[u8]) -> Vec<u8> {
    let elements = split_list(line).map(|element| {
        looked_at(element.len());
        let pairs = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        pairs.filter(|pair| !is_address(pair)).collect::<Vec<_>>().join(&b';')
    });
    elements.collect::<Vec<_>>().join(&b',')
}

/// Whether a pair is `for` or `by` with a value that cannot be taken for more than one pair.
fn is_address(pair: &[u8]) -> bool {
    let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { return false };
    let (name, value) = (&pair[..equals], &pair[equals + 1..]);
    let is_node = |byte: &u8| byte.is_ascii_alphanumeric() || b".:_-[]\"".contains(byte);
    (name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by")) && value.iter().all(is_node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(name: &str) -> Overrides {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        Overrides::of(&[(name, HeaderValue::from_static("x"))].into_iter().collect())
    }

    #[test]
    fn every_listed_field_is_found_in_both_spellings() {
        let nothing = Overrides::default();
        for (names, expected) in [
            (&METHOD_OVERRIDES[..], Overrides { method: true, ..nothing }),
            (&TARGET_OVERRIDES[..], Overrides { target: true, ..nothing }),
            (&["x-forwarded-for", "from", "x-requested-with", "host", "if-none-match"], nothing),
        ] {
            for name in names {
                assert_eq!(overrides(name), expected, "{name}");
                assert_eq!(overrides(&name.replace('-', "_")), expected, "{name}");
            }
        }
    }

    #[test]
    fn addresses_are_left_out_of_forwarded_and_all_else_stays() {
        for (line, expected) in [
            ("for=192.0.2.1", ""),
            ("for=192.0.2.1;host=a;proto=https", "host=a;proto=https"),
            ("For=\"[2001:db8::1]:47\"; by=_proxy ;HOST=a", "HOST=a"),
            ("for=1.2.3.4, for=5.6.7.8;host=b", ",host=b"),
            ("for=\"a,host=evil\"", "for=\"a,host=evil\""),
            ("for=\"a;host=evil\"", "host=evil\""),
            ("for=a host=evil", "for=a host=evil"),
        ] {
            assert_eq!(
                without_addresses(line.as_bytes()).escape_ascii().to_string().replace("\\\"", "\""),
                expected,
                "{line}"
            );
        }
    }
}
