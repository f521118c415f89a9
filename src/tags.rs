//! Tags: names that responses share, so that they can be purged together.
//!
//! The tags of a response come from all of these:
//!
//! * its fields `Surrogate-Key` (separated by spaces or commas) and `Cache-Tag` (separated by commas),
//!   which are only for caches and are stripped from responses to clients;
//! * its fields with other names in [`TagFields`], which are stripped as well;
//! * its field `Cache-Groups` (RFC 9875), which stays;
//! * [`Tags`] in the extensions of the response, put there by a handler;
//! * [`Tags`] in the extensions of the request, put there by a key rule or a middleware.
//!
//! Tags are compared byte for byte, so case counts. A response may have about 1,000 of them, where a group
//! counts as three. One with more is neither stored nor shared, since a purge of the remaining tags would not
//! find it. A 304 adds its tags to those of the response that it confirms.
//!
//! ```
//! use axum::response::{IntoResponse, Response};
//! use tower_readthrough::Tags;
//!
//! async fn product() -> Response {
//!     let mut response = "a lamp".into_response();
//!     response.extensions_mut().insert(Tags::from_iter(["product-7", "shelf-3"]));
//!     response
//! }
//! # futures_util::future::FutureExt::now_or_never(async {
//! let response = product().await;
//! assert!(response.extensions().get::<Tags>().unwrap().contains("shelf-3"));
//! # }).unwrap();
//! ```

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};
use sfv::{BareItem, Item, List, ListEntry, Parser};

use crate::http::fields;

/// The separator of the tags in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Separator {
    /// White space or commas, as in `Surrogate-Key`. For `xkey` and `X-Drupal-Cache-Tags`.
    Space,
    /// Commas, with or without white space around them, as in `Cache-Tag`. For `Edge-Cache-Tag` and
    /// `X-Magento-Tags`.
    Comma,
}

/// Response fields that name tags, beside `Surrogate-Key` and `Cache-Tag`. Default: none.
///
/// Set by [`ReadThroughBuilder::tag_fields`](crate::ReadThroughBuilder::tag_fields) or by
/// [rules](crate::KeyRulesBuilder::tag_fields). A clone costs one reference count.
///
/// ```
/// use http::HeaderName;
/// use tower_readthrough::tags::{Separator, TagFields};
///
/// let xkey = HeaderName::from_static("xkey");
/// let fields = TagFields::from_iter([(xkey, Separator::Space)]);
/// assert_eq!(fields.iter().next().unwrap().0, "xkey");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
// One pointer: it is in the future of every request that is passed on.
pub struct TagFields(Option<Arc<Vec<(HeaderName, Separator)>>>);

impl TagFields {
    /// The names of the fields with their separators.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, Separator)> {
        self.0.iter().flat_map(|fields| fields.iter()).map(|(name, separator)| (name, *separator))
    }

    /// The union of both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (_, None) => self.clone(),
            (None, _) => other.clone(),
            _ => self.iter().chain(other.iter()).map(|(name, separator)| (name.clone(), separator)).collect(),
        }
    }

    /// Whether a response has one of them.
    pub(crate) fn are_in(&self, headers: &HeaderMap) -> bool {
        self.0.as_ref().is_some_and(|fields| fields.iter().any(|(name, _)| headers.contains_key(name)))
    }

    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        self.iter().any(|(own, _)| own == name)
    }

    /// Calls `f` with each tag in these fields, as written.
    pub(crate) fn for_each_tag(&self, headers: &HeaderMap, mut f: impl FnMut(&[u8])) {
        for (name, separator) in self.iter() {
            for_each_tag_of(headers, name, separator, &mut f);
        }
    }

    /// The first that clients need, which must not be stripped.
    pub(crate) fn invalid(&self) -> Option<&HeaderName> {
        self.iter().map(|(name, _)| name).find(|name| is_for_clients(name))
    }
}

impl FromIterator<(HeaderName, Separator)> for TagFields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, Separator)>>(fields: I) -> Self {
        let fields: Vec<_> = fields.into_iter().collect();
        Self((!fields.is_empty()).then(|| Arc::new(fields)))
    }
}

/// The tags of a response, in the extensions of the request or the response; see the
/// [module](self).
///
/// A clone costs one reference count, so that the tags of many responses can be built once.
/// Empty names are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Arc<[Box<str>]>);

