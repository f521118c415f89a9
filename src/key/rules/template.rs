//! Query templates, such as that of `/get_fprod.php?uid={_}&pid={pid}&sid={_}`.

use smallvec::{SmallVec, smallvec};

use super::{error::Problem, pattern::GAP, query, spelling};
use crate::work::is_same;

/// Matches queries with these parameters, each once and in any order, and any tolerated ones.
#[derive(Clone, Debug)]
pub(super) struct QueryTemplate {
    parameters: Box<[(Box<str>, ParameterValue)]>,
    /// The parameters as written.
    spelling: Box<[Box<str>]>,
    tolerated: Box<[query::ParameterName]>,
    /// Whether the origin sees the tolerated parameters.
    forwards: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ParameterValue {
    Capture(Box<str>),
    /// Not in the key, and may be absent.
    Optional,
    /// Decoded.
    Literal(Box<str>),
}

impl QueryTemplate {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut parameters: Vec<(Box<str>, ParameterValue)> = Vec::new();
        for pair in text.split('&') {
            let broken = || Problem::Template(pair.into());
            let (name, value) = pair.split_once('=').ok_or_else(broken)?;
            let name =
                query::decode(name).filter(|name| !name.contains([';', '{', '}'])).ok_or_else(broken)?;
            if parameters.iter().any(|(other, _)| **other == *name) {
                return Err(Problem::RepeatedParameter(name.into()));
            }
            if let Some(instead) = spelling::of_value(&name, value) {
                return Err(Problem::Wildcard { text: pair.into(), instead: instead.into() });
            }
            let value = ParameterValue::parse(value).ok_or_else(broken)?;
            if let ParameterValue::Capture(capture) = &value
                && parameters.iter().any(|(_, other)| other.captures(capture))
            {
                return Err(Problem::RepeatedCapture(capture.clone()));
            }
            parameters.push((name.into(), value));
        }
        let spelling = text.split('&').map(Into::into).collect();
        Ok(Self { parameters: parameters.into(), spelling, tolerated: Box::default(), forwards: false })
    }

