//! The `proxy` example, as a program on real sockets, held against the text of the RFCs: 9110
//! (HTTP), 9111 (caching), 5861 (stale answers), 8246 (`immutable`), 9211 (`Cache-Status`) and
//! 9213 (`CDN-Cache-Control`). A section without a number is one of RFC 9111.
//!
//! Ages are said by `Age`, `Date` and `Expires` instead of waited for. `cargo test` builds the
//! examples before it runs this; alone, it needs `cargo build --example proxy` first.

use std::time::Duration;

use crate::sockets::bench::{Bench, Got, Page, Reply, closed, ok, status};
use sfv::BareItem;
use tokio::time::{Instant, sleep};

/// The second request is answered out of the store.
const REUSED: bool = true;
/// The second request goes to the origin as well.
const ASKED: bool = false;

/// The same request twice: was the second one answered out of the store?
async fn is_reused(page: &Page<'_>, request: &str) -> bool {
    is_reused_for(page, request, request).await
}

async fn is_reused_for(page: &Page<'_>, first: &str, second: &str) -> bool {
    let (_, second) = (page.get(first).await, page.get(second).await);
    let is_reused = page.calls() == 1;
    assert_eq!(second.is_hit(), is_reused, "{second:?}");
    assert_eq!(second.answer(), Some(if is_reused { "1" } else { "2" }), "{second:?}");
    is_reused
}

/// Cases as they should not be, all at once.
#[derive(Debug, Default)]
struct Wrong(Vec<String>);

