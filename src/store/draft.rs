//! Heads on their way into the store.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    head::{self, Head, SMALL_BODY, well_known},
    shape::{MAX_FIELDS, Shape, values_of},
};
use crate::{
    http::fields::{is_hop_by_hop, named_by_connection},
    status::{CACHE_STATUS, CacheStatus},
};

/// What is stored of a response once its body is there: the status and the fields.
///
/// Made as soon as the head is there, so that nothing of the fields has to be kept beside it.
#[derive(Debug)]
pub(crate) struct Draft {
    status: StatusCode,
    fields: Fields,
    /// Whether the length of the body is still to be told.
    is_open: bool,
}

#[derive(Debug)]
enum Fields {
    Packed { shape: Arc<Shape>, values: Vec<u8> },
    Map(HeaderMap),
}

impl Draft {
    /// From fields as they came, and the length of the body if that is known. The caller has seen to a
    /// valid `Date`.
    pub(crate) fn new(status: StatusCode, fields: &HeaderMap, length: Option<usize>) -> Self {
        let value = length.map_or(HeaderValue::from_static(""), |length| head::number(length as u64));
        let fields = complete(status, fields, Field::new(&header::CONTENT_LENGTH, &value));
        let shape = match status {
            // Whether a part has what a request asks for is seen by its fields.
            StatusCode::PARTIAL_CONTENT => None,
            _ => Shape::of(&fields),
        };
        let is_open = length.is_none() && status != StatusCode::NO_CONTENT;
        let fields = match shape {
            Some(shape) => Fields::Packed { shape, values: values_of(&fields) },
            None => Fields::Map(to_map(&fields)),
        };
        Self { status, fields, is_open }
    }

    /// What it adds to the memory of a body that is as long as this.
    pub(crate) fn room(&self, body: usize) -> usize {
        match &self.fields {
            Fields::Packed { values, .. } if body <= SMALL_BODY => values.len(),
            _ => 0,
        }
    }

    /// With a body that nobody else has: a small one shares a block of memory with the fields.
    pub(crate) fn with(mut self, mut body: Vec<u8>) -> Kept {
        if body.len() > SMALL_BODY {
            // Exact: what a growing vector has to spare would be kept, and charged to nobody.
            return self.with_shared(body.into_boxed_slice().into());
        }
        self.tell_length(body.len());
        let (status, length) = (self.status, body.len());
        match self.fields {
            Fields::Map(headers) => Kept::new(status, headers, body.into()),
            Fields::Packed { shape, values } => {
                body.reserve_exact(values.len());
                body.extend_from_slice(&values);
                let block = Bytes::from(body.into_boxed_slice());
                let head = Head::packed(shape, block.slice(length..));
                Kept { status, head, body: block.slice(..length) }
            }
        }
    }

    /// With a body that others may have as well.
    pub(crate) fn with_shared(mut self, body: Bytes) -> Kept {
        if body.len() <= SMALL_BODY {
            return self.with(body.into());
        }
        self.tell_length(body.len());
        match self.fields {
            Fields::Map(headers) => Kept::new(self.status, headers, body),
            Fields::Packed { shape, values } => {
                // The first clone makes the counter, so that no hit has to.
                let values = Bytes::from(values).slice(..);
                Kept { status: self.status, head: Head::packed(shape, values), body }
            }
        }
    }

    fn tell_length(&mut self, length: usize) {
        if self.is_open {
            self.fields.tell_length(&head::number(length as u64));
        }
    }
}

/// A response in the memory in which it is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(super) status: StatusCode,
    pub(super) head: Head,
    pub(super) body: Bytes,
}

impl Kept {
    fn new(status: StatusCode, headers: HeaderMap, mut body: Bytes) -> Self {
        let head = Head::ready(headers, &mut body);
        Self { status, head, body }
    }
}

impl Fields {
    fn tell_length(&mut self, length: &HeaderValue) {
        match self {
            // Unknown lengths come last of what is a head's own.
            Self::Packed { shape, values } => shape.set_last(values, length),
            // To insert it would let a full map grow.
            Self::Map(headers) => {
                if let Some(value) = headers.get_mut(header::CONTENT_LENGTH) {
                    value.clone_from(length);
                }
            }
        }
    }
}

/// A field of a head as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a HeaderName,
    pub(super) value: &'a HeaderValue,
    /// Whether the value is this head's alone, and not the same in many.
    pub(super) is_own: bool,
}

impl<'a> Field<'a> {
    pub(super) fn new(name: &'a HeaderName, value: &'a HeaderValue) -> Self {
        Self { name, value, is_own: is_own(name, value) }
    }
}

/// The fields of the message alone, with a true `Content-Length`, behind an `Age` and with a
/// `Cache-Status` as the youngest of hits has them.
fn complete<'a>(status: StatusCode, fields: &'a HeaderMap, length: Field<'a>) -> Vec<Field<'a>> {
    let named = named_by_connection(fields);
    let mut has_length = status == StatusCode::NO_CONTENT;
    // Ours is the last of its name.
    let mut status_at = None;
    let mut kept = Vec::with_capacity(fields.len() + 3);
    kept.push(Field { name: &header::AGE, value: &YOUNGEST, is_own: false });
    for (name, value) in fields {
        match *name {
            header::AGE => {}
            header::CONTENT_LENGTH if has_length => {}
            header::CONTENT_LENGTH => {
                has_length = true;
                kept.push(length);
            }
            // Everything that is kept has a `Date`, whatever is said about the connection.
            header::DATE => kept.push(Field::new(name, value)),
            _ if is_hop_by_hop(name) || named.contains(name) => {}
            _ => {
                kept.push(Field::new(name, value));
                status_at = if *name == CACHE_STATUS { Some(kept.len()) } else { status_at };
            }
        }
    }
    if !has_length {
        kept.push(length);
    }
    let ours = Field { name: &CACHE_STATUS, value: CacheStatus::hit_value(), is_own: false };
    kept.insert(status_at.unwrap_or(kept.len()), ours);
    kept
}

