use super::*;
use AttemptOutcome::{Failure, Success};

const SECOND: Duration = Duration::from_secs(1);

fn head(path: &str) -> Parts {
    http::Request::get(path).body(()).unwrap().into_parts().0
}

/// By the first segment of the path.
fn by_segment() -> OriginHealthBuilder {
    OriginHealth::builder().seed(1).origin(|head| {
        let segment = head.uri.path().split('/').nth(1).unwrap_or_default();
        assert_ne!(segment, "panic");
        segment.into()
    })
}

/// Twenty failures, or as many as are let in.
fn fail(health: &OriginHealth, path: &str) {
    let gate = health.gate(&head(path));
    for key in 0..20 {
        let entrance = Entrance { key: Some(key), ..Entrance::default() };
        if let Entered::Admitted(attempt) = gate.enter(entrance, Instant::now()) {
            drop(attempt.finish(Failure, Instant::now()));
        }
    }
}

fn states(health: &OriginHealth) -> Vec<String> {
    health.states().iter().map(|(name, state)| format!("{name} {state}")).collect()
}

#[tokio::test(start_paused = true)]
async fn without_an_extractor_there_is_one_origin() {
    let health = OriginHealth::new();
    assert_eq!(states(&health), ["default up"]);
    fail(&health, "/a/1");
    assert_eq!(health.state(), OriginState::Down);
    assert_eq!(format!("{health:?}"), r#"{"default": Down}"#);
    assert!(!health.is_up(&head("/b/1")));
    assert!(Arc::ptr_eq(&health.gate(&head("/a")), &health.gate(&head("/b"))));
}

#[tokio::test(start_paused = true)]
async fn origins_by_name_have_states_of_their_own() {
    let health = by_segment().build().unwrap();
    assert_eq!((states(&health).len(), health.state()), (0, OriginState::Up));
    fail(&health, "/a/1");
    assert_eq!(health.state(), OriginState::Down);
    assert!(health.is_up(&head("/b/1")));
    assert_eq!(states(&health), ["a down", "b up"]);
    assert_eq!(health.state(), OriginState::Up);
    fail(&health, "/b/2");
    assert_eq!(health.state(), OriginState::Down);
    let gate = health.gate(&head("/a/1"));
    let entrance = Entrance { key: Some(1), ..Entrance::default() };
    let Entered::Admitted(attempt) = gate.enter(entrance, Instant::now()) else { panic!() };
    drop(attempt.finish(Success, Instant::now()));
    assert_eq!(states(&health), ["a recovering", "b down"]);
    assert_eq!(health.state(), OriginState::Recovering);
}

#[test]
fn a_panic_of_the_extractor_is_the_default_origin() {
    let health = by_segment().build().unwrap();
    let gate = health.gate(&head("/panic/1"));
    assert!(Arc::ptr_eq(&gate, &health.gate(&head("/panic/2"))));
    assert_eq!(states(&health), ["default up"]);
}

#[test]
fn origins_beyond_the_most_share_a_state() {
    let health = by_segment().build().unwrap();
    let gates: Vec<_> = (0..MAX_ORIGINS + 50).map(|n| health.gate(&head(&format!("/{n}")))).collect();
    assert_eq!(health.states().len(), MAX_ORIGINS + 1);
    assert!(health.states().iter().any(|(name, _)| &**name == OTHER_ORIGINS));
    assert!(gates[MAX_ORIGINS..].iter().all(|gate| Arc::ptr_eq(gate, &gates[MAX_ORIGINS])));
    assert!(Arc::ptr_eq(&gates[7], &health.gate(&head("/7"))));
}

#[test]
fn a_limit_is_for_each_origin_and_is_set_once() {
    let health = by_segment().build().unwrap();
    let before = health.gate(&head("/a"));
    assert!(health.limit(2, 0));
    assert!(health.limit(2, 0));
    assert!(!health.limit(3, 0));
    let after = health.gate(&head("/b"));
    for gate in [before, after] {
        let enter = || gate.enter(Entrance::default(), Instant::now());
        let (one, other) = (enter(), enter());
        assert!(matches!((&one, &other), (Entered::Admitted(_), Entered::Admitted(_))));
        assert!(matches!(enter(), Entered::Refused(Refusal::QueueFull)));
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_origins_the_first_that_may_be_asked_is() {
    assert!(OriginHealth::group(&[]).is_none());
    let members = [1, 2].map(|seed| OriginHealth::builder().seed(seed).build().unwrap());
    let group = OriginHealth::group(&members).unwrap();
    let head = head("/");
    let gates: Vec<_> = group.members.iter().map(|member| member.gate(&head)).collect();
    assert_eq!(gates.len(), 2);
    assert!(Arc::ptr_eq(&gates[0], &group.gate(&head)));
    fail(&members[0], "/");
    assert_eq!((group.state(), group.is_up(&head)), (OriginState::Up, true));
    assert!(matches!(group.ask_with_stale(&head, Instant::now()), Answer::Fetch(None)));
    fail(&members[1], "/");
    assert_eq!((group.state(), group.is_up(&head)), (OriginState::Down, false));
    assert!(matches!(group.ask_with_stale(&head, Instant::now()), Answer::Serve(HeldBack::Down)));
    tokio::time::advance(SECOND).await;
    let passes: Vec<_> = gates
        .iter()
        .map(|gate| match group.ask_with_stale(&head, Instant::now()) {
            Answer::Fetch(Some(pass)) => (pass.is_for(gate), pass),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(passes.iter().all(|(is_for, _)| *is_for));
    assert!(matches!(group.ask_with_stale(&head, Instant::now()), Answer::Serve(HeldBack::Down)));
}

#[tokio::test(start_paused = true)]
async fn requests_without_a_key_count_only_where_that_is_asked_for() {
    for (counts, state) in [(false, OriginState::Up), (true, OriginState::Down)] {
        let health = OriginHealth::builder().count_without_key(counts).build().unwrap();
        let gate = health.gate(&head("/"));
        for _ in 0..20 {
            let Entered::Admitted(attempt) = gate.enter(Entrance::default(), Instant::now()) else {
                panic!()
            };
            drop(attempt.finish(Failure, Instant::now()));
        }
        assert_eq!(health.state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn each_setting_has_an_effect() {
    let builder = || OriginHealth::builder().seed(1);
    let down = |builder: OriginHealthBuilder| {
        let health = builder.build().unwrap();
        fail(&health, "/");
        (health.gate(&head("/")), health)
    };
    let miss = || Entrance { key: Some(1), ..Entrance::default() };
    let next_probe = |gate: &Arc<Gate>| match gate.enter(miss(), Instant::now()) {
        Entered::Refused(Refusal::Down { next_probe }) => next_probe,
        other => panic!("{other:?}"),
    };
    let (gate, _) = down(builder());
    assert!(matches!(gate.enter(miss(), Instant::now()), Entered::Admitted(_)));
    let (gate, _) = down(builder().fail_fast(true));
    assert!((SECOND / 2..=SECOND).contains(&next_probe(&gate)));
    let (gate, _) = down(builder().fail_fast(true).probe_every(60 * SECOND, 60 * SECOND));
    assert!((30 * SECOND..=60 * SECOND).contains(&next_probe(&gate)));
    let (gate, _) =
        down(builder().fail_fast(true).probe_every(1 * SECOND, 1 * SECOND).probe_deadline(7 * SECOND));
    tokio::time::advance(SECOND).await;
    let _probe = gate.enter(miss(), Instant::now());
    assert_eq!(next_probe(&gate), 7 * SECOND);
    let pause = builder().key_pause(3 * SECOND, 3 * SECOND).build().unwrap().key_pause().wait(1, None);
    assert!((3 * SECOND / 2..=3 * SECOND).contains(&pause));
    let health = builder().stalled_after(2 * SECOND).build().unwrap();
    let gate = health.gate(&head("/"));
    let enter = |key| gate.enter(Entrance { key: Some(key), ..Entrance::default() }, Instant::now());
    let _hung: Vec<_> = (0..5).map(enter).collect();
    tokio::time::advance(2 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(health.state(), OriginState::Up);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(health.state(), OriginState::Down);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_not_watched_stays_up() {
    let health = OriginHealth::unwatched();
    fail(&health, "/");
    assert_eq!(health.state(), OriginState::Up);
}

#[test]
fn keys_have_hashes_that_tell_them_apart() {
    let hashes: std::collections::HashSet<_> = (0..1_000_u32).map(|n| key_hash(&n.to_le_bytes())).collect();
    assert_eq!(hashes.len(), 1_000);
    assert_eq!(key_hash(b"a"), key_hash(b"a"));
}

#[test]
fn durations_of_zero_and_inverted_ranges_are_refused() {
    let zero = |builder: OriginHealthBuilder| match builder.build() {
        Err(BuildError::ZeroDuration { setting, .. }) => setting,
        other => panic!("{other:?}"),
    };
    let builder = OriginHealth::builder;
    assert_eq!(zero(builder().probe_every(Duration::ZERO, SECOND)), "probe_every");
    assert_eq!(zero(builder().key_pause(Duration::ZERO, SECOND)), "key_pause");
    assert_eq!(zero(builder().probe_deadline(Duration::ZERO)), "probe_deadline");
    assert_eq!(zero(builder().stalled_after(Duration::ZERO)), "stalled_after");
    let inverted = |builder: OriginHealthBuilder| match builder.build() {
        Err(BuildError::InvertedRange { setting }) => setting,
        other => panic!("{other:?}"),
    };
    assert_eq!(inverted(builder().probe_every(2 * SECOND, SECOND)), "probe_every");
    assert_eq!(inverted(builder().key_pause(2 * SECOND, SECOND)), "key_pause");
    assert!(builder().probe_every(Duration::MAX, Duration::MAX).key_pause(SECOND, SECOND).build().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_longest_durations_overflow_nothing() {
    let most = Duration::MAX;
    let builder = OriginHealth::builder().probe_every(most, most).probe_deadline(most).stalled_after(most);
    let health = builder.key_pause(most, most).fail_fast(true).build().unwrap();
    assert!(health.limit(usize::MAX, usize::MAX));
    fail(&health, "/");
    tokio::time::advance(3600 * SECOND).await;
    fail(&health, "/");
    assert_eq!(health.state(), OriginState::Down);
    assert!(health.key_pause().wait(u32::MAX, None) >= most / 2);
}
