//! What the services for operators have in common: a check before everything else, refusals, and JSON.

use std::{convert::Infallible, future::Future, pin::Pin};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::Full;

use super::{Access, Authorize};

/// The future of such a service.
pub(crate) type Responding = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

/// An error response, with the reason as JSON.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    reason: String,
    field: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), field: None }
    }

    pub(crate) fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// Of another method than these (RFC 9110 §15.5.6).
    pub(crate) fn not_allowed(allowed: &'static str, reason: impl Into<String>) -> Self {
        let field = Some((header::ALLOW, HeaderValue::from_static(allowed)));
        Self { field, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, reason) }
    }

    /// Refuses a request that the check does not grant access. `forbidden`: what valid credentials do not permit.
    pub(crate) fn unless_granted(
        check: &dyn Authorize,
        head: &Parts,
        realm: &str,
        forbidden: &str,
    ) -> Result<(), Self> {
        match check.authorize(head) {
            Access::Granted => Ok(()),
            Access::Unauthenticated => {
                // RFC 9110 §11.6.1.
                let challenge = HeaderValue::try_from(format!("{} realm=\"{realm}\"", check.scheme())).ok();
                let field = challenge.map(|challenge| (header::WWW_AUTHENTICATE, challenge));
                Err(Self { field, ..Self::new(StatusCode::UNAUTHORIZED, "missing or invalid credentials") })
            }
            Access::Forbidden => {
                let reason = format!("these credentials do not permit to {forbidden}");
                Err(Self::new(StatusCode::FORBIDDEN, reason))
            }
        }
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let Self { status, reason, field } = self;
        let mut response = json(status, serde_json::json!({ "error": reason }).to_string().into_bytes());
        if let Some((name, value)) = field {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A response with this document, which is not to be stored.
pub(crate) fn json(status: StatusCode, document: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(document));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
