//! The layers: everything in this crate that knows Tower.

#[cfg(feature = "body-key")]
pub(crate) mod body_key;
pub mod coalesce;
pub(crate) mod eager_oneshot;
pub mod fill;
pub(crate) mod future;
pub(crate) mod invalidation;
pub(crate) mod key;
pub mod lookup;
pub mod origin_limit;
pub mod retry;
pub mod stale_if_error;
pub(crate) mod store_layer;
