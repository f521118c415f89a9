//! What the fields of a request mean to a cache, found in one pass: conditions, credentials, and what they
//! override.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{
    conditions::asks_for_one_part,
    cookies::CookieNames,
    fields::{asks_for_another_protocol, is_spelling_of},
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

/// The first line of a field, and whether it has more lines.
///
/// Requests have few fields: comparing their names is faster than hashing one, as `HeaderMap::get` does.
#[inline]
pub(crate) fn first_line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<(&'a HeaderValue, bool)> {
    let mut fields = headers.iter();
    let (_, line) = fields.find(|(other, _)| *other == name)?;
    // All lines of a field follow each other.
    Some((line, fields.next().is_some_and(|(next, _)| next == name)))
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
    pub(super) fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        match first_line(headers, name) {
            None => Self::None,
            Some((line, false)) => Self::One(line),
            Some((_, true)) => Self::Several,
        }
    }

    /// With one more line.
    pub(super) fn and(self, line: &'a HeaderValue) -> Self {
        match self {
            Self::None => Self::One(line),
            _ => Self::Several,
        }
    }
}

/// Fields by which a request overrides the host, the path or the scheme of its target.
pub(crate) const TARGET_OVERRIDES: [&str; 29] = [
    "forwarded",
    "front-end-https",
    "x-arr-ssl",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-proxied-https",
    "x-replaced-path",
    "x-rewrite-url",
    "x-scheme",
    "x-script-name",
    "x-url-scheme",
    "x-waws-unencoded-url",
];

/// Fields that override the method in many frameworks.
const METHOD_OVERRIDES: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];

/// What the fields of a request override: the method, or parts of the target URI.
///
/// Frameworks build links and redirects from them, so a response to a request with one of them must not be
/// served to a request without it, whatever its `Vary`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// Whether frameworks may read another method.
    pub(crate) method: bool,
    /// Whether it asks for a protocol other than HTTP.
    pub(crate) protocol: bool,
    /// Whether frameworks may read another host, path or scheme.
    pub(crate) target: bool,
}

impl Overrides {
    /// Notes what a field with this name overrides. Call [`settle`](Self::settle) after the last one.
    fn note(&mut self, name: &HeaderName) {
        self.protocol |= *name == header::UPGRADE;
        self.method |= is_one_of(&METHOD_OVERRIDES, name);
        self.target |= overrides_target(name);
    }

    /// Decides what depends on several fields.
    #[inline]
    fn settle(&mut self, headers: &HeaderMap) {
        if self.protocol {
            self.protocol = asks_for_another_protocol(headers);
        }
    }
}

/// Whether a field is one of [`TARGET_OVERRIDES`].
pub(crate) fn overrides_target(name: &HeaderName) -> bool {
    is_one_of(&TARGET_OVERRIDES, name)
}

fn is_one_of(names: &[&str], name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // All of them begin with these letters, and few other names do.
    matches!(name.first(), Some(b'f' | b'x')) && names.iter().any(|own| is_spelling_of(own.as_bytes(), name))
}

/// The kinds of credentials in a request that its key does not hold: with which others it may share a
/// response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    /// `Authorization`, or a field named by the rules.
    pub(crate) authorization: bool,
    /// `Cookie`.
    pub(crate) cookie: bool,
    /// A field of [`WELL_KNOWN`], which counts as `Cookie` does.
    pub(crate) token: bool,
}

impl Credentials {
    pub(crate) fn of(request: &HeaderMap, names: &CredentialNames, keyed: &Keyed) -> Self {
        let mut credentials = Self::default();
        for name in request.keys().filter(|name| !keyed.has(name)) {
            match *name {
                header::AUTHORIZATION => credentials.authorization = true,
                header::COOKIE => credentials.cookie = true,
                _ => credentials.token |= names.counts_well_known() && is_well_known(name),
            }
            credentials.authorization |= names.has(name);
        }
        credentials
    }

    /// The union of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            authorization: self.authorization || other.authorization,
            cookie: self.cookie || other.cookie,
            token: self.token || other.token,
        }
    }

    /// Whether a request with these may get a response for `audience`.
    pub(crate) fn admitted_to(self, audience: Self) -> bool {
        let lacks = |sent: bool, admitted: bool| sent & !admitted;
        !(lacks(self.authorization, audience.authorization)
            | lacks(self.cookie, audience.cookie)
            | lacks(self.token, audience.token))
    }
}

/// The fields that are credentials beside `Authorization` and `Cookie`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CredentialNames {
    named: Option<Arc<[HeaderName]>>,
    ignores_well_known: bool,
    /// A given name that is invalid.
    invalid: Option<Arc<str>>,
}

impl CredentialNames {
    /// The well-known ones.
    pub(crate) const DEFAULT: Self = Self { named: None, ignores_well_known: false, invalid: None };

