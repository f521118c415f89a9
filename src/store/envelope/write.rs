//! Envelopes are written.

use http::HeaderMap;

use super::{
    Envelope, EnvelopeError, HEADER_BYTES, Header, MAX_FIELDS, MAX_HEAD_BYTES, MAX_TEXTS,
    header::{Flags, seal},
};
use crate::{http::fields, sequence::PurgeTexts, store::SelectingField};

/// The length of the body of which a frame was made, at the end of the head.
#[cfg(feature = "zstd")]
pub(super) const UNPACKED_LENGTH_BYTES: usize = size_of::<u64>();

/// All but the body, with room for `spare` bytes behind it. `frame`: what stands in place of the body.
pub(super) fn head(
    envelope: &Envelope,
    frame: Option<&[u8]>,
    spare: usize,
) -> Result<Vec<u8>, EnvelopeError> {
    let Envelope { key, snapshot, as_of } = envelope;
    let body = frame.unwrap_or(&snapshot.body);
    let (key, mut writer) = (key.as_bytes(), Writer(Vec::with_capacity(512)));
    let trailers = snapshot.trailers.as_ref();
    writer.fields(&snapshot.headers)?;
    if let Some(trailers) = trailers {
        writer.fields(trailers)?;
    }
    if let Some(selection) = &snapshot.selection {
        writer.selection(selection)?;
    }
    writer.texts(&snapshot.texts)?;
    if frame.is_some() {
        writer.0.extend_from_slice(&(snapshot.body.len() as u64).to_le_bytes());
    }
    let Writer(head) = writer;
    let header = Header {
        flags: Flags {
            has_trailers: trailers.is_some(),
            has_selection: snapshot.selection.is_some(),
            has_identity: snapshot.texts.identity.is_some(),
            is_unproven: snapshot.is_unproven,
            is_compressed: frame.is_some(),
            audience: snapshot.audience,
            ..Flags::default()
        },
        status: snapshot.status.as_u16(),
        fields: snapshot.headers.len(),
        trailers: trailers.map_or(0, HeaderMap::len),
        key_bytes: key.len(),
        head_bytes: head.len(),
        body_bytes: body.len(),
        received_at: snapshot.received_at,
        initial_age: snapshot.initial_age,
        delay: snapshot.delay,
        lifetimes: snapshot.lifetimes,
        stale_after: snapshot.stale_after,
        as_of: *as_of,
    };
    if header.fields + header.trailers > MAX_FIELDS || key.len() + head.len() > MAX_HEAD_BYTES {
        return Err(EnvelopeError::TooLarge);
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + key.len() + head.len() + spare);
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&head);
    seal(&mut bytes, body);
    Ok(bytes)
}

struct Writer(Vec<u8>);

impl Writer {
    fn count(&mut self, count: usize, most: usize) -> Result<(), EnvelopeError> {
        let short = u16::try_from(count).ok().filter(|_| count <= most).ok_or(EnvelopeError::TooLarge)?;
        self.0.extend_from_slice(&short.to_le_bytes());
        Ok(())
    }

    /// Behind its length.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), EnvelopeError> {
        // Early, so that a head that is too large is not written as a whole.
        if bytes.len() > MAX_HEAD_BYTES || self.0.len() > MAX_HEAD_BYTES {
            return Err(EnvelopeError::TooLarge);
        }
        self.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn fields(&mut self, fields: &HeaderMap) -> Result<(), EnvelopeError> {
        for (name, value) in fields {
            if fields::is_hop_by_hop(name) {
                return Err(EnvelopeError::Invalid);
            }
            self.bytes(name.as_str().as_bytes())?;
            self.bytes(value.as_bytes())?;
        }
        Ok(())
    }

    fn selection(&mut self, selection: &[SelectingField]) -> Result<(), EnvelopeError> {
        self.count(selection.len(), MAX_FIELDS)?;
        for SelectingField { name, value } in selection {
            self.bytes(name.as_str().as_bytes())?;
            self.0.push(u8::from(value.is_some()));
            if let Some(value) = value {
                self.bytes(&value.normal)?;
                self.bytes(&value.written)?;
            }
        }
        Ok(())
    }

    fn texts(&mut self, texts: &PurgeTexts) -> Result<(), EnvelopeError> {
        let PurgeTexts { urls, identity, tags, groups } = texts;
        if let Some(identity) = identity {
            self.bytes(identity)?;
        }
        self.count(urls.len(), MAX_TEXTS)?;
        urls.iter().try_for_each(|url| self.bytes(url.as_bytes()))?;
        self.count(tags.len(), MAX_TEXTS)?;
        tags.iter().try_for_each(|tag| self.bytes(tag))?;
        self.count(groups.len(), MAX_TEXTS)?;
        groups.iter().try_for_each(|(url, group)| {
            self.bytes(url.as_bytes())?;
            self.bytes(group.as_bytes())
        })
    }
}
