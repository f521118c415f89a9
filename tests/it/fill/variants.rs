//! Variants: responses selected by `Vary` (RFC 9111 §4.1).

use super::*;

#[tokio::test(start_paused = true)]
async fn each_variant_is_fetched_once_and_kept_apart() {
    let origin = ScriptedOrigin::new(|_, head| {
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
                assert_eq!(reply.cache(), "fwd=vary-miss");
            }
        }
        let same = get_with(&service, "/", &[("accept-language", "DE")]).await;
        assert!(same.is_hit() && same.body == "de", "languages have no case");
        assert_eq!(get(&service, "/").await.body, "none", "absent is a value of its own");
        assert_eq!(origin.calls(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn lines_and_white_space_do_not_change_a_selecting_value() {
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60).header("vary", "accept"));
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
    let origin =
        ScriptedOrigin::always(|| ok("x").max_age(60).header("vary", "X-A, x-b").header("vary", "x-c"));
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
async fn a_vary_that_matches_no_other_request_is_not_stored() {
    for vary in ["*", "accept, *", "a b", "\"accept\"", "accept;q=1", "\u{fc}", "a\tb", "()", "a/b"] {
        let origin = ScriptedOrigin::always(move || ok("x").max_age(60).header("vary", vary));
        let service = cached(Rules::new().fixed_ttl(secs(60)), &origin);
        assert_eq!(unshareable(&get(&service, "/").await), Some(NotStored::VaryStar), "{vary}");
        assert!(!get(&service, "/").await.is_hit(), "{vary}");
    }
    // Also with names in thousands.
    let enormous = (0..4_000).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
    let origin = ScriptedOrigin::always(move || ok("x").max_age(60).header("vary", &enormous));
    let service = cached(Rules::new(), &origin);
    get_with(&service, "/", &[("x-3999", "1")]).await;
    assert!(!get(&service, "/").await.is_hit());
}

#[tokio::test(start_paused = true)]
async fn a_late_response_with_another_vary_does_not_hide_a_newer_one() {
    // The first fetch is slow. Meanwhile the resource begins to vary, and a second one is quick.
    let origin = ScriptedOrigin::new(|call, _| match call {
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
    let origin = ScriptedOrigin::new(|call, _| match call {
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
async fn a_late_response_that_may_not_be_stored_does_not_remove_a_newer_one() {
    for (code, said) in [(200, "no-store"), (200, "private"), (404, "")] {
        let origin = ScriptedOrigin::new(move |call, _| match call {
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
async fn a_newer_response_that_may_not_be_stored_removes_the_stored_one() {
    let answers: [fn() -> ScriptedResponse; 4] = [
        || ok("y").header("cache-control", "no-store"),
        || ok("y").header("cache-control", "private"),
        || ok("y").max_age(9).header("set-cookie", "a=b"),
        || status(404),
    ];
    for answer in answers {
        let origin =
            ScriptedOrigin::new(move |call, _| if call == 1 { ok("x").max_age(1) } else { answer() });
        let store = small_store();
        let service = cached_in(&store, Rules::new().hit_for_miss_for(Duration::ZERO), &origin);
        get(&service, "/").await;
        assert_eq!(store.stats().entries, 1);
        tokio::time::advance(secs(1)).await;
        get(&service, "/").await;
        assert_eq!(store.stats().entries, 0, "what it replaces must not come back when the origin fails");
    }
}
