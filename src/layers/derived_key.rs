//! Keys that a layer derives for a request, for itself and for the layers below.

use http::{Request, request::Parts};
use http_body::Body as HttpBody;
use smallvec::SmallVec;

use crate::{
    exchange::CacheRequest,
    http::{
        request_fields::{Credentials, Keyed, RequestFields},
        rules,
    },
    key,
};

/// A layer above has looked for a key, and there is none: in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithoutKey;

/// Puts the key of a request into its extensions, or that it has none. Also returns why, if responses to
/// such requests say it.
pub(crate) fn derive<B: HttpBody>(
    extractor: &dyn key::KeyExtractor,
    rules: &rules::RequestRules,
    request: Request<B>,
) -> (Parts, B, Option<key::Unkeyed>) {
    let edition = extractor.edition();
    let extractor = edition.as_deref().unwrap_or(extractor);
    let is_for_cache = key::is_for_cache(&request);
    let why = if is_for_cache { None } else { key::Unkeyed::of(&request) };
    let (mut head, body) = request.into_parts();
    // What a cache above this one has asked is not what is asked here.
    head.extensions.remove::<CacheRequest>();
    if is_for_cache {
        extractor.note(&mut head);
    }
    // Before what follows changes the URI.
    match identity_of(extractor, &head) {
        Some(identity) => drop(head.extensions.insert(identity)),
        None => drop(head.extensions.remove::<key::Identity>()),
    }
    let mut buffer = key::KeyBuffer::new();
    let found = match is_for_cache {
        true => {
            key::find(extractor, rules, &head, &RequestFields::of(&head.headers), &mut buffer).map_err(Some)
        }
        false => Err(why),
    };
    match found {
        Ok(()) => {
            key::normalise(extractor, rules, &mut head, &mut buffer);
            key::prepare(extractor, &buffer, &mut head);
            head.extensions.insert(buffer.to_key());
            note_facts(rules, &mut head, buffer.keyed());
            (head, body, None)
        }
        Err(why) => {
            head.extensions.remove::<key::CacheKey>();
            head.extensions.remove::<key::KeyFacts>();
            head.extensions.insert(WithoutKey);
            (head, body, why)
        }
    }
}

/// What the target of a request names, if it is not its URI alone.
fn identity_of(extractor: &dyn key::KeyExtractor, head: &Parts) -> Option<key::Identity> {
    let (_, host) = key::Target::of(head, key::Origins::default()).parts();
    let mut named = SmallVec::new();
    match key::is_get_or_head(&head.method) || key::is_read_by_rule(&head.extensions) {
        true => named.push(extractor.identity(&head.uri, host, &head.extensions)),
        false => {
            let mut each = |identity| named.push(identity);
            extractor.identities(&head.uri, host, &head.extensions, &mut each);
        }
    }
    named.iter().any(Option::is_some).then_some(key::Identity(named))
}

/// As [`derive()`], by a layer that needs a key and may stand alone: not if a layer above has looked for one.
pub(crate) fn derive_alone<B: HttpBody>(
    extractor: &dyn key::KeyExtractor,
    rules: &rules::RequestRules,
    request: Request<B>,
) -> (Parts, B, Option<key::Unkeyed>) {
    let extensions = request.extensions();
    let is_known = extensions.get::<CacheRequest>().is_some()
        || extensions.get::<WithoutKey>().is_some()
        || extensions.get::<key::CacheKey>().is_some();
    // What never has a key costs nothing here.
    if is_known || !key::is_get_or_head(request.method()) {
        let (head, body) = request.into_parts();
        return (head, body, None);
    }
    derive(extractor, rules, request)
}

/// Notes for the layers below what the fields of the request do not say.
fn note_facts(rules: &rules::RequestRules, head: &mut Parts, keyed: &Keyed) {
    match keyed.is_nothing() && rules.credentials.is_default() {
        true => drop(head.extensions.remove::<key::KeyFacts>()),
        false => {
            let credentials = Credentials::of(&head.headers, &rules.credentials, keyed);
            head.extensions.insert(key::KeyFacts::new(keyed.clone(), credentials));
        }
    }
}
