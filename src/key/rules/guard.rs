//! What is not in the key does not reach the origin.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header, request::Parts, uri::PathAndQuery};

use super::error::Problem;
use crate::{http::fields::remove_all, key::target::original_uri};

/// Removes from requests that have a key what an answer could depend on without the key showing
/// it.
///
/// Without it, a cache can be poisoned: an attacker asks for a popular page with a field of his
/// own, say `X-Forwarded-Host: evil.example`, the application builds its links with that host, and
/// the answer is stored under a key that does not hold the field. Everybody who asks for the page
/// gets the attacker's links until it expires. Query parameters that the key leaves out are
/// just as good for it, if the answer contains them. With the guard, the application sees the same
/// request whoever of those who share an answer asks, and none of that arrives.
///
/// * Header fields that are listed are removed, on hits as well, before `Vary` is compared; with
///   underscores for dashes too.
/// * Query parameters that the key leaves out are removed on the way to the origin; the others
///   arrive in the order of the key. A [rule](super::KeyRule::forward_unkeyed) may except itself.
///
/// Requests without a key, those of other methods and those to bypassed endpoints among them, are
/// left alone. A field that the application does not read, or that a proxy in front of it sets and
/// overwrites, does no harm and need not be listed.
///
/// ```
/// use tower_readthrough::{Guard, KeyRule, KeyRules};
///
/// let rules = KeyRules::builder()
///     .rule(KeyRule::any().ignore_query(["utm_*"]))
///     .guard(Guard::new())
///     .build()?;
/// # drop(rules);
/// # Ok::<(), tower_readthrough::RuleError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct Guard {
    pub(super) headers: Vec<String>,
    pub(super) query: bool,
}

impl Guard {
    /// Fields by which frameworks let a request override what its URI, host or method says.
    ///
    /// `X-Forwarded-Proto`, `-Scheme` and `-Port` are not among them: a service behind a proxy
    /// that ends TLS needs the first, and that proxy sets it. Where none does, list them too.
    pub const WELL_KNOWN: [&str; 12] = [
        "forwarded",
        "x-forwarded-host",
        "x-forwarded-server",
        "x-forwarded-prefix",
        "x-host",
        "x-original-host",
        "x-http-host-override",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
    ];

    /// Removes [`WELL_KNOWN`](Self::WELL_KNOWN) fields and unkeyed query parameters.
    pub fn new() -> Self {
        Self { headers: Self::WELL_KNOWN.map(Into::into).into(), query: true }
    }

    /// Removes these fields instead of the well-known ones.
    ///
    /// `Cookie` and `Authorization` may be among them: then all requests that have a key are
    /// anonymous to the origin.
    #[must_use]
    pub fn headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.headers = names.into_iter().map(Into::into).collect();
        self
    }

    /// Whether query parameters that the key leaves out are removed. Default: yes.
    #[must_use]
    pub fn query(mut self, remove: bool) -> Self {
        self.query = remove;
        self
    }

    pub(super) fn compile(&self) -> Result<CompiledGuard, Problem> {
        if self.headers.is_empty() && !self.query {
            let reason = "it removes neither header fields nor query parameters";
            return Err(Problem::NoEffect { setting: "guard", reason });
        }
        let parse = |text: &String| {
            let name = HeaderName::from_bytes(text.as_bytes()).ok();
            let is_removable = |name: &HeaderName| !matches!(*name, header::HOST | header::CONTENT_LENGTH);
            name.filter(is_removable).ok_or_else(|| Problem::Guard(text.as_str().into()))
        };
        let headers = self.headers.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(CompiledGuard { headers, query: self.query })
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct CompiledGuard {
    pub(super) headers: Box<[HeaderName]>,
    pub(super) query: bool,
}

impl CompiledGuard {
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        for name in &self.headers {
            headers.remove(name);
        }
        // To a service behind CGI or the like they are the same (RFC 3875 §4.1.18).
        let dashed = |name: &HeaderName| name.as_str().replace('_', "-");
        if !self.headers.is_empty() && headers.keys().any(|name| name.as_str().contains('_')) {
            remove_all(headers, |name| self.headers.iter().any(|own| dashed(own) == dashed(name)));
        }
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
