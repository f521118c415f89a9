use super::*;

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// The fields of a stored head as a hit has them.
fn kept(draft: impl Fn() -> HeadBuilder, body: &str) -> Vec<(String, String)> {
    let shared = draft().with_shared(Bytes::copy_from_slice(body.as_bytes()));
    let kept = with(draft(), body.as_bytes());
    assert_eq!((&kept.body, &shared.body), (&Bytes::copy_from_slice(body.as_bytes()), &kept.body));
    for _ in 0..2 {
        assert_eq!(kept.head.complete(), shared.head.complete(), "however often it is asked for");
    }
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let complete = kept.head.complete();
    let added = |name: &HeaderName, value: &HeaderValue| {
        *name == header::AGE || *name == CACHE_STATUS && value == super::HIT
    };
    let others = complete.iter().filter(|(name, value)| !added(name, value));
    assert!(kept.head.message().iter().eq(others), "the message alone, in the same order");
    complete.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn with(mut draft: HeadBuilder, body: &[u8]) -> StoredHead {
    let mut block = draft.block(0);
    body.chunks(1000).for_each(|chunk| block.push(chunk));
    assert_eq!(block.len(), body.len());
    draft.with(block)
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const HIT_FIELD: (&str, &str) = ("cache-status", "tower-readthrough;hit");

#[test]
fn the_length_is_told_wherever_it_comes_from_and_whenever() {
    for length in [0, 1, 1024, 1025, 20_000] {
        let (body, digits) = ("x".repeat(length), length.to_string());
        for status in [StatusCode::OK, StatusCode::PARTIAL_CONTENT] {
            let declared = map(&[("a", "1"), ("content-length", &digits), ("b", "2")]);
            let expected =
                pairs(&[("age", "0"), ("a", "1"), ("content-length", &digits), ("b", "2"), HIT_FIELD]);
            assert_eq!(kept(|| HeadBuilder::new(status, &declared, Some(length)), &body), expected);

            let silent = map(&[("a", "1"), ("b", "2")]);
            let expected =
                pairs(&[("age", "0"), ("a", "1"), ("b", "2"), ("content-length", &digits), HIT_FIELD]);
            for known in [Some(length), None] {
                assert_eq!(kept(|| HeadBuilder::new(status, &silent, known), &body), expected);
            }
        }
    }
}

#[test]
fn what_belongs_to_a_connection_goes_and_all_else_stays_in_order() {
    let fields = map(&[
        ("age", "7"),
        ("cache-status", "Other;hit"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "1"),
        ("set-cookie", "a"),
        ("x-kept", "1"),
        ("set-cookie", "b"),
    ]);
    for length in [Some(2), None] {
        let expected = pairs(&[
            ("age", "0"),
            ("cache-status", "Other;hit"),
            HIT_FIELD,
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("x-kept", "1"),
            ("content-length", "2"),
        ]);
        assert_eq!(kept(|| HeadBuilder::new(StatusCode::OK, &fields, length), "xx"), expected);
    }
}

#[test]
fn what_is_kept_has_no_room_to_spare() {
    for (length, known) in [(600, None), (600, Some(600)), (5000, None), (5000, Some(5000))] {
        let draft = HeadBuilder::new(StatusCode::OK, &map(&[("etag", "\"1\"")]), known);
        let kept = with(draft, &vec![b'x'; length]);
        let Head(Form::Packed { values, .. }) = kept.head else { panic!("it is packed") };
        if length > SMALL_BODY {
            assert_eq!(kept.body.try_into_mut().unwrap().capacity(), length);
            let length = values.len();
            assert_eq!(values.try_into_mut().unwrap().capacity(), length);
        } else {
            let before = values.len();
            drop(values);
            let block = kept.body.try_into_mut().unwrap();
            // It begins behind the values.
            assert!(block.capacity() <= length, "{} {before}", block.capacity());
        }
    }
}

#[test]
fn a_date_is_kept_even_if_it_is_named_as_one_of_the_connection() {
    let date = ("date", "Fri, 20 Nov 2026 12:00:00 GMT");
    let expected = pairs(&[("age", "0"), date, ("content-length", "1"), HIT_FIELD]);
    let fields = map(&[("connection", "date, x-hop"), ("x-hop", "1"), date]);
    assert_eq!(kept(|| HeadBuilder::new(StatusCode::OK, &fields, Some(1)), "x"), expected);
}

#[test]
fn one_name_may_have_more_lines_than_a_map_has_room_for_names() {
    let mut fields = HeaderMap::new();
    for _ in 0..30_000 {
        fields.append("set-cookie", HeaderValue::from_static("a"));
    }
    let kept = with(HeadBuilder::new(StatusCode::OK, &fields, Some(1)), b"x");
    assert_eq!(kept.head.complete().get_all("set-cookie").iter().count(), 30_000);
}

#[test]
fn without_content_there_is_no_length() {
    let expected = pairs(&[("age", "0"), ("a", "1"), HIT_FIELD]);
    for fields in [map(&[("a", "1")]), map(&[("a", "1"), ("content-length", "0")])] {
        for length in [Some(0), None] {
            assert_eq!(kept(|| HeadBuilder::new(StatusCode::NO_CONTENT, &fields, length), ""), expected);
        }
    }
}

#[test]
fn what_is_packed_is_the_same_as_before() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", &b"text/html"[..]),
        ("set-cookie", b"a=1"),
        ("set-cookie", b"b=\xff"),
        ("x-empty", b""),
        ("cache-status", b"Other;hit"),
        ("x-secret", b"s"),
    ] {
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    headers.get_mut("x-secret").unwrap().set_sensitive(true);
    for size in [0, 1, SMALL_BODY, SMALL_BODY + 1] {
        let body = Bytes::from(vec![b'x'; size]);
        let (mut packed, mut packed_body) = (headers.clone(), body.clone());
        pack(&mut packed, &mut packed_body);
        assert_eq!((&packed, &packed_body), (&headers, &body));
        assert!(packed["x-secret"].is_sensitive() && !packed["set-cookie"].is_sensitive());
    }
}

#[test]
fn what_serving_a_head_takes_is_charged_before() {
    let mut fields = HeaderMap::new();
    for (name, value) in [("etag", "\"1\""), ("content-type", "text/html"), ("x-own", "own")] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    let kept = HeadBuilder::new(StatusCode::OK, &fields, Some(5)).with_shared(Bytes::from_static(b"hello"));
    let Head(Form::Packed { values, made, .. }) = &kept.head else { panic!("it is packed") };
    assert_eq!(made.get(), None, "before it is served it takes no more than its text");
    let before = kept.head.bytes();
    let served = kept.head.to_map();
    assert_eq!((served["etag"].as_bytes(), served["x-own"].as_bytes()), (&b"\"1\""[..], &b"own"[..]));
    let made = made.get().unwrap();
    // The length of the body is the third of its own.
    assert_eq!(made.len(), 3);
    assert_eq!(kept.head.bytes(), before);
    assert!(before >= values.len() + size_of_val(&**made));
}

#[test]
fn a_number_is_the_same_whether_it_is_written_out_or_not() {
    for seconds in (0..10_100).chain([u64::MAX]) {
        assert_eq!(number(seconds).as_bytes(), seconds.to_string().as_bytes());
    }
}
