//! The `proxy` example as a program, and origins on real sockets.

pub(crate) mod bench;
pub(crate) mod program;
pub(crate) mod raw;
