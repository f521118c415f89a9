//! How servers and routers read a path.

use std::{borrow::Cow, collections::BTreeSet};

use percent_encoding::percent_decode_str;

use crate::{
    key::{target::join_segments, uri},
    work::looked_at,
};

/// Ordinary paths have one or two readings. More than 16 indicate an attack, and each reading costs a pass
/// over the rules.
const MAX_READINGS: usize = 16;
const MAX_PATH_BYTES: usize = 2048;

/// Characters that some servers take for `.`, `/`, `\\`, `;` or `%` when they convert a path to another
/// character set (best fit, NFKC).
const LOOKALIKES: [char; 18] = [
    '\u{37e}', '\u{2024}', '\u{2025}', '\u{2026}', '\u{2044}', '\u{2215}', '\u{2216}', '\u{29f5}',
    '\u{29f8}', '\u{fe52}', '\u{fe54}', '\u{fe68}', '\u{fe6a}', '\u{ff05}', '\u{ff0e}', '\u{ff0f}',
    '\u{ff1b}', '\u{ff3c}',
];

/// How routers may read a path.
#[derive(Debug, Default)]
pub(super) struct PathReadings {
    are_several: bool,
    others: Vec<String>,
}

impl PathReadings {
    /// Whether some routers find other segments in the path than others do.
    pub(super) fn are_several(&self) -> bool {
        self.are_several
    }

    /// The readings that differ from the path itself.
    pub(super) fn others(&self) -> &[String] {
        &self.others
    }
}

/// The ways in which routers may read a path: as it is, with everything decoded, resolved and cut, and with
/// only some of that done.
///
/// `None` if there are too many ways, or if servers differ in how they decode the path at all. Spellings of
/// characters that mean nothing to a path (`%3A`, `%C3%A9`) are not among them: patterns match each spelling.
pub(super) fn of_path(path: &str) -> Option<PathReadings> {
    if !is_decoded_alike(path) {
        return None;
    }
    let Some(furthest) = furthest_reading(path) else { return Some(PathReadings::default()) };
    if path.len() > MAX_PATH_BYTES {
        return None;
    }
    let mut all = BTreeSet::from([furthest]);
    for decoded in decodings(path) {
        for quirks in Quirks::that_matter(&decoded).subsets() {
            all.insert(quirks.read(&decoded));
            if all.len() > MAX_READINGS {
                return None;
            }
        }
    }
    all.remove(path);
    Some(PathReadings { are_several: true, others: all.into_iter().collect() })
}

/// What a router may do to a path before it compares it.
#[derive(Clone, Copy)]
struct Quirks(u8);

impl Quirks {
    /// `\` is a slash.
    const BACKSLASH: u8 = 1;
    /// An encoded `?`, `#`, NUL or line feed ends the path (the last one in rewrites by expressions).
    const CUT: u8 = 2;
    /// `;` begins parameters (RFC 3986 §3.3).
    const PARAMETERS: u8 = 4;
    /// Empty segments are dropped.
    const MERGE: u8 = 8;
    /// Dot segments are resolved (RFC 3986 §5.2.4).
    const DOTS: u8 = 16;

    const ALL: Self = Self(31);

    /// Those that can make a difference to this path.
    fn that_matter(path: &str) -> Self {
        let has = |chars: &[char], quirks: u8| if path.contains(chars) { quirks } else { 0 };
        let merge = if path.contains("//") { Self::MERGE } else { 0 };
        Self(
            has(&['\\'], Self::BACKSLASH | Self::MERGE)
                | has(&['?', '#', '\0', '\n'], Self::CUT)
                | has(&[';'], Self::PARAMETERS | Self::MERGE)
                | has(&['.'], Self::DOTS)
                | merge,
        )
    }

    /// All combinations of these, from all to none.
    fn subsets(self) -> impl Iterator<Item = Self> {
        let next_smaller = move |quirks: &Self| Some(Self(quirks.0.checked_sub(1)? & self.0));
        std::iter::successors(Some(self), next_smaller)
    }

    fn has(self, quirk: u8) -> bool {
        self.0 & quirk != 0
    }

    fn read(self, path: &str) -> String {
        looked_at(path.len());
        let path: Cow<'_, str> =
            if self.has(Self::BACKSLASH) { path.replace('\\', "/").into() } else { path.into() };
        let end = path.find(['?', '#', '\0', '\n']).filter(|_| self.has(Self::CUT)).unwrap_or(path.len());
        let path = &path[..end];
        let segments = path.strip_prefix('/').unwrap_or(path).split('/').map(|segment| {
            let end = segment.find(';').filter(|_| self.has(Self::PARAMETERS)).unwrap_or(segment.len());
            &segment[..end]
        });
        join_segments(segments, self.has(Self::DOTS), self.has(Self::MERGE))
    }
}

