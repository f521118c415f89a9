//! Which paths a rule is for.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use smallvec::SmallVec;

use super::{
    error::Problem,
    readings::other_readings,
    segment::{Segment, Tail, characters},
    spelling,
};
use crate::{
    key::normal::{is_unreserved, octet},
    work::looked_at,
};

/// A path pattern: literals and captures, in the syntax of axum, with endings and trees besides.
///
/// Literals match in every spelling that all servers decode to the same text; captures are as written.
#[derive(Clone, Debug)]
pub(super) struct PathPattern {
    segments: Box<[Segment]>,
    ignores_case: bool,
    /// What every match begins with, in [the form of an index](indexed).
    prefix: Box<[u8]>,
}

/// What a pattern captures of a path, as written.
pub(super) struct Captures<'r, 'h> {
    /// Names and values. The one of a tree has the slash before it, if there is one.
    all: SmallVec<[(&'r str, &'h str); 4]>,
    /// Whether the path has the literals of the pattern in the expected spelling.
    pub(super) is_as_spelt: bool,
    /// Whether the last one is of a tree.
    has_tree: bool,
}

/// The capture that is not in the key.
pub(super) const GAP: &str = "_";

impl PathPattern {
    pub(super) fn parse(text: &str, ignores_case: bool) -> Result<Self, Problem> {
        let Some(written) = text.strip_prefix('/').filter(|_| !text.contains(['?', '#'])) else {
            return Err(Problem::Path("it begins with `/` and has no `#`".into()));
        };
        if let Some(instead) = spelling::of_path(text) {
            return Err(Problem::Wildcard { text: text.into(), instead: instead.into() });
        }
        let segments = written.split('/').map(Segment::parse).collect::<Result<Box<[_]>, _>>()?;
        if segments.iter().rev().skip(1).any(Segment::is_last) {
            return Err(Problem::Path("`{*name}` captures all that follows: nothing comes after it".into()));
        }
        let pattern = Self { prefix: prefix(&segments), segments, ignores_case };
        let names: Vec<&str> = pattern.names().filter(|name| *name != GAP).collect();
        if let Some(at) = (1..names.len()).find(|at| names[..*at].contains(&names[*at])) {
            return Err(Problem::RepeatedCapture(names[at].into()));
        }
        match pattern.is_for_some_path() {
            true => Ok(pattern),
            false => Err(Problem::AmbiguousPath),
        }
    }

    /// Whether it is for paths that all servers read alike.
    fn is_for_some_path(&self) -> bool {
        let example: String = self.segments.iter().flat_map(|own| ["/".to_owned(), own.example()]).collect();
        let readings = other_readings(&example);
        readings.is_some_and(|readings| readings.others.iter().all(|read| self.at(read).is_some()))
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn ignores_case(&self) -> bool {
        self.ignores_case
    }

    /// The same pattern for [loosened](loosened) paths.
    pub(super) fn loose(text: &str) -> Result<Self, Problem> {
        match text.trim_end_matches('/') {
            "" => Self::parse("/", true),
            text => Self::parse(text, true),
        }
    }

    /// What every path begins with that it is for.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub(super) fn at<'h>(&self, path: &'h str) -> Option<Captures<'_, 'h>> {
        let mut captures = Captures { all: SmallVec::new(), is_as_spelt: true, has_tree: false };
        let (last, others) = self.segments.split_last()?;
        // With its slash.
        let mut left = path;
        for segment in others {
            let after = left.strip_prefix('/')?;
            // Segments are short: no search that has to be prepared.
            let end = after.bytes().position(|byte| byte == b'/').unwrap_or(after.len());
            let (text, rest) = after.split_at(end);
            captures.note(segment, text, self.ignores_case)?;
            left = rest;
        }
        match &last.tail {
            Tail::Tree(name) if left.is_empty() || left.starts_with('/') => {
                captures.all.push((name, left));
                captures.has_tree = true;
            }
            Tail::Tree(_) => return None,
            _ => {
                let text = left.strip_prefix('/')?;
                let is_one = last.is_last() || !text.bytes().any(|byte| byte == b'/');
                is_one.then(|| captures.note(last, text, self.ignores_case)).flatten()?;
            }
        }
        Some(captures)
    }

