//! All the ways in which routers may read a path.

use std::{borrow::Cow, collections::BTreeSet};

use percent_encoding::percent_decode_str;

use super::pattern::other_reading;
use crate::{key::normal::is_unreserved, work::looked_at};

/// Honest paths have one or two. Whoever makes up more wants no good, and every one costs a look at
/// all rules.
const MAX_READINGS: usize = 16;
const MAX_PATH_BYTES: usize = 2048;

/// Characters that some servers take for `.`, `/`, `\\`, `;` or `%` when they convert a path to another
/// character set (best fit, NFKC).
const LOOKALIKES: [char; 18] = [
    '\u{37e}', '\u{2024}', '\u{2025}', '\u{2026}', '\u{2044}', '\u{2215}', '\u{2216}', '\u{29f5}',
    '\u{29f8}', '\u{fe52}', '\u{fe54}', '\u{fe68}', '\u{fe6a}', '\u{ff05}', '\u{ff0e}', '\u{ff0f}',
    '\u{ff1b}', '\u{ff3c}',
];

/// What some router may read in a path.
#[derive(Debug, Default)]
pub(super) struct Readings {
    /// Whether there are routers which find other segments in it.
    pub(super) are_several: bool,
    pub(super) others: Vec<String>,
}

/// What a router may do to a path before it looks at it.
#[derive(Clone, Copy)]
struct Habits(u8);

impl Habits {
    /// `\` is a slash.
    const BACKSLASH: u8 = 1;
    /// An encoded `?`, `#`, NUL or end of a line ends the path (the last one in rewrites by expressions).
    const CUT: u8 = 2;
    /// `;` begins parameters.
    const PARAMETERS: u8 = 4;
    /// Empty segments are none.
    const MERGE: u8 = 8;
    /// Dot segments are resolved.
    const DOTS: u8 = 16;

    /// Those that can make a difference.
    fn that_matter(path: &str) -> u8 {
        let has = |chars: &[char], habits: u8| if path.contains(chars) { habits } else { 0 };
        let merge = if path.contains("//") { Self::MERGE } else { 0 };
        has(&['\\'], Self::BACKSLASH | Self::MERGE)
            | has(&['?', '#', '\0', '\n'], Self::CUT)
            | has(&[';'], Self::PARAMETERS | Self::MERGE)
            | has(&['.'], Self::DOTS)
            | merge
    }

    fn has(self, habit: u8) -> bool {
        self.0 & habit != 0
    }

    fn read(self, path: &str) -> String {
        looked_at(path.len());
        let path: Cow<'_, str> =
            if self.has(Self::BACKSLASH) { path.replace('\\', "/").into() } else { path.into() };
        let end = path.find(['?', '#', '\0', '\n']).filter(|_| self.has(Self::CUT)).unwrap_or(path.len());
        let path = &path[..end];
        let mut segments: Vec<&str> = Vec::new();
        let mut ends_in_directory = false;
        let mut left = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
        while let Some(segment) = left.next() {
            let end = segment.find(';').filter(|_| self.has(Self::PARAMETERS)).unwrap_or(segment.len());
            let segment = &segment[..end];
            let is_dots = self.has(Self::DOTS) && matches!(segment, "." | "..");
            ends_in_directory = segment.is_empty() || is_dots;
            match segment {
                ".." if is_dots => drop(segments.pop()),
                _ if is_dots => {}
                "" if self.has(Self::MERGE) || left.peek().is_none() => {}
                segment => segments.push(segment),
            }
        }
        let mut read: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
        if ends_in_directory || read.is_empty() {
            read.push('/');
        }
        read
    }
}

/// All other ways in which a router may read this path: [`other_reading`], which decodes, resolves
/// and cuts all that there is, and those of routers that do only some of it, in one order or another.
/// None if they are too many to look at, or if servers differ in how they decode the path at all.
///
/// Spellings of what means nothing to a path (`%3A`, `%C3%A9`) are not among them: patterns are for all.
pub(super) fn other_readings(path: &str) -> Option<Readings> {
    if !is_decoded_alike(path) {
        return None;
    }
    let mut readings = Readings::default();
    let Some(furthest) = other_reading(path) else { return Some(readings) };
    if path.len() > MAX_PATH_BYTES {
        return None;
    }
    let mut all = BTreeSet::from([furthest]);
    for decoded in decodings(path) {
        let matter = Habits::that_matter(&decoded);
        let mut habits = matter;
        loop {
            all.insert(Habits(habits).read(&decoded));
            if all.len() > MAX_READINGS {
                return None;
            }
            if habits == 0 {
                break;
            }
            // The next smaller subset.
            habits = (habits - 1) & matter;
        }
    }
    all.remove(path);
    readings.others.extend(all);
    readings.are_several = true;
    Some(readings)
}

