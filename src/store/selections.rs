//! What selects stored responses, once for many of them.
//!
//! Most clients accept one of a few things. Sharing the selection of their responses saves a miss four
//! allocations and each of these responses about 200 bytes.

use std::{
    hash::BuildHasher,
    sync::{Arc, LazyLock},
};

use http::{HeaderName, header};
use parking_lot::Mutex;
use quick_cache::DefaultHashBuilder;
use smallvec::SmallVec;

use crate::http::{
    request_fields::{Line, RequestFields},
    vary::{Selection, Vary},
};

/// As they were stored last.
static COMMON: [Mutex<Option<Selection>>; 64] = [const { Mutex::new(None) }; 64];

static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Larger ones are not worth it.
const MAX_BYTES: usize = 512;

/// Returns what a request has for the fields that a response to it names, to be stored with the response.
pub(crate) fn selection(vary: &Vary, request: &RequestFields<'_>) -> Option<Selection> {
    match vary {
        Vary::Fields(fields) if fields.iter().all(has_few_values) => Some(common(fields, request)),
        vary => vary.selection(request.fields),
    }
}

/// Most often it is known, and then nothing is allocated.
fn common(fields: &Arc<[HeaderName]>, request: &RequestFields<'_>) -> Selection {
    let lines: SmallVec<[Line<'_>; 4]> = fields.iter().map(|name| request.line(name)).collect();
    let slot = &COMMON[HASHER.hash_one(&lines) as usize % COMMON.len()];
    if let Some(known) = &*slot.lock()
        && known.is_written_in(fields, &lines)
    {
        return known.clone();
    }
    let selection = Selection::new(fields, request.fields);
    if selection.heap_bytes() <= MAX_BYTES {
        let before = slot.lock().replace(selection.clone());
        // Where nothing is locked.
        drop(before);
    }
    selection
}

/// Whether many clients send the same value. All else may be a secret of one client, not to be kept beyond
/// its response.
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

    fn alike(second: HeaderName, value: &str) -> Selection {
        let fields = Arc::from([header::ACCEPT_ENCODING, second]);
        let mut request = HeaderMap::new();
        for (name, value) in [(header::ACCEPT_ENCODING, value), (header::ORIGIN, "a"), (header::COOKIE, "a")]
        {
            request.insert(name, value.parse().unwrap());
        }
        super::selection(&Vary::Fields(fields), &RequestFields::of(&request)).unwrap()
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
