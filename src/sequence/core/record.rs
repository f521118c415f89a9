//! What is remembered of the purges of one thing.

/// The numbers of the last two purges; 0 where there was none.
///
/// Two, so that a fetch during which the same thing is purged is still given to those who came
/// before that. With three or more purges within one fetch the answer errs on the safe side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) last: u64,
    before: u64,
}

impl Numbers {
    fn push(&mut self, number: u64) {
        *self = Self { last: number, before: self.last };
    }

    /// Whether there may be one above `after` and not above `until`.
    fn may_lie_between(self, after: u64, until: u64) -> bool {
        match self.last <= until {
            true => self.last > after,
            false => self.before > after,
        }
    }
}

/// The purges of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) hard: Numbers,
    pub(super) soft: Numbers,
    /// When the last soft one was.
    pub(super) soft_at: u64,
}

impl Record {
    pub(super) fn note(&mut self, number: u64, soft_at: Option<u64>) {
        match soft_at {
            None => self.hard.push(number),
            Some(at) => {
                self.soft.push(number);
                self.soft_at = at;
            }
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.hard.last.max(self.soft.last)
    }

    pub(super) fn may_lie_between(&self, after: u64, until: u64) -> bool {
        self.hard.may_lie_between(after, until) || self.soft.may_lie_between(after, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_purges_it_is_known_between_what_they_lie() {
        let mut numbers = Numbers::default();
        assert!(!numbers.may_lie_between(0, u64::MAX));
        numbers.push(5);
        assert!(numbers.may_lie_between(4, 5) && !numbers.may_lie_between(5, 9));
        assert!(!numbers.may_lie_between(3, 4), "it came later");
        numbers.push(8);
        assert!(numbers.may_lie_between(4, 6) && !numbers.may_lie_between(5, 7));
        numbers.push(10);
        assert!(numbers.may_lie_between(4, 6), "forgotten, so it may be");
    }
}
