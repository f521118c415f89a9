//! How the header fields of a request that has a key reach the origin.

use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};

use super::{
    classes::{Classified, CompiledClasses},
    guard::CompiledGuard,
    negotiation::Negotiation,
};
use crate::{
    http::request_fields::Keyed,
    key::{CacheKey, KeyBuffer},
};

/// Negotiated fields in their normal form, classes in place of what they classify, and nothing that the guard
/// removes.
#[derive(Debug, Default)]
pub(super) struct FieldNormaliser {
    negotiation: Negotiation,
    classes: CompiledClasses,
    guard: CompiledGuard,
}

impl FieldNormaliser {
    pub(super) fn new(negotiation: Negotiation, classes: CompiledClasses, guard: CompiledGuard) -> Self {
        Self { negotiation, classes, guard }
    }

    /// Whether all fields stay as they are.
    pub(super) fn is_nothing(&self) -> bool {
        self.negotiation.is_nothing() && self.classes.is_empty() && self.guard.is_nothing()
    }

    pub(super) fn guard(&self) -> &CompiledGuard {
        &self.guard
    }

    /// Changes the fields of a request. `keyed` returns what its key holds.
    pub(super) fn apply(&self, head: &mut Parts, keyed: impl FnOnce(&Parts) -> Keyed) {
        self.negotiation.apply(&mut head.headers);
        let asks_for_rule = self.guard.asks_for_rule();
        if !asks_for_rule && self.classes.is_empty() {
            return self.guard.strip(&mut head.headers, |_| false);
        }
        let keyed = keyed(head);
        // A key that is not made by these rules does not hold the class.
        let holds_classes = head.extensions.get::<CacheKey>().is_none() || self.classes.are_known(head);
        self.classes.apply(head, |name| holds_classes && keyed.fields().contains(name));
        self.guard.strip(&mut head.headers, |name| asks_for_rule && keyed.has_exactly(name));
    }

    /// The form in which a field is in the key and reaches the origin. `None`: as it is. `None` inside: not
    /// at all.
    pub(super) fn normal_form(&self, name: &HeaderName, headers: &HeaderMap) -> Option<Option<HeaderValue>> {
        self.negotiation.normal_form(name, headers)
    }

    /// The class of a request, if this field carries one.
    pub(super) fn class_of(&self, name: &HeaderName, head: &Parts) -> Option<HeaderValue> {
        self.classes.value_of(name, head)
    }

    /// The classes of a request from which nothing was removed yet, for a key that is made elsewhere.
    #[cfg(feature = "body-key")]
    pub(super) fn classify(&self, head: &Parts) -> Option<Classified> {
        self.classes.classify(head)
    }

    /// Forgets the classes that another layer found.
    pub(super) fn forget_classes(&self, head: &mut Parts) {
        if !self.classes.is_empty() {
            head.extensions.remove::<Classified>();
        }
    }

    /// Appends the fields that reach the origin although they may change a response in ways that its `Vary`
    /// does not tell.
    pub(super) fn push_guarded(&self, headers: &HeaderMap, key: &mut KeyBuffer) {
        self.guard.push_keyed(headers, key);
    }
}
