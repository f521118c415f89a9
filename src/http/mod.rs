//! The rules of HTTP caching as pure functions over header fields and times.
//!
//! Nothing here does I/O, takes a lock or knows Tower: results depend on arguments alone.

pub(crate) mod bounds;
pub(crate) mod cache_control;
pub(crate) mod conditions;
pub(crate) mod cookies;
pub(crate) mod credentials;
pub(crate) mod date;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod freshness;
pub(crate) mod made;
pub(crate) mod overrides;
pub(crate) mod range;
pub(crate) mod request_fields;
pub(crate) mod response_fields;
pub(crate) mod rules;
pub(crate) mod storing;
pub(crate) mod tag_fields;
pub(crate) mod vary;
pub(crate) mod weight;
pub(crate) mod withheld;