    /// Whether it has a parameter of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(own, _)| **own == *name)
    }

    /// Lets it match queries with these parameters too, which the origin sees if it `forwards` them.
    pub(super) fn tolerate(&mut self, names: Box<[query::ParameterName]>, forwards: bool) {
        (self.tolerated, self.forwards) = (names, forwards);
    }

    /// Matches a query, and returns its parameters in the order of the template.
    pub(super) fn at<'q>(&self, query: &'q str) -> Option<QueryCaptures<'q>> {
        let mut found: QueryCaptures<'q> = smallvec![None; self.parameters.len()];
        let (mut all, mut tolerated) = (0, 0);
        for (name, pair) in query::read(query) {
            let name = name?;
            all += 1;
            let at = self.parameters.iter().position(|(own, _)| is_same(own.as_bytes(), name.as_bytes()));
            match at {
                Some(at) if found[at].is_none() && self.parameters[at].1.admits(pair) => {
                    found[at] = Some(pair);
                }
                None if self.tolerates(&name) && !(self.forwards && query::hides_another(pair)) => {
                    tolerated += 1;
                }
                _ => return None,
            }
        }
        let is_complete = |(found, (_, value)): (&Option<&str>, &(_, ParameterValue))| {
            found.is_some() || matches!(value, ParameterValue::Optional)
        };
        // Among more parameters than all servers read, one that is left out might hide others.
        let is_read = all <= query::MAX_READ || tolerated == 0;
        (is_read && found.iter().zip(&self.parameters).all(is_complete)).then_some(found)
    }

    /// Whether a parameter is tolerated. One that a framework could take for a parameter of the template never is.
    fn tolerates(&self, name: &str) -> bool {
        let is_tolerated = self.tolerated.iter().any(|own| own.is(name));
        is_tolerated && !self.parameters.iter().any(|(own, _)| query::resemble(own, name))
    }

    /// The parameters in the key: the named captures.
    pub(super) fn keyed<'q>(&self, captures: &QueryCaptures<'q>) -> query::Parameters<'q> {
        let is_keyed =
            |value: &ParameterValue| matches!(value, ParameterValue::Capture(name) if **name != *GAP);
        self.zip(captures).filter(|(value, _)| is_keyed(value)).map(|(_, pair)| pair).collect()
    }

    /// The other parameters that are not spelled as in the template: to a service that decodes less, or more, they
    /// are different.
    pub(super) fn misspelt<'q>(&self, captures: &QueryCaptures<'q>) -> query::Parameters<'q> {
        fn name(pair: &str) -> Option<&str> {
            pair.split('=').next()
        }
        let is_misspelt = |value: &ParameterValue, pair: &str, own: &str| match value {
            ParameterValue::Optional => name(pair) != name(own),
            ParameterValue::Capture(capture) if **capture == *GAP => name(pair) != name(own),
            ParameterValue::Capture(_) => false,
            ParameterValue::Literal(_) => pair != own,
        };
        let all = self.parameters.iter().zip(captures).zip(&self.spelling);
        let found = all.filter_map(|(((_, value), pair), own)| Some((value, (*pair)?, own)));
        found.filter(|(value, pair, own)| is_misspelt(value, pair, own)).map(|(_, pair, _)| pair).collect()
    }

    /// The parameters that the origin sees if those that are not in the key are removed.
    pub(super) fn forwarded<'q>(&self, captures: &QueryCaptures<'q>) -> query::Parameters<'q> {
        self.zip(captures).filter(|(value, _)| !value.is_gap()).map(|(_, pair)| pair).collect()
    }

    /// The value of a capture, as written.
    pub(super) fn capture<'q>(&self, captures: &QueryCaptures<'q>, name: &str) -> Option<&'q str> {
        let is_named =
            |value: &ParameterValue| matches!(value, ParameterValue::Capture(own) if **own == *name);
        let (_, pair) = self.zip(captures).find(|(value, _)| is_named(value))?;
        Some(pair.split_once('=').map_or("", |(_, value)| value))
    }

    /// Whether it matches all queries that the other one matches.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let find = |all: &'_ Self, name: &str| all.parameters.iter().position(|(own, _)| **own == *name);
        let is_ours = |(name, own): &(Box<str>, ParameterValue)| match find(other, name) {
            None => matches!(own, ParameterValue::Optional),
            Some(at) => match (own, &other.parameters[at].1) {
                (ParameterValue::Optional, _) => true,
                (_, ParameterValue::Optional) => false,
                (ParameterValue::Capture(_), _) => true,
                (ParameterValue::Literal(_), their) => own == their,
            },
        };
        let is_known =
            |(name, _): &(Box<str>, ParameterValue)| find(self, name).is_some() || self.tolerates(name);
        let is_tolerated = |their: &query::ParameterName| match their {
            query::ParameterName::Exact(name) => self.tolerates(name),
            // Neither tolerates names that resemble a parameter.
            query::ParameterName::Prefix(_) => {
                self.tolerated.iter().any(|own| own.covers(their)) && self.has_all_of(other)
            }
        };
        self.parameters.iter().all(is_ours)
            && other.parameters.iter().all(is_known)
            && other.tolerated.iter().all(is_tolerated)
            && (!self.forwards || other.forwards)
    }

    fn has_all_of(&self, other: &Self) -> bool {
        let is_there =
            |(name, _): &(Box<str>, ParameterValue)| other.parameters.iter().any(|(own, _)| own == name);
        self.parameters.iter().all(is_there)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter_map(|(_, value)| match value {
            ParameterValue::Capture(name) => Some(&**name),
            ParameterValue::Optional => Some(GAP),
            ParameterValue::Literal(_) => None,
        })
    }

    /// Whether a parameter is not in the key.
    pub(super) fn leaves_out(&self) -> bool {
        !self.tolerated.is_empty() || self.names().any(|name| name == GAP)
    }

    fn zip<'s, 'q>(
        &'s self,
        captures: &'s QueryCaptures<'q>,
    ) -> impl Iterator<Item = (&'s ParameterValue, &'q str)> {
        self.parameters.iter().zip(captures).filter_map(|((_, value), pair)| Some((value, (*pair)?)))
    }
}

/// The parameters of a match as written, in the order of the template. `None`: an optional one is missing.
pub(super) type QueryCaptures<'q> = SmallVec<[Option<&'q str>; 8]>;

