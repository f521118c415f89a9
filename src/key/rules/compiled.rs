//! A rule that has been checked and can be applied.

use http::{Method, Uri};

use super::{
    KeyRule, KeyRulesBuilder, RuleOverrides, body,
    condition::Holds,
    error::Problem,
    guard::CompiledGuard,
    host::HostPattern,
    layout::KeyLayout,
    pattern::{GAP, PathCaptures, PathPattern},
    query,
    tags::{TagTemplates, ValueSource},
    template::{QueryCaptures, QueryTemplate},
    when::{CompiledWhen, Facts},
};
use crate::key::uri::Authority;

/// What rules compare of a request, in addition to their conditions.
#[derive(Clone, Copy)]
pub(super) struct RequestLine<'h> {
    authority: Authority<'h>,
    method: &'h Method,
    target: &'h Uri,
}

impl<'h> RequestLine<'h> {
    pub(super) fn new(authority: Authority<'h>, method: &'h Method, target: &'h Uri) -> Self {
        Self { authority, method, target }
    }

    pub(super) fn target(self) -> &'h Uri {
        self.target
    }
}

/// A rule for one of its paths, or for every path.
#[derive(Debug)]
pub(super) struct CompiledRule {
    /// The position of the rule among those that were written.
    index: usize,
    /// Empty: every host.
    hosts: Box<[HostPattern]>,
    /// Empty: GET and HEAD, or every method if the rule bypasses.
    methods: Box<[Method]>,
    /// None: every path.
    path: Option<PathPattern>,
    /// None: every query.
    template: Option<QueryTemplate>,
    /// None: every request.
    when: Option<CompiledWhen>,
    /// None: the default key.
    layout: Option<KeyLayout>,
    is_bypass: bool,
    /// The path of a rule that bypasses, for servers that read paths loosely.
    loose_path: Option<PathPattern>,
    /// How many bytes of a body are read for the key, if the body is in the key.
    max_body: Option<usize>,
    #[cfg(feature = "body-key")]
    reading: Option<std::sync::Arc<crate::key::Reading>>,
    forwards_unkeyed: bool,
    overrides: Option<RuleOverrides>,
    tags: TagTemplates,
}

