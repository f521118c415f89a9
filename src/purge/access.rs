//! Who may purge over HTTP.

use std::{fmt, hint::black_box};

use http::{header, request::Parts};

/// Whether a request may purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    Granted,
    /// It shows no identity that is known: 401.
    Unauthenticated,
    /// Its identity is known and may not purge: 403.
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

/// Lets those purge who have the token (`Authorization: Bearer <token>`, RFC 6750). How long the
/// comparison takes does not depend on how much of it is right.
#[derive(Clone)]
pub struct Bearer(Box<str>);

impl Bearer {
    /// The token: at least 16 random bytes, spelled in printable ASCII. An empty one lets nobody in.
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

/// Looks at all bytes, whichever of them differ.
fn are_equal(given: &[u8], expected: &[u8]) -> bool {
    let differences = given.iter().zip(expected).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
    black_box(differences) == 0 && given.len() == expected.len()
}
