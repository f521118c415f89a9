//! Warnings about rules that work, but probably not as intended.

use std::fmt;

use http::header;

use super::{KeyRule, KeyRules, compiled::CompiledRule};

/// A warning about a key rule that works, but probably not as intended; see
/// [`KeyRules::check`](super::KeyRules::check).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleWarning {
    index: usize,
    rule: Box<str>,
    concern: Concern,
}

impl RuleWarning {
    fn new(index: usize, rule: &str, concern: Concern) -> Self {
        Self { index, rule: rule.into(), concern }
    }

    /// The position of the rule, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The name of the rule, or its path if it has no name.
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

impl fmt::Display for RuleWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key rule {} (`{}`): {}", self.index, self.rule, self.concern)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Concern {
    #[error(
        "this rule is never reached: earlier rules match all of its requests between them, by host or method"
    )]
    Unreachable,
    #[error(
        "rule {0} (`{1}`) has a wider path and takes some requests of this rule; move this rule before it"
    )]
    Shadowed(usize, Box<str>),
    #[error("rule {0} (`{1}`) takes some requests that this rule bypasses; move this rule before it")]
    BypassTooLate(usize, Box<str>),
    #[error("only paths below `{0}` are bypassed, not `{0}` itself; write `{0}/{{**rest}}` for both")]
    RootNotBypassed(Box<str>),
    #[error("rule {0} has the same name, so errors and tables cannot tell them apart; rename one of them")]
    SameName(usize),
    #[error("this rule is for every host, while other rules name their hosts; add a `host`")]
    NoHost,
    #[error(
        "`{0}` in the key stores an entry for each of its values, and clients send many; let the origin send \
         `Vary`, or use `classes`"
    )]
    ManyValues(Box<str>),
    #[error(
        "the cookie `{0}` looks like a session, so each client has entries of its own; to store nothing for \
         clients with this cookie, bypass them"
    )]
    SessionCookie(Box<str>),
    #[error(
        "this rule treats all requests with a body as reads on many paths, and a write among them would be lost; \
         name each path"
    )]
    ManyReads,
    #[error(
        "browsers send cookies, and with `{0}` alone nothing is stored for requests with cookies; name the \
         `cookies` that count, or `[]` for none, unless `Rules::cookies` does so"
    )]
    UnmentionedCookies(&'static str),
    #[error(
        "with `forward_unkeyed` and `fixed_ttl`, a response to one client's parameters is stored for all clients, \
         and the origin cannot prevent that"
    )]
    ForwardedAndFixed,
    #[error(
        "with `fixed_ttl` for every path, responses marked `no-cache` or `max-age=0` are stored too; give the rule \
         a path, or use `default_ttl`"
    )]
    FixedEverywhere,
    #[error(
        "with `{setting}`, a response for one client reaches all clients that share its entry, and the key holds \
         {lacks}"
    )]
    ForAll { setting: &'static str, lacks: &'static str },
    #[error(
        "with `store_set_cookie`, the cookie of one client reaches all clients that share its entry; to store \
         responses without it, name `set-cookie` in `store_without`"
    )]
    SetCookie,
}

/// A rule among the others, for one of its paths.
#[derive(Clone, Copy)]
struct RuleAtPath<'r> {
    all: &'r KeyRules,
    index: usize,
    rule: &'r KeyRule,
    path: Option<&'r str>,
    compiled: &'r CompiledRule,
}

impl KeyRules {
    /// Warns of what works, but probably not as intended: rules that are shadowed by others, responses for one
    /// client that are stored for all, keys with as many values as there are clients, and similar mistakes.
    ///
    /// The rules can be used all the same. What cannot work is an error of
    /// [`build`](super::KeyRulesBuilder::build). The warnings are in the order of the rules. No
    /// warning does not mean that the rules are right: a [table](crate::rule_table) of requests checks that.
    ///
    /// ```
    /// use tower_readthrough::{KeyRule, KeyRules};
    ///
    /// let rules = KeyRules::builder()
    ///     .rule(KeyRule::path("/shop/{*rest}").cookies(["PHPSESSID"]))
    ///     .rule(KeyRule::path("/{country}/account").bypass())
    ///     .build()?;
    /// let warnings: Vec<_> = rules.check().iter().map(ToString::to_string).collect();
    /// assert_eq!(
    ///     warnings,
    ///     [
    ///         "key rule 0 (`/shop/{*rest}`): the cookie `PHPSESSID` looks like a session, so each client has \
    ///          entries of its own; to store nothing for clients with this cookie, bypass them",
    ///         "key rule 1 (`/{country}/account`): rule 0 (`/shop/{*rest}`) takes some requests that this rule \
    ///          bypasses; move this rule before it",
    ///     ],
    /// );
    /// # Ok::<(), tower_readthrough::RuleError>(())
    /// ```
    pub fn check(&self) -> Vec<RuleWarning> {
        let mut warnings: Vec<RuleWarning> = self.rules_at_paths().flat_map(RuleAtPath::warnings).collect();
        // The paths of one rule share most of their warnings.
        warnings.dedup();
        warnings
    }

