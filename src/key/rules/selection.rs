//! Which rule is for a request.

use std::{borrow::Cow, collections::BTreeMap, ptr};

use http::{Method, Uri};
use smallvec::SmallVec;

use super::{
    compiled::{CompiledRule, Match, RequestLine},
    condition::Holds,
    pattern::{self, PathPattern},
    readings,
    when::Facts,
};
use crate::key::{Unkeyed, uri::Authority};

/// The rules, in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Selector {
    rules: Box<[CompiledRule]>,
    /// For the requests that no rule is for. None: they have the default key.
    rest: Option<CompiledRule>,
    index: PrefixIndex,
    bypasses: Bypasses,
    has_paths: bool,
    has_conditions: bool,
    #[cfg(feature = "body-key")]
    has_bodies: bool,
    /// Whether a rule with a body leaves out a part of its URIs.
    merges_bodies: bool,
}

/// The rules that bypass certain paths, by the prefixes of these when they are read loosely.
#[derive(Debug)]
struct Bypasses {
    index: PrefixIndex,
    rules: Box<[usize]>,
}

/// The match of the rule that is for a request, if there is one.
pub(super) type SelectedRule<'r, 'h> = Result<Option<Match<'r, 'h>>, Ambiguous>;

/// What servers read differently in a request, so that different rules may be for it.
#[derive(Clone, Copy)]
pub(super) enum Ambiguous {
    Path,
    Condition,
}

impl From<Ambiguous> for Unkeyed {
    fn from(ambiguous: Ambiguous) -> Self {
        match ambiguous {
            Ambiguous::Path => Self::AmbiguousPath,
            Ambiguous::Condition => Self::AmbiguousCondition,
        }
    }
}

impl Selector {
    pub(super) fn new(rules: Box<[CompiledRule]>, rest: Option<CompiledRule>) -> Self {
        let loose = rules
            .iter()
            .enumerate()
            .filter_map(|(at, rule)| rule.loose_path().map(|path| (at, path.prefix())));
        let (bypasses, prefixes): (Vec<usize>, Vec<&[u8]>) = loose.unzip();
        let bypasses = Bypasses { index: PrefixIndex::new(prefixes), rules: bypasses.into() };
        let prefixes = rules.iter().map(|rule| rule.path().map_or(&[][..], PathPattern::prefix));
        Self {
            index: PrefixIndex::new(prefixes),
            bypasses,
            has_paths: rules.iter().any(|rule| rule.path().is_some()),
            has_conditions: rules.iter().any(CompiledRule::is_conditional),
            #[cfg(feature = "body-key")]
            has_bodies: rules.iter().any(|rule| rule.max_body().is_some()),
            merges_bodies: rules.iter().any(CompiledRule::merges_bodies),
            rules,
            rest,
        }
    }

    pub(super) fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// Whether any rule is for some requests only, by their fields or their query.
    pub(super) fn has_conditions(&self) -> bool {
        self.has_conditions
    }

    /// Whether any rule has bodies in its keys.
    #[cfg(feature = "body-key")]
    pub(super) fn has_bodies(&self) -> bool {
        self.has_bodies
    }

