use super::{overrides::RuleOverrides, when::When};

/// One rule: which requests it is for, what of them is in the key, and how their answers are
/// stored. See the [module](super).
///
/// Everything that it does not mention is as it would be without the rule. A rule is checked when
/// [`KeyRulesBuilder::build`](super::KeyRulesBuilder::build) compiles it.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(from = "super::document::RuleDocument"))]
#[must_use]
pub struct KeyRule {
    pub(super) name: Option<String>,
    pub(super) hosts: Vec<String>,
    pub(super) methods: Vec<String>,
    /// None: every path.
    pub(super) when: Option<When>,
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
    /// A segment may go on after its capture (`/images/{name}.jpg`, `/{*rest}.css`), and `/account/{**rest}`
    /// is for `/account` and `/account/` as well as for all below. Text matches however it is encoded:
    /// `/café/{id}` is the same pattern as `/caf%C3%A9/{id}`, and `,` the same as `%2C`.
    ///
    /// The path is in the key as the client wrote it, unless the pattern has a `{_}` or `{*_}`:
    /// that part is not in the key, and of the rest the named captures are.
    ///
    /// A pattern may go on with a query, `/get_fprod.php?uid={_}&pid={pid}&sid={_}`. It matches
    /// requests with exactly these parameters, each once and in any order; `{_}` leaves one out of
    /// the key, and one without braces must have that value: spelt in another way, it is in the
    /// key. Any other query does not match.
    pub fn path(pattern: impl Into<String>) -> Self {
        Self::paths([pattern])
    }

    /// A rule for the paths of any of these [patterns](Self::path). In a document `path` is one pattern or
    /// a list.
    ///
    /// The rule stands for as many rules, one for each pattern: a [tag](Self::tags) can name only captures
    /// that all of them have.
    pub fn paths<P: Into<String>>(patterns: impl IntoIterator<Item = P>) -> Self {
        Self { paths: Some(strings(patterns)), ..Self::default() }
    }

    /// The case of ASCII letters does not count where the paths are compared with those of the rule, and a
    /// purge of a URL or an unsafe request reaches what is stored for a path in any case. Keys hold paths as
    /// they are written, so that each spelling has an entry of its own; purges by prefix and by pattern of the
    /// path are about one spelling, and a tag reaches all. Default: case counts, but for rules that
    /// bypass, which are for every case anyway.
    pub fn ignore_path_case(mut self) -> Self {
        self.ignore_path_case = true;
        self
    }

