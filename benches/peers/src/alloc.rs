//! Counting allocator: per-thread counters (one instruction each), and live/peak bytes when on.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
};

#[cfg(not(feature = "mimalloc"))]
use std::alloc::System as Inner;
#[cfg(feature = "mimalloc")]
#[allow(non_upper_case_globals)]
static Inner: mimalloc::MiMalloc = mimalloc::MiMalloc;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

static TRACKING: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

pub(crate) struct Counting;

#[inline]
fn add(n: usize) {
    _ = COUNT.try_with(|count| count.set(count.get() + 1));
    _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + n as u64));
    track(n as i64);
}

#[inline]
fn track(change: i64) {
    if TRACKING.load(Relaxed) {
        let now = LIVE.fetch_add(change, Relaxed) + change;
        if change > 0 && now > PEAK.load(Relaxed) {
            PEAK.fetch_max(now, Relaxed);
        }
    }
}

// SAFETY: everything is handed to another allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { Inner.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { Inner.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        track(-(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { Inner.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        track(-(layout.size() as i64));
        add(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { Inner.realloc(block, layout, size) }
    }
}

/// Allocations and bytes of this thread so far.
#[inline]
pub(crate) fn counters() -> (u64, u64) {
    (COUNT.with(Cell::get), BYTES.with(Cell::get))
}

/// Counts live and peak bytes of all threads from here on.
pub(crate) fn track_from_here() {
    TRACKING.store(true, Relaxed);
}

/// Bytes allocated and not freed since [`track_from_here`].
pub(crate) fn live() -> f64 {
    LIVE.load(Relaxed) as f64
}

/// The most of them at any time.
pub(crate) fn peak() -> f64 {
    PEAK.load(Relaxed) as f64
}
