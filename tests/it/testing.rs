//! The kit for tests: what it does, and what it says when a test is wrong.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Method, request::Parts};
use http_body::Body as _;
use tokio::time::Instant;
use tower::Layer;
use tower_readthrough::{
    Forward, NotStored, ReadThroughLayer, Refused, Stale, Unkeyed,
    testing::{
        Answer, Client, DropAfter, Failure, FaultsLayer, Matcher, Script, ScriptedOrigin, Seen, TestBody,
        time,
    },
};

use crate::support::{fixed, get_request, ms, secs, settle, stack, store, try_send, ttl};

/// What the panic says.
fn said(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast::<&str>().expect("a message").to_string(),
    }
}

/// What a mistake says.
fn mistake<T>(mistake: impl FnOnce() -> T) -> String {
    said(catch_unwind(AssertUnwindSafe(mistake)).map(drop).expect_err("a panic"))
}

async fn mistake_of<T>(future: impl Future<Output = T>) -> String {
    said(AssertUnwindSafe(future).catch_unwind().await.map(drop).expect_err("a panic"))
}

fn client(origin: &ScriptedOrigin) -> Client<ScriptedOrigin> {
    Client::new(origin.clone())
}

#[tokio::test]
async fn a_script_answers_by_pattern_closure_or_anything_in_its_order() {
    let origin = ScriptedOrigin::strict()
        .on("/p/{id}", Answer::ok("first").then(Answer::ok("second")))
        .on("POST /p/{id}", Answer::ok("posted"))
        .on(|head: &Parts| head.method == Method::PUT, [Answer::ok("put")])
        .on("/files/{*rest}", Script::from_fn(|call, head| Answer::ok(format!("{call} {}", head.uri.path()))))
        .on(Matcher::ANY, Answer::ok("any").repeat());
    let client = client(&origin);
    for (method, target, body) in [
        ("GET", "/p/1?q=2", "first"),
        ("PUT", "/p/1", "second"),
        ("POST", "/p/1", "posted"),
        ("POST", "/p/1", "any"),
        ("PUT", "/x", "put"),
        ("GET", "/files/a/b", "1 /files/a/b"),
        ("GET", "/files/c", "2 /files/c"),
        ("GET", "/", "any"),
    ] {
        client.request(method, target).send().await.expect_status(200).expect_body(body);
    }
    assert_eq!((origin.calls(), origin.calls_of("/p/{id}"), origin.calls_of("POST /p/{id}")), (8, 2, 1));
    assert_eq!(origin.calls_of("/files/{*rest}"), 2);
    assert_eq!(origin.requests().len(), 8);
    assert_eq!((origin.request(3).method, origin.last_request().uri.path()), (Method::POST, "/"));
}

#[tokio::test]
async fn an_unscripted_request_gets_a_500_and_fails_the_test() {
    let origin = ScriptedOrigin::strict()
        .on("/p/{id}", Answer::ok("once"))
        .on("/list", [Answer::ok("1"), Answer::ok("2"), Answer::ok("3")])
        .on("/again", Answer::ok("first").then(Answer::ok("then")).repeat())
        .on("/never", Script::from_fn(|_, _| Answer::ok("")));
    let client = client(&origin);
    for target in ["/p/1", "/list", "/list", "/again"] {
        client.get(target).send().await.expect_status(200);
    }
    client.post("/nowhere?a=1").send().await.expect_status(500).expect_body("unscripted: POST /nowhere?a=1");
    let seen = client.get("/p/2").send().await;
    seen.expect_status(500).expect_body("unscripted: GET /p/2, which has no answer left");
    client.get("/p/2").send().await;
    let expected = "the origin was not asked as its script says:\n\
        unscripted: GET /p/2, which has no answer left (2 times)\n\
        unscripted: POST /nowhere?a=1\n\
        `/list` gave 2 of its 3 answers\n\
        `/again` gave 1 of its 2 answers\n\
        `/never` was never asked for";
    assert_eq!(mistake(|| origin.verify()), expected);
    // A clone says nothing, and the origin itself says it when it is dropped.
    drop(origin.clone());
    assert_eq!(mistake(move || drop(origin)), expected);
}

