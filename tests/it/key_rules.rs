//! Key rules: which requests share an entry, and what invalidates it.

mod caches;
mod keys;
mod paths;

use crate::support::{Body, ScriptedOrigin, bytes, call, fixed, get_request, ms, response, status, store};
use http::{Request, StatusCode, request::Parts, uri::Scheme};
use std::{collections::HashSet, time::Duration};
use tower::{Layer, ServiceExt};
use tower_readthrough::{
    BuildError, CacheKey, CacheStatus, DefaultKey, KeyExtractor, KeyLayer, KeyRule, KeyRules,
    KeyRulesBuilder, MemoryStore, ReadThrough, ReadThroughLayer, RuleError, Rules, StoreLayer, Tags,
};

type Service = ReadThrough<ScriptedOrigin, MemoryStore, KeyRules>;

fn rules(rules: impl IntoIterator<Item = KeyRule>) -> KeyRules {
    rules.into_iter().fold(KeyRules::builder(), KeyRulesBuilder::rule).build().unwrap()
}

fn head(request: http::request::Builder) -> Parts {
    request.body(()).unwrap().into_parts().0
}

fn key(rules: &KeyRules, uri: &str) -> Option<CacheKey> {
    rules.key(&head(Request::get(uri)))
}

fn identity(rules: &KeyRules, uri: &str) -> Option<CacheKey> {
    rules.identity(&uri.parse().unwrap(), None, &http::Extensions::new())
}

/// Responds with the number of the call, and stays fresh.
fn counting() -> ScriptedOrigin {
    ScriptedOrigin::with_future(
        |n, _| async move { response(&[("cache-control", "max-age=60")], n.to_string()) },
    )
}

fn stack(rules: KeyRules, origin: &ScriptedOrigin) -> Service {
    ReadThroughLayer::builder(store()).key(rules).rules(fixed(60_000)).build().unwrap().layer(origin.clone())
}

fn request(uri: &str, fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = Request::get(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

/// Requests in one list share an entry, and share none with requests in another list.
fn partition(rules: &KeyRules, groups: &[&[&str]]) {
    let mut seen = HashSet::new();
    for group in groups {
        let keys: HashSet<_> = group.iter().map(|uri| key(rules, uri).expect(uri)).collect();
        assert_eq!(keys.len(), 1, "{group:?} share an entry");
        let identities: HashSet<_> = group.iter().map(|uri| identity(rules, uri)).collect();
        assert_eq!(identities.len(), 1, "{group:?} are invalidated together");
        for key in keys {
            assert!(seen.insert(key), "{group:?} have an entry of their own");
        }
    }
}
