//! The cost of a request grows no faster than the request.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};

use super::LOOKED_AT;
use crate::{
    Classes, Guard, KeyRule, KeyRules, MemoryStore, ReadThroughLayer, When,
    http::fields::{MAX_MEMBERS, MAX_NORMAL_BYTES},
};

type Body = Full<Bytes>;
type BodyRequest = Request<Body>;

/// Twice the length may cost a little more than twice as much.
const MAX_GROWTH: f64 = 2.2;

/// How often one byte is read, with 40 names in rules that it may belong to.
const MAX_LOOKS: usize = 256;

/// On both sides of the bounds of normal forms.
const LENGTHS: [usize; 6] = [256, 512, 1 << 10, 1 << 11, 1 << 12, 1 << 13];

/// How many bytes a stack reads for the last of these requests, with an origin that responds with these
/// fields.
async fn work(
    layer: &ReadThroughLayer<MemoryStore, KeyRules>,
    response_fields: &HeaderMap,
    requests: Vec<BodyRequest>,
) -> usize {
    let response_fields = response_fields.clone();
    let origin = tower::service_fn(move |_: BodyRequest| {
        let mut response = Response::new(Body::from("hello"));
        response.headers_mut().clone_from(&response_fields);
        async { Ok::<_, Infallible>(response) }
    });
    let mut stack = layer.layer(origin);
    let mut before = 0;
    for request in requests {
        before = LOOKED_AT.get();
        let response = stack.ready().await.unwrap().call(request).await.unwrap();
        http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    }
    LOOKED_AT.get() - before
}

fn layer(key: KeyRules) -> ReadThroughLayer<MemoryStore, KeyRules> {
    let layers = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 28)).key(key);
    layers.lookup(|lookup| lookup.request_directives(true)).build().unwrap()
}

fn no_rules() -> KeyRules {
    KeyRules::builder().build().unwrap()
}

fn get(target: &str) -> BodyRequest {
    Request::get(format!("http://h{target}")).body(Body::default()).unwrap()
}

fn with(name: &HeaderName, value: &str) -> BodyRequest {
    let mut request = get("/");
    request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    request
}

const STORED: [(&str, &str); 1] = [("cache-control", "public, max-age=60")];

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let lines = STORED
        .iter()
        .chain(fields)
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    lines.collect()
}

/// As often as it fits in, numbered where it says `#`.
fn repeated(piece: &str, length: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        let piece = piece.replace('#', &format!("{:04}", 9999 - number % 10_000));
        if text.len() + piece.len() > length {
            break;
        }
        text.push_str(&piece);
    }
    text
}

/// The requests of some length, of which the last one is measured.
async fn assert_linear(
    what: &str,
    key: impl Fn() -> KeyRules,
    answer: &[(&'static str, &'static str)],
    asked: impl Fn(usize) -> Vec<BodyRequest>,
) {
    let mut before: Option<(usize, Vec<[bool; 2]>)> = None;
    for length in LENGTHS {
        let asked = asked(length);
        let last = asked.last().unwrap();
        let has_many = |text: &str, separator| text.split(separator).count() > MAX_READ;
        let query = has_many(last.uri().query().unwrap_or_default(), '&');
        let cookies = last.headers().get(header::COOKIE).and_then(|line| line.to_str().ok());
        let many = [query, cookies.is_some_and(|line| has_many(line, ';'))];
        let bounded: Vec<_> = last.headers().values().map(exceeds_bounds).chain([many]).collect();
        let cost = work(&layer(key()), &fields(answer), asked).await;
        assert!(cost <= MAX_LOOKS * length, "{what}: {cost} for {length}");
        // What has no normal form is read in another way.
        if let Some((half, _)) = before.filter(|(_, other)| *other == bounded) {
            let most = MAX_GROWTH * half.max(64) as f64;
            assert!(cost as f64 <= most, "{what}: {half}, then {cost} for {length}");
        }
        before = Some((cost, bounded));
    }
}

/// Of more parameters or cookies than these none is left out.
const MAX_READ: usize = 256;

