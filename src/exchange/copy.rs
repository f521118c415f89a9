//! A copy of a request's head, for layers that may have to send the request again.

use std::sync::Arc;

use http::{Extensions, HeaderMap, Request, request::Parts};

use crate::{
    exchange::CacheRequest,
    http::request_fields::RequestFields,
    store::{Headers, RequestHeaders},
};

/// What one layer keeps of a request, for itself and for the layers below it: in the [`CacheRequest`]
/// that goes down with the request.
#[derive(Debug)]
pub(crate) struct RequestCopy {
    head: Parts,
    asked: CacheRequest,
}

impl RequestCopy {
    /// `head` may go without its extensions.
    pub(crate) fn new(head: Parts, asked: CacheRequest) -> Arc<Self> {
        Arc::new(Self { head, asked })
    }

    pub(crate) const fn head(&self) -> &Parts {
        &self.head
    }

    pub(crate) const fn asked(&self) -> &CacheRequest {
        &self.asked
    }

    /// The header fields of the request, for a change to the store.
    pub(crate) fn to_headers(self: &Arc<Self>) -> RequestHeaders {
        RequestHeaders::shared(Arc::clone(self))
    }

    /// Lets the layers below know of the copy. It says what `request` asks of the cache, if that is there.
    pub(crate) fn attach(self: &Arc<Self>, request: &mut Extensions) {
        if let Some(asked) = request.get_mut::<CacheRequest>() {
            asked.keep_copy(Arc::clone(self));
        }
    }

    /// The copy that came down with a request, if no layer on the way has changed the request since.
    ///
    /// Compared field by field in their order: cheaper than a second copy, and a difference that is none
    /// only costs that.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<&Arc<Self>> {
        let copy = request.extensions().get::<CacheRequest>()?.copy()?;
        let Parts { method, uri, version, headers, .. } = &copy.head;
        let is_same = method == request.method()
            && *version == request.version()
            && headers.len() == request.headers().len()
            && uri == request.uri()
            && headers.iter().eq(request.headers());
        is_same.then_some(copy)
    }

    /// The head once more, with these extensions. Without any, with what it asks of the cache alone.
    pub(crate) fn to_head(self: &Arc<Self>, extensions: Option<&Extensions>) -> Parts {
        let mut head = without_extensions(&self.head);
        match extensions {
            Some(extensions) => head.extensions.clone_from(extensions),
            None => {
                let mut asked = self.asked.clone();
                asked.keep_copy(Arc::clone(self));
                head.extensions.insert(asked);
            }
        }
        head
    }
}

impl Headers for RequestCopy {
    fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    fn fields(&self) -> RequestFields<'_> {
        self.asked.fields(&self.head.headers)
    }
}

/// A copy of a request's head without its extensions, each of which would have to be boxed again.
pub(crate) fn without_extensions(head: &Parts) -> Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method.clone_from(&head.method);
    copy.uri.clone_from(&head.uri);
    copy.version = head.version;
    copy.headers.clone_from(&head.headers);
    copy
}

/// A copy of a request's head, whatever its body.
pub(crate) fn head_of<B>(request: &Request<B>) -> Request<()> {
    let mut copy = Request::new(());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().clone_from(request.extensions());
    copy
}