impl Wrong {
    #[allow(clippy::needless_pass_by_value, reason = "rows read better without references")]
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, case: impl std::fmt::Debug, found: T, expected: T) {
        if found != expected {
            self.0.push(format!("{case:?}: {found:?} instead of {expected:?}"));
        }
    }

    fn report(self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

/// Each answer, given to two requests: section, fields of the answer, whether it is reused.
async fn reuse_of_answers(rows: &[(&str, &str, bool)]) {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    for (section, fields, expected) in rows {
        let page = bench.page(&[ok(fields)]);
        wrong.check((section, fields), is_reused(&page, "").await, *expected);
    }
    wrong.report();
}

#[tokio::test]
async fn cache_control_is_read_as_its_grammar_has_it() {
    reuse_of_answers(&[
        ("5.2.2.1", "cache-control: max-age=60", REUSED),
        ("5.2", "cache-control: MaX-aGe=60", REUSED),
        ("5.2", "cache-control: max-age=60, NO-STORE", ASKED),
        ("5.2", "cache-control: xmax-age=60", ASKED),
        ("5.2", "cache-control: max-age-x=60", ASKED),
        // Arguments: a token or a quoted string, and nothing round the equals sign.
        ("5.2", "cache-control: max-age=\"60\"", REUSED),
        ("5.2", "cache-control: max-age=\"0\"", ASKED),
        ("5.2", "cache-control: max-age='60'", ASKED),
        ("5.2", "cache-control: max-age= 60", ASKED),
        ("5.2", "cache-control: max-age =60", ASKED),
        ("5.2", "cache-control: max-age = 60", ASKED),
        ("4.2.1", "cache-control: max-age =60\nexpires: {60}", ASKED),
        ("5.2", "cache-control: max-age=60, no-store =1", ASKED),
        ("5.2", "cache-control: max-age=60, private =\"x\"", ASKED),
        // Numbers of seconds.
        ("1.2.2", "cache-control: max-age=0060", REUSED),
        ("1.2.2", "cache-control: max-age=00", ASKED),
        ("1.2.2", "cache-control: max-age=2147483647", REUSED),
        ("1.2.2", "cache-control: max-age=2147483648", REUSED),
        ("1.2.2", "cache-control: max-age=4294967296", REUSED),
        ("1.2.2", "cache-control: max-age=18446744073709551616", REUSED),
        ("1.2.2", "cache-control: max-age=99999999999999999999999999", REUSED),
        ("4.2.1", "cache-control: max-age=-1", ASKED),
        ("4.2.1", "cache-control: max-age=-99999999999999999999", ASKED),
        ("4.2.1", "cache-control: max-age=60.0", ASKED),
        ("4.2.1", "cache-control: max-age=60.5", ASKED),
        ("4.2.1", "cache-control: max-age=a60", ASKED),
        ("4.2.1", "cache-control: max-age=60a", ASKED),
        ("4.2.1", "cache-control: max-age=+60", ASKED),
        // As the shortest lifetime that it could mean.
        ("4.2.1", "cache-control: max-age=60;x", REUSED),
        ("4.2.1", "cache-control: max-age=", ASKED),
        ("4.2.1", "cache-control: max-age", ASKED),
        // Of two the first counts.
        ("4.2.1", "cache-control: max-age=60, max-age=0", REUSED),
        ("4.2.1", "cache-control: max-age=0, max-age=60", ASKED),
        ("4.2.1", "cache-control: max-age=60\ncache-control: max-age=0", REUSED),
        ("4.2.1", "cache-control: max-age=0\ncache-control: max-age=60", ASKED),
        // Lists.
        ("5.2", "cache-control: public\ncache-control: max-age=60", REUSED),
        ("5.2", "cache-control: max-age=60\ncache-control: no-store", ASKED),
        ("9110 5.6.1", "cache-control: ,, max-age=60 ,", REUSED),
        ("9110 5.6.1", "cache-control: public\t,\tmax-age=60", REUSED),
        ("9110 5.6.1", "cache-control: public,max-age=60,must-revalidate", REUSED),
        ("9110 5.6.1", "cache-control:", ASKED),
        // Extensions, and what only looks like a directive.
        ("5.2.3", "cache-control: x, max-age=60", REUSED),
        ("5.2.3", "cache-control: x=1, max-age=60", REUSED),
        ("5.2.3", "cache-control: max-age=60, x=\"1\"", REUSED),
        ("5.2.3", "cache-control: x=\"max-age=60\"", ASKED),
        ("5.2.3", "cache-control: x=\"a, max-age=60\"", ASKED),
        ("5.2.3", "cache-control: x=\"max-age=0\", max-age=60", REUSED),
        ("5.2.3", "cache-control: x=\"a, max-age=0, b\", max-age=60", REUSED),
        ("5.2.3", "cache-control: x=\"a, no-store\", max-age=60", REUSED),
        ("5.2.3", "cache-control: x=\"a\\\", no-store\", max-age=60", REUSED),
        ("5.2.3", "cache-control: no-storex, max-age=60", REUSED),
        ("8246 2", "cache-control: max-age=60, immutable", REUSED),
        ("8246 2", "cache-control: immutable", ASKED),
    ])
    .await;
}

#[tokio::test]
async fn expires_is_one_of_three_formats_or_in_the_past() {
    reuse_of_answers(&[
        ("5.3", "expires: {60}", REUSED),
        ("5.3", "expires: {-60}", ASKED),
        ("9110 5.6.7", "expires: Thu, 18 Aug 2050 02:01:18 GMT", REUSED),
        ("9110 5.6.7", "expires: Thursday, 18-Aug-50 02:01:18 GMT", REUSED),
        ("9110 5.6.7", "expires: Thu Aug 18 02:01:18 2050", REUSED),
        ("9110 5.6.7", "expires: Thu Aug  4 02:01:18 2050", REUSED),
        ("9110 5.6.7", "expires: Tue, 19 Jan 2038 14:14:08 GMT", REUSED),
        ("9110 5.6.7", "expires: Sat, 20 Nov 2286 17:46:39 GMT", REUSED),
        ("9110 5.6.7", "expires: Sun, 06 Nov 1994 08:49:37 GMT", ASKED),
        ("9110 5.6.7", "expires: Sunday, 06-Nov-94 08:49:37 GMT", ASKED),
        ("9110 5.6.7", "expires: Sun Nov  6 08:49:37 1994", ASKED),
        // Caches are to be lenient about case, and about nothing else.
        ("4.2", "expires: thu, 18 Aug 2050 02:01:18 GMT", REUSED),
        ("4.2", "expires: THU, 18 Aug 2050 02:01:18 GMT", REUSED),
        ("4.2", "expires: Thu, 18 AUG 2050 02:01:18 GMT", REUSED),
        ("4.2", "expires: Thu, 18 aug 2050 02:01:18 GMT", REUSED),
        ("4.2", "expires: Thu, 18 Aug 2050 02:01:18 gmt", REUSED),
        ("4.2", "expires: THURSDAY, 18-AUG-50 02:01:18 gmt", REUSED),
        ("4.2", "expires: thu aug 18 02:01:18 2050", REUSED),
        ("4.2", "expires: Thu, 18 Aug 2050 02:01:18 UTC", ASKED),
        ("4.2", "expires: Thu, 18 Aug 2050 02:01:18 AEST", ASKED),
        ("4.2", "expires: Thu, 18 Aug 2050 02:01:18 +0000", ASKED),
        ("4.2", "expires: Thu, 18 Aug 2050 02:01:18", ASKED),
        ("5.3", "expires: Thu, 18 Aug 50 02:01:18 GMT", ASKED),
        ("5.3", "expires: Thu 18 Aug 2050 02:01:18 GMT", ASKED),
        ("5.3", "expires: Thu,  18 Aug 2050 02:01:18 GMT", ASKED),
        ("5.3", "expires: Thu, 18 Aug  2050 02:01:18 GMT", ASKED),
        ("5.3", "expires: Thu, 18-Aug-2050 02:01:18 GMT", ASKED),
        ("5.3", "expires: Thursday, 18-Aug-2050 02:01:18 GMT", ASKED),
        ("5.3", "expires: Thu, 18 Aug 2050 2:01:18 GMT", ASKED),
        ("5.3", "expires: Thu, 4 Aug 2050 02:01:18 GMT", ASKED),
        ("5.3", "expires: Thu, 18 Aug 2050 02.01.18 GMT", ASKED),
        ("5.3", "expires: 2050-08-18T02:01:18Z", ASKED),
        ("5.3", "expires: 2544400878", ASKED),
        ("5.3", "expires: 0", ASKED),
        ("5.3", "expires: -1", ASKED),
        ("5.3", "expires:", ASKED),
        // Of two the first counts.
        ("4.2.1", "expires: {60}\nexpires: {-60}", REUSED),
        ("4.2.1", "expires: 0\nexpires: {60}", ASKED),
        // Counted from the Date.
        ("4.2.1", "date: {0}\nexpires: {0}", ASKED),
        ("4.2.1", "date: {-100}\nexpires: {60}", REUSED),
        ("4.2.1", "date: {-100}\nexpires: {-40}", ASKED),
        ("4.2.1", "date: yesterday\nexpires: {60}", REUSED),
    ])
    .await;
}

#[tokio::test]
async fn an_age_counts_if_it_is_a_number_and_comes_first() {
    reuse_of_answers(&[
        ("5.1", "cache-control: max-age=60\nage: 0", REUSED),
        ("4.2.3", "cache-control: max-age=60\nage: 30", REUSED),
        ("4.2", "cache-control: max-age=60\nage: 60", ASKED),
        ("4.2.3", "cache-control: max-age=60\nage: 7200", ASKED),
        ("4.2.3", "expires: {60}\nage: 30", REUSED),
        ("4.2.3", "expires: {60}\nage: 7200", ASKED),
        ("1.2.2", "cache-control: max-age=60\nage: 007200", ASKED),
        ("1.2.2", "cache-control: max-age=60\nage: 99999999999999999999", ASKED),
        ("5.1", "cache-control: max-age=60\nage: 0, 7200", REUSED),
        ("5.1", "cache-control: max-age=60\nage: 7200, 0", ASKED),
        ("5.1", "cache-control: max-age=60\nage: 0\nage: 7200", REUSED),
        ("5.1", "cache-control: max-age=60\nage: 7200\nage: 0", ASKED),
        ("5.1", "cache-control: max-age=60\nage: abc", REUSED),
        ("5.1", "cache-control: max-age=60\nage: -7200", REUSED),
        ("5.1", "cache-control: max-age=60\nage: 7200.0", REUSED),
        ("5.1", "cache-control: max-age=60\nage: \"7200\"", REUSED),
        ("5.1", "cache-control: max-age=60\nage: 7200;x=1", REUSED),
        ("5.1", "cache-control: max-age=60\nage:", REUSED),
        // A Date says how old an answer is as well.
        ("4.2.3", "cache-control: max-age=60\ndate: {-30}", REUSED),
        ("4.2.3", "cache-control: max-age=60\ndate: {-90}", ASKED),
        ("4.2.3", "cache-control: max-age=60\ndate: {-30}\nage: 90", ASKED),
        ("4.2.3", "cache-control: max-age=60\ndate: {-90}\nage: 30", ASKED),
        ("4.2.3", "cache-control: max-age=60\ndate: {7200}", REUSED),
        ("4.2.3", "cache-control: max-age=60\ndate: yesterday", REUSED),
    ])
    .await;
}

#[tokio::test]
async fn the_most_specific_lifetime_counts() {
    reuse_of_answers(&[
        ("4.2.1", "cache-control: max-age=0, s-maxage=60", REUSED),
        ("4.2.1", "cache-control: s-maxage=60", REUSED),
        ("4.2.1", "cache-control: max-age=60, s-maxage=0", ASKED),
        ("4.2.1", "cache-control: s-maxage=0, max-age=60", ASKED),
        ("4.2.1", "cache-control: s-maxage=x, max-age=60", ASKED),
        ("5.3", "cache-control: max-age=60\nexpires: {-60}", REUSED),
        ("5.3", "cache-control: max-age=60\nexpires: 0", REUSED),
        ("5.3", "cache-control: max-age=0\nexpires: {60}", ASKED),
        ("5.3", "cache-control: max-age=x\nexpires: {60}", ASKED),
        ("5.3", "cache-control: s-maxage=60\nexpires: {-60}", REUSED),
        ("5.3", "cache-control: s-maxage=0\nexpires: {60}", ASKED),
        ("5.3", "cache-control: public\nexpires: {60}", REUSED),
        ("3", "", ASKED),
        ("3", "cache-control: public", ASKED),
        ("3", "cache-control: must-revalidate", ASKED),
        ("3", "etag: \"a\"", ASKED),
        ("5.2.2.4", "cache-control: no-cache, max-age=60", ASKED),
        ("5.2.2.4", "cache-control: no-cache\nexpires: {60}", ASKED),
        // In answers it never meant anything.
        ("5.4", "cache-control: max-age=60\npragma: no-cache", REUSED),
        ("5.4", "expires: {60}\npragma: no-cache", REUSED),
    ])
    .await;
}

#[tokio::test]
async fn a_targeted_field_takes_the_place_of_cache_control() {
    reuse_of_answers(&[
        ("9213 2.2", "cdn-cache-control: max-age=60", REUSED),
        ("9213 2.2", "cdn-cache-control: max-age=60\ncache-control: max-age=0", REUSED),
        ("9213 2.2", "cdn-cache-control: max-age=60\ncache-control: no-store", REUSED),
        ("9213 2.2", "cdn-cache-control: max-age=60\ncache-control: private", REUSED),
        ("9213 2.2", "cdn-cache-control: max-age=60\ncache-control: no-cache", REUSED),
        ("9213 2.2", "cdn-cache-control: max-age=60\ncache-control: s-maxage=0", REUSED),
        ("9213 2.2", "cdn-cache-control: max-age=60\nexpires: {-60}", REUSED),
        ("9213 2.2", "cdn-cache-control: max-age=0\ncache-control: max-age=60", ASKED),
        ("9213 2.2", "cdn-cache-control: no-store\ncache-control: max-age=60", ASKED),
        ("9213 2.2", "cdn-cache-control: private\ncache-control: max-age=60", ASKED),
        ("9213 2.2", "cdn-cache-control: no-cache\ncache-control: max-age=60", ASKED),
        ("9213 2.2", "cdn-cache-control: public\nexpires: {60}", ASKED),
        ("9213 2.2", "cdn-cache-control: x\ncache-control: max-age=60", ASKED),
        ("4.2.3", "cdn-cache-control: max-age=60\nage: 30", REUSED),
        ("4.2.3", "cdn-cache-control: max-age=60\nage: 7200", ASKED),
        ("4.2.1", "cdn-cache-control: max-age=0, s-maxage=60", REUSED),
        // A dictionary.
        ("9213 2.1", "cdn-cache-control: x, max-age=60;y=1", REUSED),
        ("9213 2.1", "cdn-cache-control: public\ncdn-cache-control: max-age=60", REUSED),
        ("9213 2.1", "cdn-cache-control: max-age=60\ncdn-cache-control: no-store", ASKED),
        // Values of the wrong type are ignored.
        ("9213 2.1", "cdn-cache-control: max-age=\"60\"\ncache-control: max-age=60", ASKED),
        ("9213 2.1", "cdn-cache-control: max-age=60.5\ncache-control: max-age=60", ASKED),
        ("9213 2.1", "cdn-cache-control: max-age\ncache-control: max-age=60", ASKED),
        ("9213 2.1", "cdn-cache-control: max-age=60, no-store=?0", REUSED),
        // What cannot be read, or says nothing, is ignored as a whole.
        ("9213 2.2", "cdn-cache-control:\ncache-control: max-age=60", REUSED),
        ("9213 2.2", "cdn-cache-control:\ncache-control: no-store", ASKED),
        // But for a word that forbids.
        ("9213 2.1", "cdn-cache-control: no-store, &\ncache-control: max-age=60", ASKED),
        ("9213 2.1", "cdn-cache-control: max-age=60, &\ncache-control: no-store", ASKED),
        ("9213 2.1", "cdn-cache-control: Max-Age=0\ncache-control: max-age=60", REUSED),
        ("9213 2.1", "cdn-cache-control: Max-Age=60\ncache-control: no-store", ASKED),
        ("9213 2.1", "cdn-cache-control: max-age= 60", ASKED),
        // Others are not meant.
        ("9213 2.2", "other-cache-control: no-store\ncache-control: max-age=60", REUSED),
        ("9213 2.2", "surrogate-control: max-age=60", ASKED),
    ])
    .await;
}

#[tokio::test]
async fn any_final_status_is_reused_while_it_is_fresh() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    for code in [
        200, 201, 202, 203, 204, 205, 299, 300, 301, 302, 303, 307, 308, 399, 403, 404, 410, 418, 451, 499,
        500, 502, 503, 504, 599,
    ] {
        for (fields, expected) in [
            ("cache-control: max-age=60", REUSED),
            ("expires: {60}", REUSED),
            ("cdn-cache-control: max-age=60", REUSED),
            ("cache-control: max-age=60\nage: 90", ASKED),
            ("expires: {-60}", ASKED),
            ("", ASKED),
        ] {
            let page = bench.page(&[status(code, fields).body("")]);
            wrong.check(("3", code, fields), is_reused(&page, "").await, expected);
        }
    }
    // RFC 6585 forbids it for 428, 429, 431 and 511. The others are about one message as well, and
    // RFC 9111 §2 leaves the storing of each response to the cache.
    for code in [400, 405, 414, 421, 425, 428, 429, 431, 501, 505, 511] {
        let page = bench.page(&[status(code, "cache-control: public, max-age=60").body("")]);
        wrong.check(("3", code), is_reused(&page, "").await, ASKED);
    }
    wrong.report();
}

