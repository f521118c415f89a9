//! Documents made of descriptions of APIs.

#[path = "../../../examples/rules/openapi.rs"]
mod made;

use serde_json::{Value, json};

use super::documents::check;

fn document(api: &Value) -> Value {
    let text = made::document(&api.to_string()).unwrap();
    assert!(check::rules(&text).unwrap().check().is_empty(), "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Names of the rules, paths, and whether they bypass.
fn outline(document: &Value) -> Vec<(String, String, bool)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rules = document["rules"].as_array().unwrap().iter();
    rules.map(|rule| (text(&rule["name"]), text(&rule["path"]), rule["bypass"] == true)).collect()
}

fn shop() -> Value {
    json!({
        "openapi": "3.1.0",
        "servers": [{ "url": "https://{region}.shop.example/v1/", "variables": { "region": { "default": "eu" } } }],
        "security": [{ "key": [] }],
        "paths": {
            "/products": {
                "parameters": [{ "name": "X-Currency", "in": "header" }, { "name": "page", "in": "query" }],
                "get": {
                    "operationId": "products",
                    "security": [],
                    "parameters": [
                        { "$ref": "#/components/parameters/filter" },
                        { "name": "lang", "in": "cookie" },
                        { "name": "Accept-Language", "in": "header" },
                        { "name": "If-None-Match", "in": "header" }
                    ]
                },
                "post": { "operationId": "addProduct" }
            },
            "/products/{product-id}": { "get": { "operationId": "product", "security": [{}] } },
            "/products/mine": { "get": { "operationId": "mine" } },
            "/products/{id}.json": { "get": { "security": [] }, "head": { "security": [] } },
            "/search": { "$ref": "#/components/pathItems/search" },
            "/orders/{id}": { "get": { "security": [{}, { "key": [] }] } },
            "/ping": { "head": { "operationId": "ping", "security": [] } },
            "/other": { "post": { "security": [] } }
        },
        "components": {
            "parameters": { "filter": { "name": "filter", "in": "query", "style": "deepObject", "schema": { "type": "object" } } },
            "pathItems": { "search": { "get": {
                "operationId": "search",
                "security": [],
                "parameters": [{ "name": "q", "in": "query", "schema": { "type": "object" } }]
            } } }
        }
    })
}

#[test]
fn reads_without_security_are_keyed_by_their_parameters_and_all_else_is_bypassed() {
    let document = document(&shop());
    let rule = |name: &str| {
        let rules = document["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    assert_eq!(
        rule("products"),
        json!({ "name": "products", "host": ["eu.shop.example"], "path": "/v1/products",
            "keep_query": ["page", "filter"], "headers": ["x-currency"], "cookies": ["lang"] }),
    );
    assert_eq!(
        rule("product"),
        json!({ "name": "product", "host": ["eu.shop.example"], "path": "/v1/products/{product_id}",
            "keep_query": [], "cookies": [] }),
    );
    assert_eq!(
        rule("mine"),
        json!({ "name": "mine", "host": ["eu.shop.example"], "path": "/v1/products/mine", "bypass": true }),
    );
    assert_eq!(rule("search")["keep_query"], Value::Null, "any parameter may be one of the object");
    assert_eq!(rule("ping")["method"], json!(["HEAD"]));
    assert_eq!(rule("get /orders/{id}")["bypass"], json!(true), "authorisation is possible");
    assert_eq!(document["guard"], json!({}));
    let last = outline(&document).pop().unwrap();
    assert_eq!(last, ("what is not described".into(), String::new(), true));
    assert!(!outline(&document).iter().any(|(name, ..)| name == "addProduct" || name.contains("/other")));
}

#[test]
fn a_made_document_does_what_the_description_says() {
    let rules = check::rules(&document(&shop()).to_string()).unwrap();
    let max_age = json!({ "cache-control": "max-age=60" });
    let table = json!({
        "host": "eu.shop.example", "response": max_age,
        "rows": [
            { "request": "GET /v1/products?x=1&filter[a]=b&page=2", "rule": "products", "entry": "a",
              "origin": "/v1/products?filter[a]=b&page=2" },
            { "request": "GET /v1/products?filter[a]=b&page=2", "headers": { "cookie": "sid=1" }, "entry": "a" },
            { "request": "GET /v1/products?filter[a]=c&page=2", "rule": "products" },
            { "request": "GET /v1/products/mine", "bypass": "rule-bypass" },
            { "request": "GET /v1/products/7", "rule": "product" },
            { "request": "GET /v1/orders/7", "bypass": "rule-bypass" },
            { "request": "GET /v1/undescribed", "bypass": "rule-bypass" },
            { "request": "GET /v1/products", "host": "us.shop.example", "bypass": "rule-bypass" },
        ]
    });
    assert_eq!(rules.check_table(&serde_json::from_value(table).unwrap()), Ok(()));
}

#[test]
fn bypasses_and_more_specific_paths_come_first() {
    let open = json!({ "get": { "security": [] } });
    let closed = json!({ "get": { "security": [{ "key": [] }] } });
    let api = json!({ "openapi": "3.0.3", "paths": {
        "/{a}/{b}": open,
        "/{a}/admin": closed,
        "/public/{page}": open,
        "/{a}/{b}/{c}": closed,
        "/x/{b}/y": open,
        "/same/{id}-{rev}": open,
        "/same/{name}": closed,
    } });
    let paths: Vec<_> =
        outline(&document(&api)).into_iter().map(|(_, path, bypass)| (path, bypass)).collect();
    let at = |path: &str| {
        paths.iter().position(|(own, _)| own == path).unwrap_or_else(|| panic!("{path}: {paths:?}"))
    };
    assert!(at("/{a}/admin") < at("/public/{page}"), "/public/admin needs authorisation");
    assert!(at("/public/{page}") < at("/{a}/{b}") && at("/{a}/admin") < at("/{a}/{b}"));
    assert!(at("/x/{b}/y") < at("/{a}/{b}/{c}"));
    assert!(paths[paths.iter().position(|(path, _)| path.starts_with("/same/")).unwrap()].1, "{paths:?}");
    assert_eq!(paths.iter().filter(|(path, _)| path.starts_with("/same/")).count(), 1, "{paths:?}");
}

#[test]
fn a_description_that_is_not_openapi_3_is_refused() {
    for text in ["", "{}", r#"{ "swagger": "2.0" }"#, r#"{ "openapi": "4.0.0" }"#] {
        assert!(made::document(text).is_err(), "{text}");
    }
    let broken = json!({ "openapi": "3.0.0", "paths": { "/": { "get": { "parameters": [{ "$ref": "other.json#/a" }] } } } });
    let error = made::document(&broken.to_string()).unwrap_err();
    assert_eq!(error.to_string(), "a parameter of get / has no name, or is in another file");
}

/// What is written in an odd way is never less safe, and makes a document that can be used.
#[test]
fn unusual_descriptions_make_safe_rules() {
    let api = json!({
        "openapi": "3.0.3",
        "security": [{ "key": [] }],
        "paths": {
            "/null": { "get": { "security": null } },
            "/object": { "get": { "security": {} } },
            "/{_}/{id}/{id}/{}": { "get": { "security": [] } },
            "/find": { "get": { "security": [], "parameters": [
                { "name": "page", "in": "query", "schema": { "type": "integer" } },
                { "name": "filter", "in": "query", "schema": { "allOf": [{ "$ref": "#/components/schemas/F" }] } }
            ] } },
            "/far": { "get": { "security": [], "parameters": [
                { "name": "filter", "in": "query", "schema": { "$ref": "other.json#/F" } }
            ] } }
        },
        "components": { "schemas": { "F": { "type": "object" } } }
    });
    let document = document(&api);
    for (name, path, is_bypass) in [
        ("get /null", "/null", true),
        ("get /object", "/object", true),
        ("get /{_}/{id}/{id}/{}", "/{segment_1}/{id}/{segment_3}/{segment_4}", false),
        ("get /find", "/find", false),
        ("get /far", "/far", false),
    ] {
        assert!(outline(&document).contains(&(name.into(), path.into(), is_bypass)), "{name}: {document}");
    }
    for rule in document["rules"].as_array().unwrap() {
        let is_whole = ["/find", "/far"].iter().any(|path| rule["path"] == **path);
        assert!(!is_whole || rule["keep_query"].is_null(), "its properties are parameters: {rule}");
    }
}

#[test]
fn servers_may_be_named_without_a_scheme() {
    for (url, host, path) in
        [("//h.example/p/", "h.example", "/p/a"), ("https://h.example", "h.example", "/a")]
    {
        let api = json!({
            "openapi": "3.1.0", "servers": [{ "url": url }], "paths": { "/a": { "get": { "security": [] } } }
        });
        let rule = &document(&api)["rules"][0];
        assert_eq!((&rule["host"], &rule["path"]), (&json!([host]), &json!(path)), "{url}");
    }
}
