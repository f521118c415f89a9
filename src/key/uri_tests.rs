use super::*;
use http::Request;
use proptest::prelude::*;

fn key(request: http::request::Builder) -> Option<CacheKey> {
    DefaultKey::new().key(&request.body(()).unwrap().into_parts().0)
}

fn at(uri: &str) -> http::request::Builder {
    Request::get(uri)
}

#[test]
fn the_parts_of_another_extractor_stay() {
    for uri in ["http://h/p", "https://h/p", "/p"] {
        let head = at(uri).header("host", "h").body(()).unwrap().into_parts().0;
        let keys = ["one", "two"].map(|tenant| {
            let mut key = KeyBuffer::new();
            key.push(tenant);
            assert_eq!(DefaultKey::new().write_key(&head, &mut key), Ok(()));
            key.to_key()
        });
        assert_ne!(keys[0], keys[1], "{uri}");
    }
}

#[test]
fn http1_and_http2_share_a_key() {
    let expected = key(at("http://host:8080/p?q"));
    assert!(expected.is_some());
    assert_eq!(key(at("/p?q").header("host", "HOST:8080")), expected);
    assert_eq!(key(at("http://host:8080/p?q").header("host", "host:8080")), expected);
    assert_eq!(key(at("http://host:80")), key(at("/").header("host", "host")));
}

#[test]
fn requests_with_different_responses_have_different_keys() {
    let targets = [
        "http://a/",
        "https://a/",
        "http://b/",
        "http://a:81/",
        "http://a/x",
        "http://a/x/",
        "http://a/x?",
        "http://a/x?y",
        "http://a//x",
        "http://a/%78",
        "http://a/./x",
        "http://a/x?y&",
    ];
    let keys: std::collections::HashSet<_> = targets.iter().map(|uri| key(at(uri)).unwrap()).collect();
    assert_eq!(keys.len(), targets.len());
}

#[test]
fn unusable_authorities_give_no_key() {
    assert_eq!(key(at("/")), None);
    for host in ["", ":80", "a b", "user@host", "a/b", "a?b", "h\u{e9}", "a\"b"] {
        let value = http::HeaderValue::from_bytes(host.as_bytes()).unwrap();
        assert_eq!(key(at("/").header("host", value)), None, "{host:?}");
    }
    assert_eq!(key(at("/").header("host", "a").header("host", "a")), None);
    assert_eq!(key(at("http://a/").header("host", "b")), None);
    assert!(key(at("/").header("host", "[::1]:3000")).is_some());
}

#[test]
fn a_namespace_and_a_scheme_change_the_key() {
    let (head, ()) = at("http://h/").body(()).unwrap().into_parts();
    let plain = DefaultKey::new().key(&head);
    assert_ne!(DefaultKey::new().namespace("n").key(&head), plain);
    assert_ne!(DefaultKey::new().scheme(Scheme::HTTPS).key(&head), plain);
    assert_eq!(DefaultKey::new().scheme(Scheme::HTTP).key(&head), plain);
    let both = Some(CacheKey::from_parts(["n", "https", "h", "/"]));
    let (before, after) = (DefaultKey::new().namespace("n"), DefaultKey::new().scheme(Scheme::HTTPS));
    assert_eq!(before.clone().scheme(Scheme::HTTPS).key(&head), both);
    assert_eq!(after.namespace("n").key(&head), both);
    let (https, ()) = at("https://h/").body(()).unwrap().into_parts();
    assert_eq!(before.key(&https), both);
    assert_eq!(before.scheme(Scheme::HTTP).key(&https), Some(CacheKey::from_parts(["n", "http", "h", "/"])));
}

#[test]
fn a_path_that_may_be_cut_is_refused_unless_it_is_known_or_stated_to_be_whole() {
    let built = |key: DefaultKey| {
        let store = crate::MemoryStore::with_capacity_bytes(1 << 20);
        crate::ReadThroughLayer::builder(store).key(key).build().map(drop)
    };
    let rules = || crate::KeyRules::builder();
    match cfg!(feature = "axum") {
        true => {
            assert_eq!(built(DefaultKey::new()), Ok(()));
            assert!(rules().build().is_ok());
        }
        false => {
            assert_eq!(built(DefaultKey::new()), Err(BuildError::CutUri));
            let error = rules().build().unwrap_err();
            assert!(error.to_string().contains("`whole_uri`"), "{error}");
        }
    }
    assert_eq!(built(DefaultKey::new().whole_uri()), Ok(()));
    assert!(rules().whole_uri().build().is_ok());
}

