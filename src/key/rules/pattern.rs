//! Patterns of paths.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    error::Problem,
    readings,
    segment::{self, Segment, SegmentComparison},
    spelling,
};
use crate::work::looked_at;

/// A path pattern: literals and captures in the syntax of axum, extended by endings and trees.
///
/// Literals match in every spelling that all servers decode to the same text. Captures are as written.
#[derive(Clone, Debug)]
pub(super) struct PathPattern {
    segments: Box<[Segment]>,
    ignores_case: bool,
    /// The prefix of every match, in [the form of an index](indexed).
    prefix: Box<[u8]>,
}

/// The captures of a path, as written.
pub(super) struct PathCaptures<'r, 'h> {
    /// Names and values. The value of a tree includes the slash before it, if there is one.
    all: SmallVec<[(&'r str, &'h str); 4]>,
    has_expected_spelling: bool,
    /// Whether the last one is a tree.
    has_tree: bool,
}

/// The name of captures that are not in the key.
pub(super) const GAP: &str = "_";

impl PathPattern {
    pub(super) fn parse(text: &str, ignores_case: bool) -> Result<Self, Problem> {
        let Some(written) = text.strip_prefix('/').filter(|_| !text.contains(['?', '#'])) else {
            return Err(Problem::Path("it must begin with `/` and have no `#`".into()));
        };
        if let Some(instead) = spelling::of_path(text) {
            return Err(Problem::Wildcard { text: text.into(), instead: instead.into() });
        }
        let segments = written.split('/').map(Segment::parse).collect::<Result<Box<[_]>, _>>()?;
        if segments.iter().rev().skip(1).any(Segment::is_last) {
            return Err(Problem::Path(
                "`{*name}` captures the rest of the path, so nothing can follow it".into(),
            ));
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

    /// Whether some path that it matches is read alike by all servers.
    fn is_for_some_path(&self) -> bool {
        let example: String = self.segments.iter().flat_map(|own| ["/".to_owned(), own.example()]).collect();
        let readings = readings::of_path(&example);
        readings.is_some_and(|readings| readings.others().iter().all(|read| self.at(read).is_some()))
    }

    /// Whether all paths of the other pattern are paths of this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        SegmentComparison::new(self.ignores_case, other.ignores_case).covers(&self.segments, &other.segments)
    }

    /// Whether some path is a path of both patterns.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let ignores_case = self.ignores_case || other.ignores_case;
        SegmentComparison::new(ignores_case, ignores_case).meet(&self.segments, &other.segments)
    }

    pub(super) fn ignores_case(&self) -> bool {
        self.ignores_case
    }

    /// The pattern for [loosened] paths.
    pub(super) fn loose(text: &str) -> Result<Self, Problem> {
        match text.trim_end_matches('/') {
            "" => Self::parse("/", true),
            text => Self::parse(text, true),
        }
    }

