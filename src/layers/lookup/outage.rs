//! Whether a stale response is served at once, and whether the origin is asked for a fresh one.
//!
//! As long as nothing has failed, a response in its `stale-while-revalidate` window is refreshed in the
//! background, and for one in its `stale-if-error` window the client waits for the origin. After a failure, and
//! while the origin is not up, no client waits: the stale response is served, and what is allowed to find out
//! whether the origin does better goes on in the background.

use std::sync::Arc;

use http::Method;

use super::{
    refresh::{Refresher, Refreshing},
    select::Question,
};
use crate::{
    exchange::status::Stale,
    origin::{Answer, Pass},
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
    pub(super) fn of_refreshable(question: &Question<'_>, stored: &Arc<StoredResponse>) -> Self {
        let pass = match ask(question) {
            Answer::Serve(why) => return Self::Serve(why.into()),
            Answer::Fetch(pass) => pass,
        };
        let why = match (&pass, LastFetch::of(stored, question.now)) {
            (Some(pass), _) => pass.reason().into(),
            (None, LastFetch::Succeeded) => Stale::WhileRevalidating,
            (None, LastFetch::Failed | LastFetch::Paused) => Stale::OriginFailed,
        };
        Self::refresh(question, stored, pass, why)
    }

    /// For a response that may be served if the origin fails.
    pub(super) fn of_fallback(question: &Question<'_>, stored: &Arc<StoredResponse>) -> Self {
        let last = LastFetch::of(stored, question.now);
        // The probes of an origin that is not up do not wait for the pause of a key.
        if last == LastFetch::Paused && question.settings.health.is_up(question.head) {
            return Self::Serve(Stale::OriginFailed);
        }
        match (ask(question), last) {
            (Answer::Serve(why), _) => Self::Serve(why.into()),
            // The response to HEAD cannot refresh what is stored.
            (Answer::Fetch(pass), _) if question.head.method == Method::HEAD => Self::Forward(pass),
            (Answer::Fetch(None), LastFetch::Succeeded) => Self::Forward(None),
            (Answer::Fetch(None), _) => Self::refresh(question, stored, None, Stale::OriginFailed),
            (Answer::Fetch(Some(pass)), _) => {
                let why = pass.reason().into();
                Self::refresh(question, stored, Some(pass), why)
            }
        }
    }

    /// Serves the response, and refreshes it if that is possible now.
    fn refresh(
        question: &Question<'_>,
        stored: &Arc<StoredResponse>,
        pass: Option<Arc<Pass>>,
        why: Stale,
    ) -> Self {
        match Refresher::claim(question, stored, pass.is_some()) {
            Refreshing::Begin(refresher) => Self::Refresh(refresher, pass, why),
            Refreshing::NotNow => Self::Serve(why),
            Refreshing::Impossible => Self::Forward(pass),
        }
    }
}

fn ask(question: &Question<'_>) -> Answer {
    let Question { settings, head, now, .. } = *question;
    settings.health.ask_with_stale(head, now)
}
