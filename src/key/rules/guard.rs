//! Header fields that are not in the key do not reach the origin.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header, request::Parts, uri::PathAndQuery};

use super::error::Problem;
use crate::{
    http::{
        fields,
        request_fields::{Keyed, TARGET_OVERRIDES},
    },
    key::{KeyBuffer, uri},
};

/// Removes from requests the header fields that a response could depend on although they are not in the key,
/// or puts them into the key.
///
/// Without a guard, a cache can be poisoned: an attacker requests a popular page with a field that the
/// application builds its response from, and the response is stored under a key that does not hold the field.
/// Every client that requests the page gets the attacker's text until it expires. With a guard, the
/// application sees the same request from all clients that share a response.
///
/// * Fields that [override](Self::REMOVED) the host, the path or internals of a framework are removed from
///   requests that have a key, on hits too, before `Vary` is compared.
/// * Fields that the [client of a framework](Self::KEYED) sends, and fields that name the scheme, reach the
///   origin and are in the key of a request that has them.
/// * Cookies reach the origin if neither the rule of the request nor [`Rules::cookies`](crate::Rules::cookies)
///   is about cookies, so the whole `Cookie` field is in the key. With `"cookies": []`, all clients share a
///   response, and the origin gets no cookies. Credentials in other fields reach the origin as well: the
///   response is shared if the origin allows it (RFC 9111 §3.5).
/// * Fields with underscores in their names are removed, since a service behind CGI does not tell them from
///   names with dashes (RFC 3875 §4.1.18), unless exactly this name is keyed or allowed.
///
/// Requests without a key, such as those of other methods and to bypassed endpoints, are not changed. Without a
/// guard nothing is removed, and the fields that override the target are in the key
/// ([`DefaultKey`](crate::DefaultKey)). Query parameters that are not in the key do not reach the origin in
/// either case; see [`forward_unkeyed`](super::KeyRule::forward_unkeyed).
///
/// A name that ends in `*` is a prefix.
///
/// ```
/// use tower_readthrough::{Guard, KeyRule, KeyRules};
///
/// let rules = KeyRules::builder()
///     .rule(KeyRule::any().ignore_query(["utm_*"]))
///     .guard(Guard::new().headers(["x-preview-*"]).keyed(["x-api-version"]))
///     .build()?;
/// # drop(rules);
/// # Ok::<(), tower_readthrough::RuleError>(())
/// ```
///
/// In documents the settings are `headers`, `only_headers`, `keyed` and `only`; `{}` is the guard of
/// [`new`](Self::new).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(default, deny_unknown_fields, remote = "Self")
)]
pub struct Guard {
    headers: Vec<String>,
    only_headers: Option<Vec<String>>,
    keyed: Vec<String>,
    only: Option<Vec<String>>,
}

impl Guard {
    /// Fields that are removed: those that override the host or the path of the target, and those that the
    /// parts of a framework send to each other.
    pub const REMOVED: [&str; 31] = [
        "base-url",
        "forwarded",
        "x-envoy-original-path",
        "x-forwarded-host",
        "x-forwarded-path",
        "x-forwarded-prefix",
        "x-forwarded-server",
        "x-forwarded-uri",
        "x-forwarded-url",
        "x-host",
        "x-http-host-override",
        "x-invoke-output",
        "x-invoke-path",
        "x-invoke-query",
        "x-invoke-status",
        "x-matched-path",
        "x-middleware-invoke",
        "x-middleware-override-headers",
        "x-middleware-request-*",
        "x-middleware-rewrite",
        "x-middleware-subrequest",
        "x-now-route-matches",
        "x-original-host",
        "x-original-uri",
        "x-original-url",
        "x-override-url",
        "x-react-router-prerender-data",
        "x-react-router-spa-mode",
        "x-rewrite-url",
        "x-script-name",
        "x-waws-unencoded-url",
    ];

