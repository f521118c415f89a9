use std::cell::RefCell;

use http::{HeaderMap, HeaderName, Uri, header};
use smallvec::SmallVec;

use super::{
    error::Problem,
    sightings::{self, Test, Truth},
};

/// Which requests a rule is for, by more than their host, method and path. See
/// [conditions](super#conditions).
///
/// All that is said must hold. Of several names of one kind, one is enough.
///
/// | setting | holds for a request with |
/// |---|---|
/// | [`cookies`](Self::cookies) | one of these cookies, or more |
/// | [`no_cookies`](Self::no_cookies) | none of them |
/// | [`headers`](Self::headers) | one of these header fields, or more |
/// | [`no_headers`](Self::no_headers) | none of them |
/// | [`query`](Self::query) | one of these query parameters, or more |
/// | [`no_query`](Self::no_query) | none of them |
///
/// | condition | holds if |
/// |---|---|
/// | `"wordpress_logged_in_*"` | the name of a cookie (or field, or parameter) begins so |
/// | `"preview"` | there is one of this name, whatever its value |
/// | `"theme=dark"`, `"theme=d*"` | there is a cookie or a parameter with such a value |
/// | `"x-preview: 1"`, `"user-agent: *bot*"` | there is a header field with such a value |
///
/// A `*` stands for any characters, or none. [`KeyRule::method`](super::KeyRule::method) and
/// [`KeyRule::host`](super::KeyRule::host) are said beside it.
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
///     "key rule 0 (`any path`): `x-preview=1` is no condition on header fields: write `name` or `name: value`, \
///      in which `*` stands for any characters",
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
    /// No condition yet, which [`build`](super::KeyRulesBuilder::build) refuses.
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

    /// Only for requests with one of these header fields: `name` or `name: value`. The fields are those
    /// that the client sent, before anything is removed from them. Not `Host` and `Cookie`, nor the fields
    /// of the connection.
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

    /// What is said, by settings.
    fn said(&self) -> impl Iterator<Item = (&'static str, Kind, bool, &[String])> {
        use Kind::{Cookies, Headers, Query};
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
        let words = |(_, kind, is_negated, conditions): (_, Kind, bool, &[String])| {
            let (no, or) = if is_negated { ("no ", ", nor ") } else { ("", " or ") };
            format!("{no}{} {}", kind.subject(), conditions.join(or))
        };
        self.said().map(words).collect::<Vec<_>>().join(", and ")
    }

    pub(super) fn compile(&self) -> Result<CompiledWhen, Problem> {
        let mut clauses = Vec::new();
        for (setting, kind, is_negated, conditions) in self.said() {
            if conditions.is_empty() {
                return Err(Problem::NoEffect {
                    setting,
                    reason: "a condition of `when` has a name at least",
                });
            }
            let tests = conditions.iter().map(|text| kind.parse(text)).collect::<Result<_, _>>()?;
            clauses.push(Clause { kind, is_negated, tests });
        }
        let when = CompiledWhen(clauses.into());
        let reason = match when.0.is_empty() {
            true => "it has no condition",
            false if when.excludes(&when) => "no request has what it says and has it not",
            false => return Ok(when),
        };
        Err(Problem::NoEffect { setting: "when", reason })
    }
}

fn extend<C: Into<String>>(all: &mut Option<Vec<String>>, more: impl IntoIterator<Item = C>) {
    all.get_or_insert_default().extend(more.into_iter().map(Into::into));
}

/// Conditions that have been checked. All of them must hold.
#[derive(Clone, Debug)]
pub(super) struct CompiledWhen(Box<[Clause]>);

#[derive(Clone, Debug)]
struct Clause {
    kind: Kind,
    is_negated: bool,
    /// One of them is enough.
    tests: Box<[Test]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cookies,
    Headers,
    Query,
}

