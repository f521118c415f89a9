//! The query of a full template such as `/get_fprod.php?uid={_}&pid={pid}&sid={_}`.

use smallvec::{SmallVec, smallvec};

use super::{
    error::Problem,
    pattern::GAP,
    query::{MAX_READ, Name, Pairs, decode, hides_another, read, resemble},
    spelling,
};
use crate::work::is_same;

/// These parameters, each once, in any order, beside those that it tolerates.
#[derive(Clone, Debug)]
pub(super) struct QueryTemplate {
    parameters: Box<[(Box<str>, Value)]>,
    /// The same as they are written.
    spelling: Box<[Box<str>]>,
    tolerated: Box<[Name]>,
    /// Whether the origin sees what is tolerated.
    forwards: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Capture(Box<str>),
    /// Not in the key, and may be missing.
    Optional,
    /// Decoded.
    Literal(Box<str>),
}

impl QueryTemplate {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut parameters: Vec<(Box<str>, Value)> = Vec::new();
        for pair in text.split('&') {
            let broken = || Problem::Template(pair.into());
            let (name, value) = pair.split_once('=').ok_or_else(broken)?;
            let name = decode(name).filter(|name| !name.contains([';', '{', '}'])).ok_or_else(broken)?;
            if parameters.iter().any(|(other, _)| **other == *name) {
                return Err(Problem::RepeatedParameter(name.into()));
            }
            if let Some(instead) = spelling::of_value(&name, value) {
                return Err(Problem::Wildcard { text: pair.into(), instead: instead.into() });
            }
            let value = Value::parse(value).ok_or_else(broken)?;
            if let Value::Capture(capture) = &value
                && parameters.iter().any(|(_, other)| other.captures(capture))
            {
                return Err(Problem::RepeatedCapture(capture.clone()));
            }
            parameters.push((name.into(), value));
        }
        let spelling = text.split('&').map(Into::into).collect();
        Ok(Self { parameters: parameters.into(), spelling, tolerated: Box::default(), forwards: false })
    }

    /// Whether it has a parameter of this name, which is none that it could tolerate.
    pub(super) fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(own, _)| **own == *name)
    }

    /// From now on it is for queries with these parameters as well, which the origin sees or does not.
    pub(super) fn tolerate(&mut self, names: Box<[Name]>, forwards: bool) {
        (self.tolerated, self.forwards) = (names, forwards);
    }

    /// The captured parameters of a query that the template is for, as written and in the
    /// template's order.
    pub(super) fn at<'q>(&self, query: &'q str) -> Option<Slots<'q>> {
        let mut found: Slots<'q> = smallvec![None; self.parameters.len()];
        let (mut all, mut tolerated) = (0, 0);
        for (name, pair) in read(query) {
            let name = name?;
            all += 1;
            let at = self.parameters.iter().position(|(own, _)| is_same(own.as_bytes(), name.as_bytes()));
            match at {
                Some(at) if found[at].is_none() && self.parameters[at].1.admits(pair) => {
                    found[at] = Some(pair);
                }
                None if self.tolerates(&name) && !(self.forwards && hides_another(pair)) => tolerated += 1,
                _ => return None,
            }
        }
        let is_complete = |(found, (_, value)): (&Option<&str>, &(_, Value))| {
            found.is_some() || matches!(value, Value::Optional)
        };
        // Of more parameters than all servers read, what is left out might hide others.
        let is_read = all <= MAX_READ || tolerated == 0;
        (is_read && found.iter().zip(&self.parameters).all(is_complete)).then_some(found)
    }

    /// Whether a parameter counts for nothing. What a framework could take for one that counts never does.
    fn tolerates(&self, name: &str) -> bool {
        let is_tolerated = self.tolerated.iter().any(|own| own.is(name));
        is_tolerated && !self.parameters.iter().any(|(own, _)| resemble(own, name))
    }

    /// What of a match is in the key: the captures with a name.
    pub(super) fn keyed<'q>(&self, slots: &Slots<'q>) -> Pairs<'q> {
        let is_keyed = |value: &Value| matches!(value, Value::Capture(name) if **name != *GAP);
        self.zip(slots).filter(|(value, _)| is_keyed(value)).map(|(_, pair)| pair).collect()
    }

    /// What of the rest is not spelt as in the template: to a service that decodes less, or more, it
    /// is something else.
    pub(super) fn misspelt<'q>(&self, slots: &Slots<'q>) -> Pairs<'q> {
        fn name(pair: &str) -> Option<&str> {
            pair.split('=').next()
        }
        let is_misspelt = |value: &Value, pair: &str, own: &str| match value {
            Value::Optional => name(pair) != name(own),
            Value::Capture(capture) if **capture == *GAP => name(pair) != name(own),
            Value::Capture(_) => false,
            Value::Literal(_) => pair != own,
        };
        let all = self.parameters.iter().zip(slots).zip(&self.spelling);
        let found = all.filter_map(|(((_, value), pair), own)| Some((value, (*pair)?, own)));
        found.filter(|(value, pair, own)| is_misspelt(value, pair, own)).map(|(_, pair, _)| pair).collect()
    }

    /// What the origin sees if what is not in the key is removed.
    pub(super) fn shown<'q>(&self, slots: &Slots<'q>) -> Pairs<'q> {
        self.zip(slots).filter(|(value, _)| !value.is_gap()).map(|(_, pair)| pair).collect()
    }

    /// The value that a capture has in a match, as written.
    pub(super) fn capture<'q>(&self, slots: &Slots<'q>, name: &str) -> Option<&'q str> {
        let is_named = |value: &Value| matches!(value, Value::Capture(own) if **own == *name);
        let (_, pair) = self.zip(slots).find(|(value, _)| is_named(value))?;
        Some(pair.split_once('=').map_or("", |(_, value)| value))
    }

    /// Whether it is for all queries that the other one is for.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let find = |all: &'_ Self, name: &str| all.parameters.iter().position(|(own, _)| **own == *name);
        let is_ours = |(name, own): &(Box<str>, Value)| match find(other, name) {
            None => matches!(own, Value::Optional),
            Some(at) => match (own, &other.parameters[at].1) {
                (Value::Optional, _) => true,
                (_, Value::Optional) => false,
                (Value::Capture(_), _) => true,
                (Value::Literal(_), their) => own == their,
            },
        };
        let is_theirs_here =
            |(name, _): &(Box<str>, Value)| find(self, name).is_some() || self.tolerates(name);
        let passes = |their: &Name| match their {
            Name::Exact(name) => self.tolerates(name),
            // Those that resemble a parameter are tolerated by neither.
            Name::Prefix(_) => self.tolerated.iter().any(|own| own.covers(their)) && self.has_all_of(other),
        };
        self.parameters.iter().all(is_ours)
            && other.parameters.iter().all(is_theirs_here)
            && other.tolerated.iter().all(passes)
            && (!self.forwards || other.forwards)
    }

    fn has_all_of(&self, other: &Self) -> bool {
        let is_there = |(name, _): &(Box<str>, Value)| other.parameters.iter().any(|(own, _)| own == name);
        self.parameters.iter().all(is_there)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter_map(|(_, value)| match value {
            Value::Capture(name) => Some(&**name),
            Value::Optional => Some(GAP),
            Value::Literal(_) => None,
        })
    }

    /// Whether a parameter is not in the key.
    pub(super) fn leaves_out(&self) -> bool {
        !self.tolerated.is_empty() || self.names().any(|name| name == GAP)
    }

    fn zip<'s, 'q>(&'s self, slots: &'s Slots<'q>) -> impl Iterator<Item = (&'s Value, &'q str)> {
        self.parameters.iter().zip(slots).filter_map(|((_, value), pair)| Some((value, (*pair)?)))
    }
}

