//! Sends the rows of a table through the layers.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    future::{self, Future},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tower_layer::Layer;
use tower_service::Service;

use super::{TableMiss, format};
use crate::{
    exchange::{CacheRequest, status::CacheStatus},
    key::{KeyExtractor, KeyRules},
    stack::{ReadThroughBuilder, ReadThroughLayer},
    store::{self, Store},
    tags::{self, TagFields, Tags},
};

/// Room for a few responses with tiny bodies.
const CAPACITY_BYTES: u64 = 16 << 20;

/// Nothing here waits: a future that is not ready after so many polls never will be.
const MAX_POLLS: usize = 64;

/// The rows of a table with their results.
pub(super) struct Trials<'t> {
    stack: TrialStack<'t>,
    trials: Vec<Trial<'t>>,
}

/// The results of a row with an empty store.
pub(super) struct Trial<'t> {
    index: usize,
    row: &'t format::Row,
    exchange: format::RowExchange,
    /// The response fields that name tags.
    tag_fields: TagFields,
    rule: Option<String>,
    sent: Sent,
    /// The response, if it is stored.
    stored: Option<Arc<store::StoredResponse>>,
}

/// The result of sending a request.
struct Sent {
    status: Option<CacheStatus>,
    /// The request as the service got it, if it did.
    at_origin: Option<Parts>,
}

impl<'t> Trials<'t> {
    /// Sends all rows that can be sent, each to an empty store.
    pub(super) fn new(rules: &KeyRules, table: &'t format::RuleTable, misses: &mut Vec<TableMiss>) -> Self {
        let stack = TrialStack { rules: rules.for_trials(), table };
        let mut trials = Vec::new();
        for (index, row) in table.rows().iter().enumerate() {
            match stack.try_row(index, row) {
                Ok(trial) => trials.push(trial),
                Err(message) => misses.push(TableMiss::of_row(index, &row.label(), message)),
            }
        }
        Self { stack, trials }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Trial<'t>> {
        self.trials.iter()
    }

    /// Whether the second request gets the stored response of the first one.
    pub(super) fn shares_response(&self, first: &Trial<'_>, second: &Trial<'_>) -> bool {
        // Twice, since `No-Vary-Search` of the first response may decide the key of the next request.
        let passes = [&first.exchange, &first.exchange, &second.exchange];
        let store = store::MemoryStore::with_capacity_bytes(CAPACITY_BYTES);
        let rules = self.stack.rules.fresh();
        let sent = passes.map(|exchange| self.stack.send(&rules, &store, exchange));
        let [_, _, Ok(sent)] = &sent else { return false };
        // A response that has become stale is selected too.
        let is_selected = sent.asked().is_some_and(|asked| asked.candidate().is_whole());
        is_selected || sent.status.is_some_and(|status| status.is_hit())
    }

    /// Whether a purge reaches the stored response of a row.
    pub(super) fn is_purged_by(&self, trial: &Trial<'_>, purge: &str) -> Result<bool, String> {
        let store = store::MemoryStore::with_capacity_bytes(CAPACITY_BYTES);
        let rules = self.stack.rules.fresh();
        let stored = self.stack.send(&rules, &store, &trial.exchange)?.stored_in(&store);
        let handle = self.stack.cache(&rules, &store).purge();
        let (kind, argument) =
            purge.split_once(' ').ok_or("write a kind and an argument, like `tag product-7`")?;
        let url = || match argument.starts_with('/') {
            true => trial.exchange.url_of(&rules, argument),
            false => argument.to_owned(),
        };
        match kind {
            "tag" if argument.is_empty() || argument.contains([',', '*', '{', '}']) => {
                return Err("a tag has no wildcards, spaces or commas".into());
            }
            "tag" => Ok(handle.tag(argument)),
            "url" => handle.url(&url()),
            "prefix" => handle.path_prefix(&url()),
            "pattern" => handle.pattern(&url()),
            "host" => handle.host(argument),
            _ => {
                return Err(format!(
                    "unknown kind `{kind}`; use `url`, `prefix`, `pattern`, `host` or `tag`"
                ));
            }
        }
        .map_err(|error| error.to_string())?;
        Ok(stored.is_some_and(|stored| !store.sequence().admits(&stored)))
    }

    /// Whether the rows could share a response, which needs the same key.
    pub(super) fn may_share(&self, first: &Trial<'_>, second: &Trial<'_>) -> bool {
        match (first.sent.asked(), second.sent.asked()) {
            (Some(first), Some(second)) => first.key() == second.key() || self.stack.rules.learns(),
            _ => false,
        }
    }
}

