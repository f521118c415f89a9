//! Rules for requests that are reads although they have a body.

use std::sync::LazyLock;

use http::Method;
#[cfg(feature = "body-key")]
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::{KeyRule, error::Problem};
#[cfg(feature = "body-key")]
use super::{
    KeyRules, KeyRulesBuilder, RuleError,
    parts::push_values,
    shape::{Match, Search},
};
#[cfg(feature = "body-key")]
use crate::{
    exchange::Read,
    http::{conditions::is_conditional, fields::asks_for_another_protocol},
    key::{BodyKeyLayer, CacheKey, KeyBuffer, has_content, has_method_in_query, normal::Authority},
};

/// The largest body that a key may be made of.
const MAX_BODY: usize = 1 << 20;

/// How a body is to be read.
#[cfg(feature = "body-key")]
pub(super) const CONTENT_FIELDS: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE];
#[cfg(not(feature = "body-key"))]
pub(super) const CONTENT_FIELDS: [http::HeaderName; 0] = [];

/// By which many frameworks take a POST for another method.
#[cfg(feature = "body-key")]
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];

/// What a GET with a body is to rules, so that one for GET without a body is never for it, nor the other
/// way round.
static GET_WITH_BODY: LazyLock<Method> =
    LazyLock::new(|| Method::from_bytes(b"GET+BODY").unwrap_or(Method::GET));

/// The method by which rules are found for a request.
#[cfg(feature = "body-key")]
pub(super) fn method_of(head: &Parts) -> &Method {
    method_with(head, has_content(&head.extensions))
}

#[cfg(not(feature = "body-key"))]
pub(super) fn method_of(head: &http::request::Parts) -> &Method {
    &head.method
}

#[cfg(feature = "body-key")]
fn method_with(head: &Parts, has_body: bool) -> &Method {
    match head.method == Method::GET && has_body {
        true => &GET_WITH_BODY,
        false => &head.method,
    }
}

/// Whether requests of this method are those that bypass where GET does.
pub(super) fn is_get_with_body(method: &Method) -> bool {
    cfg!(feature = "body-key") && *method == *GET_WITH_BODY
}

/// A method by which something can be read with a body.
pub(super) fn parse_read(text: &str) -> Result<Method, Problem> {
    match text {
        "GET" => Ok(GET_WITH_BODY.clone()),
        "POST" => Ok(Method::POST),
        "QUERY" => Method::from_bytes(b"QUERY").map_err(|_| Problem::BodyMethod(text.into())),
        other => Err(Problem::BodyMethod(other.into())),
    }
}

impl KeyRule {
    pub(super) fn check_body(&self, has_path_gaps: bool) -> Result<(), Problem> {
        let Some(max_bytes) = self.body else { return Ok(()) };
        if max_bytes == 0 {
            return Err(Problem::Zero { setting: "body", consequence: "no body is short enough for a key" });
        }
        if max_bytes > MAX_BODY {
            return Err(Problem::BodyBound { max_bytes, limit: MAX_BODY });
        }
        if self.methods.is_empty() {
            return Err(Problem::BodyMethods);
        }
        match has_path_gaps || self.no_vary_search {
            true => Err(Problem::BodyUri),
            false => Ok(()),
        }
    }
}

/// What a rule says about the body of a request.
#[cfg(feature = "body-key")]
pub(in crate::key) struct BodyRule {
    pub(in crate::key) max_bytes: usize,
    /// None: the request has no key, whatever its body.
    pub(in crate::key) place: Option<Place>,
}

/// A key but for the digest of the body.
#[cfg(feature = "body-key")]
pub(in crate::key) struct Place(KeyBuffer);

#[cfg(feature = "body-key")]
impl Place {
    /// The key of a request with a body of this digest, which keeps the cookies that are in it.
    pub(in crate::key) fn give_key(mut self, head: &mut Parts, digest: &[u8]) {
        self.0.push(digest);
        head.extensions.insert::<CacheKey>(self.0.to_key());
        let keyed = self.0.keyed().clone();
        if let Some(names) = keyed.cookies() {
            names.keep(&mut head.headers);
        }
        match keyed.is_nothing() {
            true => drop(head.extensions.remove::<Read>()),
            false => {
                head.extensions.insert(Read { keyed, ..Read::default() });
            }
        }
    }
}

#[cfg(feature = "body-key")]
impl KeyRulesBuilder {
    /// As [`build`](Self::build), with rules that have a [`body`](KeyRule::body).
    ///
    /// The layer goes directly in front of the cache, which gets the same rules. It is the only way
    /// to such rules, so that nobody can forget it.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    pub fn build_with_bodies(self) -> Result<BodyKeyLayer, RuleError> {
        self.compile().map(BodyKeyLayer::new)
    }
}

#[cfg(feature = "body-key")]
impl KeyRules {
    /// What the rule for a request says about its body, if it says that the request is a read.
    pub(in crate::key) fn body_rule(&self, head: &Parts, has_body: bool) -> Option<BodyRule> {
        let may_be_read = match head.method {
            Method::GET => has_body,
            Method::HEAD => false,
            _ => !is_get_with_body(&head.method),
        };
        let is_override = OVERRIDES.iter().any(|name| head.headers.contains_key(name));
        if !self.has_bodies() || !may_be_read || is_override || has_method_in_query(&head.uri) {
            return None;
        }
        let method = method_with(head, has_body);
        let Ok((Ok(Some(found)), authority)) = self.rule_for(head, method) else { return None };
        let max_bytes = found.rule.max_body?;
        Some(BodyRule { max_bytes, place: self.place(head, authority, &found) })
    }

    fn place(&self, head: &Parts, authority: Authority<'_>, found: &Match<'_, '_>) -> Option<Place> {
        let is_upgrade = asks_for_another_protocol(&head.headers);
        // A key of somebody else's making does not hold the body.
        let has_own = head.extensions.get::<CacheKey>().is_some();
        if is_upgrade || has_own || is_conditional(&head.headers) {
            return None;
        }
        let shape = found.rule.shape.as_ref()?;
        let mut key = KeyBuffer::new();
        key.set_keyed(shape.parts.keyed.clone());
        self.encode(head, authority, found, shape, Search::AsLearned, &mut key).ok()?;
        key.push(head.method.as_str());
        push_content_fields(&head.headers, &mut key);
        Some(Place(key))
    }
}

#[cfg(feature = "body-key")]
fn push_content_fields(headers: &HeaderMap, key: &mut KeyBuffer) {
    for name in CONTENT_FIELDS {
        push_values(headers.get_all(name).iter().map(HeaderValue::as_bytes), key);
    }
}
