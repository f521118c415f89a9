//! Tags: names that answers share, so that they can be purged together.
//!
//! An answer has all the tags that any of these give it:
//!
//! * its fields `Surrogate-Key` (separated by spaces or commas) and `Cache-Tag` (separated by commas),
//!   which are for caches like this one and are stripped from what clients see;
//! * its fields of other names that the stack is [told](TagFields) of, which are stripped as well;
//! * its field `Cache-Groups` (RFC 9875), which stays;
//! * [`Tags`] in the extensions of the response, put there by a handler;
//! * [`Tags`] in the extensions of the request, put there by a key rule or a middleware.
//!
//! A tag is compared byte for byte, so case counts. An answer may have some 1,000 of them, of
//! which a group counts for three; one with more is neither stored nor shared, since a purge of those left out would not find it. A 304 adds
//! its tags to those of what it confirms.
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

use crate::http::tag_fields::{self, is_for_clients};

/// What stands between the tags of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Separator {
    /// White space, or commas, as in `Surrogate-Key`: `xkey` and `X-Drupal-Cache-Tags`.
    Space,
    /// Commas, with or without white space around them, as in `Cache-Tag`: `Edge-Cache-Tag` and
    /// `X-Magento-Tags`.
    Comma,
}

/// Response fields that name tags, beside `Surrogate-Key` and `Cache-Tag`. Default: none.
///
/// They are given to [`ReadThroughBuilder::tag_fields`](crate::ReadThroughBuilder::tag_fields), or stand in the
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
pub struct TagFields(Option<Arc<[(HeaderName, Separator)]>>);

impl TagFields {
    /// The names of the fields, and what separates their tags.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, Separator)> {
        self.0.iter().flat_map(|fields| fields.iter()).map(|(name, separator)| (name, *separator))
    }

    /// These and those of another one.
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

    /// Shows the tags in them, as they stand there.
    pub(crate) fn for_each_tag(&self, headers: &HeaderMap, mut f: impl FnMut(&[u8])) {
        for (name, separator) in self.iter() {
            tag_fields::for_each_tag_of(headers, name, separator, &mut f);
        }
    }

    /// The first of them that clients need for something else, and that must stay.
    pub(crate) fn invalid(&self) -> Option<&HeaderName> {
        self.iter().map(|(name, _)| name).find(|name| is_for_clients(name))
    }
}

impl FromIterator<(HeaderName, Separator)> for TagFields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, Separator)>>(fields: I) -> Self {
        let fields: Arc<[_]> = fields.into_iter().collect();
        Self((!fields.is_empty()).then_some(fields))
    }
}

/// The tags of an answer, in the extensions of the request or the response; see the
/// [module](self).
///
/// A clone costs one reference count, so that tags which many answers have can be made once.
/// Empty names count for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Arc<[Box<str>]>);

impl Tags {
    /// The tags, in the order in which they were given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Whether this is one of them.
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
