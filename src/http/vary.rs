//! `Vary`: the request fields that select a response (RFC 9111 §4.1).

use std::{
    cmp::Reverse,
    hash::{BuildHasher, Hash, Hasher},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use quick_cache::DefaultHashBuilder;
use smallvec::SmallVec;

use super::{
    fields::{self, MAX_MEMBERS, MAX_NORMAL_BYTES, MAX_WEIGHT, bounded_members, parse_weight},
    request_fields::{Keyed, Line, RequestFields},
};
use crate::work;

/// The `Vary` of a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Vary {
    /// No field selects: one response for all requests.
    Nothing,
    /// `*`, or an invalid `Vary`: the response fits no other request.
    Anything,
    /// These request fields, sorted, each once.
    Fields(Arc<[HeaderName]>),
}

/// The most common names, allocated once instead of for each response.
static ENCODING: LazyLock<Arc<[HeaderName]>> = LazyLock::new(|| Arc::from([header::ACCEPT_ENCODING]));

/// Most responses name no more fields.
const USUAL_FIELDS: usize = 4;

impl Vary {
    /// Of a head with this line of `Vary`.
    pub(super) fn of(line: Line<'_>, headers: &HeaderMap) -> Self {
        match line {
            Line::None => Self::Nothing,
            Line::One(line) if matches!(line.as_bytes(), b"accept-encoding" | b"Accept-Encoding") => {
                Self::Fields(Arc::clone(&ENCODING))
            }
            _ => Self::parse(headers),
        }
    }

    /// Without the fields in which all requests with the same key are alike.
    pub(super) fn without(self, keyed: &Keyed) -> Self {
        match self {
            Self::Fields(fields) if keyed.cookies().is_some() && fields.contains(&header::COOKIE) => {
                let left: Arc<[_]> = fields.iter().filter(|name| **name != header::COOKIE).cloned().collect();
                if left.is_empty() { Self::Nothing } else { Self::Fields(left) }
            }
            _ => self,
        }
    }

    fn parse(headers: &HeaderMap) -> Self {
        let mut fields = SmallVec::<[HeaderName; USUAL_FIELDS]>::new();
        for element in
            headers.get_all(header::VARY).iter().flat_map(|line| fields::split_list(line.as_bytes()))
        {
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

    /// The values of these fields in a request.
    pub(crate) fn selection(&self, request: &HeaderMap) -> Option<Selection> {
        match self {
            Self::Fields(fields) => Some(Selection::new(fields, request)),
            _ => None,
        }
    }

    /// Whether it names only fields that the selection of a stored response has.
    pub(crate) fn is_within(&self, selection: Option<&Selection>) -> bool {
        match (self, selection) {
            (Self::Nothing, _) => true,
            (Self::Fields(fields), Some(known)) => fields.iter().all(|name| known.fields().contains(name)),
            _ => false,
        }
    }
}

/// The values of the selecting fields of a response in the request for it.
///
/// Values are compared in a [normal form](Form), as §4.1 allows; an absent field differs from an empty one.
/// Values that are [too long](MAX_NORMAL_BYTES) for that are compared as written.
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
    /// As received, if it was one line: most requests for the same write it in the same way, and comparing
    /// that costs no allocation. Empty if it equals the normal form, or is too long for one.
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
        let raw = match Line::of(request, name) {
            Line::One(line) if !is_long(line) && *line.as_bytes() != *normal => line.as_bytes().into(),
            _ => Box::default(),
        };
        Some(Self { normal, raw })
    }

    #[inline]
    fn is_in(&self, request: &HeaderMap, name: &HeaderName, line: Line<'_>, forms: &mut Forms) -> bool {
        match line {
            Line::None => false,
            Line::One(line) if self.is_written(line.as_bytes()) => true,
            Line::One(line) if !is_long(line) && !Form::of(name).is_list() => false,
            _ => forms.of(request, name).is_some_and(|value| work::is_same(value, &self.normal)),
        }
    }

    /// Whether [`of`](Self::of) makes the same of a line.
    fn is_of(&self, line: &[u8]) -> bool {
        *line == **if self.raw.is_empty() { &self.normal } else { &self.raw }
    }

    fn is_written(&self, line: &[u8]) -> bool {
        work::is_same(line, &self.normal) || !line.is_empty() && work::is_same(line, &self.raw)
    }
}

/// The normal forms of the fields of a request, each made once for all variants that it is compared with.
#[derive(Default)]
pub(crate) struct Forms(Vec<FieldForm>);

struct FieldForm {
    name: HeaderName,
    value: Option<Box<[u8]>>,
}

