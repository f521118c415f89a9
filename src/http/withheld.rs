//! Response fields that only the client gets whose request fetched them.

use std::{fmt, iter, sync::Arc};

use http::{HeaderName, header};

use super::{cache_control::CDN_CACHE_CONTROL, fields::is_hop_by_hop};

/// The names of response fields that are neither stored nor shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WithheldNames {
    names: Option<Arc<[HeaderName]>>,
    /// A given name that cannot be withheld.
    invalid: Option<Arc<str>>,
}

impl WithheldNames {
    pub(crate) const NONE: Self = Self { names: None, invalid: None };

    pub(crate) fn invalid(&self) -> Option<&str> {
        self.invalid.as_deref()
    }

    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        self.names.as_ref().is_some_and(|names| names.contains(name))
    }

    /// These and the names in the response itself.
    pub(crate) fn and(&self, said: &[HeaderName]) -> Vec<HeaderName> {
        let own = self.names.iter().flat_map(|names| names.iter());
        said.iter().chain(own.filter(|name| !said.contains(name))).cloned().collect()
    }
}

impl<N: AsRef<str>> FromIterator<N> for WithheldNames {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        let (mut known, mut invalid) = (Vec::new(), None);
        for text in names {
            match parse(text.as_ref()) {
                Some(name) => known.push(name),
                None => invalid = Some(text.as_ref().into()),
            }
        }
        Self { names: (!known.is_empty()).then(|| known.into()), invalid }
    }
}

impl From<Vec<String>> for WithheldNames {
    fn from(names: Vec<String>) -> Self {
        names.into_iter().collect()
    }
}

/// The names, separated by commas.
impl fmt::Display for WithheldNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.iter().flat_map(|names| names.iter());
        let separators = iter::once("").chain(iter::repeat(", "));
        names.zip(separators).try_for_each(|(name, separator)| write!(f, "{separator}{name}"))
    }
}

/// Parses the name of a field that a response can be used without. Others describe its content, its audience
/// and its lifetime, to this cache and to those after it.
fn parse(text: &str) -> Option<HeaderName> {
    const ESSENTIAL: [HeaderName; 16] = [
        header::AGE,
        header::CACHE_CONTROL,
        header::CACHE_STATUS,
        CDN_CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::DATE,
        header::ETAG,
        header::EXPIRES,
        header::LAST_MODIFIED,
        header::LOCATION,
        header::TRAILER,
        header::VARY,
        HeaderName::from_static("no-vary-search"),
    ];
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    name.filter(|name| !text.contains('*') && !is_hop_by_hop(name) && !ESSENTIAL.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_a_response_cannot_be_used_without_are_refused() {
        for name in ["set-cookie", "Set-Cookie", "x-request-id", "server-timing", "content-language"] {
            assert_eq!(WithheldNames::from_iter([name]).invalid(), None, "{name}");
        }
        for name in ["vary", "Cache-Control", "etag", "connection", "cache-status", "x-*", "a b", "", "x,y"] {
            assert_eq!(WithheldNames::from_iter(["set-cookie", name]).invalid(), Some(name), "{name}");
        }
    }

    #[test]
    fn a_name_given_twice_is_withheld_once() {
        let names = WithheldNames::from_iter(["x-a", "x-b"]);
        assert_eq!(names.and(&[HeaderName::from_static("x-b")]), ["x-b", "x-a"]);
        assert!(WithheldNames::NONE.and(&[]).is_empty());
    }
}
