//! Directives of requests (RFC 9111 §5.2.1).

use super::*;

#[tokio::test]
async fn request_directives_restrict_and_extend_what_is_served() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    // Thirty seconds old, of sixty.
    let fresh = "cache-control: max-age=60\nage: 30";
    for (section, stored, request, expected) in [
        ("5.2.1.1", fresh, "cache-control: max-age=0", ASKED),
        ("5.2.1.1", fresh, "cache-control: max-age=29", ASKED),
        ("5.2.1.1", fresh, "cache-control: max-age=45", REUSED),
        ("5.2.1.1", fresh, "cache-control: max-age=99999999999999999999", REUSED),
        ("5.2", fresh, "cache-control: MAX-AGE=\"0\"", ASKED),
        ("5.2.1.3", fresh, "cache-control: min-fresh=0", REUSED),
        ("5.2.1.3", fresh, "cache-control: min-fresh=15", REUSED),
        ("5.2.1.3", fresh, "cache-control: min-fresh=31", ASKED),
        ("5.2.1.4", fresh, "cache-control: no-cache", ASKED),
        ("5.2.1.4", fresh, "cache-control: x, No-Cache", ASKED),
        ("5.2.1.4", fresh, "cache-control: x=\"no-cache\"", REUSED),
        ("5.2.1.7", fresh, "cache-control: only-if-cached", REUSED),
        ("5.4", fresh, "pragma: no-cache", ASKED),
        ("5.4", fresh, "pragma: x, NO-CACHE", ASKED),
        ("5.4", fresh, "pragma: x", REUSED),
        ("5.4", fresh, "pragma: no-cache\ncache-control: max-age=45", REUSED),
        ("4.2", STALE, "", ASKED),
        ("4.2", STALE, "cache-control: max-age=45", ASKED),
        ("5.2.1.2", STALE, "cache-control: max-stale", REUSED),
        ("5.2.1.2", STALE, "cache-control: max-stale=30", REUSED),
        ("5.2.1.2", STALE, "cache-control: max-stale=5", ASKED),
        ("5.2.1.2", STALE, "cache-control: max-stale=0", ASKED),
        ("5.2.1.2", STALE, "cache-control: only-if-cached, max-stale", REUSED),
        ("4.2.4", "cache-control: max-age=1, must-revalidate\nage: 10", "cache-control: max-stale", ASKED),
        ("4.2.4", "cache-control: max-age=1, proxy-revalidate\nage: 10", "cache-control: max-stale", ASKED),
        ("4.2.4", "cache-control: s-maxage=1\nage: 10", "cache-control: max-stale", ASKED),
        ("4.2.4", "cache-control: max-age=1, no-cache\nage: 10", "cache-control: max-stale", ASKED),
    ] {
        let page = bench.page(&[ok(&format!("{stored}\netag: \"a\""))]);
        wrong.check((section, stored, request), is_reused_for(&page, "", request).await, expected);
    }

    // A request that demands a newer response gets one, and so do later requests.
    let page = bench.page(&[ok("cache-control: max-age=60")]);
    for (request, answer) in [("", "1"), ("cache-control: no-cache", "2"), ("", "2")] {
        wrong.check(("5.2.1.4", request), page.get(request).await.answer(), Some(answer));
    }
    let page = bench.page(&[ok("cache-control: max-age=60"), status(503, "")]);
    page.get("").await;
    // A stored response that the directive excluded is served if the fetch that it forced fails.
    wrong.check("5.2.1.4", page.get("cache-control: no-cache").await.status, 200);

    let page = bench.page(&[ok("cache-control: max-age=60")]);
    for (request, answer) in [("cache-control: no-store", "1"), ("", "2"), ("", "2")] {
        wrong.check(("5.2.1.5", request), page.get(request).await.answer(), Some(answer));
    }

    for stored in [None, Some(STALE), Some("cache-control: no-store")] {
        let page = bench.page(&[ok(stored.unwrap_or_default())]);
        if stored.is_some() {
            page.get("").await;
        }
        let got = page.get("cache-control: only-if-cached").await;
        wrong.check(("5.2.1.7", stored), (got.status, page.calls()), (504, stored.iter().count()));
    }
    wrong.report();
}
