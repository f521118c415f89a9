use std::cell::RefCell;

use http::{HeaderMap, HeaderName, Uri, header};
use smallvec::SmallVec;

use super::{
    condition::{self, Condition, Holds},
    error::Problem,
};

/// Conditions on the cookies, header fields and query of a rule's requests. See
/// [conditions](super#conditions).
///
/// All settings must hold. Of the names in one setting, one is enough.
///
/// | setting | holds for a request with |
/// |---|---|
/// | [`cookies`](Self::cookies) | at least one of these cookies |
/// | [`no_cookies`](Self::no_cookies) | none of them |
/// | [`headers`](Self::headers) | at least one of these header fields |
/// | [`no_headers`](Self::no_headers) | none of them |
/// | [`query`](Self::query) | at least one of these query parameters |
/// | [`no_query`](Self::no_query) | none of them |
///
/// | condition | holds if |
/// |---|---|
/// | `"wordpress_logged_in_*"` | the name of a cookie (or field, or parameter) has this prefix |
/// | `"preview"` | there is one of this name, with any value |
/// | `"theme=dark"`, `"theme=d*"` | there is a cookie or parameter with such a value |
/// | `"x-preview: 1"`, `"user-agent: *bot*"` | there is a header field with such a value |
///
/// A `*` stands for any number of characters. For methods and hosts see
/// [`KeyRule::method`](super::KeyRule::method) and [`KeyRule::host`](super::KeyRule::host).
///
/// ```
/// use tower_readthrough::{KeyRule, KeyRules, When};
///
/// let signed_in = When::new().cookies(["wordpress_logged_in_*", "wp-postpass_*"]);
/// let preview = When::new().query(["preview"]);
/// let rules = KeyRules::builder()
///     .rule(KeyRule::any().when(signed_in).bypass())
///     .rule(KeyRule::any().when(preview).bypass())
///     .rule(KeyRule::any().cookies([]))
///     .build()?;
///
/// let error = KeyRules::builder().rule(KeyRule::any().when(When::new().headers(["x-preview=1"]))).build();
/// assert_eq!(
///     error.unwrap_err().to_string(),
///     "key rule 0 (`any path`): `x-preview=1` is not a condition on header fields; write `name` or \
///      `name: value`, where `*` stands for any characters",
/// );
/// # drop(rules);
/// # Ok::<(), tower_readthrough::RuleError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(default, deny_unknown_fields, remote = "Self")
)]
#[must_use]
pub struct When {
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::document::some"))]
    cookies: Option<Vec<String>>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::document::some"))]
    no_cookies: Option<Vec<String>>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::document::some"))]
    headers: Option<Vec<String>>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::document::some"))]
    no_headers: Option<Vec<String>>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::document::some"))]
    query: Option<Vec<String>>,
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::document::some"))]
    no_query: Option<Vec<String>>,
}

impl When {
    /// No conditions yet, which [`build`](super::KeyRulesBuilder::build) refuses.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only for requests with one of these cookies: `name` or `name=value`.
    pub fn cookies<C: Into<String>>(mut self, conditions: impl IntoIterator<Item = C>) -> Self {
        extend(&mut self.cookies, conditions);
        self
    }

    /// Only for requests with none of these cookies.
    pub fn no_cookies<C: Into<String>>(mut self, conditions: impl IntoIterator<Item = C>) -> Self {
        extend(&mut self.no_cookies, conditions);
        self
    }

    /// Only for requests with one of these header fields: `name` or `name: value`. The fields are those that the
    /// client sent, before any are removed. `Host`, `Cookie` and the fields of the connection are refused.
    pub fn headers<C: Into<String>>(mut self, conditions: impl IntoIterator<Item = C>) -> Self {
        extend(&mut self.headers, conditions);
        self
    }

    /// Only for requests with none of these header fields.
    pub fn no_headers<C: Into<String>>(mut self, conditions: impl IntoIterator<Item = C>) -> Self {
        extend(&mut self.no_headers, conditions);
        self
    }

    /// Only for requests with one of these query parameters: `name` or `name=value`, both decoded.
    pub fn query<C: Into<String>>(mut self, conditions: impl IntoIterator<Item = C>) -> Self {
        extend(&mut self.query, conditions);
        self
    }

    /// Only for requests with none of these query parameters.
    pub fn no_query<C: Into<String>>(mut self, conditions: impl IntoIterator<Item = C>) -> Self {
        extend(&mut self.no_query, conditions);
        self
    }

    /// The settings that were made.
    fn settings(&self) -> impl Iterator<Item = (&'static str, ConditionKind, bool, &[String])> {
        use ConditionKind::{Cookies, Headers, Query};
        let settings = [
            ("cookies", Cookies, false, &self.cookies),
            ("no_cookies", Cookies, true, &self.no_cookies),
            ("headers", Headers, false, &self.headers),
            ("no_headers", Headers, true, &self.no_headers),
            ("query", Query, false, &self.query),
            ("no_query", Query, true, &self.no_query),
        ];
        settings.into_iter().filter_map(|(setting, kind, is_negated, conditions)| {
            Some((setting, kind, is_negated, conditions.as_deref()?))
        })
    }

