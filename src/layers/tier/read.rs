//! What the remote has for a request, and what of it can be used here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::{
    clock::Clock,
    handle::{Shared, until},
    index::Index,
    keys::Names,
};
use crate::{
    http::{
        not_stored::NotStored,
        request_fields::RequestFields,
        vary::{Forms, Selection},
    },
    key::CacheKey,
    observe::TierRead,
    remote::{RemoteError, RemoteRead},
    store::{self, Store},
};

/// A remote has a bound of its own for each call. This one is for those that have not, and for all that is read for
/// a request.
pub(super) const READ_BOUND: Duration = Duration::from_secs(1);

/// Sets of selecting fields that are tried in one read.
const MAX_TRIED: usize = super::index::MAX_SETS;

/// What a request asks for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) key: &'a CacheKey,
    pub(super) fields: &'a RequestFields<'a>,
    pub(super) max_body_bytes: usize,
}

/// What the remote has for a request, if anything, and what its clock says. The clock is missing if it did not
/// answer.
pub(super) struct Looked {
    pub(super) clock: Option<Clock>,
    pub(super) envelope: Result<store::Envelope, TierRead>,
}

impl Shared {
    /// Reads these keys, and waits until then at most. An error says why there is no answer.
    pub(super) async fn read(
        &self,
        keys: &[Vec<u8>],
        deadline: Instant,
    ) -> Result<(RemoteRead, Clock), TierRead> {
        let Some(breaker) = self.reading.call() else { return Err(TierRead::Open) };
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let sent_at = Instant::now();
        let answer = match until(deadline, async { self.remote.read(&keys).await }).await {
            Ok(read) if read.values.len() == keys.len() => {
                Clock::new(read.now_ms, sent_at).map(|clock| (read, clock)).ok_or(TierRead::Failed)
            }
            Err(RemoteError::Timeout(_)) => Err(TierRead::Timeout),
            _ => Err(TierRead::Failed),
        };
        match answer.is_ok() {
            true => breaker.succeeded(),
            false => breaker.failed(),
        }
        answer
    }

    /// Reads what there is for a request. In one round trip, unless there is a `Vary` that was not known.
    pub(super) async fn look(
        &self,
        wanted: Wanted<'_>,
        stored_here: Option<&[Arc<store::StoredResponse>]>,
    ) -> Looked {
        let Wanted { key, fields, .. } = wanted;
        let deadline = Instant::now() + READ_BOUND;
        let mut index = self.indexes.of(key);
        for response in stored_here.into_iter().flatten() {
            response.selection().into_iter().for_each(|selection| _ = index.add(selection.fields()));
        }
        let mut asked = vec![self.naming().index(key), self.naming().variant(key, None)];
        asked.extend(self.variants(key, index.sets(), fields.fields));
        let (first, clock) = match self.read(&asked, deadline).await {
            Ok(read) => read,
            Err(why) => return Looked { clock: None, envelope: Err(why) },
        };
        let mut values = first.values.into_iter();
        let there = values.next().flatten().and_then(|bytes| Index::parse(&bytes, key)).unwrap_or_default();
        let mut best = Best::new(wanted);
        values.flatten().for_each(|bytes| best.add(&bytes));
        let unknown: Vec<Names> =
            there.sets().iter().filter(|names| !index.sets().contains(names)).cloned().collect();
        unknown.iter().rev().for_each(|names| _ = index.add(names));
        self.indexes.note(key, &index);
        if !unknown.is_empty() {
            match self.read(&self.variants(key, &unknown, fields.fields), deadline).await {
                Ok((second, _)) => second.values.into_iter().flatten().for_each(|bytes| best.add(&bytes)),
                Err(why) => best.miss(why),
            }
        }
        Looked { clock: Some(clock), envelope: best.envelope }
    }

    fn variants(&self, key: &CacheKey, sets: &[Names], request: &HeaderMap) -> Vec<Vec<u8>> {
        let variant = |names| self.naming().variant(key, Some(&Selection::new(names, request)));
        sets.iter().take(MAX_TRIED).map(variant).collect()
    }
}

/// The response that came in last, of those that a request selects: it has superseded the others (RFC 9111 §4.1).
struct Best<'a> {
    wanted: Wanted<'a>,
    envelope: Result<store::Envelope, TierRead>,
}

impl<'a> Best<'a> {
    fn new(wanted: Wanted<'a>) -> Self {
        Self { wanted, envelope: Err(TierRead::Miss) }
    }