#[cfg(feature = "axum")]
#[test]
fn a_nested_router_is_keyed_by_the_uri_of_the_client() {
    let nested_at = |original: &'static str, inner: &str| {
        let (mut head, ()) = at(inner).header("host", "h").body(()).unwrap().into_parts();
        head.extensions.insert(axum::extract::OriginalUri(Uri::from_static(original)));
        DefaultKey::new().key(&head)
    };
    let nested = |original| nested_at(original, "/x");
    assert_ne!(nested_at("/a/x", "/x"), nested_at("/a/x", "/y"), "rewritten on the way");
    assert!(nested("/a/x").is_some());
    assert_ne!(nested("/a/x"), nested("/b/x"));
    assert_ne!(nested("/a/x"), key(at("/x").header("host", "h")));
}

proptest! {
    #[test]
    fn any_host_and_path_are_taken_without_panic(host in proptest::collection::vec(any::<u8>(), 0..64), path in "/[!-~]{0,40}") {
        let mut request = Request::get("/");
        if let Ok(uri) = path.parse::<Uri>() {
            request = request.uri(uri);
        }
        if let Ok(value) = http::HeaderValue::from_bytes(&host) {
            request = request.header("host", value);
        }
        if let Ok(request) = request.body(()) {
            let _ = DefaultKey::new().key(&request.into_parts().0);
        }
    }
}

#[test]
fn default_and_empty_ports_do_not_count() {
    fn normal<'a>(text: &'a str, scheme: Option<&'a Scheme>) -> &'a [u8] {
        Authority::new(text.as_bytes(), scheme).text
    }
    let https = Some(Scheme::HTTPS);
    for (text, http, secure) in [
        ("h", "h", "h"),
        ("h:", "h", "h"),
        ("h:80", "h", "h:80"),
        ("h:443", "h:443", "h"),
        ("h:8080", "h:8080", "h:8080"),
        ("[::1]:80", "[::1]", "[::1]:80"),
        ("[::80]", "[::80]", "[::80]"),
    ] {
        assert_eq!(normal(text, None), http.as_bytes(), "{text}");
        assert_eq!(normal(text, https.as_ref()), secure.as_bytes(), "{text}");
    }
}

#[test]
fn hosts_and_ports_are_split() {
    for (text, host, port) in [
        ("h", "h", "80"),
        ("h:81", "h", "81"),
        ("h.", "h", "80"),
        ("h.:81", "h", "81"),
        ("[::1]", "[::1]", "80"),
        ("[::1]:81", "[::1]", "81"),
    ] {
        let expected = (host.as_bytes(), port.as_bytes());
        assert_eq!(Authority::new(text.as_bytes(), None).host_and_port(), expected, "{text}");
    }
}

#[test]
fn spellings_of_one_target_have_one_form() {
    for (target, normal) in [
        ("/a/b?c=d", "/a/b?c=d"),
        ("/%61%7e%7E", "/a~~"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/caf\u{e9}", "/caf%C3%A9"),
        ("/a%2fb%20c", "/a%2Fb%20c"),
        ("/a{b}", "/a%7Bb%7D"),
        ("/%zz%2", "/%zz%2"),
        ("*", "*"),
        ("", ""),
    ] {
        assert_eq!(normal_form(target), normal, "{target}");
    }
}

#[test]
fn a_path_is_never_empty() {
    for (target, rooted_target) in [("?q", "/?q"), ("/?q", "/?q"), ("*", "*")] {
        assert_eq!(rooted(target), rooted_target);
    }
}

proptest! {
    #[test]
    fn a_normal_form_is_its_own(target in "/[a%27eE~{\u{e9}?/]{0,12}") {
        let normal = normal_form(&target).into_owned();
        // What was encoded twice is still encoded once.
        if !target.contains("%25") {
            prop_assert_eq!(normal_form(&normal).into_owned(), normal);
        }
    }
}

#[test]
fn the_first_host_of_a_group_is_found_in_any_case() {
    let groups = [vec!["B.example", "a.example", "c.example:8080"], vec!["d:80", "[::1]"]];
    let groups = groups.map(|group| group.iter().map(ToString::to_string).collect());
    let hosts = SameHosts::new(&groups, None);
    for (host, first) in [
        ("A.example", Some("b.example")),
        ("b.example", Some("b.example")),
        ("c.example:8080", Some("b.example")),
        ("D", Some("d")),
        ("[::1]", Some("d")),
        ("c.example", None),
        ("a.example.", None),
        ("a.exampl", None),
        ("xa.example", None),
        ("", None),
    ] {
        assert_eq!(hosts.first_of(host.as_bytes()), first.map(str::as_bytes), "{host}");
    }
}
