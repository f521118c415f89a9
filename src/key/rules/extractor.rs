use std::sync::Arc;

use http::{Extensions, HeaderValue, Method, Uri, request::Parts, uri::Scheme};

use super::{
    KeyRulesBuilder, SearchKey, body,
    compiled::{CompiledRule, Match, RequestLine},
    guard,
    layout::{KeyLayout, PolicySource},
    normaliser::FieldNormaliser,
    query,
    selection::{self, Selector},
    when::Facts,
};
use crate::{
    http::request_fields::Keyed,
    key::{
        self, KeyExtractor,
        uri::{self, Authority},
    },
    tags::TagFields,
};

/// The method for looking up a URI without a request.
static GET: Method = Method::GET;

/// Derives keys by rules; see the [module](super).
///
/// A clone costs one reference count, and shares what was learned from `No-Vary-Search`. With the
/// feature `serde` it can be deserialised, unless a rule needs an
/// [extension](KeyRulesBuilder::extension), which only code can define.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "KeyRulesBuilder"))]
pub struct KeyRules {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    default_key: key::DefaultKey,
    same_hosts: Option<key::SameHosts>,
    selector: Selector,
    fields: FieldNormaliser,
    tag_fields: TagFields,
    /// The rules as written.
    source: KeyRulesBuilder,
}

/// The rule that was chosen for a request by its conditions: in the extensions of the request, from which
/// what the conditions depend on may be removed later.
#[derive(Clone)]
pub(super) struct ChosenRule {
    by: KeyRules,
    /// `Ok(None)`: no rule is for it.
    position: Result<Option<usize>, selection::Ambiguous>,
}

impl KeyRules {
    /// No rules yet.
    pub fn builder() -> KeyRulesBuilder {
        KeyRulesBuilder::default()
    }

    pub(super) fn new(
        default_key: key::DefaultKey,
        same_hosts: Option<key::SameHosts>,
        selector: Selector,
        fields: FieldNormaliser,
        tag_fields: TagFields,
        source: KeyRulesBuilder,
    ) -> Self {
        let inner = Inner { default_key, same_hosts, selector, fields, tag_fields, source };
        Self { inner: Arc::new(inner) }
    }

    /// The rules as written.
    pub(super) fn source(&self) -> &KeyRulesBuilder {
        &self.inner.source
    }

    pub(super) fn fields(&self) -> &FieldNormaliser {
        &self.inner.fields
    }

    /// Each rule for each of its paths, in the order of the [source](Self::source).
    pub(super) fn rules(&self) -> &[CompiledRule] {
        self.inner.selector.rules()
    }

    /// Whether any rule has bodies in its keys.
    #[cfg(feature = "body-key")]
    pub(super) fn has_bodies(&self) -> bool {
        self.inner.selector.has_bodies()
    }

    /// What errors call a rule. `None`: it is not one of those that were written.
    pub(super) fn label(&self, rule: &CompiledRule) -> Option<&str> {
        self.source().rules.get(rule.index()).map(|rule| rule.label())
    }

    /// Writes what all keys of a target begin with.
    pub(super) fn begin_key(&self, target: &Uri, authority: Authority<'_>, key: &mut key::KeyBuffer) {
        self.inner.default_key.begin(target, authority, key);
    }

