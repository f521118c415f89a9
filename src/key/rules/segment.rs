//! One segment of a path pattern: `a`, `{id}`, `image-{id}.jpg`, `{*rest}.css`, `{**tree}`.

use smallvec::SmallVec;

use super::{error::Problem, readings::is_meaningless};
use crate::{
    key::uri::{normal_form, octet},
    work::looked_at,
};

/// A segment of a path pattern: a literal, followed by a capture if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    start: Literal,
    tail: Tail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tail {
    None,
    Capture(Capture),
    /// A capture up to the end of the path.
    Rest(Capture),
    /// All segments from here on, possibly none and without the slash before them.
    Tree(Box<str>),
}

/// At least one character, up to the literal at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Capture {
    name: Box<str>,
    end: Literal,
}

/// Text of a pattern. It matches all equivalent spellings: `é` and `%C3%A9`, `,` and `%2C`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Literal {
    /// Decoded.
    octets: Box<[u8]>,
    /// As ordinary clients write it.
    spelling: Box<str>,
}

/// What is left of a path after removing a literal.
pub(super) struct Stripped<'p> {
    rest: &'p str,
    /// Whether the path has the literal in its expected spelling.
    is_expected_spelling: bool,
}

impl<'p> Stripped<'p> {
    pub(super) fn rest(&self) -> &'p str {
        self.rest
    }

    pub(super) fn is_expected_spelling(&self) -> bool {
        self.is_expected_spelling
    }
}

impl Segment {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let (start, after) = literal(text)?;
        let start = Literal::parse(&start);
        let Some(after) = after else { return Ok(Self { start, tail: Tail::None }) };
        let broken = |reason: &str| Err(Problem::Path(format!("`{text}`: {reason}").into()));
        let Some((name, after)) = after.split_once('}') else {
            return broken("a brace is not closed; double a brace that stands for itself");
        };
        let (end, None) = literal(after)? else {
            return broken("a segment can have only one capture");
        };
        let (stars, name) = (name.len() - name.trim_start_matches('*').len(), name.trim_start_matches('*'));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return broken("name a capture with letters, digits, `_`, `-` and `.`, or write `{_}`");
        }
        let capture = Capture { name: name.into(), end: Literal::parse(&end) };
        let is_alone = start.octets.is_empty() && capture.end.octets.is_empty();
        let tail = match stars {
            0 => Tail::Capture(capture),
            1 => Tail::Rest(capture),
            2 if is_alone => Tail::Tree(capture.name),
            _ => return broken("`{**name}` must be a segment of its own"),
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

    /// Whether it captures the rest of the path, so that nothing can follow it.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.tail, Tail::Rest(_) | Tail::Tree(_))
    }

    /// Whether it is a whole literal.
    pub(super) fn is_literal(&self) -> bool {
        self.tail == Tail::None
    }

    /// The name of its capture, if that is a tree.
    pub(super) fn tree(&self) -> Option<&str> {
        match &self.tail {
            Tail::Tree(name) => Some(name),
            _ => None,
        }
    }

    /// What the segment begins with, decoded.
    pub(super) fn start(&self) -> &[u8] {
        &self.start.octets
    }

    /// Matches a segment or the rest of a path, and returns what it captures.
    pub(super) fn at<'p>(&self, text: &'p str, ignores_case: bool) -> Option<Stripped<'p>> {
        // Most segments are a literal in its expected spelling, or a capture.
        match &self.tail {
            Tail::None if *text == *self.start.spelling => {
                return Some(Stripped { rest: "", is_expected_spelling: true });
            }
            Tail::Capture(capture) if self.start.octets.is_empty() && capture.end.octets.is_empty() => {
                return (!text.is_empty()).then_some(Stripped { rest: text, is_expected_spelling: true });
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
        let is_expected_spelling = start.is_expected_spelling && end.is_expected_spelling;
        (!end.rest.is_empty()).then_some(Stripped { is_expected_spelling, ..end })
    }

    /// A segment that it matches.
    pub(super) fn example(&self) -> String {
        let start = &*self.start.spelling;
        match &self.tail {
            Tail::None => start.to_owned(),
            Tail::Tree(_) => "x".to_owned(),
            Tail::Capture(capture) | Tail::Rest(capture) => format!("{start}x{}", capture.end.spelling),
        }
    }
}

