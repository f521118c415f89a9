//! What [`core`](super::core) shares between threads, so that a test can run the same code
//! under primitives that explore interleavings.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use parking_lot::{Mutex, RwLock};
