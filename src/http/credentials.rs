//! The credentials of a request, which decide with which others it may share a response.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};

use super::{cookies::CookieNames, fields::is_spelling_of};

/// The kinds of credentials in a request that its key does not hold.
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
        pub(crate) const WELL_KNOWN: &[&str] = &[$($name),*];

        /// Compared as text, whose length alone rules most names out.
        pub(crate) fn is_well_known(name: &HeaderName) -> bool {
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
mod tests {
    use super::*;

    fn of(fields: &[&'static str], names: &CredentialNames, keyed: &Keyed) -> Credentials {
        let lines = fields.iter().map(|name| (HeaderName::from_static(name), "x".parse().unwrap()));
        Credentials::of(&lines.collect(), names, keyed)
    }

    #[test]
    fn a_named_field_counts_as_authorization_and_a_well_known_one_as_a_cookie() {
        let (default, keyed) = (CredentialNames::default(), Keyed::default());
        let none = Credentials::default();
        let (authorization, token) =
            (Credentials { authorization: true, ..none }, Credentials { token: true, ..none });
        for name in WELL_KNOWN {
            assert_eq!(of(&[name], &default, &keyed), token, "{name}");
            assert_eq!(of(&[name], &CredentialNames::only(["x"]), &keyed), none, "{name}");
        }
        assert_eq!(of(&["authorization"], &default, &keyed), authorization);
        assert_eq!(of(&["cookie"], &default, &keyed), Credentials { cookie: true, ..none });
        for name in ["x-mine", "accept"] {
            assert_eq!(of(&[name], &default, &keyed), none);
            assert_eq!(of(&[name], &default.clone().with([name]), &keyed), authorization);
        }
        assert_eq!(of(&["authorization"], &CredentialNames::only([]), &keyed), authorization);
        let both = CredentialNames::default().with(["x-a"]).with(["X-B"]);
        assert_eq!(of(&["x-a"], &both, &keyed), of(&["x-b"], &both, &keyed));
        assert_eq!(both.invalid(), None);
        assert_eq!(both.with(["a b"]).invalid(), Some("a b"));
    }

    #[test]
    fn a_field_in_the_key_is_not_a_credential() {
        let names = CredentialNames::default().with(["x-mine"]);
        let fields = ["authorization", "x-mine", "x-api-key"].map(HeaderName::from_static);
        let keyed = Keyed::new(fields.clone(), Some(CookieNames::new([])));
        let all = ["authorization", "x-mine", "x-api-key", "cookie"];
        assert_eq!(of(&all, &names, &keyed), Credentials::default());
        let by_prefix = Keyed::with_prefixes([], ["x-a".into()], None);
        let left = of(&["authorization", "x-api-key", "x-auth-token", "x_api_token"], &names, &by_prefix);
        assert_eq!(left, Credentials { authorization: true, ..Credentials::default() });
        let left = of(&["x-auth-token", "cookie"], &names, &Keyed::new(fields, None));
        assert_eq!(left, Credentials { authorization: false, cookie: true, token: true });
    }
}
