use std::fmt;

use crate::{build_error::BuildError, http::rules::InvalidRules};

/// An error in a set of key rules: the rule, and what is wrong with it.
///
/// ```
/// use tower_readthrough::{KeyRule, KeyRules};
///
/// let rules = KeyRules::builder().rule(KeyRule::path("/user/{id}/{id}").name("user")).build();
/// assert_eq!(
///     rules.unwrap_err().to_string(),
///     "key rule 0 (`user`): two captures are named `id`; use `{_}` for captures that are not in the key",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    rule: Option<(usize, Box<str>)>,
    problem: Problem,
}

impl RuleError {
    pub(super) fn of_rule(index: usize, name: &str, problem: Problem) -> Self {
        Self { rule: Some((index, name.into())), problem }
    }

    pub(super) const fn of_all(problem: Problem) -> Self {
        Self { rule: None, problem }
    }

    /// The position of the rule, from 0. `None` if the error is about all rules.
    pub fn index(&self) -> Option<usize> {
        self.rule.as_ref().map(|(index, _)| *index)
    }

    /// The name of the rule, or its path if it has no name.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_ref().map(|(_, name)| &**name)
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some((index, name)) => write!(f, "key rule {index} (`{name}`): {}", self.problem),
            None => write!(f, "key rules: {}", self.problem),
        }
    }
}

