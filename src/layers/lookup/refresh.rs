use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::select::{Question, Settings};
use crate::{
    exchange::{self, status::CacheStatus},
    executor::Executor,
    http::{cache_control::RequestDirectives, conditions::take_conditions, storing::after},
    key::CacheKey,
    store::{Refresh, StoredResponse},
    trace::FetchSpan,
};

/// Whether a refresh of a stale response can begin now.
pub(super) enum Refreshing {
    Begin(Refresher),
    /// Another refresh of it is under way or failed a moment ago, too many others are under way, or
    /// the request is not one that refreshes, and no probe.
    NotNow,
    /// Nothing can run in the background here.
    Impossible,
}

/// One refresh in the background: the right to do it, and its place among all others.
pub(crate) struct Refresher {
    /// `None`: a probe by a request whose response is not stored.
    right: Option<Refresh>,
    /// `None`: a probe, of which there is one at a time.
    _place: Option<OwnedSemaphorePermit>,
    deadline: Instant,
}

/// Whether the response to a request with these directives may take the place of what is stored.
///
/// That to HEAD cannot, and the service below may be one for HEAD alone, which must not be sent a GET. That to
/// `no-store` must not be stored (RFC 9111 §5.2.1.5).
pub(super) fn refreshes(head: &Parts, wishes: Option<&RequestDirectives>) -> bool {
    head.method != Method::HEAD && wishes.is_none_or(|wishes| !wishes.no_store)
}

/// Tells observers of a refresh, and how it ended when it is dropped.
struct RefreshWatch {
    observers: exchange::Observers,
    key: CacheKey,
    result: exchange::RefreshResult,
}

impl RefreshWatch {
    fn begin(observers: &exchange::Observers, key: CacheKey) -> Self {
        observers.background(exchange::BackgroundEvent::RefreshBegan(&key));
        Self { observers: observers.clone(), key, result: exchange::RefreshResult::Aborted }
    }
}

impl Drop for RefreshWatch {
    fn drop(&mut self) {
        self.observers.background(exchange::BackgroundEvent::RefreshEnded(&self.key, self.result));
    }
}

impl Refresher {
    /// `is_probe`: it is how the end of an outage is found out. Neither the pause after a failure nor refreshes that
    /// hang keep it from that, nor that the request [refreshes](refreshes) nothing.
    pub(super) fn claim(
        question: &Question<'_>,
        stored: &Arc<StoredResponse>,
        wishes: Option<&RequestDirectives>,
        is_probe: bool,
    ) -> Refreshing {
        let Question { head, settings, now, .. } = *question;
        if !Executor::is_available() {
            return Refreshing::Impossible;
        }
        let deadline = settings.refresh_deadline;
        if !refreshes(head, wishes) {
            let deadline = after(now, deadline);
            let begun = || Refreshing::Begin(Self { right: None, _place: None, deadline });
            return if is_probe { begun() } else { Refreshing::NotNow };
        }
        let place = Arc::clone(&settings.refreshes).try_acquire_owned().ok();
        if place.is_none() && !is_probe {
            return Refreshing::NotNow;
        }
        match Refresh::claim(stored, now, deadline, settings.health.key_pause(), is_probe) {
            Some(right) => {
                Refreshing::Begin(Self { right: Some(right), _place: place, deadline: after(now, deadline) })
            }
            None => Refreshing::NotNow,
        }
    }

    /// For a response that is still fresh. `None`: it is served without a refresh.
    pub(super) fn claim_ahead(
        question: &Question<'_>,
        stored: &Arc<StoredResponse>,
        wishes: Option<&RequestDirectives>,
    ) -> Option<Self> {
        if !question.settings.health.is_up(question.head) {
            return None;
        }
        match Self::claim(question, stored, wishes, false) {
            Refreshing::Begin(refresher) => Some(refresher),
            Refreshing::NotNow | Refreshing::Impossible => None,
        }
    }

    /// The client's request as the refresh, with all its extensions.
    pub(super) fn request<ReqB>(
        &self,
        mut head: Parts,
        body: ReqB,
        asked: exchange::CacheRequest,
    ) -> Request<ReqB> {
        take_conditions(&mut head.headers);
        let purpose = match asked.purpose() {
            exchange::Purpose::RefreshAhead => exchange::Purpose::RefreshAhead,
            _ => exchange::Purpose::Refresh,
        };
        let mut asked = asked.for_purpose(purpose).without_conditions();
        if self.right.is_none() {
            asked = asked.private();
        }
        asked.end_at(self.deadline);
        head.extensions.insert(asked);
        Request::from_parts(head, body)
    }

    /// Lets the refresh go on by itself. The body of the response is read to its end, so that it can
    /// be stored, but no further than the store's `limit`.
    pub(super) fn spawn<B, E>(
        mut self,
        settings: &Settings,
        (key, limit): (CacheKey, usize),
        response: impl Future<Output = Result<Response<B>, E>> + Send + 'static,
    ) where
        E: Send,
        B: HttpBody<Data = Bytes> + Send + 'static,
    {
        let mut watch = RefreshWatch::begin(&settings.observers, key);
        settings.executor.spawn(Box::pin(FetchSpan::of_refresh().around(async move {
            let right = &mut self.right;
            let fetch = async {
                let Ok(response) = response.await else { return exchange::RefreshResult::Failed };
                let status = response.status();
                if response.extensions().get::<exchange::Refused>().is_none() {
                    right.iter_mut().for_each(Refresh::note_response);
                }
                read_at_most(limit, response.into_body()).await;
                exchange::RefreshResult::Responded(status)
            };
            let result = tokio::time::timeout_at(self.deadline, fetch).await;
            watch.result = result.unwrap_or(exchange::RefreshResult::TimedOut);
            drop((self, watch));
        })));
    }
}

/// What is longer is not stored anyway.
async fn read_at_most(limit: usize, body: impl HttpBody<Data = Bytes>) {
    let mut body = pin!(body);
    let mut length = 0_usize;
    while length <= limit
        && let Some(Ok(frame)) = body.frame().await
    {
        length = length.saturating_add(frame.data_ref().map_or(0, Bytes::len));
    }
}

impl Settings {
    /// What reads to its end the body of a response that is to be stored, if the client does not. Else
    /// clients that have it already, or want a part of it, would keep it out of the store.
    pub(super) fn completion<B>(&self, response: &Response<B>, limit: usize) -> Option<Completion> {
        let is_stored =
            CacheStatus::of(response).is_some_and(|status| status.is_stored() && !status.is_collapsed());
        // A shared body completes itself, at the pace of its readers.
        let needs_a_reader = is_stored && !exchange::ResponseFacts::completes_itself(response.extensions());
        needs_a_reader.then(|| Completion {
            executor: self.executor.clone(),
            deadline: self.refresh_deadline,
            limit,
        })
    }
}

/// Reads the rest of a body in the background.
pub(super) struct Completion {
    executor: Executor,
    deadline: Duration,
    limit: usize,
}

impl Completion {
    /// Outside a runtime the body is dropped, and nothing is stored.
    pub(super) fn run(self, unread: impl HttpBody<Data = Bytes> + Send + 'static) {
        if Executor::is_available() {
            let reading = tokio::time::timeout(self.deadline, read_at_most(self.limit, unread));
            self.executor.spawn(Box::pin(async move { _ = reading.await }));
        }
    }
}
