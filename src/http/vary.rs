//! `Vary`: which request header fields select an answer (RFC 9111 §4.1).

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use super::{
    cache_control::split_list,
    credentials::Keyed,
    fields::has,
    glance::{Glance, Line, line},
};

/// What a response's `Vary` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Vary {
    /// Nothing selects: one answer for all.
    Nothing,
    /// `*`, or what cannot be read: the answer fits no other request.
    Anything,
    /// These request fields, sorted, each once.
    Fields(Arc<[HeaderName]>),
}

/// What most answers name that name anything: kept once, and not for each of them.
static ENCODING: LazyLock<Arc<[HeaderName]>> = LazyLock::new(|| Arc::from([header::ACCEPT_ENCODING]));

/// Most answers name no more fields than that.
const USUAL_FIELDS: usize = 4;

impl Vary {
    /// What the lines of the field say, if there are any in the head of an answer.
    pub(super) fn of(line: Line<'_>, headers: &HeaderMap) -> Self {
        match line {
            Line::None => Self::Nothing,
            Line::One(line) if matches!(line.as_bytes(), b"accept-encoding" | b"Accept-Encoding") => {
                Self::Fields(Arc::clone(&ENCODING))
            }
            _ => Self::parse(headers),
        }
    }

    /// Without what selects nothing, for requests that share a key are alike in it.
    pub(super) fn without(self, keyed: &Keyed) -> Self {
        match self {
            Self::Fields(fields) if keyed.cookies.is_some() && fields.contains(&header::COOKIE) => {
                let left: Arc<[_]> = fields.iter().filter(|name| **name != header::COOKIE).cloned().collect();
                if left.is_empty() { Self::Nothing } else { Self::Fields(left) }
            }
            _ => self,
        }
    }

    fn parse(headers: &HeaderMap) -> Self {
        let mut fields = SmallVec::<[HeaderName; USUAL_FIELDS]>::new();
        for element in headers.get_all(header::VARY).iter().flat_map(|line| split_list(line.as_bytes())) {
            match HeaderName::from_bytes(element) {
                Ok(name) if element != b"*" => fields.push(name),
                _ => return Self::Anything,
            }
        }
        fields.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        fields.dedup();
        match &*fields {
            [] => Self::Nothing,
            [header::ACCEPT_ENCODING] => Self::Fields(Arc::clone(&ENCODING)),
            fields => Self::Fields(Arc::from(fields)),
        }
    }

    /// The values that a request has for these fields.
    pub(crate) fn selection(&self, request: &HeaderMap) -> Option<Selection> {
        match self {
            Self::Fields(fields) => Some(Selection::new(fields, request)),
            _ => None,
        }
    }

    /// Whether all that it names has selected a response already that was stored with this selection.
    pub(crate) fn is_within(&self, selection: Option<&Selection>) -> bool {
        match (self, selection) {
            (Self::Nothing, _) => true,
            (Self::Fields(fields), Some(known)) => fields.iter().all(|name| known.fields().contains(name)),
            _ => false,
        }
    }
}

/// The values that a request has for the selecting fields of a response.
///
/// Values are compared in a [normal form](Form), as §4.1 allows; an absent field is not an empty one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Selection(Arc<Selected>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Selected {
    fields: Arc<[HeaderName]>,
    values: Box<[Option<Value>]>,
}

#[derive(Debug)]
struct Value {
    normal: Box<[u8]>,
    /// As it came, if it came in one line: most who want the same say it in the same way, and
    /// comparing that costs no allocation. Empty if it is the normal form already.
    raw: Box<[u8]>,
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normal.hash(state);
    }
}

impl Value {
    fn of(request: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let normal = normalised(request, name)?;
        let raw = match line(request, name) {
            Line::One(line) if *line.as_bytes() != *normal => line.as_bytes().into(),
            _ => Box::default(),
        };
        Some(Self { normal, raw })
    }

    #[inline]
    fn is_in(&self, request: &HeaderMap, name: &HeaderName, line: Line<'_>) -> bool {
        match line {
            Line::None => false,
            Line::One(line) if self.is_written(line.as_bytes()) => true,
            Line::One(line) if !Form::of(name).within(line.len()).is_list() => false,
            Line::One(_) => self.is_normal_of(request, name),
            Line::Several => match Form::of(name).within(length(request, name)) {
                Form::Lines => is_joined(lines(request, name), LINE_END, &self.normal),
                Form::Cookie => is_joined(lines(request, name), COOKIE_END, &self.normal),
                _ => self.is_normal_of(request, name),
            },
        }
    }