    /// The rule of a request that may have a key, and the authority of the request.
    pub(super) fn rule_of<'h>(
        &'h self,
        head: &'h Parts,
    ) -> Result<(selection::SelectedRule<'h, 'h>, Authority<'h>), key::Unkeyed> {
        let method = body::method_of(head);
        if self.chosen(&head.extensions).is_none() {
            return self.rule_for(head, method);
        }
        let (target, authority) = (uri::original_uri(head), self.authority_of_request(head)?);
        let selected = self.chosen_match(target, authority, &head.extensions);
        let select = || {
            let facts = Facts::of(&head.headers, target);
            self.inner.selector.select(RequestLine::new(authority, method, target), &facts)
        };
        Ok((selected.unwrap_or_else(select), authority))
    }

    /// Like [`rule_of`](Self::rule_of), as if the request had this method, and without regard to a rule that
    /// was chosen before.
    pub(super) fn rule_for<'h>(
        &'h self,
        head: &'h Parts,
        method: &'h Method,
    ) -> Result<(selection::SelectedRule<'h, 'h>, Authority<'h>), key::Unkeyed> {
        let (target, authority) = (uri::original_uri(head), self.authority_of_request(head)?);
        let facts = Facts::of(&head.headers, target);
        Ok((self.inner.selector.select(RequestLine::new(authority, method, target), &facts), authority))
    }

    /// The rule that is chosen for a request with this method, if a condition was evaluated for that.
    pub(super) fn choose(&self, head: &Parts, method: &Method) -> Option<ChosenRule> {
        if !self.inner.selector.has_conditions() {
            return None;
        }
        let (target, authority) = (uri::original_uri(head), self.authority_of_request(head).ok()?);
        let facts = Facts::of(&head.headers, target);
        let selected = self.inner.selector.select(RequestLine::new(authority, method, target), &facts);
        let position = selected.map(|found| found.and_then(|found| self.inner.selector.position(&found)));
        facts.were_evaluated().then(|| ChosenRule { by: self.clone(), position })
    }

    fn chosen<'e>(&self, extensions: &'e Extensions) -> Option<&'e ChosenRule> {
        let is_ours = |chosen: &&ChosenRule| Arc::ptr_eq(&chosen.by.inner, &self.inner);
        if self.inner.selector.has_conditions() {
            extensions.get::<ChosenRule>().filter(is_ours)
        } else {
            None
        }
    }

    /// The rule that was chosen before anything was removed from a request. `None`: none was, or the target
    /// has changed since.
    fn chosen_match<'h>(
        &self,
        target: &'h Uri,
        authority: Authority<'_>,
        extensions: &Extensions,
    ) -> Option<selection::SelectedRule<'_, 'h>> {
        match self.chosen(extensions)?.position {
            Err(ambiguous) => Some(Err(ambiguous)),
            Ok(position) => self.inner.selector.match_at(position, authority, target).map(Ok),
        }
    }

    #[inline]
    fn authority_of_request<'h>(&'h self, head: &'h Parts) -> Result<Authority<'h>, key::Unkeyed> {
        let authority = Authority::of_request(uri::original_uri(head), &head.headers, self.assumed_scheme())?;
        Ok(authority.among(self.same_hosts()))
    }

    fn authority_of<'a>(&'a self, uri: &'a Uri, host: Option<&'a HeaderValue>) -> Option<Authority<'a>> {
        let host = host.map(HeaderValue::as_bytes);
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes()).or(host)?;
        Some(Authority::of_target(authority, uri, self.assumed_scheme()).among(self.same_hosts()))
    }

    /// The header fields and cookies in the key of a request.
    fn keyed_of(&self, head: &Parts) -> Keyed {
        let Ok((Ok(Some(found)), _)) = self.rule_of(head) else { return Keyed::NOTHING };
        found.rule().layout().map_or(Keyed::NOTHING, |layout| layout.keyed().clone())
    }

    /// The rule of a URI without a request, for which no condition holds.
    fn rule_of_uri<'h>(&'h self, uri: &'h Uri, authority: Authority<'h>) -> selection::SelectedRule<'h, 'h> {
        self.inner.selector.select(RequestLine::new(authority, &GET, uri), &Facts::unknown())
    }
}

/// The identity of the requests for a URI that a rule is for.
fn identity_of(found: &Match<'_, '_>, authority: Authority<'_>) -> Option<key::CacheKey> {
    let layout = found.rule().layout()?;
    let mut identity = key::KeyBuffer::new();
    identity.push_lower_case(authority.as_bytes());
    layout.push_identity(found, &mut identity);
    Some(identity.to_key())
}

/// The identity of all URIs of a path, where requests with different queries share entries by their bodies.
fn identity_of_path(uri: &Uri, authority: Authority<'_>) -> key::CacheKey {
    let mut identity = key::KeyBuffer::new();
    identity.push_lower_case(authority.as_bytes());
    identity.push(b"all queries");
    identity.push_lower_case(uri.path().as_bytes());
    identity.to_key()
}

impl KeyExtractor for KeyRules {
    fn key(&self, head: &Parts) -> Option<key::CacheKey> {
        let mut key = key::KeyBuffer::new();
        self.write_key(head, &mut key).ok().map(|()| key.to_key())
    }

    fn write_key(&self, head: &Parts, key: &mut key::KeyBuffer) -> Result<(), key::Unkeyed> {
        let (selected, authority) = self.rule_of(head)?;
        let found = selected?;
        if let Some(found) = &found {
            let rule = found.rule();
            if rule.is_bypass() {
                return Err(key::Unkeyed::RuleBypass);
            }
            if rule.max_body().is_some() {
                return Err(key::Unkeyed::Body);
            }
            if let Some(layout) = rule.layout() {
                key.set_keyed(layout.keyed().clone());
                self.begin_key(found.target(), authority, key);
                return layout.push(head, found, PolicySource::Learned, self.fields(), key);
            }
        }
        self.inner.default_key.write_target_at(authority, head, key);
        self.fields().push_guarded(&head.headers, key);
        Ok(())
    }

    fn identity(
        &self,
        uri: &Uri,
        host: Option<&HeaderValue>,
        extensions: &Extensions,
    ) -> Option<key::CacheKey> {
        let uri = uri::original(uri, extensions);
        let normal = uri::normal_uri(uri);
        let uri = normal.as_ref().unwrap_or(uri);
        let authority = self.authority_of(uri, host)?;
        if self.inner.selector.merges_bodies_at(authority, uri.path()) {
            return Some(identity_of_path(uri, authority));
        }
        // As for GET: reads by a body with all of the URI in their keys have the identity of the URI.
        let chosen = self.chosen_match(uri, authority, extensions);
        let is_read = |selected: &selection::SelectedRule<'_, '_>| matches!(selected, Ok(Some(found)) if found.rule().max_body().is_none());
        let selected = chosen.filter(is_read).unwrap_or_else(|| self.rule_of_uri(uri, authority));
        identity_of(&selected.ok().flatten()?, authority)
    }

