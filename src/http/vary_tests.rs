use super::*;
use http::HeaderValue;
use proptest::prelude::*;

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// Not only of the same meaning.
fn is_written_as(one: &Selection, other: &Selection) -> bool {
    fn raw(selection: &Selection) -> impl Iterator<Item = &[u8]> {
        selection.0.values.iter().flatten().map(|value| &*value.raw)
    }
    one == other && raw(one).eq(raw(other))
}

fn fields(lines: &[&str]) -> Vec<String> {
    let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
    match Vary::parse(&map(&lines)) {
        Vary::Fields(fields) => fields.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_come_in_any_case_order_and_number_of_lines() {
    assert_eq!(fields(&["Accept-Encoding , ACCEPT", "accept,,x-a"]), ["accept", "accept-encoding", "x-a"]);
    assert_eq!(Vary::parse(&map(&[])), Vary::Nothing);
    assert_eq!(Vary::parse(&map(&[("vary", " , ")])), Vary::Nothing);
}

#[test]
fn a_star_or_an_invalid_field_fits_no_other_request() {
    for value in ["*", "accept, *", "a b", "\"accept\"", "accept;q=1", "\u{fc}"] {
        assert_eq!(Vary::parse(&map(&[("vary", value)])), Vary::Anything, "{value}");
    }
    assert_eq!(Vary::parse(&map(&[("vary", "accept"), ("vary", "*")])), Vary::Anything);
}

fn matches(first: &[(&'static str, &str)], second: &[(&'static str, &str)]) -> bool {
    let vary = map(&[("vary", "accept, x, accept-language, accept-encoding, accept-charset")]);
    let Vary::Fields(fields) = Vary::parse(&vary) else { unreachable!() };
    Selection::new(&fields, &map(first)).matches(&RequestFields::of(&map(second)), &mut Forms::default())
}

#[test]
fn selecting_values_match_up_to_white_space_and_lines() {
    assert!(matches(&[], &[("other", "1")]));
    assert!(matches(&[("accept", "a, b")], &[("accept", "a,b")]));
    assert!(matches(&[("accept", "a"), ("accept", "b")], &[("accept", "a , b")]));
    assert!(matches(&[("accept", "a,b")], &[("accept", "a,b")]));
    assert!(!matches(&[("accept", "a")], &[("accept", "A")]));
    assert!(!matches(&[("accept", "a,b")], &[("accept", "b,a")]));
    assert!(!matches(&[("accept", "a")], &[]));
    assert!(!matches(&[], &[("accept", "")]), "absent is not empty");
    assert!(!matches(&[("accept", "\"a, b\"")], &[("accept", "\"a,b\"")]), "quoted white space counts");
    assert!(!matches(&[("accept", "a"), ("x", "1")], &[("accept", "a"), ("x", "2")]));
}

#[test]
fn a_field_that_is_not_a_list_matches_as_written() {
    for (name, other) in [("a,b", "a, b"), ("a,", "a"), ("a", "A"), ("a", "\"a\""), ("", ",")] {
        assert!(matches(&[("x", name)], &[("x", name)]));
        assert!(!matches(&[("x", name)], &[("x", other)]), "{name} {other}");
    }
    assert!(matches(&[("x", "a"), ("x", "b")], &[("x", "a"), ("x", "b")]));
    for other in [&[("x", "a,b")][..], &[("x", "a, b")], &[("x", "b"), ("x", "a")], &[("x", "a")]] {
        assert!(!matches(&[("x", "a"), ("x", "b")], other) && !matches(other, &[("x", "a"), ("x", "b")]));
    }
    assert!(!matches(&[("x", "a"), ("x", "")], &[("x", "a")]));
}

#[test]
fn preferences_are_compared_by_what_they_mean() {
    let same = |name, a, b| matches(&[(name, a)], &[(name, b)]);
    for name in ["accept-language", "accept-encoding", "accept-charset"] {
        assert!(same(name, "en, de", "eN,De"), "case (RFC 9110 §12.5)");
        assert!(same(name, "en, de;q=0.5", "de; q=0.50 ,en;Q=1.0"), "weights rank, not places");
        assert_eq!(
            same(name, "en, de", "de, en"),
            name != "accept-language",
            "§12.5.4: some recipients take the first one"
        );
        assert!(same(name, "en, de", "en;q=1.000, de;q=1"));
        assert!(!same(name, "en, de;q=0.5", "en, de;q=0.4"));
        assert!(!same(name, "en;q=0", "en"));
        assert!(!same(name, "en, de;q=0.5", "de, en;q=0.5"));
        assert!(!same(name, "en, de", "en"));
        assert!(!same(name, "en", "en, en"));
    }
    assert!(!same("accept", "a/b, c/d", "c/d, a/b"));
}

#[test]
fn an_invalid_weight_is_a_part_of_the_name() {
    let junk = ["en;q=1.1", "en;q=0.1234", "en;q=.5", "en;q=", "en;q=0.x", "en;level=1", "en;q=0.5;x"];
    for junk in junk.into_iter().chain(["en;q=500", "en;q=100"]) {
        let others = ["en", "en;q=0.5", "en;q=0.1"];
        assert!(
            others
                .iter()
                .all(|other| { !matches(&[("accept-language", junk)], &[("accept-language", other)]) }),
            "{junk}"
        );
        assert!(matches(&[("accept-language", junk)], &[("accept-language", junk)]), "{junk}");
    }
}

#[test]
fn matching_selections_are_equal() {
    let fields: Arc<[HeaderName]> = Arc::from([header::ACCEPT_LANGUAGE]);
    let of = |value| Selection::new(&fields, &map(&[("accept-language", value)]));
    let hash = |selection: &Selection| {
        use std::hash::BuildHasher;
        std::hash::BuildHasherDefault::<std::collections::hash_map::DefaultHasher>::default()
            .hash_one(selection)
    };
    assert_eq!(of("en, de"), of("EN,de"));
    assert_eq!(hash(&of("en, de")), hash(&of("EN,de")));
}

proptest! {
    #[test]
    fn a_request_selects_what_was_stored_for_it(
        accept in proptest::collection::vec("[ -~]{0,12}", 0..3),
        x in proptest::collection::vec("[ -~]{0,12}", 0..3),
    ) {
        let mut request = Vec::new();
        request.extend(accept.iter().map(|value| ("accept", value.as_str())));
        request.extend(x.iter().map(|value| ("x", value.as_str())));
        prop_assert!(matches(&request, &request));
    }

    #[test]
    fn a_selection_comes_back_from_its_parts(
        lines in proptest::collection::vec("[ab, \"]{0,4}|[a-z]{5000}", 0..3),
        names in proptest::sample::subsequence(vec!["accept", "accept-encoding", "cookie", "x"], 1..4),
    ) {
        let fields: Arc<[HeaderName]> = names.iter().map(|name| HeaderName::from_static(name)).collect();
        let selection = Selection::new(&fields, &map(&lines.iter().map(|line| (names[0], line.as_str())).collect::<Vec<_>>()));
        let owned = |(normal, raw): (&[u8], &[u8])| (normal.into(), raw.into());
        let parts = selection.to_parts().map(|(name, parts)| (name.clone(), parts.map(owned)));
        let back = Selection::from_parts(parts.collect());
        prop_assert_eq!(&back, &selection);
        prop_assert!(is_written_as(&back, &selection));
    }

    #[test]
    fn a_selection_written_in_a_request_is_the_selection_made_from_it(
        a in proptest::collection::vec("[ab, \"]{0,4}", 0..3),
        b in proptest::collection::vec("[ab, \"]{0,4}", 0..3),
        name in proptest::sample::select(&["accept", "accept-encoding", "cookie", "x"][..]),
    ) {
        let fields: Arc<[HeaderName]> = Arc::from([HeaderName::from_static(name)]);
        let [a, b] = [a, b].map(|lines| {
            map(&lines.iter().map(|line| (name, line.as_str())).collect::<Vec<_>>())
        });
        let (known, made) = (Selection::new(&fields, &a), Selection::new(&fields, &b));
        let (lines, is_one_line) = ([Line::of(&b, &fields[0])], b.len() < 2);
        prop_assert_eq!(known.is_written_in(&fields, &lines), is_one_line && is_written_as(&known, &made));
        prop_assert!(!known.is_written_in(&[header::TE], &lines));
    }

    #[test]
    fn matching_agrees_with_equality_of_selections(
        a in proptest::collection::vec("[ab, \"]{0,6}", 0..3),
        b in proptest::collection::vec("[ab, \"]{0,6}", 0..3),
        name in proptest::sample::select(&["accept", "accept-language", "accept-encoding", "cookie", "x"][..]),
    ) {
        let fields: Arc<[HeaderName]> = Arc::from([HeaderName::from_static(name)]);
        let a: Vec<_> = a.iter().map(|value| (name, value.as_str())).collect();
        let b: Vec<_> = b.iter().map(|value| (name, value.as_str())).collect();
        let (first, second) = (Selection::new(&fields, &map(&a)), Selection::new(&fields, &map(&b)));
        let request = map(&b);
        let request = RequestFields::of(&request);
        prop_assert_eq!(first.matches(&request, &mut Forms::default()), first == second);
        // What is compared before that admits no other request.
        prop_assert!(!first.is_written_by(&request) || first == second);
    }
}