    fn rules_at_paths(&self) -> impl Iterator<Item = RuleAtPath<'_>> {
        let rules = self.source().rules.iter().enumerate();
        let written = rules.flat_map(|(index, rule)| rule.each_path().map(move |path| (index, rule, path)));
        let place = |((index, rule, path), compiled)| RuleAtPath { all: self, index, rule, path, compiled };
        written.zip(self.rules()).map(place)
    }
}

impl RuleAtPath<'_> {
    fn warnings(self) -> Vec<RuleWarning> {
        let mut concerns = self.reach();
        if !self.rule.bypass {
            concerns.extend(self.keys());
            concerns.extend(self.storing());
        }
        let label = self.rule.label();
        concerns.into_iter().map(|concern| RuleWarning::new(self.index, label, concern)).collect()
    }

    /// The rules before this one.
    fn earlier(self) -> impl Iterator<Item = Self> {
        self.all.rules_at_paths().take_while(move |other| other.index < self.index)
    }

    fn concern_with(self, concern: impl FnOnce(usize, Box<str>) -> Concern) -> Concern {
        concern(self.index, self.rule.label().into())
    }
}

/// Whether a rule gets all the requests that it is for.
impl RuleAtPath<'_> {
    fn reach(self) -> Vec<Concern> {
        if self.is_unreachable() {
            return vec![Concern::Unreachable];
        }
        let same_name =
            self.earlier().find(|other| other.rule.name.is_some() && other.rule.name == self.rule.name);
        let same_name = same_name.map(|other| Concern::SameName(other.index));
        let shadow = self.earlier().find(|other| self.is_shadowed_by(*other));
        let concern = if self.rule.bypass { Concern::BypassTooLate } else { Concern::Shadowed };
        let shadow = shadow.map(|other| other.concern_with(concern));
        [same_name, shadow, self.root_not_bypassed(), self.no_host()].into_iter().flatten().collect()
    }

    /// Whether several earlier rules together leave no request for this one.
    fn is_unreachable(self) -> bool {
        let hosts: Vec<_> = match self.rule.hosts.is_empty() {
            true => vec![Vec::new()],
            false => self.rule.hosts.iter().map(|host| vec![host.clone()]).collect(),
        };
        let methods: Vec<_> = match self.rule.methods.is_empty() {
            true if self.rule.bypass => vec![Vec::new()],
            true => ["GET", "HEAD"].map(|method| vec![method.to_owned()]).into(),
            false => self.rule.methods.iter().map(|method| vec![method.clone()]).collect(),
        };
        let parts = hosts.iter().flat_map(|hosts| methods.iter().map(move |methods| (hosts, methods)));
        let mut parts = parts.map(|(hosts, methods)| KeyRule {
            hosts: hosts.clone(),
            methods: methods.clone(),
            ..self.rule.clone()
        });
        parts.all(|part| self.is_covered(&part))
    }

    fn is_covered(self, part: &KeyRule) -> bool {
        let guard = self.all.fields().guard();
        let Ok(part) = CompiledRule::compile(self.index, part, self.path, guard, self.all.source()) else {
            return false;
        };
        let has_bodies = self.all.rules().iter().any(|rule| rule.max_body().is_some());
        self.earlier().any(|other| other.compiled.covers(&part, has_bodies))
    }

    /// Whether an earlier rule takes requests that are more likely meant for this one.
    fn is_shadowed_by(self, earlier: Self) -> bool {
        if earlier.rule.bypass || !self.compiled.may_share_request(earlier.compiled) {
            return false;
        }
        match self.rule.bypass {
            // A rule that covers the other one is for what the other one leaves over.
            true => !self.compiled.covers(earlier.compiled, true),
            false => earlier.compiled.has_wider_path_than(self.compiled),
        }
    }

    /// A rule for `/account/{*rest}` that leaves `/account` to the cache.
    fn root_not_bypassed(self) -> Option<Concern> {
        let path = self.path.filter(|_| self.rule.bypass)?;
        let (root, rest) = path.split_once("/{*")?;
        if root.is_empty() || root.contains(['{', '}', '?']) || !rest.ends_with('}') {
            return None;
        }
        let is_bypassed = self.all.rules().iter().any(|rule| {
            rule.is_bypass()
                && match rule.loose_path() {
                    Some(pattern) => pattern.at(&root.to_ascii_lowercase()).is_some(),
                    None => true,
                }
        });
        (!is_bypassed).then(|| Concern::RootNotBypassed(root.into()))
    }

    fn no_host(self) -> Option<Concern> {
        let is_for_all = |rule: &KeyRule| rule.hosts.is_empty();
        let source = self.all.source();
        let same = |host| {
            source.same_hosts.iter().find(|group| group.contains(host)).and_then(|group| group.first())
        };
        let named = source.rules.iter().flat_map(|rule| &rule.hosts);
        let mut hosts: Vec<_> = named.map(|host| same(host).unwrap_or(host)).collect();
        hosts.sort();
        hosts.dedup();
        (is_for_all(self.rule) && !self.rule.bypass && hosts.len() > 1).then_some(Concern::NoHost)
    }
}

