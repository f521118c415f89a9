//! Whether one rule is for all requests that another one is for.

use http::Method;

use super::compiled::Compiled;

/// A segment of a path pattern: what it begins with, and what it captures after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    literal: Box<str>,
    tail: Tail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    None,
    /// At least one character of the segment.
    Capture,
    /// At least one character, and all segments after this one.
    Rest,
}

/// The segments of a pattern that is known to be well-formed.
pub(super) fn segments(pattern: &str) -> Box<[Segment]> {
    pattern.split('/').skip(1).map(segment).collect()
}

fn segment(text: &str) -> Segment {
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        match after.strip_prefix(brace) {
            // A doubled brace stands for itself.
            Some(after) => {
                literal.push_str(brace);
                rest = after;
            }
            None => {
                let tail = if after.starts_with('*') { Tail::Rest } else { Tail::Capture };
                return Segment { literal: literal.into(), tail };
            }
        }
    }
    literal.push_str(rest);
    Segment { literal: literal.into(), tail: Tail::None }
}

/// Whether all paths of `theirs` are paths of `ours`.
pub(super) fn covers_path(ours: &[Segment], theirs: &[Segment]) -> bool {
    match (ours, theirs) {
        ([], []) => true,
        ([our, ..], [their, others @ ..]) if our.tail == Tail::Rest => {
            let after = their.literal.strip_prefix(&*our.literal);
            after.is_some_and(|after| !after.is_empty() || their.tail != Tail::None || !others.is_empty())
        }
        ([our, ours @ ..], [their, theirs @ ..]) => our.covers(their) && covers_path(ours, theirs),
        _ => false,
    }
}

/// Whether some path is one of both.
pub(super) fn meet(ours: &[Segment], theirs: &[Segment]) -> bool {
    match (ours, theirs) {
        ([], []) => true,
        ([our, ..], [their, others @ ..]) if our.tail == Tail::Rest => our.goes_on_with(their, others),
        ([our, others @ ..], [their, ..]) if their.tail == Tail::Rest => their.goes_on_with(our, others),
        ([our, ours @ ..], [their, theirs @ ..]) => our.meets(their) && meet(ours, theirs),
        _ => false,
    }
}

impl Segment {
    /// Whether its rest may be this segment and those after it.
    fn goes_on_with(&self, next: &Self, others: &[Self]) -> bool {
        let (own, literal) = (&*self.literal, &*next.literal);
        match next.tail {
            Tail::None => {
                literal.strip_prefix(own).is_some_and(|rest| !rest.is_empty() || !others.is_empty())
            }
            _ => literal.starts_with(own) || own.starts_with(literal),
        }
    }

    fn meets(&self, other: &Self) -> bool {
        let (own, literal) = (&*self.literal, &*other.literal);
        match (self.tail, other.tail) {
            (Tail::None, Tail::None) => own == literal,
            (Tail::None, _) => own.len() > literal.len() && own.starts_with(literal),
            (_, Tail::None) => literal.len() > own.len() && literal.starts_with(own),
            _ => own.starts_with(literal) || literal.starts_with(own),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        let (own, literal) = (&*self.literal, &*other.literal);
        match (self.tail, other.tail) {
            (Tail::None, Tail::None) => own == literal,
            (Tail::Capture, Tail::None) => literal.len() > own.len() && literal.starts_with(own),
            (Tail::Capture, Tail::Capture) => literal.starts_with(own),
            _ => false,
        }
    }
}

impl Compiled {
    /// Whether no request that the other rule is for gets past this one. Where no rule reads bodies, only
    /// GET and HEAD have keys to speak of.
    pub(super) fn covers(&self, other: &Self, has_bodies: bool) -> bool {
        self.covers_methods(other, has_bodies)
            && self.covers_hosts(other)
            && match (&self.path, &other.path) {
                (None, _) => true,
                (Some(ours), Some(theirs)) => covers_path(ours.segments(), theirs.segments()),
                (Some(_), None) => false,
            }
            && match (&self.template, &other.template) {
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

    fn covers(ours: &str, theirs: &str) -> bool {
        covers_path(&segments(ours), &segments(theirs))
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
        ] {
            assert!(!covers(one, other), "{one} {other}");
        }
    }

    #[test]
    fn patterns_meet_where_a_path_is_of_both() {
        let meets = |ours: &str, theirs: &str| {
            let both = [meet(&segments(ours), &segments(theirs)), meet(&segments(theirs), &segments(ours))];
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
        ] {
            assert!(!meets(one, other), "{one} {other}");
        }
    }

    proptest! {
        /// Against what the router says of paths.
        #[test]
        fn what_is_matched_by_both_is_where_they_meet(
            ours in "(/(a|b|\\{x\\}|a\\{x\\})){0,2}(/(a|\\{x2\\}|\\{\\*r\\}|a\\{\\*r\\}|))",
            theirs in "(/(a|b|\\{x\\}|a\\{x\\})){0,2}(/(a|\\{x2\\}|\\{\\*r\\}|a\\{\\*r\\}|))",
            path in "(/[ab]{0,2}){1,4}",
        ) {
            let is_for = |pattern: &str| {
                let mut router = matchit::Router::new();
                router.insert(pattern, ()).is_ok() && router.at(&path).is_ok()
            };
            if is_for(&ours) && is_for(&theirs) {
                prop_assert!(meet(&segments(&ours), &segments(&theirs)), "{} {} {}", ours, theirs, path);
            }
        }

        /// Against what the router says of paths.
        #[test]
        fn what_is_covered_is_matched(
            ours in "(/(a|b|\\{x\\}|a\\{x\\})){0,2}(/(a|\\{x2\\}|\\{\\*r\\}|a\\{\\*r\\}|))",
            theirs in "(/(a|b|\\{x\\}|a\\{x\\})){0,2}(/(a|\\{x2\\}|\\{\\*r\\}|a\\{\\*r\\}|))",
            path in "(/[ab]{0,2}){1,4}",
        ) {
            let router = |pattern: &str| {
                let mut router = matchit::Router::new();
                router.insert(pattern, ()).ok().map(|()| router)
            };
            if let (Some(our), Some(their)) = (router(&ours), router(&theirs))
                && covers(&ours, &theirs)
                && their.at(&path).is_ok()
            {
                prop_assert!(our.at(&path).is_ok(), "{} {} {}", ours, theirs, path);
            }
        }
    }
}
