use super::*;
use http::Request;

const TTL: Duration = Duration::from_secs(10);

type Fields<'a> = &'a [(&'static str, &'a str)];

fn decision(
    status: u16,
    response: &[(&'static str, &str)],
    request: &[(&'static str, &str)],
    rules: Rules,
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
    decide(&head, StatusCode::from_u16(status).unwrap(), &headers, &rules, SystemTime::UNIX_EPOCH)
}

fn fresh_for(decision: &Decision) -> Option<u64> {
    assert_eq!(decision.sharing, Sharing::Shareable, "what is fresh can be shared");
    decision.store.map(|terms| terms.fresh_for.as_secs())
}

fn refusal(decision: &Decision) -> Unshareable {
    match decision.sharing {
        Sharing::Unshareable(why) => why,
        other => panic!("{other:?}"),
    }
}

const MAX_AGE: (&str, &str) = ("cache-control", "max-age=60");

#[test]
fn the_origin_decides() {
    let rules = Rules::new();
    assert_eq!(fresh_for(&decision(200, &[MAX_AGE], &[], rules)), Some(60));
    assert_eq!(refusal(&decision(200, &[], &[], rules)), Unshareable::NotFresh);
    assert_eq!(decision(200, &[], &[], rules).store, None);
    for status in [204, 299, 302, 404, 429, 499, 503, 599] {
        assert_eq!(fresh_for(&decision(status, &[MAX_AGE], &[], rules)), Some(60), "{status}");
    }
}

#[test]
fn a_default_speaks_only_where_the_origin_is_silent() {
    let rules = Rules::new().default_ttl(TTL);
    assert_eq!(fresh_for(&decision(200, &[], &[], rules)), Some(10));
    assert_eq!(fresh_for(&decision(200, &[MAX_AGE], &[], rules)), Some(60));
    for said in ["no-cache", "max-age=0", "max-age=x"] {
        assert_eq!(
            refusal(&decision(200, &[("cache-control", said)], &[], rules)),
            Unshareable::NotFresh,
            "{said}"
        );
    }
    assert_eq!(refusal(&decision(200, &[("expires", "0")], &[], rules)), Unshareable::NotFresh);
    assert_eq!(refusal(&decision(404, &[], &[], rules)), Unshareable::Error);
    assert_eq!(refusal(&decision(204, &[], &[], rules)), Unshareable::NotFresh);
}

#[test]
fn a_fixed_lifetime_overrules_every_lifetime_but_no_protection() {
    let rules = Rules::new().fixed_ttl(TTL);
    for said in ["no-cache", "max-age=0", "max-age=60", "must-revalidate"] {
        assert_eq!(fresh_for(&decision(200, &[("cache-control", said)], &[], rules)), Some(10), "{said}");
    }
    type Row<'a> = (Fields<'a>, Fields<'a>, Unshareable);
    let table: [Row<'_>; 7] = [
        (&[("cache-control", "no-store")], &[], Unshareable::NoStore),
        (&[("cache-control", "private")], &[], Unshareable::Private),
        (&[("set-cookie", "a=b")], &[], Unshareable::SetCookie),
        (&[("vary", "*")], &[], Unshareable::Vary),
        (&[], &[("authorization", "x")], Unshareable::Authorization),
        (&[], &[("cookie", "a=b")], Unshareable::Cookie),
        (&[("content-type", "Text/Event-Stream; charset=utf-8")], &[], Unshareable::Stream),
    ];
    for (response, request, why) in table {
        let decision = decision(200, response, request, rules);
        assert_eq!(refusal(&decision), why);
        assert_eq!(decision.store, None);
    }
}

#[test]
fn each_protection_falls_only_to_the_rule_of_its_name() {
    let rules = Rules::new().fixed_ttl(TTL);
    type Row<'a> = (Fields<'a>, Fields<'a>, fn(Rules) -> Rules);
    let table: [Row<'_>; 5] = [
        (&[("cache-control", "no-store")], &[], |rules| rules.store_no_store(true)),
        (&[("cache-control", "private")], &[], |rules| rules.store_private(true)),
        (&[("set-cookie", "a=b")], &[], |rules| rules.store_set_cookie(true)),
        (&[], &[("authorization", "x")], |rules| rules.store_authorized(true)),
        (&[], &[("cookie", "a=b")], |rules| rules.store_cookie_requests(true)),
    ];
    for (row, (response, request, _)) in table.iter().enumerate() {
        for (other, (.., allow)) in table.iter().enumerate() {
            let stored = decision(200, response, request, allow(rules)).store.is_some();
            assert_eq!(stored, row == other, "row {row}, rule {other}");
        }
    }
}

#[test]
fn authorization_needs_a_word_from_the_origin() {
    let with = |said| decision(200, &[("cache-control", said)], &[("authorization", "x")], Rules::new());
    assert_eq!(refusal(&with("max-age=60")), Unshareable::Authorization);
    for said in ["max-age=60, public", "max-age=60, must-revalidate", "s-maxage=60"] {
        assert_eq!(fresh_for(&with(said)), Some(60), "{said}");
    }
}

#[test]
fn what_our_rules_alone_keep_fresh_is_for_anonymous_clients() {
    let audience = |response: &[(&'static str, &str)], rules| {
        decision(200, response, &[], rules).store.unwrap().audience
    };
    let nobody = Credentials::default();
    assert_eq!(audience(&[], Rules::new().default_ttl(TTL)), nobody);
    assert_eq!(audience(&[MAX_AGE], Rules::new().fixed_ttl(TTL)), nobody);
    let all = Credentials { authorization: true, cookie: true };
    assert_eq!(audience(&[MAX_AGE], Rules::new().default_ttl(TTL)), all);
    let named = Rules::new().fixed_ttl(TTL).store_authorized(true).store_cookie_requests(true);
    assert_eq!(audience(&[], named), all);
    assert!(nobody.admitted_to(nobody) && nobody.admitted_to(all) && !all.admitted_to(nobody));
}

#[test]
fn errors_need_explicit_freshness_or_a_negative_lifetime() {
    let rules = Rules::new().default_ttl(TTL).negative_ttl(Duration::from_secs(3));
    for status in [404, 405, 410, 414, 501] {
        assert_eq!(fresh_for(&decision(status, &[], &[], rules)), Some(3), "{status}");
    }
    for status in [400, 401, 403, 429] {
        assert_eq!(refusal(&decision(status, &[], &[], rules)), Unshareable::Error, "{status}");
    }
    for status in [500, 502, 503, 504] {
        let decision = decision(status, &[], &[], rules);
        assert_eq!(
            decision,
            Decision { sharing: Sharing::Failed { for_all: true }, store: None },
            "{status}"
        );
    }
}

#[test]
fn a_failure_with_something_personal_is_not_for_all() {
    for response in
        [("set-cookie", "a=b"), ("cache-control", "private, max-age=9"), ("cache-control", "no-store")]
    {
        let decision = decision(503, &[response], &[], Rules::new());
        assert_eq!(decision.sharing, Sharing::Failed { for_all: false });
    }
}

#[test]
fn directives_forbid_stale_answers_whatever_the_rules_say() {
    let rules = Rules::new().stale_if_error_for(TTL).stale_while_revalidate_for(TTL);
    let windows = |said| {
        let terms = decision(200, &[("cache-control", said)], &[], rules).store.unwrap();
        (terms.stale_if_error_for.as_secs(), terms.stale_while_revalidate_for.as_secs())
    };
    assert_eq!(windows("max-age=1"), (10, 10));
    assert_eq!(windows("max-age=1, stale-if-error=3, stale-while-revalidate=4"), (3, 4));
    for said in ["s-maxage=1", "max-age=1, must-revalidate", "max-age=1, proxy-revalidate"] {
        assert_eq!(windows(said), (0, 0), "{said}");
    }
}

#[test]
fn what_must_be_revalidated_is_kept_if_it_can_be() {
    let kept = |fields: &[(&'static str, &str)]| decision(200, fields, &[], Rules::new()).store.is_some();
    assert!(kept(&[("cache-control", "no-cache"), ("etag", "\"1\"")]));
    assert!(kept(&[("cache-control", "max-age=0"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]));
    assert!(!kept(&[("cache-control", "no-cache")]));
    assert!(!kept(&[("etag", "\"1\"")]));
}

#[test]
fn parts_and_answers_to_conditions_are_for_nobody_else() {
    for status in [101, 206, 304, 412, 416] {
        let decision = decision(status, &[MAX_AGE], &[], Rules::new().fixed_ttl(TTL));
        assert_eq!(refusal(&decision), Unshareable::Incomplete);
        assert_eq!(decision.store, None);
    }
}

#[test]
fn an_answer_to_head_is_shared_but_not_stored() {
    let head = Request::head("http://h/").body(()).unwrap().into_parts().0;
    let headers = [(header::CACHE_CONTROL, "max-age=1".parse().unwrap())].into_iter().collect();
    let decision = decide(&head, StatusCode::OK, &headers, &Rules::new(), SystemTime::UNIX_EPOCH);
    assert_eq!(decision, Decision { sharing: Sharing::Shareable, store: None });
}
