//! Sends a row through the layers.

use std::{
    convert::Infallible,
    future::{self, Future},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts,
};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    error::TableMiss,
    format::{Fields, Row, RuleTable},
};
use crate::{
    exchange::CacheRequest,
    exchange::status::CacheStatus,
    key::{KeyExtractor, KeyRules, rules::RowExtensions},
    request_body::RequestBody,
    stack::{ReadThroughBuilder, ReadThroughLayer},
    store::{MemoryStore, Store, StoredResponse},
    tags::TagFields,
};

/// Room for a few responses without a body to speak of.
const CAPACITY_BYTES: u64 = 16 << 20;

/// Nothing here waits: what is not ready after so many polls never will be.
const MAX_POLLS: usize = 64;

/// The rows of a table, and what each of them gives.
pub(super) struct Trials<'t> {
    stack: Stack<'t>,
    trials: Vec<Trial<'t>>,
}

/// What a row gives to an empty store.
pub(super) struct Trial<'t> {
    pub(super) index: usize,
    pub(super) row: &'t Row,
    exchange: Exchange,
    /// The fields of responses that name tags by the rules.
    pub(super) tag_fields: TagFields,
    pub(super) rule: Option<String>,
    pub(super) sent: Sent,
    /// The response, if it is stored.
    pub(super) stored: Option<Arc<StoredResponse>>,
}

/// What came of sending a request.
pub(super) struct Sent {
    pub(super) status: Option<CacheStatus>,
    /// As the service got it, if it did.
    pub(super) at_origin: Option<Parts>,
}

impl<'t> Trials<'t> {
    /// Sends all rows that can be sent, each to an empty store.
    pub(super) fn new(rules: &KeyRules, table: &'t RuleTable, misses: &mut Vec<TableMiss>) -> Self {
        let stack = Stack { rules: rules.for_trials(), table };
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

    /// Whether the stored response of the first answers the second.
    pub(super) fn answers(&self, first: &Trial<'_>, second: &Trial<'_>) -> bool {
        // Twice: the first response may say by `No-Vary-Search` what the key of the next one is.
        let passes = [&first.exchange, &first.exchange, &second.exchange];
        let store = MemoryStore::with_capacity_bytes(CAPACITY_BYTES);
        let rules = self.stack.rules.fresh();
        let sent = passes.map(|exchange| self.stack.send(&rules, &store, exchange));
        let [_, _, Ok(sent)] = &sent else { return false };
        // However short its lifetime: it is selected, and a fresh one would have been served.
        let is_selected = sent.asked().is_some_and(|asked| asked.candidate().is_whole());
        is_selected || sent.status.is_some_and(|status| status.is_hit())
    }

    /// Whether a purge reaches what the row stores.
    pub(super) fn is_purged_by(&self, trial: &Trial<'_>, purge: &str) -> Result<bool, String> {
        let store = MemoryStore::with_capacity_bytes(CAPACITY_BYTES);
        let rules = self.stack.rules.fresh();
        let stored = self.stack.send(&rules, &store, &trial.exchange)?.stored_in(&store);
        let handle = self.stack.cache(&rules, &store).purge();
        let (kind, argument) = purge.split_once(' ').ok_or("it is a kind and an argument")?;
        let url = || match argument.starts_with('/') {
            true => trial.exchange.url_of(&rules, argument),
            false => argument.to_owned(),
        };
        match kind {
            "tag" if argument.is_empty() || argument.contains([',', '*', '{', '}']) => {
                return Err("a tag is compared whole, and has no wildcards".into());
            }
            "tag" => Ok(handle.tag(argument)),
            "url" => handle.url(&url()),
            "prefix" => handle.path_prefix(&url()),
            "pattern" => handle.pattern(&url()),
            "host" => handle.host(argument),
            _ => return Err(format!("`{kind}` is neither `url`, `prefix`, `pattern`, `host` nor `tag`")),
        }
        .map_err(|error| error.to_string())?;
        Ok(stored.is_some_and(|stored| !store.sequence().admits(&stored)))
    }

    /// Whether one response could be for both: without the same key none is.
    pub(super) fn may_share(&self, first: &Trial<'_>, second: &Trial<'_>) -> bool {
        match (first.sent.asked(), second.sent.asked()) {
            (Some(first), Some(second)) => first.key() == second.key() || self.stack.rules.learns(),
            _ => false,
        }
    }
}

impl Trial<'_> {
    pub(super) fn has_key(&self) -> bool {
        self.sent.asked().is_some()
    }

    /// The fields of the response of the service.
    pub(super) fn answer_headers(&self) -> &HeaderMap {
        &self.exchange.answer.headers
    }
}

impl Sent {
    fn asked(&self) -> Option<&CacheRequest> {
        self.at_origin.as_ref()?.extensions.get()
    }

    fn stored_in(&self, store: &MemoryStore) -> Option<Arc<StoredResponse>> {
        let resource = store.get(self.asked()?.key())?;
        resource.variants().first().cloned()
    }
}

/// The layers of a table, round a service that gives the response of a row.
struct Stack<'t> {
    rules: KeyRules,
    table: &'t RuleTable,
}

