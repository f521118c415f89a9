//! How a rule makes a key.

use std::sync::Arc;

use http::Uri;

use super::{
    super::KeyBuffer,
    compiled::Compiled,
    no_vary_search::{Learned, Policy},
    parts::KeyParts,
    pattern::Captures,
    query::{Pairs, QueryRules, decode},
    template::Slots,
};

/// What is in the key of a rule's requests, where that is not the default key.
#[derive(Debug)]
pub(super) struct KeyLayout {
    /// All that makes the keys of the rule: keys of two rules that differ in it, or of two editions of one,
    /// are never the same. Begins with 0, which no path does.
    pub(super) id: Box<[u8]>,
    pub(super) query: QueryShape,
    pub(super) parts: KeyParts,
}

#[derive(Debug)]
pub(super) enum QueryShape {
    Verbatim,
    Template,
    Rules(QueryRules),
    /// By the last `No-Vary-Search` of the path.
    Learned(Learned),
}

/// A request that a rule is for.
pub(super) struct Match<'r, 'h> {
    pub(super) rule: &'r Compiled,
    pub(super) target: &'h Uri,
    pub(super) captures: Option<Captures<'r, 'h>>,
    pub(super) slots: Option<Slots<'h>>,
}

/// What is made of a query about which the origin has the last word.
#[derive(Clone, Copy)]
pub(super) enum Search<'a> {
    AsLearned,
    By(Option<&'a Arc<Policy>>),
    /// Any: for what all queries of a path are known by together.
    Omitted,
}

impl KeyLayout {
    pub(super) fn push_path(&self, found: &Match<'_, '_>, key: &mut KeyBuffer) {
        key.push(&self.id);
        found.path_parts().for_each(|part| key.push(part));
        // To a server that decodes less it may be another path.
        if found.rule.has_path_gaps() && found.captures.as_ref().is_some_and(|found| !found.is_as_spelt) {
            key.push(found.target.path());
        }
    }

    /// What is invalidated together, whatever its spelling.
    pub(super) fn push_identity(&self, found: &Match<'_, '_>, identity: &mut KeyBuffer) {
        identity.push(&self.id);
        let parts = found.path_parts().map(str::as_bytes);
        match found.rule.ignores_path_case() {
            true => parts.for_each(|part| identity.push_lower_case(part)),
            false => parts.for_each(|part| identity.push(part)),
        }
        self.push_query(found, Search::Omitted, identity);
    }

    /// Call after [`push_path`](Self::push_path): what was learned is known by what the key holds
    /// until then.
    pub(super) fn push_query(&self, found: &Match<'_, '_>, search: Search<'_>, key: &mut KeyBuffer) {
        let query = found.target.query();
        match (&self.query, search) {
            (QueryShape::Learned(_), Search::Omitted) => {}
            (QueryShape::Learned(learned), search) => {
                let known = match search {
                    Search::By(policy) => policy.cloned(),
                    _ => learned.get(key.as_bytes()),
                };
                key.push(known.as_ref().map_or("", |policy| &policy.id).as_bytes());
                match known {
                    Some(policy) => push_pairs(policy.rules.select(query), query, key),
                    None => push_pairs(None, query, key),
                }
            }
            (QueryShape::Rules(rules), _) => push_pairs(rules.select(query), query, key),
            (QueryShape::Template, _) => push_pairs(found.keyed_slots(), query, key),
            (QueryShape::Verbatim, _) => push_pairs(None, query, key),
        }
    }

    /// The parameters that the origin sees, if that is not the whole query: those in the key, and
    /// those that are the same for all requests of the rule.
    pub(super) fn shown<'h>(&self, found: &Match<'_, 'h>) -> Option<Pairs<'h>> {
        match &self.query {
            QueryShape::Rules(rules) => rules.select(found.target.query()),
            QueryShape::Template => {
                let template = found.rule.template.as_ref()?;
                Some(template.shown(found.slots.as_ref()?))
            }
            QueryShape::Verbatim | QueryShape::Learned(_) => None,
        }
    }
}

/// The parameters that count, or without them the query as it stands. One that is not there is not
/// an empty one.
fn push_pairs(pairs: Option<Pairs<'_>>, query: Option<&str>, key: &mut KeyBuffer) {
    match (pairs, query) {
        (Some(pairs), _) => {
            key.push((pairs.len() as u64).to_le_bytes());
            pairs.iter().for_each(|pair| key.push(pair.as_bytes()));
        }
        (None, Some(query)) => {
            key.push(b"?");
            key.push(query.as_bytes());
        }
        (None, None) => key.push(b""),
    }
}

impl<'h> Match<'_, 'h> {
    /// What of the path is in the key: all of it, or its captures.
    fn path_parts(&self) -> impl Iterator<Item = &'h str> {
        let captures = self.captures.as_ref().filter(|_| self.rule.has_path_gaps());
        let whole = captures.is_none().then(|| self.target.path());
        whole.into_iter().chain(captures.into_iter().flat_map(Captures::keyed))
    }

    fn keyed_slots(&self) -> Option<Pairs<'h>> {
        let (template, slots) = (self.rule.template.as_ref()?, self.slots.as_ref()?);
        let mut keyed = template.keyed(slots);
        keyed.extend(template.misspelt(slots));
        Some(keyed)
    }

    /// What a capture has matched, decoded as well as it can be.
    pub(super) fn capture(&self, name: &str) -> Option<String> {
        let in_path = self.captures.as_ref().and_then(|captures| captures.get(name));
        if let Some(value) = in_path {
            return Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned());
        }
        let value = self.rule.template.as_ref()?.capture(self.slots.as_ref()?, name)?;
        Some(decode(value).map_or_else(|| value.to_owned(), Into::into))
    }
}
