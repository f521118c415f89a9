//! Heads that the cache derives from the head of a whole response.

use std::time::SystemTime;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::fields;

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
pub(crate) fn make_part<B>(response: &mut Response<B>, length: usize, is_all: bool) {
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
