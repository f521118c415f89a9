//! The normal form of a JSON body, or of a part of it.
//!
//! The origin gets this form, so that bodies with one entry are the same to it. Scalars stay as written: a
//! number keeps its digits.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::work::looked_at;

/// Limited, since each level is read once more than the one above it.
const MAX_DEPTH: usize = 32;

/// The names of members, from the outermost one.
type Pointer = Box<[Box<str>]>;

/// The parts of a body in its normal form.
#[derive(Debug, Default)]
pub(in crate::key) struct JsonShape {
    /// Whether only included members are.
    is_part: bool,
    steps: Box<[(Pointer, Action)]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::key) enum Action {
    Include,
    Ignore,
    /// With this JSON text.
    Replace(Box<str>),
}

/// The body has no normal form: servers may read it in several ways, or it is not JSON.
struct NoForm;

/// The remaining pointers and the actions at their ends.
type Steps<'p> = Vec<(&'p [Box<str>], &'p Action)>;

/// Parses a JSON Pointer (RFC 6901), where `*` means each element of a list.
pub(in crate::key) fn parse_pointer(text: &str) -> Option<Pointer> {
    let names = text.strip_prefix('/')?.split('/');
    let unescaped = |name: &str| {
        let is_escaped = name.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        is_escaped.then(|| name.replace("~1", "/").replace("~0", "~").into())
    };
    names.map(unescaped).collect()
}

impl JsonShape {
    pub(in crate::key) fn new(is_part: bool, steps: Vec<(Pointer, Action)>) -> Self {
        Self { is_part, steps: steps.into() }
    }

    /// Returns the normal form, or `None` if the body counts byte for byte.
    pub(super) fn apply(&self, body: &[u8]) -> Option<Vec<u8>> {
        let value: &RawValue = serde_json::from_slice(body).ok()?;
        let steps = self.steps.iter().map(|(path, action)| (&**path, action)).collect();
        let mut form = Vec::with_capacity(body.len());
        write(value.get(), &steps, !self.is_part, MAX_DEPTH, &mut form).ok()?;
        Some(form)
    }
}

/// Writes a value: all of it, or only the included members inside.
fn write(
    text: &str,
    steps: &Steps<'_>,
    is_whole: bool,
    depth: usize,
    form: &mut Vec<u8>,
) -> Result<(), NoForm> {
    looked_at(text.len());
    let depth = depth.checked_sub(1).ok_or(NoForm)?;
    // It cannot contain the included members.
    if !is_whole && !leads_into(text, steps) {
        return Err(NoForm);
    }
    match text.as_bytes().first() {
        Some(b'{') => write_object(text, steps, is_whole, depth, form),
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| NoForm)?;
            let mut separator = b'[';
            for element in elements {
                let (next, is_whole) = follow(steps, "*", is_whole);
                if separate(form, &mut separator, &next, is_whole, element.get()) {
                    write_next(element.get(), &next, is_whole, depth, form)?;
                }
            }
            close(form, separator, b"[]");
            Ok(())
        }
        _ => {
            form.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
}

fn write_object(
    text: &str,
    steps: &Steps<'_>,
    is_whole: bool,
    depth: usize,
    form: &mut Vec<u8>,
) -> Result<(), NoForm> {
    let Members(mut members) = serde_json::from_str(text).map_err(|_| NoForm)?;
    // Of repeated names servers take the first, the last, or both, and some ignore case.
    let mut names: Vec<String> = members.iter().map(|(name, _)| without_case(name)).collect();
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) {
        return Err(NoForm);
    }
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut separator = b'{';
    for (name, value) in members {
        let (next, is_included) = follow(steps, &name, is_whole);
        if !separate(form, &mut separator, &next, is_included, value.get()) {
            // Some servers ignore the case of names.
            let is_same = |path: &[Box<str>]| path.first().is_some_and(|own| is_another_case(own, &name));
            match steps.iter().any(|(path, _)| is_same(path)) {
                true => return Err(NoForm),
                false => continue,
            }
        }
        serde_json::to_writer(&mut *form, &*name).map_err(|_| NoForm)?;
        form.push(b':');
        write_next(value.get(), &next, is_included, depth, form)?;
    }
    close(form, separator, b"{}");
    Ok(())
}

fn write_next(
    text: &str,
    next: &Steps<'_>,
    is_whole: bool,
    depth: usize,
    form: &mut Vec<u8>,
) -> Result<(), NoForm> {
    match replacement(next) {
        Some(constant) => {
            form.extend_from_slice(constant.as_bytes());
            Ok(())
        }
        None => write(text, next, is_whole, depth, form),
    }
}