#[tokio::test]
async fn a_script_is_met_when_each_answer_was_given() {
    let origin = ScriptedOrigin::strict().on("/", Answer::ok("1").then(Answer::ok("2")).repeat());
    for body in ["1", "2", "2", "2"] {
        client(&origin).get("/").send().await.expect_body(body);
    }
    origin.verify();
}

#[test]
fn an_origin_that_is_dropped_by_a_panic_adds_none() {
    let origin = ScriptedOrigin::strict().on("/", Answer::ok(""));
    let said = mistake(move || {
        let _origin = origin;
        panic!("the test failed");
    });
    assert_eq!(said, "the test failed");
}

#[test]
fn a_mistake_in_a_script_is_an_error_at_once() {
    let strict = ScriptedOrigin::strict;
    let ok = || Answer::ok("x");
    let mistakes = [
        (mistake(|| strict().on("p/{id}", ok())), "`p/{id}` is not a pattern: a path begins with `/`"),
        (mistake(|| strict().on("/p/{id", ok())), "`/p/{id` is not a pattern: "),
        (mistake(|| strict().on("/p", [])), "the script for `/p` has no answers"),
        (mistake(|| strict().on(Matcher::ANY, vec![])), "the script for `any request` has no answers"),
        (
            mistake(|| ScriptedOrigin::always(ok).on("/p", ok())),
            "this origin answers all requests by its function: a script needs `ScriptedOrigin::strict()`",
        ),
        (mistake(|| ok().repeat().then(ok())), "an answer after one that repeats would never be given"),
        (mistake(|| Script::from_fn(move |_, _| ok()).then(ok())), "an answer after one that repeats"),
        (mistake(|| Script::from([]).repeat()), "there is no answer to repeat"),
        (
            mistake(|| Answer::with_body("x").repeat()),
            "an answer `with_body` can be given once; write `Script::from_fn` instead",
        ),
        (mistake(|| ok().status(99)), "99 is not a status code"),
        (mistake(|| ok().header("a b", "")), "\"a b\" is not a field name"),
        (mistake(|| ok().header("a", "\n")), "a: \"\\n\" is not a field value"),
        (mistake(|| Answer::with_body("x").chunk("y")), "a piece of a body is scripted beside TestBody {"),
        (mistake(|| Answer::endless("x", ms(1)).cut()), "nothing comes after an endless body"),
        (mistake(|| Answer::endless("", ms(1))), "an endless body needs a chunk and a pause after it"),
        (mistake(|| Answer::endless("x", ms(0))), "an endless body needs a chunk and a pause after it"),
        (mistake(|| Answer::endless("x", ms(1)).drip(1, ms(1))), "an endless body has its own pace"),
        (mistake(|| ok().drip(0, ms(1))), "a chunk of a dripping body has at least one byte"),
        (mistake(|| ok().after(ms(1)).into_response()), "Answer {"),
        (mistake(|| strict().calls_of("/p")), "there is no script for `/p`, but for "),
        (mistake(|| strict().request(1)), "request 1 is asked for, of 0"),
        (mistake(|| strict().last_request()), "the last request is asked for, and there was none"),
        (
            mistake(|| ScriptedOrigin::unrecorded(move |_, _| ok()).requests()),
            "a request is asked for, and this origin records none",
        ),
    ];
    for (said, expected) in mistakes {
        assert!(said.starts_with(expected), "{said:?} begins with {expected:?}");
    }
}

#[tokio::test]
async fn an_origin_keeps_the_heads_of_ten_thousand_requests() {
    let origin = ScriptedOrigin::always(|| Answer::ok(""));
    for number in 1..=10_002 {
        client(&origin).get(&format!("/{number}")).send().await;
    }
    assert_eq!((origin.calls(), origin.requests().len()), (10_002, 10_000));
    assert_eq!(origin.request(10_000).uri.path(), "/10000");
    assert_eq!(origin.last_request().uri.path(), "/10002");
}