    /// How errors call the rule. Default: its path, or the first of them.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only for this host: `example.com` with any port, `example.com:8080`, or all below
    /// `*.example.com`. More than one may be given. Default: every host.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Only for this method, GET or HEAD: others have no key, but for rules with a
    /// [`body`](super::super#keys-from-bodies). Default: both.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.methods.push(method.into());
        self
    }

    /// Only for requests of which these [conditions](super#conditions) hold. In a document:
    /// `"when": { "cookies": ["wordpress_logged_in_*"] }`. Default: no condition.
    ///
    /// A rule that bypasses is also for requests of which servers may think so. A request for which
    /// another rule may not be has no key then
    /// ([`AmbiguousCondition`](crate::Unkeyed::AmbiguousCondition)).
    pub fn when(mut self, when: When) -> Self {
        self.when = Some(when);
        self
    }

    /// Only these query parameters are in the key; `filter_*` stands for all that begin so. Names
    /// that some framework could take for one of them (another case, `a.b` for `a_b`, `a[]` for
    /// `a`) are in the key as well. None at all: the query is not in the key.
    pub fn keep_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.keep_query = Some(strings(names));
        self
    }

    /// All query parameters but these are in the key; `utm_*` stands for all that begin so.
    pub fn ignore_query<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.ignore_query.extend(strings(names));
        self
    }

    /// The order of query parameters does not matter, but for several of the same name, and in queries
    /// of more than 256 that count.
    pub fn sort_query(mut self) -> Self {
        self.sort_query = true;
        self
    }

    /// Query parameters with an empty value (`a=`) are not in the key, unless the query has one of the
    /// same name with a value. A name alone (`?debug`) counts.
    pub fn drop_empty_query(mut self) -> Self {
        self.drop_empty_query = true;
        self
    }

    /// Answers say themselves in `No-Vary-Search` which parameters they do not depend on.
    /// Whoever purges one URI of such a path purges all its queries.
    pub fn no_vary_search(mut self) -> Self {
        self.no_vary_search = true;
        self
    }

    /// These header fields are in the key, with all their values, where `Vary` does not say so.
    /// `x-tenant-*` stands for all whose names begin so. One that carries a [class](super::Classes) is in
    /// the key with the class.
    ///
    /// That says all about them: `Authorization`, `Cookie` or another
    /// [credential](crate::Rules::credentials) that is in the key gives each of its values an entry of
    /// its own, and does not keep a response from being stored there.
    pub fn headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.headers.extend(strings(names));
        self
    }

    /// Exactly these cookies (`wordpress_*` stands for all that begin so) are in the key and reach the origin, and the others are removed from the
    /// request; see [`Rules::cookies`](crate::Rules::cookies), in whose place this comes. Without any
    /// name (`"cookies": []` in a document) none is, and all clients share a response whatever cookies
    /// they have.
    pub fn cookies<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.cookies = Some(strings(names));
        self
    }

    /// These values of the request's extensions are in the key, such as the tenant that an
    /// authentication in front found; [`extension`](super::KeyRulesBuilder::extension) says how
    /// to read them. A request that lacks one has no key.
    pub fn extensions<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.extensions.extend(strings(names));
        self
    }

    /// Query parameters and parts of the path that are not in the key reach the origin, which needs
    /// them. **Its responses must not show them**: they are stored for all. Default: such parameters are
    /// removed from the request, and the others arrive in the order of the key; a path with such a part
    /// is refused.
    ///
    /// A query in which a forwarded parameter could hide one that counts (more than 256 parameters, an
    /// encoded `&` or `;`) is in the key whole.
    pub fn forward_unkeyed(mut self) -> Self {
        self.forward_unkeyed = true;
        self
    }

    /// The requests are reads whose answer depends on their body, which may have so many bytes, a
    /// mebibyte at most: it is in the key, with the method and all of the path. What
    /// is in the key of the query, the fields, the cookies and the extensions is said as for GET. The
    /// [`method`](Self::method) is POST, QUERY, GET or several of them; for GET the rule is about requests
    /// with a body alone, and a request without one goes by the rules that have no `body`.
    ///
    /// Where such rules leave out a part of the query, a purge or an unsafe request for one query of a path
    /// reaches what is stored for all queries of it.
    ///
    /// **A rule that takes what writes for a read breaks the application**: the second of two equal
    /// orders would get the answer to the first, and be lost. See
    /// [`key`](crate::key#keys-from-bodies).
    #[cfg(feature = "body-key")]
    pub fn body(mut self, max_bytes: usize) -> Self {
        self.body = Some(max_bytes);
        self
    }

    /// The [`body`](Self::body) is a GraphQL request, or a list of them, as JSON, and the rule takes it for a
    /// read only if every operation in every document of it is a `query`, whatever `operationName` says.
    ///
    /// All else passes without a key, and invalidates what is stored for the URI as an unsafe method does
    /// (RFC 9111 §4.4): a mutation, a subscription, what is longer than the bound or cannot be read without
    /// doubt. That is a document in which servers may find another end of a string or of a comment, a member
    /// twice or one that is none of `query`, `operationName`, `variables`, `extensions` (with
    /// `persistedQuery` and `clientLibrary`), `id` and `documentId`, another `Content-Type` than
    /// `application/json`, and a query of the URI with one of these names.
    ///
    /// A `query` has no side effects by the specification (GraphQL §6.2.1); an application in which one
    /// has must not be read by such a rule. Responses with `errors` are stored as others are, for they
    /// are 200 as well.
    #[cfg(feature = "body-key")]
    pub fn graphql(mut self) -> Self {
        self.graphql = true;
        self
    }

    /// Documents that are queries and that clients of [`graphql`](Self::graphql) name instead of sending
    /// them, by their SHA-256 hash in `extensions.persistedQuery`, or by `id` or `documentId`. They are
    /// compared as they are written. Default: none, and a request without a document is no read.
    #[cfg(feature = "body-key")]
    pub fn persisted_queries<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.persisted_queries.extend(strings(names));
        self
    }

    /// The normal form of the JSON in the [`body`](Self::body) is in the key instead of its bytes, and is
    /// what the origin gets: all of it, or a part. See [`JsonBody`](super::JsonBody).
    ///
    /// With [`forward_unkeyed`](Self::forward_unkeyed) the origin gets the body as it came. **Its responses
    /// must not show what is left out of the key.**
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

    /// Gives the responses [tags](crate::tags). In a tag, `{id}` stands for that capture of the path, for that
    /// parameter of [`keep_query`](Self::keep_query), or for that one of the
    /// [`extensions`](Self::extensions), and `{path.2}` for the second segment of the path, up to the
    /// 32nd. Values are decoded, but for white space and commas, of which tags have none.
    ///
    /// A parameter that a request has several times, or that some server may take for this one, gives a
    /// tag for each of its values. A request that lacks what a tag names does not get this one.
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
}

fn strings<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}
