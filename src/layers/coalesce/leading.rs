//! Which fetches the code that runs now is a part of.

use std::sync::Arc;

use super::slots::Flights;
use crate::key::CacheKey;

tokio::task_local! {
    /// Set while a fetch is polled, up to the first task that the service below spawns.
    static LEADING: Leading;
}

/// A fetch under way, and the one whose service made the request for it.
#[derive(Clone)]
struct Leading {
    /// The address of the layer's table, for comparison alone.
    slots: usize,
    key: CacheKey,
    within: Option<Arc<Self>>,
}

/// Runs a fetch so that requests made below it are recognised.
pub(super) fn lead<F: Future>(
    slots: &Arc<Flights>,
    key: CacheKey,
    fetch: F,
) -> impl Future<Output = F::Output> + use<F> {
    let within = LEADING.try_with(|outer| Arc::new(outer.clone())).ok();
    LEADING.scope(Leading { slots: address(slots), key, within }, fetch)
}

/// Whether this code runs below a fetch of this key by this layer, for which it must not wait.
pub(super) fn leads(slots: &Arc<Flights>, key: &CacheKey) -> bool {
    let is_led = |innermost: &Leading| {
        std::iter::successors(Some(innermost), |leading| leading.within.as_deref())
            .any(|leading| leading.slots == address(slots) && leading.key == *key)
    };
    LEADING.try_with(is_led).unwrap_or(false)
}

fn address(slots: &Arc<Flights>) -> usize {
    Arc::as_ptr(slots).addr()
}
