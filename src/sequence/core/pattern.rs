//! Which paths a purge by pattern is about.

use super::{PurgeKeys, TagHash};

/// Paths of a host, or of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// What all responses of the host have.
    host: Option<TagHash>,
    path: Glob,
}

/// Which paths, in their normal form. Read in proportion to the length of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Glob {
    /// Texts with anything between them; one text alone is the whole path.
    Texts(Box<[Box<str>]>),
    /// As many segments as these, and with `rest` at least one more.
    Segments { segments: Box<[Segment]>, rest: bool },
}

/// What one segment of a path is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Text(Box<str>),
    /// Anything but nothing, between these.
    Any {
        before: Box<str>,
        after: Box<str>,
    },
}

impl Pattern {
    pub(crate) fn new(host: Option<TagHash>, path: Glob) -> Self {
        Self { host, path }
    }

    pub(super) fn matches(&self, keys: &PurgeKeys) -> bool {
        let path = keys.path();
        self.host.is_none_or(|host| keys.tags().contains(&host))
            && (path.is_empty() || path.split('\n').any(|path| self.path.matches(path)))
    }
}

impl Glob {
    /// A slash at the end of the path changes nothing.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.is_whole(path) || path.strip_suffix('/').is_some_and(|path| self.is_whole(path))
    }

    fn is_whole(&self, path: &str) -> bool {
        match self {
            Self::Texts(texts) => are_in(texts, path),
            Self::Segments { segments, rest } => {
                let mut of_path = path.split('/').skip(1);
                let is_start =
                    segments.iter().all(|own| of_path.next().is_some_and(|segment| own.matches(segment)));
                is_start && of_path.any(|segment| !segment.is_empty()) == *rest
            }
        }
    }
}

/// Whether the path is these texts, in their order and without overlap, with anything between them.
fn are_in(texts: &[Box<str>], path: &str) -> bool {
    let [first, others @ ..] = texts else { return path.is_empty() };
    let Some(mut rest) = path.strip_prefix(&**first) else { return false };
    let [between @ .., last] = others else { return rest.is_empty() };
    for text in between {
        // The first place will do: it leaves most to what follows.
        let Some((_, after)) = rest.split_once(&**text) else { return false };
        rest = after;
    }
    rest.ends_with(&**last)
}

impl Segment {
    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Text(text) => **text == *segment,
            Self::Any { before, after } => {
                let rest = segment.strip_prefix(&**before).and_then(|rest| rest.strip_suffix(&**after));
                rest.is_some_and(|value| !value.is_empty())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pattern: &str) -> Glob {
        Glob::Texts(pattern.split('*').map(Into::into).collect())
    }

    #[test]
    fn a_star_is_anything_and_all_else_is_itself() {
        for (pattern, matching, others) in [
            ("/a", &["/a", "/a/"][..], &["/", "/ab", "/a/b", "/b/a"][..]),
            ("/a/*", &["/a/", "/a/b", "/a/b/c/"], &["/a", "/ab", "/b/a/c"]),
            ("*", &["/", "/a", "/a/b"], &[]),
            ("/*", &["/", "/a"], &[]),
            ("*.jpg", &["/a.jpg", "/a/b.jpg", "/.jpg"], &["/a.jpg2", "/a.jpeg"]),
            ("/a*a", &["/aa", "/a/a", "/aaa"], &["/a"]),
            ("/*/b/*/d", &["/a/b/c/d", "/a/b/b/d/d"], &["/a/b/d", "/b/c/d"]),
            ("/a*b*c", &["/abc", "/axbbxc"], &["/acb", "/ac"]),
        ] {
            for path in matching {
                assert!(texts(pattern).matches(path), "{pattern} {path}");
            }
            for path in others {
                assert!(!texts(pattern).matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn segments_are_compared_one_by_one() {
        let any = |before: &str, after: &str| Segment::Any { before: before.into(), after: after.into() };
        let user = || [Segment::Text("user".into()), any("", "")];
        let one = Glob::Segments { segments: user().into(), rest: false };
        let below = Glob::Segments { segments: user().into(), rest: true };
        for (path, is_one, is_below) in [
            ("/user/7", true, false),
            ("/user/7/", true, false),
            ("/user/", false, false),
            ("/user", false, false),
            ("/users/7", false, false),
            ("/user/7/posts", false, true),
            ("/user/7/posts/1", false, true),
        ] {
            assert_eq!((one.matches(path), below.matches(path)), (is_one, is_below), "{path}");
        }
        let image = Glob::Segments { segments: [any("img-", ".png")].into(), rest: false };
        assert!(image.matches("/img-7.png") && !image.matches("/img-.png") && !image.matches("/img-7.gif"));
    }

    /// As slow as it is simple.
    fn is_by_trial(pattern: &[u8], path: &[u8]) -> bool {
        match (pattern, path) {
            ([], path) => path.is_empty(),
            ([b'*', rest @ ..], path) => (0..=path.len()).any(|at| is_by_trial(rest, &path[at..])),
            ([own, rest @ ..], [byte, path @ ..]) => own == byte && is_by_trial(rest, path),
            _ => false,
        }
    }

    proptest::proptest! {
        #[test]
        fn stars_match_as_by_trial(pattern in "[/ab*]{0,8}", path in "[/ab]{0,10}") {
            let pieces: Box<[Box<str>]> = pattern.split('*').map(Into::into).collect();
            proptest::prop_assert_eq!(are_in(&pieces, &path), is_by_trial(pattern.as_bytes(), path.as_bytes()));
        }
    }
}
