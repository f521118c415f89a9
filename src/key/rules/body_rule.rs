//! Keys that hold the body of a request, by a rule.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, request::Parts};
use sha2::{Digest, Sha256};

use super::{
    JsonBody, KeyRule, KeyRules, body,
    classes::Classified,
    compiled::Match,
    error::Problem,
    extractor::ChosenRule,
    layout::{self, PolicySource},
};
use crate::{
    http::{conditions, fields, request_fields::Credentials},
    key::{self, uri::Authority},
};

/// How the body of a request becomes a part of its key.
pub(crate) struct BodyRule {
    max_bytes: usize,
    key: Option<PartialKey>,
    reading: Option<Arc<key::Reading>>,
}

impl BodyRule {
    /// The most bytes that a body in a key may have.
    pub(in crate::key) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// How the body is read. `None`: all bodies are reads, and their bytes count.
    pub(in crate::key) fn reading(&self) -> Option<Arc<key::Reading>> {
        self.reading.clone()
    }

    /// The key without the body. `None`: the request has no key, whatever its body.
    pub(in crate::key) fn into_key(self) -> Option<PartialKey> {
        self.key
    }
}

/// A key without the digest of the body.
pub(in crate::key) struct PartialKey {
    key: key::KeyBuffer,
    chosen: Option<ChosenRule>,
    classified: Option<Classified>,
}

impl PartialKey {
    /// Gives the request the key with this body, and removes the cookies that are not in the key.
    pub(in crate::key) fn give_key(mut self, head: &mut Parts, form: &key::Form) {
        self.key.push(Sha256::digest(&form.keyed));
        if form.is_normal {
            self.key.push(b"json");
        }
        head.extensions.insert::<key::CacheKey>(self.key.to_key());
        self.chosen.map(|chosen| head.extensions.insert(chosen));
        self.classified.map(|classified| head.extensions.insert(classified));
        let keyed = self.key.keyed().clone();
        if let Some(names) = keyed.cookies() {
            names.keep_in(head);
        }
        match keyed.is_nothing() {
            true => drop(head.extensions.remove::<key::KeyFacts>()),
            false => drop(head.extensions.insert(key::KeyFacts::new(keyed, Credentials::default()))),
        }
    }
}

impl KeyRule {
    /// How the bodies of its requests are read, if more than their bytes counts.
    pub(super) fn reading(&self) -> Result<Option<Arc<key::Reading>>, Problem> {
        let has_no_body = self.body.is_none();
        let no_body = "it is about a body, and the rule has no `body`";
        let no_graphql = "it names GraphQL queries, and the rule has no `graphql`";
        let mistakes = [
            (self.graphql && has_no_body, "graphql", no_body),
            (self.json_body.is_some() && has_no_body, "json_body", no_body),
            (!self.persisted_queries.is_empty() && !self.graphql, "persisted_queries", no_graphql),
        ];
        if let Some((_, setting, reason)) = mistakes.into_iter().find(|(is_made, ..)| *is_made) {
            return Err(Problem::NoEffect { setting, reason });
        }
        let is_name = |name: &&String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(name) = self.persisted_queries.iter().find(|name| !is_name(name)) {
            return Err(Problem::Persisted(name.as_str().into()));
        }
        let json = self.json_body.as_ref().map(JsonBody::compile).transpose()?;
        let known = || key::Persisted::new(self.persisted_queries.iter().map(String::as_str));
        let reading =
            key::Reading { graphql: self.graphql.then(known), json, forwards: self.forward_unkeyed };
        Ok((reading.graphql.is_some() || reading.json.is_some()).then(|| Arc::new(reading)))
    }
}

impl KeyRules {
    /// How the body becomes a part of the key, if the rule for the request has bodies in its keys.
    pub(crate) fn body_rule(&self, head: &Parts, has_body: bool) -> Option<BodyRule> {
        let may_be_read = match head.method {
            Method::GET => has_body,
            Method::HEAD => false,
            _ => !body::is_get_with_body(&head.method),
        };
        if !self.has_bodies() || !may_be_read || key::Unkeyed::overrides_method(head) {
            return None;
        }
        let method = body::method_with(head, has_body);
        let Ok((Ok(Some(found)), authority)) = self.rule_for(head, method) else { return None };
        let max_bytes = found.rule().max_body()?;
        let key = self.partial_key(head, method, authority, &found);
        Some(BodyRule { max_bytes, key, reading: found.rule().reading() })
    }

    fn partial_key(
        &self,
        head: &Parts,
        method: &Method,
        authority: Authority<'_>,
        found: &Match<'_, '_>,
    ) -> Option<PartialKey> {
        let is_upgrade = fields::asks_for_another_protocol(&head.headers);
        // A key that is there already does not hold the body.
        let has_key = head.extensions.get::<key::CacheKey>().is_some();
        if is_upgrade
            || has_key
            || conditions::is_conditional(&head.headers)
            || has_ambiguous_content(&head.headers)
        {
            return None;
        }
        let layout = found.rule().layout()?;
        let mut key = key::KeyBuffer::new();
        key.set_keyed(layout.keyed().clone());
        self.begin_key(found.target(), authority, &mut key);
        layout.push(head, found, PolicySource::Learned, self.fields(), &mut key).ok()?;
        key.push(head.method.as_str());
        for name in body::CONTENT_FIELDS {
            layout::push_values(head.headers.get_all(name).iter().map(HeaderValue::as_bytes), &mut key);
        }
        let classified = self.fields().classify(head);
        Some(PartialKey { key, chosen: self.choose(head, method), classified })
    }
}

/// Whether a service behind CGI or similar may find other values of [`body::CONTENT_FIELDS`] than other services
/// do.
fn has_ambiguous_content(headers: &HeaderMap) -> bool {
    let is_other = |name: &HeaderName, own: &HeaderName| {
        name != own && fields::is_spelling_of(own.as_str().as_bytes(), name.as_str().as_bytes())
    };
    headers.keys().any(|name| body::CONTENT_FIELDS.iter().any(|own| is_other(name, own)))
}
