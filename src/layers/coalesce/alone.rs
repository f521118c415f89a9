//! The limits of a fetch that no other caller shares: those of the shared ones, as far as they can be for one that
//! ends with its caller.

use std::{future::Future, time::Duration};

use http::{Response, request::Parts};
use tokio::time::{Instant, timeout_at};

use super::{fetch, settings::CoalesceSettings};
use crate::{
    body::Body,
    exchange::{CacheRequest, KeyWatch, Refused, status::CacheStatus},
    executor::Executor,
    http::storing::after,
};

/// When such a fetch is given up, and as what.
pub(super) struct Limits {
    until: Instant,
    refused: Refused,
    /// What has to know that the fetch has failed.
    key_watch: Option<KeyWatch>,
    why: Option<CacheStatus>,
}

impl Limits {
    /// Those of a fetch that begins now, which are noted in its request. `None`: there are none.
    ///
    /// `wait_at_most`: for how long the caller waits from now on.
    pub(super) fn begin(
        head: &mut Parts,
        settings: &CoalesceSettings,
        wait_at_most: Option<Duration>,
    ) -> Option<Self> {
        let fetch_deadline = settings.fetch_deadline;
        if wait_at_most.or(fetch_deadline).is_none() || !Executor::is_available() {
            return None;
        }
        let now = Instant::now();
        let asked = head.extensions.get_mut::<CacheRequest>();
        let key_watch = asked.as_deref().and_then(CacheRequest::key_watch);
        let why = asked.as_deref().map(CacheRequest::why);
        let fetch_ends = fetch_deadline.map(|limit| after(now, limit));
        if let (Some(asked), Some(fetch_ends)) = (asked, fetch_ends) {
            asked.end_at(fetch_ends);
        }
        let wait_ends = wait_at_most.map(|limit| after(now, limit));
        // The fetch has failed only if it was over.
        let (until, refused) = match (wait_ends, fetch_ends) {
            (Some(wait), Some(fetch)) if wait < fetch => (wait, Refused::WaitTimeout),
            (Some(wait), None) => (wait, Refused::WaitTimeout),
            (_, fetch) => (fetch?, Refused::FetchTimeout),
        };
        Some(Self { until, refused, key_watch, why })
    }

    /// The response, or the refusal instead. The fetch is dropped then, with all that it holds.
    pub(super) async fn hold<B, E>(
        self,
        response: impl Future<Output = Result<Response<Body<B>>, E>>,
    ) -> Result<Response<Body<B>>, E> {
        let Self { until, refused, key_watch, why } = self;
        if let Ok(response) = timeout_at(until, response).await {
            return response;
        }
        if refused == Refused::FetchTimeout
            && let Some(watch) = key_watch
        {
            watch.note_failed_fetch(None);
        }
        Ok(fetch::refuse(refused, why))
    }
}