    fn is_normal_of(&self, request: &HeaderMap, name: &HeaderName) -> bool {
        normalised(request, name).is_some_and(|value| value == self.normal)
    }

    /// Whether [`of`](Self::of) would make the same of a line.
    fn is_of(&self, line: &[u8]) -> bool {
        *line == **if self.raw.is_empty() { &self.normal } else { &self.raw }
    }

    fn is_written(&self, line: &[u8]) -> bool {
        *line == *self.normal || !line.is_empty() && *line == *self.raw
    }
}

/// Of an `Arc`.
const COUNTERS: usize = 2 * size_of::<usize>();

/// What an allocator adds to a block, more or less.
const ALLOCATION: usize = 16;

impl Selection {
    pub(crate) fn new(fields: &Arc<[HeaderName]>, request: &HeaderMap) -> Self {
        let values = fields.iter().map(|name| Value::of(request, name)).collect();
        Self(Arc::new(Selected { fields: Arc::clone(fields), values }))
    }

    #[cfg(test)]
    pub(crate) fn is_same_memory(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it is what a request with these lines has for these fields, down to how it is
    /// written. What comes in several lines is not looked at.
    pub(crate) fn is_written_in(&self, fields: &[HeaderName], lines: &[Line<'_>]) -> bool {
        let is_written = |(line, value): (&Line<'_>, &Option<Value>)| match (value, line) {
            (Some(value), Line::One(line)) => value.is_of(line.as_bytes()),
            (value, line) => value.is_none() && *line == Line::None,
        };
        **self.fields() == *fields && lines.iter().zip(&self.0.values).all(is_written)
    }

    /// Whether a request with these fields would be selected too.
    #[inline]
    pub(crate) fn matches(&self, request: &Glance<'_>) -> bool {
        self.fields().iter().zip(&self.0.values).all(|(name, value)| {
            let line = request.line(name);
            match value {
                Some(value) => value.is_in(request.fields, name, line),
                None => line == Line::None,
            }
        })
    }

    pub(crate) fn fields(&self) -> &Arc<[HeaderName]> {
        &self.0.fields
    }

    /// Bytes on the heap, for the store's books.
    pub(crate) fn heap_bytes(&self) -> usize {
        let values = self.0.values.iter().flatten();
        let values: usize = values.map(|value| value.normal.len() + value.raw.len() + 2 * ALLOCATION).sum();
        let fields = self.fields().len() * (size_of::<HeaderName>() + size_of::<Option<Value>>());
        let names: usize = self.fields().iter().map(name_bytes).sum();
        values + fields + names + size_of::<Selected>() + COUNTERS
    }
}

/// What a name takes that is not known to [`HeaderName`]: its text, and a counter for that.
fn name_bytes(name: &HeaderName) -> usize {
    match *name {
        header::ACCEPT
        | header::ACCEPT_CHARSET
        | header::ACCEPT_ENCODING
        | header::ACCEPT_LANGUAGE
        | header::AUTHORIZATION
        | header::COOKIE
        | header::ORIGIN
        | header::RANGE
        | header::REFERER
        | header::USER_AGENT => 0,
        _ => name.as_str().len() + size_of::<Bytes>() + ALLOCATION,
    }
}

fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut normal = Buffer::new();
    write_normal(request, name, &mut normal).then(|| Box::from(&*normal))
}

/// Where values are put together: few are longer.
type Buffer = SmallVec<[u8; 256]>;

/// Longer lists have no other form than their lines: a request is compared with many responses, and
/// for each of them a list would be sorted or copied.
const MAX_LIST: usize = 1024;

/// Between lines: nothing that a line may have in it.
const LINE_END: &[u8] = b"\n";

const COOKIE_END: &[u8] = b"; ";

fn lines<'a>(request: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    request.get_all(name).iter().map(HeaderValue::as_bytes)
}

fn length(request: &HeaderMap, name: &HeaderName) -> usize {
    lines(request, name).map(<[u8]>::len).sum()
}

/// Which values of a field mean the same by its own specification. All others are different.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Names without case, ranked by their weights (RFC 9110 §12.4.2).
    Preferences,
    /// Comma-separated elements, in one line or several (RFC 9110 §5.6.1).
    List,
    /// One line, which HTTP/2 and HTTP/3 may split (RFC 9113 §8.2.3).
    Cookie,
    /// Nothing is known: the lines as they are.
    Lines,
}