#[tokio::test]
async fn a_lifetime_is_guessed_for_statuses_that_are_cacheable_by_default() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let by_default = [200, 203, 204, 300, 301, 308, 404, 410, 451];
    let others = [201, 202, 299, 302, 303, 307, 403, 418, 499, 500, 502, 503, 504, 599];
    for code in by_default.into_iter().chain(others) {
        let is_default = by_default.contains(&code);
        for (section, fields, expected) in [
            ("4.2.2", "last-modified: {-864000}", is_default),
            ("4.2.2", "last-modified: {-864000}\ncache-control: public", REUSED),
            ("4.2.2", "last-modified: {-864000}\ncache-control: no-cache", ASKED),
            ("4.2.2", "last-modified: {-864000}\ncache-control: max-age=0", ASKED),
            ("4.2.2", "last-modified: {-864000}\nexpires: 0", ASKED),
        ] {
            let page = bench.page(&[status(code, fields).body("")]);
            wrong.check((section, code, fields), is_reused(&page, "").await, expected);
        }
    }
    for (fields, expected) in [
        // A tenth, as is usual.
        ("last-modified: {-1000}\nage: 60", REUSED),
        ("last-modified: {-1000}\nage: 150", ASKED),
        ("last-modified: {60}", ASKED),
        ("last-modified: yesterday", ASKED),
    ] {
        let page = bench.page(&[ok(fields)]);
        wrong.check(("4.2.2", fields), is_reused(&page, "").await, expected);
    }
    wrong.report();
}

