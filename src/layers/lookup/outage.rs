//! Whether a stale response is served at once, and whether the origin is asked for a fresh one.
//!
//! A response in its `stale-while-revalidate` window is refreshed in the background, and for one in its
//! `stale-if-error` window the client waits for the origin. No client waits during the pause that follows a failed
//! fetch, and none while the origin is down: the stale response is served, and the probe of an origin that is down
//! goes on in the background, whatever the request: HEAD finds out that the origin is back as GET does. Where the
//! origin is up or recovers, a fetch in the background would serve one more stale response for each key, and the
//! last of them long after the outage.

use std::sync::Arc;

use super::{
    refresh::{Refresher, Refreshing},
    select::Question,
};
use crate::{
    exchange::status::Stale,
    http::cache_control::RequestDirectives,
    origin::{self, Pass},
    store::{LastFetch, StoredResponse},
};

/// What is done with a request for which a stale response may be served.
pub(super) enum Way {
    Serve(Stale),
    /// The stale response is served, and a fresh one fetched in the background.
    Refresh(Refresher, Option<Arc<Pass>>, Stale),
    /// The client waits for the origin.
    Forward(Option<Arc<Pass>>),
}

impl Way {
    /// For a response that may be served while a fresh one is fetched.
    pub(super) fn of_refreshable(
        question: &Question<'_>,
        stored: &Arc<StoredResponse>,
        wishes: Option<&RequestDirectives>,
    ) -> Self {
        let last = LastFetch::of(stored, question.now);
        let pass = match ask(question, last) {
            Answer::Serve(why) => return Self::Serve(why),
            Answer::Fetch(pass) => pass,
        };
        let why = match (&pass, last) {
            (Some(pass), _) => pass.reason().into(),
            (None, LastFetch::Succeeded) => Stale::WhileRevalidating,
            (None, LastFetch::Failed | LastFetch::Paused) => Stale::OriginFailed,
        };
        Self::refresh(question, stored, wishes, pass, why)
    }

    /// For a response that may be served if the origin fails.
    pub(super) fn of_fallback(
        question: &Question<'_>,
        stored: &Arc<StoredResponse>,
        wishes: Option<&RequestDirectives>,
    ) -> Self {
        match ask(question, LastFetch::of(stored, question.now)) {
            Answer::Serve(why) => Self::Serve(why),
            Answer::Fetch(Some(pass)) if pass.is_probe() => {
                let why = pass.reason().into();
                Self::refresh(question, stored, wishes, Some(pass), why)
            }
            Answer::Fetch(pass) => Self::Forward(pass),
        }
    }

    /// For a warm-up, which waits for the origin where a client would be served: it is there to bring what is fresh.
    pub(super) fn of_warm_up(question: &Question<'_>, stored: &Arc<StoredResponse>) -> Self {
        match ask(question, LastFetch::of(stored, question.now)) {
            Answer::Serve(why) => Self::Serve(why),
            // In a recovery it takes what the requests of clients leave.
            Answer::Fetch(pass) => Self::Forward(pass.filter(|pass| pass.is_probe())),
        }
    }

    /// Serves the response, and refreshes it if that is possible now.
    fn refresh(
        question: &Question<'_>,
        stored: &Arc<StoredResponse>,
        wishes: Option<&RequestDirectives>,
        pass: Option<Arc<Pass>>,
        why: Stale,
    ) -> Self {
        let is_probe = pass.as_ref().is_some_and(|pass| pass.is_probe());
        match Refresher::claim(question, stored, wishes, is_probe) {
            Refreshing::Begin(refresher) => Self::Refresh(refresher, pass, why),
            Refreshing::NotNow => Self::Serve(why),
            Refreshing::Impossible => Self::Forward(pass),
        }
    }
}

enum Answer {
    Serve(Stale),
    Fetch(Option<Arc<Pass>>),
}

fn ask(question: &Question<'_>, last: LastFetch) -> Answer {
    let Question { settings, head, now, .. } = *question;
    // While the origin is down the schedule of its probes decides alone.
    if last == LastFetch::Paused && !settings.health.is_down(head) {
        return Answer::Serve(Stale::OriginFailed);
    }
    match settings.health.ask_with_stale(head, now) {
        origin::Answer::Serve(why) => Answer::Serve(why.into()),
        origin::Answer::Fetch(pass) => Answer::Fetch(pass),
    }
}
