//! Keys of random requests with bodies.

use super::*;

/// The parts of a request that count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CacheRequest {
    path: &'static str,
    query: Option<&'static str>,
    method: &'static str,
    content_type: Vec<&'static str>,
    body: Vec<u8>,
}

fn asked() -> impl Strategy<Value = CacheRequest> {
    let path = prop::sample::select(vec!["/a", "/b", "/b/c"]);
    let query = prop::option::of(prop::sample::select(vec!["", "x", "x=1"]));
    let method = prop::sample::select(vec!["POST", "QUERY"]);
    let content_type = prop::collection::vec(prop::sample::select(vec!["", "a", "b"]), 0..3);
    let body = prop::collection::vec(0..2_u8, 0..3);
    (path, query, method, content_type, body).prop_map(|(path, query, method, content_type, body)| {
        CacheRequest { path, query, method, content_type, body }
    })
}

impl CacheRequest {
    /// In one frame for each byte, if `split`.
    fn key(&self, split: bool) -> CacheKey {
        let rules =
            [KeyRule::path("/a"), KeyRule::any()].map(|rule| rule.method("POST").method("QUERY").body(8));
        let [first, second] = rules;
        let bodies = KeyRules::builder().rule(first).rule(second).build_with_bodies().unwrap();
        let uri = format!(
            "http://h{}{}",
            self.path,
            self.query.map_or_else(String::new, |query| format!("?{query}"))
        );
        let fields: Vec<_> = self.content_type.iter().map(|value| ("content-type", *value)).collect();
        let body = match split {
            true => {
                crate::streamed(stream::iter(self.body.clone()).map(|byte| Ok::<_, Infallible>(vec![byte])))
            }
            false => Body::from(self.body.clone()),
        };
        let service = bodies.layer(service_fn(async |request: Request<RequestBody<Body>>| {
            Ok::<_, Infallible>(request.extensions().get::<CacheKey>().cloned())
        }));
        let answer = service.oneshot(request(self.method, &uri, &fields, body));
        futures_util::FutureExt::now_or_never(answer).unwrap().unwrap().expect("a key")
    }
}

/// What the origin sees of a request with a key, and its identity.
#[derive(Debug, PartialEq)]
struct Seen {
    method: Method,
    target: String,
    content_type: Option<String>,
    body: Bytes,
    identity: Option<CacheKey>,
}

/// The key of a request under rules that leave parts of it out, and what the origin sees.
fn seen(method: &str, target: &str, content_type: Option<&str>, body: String) -> (Option<CacheKey>, Seen) {
    let reads = |path: &str| KeyRule::path(path).method("POST").method("QUERY").method("GET").body(64);
    let rules = KeyRules::builder()
        .rule(reads("/a").keep_query(["q"]).json_body(JsonBody::new().ignore(["/s"])))
        .rule(reads("/b?q={q}&u={_}").json_body(JsonBody::new().replace("/s", 1)))
        .rule(reads("/c").sort_query().json_body(JsonBody::new().include(["/a"])))
        .rule(reads("/d").graphql().ignore_query(["u*"]))
        .rule(KeyRule::path("/a").ignore_query(["u*"]))
        .rule(KeyRule::path("/b").keep_query(["u"]));
    let bodies = rules.build_with_bodies().unwrap();
    let rules = bodies.rules();
    let service =
        bodies.layer(service_fn(async |request: Request<RequestBody<Body>>| Ok::<_, Infallible>(request)));
    let fields: Vec<_> = content_type.iter().map(|value| ("content-type", *value)).collect();
    let answer = service.oneshot(request(method, &format!("http://h{target}"), &fields, body));
    let (mut head, body) = futures_util::FutureExt::now_or_never(answer).unwrap().unwrap().into_parts();
    let body = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap().to_bytes();
    let key = head.extensions.get::<CacheKey>().cloned();
    let identity = rules.identity(&head.uri, head.headers.get("host"), &head.extensions);
    rules.prepare(&mut head);
    let content_type = head.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned());
    (key, Seen { method: head.method, target: head.uri.to_string(), content_type, body, identity })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Two requests share an entry only if the origin would see the same, and a purge of one reaches it.
    #[test]
    fn requests_that_share_a_key_look_the_same_to_the_origin_and_have_one_identity(
        path in prop::sample::select(vec!["/a", "/b", "/c", "/d"]),
        queries in prop::array::uniform2(prop::sample::select(vec![
            "", "?q=1", "?q=1&u=1", "?u=2&q=1", "?q=2&u=1", "?q=1;u=2", "?Q=1&q=1", "?_method=PUT&q=1",
        ])),
        methods in prop::array::uniform2(prop::sample::select(vec!["POST", "POST", "QUERY", "GET"])),
        types in prop::array::uniform2(prop::sample::select(vec![
            Some("application/json"), Some("application/json"), Some("text/plain"), None,
        ])),
        bodies in prop::array::uniform2(prop::sample::select(vec![
            r#"{"a":1,"s":2}"#, r#"{ "s":3, "a":1}"#, r#"{"a":1.0,"s":2}"#, r#"{"a":1}"#, r#"{"a":1,"A":2}"#,
            r#"{"a":1,"a":2}"#, r#"{"s":1}"#, r#"{"query":"{a}"}"#, r#"{"query":"mutation{a}"}"#, "{", "1",
        ])),
        differs in prop::bits::u8::masked(0b1111),
    ) {
        let of = |n: u8| {
            // The second request is the first one but for some parts.
            let at = |bit: u8| usize::from(n & differs >> bit & 1);
            let target = format!("{path}{}", queries[at(0)]);
            seen(methods[at(1)], &target, types[at(2)], bodies[at(3)].to_owned())
        };
        let ((first, one), (second, other)) = (of(0), of(1));
        if first.is_some() && first == second {
            prop_assert_eq!(one, other);
        }
    }
}

proptest! {
    #[test]
    fn keys_are_equal_only_for_equal_requests(a in asked(), b in asked()) {
        prop_assert_eq!(a.key(false) == b.key(true), a == b);
        prop_assert_eq!(a.key(false), a.key(true));
    }

    #[test]
    fn a_body_that_is_not_read_to_its_end_passes_unchanged(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let all = chunks.concat();
        let service = layer(search()).layer(service_fn(async |request: Request<RequestBody<Body>>| {
            let has_key = request.extensions().get::<CacheKey>().is_some();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>((has_key, body))
        }));
        let body = crate::streamed(stream::iter(chunks).map(Ok::<_, Infallible>));
        let (has_key, seen) = runtime.block_on(service.oneshot(post_of(body))).unwrap();
        prop_assert_eq!(has_key, all.len() <= BOUND);
        prop_assert_eq!(seen, all);
    }
}