/// The path as a router reads it that decodes, resolves and cuts everything. `None` if all routers read it
/// alike.
///
/// Encoded characters that mean nothing to a path (`%20`, `%C3%A9`) make no difference.
fn furthest_reading(path: &str) -> Option<String> {
    if is_unequivocal(path) {
        return None;
    }
    // Twice, for routers that decode what has been decoded for them.
    let once: Cow<'_, str> = percent_decode_str(path).decode_utf8_lossy();
    Some(Quirks::ALL.read(&percent_decode_str(&once).decode_utf8_lossy()))
}

fn is_unequivocal(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b';' | b'\\' => false,
        b'/' => !begins_odd_segment(&bytes[at + 1..], at + 1 == bytes.len()),
        b'%' => encoded_octet(&bytes[at + 1..]).is_some_and(is_meaningless),
        _ => true,
    })
}

/// Whether an empty or a dot segment follows a slash. An empty one at the end is ordinary.
fn begins_odd_segment(rest: &[u8], is_end: bool) -> bool {
    let segment = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
    looked_at(segment.len());
    matches!(segment, b"." | b"..") || (segment.is_empty() && !is_end)
}

fn encoded_octet(digits: &[u8]) -> Option<u8> {
    uri::octet(*digits.first()?, *digits.get(1)?)
}

/// Whether a path means the same with this octet encoded, to any server that decodes it before routing.
pub(super) fn is_meaningless(octet: u8) -> bool {
    let separates = matches!(octet, b'/' | b'\\' | b';' | b'%' | b'?' | b'#');
    // Ordinary clients never encode unreserved characters (RFC 3986 §2.3).
    !separates && !uri::is_unreserved(octet) && !octet.is_ascii_control()
}

/// Whether all servers decode a path to the same text: it has only octets of encoded UTF-8 (RFC 3629 §3), no
/// `%u002e`, no character that is converted to one with a meaning, and nothing that is still encoded after
/// decoding it twice.
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

/// The path as it is, with only unreserved characters decoded (RFC 3986 §6.2.2.2), and with everything
/// decoded once and twice.
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
        match octet.filter(|octet| uri::is_unreserved(*octet)) {
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
        of_path(path).map(|readings| readings.others)
    }

    #[test]
    fn a_path_has_a_reading_for_each_combination_of_quirks() {
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
    fn paths_with_too_many_readings_have_none() {
        assert_eq!(others("/a%252f%2e./;b\\..//c%3fd;e/%252e%2f;f"), None);
        assert_eq!(others(&"/./a".repeat(1_000)), None);
        assert_eq!(others(&"/a".repeat(2_000)), Some(Vec::new()), "long, but clear");
    }

    #[test]
    fn paths_that_servers_decode_differently_have_no_readings() {
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

    #[test]
    fn paths_that_all_routers_read_alike_have_no_furthest_reading() {
        for path in
            ["/", "/a", "/a/", "/a/b.c", "/...", "/a%20b", "/caf%C3%A9", "/a/.well-known/x", "*", "/a:b@c,d"]
        {
            assert_eq!(furthest_reading(path), None, "{path}");
        }
    }

    #[test]
    fn the_furthest_reading_decodes_and_resolves_everything() {
        for (path, read) in [
            ("//", "/"),
            ("//a", "/a"),
            ("/a//b", "/a/b"),
            ("/a//", "/a/"),
            ("/.", "/"),
            ("/a/..", "/"),
            ("/a/./b/../c", "/a/c"),
            ("/../a", "/a"),
            ("/%61", "/a"),
            ("/a%2fb", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/static/..%2faccount", "/account"),
            ("/static/%252e%252e/account", "/account"),
            ("/a\\..\\b", "/b"),
            ("/a%5cb", "/a/b"),
            ("/a;v=1/b;x", "/a/b"),
            ("/a%3bx", "/a"),
            ("/a%3fb", "/a"),
            ("/a%00b", "/a"),
            ("/a/..;/b", "/b"),
            ("/a%zz", "/a%zz"),
            ("/a%2", "/a%2"),
        ] {
            assert_eq!(furthest_reading(path).as_deref(), Some(read), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_furthest_reading_has_no_other_one(path in "/[a.%/;2eEfF5cC\\\\]{0,12}") {
            if let Some(read) = furthest_reading(&path) {
                // What is broken stays broken, and what was encoded three times is still encoded.
                if !read.contains(['%', '\\', ';']) {
                    proptest::prop_assert_eq!(furthest_reading(&read), None);
                }
            }
        }

        #[test]
        fn the_furthest_reading_is_among_them(path in "/[a.%/;2eEfF5cC\\\\]{0,12}") {
            if let (Some(furthest), Some(others)) = (furthest_reading(&path), others(&path)) {
                proptest::prop_assert!(furthest == path || others.contains(&furthest));
            }
        }
    }
}
