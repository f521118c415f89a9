//! Rules with conditions, and the cookies, fields and classes that they read.

mod classes;
mod field_prefixes;
mod guards;
mod prefixes;
mod when;

use http::{Request, header};
use tower::Layer;
use tower_readthrough::{
    Classes, Guard, KeyExtractor, KeyRule, KeyRules, KeyRulesBuilder, MemoryStore, ReadThrough,
    ReadThroughLayer, Rules,
};

use crate::support::{Body, ScriptedOrigin, call, fixed, ms, request, response, secs, store, text};

type Fields = &'static [(&'static str, &'static str)];
type Service = ReadThrough<ScriptedOrigin, MemoryStore, KeyRules>;

fn stack_by(rules: Rules, keys: KeyRulesBuilder, origin: &ScriptedOrigin) -> Service {
    let keys = keys.build().unwrap();
    ReadThroughLayer::builder(store()).key(keys).rules(rules).build().unwrap().layer(origin.clone())
}

/// Responds with the cookies that it got, for all clients.
fn by_cookie() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|_, request: Request<Body>| async move {
        let cookies = request.headers().get_all(header::COOKIE).iter().map(|line| line.to_str().unwrap());
        response(&[("cache-control", "max-age=60")], cookies.collect::<Vec<_>>().join("|"))
    })
}

/// The order changes when other fields are removed, and what is learned from a response is found by key.
#[tokio::test(start_paused = true)]
async fn the_order_of_keyed_fields_does_not_count() {
    const FIELDS: [(&str, &str); 6] = [
        ("cookie", "a=1"),
        ("x-t-a", "1"),
        ("hx-request", "2"),
        ("x-forwarded-host", "3"),
        ("x-t-b", "4"),
        ("hx-target", "5"),
    ];
    let any = || KeyRule::any().cookies([]).no_vary_search();
    for keys in [
        KeyRules::builder().rule(any().headers(["x-t-*"])),
        KeyRules::builder().guard(Guard::new()).rule(any()),
        KeyRules::builder().guard(Guard::new().keyed(["x-forwarded-host"])).rule(any().headers(["x-t-*"])),
    ] {
        let origin = by_cookie();
        let service = stack_by(Rules::new(), keys, &origin);
        for turn in 0..FIELDS.len() {
            let mut fields = FIELDS;
            fields.rotate_left(turn);
            assert_eq!(text(&service, request("GET", "http://h/", &fields)).await, "");
        }
        assert_eq!(origin.calls(), 1);
    }
    // A service behind CGI takes both for one field, and uses its first line or its last.
    let spellings = [("x-t-a", "1"), ("x_t_a", "2")];
    let rules = KeyRules::builder().rule(any().headers(["x-t-*"])).build().unwrap();
    let key = |fields: &[_]| rules.key(&request("GET", "http://h/", fields).into_parts().0);
    assert_ne!(key(&spellings), key(&[spellings[1], spellings[0]]));
}

/// Responds with the fields that it got.
fn by_fields() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|n, request: Request<Body>| async move {
        let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            format!(" {name}={}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = request.headers().iter().map(line).collect();
        lines.sort_unstable();
        response(&[], format!("{n}{}", lines.concat()))
    })
}

/// Rules that change no field are not asked to, on hits; all that may change one are.
#[test]
fn rules_say_whether_they_change_the_fields_of_requests() {
    let rule = || KeyRule::path("/a").headers(["x-device"]).cookies(["lang"]);
    let device = || Classes::of("user-agent", "x-device").class("mobile", ["*iPhone*"]).otherwise("desktop");
    for (rules, normalises) in [
        (KeyRules::builder().rule(rule()).ignore_query(["utm_*"]), false),
        (KeyRules::builder().rule(rule()).accept_encoding(["br"]), true),
        (KeyRules::builder().rule(rule()).accept_language(["de"]), true),
        (KeyRules::builder().rule(rule()).guard(Guard::new()), true),
        (KeyRules::builder().rule(rule()).classes(device()), true),
    ] {
        assert_eq!(rules.build().unwrap().normalises(), normalises);
    }
}