/// The steps that continue in this member, and whether all of it is included.
fn follow<'p>(steps: &Steps<'p>, name: &str, is_whole: bool) -> (Steps<'p>, bool) {
    let next: Steps<'p> = steps
        .iter()
        .filter_map(|(path, action)| {
            let (first, rest) = path.split_first()?;
            (**first == *name).then_some((rest, *action))
        })
        .collect();
    let is_included = next.iter().any(|(rest, action)| rest.is_empty() && **action == Action::Include);
    (next, is_whole || is_included)
}

/// Writes the separator before a member or an element. Returns false if that is not written at all.
fn separate(form: &mut Vec<u8>, separator: &mut u8, next: &Steps<'_>, is_whole: bool, text: &str) -> bool {
    let is_ignored = next.iter().any(|(rest, action)| rest.is_empty() && **action == Action::Ignore);
    let leads_on =
        || text.starts_with(['{', '[']) && next.iter().any(|(_, action)| **action == Action::Include);
    let is_written = !is_ignored && (is_whole || replacement(next).is_some() || leads_on());
    if is_written {
        form.push(std::mem::replace(separator, b','));
    }
    is_written
}

fn close(form: &mut Vec<u8>, separator: u8, brackets: &[u8; 2]) {
    if separator == brackets[0] {
        form.push(separator);
    }
    form.push(brackets[1]);
}

fn replacement<'p>(next: &Steps<'p>) -> Option<&'p str> {
    next.iter().find_map(|(rest, action)| match action {
        Action::Replace(constant) if rest.is_empty() => Some(&**constant),
        _ => None,
    })
}

/// Whether any pointer continues into this list or object. True for scalars.
fn leads_into(text: &str, steps: &Steps<'_>) -> bool {
    let mut firsts = steps.iter().filter_map(|(path, _)| path.first());
    match text.as_bytes().first() {
        Some(b'[') => firsts.any(|own| **own == *"*"),
        Some(b'{') => firsts.any(|own| **own != *"*"),
        _ => true,
    }
}

fn is_another_case(own: &str, name: &str) -> bool {
    own != name && without_case(own) == without_case(name)
}

/// Also for letters with a single case, such as the long s.
fn without_case(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

/// The members of an object, in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    members.push((name.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(All)
    }
}

