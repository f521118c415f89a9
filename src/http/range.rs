//! `Range` requests out of a complete representation (RFC 9110 §14).

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{conditions, fields, made};

/// For more parts the whole is served, as §14.2 allows: they are not worth their framing.
const MAX_PARTS: usize = 16;

/// A longer field is ignored: the parts that are served take less.
const MAX_RANGE_BYTES: usize = 1024;

/// What a `Range` field asks for of a representation with a known length.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Everything: the field is invalid, or asks for too many parts.
    Whole,
    Unsatisfiable,
    Parts(Vec<Range<usize>>),
}

/// The part of a representation in a 206 (§14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first: usize,
    /// The byte after the last one.
    pub(crate) end: usize,
    /// The length of the whole.
    pub(crate) total: usize,
}

impl Extent {
    /// `None` if `Content-Range` is missing or invalid, or the length of the whole is unknown.
    pub(crate) fn of(response: &HeaderMap) -> Option<Self> {
        let mut lines = response.get_all(header::CONTENT_RANGE).iter();
        let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else { return None };
        let (unit, range) = line.trim().split_once(' ')?;
        let (part, total) = range.split_once('/')?;
        let (first, last) = part.split_once('-')?;
        let [first, last, total] = [first, last, total].map(|digits| number(digits.as_bytes()));
        // Parts of a larger whole could not be put together.
        let (first, end, total) = (first?, last?.checked_add(1)?, total.filter(|total| *total < usize::MAX)?);
        (unit.eq_ignore_ascii_case("bytes") && first < end && end <= total).then_some(Self {
            first,
            end,
            total,
        })
    }

    /// The part in a 206 that is for all requests with the same `Range`.
    pub(crate) fn for_all(asks_for_one_part: bool, status: StatusCode, response: &HeaderMap) -> Option<Self> {
        let is_part = status == StatusCode::PARTIAL_CONTENT && asks_for_one_part;
        is_part.then(|| Self::of(response))?
    }

    pub(crate) fn len(self) -> usize {
        self.end - self.first
    }

    pub(crate) fn is_whole(self) -> bool {
        self.len() == self.total
    }

    /// Whether the parts overlap or adjoin, in representations of one length.
    pub(crate) fn touches(self, other: Self) -> bool {
        self.total == other.total && self.first <= other.end && other.first <= self.end
    }

    /// The union of two parts that [touch](Self::touches).
    pub(crate) fn join(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), end: self.end.max(other.end), total: self.total }
    }

    /// The range that a `Range` field asks for, if it is one and within this part.
    fn resolve(self, range: &HeaderValue) -> Option<Range<usize>> {
        let wanted = one_spec(range)?.resolve(self.total)?;
        (self.first <= wanted.start && wanted.end <= self.end).then_some(wanted)
    }

    /// Turns the head of this part into that of the response to a request. Returns which bytes of the part
    /// are its body, or `None` if the request asks for anything beyond the part.
    pub(crate) fn apply<B>(self, request: &HeaderMap, response: &mut Response<B>) -> Option<Range<usize>> {
        let wanted = request.get(header::RANGE).and_then(|range| self.resolve(range))?;
        let text = content_range(&wanted, self.total);
        made::make_part(response, wanted.len(), wanted.len() == self.len());
        set(response, header::CONTENT_RANGE, &text);
        Some(wanted.start - self.first..wanted.end - self.first)
    }

    /// Whether [`apply`](Self::apply) would succeed.
    pub(crate) fn answers(self, request: &HeaderMap, response: &HeaderMap) -> bool {
        let wanted = request.get(header::RANGE).and_then(|range| self.resolve(range));
        wanted.is_some() && conditions::if_range_holds(request, response)
    }
}

/// Whether a request asks for one part without a condition (a precondition, `If-Range`): all such requests
/// may share the response.
pub(crate) fn asks_for_one_part(method: &Method, request: &HeaderMap) -> bool {
    let Some((range, false)) = fields::first_line(request, &header::RANGE) else { return false };
    let has_other = conditions::has_precondition(request) || request.contains_key(header::IF_RANGE);
    method == Method::GET && !has_other && one_spec(range).is_some()
}

/// Turns a 200 into the part of it that the request asks for: 206, or 416 (§15.3.7, §15.5.17).
///
/// `response` is the response without `Range`, and `body` its body.
pub(crate) fn apply<B: From<Bytes>>(
    method: &Method,
    request: &HeaderMap,
    response: &mut Response<B>,
    body: &Bytes,
) {
    let part = match wanted_of(method, request, response, body.len()) {
        Wanted::Parts(parts) if parts.len() > 1 => return several(response, &parts, body),
        wanted => one(wanted, response, body.len()),
    };
    if let Some(part) = part {
        *response.body_mut() = B::from(body.slice(part));
    }
}

/// Like [`apply`], for a body of this length that is yet to come: returns the range of it to send, or `None`
/// for the whole, also where several parts are wanted.
pub(crate) fn cut<B>(
    method: &Method,
    request: &HeaderMap,
    response: &mut Response<B>,
    length: usize,
) -> Option<Range<usize>> {
    match wanted_of(method, request, response, length) {
        Wanted::Parts(parts) if parts.len() > 1 => None,
        wanted => one(wanted, response, length),
    }
}

fn wanted_of<B>(method: &Method, request: &HeaderMap, response: &Response<B>, length: usize) -> Wanted {
    let whole = response.status() == StatusCode::OK && method == Method::GET;
    match request.get(header::RANGE) {
        Some(range) if whole && conditions::if_range_holds(request, response.headers()) => {
            match wanted(range.as_bytes(), length) {
                // The coding would be that of all parts together.
                Wanted::Parts(parts)
                    if parts.len() > 1 && fields::has(response.headers(), &header::CONTENT_ENCODING) =>
                {
                    Wanted::Whole
                }
                wanted => wanted,
            }
        }
        _ => Wanted::Whole,
    }
}

