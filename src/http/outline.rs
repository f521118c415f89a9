//! What of an answer's fields decides about storing it, found in one pass.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};

use super::{
    cache_control::CacheControl,
    date::parse,
    fields::{has, length},
    freshness::age_value,
    glance::Line,
    tag_fields::{CACHE_GROUPS, CACHE_TAG, SURROGATE_KEY},
    vary::Vary,
};

/// The fields that several questions are about, each read once. What only few answers have, or few
/// questions need, stays in the header map until somebody asks.
#[derive(Debug)]
pub(crate) struct Outline {
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
    /// How long it says that its body is, if it says anything. An error where no body is as long.
    pub(crate) length: Result<Option<u64>, NoLength>,
    /// Fields that name tags, for this cache alone.
    pub(crate) has_tags: bool,
    /// Groups to belong to (RFC 9875 §2).
    pub(crate) has_groups: bool,
}

/// What is said about the length is no number, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoLength;

impl Outline {
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
            length: Ok(None),
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
                header::CONTENT_LENGTH => outline.take_length(value),
                _ => {
                    outline.has_tags |= *name == SURROGATE_KEY || *name == CACHE_TAG;
                    outline.has_groups |= *name == CACHE_GROUPS;
                }
            }
        }
        outline.vary = Vary::of(vary, headers);
        outline
    }

    fn take_length(&mut self, line: &HeaderValue) {
        self.length = match (self.length, length(line)) {
            (Ok(None), Some(length)) => Ok(Some(length)),
            (Ok(Some(before)), Some(length)) if before == length => Ok(Some(length)),
            _ => Err(NoLength),
        };
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

    fn outline(fields: &[(&'static str, &str)]) -> Outline {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        Outline::of(&fields.iter().map(field).collect(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_length_is_declared_in_one_number() {
        let declared = |lines: &[&str]| {
            let fields: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            outline(&fields).length
        };
        assert_eq!(declared(&[]), Ok(None));
        assert_eq!(declared(&["7"]), Ok(Some(7)));
        assert_eq!(declared(&["7", "7"]), Ok(Some(7)));
        for junk in [&["7", "8"][..], &["7", "x"], &["x", "7"], &["7", "8", "8"], &["-1"], &["7, 7"], &[""]] {
            assert_eq!(declared(junk), Err(NoLength), "{junk:?}");
        }
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
            let Outline { has_tags, has_groups, has_validator, has_expires, sets_cookie, .. } =
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