/// Whether all servers decode a path to the same text: it has no octets that are not encoded UTF-8
/// (RFC 3629 §3), no `%u002e`, no character that is converted to one with a meaning, and nothing that is
/// still encoded after it was decoded twice.
fn is_decoded_alike(path: &str) -> bool {
    looked_at(path.len());
    if path.is_ascii() && !path.contains('%') {
        return true;
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(Cow::into_owned).ok();
    let is_well_formed = after_percents(path).all(begins_with_octet);
    let text = decode(path).and_then(|once| decode(&once));
    is_well_formed
        && text
            .is_some_and(|text| !after_percents(&text).any(begins_with_octet) && !text.contains(LOOKALIKES))
}

fn after_percents(text: &str) -> impl Iterator<Item = &str> {
    text.split('%').skip(1)
}

fn begins_with_octet(text: &str) -> bool {
    text.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// As it is, and with nothing but unreserved characters decoded (RFC 3986 §6.2.2.2), once, and twice.
fn decodings(path: &str) -> impl Iterator<Item = String> {
    looked_at(path.len());
    let decode = |path: &str| percent_decode_str(path).decode_utf8_lossy().into_owned();
    let once = decode(path);
    let twice = decode(&once);
    let mut all = vec![path.to_owned(), decode_unreserved(path), once, twice];
    all.dedup();
    all.into_iter()
}

fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let octet = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match octet.filter(|octet| is_unreserved(*octet)) {
            Some(octet) => {
                decoded.push(octet as char);
                rest = &after[2..];
            }
            None => {
                decoded.push('%');
                rest = after;
            }
        }
    }
    decoded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(path: &str) -> Option<Vec<String>> {
        other_readings(path).map(|readings| {
            let mut others = readings.others;
            others.sort();
            others
        })
    }

    #[test]
    fn a_path_has_the_readings_of_those_who_do_some_of_it() {
        for (path, expected) in [
            ("/a/b.c", &[][..]),
            ("/a%20b", &[]),
            ("/a//b", &["/a/b"]),
            ("/a/./b", &["/a/b"]),
            ("/a/..//b", &["//b", "/a/../b", "/b"]),
            ("/%61", &["/a"]),
            ("/a;v", &["/a"]),
            ("/a%0av.css", &["/a", "/a\nv.css"]),
            ("/a%2f..%2fb", &["/a/../b", "/b"]),
            ("/a%252fb", &["/a%2fb", "/a/b"]),
            ("/a/%2e%2e%2fb", &["/a/..%2fb", "/a/../b", "/b"]),
        ] {
            let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
            assert_eq!(others(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_has_too_many_readings_has_none() {
        assert_eq!(others("/a%252f%2e./;b\\..//c%3fd;e/%252e%2f;f"), None);
        assert_eq!(others(&"/./a".repeat(1_000)), None);
        assert_eq!(others(&"/a".repeat(2_000)), Some(Vec::new()), "long, but clear");
    }

    #[test]
    fn what_servers_decode_differently_has_no_readings() {
        for path in [
            "/a/%u002e%u002e/b",
            "/a/%c0%ae%c0%ae/b",
            "/a/%e0%80%ae/b",
            "/caf%e9",
            "/a/%ef%bc%8e%ef%bc%8e/b",
            "/a\u{ff0f}b",
            "/a%25252fb",
            "/100%",
            "/a%2",
        ] {
            assert_eq!(others(path), None, "{path}");
        }
        for path in ["/caf%C3%A9", "/a%20b", "/a%2520b", "/100%25", "/\u{4e2d}"] {
            assert!(others(path).is_some(), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_furthest_reading_is_among_them(path in "/[a.%/;2eEfF5cC\\\\]{0,12}") {
            if let (Some(furthest), Some(others)) = (other_reading(&path), others(&path)) {
                proptest::prop_assert!(furthest == path || others.contains(&furthest));
            }
        }
    }
}
