//! The response fields that a cache needs, found in one pass, and the declared length of the body of a message
//! (RFC 9110 §8.6, RFC 9112 §6).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body as HttpBody, SizeHint};

use super::{
    cache_control::{CacheControl, MAX_DELTA, seconds},
    fields::{digits, has, parse_date, remove_all, split_list},
    request_fields::{Keyed, Line},
    vary::Vary,
};
use crate::tags::{CACHE_GROUPS, CACHE_TAG, SURROGATE_KEY};

/// The fields that decide about storing a response, each parsed once.
///
/// Fields that few responses have, or that are rarely needed, stay in the header map until then.
#[derive(Debug)]
pub(crate) struct ResponseFields {
    /// When the fields were read.
    now: SystemTime,
    /// `Date`, if it is valid.
    date: Option<SystemTime>,
    /// `Age`.
    age: Duration,
    pub(crate) vary: Vary,
    /// `Cache-Control`, not a targeted field that may replace it.
    pub(crate) cache_control: CacheControl,
    pub(crate) has_validator: bool,
    has_expires: bool,
    pub(crate) sets_cookie: bool,
    framing: Framing,
    /// The declared length of the body.
    pub(crate) length: Result<Option<u64>, NoLength>,
    /// The length of the content, from the head or from the body.
    pub(crate) content: Option<u64>,
    /// Whether a field that is only for this cache names tags.
    pub(crate) has_tags: bool,
    /// Whether the response belongs to groups (RFC 9875 §2).
    pub(crate) has_groups: bool,
}

impl ResponseFields {
    pub(crate) fn of(headers: &HeaderMap, now: SystemTime) -> Self {
        let mut fields = Self {
            now,
            date: None,
            age: Duration::ZERO,
            vary: Vary::Nothing,
            cache_control: CacheControl::default(),
            has_validator: false,
            has_expires: false,
            sets_cookie: false,
            framing: Framing::NONE,
            length: Ok(None),
            content: None,
            has_tags: false,
            has_groups: false,
        };
        // Of fields that may occur once only the first counts.
        let (mut has_date, mut has_age, mut vary) = (false, false, Line::None);
        for (name, value) in headers {
            match *name {
                header::DATE if !has_date => (has_date, fields.date) = (true, parse_date(value, now)),
                header::AGE if !has_age => (has_age, fields.age) = (true, age_value(value)),
                header::VARY => vary = vary.and(value),
                header::CACHE_CONTROL => fields.cache_control.read(value),
                header::ETAG | header::LAST_MODIFIED => fields.has_validator = true,
                header::EXPIRES => fields.has_expires = true,
                header::SET_COOKIE => fields.sets_cookie = true,
                header::CONTENT_LENGTH => fields.framing.read_length(value),
                header::TRANSFER_ENCODING => fields.framing.read_coding(value),
                _ => {
                    fields.has_tags |= *name == SURROGATE_KEY || *name == CACHE_TAG;
                    fields.has_groups |= *name == CACHE_GROUPS;
                }
            }
        }
        fields.vary = Vary::of(vary, headers);
        fields.length = fields.framing.declared();
        fields
    }

    /// For a response to a request whose key holds `keyed`.
    pub(crate) fn under(self, keyed: &Keyed) -> Self {
        Self { vary: self.vary.without(keyed), ..self }
    }

    /// Corrects the declared length of the response to a request with this method, and notes the length that
    /// its body will have.
    pub(crate) fn settle_length<B: HttpBody>(&mut self, method: &Method, response: &mut Response<B>) {
        self.content = self.framing.settle_response(response).content_of(*method == Method::HEAD, response);
        let status = response.status();
        if response.extensions().get::<NoLength>().is_some() {
            self.length = Err(NoLength);
        } else if *method != Method::HEAD && status != StatusCode::NOT_MODIFIED {
            // Others declare the length of a body that they do not have (RFC 9110 §8.6).
            self.length = self.framing.length_of(status, &response.body().size_hint());
        }
    }

    /// Whether the head has a valid `Date`.
    pub(crate) fn has_date(&self) -> bool {
        self.date.is_some()
    }

    /// The explicit lifetime of the response in a shared cache (RFC 9111 §4.2.1): `s-maxage`, else `max-age`,
    /// else `Expires` minus `Date`. `None` if it has none.
    ///
    /// An unreadable one means stale (§5.3). `Expires` does not count beside a targeted field (RFC 9213 §2.2).
    pub(super) fn explicit_lifetime(
        &self,
        cache_control: &CacheControl,
        headers: &HeaderMap,
    ) -> Option<Duration> {
        if let Some(lifetime) = cache_control.lifetime() {
            return Some(lifetime);
        }
        if cache_control.is_targeted() || !self.has_expires {
            return None;
        }
        let expires = parse_date(headers.get(header::EXPIRES)?, self.now);
        let date = self.date.unwrap_or(self.now);
        Some(expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default().min(MAX_DELTA))
    }

