//! What became of a fetch, apart from its body.

use std::{any::Any, sync::Arc};

use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use http_body::Body as HttpBody;

use crate::{
    body::Body,
    exchange::{
        Refused, Verdict,
        status::{CacheStatus, Forward},
    },
    http::storing,
};

#[derive(Debug)]
pub(super) enum FetchOutcome {
    Head(Box<SharedHead>),
    /// The service's own error, of whatever type it is.
    Error(Arc<dyn Any + Send + Sync>),
    /// The fetch panicked or was dropped.
    Aborted,
}

impl FetchOutcome {
    pub(super) fn head(&self) -> Option<&SharedHead> {
        match self {
            Self::Head(head) => Some(head),
            Self::Error(_) | Self::Aborted => None,
        }
    }

    /// Whether there is no body to be read by any caller but the leader.
    pub(super) fn has_no_body(&self) -> bool {
        self.head().is_none_or(|head| matches!(head.verdict, Verdict::Unshareable(_)))
    }
}

/// The head of a response, as all callers but the leader get it.
#[derive(Debug)]
pub(super) struct SharedHead {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    verdict: Verdict,
    /// How the response came about, if its fields do not say so, or will not when some of them are gone.
    came_about: Option<CacheStatus>,
    /// The size of the body, if it is known.
    size: Option<u64>,
    /// Set if a layer below refused the request, which then is not at fault.
    refused: Option<Refused>,
}

impl SharedHead {
    /// The head of `response`, with the fields for all callers instead of its own.
    pub(super) fn new<B: HttpBody>(
        response: &Response<B>,
        headers: HeaderMap,
        came_about: Option<CacheStatus>,
        verdict: Verdict,
    ) -> Self {
        let size = response.body().size_hint().exact();
        let refused = response.extensions().get().copied();
        let (status, version) = (response.status(), response.version());
        Self { status, version, headers, verdict, came_about, size, refused }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.headers)
    }

    pub(super) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    pub(super) fn came_about(&self) -> Option<CacheStatus> {
        self.came_about
    }

    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Whether a layer below refused the request.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Whether the response is an error that may be the fault of the one request that was sent.
    pub(super) fn is_error(&self) -> bool {
        storing::is_error(self.status)
    }

    /// The response for a caller other than the leader.
    pub(super) fn to_response<B>(&self, body: Body<B>) -> Response<Body<B>> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.version_mut() = self.version;
        *response.headers_mut() = self.headers.clone();
        self.update_age(response.headers_mut());
        if let Some(came_about) = self.came_about
            && CacheStatus::of(&response).is_none()
        {
            // As in the leader's response: what follows takes its place.
            response.extensions_mut().insert(came_about);
        }
        self.mark(&mut response);
        response
    }

    /// The response where fields and body are for another client: the status, and when to come back.
    pub(super) fn to_bare_response<B>(&self) -> Response<Body<B>> {
        let mut response = Response::new(Body::default());
        *response.status_mut() = self.status;
        if let Some(retry_after) = self.headers.get(header::RETRY_AFTER) {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after.clone());
        }
        self.mark(&mut response);
        response
    }

    /// A caller that joins while a slow body comes in gets a response that is older by then.
    fn update_age(&self, headers: &mut HeaderMap) {
        let received_at = match self.verdict {
            Verdict::Shareable { received_at, .. } | Verdict::Failed { received_at, .. } => received_at,
            Verdict::Unshareable(_) => return,
        };
        let waited = received_at.elapsed().as_secs();
        if waited > 0 {
            let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()?.parse().ok());
            let age = HeaderValue::from(age.unwrap_or(0_u64).saturating_add(waited));
            headers.insert(header::AGE, age);
        }
    }

    fn mark<B>(&self, response: &mut Response<Body<B>>) {
        if let Some(refused) = self.refused {
            response.extensions_mut().insert(refused);
        }
        let shown = || CacheStatus::shown(&self.headers);
        let status = self.came_about.or_else(shown).unwrap_or(CacheStatus::forwarded(Forward::Miss));
        status.collapsed().mark(response);
    }
}
