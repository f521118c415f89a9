//! Which requests may purge over HTTP, or see what the cache does.

use std::fmt;

use http::{header, request::Parts};

use crate::http::fields::is_secret;

/// Whether a request may purge, or have what else a check stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    Granted,
    /// It has no valid credentials: 401.
    Unauthenticated,
    /// Its credentials are valid, and do not permit it: 403.
    Forbidden,
}

/// Decides which requests may purge, or have what else a check stands before. Implemented for closures over the head of the request, for [`Bearer`] and for
/// [`Basic`].
pub trait Authorize: Send + Sync + 'static {
    /// Whether this request may. Called before its body is read.
    fn authorize(&self, head: &Parts) -> Access;

    /// Returns the scheme that a 401 asks for in `WWW-Authenticate` (RFC 9110 §11.1), a token. Default: `Bearer`.
    fn scheme(&self) -> &'static str {
        "Bearer"
    }
}

impl<F> Authorize for F
where
    F: Fn(&Parts) -> Access + Send + Sync + 'static,
{
    fn authorize(&self, head: &Parts) -> Access {
        self(head)
    }
}

/// Grants access to requests with a token (`Authorization: Bearer <token>`, RFC 6750). The time of the
/// comparison does not depend on how much of the token is right.
#[derive(Clone)]
pub struct Bearer(Box<str>);

impl Bearer {
    /// Compares with this token: at least 16 random bytes, in printable ASCII. An empty one grants access to
    /// no request.
    pub fn new(token: impl Into<Box<str>>) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

impl Authorize for Bearer {
    fn authorize(&self, head: &Parts) -> Access {
        match credentials(head, b"bearer ") {
            Some(token) if !self.0.is_empty() && is_secret(token, self.0.as_bytes()) => Access::Granted,
            _ => Access::Unauthenticated,
        }
    }
}

/// Grants access to requests with a name and a password (`Authorization: Basic`, RFC 7617), for which browsers ask by
/// themselves. They belong on TLS, since they are sent as they are. The time of the comparison does not depend on
/// how much of them is right.
#[derive(Clone)]
pub struct Basic(Box<str>);

impl Basic {
    /// Compares with this name and password: one of at least 16 random characters. An empty password grants access
    /// to no request, and neither does a name with a colon, which no browser can send.
    pub fn new(name: &str, password: &str) -> Self {
        let can_be_sent = !password.is_empty() && !name.contains(':');
        let credentials = can_be_sent.then(|| base64(format!("{name}:{password}").as_bytes()));
        Self(credentials.unwrap_or_default().into())
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Basic(..)")
    }
}

impl Authorize for Basic {
    fn authorize(&self, head: &Parts) -> Access {
        match credentials(head, b"basic ") {
            Some(given) if !self.0.is_empty() && is_secret(given, self.0.as_bytes()) => Access::Granted,
            _ => Access::Unauthenticated,
        }
    }

    fn scheme(&self) -> &'static str {
        "Basic"
    }
}

/// What follows this scheme, which ends with its space, in the only `Authorization` of a request.
fn credentials<'a>(head: &'a Parts, scheme: &[u8]) -> Option<&'a [u8]> {
    let mut given = head.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let (own, credentials) = value.as_bytes().split_at_checked(scheme.len())?;
    own.eq_ignore_ascii_case(scheme).then_some(credentials)
}

/// RFC 4648 §4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0, |bits, byte| (bits << 8) | usize::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let is_padding = place > group.len();
            text.push(if is_padding { '=' } else { char::from(ALPHABET[(bits >> (18 - 6 * place)) & 63]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_examples_of_rfc_4648() {
        let examples = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in examples {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_name_and_a_password_are_compared_as_one() {
        let access = |check: &Basic, fields: &[&str]| {
            let request = http::Request::builder();
            let request =
                fields.iter().fold(request, |request, value| request.header("authorization", *value));
            check.authorize(&request.body(()).map(|request| request.into_parts().0).expect("a head"))
        };
        // RFC 7617 §2.
        let check = Basic::new("Aladdin", "open sesame");
        assert_eq!(access(&check, &["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]), Access::Granted);
        assert_eq!(access(&check, &["basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]), Access::Granted);
        for wrong in
            ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZP==", "Basic ", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ""]
        {
            assert_eq!(access(&check, &[wrong]), Access::Unauthenticated, "{wrong}");
        }
        assert_eq!(access(&check, &[]), Access::Unauthenticated);
        let twice = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(access(&check, &[twice, twice]), Access::Unauthenticated);
        // What would be `:` alone, or the same as another name and password.
        assert_eq!(access(&Basic::new("", ""), &["Basic Og=="]), Access::Unauthenticated);
        assert_eq!(access(&Basic::new("a:b", "c"), &["Basic YTpiOmM="]), Access::Unauthenticated);
    }
}
