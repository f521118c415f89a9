//! Heads that the cache makes itself out of the head of a whole response.

use std::time::SystemTime;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::fields::{is_digest, remove_all};

/// Turns the head of a 200 into that of a 304 (RFC 9110 §15.4.5): what describes the content goes. What
/// says how the stored response may be used stays, for the client has that response.
pub(crate) fn make_not_modified<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    remove_all(response.headers_mut(), describes_content);
}

/// Turns the head of a 200 into that of a 412 or 416 without content.
///
/// Nothing stays that describes a content, nor what allows another cache to store the answer to one
/// client's condition or range (RFC 9111 §3). The message is made now, whatever the age of the 200.
/// The validators stay: they say which representation was compared.
pub(crate) fn make_failed<B>(response: &mut Response<B>, status: StatusCode) {
    *response.status_mut() = status;
    let headers = response.headers_mut();
    remove_all(headers, |name| {
        describes_content(name) || is_of_representation(name) || is_for_caches(name) || *name == header::DATE
    });
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(header::DATE, date);
    }
}

/// Turns the head of a response into that of a 206 with so many bytes of its content (RFC 9110
/// §15.3.7). Unless they are all of it, the digests of the content go; no part has trailers.
pub(crate) fn make_part<B>(response: &mut Response<B>, length: usize, is_all: bool) {
    remove_all(response.headers_mut(), |name| {
        !is_all && is_digest(name) || [header::TRAILER, header::TRANSFER_ENCODING].contains(name)
    });
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
}

/// Of the content of a message, or of how it is sent (RFC 9110 §8.3 to §8.6, §6.6.2; RFC 9530).
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
    is_named.contains(name) || is_digest(name) || ["repr-digest", "digest"].contains(&name.as_str())
}

/// Of the representation, which a 304 may name again and an error may not.
fn is_of_representation(name: &HeaderName) -> bool {
    [header::CONTENT_LOCATION, header::CONTENT_DISPOSITION].contains(name)
}

/// Says for how long and by whom a response may be used, also in fields for some caches alone
/// (RFC 9111 §5, RFC 9213).
fn is_for_caches(name: &HeaderName) -> bool {
    let is_named =
        [header::AGE, header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA, header::WARNING].contains(name);
    is_named || name.as_str().ends_with("-cache-control") || name.as_str() == "surrogate-control"
}
