//! `Range` requests out of a complete representation (RFC 9110 §14).

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::{cache_control::split_list, conditions::if_range_holds};

/// More parts than this are not worth their framing: the whole is served (§14.2 allows it).
const MAX_PARTS: usize = 16;

/// What a `Range` field asks of a representation of some length.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Everything: the field cannot be read, or asks for too much.
    Whole,
    /// Nothing that there is.
    Unsatisfiable,
    Parts(Vec<Range<usize>>),
}

/// Turns a 200 into the part of it that the request asks for: 206, or 416 (§15.3.7, §15.5.17).
///
/// `response` is what the client would get without `Range`, and `body` its body.
pub(crate) fn apply<B: From<Bytes>>(
    method: &Method,
    request: &HeaderMap,
    response: &mut Response<B>,
    body: &Bytes,
) {
    let part = match wanted_of(method, request, response, body.len()) {
        Wanted::Parts(parts) if parts.len() > 1 => return several(response, &parts, body),
        wanted => mark(wanted, response, body.len()),
    };
    if let Some(part) = part {
        *response.body_mut() = B::from(body.slice(part));
    }
}

/// As [`apply`], for a body of this length that is yet to come: returns what of it is to be sent.
/// Where several parts are wanted the whole is served.
pub(crate) fn cut<B>(
    method: &Method,
    request: &HeaderMap,
    response: &mut Response<B>,
    length: usize,
) -> Option<Range<usize>> {
    match wanted_of(method, request, response, length) {
        Wanted::Parts(parts) if parts.len() > 1 => None,
        wanted => mark(wanted, response, length),
    }
}

fn wanted_of<B>(method: &Method, request: &HeaderMap, response: &Response<B>, length: usize) -> Wanted {
    let whole = response.status() == StatusCode::OK && method == Method::GET;
    match request.get(header::RANGE) {
        Some(range) if whole && if_range_holds(request, response.headers()) => {
            wanted(range.as_bytes(), length)
        }
        _ => Wanted::Whole,
    }
}

/// Says in the head that only a part of the body follows, or nothing.
fn mark<B>(wanted: Wanted, response: &mut Response<B>, length: usize) -> Option<Range<usize>> {
    let (status, part, content_range) = match wanted {
        Wanted::Whole => return None,
        Wanted::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0, format!("bytes */{length}")),
        Wanted::Parts(parts) => {
            let part = parts.into_iter().next()?;
            (StatusCode::PARTIAL_CONTENT, part.clone(), content_range(&part, length))
        }
    };
    set(response, status, header::CONTENT_RANGE, &content_range, part.len());
    Some(part)
}

/// §14.6: every part with its own head.
fn several<B: From<Bytes>>(response: &mut Response<B>, parts: &[Range<usize>], body: &Bytes) {
    let boundary = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let mut joined = BytesMut::new();
    for part in parts {
        joined.put_slice(format!("--{boundary}\r\n").as_bytes());
        if let Some(content_type) = &content_type {
            joined.put_slice(b"content-type: ");
            joined.put_slice(content_type.as_bytes());
            joined.put_slice(b"\r\n");
        }
        joined.put_slice(format!("content-range: {}\r\n\r\n", content_range(part, body.len())).as_bytes());
        joined.put_slice(&body[part.clone()]);
        joined.put_slice(b"\r\n");
    }
    joined.put_slice(format!("--{boundary}--\r\n").as_bytes());
    let content_type = format!("multipart/byteranges; boundary={boundary}");
    set(response, StatusCode::PARTIAL_CONTENT, header::CONTENT_TYPE, &content_type, joined.len());
    *response.body_mut() = B::from(joined.freeze());
}

fn set<B>(
    response: &mut Response<B>,
    status: StatusCode,
    name: header::HeaderName,
    value: &str,
    length: usize,
) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    *response.status_mut() = status;
}

fn content_range(part: &Range<usize>, length: usize) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end - 1)
}

