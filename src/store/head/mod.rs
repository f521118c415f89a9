//! The head of a stored response: what a hit clones.

mod builder;
mod template;

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

pub(super) use self::builder::StoredHead;
pub(crate) use self::builder::{BodyBuffer, HeadBuilder};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::exchange::status::CACHE_STATUS;
use crate::store::head::template::HeaderTemplate;

/// What a header map needs on the heap for one field, apart from its text: most names that are not
/// standard have a block and a counter of their own. Measured, rounded up.
const FIELD_OVERHEAD: usize = 160;

/// The counter of a block of values, and what the allocator adds to both and to the list of values.
const BLOCK_OVERHEAD: usize = 64;

/// Values that are kept as a client gets them: room for more would be charged to many that nobody
/// asks for again.
const MAX_MADE: usize = 16;

/// The fields of a stored response.
#[derive(Debug)]
pub(super) enum Head {
    /// As most are kept: what is its own, in a block that may end with the body.
    Packed {
        shape: Arc<HeaderTemplate>,
        values: Bytes,
        /// The same as a client gets it, once one did. A value is checked byte by byte whenever it is
        /// made, which takes longer than all else that a hit does with it.
        made: OnceLock<Box<[HeaderValue]>>,
    },
    /// Ready to be cloned.
    Ready(Box<HeaderMap>),
}

impl Head {
    pub(super) fn packed(shape: Arc<HeaderTemplate>, values: Bytes) -> Self {
        Self::Packed { shape, values, made: OnceLock::new() }
    }

    /// For what is looked at for each request.
    pub(super) fn ready(mut headers: HeaderMap, body: &mut Bytes) -> Self {
        pack(&mut headers, body);
        Self::Ready(Box::new(headers))
    }

    pub(super) fn headers(&self) -> Cow<'_, HeaderMap> {
        match self {
            Self::Packed { .. } => Cow::Owned(self.to_map()),
            Self::Ready(headers) => Cow::Borrowed(headers),
        }
    }

    pub(super) fn to_map(&self) -> HeaderMap {
        match self {
            Self::Packed { shape, values, made } => {
                if let Some(made) = made.get() {
                    return shape.to_headers(made.iter().cloned());
                }
                match shape.own_count() {
                    0..=MAX_MADE => {
                        shape.to_headers(made.get_or_init(|| make(shape, values)).iter().cloned())
                    }
                    _ => shape.to_headers(shape.own_values(values)),
                }
            }
            Self::Ready(headers) => (**headers).clone(),
        }
    }

    /// Looks at all that [`to_map`](Self::to_map) is going to clone and that is this head's alone.
    #[inline]
    pub(super) fn touch(&self) -> usize {
        match self {
            Self::Packed { made, .. } => made.get().into_iter().flatten().map(HeaderValue::len).sum(),
            Self::Ready(_) => 0,
        }
    }

    /// The first value of a field.
    pub(super) fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        match self {
            Self::Packed { shape, values, .. } => shape.value(values, name),
            Self::Ready(headers) => headers.get(name).cloned(),
        }
    }

    /// Without the body, and as if it had been served.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Packed { shape, values, .. } => {
                let made = Some(shape.own_count()).filter(|count| *count <= MAX_MADE).unwrap_or_default();
                values.len() + made * size_of::<HeaderValue>() + BLOCK_OVERHEAD
            }
            Self::Ready(headers) => bytes(headers) + size_of::<HeaderMap>(),
        }
    }
}

fn make(shape: &HeaderTemplate, values: &Bytes) -> Box<[HeaderValue]> {
    let mut made = Vec::with_capacity(shape.own_count());
    made.extend(shape.own_values(values));
    made.into()
}

/// The numbers of four digits, one after the other.
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

/// The value of an `Age` for the first hours, or of the length of a small body, without an
/// allocation.
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
pub(super) const SMALL_BODY: usize = 1024;

/// Puts the values of all fields into one block of memory, and a small body with them: one
/// allocation and one counter instead of one for each, and for what everybody sends none at all.
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

/// Values that are the same in most answers.
pub(super) fn well_known(value: &[u8]) -> Option<&'static str> {
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

#[cfg(test)]
mod tests {
    use super::HeadBuilder;
    use super::*;
    use http::StatusCode;

    #[test]
    fn what_is_packed_is_the_same_as_before() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", &b"text/html"[..]),
            ("set-cookie", b"a=1"),
            ("set-cookie", b"b=\xff"),
            ("x-empty", b""),
            ("cache-status", b"Other;hit"),
            ("x-secret", b"s"),
        ] {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers.get_mut("x-secret").unwrap().set_sensitive(true);
        for size in [0, 1, SMALL_BODY, SMALL_BODY + 1] {
            let body = Bytes::from(vec![b'x'; size]);
            let (mut packed, mut packed_body) = (headers.clone(), body.clone());
            pack(&mut packed, &mut packed_body);
            assert_eq!((&packed, &packed_body), (&headers, &body));
            assert!(packed["x-secret"].is_sensitive() && !packed["set-cookie"].is_sensitive());
        }
    }

    #[test]
    fn what_serving_a_head_takes_is_charged_before() {
        let mut fields = HeaderMap::new();
        for (name, value) in [("etag", "\"1\""), ("content-type", "text/html"), ("x-own", "own")] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        let kept =
            HeadBuilder::new(StatusCode::OK, &fields, Some(5)).with_shared(Bytes::from_static(b"hello"));
        let Head::Packed { values, made, .. } = &kept.head else { panic!("it has a shape") };
        assert_eq!(made.get(), None, "who is never served takes no more than his text");
        let before = kept.head.bytes();
        let served = kept.head.to_map();
        assert_eq!((served["etag"].as_bytes(), served["x-own"].as_bytes()), (&b"\"1\""[..], &b"own"[..]));
        let made = made.get().unwrap();
        // The length of the body is the third of its own.
        assert_eq!(made.len(), 3);
        assert_eq!(kept.head.bytes(), before);
        assert!(before >= values.len() + size_of_val(&**made));
    }

    #[test]
    fn a_number_is_the_same_whether_it_is_written_out_or_not() {
        for seconds in (0..10_100).chain([u64::MAX]) {
            assert_eq!(number(seconds).as_bytes(), seconds.to_string().as_bytes());
        }
    }
}
