//! What would have become of a request, where the cache only reports: each response comes from the origin.

use std::{collections::HashMap, sync::Arc};

use http::{Method, Request, Response, request::Parts};
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    route::Route,
    select::{Question, Reader, Settings},
};
use crate::{
    exchange::{
        CacheRequest, CacheStatusDetail, KeyWatch,
        status::{CacheStatus, Stale},
    },
    http::{
        cache_control::RequestDirectives, fields::remove_upgrade, request_fields::RequestFields, storing,
    },
    key::{self, CacheKey, KeyExtractor},
    store::{Refresh, Store, StoredResponse},
};

/// More fetches at a time are taken for such that are not shared.
const MAX_UNDER_WAY: usize = 1 << 14;

/// The keys of the fetches that would be under way, which others would have shared.
#[derive(Debug, Default)]
pub(super) struct Fetches(Mutex<HashMap<CacheKey, ()>>);

/// One of them. When it is dropped, the fetch is over.
struct UnderWay {
    fetches: Arc<Fetches>,
    key: CacheKey,
}

impl Fetches {
    /// `Err`: one is under way.
    fn begin(self: &Arc<Self>, key: &CacheKey) -> Result<Option<UnderWay>, ()> {
        let mut keys = self.0.lock();
        if keys.contains_key(key) {
            return Err(());
        }
        if keys.len() >= MAX_UNDER_WAY {
            return Ok(None);
        }
        keys.insert(key.clone(), ());
        drop(keys);
        Ok(Some(UnderWay { fetches: Arc::clone(self), key: key.clone() }))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let removed = self.fetches.0.lock().remove_entry(&self.key);
        drop(removed);
    }
}

/// What would have become of one request.
pub(crate) struct Report {
    settings: Arc<Settings>,
    came_about: CacheStatus,
    /// The request as it would have been sent to the origin, now or in the background.
    fetch: Option<Box<Parts>>,
    /// The name of its rule, if requests are counted by it.
    rule: Option<String>,
    /// Whether another fetch would have brought the response.
    follows: bool,
    /// What would have been served if the origin fails.
    fallback: Option<Arc<StoredResponse>>,
    watch: Option<KeyWatch>,
    /// Held until the response is there.
    _refresh: Option<Refresh>,
    _under_way: Option<UnderWay>,
}

impl Report {
    /// The request as it would have been sent to the origin, and whether its response would have been stored.
    pub(crate) fn take_fetch(&mut self) -> Option<(Parts, bool)> {
        self.fetch.take().map(|head| (*head, !self.follows))
    }

    /// The origin has responded, and this is what would have become of its response.
    pub(crate) fn finish<B>(mut self, response: &Response<B>, decision: Option<&storing::Decision>) {
        let is_fetched = decision.is_some() && !self.follows;
        let has_failed =
            decision.is_some_and(|decision| matches!(decision.sharing, storing::Sharing::Failed { .. }));
        if has_failed && let Some(watch) = self.watch.take() {
            watch.note_failed_fetch(None);
        }
        let came_about = match decision {
            Some(decision) if !self.came_about.is_hit() => self.forwarded(response, decision, has_failed),
            _ => self.came_about,
        };
        let asks_origin = is_fetched || came_about.forward_reason().is_some() && !came_about.is_collapsed();
        if !asks_origin {
            self.settings.observers.count_saved();
        }
        self.settings.observers.foresaw(response, came_about, self.rule.as_deref());
    }

    /// The origin has returned an error.
    pub(crate) fn fail(mut self) {
        if let Some(watch) = self.watch.take() {
            watch.note_failed_fetch(None);
        }
        let (observers, rule) = (&self.settings.observers, self.rule.as_deref());
        match self.came_about.is_hit() || self.is_covered() {
            true if self.came_about.is_hit() => {
                observers.count_saved();
                observers.foresaw(&Response::new(()), self.came_about, rule);
            }
            true => observers.foresaw(&Response::new(()), self.came_about.rescued(Stale::IfError), rule),
            false => observers.fail(self.came_about, rule),
        }
    }

    fn forwarded<B>(
        &self,
        response: &Response<B>,
        decision: &storing::Decision,
        has_failed: bool,
    ) -> CacheStatus {
        let mut came_about = self.came_about.stored(decision.is_storable);
        if let Some(fallback) = self.fallback.as_ref().filter(|_| has_failed && self.is_covered()) {
            return came_about.rescued(Stale::IfError).answered(response.status(), fallback.status());
        }
        let why = match decision.sharing {
            storing::Sharing::Unshareable(why) => Some(why),
            _ => decision.not_stored_reason(),
        };
        if let Some(why) = why {
            came_about = came_about.unshared(why);
        }
        match self.follows && decision.sharing == storing::Sharing::Shareable {
            true => came_about.collapsed(),
            false => came_about,
        }
    }