impl ParameterValue {
    fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let is_name = !name.is_empty() && !name.contains(['{', '}', '*', '?']);
            let is_optional = name.strip_suffix('?') == Some(GAP);
            return match is_optional {
                true => Some(Self::Optional),
                false => is_name.then(|| Self::Capture(name.into())),
            };
        }
        let is_literal = !text.contains(['{', '}', ';', '=', '#']);
        query::decode(text).filter(|_| is_literal).map(|value| Self::Literal(value.into()))
    }

    /// Whether it is a capture with this name, if that is not the one of gaps.
    fn captures(&self, name: &str) -> bool {
        matches!(self, Self::Capture(own) if **own == *name && name != GAP)
    }

    fn is_gap(&self) -> bool {
        match self {
            Self::Capture(name) => **name == *GAP,
            Self::Optional => true,
            Self::Literal(_) => false,
        }
    }

    fn admits(&self, pair: &str) -> bool {
        match self {
            // What is not in the key reaches the origin, and must not hide other parameters.
            Self::Capture(_) | Self::Optional => !self.is_gap() || !query::hides_another(pair),
            Self::Literal(own) => pair
                .split_once('=')
                .and_then(|(_, value)| query::decode(value))
                .is_some_and(|value| *value == **own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> QueryTemplate {
        QueryTemplate::parse("uid={_}&pid={pid}&view=a%20b&sid={_}").unwrap()
    }

    #[test]
    fn a_query_matches_with_exactly_these_parameters_each_once() {
        for query in
            ["uid=1&pid=2&view=a+b&sid=3", "sid=&view=a%20b&pid=2&uid", "uid=1&%70id=2&view=%61%20b&sid=3"]
        {
            assert!(template().at(query).is_some(), "{query}");
        }
        for query in [
            "",
            "uid=1&pid=2&view=a+b",
            "uid=1&pid=2&view=a+b&sid=3&x=4",
            "uid=1&pid=2&view=a+b&sid=3&",
            "uid=1&pid=2&view=a+b&sid=3&pid=5",
            "uid=1&pid=2&view=c&sid=3",
            "uid=1&pid=2&view&sid=3",
            "uid=1&PID=2&view=a+b&sid=3",
            "uid=1%26pid=3&pid=2&view=a+b&sid=3",
            "uid=1;x&pid=2&view=a+b&sid=3",
            "uid=1&pid=2&view=a+b&sid%zz=3",
        ] {
            assert!(template().at(query).is_none(), "{query}");
        }
    }

    #[test]
    fn captures_are_keyed_as_written_and_gaps_are_not() {
        let template = template();
        let captures = template.at("sid=3&%70id=%32&view=a+b&uid=1").unwrap();
        assert_eq!(template.keyed(&captures).as_slice(), ["%70id=%32"]);
        assert_eq!(template.forwarded(&captures).as_slice(), ["%70id=%32", "view=a+b"]);
        assert_eq!(template.capture(&captures, "pid"), Some("%32"));
        assert_eq!(template.capture(&captures, "view"), None);
        assert!(template.leaves_out() && !QueryTemplate::parse("a={b}").unwrap().leaves_out());
    }

    fn tolerant(text: &str, names: &[&str], forwards: bool) -> QueryTemplate {
        let mut template = QueryTemplate::parse(text).unwrap();
        template.tolerate(
            names.iter().map(|name| query::ParameterName::parse(name).unwrap()).collect(),
            forwards,
        );
        template
    }

    #[test]
    fn tolerated_parameters_may_be_present_and_are_never_taken_for_others() {
        let template = tolerant("a={a}&b={_?}", &["utm_*", "x", "a*"], false);
        for query in ["a=1", "a=1&b=2", "utm_source=x&a=1&utm_source=y", "x&a=1&b", "a=1&a2=3", "a=1&x=%26"] {
            let captures = template.at(query).expect(query);
            assert_eq!(template.keyed(&captures).as_slice(), ["a=1"], "{query}");
            assert_eq!(template.forwarded(&captures).as_slice(), ["a=1"], "{query}");
        }
        for query in
            ["b=1", "a=1&y=2", "a=1&a[]=2", "a=1&A=2", "a=1&B=2", "a=1&b=1&b=2", "a=1&utm_%zz", "a=1&X=2"]
        {
            assert!(template.at(query).is_none(), "{query}");
        }
        let forwarding = tolerant("a={a}", &["x"], true);
        assert!(forwarding.at("a=1&x=2").is_some());
        assert!(forwarding.at("a=1&x=%26a=2").is_none());
        assert!(forwarding.at(&format!("{}a=1", "x&".repeat(query::MAX_READ - 1))).is_some());
        assert!(forwarding.at(&format!("{}a=1", "x&".repeat(query::MAX_READ))).is_none());
    }

    #[test]
    fn templates_cover_narrower_ones() {
        let all = [
            tolerant("a={a}", &[], false),
            tolerant("a={a}", &["b", "c*"], false),
            tolerant("a={a}", &["b", "c*"], true),
            tolerant("a={a}&b={_}", &[], false),
            tolerant("b={_?}&a={b}", &[], false),
            tolerant("a=1", &["cc*"], false),
            tolerant("a=1&b={_?}", &["cd"], false),
            tolerant("c={_?}&a={a}", &["c*"], false),
        ];
        let queries = [
            "a=1",
            "a=2",
            "a=1&b=2",
            "a=1&cc=2",
            "a=1&cd=2",
            "a=1&c=2",
            "a=1&c[]=2",
            "a=1&b=1&b=2",
            "a=1&cc=%26",
            "a=1&cd=1&b=1",
        ];
        for (at, ours) in all.iter().enumerate() {
            for (other, theirs) in all.iter().enumerate() {
                let missed =
                    queries.iter().find(|query| theirs.at(query).is_some() && ours.at(query).is_none());
                assert!(!ours.covers(theirs) || missed.is_none(), "{at} {other} {missed:?}");
            }
            assert!(ours.covers(ours), "{at}");
        }
        let covered =
            |ours: usize| (0..all.len()).filter(|theirs| all[ours].covers(&all[*theirs])).collect::<Vec<_>>();
        assert_eq!(covered(0), [0]);
        assert_eq!(covered(1), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(covered(2), [2]);
        assert_eq!(covered(4), [0, 3, 4]);
    }

    #[test]
    fn broken_templates_are_refused() {
        for text in [
            "",
            "a",
            "a={",
            "a={}",
            "a={b}c",
            "a={{b}}",
            "a=1&a=2",
            "{a}=1",
            "a={*b}",
            "a=1&&b=2",
            "a;b=1",
            "a={x}&b={x}",
            "a={x?}",
        ] {
            assert!(QueryTemplate::parse(text).is_err(), "{text}");
        }
    }
}