    /// Fields that are in the key of a request that has them: those that name the scheme or the port, which an
    /// application behind a TLS terminator needs, and those with which the client of a framework requests
    /// another form of a page (Next.js, htmx, Turbo, Inertia, PJAX).
    pub const KEYED: [&str; 34] = [
        "front-end-https",
        "hx-boosted",
        "hx-current-url",
        "hx-history-restore-request",
        "hx-prompt",
        "hx-request",
        "hx-target",
        "hx-trigger",
        "hx-trigger-name",
        "next-action",
        "next-router-*",
        "next-url",
        "rsc",
        "turbo-frame",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-protocol",
        "x-forwarded-scheme",
        "x-forwarded-ssl",
        "x-inertia",
        "x-inertia-error-bag",
        "x-inertia-except-once-props",
        "x-inertia-partial-component",
        "x-inertia-partial-data",
        "x-inertia-partial-except",
        "x-inertia-reset",
        "x-inertia-version",
        "x-middleware-prefetch",
        "x-nextjs-data",
        "x-pjax",
        "x-pjax-container",
        "x-requested-with",
        "x-scheme",
        "x-url-scheme",
    ];

    /// Fields that are never removed, since the cache reads them or they frame the message.
    pub(super) const OF_THE_CACHE: [HeaderName; 18] = [
        header::ACCEPT_ENCODING,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::HOST,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::PRAGMA,
        header::RANGE,
        header::TE,
        header::TRANSFER_ENCODING,
        header::VIA,
    ];

    /// Removes the fields of [`REMOVED`](Self::REMOVED), and puts those of [`KEYED`](Self::KEYED) into the key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of requests that have a key, only these fields reach the origin, in addition to those that are in the key
    /// and those that the cache reads (conditions, ranges, `Cache-Control`, `Accept-Encoding`, `Host` and the
    /// content fields).
    ///
    /// `Cookie` and `Authorization` are removed too, unless they are named here or keyed by the rule of the
    /// request.
    pub fn only<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self { only: Some(strings(names)), ..Self::default() }
    }

    /// Removes these fields too. Default: only those of [`REMOVED`](Self::REMOVED).
    ///
    /// With `Cookie` and `Authorization` among them, all requests that have a key are anonymous to the origin.
    #[must_use]
    pub fn headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.headers.extend(strings(names));
        self
    }

    /// Removes these fields instead of those of [`REMOVED`](Self::REMOVED), of which those that override the
    /// target are then in the key.
    #[must_use]
    pub fn only_headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.only_headers = Some(strings(names));
        self
    }

    /// Puts these fields into the key of a request that has them, and forwards them, even those that would be
    /// removed by default. Default: only those of [`KEYED`](Self::KEYED).
    #[must_use]
    pub fn keyed<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.keyed.extend(strings(names));
        self
    }

    /// Describes what the guard does to a request.
    pub(super) fn in_words(&self) -> String {
        let Self { headers, only_headers, keyed, only } = self;
        let named = |what: &str, names: &[String]| {
            (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
        };
        let removed = match (only, only_headers) {
            (Some(only), _) => named("removes all fields but those in keys,", only),
            (None, Some(own)) => named("removes", own),
            (None, None) => Some("removes the fields of `Guard::REMOVED`".into()),
        };
        let keyed = named("keys also", keyed);
        [removed, named("removes also", headers), keyed].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    pub(super) fn compile(&self) -> Result<CompiledGuard, Problem> {
        if self.only.is_some() && (self.only_headers.is_some() || !self.headers.is_empty()) {
            let reason = "`only` already removes every other field";
            return Err(Problem::NoEffect { setting: "headers or only_headers", reason });
        }
        let listed = |names: &'_ [String]| FieldSet::parse(names.iter().map(String::as_str));
        let own = self.headers.iter().chain(self.only_headers.iter().flatten()).map(String::as_str);
        let own_keyed = listed(&self.keyed)?;
        let is_keyed =
            |text: &&str| HeaderName::from_bytes(text.as_bytes()).is_ok_and(|name| own_keyed.contains(&name));
        if let Some(name) = own.clone().find(is_keyed) {
            return Err(Problem::GuardedHeader(name.into()));
        }
        let removed = match self.only_headers {
            Some(_) => FieldSet::parse(own)?,
            None => FieldSet::parse(own.chain(Self::REMOVED))?,
        };
        if let Some(name) = Self::OF_THE_CACHE.iter().find(|name| removed.contains(name)) {
            return Err(Problem::Guard(name.as_str().into()));
        }
        let named = TARGET_OVERRIDES.into_iter().chain(Self::KEYED);
        let keyed = FieldSet::parse(named.chain(self.keyed.iter().map(String::as_str)))?;
        let only = self.only.as_deref().map(listed).transpose()?;
        Ok(CompiledGuard(Some(GuardedFields {
            removed,
            keyed,
            own_keyed,
            only,
            spared: FieldSet::default(),
        })))
    }
}

fn strings<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}

