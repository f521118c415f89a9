//! The head of a stored response: what a hit clones.
//!
//! Most heads are kept packed, at about half the memory of a header map: what they share with others is in a
//! [template](HeaderTemplate), their own values are in one block, a small body included. A [`HeadBuilder`]
//! makes a [`StoredHead`] as soon as the fields are there; the response keeps the [`Head`] of that.

mod template;

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, header::CACHE_STATUS};

use self::template::{HeaderTemplate, MAX_FIELDS};
use crate::http::fields;

/// What a plain hit says in `Cache-Status` (RFC 9211).
pub(crate) static HIT: HeaderValue = HeaderValue::from_static("tower-readthrough;hit");

/// What a header map needs on the heap for one field, apart from its text: most names that are not
/// standard have a block and a counter of their own. Measured, rounded up.
const FIELD_OVERHEAD: usize = 160;

/// The counter of a block of values, and what the allocator adds to both and to the list of values.
const BLOCK_OVERHEAD: usize = 64;

/// Heads with more values of their own make them anew for each hit: room for the values is charged to each
/// head, whether it is served again or not.
const MAX_MADE: usize = 16;

/// The fields of a stored response.
#[derive(Debug)]
pub(super) struct Head(Form);

#[derive(Debug)]
enum Form {
    /// Own values in one block, which may end with the body.
    Packed {
        template: Arc<HeaderTemplate>,
        values: Bytes,
        /// The values, from the first hit on. A value is validated byte by byte when it is made, which takes
        /// longer than all else that a hit does with it.
        made: OnceLock<Box<[HeaderValue]>>,
    },
    /// Ready to be cloned.
    Ready(Box<HeaderMap>),
}

impl Head {
    fn packed(template: Arc<HeaderTemplate>, values: Bytes) -> Self {
        Self(Form::Packed { template, values, made: OnceLock::new() })
    }

    /// A map of its own, where fields are read for each request.
    pub(super) fn ready(mut headers: HeaderMap, body: &mut Bytes) -> Self {
        pack(&mut headers, body);
        Self(Form::Ready(Box::new(headers)))
    }

    /// The fields of the message, without those that a hit adds.
    pub(super) fn message(&self) -> HeaderMap {
        let complete = self.complete();
        let mut message = HeaderMap::with_capacity(complete.keys_len().min(MAX_FIELDS));
        // Ours is the last of its name.
        let mut others = complete.get_all(CACHE_STATUS).iter().count() - 1;
        for (name, value) in complete.iter().filter(|(name, _)| **name != header::AGE) {
            if *name == CACHE_STATUS {
                let Some(left) = others.checked_sub(1) else { continue };
                others = left;
            }
            message.append(name.clone(), value.clone());
        }
        message
    }

    /// The fields as the youngest of hits has them: behind an `Age` of zero, and with a `Cache-Status`. All
    /// others are those of the message.
    pub(super) fn complete(&self) -> Cow<'_, HeaderMap> {
        match &self.0 {
            Form::Packed { .. } => Cow::Owned(self.to_map()),
            Form::Ready(headers) => Cow::Borrowed(headers),
        }
    }

    pub(super) fn to_map(&self) -> HeaderMap {
        match &self.0 {
            Form::Packed { template, values, made } => {
                if let Some(made) = made.get() {
                    return template.to_headers(made.iter().cloned());
                }
                match template.own_count() {
                    0..=MAX_MADE => {
                        template.to_headers(made.get_or_init(|| make(template, values)).iter().cloned())
                    }
                    _ => template.to_headers(template.own_values(values)),
                }
            }
            Form::Ready(headers) => (**headers).clone(),
        }
    }

    /// Reads all that [`to_map`](Self::to_map) is going to clone and that is this head's alone, so that it is
    /// in the processor's cache by then.
    #[inline]
    pub(super) fn touch(&self) -> usize {
        match &self.0 {
            Form::Packed { made, .. } => made.get().into_iter().flatten().map(HeaderValue::len).sum(),
            Form::Ready(_) => 0,
        }
    }

    /// The first value of a field.
    pub(super) fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        match &self.0 {
            Form::Packed { template, values, .. } => template.value(values, name),
            Form::Ready(headers) => headers.get(name).cloned(),
        }
    }

    /// What it costs to keep, without the body, and as if it had been served.
    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Form::Packed { template, values, .. } => {
                let made = Some(template.own_count()).filter(|count| *count <= MAX_MADE).unwrap_or_default();
                values.len() + made * size_of::<HeaderValue>() + BLOCK_OVERHEAD
            }
            Form::Ready(headers) => bytes(headers) + size_of::<HeaderMap>(),
        }
    }
}