    /// For how long the representation had not changed when it was sent (RFC 9111 §4.2.2), if that is known.
    pub(super) fn unchanged_for(&self, headers: &HeaderMap) -> Option<Duration> {
        let modified = parse_date(headers.get(header::LAST_MODIFIED)?, self.now)?;
        let date = self.date.unwrap_or(self.now);
        date.duration_since(modified).ok()
    }

    /// How old the response was when it came in: `corrected_initial_age` of RFC 9111 §4.2.3.
    ///
    /// `delay` is the time from the request to the response. All of it counts, since the response may have been
    /// made as soon as the request was sent.
    pub(crate) fn initial_age(&self, delay: Duration) -> Duration {
        let apparent = self.date.and_then(|date| self.now.duration_since(date).ok()).unwrap_or_default();
        // `Date` has whole seconds, so the difference does too.
        let apparent = Duration::from_secs(apparent.as_secs());
        let corrected = self.age.saturating_add(delay);
        apparent.max(corrected).min(MAX_DELTA)
    }

    /// Adds a `Date` to a head without a valid one (RFC 9110 §6.6.1).
    pub(crate) fn give_date(&self, headers: &mut HeaderMap) {
        if (self.date.is_none() || !has(headers, &header::DATE))
            && let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(self.now))
        {
            headers.insert(header::DATE, now);
        }
    }
}

/// The first value of an `Age` field; zero if it is invalid (RFC 9111 §5.1).
pub(crate) fn age_value(value: &HeaderValue) -> Duration {
    let first = value.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
    seconds(first.trim_ascii()).unwrap_or_default()
}

/// How long the origin asks to be spared: seconds or a date (RFC 9110 §10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    seconds(value.as_bytes()).or_else(|| parse_date(value, now)?.duration_since(now).ok())
}

/// What a cache needs of a response that it only passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PassedFields {
    framing: Framing,
    /// `Location` or `Content-Location`, which may name another URI of the same origin.
    pub(crate) has_reference: bool,
    /// Groups to invalidate (RFC 9875 §3).
    pub(crate) has_groups: bool,
    /// Fields that are only for caches.
    pub(crate) has_tags: bool,
}

impl PassedFields {
    pub(crate) const NONE: Self =
        Self { framing: Framing::NONE, has_reference: false, has_groups: false, has_tags: false };

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::NONE;
        for (name, line) in headers {
            match *name {
                header::CONTENT_LENGTH => found.framing.read_length(line),
                header::TRANSFER_ENCODING => found.framing.read_coding(line),
                header::LOCATION | header::CONTENT_LOCATION => found.has_reference = true,
                // The most common fields need no comparison as text.
                header::CACHE_CONTROL
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::DATE
                | header::ETAG
                | header::LAST_MODIFIED
                | header::SERVER
                | header::SET_COOKIE
                | header::VARY => {}
                _ => found.note_unusual(name),
            }
        }
        found
    }

    /// Corrects the declared length of the response with these fields.
    pub(crate) fn settle_length<B: HttpBody>(&self, response: &mut Response<B>) {
        self.framing.settle_response(response);
    }

    /// Compared as text, whose length alone rules most names out.
    fn note_unusual(&mut self, name: &HeaderName) {
        match name.as_str() {
            "cache-group-invalidation" => self.has_groups = true,
            "surrogate-key" | "cache-tag" => self.has_tags = true,
            _ => {}
        }
    }
}

/// The declared length is invalid, ambiguous, or not the length of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoLength;

/// The fields that frame a message, as read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Framing {
    declared: Result<Option<u64>, NoLength>,
    /// Whether `Content-Length` is absent, or one number on one line.
    is_plain: bool,
    coding: Option<Coding>,
}

/// How the body was transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Any other, which has not been decoded.
    Other,
}

impl Framing {
    const NONE: Self = Self { declared: Ok(None), is_plain: true, coding: None };

    fn of(headers: &HeaderMap) -> Self {
        let mut framing = Self::NONE;
        for (name, line) in headers {
            framing.read(name, line);
        }
        framing
    }

    #[inline]
    fn read(&mut self, name: &HeaderName, line: &HeaderValue) {
        match *name {
            header::CONTENT_LENGTH => self.read_length(line),
            header::TRANSFER_ENCODING => self.read_coding(line),
            _ => {}
        }
    }

    fn read_length(&mut self, line: &HeaderValue) {
        let number = number_of(line.as_bytes());
        self.is_plain &= self.declared == Ok(None) && number.is_some();
        self.declared = match (self.declared, number.or_else(|| repeated_number(line))) {
            (Ok(None), Some(length)) => Ok(Some(length)),
            (Ok(Some(before)), Some(length)) if before == length => Ok(Some(length)),
            _ => Err(NoLength),
        };
    }

