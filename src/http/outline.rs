//! What of an answer's fields decides about storing it, found in one pass.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header};

use super::{date::parse, freshness::age_value, vary::Vary};

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
    pub(crate) has_validator: bool,
    pub(crate) has_expires: bool,
    pub(crate) sets_cookie: bool,
}

impl Outline {
    pub(crate) fn of(headers: &HeaderMap, now: SystemTime) -> Self {
        let mut outline = Self {
            now,
            date: None,
            age: Duration::ZERO,
            vary: Vary::Nothing,
            has_validator: false,
            has_expires: false,
            sets_cookie: false,
        };
        // Of what may be there once only the first counts.
        let (mut has_date, mut has_age, mut has_vary) = (false, false, false);
        for (name, value) in headers {
            match *name {
                header::DATE if !has_date => (has_date, outline.date) = (true, parse(value, now)),
                header::AGE if !has_age => (has_age, outline.age) = (true, age_value(value)),
                header::VARY => has_vary = true,
                header::ETAG | header::LAST_MODIFIED => outline.has_validator = true,
                header::EXPIRES => outline.has_expires = true,
                header::SET_COOKIE => outline.sets_cookie = true,
                _ => {}
            }
        }
        if has_vary {
            outline.vary = Vary::parse(headers);
        }
        outline
    }

    /// Gives the head a `Date` if it has no valid one (RFC 9110 §6.6.1).
    pub(crate) fn give_date(&self, headers: &mut HeaderMap) {
        if self.date.is_none()
            && let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(self.now))
        {
            headers.insert(header::DATE, now);
        }
    }
}
