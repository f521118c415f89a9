//! Which responses count as failures of the service below.

use std::{fmt, sync::Arc};

use http::{HeaderMap, Response, StatusCode};

use crate::{exchange::Refused, http::storing::is_breakdown};

/// Decides which responses are failures of the service below.
///
/// Instead of a failure a stale response is served where one may be used (RFC 5861 §4), a failure is
/// not stored unless it has freshness of its own and nothing better is there, callers that wait for the
/// same fetch share it, and [`RetryPolicy`](crate::RetryPolicy) may try again. Errors of the service
/// are failures in any case, and so are the timeouts and refusals of the layers here ([`Refused`]). A
/// 304 to a condition of the cache's own is not passed to it.
///
/// Implemented for closures, and for [`DefaultFailures`].
/// [`ReadThroughBuilder::failures`](crate::ReadThroughBuilder::failures) sets it for all layers at once; layers put
/// together by hand should all have the same one.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_readthrough::{DefaultFailures, Failures, MemoryStore, ReadThroughLayer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The gateway in front of the origin responds with 520 if the origin closes the connection.
/// let failures = |status: StatusCode, headers: &HeaderMap| {
///     status.as_u16() == 520 || DefaultFailures.is_failure(status, headers)
/// };
/// let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).failures(failures).build()?;
/// # let _ = cache;
/// # Ok(())
/// # }
/// ```
pub trait Failures: Send + Sync + 'static {
    /// Whether a response with this status and these header fields is a failure.
    fn is_failure(&self, status: StatusCode, headers: &HeaderMap) -> bool;
}

/// The [`Failures`] where none are set: 408, 500, 502, 503 and 504.
///
/// 408 is the response of `tower_http::timeout::TimeoutLayer` by default: the service below has failed
/// to respond in time, not the client. 429 is never a failure by default: the origin is well and asks
/// to be spared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultFailures;

impl Failures for DefaultFailures {
    fn is_failure(&self, status: StatusCode, _: &HeaderMap) -> bool {
        matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504)
    }
}

impl<F> Failures for F
where
    F: Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static,
{
    fn is_failure(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self(status, headers)
    }
}

/// The [`Failures`] that a layer was given, else the default ones.
#[derive(Clone, Default)]
pub(crate) struct FailurePolicy(Option<Arc<dyn Failures>>);

impl FailurePolicy {
    pub(crate) fn new(failures: impl Failures) -> Self {
        Self(Some(Arc::new(failures)))
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn is_failure(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match &self.0 {
            Some(failures) => failures.is_failure(status, headers),
            None => DefaultFailures.is_failure(status, headers),
        }
    }

    /// Whether a response is a failure, or was made by a layer here because there is no response.
    pub(crate) fn has_failed<B>(&self, response: &Response<B>) -> bool {
        response.extensions().get::<Refused>().is_some()
            || self.is_failure(response.status(), response.headers())
    }

    /// Whether a response says nothing about what was asked for: a failure, and any other 5xx that
    /// only says that the origin could not respond.
    pub(crate) fn is_breakdown(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        is_breakdown(status) || self.is_failure(status, headers)
    }
}

impl fmt::Debug for FailurePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_given() { "Failures(custom)" } else { "Failures(default)" })
    }
}
