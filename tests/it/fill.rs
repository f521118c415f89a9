//! What is stored, for how long, for whom, and what is not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::support::{
    Answer, Failure, Origin, Reply, collect, error, get, get_with, ms, ok, request, secs, send, settle,
    status, try_send,
};
use http::{HeaderValue, StatusCode};
use proptest::prelude::*;
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_readthrough::{
    Fill, FillLayer, KeyLayer, Lookup, LookupLayer, MemoryStore, Rules, Store, StoreLayer, Unshareable,
};

type Cached = Lookup<Fill<Origin, MemoryStore>, MemoryStore>;

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(1 << 20)
}

fn cached(rules: Rules, origin: &Origin) -> Cached {
    cached_in(&store(), rules, origin)
}

fn cached_in(store: &MemoryStore, rules: Rules, origin: &Origin) -> Cached {
    StoreLayer::new(store.clone()).rules(rules).layer(origin.clone())
}

fn ttl() -> Rules {
    Rules::new().default_ttl(secs(10))
}

fn unshareable(reply: &Reply) -> Option<Unshareable> {
    reply.came_about.unwrap().unshareable_reason()
}

/// How often the origin is asked for two requests in a row that are the same.
async fn calls_for_two(rules: Rules, fields: &[(&str, &str)], answer: fn() -> Answer) -> usize {
    let origin = Origin::always(answer);
    let service = cached(rules, &origin);
    let first = get_with(&service, "/", fields).await;
    let second = get_with(&service, "/", fields).await;
    assert_eq!(first.body, second.body);
    assert_eq!(second.is_hit(), origin.calls() == 1);
    let status = first.came_about.unwrap();
    assert_eq!(status.is_stored(), second.is_hit(), "the first answer says what becomes of it");
    origin.calls()
}

