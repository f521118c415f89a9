//! A panic of the service below is a failure where something stored may be served, and goes on to the
//! caller where nothing may.

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt, future::join_all};
use tower_readthrough::Rules;

use super::caches;

use crate::support::{ScriptedOrigin, get, get_with, ms, ok, panics, request, secs, send, settle};

fn rules() -> Rules {
    Rules::new().default_ttl(secs(10)).stale_if_error_for(secs(60))
}

/// Responds once, and panics from then on.
fn panicking() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, _| if call == 1 { ok("page") } else { panics().after(ms(10)) })
}

#[tokio::test(start_paused = true)]
async fn every_caller_gets_the_stale_response() {
    for (name, cache) in caches(rules()) {
        let origin = panicking();
        let service = cache(origin.clone());
        get(&service, "/").await;
        tokio::time::advance(secs(11)).await;
        for reply in join_all((0..10).map(|_| get(&service, "/"))).await {
            assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"page"[..]), "{name}");
        }
        let calls = if name == "without Coalesce" { 11 } else { 2 };
        assert_eq!(origin.calls(), calls, "{name}: no successor where a stale response is at hand");
        let head = send(&service, request("HEAD", "/", &[])).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_once_is_covered_as_well() {
    for (name, cache) in caches(rules()) {
        let service = cache(ScriptedOrigin::new(|call, _| match call {
            1 => ok("page"),
            _ => panic!("in the call itself, as the test wants it"),
        }));
        get(&service, "/").await;
        tokio::time::advance(secs(11)).await;
        assert_eq!(get(&service, "/").await.body, "page", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_anything_usable_the_panic_goes_on() {
    for (name, cache) in caches(rules()) {
        let service = cache(panicking());
        get(&service, "/").await;
        // Another page, a request with credentials, and past the window.
        let other = AssertUnwindSafe(get(&service, "/other")).catch_unwind().await;
        assert!(other.is_err(), "{name}");
        let fields = [("authorization", "Basic eA==")];
        let theirs = AssertUnwindSafe(get_with(&service, "/", &fields)).catch_unwind().await;
        assert!(theirs.is_err(), "{name}");
        tokio::time::advance(secs(71)).await;
        let late = AssertUnwindSafe(get(&service, "/")).catch_unwind().await;
        let panic = late.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the origin panics, as the script says"), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_panics_reaches_no_client_and_the_next_one_begins_after_the_pause() {
    let rules = rules().stale_while_revalidate_for(secs(600));
    for (name, cache) in caches(rules) {
        let origin = panicking();
        let service = cache(origin.clone());
        get(&service, "/").await;
        for calls in 2..5 {
            tokio::time::advance(secs(11)).await;
            for reply in join_all((0..10).map(|_| get(&service, "/"))).await {
                assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"page"[..]), "{name}");
            }
            tokio::time::sleep(ms(20)).await;
            settle().await;
            assert_eq!(origin.calls(), calls, "{name}");
        }
    }
}
