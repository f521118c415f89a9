//! Counts in tests how many bytes of requests are read: the cost of a request must be proportional to its
//! length.

#[cfg(test)]
thread_local! {
    static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Notes that bytes of a request are read.
#[inline(always)]
pub(crate) fn looked_at(bytes: usize) {
    #[cfg(test)]
    LOOKED_AT.with(|sum| sum.set(sum.get() + bytes));
    #[cfg(not(test))]
    let _ = bytes;
}

/// Whether both are equal. Different lengths are found without reading the bytes.
#[inline(always)]
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    #[cfg(test)]
    if one.len() == other.len() {
        looked_at(one.iter().zip(other).take_while(|(one, other)| one == other).count());
    }
    one == other
}

/// Whether both are equal without case.
#[inline(always)]
pub(crate) fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    #[cfg(test)]
    if one.len() == other.len() {
        looked_at(one.len());
    }
    one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
