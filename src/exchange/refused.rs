//! Responses of the cache itself, with which it refuses a request.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};

use crate::{body::Body, exchange::status::CacheStatus, reasons::reasons};

reasons! {
    /// Why a layer refused a request: in the extensions of the response, which is one of the cache itself.
    ///
    /// [`RetryPolicy`](crate::RetryPolicy) does not try again what was refused, and
    /// [`StaleIfError`](crate::StaleIfError) serves a stale response instead where there is one.
    pub enum Refused {
        /// [`OriginLimit`](crate::OriginLimit): the queue to the origin was full.
        QueueFull => "queue-full", BeforeFetch;
        /// [`OriginLimit`](crate::OriginLimit): the request waited in the queue for too long.
        QueueTimeout => "queue-timeout", BeforeFetch;
        /// [`Coalesce`](crate::Coalesce): too many callers of this fetch already.
        TooManyWaiters => "too-many-waiters", BeforeFetch;
        /// [`Coalesce`](crate::Coalesce): no response within the time that a caller waits
        /// ([`wait_at_most`](crate::CoalesceLayer::wait_at_most)), or within
        /// [`max_wait`](crate::CoalesceLayer::max_wait) where a stale response can be served.
        WaitTimeout => "wait-timeout", WithHead;
        /// [`Coalesce`](crate::Coalesce): the fetch panicked or was cancelled, or its response was not
        /// for this caller, and the same is true of the fetch after it.
        FetchAborted => "fetch-aborted", WithHead;
        /// [`Coalesce`](crate::Coalesce): the fetch had no response within its
        /// [`fetch_deadline`](crate::CoalesceLayer::fetch_deadline).
        FetchTimeout => "fetch-timeout", WithHead;
        /// [`OriginLimit`](crate::OriginLimit): the [origin](crate::OriginHealth) is not up, and the request
        /// is not one by which that is found out.
        OriginDown => "origin-down", BeforeFetch;
        /// [`OriginLimit`](crate::OriginLimit): no response within the time that an attempt has while the
        /// [origin](crate::OriginHealth) is down and nothing is stored.
        AttemptTimeout => "attempt-timeout", WithHead;
        /// [`Lookup`](crate::Lookup): nothing usable is stored, and the client wants nothing else
        /// (`only-if-cached`, RFC 9111 §5.2.1.7).
        NotStored => "not-stored", BeforeFetch;
    }
}

impl Refused {
    /// Whether the request was refused before it was sent to the origin, or before it joined another one.
    pub(crate) const fn is_before_origin(self) -> bool {
        matches!(
            self,
            Self::QueueFull | Self::QueueTimeout | Self::TooManyWaiters | Self::OriginDown | Self::NotStored
        )
    }

    /// The response that says so: 504 if time ran out at the origin, else 503 with `Retry-After`. A
    /// request that had been forwarded by then was so for the reason `why`.
    pub(crate) fn to_response<B>(self, retry_after: Duration, why: CacheStatus) -> Response<Body<B>> {
        let status = match self {
            Self::WaitTimeout | Self::FetchTimeout | Self::AttemptTimeout | Self::NotStored => {
                StatusCode::GATEWAY_TIMEOUT
            }
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = Response::new(Body::default());
        *response.status_mut() = status;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // Whole seconds (RFC 9110 §10.2.3), rounded up.
            let seconds = retry_after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        why.refused(self).mark(&mut response);
        response
    }
}
