//! What would become of a request, for people.

use std::{sync::Arc, time::Duration};

use http::{Request, request::Parts};
use http_body_util::Empty;
use tokio::time::Instant;

use super::select;
use crate::{
    exchange::{CacheStatusDetail, Record},
    http::{cache_control::RequestDirectives, request_fields::RequestFields},
    key::{self, KeyExtractor},
    observe::{Explanation, StoredSummary},
    sequence::Checked as _,
    store::{Store, StoredResponse},
};

impl<St: Store, K: KeyExtractor> select::Reader<St, K> {
    /// What would become of a request with this head and without a body.
    pub(crate) fn explain(&self, head: &Parts) -> Explanation {
        let mut head = head.clone();
        self.settings.field.take(&mut head.headers);
        let (url, query) = url(&head);
        let explanation = Explanation {
            method: head.method.to_string(),
            url,
            query,
            shows_query: false,
            outcome: None,
            detail: None,
            rule: None,
            key: None,
            stored: Vec::new(),
            parts: 0,
            hit_for_miss_for: None,
            is_refreshed: false,
            origin: self.settings.health.state_for(&head, Instant::now()),
        };
        let request = Request::from_parts(head, Empty::<bytes::Bytes>::new());
        if !key::is_for_cache(&request) {
            return explanation.without_key(key::Unkeyed::of(&request));
        }
        self.explain_keyed(request.into_parts().0, explanation)
    }

    fn explain_keyed(&self, mut head: Parts, explanation: Explanation) -> Explanation {
        let edition = self.note(&mut head);
        let edition = edition.as_deref();
        let rule = edition.unwrap_or(&*self.extractor).rule(&head);
        let explanation = Explanation { rule, ..explanation };
        let mut key = key::KeyBuffer::new();
        let found = self.find_key(edition, &head, &RequestFields::of(&head.headers), &mut key);
        if let Err(why) = found {
            return explanation.without_key(Some(why));
        }
        if self.normalises(edition) {
            self.normalise(edition, &mut head, &mut key);
        }
        let settings = &*self.settings;
        let mut fields = RequestFields::of(&head.headers);
        fields.put_under(&settings.request.credentials, key.keyed());
        let wishes = settings.follows_requests.then(|| RequestDirectives::parse(&head.headers));
        let (now, detail) = (Instant::now(), CacheStatusDetail::Short);
        let question = select::Question {
            key: &key,
            edition,
            head: &head,
            fields: &fields,
            settings,
            detail,
            extractor: &*self.extractor,
            now,
        };
        let reading = self.read(&key);
        let selected = self.select(&reading, &fields);
        let foreseen = self.foresee(&reading, selected, &question, wishes.as_ref());
        let stored = reading.variants().iter().map(|stored| {
            let is_selected = selected.is_some_and(|selected| Arc::ptr_eq(selected, stored));
            summary(stored, is_selected, !self.store.sequence().admits(stored), now)
        });
        let asks_for_part = fields.facts(&head.method).asks_for_one_part();
        Explanation {
            outcome: Some(Record::foreseen(foreseen.came_about).outcome()),
            detail: foreseen.came_about.detail(),
            key: Some(key.to_key()),
            stored: stored.collect(),
            parts: reading.parts(),
            hit_for_miss_for: reading.hit_for_miss_for(fields.credentials, asks_for_part, now),
            is_refreshed: foreseen.is_served() && foreseen.asked.is_some(),
            ..explanation
        }
    }
}

/// The URL up to its query, and the query.
fn url(head: &Parts) -> (String, Option<String>) {
    let target = key::Target::of(head, key::Origins::default());
    let url = target.to_text().unwrap_or_else(|| head.uri.to_string());
    // Of a request as a server gets it the scheme is not known.
    let url = url.strip_prefix("//").map(str::to_owned).unwrap_or(url);
    match url.split_once('?') {
        Some((url, query)) => (url.to_owned(), Some(query.to_owned())),
        None => (url, None),
    }
}

fn summary(stored: &StoredResponse, is_selected: bool, is_purged: bool, now: Instant) -> StoredSummary {
    let terms = stored.terms();
    let names = stored.selection().map_or(&[][..], |selection| selection.fields());
    let texts = stored.purge_keys().texts();
    let text = |tag: &Vec<u8>| String::from_utf8_lossy(tag).into_owned();
    let audience = [
        (terms.audience.authorization, "authorization"),
        (terms.audience.cookie, "cookie"),
        (terms.audience.token, "token"),
    ];
    StoredSummary {
        status: stored.status().as_u16(),
        bytes: stored.bytes(),
        age_seconds: stored.age(now).as_secs(),
        fresh_for_seconds: stored.ttl(now),
        stale_while_revalidate_seconds: seconds(terms.stale_while_revalidate_for),
        stale_if_error_seconds: seconds(terms.stale_if_error_for),
        selected_by: names.iter().map(|name| name.as_str().to_owned()).collect(),
        is_selected,
        is_purged,
        tags: texts.map(|texts| texts.tags.iter().map(text).collect()),
        not_for: audience.into_iter().filter(|(is_for, _)| !is_for).map(|(_, name)| name).collect(),
    }
}

const fn seconds(window: Duration) -> u64 {
    window.as_secs()
}
