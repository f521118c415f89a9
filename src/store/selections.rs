//! What selects stored responses, once for many of them.
//!
//! Most clients accept one of a few things. What all hits on their answers are compared with is the
//! same in memory, and stays in the processor's cache.

use std::{hash::BuildHasher, sync::LazyLock};

use http::{HeaderName, header};
use parking_lot::Mutex;
use quick_cache::DefaultHashBuilder;

use crate::http::vary::Selection;

/// As they were stored last.
static COMMON: [Mutex<Option<Selection>>; 64] = [const { Mutex::new(None) }; 64];

static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Larger ones are not worth it.
const MAX_BYTES: usize = 512;

/// The same, to be stored with a response.
pub(super) fn common(selection: Selection) -> Selection {
    if selection.heap_bytes() > MAX_BYTES || !selection.fields().iter().all(has_few_values) {
        return selection;
    }
    let mut common = COMMON[HASHER.hash_one(&selection) as usize % COMMON.len()].lock();
    match &*common {
        Some(known) if known.is_written_as(&selection) => known.clone(),
        _ => {
            let before = common.replace(selection.clone());
            drop(common);
            drop(before);
            selection
        }
    }
}

/// What many clients say alike. All else may be a secret of one, not to be kept beyond its response.
fn has_few_values(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::ACCEPT_CHARSET
            | header::ORIGIN
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use std::sync::Arc;

    fn alike(second: HeaderName, value: &str) -> Selection {
        let fields = Arc::from([header::ACCEPT_ENCODING, second]);
        let mut request = HeaderMap::new();
        for (name, value) in [(header::ACCEPT_ENCODING, value), (header::ORIGIN, "a"), (header::COOKIE, "a")]
        {
            request.insert(name, value.parse().unwrap());
        }
        common(Selection::new(&fields, &request))
    }

    #[test]
    fn selections_that_are_written_alike_are_the_same_in_memory() {
        let of = |value| alike(header::ORIGIN, value);
        let first = of("gzip, br");
        assert!(first.is_same_memory(&of("gzip, br")));
        // It means the same, but what is written like this must not be compared the slow way.
        let other = of("br, gzip");
        assert!(other == first && !other.is_same_memory(&first));
        assert!(other.is_same_memory(&of("br, gzip")));
    }

    #[test]
    fn what_is_long_or_may_be_secret_is_not_kept() {
        let long = "x".repeat(MAX_BYTES);
        assert!(!alike(header::ORIGIN, &long).is_same_memory(&alike(header::ORIGIN, &long)));
        assert!(!alike(header::COOKIE, "gzip").is_same_memory(&alike(header::COOKIE, "gzip")));
    }
}
