//! Ranges, parts, and heads that the cache makes itself.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Method;
use http_body::{Frame, SizeHint};
use tower::{Layer, ServiceBuilder};
use tower_readthrough::{
    Fill, FillLayer, Lookup, LookupLayer, MemoryStore, ReadThrough, ReadThroughLayer, RetryPolicy, Rules,
    StoreLayer,
};

use crate::support::{
    Body, Reply, ScriptedOrigin, ScriptedResponse, get, get_with, ok, request, secs, send, settle, status,
};

type Stack = ReadThrough<ScriptedOrigin, MemoryStore>;
type Single = Lookup<Fill<ScriptedOrigin, MemoryStore>, MemoryStore>;

fn store() -> MemoryStore {
    MemoryStore::with_capacity_bytes(64 << 20)
}

fn stack(origin: &ScriptedOrigin) -> Stack {
    let layer = ReadThroughLayer::builder(store()).rules(rules()).retry(RetryPolicy::never());
    layer.build().unwrap().layer(origin.clone())
}

fn single(origin: &ScriptedOrigin) -> Single {
    StoreLayer::new(store()).rules(rules()).layer(origin.clone())
}

/// A lifetime that does not depend on the age of a response.
fn rules() -> Rules {
    Rules::new().fixed_ttl(secs(600))
}

// Heads that the cache makes itself.

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

