//! The `proxy` example, as a program on real sockets, held against the text of the RFCs: 9110
//! (HTTP), 9111 (caching), 5861 (stale responses), 8246 (`immutable`), 9211 (`Cache-Status`) and
//! 9213 (`CDN-Cache-Control`). A section without a number is one of RFC 9111.
//!
//! Ages are set by `Age`, `Date` and `Expires` instead of waiting. `cargo test` builds the
//! examples before it runs this; alone, it needs `cargo build --example proxy` first.

mod conditions;
mod directives;
mod freshness;
mod invalidation;
mod ranges;
mod responses;
mod stale;
mod storing;
mod validation;
mod variants;

use crate::sockets::bench::{Bench, Got, Page, Reply, closed, ok, status};
use sfv::BareItem;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The second request is a hit.
const REUSED: bool = true;

/// The second request goes to the origin too.
const ASKED: bool = false;

/// Sends the same request twice, and returns whether the second was a hit.
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

/// The cases that failed, reported together.
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

/// Checks each response: section, fields of the response, whether a second request reuses it.
async fn reuse_of_answers(rows: &[(&str, &str, bool)]) {
    let bench = Bench::start().await;
    let mut wrong = Wrong::default();
    for (section, fields, expected) in rows {
        let page = bench.page(&[ok(fields)]);
        wrong.check((section, fields), is_reused(&page, "").await, *expected);
    }
    wrong.report();
}

/// Stale from the start, and kept.
const STALE: &str = "cache-control: max-age=1\nage: 10\n";

/// Polls until a condition holds.
async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(5);
    while !is_so().await {
        assert!(Instant::now() < limit, "it never came to be");
        sleep(Duration::from_millis(20)).await;
    }
}