    fn identities(
        &self,
        uri: &Uri,
        host: Option<&HeaderValue>,
        extensions: &Extensions,
        each: &mut dyn FnMut(Option<key::CacheKey>),
    ) {
        let selector = &self.inner.selector;
        if !selector.has_conditions() {
            return each(self.identity(uri, host, extensions));
        }
        let uri = uri::original(uri, extensions);
        let normal = uri::normal_uri(uri);
        let uri = normal.as_ref().unwrap_or(uri);
        match self.authority_of(uri, host) {
            Some(authority) if selector.merges_bodies_at(authority, uri.path()) => {
                each(Some(identity_of_path(uri, authority)));
            }
            Some(authority) => selector.for_each_match(authority, uri, |found| {
                each(found.and_then(|found| identity_of(&found, authority)));
            }),
            None => each(None),
        }
    }

    fn note(&self, head: &mut Parts) {
        // A request with a key has been here before, and may have lost what conditions and classes depend on.
        let has_key = head.extensions.get::<key::CacheKey>().is_some();
        if !has_key {
            self.fields().forget_classes(head);
        }
        if !self.inner.selector.has_conditions() || has_key && self.chosen(&head.extensions).is_some() {
            return;
        }
        match self.choose(head, body::method_of(head)) {
            Some(chosen) => drop(head.extensions.insert(chosen)),
            None => drop(head.extensions.remove::<ChosenRule>()),
        }
    }

    fn rule(&self, head: &Parts) -> Option<String> {
        let (selected, _) = self.rule_of(head).ok()?;
        self.label(selected.ok()??.rule()).map(str::to_owned)
    }

    fn rule_of_url(&self, uri: &Uri, host: Option<&HeaderValue>) -> Result<Option<String>, String> {
        let normal = uri::normal_uri(uri);
        let uri = normal.as_ref().unwrap_or(uri);
        let Some(authority) = self.authority_of(uri, host) else { return Ok(None) };
        // The rest, which is for requests that no rule is for, has no label.
        let label = |rule: &CompiledRule| self.label(rule).map(str::to_owned);
        let found = match self.rule_of_uri(uri, authority) {
            Ok(found) => found.and_then(|found| label(found.rule())),
            Err(_) => return Ok(None),
        };
        let request = RequestLine::new(authority, &GET, uri);
        let conditional = || {
            let is_for =
                |rule: &&CompiledRule| rule.is_conditional() && rule.find(request, uri.path()).is_some();
            self.rules().iter().find(is_for).and_then(label)
        };
        if let Some(label) = found.or_else(conditional) {
            return Ok(Some(label));
        }
        let other = self.rules().iter().find(|rule| rule.is_for_another_query(request));
        other.and_then(label).map_or(Ok(None), Err)
    }

    fn assumed_scheme(&self) -> Option<&Scheme> {
        self.inner.default_key.assumed_scheme()
    }

    fn same_hosts(&self) -> Option<&key::SameHosts> {
        self.inner.same_hosts.as_ref()
    }

    fn tag_fields(&self) -> TagFields {
        self.inner.tag_fields.clone()
    }

    fn normalise(&self, head: &mut Parts) {
        self.fields().apply(head, |head| self.keyed_of(head));
    }

    fn normalises(&self) -> bool {
        !self.fields().is_nothing()
    }

    fn prepare(&self, head: &mut Parts) {
        uri::fold(head, self.assumed_scheme(), self.same_hosts());
        // What a key holds that is not made by these rules is not known here.
        let is_own = head.extensions.get::<key::CacheKey>().is_none() || key::has_content(&head.extensions);
        let (overrides, tags, learns, query) = {
            let Ok((Ok(Some(found)), _)) = self.rule_of(head) else { return };
            let rule = found.rule();
            let layout = rule.layout().filter(|_| is_own);
            let learns = layout.and_then(KeyLayout::learned).is_some();
            let forwarding = layout.filter(|_| !rule.forwards_unkeyed());
            let parameters = forwarding.and_then(|layout| layout.forwarded_parameters(&found));
            let tags = rule.tags().add_to(&head.extensions, &found);
            (rule.overrides(), tags, learns, parameters.map(|parameters| query::write(&parameters)))
        };
        overrides.map(|overrides| head.extensions.insert(overrides));
        tags.map(|tags| head.extensions.insert(tags));
        learns.then(|| head.extensions.insert(SearchKey::new(self.clone())));
        if let Some(query) = query {
            guard::replace_query(head, &query);
        }
    }
}
