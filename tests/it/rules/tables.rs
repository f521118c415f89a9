//! Tables of requests, with which authors test their rules.

use std::{borrow::Cow, time::Duration};

use serde_json::{Value, json};
use tower_readthrough::{KeyExtractor, KeyRule, KeyRules, RuleTable, Rules};

fn rules() -> KeyRules {
    KeyRules::builder()
        .rule(KeyRule::path("/account/{*rest}").bypass())
        .rule(
            KeyRule::path("/product")
                .name("product")
                .keep_query(["pid"])
                .cookies(["lang"])
                .fixed_ttl(Duration::from_millis(200))
                .stale_while_revalidate_for(Duration::from_secs(5)),
        )
        .rule(KeyRule::path("/user/{id}").extensions(["tenant"]).cookies([]).tags(["user-{id}"]))
        .rule(KeyRule::path("/doc/{name}").no_vary_search().headers(["x-kind"]).cookies([]))
        .extension("tenant", |tenant: &u8| Some(Cow::Owned(vec![*tenant])))
        .build()
        .unwrap()
}

fn table(rows: &Value) -> RuleTable {
    serde_json::from_value(json!({ "host": "shop.example", "rows": rows })).unwrap()
}

/// The failed rows of the table, without the line that counts them.
fn misses(rows: &Value) -> Vec<String> {
    match rules().check_table(&table(rows)) {
        Ok(()) => Vec::new(),
        Err(error) => error.misses().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn rows_with_the_expected_result_pass() {
    let rows = json!([
        { "request": "GET /product?pid=7&utm_source=x", "headers": { "cookie": "_ga=1; lang=de" },
          "rule": "product", "entry": "7 de", "ttl": "200ms", "stale_while_revalidate": "5s",
          "stale_if_error": "1h", "tags": [], "origin": "/product?pid=7",
          "origin_headers": { "cookie": "lang=de" },
          "purged_by": ["url /product?pid=7", "url http://shop.example/product?x=1&pid=7", "prefix /product",
            "pattern /pro*", "host shop.example"],
          "kept_by": ["url /product?pid=8", "tag product", "prefix /prod", "pattern /pro", "host example"] },
        { "request": "HEAD http://SHOP.example:80/product?pid=7", "headers": { "cookie": ["lang=de"] },
          "entry": "7 de" },
        { "request": "GET /product?pid=7", "origin_headers": { "cookie": null } },
        { "request": "GET /product?pid=8", "response": { "cache-control": "no-cache, private" },
          "not_stored": "private" },
        { "request": "GET /Account/orders/", "bypass": "rule-bypass", "rule": "/account/{*rest}" },
        { "request": "POST /product?pid=7", "bypass": "method" },
        { "request": "GET /user/7", "bypass": "missing-extension" },
        { "request": "GET /user/7", "extensions": { "tenant": "a" }, "entry": "a 7", "ttl": "1m",
          "response": { "cache-control": "max-age=60", "surrogate-key": "x y", "cache-groups": "\"g\"" },
          "tags": ["user-7", "x", "y", "g"], "purged_by": ["tag user-7", "tag x", "tag g"] },
        { "request": "GET /user/7", "extensions": { "tenant": "b" }, "rule": "/user/{id}",
          "response": { "cache-control": "max-age=60" } },
        { "request": "GET /other", "rule": null, "status": 404, "not_stored": "status" }
    ]);
    assert_eq!(misses(&rows), Vec::<String>::new());
}

#[test]
fn each_failed_expectation_reports_what_was_found() {
    let cases = [
        (json!({ "request": "GET /product", "rule": "x" }), "`rule` must be `x`, and is `product`"),
        (json!({ "request": "GET /product", "rule": null }), "`rule` must be none, and is `product`"),
        (json!({ "request": "GET /other", "rule": "product" }), "`rule` must be `product`, and is none"),
        (
            json!({ "request": "GET /account/x", "bypass": "no-host" }),
            "`bypass` must be `no-host`, and is `rule-bypass`",
        ),
        (
            json!({ "request": "GET /product", "bypass": "rule-bypass" }),
            "`bypass` must be `rule-bypass`, and the request has a key",
        ),
        (json!({ "request": "GET /product", "ttl": "1s" }), "`ttl` must be 1s, and is 200ms"),
        (
            json!({ "request": "GET /account/x", "ttl": "1s" }),
            "`ttl` must be 1s, and the request has no key: `rule-bypass`",
        ),
        (
            json!({ "request": "GET /other", "ttl": "1s" }),
            "`ttl` must be 1s, and the response is not stored: `not-fresh`",
        ),
        (
            json!({ "request": "GET /product", "stale_while_revalidate": "6s" }),
            "`stale_while_revalidate` must be 6s, and is 5s",
        ),
        (
            json!({ "request": "GET /product", "stale_if_error": "2h" }),
            "`stale_if_error` must be 2h, and is 1h",
        ),
        (
            json!({ "request": "GET /product", "not_stored": "private" }),
            "`not_stored` must be `private`, and the response is stored",
        ),
        (
            json!({ "request": "GET /other", "not_stored": "private" }),
            "`not_stored` must be `private`, and the response is not stored: `not-fresh`",
        ),
        (
            json!({ "request": "GET /product", "tags": ["a"], "response": { "cache-tag": "b, c" } }),
            r#"`tags` must be {"a"}, and is {"b", "c"}"#,
        ),
        (
            json!({ "request": "GET /product?x=1&pid=2", "origin": "/product" }),
            "`origin` must be `/product`, and is `/product?pid=2`",
        ),
        (
            json!({ "request": "GET /product", "headers": { "cookie": "lang=de" }, "origin_headers": { "cookie": null } }),
            r#"`origin_headers.cookie` must be absent, and is ["lang=de"]"#,
        ),
        (
            json!({ "request": "GET /product", "origin_headers": { "x-a": ["1", "2"] } }),
            r#"`origin_headers.x-a` must be ["1", "2"], and is absent"#,
        ),
        (
            json!({ "request": "GET /product", "response": { "x-a": "1" }, "stored_headers": { "x-a": null } }),
            r#"`stored_headers.x-a` must be absent, and is ["1"]"#,
        ),
        (
            json!({ "request": "GET /account/x", "stored_headers": { "x-a": null } }),
            "`stored_headers` needs a stored response, and the request has no key: `rule-bypass`",
        ),
        (
            json!({ "request": "GET /product", "purged_by": ["tag a"] }),
            "`purged_by`: `tag a` does not purge the response",
        ),
        (
            json!({ "request": "GET /product?pid=1", "kept_by": ["url /product?pid=1&x"] }),
            "`kept_by`: `url /product?pid=1&x` purges the response",
        ),
        (
            json!({ "request": "GET /product", "kept_by": ["all"] }),
            "invalid purge `all`: write a kind and an argument, like `tag product-7`",
        ),
        (
            json!({ "request": "GET /product", "kept_by": ["page /a"] }),
            "invalid purge `page /a`: unknown kind `page`; use `url`, `prefix`, `pattern`, `host` or `tag`",
        ),
        (
            json!({ "request": "GET /product", "kept_by": ["tag a,b"] }),
            "invalid purge `tag a,b`: a tag has no wildcards, spaces or commas",
        ),
        (
            json!({ "request": "GET /account/x", "kept_by": ["tag a"] }),
            "`purged_by` and `kept_by` need a stored response, and the request has no key: `rule-bypass`",
        ),
        (
            json!({ "request": "GET /other", "entry": "a" }),
            "`entry` is `a`, and no row of this entry has a stored response; here the response is not stored: `not-fresh`",
        ),
        (
            json!({ "request": "GET /product" }),
            "the row has no expectation; add one, such as `entry` or `bypass`",
        ),
        (
            json!({ "request": "/product", "ttl": "1s" }),
            "`request` must be a method and a target, like `GET /`",
        ),
        (
            json!({ "request": "GET /", "headers": { "a b": "1" }, "ttl": "1s" }),
            "`headers`: `a b` is not a field name",
        ),
        (json!({ "request": "GET /", "status": 1000, "ttl": "1s" }), "`status`: 1000 is not a status code"),
    ];
    for (row, message) in cases {
        let label = row["request"].as_str().unwrap().to_owned();
        assert_eq!(misses(&json!([row])), [format!("row 0 (`{label}`): {message}")]);
    }
    assert_eq!(misses(&json!([])), ["the table has no rows; add at least one"]);
}

#[test]
fn rows_share_an_entry_if_and_only_if_the_table_says_so() {
    let max_age = json!({ "cache-control": "max-age=60" });
    let vary = json!({ "cache-control": "max-age=60", "vary": "accept-language" });
    let found = misses(&json!([
        { "request": "GET /product?pid=7", "entry": "a" },
        { "request": "GET /product?pid=7&x=1", "why": "not in the key", "ttl": "200ms" },
        { "request": "GET /product?pid=8", "entry": "a" },
        { "request": "GET /other", "entry": "b", "response": vary, "headers": { "accept-language": "de" } },
        { "request": "GET /other", "entry": "b", "response": vary, "headers": { "accept-language": "fr" } },
        { "request": "GET /page", "entry": "c", "response": max_age },
        { "request": "GET /page", "entry": "c", "bypass": "method-override",
          "headers": { "x-http-method-override": "PUT" } },
    ]));
    let gets = "gets the response stored by row";
    let none = "with which it has no `entry` in common";
    let misses_it = "but it does not get the response stored by row";
    assert_eq!(
        found,
        [
            format!("row 0 (`GET /product?pid=7`): it {gets} 1 (`GET /product?pid=7&x=1`), {none}"),
            format!("row 0 (`GET /product?pid=7`): `entry` is `a`, {misses_it} 2 (`GET /product?pid=8`)"),
            format!(
                "row 1 (`GET /product?pid=7&x=1`, not in the key): it {gets} 0 (`GET /product?pid=7`), {none}"
            ),
            format!("row 2 (`GET /product?pid=8`): `entry` is `a`, {misses_it} 0 (`GET /product?pid=7`)"),
            format!("row 3 (`GET /other`): `entry` is `b`, {misses_it} 4 (`GET /other`)"),
            format!("row 4 (`GET /other`): `entry` is `b`, {misses_it} 3 (`GET /other`)"),
            "row 6 (`GET /page`): `entry` is `c`, and the request has no key: `method-override`".to_owned(),
        ],
    );
}

#[test]
fn no_vary_search_of_a_row_applies_to_the_next_row() {
    let response = json!({ "cache-control": "max-age=60", "no-vary-search": "params=(\"x\")" });
    let rows = json!([
        { "request": "GET /doc/a?x=1", "response": response, "entry": "a" },
        { "request": "GET /doc/a?x=2", "response": response, "entry": "a" },
        { "request": "GET /doc/a?y=2", "response": response, "ttl": "1m" },
        { "request": "GET /doc/a?x=1", "headers": { "x-kind": "other" }, "ttl": "1m",
          "why": "what other rows said of the path does not count", "response": { "cache-control": "max-age=60" } },
    ]);
    let rules = rules();
    assert_eq!(rules.check_table(&table(&rows)), Ok(()));
    let key = |uri: &str| {
        let (head, ()) =
            http::Request::get(uri).header("host", "shop.example").body(()).unwrap().into_parts();
        rules.key(&head)
    };
    assert_ne!(key("/doc/a?x=1"), key("/doc/a?x=2"), "the rules that serve have learned nothing of it");
}

#[test]
fn requests_without_a_rule_can_be_purged() {
    let rules = KeyRules::builder()
        .ignore_query(["utm_*"])
        .rule(KeyRule::path("/page?id={id}").cookies([]))
        .build()
        .unwrap();
    let response = json!({ "cache-control": "max-age=60" });
    let of = |purges: Value| {
        let row = json!({ "request": "GET /other?utm_source=a", "response": response, "rule": null,
            "purged_by": purges, "origin": "/other" });
        rules.check_table(&table(&json!([row])))
    };
    assert_eq!(of(json!(["url /other", "url /other?utm_source=b"])), Ok(()));
    let error = of(json!(["url /page"])).unwrap_err().to_string();
    assert!(error.contains("invalid purge `url /page`"), "{error}");
}

#[test]
fn a_lifetime_that_is_over_before_the_next_row_makes_no_difference() {
    let rule = KeyRule::path("/a").keep_query(["q"]).cookies([]).fixed_ttl(Duration::from_nanos(1));
    let rules = KeyRules::builder().rule(rule).build().unwrap();
    let rows = json!([
        { "request": "GET /a?q=1&x=1", "entry": "1", "ttl": "1ns" },
        { "request": "GET /a?x=2&q=1", "entry": "1" },
        { "request": "GET /a?q=2", "ttl": "1ns" },
    ]);
    assert_eq!(rules.check_table(&table(&rows)), Ok(()));
    let rows =
        json!([{ "request": "GET /a?q=1", "ttl": "1ns" }, { "request": "GET /a?q=1&x", "ttl": "1ns" }]);
    assert_eq!(rules.check_table(&table(&rows)).unwrap_err().misses().len(), 2);
}

#[test]
fn credentials_count_as_they_do_when_requests_are_served() {
    let rows = json!([
        { "request": "GET /other", "ttl": "10s" },
        { "request": "GET /other", "headers": { "cookie": "sid=1" }, "not_stored": "cookie" },
        { "request": "GET /other", "headers": { "authorization": "x" }, "not_stored": "authorization" },
    ]);
    let table = table(&rows).rules(Rules::new().default_ttl(Duration::from_secs(10)));
    assert_eq!(rules().check_table(&table), Ok(()));
}

#[cfg(feature = "body-key")]
#[test]
fn bodies_are_read_by_the_layer_that_reads_them() {
    let search =
        KeyRule::path("/search").method("POST").body(100).cookies([]).fixed_ttl(Duration::from_secs(1));
    let rules = KeyRules::builder().rule(search).build_with_bodies().unwrap().rules();
    let rows = json!([
        { "request": "POST /search", "body": { "q": "shoes" }, "rule": "/search", "entry": "shoes", "ttl": "1s" },
        { "request": "POST /search", "body": "{\"q\":\"shoes\"}", "entry": "shoes" },
        { "request": "POST /search", "body": { "q": "hats" }, "ttl": "1s" },
        { "request": "POST /search", "body": "x".repeat(101), "bypass": "body" },
        { "request": "POST /other", "body": "x", "bypass": "method", "rule": null },
    ]);
    assert_eq!(rules.check_table(&table(&rows)), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_table_is_checked_in_a_runtime_too() {
    rows_with_the_expected_result_pass();
    credentials_count_as_they_do_when_requests_are_served();
}

#[test]
fn a_table_with_an_unknown_name_is_refused() {
    for (text, begins) in [
        (r#"{ "rows": [{ "request": "GET /", "tttl": "1s" }] }"#, "`rows`: row 0: unknown field `tttl`"),
        (
            r#"{ "rows": [{}, { "ttl": 1 }] }"#,
            "`rows`: row 1: `ttl`: invalid type: integer `1`, expected a duration",
        ),
        (r#"{ "rows": [{ "ttl": "5M" }] }"#, "`rows`: row 0: `ttl`: `5M`: `M` means months"),
        (r#"{ "rows": [{ "headers": { "a": 1 } }] }"#, "`rows`: row 0: `headers`: "),
        (r#"{ "row": [] }"#, "unknown field `row`"),
        (r#"[{ "request": "GET /" }]"#, "invalid type: sequence, expected an object"),
    ] {
        let error = serde_json::from_str::<RuleTable>(text).unwrap_err().to_string();
        assert!(error.starts_with(begins), "{text}: {error}");
    }
}
