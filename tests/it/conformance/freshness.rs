//! How long a response is fresh (RFC 9111 §4.2, §5.2, §5.3, RFC 9213).

use super::*;

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
        // The shortest lifetime that the value could mean.
        ("4.2.1", "cache-control: max-age=60;x", REUSED),
        ("4.2.1", "cache-control: max-age=", ASKED),
        ("4.2.1", "cache-control: max-age", ASKED),
        // Of two values the first counts.
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
        // Extensions, and members that only look like a directive.
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
        // Of two values the first counts.
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
        // A Date gives the age of a response too.
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
        // In responses it has no meaning.
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
        // A field that cannot be parsed, or is empty, is ignored as a whole.
        ("9213 2.2", "cdn-cache-control:\ncache-control: max-age=60", REUSED),
        ("9213 2.2", "cdn-cache-control:\ncache-control: no-store", ASKED),
        // Except for a directive that forbids storing.
        ("9213 2.1", "cdn-cache-control: no-store, &\ncache-control: max-age=60", ASKED),
        ("9213 2.1", "cdn-cache-control: max-age=60, &\ncache-control: no-store", ASKED),
        ("9213 2.1", "cdn-cache-control: Max-Age=0\ncache-control: max-age=60", REUSED),
        ("9213 2.1", "cdn-cache-control: Max-Age=60\ncache-control: no-store", ASKED),
        ("9213 2.1", "cdn-cache-control: max-age= 60", ASKED),
        // Fields for other caches do not count.
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
    // RFC 6585 forbids it for 428, 429, 431 and 511. The others are about one message too, and
    // RFC 9111 §2 leaves the storing of each response to the cache.
    for code in [400, 405, 414, 421, 425, 428, 429, 431, 501, 505, 511] {
        let page = bench.page(&[status(code, "cache-control: public, max-age=60").body("")]);
        wrong.check(("3", code), is_reused(&page, "").await, ASKED);
    }
    wrong.report();
}

#[tokio::test]
async fn a_heuristic_lifetime_is_for_statuses_that_are_cacheable_by_default() {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    let by_default = [200, 203, 204, 300, 301, 308, 404, 410, 451];
    let others = [201, 202, 299, 302, 303, 307, 403, 418, 499, 500, 502, 503, 504, 599];
    for code in by_default.into_iter().chain(others) {
        // Else so many failures in a row would take the origin down.
        let bench = Bench::start().await;
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