    fn add(&mut self, bytes: &Bytes) {
        let envelope = match store::Envelope::parse(bytes, self.wanted.max_body_bytes) {
            // Stored for requests without such credentials, as if it were not there (RFC 9111 §3.5).
            Ok(envelope) if !envelope.snapshot().is_for(self.wanted.fields.credentials) => return,
            Ok(envelope) if self.is_wanted(&envelope) => envelope,
            Ok(_) => return self.miss(TierRead::OtherKey),
            Err(why) => return self.miss(kind(why)),
        };
        let is_later =
            |other: &store::Envelope| envelope.snapshot().received_at > other.snapshot().received_at;
        if self.envelope.as_ref().map_or(true, is_later) {
            self.envelope = Ok(envelope);
        }
    }

    /// Notes why something that was there does not do, if nothing else does.
    fn miss(&mut self, why: TierRead) {
        if self.envelope.is_err() {
            self.envelope = Err(why);
        }
    }

    /// Whether it is of this key and variant: digests may be the same by chance.
    fn is_wanted(&self, envelope: &store::Envelope) -> bool {
        let Wanted { key, fields, .. } = self.wanted;
        envelope.key() == key && envelope.snapshot().selects(fields, &mut Forms::default())
    }
}

const fn kind(why: store::EnvelopeError) -> TierRead {
    match why {
        store::EnvelopeError::Foreign => TierRead::Foreign,
        store::EnvelopeError::Schema => TierRead::OtherSchema,
        store::EnvelopeError::Length => TierRead::WrongLength,
        store::EnvelopeError::Checksum => TierRead::WrongChecksum,
        store::EnvelopeError::TooLarge => TierRead::TooLarge,
        store::EnvelopeError::Invalid => TierRead::Invalid,
        store::EnvelopeError::Compressed => TierRead::Compressed,
    }
}

/// What of the remote can be used for a request.
pub(super) enum Usable {
    /// It is stored here, and fresh or stale.
    Stored(Arc<store::StoredResponse>),
    /// It is not known what was purged since: it is stored nowhere, and only the origin can say that it holds.
    Unproven(Arc<store::StoredResponse>),
    Nothing(TierRead),
}

/// Judges what the remote has by what this node knows of purges, and stores what is known to hold.
pub(super) fn judge<St: Store>(
    store: &St,
    tier: &Shared,
    (envelope, clock): (store::Envelope, Clock),
    request: &RequestFields<'_>,
) -> Usable {
    let (as_of, moment) = (envelope.as_of(), clock.for_reading());
    let (key, mut snapshot) = envelope.into_parts();
    // Before it is looked at what was purged: purges from now on reach what is loaded.
    let loading = store.sequence().begin_load();
    let is_dated = !clock.is_ahead(snapshot.received_at) && !snapshot.is_unproven;
    let begun = as_of.filter(|_| is_dated).and_then(|as_of| tier.journal().ok()?.begun(as_of));
    if begun.is_none() {
        // Nothing may use it but a revalidation.
        snapshot.lifetimes = store::Lifetimes {
            is_configured: snapshot.lifetimes.is_configured,
            ..store::Lifetimes::default()
        };
    }
    // Before the first purge: all that are known count.
    let Ok(response) = snapshot.restore_as(begun.unwrap_or(0), &key, &loading, moment) else {
        return Usable::Nothing(TierRead::Invalid);
    };
    if !store.sequence().admits(&response) {
        return Usable::Nothing(TierRead::Purged);
    }
    let response = Arc::new(response);
    match begun {
        Some(_) => put(store, &key, response, request),
        None => Usable::Unproven(response),
    }
}

fn put<St: Store>(
    store: &St,
    key: &CacheKey,
    response: Arc<store::StoredResponse>,
    request: &RequestFields<'_>,
) -> Usable {
    let here = store.get(key.as_bytes()).and_then(|entry| entry.select(request, store.sequence()).cloned());
    // Numbers alone do not tell: a purge of something else makes what comes from elsewhere look earlier.
    if here.is_some_and(|here| here.received_at() >= response.received_at()) {
        return Usable::Nothing(TierRead::Unneeded);
    }
    let (request, at) = (store::RequestHeaders::from(request.fields.clone()), Instant::now());
    let change = store::Change::Put { response: Arc::clone(&response), request, at };
    match store.apply(key, change) {
        store::Applied::Stored => Usable::Stored(response),
        store::Applied::NotStored(NotStored::TooLarge) => Usable::Nothing(TierRead::TooLarge),
        store::Applied::NotStored(NotStored::PurgedMeanwhile) => Usable::Nothing(TierRead::Purged),
        _ => Usable::Nothing(TierRead::Unneeded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_an_envelope_is_counted_under_its_own_name() {
        for why in store::EnvelopeError::ALL {
            assert_eq!(kind(why).as_str(), why.as_str());
        }
    }
}
