//! Purges that leave responses unproven: the origin has to confirm them before they are used.

use tower_readthrough::purge::Strength;

use super::*;
use crate::support::request;

#[tokio::test(start_paused = true)]
async fn an_unproven_response_is_revalidated_and_proven_by_that() {
    for (kind, apply) in KINDS {
        let origin = confirming();
        let (service, purge, store) = stack_of(&origin, Rules::new());
        seen(&service, URI).await;
        apply(&purge.unproven());
        let (how, body) = seen(&service, URI).await;
        assert!(how.contains("fwd=stale"), "{kind}: {how}");
        assert_eq!(body, "1", "{kind}: confirmed");
        assert_eq!(seen(&service, URI).await, ("hit".into(), "1".into()), "{kind}");
        assert_eq!(origin.calls(), 2, "{kind}");
        assert!(!store.get(key(URI).as_bytes()).unwrap().variants()[0].is_unproven(), "{kind}");
    }
    assert_eq!(
        stack_of(&confirming(), Rules::new()).1.unproven().everything().strength(),
        Strength::Unproven
    );
}

#[tokio::test(start_paused = true)]
async fn an_unproven_response_is_never_served_while_it_is_revalidated() {
    for (kind, apply) in KINDS {
        let rules = || fixed(60_000).stale_while_revalidate_for(ms(60_000));
        // Fresh, or already in the window.
        for age in [0, 61_000] {
            let (service, purge, _) = stack_of(&tagged_and_slow(), rules());
            seen(&service, URI).await;
            sleep(ms(age)).await;
            apply(&purge.unproven());
            assert_eq!(seen(&service, URI).await.1, "2", "{kind} after {age}");
        }
        // As far as it is the purge that keeps it from being served.
        let (service, purge, _) = stack_of(&tagged_and_slow(), rules());
        seen(&service, URI).await;
        apply(&purge.soft());
        assert_eq!(seen(&service, URI).await.1, "1", "{kind}");
    }
}

fn tagged_and_slow() -> ScriptedOrigin {
    ScriptedOrigin::with_future(|n, _| async move {
        sleep(ms(100)).await;
        response(&[("surrogate-key", "red")], n.to_string())
    })
}

/// In the window that it had: neither shorter, since nothing says that it has changed, nor longer.
#[tokio::test(start_paused = true)]
async fn an_unproven_response_covers_an_outage_as_if_nothing_had_been_purged() {
    for (kind, apply) in KINDS {
        for window in [0, 5_000] {
            let rules = fixed(60_000).stale_if_error_for(ms(window));
            let (service, purge, _) = stack_of(&origin_of_one_answer(), rules);
            seen(&service, URI).await;
            sleep(ms(1_000)).await;
            apply(&purge.unproven());
            assert_eq!(call(&service, get_request(URI)).await, (StatusCode::OK, "1".into()), "{kind}");
            sleep(ms(58_000 + window)).await;
            assert_eq!(call(&service, get_request(URI)).await, (StatusCode::OK, "1".into()), "{kind}");
            sleep(ms(1_001)).await;
            assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE, "{kind}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stronger_purges_count_beside_it() {
    for is_before in [true, false] {
        let rules = fixed(60_000).stale_if_error_for(ms(5_000));
        let (service, purge, _) = stack_of(&origin_of_one_answer(), rules.clone());
        seen(&service, URI).await;
        let mut both = [purge.unproven(), purge.soft()];
        if is_before {
            both.reverse();
        }
        both.iter().for_each(|purge| _ = purge.everything());
        assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::OK, "both windows are open");
        sleep(ms(5_001)).await;
        assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE);

        let (service, purge, _) = stack_of(&origin_of_one_answer(), rules);
        seen(&service, URI).await;
        let mut both = [purge.unproven(), purge];
        if is_before {
            both.reverse();
        }
        both.iter().for_each(|purge| _ = purge.everything());
        assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
}

/// RFC 9111 §5.2.1.2: what a client takes is about age, and an unproven response may have changed at any age.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_stale_responses_gets_no_unproven_one() {
    let origin = tagged();
    let layer = ReadThroughLayer::builder(store())
        .rules(fixed(1_000).stale_if_error_for(ms(60_000)))
        .lookup(|lookup| lookup.request_directives(true))
        .build()
        .unwrap();
    let (service, purge) = (layer.layer(origin.clone()), layer.purge());
    call(&service, get_request(URI)).await;
    sleep(ms(2_000)).await;
    let takes_stale = || request("GET", URI, &[("cache-control", "max-stale=3600")]);
    assert_eq!(call(&service, takes_stale()).await.1, "1");
    purge.unproven().everything();
    assert_eq!(call(&service, takes_stale()).await.1, "2");
}