fn make(template: &HeaderTemplate, values: &Bytes) -> Box<[HeaderValue]> {
    let mut made = Vec::with_capacity(template.own_count());
    made.extend(template.own_values(values));
    made.into()
}

/// The numbers from 0000 to 9999.
static NUMBERS: [u8; 40_000] = {
    let mut digits = [0; 40_000];
    let mut at = 0;
    while at < digits.len() {
        let (number, place) = (at / 4, at % 4);
        digits[at] = b'0' + (number / [1000, 100, 10, 1][place] % 10) as u8;
        at += 1;
    }
    digits
};

static DIGITS: &str = match std::str::from_utf8(&NUMBERS) {
    Ok(digits) => digits,
    Err(_) => "",
};

/// Returns a number as a value: without an allocation if it has up to four digits, as an `Age` in the first
/// hours or the length of a small body.
pub(super) fn number(number: u64) -> HeaderValue {
    let width = match number {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        1000..=9999 => 4,
        _ => return HeaderValue::from(number),
    };
    let end = (number as usize + 1) * 4;
    HeaderValue::from_static(&DIGITS[end - width..end])
}

pub(super) fn bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// Bodies up to this size lie in one block with the header fields.
const SMALL_BODY: usize = 1024;

/// Puts the values of all fields into one block of memory, and a small body with them: one allocation and one
/// counter instead of one for each, and none for well-known values.
fn pack(headers: &mut HeaderMap, body: &mut Bytes) {
    let with_body = if body.len() <= SMALL_BODY { body.len() } else { 0 };
    let is_packed = |(name, value): &(&HeaderName, &HeaderValue)| {
        **name != CACHE_STATUS && well_known(value.as_bytes()).is_none()
    };
    let own = || headers.iter().filter(is_packed);
    let mut block = Vec::with_capacity(own().map(|(_, value)| value.len()).sum::<usize>() + with_body);
    own().for_each(|(_, value)| block.extend_from_slice(value.as_bytes()));
    let values = block.len();
    block.extend_from_slice(&body[..with_body]);
    let block = Bytes::from(block);
    let mut at = 0;
    for (_, value) in headers.iter_mut().filter(|(name, _)| **name != CACHE_STATUS) {
        let packed = match well_known(value.as_bytes()) {
            Some(text) => HeaderValue::from_static(text),
            None => {
                let start = at;
                at += value.len();
                let Ok(own) = HeaderValue::from_maybe_shared(block.slice(start..at)) else { continue };
                own
            }
        };
        let is_sensitive = value.is_sensitive();
        *value = packed;
        value.set_sensitive(is_sensitive);
    }
    if with_body > 0 {
        *body = block.slice(values..);
    }
}

/// Values that are the same in most responses.
fn well_known(value: &[u8]) -> Option<&'static str> {
    Some(match value {
        b"0" => "0",
        b"br" => "br",
        b"gzip" => "gzip",
        b"zstd" => "zstd",
        b"bytes" => "bytes",
        b"nginx" => "nginx",
        b"nosniff" => "nosniff",
        b"text/css" => "text/css",
        b"image/png" => "image/png",
        b"image/jpeg" => "image/jpeg",
        b"text/html" => "text/html",
        b"text/plain" => "text/plain",
        b"accept-encoding" => "accept-encoding",
        b"Accept-Encoding" => "Accept-Encoding",
        b"application/json" => "application/json",
        b"text/javascript" => "text/javascript",
        b"text/html; charset=utf-8" => "text/html; charset=utf-8",
        b"text/plain; charset=utf-8" => "text/plain; charset=utf-8",
        b"application/octet-stream" => "application/octet-stream",
        b"application/json; charset=utf-8" => "application/json; charset=utf-8",
        b"public" => "public",
        b"max-age=60" => "max-age=60",
        b"max-age=600" => "max-age=600",
        b"max-age=3600" => "max-age=3600",
        b"public, max-age=60" => "public, max-age=60",
        b"public, max-age=3600" => "public, max-age=3600",
        b"public, max-age=86400" => "public, max-age=86400",
        b"public, max-age=31536000, immutable" => "public, max-age=31536000, immutable",
        _ => return None,
    })
}

