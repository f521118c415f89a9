//! One segment of a path pattern: `a`, `{id}`, `image-{id}.jpg`, `{*rest}.css`, `{**tree}`.

use smallvec::SmallVec;

use super::{error::Problem, pattern::is_meaningless};
use crate::{
    key::normal::{normal_form, octet},
    work::looked_at,
};

/// A segment of a path pattern: what it begins with, what it captures after that, and what it ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: Literal,
    pub(super) tail: Tail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    None,
    Capture(Capture),
    /// The capture goes on to the end of the path.
    Rest(Capture),
    /// All segments from here on, of which there may be none: not even the slash before them.
    Tree(Box<str>),
}

/// At least one character, up to what the segment ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capture {
    pub(super) name: Box<str>,
    pub(super) end: Literal,
}

/// Text of a pattern. It stands for all spellings that mean the same in a path: `é` and `%C3%A9`, `,` and
/// `%2C`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Literal {
    /// Decoded.
    pub(super) octets: Box<[u8]>,
    /// As clients are expected to write it.
    spelling: Box<str>,
}

/// What is left of a path after a literal, or before it.
pub(super) struct Stripped<'p> {
    pub(super) rest: &'p str,
    /// Whether the path has the literal in the expected spelling.
    pub(super) is_as_spelt: bool,
}

impl Segment {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let (start, after) = literal(text)?;
        let start = Literal::parse(&start);
        let Some(after) = after else { return Ok(Self { start, tail: Tail::None }) };
        let broken = |reason: &str| Err(Problem::Path(format!("`{text}`: {reason}").into()));
        let Some((name, after)) = after.split_once('}') else {
            return broken("a brace is not closed, and one that stands for itself is doubled");
        };
        let (end, None) = literal(after)? else {
            return broken("a segment has one capture at most");
        };
        let (stars, name) = (name.len() - name.trim_start_matches('*').len(), name.trim_start_matches('*'));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return broken("a capture has a name of letters, digits, `_`, `-` and `.`, or is `{_}`");
        }
        let capture = Capture { name: name.into(), end: Literal::parse(&end) };
        let is_alone = start.octets.is_empty() && capture.end.octets.is_empty();
        let tail = match stars {
            0 => Tail::Capture(capture),
            1 => Tail::Rest(capture),
            2 if is_alone => Tail::Tree(capture.name),
            _ => return broken("`{**name}` is a whole segment"),
        };
        Ok(Self { start, tail })
    }

    /// The name of its capture.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.tail {
            Tail::None => None,
            Tail::Capture(capture) | Tail::Rest(capture) => Some(&capture.name),
            Tail::Tree(name) => Some(name),
        }
    }

    pub(super) fn is_last(&self) -> bool {
        matches!(self.tail, Tail::Rest(_) | Tail::Tree(_))
    }

    /// What it captures of a segment, or of the rest of a path, that it is for.
    pub(super) fn at<'p>(&self, text: &'p str, ignores_case: bool) -> Option<Stripped<'p>> {
        // Most segments are one literal, as it is expected to be written, or one capture.
        match &self.tail {
            Tail::None if *text == *self.start.spelling => {
                return Some(Stripped { rest: "", is_as_spelt: true });
            }
            Tail::Capture(capture) if self.start.octets.is_empty() && capture.end.octets.is_empty() => {
                return (!text.is_empty()).then_some(Stripped { rest: text, is_as_spelt: true });
            }
            _ => {}
        }
        let start = self.start.strip_from_start(text, ignores_case)?;
        let capture = match &self.tail {
            Tail::None => return start.rest.is_empty().then_some(start),
            Tail::Tree(_) => return Some(start),
            Tail::Capture(capture) | Tail::Rest(capture) => capture,
        };
        let end = capture.end.strip_from_end(start.rest, ignores_case)?;
        let is_as_spelt = start.is_as_spelt && end.is_as_spelt;
        (!end.rest.is_empty()).then_some(Stripped { is_as_spelt, ..end })
    }

    /// A segment that it is for.
    pub(super) fn example(&self) -> String {
        let start = &*self.start.spelling;
        match &self.tail {
            Tail::None => start.to_owned(),
            Tail::Tree(_) => "x".to_owned(),
            Tail::Capture(capture) | Tail::Rest(capture) => format!("{start}x{}", capture.end.spelling),
        }
    }
}

