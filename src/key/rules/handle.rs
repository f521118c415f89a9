use std::{mem, sync::Arc};

use http::{Extensions, HeaderValue, Uri, request::Parts};
use parking_lot::RwLock;

use super::{
    KeyRules,
    error::{Problem, RuleError},
};
use crate::{
    build_error::BuildError,
    key::{self, CacheKey, KeyExtractor},
    tags::TagFields,
};

/// Rules that can be replaced while requests are served. Clones are handles to the same rules.
///
/// The rules at the arrival of a request apply to it in all layers and until its response is stored. The current
/// rules apply to purges and unsafe requests. A hit pays with a reference count and a read lock, which a writer
/// holds only while it swaps a pointer.
///
/// # What stays
///
/// Keys depend on the settings of a rule and not on its position, so entries are found as long as the settings
/// of their rule about keys stay the same: path, query, header fields, cookies, extensions and forwarding. Other
/// rules may be added, removed and moved. The name, the tags and the storing settings may change; stored
/// responses keep theirs. Entries without a rule also stay, unless a new rule is for them or the document begins
/// to ignore parameters.
///
/// * Entries that no request selects any more are evicted eventually; nothing is purged.
/// * **Earlier rules find their entries again**, which purges by URL and unsafe requests under other rules did
///   not reach. After going back to earlier rules, purge what has changed by tag, by prefix, or everything.
/// * A new [`Guard`](super::Guard) does not affect what is stored already.
/// * Policies from [`No-Vary-Search`](super::KeyRule::no_vary_search) are learned again, with one fetch for each
///   path.
///
/// ```
/// use tower_readthrough::{KeyRule, KeyRules, KeyRulesHandle, MemoryStore, ReadThroughLayer};
///
/// let product = || KeyRule::path("/product?pid={pid}&uid={_}");
/// let rules = KeyRulesHandle::new(KeyRules::builder().rule(product()).build()?)?;
/// let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).key(rules.clone()).build()?;
///
/// // Later, for example when a file has changed: the entries of products stay.
/// let account = KeyRule::path("/account/{**rest}").bypass();
/// let before = rules.replace(KeyRules::builder().rule(account).rule(product()).build()?)?;
/// # drop((cache, before));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyRulesHandle {
    current: Arc<RwLock<Arc<KeyRules>>>,
}

impl KeyRulesHandle {
    /// A handle to these rules, for the [key](crate::ReadThroughBuilder::key) of a stack.
    ///
    /// # Errors
    ///
    /// If a rule has a `body`: the layer that reads bodies has rules of its own.
    pub fn new(rules: KeyRules) -> Result<Self, RuleError> {
        check(&rules)?;
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(rules))) })
    }

    /// The current rules.
    pub fn current(&self) -> KeyRules {
        KeyRules::clone(&self.load())
    }

    /// Replaces the rules for all requests that arrive from now on, and returns the previous rules.
    ///
    /// # Errors
    ///
    /// If a rule has a `body`, or if the rules have other tag fields than before, which a stack reads when it is
    /// built. Then nothing changes.
    pub fn replace(&self, rules: KeyRules) -> Result<KeyRules, RuleError> {
        check(&rules)?;
        let rules = Arc::new(rules);
        let before = {
            let mut current = self.current.write();
            if current.tag_fields() != rules.tag_fields() {
                return Err(RuleError::of_all(Problem::OtherTagFields));
            }
            mem::replace(&mut *current, rules)
        };
        // Unwrapped, and possibly cloned, after the lock is released.
        Ok(Arc::unwrap_or_clone(before))
    }

    fn load(&self) -> Arc<KeyRules> {
        Arc::clone(&self.current.read())
    }
}

fn check(rules: &KeyRules) -> Result<(), RuleError> {
    let with_body = rules.rules().iter().find(|rule| rule.max_body().is_some());
    with_body.map_or(Ok(()), |rule| {
        let label = rules.label(rule).unwrap_or_default();
        Err(RuleError::of_rule(rule.index(), label, Problem::BodyHandle))
    })
}

/// The layers call [`edition`](KeyExtractor::edition), and use what it returns for everything else.
impl KeyExtractor for KeyRulesHandle {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        self.load().key(head)
    }

    fn write_key(&self, head: &Parts, buffer: &mut key::KeyBuffer) -> Result<(), key::Unkeyed> {
        self.load().write_key(head, buffer)
    }

    fn identity(&self, uri: &Uri, host: Option<&HeaderValue>, extensions: &Extensions) -> Option<CacheKey> {
        self.load().identity(uri, host, extensions)
    }

    fn edition(&self) -> Option<Arc<dyn KeyExtractor>> {
        Some(self.load())
    }

    fn tag_fields(&self) -> TagFields {
        self.load().tag_fields()
    }

    fn check(&self) -> Result<(), BuildError> {
        KeyExtractor::check(&*self.load())
    }

    fn normalise(&self, head: &mut Parts) {
        self.load().normalise(head);
    }

    fn prepare(&self, head: &mut Parts) {
        self.load().prepare(head);
    }
}
