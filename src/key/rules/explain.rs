//! What rules do, in words.

use std::fmt;

use super::{KeyRule, KeyRules, KeyRulesBuilder};

/// What one rule matches, keys, stores and purges, in words; see [`KeyRules::explain`].
///
/// `Display` writes several lines for people. The wording may change in any version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSummary {
    /// The position and the name of a rule, or else the requests that it is about.
    about: Result<(usize, String), &'static str>,
    lines: Vec<(&'static str, String)>,
}

impl RuleSummary {
    /// The position of the rule, from 0. `None` if the summary is about requests that no rule is for, or about
    /// all requests.
    pub fn index(&self) -> Option<usize> {
        self.about.as_ref().ok().map(|(index, _)| *index)
    }

    /// The name of the rule, or its path if it has no name.
    pub fn rule(&self) -> Option<&str> {
        self.about.as_ref().ok().map(|(_, rule)| rule.as_str())
    }
}

impl fmt::Display for RuleSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.about {
            Ok((index, rule)) => write!(f, "rule {index} `{rule}`")?,
            Err(requests) => f.write_str(requests)?,
        }
        self.lines.iter().try_for_each(|(heading, text)| write!(f, "\n  {heading:<8}{text}"))
    }
}

impl KeyRules {
    /// Describes what each rule matches, keys, stores and purges, for review. Summaries of the requests that no
    /// rule is for, and of settings for all requests if there are any, follow.
    ///
    /// ```
    /// use tower_readthrough::{KeyRule, KeyRules};
    ///
    /// let rules = KeyRules::builder().rule(KeyRule::path("/product").keep_query(["pid"]).cookies([])).build()?;
    /// assert_eq!(
    ///     rules.explain()[0].to_string(),
    ///     "rule 0 `/product`\n  \
    ///        for     GET and HEAD /product\n  \
    ///        keys    host, path; of the query pid\n  \
    ///        removes other query parameters, all cookies\n  \
    ///        stores  for as long as the response says\n  \
    ///        purges  by URL (all URLs with the same host, path, pid), by prefix or pattern of the path, by host, \
    ///        by the tags of the response",
    /// );
    /// # Ok::<(), tower_readthrough::RuleError>(())
    /// ```
    pub fn explain(&self) -> Vec<RuleSummary> {
        let source = self.source();
        let rules = source.rules.iter().enumerate();
        let summaries = rules.map(|(index, rule)| RuleSummary {
            about: Ok((index, rule.label().to_owned())),
            lines: rule.lines(),
        });
        let others = RuleSummary {
            about: Err("all other requests"),
            lines: vec![
                ("keys", "scheme, host, path, query".into()),
                ("stores", "for as long as the response says".into()),
                (
                    "purges",
                    "by URL, by prefix or pattern of the path, by host, by the tags of the response".into(),
                ),
            ],
        };
        let common = RuleSummary { about: Err("all requests that have a key"), lines: source.common_lines() };
        let common = Some(common).filter(|common| !common.lines.is_empty());
        summaries.chain([others]).chain(common).collect()
    }
}

impl KeyRulesBuilder {
    /// The settings for all requests that have a key.
    fn common_lines(&self) -> Vec<(&'static str, String)> {
        let Self { namespace, scheme, whole_uri, accept_encoding, accept_language, .. } = self;
        let Self { guard, classes, ignore_query, tag_fields, .. } = self;
        let mut lines = Vec::new();
        if !namespace.is_empty() {
            lines.push(("keys", format!("`{namespace}` first")));
        }
        lines.extend(scheme.iter().map(|scheme| ("keys", format!("{scheme} as the scheme of all requests"))));
        lines.extend(whole_uri.then(|| ("keys", "paths as they arrive at the cache".into())));
        for (field, values) in [("Accept-Encoding", accept_encoding), ("Accept-Language", accept_language)] {
            let chosen = |values: &Vec<String>| ("chooses", format!("{field} of {}", values.join(", ")));
            lines.extend(values.as_ref().map(chosen));
        }
        lines.extend(
            self.same_hosts.iter().map(|group| ("hosts", format!("{} are the same", group.join(" and ")))),
        );
        lines.extend(classes.iter().map(|classes| ("classes", classes.in_words())));
        if !ignore_query.is_empty() {
            let names = ignore_query.join(", ");
            lines.push(("removes", format!("the query parameters {names}")));
        }
        lines.extend(guard.as_ref().map(|guard| ("guards", guard.in_words())));
        let fields: Vec<_> = tag_fields.iter().map(|(name, _)| name.as_str()).collect();
        lines.extend((!fields.is_empty()).then(|| ("purges", format!("by tags in {}", fields.join(", ")))));
        lines
    }
}

