use std::borrow::Cow;

use http::{HeaderName, uri::Scheme};

use super::{
    KeyRule, KeyRules,
    classes::{Classes, CompiledClasses},
    compile::compile,
    compiled::Compiled,
    error::{Problem, RuleError},
    extractor::{Bypasses, Inner},
    guard::{CompiledGuard, Guard},
    host::HostPattern,
    index::Index,
    negotiation::{Negotiation, parse_values},
    parts::Extension,
    pattern::PathPattern,
};
use crate::{
    key::{DefaultKey, SameHosts, normal::Authority},
    tags::{Separator, TagFields},
};

/// Key rules as they are written, before they are checked; see the [module](super).
///
/// With the feature `serde` it can be deserialised, from JSON for example.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "super::document::RulesDocument"))]
#[must_use]
pub struct KeyRulesBuilder {
    pub(super) namespace: String,
    pub(super) scheme: Option<Scheme>,
    pub(super) whole_uri: bool,
    pub(super) accept_encoding: Option<Vec<String>>,
    pub(super) accept_language: Option<Vec<String>>,
    pub(super) classes: Vec<Classes>,
    pub(super) guard: Option<Guard>,
    pub(super) tag_fields: Vec<(String, Separator)>,
    pub(super) ignore_query: Vec<String>,
    pub(super) same_hosts: Vec<Vec<String>>,
    pub(super) rules: Vec<KeyRule>,
    pub(super) extensions: Vec<Extension>,
}

impl KeyRulesBuilder {
    /// Adds a rule, for the requests that none before it is for.
    pub fn rule(mut self, rule: KeyRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// See [`DefaultKey::namespace`].
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// See [`DefaultKey::scheme`].
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// See [`DefaultKey::whole_uri`]. Without the feature `axum`, [`build`](Self::build) refuses rules that
    /// do not state it.
    pub fn whole_uri(mut self) -> Self {
        self.whole_uri = true;
        self
    }

    /// The content codings that the application has, in its order of preference. Of each
    /// `Accept-Encoding` the one that the client likes best is left, or `identity`, so that there
    /// are as many variants as codings. One that cannot be read, or refuses all of them, stays;
    /// so does one with more than 64 members or 1024 bytes, which the origin and `Vary` then see as it
    /// is written. Default: the field stays as it is.
    pub fn accept_encoding<V: Into<String>>(mut self, codings: impl IntoIterator<Item = V>) -> Self {
        self.accept_encoding = Some(codings.into_iter().map(Into::into).collect());
        self
    }

    /// The languages that the application speaks. Of each `Accept-Language` the one is left that
    /// the client understands best (RFC 4647 §3.4); where there is none the field is removed, and
    /// the application takes its default. One that cannot be read stays; so does one with
    /// more than 64 members or 1024 bytes, which the origin and `Vary` then see as it is written.
    /// Default: the field stays as it is.
    pub fn accept_language<V: Into<String>>(mut self, languages: impl IntoIterator<Item = V>) -> Self {
        self.accept_language = Some(languages.into_iter().map(Into::into).collect());
        self
    }

    /// Fields of responses that name [tags](crate::tags), beside `Surrogate-Key` and `Cache-Tag`, with what
    /// stands between their tags: those of other caches, which the application sends already. They are
    /// removed from responses as those are. In a document:
    /// `"tag_fields": { "xkey": "space", "X-Magento-Tags": "comma" }`. Default: none.
    ///
    /// They count when a [`ReadThrough`](crate::ReadThrough) or [`StoreLayer`](crate::StoreLayer) is built;
    /// tell a [`FillLayer`](crate::FillLayer) of your own [itself](crate::FillLayer::tag_fields).
    pub fn tag_fields<N: Into<String>>(mut self, fields: impl IntoIterator<Item = (N, Separator)>) -> Self {
        self.tag_fields.extend(fields.into_iter().map(|(name, separator)| (name.into(), separator)));
        self
    }

    /// Adds classes of a field, which the rules have in their keys that name the field of the class in
    /// their [`headers`](KeyRule::headers). Default: none.
    pub fn classes(mut self, classes: Classes) -> Self {
        self.classes.push(classes);
        self
    }

    /// Removes from requests what their keys do not show. Default: it reaches the origin.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// These query parameters count for no request: they are not in keys and do not reach the origin, and
    /// [templates](KeyRule::path) match with and without them. `utm_*` stands for all that begin so. Default:
    /// none.
    ///
    /// That holds for requests without a rule as well, but not for rules that say of all parameters what
    /// counts ([`keep_query`](KeyRule::keep_query), [`no_vary_search`](KeyRule::no_vary_search),
    /// [bodies](crate::key#keys-from-bodies)), and a template may name such a parameter itself. A rule with
    /// [`forward_unkeyed`](KeyRule::forward_unkeyed) passes them on.
    pub fn ignore_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.ignore_query.extend(names.into_iter().map(Into::into));
        self
    }