    fn read_coding(&mut self, line: &HeaderValue) {
        for coding in split_list(line.as_bytes()) {
            self.coding = match self.coding {
                None if coding.eq_ignore_ascii_case(b"chunked") => Some(Coding::Chunked),
                _ => Some(Coding::Other),
            };
        }
    }

    /// The declared length, without a body to compare it with.
    fn declared(self) -> Result<Option<u64>, NoLength> {
        match self.coding {
            None => self.declared,
            Some(Coding::Chunked) => Ok(None),
            Some(Coding::Other) => Err(NoLength),
        }
    }

    /// The declared length of the body of a response. An error if the body cannot have it.
    fn length_of(self, status: StatusCode, body: &SizeHint) -> Result<Option<u64>, NoLength> {
        match self.declared()? {
            _ if has_no_length(status) => Ok(None),
            Some(length) if length < body.lower() || body.upper().is_some_and(|upper| upper < length) => {
                Err(NoLength)
            }
            declared => Ok(declared),
        }
    }

    /// Leaves a response at most one `Content-Length`, and none that would cut off its body: a transfer
    /// coding overrides it (RFC 9112 §6.3), and so does a body that is known to be longer.
    ///
    /// A length beyond that of the body stays: it shows that the body is incomplete, or that the request was
    /// HEAD. Returns an error if the removed field contradicted itself or the body.
    #[inline]
    fn settle(
        &mut self,
        status: StatusCode,
        headers: &mut HeaderMap,
        body: &SizeHint,
    ) -> Result<(), NoLength> {
        match self.declared {
            Ok(None) => return Ok(()),
            Ok(Some(length)) if self.coding.is_none() && !has_no_length(status) && length >= body.lower() => {
                if !self.is_plain {
                    headers.insert(header::CONTENT_LENGTH, length.into());
                }
                return Ok(());
            }
            _ => {}
        }
        remove_all(headers, |name| *name == header::CONTENT_LENGTH);
        (self.declared, self.is_plain) = (Ok(None), true);
        match self.coding.is_some() || has_no_length(status) {
            true => Ok(()),
            false => Err(NoLength),
        }
    }

    /// Like [`settle`](Self::settle), for a response whose fields were read. An error goes into its
    /// extensions, for the outer layers. Returns what the corrected fields declare.
    #[inline]
    fn settle_response<B: HttpBody>(mut self, response: &mut Response<B>) -> Self {
        let (status, size) = (response.status(), response.body().size_hint());
        if let Err(note) = self.settle(status, response.headers_mut(), &size) {
            response.extensions_mut().insert(note);
        }
        self
    }

    /// The length of the content of a response with these fields, if its head or its body tells it (RFC 9110
    /// §8.6).
    fn content_of<B: HttpBody>(self, is_head: bool, response: &Response<B>) -> Option<u64> {
        let declared = || self.declared().ok().flatten();
        match has_content(is_head, response.status()) {
            true => declared().or_else(|| response.body().size_hint().exact()),
            false => None,
        }
    }
}

/// Like [`Framing::settle_response`], for a response whose fields have not been read.
pub(crate) fn settle_length<B: HttpBody>(response: &mut Response<B>) {
    Framing::of(response.headers()).settle_response(response);
}

/// RFC 9110 §8.6.
fn has_no_length(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status.is_informational()
}

/// The declared length of the content of a message.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, NoLength> {
    Framing::of(headers).declared()
}

/// Like [`Framing::content_of`], for a response whose fields have not been read.
pub(crate) fn content_of<B: HttpBody>(is_head: bool, response: &Response<B>) -> Option<u64> {
    Framing::of(response.headers()).content_of(is_head, response)
}

/// The length of the content of a response to another method than HEAD, if its head declares one.
pub(crate) fn declared_content<B>(response: &Response<B>) -> Option<u64> {
    let has_content = has_content(false, response.status());
    content_length(response.headers()).ok().flatten().filter(|_| has_content)
}

/// Whether a response has content by the method of its request and its status (RFC 9110 §6.4.1).
fn has_content(is_head: bool, status: StatusCode) -> bool {
    let is_without = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    !is_head && !status.is_informational() && !is_without.contains(&status)
}

/// `None` for the largest number, which is also the result for all larger ones.
fn number_of(text: &[u8]) -> Option<u64> {
    digits(text).filter(|length| *length < u64::MAX)
}

/// The length of a line that repeats one number (RFC 9110 §8.6).
#[cold]
fn repeated_number(line: &HeaderValue) -> Option<u64> {
    let mut members =
        line.as_bytes().split(|byte| *byte == b',').map(|member| number_of(member.trim_ascii()));
    let first = members.next()??;
    members.all(|member| member == Some(first)).then_some(first)
}

#[cfg(test)]
#[path = "response_fields_tests.rs"]
mod tests;
