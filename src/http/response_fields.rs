//! The response fields that a cache needs, found in one pass.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as HttpBody;

use super::{
    cache_control::{CacheControl, MAX_DELTA, seconds},
    credentials::Keyed,
    date::parse,
    fields::{Line, has},
    framing::{Framing, NoLength},
    tag_fields::{CACHE_GROUPS, CACHE_TAG, SURROGATE_KEY},
    vary::Vary,
};

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
                header::DATE if !has_date => (has_date, fields.date) = (true, parse(value, now)),
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
        let expires = parse(headers.get(header::EXPIRES)?, self.now);
        let date = self.date.unwrap_or(self.now);
        Some(expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default().min(MAX_DELTA))
    }

    /// For how long the representation had not changed when it was sent (RFC 9111 §4.2.2), if that is known.
    pub(super) fn unchanged_for(&self, headers: &HeaderMap) -> Option<Duration> {
        let modified = parse(headers.get(header::LAST_MODIFIED)?, self.now)?;
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

/// What a cache needs of a response that it only passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PassedFields {
    pub(crate) framing: Framing,
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

    /// Compared as text, whose length alone rules most names out.
    fn note_unusual(&mut self, name: &HeaderName) {
        match name.as_str() {
            "cache-group-invalidation" => self.has_groups = true,
            "surrogate-key" | "cache-tag" => self.has_tags = true,
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "response_fields_tests.rs"]
mod tests;