/// Parts that overlap so that together they are longer than the whole are an attack (§17.15).
fn wanted(range: &[u8], length: usize) -> Wanted {
    let Some(specs) = specs(range) else { return Wanted::Whole };
    let parts: Vec<_> = specs.iter().filter_map(|spec| spec.resolve(length)).collect();
    let total: usize = parts.iter().map(ExactSizeIterator::len).sum();
    match parts.len() {
        0 => Wanted::Unsatisfiable,
        1 => Wanted::Parts(parts),
        n if n > MAX_PARTS || total > length => Wanted::Whole,
        _ => Wanted::Parts(parts),
    }
}

#[derive(Debug)]
enum Spec {
    From { first: usize, last: Option<usize> },
    Suffix(usize),
}

impl Spec {
    /// `None`: it is not in a representation of this length.
    fn resolve(&self, length: usize) -> Option<Range<usize>> {
        let part = match *self {
            Self::From { first, last } => {
                first..last.map_or(length, |last| last.saturating_add(1).min(length))
            }
            Self::Suffix(suffix) => length.saturating_sub(suffix)..length,
        };
        (part.start < part.end).then_some(part)
    }
}

/// §14.1.2. A range that ends before it begins makes the whole field invalid.
fn specs(range: &[u8]) -> Option<Vec<Spec>> {
    let unit = range.get(..6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let specs = split_list(&range[6..]).map(|spec| {
        let dash = spec.iter().position(|byte| *byte == b'-')?;
        match (&spec[..dash], &spec[dash + 1..]) {
            (b"", suffix) => Some(Spec::Suffix(number(suffix)?)),
            (first, b"") => Some(Spec::From { first: number(first)?, last: None }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Spec::From { first, last: Some(last) })
            }
        }
    });
    let specs: Vec<_> = specs.collect::<Option<_>>()?;
    (!specs.is_empty()).then_some(specs)
}

/// Too large a number is larger than any representation.
fn number(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let fold = |n: usize, d: &u8| n.saturating_mul(10).saturating_add(usize::from(d - b'0'));
    is_number.then(|| digits.iter().fold(0, fold))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_of_ten_bytes() {
        for (range, parts) in [
            ("bytes=0-3", &[(0, 4)][..]),
            ("BYTES=3-3", &[(3, 4)]),
            ("bytes=4-", &[(4, 10)]),
            ("bytes=8-99", &[(8, 10)]),
            ("bytes=-3", &[(7, 10)]),
            ("bytes=-99", &[(0, 10)]),
            ("bytes=0-0, -1", &[(0, 1), (9, 10)]),
            ("bytes=0-0 ,, 20-30", &[(0, 1)]),
            ("bytes=5-18446744073709551616", &[(5, 10)]),
        ] {
            let parts = parts.iter().map(|(start, end)| *start..*end).collect();
            assert_eq!(wanted(range.as_bytes(), 10), Wanted::Parts(parts), "{range}");
        }
        for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(wanted(range.as_bytes(), 10), Wanted::Unsatisfiable, "{range}");
        }
        for range in [
            "bytes=",
            "bytes",
            "lines=0-1",
            "bytes=3-2",
            "bytes=0-1,x",
            "bytes=--1",
            "bytes=1",
            "bytes =0-1",
            "bytes=0-9,0-9",
            "",
        ] {
            assert_eq!(wanted(range.as_bytes(), 10), Wanted::Whole, "{range}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Unsatisfiable);
        let many = format!("bytes={}", (0..17).map(|n| format!("{n}-{n},")).collect::<String>());
        assert_eq!(wanted(many.as_bytes(), 100), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn parts_are_always_inside(range in "bytes=[0-9, -]{0,30}", length in 0_usize..40) {
            if let Wanted::Parts(parts) = wanted(range.as_bytes(), length) {
                prop_assert!(!parts.is_empty() && parts.len() <= MAX_PARTS);
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            }
        }
    }
}
