//! Rules with a body.

use super::*;

#[tokio::test]
async fn nothing_else_is_read_by_a_rule() {
    let origin = echo();
    let stack = stack(&origin);
    let others = [
        ("POST", "http://h/other"),
        ("PUT", SEARCH),
        ("PATCH", SEARCH),
        // Routers differ about what it names.
        ("POST", "http://h//search"),
    ];
    for (method, uri) in others {
        let asked = || request(method, uri, &[], "a");
        let answers = ask_all(&stack, [asked(), asked()]).await;
        assert_ne!(answers[0], answers[1], "{method} {uri}");
    }
}

#[tokio::test]
async fn a_request_without_an_extension_of_the_rule_has_no_key() {
    #[derive(Clone)]
    struct Tenant(&'static str);
    let rules = KeyRules::builder()
        .rule(search().extensions(["tenant"]))
        .extension("tenant", |tenant: &Tenant| Some(tenant.0.as_bytes().into()));
    let bodies = rules.build_with_bodies().unwrap();
    let origin = echo();
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).rules(fixed(60_000)).build().unwrap();
    let stack = bodies.layer(cache.layer(front(&origin)));
    let of = |tenant: Option<&'static str>| {
        let mut request = post_of("a");
        tenant.map(|tenant| request.extensions_mut().insert(Tenant(tenant)));
        request
    };
    let all = || [of(Some("t")), of(Some("u")), of(None)];
    ask_all(&stack, all()).await;
    assert_eq!(ask_all(&stack, all()).await, ["1 POST a", "2 POST a", "4 POST a"]);
}

#[test]
fn rules_that_cannot_work_are_refused_by_name() {
    let path = "a rule with a `body` has all of the path in its keys; remove `no_vary_search`, and name the captures of \
                the path";
    let cases = [
        (
            KeyRule::path("/s").body(1),
            "a rule with a `body` needs a `method`; name those of GET, POST and QUERY that are reads",
        ),
        (
            search().method("HEAD"),
            "a rule with a `body` cannot have the method `HEAD`; use GET, POST or QUERY",
        ),
        (search().body(0), "`body` is zero, so no body is short enough for a key"),
        (
            search().body((1 << 20) + 1),
            "a `body` of 1048577 bytes is too large for a key; the limit is 1048576",
        ),
        (search().no_vary_search(), path),
        (KeyRule::path("/s/{_}").method("POST").body(1), path),
        (
            search().bypass(),
            "`bypass` has no effect: a rule that bypasses has no key and stores nothing; remove its other settings",
        ),
        (
            KeyRule::path("/s").method("POST"),
            "requests of method `POST` have no key; use GET or HEAD, or give the rule a `body`",
        ),
    ];
    for (rule, problem) in cases {
        let error = KeyRules::builder().rule(rule.name("r")).build_with_bodies().unwrap_err();
        assert_eq!(error.to_string(), format!("key rule 0 (`r`): {problem}"));
    }
    let error =
        KeyRules::builder().rule(KeyRule::any().bypass()).rule(search()).build_with_bodies().unwrap_err();
    assert_eq!(
        error.to_string(),
        "key rule 1 (`/search`): this rule is never reached: rule 0 matches all of its requests"
    );
    let guard = tower_readthrough::Guard::new().headers(["content-type"]);
    let error = KeyRules::builder().guard(guard).rule(search()).build_with_bodies().unwrap_err();
    assert_eq!(
        error.to_string(),
        "key rules: `content-type` is not a field that a guard can remove; write a name, or a prefix like \
         `x-forwarded-*`"
    );
}

#[tokio::test]
async fn a_rule_without_methods_leaves_reads_to_the_rules_after_it_unless_it_bypasses() {
    let origin = echo();
    let rules = KeyRules::builder()
        .rule(KeyRule::path("/search/account").bypass())
        .rule(KeyRule::any().fixed_ttl(ms(60_000)))
        .rule(KeyRule::any().method("POST").body(BOUND).fixed_ttl(ms(60_000)));
    let bodies = rules.build_with_bodies().unwrap();
    let cache = ReadThroughLayer::builder(store()).key(bodies.rules()).build().unwrap();
    let stack = bodies.layer(cache.layer(front(&origin)));
    assert_eq!(ask_all(&stack, [post_of("a"), post_of("a")]).await, ["1 POST a", "1 POST a"]);
    let account = || request("POST", "http://h/search/account", &[], "a");
    assert_eq!(ask_all(&stack, [account(), account()]).await, ["2 POST a", "3 POST a"]);
}

#[test]
fn rules_with_bodies_cannot_be_built_without_their_layer() {
    let error = KeyRules::builder().rule(KeyRule::any().tags(["t"])).rule(search()).build().unwrap_err();
    assert_eq!(error.index(), Some(1));
    assert_eq!(
        error.to_string(),
        "key rule 1 (`/search`): a rule with a `body` needs a layer that reads bodies; use \
         `KeyRulesBuilder::build_with_bodies`",
    );
    let (head, ()) = Request::post(SEARCH).body(()).unwrap().into_parts();
    assert_eq!(layer(search()).rules().key(&head), None, "without a body that was read");
}

#[cfg(feature = "serde")]
#[test]
fn documents_have_bodies_too() {
    let text = r#"{ "rules": [{ "path": "/search", "method": ["POST", "QUERY"], "body": 64 }] }"#;
    assert_eq!(serde_json::from_str::<KeyRule>(&text[12..text.len() - 3]).unwrap(), search());
    assert!(serde_json::from_str::<BodyKeyLayer>(text).is_ok());
    let error = serde_json::from_str::<KeyRules>(text).unwrap_err().to_string();
    assert!(error.starts_with("key rule 0 (`/search`): a rule with a `body` needs a layer"), "{error}");
    assert!(serde_json::from_str::<BodyKeyLayer>(r#"{ "rules": [] }"#).is_ok());
}

#[test]
fn methods_are_compared_as_written() {
    assert_ne!(Method::from_bytes(b"query").unwrap().as_str(), "QUERY");
    let error = KeyRules::builder().rule(KeyRule::any().method("query").body(1)).build_with_bodies();
    assert!(error.is_err());
}