/// Borrowed if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(include: Option<&[&str]>, ignore: &[&str], replace: &[(&str, &str)]) -> JsonShape {
        let pointer = |text: &str| parse_pointer(text).unwrap();
        let mut steps: Vec<_> =
            include.iter().flat_map(|all| all.iter()).map(|text| (pointer(text), Action::Include)).collect();
        steps.extend(ignore.iter().map(|text| (pointer(text), Action::Ignore)));
        steps.extend(replace.iter().map(|(text, own)| (pointer(text), Action::Replace((*own).into()))));
        JsonShape::new(include.is_some(), steps)
    }

    fn form(shape: &JsonShape, body: &str) -> Option<String> {
        shape.apply(body.as_bytes()).map(|form| String::from_utf8(form).unwrap())
    }

    #[test]
    fn only_blanks_and_the_order_of_members_do_not_count() {
        let whole = shape(None, &[], &[]);
        for (body, expected) in [
            (
                " { \"b\" : 1 , \"a\" : [ 1.0 , 2e3, \"x y\" , null ] } ",
                "{\"a\":[1.0,2e3,\"x y\",null],\"b\":1}",
            ),
            ("{\"\\u0061\": {\"y\": {}, \"x\": []}}", "{\"a\":{\"x\":[],\"y\":{}}}"),
            ("[{\"b\":1,\"a\":\"\\u00e9\"}]", "[{\"a\":\"\\u00e9\",\"b\":1}]"),
            ("12345678901234567890123.0", "12345678901234567890123.0"),
            ("-0", "-0"),
            ("\"\u{e9}\"", "\"\u{e9}\""),
            ("{\"\\\"\": 1, \"\\n\": 2}", "{\"\\n\":2,\"\\\"\":1}"),
        ] {
            assert_eq!(form(&whole, body).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn ambiguous_bodies_have_no_form() {
        let whole = shape(None, &[], &[]);
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        for body in [
            "",
            "{",
            "{} {}",
            "\u{feff}{}",
            "{\"a\":1,\"a\":1}",
            "{\"x\":{\"a\":1,\"\\u0061\":2}}",
            "{'a':1}",
            "NaN",
            &deep,
        ] {
            assert_eq!(form(&whole, body), None, "{body}");
        }
        assert_eq!(form(&whole, &deep[1..deep.len() - 1]).as_deref(), Some(&deep[1..deep.len() - 1]));
        assert_eq!(whole.apply(b"{\"a\":\"\xff\"}"), None);
    }

    #[test]
    fn parts_are_included_ignored_and_replaced() {
        let table: [(_, _, _); 11] = [
            (shape(None, &["/id"], &[]), r#"{"id":7,"q":{"id":1}}"#, r#"{"q":{"id":1}}"#),
            (shape(None, &["/q/id", "/none"], &[]), r#"{"id":7,"q":{"id":1}}"#, r#"{"id":7,"q":{}}"#),
            (shape(None, &["/*/id"], &[]), r#"[{"id":1,"m":2},{"id":2,"m":3},4]"#, r#"[{"m":2},{"m":3},4]"#),
            (shape(None, &["/a~1b/~0"], &[]), r#"{"a/b":{"~":1,"x":2}}"#, r#"{"a/b":{"x":2}}"#),
            (shape(None, &[], &[("/id", "1")]), r#"{"id":"x","q":1}"#, r#"{"id":1,"q":1}"#),
            (shape(None, &[], &[("/id", "1")]), r#"{"q":1}"#, r#"{"q":1}"#),
            (shape(None, &[], &[("/*/id", "1")]), r#"[{"id":5},{"id":6}]"#, r#"[{"id":1},{"id":1}]"#),
            (shape(Some(&["/q"]), &[], &[]), r#"{"id":7,"q":{"b":1,"a":2}}"#, r#"{"q":{"a":2,"b":1}}"#),
            (shape(Some(&["/p/q", "/p/r"]), &[], &[]), r#"{"p":{"q":1,"x":2},"y":3}"#, r#"{"p":{"q":1}}"#),
            (
                shape(Some(&["/q"]), &["/q/id"], &[("/id", "1")]),
                r#"{"id":7,"q":{"id":1,"a":2}}"#,
                r#"{"id":1,"q":{"a":2}}"#,
            ),
            (shape(Some(&["/p/q"]), &[], &[]), r#"{"p":5,"x":1}"#, "{}"),
        ];
        for (shape, body, expected) in table {
            assert_eq!(form(&shape, body).as_deref(), Some(expected), "{shape:?} {body}");
        }
    }

    /// To a server that does not mind case it is the one that counts.
    #[test]
    fn a_name_that_differs_by_case_from_one_that_counts_leaves_no_form() {
        let part = shape(Some(&["/q"]), &[], &[]);
        assert_eq!(form(&part, r#"{"q":1,"Q":2}"#), None);
        assert_eq!(form(&part, r#"{"Q":2}"#), None);
        let rest = shape(None, &["/id"], &[]);
        assert_eq!(form(&rest, r#"{"ID":2}"#).as_deref(), Some(r#"{"ID":2}"#), "it counts");
        // In their order the last one may be another than the client's.
        for body in [r#"{"a":1,"A":2}"#, r#"{"A":2,"b":0,"a":1}"#, r#"{"x":{"id2":1,"q":0,"ID2":2}}"#] {
            assert_eq!(form(&rest, body), None, "{body}");
        }
        // A long s and the sign for Kelvin, which Go takes for letters of names.
        for name in ["\u{17f}k", "s\u{212a}"] {
            assert_eq!(form(&shape(Some(&["/sk"]), &[], &[]), &format!("{{\"{name}\":1}}")), None, "{name}");
        }
    }

    /// JSON-RPC has lists of calls, and parameters by their positions: all of them would be one.
    #[test]
    fn a_list_instead_of_an_object_has_no_form_nor_the_reverse() {
        for (pointer, body) in [
            ("/q", r#"[{"q":1}]"#),
            ("/p/q", r#"{"p":[1,2]}"#),
            ("/*/q", r#"{"q":1}"#),
            ("/p/*/q", r#"{"p":{"q":1}}"#),
        ] {
            assert_eq!(form(&shape(Some(&[pointer]), &[], &[]), body), None, "{pointer} {body}");
        }
        let both = shape(Some(&["/q", "/*/q"]), &[], &[]);
        for body in [r#"{"q":1}"#, r#"[{"q":1}]"#] {
            assert_eq!(form(&both, body).as_deref(), Some(body));
        }
    }

    #[test]
    fn invalid_pointers_are_refused() {
        for text in ["", "id", "a/b", "/~", "/~2", "/a~"] {
            assert_eq!(parse_pointer(text), None, "{text}");
        }
        assert_eq!(parse_pointer("/a~01/~1").unwrap().concat(), "a~1/");
        assert_eq!(parse_pointer("/").unwrap().len(), 1);
    }

    proptest! {
        /// A form says the same as its body, and is its own form.
        #[test]
        fn a_form_means_what_its_body_does(
            body in "(\\{(\"[ab]\": ?(1|\"x\"|\\[1, 2\\]|\\{\"c\" :null, \"b\":0\\.5\\})(, ?\"[cd]\":[0-9])?)?\\}|\\[[0-9](, ?[0-9]){0,2}\\])",
        ) {
            let whole = shape(None, &[], &[]);
            let form = form(&whole, &body).unwrap();
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(parse(&form), parse(&body));
            prop_assert_eq!(self::form(&whole, &form), Some(form));
        }
    }
}
