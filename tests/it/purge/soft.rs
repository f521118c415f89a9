//! Soft purges: responses are made stale, and not removed.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_soft_purge_makes_a_response_be_revalidated() {
    for (kind, apply) in KINDS {
        let origin = confirming();
        let (service, purge, _) = stack_of(&origin, Rules::new());
        seen(&service, URI).await;
        assert_eq!(seen(&service, URI).await, ("hit".into(), "1".into()));
        apply(&purge.soft());
        let (how, body) = seen(&service, URI).await;
        assert!(how.contains("fwd=stale"), "{kind}: {how}");
        assert_eq!(body, "1", "{kind}: confirmed");
        assert_eq!(seen(&service, URI).await, ("hit".into(), "1".into()), "{kind}: fresh again");
        assert_eq!(origin.calls(), 2, "{kind}");
        // After a hard purge there is not even a revalidation.
        apply(&purge);
        assert_eq!(seen(&service, URI).await.1, "3", "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_softly_purged_response_is_served_while_revalidating_for_its_window() {
    for (kind, apply) in KINDS {
        let origin = ScriptedOrigin::with_future(|n, _| async move {
            sleep(ms(100)).await;
            response(&[("surrogate-key", "red")], n.to_string())
        });
        let rules = fixed(60_000).stale_while_revalidate_for(ms(5_000));
        let (service, purge, _) = stack_of(&origin, rules);
        seen(&service, URI).await;
        sleep(ms(10_000)).await;
        apply(&purge.soft());
        sleep(ms(4_000)).await;
        let (how, body) = seen(&service, URI).await;
        assert_eq!(body, "1", "{kind}: {how}");
        assert_ne!(how, "hit", "{kind}: it says that it is stale");
        sleep(ms(200)).await;
        assert_eq!(seen(&service, URI).await, ("hit".into(), "2".into()), "{kind}");
        apply(&purge.soft());
        sleep(ms(5_001)).await;
        assert_eq!(seen(&service, URI).await.1, "3", "{kind}: the window is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_softly_purged_response_covers_an_outage() {
    for (kind, apply) in KINDS {
        let origin = ScriptedOrigin::with_future(|n, _| async move {
            match n {
                1 => response(&[("surrogate-key", "red")], "1"),
                _ => status(503),
            }
        });
        let rules = fixed(60_000).stale_if_error_for(ms(5_000));
        let (service, purge, _) = stack_of(&origin, rules.clone());
        seen(&service, URI).await;
        apply(&purge.soft());
        sleep(ms(4_000)).await;
        assert_eq!(call(&service, get_request(URI)).await, (StatusCode::OK, "1".into()), "{kind}");
        sleep(ms(1_001)).await;
        assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE, "{kind}");

        let (service, purge, _) = stack_of(&origin_of_one_answer(), rules);
        seen(&service, URI).await;
        apply(&purge);
        assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_soft_purge_does_not_extend_a_stale_window() {
    let rules = fixed(10_000).stale_if_error_for(ms(10_000));
    let (service, purge, _) = stack_of(&origin_of_one_answer(), rules);
    seen(&service, URI).await;
    sleep(ms(19_000)).await;
    purge.soft().everything();
    assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::OK);
    sleep(ms(1_100)).await;
    purge.soft().everything();
    assert_eq!(call(&service, get_request(URI)).await.0, StatusCode::SERVICE_UNAVAILABLE);
}
