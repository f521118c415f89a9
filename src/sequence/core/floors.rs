//! The floors of places, and where anything began that a purge could reach.

use super::{
    super::sync::{AtomicU64, Ordering},
    FloorIndex, Loss,
};

/// For each place the number of its last purge, and whether anything began there since.
///
/// Both are in one word, and every change is a read-modify-write of it: they have one order for each
/// place, and whoever changes it sees what others did before they changed it.
#[derive(Debug)]
pub(super) struct Floors(Box<[AtomicU64]>);

/// Something began.
const BEGUN: u64 = 1;

/// The last purge was the doing of an unsafe request.
const UNSAFE: u64 = 1 << 1;

/// The number is in the bits from here on.
const NUMBER: u32 = 2;

impl Floors {
    pub(super) fn new(floors: usize) -> Self {
        Self((0..floors).map(|_| AtomicU64::new(0)).collect())
    }

    /// The number of the last purge; 0 if there was none.
    pub(super) fn at(&self, place: FloorIndex) -> u64 {
        self.word(place).map_or(0, |word| word.load(Ordering::Acquire) >> NUMBER)
    }

    /// Whether the last purge was the doing of an unsafe request.
    pub(super) fn is_invalidated(&self, place: FloorIndex) -> bool {
        self.word(place).is_some_and(|word| word.load(Ordering::Acquire) & UNSAFE != 0)
    }

    /// A purge with this number, which reaches all that began so far.
    pub(super) fn raise(&self, place: FloorIndex, number: u64, loss: Loss) {
        let by = if loss == Loss::Invalidated { UNSAFE } else { 0 };
        if let Some(word) = self.word(place) {
            word.swap(number << NUMBER | by, Ordering::AcqRel);
        }
    }

    /// Something begins that purges are to reach.
    pub(super) fn begin(&self, place: FloorIndex) {
        if let Some(word) = self.word(place) {
            word.fetch_or(BEGUN, Ordering::AcqRel);
        }
    }

    /// The number of the last purge, if nothing began since. Who begins after this was asked sees all
    /// that the caller did before: hence no mere load.
    pub(super) fn idle_since(&self, place: FloorIndex) -> Option<u64> {
        let word = self.word(place).map_or(0, |word| word.fetch_or(0, Ordering::AcqRel));
        (word & BEGUN == 0).then_some(word >> NUMBER)
    }

    fn word(&self, place: FloorIndex) -> Option<&AtomicU64> {
        self.0.get(place.0 as usize)
    }
}