impl<'t> Trial<'t> {
    /// The position of the row.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn row(&self) -> &'t format::Row {
        self.row
    }

    /// What errors call the rule for the request, if there is one.
    pub(super) fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    pub(super) fn stored(&self) -> Option<&store::StoredResponse> {
        self.stored.as_deref()
    }

    /// The request as the service got it, if it did.
    pub(super) fn at_origin(&self) -> Option<&Parts> {
        self.sent.at_origin.as_ref()
    }

    pub(super) fn has_key(&self) -> bool {
        self.sent.asked().is_some()
    }

    /// Why the request has no key, if it has none.
    pub(super) fn unkeyed(&self) -> Option<&'static str> {
        match self.sent.status {
            Some(status) => status.unkeyed_reason().map(|reason| reason.as_str()),
            None => Some("method"),
        }
    }

    /// Why the response is not stored, if there is a reason.
    pub(super) fn unshareable(&self) -> Option<&'static str> {
        let reason = self.sent.status.and_then(|status| status.not_stored_reason());
        reason.map(|reason| reason.as_str())
    }

    /// Why there is no stored response.
    pub(super) fn no_response(&self) -> String {
        match (self.unkeyed(), self.unshareable()) {
            (Some(reason), _) => format!("the request has no key: `{reason}`"),
            (None, Some(reason)) => format!("the response is not stored: `{reason}`"),
            (None, None) => "the response is not stored".into(),
        }
    }

    /// The tags of the response, as the store reads them.
    pub(super) fn tags(&self) -> BTreeSet<String> {
        let mut tags = BTreeSet::new();
        let headers = self.exchange.response().headers();
        tags::for_each_tag(headers, &self.tag_fields, |tag| {
            _ = tags.insert(String::from_utf8_lossy(tag).into_owned());
        });
        tags.extend(tags::groups(headers, &tags::CACHE_GROUPS));
        let of_request = self.at_origin().and_then(|head| head.extensions.get::<Tags>());
        tags.extend(of_request.into_iter().flat_map(Tags::iter).map(String::from));
        tags
    }
}

impl Sent {
    fn asked(&self) -> Option<&CacheRequest> {
        self.at_origin.as_ref()?.extensions.get()
    }

    fn stored_in(&self, store: &store::MemoryStore) -> Option<Arc<store::StoredResponse>> {
        let resource = store.get(self.asked()?.key())?;
        resource.variants().first().cloned()
    }
}

/// The layers of a table, above a service that gives the response of a row.
struct TrialStack<'t> {
    rules: KeyRules,
    table: &'t format::RuleTable,
}

impl TrialStack<'_> {
    fn try_row<'t>(&self, index: usize, row: &'t format::Row) -> Result<Trial<'t>, String> {
        if !row.expects_something() {
            return Err("the row has no expectation; add one, such as `entry` or `bypass`".into());
        }
        let exchange = format::RowExchange::of(row, self.table)?;
        let store = store::MemoryStore::with_capacity_bytes(CAPACITY_BYTES);
        let rules = self.rules.fresh();
        let rule = rules.rule_label(&exchange.head());
        let sent = self.send(&rules, &store, &exchange)?;
        let stored = sent.stored_in(&store);
        Ok(Trial { index, row, exchange, tag_fields: rules.tag_fields(), rule, sent, stored })
    }

    fn cache(
        &self,
        rules: &KeyRules,
        store: &store::MemoryStore,
    ) -> ReadThroughBuilder<store::MemoryStore, KeyRules> {
        ReadThroughLayer::builder(store.clone()).key(rules.clone()).rules(self.table.storing().clone())
    }

    fn send(
        &self,
        rules: &KeyRules,
        store: &store::MemoryStore,
        exchange: &format::RowExchange,
    ) -> Result<Sent, String> {
        let cache = self.cache(rules, store).build().map_err(|error| error.to_string())?;
        let origin = RowOrigin { response: exchange.response().clone(), request: Arc::default() };
        let request = Arc::clone(&origin.request);
        let service = cache.layer(origin);
        #[cfg(feature = "body-key")]
        let mut service = crate::layers::body_key::BodyKeyLayer::new(rules.clone()).layer(service);
        #[cfg(not(feature = "body-key"))]
        let mut service = service;
        let waits = || "the layers did not respond at once".to_owned();
        let Ok(response) = at_once(service.call(exchange.request())).ok_or_else(waits)?;
        let status = CacheStatus::of(&response);
        at_once(response.into_body().collect()).ok_or_else(waits)?.map_err(|error| error.to_string())?;
        let at_origin = request.lock().take();
        Ok(Sent { status, at_origin })
    }
}

fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..MAX_POLLS).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// The service below the layers.
#[derive(Clone)]
struct RowOrigin {
    response: format::ServiceResponse,
    request: Arc<Mutex<Option<Parts>>>,
}

impl<B> Service<Request<B>> for RowOrigin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = future::Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, _) = request.into_parts();
        let response = self.response.to_response(&head.method);
        *self.request.lock() = Some(head);
        future::ready(Ok(response))
    }
}
