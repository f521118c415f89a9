//! One fetch for all nodes, where they take turns.

use super::*;

fn taking_turns(site: &Site, origin: &ScriptedOrigin) -> Node {
    site.node_with(origin, |tier| tier.single_fetch(true), |cache| cache)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_on_each_of_two_nodes_are_one_call_of_the_origin() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| tagged(call).max_age(60).after(ms(300)));
    let nodes = [taking_turns(&site, &origin), taking_turns(&site, &origin)];
    site.remote.delay(ms(1));
    let calls: Vec<_> = nodes
        .iter()
        .flat_map(|node| (0..10_000).map(|_| node.service.clone()))
        .map(|service| tokio::spawn(async move { get(&service, "/").await.body }))
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "0");
    }
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_of_two_nodes_asks_by_itself_where_they_do_not() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| tagged(call).max_age(60).after(ms(300)));
    let nodes = [site.node_of(&origin), site.node_of(&origin)];
    tokio::join!(nodes[0].get("/"), nodes[1].get("/"));
    assert_eq!((origin.calls(), site.remote.calls(RemoteCall::Lease)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_given_back_once_the_response_is_written_or_will_not_be() {
    let site = Site::default();
    let node = taking_turns(&site, &numbered());
    site.remote.delay(ms(1));
    let leases = || site.remote.keys().iter().filter(|key| key.starts_with(b"1:l:")).count();
    node.page("/").await;
    assert_eq!(leases(), 1, "it waits to be written");
    node.written().await;
    settle().await;
    assert_eq!(leases(), 0);
    for answer in [|| status(503), || ok("x").header("cache-control", "no-store")] {
        let failing = taking_turns(&site, &ScriptedOrigin::always(answer));
        failing.get("/failing").await;
        settle().await;
        assert_eq!(leases(), 0);
    }
}

/// Between the read and the call for the lease another node may fetch, write, and give the lease back.
#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_back_meanwhile_leads_to_no_second_fetch() {
    let site = Site::default();
    let origin = numbered();
    let (first, second) = (taking_turns(&site, &origin), taking_turns(&site, &origin));
    let gate = site.remote.hold([RemoteCall::Lease]);
    let (late, ()) = tokio::join!(second.get("/"), async {
        settle().await;
        let held = site.remote.hold([]);
        first.fill("/").await;
        drop((gate, held));
    });
    assert_eq!((&*late.body, origin.calls()), (&b"0"[..], 1));
}

#[tokio::test(start_paused = true)]
async fn a_node_fetches_by_itself_when_another_one_takes_too_long() {
    let site = Site::default();
    let slow = ScriptedOrigin::always(ScriptedResponse::never);
    let (first, second) = (taking_turns(&site, &slow), taking_turns(&site, &numbered()));
    let began = tokio::time::Instant::now();
    let service = first.service.clone();
    let hanging = tokio::spawn(async move { get(&service, "/").await });
    settle().await;
    assert_eq!(second.page("/").await, "0");
    assert!((secs(2)..ms(2_100)).contains(&began.elapsed()), "{:?}", began.elapsed());
    hanging.abort();
}

#[tokio::test(start_paused = true)]
async fn a_node_waits_no_longer_than_clients_with_something_stale_would() {
    let site = Site::default();
    let slow = ScriptedOrigin::always(ScriptedResponse::never);
    let first = taking_turns(&site, &slow);
    let second = site.node_with(
        &numbered(),
        |tier| tier.single_fetch(true),
        |cache| cache.coalesce(|coalesce| coalesce.stale_after(ms(300))),
    );
    let service = first.service.clone();
    let hanging = tokio::spawn(async move { get(&service, "/").await });
    settle().await;
    let began = tokio::time::Instant::now();
    second.page("/").await;
    assert!((ms(300)..ms(330)).contains(&began.elapsed()), "{:?}", began.elapsed());
    hanging.abort();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_something_stale_does_not_wait() {
    let site = Site::default();
    let origin = numbered();
    let (first, second) = (taking_turns(&site, &origin), taking_turns(&site, &numbered()));
    first.fill("/").await;
    second.page("/").await;
    tokio::time::advance(secs(70)).await;
    let gate = origin.hold();
    let service = first.service.clone();
    let held = tokio::spawn(async move { get(&service, "/").await });
    gate.waiting(1).await;
    let began = tokio::time::Instant::now();
    assert_eq!((second.page("/").await, second.origin.calls()), ("0".to_owned(), 1));
    assert_eq!(began.elapsed(), ms(0));
    gate.open();
    held.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_its_turn_as_soon_as_another_one_has_failed() {
    let site = Site::default();
    let failing = ScriptedOrigin::always(|| status(503).after(ms(60)));
    let (first, second) = (taking_turns(&site, &failing), taking_turns(&site, &numbered()));
    let began = tokio::time::Instant::now();
    let (first, second) = tokio::join!(first.get("/"), second.get("/"));
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (503, 200));
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_a_node_fetches() {
    let site = Site::default();
    let node = taking_turns(&site, &numbered());
    let gate = site.remote.hold([RemoteCall::Lease]);
    let (reply, ()) = tokio::join!(node.get("/"), async {
        settle().await;
        site.remote.fail(1);
        drop(gate);
    });
    assert_eq!((&*reply.body, site.remote.calls(RemoteCall::Lease)), (&b"0"[..], 1));
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_panics_instead_of_giving_a_lease_fails_no_request() {
    let site = Site::default();
    let node = taking_turns(&site, &numbered());
    let gate = site.remote.hold([RemoteCall::Lease]);
    let (reply, ()) = tokio::join!(node.get("/"), async {
        settle().await;
        site.remote.panic(1);
        drop(gate);
    });
    assert_eq!(reply.status, 200);
}

/// The time that calls of the remote take counts.
#[tokio::test(start_paused = true)]
async fn a_wait_for_another_node_is_bounded_also_where_the_remote_is_slow() {
    for (read, wait_at_most, expected) in [(40, None, 2_000), (900, None, 2_000), (40, Some(ms(1_000)), 500)]
    {
        let site = Site::default();
        let slow = ScriptedOrigin::always(ScriptedResponse::never);
        let first = taking_turns(&site, &slow);
        let second = site.node_with(
            &numbered(),
            |tier| tier.single_fetch(true),
            |cache| {
                cache.coalesce(|coalesce| match wait_at_most {
                    Some(limit) => coalesce.wait_at_most(limit),
                    None => coalesce,
                })
            },
        );
        let service = first.service.clone();
        let hanging = tokio::spawn(async move { get(&service, "/").await });
        settle().await;
        site.remote.delay(ms(read));
        let began = tokio::time::Instant::now();
        assert_eq!(second.get("/").await.status, 200);
        // The first look comes before it.
        let bound = ms(expected + read + 10);
        assert!(began.elapsed() <= bound, "{:?} of {bound:?}", began.elapsed());
        hanging.abort();
    }
}

/// The other half of its time is for the fetch.
#[tokio::test(start_paused = true)]
async fn a_node_waits_for_half_of_the_time_that_a_fetch_has() {
    let site = Site::default();
    let stuck = taking_turns(&site, &ScriptedOrigin::always(ScriptedResponse::never));
    let service = stuck.service.clone();
    let call = tokio::spawn(async move { get(&service, "/").await });
    settle().await;
    let node = site.node_with(
        &numbered(),
        |tier| tier.single_fetch(true),
        |cache| cache.coalesce(|coalesce| coalesce.fetch_deadline(ms(600))),
    );
    let began = tokio::time::Instant::now();
    assert_eq!((node.get("/").await.status.as_u16(), began.elapsed()), (200, ms(300)));
    call.abort();
}

/// A token that was not given is not given back: each look would be one call more.
#[tokio::test(start_paused = true)]
async fn only_a_lease_that_was_given_is_given_back() {
    let site = Site::default();
    let slow = ScriptedOrigin::new(|call, _| tagged(call).max_age(60).after(ms(300)));
    let (first, second) = (taking_turns(&site, &slow), taking_turns(&site, &slow));
    tokio::join!(first.get("/"), async {
        settle().await;
        second.get("/").await
    });
    first.written().await;
    settle().await;
    let calls = [RemoteCall::Lease, RemoteCall::Release].map(|kind| site.remote.calls(kind));
    assert!(calls[0] > 2 && calls[1] == 1, "{calls:?}");
}