/// A stack with a stale response, whose origin takes half a second from then on.
async fn stale_over_a_slow_origin(
    change: fn(CoalesceLayer) -> CoalesceLayer,
    is_unproven: bool,
) -> ReadThrough<ScriptedOrigin, MemoryStore> {
    let origin = ScriptedOrigin::with_future(|n, _| async move {
        sleep(ms(if n == 1 { 0 } else { 500 })).await;
        response(&[], n.to_string())
    });
    let layer = ReadThroughLayer::builder(store())
        .rules(fixed(1_000).stale_if_error_for(ms(60_000)))
        .coalesce(change)
        .build()
        .unwrap();
    let (service, purge) = (layer.layer(origin), layer.purge());
    call(&service, get_request(URI)).await;
    sleep(ms(2_000)).await;
    if is_unproven {
        purge.unproven().everything();
    }
    service
}

/// A slow fetch has not failed.
#[tokio::test(start_paused = true)]
async fn an_unproven_response_does_not_stand_in_for_a_slow_fetch() {
    for (is_unproven, body) in [(true, "2"), (false, "1")] {
        let service = stale_over_a_slow_origin(|coalesce| coalesce.stale_after(ms(50)), is_unproven).await;
        // The leader of the fetch, and one that joins it.
        let all = tokio::join!(call(&service, get_request(URI)), call(&service, get_request(URI)));
        assert_eq!([all.0.1, all.1.1], [body, body]);
    }
}

/// A request that comes after the purge does not share a fetch that began before it.
#[tokio::test(start_paused = true)]
async fn a_request_after_the_purge_waits_for_a_fetch_after_it() {
    for (kind, apply) in KINDS {
        let content = Arc::new(AtomicU64::new(1));
        let (service, purge, _) = stack_of(&slow(&content), fixed(60_000));
        let early = crowd(&service, 2);
        sleep(ms(50)).await;
        content.store(2, Ordering::SeqCst);
        apply(&purge.unproven());
        let late = crowd(&service, 2).join_all().await;
        assert_eq!(late, ["2", "2"], "{kind}");
        assert_eq!(early.join_all().await, ["1", "1"], "{kind}");
        assert_eq!(seen(&service, URI).await.1, "2", "{kind}");
    }
}

/// Nor has one for which a caller does not wait any longer, or not at all.
#[tokio::test(start_paused = true)]
async fn an_unproven_response_does_not_stand_in_for_a_fetch_that_goes_on() {
    type Change = fn(CoalesceLayer) -> CoalesceLayer;
    let changes: [(Change, StatusCode); 2] = [
        (|coalesce| coalesce.wait_at_most(ms(50)), StatusCode::GATEWAY_TIMEOUT),
        (|coalesce| coalesce.max_waiters(1), StatusCode::SERVICE_UNAVAILABLE),
    ];
    for (change, refused) in changes {
        for is_unproven in [true, false] {
            let service = stale_over_a_slow_origin(change, is_unproven).await;
            let ask = || call(&service, get_request(URI));
            let (_, _, last) = tokio::join!(ask(), ask(), ask());
            match is_unproven {
                true => assert_eq!(last.0, refused),
                false => assert_eq!(last, (StatusCode::OK, "1".into())),
            }
        }
    }
}
