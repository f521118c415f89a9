//! Which paths a rule is for.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{
    coverage::{Segment, segments},
    error::Problem,
    spelling,
};
use crate::{
    key::normal::{is_unreserved, octet},
    work::looked_at,
};

/// A path pattern in the syntax of `matchit`, which axum uses too.
#[derive(Clone, Debug)]
pub(super) struct PathPattern {
    router: matchit::Router<()>,
    segments: Box<[Segment]>,
    /// What every match begins with.
    prefix: Box<str>,
    names: Box<[Box<str>]>,
    has_special: bool,
}

/// The capture that is not in the key.
pub(super) const GAP: &str = "_";

impl PathPattern {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        if !text.starts_with('/') || text.contains(['?', '#']) {
            return Err(Problem::Path("it begins with `/` and has no `#`".into()));
        }
        if let Some(instead) = spelling::of_path(text) {
            return Err(Problem::Wildcard { text: text.into(), instead: instead.into() });
        }
        let mut router = matchit::Router::new();
        router.insert(text, ()).map_err(|error| Problem::Path(error.to_string().into()))?;
        let names: Box<[Box<str>]> = captures(text).map(Into::into).collect();
        let is_repeated = |at: usize| *names[at] != *GAP && names[..at].contains(&names[at]);
        if let Some(at) = (0..names.len()).find(|at| is_repeated(*at)) {
            return Err(Problem::RepeatedCapture(names[at].clone()));
        }
        // Braces that stand for themselves are doubled: no prefix then.
        let literal = &text[..text.find(['{', '}']).unwrap_or(text.len())];
        let prefix = if text.contains("{{") || text.contains("}}") { "/" } else { literal };
        // The braces of captures are plain, whatever their names are.
        let is_plain = |byte: u8| is_unreserved(byte) || b"/{}*".contains(&byte);
        let has_special = !text.bytes().all(is_plain) || text.contains("{{") || text.contains("}}");
        Ok(Self { router, prefix: prefix.into(), names, has_special, segments: segments(text) })
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The same pattern for [loosened](loosened) paths.
    pub(super) fn loose(text: &str) -> Result<Self, Problem> {
        let lower = text.to_ascii_lowercase();
        match lower.trim_end_matches('/') {
            "" => Self::parse("/"),
            text => Self::parse(text),
        }
    }

    /// What every path begins with that it is for.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn at<'p>(&self, path: &'p str) -> Option<matchit::Params<'_, 'p>> {
        self.router.at(path).ok().map(|found| found.params)
    }

    /// The names of all captures.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// Whether it has a character that may also be written in another way.
    pub(super) fn counts_spelling(&self) -> bool {
        self.has_special
    }

    /// Whether a part of the path is not in the key.
    pub(super) fn has_gaps(&self) -> bool {
        self.names().any(|name| name == GAP)
    }
}

/// A path as servers read it that neither mind case nor a slash at the end, and the same without
/// the ending (`/account.css`) that others take for the format that is asked for.
pub(super) fn loosened(path: &str) -> impl Iterator<Item = Cow<'_, str>> {
    looked_at(path.len());
    let plain = match path.trim_end_matches('/') {
        "" => "/",
        plain => plain,
    };
    let start = plain.rfind('/').map_or(0, |slash| slash + 1);
    let end = plain[start..].find('.').map(|dot| start + dot).filter(|dot| *dot > start);
    [Some(plain), end.map(|end| &plain[..end])].into_iter().flatten().map(lower_case)
}

