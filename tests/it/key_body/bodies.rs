//! Which bodies are in a key, and how long they may be.

use super::*;

#[tokio::test]
async fn each_body_costs_the_origin_one_request() {
    let origin = ScriptedOrigin::with_future(|_, request| async move { response(&[], request.into_body()) });
    let stack = stack(&origin);
    for n in 0..1000 {
        let body = format!("body {}", n % 10);
        assert_eq!(ask(&stack, post_of(body.clone())).await, body);
    }
    assert_eq!(origin.calls(), 10);
}

#[tokio::test]
async fn requests_that_differ_in_their_key_have_entries_of_their_own() {
    let (origin, json) = (echo(), ("content-type", "application/json"));
    let stack = stack(&origin);
    let all = || {
        [
            post_of("a"),
            post_of("b"),
            post_of(""),
            request("POST", SEARCH, &[json], "a"),
            request("POST", SEARCH, &[("content-type", "text/plain")], "a"),
            request("POST", SEARCH, &[("content-encoding", "gzip")], "a"),
            request("POST", SEARCH, &[("content-language", "de")], "a"),
            request("POST", SEARCH, &[("content-type", "x"), ("content-type", "y")], "a"),
            request("QUERY", SEARCH, &[], "a"),
            request("POST", "http://h/search?page=2", &[], "a"),
            request("POST", "http://other/search", &[], "a"),
            get_request(SEARCH),
        ]
    };
    let first = ask_all(&stack, all()).await;
    assert_eq!(first[0], "1 POST a");
    assert_eq!(first[2], "3 POST ");
    assert_eq!(first[8], "9 QUERY a");
    assert_eq!(first[11], "12 GET ");
    assert_eq!(ask_all(&stack, all()).await, first, "and each is served again");
    assert_eq!(origin.calls(), all().len());
}

#[tokio::test]
async fn the_framing_of_a_body_does_not_change_its_key() {
    let origin = echo();
    let stack = stack(&origin);
    let first = ask(&stack, post_of("abc")).await;
    assert_eq!(ask(&stack, post_of(pieces(["a", "", "bc"]))).await, first);
    assert_eq!(ask(&stack, request("POST", SEARCH, &[("content-length", "3")], "abc")).await, first);
    assert_eq!(origin.calls(), 1);
}

#[tokio::test]
async fn a_body_of_just_the_bound_has_a_key_and_a_longer_one_passes_intact() {
    let origin = echo();
    let stack = stack(&origin);
    let (fits, beyond) = ("x".repeat(BOUND), "x".repeat(BOUND + 1));
    for _ in 0..2 {
        assert_eq!(ask(&stack, post_of(fits.clone())).await, format!("1 POST {fits}"));
    }
    for n in [2, 3] {
        assert_eq!(ask(&stack, post_of(beyond.clone())).await, format!("{n} POST {beyond}"));
    }
    let half = || Bytes::from("x".repeat(BOUND / 2));
    for n in [4, 5] {
        let unknown = stream::iter([Ok::<_, Infallible>(half()), Ok(half()), Ok(Bytes::from("y"))]);
        let answer = ask(&stack, post_of(crate::streamed(unknown))).await;
        assert_eq!(answer, format!("{n} POST {fits}y"));
    }
}

/// A body longer than the bound is not waited for.
#[tokio::test(start_paused = true)]
async fn a_long_body_streams_to_the_origin() {
    let origin = ScriptedOrigin::with_future(|_, request| async move {
        let mut body = request.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        response(&[], first)
    });
    let stack = stack(&origin);
    let begin = Bytes::from("x".repeat(BOUND));
    let endless =
        stream::iter([Ok::<_, Infallible>(begin.clone()), Ok(Bytes::from("y"))]).chain(stream::pending());
    assert_eq!(call(&stack, post_of(crate::streamed(endless))).await, (StatusCode::OK, begin));
}

/// A body of known length that has not arrived yet.
struct Announced;

impl http_body::Body for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(BOUND as u64 + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_declared_longer_than_the_bound_is_not_read() {
    let stack = stack(&ScriptedOrigin::with_future(|_, _| async { status(204) }));
    let by_header = request(
        "POST",
        SEARCH,
        &[("content-length", "65")],
        crate::streamed(stream::pending::<Result<Bytes, Infallible>>()),
    );
    for request in [by_header, post_of(Body::new(Announced))] {
        let answer = tokio::time::timeout(ms(10), call(&stack, request)).await;
        assert_eq!(answer.expect("not waited for").0, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn a_body_that_fails_is_passed_on_with_its_error_and_not_stored() {
    let origin = echo();
    let stack = stack(&origin);
    let broken = || {
        let failing = stream::iter([Ok("ab"), Err(std::io::Error::other("gone"))]);
        post_of(crate::streamed(failing))
    };
    let short = || request("POST", SEARCH, &[("content-length", "3")], pieces(["ab"]));
    assert_eq!(ask_all(&stack, [broken(), broken()]).await, ["1 POST gone", "2 POST gone"]);
    assert_eq!(ask_all(&stack, [short(), short()]).await, ["3 POST ab", "4 POST ab"]);
    assert_eq!(ask(&stack, post_of("ab")).await, "5 POST ab");
}

#[tokio::test]
async fn a_body_with_trailers_is_passed_on_with_them_and_not_stored() {
    let origin = ScriptedOrigin::with_future(|_, request| async move {
        let body = request.into_body().collect().await.unwrap();
        let trailer = body.trailers().map_or_else(String::new, |fields| format!("{:?}", fields["x-sum"]));
        response(&[], format!("{}{trailer}", text(&body.to_bytes())))
    });
    let stack = stack(&origin);
    for _ in 0..2 {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from("ab"))), Ok(Frame::trailers(trailers))];
        let body = Body::new(StreamBody::new(stream::iter(frames)));
        assert_eq!(ask(&stack, post_of(body)).await, "ab\"1\"");
    }
    assert_eq!(origin.calls(), 2);
}

#[tokio::test]
async fn conditions_ranges_upgrades_and_hidden_methods_are_left_to_the_origin() {
    let origin = echo();
    let stack = stack(&origin);
    ask(&stack, post_of("a")).await;
    let fields: [Fields; 7] = [
        &[("if-none-match", "*")],
        &[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")],
        &[("if-match", "\"a\"")],
        &[("range", "bytes=0-0")],
        &[("if-range", "\"a\"")],
        &[("connection", "upgrade"), ("upgrade", "websocket")],
        &[("x-http-method-override", "DELETE")],
    ];
    for (n, fields) in fields.into_iter().enumerate() {
        assert_eq!(ask(&stack, request("POST", SEARCH, fields, "a")).await, format!("{} POST a", n + 2));
    }
    let http2 = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c")];
    for _ in 0..2 {
        assert_eq!(ask(&stack, request("POST", SEARCH, &http2, "a")).await, "9 POST a", "it is stored");
    }
}

#[tokio::test]
async fn a_key_set_by_the_application_does_not_hold_the_body() {
    let origin = echo();
    let stack = stack(&origin);
    for n in [1, 2] {
        let mut request = post_of("a");
        request.extensions_mut().insert(CacheKey::new("mine"));
        assert_eq!(ask(&stack, request).await, format!("{n} POST a"));
    }
}
