//! What the responses to unsafe requests invalidate.

use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as HttpBody;

use crate::{
    http::response_fields::{self, PassedFields},
    key,
    observe::{PurgeKind, Stats},
    sequence::{Message, MessageKind, Sequence, Strength},
    tags::{self, TagFields},
};

/// Where things are invalidated, and what names them.
pub(crate) trait Invalidates: Send + Sync {
    fn sequence(&self) -> &Sequence;
    fn extractor(&self) -> &dyn key::KeyExtractor;
    /// What counts the invalidations, if something does.
    fn stats(&self) -> Option<&Stats>;
}

/// What an unsafe request invalidates once it has succeeded (RFC 9111 §4.4), and what its response
/// says that it invalidates (RFC 9875 §3).
pub(crate) struct Invalidation {
    place: Arc<dyn Invalidates>,
    /// What names things there, if that may change.
    edition: Option<Arc<dyn key::KeyExtractor>>,
    /// Of what the target names for one request or another.
    hashes: key::Hashes,
    uri: Uri,
    host: Option<HeaderValue>,
}

impl Invalidation {
    /// None for methods that are known to be safe (RFC 9110 §9.2.1, and QUERY), and for what a rule
    /// says to be a read.
    #[inline]
    pub(crate) fn of<B>(place: &Arc<impl Invalidates + 'static>, request: &Request<B>) -> Option<Self> {
        // In one expression: it is large, and made where it stays.
        (!is_safe(request.method(), request.extensions())).then(|| {
            let edition = place.extractor().edition();
            let extractor = edition.as_deref().unwrap_or(place.extractor());
            let target = key::Target::of_request(request, key::Origins::of(extractor));
            let hasher = place.sequence().hasher();
            let named = (request.uri(), request.extensions());
            let hashes = target.hashes_named(extractor, named, hasher);
            let (uri, host) = target.parts();
            let (uri, host) = (uri.clone(), host.cloned());
            Self { place: Arc::clone(place) as _, edition, hashes, uri, host }
        })
    }

    /// The target URI, unless the request failed; if it succeeded, also what `Location` and
    /// `Content-Location` refer to on the same origin. The target of a redirection is only where
    /// the client goes next, for example after a login.
    fn apply(&self, status: StatusCode, headers: &HeaderMap, mentions: PassedFields) {
        if mentions.has_groups {
            self.purge_groups(headers);
        }
        if !(status.is_success() || status.is_redirection()) {
            return;
        }
        if let Some(stats) = self.place.stats() {
            stats.purged(PurgeKind::Invalidation, Strength::Hard);
        }
        let sequence = self.place.sequence();
        let message = || invalidated(self.target_by(self.extractor()).to_text());
        sequence.invalidate_as(message, &self.hashes);
        let has_reference = status.is_success() && mentions.has_reference;
        if has_reference {
            self.invalidate_references(headers, self.extractor());
        }
        if let Some(later) = self.later_edition() {
            let target = self.target_by(&*later);
            let named = (&self.uri, &Extensions::new());
            let hashes = target.hashes_named(&*later, named, sequence.hasher());
            sequence.invalidate_as(|| invalidated(target.to_text()), &hashes);
            if has_reference {
                self.invalidate_references(headers, &*later);
            }
        }
    }

    fn invalidate_references(&self, headers: &HeaderMap, extractor: &dyn key::KeyExtractor) {
        let sequence = self.place.sequence();
        for field in [&header::LOCATION, &header::CONTENT_LOCATION] {
            // Some write it without encoding it.
            let reference = headers.get(field).and_then(|line| str::from_utf8(line.as_bytes()).ok());
            let Some(reference) = reference else { continue };
            let target = self.target_by(extractor);
            let hashes = target.hashes_of_reference(reference, extractor, sequence.hasher());
            if !hashes.is_empty() {
                sequence.invalidate_as(|| invalidated(target.text_of_reference(reference)), &hashes);
            }
        }
    }

    /// What names things now, if that is something else than when the request arrived: what was stored in
    /// between has names by this.
    fn later_edition(&self) -> Option<Arc<dyn key::KeyExtractor>> {
        let now = self.place.extractor().edition()?;
        let is_same = self.edition.as_ref().is_some_and(|then| Arc::ptr_eq(then, &now));
        (!is_same).then_some(now)
    }

    fn target_by<'a>(&'a self, extractor: &'a dyn key::KeyExtractor) -> key::Target<'a> {
        key::Target::new(&self.uri, self.host.as_ref(), key::Origins::of(extractor))
    }

    fn extractor(&self) -> &dyn key::KeyExtractor {
        self.edition.as_deref().unwrap_or(self.place.extractor())
    }

    /// Purges the groups of the same origin that the response names, whatever its status.
    fn purge_groups(&self, headers: &HeaderMap) {
        let sequence = self.place.sequence();
        for group in tags::groups(headers, &tags::CACHE_GROUP_INVALIDATION) {
            let target = self.target_by(self.extractor());
            let message = || {
                let argument = format!("{}\n{group}", target.to_text()?);
                Some(Message::new(MessageKind::Group, argument.as_bytes(), Strength::Hard))
            };
            sequence.purge_group_as(message, &sequence.of_group(&group, target));
        }
    }
}

/// `None`: what was invalidated cannot be said.
fn invalidated(url: Option<String>) -> Option<Message> {
    Some(Message::new(MessageKind::Url, url?.as_bytes(), Strength::Hard))
}

fn is_safe(method: &Method, extensions: &Extensions) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::CONNECT)
        || method.as_str() == "QUERY"
        || key::is_read_by_rule(extensions)
}

/// Applies what a response that is passed on invalidates, and removes what is not for the client.
pub(crate) fn pass_on<B: HttpBody>(
    response: &mut Response<B>,
    invalidation: Option<&Invalidation>,
    strips_tags: Option<&TagFields>,
) {
    if invalidation.is_none() && strips_tags.is_none() {
        return response_fields::settle_length(response);
    }
    let mentions = PassedFields::of(response.headers());
    mentions.settle_length(response);
    if let Some(invalidation) = invalidation {
        invalidation.apply(response.status(), response.headers(), mentions);
    }
    if let Some(own) = strips_tags
        && (mentions.has_tags || own.are_in(response.headers()))
    {
        tags::strip(response.headers_mut(), own);
    }
}
