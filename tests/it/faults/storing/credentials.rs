//! Credentials of requests, whatever the field that carries them is called.

use super::Both;
use tower::{Layer, ServiceBuilder};
use tower_readthrough::{
    CoalesceLayer, FillLayer, KeyLayer, KeyRule, KeyRules, MemoryStore, NotStored, ReadThroughLayer, Rules,
};

use crate::support::{ScriptedOrigin, ScriptedResponse, fixed, get_with, ok, request, secs, status};

const ALICE: &[(&str, &str)] = &[("x-api-key", "alice")];

fn named() -> Rules {
    Rules::new().credentials(["x-tenant-key"])
}

/// Whether a response to a request with these fields is served to one without, and the other way
/// round.
async fn is_shared(rules: Rules, fields: &[(&str, &str)], answer: fn() -> ScriptedResponse) -> (bool, bool) {
    let both = Both::new(rules, ScriptedOrigin::always(answer));
    both.get("/theirs", fields).await;
    let theirs = both.get("/theirs", &[]).await.map(|reply| reply.is_hit());
    both.get("/ours", &[]).await;
    let ours = both.get("/ours", fields).await.map(|reply| reply.is_hit());
    assert_eq!((theirs[0], ours[0]), (theirs[1], ours[1]), "the layers say what the stack says");
    (theirs[0], ours[0])
}

#[tokio::test(start_paused = true)]
async fn a_well_known_credential_keeps_a_response_private_under_rule_lifetimes() {
    for name in Rules::WELL_KNOWN_CREDENTIALS {
        let fields = [(*name, "alice")];
        assert_eq!(is_shared(fixed(60_000), &fields, || ok("x")).await, (false, false), "{name}");
        let heuristic = Rules::new().heuristic(0.5, secs(60));
        let dated = || ok("x").header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(is_shared(heuristic, &fields, dated).await, (false, false), "{name}");
        let own = is_shared(Rules::new(), &fields, || ok("x").max_age(60)).await;
        assert_eq!(own, (true, true), "{name}: the origin's own lifetime is for all");
    }
}

