use super::{RuleOverrides, error::Problem, query::ParameterName, when::When};

/// One rule: which requests it is for, what is in their keys, and how responses are stored. See the
/// [module](super).
///
/// What the rule does not set is as it would be without the rule.
/// [`KeyRulesBuilder::build`](super::KeyRulesBuilder::build) checks it.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(from = "super::document::RuleDocument"))]
#[must_use]
pub struct KeyRule {
    pub(super) name: Option<String>,
    pub(super) hosts: Vec<String>,
    pub(super) methods: Vec<String>,
    pub(super) when: Option<When>,
    /// None: every path.
    pub(super) paths: Option<Vec<String>>,
    pub(super) ignore_path_case: bool,
    pub(super) keep_query: Option<Vec<String>>,
    pub(super) ignore_query: Vec<String>,
    pub(super) sort_query: bool,
    pub(super) drop_empty_query: bool,
    pub(super) no_vary_search: bool,
    pub(super) headers: Vec<String>,
    pub(super) cookies: Option<Vec<String>>,
    pub(super) extensions: Vec<String>,
    pub(super) forward_unkeyed: bool,
    pub(super) body: Option<usize>,
    #[cfg(feature = "body-key")]
    pub(super) graphql: bool,
    #[cfg(feature = "body-key")]
    pub(super) persisted_queries: Vec<String>,
    #[cfg(feature = "body-key")]
    pub(super) json_body: Option<super::JsonBody>,
    pub(super) bypass: bool,
    pub(super) tags: Vec<String>,
    pub(super) overrides: RuleOverrides,
}

impl KeyRule {
    /// A rule for every path.
    pub fn any() -> Self {
        Self::default()
    }

    /// A rule for the paths of a pattern in the syntax of axum: `/user/{id}`, `/assets/{*rest}`.
    ///
    /// A segment may have text after its capture (`/images/{name}.jpg`, `/{*rest}.css`), and
    /// `/account/{**rest}` matches `/account`, `/account/` and all paths below. Text matches in any encoding:
    /// `/café/{id}` is the same pattern as `/caf%C3%A9/{id}`, and `,` is the same as `%2C`.
    ///
    /// The path is in the key as the client wrote it, unless the pattern has a `{_}` or `{*_}`: then only the
    /// named captures are.
    ///
    /// A pattern may end with a query template, `/get_fprod.php?uid={_}&pid={pid}&sid={_}`. It matches queries
    /// with exactly these parameters, each once and in any order. `{_}` leaves a parameter out of the key, and
    /// one without braces must have this value; if it is spelled differently, it is in the key.
    pub fn path(pattern: impl Into<String>) -> Self {
        Self::paths([pattern])
    }

    /// A rule for the paths of any of these [patterns](Self::path). In a document, `path` is one pattern or a
    /// list.
    ///
    /// The rule is the same as one rule for each pattern, so a [tag](Self::tags) can name only captures that
    /// all patterns have.
    pub fn paths<P: Into<String>>(patterns: impl IntoIterator<Item = P>) -> Self {
        Self { paths: Some(strings(patterns)), ..Self::default() }
    }

    /// Matches paths without regard to the case of ASCII letters. Purges by URL and unsafe requests reach the
    /// entries for a path in any case.
    ///
    /// Keys hold paths as they are written, so each spelling has entries of its own. Purges by prefix or pattern
    /// of the path reach one spelling, and purges by tag reach all. Default: case counts, except in rules that
    /// bypass.
    pub fn ignore_path_case(mut self) -> Self {
        self.ignore_path_case = true;
        self
    }