/// The text before a capture, with single braces for doubled ones, and what follows the brace of the
/// capture.
fn literal(text: &str) -> Result<(String, Option<&str>), Problem> {
    let (mut literal, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        match after.strip_prefix(brace) {
            Some(after) => {
                literal.push_str(brace);
                rest = after;
            }
            None if brace == "{" => return Ok((literal, Some(after))),
            None => {
                let reason = "a brace is not opened, and one that stands for itself is doubled";
                return Err(Problem::Path(format!("`{text}`: {reason}").into()));
            }
        }
    }
    literal.push_str(rest);
    Ok((literal, None))
}

impl Literal {
    fn parse(text: &str) -> Self {
        let (mut octets, mut spelling) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len()));
        let mut rest = text.as_bytes();
        while let [byte, after @ ..] = rest {
            let encoded = match (byte, after) {
                (b'%', [high, low, ..]) => octet(*high, *low),
                _ => None,
            };
            let (written, after) = rest.split_at(if encoded.is_some() { 3 } else { 1 });
            octets.push(encoded.unwrap_or(*byte));
            // What does not encode an octet is a plain `%`.
            spelling.extend_from_slice(if written == b"%" { b"%25" } else { written });
            rest = after;
        }
        let spelling = String::from_utf8_lossy(&spelling);
        Self { octets: octets.into(), spelling: normal_form(&spelling).into() }
    }

    fn strip_from_start<'p>(&self, text: &'p str, ignores_case: bool) -> Option<Stripped<'p>> {
        if let Some(rest) = text.strip_prefix(&*self.spelling) {
            return Some(Stripped { rest, is_as_spelt: true });
        }
        let rest = match text.contains('%') || !text.is_ascii() {
            false => strip_plain(text, &self.octets, ignores_case)?,
            true => strip_encoded(text, &self.octets, ignores_case)?,
        };
        Some(Stripped { rest, is_as_spelt: false })
    }

    fn strip_from_end<'p>(&self, text: &'p str, ignores_case: bool) -> Option<Stripped<'p>> {
        if self.octets.is_empty() {
            return Some(Stripped { rest: text, is_as_spelt: true });
        }
        looked_at(text.len());
        let starts: SmallVec<[usize; 64]> = characters(text).map(|(at, _)| at).collect();
        let at = starts[starts.len().checked_sub(self.octets.len())?];
        let (rest, end) = text.split_at_checked(at)?;
        let end = self.strip_from_start(end, ignores_case).filter(|end| end.rest.is_empty())?;
        Some(Stripped { rest, ..end })
    }
}

fn is_same(own: u8, other: u8, ignores_case: bool) -> bool {
    own == other || ignores_case && own.eq_ignore_ascii_case(&other)
}

fn strip_plain<'p>(text: &'p str, octets: &[u8], ignores_case: bool) -> Option<&'p str> {
    let start = text.as_bytes().get(..octets.len())?;
    let is_start = start.iter().zip(octets).all(|(byte, own)| is_same(*own, *byte, ignores_case));
    is_start.then(|| &text[octets.len()..])
}

fn strip_encoded<'p>(text: &'p str, octets: &[u8], ignores_case: bool) -> Option<&'p str> {
    looked_at(text.len().min(3 * octets.len()));
    let mut found = characters(text);
    for own in octets {
        let (_, octet) = found.next()?;
        octet.filter(|octet| is_same(*own, *octet, ignores_case))?;
    }
    match found.next() {
        Some((at, _)) => text.get(at..),
        None => Some(""),
    }
}

/// The octets of a path, and where they are written. None for one that means something else encoded than
/// it does plainly, or that honest clients do not encode: no pattern has those.
pub(super) fn characters(text: &str) -> impl Iterator<Item = (usize, Option<u8>)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let (start, byte) = (at, *bytes.get(at)?);
        let encoded = match bytes.get(at + 1..at + 3) {
            Some([high, low]) if byte == b'%' => octet(*high, *low),
            _ => None,
        };
        at += if encoded.is_some() { 3 } else { 1 };
        Some(match encoded {
            None => (start, Some(byte)),
            Some(octet) => (start, Some(octet).filter(|octet| *octet == b'%' || is_meaningless(*octet))),
        })
    })
}
