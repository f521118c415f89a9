//! What will become of a request, found without asking the origin or taking the right to.

use std::sync::Arc;

use super::{refresh::refreshes, route, select};
use crate::{
    exchange::{
        CacheRequest, Refused,
        status::{CacheStatus, Stale},
    },
    http::{cache_control::RequestDirectives, not_stored::NotStored},
    key::KeyExtractor,
    store::{LastFetch, Store, StoredResponse},
};

/// What will become of a request, as far as the store and the state of the origin decide.
pub(super) struct Foreseen<'a> {
    pub(super) came_about: CacheStatus,
    /// What is served, or may be served if the origin fails.
    pub(super) stored: Option<&'a Arc<StoredResponse>>,
    /// What the origin is asked, now or in the background. `None`: nothing.
    pub(super) asked: Option<CacheRequest>,
}

impl Foreseen<'_> {
    /// Whether the response comes from the store.
    pub(super) const fn is_served(&self) -> bool {
        self.came_about.is_hit()
    }
}

impl<St: Store, K: KeyExtractor> select::Reader<St, K> {
    /// As [`respond`](Self::respond) decides. While the origin is not up, a request that would be sent as a
    /// probe, or take a part in the recovery, is taken for one that is not.
    pub(super) fn foresee<'a>(
        &self,
        reading: &'a select::Reading,
        stored: Option<&'a Arc<StoredResponse>>,
        question: &select::Question<'_>,
        wishes: Option<&RequestDirectives>,
    ) -> Foreseen<'a> {
        let now = question.now;
        if let Some(fresh) =
            stored.filter(|stored| select::accepts(stored, wishes, now) && stored.is_fresh(now))
        {
            let is_ahead = fresh.is_refresh_due(now)
                && refreshes(question.head, wishes)
                && question.settings.health.is_up(question.head);
            let asked = is_ahead.then(|| self.asked_ahead(reading, fresh, question));
            return Foreseen { came_about: CacheStatus::hit(), stored, asked };
        }
        let served = |stored, why: Stale, asked: CacheRequest, is_refreshed| Foreseen {
            came_about: asked.why().served_stale(why),
            stored: Some(stored),
            asked: Some(asked).filter(|_| is_refreshed && refreshes(question.head, wishes)),
        };
        match self.find(reading, stored, question, wishes) {
            select::Found::Stale(stale) => {
                let why = select::selected(stale, self.store.sequence(), now);
                Foreseen { came_about: why.served_stale(Stale::AsRequested), stored, asked: None }
            }
            select::Found::Part(_) => Foreseen { came_about: CacheStatus::hit(), stored: None, asked: None },
            select::Found::Refreshable(stale, asked) => match held_back(question, stale) {
                Some(why) => served(stale, why, asked, false),
                None if LastFetch::of(stale, now) == LastFetch::Succeeded => {
                    served(stale, Stale::WhileRevalidating, asked, true)
                }
                None => served(stale, Stale::OriginFailed, asked, true),
            },
            select::Found::Fallback(stale, asked) => match held_back(question, stale) {
                Some(why) => served(stale, why, asked, false),
                None => forwarded(Some(stale), question, asked, wishes),
            },
            select::Found::Nothing(asked) => forwarded(None, question, asked, wishes),
        }
    }
}

fn forwarded<'a>(
    stored: Option<&'a Arc<StoredResponse>>,
    question: &select::Question<'_>,
    asked: CacheRequest,
    wishes: Option<&RequestDirectives>,
) -> Foreseen<'a> {
    if wishes.is_some_and(|wishes| wishes.only_if_cached) {
        return Foreseen { came_about: asked.why().refused(Refused::NotStored), stored, asked: None };
    }
    let alone = match route::scope(question, &asked) {
        _ if wishes.is_some_and(|wishes| wishes.no_store) => Some(NotStored::NoStore),
        route::Scope::Client(why) => Some(why),
        route::Scope::Whole | route::Scope::Part => None,
    };
    match alone {
        // Nothing is stored of it.
        Some(why) => Foreseen { came_about: asked.for_one(why), stored, asked: None },
        None => Foreseen { came_about: asked.why(), stored, asked: Some(asked) },
    }
}

/// Why what is stale is served without the origin being asked.
fn held_back(question: &select::Question<'_>, stale: &StoredResponse) -> Option<Stale> {
    let select::Question { settings, head, now, .. } = question;
    if LastFetch::of(stale, *now) == LastFetch::Paused && !settings.health.is_down(head) {
        return Some(Stale::OriginFailed);
    }
    settings.health.would_hold_back(head, *now).map(Stale::from)
}
