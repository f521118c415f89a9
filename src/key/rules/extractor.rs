use std::{borrow::Cow, ptr, sync::Arc};

use http::{Extensions, HeaderMap, HeaderValue, Method, Uri, request::Parts, uri::Scheme};

use super::{
    KeyRulesBuilder, SearchKey,
    body::method_of,
    classes::{Classified, CompiledClasses},
    compiled::Compiled,
    guard::{CompiledGuard, replace_query},
    index::Index,
    negotiation::Negotiation,
    no_vary_search::policy_of,
    pattern::loosened,
    query,
    readings::other_readings,
    shape::{Match, QueryShape, Search, Shape},
    sightings::Truth,
    when::Facts,
};
use crate::{
    exchange::Asked,
    http::{changes::Changes, credentials::Keyed},
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
    inner: Arc<Inner>,
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

/// One rule or another is for a request, depending on how this is read of it.
#[derive(Clone, Copy)]
pub(super) enum Doubtful {
    Path,
    Condition,
}

impl From<Doubtful> for Unkeyed {
    fn from(doubtful: Doubtful) -> Self {
        match doubtful {
            Doubtful::Path => Self::AmbiguousPath,
            Doubtful::Condition => Self::AmbiguousCondition,
        }
    }
}

/// The rule of a request of which a condition was looked at: in the extensions of the request, for what
/// the condition looked at may be removed from it.
#[derive(Clone)]
pub(super) struct Chosen {
    by: KeyRules,
    /// The number of the rule.
    rule: Result<Option<usize>, Doubtful>,
}

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

    fn select<'h>(
        &self,
        target: &'h Uri,
        authority: Authority<'_>,
        method: &Method,
        facts: &Facts<'_>,
    ) -> Selected<'_, 'h> {
        let found = self.first(authority, method, target.path(), target, facts)?;
        if self.inner.has_paths {
            let readings = other_readings(target.path()).ok_or(Doubtful::Path)?;
            let rule = |found: &Option<Match<'_, '_>>| found.as_ref().map(|found| ptr::from_ref(found.rule));
            let is_other = |read: &String| {
                let other = self.first(authority, method, read, target, facts);
                other.is_err() || other.is_ok_and(|other| rule(&other) != rule(&found))
            };
            let has_gaps = found.as_ref().is_some_and(|found| found.rule.has_path_gaps());
            if has_gaps && readings.are_several || readings.others.iter().any(is_other) {
                return Err(Doubtful::Path);
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
        facts: &Facts<'_>,
    ) -> Selected<'_, 'h> {
        let Inner { index, rules, rest, .. } = &*self.inner;
        let mut found = None;
        for rule in index.candidates(path) {
            let Some(matched) = rules[rule].find(authority, method, path, target) else { continue };
            let truth = rules[rule].holds(facts);
            if truth != Truth::No {
                found = Some((rule, matched, truth));
                break;
            }
        }
        let limit = found.as_ref().map_or(rules.len(), |(rule, ..)| *rule);
        if let Some(rule) = self.first_bypass(limit, authority, method, path, target, facts) {
            return Ok(Some(Match { rule, target, captures: None, slots: None }));
        }
        match found {
            Some((_, found, Truth::Doubt)) if !found.rule.is_bypass => Err(Doubtful::Condition),
            Some((_, found, _)) => Ok(Some(found)),
            None => Ok(rest.as_ref().and_then(|rest| rest.find(authority, method, path, target))),
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
        facts: &Facts<'_>,
    ) -> Option<&Compiled> {
        let Inner { bypasses, rules, .. } = &*self.inner;
        if bypasses.rules.first().is_none_or(|first| *first >= limit) {
            return None;
        }
        let read = |loosened: Cow<'_, str>| {
            let candidates = bypasses.index.candidates(&loosened).into_iter().map(|at| bypasses.rules[at]);
            let mut earlier = candidates.take_while(|rule| *rule < limit).map(|rule| &rules[rule]);
            earlier.find(|rule| {
                rule.bypasses(authority, method, &loosened, target) && rule.holds(facts) != Truth::No
            })
        };
        loosened(path).find_map(read)
    }

    /// The rule of a request that may have a key, and its authority.
    pub(super) fn rule_of<'h>(
        &'h self,
        head: &'h Parts,
    ) -> Result<(Selected<'h, 'h>, Authority<'h>), Unkeyed> {
        let method = method_of(head);
        match self.chosen(&head.extensions) {
            None => self.rule_for(head, method),
            Some(_) => {
                let target = original_uri(head);
                let authority = Authority::of_request(target, &head.headers, self.assumed_scheme())?
                    .among(self.same_hosts());
                let selected = self.selected_before(target, authority, &head.extensions);
                let facts = Facts::of(&head.headers, target);
                Ok((selected.unwrap_or_else(|| self.select(target, authority, method, &facts)), authority))
            }
        }
    }

    /// As [`rule_of`](Self::rule_of), as if the request had this method.
    pub(super) fn rule_for<'h>(
        &'h self,
        head: &'h Parts,
        method: &Method,
    ) -> Result<(Selected<'h, 'h>, Authority<'h>), Unkeyed> {
        let target = original_uri(head);
        let authority =
            Authority::of_request(target, &head.headers, self.assumed_scheme())?.among(self.same_hosts());
        Ok((self.select(target, authority, method, &Facts::of(&head.headers, target)), authority))
    }

    fn chosen<'e>(&self, extensions: &'e Extensions) -> Option<&'e Chosen> {
        let is_ours = |chosen: &&Chosen| Arc::ptr_eq(&chosen.by.inner, &self.inner);
        if self.inner.has_conditions { extensions.get::<Chosen>().filter(is_ours) } else { None }
    }

    /// The rule that was chosen for a request before anything was removed from it. None if its target is
    /// another one meanwhile.
    fn selected_before<'h>(
        &self,
        target: &'h Uri,
        authority: Authority<'_>,
        extensions: &Extensions,
    ) -> Option<Selected<'_, 'h>> {
        match self.chosen(extensions)?.rule {
            Err(doubtful) => Some(Err(doubtful)),
            Ok(None) => {
                let rest = self.inner.rest.as_ref();
                Some(Ok(rest.and_then(|rest| rest.at(authority, target.path(), target))))
            }
            Ok(Some(at)) => match &self.inner.rules[at] {
                rule if rule.is_bypass => Some(Ok(Some(Match { rule, target, captures: None, slots: None }))),
                rule => rule.at(authority, target.path(), target).map(|found| Ok(Some(found))),
            },
        }
    }

    /// What is to be remembered of the choice of a rule, if a condition was looked at.
    pub(super) fn choose(&self, head: &Parts, method: &Method) -> Option<Chosen> {
        if !self.inner.has_conditions {
            return None;
        }
        let target = original_uri(head);
        let authority = Authority::of_request(target, &head.headers, self.assumed_scheme())
            .ok()?
            .among(self.same_hosts());
        let facts = Facts::of(&head.headers, target);
        let selected = self.select(target, authority, method, &facts);
        let at = |found: Match<'_, '_>| self.inner.rules.iter().position(|rule| ptr::eq(rule, found.rule));
        let rule = selected.map(|found| found.and_then(at));
        facts.were_asked().then(|| Chosen { by: self.clone(), rule })
    }

    /// What a URI names for the requests of a rule.
    fn name_for(&self, found: &Match<'_, '_>, authority: Authority<'_>) -> Option<CacheKey> {
        let shape = found.rule.shape.as_ref()?;
        let mut identity = KeyBuffer::new();
        identity.push_lower_case(authority.as_bytes());
        shape.push_identity(found, &mut identity);
        Some(identity.to_key())
    }

    /// What a URI names for the requests of each rule that may be for it, by the conditions of rules.
    fn each_name(&self, uri: &Uri, authority: Authority<'_>, each: &mut dyn FnMut(Option<CacheKey>)) {
        let Inner { index, rules, .. } = &*self.inner;
        let mut reads = vec![Method::GET, Method::HEAD];
        for rule in index.candidates(uri.path()).into_iter().map(|rule| &rules[rule]) {
            let Some(found) = rule.at(authority, uri.path(), uri) else { continue };
            each(self.name_for(&found, authority));
            // No read gets past a rule that is for all of them.
            reads.retain(|method| rule.when.is_some() || !rule.is_for(method));
            if reads.is_empty() {
                break;
            }
        }
        let rest = self.inner.rest.as_ref().and_then(|rest| rest.at(authority, uri.path(), uri));
        each(rest.and_then(|found| self.name_for(&found, authority)));
        each(None);
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
        shape.parts.push(head, (&self.inner.negotiation, &self.inner.classes), key)?;
        self.inner.guard.push_keyed(&head.headers, key);
        Ok(())
    }

    /// Whether requests for several queries of this path share entries by their bodies. By which rule is
    /// not asked of each query: what one purges and invalidates, so does every other.
    fn merges_bodies_at(&self, authority: Authority<'_>, path: &str) -> bool {
        let Inner { index, rules, .. } = &*self.inner;
        index.candidates(path).into_iter().any(|rule| rules[rule].merges_bodies_at(authority, path))
    }

    fn authority_of<'a>(&'a self, uri: &'a Uri, host: Option<&'a HeaderValue>) -> Option<Authority<'a>> {
        let host = host.map(HeaderValue::as_bytes);
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes()).or(host)?;
        Some(Authority::of_target(authority, uri, self.assumed_scheme()).among(self.same_hosts()))
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

/// What all URIs of a path name, where requests with different queries share entries by their bodies.
fn all_queries(uri: &Uri, authority: Authority<'_>) -> CacheKey {
    let mut identity = KeyBuffer::new();
    identity.push_lower_case(authority.as_bytes());
    identity.push(b"all queries");
    identity.push_lower_case(uri.path().as_bytes());
    identity.to_key()
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
