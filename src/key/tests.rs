use super::*;
use http::Request;
use proptest::prelude::*;

fn head(builder: http::request::Builder) -> Parts {
    builder.body(()).unwrap().into_parts().0
}

fn key_of(extractor: &impl KeyExtractor, head: &mut Parts, body: &impl HttpBody) -> Option<CacheKey> {
    let mut buffer = KeyBuffer::new();
    find(extractor, head, body, &mut buffer).then(|| buffer.to_key())
}

#[test]
fn a_key_in_the_request_wins() {
    let own = CacheKey::new("mine");
    let (mut head, ()) = Request::get("http://h/").body(()).unwrap().into_parts();
    head.extensions.insert(own.clone());
    let body = http_body_util::Empty::<bytes::Bytes>::new();
    assert_eq!(key_of(&DefaultKey::new(), &mut head, &body), Some(own));
}

#[test]
fn bodies_other_methods_and_upgrades_have_no_key() {
    let empty = http_body_util::Empty::<bytes::Bytes>::new();
    let full = http_body_util::Full::<bytes::Bytes>::from("x");
    let key = DefaultKey::new();
    assert!(key_of(&key, &mut head(Request::get("http://h/")), &empty).is_some());
    assert!(key_of(&key, &mut head(Request::head("http://h/")), &empty).is_some());
    assert!(key_of(&key, &mut head(Request::get("http://h/")), &full).is_none());
    assert!(key_of(&key, &mut head(Request::post("http://h/")), &empty).is_none());
    assert!(key_of(&key, &mut head(Request::get("http://h/").method("QUERY")), &empty).is_none());
    assert!(
        key_of(&key, &mut head(Request::get("http://h/").header("upgrade", "websocket")), &empty).is_none()
    );
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
