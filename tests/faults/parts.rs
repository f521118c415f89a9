//! Ranges, parts, and heads that the cache makes itself.
