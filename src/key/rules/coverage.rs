//! Whether one rule is for all requests that another one is for.

use http::Method;

use super::{
    compiled::Compiled,
    host::HostPattern,
    pattern::PathPattern,
    segment::{Capture, Literal, Segment, Tail},
};

/// Whether all paths of `theirs` are paths of `ours`.
pub(super) fn covers_path(ours: &PathPattern, theirs: &PathPattern) -> bool {
    let compare = Compare { ours: ours.ignores_case(), theirs: theirs.ignores_case() };
    compare.covers(ours.segments(), theirs.segments())
}

/// Whether some path is one of both.
pub(super) fn meet(ours: &PathPattern, theirs: &PathPattern) -> bool {
    let ignores_case = ours.ignores_case() || theirs.ignores_case();
    Compare { ours: ignores_case, theirs: ignores_case }.meet(ours.segments(), theirs.segments())
}

/// Whether case counts.
#[derive(Clone, Copy)]
struct Compare {
    ours: bool,
    theirs: bool,
}

impl Compare {
    fn covers(self, ours: &[Segment], theirs: &[Segment]) -> bool {
        match (ours, theirs) {
            ([], []) | ([Segment { tail: Tail::Tree(_), .. }], _) => true,
            ([Segment { start, tail: Tail::Rest(capture) }], theirs) => self.rest(start, capture, theirs),
            ([our, ours @ ..], [their, theirs @ ..]) => self.segment(our, their) && self.covers(ours, theirs),
            _ => false,
        }
    }

    fn segment(self, our: &Segment, their: &Segment) -> bool {
        match (&our.tail, &their.tail) {
            (Tail::None, Tail::None) => {
                our.start.octets.len() == their.start.octets.len() && self.starts(&their.start, &our.start)
            }
            (Tail::Capture(capture), Tail::None) => self.encloses(&our.start, &capture.end, &their.start),
            (Tail::Capture(our_capture), Tail::Capture(capture)) => {
                self.starts(&their.start, &our.start) && self.ends(&capture.end, &our_capture.end)
            }
            _ => false,
        }
    }

    /// Whether paths that go on like this do so with `start`, at least one character, and the end.
    fn rest(self, start: &Literal, capture: &Capture, theirs: &[Segment]) -> bool {
        let (Some(first), Some(last)) = (theirs.first(), theirs.last()) else { return false };
        let goes_on = first.start.octets.len() > start.octets.len() || first.tail != Tail::None;
        let ends = match &last.tail {
            _ if capture.end.octets.is_empty() => true,
            Tail::Tree(_) => false,
            Tail::None => self.ends(&last.start, &capture.end),
            Tail::Capture(their) | Tail::Rest(their) => self.ends(&their.end, &capture.end),
        };
        match theirs {
            [Segment { start: their, tail: Tail::None }] => self.encloses(start, &capture.end, their),
            [Segment { tail: Tail::Tree(_), .. }] => false,
            // The tree may end before it begins.
            [_, Segment { tail: Tail::Tree(_), .. }] => goes_on && ends && self.starts(&first.start, start),
            _ => ends && self.starts(&first.start, start),
        }
    }

    fn meet(self, ours: &[Segment], theirs: &[Segment]) -> bool {
        match (ours, theirs) {
            ([], [])
            | ([Segment { tail: Tail::Tree(_), .. }], _)
            | (_, [Segment { tail: Tail::Tree(_), .. }]) => true,
            ([Segment { start, tail: Tail::Rest(capture) }], others)
            | (others, [Segment { start, tail: Tail::Rest(capture) }]) => {
                self.rest_meets(start, &capture.end, others)
            }
            ([our, ours @ ..], [their, theirs @ ..]) => {
                self.segments_meet(our, their) && self.meet(ours, theirs)
            }
            _ => false,
        }
    }

    /// Whether some path of a pattern that goes on like this does so with `start`, something, and `end`.
    fn rest_meets(self, start: &Literal, end: &Literal, others: &[Segment]) -> bool {
        let (Some(first), Some(last)) = (others.first(), others.last()) else { return false };
        let is_start = match first.tail {
            Tail::None => self.starts(&first.start, start),
            _ => self.starts(&first.start, start) || self.starts(start, &first.start),
        };
        let is_end = match &last.tail {
            Tail::None => self.ends(&last.start, end),
            Tail::Tree(_) => true,
            Tail::Capture(own) | Tail::Rest(own) => self.ends(&own.end, end) || self.ends(end, &own.end),
        };
        match others {
            [Segment { start: text, tail: Tail::None }] => self.encloses(start, end, text),
            _ => is_start && is_end,
        }
    }

    fn segments_meet(self, our: &Segment, their: &Segment) -> bool {
        match (&our.tail, &their.tail) {
            (Tail::None, Tail::None) => {
                our.start.octets.len() == their.start.octets.len() && self.starts(&their.start, &our.start)
            }
            (Tail::None, Tail::Capture(capture)) => self.encloses(&their.start, &capture.end, &our.start),
            (Tail::Capture(capture), Tail::None) => self.encloses(&our.start, &capture.end, &their.start),
            (Tail::Capture(own), Tail::Capture(their_own)) => {
                let are_starts =
                    self.starts(&our.start, &their.start) || self.starts(&their.start, &our.start);
                are_starts && (self.ends(&own.end, &their_own.end) || self.ends(&their_own.end, &own.end))
            }
            _ => false,
        }
    }

