//! The `proxy` example as a program, and origins that answer over real sockets.

pub(crate) mod bench;
pub(crate) mod program;
pub(crate) mod raw;