/// `None`: there is no guard, and the fields that override the target are in the key.
#[derive(Clone, Debug, Default)]
pub(super) struct CompiledGuard(Option<GuardedFields>);

#[derive(Clone, Debug)]
struct GuardedFields {
    removed: FieldSet,
    keyed: FieldSet,
    /// Those of [`Guard::keyed`], which are not removed.
    own_keyed: FieldSet,
    only: Option<FieldSet>,
    /// Those in the keys of rules, which may have underscores.
    spared: FieldSet,
}

impl GuardedFields {
    fn removes(&self, name: &HeaderName) -> bool {
        let is_keyed = self.own_keyed.contains(name);
        let is_misspelt = name.as_str().contains('_') && !self.allows_exactly(name);
        is_misspelt || !is_keyed && (self.removed.contains(name) || self.is_unlisted(name))
    }

    fn allows_exactly(&self, name: &HeaderName) -> bool {
        self.own_keyed.contains_exactly(name)
            || self.spared.contains_exactly(name)
            || self.only.as_ref().is_some_and(|only| only.contains_exactly(name))
    }

    fn is_unlisted(&self, name: &HeaderName) -> bool {
        let is_listed = |only: &FieldSet| only.contains(name) || self.keyed.contains(name);
        self.only.as_ref().is_some_and(|only| !is_listed(only) && !Guard::OF_THE_CACHE.contains(name))
    }
}

impl CompiledGuard {
    /// Allows fields that are in the keys of rules, in exactly this spelling.
    pub(super) fn spare(&mut self, keyed: &Keyed) {
        if let Some(fields) = &mut self.0 {
            keyed.fields().iter().for_each(|name| fields.spared.insert(name.as_str()));
            keyed.prefixes().iter().for_each(|start| fields.spared.insert_prefix(start));
        }
    }

    /// Whether the fields that are removed depend on the rule of a request.
    pub(super) fn asks_for_rule(&self) -> bool {
        self.0.as_ref().is_some_and(|fields| fields.only.is_some())
    }

    /// Whether the field is removed from all requests that have a key.
    pub(super) fn removes(&self, name: &HeaderName) -> bool {
        self.0
            .as_ref()
            .is_some_and(|fields| fields.removed.contains(name) && !fields.own_keyed.contains(name))
    }

    /// Whether there is no guard.
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a field is removed that is in no rule's key.
    pub(super) fn strips(&self, name: &HeaderName) -> bool {
        self.0.as_ref().is_some_and(|fields| fields.removes(name))
    }

    /// Whether a field with this prefix may be removed from requests that have a key.
    pub(super) fn removes_any_with(&self, start: &str) -> bool {
        self.0.as_ref().is_some_and(|fields| {
            fields.removed.has_any_with(start) && !fields.own_keyed.contains_prefix(start)
        })
    }

    /// Whether a field is in the key of each request that has it.
    pub(super) fn keys(&self, name: &HeaderName) -> bool {
        self.0.as_ref().is_some_and(|fields| fields.keyed.contains(name))
    }

    /// Removes fields, except those in the key by the rule of the request.
    pub(super) fn strip(&self, headers: &mut HeaderMap, is_in_key: impl Fn(&HeaderName) -> bool) {
        if let Some(guarded) = &self.0 {
            fields::remove_all(headers, |name| guarded.removes(name) && !is_in_key(name));
        }
    }

    /// Appends the fields that reach the origin although they may change a response in ways that its `Vary` does
    /// not tell.
    pub(super) fn push_keyed(&self, headers: &HeaderMap, key: &mut KeyBuffer) {
        let Some(fields) = &self.0 else { return key.push_overrides(headers) };
        let holds_cookies = key.holds_cookies();
        let counts = |name: &HeaderName| match *name == header::COOKIE {
            true => !holds_cookies,
            false => fields.keyed.contains(name),
        };
        key.push_fields(headers.iter().filter(|(name, _)| counts(name) && !fields.removes(name)));
    }
}

