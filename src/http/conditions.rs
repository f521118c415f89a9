//! Conditional requests (RFC 9110 §13), of clients and of the cache to the origin.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{date::parse, fields};
use crate::work::is_same;

/// The fields of preconditions (§13.1).
pub(super) const PRECONDITIONS: [HeaderName; 4] =
    [header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];

/// The result of evaluating the preconditions of a GET or HEAD request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    Holds,
    /// 304: the client has the representation.
    NotModified,
    /// 412.
    Failed,
}

/// Removes preconditions and ranges from a request, so that the response is for all clients, and returns
/// them.
pub(crate) fn take_conditions(request: &mut HeaderMap) -> Option<HeaderMap> {
    if !is_conditional(request) {
        return None;
    }
    let mut taken = HeaderMap::new();
    for name in PRECONDITIONS.into_iter().chain([header::RANGE, header::IF_RANGE]) {
        if let http::header::Entry::Occupied(entry) = request.entry(&name) {
            let (_, values) = entry.remove_entry_mult();
            for value in values {
                taken.append(name.clone(), value);
            }
        }
    }
    Some(taken)
}

/// Whether a request has any precondition or range.
pub(crate) fn is_conditional(request: &HeaderMap) -> bool {
    request.keys().any(|name| is_precondition(name) || matches!(*name, header::RANGE | header::IF_RANGE))
}

pub(crate) fn has_precondition(request: &HeaderMap) -> bool {
    request.keys().any(is_precondition)
}

fn is_precondition(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::IF_MATCH | header::IF_UNMODIFIED_SINCE | header::IF_NONE_MATCH | header::IF_MODIFIED_SINCE
    )
}

/// Evaluates the preconditions in the order of §13.2.2.
pub(crate) fn evaluate(request: &HeaderMap, response: &HeaderMap) -> Precondition {
    let has = |name| request.contains_key(name);
    if has(header::IF_MATCH) {
        if !names_etag(request, header::IF_MATCH, response, is_strong_match) {
            return Precondition::Failed;
        }
    } else if let Some(false) =
        unmodified_since(request.get(header::IF_UNMODIFIED_SINCE), response.get(header::LAST_MODIFIED))
    {
        return Precondition::Failed;
    }
    let client_has_it = if has(header::IF_NONE_MATCH) {
        names_etag(request, header::IF_NONE_MATCH, response, is_weak_match)
    } else {
        // A response without `Last-Modified` was last modified at its `Date` at the latest (RFC 9111 §4.3.2).
        let modified = response.get(header::LAST_MODIFIED).or_else(|| response.get(header::DATE));
        unmodified_since(request.get(header::IF_MODIFIED_SINCE), modified) == Some(true)
    };
    if client_has_it { Precondition::NotModified } else { Precondition::Holds }
}

/// Whether a `Range` applies to this response (§13.1.5): there is no `If-Range`, or its validator equals that
/// of the response by strong comparison.
pub(crate) fn if_range_holds(request: &HeaderMap, response: &HeaderMap) -> bool {
    let Some(validator) = request.get(header::IF_RANGE) else { return true };
    let is_tag = validator.as_bytes().starts_with(b"\"") || validator.as_bytes().starts_with(b"W/");
    if is_tag {
        let etag = response.get(header::ETAG).map(HeaderValue::as_bytes);
        return etag.is_some_and(|etag| is_strong_match(validator.as_bytes(), etag));
    }
    let now = std::time::SystemTime::now();
    let date_of = |name| response.get(name).and_then(|value| parse(value, now));
    // A date is a strong validator only if the representation could not change twice in that second
    // (§8.8.2.2).
    match (parse(validator, now), date_of(header::LAST_MODIFIED), date_of(header::DATE)) {
        (Some(validator), Some(modified), Some(date)) => validator == modified && modified < date,
        _ => false,
    }
}

/// Whether the field has the entity tag of the response, or `*`.
fn names_etag(
    request: &HeaderMap,
    field: HeaderName,
    response: &HeaderMap,
    matches: fn(&[u8], &[u8]) -> bool,
) -> bool {
    let etag = response.get(header::ETAG).map(HeaderValue::as_bytes);
    let mut tags = request.get_all(field).iter().flat_map(|line| fields::split_list(line.as_bytes()));
    tags.any(|tag| tag == b"*" || etag.is_some_and(|etag| matches(tag, etag)))
}

/// `None` if either date is missing or invalid: then the field is ignored.
fn unmodified_since(date: Option<&HeaderValue>, modified: Option<&HeaderValue>) -> Option<bool> {
    let now = std::time::SystemTime::now();
    let date = parse(date?, now)?;
    Some(parse(modified?, now)? <= date)
}

/// §8.8.3.2.
fn is_weak_match(a: &[u8], b: &[u8]) -> bool {
    is_same(opaque_tag(a), opaque_tag(b))
}

fn is_strong_match(a: &[u8], b: &[u8]) -> bool {
    is_same(a, b) && !a.starts_with(b"W/")
}

