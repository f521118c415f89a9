//! What else than the URI is in a key: header fields, cookies, and what other layers know.

use std::{borrow::Cow, fmt, sync::Arc};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use smallvec::SmallVec;

use super::{
    super::{KeyBuffer, Unkeyed},
    classes::CompiledClasses,
    error::Problem,
    negotiation::Negotiation,
};
use crate::http::{cookies::CookieNames, credentials::Keyed, fields::by_spelling};

#[derive(Clone, Debug, Default)]
pub(super) struct KeyParts {
    /// Fields and cookies.
    pub(super) keyed: Keyed,
    pub(super) extensions: Box<[Extension]>,
}

impl KeyParts {
    pub(super) fn is_empty(&self) -> bool {
        self.keyed.is_nothing() && self.extensions.is_empty()
    }

    /// The fields that are in the key by their whole names, in whole or in part.
    pub(super) fn fields(&self) -> impl Iterator<Item = HeaderName> {
        let cookies = self.keyed.cookies().filter(|names| !names.is_empty());
        let whole = self.keyed.fields().iter().cloned();
        whole.chain(cookies.map(|_| header::COOKIE))
    }

    /// Appends the values that a request has. Without one of the extensions it has no key: what is for
    /// one tenant must never be for all.
    pub(super) fn push(
        &self,
        head: &Parts,
        (negotiation, classes): (&Negotiation, &CompiledClasses),
        key: &mut KeyBuffer,
    ) -> Result<(), Unkeyed> {
        for name in self.keyed.fields() {
            match classes.value_of(name, head) {
                // Not as a value that a client has sent.
                Some(class) => [b"class", class.as_bytes()].iter().for_each(|part| key.push(part)),
                None => push_header(name, &head.headers, negotiation, key),
            }
        }
        if !self.keyed.prefixes().is_empty() {
            push_prefixed(&self.keyed, &head.headers, negotiation, key);
        }
        if let Some(names) = self.keyed.cookies() {
            key.push_cookies(names, &head.headers);
        }
        self.extensions.iter().try_for_each(|extension| {
            let is_there = (extension.read)(&head.extensions, &mut |value| key.push(value));
            is_there.then_some(()).ok_or(Unkeyed::MissingExtension)
        })
    }
}

/// As the origin will see it. A field that is not there differs from an empty one, and one line
/// from two.
fn push_header(name: &HeaderName, headers: &HeaderMap, negotiation: &Negotiation, key: &mut KeyBuffer) {
    match negotiation.normal_form(name, headers) {
        Some(value) => push_values(value.as_ref().map(HeaderValue::as_bytes).into_iter(), key),
        None => push_values(headers.get_all(name).iter().map(HeaderValue::as_bytes), key),
    }
}

/// With their names, for it is not known which there are.
fn push_prefixed(keyed: &Keyed, headers: &HeaderMap, negotiation: &Negotiation, key: &mut KeyBuffer) {
    let mut names: SmallVec<[&HeaderName; 4]> =
        headers.keys().filter(|name| keyed.has_by_prefix(name)).collect();
    // Where others are removed their order changes.
    names.sort_by(|a, b| by_spelling(a, b));
    key.push((names.len() as u64).to_le_bytes());
    for name in names {
        key.push(name.as_str());
        push_header(name, headers, negotiation, key);
    }
}

pub(super) fn push_values<'a>(values: impl Iterator<Item = &'a [u8]>, key: &mut KeyBuffer) {
    let values: SmallVec<[&[u8]; 4]> = values.collect();
    key.push((values.len() as u64).to_le_bytes());
    values.iter().for_each(|value| key.push(value));
}

type Read = dyn Fn(&Extensions, &mut dyn FnMut(&[u8])) -> bool + Send + Sync;

/// A value out of a request's extensions.
#[derive(Clone)]
pub(super) struct Extension {
    pub(super) name: Box<str>,
    read: Arc<Read>,
}

