use super::*;
use bytes::Bytes;
use http::request::Builder;
use http_body_util::{Empty, Full};
use proptest::prelude::*;

fn key_of<B: HttpBody>(extractor: &impl KeyExtractor, request: Request<B>) -> Option<CacheKey> {
    let (is_for_cache, head) = (is_for_cache(&request), request.into_parts().0);
    let mut buffer = KeyBuffer::new();
    let rules = RequestRules::default();
    let found = find(extractor, &rules, &head, &RequestFields::of(&head.headers), &mut buffer);
    (is_for_cache && found.is_ok()).then(|| buffer.to_key())
}

fn empty() -> Empty<Bytes> {
    Empty::new()
}

#[test]
fn a_key_in_the_request_wins() {
    let own = CacheKey::new("mine");
    let request = Request::get("http://h/").extension(own.clone()).body(empty()).unwrap();
    assert_eq!(key_of(&DefaultKey::new(), request), Some(own));
}

#[test]
fn bodies_other_methods_and_upgrades_have_no_key() {
    let key_of_empty = |request: Builder| key_of(&DefaultKey::new(), request.body(empty()).unwrap());
    assert!(key_of_empty(Request::get("http://h/")).is_some());
    assert!(key_of_empty(Request::head("http://h/")).is_some());
    assert!(key_of_empty(Request::post("http://h/")).is_none());
    assert!(key_of_empty(Request::get("http://h/").method("QUERY")).is_none());
    let upgrade = |to| Request::get("http://h/").header("connection", "upgrade").header("upgrade", to);
    assert!(key_of_empty(upgrade("websocket")).is_none());
    assert!(key_of_empty(upgrade("h2c")).is_some());
    let with_body = Request::get("http://h/").body(Full::<Bytes>::from("x")).unwrap();
    assert!(key_of(&DefaultKey::new(), with_body).is_none());
}

proptest! {
    #[test]
    fn keys_of_parts_are_equal_only_for_equal_parts(
        a in proptest::collection::vec(".{0,6}", 0..5),
        b in proptest::collection::vec(".{0,6}", 0..5),
    ) {
        prop_assert_eq!(CacheKey::from_parts(&a) == CacheKey::from_parts(&b), a == b);
    }
}
