use super::*;
use proptest::prelude::*;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

fn outcome(fields: &[(&'static str, &'static str)]) -> Precondition {
    evaluate(&map(fields), &map(&[("etag", "\"a,b\""), ("last-modified", MODIFIED)]))
}

#[test]
fn if_none_match_compares_weakly_and_goes_before_if_modified_since() {
    use Precondition::{Holds, NotModified};
    assert_eq!(outcome(&[("if-none-match", "\"a,b\"")]), NotModified);
    assert_eq!(outcome(&[("if-none-match", "\"x\", W/\"a,b\"")]), NotModified);
    assert_eq!(outcome(&[("if-none-match", "\"x\""), ("if-none-match", "*")]), NotModified);
    assert_eq!(outcome(&[("if-none-match", "\"a\"")]), Holds);
    assert_eq!(outcome(&[("if-modified-since", MODIFIED)]), NotModified);
    assert_eq!(outcome(&[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)]), Holds);
    assert_eq!(outcome(&[("if-modified-since", BEFORE)]), Holds);
    assert_eq!(outcome(&[("if-modified-since", "yesterday")]), Holds);
    assert_eq!(outcome(&[]), Holds);
    assert_eq!(evaluate(&map(&[("if-none-match", "\"\"")]), &map(&[])), Holds);
}

#[test]
fn without_last_modified_the_date_is_compared_with_if_modified_since_alone() {
    use Precondition::{Holds, NotModified};
    let at = |condition, date| evaluate(&map(&[(condition, date)]), &map(&[("date", MODIFIED)]));
    assert_eq!(at("if-modified-since", MODIFIED), NotModified);
    assert_eq!(at("if-modified-since", BEFORE), Holds);
    assert_eq!(at("if-unmodified-since", BEFORE), Holds);
    let unreadable = map(&[("date", MODIFIED), ("last-modified", "yesterday")]);
    assert_eq!(evaluate(&map(&[("if-modified-since", MODIFIED)]), &unreadable), Holds);
}

#[test]
fn if_match_compares_strongly_and_goes_before_all_others() {
    use Precondition::{Failed, Holds, NotModified};
    assert_eq!(outcome(&[("if-match", "\"a,b\"")]), Holds);
    assert_eq!(outcome(&[("if-match", "*")]), Holds);
    assert_eq!(outcome(&[("if-match", "W/\"a,b\"")]), Failed);
    assert_eq!(outcome(&[("if-match", "\"x\""), ("if-none-match", "*")]), Failed);
    assert_eq!(outcome(&[("if-match", "*"), ("if-unmodified-since", BEFORE)]), Holds);
    assert_eq!(outcome(&[("if-match", "*"), ("if-none-match", "*")]), NotModified);
    assert_eq!(evaluate(&map(&[("if-match", "W/\"a\"")]), &map(&[("etag", "W/\"a\"")])), Failed);
}

#[test]
fn if_unmodified_since_fails_only_on_what_is_known_to_have_changed() {
    use Precondition::{Failed, Holds};
    assert_eq!(outcome(&[("if-unmodified-since", MODIFIED)]), Holds);
    assert_eq!(outcome(&[("if-unmodified-since", BEFORE)]), Failed);
    assert_eq!(outcome(&[("if-unmodified-since", "yesterday")]), Holds);
    assert_eq!(evaluate(&map(&[("if-unmodified-since", BEFORE)]), &map(&[])), Holds);
}

#[test]
fn if_range_needs_a_strong_validator() {
    let response =
        [("etag", "\"a\""), ("last-modified", MODIFIED), ("date", "Sun, 06 Nov 1994 08:49:38 GMT")];
    let holds = |value| if_range_holds(&map(&[("if-range", value)]), &map(&response));
    assert!(if_range_holds(&map(&[]), &map(&[])));
    assert!(holds("\"a\"") && holds(MODIFIED));
    for other in ["\"b\"", "W/\"a\"", BEFORE, "yesterday", "", "*"] {
        assert!(!holds(other), "{other}");
    }
    assert!(!if_range_holds(&map(&[("if-range", "W/\"a\"")]), &map(&[("etag", "W/\"a\"")])));
    let same_second = [("last-modified", MODIFIED), ("date", MODIFIED)];
    assert!(!if_range_holds(&map(&[("if-range", MODIFIED)]), &map(&same_second)));
}

