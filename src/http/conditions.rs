//! Conditional requests (RFC 9110 §13), of clients and of the cache to the origin, requests for ranges (§14),
//! and the responses to both that are made of a whole one.

use std::{ops::Range, time::SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::{
    fields::{self, parse_date},
    request_fields::first_line,
};
use crate::work::is_same;

/// The fields of preconditions (§13.1).
pub(super) const PRECONDITIONS: [HeaderName; 4] =
    [header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];

/// The result of evaluating the preconditions of a GET or HEAD request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    Holds,
    /// 304: the client has the representation.
    NotModified,
    /// 412.
    Failed,
}

/// Removes preconditions and ranges from a request, so that the response is for all clients, and returns
/// them.
pub(crate) fn take_conditions(request: &mut HeaderMap) -> Option<HeaderMap> {
    if !is_conditional(request) {
        return None;
    }
    let mut taken = HeaderMap::new();
    for name in PRECONDITIONS.into_iter().chain([header::RANGE, header::IF_RANGE]) {
        if let http::header::Entry::Occupied(entry) = request.entry(&name) {
            let (_, values) = entry.remove_entry_mult();
            for value in values {
                taken.append(name.clone(), value);
            }
        }
    }
    Some(taken)
}

/// Whether a request has any precondition or range.
pub(crate) fn is_conditional(request: &HeaderMap) -> bool {
    request.keys().any(|name| is_precondition(name) || matches!(*name, header::RANGE | header::IF_RANGE))
}

fn has_precondition(request: &HeaderMap) -> bool {
    request.keys().any(is_precondition)
}

fn is_precondition(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::IF_MATCH | header::IF_UNMODIFIED_SINCE | header::IF_NONE_MATCH | header::IF_MODIFIED_SINCE
    )
}

/// Evaluates the preconditions in the order of §13.2.2.
pub(crate) fn evaluate(request: &HeaderMap, response: &HeaderMap) -> Precondition {
    let has = |name| request.contains_key(name);
    if has(header::IF_MATCH) {
        if !names_etag(request, header::IF_MATCH, response, is_strong_match) {
            return Precondition::Failed;
        }
    } else if let Some(false) =
        unmodified_since(request.get(header::IF_UNMODIFIED_SINCE), response.get(header::LAST_MODIFIED))
    {
        return Precondition::Failed;
    }
    let client_has_it = if has(header::IF_NONE_MATCH) {
        names_etag(request, header::IF_NONE_MATCH, response, is_weak_match)
    } else {
        // A response without `Last-Modified` was last modified at its `Date` at the latest (RFC 9111 §4.3.2).
        let modified = response.get(header::LAST_MODIFIED).or_else(|| response.get(header::DATE));
        unmodified_since(request.get(header::IF_MODIFIED_SINCE), modified) == Some(true)
    };
    if client_has_it { Precondition::NotModified } else { Precondition::Holds }
}

/// Whether a `Range` applies to this response (§13.1.5): there is no `If-Range`, or its validator equals that
/// of the response by strong comparison.
fn if_range_holds(request: &HeaderMap, response: &HeaderMap) -> bool {
    let Some(validator) = request.get(header::IF_RANGE) else { return true };
    let is_tag = validator.as_bytes().starts_with(b"\"") || validator.as_bytes().starts_with(b"W/");
    if is_tag {
        let etag = response.get(header::ETAG).map(HeaderValue::as_bytes);
        return etag.is_some_and(|etag| is_strong_match(validator.as_bytes(), etag));
    }
    let now = SystemTime::now();
    let date_of = |name| response.get(name).and_then(|value| parse_date(value, now));
    // A date is a strong validator only if the representation could not change twice in that second
    // (§8.8.2.2).
    match (parse_date(validator, now), date_of(header::LAST_MODIFIED), date_of(header::DATE)) {
        (Some(validator), Some(modified), Some(date)) => validator == modified && modified < date,
        _ => false,
    }
}

