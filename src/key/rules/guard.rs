//! What is not in the key does not reach the origin.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header, request::Parts, uri::PathAndQuery};

use super::{error::Problem, field_set::FieldSet};
use crate::{
    http::{credentials::Keyed, fields::remove_all, overrides::TARGET_OVERRIDES},
    key::{
        KeyBuffer,
        overrides::{push_fields, push_overrides},
        target::original_uri,
    },
};

/// Removes the header fields from requests that a response could depend on without the key showing
/// it, or puts them into the key.
///
/// Without it a cache can be poisoned: an attacker asks for a popular page with a field that the
/// application builds its text from, and the response is stored under a key that does not hold the
/// field. Every client that asks for the page gets the text of the attacker until it expires. With
/// the guard the application sees the same request from all clients that share a response.
///
/// * Fields that [override](Self::REMOVED) the host, the path or internals of a framework are removed
///   from requests that have a key, on hits as well, before `Vary` is compared.
/// * Fields that a [framework's own client](Self::KEYED) sends, and those that name the scheme, reach
///   the origin and are in the key of a request that has them.
/// * Cookies about which neither the rule of the request nor [`Rules::cookies`](crate::Rules::cookies) says
///   anything reach the origin, so the whole `Cookie` field is in the key. `"cookies": []` lets all clients
///   share a response, and the origin gets none. A credential in another field reaches the origin as well:
///   its response is shared if the origin says so (RFC 9111 §3.5).
/// * Names with underscores are removed, since a service behind CGI takes them for the same with
///   dashes (RFC 3875 §4.1.18), unless exactly this name is keyed or let through.
///
/// Requests without a key, those of other methods and those to bypassed endpoints among them, are
/// left alone. Without a guard nothing is removed; the fields that override the target are in the key
/// ([`DefaultKey`](crate::DefaultKey)). Query parameters that a key leaves out are kept from the
/// origin with and without a guard; see
/// [`forward_unkeyed`](super::KeyRule::forward_unkeyed).
///
/// A name that ends in `*` stands for all that begin so.
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
/// In documents the settings are called `headers`, `only_headers`, `keyed` and `only`; `{}` is the
/// guard of [`new`](Self::new).
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
    /// Fields that are removed: those by which a request overrides the host or the path of its
    /// target, and those by which the parts of a framework talk to each other.
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

    /// Fields that are in the key of a request that has them: those that name the scheme or the port,
    /// which an application behind a TLS terminator needs, and those by which the client of a
    /// framework asks for another form of a page (Next.js, htmx, Turbo, Inertia, PJAX).
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

    /// Fields that the cache itself reads or that frame the message: they are never removed.
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

    /// Removes the fields of [`REMOVED`](Self::REMOVED), and puts those of [`KEYED`](Self::KEYED)
    /// into the key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets only these fields through to the origin, for requests that have a key, beside those that
    /// their keys hold and those that the cache itself reads (conditions, ranges,
    /// `Cache-Control`, `Accept-Encoding`, `Host` and the fields of the content).
    ///
    /// `Cookie` and `Authorization` are removed as well unless they are named here or keyed by the
    /// rule of the request.
    pub fn only<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self { only: Some(strings(names)), ..Self::default() }
    }

    /// Removes these fields too. Default: only those of [`REMOVED`](Self::REMOVED).
    ///
    /// `Cookie` and `Authorization` may be among them: then all requests that have a key are
    /// anonymous to the origin.
    #[must_use]
    pub fn headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.headers.extend(strings(names));
        self
    }

    /// Removes these fields instead of those of [`REMOVED`](Self::REMOVED). Of the latter, those that
    /// override the target are then in the key.
    #[must_use]
    pub fn only_headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.only_headers = Some(strings(names));
        self
    }

    /// Puts these fields into the key of a request that has them, and lets them through, also those
    /// that would be removed by default. Default: only those of [`KEYED`](Self::KEYED).
    #[must_use]
    pub fn keyed<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.keyed.extend(strings(names));
        self
    }

    /// What it does to a request.
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
            let reason = "`only` removes every other field already";
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
        Ok(CompiledGuard(Some(Fields { removed, keyed, own_keyed, only, spared: FieldSet::default() })))
    }
}

