//! Why what is stored does not answer a request (RFC 9211 §2.2).

use tokio::time::Instant;

use super::request::Question;
use crate::{
    exchange::status::{CacheStatus, Forward},
    http::vary::Forms,
    sequence::{Loss, Sequence},
    store::{Entry, Part, StoredResponse},
};

/// Of a request that selects this response, which is not fresh.
pub(super) fn selected(stored: &StoredResponse, now: Instant) -> CacheStatus {
    match stored.is_stale_by_purge(now) {
        true => CacheStatus::lost(Loss::Purged),
        false => CacheStatus::forwarded(Forward::Stale),
    }
}

/// Of a request that selects no whole response, and whose key is not marked.
///
/// What is purged counts only where nothing else is left: it may be given back at any time, and that
/// must make no difference.
pub(super) fn unselected(
    resource: Option<&Entry>,
    question: &Question<'_>,
    sequence: &Sequence,
) -> CacheStatus {
    let Question { key, glance, now, .. } = question;
    let Some(resource) = resource else { return lost_or_missing(sequence, key.as_bytes()) };
    let is_left = |stored: &&StoredResponse| sequence.admits(stored);
    let variants = || resource.variants().iter().map(|variant| &**variant);
    // Only the credentials of the request keep it from this one.
    let mut forms = Forms::default();
    let is_selected = |variant: &&StoredResponse| variant.is_selected_by(glance, &mut forms);
    if let Some(barred) = variants().filter(is_left).find(is_selected) {
        let why = if barred.is_fresh(*now) { Forward::Request } else { Forward::Stale };
        return CacheStatus::forwarded(why);
    }
    let mut forms = Forms::default();
    let has_part = |part: &Part| {
        let response = part.response();
        sequence.admits(response) && response.is_fresh(*now) && response.matches(glance, &mut forms)
    };
    if resource.parts().any(has_part) {
        return CacheStatus::forwarded(Forward::Partial);
    }
    if variants().any(|variant| is_left(&variant)) {
        return CacheStatus::forwarded(Forward::VaryMiss);
    }
    let mut lost = variants().chain(resource.parts().map(|part| &**part.response()));
    match lost.find(|stored| !is_left(stored)) {
        Some(lost) => CacheStatus::lost(sequence.loss(lost)),
        None => lost_or_missing(sequence, key.as_bytes()),
    }
}

fn lost_or_missing(sequence: &Sequence, key: &[u8]) -> CacheStatus {
    sequence.loss_of_key(key).map_or(CacheStatus::forwarded(Forward::UriMiss), CacheStatus::lost)
}
