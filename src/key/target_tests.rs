use super::*;
use crate::key::DefaultKey;

fn head(uri: &str, host: Option<&str>) -> Parts {
    let mut request = Request::get(uri);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn references_within_the_origin_are_resolved() {
    let hasher = std::hash::RandomState::new();
    let base = head("http://h.example/a/b/c?q", None);
    let base = Target::of(&base, Origins::default());
    for (reference, path) in [
        ("/x", "/x"),
        ("http://H.example/x?y#z", "/x?y"),
        ("//h.example/x", "/x"),
        ("http://h.example", "/"),
        ("http://h.example?y", "/?y"),
        ("x", "/a/b/x"),
        ("x?y=/../", "/a/b/x?y=/../"),
        ("../x", "/a/x"),
        ("../../../x", "/x"),
        ("..", "/a/"),
        ("../..", "/"),
        (".", "/a/b/"),
        ("./x/./y", "/a/b/x/y"),
        ("?y", "/a/b/c?y"),
        ("", "/a/b/c?q"),
        ("#z", "/a/b/c?q"),
        ("x?to=http://other/", "/a/b/x?to=http://other/"),
    ] {
        let expected =
            Target::of(&head(&format!("http://h.example{path}"), None), Origins::default()).hash(&hasher);
        assert_eq!(
            base.hashes_of_reference(reference, &DefaultKey::new(), &hasher).first().copied(),
            Some(expected),
            "{reference}"
        );
    }
    for other in ["http://other/x", "//other/x", "https://h.example/x", "http://h.example:81/x", "http:///x"]
    {
        assert_eq!(
            base.hashes_of_reference(other, &DefaultKey::new(), &hasher).first().copied(),
            None,
            "{other}"
        );
    }
}

#[test]
fn the_scheme_of_all_requests_is_that_of_the_origin() {
    let hasher = std::hash::RandomState::new();
    let base = head("/a", Some("h.example:443"));
    let base = Target::of(&base, Origins { scheme: Some(&Scheme::HTTPS), hosts: None });
    let named = |reference| base.hashes_of_reference(reference, &DefaultKey::new(), &hasher).first().copied();
    for same in ["https://h.example/a", "https://h.example:443/a", "//h.example/a", "/%61"] {
        assert_eq!(named(same), Some(base.hash(&hasher)), "{same}");
    }
    assert_eq!(named("http://h.example:443/a"), None);
    assert_eq!(
        base.hash(&hasher),
        Target::of(&head("https://h.example/a", None), Origins::default()).hash(&hasher)
    );
}

#[test]
fn http1_and_http2_have_the_same_target() {
    let hasher = std::hash::RandomState::new();
    let hash = |uri, host| Target::of(&head(uri, host), Origins::default()).hash(&hasher);
    let http2 = hash("http://h.example/x?y", None);
    assert_eq!(http2, hash("/x?y", Some("H.Example")));
    assert_ne!(http2, hash("/x", Some("h.example")));
    assert_ne!(http2, hash("/x?y", Some("other")));
    let http1 = head("/a", Some("h.example"));
    let http1 = Target::of(&http1, Origins::default());
    let named =
        |reference| http1.hashes_of_reference(reference, &DefaultKey::new(), &hasher).first().copied();
    assert_eq!(named("http://h.example:80/a"), Some(http1.hash(&hasher)));
    assert_eq!(named("https://h.example/a"), None, "another origin, unless all requests are `https`");
}

proptest::proptest! {
    #[test]
    fn only_hosts_that_differ_by_case_are_the_same(host in "[a-cA-C.]{1,18}", at in 0..18_usize) {
        let hasher = std::hash::RandomState::new();
        let hash = |host: &str| Target::of(&head("/", Some(host)), Origins::default()).hash(&hasher);
        proptest::prop_assert_eq!(hash(&host), hash(&host.to_uppercase()));
        let mut other = host.clone();
        let at = at % host.len();
        other.replace_range(at..=at, "x");
        proptest::prop_assert_ne!(hash(&host), hash(&other));
        proptest::prop_assert_ne!(hash(&host), hash(&host[..at]));
    }

    #[test]
    fn any_reference_is_taken_without_panic(reference in ".{0,40}", path in "/[a-z./?]{0,20}") {
        if path.parse::<Uri>().is_ok() {
            let hasher = std::hash::RandomState::new();
            let _ = Target::of(&head(&path, Some("h")), Origins::default()).hashes_of_reference(&reference, &DefaultKey::new(), &hasher);
        }
    }
}

#[test]
fn dots_and_slashes_are_resolved_where_that_is_asked_for() {
    for (path, as_is, resolved, merged) in [
        ("", "/", "/", "/"),
        ("a", "/a", "/a", "/a"),
        ("a/", "/a/", "/a/", "/a/"),
        ("a//b", "/a//b", "/a//b", "/a/b"),
        ("a/./b/..", "/a/./b/..", "/a/", "/a/"),
        ("../..//a", "/../..//a", "//a", "/a"),
        ("...", "/...", "/...", "/..."),
    ] {
        let join = |resolves, merges| join_segments(path.split('/'), resolves, merges);
        assert_eq!(
            (join(false, false), join(true, false), join(true, true)),
            (as_is.into(), resolved.into(), merged.into())
        );
    }
}
