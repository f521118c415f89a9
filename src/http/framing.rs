//! The declared length of the body of a message (RFC 9110 §8.6, RFC 9112 §6).

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body as HttpBody, SizeHint};

use super::fields;

/// The declared length is invalid, ambiguous, or not the length of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoLength;

/// The fields that frame a message, as read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    declared: Result<Option<u64>, NoLength>,
    /// Whether `Content-Length` is absent, or one number on one line.
    is_plain: bool,
    coding: Option<Coding>,
}

/// How the body was transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Any other, which has not been decoded.
    Other,
}

impl Framing {
    pub(crate) const NONE: Self = Self { declared: Ok(None), is_plain: true, coding: None };

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut framing = Self::NONE;
        for (name, line) in headers {
            framing.read(name, line);
        }
        framing
    }

    #[inline]
    pub(crate) fn read(&mut self, name: &HeaderName, line: &HeaderValue) {
        match *name {
            header::CONTENT_LENGTH => self.read_length(line),
            header::TRANSFER_ENCODING => self.read_coding(line),
            _ => {}
        }
    }

    pub(crate) fn read_length(&mut self, line: &HeaderValue) {
        let number = length(line.as_bytes());
        self.is_plain &= self.declared == Ok(None) && number.is_some();
        self.declared = match (self.declared, number.or_else(|| repeated(line))) {
            (Ok(None), Some(length)) => Ok(Some(length)),
            (Ok(Some(before)), Some(length)) if before == length => Ok(Some(length)),
            _ => Err(NoLength),
        };
    }

    pub(crate) fn read_coding(&mut self, line: &HeaderValue) {
        for coding in fields::split_list(line.as_bytes()) {
            self.coding = match self.coding {
                None if coding.eq_ignore_ascii_case(b"chunked") => Some(Coding::Chunked),
                _ => Some(Coding::Other),
            };
        }
    }

    /// The declared length, without a body to compare it with.
    pub(crate) fn declared(self) -> Result<Option<u64>, NoLength> {
        match self.coding {
            None => self.declared,
            Some(Coding::Chunked) => Ok(None),
            Some(Coding::Other) => Err(NoLength),
        }
    }

    /// The declared length of the body of a response. An error if the body cannot have it.
    pub(crate) fn length_of(self, status: StatusCode, body: &SizeHint) -> Result<Option<u64>, NoLength> {
        match self.declared()? {
            _ if has_no_length(status) => Ok(None),
            Some(length) if length < body.lower() || body.upper().is_some_and(|upper| upper < length) => {
                Err(NoLength)
            }
            declared => Ok(declared),
        }
    }

    /// Leaves a response at most one `Content-Length`, and none that would cut off its body: a transfer
    /// coding overrides it (RFC 9112 §6.3), and so does a body that is known to be longer.
    ///
    /// A length beyond that of the body stays: it shows that the body is incomplete, or that the request was
    /// HEAD. Returns an error if the removed field contradicted itself or the body.
    #[inline]
    fn settle(
        &mut self,
        status: StatusCode,
        headers: &mut HeaderMap,
        body: &SizeHint,
    ) -> Result<(), NoLength> {
        match self.declared {
            Ok(None) => return Ok(()),
            Ok(Some(length)) if self.coding.is_none() && !has_no_length(status) && length >= body.lower() => {
                if !self.is_plain {
                    headers.insert(header::CONTENT_LENGTH, length.into());
                }
                return Ok(());
            }
            _ => {}
        }
        fields::remove_all(headers, |name| *name == header::CONTENT_LENGTH);
        (self.declared, self.is_plain) = (Ok(None), true);
        match self.coding.is_some() || has_no_length(status) {
            true => Ok(()),
            false => Err(NoLength),
        }
    }

    /// Like [`settle`](Self::settle), for a response whose fields were read. An error goes into its
    /// extensions, for the outer layers. Returns what the corrected fields declare.
    #[inline]
    pub(crate) fn settle_response<B: HttpBody>(mut self, response: &mut Response<B>) -> Self {
        let (status, size) = (response.status(), response.body().size_hint());
        if let Err(note) = self.settle(status, response.headers_mut(), &size) {
            response.extensions_mut().insert(note);
        }
        self
    }

    /// The length of the content of a response with these fields, if its head or its body tells it (RFC 9110
    /// §8.6).
    pub(super) fn content_of<B: HttpBody>(self, is_head: bool, response: &Response<B>) -> Option<u64> {
        let declared = || self.declared().ok().flatten();
        match has_content(is_head, response.status()) {
            true => declared().or_else(|| response.body().size_hint().exact()),
            false => None,
        }
    }
}

/// Like [`Framing::settle_response`], for a response whose fields have not been read.
pub(crate) fn settle<B: HttpBody>(response: &mut Response<B>) {
    Framing::of(response.headers()).settle_response(response);
}

/// RFC 9110 §8.6.
fn has_no_length(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status.is_informational()
}

