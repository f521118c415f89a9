use std::{sync::Arc, time::Duration};

use http::Response;
use tokio::sync::Semaphore;

use crate::{
    exchange::{Observers, status::CacheStatus},
    executor::Executor,
    http::rules::RequestRules,
};

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) refresh_deadline: Duration,
    pub(super) refresh_pause: Duration,
    pub(super) refreshes: Arc<Semaphore>,
    pub(super) executor: Executor,
    pub(super) shows_status: bool,
    pub(super) observers: Observers,
    pub(super) follows_requests: bool,
    pub(super) fetches_whole: bool,
    pub(super) request: RequestRules,
}

/// Refreshes under way at a time.
const MAX_REFRESHES: usize = 1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            refresh_deadline: Duration::from_secs(30),
            refresh_pause: Duration::from_secs(1),
            refreshes: Arc::new(Semaphore::new(MAX_REFRESHES)),
            executor: Executor::default(),
            shows_status: true,
            observers: Observers::NONE,
            follows_requests: false,
            fetches_whole: false,
            request: RequestRules::default(),
        }
    }
}

impl Settings {
    /// Whether [`finish`](Self::finish) does nothing.
    #[inline]
    pub(super) fn leaves_responses(&self) -> bool {
        self.shows_status & self.observers.is_empty()
    }

    /// Finishes a response that leaves the cache: observers are told, and clients see what they are to see.
    /// `came_about` is how it came about, unless it says so itself.
    pub(super) fn finish<B>(&self, mut response: Response<B>, came_about: CacheStatus) -> Response<B> {
        self.observers.finish(&response, came_about);
        if !self.shows_status {
            CacheStatus::hide(&mut response);
        }
        response
    }
}
