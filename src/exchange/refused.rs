//! Responses of the cache itself, with which it refuses a request.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    body::Body,
    exchange::status::{CacheStatus, NAME, Stale},
    origin::HeldBack,
    reasons::reasons,
};

/// The response field of RFC 9209.
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

reasons! {
    /// Why a layer refused a request: in the extensions of the response, which is one of the cache itself.
    /// `Proxy-Status` says it to clients, by the [error types](Self::proxy_error) of RFC 9209.
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
        /// [`OriginLimit`](crate::OriginLimit): the [origin](crate::OriginHealth) is recovering, and gets no more
        /// than it bears of what can do without it: what has something stale, and the [warm-up](crate::warm_up).
        OriginRecovering => "origin-recovering", BeforeFetch;
        /// [`OriginLimit`](crate::OriginLimit): the [origin](crate::OriginHealth) said that it gets too many requests
        /// (429), and the request can do without it, as above.
        OriginBusy => "origin-busy", BeforeFetch;
        /// [`OriginLimit`](crate::OriginLimit): no response within the time that an attempt has while the
        /// [origin](crate::OriginHealth) is down and nothing is stored.
        AttemptTimeout => "attempt-timeout", WithHead;
        /// [`Lookup`](crate::Lookup): nothing usable is stored, and the client wants nothing else
        /// (`only-if-cached`, RFC 9111 §5.2.1.7).
        NotStored => "not-stored", BeforeFetch;
    }
}

impl From<HeldBack> for Refused {
    fn from(why: HeldBack) -> Self {
        match why {
            HeldBack::Down => Self::OriginDown,
            HeldBack::Recovering => Self::OriginRecovering,
            HeldBack::RateLimited => Self::OriginBusy,
        }
    }
}

/// How a stale response came about that is served with this status instead of a failure: as a hit
/// only if the origin was not asked (RFC 9211 §2.2).
pub(crate) fn served_instead<B>(
    why: CacheStatus,
    failure: Option<&Response<B>>,
    sent: StatusCode,
) -> CacheStatus {
    let Some(failure) = failure else { return why.rescued(Stale::IfError) };
    let said = CacheStatus::of(failure);
    let why = said.map_or(why, |said| why.knowing(said));
    let refused = failure.extensions().get::<Refused>();
    if let Some(held_back) = refused.and_then(|refused| refused.held_back()) {
        return why.served_stale(held_back);
    }
    match refused {
        Some(refused) if refused.is_before_origin() => why.served_stale(Stale::IfError),
        Some(Refused::WaitTimeout) => why.rescued(Stale::OriginSlow),
        // A response of a layer here says nothing of the origin's status.
        Some(_) => why.rescued(Stale::IfError),
        None => {
            let from_origin = said.and_then(|said| said.forward_status()).unwrap_or(failure.status());
            why.rescued(Stale::IfError).answered(from_origin, sent)
        }
    }
}

impl Refused {
    /// Whether the request was refused before it was sent to the origin, or before it joined another one.
    pub(crate) const fn is_before_origin(self) -> bool {
        matches!(
            self,
            Self::QueueFull
                | Self::QueueTimeout
                | Self::TooManyWaiters
                | Self::OriginDown
                | Self::OriginRecovering
                | Self::OriginBusy
                | Self::NotStored
        )
    }

    /// Why something stale is served instead, if the cache decided not to ask the origin.
    pub(crate) const fn held_back(self) -> Option<Stale> {
        match self {
            Self::OriginDown => Some(Stale::OriginDown),
            Self::OriginRecovering => Some(Stale::OriginRecovering),
            Self::OriginBusy => Some(Stale::OriginBusy),
            _ => None,
        }
    }

    /// Whether the caller has left a fetch that goes on for others.
    pub(crate) const fn leaves_fetch(self) -> bool {
        matches!(self, Self::TooManyWaiters | Self::WaitTimeout)
    }

    /// Returns the error type of RFC 9209 §2.3 that `Proxy-Status` names.
    pub const fn proxy_error(self) -> &'static str {
        match self {
            Self::QueueFull | Self::QueueTimeout | Self::OriginBusy => "connection_limit_reached",
            Self::OriginDown | Self::OriginRecovering => "destination_unavailable",
            Self::WaitTimeout | Self::FetchTimeout | Self::AttemptTimeout => "http_response_timeout",
            Self::FetchAborted => "proxy_internal_error",
            // The origin is not asked for this one.
            Self::TooManyWaiters | Self::NotStored => "proxy_internal_response",
        }
    }

    /// Says so in `Proxy-Status` (RFC 9209).
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        let value = format!("{NAME};error={};details=\"{self}\"", self.proxy_error());
        HeaderValue::try_from(value).into_iter().for_each(|value| _ = headers.insert(PROXY_STATUS, value));
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
        self.tell(response.headers_mut());
        response.extensions_mut().insert(self);
        why.refused(self).mark(&mut response);
        response
    }
}

/// Says in `Proxy-Status` that the response of the origin makes no sense as one to the request (RFC 9209 §2.3.20).
pub(crate) fn tell_protocol_error(headers: &mut HeaderMap) {
    headers.insert(PROXY_STATUS, HeaderValue::from_static("tower-readthrough;error=http_protocol_error"));
}

/// What this cache has said in `Proxy-Status`, under its usual name: in a response that it has made itself, in
/// which no other intermediary has said anything (RFC 9209 §2).
fn own_proxy_status<B>(response: &Response<B>, status: CacheStatus) -> Option<&str> {
    let is_refusal = || response.extensions().get::<Refused>().is_some();
    // As `tell_protocol_error` has it.
    let is_senseless = || {
        (status.forward_status(), response.status())
            == (Some(StatusCode::NOT_MODIFIED), StatusCode::BAD_GATEWAY)
    };
    let said = response.headers().get(PROXY_STATUS).filter(|_| is_refusal() || is_senseless());
    said?.to_str().ok()?.strip_prefix(NAME)
}

/// Says the same under another name of the cache.
pub(super) fn rename_proxy_status<B>(response: &mut Response<B>, status: CacheStatus, name: &str) {
    let renamed = own_proxy_status(response, status)
        .and_then(|rest| HeaderValue::try_from(format!("{name}{rest}")).ok());
    renamed.into_iter().for_each(|value| _ = response.headers_mut().insert(PROXY_STATUS, value));
}

/// Does not say it.
pub(super) fn hide_proxy_status<B>(response: &mut Response<B>, status: CacheStatus) {
    if own_proxy_status(response, status).is_some() {
        response.headers_mut().remove(PROXY_STATUS);
    }
}