impl Forms {
    #[cold]
    fn of(&mut self, request: &HeaderMap, name: &HeaderName) -> Option<&[u8]> {
        let Self(forms) = self;
        let at = forms.iter().position(|form| form.name == *name).unwrap_or_else(|| {
            forms.push(FieldForm { name: name.clone(), value: normalised(request, name) });
            forms.len() - 1
        });
        forms[at].value.as_deref()
    }
}

/// The counters of an `Arc`.
const COUNTERS: usize = 2 * size_of::<usize>();

/// About what an allocator adds to a block.
const ALLOCATION: usize = 16;

/// The normal form of a value, and the value as it came.
type ValueParts<T> = (T, T);

/// A field of a selection, and its value if the request had it.
type FieldParts = (HeaderName, Option<ValueParts<Box<[u8]>>>);

impl Selection {
    pub(crate) fn new(fields: &Arc<[HeaderName]>, request: &HeaderMap) -> Self {
        let values = fields.iter().map(|name| Value::of(request, name)).collect();
        Self(Arc::new(Selected { fields: Arc::clone(fields), values }))
    }

    /// The fields, and for each the normal form of its value and that as it came, which is empty if it is the
    /// same or long. `None` where the request has no such field.
    pub(crate) fn to_parts(&self) -> impl Iterator<Item = (&HeaderName, Option<ValueParts<&[u8]>>)> {
        let parts = self.0.values.iter().map(|value| {
            let value = value.as_ref()?;
            Some((without_hash(&value.normal), &*value.raw))
        });
        self.fields().iter().zip(parts)
    }

    /// The selection of which these are the [parts](Self::to_parts).
    pub(crate) fn from_parts(mut parts: Vec<FieldParts>) -> Self {
        parts.sort_unstable_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        parts.dedup_by(|(a, _), (b, _)| a == b);
        let value = |(normal, raw): ValueParts<Box<[u8]>>| {
            let normal = if normal.len() > MAX_NORMAL_BYTES { with_hash(&normal) } else { normal };
            Value { normal, raw }
        };
        let (fields, values): (Vec<_>, Vec<_>) =
            parts.into_iter().map(|(name, parts)| (name, parts.map(value))).unzip();
        Self(Arc::new(Selected { fields: fields.into(), values: values.into() }))
    }

    #[cfg(test)]
    pub(crate) fn is_same_memory(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it is the selection of a request with these lines for these fields, as written. False for
    /// fields in several lines.
    pub(crate) fn is_written_in(&self, fields: &[HeaderName], lines: &[Line<'_>]) -> bool {
        let is_written = |(line, value): (&Line<'_>, &Option<Value>)| match (value, line) {
            (Some(value), Line::One(line)) => value.is_of(line.as_bytes()),
            (value, line) => value.is_none() && *line == Line::None,
        };
        **self.fields() == *fields && lines.iter().zip(&self.0.values).all(is_written)
    }

    /// Whether it selects a request with these fields by its lines as written.
    pub(crate) fn is_written_by(&self, request: &RequestFields<'_>) -> bool {
        self.fields().iter().zip(&self.0.values).all(|(name, value)| match (value, request.line(name)) {
            (Some(value), Line::One(line)) => value.is_written(line.as_bytes()),
            (value, line) => value.is_none() && line == Line::None,
        })
    }

    /// Whether it selects a request with these fields.
    #[inline]
    pub(crate) fn matches(&self, request: &RequestFields<'_>, forms: &mut Forms) -> bool {
        self.fields().iter().zip(&self.0.values).all(|(name, value)| {
            let line = request.line(name);
            match value {
                Some(value) => value.is_in(request.fields, name, line, forms),
                None => line == Line::None,
            }
        })
    }

    pub(crate) fn fields(&self) -> &Arc<[HeaderName]> {
        &self.0.fields
    }

    /// Bytes on the heap, for the accounts of the store.
    pub(crate) fn heap_bytes(&self) -> usize {
        let values = self.0.values.iter().flatten();
        let values: usize = values.map(|value| value.normal.len() + value.raw.len() + 2 * ALLOCATION).sum();
        let fields = self.fields().len() * (size_of::<HeaderName>() + size_of::<Option<Value>>());
        let names: usize = self.fields().iter().map(name_bytes).sum();
        values + fields + names + size_of::<Selected>() + COUNTERS
    }
}

/// The heap size of a name that is not a constant of [`HeaderName`].
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
    if !fields::has(request, name) {
        return None;
    }
    let mut normal = Buffer::new();
    write_normal(request, name, &mut normal);
    Some(if normal.len() > MAX_NORMAL_BYTES { with_hash(&normal) } else { Box::from(&*normal) })
}

/// A long value after its hash, so that comparing two different ones ends early. It begins with a byte that
/// no line may have, so that it equals no other value.
fn with_hash(value: &[u8]) -> Box<[u8]> {
    static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);
    work::looked_at(value.len());
    [b"\0", &HASHER.hash_one(value).to_le_bytes()[..], value].concat().into()
}

