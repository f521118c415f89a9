//! Heads on their way into the store.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::store::head::template::{HeaderTemplate, MAX_FIELDS};
use crate::store::head::{self, Head, SMALL_BODY, well_known};
use crate::{
    exchange::status::{CACHE_STATUS, CacheStatus},
    http::fields::{is_hop_by_hop, named_by_connection},
};

/// What is stored of a response once its body is there: the status and the fields.
///
/// Made as soon as the head is there, so that nothing of the fields has to be kept beside it.
#[derive(Debug)]
pub(crate) struct HeadBuilder {
    status: StatusCode,
    fields: Fields,
    /// Whether the length of the body is still to be told.
    is_open: bool,
}

#[derive(Debug)]
enum Fields {
    Packed { shape: Arc<HeaderTemplate>, values: Vec<u8> },
    Map(HeaderMap),
}

impl HeadBuilder {
    /// From fields as they came, and the length of the body if that is known. The caller has seen to a
    /// valid `Date`.
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap, length: Option<usize>) -> Self {
        let value = length.map_or(HeaderValue::from_static(""), |length| head::number(length as u64));
        let message = Message::new(status, headers, &value);
        let beside = length.filter(|length| *length <= SMALL_BODY).unwrap_or_default();
        let packed = match status {
            // Whether a part has what a request asks for is seen by its fields.
            StatusCode::PARTIAL_CONTENT => None,
            _ => HeaderTemplate::pack(&message, beside),
        };
        let fields = match packed {
            Some((shape, values)) => Fields::Packed { shape, values },
            None => Fields::Map(to_map(&complete(message.fields()))),
        };
        let is_open = length.is_none() && status != StatusCode::NO_CONTENT;
        Self { status, fields, is_open }
    }

    /// Where the body is to be put, of which so much is expected at once. A small one of known length,
    /// for which there is room, shares the block with the fields.
    pub(crate) fn block(&mut self, expected: usize) -> BodyBuffer {
        match &mut self.fields {
            Fields::Packed { values, .. } if values.len() < values.capacity() => {
                let bytes = std::mem::take(values);
                BodyBuffer { start: bytes.len(), bytes }
            }
            _ => BodyBuffer::new(expected),
        }
    }

    /// With a body that nobody else has, in a block from [here](Self::block).
    pub(crate) fn with(mut self, BodyBuffer { bytes, start }: BodyBuffer) -> StoredHead {
        let length = bytes.len() - start;
        if start == 0 && length > SMALL_BODY {
            // Exact: what a growing vector has to spare would be kept, and charged to nobody.
            return self.with_shared(bytes.into_boxed_slice().into());
        }
        self.tell_length(length);
        let status = self.status;
        match self.fields {
            Fields::Map(headers) => StoredHead::new(status, headers, bytes.into()),
            Fields::Packed { shape, mut values } => {
                let (bytes, start) = if values.is_empty() {
                    (bytes, start)
                } else {
                    let start = values.len();
                    values.reserve_exact(length);
                    values.extend_from_slice(&bytes);
                    (values, start)
                };
                let mut values = Bytes::from(bytes.into_boxed_slice());
                let body = values.split_off(start);
                StoredHead { status, head: Head::packed(shape, values), body }
            }
        }
    }

    /// With a body that others may have as well.
    pub(crate) fn with_shared(mut self, body: Bytes) -> StoredHead {
        if body.len() <= SMALL_BODY {
            let mut block = self.block(body.len());
            block.push(&body);
            return self.with(block);
        }
        self.tell_length(body.len());
        match self.fields {
            Fields::Map(headers) => StoredHead::new(self.status, headers, body),
            Fields::Packed { shape, values } => {
                // The first clone makes the counter, so that no hit has to.
                let values = Bytes::from(values).slice(..);
                StoredHead { status: self.status, head: Head::packed(shape, values), body }
            }
        }
    }

    fn tell_length(&mut self, length: usize) {
        if self.is_open {
            self.fields.tell_length(&head::number(length as u64));
        }
    }
}

/// The memory that a body comes into, behind the values of its head if they share it.
#[derive(Debug)]
pub(crate) struct BodyBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl BodyBuffer {
    pub(crate) fn new(expected: usize) -> Self {
        Self { bytes: Vec::with_capacity(expected), start: 0 }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// Of the body alone.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The body of what is no draft.
    pub(crate) fn into_body(self) -> Bytes {
        self.bytes.into_boxed_slice().into()
    }
}

/// A response in the memory in which it is kept.
#[derive(Debug)]
pub(crate) struct StoredHead {
    pub(in crate::store) status: StatusCode,
    pub(in crate::store) head: Head,
    pub(in crate::store) body: Bytes,
}

impl StoredHead {
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

/// The fields of the message alone, with a true `Content-Length`.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) headers: &'a HeaderMap,
    /// What `Connection` names.
    named: Vec<HeaderName>,
    /// `None` where there is to be none.
    length: Option<&'a HeaderValue>,
}

impl<'a> Message<'a> {
    pub(super) fn new(status: StatusCode, headers: &'a HeaderMap, length: &'a HeaderValue) -> Self {
        let length = (status != StatusCode::NO_CONTENT).then_some(length);
        Self { headers, named: named_by_connection(headers), length }
    }

    /// Shows all fields in order, or as many as are wanted.
    #[inline]
    pub(super) fn try_each(&self, mut show: impl FnMut(Field<'a>) -> Option<()>) -> Option<()> {
        let mut length = self.length;
        for (name, value) in self.headers {
            let value = match *name {
                header::AGE => continue,
                header::CONTENT_LENGTH => match length.take() {
                    Some(length) => length,
                    None => continue,
                },
                // Everything that is kept has a `Date`, whatever is said about the connection.
                header::DATE => value,
                _ if is_hop_by_hop(name) || self.named.contains(name) => continue,
                _ => value,
            };
            show(Field::new(name, value))?;
        }
        match length {
            Some(length) => show(Field::new(&header::CONTENT_LENGTH, length)),
            None => Some(()),
        }
    }

    pub(super) fn fields(&self) -> Vec<Field<'a>> {
        let mut fields = Vec::with_capacity(self.headers.len() + 1);
        self.try_each(|field| {
            fields.push(field);
            Some(())
        });
        fields
    }
}

/// Behind an `Age` and with a `Cache-Status` as the youngest of hits has them.
pub(super) fn complete<'a>(message: impl IntoIterator<Item = Field<'a>>) -> Vec<Field<'a>> {
    let age = Field { name: &header::AGE, value: &YOUNGEST, is_own: false };
    let mut fields: Vec<_> = std::iter::once(age).chain(message).collect();
    // Ours is the last of its name.
    let last = fields.iter().rposition(|field| *field.name == CACHE_STATUS);
    let ours = Field { name: &CACHE_STATUS, value: CacheStatus::hit_value(), is_own: false };
    fields.insert(last.map_or(fields.len(), |last| last + 1), ours);
    fields
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
#[path = "builder_tests.rs"]
mod tests;
