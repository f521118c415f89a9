//! What purges can match, and what they mean for those who wait for a fetch.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::key::CacheKey;
use crate::sequence::Sequence;
use crate::sequence::core::{FloorIndex, Matter, TagHash};
use crate::store::StoredResponse;

/// Groups count three times, and the path counts too.
const MAX_LABELS: usize = 1024;

/// Where a path is looked for in a key.
const MAX_SLASHES: usize = 8;

/// The host and four segments.
const USUAL_LABELS: usize = 5;

/// What purges can match of a response: its key, what its URI names, its tags, its path and the prefixes
/// of that.
#[derive(Debug)]
pub(crate) struct Subject {
    key: CacheKey,
    places: [FloorIndex; 2],
    /// In order, each once.
    labels: SmallVec<[TagHash; USUAL_LABELS]>,
    path: Path,
}

/// Of more paths than these a response is at any path.
const MAX_PATHS: usize = 8;

/// The path of the URL that was asked for, in its normal form. Several are one text, in lines, and an empty
/// one is any.
#[derive(Clone, Debug)]
enum Path {
    /// As it stands in the key, which most have.
    InKey {
        start: u32,
        length: u32,
    },
    Own(Box<str>),
}

impl Path {
    fn of(path: &str, key: &[u8]) -> Self {
        let bytes = path.as_bytes();
        let find = |(at, _): (usize, &u8)| key[at..].starts_with(bytes).then_some(at);
        // Few, so that no key makes this long.
        let start =
            key.iter().enumerate().filter(|(_, byte)| **byte == b'/').take(MAX_SLASHES).find_map(find);
        match (start.map(u32::try_from), u32::try_from(bytes.len())) {
            (Some(Ok(start)), Ok(length)) => Self::InKey { start, length },
            _ => Self::Own(path.into()),
        }
    }

    /// Of what was made of several responses.
    fn and(&self, other: &Self, key: &[u8], other_key: &[u8]) -> Self {
        let texts = [self.text(key), other.text(other_key)];
        let mut all: Vec<&str> = texts.iter().flat_map(|text| text.split('\n')).collect();
        all.sort_unstable();
        all.dedup();
        match all.len() {
            1 => self.clone(),
            2..=MAX_PATHS if !all.contains(&"") => Self::Own(all.join("\n").into()),
            _ => Self::Own("".into()),
        }
    }

    fn text<'a>(&'a self, key: &'a [u8]) -> &'a str {
        match self {
            Self::Own(path) => path,
            Self::InKey { start, length } => {
                let path = key.get(*start as usize..).and_then(|rest| rest.get(..*length as usize));
                path.and_then(|path| str::from_utf8(path).ok()).unwrap_or_default()
            }
        }
    }
}

impl Subject {
    pub(super) fn new(
        key: CacheKey,
        places: [FloorIndex; 2],
        labels: impl Iterator<Item = TagHash>,
        path: &str,
    ) -> Self {
        let path = Path::of(path, key.as_bytes());
        Self { key, places, labels: labels.collect(), path }
    }

    /// The same with more labels.
    pub(super) fn with(&self, labels: &[TagHash]) -> Self {
        let mut labels: Vec<_> = self.labels.iter().chain(labels).copied().collect();
        labels.sort_unstable();
        labels.dedup();
        let (key, path) = (self.key.clone(), self.path.clone());
        Self { key, places: self.places, labels: SmallVec::from_slice(&labels), path }
    }

    /// The same with the labels and the paths of another one.
    pub(crate) fn and(&self, other: &Self) -> Arc<Self> {
        let path = self.path.and(&other.path, self.key.as_bytes(), other.key.as_bytes());
        Arc::new(Self { path, ..self.with(&other.labels) })
    }

    /// Whether there are so many labels that to keep them all would be no good idea, and to keep
    /// some of them would let purges miss it.
    pub(crate) fn is_excessive(&self) -> bool {
        self.labels.len() > MAX_LABELS
    }

