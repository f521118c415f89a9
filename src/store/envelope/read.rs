//! Envelopes are read. Nothing in here trusts what it reads.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    Envelope, EnvelopeError, HEADER_BYTES, Header, MAX_FIELDS, MAX_TEXTS,
    header::{Flags, is_sealed},
};
use crate::{
    http::fields,
    key::CacheKey,
    sequence::PurgeTexts,
    store::{SelectingField, SelectingValue, Snapshot},
};

pub(super) fn envelope(bytes: &Bytes, max_body_bytes: usize) -> Result<Envelope, EnvelopeError> {
    let Some((first, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        // Cut even before the end of the header, if it is one.
        return Err(if bytes.starts_with(b"TRTH") { EnvelopeError::Length } else { EnvelopeError::Foreign });
    };
    let header = Header::parse(first, max_body_bytes)?;
    if header.envelope_bytes() != bytes.len() {
        return Err(EnvelopeError::Length);
    }
    if !is_sealed(first, rest) {
        return Err(EnvelopeError::Checksum);
    }
    let Header { flags, key_bytes, head_bytes, body_bytes, .. } = header;
    let mut reader = Reader(rest.get(..key_bytes + head_bytes).ok_or(EnvelopeError::Length)?);
    let key = CacheKey::new(reader.take(key_bytes)?);
    // Not copied, since a store packs the values of a head; trailers are kept as they are.
    let shared = |value: &[u8]| HeaderValue::from_maybe_shared(bytes.slice_ref(value));
    let headers = reader.fields(header.fields, shared)?;
    let trailers =
        flags.has_trailers.then(|| reader.fields(header.trailers, HeaderValue::from_bytes)).transpose()?;
    let selection = flags.has_selection.then(|| reader.selection()).transpose()?;
    let texts = reader.texts(flags)?;
    let stored = bytes.slice(bytes.len() - body_bytes..);
    let body = if flags.is_compressed { reader.unpack(&stored, max_body_bytes)? } else { stored };
    let is_exact = reader.0.is_empty() && (flags.has_trailers || header.trailers == 0);
    let status = StatusCode::from_u16(header.status).ok().filter(|_| is_exact);
    let snapshot = Snapshot {
        status: status.ok_or(EnvelopeError::Invalid)?,
        headers,
        body,
        trailers,
        selection,
        lifetimes: header.lifetimes,
        audience: flags.audience,
        received_at: header.received_at,
        initial_age: header.initial_age,
        delay: header.delay,
        stale_after: header.stale_after,
        is_unproven: flags.is_unproven,
        texts,
    };
    Ok(Envelope { key, snapshot, as_of: header.as_of })
}

/// What is not read yet of key and head.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], EnvelopeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(EnvelopeError::Invalid)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(EnvelopeError::Invalid)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn count(&mut self, most: usize) -> Result<usize, EnvelopeError> {
        let count = usize::from(u16::from_le_bytes(self.number()?));
        if count > most { Err(EnvelopeError::TooLarge) } else { Ok(count) }
    }

    fn bytes(&mut self) -> Result<&'a [u8], EnvelopeError> {
        let length = u32::from_le_bytes(self.number()?);
        self.take(usize::try_from(length).map_err(|_| EnvelopeError::Invalid)?)
    }

    fn text(&mut self) -> Result<String, EnvelopeError> {
        str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| EnvelopeError::Invalid)
    }

    /// In the form in which it is written: names that are only alike were not written here.
    fn name(&mut self) -> Result<HeaderName, EnvelopeError> {
        let bytes = self.bytes()?;
        let name = HeaderName::from_bytes(bytes).map_err(|_| EnvelopeError::Invalid)?;
        if name.as_str().as_bytes() == bytes { Ok(name) } else { Err(EnvelopeError::Invalid) }
    }

    fn fields<E>(
        &mut self,
        count: usize,
        to_value: impl Fn(&[u8]) -> Result<HeaderValue, E>,
    ) -> Result<HeaderMap, EnvelopeError> {
        let mut fields = HeaderMap::with_capacity(count);
        for _ in 0..count {
            let name = self.name()?;
            let value = to_value(self.bytes()?).map_err(|_| EnvelopeError::Invalid)?;
            if fields::is_hop_by_hop(&name) {
                return Err(EnvelopeError::Invalid);
            }
            fields.append(name, value);
        }
        Ok(fields)
    }

    fn selection(&mut self) -> Result<Vec<SelectingField>, EnvelopeError> {
        let count = self.count(MAX_FIELDS)?;
        (0..count).map(|_| self.selecting_field()).collect()
    }

    fn selecting_field(&mut self) -> Result<SelectingField, EnvelopeError> {
        let name = self.name()?;
        let value = match self.number()? {
            [0] => None,
            [1] => Some(SelectingValue { normal: self.bytes()?.into(), written: self.bytes()?.into() }),
            _ => return Err(EnvelopeError::Invalid),
        };
        Ok(SelectingField { name, value })
    }

    /// The body of which a frame of zstd was made.
    fn unpack(&mut self, frame: &[u8], max_body_bytes: usize) -> Result<Bytes, EnvelopeError> {
        let length = u64::from_le_bytes(self.number()?);
        let length = usize::try_from(length).ok().filter(|length| *length <= max_body_bytes);
        let length = length.ok_or(EnvelopeError::TooLarge)?;
        // What does not get smaller is not compressed.
        if length <= frame.len() {
            return Err(EnvelopeError::Invalid);
        }
        #[cfg(feature = "zstd")]
        return super::compression::unpack(frame, length).map(Bytes::from);
        #[cfg(not(feature = "zstd"))]
        Err(EnvelopeError::Compressed)
    }

    fn texts(&mut self, flags: Flags) -> Result<PurgeTexts, EnvelopeError> {
        let identity = flags.has_identity.then(|| self.bytes()).transpose()?.map(<[u8]>::to_vec);
        let urls = (0..self.count(MAX_TEXTS)?).map(|_| self.text()).collect::<Result<_, _>>()?;
        let tags = (0..self.count(MAX_TEXTS)?).map(|_| self.bytes().map(<[u8]>::to_vec));
        let tags = tags.collect::<Result<_, _>>()?;
        let groups = (0..self.count(MAX_TEXTS)?).map(|_| Ok((self.text()?, self.text()?)));
        let groups = groups.collect::<Result<_, _>>()?;
        Ok(PurgeTexts { urls, identity, tags, groups })
    }
}
