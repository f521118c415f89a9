//! Checks one rule, and makes of it what is applied.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::Method;

use super::{
    KeyRule, KeyRulesBuilder,
    body::{CONTENT_FIELDS, parse_read},
    compiled::Compiled,
    error::Problem,
    guard::CompiledGuard,
    host::HostPattern,
    no_vary_search::Learned,
    parts::{Extension, KeyParts, parse_cookies, parse_header, parse_prefix},
    pattern::{GAP, PathPattern},
    query::{Name, QueryRules},
    shape::{KeyLayout, QueryShape},
    tags::{Source, TagTemplates},
    template::QueryTemplate,
    when::When,
};
use crate::http::credentials::Keyed;

/// Compiles a rule for one of its paths, or for every path.
pub(super) fn compile(
    index: usize,
    rule: &KeyRule,
    path: Option<&str>,
    guard: &CompiledGuard,
    source: &KeyRulesBuilder,
) -> Result<Compiled, Problem> {
    rule.check_bypass(path)?;
    let loose_path = path.filter(|_| rule.bypass).map(loose_path).transpose()?;
    let id = rule.id(path, &source.ignore_query);
    let (path, mut template) = target(path, rule.ignore_path_case)?;
    rule.check_key(template.is_some())?;
    let ignored = rule.ignored(&source.ignore_query)?;
    if let Some(template) = &mut template {
        // Another path of the rule may have no such parameter.
        let has_one_path = rule.each_path().nth(1).is_none();
        if has_one_path && rule.ignore_query.iter().any(|name| template.has(name)) {
            let reason = "the query of the path has a parameter of this name, and says what it counts";
            return Err(Problem::NoEffect { setting: "ignore_query", reason });
        }
        template.tolerate(ignored.clone(), rule.forward_unkeyed);
    }
    let is_capture = |name: &str| {
        let in_path = path.as_ref().is_some_and(|path| path.names().any(|own| own == name));
        let in_query = template.as_ref().is_some_and(|query| query.names().any(|own| own == name));
        name != GAP && (in_path || in_query)
    };
    let parts = rule.parts(&source.extensions)?;
    let tags = TagTemplates::parse(&rule.tags, |name| rule.source(name, is_capture(name), &parts))?;
    check_guarded(guard, &parts, rule.body.is_some())?;
    let query = rule.query(template.as_ref(), ignored)?;
    let has_gaps = path.as_ref().is_some_and(PathPattern::has_gaps);
    rule.check_body(has_gaps)?;
    rule.check_forwarding(has_gaps, &query, template.as_ref())?;
    let is_whole_uri = !has_gaps && matches!(query, QueryShape::Verbatim);
    let is_default = is_whole_uri && parts.is_empty() && rule.body.is_none() && !rule.ignore_path_case;
    let parse_method = if rule.body.is_some() { parse_read } else { parse_method };
    Ok(Compiled {
        index,
        hosts: rule.hosts.iter().map(|host| HostPattern::parse(host)).collect::<Result<_, _>>()?,
        methods: rule.methods.iter().map(|method| parse_method(method)).collect::<Result<_, _>>()?,
        path,
        template,
        // With a condition it shares no entries with the rules for the other requests.
        shape: ((!is_default || rule.when.is_some()) && !rule.bypass).then(|| KeyLayout { id, query, parts }),
        when: rule.when.as_ref().map(When::compile).transpose()?,
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

impl KeyRule {
    /// How errors call it.
    pub(super) fn label(&self) -> &str {
        self.name.as_deref().or(self.each_path().next().flatten()).unwrap_or("any path")
    }

    /// Each of its paths, or None for every path.
    pub(super) fn each_path(&self) -> impl Iterator<Item = Option<&str>> {
        let every = self.paths.is_none().then_some(None);
        every.into_iter().chain(self.paths.iter().flatten().map(|path| Some(path.as_str())))
    }

    fn query(&self, template: Option<&QueryTemplate>, ignore: Box<[Name]>) -> Result<QueryShape, Problem> {
        let keep = self.keep_query.as_ref().map(|names| names.iter().map(|name| parse_name(name)).collect());
        let rules = QueryRules {
            forwards: false,
            keep: keep.transpose()?,
            ignore,
            sort: self.sort_query,
            drop_empty: self.drop_empty_query,
        };
        Ok(match template {
            Some(_) => QueryShape::Template,
            None if self.no_vary_search => QueryShape::Learned(Learned::new()),
            None if rules == QueryRules::default() => QueryShape::Verbatim,
            None => QueryShape::Rules(QueryRules { forwards: self.forward_unkeyed, ..rules }),
        })
    }

    fn parts(&self, extensions: &[Extension]) -> Result<KeyParts, Problem> {
        let find = |name: &String| {
            let known = extensions.iter().rfind(|extension| *extension.name == **name);
            known.cloned().ok_or_else(|| Problem::Extension(name.as_str().into()))
        };
        let prefixes: Box<[_]> =
            self.headers.iter().filter_map(|name| parse_prefix(name)).collect::<Result<_, _>>()?;
        let names = self.headers.iter().filter(|name| parse_prefix(name).is_none());
        let fields: Box<[_]> = names.map(|name| parse_header(name)).collect::<Result<_, _>>()?;
        let cookies = self.cookies.as_deref().map(parse_cookies).transpose()?;
        Ok(KeyParts {
            keyed: Keyed::with_prefixes(fields, prefixes, cookies),
            extensions: self.extensions.iter().map(find).collect::<Result<_, _>>()?,
        })
    }

    /// What a name in a tag stands for.
    fn source(&self, name: &str, is_capture: bool, parts: &KeyParts) -> Result<Source, Problem> {
        let extension = parts.extensions.iter().find(|extension| *extension.name == *name);
        let mut kept = self.keep_query.iter().flatten().filter_map(|kept| Name::parse(kept));
        let is_kept = kept.any(|kept| kept.resembles(name));
        let sources = [
            is_capture.then(|| Source::Capture(name.into())),
            Source::segment(name),
            is_kept.then(|| Source::Parameter(name.into())),
            extension.cloned().map(Source::Extension),
        ];
        let mut sources = sources.into_iter().flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => Ok(source),
            (Some(_), Some(_)) => Err(Problem::TagSources(name.into())),
            (None, _) => Err(Problem::Tag(name.into())),
        }
    }

    /// Two rules that make keys differently never have the same id, nor have two that could be for requests
    /// whose keys are alike otherwise. Where a rule stands counts for nothing, so that what is stored stays
    /// when others come and go; neither do its hosts, which are in the key, nor its methods, since GET and
    /// HEAD share entries.
    fn id(&self, path: Option<&str>, ignored: &[String]) -> Box<[u8]> {
        let mut hasher = DefaultHasher::new();
        let forwarded = self.forward_unkeyed.then_some((&self.ignore_query, ignored));
        // What a template or the document tolerates besides is neither in the key nor seen by the origin.
        let ignored = self.ignore_query.iter().filter(|_| !path.is_some_and(has_template));
        (path, &self.keep_query, ignored.collect::<Vec<_>>(), forwarded).hash(&mut hasher);
        (self.sort_query, self.drop_empty_query, self.no_vary_search).hash(&mut hasher);
        (&self.headers, &self.cookies, &self.extensions, &self.when).hash(&mut hasher);
        (self.body.is_some(), self.ignore_path_case).hash(&mut hasher);
        #[cfg(feature = "body-key")]
        self.json_body.hash(&mut hasher);
        [&[0], &hasher.finish().to_le_bytes()[..]].concat().into()
    }

    /// Whether another body than the one of the client is in the key.
    fn changes_body(&self) -> bool {
        #[cfg(feature = "body-key")]
        return self.json_body.is_some();
        #[cfg(not(feature = "body-key"))]
        false
    }

    pub(super) fn changes_query(&self) -> bool {
        !self.ignore_query.is_empty() || self.chooses_query()
    }

    /// Whether it says of the query what a template says as well.
    fn chooses_query(&self) -> bool {
        self.keep_query.is_some() || self.sort_query || self.drop_empty_query
    }

    /// The parameters that it ignores, with those of the document unless the rule says of all parameters
    /// what counts.
    fn ignored(&self, common: &[String]) -> Result<Box<[Name]>, Problem> {
        let is_said = self.keep_query.is_some() || self.no_vary_search || self.body.is_some();
        let common = common.iter().filter(|_| !is_said);
        self.ignore_query.iter().chain(common).map(|text| parse_name(text)).collect()
    }

    fn check_key(&self, has_template: bool) -> Result<(), Problem> {
        let [template, keep] =
            ["the query of the path says what is in the key", "only what `keep_query` names is in the key"];
        let whole = "`headers` puts the whole `Cookie` field into the key";
        let said = "what is in the key of its queries is said by the rule, or by the answers";
        let mistakes = [
            (has_template && self.chooses_query(), "keep_query, sort_query or drop_empty_query", template),
            (self.keep_query.is_some() && !self.ignore_query.is_empty(), "ignore_query", keep),
            (self.cookies.is_some() && self.names_cookie_field(), "cookies", whole),
            (self.no_vary_search && (has_template || self.changes_query()), "no_vary_search", said),
        ];
        match mistakes.into_iter().find(|(is_made, ..)| *is_made) {
            Some((_, setting, reason)) => Err(Problem::NoEffect { setting, reason }),
            None => Ok(()),
        }
    }

    fn names_cookie_field(&self) -> bool {
        self.headers.iter().any(|name| name.eq_ignore_ascii_case("cookie"))
    }

    /// A rule that bypasses has conditions, and nothing else. Which parameters a template tolerates is one.
    fn check_bypass(&self, path: Option<&str>) -> Result<(), Problem> {
        if !self.bypass {
            return Ok(());
        }
        let Self { name, hosts, methods, when, paths, bypass, ignore_query, .. } = self.clone();
        let ignore_query = if path.is_some_and(has_template) { ignore_query } else { Vec::new() };
        let conditions = Self { name, hosts, methods, when, paths, bypass, ignore_query, ..Self::default() };
        match *self == conditions {
            true => Ok(()),
            false => {
                let reason = "there is no key and nothing is stored, so that nothing else counts";
                Err(Problem::NoEffect { setting: "bypass", reason })
            }
        }
    }

    fn check_forwarding(
        &self,
        has_path_gaps: bool,
        query: &QueryShape,
        template: Option<&QueryTemplate>,
    ) -> Result<(), Problem> {
        let leaves_out = has_path_gaps
            || matches!(query, QueryShape::Rules(_))
            || template.is_some_and(QueryTemplate::leaves_out)
            || self.changes_body();
        if has_path_gaps && !self.forward_unkeyed {
            return Err(Problem::UnguardedPath);
        }
        let reason = match (leaves_out, self.drop_empty_query) {
            (false, _) => "all of the URI is in the key",
            (true, true) => "`drop_empty_query` is for parameters that the origin does not see",
            (true, false) => return Ok(()),
        };
        match self.forward_unkeyed {
            true => Err(Problem::NoEffect { setting: "forward_unkeyed", reason }),
            false => Ok(()),
        }
    }
}

fn target(
    text: Option<&str>,
    ignores_case: bool,
) -> Result<(Option<PathPattern>, Option<QueryTemplate>), Problem> {
    let Some(text) = text else {
        let reason = "the rule is for every path";
        return match ignores_case {
            true => Err(Problem::NoEffect { setting: "ignore_path_case", reason }),
            false => Ok((None, None)),
        };
    };
    if text.contains('#') {
        return Err(Problem::Path("a request has no fragment: leave out what follows the `#`".into()));
    }
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    let (path, query) =
        (PathPattern::parse(path, ignores_case)?, query.map(QueryTemplate::parse).transpose()?);
    let mut names = query.iter().flat_map(QueryTemplate::names);
    let is_repeated = |name: &&str| *name != GAP && path.names().any(|own| own == *name);
    if let Some(name) = names.find(is_repeated) {
        return Err(Problem::RepeatedCapture(name.into()));
    }
    drop(names);
    Ok((Some(path), query))
}

fn has_template(path: &str) -> bool {
    path.contains('?')
}

fn parse_name(text: &str) -> Result<Name, Problem> {
    Name::parse(text).ok_or_else(|| Problem::Parameter(text.into()))
}

fn loose_path(text: &str) -> Result<PathPattern, Problem> {
    PathPattern::loose(text.split('?').next().unwrap_or(text))
}

/// What is in the key is not removed.
fn check_guarded(guard: &CompiledGuard, parts: &KeyParts, has_body: bool) -> Result<(), Problem> {
    let content = CONTENT_FIELDS.into_iter().filter(|_| has_body);
    if let Some(name) = parts.fields().chain(content).find(|name| guard.removes(name)) {
        return Err(Problem::GuardedHeader(name.as_str().into()));
    }
    match parts.keyed.prefixes().iter().find(|start| guard.removes_any_with(start)) {
        Some(start) => Err(Problem::GuardedHeader(format!("{start}*").into())),
        None => Ok(()),
    }
}

fn parse_method(text: &str) -> Result<Method, Problem> {
    match text {
        "GET" => Ok(Method::GET),
        "HEAD" => Ok(Method::HEAD),
        other => Err(Problem::Method(other.into())),
    }
}