#[tokio::test]
async fn what_is_for_one_alone_is_not_stored() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    for (section, request, code, fields, expected) in [
        ("5.2.2.5", "", 200, "cache-control: no-store", ASKED),
        ("5.2.2.5", "", 200, "cache-control: no-store, max-age=60", ASKED),
        ("5.2.2.5", "", 200, "cache-control: no-store\nexpires: {60}", ASKED),
        ("5.2.2.7", "", 200, "cache-control: private, max-age=60", ASKED),
        ("5.2.2.7", "", 200, "cache-control: private, s-maxage=60", ASKED),
        ("5.2.2.7", "", 200, "cache-control: private=\"\", max-age=60", ASKED),
        ("5.2.2.7", "", 200, "cache-control: private=\"x-a\", max-age=60", REUSED),
        ("5.2.2.4", "", 200, "cache-control: no-cache=\"x-a\", max-age=60", REUSED),
        ("7.3", "", 200, "cache-control: max-age=60\nset-cookie: a=b", ASKED),
        ("7.3", "cookie: a=b", 200, "cache-control: max-age=60", REUSED),
        ("3.5", "authorization: x", 200, "cache-control: max-age=60", ASKED),
        ("3.5", "authorization: x", 200, "expires: {60}", ASKED),
        ("3.5", "authorization: x", 200, "cache-control: max-age=60, proxy-revalidate", ASKED),
        ("3.5", "authorization: x", 200, "cache-control: max-age=60, public", REUSED),
        ("3.5", "authorization: x", 200, "cache-control: max-age=60, must-revalidate", REUSED),
        ("3.5", "authorization: x", 200, "cache-control: s-maxage=60", REUSED),
        ("5.2.2.3", "", 200, "cache-control: max-age=60, must-understand", REUSED),
        ("5.2.2.3", "", 200, "cache-control: max-age=60, must-understand, no-store", REUSED),
        ("5.2.2.3", "", 404, "cache-control: max-age=60, must-understand, no-store", REUSED),
        ("5.2.2.3", "", 299, "cache-control: max-age=60, must-understand", ASKED),
        ("5.2.2.3", "", 599, "cache-control: max-age=60, must-understand", ASKED),
        ("5.2.2.3", "", 599, "cache-control: max-age=60, must-understand, no-store", ASKED),
    ] {
        let page = bench.page(&[status(code, fields)]);
        wrong.check((section, request, code, fields), is_reused(&page, request).await, expected);
    }
    wrong.report();
}

#[tokio::test]
async fn only_a_whole_answer_is_reused_as_one() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fresh = "cache-control: max-age=60";
    let chunked = "cache-control: max-age=60\ntransfer-encoding: chunked";
    let part = "cache-control: max-age=60\ncontent-range: bytes 0-0/10";
    let whole = ok(fresh).body("whole");
    for (section, request, reply, first, second) in [
        ("3.3", "", ok(fresh).body("who").cut(), None, "whole"),
        ("3.3", "", ok(chunked).body("3\r\nwho\r\n"), None, "whole"),
        ("3.3", "", ok(chunked).body("3\r\nwho\r\n0\r\n\r\n"), Some("who"), "who"),
        ("3.3", "", ok(fresh).body("who").until_close(), Some("who"), "who"),
        ("3.4", "range: bytes=0-0", status(206, part).body("w"), Some("w"), "whole"),
        ("3.4", "", status(206, part).body("w"), Some("w"), "whole"),
        ("4.3.4", "", status(304, fresh), Some(""), "whole"),
    ] {
        let page = bench.page(&[reply.clone(), whole.clone()]);
        let (one, two) = (page.get(request).await, page.get("").await);
        wrong.check((section, &reply), (one.body.as_deref(), two.text()), (first, (200, second)));
    }
    wrong.report();
}

