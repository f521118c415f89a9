//! Stale responses (RFC 9111 §4.2.4, RFC 5861).

use super::*;

#[tokio::test]
async fn a_failing_origin_is_covered_up_where_nothing_forbids_it() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let failures = [500, 502, 503, 504].map(|code| (status(code, "").body("failed"), code));
    let failures: Vec<_> = failures.into_iter().chain([(closed(), 502)]).collect();
    for (section, directives, is_covered) in [
        ("5861 4", "max-age=1, stale-if-error=60", true),
        ("5861 4", "stale-if-error=\"60\", max-age=1", true),
        ("5861 4", "max-age=1, stale-if-error=5", false),
        ("5861 4", "max-age=1, stale-if-error=0", false),
        ("4.2.4", "max-age=1", true),
        ("5.2.2.2", "max-age=1, stale-if-error=60, must-revalidate", false),
        ("5.2.2.8", "max-age=1, stale-if-error=60, proxy-revalidate", false),
        ("5.2.2.10", "s-maxage=1", false),
        // A window that the response itself names beside it.
        ("5.2.2.10", "s-maxage=1, stale-if-error=60", true),
        ("5.2.2.4", "max-age=1, stale-if-error=60, no-cache", false),
    ] {
        // Else so many failures in a row would take the origin down.
        let bench = Bench::start().await;
        for (failure, code) in &failures {
            let stored = format!("cache-control: {directives}\nage: 10\netag: \"a\"");
            let page = bench.page(&[ok(&stored).body("stored"), failure.clone()]);
            page.get("").await;
            let got = page.get("").await;
            let case = (section, directives, code);
            wrong.check(case, got.status, if is_covered { 200 } else { *code });
            wrong.check(case, got.body.as_deref() == Some("stored"), is_covered);
            wrong.check(case, page.calls(), 2);
            if is_covered {
                wrong.check(case, got.age() >= 10, true);
            }
        }
    }
    // A response that is no failure is passed on, and an error of one request does not affect others. Only after 429
    // is the origin asked less often.
    for code in [400, 403, 404, 410, 501, 505, 429] {
        let page = bench.page(&[ok(STALE), status(code, "")]);
        page.get("").await;
        wrong.check(("5861 4", code), page.get("").await.status, code);
    }
    let failed = status(503, "cache-control: max-age=1, stale-if-error=60\nage: 10");
    let page = bench.page(&[failed, status(503, "")]);
    page.get("").await;
    wrong.check("4.2.4", page.get("").await.answer(), Some("2"));
    wrong.report();
}

#[tokio::test]
async fn a_stale_response_is_served_while_it_is_validated() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    for (section, directives, is_served) in [
        ("5861 3", "max-age=1, stale-while-revalidate=60", true),
        ("5861 3", "max-age=1, stale-while-revalidate=5", false),
        ("5861 3", "max-age=1, stale-while-revalidate=0", false),
        ("5861 3", "max-age=1, stale-while-revalidate=x", false),
        ("5861 3", "max-age=1", false),
        ("5.2.2.2", "max-age=1, stale-while-revalidate=60, must-revalidate", false),
        ("5.2.2.8", "max-age=1, stale-while-revalidate=60, proxy-revalidate", false),
        ("5.2.2.10", "s-maxage=1, stale-while-revalidate=60", true),
        ("5.2.2.4", "max-age=1, stale-while-revalidate=60, no-cache", false),
    ] {
        let stored = format!("cache-control: {directives}\nage: 10\netag: \"a\"");
        let page = bench.page(&[ok(&stored), ok("cache-control: max-age=60")]);
        page.get("").await;
        let got = page.get("").await;
        wrong.check((section, directives), got.answer(), Some(if is_served { "1" } else { "2" }));
        eventually(async || page.get("").await.answer() == Some("2")).await;
        wrong.check((section, directives), page.calls(), 2);
    }
    wrong.report();
}
