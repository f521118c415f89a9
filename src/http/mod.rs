//! The rules of HTTP caching as pure functions over header fields and times.
//!
//! Nothing here does I/O, takes a lock or knows Tower: results depend on arguments alone.

pub(crate) mod cache_control;
pub(crate) mod conditions;
pub(crate) mod cookies;
pub(crate) mod fields;
pub(crate) mod not_stored;
pub(crate) mod request_fields;
pub(crate) mod response_fields;
pub(crate) mod rules;
pub(crate) mod storing;
pub(crate) mod vary;
