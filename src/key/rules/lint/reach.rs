//! Rules that get none or not all of the requests that they are for.

use super::{
    super::{
        compile::compile,
        coverage::{covers_path, meet},
        host::HostPattern,
    },
    Concern, KeyRule, Place,
};

impl Place<'_> {
    pub(super) fn reach(self) -> Vec<Concern> {
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

    /// Whether several rules before this one leave nothing for it, which none of them does alone.
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
        let Ok(part) = compile(self.index, part, self.path, self.all.guard(), self.all.source()) else {
            return false;
        };
        let has_bodies = self.all.rules().iter().any(|rule| rule.max_body.is_some());
        self.earlier().any(|other| other.compiled.covers(&part, has_bodies))
    }

    /// Whether an earlier rule takes requests that are rather for this one.
    fn is_shadowed_by(self, earlier: Self) -> bool {
        if earlier.rule.bypass || !self.meets(earlier) {
            return false;
        }
        match self.rule.bypass {
            // One that is for all that the other is for and more is for what is left over.
            true => !self.compiled.covers(earlier.compiled, true),
            false => earlier.has_wider_path_than(self),
        }
    }

    fn has_wider_path_than(self, other: Self) -> bool {
        let is_wider = |ours, theirs| covers_path(ours, theirs) && !covers_path(theirs, ours);
        match (&self.compiled.path, &other.compiled.path) {
            (None, Some(_)) => true,
            (Some(ours), Some(theirs)) => is_wider(ours, theirs),
            _ => false,
        }
    }

    /// Whether both are for some request, as far as host, method, path and conditions go.
    fn meets(self, other: Self) -> bool {
        let is_same_host = |own: &HostPattern| {
            other.compiled.hosts.iter().any(|their| own.covers(their) || their.covers(own))
        };
        let (hosts, methods) = (&self.compiled.hosts, &self.compiled.methods);
        let are_paths = match (&self.compiled.path, &other.compiled.path) {
            (Some(ours), Some(theirs)) => meet(ours, theirs),
            _ => true,
        };
        let are_conditions = match (&self.compiled.when, &other.compiled.when) {
            (Some(ours), Some(theirs)) => !ours.excludes(theirs),
            _ => true,
        };
        let is_any_host = hosts.is_empty() || other.compiled.hosts.is_empty();
        let is_any_method = methods.is_empty() || other.compiled.methods.is_empty();
        are_paths
            && are_conditions
            && (is_any_host || hosts.iter().any(is_same_host))
            && (is_any_method || methods.iter().any(|method| other.compiled.methods.contains(method)))
    }

    /// `/account` beside `/account/{*rest}`.
    fn root_not_bypassed(self) -> Option<Concern> {
        let path = self.path.filter(|_| self.rule.bypass)?;
        let (root, rest) = path.split_once("/{*")?;
        if root.is_empty() || root.contains(['{', '}', '?']) || !rest.ends_with('}') {
            return None;
        }
        let is_bypassed = self.all.rules().iter().any(|rule| {
            rule.is_bypass
                && match &rule.loose_path {
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
