//! What a [gate](super::gate) shares between threads, so that a test can run the same code under primitives that
//! explore interleavings.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

pub(super) use parking_lot::Mutex;