/// An entity tag without its weakness (§8.8.3.2).
fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Makes a request conditional on the validators of a stored response (RFC 9111 §4.3.1).
pub(crate) fn make_conditional(
    request: &mut HeaderMap,
    tag: Option<HeaderValue>,
    modified: Option<HeaderValue>,
) {
    if let Some(tag) = tag {
        request.insert(header::IF_NONE_MATCH, tag);
    }
    if let Some(modified) = modified {
        request.insert(header::IF_MODIFIED_SINCE, modified);
    }
}

/// The entity tag, if it is a valid strong one, which names the bytes (RFC 9110 §8.8.1).
pub(crate) fn strong_tag(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(header::ETAG).filter(|tag| is_strong_tag(tag))
}

pub(crate) fn is_strong_tag(tag: &HeaderValue) -> bool {
    match tag.as_bytes() {
        [b'"', opaque @ .., b'"'] => !opaque.contains(&b'"'),
        _ => false,
    }
}

/// Whether a validator that both heads have is the same (RFC 9111 §4.3.4, §4.3.5): the entity tag, or else
/// the date. `None` if they have none in common.
pub(crate) fn confirms(update: &HeaderMap, stored: &HeaderMap) -> Option<bool> {
    let compare = |name: HeaderName, matches: fn(&[u8], &[u8]) -> bool| {
        let (new, old) = (update.get(&name)?, stored.get(&name)?);
        Some(matches(new.as_bytes(), old.as_bytes()))
    };
    compare(header::ETAG, is_weak_match).or_else(|| compare(header::LAST_MODIFIED, <[u8]>::eq))
}

/// Updates a stored head from a 304 (RFC 9111 §3.2): each field of the 304 replaces the stored one, except
/// those that describe the bytes of the stored body. A 304 without a `Date` was made now (RFC 9110 §6.6.1):
/// with the old one, a past `Expires` would give another lifetime.
///
/// A strong tag does not replace another one either: it names bytes, and the stored ones came under the other
/// tag. Compressing proxies weaken the tag of a 200, but not that of a 304.
///
/// `Vary` stays as well: a layer that adds a selecting field to a 200 may not add it to a 304.
pub(crate) fn freshen(stored: &mut HeaderMap, update: &HeaderMap) {
    let renames = strong_tag(update).is_some_and(|tag| strong_tag(stored) != Some(tag));
    let is_kept = |name: &HeaderName| {
        describes_bytes(name) || *name == header::VARY || renames && *name == header::ETAG
    };
    let is_update = |name: &HeaderName| !is_kept(name) && update.contains_key(name);
    fields::remove_all(stored, |name| *name == header::AGE || *name == header::DATE || is_update(name));
    for (name, value) in update.iter().filter(|(name, _)| !is_kept(name)) {
        stored.append(name.clone(), value.clone());
    }
}

