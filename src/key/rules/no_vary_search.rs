//! `No-Vary-Search`: the origin names the query parameters that its responses do not depend on
//! (draft-ietf-httpbis-no-vary-search).

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::{
    KeyRules,
    layout::{KeyLayout, PolicySource},
    query::{self, QueryRules},
};
use crate::{
    http::request_fields::Keyed,
    key::{CacheKey, KeyBuffer},
};

const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// How many paths have their last policy remembered. Beyond that the least used are forgotten: their queries
/// are in the key as written until another response has a policy.
const MAX_PATHS: usize = 4096;

/// Nothing is remembered of longer paths, which bounds the memory of [`MAX_PATHS`].
const MAX_PATH_BYTES: usize = 2048;

/// The last policy of each path.
pub(super) struct LearnedPolicies(quick_cache::sync::Cache<Box<[u8]>, Arc<SearchPolicy>>);

/// Which parameters the responses of a path depend on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SearchPolicy {
    rules: QueryRules,
    /// In the key, so that what was stored under one policy is not selected under another.
    id: Box<str>,
}

impl SearchPolicy {
    /// The policy of a response. `None` if it has none, or none that is understood: a guess could select the
    /// response to another query.
    fn of(response: &HeaderMap) -> Option<Arc<Self>> {
        let rules = parse(response)?;
        let id = format!("{rules:?}").into();
        Some(Arc::new(Self { rules, id }))
    }

    pub(super) fn rules(&self) -> &QueryRules {
        &self.rules
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

impl LearnedPolicies {
    pub(super) fn new() -> Self {
        Self(quick_cache::sync::Cache::new(MAX_PATHS))
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<Arc<SearchPolicy>> {
        self.0.get(path)
    }

    /// Records the policy of a response. With `None`, the path has no policy any more.
    fn record(&self, path: &[u8], policy: Option<&Arc<SearchPolicy>>) {
        if path.len() > MAX_PATH_BYTES {
            return;
        }
        let known = self.0.get(path);
        match policy {
            Some(policy) if known.as_ref() == Some(policy) => {}
            Some(policy) => self.0.insert(path.into(), Arc::clone(policy)),
            None => drop(known.map(|_| self.0.remove(path))),
        }
    }
}

impl fmt::Debug for LearnedPolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LearnedPolicies").field(&self.0.len()).finish()
    }
}

/// Asks `Fill` to compare the key of a request with the `No-Vary-Search` of its response: in the extensions
/// of the request.
#[derive(Clone, Debug)]
pub(crate) struct SearchKey(KeyRules);

impl SearchKey {
    pub(super) fn new(rules: KeyRules) -> Self {
        Self(rules)
    }

    /// Whether the response to `request` may be stored under `key`, which holds `keyed`.
    pub(crate) fn agrees(
        &self,
        request: &Parts,
        response: &HeaderMap,
        (key, keyed): (&CacheKey, &Keyed),
    ) -> bool {
        let Ok((Ok(Some(found)), authority)) = self.0.rule_of(request) else { return true };
        let Some(layout) = found.rule().layout().filter(|layout| layout.learned().is_some()) else {
            return true;
        };
        let is_key_under = |policy: Option<&_>| {
            let mut own = KeyBuffer::new();
            own.set_keyed(keyed.clone());
            self.0.begin_key(found.target(), authority, &mut own);
            let source = PolicySource::Given(policy);
            let is_whole = layout.push(request, &found, source, self.0.fields(), &mut own).is_ok();
            // Cookies by the rules for all requests come last.
            if let (None, Some(names)) = (layout.keyed().cookies(), keyed.cookies()) {
                own.push_cookies(names, &request.headers);
            }
            is_whole && own.as_bytes() == key.as_bytes()
        };
        // Every response may be stored under its whole query.
        is_key_under(None) || SearchPolicy::of(response).is_some_and(|policy| is_key_under(Some(&policy)))
    }

