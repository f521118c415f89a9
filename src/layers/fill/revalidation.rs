//! What a response without a body says about a stored one (RFC 9111 §4.3.4, §4.3.5).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, request, response};
use tokio::time::Instant;

use super::fetch::{Fetch, Policy};
use crate::{
    body::Body,
    exchange,
    http::{conditions, cookies, fields, response_fields, rules::Rules, storing, vary},
    origin::AnsweredBy,
    sequence::Checked as _,
    store::{self, Store},
};

/// A stored head with the fields of a newer one, and what is to be done with it.
struct Updated {
    head: response::Parts,
    decision: storing::Decision,
    rules: Rules,
}

impl<St: Store, P: Policy> Fetch<St, P> {
    /// 304: the stored response is the current one, with the fields of the 304.
    pub(super) fn revalidated<B>(
        &self,
        client: &request::Parts,
        confirmed: &store::StoredResponse,
        head: response::Parts,
        origin: &store::Origin,
    ) -> Response<Body<B>> {
        let (update, answered_by) = (head.headers.clone(), head.extensions.get::<AnsweredBy>().copied());
        let (fresh, decision, rules) = self.freshened(client, confirmed, head, origin);
        let fields = self.client.asked().fields(&client.headers);
        self.note((client, &fields), (fresh.status(), &fresh.headers()), &decision, &rules, origin);
        let decision = match decision.is_storable.then(|| self.put(&fresh)) {
            None => {
                self.tell(&decision);
                decision
            }
            // Told by then.
            Some(store::Applied::NotStored(why)) => decision.lost(why),
            Some(_) => decision,
        };
        let mut response = self.client.asked().why().serve(fresh.to_hit(false, Instant::now(), |body| body));
        // Fields that are withheld from all other clients are for the one that sent the request.
        for name in &decision.withheld {
            update
                .get_all(name)
                .iter()
                .for_each(|value| _ = response.headers_mut().append(name, value.clone()));
        }
        if rules.store_without.has(&header::SET_COOKIE) {
            cookies::spare_those_of_client(client, response.headers_mut());
        }
        self.layer.targets.strip(response.headers_mut(), true);
        if let Some(origin) = answered_by {
            response.extensions_mut().insert(origin);
        }
        let selection = fresh.selection().cloned();
        self.sign(&mut response, StatusCode::NOT_MODIFIED, decision, selection, fresh.origin(), true);
        response
    }

    /// The stored response under the fields of a newer head.
    fn freshened(
        &self,
        client: &request::Parts,
        stored: &store::StoredResponse,
        head: response::Parts,
        origin: &store::Origin,
    ) -> (Arc<store::StoredResponse>, storing::Decision, Rules) {
        let origin = with_tags_of(stored, origin);
        let Updated { head, decision, rules } = self.updated(client, stored, head, &origin);
        let fresh = renewed(&head.headers, stored, &decision, origin);
        (fresh, decision, rules)
    }

    /// The stored head with the fields of a newer one.
    fn updated(
        &self,
        client: &request::Parts,
        stored: &store::StoredResponse,
        mut head: response::Parts,
        origin: &store::Origin,
    ) -> Updated {
        let mut headers = stored.headers();
        conditions::freshen(&mut headers, &head.headers);
        head.headers = headers;
        head.status = stored.status();

        let response_fields =
            self.layer.targets.response_fields(&head.headers).under(self.client.asked().keyed());
        let asks_for_one_part = self.client.asked().facts().asks_for_one_part();
        let extent = conditions::Extent::for_all(asks_for_one_part, head.status, &head.headers);
        let fields = self.client.asked().fields(&client.headers);
        let (decision, rules) = self.decide((client, &fields), &head, extent, &response_fields, origin);
        self.layer.targets.strip(&mut head.headers, response_fields.has_tags);
        fields::remove_all(&mut head.headers, |name| decision.withheld.contains(name));
        response_fields.give_date(&mut head.headers);
        Updated { head, decision, rules }
    }

    fn put(&self, fresh: &Arc<store::StoredResponse>) -> store::Applied {
        let (store, key) = (&self.layer.store, self.client.asked().key());
        if !store.sequence().admits(fresh) {
            let purged = store::Applied::NotStored(storing::NotStored::PurgedMeanwhile);
            store.not_stored(key, purged);
            return purged;
        }
        let (response, request) = (Arc::clone(fresh), self.client.to_headers());
        store.apply(key, store::Change::Confirm { response, request, at: Instant::now() })
    }

    /// A 304 to a request without conditions is a failure of the origin. What is stored stays: it may
    /// be used while the origin fails.
    pub(super) fn unasked<B>(&self, origin: &store::Origin) -> Response<Body<B>> {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        exchange::tell_protocol_error(response.headers_mut());
        let decision = storing::Decision::not_stored(storing::Sharing::Failed { for_all: true });
        self.tell(&decision);
        self.sign(&mut response, StatusCode::NOT_MODIFIED, decision, None, origin, true);
        response
    }

    /// A response to HEAD has the head that a response to GET would have (§4.3.5): it freshens a stored
    /// response of the same validator, selecting fields and length, and shows that another one is
    /// outdated.
    #[inline(never)]
    pub(super) fn learn_from_head(
        &self,
        client: &request::Parts,
        head: &response::Parts,
        vary: &vary::Vary,
        origin: &store::Origin,
    ) {
        let fields = self.client.asked().fields(&client.headers);
        let stored = store::select(&self.layer.store, self.client.asked().key(), &fields);
        let Some(stored) =
            stored.filter(|stored| (head.status, stored.status()) == (StatusCode::OK, StatusCode::OK))
        else {
            return;
        };
        let has_length = has_length(&head.headers, stored.body());
        match conditions::confirms(&head.headers, &stored.headers()) {
            Some(true) if has_length && vary.is_within(stored.selection()) => {
                let mut as_get = client.clone();
                as_get.method = Method::GET;
                let (fresh, decision, _) = self.freshened(&as_get, &stored, head.clone(), origin);
                if decision.is_storable {
                    self.put(&fresh);
                }
            }
            // Nothing shows that it is about the same content, or that it is not.
            Some(true) | None if has_length => {}
            _ => {
                let (request, fetch_number) = (self.client.to_headers(), origin.fetch_number);
                let change =
                    store::Change::Supersede { request, fetch_number, spared_tag: None, hit_for_miss: None };
                self.layer.store.apply(self.client.asked().key(), change);
            }
        }
    }
}

/// It has all tags that it ever had: what they purge may still be in it.
fn with_tags_of(stored: &store::StoredResponse, origin: &store::Origin) -> store::Origin {
    let purge_keys = Arc::new(origin.purge_keys.and(stored.purge_keys()));
    store::Origin { purge_keys, ..origin.clone() }
}

/// The stored body under newer fields.
fn renewed(
    headers: &HeaderMap,
    stored: &store::StoredResponse,
    decision: &storing::Decision,
    origin: store::Origin,
) -> Arc<store::StoredResponse> {
    let (body, trailers) = (stored.body().clone(), stored.trailers().cloned());
    let selection = stored.selection().cloned();
    let terms = if decision.is_storable { decision.terms } else { storing::Freshness::NONE };
    let kept = store::HeadBuilder::new(stored.status(), headers, Some(body.len())).with_shared(body);
    let fresh = store::StoredResponse::new(kept, trailers, selection, terms, origin);
    Arc::new(fresh.answered_by(stored.answering_origin()))
}

fn has_length(head: &HeaderMap, body: &Bytes) -> bool {
    response_fields::content_length(head).ok().flatten().is_none_or(|length| length == body.len() as u64)
}
