use super::*;
use crate::tags::CACHE_GROUP_INVALIDATION;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use std::time::SystemTime;

const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";

fn noon() -> SystemTime {
    httpdate::parse_http_date(NOON).unwrap()
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn lifetime(fields: &[(&str, &str)]) -> Option<u64> {
    let headers = headers(fields);
    let fields = ResponseFields::of(&headers, noon());
    fields.explicit_lifetime(&fields.cache_control, &headers).map(|lifetime| lifetime.as_secs())
}

#[test]
fn s_maxage_goes_before_max_age_goes_before_expires() {
    let expires = ("expires", "Sun, 06 Nov 1994 12:00:09 GMT");
    assert_eq!(lifetime(&[("cache-control", "max-age=5, s-maxage=3"), expires]), Some(3));
    assert_eq!(lifetime(&[("cache-control", "max-age=5"), expires]), Some(5));
    assert_eq!(lifetime(&[expires]), Some(9));
    assert_eq!(lifetime(&[("date", "Sun, 06 Nov 1994 12:00:04 GMT"), expires]), Some(5));
    assert_eq!(lifetime(&[]), None);
}

#[test]
fn a_targeted_field_leaves_nothing_to_expires() {
    let expires = ("expires", "Sun, 06 Nov 1994 12:00:09 GMT");
    let headers = headers(&[("cdn-cache-control", "public"), ("cache-control", "max-age=5"), expires]);
    let targets = [HeaderName::from_static("cdn-cache-control")];
    let targeted = CacheControl::targeted(&headers, &targets).unwrap();
    assert_eq!(ResponseFields::of(&headers, noon()).explicit_lifetime(&targeted, &headers), None);
}

#[test]
fn the_time_without_change_ends_when_the_response_was_sent() {
    let guess = |fields: &[(&str, &str)]| {
        let headers = headers(fields);
        ResponseFields::of(&headers, noon()).unchanged_for(&headers).map(|unchanged| unchanged.as_secs())
    };
    let modified = ("last-modified", "Sun, 06 Nov 1994 11:00:00 GMT");
    assert_eq!(guess(&[modified]), Some(3600));
    assert_eq!(guess(&[modified, ("date", "Sun, 06 Nov 1994 11:10:00 GMT")]), Some(600));
    assert_eq!(guess(&[modified, ("date", "Sun, 06 Nov 1994 10:59:59 GMT")]), None);
    assert_eq!(guess(&[]), None);
    assert_eq!(guess(&[("last-modified", "yesterday")]), None);
}

#[test]
fn an_unreadable_or_past_expires_is_stale() {
    for value in ["0", "-1", "", "tomorrow", "Sun, 06 Nov 1994 11:59:59 GMT"] {
        assert_eq!(lifetime(&[("expires", value)]), Some(0), "{value}");
    }
}

#[test]
fn the_age_is_the_larger_of_what_date_and_age_say() {
    let age = |fields: &[(&str, &str)], delay| {
        ResponseFields::of(&headers(fields), noon()).initial_age(Duration::from_millis(delay)).as_millis()
    };
    assert_eq!(age(&[], 60), 60);
    assert_eq!(age(&[("age", "2")], 60), 2_060);
    assert_eq!(age(&[("age", "2, 9")], 0), 2_000);
    assert_eq!(age(&[("date", "Sun, 06 Nov 1994 11:59:00 GMT"), ("age", "2")], 60), 60_000);
    assert_eq!(age(&[("date", "Sun, 06 Nov 1994 12:01:00 GMT")], 60), 60, "a clock that is ahead");
    for junk in ["-1", "1.5", "x", ""] {
        assert_eq!(age(&[("age", junk)], 5), 5, "{junk}");
    }
}

proptest! {
    #[test]
    fn age_grows_with_all_that_it_is_made_of(
        ages in any::<[u64; 2]>(),
        delays in any::<[u64; 2]>(),
        since in proptest::array::uniform2(0_u64..1 << 29),
    ) {
        let of = |pick: fn([u64; 2]) -> u64| {
            let date = httpdate::fmt_http_date(noon() - Duration::from_secs(pick(since)));
            let headers = headers(&[("age", &pick(ages).to_string()), ("date", &date)]);
            ResponseFields::of(&headers, noon()).initial_age(Duration::from_nanos(pick(delays)))
        };
        prop_assert!(of(|[a, b]| a.min(b)) <= of(|[a, b]| a.max(b)));
    }

    #[test]
    fn the_lifetime_grows_with_what_the_origin_says(
        seconds in any::<[u64; 2]>(),
        expires in proptest::array::uniform2(0_u64..1 << 32),
        name in proptest::sample::select(&["max-age", "s-maxage"][..]),
    ) {
        let said = |pick: fn([u64; 2]) -> u64| lifetime(&[
            ("cache-control", &format!("{name}={}", pick(seconds))),
        ]);
        prop_assert!(said(|[a, b]| a.min(b)) <= said(|[a, b]| a.max(b)));
        let until = |pick: fn([u64; 2]) -> u64| {
            let end = noon() - Duration::from_secs(1 << 29) + Duration::from_secs(pick(expires) / 4);
            lifetime(&[("date", NOON), ("expires", &httpdate::fmt_http_date(end))])
        };
        prop_assert!(until(|[a, b]| a.min(b)) <= until(|[a, b]| a.max(b)));
    }

    #[test]
    fn dates_never_panic(date in "[ -~]{0,40}", expires in "[ -~]{0,40}", age in "[ -~]{0,30}") {
        let headers = headers(&[("date", &date), ("expires", &expires), ("age", &age)]);
        let fields = ResponseFields::of(&headers, noon());
        let _ = fields.explicit_lifetime(&fields.cache_control, &headers);
        let _ = fields.initial_age(Duration::MAX);
    }
}

fn response_fields(fields: &[(&'static str, &str)]) -> ResponseFields {
    let field = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    ResponseFields::of(&fields.iter().map(field).collect(), SystemTime::UNIX_EPOCH)
}

#[test]
fn the_first_of_repeated_fields_counts() {
    let dated = response_fields(&[
        ("date", "Thu, 01 Jan 1970 00:00:07 GMT"),
        ("date", "Thu, 01 Jan 1970 00:00:08 GMT"),
        ("age", "1"),
        ("age", "2"),
    ]);
    assert_eq!(dated.date, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
    assert_eq!(dated.age, Duration::from_secs(1));
    assert_eq!(response_fields(&[("date", "x"), ("date", "Thu, 01 Jan 1970 00:00:08 GMT")]).date, None);
}

#[test]
fn present_fields_are_found() {
    let seen = |name| {
        let ResponseFields { has_tags, has_groups, has_validator, has_expires, sets_cookie, .. } =
            response_fields(&[("server", "x"), (name, "x")]);
        [has_tags, has_groups, has_validator, has_expires, sets_cookie]
    };
    for (at, names) in [
        &["surrogate-key", "cache-tag"][..],
        &["cache-groups"],
        &["etag", "last-modified"],
        &["expires"],
        &["set-cookie"],
    ]
    .iter()
    .enumerate()
    {
        for name in *names {
            assert_eq!(seen(name), std::array::from_fn(|other| other == at), "{name}");
        }
    }
}

#[test]
fn the_fields_of_a_passed_response_are_found() {
    let found = |name: &HeaderName| {
        let fields =
            [(header::ETAG, HeaderValue::from_static("x")), (name.clone(), HeaderValue::from_static("x"))];
        PassedFields::of(&fields.into_iter().collect())
    };
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        assert_eq!(found(&name), PassedFields { has_reference: true, ..PassedFields::NONE });
    }
    for name in [&SURROGATE_KEY, &CACHE_TAG] {
        assert_eq!(found(name), PassedFields { has_tags: true, ..PassedFields::NONE });
    }
    assert_eq!(found(&CACHE_GROUP_INVALIDATION), PassedFields { has_groups: true, ..PassedFields::NONE });
    assert_eq!(found(&header::SERVER), PassedFields::NONE);
}

fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(field).collect()
}

#[test]
fn a_length_is_declared_in_one_number() {
    let declared = |lines: &[&str]| {
        let fields: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
        content_length(&head(&fields))
    };
    assert_eq!(declared(&[]), Ok(None));
    assert_eq!(declared(&["7"]), Ok(Some(7)));
    for repeated in [&["7", "7"][..], &["7, 7"], &["7,7 ,\t7"], &["7, 7", "7"], &["007"]] {
        assert_eq!(declared(repeated), Ok(Some(7)), "{repeated:?}");
    }
    for junk in [
        &["7", "8"][..],
        &["7", "x"],
        &["x", "7"],
        &["7", "8", "8"],
        &["7", "8", "7"],
        &["7, 8"],
        &["7,"],
        &[",7"],
        &["-1"],
        &["+7"],
        &["7", "+7"],
        &["0x7"],
        &["7 7"],
        &["18446744073709551616"],
        &[""],
    ] {
        assert_eq!(declared(junk), Err(NoLength), "{junk:?}");
    }
}

#[test]
fn a_transfer_coding_overrides_a_length() {
    let declared = |codings: &[&str]| {
        let mut fields: Vec<_> = codings.iter().map(|line| ("transfer-encoding", *line)).collect();
        fields.push(("content-length", "7"));
        content_length(&head(&fields))
    };
    for chunked in [&["chunked"][..], &["Chunked"], &["", "chunked, "]] {
        assert_eq!(declared(chunked), Ok(None), "{chunked:?}");
    }
    for other in
        [&["gzip, chunked"][..], &["gzip", "chunked"], &["gzip"], &["chunked, chunked"], &["identity"]]
    {
        assert_eq!(declared(other), Err(NoLength), "{other:?}");
    }
}

#[test]
fn a_length_that_would_cut_off_the_body_is_removed_and_others_stay() {
    let settled = |status: u16, fields: &[(&'static str, &str)], hint: SizeHint| {
        let status = StatusCode::from_u16(status).unwrap();
        let (mut headers, framing) = (head(fields), Framing::of(&head(fields)));
        let mut settled = framing;
        let is_lost = settled.settle(status, &mut headers, &hint).is_err();
        assert_eq!(settled.declared(), content_length(&headers));
        let left: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().cloned().collect();
        let (before, after) = (framing.length_of(status, &hint), Framing::of(&headers));
        assert_eq!(is_lost, before.is_err() && after.length_of(status, &hint).is_ok());
        (left, before)
    };
    let (unknown, five) = (SizeHint::default(), SizeHint::with_exact(5));
    let length = |value| ("content-length", value);
    let chunked = ("transfer-encoding", "chunked");
    for (status, fields, hint, left, declared) in [
        (200, &[][..], five, &[][..], Ok(None)),
        (200, &[length("5")], five, &["5"], Ok(Some(5))),
        (200, &[length("5, 5")], five, &["5"], Ok(Some(5))),
        (200, &[length("5"), length("5")], unknown, &["5"], Ok(Some(5))),
        (200, &[length("+5")], five, &[], Err(NoLength)),
        (200, &[length("5"), length("6")], five, &[], Err(NoLength)),
        (200, &[length("3")], five, &[], Err(NoLength)),
        (200, &[length("9")], five, &["9"], Err(NoLength)),
        (200, &[length("3"), chunked], unknown, &[], Ok(None)),
        (200, &[length("9"), chunked], five, &[], Ok(None)),
        (304, &[length("9")], SizeHint::with_exact(0), &["9"], Err(NoLength)),
        (204, &[length("9")], SizeHint::with_exact(0), &[], Ok(None)),
    ] {
        assert_eq!(settled(status, fields, hint), (headers_of(left), declared), "{status} {fields:?}");
    }
}

fn headers_of(lines: &[&'static str]) -> Vec<HeaderValue> {
    lines.iter().map(|line| HeaderValue::from_static(line)).collect()
}