    /// Remembers the policy of a response, for the keys of later requests for the same path.
    pub(crate) fn learn(&self, request: &Parts, response: &HeaderMap) {
        let Ok((Ok(Some(found)), authority)) = self.0.rule_of(request) else { return };
        let layout = found.rule().layout();
        if let Some((layout, learned)) = layout.zip(layout.and_then(KeyLayout::learned)) {
            let mut path = KeyBuffer::new();
            self.0.begin_key(found.target(), authority, &mut path);
            layout.push_path(&found, &mut path);
            learned.record(path.as_bytes(), SearchPolicy::of(response).as_ref());
        }
    }
}

fn parse(response: &HeaderMap) -> Option<QueryRules> {
    let lines: Vec<&[u8]> = response.get_all(NO_VARY_SEARCH).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let members = Parser::new(&lines.join(&b", "[..])).parse::<Dictionary>().ok()?;
    let sorts = match members.get("key-order") {
        None => false,
        Some(entry) => boolean(entry)?,
    };
    let (keep, ignore) = match (members.get("params"), members.get("except")) {
        (None, None) => (None, Box::default()),
        (Some(params), None) => match boolean(params) {
            Some(true) => (Some(Box::default()), Box::default()),
            Some(false) => (None, Box::default()),
            None => (None, names(params)?),
        },
        (Some(params), Some(except)) if boolean(params) == Some(true) => {
            (Some(names(except)?), Box::default())
        }
        _ => return None,
    };
    let rules = QueryRules::new(keep, ignore).sorted(sorts);
    // The origin sees all of the query in any case.
    (rules != QueryRules::default()).then(|| rules.forwarding(true))
}

fn boolean(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => item.bare_item.as_boolean(),
        ListEntry::InnerList(_) => None,
    }
}

/// A list of strings, each encoded as in a query.
fn names(entry: &ListEntry) -> Option<Box<[query::ParameterName]>> {
    let ListEntry::InnerList(list) = entry else { return None };
    let name = |item: &BareItem| {
        Some(query::ParameterName::Exact(query::decode(item.as_string()?.as_str())?.into()))
    };
    list.items.iter().map(|item| name(&item.bare_item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &[&str]) -> Option<QueryRules> {
        let mut headers = HeaderMap::new();
        lines
            .iter()
            .for_each(|line| _ = headers.append(NO_VARY_SEARCH, HeaderValue::from_str(line).unwrap()));
        parse(&headers)
    }

    fn exact(names: &[&str]) -> Box<[query::ParameterName]> {
        names.iter().map(|name| query::ParameterName::Exact((*name).into())).collect()
    }

    #[test]
    fn fields_as_in_the_draft_are_understood() {
        let keep = |names: &[&str]| QueryRules::new(Some(exact(names)), Box::default());
        let ignore = |names: &[&str]| QueryRules::new(None, exact(names));
        let sort = || QueryRules::default().sorted(true);
        for (lines, expected) in [
            (&["params=(\"a\" \"b c\")"][..], ignore(&["a", "b c"])),
            (&["params=(\"b+c\" \"%c3%a9\")"], ignore(&["b c", "é"])),
            (&["params"], keep(&[])),
            (&["params=?1, except=(\"a\")"], keep(&["a"])),
            (&["params", "except=(\"a\")"], keep(&["a"])),
            (&["key-order"], sort()),
            (&["key-order=?1, params=?0, unknown=1"], sort()),
            (&["params;x=1"], keep(&[])),
        ] {
            assert_eq!(parsed(lines), Some(expected.forwarding(true)), "{lines:?}");
        }
    }

    #[test]
    fn fields_that_are_not_understood_are_ignored_entirely() {
        for lines in [
            &[][..],
            &[""],
            &["params=?0"],
            &["key-order=?0"],
            &["params=a"],
            &["params=\"a\""],
            &["params=(a)"],
            &["params=(1)"],
            &["params=(\"a\""],
            &["params=(\"%ff\")"],
            &["params=(\"%zz\")"],
            &["except=(\"a\")"],
            &["params=?0, except=(\"a\")"],
            &["params=(\"a\"), except=(\"b\")"],
            &["params, except=\"a\""],
            &["params=(\"a\"), key-order=1"],
            &["PARAMS"],
            &["params", "("],
        ] {
            assert_eq!(parsed(lines), None, "{lines:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_panics(value in "[ -~]{0,40}") {
            parsed(&[&value]);
        }
    }
}
