//! Stored errors, entries pushed out, and one client's failure for all.

use http::Request;
use tower::Layer;
use tower_readthrough::{MemoryStore, ReadThrough};

use crate::support::{Body, ScriptedOrigin, call, fixed, ms, response, stack};

type Service = ReadThrough<ScriptedOrigin, MemoryStore>;

/// An application with a page for each language that a client names.
fn by_language() -> (Service, ScriptedOrigin) {
    let origin = ScriptedOrigin::with_future(|_, _| async { response(&[("vary", "x-language")], "x") });
    (stack(fixed(3_600_000)).layer(origin.clone()), origin)
}

/// Whether the origin was asked.
async fn is_miss((service, origin): &(Service, ScriptedOrigin), language: &str) -> bool {
    let calls = origin.calls();
    call(service, Request::get("http://h/").header("x-language", language).body(Body::empty()).unwrap())
        .await;
    origin.calls() > calls
}

mod made_up_variants {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn unused_variants_are_replaced_first() {
        let site = by_language();
        let in_use = ["en", "de", "fr"];
        for language in in_use {
            assert!(is_miss(&site, language).await);
            assert!(!is_miss(&site, language).await);
        }
        for made_up in 0..100 {
            tokio::time::advance(ms(100)).await;
            assert!(is_miss(&site, &format!("made-up-{made_up}")).await);
        }
        for language in in_use {
            assert!(!is_miss(&site, language).await, "{language}");
        }
    }

    /// Otherwise variants that were in use once would keep out those in use now.
    #[tokio::test(start_paused = true)]
    async fn variants_no_longer_in_use_are_replaced() {
        let site = by_language();
        for language in 0..32 {
            is_miss(&site, &language.to_string()).await;
            assert!(!is_miss(&site, &language.to_string()).await);
        }
        tokio::time::advance(ms(600_000)).await;
        assert!(!is_miss(&site, "7").await);
        for language in ["new", "newer"] {
            assert!(is_miss(&site, language).await);
        }
        for language in ["new", "newer", "7"] {
            assert!(!is_miss(&site, language).await, "{language}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_used_variant_is_replaced() {
        let site = by_language();
        for language in 0..32 {
            is_miss(&site, &language.to_string()).await;
        }
        for language in (0..32).rev() {
            tokio::time::advance(ms(1000)).await;
            assert!(!is_miss(&site, &language.to_string()).await);
        }
        assert!(is_miss(&site, "new").await);
        assert!(!is_miss(&site, "new").await && !is_miss(&site, "0").await && !is_miss(&site, "30").await);
        assert!(is_miss(&site, "31").await);
    }

    /// Most hits of a thread are served from its own copy of an entry.
    #[tokio::test(start_paused = true)]
    async fn a_hit_of_a_copy_counts_as_use() {
        let site = by_language();
        is_miss(&site, "other").await;
        is_miss(&site, "en").await;
        for _ in 0..100 {
            tokio::time::advance(ms(100)).await;
            assert!(!is_miss(&site, "en").await);
        }
        for made_up in 0..100 {
            assert!(is_miss(&site, &format!("made-up-{made_up}")).await);
        }
        assert!(!is_miss(&site, "en").await);
    }
}
