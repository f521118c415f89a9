//! The request fields that a lookup needs, found in one pass.

use http::{HeaderMap, HeaderName, Method, header};

use super::{
    credentials::{CredentialNames, Credentials, Keyed, is_well_known},
    fields::Line,
    overrides::Overrides,
    range::asks_for_one_part,
};

/// The fields of a request that decide whether it may be answered from the store.
///
/// A hit needs no other fields, and most requests have none of these but `Accept-Encoding`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestFields<'a> {
    pub(crate) fields: &'a HeaderMap,
    pub(crate) overrides: Overrides,
    pub(crate) credentials: Credentials,
    /// Whether there is a precondition (RFC 9110 §13.1).
    pub(crate) has_precondition: bool,
    pub(crate) has_range: bool,
    has_if_range: bool,
    /// The most common selecting field.
    accept_encoding: Line<'a>,
}

/// The conditions and the range of a request (RFC 9110 §13, §14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestFacts {
    has_precondition: bool,
    has_range: bool,
    has_if_range: bool,
    asks_for_one_part: bool,
}

impl RequestFacts {
    /// Whether the request has any precondition or range.
    pub(crate) fn is_conditional(self) -> bool {
        self.has_precondition || self.has_range || self.has_if_range
    }

    pub(crate) fn has_range(self) -> bool {
        self.has_range
    }

    /// Whether the request asks for one range under no condition.
    pub(crate) fn asks_for_one_part(self) -> bool {
        self.asks_for_one_part
    }

    /// Whether all clients that send the same request may share its response: it has no conditions, or
    /// asks for one range alone.
    pub(crate) fn is_for_all(self) -> bool {
        !self.is_conditional() || self.asks_for_one_part
    }
}

impl<'a> RequestFields<'a> {
    #[inline]
    pub(crate) fn of(request: &'a HeaderMap) -> Self {
        let mut found = Self {
            fields: request,
            overrides: Overrides::default(),
            credentials: Credentials::default(),
            has_precondition: false,
            has_range: false,
            has_if_range: false,
            accept_encoding: Line::None,
        };
        for (name, line) in request {
            match *name {
                header::ACCEPT_ENCODING => found.accept_encoding = found.accept_encoding.and(line),
                header::AUTHORIZATION => found.credentials.authorization = true,
                header::COOKIE => found.credentials.cookie = true,
                header::RANGE => found.has_range = true,
                header::IF_RANGE => found.has_if_range = true,
                header::IF_MATCH
                | header::IF_NONE_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_UNMODIFIED_SINCE => found.has_precondition = true,
                // The most common fields need no comparison as text.
                header::ACCEPT
                | header::ACCEPT_LANGUAGE
                | header::CACHE_CONTROL
                | header::CONNECTION
                | header::CONTENT_LENGTH
                | header::CONTENT_TYPE
                | header::HOST
                | header::ORIGIN
                | header::PRAGMA
                | header::REFERER
                | header::TE
                | header::UPGRADE_INSECURE_REQUESTS
                | header::USER_AGENT
                | header::VIA => {}
                _ => found.note_unusual(name),
            }
        }
        found.overrides.settle(request);
        found
    }

    #[inline(never)]
    fn note_unusual(&mut self, name: &HeaderName) {
        self.overrides.note(name);
        self.credentials.token |= is_well_known(name);
    }

    /// The fields of a request whose credentials and facts are known, without another pass over them.
    pub(crate) fn known(request: &'a HeaderMap, credentials: Credentials, facts: RequestFacts) -> Self {
        Self {
            fields: request,
            overrides: Overrides::default(),
            credentials,
            has_precondition: facts.has_precondition,
            has_range: facts.has_range,
            has_if_range: facts.has_if_range,
            accept_encoding: Line::of(request, &header::ACCEPT_ENCODING),
        }
    }

    /// For a request with these credentials.
    pub(crate) fn with(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// The conditions and the range of a request with this method.
    pub(crate) fn facts(&self, method: &Method) -> RequestFacts {
        let Self { has_precondition, has_range, has_if_range, .. } = *self;
        let asks_for_one_part = has_range && asks_for_one_part(method, self.fields);
        RequestFacts { has_precondition, has_range, has_if_range, asks_for_one_part }
    }

    /// Finds the credentials again for a key that holds `keyed`: the fields of these names that are not in
    /// the key.
    #[inline]
    pub(crate) fn put_under(&mut self, names: &CredentialNames, keyed: &Keyed) {
        // Nearly always the pass over the fields has found them.
        if !names.is_default() || !keyed.is_nothing() {
            self.credentials = Credentials::of(self.fields, names, keyed);
        }
    }

    pub(crate) fn line(&self, name: &HeaderName) -> Line<'a> {
        match *name {
            header::ACCEPT_ENCODING => self.accept_encoding,
            _ => Line::of(self.fields, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{conditions::PRECONDITIONS, credentials::WELL_KNOWN};
    use http::HeaderValue;

    #[test]
    fn present_fields_are_found() {
        let seen = |name: &HeaderName| {
            let lines = [(header::HOST, "h"), (name.clone(), "x")];
            let request =
                lines.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
            let RequestFields { credentials, has_precondition, has_range, accept_encoding, .. } =
                RequestFields::of(&request);
            let credentials_alone = Credentials::of(&request, &CredentialNames::default(), &Keyed::default());
            assert_eq!(credentials, credentials_alone);
            (
                credentials != Credentials::default(),
                has_precondition,
                has_range,
                accept_encoding != Line::None,
            )
        };
        for name in PRECONDITIONS {
            assert_eq!(seen(&name), (false, true, false, false));
        }
        let tokens = WELL_KNOWN.iter().map(|name| HeaderName::from_static(name));
        for name in tokens.chain([header::AUTHORIZATION, header::COOKIE]) {
            assert_eq!(seen(&name), (true, false, false, false), "{name}");
        }
        assert_eq!(seen(&header::RANGE), (false, false, true, false));
        assert_eq!(seen(&header::ACCEPT_ENCODING), (false, false, false, true));
        assert_eq!(seen(&header::ACCEPT), (false, false, false, false));
    }

    #[test]
    fn one_line_differs_from_several() {
        let mut request = HeaderMap::new();
        let (gzip, br) = (HeaderValue::from_static("gzip"), HeaderValue::from_static("br"));
        request.insert(header::ACCEPT_ENCODING, gzip.clone());
        assert_eq!(RequestFields::of(&request).accept_encoding, Line::One(&gzip));
        request.append(header::ACCEPT_ENCODING, br);
        assert_eq!(RequestFields::of(&request).accept_encoding, Line::Several);
    }
}
