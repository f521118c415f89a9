use super::MemoryStore;
use crate::{
    build_error::BuildError,
    sequence::{DEFAULT_PREFIX_RECORDS, DEFAULT_TAG_RECORDS},
    store::Store,
};

/// Configures a [`MemoryStore`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct MemoryStoreBuilder {
    pub(super) capacity_bytes: u64,
    pub(super) max_response_share: f64,
    pub(super) max_tag_records: usize,
    pub(super) max_prefix_records: usize,
    pub(super) keeps_texts: bool,
}

impl MemoryStoreBuilder {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            max_response_share: 1.0 / 16.0,
            max_tag_records: DEFAULT_TAG_RECORDS,
            max_prefix_records: DEFAULT_PREFIX_RECORDS,
            keeps_texts: false,
        }
    }

    /// The largest part of the capacity that one response may take: more than 0, at most 1.
    /// Default: 1/16.
    ///
    /// The store is divided into shards, and a response has to fit into one: a share over 1/2 leaves a single
    /// shard.
    pub fn max_response_share(mut self, share: f64) -> Self {
        self.max_response_share = share;
        self
    }

    /// How many purges of tags, groups, prefixes of paths and of everything, and soft purges of URLs and
    /// keys, are kept at a time, each in about 100 bytes. Purging the same again takes no more. At the limit
    /// the oldest one is dropped, and all that began before it and was not checked since counts as purged.
    /// Default: 65,536.
    ///
    /// They are dropped anyway once all that is stored was checked, which takes a background task some
    /// seconds, and all fetches that began before are over. The default suffices for 10,000 different tags a
    /// second.
    pub fn max_tag_records(mut self, records: usize) -> Self {
        self.max_tag_records = records;
        self
    }

    /// As [`max_tag_records`](Self::max_tag_records), for purges of prefixes of keys and of patterns of
    /// paths, together. Default: 1,024. A miss compares its key and its path with all of them.
    pub fn max_prefix_records(mut self, records: usize) -> Self {
        self.max_prefix_records = records;
        self
    }

    /// Whether [snapshots](crate::store::Snapshot) can be taken of what is stored. The texts of tags and URLs
    /// are kept for that, which takes their length and 40 bytes each, charged to the response. Default: no.
    pub fn snapshots(mut self, keep_texts: bool) -> Self {
        self.keeps_texts = keep_texts;
        self
    }

    /// Makes the store.
    ///
    /// # Errors
    ///
    /// If the capacity or a number of records is zero, if the share is not more than 0 and at most 1, or if
    /// the largest response would have less than 640 bytes.
    pub fn build(self) -> Result<MemoryStore, BuildError> {
        if self.capacity_bytes == 0 {
            return Err(BuildError::EmptyStore);
        }
        if !(self.max_response_share > 0.0 && self.max_response_share <= 1.0) {
            return Err(BuildError::ResponseShare(self.max_response_share));
        }
        for (setting, records) in
            [("max_tag_records", self.max_tag_records), ("max_prefix_records", self.max_prefix_records)]
        {
            if records == 0 {
                let consequence = "each purge would purge everything";
                return Err(BuildError::ZeroLimit { setting, consequence });
            }
        }
        let store = MemoryStore::made_by(&self);
        BuildError::check_room(store.max_response_bytes())?;
        Ok(store)
    }
}

#[cfg(test)]
impl MemoryStoreBuilder {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        let Self { capacity_bytes: _, max_response_share, max_tag_records, max_prefix_records, keeps_texts } =
            self;
        vec![
            ("MemoryStoreBuilder::max_response_share", format!("1/{}", max_response_share.recip())),
            ("MemoryStoreBuilder::max_tag_records", max_tag_records.to_string()),
            ("MemoryStoreBuilder::max_prefix_records", max_prefix_records.to_string()),
            ("MemoryStoreBuilder::snapshots", crate::defaults::tests::switch(*keeps_texts)),
        ]
    }
}
