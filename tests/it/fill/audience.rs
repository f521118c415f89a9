//! What may be stored, and for which clients (RFC 9111 §3, §3.5).

use super::*;

#[tokio::test(start_paused = true)]
async fn a_private_response_is_stored_only_by_the_rule_that_allows_it() {
    type Row =
        (&'static [(&'static str, &'static str)], fn() -> ScriptedResponse, NotStored, fn(Rules) -> Rules);
    let rows: [Row; 5] = [
        (
            &[],
            || ok("x").header("cache-control", "max-age=60, no-store"),
            NotStored::NoStore,
            |rules| rules.store_no_store(true),
        ),
        (
            &[],
            || ok("x").header("cache-control", "max-age=60, private"),
            NotStored::Private,
            |rules| rules.store_private(true),
        ),
        (
            &[],
            || ok("x").max_age(60).header("set-cookie", "a=b"),
            NotStored::SetCookie,
            |rules| rules.store_set_cookie(true),
        ),
        (
            &[("authorization", "me")],
            || ok("x").max_age(60),
            NotStored::Authorization,
            |rules| rules.store_authorized(true),
        ),
        (&[("cookie", "a=b")], || ok("x"), NotStored::Cookie, |rules| rules.cookies(["a"])),
    ];
    for (at, &(fields, answer, why, _)) in rows.iter().enumerate() {
        let origin = ScriptedOrigin::always(answer);
        assert_eq!(unshareable(&get_with(&cached(ttl(), &origin), "/", fields).await), Some(why));
        assert_eq!(calls_for_two(ttl(), fields, answer).await, 2, "{why}");
        for (other, (.., allow)) in rows.iter().enumerate() {
            let calls = calls_for_two(allow(ttl()), fields, answer).await;
            assert_eq!(calls, if at == other { 1 } else { 2 }, "{why} with the rule of row {other}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_stored_with_set_cookie_is_served_with_it() {
    let origin =
        ScriptedOrigin::always(|| ok("x").max_age(9).header("set-cookie", "a=1").header("set-cookie", "b=2"));
    let service = cached(Rules::new().store_set_cookie(true), &origin);
    get(&service, "/").await;
    let hit = get(&service, "/").await;
    assert_eq!(hit.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
}

#[tokio::test(start_paused = true)]
async fn a_directive_of_the_origin_allows_storing_responses_to_authorized_requests() {
    let me: &[(&str, &str)] = &[("authorization", "me")];
    for (said, calls) in
        [("max-age=9, public", 1), ("s-maxage=9", 1), ("max-age=9, must-revalidate", 1), ("max-age=9", 2)]
    {
        let origin = ScriptedOrigin::always(move || ok("x").header("cache-control", said));
        let service = cached(Rules::new(), &origin);
        get_with(&service, "/", me).await;
        get_with(&service, "/", me).await;
        assert_eq!(origin.calls(), calls, "{said}");
        // A request whose own response may not be stored does not get a stored one either.
        get(&service, "/").await;
        get(&service, "/").await;
        get_with(&service, "/", &[("authorization", "you")]).await;
        assert_eq!(origin.calls(), if calls == 1 { 1 } else { 4 }, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_fresh_by_rules_alone_is_only_for_requests_without_credentials() {
    for rules in [ttl(), Rules::new().fixed_ttl(secs(10))] {
        let origin = ScriptedOrigin::always(|| ok("x"));
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
async fn errors_are_stored_for_their_own_lifetime_or_the_negative_ttl() {
    for code in [404, 410] {
        let origin = ScriptedOrigin::always(move || status(code).chunk("gone"));
        let service = cached(ttl().negative_ttl(secs(2)), &origin);
        get(&service, "/").await;
        let hit = get(&service, "/").await;
        assert_eq!((hit.is_hit(), hit.status.as_u16()), (true, code));
        tokio::time::advance(secs(2)).await;
        assert!(!get(&service, "/").await.is_hit(), "{code}");
    }
    for code in [402, 403, 404, 409, 500, 502, 503, 504, 599] {
        let origin = ScriptedOrigin::always(move || status(code));
        let service = cached(ttl(), &origin);
        get(&service, "/").await;
        assert!(!get(&service, "/").await.is_hit(), "{code}");
        let origin = ScriptedOrigin::always(move || status(code).max_age(5));
        let service = cached(Rules::new(), &origin);
        get(&service, "/").await;
        assert!(get(&service, "/").await.is_hit(), "{code} with a lifetime of its own");
    }
}

#[tokio::test(start_paused = true)]
async fn rules_in_a_request_replace_the_configured_ones() {
    let origin = ScriptedOrigin::always(|| ok("x"));
    let service = cached(ttl(), &origin);
    let with = |path: &str, rules| {
        let mut request = request("GET", path, &[]);
        request.extensions_mut().insert::<Rules>(rules);
        request
    };
    send(&service, with("/never", Rules::new().never_store())).await;
    let reply = send(&service, with("/never", Rules::new().never_store())).await;
    assert_eq!(unshareable(&reply), Some(NotStored::Policy));
    assert_eq!(origin.calls(), 2);
    send(&service, with("/short", Rules::new().fixed_ttl(ms(5)))).await;
    tokio::time::advance(ms(4)).await;
    assert!(get(&service, "/short").await.is_hit());
    tokio::time::advance(ms(1)).await;
    assert!(!get(&service, "/short").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_storage_policy_decides_last() {
    let origin = ScriptedOrigin::new(|_, head| match head.uri.path() {
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
    let service = StoreLayer::new(small_store()).rules(ttl()).policy(policy).layer(origin);
    for (path, fresh_for) in
        [("/personal", ms(0)), ("/missing", ms(1_000)), ("/search", ms(200)), ("/other", ms(10_000))]
    {
        get(&service, path).await;
        assert_eq!(get(&service, path).await.is_hit(), !fresh_for.is_zero(), "{path}");
        tokio::time::advance(fresh_for).await;
        assert!(!get(&service, path).await.is_hit(), "{path}");
    }
    // A policy sees the fields of the request, and the rules of its extensions.
    let mut own = request("GET", "/own", &[]);
    own.extensions_mut().insert(Rules::new());
    send(&service, own).await;
    assert!(!get(&service, "/own").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_policy_sees_the_request_before_it_was_made_conditional() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 => ok("x").max_age(1).header("etag", "\"1\""),
        _ => status(304).max_age(1).header("x-new", "1"),
    });
    let policy = |request: &http::request::Parts, response: &http::response::Parts, rules: Rules| {
        assert!(!request.headers.contains_key("if-none-match"));
        assert_eq!(response.status, StatusCode::OK);
        assert_eq!(response.headers["etag"], "\"1\"", "of a 304 the stored fields are shown");
        rules
    };
    let service = StoreLayer::new(small_store()).policy(policy).layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(1)).await;
    assert_eq!(get(&service, "/").await.header("x-new"), Some("1"));
    assert_eq!(origin.last_request().headers["if-none-match"], "\"1\"");
}