fn lower_case(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

/// The names in a pattern that is known to be well-formed.
fn captures(pattern: &str) -> impl Iterator<Item = &str> {
    let mut rest = pattern;
    std::iter::from_fn(move || {
        loop {
            rest = &rest[rest.find('{')? + 1..];
            if let Some(escaped) = rest.strip_prefix('{') {
                rest = escaped;
                continue;
            }
            let (name, after) = rest.split_once('}')?;
            rest = after;
            return Some(name.trim_start_matches('*'));
        }
    })
}

/// The other way in which a router may read this path, if there is one: with encoded characters
/// decoded, `\` as `/`, without parameters (`;`), empty and dot segments (RFC 3986 §3.3, §5.2.4).
///
/// None for a path that all routers read alike. Encoded characters that mean nothing to a path
/// (`%20`, `%C3%A9`) do not make two readings.
pub(super) fn other_reading(path: &str) -> Option<String> {
    if is_unequivocal(path) {
        return None;
    }
    looked_at(path.len());
    // Twice, for those who decode what has been decoded for them.
    let once: Cow<'_, str> = percent_decode_str(path).decode_utf8_lossy();
    let twice = percent_decode_str(&once).decode_utf8_lossy().replace('\\', "/");
    let path = &twice[..twice.find(['?', '#', '\0']).unwrap_or(twice.len())];
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_directory = false;
    for segment in path.split('/') {
        let segment = &segment[..segment.find(';').unwrap_or(segment.len())];
        ends_in_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut read: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
    if ends_in_directory || read.is_empty() {
        read.push('/');
    }
    Some(read)
}

fn is_unequivocal(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b';' | b'\\' => false,
        b'/' => !begins_odd_segment(&bytes[at + 1..], at + 1 == bytes.len()),
        b'%' => encoded(&bytes[at + 1..]).is_some_and(is_meaningless),
        _ => true,
    })
}

/// Whether what follows a slash is an empty or a dot segment. An empty one at the end is usual.
fn begins_odd_segment(rest: &[u8], is_end: bool) -> bool {
    let segment = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
    looked_at(segment.len());
    matches!(segment, b"." | b"..") || (segment.is_empty() && !is_end)
}

fn encoded(digits: &[u8]) -> Option<u8> {
    octet(*digits.first()?, *digits.get(1)?)
}

/// Whether a path means the same with this octet encoded, to whoever decodes it before routing.
fn is_meaningless(octet: u8) -> bool {
    let separates = matches!(octet, b'/' | b'\\' | b';' | b'%' | b'?' | b'#');
    // Unreserved characters are never encoded by honest clients (RFC 3986 §2.3).
    !separates && !is_unreserved(octet) && !octet.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_all_routers_read_alike_have_no_other_reading() {
        for path in
            ["/", "/a", "/a/", "/a/b.c", "/...", "/a%20b", "/caf%C3%A9", "/a/.well-known/x", "*", "/a:b@c,d"]
        {
            assert_eq!(other_reading(path), None, "{path}");
        }
    }

    #[test]
    fn the_other_reading_is_that_of_whoever_decodes_and_resolves_all() {
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
            assert_eq!(other_reading(path).as_deref(), Some(read), "{path}");
        }
    }

    #[test]
    fn captures_are_found_and_doubled_braces_are_none() {
        let pattern = PathPattern::parse("/a/{b}/{{c}}/{_}/{*d}").unwrap();
        assert_eq!(pattern.names().collect::<Vec<_>>(), ["b", "_", "d"]);
        assert!(pattern.has_gaps());
        assert!(pattern.at("/a/1/{c}/2/3/4").is_some());
        assert!(PathPattern::parse("/a/{b}").unwrap().at("/x/1").is_none());
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in ["", "a", "*", "/{", "/}", "/{}", "/{a}b", "/{*a}/b", "/a#b", "/{a}/{a}"] {
            assert!(PathPattern::parse(pattern).is_err(), "{pattern}");
        }
        assert!(PathPattern::parse("/{_}/{_}").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn the_other_reading_has_no_other_reading(path in "/[a.%/;2eEfF5cC\\\\]{0,12}") {
            if let Some(read) = other_reading(&path) {
                // What is broken stays broken, and what was encoded thrice is still encoded.
                if !read.contains(['%', '\\', ';']) {
                    proptest::prop_assert_eq!(other_reading(&read), None);
                }
            }
        }
    }
}
