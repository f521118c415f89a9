//! Fields that override the target of a request, as parts of its key.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::KeyBuffer;
use crate::{
    http::{
        fields::{self, MAX_NORMAL_BYTES},
        request_fields::overrides_target,
    },
    work::looked_at,
};

/// Appends the fields of a request that override its target.
#[inline]
pub(super) fn push_overrides(headers: &HeaderMap, key: &mut KeyBuffer) {
    if key.may_hold_overrides() {
        push_each_override(headers, key);
    }
}

#[inline(never)]
fn push_each_override(headers: &HeaderMap, key: &mut KeyBuffer) {
    push_fields(headers.iter().filter(|(name, _)| overrides_target(name)), key);
}

/// Appends these lines. The order of fields with different names does not count, since it changes when others
/// are removed.
pub(super) fn push_fields<'h>(
    lines: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
    key: &mut KeyBuffer,
) {
    let mut lines: SmallVec<[_; 8]> = lines.collect();
    lines.sort_by(|(a, _), (b, _)| fields::by_spelling(a, b));
    lines.iter().for_each(|(name, value)| push_field(name, value, key));
}

/// Appends one line of a field.
fn push_field(name: &HeaderName, value: &HeaderValue, key: &mut KeyBuffer) {
    key.push(name.as_str());
    match name.as_str() {
        "forwarded" if value.len() <= MAX_NORMAL_BYTES => key.push(without_addresses(value.as_bytes())),
        _ => key.push(value.as_bytes()),
    }
}

/// A line of `Forwarded` (RFC 7239 §4) without the addresses of the client and of the proxies, with which
/// each client would have entries of its own. They are not part of the target.
fn without_addresses(line: &[u8]) -> Vec<u8> {
    let elements = fields::split_list(line).map(|element| {
        looked_at(element.len());
        let pairs = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        pairs.filter(|pair| !is_address(pair)).collect::<Vec<_>>().join(&b';')
    });
    elements.collect::<Vec<_>>().join(&b',')
}

/// Whether a pair is `for` or `by`, with a value that cannot be read as more than one pair.
fn is_address(pair: &[u8]) -> bool {
    let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { return false };
    let (name, value) = (&pair[..equals], &pair[equals + 1..]);
    let is_node = |byte: &u8| byte.is_ascii_alphanumeric() || b".:_-[]\"".contains(byte);
    (name.eq_ignore_ascii_case(b"for") || name.eq_ignore_ascii_case(b"by")) && value.iter().all(is_node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_left_out_of_forwarded() {
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
