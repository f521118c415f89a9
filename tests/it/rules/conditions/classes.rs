//! Classes of fields.

use super::*;
use tower_readthrough::{CacheKey, Classes, KeyExtractor, KeyLayer, LookupLayer, Purge, When};

const PHONE: (&str, &str) = ("user-agent", "Mozilla/5.0 (iPhone; 1)");

fn device() -> Classes {
    Classes::of("User-Agent", "X-Device")
        .class("mobile", ["*iphone*", "*Android*Mobile*"])
        .otherwise("desktop")
}

fn by_device() -> KeyRulesBuilder {
    KeyRules::builder()
        .classes(device())
        .rule(KeyRule::path("/plain"))
        .rule(KeyRule::path("/{*page}").headers(["x-device"]))
}

/// Two phones share a page, and the origin sees neither a made-up class nor the user agent.
#[tokio::test(start_paused = true)]
async fn requests_of_a_class_share_a_response_and_the_origin_sees_only_the_class() {
    for guard in [None, Some(Guard::new()), Some(Guard::only([""; 0]))] {
        let mut keys = by_device();
        if let Some(guard) = guard {
            keys = keys.guard(guard);
        }
        let service = stack_by(fixed(60_000), keys, &by_fields());
        for (fields, expected) in [
            (&[PHONE][..], "1 x-device=mobile"),
            (&[("user-agent", "Mozilla/5.0 (iPhone; 2)")], "1 x-device=mobile"),
            (&[("user-agent", "Mozilla/5.0 (Linux; Android 15) Mobile Safari")], "1 x-device=mobile"),
            (&[("user-agent", "Mozilla/5.0 (X11)")], "2 x-device=desktop"),
            (&[], "2 x-device=desktop"),
            (&[("x-device", "mobile")], "2 x-device=desktop"),
            (&[("x-device", "<evil>"), PHONE], "1 x-device=mobile"),
            (&[("x_device", "<evil>"), ("user_agent", "iPhone")], "2 x-device=desktop"),
        ] {
            assert_eq!(text(&service, request("GET", "http://h/a", fields)).await, expected, "{fields:?}");
        }
    }
}

/// A made-up class would reach the origin of a page for all clients.
#[tokio::test(start_paused = true)]
async fn without_the_class_in_the_key_the_field_does_not_reach_the_origin() {
    let service = stack_by(fixed(60_000), by_device(), &by_fields());
    let fields = [("x-device", "<evil>"), ("X_Device", "<evil>"), PHONE];
    let expected = format!("1 user-agent={}", PHONE.1);
    assert_eq!(text(&service, request("GET", "http://h/plain", &fields)).await, expected);
    let mut own = request("GET", "http://h/a", &fields);
    own.extensions_mut().insert(CacheKey::new("a key that knows of no class"));
    assert_eq!(text(&service, own).await, format!("2 user-agent={}", PHONE.1));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_varies_by_the_classified_field_is_shared_by_a_class() {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        response(&[("vary", "User-Agent, X-Device, Accept")], n.to_string())
    });
    let format =
        Classes::of("accept", "accept").class("image/avif", ["*image/avif*"]).otherwise("image/jpeg");
    let rule = KeyRule::any().headers(["x-device", "accept"]);
    let service =
        stack_by(fixed(60_000), KeyRules::builder().classes(device()).classes(format).rule(rule), &origin);
    for (agent, accept, expected) in [
        ("iPhone 1", "image/avif", "1"),
        ("iPhone 2", "*/*, image/avif;q=0.9", "1"),
        ("iPhone 3", "*/*", "2"),
        ("other", "image/webp", "3"),
        ("another", "text/html", "3"),
    ] {
        let fields = [("user-agent", agent), ("accept", accept)];
        assert_eq!(text(&service, request("GET", "http://h/", &fields)).await, expected, "{agent} {accept}");
    }
}

/// The class replaces the value if both have one name, and is not classified again.
#[tokio::test(start_paused = true)]
async fn a_class_may_replace_the_field_itself() {
    let format = Classes::of("accept", "accept")
        .class("best", ["image/*"])
        .class("image/x", ["best"])
        .otherwise("*/*");
    let keys = || {
        let rule = KeyRule::path("/images/{*all}").headers(["accept"]);
        KeyRules::builder().classes(format.clone()).rule(rule).build().unwrap()
    };
    let (origin, store) = (by_fields(), store());
    let stack = tower::ServiceBuilder::new()
        .layer(KeyLayer::new(keys()))
        .layer(LookupLayer::new(store.clone()).key(keys()).rules(fixed(60_000)))
        .layer(tower_readthrough::FillLayer::new(store.clone()).rules(fixed(60_000)))
        .service(origin.clone());
    for (accept, expected) in
        [("image/a", "1 accept=best"), ("image/b", "1 accept=best"), ("best", "2 accept=image/x")]
    {
        let body = call(&stack, request("GET", "http://h/images/1", &[("accept", accept)])).await.1;
        assert_eq!(body, expected);
    }
    let other = call(&stack, request("GET", "http://h/", &[("accept", "image/a")])).await.1;
    assert_eq!(other, "3 accept=image/a");
    Purge::of(store, keys()).url("http://h/images/1").unwrap();
    assert_eq!(
        call(&stack, request("GET", "http://h/images/1", &[("accept", "image/b")])).await.1,
        "4 accept=best"
    );
}