#[tokio::test]
async fn fields_are_reused_but_those_that_are_for_one_message() {
    let bench = Bench::start().await;
    let page = bench.page(&[ok("cache-control: max-age=60
        connection: x-hop, x-other
        x-hop: 1
        x-other: 1
        keep-alive: timeout=5
        proxy-authenticate: Basic
        proxy-connection: keep-alive
        te: trailers
        x-repeated: b
        content-type: text/plain;charset=utf-8
        content-language: de
        x-repeated: a, a
        content-location: /elsewhere
        etag: \"a\"
        x-repeated:
        last-modified: {-60}
        vary: accept
        warning: 110 - \"x\"
        x-repeated: b
        x-frame-options: DENY
        unknown-field: \u{fc}?")]);
    let (first, second) = (page.get("").await, page.get("").await);
    assert!(second.is_hit() && page.calls() == 1);
    for name in
        ["connection", "x-hop", "x-other", "keep-alive", "proxy-authenticate", "proxy-connection", "te"]
    {
        assert_eq!(second.field(name), None, "{name} (9110 7.6.1, 9111 3.1)");
    }
    assert_eq!(second.fields("x-repeated"), ["b", "a, a", "", "b"], "in order (9110 5.3)");
    let others = |got: &Got| {
        let fields = got.headers.iter().filter(|(name, _)| !["age", "cache-status"].contains(&name.as_str()));
        fields.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    let (mut first, mut second) = (others(&first), others(&second));
    assert!(second.len() >= 16, "{second:?}");
    // The origin sent no Date (9110 6.6.1).
    first.retain(|(name, _)| name != "date");
    second.retain(|(name, _)| name != "date");
    assert_eq!(second, first, "3.1");
}

#[tokio::test]
async fn fields_that_are_withheld_go_to_the_first_client_alone() {
    let bench = Bench::start().await;
    for directive in [
        "private=\"x-a\"",
        "no-cache=\"x-a\"",
        "private=\"X-A , set-cookie\"",
        "private=\"set-cookie\", no-cache=\"x-a\"",
        "private=x-a",
    ] {
        let fields = format!("cache-control: max-age=60, {directive}\nx-a: 1\nx-b: 2");
        let page = bench.page(&[ok(&fields)]);
        let (first, second) = (page.get("").await, page.get("").await);
        assert_eq!((first.field("x-a"), first.field("x-b")), (Some("1"), Some("2")), "{directive}");
        assert!(second.is_hit(), "{directive}");
        assert_eq!((second.field("x-a"), second.field("x-b")), (None, Some("2")), "5.2.2.4, 5.2.2.7");
    }
    let page = bench.page(&[ok("cache-control: max-age=60, private=\"set-cookie\"\nset-cookie: a=b")]);
    assert_eq!(page.get("").await.field("set-cookie"), Some("a=b"));
    let second = page.get("").await;
    assert_eq!((second.is_hit(), second.field("set-cookie")), (true, None), "5.2.2.7");
}

#[tokio::test]
async fn an_answer_is_reused_for_requests_that_its_vary_selects() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    for (vary, first, second, expected) in [
        ("x", "x: 1", "x: 1", REUSED),
        ("x", "x: 1", "x: 2", ASKED),
        ("x", "x: 1", "", ASKED),
        ("x", "", "x: 1", ASKED),
        ("x", "", "", REUSED),
        ("x", "x: 1\ny: 1", "x: 1\ny: 2", REUSED),
        ("X", "x: 1", "x: 1", REUSED),
        ("X", "x: 1", "x: 2", ASKED),
        ("x", "x: a", "x: A", ASKED),
        // Several fields, and several lines.
        ("x, y", "x: 1\ny: 1", "x: 1\ny: 1", REUSED),
        ("x, y", "x: 1\ny: 1", "y: 1\nx: 1", REUSED),
        ("x, y", "x: 1\ny: 1", "x: 1\ny: 2", ASKED),
        ("x, y", "x: 1\ny: 1", "x: 2\ny: 1", ASKED),
        ("x, y", "x: 1\ny: 1", "x: 1", ASKED),
        ("x, y, z", "x: 1\ny: 1\nz: 1", "x: 1\ny: 1\nz: 1", REUSED),
        ("x, y, z", "x: 1\ny: 1\nz: 1", "x: 1\ny: 1\nz: 2", ASKED),
        ("x\nvary: y", "x: 1\ny: 1", "x: 1\ny: 1", REUSED),
        ("x\nvary: y", "x: 1\ny: 1", "x: 1\ny: 2", ASKED),
        (", x,,", "x: 1", "x: 1", REUSED),
        (", x,,", "x: 1", "x: 2", ASKED),
        ("", "x: 1", "x: 2", REUSED),
        // Lists are the same after what §4.1 allows. Whether a field is one, its own specification says.
        ("accept", "accept: a/b, c/d", "accept: a/b,c/d", REUSED),
        ("accept", "accept: a/b, c/d", "accept: a/b ,\tc/d", REUSED),
        ("accept", "accept: a/b\naccept: c/d", "accept: a/b, c/d", REUSED),
        ("x", "x: 1, 2", "x: 1,2", ASKED),
        ("x", "x: 1\nx: 2", "x: 1, 2", ASKED),
        ("x", "x: 1, 2", "x: 2, 1", ASKED),
        ("x", "x:", "x:", REUSED),
        ("x", "x:", "", ASKED),
        ("x", "", "x:", ASKED),
        // Lists of preferences, which have no case and are ranked by weight (9110 §12.4.2, §12.5).
        ("accept-language", "accept-language: en, de", "accept-language: eN,De", REUSED),
        // Some recipients take the first of those with equal weights (9110 §12.5.4).
        ("accept-language", "accept-language: en, de", "accept-language: de, en", ASKED),
        ("accept-language", "accept-language: en, de;q=0.5", "accept-language: de; q=0.50, en", REUSED),
        ("accept-language", "accept-language: en, de;q=0.5", "accept-language: de, en;q=0.5", ASKED),
        ("accept-language", "accept-language: en", "accept-language: en, de", ASKED),
        ("accept-encoding", "accept-encoding: gzip, br", "accept-encoding: BR, gzip", REUSED),
        ("accept-encoding", "accept-encoding: gzip", "accept-encoding: gzip;q=0", ASKED),
        ("accept", "accept: a/b, c/d", "accept: c/d, a/b", ASKED),
        // What nothing matches.
        ("*", "", "", ASKED),
        ("*, *", "", "", ASKED),
        ("x, *", "x: 1", "x: 1", ASKED),
        ("*, x", "x: 1", "x: 1", ASKED),
        ("*,", "", "", ASKED),
        (", *", "", "", ASKED),
        ("x\nvary: *", "x: 1", "x: 1", ASKED),
    ] {
        let page = bench.page(&[ok(&format!("cache-control: max-age=60\nvary: {vary}"))]);
        let found = is_reused_for(&page, first, second).await;
        wrong.check(("4.1", vary, first, second), found, expected);
    }
    wrong.report();
}

#[tokio::test]
async fn variants_are_kept_side_by_side() {
    let bench = Bench::start().await;
    let page = bench.page(&[ok("cache-control: max-age=60\nvary: x")]);
    for round in 0..2 {
        for (request, answer) in [("x: 1", "1"), ("x: 2", "2"), ("", "3"), ("x: 1, 2", "4")] {
            let got = page.get(request).await;
            assert_eq!((got.answer(), got.is_hit()), (Some(answer), round > 0), "4.1 {request}");
        }
    }

    // Answers to one URI with another Vary each.
    let page = bench.page(&[
        ok("cache-control: max-age=60\nvary: x"),
        ok("cache-control: max-age=60\nvary: x, y"),
        ok("cache-control: max-age=60"),
    ]);
    for (request, answer) in [
        ("x: 1\ny: 1", "1"),
        ("x: 1\ny: 2", "1"),
        ("x: 2\ny: 1", "2"),
        ("x: 2\ny: 1", "2"),
        ("x: 2\ny: 2", "3"),
        ("x: 3\ny: 3", "3"),
    ] {
        assert_eq!(page.get(request).await.answer(), Some(answer), "4.1 {request}");
    }
}

/// Stale from the beginning, but kept.
const STALE: &str = "cache-control: max-age=1\nage: 10\n";

#[tokio::test]
async fn what_is_stale_is_validated_by_its_own_validators() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (section, fields, tag, date) in [
        ("4.3.1", "etag: \"a\"", Some("\"a\""), None),
        ("4.3.1", "etag: W/\"a\"", Some("W/\"a\""), None),
        ("4.3.1", "etag: \"\"", Some("\"\""), None),
        ("4.3.1", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT", None, Some(modified)),
        ("4.3.1", "etag: \"a\"\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT", Some("\"a\""), Some(modified)),
        ("4.3.1", "", None, None),
    ] {
        let page = bench.page(&[ok(&format!("{STALE}{fields}"))]);
        // What the client has is no business of the origin.
        let (_, second) = (page.get("").await, page.get("if-none-match: \"mine\"").await);
        let seen = page.seen();
        let asked = (seen[1].field("if-none-match"), seen[1].field("if-modified-since"));
        wrong.check((section, fields), asked, (tag, date));
        wrong.check((section, fields), second.text(), (200, "2"));
    }
    wrong.report();

    // What is fresh needs none, unless it says so (5.2.2.4).
    let page = bench.page(&[ok("cache-control: max-age=60\netag: \"a\"")]);
    assert!(is_reused(&page, "").await, "4.2");
    let no_cache = ok("cache-control: max-age=60, no-cache\netag: \"a\"").body("one");
    let page = bench.page(&[no_cache, status(304, "cache-control: no-cache\netag: \"a\"")]);
    for calls in 1..4 {
        assert_eq!(page.get("").await.text(), (200, "one"), "5.2.2.4");
        assert_eq!(page.calls(), calls, "5.2.2.4");
    }
}

#[tokio::test]
async fn a_304_renews_what_is_stored() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let stale = |validator: &str| {
        ok(&format!("{STALE}{validator}\nx-old: 1\nx-both: 1\nx-both: 1\ndate: {{-20}}")).body("one")
    };
    for (validator, update) in [
        ("etag: \"a\"", "etag: \"a\""),
        ("etag: \"a\"", ""),
        ("etag: W/\"a\"", "etag: W/\"a\""),
        ("last-modified: {-99999}", ""),
        ("etag: \"a\"\nlast-modified: {-99999}", "etag: \"a\""),
    ] {
        let update = format!("cache-control: max-age=60\n{update}\nx-both: 2\nx-new: 2\ndate: {{0}}");
        let page = bench.page(&[stale(validator), status(304, &update)]);
        page.get("").await;
        for round in ["validated", "reused"] {
            let got = page.get("").await;
            wrong.check((round, validator, "4.3.3"), got.text(), (200, "one"));
            wrong.check((round, validator, "3.2"), got.answer(), Some("2"));
            wrong.check((round, validator, "3.2"), got.fields("x-both"), vec!["2"]);
            wrong.check(
                (round, validator, "3.2"),
                (got.field("x-old"), got.field("x-new")),
                (Some("1"), Some("2")),
            );
            wrong.check((round, validator, "3.2"), got.field("content-length"), Some("3"));
            wrong.check((round, validator, "4.2.3"), got.age() <= 2, true);
            wrong.check((round, validator, "4.3.4"), page.calls(), 2);
        }
    }
    // One that names something else renews nothing, and is followed by a request without conditions.
    let other = status(304, "cache-control: max-age=60\netag: \"b\"");
    let page = bench.page(&[stale("etag: \"a\""), other, ok("").body("three")]);
    page.get("").await;
    wrong.check("4.3.4", page.get("").await.text(), (200, "three"));
    wrong.check("4.3.4", page.seen()[2].field("if-none-match"), None);
    wrong.report();
}

#[tokio::test]
async fn no_variant_is_confirmed_by_a_validator_of_another() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let variant = |body: &str| ok("cache-control: max-age=60\nvary: x\netag: \"a\"").body(body);
    let page = bench.page(&[variant("one"), variant("two")]);
    page.get("x: 1").await;
    wrong.check("4.1", page.get("x: 2").await.text(), (200, "two"));
    wrong.check("4.3.1", page.seen()[1].field("if-none-match"), None);
    wrong.check("4", page.get("x: 1").await.text(), (200, "one"));
    wrong.check("4", page.calls(), 2);
    wrong.report();
}

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
async fn any_other_answer_to_a_validation_is_the_answer() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let stored = |directive: &str| {
        ok(&format!("cache-control: max-age=1{directive}\nage: 10\netag: \"a\"")).body("one")
    };
    let two = |code| status(code, "cache-control: max-age=60").body("two");
    for (directive, code, expected) in [
        ("", 200, (200, "two")),
        ("", 404, (404, "two")),
        // A server error may be covered up, where nothing forbids it.
        ("", 503, (200, "one")),
        (", must-revalidate", 200, (200, "two")),
        (", must-revalidate", 503, (503, "two")),
        (", proxy-revalidate", 503, (503, "two")),
    ] {
        let page = bench.page(&[stored(directive), two(code)]);
        page.get("").await;
        let got = page.get("").await;
        wrong.check(("4.3.3", directive, code), got.text(), expected);
    }
    wrong.report();
}

