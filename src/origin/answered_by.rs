use std::num::NonZeroU8;

/// Which of several origins a response came from: in its extensions, put there by
/// [`Failover`](crate::Failover).
///
/// Callers that share the fetch of another one get the response without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AnsweredBy(NonZeroU8);

impl AnsweredBy {
    /// The origin at this index. `None`: beyond all that there can be.
    pub(crate) fn at(index: usize) -> Option<Self> {
        let number = u8::try_from(index).ok()?.checked_add(1)?;
        NonZeroU8::new(number).map(Self)
    }

    /// Returns the index of the origin. 0: the first.
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_kept_in_one_byte() {
        for index in [0, 1, 254] {
            assert_eq!(AnsweredBy::at(index).unwrap().index(), index);
        }
        assert_eq!(AnsweredBy::at(255), None);
        assert_eq!(AnsweredBy::at(usize::MAX), None);
        assert_eq!(size_of::<Option<AnsweredBy>>(), 1);
    }
}