static YOUNGEST: HeaderValue = HeaderValue::from_static("0");

/// How it came about is told by a value that is nobody's own.
fn is_own(name: &HeaderName, value: &HeaderValue) -> bool {
    match *name {
        CACHE_STATUS => value != CacheStatus::hit_value(),
        _ => well_known(value.as_bytes()).is_none(),
    }
}

fn to_map(fields: &[Field<'_>]) -> HeaderMap {
    // Room for names: of one there may be more lines than a map takes.
    let mut headers = HeaderMap::with_capacity(fields.len().min(MAX_FIELDS));
    for field in fields {
        headers.append(field.name.clone(), field.value.clone());
    }
    // A clone is exact, while a map that was given a capacity keeps room for fields that never come.
    headers.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// The fields of a stored head as a hit has them.
    fn kept(draft: impl Fn() -> Draft, body: &str) -> Vec<(String, String)> {
        let shared = draft().with_shared(Bytes::copy_from_slice(body.as_bytes()));
        let kept = draft().with(body.into());
        assert_eq!((&kept.body, &shared.body), (&Bytes::copy_from_slice(body.as_bytes()), &kept.body));
        for _ in 0..2 {
            assert_eq!(kept.head.headers(), shared.head.headers(), "however often it is asked for");
        }
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        kept.head.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const HIT: (&str, &str) = ("cache-status", "tower-readthrough;hit");

    #[test]
    fn the_length_is_told_wherever_it_comes_from_and_whenever() {
        for length in [0, 1, 1024, 1025, 20_000] {
            let (body, digits) = ("x".repeat(length), length.to_string());
            for status in [StatusCode::OK, StatusCode::PARTIAL_CONTENT] {
                let declared = map(&[("a", "1"), ("content-length", &digits), ("b", "2")]);
                let expected =
                    pairs(&[("age", "0"), ("a", "1"), ("content-length", &digits), ("b", "2"), HIT]);
                assert_eq!(kept(|| Draft::new(status, &declared, Some(length)), &body), expected);

                let silent = map(&[("a", "1"), ("b", "2")]);
                let expected =
                    pairs(&[("age", "0"), ("a", "1"), ("b", "2"), ("content-length", &digits), HIT]);
                for known in [Some(length), None] {
                    assert_eq!(kept(|| Draft::new(status, &silent, known), &body), expected);
                }
            }
        }
    }

    #[test]
    fn what_belongs_to_a_connection_goes_and_all_else_stays_in_order() {
        let fields = map(&[
            ("age", "7"),
            ("cache-status", "Other;hit"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "1"),
            ("set-cookie", "a"),
            ("x-kept", "1"),
            ("set-cookie", "b"),
        ]);
        for length in [Some(2), None] {
            let expected = pairs(&[
                ("age", "0"),
                ("cache-status", "Other;hit"),
                HIT,
                ("set-cookie", "a"),
                ("set-cookie", "b"),
                ("x-kept", "1"),
                ("content-length", "2"),
            ]);
            assert_eq!(kept(|| Draft::new(StatusCode::OK, &fields, length), "xx"), expected);
        }
    }

    #[test]
    fn what_is_kept_has_no_room_to_spare() {
        for (length, known) in [(600, None), (600, Some(600)), (5000, None), (5000, Some(5000))] {
            let mut body = Vec::with_capacity(9000);
            body.resize(length, b'x');
            let kept = Draft::new(StatusCode::OK, &map(&[("etag", "\"1\"")]), known).with(body);
            let Head::Packed { values, .. } = kept.head else { panic!("it has a shape") };
            if length > SMALL_BODY {
                assert_eq!(kept.body.try_into_mut().unwrap().capacity(), length);
                let length = values.len();
                assert_eq!(values.try_into_mut().unwrap().capacity(), length);
            } else {
                let length = length + values.len();
                drop(kept.body);
                let block = values.try_into_mut().unwrap();
                // It begins behind the body.
                assert!(block.capacity() <= length, "{}", block.capacity());
            }
        }
    }

    #[test]
    fn a_date_is_kept_even_if_it_is_named_as_one_of_the_connection() {
        let date = ("date", "Fri, 20 Nov 2026 12:00:00 GMT");
        let expected = pairs(&[("age", "0"), date, ("content-length", "1"), HIT]);
        let fields = map(&[("connection", "date, x-hop"), ("x-hop", "1"), date]);
        assert_eq!(kept(|| Draft::new(StatusCode::OK, &fields, Some(1)), "x"), expected);
    }

    #[test]
    fn one_name_may_have_more_lines_than_a_map_has_room_for_names() {
        let mut fields = HeaderMap::new();
        for _ in 0..30_000 {
            fields.append("set-cookie", HeaderValue::from_static("a"));
        }
        let kept = Draft::new(StatusCode::OK, &fields, Some(1)).with(b"x".to_vec());
        assert_eq!(kept.head.headers().get_all("set-cookie").iter().count(), 30_000);
    }

    #[test]
    fn without_content_there_is_no_length() {
        let expected = pairs(&[("age", "0"), ("a", "1"), HIT]);
        for fields in [map(&[("a", "1")]), map(&[("a", "1"), ("content-length", "0")])] {
            for length in [Some(0), None] {
                assert_eq!(kept(|| Draft::new(StatusCode::NO_CONTENT, &fields, length), ""), expected);
            }
        }
    }
}