#[tokio::test]
async fn clients_are_told_what_they_have_already() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fields = "cache-control: max-age=60
        date: Sun, 06 Nov 2050 08:49:37 GMT
        etag: \"a\"
        last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let page = bench.page(&[ok(fields)]);
    page.get("").await;
    for (section, request, expected) in [
        ("9110 13.1.2", "if-none-match: \"a\"", 304),
        ("9110 13.1.2", "if-none-match: W/\"a\"", 304),
        ("9110 13.1.2", "if-none-match: \"b\", \"a\"", 304),
        ("9110 13.1.2", "if-none-match: \"a\", \"b\"", 304),
        ("9110 13.1.2", "if-none-match: \"b\",,W/\"a\" , \"c\"", 304),
        ("9110 13.1.2", "if-none-match: \"b\"\nif-none-match: \"a\"", 304),
        ("9110 13.1.2", "if-none-match: *", 304),
        ("9110 13.1.2", "if-none-match: \"b\"", 200),
        ("9110 13.1.2", "if-none-match: \"b\", W/\"c\"", 200),
        ("9110 8.8.3", "if-none-match: \"A\"", 200),
        ("9110 8.8.3", "if-none-match: a", 200),
        ("9110 8.8.3", "if-none-match: \"b, \"a\"\"", 200),
        ("9110 8.8.3", "if-none-match: w/\"a\"", 200),
        ("9110 13.1.3", "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("9110 13.1.3", "if-modified-since: Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("9110 13.1.3", "if-modified-since: Sun Nov  6 08:49:37 1994", 304),
        ("9110 13.1.3", "if-modified-since: {-60}", 304),
        ("9110 13.1.3", "if-modified-since: Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("9110 13.1.3", "if-modified-since: yesterday", 200),
        ("9110 13.2.2", "if-none-match: \"b\"\nif-modified-since: {-60}", 200),
        ("9110 13.2.2", "if-none-match: \"a\"\nif-modified-since: Sun, 06 Nov 1994 08:49:36 GMT", 304),
    ] {
        let got = page.get(request).await;
        let body = if expected == 200 { "1" } else { "" };
        wrong.check((section, request), got.text(), (expected, body));
        let head = page.send("HEAD", request).await;
        wrong.check((section, "HEAD", request), head.text(), (expected, ""));
    }
    wrong.check("9110 13", page.calls(), 1);

    for (section, code, stored, request, expected) in [
        ("9110 8.8.3.2", 200, "etag: W/\"a\"", "if-none-match: \"a\"", 304),
        ("9110 8.8.3.2", 200, "etag: W/\"a\"", "if-none-match: W/\"a\"", 304),
        ("9110 13.1.2", 200, "", "if-none-match: \"a\"", 200),
        ("9110 13.1.2", 200, "", "if-none-match: *", 304),
        ("4.3.2", 200, "date: {-30}", "if-modified-since: {-20}", 304),
        ("4.3.2", 200, "date: {-30}", "if-modified-since: {-40}", 200),
        // Only what would be a success is compared.
        ("9110 13.2.1", 404, "etag: \"a\"", "if-none-match: \"a\"", 404),
        ("9110 13.2.1", 301, "etag: \"a\"", "if-none-match: \"a\"", 301),
    ] {
        let page = bench.page(&[status(code, &format!("cache-control: max-age=60\n{stored}"))]);
        page.get("").await;
        let got = page.get(request).await;
        wrong.check((section, code, stored, request), (got.status, page.calls()), (expected, 1));
    }
    wrong.report();
}

/// These are for origins, and caches may leave them alone (9110 13.1.1, 13.1.4; 4.3.2). This one
/// answers them as its origin would.
#[tokio::test]
async fn conditions_for_origins_are_answered_as_by_the_origin() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let with_both = "etag: \"a\"\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    for (section, code, stored, request, expected) in [
        ("9110 13.1.1", 200, with_both, "if-match: \"a\"", 200),
        ("9110 13.1.1", 200, with_both, "if-match: \"b\", \"a\"", 200),
        ("9110 13.1.1", 200, with_both, "if-match: *", 200),
        ("9110 13.1.1", 200, with_both, "if-match: \"b\"", 412),
        ("9110 13.1.1", 200, with_both, "if-match: W/\"a\"", 412),
        ("9110 8.8.3.2", 200, "etag: W/\"a\"", "if-match: W/\"a\"", 412),
        ("9110 13.1.4", 200, with_both, "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT", 200),
        ("9110 13.1.4", 200, with_both, "if-unmodified-since: Sun, 06 Nov 1994 08:49:36 GMT", 412),
        ("9110 13.1.4", 200, with_both, "if-unmodified-since: yesterday", 200),
        ("9110 13.1.4", 200, "date: {-30}", "if-unmodified-since: {-40}", 200),
        (
            "9110 13.2.2",
            200,
            with_both,
            "if-match: \"a\"\nif-unmodified-since: Sun, 06 Nov 1994 08:49:36 GMT",
            200,
        ),
        ("9110 13.2.2", 200, with_both, "if-match: \"a\"\nif-none-match: \"a\"", 304),
        ("9110 13.2.2", 200, with_both, "if-match: \"b\"\nif-none-match: \"a\"", 412),
        ("9110 13.2.2", 200, with_both, "range: bytes=0-0\nif-match: \"b\"", 412),
        ("9110 13.2.2", 200, with_both, "range: bytes=0-0\nif-match: \"a\"", 206),
        ("9110 13.2.1", 404, with_both, "if-match: \"b\"", 404),
    ] {
        let page = bench.page(&[status(code, &format!("cache-control: max-age=60\n{stored}"))]);
        page.get("").await;
        let got = page.get(request).await;
        wrong.check((section, stored, request), (got.status, page.calls()), (expected, 1));
    }
    // With what changes something they pass, and nothing has changed if they fail (4.4).
    let fresh = ok("cache-control: max-age=60");
    let page = bench.page(&[fresh.clone(), status(412, ""), fresh]);
    page.get("").await;
    wrong.check("9110 13.1.1", page.send("PUT", "if-match: \"b\"").await.status, 412);
    wrong.check("9110 13.1.1", page.seen()[1].field("if-match"), Some("\"b\""));
    wrong.check("4.4", page.get("").await.answer(), Some("1"));
    wrong.report();
}

