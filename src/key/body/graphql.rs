//! Whether a GraphQL request is a read, from its document alone: claims of the client prove nothing.

use std::{borrow::Cow, fmt::Write};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::work::looked_at;

/// The deepest nesting of brackets in a document that is examined.
const MAX_DEPTH: usize = 64;

/// The queries that a rule lists by their hashes or other names.
#[derive(Debug, Default)]
pub(in crate::key) struct Persisted(Box<[Box<str>]>);

/// Servers may read a document as something other than a query, or reject it.
struct Unclear;

impl Persisted {
    pub(in crate::key) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// Whether all operations of a request, or of a batch of requests, are queries.
    ///
    /// Not if a member is unknown or repeated: servers may read it in place of the known ones.
    pub(super) fn is_read(&self, body: &[u8]) -> bool {
        let body = body.trim_ascii();
        let requests = match body.first() {
            Some(b'[') => serde_json::from_slice::<Vec<&RawValue>>(body),
            _ => serde_json::from_slice::<&RawValue>(body).map(|one| vec![one]),
        };
        requests.is_ok_and(|requests| {
            !requests.is_empty() && requests.iter().all(|request| self.is_request_read(request.get()))
        })
    }

    fn is_request_read(&self, text: &str) -> bool {
        // Serde reads a list as the members in order.
        let request = serde_json::from_str::<Request<'_>>(text).ok().filter(|_| text.starts_with('{'));
        request.is_some_and(|request| self.is_query(&request))
    }

    fn is_query(&self, request: &Request<'_>) -> bool {
        let hash = request.extensions.as_ref().and_then(|own| own.persisted_query.as_ref());
        let names = [hash.map(|own| &own.sha256_hash), request.id.as_ref(), request.document_id.as_ref()];
        let mut names = names.into_iter().flatten();
        let is_known = |name: &str| self.0.iter().any(|own| **own == *name);
        match &request.query {
            // A server may use only the name.
            Some(query) => is_query(query) && names.all(|name| is_known(name) || *name == sha256(query)),
            None => names.next().is_some_and(|name| is_known(name)) && names.all(|name| is_known(name)),
        }
    }
}

/// A request of GraphQL over HTTP, with the members by which servers find persisted documents.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    query: Option<Cow<'a, str>>,
    #[serde(rename = "operationName")]
    _operation_name: Option<IgnoredAny>,
    #[serde(rename = "variables")]
    _variables: Option<IgnoredAny>,
    #[serde(borrow)]
    extensions: Option<Extensions<'a>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    document_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Extensions<'a> {
    #[serde(borrow)]
    persisted_query: Option<PersistedQuery<'a>>,
    #[serde(rename = "clientLibrary")]
    _client_library: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PersistedQuery<'a> {
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    #[serde(borrow)]
    sha256_hash: Cow<'a, str>,
}

fn sha256(query: &str) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(query) {
        _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether a document has operations, and all of them are queries.
fn is_query(document: &str) -> bool {
    looked_at(document.len());
    // Servers differ in which of these end a comment.
    let is_clear = |char: char| match char {
        '\t' | '\n' | '\r' => true,
        '\u{feff}' | '\u{2028}' | '\u{2029}' => false,
        other => !other.is_control(),
    };
    document.chars().all(is_clear) && Tokens(document).are_queries().unwrap_or_default()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'d> {
    Name(&'d str),
    Mark(u8),
    /// A string or a number.
    Value,
}

/// The rest of a document.
struct Tokens<'d>(&'d str);

impl<'d> Tokens<'d> {
    fn are_queries(&mut self) -> Result<bool, Unclear> {
        let mut has_query = false;
        while let Some(first) = self.next()? {
            match first {
                Token::Mark(b'{') => {
                    has_query = true;
                    self.group(b'}')?;
                }
                Token::Name("query") => {
                    has_query = true;
                    self.query()?;
                }
                Token::Name("fragment") => self.fragment()?,
                _ => return Err(Unclear),
            }
        }
        Ok(has_query)
    }

    /// `name? (variables)? directives { … }`
    fn query(&mut self) -> Result<(), Unclear> {
        let mut next = self.expect()?;
        if let Token::Name(_) = next {
            next = self.expect()?;
        }
        if next == Token::Mark(b'(') {
            self.group(b')')?;
            next = self.expect()?;
        }
        self.selections(next)
    }

    /// `name on type directives { … }`
    fn fragment(&mut self) -> Result<(), Unclear> {
        match [self.expect()?, self.expect()?, self.expect()?] {
            [Token::Name(name), Token::Name("on"), Token::Name(_)] if name != "on" => {}
            _ => return Err(Unclear),
        }
        let next = self.expect()?;
        self.selections(next)
    }

    fn selections(&mut self, mut next: Token<'d>) -> Result<(), Unclear> {
        while next == Token::Mark(b'@') {
            let Token::Name(_) = self.expect()? else { return Err(Unclear) };
            next = self.expect()?;
            if next == Token::Mark(b'(') {
                self.group(b')')?;
                next = self.expect()?;
            }
        }
        match next {
            Token::Mark(b'{') => self.group(b'}'),
            _ => Err(Unclear),
        }
    }

    /// Skips to the bracket that closes an open one.
    fn group(&mut self, close: u8) -> Result<(), Unclear> {
        let mut open: SmallVec<[u8; MAX_DEPTH]> = SmallVec::from_iter([close]);
        while let Some(&expected) = open.last() {
            match self.expect()? {
                Token::Mark(b'{') => open.push(b'}'),
                Token::Mark(b'(') => open.push(b')'),
                Token::Mark(b'[') => open.push(b']'),
                Token::Mark(mark @ (b'}' | b')' | b']')) => {
                    open.pop().filter(|_| mark == expected).ok_or(Unclear)?;
                }
                _ => {}
            }
            if open.len() > MAX_DEPTH {
                return Err(Unclear);
            }
        }
        Ok(())
    }

    fn expect(&mut self) -> Result<Token<'d>, Unclear> {
        self.next()?.ok_or(Unclear)
    }

    fn next(&mut self) -> Result<Option<Token<'d>>, Unclear> {
        loop {
            self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r', ',']);
            match self.0.strip_prefix('#') {
                Some(comment) => self.0 = comment.trim_start_matches(|char| !matches!(char, '\n' | '\r')),
                None => break,
            }
            // Some servers do not end a line here.
            if self.0.starts_with('\r') && !self.0.starts_with("\r\n") {
                return Err(Unclear);
            }
        }
        let Some(&first) = self.0.as_bytes().first() else { return Ok(None) };
        Ok(Some(match first {
            b'"' => self.string()?,
            b'_' | b'A'..=b'Z' | b'a'..=b'z' => Token::Name(self.take(is_name)),
            b'-' | b'0'..=b'9' => {
                self.take(|byte| is_name(byte) || matches!(byte, b'-' | b'+' | b'.'));
                Token::Value
            }
            b'.' => {
                self.0 = self.0.strip_prefix("...").ok_or(Unclear)?;
                Token::Mark(b'.')
            }
            mark if b"!$&():=@[]{|}".contains(&mark) => {
                self.0 = &self.0[1..];
                Token::Mark(mark)
            }
            _ => return Err(Unclear),
        }))
    }

