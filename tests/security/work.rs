//! Work and memory that a crafted request costs.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use tower::Layer;
use tower_readthrough::{CacheKey, KeyExtractor, KeyRules, ReadThrough};

use crate::support::open::{Origin, bytes, fixed, response, store};
use tower::ServiceExt;

/// What is measured is work, which takes real time.
#[allow(clippy::disallowed_methods)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Far more than reading it once takes, and far less than reading it once for each of its members.
const LIMIT: Duration = Duration::from_secs(1);

/// How long a service takes for a request that it answers from the store. Only the second of two is
/// measured.
async fn time_of(
    cache: ReadThrough<tower_readthrough::MemoryStore, impl KeyExtractor>,
    fields: &[(&str, &str)],
) -> Duration {
    let origin = Origin::new(|_, _| async { response(&[("vary", "accept-language")], "x") });
    let service = cache.rules(fixed(60_000)).build().unwrap().layer(origin);
    let mut taken = Duration::ZERO;
    for _ in 0..2 {
        let request = fields
            .iter()
            .fold(Request::get("http://h/"), |request, (name, value)| request.header(*name, *value));
        let began = now();
        bytes(service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await;
        taken = began.elapsed();
    }
    taken
}

mod quadratic_fields {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn languages_that_are_refused_are_not_looked_for_again_and_again() {
        let keys = KeyRules::builder().accept_language(["en", "de"]).build().unwrap();
        let line = format!("en;q=0{}", ",en".repeat(10_000));
        let taken = time_of(ReadThrough::new(store()).key(keys), &[("accept-language", &line)]).await;
        assert!(taken < LIMIT, "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn quotation_marks_that_are_never_closed_are_read_once() {
        let cache = || ReadThrough::new(store()).lookup(|lookup| lookup.request_directives(true));
        for name in ["cache-control", "pragma"] {
            let line = "\"".to_owned() + &"\\\"".repeat(20_000);
            let taken = time_of(cache(), &[(name, &line)]).await;
            assert!(taken < LIMIT, "{name}: {taken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_selecting_field_is_not_normalised_for_each_variant() {
        let one = |_: &http::request::Parts| Some(CacheKey::new("one"));
        let origin = Origin::new(|_, _| async { response(&[("vary", "accept, accept-language")], "x") });
        let cache = ReadThrough::new(store()).key(one).rules(fixed(60_000)).build().unwrap();
        let service = cache.layer(origin.clone());
        let ask = async |last: u32, lines: u32| {
            let long = format!("{}x{last}", "a,".repeat(30_000));
            let request = Request::get("http://h/").header("accept-language", &long);
            let request = (0..lines).fold(request, |request, at| {
                request.header("accept", format!("{long}{at}")).header("accept-language", &long)
            });
            let began = now();
            bytes(service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await;
            began.elapsed()
        };
        for lines in [0, 2] {
            for last in 0..16 {
                ask(last, lines).await;
            }
        }
        let calls = origin.calls();
        for lines in [0, 2] {
            let taken = ask(3, lines).await;
            assert!(taken < LIMIT / 20, "{taken:?}");
        }
        assert_eq!(origin.calls(), calls, "stored");
    }
}
