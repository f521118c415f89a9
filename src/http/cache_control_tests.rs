use super::*;
use crate::http::response_fields::ResponseFields;
use proptest::prelude::*;
use std::time::SystemTime;

const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
    lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap())).collect()
}

fn of(headers: &HeaderMap, targets: &[HeaderName]) -> CacheControl {
    let plain = || ResponseFields::of(headers, SystemTime::UNIX_EPOCH).cache_control;
    CacheControl::targeted(headers, targets).unwrap_or_else(plain)
}

fn parse(lines: &[&str]) -> CacheControl {
    of(&headers(&header::CACHE_CONTROL, lines), &[])
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

fn max_age(value: &str) -> Option<u64> {
    parse(&[&format!("max-age={value}")]).max_age.map(|age| age.as_secs())
}

#[test]
fn directives_come_in_any_case_order_and_number_of_lines() {
    let parsed = parse(&["No-Store ,, PUBLIC", "max-age=60", "x-unknown=\"a,no-cache\", must-revalidate"]);
    assert!(parsed.no_store && parsed.public && parsed.must_revalidate);
    assert!(!parsed.no_cache && !parsed.private);
    assert_eq!(parsed.max_age, secs(60));
}

#[test]
fn a_lifetime_is_whole_seconds_or_nothing() {
    assert_eq!(max_age("0"), Some(0));
    assert_eq!(max_age("007"), Some(7));
    assert_eq!(max_age("\"7\""), Some(7));
    for invalid in ["-1", "1.5", "", "\"\"", "'7'", "7s", "+7", "0x7", "\"7", " 7", "7 8"] {
        assert_eq!(max_age(invalid), Some(0), "{invalid}");
    }
    for huge in ["2147483648", "9223372036854775808", "18446744073709551616", &"9".repeat(4096)] {
        assert_eq!(max_age(huge), Some(1 << 31), "{huge}");
    }
    assert_eq!(parse(&["'max-age=7'"]).max_age, secs(0), "single quotes are no quotes");
}

#[test]
fn white_space_around_the_equals_sign_invalidates_the_argument_alone() {
    for spaced in ["max-age =7", "max-age= 7", "max-age = 7", "max-age\t=\"7\""] {
        assert_eq!(parse(&[spaced]).max_age, secs(0), "{spaced}");
    }
    assert!(parse(&["no-store =1"]).no_store);
    for whole in ["private =x-a", "private =\"x-a\"", "private= \"x-a\""] {
        assert!(parse(&[whole]).private, "{whole}");
    }
    assert_eq!(parse(&["stale-if-error =5"]).stale_if_error, None);
}

#[test]
fn an_unquoted_word_forbids_in_any_place() {
    let forbids = |line: &str| {
        let parsed = parse(&[line]);
        (parsed.no_store, parsed.private, parsed.no_cache, parsed.forbids_stale())
    };
    for separator in [";", "; ", " ", "\t", "|", "/", ":", " ; ", "&", "="] {
        let of = |word: &str| [format!("{word}{separator}max-age=60"), format!("public{separator}{word}")];
        of("no-store").iter().for_each(|line| assert!(forbids(line).0, "{line:?}"));
        of("Private").iter().for_each(|line| assert!(forbids(line).1, "{line:?}"));
        of("NO-CACHE").iter().for_each(|line| assert!(forbids(line).2, "{line:?}"));
    }
    for line in ["public; must-revalidate", "max-age=9 proxy-revalidate"] {
        assert!(forbids(line).3, "{line}");
        assert!(
            !parse(&[line]).must_revalidate && !parse(&[line]).public,
            "{line}: what it allows does not count"
        );
    }
    for unbalanced in ["x=\"a, no-store", "\", no-store", "max-age=\"60, no-store", "x=\"\\\", no-store"] {
        assert!(forbids(unbalanced).0, "{unbalanced}");
    }
    for quoted in
        ["x=\"no-store; private\"; y=\"no-cache\"", "x=\"a\\\"; no-store\";", "no-stores; x-private"]
    {
        assert_eq!(forbids(quoted), (false, false, false, false), "{quoted}");
    }
}

#[test]
fn a_lifetime_between_other_separators_counts_if_it_is_the_shortest() {
    let lifetime = |line: &str| parse(&[line]).max_age.map(|age| age.as_secs());
    assert_eq!(lifetime("public; max-age=60"), Some(60));
    assert_eq!(lifetime("max-age=60; public"), Some(60));
    assert_eq!(lifetime("max-age=60 s-maxage=5"), Some(5));
    assert_eq!(lifetime("max-age=60, public; max-age=0"), Some(0));
    assert_eq!(lifetime("public; max-age=6x"), Some(0));
    assert_eq!(lifetime("public; max-age=60.5; x"), Some(0));
    assert_eq!(parse(&["s-maxage=60, public; max-age=0"]).s_maxage, secs(0));
}

#[test]
fn a_targeted_field_forbids_in_its_parameters_and_where_it_cannot_be_parsed() {
    assert!(targeted(&["max-age=60;private"], "max-age=60").private);
    assert!(targeted(&["max-age=60; no-store"], "max-age=60").no_store);
    assert!(targeted(&["max-age=60, Private"], "max-age=60").private);
    assert!(targeted(&["no-store,"], "max-age=60").no_store);
}

#[test]
fn a_word_forbids_in_requests_too() {
    let parse = |name, line: &str| RequestDirectives::parse(&headers(&name, &[line]));
    assert!(parse(header::CACHE_CONTROL, "no-cache; x").no_cache);
    assert!(parse(header::CACHE_CONTROL, "max-stale=5; no-store").no_store);
    assert_eq!(parse(header::CACHE_CONTROL, "x; max-age=0").max_age, secs(0));
    assert!(parse(header::PRAGMA, "no-cache; x").no_cache);
}

#[test]
fn the_first_of_two_counts() {
    assert_eq!(parse(&["max-age=1, max-age=2"]).max_age, secs(1));
    assert_eq!(parse(&["max-age=x", "max-age=2"]).max_age, secs(0));
}

#[test]
fn an_invalid_window_counts_as_absent() {
    assert_eq!(parse(&["stale-if-error=soon"]).stale_if_error, None);
    assert_eq!(parse(&["stale-if-error=5"]).stale_if_error, secs(5));
}

#[test]
fn qualified_private_and_no_cache_are_about_the_fields_they_name() {
    let parsed = parse(&["private=\"X-A\", no-cache=\"x-b, x-c\"", "no-cache=x-d"]);
    assert!(!parsed.private && !parsed.no_cache);
    assert_eq!(parsed.withheld, ["x-a", "x-b", "x-c", "x-d"]);
    for whole in ["private, private=\"x-a\"", "private=\"\"", "private=", "private=\"a b\"", "private=\"x-a"]
    {
        assert!(parse(&[whole]).private, "{whole}");
    }
}

#[test]
fn directives_that_forbid_stale_responses() {
    for directive in ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1"] {
        assert!(parse(&[directive]).forbids_stale(), "{directive}");
    }
    assert!(!parse(&["public, max-age=1, stale-if-error=1, no-cache=\"x\""]).forbids_stale());
}