/// The declared length of the content of a message.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, NoLength> {
    Framing::of(headers).declared()
}

/// Like [`Framing::content_of`], for a response whose fields have not been read.
pub(crate) fn content_of<B: HttpBody>(is_head: bool, response: &Response<B>) -> Option<u64> {
    Framing::of(response.headers()).content_of(is_head, response)
}

/// Whether a response has content by the method of its request and its status (RFC 9110 §6.4.1).
fn has_content(is_head: bool, status: StatusCode) -> bool {
    let is_without = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    !is_head && !status.is_informational() && !is_without.contains(&status)
}

/// `None` for the largest number, which is also the result for all larger ones.
fn length(text: &[u8]) -> Option<u64> {
    fields::digits(text).filter(|length| *length < u64::MAX)
}

/// The length of a line that repeats one number (RFC 9110 §8.6).
#[cold]
fn repeated(line: &HeaderValue) -> Option<u64> {
    let mut members = line.as_bytes().split(|byte| *byte == b',').map(|member| length(member.trim_ascii()));
    let first = members.next()??;
    members.all(|member| member == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn a_length_is_declared_in_one_number() {
        let declared = |lines: &[&str]| {
            let fields: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            content_length(&headers(&fields))
        };
        assert_eq!(declared(&[]), Ok(None));
        assert_eq!(declared(&["7"]), Ok(Some(7)));
        for repeated in [&["7", "7"][..], &["7, 7"], &["7,7 ,\t7"], &["7, 7", "7"], &["007"]] {
            assert_eq!(declared(repeated), Ok(Some(7)), "{repeated:?}");
        }
        for junk in [
            &["7", "8"][..],
            &["7", "x"],
            &["x", "7"],
            &["7", "8", "8"],
            &["7", "8", "7"],
            &["7, 8"],
            &["7,"],
            &[",7"],
            &["-1"],
            &["+7"],
            &["7", "+7"],
            &["0x7"],
            &["7 7"],
            &["18446744073709551616"],
            &[""],
        ] {
            assert_eq!(declared(junk), Err(NoLength), "{junk:?}");
        }
    }

    #[test]
    fn a_transfer_coding_overrides_a_length() {
        let declared = |codings: &[&str]| {
            let mut fields: Vec<_> = codings.iter().map(|line| ("transfer-encoding", *line)).collect();
            fields.push(("content-length", "7"));
            content_length(&headers(&fields))
        };
        for chunked in [&["chunked"][..], &["Chunked"], &["", "chunked, "]] {
            assert_eq!(declared(chunked), Ok(None), "{chunked:?}");
        }
        for other in
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["gzip"], &["chunked, chunked"], &["identity"]]
        {
            assert_eq!(declared(other), Err(NoLength), "{other:?}");
        }
    }

    #[test]
    fn a_length_that_would_cut_off_the_body_is_removed_and_others_stay() {
        let settled = |status: u16, fields: &[(&'static str, &str)], hint: SizeHint| {
            let status = StatusCode::from_u16(status).unwrap();
            let (mut headers, framing) = (headers(fields), Framing::of(&headers(fields)));
            let mut settled = framing;
            let is_lost = settled.settle(status, &mut headers, &hint).is_err();
            assert_eq!(settled.declared(), content_length(&headers));
            let left: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().cloned().collect();
            let (before, after) = (framing.length_of(status, &hint), Framing::of(&headers));
            assert_eq!(is_lost, before.is_err() && after.length_of(status, &hint).is_ok());
            (left, before)
        };
        let (unknown, five) = (SizeHint::default(), SizeHint::with_exact(5));
        let length = |value| ("content-length", value);
        let chunked = ("transfer-encoding", "chunked");
        for (status, fields, hint, left, declared) in [
            (200, &[][..], five, &[][..], Ok(None)),
            (200, &[length("5")], five, &["5"], Ok(Some(5))),
            (200, &[length("5, 5")], five, &["5"], Ok(Some(5))),
            (200, &[length("5"), length("5")], unknown, &["5"], Ok(Some(5))),
            (200, &[length("+5")], five, &[], Err(NoLength)),
            (200, &[length("5"), length("6")], five, &[], Err(NoLength)),
            (200, &[length("3")], five, &[], Err(NoLength)),
            (200, &[length("9")], five, &["9"], Err(NoLength)),
            (200, &[length("3"), chunked], unknown, &[], Ok(None)),
            (200, &[length("9"), chunked], five, &[], Ok(None)),
            (304, &[length("9")], SizeHint::with_exact(0), &["9"], Err(NoLength)),
            (204, &[length("9")], SizeHint::with_exact(0), &[], Ok(None)),
        ] {
            assert_eq!(settled(status, fields, hint), (headers_of(left), declared), "{status} {fields:?}");
        }
    }

    fn headers_of(lines: &[&'static str]) -> Vec<HeaderValue> {
        lines.iter().map(|line| HeaderValue::from_static(line)).collect()
    }
}
