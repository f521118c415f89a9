//! Which rule is for a request.

use std::{borrow::Cow, ptr, sync::Arc};

use http::{Extensions, Method, Uri, request::Parts};

use super::{
    KeyRules, body::method_of, compiled::Compiled, extractor::Inner, pattern::loosened,
    readings::other_readings, shape::Match, sightings::Truth, when::Facts,
};
use crate::key::{KeyExtractor, Unkeyed, normal::Authority, target::original_uri};

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
    pub(super) fn select<'h>(
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

    pub(super) fn chosen<'e>(&self, extensions: &'e Extensions) -> Option<&'e Chosen> {
        let is_ours = |chosen: &&Chosen| Arc::ptr_eq(&chosen.by.inner, &self.inner);
        if self.inner.has_conditions { extensions.get::<Chosen>().filter(is_ours) } else { None }
    }

    /// The rule that was chosen for a request before anything was removed from it. None if its target is
    /// another one meanwhile.
    pub(super) fn selected_before<'h>(
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
}