    /// The rule for a request, if all servers read its path and its conditions so that the same one is for
    /// it.
    pub(super) fn select<'h>(&self, request: RequestLine<'h>, facts: &Facts<'_>) -> SelectedRule<'_, 'h> {
        let path = request.target().path();
        let found = self.first(request, path, facts)?;
        if self.has_paths {
            let readings = readings::of_path(path).ok_or(Ambiguous::Path)?;
            let has_gaps = found.as_ref().is_some_and(|found| found.rule().has_path_gaps());
            let is_other = |reading: &String| !self.is_also_for(&found, request, reading, facts);
            if has_gaps && readings.are_several() || readings.others().iter().any(is_other) {
                return Err(Ambiguous::Path);
            }
        }
        Ok(found)
    }

    /// Whether the same rule is for a request if its path is read like this.
    fn is_also_for(
        &self,
        found: &Option<Match<'_, '_>>,
        request: RequestLine<'_>,
        reading: &str,
        facts: &Facts<'_>,
    ) -> bool {
        let rule = |found: &Option<Match<'_, '_>>| found.as_ref().map(|found| ptr::from_ref(found.rule()));
        self.first(request, reading, facts).is_ok_and(|other| rule(&other) == rule(found))
    }

    /// The first rule that is for a request if its path is read like this.
    fn first<'h>(&self, request: RequestLine<'h>, path: &'h str, facts: &Facts<'_>) -> SelectedRule<'_, 'h> {
        let mut found = None;
        for at in self.index.candidates(path) {
            let Some(matched) = self.rules[at].find(request, path) else { continue };
            let holds = self.rules[at].holds(facts);
            if holds != Holds::No {
                found = Some((at, matched, holds));
                break;
            }
        }
        let limit = found.as_ref().map_or(self.rules.len(), |(at, ..)| *at);
        if let Some(rule) = self.first_bypass(limit, request, path, facts) {
            return Ok(Some(rule.bypass_match(request.target())));
        }
        match found {
            Some((_, found, Holds::Ambiguous)) if !found.rule().is_bypass() => Err(Ambiguous::Condition),
            Some((_, found, _)) => Ok(Some(found)),
            None => Ok(self.rest.as_ref().and_then(|rest| rest.find(request, path))),
        }
    }

    /// The first rule before `limit` that bypasses the path as some server may read it.
    fn first_bypass(
        &self,
        limit: usize,
        request: RequestLine<'_>,
        path: &str,
        facts: &Facts<'_>,
    ) -> Option<&CompiledRule> {
        let Bypasses { index, rules } = &self.bypasses;
        if rules.first().is_none_or(|first| *first >= limit) {
            return None;
        }
        let find = |loosened: Cow<'_, str>| {
            let candidates = index.candidates(&loosened).into_iter().map(|at| rules[at]);
            let mut earlier = candidates.take_while(|at| *at < limit).map(|at| &self.rules[at]);
            earlier.find(|rule| rule.bypasses(request, &loosened) && rule.holds(facts) != Holds::No)
        };
        pattern::loosened(path).find_map(find)
    }

    /// The position of a rule among all rules. `None`: the match is of the rest.
    pub(super) fn position(&self, found: &Match<'_, '_>) -> Option<usize> {
        self.rules.iter().position(|rule| ptr::eq(rule, found.rule()))
    }

    /// The match of the rule at this position, or of the rest, with a target, whatever its method and its
    /// conditions. `None`: the target has changed since the rule was chosen.
    pub(super) fn match_at<'h>(
        &self,
        position: Option<usize>,
        authority: Authority<'_>,
        target: &'h Uri,
    ) -> Option<Option<Match<'_, 'h>>> {
        let Some(position) = position else {
            return Some(self.rest.as_ref().and_then(|rest| rest.at(authority, target.path(), target)));
        };
        match &self.rules[position] {
            rule if rule.is_bypass() => Some(Some(rule.bypass_match(target))),
            rule => rule.at(authority, target.path(), target).map(Some),
        }
    }

    /// Calls `each` for every rule that may be for a URI, depending on conditions, and for the requests that
    /// no rule is for.
    pub(super) fn for_each_match<'h>(
        &self,
        authority: Authority<'_>,
        uri: &'h Uri,
        mut each: impl FnMut(Option<Match<'_, 'h>>),
    ) {
        let mut methods = vec![Method::GET, Method::HEAD];
        for rule in self.index.candidates(uri.path()).into_iter().map(|at| &self.rules[at]) {
            let Some(found) = rule.at(authority, uri.path(), uri) else { continue };
            each(Some(found));
            // A rule without conditions leaves nothing of its methods to later rules.
            methods.retain(|method| rule.is_conditional() || !rule.is_for(method));
            if methods.is_empty() {
                break;
            }
        }
        each(self.rest.as_ref().and_then(|rest| rest.at(authority, uri.path(), uri)));
        each(None);
    }

    /// Whether requests for several queries of this path share entries by their bodies.
    ///
    /// Depends on the path and not on the query: purging or invalidating one of these queries affects all.
    pub(super) fn merges_bodies_at(&self, authority: Authority<'_>, path: &str) -> bool {
        self.merges_bodies
            && self
                .index
                .candidates(path)
                .into_iter()
                .any(|at| self.rules[at].merges_bodies_at(authority, path))
    }
}

