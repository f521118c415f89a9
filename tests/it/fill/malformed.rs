//! Fields with any content.

use super::*;

fn value() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "max-age=60",
        "max-age=",
        "max-age=-1",
        "s-maxage=9",
        "public",
        "private",
        "no-cache",
        "no-cache=\"a",
        "stale-if-error=99999999999999999999",
        "stale-while-revalidate=5",
        "\"",
        "\\",
        ",",
        "=",
        " ",
        "\t",
        "*",
        "accept",
        "Accept-Language",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "0",
        "-1",
        "18446744073709551616",
        "W/\"a\"",
        "bytes 0-1/2",
    ]);
    let piece = prop_oneof![
        3 => known.prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.join(&b", "[..]))
}

fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test)
}

const RESPONSE_FIELDS: [&str; 10] = [
    "cache-control",
    "vary",
    "age",
    "expires",
    "date",
    "etag",
    "last-modified",
    "content-length",
    "connection",
    "retry-after",
];

const REQUEST_FIELDS: [&str; 8] = [
    "accept",
    "accept-language",
    "cookie",
    "if-none-match",
    "if-modified-since",
    "cache-control",
    "range",
    "connection",
];

type Fields = Vec<(&'static str, Vec<u8>)>;

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Fields> {
    prop::collection::vec((prop::sample::select(names), value()), 0..5)
}

/// Sends three requests, with time between them, for a response with such fields; the body names the call.
async fn three(rules: Rules, response: Fields, request_fields: [Fields; 3]) -> (ScriptedOrigin, Vec<Reply>) {
    let origin = ScriptedOrigin::new(move |call, head| {
        let accept = head.headers.get_all("accept").iter().map(HeaderValue::as_bytes);
        let mut body = accept.collect::<Vec<_>>().join(&b"\n"[..]);
        body.extend_from_slice(format!("#{call}").as_bytes());
        let answer = ok(body);
        response.iter().fold(answer, |answer, (name, value)| match HeaderValue::from_bytes(value) {
            Ok(_) => answer.header(name, value),
            Err(_) => answer,
        })
    });
    let service = cached(rules, &origin);
    let mut replies = Vec::new();
    for fields in request_fields {
        let mut request = request("GET", "/", &[]);
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request.headers_mut().append(name, value);
            }
        }
        replies.push(send(&service, request).await);
        tokio::time::advance(secs(1)).await;
    }
    (origin, replies)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_fields_are_accepted_and_each_body_is_one_of_the_origin(
        response in fields(&RESPONSE_FIELDS),
        requests in [fields(&REQUEST_FIELDS), fields(&REQUEST_FIELDS), fields(&REQUEST_FIELDS)],
        fixed in any::<bool>(),
    ) {
        let rules = if fixed { Rules::new().fixed_ttl(secs(60)) } else { ttl() };
        let (origin, replies) = paused(three(rules, response, requests));
        prop_assert!((1..=3).contains(&origin.calls()));
        for reply in replies {
            prop_assert!(reply.status == 304 || reply.body.contains(&b'#'));
        }
    }

    #[test]
    fn a_directive_that_forbids_storing_counts_beside_malformed_members(
        mut response in fields(&RESPONSE_FIELDS),
        forbids in prop::sample::select(vec![
            ("cache-control", "no-store"), ("cache-control", "private"), ("set-cookie", "a=b"), ("vary", "*"),
        ]),
        at in any::<prop::sample::Index>(),
    ) {
        let (name, value) = forbids;
        response.insert(at.index(response.len() + 1), (name, value.as_bytes().to_vec()));
        let (origin, _) = paused(three(Rules::new().fixed_ttl(secs(60)), response, Default::default()));
        prop_assert_eq!(origin.calls(), 3);
    }

    #[test]
    fn a_selecting_field_counts_beside_malformed_members(
        mut response in fields(&["cache-control", "vary", "age", "date"]),
        accept in [value(), value(), value()],
        at in any::<prop::sample::Index>(),
    ) {
        response.insert(at.index(response.len() + 1), ("vary", b"x, Accept".to_vec()));
        let requests = accept.clone().map(|accept| vec![("accept", accept)]);
        let (_, replies) = paused(three(Rules::new().fixed_ttl(secs(60)), response, requests));
        // Up to white space around commas the body is made of the field of the request.
        let plain = |bytes: &[u8]| -> Vec<u8> {
            bytes.iter().copied().filter(|b| !b.is_ascii_whitespace() && *b != b',').collect()
        };
        for (reply, accept) in replies.iter().zip(accept) {
            if HeaderValue::from_bytes(&accept).is_ok() {
                let end = reply.body.iter().rposition(|b| *b == b'#').unwrap();
                prop_assert_eq!(plain(&reply.body[..end]), plain(&accept));
            }
        }
    }

    #[test]
    fn any_host_is_taken_without_panic_and_never_mixed_up(a in value(), b in value()) {
        let (Ok(first), Ok(second)) = (HeaderValue::from_bytes(&a), HeaderValue::from_bytes(&b)) else {
            return Ok(());
        };
        let ask = async |service: &Cached, host: &HeaderValue| {
            let request = http::Request::get("/").header("host", host);
            send(service, request.body(crate::support::Body::default()).unwrap()).await
        };
        paused(async {
            let origin = ScriptedOrigin::new(|_, head| ok(head.headers["host"].as_bytes().to_vec()).max_age(60));
            let service = cached(Rules::new(), &origin);
            for host in [&first, &second, &first] {
                let reply = ask(&service, host).await;
                assert!(reply.body.eq_ignore_ascii_case(host.as_bytes()));
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn enormous_fields_change_nothing() {
    let begun = Instant::now();
    let huge = "a,".repeat(16_000);
    let fields = ["cache-control", "age", "expires", "date", "etag", "last-modified", "connection"];
    for name in fields {
        let value = huge.clone();
        let origin = ScriptedOrigin::always(move || ok("x").header(name, &value));
        let service = cached(Rules::new().fixed_ttl(secs(60)), &origin);
        get(&service, "/").await;
        assert_eq!(get(&service, "/").await.body, "x", "{name}");
    }
    let origin = ScriptedOrigin::always(|| ok("x").max_age(60));
    let service = cached(Rules::new(), &origin);
    let tags = format!("{}\"1\"", "\"x\",".repeat(8_000));
    for name in ["if-none-match", "if-modified-since", "cookie", "cache-control"] {
        assert_eq!(get_with(&service, "/", &[(name, &tags)]).await.body, "x", "{name}");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