/// A field removed for the origin is still known to a refresh, and to a layer below.
#[tokio::test(start_paused = true)]
async fn a_class_is_known_after_its_field_was_removed() {
    let rules = || by_device().build().unwrap();
    let keys = rules();
    let mut head = request("GET", "http://h/a", &[PHONE]).into_parts().0;
    keys.note(&mut head);
    let key = keys.key(&head);
    for _ in 0..2 {
        keys.normalise(&mut head);
        assert_eq!(keys.key(&head), key);
        assert_eq!(head.headers.get("x-device").unwrap(), "mobile");
        assert!(!head.headers.contains_key("user-agent"));
    }
    // The class of another request is computed anew.
    keys.note(&mut head);
    assert_ne!(keys.key(&head), key);

    let stale = KeyRule::any().headers(["x-device"]).stale_while_revalidate_for(secs(9));
    let keys = KeyRules::builder().classes(device()).rule(stale);
    let service = stack_by(fixed(100), keys, &by_fields());
    for expected in ["1 x-device=mobile", "1 x-device=mobile", "2 x-device=mobile"] {
        assert_eq!(text(&service, request("GET", "http://h/a", &[PHONE])).await, expected);
        tokio::time::sleep(ms(if expected.starts_with('1') { 101 } else { 0 })).await;
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_see_the_field_before_it_is_classified() {
    let when = When::new().headers(["user-agent: *bot*"]);
    let keys = KeyRules::builder()
        .classes(device())
        .rule(KeyRule::any().when(when))
        .rule(KeyRule::any().headers(["x-device"]));
    let service = stack_by(fixed(60_000), keys, &by_fields());
    for (agent, expected) in [
        ("a bot (iPhone)", "1 user-agent=a bot (iPhone)"),
        ("iPhone", "2 x-device=mobile"),
        ("an iPhone", "2 x-device=mobile"),
    ] {
        assert_eq!(text(&service, request("GET", "http://h/", &[("user-agent", agent)])).await, expected);
    }
}

#[test]
fn the_classified_field_is_not_in_the_key_itself() {
    let error = |keys: KeyRulesBuilder| keys.build().unwrap_err().to_string();
    let both = KeyRules::builder().classes(device()).rule(KeyRule::any().headers(["x-device", "user-agent"]));
    assert!(error(both).contains("only the class of `user-agent` is in the key"));
    let guarded = by_device().guard(Guard::new().keyed(["user-agent"]));
    assert!(error(guarded).contains("only the class of `user-agent` is in the key"));
    let unused = KeyRules::builder().classes(device()).rule(KeyRule::any());
    assert_eq!(error(unused), "key rules: classes `x-device`: no rule names this field in its `headers`",);
}

#[cfg(feature = "serde")]
#[test]
fn documents_have_classes() {
    let read = |text: &str| serde_json::from_str::<KeyRules>(text).map_err(|error| error.to_string());
    let document = |classes: &str| {
        format!(
            r#"{{ "classes": [{classes}], "rules": [
            {{ "path": "/plain" }}, {{ "path": "/{{*page}}", "headers": ["x-device"] }}
        ] }}"#
        )
    };
    let device = r#"{ "field": "user-agent", "name": "x-device", "otherwise": "desktop", "classes": [
        { "class": "mobile", "patterns": ["*iphone*", "*Android*Mobile*"] }
    ] }"#;
    let (read_rules, written) = (read(&document(device)).unwrap(), by_device().build().unwrap());
    for fields in [&[][..], &[PHONE]] {
        let head = request("GET", "http://h/a", fields).into_parts().0;
        assert_eq!(read_rules.key(&head), written.key(&head));
    }
    for (classes, says) in [
        (r#"{ "field": "user-agent" }"#, "missing field `name`"),
        (
            r#"{ "field": "user-agent", "name": "x-device", "classes": [] }"#,
            "there is no class beside `otherwise`",
        ),
        (
            r#"{ "field": "user-agent", "name": "x-device", "classes": [{ "class": "a", "patterns": [] }] }"#,
            "an empty list",
        ),
        (
            r#"{ "field": "user-agent", "name": "x-device", "classes": [{ "class": "a", "patterns": "a" }] }"#,
            "`otherwise` is missing",
        ),
        (
            r#"{ "field": "cookie", "name": "x-device", "otherwise": "b", "classes": [{ "class": "a", "patterns": "a" }] }"#,
            "nor credentials",
        ),
    ] {
        let error = read(&document(classes)).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}
