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

use http::{HeaderMap, HeaderName};

use crate::http::tag_fields;

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
            tag_fields::for_each_tag_of(headers, name, separator, &mut f);
        }
    }

    /// The first that clients need, which must not be stripped.
    pub(crate) fn invalid(&self) -> Option<&HeaderName> {
        self.iter().map(|(name, _)| name).find(|name| tag_fields::is_for_clients(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_as_given_but_for_empty_ones() {
        let tags = Tags::from_iter(["b", "", "A", "b"]);
        assert_eq!(tags.iter().collect::<Vec<_>>(), ["b", "A", "b"]);
        assert!(tags.contains("A") && !tags.contains("a") && !tags.contains(""));
        assert!(Tags::from_iter([""]).is_empty() && Tags::default().is_empty());
    }
}
