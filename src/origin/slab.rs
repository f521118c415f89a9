//! Values under small numbers.

/// More room than this is given back when nothing is kept.
const KEPT_ROOM: usize = 64;

/// Values, each under a number that is its own for as long as it is kept. It has room for as many as were kept
/// at the same time.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

/// The number of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> Slot {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // Each stands for an attempt under way: there is no memory for so many.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(slot) = self.slots.get_mut(number as usize) {
            *slot = Some(value);
        }
        Slot(number)
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<&T> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub(super) fn remove(&mut self, Slot(number): Slot) -> Option<T> {
        let value = self.slots.get_mut(number as usize)?.take()?;
        self.free.push(number);
        if self.free.len() == self.slots.len() && self.slots.capacity() > KEPT_ROOM {
            (self.slots, self.free) = (Vec::new(), Vec::new());
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_again_and_never_twice_at_the_same_time() {
        let mut slab = Slab::new();
        let (one, two) = (slab.insert("one"), slab.insert("two"));
        assert_eq!((slab.get(&one), slab.get(&two)), (Some(&"one"), Some(&"two")));
        assert_eq!(slab.remove(one), Some("one"));
        let three = slab.insert("three");
        assert_eq!(three, Slot(0));
        assert_eq!(slab.remove(two), Some("two"));
        assert_eq!(slab.remove(three), Some("three"));
        assert_eq!(slab.get(&Slot(0)), None);
    }

    #[test]
    fn room_for_many_is_given_back() {
        let mut slab = Slab::new();
        let slots: Vec<_> = (0..1_000).map(|value| slab.insert(value)).collect();
        for (value, slot) in slots.into_iter().enumerate() {
            assert!(slab.slots.capacity() >= 1_000);
            assert_eq!(slab.remove(slot), Some(value));
        }
        assert_eq!((slab.slots.capacity(), slab.free.capacity()), (0, 0));
        // Room for a few is not asked for again and again.
        let slot = slab.insert(1);
        slab.remove(slot);
        assert!(slab.slots.capacity() > 0);
    }
}
