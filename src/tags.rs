//! Tags: names that answers share, so that they can be purged together.
//!
//! An answer has all the tags that any of these give it:
//!
//! * its fields `Surrogate-Key` (separated by spaces) and `Cache-Tag` (separated by commas), which
//!   are for caches like this one and are stripped from what clients see;
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