#[test]
fn preconditions_are_taken_out_whole() {
    let mut request = map(&[("if-none-match", "\"a\""), ("if-none-match", "\"b\""), ("accept", "x")]);
    let taken = take_conditions(&mut request).unwrap();
    assert_eq!(taken.get_all("if-none-match").iter().count(), 2);
    assert_eq!(request, map(&[("accept", "x")]));
    assert!(is_conditional(&taken) && !is_conditional(&request));
    assert!(is_conditional(&map(&[("range", "bytes=0-")])));
}

#[test]
fn a_response_with_the_same_validator_is_confirmed() {
    let stored = map(&[("etag", "\"1\""), ("last-modified", MODIFIED)]);
    let both = |tag, date| map(&[("etag", tag), ("last-modified", date)]);
    assert_eq!(confirms(&map(&[]), &stored), None);
    assert_eq!(confirms(&map(&[("etag", "\"1\"")]), &stored), Some(true));
    assert_eq!(confirms(&map(&[("etag", "W/\"1\"")]), &stored), Some(true));
    assert_eq!(confirms(&map(&[("etag", "\"2\"")]), &stored), Some(false));
    assert_eq!(confirms(&map(&[("last-modified", MODIFIED)]), &stored), Some(true));
    assert_eq!(confirms(&map(&[("last-modified", BEFORE)]), &stored), Some(false));
    assert_eq!(confirms(&both("\"1\"", BEFORE), &stored), Some(true), "the tag takes precedence");
    assert_eq!(confirms(&both("\"2\"", MODIFIED), &stored), Some(false));
    let dated = map(&[("last-modified", MODIFIED)]);
    assert_eq!(confirms(&both("\"1\"", MODIFIED), &dated), Some(true), "a tag that is new");
    assert_eq!(confirms(&both("\"1\"", BEFORE), &dated), Some(false));
}

#[test]
fn a_304_replaces_every_field_but_those_that_describe_or_select_the_stored_bytes() {
    let mut stored = map(&[
        ("etag", "\"1\""),
        ("vary", "cookie"),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("x", "old"),
        ("x", "older"),
        ("age", "9"),
        ("date", "old"),
    ]);
    freshen(
        &mut stored,
        &map(&[
            ("x", "new"),
            ("vary", "accept"),
            ("content-length", "0"),
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/2"),
            ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
            ("content-digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"),
            ("content-type", "yes"),
            ("y", "1"),
        ]),
    );
    let expected = [
        ("etag", "\"1\""),
        ("vary", "cookie"),
        ("content-length", "5"),
        ("content-encoding", "gzip"),
        ("x", "new"),
        ("content-type", "yes"),
        ("y", "1"),
    ];
    assert_eq!(stored, map(&expected));
}

#[test]
fn ranges_of_ten_bytes() {
    for (range, parts) in [
        ("bytes=0-3", &[(0, 4)][..]),
        ("BYTES=3-3", &[(3, 4)]),
        ("bytes=4-", &[(4, 10)]),
        ("bytes=8-99", &[(8, 10)]),
        ("bytes=-3", &[(7, 10)]),
        ("bytes=-99", &[(0, 10)]),
        ("bytes=0-0, -1", &[(0, 1), (9, 10)]),
        ("bytes=0-0 ,, 20-30", &[(0, 1)]),
        ("bytes=5-18446744073709551616", &[(5, 10)]),
    ] {
        let parts = parts.iter().map(|(start, end)| *start..*end).collect();
        assert_eq!(wanted(range.as_bytes(), 10), Wanted::Parts(parts), "{range}");
    }
    for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999-"] {
        assert_eq!(wanted(range.as_bytes(), 10), Wanted::Unsatisfiable, "{range}");
    }
    for range in [
        "bytes=",
        "bytes",
        "lines=0-1",
        "bytes=3-2",
        "bytes=0-1,x",
        "bytes=--1",
        "bytes=1",
        "bytes =0-1",
        "bytes=0-9,0-9",
        "",
    ] {
        assert_eq!(wanted(range.as_bytes(), 10), Wanted::Whole, "{range}");
    }
    assert_eq!(wanted(b"bytes=0-", 0), Wanted::Unsatisfiable);
    let many = format!("bytes={}", (0..17).map(|n| format!("{n}-{n},")).collect::<String>());
    assert_eq!(wanted(many.as_bytes(), 100), Wanted::Whole);
}