/// Makes the head fit one part of the body, and returns that part.
fn one<B>(wanted: Wanted, response: &mut Response<B>, length: usize) -> Option<Range<usize>> {
    match wanted {
        Wanted::Whole => None,
        Wanted::Unsatisfiable => {
            made::make_failed(response, StatusCode::RANGE_NOT_SATISFIABLE);
            set(response, header::CONTENT_RANGE, &format!("bytes */{length}"));
            Some(0..0)
        }
        Wanted::Parts(parts) => {
            let part = parts.into_iter().next()?;
            made::make_part(response, part.len(), part.len() == length);
            set(response, header::CONTENT_RANGE, &content_range(&part, length));
            Some(part)
        }
    }
}

/// Builds a multipart body, each part with its own head (§14.6).
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
    made::make_part(response, joined.len(), false);
    // Each part has a `Content-Range` of its own (§15.3.7.2).
    response.headers_mut().remove(header::CONTENT_RANGE);
    set(response, header::CONTENT_TYPE, &content_type);
    *response.body_mut() = B::from(joined.freeze());
}

fn set<B>(response: &mut Response<B>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn content_range(part: &Range<usize>, length: usize) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end - 1)
}

/// Overlapping parts that are longer in total than the whole are an attack (§17.15).
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
    /// `None` if it is outside a representation of this length.
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

fn one_spec(range: &HeaderValue) -> Option<Spec> {
    match <[Spec; 1]>::try_from(specs(range.as_bytes())?) {
        Ok([spec]) => Some(spec),
        Err(_) => None,
    }
}

/// Parses the ranges (§14.1.2). A range that ends before it begins makes the whole field invalid.
fn specs(range: &[u8]) -> Option<Vec<Spec>> {
    let unit = range.get(..6)?;
    if range.len() > MAX_RANGE_BYTES || !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let specs = fields::split_list(&range[6..]).map(|spec| {
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

/// A number that is too large is larger than any representation.
fn number(text: &[u8]) -> Option<usize> {
    fields::digits(text).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
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

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn an_extent_is_one_valid_range_of_a_known_length() {
        let of = |value| Extent::of(&map(&[("content-range", value)]));
        assert_eq!(of("bytes 0-4/10"), Some(Extent { first: 0, end: 5, total: 10 }));
        assert_eq!(of("BYTES 9-9/10"), Some(Extent { first: 9, end: 10, total: 10 }));
        for invalid in [
            "bytes 4-3/10",
            "bytes 0-10/10",
            "bytes 0-4/*",
            "bytes */10",
            "lines 0-4/10",
            "bytes=0-4/10",
            "bytes 0-4",
            "bytes -4/10",
            "bytes 0-99999999999999999999/99999999999999999999",
            "bytes 0-4/99999999999999999999",
            "",
        ] {
            assert_eq!(of(invalid), None, "{invalid}");
        }
        assert_eq!(Extent::of(&map(&[])), None);
        assert_eq!(Extent::of(&map(&[("content-range", "bytes 0-4/10"); 2])), None);
    }

    #[test]
    fn a_part_answers_what_lies_within_it() {
        let part = Extent { first: 4, end: 8, total: 10 };
        for (range, wanted) in [
            ("bytes=4-7", Some(4..8)),
            ("bytes=5-5", Some(5..6)),
            ("bytes=3-7", None),
            ("bytes=4-8", None),
            ("bytes=4-", None),
            ("bytes=-2", None),
            ("bytes=4-5,6-7", None),
            ("bytes=x", None),
            ("bytes=20-", None),
        ] {
            assert_eq!(part.resolve(&range.parse().unwrap()), wanted, "{range}");
        }
        let end = Extent { first: 4, end: 10, total: 10 };
        for (range, wanted) in [("bytes=-6", 4..10), ("bytes=5-", 5..10), ("bytes=9-99", 9..10)] {
            assert_eq!(end.resolve(&range.parse().unwrap()), Some(wanted), "{range}");
        }
    }

    #[test]
    fn parts_touch_where_no_byte_is_between_them() {
        let of = |first, end| Extent { first, end, total: 10 };
        assert!(of(0, 4).touches(of(4, 6)) && of(4, 6).touches(of(0, 4)));
        assert!(of(0, 4).touches(of(2, 3)) && of(0, 9).touches(of(8, 10)));
        assert!(!of(0, 4).touches(of(5, 6)) && !of(5, 6).touches(of(0, 4)));
        assert!(!of(0, 4).touches(Extent { total: 11, ..of(4, 6) }));
        assert_eq!(of(0, 4).join(of(3, 6)), of(0, 6));
        assert!(of(0, 10).is_whole() && !of(1, 10).is_whole());
    }

    #[test]
    fn only_a_get_for_one_range_without_conditions_is_for_all() {
        let asks = |fields: &[_]| asks_for_one_part(&Method::GET, &map(fields));
        assert!(asks(&[("range", "bytes=0-4")]));
        assert!(!asks_for_one_part(&Method::HEAD, &map(&[("range", "bytes=0-4")])));
        assert!(!asks(&[]) && !asks(&[("range", "bytes=0-4,6-7")]) && !asks(&[("range", "lines=0-4")]));
        assert!(!asks(&[("range", "bytes=0-4"), ("if-range", "\"1\"")]));
        assert!(!asks(&[("range", "bytes=0-4"), ("if-none-match", "\"1\"")]));
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
