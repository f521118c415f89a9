//! Rules that put the body of a request into its key.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, util::MapRequest};
use tower_readthrough::{
    BodyKey, CacheStatus, JsonBody, KeyRule, KeyRules, KeyRulesBuilder, MemoryStore, Purge, ReadThrough,
    ReadThroughLayer, RequestBody,
};

use crate::support::{Body, ScriptedOrigin, bytes, fixed, ms, response, store};

type Front = MapRequest<ScriptedOrigin, fn(Request<RequestBody<Body>>) -> Request<Body>>;
type Stack = BodyKey<ReadThrough<Front, MemoryStore, KeyRules>>;

struct Cached {
    stack: Stack,
    origin: ScriptedOrigin,
    purge: Purge,
}

impl Cached {
    /// Over an origin that responds with the number of the call and what it sees of the request.
    fn new(rules: KeyRulesBuilder) -> Self {
        let origin = ScriptedOrigin::with_future(|n, request| async move {
            let (head, body) = request.into_parts();
            let target = head.uri.path_and_query().unwrap().to_string();
            let cookie = head.headers.get("cookie").map_or("", |value| value.to_str().unwrap());
            let length = head.headers.get("content-length").map(|value| value.to_str().unwrap().to_owned());
            let body = body.collect().await.unwrap().to_bytes();
            assert!(length.is_none_or(|length| length == body.len().to_string()));
            let body = String::from_utf8_lossy(&body).into_owned();
            response(&[], format!("{n} {} {target} {body}{cookie}", head.method))
        });
        let bodies = rules.whole_uri().build_with_bodies().unwrap();
        let cache =
            ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
        let purge = cache.purge();
        let front: Front = origin.clone().map_request(|request| request.map(Body::new));
        Self { stack: bodies.layer(cache.layer(front)), origin, purge }
    }

    fn of(rule: KeyRule) -> Self {
        Self::new(KeyRules::builder().rule(rule))
    }