fn targeted(lines: &[&str], cache_control: &str) -> CacheControl {
    let mut headers = headers(&CDN, lines);
    headers.insert(header::CACHE_CONTROL, cache_control.parse().unwrap());
    of(&headers, &[CDN])
}

#[test]
fn a_valid_targeted_field_replaces_cache_control_in_either_direction() {
    let parsed = targeted(&["max-age=10"], "no-store, s-maxage=1");
    assert!(parsed.is_targeted && !parsed.no_store);
    assert_eq!((parsed.max_age, parsed.s_maxage), (secs(10), None));
    let parsed = targeted(&["no-store"], "max-age=60");
    assert!(parsed.no_store && parsed.max_age.is_none());
    let parsed = targeted(&["private;x=1, unknown=(a b)", "max-age=5;y"], "max-age=60");
    assert!(parsed.private);
    assert_eq!(parsed.max_age, secs(5));
    assert!(
        targeted(&["no-cache=?0"], "no-cache").max_age.is_none()
            && !targeted(&["no-cache=?0"], "no-cache").no_cache
    );
}

#[test]
fn an_invalid_or_empty_targeted_field_is_ignored_as_a_whole() {
    for invalid in ["", " ", "max-age=10,", "max-age", "Max-Age=10", "max-age=10 5", "&", "max-age=\u{fc}"] {
        let parsed = targeted(&[invalid], "max-age=60");
        match invalid {
            // Valid as a structured field: a lifetime of the wrong type is ignored by itself.
            "max-age" => assert_eq!((parsed.is_targeted, parsed.max_age), (true, None)),
            _ => assert_eq!((parsed.is_targeted, parsed.max_age), (false, secs(60)), "{invalid:?}"),
        }
    }
    for wrong in ["max-age=\"10\"", "max-age=1.5", "max-age=ten", "max-age=(1)", "no-store=1"] {
        let parsed = targeted(&[wrong], "max-age=60, no-store");
        assert_eq!((parsed.is_targeted, parsed.max_age, parsed.no_store), (true, None, false), "{wrong}");
    }
    assert_eq!(targeted(&["max-age=-1"], "max-age=60").max_age, secs(0));
    assert_eq!(targeted(&["max-age=999999999999999"], "no-store").max_age, Some(MAX_DELTA));
}

