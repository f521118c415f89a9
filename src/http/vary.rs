//! `Vary`: which request header fields select an answer (RFC 9111 §4.1).

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use super::{
    cache_control::split_list,
    fields::{first_line, has},
    glance::{Glance, Line},
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
}

/// The values that a request has for the selecting fields of a response.
///
/// Values are compared in a [normal form](write_normal), as §4.1 allows; an absent field is not an
/// empty one.
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
            _ => normalised(request, name).is_some_and(|value| value == self.normal),
        }
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

    /// Not only of the same meaning.
    pub(crate) fn is_written_as(&self, other: &Self) -> bool {
        fn raw(selection: &Selection) -> impl Iterator<Item = &[u8]> {
            selection.0.values.iter().flatten().map(|value| &*value.raw)
        }
        self == other && raw(self).eq(raw(other))
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
            let line = match *name {
                header::ACCEPT_ENCODING => request.accept_encoding,
                _ => line(request.fields, name),
            };
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

pub(crate) fn line<'a>(request: &'a HeaderMap, name: &HeaderName) -> Line<'a> {
    match first_line(request, name) {
        None => Line::None,
        Some((line, false)) => Line::One(line),
        Some((_, true)) => Line::Several,
    }
}

fn normalised(request: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    let mut normal = Buffer::new();
    write_normal(request, name, &mut normal).then(|| Box::from(&*normal))
}

/// Where values are put together: few are longer.
type Buffer = SmallVec<[u8; 256]>;

/// Lines joined, without white space round commas. Lists of preferences are compared by what
/// they mean: their elements have no case, and they are ranked by weight, not by place. That is
/// so even where weights are equal (RFC 9110 §12.5.4: the order "cannot be relied upon").
///
/// False if there is no such field.
fn write_normal(request: &HeaderMap, name: &HeaderName, normal: &mut Buffer) -> bool {
    let start = normal.len();
    let elements = request.get_all(name).iter().flat_map(|line| split_list(line.as_bytes()));
    match *name {
        // Fields whose elements are ranges of names without case, with a weight (RFC 9110 §12.5.2 to
        // §12.5.4). `Accept` is none of them: its elements may have parameters with quoted values.
        header::ACCEPT_LANGUAGE | header::ACCEPT_ENCODING | header::ACCEPT_CHARSET => {
            write_ranked(elements, normal);
        }
        _ => elements.for_each(|element| {
            normal.extend_from_slice(element);
            normal.push(b',');
        }),
    }
    if normal.len() > start {
        normal.pop();
        return true;
    }
    has(request, name)
}