impl Form {
    fn of(name: &HeaderName) -> Self {
        match *name {
            // `Accept` is none of these: its elements may have parameters with quoted values.
            header::ACCEPT_LANGUAGE | header::ACCEPT_ENCODING | header::ACCEPT_CHARSET => Self::Preferences,
            header::ACCEPT
            | header::ACCESS_CONTROL_REQUEST_HEADERS
            | header::CACHE_CONTROL
            | header::TE
            | header::VIA => Self::List,
            header::COOKIE => Self::Cookie,
            _ if *name == PREFER => Self::List,
            _ => Self::Lines,
        }
    }

    /// Of a field of this length.
    fn within(self, length: usize) -> Self {
        if self.is_list() && length > MAX_LIST { Self::Lines } else { self }
    }

    /// Whether a line may mean the same as another one that is written differently.
    fn is_list(self) -> bool {
        matches!(self, Self::Preferences | Self::List)
    }
}

/// RFC 7240 §2.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// False if there is no such field.
fn write_normal(request: &HeaderMap, name: &HeaderName, normal: &mut Buffer) -> bool {
    let lines = || lines(request, name);
    let elements = || lines().flat_map(split_list);
    match Form::of(name).within(length(request, name)) {
        Form::Preferences => write_ranked(elements(), *name == header::ACCEPT_LANGUAGE, normal),
        Form::List => write_joined(elements(), b",", normal),
        Form::Cookie => write_joined(lines(), COOKIE_END, normal),
        Form::Lines => write_joined(lines(), LINE_END, normal),
    }
    has(request, name)
}

fn write_joined<'a>(pieces: impl Iterator<Item = &'a [u8]>, separator: &[u8], normal: &mut Buffer) {
    for (at, piece) in pieces.enumerate() {
        if at > 0 {
            normal.extend_from_slice(separator);
        }
        normal.extend_from_slice(piece);
    }
}

/// Whether [`write_joined`] would write the same.
fn is_joined<'a>(pieces: impl Iterator<Item = &'a [u8]>, separator: &[u8], normal: &[u8]) -> bool {
    let mut left = Some(normal);
    for (at, piece) in pieces.enumerate() {
        let start = if at > 0 { separator } else { b"" };
        left = left.and_then(|left| left.strip_prefix(start)?.strip_prefix(piece));
    }
    left == Some(b"")
}

/// By weight. Of equal weights the order counts for languages alone, where some recipients take the
/// first one (RFC 9110 §12.5.4).
fn write_ranked<'a>(elements: impl Iterator<Item = &'a [u8]>, is_ordered: bool, normal: &mut Buffer) {
    let lower = |name: &'a [u8]| name.iter().map(u8::to_ascii_lowercase);
    let mut ranked: SmallVec<[_; 8]> = elements.map(preference).collect();
    ranked.sort_by(|(weight, name), (other_weight, other)| {
        let by_name = || if is_ordered { Ordering::Equal } else { lower(name).cmp(lower(other)) };
        other_weight.cmp(weight).then_with(by_name)
    });
    for (at, (weight, name)) in ranked.into_iter().enumerate() {
        if at > 0 {
            normal.push(b',');
        }
        normal.extend(lower(name));
        if weight != MAX_WEIGHT {
            // Nothing that a client may send: an invalid weight is a part of the name, and looks like one.
            normal.extend_from_slice(format!("\n{weight}").as_bytes());
        }
    }
}

/// In thousandths (RFC 9110 §12.4.2).
const MAX_WEIGHT: u16 = 1000;

/// The name and its weight. What has something else for a weight stays as it is.
fn preference(element: &[u8]) -> (u16, &[u8]) {
    let mut halves = element.splitn(2, |byte| *byte == b';').map(<[u8]>::trim_ascii);
    match (halves.next(), halves.next()) {
        (Some(name), Some([b'q' | b'Q', b'=', weight @ ..])) => {
            parse_weight(weight).map_or((MAX_WEIGHT, element), |weight| (weight, name))
        }
        _ => (MAX_WEIGHT, element),
    }
}

fn parse_weight(weight: &[u8]) -> Option<u16> {
    let (whole, decimals) = match weight {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut digits = decimals.iter().copied().chain(std::iter::repeat(b'0'));
    let thousandths = (0..3).try_fold(0, |sum, _| {
        let digit = digits.next().filter(u8::is_ascii_digit)?;
        Some(sum * 10 + u16::from(digit - b'0'))
    })?;
    match (whole, thousandths) {
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(MAX_WEIGHT),
        _ => None,
    }
}

#[cfg(test)]
#[path = "vary_tests.rs"]
mod tests;
