//! `Vary` (RFC 9111 §4.1).

use super::*;

#[tokio::test]
async fn a_response_is_reused_for_requests_that_match_its_vary() {
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
        // A Vary that no request matches.
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

    // Responses to one URI, each with another Vary.
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
