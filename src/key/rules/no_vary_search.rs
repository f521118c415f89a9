//! `No-Vary-Search`: the origin says which query parameters its answers do not depend on
//! (draft-ietf-httpbis-no-vary-search).

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::{
    KeyRules,
    query::{Name, QueryRules, decode},
    shape::{KeyLayout, QueryShape, Search},
};
use crate::{
    http::credentials::Keyed,
    key::{CacheKey, KeyBuffer},
};

const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// Paths whose last word is remembered. Beyond that the least used are forgotten, and their
/// queries are in the key as they stand until an answer says it again.
const MAX_PATHS: usize = 4096;

/// Of longer ones nothing is remembered: there may be thousands of them.
const MAX_PATH_BYTES: usize = 2048;

/// What the origin said last about each path.
pub(super) struct Learned(quick_cache::sync::Cache<Box<[u8]>, Arc<Policy>>);

/// What an answer says, and how keys name it: what was stored under one policy answers for no
/// request under another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) rules: QueryRules,
    pub(super) id: Box<str>,
}

impl Learned {
    pub(super) fn new() -> Self {
        Self(quick_cache::sync::Cache::new(MAX_PATHS))
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<Arc<Policy>> {
        self.0.get(path)
    }

    /// Notes what an answer says, which may be nothing any more.
    pub(super) fn note(&self, path: &[u8], said: Option<&Arc<Policy>>) {
        if path.len() > MAX_PATH_BYTES {
            return;
        }
        let known = self.0.get(path);
        match said {
            Some(said) if known.as_ref() == Some(said) => {}
            Some(said) => self.0.insert(path.into(), Arc::clone(said)),
            None => drop(known.map(|_| self.0.remove(path))),
        }
    }
}

impl fmt::Debug for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Learned").field(&self.0.len()).finish()
    }
}

/// Asks `Fill` to compare the key of a request with what its answer says: in the extensions of the
/// request.
#[derive(Clone, Debug)]
pub(crate) struct SearchKey(pub(super) KeyRules);

impl SearchKey {
    /// Whether this answer to `request` may be kept under `key`, which holds `keyed`.
    pub(crate) fn agrees(
        &self,
        request: &Parts,
        answer: &HeaderMap,
        (key, keyed): (&CacheKey, &Keyed),
    ) -> bool {
        self.0.agrees_on_search(request, answer, (key, keyed))
    }

    /// Remembers what an answer says, for the keys of those who ask for the same path.
    pub(crate) fn learn(&self, request: &Parts, answer: &HeaderMap) {
        self.0.learn_search(request, answer);
    }
}

/// What an answer says about its query. None if it says nothing, or nothing that is understood:
/// guessing would let one answer for another.
pub(super) fn policy_of(answer: &HeaderMap) -> Option<Arc<Policy>> {
    let rules = parse(answer)?;
    let id = format!("{rules:?}").into();
    Some(Arc::new(Policy { rules, id }))
}

fn parse(answer: &HeaderMap) -> Option<QueryRules> {
    let lines: Vec<&[u8]> = answer.get_all(NO_VARY_SEARCH).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    let said = Parser::new(&lines.join(&b", "[..])).parse::<Dictionary>().ok()?;
    let sort = match said.get("key-order") {
        None => false,
        Some(entry) => boolean(entry)?,
    };
    let mut rules = QueryRules { sort, ..QueryRules::default() };
    match (said.get("params"), said.get("except")) {
        (None, None) => {}
        (Some(params), None) => match boolean(params) {
            Some(true) => rules.keep = Some([].into()),
            Some(false) => {}
            None => rules.ignore = names(params)?,
        },
        (Some(params), Some(except)) if boolean(params) == Some(true) => rules.keep = Some(names(except)?),
        _ => return None,
    }
    let says_something = rules != QueryRules::default();
    // The origin sees all of a query, whatever it says about it.
    says_something.then_some(QueryRules { forwards: true, ..rules })
}

fn boolean(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => item.bare_item.as_boolean(),
        ListEntry::InnerList(_) => None,
    }
}

/// A list of strings, each encoded as in a query.
fn names(entry: &ListEntry) -> Option<Box<[Name]>> {
    let ListEntry::InnerList(list) = entry else { return None };
    let name = |item: &BareItem| Some(Name::Exact(decode(item.as_string()?.as_str())?.into()));
    list.items.iter().map(|item| name(&item.bare_item)).collect()
}

impl KeyRules {
    /// Whether an answer may be kept under this key of its request, by what it says about its
    /// query.
    fn agrees_on_search(&self, head: &Parts, answer: &HeaderMap, (key, keyed): (&CacheKey, &Keyed)) -> bool {
        let Ok((Ok(Some(found)), authority)) = self.rule_of(head) else { return true };
        let Some(shape @ KeyLayout { query: QueryShape::Learned(_), .. }) = &found.rule.shape else {
            return true;
        };
        let is_under = |policy: Option<&_>| {
            let mut own = KeyBuffer::new();
            own.set_keyed(keyed.clone());
            let is_whole = self.encode(head, authority, &found, shape, Search::By(policy), &mut own).is_ok();
            // Those of the rules for all requests come last.
            if let (None, Some(names)) = (shape.parts.keyed.cookies(), keyed.cookies()) {
                own.push_cookies(names, &head.headers);
            }
            is_whole && own.as_bytes() == key.as_bytes()
        };
        // Under its whole query every answer is right.
        is_under(None) || policy_of(answer).is_some_and(|policy| is_under(Some(&policy)))
    }

    pub(super) fn learn_search(&self, head: &Parts, answer: &HeaderMap) {
        let Ok((Ok(Some(found)), authority)) = self.rule_of(head) else { return };
        if let Some(shape @ KeyLayout { query: QueryShape::Learned(learned), .. }) = &found.rule.shape {
            let mut path = KeyBuffer::new();
            self.inner.default_key.begin(found.target, authority, &mut path);
            shape.push_path(&found, &mut path);
            learned.note(path.as_bytes(), policy_of(answer).as_ref());
        }
    }
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

    fn exact(names: &[&str]) -> Box<[Name]> {
        names.iter().map(|name| Name::Exact((*name).into())).collect()
    }

    #[test]
    fn what_the_draft_says_is_understood() {
        let rules = QueryRules::default;
        for (lines, expected) in [
            (
                &["params=(\"a\" \"b c\")"][..],
                QueryRules { ignore: exact(&["a", "b c"]), forwards: true, ..rules() },
            ),
            (
                &["params=(\"b+c\" \"%c3%a9\")"],
                QueryRules { ignore: exact(&["b c", "é"]), forwards: true, ..rules() },
            ),
            (&["params"], QueryRules { keep: Some([].into()), forwards: true, ..rules() }),
            (
                &["params=?1, except=(\"a\")"],
                QueryRules { keep: Some(exact(&["a"])), forwards: true, ..rules() },
            ),
            (
                &["params", "except=(\"a\")"],
                QueryRules { keep: Some(exact(&["a"])), forwards: true, ..rules() },
            ),
            (&["key-order"], QueryRules { sort: true, forwards: true, ..rules() }),
            (&["key-order=?1, params=?0, unknown=1"], QueryRules { sort: true, forwards: true, ..rules() }),
            (&["params;x=1"], QueryRules { keep: Some([].into()), forwards: true, ..rules() }),
        ] {
            assert_eq!(parsed(lines), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored_as_a_whole() {
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
        fn any_value_is_taken_without_panic(value in "[ -~]{0,40}") {
            parsed(&[&value]);
        }
    }
}