/// Whether the stored bytes depend on a field. The digests of a 304 are those of its own, empty content (RFC
/// 9530 §2).
fn describes_bytes(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name)
        || fields::is_digest(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn outcome(fields: &[(&'static str, &'static str)]) -> Precondition {
        evaluate(&map(fields), &map(&[("etag", "\"a,b\""), ("last-modified", MODIFIED)]))
    }

    #[test]
    fn if_none_match_compares_weakly_and_goes_before_if_modified_since() {
        use Precondition::{Holds, NotModified};
        assert_eq!(outcome(&[("if-none-match", "\"a,b\"")]), NotModified);
        assert_eq!(outcome(&[("if-none-match", "\"x\", W/\"a,b\"")]), NotModified);
        assert_eq!(outcome(&[("if-none-match", "\"x\""), ("if-none-match", "*")]), NotModified);
        assert_eq!(outcome(&[("if-none-match", "\"a\"")]), Holds);
        assert_eq!(outcome(&[("if-modified-since", MODIFIED)]), NotModified);
        assert_eq!(outcome(&[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)]), Holds);
        assert_eq!(outcome(&[("if-modified-since", BEFORE)]), Holds);
        assert_eq!(outcome(&[("if-modified-since", "yesterday")]), Holds);
        assert_eq!(outcome(&[]), Holds);
        assert_eq!(evaluate(&map(&[("if-none-match", "\"\"")]), &map(&[])), Holds);
    }

    #[test]
    fn without_last_modified_the_date_is_compared_with_if_modified_since_alone() {
        use Precondition::{Holds, NotModified};
        let at = |condition, date| evaluate(&map(&[(condition, date)]), &map(&[("date", MODIFIED)]));
        assert_eq!(at("if-modified-since", MODIFIED), NotModified);
        assert_eq!(at("if-modified-since", BEFORE), Holds);
        assert_eq!(at("if-unmodified-since", BEFORE), Holds);
        let unreadable = map(&[("date", MODIFIED), ("last-modified", "yesterday")]);
        assert_eq!(evaluate(&map(&[("if-modified-since", MODIFIED)]), &unreadable), Holds);
    }

    #[test]
    fn if_match_compares_strongly_and_goes_before_all_others() {
        use Precondition::{Failed, Holds, NotModified};
        assert_eq!(outcome(&[("if-match", "\"a,b\"")]), Holds);
        assert_eq!(outcome(&[("if-match", "*")]), Holds);
        assert_eq!(outcome(&[("if-match", "W/\"a,b\"")]), Failed);
        assert_eq!(outcome(&[("if-match", "\"x\""), ("if-none-match", "*")]), Failed);
        assert_eq!(outcome(&[("if-match", "*"), ("if-unmodified-since", BEFORE)]), Holds);
        assert_eq!(outcome(&[("if-match", "*"), ("if-none-match", "*")]), NotModified);
        assert_eq!(evaluate(&map(&[("if-match", "W/\"a\"")]), &map(&[("etag", "W/\"a\"")])), Failed);
    }

    #[test]
    fn if_unmodified_since_fails_only_on_what_is_known_to_have_changed() {
        use Precondition::{Failed, Holds};
        assert_eq!(outcome(&[("if-unmodified-since", MODIFIED)]), Holds);
        assert_eq!(outcome(&[("if-unmodified-since", BEFORE)]), Failed);
        assert_eq!(outcome(&[("if-unmodified-since", "yesterday")]), Holds);
        assert_eq!(evaluate(&map(&[("if-unmodified-since", BEFORE)]), &map(&[])), Holds);
    }

    #[test]
    fn if_range_needs_a_strong_validator() {
        let response =
            [("etag", "\"a\""), ("last-modified", MODIFIED), ("date", "Sun, 06 Nov 1994 08:49:38 GMT")];
        let holds = |value| if_range_holds(&map(&[("if-range", value)]), &map(&response));
        assert!(if_range_holds(&map(&[]), &map(&[])));
        assert!(holds("\"a\"") && holds(MODIFIED));
        for other in ["\"b\"", "W/\"a\"", BEFORE, "yesterday", "", "*"] {
            assert!(!holds(other), "{other}");
        }
        assert!(!if_range_holds(&map(&[("if-range", "W/\"a\"")]), &map(&[("etag", "W/\"a\"")])));
        let same_second = [("last-modified", MODIFIED), ("date", MODIFIED)];
        assert!(!if_range_holds(&map(&[("if-range", MODIFIED)]), &map(&same_second)));
    }

    #[test]
    fn preconditions_are_taken_out_whole() {
        let mut request = map(&[("if-none-match", "\"a\""), ("if-none-match", "\"b\""), ("accept", "x")]);
        let taken = take_conditions(&mut request).unwrap();
        assert_eq!(taken.get_all("if-none-match").iter().count(), 2);
        assert_eq!(request, map(&[("accept", "x")]));
        assert!(is_conditional(&taken) && !is_conditional(&request));
        assert!(is_conditional(&map(&[("range", "bytes=0-")])));
    }

    #[test]
    fn a_response_with_the_same_validator_is_confirmed() {
        let stored = map(&[("etag", "\"1\""), ("last-modified", MODIFIED)]);
        let both = |tag, date| map(&[("etag", tag), ("last-modified", date)]);
        assert_eq!(confirms(&map(&[]), &stored), None);
        assert_eq!(confirms(&map(&[("etag", "\"1\"")]), &stored), Some(true));
        assert_eq!(confirms(&map(&[("etag", "W/\"1\"")]), &stored), Some(true));
        assert_eq!(confirms(&map(&[("etag", "\"2\"")]), &stored), Some(false));
        assert_eq!(confirms(&map(&[("last-modified", MODIFIED)]), &stored), Some(true));
        assert_eq!(confirms(&map(&[("last-modified", BEFORE)]), &stored), Some(false));
        assert_eq!(confirms(&both("\"1\"", BEFORE), &stored), Some(true), "the tag takes precedence");
        assert_eq!(confirms(&both("\"2\"", MODIFIED), &stored), Some(false));
        let dated = map(&[("last-modified", MODIFIED)]);
        assert_eq!(confirms(&both("\"1\"", MODIFIED), &dated), Some(true), "a tag that is new");
        assert_eq!(confirms(&both("\"1\"", BEFORE), &dated), Some(false));
    }

    #[test]
    fn a_304_replaces_every_field_but_those_that_describe_or_select_the_stored_bytes() {
        let mut stored = map(&[
            ("etag", "\"1\""),
            ("vary", "cookie"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("x", "old"),
            ("x", "older"),
            ("age", "9"),
            ("date", "old"),
        ]);
        freshen(
            &mut stored,
            &map(&[
                ("x", "new"),
                ("vary", "accept"),
                ("content-length", "0"),
                ("content-encoding", "br"),
                ("content-range", "bytes 0-1/2"),
                ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
                ("content-digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"),
                ("content-type", "yes"),
                ("y", "1"),
            ]),
        );
        let expected = [
            ("etag", "\"1\""),
            ("vary", "cookie"),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("x", "new"),
            ("content-type", "yes"),
            ("y", "1"),
        ];
        assert_eq!(stored, map(&expected));
    }
}
