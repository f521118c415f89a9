//! Tags from rules and from fields of responses.

use http::{HeaderName, Request};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    FillLayer, KeyRule, KeyRules, LookupLayer, MemoryStore, Purge, ReadThroughLayer, StoreLayer,
    tags::{Separator, TagFields},
};

use crate::support::{
    Body, Failure, ScriptedOrigin, bytes, call, fixed, get_request, response, status, store,
};

#[derive(Clone)]
struct Tenant(&'static str);

fn layer(rules: KeyRules) -> ReadThroughLayer<MemoryStore, KeyRules> {
    ReadThroughLayer::builder(store()).key(rules).rules(fixed(3_600_000)).build().unwrap()
}

/// Which of the tags purge the response to this request.
async fn found(rules: &KeyRules, uri: &str, tags: &[&'static str]) -> Vec<&'static str> {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let layer = layer(rules.clone());
    let (service, purge) = (layer.layer(origin.clone()), layer.purge());
    let ask = async || {
        let mut request = get_request(uri);
        request.extensions_mut().insert(Tenant("acme, inc"));
        call(&service, request).await
    };
    let mut found = Vec::new();
    for tag in tags {
        ask().await;
        let before = origin.calls();
        purge.tag(tag);
        ask().await;
        if origin.calls() > before {
            found.push(*tag);
        }
    }
    assert_eq!(origin.calls(), found.len() + 1, "{uri} is stored");
    found
}

fn rules() -> KeyRules {
    KeyRules::builder()
        .rule(
            KeyRule::path("/list")
                .keep_query(["pid", "filter_*"])
                .tags(["product-{pid}", "by-{filter_color}"]),
        )
        .rule(KeyRule::path("/t/{id}").extensions(["tenant"]).tags(["{tenant}/{id}", "tenant-{tenant}"]))
        .rule(KeyRule::path("/files/{*name}").tags(["folder-{path.2}", "sub-{path.3}", "files"]))
        .extension("tenant", |tenant: &Tenant| Some(tenant.0.as_bytes().into()))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_tag_names_captures_kept_parameters_extensions_and_segments() {
    let none: [&str; 0] = [];
    for (uri, tags, expected) in [
        ("/list?pid=7&page=2", &["product-7", "product-", "product-{pid}", "by-"][..], &["product-7"][..]),
        ("/list?filter_color=red", &["by-red", "product-", "product-{pid}"], &["by-red"]),
        ("/list?pid=a%20b,c", &["product-a%20b%2Cc", "product-a b,c", "product-a"], &["product-a%20b%2Cc"]),
        ("/list", &["product-", "by-"], &none),
        ("/list?pid=", &["product-"], &["product-"]),
        (
            "/t/7",
            &["acme%2C%20inc/7", "tenant-acme%2C%20inc", "tenant-acme"],
            &["acme%2C%20inc/7", "tenant-acme%2C%20inc"],
        ),
        (
            "/files/a/b.css",
            &["folder-a", "sub-b.css", "files", "folder-b.css"],
            &["folder-a", "sub-b.css", "files"],
        ),
        ("/files/caf%C3%A9", &["folder-café", "sub-", "files"], &["folder-café", "files"]),
    ] {
        assert_eq!(found(&rules(), &format!("http://h{uri}"), tags).await, expected, "{uri}");
    }
}

/// Services differ in which of several values they take: a purge of each of them reaches the response.
#[tokio::test(start_paused = true)]
async fn a_repeated_parameter_gives_a_tag_for_each_value() {
    for query in
        ["pid=7&pid=8", "pid=7&PID=8", "pid[]=7&pid[]=8", "pid=7;pid=8", "p%69d=7&pid=8", "pid=%37&pid=8"]
    {
        let uri = format!("http://h/list?{query}");
        assert_eq!(
            found(&rules(), &uri, &["product-7", "product-8", "product-9"]).await,
            ["product-7", "product-8"],
            "{query}"
        );
    }
}

/// A response with more tags than are kept is not stored, so that no purge can miss it.
#[tokio::test(start_paused = true)]
async fn too_many_values_are_not_stored() {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let service = layer(rules()).layer(origin.clone());
    for (values, calls) in [(900, 1), (2_000, 2)] {
        let query = (0..values).map(|n| format!("pid={n}")).collect::<Vec<_>>().join("&");
        let before = origin.calls();
        for _ in 0..2 {
            call(&service, get_request(&format!("http://h/list?{query}"))).await;
        }
        assert_eq!(origin.calls() - before, calls, "{values}");
    }
}

#[test]
fn tags_with_unknown_placeholders_are_refused() {
    let path = KeyRule::path;
    for (rule, says) in [
        (path("/a/{id}").tags(["a-{ID}"]), "invalid tag"),
        (path("/a/{_}").forward_unkeyed().tags(["a-{_}"]), "invalid tag"),
        (path("/a").tags(["a-{pid}"]), "invalid tag"),
        (path("/a").ignore_query(["pid"]).tags(["a-{pid}"]), "invalid tag"),
        (path("/a").keep_query(["pid"]).tags(["a-{pdi}"]), "invalid tag"),
        (path("/a").tags(["a-{path.0}"]), "invalid tag"),
        (path("/a").tags(["a-{path.33}"]), "invalid tag"),
        (path("/a").tags(["a-{tenant}"]), "invalid tag"),
        (path("/a").tags(["a-{pid"]), "invalid tag"),
        (path("/a").keep_query(["a", "b"]).tags(["{a}-{b}"]), "several parameters"),
        (path("/a/{pid}").keep_query(["pid"]).tags(["a-{pid}"]), "is ambiguous"),
        (path("/a").keep_query(["path.*"]).tags(["a-{path.1}"]), "is ambiguous"),
    ] {
        let error = KeyRules::builder().rule(rule.clone()).build().expect_err(&format!("{rule:?}"));
        assert!(error.to_string().contains(says), "{error}");
    }
}

const OWN: [(&str, Separator); 4] = [
    ("xkey", Separator::Space),
    ("Edge-Cache-Tag", Separator::Comma),
    ("X-Drupal-Cache-Tags", Separator::Space),
    ("X-Magento-Tags", Separator::Comma),
];

const FIELDS: [(&str, &str); 6] = [
    ("xkey", "a b"),
    ("edge-cache-tag", "c, d e"),
    ("x-drupal-cache-tags", "node:1 node_list"),
    ("x-magento-tags", "cat_p_1,cat_c"),
    ("surrogate-key", "f,g"),
    ("x-other", "h"),
];

/// All of them, by a setting of the stack and by one of the rules.
fn stacks() -> [ReadThroughLayer<MemoryStore, KeyRules>; 3] {
    let own = || OWN.map(|(name, separator)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), separator));
    let by_rules = KeyRules::builder().tag_fields(OWN).build().unwrap();
    let half = KeyRules::builder().tag_fields(OWN[..2].to_vec()).build().unwrap();
    let none = KeyRules::builder().build().unwrap();
    let rules = fixed(3_600_000);
    let build = |key, fields: TagFields| {
        ReadThroughLayer::builder(store()).key(key).tag_fields(fields).rules(rules.clone()).build().unwrap()
    };
    [
        build(by_rules, TagFields::default()),
        build(none, TagFields::from_iter(own())),
        build(half, own().into_iter().skip(2).collect()),
    ]
}

#[tokio::test(start_paused = true)]
async fn configured_fields_give_tags() {
    for layer in stacks() {
        let origin = ScriptedOrigin::with_future(|n, _| async move { response(&FIELDS, n.to_string()) });
        let (service, purge) = (layer.layer(origin.clone()), layer.purge());
        let mut calls = 1;
        for tag in ["a", "b", "c", "d e", "node:1", "node_list", "cat_p_1", "cat_c", "f", "g"] {
            call(&service, get_request("http://h/")).await;
            assert_eq!(origin.calls(), calls, "stored before {tag}");
            purge.tag(tag);
            call(&service, get_request("http://h/")).await;
            calls += 1;
            assert_eq!(origin.calls(), calls, "{tag}");
        }
        for tag in ["h", "a b", "d", "e", "f,g"] {
            purge.tag(tag);
            call(&service, get_request("http://h/")).await;
            assert_eq!(origin.calls(), calls, "{tag}");
        }
    }
}

/// In every case: fetched, stored, revalidated, not stored, without a key.
#[tokio::test(start_paused = true)]
async fn configured_tag_fields_are_not_shown_to_clients() {
    let left = |response: http::Response<tower_readthrough::Body<Body>>| async move {
        let names: Vec<_> =
            FIELDS.iter().filter(|(name, _)| response.headers().contains_key(*name)).collect();
        let names: Vec<_> = names.into_iter().map(|(name, _)| *name).collect();
        bytes(response).await;
        names
    };
    for (at, layer) in stacks().into_iter().enumerate() {
        let origin = ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
            let mut answer = match request.headers().contains_key("if-none-match") {
                true => status(304),
                false => response(&FIELDS, n.to_string()),
            };
            answer.headers_mut().extend(response(&FIELDS, "").headers().clone());
            answer.headers_mut().insert("etag", "\"1\"".parse().unwrap());
            if request.uri().path() == "/no-store" {
                answer.headers_mut().insert("cache-control", "no-store".parse().unwrap());
            }
            answer
        });
        let (service, purge) = (layer.layer(origin.clone()), layer.purge());
        let ask = async |request| left(service.clone().oneshot(request).await.unwrap()).await;
        for how in ["fetched", "stored"] {
            assert_eq!(ask(get_request("http://h/")).await, ["x-other"], "{how} {at}");
        }
        assert_eq!(origin.calls(), 1);
        purge.soft().everything();
        assert_eq!(ask(get_request("http://h/")).await, ["x-other"], "confirmed {at}");
        assert_eq!(origin.calls(), 2);
        assert_eq!(ask(get_request("http://h/no-store")).await, ["x-other"], "not stored {at}");
        let post = Request::post("http://h/").body(Body::empty()).unwrap();
        assert_eq!(ask(post).await, ["x-other"], "without a key {at}");
    }
}