/// A proxy in front of the application authenticates clients, and passes on their identity in a field.
#[tokio::test(start_paused = true)]
async fn identity_fields_of_a_proxy_keep_a_response_private_under_rule_lifetimes() {
    for name in [
        "x-auth-request-user",
        "x-auth-request-email",
        "x-auth-request-access-token",
        "cf-access-authenticated-user-email",
        "x-pomerium-jwt-assertion",
        "x-authentik-username",
        "x-ms-token-aad-access-token",
        "tailscale-user-login",
    ] {
        assert_eq!(is_shared(fixed(60_000), &[(name, "alice")], || ok("x")).await, (false, false), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_credential_counts_as_authorization() {
    let fields = &[("x-tenant-key", "alice")];
    for field in [fields, &[("authorization", "alice")]] {
        let private = || ok("x").max_age(60);
        let public = || ok("x").header("cache-control", "public, max-age=60");
        assert_eq!(is_shared(named(), field, private).await, (false, false), "{field:?}");
        assert_eq!(is_shared(named(), field, public).await, (true, true), "{field:?}");
        assert_eq!(
            is_shared(named().store_authorized(true), field, private).await,
            (true, true),
            "{field:?}"
        );
        let fixed = named().fixed_ttl(secs(60));
        assert_eq!(is_shared(fixed, field, || ok("x")).await, (false, false), "{field:?}");
    }
    assert_eq!(is_shared(Rules::new(), fields, || ok("x").max_age(60)).await, (true, true), "unless named");
}

#[tokio::test(start_paused = true)]
async fn only_named_credentials_count_if_configured() {
    let only = fixed(60_000).only_credentials(["x-tenant-key"]);
    assert_eq!(is_shared(only.clone(), ALICE, || ok("x")).await, (true, true));
    assert_eq!(is_shared(only.clone(), &[("x-tenant-key", "a")], || ok("x")).await, (false, false));
    assert_eq!(is_shared(only.clone(), &[("authorization", "a")], || ok("x")).await, (false, false));
    assert_eq!(is_shared(only, &[("cookie", "a=b")], || ok("x")).await, (false, false));
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_bypasses_says_so() {
    let both = Both::new(fixed(60_000).credentials(["x-tenant-key"]), ScriptedOrigin::always(|| ok("x")));
    for (name, why) in [
        ("x-api-key", NotStored::Token),
        ("x-tenant-key", NotStored::Authorization),
        ("authorization", NotStored::Authorization),
        ("cookie", NotStored::Cookie),
    ] {
        for reply in both.get("/", &[(name, "a=b")]).await {
            assert_eq!(reply.cache_status.unwrap().not_stored_reason(), Some(why), "{name}");
        }
    }
    let [stack, _] = both.get("/", ALICE).await;
    assert!(stack.header("cache-status").unwrap().ends_with("detail=token"));
}

#[tokio::test(start_paused = true)]
async fn a_cache_outside_of_the_check_serves_nothing_to_callers_without_the_key() {
    let origin = ScriptedOrigin::new(|_, head| match head.headers.contains_key("x-api-key") {
        true => ok("secret"),
        false => status(401),
    });
    let both = Both::new(fixed(60_000), origin);
    both.get("/", ALICE).await;
    assert_eq!(both.get("/", &[]).await.map(|reply| reply.status.as_u16()), [401, 401]);
    assert_eq!(both.get("/", ALICE).await.map(|reply| reply.body), ["secret", "secret"]);
}

#[tokio::test(start_paused = true)]
async fn stale_responses_and_head_respect_named_credentials_too() {
    let origin = ScriptedOrigin::new(|call, _| match call {
        1 | 2 => ok("anonymous"),
        _ => status(503),
    });
    let both = Both::new(fixed(60_000).fixed_ttl(secs(1)).stale_while_revalidate_for(secs(60)), origin);
    both.get("/", &[]).await;
    assert!(both.send(|| request("HEAD", "/", ALICE)).await.iter().all(|reply| !reply.is_hit()));
    tokio::time::advance(secs(2)).await;
    for reply in both.get("/", ALICE).await {
        assert_eq!((reply.status.as_u16(), reply.is_hit()), (503, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_in_the_key_is_not_a_reason_against_storing() {
    for name in ["authorization", "x-api-key", "x-tenant-key"] {
        let rule = KeyRule::any().headers([name]).fixed_ttl(secs(60));
        let rules = KeyRules::builder().rule(rule).build().unwrap();
        let origin = ScriptedOrigin::new(move |_, head| ok(format!("{:?}", head.headers.get(name))));
        let store = MemoryStore::with_capacity_bytes(1 << 20);
        let layer = ReadThroughLayer::builder(store).key(rules).rules(named()).build().unwrap();
        let service = layer.layer(origin.clone());
        for (user, is_hit) in [("a", false), ("a", true), ("b", false), ("b", true), ("a", true)] {
            let reply = get_with(&service, "/", &[(name, user)]).await;
            assert_eq!(
                (reply.is_hit(), &*reply.body),
                (is_hit, format!("Some(\"{user}\")").as_bytes()),
                "{name}"
            );
        }
        // Another credential beside it still counts.
        for other in ["cookie", "x-auth-token"] {
            assert!(
                !get_with(&service, "/", &[(name, "a"), (other, "c=d")]).await.is_hit(),
                "{name} {other}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn callers_with_different_credentials_share_no_fetch() {
    let reply_to =
        |head: &http::request::Parts| ok(format!("{:?}", head.headers.get("x-api-key"))).after(secs(1));
    let origin = ScriptedOrigin::new(move |_, head| reply_to(head));
    let store = MemoryStore::with_capacity_bytes(1 << 20);
    let stack = ReadThroughLayer::builder(store).rules(fixed(60_000)).build().unwrap().layer(origin);
    let users: Vec<String> = (0..30).map(|n| format!("user{n}")).collect();
    let fields = |n: usize| {
        [("x-api-key", &*users[n])].into_iter().filter(move |_| !n.is_multiple_of(3)).collect::<Vec<_>>()
    };
    let check = |bodies: &[bytes::Bytes]| {
        for (n, body) in bodies.iter().enumerate() {
            let expected = if n % 3 > 0 { format!("Some(\"user{n}\")") } else { "None".to_owned() };
            assert_eq!(*body, expected);
        }
    };
    let replies = (0..30).map(async |n| get_with(&stack, "/", &fields(n)).await.body);
    check(&futures_util::future::join_all(replies).await);
    let coalesced = ServiceBuilder::new()
        .layer(KeyLayer::default())
        .layer(CoalesceLayer::new().rules(fixed(60_000)))
        .service(ScriptedOrigin::new(move |_, head| reply_to(head)));
    let replies = (0..30).map(async |n| get_with(&coalesced, "/", &fields(n)).await.body);
    check(&futures_util::future::join_all(replies).await);
}

#[tokio::test(start_paused = true)]
async fn one_layer_that_knows_a_credential_is_enough_to_keep_a_response_out() {
    let fields = &[("x-tenant-key", "alice")];
    let stores = |key: Rules, fill: Rules| async move {
        let (store, origin) =
            (MemoryStore::with_capacity_bytes(1 << 20), ScriptedOrigin::always(|| ok("x").max_age(60)));
        let service = ServiceBuilder::new()
            .layer(KeyLayer::default().rules(key))
            .layer(FillLayer::new(store).rules(fill))
            .service(origin);
        get_with(&service, "/", fields).await.cache_status.unwrap().is_stored()
    };
    assert!(stores(Rules::new(), Rules::new()).await);
    assert!(!stores(named(), Rules::new()).await);
    assert!(!stores(Rules::new(), named()).await);
}