#[test]
fn an_extent_is_one_valid_range_of_a_known_length() {
    let of = |value| Extent::of(&map(&[("content-range", value)]));
    assert_eq!(of("bytes 0-4/10"), Some(Extent { first: 0, end: 5, total: 10 }));
    assert_eq!(of("BYTES 9-9/10"), Some(Extent { first: 9, end: 10, total: 10 }));
    for invalid in [
        "bytes 4-3/10",
        "bytes 0-10/10",
        "bytes 0-4/*",
        "bytes */10",
        "lines 0-4/10",
        "bytes=0-4/10",
        "bytes 0-4",
        "bytes -4/10",
        "bytes 0-99999999999999999999/99999999999999999999",
        "bytes 0-4/99999999999999999999",
        "",
    ] {
        assert_eq!(of(invalid), None, "{invalid}");
    }
    assert_eq!(Extent::of(&map(&[])), None);
    assert_eq!(Extent::of(&map(&[("content-range", "bytes 0-4/10"); 2])), None);
}

#[test]
fn a_part_answers_what_lies_within_it() {
    let part = Extent { first: 4, end: 8, total: 10 };
    for (range, wanted) in [
        ("bytes=4-7", Some(4..8)),
        ("bytes=5-5", Some(5..6)),
        ("bytes=3-7", None),
        ("bytes=4-8", None),
        ("bytes=4-", None),
        ("bytes=-2", None),
        ("bytes=4-5,6-7", None),
        ("bytes=x", None),
        ("bytes=20-", None),
    ] {
        assert_eq!(part.resolve(&range.parse().unwrap()), wanted, "{range}");
    }
    let end = Extent { first: 4, end: 10, total: 10 };
    for (range, wanted) in [("bytes=-6", 4..10), ("bytes=5-", 5..10), ("bytes=9-99", 9..10)] {
        assert_eq!(end.resolve(&range.parse().unwrap()), Some(wanted), "{range}");
    }
}

#[test]
fn parts_touch_where_no_byte_is_between_them() {
    let of = |first, end| Extent { first, end, total: 10 };
    assert!(of(0, 4).touches(of(4, 6)) && of(4, 6).touches(of(0, 4)));
    assert!(of(0, 4).touches(of(2, 3)) && of(0, 9).touches(of(8, 10)));
    assert!(!of(0, 4).touches(of(5, 6)) && !of(5, 6).touches(of(0, 4)));
    assert!(!of(0, 4).touches(Extent { total: 11, ..of(4, 6) }));
    assert_eq!(of(0, 4).join(of(3, 6)), of(0, 6));
    assert!(of(0, 10).is_whole() && !of(1, 10).is_whole());
}

#[test]
fn only_a_get_for_one_range_without_conditions_is_for_all() {
    let asks = |fields: &[_]| asks_for_one_part(&Method::GET, &map(fields));
    assert!(asks(&[("range", "bytes=0-4")]));
    assert!(!asks_for_one_part(&Method::HEAD, &map(&[("range", "bytes=0-4")])));
    assert!(!asks(&[]) && !asks(&[("range", "bytes=0-4,6-7")]) && !asks(&[("range", "lines=0-4")]));
    assert!(!asks(&[("range", "bytes=0-4"), ("if-range", "\"1\"")]));
    assert!(!asks(&[("range", "bytes=0-4"), ("if-none-match", "\"1\"")]));
}

proptest! {
    #[test]
    fn parts_are_always_inside(range in "bytes=[0-9, -]{0,30}", length in 0_usize..40) {
        if let Wanted::Parts(parts) = wanted(range.as_bytes(), length) {
            prop_assert!(!parts.is_empty() && parts.len() <= MAX_PARTS);
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
        }
    }
}