/// The status and the fields of a response before its body is there.
#[derive(Debug)]
pub(crate) struct HeadBuilder {
    status: StatusCode,
    fields: Fields,
    /// Whether the length of the body is still unknown.
    is_open: bool,
}

#[derive(Debug)]
enum Fields {
    Packed { template: Arc<HeaderTemplate>, values: Vec<u8> },
    Map(HeaderMap),
}

impl HeadBuilder {
    /// `headers` are as they came, with a valid `Date`; `length` is that of the body, if it is known.
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap, length: Option<usize>) -> Self {
        let value = length.map_or(HeaderValue::from_static(""), |length| number(length as u64));
        let message = Message::new(status, headers, &value);
        let beside = length.filter(|length| *length <= SMALL_BODY).unwrap_or_default();
        let packed = match status {
            // The fields of a part are read for each request that it may answer.
            StatusCode::PARTIAL_CONTENT => None,
            _ => HeaderTemplate::pack(&message, beside),
        };
        let fields = match packed {
            Some((template, values)) => Fields::Packed { template, values },
            None => Fields::Map(to_map(&complete(message.fields()))),
        };
        let is_open = length.is_none() && status != StatusCode::NO_CONTENT;
        Self { status, fields, is_open }
    }

    /// Returns a buffer for the body, with room for `expected` bytes. A small body of known length shares the
    /// block of the fields.
    pub(crate) fn block(&mut self, expected: usize) -> BodyBuffer {
        match &mut self.fields {
            Fields::Packed { values, .. } if values.len() < values.capacity() => {
                let bytes = std::mem::take(values);
                BodyBuffer { start: bytes.len(), bytes }
            }
            _ => BodyBuffer::new(expected),
        }
    }

    /// Finishes it with a body in a buffer from [`block`](Self::block).
    pub(crate) fn with(mut self, BodyBuffer { bytes, start }: BodyBuffer) -> StoredHead {
        let length = bytes.len() - start;
        if start == 0 && length > SMALL_BODY {
            // Exact: spare capacity would be kept without being charged.
            return self.with_shared(bytes.into_boxed_slice().into());
        }
        self.set_length(length);
        let status = self.status;
        match self.fields {
            Fields::Map(headers) => StoredHead::new(status, headers, bytes.into()),
            Fields::Packed { template, mut values } => {
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
                StoredHead { status, head: Head::packed(template, values), body }
            }
        }
    }

    /// Finishes it with a body that is shared with others.
    pub(crate) fn with_shared(mut self, body: Bytes) -> StoredHead {
        if body.len() <= SMALL_BODY {
            let mut block = self.block(body.len());
            block.push(&body);
            return self.with(block);
        }
        self.set_length(body.len());
        match self.fields {
            Fields::Map(headers) => StoredHead::new(self.status, headers, body),
            Fields::Packed { template, values } => {
                // The first clone allocates the counter: here, and not in a hit.
                let values = Bytes::from(values).slice(..);
                StoredHead { status: self.status, head: Head::packed(template, values), body }
            }
        }
    }

    fn set_length(&mut self, length: usize) {
        if self.is_open {
            self.fields.set_length(&number(length as u64));
        }
    }
}

/// The memory into which a body is received, behind the values of its head if they share it.
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

    /// The length of the body so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The body, where it does not share a block with a head.
    pub(crate) fn into_body(self) -> Bytes {
        self.bytes.into_boxed_slice().into()
    }
}