#[tokio::test]
async fn a_304_has_the_fields_that_a_client_needs_and_none_of_the_content() {
    let bench = Bench::start().await;
    let page = bench.page(&[ok("cache-control: max-age=60
        content-location: /elsewhere
        content-type: text/plain
        date: {-30}
        etag: \"a\"
        expires: {60}
        vary: x")]);
    let first = page.get("").await;
    let got = page.get("if-none-match: \"a\"").await;
    assert_eq!(got.text(), (304, ""));
    for name in ["cache-control", "content-location", "date", "etag", "expires", "vary"] {
        assert!(got.field(name).is_some(), "9110 15.4.5: {name}");
        assert_eq!(got.fields(name), first.fields(name), "9110 15.4.5");
    }
    assert!(got.age() >= 29, "5.1");
    assert!([None, Some("1")].contains(&got.field("content-length")), "9110 8.6");
}

#[tokio::test]
async fn ranges_are_cut_out_of_what_is_stored() {
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
    // A range means nothing to other methods than GET.
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

    // What is not stored is the origin's to cut.
    let page = bench.page(&[status(206, "content-range: bytes 0-0/10").body("0")]);
    assert_eq!(page.get("range: bytes=0-0\nif-range: \"a\"").await.text(), (206, "0"));
    let seen = &page.seen()[0];
    assert_eq!(
        (seen.field("range"), seen.field("if-range")),
        (Some("bytes=0-0"), Some("\"a\"")),
        "9110 14.2"
    );
}

#[tokio::test]
async fn clients_may_ask_for_less_or_more_than_what_is_fresh() {
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

    // A request that asks for something newer gets it, and others after it.
    let page = bench.page(&[ok("cache-control: max-age=60")]);
    for (request, answer) in [("", "1"), ("cache-control: no-cache", "2"), ("", "2")] {
        wrong.check(("5.2.1.4", request), page.get(request).await.answer(), Some(answer));
    }
    let page = bench.page(&[ok("cache-control: max-age=60"), status(503, "")]);
    page.get("").await;
    // What could be served without the client's wish is served when the fetch that it forced fails.
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
        // Named beside it by the response itself.
        ("5.2.2.10", "s-maxage=1, stale-if-error=60", true),
        ("5.2.2.4", "max-age=1, stale-if-error=60, no-cache", false),
    ] {
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
    // What is no failure is an answer, and an error says nothing about another one.
    for code in [400, 403, 404, 410, 429, 501, 505] {
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
async fn what_is_stale_is_served_while_it_is_validated() {
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

/// Polls until something is so.
async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(5);
    while !is_so().await {
        assert!(Instant::now() < limit, "it never came to be");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_changes_something_invalidates_it() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fresh = ok("cache-control: max-age=60");
    for (method, code, is_invalidated) in [
        ("POST", 200, true),
        ("POST", 201, true),
        ("POST", 303, true),
        ("PUT", 204, true),
        ("DELETE", 200, true),
        ("PATCH", 200, true),
        ("M-SEARCH", 200, true),
        ("UNKNOWN", 204, true),
        ("POST", 400, false),
        ("PUT", 409, false),
        ("DELETE", 404, false),
        ("UNKNOWN", 405, false),
        ("POST", 500, false),
        ("POST", 503, false),
        ("OPTIONS", 200, false),
        ("TRACE", 200, false),
    ] {
        let page = bench.page(&[fresh.clone(), status(code, "").body(""), fresh.clone()]);
        page.get("").await;
        wrong.check(("9110 9.2", method), page.send(method, "").await.status, code);
        let got = page.get("").await;
        wrong.check(("4.4", method, code), got.answer(), Some(if is_invalidated { "3" } else { "1" }));
    }

    for field in ["location", "content-location"] {
        for (prefix, code, is_invalidated) in [
            (String::new(), 201, true),
            (bench.proxy.url(""), 200, true),
            (format!("//{}", bench.proxy.addr), 200, true),
            ("http://elsewhere.example".to_owned(), 200, false),
            ("http://127.0.0.1".to_owned(), 200, false),
            ("//elsewhere.example".to_owned(), 200, false),
            (String::new(), 400, false),
            (String::new(), 500, false),
        ] {
            let named = bench.page(std::slice::from_ref(&fresh));
            named.get("").await;
            let fields = format!("{field}: {prefix}{}", named.path);
            bench.page(&[status(code, &fields)]).send("POST", "").await;
            wrong.check(("4.4", code, fields), named.get("").await.is_hit(), !is_invalidated);
        }
    }
    wrong.report();
}

#[tokio::test]
async fn an_answer_out_of_the_store_says_how_old_it_is() {
    let bench = Bench::start().await;
    let mut aging = Vec::new();
    // Aged by its field, by its date, and not at all.
    for (fields, age) in [("age: 30", 30), ("date: {-30}", 29), ("", 0)] {
        let page = bench.page(&[ok(&format!("cache-control: max-age=60\n{fields}"))]);
        let (first, second) = (page.get("").await, page.get("").await);
        assert!(second.is_hit());
        assert!((age..age + 3).contains(&second.age()), "5.1: {fields:?}: {}", second.age());
        let date = second.field("date").expect("9110 6.6.1");
        assert!(first.field("date").is_none_or(|first| first == date), "kept (4.2.3)");
        aging.push((page, second));
    }
    for (page, before) in aging {
        eventually(async || page.get("").await.age() > before.age()).await;
        assert_eq!(page.get("").await.field("date"), before.field("date"), "4.2.3");
        assert_eq!(page.calls(), 1);
    }
}

#[tokio::test]
async fn the_length_is_true_whatever_the_origin_did() {
    let bench = Bench::start().await;
    let chunked = ok("cache-control: max-age=60\ntransfer-encoding: chunked");
    for (reply, body) in [
        (ok("cache-control: max-age=60").body("0123456789"), "0123456789"),
        (ok("cache-control: max-age=60").body(""), ""),
        (ok("cache-control: max-age=60").body("0123").until_close(), "0123"),
        (chunked.body("2\r\n01\r\n1\r\n2\r\n0\r\n\r\n"), "012"),
    ] {
        let page = bench.page(&[reply]);
        let length = body.len().to_string();
        page.get("").await;
        let hit = page.get("").await;
        assert_eq!((hit.text(), hit.field("transfer-encoding")), ((200, body), None), "9112 6.2");
        assert_eq!(hit.field("content-length"), Some(&*length), "9110 8.6");
        let head = page.send("HEAD", "").await;
        assert_eq!(head.text(), (200, ""), "9110 9.3.2");
        assert_eq!(head.field("content-length"), Some(&*length), "9110 9.3.2");
        assert!(head.is_hit() && page.calls() == 1, "4");
    }
}

#[tokio::test]
async fn an_answer_to_head_is_not_one_to_get() {
    let bench = Bench::start().await;
    let page = bench.page(&[ok("cache-control: max-age=60").body("0123456789")]);
    let head = page.send("HEAD", "").await;
    assert_eq!((head.status, head.field("content-length")), (200, Some("10")), "9110 9.3.2");
    assert_eq!(page.get("").await.text(), (200, "0123456789"), "4");
    assert!(page.send("HEAD", "").await.is_hit(), "4");
    let methods: Vec<_> = page.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["HEAD", "GET"]);
}

#[tokio::test]
async fn an_answer_to_head_renews_or_removes_what_get_left() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let stored = ok(&format!("{STALE}etag: \"a\"")).body("0123456789");
    for (fields, body, is_renewed) in [
        ("etag: \"a\"", "0123456789", true),
        ("etag: \"b\"", "0123456789", false),
        ("etag: \"a\"", "01234", false),
    ] {
        let head = ok(&format!("cache-control: max-age=60\nx-new: 1\n{fields}")).body(body);
        let page = bench.page(&[stored.clone(), head, ok("")]);
        page.get("").await;
        page.send("HEAD", "").await;
        let got = page.get("").await;
        let renewed = (got.is_hit(), got.field("x-new"), got.body.as_deref());
        let expected =
            if is_renewed { (true, Some("1"), Some("0123456789")) } else { (false, None, Some("3")) };
        wrong.check(("4.3.5", fields, body), renewed, expected);
        wrong.check(("4.3.5", fields, body), page.seen().last().unwrap().field("if-none-match"), None);
    }
    wrong.report();
}

#[tokio::test]
async fn cache_status_says_how_an_answer_came_about() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let fresh = "cache-control: max-age=60\nvary: x";
    let twice = |reply: Reply| vec![reply.clone(), reply];
    for (section, replies, first, second, expected) in [
        ("9211 2.1", twice(ok(fresh)), "", "", None),
        ("9211 2.2", twice(ok(fresh)), "", "x: 1", Some(("vary-miss", true))),
        ("9211 2.2", twice(ok(fresh)), "", "cache-control: no-cache", Some(("request", true))),
        ("9211 2.2", twice(ok("cache-control: no-store")), "", "", Some(("bypass", false))),
        ("9211 2.2", vec![ok(STALE), ok(fresh)], "", "", Some(("stale", true))),
        ("9211 2.2", vec![ok(STALE), ok("cache-control: private")], "", "", Some(("stale", false))),
    ] {
        let page = bench.page(&replies);
        let miss = page.get(first).await;
        wrong.check("9211 2.2", miss.forwarded().as_deref(), Some("uri-miss"));
        let got = page.get(second).await;
        let is_stored = got.cache_status().get("stored") == Some(&BareItem::Boolean(true));
        wrong.check((section, second), got.is_hit(), expected.is_none());
        let forwarded = got.forwarded();
        let found = forwarded.as_deref().map(|why| (why, is_stored));
        wrong.check((section, second, &replies), found, expected);
    }
    wrong.report();

    // Those of other caches come first, the one nearest to the origin in front of all.
    let page = bench.page(&[ok(&format!("{fresh}\ncache-status: Inner; fwd=miss; stored, Middle; hit"))]);
    for _ in 0..2 {
        let members = page.get("").await.fields("cache-status").join(", ");
        assert!(
            members.starts_with("Inner; fwd=miss; stored, Middle; hit, tower-readthrough;"),
            "9211 2: {members}"
        );
    }
}