    fn is_covered(&self) -> bool {
        self.fallback.as_ref().is_some_and(|fallback| fallback.is_usable_on_error(Instant::now()))
    }
}

impl<St: Store, K: KeyExtractor> Reader<St, K> {
    /// Sends a request that may have a key to the origin as it is, and reports what would have become of it.
    #[inline(never)]
    pub(super) fn report<R, ReqB>(
        self: &Arc<Self>,
        fetches: &Arc<Fetches>,
        request: Request<ReqB>,
        route: R,
    ) -> R::Future
    where
        R: Route<ReqB>,
        ReqB: HttpBody,
    {
        let (head, body) = request.into_parts();
        match self.foretell(fetches, head.clone()) {
            Ok(report) => route.report(Request::from_parts(head, body), report),
            Err((why, rule)) => {
                let request = Request::from_parts(head, body);
                self.keyless(request, (Some(why), self.settings.field.detail()), rule, route)
            }
        }
    }

    /// Fails with why the request has no key, and with its rule, if that is wanted.
    fn foretell(
        &self,
        fetches: &Arc<Fetches>,
        mut head: Parts,
    ) -> Result<Report, (key::Unkeyed, Option<String>)> {
        let edition = self.note(&mut head);
        let edition = edition.as_deref();
        let mut key = key::KeyBuffer::new();
        let rule = self.rule_said(edition, &head, CacheStatusDetail::Short);
        if let Err(why) = self.find_key(edition, &head, &RequestFields::of(&head.headers), &mut key) {
            return Err((why, rule));
        }
        if self.normalises(edition) {
            self.normalise(edition, &mut head, &mut key);
        }
        let settings = &*self.settings;
        let (came_about, stored, asked) = {
            let mut fields = RequestFields::of(&head.headers);
            fields.put_under(&settings.request.credentials, key.keyed());
            let wishes = settings.follows_requests.then(|| RequestDirectives::parse(&head.headers));
            let question = Question {
                key: &key,
                edition,
                head: &head,
                fields: &fields,
                settings,
                detail: settings.field.detail(),
                extractor: &*self.extractor,
                now: Instant::now(),
            };
            let reading = self.read(&key);
            let stored = self.select(&reading, &fields);
            let foreseen = self.foresee(&reading, stored, &question, wishes.as_ref());
            (foreseen.came_about, foreseen.stored.cloned(), foreseen.asked)
        };
        key::prepare(edition.unwrap_or(&*self.extractor), &key, &mut head);
        remove_upgrade(&mut head.headers);
        Ok(Report { rule, ..self.reported(fetches, head, came_about, stored, asked) })
    }

    fn reported(
        &self,
        fetches: &Arc<Fetches>,
        mut head: Parts,
        came_about: CacheStatus,
        stored: Option<Arc<StoredResponse>>,
        asked: Option<CacheRequest>,
    ) -> Report {
        let settings = Arc::clone(&self.settings);
        let mut report = Report {
            came_about,
            fetch: None,
            rule: None,
            follows: false,
            fallback: stored.clone().filter(|_| !came_about.is_hit()),
            watch: None,
            _refresh: None,
            _under_way: None,
            settings,
        };
        let Some(asked) = asked else { return report };
        if came_about.is_hit() {
            let settings = &self.settings;
            let refresh = stored.and_then(|stored| {
                let pause = settings.health.key_pause();
                Refresh::claim(&stored, Instant::now(), settings.refresh_deadline, pause, false)
            });
            // Another refresh is under way, or its pause is not over: nothing would have been fetched.
            let Some(mut refresh) = refresh else { return report };
            refresh.note_response();
            report._refresh = Some(refresh);
        } else if head.method == Method::GET && asked.facts().is_for_all() && !asked.is_hit_for_miss() {
            match fetches.begin(asked.key()) {
                Ok(under_way) => report._under_way = under_way,
                Err(()) => report.follows = true,
            }
        }
        report.watch = asked.key_watch();
        head.extensions.remove::<CacheKey>();
        head.extensions.insert(asked);
        report.fetch = Some(Box::new(head));
        report
    }
}