/// Whether an answer is served at `at` without asking, and not any more at `end`.
async fn assert_fresh_until(
    rules: Rules,
    end: Duration,
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) {
    let origin = Origin::always(answer);
    let service = cached(rules, &origin);
    get(&service, "/").await;
    tokio::time::advance(end - Duration::from_nanos(1)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(Duration::from_nanos(1)).await;
    let reply = get(&service, "/").await;
    assert!(!reply.is_hit());
    assert_eq!(origin.calls(), 2);
}

// Freshness.

#[tokio::test(start_paused = true)]
async fn the_lifetime_that_the_origin_gives_is_kept_to_the_nanosecond() {
    assert_fresh_until(Rules::new(), secs(2), || ok("x").max_age(2)).await;
    assert_fresh_until(Rules::new(), secs(3), || ok("x").header("cache-control", "max-age=9, s-maxage=3"))
        .await;
    let date = httpdate::fmt_http_date(SystemTime::now());
    let expires = httpdate::fmt_http_date(SystemTime::now() + secs(3600));
    let origin = Origin::always(move || ok("x").header("date", &date).header("expires", &expires));
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    // The clock on the wall is not paused, so `Date` may make the answer a few seconds old.
    tokio::time::advance(secs(3580)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(secs(20)).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_default_lifetime_is_for_answers_that_say_nothing() {
    assert_fresh_until(ttl(), secs(10), || ok("x")).await;
    assert_fresh_until(ttl(), secs(2), || ok("x").max_age(2)).await;
    assert_eq!(calls_for_two(ttl(), &[], || ok("x").header("cache-control", "no-cache")).await, 2);
    assert_eq!(calls_for_two(ttl(), &[], || ok("x").header("expires", "0")).await, 2);
    assert_eq!(calls_for_two(ttl(), &[], || ok("x").max_age(0)).await, 2);
    assert_eq!(calls_for_two(Rules::new(), &[], || ok("x")).await, 2, "without one the origin decides");
}

#[tokio::test(start_paused = true)]
async fn a_guessed_lifetime_counts_from_when_the_answer_was_made() {
    let modified = httpdate::fmt_http_date(SystemTime::now() - secs(1000));
    let origin = Origin::always(move || ok("x").header("last-modified", &modified).header("age", "60"));
    let service = cached(Rules::new().heuristic(0.1, secs(86_400)), &origin);
    get(&service, "/").await;
    // A tenth of the time without change, less the age that it came with. The clock on the wall
    // is not paused.
    tokio::time::advance(secs(38)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(secs(5)).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_fixed_lifetime_overrules_the_origins() {
    let rules = || Rules::new().fixed_ttl(secs(4));
    assert_fresh_until(rules(), secs(4), || ok("x").max_age(100)).await;
    assert_fresh_until(rules(), secs(4), || ok("x").max_age(0)).await;
    assert_fresh_until(rules(), secs(4), || ok("x").header("cache-control", "no-cache")).await;
    assert_fresh_until(rules(), secs(4), || ok("x")).await;
}

#[tokio::test(start_paused = true)]
async fn lifetimes_below_a_millisecond_count() {
    for lifetime in [Duration::from_micros(300), Duration::from_nanos(1), Duration::from_micros(999)] {
        assert_fresh_until(Rules::new().default_ttl(lifetime), lifetime, || ok("x")).await;
        assert_fresh_until(Rules::new().fixed_ttl(lifetime), lifetime, || ok("x")).await;
    }
    assert_fresh_until(ttl().fixed_ttl(ms(50)), ms(50), || ok("x")).await;
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_of_zero_stores_nothing_and_one_without_end_lasts() {
    assert_eq!(calls_for_two(Rules::new().default_ttl(Duration::ZERO), &[], || ok("x")).await, 2);
    assert_eq!(calls_for_two(Rules::new().fixed_ttl(Duration::ZERO), &[], || ok("x")).await, 2);
    for rules in [Rules::new().default_ttl(Duration::MAX), Rules::new().fixed_ttl(Duration::MAX)] {
        assert_fresh_until(rules.stale_if_error_for(Duration::MAX), secs(1 << 31), || ok("x")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn lifetimes_of_any_size_and_form_are_taken_without_panic() {
    for value in ["2147483648", "9223372036854775808", "18446744073709551616", "99999999999999999999999999"] {
        assert_fresh_until(Rules::new(), secs(1 << 31), move || {
            ok("x").header("cache-control", format!("max-age={value}"))
        })
        .await;
    }
    assert_fresh_until(Rules::new(), secs(7), || ok("x").header("cache-control", "max-age=\"7\"")).await;
    assert_fresh_until(Rules::new(), secs(1), || ok("x").header("cache-control", "max-age=1, max-age=9"))
        .await;
    for value in ["-1", "1.5", "", "x", "0x10", "1e3"] {
        let origin = Origin::always(move || ok("x").header("cache-control", format!("max-age={value}")));
        let service = cached(ttl(), &origin);
        for _ in 0..2 {
            assert!(!get(&service, "/").await.is_hit(), "{value}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_the_answer_took_is_part_of_its_age() {
    let origin = Origin::always(|| ok("x").after(secs(3)));
    let service = cached(ttl(), &origin);
    get(&service, "/").await;
    assert_eq!(get(&service, "/").await.age(), Some(3));
    tokio::time::advance(ms(6_999)).await;
    assert!(get(&service, "/").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_took_longer_than_it_lives_is_not_served_again() {
    let origin = Origin::always(|| ok("x").after(secs(10)));
    let service = cached(ttl(), &origin);
    assert_eq!(get(&service, "/").await.body, "x");
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn the_age_that_the_answer_came_with_counts() {
    assert_fresh_until(Rules::new(), secs(5), || ok("x").max_age(60).header("age", "55")).await;
    assert_fresh_until(Rules::new(), secs(60), || ok("x").max_age(60).header("age", "-5")).await;
    let old = httpdate::fmt_http_date(SystemTime::now() - secs(100));
    let origin = Origin::always(move || ok("x").max_age(60).header("date", &old));
    let service = cached(Rules::new(), &origin);
    for _ in 0..2 {
        assert!(!get(&service, "/").await.is_hit(), "as old as its date says");
    }
    for enormous in ["60", "2147483648", "18446744073709551616", "99999999999999999999999"] {
        let origin = Origin::always(move || ok("x").max_age(60).header("age", enormous));
        let service = cached(Rules::new(), &origin);
        for _ in 0..2 {
            assert!(!get(&service, "/").await.is_hit(), "{enormous}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn age_grows_by_the_second() {
    let origin = Origin::always(|| ok("x").max_age(100).header("age", "7"));
    let service = cached(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.age(), Some(7), "what comes from the origin is untouched");
    for (step, age) in [(0, 7), (999, 7), (1, 8), (1_000, 9), (50_000, 59)] {
        tokio::time::advance(ms(step)).await;
        let reply = get(&service, "/").await;
        assert_eq!((reply.age(), reply.is_hit()), (Some(age), true));
        assert_eq!(reply.headers.get_all("age").iter().count(), 1);
    }
}

// What may be stored, and the rule for each exception.

#[tokio::test(start_paused = true)]
async fn nothing_personal_is_stored_but_by_the_rule_of_its_name() {
    type Row = (&'static [(&'static str, &'static str)], fn() -> Answer, Unshareable, fn(Rules) -> Rules);
    let rows: [Row; 5] = [
        (
            &[],
            || ok("x").header("cache-control", "max-age=60, no-store"),
            Unshareable::NoStore,
            |rules| rules.store_no_store(true),
        ),
        (
            &[],
            || ok("x").header("cache-control", "max-age=60, private"),
            Unshareable::Private,
            |rules| rules.store_private(true),
        ),
        (
            &[],
            || ok("x").max_age(60).header("set-cookie", "a=b"),
            Unshareable::SetCookie,
            |rules| rules.store_set_cookie(true),
        ),
        (
            &[("authorization", "me")],
            || ok("x").max_age(60),
            Unshareable::Authorization,
            |rules| rules.store_authorized(true),
        ),
        (&[("cookie", "a=b")], || ok("x"), Unshareable::Cookie, |rules| rules.cookies(["a"])),
    ];
    for (at, &(fields, answer, why, _)) in rows.iter().enumerate() {
        let origin = Origin::always(answer);
        assert_eq!(unshareable(&get_with(&cached(ttl(), &origin), "/", fields).await), Some(why));
        assert_eq!(calls_for_two(ttl(), fields, answer).await, 2, "{why}");
        for (other, (.., allow)) in rows.iter().enumerate() {
            let calls = calls_for_two(allow(ttl()), fields, answer).await;
            assert_eq!(calls, if at == other { 1 } else { 2 }, "{why} with the rule of row {other}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_with_a_cookie_by_its_rule_is_replayed_with_it() {
    let origin =
        Origin::always(|| ok("x").max_age(9).header("set-cookie", "a=1").header("set-cookie", "b=2"));
    let service = cached(Rules::new().store_set_cookie(true), &origin);
    get(&service, "/").await;
    let hit = get(&service, "/").await;
    assert_eq!(hit.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
}

#[tokio::test(start_paused = true)]
async fn a_word_of_the_origin_opens_answers_to_authorised_requests() {
    let me: &[(&str, &str)] = &[("authorization", "me")];
    for (said, calls) in
        [("max-age=9, public", 1), ("s-maxage=9", 1), ("max-age=9, must-revalidate", 1), ("max-age=9", 2)]
    {
        let origin = Origin::always(move || ok("x").header("cache-control", said));
        let service = cached(Rules::new(), &origin);
        get_with(&service, "/", me).await;
        get_with(&service, "/", me).await;
        assert_eq!(origin.calls(), calls, "{said}");
        // Who could not have his own answer stored does not get a stored one either.
        get(&service, "/").await;
        get(&service, "/").await;
        get_with(&service, "/", &[("authorization", "you")]).await;
        assert_eq!(origin.calls(), if calls == 1 { 1 } else { 4 }, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_our_rules_alone_keep_fresh_is_for_anonymous_clients() {
    for rules in [ttl(), Rules::new().fixed_ttl(secs(10))] {
        let origin = Origin::always(|| ok("x"));
        let service = cached(rules, &origin);
        get(&service, "/").await;
        for (calls, field) in ["authorization", "cookie"].into_iter().enumerate() {
            let reply = get_with(&service, "/", &[(field, "me")]).await;
            assert!(!reply.is_hit(), "{field}");
            assert_eq!(origin.calls(), calls + 2);
        }
        assert!(get(&service, "/").await.is_hit(), "nor do they take it from the others");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_are_stored_for_as_long_as_they_say_or_the_rules_do() {
    for code in [404, 410] {
        let origin = Origin::always(move || status(code).chunk("gone"));
        let service = cached(ttl().negative_ttl(secs(2)), &origin);
        get(&service, "/").await;
        let hit = get(&service, "/").await;
        assert_eq!((hit.is_hit(), hit.status.as_u16()), (true, code));
        tokio::time::advance(secs(2)).await;
        assert!(!get(&service, "/").await.is_hit(), "{code}");
    }
    for code in [402, 403, 404, 409, 500, 502, 503, 504, 599] {
        let origin = Origin::always(move || status(code));
        let service = cached(ttl(), &origin);
        get(&service, "/").await;
        assert!(!get(&service, "/").await.is_hit(), "{code}");
        let origin = Origin::always(move || status(code).max_age(5));
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        assert!(get(&service, "/").await.is_hit(), "{code} with a lifetime of its own");
    }
}

#[tokio::test(start_paused = true)]
async fn rules_in_a_request_replace_the_configured_ones() {
    let origin = Origin::always(|| ok("x"));
    let service = cached(ttl(), &origin);
    let with = |path: &str, rules| {
        let mut request = request("GET", path, &[]);
        request.extensions_mut().insert::<Rules>(rules);
        request
    };
    send(&service, with("/never", Rules::new().never_store())).await;
    let reply = send(&service, with("/never", Rules::new().never_store())).await;
    assert_eq!(unshareable(&reply), Some(Unshareable::Rules));
    assert_eq!(origin.calls(), 2);
    send(&service, with("/short", Rules::new().fixed_ttl(ms(5)))).await;
    tokio::time::advance(ms(4)).await;
    assert!(get(&service, "/short").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!get(&service, "/short").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_policy_has_the_last_word_for_each_answer() {
    let origin = Origin::new(|_, head| match head.uri.path() {
        "/personal" => ok("x").header("x-personal", "1"),
        "/missing" => status(404),
        _ => ok("x"),
    });
    let policy = |request: &http::request::Parts, response: &http::response::Parts, rules: Rules| match () {
        () if response.headers.contains_key("x-personal") => rules.never_store(),
        () if response.status == StatusCode::NOT_FOUND => rules.negative_ttl(secs(1)),
        () if request.uri.path() == "/search" => rules.fixed_ttl(ms(200)),
        () => rules,
    };
    let service = StoreLayer::new(store()).rules(ttl()).policy(policy).layer(origin);
    for (path, fresh_for) in
        [("/personal", ms(0)), ("/missing", ms(1_000)), ("/search", ms(200)), ("/other", ms(10_000))]
    {
        get(&service, path).await;
        assert_eq!(get(&service, path).await.is_hit(), !fresh_for.is_zero(), "{path}");
        tokio::time::advance(fresh_for).await;
        assert!(!get(&service, path).await.is_hit(), "{path}");
    }
    // A policy sees what the request said, and has the rules of its extensions to change.
    let mut own = request("GET", "/own", &[]);
    own.extensions_mut().insert(Rules::new());
    send(&service, own).await;
    assert!(!get(&service, "/own").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_policy_sees_the_request_before_it_was_made_conditional() {
    let origin = Origin::new(|call, _| match call {
        1 => ok("x").max_age(1).header("etag", "\"1\""),
        _ => status(304).max_age(1).header("x-new", "1"),
    });
    let policy = |request: &http::request::Parts, response: &http::response::Parts, rules: Rules| {
        assert!(!request.headers.contains_key("if-none-match"));
        assert_eq!(response.status, StatusCode::OK);
        assert_eq!(response.headers["etag"], "\"1\"", "of a 304 the stored fields are shown");
        rules
    };
    let service = StoreLayer::new(store()).policy(policy).layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(1)).await;
    assert_eq!(get(&service, "/").await.header("x-new"), Some("1"));
    assert_eq!(origin.last_request().headers["if-none-match"], "\"1\"");
}

// Vary.

#[tokio::test(start_paused = true)]
async fn each_variant_is_fetched_once_and_kept_apart() {
    let origin = Origin::new(|_, head| {
        let language = head.headers.get("accept-language").map_or("none", |value| value.to_str().unwrap());
        ok(language.to_owned()).max_age(60).header("vary", "Accept-Language")
    });
    let service = cached(Rules::new(), &origin);
    for round in 0..3 {
        for (calls, language) in ["de", "en", "fr", "it"].into_iter().enumerate() {
            let reply = get_with(&service, "/", &[("accept-language", language), ("x", "1")]).await;
            assert_eq!(reply.body, language);
            assert_eq!(origin.calls(), if round == 0 { calls + 1 } else { 5.min(4 + round) });
            if round == 0 && calls > 0 {
                assert_eq!(reply.cache(), "fwd=vary-miss; stored");
            }
        }
        let same = get_with(&service, "/", &[("accept-language", "DE")]).await;
        assert!(same.is_hit() && same.body == "de", "languages have no case");
        assert_eq!(get(&service, "/").await.body, "none", "absent is a value of its own");
        assert_eq!(origin.calls(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn one_line_or_two_and_white_space_are_the_same_value() {
    let origin = Origin::always(|| ok("x").max_age(60).header("vary", "accept"));
    let service = cached(Rules::new(), &origin);
    get_with(&service, "/", &[("accept", "a"), ("accept", "b")]).await;
    for same in [&[("accept", "a, b")][..], &[("accept", "a,b")], &[("accept", " a ,\tb ")]] {
        assert!(get_with(&service, "/", same).await.is_hit(), "{same:?}");
    }
    for other in [&[("accept", "b, a")][..], &[("accept", "a")], &[("accept", "ab")], &[]] {
        assert!(!get_with(&service, "/", other).await.is_hit(), "{other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_fields_on_several_lines_all_select() {
    let origin = Origin::always(|| ok("x").max_age(60).header("vary", "X-A, x-b").header("vary", "x-c"));
    let service = cached(Rules::new(), &origin);
    let all = [("x-a", "1"), ("x-b", "1"), ("x-c", "1")];
    get_with(&service, "/", &all).await;
    assert!(get_with(&service, "/", &all).await.is_hit());
    for changed in 0..3 {
        let mut other = all;
        other[changed].1 = "2";
        assert!(!get_with(&service, "/", &other).await.is_hit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_vary_that_fits_nobody_else_is_not_stored() {
    for vary in ["*", "accept, *", "a b", "\"accept\"", "accept;q=1", "\u{fc}", "a\tb", "()", "a/b"] {
        let origin = Origin::always(move || ok("x").max_age(60).header("vary", vary));
        let service = cached(Rules::new().fixed_ttl(secs(60)), &origin);
        assert_eq!(unshareable(&get(&service, "/").await), Some(Unshareable::Vary), "{vary}");
        assert!(!get(&service, "/").await.is_hit(), "{vary}");
    }
    // Also with names in thousands.
    let enormous = (0..4_000).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
    let origin = Origin::always(move || ok("x").max_age(60).header("vary", &enormous));
    let service = cached(Rules::new(), &origin);
    get_with(&service, "/", &[("x-3999", "1")]).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_with_another_vary_does_not_hide_a_newer_one() {
    // The first fetch is slow. Meanwhile the resource begins to vary, and a second one is quick.
    let origin = Origin::new(|call, _| match call {
        1 => ok("old").max_age(60).after(secs(5)),
        _ => ok("new").max_age(60).header("vary", "accept"),
    });
    let service = cached(Rules::new(), &origin);
    let slow = {
        let service = service.clone();
        tokio::spawn(async move { get(&service, "/").await.body })
    };
    settle().await;
    assert_eq!(get(&service, "/").await.body, "new");
    assert_eq!(slow.await.unwrap(), "old");
    assert_eq!(get(&service, "/").await.body, "new", "the latest that matches is served");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_fetch_never_overwrites_a_newer_one() {
    let origin = Origin::new(|call, _| match call {
        1 => ok("old").max_age(60).after(secs(5)),
        _ => ok("new").max_age(60),
    });
    let service = cached(Rules::new(), &origin);
    let slow = {
        let service = service.clone();
        tokio::spawn(async move { get(&service, "/").await.body })
    };
    settle().await;
    assert_eq!(get(&service, "/").await.body, "new");
    assert_eq!(slow.await.unwrap(), "old");
    let hit = get(&service, "/").await;
    assert_eq!((&hit.body[..], hit.age()), (&b"new"[..], Some(5)));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_that_may_not_be_stored_does_not_remove_a_newer_one() {
    for (code, said) in [(200, "no-store"), (200, "private"), (404, "")] {
        let origin = Origin::new(move |call, _| match call {
            1 => status(code).header("cache-control", said).after(secs(5)),
            _ => ok("new").max_age(60),
        });
        let service = cached(Rules::new(), &origin);
        let slow = tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
        settle().await;
        get(&service, "/").await;
        drop(slow.await.unwrap());
        assert!(get(&service, "/").await.is_hit(), "{code} {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_answer_that_may_not_be_stored_removes_the_stored_one() {
    let answers: [fn() -> Answer; 4] = [
        || ok("y").header("cache-control", "no-store"),
        || ok("y").header("cache-control", "private"),
        || ok("y").max_age(9).header("set-cookie", "a=b"),
        || status(404),
    ];
    for answer in answers {
        let origin = Origin::new(move |call, _| if call == 1 { ok("x").max_age(1) } else { answer() });
        let store = store();
        let service = cached_in(&store, Rules::new().hit_for_miss_for(Duration::ZERO), &origin);
        get(&service, "/").await;
        assert_eq!(store.stats().entries, 1);
        tokio::time::advance(secs(1)).await;
        get(&service, "/").await;
        assert_eq!(store.stats().entries, 0, "what it replaces must not come back when the origin fails");
    }
}

// Revalidation.

/// Confirms what has this tag, with the fields of `update`.
fn confirming(update: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Origin {
    Origin::new(move |call, head| match head.headers.get("if-none-match") {
        Some(tag) if tag == "\"1\"" => update(call),
        _ => ok("hello").max_age(10).header("etag", "\"1\"").header("x", "old").header("content-type", "a/b"),
    })
}

#[tokio::test(start_paused = true)]
async fn what_the_origin_confirms_is_fresh_again_with_the_new_fields() {
    let origin = confirming(|_| {
        let update = status(304).max_age(20).header("x", "new").header("y", "1");
        update.header("content-length", "0").header("content-type", "c/d")
    });
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    let reply = get(&service, "/").await;
    assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"hello"[..]));
    assert_eq!((reply.header("x"), reply.header("y"), reply.age()), (Some("new"), Some("1"), Some(0)));
    assert_eq!(reply.header("content-length"), Some("5"), "the length is that of the stored body");
    assert_eq!(reply.header("content-type"), Some("c/d"), "every other field is that of the 304");
    assert_eq!(reply.cache(), "fwd=stale; fwd-status=304; stored");
    for (at, is_hit) in [(19_999, true), (1, false)] {
        tokio::time::advance(ms(at)).await;
        let reply = get(&service, "/").await;
        assert_eq!(reply.is_hit(), is_hit);
        assert_eq!((reply.header("x"), &reply.body[..]), (Some("new"), &b"hello"[..]));
    }
    assert_eq!(origin.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_age_after_a_confirmation_is_that_of_the_confirmation() {
    let origin = confirming(|_| status(304).max_age(20).after(secs(2)).header("age", "3"));
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(15)).await;
    assert_eq!(get(&service, "/").await.age(), Some(5));
    tokio::time::advance(secs(4)).await;
    assert_eq!(get(&service, "/").await.age(), Some(9));
}

#[tokio::test(start_paused = true)]
async fn an_expiry_date_in_the_past_is_not_renewed_by_a_confirmation_that_says_nothing() {
    let (date, expires) = (SystemTime::now() - secs(100), SystemTime::now() - secs(40));
    let origin = Origin::new(move |_, head| match head.headers.contains_key("if-none-match") {
        true => status(304),
        false => ok("x")
            .header("etag", "\"1\"")
            .header("date", httpdate::fmt_http_date(date))
            .header("expires", httpdate::fmt_http_date(expires)),
    });
    let service = cached(Rules::new(), &origin);
    for call in 1..4 {
        assert!(!get(&service, "/").await.is_hit());
        assert_eq!(origin.calls(), call, "it expired forty seconds ago");
    }
}

#[tokio::test(start_paused = true)]
async fn last_modified_is_a_validator_too() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::new(move |_, head| match head.headers.get("if-modified-since") {
        Some(since) if since == date => status(304),
        _ => ok("hello").max_age(10).header("last-modified", date),
    });
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    assert_eq!(get(&service, "/").await.body, "hello");
    assert!(origin.last_request().headers.get("if-none-match").is_none());
    assert!(get(&service, "/").await.is_hit(), "it keeps the lifetime that it had");
    assert_eq!(origin.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_changed_answer_takes_the_place_of_the_stale_one() {
    let origin =
        Origin::new(|call, _| ok(format!("v{call}")).max_age(10).header("etag", format!("\"{call}\"")));
    let service = cached(Rules::new(), &origin);
    for version in 1..4 {
        assert_eq!(get(&service, "/").await.body, format!("v{version}"));
        assert!(get(&service, "/").await.is_hit());
        tokio::time::advance(secs(10)).await;
    }
    assert_eq!(origin.last_request().headers["if-none-match"], "\"2\"");
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_that_makes_the_answer_personal_takes_it_out_of_the_store() {
    let updates: [fn() -> Answer; 3] = [
        || status(304).header("cache-control", "private"),
        || status(304).header("cache-control", "no-store"),
        || status(304).header("set-cookie", "a=b"),
    ];
    for update in updates {
        let origin = confirming(move |_| update());
        let store = store();
        let service = cached_in(&store, Rules::new().hit_for_miss_for(Duration::ZERO), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(10)).await;
        let reply = get(&service, "/").await;
        assert_eq!((reply.status, &reply.body[..]), (StatusCode::OK, &b"hello"[..]), "its client gets it");
        assert_eq!(store.stats().entries, 0);
        get(&service, "/").await;
        assert!(!origin.last_request().headers.contains_key("if-none-match"), "there is nothing to confirm");
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_be_confirmed_each_time_is_confirmed_each_time() {
    let origin = Origin::new(|_, head| match head.headers.contains_key("if-none-match") {
        true => status(304),
        false => ok("hello").header("cache-control", "no-cache").header("etag", "\"1\""),
    });
    let service = cached(ttl(), &origin);
    for call in 1..5 {
        let reply = get(&service, "/").await;
        assert_eq!((&reply.body[..], origin.calls()), (&b"hello"[..], call));
        assert_eq!(origin.last_request().headers.contains_key("if-none-match"), call > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_kept_for_confirmation_only_so_long() {
    for (after, is_kept) in [(ms(15_000 - 1), true), (ms(15_000), false)] {
        let origin = confirming(|_| status(304));
        let service =
            cached(Rules::new().revalidate_for(secs(5)).stale_if_error_for(Duration::ZERO), &origin);
        get(&service, "/").await;
        tokio::time::advance(after).await;
        get(&service, "/").await;
        assert_eq!(origin.last_request().headers.contains_key("if-none-match"), is_kept);
    }
}

#[tokio::test(start_paused = true)]
async fn the_clients_other_fields_go_on_to_the_origin_with_the_condition() {
    let origin = confirming(|_| status(304).max_age(10));
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    get_with(&service, "/", &[("if-none-match", "\"mine\""), ("x", "1")]).await;
    let sent = origin.last_request();
    assert_eq!(sent.headers.get_all("if-none-match").iter().collect::<Vec<_>>(), ["\"1\""]);
    assert_eq!(sent.headers["x"], "1");
}

// Incomplete answers.

#[tokio::test(start_paused = true)]
async fn parts_and_unasked_confirmations_are_passed_on_and_never_stored() {
    for code in [206, 304] {
        let origin = Origin::always(move || {
            status(code).max_age(60).chunk(if code == 206 { "par" } else { "" }).header("etag", "\"1\"")
        });
        let store = store();
        let rules = Rules::new().fixed_ttl(secs(60)).hit_for_miss_for(Duration::ZERO);
        let service = cached_in(&store, rules, &origin);
        for call in 1..3 {
            let reply = get(&service, "/").await;
            assert_eq!((reply.status.as_u16(), origin.calls()), (code, call));
            assert_eq!(unshareable(&reply), Some(Unshareable::Incomplete));
        }
        assert_eq!(store.stats().entries, 0);
    }
    // It has no meaning in a 200 (RFC 9110 §14.4).
    let origin = Origin::always(|| ok("whole").max_age(60).header("content-range", "bytes 0-2/9"));
    assert_eq!(unshareable(&get(&cached(Rules::new(), &origin), "/").await), None);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_one_clients_condition_or_range_is_not_for_others() {
    for (code, field) in
        [(412, ("if-match", "\"2\"")), (416, ("range", "bytes=9-")), (206, ("range", "bytes=0-1"))]
    {
        let origin = Origin::new(move |_, head| match head.headers.contains_key(field.0) {
            true => status(code).max_age(60),
            false => ok("whole").max_age(60),
        });
        // Without Lookup, which lets such requests pass, Fill sees them under a key.
        let store = store();
        let fill = KeyLayer::default().layer(FillLayer::new(store.clone()).layer(origin.clone()));
        assert_eq!(get_with(&fill, "/", &[field]).await.status.as_u16(), code);
        assert_eq!(store.stats().entries, 0, "neither the answer nor a marker");
        assert_eq!(get(&fill, "/").await.body, "whole", "{code}");
        assert_eq!(get_with(&fill, "/", &[field]).await.status.as_u16(), code);
        assert_eq!(get(&fill, "/").await.cache(), "hit", "nor does it remove what is stored");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_declared_is_passed_on_and_never_stored() {
    type Row = (fn() -> Answer, &'static str, bool);
    let rows: [Row; 8] = [
        (|| ok("hello").cut(), "hello", false),
        (|| ok("").cut(), "", false),
        (|| ok("hel").header("content-length", "5"), "hel", false),
        (|| ok("hello you").header("content-length", "5"), "hello you", false),
        (|| ok("").header("content-length", "5"), "", false),
        (|| ok("hello").header("content-length", "5").header("content-length", "6"), "hello", false),
        (|| ok("hello").header("content-length", "five"), "hello", false),
        (|| ok("hel").chunk("lo").header("content-length", "5"), "hello", true),
    ];
    for (answer, body, is_stored) in rows {
        let origin = Origin::always(move || answer().max_age(60));
        let store = store();
        // Without markers every entry is a response.
        let service = cached_in(&store, Rules::new().hit_for_miss_for(Duration::ZERO), &origin);
        let reply = get(&service, "/").await;
        assert_eq!(reply.body, body, "the client gets what the origin sent");
        assert_eq!(store.stats().entries, u64::from(is_stored), "{:?}", answer());
        assert_eq!(get(&service, "/").await.is_hit(), is_stored);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_its_client_leaves_is_not_stored() {
    use http_body_util::BodyExt;
    let origin = Origin::always(|| ok("one").chunk("two").max_age(60));
    let store = store();
    let service = cached_in(&store, Rules::new(), &origin);
    let mut body = service.clone().oneshot(request("GET", "/", &[])).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(store.stats().entries, 0);
    assert_eq!(get(&service, "/").await.body, "onetwo");
    assert_eq!(store.stats().entries, 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_stored_as_soon_as_its_body_is_complete() {
    use http_body_util::BodyExt;
    let origin = Origin::always(|| ok("one").chunk("two").max_age(60));
    let service = cached(Rules::new(), &origin);
    let mut body = service.clone().oneshot(request("GET", "/", &[])).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    // The body is at its end, and is not asked whether there is more.
    assert!(get(&service, "/").await.is_hit());
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_stored_though_nobody_polls_its_body() {
    for code in [200, 204, 301] {
        let origin = Origin::always(move || status(code).max_age(60).header("location", "/x"));
        let service = cached(Rules::new(), &origin);
        drop(service.clone().oneshot(request("GET", "/", &[])).await.unwrap());
        let hit = get(&service, "/").await;
        assert_eq!((hit.status.as_u16(), hit.is_hit()), (code, true));
        assert_eq!(hit.header("content-length"), (code != 204).then_some("0"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_length_gets_a_true_one_and_a_date() {
    let origin = Origin::always(|| ok("hel").chunk("lo").max_age(60));
    let service = cached(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.header("content-length"), None);
    let hit = get(&service, "/").await;
    assert_eq!((hit.header("content-length"), &hit.body[..]), (Some("5"), &b"hello"[..]));
    assert!(httpdate::parse_http_date(hit.header("date").unwrap()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn trailers_are_stored_and_replayed() {
    let origin = Origin::always(|| ok("hello").max_age(60).trailer("x-sum", "42"));
    let service = cached(Rules::new(), &origin);
    for hit in [false, true, true] {
        let reply = get(&service, "/").await;
        assert_eq!((reply.is_hit(), &reply.body[..]), (hit, &b"hello"[..]));
        assert_eq!(reply.trailers.unwrap()["x-sum"], "42");
    }
    assert!(send(&service, request("HEAD", "/", &[])).await.trailers.is_none());
    let origin = Origin::always(|| ok("").max_age(60).trailer("x-sum", "0"));
    let service = cached(Rules::new(), &origin);
    get(&service, "/").await;
    let hit = get(&service, "/").await;
    assert!(hit.is_hit());
    assert_eq!(hit.trailers.unwrap()["x-sum"], "0", "also after an empty body");
}

#[tokio::test(start_paused = true)]
async fn fields_of_one_connection_are_not_replayed() {
    let origin = Origin::always(|| {
        ok("x")
            .max_age(60)
            .header("connection", "close, X-Hop")
            .header("connection", "x-other")
            .header("x-hop", "1")
            .header("x-other", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "h2c")
            .header("x-kept", "1")
    });
    let service = cached(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.header("x-hop"), Some("1"), "the first answer is untouched");
    let hit = get(&service, "/").await;
    let mut names: Vec<_> = hit.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["age", "cache-control", "cache-status", "content-length", "date", "x-kept"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_reaches_its_client_as_the_origin_sent_it() {
    let origin =
        Origin::always(|| ok("one").chunk("two").declares(6).max_age(60).header("x", "1").header("x", "2"));
    let service = cached(Rules::new(), &origin);
    let response = service.clone().oneshot(request("GET", "/", &[])).await.unwrap();
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(6));
    let reply = collect(response).await;
    // And in `Cache-Status` how it came about.
    assert_eq!((&reply.body[..], reply.headers.len()), (&b"onetwo"[..], 4));
    assert_eq!(reply.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
}

// What cannot be shared, and failures.

#[tokio::test(start_paused = true)]
async fn what_cannot_be_shared_leaves_a_marker_that_expires() {
    let origin = Origin::always(|| ok("x").header("cache-control", "no-store"));
    let store = store();
    let service = cached_in(&store, Rules::new().hit_for_miss_for(secs(3)), &origin);
    assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; detail=no-store");
    assert_eq!(store.stats().entries, 1);
    assert_eq!(get(&service, "/").await.cache(), "fwd=bypass; detail=no-store");
    tokio::time::advance(ms(2_999)).await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=bypass; detail=no-store");
    tokio::time::advance(ms(3_000)).await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; detail=no-store");
    let service = cached(Rules::new().hit_for_miss_for(Duration::ZERO), &origin);
    for _ in 0..2 {
        assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; detail=no-store");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storable_answer_removes_the_marker() {
    let origin = Origin::new(|call, _| match call {
        2 => ok("x").max_age(1),
        _ => ok("x").header("cache-control", "no-store"),
    });
    let service = cached(Rules::new().stale_if_error_for(Duration::ZERO), &origin);
    get(&service, "/").await;
    assert_eq!(get(&service, "/").await.cache(), "fwd=bypass; stored");
    assert_eq!(get(&service, "/").await.cache(), "hit");
    // Were the marker still there, it would show once the answer is gone.
    tokio::time::advance(secs(2)).await;
    assert!(!get(&service, "/").await.cache().contains("bypass"));
}

#[tokio::test(start_paused = true)]
async fn answers_to_authorised_requests_say_nothing_about_anonymous_ones() {
    for field in ["authorization", "cookie"] {
        let origin = Origin::always(|| ok("x").header("cache-control", "private"));
        let service = cached(Rules::new(), &origin);
        get_with(&service, "/", &[(field, "me")]).await;
        assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; detail=private", "{field}");
        assert_eq!(get_with(&service, "/", &[(field, "you")]).await.cache(), "fwd=bypass; detail=private");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_client_may_not_share_does_not_take_the_stored_answer_away() {
    for (field, answer) in
        [("authorization", (|| ok("mine").max_age(10)) as fn() -> Answer), ("cookie", || ok("mine"))]
    {
        let origin = Origin::new(move |_, head| match head.headers.contains_key(field) {
            true => answer(),
            false => ok("for all").max_age(10).header("etag", "\"1\""),
        });
        let service = cached(ttl(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(10)).await;
        let mine = get_with(&service, "/", &[(field, "me")]).await;
        assert!(unshareable(&mine).is_some());
        get(&service, "/").await;
        assert!(origin.last_request().headers.contains_key("if-none-match"), "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_leave_no_marker() {
    for answer in [(|| status(500)) as fn() -> Answer, || status(502), || status(503), || status(504), error]
    {
        let origin = Origin::always(answer);
        let store = store();
        let service = cached_in(&store, ttl(), &origin);
        _ = try_send(&service, request("GET", "/", &[])).await;
        assert_eq!(store.stats().entries, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn confirmations_between_a_client_and_the_origin_do_not_keep_the_marker_alive() {
    // What was unshareable has become storable. All clients come with conditions.
    let origin = Origin::new(|call, head| match head.headers.get("if-none-match") {
        Some(tag) if tag == "\"1\"" => status(304).header("etag", "\"1\"").max_age(60),
        _ if call == 1 => ok("x").header("etag", "\"1\"").header("cache-control", "no-store"),
        _ => ok("x").header("etag", "\"1\"").max_age(60),
    });
    let service = cached(Rules::new().hit_for_miss_for(secs(3)), &origin);
    get(&service, "/").await;
    for _ in 0..3 {
        let reply = get_with(&service, "/", &[("if-none-match", "\"1\"")]).await;
        assert_eq!(reply.status, StatusCode::NOT_MODIFIED);
        tokio::time::advance(secs(1)).await;
    }
    // The marker's time is over: this one is asked for everybody again.
    assert_eq!(get(&service, "/").await.cache(), "fwd=uri-miss; stored");
}

#[tokio::test(start_paused = true)]
async fn where_answers_are_not_shareable_the_clients_condition_goes_to_the_origin() {
    let origin = Origin::new(|_, head| match head.headers.contains_key("if-none-match") {
        true => status(304).header("etag", "\"1\""),
        false => ok("x").header("etag", "\"1\"").header("cache-control", "private"),
    });
    let service = cached(Rules::new(), &origin);
    let mine = [("if-none-match", "\"1\"")];
    // Nothing is known yet: the origin answers for everybody, and the condition is applied here.
    assert_eq!(get_with(&service, "/", &mine).await.status, StatusCode::NOT_MODIFIED);
    assert!(!origin.last_request().headers.contains_key("if-none-match"));
    assert_eq!(get_with(&service, "/", &mine).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(origin.last_request().headers["if-none-match"], "\"1\"");
}

#[tokio::test(start_paused = true)]
async fn a_failure_never_takes_the_place_of_a_stale_answer() {
    let failures: [fn() -> Answer; 4] = [
        error,
        || status(503),
        || status(503).max_age(60),
        || status(500).header("cache-control", "private"),
    ];
    for failure in failures {
        let origin = Origin::new(move |call, _| match call {
            1 => ok("good").max_age(10).header("etag", "\"1\""),
            2 | 3 => failure(),
            _ => status(304).max_age(10),
        });
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(10)).await;
        for _ in 0..2 {
            let failed = try_send(&service, request("GET", "/", &[])).await;
            assert!(failed.is_err() || failed.unwrap().status.is_server_error());
        }
        let reply = get(&service, "/").await;
        assert_eq!(
            (reply.status, &reply.body[..]),
            (StatusCode::OK, &b"good"[..]),
            "it was there to confirm"
        );
        assert_eq!(origin.calls(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn the_error_of_the_service_reaches_the_caller_as_it_is() {
    let origin = Origin::always(error);
    assert_eq!(try_send(&cached(ttl(), &origin), request("GET", "/", &[])).await.unwrap_err(), Failure);
}

// Size.

#[tokio::test(start_paused = true)]
async fn what_is_too_large_streams_through_and_is_counted() {
    let chunk = "x".repeat(1_000);
    let large = {
        let chunk = chunk.clone();
        move || (0..80).fold(ok("").max_age(60), |answer, _| answer.chunk(chunk.clone()))
    };
    let declared = {
        let large = large.clone();
        move || large().header("content-length", "80000")
    };
    let hinted = {
        let large = large.clone();
        move || large().declares(80_000)
    };
    let answers: [Box<dyn Fn() -> Answer + Send + Sync>; 3] =
        [Box::new(large), Box::new(declared), Box::new(hinted)];
    for (unknown_length, answer) in [true, false, false].into_iter().zip(answers) {
        let store = MemoryStore::with_capacity_bytes(1 << 20); // 64 KiB for one
        let origin = Origin::new(move |call, _| if call < 3 { answer() } else { ok("small").max_age(60) });
        let service = cached_in(&store, Rules::new(), &origin);
        let reply = get(&service, "/").await;
        assert_eq!((reply.body.len(), reply.is_cut), (80_000, false));
        assert_eq!(store.stats().refused, 1);
        let status = get(&service, "/").await.cache();
        let expected = if unknown_length { "fwd=bypass; stored" } else { "fwd=bypass; detail=too-large" };
        assert_eq!(status, expected);
        assert_eq!(store.stats().refused, 2);
        // As soon as it fits it is stored again.
        get(&service, "/").await;
        assert_eq!(get(&service, "/").await.cache(), "hit");
    }
}

#[tokio::test(start_paused = true)]
async fn buffers_of_the_origin_are_not_held_while_it_streams() {
    use http_body_util::BodyExt;
    struct Alive(Arc<AtomicUsize>);
    impl AsRef<[u8]> for Alive {
        fn as_ref(&self) -> &[u8] {
            &[b'x'; 1_000]
        }
    }
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    const CHUNKS: usize = 200;
    let alive = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&alive);
    let origin = Origin::always(move || {
        counter.fetch_add(CHUNKS, Ordering::SeqCst);
        let chunk = || bytes::Bytes::from_owner(Alive(Arc::clone(&counter)));
        (0..CHUNKS).fold(ok("").max_age(60), |answer, _| answer.chunk(chunk()))
    });
    let store = MemoryStore::with_capacity_bytes(1 << 20); // 64 KiB for one
    let service = cached_in(&store, Rules::new(), &origin);
    let mut body = service.clone().oneshot(request("GET", "/", &[])).await.unwrap().into_body();
    let mut held = Vec::new();
    for read in 1..=CHUNKS {
        drop(body.frame().await.unwrap().unwrap());
        held.push(alive.load(Ordering::SeqCst) + read - CHUNKS);
    }
    assert_eq!(held, [0; CHUNKS], "what is kept is copied, so that no read buffer lives on");
}

// A layer of its own.

#[tokio::test(start_paused = true)]
async fn fill_alone_looks_into_the_store_before_it_asks() {
    let origin = Origin::always(|| ok("x"));
    let store = store();
    let fill = KeyLayer::default().layer(FillLayer::new(store.clone()).rules(ttl()).layer(origin.clone()));
    get(&fill, "/").await;
    let reply = get(&fill, "/").await;
    assert_eq!((reply.cache().as_str(), origin.calls()), ("hit", 1));
    // The same store read by another layer over another service.
    let other = LookupLayer::new(store).layer(Origin::always(error));
    assert_eq!(get(&other, "/").await.body, "x");
    assert_eq!(send(&fill, request("HEAD", "/", &[])).await.header("content-length"), Some("1"));
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_while_a_request_waited_is_served_to_it() {
    let origin = Origin::always(|| ok("").max_age(60).after(ms(10)));
    let store = store();
    let service = ServiceBuilder::new()
        .layer(LookupLayer::new(store.clone()))
        .concurrency_limit(1)
        .layer(FillLayer::new(store))
        .service(origin.clone());
    let ask = || tokio::spawn(service.clone().oneshot(request("GET", "/", &[])));
    let first = ask();
    settle().await;
    let second = ask();
    for answer in [first, second] {
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn fill_without_a_key_is_transparent() {
    let origin = Origin::always(|| ok("x").max_age(60));
    let store = store();
    let fill = FillLayer::new(store.clone()).layer(origin.clone());
    for call in 1..3 {
        let reply = get(&fill, "/").await;
        assert_eq!((reply.cache().as_str(), origin.calls()), ("not asked", call));
    }
    assert_eq!((store.stats().entries, store.sequence().current()), (0, 0));
}

// Bad input of any kind.

fn value() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "max-age=60",
        "max-age=",
        "max-age=-1",
        "s-maxage=9",
        "public",
        "private",
        "no-cache",
        "no-cache=\"a",
        "stale-if-error=99999999999999999999",
        "stale-while-revalidate=5",
        "\"",
        "\\",
        ",",
        "=",
        " ",
        "\t",
        "*",
        "accept",
        "Accept-Language",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "0",
        "-1",
        "18446744073709551616",
        "W/\"a\"",
        "bytes 0-1/2",
    ]);
    let piece = prop_oneof![
        3 => known.prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.join(&b", "[..]))
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test)
}

const RESPONSE_FIELDS: [&str; 10] = [
    "cache-control",
    "vary",
    "age",
    "expires",
    "date",
    "etag",
    "last-modified",
    "content-length",
    "connection",
    "retry-after",
];
const REQUEST_FIELDS: [&str; 8] = [
    "accept",
    "accept-language",
    "cookie",
    "if-none-match",
    "if-modified-since",
    "cache-control",
    "range",
    "connection",
];

type Fields = Vec<(&'static str, Vec<u8>)>;

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Fields> {
    prop::collection::vec((prop::sample::select(names), value()), 0..5)
}

/// Three requests, with time between them, for an answer with such fields; the body names its call.
async fn three(rules: Rules, response: Fields, request_fields: [Fields; 3]) -> (Origin, Vec<Reply>) {
    let origin = Origin::new(move |call, head| {
        let accept = head.headers.get_all("accept").iter().map(HeaderValue::as_bytes);
        let mut body = accept.collect::<Vec<_>>().join(&b"\n"[..]);
        body.extend_from_slice(format!("#{call}").as_bytes());
        let answer = ok(body);
        response.iter().fold(answer, |answer, (name, value)| match HeaderValue::from_bytes(value) {
            Ok(_) => answer.header(name, value),
            Err(_) => answer,
        })
    });
    let service = cached(rules, &origin);
    let mut replies = Vec::new();
    for fields in request_fields {
        let mut request = request("GET", "/", &[]);
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request.headers_mut().append(name, value);
            }
        }
        replies.push(send(&service, request).await);
        tokio::time::advance(secs(1)).await;
    }
    (origin, replies)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_the_fields_say_nothing_panics_and_each_body_is_one_of_the_origin(
        response in fields(&RESPONSE_FIELDS),
        requests in [fields(&REQUEST_FIELDS), fields(&REQUEST_FIELDS), fields(&REQUEST_FIELDS)],
        fixed in any::<bool>(),
    ) {
        let rules = if fixed { Rules::new().fixed_ttl(secs(60)) } else { ttl() };
        let (origin, replies) = paused(three(rules, response, requests));
        prop_assert!((1..=3).contains(&origin.calls()));
        for reply in replies {
            prop_assert!(reply.status == 304 || reply.body.contains(&b'#'));
        }
    }

    #[test]
    fn junk_beside_a_directive_that_forbids_storing_does_not_hide_it(
        mut response in fields(&RESPONSE_FIELDS),
        forbids in prop::sample::select(vec![
            ("cache-control", "no-store"), ("cache-control", "private"), ("set-cookie", "a=b"), ("vary", "*"),
        ]),
        at in any::<prop::sample::Index>(),
    ) {
        let (name, value) = forbids;
        response.insert(at.index(response.len() + 1), (name, value.as_bytes().to_vec()));
        let (origin, _) = paused(three(Rules::new().fixed_ttl(secs(60)), response, Default::default()));
        prop_assert_eq!(origin.calls(), 3);
    }

    #[test]
    fn a_selecting_field_selects_whatever_junk_stands_beside_it(
        mut response in fields(&["cache-control", "vary", "age", "date"]),
        accept in [value(), value(), value()],
        at in any::<prop::sample::Index>(),
    ) {
        response.insert(at.index(response.len() + 1), ("vary", b"x, Accept".to_vec()));
        let requests = accept.clone().map(|accept| vec![("accept", accept)]);
        let (_, replies) = paused(three(Rules::new().fixed_ttl(secs(60)), response, requests));
        // Up to white space round commas the body is made of the reader's own field.
        let plain = |bytes: &[u8]| -> Vec<u8> {
            bytes.iter().copied().filter(|b| !b.is_ascii_whitespace() && *b != b',').collect()
        };
        for (reply, accept) in replies.iter().zip(accept) {
            if HeaderValue::from_bytes(&accept).is_ok() {
                let end = reply.body.iter().rposition(|b| *b == b'#').unwrap();
                prop_assert_eq!(plain(&reply.body[..end]), plain(&accept));
            }
        }
    }

    #[test]
    fn any_host_is_taken_without_panic_and_never_mixed_up(a in value(), b in value()) {
        let (Ok(first), Ok(second)) = (HeaderValue::from_bytes(&a), HeaderValue::from_bytes(&b)) else {
            return Ok(());
        };
        let ask = async |service: &Cached, host: &HeaderValue| {
            let request = http::Request::get("/").header("host", host);
            send(service, request.body(crate::support::Body::default()).unwrap()).await
        };
        paused(async {
            let origin = Origin::new(|_, head| ok(head.headers["host"].as_bytes().to_vec()).max_age(60));
            let service = cached(Rules::new(), &origin);
            for host in [&first, &second, &first] {
                let reply = ask(&service, host).await;
                assert!(reply.body.eq_ignore_ascii_case(host.as_bytes()));
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn enormous_fields_change_nothing() {
    let begun = Instant::now();
    let huge = "a,".repeat(16_000);
    let fields = ["cache-control", "age", "expires", "date", "etag", "last-modified", "connection"];
    for name in fields {
        let value = huge.clone();
        let origin = Origin::always(move || ok("x").header(name, &value));
        let service = cached(Rules::new().fixed_ttl(secs(60)), &origin);
        get(&service, "/").await;
        assert_eq!(get(&service, "/").await.body, "x", "{name}");
    }
    let origin = Origin::always(|| ok("x").max_age(60));
    let service = cached(Rules::new(), &origin);
    let tags = format!("{}\"1\"", "\"x\",".repeat(8_000));
    for name in ["if-none-match", "if-modified-since", "cookie", "cache-control"] {
        assert_eq!(get_with(&service, "/", &[(name, &tags)]).await.body, "x", "{name}");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// RFC 9111 §4.3.4: it must not freshen what it is not about.
#[tokio::test(start_paused = true)]
async fn only_a_success_is_revalidated_since_a_304_stands_for_a_200() {
    for code in [200, 301, 404, 410, 503] {
        let origin = Origin::new(move |n, head| match head.headers.contains_key("if-none-match") {
            true => status(304).max_age(10).header("etag", "\"1\""),
            false if n == 1 => status(code).max_age(10).header("etag", "\"1\""),
            false => ok("well").max_age(10),
        });
        let service = cached(Rules::new(), &origin);
        assert_eq!(get(&service, "/").await.status, code);
        tokio::time::advance(secs(10)).await;
        assert_eq!(get(&service, "/").await.status, StatusCode::OK, "{code}");
        assert_eq!(origin.last_request().headers.contains_key("if-none-match"), code == 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_freshens_the_stored_get_or_removes_it() {
    for (etag, length, survives) in [
        (Some("\"1\""), None, true),
        (Some("\"1\""), Some("5"), true),
        (Some("\"2\""), None, false),
        (Some("\"1\""), Some("6"), false),
    ] {
        let origin = Origin::new(move |n, head| {
            let answer =
                ok(if head.method == "GET" { "hello" } else { "" }).max_age(10).header("x", n.to_string());
            match (n, etag) {
                (2, Some(etag)) => answer.header("etag", etag),
                (2, None) => answer,
                _ => answer.header("etag", "\"1\""),
            }
        });
        let origin = match length {
            None => origin,
            Some(length) => Origin::new(move |n, head| {
                let body = if head.method == "GET" { "hello" } else { "" };
                let answer = ok(body).max_age(10).header("x", n.to_string()).header("etag", "\"1\"");
                if n == 2 { answer.header("content-length", length) } else { answer }
            }),
        };
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        tokio::time::advance(secs(11)).await;
        send(&service, request("HEAD", "/", &[])).await;
        let reply = get(&service, "/").await;
        assert_eq!(reply.body, "hello");
        assert_eq!((reply.is_hit(), reply.header("x")), (survives, Some(if survives { "2" } else { "3" })));
        let asked = origin.last_request().headers;
        assert!(!asked.contains_key("if-none-match"), "what is outdated is not asked about again");
    }
}

/// Content that changes with every answer must not live on because somebody asks for its head.
#[tokio::test(start_paused = true)]
async fn an_answer_to_head_that_shows_nothing_freshens_nothing() {
    let origin = Origin::new(|n, head| {
        ok(if head.method == "GET" { n.to_string() } else { String::new() }).max_age(10)
    });
    let service = cached(Rules::new(), &origin);
    assert_eq!(get(&service, "/").await.body, "1");
    tokio::time::advance(secs(11)).await;
    send(&service, request("HEAD", "/", &[])).await;
    assert_eq!(get(&service, "/").await.body, "3");
}