/// Every field that says something about the content, the representation, or its use.
const FIELDS: [(&str, &str); 24] = [
    ("etag", "\"1\""),
    ("last-modified", MODIFIED),
    ("vary", "accept-encoding"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-origin", "*"),
    ("x-app", "1"),
    ("cache-control", "public, max-age=600"),
    ("cdn-cache-control", "max-age=600"),
    ("other-cache-control", "max-age=600"),
    ("surrogate-control", "max-age=600"),
    ("expires", "Sun, 06 Nov 2094 08:49:37 GMT"),
    ("pragma", "x"),
    ("warning", "199 - x"),
    ("age", "7"),
    ("content-location", "/there"),
    ("content-disposition", "inline"),
    ("content-type", "text/plain"),
    ("content-language", "en"),
    ("content-encoding", "br"),
    ("content-md5", "x"),
    ("content-digest", "sha-256=:eA==:"),
    ("repr-digest", "sha-256=:eA==:"),
    ("digest", "sha-256=x"),
    ("trailer", "x-sum"),
];

/// Those that stay in each kind of head: all but these.
const WITHOUT: [(&str, &[&str]); 5] = [
    ("206", &["content-md5", "content-digest", "trailer"]),
    ("multipart", &["content-md5", "content-digest", "trailer", "content-encoding", "content-type"]),
    (
        "304",
        &[
            "content-type",
            "content-language",
            "content-encoding",
            "content-md5",
            "content-digest",
            "repr-digest",
            "digest",
            "trailer",
        ],
    ),
    ("412", ERROR),
    ("416", ERROR),
];

const ERROR: &[&str] = &[
    "cache-control",
    "cdn-cache-control",
    "other-cache-control",
    "surrogate-control",
    "expires",
    "pragma",
    "warning",
    "age",
    "content-location",
    "content-disposition",
    "content-type",
    "content-language",
    "content-encoding",
    "content-md5",
    "content-digest",
    "repr-digest",
    "digest",
    "trailer",
];

/// The request that leads to each kind of head, by method.
type Ask = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const ASKS: [Ask; 9] = [
    ("206", "GET", &[("range", "bytes=2-4")]),
    ("206", "GET", &[("range", "bytes=-3"), ("if-range", "\"1\"")]),
    ("304", "GET", &[("if-none-match", "\"1\"")]),
    ("304", "HEAD", &[("if-none-match", "\"1\"")]),
    ("304", "GET", &[("if-modified-since", MODIFIED), ("range", "bytes=2-4")]),
    ("412", "GET", &[("if-match", "\"2\"")]),
    ("412", "HEAD", &[("if-match", "\"2\"")]),
    ("412", "GET", &[("if-unmodified-since", EARLIER), ("range", "bytes=2-4")]),
    ("416", "GET", &[("range", "bytes=10-")]),
];

fn described(body: &'static str) -> ScriptedResponse {
    let answer = ok(body).trailer("x-sum", "1").declares(body.len() as u64).header("date", EARLIER);
    FIELDS.into_iter().fold(answer, |answer, (name, value)| answer.header(name, value))
}

/// Compares the fields of a head with the table, one by one.
fn check(kind: &str, reply: &Reply, case: &str) {
    let (_, without) = WITHOUT.into_iter().find(|(of, _)| *of == kind).unwrap();
    for (name, value) in FIELDS {
        let found = reply.header(name);
        match without.contains(&name) {
            true if (kind, name) == ("multipart", "content-type") => {}
            true => assert_eq!(found, None, "{case}: {name}"),
            false if name == "age" => assert!(found.is_some(), "{case}: {name}"),
            false => assert_eq!(found, Some(value), "{case}: {name}"),
        }
    }
    let length = match (kind, reply.status.as_u16()) {
        ("304", _) => None,
        _ => Some(reply.body.len().to_string()),
    };
    assert_eq!(reply.header("content-length"), length.as_deref(), "{case}");
    assert_eq!(reply.header("transfer-encoding"), None, "{case}");
    assert_eq!(reply.header("date") == Some(EARLIER), !matches!(kind, "412" | "416"), "{case}");
    assert!(reply.header("date").is_some() && reply.header("cache-status").is_some(), "{case}");
    assert!(reply.trailers.is_none(), "{case}: {:?}", reply.trailers);
    let has_range = reply.headers.contains_key("content-range");
    assert_eq!(has_range, matches!(kind, "206" | "416"), "{case}");
}

#[tokio::test(start_paused = true)]
async fn heads_made_of_a_stored_response_say_what_is_true_of_them() {
    for (kind, method, fields) in ASKS {
        let origin = ScriptedOrigin::always(|| described("abcdefghij"));
        for reply in [
            {
                let service = stack(&origin);
                get(&service, "/").await;
                send(&service, request(method, "/", fields)).await
            },
            {
                let service = single(&origin);
                get(&service, "/").await;
                send(&service, request(method, "/", fields)).await
            },
        ] {
            let case = format!("{kind}: {method} {fields:?}");
            assert_eq!(reply.status.as_str(), kind, "{case}");
            assert!(reply.is_hit(), "{case}");
            check(kind, &reply, &case);
        }
        assert_eq!(origin.calls(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn heads_made_of_a_fetched_response_say_what_is_true_of_them() {
    for (kind, method, fields) in ASKS {
        // A range alone goes to the origin as it is.
        let has_range_alone = fields.iter().all(|(name, _)| matches!(*name, "range" | "if-range"));
        if has_range_alone || method == "HEAD" {
            continue;
        }
        let fields: Vec<_> = fields.iter().filter(|(name, _)| *name != "range").copied().collect();
        let origin = ScriptedOrigin::always(|| described("abcdefghij"));
        for reply in [
            send(&stack(&origin), request(method, "/", &fields)).await,
            send(&single(&origin), request(method, "/", &fields)).await,
        ] {
            let case = format!("{kind}: {method} {fields:?}");
            assert_eq!(reply.status.as_str(), kind, "{case}");
            assert!(!reply.is_hit(), "{case}");
            check(kind, &reply, &case);
        }
        assert_eq!((origin.calls(), origin.last_request().method), (2, Method::GET));
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_of_a_fetched_complete_response_has_its_own_fields() {
    for (kind, range) in [("206", "bytes=2-4"), ("416", "bytes=10-")] {
        let origin =
            ScriptedOrigin::always(|| described("abcdefghij").header("transfer-encoding", "chunked"));
        let layer = ReadThroughLayer::builder(store())
            .rules(rules())
            .lookup(|lookup| lookup.fetch_whole_for_ranges(true));
        let service = layer.build().unwrap().layer(origin.clone());
        let reply = get_with(&service, "/", &[("range", range)]).await;
        assert_eq!(reply.status.as_str(), kind);
        check(kind, &reply, range);
        assert_eq!((origin.calls(), origin.last_request().headers.get("range")), (1, None));
    }
}

#[tokio::test(start_paused = true)]
async fn heads_made_of_a_stored_part_say_what_is_true_of_it() {
    let script = |_: usize, head: &http::request::Parts| match head.headers.contains_key("range") {
        true => {
            let part =
                status(206).chunk("abcdef").header("content-range", "bytes 0-5/10").header("date", EARLIER);
            FIELDS.into_iter().fold(part, |part, (name, value)| part.header(name, value))
        }
        false => described("abcdefghij"),
    };
    let cases: [(&str, &[(&str, &str)]); 3] = [
        ("206", &[("range", "bytes=2-4")]),
        ("304", &[("range", "bytes=2-4"), ("if-none-match", "\"1\"")]),
        ("412", &[("range", "bytes=2-4"), ("if-match", "\"2\"")]),
    ];
    for (kind, fields) in cases {
        let origin = ScriptedOrigin::new(script);
        let service = stack(&origin);
        get_with(&service, "/", &[("range", "bytes=0-5")]).await;
        let reply = get_with(&service, "/", fields).await;
        assert_eq!(reply.status.as_str(), kind);
        check(kind, &reply, kind);
        assert_eq!(origin.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn multipart_ranges_are_not_made_of_encoded_content() {
    // The coding of a representation is not that of its parts put together: the whole is served.
    let origin = ScriptedOrigin::always(|| described("abcdefghij"));
    let service = stack(&origin);
    get(&service, "/").await;
    let whole = get_with(&service, "/", &[("range", "bytes=0-1, 4-5")]).await;
    assert_eq!(
        (whole.status.as_u16(), whole.header("content-encoding"), &whole.body[..]),
        (200, Some("br"), &b"abcdefghij"[..])
    );

    let plain = || {
        let fields = FIELDS.into_iter().filter(|(name, _)| *name != "content-encoding");
        let answer = ok("abcdefghij").header("content-range", "bytes 0-9/10").header("date", EARLIER);
        fields.fold(answer, |answer, (name, value)| answer.header(name, value))
    };
    let origin = ScriptedOrigin::always(plain);
    let service = stack(&origin);
    get(&service, "/").await;
    let parts = get_with(&service, "/", &[("range", "bytes=0-1, 4-5")]).await;
    assert_eq!(parts.status.as_u16(), 206);
    assert!(parts.header("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    check("multipart", &parts, "multipart");
    let text = String::from_utf8(parts.body.to_vec()).unwrap();
    assert!(text.contains("content-type: text/plain\r\ncontent-range: bytes 4-5/10\r\n\r\nef\r\n"), "{text}");
    assert_eq!(origin.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_412_or_416_has_no_fields_of_the_content() {
    let origin = ScriptedOrigin::always(|| described("abcdefghij").after(secs(60)));
    let coalesced =
        ReadThroughLayer::builder(store()).coalesce(|layer| layer.max_waiters(1).wait_at_most(secs(1)));
    let layer = coalesced.lookup(|lookup| lookup.request_directives(true)).build().unwrap();
    let service = layer.layer(origin.clone());
    let refused = get_with(&service, "/", &[("cache-control", "only-if-cached")]).await;
    let waiting = async || get(&service, "/").await;
    let (_, late, busy) = tokio::join!(waiting(), waiting(), waiting());
    for (reply, status) in [(refused, 504), (late, 504), (busy, 503)] {
        assert_eq!(reply.status.as_u16(), status);
        let known = ["retry-after", "cache-status", "proxy-status"];
        assert!(reply.headers.keys().all(|name| known.contains(&name.as_str())), "{:?}", reply.headers);
        assert!(reply.body.is_empty());
    }
    assert_eq!(origin.calls(), 1);
}

// Ranges of what is fetched whole.

/// Never sends a 304, so that a stale response is fetched again.
fn renewed() -> ScriptedOrigin {
    ScriptedOrigin::new(|call, _| {
        let answer = ok("abc").chunk("def").chunk("ghij").declares(10).header("content-length", "10");
        answer.max_age(10).header("etag", format!("\"{call}\""))
    })
}

async fn five_ranges(service: &Single, origin: &ScriptedOrigin, case: &str) {
    for (at, (range, body)) in
        [("0-1", "ab"), ("3-3", "d"), ("8-9", "ij"), ("2-6", "cdefg"), ("0-9", "abcdefghij")]
            .into_iter()
            .enumerate()
    {
        let reply = get_with(service, "/", &[("range", &format!("bytes={range}"))]).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, body.as_bytes()), "{case}: {range}");
        assert_eq!(reply.is_hit(), at > 0, "{case}: {range}");
        settle().await;
    }
    assert!(get(service, "/").await.is_hit(), "{case}");
    assert_eq!(origin.calls(), 2, "{case}");
}

#[tokio::test(start_paused = true)]
async fn ranges_of_a_stale_response_share_one_fetch_that_is_stored() {
    let origin = renewed();
    let service = StoreLayer::new(store()).layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    five_ranges(&service, &origin, "stale").await;

    // Also the complete response that is fetched for a range of nothing stored.
    let (origin, store) = (renewed(), store());
    let lookup = LookupLayer::new(store.clone()).fetch_whole_for_ranges(true);
    let service = lookup.layer(FillLayer::new(store).layer(origin.clone()));
    get(&service, "/other").await;
    five_ranges(&service, &origin, "whole").await;
}

#[tokio::test(start_paused = true)]
async fn an_unsatisfiable_range_does_not_keep_the_response_out_of_the_store() {
    let origin = renewed();
    let service = StoreLayer::new(store()).layer(origin.clone());
    get(&service, "/").await;
    tokio::time::advance(secs(10)).await;
    let reply = get_with(&service, "/", &[("range", "bytes=10-")]).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (416, &b""[..]));
    settle().await;
    assert!(get(&service, "/").await.is_hit());
    assert_eq!(origin.calls(), 2);
}

/// Counts the frames that are read of a body.
struct Counted(Body, Arc<AtomicUsize>);

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = tower::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tower::BoxError>>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_stored_is_read_as_far_as_the_range() {
    let frames = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&frames);
    let origin = ScriptedOrigin::new(move |call, _| match call {
        1 => ok("abcdefghij").max_age(10),
        _ => ok("abc").chunk("defghij").declares(10).header("cache-control", "no-store"),
    });
    let counting = ServiceBuilder::new()
        .map_response(move |response: http::Response<Body>| {
            response.map(|body| Counted(body, Arc::clone(&count)))
        })
        .service(origin.clone());
    let service = StoreLayer::new(store()).layer(counting);
    get(&service, "/").await;
    let before = frames.load(Ordering::SeqCst);
    tokio::time::advance(secs(10)).await;
    let reply = get_with(&service, "/", &[("range", "bytes=0-1")]).await;
    settle().await;
    assert_eq!((&reply.body[..], frames.load(Ordering::SeqCst) - before), (&b"ab"[..], 1));
}

// Two stacks, one above the other.

#[tokio::test(start_paused = true)]
async fn a_store_above_a_stack_is_filled_by_conditional_and_range_requests() {
    let wants: [&[(&str, &str)]; 3] = [
        &[("if-none-match", "\"1\"")],
        &[("if-match", "\"2\"")],
        &[("if-none-match", "\"2\""), ("range", "bytes=20-")],
    ];
    for fields in wants {
        let origin = ScriptedOrigin::always(|| {
            ok("abc").chunk("defghij").declares(10).max_age(60).header("etag", "\"1\"")
        });
        let above = store();
        let lookup = LookupLayer::new(above.clone()).fetch_whole_for_ranges(true);
        let service = lookup.layer(FillLayer::new(above.clone()).layer(stack(&origin)));
        for _ in 0..2 {
            let reply = get_with(&service, "/", fields).await;
            assert!(matches!(reply.status.as_u16(), 304 | 412 | 416), "{fields:?}");
            settle().await;
            assert_eq!(above.stats().entries, 1, "{fields:?}");
        }
        assert_eq!(origin.calls(), 1);
    }
}

// Parts that are put together.

#[tokio::test(start_paused = true)]
async fn a_long_response_is_assembled_outside_the_request_that_completes_it() {
    const TOTAL: usize = 1 << 20;
    let script = |_: usize, head: &http::request::Parts| {
        let range = head.headers["range"].to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let body: Bytes = (first..=last).map(|at| (at / 7) as u8).collect();
        let part = status(206).chunk(body).header("content-range", format!("bytes {first}-{last}/{TOTAL}"));
        part.max_age(60).header("etag", "\"1\"")
    };
    let origin = ScriptedOrigin::new(script);
    let service = single(&origin);
    for range in ["0-499999", "500000-1048574", "1048575-1048575"] {
        get_with(&service, "/", &[("range", &format!("bytes={range}"))]).await;
    }
    let across = get_with(&service, "/", &[("range", "bytes=499990-500010")]).await;
    let expected: Vec<u8> = (499_990..=500_010).map(|at| (at / 7) as u8).collect();
    assert!(across.is_hit());
    assert_eq!((&across.body[..], across.header("content-length")), (&expected[..], Some("21")));
    settle().await;
    let whole = get(&service, "/").await;
    assert!(whole.is_hit() && whole.status == 200);
    assert_eq!((whole.header("content-length"), whole.header("content-range")), (Some("1048576"), None));
    assert!(whole.body.iter().enumerate().all(|(at, byte)| *byte == (at / 7) as u8));
    assert_eq!((whole.body.len(), origin.calls()), (TOTAL, 3));
}