/// Replaces the query of a request wherever the service may read it.
pub(super) fn replace_query(head: &mut Parts, query: &str) {
    let rewritten = |uri: &Uri| with_query(uri, query);
    let original = rewritten(uri::original_uri(head));
    // A URI that was rewritten before the request reached the cache is in the key as it is.
    let inner = (head.uri.query() == uri::original_uri(head).query()).then(|| rewritten(&head.uri)).flatten();
    if let Some(uri) = inner {
        head.uri = uri;
    }
    #[cfg(feature = "axum")]
    if let Some(uri) = original
        && let Some(seen) = head.extensions.get_mut::<axum::extract::OriginalUri>()
    {
        seen.0 = uri;
    }
    #[cfg(not(feature = "axum"))]
    drop(original);
}

fn with_query(uri: &Uri, query: &str) -> Option<Uri> {
    let target = match query {
        "" => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::from_maybe_shared(Bytes::from(target)).ok();
    Uri::from_parts(parts).ok()
}

/// Names of header fields and prefixes of names, found without hashing.
#[derive(Clone, Debug, Default)]
struct FieldSet {
    /// By length.
    names: Vec<Vec<Box<str>>>,
    prefixes: Vec<Box<str>>,
}

impl FieldSet {
    /// Parses names in any case. A name that ends in `*` is a prefix.
    fn parse<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, Problem> {
        let mut set = Self::default();
        for text in names {
            let refused = || Problem::Guard(text.into());
            let (stem, is_prefix) = match text.strip_suffix('*') {
                Some(stem) => (stem, true),
                None => (text, false),
            };
            let name = HeaderName::from_bytes(stem.as_bytes()).map_err(|_| refused())?;
            match is_prefix {
                _ if stem.contains('*') => return Err(refused()),
                true => set.prefixes.push(name.as_str().into()),
                false => set.insert(name.as_str()),
            }
        }
        Ok(set)
    }

    fn insert(&mut self, name: &str) {
        if self.names.len() <= name.len() {
            self.names.resize_with(name.len() + 1, Vec::new);
        }
        self.names[name.len()].push(name.into());
    }

    /// Whether a name is in the set, or would be with dashes for its underscores.
    fn contains(&self, name: &HeaderName) -> bool {
        let name = name.as_str().as_bytes();
        let named = self.names.get(name.len());
        named.is_some_and(|names| names.iter().any(|own| fields::is_spelling_of(own.as_bytes(), name)))
            || self.prefixes.iter().any(|prefix| {
                name.get(..prefix.len()).is_some_and(|start| fields::is_spelling_of(prefix.as_bytes(), start))
            })
    }

    /// Whether all names with this prefix are in the set.
    fn contains_prefix(&self, start: &str) -> bool {
        self.prefixes.iter().any(|own| start.starts_with(&**own))
    }

    /// Inserts all names with this prefix.
    fn insert_prefix(&mut self, start: &str) {
        self.prefixes.push(start.into());
    }

    /// Whether a name in the set may have this prefix.
    fn has_any_with(&self, start: &str) -> bool {
        self.names.iter().flatten().any(|name| name.starts_with(start))
            || self.prefixes.iter().any(|own| own.starts_with(start) || start.starts_with(&**own))
    }

    /// Whether a name is in the set in exactly this spelling.
    fn contains_exactly(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.names.get(name.len()).is_some_and(|names| names.iter().any(|own| **own == *name))
            || self.prefixes.iter().any(|prefix| name.starts_with(&**prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_full_and_by_their_prefixes() {
        let set = FieldSet::parse(["X-Host", "x-forwarded-*"]).unwrap();
        for (name, is_in, is_in_exactly) in [
            ("x-host", true, true),
            ("x_host", true, false),
            ("x-forwarded-for", true, true),
            ("x_forwarded_for", true, false),
            ("x-forwarded", false, false),
            ("x-hosts", false, false),
        ] {
            let name = HeaderName::from_static(name);
            assert_eq!((set.contains(&name), set.contains_exactly(&name)), (is_in, is_in_exactly), "{name}");
        }
        for name in ["", "*", "a b", "x-*-y", "x-**"] {
            assert!(FieldSet::parse([name]).is_err(), "{name:?}");
        }
    }
}