    /// The names of all captures.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// Whether a part of the path is not in the key.
    pub(super) fn has_gaps(&self) -> bool {
        self.names().any(|name| name == GAP)
    }
}

impl<'r, 'h> Captures<'r, 'h> {
    fn note(&mut self, segment: &'r Segment, text: &'h str, ignores_case: bool) -> Option<()> {
        let found = segment.at(text, ignores_case)?;
        self.is_as_spelt &= found.is_as_spelt;
        self.all.extend(segment.name().map(|name| (name, found.rest)));
        Some(())
    }

    /// Those that are in the key.
    pub(super) fn keyed(&self) -> impl Iterator<Item = &'h str> {
        self.all.iter().filter(|(name, _)| *name != GAP).map(|(_, value)| *value)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'h str> {
        let at = self.all.iter().position(|(own, _)| *own == name)?;
        let (_, value) = self.all[at];
        let is_tree = self.has_tree && at + 1 == self.all.len();
        Some(value.strip_prefix('/').filter(|_| is_tree).unwrap_or(value))
    }
}

/// What all paths begin with that have these segments.
fn prefix(segments: &[Segment]) -> Box<[u8]> {
    let mut prefix = Vec::new();
    for segment in segments {
        if matches!(segment.tail, Tail::Tree(_)) {
            break;
        }
        prefix.push(b'/');
        prefix.extend(segment.start.octets.to_ascii_lowercase());
        if segment.tail != Tail::None {
            break;
        }
    }
    prefix.into()
}

