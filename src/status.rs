use std::fmt;

use crate::http::storing::Unshareable;

/// How an answer came about, in the terms of RFC 9211.
///
/// It is in the extensions of every response that a layer here had to do with, for logs and
/// metrics. Of several layers the outermost one that decided has the last word.
///
/// ```
/// use tower_readthrough::CacheStatus;
///
/// fn log(response: &http::Response<()>) -> String {
///     match response.extensions().get::<CacheStatus>() {
///         Some(status) => status.to_string(),
///         None => "not asked".into(),
///     }
/// }
/// # assert_eq!(log(&http::Response::new(())), "not asked");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    outcome: Outcome,
    is_stored: bool,
    is_collapsed: bool,
    unshareable: Option<Unshareable>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Hit,
    Stale(Stale),
    Forwarded(Forward),
}

/// Why a stale answer was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stale {
    /// A fresh one is being fetched (RFC 5861 §3).
    WhileRevalidating,
    /// The origin failed (RFC 5861 §4).
    IfError,
}

/// Why a request went to the origin (the `fwd` parameter, RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forward {
    /// Nothing is stored under its key.
    UriMiss,
    /// Something is stored under its key, but nothing that the request selects.
    VaryMiss,
    /// Nothing that can be used, for no more specific reason.
    Miss,
    /// What is stored is stale.
    Stale,
    /// The answer was not shareable a moment ago (hit-for-miss).
    Bypass,
}

impl CacheStatus {
    pub(crate) const fn hit() -> Self {
        Self::new(Outcome::Hit)
    }

    pub(crate) const fn stale(why: Stale) -> Self {
        Self::new(Outcome::Stale(why))
    }

    pub(crate) const fn forwarded(why: Forward) -> Self {
        Self::new(Outcome::Forwarded(why))
    }

    const fn new(outcome: Outcome) -> Self {
        Self { outcome, is_stored: false, is_collapsed: false, unshareable: None }
    }

    pub(crate) const fn stored(self, is_stored: bool) -> Self {
        Self { is_stored, ..self }
    }

    pub(crate) const fn unshared(self, why: Unshareable) -> Self {
        Self { unshareable: Some(why), ..self }
    }

    pub(crate) const fn collapsed(self) -> Self {
        Self { is_collapsed: true, ..self }
    }

    /// Whether it came from the store, fresh or stale.
    pub const fn is_hit(&self) -> bool {
        matches!(self.outcome, Outcome::Hit | Outcome::Stale(_))
    }

    /// Whether it was stale when it was served, and why it was served all the same.
    pub const fn stale_reason(&self) -> Option<Stale> {
        match self.outcome {
            Outcome::Stale(why) => Some(why),
            _ => None,
        }
    }

    /// Why the request went to the origin, if it did.
    pub const fn forward_reason(&self) -> Option<Forward> {
        match self.outcome {
            Outcome::Forwarded(why) => Some(why),
            _ => None,
        }
    }

    /// Whether the answer of the origin is stored, once it is complete.
    pub const fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Why the answer of the origin was for this client alone, if it was.
    pub const fn unshareable_reason(&self) -> Option<Unshareable> {
        self.unshareable
    }

    /// Whether this client shared the fetch of another one.
    pub const fn is_collapsed(&self) -> bool {
        self.is_collapsed
    }
}

impl fmt::Display for CacheStatus {
    /// The parameters of RFC 9211 §2, such as `fwd=stale; stored; collapsed` or
    /// `fwd=uri-miss; detail=no-store`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.outcome {
            Outcome::Hit => "hit",
            Outcome::Stale(Stale::WhileRevalidating) => "hit; detail=stale-while-revalidate",
            Outcome::Stale(Stale::IfError) => "hit; detail=stale-if-error",
            Outcome::Forwarded(Forward::UriMiss) => "fwd=uri-miss",
            Outcome::Forwarded(Forward::VaryMiss) => "fwd=vary-miss",
            Outcome::Forwarded(Forward::Miss) => "fwd=miss",
            Outcome::Forwarded(Forward::Stale) => "fwd=stale",
            Outcome::Forwarded(Forward::Bypass) => "fwd=bypass",
        })?;
        if self.is_stored {
            f.write_str("; stored")?;
        }
        if self.is_collapsed {
            f.write_str("; collapsed")?;
        }
        match self.unshareable {
            Some(why) => write!(f, "; detail={why}"),
            None => Ok(()),
        }
    }
}