/// Whether the field has the entity tag of the response, or `*`.
fn names_etag(
    request: &HeaderMap,
    field: HeaderName,
    response: &HeaderMap,
    matches: fn(&[u8], &[u8]) -> bool,
) -> bool {
    let etag = response.get(header::ETAG).map(HeaderValue::as_bytes);
    let mut tags = request.get_all(field).iter().flat_map(|line| fields::split_list(line.as_bytes()));
    tags.any(|tag| tag == b"*" || etag.is_some_and(|etag| matches(tag, etag)))
}

/// `None` if either date is missing or invalid: then the field is ignored.
fn unmodified_since(date: Option<&HeaderValue>, modified: Option<&HeaderValue>) -> Option<bool> {
    let now = SystemTime::now();
    let date = parse_date(date?, now)?;
    Some(parse_date(modified?, now)? <= date)
}

/// §8.8.3.2.
fn is_weak_match(a: &[u8], b: &[u8]) -> bool {
    is_same(opaque_tag(a), opaque_tag(b))
}

fn is_strong_match(a: &[u8], b: &[u8]) -> bool {
    is_same(a, b) && !a.starts_with(b"W/")
}

/// An entity tag without its weakness (§8.8.3.2).
fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Makes a request conditional on the validators of a stored response (RFC 9111 §4.3.1).
pub(crate) fn make_conditional(
    request: &mut HeaderMap,
    tag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
) {
    if let Some(tag) = tag {
        request.insert(header::IF_NONE_MATCH, tag);
    }
    if let Some(modified) = modified {
        request.insert(header::IF_MODIFIED_SINCE, modified);
    }
}

/// The entity tag, if it is a valid strong one, which names the bytes (RFC 9110 §8.8.1).
pub(crate) fn strong_tag(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(header::ETAG).filter(|tag| is_strong_tag(tag))
}

pub(crate) fn is_strong_tag(tag: &HeaderValue) -> bool {
    match tag.as_bytes() {
        [b'"', opaque @ .., b'"'] => !opaque.contains(&b'"'),
        _ => false,
    }
}

/// Whether a validator that both heads have is the same (RFC 9111 §4.3.4, §4.3.5): the entity tag, or else
/// the date. `None` if they have none in common.
pub(crate) fn confirms(update: &HeaderMap, stored: &HeaderMap) -> Option<bool> {
    let compare = |name: HeaderName, matches: fn(&[u8], &[u8]) -> bool| {
        let (new, old) = (update.get(&name)?, stored.get(&name)?);
        Some(matches(new.as_bytes(), old.as_bytes()))
    };
    compare(header::ETAG, is_weak_match).or_else(|| compare(header::LAST_MODIFIED, <[u8]>::eq))
}

/// Updates a stored head from a 304 (RFC 9111 §3.2): each field of the 304 replaces the stored one, except
/// those that describe the bytes of the stored body. A 304 without a `Date` was made now (RFC 9110 §6.6.1):
/// with the old one, a past `Expires` would give another lifetime.
///
/// A strong tag does not replace another one either: it names bytes, and the stored ones came under the other
/// tag. Compressing proxies weaken the tag of a 200, but not that of a 304.
///
/// `Vary` stays as well: a layer that adds a selecting field to a 200 may not add it to a 304.
pub(crate) fn freshen(stored: &mut HeaderMap, update: &HeaderMap) {
    let renames = strong_tag(update).is_some_and(|tag| strong_tag(stored) != Some(tag));
    let is_kept = |name: &HeaderName| {
        describes_bytes(name) || *name == header::VARY || renames && *name == header::ETAG
    };
    let is_update = |name: &HeaderName| !is_kept(name) && update.contains_key(name);
    fields::remove_all(stored, |name| *name == header::AGE || *name == header::DATE || is_update(name));
    for (name, value) in update.iter().filter(|(name, _)| !is_kept(name)) {
        stored.append(name.clone(), value.clone());
    }
}