/// Fields with another value for each client or page.
const MANY_VALUES: [&str; 8] =
    ["accept", "cookie", "referer", "traceparent", "user-agent", "via", "x-forwarded-for", "x-request-id"];

/// Parts of the names of session cookies.
const SESSION: [&str; 7] = ["sess", "logged_in", "auth", "token", "jwt", "remember_me", "connect.sid"];

impl RuleAtPath<'_> {
    fn keys(self) -> Vec<Concern> {
        let source = self.all.source();
        let fields = self.rule.headers.iter().map(|name| name.to_ascii_lowercase());
        let is_class =
            |name: &str| source.classes.iter().any(|classes| classes.name().eq_ignore_ascii_case(name));
        let is_open = |name: &String| match name.as_str() {
            name if is_class(name) => false,
            "accept-encoding" => source.accept_encoding.is_none(),
            "accept-language" => source.accept_language.is_none(),
            name => MANY_VALUES.contains(&name),
        };
        let fields = fields.filter(is_open).map(|name| Concern::ManyValues(name.into()));
        let cookies = self.rule.cookies.iter().flatten().filter(|name| is_session(name));
        let cookies = cookies.map(|name| Concern::SessionCookie(name.as_str().into()));
        let is_tree = self.path.is_none_or(|path| path.contains("{*"));
        let has_many_reads = self.rule.body.is_some() && is_tree;
        fields.chain(cookies).chain(has_many_reads.then_some(Concern::ManyReads)).collect()
    }
}

fn is_session(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "sid" || SESSION.iter().any(|part| name.contains(part))
}

impl RuleAtPath<'_> {
    fn storing(self) -> Vec<Concern> {
        let overrides = &self.rule.overrides;
        let is_on = |setting: Option<bool>| setting == Some(true);
        let is_fixed = overrides.fixed_ttl.is_some();
        let lacks = "neither `Authorization` nor a cookie nor an extension that tells clients apart";
        let lacks_authorization = "neither `Authorization` nor an extension that tells clients apart";
        let for_all = |setting, lacks| Concern::ForAll { setting, lacks };
        [
            (is_on(overrides.store_private) && !self.tells_clients_apart(), for_all("store_private", lacks)),
            (
                is_on(overrides.store_no_store) && !self.tells_clients_apart(),
                for_all("store_no_store", lacks),
            ),
            (
                is_on(overrides.store_authorized)
                    && !self.keys_field("authorization")
                    && self.rule.extensions.is_empty(),
                for_all("store_authorized", lacks_authorization),
            ),
            (is_on(overrides.store_set_cookie), Concern::SetCookie),
            (is_fixed && self.rule.forward_unkeyed, Concern::ForwardedAndFixed),
            (is_fixed && self.is_for_every_path(), Concern::FixedEverywhere),
        ]
        .into_iter()
        .filter_map(|(is_so, concern)| is_so.then_some(concern))
        .chain(self.unmentioned_cookies())
        .collect()
    }

    fn is_for_every_path(self) -> bool {
        self.path.is_none_or(|path| path.starts_with("/{*") && path.find('}') == path.len().checked_sub(1))
    }

    fn tells_clients_apart(self) -> bool {
        let has_cookie = self.rule.cookies.as_ref().is_some_and(|names| !names.is_empty());
        has_cookie
            || self.keys_field("authorization")
            || self.keys_field("cookie")
            || !self.rule.extensions.is_empty()
    }

    fn keys_field(self, field: &str) -> bool {
        self.rule.headers.iter().any(|name| name.eq_ignore_ascii_case(field))
    }

    /// A configured lifetime does not apply to requests with cookies that no setting covers.
    fn unmentioned_cookies(self) -> Option<Concern> {
        let overrides = &self.rule.overrides;
        let ttls = [("fixed_ttl", overrides.fixed_ttl), ("default_ttl", overrides.default_ttl)];
        let (setting, _) = ttls.into_iter().find(|(_, ttl)| ttl.is_some())?;
        let is_mentioned = self.rule.cookies.is_some()
            || self.keys_field("cookie")
            || self.all.fields().guard().strips(&header::COOKIE);
        (!is_mentioned).then_some(Concern::UnmentionedCookies(setting))
    }
}
