use std::borrow::Cow;

use http::{HeaderName, uri::Scheme};

use super::{
    KeyRule, KeyRules,
    classes::{Classes, CompiledClasses},
    compiled::CompiledRule,
    error::{Problem, RuleError},
    guard::{CompiledGuard, Guard},
    host::HostPattern,
    layout::Extension,
    negotiation::Negotiation,
    normaliser::FieldNormaliser,
    selection::Selector,
};
use crate::{
    key::{DefaultKey, SameHosts, uri::Authority},
    tags::{Separator, TagFields},
};

/// Key rules before they are checked; see the [module](super).
///
/// With the feature `serde` it can be deserialised, for example from JSON.
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
    /// Adds a rule, for requests that no earlier rule is for.
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

    /// See [`DefaultKey::whole_uri`]. Without the feature `axum`, [`build`](Self::build) requires this.
    pub fn whole_uri(mut self) -> Self {
        self.whole_uri = true;
        self
    }

    /// The content codings that the application supports, in its order of preference. Each `Accept-Encoding` is
    /// reduced to the one that the client prefers, or to `identity`, so there are as many variants as codings.
    /// A field that is invalid, refuses all of them, or has more than 64 members or 1024 bytes stays as it is.
    /// Default: the field stays as it is.
    pub fn accept_encoding<V: Into<String>>(mut self, codings: impl IntoIterator<Item = V>) -> Self {
        self.accept_encoding = Some(codings.into_iter().map(Into::into).collect());
        self
    }

    /// The languages that the application supports. Each `Accept-Language` is reduced to the best match (RFC 4647
    /// §3.4). If nothing matches, the field is removed, and the application uses its default. A field that is
    /// invalid, or has more than 64 members or 1024 bytes, stays as it is. Default: the field stays as it is.
    pub fn accept_language<V: Into<String>>(mut self, languages: impl IntoIterator<Item = V>) -> Self {
        self.accept_language = Some(languages.into_iter().map(Into::into).collect());
        self
    }

    /// Response fields that name [tags](crate::tags), with the separator of their tags, in addition to
    /// `Surrogate-Key` and `Cache-Tag`: for applications that already send tags to another cache. They are
    /// removed from responses like these. In a document:
    /// `"tag_fields": { "xkey": "space", "X-Magento-Tags": "comma" }`. Default: none.
    ///
    /// [`ReadThrough`](crate::ReadThrough) and [`StoreLayer`](crate::StoreLayer) read this setting when they are
    /// built. For a separate [`FillLayer`](crate::FillLayer) set its
    /// [`tag_fields`](crate::FillLayer::tag_fields).
    pub fn tag_fields<N: Into<String>>(mut self, fields: impl IntoIterator<Item = (N, Separator)>) -> Self {
        self.tag_fields.extend(fields.into_iter().map(|(name, separator)| (name.into(), separator)));
        self
    }

    /// Adds classes of a field. Rules that name the field of the class in their [`headers`](KeyRule::headers)
    /// have the class in their keys. Default: none.
    pub fn classes(mut self, classes: Classes) -> Self {
        self.classes.push(classes);
        self
    }

    /// Removes from requests what is not in their keys. Default: it reaches the origin.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Query parameters that no response depends on: they are not in keys and do not reach the origin, and
    /// [templates](KeyRule::path) match with and without them. `utm_*` is a prefix. Default: none.
    ///
    /// This includes requests without a rule. Rules that decide about all parameters
    /// ([`keep_query`](KeyRule::keep_query), [`no_vary_search`](KeyRule::no_vary_search),
    /// [bodies](crate::key#keys-from-bodies)) are not affected, and a template may name such a parameter. Rules
    /// with [`forward_unkeyed`](KeyRule::forward_unkeyed) forward them.
    pub fn ignore_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.ignore_query.extend(names.into_iter().map(Into::into));
        self
    }

    /// These hosts have the same resources: requests for any of them share entries, purges and unsafe requests
    /// for one reach the entries of all, and the origin sees the first host of the group. Requests without a
    /// key, such as writes, keep their host. May be called for several groups. Default: no groups.
    ///
    /// A host is a name like `example.com`, with the default port, or `example.com:8080`. A rule must be for all
    /// hosts of a group or for none.
    pub fn same_hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.same_hosts.push(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// Defines how the value that [`KeyRule::extensions`] calls by this name is read from the extensions of a
    /// request. If `part` returns `None`, or there is no `T`, the request has no key.
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
    /// The error names the rule that cannot work, or that has a setting without effect. A rule with a `body`
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
        let negotiation =
            Negotiation::compile(self.accept_encoding.as_deref(), self.accept_language.as_deref());
        let negotiation = negotiation.map_err(RuleError::of_all)?;
        let tag_fields = self.compile_tag_fields().map_err(RuleError::of_all)?;
        let guard = self.guard.as_ref().map(Guard::compile).transpose().map_err(RuleError::of_all)?;
        let mut guard = guard.unwrap_or_default();
        let rules = self.compile_rules(&guard)?;
        let same_hosts = self.compile_hosts(&rules)?;
        self.check_reachable(&rules)?;
        self.check_bodies(&rules)?;
        let rest = self.compile_rest(&guard).map_err(RuleError::of_all)?;
        let classes = self.compile_classes(&rules, &mut guard)?;
        let mut default_key = DefaultKey::new().namespace(self.namespace.as_str());
        if let Some(scheme) = &self.scheme {
            default_key = default_key.scheme(scheme.clone());
        }
        let (selector, fields) =
            (Selector::new(rules, rest), FieldNormaliser::new(negotiation, classes, guard));
        Ok(KeyRules::new(default_key, same_hosts, selector, fields, tag_fields, self))
    }

    /// Compiles each rule for each of its paths.
    fn compile_rules(&self, guard: &CompiledGuard) -> Result<Box<[CompiledRule]>, RuleError> {
        let of_rule = |(index, rule): (usize, &'_ KeyRule)| {
            let of_path = |path| {
                let label = if rule.name.is_none() { path } else { None }.unwrap_or(rule.label());
                let compiled = CompiledRule::compile(index, rule, path, guard, self);
                compiled.map_err(|problem| RuleError::of_rule(index, label, problem))
            };
            match rule.each_path().next() {
                None => vec![Err(RuleError::of_rule(index, rule.label(), Problem::NoPath))],
                Some(_) => rule.each_path().map(of_path).collect(),
            }
        };
        self.rules.iter().enumerate().flat_map(of_rule).collect()
    }

    /// The groups of hosts, if each rule is for all hosts of a group or for none.
    fn compile_hosts(&self, rules: &[CompiledRule]) -> Result<Option<SameHosts>, RuleError> {
        self.check_hosts().map_err(RuleError::of_all)?;
        for group in &self.same_hosts {
            for rule in rules {
                let of = |host: &str| rule.is_for_host(Authority::new(host.as_bytes(), self.scheme.as_ref()));
                let (ours, others): (Vec<_>, Vec<_>) = group.iter().partition(|host| of(host));
                if let (Some(_), Some(other)) = (ours.first(), others.first()) {
                    return Err(self.error_in(rule, Problem::PartOfSameHosts(other.as_str().into())));
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

    fn error_in(&self, rule: &CompiledRule, problem: Problem) -> RuleError {
        RuleError::of_rule(rule.index(), self.rules[rule.index()].label(), problem)
    }

    /// The rule for requests that no rule is for, if they do not have the default key.
    fn compile_rest(&self, guard: &CompiledGuard) -> Result<Option<CompiledRule>, Problem> {
        let rest = (!self.ignore_query.is_empty())
            .then(|| CompiledRule::compile(self.rules.len(), &KeyRule::any(), None, guard, self));
        rest.transpose()
    }

    /// Compiles the classes, and lets the guard pass what the rules have in their keys.
    fn compile_classes(
        &self,
        rules: &[CompiledRule],
        guard: &mut CompiledGuard,
    ) -> Result<CompiledClasses, RuleError> {
        let layouts = || rules.iter().filter_map(|rule| Some((rule, rule.layout()?.keyed())));
        layouts().for_each(|(_, keyed)| guard.spare(keyed));
        let is_keyed = |name: &HeaderName| layouts().any(|(_, keyed)| keyed.fields().contains(name));
        let classes = CompiledClasses::compile(&self.classes, is_keyed).map_err(RuleError::of_all)?;
        for (rule, keyed) in layouts() {
            let mut replaced = classes.replaced(keyed.fields());
            if let Some(field) = replaced.find(|field| keyed.has(field) || guard.keys(field)) {
                return Err(self.error_in(rule, Problem::Classified { field: field.as_str().into() }));
            }
        }
        Ok(classes)
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

    /// Refuses rules that disagree about what is purged together: requests that share entries of several
    /// queries by their bodies have the identity of their path, and a rule that leaves out parts of a path has
    /// another one.
    fn check_bodies(&self, rules: &[CompiledRule]) -> Result<(), RuleError> {
        for rule in rules.iter().filter(|rule| rule.merges_bodies()) {
            if let Some(other) =
                rules.iter().find(|other| other.has_path_gaps() && other.may_share_path(rule))
            {
                return Err(self.error_in(rule, Problem::BodyGaps(other.index())));
            }
        }
        Ok(())
    }

    /// Refuses rules of which an earlier rule matches all requests.
    fn check_reachable(&self, rules: &[CompiledRule]) -> Result<(), RuleError> {
        let has_bodies = rules.iter().any(|rule| rule.max_body().is_some());
        for (at, rule) in rules.iter().enumerate() {
            let Some(first) = rules[..at].iter().find(|earlier| earlier.covers(rule, has_bodies)) else {
                continue;
            };
            let (index, written) = (rule.index(), &self.rules[rule.index()]);
            let position = rules[..at].iter().filter(|earlier| earlier.index() == index).count();
            let problem = match written.each_path().nth(position).flatten() {
                Some(path) if written.each_path().count() > 1 => {
                    Problem::UnreachablePath { path: path.into(), first: first.index() }
                }
                _ => Problem::Unreachable(first.index()),
            };
            return Err(RuleError::of_rule(index, written.label(), problem));
        }
        Ok(())
    }
}

#[cfg(test)]
impl KeyRulesBuilder {
    /// The settings in the table of [defaults](crate::defaults).
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::option;
        let guard = option(self.guard.as_ref(), |guard| format!("{guard:?}"));
        let classes = option(self.classes.first(), |classes| format!("{classes:?}"));
        vec![("KeyRulesBuilder::guard", guard), ("KeyRulesBuilder::classes", classes)]
    }
}
