use std::{mem, sync::Arc};

use http::{Extensions, HeaderValue, Uri, request::Parts};
use parking_lot::RwLock;

use super::{
    super::{CacheKey, KeyBuffer, KeyExtractor, Unkeyed},
    KeyRules,
    error::{Problem, RuleError},
};
use crate::{build_error::BuildError, tags::TagFields};

/// Rules that can be replaced while requests are served; clones are handles to the same rules.
///
/// A request is under the rules that were there when it arrived, in all layers and until its response is
/// stored; a purge and an unsafe request are under those of the moment. A hit pays for that with a lock
/// that is only taken for writing for as long as a pointer takes to be exchanged, and a reference count.
///
/// # What stays
///
/// Keys depend on what a rule says and not on where it stands, so that what is stored is found again as
/// long as the rule for it says the same of keys: its path, its query, header fields, cookies, extensions
/// and whether it forwards what is not in the key. Other rules may come, go and move. Its name, its tags
/// and how long responses are stored may change; what is stored keeps those with which it was stored. So do
/// responses without a rule, unless a new one is for them or the document begins to ignore parameters.
///
/// * What no request finds any more is evicted in the end; nothing is purged.
/// * **Earlier rules find again what was stored by them**, without the purges by URL and the unsafe requests
///   in between, for these are under the rules of the moment. When going back, purge what has changed
///   since, by tag, by prefix, or everything.
/// * A new [`Guard`](super::Guard) does not undo what was stored before.
/// * What was learned from [`No-Vary-Search`](super::KeyRule::no_vary_search) is learned again, by one
///   fetch for each path.
///
/// ```
/// use tower_readthrough::{KeyRule, KeyRules, KeyRulesHandle, MemoryStore, ReadThroughLayer};
///
/// let product = || KeyRule::path("/product?pid={pid}&uid={_}");
/// let rules = KeyRulesHandle::new(KeyRules::builder().rule(product()).build()?)?;
/// let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(1 << 20)).key(rules.clone()).build()?;
///
/// // Later, for example when a file has changed: products stay warm.
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
    /// A handle to these rules, which a stack gets as its [key](crate::ReadThroughBuilder::key).
    ///
    /// # Errors
    ///
    /// If one of them has a `body`: the layer that reads bodies has rules of its own.
    pub fn new(rules: KeyRules) -> Result<Self, RuleError> {
        check(&rules)?;
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(rules))) })
    }

    /// The rules of the moment.
    pub fn current(&self) -> KeyRules {
        KeyRules::clone(&self.load())
    }

    /// Puts these rules into the place of those before, which it returns: whole, and for all requests that
    /// arrive from now on.
    ///
    /// # Errors
    ///
    /// If one of them has a `body`, or if they take tags from other fields than those before: a stack knows
    /// these since it was built. Then nothing has changed.
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
        // Not under the lock.
        Ok(Arc::unwrap_or_clone(before))
    }

    fn load(&self) -> Arc<KeyRules> {
        Arc::clone(&self.current.read())
    }
}

fn check(rules: &KeyRules) -> Result<(), RuleError> {
    let with_body = rules.rules().iter().find(|rule| rule.max_body.is_some());
    with_body.map_or(Ok(()), |rule| {
        let label = rules.source().rules.get(rule.index).map_or("", |rule| rule.label());
        Err(RuleError::of_rule(rule.index, label, Problem::BodyHandle))
    })
}

/// The layers ask for the [edition](KeyExtractor::edition), and that for all else.
impl KeyExtractor for KeyRulesHandle {
    fn key(&self, head: &Parts) -> Option<CacheKey> {
        self.load().key(head)
    }

    fn write_key(&self, head: &Parts, buffer: &mut KeyBuffer) -> Result<(), Unkeyed> {
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
