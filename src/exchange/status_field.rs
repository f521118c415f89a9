//! What clients see of how a response came about.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use sfv::TokenRef;

use crate::{
    build_error::BuildError,
    exchange::{
        refused::{hide_proxy_status, rename_proxy_status},
        status::{CacheStatus, NAME},
    },
    http::fields::is_secret,
};

/// How much the `Cache-Status` field says (RFC 9211).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheStatusDetail {
    /// Nothing: there is no field of this cache, and no `Proxy-Status` either. The extension of the response
    /// ([`CacheStatus::of`]) is there all the same.
    Off,
    /// Whether the response came from the store, and why if it did not.
    #[default]
    Short,
    /// Also
    ///
    /// * `ttl`: how many seconds the stored response stays fresh, less than 0 if it is stale (§2.4);
    /// * `fwd-status`: the status of the response of the origin, if it was asked, also where the client gets
    ///   the same (§2.3);
    /// * `key`: the [digest](crate::CacheKey::digest) of the cache key (§2.7);
    /// * `rule`: the name of the [key rule](crate::KeyRule::name) that decided about the request.
    ///
    /// It takes a hit a few allocations.
    Full,
}

impl From<bool> for CacheStatusDetail {
    /// [`Short`](Self::Short) or [`Off`](Self::Off).
    fn from(is_shown: bool) -> Self {
        if is_shown { Self::Short } else { Self::Off }
    }
}

/// What [`CacheStatusDetail::Full`] says beyond the rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct FullStatus {
    /// Of what came from the store, in seconds.
    pub(crate) ttl: Option<i64>,
    pub(crate) key: Option<String>,
    pub(crate) rule: Option<String>,
}

impl FullStatus {
    /// Of a request without a key, by this rule.
    pub(crate) fn of_rule(rule: String) -> Self {
        Self { rule: Some(rule), ..Self::default() }
    }
}

/// Shorter secrets could be guessed.
const LEAST_SECRET_BYTES: usize = 16;
/// Longer names would make each response longer.
const MAX_NAME_BYTES: usize = 64;

/// How the field is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusField {
    detail: CacheStatusDetail,
    full_for: Option<(HeaderName, Secret)>,
    /// `None`: the default one.
    name: Option<CacheName>,
}