impl Kind {
    const fn subject(self) -> &'static str {
        match self {
            Self::Cookies => "cookies",
            Self::Headers => "header fields",
            Self::Query => "query parameters",
        }
    }

    fn parse(self, text: &str) -> Result<Test, Problem> {
        let (separator, forms) = match self {
            Self::Headers => (':', "`name` or `name: value`"),
            Self::Cookies | Self::Query => ('=', "`name` or `name=value`"),
        };
        let (name, value) = match text.split_once(separator) {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let test = match self {
            Self::Cookies => Test::of_cookie(name, value),
            Self::Headers => Test::of_field(name, value.map(str::trim)).filter(|_| !is_elsewhere(name)),
            Self::Query => Test::of_parameter(name, value),
        };
        test.ok_or_else(|| Problem::Condition { text: text.into(), subject: self.subject(), forms })
    }
}

/// The host has a setting of its own, cookies have, and the rest is about the connection.
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
    fn holds(&self, headers: &HeaderMap, target: &Uri) -> Truth {
        let truth = |clause: &Clause| {
            let found = match clause.kind {
                Kind::Cookies => sightings::of_cookies(&clause.tests, headers),
                Kind::Headers => sightings::of_fields(&clause.tests, headers),
                Kind::Query => sightings::of_parameters(&clause.tests, target.query()),
            };
            if clause.is_negated { found.negated() } else { found }
        };
        self.0.iter().map(truth).min().unwrap_or(Truth::Yes)
    }

    /// Whether they never hold where the others do.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let is_denied = |ours: &Clause, theirs: &Clause| {
            let (denial, claim) = if ours.is_negated { (ours, theirs) } else { (theirs, ours) };
            denial.is_negated
                && !claim.is_negated
                && denial.kind == claim.kind
                && claim.tests.iter().all(|test| denial.tests.iter().any(|denied| denied.covers(test)))
        };
        self.0.iter().any(|ours| other.0.iter().any(|theirs| is_denied(ours, theirs)))
    }

    /// Whether they hold wherever the others do.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.0.iter().all(|ours| other.0.iter().any(|theirs| ours.covers(theirs)))
    }
}

impl Clause {
    fn covers(&self, other: &Self) -> bool {
        let is_within = |narrow: &[Test], wide: &[Test]| {
            narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow)))
        };
        let is_same = self.kind == other.kind && self.is_negated == other.is_negated;
        is_same
            && match self.is_negated {
                false => is_within(&other.tests, &self.tests),
                true => is_within(&self.tests, &other.tests),
            }
    }
}

/// What conditions look at of a request, and what was found out: each condition is looked at once.
pub(super) struct Facts<'h> {
    request: Option<(&'h HeaderMap, &'h Uri)>,
    known: RefCell<SmallVec<[(usize, Truth); 2]>>,
}

impl<'h> Facts<'h> {
    pub(super) fn of(headers: &'h HeaderMap, target: &'h Uri) -> Self {
        Self { request: Some((headers, target)), known: RefCell::default() }
    }

    /// Of a URI alone: no condition holds.
    pub(super) fn unknown() -> Self {
        Self { request: None, known: RefCell::default() }
    }

    /// Whether the conditions of the rule with this number hold.
    pub(super) fn truth(&self, rule: usize, when: &CompiledWhen) -> Truth {
        let Some((headers, target)) = self.request else { return Truth::No };
        let known = |known: &[(usize, Truth)]| known.iter().find(|(own, _)| *own == rule).map(|(_, is)| *is);
        if let Some(known) = known(&self.known.borrow()) {
            return known;
        }
        let truth = when.holds(headers, target);
        self.known.borrow_mut().push((rule, truth));
        truth
    }

    /// Whether any condition was looked at.
    pub(super) fn were_asked(&self) -> bool {
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
    fn what_one_denies_and_the_other_claims_holds_for_no_request() {
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
    fn what_holds_for_fewer_requests_is_covered() {
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
    fn what_is_no_condition_is_refused() {
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
