use std::fmt;

/// What a set of key rules says that works, and is probably not meant; see
/// [`KeyRules::check`](super::super::KeyRules::check).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleWarning {
    index: usize,
    rule: Box<str>,
    concern: Concern,
}

impl RuleWarning {
    pub(super) fn new(index: usize, rule: &str, concern: Concern) -> Self {
        Self { index, rule: rule.into(), concern }
    }

    /// The position of the rule, from 0 on.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The name of the rule, or its path if it has none.
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
pub(super) enum Concern {
    #[error(
        "it is never reached: the rules before it match all that it does, one this host or method, one that"
    )]
    Unreachable,
    #[error(
        "rule {0} (`{1}`) takes some of its requests, although its path says less: put it before that one"
    )]
    Shadowed(usize, Box<str>),
    #[error("rule {0} (`{1}`) takes some of the requests that this one bypasses: put it before that one")]
    BypassTooLate(usize, Box<str>),
    #[error("`{0}` is not bypassed, only what is below it: write `{0}/{{**rest}}` for both")]
    RootNotBypassed(Box<str>),
    #[error("rule {0} has the same name, so that errors and tables cannot tell them apart")]
    SameName(usize),
    #[error("it is for every host, and other rules say which hosts they are for: give it a `host`")]
    NoHost,
    #[error(
        "`{0}` in the key gives each of its values an entry of its own, and clients send many: let the origin \
         say `Vary`, or key on less"
    )]
    ManyValues(Box<str>),
    #[error(
        "the cookie `{0}` looks like that of a session: each client gets entries of its own; to store nothing \
         for clients that have it, bypass them"
    )]
    SessionCookie(Box<str>),
    #[error("it takes every POST to many paths for a read, and one that writes is lost: name each path")]
    ManyReads,
    #[error(
        "browsers send cookies, and by `{0}` alone nothing is stored for them: say which `cookies` count, `[]` \
         for none, unless `Rules::cookies` does"
    )]
    CookiesUnsaid(&'static str),
    #[error(
        "`forward_unkeyed` with `fixed_ttl`: what the origin makes of one client's parameters is stored for all, \
         and no response can prevent it"
    )]
    ForwardedAndFixed,
    #[error(
        "`fixed_ttl` for every path: what its origin marked `no-cache` or `max-age=0` is stored as well; give \
         the rule a path, or say `default_ttl`"
    )]
    FixedEverywhere,
    #[error(
        "`{setting}` gives what was made for one client to all that share its entry, and the key holds {lacks}"
    )]
    ForAll { setting: &'static str, lacks: &'static str },
    #[error(
        "`store_set_cookie` gives the cookie of one client to all that share its entry: `store_without` with \
         `set-cookie` stores the response without it"
    )]
    SetCookie,
}