/// Whether the stored bytes depend on a field. The digests of a 304 are those of its own, empty content (RFC
/// 9530 §2).
fn describes_bytes(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name)
        || fields::is_digest(name)
}

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
        make_part(response, wanted.len(), wanted.len() == self.len());
        set(response, header::CONTENT_RANGE, &text);
        Some(wanted.start - self.first..wanted.end - self.first)
    }

    /// Whether [`apply`](Self::apply) would succeed.
    pub(crate) fn answers(self, request: &HeaderMap, response: &HeaderMap) -> bool {
        let wanted = request.get(header::RANGE).and_then(|range| self.resolve(range));
        wanted.is_some() && if_range_holds(request, response)
    }
}

/// Whether a request asks for one part without a condition (a precondition, `If-Range`): all such requests
/// may share the response.
pub(crate) fn asks_for_one_part(method: &Method, request: &HeaderMap) -> bool {
    let Some((range, false)) = first_line(request, &header::RANGE) else { return false };
    let has_other = has_precondition(request) || request.contains_key(header::IF_RANGE);
    method == Method::GET && !has_other && one_spec(range).is_some()
}

/// Turns a 200 into the part of it that the request asks for: 206, or 416 (§15.3.7, §15.5.17).
///
/// `response` is the response without `Range`, and `body` its body.
pub(crate) fn apply_range<B: From<Bytes>>(
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

/// Like [`apply_range`], for a body of this length that is yet to come: returns the range of it to send, or `None`
/// for the whole, also where several parts are wanted.
pub(crate) fn cut_to_range<B>(
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
        Some(range) if whole && if_range_holds(request, response.headers()) => {
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
            make_failed(response, StatusCode::RANGE_NOT_SATISFIABLE);
            set(response, header::CONTENT_RANGE, &format!("bytes */{length}"));
            Some(0..0)
        }
        Wanted::Parts(parts) => {
            let part = parts.into_iter().next()?;
            make_part(response, part.len(), part.len() == length);
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
    make_part(response, joined.len(), false);
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

/// Turns the head of a 200 into that of a 304 (RFC 9110 §15.4.5): fields that describe the content are
/// removed. Those about the use of the stored response stay, since the client has that response.
pub(crate) fn make_not_modified<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    fields::remove_all(response.headers_mut(), describes_content);
}

/// Turns the head of a 200 into that of a 412 or 416 without content.
///
/// Fields that describe the content are removed, and those that would allow another cache to store the
/// response to the condition or range of one client (RFC 9111 §3). `Date` is now, whatever the age of the
/// 200. The validators stay: they tell which representation was compared.
pub(crate) fn make_failed<B>(response: &mut Response<B>, status: StatusCode) {
    *response.status_mut() = status;
    let headers = response.headers_mut();
    fields::remove_all(headers, |name| {
        describes_content(name) || is_of_representation(name) || is_for_caches(name) || *name == header::DATE
    });
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(header::DATE, date);
    }
}

/// Turns the head of a response into that of a 206 with `length` bytes of its content (RFC 9110 §15.3.7).
/// Digests of the content are removed unless the part is all of it; a part has no trailers.
fn make_part<B>(response: &mut Response<B>, length: usize, is_all: bool) {
    fields::remove_all(response.headers_mut(), |name| {
        !is_all && fields::is_digest(name) || [header::TRAILER, header::TRANSFER_ENCODING].contains(name)
    });
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
}

/// Whether a field is about the content of a message or its transfer (RFC 9110 §8.3 to §8.6, §6.6.2; RFC
/// 9530).
fn describes_content(name: &HeaderName) -> bool {
    let is_named = [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_RANGE,
        header::TRANSFER_ENCODING,
        header::TRAILER,
    ];
    is_named.contains(name) || fields::is_digest(name) || ["repr-digest", "digest"].contains(&name.as_str())
}

/// Whether a field is about the representation, which a 304 may repeat and an error may not.
fn is_of_representation(name: &HeaderName) -> bool {
    [header::CONTENT_LOCATION, header::CONTENT_DISPOSITION].contains(name)
}

/// Whether a field is about the storage and age of a response, also for particular caches (RFC 9111 §5,
/// RFC 9213).
fn is_for_caches(name: &HeaderName) -> bool {
    let is_named =
        [header::AGE, header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA, header::WARNING].contains(name);
    is_named || name.as_str().ends_with("-cache-control") || name.as_str() == "surrogate-control"
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
