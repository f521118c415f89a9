//! What the client's own preconditions and ranges make of an answer (RFC 9110 §13, §14).

use http::{HeaderMap, Method, Response, StatusCode, header, request::Parts};
use tokio::time::Instant;

use crate::{
    body::Body,
    http::{
        conditions::{Precondition, evaluate, make_not_modified},
        range,
    },
    status::CacheStatus,
    store::StoredResponse,
};

/// An answer out of the store.
pub(super) fn from_store<B>(
    stored: &StoredResponse,
    head: &Parts,
    status: CacheStatus,
    now: Instant,
) -> Response<Body<B>> {
    let mut response = stored.to_response(head.method == Method::HEAD, now, status);
    apply_preconditions(&head.headers, &mut response);
    range::apply(&head.method, &head.headers, &mut response, stored.body());
    response
}

/// They count only for what would be a success without them (§13.2.1). Returns the body that the
/// client does not get because of them.
pub(super) fn apply_preconditions<B>(
    conditions: &HeaderMap,
    response: &mut Response<Body<B>>,
) -> Option<Body<B>> {
    if !response.status().is_success() {
        return None;
    }
    let mut status = response.status();
    match evaluate(conditions, response.headers()) {
        Precondition::Holds => return None,
        Precondition::NotModified => make_not_modified(&mut status, response.headers_mut()),
        Precondition::Failed => {
            make_not_modified(&mut status, response.headers_mut());
            status = StatusCode::PRECONDITION_FAILED;
            response.headers_mut().insert(header::CONTENT_LENGTH, 0.into());
        }
    }
    *response.status_mut() = status;
    Some(std::mem::take(response.body_mut()))
}
