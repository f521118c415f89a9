//! The query of a full template such as `/get_fprod.php?uid={_}&pid={pid}&sid={_}`.

use smallvec::{SmallVec, smallvec};

use super::{
    error::Problem,
    pattern::GAP,
    query::{Pairs, decode, hides_another, read},
    spelling,
};
use crate::work::is_same;

/// Exactly these parameters, each once, in any order.
#[derive(Clone, Debug)]
pub(super) struct QueryTemplate {
    parameters: Box<[(Box<str>, Value)]>,
    /// The same as they are written.
    spelling: Box<[Box<str>]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Capture(Box<str>),
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
        Ok(Self { parameters: parameters.into(), spelling: text.split('&').map(Into::into).collect() })
    }

    /// The captured parameters of a query that the template is for, as written and in the
    /// template's order.
    pub(super) fn at<'q>(&self, query: &'q str) -> Option<Slots<'q>> {
        let mut found: SmallVec<[Option<&'q str>; 8]> = smallvec![None; self.parameters.len()];
        let mut left = self.parameters.len();
        for (name, pair) in read(query) {
            let name = name?;
            let at = self.parameters.iter().position(|(own, _)| is_same(own.as_bytes(), name.as_bytes()))?;
            let is_new = found[at].replace(pair).is_none();
            if !is_new || !self.parameters[at].1.admits(pair) {
                return None;
            }
            left = left.checked_sub(1)?;
        }
        (left == 0).then(|| found.into_iter().flatten().collect())
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
            Value::Capture(capture) if **capture == *GAP => name(pair) != name(own),
            Value::Capture(_) => false,
            Value::Literal(_) => pair != own,
        };
        let spelling = self.spelling.iter();
        self.zip(slots)
            .zip(spelling)
            .filter(|((value, pair), own)| is_misspelt(value, pair, own))
            .map(|((_, pair), _)| pair)
            .collect()
    }

    /// What the origin sees if what is not in the key is removed.
    pub(super) fn shown<'q>(&self, slots: &Slots<'q>) -> Pairs<'q> {
        let is_gap = |value: &Value| matches!(value, Value::Capture(name) if **name == *GAP);
        self.zip(slots).filter(|(value, _)| !is_gap(value)).map(|(_, pair)| pair).collect()
    }

    /// The value that a capture has in a match, as written.
    pub(super) fn capture<'q>(&self, slots: &Slots<'q>, name: &str) -> Option<&'q str> {
        let is_named = |value: &Value| matches!(value, Value::Capture(own) if **own == *name);
        let (_, pair) = self.zip(slots).find(|(value, _)| is_named(value))?;
        Some(pair.split_once('=').map_or("", |(_, value)| value))
    }

    /// Whether it is for all queries that the other one is for.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let is_covered = |(name, own): &(Box<str>, Value)| {
            let (_, value) = other.parameters.iter().find(|(other, _)| other == name)?;
            Some(matches!(own, Value::Capture(_)) || own == value)
        };
        self.parameters.len() == other.parameters.len()
            && self.parameters.iter().all(|parameter| is_covered(parameter) == Some(true))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter_map(|(_, value)| match value {
            Value::Capture(name) => Some(&**name),
            Value::Literal(_) => None,
        })
    }

    pub(super) fn has_gaps(&self) -> bool {
        self.names().any(|name| name == GAP)
    }

    fn zip<'s, 'q>(&'s self, slots: &'s Slots<'q>) -> impl Iterator<Item = (&'s Value, &'q str)> {
        self.parameters.iter().zip(slots).map(|((_, value), pair)| (value, *pair))
    }
}

/// The parameters of a match, as written, one for each of the template.
pub(super) type Slots<'q> = Pairs<'q>;

impl Value {
    fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let is_name = !name.is_empty() && !name.contains(['{', '}', '*']);
            return is_name.then(|| Self::Capture(name.into()));
        }
        let is_literal = !text.contains(['{', '}', ';', '=', '#']);
        decode(text).filter(|_| is_literal).map(|value| Self::Literal(value.into()))
    }

    /// Whether it has the same name, if that is one.
    fn captures(&self, name: &str) -> bool {
        matches!(self, Self::Capture(own) if **own == *name && name != GAP)
    }

    fn admits(&self, pair: &str) -> bool {
        match self {
            // Not in the key, but in what the origin sees.
            Self::Capture(name) => **name != *GAP || !hides_another(pair),
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
        assert!(template.has_gaps() && !QueryTemplate::parse("a={b}").unwrap().has_gaps());
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
        ] {
            assert!(QueryTemplate::parse(text).is_err(), "{text}");
        }
    }
}