    /// What errors and warnings call the rule. Default: its first path.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only for this host: `example.com` with any port, `example.com:8080`, or `*.example.com` for all hosts
    /// below. May be called for several hosts. Default: every host.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Only for this method, GET or HEAD, or in a rule with a [`body`](super::super#keys-from-bodies) GET, POST
    /// or QUERY. May be called for several methods. Default: GET and HEAD.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.methods.push(method.into());
        self
    }

    /// Only for requests that meet these [conditions](super#conditions). In a document:
    /// `"when": { "cookies": ["wordpress_logged_in_*"] }`. Default: no conditions.
    ///
    /// If servers could differ about a condition, a rule that bypasses is for the request, and any other rule
    /// leaves it without a key ([`AmbiguousCondition`](crate::Unkeyed::AmbiguousCondition)).
    pub fn when(mut self, when: When) -> Self {
        self.when = Some(when);
        self
    }

    /// Only these query parameters are in the key. `filter_*` is a prefix. Names that some framework could take
    /// for one of them (in another case, `a.b` for `a_b`, `a[]` for `a`) are in the key as well. An empty list
    /// leaves the query out of the key.
    pub fn keep_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.keep_query = Some(strings(names));
        self
    }

    /// All query parameters except these are in the key. `utm_*` is a prefix.
    pub fn ignore_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.ignore_query.extend(strings(names));
        self
    }

    /// The order of query parameters does not count, except among parameters of the same name, and in queries
    /// of more than 256 parameters in the key.
    pub fn sort_query(mut self) -> Self {
        self.sort_query = true;
        self
    }

    /// Query parameters with an empty value (`a=`) are not in the key, unless the query has another one of the
    /// same name with a value. A name alone (`?debug`) is in the key.
    pub fn drop_empty_query(mut self) -> Self {
        self.drop_empty_query = true;
        self
    }

    /// Responses name the parameters that they do not depend on in `No-Vary-Search`. A purge of one URI of such
    /// a path reaches all its queries.
    pub fn no_vary_search(mut self) -> Self {
        self.no_vary_search = true;
        self
    }

    /// These header fields are in the key with all their values, whether or not `Vary` names them.
    /// `x-tenant-*` is a prefix. A field that carries a [class](super::Classes) is in the key with the class.
    ///
    /// `Authorization`, `Cookie` or another [credential](crate::Rules::credentials) in the key has an entry for
    /// each of its values, so it does not prevent responses from being stored.
    pub fn headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.headers.extend(strings(names));
        self
    }

    /// Only these cookies are in the key and reach the origin. `wordpress_*` is a prefix. This replaces
    /// [`Rules::cookies`](crate::Rules::cookies). With an empty list (`"cookies": []` in a document), all
    /// clients share a response whatever cookies they have.
    pub fn cookies<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.cookies = Some(strings(names));
        self
    }

    /// These values from the request's extensions are in the key, such as the tenant that authentication in
    /// front has found. [`extension`](super::KeyRulesBuilder::extension) defines how they are read. A request
    /// that lacks one has no key.
    pub fn extensions<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.extensions.extend(strings(names));
        self
    }

    /// Query parameters and parts of the path that are not in the key reach the origin. **Its responses must
    /// not show them**, since they are stored for all clients. Default: such parameters are removed from the
    /// request, and the others arrive in the order of the key; a path with such a part is refused.
    ///
    /// A query in which a forwarded parameter could hide one that is in the key (more than 256 parameters, an
    /// encoded `&` or `;`) is in the key whole.
    pub fn forward_unkeyed(mut self) -> Self {
        self.forward_unkeyed = true;
        self
    }

    /// The requests are reads, and their responses depend on their bodies. The body, of at most `max_bytes` (up to
    /// 1 MiB), is in the key, together with the method and all of the path. The settings about the query,
    /// fields, cookies and extensions work as for GET. The [`method`](Self::method) is POST, QUERY, GET or
    /// several of them; for GET, the rule is only for requests with a body.
    ///
    /// If such a rule leaves out a part of the query, a purge or an unsafe request for one query of a path
    /// reaches the entries for all its queries.
    ///
    /// **A rule that treats a write as a read breaks the application**: the second of two equal orders would
    /// get the response to the first, and be lost. See [`key`](crate::key#keys-from-bodies).
    #[cfg(feature = "body-key")]
    pub fn body(mut self, max_bytes: usize) -> Self {
        self.body = Some(max_bytes);
        self
    }

    /// The [`body`](Self::body) is a GraphQL request, or a list of them, as JSON. It is a read only if every
    /// operation in all its documents is a `query`, whatever `operationName` selects.
    ///
    /// Any other request has no key, and invalidates the entries for the URI as an unsafe method does
    /// (RFC 9111 §4.4): a mutation, a subscription, and a body that is longer than the limit or ambiguous. A body
    /// is ambiguous if servers may find different ends of a string or comment in its document, if a member is
    /// repeated or is none of `query`, `operationName`, `variables`, `extensions` (with `persistedQuery` and
    /// `clientLibrary`), `id` and `documentId`, if its `Content-Type` is not `application/json`, or if the query
    /// of the URI has a parameter with one of these names.
    ///
    /// A `query` has no side effects by the specification (GraphQL §6.2.1); do not use this for an application
    /// in which queries have some. Responses with `errors` are stored like others, since their status is 200.
    #[cfg(feature = "body-key")]
    pub fn graphql(mut self) -> Self {
        self.graphql = true;
        self
    }

    /// Persisted queries that clients of [`graphql`](Self::graphql) name instead of sending a document, by a
    /// SHA-256 hash in `extensions.persistedQuery`, or by `id` or `documentId`. Names are compared as written.
    /// Default: none, so a request without a document is not a read.
    #[cfg(feature = "body-key")]
    pub fn persisted_queries<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.persisted_queries.extend(strings(names));
        self
    }

    /// The normal form of the JSON in the [`body`](Self::body), or of a part of it, is in the key instead of its
    /// bytes, and is what the origin gets. See [`JsonBody`](super::JsonBody).
    ///
    /// With [`forward_unkeyed`](Self::forward_unkeyed), the origin gets the original body. **Its responses must
    /// not show what is left out of the key.**
    #[cfg(feature = "body-key")]
    pub fn json_body(mut self, body: super::JsonBody) -> Self {
        self.json_body = Some(body);
        self
    }

    /// The requests have no key: they go to the origin, and nothing is stored.
    pub fn bypass(mut self) -> Self {
        self.bypass = true;
        self
    }

    /// Gives the responses [tags](crate::tags). In a tag, `{id}` is the value of this capture of the path,
    /// parameter of [`keep_query`](Self::keep_query), or one of the [`extensions`](Self::extensions), and
    /// `{path.2}` is the second segment of the path (1 to 32). Values are decoded, except white space and
    /// commas, which tags cannot have.
    ///
    /// A parameter with several values, counting those of parameters that some server may take for it, gives a
    /// tag for each value. A tag is left out if the request lacks a value in it.
    ///
    /// ```
    /// use tower_readthrough::{KeyRule, KeyRules};
    ///
    /// let list = KeyRule::path("/list").keep_query(["pid", "page"]).tags(["product-{pid}", "lists"]);
    /// let files = KeyRule::path("/files/{*name}").tags(["folder-{path.2}"]);
    /// assert!(KeyRules::builder().rule(list).rule(files).build().is_ok());
    /// ```
    pub fn tags<N: Into<String>>(mut self, tags: impl IntoIterator<Item = N>) -> Self {
        self.tags.extend(strings(tags));
        self
    }

    /// What errors and warnings call the rule.
    pub(super) fn label(&self) -> &str {
        self.name.as_deref().or(self.each_path().next().flatten()).unwrap_or("any path")
    }

    /// Each of its paths, or `None` for every path.
    pub(super) fn each_path(&self) -> impl Iterator<Item = Option<&str>> {
        let every = self.paths.is_none().then_some(None);
        every.into_iter().chain(self.paths.iter().flatten().map(|path| Some(path.as_str())))
    }

    /// The parameters that do not count: its own, and those of the document unless the rule decides about all
    /// parameters.
    pub(super) fn ignored(&self, common: &[String]) -> Result<Box<[ParameterName]>, Problem> {
        let decides_all = self.keep_query.is_some() || self.no_vary_search || self.body.is_some();
        let common = common.iter().filter(|_| !decides_all);
        self.ignore_query.iter().chain(common).map(|text| ParameterName::parse(text)).collect()
    }

    pub(super) fn check_key(&self, has_template: bool) -> Result<(), Problem> {
        let template = "the query of the path says what is in the key";
        let keep = "only the parameters of `keep_query` are in the key";
        let whole = "`headers` puts the whole `Cookie` field into the key";
        let decided = "the rule or `No-Vary-Search` decides what is in the key of the query, not both";
        let changes_query = !self.ignore_query.is_empty() || self.chooses_query();
        let names_cookie_field = self.headers.iter().any(|name| name.eq_ignore_ascii_case("cookie"));
        let mistakes = [
            (has_template && self.chooses_query(), "keep_query, sort_query or drop_empty_query", template),
            (self.keep_query.is_some() && !self.ignore_query.is_empty(), "ignore_query", keep),
            (self.cookies.is_some() && names_cookie_field, "cookies", whole),
            (self.no_vary_search && (has_template || changes_query), "no_vary_search", decided),
        ];
        match mistakes.into_iter().find(|(is_made, ..)| *is_made) {
            Some((_, setting, reason)) => Err(Problem::NoEffect { setting, reason }),
            None => Ok(()),
        }
    }

    /// Whether it has settings about the query that a template makes pointless.
    fn chooses_query(&self) -> bool {
        self.keep_query.is_some() || self.sort_query || self.drop_empty_query
    }

    /// Refuses what has no effect in a rule that bypasses: anything but conditions, and the parameters that a
    /// template tolerates.
    pub(super) fn check_bypass(&self, path: Option<&str>) -> Result<(), Problem> {
        if !self.bypass {
            return Ok(());
        }
        let Self { name, hosts, methods, when, paths, bypass, ignore_query, .. } = self.clone();
        let has_template = path.is_some_and(|path| path.contains('?'));
        let ignore_query = if has_template { ignore_query } else { Vec::new() };
        let conditions = Self { name, hosts, methods, when, paths, bypass, ignore_query, ..Self::default() };
        match *self == conditions {
            true => Ok(()),
            false => {
                let reason = "a rule that bypasses has no key and stores nothing; remove its other settings";
                Err(Problem::NoEffect { setting: "bypass", reason })
            }
        }
    }

    pub(super) fn check_forwarding(
        &self,
        has_path_gaps: bool,
        leaves_out_parameters: bool,
    ) -> Result<(), Problem> {
        let leaves_out = has_path_gaps || leaves_out_parameters || self.changes_body();
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

    /// Whether the key holds another body than that of the client.
    fn changes_body(&self) -> bool {
        #[cfg(feature = "body-key")]
        return self.json_body.is_some();
        #[cfg(not(feature = "body-key"))]
        false
    }
}

fn strings<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}