    pub(super) fn in_words(&self) -> String {
        let words = |(_, kind, is_negated, conditions): (_, ConditionKind, bool, &[String])| {
            let (no, or) = if is_negated { ("no ", ", nor ") } else { ("", " or ") };
            format!("{no}{} {}", kind.subject(), conditions.join(or))
        };
        self.settings().map(words).collect::<Vec<_>>().join(", and ")
    }

    pub(super) fn compile(&self) -> Result<CompiledWhen, Problem> {
        let mut clauses = Vec::new();
        for (setting, kind, is_negated, conditions) in self.settings() {
            if conditions.is_empty() {
                return Err(Problem::NoEffect {
                    setting,
                    reason: "it has no names; write at least one, or remove it",
                });
            }
            let conditions = conditions.iter().map(|text| kind.parse(text)).collect::<Result<_, _>>()?;
            clauses.push(Clause { kind, is_negated, conditions });
        }
        let when = CompiledWhen(clauses.into());
        let reason = match when.0.is_empty() {
            true => "it has no conditions",
            false if when.excludes(&when) => {
                "it asks for the same thing to be present and absent, so no request matches"
            }
            false => return Ok(when),
        };
        Err(Problem::NoEffect { setting: "when", reason })
    }
}

fn extend<C: Into<String>>(all: &mut Option<Vec<String>>, more: impl IntoIterator<Item = C>) {
    all.get_or_insert_default().extend(more.into_iter().map(Into::into));
}

/// Conditions that have been checked. All clauses must hold.
#[derive(Clone, Debug)]
pub(super) struct CompiledWhen(Box<[Clause]>);

#[derive(Clone, Debug)]
struct Clause {
    kind: ConditionKind,
    is_negated: bool,
    /// At least one of them must hold.
    conditions: Box<[Condition]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConditionKind {
    Cookies,
    Headers,
    Query,
}

impl ConditionKind {
    const fn subject(self) -> &'static str {
        match self {
            Self::Cookies => "cookies",
            Self::Headers => "header fields",
            Self::Query => "query parameters",
        }
    }

    fn parse(self, text: &str) -> Result<Condition, Problem> {
        let (separator, forms) = match self {
            Self::Headers => (':', "`name` or `name: value`"),
            Self::Cookies | Self::Query => ('=', "`name` or `name=value`"),
        };
        let (name, value) = match text.split_once(separator) {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let condition = match self {
            Self::Cookies => Condition::of_cookie(name, value),
            Self::Headers => Condition::of_field(name, value.map(str::trim)).filter(|_| !is_elsewhere(name)),
            Self::Query => Condition::of_parameter(name, value),
        };
        condition.ok_or_else(|| Problem::Condition { text: text.into(), subject: self.subject(), forms })
    }
}

/// Whether a field has a setting of its own, as hosts and cookies have, or is about the connection.
fn is_elsewhere(name: &str) -> bool {
    const ELSEWHERE: [HeaderName; 7] = [
        header::HOST,
        header::COOKIE,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
    ];
    name == "*" || ELSEWHERE.iter().any(|own| name.eq_ignore_ascii_case(own.as_str()))
}

impl CompiledWhen {
    fn hold(&self, headers: &HeaderMap, target: &Uri) -> Holds {
        let outcome = |clause: &Clause| {
            let found = match clause.kind {
                ConditionKind::Cookies => condition::of_cookies(&clause.conditions, headers),
                ConditionKind::Headers => condition::of_fields(&clause.conditions, headers),
                ConditionKind::Query => condition::of_parameters(&clause.conditions, target.query()),
            };
            if clause.is_negated { found.negated() } else { found }
        };
        self.0.iter().map(outcome).min().unwrap_or(Holds::Yes)
    }

    /// Whether these conditions never hold where the other ones do.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let contradicts = |ours: &Clause, theirs: &Clause| {
            let (denial, claim) = if ours.is_negated { (ours, theirs) } else { (theirs, ours) };
            denial.is_negated
                && !claim.is_negated
                && denial.kind == claim.kind
                && claim
                    .conditions
                    .iter()
                    .all(|claimed| denial.conditions.iter().any(|denied| denied.covers(claimed)))
        };
        self.0.iter().any(|ours| other.0.iter().any(|theirs| contradicts(ours, theirs)))
    }

    /// Whether these conditions hold wherever the other ones do.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.0.iter().all(|ours| other.0.iter().any(|theirs| ours.covers(theirs)))
    }
}

