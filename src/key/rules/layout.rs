//! What the key of a rule's requests consists of, and how it is written.

use std::{
    borrow::Cow,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use smallvec::SmallVec;

use super::{
    KeyRule, KeyRulesBuilder, body,
    compiled::Match,
    error::Problem,
    guard::CompiledGuard,
    no_vary_search,
    normaliser::FieldNormaliser,
    query::{self, QueryRules},
    template::QueryTemplate,
};
use crate::{
    http::{cookies::CookieNames, fields, request_fields::Keyed},
    key::{KeyBuffer, Unkeyed, uri},
};

/// What is in the key of a rule's requests, where that is not the default key.
#[derive(Debug)]
pub(super) struct KeyLayout {
    /// Tells the keys of this rule from those of other rules, and from those of other editions of it.
    /// Begins with 0, which no path does.
    id: Box<[u8]>,
    query: QueryLayout,
    parts: KeyParts,
}

#[derive(Debug)]
enum QueryLayout {
    /// All of the query as written.
    Whole,
    /// The captures of the rule's template.
    Template,
    Rules(QueryRules),
    /// By the last `No-Vary-Search` of the path.
    Learned(no_vary_search::LearnedPolicies),
}

/// Which `No-Vary-Search` a key follows, if its rule learns from responses.
#[derive(Clone, Copy)]
pub(super) enum PolicySource<'a> {
    /// The last one of the path.
    Learned,
    Given(Option<&'a Arc<no_vary_search::SearchPolicy>>),
    /// None: the query is left out, for what all queries of a path share.
    Omitted,
}

impl KeyLayout {
    /// The layout of a rule for one of its paths. `template`: that of the path; `ignored`: parameters that do not
    /// count.
    pub(super) fn compile(
        rule: &KeyRule,
        path: Option<&str>,
        template: Option<&QueryTemplate>,
        ignored: Box<[query::ParameterName]>,
        source: &KeyRulesBuilder,
    ) -> Result<Self, Problem> {
        Ok(Self {
            id: layout_id(rule, path, &source.ignore_query),
            parts: KeyParts::compile(rule, &source.extensions)?,
            query: QueryLayout::compile(rule, template, ignored)?,
        })
    }

    /// Whether all of the query is in the key as written.
    pub(super) fn has_whole_query(&self) -> bool {
        matches!(self.query, QueryLayout::Whole)
    }

    /// Whether nothing but the URI is in the key.
    pub(super) fn has_only_uri(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether rules choose among the parameters of the query.
    pub(super) fn chooses_parameters(&self) -> bool {
        matches!(self.query, QueryLayout::Rules(_))
    }

    /// What was learned from `No-Vary-Search`, if the rule learns from it.
    pub(super) fn learned(&self) -> Option<&no_vary_search::LearnedPolicies> {
        match &self.query {
            QueryLayout::Learned(learned) => Some(learned),
            _ => None,
        }
    }

    /// The header fields and cookies in the key.
    pub(super) fn keyed(&self) -> &Keyed {
        &self.parts.keyed
    }

    pub(super) fn extension(&self, name: &str) -> Option<&Extension> {
        self.parts.extensions.iter().find(|extension| *extension.name == *name)
    }

    /// Refuses a guard that removes what is in the key.
    pub(super) fn check_guard(&self, guard: &CompiledGuard, has_body: bool) -> Result<(), Problem> {
        let content = body::CONTENT_FIELDS.into_iter().filter(|_| has_body);
        if let Some(name) = self.parts.field_names().chain(content).find(|name| guard.removes(name)) {
            return Err(Problem::GuardedHeader(name.as_str().into()));
        }
        match self.keyed().prefixes().iter().find(|prefix| guard.removes_any_with(prefix)) {
            Some(prefix) => Err(Problem::GuardedHeader(format!("{prefix}*").into())),
            None => Ok(()),
        }
    }

    /// Appends to the start of a key what follows the host.
    ///
    /// # Errors
    ///
    /// The request lacks an extension: the response for one tenant must never reach another one.
    pub(super) fn push(
        &self,
        head: &Parts,
        found: &Match<'_, '_>,
        source: PolicySource<'_>,
        fields: &FieldNormaliser,
        key: &mut KeyBuffer,
    ) -> Result<(), Unkeyed> {
        self.push_path(found, key);
        self.push_query(found, source, key);
        push_rewritten(head, key);
        self.parts.push(head, fields, key)?;
        fields.push_guarded(&head.headers, key);
        Ok(())
    }

    pub(super) fn push_path(&self, found: &Match<'_, '_>, key: &mut KeyBuffer) {
        key.push(&self.id);
        found.keyed_path().for_each(|part| key.push(part));
        // To a server that decodes less it may be another path.
        if let Some(path) = found.unusual_spelling() {
            key.push(path);
        }
    }

    /// What is invalidated together, whatever its spelling.
    pub(super) fn push_identity(&self, found: &Match<'_, '_>, identity: &mut KeyBuffer) {
        identity.push(&self.id);
        let parts = found.keyed_path().map(str::as_bytes);
        match found.rule().ignores_path_case() {
            true => parts.for_each(|part| identity.push_lower_case(part)),
            false => parts.for_each(|part| identity.push(part)),
        }
        self.push_query(found, PolicySource::Omitted, identity);
    }

    /// Call after [`push_path`](Self::push_path): what the key holds by then is what policies are learned
    /// for.
    fn push_query(&self, found: &Match<'_, '_>, source: PolicySource<'_>, key: &mut KeyBuffer) {
        let query = found.target().query();
        match (&self.query, source) {
            (QueryLayout::Learned(_), PolicySource::Omitted) => {}
            (QueryLayout::Learned(learned), source) => {
                let policy = match source {
                    PolicySource::Given(policy) => policy.cloned(),
                    _ => learned.get(key.as_bytes()),
                };
                key.push(policy.as_ref().map_or("", |policy| policy.id()).as_bytes());
                match policy {
                    Some(policy) => push_parameters(policy.rules().select(query), query, key),
                    None => push_parameters(None, query, key),
                }
            }
            (QueryLayout::Rules(rules), _) => push_parameters(rules.select(query), query, key),
            (QueryLayout::Template, _) => push_parameters(found.keyed_parameters(), query, key),
            (QueryLayout::Whole, _) => push_parameters(None, query, key),
        }
    }

    /// The parameters that the origin sees if those that are not in the key are removed: those in the key, and
    /// those that are the same for all requests of the rule. `None`: the whole query.
    pub(super) fn forwarded_parameters<'h>(&self, found: &Match<'_, 'h>) -> Option<query::Parameters<'h>> {
        match &self.query {
            QueryLayout::Rules(rules) => rules.select(found.target().query()),
            QueryLayout::Template => found.forwarded_parameters(),
            QueryLayout::Whole | QueryLayout::Learned(_) => None,
        }
    }
}

/// Two rules that make different keys never have the same id, and neither have two rules for different
/// requests that would otherwise have the same keys.
///
/// The position of a rule does not count, so that its entries stay when other rules come and go. Neither do
/// its hosts, which are in the key, nor its methods, since GET and HEAD share entries.
fn layout_id(rule: &KeyRule, path: Option<&str>, ignored: &[String]) -> Box<[u8]> {
    let mut hasher = DefaultHasher::new();
    let forwarded = rule.forward_unkeyed.then_some((&rule.ignore_query, ignored));
    // What a template or the document tolerates is neither in the key nor seen by the origin.
    let has_template = path.is_some_and(|path| path.contains('?'));
    let ignored = rule.ignore_query.iter().filter(|_| !has_template);
    (path, &rule.keep_query, ignored.collect::<Vec<_>>(), forwarded).hash(&mut hasher);
    (rule.sort_query, rule.drop_empty_query, rule.no_vary_search).hash(&mut hasher);
    (&rule.headers, &rule.cookies, &rule.extensions, &rule.when).hash(&mut hasher);
    (rule.body.is_some(), rule.ignore_path_case).hash(&mut hasher);
    #[cfg(feature = "body-key")]
    rule.json_body.hash(&mut hasher);
    [&[0], &hasher.finish().to_le_bytes()[..]].concat().into()
}

impl QueryLayout {
    fn compile(
        rule: &KeyRule,
        template: Option<&QueryTemplate>,
        ignored: Box<[query::ParameterName]>,
    ) -> Result<Self, Problem> {
        let keep =
            rule.keep_query.as_ref().map(|names| query::ParameterName::parse_all(names)).transpose()?;
        let rules = QueryRules::new(keep, ignored);
        let rules = rules.sorted(rule.sort_query).without_empty(rule.drop_empty_query);
        Ok(match template {
            Some(_) => Self::Template,
            None if rule.no_vary_search => Self::Learned(no_vary_search::LearnedPolicies::new()),
            None if rules == QueryRules::default() => Self::Whole,
            None => Self::Rules(rules.forwarding(rule.forward_unkeyed)),
        })
    }
}

/// Pushes the parameters that count, or without them the query as written. No query differs from an empty
/// one.
fn push_parameters(parameters: Option<query::Parameters<'_>>, query: Option<&str>, key: &mut KeyBuffer) {
    match (parameters, query) {
        (Some(parameters), _) => {
            key.push((parameters.len() as u64).to_le_bytes());
            parameters.iter().for_each(|parameter| key.push(parameter.as_bytes()));
        }
        (None, Some(query)) => {
            key.push(b"?");
            key.push(query.as_bytes());
        }
        (None, None) => key.push(b""),
    }
}

/// Pushes what was rewritten before the request reached the cache. What a router of axum cut off counts as
/// that alone: the rest is in the key already, except for what the rule leaves out.
fn push_rewritten(head: &Parts, key: &mut KeyBuffer) {
    let original = uri::original_uri(head);
    if head.uri.path_and_query() == original.path_and_query() {
        return;
    }
    let is_same_query = head.uri.query() == original.query();
    match original.path().strip_suffix(head.uri.path()).filter(|_| is_same_query) {
        Some(cut) => key.push(cut.as_bytes()),
        None => {
            key.push(b"?");
            key.push(uri::path_and_query(&head.uri));
        }
    }
}

/// What is in a key in addition to the URI.
#[derive(Clone, Debug, Default)]
struct KeyParts {
    /// Header fields and cookies.
    keyed: Keyed,
    extensions: Box<[Extension]>,
}

impl KeyParts {
    fn compile(rule: &KeyRule, extensions: &[Extension]) -> Result<Self, Problem> {
        let find = |name: &String| {
            let known = extensions.iter().rfind(|extension| *extension.name == **name);
            known.cloned().ok_or_else(|| Problem::Extension(name.as_str().into()))
        };
        let prefixes: Box<[_]> =
            rule.headers.iter().filter_map(|name| parse_prefix(name)).collect::<Result<_, _>>()?;
        let names = rule.headers.iter().filter(|name| parse_prefix(name).is_none());
        let fields: Box<[_]> = names.map(|name| parse_header(name)).collect::<Result<_, _>>()?;
        let cookies = rule.cookies.as_deref().map(parse_cookies).transpose()?;
        Ok(Self {
            keyed: Keyed::with_prefixes(fields, prefixes, cookies),
            extensions: rule.extensions.iter().map(find).collect::<Result<_, _>>()?,
        })
    }

    fn is_empty(&self) -> bool {
        self.keyed.is_nothing() && self.extensions.is_empty()
    }

    /// The fields that are in the key by their full names, entirely or in part.
    fn field_names(&self) -> impl Iterator<Item = HeaderName> {
        let cookies = self.keyed.cookies().filter(|names| !names.is_empty());
        let whole = self.keyed.fields().iter().cloned();
        whole.chain(cookies.map(|_| header::COOKIE))
    }

    fn push(&self, head: &Parts, fields: &FieldNormaliser, key: &mut KeyBuffer) -> Result<(), Unkeyed> {
        for name in self.keyed.fields() {
            match fields.class_of(name, head) {
                // Marked, so that no client can send it as a value.
                Some(class) => [b"class", class.as_bytes()].iter().for_each(|part| key.push(part)),
                None => push_header(name, &head.headers, fields, key),
            }
        }
        if !self.keyed.prefixes().is_empty() {
            push_prefixed(&self.keyed, &head.headers, fields, key);
        }
        if let Some(names) = self.keyed.cookies() {
            key.push_cookies(names, &head.headers);
        }
        self.extensions.iter().try_for_each(|extension| {
            let is_there = (extension.read)(&head.extensions, &mut |value| key.push(value));
            is_there.then_some(()).ok_or(Unkeyed::MissingExtension)
        })
    }
}

/// Pushes a field as the origin will see it. An absent field differs from an empty one, and one line from
/// two.
fn push_header(name: &HeaderName, headers: &HeaderMap, fields: &FieldNormaliser, key: &mut KeyBuffer) {
    match fields.normal_form(name, headers) {
        Some(value) => push_values(value.as_ref().map(HeaderValue::as_bytes).into_iter(), key),
        None => push_values(headers.get_all(name).iter().map(HeaderValue::as_bytes), key),
    }
}

/// Pushes the names too, since requests differ in which fields they have.
fn push_prefixed(keyed: &Keyed, headers: &HeaderMap, normaliser: &FieldNormaliser, key: &mut KeyBuffer) {
    let mut names: SmallVec<[&HeaderName; 4]> =
        headers.keys().filter(|name| keyed.has_by_prefix(name)).collect();
    // Their order changes when other fields are removed.
    names.sort_by(|a, b| fields::by_spelling(a, b));
    key.push((names.len() as u64).to_le_bytes());
    for name in names {
        key.push(name.as_str());
        push_header(name, headers, normaliser, key);
    }
}

pub(super) fn push_values<'a>(values: impl Iterator<Item = &'a [u8]>, key: &mut KeyBuffer) {
    let values: SmallVec<[&[u8]; 4]> = values.collect();
    key.push((values.len() as u64).to_le_bytes());
    values.iter().for_each(|value| key.push(value));
}

/// Pushes the value of an extension, and returns whether there is one.
type ReadExtension = dyn Fn(&Extensions, &mut dyn FnMut(&[u8])) -> bool + Send + Sync;

/// A value from the extensions of a request.
#[derive(Clone)]
pub(super) struct Extension {
    name: Box<str>,
    read: Arc<ReadExtension>,
}

impl Extension {
    pub(super) fn new<T, F>(name: Box<str>, part: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn(&T) -> Option<Cow<'_, [u8]>> + Send + Sync + 'static,
    {
        let read = move |extensions: &Extensions, push: &mut dyn FnMut(&[u8])| {
            let value = extensions.get::<T>().and_then(&part);
            value.map(|value| push(&value)).is_some()
        };
        Self { name, read: Arc::new(read) }
    }

    #[cfg(feature = "serde")]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The value as text, lossily: it may be any bytes.
    pub(super) fn text(&self, extensions: &Extensions) -> Option<String> {
        let mut text = None;
        (self.read)(extensions, &mut |value| text = Some(String::from_utf8_lossy(value).into_owned()));
        text
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Extension").field(&self.name).finish()
    }
}

/// Fields that the layers change on the way to the origin, or that do not affect the response. The host is
/// in every key.
const NOT_KEYED: [HeaderName; 12] = [
    header::HOST,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

/// The prefix of field names that `text` stands for, if it ends in a `*`.
fn parse_prefix(text: &str) -> Option<Result<Box<str>, Problem>> {
    let prefix = text.strip_suffix('*')?.to_ascii_lowercase();
    let is_name = HeaderName::from_bytes(prefix.as_bytes()).is_ok() && !prefix.contains('*');
    let is_keyable = !NOT_KEYED.iter().any(|name| name.as_str().starts_with(&prefix));
    Some(if is_name && is_keyable { Ok(prefix.into()) } else { Err(Problem::Header(text.into())) })
}

/// A field that can be in a key, by its full name.
pub(super) fn parse_header(text: &str) -> Result<HeaderName, Problem> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    name.filter(|name| !NOT_KEYED.contains(name) && !text.contains('*'))
        .ok_or_else(|| Problem::Header(text.into()))
}

fn parse_cookies(names: &[String]) -> Result<CookieNames, Problem> {
    let names = CookieNames::new(names.iter().map(String::as_str));
    match names.invalid() {
        Some(name) => Err(Problem::Cookie(name.into())),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &KeyParts, fields: &[(&'static str, &str)]) -> Vec<u8> {
        let mut request = http::Request::get("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut key = KeyBuffer::new();
        let head = request.body(()).unwrap().into_parts().0;
        parts.push(&head, &FieldNormaliser::default(), &mut key).unwrap();
        key.as_bytes().to_vec()
    }

    #[test]
    fn a_field_counts_with_all_its_lines() {
        let fields = [HeaderName::from_static("x-a")];
        let parts = KeyParts { keyed: Keyed::new(fields, None), ..KeyParts::default() };
        let of = |fields: &[_]| key(&parts, fields);
        let all = [
            of(&[]),
            of(&[("x-a", "")]),
            of(&[("x-a", "1,2")]),
            of(&[("x-a", "1"), ("x-a", "2")]),
            of(&[("x-a", "12")]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(of(&[("x-b", "1")]), of(&[]));
    }

    #[test]
    fn fields_with_a_keyed_prefix_count_with_their_names() {
        let parts = KeyParts { keyed: Keyed::with_prefixes([], ["x-a".into()], None), ..KeyParts::default() };
        let of = |fields: &[_]| key(&parts, fields);
        let all = [
            of(&[]),
            of(&[("x-a", "1")]),
            of(&[("x-ab", "1")]),
            of(&[("x_ab", "1")]),
            of(&[("x-a", "1"), ("x-ab", "1")]),
            of(&[("x-ab", "1"), ("x-ab", "")]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(of(&[("x-b", "1"), ("ax-a", "1")]), of(&[]));
    }

    #[test]
    fn one_cookie_counts_and_others_do_not() {
        let cookies = Some(CookieNames::new(["a"]));
        let parts = KeyParts { keyed: Keyed::new([], cookies), ..KeyParts::default() };
        let of = |cookies: &[&str]| {
            key(&parts, &cookies.iter().map(|cookie| ("cookie", *cookie)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["sid=1; a=2"]), of(&["a=2;sid=3"]));
        assert_eq!(of(&["sid=1", "a=2"]), of(&["a=2"]));
        let different: &[&[&str]] =
            &[&[], &["a="], &["a"], &["a=1"], &["a=1; a=2"], &["a=2; a=1"], &["a=\"1; a=2\""], &["a=1\""]];
        let keys: std::collections::HashSet<_> = different.iter().map(|cookies| of(cookies)).collect();
        assert_eq!(keys.len(), different.len());
        for removed in ["aa=1", "A=1", "x=1 a=1"] {
            assert_eq!(of(&[removed]), of(&[]), "the origin does not get it either");
        }
    }
}