#[tokio::test(start_paused = true)]
async fn answers_take_their_time_fail_hang_and_panic() {
    let origin = ScriptedOrigin::strict()
        .on("/", vec![Answer::ok("late").after(secs(2)), Answer::error(), Answer::panics(), Answer::never()]);
    let client = client(&origin);
    let start = Instant::now();
    client.get("/").send().await.expect_body("late");
    assert_eq!(start.elapsed(), secs(2));
    assert_eq!(client.get("/").try_send().await.map(drop), Err(Failure));
    assert_eq!(mistake_of(client.get("/").try_send()).await, "the origin panics, as the script says");
    let start = Instant::now();
    assert!(client.get("/").drop_after(DropAfter::Time(secs(60))).await.is_none());
    assert_eq!((start.elapsed(), origin.under_way()), (secs(60), 0));
}

#[tokio::test(start_paused = true)]
async fn bodies_are_cut_drip_and_never_end() {
    let origin = ScriptedOrigin::strict()
        .on("/cut", Answer::ok("0123").chunk("4567").cut_after(6))
        .on("/short", Answer::ok("0123").trailer("a", "b").cut_after(9))
        .on("/none", Answer::ok("0123").cut_after(0))
        .on("/drip", Answer::ok("0123456789").drip(4, secs(1)))
        .on("/both", Answer::ok("0123456789").drip(4, secs(1)).cut_after(6))
        .on("/endless", Answer::endless("abc", secs(1)).repeat())
        .on("/endless-cut", Answer::endless("abc", secs(1)).cut_after(7))
        .on("/trailers", Answer::ok("x").trailer("a", "b"));
    let client = client(&origin);
    for (target, body, is_cut, seconds) in [
        ("/cut", "012345", true, 0),
        ("/short", "0123", true, 0),
        ("/none", "", true, 0),
        ("/drip", "0123456789", false, 2),
        ("/both", "012345", true, 1),
        ("/endless-cut", "abcabca", true, 2),
        ("/trailers", "x", false, 0),
    ] {
        let start = Instant::now();
        let seen = client.get(target).send().await;
        let expected = (body.as_bytes(), is_cut, secs(seconds));
        assert_eq!((&seen.body[..], seen.is_cut, start.elapsed()), expected, "{target}");
        assert_eq!(seen.trailers.is_some(), target == "/trailers", "{target}");
    }
    let seen = client.get("/endless").drop_after(DropAfter::Bytes(10)).await.expect("a head");
    assert_eq!(seen.body, "abcabcabcabc");
    assert!(client.get("/endless").drop_after(DropAfter::Time(secs(10))).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_gate_holds_calls_until_it_is_opened() {
    let origin = ScriptedOrigin::new(|call, _| Answer::ok(call.to_string()));
    let client = client(&origin);
    let gate = origin.hold();
    let calls = tokio::spawn(client.get("/").burst(5));
    gate.waiting(5).await;
    assert_eq!((gate.calls_waiting(), origin.under_way(), origin.most_under_way()), (5, 5, 5));
    gate.pass(2);
    settle().await;
    assert_eq!((gate.calls_waiting(), origin.under_way()), (3, 3));
    // A client that goes away waits no longer.
    assert!(client.get("/").drop_after(DropAfter::Time(ms(1))).await.is_none());
    assert_eq!(gate.calls_waiting(), 3);
    gate.open();
    assert_eq!(calls.await.unwrap().len(), 5);
    client.get("/").send().await.expect_body("7");

    let late = origin.hold();
    let said = mistake_of(late.waiting(1)).await;
    assert_eq!(said, "1 calls were to wait at the gate within a minute, and 0 do");
    drop(late);
    client.get("/").send().await.expect_body("8");
}

#[tokio::test(start_paused = true)]
async fn a_client_sees_the_decision() {
    let origin = ScriptedOrigin::strict()
        .on(
            "/page",
            Answer::ok("page").header("cache-control", "max-age=10, stale-while-revalidate=60").repeat(),
        )
        .on("/alone", Answer::ok("alone").header("cache-control", "no-store"));
    let client = Client::new(stack(ttl()).layer(origin.clone()));
    let miss = client.get("/page").send().await;
    miss.expect_miss(Forward::UriMiss).expect_stored();
    let hit = client.get("/page").send().await;
    hit.expect_hit().expect_status(200).expect_body("page");
    assert_eq!((miss.is_hit(), hit.is_hit(), miss.age(), hit.age()), (false, true, None, Some(0)));
    time::pass(secs(11)).await;
    let stale = client.get("/page").send().await;
    stale.expect_stale(Stale::WhileRevalidating);
    assert!(
        mistake(|| stale.expect_hit()).starts_with("GET /page must be a hit, and is `hit; detail=stale-")
    );
    client.get("/alone").send().await.expect_not_stored(NotStored::NoStore);
    let follows = ReadThroughLayer::builder(store()).lookup(|lookup| lookup.request_directives(true)).build();
    let asked = Client::new(follows.expect("a stack").layer(origin.clone()));
    let asked = asked.header("cache-control", "only-if-cached").get("/nothing").send().await;
    asked.expect_refused(Refused::NotStored).expect_status(504);
    let without_host = Client::new(stack(ttl()).layer(ScriptedOrigin::always(|| Answer::ok("")))).host("");
    without_host.get("/").send().await.expect_unkeyed(Unkeyed::NoHost);
    without_host.clone().header("host", "h").get("/").send().await.expect_miss(Forward::UriMiss);
    let failing = ScriptedOrigin::strict().on("/", Answer::ok("old").max_age(1).then(Answer::error()));
    let rescued = Client::new(stack(ttl()).layer(failing.clone()));
    rescued.get("/").send().await;
    time::pass(secs(2)).await;
    let rescued = rescued.get("/").send().await;
    rescued.expect_stale(Stale::IfError).expect_body("old");
    assert!(
        mistake(|| rescued.expect_miss(Forward::Stale))
            .contains("must be a miss, `fwd=stale`, and is `fwd=stale; ")
    );
    let burst = client.get("/page?2").burst(3).await;
    burst[0].expect_miss(Forward::UriMiss);
    burst[2].expect_collapsed();
    settle().await;
}

#[tokio::test]
async fn a_failed_assertion_says_all_of_the_decision_in_one_line() {
    let origin = ScriptedOrigin::always(|| Answer::ok("hello").header("cache-control", "max-age=60"));
    let client = Client::new(stack(ttl()).layer(origin.clone()));
    let miss = client.get("/p/1").send().await;
    let hit = client.get("/p/1").send().await;
    let found = "is `fwd=uri-miss`: 200 with \"hello\"";
    for (said, expected) in [
        (mistake(|| miss.expect_hit()), "be a hit"),
        (mistake(|| miss.expect_stale(Stale::IfError)), "be stale, `stale-if-error`"),
        (mistake(|| miss.expect_miss(Forward::Stale)), "be a miss, `fwd=stale`"),
        (mistake(|| miss.expect_not_stored(NotStored::Private)), "not be stored, `private`"),
        (mistake(|| miss.expect_collapsed()), "be collapsed"),
        (mistake(|| miss.expect_unkeyed(Unkeyed::NoHost)), "have no key, `no-host`"),
        (mistake(|| miss.expect_refused(Refused::QueueFull)), "be refused, `queue-full`"),
        (mistake(|| miss.expect_status(404)), "have the status 404"),
        (mistake(|| miss.expect_body("bye")), "have the body \"bye\""),
    ] {
        assert_eq!(said, format!("GET /p/1 must {expected}, and {found}"));
    }
    let found = "is `hit`: 200 with \"hello\"";
    for (said, expected) in [
        (mistake(|| hit.expect_miss(Forward::UriMiss)), "be a miss, `fwd=uri-miss`"),
        (mistake(|| hit.expect_stored()), "be stored"),
    ] {
        assert_eq!(said, format!("GET /p/1 must {expected}, and {found}"));
    }
    let alone = Seen::of(Answer::ok("x".repeat(100)).cut().into_response()).await;
    assert_eq!(
        mistake(|| alone.expect_hit()),
        format!(
            "the response must be a hit, and is `not asked`: 200 with \"{}\" and 20 bytes more, which is cut",
            "x".repeat(80)
        )
    );
    assert!(mistake(|| alone.expect_body("x".repeat(100))).contains("which is cut"));
}

#[tokio::test]
async fn a_failed_request_says_where_it_was_sent() {
    let origin = ScriptedOrigin::always(Answer::error);
    let client = client(&origin);
    let line = line!() + 1;
    let said = mistake_of(client.get("/").send()).await;
    let expected =
        format!("GET / must have a response, and the service failed: Failure (sent at {}:{line}:", file!());
    assert!(said.starts_with(&expected), "{said}");
    assert!(mistake_of(client.get("/").burst(2)).await.starts_with("GET / must have a response"));
    assert!(mistake_of(client.get("/").drop_after(DropAfter::Head)).await.starts_with("GET / must have"));
    assert_eq!(mistake(|| client.request("G T", "/")), "\"G T\" is not a method");
    assert!(mistake(|| client.get("/ ")).starts_with("\"/ \" is not a target: "));
    assert_eq!(mistake(|| client.get("/").header("a b", "")), "\"a b\" is not a field name");
    assert_eq!(mistake(|| client.clone().header("a", "\n")), "a: \"\\n\" is not a field value");
}

#[tokio::test]
async fn a_client_drops_at_the_head_and_sends_bodies() {
    let (sender, body) = TestBody::fed();
    let origin = ScriptedOrigin::strict().on("/", Answer::with_body(body));
    let seen = client(&origin).get("/").drop_after(DropAfter::Head).await.expect("a head");
    assert_eq!((seen.status.as_u16(), seen.body.len()), (200, 0));
    sender.closed().await;
    let echo = ScriptedOrigin::with_future(|_, request| async {
        Answer::with_body(Seen::of(http::Response::new(request.into_body())).await.body)
    });
    let text: Client<_, http_body_util::Full<bytes::Bytes>> = Client::with_body(echo.clone());
    text.post("/").body("sent").header("a", "b").send().await.expect_body("sent");
    assert_eq!(echo.last_request().headers["a"], "b");
}

#[tokio::test]
async fn a_client_sends_what_it_is_told_and_shows_what_came_back() {
    let origin = ScriptedOrigin::with_future(|call, request| async move {
        let said = format!("{call} {} {}", request.method(), request.uri());
        Answer::ok(said).header("age", "7").header("x", "first").header("x", "last").extension(call)
    });
    let client = client(&origin).header("a", "1").header("a", "2");
    let seen = client.get("/g").header("b", "3").header("b", "4").send().await;
    seen.expect_body("1 GET http://example.com/g");
    assert_eq!((seen.header("x"), seen.header("y"), seen.age()), (Some("first"), None, Some(7)));
    assert_eq!((seen.headers.get_all("x").iter().count(), seen.extensions.get()), (2, Some(&1_usize)));
    assert_eq!((seen.is_hit(), seen.cache().as_str()), (false, "not asked"));
    let head = origin.last_request();
    let count = |name| head.headers.get_all(name).iter().count();
    assert_eq!((count("a"), count("b")), (2, 2));
    client.head("/h").send().await.expect_body("2 HEAD http://example.com/h");
    client.request("PUT", "http://other/p").send().await.expect_body("3 PUT http://other/p");
    let posted = client.post("/q").try_send().await.expect("a response");
    assert!(mistake(|| posted.expect_status(404)).starts_with("POST /q must have the status 404"));
}

#[tokio::test]
async fn an_origin_counts_the_calls_of_a_pattern_and_the_most_at_a_time() {
    let origin = ScriptedOrigin::strict()
        .on("/a", Answer::ok("1"))
        .on("/a", Answer::ok("2"))
        .on("POST /b", Answer::ok("posted"))
        .on("/b", Answer::ok("got"))
        .on("/c", Answer::ok("").repeat());
    let client = client(&origin);
    client.get("/a").send().await.expect_body("1");
    client.get("/a").send().await.expect_body("2");
    client.get("/b").send().await.expect_body("got");
    client.post("/b").send().await.expect_body("posted");
    assert_eq!((origin.calls_of("/a"), origin.calls_of("/b"), origin.calls_of("POST /b")), (2, 1, 1));
    let gate = origin.hold();
    let burst = tokio::spawn(client.get("/c").burst(3));
    gate.waiting(3).await;
    gate.open();
    burst.await.expect("responses");
    assert_eq!((origin.under_way(), origin.most_under_way()), (0, 3));
}

#[tokio::test]
async fn a_body_says_its_length_and_its_sender_whether_it_is_read() {
    assert_eq!(TestBody::from("four").size_hint().exact(), Some(4));
    assert_eq!(Answer::ok("four").into_response().body().size_hint().exact(), None);
    assert_eq!(Answer::ok("four").declares(9).into_response().body().size_hint().exact(), Some(9));
    let (sender, body) = TestBody::fed();
    assert!(!sender.is_closed() && sender.send("half") && sender.fail());
    let seen = Seen::of(http::Response::new(body)).await;
    assert_eq!((&seen.body[..], seen.is_cut), (&b"half"[..], true));
    assert!(sender.is_closed() && !sender.send("more") && !sender.fail());
    let (sender, body) = TestBody::fed();
    let closed = sender.closed();
    let mut closed = std::pin::pin!(closed);
    assert!(closed.as_mut().now_or_never().is_none());
    drop(body);
    closed.await;
}

#[tokio::test(start_paused = true)]
async fn time_passes_timer_by_timer_to_the_nanosecond() {
    let start = Instant::now();
    let (sender, mut fired) = tokio::sync::mpsc::unbounded_channel();
    // Each timer sets off another one, which is due before the time is over.
    tokio::spawn(async move {
        for tick in 1..=10_u32 {
            tokio::time::sleep(ms(300)).await;
            _ = sender.send((tick, start.elapsed()));
        }
    });
    time::pass(Duration::from_nanos(1_000_000_123)).await;
    assert_eq!(start.elapsed(), Duration::from_nanos(1_000_000_123));
    let mut ticks = Vec::new();
    while let Ok(tick) = fired.try_recv() {
        ticks.push(tick);
    }
    assert_eq!(ticks, [(1, ms(300)), (2, ms(600)), (3, ms(900))]);
    time::pass(Duration::ZERO).await;
    time::pass(Duration::from_nanos(1)).await;
    assert_eq!(start.elapsed(), Duration::from_nanos(1_000_000_124));
    let origin = ScriptedOrigin::always(|| Answer::ok(""));
    let client = Client::new(stack(fixed(50)).layer(origin.clone()));
    client.get("/").send().await;
    time::pass(Duration::from_nanos(49_999_999)).await;
    client.get("/").send().await.expect_hit();
    time::pass(Duration::from_nanos(1)).await;
    client.get("/").send().await.expect_miss(Forward::Stale);
    let said = mistake_of(time::pass(Duration::MAX)).await;
    assert!(said.ends_with("is longer than tokio's clock can run"), "{said}");
}

#[tokio::test]
async fn time_that_is_not_paused_does_not_pass() {
    let said = mistake_of(time::pass(ms(1))).await;
    assert!(
        said.starts_with("time can only be made to pass where it is paused: write `#[tokio::test("),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_brings_the_same_faults() {
    let outcomes = async |seed: u64| {
        let origin = ScriptedOrigin::always(|| Answer::ok("0123456789"));
        let faults = FaultsLayer::seeded(seed)
            .error_status(0.2, 503)
            .service_error(0.2, || Failure)
            .delay(0.3, ms(1)..=ms(500))
            .hang(0.1)
            .cut_body(0.3)
            .build()
            .expect("faults that can work");
        let service = faults.layer(origin.clone());
        let mut outcomes = Vec::new();
        for _ in 0..400 {
            let start = Instant::now();
            let reply = tokio::time::timeout(secs(10), try_send(&service, get_request("/"))).await;
            let what = match reply {
                Err(_) => "hangs".to_owned(),
                Ok(Err(Failure)) => "fails".to_owned(),
                Ok(Ok(reply)) => format!("{} {:?} {}", reply.status, reply.body, reply.is_cut),
            };
            outcomes.push((what, start.elapsed()));
        }
        let injected = faults.injected();
        let count =
            |what: &str| outcomes.iter().filter(|(outcome, _)| outcome.starts_with(what)).count() as u64;
        let cut = outcomes.iter().filter(|(outcome, _)| outcome.ends_with("true")).count() as u64;
        let late =
            outcomes.iter().filter(|(outcome, took)| outcome != "hangs" && !took.is_zero()).count() as u64;
        assert_eq!((injected.hangs, injected.errors), (count("hangs"), count("fails")));
        assert_eq!((injected.statuses, injected.cuts), (count("503"), cut));
        assert!((late..=late + injected.hangs).contains(&injected.delays), "{injected:?}");
        // By five times the standard deviation.
        for (found, rate) in [(injected.hangs, 0.1), (injected.errors, 0.9 * 0.2), (injected.delays, 0.3)] {
            let deviation = f64::sqrt(400.0 * rate * (1.0 - rate));
            assert!((found as f64 - 400.0 * rate).abs() < 5.0 * deviation, "{found} at a rate of {rate}");
        }
        assert_eq!(origin.calls() as u64, 400 - injected.hangs - injected.errors - injected.statuses);
        outcomes
    };
    let first = outcomes(1).await;
    assert_eq!(first, outcomes(1).await);
    assert_ne!(first, outcomes(2).await);
}

#[test]
fn faults_that_cannot_work_are_refused() {
    let faults = || FaultsLayer::seeded(1);
    for (refused, expected) in [
        (faults().build(), "all rates are 0: no fault would ever happen"),
        (faults().hang(1.5).build(), "the rate of `hang` is from 0 to 1, and not 1.5"),
        (faults().cut_body(f64::NAN).build(), "the rate of `cut_body` is from 0 to 1, and not NaN"),
        (faults().error_status(0.1, 200).build(), "`error_status` is from 400 to 599, and not 200"),
        (faults().error_status(0.1, 9).build(), "`error_status` is from 400 to 599, and not 9"),
        (faults().delay(0.1, ms(2)..=ms(1)).build(), "the range of `delay` is empty"),
    ] {
        assert_eq!(refused.map(drop).expect_err(expected).to_string(), expected);
    }
}

#[cfg(feature = "serde")]
#[test]
fn key_rules_are_checked_against_a_table() {
    use tower_readthrough::{
        KeyRules, RuleTable,
        testing::{check_rules, check_rules_file},
    };

    let rules: KeyRules = serde_json::from_str(r#"{"rules": [{"path": "/p", "fixed_ttl": "2s"}]}"#).unwrap();
    let table = |ttl: &str| -> RuleTable {
        let rows = format!(r#"{{"host": "h", "rows": [{{"request": "GET /p", "ttl": "{ttl}"}}]}}"#);
        serde_json::from_str(&rows).unwrap()
    };
    check_rules(&rules, &table("2s"));
    let expected = "the table is not met in 1 point:\nrow 0 (`GET /p`): `ttl` must be 3s, and is 2s";
    assert_eq!(mistake(|| check_rules(&rules, &table("3s"))), expected);
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rules");
    check_rules_file(directory.join("drupal.json"), directory.join("drupal.table.json"));
    let said = mistake(|| check_rules_file(directory.join("none.json"), directory.join("none.json")));
    assert!(said.contains("none.json cannot be read: "), "{said}");
    let said = mistake(|| check_rules_file("Cargo.toml", "Cargo.toml"));
    assert!(said.starts_with("Cargo.toml is no `KeyRules`: "), "{said}");
}