impl KeyRule {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("for", self.matched())];
        if self.bypass {
            lines.push(("keys", "nothing: requests go to the origin, and nothing is stored".into()));
            return lines;
        }
        lines.push(("keys", self.keyed()));
        lines.extend(self.removed().map(|removed| ("removes", removed)));
        lines.push(("stores", self.overrides.in_words()));
        lines.push(("purges", self.purged()));
        lines
    }

    fn matched(&self) -> String {
        let methods = match self.methods.is_empty() {
            true if self.bypass => "all methods".into(),
            true => "GET and HEAD".into(),
            false => self.methods.join(" and "),
        };
        let paths: Vec<_> = self.each_path().map(|path| path.unwrap_or("any path")).collect();
        let path = paths.join(" or ");
        let loosely = match () {
            () if self.bypass && self.paths.is_some() => {
                " in any case, with or without a trailing slash or an extension"
            }
            () if self.ignore_path_case => " in any case",
            () => "",
        };
        let hosts = match self.hosts.is_empty() {
            true => String::new(),
            false => format!(" at {}", self.hosts.join(" or ")),
        };
        let when = self.when.as_ref().map(|when| format!(" if it has {}", when.in_words()));
        format!("{methods} {path}{loosely}{hosts}{}", when.unwrap_or_default())
    }

    fn keyed(&self) -> String {
        let mut parts = vec![format!("host, {}", self.keyed_uri())];
        if !self.headers.is_empty() {
            parts.push(format!("the fields {}", self.headers.join(", ")));
        }
        if let Some(cookies) = self.cookies.as_ref().filter(|cookies| !cookies.is_empty()) {
            parts.push(format!("the cookies {}", cookies.join(", ")));
        }
        if !self.extensions.is_empty() {
            parts.push(format!("the extensions {}", self.extensions.join(", ")));
        }
        if let Some(max_bytes) = self.body {
            parts.push(format!("{} of at most {max_bytes} bytes", self.keyed_body()));
        }
        parts.join("; ")
    }

    #[cfg(feature = "body-key")]
    fn keyed_body(&self) -> String {
        let form = if self.json_body.is_some() { "the normal form of the JSON body" } else { "the body" };
        match (self.graphql, self.persisted_queries.len()) {
            (false, _) => form.into(),
            (true, 0) => format!("{form}, if it is a GraphQL query,"),
            (true, known) => format!("{form}, if it is a GraphQL query or one of {known} persisted ones,"),
        }
    }

    #[cfg(not(feature = "body-key"))]
    fn keyed_body(&self) -> String {
        "the body".into()
    }

    fn keyed_uri(&self) -> String {
        let mut paths = self.each_path().flatten().map(|path| path.split('?').next().unwrap_or(path));
        let path = match paths.any(|path| ["{_}", "{*_}", "{**_}"].iter().any(|gap| path.contains(gap))) {
            true => "the named parts of the path",
            false => "path",
        };
        let query = match (&self.keep_query, self.template_names()) {
            (_, Some(names)) => format!("of the query {}", listed(names.iter().copied())),
            (Some(keep), _) => format!("of the query {}", listed(keep.iter().map(String::as_str))),
            (None, _) if self.no_vary_search => {
                "what `No-Vary-Search` of the response leaves of the query".into()
            }
            (None, _) if !self.ignore_query.is_empty() => {
                format!("the query without {}", self.ignore_query.join(", "))
            }
            (None, _) => "query".into(),
        };
        let empty = if self.drop_empty_query { " without empty parameters" } else { "" };
        let sorted = if self.sort_query { " in any order" } else { "" };
        let joined = if query == "query" { ", " } else { "; " };
        format!("{path}{joined}{query}{empty}{sorted}")
    }

    /// The parameters of a template that are in the key.
    fn template_names(&self) -> Option<Vec<&str>> {
        let queries = self.each_path().flatten().filter_map(|path| path.split_once('?'));
        let pairs = queries.map(|(_, query)| query.split('&').filter_map(|pair| pair.split_once('=')));
        let keyed = pairs.map(|pairs| pairs.filter(|(_, value)| value.starts_with('{') && *value != "{_}"));
        keyed.map(|pairs| pairs.map(|(name, _)| name).collect()).reduce(|mut all: Vec<_>, more: Vec<_>| {
            all.extend(more);
            all
        })
    }

    fn removed(&self) -> Option<String> {
        let has_template = self.template_names().is_some();
        let leaves_out = has_template || self.keep_query.is_some() || !self.ignore_query.is_empty();
        let query = match () {
            () if !leaves_out => None,
            () if self.forward_unkeyed => {
                return Some(
                    self.removed_cookies()
                        .unwrap_or("nothing: what is not in the key reaches the origin")
                        .into(),
                );
            }
            () if self.ignore_query.is_empty() => Some("other query parameters".to_owned()),
            () => Some(format!("the query parameters {}", self.ignore_query.join(", "))),
        };
        let removed: Vec<_> = query.into_iter().chain(self.removed_cookies().map(String::from)).collect();
        (!removed.is_empty()).then(|| removed.join(", "))
    }

    fn removed_cookies(&self) -> Option<&'static str> {
        let cookies = self.cookies.as_ref()?;
        Some(if cookies.is_empty() { "all cookies" } else { "other cookies" })
    }

    fn purged(&self) -> String {
        let same = match (&self.keep_query, self.template_names()) {
            (_, Some(names)) => Some(listed(names.iter().copied())),
            (Some(keep), _) => Some(listed(keep.iter().map(String::as_str))),
            _ => None,
        };
        let urls = match same {
            Some(same) => format!(" (all URLs with the same host, path, {same})"),
            None if self.no_vary_search => " (with all queries)".into(),
            None if !self.ignore_query.is_empty() => {
                format!(" (all URLs that differ in {} alone)", self.ignore_query.join(", "))
            }
            None => String::new(),
        };
        let own = match self.tags.is_empty() {
            true => String::new(),
            false => format!("{} and ", self.tags.join(", ")),
        };
        format!("by URL{urls}, by prefix or pattern of the path, by host, by the tags {own}of the response")
    }
}

fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    match names.len() {
        0 => "nothing".into(),
        _ => names.collect::<Vec<_>>().join(", "),
    }
}