/// In bytes, and in members.
fn exceeds_bounds(line: &HeaderValue) -> [bool; 2] {
    let commas = line.as_bytes().iter().filter(|byte| **byte == b',').count();
    [line.len() > MAX_NORMAL_BYTES, commas > MAX_MEMBERS]
}

/// On a miss, and on a hit.
async fn assert_field_is_linear(
    name: &HeaderName,
    pieces: &[&str],
    key: impl Fn() -> KeyRules,
    answer: &[(&'static str, &'static str)],
) {
    for piece in pieces {
        for requests in [1, 2] {
            let asked = |length| (0..requests).map(|_| with(name, &repeated(piece, length))).collect();
            assert_linear(&format!("{name}: {piece} ({requests})"), &key, answer, asked).await;
        }
    }
}

const PREFERENCES: [&str; 10] = [
    "en,",
    "en;q=0,en,",
    "en,en;q=0,",
    "en-GB;q=0.#,",
    "l#,",
    "l#;q=0.5,",
    "a-b-c-d-e-f-g-h-i,",
    "-",
    "a long name that is the same again and again#,",
    "\"\\\"",
];

#[tokio::test(start_paused = true)]
async fn fields_that_rules_reduce_are_read_in_proportion_to_their_length() {
    let key = || {
        let codings = (0..40).map(|n| format!("c{n}"));
        let languages =
            ["en", "de-CH"].map(str::to_owned).into_iter().chain((0..40).map(|n| format!("x{n}")));
        KeyRules::builder().accept_encoding(codings).accept_language(languages).build().unwrap()
    };
    for name in [header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING] {
        assert_field_is_linear(&name, &PREFERENCES, key, &[]).await;
        assert_field_is_linear(&name, &PREFERENCES, key, &[("vary", "accept-language, accept-encoding")])
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn selecting_fields_are_read_in_proportion_to_their_length() {
    let vary = [("vary", "accept, accept-charset, accept-encoding, accept-language, cookie, prefer, x-own")];
    for name in
        ["accept", "accept-charset", "accept-encoding", "accept-language", "cookie", "prefer", "x-own"]
    {
        assert_field_is_linear(&HeaderName::from_static(name), &PREFERENCES, no_rules, &vary).await;
    }
}

/// Also where all of these are as long as each other and begin alike.
#[tokio::test(start_paused = true)]
async fn a_selecting_field_is_read_once_however_many_variants_are_stored() {
    const VARIANTS: usize = 32;
    let answer = fields(&[(
        "vary",
        "accept, accept-charset, accept-encoding, accept-language, cookie, prefer, x-own",
    )]);
    let names = ["accept", "accept-language", "cookie", "x-own"];
    for (name, piece) in names.iter().flat_map(|name| ["en,", "b#;q=0.5, "].map(|piece| (name, piece))) {
        let name = HeaderName::from_static(name);
        let of = |number: usize, length: usize, start: &str| {
            with(&name, &format!("{start}{}x{number:04}", repeated(piece, length - 8)))
        };
        // The variant that is compared last, and another one that is not stored, as it is written and not.
        for (last, start) in [(0, ""), (0, ","), (VARIANTS, "")] {
            let cost = async |variants: usize, length| {
                let stored = (0..variants).map(|number| of(number, length, ""));
                let asked = stored.chain([of(last, length, start)]).collect();
                work(&layer(no_rules()), &answer, asked).await
            };
            let what = format!("{name}: {start}{piece} {last}");
            let short = cost(VARIANTS, MAX_NORMAL_BYTES).await;
            assert!(short <= MAX_LOOKS * MAX_NORMAL_BYTES, "{what}: {short}");
            let (one, many) = (cost(1, 1 << 13).await, cost(VARIANTS, 1 << 13).await);
            let twice = cost(VARIANTS, 1 << 14).await;
            assert!(many < one + one / 4 + 1024, "{what}: {one} bytes with one variant, {many} with many");
            assert!(twice as f64 <= MAX_GROWTH * many as f64, "{what}: {twice} bytes after {many}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn request_directives_are_read_in_proportion_to_their_length() {
    let answer = [("etag", "\"a-tag-of-some-length\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
    let directives =
        ["\"\\\"", "\\\"", "a=\"", "no-cache=\"\\", "max-age=1,", "max-age=1;", "a= ;", "x=y ", "=", "\""];
    for name in [header::CACHE_CONTROL, header::PRAGMA] {
        for start in ["", "\""] {
            let pieces = directives.map(|piece| format!("{start}{piece}"));
            let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
            assert_field_is_linear(&name, &pieces, no_rules, &answer).await;
        }
    }
    let tags = ["\"a-tag-of-some-lengtx\",", "\"#\",", "W/", "\"\\\"", "\"a-tag-of-some-length\" ,"];
    for name in [header::IF_NONE_MATCH, header::IF_MATCH, header::IF_RANGE, header::IF_MODIFIED_SINCE] {
        assert_field_is_linear(&name, &tags, no_rules, &answer).await;
    }
    for start in ["bytes=", "bytes=0-"] {
        for piece in ["0-0,", "1", "0", "-1,", "\"", "4-#,"] {
            let asked = |length| {
                let range = with(&header::RANGE, &format!("{start}{}", repeated(piece, length)));
                vec![get("/"), range]
            };
            assert_linear(&format!("range: {start}{piece}"), no_rules, &answer, asked).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fields_in_the_key_are_read_in_proportion_to_their_length() {
    let forwarded = HeaderName::from_static("forwarded");
    let pieces = ["for=1.2.3.4,", "for=1;", "host=a;", ";", "for=\"\\\",", "\""];
    assert_field_is_linear(&forwarded, &pieces, no_rules, &[]).await;
    let guarded = || KeyRules::builder().guard(Guard::new().keyed(["forwarded"])).build().unwrap();
    assert_field_is_linear(&forwarded, &pieces, guarded, &[]).await;
    let names: Vec<_> = (0..40).map(|n| format!("c{n}")).collect();
    let cookies = || {
        let rule = KeyRule::any().cookies(names.iter().map(String::as_str)).headers(["accept"]);
        KeyRules::builder().rule(rule).build().unwrap()
    };
    let pieces = ["c0=1; ", "c#=1;", "c39=1; c0=1; ", "=", ";", "c0=\"\\\"; ", "c1"];
    assert_field_is_linear(&header::COOKIE, &pieces, cookies, &[]).await;
    assert_field_is_linear(&header::ACCEPT, &PREFERENCES, cookies, &[]).await;
    assert_field_is_linear(&header::CONNECTION, &["a,", "x-#,"], no_rules, &[]).await;
    assert_field_is_linear(&header::UPGRADE, &["a,", "h2c,"], no_rules, &[]).await;
}

/// Each rule whose conditions are looked at costs one more reading of the request.
#[tokio::test(start_paused = true)]
async fn preconditions_are_read_in_proportion_to_their_length() {
    let conditions = || {
        let cookies = When::new().cookies(["a*b*c=1*2", "session", "wordpress_logged_in_*"]);
        let fields = When::new().headers(["accept: *a*b*c*", "x-*: 1"]);
        let query = When::new().query(["a*b=1*2", "preview"]);
        let builder =
            KeyRules::builder().rule(KeyRule::any().when(cookies)).rule(KeyRule::any().when(fields));
        builder.rule(KeyRule::any().when(query)).rule(KeyRule::any().cookies([])).build().unwrap()
    };
    let pieces = ["a=1; ", "ab=1;", "session=1; ", "=", ";", "a=\"\\\"; ", "b", "%61", "a, ", "a b "];
    assert_field_is_linear(&header::COOKIE, &pieces, conditions, &[]).await;
    assert_field_is_linear(&header::ACCEPT, &["a", "ab", "b", "a,", "c"], conditions, &[]).await;
    assert_queries_are_linear(conditions, &[]).await;
}

/// However many of them there are.
#[tokio::test(start_paused = true)]
async fn lines_of_a_field_are_read_in_proportion_to_their_number() {
    let rules = || {
        let fields = When::new().headers(["accept: *a*b*c*", "x-*: 1"]);
        let cookies = When::new().cookies(["a=1", "session"]);
        let device = Classes::of("user-agent", "x-device").class("a", ["*a*b*"]).otherwise("b");
        let builder = KeyRules::builder().guard(Guard::new()).classes(device);
        let builder = builder
            .rule(KeyRule::any().when(fields))
            .rule(KeyRule::any().when(cookies))
            .rule(KeyRule::any().headers(["x-device", "x-tenant-*"]));
        builder.build().unwrap()
    };
    for name in ["accept", "x-a", "x-tenant-a", "cookie", "user-agent", "upgrade", "connection", "forwarded"]
    {
        for value in ["", "a", "ab", "1", "h2c", "a=1"] {
            let asked = |length: usize| {
                let mut request = get("/");
                request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                for _ in 0..length / 8 {
                    request.headers_mut().append(name, HeaderValue::from_static(value));
                }
                vec![request]
            };
            assert_linear(&format!("{name}: {value}"), rules, &[], asked).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn classified_fields_are_read_in_proportion_to_their_length() {
    let classes = || {
        let format = Classes::of("accept", "accept").class("a", ["*a*b*c*", "*image/avif*"]).otherwise("b");
        let rule = KeyRule::any().headers(["accept", "x-tenant-*"]);
        KeyRules::builder().classes(format).rule(rule).build().unwrap()
    };
    assert_field_is_linear(&header::ACCEPT, &["a", "ab", "image/", "a,", "c"], classes, &[]).await;
    let tenant = HeaderName::from_static("x-tenant-id");
    assert_field_is_linear(&tenant, &["a", ","], classes, &[]).await;
}

const QUERIES: [&str; 11] = [
    "a=1&",
    "a=&",
    "&",
    "p#=1&",
    "a_name_that_is_the_same_again_and_again#=&",
    "a_name_that_is_the_same_again_and_again=1&",
    "%61=%31&",
    "a[#]=1&",
    "utm_#=1&",
    "[",
    "+",
];

async fn assert_queries_are_linear(key: impl Fn() -> KeyRules, answer: &[(&'static str, &'static str)]) {
    for piece in QUERIES {
        for requests in [1, 2] {
            let asked =
                |length| (0..requests).map(|_| get(&format!("/?{}", repeated(piece, length)))).collect();
            assert_linear(&format!("{piece} ({requests})"), &key, answer, asked).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn queries_are_read_in_proportion_to_their_length() {
    type Change = fn(KeyRule) -> KeyRule;
    let changes: [Change; 7] = [
        |rule| rule,
        |rule| rule.keep_query(["a", "p*", "a_name_that_is_the_same_again_and_again0000"]),
        |rule| rule.ignore_query(["utm_*", "b"]),
        KeyRule::sort_query,
        KeyRule::drop_empty_query,
        |rule| rule.keep_query(["a*", "p*"]).sort_query().drop_empty_query(),
        |rule| rule.ignore_query(["utm_*"]).sort_query().drop_empty_query().forward_unkeyed(),
    ];
    for change in changes {
        let key = || KeyRules::builder().rule(change(KeyRule::any())).build();
        if key().is_ok() {
            assert_queries_are_linear(|| key().unwrap(), &[]).await;
        }
    }
    let template = || {
        let rule = KeyRule::path("/?a={a}&b={_}&c=1");
        KeyRules::builder().rule(rule).build().unwrap()
    };
    assert_queries_are_linear(template, &[]).await;
    for start in ["a=", "b=1&a="] {
        for piece in ["x", "%31", "+", "%26"] {
            let asked = |length| vec![get(&format!("/?{start}{}&c=1", repeated(piece, length)))];
            assert_linear(piece, template, &[], asked).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn queries_with_no_vary_search_are_read_in_proportion_to_their_length() {
    let key = || KeyRules::builder().rule(KeyRule::any().no_vary_search()).build().unwrap();
    for said in ["params=(\"a\" \"utm_0001\"), key-order", "params, except=(\"a\")", "key-order"] {
        assert_queries_are_linear(key, &[("no-vary-search", said)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn targets_are_read_in_proportion_to_their_length() {
    let rules = || {
        let bypass = KeyRule::path("/account/{*rest}").bypass();
        let gap = KeyRule::path("/gap/{_}/x").forward_unkeyed();
        let keyed = KeyRule::path("/{*all}").ignore_query(["a"]);
        KeyRules::builder().rule(bypass).rule(gap).rule(keyed).build().unwrap()
    };
    let pieces = [
        "a",
        "/",
        "/a",
        "/.",
        "/..",
        "/./a",
        "/a/../b",
        "//a",
        "%2e/",
        "%252e/",
        ";a",
        "/;a",
        "\\",
        "%5c",
        "%2f",
        "%3f",
        "%20",
        "%C3%A9",
        "/%2e%2e/;a//b",
        "%",
        "%25",
        "%zz",
        ".",
        "/gap/a/x",
        "/account",
        "A.",
    ];
    for piece in pieces {
        for start in ["/", "/a/", "/account/", "/gap/"] {
            let asked = |length| vec![get(&format!("{start}{}", repeated(piece, length)))];
            assert_linear(&format!("{start}{piece} without rules"), no_rules, &[], asked).await;
            assert_linear(&format!("{start}{piece}"), rules, &[], asked).await;
        }
    }
    // Those that come after a long one are parts of it.
    let asked = |length| vec![get(&format!("/{}{}", repeated("%61", length), "/b".repeat(40)))];
    let costs = work(&layer(no_rules()), &fields(&[]), asked(1 << 15)).await;
    assert!(costs < 8 << 15, "{costs}");
}

/// Of a POST whose body has about this length, made of pieces between a beginning and an end.
#[cfg(feature = "body-key")]
async fn work_of_body(rule: &KeyRule, (start, piece, end): (&str, &str, &str), length: usize) -> usize {
    let bodies = KeyRules::builder().rule(rule.clone()).build_with_bodies().unwrap();
    let service = tower::service_fn(async |_: Request<crate::RequestBody<Body>>| Ok::<_, Infallible>(()));
    let body = format!("{start}{}{end}", repeated(piece, length));
    let request = Request::post("http://h/").header("content-type", "application/json");
    let before = LOOKED_AT.get();
    bodies.layer(service).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    LOOKED_AT.get() - before
}

#[cfg(feature = "body-key")]
#[tokio::test]
async fn bodies_are_read_in_proportion_to_their_length() {
    let reads = || KeyRule::path("/").method("POST").body(1 << 20);
    let json = reads().json_body(crate::JsonBody::new().ignore(["/id", "/*/id"]).replace("/0001", 1));
    let query = reads().graphql();
    for (rule, pieces) in [
        (&json, ("{", "\"#\":1,", "\"id\":1}")),
        (&json, ("[", "{\"id\":#},", "0]")),
        (&json, ("", "[", "")),
        (&json, ("[\"", "\\u0061", "\"]")),
        (&json, ("[", " ", "]")),
        (&json, ("[[[[[[[[[[[[[[[[[[[[[[[[", "{\"#\":[]},", "0]]]]]]]]]]]]]]]]]]]]]]]]")),
        (&query, ("{\"query\":\"{", "a ", "}\"}")),
        (&query, ("{\"query\":\"{a(x:", "[", "1)}\"}")),
        (&query, ("{\"query\":\"{a}", "# x\\n", "\"}")),
        (&query, ("{\"query\":\"", "query Q#{a}", "\"}")),
        (&query, ("{\"query\":\"{a(x:[", "\\\"\\\"\\\"x\\\"\\\"\\\"", "])}\"}")),
        (&query, ("[", "{\"query\":\"{a}\"},", "{\"query\":\"{a}\"}]")),
    ] {
        let mut before = None;
        for length in LENGTHS {
            let cost = work_of_body(rule, pieces, length).await;
            assert!(cost <= MAX_LOOKS * length, "{pieces:?}: {cost} for {length}");
            if let Some(before) = before {
                assert!(cost as f64 <= MAX_GROWTH * before as f64, "{pieces:?}: {before}, then {cost}");
            }
            before = Some(cost);
        }
    }
}
