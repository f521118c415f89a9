//! What is kept of a request that may be sent again.

use std::sync::Arc;

use http::{Extensions, Request};
use http_body::Body as HttpBody;

use crate::{
    exchange::{RequestCopy, head_of},
    key,
};

/// Whether sending the request twice does no more than sending it once.
pub(crate) fn may_be_repeated<ReqB>(request: &Request<ReqB>) -> bool {
    request.method().is_idempotent() || key::has_content(request.extensions())
}

/// A request that may be sent again.
pub(crate) struct KeptRequest<ReqB> {
    head: KeptHead,
    body: KeptBody<ReqB>,
}

enum KeptHead {
    /// A layer above keeps it. With the extensions, if there are others than what is asked of the cache.
    Shared(Arc<RequestCopy>, Option<Extensions>),
    Own(Box<Request<()>>),
}

/// The body of a request that may be sent again.
pub(crate) enum KeptBody<ReqB> {
    Empty,
    /// Of a request that is keyed by it.
    Read(ReqB),
}

impl KeptHead {
    fn of<ReqB>(request: &Request<ReqB>) -> Self {
        match RequestCopy::of(request) {
            Some(copy) => {
                let extensions = request.extensions();
                Self::Shared(Arc::clone(copy), (extensions.len() > 1).then(|| extensions.clone()))
            }
            None => Self::Own(Box::new(head_of(request))),
        }
    }

    fn to_request(&self) -> Request<()> {
        match self {
            Self::Shared(copy, extensions) => Request::from_parts(copy.to_head(extensions.as_ref()), ()),
            Self::Own(head) => (**head).clone(),
        }
    }
}

impl<ReqB> KeptBody<ReqB>
where
    ReqB: HttpBody + Default + 'static,
{
    /// `None` if the request may not be repeated.
    pub(crate) fn of(request: &Request<ReqB>) -> Option<Self> {
        if !may_be_repeated(request) {
            return None;
        }
        match request.body().is_end_stream() {
            true => Some(Self::Empty),
            false => key::copy_of_body(request.body(), request.extensions()).map(Self::Read),
        }
    }

    /// With the head of the request, which is copied only if no layer above has done so.
    pub(crate) fn with_head_of(self, request: &Request<ReqB>) -> KeptRequest<ReqB> {
        KeptRequest { head: KeptHead::of(request), body: self }
    }
}

impl<ReqB> KeptRequest<ReqB>
where
    ReqB: HttpBody + Default + 'static,
{
    /// The request once more.
    pub(crate) fn to_request(&self) -> Option<Request<ReqB>> {
        let head = self.head.to_request();
        let body = match &self.body {
            KeptBody::Empty => ReqB::default(),
            KeptBody::Read(body) => key::copy_of_body(body, head.extensions())?,
        };
        Some(head.map(|()| body))
    }
}
