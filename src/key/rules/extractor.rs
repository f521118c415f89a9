use std::sync::Arc;

use http::{Extensions, HeaderValue, Method, Uri, request::Parts, uri::Scheme};

use super::{
    KeyRulesBuilder, SearchKey,
    body::method_of,
    choice::{Chosen, Selected},
    classes::{Classified, CompiledClasses},
    compiled::Compiled,
    guard::{CompiledGuard, replace_query},
    index::Index,
    names::all_queries,
    negotiation::Negotiation,
    query,
    shape::{KeyLayout, Match, QueryShape, Search},
    when::Facts,
};
use crate::{
    http::credentials::Keyed,
    key::{
        CacheKey, DefaultKey, KeyBuffer, KeyExtractor, SameHosts, Unkeyed, has_content,
        normal::{Authority, fold, normal_uri},
        target::{original, original_uri, path_and_query},
    },
    tags::TagFields,
};

/// Derives keys by rules; see the [module](super).
///
/// A clone costs one reference count, and shares what was learned from `No-Vary-Search`. With the
/// feature `serde` it can be deserialised, unless a rule needs an
/// [extension](KeyRulesBuilder::extension), which a document cannot say how to read.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "KeyRulesBuilder"))]
pub struct KeyRules {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) default_key: DefaultKey,
    pub(super) same_hosts: Option<SameHosts>,
    pub(super) rules: Box<[Compiled]>,
    /// For the requests that none of them is for. None: they have the default key.
    pub(super) rest: Option<Compiled>,
    pub(super) index: Index,
    pub(super) bypasses: Bypasses,
    pub(super) has_paths: bool,
    #[cfg_attr(not(feature = "body-key"), allow(dead_code, reason = "there are none"))]
    pub(super) has_bodies: bool,
    /// Whether a rule with a body leaves out something of its URIs.
    pub(super) merges_bodies: bool,
    /// Whether any rule is for some requests only, by their fields or their query.
    pub(super) has_conditions: bool,
    pub(super) negotiation: Negotiation,
    pub(super) classes: CompiledClasses,
    pub(super) guard: CompiledGuard,
    pub(super) tag_fields: TagFields,
    /// As it was written, for those who ask what the rules say.
    pub(super) source: KeyRulesBuilder,
}

/// The rules that bypass certain paths, by how these begin when they are read loosely.
#[derive(Debug)]
pub(super) struct Bypasses {
    pub(super) index: Index,
    pub(super) rules: Box<[usize]>,
}

impl KeyRules {
    /// No rules yet.
    pub fn builder() -> KeyRulesBuilder {
        KeyRulesBuilder::default()
    }

    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// The rules as they were written.
    pub(super) fn source(&self) -> &KeyRulesBuilder {
        &self.inner.source
    }

    pub(super) fn guard(&self) -> &CompiledGuard {
        &self.inner.guard
    }

    /// In the order of the [source](Self::source).
    pub(super) fn rules(&self) -> &[Compiled] {
        &self.inner.rules
    }

    #[cfg(feature = "body-key")]
    pub(super) fn has_bodies(&self) -> bool {
        self.inner.has_bodies
    }

    /// How errors call a rule.
    fn label(&self, rule: &Compiled) -> String {
        self.source().rules[rule.index].label().to_owned()
    }

    pub(super) fn encode(
        &self,
        head: &Parts,
        authority: Authority<'_>,
        found: &Match<'_, '_>,
        shape: &KeyLayout,
        search: Search<'_>,
        key: &mut KeyBuffer,
    ) -> Result<(), Unkeyed> {
        self.inner.default_key.begin(found.target, authority, key);
        shape.push_path(found, key);
        shape.push_query(found, search, key);
        push_rewritten(head, key);
        shape.parts.push(head, (&self.inner.negotiation, &self.inner.classes), key)?;
        self.inner.guard.push_keyed(&head.headers, key);
        Ok(())
    }