impl CompiledRule {
    /// Compiles a rule for one of its paths, or for every path.
    pub(super) fn compile(
        index: usize,
        rule: &KeyRule,
        path: Option<&str>,
        guard: &CompiledGuard,
        source: &KeyRulesBuilder,
    ) -> Result<Self, Problem> {
        rule.check_bypass(path)?;
        let loose_path = path.filter(|_| rule.bypass).map(loose_path).transpose()?;
        let ignored = rule.ignored(&source.ignore_query)?;
        let (pattern, template) = parse_target(rule, path, &ignored)?;
        let layout = KeyLayout::compile(rule, path, template.as_ref(), ignored, source)?;
        let tags = TagTemplates::parse(&rule.tags, |name| {
            value_source(rule, name, is_capture(name, pattern.as_ref(), template.as_ref()), &layout)
        })?;
        layout.check_guard(guard, rule.body.is_some())?;
        let has_gaps = pattern.as_ref().is_some_and(PathPattern::has_gaps);
        rule.check_body(has_gaps)?;
        let leaves_out_parameters =
            layout.chooses_parameters() || template.as_ref().is_some_and(QueryTemplate::leaves_out);
        rule.check_forwarding(has_gaps, leaves_out_parameters)?;
        let is_default = !has_gaps && layout.has_whole_query() && layout.has_only_uri();
        let is_default = is_default && rule.body.is_none() && !rule.ignore_path_case;
        let parse_method = if rule.body.is_some() { body::parse_read } else { parse_method };
        Ok(Self {
            index,
            hosts: rule.hosts.iter().map(|host| HostPattern::parse(host)).collect::<Result<_, _>>()?,
            methods: rule.methods.iter().map(|method| parse_method(method)).collect::<Result<_, _>>()?,
            path: pattern,
            template,
            // A rule with a condition shares no entries with the rules for the other requests.
            layout: ((!is_default || rule.when.is_some()) && !rule.bypass).then_some(layout),
            when: rule.when.as_ref().map(|when| when.compile()).transpose()?,
            is_bypass: rule.bypass,
            loose_path,
            max_body: rule.body,
            #[cfg(feature = "body-key")]
            reading: rule.reading()?,
            forwards_unkeyed: rule.forward_unkeyed,
            overrides: rule.overrides.checked()?,
            tags,
        })
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn is_bypass(&self) -> bool {
        self.is_bypass
    }

    pub(super) fn layout(&self) -> Option<&KeyLayout> {
        self.layout.as_ref()
    }

    pub(super) fn path(&self) -> Option<&PathPattern> {
        self.path.as_ref()
    }

    pub(super) fn loose_path(&self) -> Option<&PathPattern> {
        self.loose_path.as_ref()
    }

    /// The most bytes of a body in a key, if bodies are in the keys of the rule.
    pub(super) fn max_body(&self) -> Option<usize> {
        self.max_body
    }

    #[cfg(feature = "body-key")]
    pub(super) fn reading(&self) -> Option<std::sync::Arc<crate::key::Reading>> {
        self.reading.clone()
    }

    pub(super) fn forwards_unkeyed(&self) -> bool {
        self.forwards_unkeyed
    }

    pub(super) fn overrides(&self) -> Option<RuleOverrides> {
        self.overrides.clone()
    }

    pub(super) fn tags(&self) -> &TagTemplates {
        &self.tags
    }

    pub(super) fn is_conditional(&self) -> bool {
        self.when.is_some()
    }

    pub(super) fn ignores_path_case(&self) -> bool {
        self.path.as_ref().is_some_and(PathPattern::ignores_case)
    }

    /// Whether a part of the path is not in the key.
    pub(super) fn has_path_gaps(&self) -> bool {
        self.path.as_ref().is_some_and(PathPattern::has_gaps)
    }

    /// Matches a request if its path is read like this, except for the conditions of the rule.
    pub(super) fn find<'r, 'h>(&'r self, request: RequestLine<'h>, path: &'h str) -> Option<Match<'r, 'h>> {
        if self.is_for(request.method) { self.at(request.authority, path, request.target) } else { None }
    }

    /// Like [`find`](Self::find), for any method.
    pub(super) fn at<'r, 'h>(
        &'r self,
        authority: Authority<'_>,
        path: &'h str,
        target: &'h Uri,
    ) -> Option<Match<'r, 'h>> {
        if !self.is_for_host(authority) {
            return None;
        }
        let path = match &self.path {
            Some(pattern) => Some(pattern.at(path)?),
            None => None,
        };
        Some(Match { rule: self, target, path, query: self.query_at(target)? })
    }

    /// The match of a rule that bypasses, which captures nothing.
    pub(super) fn bypass_match<'r, 'h>(&'r self, target: &'h Uri) -> Match<'r, 'h> {
        Match { rule: self, target, path: None, query: None }
    }

    /// Whether the rule bypasses a request if some servers read its path like `loosened`.
    pub(super) fn bypasses(&self, request: RequestLine<'_>, loosened: &str) -> bool {
        self.loose_path.as_ref().is_some_and(|pattern| pattern.at(loosened).is_some())
            && self.is_for(request.method)
            && self.is_for_host(request.authority)
            && self.query_at(request.target).is_some()
    }

    /// Whether the rule has a template for this path, whatever query it asks for.
    pub(super) fn is_for_another_query(&self, request: RequestLine<'_>) -> bool {
        let path = request.target.path();
        self.template.is_some()
            && !self.is_bypass
            && self.path.as_ref().is_some_and(|pattern| pattern.at(path).is_some())
            && self.is_for(request.method)
            && self.is_for_host(request.authority)
    }

    /// Whether its conditions hold.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> Holds {
        self.when.as_ref().map_or(Holds::Yes, |when| facts.hold(self.index, when))
    }

    pub(super) fn is_for_host(&self, authority: Authority<'_>) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|host| host.is(authority))
    }

    pub(super) fn is_for(&self, method: &Method) -> bool {
        match self.methods.is_empty() {
            true => self.is_bypass || matches!(*method, Method::GET | Method::HEAD),
            false => {
                let bypasses = self.is_bypass && body::is_get_with_body(method);
                self.methods.contains(method) || bypasses && self.methods.contains(&Method::GET)
            }
        }
    }

    /// What the template captures of a query, if there is a template. `None`: the query does not match.
    fn query_at<'h>(&self, target: &'h Uri) -> Option<Option<QueryCaptures<'h>>> {
        match &self.template {
            Some(template) => template.at(target.query()?).map(Some),
            None => Some(None),
        }
    }

    /// Whether its keys hold a body, and not all of the URI.
    pub(super) fn merges_bodies(&self) -> bool {
        let is_whole = self.layout.as_ref().is_none_or(KeyLayout::has_whole_query);
        self.max_body.is_some() && (self.ignores_path_case() || !is_whole)
    }

    /// Whether it [merges bodies](Self::merges_bodies) and is for this path with any query.
    pub(super) fn merges_bodies_at(&self, authority: Authority<'_>, path: &str) -> bool {
        self.merges_bodies()
            && self.is_for_host(authority)
            && self.path.as_ref().is_none_or(|pattern| pattern.at(path).is_some())
    }
}