impl Stack<'_> {
    fn try_row<'t>(&self, index: usize, row: &'t Row) -> Result<Trial<'t>, String> {
        if !row.expects_something() {
            return Err("it expects nothing".into());
        }
        let exchange = Exchange::of(row, self.table)?;
        let store = MemoryStore::with_capacity_bytes(CAPACITY_BYTES);
        let rules = self.rules.fresh();
        let rule = rules.rule_label(&exchange.head());
        let sent = self.send(&rules, &store, &exchange)?;
        let stored = sent.stored_in(&store);
        Ok(Trial { index, row, exchange, tag_fields: rules.tag_fields(), rule, sent, stored })
    }

    fn cache(&self, rules: &KeyRules, store: &MemoryStore) -> ReadThroughBuilder<MemoryStore, KeyRules> {
        ReadThroughLayer::builder(store.clone()).key(rules.clone()).rules(self.table.storing().clone())
    }

    fn send(&self, rules: &KeyRules, store: &MemoryStore, exchange: &Exchange) -> Result<Sent, String> {
        let cache = self.cache(rules, store).build().map_err(|error| error.to_string())?;
        let origin = Origin { answer: exchange.answer.clone(), seen: Arc::default() };
        let seen = Arc::clone(&origin.seen);
        let service = cache.layer(origin);
        #[cfg(feature = "body-key")]
        let mut service = crate::layers::body_key::BodyKeyLayer::new(rules.clone()).layer(service);
        #[cfg(not(feature = "body-key"))]
        let mut service = service;
        let waits = || "the layers wait for something".to_owned();
        let Ok(response) = at_once(service.call(exchange.request())).ok_or_else(waits)?;
        let status = CacheStatus::of(&response);
        at_once(response.into_body().collect()).ok_or_else(waits)?.map_err(|error| error.to_string())?;
        let at_origin = seen.lock().take();
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

/// A request, and the response of the service to it.
struct Exchange {
    method: Method,
    target: http::Uri,
    headers: HeaderMap,
    extensions: RowExtensions,
    body: Bytes,
    answer: Answer,
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
}

impl Exchange {
    fn of(row: &Row, table: &RuleTable) -> Result<Self, String> {
        let (method, target) =
            row.request.split_once(' ').ok_or("`request` is a method and a target, such as `GET /`")?;
        let method = method.parse().map_err(|_| format!("`request`: `{method}` is no method"))?;
        let target =
            target.parse().map_err(|error| format!("`request`: `{target}` is no target: {error}"))?;
        let mut fields = table.headers.clone();
        fields.extend(row.headers.iter().map(|(name, lines)| (name.to_ascii_lowercase(), lines.clone())));
        let mut headers = header_map(&fields).map_err(|reason| format!("`headers`: {reason}"))?;
        if let Some(host) = row.host.as_ref().or(table.host.as_ref()) {
            let value = HeaderValue::from_str(host).map_err(|_| format!("`host`: `{host}` is none"))?;
            headers.entry(header::HOST).or_insert(value);
        }
        let body = match &row.body {
            None => Bytes::new(),
            Some(serde_json::Value::String(text)) => Bytes::from(text.clone()),
            Some(json) => Bytes::from(json.to_string()),
        };
        let response = row.response.as_ref().or(table.response.as_ref());
        let fields =
            response.map(header_map).transpose().map_err(|reason| format!("`response`: {reason}"))?;
        let status = row.status.unwrap_or(200);
        let status = StatusCode::from_u16(status).map_err(|_| format!("`status`: {status} is none"))?;
        let answer = Answer { status, headers: fields.unwrap_or_default() };
        let extensions = RowExtensions::new(row.extensions.clone());
        Ok(Self { method, target, headers, extensions, body, answer })
    }

    /// A path at the host of the request.
    fn url_of(&self, rules: &KeyRules, path: &str) -> String {
        let scheme = rules.assumed_scheme().map_or("http", |scheme| scheme.as_str());
        let host = self.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        format!("{scheme}://{}{path}", host.or(self.target.host()).unwrap_or_default())
    }

    fn head(&self) -> Parts {
        self.request().into_parts().0
    }

    fn request(&self) -> Request<RequestBody<Full<Bytes>>> {
        let body = RequestBody::new(Full::new(self.body.clone()));
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(self.extensions.clone());
        request
    }
}

fn header_map(fields: &Fields) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, lines) in fields {
        let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no field"))?;
        for line in lines.iter().flat_map(|lines| lines.as_slice()) {
            let value = HeaderValue::from_bytes(line.as_bytes())
                .map_err(|_| format!("`{line}` cannot be the value of `{name}`"))?;
            map.append(field.clone(), value);
        }
    }
    Ok(map)
}

/// The service in the midst of the layers.
#[derive(Clone)]
struct Origin {
    answer: Answer,
    seen: Arc<Mutex<Option<Parts>>>,
}

impl<B> Service<Request<B>> for Origin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = future::Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, _) = request.into_parts();
        let is_empty = head.method == Method::HEAD || [204, 304].contains(&self.answer.status.as_u16());
        let body = if is_empty { Bytes::new() } else { Bytes::from_static(b"x") };
        *self.seen.lock() = Some(head);
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.answer.status;
        *response.headers_mut() = self.answer.headers.clone();
        future::ready(Ok(response))
    }
}
