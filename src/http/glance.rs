//! What of a request's fields a hit has to know, found in one pass.

use http::{HeaderMap, header};

use super::storing::Credentials;

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
}