    /// Adds fields that count as `Authorization` does.
    pub(crate) fn with<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<HeaderName> = self.named.iter().flat_map(|named| named.iter().cloned()).collect();
        for name in names {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => all.push(name),
                Err(_) => self.invalid = Some(name.into()),
            }
        }
        self.named = (!all.is_empty()).then(|| all.into());
        self
    }

    /// Only these fields, without those of [`WELL_KNOWN`].
    pub(crate) fn only<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { ignores_well_known: true, ..Self::default() }.with(names)
    }

    pub(crate) fn invalid(&self) -> Option<&str> {
        self.invalid.as_deref()
    }

    /// Whether they are exactly the well-known ones.
    pub(crate) fn is_default(&self) -> bool {
        self.named.is_none() && self.counts_well_known()
    }

    fn counts_well_known(&self) -> bool {
        !self.ignores_well_known
    }

    fn has(&self, name: &HeaderName) -> bool {
        self.named.as_ref().is_some_and(|named| named.contains(name))
    }
}

/// What the key of a request holds beside the URI.
///
/// One pointer, since every request carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keyed(Option<Arc<Held>>);

#[derive(Debug, PartialEq, Eq)]
struct Held {
    fields: Box<[HeaderName]>,
    /// Prefixes of the names of further fields.
    prefixes: Box<[Box<str>]>,
    cookies: Option<CookieNames>,
}

impl Keyed {
    pub(crate) const NOTHING: Self = Self(None);

    pub(crate) fn new(fields: impl Into<Box<[HeaderName]>>, cookies: Option<CookieNames>) -> Self {
        Self::with_prefixes(fields, [], cookies)
    }

    /// Also with all fields whose names have one of these prefixes, in lower case.
    pub(crate) fn with_prefixes(
        fields: impl Into<Box<[HeaderName]>>,
        prefixes: impl Into<Box<[Box<str>]>>,
        cookies: Option<CookieNames>,
    ) -> Self {
        let (fields, prefixes) = (fields.into(), prefixes.into());
        let is_nothing = fields.is_empty() && prefixes.is_empty() && cookies.is_none();
        Self((!is_nothing).then(|| Arc::new(Held { fields, prefixes, cookies })))
    }

    /// Adds cookies.
    pub(crate) fn and_cookies(&self, cookies: CookieNames) -> Self {
        Self::with_prefixes(self.fields(), self.prefixes(), Some(cookies))
    }

    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// The fields in the key, with all their values.
    pub(crate) fn fields(&self) -> &[HeaderName] {
        self.0.as_ref().map_or(&[], |held| &held.fields)
    }

    /// The prefixes of the names of further fields in the key, with all their values.
    pub(crate) fn prefixes(&self) -> &[Box<str>] {
        self.0.as_ref().map_or(&[], |held| &held.prefixes)
    }

    /// Whether a field is in the key by the prefix of its name, where an underscore equals a dash.
    pub(crate) fn has_by_prefix(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        self.prefixes().iter().any(|prefix| {
            name.get(..prefix.len()).is_some_and(|start| is_spelling_of(prefix.as_bytes(), start))
        })
    }

    /// The cookies in the key: the origin gets no others.
    pub(crate) fn cookies(&self) -> Option<&CookieNames> {
        self.0.as_ref()?.cookies.as_ref()
    }

    /// Like [`has`](Self::has), where an underscore does not equal a dash.
    pub(crate) fn has_exactly(&self, name: &HeaderName) -> bool {
        let mut prefixes = self.prefixes().iter();
        self.has(name)
            && (!self.has_by_prefix(name) || prefixes.any(|start| name.as_str().starts_with(&**start)))
    }

    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        self.cookies().is_some() && *name == header::COOKIE
            || self.fields().contains(name)
            || self.has_by_prefix(name)
    }
}

macro_rules! well_known {
    ($($name:literal)*) => {
        /// Fields in which common gateways, platforms and frameworks carry an API key, a token or the
        /// identity of a client.
        pub(super) const WELL_KNOWN: &[&str] = &[$($name),*];

        /// Compared as text, whose length alone rules most names out.
        fn is_well_known(name: &HeaderName) -> bool {
            matches!(name.as_str(), $($name)|*)
        }
    };
}

well_known! {
    "api-key" "apikey" "x-api-key" "x-apikey" "x-api-token" "x-access-token" "x-auth-key" "x-auth-token"
    "x-authorization" "x-id-token" "x-jwt" "x-jwt-assertion" "x-session-id" "x-session-token" "x-token"
    "x-user-token" "proxy-authorization" "x-forwarded-access-token" "x-forwarded-user" "x-forwarded-email"
    "x-remote-user" "remote-user" "x-webauth-user" "client-cert" "client-cert-chain" "x-client-cert"
    "x-forwarded-client-cert" "x-ssl-client-cert" "x-amz-security-token" "x-amzn-oidc-accesstoken"
    "x-amzn-oidc-data" "x-amzn-oidc-identity" "x-goog-api-key" "x-goog-authenticated-user-email"
    "x-goog-authenticated-user-id" "x-goog-iap-jwt-assertion" "cf-access-client-id"
    "cf-access-jwt-assertion" "x-ms-client-principal" "x-ms-client-principal-id" "x-functions-key"
    "ocp-apim-subscription-key" "x-rapidapi-key" "private-token" "job-token" "x-vault-token"
    "x-shopify-access-token" "x-shopify-storefront-access-token" "x-auth-request-user"
    "x-auth-request-email" "x-auth-request-access-token" "cf-access-authenticated-user-email"
    "x-pomerium-jwt-assertion" "x-authentik-username" "x-ms-token-aad-access-token" "tailscale-user-login"
}

#[cfg(test)]
#[path = "request_fields_tests.rs"]
mod tests;
