//! Rules that are for some requests only, by more than their path.

use axum::body::Body;
use http::{Request, header};
use tower::Layer;
use tower_readthrough::{
    Guard, KeyRule, KeyRules, KeyRulesBuilder, MemoryStore, ReadThrough, ReadThroughService, Rules,
};

use crate::support::open::{Origin, call, fixed, response, store};

type Service = ReadThroughService<Origin, MemoryStore, KeyRules>;

fn stack_by(rules: Rules, keys: KeyRulesBuilder, origin: &Origin) -> Service {
    let keys = keys.build().unwrap();
    ReadThrough::new(store()).key(keys).rules(rules).build().unwrap().layer(origin.clone())
}

fn request(uri: &str, fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = Request::get(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn text(service: &Service, request: Request<Body>) -> String {
    String::from_utf8(call(service, request).await.1.to_vec()).unwrap()
}

/// Says which cookies it got, and that all may have the page.
fn by_cookie() -> Origin {
    Origin::new(|_, request: Request<Body>| async move {
        let cookies = request.headers().get_all(header::COOKIE).iter().map(|line| line.to_str().unwrap());
        response(&[("cache-control", "max-age=60")], cookies.collect::<Vec<_>>().join("|"))
    })
}

mod guards {
    use super::*;

    const EVIL: &[(&str, &str)] = &[("cookie", "name=evil")];

    #[tokio::test(start_paused = true)]
    async fn a_cookie_that_no_rule_names_is_in_the_key() {
        let origin = by_cookie();
        let guarded = stack_by(Rules::new(), KeyRules::builder().guard(Guard::new()), &origin);
        for (fields, calls) in [
            (EVIL, 1),
            (EVIL, 1),
            (&[], 2),
            (&[("cookie", "a=1")], 3),
            (&[("cookie", "a"), ("cookie", "1")], 4),
        ] {
            let seen: Vec<&str> = fields.iter().map(|(_, value)| *value).collect();
            assert_eq!(text(&guarded, request("http://h/", fields)).await, seen.join("|"));
            assert_eq!(origin.calls(), calls);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_about_cookies_holds_in_place_of_the_guard() {
        let said = |rule: KeyRule| KeyRules::builder().rule(rule).guard(Guard::new());
        let by_guard = |guard| KeyRules::builder().guard(guard);
        for (rules, keys, seen) in [
            (Rules::new(), said(KeyRule::any().cookies([])), ""),
            (Rules::new().cookies([]), KeyRules::builder().guard(Guard::new()), ""),
            (Rules::new().cookies(["a"]), KeyRules::builder().guard(Guard::new()), ""),
            (Rules::new().cookies(["name"]), said(KeyRule::any().cookies([])), ""),
            (Rules::new(), by_guard(Guard::new().headers(["cookie"])), ""),
            (Rules::new(), by_guard(Guard::only(["accept"])), ""),
            (Rules::new(), by_guard(Guard::only(["cookie"])), "name=evil"),
            (Rules::new(), KeyRules::builder(), "name=evil"),
        ] {
            let origin = by_cookie();
            let service = stack_by(rules, keys.clone(), &origin);
            assert_eq!(text(&service, request("http://h/", EVIL)).await, seen, "{keys:?}");
            let shares = !format!("{keys:?}").contains("only: Some");
            let other = if shares { seen } else { "" };
            assert_eq!(text(&service, request("http://h/", &[])).await, other, "{keys:?}");
        }
    }

    /// Without freshness of its own a response to a client's own cookies is nobody else's, nor stored.
    #[tokio::test(start_paused = true)]
    async fn a_cookie_in_the_key_of_a_guard_is_still_a_credential() {
        let origin = Origin::new(|n, _| async move { response(&[], n.to_string()) });
        let service = stack_by(fixed(60_000), KeyRules::builder().guard(Guard::new()), &origin);
        for expected in ["1", "2"] {
            assert_eq!(text(&service, request("http://h/", EVIL)).await, expected);
        }
    }
}

mod prefixes {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cookies_that_begin_so_are_in_the_key_and_reach_the_origin() {
        let origin = by_cookie();
        let rule = KeyRule::any().cookies(["wordpress_logged_in_*", "lang"]);
        let service = stack_by(fixed(60_000), KeyRules::builder().rule(rule), &origin);
        for (cookies, seen, calls) in [
            ("_ga=1", "", 1),
            ("_ga=2; wordpress_test_cookie=1", "", 1),
            ("lang=de; _ga=3; wordpress_logged_in_a1=bob", "wordpress_logged_in_a1=bob; lang=de", 2),
            ("wordpress_logged_in_a1=bob; lang=de", "wordpress_logged_in_a1=bob; lang=de", 2),
            ("wordpress_logged_in_a1=eve; lang=de", "wordpress_logged_in_a1=eve; lang=de", 3),
            ("wordpress_logged_in_b2=bob; lang=de", "wordpress_logged_in_b2=bob; lang=de", 4),
        ] {
            assert_eq!(text(&service, request("http://h/", &[("cookie", cookies)])).await, seen);
            assert_eq!(origin.calls(), calls, "{cookies}");
        }
    }
}
