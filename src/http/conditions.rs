//! Conditional requests (RFC 9110 §13): the client's own, and the cache's to the origin.

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::cache_control::split_list;

/// Fields that ask for something else than the whole current representation, which only the
/// origin can answer for now.
const ORIGIN_ONLY: [HeaderName; 4] =
    [header::RANGE, header::IF_RANGE, header::IF_MATCH, header::IF_UNMODIFIED_SINCE];

/// Fields by which a client says what it has already (§13.1.2, §13.1.3).
const VALIDATING: [HeaderName; 2] = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];

/// Whether the answer depends on a range or on a precondition that may fail.
pub(crate) fn only_origin_can_answer(request: &HeaderMap) -> bool {
    ORIGIN_ONLY.iter().any(|name| request.contains_key(name))
}

/// Takes the fields out of the request by which the client says what it has, and returns
/// them: the origin is to answer everybody, not just this client.
pub(crate) fn take_validating(request: &mut HeaderMap) -> HeaderMap {
    let mut taken = HeaderMap::new();
    for name in VALIDATING {
        if let http::header::Entry::Occupied(entry) = request.entry(&name) {
            let (_, values) = entry.remove_entry_mult();
            for value in values {
                taken.append(name.clone(), value);
            }
        }
    }
    taken
}

/// Whether any condition or range is in the request.
pub(crate) fn is_conditional(request: &HeaderMap) -> bool {
    VALIDATING.iter().chain(&ORIGIN_ONLY).any(|name| request.contains_key(name))
}

/// Whether the client has this response already (§13.2.2, for GET and HEAD): `If-None-Match`
/// by weak comparison, and only without it `If-Modified-Since`.
pub(crate) fn client_has(conditions: &HeaderMap, response: &HeaderMap) -> bool {
    if conditions.contains_key(header::IF_NONE_MATCH) {
        let etag = response.get(header::ETAG).map(|etag| opaque_tag(etag.as_bytes()));
        let mut candidates =
            conditions.get_all(header::IF_NONE_MATCH).iter().flat_map(|line| split_list(line.as_bytes()));
        return candidates.any(|tag| tag == b"*" || Some(opaque_tag(tag)) == etag);
    }
    let (Some(since), Some(modified)) =
        (conditions.get(header::IF_MODIFIED_SINCE), response.get(header::LAST_MODIFIED))
    else {
        return false;
    };
    let now = std::time::SystemTime::now();
    let date = |value| super::date::parse(value, now);
    matches!((date(since), date(modified)), (Some(since), Some(modified)) if modified <= since)
}

/// An entity tag without its weakness (§8.8.3.2).
fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Turns the head of a 200 into that of a 304 (§15.4.5): what describes the content goes.
pub(crate) fn make_not_modified(status: &mut StatusCode, headers: &mut HeaderMap) {
    *status = StatusCode::NOT_MODIFIED;
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_RANGE,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
}

/// Whether a stored response can be revalidated at all.
pub(crate) fn has_validator(response: &HeaderMap) -> bool {
    response.contains_key(header::ETAG) || response.contains_key(header::LAST_MODIFIED)
}

/// Asks the origin whether the stored response is still the current one (RFC 9111 §4.3.1).
pub(crate) fn make_conditional(request: &mut HeaderMap, stored: &HeaderMap) {
    for (validator, condition) in
        [(header::ETAG, header::IF_NONE_MATCH), (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE)]
    {
        if let Some(value) = stored.get(validator) {
            request.insert(condition, value.clone());
        }
    }
}

/// Updates a stored head from a 304 (RFC 9111 §3.2): every field that the 304 has replaces the
/// stored one, but for the length, encoding, type and range of the content, which are those of
/// the stored body. A 304 without a `Date` was made now (RFC 9110 §6.6.1): counted from the old
/// one, an `Expires` that has passed would be another lifetime.
pub(crate) fn freshen(stored: &mut HeaderMap, update: &HeaderMap) {
    let kept =
        [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_TYPE, header::CONTENT_RANGE];
    stored.remove(header::AGE);
    stored.remove(header::DATE);
    for name in update.keys().filter(|name| !kept.contains(name)) {
        stored.remove(name);
        for value in update.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn if_none_match_compares_weakly_and_goes_first() {
        let response = map(&[("etag", "\"a,b\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let has = |fields: &[(&'static str, &'static str)]| client_has(&map(fields), &response);
        assert!(has(&[("if-none-match", "\"a,b\"")]));
        assert!(has(&[("if-none-match", "\"x\", W/\"a,b\"")]));
        assert!(has(&[("if-none-match", "\"x\""), ("if-none-match", "*")]));
        assert!(!has(&[("if-none-match", "\"a\"")]));
        let date = ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(has(&[date]));
        assert!(!has(&[("if-none-match", "\"x\""), date]));
        assert!(!has(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]));
        assert!(!has(&[("if-modified-since", "yesterday")]));
        assert!(!has(&[]));
        assert!(!client_has(&map(&[("if-none-match", "\"\"")]), &map(&[])));
    }

    #[test]
    fn conditions_are_taken_out_whole() {
        let mut request = map(&[("if-none-match", "\"a\""), ("if-none-match", "\"b\""), ("accept", "x")]);
        let taken = take_validating(&mut request);
        assert_eq!(taken.get_all("if-none-match").iter().count(), 2);
        assert_eq!(request, map(&[("accept", "x")]));
        assert!(is_conditional(&taken) && !is_conditional(&request));
    }

    #[test]
    fn a_304_replaces_fields_but_not_those_of_the_body() {
        let mut stored = map(&[
            ("etag", "\"1\""),
            ("content-length", "5"),
            ("x", "old"),
            ("x", "older"),
            ("age", "9"),
            ("date", "old"),
        ]);
        freshen(
            &mut stored,
            &map(&[("x", "new"), ("content-length", "0"), ("content-type", "no"), ("y", "1")]),
        );
        assert_eq!(stored, map(&[("etag", "\"1\""), ("content-length", "5"), ("x", "new"), ("y", "1")]));
    }
}
