//! The parameter `_method`, from which frameworks read another method of a request.
//!
//! WordPress reads it from the query of every request. Rails, Laravel and Symfony read it from the form or
//! the JSON of a POST.

use percent_encoding::percent_decode_str;

use super::rules::resemble;
use crate::work::looked_at;

const NAME: &str = "_method";

/// Whether any framework finds it in a query.
pub(super) fn is_in_query(query: &str) -> bool {
    looked_at(query.len());
    // Some frameworks also separate at `;`.
    query.split(['&', ';']).any(|pair| is_method(pair.split('=').next().unwrap_or_default()))
}

fn is_method(name: &str) -> bool {
    match name.contains(['%', '+']) {
        false => resemble(NAME, name),
        true => resemble(NAME, &percent_decode_str(&name.replace('+', " ")).decode_utf8_lossy()),
    }
}

/// Whether any framework may find it in a body: as a whole name, in any format of the body.
#[cfg(feature = "body-key")]
pub(super) fn is_in_body(body: &[u8]) -> bool {
    let decoded = |mark: u8, digits: &[u8]| body.contains(&mark).then(|| unescaped(body, mark, digits));
    let readings = [decoded(b'%', b""), decoded(b'\\', b"u00")];
    names_method(body) || readings.iter().flatten().any(|reading| names_method(reading))
}

/// A body with its escapes decoded: `%5F`, or `\u005f`.
#[cfg(feature = "body-key")]
fn unescaped(body: &[u8], mark: u8, digits: &[u8]) -> Vec<u8> {
    let octet = |rest: &[u8]| {
        let digits = rest.strip_prefix(digits)?.get(..2)?;
        u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut read, mut rest) = (Vec::with_capacity(body.len()), body);
    while let Some((first, after)) = rest.split_first() {
        let escaped = if *first == mark { octet(after) } else { None };
        read.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[digits.len() + 2..] } else { after };
    }
    read
}

#[cfg(feature = "body-key")]
fn names_method(text: &[u8]) -> bool {
    looked_at(text.len());
    let is_part_of_name = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    text.windows(NAME.len()).enumerate().any(|(at, window)| {
        // PHP reads a dot in a name as an underscore.
        matches!(window[0], b'_' | b'.')
            && window[1..].eq_ignore_ascii_case(&NAME.as_bytes()[1..])
            && !is_part_of_name(at.checked_sub(1).map(|before| &text[before]))
            && !is_part_of_name(text.get(at + NAME.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_in_every_spelling_of_a_query() {
        for query in [
            "_method=DELETE",
            "a=1&_method",
            "a=1;_method=put",
            "%5fmethod=x",
            "_M%65thod=x",
            "+_method=x",
            ".method=x",
            "_method[]=x",
            "_method%00a=x",
        ] {
            assert!(is_in_query(query), "{query}");
        }
        for query in
            ["", "a=_method", "payment_method=x", "_methods=x", "method=x", "a=%5fmethod", "__method"]
        {
            assert!(!is_in_query(query), "{query}");
        }
    }

    #[cfg(feature = "body-key")]
    #[test]
    fn it_is_found_in_bodies_of_any_format() {
        for body in [
            "_method=DELETE",
            "a=1&%5Fmethod=DELETE",
            "a=1&.method=PUT",
            r#"{"a": 1, "_method": "DELETE"}"#,
            r#"{"\u005Fmethod": "DELETE"}"#,
            "--x\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nPUT",
            "--x\r\nContent-Disposition: form-data; name=_method\r\n\r\nPUT",
        ] {
            assert!(is_in_body(body.as_bytes()), "{body}");
        }
        for body in [
            "",
            "_metho",
            "payment_method=card",
            r#"{"http_method": 1}"#,
            "_methods=1",
            "%5Fmethods",
            "\\u00",
        ] {
            assert!(!is_in_body(body.as_bytes()), "{body}");
        }
    }
}
