//! What the layers know of a request whose answer depends on its body.
#![cfg_attr(not(feature = "body-key"), allow(dead_code, reason = "only bodies for keys are read here"))]

use std::{any::Any, fmt};

use bytes::Bytes;
use http::{Extensions, Method, request::Parts};
use http_body::Body as HttpBody;

use crate::{http::storing::RequestKind, request_body::RequestBody};

/// A rule says that the request is a read, whatever its method: in its extensions, put there by
/// [`BodyKey`](crate::BodyKey). Nobody else can say so.
#[derive(Clone, Debug)]
pub(crate) struct ReadByRule {
    /// None: it is too large or otherwise not for a key, and passes as it comes.
    content: Option<Content>,
}

/// The whole body of a request, and how to make another one of it.
#[derive(Clone)]
struct Content {
    bytes: Bytes,
    /// Knows the type of the body, which the extensions of a request cannot.
    fill: fn(&mut dyn Any, &Bytes) -> bool,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Content").field(&self.bytes.len()).finish()
    }
}

impl ReadByRule {
    pub(crate) const WITHOUT_KEY: Self = Self { content: None };

    /// Of a request with this body, which is sent as a `RequestBody<B>`.
    pub(crate) fn with_content<B: HttpBody + 'static>(bytes: Bytes) -> Self {
        Self { content: Some(Content { bytes, fill: fill::<B> }) }
    }
}

fn fill<B: HttpBody + 'static>(body: &mut dyn Any, bytes: &Bytes) -> bool {
    let body = body.downcast_mut::<RequestBody<B>>();
    body.map(|body| *body = RequestBody::from(bytes.clone())).is_some()
}

/// Whether a request is a read because a rule says so.
pub(crate) fn is_read_by_rule(extensions: &Extensions) -> bool {
    extensions.get::<ReadByRule>().is_some()
}

fn content(extensions: &Extensions) -> Option<&Content> {
    extensions.get::<ReadByRule>()?.content.as_ref()
}

/// Whether all of the body of a request was read for its key.
pub(crate) fn has_content(extensions: &Extensions) -> bool {
    content(extensions).is_some()
}

/// Of a request that may have a key.
pub(crate) fn kind_of(head: &Parts) -> RequestKind {
    match head.method {
        _ if has_content(&head.extensions) => RequestKind::ReadByBody,
        Method::GET => RequestKind::Get,
        _ => RequestKind::Head,
    }
}

/// The body of a request once more: an empty one, or one that was read for its key. `None` if it is
/// not known, or if a layer between made another body of it: an empty one would be another request.
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
