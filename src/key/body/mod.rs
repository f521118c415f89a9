//! Keys that hold a digest of the request body.

mod graphql;
mod json;
mod read;
mod reading;

use bytes::Bytes;
use http::{Request, request::Parts};
use http_body::Body as HttpBody;

use self::read::{Body, read};
pub(super) use self::{
    graphql::Persisted,
    json::{Action, JsonShape, parse_pointer},
    reading::{Form, Reading},
};
use super::{ReadByRule, method_field::is_in_body, rules::BodyRule};
use crate::{http::response_fields::content_length, request_body::RequestBody};

/// Reads a body, and returns the request with its key, if the body is one that a key can hold.
pub(crate) async fn with_body_key<B>(mut head: Parts, body: B, rule: BodyRule) -> Request<RequestBody<B>>
where
    B: HttpBody<Data = Bytes> + 'static,
{
    let (max_bytes, reading) = (rule.max_bytes(), rule.reading());
    let reading = reading.as_deref();
    // Where the body has to say that it is a read, those that are not looked into are not known to be one.
    let is_any_read = reading.is_none_or(|reading| reading.graphql.is_none());
    let without_key = |head: &mut Parts| {
        is_any_read.then(|| head.extensions.insert(ReadByRule::WITHOUT_KEY));
    };
    let Some(key) = rule.into_key().filter(|_| !is_declared_beyond(&head, max_bytes)) else {
        without_key(&mut head);
        return Request::from_parts(head, RequestBody::new(body));
    };
    let is_read = |head: &Parts, bytes: &Bytes| reading.is_none_or(|reading| reading.is_read(head, bytes));
    let body = match read(body, max_bytes).await {
        // Frameworks take it for another method than its own, or it may be a mutation.
        Body::Whole(bytes) if is_in_body(&bytes) || !is_read(&head, &bytes) => RequestBody::from(bytes),
        Body::Whole(bytes) if is_as_declared(&head, &bytes) => {
            let form = reading.map_or_else(|| Form::of_bytes(&bytes), |reading| reading.form(&head, &bytes));
            key.give_key(&mut head, &form);
            form.tell_length(&mut head.headers);
            head.extensions.insert(ReadByRule::with_content::<B>(form.sent.clone()));
            RequestBody::from(form.sent)
        }
        Body::Whole(bytes) => {
            without_key(&mut head);
            RequestBody::from(bytes)
        }
        Body::Begun(begun) => {
            without_key(&mut head);
            RequestBody::begun(begun)
        }
    };
    Request::from_parts(head, body)
}

fn is_declared_beyond(head: &Parts, max_bytes: usize) -> bool {
    content_length(&head.headers).is_ok_and(|length| length.is_some_and(|length| length > max_bytes as u64))
}

/// Whether the body has the length that its head declares. A shorter one has been cut off.
fn is_as_declared(head: &Parts, body: &Bytes) -> bool {
    content_length(&head.headers).is_ok_and(|length| length.is_none_or(|length| length == body.len() as u64))
}