    async fn ask(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> String {
        let body: Bytes = body.into();
        let mut request = Request::builder().method(method).uri(format!("http://h{target}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = self.stack.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        String::from_utf8(bytes(response).await.to_vec()).unwrap()
    }

    /// How the response to a request came about.
    async fn cache_status(&self, method: &str, target: &str, body: &'static str) -> String {
        let request = Request::builder().method(method).uri(format!("http://h{target}"));
        let response = self.stack.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = CacheStatus::of(&response).map_or_else(String::new, |status| status.to_string());
        drop(bytes(response).await);
        status
    }
}

fn search(path: &str) -> KeyRule {
    KeyRule::path(path).method("POST").body(256)
}

#[tokio::test]
async fn what_a_rule_leaves_out_of_the_query_is_not_in_the_key_and_does_not_reach_the_origin() {
    let table = [
        (
            search("/s").keep_query(["lang"]),
            "/s?lang=de&sid=1",
            "/s?sid=2&lang=de",
            "/s?lang=de",
            "/s?lang=en",
        ),
        (search("/s").keep_query([""; 0]), "/s?sid=1", "/s", "/s", "/s/"),
        (search("/s").ignore_query(["utm_*"]), "/s?utm_a=1&q=1", "/s?q=1", "/s?q=1", "/s?q=2"),
        (search("/s").sort_query(), "/s?b=1&a=2", "/s?a=2&b=1", "/s?a=2&b=1", "/s?a=2&b=2"),
        (search("/s").drop_empty_query(), "/s?b=&a=2", "/s?a=2", "/s?a=2", "/s?a="),
        (
            search("/s?lang={lang}&sid={_}"),
            "/s?lang=de&sid=1",
            "/s?sid=2&lang=de",
            "/s?lang=de",
            "/s?lang=en&sid=1",
        ),
    ];
    for (rule, first, second, shown, other) in table {
        let cached = Cached::of(rule.clone());
        assert_eq!(cached.ask("POST", first, &[], "a").await, format!("1 POST {shown} a"), "{rule:?}");
        assert_eq!(cached.ask("POST", second, &[], "a").await, format!("1 POST {shown} a"), "{rule:?}");
        assert!(cached.ask("POST", second, &[], "b").await.starts_with("2 POST"), "{rule:?}");
        assert!(cached.ask("POST", other, &[], "a").await.starts_with("3 POST"), "{rule:?}");
        // What a framework could take for another reading of the query is in the key whole.
        assert_eq!(cached.ask("POST", "/s?sid=1;lang=de", &[], "a").await, "4 POST /s?sid=1;lang=de a");
    }
    let forwarding = Cached::of(search("/s").keep_query(["lang"]).forward_unkeyed());
    assert_eq!(forwarding.ask("POST", "/s?lang=de&sid=1", &[], "a").await, "1 POST /s?lang=de&sid=1 a");
    assert_eq!(forwarding.ask("POST", "/s?lang=de&sid=2", &[], "a").await, "1 POST /s?lang=de&sid=1 a");
}

#[tokio::test]
async fn cookies_fields_and_tags_of_a_rule_go_together_with_a_body_and_a_query() {
    let rule = search("/{shop}/s").keep_query(["page"]).cookies(["lang"]).headers(["x-tenant"]);
    let cached = Cached::of(rule.tags(["shop-{shop}"]));
    let ask = async |target: &str, cookie: &str, tenant: &str| {
        cached.ask("POST", target, &[("cookie", cookie), ("x-tenant", tenant)], "b").await
    };
    assert_eq!(ask("/a/s?page=1&x=1", "_ga=1; lang=de", "t").await, "1 POST /a/s?page=1 blang=de");
    assert_eq!(ask("/a/s?page=1&x=2", "_ga=2; lang=de", "t").await, "1 POST /a/s?page=1 blang=de");
    assert!(ask("/a/s?page=1", "lang=en", "t").await.starts_with("2 "));
    assert!(ask("/a/s?page=1", "lang=de", "u").await.starts_with("3 "));
    assert!(ask("/b/s?page=1", "lang=de", "t").await.starts_with("4 "));
    cached.purge.tag("shop-a");
    assert!(ask("/a/s?page=1", "lang=de", "t").await.starts_with("5 "));
    assert!(ask("/b/s?page=1", "lang=de", "t").await.starts_with("4 "));
}

/// A purge names one of many queries that share an entry, and not the one that was stored.
#[tokio::test]
async fn purges_and_writes_reach_what_several_queries_share() {
    for with_rule_for_get in [false, true] {
        let rules = KeyRules::builder().rule(search("/s").keep_query(["q"]));
        let rules = match with_rule_for_get {
            true => rules.rule(KeyRule::path("/s").keep_query(["page"])),
            false => rules,
        };
        let cached = Cached::new(rules);
        let read = async || {
            let post = cached.ask("POST", "/s?q=1&x=1", &[], "a").await;
            (post, cached.ask("GET", "/s?page=1&x=1", &[], "").await)
        };
        let mut before = read().await;
        assert_eq!(read().await, before);
        cached.purge.url("http://h/s?x=3&q=1").unwrap();
        for write in ["/s?q=1&x=2", "/s?page=1", "/s"] {
            let after = read().await;
            assert!(after.0 != before.0 && after.1 != before.1, "{before:?} before {write}");
            before = after;
            cached.ask("DELETE", write, &[], "").await;
        }
        assert_ne!(read().await, before);
        let before = read().await;
        cached.ask("DELETE", "/other?q=1", &[], "").await;
        assert_eq!(read().await, before);
    }
}

#[tokio::test]
async fn a_write_reaches_what_is_stored_for_a_path_in_another_case() {
    let cached = Cached::of(search("/s").ignore_path_case());
    let before = cached.ask("POST", "/S", &[], "a").await;
    assert_eq!(cached.ask("POST", "/S", &[], "a").await, before);
    cached.ask("DELETE", "/s", &[], "").await;
    assert_ne!(cached.ask("POST", "/S", &[], "a").await, before);
}

#[test]
fn a_body_rule_and_a_rule_that_leaves_out_a_path_segment_do_not_share_a_path() {
    let gaps = |path: &str| KeyRule::path(path).forward_unkeyed();
    let build = |rule: KeyRule, other: KeyRule| {
        KeyRules::builder().whole_uri().rule(rule).rule(other).build_with_bodies().map(|_| ())
    };
    let merging = || search("/a/{id}").keep_query(["q"]);
    for path in ["/a/{_}", "/{_}/1", "/{*_}", "/a/{*_}", "/a/x{_}"] {
        assert_eq!(
            build(merging(), gaps(path)).unwrap_err().to_string(),
            "key rule 0 (`/a/{id}`): this rule has a `body` and leaves a part of the query out of the key, and rule 1 \
             leaves out a part of the same paths, so a purge of one URI would not reach all requests that share an \
             entry",
            "{path}",
        );
        build(search("/a/{id}"), gaps(path)).unwrap();
        build(merging().host("a.example"), gaps(path).host("b.example")).unwrap();
    }
    for path in ["/b/{_}", "/a/{_}/c", "/{_}"] {
        build(merging(), gaps(path)).unwrap();
    }
}

#[tokio::test]
async fn a_get_with_a_body_has_a_key_where_a_rule_says_so() {
    let by_rule = KeyRules::builder().rule(KeyRule::path("/s").keep_query(["q"]).method("GET").body(64));
    let cached = Cached::new(by_rule.rule(KeyRule::path("/s").fixed_ttl(ms(60_000))));
    for _ in 0..2 {
        assert_eq!(cached.ask("GET", "/s?q=1&x=1", &[("content-length", "1")], "a").await, "1 GET /s?q=1 a");
        assert_eq!(cached.ask("GET", "/s?q=1", &[], "b").await, "2 GET /s?q=1 b");
        assert_eq!(
            cached.ask("GET", "/s?q=1&x=1", &[], "").await,
            "3 GET /s?q=1&x=1 ",
            "goes by the next rule"
        );
        assert_eq!(cached.ask("GET", "/s?q=1", &[], "").await, "4 GET /s?q=1 ");
    }
    assert_eq!(cached.cache_status("GET", "/s?q=1", "a").await, "hit");
    cached.ask("DELETE", "/s?q=2", &[], "").await;
    assert!(cached.ask("GET", "/s?q=1", &[], "a").await.starts_with("6 "));
    // Too long for a key, of another method, or with a condition: it passes.
    let long = "x".repeat(65);
    for (method, fields, body) in
        [("GET", &[][..], &*long), ("HEAD", &[], "a"), ("GET", &[("if-none-match", "\"1\"")], "a")]
    {
        let before = cached.origin.calls();
        for _ in 0..2 {
            cached.ask(method, "/s?q=1", fields, body.to_owned()).await;
        }
        assert_eq!(cached.origin.calls(), before + 2, "{method} {fields:?}");
    }
}

#[tokio::test]
async fn without_such_a_rule_a_get_with_a_body_has_no_key() {
    let cached = Cached::new(KeyRules::builder().rule(search("/s")).rule(KeyRule::any()));
    for n in 1..=2 {
        assert_eq!(cached.ask("GET", "/s", &[], "a").await, format!("{n} GET /s a"));
    }
    assert_eq!(cached.cache_status("GET", "/s", "a").await, "fwd=bypass; detail=body");
    // A method of a client's own making is no GET.
    let gets = Cached::of(KeyRule::path("/s").method("GET").body(64));
    for n in 1..=2 {
        assert_eq!(gets.ask("GET+BODY", "/s", &[], "a").await, format!("{n} GET+BODY /s a"));
    }
}

#[tokio::test]
async fn a_bypass_of_get_is_one_of_get_with_a_body() {
    for bypass in [KeyRule::path("/s").bypass(), KeyRule::path("/s").method("GET").bypass()] {
        let cached =
            Cached::new(KeyRules::builder().rule(bypass).rule(KeyRule::any().method("GET").body(64)));
        for n in 1..=2 {
            assert_eq!(cached.ask("GET", "/s", &[], "a").await, format!("{n} GET /s a"));
        }
        assert_eq!(cached.ask("GET", "/t", &[], "a").await, cached.ask("GET", "/t", &[], "a").await);
    }
}

/// The cache below has a key for GET, but none that holds a body.
#[tokio::test]
async fn a_cache_below_does_not_take_a_get_with_a_body_for_one_without() {
    let origin = ScriptedOrigin::with_future(|_, request| async move {
        response(&[], request.into_body().collect().await.unwrap().to_bytes())
    });
    let front: Front = origin.clone().map_request(|request| request.map(Body::new));
    let below = ReadThroughLayer::builder(store()).rules(fixed(60_000)).build().unwrap().layer(front);
    let rules = KeyRules::builder().whole_uri().rule(KeyRule::any().method("GET").body(64));
    let bodies = rules.build_with_bodies().unwrap();
    let above = ReadThroughLayer::builder(store()).key(bodies.rules()).build().unwrap();
    let stack = bodies.layer(above.layer(below.map_response(|response| response.map(Body::new))));
    for body in ["a", "b", ""] {
        let request = Request::get("http://h/s").body(Body::from(body)).unwrap();
        assert_eq!(bytes(stack.clone().oneshot(request).await.unwrap()).await, body);
    }
    assert_eq!(origin.calls(), 3);
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn graphql() -> KeyRule {
    search("/graphql").graphql()
}

/// Whether the second of two equal requests was a hit, and whether it invalidated a stored GET.
async fn is_read(cached: &Cached, target: &str, fields: &[(&str, &str)], body: &str) -> (bool, bool) {
    let path = target.split('?').next().unwrap();
    let stored = cached.ask("GET", path, &[], "").await;
    let first = cached.ask("POST", target, fields, body.to_owned()).await;
    let is_hit = cached.ask("POST", target, fields, body.to_owned()).await == first;
    (is_hit, cached.ask("GET", path, &[], "").await != stored)
}

#[tokio::test]
async fn graphql_queries_are_reads_and_possible_mutations_are_not() {
    const QUERY: &str = r#"{"query": "query Q { a }", "operationName": "Q"}"#;
    let known = r#"{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "abc"}}}"#;
    let long = format!("{{\"query\": \"{{ {} }}\"}}", "a ".repeat(256));
    let table = [
        (JSON, QUERY, true),
        (&[("content-type", "application/json; charset=UTF-8")], QUERY, true),
        (JSON, r#"[{"query": "{ a }"}, {"query": "query { b }"}]"#, true),
        (JSON, known, true),
        (JSON, r#"{"query": "mutation M { a }", "operationName": "Q"}"#, false),
        (JSON, r#"{"query": "query Q { a } mutation M { b }", "operationName": "Q"}"#, false),
        (JSON, r#"[{"query": "{ a }"}, {"query": "mutation { b }"}]"#, false),
        (JSON, r#"{"query": "{ a }", "query": "mutation { b }"}"#, false),
        (JSON, r#"{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "abd"}}}"#, false),
        (JSON, "{", false),
        (JSON, "", false),
        (JSON, &long, false),
        // As something else than JSON it may be something else.
        (&[], QUERY, false),
        (&[("content-type", "application/graphql")], QUERY, false),
        (&[("content-type", "text/plain")], QUERY, false),
        (&[("content-type", "application/json; charset=utf-16")], QUERY, false),
        (&[("content-type", "application/json; charset = utf-8")], QUERY, true),
        (&[("content-type", "application/json; charset =utf-7")], QUERY, false),
        (&[("content-type", "application/json; charset= utf-7")], QUERY, false),
        (&[("content-type", "application/json; charset*=us-ascii''utf-7")], QUERY, false),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], QUERY, false),
        (&[("content-type", "application/json"), ("content-type", "application/json")], QUERY, false),
        // To a service behind CGI the second one may be the type.
        (&[("content-type", "application/json"), ("content_type", "application/graphql")], QUERY, false),
        // What has no key is not looked into.
        (&[("content-type", "application/json"), ("if-match", "\"1\"")], QUERY, false),
        (&[("content-type", "application/json"), ("range", "bytes=0-1")], QUERY, false),
    ];
    for (fields, body, expected) in table {
        let cached = Cached::of(graphql().persisted_queries(["abc"]));
        let (is_hit, invalidates) = is_read(&cached, "/graphql", fields, body).await;
        assert_eq!((is_hit, invalidates), (expected, !expected), "{fields:?} {body}");
    }
    // Some servers go by the URI first.
    for (target, expected) in [
        ("/graphql?v=1", true),
        ("/graphql?query=mutation{a}", false),
        ("/graphql?v=1&QUERY=a", false),
        ("/graphql?id=abc", false),
        ("/graphql?v=1;query=a", false),
        ("/graphql?%71uery=a", false),
    ] {
        let (is_hit, _) = is_read(&Cached::of(graphql()), target, JSON, QUERY).await;
        assert_eq!(is_hit, expected, "{target}");
    }
}

#[tokio::test]
async fn a_mutation_is_not_a_hit_and_invalidates_stored_queries() {
    let cached = Cached::of(graphql());
    let query = r#"{"query": "{ orders }"}"#;
    let before = cached.ask("POST", "/graphql", JSON, query).await;
    assert_eq!(cached.ask("POST", "/graphql", JSON, query).await, before);
    let order = r#"{"query": "mutation { order }"}"#;
    let orders = [
        cached.ask("POST", "/graphql", JSON, order).await,
        cached.ask("POST", "/graphql", JSON, order).await,
    ];
    assert_ne!(orders[0], orders[1]);
    assert_ne!(cached.ask("POST", "/graphql", JSON, query).await, before);
}

fn json(body: JsonBody) -> KeyRule {
    search("/rpc").json_body(body)
}

#[tokio::test]
async fn bodies_of_one_normal_form_share_an_entry_and_look_the_same_to_the_origin() {
    let table = [
        (
            JsonBody::new(),
            r#"{ "b": 1, "a": [1.0] }"#,
            r#"{"a":[1.0],"b":1}"#,
            r#"{"a":[1.0],"b":1}"#,
            r#"{"a":[1],"b":1}"#,
        ),
        (
            JsonBody::new().ignore(["/s"]),
            r#"{"q":1,"s":2}"#,
            r#"{"s":3,"q":1}"#,
            r#"{"q":1}"#,
            r#"{"q":2,"s":2}"#,
        ),
        (JsonBody::new().include(["/q"]), r#"{"q":1,"s":2}"#, r#"{"q":1}"#, r#"{"q":1}"#, r#"{"q":2}"#),
        (
            JsonBody::new().replace("/id", 1),
            r#"{"id":7,"method":"m"}"#,
            r#"{"id":"x","method":"m"}"#,
            r#"{"id":1,"method":"m"}"#,
            r#"{"method":"m"}"#,
        ),
        (
            JsonBody::new().replace("/*/id", "c").ignore(["/*/t"]),
            r#"[{"id":7,"t":1},{"id":8}]"#,
            r#"[{"id":9},{"id":9,"t":2}]"#,
            r#"[{"id":"c"},{"id":"c"}]"#,
            r#"[{"id":7,"t":1}]"#,
        ),
    ];
    for (body, first, second, sent, other) in table {
        let cached = Cached::of(json(body.clone()));
        let ask = async |body: &str| {
            let length = body.len().to_string();
            let fields = [("content-type", "application/vnd.rpc+json"), ("content-length", &*length)];
            cached.ask("POST", "/rpc", &fields, body.to_owned()).await
        };
        assert_eq!(ask(first).await, format!("1 POST /rpc {sent}"), "{body:?}");
        assert_eq!(ask(second).await, format!("1 POST /rpc {sent}"), "{body:?}");
        assert!(ask(other).await.starts_with("2 "), "{body:?}");
    }
}

#[tokio::test]
async fn json_that_servers_may_read_differently_is_keyed_by_its_bytes() {
    const SUMMED: &[(&str, &str)] = &[("content-type", "application/json"), ("content-digest", "x")];
    const PACKED: &[(&str, &str)] = &[("content-type", "application/json"), ("content-encoding", "x")];
    let deep = format!(r#"{{ "id": 1, "q": {}{} }}"#, "[".repeat(40), "]".repeat(40));
    for (fields, body) in [
        (JSON, r#"{ "id": 1, "id": 2 }"#),
        (JSON, r#"{ "q": { "a": 1, "\u0061": 2 } }"#),
        (JSON, "{ \"id\": 1"),
        (JSON, &deep),
        (SUMMED, r#"{ "id": 1 }"#),
        (PACKED, r#"{ "id": 1 }"#),
        (&[("content-type", "text/plain")], r#"{ "id": 1 }"#),
        (&[], r#"{ "id": 1 }"#),
    ] {
        let cached = Cached::of(json(JsonBody::new().ignore(["/id"])));
        for _ in 0..2 {
            assert_eq!(
                cached.ask("POST", "/rpc", fields, body.to_owned()).await,
                format!("1 POST /rpc {body}")
            );
        }
        let blank = cached.ask("POST", "/rpc", fields, format!("{body} ")).await;
        assert_eq!(blank, format!("2 POST /rpc {body} "), "{fields:?}");
    }
}

#[tokio::test]
async fn a_part_that_is_not_in_the_key_reaches_the_origin_only_where_the_rule_says_so() {
    let cached = Cached::of(json(JsonBody::new().include(["/q"])).forward_unkeyed());
    let first = r#"{ "q": 1, "s": 2 }"#;
    assert_eq!(cached.ask("POST", "/rpc", JSON, first).await, format!("1 POST /rpc {first}"));
    assert_eq!(cached.ask("POST", "/rpc", JSON, r#"{"q":1,"s":3}"#).await, format!("1 POST /rpc {first}"));
    // A server that does not mind case takes the second one.
    let cloaked = r#"{"q":1,"Q":2}"#;
    assert_eq!(cached.ask("POST", "/rpc", JSON, cloaked).await, format!("2 POST /rpc {cloaked}"));
}

#[test]
fn settings_of_bodies_that_cannot_work_are_refused() {
    let none = KeyRule::path("/s");
    let alone = "has no effect: it is about a body, and the rule has no `body`";
    let idle = |pointer: &str| {
        format!(
            "`{pointer}` in `json_body` has no effect: it is a part of what is ignored, replaced or included, or \
             `include` leaves it out"
        )
    };
    let pointer = "is not a JSON Pointer; write `/id`, `/params/page` or `/*/id`, with `~1` for a `/`";
    for (rule, problem) in [
        (none.clone().graphql(), format!("`graphql` {alone}")),
        (none.json_body(JsonBody::new()), format!("`json_body` {alone}")),
        (
            search("/s").persisted_queries(["a"]),
            "`persisted_queries` has no effect: it names GraphQL queries, and the rule has no `graphql`"
                .into(),
        ),
        (
            search("/s").graphql().persisted_queries(["a b"]),
            "`a b` cannot name a persisted query; write its SHA-256 hash or its id".into(),
        ),
        (search("/s").json_body(JsonBody::new().ignore(["id"])), format!("`id` {pointer}")),
        (search("/s").json_body(JsonBody::new().include([""])), format!("`` {pointer}")),
        (search("/s").json_body(JsonBody::new().replace("/~2", 1)), format!("`/~2` {pointer}")),
        (
            search("/s").json_body(JsonBody::new().ignore(["/id"]).replace("/id", 1)),
            "`json_body` names `/id` twice".into(),
        ),
        (search("/s").json_body(JsonBody::new().ignore(["/a", "/a/b"])), idle("/a/b")),
        (search("/s").json_body(JsonBody::new().ignore(["/a"]).replace("/a/b", 1)), idle("/a/b")),
        (search("/s").json_body(JsonBody::new().ignore(["/a/b/c"]).replace("/a", 1)), idle("/a/b/c")),
        (search("/s").json_body(JsonBody::new().include(["/a", "/a/~0"])), idle("/a/~0")),
        (search("/s").json_body(JsonBody::new().include(["/a"]).ignore(["/b"])), idle("/b")),
        (
            search("/s").json_body(JsonBody::new().include([""; 0])),
            "`json_body` has no effect: `include` is empty, so nothing would be in the key".into(),
        ),
    ] {
        let built = KeyRules::builder().whole_uri().rule(rule.name("r")).build_with_bodies();
        assert_eq!(built.unwrap_err().to_string(), format!("key rule 0 (`r`): {problem}"));
    }
}

#[cfg(feature = "serde")]
#[test]
fn documents_have_the_settings_of_bodies() {
    let text = r#"{ "path": "/rpc", "method": "POST", "body": 256, "graphql": true, "persisted_queries": ["abc"],
        "json_body": { "include": ["/q"], "ignore": ["/q/s"], "replace": { "/id": 1, "/n": "x", "/b": true } } }"#;
    let body = JsonBody::new().include(["/q"]).ignore(["/q/s"]);
    let body = body.replace("/id", 1).replace("/n", "x").replace("/b", true);
    let rule = search("/rpc").graphql().persisted_queries(["abc"]).json_body(body);
    assert_eq!(serde_json::from_str::<KeyRule>(text).unwrap(), rule);
    let refused = |text: &str| {
        let text = format!(r#"{{ "rules": [{{ "path": "/", "method": "POST", "body": 1, {text} }}] }}"#);
        serde_json::from_str::<tower_readthrough::BodyKeyLayer>(&text).unwrap_err().to_string()
    };
    for (text, problem) in [
        (r#""json_body": { "ignored": [] }"#, "`rules`: key rule 0: `json_body`: unknown field `ignored`"),
        (r#""json_body": { "ignore": "/id" }"#, "`rules`: key rule 0: `json_body`: `ignore`: invalid type"),
        (r#""graphql": "yes""#, "`rules`: key rule 0: `graphql`: invalid type"),
    ] {
        assert!(refused(text).starts_with(problem), "{}", refused(text));
    }
}
