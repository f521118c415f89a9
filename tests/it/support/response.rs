//! Answers of a scripted origin, in a word.

use bytes::Bytes;

use super::{Body, ScriptedResponse};

/// A 200 with this body, in one chunk whose length is not declared.
pub(crate) fn ok(body: impl Into<Bytes>) -> ScriptedResponse {
    ScriptedResponse::ok(body)
}

/// A 200 with these fields, and with any body.
pub(crate) fn response(fields: &[(&str, &str)], body: impl Into<Body>) -> ScriptedResponse {
    let response = ScriptedResponse::with_body(body);
    fields.iter().fold(response, |response, (name, value)| response.header(name, value))
}

/// A response with this status, without a body.
pub(crate) fn status(code: u16) -> ScriptedResponse {
    ok("").status(code)
}

/// The service returns [`Failure`](super::Failure) instead of a response.
pub(crate) fn error() -> ScriptedResponse {
    ScriptedResponse::error()
}

/// The future of the service panics.
pub(crate) fn panics() -> ScriptedResponse {
    ScriptedResponse::panics()
}

/// The future of the service never completes.
pub(crate) fn hangs() -> ScriptedResponse {
    ScriptedResponse::never()
}
