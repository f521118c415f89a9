//! Rules for requests that are reads although they have a body.

#[cfg(feature = "body-key")]
use std::sync::Arc;
use std::sync::LazyLock;

use http::Method;
#[cfg(feature = "body-key")]
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
#[cfg(feature = "body-key")]
use sha2::{Digest, Sha256};

#[cfg(feature = "body-key")]
use super::{
    JsonBody, KeyRules,
    choice::Chosen,
    classes::Classified,
    parts::push_values,
    shape::{Match, Search},
};
use super::{KeyRule, error::Problem};
#[cfg(feature = "body-key")]
use crate::{
    http::{
        conditions::is_conditional,
        credentials::Credentials,
        fields::{asks_for_another_protocol, is_spelling_of},
    },
    key::{CacheKey, Form, KeyBuffer, KeyFacts, Persisted, Reading, Unkeyed, has_content, normal::Authority},
};

/// The largest body that a key may be made of.
const MAX_BODY: usize = 1 << 20;

/// How a body is to be read.
#[cfg(feature = "body-key")]
pub(super) const CONTENT_FIELDS: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE];
#[cfg(not(feature = "body-key"))]
pub(super) const CONTENT_FIELDS: [http::HeaderName; 0] = [];

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

#[cfg(feature = "body-key")]
impl KeyRule {
    /// What counts beside the bytes of a body, if anything does.
    pub(super) fn reading(&self) -> Result<Option<Arc<Reading>>, Problem> {
        let has_no_body = self.body.is_none();
        let alone = "it is about a `body`, and the rule has none";
        let unread = "it says which requests of `graphql` are reads, and the rule is not about these";
        let mistakes = [
            (self.graphql && has_no_body, "graphql", alone),
            (self.json_body.is_some() && has_no_body, "json_body", alone),
            (!self.persisted_queries.is_empty() && !self.graphql, "persisted_queries", unread),
        ];
        if let Some((_, setting, reason)) = mistakes.into_iter().find(|(is_made, ..)| *is_made) {
            return Err(Problem::NoEffect { setting, reason });
        }
        let is_name = |name: &&String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(name) = self.persisted_queries.iter().find(|name| !is_name(name)) {
            return Err(Problem::Persisted(name.as_str().into()));
        }
        let json = self.json_body.as_ref().map(JsonBody::compile).transpose()?;
        let known = || Persisted::new(self.persisted_queries.iter().map(String::as_str));
        let reading = Reading { graphql: self.graphql.then(known), json, forwards: self.forward_unkeyed };
        Ok((reading.graphql.is_some() || reading.json.is_some()).then(|| Arc::new(reading)))
    }
}

/// What a rule says about the body of a request.
#[cfg(feature = "body-key")]
pub(crate) struct BodyRule {
    pub(in crate::key) max_bytes: usize,
    /// None: the request has no key, whatever its body.
    pub(in crate::key) place: Option<Place>,
    /// None: all bodies are reads, and their bytes count.
    pub(in crate::key) reading: Option<Arc<Reading>>,
}

/// A key but for the digest of the body.
#[cfg(feature = "body-key")]
pub(in crate::key) struct Place {
    key: KeyBuffer,
    chosen: Option<Chosen>,
    classified: Option<Classified>,
}

#[cfg(feature = "body-key")]
impl Place {
    /// The key of a request with such a body, which keeps the cookies that are in it.
    pub(in crate::key) fn give_key(mut self, head: &mut Parts, form: &Form) {
        self.key.push(Sha256::digest(&form.keyed));
        if form.is_normal {
            self.key.push(b"json");
        }
        head.extensions.insert::<CacheKey>(self.key.to_key());
        self.chosen.map(|chosen| head.extensions.insert(chosen));
        self.classified.map(|classified| head.extensions.insert(classified));
        let keyed = self.key.keyed().clone();
        if let Some(names) = keyed.cookies() {
            names.keep_in(head);
        }
        match keyed.is_nothing() {
            true => drop(head.extensions.remove::<KeyFacts>()),
            false => drop(head.extensions.insert(KeyFacts::new(keyed, Credentials::default()))),
        }
    }
}

#[cfg(feature = "body-key")]
impl KeyRules {
    /// What the rule for a request says about its body, if it says that the request is a read.
    pub(crate) fn body_rule(&self, head: &Parts, has_body: bool) -> Option<BodyRule> {
        let may_be_read = match head.method {
            Method::GET => has_body,
            Method::HEAD => false,
            _ => !is_get_with_body(&head.method),
        };
        if !self.has_bodies() || !may_be_read || Unkeyed::overrides_method(head) {
            return None;
        }
        let method = method_with(head, has_body);
        let Ok((Ok(Some(found)), authority)) = self.rule_for(head, method) else { return None };
        let max_bytes = found.rule.max_body?;
        let reading = found.rule.reading.clone();
        Some(BodyRule { max_bytes, place: self.place(head, (method, authority), &found), reading })
    }

    fn place(
        &self,
        head: &Parts,
        (method, authority): (&Method, Authority<'_>),
        found: &Match<'_, '_>,
    ) -> Option<Place> {
        let is_upgrade = asks_for_another_protocol(&head.headers);
        // A key of somebody else's making does not hold the body.
        let has_own = head.extensions.get::<CacheKey>().is_some();
        if is_upgrade || has_own || is_conditional(&head.headers) || says_content_otherwise(&head.headers) {
            return None;
        }
        let shape = found.rule.shape.as_ref()?;
        let mut key = KeyBuffer::new();
        key.set_keyed(shape.parts.keyed.clone());
        self.encode(head, authority, found, shape, Search::AsLearned, &mut key).ok()?;
        key.push(head.method.as_str());
        push_content_fields(&head.headers, &mut key);
        Some(Place { key, chosen: self.choose(head, method), classified: self.classify(head) })
    }
}

/// Whether a service behind CGI or the like may find another value of [`CONTENT_FIELDS`] than others do.
#[cfg(feature = "body-key")]
fn says_content_otherwise(headers: &HeaderMap) -> bool {
    let is_other = |name: &HeaderName, own: &HeaderName| {
        name != own && is_spelling_of(own.as_str().as_bytes(), name.as_str().as_bytes())
    };
    headers.keys().any(|name| CONTENT_FIELDS.iter().any(|own| is_other(name, own)))
}

#[cfg(feature = "body-key")]
fn push_content_fields(headers: &HeaderMap, key: &mut KeyBuffer) {
    for name in CONTENT_FIELDS {
        push_values(headers.get_all(name).iter().map(HeaderValue::as_bytes), key);
    }
}