/// The form in which paths are looked up: decoded as far as [patterns](PathPattern) are, and in lower case.
pub(super) fn indexed(path: &str) -> Cow<'_, [u8]> {
    looked_at(path.len());
    let is_folded = |byte: u8| byte != b'%' && !byte.is_ascii_uppercase();
    // Without a branch for each byte.
    if path.bytes().fold(true, |are, byte| are & is_folded(byte)) {
        return Cow::Borrowed(path.as_bytes());
    }
    let folded = |(at, octet): (usize, Option<u8>)| octet.unwrap_or(path.as_bytes()[at]).to_ascii_lowercase();
    Cow::Owned(characters(path).map(folded).collect())
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
    let path = &twice[..twice.find(['?', '#', '\0', '\n']).unwrap_or(twice.len())];
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
pub(super) fn is_meaningless(octet: u8) -> bool {
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

    fn captured(pattern: &str, path: &str) -> Option<Vec<String>> {
        let pattern = PathPattern::parse(pattern, false).unwrap();
        let found = pattern.at(path)?;
        Some(pattern.names().map(|name| found.get(name).unwrap().to_owned()).collect())
    }

    #[test]
    fn captures_are_found_as_written_and_doubled_braces_are_none() {
        for (pattern, path, values) in [
            ("/a/{b}/{{c}}/{*d}", "/a/1/{c}/2/3", &["1", "2/3"][..]),
            ("/a/{b}/{{c}}/{*d}", "/a/1/%7Bc%7D/2%2c", &["1", "2%2c"]),
            ("/image-{id}.jpg", "/image-7.jpg", &["7"]),
            ("/image-{id}.jpg", "/image-7.a.jpg", &["7.a"]),
            ("/{*file}.css", "/a/b.css", &["a/b"]),
            ("/a/{**t}", "/a", &[""]),
            ("/a/{**t}", "/a/", &[""]),
            ("/a/{**t}", "/a/b/c", &["b/c"]),
            ("/{**t}", "/", &[""]),
            ("/{x}/{**t}", "/a/b", &["a", "b"]),
        ] {
            assert_eq!(
                captured(pattern, path).as_deref(),
                Some(&values.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
                "{pattern} {path}"
            );
        }
        for (pattern, path) in [
            ("/image-{id}.jpg", "/image-.jpg"),
            ("/image-{id}.jpg", "/image-7/a.jpg"),
            ("/image-{id}.jpg", "/image-7.JPG"),
            ("/{*file}.css", "/.css"),
            ("/a/{**t}", "/ab"),
            ("/a/{**t}", "/"),
            ("/a/{b}", "/x/1"),
            ("/{{a}}", "/a"),
        ] {
            assert_eq!(captured(pattern, path), None, "{pattern} {path}");
        }
    }

    #[test]
    fn text_matches_in_every_spelling_that_means_the_same() {
        let spellings = ["/caf\u{e9}", "/caf%C3%A9", "/caf%c3%a9", "/ca%66\u{e9}"];
        for pattern in &spellings {
            let pattern = PathPattern::parse(pattern, false).unwrap();
            let matches = spellings.map(|path| pattern.at(path).map(|found| found.is_as_spelt));
            // What is encoded needlessly is not certain to mean the same.
            assert_eq!(matches, [Some(false), Some(true), Some(false), None]);
        }
        for (pattern, path) in [
            ("/a b", "/a%20b"),
            ("/a,b", "/a%2Cb"),
            ("/a%2cb", "/a,b"),
            ("/100%25", "/100%25"),
            ("/100%", "/100%25"),
            ("/a{x}%C3%A9", "/abc%c3%a9"),
            ("/{*x},b", "/a/b%2Cb"),
        ] {
            assert!(PathPattern::parse(pattern, false).unwrap().at(path).is_some(), "{pattern} {path}");
        }
        for (pattern, path) in [("/{x}5", "/a%25"), ("/a", "/a%00"), ("/{x}\u{a9}", "/\u{e9}")] {
            assert!(PathPattern::parse(pattern, false).unwrap().at(path).is_none(), "{pattern} {path}");
        }
    }

    #[test]
    fn without_case_text_matches_in_any_and_captures_stay() {
        let pattern = PathPattern::parse("/Caf\u{e9}/{id}.JPG", true).unwrap();
        for path in ["/caf%c3%a9/Ab.jpg", "/CAF\u{e9}/Ab.Jpg", "/Caf%C3%A9/Ab.JPG"] {
            assert_eq!(pattern.at(path).and_then(|found| found.get("id")), Some("Ab"), "{path}");
        }
        assert!(PathPattern::parse("/a", false).unwrap().at("/A").is_none());
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in [
            "",
            "a",
            "*",
            "/{",
            "/}",
            "/{}",
            "/{a}{b}",
            "/{*a}/b",
            "/{**a}/b",
            "/a#b",
            "/{a}/{a}",
            "/{***a}",
            "/a{**b}",
            "/{**b}.css",
            "/{a b}",
        ] {
            assert!(PathPattern::parse(pattern, false).is_err(), "{pattern}");
        }
        for pattern in ["/a//b", "/a/../b", "/a;b", "/a%2Fb", "/%2561", "/%252525", "/{x}/.", "/\u{ff0f}"] {
            assert_eq!(PathPattern::parse(pattern, false).err(), Some(Problem::AmbiguousPath), "{pattern}");
        }
        assert!(PathPattern::parse("/{_}/{_}", false).is_ok());
    }

    proptest::proptest! {
        /// What axum's router says of the patterns that it knows.
        #[test]
        fn patterns_of_axum_mean_what_they_mean_there(
            text in "(/(a|b|\\{x\\}|a\\{x\\}|\\{\\{)){0,2}(/(a|\\{y\\}|\\{\\*y\\}|a\\{\\*y\\}|))",
            path in "(/[ab{]{0,2}){1,4}",
        ) {
            let mut router = matchit::Router::new();
            if let (Ok(()), Ok(pattern)) = (router.insert(&text, ()), PathPattern::parse(&text, false)) {
                let theirs = router.at(&path).ok().map(|found| found.params.iter().map(|(_, value)| value.to_owned()).collect());
                let found = pattern.at(&path);
                let ours: Option<Vec<_>> = found.map(|found| pattern.names().map(|name| found.get(name).unwrap().to_owned()).collect());
                // It also takes `/a/b` for `/a{x}/{y}`, with nothing captured.
                let is_empty = |values: &Vec<String>| values.iter().any(String::is_empty);
                if !theirs.as_ref().is_some_and(is_empty) {
                    proptest::prop_assert_eq!(ours, theirs);
                }
            }
        }

        #[test]
        fn the_index_holds_what_a_pattern_is_for(text in "(/(a|B|%2c|\u{e9}|\\{x\\})){1,3}", path in "(/(a|A|b|B|,|%2C|%C3%A9|%61)){1,3}") {
            if let Ok(pattern) = PathPattern::parse(&text, true) && pattern.at(&path).is_some() {
                proptest::prop_assert!(indexed(&path).starts_with(pattern.prefix()));
            }
        }

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
