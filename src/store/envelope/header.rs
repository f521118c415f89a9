//! The first bytes of an envelope, of fixed length.

use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::Xxh3;

use super::{AsOf, EntryId, EnvelopeError, MAX_FIELDS, MAX_HEAD_BYTES, SCHEMA};
use crate::store::{Audience, Lifetimes};

const MAGIC: [u8; 4] = *b"TRTH";

pub(crate) const HEADER_BYTES: usize = 144;
const CHECKSUM_AT: usize = HEADER_BYTES - 16;

/// What may be there or not, in the order of its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) has_trailers: bool,
    pub(super) has_selection: bool,
    pub(super) has_identity: bool,
    pub(super) is_unproven: bool,
    pub(super) is_configured: bool,
    pub(super) forbids_stale: bool,
    pub(super) audience: Audience,
    pub(super) is_stale: bool,
    pub(super) has_as_of: bool,
    pub(super) is_compressed: bool,
}

impl Flags {
    fn to_bits(self) -> u16 {
        let Audience { authorization, cookie, token } = self.audience;
        let all = [
            self.has_trailers,
            self.has_selection,
            self.has_identity,
            self.is_unproven,
            self.is_configured,
            self.forbids_stale,
            authorization,
            cookie,
            token,
            self.is_stale,
            self.has_as_of,
            self.is_compressed,
        ];
        all.iter().enumerate().fold(0, |bits, (at, is_set)| bits | u16::from(*is_set) << at)
    }

