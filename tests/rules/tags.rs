//! Tags that rules and responses give.