    /// The place of what the URI names, the one of the two that unsafe requests reach.
    pub(super) fn named(&self) -> FloorIndex {
        self.places[0]
    }

    pub(super) fn matter(&self) -> Matter<'_> {
        let key = self.key.as_bytes();
        Matter { key, places: self.places, labels: &self.labels, path: self.path.text(key) }
    }

    /// What it costs to keep, for the store's books. The key is in them already.
    pub(crate) fn bytes(&self) -> usize {
        // Two reference counts, and the steps in which allocators give memory.
        let labels = if self.labels.spilled() { self.labels.capacity() * size_of::<TagHash>() } else { 0 };
        let path = if let Path::Own(path) = &self.path { path.len() } else { 0 };
        2 * size_of::<usize>() + size_of::<Self>() + labels.next_multiple_of(16) + path.next_multiple_of(16)
    }
}

/// What a request knows of purges when it arrives.
#[derive(Clone, Debug)]
pub(crate) struct PurgeSnapshot {
    /// The number of the store's sequence.
    pub(crate) number: u64,
    /// The number of the last purge that matches the request.
    pub(crate) floor: u64,
    pub(crate) subject: Arc<Subject>,
    /// The address of the sequence, for comparison alone.
    pub(super) sequence: usize,
}

impl PurgeSnapshot {
    /// Whether it was noted by this sequence.
    pub(crate) fn is_of(&self, sequence: &Sequence) -> bool {
        self.sequence == sequence.address()
    }
}

/// Where an answer comes from, for those who did not fetch it themselves.
#[derive(Clone, Debug)]
pub(crate) struct Provenance {
    sequence: Arc<Sequence>,
    subject: Arc<Subject>,
    begun: u64,
    /// Nothing up to this number has purged it.
    checked: u64,
}

impl Provenance {
    /// Of a fetch.
    pub(crate) fn of_fetch(sequence: &Arc<Sequence>, subject: &Arc<Subject>, begun: u64) -> Self {
        Self { sequence: Arc::clone(sequence), subject: Arc::clone(subject), begun, checked: begun }
    }

    /// Of what is stored.
    pub(crate) fn of_stored(sequence: &Arc<Sequence>, stored: &StoredResponse) -> Self {
        let checked = stored.mark().checked();
        Self { checked, ..Self::of_fetch(sequence, stored.subject(), stored.begun()) }
    }

    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// Whether no purge lies between its beginning and the arrival of a request that waited for
    /// it, as far as that is known.
    ///
    /// The request has seen what purged its own subject, and waits with those who saw the same.
    /// What is left are the tags, and the URI of another request with the same key. Where nobody
    /// looked when the request arrived, anything that purged the answer counts.
    pub(crate) fn is_for(&self, arrival: Option<&PurgeSnapshot>) -> bool {
        let arrival = arrival.map(|arrival| (arrival.number, arrival.subject.matter()));
        self.sequence.purges().serves(&self.subject.matter(), self.checked, arrival)
    }

    /// Those whom it does not serve wait for a fetch that began after this.
    pub(crate) fn floor(&self) -> u64 {
        let purges = self.sequence.purges();
        let floor = purges.floor(&self.subject.matter());
        let dropped = purges.dropped();
        if dropped > self.checked { floor.max(dropped) } else { floor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_paths_are_kept_each_once_and_too_many_are_any() {
        let of = |path: &str| Path::of(path, b"key");
        let mut all = of("/0").and(&of("/0"), b"key", b"key");
        assert_eq!(all.text(b"key"), "/0");
        for number in 1..MAX_PATHS {
            all = all.and(&of(&format!("/{number}")), b"key", b"key");
        }
        assert_eq!(all.text(b"key").lines().count(), MAX_PATHS);
        let any = all.and(&of("/x"), b"key", b"key");
        assert_eq!(any.text(b"key"), "");
        assert_eq!(any.and(&of("/y"), b"key", b"key").text(b"key"), "");
        assert_eq!(of("/y").and(&any, b"key", b"key").text(b"key"), "");
    }
}