/// The text before a capture, with doubled braces made single, and what follows the brace of the capture.
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
                let reason = "a brace is not opened; double a brace that stands for itself";
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
            // A `%` that does not encode an octet stands for itself.
            spelling.extend_from_slice(if written == b"%" { b"%25" } else { written });
            rest = after;
        }
        let spelling = String::from_utf8_lossy(&spelling);
        Self { octets: octets.into(), spelling: normal_form(&spelling).into() }
    }

    fn strip_from_start<'p>(&self, text: &'p str, ignores_case: bool) -> Option<Stripped<'p>> {
        if let Some(rest) = text.strip_prefix(&*self.spelling) {
            return Some(Stripped { rest, is_expected_spelling: true });
        }
        let rest = match text.contains('%') || !text.is_ascii() {
            false => strip_plain(text, &self.octets, ignores_case)?,
            true => strip_encoded(text, &self.octets, ignores_case)?,
        };
        Some(Stripped { rest, is_expected_spelling: false })
    }

    fn strip_from_end<'p>(&self, text: &'p str, ignores_case: bool) -> Option<Stripped<'p>> {
        if self.octets.is_empty() {
            return Some(Stripped { rest: text, is_expected_spelling: true });
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

/// The octets of a path and their positions. `None` for an octet that means something else when encoded, or that
/// ordinary clients do not encode: patterns never match these.
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

/// Compares the segments of two patterns, of which each may ignore case.
#[derive(Clone, Copy)]
pub(super) struct SegmentComparison {
    ours_ignore_case: bool,
    theirs_ignore_case: bool,
}

impl SegmentComparison {
    pub(super) fn new(ours_ignore_case: bool, theirs_ignore_case: bool) -> Self {
        Self { ours_ignore_case, theirs_ignore_case }
    }

    /// Whether all paths of `theirs` are paths of `ours`.
    pub(super) fn covers(self, ours: &[Segment], theirs: &[Segment]) -> bool {
        match (ours, theirs) {
            ([], []) | ([Segment { tail: Tail::Tree(_), .. }], _) => true,
            ([Segment { start, tail: Tail::Rest(capture) }], theirs) => {
                self.rest_covers(start, capture, theirs)
            }
            ([our, ours @ ..], [their, theirs @ ..]) => {
                self.segment_covers(our, their) && self.covers(ours, theirs)
            }
            _ => false,
        }
    }

    fn segment_covers(self, our: &Segment, their: &Segment) -> bool {
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

    /// Whether all paths of `theirs` are `start`, at least one character, and the end of the capture.
    fn rest_covers(self, start: &Literal, capture: &Capture, theirs: &[Segment]) -> bool {
        let (Some(first), Some(last)) = (theirs.first(), theirs.last()) else { return false };
        let is_longer = first.start.octets.len() > start.octets.len() || first.tail != Tail::None;
        let has_end = match &last.tail {
            _ if capture.end.octets.is_empty() => true,
            Tail::Tree(_) => false,
            Tail::None => self.ends(&last.start, &capture.end),
            Tail::Capture(their) | Tail::Rest(their) => self.ends(&their.end, &capture.end),
        };
        match theirs {
            [Segment { start: their, tail: Tail::None }] => self.encloses(start, &capture.end, their),
            [Segment { tail: Tail::Tree(_), .. }] => false,
            // The tree may be empty.
            [_, Segment { tail: Tail::Tree(_), .. }] => {
                is_longer && has_end && self.starts(&first.start, start)
            }
            _ => has_end && self.starts(&first.start, start),
        }
    }

    /// Whether some path is a path of both.
    pub(super) fn meet(self, ours: &[Segment], theirs: &[Segment]) -> bool {
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

    /// Whether some path of `others` is `start`, at least one character, and `end`.
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

    /// Whether a text is `start`, at least one character, and `end`.
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

    /// Whether each text that matches theirs matches ours.
    fn is_same(self, theirs: &[u8], ours: &[u8]) -> bool {
        match (self.ours_ignore_case, self.theirs_ignore_case) {
            (true, _) => theirs.eq_ignore_ascii_case(ours),
            (false, false) => theirs == ours,
            (false, true) => theirs == ours && !ours.iter().any(u8::is_ascii_alphabetic),
        }
    }
}
