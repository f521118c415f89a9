//! Requests whose response depends on their body.
#![cfg_attr(not(feature = "body-key"), allow(dead_code, reason = "only bodies for keys are read here"))]

use std::{any::Any, fmt};

use bytes::Bytes;
use http::{Extensions, Method, request::Parts};
use http_body::Body as HttpBody;

use crate::{http::storing::RequestKind, request_body::RequestBody};

/// Request extension from [`BodyKey`](crate::BodyKey) alone: a rule declares the request a read, whatever its
/// method.
#[derive(Clone, Debug)]
pub(crate) struct ReadByRule {
    /// `None` if the body is not in the key, as it is too large or for another reason.
    content: Option<Content>,
}

/// The whole body of a request, and how to make a copy of it.
#[derive(Clone)]
struct Content {
    bytes: Bytes,
    /// Knows the type of the body, which cannot be in the extensions.
    fill: fn(&mut dyn Any, &Bytes) -> bool,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Content").field(&self.bytes.len()).finish()
    }
}

impl ReadByRule {
    pub(crate) const WITHOUT_KEY: Self = Self { content: None };

    /// For a request with this body, which is sent as a `RequestBody<B>`.
    pub(crate) fn with_content<B: HttpBody + 'static>(bytes: Bytes) -> Self {
        Self { content: Some(Content { bytes, fill: fill::<B> }) }
    }
}

fn fill<B: HttpBody + 'static>(body: &mut dyn Any, bytes: &Bytes) -> bool {
    let body = body.downcast_mut::<RequestBody<B>>();
    body.map(|body| *body = RequestBody::from(bytes.clone())).is_some()
}

/// Whether a rule declares the request a read.
pub(crate) fn is_read_by_rule(extensions: &Extensions) -> bool {
    extensions.get::<ReadByRule>().is_some()
}

fn content(extensions: &Extensions) -> Option<&Content> {
    extensions.get::<ReadByRule>()?.content.as_ref()
}

/// Whether the key of a request holds its body.
pub(crate) fn has_content(extensions: &Extensions) -> bool {
    content(extensions).is_some()
}

/// The kind of a request that may have a key.
pub(crate) fn kind_of(head: &Parts) -> RequestKind {
    match head.method {
        _ if has_content(&head.extensions) => RequestKind::ReadByBody,
        Method::GET => RequestKind::Get,
        _ => RequestKind::Head,
    }
}

/// A copy of the body of a request: an empty one, or the one in its key. `None` if the body is unknown, or if
/// a layer in between changed its type: an empty body would make another request.
pub(crate) fn copy_of_body<ReqB>(body: &ReqB, extensions: &Extensions) -> Option<ReqB>
where
    ReqB: HttpBody + Default + 'static,
{
    if body.is_end_stream() {
        return Some(ReqB::default());
    }
    let content = content(extensions)?;
    let mut body = ReqB::default();
    (content.fill)(&mut body, &content.bytes).then_some(body)
}
