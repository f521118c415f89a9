//! How the client's own preconditions and ranges change a response (RFC 9110 §13, §14).

use http::{HeaderMap, Method, Response, StatusCode};

use super::{refresh::Completion, select::Question};
use crate::{
    body::{Body, ResponseBody},
    exchange::status::CacheStatus,
    http::{
        conditions::{Precondition, apply_range, cut_to_range, evaluate, make_failed, make_not_modified},
        response_fields,
    },
    store::{Part, StoredResponse},
};

/// Returns a response from the store.
pub(super) fn from_store<B>(
    stored: &StoredResponse,
    question: &Question<'_>,
    status: CacheStatus,
) -> Response<Body<B>> {
    let Question { head, fields, now, .. } = *question;
    let mut response = status.serve(stored.to_hit(head.method == Method::HEAD, now, |body| body));
    if fields.has_precondition {
        apply_preconditions(&head.headers, &mut response);
    }
    if fields.has_range {
        apply_range(&head.method, &head.headers, &mut response, stored.body());
    }
    question.finish(response, status, Some(stored))
}

/// Returns a response from the store, which has only a part of it.
pub(super) fn from_part<B>(part: &Part, question: &Question<'_>, status: CacheStatus) -> Response<Body<B>> {
    let Question { head, now, .. } = *question;
    let mut response = status.serve(part.to_hit(&head.headers, now));
    apply_preconditions(&head.headers, &mut response);
    question.finish(response, status, Some(part.response()))
}

/// Returns what this client gets of a response that the layers below gave on behalf of all clients. What
/// the client leaves of the body is read by `completion`, if there is one.
pub(super) fn from_below<B>(
    method: &Method,
    conditions: &HeaderMap,
    mut response: Response<B>,
    completion: Option<Completion>,
) -> Response<Body<B>>
where
    B: ResponseBody,
{
    let from_origin = response.status();
    response_fields::settle_length(&mut response);
    let length = response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let part = match length {
        Some(length) if evaluate(conditions, response.headers()) == Precondition::Holds => {
            cut_to_range(method, conditions, &mut response, length)
        }
        _ => None,
    };
    let complete = |unread| _ = completion.map(|completion| completion.run(unread));
    let mut response = match part {
        Some(part) if !part.is_empty() => response.map(|body| Body::part(body, &part, complete)),
        Some(_) => response.map(|body| {
            complete(Box::pin(body));
            Body::default()
        }),
        None => {
            let mut response = response.map(Some);
            if let Some(body) = apply_preconditions(conditions, &mut response).flatten() {
                complete(Box::pin(body));
            }
            response.map(|body| body.map(Body::inner).unwrap_or_default())
        }
    };
    note_status(&mut response, from_origin);
    response
}

/// Says which status the layers below responded with, if the client gets another one.
fn note_status<B>(response: &mut Response<B>, from_below: StatusCode) {
    let sent = response.status();
    let said = CacheStatus::of(response);
    if let Some(said) = said.filter(|_| sent != from_below) {
        said.answered(from_below, sent).mark(response);
    }
}

/// Preconditions count only for what would be a success without them (§13.2.1). Returns the body that the
/// client does not get because of them.
fn apply_preconditions<B: Default>(conditions: &HeaderMap, response: &mut Response<B>) -> Option<B> {
    if !response.status().is_success() {
        return None;
    }
    match evaluate(conditions, response.headers()) {
        Precondition::Holds => return None,
        Precondition::NotModified => make_not_modified(response),
        Precondition::Failed => make_failed(response, StatusCode::PRECONDITION_FAILED),
    }
    Some(std::mem::take(response.body_mut()))
}