/// Single layers are configured with the fields, or take them from the rules.
#[tokio::test(start_paused = true)]
async fn single_layers_use_tag_fields_too() {
    async fn check<S, B>(service: S, purge: Purge, origin: &ScriptedOrigin)
    where
        S: tower::Service<Request<Body>, Response = http::Response<B>, Error = Failure> + Clone,
        B: http_body::Body,
        B::Error: std::fmt::Debug,
    {
        let response = service.clone().oneshot(get_request("http://h/")).await.unwrap();
        assert!(!response.headers().contains_key("xkey"));
        bytes(response).await;
        call(&service, get_request("http://h/")).await;
        purge.tag("b");
        call(&service, get_request("http://h/")).await;
        assert_eq!(origin.calls(), 2);
    }
    let rules = || KeyRules::builder().tag_fields(OWN).build().unwrap();
    let origin = || ScriptedOrigin::with_future(|n, _| async move { response(&FIELDS, n.to_string()) });

    let layer = StoreLayer::new(store()).key(rules()).rules(fixed(60_000));
    let of_store = origin();
    check(layer.layer(of_store.clone()), layer.purge(), &of_store).await;

    let (store, of_fill) = (store(), origin());
    let fields = TagFields::from_iter([(HeaderName::from_static("xkey"), Separator::Space)]);
    let lookup = LookupLayer::new(store.clone());
    let fill = FillLayer::new(store).tag_fields(fields).rules(fixed(60_000));
    let purge = lookup.purge();
    check(lookup.layer(fill.layer(of_fill.clone())), purge, &of_fill).await;
}

