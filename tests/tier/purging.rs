//! A purge wins: what was fetched before it is not served after it, wherever it was meanwhile.

use super::*;
use http::request::Parts;
use tower_readthrough::Purge;

type Purging<'a> = &'a dyn Fn(&Node);

fn red(node: &Node) {
    node.cache.purge().tag("red");
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_is_not_taken_from_the_tier() {
    let site = Site::default();
    let (here, there) = (site.node(), site.node());
    here.fill("/").await;
    red(&there);
    assert_eq!((there.page("/").await, there.origin.calls()), ("0".to_owned(), 1));
    assert_eq!(there.count(TierRead::Purged), 1);
    // What is not reached stays.
    there.written().await;
    there.cache.purge().tag("blue");
    let third = site.node();
    assert_eq!(third.get("/").await.cache(), "hit; detail=second-tier");
}

/// In the tier as on the node: each kind of purge, and an unsafe request.
#[tokio::test(start_paused = true)]
async fn each_kind_of_purge_reaches_what_is_in_the_tier() {
    let page = "http://example.com/a/b?c=1";
    let kinds: [(&str, Purging<'_>); 8] = [
        ("url", &|node| _ = node.cache.purge().url(page).unwrap()),
        ("tag", &red),
        ("path", &|node| _ = node.cache.purge().path_prefix("http://example.com/a").unwrap()),
        ("pattern", &|node| _ = node.cache.purge().pattern("http://example.com/*/b").unwrap()),
        ("host", &|node| _ = node.cache.purge().host("example.com").unwrap()),
        ("everything", &|node| _ = node.cache.purge().everything()),
        ("soft", &|node| _ = node.cache.purge().soft().tag("red")),
        ("unproven", &|node| _ = node.cache.purge().unproven().tag("red")),
    ];
    for (kind, purge) in kinds {
        let site = Site::default();
        let (here, there) = (site.node(), site.node());
        here.fill(page).await;
        purge(&here);
        assert_eq!(there.page(page).await, "0", "{kind}");
        assert_eq!(there.origin.calls(), 1, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_young_node_takes_nothing_that_was_purged_before_it_was_born() {
    let site = Site::default();
    let here = site.node();
    here.fill("/").await;
    here.fill("/other").await;
    _ = here.cache.purge().url("http://example.com/").unwrap();
    let young = site.node();
    assert_eq!((young.page("/").await, young.origin.calls()), ("0".to_owned(), 1));
    assert_eq!((young.page("/other").await, young.origin.calls()), ("1".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn an_unsafe_request_on_one_node_reaches_the_tier_of_all() {
    let site = Site::default();
    let (here, there) = (site.node(), site.node());
    here.fill("/").await;
    send(&here.service, request("PUT", "/", &[])).await;
    there.page("/").await;
    assert_eq!(there.origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_soft_purge_leaves_a_stale_response() {
    let site = Site::default();
    let here = site.node();
    here.fill("/").await;
    here.cache.purge().soft().tag("red");
    let failing = site.node_of(&ScriptedOrigin::always(|| status(503)));
    let reply = failing.get("/").await;
    assert_eq!((&*reply.body, failing.count(TierRead::Stale)), (&b"0"[..], 1));
    let hard = site.node();
    hard.cache.purge().tag("red");
    assert_eq!(site.node_of(&ScriptedOrigin::always(|| status(503))).get("/").await.status, 503);
}

/// Only what is fetched for the same key is newer than what the tier has.
#[tokio::test(start_paused = true)]
async fn a_slow_fetch_of_something_else_keeps_nothing_from_being_read() {
    let site = Site::default();
    let slow = ScriptedOrigin::new(|_, head: &Parts| match head.uri.path() {
        "/slow" => ScriptedResponse::never(),
        _ => status(503),
    });
    let (here, there) = (site.node_of(&slow), site.node());
    let service = here.service.clone();
    let hanging = tokio::spawn(async move { get(&service, "/slow").await });
    settle().await;
    for page in ["0", "1"] {
        assert_eq!(there.fill("/").await, page);
        assert_eq!(here.page("/").await, page);
        red(&there);
    }
    hanging.abort();
}

/// The delays of a fetch that began before a purge: before the origin, at the origin, in the queue, in the
/// write, in the tier, and in the read.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_began_before_a_purge_loses_wherever_it_is_delayed() {
    // At the origin.
    let site = Site::default();
    let slow = numbered();
    let (here, there) = (site.node_of(&slow), site.node());
    let gate = slow.hold();
    let (first, ()) = tokio::join!(here.get("/"), async {
        gate.waiting(1).await;
        // The other node purges, and this one hears of it before or after its fetch ends.
        red(&there);
        gate.open();
    });
    assert_eq!(first.body, "0", "it came before");
    here.written().await;
    there.page("/").await;
    assert_eq!(there.origin.calls(), 1, "at the origin");

    // At the origin, of a node that hears of the purge much later.
    let site = Site::default();
    let slow = numbered();
    let (here, there) = (site.node_of(&slow), site.node());
    here.log.pause();
    let gate = slow.hold();
    tokio::join!(here.get("/"), async {
        gate.waiting(1).await;
        red(&there);
        gate.open();
    });
    here.written().await;
    assert_eq!(here.count_of_writes(TierWrite::Written), 1, "it knows of nothing");
    there.page("/").await;
    assert_eq!((there.origin.calls(), there.count(TierRead::Purged)), (1, 1), "by a node that is behind");
    here.log.resume();
    there.written().await;
    here.page("/").await;
    assert_eq!(here.origin.calls(), 1, "it takes what the other one has fetched since");

    // Before the origin: the fetch begins after the purge was applied, and counts.
    let site = Site::default();
    let (here, there) = (site.node(), site.node());
    let gate = site.remote.hold([RemoteCall::Read]);
    let ((), _) = tokio::join!(
        async {
            settle().await;
            red(&there);
            drop(gate);
        },
        here.get("/")
    );
    here.written().await;
    assert_eq!((there.page("/").await, there.origin.calls()), ("0".to_owned(), 0), "before the origin");

    // In the queue, or in the write, of a node that hears of it later.
    for others in [0, 4] {
        let site = Site::default();
        let (here, there) = (site.node(), site.node());
        here.log.pause();
        let gate = site.remote.hold([RemoteCall::Write]);
        for page in 0..others {
            here.page(&format!("/{page}")).await;
            begin_writing().await;
        }
        here.page("/").await;
        begin_writing().await;
        red(&there);
        drop(gate);
        here.written().await;
        assert_eq!(here.count_of_writes(TierWrite::Written), others + 1);
        there.page("/").await;
        assert_eq!((there.origin.calls(), there.count(TierRead::Purged)), (1, 1), "behind {others}");
    }

    // In the read.
    let site = Site::default();
    let (here, there) = (site.node(), site.node());
    here.fill("/").await;
    let third = site.node();
    site.remote.delay(ms(20));
    let (reply, ()) = tokio::join!(third.get("/"), async {
        tokio::time::sleep(ms(10)).await;
        red(&there);
    });
    assert_eq!(third.origin.calls(), 1, "in the read");
    assert_eq!(reply.body, "0");
}

#[tokio::test(start_paused = true)]
async fn what_is_purged_before_its_turn_to_be_written_is_not_written() {
    let site = Site::default();
    let here = site.node();
    // As many as are written at a time, and one more.
    let gate = site.remote.hold([RemoteCall::Write]);
    for page in ["/0", "/1", "/2", "/3", "/4"] {
        here.get(page).await;
        begin_writing().await;
    }
    assert_eq!(here.tier.status().queued, 5);
    red(&here);
    drop(gate);
    here.written().await;
    assert_eq!(here.count_of_writes(TierWrite::Purged), 1);
    // What was being written came too early to know.
    assert_eq!(here.count_of_writes(TierWrite::Written), 4);
    let there = site.node();
    for page in ["/0", "/1", "/2", "/3", "/4"] {
        there.page(page).await;
    }
    assert_eq!((there.origin.calls(), there.count(TierRead::Purged)), (5, 4));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_came_after_a_purge_does_not_get_what_another_one_waits_for() {
    let site = Site::default();
    let (here, there) = (site.node(), site.node());
    here.fill("/").await;
    site.remote.delay(ms(20));
    let (before, after) = tokio::join!(there.get("/"), async {
        tokio::time::sleep(ms(10)).await;
        red(&here);
        there.get("/").await
    });
    assert_eq!(after.body, "0");
    assert_eq!(there.origin.calls(), 1, "{} {}", before.cache(), after.cache());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_caught_up_neither_reads_nor_writes() {
    let site = Site::default();
    let (here, there) = (site.node(), site.node());
    here.fill("/").await;
    there.log.cut_off();
    let (reads, writes) = (site.reads(), site.writes());
    assert_eq!(there.get("/").await.cache(), "fwd=uri-miss");
    there.written().await;
    assert_eq!((site.reads(), site.writes(), there.count(TierRead::Behind)), (reads, writes, 1));
    assert_eq!(there.tier.status().standing, tower_readthrough::TierStanding::Behind);
    there.log.connect();
    assert_eq!(there.tier.status().standing, tower_readthrough::TierStanding::Joined);
    there.page("/new").await;
    there.written().await;
    assert_eq!((site.reads(), site.writes()), (reads + 1, writes + 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_before_a_cut_is_not_written_after_it() {
    let site = Site::default();
    let node = site.node();
    let held = site.remote.hold([RemoteCall::Write]);
    // Four are written at a time, and the last one waits for its turn.
    for number in 0..5 {
        node.page(&format!("/{number}")).await;
    }
    begin_writing().await;
    node.log.cut_off();
    drop(held);
    node.written().await;
    let counts = [TierWrite::Written, TierWrite::Behind].map(|outcome| node.count_of_writes(outcome));
    assert_eq!((counts, site.writes()), ([4, 1], 4));
}

/// What became stale or doubtful while it waited is of no use to others.
#[tokio::test(start_paused = true)]
async fn what_is_purged_while_it_waits_for_its_turn_is_not_written() {
    type Of = fn(&Purge) -> Purge;
    let strengths: [Of; 3] = [Purge::clone, Purge::soft, Purge::unproven];
    for of in strengths {
        let site = Site::default();
        let node = site.node();
        let held = site.remote.hold([RemoteCall::Write]);
        for number in 0..4 {
            node.page(&format!("/{number}")).await;
        }
        begin_writing().await;
        node.page("/last").await;
        let purged = of(&node.cache.purge()).url("http://example.com/last").unwrap();
        drop(held);
        node.written().await;
        let counts = [TierWrite::Written, TierWrite::Purged].map(|outcome| node.count_of_writes(outcome));
        assert_eq!(counts, [4, 1], "{:?}", purged.strength());
    }
}

/// A removal is a write as well.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_caught_up_removes_nothing() {
    let site = Site::default();
    site.node().fill("/").await;
    let personal = ScriptedOrigin::always(|| ok("personal").header("cache-control", "no-store"));
    let node = site.node_of(&personal);
    let held = site.remote.hold([RemoteCall::Read]);
    let service = node.service.clone();
    let call = tokio::spawn(async move { get(&service, "/").await });
    settle().await;
    node.log.cut_off();
    drop(held);
    assert_eq!(call.await.unwrap().body, "personal");
    node.written().await;
    assert_eq!((site.remote.calls(RemoteCall::Forget), site.remote.keys().len()), (0, 1));
}

/// What this node knows to be purged is no source of validators either.
#[tokio::test(start_paused = true)]
async fn what_is_purged_here_is_gone_also_where_it_is_not_known_what_else_was() {
    let site = Site::default();
    site.node().fill("/").await;
    let node = site.node();
    site.log.lose_everything();
    node.cache.purge().tag("red");
    let reply = node.get("/").await;
    assert_eq!((reply.cache(), node.count(TierRead::Purged)), ("fwd=uri-miss".to_owned(), 1));
    assert!(!node.origin.requests().iter().any(|head| head.headers.contains_key("if-none-match")));
}

/// The tier has found something stale, and it is purged while the origin is being asked.
#[tokio::test(start_paused = true)]
async fn what_the_tier_had_is_not_used_once_it_is_purged() {
    for is_purged in [false, true] {
        let site = Site::default();
        site.node().fill("/").await;
        tokio::time::advance(secs(70)).await;
        let node = site.node_of(&ScriptedOrigin::always(|| status(503).after(ms(50))));
        let service = node.service.clone();
        let call = tokio::spawn(async move { get(&service, "/").await });
        settle().await;
        if is_purged {
            node.cache.purge().tag("red");
        }
        let reply = call.await.unwrap();
        assert_eq!((reply.status == 503, node.count(TierRead::Stale)), (is_purged, 1));
    }
}

/// RFC 9111 §4.2.4
#[tokio::test(start_paused = true)]
async fn what_must_be_confirmed_once_it_is_stale_does_not_cover_a_failure() {
    let site = Site::default();
    let origin =
        ScriptedOrigin::new(|call, _| tagged(call).header("cache-control", "max-age=60, must-revalidate"));
    site.node_of(&origin).fill("/").await;
    tokio::time::advance(secs(70)).await;
    let node = site.node_of(&ScriptedOrigin::always(|| status(503)));
    let reply = node.get("/").await;
    assert_eq!((reply.status.as_u16(), node.count(TierRead::Stale)), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn after_the_log_was_lost_what_is_in_the_tier_is_only_a_source_of_validators() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, head| match head.headers.contains_key("if-none-match") {
        true => status(304).header("etag", "\"0\"").header("cache-control", "max-age=60"),
        false => tagged(call).max_age(60),
    });
    let (here, there) = (site.node_of(&origin), site.node_of(&origin));
    here.fill("/").await;
    site.log.lose_everything();
    let reply = there.get("/").await;
    assert_eq!((&*reply.body, origin.calls()), (&b"0"[..], 2));
    assert_eq!(there.count(TierRead::Unproven), 1);
    assert_eq!(reply.cache(), "fwd=uri-miss; fwd-status=304; stored; detail=second-tier-unproven");
    // Nor does it cover a failure.
    let site = Site::default();
    site.node().fill("/").await;
    let failing = site.node_of(&ScriptedOrigin::always(|| status(503)));
    site.log.lose_everything();
    assert_eq!(failing.get("/").await.status, 503);
    assert_eq!(failing.count(TierRead::Unproven), 1);
}

/// Records of purges that nothing here needs any more are kept: what the tier has may be older than they are.
#[tokio::test(start_paused = true)]
async fn what_a_purge_has_not_reached_stays_of_use_after_many_purges() {
    let site = Site::default();
    let origin = ScriptedOrigin::new(|call, _| tagged(call).max_age(86_400));
    let (here, there) = (site.node_of(&origin), site.node_of(&origin));
    here.fill("/").await;
    for number in 0..2_000 {
        here.cache.purge().tag(&format!("other-{number}"));
    }
    let young = site.node_of(&origin);
    // Long enough for all that is stored to be checked, after which other stores drop their records.
    for _ in 0..60 {
        tokio::time::advance(secs(1)).await;
        settle().await;
        there.page("/warm").await;
        young.page("/warm").await;
    }
    for node in [&there, &young] {
        assert_eq!(node.get("/").await.cache(), "hit; detail=second-tier");
    }
}
