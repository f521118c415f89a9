//! Which page a browser sent a request for.

use http::{HeaderName, HeaderValue, header, request::Parts};

use crate::key::original_uri;

/// W3C Fetch Metadata §2.3.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What kind of page sent a request, as far as browsers say it. Other clients send neither field, and only credentials
/// of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A page of the same origin.
    SameOrigin,
    /// The user, with no page in between.
    User,
    /// A page of another origin.
    OtherOrigin,
    /// The request does not say.
    Unknown,
}

impl Sender {
    pub(crate) fn of(head: &Parts) -> Self {
        let headers = &head.headers;
        if headers.contains_key(SEC_FETCH_SITE) {
            let all_are = |site: &[u8]| headers.get_all(SEC_FETCH_SITE).iter().all(|value| value == site);
            return match () {
                () if all_are(b"same-origin") => Self::SameOrigin,
                () if all_are(b"none") => Self::User,
                () => Self::OtherOrigin,
            };
        }
        // Browsers before fetch metadata (RFC 6454 §7).
        let Some(origin) = headers.get(header::ORIGIN) else { return Self::Unknown };
        let authority =
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
        let target = original_uri(head).authority().map(|target| target.as_str());
        let host = headers.get(header::HOST).and_then(|host: &HeaderValue| host.to_str().ok());
        match (authority, host.or(target)) {
            (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host) => Self::SameOrigin,
            _ => Self::OtherOrigin,
        }
    }
}
