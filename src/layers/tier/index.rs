//! Which request fields select the responses of a key: read before the response itself, unless it is known.
//!
//! ```text
//! "TRTI" · schema · the whole key behind its length · sets of names, each behind its length · checksum (xxh3)
//! ```

use http::HeaderName;
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::xxh3_64;

use super::keys::{Id, Names};
use crate::key::CacheKey;

const MAGIC: &[u8] = b"TRTI\x01";

/// Different sets of selecting fields that are remembered for a key. The one that was seen last comes first.
pub(super) const MAX_SETS: usize = 4;

/// Selecting fields of one response.
const MAX_NAMES: usize = 32;

/// Keys whose selecting fields are remembered.
const MAX_KEYS: usize = 4096;

const CHECKSUM_BYTES: usize = 8;

/// The sets of fields that select the responses of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index(Vec<Names>);

impl Index {
    pub(super) fn sets(&self) -> &[Names] {
        &self.0
    }

    /// Adds a set in front of the others. Whether it was not there.
    pub(super) fn add(&mut self, names: &Names) -> bool {
        if names.len() > MAX_NAMES || self.0.contains(names) {
            return false;
        }
        self.0.insert(0, Names::clone(names));
        self.0.truncate(MAX_SETS);
        true
    }

    pub(super) fn to_bytes(&self, key: &CacheKey) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        push(&mut bytes, key.as_bytes());
        for names in &self.0 {
            let joined: Vec<_> = names.iter().map(HeaderName::as_str).collect();
            push(&mut bytes, joined.join(",").as_bytes());
        }
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// `None` if it is not the index of this key.
    pub(super) fn parse(bytes: &[u8], key: &CacheKey) -> Option<Self> {
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        let mut rest = content.strip_prefix(MAGIC)?;
        if checksum != xxh3_64(content).to_le_bytes() || take(&mut rest)? != key.as_bytes() {
            return None;
        }
        let mut sets = Vec::new();
        while !rest.is_empty() && sets.len() < MAX_SETS {
            let joined = take(&mut rest)?;
            let names = joined.split(|byte| *byte == b',').take(MAX_NAMES + 1);
            let names: Option<Vec<_>> = names.map(|name| HeaderName::from_bytes(name).ok()).collect();
            sets.push(names.filter(|names| names.len() <= MAX_NAMES)?.into());
        }
        Some(Self(sets))
    }
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(part);
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>()?;
    let (part, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = behind;
    Some(part)
}

/// The indexes that were read or written last, so that most reads know beforehand what to ask for.
pub(super) struct KnownIndexes(Cache<Id, Index>);

impl KnownIndexes {
    pub(super) fn new() -> Self {
        Self(Cache::new(MAX_KEYS))
    }

    pub(super) fn of(&self, key: &CacheKey) -> Index {
        self.0.get(&Id::of_key(key)).unwrap_or_default()
    }

    /// Adds a set to those of a key.
    pub(super) fn learn(&self, key: &CacheKey, names: &Names) {
        let mut index = self.of(key);
        if index.add(names) {
            self.note(key, &index);
        }
    }

    pub(super) fn note(&self, key: &CacheKey, index: &Index) {
        if !index.0.is_empty() {
            self.0.insert(Id::of_key(key), index.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    fn index() -> Index {
        let mut index = Index::default();
        assert!(index.add(&Names::from([header::ACCEPT])));
        assert!(index.add(&Names::from([header::ACCEPT, header::ORIGIN])));
        assert!(!index.add(&Names::from([header::ACCEPT])));
        index
    }

    #[test]
    fn an_index_comes_back_and_any_other_bytes_are_none() {
        let (key, index) = (CacheKey::new("/a"), index());
        let bytes = index.to_bytes(&key);
        assert_eq!(Index::parse(&bytes, &key), Some(index));
        assert_eq!(Index::parse(&bytes, &CacheKey::new("/b")), None, "that of another key");
        for length in 0..bytes.len() {
            assert_eq!(Index::parse(&bytes[..length], &key), None, "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Index::parse(&changed, &key), None, "changed at {at}");
        }
    }

    /// What earlier versions have written is read for as long as its version is.
    #[test]
    fn the_index_of_the_golden_file_is_read_and_written() {
        const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/index-1.bin");
        let key = CacheKey::new("/golden");
        let read = Index::parse(GOLDEN, &key).unwrap();
        let names: Vec<Vec<_>> =
            read.sets().iter().map(|names| names.iter().map(HeaderName::as_str).collect()).collect();
        assert_eq!(names, [vec!["accept", "origin"], vec!["accept-language"]]);
        assert_eq!(read.to_bytes(&key), GOLDEN);
    }

    #[test]
    fn an_index_of_another_version_is_skipped() {
        let (key, index) = (CacheKey::new("/a"), index());
        let written = index.to_bytes(&key);
        for version in [0, 2, 0xff] {
            let mut other = written[..written.len() - CHECKSUM_BYTES].to_vec();
            other[MAGIC.len() - 1] = version;
            other.extend_from_slice(&xxh3_64(&other).to_le_bytes());
            assert_eq!(Index::parse(&other, &key), None, "{version}");
        }
    }

    #[test]
    fn the_sets_that_were_seen_last_are_kept() {
        let mut index = Index::default();
        for number in 0..9 {
            index.add(&Names::from([HeaderName::try_from(format!("x-{number}")).unwrap()]));
        }
        assert_eq!(index.sets().len(), MAX_SETS);
        assert_eq!(index.sets()[0][0], "x-8");
        let many: Vec<_> = (0..40).map(|n| HeaderName::try_from(format!("x-{n}")).unwrap()).collect();
        assert!(!index.add(&many.into()), "no response has so many");
    }
}