#[derive(Clone)]
struct Secret(Arc<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The name of a cache, and how it is written in a field. `None`: it cannot be written.
#[derive(Clone, Debug)]
struct CacheName {
    name: Arc<str>,
    item: Option<Arc<str>>,
}

impl CacheName {
    fn new(name: &str) -> Self {
        let is_short = (1..=MAX_NAME_BYTES).contains(&name.len());
        let item = if TokenRef::from_str(name).is_ok() { Some(name.into()) } else { string(name) };
        Self { name: name.into(), item: item.filter(|_| is_short).map(String::into) }
    }
}

/// A String of structured fields (RFC 9651 §3.3.3).
fn string(text: &str) -> Option<String> {
    let is_writable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    is_writable.then(|| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

impl StatusField {
    pub(crate) fn show(&mut self, detail: CacheStatusDetail) {
        self.detail = detail;
    }

    pub(crate) fn show_full_for(&mut self, field: HeaderName, secret: &[u8]) {
        self.full_for = Some((field, Secret(secret.into())));
    }

    pub(crate) fn name(&mut self, name: &str) {
        self.name = Some(CacheName::new(name));
    }

    /// The name in metrics.
    #[cfg(any(feature = "metrics", test))]
    pub(crate) fn cache_name(&self) -> &str {
        self.name.as_ref().map_or(NAME, |name| &name.name)
    }

    pub(crate) const fn detail(&self) -> CacheStatusDetail {
        self.detail
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if let Some(name) = self.name.as_ref().filter(|name| name.item.is_none()) {
            return Err(BuildError::CacheName { name: Arc::clone(&name.name).as_ref().into() });
        }
        let Some((field, secret)) = &self.full_for else { return Ok(()) };
        if secret.0.len() < LEAST_SECRET_BYTES {
            return Err(BuildError::ShortSecret { at_least: LEAST_SECRET_BYTES });
        }
        if is_of_http(field) {
            let name = field.as_str().into();
            return Err(BuildError::Name { setting: "full_cache_status_for", name });
        }
        if self.detail == CacheStatusDetail::Full {
            let reason = "`cache_status` says everything to all clients already";
            return Err(BuildError::NoEffect { setting: "full_cache_status_for", reason });
        }
        Ok(())
    }

    /// How much the response to this request says. The field with the secret is removed.
    #[inline(always)]
    pub(crate) fn take(&self, request: &mut HeaderMap) -> CacheStatusDetail {
        match &self.full_for {
            None => self.detail,
            Some((field, secret)) => self.take_secret(request, field, secret),
        }
    }

    #[inline(never)]
    fn take_secret(&self, request: &mut HeaderMap, field: &HeaderName, secret: &Secret) -> CacheStatusDetail {
        let knows_secret = request.remove(field).is_some_and(|sent| is_secret(sent.as_bytes(), &secret.0));
        if knows_secret { CacheStatusDetail::Full } else { self.detail }
    }

    /// Whether responses that say so much stay as the layers have made them.
    #[inline(always)]
    pub(crate) fn leaves(&self, detail: CacheStatusDetail) -> bool {
        detail == CacheStatusDetail::Short && self.name.is_none()
    }

    /// Lets a response say so much. `full` is asked only if it is needed.
    pub(crate) fn write<B>(
        &self,
        response: &mut Response<B>,
        detail: CacheStatusDetail,
        full: impl FnOnce() -> FullStatus,
    ) {
        if self.leaves(detail) {
            return;
        }
        // What passed untouched has none, and another cache's is not ours to change.
        let Some(status) = CacheStatus::of(response) else { return };
        if detail == CacheStatusDetail::Off {
            CacheStatus::hide(response);
            hide_proxy_status(response, status);
            return;
        }
        let full = (detail == CacheStatusDetail::Full).then(full);
        let item = self.name.as_ref().and_then(|name| name.item.as_deref()).unwrap_or(NAME);
        if let Some(value) = member(item, status, full.as_ref(), response.status()) {
            status.replace_with(response.headers_mut(), value);
            response.extensions_mut().insert(status);
        }
        if item != NAME {
            rename_proxy_status(response, status, item);
        }
    }
}

/// The member of the list for a response with this status.
fn member(
    item: &str,
    status: CacheStatus,
    full: Option<&FullStatus>,
    sent: StatusCode,
) -> Option<HeaderValue> {
    let mut text = item.to_owned();
    let mut push = |name: &str, value: Option<String>| {
        text.extend([";", name]);
        if let Some(value) = value {
            text.extend(["=", &value]);
        }
    };
    let says_forward_status = status.forward_status().is_some();
    status.each_parameter(&mut push);
    if let Some(full) = full {
        let is_of_origin =
            status.forward_reason().is_some() && !status.is_from_store() && status.refused_reason().is_none();
        if is_of_origin && !says_forward_status {
            push("fwd-status", Some(sent.as_u16().to_string()));
        }
        if let Some(ttl) = full.ttl {
            push("ttl", Some(ttl.to_string()));
        }
        if let Some(key) = full.key.as_deref().and_then(string) {
            push("key", Some(key));
        }
        if let Some(rule) = full.rule.as_deref().and_then(string) {
            push("rule", Some(rule));
        }
    }
    HeaderValue::try_from(text).ok()
}

/// Fields that have a meaning of their own, which a secret would take from them.
fn is_of_http(field: &HeaderName) -> bool {
    use http::header::*;
    let known = [
        &HOST,
        &CONNECTION,
        &TRANSFER_ENCODING,
        &CONTENT_LENGTH,
        &CONTENT_TYPE,
        &CACHE_CONTROL,
        &AUTHORIZATION,
        &COOKIE,
        &RANGE,
        &IF_RANGE,
        &IF_MATCH,
        &IF_NONE_MATCH,
        &IF_MODIFIED_SINCE,
        &IF_UNMODIFIED_SINCE,
        &ACCEPT,
        &ACCEPT_ENCODING,
        &ACCEPT_LANGUAGE,
        &EXPECT,
        &TE,
        &TRAILER,
        &UPGRADE,
        &PRAGMA,
        &ORIGIN,
        &REFERER,
        &USER_AGENT,
        &FORWARDED,
    ];
    known.contains(&field)
}
