//! What of a message's fields has to be known before anything else, found in one pass.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{
    credentials::{CredentialNames, Credentials, Keyed, is_well_known},
    fields::first_line,
    framing::Framing,
    overrides::Overrides,
    range::asks_for_one_part,
};

/// Most requests have none of these but the last, and a hit then has nothing to do with their
/// other fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestFields<'a> {
    pub(crate) fields: &'a HeaderMap,
    pub(crate) overrides: Overrides,
    pub(crate) credentials: Credentials,
    /// A precondition (RFC 9110 §13.1).
    pub(crate) has_precondition: bool,
    pub(crate) has_range: bool,
    has_if_range: bool,
    /// What selects most of what is selected by anything.
    accept_encoding: Line<'a>,
}

/// What the conditions and the range of a request ask for (RFC 9110 §13, §14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestFacts {
    has_precondition: bool,
    has_range: bool,
    has_if_range: bool,
    asks_for_one_part: bool,
}

impl RequestFacts {
    /// Whether any precondition or range is in the request.
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

/// The value of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Line<'a> {
    #[default]
    None,
    One(&'a HeaderValue),
    Several,
}

impl<'a> Line<'a> {
    /// With one line more.
    pub(crate) fn and(self, line: &'a HeaderValue) -> Self {
        match self {
            Self::None => Self::One(line),
            _ => Self::Several,
        }
    }
}

impl<'a> RequestFields<'a> {
    #[inline]
    pub(crate) fn of(request: &'a HeaderMap) -> Self {
        let mut glance = Self {
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
                header::ACCEPT_ENCODING => glance.accept_encoding = glance.accept_encoding.and(line),
                header::AUTHORIZATION => glance.credentials.authorization = true,
                header::COOKIE => glance.credentials.cookie = true,
                header::RANGE => glance.has_range = true,
                header::IF_RANGE => glance.has_if_range = true,
                header::IF_MATCH
                | header::IF_NONE_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_UNMODIFIED_SINCE => glance.has_precondition = true,
                // What most requests have is not looked at any closer.
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
                _ => glance.note_unusual(name),
            }
        }
        glance.overrides.settle(request);
        glance
    }

    #[inline(never)]
    fn note_unusual(&mut self, name: &HeaderName) {
        self.overrides.note(name);
        self.credentials.token |= is_well_known(name);
    }

    /// The fields of a request of which the rest is known: they are not looked through again.
    pub(crate) fn known(request: &'a HeaderMap, credentials: Credentials, facts: RequestFacts) -> Self {
        Self {
            fields: request,
            overrides: Overrides::default(),
            credentials,
            has_precondition: facts.has_precondition,
            has_range: facts.has_range,
            has_if_range: facts.has_if_range,
            accept_encoding: line(request, &header::ACCEPT_ENCODING),
        }
    }

    /// The same with these credentials.
    pub(crate) fn with(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// What the conditions and the range of a request with this method ask for.
    pub(crate) fn facts(&self, method: &Method) -> RequestFacts {
        let Self { has_precondition, has_range, has_if_range, .. } = *self;
        let asks_for_one_part = has_range && asks_for_one_part(method, self.fields);
        RequestFacts { has_precondition, has_range, has_if_range, asks_for_one_part }
    }

    /// Of a request under a key that holds `keyed`: its credentials are the fields of these names that are
    /// not in the key.
    #[inline]
    pub(crate) fn put_under(&mut self, names: &CredentialNames, keyed: &Keyed) {
        // By the names alone, nearly always.
        if !names.is_default() || !keyed.is_nothing() {
            self.credentials = Credentials::of(self.fields, names, keyed);
        }
    }

    pub(crate) fn line(&self, name: &HeaderName) -> Line<'a> {
        match *name {
            header::ACCEPT_ENCODING => self.accept_encoding,
            _ => line(self.fields, name),
        }
    }
}

/// The value of a field of a request.
pub(super) fn line<'a>(request: &'a HeaderMap, name: &HeaderName) -> Line<'a> {
    match first_line(request, name) {
        None => Line::None,
        Some((line, false)) => Line::One(line),
        Some((_, true)) => Line::Several,
    }
}

/// What concerns a cache in a response that it only passes on. Most have little of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PassedFields {
    pub(crate) framing: Framing,
    /// Another URI of the same origin, it may be: `Location` and `Content-Location`.
    pub(crate) has_reference: bool,
    /// Groups to invalidate (RFC 9875 §3).
    pub(crate) has_groups: bool,
    /// Fields for caches alone.
    pub(crate) has_tags: bool,
}

impl PassedFields {
    pub(crate) const NONE: Self =
        Self { framing: Framing::NONE, has_reference: false, has_groups: false, has_tags: false };

    pub(crate) fn of(answer: &HeaderMap) -> Self {
        let mut mentions = Self::NONE;
        for (name, line) in answer {
            match *name {
                header::CONTENT_LENGTH => mentions.framing.read_length(line),
                header::TRANSFER_ENCODING => mentions.framing.read_coding(line),
                header::LOCATION | header::CONTENT_LOCATION => mentions.has_reference = true,
                // What most answers have is not looked at any closer.
                header::CACHE_CONTROL
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::DATE
                | header::ETAG
                | header::LAST_MODIFIED
                | header::SERVER
                | header::SET_COOKIE
                | header::VARY => {}
                _ => mentions.note_unusual(name),
            }
        }
        mentions
    }

    /// As text, whose length alone tells most names apart.
    fn note_unusual(&mut self, name: &HeaderName) {
        match name.as_str() {
            "cache-group-invalidation" => self.has_groups = true,
            "surrogate-key" | "cache-tag" => self.has_tags = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        conditions::PRECONDITIONS,
        credentials::WELL_KNOWN,
        tag_fields::{CACHE_GROUP_INVALIDATION, CACHE_TAG, SURROGATE_KEY},
    };

    #[test]
    fn what_is_there_is_seen() {
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
    fn one_line_is_told_from_several() {
        let mut request = HeaderMap::new();
        let (gzip, br) = (HeaderValue::from_static("gzip"), HeaderValue::from_static("br"));
        request.insert(header::ACCEPT_ENCODING, gzip.clone());
        assert_eq!(RequestFields::of(&request).accept_encoding, Line::One(&gzip));
        request.append(header::ACCEPT_ENCODING, br);
        assert_eq!(RequestFields::of(&request).accept_encoding, Line::Several);
    }

    #[test]
    fn what_an_answer_mentions_is_seen() {
        let mentions = |name: &HeaderName| {
            let fields = [
                (header::ETAG, HeaderValue::from_static("x")),
                (name.clone(), HeaderValue::from_static("x")),
            ];
            PassedFields::of(&fields.into_iter().collect())
        };
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            assert_eq!(mentions(&name), PassedFields { has_reference: true, ..PassedFields::NONE });
        }
        for name in [&SURROGATE_KEY, &CACHE_TAG] {
            assert_eq!(mentions(name), PassedFields { has_tags: true, ..PassedFields::NONE });
        }
        assert_eq!(
            mentions(&CACHE_GROUP_INVALIDATION),
            PassedFields { has_groups: true, ..PassedFields::NONE }
        );
        assert_eq!(mentions(&header::SERVER), PassedFields::NONE);
    }
}