    /// What the rule of a request has in its key.
    fn keyed_of(&self, head: &Parts) -> Keyed {
        let Ok((Ok(Some(found)), _)) = self.rule_of(head) else { return Keyed::NOTHING };
        found.rule.shape.as_ref().map_or(Keyed::NOTHING, |shape| shape.parts.keyed.clone())
    }

    /// The classes of a request, for which a key holds them that it is given from elsewhere.
    #[cfg(feature = "body-key")]
    pub(super) fn classify(&self, head: &Parts) -> Option<Classified> {
        self.inner.classes.classify(head)
    }
}

/// What was rewritten on the way here. What a router of axum cut off counts as that alone, for the
/// rest is in the key already, but for what the rule leaves out.
fn push_rewritten(head: &Parts, key: &mut KeyBuffer) {
    let target = original_uri(head);
    if head.uri.path_and_query() == target.path_and_query() {
        return;
    }
    let is_same_query = head.uri.query() == target.query();
    match target.path().strip_suffix(head.uri.path()).filter(|_| is_same_query) {
        Some(cut) => key.push(cut.as_bytes()),
        None => {
            key.push(b"?");
            key.push(path_and_query(&head.uri));
        }
    }
}

impl KeyExtractor for KeyRules {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        let mut key = KeyBuffer::new();
        self.write_key(head, &mut key).ok().map(|()| key.to_key())
    }

    fn write_key(&self, head: &Parts, key: &mut KeyBuffer) -> Result<(), Unkeyed> {
        let (selected, authority) = self.rule_of(head)?;
        match selected? {
            Some(found) if found.rule.is_bypass => Err(Unkeyed::RuleBypass),
            Some(found) if found.rule.max_body.is_some() => Err(Unkeyed::Body),
            Some(ref found @ Match { rule: Compiled { shape: Some(shape), .. }, .. }) => {
                key.set_keyed(shape.parts.keyed.clone());
                self.encode(head, authority, found, shape, Search::AsLearned, key)
            }
            _ => {
                self.inner.default_key.write_target_at(authority, head, key);
                self.inner.guard.push_keyed(&head.headers, key);
                Ok(())
            }
        }
    }

    fn identity(&self, uri: &Uri, host: Option<&HeaderValue>, extensions: &Extensions) -> Option<CacheKey> {
        let uri = original(uri, extensions);
        let normal = normal_uri(uri);
        let uri = normal.as_ref().unwrap_or(uri);
        let authority = self.authority_of(uri, host)?;
        if self.inner.merges_bodies && self.merges_bodies_at(authority, uri.path()) {
            return Some(all_queries(uri, authority));
        }
        // As GET: reads by a body that hold all of the URI in their keys go with what it names.
        let of_uri = || self.select(uri, authority, &Method::GET, &Facts::unknown());
        let chosen = self.selected_before(uri, authority, extensions);
        let is_read = |selected: &Selected<'_, '_>| matches!(selected, Ok(Some(found)) if found.rule.max_body.is_none());
        let found = chosen.filter(is_read).unwrap_or_else(of_uri).ok().flatten()?;
        self.name_for(&found, authority)
    }

    fn identities(
        &self,
        uri: &Uri,
        host: Option<&HeaderValue>,
        extensions: &Extensions,
        each: &mut dyn FnMut(Option<CacheKey>),
    ) {
        if !self.inner.has_conditions {
            return each(self.identity(uri, host, extensions));
        }
        let uri = original(uri, extensions);
        let normal = normal_uri(uri);
        let uri = normal.as_ref().unwrap_or(uri);
        match self.authority_of(uri, host) {
            Some(authority) if self.inner.merges_bodies && self.merges_bodies_at(authority, uri.path()) => {
                each(Some(all_queries(uri, authority)));
            }
            Some(authority) => self.each_name(uri, authority, each),
            None => each(None),
        }
    }

    fn note(&self, head: &mut Parts) {
        // A request with a key went through these rules already, and may have lost what they looked at.
        let has_key = head.extensions.get::<CacheKey>().is_some();
        if !has_key && !self.inner.classes.is_empty() {
            head.extensions.remove::<Classified>();
        }
        if !self.inner.has_conditions || has_key && self.chosen(&head.extensions).is_some() {
            return;
        }
        match self.choose(head, method_of(head)) {
            Some(chosen) => drop(head.extensions.insert(chosen)),
            None => drop(head.extensions.remove::<Chosen>()),
        }
    }

    fn rule_of_url(&self, uri: &Uri, host: Option<&HeaderValue>) -> Result<Option<String>, String> {
        let normal = normal_uri(uri);
        let uri = normal.as_ref().unwrap_or(uri);
        let Some(authority) = self.authority_of(uri, host) else { return Ok(None) };
        match self.select(uri, authority, &Method::GET, &Facts::unknown()) {
            Ok(Some(found)) if found.rule.index < self.source().rules.len() => {
                Ok(Some(self.label(found.rule)))
            }
            Err(_) => Ok(None),
            // What holds for requests that no rule is for is no rule.
            Ok(_) => {
                let mut rules = self.inner.rules.iter();
                let is_conditional = |rule: &&Compiled| {
                    rule.when.is_some() && rule.find(authority, &Method::GET, uri.path(), uri).is_some()
                };
                if let Some(rule) = rules.clone().find(is_conditional) {
                    return Ok(Some(self.label(rule)));
                }
                let other = rules.find(|rule| rule.is_for_another_query(authority, &Method::GET, uri.path()));
                other.map_or(Ok(None), |rule| Err(self.label(rule)))
            }
        }
    }

    fn assumed_scheme(&self) -> Option<&Scheme> {
        self.inner.default_key.assumed_scheme()
    }

    fn same_hosts(&self) -> Option<&SameHosts> {
        self.inner.same_hosts.as_ref()
    }

    fn tag_fields(&self) -> TagFields {
        self.inner.tag_fields.clone()
    }

    fn normalise(&self, head: &mut Parts) {
        let Inner { negotiation, classes, guard, .. } = &*self.inner;
        negotiation.apply(&mut head.headers);
        let asks_for_rule = guard.asks_for_rule();
        if !asks_for_rule && classes.is_empty() {
            return guard.strip(&mut head.headers, |_| false);
        }
        let keyed = self.keyed_of(head);
        // A key of the caller's own making does not hold the class.
        let holds_classes = head.extensions.get::<CacheKey>().is_none() || classes.are_known(head);
        classes.apply(head, |name| holds_classes && keyed.fields().contains(name));
        guard.strip(&mut head.headers, |name| asks_for_rule && keyed.has_exactly(name));
    }

    fn normalises(&self) -> bool {
        let Inner { negotiation, classes, guard, .. } = &*self.inner;
        !(negotiation.is_nothing() && classes.is_empty() && guard.is_nothing())
    }

    fn prepare(&self, head: &mut Parts) {
        fold(head, self.assumed_scheme(), self.same_hosts());
        // What is in a key of somebody else's making is not known here.
        let is_own = head.extensions.get::<CacheKey>().is_none() || has_content(&head.extensions);
        let (overrides, tags, learns, query) = {
            let Ok((Ok(Some(found)), _)) = self.rule_of(head) else { return };
            let rule = found.rule;
            let shape = rule.shape.as_ref().filter(|_| is_own);
            let learns = shape.is_some_and(|shape| matches!(shape.query, QueryShape::Learned(_)));
            let shown = shape.filter(|_| !rule.forwards_unkeyed);
            let pairs = shown.and_then(|shape| shape.shown(&found));
            let tags = rule.tags.add_to(&head.extensions, &found);
            (rule.overrides.clone(), tags, learns, pairs.map(|pairs| query::write(&pairs)))
        };
        overrides.map(|overrides| head.extensions.insert(overrides));
        tags.map(|tags| head.extensions.insert(tags));
        learns.then(|| head.extensions.insert(SearchKey(self.clone())));
        if let Some(query) = query {
            replace_query(head, &query);
        }
    }
}
