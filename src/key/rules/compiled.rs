//! A rule that has been checked and can be applied.

use http::{Method, Uri};

use super::{
    body::is_get_with_body,
    host::HostPattern,
    overrides::RuleOverrides,
    pattern::PathPattern,
    shape::{KeyLayout, Match, QueryShape},
    sightings::Truth,
    tags::TagTemplates,
    template::{QueryTemplate, Slots},
    when::{CompiledWhen, Facts},
};
use crate::key::normal::Authority;

#[derive(Debug, Default)]
pub(super) struct Compiled {
    /// Which rule it is, of those that were written.
    pub(super) index: usize,
    /// None: every host.
    pub(super) hosts: Box<[HostPattern]>,
    /// None: GET and HEAD, or every method to bypass.
    pub(super) methods: Box<[Method]>,
    pub(super) path: Option<PathPattern>,
    pub(super) template: Option<QueryTemplate>,
    /// None: every request.
    pub(super) when: Option<CompiledWhen>,
    /// None: the default key.
    pub(super) shape: Option<KeyLayout>,
    pub(super) is_bypass: bool,
    /// If it bypasses, its path for those servers that read paths loosely.
    pub(super) loose_path: Option<PathPattern>,
    /// How much of a body is read for the key, if it is in the key.
    pub(super) max_body: Option<usize>,
    #[cfg(feature = "body-key")]
    pub(super) reading: Option<std::sync::Arc<crate::key::Reading>>,
    pub(super) forwards_unkeyed: bool,
    pub(super) overrides: Option<RuleOverrides>,
    pub(super) tags: TagTemplates,
}

impl Compiled {
    pub(super) fn find<'r, 'h>(
        &'r self,
        authority: Authority<'_>,
        method: &Method,
        path: &'h str,
        target: &'h Uri,
    ) -> Option<Match<'r, 'h>> {
        if self.is_for(method) { self.at(authority, path, target) } else { None }
    }

    /// As [`find`](Self::find), whatever the method.
    pub(super) fn at<'r, 'h>(
        &'r self,
        authority: Authority<'_>,
        path: &'h str,
        target: &'h Uri,
    ) -> Option<Match<'r, 'h>> {
        if !self.is_for_host(authority) {
            return None;
        }
        let captures = match &self.path {
            Some(pattern) => Some(pattern.at(path)?),
            None => None,
        };
        Some(Match { rule: self, target, captures, slots: self.slots(target)? })
    }

    /// Whether it sends a request round the cache that some servers read so.
    pub(super) fn bypasses(
        &self,
        authority: Authority<'_>,
        method: &Method,
        loosened: &str,
        target: &Uri,
    ) -> bool {
        let is_for_path = self.loose_path.as_ref().is_some_and(|pattern| pattern.at(loosened).is_some());
        is_for_path && self.is_for(method) && self.is_for_host(authority) && self.slots(target).is_some()
    }

    /// Whether it has a template for this path, whatever query that asks for.
    pub(super) fn is_for_another_query(&self, authority: Authority<'_>, method: &Method, path: &str) -> bool {
        let is_for_path = self.path.as_ref().is_some_and(|pattern| pattern.at(path).is_some());
        self.template.is_some()
            && !self.is_bypass
            && is_for_path
            && self.is_for(method)
            && self.is_for_host(authority)
    }

    /// Whether its conditions hold.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> Truth {
        self.when.as_ref().map_or(Truth::Yes, |when| facts.truth(self.index, when))
    }

    pub(super) fn is_for_host(&self, authority: Authority<'_>) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|host| host.is(authority))
    }

    /// What the template captures, if there is one. None: the query does not match.
    fn slots<'h>(&self, target: &'h Uri) -> Option<Option<Slots<'h>>> {
        match &self.template {
            Some(template) => template.at(target.query()?).map(Some),
            None => Some(None),
        }
    }

    pub(super) fn is_for(&self, method: &Method) -> bool {
        match self.methods.is_empty() {
            true => self.is_bypass || matches!(*method, Method::GET | Method::HEAD),
            false => {
                let bypasses = self.is_bypass && is_get_with_body(method);
                self.methods.contains(method) || bypasses && self.methods.contains(&Method::GET)
            }
        }
    }

    pub(super) fn ignores_path_case(&self) -> bool {
        self.path.as_ref().is_some_and(PathPattern::ignores_case)
    }

    /// Whether it has a body in its keys, and not all of the URI.
    pub(super) fn merges_bodies(&self) -> bool {
        let is_verbatim = |shape: &KeyLayout| matches!(shape.query, QueryShape::Verbatim);
        self.max_body.is_some() && (self.ignores_path_case() || !self.shape.as_ref().is_none_or(is_verbatim))
    }

    /// The same, if it is for this path with one query or another.
    pub(super) fn merges_bodies_at(&self, authority: Authority<'_>, path: &str) -> bool {
        self.merges_bodies()
            && self.is_for_host(authority)
            && self.path.as_ref().is_none_or(|pattern| pattern.at(path).is_some())
    }

    pub(super) fn has_path_gaps(&self) -> bool {
        self.path.as_ref().is_some_and(PathPattern::has_gaps)
    }
}