/// What stands behind the hash of a [long value](with_hash).
fn without_hash(normal: &[u8]) -> &[u8] {
    normal.strip_prefix(b"\0").and_then(|rest| rest.get(size_of::<u64>()..)).unwrap_or(normal)
}

fn is_long(line: &HeaderValue) -> bool {
    line.len() > MAX_NORMAL_BYTES
}

/// Few values are longer.
type Buffer = SmallVec<[u8; 256]>;

/// Which values of a field mean the same by its specification.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Names without case, ranked by their weights (RFC 9110 §12.4.2).
    Preferences,
    /// Comma-separated elements, in one line or several (RFC 9110 §5.6.1).
    List,
    /// One line, which HTTP/2 and HTTP/3 may split (RFC 9113 §8.2.3).
    Cookie,
    /// Unknown: the lines as written.
    Lines,
}

impl Form {
    fn of(name: &HeaderName) -> Self {
        match *name {
            // Not `Accept`: its elements may have parameters with quoted values.
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

    /// Whether two different lines may mean the same.
    fn is_list(self) -> bool {
        matches!(self, Self::Preferences | Self::List)
    }
}

/// RFC 7240 §2.
const PREFER: HeaderName = HeaderName::from_static("prefer");

fn write_normal(request: &HeaderMap, name: &HeaderName, normal: &mut Buffer) {
    let lines = || request.get_all(name).iter().map(HeaderValue::as_bytes);
    let form = Form::of(name);
    let members = if form.is_list() { members(request, name) } else { None };
    match members {
        Some(members) if form == Form::Preferences => {
            write_ranked(&members, *name == header::ACCEPT_LANGUAGE, normal);
        }
        Some(members) => write_joined(members.into_iter(), b",", normal),
        None if form == Form::Cookie => write_joined(lines(), b"; ", normal),
        // A byte that no line may have.
        None => write_joined(lines(), b"\n", normal),
    }
}

/// `None` if there are too many, or they are too long.
fn members<'a>(request: &'a HeaderMap, name: &HeaderName) -> Option<SmallVec<[&'a [u8]; 8]>> {
    let members: SmallVec<_> = bounded_members(request, name)?.collect();
    (members.len() <= MAX_MEMBERS).then_some(members)
}

fn write_joined<'a>(pieces: impl Iterator<Item = &'a [u8]>, separator: &[u8], normal: &mut Buffer) {
    for (at, piece) in pieces.enumerate() {
        if at > 0 {
            normal.extend_from_slice(separator);
        }
        work::looked_at(piece.len());
        normal.extend_from_slice(piece);
    }
}

/// Sorted by weight. The order of equal weights counts for languages alone, where some recipients take the
/// first (RFC 9110 §12.5.4).
fn write_ranked(members: &[&[u8]], is_ordered: bool, normal: &mut Buffer) {
    let mut ranked: SmallVec<[_; 8]> = members.iter().map(|member| preference(member)).collect();
    // By numbers, since names may have long common prefixes, and any order that all requests share will do.
    match is_ordered {
        true => ranked.sort_by_key(|(weight, _)| Reverse(*weight)),
        false => ranked.sort_by_cached_key(|(weight, name)| (Reverse(*weight), number_of(name))),
    }
    for (at, (weight, name)) in ranked.into_iter().enumerate() {
        if at > 0 {
            normal.push(b',');
        }
        normal.extend(lower_case(name));
        if weight != MAX_WEIGHT {
            // A byte that no client may send, since an invalid weight stays in the name.
            normal.extend_from_slice(format!("\n{weight}").as_bytes());
        }
    }
}

fn lower_case(name: &[u8]) -> impl Iterator<Item = u8> {
    name.iter().inspect(|_| work::looked_at(1)).map(u8::to_ascii_lowercase)
}

/// A hash of a name without case (FNV-1a). Names with the same one stay in the order of the request.
fn number_of(name: &[u8]) -> u64 {
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    lower_case(name).fold(0xcbf2_9ce4_8422_2325, mix)
}

/// The weight and the name. An element with an invalid weight stays whole.
fn preference(element: &[u8]) -> (u16, &[u8]) {
    let mut halves = element.splitn(2, |byte| *byte == b';').map(<[u8]>::trim_ascii);
    match (halves.next(), halves.next()) {
        (Some(name), Some([b'q' | b'Q', b'=', weight @ ..])) => {
            parse_weight(weight).map_or((MAX_WEIGHT, element), |parsed| (parsed, name))
        }
        _ => (MAX_WEIGHT, element),
    }
}

#[cfg(test)]
#[path = "vary_tests.rs"]
mod tests;
