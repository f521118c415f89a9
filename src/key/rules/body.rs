//! Rules for requests that are reads although they have a body.

use std::sync::LazyLock;

#[cfg(feature = "body-key")]
use http::header;
use http::{HeaderName, Method, request::Parts};

use super::{KeyRule, error::Problem};
#[cfg(feature = "body-key")]
use crate::key::has_content;

/// The largest body, in bytes, that a key can be made of.
const MAX_BODY: usize = 1 << 20;

/// The fields that decide how a body is read.
#[cfg(feature = "body-key")]
pub(super) const CONTENT_FIELDS: [HeaderName; 3] =
    [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE];
#[cfg(not(feature = "body-key"))]
pub(super) const CONTENT_FIELDS: [HeaderName; 0] = [];

/// The method that rules see for a GET with a body: rules for GET with a body and rules for GET without one are
/// never for the same request.
static GET_WITH_BODY: LazyLock<Method> =
    LazyLock::new(|| Method::from_bytes(b"GET+BODY").unwrap_or(Method::GET));

/// The method by which rules are found for a request.
pub(super) fn method_of(head: &Parts) -> &Method {
    #[cfg(feature = "body-key")]
    return method_with(head, has_content(&head.extensions));
    #[cfg(not(feature = "body-key"))]
    &head.method
}

/// The method by which rules are found for a request with or without a body.
#[cfg(feature = "body-key")]
pub(super) fn method_with(head: &Parts, has_body: bool) -> &Method {
    match head.method == Method::GET && has_body {
        true => &GET_WITH_BODY,
        false => &head.method,
    }
}

/// Whether rules that bypass GET also bypass this method.
pub(super) fn is_get_with_body(method: &Method) -> bool {
    cfg!(feature = "body-key") && *method == *GET_WITH_BODY
}

/// A method of requests that can be reads with a body.
pub(super) fn parse_read(text: &str) -> Result<Method, Problem> {
    match text {
        "GET" => Ok(GET_WITH_BODY.clone()),
        "POST" => Ok(Method::POST),
        "QUERY" => Method::from_bytes(b"QUERY").map_err(|_| Problem::BodyMethod(text.into())),
        other => Err(Problem::BodyMethod(other.into())),
    }
}

impl KeyRule {
    pub(super) fn check_body(&self, has_path_gaps: bool) -> Result<(), Problem> {
        let Some(max_bytes) = self.body else { return Ok(()) };
        if max_bytes == 0 {
            return Err(Problem::Zero { setting: "body", consequence: "no body is short enough for a key" });
        }
        if max_bytes > MAX_BODY {
            return Err(Problem::BodyBound { max_bytes, limit: MAX_BODY });
        }
        if self.methods.is_empty() {
            return Err(Problem::BodyMethods);
        }
        match has_path_gaps || self.no_vary_search {
            true => Err(Problem::BodyUri),
            false => Ok(()),
        }
    }
}
