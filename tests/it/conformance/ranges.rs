//! Ranges and parts (RFC 9110 §14, RFC 9111 §3.3, §3.4).

use super::*;

#[tokio::test]
async fn parts_are_kept_and_put_together() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let part = |extent: &str, tag: &str, body: &str| {
        let fields = format!("cache-control: max-age=60\netag: {tag}\ncontent-range: bytes {extent}/10");
        status(206, &fields).body(body)
    };
    let (first, second) = (part("0-4", "\"a\"", "01234"), part("5-9", "\"a\"", "56789"));
    let page = bench.page(&[first.clone(), second]);
    page.get("range: bytes=0-4").await;
    let within = page.get("range: bytes=1-2").await;
    wrong.check("3.3", (within.text(), within.field("content-range")), ((206, "12"), Some("bytes 1-2/10")));
    wrong.check("3.3", page.calls(), 1);
    page.get("range: bytes=5-").await;
    wrong.check("3.4", page.get("").await.text(), (200, "0123456789"));
    wrong.check("3.4", page.get("range: bytes=3-6").await.text(), (206, "3456"));
    wrong.check("3.4", page.calls(), 2);

    for (section, other) in [
        ("3.4", part("5-9", "\"b\"", "56789")),
        ("3.4", part("5-9", "W/\"a\"", "56789")),
        ("3.4", part("6-9", "\"a\"", "6789")),
        ("9110 14.4", part("5-9", "\"a\"", "5678")),
        ("9110 14.4", part("5-10", "\"a\"", "56789")),
    ] {
        let page = bench.page(&[first.clone(), other, ok("").body("whole")]);
        page.get("range: bytes=0-4").await;
        page.get("range: bytes=5-9").await;
        wrong.check((section, page.calls()), page.get("").await.text(), (200, "whole"));
    }
    wrong.report();
}

#[tokio::test]
async fn ranges_are_cut_out_of_the_stored_response() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fields = "cache-control: max-age=999999999
        content-type: text/plain
        date: {-30}
        etag: \"a\"
        last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let page = bench.page(&[ok(fields).body("0123456789")]);
    page.get("").await;
    let whole = (200, "0123456789", None);
    let unsatisfiable = (416, "", Some("bytes */10"));
    for (section, request, expected) in [
        ("9110 14.1.2", "range: bytes=0-3", (206, "0123", Some("bytes 0-3/10"))),
        ("9110 14.1.2", "range: bytes=3-3", (206, "3", Some("bytes 3-3/10"))),
        ("9110 14.1.2", "range: bytes=7-", (206, "789", Some("bytes 7-9/10"))),
        ("9110 14.1.2", "range: bytes=0-", (206, "0123456789", Some("bytes 0-9/10"))),
        ("9110 14.1.2", "range: bytes=8-99", (206, "89", Some("bytes 8-9/10"))),
        ("9110 14.1.2", "range: bytes=-2", (206, "89", Some("bytes 8-9/10"))),
        ("9110 14.1.2", "range: bytes=-99", (206, "0123456789", Some("bytes 0-9/10"))),
        ("9110 14.1", "range: BYTES=0-3", (206, "0123", Some("bytes 0-3/10"))),
        ("9110 14.1.2", "range: bytes=99-100, 0-0", (206, "0", Some("bytes 0-0/10"))),
        ("9110 15.5.17", "range: bytes=10-", unsatisfiable),
        ("9110 15.5.17", "range: bytes=10-20", unsatisfiable),
        ("9110 15.5.17", "range: bytes=-0", unsatisfiable),
        ("9110 14.2", "range: lines=0-3", whole),
        ("9110 14.1.1", "range: bytes=3-0", whole),
        ("9110 14.1.1", "range: bytes=a-b", whole),
        ("9110 14.1.1", "range: bytes", whole),
        ("9110 13.1.5", "range: bytes=0-0\nif-range: \"a\"", (206, "0", Some("bytes 0-0/10"))),
        ("9110 13.1.5", "range: bytes=0-0\nif-range: \"b\"", whole),
        ("9110 13.1.5", "range: bytes=0-0\nif-range: W/\"a\"", whole),
        (
            "9110 13.1.5",
            "range: bytes=0-0\nif-range: Sun, 06 Nov 1994 08:49:37 GMT",
            (206, "0", Some("bytes 0-0/10")),
        ),
        ("9110 13.1.5", "range: bytes=0-0\nif-range: Sun, 06 Nov 1994 08:49:38 GMT", whole),
        ("9110 13.1.5", "range: bytes=0-0\nif-range: yesterday", whole),
        ("9110 13.2.2", "range: bytes=0-0\nif-none-match: \"a\"", (304, "", None)),
    ] {
        let got = page.get(request).await;
        let (code, body) = got.text();
        wrong.check((section, request), (code, body, got.field("content-range")), expected);
        if matches!(code, 200 | 206) {
            wrong.check((section, request), got.field("content-length"), Some(&*body.len().to_string()));
            wrong.check(("9110 15.3.7", request), got.field("etag"), Some("\"a\""));
        }
    }
    // A range has a meaning for GET only.
    let head = page.send("HEAD", "range: bytes=0-3").await;
    wrong.check("9110 14.2", (head.status, head.field("content-length")), (200, Some("10")));

    let several = page.get("range: bytes=0-1, -2").await;
    let kind = several.field("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let parts = [("0-1", "01"), ("8-9", "89")].map(|(range, part)| {
        format!(
            "--{boundary}\r\ncontent-type: text/plain\r\ncontent-range: bytes {range}/10\r\n\r\n{part}\r\n"
        )
    });
    let expected = format!("{}--{boundary}--\r\n", parts.concat());
    wrong.check("9110 15.3.7.2", several.text(), (206, &*expected));
    wrong.check("9110 15.3.7.2", several.field("content-range"), None);
    wrong.check("9110 14", page.calls(), 1);
    wrong.report();

    // Without a stored response the origin handles the range.
    let page = bench.page(&[status(206, "content-range: bytes 0-0/10").body("0")]);
    assert_eq!(page.get("range: bytes=0-0\nif-range: \"a\"").await.text(), (206, "0"));
    let seen = &page.seen()[0];
    assert_eq!(
        (seen.field("range"), seen.field("if-range")),
        (Some("bytes=0-0"), Some("\"a\"")),
        "9110 14.2"
    );
}