    /// Whether a text has this start, this end, and something in between.
    fn encloses(self, start: &Literal, end: &Literal, text: &Literal) -> bool {
        text.octets.len() > start.octets.len() + end.octets.len()
            && self.starts(text, start)
            && self.ends(text, end)
    }

    fn starts(self, text: &Literal, start: &Literal) -> bool {
        text.octets.get(..start.octets.len()).is_some_and(|text| self.is_same(text, &start.octets))
    }

    fn ends(self, text: &Literal, end: &Literal) -> bool {
        let at = text.octets.len().checked_sub(end.octets.len());
        at.is_some_and(|at| self.is_same(&text.octets[at..], &end.octets))
    }

    /// Whether all spellings of theirs are some of ours.
    fn is_same(self, theirs: &[u8], ours: &[u8]) -> bool {
        match (self.ours, self.theirs) {
            (true, _) => theirs.eq_ignore_ascii_case(ours),
            (false, false) => theirs == ours,
            (false, true) => theirs == ours && !ours.iter().any(u8::is_ascii_alphabetic),
        }
    }
}

impl Compiled {
    /// Whether no request that the other rule is for gets past this one. Where no rule reads bodies, only
    /// GET and HEAD have keys to speak of.
    pub(super) fn covers(&self, other: &Self, has_bodies: bool) -> bool {
        self.covers_methods(other, has_bodies)
            && self.covers_hosts(other)
            && self.covers_conditions(other)
            && match (&self.path, &other.path) {
                (None, _) => true,
                (Some(ours), Some(theirs)) => covers_path(ours, theirs),
                (Some(_), None) => false,
            }
            && match (&self.template, &other.template) {
                (None, _) => true,
                (Some(ours), Some(theirs)) => ours.covers(theirs),
                (Some(_), None) => false,
            }
    }

    /// Whether a request to the path of one may go by the other, by what is known of hosts and paths.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        let is_same = |own: &HostPattern| other.hosts.iter().any(|host| own.covers(host) || host.covers(own));
        let is_host = self.hosts.is_empty() || other.hosts.is_empty() || self.hosts.iter().any(is_same);
        is_host
            && match (&self.path, &other.path) {
                (Some(ours), Some(theirs)) => meet(ours, theirs),
                _ => true,
            }
    }

    fn covers_conditions(&self, other: &Self) -> bool {
        match (&self.when, &other.when) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => ours.covers(theirs),
            (Some(_), None) => false,
        }
    }

    fn covers_hosts(&self, other: &Self) -> bool {
        let is_covered = |host| self.hosts.iter().any(|own| own.covers(host));
        self.hosts.is_empty() || !other.hosts.is_empty() && other.hosts.iter().all(is_covered)
    }

    /// Without a word about methods, a rule is for GET and HEAD, and one that bypasses for all.
    fn covers_methods(&self, other: &Self, has_bodies: bool) -> bool {
        if self.is_bypass && self.methods.is_empty() {
            return true;
        }
        let usual = [Method::GET, Method::HEAD];
        let methods = |rule: &Self| match rule.methods.is_empty() {
            true => usual.to_vec(),
            false => rule.methods.to_vec(),
        };
        let (ours, is_all) = (methods(self), has_bodies && other.is_bypass && other.methods.is_empty());
        !is_all && methods(other).iter().all(|method| ours.contains(method))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> PathPattern {
        let plain = text.trim_start_matches('~');
        PathPattern::parse(plain, plain != text).unwrap()
    }

    /// With a `~` before those without case.
    fn covers(ours: &str, theirs: &str) -> bool {
        covers_path(&pattern(ours), &pattern(theirs))
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
    fn patterns_meet_where_a_path_is_of_both() {
        let meets = |ours: &str, theirs: &str| {
            let both = [meet(&pattern(ours), &pattern(theirs)), meet(&pattern(theirs), &pattern(ours))];
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Against what the patterns say of paths.
        #[test]
        fn what_is_covered_is_matched_and_what_both_match_is_where_they_meet(ours in PATTERN, theirs in PATTERN, path in "(/[abAB]{0,2}){1,4}") {
            let parse = |text: &str| {
                let plain = text.trim_start_matches('~');
                PathPattern::parse(plain, plain != text).ok()
            };
            if let (Some(our), Some(their)) = (parse(&ours), parse(&theirs)) && their.at(&path).is_some() {
                let is_ours = our.at(&path).is_some();
                prop_assert!(is_ours || !covers_path(&our, &their), "{} {} {}", ours, theirs, path);
                prop_assert!(!is_ours || meet(&our, &their), "{} {} {}", ours, theirs, path);
            }
        }
    }
}