/// How rules relate to each other.
impl CompiledRule {
    /// Whether this rule is for all requests that the other one is for. Where no rule reads bodies, only
    /// GET and HEAD matter.
    pub(super) fn covers(&self, other: &Self, has_bodies: bool) -> bool {
        self.covers_methods(other, has_bodies)
            && self.covers_hosts(other)
            && covers_option(&self.when, &other.when, CompiledWhen::covers)
            && covers_option(&self.path, &other.path, PathPattern::covers)
            && covers_option(&self.template, &other.template, QueryTemplate::covers)
    }

    /// Whether some host and path may be those of both rules.
    pub(super) fn may_share_path(&self, other: &Self) -> bool {
        let is_same = |own: &HostPattern| other.hosts.iter().any(|host| own.covers(host) || host.covers(own));
        let is_host = self.hosts.is_empty() || other.hosts.is_empty() || self.hosts.iter().any(is_same);
        is_host
            && match (&self.path, &other.path) {
                (Some(ours), Some(theirs)) => ours.meets(theirs),
                _ => true,
            }
    }

    /// Whether both rules are for some request, by their hosts, methods, paths and conditions.
    pub(super) fn may_share_request(&self, other: &Self) -> bool {
        let are_conditions = match (&self.when, &other.when) {
            (Some(ours), Some(theirs)) => !ours.excludes(theirs),
            _ => true,
        };
        let is_any_method = self.methods.is_empty() || other.methods.is_empty();
        self.may_share_path(other)
            && are_conditions
            && (is_any_method || self.methods.iter().any(|method| other.methods.contains(method)))
    }

    /// Whether its path covers that of the other rule and more.
    pub(super) fn has_wider_path_than(&self, other: &Self) -> bool {
        match (&self.path, &other.path) {
            (None, Some(_)) => true,
            (Some(ours), Some(theirs)) => ours.covers(theirs) && !theirs.covers(ours),
            _ => false,
        }
    }

    fn covers_hosts(&self, other: &Self) -> bool {
        let is_covered = |host| self.hosts.iter().any(|own| own.covers(host));
        self.hosts.is_empty() || !other.hosts.is_empty() && other.hosts.iter().all(is_covered)
    }

    fn covers_methods(&self, other: &Self, has_bodies: bool) -> bool {
        if self.is_bypass && self.methods.is_empty() {
            return true;
        }
        let default = [Method::GET, Method::HEAD];
        let methods = |rule: &Self| match rule.methods.is_empty() {
            true => default.to_vec(),
            false => rule.methods.to_vec(),
        };
        let (ours, is_all) = (methods(self), has_bodies && other.is_bypass && other.methods.is_empty());
        !is_all && methods(other).iter().all(|method| ours.contains(method))
    }
}

/// Whether one setting covers another one, where `None` covers everything.
fn covers_option<T>(ours: &Option<T>, theirs: &Option<T>, covers: impl FnOnce(&T, &T) -> bool) -> bool {
    match (ours, theirs) {
        (None, _) => true,
        (Some(ours), Some(theirs)) => covers(ours, theirs),
        (Some(_), None) => false,
    }
}

/// A request that a rule is for.
pub(super) struct Match<'r, 'h> {
    rule: &'r CompiledRule,
    target: &'h Uri,
    path: Option<PathCaptures<'r, 'h>>,
    query: Option<QueryCaptures<'h>>,
}