#[test]
fn the_first_valid_target_counts() {
    let mut headers = headers(&CDN, &["max-age=1"]);
    headers.insert("our-cache-control", "max-age=2".parse().unwrap());
    let own = HeaderName::from_static("our-cache-control");
    assert_eq!(of(&headers, &[own.clone(), CDN]).max_age, secs(2));
    headers.insert("our-cache-control", "&".parse().unwrap());
    assert_eq!(of(&headers, &[own, CDN]).max_age, secs(1));
}

#[test]
fn request_directives() {
    let parse = |line: &str| RequestDirectives::parse(&headers(&header::CACHE_CONTROL, &[line]));
    assert!(
        parse("NO-CACHE").no_cache && parse("no-store").no_store && parse("only-if-cached").only_if_cached
    );
    assert_eq!(parse("max-age=5, min-fresh=6, max-stale=7").max_age, secs(5));
    assert_eq!(parse("max-age=5, min-fresh=6, max-stale=7").min_fresh, secs(6));
    assert_eq!(parse("max-age=5, min-fresh=6, max-stale=7").max_stale, secs(7));
    assert_eq!(parse("max-stale").max_stale, Some(MAX_DELTA));
    assert_eq!(parse("max-stale=x").max_stale, None);
    assert_eq!(parse("max-age=x").max_age, secs(0));
}

#[test]
fn pragma_counts_only_without_cache_control() {
    let mut request = headers(&header::PRAGMA, &["x, No-Cache"]);
    assert!(RequestDirectives::parse(&request).no_cache);
    request.insert(header::CACHE_CONTROL, "max-age=1".parse().unwrap());
    assert!(!RequestDirectives::parse(&request).no_cache);
}

proptest! {
    #[test]
    fn anything_parses_without_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            let mut fields = HeaderMap::new();
            fields.insert(header::CACHE_CONTROL, value.clone());
            fields.insert(CDN, value);
            let _ = of(&fields, &[CDN]);
            let _ = RequestDirectives::parse(&fields);
        }
    }

    #[test]
    fn no_legal_rewriting_changes_anything(
        directives in proptest::collection::vec(directive(), 0..6),
        styles in proptest::collection::vec((any::<u64>(), any::<bool>(), any::<bool>(), "[ \t]{0,2}"), 6),
    ) {
        let plain: Vec<_> = directives.iter().map(|(name, argument)| match argument {
            Some(argument) => format!("{name}={argument}"),
            None => (*name).to_owned(),
        }).collect();
        // §5.2: names have no case, arguments may be tokens or quoted, lists may have empty elements
        // and several lines (9110 §5.3, §5.6.1).
        let mut lines = vec![String::new()];
        for ((name, argument), (case, is_quoted, is_split, space)) in directives.iter().zip(&styles) {
            let letters = name.char_indices().map(|(at, letter)| match case >> at & 1 {
                1 => letter.to_ascii_uppercase(),
                _ => letter,
            });
            let argument = argument.map_or(String::new(), |argument| match is_quoted {
                true => format!("=\"{argument}\""),
                false => format!("={argument}"),
            });
            if *is_split {
                lines.push(String::new());
            }
            let line = lines.last_mut().unwrap();
            line.push_str(&format!("{space}{}{argument}{space},{space}", letters.collect::<String>()));
        }
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        prop_assert_eq!(parse(&[&plain.join(",")]), parse(&lines));
        let request = |lines: &[&str]| RequestDirectives::parse(&headers(&header::CACHE_CONTROL, lines));
        prop_assert_eq!(request(&[&plain.join(",")]), request(&lines));
    }
}

fn directive() -> impl Strategy<Value = (&'static str, Option<u32>)> {
    let names =
        ["no-store", "no-cache", "private", "public", "must-revalidate", "x-unknown", "only-if-cached"];
    let timed = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "min-fresh", "max-stale"];
    prop_oneof![
        proptest::sample::select(names.to_vec()).prop_map(|name| (name, None)),
        (proptest::sample::select(timed.to_vec()), any::<u32>())
            .prop_map(|(name, seconds)| (name, Some(seconds))),
    ]
}
