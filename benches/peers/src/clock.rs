//! What the system says about this process.
#![allow(unsafe_code, reason = "the CPU time of a thread is a call into libc")]

fn read(clock: libc::clockid_t) -> (u64, u64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64, time.tv_nsec as u64)
}

/// CPU time of this thread, in ns: time taken by other processes does not count.
#[inline]
pub(crate) fn thread_cpu_ns() -> u64 {
    let (seconds, ns) = read(libc::CLOCK_THREAD_CPUTIME_ID);
    seconds * 1_000_000_000 + ns
}

/// CPU time of all threads of this process, in ns.
pub(crate) fn process_cpu_ns() -> u64 {
    let (seconds, ns) = read(libc::CLOCK_PROCESS_CPUTIME_ID);
    seconds * 1_000_000_000 + ns
}

/// Monotonic ms from the kernel's tick (a few ms of resolution): cheaper than `Instant::now()`.
#[inline]
pub(crate) fn coarse_ms() -> u64 {
    let (seconds, ns) = read(libc::CLOCK_MONOTONIC_COARSE);
    seconds * 1000 + ns / 1_000_000
}

/// A field of `/proc/self/status` that is given in KiB, in MiB.
pub(crate) fn status_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib =
        line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