fn strings<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}

/// Without fields there is no guard, and those that override the target are in the key.
#[derive(Clone, Debug, Default)]
pub(super) struct CompiledGuard(Option<Fields>);

#[derive(Clone, Debug)]
struct Fields {
    removed: FieldSet,
    keyed: FieldSet,
    /// Those that the user named: they win over what is removed.
    own_keyed: FieldSet,
    only: Option<FieldSet>,
    /// Those in the keys of rules, whose underscores are meant.
    spared: FieldSet,
}

impl Fields {
    fn removes(&self, name: &HeaderName) -> bool {
        let is_keyed = self.own_keyed.contains(name);
        let is_misspelt = name.as_str().contains('_') && !self.lets_through_exactly(name);
        is_misspelt || !is_keyed && (self.removed.contains(name) || self.is_unlisted(name))
    }

    fn lets_through_exactly(&self, name: &HeaderName) -> bool {
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
    /// Lets fields through that are in the keys of rules, in exactly this spelling.
    pub(super) fn spare(&mut self, keyed: &Keyed) {
        if let Some(fields) = &mut self.0 {
            keyed.fields().iter().for_each(|name| fields.spared.insert(name.as_str()));
            keyed.prefixes().iter().for_each(|start| fields.spared.insert_prefix(start));
        }
    }

    /// Whether what is removed depends on what the rule of a request has in its keys.
    pub(super) fn asks_for_rule(&self) -> bool {
        self.0.as_ref().is_some_and(|fields| fields.only.is_some())
    }

    /// Whether requests that have a key lose this field.
    pub(super) fn removes(&self, name: &HeaderName) -> bool {
        self.0
            .as_ref()
            .is_some_and(|fields| fields.removed.contains(name) && !fields.own_keyed.contains(name))
    }

    /// Whether there is none.
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it removes a field that no rule has in its key.
    pub(super) fn strips(&self, name: &HeaderName) -> bool {
        self.0.as_ref().is_some_and(|fields| fields.removes(name))
    }

    /// Whether requests that have a key may lose a field whose name begins so.
    pub(super) fn removes_any_with(&self, start: &str) -> bool {
        self.0.as_ref().is_some_and(|fields| {
            fields.removed.has_any_with(start) && !fields.own_keyed.contains_prefix(start)
        })
    }

    /// Whether a field is in the key of each request that has it.
    pub(super) fn keys(&self, name: &HeaderName) -> bool {
        self.0.as_ref().is_some_and(|fields| fields.keyed.contains(name))
    }

    /// Removes what the origin may not see, but for the fields that the rule of the request has in
    /// its key.
    pub(super) fn strip(&self, headers: &mut HeaderMap, is_in_key: impl Fn(&HeaderName) -> bool) {
        if let Some(fields) = &self.0 {
            remove_all(headers, |name| fields.removes(name) && !is_in_key(name));
        }
    }

    /// Appends the fields of a request that reach the origin although they may change a response in
    /// ways that its `Vary` does not tell.
    pub(super) fn push_keyed(&self, headers: &HeaderMap, key: &mut KeyBuffer) {
        let Some(fields) = &self.0 else { return push_overrides(headers, key) };
        let holds_cookies = key.holds_cookies();
        let counts = |name: &HeaderName| match *name == header::COOKIE {
            true => !holds_cookies,
            false => fields.keyed.contains(name),
        };
        push_fields(headers.iter().filter(|(name, _)| counts(name) && !fields.removes(name)), key);
    }
}

/// Leaves only these parameters in the query of a request, wherever the service may read it.
pub(super) fn replace_query(head: &mut Parts, query: &str) {
    let rewritten = |uri: &Uri| with_query(uri, query);
    let original = rewritten(original_uri(head));
    // What was rewritten on the way here is in the key as it is.
    let inner = (head.uri.query() == original_uri(head).query()).then(|| rewritten(&head.uri)).flatten();
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
