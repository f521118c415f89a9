//! Judges and stores responses that pass untouched, for a cache that only reports.

use std::sync::Arc;

use http::{Response, request};
use tokio::time::Instant;

use super::{
    fetch::{Fetch, Policy},
    layer::FillLayer,
    recorder::Recording,
};
use crate::{
    body::{Body, ResponseBody},
    exchange,
    http::{conditions, storing},
    key, sequence,
    store::{self, Store},
    tags::Tags,
};

/// A fetch that the cache would have made, and whose response comes by the request of the client.
pub(crate) struct Reporting<St, P> {
    fetch: Fetch<St, P>,
    purge_keys: Arc<sequence::PurgeKeys>,
    sent_at: Instant,
    fetching: sequence::Fetching,
    /// Whether the response is stored. Else another fetch would have brought it.
    stores: bool,
}

impl<St: Store, P: Policy> FillLayer<St, P> {
    /// Begins one for a request that the cache would have sent like this.
    pub(crate) fn report(&self, mut head: request::Parts, stores: bool) -> Option<Reporting<St, P>> {
        let shared = self.shared();
        let rules = key::RuleOverrides::rules_for(&head.extensions, &shared.rules);
        head.extensions.remove::<key::RuleOverrides>();
        let search = head.extensions.remove::<key::SearchKey>();
        let asked = exchange::CacheRequest::of(&head, &shared.rules.request.credentials)?.into_owned();
        let client = exchange::RequestCopy::new(shared.copy(&head), asked);
        let fetch = Fetch { layer: Arc::clone(shared), client, rules, search };
        let purge_keys = fetch.purge_keys();
        let fetching = fetch.layer.store.sequence().begin(&purge_keys);
        Some(Reporting { fetch, purge_keys, sent_at: Instant::now(), fetching, stores })
    }
}

impl<St: Store, P: Policy> Reporting<St, P> {
    /// Returns the response as it is, and what would have become of it.
    pub(crate) fn conclude<B: ResponseBody>(
        self,
        response: Response<B>,
    ) -> (Response<Body<B>>, storing::Decision) {
        let Self { fetch, purge_keys, sent_at, fetching, stores } = self;
        let client = fetch.client.head();
        let (head, body) = response.into_parts();
        let response_fields =
            fetch.layer.targets.response_fields(&head.headers).under(fetch.client.asked().keyed());
        let tagged = sequence::Tagged {
            headers: &head.headers,
            response_fields: &response_fields,
            fields: &fetch.layer.targets.tags,
        };
        let own = head.extensions.get::<Tags>();
        let purge_keys = fetch.layer.store.sequence().tagged(&purge_keys, client, tagged, own);
        let origin = store::Origin::new(&response_fields, sent_at, fetching.number, purge_keys);
        let fields = fetch.client.asked().fields(&client.headers);
        let asks_for_one_part = fetch.client.asked().facts().asks_for_one_part();
        let extent = conditions::Extent::for_all(asks_for_one_part, head.status, &head.headers);
        let (mut decision, rules) = fetch.decide((client, &fields), &head, extent, &response_fields, &origin);
        if decision.is_storable && fetch.is_too_large(&response_fields, &body) {
            decision =
                storing::Decision::not_stored(storing::Sharing::Unshareable(storing::NotStored::TooLarge));
        }
        if !stores {
            return (Response::from_parts(head, Body::inner(body)), decision);
        }
        fetch.note((client, &fields), (head.status, &head.headers), &decision, &rules, &origin);
        if let Some(why) = decision.not_stored_reason() {
            fetch.layer.store.judged(fetch.client.asked().key(), why);
            return (Response::from_parts(head, Body::inner(body)), decision);
        }
        let selection = store::selection(&response_fields.vary, &fields);
        let hit_for_miss = fetch.marker((client, &fields), head.status, &rules, &origin);
        let recording =
            Recording { extent, decision: &decision, selection: &selection, origin: &origin, hit_for_miss };
        let store = (fetch.layer.store.clone(), &fetch.client);
        let body = recording.start(store, &head, (body, &response_fields), fetching);
        (Response::from_parts(head, body), decision)
    }
}