/// The rules that may be for a path, found by prefix.
///
/// Of the sorted prefixes, those of a path are the last one that is not greater than the path and the
/// prefixes of that one: whatever lies between a prefix and a path that begins with it begins with it too.
#[derive(Debug)]
struct PrefixIndex(Box<[Prefix]>);

#[derive(Debug)]
struct Prefix {
    text: Box<[u8]>,
    /// The position of the longest other prefix that this one begins with.
    shorter: Option<usize>,
    rules: Box<[usize]>,
}

/// The positions of rules, in order.
type RulePositions = SmallVec<[usize; 16]>;

impl PrefixIndex {
    /// An index of rules, in their order, by their [prefixes](pattern::indexed). An empty prefix is for all
    /// paths.
    fn new<'r>(prefixes: impl IntoIterator<Item = &'r [u8]>) -> Self {
        let mut sorted: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for (rule, prefix) in prefixes.into_iter().enumerate() {
            sorted.entry(prefix).or_default().push(rule);
        }
        let texts: Vec<&[u8]> = sorted.keys().copied().collect();
        let prefix = |(at, (text, rules)): (usize, (&[u8], Vec<usize>))| {
            let shorter = texts[..at].iter().rposition(|shorter| text.starts_with(shorter));
            Prefix { text: text.into(), shorter, rules: rules.into() }
        };
        Self(sorted.into_iter().enumerate().map(prefix).collect())
    }

    fn candidates(&self, path: &str) -> RulePositions {
        let mut found = RulePositions::new();
        let path = pattern::indexed(path);
        let mut at = self.0.partition_point(|prefix| *prefix.text <= *path).checked_sub(1);
        while let Some(prefix) = at.map(|at| &self.0[at]) {
            if path.starts_with(&prefix.text) {
                found.extend_from_slice(&prefix.rules);
            }
            at = prefix.shorter;
        }
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_are_found_by_their_prefixes_and_keep_their_order() {
        let index = PrefixIndex::new(["/a/b", "", "/a", "/a/", "/b", "/a/b/c", "", "/a"].map(str::as_bytes));
        for (path, rules) in [
            ("/", &[1, 6][..]),
            ("/a", &[1, 2, 6, 7]),
            ("/a/", &[1, 2, 3, 6, 7]),
            ("/a/b/d", &[0, 1, 2, 3, 6, 7]),
            ("/a/b/c/d", &[0, 1, 2, 3, 5, 6, 7]),
            ("/bb", &[1, 4, 6]),
            ("/A%2cb", &[1, 2, 6, 7]),
            ("*", &[1, 6]),
        ] {
            assert_eq!(index.candidates(path).as_slice(), rules, "{path}");
        }
        assert!(PrefixIndex::new([]).candidates("/").is_empty());
    }

    proptest! {
        #[test]
        fn none_is_missed(prefixes in prop::collection::vec("[/ab]{0,4}", 0..12), path in "/[/ab]{0,6}") {
            let index = PrefixIndex::new(prefixes.iter().map(String::as_bytes));
            let expected = (0..prefixes.len()).filter(|rule| path.starts_with(&prefixes[*rule]));
            prop_assert_eq!(index.candidates(&path).to_vec(), expected.collect::<Vec<_>>());
        }
    }
}