    /// These hosts have the same resources: requests for any of them share entries, purges and unsafe
    /// requests for one reach what is stored for all, and the origin sees the first one in their place.
    /// Requests without a key, such as those by which something is changed, keep their host. May be called
    /// for several groups. Default: each host has its own.
    ///
    /// A host is a name like `example.com`, which has the default port, or `example.com:8080`. A rule that
    /// is for one of them is for all: it names each, or none.
    pub fn same_hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.same_hosts.push(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Says how to read what [`KeyRule::extensions`] calls by this name from the extensions of a
    /// request. Where it gives nothing, or there is no `T`, the request has no key.
    ///
    /// ```
    /// use tower_readthrough::{KeyRule, KeyRules};
    ///
    /// #[derive(Clone)]
    /// struct Tenant(String);
    ///
    /// let rules = KeyRules::builder()
    ///     .rule(KeyRule::path("/reports/{id}").extensions(["tenant"]))
    ///     .extension("tenant", |tenant: &Tenant| Some(tenant.0.as_bytes().into()))
    ///     .build()?;
    /// # drop(rules);
    /// # Ok::<(), tower_readthrough::RuleError>(())
    /// ```
    pub fn extension<T, F>(mut self, name: impl Into<String>, part: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn(&T) -> Option<Cow<'_, [u8]>> + Send + Sync + 'static,
    {
        self.extensions.push(Extension::new(name.into().into(), part));
        self
    }

    /// Checks and compiles the rules.
    ///
    /// # Errors
    ///
    /// Names the rule that cannot work, or that has a setting without effect. One with a `body`
    /// needs a [layer of its own](crate::key#keys-from-bodies), and is refused here.
    pub fn build(self) -> Result<KeyRules, RuleError> {
        if let Some((index, rule)) = self.rules.iter().enumerate().find(|(_, rule)| rule.body.is_some()) {
            return Err(RuleError::of_rule(index, rule.label(), Problem::BodyLayer));
        }
        self.compile()
    }

    pub(crate) fn compile(self) -> Result<KeyRules, RuleError> {
        if !(cfg!(feature = "axum") || self.whole_uri) {
            return Err(RuleError::of_all(Problem::CutUri));
        }
        let negotiation = self.negotiation().map_err(RuleError::of_all)?;
        let tag_fields = self.compile_tag_fields().map_err(RuleError::of_all)?;
        let guard = self.guard.as_ref().map(Guard::compile).transpose().map_err(RuleError::of_all)?;
        let mut guard = guard.unwrap_or_default();
        let rules = self.compile_rules(&guard)?;
        let same_hosts = self.compile_hosts(&rules)?;
        self.check_reachable(&rules)?;
        self.check_bodies(&rules)?;
        let rest = self.compile_rest(&guard).map_err(RuleError::of_all)?;
        let keyed = || rules.iter().filter_map(|rule| Some(&rule.shape.as_ref()?.parts.keyed));
        keyed().for_each(|keyed| guard.spare(keyed));
        let classes = CompiledClasses::compile(&self.classes, |name| {
            keyed().any(|keyed| keyed.fields().contains(name))
        });
        let classes = classes.map_err(RuleError::of_all)?;
        self.check_classes(&classes, &rules, &guard)?;
        let mut default_key = DefaultKey::new().namespace(self.namespace.as_str());
        if let Some(scheme) = &self.scheme {
            default_key = default_key.scheme(scheme.clone());
        }
        let merges_bodies = rules.iter().any(Compiled::merges_bodies);
        let has_paths = rules.iter().any(|rule| rule.path.is_some());
        let has_conditions = rules.iter().any(|rule| rule.when.is_some());
        let has_bodies = self.rules.iter().any(|rule| rule.body.is_some());
        let loose = rules
            .iter()
            .enumerate()
            .filter_map(|(rule, compiled)| compiled.loose_path.as_ref().map(|path| (rule, path.prefix())));
        let (bypasses, prefixes): (Vec<usize>, Vec<&[u8]>) = loose.unzip();
        let bypasses = Bypasses { index: Index::new(prefixes), rules: bypasses.into() };
        let index =
            Index::new(rules.iter().map(|rule| rule.path.as_ref().map_or(&[][..], PathPattern::prefix)));
        let inner = Inner {
            default_key,
            same_hosts,
            rules,
            rest,
            index,
            bypasses,
            has_paths,
            has_bodies,
            merges_bodies,
            has_conditions,
            negotiation,
            classes,
            guard,
            tag_fields,
            source: self,
        };
        Ok(KeyRules::new(inner))
    }

    /// Each rule for each of its paths.
    fn compile_rules(&self, guard: &CompiledGuard) -> Result<Box<[Compiled]>, RuleError> {
        let of_rule = |(index, rule): (usize, &'_ KeyRule)| {
            let of_path = |path| {
                let label = if rule.name.is_none() { path } else { None }.unwrap_or(rule.label());
                let compiled = compile(index, rule, path, guard, self);
                compiled.map_err(|problem| RuleError::of_rule(index, label, problem))
            };
            match rule.each_path().next() {
                None => vec![Err(RuleError::of_rule(index, rule.label(), Problem::NoPath))],
                Some(_) => rule.each_path().map(of_path).collect(),
            }
        };
        self.rules.iter().enumerate().flat_map(of_rule).collect()
    }

    /// The hosts that are one, each of which the rules treat like the others.
    fn compile_hosts(&self, rules: &[Compiled]) -> Result<Option<SameHosts>, RuleError> {
        self.check_hosts().map_err(RuleError::of_all)?;
        for group in &self.same_hosts {
            for rule in rules {
                let of = |host: &str| rule.is_for_host(Authority::new(host.as_bytes(), self.scheme.as_ref()));
                let (ours, others): (Vec<_>, Vec<_>) = group.iter().partition(|host| of(host));
                if let (Some(_), Some(other)) = (ours.first(), others.first()) {
                    let problem = Problem::PartOfSameHosts(other.as_str().into());
                    return Err(RuleError::of_rule(rule.index, self.rules[rule.index].label(), problem));
                }
            }
        }
        let hosts = || SameHosts::new(&self.same_hosts, self.scheme.as_ref());
        Ok((!self.same_hosts.is_empty()).then(hosts))
    }

    fn check_hosts(&self) -> Result<(), Problem> {
        let mut known: Vec<String> = Vec::new();
        for host in self.same_hosts.iter().flatten() {
            if HostPattern::parse(host).is_err() || host.starts_with('*') {
                return Err(Problem::Host(host.as_str().into()));
            }
            let lower = host.to_ascii_lowercase();
            if known.contains(&lower) {
                return Err(Problem::RepeatedHost(lower.into()));
            }
            known.push(lower);
        }
        let is_alone = |group: &Vec<String>| group.len() < 2;
        if self.same_hosts.iter().any(is_alone) { Err(Problem::OneHost) } else { Ok(()) }
    }

    /// What holds for requests that no rule is for, if that is not the default key.
    fn compile_rest(&self, guard: &CompiledGuard) -> Result<Option<Compiled>, Problem> {
        let rest = (!self.ignore_query.is_empty())
            .then(|| compile(self.rules.len(), &KeyRule::any(), None, guard, self));
        rest.transpose()
    }

    /// What is classified and removed is not in the key.
    fn check_classes(
        &self,
        classes: &CompiledClasses,
        rules: &[Compiled],
        guard: &CompiledGuard,
    ) -> Result<(), RuleError> {
        for rule in rules {
            let Some(keyed) = rule.shape.as_ref().map(|shape| &shape.parts.keyed) else { continue };
            if let Some(field) =
                classes.replaced(keyed.fields()).find(|field| keyed.has(field) || guard.keys(field))
            {
                let problem = Problem::Classified { field: field.as_str().into() };
                return Err(RuleError::of_rule(rule.index, self.rules[rule.index].label(), problem));
            }
        }
        Ok(())
    }

    fn negotiation(&self) -> Result<Negotiation, Problem> {
        // `de_DE` is how programs name a locale, and never in a request (RFC 5646 §2.1).
        if let Some(tag) = self.accept_language.iter().flatten().find(|tag| tag.contains('_')) {
            return Err(Problem::Language(tag.as_str().into()));
        }
        let parse = |values: &Option<Vec<String>>, problem| {
            values.as_deref().map(|values| parse_values(values, problem)).transpose()
        };
        Ok(Negotiation {
            encodings: parse(&self.accept_encoding, Problem::Coding)?,
            languages: parse(&self.accept_language, Problem::Language)?,
        })
    }

    fn compile_tag_fields(&self) -> Result<TagFields, Problem> {
        let parse = |(text, separator): &(String, Separator)| {
            let name = HeaderName::from_bytes(text.as_bytes()).ok();
            name.map(|name| (name, *separator)).ok_or_else(|| Problem::TagField(text.as_str().into()))
        };
        let fields: TagFields = self.tag_fields.iter().map(parse).collect::<Result<_, _>>()?;
        match fields.invalid() {
            Some(name) => Err(Problem::TagField(name.as_str().into())),
            None => Ok(fields),
        }
    }

    /// What is purged and invalidated together at a path is known by the path where bodies share entries of
    /// several queries, and by a part of it where a rule leaves parts out: not both.
    fn check_bodies(&self, rules: &[Compiled]) -> Result<(), RuleError> {
        for rule in rules.iter().filter(|rule| rule.merges_bodies()) {
            if let Some(other) = rules.iter().find(|other| other.has_path_gaps() && other.may_meet(rule)) {
                let label = self.rules[rule.index].label();
                return Err(RuleError::of_rule(rule.index, label, Problem::BodyGaps(other.index)));
            }
        }
        Ok(())
    }

    /// The first rule that matches wins: one whose requests another one before it is for as well is
    /// never reached.
    fn check_reachable(&self, rules: &[Compiled]) -> Result<(), RuleError> {
        let has_bodies = rules.iter().any(|rule| rule.max_body.is_some());
        for (at, rule) in rules.iter().enumerate() {
            let Some(first) = rules[..at].iter().find(|earlier| earlier.covers(rule, has_bodies)) else {
                continue;
            };
            let (index, written) = (rule.index, &self.rules[rule.index]);
            let position = rules[..at].iter().filter(|earlier| earlier.index == index).count();
            let problem = match written.each_path().nth(position).flatten() {
                Some(path) if written.each_path().count() > 1 => {
                    Problem::UnreachablePath { path: path.into(), first: first.index }
                }
                _ => Problem::Unreachable(first.index),
            };
            return Err(RuleError::of_rule(index, written.label(), problem));
        }
        Ok(())
    }
}

#[cfg(test)]
impl KeyRulesBuilder {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::option;
        let guard = option(self.guard.as_ref(), |guard| format!("{guard:?}"));
        let classes = option(self.classes.first(), |classes| format!("{classes:?}"));
        vec![("KeyRulesBuilder::guard", guard), ("KeyRulesBuilder::classes", classes)]
    }
}
