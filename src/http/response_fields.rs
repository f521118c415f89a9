//! The response fields that a cache needs, found in one pass.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as HttpBody;

use super::{
    cache_control::{CacheControl, seconds},
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
    pub(crate) now: SystemTime,
    /// `Date`, if it is valid.
    pub(crate) date: Option<SystemTime>,
    /// `Age`.
    pub(crate) age: Duration,
    pub(crate) vary: Vary,
    /// `Cache-Control`, not a targeted field that may replace it.
    pub(crate) cache_control: CacheControl,
    pub(crate) has_validator: bool,
    pub(crate) has_expires: bool,
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
mod tests {
    use super::*;
    use crate::http::tag_fields::CACHE_GROUP_INVALIDATION;

    fn response_fields(fields: &[(&'static str, &str)]) -> ResponseFields {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        ResponseFields::of(&fields.iter().map(field).collect(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn the_first_of_repeated_fields_counts() {
        let dated = response_fields(&[
            ("date", "Thu, 01 Jan 1970 00:00:07 GMT"),
            ("date", "Thu, 01 Jan 1970 00:00:08 GMT"),
            ("age", "1"),
            ("age", "2"),
        ]);
        assert_eq!(dated.date, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(dated.age, Duration::from_secs(1));
        assert_eq!(response_fields(&[("date", "x"), ("date", "Thu, 01 Jan 1970 00:00:08 GMT")]).date, None);
    }

    #[test]
    fn present_fields_are_found() {
        let seen = |name| {
            let ResponseFields { has_tags, has_groups, has_validator, has_expires, sets_cookie, .. } =
                response_fields(&[("server", "x"), (name, "x")]);
            [has_tags, has_groups, has_validator, has_expires, sets_cookie]
        };
        for (at, names) in [
            &["surrogate-key", "cache-tag"][..],
            &["cache-groups"],
            &["etag", "last-modified"],
            &["expires"],
            &["set-cookie"],
        ]
        .iter()
        .enumerate()
        {
            for name in *names {
                assert_eq!(seen(name), std::array::from_fn(|other| other == at), "{name}");
            }
        }
    }

    #[test]
    fn the_fields_of_a_passed_response_are_found() {
        let found = |name: &HeaderName| {
            let fields = [
                (header::ETAG, HeaderValue::from_static("x")),
                (name.clone(), HeaderValue::from_static("x")),
            ];
            PassedFields::of(&fields.into_iter().collect())
        };
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            assert_eq!(found(&name), PassedFields { has_reference: true, ..PassedFields::NONE });
        }
        for name in [&SURROGATE_KEY, &CACHE_TAG] {
            assert_eq!(found(name), PassedFields { has_tags: true, ..PassedFields::NONE });
        }
        assert_eq!(found(&CACHE_GROUP_INVALIDATION), PassedFields { has_groups: true, ..PassedFields::NONE });
        assert_eq!(found(&header::SERVER), PassedFields::NONE);
    }
}
