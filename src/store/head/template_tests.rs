use super::*;
use http::StatusCode;

static EMPTY: HeaderValue = HeaderValue::from_static("");

/// Without a length.
fn message(headers: &HeaderMap) -> Message<'_> {
    Message::new(StatusCode::NO_CONTENT, headers, &EMPTY)
}

fn fields(headers: &HeaderMap) -> Vec<Field<'_>> {
    headers.iter().map(|(name, value)| Field::new(name, value)).collect()
}

fn pack(headers: &HeaderMap) -> Option<(Arc<HeaderTemplate>, Bytes)> {
    HeaderTemplate::pack(&message(headers), 0).map(|(template, values)| (template, values.into()))
}

fn map(fields: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

fn head(tag: &'static str) -> HeaderMap {
    map(&[
        ("x-twice", b"1"),
        ("etag", tag.as_bytes()),
        ("x-twice", b"\xff"),
        ("x-empty", b""),
        ("content-type", b"text/html"),
        ("cache-status", b"Other;hit"),
        ("x-last", b"1"),
    ])
}

#[test]
fn a_head_is_the_same_with_its_order_when_it_comes_back() {
    for sensitive in ["etag", "content-type"] {
        let mut headers = head("\"1\"");
        headers.get_mut(sensitive).unwrap().set_sensitive(true);
        let (template, values) = pack(&headers).unwrap();
        let back = template.to_headers(template.own_values(&values));
        let complete = complete(fields(&headers));
        assert!(back.iter().eq(complete.iter().map(|field| (field.name, field.value))), "{back:?}");
        // One at a time as well, whether it may be shown or not.
        for (name, value) in &back {
            let one = template.value(&values, name).unwrap();
            assert_eq!(Some(&one), back.get(name), "{name}");
            assert_eq!(value.is_sensitive(), *name == sensitive, "{name}");
        }
        assert_eq!(template.value(&values, &http::header::VIA), None);
    }
}

#[test]
fn heads_that_are_alike_share_a_template_and_others_do_not() {
    let (first, _) = pack(&head("\"1\"")).unwrap();
    assert!(Arc::ptr_eq(&first, &pack(&head("\"22\"")).unwrap().0));
    let mut other = head("\"1\"");
    other.insert("content-type", HeaderValue::from_static("text/plain"));
    assert!(!Arc::ptr_eq(&first, &pack(&other).unwrap().0));
    for long in [HeaderValue::from_bytes(&[b'x'; 70_000]).unwrap(), HeaderValue::from_static("1")] {
        other.insert("etag", long.clone());
        assert_eq!(pack(&other).is_some(), long.len() == 1);
    }
}

#[test]
fn what_differs_in_anything_from_a_recent_head_is_not_taken_for_it() {
    let same: [(&'static str, &[u8]); 3] = [("etag", b"\"1\""), ("vary", b"gzip"), ("x-own", b"1")];
    let change = |at: usize, field: (&'static str, &'static [u8])| {
        let mut changed = same;
        changed[at] = field;
        changed.to_vec()
    };
    let [mut longer, shorter] = [same.to_vec(), same[..2].to_vec()];
    longer.push(("x-more", b"1"));
    let others = [
        change(0, ("x-tag", b"\"1\"")),
        change(1, ("vary", b"zstd")),
        change(1, ("vary", b"other")),
        change(2, ("x-own", b"gzip")),
        longer,
        shorter,
    ];
    for other in others {
        let (template, _) = pack(&map(&same)).unwrap();
        assert!(template.values_of(&message(&map(&other)), 0).is_none());
        // Also where the number of fields does not tell.
        let other = map(&other);
        let known = Arc::downgrade(&template);
        RECENT.with(|recent| recent.borrow_mut()[other.len() % RECENT_TEMPLATES] = known);
        let (template, values) = HeaderTemplate::pack(&message(&other), 0).unwrap();
        let complete = complete(fields(&other));
        let back = template.to_headers(template.own_values(&values.into()));
        assert!(back.iter().eq(complete.iter().map(|field| (field.name, field.value))), "{back:?}");
    }
}

#[test]
fn templates_are_bounded_and_unused_ones_make_room() {
    let mut table = Table::default();
    let mut kept = Vec::new();
    for number in 0..2 * MAX_NAMES {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::try_from(format!("x-{number}")).unwrap(), "own".parse().unwrap());
        let template = table.learn(number as u64, &fields(&headers));
        assert_eq!(template.is_some(), number < MAX_TEMPLATES, "{number}");
        kept.extend(template);
    }
    // Unused ones make room.
    kept.clear();
    assert!(table.learn(u64::MAX, &fields(&head("\"1\""))).is_some());
    assert_eq!(table.templates.len(), 1);
}

#[test]
fn made_up_names_end_packing_for_none_of_the_others() {
    let mut table = Table::default();
    for number in 0..2 * MAX_NAMES {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::try_from(format!("x-{number}")).unwrap(), "own".parse().unwrap());
        assert!(table.learn(number as u64, &fields(&headers)).is_some(), "{number}");
    }
    assert_eq!((table.names.len(), table.templates.len()), (MAX_NAMES, MAX_TEMPLATES));
    assert!(table.learn(u64::MAX, &fields(&head("\"1\""))).is_some());
}
