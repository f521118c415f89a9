//! The layers: everything in this crate that knows Tower.

#[cfg(feature = "body-key")]
pub(crate) mod body_key;
pub mod coalesce;
pub(crate) mod derived_key;
pub mod fill;
pub(crate) mod invalidation;
pub(crate) mod key;
pub mod lookup;
pub mod origin_limit;
pub mod probe;
pub(crate) mod repeat;
pub mod retry;
pub(crate) mod service;
pub mod stale_if_error;
#[cfg(feature = "redis")]
pub mod tier;
pub mod warm_up;