impl Clause {
    fn covers(&self, other: &Self) -> bool {
        let is_within = |narrow: &[Condition], wide: &[Condition]| {
            narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow)))
        };
        let is_same = self.kind == other.kind && self.is_negated == other.is_negated;
        is_same
            && match self.is_negated {
                false => is_within(&other.conditions, &self.conditions),
                true => is_within(&self.conditions, &other.conditions),
            }
    }
}

/// What conditions depend on, with the results of those that have been evaluated, so that each is evaluated
/// once.
pub(super) struct Facts<'h> {
    request: Option<(&'h HeaderMap, &'h Uri)>,
    known: RefCell<SmallVec<[(usize, Holds); 2]>>,
}

impl<'h> Facts<'h> {
    pub(super) fn of(headers: &'h HeaderMap, target: &'h Uri) -> Self {
        Self { request: Some((headers, target)), known: RefCell::default() }
    }

    /// The facts of a URI without a request, for which no condition holds.
    pub(super) fn unknown() -> Self {
        Self { request: None, known: RefCell::default() }
    }

    /// Whether the conditions of the rule at this position hold.
    pub(super) fn hold(&self, rule: usize, when: &CompiledWhen) -> Holds {
        let Some((headers, target)) = self.request else { return Holds::No };
        let known = |known: &[(usize, Holds)]| known.iter().find(|(own, _)| *own == rule).map(|(_, is)| *is);
        if let Some(known) = known(&self.known.borrow()) {
            return known;
        }
        let holds = when.hold(headers, target);
        self.known.borrow_mut().push((rule, holds));
        holds
    }

    /// Whether any condition was evaluated.
    pub(super) fn were_evaluated(&self) -> bool {
        !self.known.borrow().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(when: &When) -> CompiledWhen {
        when.compile().unwrap()
    }

    #[test]
    fn conditions_exclude_what_they_contradict() {
        let cookies = compiled(&When::new().cookies(["ab", "a*=1"]).query(["q"]));
        for (other, is_excluded) in [
            (When::new().no_cookies(["a*"]), true),
            (When::new().no_cookies(["x", "a*"]).query(["q"]), true),
            (When::new().no_cookies(["ab"]), false),
            (When::new().cookies(["a*"]), false),
            (When::new().no_query(["a*"]), false),
            (When::new().no_query(["q"]), true),
        ] {
            let other_compiled = compiled(&other);
            assert_eq!(cookies.excludes(&other_compiled), is_excluded, "{other:?}");
            assert_eq!(other_compiled.excludes(&cookies), is_excluded, "{other:?}");
        }
    }

    #[test]
    fn conditions_cover_narrower_ones() {
        let cookies = |names: &[&'static str]| When::new().cookies(names.iter().copied());
        let none = |names: &[&'static str]| When::new().no_cookies(names.iter().copied());
        for (wide, narrow) in [
            (cookies(&["a"]), cookies(&["a"])),
            (cookies(&["a", "b"]), cookies(&["a"])),
            (cookies(&["a*"]), cookies(&["ab", "a*b=1"])),
            (cookies(&["a"]), cookies(&["a=1"])),
            (cookies(&["a=1*"]), cookies(&["a=12"])),
            (cookies(&["a"]), cookies(&["a"]).query(["b"])),
            (none(&["a"]), none(&["a", "b"])),
            (none(&["ab"]), none(&["a*"])),
            (none(&["a=1"]), none(&["a"])),
            (When::new().headers(["X-A: 1"]), When::new().headers(["x-a:1"])),
        ] {
            assert!(compiled(&wide).covers(&compiled(&narrow)), "{wide:?} {narrow:?}");
            let is_same = compiled(&narrow).covers(&compiled(&wide));
            assert_eq!(is_same, narrow == wide || format!("{wide:?}").contains("X-A"), "{narrow:?} {wide:?}");
        }
        let apart = [cookies(&["a"]), cookies(&["b"]), none(&["a"]), When::new().query(["a"])];
        for (at, one) in apart.iter().enumerate() {
            for other in &apart[at + 1..] {
                assert!(!compiled(one).covers(&compiled(other)), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn invalid_conditions_are_refused() {
        for when in [
            When::new(),
            When::new().cookies([""; 0]),
            When::new().cookies([""]),
            When::new().cookies(["a b"]),
            When::new().cookies(["a: b"]),
            When::new().cookies(["a=b;c"]),
            When::new().headers(["*"]),
            When::new().headers(["Host: a"]),
            When::new().headers(["cookie: a"]),
            When::new().headers(["a=b"]),
            When::new().query(["a&b"]),
            When::new().query(["=1"]),
            When::new().cookies(["ab", "a=1"]).no_cookies(["a*"]),
            When::new().headers(["x-a: 1"]).query(["q"]).no_headers(["x-a"]),
        ] {
            assert!(when.compile().is_err(), "{when:?}");
        }
    }
}