    /// What every path that it matches begins with.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub(super) fn at<'h>(&self, path: &'h str) -> Option<PathCaptures<'_, 'h>> {
        let mut captures =
            PathCaptures { all: SmallVec::new(), has_expected_spelling: true, has_tree: false };
        let (last, others) = self.segments.split_last()?;
        // With its leading slash.
        let mut left = path;
        for segment in others {
            let after = left.strip_prefix('/')?;
            // Segments are short: `str::find` would cost more to set up.
            let end = after.bytes().position(|byte| byte == b'/').unwrap_or(after.len());
            let (text, rest) = after.split_at(end);
            captures.note(segment, text, self.ignores_case)?;
            left = rest;
        }
        match last.tree() {
            Some(name) if left.is_empty() || left.starts_with('/') => {
                captures.all.push((name, left));
                captures.has_tree = true;
            }
            Some(_) => return None,
            None => {
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

impl<'r, 'h> PathCaptures<'r, 'h> {
    fn note(&mut self, segment: &'r Segment, text: &'h str, ignores_case: bool) -> Option<()> {
        let found = segment.at(text, ignores_case)?;
        self.has_expected_spelling &= found.is_expected_spelling();
        self.all.extend(segment.name().map(|name| (name, found.rest())));
        Some(())
    }

    /// Whether the path has the literals of the pattern in the spelling that ordinary clients use.
    pub(super) fn has_expected_spelling(&self) -> bool {
        self.has_expected_spelling
    }

    /// The captures that are in the key.
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

/// What all paths with these segments begin with.
fn prefix(segments: &[Segment]) -> Box<[u8]> {
    let mut prefix = Vec::new();
    for segment in segments {
        if segment.tree().is_some() {
            break;
        }
        prefix.push(b'/');
        prefix.extend(segment.start().to_ascii_lowercase());
        if !segment.is_literal() {
            break;
        }
    }
    prefix.into()
}

/// The form in which paths are looked up: decoded like the literals of [patterns](PathPattern), and in lower case.
pub(super) fn indexed(path: &str) -> Cow<'_, [u8]> {
    looked_at(path.len());
    let is_folded = |byte: u8| byte != b'%' && !byte.is_ascii_uppercase();
    // Without a branch per byte.
    if path.bytes().fold(true, |are, byte| are & is_folded(byte)) {
        return Cow::Borrowed(path.as_bytes());
    }
    let folded = |(at, octet): (usize, Option<u8>)| octet.unwrap_or(path.as_bytes()[at]).to_ascii_lowercase();
    Cow::Owned(segment::characters(path).map(folded).collect())
}

/// A path as servers read it that ignore case and a trailing slash, and the same without the extension
/// (`/account.css`) that others take for the requested format.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &str, path: &str) -> Option<Vec<String>> {
        let pattern = PathPattern::parse(pattern, false).unwrap();
        let found = pattern.at(path)?;
        Some(pattern.names().map(|name| found.get(name).unwrap().to_owned()).collect())
    }

    #[test]
    fn captures_are_as_written_and_doubled_braces_are_literal() {
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
    fn literals_match_in_every_equivalent_spelling() {
        let spellings = ["/caf\u{e9}", "/caf%C3%A9", "/caf%c3%a9", "/ca%66\u{e9}"];
        for pattern in &spellings {
            let pattern = PathPattern::parse(pattern, false).unwrap();
            let matches = spellings.map(|path| pattern.at(path).map(|found| found.has_expected_spelling));
            // A needless encoding does not certainly mean the same.
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
    fn literals_match_in_any_case_if_case_is_ignored() {
        let pattern = PathPattern::parse("/Caf\u{e9}/{id}.JPG", true).unwrap();
        for path in ["/caf%c3%a9/Ab.jpg", "/CAF\u{e9}/Ab.Jpg", "/Caf%C3%A9/Ab.JPG"] {
            assert_eq!(pattern.at(path).and_then(|found| found.get("id")), Some("Ab"), "{path}");
        }
        assert!(PathPattern::parse("/a", false).unwrap().at("/A").is_none());
    }

    #[test]
    fn invalid_patterns_are_refused() {
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
        /// Compared with the router of axum, for patterns in its syntax.
        #[test]
        fn patterns_of_axum_match_as_there(
            text in "(/(a|b|\\{x\\}|a\\{x\\}|\\{\\{)){0,2}(/(a|\\{y\\}|\\{\\*y\\}|a\\{\\*y\\}|))",
            path in "(/[ab{]{0,2}){1,4}",
        ) {
            let mut router = matchit::Router::new();
            if let (Ok(()), Ok(pattern)) = (router.insert(&text, ()), PathPattern::parse(&text, false)) {
                let theirs = router.at(&path).ok().map(|found| found.params.iter().map(|(_, value)| value.to_owned()).collect());
                let found = pattern.at(&path);
                let ours: Option<Vec<_>> = found.map(|found| pattern.names().map(|name| found.get(name).unwrap().to_owned()).collect());
                // axum also matches `/a/b` by `/a{x}/{y}`, with an empty capture.
                let is_empty = |values: &Vec<String>| values.iter().any(String::is_empty);
                if !theirs.as_ref().is_some_and(is_empty) {
                    proptest::prop_assert_eq!(ours, theirs);
                }
            }
        }

        #[test]
        fn matching_paths_have_the_prefix_of_their_pattern(text in "(/(a|B|%2c|\u{e9}|\\{x\\})){1,3}", path in "(/(a|A|b|B|,|%2C|%C3%A9|%61)){1,3}") {
            if let Ok(pattern) = PathPattern::parse(&text, true) && pattern.at(&path).is_some() {
                proptest::prop_assert!(indexed(&path).starts_with(pattern.prefix()));
            }
        }
    }

    /// A pattern, which ignores case after a `~`.
    fn pattern(text: &str) -> PathPattern {
        let plain = text.trim_start_matches('~');
        PathPattern::parse(plain, plain != text).unwrap()
    }

    fn covers(ours: &str, theirs: &str) -> bool {
        pattern(ours).covers(&pattern(theirs))
    }

    #[test]
    fn wider_patterns_cover_narrower_ones() {
        for (wide, narrow) in [
            ("/{*all}", "/account/{*rest}"),
            ("/{*all}", "/a"),
            ("/{*all}", "/{id}/x/"),
            ("/a/{id}", "/a/special"),
            ("/a/{id}", "/a/{other}"),
            ("/a/{_}", "/a/{id}"),
            ("/a/{id}/{*rest}", "/a/b/c/{d}"),
            ("/a{id}", "/ab"),
            ("/a/{*rest}", "/a/b{c}"),
            ("/{**all}", "/"),
            ("/{**all}", "/{*rest}"),
            ("/a/{**t}", "/a"),
            ("/a/{**t}", "/a/"),
            ("/a/{**t}", "/a/{x}/b.css"),
            ("/a/{**t}", "/a/{**u}"),
            ("/{*rest}", "/a/{**t}"),
            ("/{x}.css", "/a.css"),
            ("/{x}.css", "/a{x}.min.css"),
            ("/{*rest}.css", "/a/{x}.css"),
            ("/{*rest}.css", "/a.css"),
            ("/{*rest}.css", "/a/{*rest}.css"),
            ("/{x}", "/{x}.css"),
            ("/caf%C3%A9", "/caf\u{e9}"),
            ("/a,b", "/a%2cb"),
            ("~/A/{x}", "/a/b"),
            ("~/A/{x}.css", "~/a/b.CSS"),
            ("/1/{x}", "~/1/{y}"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (one, other) in [
            ("/{*all}", "/"),
            ("/a/{*rest}", "/a/"),
            ("/a/{*rest}", "/a"),
            ("/a/{id}", "/a/"),
            ("/a/{id}", "/a/{*rest}"),
            ("/a/special", "/a/{id}"),
            ("/a", "/A"),
            ("/ab{id}", "/a{id}"),
            ("/a", "/a/b"),
            ("/{{a}}", "/{a}"),
            ("/a/{*rest}", "/a/{**t}"),
            ("/a{*rest}", "/a/{**t}"),
            ("/a", "/a/{**t}"),
            ("/{*rest}", "/{**t}"),
            ("/{x}.css", "/{x}"),
            ("/{x}.css", "/.css"),
            ("/{x}b.css", "/ab.css/{**t}"),
            ("/{*rest}.css", "/a.css/{**t}"),
            ("/{*rest}.css", "/a/{x}.js"),
            ("/a{x}a", "/aa"),
            ("/a/{x}", "~/a/{x}"),
            ("/a", "~/A"),
        ] {
            assert!(!covers(one, other), "{one} {other}");
        }
    }

    #[test]
    fn patterns_meet_if_a_path_matches_both() {
        let meets = |ours: &str, theirs: &str| {
            let both = [pattern(ours).meets(&pattern(theirs)), pattern(theirs).meets(&pattern(ours))];
            assert_eq!(both[0], both[1], "{ours} {theirs}");
            both[0]
        };
        for (one, other) in [
            ("/a/{b}", "/{a}/b"),
            ("/shop/{*rest}", "/{country}/account"),
            ("/a{b}", "/ab{c}"),
            ("/{*all}", "/a"),
            ("/a/{*rest}", "/a/b/{c}/{*more}"),
            ("/a{*rest}", "/a/b"),
            ("/a/{**tree}", "/a"),
            ("/a/{**tree}", "/{x}/y.css"),
            ("/{x}.css", "/a{y}"),
            ("/{*rest}.css", "/a/{x}"),
            ("~/A", "/a"),
        ] {
            assert!(meets(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("/a", "/b"),
            ("/a/{b}", "/{a}"),
            ("/a{b}", "/a"),
            ("/a{b}", "/c{d}"),
            ("/a/{*rest}", "/{b}"),
            ("/a/{*rest}", "/{b}/"),
            ("/a{*rest}", "/a"),
            ("/{x}.css", "/{y}.js"),
            ("/{*rest}.css", "/a/b.js"),
            ("/a/{**tree}", "/ab"),
        ] {
            assert!(!meets(one, other), "{one} {other}");
        }
    }

    const PATTERN: &str = "~?(/(a|b|\\{x\\}|a\\{x\\}|\\{x\\}b)){0,2}(/(a|B|%61|\\{y\\}|a\\{y\\}b|\\{\\*y\\}|a\\{\\*y\\}b|\\{\\*\\*y\\}|))";

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4_000))]

        #[test]
        fn covering_and_meeting_agree_with_what_patterns_match(ours in PATTERN, theirs in PATTERN, path in "(/[abAB]{0,2}){1,4}") {
            let parse = |text: &str| {
                let plain = text.trim_start_matches('~');
                PathPattern::parse(plain, plain != text).ok()
            };
            if let (Some(our), Some(their)) = (parse(&ours), parse(&theirs)) && their.at(&path).is_some() {
                let is_ours = our.at(&path).is_some();
                proptest::prop_assert!(is_ours || !our.covers(&their), "{} {} {}", ours, theirs, path);
                proptest::prop_assert!(!is_ours || our.meets(&their), "{} {} {}", ours, theirs, path);
            }
        }
    }
}