impl<'r, 'h> Match<'r, 'h> {
    pub(super) fn rule(&self) -> &'r CompiledRule {
        self.rule
    }

    pub(super) fn target(&self) -> &'h Uri {
        self.target
    }

    /// What of the path is in the key: all of it, or its captures.
    pub(super) fn keyed_path(&self) -> impl Iterator<Item = &'h str> {
        let captures = self.path.as_ref().filter(|_| self.rule.has_path_gaps());
        let whole = captures.is_none().then(|| self.target.path());
        whole.into_iter().chain(captures.into_iter().flat_map(PathCaptures::keyed))
    }

    /// The path, if only captures are in the key and it does not have the literals of the pattern in their
    /// expected spelling.
    pub(super) fn unusual_spelling(&self) -> Option<&'h str> {
        let captures = self.path.as_ref().filter(|_| self.rule.has_path_gaps())?;
        (!captures.has_expected_spelling()).then(|| self.target.path())
    }

    /// What of the query is in the key, by the rule's template.
    pub(super) fn keyed_parameters(&self) -> Option<query::Parameters<'h>> {
        let (template, captures) = (self.rule.template.as_ref()?, self.query.as_ref()?);
        let mut keyed = template.keyed(captures);
        keyed.extend(template.misspelt(captures));
        Some(keyed)
    }

    /// What of the query the origin sees, by the rule's template.
    pub(super) fn forwarded_parameters(&self) -> Option<query::Parameters<'h>> {
        Some(self.rule.template.as_ref()?.forwarded(self.query.as_ref()?))
    }

    /// The value of a capture, decoded where that is possible.
    pub(super) fn capture(&self, name: &str) -> Option<String> {
        let in_path = self.path.as_ref().and_then(|captures| captures.get(name));
        if let Some(value) = in_path {
            return Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned());
        }
        let value = self.rule.template.as_ref()?.capture(self.query.as_ref()?, name)?;
        Some(query::decode(value).map_or_else(|| value.to_owned(), Into::into))
    }
}

/// The pattern of a path and the template of its query.
fn parse_target(
    rule: &KeyRule,
    text: Option<&str>,
    ignored: &[query::ParameterName],
) -> Result<(Option<PathPattern>, Option<QueryTemplate>), Problem> {
    let Some(text) = text else {
        rule.check_key(false)?;
        let reason = "the rule is for every path";
        return match rule.ignore_path_case {
            true => Err(Problem::NoEffect { setting: "ignore_path_case", reason }),
            false => Ok((None, None)),
        };
    };
    if text.contains('#') {
        return Err(Problem::Path("requests have no fragment; remove the `#` and what follows it".into()));
    }
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    let path = PathPattern::parse(path, rule.ignore_path_case)?;
    let mut template = query.map(QueryTemplate::parse).transpose()?;
    let mut names = template.iter().flat_map(QueryTemplate::names);
    if let Some(name) = names.find(|name| *name != GAP && path.names().any(|own| own == *name)) {
        return Err(Problem::RepeatedCapture(name.into()));
    }
    drop(names);
    rule.check_key(template.is_some())?;
    if let Some(template) = &mut template {
        // Another path of the rule may have no such parameter.
        let has_one_path = rule.each_path().nth(1).is_none();
        if has_one_path && rule.ignore_query.iter().any(|name| template.has(name)) {
            let reason = "the query of the path has a parameter of this name";
            return Err(Problem::NoEffect { setting: "ignore_query", reason });
        }
        template.tolerate(ignored.into(), rule.forward_unkeyed);
    }
    Ok((Some(path), template))
}

fn loose_path(text: &str) -> Result<PathPattern, Problem> {
    PathPattern::loose(text.split('?').next().unwrap_or(text))
}

fn is_capture(name: &str, path: Option<&PathPattern>, template: Option<&QueryTemplate>) -> bool {
    let in_path = path.is_some_and(|path| path.names().any(|own| own == name));
    let in_query = template.is_some_and(|query| query.names().any(|own| own == name));
    name != GAP && (in_path || in_query)
}

/// What a name in a tag stands for.
fn value_source(
    rule: &KeyRule,
    name: &str,
    is_capture: bool,
    layout: &KeyLayout,
) -> Result<ValueSource, Problem> {
    let mut kept = rule.keep_query.iter().flatten().filter_map(|kept| query::ParameterName::parse(kept).ok());
    let is_kept = kept.any(|kept| kept.resembles(name));
    let sources = [
        is_capture.then(|| ValueSource::Capture(name.into())),
        ValueSource::segment(name),
        is_kept.then(|| ValueSource::Parameter(name.into())),
        layout.extension(name).cloned().map(ValueSource::Extension),
    ];
    let mut sources = sources.into_iter().flatten();
    match (sources.next(), sources.next()) {
        (Some(source), None) => Ok(source),
        (Some(_), Some(_)) => Err(Problem::TagSources(name.into())),
        (None, _) => Err(Problem::Tag(name.into())),
    }
}

fn parse_method(text: &str) -> Result<Method, Problem> {
    match text {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        other => Err(Problem::Method(other.into())),
    }
}
