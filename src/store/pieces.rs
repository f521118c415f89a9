//! Bytes in the pieces in which they came, so that they can be put together without a copy.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Two neighbours that are no longer than this together are put into one piece. So the pieces are few,
/// and what is copied to join some is bounded, however long they are.
const SMALL: usize = 64 << 10;

/// Pieces that are no longer than this together become one at once. Longer ones in the background.
pub(super) const AT_ONCE: usize = 4 * SMALL;

#[cfg(test)]
thread_local! {
    pub(super) static COPIED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Copies, and counts that in tests.
fn copy(bytes: &[u8], to: &mut BytesMut) {
    #[cfg(test)]
    COPIED.with(|copied| copied.set(copied.get() + bytes.len()));
    to.extend_from_slice(bytes);
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces(Vec<Bytes>);

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Vec::new() } else { vec![bytes] })
    }
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// What they cost to keep.
    pub(super) fn bytes(&self) -> usize {
        self.len() + self.0.capacity() * size_of::<Bytes>()
    }

    /// These bytes of them, without a copy.
    pub(super) fn slice(&self, mut range: Range<usize>) -> Vec<Bytes> {
        let mut slices = Vec::new();
        for piece in &self.0 {
            let (start, end) = (range.start.min(piece.len()), range.end.min(piece.len()));
            if start < end {
                slices.push(piece.slice(start..end));
            }
            range = range.start.saturating_sub(piece.len())..range.end.saturating_sub(piece.len());
        }
        slices
    }

    /// These bytes of them, as they are to be kept: what is cut off must not keep the rest in memory.
    pub(super) fn cut(&self, range: Range<usize>) -> Self {
        if range == (0..self.len()) {
            return self.clone();
        }
        let mut bytes = BytesMut::with_capacity(range.len());
        self.slice(range).iter().for_each(|piece| copy(piece, &mut bytes));
        bytes.freeze().into()
    }

    /// One after the other.
    pub(super) fn append(&mut self, other: &Self) {
        let mut others = other.0.iter();
        if let (Some(last), Some(first)) = (self.0.last_mut(), other.0.first())
            && last.len() + first.len() <= SMALL
        {
            let mut joined = BytesMut::with_capacity(last.len() + first.len());
            copy(last, &mut joined);
            copy(first, &mut joined);
            *last = joined.freeze();
            others.next();
        }
        self.0.reserve_exact(others.len());
        self.0.extend(others.cloned());
    }

    /// In one piece, if that costs little.
    pub(super) fn as_one(&self) -> Option<Bytes> {
        match &*self.0 {
            [] => Some(Bytes::new()),
            [one] => Some(one.clone()),
            _ if self.len() > AT_ONCE => None,
            pieces => {
                let mut bytes = BytesMut::with_capacity(self.len());
                pieces.iter().for_each(|piece| copy(piece, &mut bytes));
                Some(bytes.freeze())
            }
        }
    }

    /// In one piece, with a turn for other tasks now and then.
    pub(super) async fn assembled(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.len());
        for chunk in self.0.iter().flat_map(|piece| piece.chunks(AT_ONCE)) {
            copy(chunk, &mut bytes);
            tokio::task::yield_now().await;
        }
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(lengths: &[usize]) -> Pieces {
        let mut next = 0_u8;
        let mut made = Pieces::default();
        for length in lengths {
            let piece: Bytes = std::iter::repeat_with(|| {
                next = next.wrapping_add(1);
                next
            })
            .take(*length)
            .collect();
            made.append(&piece.into());
        }
        made
    }

    #[test]
    fn every_slice_is_what_it_would_be_of_one_piece() {
        let several = pieces(&[SMALL, 3, SMALL, 5]);
        assert_eq!(several.0.len(), 4, "none fits with its neighbour");
        let one = several.as_one().unwrap();
        for range in
            [0..1, 0..one.len(), SMALL - 1..SMALL + 4, SMALL + 1..SMALL + 2, one.len() - 1..one.len()]
        {
            assert_eq!(several.slice(range.clone()).concat(), one[range.clone()]);
            assert_eq!(several.cut(range.clone()).as_one().unwrap(), one[range]);
        }
    }

    #[test]
    fn to_append_a_byte_costs_no_more_than_the_last_piece_that_is_small() {
        let mut many = pieces(&[16 << 20]);
        COPIED.set(0);
        for n in 1..=1000 {
            many.append(&Bytes::from_static(b"x").into());
            assert!(many.0.len() <= 2);
            assert!(COPIED.take() <= n);
        }
        for _ in 0..SMALL {
            many.append(&Bytes::from_static(b"x").into());
            assert!(COPIED.take() <= SMALL);
        }
        assert_eq!(many.0.len(), 3);
        assert_eq!(many.len(), (16 << 20) + 1000 + SMALL);
    }
}
