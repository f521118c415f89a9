//! Texts in which a `*` stands for any number of characters.

use crate::work::looked_at;

/// A text with wildcards. Matching is linear in the text for each piece between two `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    text: Box<str>,
    pieces: Box<[Box<str>]>,
}

type Same = fn(&[u8], &[u8]) -> bool;

impl Glob {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.into(), pieces: text.split('*').map(Into::into).collect() }
    }

    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.matches(text, |one, other| one == other)
    }

    pub(super) fn is_in_any_case(&self, text: &[u8]) -> bool {
        self.matches(text, <[u8]>::eq_ignore_ascii_case)
    }

    /// Whether it matches every text that the other one matches. A `*` in the other one counts as a character that
    /// only a `*` matches.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.is(other.text.as_bytes())
    }

    fn matches(&self, text: &[u8], is_same: Same) -> bool {
        looked_at(text.len());
        let [first, middle @ ..] = &*self.pieces else { return text.is_empty() };
        let first = first.as_bytes();
        if !text.get(..first.len()).is_some_and(|start| is_same(start, first)) {
            return false;
        }
        let mut rest = &text[first.len()..];
        let Some((last, middle)) = middle.split_last() else { return rest.is_empty() };
        for piece in middle.iter().map(|piece| piece.as_bytes()).filter(|piece| !piece.is_empty()) {
            let Some(at) = rest.windows(piece.len()).position(|window| is_same(window, piece)) else {
                return false;
            };
            rest = &rest[at + piece.len()..];
        }
        let end = rest.len().checked_sub(last.len()).map(|at| &rest[at..]);
        end.is_some_and(|end| is_same(end, last.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text() {
        for (glob, texts, others) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a"], &[]),
            ("a", &["a"], &["", "A", "aa"]),
            ("a*", &["a", "ab"], &["ba", "A"]),
            ("*a", &["a", "ba", "aa"], &["ab"]),
            ("a*a", &["aa", "aba"], &["a", "ab"]),
            ("*b*", &["b", "abc"], &["ac"]),
            ("a*b*c", &["abc", "a1b2c", "abbcc"], &["acb", "ac"]),
            ("a**b", &["ab", "axb"], &["a"]),
        ] {
            for text in texts {
                assert!(Glob::new(glob).is(text.as_bytes()), "{glob} {text}");
            }
            for text in others {
                assert!(!Glob::new(glob).is(text.as_bytes()), "{glob} {text}");
            }
        }
        assert!(Glob::new("A*z").is_in_any_case(b"abcZ"));
    }

    proptest::proptest! {
        #[test]
        fn covered_texts_match(ours in "[ab*]{0,4}", theirs in "[ab*]{0,4}", text in "[ab]{0,5}") {
            let (ours, theirs) = (Glob::new(&ours), Glob::new(&theirs));
            if ours.covers(&theirs) && theirs.is(text.as_bytes()) {
                proptest::prop_assert!(ours.is(text.as_bytes()));
            }
        }

        #[test]
        fn matching_agrees_with_an_exhaustive_search(glob in "[ab*]{0,4}", text in "[ab]{0,5}") {
            fn search(glob: &[u8], text: &[u8]) -> bool {
                match (glob, text) {
                    ([], text) => text.is_empty(),
                    ([b'*', rest @ ..], text) => (0..=text.len()).any(|at| search(rest, &text[at..])),
                    ([own, rest @ ..], [first, text @ ..]) => own == first && search(rest, text),
                    _ => false,
                }
            }
            proptest::prop_assert_eq!(Glob::new(&glob).is(text.as_bytes()), search(glob.as_bytes(), text.as_bytes()));
        }
    }
}
