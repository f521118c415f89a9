//! The fields in which answers name their tags and groups.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Item, List, ListEntry, Parser};

use super::fields::remove_all;

/// Separated by white space, and by commas beside it. For caches in front of the origin alone.
pub(crate) static SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// Separated by commas. For caches in front of the origin alone.
pub(crate) static CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// RFC 9875 §2, for all caches.
pub(crate) static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// RFC 9875 §3.
pub(crate) static CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Removes the fields that are for this cache alone.
pub(crate) fn strip(headers: &mut HeaderMap) {
    remove_all(headers, |name| *name == SURROGATE_KEY || *name == CACHE_TAG);
}

/// The tags in `Surrogate-Key` and `Cache-Tag`, as they stand there.
pub(crate) fn for_each_tag(headers: &HeaderMap, mut f: impl FnMut(&[u8])) {
    for line in headers.get_all(&SURROGATE_KEY) {
        let tags = line.as_bytes().split(u8::is_ascii_whitespace).map(without_commas);
        tags.filter(|tag| !tag.is_empty()).for_each(&mut f);
    }
    for line in headers.get_all(&CACHE_TAG) {
        // Not a list of tokens: a quotation mark is part of a tag.
        let tags = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        tags.filter(|tag| !tag.is_empty()).for_each(&mut f);
    }
}

/// A tag without the commas around it: many write the field as a list.
fn without_commas(mut tag: &[u8]) -> &[u8] {
    while let [b',', rest @ ..] | [rest @ .., b','] = tag {
        tag = rest;
    }
    tag
}

/// The groups that a field names: a list of strings, whose parameters mean nothing. A field that is
/// anything else counts as absent (RFC 9651 §2).
pub(crate) fn groups(headers: &HeaderMap, field: &HeaderName) -> Vec<String> {
    let mut lines = headers.get_all(field).iter();
    let Some(first) = lines.next() else { return Vec::new() };
    // All lines are one list (RFC 9651 §4.2).
    let mut joined = first.as_bytes().to_vec();
    for line in lines {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.as_bytes());
    }
    let list = Parser::new(&joined).parse::<List>().unwrap_or_default();
    let names = list.into_iter().map(|member| match member {
        ListEntry::Item(Item { bare_item: BareItem::String(name), .. }) => Some(name.into()),
        _ => None,
    });
    names.collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn map(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn tags(fields: &[(&'static str, &[u8])]) -> Vec<String> {
        let mut tags = Vec::new();
        for_each_tag(&map(fields), |tag| tags.push(String::from_utf8_lossy(tag).into_owned()));
        tags
    }

    #[test]
    fn tags_are_separated_by_space_in_one_field_and_by_commas_in_the_other() {
        assert_eq!(tags(&[("surrogate-key", b" a  b,c\td ")]), ["a", "b,c", "d"]);
        assert_eq!(tags(&[("surrogate-key", b"a, b ,c , d,")]), ["a", "b", "c", "d"]);
        assert_eq!(tags(&[("cache-tag", b"a, b c ,,d")]), ["a", "b c", "d"]);
        assert_eq!(
            tags(&[("surrogate-key", b"a"), ("surrogate-key", b"b"), ("cache-tag", b"c")]),
            ["a", "b", "c"]
        );
        assert_eq!(tags(&[("surrogate-key", b""), ("cache-tag", b" , ")]), [""; 0]);
    }

    #[test]
    fn groups_are_a_list_of_strings_or_nothing() {
        let groups = |lines: &[&'static [u8]]| {
            let fields: Vec<_> = lines.iter().map(|line| ("cache-groups", *line)).collect();
            super::groups(&map(&fields), &CACHE_GROUPS)
        };
        assert_eq!(groups(&[b"\"a\", \"b \\\"c\\\"\";x=1"]), ["a", "b \"c\""]);
        assert_eq!(groups(&[b"\"a\"", b"\"b\""]), ["a", "b"]);
        for junk in [&b"a"[..], b"\"a\", b", b"\"a", b"\"a\" \"b\"", b"(\"a\")", b"1", b"\"\xfc\"", b""] {
            assert_eq!(groups(&[junk]), [""; 0], "{}", junk.escape_ascii());
        }
        let many: Vec<_> = (0..100).map(|n| format!("\"{n:0>40}\"")).collect();
        let field = [("cache-groups", many.join(",").into_bytes())];
        assert_eq!(super::groups(&map(&[(field[0].0, &field[0].1)]), &CACHE_GROUPS).len(), 100);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            if HeaderValue::from_bytes(&value).is_ok() {
                let _ = tags(&[("surrogate-key", &value), ("cache-tag", &value)]);
                let _ = groups(&map(&[("cache-groups", &value)]), &CACHE_GROUPS);
            }
        }
    }
}
