use super::*;
use crate::http::conditions::PRECONDITIONS;

#[test]
fn present_fields_are_found() {
    let seen = |name: &HeaderName| {
        let lines = [(header::HOST, "h"), (name.clone(), "x")];
        let request =
            lines.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
        let RequestFields { credentials, has_precondition, has_range, accept_encoding, .. } =
            RequestFields::of(&request);
        let credentials_alone = Credentials::of(&request, &CredentialNames::default(), &Keyed::default());
        assert_eq!(credentials, credentials_alone);
        (credentials != Credentials::default(), has_precondition, has_range, accept_encoding != Line::None)
    };
    for name in PRECONDITIONS {
        assert_eq!(seen(&name), (false, true, false, false));
    }
    let tokens = WELL_KNOWN.iter().map(|name| HeaderName::from_static(name));
    for name in tokens.chain([header::AUTHORIZATION, header::COOKIE]) {
        assert_eq!(seen(&name), (true, false, false, false), "{name}");
    }
    assert_eq!(seen(&header::RANGE), (false, false, true, false));
    assert_eq!(seen(&header::ACCEPT_ENCODING), (false, false, false, true));
    assert_eq!(seen(&header::ACCEPT), (false, false, false, false));
}

#[test]
fn one_line_differs_from_several() {
    let mut request = HeaderMap::new();
    let (gzip, br) = (HeaderValue::from_static("gzip"), HeaderValue::from_static("br"));
    request.insert(header::ACCEPT_ENCODING, gzip.clone());
    assert_eq!(RequestFields::of(&request).accept_encoding, Line::One(&gzip));
    request.append(header::ACCEPT_ENCODING, br);
    assert_eq!(RequestFields::of(&request).accept_encoding, Line::Several);
}

#[test]
fn the_first_line_comes_with_whether_it_is_the_only_one() {
    let mut headers = HeaderMap::new();
    for (name, line) in [("a", "1"), ("b", "2"), ("c", "3"), ("b", "4")] {
        headers.append(name, HeaderValue::from_static(line));
    }
    let first = |name| first_line(&headers, &HeaderName::from_static(name));
    assert_eq!(first("a"), Some((&HeaderValue::from_static("1"), false)));
    assert_eq!(first("b"), Some((&HeaderValue::from_static("2"), true)));
    assert_eq!(first("c"), Some((&HeaderValue::from_static("3"), false)));
    assert_eq!(first("d"), None);
}

fn overrides(name: &str) -> Overrides {
    let mut overrides = Overrides::default();
    overrides.note(&HeaderName::from_bytes(name.as_bytes()).unwrap());
    overrides
}

#[test]
fn every_listed_field_is_found_in_both_spellings() {
    let nothing = Overrides::default();
    for (names, expected) in [
        (&METHOD_OVERRIDES[..], Overrides { method: true, ..nothing }),
        (&TARGET_OVERRIDES[..], Overrides { target: true, ..nothing }),
        (&["x-forwarded-for", "from", "x-requested-with", "host", "if-none-match"], nothing),
    ] {
        for name in names {
            assert_eq!(overrides(name), expected, "{name}");
            assert_eq!(overrides(&name.replace('-', "_")), expected, "{name}");
        }
    }
}

fn credentials(fields: &[&'static str], names: &CredentialNames, keyed: &Keyed) -> Credentials {
    let lines = fields.iter().map(|name| (HeaderName::from_static(name), "x".parse().unwrap()));
    Credentials::of(&lines.collect(), names, keyed)
}

#[test]
fn a_named_field_counts_as_authorization_and_a_well_known_one_as_a_cookie() {
    let (default, keyed) = (CredentialNames::default(), Keyed::default());
    let none = Credentials::default();
    let (authorization, token) =
        (Credentials { authorization: true, ..none }, Credentials { token: true, ..none });
    for name in WELL_KNOWN {
        assert_eq!(credentials(&[name], &default, &keyed), token, "{name}");
        assert_eq!(credentials(&[name], &CredentialNames::only(["x"]), &keyed), none, "{name}");
    }
    assert_eq!(credentials(&["authorization"], &default, &keyed), authorization);
    assert_eq!(credentials(&["cookie"], &default, &keyed), Credentials { cookie: true, ..none });
    for name in ["x-mine", "accept"] {
        assert_eq!(credentials(&[name], &default, &keyed), none);
        assert_eq!(credentials(&[name], &default.clone().with([name]), &keyed), authorization);
    }
    assert_eq!(credentials(&["authorization"], &CredentialNames::only([]), &keyed), authorization);
    let both = CredentialNames::default().with(["x-a"]).with(["X-B"]);
    assert_eq!(credentials(&["x-a"], &both, &keyed), credentials(&["x-b"], &both, &keyed));
    assert_eq!(both.invalid(), None);
    assert_eq!(both.with(["a b"]).invalid(), Some("a b"));
}

#[test]
fn a_field_in_the_key_is_not_a_credential() {
    let names = CredentialNames::default().with(["x-mine"]);
    let fields = ["authorization", "x-mine", "x-api-key"].map(HeaderName::from_static);
    let keyed = Keyed::new(fields.clone(), Some(CookieNames::new([])));
    let all = ["authorization", "x-mine", "x-api-key", "cookie"];
    assert_eq!(credentials(&all, &names, &keyed), Credentials::default());
    let by_prefix = Keyed::with_prefixes([], ["x-a".into()], None);
    let left =
        credentials(&["authorization", "x-api-key", "x-auth-token", "x_api_token"], &names, &by_prefix);
    assert_eq!(left, Credentials { authorization: true, ..Credentials::default() });
    let left = credentials(&["x-auth-token", "cookie"], &names, &Keyed::new(fields, None));
    assert_eq!(left, Credentials { authorization: false, cookie: true, token: true });
}