    /// Takes all ASCII bytes with a property.
    fn take(&mut self, is: impl Fn(u8) -> bool) -> &'d str {
        let end = self.0.bytes().position(|byte| !is(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn string(&mut self) -> Result<Token<'d>, Unclear> {
        self.0 = match self.0.strip_prefix("\"\"\"") {
            Some(block) => {
                // Servers without block strings read several strings here, which may end elsewhere if there
                // is another quote inside.
                let (content, rest) = block.split_once('"').ok_or(Unclear)?;
                let rest = rest.strip_prefix("\"\"").filter(|_| !content.ends_with('\\'));
                rest.ok_or(Unclear)?
            }
            None => end_of_string(&self.0[1..])?,
        };
        Ok(Token::Value)
    }
}

fn is_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// The text after the closing quote of a string on one line.
fn end_of_string(text: &str) -> Result<&str, Unclear> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Ok(&text[at + 1..]),
            b'\n' | b'\r' => return Err(Unclear),
            b'\\' => {
                bytes.next().filter(|(_, escaped)| escaped.is_ascii_graphic()).ok_or(Unclear)?;
            }
            _ => {}
        }
    }
    Err(Unclear)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn documents_with_only_queries_are_reads() {
        for document in [
            "{a}",
            "query{a}",
            "query Q { a(x: \"mutation { b }\") }",
            "query Q($x: [Int!]! = [1, -2.5e3], $y: In = {a: \"}\"}) @d(a: {b: [1]}) @e { a @skip(if: $x) ...F }",
            "{a} fragment F on T @d(a: 1) { b ...on T { c } ... @include(if: true) { mutation } }",
            "# mutation { a }\n{a}#}\r\n# {",
            "query { a(x: \"\"\"mutation\n { b \"\"\", y: \"\", z: \"\"\"\"\"\") }",
            "query { a(x: \"\\\"} mutation {b}\") }",
            ", query\tA,{\na:b(c:ENUM|d)&e}\r\n query B {mutation subscription}",
        ] {
            assert!(is_query(document), "{document}");
        }
    }

    #[test]
    fn other_documents_are_not_reads() {
        for document in [
            "",
            "#",
            "mutation{a}",
            "{a} mutation{b}",
            "mutation{b} query{a}",
            "subscription{a}",
            "query{a} subscription{a}",
            "fragment F on T {a}",
            "extend type T {a: B} query {a}",
            "query Q mutation {a}",
            "query Q @d mutation {a}",
            "query Q (a: 1) mutation {a}",
            "query Q",
            "query Q {a",
            "query {a}}",
            "query {a(x: [1)}",
            "query {a(x: {1)}}",
            "fragment on on T {a} {a}",
            "fragment F($a: Int) on T {a} {a}",
            "\"description\" query {a}",
            "{a} ;",
            "{a ..b}",
            "{a: \"\n\"}",
            "{a: \"}",
            "{a: \"\\",
            // Where servers differ about the end of a comment or of a string.
            "{a} # \u{2028} mutation {b}",
            "{a #\r b { c \n } mutation { d } #\r }",
            "{a} # \u{85} mutation {b}",
            "{a} # \u{b} mutation {b}",
            "\u{feff}{a}",
            "{a \0}",
            "{\u{e9}}",
            "query{f(x:[\"\"\"a\" ])} mutation{d(y:[\"\"\"]) } #\" ])}",
            "{a(x: \"\"\"\\\"\"\"\"\"\")}",
            "{a(x: \"\"\"b\\\"\"\")}",
            &format!("{{a(x: {}1{})}}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)),
        ] {
            assert!(!is_query(document), "{document}");
        }
        let deep = format!("{{a(x: {}1{})}}", "[".repeat(MAX_DEPTH - 2), "]".repeat(MAX_DEPTH - 2));
        assert!(is_query(&deep));
    }

    const HASH: &str = "ecf4edb46db40b5132295c0291d62fb65d6759a9eedfa4d5d612dd5ec54a6b38";

    #[test]
    fn requests_are_reads_by_their_documents_and_by_known_hashes() {
        let persisted = Persisted::new([HASH, "known"]);
        let own = sha256("{a}");
        for (request, is_read) in [
            (r#"{"query": "{a}"}"#.to_owned(), true),
            (
                r#" {"query": "{a}", "operationName": "M", "variables": {"x": [1, {}]}, "extensions": {}} "#
                    .into(),
                true,
            ),
            (r#"{"query": "mutation {a}", "operationName": "query"}"#.into(), false),
            (r#"{"query": "{a} mutation M {b}", "operationName": null}"#.into(), false),
            (r#"[{"query": "{a}"}, {"query": "query {b}"}]"#.into(), true),
            (r#"[{"query": "{a}"}, {"query": "mutation {b}"}]"#.into(), false),
            (r#"[[{"query": "{a}"}]]"#.into(), false),
            (r#"[["{a}"]]"#.into(), false),
            ("[]".into(), false),
            (r#""{a}""#.into(), false),
            // Servers take the first or the last, or do not mind the case of names.
            (r#"{"query": "{a}", "query": "mutation {b}"}"#.into(), false),
            (r#"{"query": "{a}", "qu\u0065ry": "mutation {b}"}"#.into(), false),
            (r#"{"query": "{a}", "Query": "mutation {b}"}"#.into(), false),
            (r#"{"query": "{a}", "mutation": "{b}"}"#.into(), false),
            (r#"{"query": ["{a}"]}"#.into(), false),
            (r#"{"query": "{a}"} {}"#.into(), false),
            ("\u{feff}{\"query\": \"{a}\"}".into(), false),
            (
                format!(
                    r#"{{"extensions": {{"persistedQuery": {{"version": 1, "sha256Hash": "{HASH}"}}}}}}"#
                ),
                true,
            ),
            (
                format!(r#"{{"extensions": {{"persistedQuery": {{"version": 1, "sha256Hash": "{own}"}}}}}}"#),
                false,
            ),
            (
                format!(
                    r#"{{"query": "{{a}}", "extensions": {{"persistedQuery": {{"sha256Hash": "{own}"}}}}}}"#
                ),
                true,
            ),
            (r#"{"query": "{a}", "extensions": {"persistedQuery": {"sha256Hash": "other"}}}"#.into(), false),
            (r#"{"query": "{a}", "extensions": {"persisted": 1}}"#.into(), false),
            (r#"{"id": "known", "operationName": "x"}"#.into(), true),
            (r#"{"id": "known", "documentId": "other"}"#.into(), false),
            (r#"{"documentId": "known", "query": null}"#.into(), true),
            (r#"{"id": "known", "query": "mutation {a}"}"#.into(), false),
            (r#"{"id": "other", "query": "{a}"}"#.into(), false),
            (r#"{"id": "KNOWN"}"#.into(), false),
            ("{}".into(), false),
        ] {
            assert_eq!(persisted.is_read(request.as_bytes()), is_read, "{request}");
        }
        assert!(!persisted.is_read(b"{\"query\": \"{a \xff}\"}"));
        assert!(!Persisted::default().is_read(br#"{"id": "known"}"#));
    }

    proptest! {
        /// A mutation in any place that a parser could reach.
        #[test]
        fn a_mutation_after_a_whole_definition_is_always_seen(
            parts in proptest::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "(", ")", "[", "]", "a", "query", "fragment", "on", "\"", "\"\"\"", "\\", "#", "\n", "@",
                    ":", "$", "...", "1", ",", "é",
                ]),
                0..24,
            ),
        ) {
            let document = parts.join(" ");
            if is_query(&document) {
                let with_mutation = format!("{document}\nmutation {{b}}");
                prop_assert!(!is_query(&with_mutation), "{}", with_mutation);
            }
        }
    }
}
