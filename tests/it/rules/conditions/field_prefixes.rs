//! Fields with a listed prefix.

use super::*;

#[tokio::test(start_paused = true)]
async fn fields_with_a_listed_prefix_are_in_the_key_despite_a_guard() {
    for guard in [None, Some(Guard::new()), Some(Guard::only([""; 0]))] {
        let origin = by_fields();
        let mut keys = KeyRules::builder().rule(KeyRule::any().headers(["X-Tenant-*"]));
        let is_guarded = guard.is_some();
        if let Some(guard) = guard {
            keys = keys.guard(guard);
        }
        let service = stack_by(fixed(60_000), keys, &origin);
        for (fields, expected) in [
            (&[][..], "1"),
            (&[("x-tenant-id", "a")], "2 x-tenant-id=a"),
            (&[("x-tenant-id", "b")], "3 x-tenant-id=b"),
            (&[("x-tenant-id", "a"), ("x-tenant-plan", "c")], "4 x-tenant-id=a x-tenant-plan=c"),
            (&[("x-tenant-id", "a")], "2 x-tenant-id=a"),
        ] {
            assert_eq!(text(&service, request("GET", "http://h/", fields)).await, expected);
        }
        // A service behind CGI takes it for the same, so it is in the key, or removed.
        let misspelt = text(&service, request("GET", "http://h/", &[("x_tenant_id", "evil")])).await;
        assert!(
            if is_guarded { !misspelt.contains("evil") } else { misspelt.starts_with('5') },
            "{misspelt}"
        );
        assert_eq!(text(&service, request("GET", "http://h/", &[])).await, "1");
    }
}

#[test]
fn invalid_prefixes_and_those_that_a_guard_removes_are_refused() {
    let error = |keys: KeyRulesBuilder| keys.build().unwrap_err().to_string();
    for name in ["*", "x-*-y", "if-*", "h*", "x-**"] {
        assert!(
            error(KeyRules::builder().rule(KeyRule::any().headers([name]))).contains("is not a header field")
        );
    }
    let keyed = || KeyRules::builder().rule(KeyRule::any().headers(["x-forwarded-*"]));
    assert!(
        error(keyed().guard(Guard::new())).contains("`x-forwarded-*` is in the key, but the guard removes")
    );
    assert!(keyed().guard(Guard::new().keyed(["x-forwarded-*"])).build().is_ok());
    assert!(keyed().build().is_ok());
}

/// A credential in the key gives each of its values an entry of its own.
#[tokio::test(start_paused = true)]
async fn a_credential_with_a_listed_prefix_is_in_the_key() {
    let origin = ScriptedOrigin::with_future(|n, _| async move { response(&[], n.to_string()) });
    let service =
        stack_by(fixed(60_000), KeyRules::builder().rule(KeyRule::any().headers(["x-api-*"])), &origin);
    for (key, expected) in [("a", "1"), ("a", "1"), ("b", "2")] {
        assert_eq!(text(&service, request("GET", "http://h/", &[("x-api-key", key)])).await, expected);
    }
}

/// Beside what the cache reads, only what is in the key reaches the origin.
#[tokio::test(start_paused = true)]
async fn a_guard_without_names_sends_on_only_what_is_in_the_key() {
    let origin = by_fields();
    let rule = KeyRule::any().headers(["x-tenant-*", "accept"]).cookies(["lang"]);
    let keys = KeyRules::builder().rule(rule).guard(Guard::only([""; 0]).keyed(["x-version"]));
    let service = stack_by(fixed(60_000), keys, &origin);
    let fields: Fields = &[
        ("accept", "text/html"),
        ("accept-encoding", "br"),
        ("authorization", "secret"),
        ("cookie", "lang=de; sid=1"),
        ("user-agent", "x"),
        ("x-real-ip", "192.0.2.1"),
        ("x-tenant-id", "a"),
        ("x-version", "2"),
    ];
    assert_eq!(
        text(&service, request("GET", "http://h/", fields)).await,
        "1 accept-encoding=br accept=text/html cookie=lang=de x-tenant-id=a x-version=2",
    );
}
