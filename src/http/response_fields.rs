//! What of an answer's fields decides about storing it, found in one pass.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as HttpBody;

use super::{
    cache_control::CacheControl,
    credentials::Keyed,
    date::parse,
    fields::{content_of, has},
    framing::{Framing, NoLength},
    freshness::age_value,
    request_fields::Line,
    tag_fields::{CACHE_GROUPS, CACHE_TAG, SURROGATE_KEY},
    vary::Vary,
};

/// The fields that several questions are about, each read once. What only few answers have, or few
/// questions need, stays in the header map until somebody asks.
#[derive(Debug)]
pub(crate) struct ResponseFields {
    /// When the answer was looked at.
    pub(crate) now: SystemTime,
    /// Its `Date`, if that is valid.
    pub(crate) date: Option<SystemTime>,
    /// Its `Age`.
    pub(crate) age: Duration,
    pub(crate) vary: Vary,
    /// What `Cache-Control` says, whatever a targeted field may say instead.
    pub(crate) cache_control: CacheControl,
    pub(crate) has_validator: bool,
    pub(crate) has_expires: bool,
    pub(crate) sets_cookie: bool,
    pub(crate) framing: Framing,
    /// The length that the body will have, as far as it is declared.
    pub(crate) length: Result<Option<u64>, NoLength>,
    /// The length that the content has to have, by its head or by its body.
    pub(crate) content: Option<u64>,
    /// Fields that name tags, for this cache alone.
    pub(crate) has_tags: bool,
    /// Groups to belong to (RFC 9875 §2).
    pub(crate) has_groups: bool,
}

impl ResponseFields {
    pub(crate) fn of(headers: &HeaderMap, now: SystemTime) -> Self {
        let mut outline = Self {
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
        // Of what may be there once only the first counts.
        let (mut has_date, mut has_age, mut vary) = (false, false, Line::None);
        for (name, value) in headers {
            match *name {
                header::DATE if !has_date => (has_date, outline.date) = (true, parse(value, now)),
                header::AGE if !has_age => (has_age, outline.age) = (true, age_value(value)),
                header::VARY => vary = vary.and(value),
                header::CACHE_CONTROL => outline.cache_control.read(value),
                header::ETAG | header::LAST_MODIFIED => outline.has_validator = true,
                header::EXPIRES => outline.has_expires = true,
                header::SET_COOKIE => outline.sets_cookie = true,
                header::CONTENT_LENGTH => outline.framing.read_length(value),
                header::TRANSFER_ENCODING => outline.framing.read_coding(value),
                _ => {
                    outline.has_tags |= *name == SURROGATE_KEY || *name == CACHE_TAG;
                    outline.has_groups |= *name == CACHE_GROUPS;
                }
            }
        }
        outline.vary = Vary::of(vary, headers);
        outline.length = outline.framing.declared();
        outline
    }

    /// Of a response to a request whose key holds this.
    pub(crate) fn under(self, keyed: &Keyed) -> Self {
        Self { vary: self.vary.without(keyed), ..self }
    }

    /// Corrects the length that the response to a method declares, and notes the one that its body will
    /// have.
    pub(crate) fn settle_length<B: HttpBody>(&mut self, method: &Method, response: &mut Response<B>) {
        self.framing.settle_response(response);
        self.content = content_of(*method == Method::HEAD, response);
        let status = response.status();
        if response.extensions().get::<NoLength>().is_some() {
            self.length = Err(NoLength);
        } else if *method != Method::HEAD && status != StatusCode::NOT_MODIFIED {
            // Those give the length of a body that they do not have (RFC 9110 §8.6).
            self.length = self.framing.length_of(status, &response.body().size_hint());
        }
    }

    /// Gives the head a `Date` if it has no valid one, or none any more (RFC 9110 §6.6.1).
    pub(crate) fn give_date(&self, headers: &mut HeaderMap) {
        if (self.date.is_none() || !has(headers, &header::DATE))
            && let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(self.now))
        {
            headers.insert(header::DATE, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn outline(fields: &[(&'static str, &str)]) -> ResponseFields {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        ResponseFields::of(&fields.iter().map(field).collect(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn of_what_is_there_twice_the_first_counts() {
        let dated = outline(&[
            ("date", "Thu, 01 Jan 1970 00:00:07 GMT"),
            ("date", "Thu, 01 Jan 1970 00:00:08 GMT"),
            ("age", "1"),
            ("age", "2"),
        ]);
        assert_eq!(dated.date, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(dated.age, Duration::from_secs(1));
        assert_eq!(outline(&[("date", "x"), ("date", "Thu, 01 Jan 1970 00:00:08 GMT")]).date, None);
    }

    #[test]
    fn what_is_there_is_seen() {
        let seen = |name| {
            let ResponseFields { has_tags, has_groups, has_validator, has_expires, sets_cookie, .. } =
                outline(&[("server", "x"), (name, "x")]);
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
}