/// The parameters of a match, as written, one for each of the template unless that may be missing.
pub(super) type Slots<'q> = SmallVec<[Option<&'q str>; 8]>;

impl Value {
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
        decode(text).filter(|_| is_literal).map(|value| Self::Literal(value.into()))
    }

    /// Whether it has the same name, if that is one.
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
            // Not in the key, but in what the origin sees.
            Self::Capture(_) | Self::Optional => !self.is_gap() || !hides_another(pair),
            Self::Literal(own) => {
                pair.split_once('=').and_then(|(_, value)| decode(value)).is_some_and(|value| *value == **own)
            }
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
    fn captures_are_in_the_key_as_written_and_gaps_are_not() {
        let template = template();
        let slots = template.at("sid=3&%70id=%32&view=a+b&uid=1").unwrap();
        assert_eq!(template.keyed(&slots).as_slice(), ["%70id=%32"]);
        assert_eq!(template.shown(&slots).as_slice(), ["%70id=%32", "view=a+b"]);
        assert_eq!(template.capture(&slots, "pid"), Some("%32"));
        assert_eq!(template.capture(&slots, "view"), None);
        assert!(template.leaves_out() && !QueryTemplate::parse("a={b}").unwrap().leaves_out());
    }

    fn tolerant(text: &str, names: &[&str], forwards: bool) -> QueryTemplate {
        let mut template = QueryTemplate::parse(text).unwrap();
        template.tolerate(names.iter().map(|name| Name::parse(name).unwrap()).collect(), forwards);
        template
    }

    #[test]
    fn what_is_tolerated_may_be_there_and_never_passes_for_a_parameter() {
        let template = tolerant("a={a}&b={_?}", &["utm_*", "x", "a*"], false);
        for query in ["a=1", "a=1&b=2", "utm_source=x&a=1&utm_source=y", "x&a=1&b", "a=1&a2=3", "a=1&x=%26"] {
            let slots = template.at(query).expect(query);
            assert_eq!(template.keyed(&slots).as_slice(), ["a=1"], "{query}");
            assert_eq!(template.shown(&slots).as_slice(), ["a=1"], "{query}");
        }
        for query in
            ["b=1", "a=1&y=2", "a=1&a[]=2", "a=1&A=2", "a=1&B=2", "a=1&b=1&b=2", "a=1&utm_%zz", "a=1&X=2"]
        {
            assert!(template.at(query).is_none(), "{query}");
        }
        let forwarding = tolerant("a={a}", &["x"], true);
        assert!(forwarding.at("a=1&x=2").is_some());
        assert!(forwarding.at("a=1&x=%26a=2").is_none());
        assert!(forwarding.at(&format!("{}a=1", "x&".repeat(MAX_READ - 1))).is_some());
        assert!(forwarding.at(&format!("{}a=1", "x&".repeat(MAX_READ))).is_none());
    }

    #[test]
    fn a_template_covers_those_that_match_less() {
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
