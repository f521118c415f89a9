//! What works, and is probably not meant.

mod keys;
mod reach;
mod storing;
mod warning;

pub use self::warning::RuleWarning;

use self::warning::Concern;
use super::{KeyRule, KeyRules, compiled::Compiled};

/// A rule among the others, for one of its paths.
#[derive(Clone, Copy)]
struct Place<'r> {
    all: &'r KeyRules,
    index: usize,
    rule: &'r KeyRule,
    path: Option<&'r str>,
    compiled: &'r Compiled,
}

impl KeyRules {
    /// What works, and is probably not meant: rules that others leave nothing or little for, storing what
    /// is for one client, keys with as many values as there are clients, and the like.
    ///
    /// The rules are not changed and serve as they are. What cannot work is an error of
    /// [`build`](super::KeyRulesBuilder::build). The warnings are in the order of the rules; an empty list
    /// does not say that the rules are right, which a [table](crate::rule_table) of requests can.
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
    ///         "key rule 0 (`/shop/{*rest}`): the cookie `PHPSESSID` looks like that of a session: each client \
    ///          gets entries of its own; to store nothing for clients that have it, bypass them",
    ///         "key rule 1 (`/{country}/account`): rule 0 (`/shop/{*rest}`) takes some of the requests that this \
    ///          one bypasses: put it before that one",
    ///     ],
    /// );
    /// # Ok::<(), tower_readthrough::RuleError>(())
    /// ```
    pub fn check(&self) -> Vec<RuleWarning> {
        let mut warnings: Vec<RuleWarning> = self.places().flat_map(Place::warnings).collect();
        // Paths of one rule share most of what is said.
        warnings.dedup();
        warnings
    }

    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let rules = self.source().rules.iter().enumerate();
        let written = rules.flat_map(|(index, rule)| rule.each_path().map(move |path| (index, rule, path)));
        let place = |((index, rule, path), compiled)| Place { all: self, index, rule, path, compiled };
        written.zip(self.rules()).map(place)
    }
}

impl Place<'_> {
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
        self.all.places().take_while(move |other| other.index < self.index)
    }

    fn concern_with(self, concern: impl FnOnce(usize, Box<str>) -> Concern) -> Concern {
        concern(self.index, self.rule.label().into())
    }
}
