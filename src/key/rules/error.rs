use std::fmt;

use crate::build_error::BuildError;

/// A set of key rules that cannot work: which rule it is, and what is wrong with it.
///
/// ```
/// use tower_readthrough::{KeyRule, KeyRules};
///
/// let rules = KeyRules::builder().rule(KeyRule::path("/user/{id}/{id}").name("user")).build();
/// assert_eq!(
///     rules.unwrap_err().to_string(),
///     "key rule 0 (`user`): two captures are named `id`; one that is not to be in the key is `{_}`",
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

    /// The position of the rule, from 0 on. None if it is about all of them.
    pub fn index(&self) -> Option<usize> {
        self.rule.as_ref().map(|(index, _)| *index)
    }

    /// The name of the rule, or its path if it has none.
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
    #[error("the path is none: {0}")]
    Path(Box<str>),
    #[error("`{text}` has a wildcard in another syntax: write `{instead}`")]
    Wildcard { text: Box<str>, instead: Box<str> },
    #[error("servers read such a path in several ways, so that no request for it has a key")]
    AmbiguousPath,
    #[error("two captures are named `{0}`; one that is not to be in the key is `{{_}}`")]
    RepeatedCapture(Box<str>),
    #[error("`{0}` in the query of the path is neither `name={{capture}}`, `name={{_}}` nor `name=value`")]
    Template(Box<str>),
    #[error("the query of the path names the parameter `{0}` twice")]
    RepeatedParameter(Box<str>),
    #[error(
        "`{0}` is no host: it is a name like `example.com`, `example.com:8080` or `*.example.com`, without a \
         dot at its end"
    )]
    Host(Box<str>),
    #[error("it can never match a request of method `{0}`: only GET and HEAD have keys")]
    Method(Box<str>),
    #[error("it cannot have a `body` and the method `{0}`: only GET, POST and QUERY can be reads with one")]
    BodyMethod(Box<str>),
    #[error("it has a `body`, but no `method` that says which of GET, POST and QUERY are reads")]
    BodyMethods,
    #[error("a `body` of {max_bytes} bytes is too large to hold for a key: {limit} is the most")]
    BodyBound { max_bytes: usize, limit: usize },
    #[error("it has a `body`, so that all of the path is in the key, and `no_vary_search` is not for it")]
    BodyUri,
    #[error(
        "it has a `body` and leaves a part of the query out of the key, and rule {0} a part of the same paths: \
         a purge of one URI would not reach all that share an entry"
    )]
    BodyGaps(usize),
    #[cfg(feature = "body-key")]
    #[error("`{0}` is no JSON Pointer: it is like `/id`, `/params/page` or `/*/id`, with `~1` for a `/`")]
    Pointer(Box<str>),
    #[cfg(feature = "body-key")]
    #[error("`json_body` names `{0}` twice")]
    RepeatedPointer(Box<str>),

    #[cfg(feature = "body-key")]
    #[error(
        "`json_body` does nothing with `{0}`: it is a part of what is ignored, replaced or included, or `include` \
         leaves it out"
    )]
    IdlePointer(Box<str>),
    #[cfg(feature = "body-key")]
    #[error("`{0}` is no name of a persisted query, such as its SHA-256 hash")]
    Persisted(Box<str>),
    #[error("its key holds the `body`, which a layer has to read: use `KeyRulesBuilder::build_with_bodies`")]
    BodyLayer,
    #[error("`{0}` is no name of a query parameter, which may end in `*`; several names are several strings")]
    Parameter(Box<str>),
    #[error(
        "`{0}` is no header field on which responses can be kept apart, nor how names of such fields begin, `x-tenant-*`"
    )]
    Header(Box<str>),
    #[error("{}", BuildError::Withheld(.0.clone()))]
    Withheld(Box<str>),
    #[error(
        "`{0}` is no cookie name, which may end in `*`; all cookies together are `\"headers\": [\"cookie\"]`"
    )]
    Cookie(Box<str>),
    #[error("`{text}` is no condition on {subject}: write {forms}, in which `*` stands for any characters")]
    Condition { text: Box<str>, subject: &'static str, forms: &'static str },
    #[error("the classes `{name}`: {reason}")]
    Classes { name: Box<str>, reason: &'static str },
    #[error(
        "`{field}` is not in the key, but only its class: leave it out of `headers` and of the `keyed` fields of the guard"
    )]
    Classified { field: Box<str> },
    #[error("nothing says where the extension `{0}` comes from: name it with `KeyRulesBuilder::extension`")]
    Extension(Box<str>),
    #[error("`{0}` is not one tag: tags have no spaces and no commas, and several are several strings")]
    SeveralTags(Box<str>),
    #[error(
        "the tag `{0}` names what the rule does not have: in braces there may be a capture of the path, a \
         parameter of `keep_query`, one of the `extensions`, or a segment of the path such as `{{path.2}}`"
    )]
    Tag(Box<str>),
    #[error("`{{{0}}}` in a tag could be several things: rename the capture, or leave out the tag")]
    TagSources(Box<str>),
    #[error("the tag `{0}` names several parameters of `keep_query`: give a tag for each of them")]
    TagParameters(Box<str>),
    #[error("`{setting}` has no effect: {reason}")]
    NoEffect { setting: &'static str, reason: &'static str },
    #[error("`{setting}` is zero, so that {consequence}")]
    Zero { setting: &'static str, consequence: &'static str },
    #[error("`same_hosts` takes two hosts or more that are one")]
    OneHost,
    #[error("`same_hosts` names `{0}` twice, so that it is not known which host stands for it")]
    RepeatedHost(Box<str>),
    #[error("`{0}` is one with a host of the rule by `same_hosts`: name it too, or none of them")]
    PartOfSameHosts(Box<str>),
    #[error("it has a `body`, and rules with one are not replaced: the layer that reads bodies has its own")]
    BodyHandle,
    #[error("`tag_fields` cannot be replaced: the stack has those with which it was built")]
    OtherTagFields,
    #[error("{}", BuildError::CutUri)]
    CutUri,
    #[error("`heuristic` takes a share that is more than 0 and at most 1")]
    Share,
    #[error("it is never reached: rule {0} matches all that it does")]
    Unreachable(usize),
    #[error("its path `{path}` is never reached: rule {first} matches all that it does")]
    UnreachablePath { path: Box<str>, first: usize },
    #[error("its list of paths is empty, so that it is for no request: use `KeyRule::any` for every path")]
    NoPath,
    #[error(
        "a part of the path that is not in the key reaches the origin: capture it, or say `forward_unkeyed`"
    )]
    UnguardedPath,
    #[error("`{0}` is in the key, and the guard removes it: name it in the `keyed` fields of the guard")]
    GuardedHeader(Box<str>),
    #[error(
        "`{0}` is no field that a guard can remove: it is a name, or how names begin, like `x-forwarded-*`"
    )]
    Guard(Box<str>),
    #[error(
        "`tag_fields`: `{0}` is no field for caches alone: name one that clients do not read, like `xkey`"
    )]
    TagField(Box<str>),
    #[error("`{0}` is no content coding")]
    Coding(Box<str>),
    #[error("`{0}` is no language tag, such as `de` or `de-AT`")]
    Language(Box<str>),
}
