use std::{borrow::Cow, ptr, sync::Arc};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, request::Parts, uri::Scheme};

use super::{
    KeyRulesBuilder, SearchKey,
    body::method_of,
    compiled::Compiled,
    guard::{CompiledGuard, replace_query},
    index::Index,
    negotiation::Negotiation,
    no_vary_search::policy_of,
    pattern::loosened,
    query,
    readings::other_readings,
    shape::{Match, QueryShape, Search, Shape},
};
use crate::{
    exchange::Asked,
    http::changes::Changes,
    key::{
        CacheKey, DefaultKey, KeyBuffer, KeyExtractor, Unkeyed, has_content,
        normal::{Authority, normal_uri},
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
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) default_key: DefaultKey,
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
    pub(super) negotiation: Negotiation,
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

/// One rule or another is for a request, depending on how its path is read.
pub(super) struct Doubtful;

/// The rule that is for a request, if one is.
pub(super) type Selected<'r, 'h> = Result<Option<Match<'r, 'h>>, Doubtful>;

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

    fn select<'h>(&self, target: &'h Uri, authority: Authority<'_>, method: &Method) -> Selected<'_, 'h> {
        let found = self.first(authority, method, target.path(), target);
        if self.inner.has_paths {
            let readings = other_readings(target.path()).ok_or(Doubtful)?;
            let rule = |found: &Option<Match<'_, '_>>| found.as_ref().map(|found| ptr::from_ref(found.rule));
            let is_other = |read: &String| rule(&self.first(authority, method, read, target)) != rule(&found);
            let has_gaps = found.as_ref().is_some_and(|found| found.rule.has_path_gaps());
            if has_gaps && readings.are_several || readings.others.iter().any(is_other) {
                return Err(Doubtful);
            }
        }
        Ok(found)
    }

    /// The first rule that is for such a request, with its path read like this.
    fn first<'h>(
        &self,
        authority: Authority<'_>,
        method: &Method,
        path: &'h str,
        target: &'h Uri,
    ) -> Option<Match<'_, 'h>> {
        let Inner { index, rules, rest, .. } = &*self.inner;
        let found = index
            .candidates(path)
            .into_iter()
            .find_map(|rule| rules[rule].find(authority, method, path, target).map(|found| (rule, found)));
        let limit = found.as_ref().map_or(rules.len(), |(rule, _)| *rule);
        match self.first_bypass(limit, authority, method, path, target) {
            Some(rule) => Some(Match { rule, target, captures: None, slots: None }),
            None => match (found, rest) {
                (Some((_, found)), _) => Some(found),
                (None, Some(rest)) => rest.find(authority, method, path, target),
                (None, None) => None,
            },
        }
    }

    /// The first rule before `limit` that bypasses the path as some server may read it.
    fn first_bypass(
        &self,
        limit: usize,
        authority: Authority<'_>,
        method: &Method,
        path: &str,
        target: &Uri,
    ) -> Option<&Compiled> {
        let Inner { bypasses, rules, .. } = &*self.inner;
        if bypasses.rules.first().is_none_or(|first| *first >= limit) {
            return None;
        }
        let read = |loosened: Cow<'_, str>| {
            let candidates = bypasses.index.candidates(&loosened).into_iter().map(|at| bypasses.rules[at]);
            let mut earlier = candidates.take_while(|rule| *rule < limit).map(|rule| &rules[rule]);
            earlier.find(|rule| rule.bypasses(authority, method, &loosened, target))
        };
        loosened(path).find_map(read)
    }

    /// The rule of a request that may have a key, and its authority.
    pub(super) fn rule_of<'h>(&self, head: &'h Parts) -> Result<(Selected<'_, 'h>, Authority<'h>), Unkeyed> {
        self.rule_for(head, method_of(head))
    }

    /// As [`rule_of`](Self::rule_of), as if the request had this method.
    pub(super) fn rule_for<'h>(
        &self,
        head: &'h Parts,
        method: &Method,
    ) -> Result<(Selected<'_, 'h>, Authority<'h>), Unkeyed> {
        let target = original_uri(head);
        let scheme = self.inner.default_key.scheme_of(target);
        let authority = Authority::of_request(target, &head.headers, scheme)?;
        Ok((self.select(target, authority, method), authority))
    }

    pub(super) fn encode(
        &self,
        head: &Parts,
        authority: Authority<'_>,
        found: &Match<'_, '_>,
        shape: &Shape,
        search: Search<'_>,
        key: &mut KeyBuffer,
    ) -> Result<(), Unkeyed> {
        self.inner.default_key.begin(found.target, authority, key);
        shape.push_path(found, key);
        shape.push_query(found, search, key);
        push_rewritten(head, key);
        shape.parts.push(head, &self.inner.negotiation, key)?;
        self.inner.guard.push_keyed(&head.headers, key);
        Ok(())
    }

    /// Whether requests for several queries of this path share entries by their bodies. By which rule is
    /// not asked of each query: what one purges and invalidates, so does every other.
    fn merges_bodies_at(&self, authority: Authority<'_>, path: &str) -> bool {
        let Inner { index, rules, .. } = &*self.inner;
        index.candidates(path).into_iter().any(|rule| rules[rule].merges_bodies_at(authority, path))
    }

    /// The fields that the rule of a request has in its key.
    fn keyed_fields(&self, head: &Parts) -> Vec<HeaderName> {
        let Ok((Ok(Some(found)), _)) = self.rule_of(head) else { return Vec::new() };
        found.rule.shape.as_ref().map(|shape| shape.parts.fields().collect()).unwrap_or_default()
    }

    /// Whether an answer may be kept under this key of its request, by what it says about its
    /// query.
    pub(super) fn agrees_on_search(&self, head: &Parts, answer: &HeaderMap, asked: &Asked) -> bool {
        let Ok((Ok(Some(found)), authority)) = self.rule_of(head) else { return true };
        let Some(shape @ Shape { query: QueryShape::Learned(_), .. }) = &found.rule.shape else {
            return true;
        };
        let is_under = |policy: Option<&_>| {
            let mut own = KeyBuffer::new();
            own.set_keyed(asked.keyed.clone());
            let is_whole = self.encode(head, authority, &found, shape, Search::By(policy), &mut own).is_ok();
            // Those of the rules for all requests come last.
            if let (None, Some(names)) = (shape.parts.keyed.cookies(), asked.keyed.cookies()) {
                own.push_cookies(names, &head.headers);
            }
            is_whole && own.as_bytes() == asked.key.as_bytes()
        };
        // Under its whole query every answer is right.
        is_under(None) || policy_of(answer).is_some_and(|policy| is_under(Some(&policy)))
    }

    pub(super) fn learn_search(&self, head: &Parts, answer: &HeaderMap) {
        let Ok((Ok(Some(found)), authority)) = self.rule_of(head) else { return };
        if let Some(shape @ Shape { query: QueryShape::Learned(learned), .. }) = &found.rule.shape {
            let mut path = KeyBuffer::new();
            self.inner.default_key.begin(found.target, authority, &mut path);
            shape.push_path(&found, &mut path);
            learned.note(path.as_bytes(), policy_of(answer).as_ref());
        }
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
        match selected.map_err(|Doubtful| Unkeyed::AmbiguousPath)? {
            Some(found) if found.rule.is_bypass => Err(Unkeyed::RuleBypass),
            Some(found) if found.rule.max_body.is_some() => Err(Unkeyed::Body),
            Some(ref found @ Match { rule: Compiled { shape: Some(shape), .. }, .. }) => {
                key.set_keyed(shape.parts.keyed.clone());
                self.encode(head, authority, found, shape, Search::AsLearned, key)
            }
            _ => {
                self.inner.default_key.write_target(head, key)?;
                self.inner.guard.push_keyed(&head.headers, key);
                Ok(())
            }
        }
    }

    fn identity(&self, uri: &Uri, host: Option<&HeaderValue>, extensions: &Extensions) -> Option<CacheKey> {
        let uri = original(uri, extensions);
        let normal = normal_uri(uri);
        let uri = normal.as_ref().unwrap_or(uri);
        let host = host.map(HeaderValue::as_bytes);
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes()).or(host)?;
        let authority = Authority::of_target(authority, uri, self.assumed_scheme());
        if self.inner.merges_bodies && self.merges_bodies_at(authority, uri.path()) {
            let mut identity = KeyBuffer::new();
            identity.push_lower_case(authority.as_bytes());
            identity.push(b"all queries");
            identity.push_lower_case(uri.path().as_bytes());
            return Some(identity.to_key());
        }
        // As GET: reads by a body that hold all of the URI in their keys go with what it names.
        let Ok(Some(found)) = self.select(uri, authority, &Method::GET) else { return None };
        let shape = found.rule.shape.as_ref()?;
        let mut identity = KeyBuffer::new();
        identity.push_lower_case(authority.as_bytes());
        shape.push_identity(&found, &mut identity);
        Some(identity.to_key())
    }

    fn rule_of_url(&self, uri: &Uri, host: Option<&HeaderValue>) -> Result<Option<String>, String> {
        let normal = normal_uri(uri);
        let uri = normal.as_ref().unwrap_or(uri);
        let host = host.map(HeaderValue::as_bytes);
        let Some(authority) = uri.authority().map(|authority| authority.as_str().as_bytes()).or(host) else {
            return Ok(None);
        };
        let authority = Authority::of_target(authority, uri, self.assumed_scheme());
        match self.select(uri, authority, &Method::GET) {
            Ok(Some(found)) => Ok(Some(self.label(found.rule))),
            Err(Doubtful) => Ok(None),
            Ok(None) => {
                let mut rules = self.inner.rules.iter();
                let other = rules.find(|rule| rule.is_for_another_query(authority, &Method::GET, uri.path()));
                other.map_or(Ok(None), |rule| Err(self.label(rule)))
            }
        }
    }

    fn assumed_scheme(&self) -> Option<&Scheme> {
        self.inner.default_key.assumed_scheme()
    }

    fn tag_fields(&self) -> TagFields {
        self.inner.tag_fields.clone()
    }

    fn normalise(&self, head: &mut Parts) {
        self.inner.negotiation.apply(&mut head.headers);
        match self.inner.guard.asks_for_rule() {
            false => self.inner.guard.strip(&mut head.headers, |_| false),
            true => {
                let keyed = self.keyed_fields(head);
                self.inner.guard.strip(&mut head.headers, |name| keyed.contains(name));
            }
        }
    }

    fn prepare(&self, head: &mut Parts) {
        self.inner.default_key.prepare(head);
        // What is in a key of somebody else's making is not known here.
        let is_own = head.extensions.get::<CacheKey>().is_none() || has_content(&head.extensions);
        let (changes, tags, learns, query) = {
            let Ok((Ok(Some(found)), _)) = self.rule_of(head) else { return };
            let rule = found.rule;
            let shape = rule.shape.as_ref().filter(|_| is_own);
            let learns = shape.is_some_and(|shape| matches!(shape.query, QueryShape::Learned(_)));
            let shown = shape.filter(|_| !rule.forwards_unkeyed);
            let pairs = shown.and_then(|shape| shape.shown(&found));
            let tags = rule.tags.add_to(&head.extensions, &found);
            (rule.changes.clone(), tags, learns, pairs.map(|pairs| query::write(&pairs)))
        };
        changes.map(|changes: Changes| head.extensions.insert(changes));
        tags.map(|tags| head.extensions.insert(tags));
        learns.then(|| head.extensions.insert(SearchKey(self.clone())));
        if let Some(query) = query {
            replace_query(head, &query);
        }
    }
}