/// The finished head and body.
#[derive(Debug)]
pub(crate) struct StoredHead {
    status: StatusCode,
    head: Head,
    body: Bytes,
}

impl StoredHead {
    pub(super) fn into_parts(self) -> (StatusCode, Head, Bytes) {
        (self.status, self.head, self.body)
    }

    fn new(status: StatusCode, headers: HeaderMap, mut body: Bytes) -> Self {
        let head = Head::ready(headers, &mut body);
        Self { status, head, body }
    }
}

impl Fields {
    fn set_length(&mut self, length: &HeaderValue) {
        match self {
            // A length that was not known is the last of the own values.
            Self::Packed { template, values } => template.set_last(values, length),
            // `insert` would let a full map grow.
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
struct Field<'a> {
    name: &'a HeaderName,
    value: &'a HeaderValue,
    /// Whether the value is this head's own, and not the same in many.
    is_own: bool,
}

impl<'a> Field<'a> {
    fn new(name: &'a HeaderName, value: &'a HeaderValue) -> Self {
        Self { name, value, is_own: is_own(name, value) }
    }
}

/// The fields of the message alone, with a true `Content-Length`.
#[derive(Debug)]
struct Message<'a> {
    headers: &'a HeaderMap,
    /// What `Connection` names.
    named: Vec<HeaderName>,
    /// `None` where there is to be none.
    length: Option<&'a HeaderValue>,
}

impl<'a> Message<'a> {
    fn new(status: StatusCode, headers: &'a HeaderMap, length: &'a HeaderValue) -> Self {
        let length = (status != StatusCode::NO_CONTENT).then_some(length);
        Self { headers, named: fields::named_by_connection(headers), length }
    }

    /// Calls `show` with all fields in order until it returns `None`.
    #[inline]
    fn try_each(&self, mut show: impl FnMut(Field<'a>) -> Option<()>) -> Option<()> {
        let mut length = self.length;
        for (name, value) in self.headers {
            let value = match *name {
                header::AGE => continue,
                header::CONTENT_LENGTH => match length.take() {
                    Some(length) => length,
                    None => continue,
                },
                // What is stored has a `Date`, even if `Connection` names it.
                header::DATE => value,
                _ if fields::is_hop_by_hop(name) || self.named.contains(name) => continue,
                _ => value,
            };
            show(Field::new(name, value))?;
        }
        match length {
            Some(length) => show(Field::new(&header::CONTENT_LENGTH, length)),
            None => Some(()),
        }
    }

    fn fields(&self) -> Vec<Field<'a>> {
        let mut fields = Vec::with_capacity(self.headers.len() + 1);
        self.try_each(|field| {
            fields.push(field);
            Some(())
        });
        fields
    }
}

/// The fields as a hit of age 0 has them: behind an `Age`, and with a `Cache-Status`.
fn complete<'a>(message: impl IntoIterator<Item = Field<'a>>) -> Vec<Field<'a>> {
    let age = Field { name: &header::AGE, value: &YOUNGEST, is_own: false };
    let mut fields: Vec<_> = std::iter::once(age).chain(message).collect();
    // Ours is the last of its name.
    let last = fields.iter().rposition(|field| *field.name == CACHE_STATUS);
    let ours = Field { name: &CACHE_STATUS, value: &HIT, is_own: false };
    fields.insert(last.map_or(fields.len(), |last| last + 1), ours);
    fields
}

static YOUNGEST: HeaderValue = HeaderValue::from_static("0");

/// Whether a value is kept for each head: not well-known values, nor the `Cache-Status` of a hit.
fn is_own(name: &HeaderName, value: &HeaderValue) -> bool {
    match *name {
        CACHE_STATUS => value != HIT,
        _ => well_known(value.as_bytes()).is_none(),
    }
}

fn to_map(fields: &[Field<'_>]) -> HeaderMap {
    // Capacity is for names: one name may have more lines than a map takes names.
    let mut headers = HeaderMap::with_capacity(fields.len().min(MAX_FIELDS));
    for field in fields {
        headers.append(field.name.clone(), field.value.clone());
    }
    // A clone is exact, a map with a capacity keeps room for fields that never come.
    headers.clone()
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
