//! Which requests may purge over HTTP.

use std::{fmt, hint::black_box};

use http::{header, request::Parts};

/// Whether a request may purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The request may purge.
    Granted,
    /// It has no valid credentials: 401.
    Unauthenticated,
    /// Its credentials are valid, without the permission to purge: 403.
    Forbidden,
}

/// Decides which requests may purge. Implemented for closures over the head of the request, and for
/// [`Bearer`].
pub trait Authorize: Send + Sync + 'static {
    /// Whether this request may purge. Called before its body is read.
    fn authorize(&self, head: &Parts) -> Access;
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
        let mut given = head.headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return Access::Unauthenticated };
        let token = match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
            _ => return Access::Unauthenticated,
        };
        match !self.0.is_empty() && are_equal(token, self.0.as_bytes()) {
            true => Access::Granted,
            false => Access::Unauthenticated,
        }
    }
}

/// Compares all bytes, whichever of them differ.
fn are_equal(given: &[u8], expected: &[u8]) -> bool {
    let differences = given.iter().zip(expected).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    black_box(differences) == 0 && given.len() == expected.len()
}
