//! Cookies and the guard.

use super::*;

const EVIL: &[(&str, &str)] = &[("cookie", "name=evil")];

#[tokio::test(start_paused = true)]
async fn a_cookie_that_no_rule_names_is_in_the_key() {
    let origin = by_cookie();
    let guarded = stack_by(Rules::new(), KeyRules::builder().guard(Guard::new()), &origin);
    for (fields, calls) in
        [(EVIL, 1), (EVIL, 1), (&[], 2), (&[("cookie", "a=1")], 3), (&[("cookie", "a"), ("cookie", "1")], 4)]
    {
        let seen: Vec<&str> = fields.iter().map(|(_, value)| *value).collect();
        assert_eq!(text(&guarded, request("GET", "http://h/", fields)).await, seen.join("|"));
        assert_eq!(origin.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn cookie_settings_of_a_rule_replace_those_of_the_guard() {
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
        assert_eq!(text(&service, request("GET", "http://h/", EVIL)).await, seen, "{keys:?}");
        let shares = !format!("{keys:?}").contains("only: Some");
        let other = if shares { seen } else { "" };
        assert_eq!(text(&service, request("GET", "http://h/", &[])).await, other, "{keys:?}");
    }
}

/// A response to cookies without freshness of its own is neither shared nor stored.
#[tokio::test(start_paused = true)]
async fn a_cookie_in_the_key_of_a_guard_is_still_a_credential() {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let service = stack_by(fixed(60_000), KeyRules::builder().guard(Guard::new()), &origin);
    for expected in ["1", "2"] {
        assert_eq!(text(&service, request("GET", "http://h/", EVIL)).await, expected);
    }
}