impl Tags {
    /// The tags, in the order given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Whether `tag` is one of them.
    pub fn contains(&self, tag: &str) -> bool {
        self.iter().any(|own| own == tag)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Into<Box<str>>> FromIterator<T> for Tags {
    fn from_iter<I: IntoIterator<Item = T>>(tags: I) -> Self {
        Self(tags.into_iter().map(Into::into).filter(|tag| !tag.is_empty()).collect())
    }
}

/// Tags separated by white space or commas, only for caches in front of the origin.
pub(crate) static SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// Tags separated by commas, only for caches in front of the origin.
pub(crate) static CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// Groups, for all caches (RFC 9875 §2).
pub(crate) static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// Groups to invalidate (RFC 9875 §3).
pub(crate) static CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Removes the fields that are only for this cache: the two built-in ones and `own`.
pub(crate) fn strip(headers: &mut HeaderMap, own: &TagFields) {
    fields::remove_all(headers, |name| *name == SURROGATE_KEY || *name == CACHE_TAG || own.has(name));
}

/// Calls `f` with each tag in `Surrogate-Key`, `Cache-Tag` and the fields in `own`, as written.
pub(crate) fn for_each_tag(headers: &HeaderMap, own: &TagFields, mut f: impl FnMut(&[u8])) {
    for_each_tag_of(headers, &SURROGATE_KEY, Separator::Space, &mut f);
    for_each_tag_of(headers, &CACHE_TAG, Separator::Comma, &mut f);
    own.for_each_tag(headers, f);
}

/// Calls `f` with each tag in one field. They are not tokens: a quotation mark is part of a tag.
pub(crate) fn for_each_tag_of(
    headers: &HeaderMap,
    name: &HeaderName,
    separator: Separator,
    f: &mut impl FnMut(&[u8]),
) {
    let separates = |byte: &u8| match separator {
        // Many origins write the field as a list.
        Separator::Space => byte.is_ascii_whitespace() || *byte == b',',
        Separator::Comma => *byte == b',',
    };
    for line in headers.get_all(name) {
        let tags = line.as_bytes().split(separates).map(<[u8]>::trim_ascii);
        tags.filter(|tag| !tag.is_empty()).for_each(&mut *f);
    }
}

/// Whether clients need a field, so that it cannot be stripped.
pub(crate) fn is_for_clients(name: &HeaderName) -> bool {
    const READ: [HeaderName; 19] = [
        header::ACCEPT_RANGES,
        header::AGE,
        header::ALLOW,
        header::CACHE_CONTROL,
        header::CONTENT_DISPOSITION,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LENGTH,
        header::CONTENT_LOCATION,
        header::CONTENT_RANGE,
        header::CONTENT_SECURITY_POLICY,
        header::CONTENT_TYPE,
        header::DATE,
        header::ETAG,
        header::EXPIRES,
        header::LAST_MODIFIED,
        header::LOCATION,
        header::SET_COOKIE,
        header::VARY,
    ];
    READ.contains(name) || fields::is_hop_by_hop(name)
}

/// The groups in a field: a list of strings, whose parameters have no meaning. An invalid field counts as
/// absent (RFC 9651 §2).
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

    #[test]
    fn names_are_kept_as_given_but_for_empty_ones() {
        let tags = Tags::from_iter(["b", "", "A", "b"]);
        assert_eq!(tags.iter().collect::<Vec<_>>(), ["b", "A", "b"]);
        assert!(tags.contains("A") && !tags.contains("a") && !tags.contains(""));
        assert!(Tags::from_iter([""]).is_empty() && Tags::default().is_empty());
    }

    fn map(fields: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn tags(fields: &[(&'static str, &[u8])]) -> Vec<String> {
        let mut tags = Vec::new();
        let own = [("xkey", Separator::Space), ("edge-cache-tag", Separator::Comma)];
        let own = own.map(|(name, separator)| (HeaderName::from_static(name), separator));
        for_each_tag(&map(fields), &TagFields::from_iter(own), |tag| {
            tags.push(String::from_utf8_lossy(tag).into_owned());
        });
        tags
    }

    #[test]
    fn tags_are_separated_by_space_in_one_field_and_by_commas_in_the_other() {
        assert_eq!(tags(&[("surrogate-key", b" a  b,c\td ")]), ["a", "b", "c", "d"]);
        assert_eq!(tags(&[("surrogate-key", b"a, b ,c , d,")]), ["a", "b", "c", "d"]);
        assert_eq!(tags(&[("cache-tag", b"a, b c ,,d")]), ["a", "b c", "d"]);
        assert_eq!(
            tags(&[("surrogate-key", b"a"), ("surrogate-key", b"b"), ("cache-tag", b"c")]),
            ["a", "b", "c"]
        );
        assert_eq!(tags(&[("surrogate-key", b""), ("cache-tag", b" , ")]), [""; 0]);
        assert_eq!(
            tags(&[("edge-cache-tag", b"a, b c"), ("xkey", b"d e"), ("x", b"f")]),
            ["d", "e", "a", "b c"]
        );
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