impl std::error::Error for RuleError {}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("invalid path pattern: {0}")]
    Path(Box<str>),
    #[error("`{text}` has a wildcard in another syntax; write `{instead}`")]
    Wildcard { text: Box<str>, instead: Box<str> },
    #[error("servers read this path in several ways, so no request for it has a key")]
    AmbiguousPath,
    #[error("two captures are named `{0}`; use `{{_}}` for captures that are not in the key")]
    RepeatedCapture(Box<str>),
    #[error(
        "invalid parameter `{0}` in the query of the path; write `name={{capture}}`, `name={{_}}` or `name=value`"
    )]
    Template(Box<str>),
    #[error("the query of the path names the parameter `{0}` twice")]
    RepeatedParameter(Box<str>),
    #[error(
        "`{0}` is not a valid host; write `example.com`, `example.com:8080` or `*.example.com`, without a \
         trailing dot"
    )]
    Host(Box<str>),
    #[error("requests of method `{0}` have no key; use GET or HEAD, or give the rule a `body`")]
    Method(Box<str>),
    #[error("a rule with a `body` cannot have the method `{0}`; use GET, POST or QUERY")]
    BodyMethod(Box<str>),
    #[error("a rule with a `body` needs a `method`; name those of GET, POST and QUERY that are reads")]
    BodyMethods,
    #[error("a `body` of {max_bytes} bytes is too large for a key; the limit is {limit}")]
    BodyBound { max_bytes: usize, limit: usize },
    #[error(
        "a rule with a `body` has all of the path in its keys; remove `no_vary_search`, and name the captures of \
         the path"
    )]
    BodyUri,
    #[error(
        "this rule has a `body` and leaves a part of the query out of the key, and rule {0} leaves out a part of \
         the same paths, so a purge of one URI would not reach all requests that share an entry"
    )]
    BodyGaps(usize),
    #[cfg(feature = "body-key")]
    #[error("`{0}` is not a JSON Pointer; write `/id`, `/params/page` or `/*/id`, with `~1` for a `/`")]
    Pointer(Box<str>),
    #[cfg(feature = "body-key")]
    #[error("`json_body` names `{0}` twice")]
    RepeatedPointer(Box<str>),
    #[cfg(feature = "body-key")]
    #[error(
        "`{0}` in `json_body` has no effect: it is a part of what is ignored, replaced or included, or `include` \
         leaves it out"
    )]
    IdlePointer(Box<str>),
    #[cfg(feature = "body-key")]
    #[error("`{0}` cannot name a persisted query; write its SHA-256 hash or its id")]
    Persisted(Box<str>),
    #[error("a rule with a `body` needs a layer that reads bodies; use `KeyRulesBuilder::build_with_bodies`")]
    BodyLayer,
    #[error("`{0}` is not a parameter name; write one name per string, which may end in `*`")]
    Parameter(Box<str>),
    #[error(
        "`{0}` is not a header field that keys can hold; write the name of one, or a prefix like `x-tenant-*`"
    )]
    Header(Box<str>),
    #[error("{}", BuildError::from(.0.clone()))]
    Storing(InvalidRules),
    #[error(
        "`{0}` is not a cookie name, which may end in `*`; for all cookies write `\"headers\": [\"cookie\"]`"
    )]
    Cookie(Box<str>),
    #[error("`{text}` is not a condition on {subject}; write {forms}, where `*` stands for any characters")]
    Condition { text: Box<str>, subject: &'static str, forms: &'static str },
    #[error("classes `{name}`: {reason}")]
    Classes { name: Box<str>, reason: &'static str },
    #[error(
        "only the class of `{field}` is in the key; remove `{field}` from `headers` and from the `keyed` fields of \
         the guard"
    )]
    Classified { field: Box<str> },
    #[error("unknown extension `{0}`; define it with `KeyRulesBuilder::extension`")]
    Extension(Box<str>),
    #[error("`{0}` is not one tag: tags have no spaces or commas; write one tag per string")]
    SeveralTags(Box<str>),
    #[error(
        "invalid tag `{0}`; braces hold a capture of the path, a parameter of `keep_query`, one of the \
         `extensions`, or a segment of the path like `{{path.2}}`"
    )]
    Tag(Box<str>),
    #[error("`{{{0}}}` in a tag is ambiguous; rename the capture, or remove the tag")]
    TagSources(Box<str>),
    #[error("the tag `{0}` has several parameters of `keep_query`; write a tag for each of them")]
    TagParameters(Box<str>),
    #[error("`{setting}` has no effect: {reason}")]
    NoEffect { setting: &'static str, reason: &'static str },
    #[error("`{setting}` is zero, so {consequence}")]
    Zero { setting: &'static str, consequence: &'static str },
    #[error("a group of `same_hosts` needs two hosts or more")]
    OneHost,
    #[error("`same_hosts` names `{0}` twice; a host belongs to one group")]
    RepeatedHost(Box<str>),
    #[error("`same_hosts` makes `{0}` the same as a host of the rule; name all hosts of the group, or none")]
    PartOfSameHosts(Box<str>),
    #[error("a rule with a `body` cannot be replaced: the layer that reads bodies has its own rules")]
    BodyHandle,
    #[error("`tag_fields` cannot be replaced: the stack was built with others")]
    OtherTagFields,
    #[error("{}", BuildError::CutUri)]
    CutUri,
    #[error("this rule is never reached: rule {0} matches all of its requests")]
    Unreachable(usize),
    #[error("the path `{path}` is never reached: rule {first} matches all of its requests")]
    UnreachablePath { path: Box<str>, first: usize },
    #[error("the list of paths is empty; use `KeyRule::any` for every path")]
    NoPath,
    #[error(
        "a part of the path that is not in the key reaches the origin; name the capture, or set `forward_unkeyed`"
    )]
    UnguardedPath,
    #[error("`{0}` is in the key, but the guard removes it; add it to the `keyed` fields of the guard")]
    GuardedHeader(Box<str>),
    #[error("`{0}` is not a field that a guard can remove; write a name, or a prefix like `x-forwarded-*`")]
    Guard(Box<str>),
    #[error(
        "`tag_fields`: `{0}` is not a field for caches alone; name one that clients do not read, like `xkey`"
    )]
    TagField(Box<str>),
    #[error("`{0}` is not a content coding")]
    Coding(Box<str>),
    #[error("`{0}` is not a language tag; write one like `de` or `de-AT`")]
    Language(Box<str>),
}
