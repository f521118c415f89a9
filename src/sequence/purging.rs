//! What a purge reaches, and how it is carried out.

use std::sync::Arc;

use http::request::Parts;
use smallvec::SmallVec;

use super::{
    Sequence, Strength, core,
    core::{PurgeKind, TagHash},
    message,
};
use crate::key::{self, KeyExtractor};

/// Longer prefixes of keys are cut off here, and purge more.
const MAX_PREFIX_BYTES: usize = 1024;

/// What is to be purged, hashed: no code of the application is needed any more.
#[derive(Clone, Debug)]
pub(crate) enum Purging {
    Floors(SmallVec<[core::FloorIndex; 2]>),
    Tags(SmallVec<[TagHash; 2]>),
    KeyPrefix(Box<[u8]>),
    Paths(Box<core::Pattern>),
}

impl Purging {
    pub(crate) fn everything() -> Self {
        Self::tag(TagHash::EVERYTHING)
    }

    fn tag(tag: TagHash) -> Self {
        Self::Tags([tag].into_iter().collect())
    }
}

impl Sequence {
    /// All that the target of a request may name.
    pub(crate) fn of_target(&self, extractor: &dyn KeyExtractor, head: &Parts) -> Purging {
        let target = key::Target::of(head, key::Origins::of(extractor));
        let hashes = target.hashes_named(extractor, (&head.uri, &head.extensions), &self.hasher);
        Purging::Floors(hashes.iter().map(|hash| self.floor(*hash)).collect())
    }

    pub(crate) fn of_key(&self, key: &key::CacheKey) -> Purging {
        Purging::Floors([self.key_floor(key)].into_iter().collect())
    }

    pub(crate) fn of_tag(&self, tag: &str) -> Purging {
        Purging::tag(self.tag(tag.as_bytes()))
    }

    /// Everything at the target's path and below.
    pub(crate) fn of_path(&self, extractor: &dyn KeyExtractor, head: &Parts) -> Purging {
        let hash = key::Target::of(head, key::Origins::of(extractor)).path_hashes(&self.hasher).last();
        Purging::tag(hash.map_or(TagHash::EVERYTHING, TagHash::new))
    }

    /// Everything at the paths of a pattern, of the host of `host` if there is one.
    pub(crate) fn of_paths(
        &self,
        extractor: &dyn KeyExtractor,
        host: Option<&Parts>,
        paths: &core::Glob,
    ) -> Purging {
        let first = |head| {
            key::Target::of(head, key::Origins::of(extractor))
                .path_hashes(&self.hasher)
                .next()
                .map(TagHash::new)
        };
        Purging::Paths(Box::new(core::Pattern::new(host.and_then(first), paths.clone())))
    }

    pub(crate) fn of_key_prefix(&self, prefix: &[u8]) -> Purging {
        Purging::KeyPrefix(prefix[..prefix.len().min(MAX_PREFIX_BYTES)].into())
    }

    /// A group of the origin of a target (RFC 9875 §3).
    pub(crate) fn of_group(&self, group: &str, target: key::Target<'_>) -> Purging {
        let hashes = target.groups_to_purge(group, &self.hasher);
        Purging::Tags(hashes.into_iter().map(TagHash::new).collect())
    }

    /// Purges, and returns the least and the last number that this took.
    pub(crate) fn purge(&self, what: &Purging, strength: Strength) -> (u64, u64) {
        let numbers = |numbers: &mut dyn Iterator<Item = u64>| {
            let first = numbers.next().unwrap_or_else(|| self.current());
            (first, numbers.last().unwrap_or(first))
        };
        match what {
            Purging::Floors(floors) => {
                numbers(&mut floors.iter().map(|floor| self.purge_one(PurgeKind::Floor(*floor), strength)))
            }
            Purging::Tags(tags) => {
                numbers(&mut tags.iter().map(|tag| self.purge_one(PurgeKind::Tag(*tag), strength)))
            }
            Purging::KeyPrefix(prefix) => {
                numbers(&mut [self.purge_one(PurgeKind::KeyPrefix(prefix), strength)].into_iter())
            }
            Purging::Paths(pattern) => {
                numbers(&mut [self.purge_one(PurgeKind::Paths(pattern), strength)].into_iter())
            }
        }
    }

    /// Purges, and lets the other processes of a cluster know, if there is one. Returns the last number.
    pub(crate) fn purge_as(
        &self,
        message: impl FnOnce() -> message::Message,
        what: &Purging,
        strength: Strength,
    ) -> (u64, Option<Arc<dyn message::Receipt>>) {
        let Some(journal) = self.journal() else { return (self.purge(what, strength).1, None) };
        let mut last = 0;
        let purge = &mut || {
            let (first, end) = self.purge(what, strength);
            last = end;
            first
        };
        let (_, receipt) = journal.record(&message(), false, purge);
        (last, Some(receipt))
    }

    /// As an unsafe request does (RFC 9111 §4.4): invalidates all of these hashes, and lets the others know.
    pub(crate) fn invalidate_as(&self, message: impl FnOnce() -> Option<message::Message>, hashes: &[u64]) {
        let Some(journal) = self.journal() else {
            return hashes.iter().for_each(|hash| self.invalidate(*hash));
        };
        let purge = &mut || {
            let first = self.current().saturating_add(1);
            // Not only where something began here: elsewhere it may have.
            hashes.iter().for_each(|hash| self.purges.invalidate_always(self.floor(*hash)));
            first
        };
        journal.record(&message().unwrap_or_else(message::Message::doubt), true, purge);
    }

    /// As a response to an unsafe request does that names a group.
    pub(crate) fn purge_group_as(&self, message: impl FnOnce() -> Option<message::Message>, what: &Purging) {
        let purge = || self.purge(what, Strength::Hard).0;
        match self.journal() {
            None => _ = purge(),
            Some(journal) => {
                let message = message().unwrap_or_else(message::Message::doubt);
                journal.record(&message, true, &mut { purge });
            }
        }
    }

    /// Invalidates the URI or key of this hash, as an unsafe request does (RFC 9111 §4.4).
    fn invalidate(&self, hash: u64) {
        self.purges.invalidate(self.floor(hash));
    }

    fn purge_one(&self, what: PurgeKind<'_>, strength: Strength) -> u64 {
        let effect = match strength {
            Strength::Hard => core::Effect::Gone,
            Strength::Soft => core::Effect::StaleSince(self.moment()),
            Strength::Unproven => core::Effect::Unproven,
        };
        let number = self.purges.purge(what, effect);
        if !matches!((what, strength), (PurgeKind::Floor(_), Strength::Hard)) {
            self.purged.notify_one();
        }
        number
    }
}
