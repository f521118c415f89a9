//! Which rules can be for a path, found without a look at all of them.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::pattern::indexed;

/// The rules by what all paths begin with that they are for.
///
/// Among sorted beginnings, those of a path are the last one that is not greater than the path and
/// what that one begins with: whatever lies between a beginning and a path that has it has it too.
#[derive(Debug)]
pub(super) struct Index(Box<[Beginning]>);

#[derive(Debug)]
struct Beginning {
    text: Box<[u8]>,
    /// The longest of the others that this one begins with.
    shorter: Option<usize>,
    rules: Box<[usize]>,
}

/// The numbers of rules, in their order.
pub(super) type Candidates = SmallVec<[usize; 16]>;

impl Index {
    /// Of rules in their order, by their [beginnings](indexed); an empty one is for all paths.
    pub(super) fn new<'r>(beginnings: impl IntoIterator<Item = &'r [u8]>) -> Self {
        let mut sorted: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for (rule, beginning) in beginnings.into_iter().enumerate() {
            sorted.entry(beginning).or_default().push(rule);
        }
        let texts: Vec<&[u8]> = sorted.keys().copied().collect();
        let beginning = |(at, (text, rules)): (usize, (&[u8], Vec<usize>))| {
            let shorter = texts[..at].iter().rposition(|shorter| text.starts_with(shorter));
            Beginning { text: text.into(), shorter, rules: rules.into() }
        };
        Self(sorted.into_iter().enumerate().map(beginning).collect())
    }

    /// The rules that may be for this path.
    pub(super) fn candidates(&self, path: &str) -> Candidates {
        let mut found = Candidates::new();
        let path = indexed(path);
        let mut at = self.0.partition_point(|beginning| *beginning.text <= *path).checked_sub(1);
        while let Some(beginning) = at.map(|at| &self.0[at]) {
            if path.starts_with(&beginning.text) {
                found.extend_from_slice(&beginning.rules);
            }
            at = beginning.shorter;
        }
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_are_found_by_their_beginnings_and_keep_their_order() {
        let index = Index::new(["/a/b", "", "/a", "/a/", "/b", "/a/b/c", "", "/a"].map(str::as_bytes));
        for (path, rules) in [
            ("/", &[1, 6][..]),
            ("/a", &[1, 2, 6, 7]),
            ("/a/", &[1, 2, 3, 6, 7]),
            ("/a/b/d", &[0, 1, 2, 3, 6, 7]),
            ("/a/b/c/d", &[0, 1, 2, 3, 5, 6, 7]),
            ("/bb", &[1, 4, 6]),
            ("/A%2cb", &[1, 2, 6, 7]),
            ("*", &[1, 6]),
        ] {
            assert_eq!(index.candidates(path).as_slice(), rules, "{path}");
        }
        assert!(Index::new([]).candidates("/").is_empty());
    }

    proptest! {
        #[test]
        fn none_is_missed(beginnings in prop::collection::vec("[/ab]{0,4}", 0..12), path in "/[/ab]{0,6}") {
            let index = Index::new(beginnings.iter().map(String::as_bytes));
            let all = (0..beginnings.len()).filter(|rule| path.starts_with(&beginnings[*rule]));
            prop_assert_eq!(index.candidates(&path).to_vec(), all.collect::<Vec<_>>());
        }
    }
}