    fn from_bits(bits: u16) -> Option<Self> {
        let is_set = |at: u16| bits >> at & 1 != 0;
        let flags = Self {
            has_trailers: is_set(0),
            has_selection: is_set(1),
            has_identity: is_set(2),
            is_unproven: is_set(3),
            is_configured: is_set(4),
            forbids_stale: is_set(5),
            audience: Audience { authorization: is_set(6), cookie: is_set(7), token: is_set(8) },
            is_stale: is_set(9),
            has_as_of: is_set(10),
            is_compressed: is_set(11),
        };
        (flags.to_bits() == bits).then_some(flags)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(super) flags: Flags,
    pub(super) status: u16,
    pub(super) fields: usize,
    pub(super) trailers: usize,
    pub(super) key_bytes: usize,
    pub(super) head_bytes: usize,
    pub(super) body_bytes: usize,
    pub(super) received_at: SystemTime,
    pub(super) initial_age: Duration,
    pub(super) delay: Duration,
    pub(super) lifetimes: Lifetimes,
    pub(super) stale_after: Option<Duration>,
    pub(super) as_of: Option<AsOf>,
}

impl Header {
    /// Reads a header, and checks the lengths in it against their bounds.
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES], max_body_bytes: usize) -> Result<Self, EnvelopeError> {
        let mut rest = Numbers(bytes);
        if rest.take() != MAGIC {
            return Err(EnvelopeError::Foreign);
        }
        if rest.u16() != SCHEMA {
            return Err(EnvelopeError::Schema);
        }
        let flags = Flags::from_bits(rest.u16()).ok_or(EnvelopeError::Invalid)?;
        let status = rest.u16();
        let [fields, trailers] = [rest.u16(), rest.u16()].map(usize::from);
        _ = rest.u16();
        let [key_bytes, head_bytes] = [rest.u32(), rest.u32()].map(|length| length as usize);
        let body_bytes = usize::try_from(rest.u64()).map_err(|_| EnvelopeError::TooLarge)?;
        let is_large = fields + trailers > MAX_FIELDS
            || key_bytes.saturating_add(head_bytes) > MAX_HEAD_BYTES
            || body_bytes > max_body_bytes;
        if is_large {
            return Err(EnvelopeError::TooLarge);
        }
        let received_at = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_nanos(rest.u64()))
            .ok_or(EnvelopeError::Invalid)?;
        let [initial_age, delay, fresh_for] = [rest.span(), rest.span(), rest.span()];
        let [stale_while_revalidate_for, stale_if_error_for] = [rest.span(), rest.span()];
        let [revalidate_for, stale_after] = [rest.span(), rest.span()];
        let lifetimes = Lifetimes {
            fresh_for,
            stale_while_revalidate_for,
            stale_if_error_for,
            revalidate_for,
            is_configured: flags.is_configured,
            forbids_stale: flags.forbids_stale,
        };
        let run = rest.u64();
        let as_of = AsOf { run, id: EntryId { millis: rest.u64(), number: rest.u64() }, nonce: rest.u64() };
        let header = Self {
            flags,
            status,
            fields,
            trailers,
            key_bytes,
            head_bytes,
            body_bytes,
            received_at,
            initial_age,
            delay,
            lifetimes,
            stale_after: flags.is_stale.then_some(stale_after),
            as_of: flags.has_as_of.then_some(as_of),
        };
        // One form for each meaning: what is absent is zero, and so is the padding.
        let is_exact = header.to_bytes()[..CHECKSUM_AT] == bytes[..CHECKSUM_AT];
        is_exact.then_some(header).ok_or(EnvelopeError::Invalid)
    }

    /// All of it but for the checksum.
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let flags = Flags {
            is_configured: self.lifetimes.is_configured,
            forbids_stale: self.lifetimes.forbids_stale,
            is_stale: self.stale_after.is_some(),
            has_as_of: self.as_of.is_some(),
            ..self.flags
        };
        let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let long = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let received_at = self.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let Lifetimes { fresh_for, stale_while_revalidate_for, stale_if_error_for, revalidate_for, .. } =
            self.lifetimes;
        let AsOf { run, id, nonce } = self.as_of.unwrap_or(AsOf { run: 0, id: EntryId::default(), nonce: 0 });
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        for number in [SCHEMA, flags.to_bits(), self.status, short(self.fields), short(self.trailers), 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [long(self.key_bytes), long(self.head_bytes)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let times = [
            received_at,
            self.initial_age,
            self.delay,
            fresh_for,
            stale_while_revalidate_for,
            stale_if_error_for,
            revalidate_for,
            self.stale_after.unwrap_or_default(),
        ];
        let numbers = [self.body_bytes as u64].into_iter().chain(times.map(nanos));
        for number in numbers.chain([run, id.millis, id.number, nonce]) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let mut header = [0; HEADER_BYTES];
        for (to, from) in header.iter_mut().zip(bytes) {
            *to = from;
        }
        header
    }

    /// The length of the body alone, as it stands there.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// The length of the whole envelope.
    pub(crate) fn envelope_bytes(&self) -> usize {
        HEADER_BYTES.saturating_add(self.key_bytes + self.head_bytes).saturating_add(self.body_bytes)
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether the checksum is that of the rest. `header` and `rest` are the whole envelope.
pub(super) fn is_sealed(header: &[u8; HEADER_BYTES], rest: &[u8]) -> bool {
    header[CHECKSUM_AT..] == checksum(header, [rest])
}

/// Writes the checksum into the header. `head` is all of the envelope but its body.
pub(super) fn seal(head: &mut [u8], body: &[u8]) {
    let Some((header, rest)) = head.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let sum = checksum(header, [rest, body]);
    header[CHECKSUM_AT..].copy_from_slice(&sum);
}

fn checksum<'a>(header: &[u8; HEADER_BYTES], rest: impl IntoIterator<Item = &'a [u8]>) -> [u8; 16] {
    let mut sum = Xxh3::new();
    sum.update(&header[..CHECKSUM_AT]);
    rest.into_iter().for_each(|part| sum.update(part));
    sum.digest128().to_le_bytes()
}

/// Numbers one behind the other. Behind the end all are 0.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn span(&mut self) -> Duration {
        match self.u64() {
            u64::MAX => Duration::MAX,
            nanos => Duration::from_nanos(nanos),
        }
    }
}
