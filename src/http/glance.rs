//! What of a message's fields has to be known before anything else, found in one pass.

use http::{HeaderMap, header};

use super::{
    storing::Credentials,
    tag_fields::{CACHE_GROUP_INVALIDATION, CACHE_TAG, SURROGATE_KEY},
};

/// Most requests have none of these, and a hit then has nothing to do with their fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) credentials: Credentials,
    /// A precondition (RFC 9110 §13.1).
    pub(crate) has_precondition: bool,
    pub(crate) has_range: bool,
}

impl Glance {
    pub(crate) fn of(request: &HeaderMap) -> Self {
        let mut glance = Self::default();
        for name in request.keys() {
            match *name {
                header::AUTHORIZATION => glance.credentials.authorization = true,
                header::COOKIE => glance.credentials.cookie = true,
                header::RANGE => glance.has_range = true,
                header::IF_MATCH
                | header::IF_NONE_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_UNMODIFIED_SINCE => glance.has_precondition = true,
                _ => {}
            }
        }
        glance
    }
}

/// Most answers that a cache only passes on have none of these, and it then has nothing to do with
/// their fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    /// Another URI of the same origin, it may be: `Location` and `Content-Location`.
    pub(crate) has_reference: bool,
    /// Groups to invalidate (RFC 9875 §3).
    pub(crate) has_groups: bool,
    /// Fields for caches alone.
    pub(crate) has_tags: bool,
}

impl Mentions {
    pub(crate) fn of(answer: &HeaderMap) -> Self {
        let mut mentions = Self::default();
        for name in answer.keys() {
            match *name {
                header::LOCATION | header::CONTENT_LOCATION => mentions.has_reference = true,
                _ => {
                    mentions.has_groups |= *name == CACHE_GROUP_INVALIDATION;
                    mentions.has_tags |= *name == SURROGATE_KEY || *name == CACHE_TAG;
                }
            }
        }
        mentions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conditions::PRECONDITIONS;
    use http::{HeaderName, HeaderValue};

    fn glance(name: &HeaderName) -> Glance {
        let fields =
            [(header::HOST, HeaderValue::from_static("h")), (name.clone(), HeaderValue::from_static("x"))];
        Glance::of(&fields.into_iter().collect())
    }

    #[test]
    fn what_is_there_is_seen() {
        for name in PRECONDITIONS {
            assert_eq!(glance(&name), Glance { has_precondition: true, ..Glance::default() });
        }
        assert_eq!(glance(&header::RANGE), Glance { has_range: true, ..Glance::default() });
        assert_eq!(glance(&header::ACCEPT), Glance::default());
        for name in [header::AUTHORIZATION, header::COOKIE] {
            let fields = [(name, HeaderValue::from_static("x"))].into_iter().collect();
            assert_eq!(Glance::of(&fields).credentials, Credentials::of(&fields));
        }
    }

    #[test]
    fn what_an_answer_mentions_is_seen() {
        let mentions = |name: &HeaderName| {
            let fields = [
                (header::ETAG, HeaderValue::from_static("x")),
                (name.clone(), HeaderValue::from_static("x")),
            ];
            Mentions::of(&fields.into_iter().collect())
        };
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            assert_eq!(mentions(&name), Mentions { has_reference: true, ..Mentions::default() });
        }
        for name in [&SURROGATE_KEY, &CACHE_TAG] {
            assert_eq!(mentions(name), Mentions { has_tags: true, ..Mentions::default() });
        }
        assert_eq!(mentions(&CACHE_GROUP_INVALIDATION), Mentions { has_groups: true, ..Mentions::default() });
        assert_eq!(mentions(&header::SERVER), Mentions::default());
    }
}