#[test]
fn a_field_that_clients_read_is_refused() {
    for name in ["content-type", "Set-Cookie", "cache-control", "transfer-encoding", "a b", ""] {
        let rules = KeyRules::builder().tag_fields([(name, Separator::Space)]).build();
        let error = rules.expect_err(name).to_string();
        assert!(error.contains("`tag_fields`") && error.contains("xkey"), "{error}");
    }
    let fields = TagFields::from_iter([(HeaderName::from_static("vary"), Separator::Space)]);
    let error = ReadThroughLayer::builder(store()).tag_fields(fields).build().unwrap_err().to_string();
    assert!(error.contains("`tag_fields`: `vary`"), "{error}");
}

#[cfg(feature = "serde")]
#[test]
fn documents_name_the_fields_with_their_separators() {
    let text = r#"{ "tag_fields": { "xkey": "space", "X-Magento-Tags": "comma" } }"#;
    let rules: KeyRules = serde_json::from_str(text).unwrap();
    let fields = tower_readthrough::KeyExtractor::tag_fields(&rules);
    let expected = [("x-magento-tags", Separator::Comma), ("xkey", Separator::Space)];
    assert!(fields.iter().map(|(name, separator)| (name.as_str(), separator)).eq(expected));
    for (text, says) in [
        (
            r#"{ "tag_fields": { "xkey": ";" } }"#,
            "`tag_fields`: unknown variant `;`, expected `space` or `comma`",
        ),
        (r#"{ "tag_fields": ["xkey"] }"#, "`tag_fields`: invalid type"),
        (r#"{ "tag_fields": { "vary": "space" } }"#, "`vary` is not a field for caches alone"),
    ] {
        let error = serde_json::from_str::<KeyRules>(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
