use super::*;
use crate::http::{
    cache_control::CDN_CACHE_CONTROL,
    request_fields::{CredentialNames, Keyed},
};
use std::time::SystemTime;

use http::{HeaderValue, Request};

type Fields<'a> = &'a [(&'static str, &'a str)];
type Allow = fn(Rules) -> Rules;
type Case<'a, T> = (Fields<'a>, Fields<'a>, T);

const TTL: Duration = Duration::from_secs(10);

fn decision(
    status: u16,
    response: &[(&'static str, &str)],
    request: &[(&'static str, &str)],
    rules: impl std::borrow::Borrow<Rules>,
) -> Decision {
    let mut headers = HeaderMap::new();
    for (name, value) in response {
        headers.append(*name, value.parse().unwrap());
    }
    let mut builder = Request::get("http://h/");
    for (name, value) in request {
        builder = builder.header(*name, *value);
    }
    let head = builder.body(()).unwrap().into_parts().0;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let (status, fields) = (StatusCode::from_u16(status).unwrap(), ResponseFields::of(&headers, now));
    let credentials = Credentials::of(&head.headers, &CredentialNames::DEFAULT, &Keyed::default());
    let response = ResponseHead::new(status, &headers, &fields).with_breakdown(is_breakdown(status));
    judge(RequestKind::Get, credentials, &response, rules.borrow(), &[CDN_CACHE_CONTROL])
}

/// The terms of what may be stored.
fn stored(decision: &Decision) -> Option<Freshness> {
    decision.is_storable.then_some(decision.terms)
}

fn fresh_for(decision: &Decision) -> Option<u64> {
    assert_eq!(decision.sharing, Sharing::Shareable, "what is fresh can be shared");
    stored(decision).map(|terms| terms.fresh_for.as_secs())
}

fn refusal(decision: &Decision) -> NotStored {
    match decision.sharing {
        Sharing::Unshareable(why) => why,
        other => panic!("{other:?}"),
    }
}

const MAX_AGE: (&str, &str) = ("cache-control", "max-age=60");

#[test]
fn the_origin_decides() {
    let rules = Rules::new();
    assert_eq!(fresh_for(&decision(200, &[MAX_AGE], &[], &rules)), Some(60));
    assert_eq!(refusal(&decision(200, &[], &[], &rules)), NotStored::NotFresh);
    assert_eq!(stored(&decision(200, &[], &[], &rules)), None);
    for status in [204, 299, 302, 404, 409, 499, 503, 599] {
        assert_eq!(fresh_for(&decision(status, &[MAX_AGE], &[], &rules)), Some(60), "{status}");
    }
}

#[test]
fn a_default_is_only_for_responses_without_freshness() {
    let rules = Rules::new().default_ttl(TTL);
    assert_eq!(fresh_for(&decision(200, &[], &[], &rules)), Some(10));
    assert_eq!(fresh_for(&decision(200, &[MAX_AGE], &[], &rules)), Some(60));
    for said in ["no-cache", "max-age=0", "max-age=x"] {
        assert_eq!(
            refusal(&decision(200, &[("cache-control", said)], &[], &rules)),
            NotStored::NotFresh,
            "{said}"
        );
    }
    assert_eq!(refusal(&decision(200, &[("expires", "0")], &[], &rules)), NotStored::NotFresh);
    assert_eq!(refusal(&decision(404, &[], &[], &rules)), NotStored::Status);
    assert_eq!(refusal(&decision(204, &[], &[], &rules)), NotStored::NotFresh);
}

#[test]
fn a_fixed_lifetime_overrides_every_lifetime_but_no_protection() {
    let rules = Rules::new().fixed_ttl(TTL);
    for said in ["no-cache", "max-age=0", "max-age=60", "must-revalidate"] {
        assert_eq!(fresh_for(&decision(200, &[("cache-control", said)], &[], &rules)), Some(10), "{said}");
    }
    let table: [Case<'_, NotStored>; 7] = [
        (&[("cache-control", "no-store")], &[], NotStored::NoStore),
        (&[("cache-control", "private")], &[], NotStored::Private),
        (&[("set-cookie", "a=b")], &[], NotStored::SetCookie),
        (&[("vary", "*")], &[], NotStored::VaryStar),
        (&[], &[("authorization", "x")], NotStored::Authorization),
        (&[], &[("cookie", "a=b")], NotStored::Cookie),
        (&[("content-type", "Text/Event-Stream; charset=utf-8")], &[], NotStored::Stream),
    ];
    for (response, request, why) in table {
        let decision = decision(200, response, request, &rules);
        assert_eq!(refusal(&decision), why);
        assert_eq!(stored(&decision), None);
    }
}

#[test]
fn each_protection_is_only_lifted_by_the_rule_of_its_name() {
    let rules = Rules::new().fixed_ttl(TTL);
    let table: [Case<'_, Allow>; 4] = [
        (&[("cache-control", "no-store")], &[], |rules| rules.store_no_store(true)),
        (&[("cache-control", "private")], &[], |rules| rules.store_private(true)),
        (&[("set-cookie", "a=b")], &[], |rules| rules.store_set_cookie(true)),
        (&[], &[("authorization", "x")], |rules| rules.store_authorized(true)),
    ];
    for (row, (response, request, _)) in table.iter().enumerate() {
        for (other, (.., allow)) in table.iter().enumerate() {
            let stored = decision(200, response, request, allow(rules.clone())).is_storable;
            assert_eq!(stored, row == other, "row {row}, rule {other}");
        }
    }
}

#[test]
fn authorization_needs_a_directive_of_the_origin() {
    let with = |said| decision(200, &[("cache-control", said)], &[("authorization", "x")], Rules::new());
    assert_eq!(refusal(&with("max-age=60")), NotStored::Authorization);
    for said in ["max-age=60, public", "max-age=60, must-revalidate", "s-maxage=60"] {
        assert_eq!(fresh_for(&with(said)), Some(60), "{said}");
    }
}

#[test]
fn a_request_whose_own_response_could_not_be_stored_gets_no_stored_one() {
    let audience =
        |said, rules| stored(&decision(200, &[("cache-control", said)], &[], rules)).unwrap().audience;
    let credentials = |authorization, cookie| Credentials { authorization, cookie, token: cookie };
    let ttl = Rules::new().default_ttl(TTL);
    assert_eq!(audience("x", ttl.clone()), credentials(false, false));
    assert_eq!(audience("max-age=60", Rules::new().fixed_ttl(TTL)), credentials(false, false));
    assert_eq!(audience("public", ttl.clone()), credentials(true, false));
    assert_eq!(audience("max-age=60", ttl.clone()), credentials(false, true));
    assert_eq!(audience("max-age=60, public", ttl.clone()), credentials(true, true));
    assert_eq!(audience("x", ttl.store_authorized(true)), credentials(true, false));
    assert!(credentials(false, false).admitted_to(credentials(false, false)));
    assert!(credentials(true, false).admitted_to(credentials(true, true)));
    assert!(!credentials(true, false).admitted_to(credentials(false, true)));
    assert!(!credentials(true, true).admitted_to(credentials(true, false)));
}

#[test]
fn errors_need_explicit_freshness_or_a_negative_lifetime() {
    let rules = Rules::new().default_ttl(TTL).negative_ttl(Duration::from_secs(3));
    for status in [404, 410] {
        assert_eq!(fresh_for(&decision(status, &[], &[], &rules)), Some(3), "{status}");
    }
    for status in [400, 401, 403, 405, 414, 429, 451, 501] {
        assert_eq!(refusal(&decision(status, &[], &[], &rules)), NotStored::Status, "{status}");
    }
    for status in [500, 502, 503, 504] {
        let decision = decision(status, &[], &[], &rules);
        assert_eq!(decision, Decision::not_stored(Sharing::Failed { for_all: true }), "{status}");
    }
}

#[test]
fn a_failure_with_a_private_part_is_not_for_all() {
    for response in
        [("set-cookie", "a=b"), ("cache-control", "private, max-age=9"), ("cache-control", "no-store")]
    {
        let decision = decision(503, &[response], &[], Rules::new());
        assert_eq!(decision.sharing, Sharing::Failed { for_all: false });
    }
}

#[test]
fn directives_forbid_stale_responses_under_any_rules() {
    let rules = Rules::new().stale_if_error_for(TTL).stale_while_revalidate_for(TTL);
    let windows = |said| {
        let terms = stored(&decision(200, &[("cache-control", said)], &[], &rules)).unwrap();
        (terms.stale_if_error_for.as_secs(), terms.stale_while_revalidate_for.as_secs())
    };
    assert_eq!(windows("max-age=1"), (10, 10));
    assert_eq!(windows("max-age=1, stale-if-error=3, stale-while-revalidate=4"), (3, 4));
    for said in ["s-maxage=1", "max-age=1, must-revalidate", "max-age=1, proxy-revalidate"] {
        assert_eq!(windows(said), (0, 0), "{said}");
    }
    assert_eq!(windows("s-maxage=1, stale-if-error=3"), (3, 0), "the origin said both");
    assert_eq!(windows("s-maxage=1, must-revalidate, stale-if-error=3"), (0, 0));
}

#[test]
fn a_stored_failure_is_not_served_in_place_of_another() {
    let window = |status| {
        let said = ("cache-control", "max-age=1, stale-if-error=60");
        stored(&decision(status, &[said], &[], Rules::new())).unwrap().stale_if_error_for.as_secs()
    };
    for status in [500, 502, 503, 504, 599] {
        assert_eq!(window(status), 0, "{status}");
    }
    for status in [200, 299, 404] {
        assert_eq!(window(status), 60, "{status}");
    }
}

#[test]
fn a_status_about_one_message_is_never_stored() {
    let public = ("cache-control", "public, s-maxage=60");
    for status in
        [400, 401, 405, 406, 407, 408, 411, 413, 414, 415, 417, 421, 422, 425, 426, 428, 429, 431, 501]
    {
        let decision = decision(status, &[public], &[], Rules::new().fixed_ttl(TTL));
        assert_eq!((refusal(&decision), stored(&decision)), (NotStored::Status, None), "{status}");
    }
    for status in [505, 508, 510, 511] {
        let decision = decision(status, &[public], &[], Rules::new());
        assert_eq!(decision, Decision::not_stored(Sharing::Failed { for_all: false }), "{status}");
    }
}

#[test]
fn a_response_that_must_be_revalidated_is_kept_if_it_can_be() {
    let kept = |fields: &[(&'static str, &str)]| decision(200, fields, &[], Rules::new()).is_storable;
    assert!(kept(&[("cache-control", "no-cache"), ("etag", "\"1\"")]));
    assert!(kept(&[("cache-control", "max-age=0"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]));
    assert!(!kept(&[("cache-control", "no-cache")]));
    assert!(kept(&[("cache-control", "max-age=0, stale-while-revalidate=60")]));
    assert!(kept(&[("cache-control", "max-age=0, stale-if-error=60")]));
    assert!(!kept(&[("cache-control", "max-age=0, stale-if-error=0")]));
    assert!(!kept(&[("cache-control", "max-age=0, must-revalidate, stale-if-error=60")]));
    assert!(!kept(&[("etag", "\"1\"")]));
}

#[test]
fn parts_and_responses_to_conditions_are_for_one_client() {
    for status in [101, 206, 226, 304, 305, 306, 412, 416] {
        let decision = decision(status, &[MAX_AGE], &[], Rules::new().fixed_ttl(TTL));
        assert_eq!(refusal(&decision), NotStored::Partial);
        assert_eq!(stored(&decision), None);
    }
}

#[test]
fn a_response_to_head_is_shared_but_not_stored() {
    let headers = [(header::CACHE_CONTROL, "max-age=1".parse().unwrap())].into_iter().collect();
    let fields = ResponseFields::of(&headers, SystemTime::UNIX_EPOCH);
    let response = ResponseHead::new(StatusCode::OK, &headers, &fields);
    let decision = judge(RequestKind::Head, Credentials::default(), &response, &Rules::new(), &[]);
    assert_eq!((decision.sharing, decision.is_storable), (Sharing::Shareable, false));
    assert!(decision.terms.audience.cookie, "the audience does not depend on the method");
}

/// The time in these tests is 1,000,000 seconds: 12 January 1970, 13:46:40.
const TEN_THOUSAND_SECONDS_AGO: (&str, &str) = ("last-modified", "Mon, 12 Jan 1970 11:00:00 GMT");

#[test]
fn a_response_with_only_last_modified_is_fresh_for_a_share_of_the_time_since() {
    let rules = Rules::new().heuristic(0.1, Duration::MAX);
    for status in [200, 203, 204, 300, 301, 308, 404, 410, 451] {
        assert_eq!(
            fresh_for(&decision(status, &[TEN_THOUSAND_SECONDS_AGO], &[], &rules)),
            Some(1000),
            "{status}"
        );
    }
    for status in [201, 202, 302, 307, 403, 599] {
        let silent = decision(status, &[TEN_THOUSAND_SECONDS_AGO], &[], &rules);
        assert_ne!(silent.sharing, Sharing::Shareable, "{status}");
        let public = decision(status, &[TEN_THOUSAND_SECONDS_AGO, ("cache-control", "public")], &[], &rules);
        assert_eq!(fresh_for(&public), Some(1000), "{status}");
    }
}

#[test]
fn the_age_on_arrival_counts_unless_the_lifetime_is_of_the_rules() {
    let is_ours = |fields: Fields<'_>, rules| stored(&decision(200, fields, &[], rules)).unwrap().is_ours;
    assert!(!is_ours(&[MAX_AGE], Rules::new()));
    let guess = Rules::new().heuristic(0.1, TTL);
    assert!(!is_ours(&[TEN_THOUSAND_SECONDS_AGO], guess.clone()));
    assert!(is_ours(&[TEN_THOUSAND_SECONDS_AGO], guess.default_ttl(TTL)));
    assert!(is_ours(&[MAX_AGE], Rules::new().fixed_ttl(TTL)));
}

#[test]
fn heuristic_freshness_is_off_by_default_bounded_and_for_clients_without_cookies() {
    let with = |rules| decision(200, &[TEN_THOUSAND_SECONDS_AGO], &[], rules);
    let guess = Rules::new().heuristic(0.1, Duration::from_secs(86_400));
    assert_eq!(refusal(&with(Rules::new())), NotStored::NotFresh);
    assert_eq!(fresh_for(&with(guess.clone())), Some(1000));
    assert_eq!(fresh_for(&with(Rules::new().heuristic(0.1, TTL))), Some(10));
    assert_eq!(fresh_for(&with(Rules::new().heuristic(1.0, Duration::MAX))), Some(10_000));
    assert_eq!(fresh_for(&with(guess.clone().default_ttl(TTL))), Some(10), "a default takes precedence");
    assert!(!stored(&with(guess.clone())).unwrap().audience.cookie);
    let cookie = decision(200, &[TEN_THOUSAND_SECONDS_AGO], &[("cookie", "a=b")], &guess);
    assert_eq!(refusal(&cookie), NotStored::Cookie);
    for said in [("cache-control", "no-cache"), ("cache-control", "max-age=0"), ("expires", "0")] {
        let told = decision(200, &[TEN_THOUSAND_SECONDS_AGO, said], &[], &guess);
        assert_eq!(refusal(&told), NotStored::NotFresh, "{said:?}");
    }
}

#[test]
fn must_understand_overrides_no_store_for_what_is_understood() {
    let with = |status, said| decision(status, &[("cache-control", said)], &[], Rules::new());
    assert_eq!(fresh_for(&with(200, "max-age=60, no-store, must-understand")), Some(60));
    assert_eq!(refusal(&with(299, "max-age=60, no-store, must-understand")), NotStored::NoStore);
    assert_eq!(refusal(&with(299, "max-age=60, must-understand")), NotStored::NoStore);
    assert_eq!(refusal(&with(200, "max-age=60, no-store")), NotStored::NoStore);
}

#[test]
fn fields_that_are_named_private_are_withheld_and_the_rest_is_stored() {
    let named = [("cache-control", "max-age=60, private=\"set-cookie, x-user\""), ("set-cookie", "a=b")];
    let decision = decision(200, &named, &[], Rules::new());
    assert_eq!(fresh_for(&decision), Some(60));
    assert_eq!(decision.withheld, ["set-cookie", "x-user"]);
}

#[test]
fn a_targeted_field_decides_alone() {
    let with = |targeted, said| {
        decision(
            200,
            &[("cdn-cache-control", targeted), ("cache-control", said), ("expires", "0")],
            &[],
            Rules::new(),
        )
    };
    assert_eq!(fresh_for(&with("max-age=60", "no-store, private")), Some(60));
    assert_eq!(refusal(&with("no-store", "max-age=60")), NotStored::NoStore);
    assert_eq!(refusal(&with("no-cache", "max-age=60")), NotStored::NotFresh);
    assert_eq!(fresh_for(&with("max-age=60,", "max-age=30")), Some(30));
}

#[test]
fn a_part_is_judged_as_the_whole_would_be_unless_it_has_another_length() {
    let part = |length: &str, said: &'static str| {
        let fields = [
            (header::CACHE_CONTROL, HeaderValue::from_static(said)),
            (header::CONTENT_RANGE, HeaderValue::from_static("bytes 0-4/10")),
            (header::CONTENT_LENGTH, HeaderValue::from_str(length).unwrap()),
        ];
        let headers = fields.into_iter().collect();
        let mut fields = ResponseFields::of(&headers, SystemTime::UNIX_EPOCH);
        fields.content = fields.length.unwrap();
        let response = ResponseHead::new(StatusCode::PARTIAL_CONTENT, &headers, &fields);
        let response = response.with_extent(Extent::of(&headers));
        judge(RequestKind::Get, Credentials::default(), &response, &Rules::new(), &[])
    };
    assert_eq!(fresh_for(&part("5", "max-age=60")), Some(60));
    assert_eq!(refusal(&part("5", "no-store")), NotStored::NoStore);
    assert_eq!(refusal(&part("6", "max-age=60")), NotStored::Framing);
}

#[test]
fn only_a_get_without_content_is_kept_for_its_validator_alone() {
    let fields = [(header::CACHE_CONTROL, "no-cache"), (header::ETAG, "\"1\"")];
    let headers = fields.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
    let fields = ResponseFields::of(&headers, SystemTime::UNIX_EPOCH);
    for (kind, is_kept) in
        [(RequestKind::Get, true), (RequestKind::Head, false), (RequestKind::ReadByBody, false)]
    {
        let response = ResponseHead::new(StatusCode::OK, &headers, &fields);
        let decision = judge(kind, Credentials::default(), &response, &Rules::new(), &[]);
        assert_eq!(decision.is_storable, is_kept, "{kind:?}");
    }
}

#[test]
fn far_times_saturate() {
    let now = Instant::now();
    assert!(after(now, Duration::MAX) > now);
    assert_eq!(after(now, Duration::ZERO), now);
}