/// Each with a comma behind it.
fn write_ranked<'a>(elements: impl Iterator<Item = &'a [u8]>, normal: &mut Buffer) {
    let lower = |name: &'a [u8]| name.iter().map(u8::to_ascii_lowercase);
    let mut ranked: SmallVec<[_; 8]> = elements.map(preference).collect();
    ranked.sort_unstable_by(|(weight, name), (other_weight, other)| {
        other_weight.cmp(weight).then_with(|| lower(name).cmp(lower(other)))
    });
    for (weight, name) in ranked {
        normal.extend(lower(name));
        if weight != MAX_WEIGHT {
            // Nothing that a client may send: an invalid weight is a part of the name, and looks like one.
            normal.extend_from_slice(format!("\n{weight}").as_bytes());
        }
        normal.push(b',');
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
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn fields(lines: &[&str]) -> Vec<String> {
        let lines: Vec<_> = lines.iter().map(|line| ("vary", *line)).collect();
        match Vary::parse(&map(&lines)) {
            Vary::Fields(fields) => fields.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_come_in_any_case_order_and_number_of_lines() {
        assert_eq!(
            fields(&["Accept-Encoding , ACCEPT", "accept,,x-a"]),
            ["accept", "accept-encoding", "x-a"]
        );
        assert_eq!(Vary::parse(&map(&[])), Vary::Nothing);
        assert_eq!(Vary::parse(&map(&[("vary", " , ")])), Vary::Nothing);
    }

    #[test]
    fn a_star_or_junk_fits_nobody_else() {
        for value in ["*", "accept, *", "a b", "\"accept\"", "accept;q=1", "\u{fc}"] {
            assert_eq!(Vary::parse(&map(&[("vary", value)])), Vary::Anything, "{value}");
        }
        assert_eq!(Vary::parse(&map(&[("vary", "accept"), ("vary", "*")])), Vary::Anything);
    }

    fn matches(first: &[(&'static str, &str)], second: &[(&'static str, &str)]) -> bool {
        let vary = map(&[("vary", "accept, x, accept-language, accept-encoding, accept-charset")]);
        let Vary::Fields(fields) = Vary::parse(&vary) else { unreachable!() };
        Selection::new(&fields, &map(first)).matches(&Glance::of(&map(second)))
    }

    #[test]
    fn selecting_values_match_up_to_white_space_and_lines() {
        assert!(matches(&[], &[("other", "1")]));
        assert!(matches(&[("accept", "a, b")], &[("accept", "a,b")]));
        assert!(matches(&[("accept", "a"), ("accept", "b")], &[("accept", "a , b")]));
        assert!(matches(&[("accept", "a,b")], &[("accept", "a,b")]));
        assert!(!matches(&[("accept", "a")], &[("accept", "A")]));
        assert!(!matches(&[("accept", "a,b")], &[("accept", "b,a")]));
        assert!(!matches(&[("accept", "a")], &[]));
        assert!(!matches(&[], &[("accept", "")]), "absent is not empty");
        assert!(!matches(&[("accept", "\"a, b\"")], &[("accept", "\"a,b\"")]), "quoted white space counts");
        assert!(!matches(&[("accept", "a"), ("x", "1")], &[("accept", "a"), ("x", "2")]));
    }

    #[test]
    fn preferences_are_compared_by_what_they_mean() {
        let same = |name, a, b| matches(&[(name, a)], &[(name, b)]);
        for name in ["accept-language", "accept-encoding", "accept-charset"] {
            assert!(same(name, "en, de", "eN,De"), "case (RFC 9110 §12.5)");
            assert!(same(name, "en, de;q=0.5", "de; q=0.50 ,en;Q=1.0"), "weights rank, not places");
            assert!(same(name, "en, de", "de, en"), "§12.5.4: the order cannot be relied upon");
            assert!(same(name, "en, de", "en;q=1.000, de;q=1"));
            assert!(!same(name, "en, de;q=0.5", "en, de;q=0.4"));
            assert!(!same(name, "en;q=0", "en"));
            assert!(!same(name, "en, de;q=0.5", "de, en;q=0.5"));
            assert!(!same(name, "en, de", "en"));
            assert!(!same(name, "en", "en, en"));
        }
        assert!(!same("accept", "a/b, c/d", "c/d, a/b"));
    }

    #[test]
    fn what_is_no_weight_is_a_part_of_the_name() {
        let junk = ["en;q=1.1", "en;q=0.1234", "en;q=.5", "en;q=", "en;q=0.x", "en;level=1", "en;q=0.5;x"];
        for junk in junk.into_iter().chain(["en;q=500", "en;q=100"]) {
            let others = ["en", "en;q=0.5", "en;q=0.1"];
            assert!(
                others
                    .iter()
                    .all(|other| { !matches(&[("accept-language", junk)], &[("accept-language", other)]) }),
                "{junk}"
            );
            assert!(matches(&[("accept-language", junk)], &[("accept-language", junk)]), "{junk}");
        }
    }

    #[test]
    fn selections_that_match_are_one_slot() {
        let fields: Arc<[HeaderName]> = Arc::from([header::ACCEPT_LANGUAGE]);
        let of = |value| Selection::new(&fields, &map(&[("accept-language", value)]));
        let hash = |selection: &Selection| {
            use std::hash::BuildHasher;
            std::hash::BuildHasherDefault::<std::collections::hash_map::DefaultHasher>::default()
                .hash_one(selection)
        };
        assert_eq!(of("en, de"), of("DE,en"));
        assert_eq!(hash(&of("en, de")), hash(&of("DE,en")));
    }

    proptest! {
        #[test]
        fn a_request_selects_what_was_stored_for_it(
            accept in proptest::collection::vec("[ -~]{0,12}", 0..3),
            x in proptest::collection::vec("[ -~]{0,12}", 0..3),
        ) {
            let mut request = Vec::new();
            request.extend(accept.iter().map(|value| ("accept", value.as_str())));
            request.extend(x.iter().map(|value| ("x", value.as_str())));
            prop_assert!(matches(&request, &request));
        }

        #[test]
        fn what_is_written_in_a_request_is_what_would_be_made_of_it(
            a in proptest::collection::vec("[ab, \"]{0,4}", 0..3),
            b in proptest::collection::vec("[ab, \"]{0,4}", 0..3),
            name in proptest::sample::select(&["accept", "accept-encoding"][..]),
        ) {
            let fields: Arc<[HeaderName]> = Arc::from([HeaderName::from_static(name)]);
            let [a, b] = [a, b].map(|lines| {
                map(&lines.iter().map(|line| (name, line.as_str())).collect::<Vec<_>>())
            });
            let (known, made) = (Selection::new(&fields, &a), Selection::new(&fields, &b));
            let (lines, is_one_line) = ([line(&b, &fields[0])], b.len() < 2);
            prop_assert_eq!(known.is_written_in(&fields, &lines), is_one_line && known.is_written_as(&made));
            prop_assert!(!known.is_written_in(&[header::TE], &lines));
        }

        #[test]
        fn matching_agrees_with_equality_of_selections(
            a in proptest::collection::vec("[ab, \"]{0,6}", 0..3),
            b in proptest::collection::vec("[ab, \"]{0,6}", 0..3),
            name in proptest::sample::select(&["accept", "accept-language", "accept-encoding"][..]),
        ) {
            let fields: Arc<[HeaderName]> = Arc::from([HeaderName::from_static(name)]);
            let a: Vec<_> = a.iter().map(|value| (name, value.as_str())).collect();
            let b: Vec<_> = b.iter().map(|value| (name, value.as_str())).collect();
            let (first, second) = (Selection::new(&fields, &map(&a)), Selection::new(&fields, &map(&b)));
            prop_assert_eq!(first.matches(&Glance::of(&map(&b))), first == second);
        }
    }
}