impl Extension {
    pub(super) fn new<T, F>(name: Box<str>, part: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn(&T) -> Option<Cow<'_, [u8]>> + Send + Sync + 'static,
    {
        let read = move |extensions: &Extensions, push: &mut dyn FnMut(&[u8])| {
            let value = extensions.get::<T>().and_then(&part);
            value.map(|value| push(&value)).is_some()
        };
        Self { name, read: Arc::new(read) }
    }
}

impl Extension {
    /// The value as text, which it need not be.
    pub(super) fn text(&self, extensions: &Extensions) -> Option<String> {
        let mut text = None;
        (self.read)(extensions, &mut |value| text = Some(String::from_utf8_lossy(value).into_owned()));
        text
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Extension").field(&self.name).finish()
    }
}

/// Fields that the layers change on the way to the origin, or that say nothing about the response. The
/// host is in every key.
const NOT_KEYED: [HeaderName; 12] = [
    header::HOST,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

/// How names of fields begin, written with a `*` at the end.
pub(super) fn parse_prefix(text: &str) -> Option<Result<Box<str>, Problem>> {
    let start = text.strip_suffix('*')?.to_ascii_lowercase();
    let is_name = HeaderName::from_bytes(start.as_bytes()).is_ok() && !start.contains('*');
    let is_free = !NOT_KEYED.iter().any(|name| name.as_str().starts_with(&start));
    Some(if is_name && is_free { Ok(start.into()) } else { Err(Problem::Header(text.into())) })
}

pub(super) fn parse_header(text: &str) -> Result<HeaderName, Problem> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    name.filter(|name| !NOT_KEYED.contains(name) && !text.contains('*'))
        .ok_or_else(|| Problem::Header(text.into()))
}

pub(super) fn parse_cookies(names: &[String]) -> Result<CookieNames, Problem> {
    let names = CookieNames::new(names.iter().map(String::as_str));
    match names.invalid() {
        Some(name) => Err(Problem::Cookie(name.into())),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &KeyParts, fields: &[(&'static str, &str)]) -> Vec<u8> {
        let mut request = http::Request::get("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut key = KeyBuffer::new();
        let forms = (&Negotiation::default(), &CompiledClasses::default());
        parts.push(&request.body(()).unwrap().into_parts().0, forms, &mut key).unwrap();
        key.as_bytes().to_vec()
    }

    #[test]
    fn a_field_counts_with_all_its_lines() {
        let fields = [HeaderName::from_static("x-a")];
        let parts = KeyParts { keyed: Keyed::new(fields, None), ..KeyParts::default() };
        let of = |fields: &[_]| key(&parts, fields);
        let all = [
            of(&[]),
            of(&[("x-a", "")]),
            of(&[("x-a", "1,2")]),
            of(&[("x-a", "1"), ("x-a", "2")]),
            of(&[("x-a", "12")]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(of(&[("x-b", "1")]), of(&[]));
    }

    #[test]
    fn fields_that_begin_so_count_with_their_names() {
        let parts = KeyParts { keyed: Keyed::with_prefixes([], ["x-a".into()], None), ..KeyParts::default() };
        let of = |fields: &[_]| key(&parts, fields);
        let all = [
            of(&[]),
            of(&[("x-a", "1")]),
            of(&[("x-ab", "1")]),
            of(&[("x_ab", "1")]),
            of(&[("x-a", "1"), ("x-ab", "1")]),
            of(&[("x-ab", "1"), ("x-ab", "")]),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
        assert_eq!(of(&[("x-b", "1"), ("ax-a", "1")]), of(&[]));
    }

    #[test]
    fn one_cookie_counts_and_others_do_not() {
        let cookies = Some(CookieNames::new(["a"]));
        let parts = KeyParts { keyed: Keyed::new([], cookies), ..KeyParts::default() };
        let of = |cookies: &[&str]| {
            key(&parts, &cookies.iter().map(|cookie| ("cookie", *cookie)).collect::<Vec<_>>())
        };
        assert_eq!(of(&["sid=1; a=2"]), of(&["a=2;sid=3"]));
        assert_eq!(of(&["sid=1", "a=2"]), of(&["a=2"]));
        let different: &[&[&str]] =
            &[&[], &["a="], &["a"], &["a=1"], &["a=1; a=2"], &["a=2; a=1"], &["a=\"1; a=2\""], &["a=1\""]];
        let keys: std::collections::HashSet<_> = different.iter().map(|cookies| of(cookies)).collect();
        assert_eq!(keys.len(), different.len());
        for removed in ["aa=1", "A=1", "x=1 a=1"] {
            assert_eq!(of(&[removed]), of(&[]), "the origin does not get it either");
        }
    }
}
