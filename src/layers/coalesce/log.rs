//! What a fetch has brought so far, and which of its readers still need it.
//!
//! The log is a queue of chunks. Each chunk knows how many readers read it next, so that advancing a
//! reader and finding the slowest one cost the same however many there are. All offsets are in charged
//! bytes from the beginning of the body; an index is the number of a chunk since then.
//!
//! A log is open or closed. While it is open its first chunk is kept, and readers can subscribe at any
//! time. Once closed, it drops every chunk that has no reader left. A body that outgrows
//! [`Bounds::max_held`] closes its log and turns it into a window around the fastest reader.
//!
//! Nothing here waits, locks or wakes: [`Flight`](super::flight::Flight) does. Chunks that go are
//! returned in a [`Dropped`], so that they are freed after the lock.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::body::BodyError;

/// The largest window, however much may be held of a body.
const MAX_WINDOW: usize = 4 << 20;

/// A complete body of one chunk up to this size is handed to its readers whole.
const SMALL: usize = 64 << 10;

/// Charged for a chunk in addition to its bytes.
const CHUNK_OVERHEAD: usize = 64;

#[derive(Clone, Debug)]
pub(super) enum Chunk {
    Data(Bytes),
    Trailers(Arc<HeaderMap>),
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Log {
    chunks: VecDeque<Entry>,
    /// The index of the first chunk that is still held.
    first: usize,
    /// The offset of that chunk.
    start: u64,
    /// The offset of the end of the last chunk.
    total: u64,
    /// The offset of the fastest reader.
    fastest: u64,
    end: Option<Result<(), BodyError>>,
    /// Readers that have not lost their place.
    readers: usize,
    /// Those of them that have read all there is.
    at_end: usize,
    body_bytes: u64,
    /// The body is not held from its first chunk on, but in a window.
    is_window: bool,
    /// No reader may subscribe any more.
    is_closed: bool,
    /// The fetch waits for a reader.
    is_waiting: bool,
    /// No reader has moved for too long: the fetch does not wait for them any more.
    is_unpaced: bool,
    /// The error for readers that lost their place.
    lost: Option<BodyError>,
    /// When the last reader left, if none has come since.
    unread_since: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    chunk: Chunk,
    /// The offset of its end.
    end: u64,
    /// The readers that read it next.
    readers: usize,
}

/// What a log does not hold any more. To be dropped where no lock is held.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    chunks: SmallVec<[Chunk; 2]>,
    /// The charged bytes that are free again.
    pub(super) bytes: u64,
    /// Readers that lost their place with it.
    pub(super) readers: usize,
}

/// What a fetch may do after each chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pace {
    GoOn,
    /// The body is larger than the limit: close the flight to newcomers, then ask again.
    Close,
    /// No reader is left, and the body is too large to be stored.
    Stop,
    /// The fetch is far enough ahead of its fastest reader.
    Ahead,
    /// A reader would lose its place, perhaps only because its task has not been scheduled yet.
    Lagging,
}

/// What bounds a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How much may be held from the first chunk on.
    pub(super) max_held: usize,
    /// How large a body is fetched even if no reader is left.
    pub(super) max_unread: u64,
    /// How far a fetch may be ahead of its fastest reader.
    pub(super) max_ahead: u64,
}

/// What a log can give up next, with the bytes that it holds. Ordered by what is given up first, the
/// greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reclaim {
    /// The place of the only readers of a fetch under way, which stand still.
    OnlyReaders(u64),
    /// The beginning of a body, kept for newcomers.
    Beginning(u64),
    /// The place of a reader that is behind others, or reads what came in long ago.
    SlowestReader(u64),
}

impl Log {
    /// Adds a reader at the beginning. Only while the log is open, or empty.
    pub(super) fn subscribe(&mut self) {
        self.readers += 1;
        self.unread_since = None;
        if let Some(readers) = self.readers_at(0) {
            *readers += 1;
        }
    }

    /// Removes the reader at this index.
    pub(super) fn leave(&mut self, index: usize) -> Dropped {
        let Some(readers) = self.readers_at(index) else { return Dropped::default() };
        *readers -= 1;
        let was_last_here = *readers == 0;
        self.readers -= 1;
        self.note_unread();
        if was_last_here && self.end.is_none() && self.offset(index - self.first) >= self.fastest {
            // The next reader sets the pace.
            let next = self.chunks.iter().rposition(|entry| entry.readers > 0);
            self.fastest = if self.at_end > 0 { self.total } else { self.offset(next.unwrap_or(0)) };
        }
        self.trim()
    }

    pub(super) fn readers(&self) -> usize {
        self.readers
    }

    /// Since when there has been no reader.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        self.unread_since
    }

    /// Notes the time when the last reader leaves or loses its place.
    fn note_unread(&mut self) {
        if self.readers == 0 && self.end.is_none() && self.unread_since.is_none() {
            self.unread_since = Some(Instant::now());
        }
    }

    /// Where the chunk at this position in the queue begins.
    fn offset(&self, at: usize) -> u64 {
        at.checked_sub(1).and_then(|before| self.chunks.get(before)).map_or(self.start, |entry| entry.end)
    }

    fn readers_at(&mut self, index: usize) -> Option<&mut usize> {
        let at = index.checked_sub(self.first)?;
        match self.chunks.get_mut(at) {
            Some(entry) => Some(&mut entry.readers),
            None => Some(&mut self.at_end),
        }
    }

    /// Appends a chunk. It is dropped at once if no reader is left and none can subscribe.
    pub(super) fn push(&mut self, chunk: Chunk) -> Dropped {
        self.body_bytes += chunk.len() as u64;
        self.total += (chunk.len() + CHUNK_OVERHEAD) as u64;
        let readers = std::mem::take(&mut self.at_end);
        self.chunks.push_back(Entry { chunk, end: self.total, readers });
        self.trim()
    }

    /// Moves a reader on by one chunk, if there is one at its index.
    pub(super) fn advance(&mut self, index: usize) -> Option<(Chunk, Dropped)> {
        let at = index.checked_sub(self.first)?;
        let entry = self.chunks.get_mut(at)?;
        let (chunk, end) = (entry.chunk.clone(), entry.end);
        entry.readers -= 1;
        self.fastest = self.fastest.max(end);
        if let Some(readers) = self.readers_at(index + 1) {
            *readers += 1;
        }
        self.is_unpaced = false;
        Some((chunk, self.trim()))
    }

    /// Ends the body, and returns whether it had not ended before: the first end counts. A body that
    /// broke off takes no more readers, so that a caller that tries again gets another one.
    pub(super) fn end(&mut self, end: Result<(), BodyError>) -> bool {
        self.is_closed |= end.is_err();
        let is_first = self.end.is_none();
        self.end.get_or_insert(end);
        is_first
    }

    /// Why there is no chunk at this index. `None`: there will be one, or the end.
    pub(super) fn end_at(&self, index: usize) -> Option<Result<(), BodyError>> {
        if index < self.first {
            return Some(Err(self.lost.clone().unwrap_or(BodyError::Lagged)));
        }
        self.end.clone()
    }

    /// Whether a reader at this index has read a complete body.
    pub(super) fn is_complete_at(&self, index: usize) -> bool {
        matches!(self.end, Some(Ok(()))) && index == self.first + self.chunks.len()
    }

    /// The body, if it is complete and consists of one small chunk and nothing else.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match (&self.end, self.first, self.chunks.len(), self.chunks.front()) {
            (Some(Ok(())), 0, 1, Some(Entry { chunk: Chunk::Data(data), .. })) if data.len() <= SMALL => {
                Some(data)
            }
            _ => None,
        }
    }

    /// Whether a single reader takes all of it out of the log at once.
    pub(super) fn is_handed_over(&self) -> bool {
        self.readers <= 1 && self.whole().is_some()
    }

    /// The charged bytes of all chunks.
    pub(super) fn held(&self) -> u64 {
        self.total - self.start
    }

    /// Takes no more readers.
    pub(super) fn close(&mut self) -> Dropped {
        self.is_closed = true;
        self.trim()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Takes no more readers if there has been none since this moment or an earlier one. Returns whether
    /// that is so.
    pub(super) fn close_if_unread_since(&mut self, moment: Instant) -> bool {
        let is_unread = self.unread_since.is_some_and(|since| since <= moment);
        self.is_closed |= is_unread;
        is_unread
    }

    /// Whether the fetch waits for a reader, and has to be told that one has moved. Clears the flag.
    pub(super) fn take_waiting(&mut self) -> bool {
        std::mem::take(&mut self.is_waiting)
    }

    /// What the fetch may do now. `has_waited`: lagging readers are being waited for, and have to catch
    /// up to a quarter of the window instead of half of it.
    pub(super) fn pace(&mut self, bounds: &Bounds, has_waited: bool) -> Pace {
        if !self.is_window && self.total > bounds.max_held as u64 {
            (self.is_window, self.is_closed) = (true, true);
            return Pace::Close;
        }
        if self.readers == 0 {
            return if self.body_bytes <= bounds.max_unread { Pace::GoOn } else { Pace::Stop };
        }
        let (ahead, half) = (self.total - self.fastest, half_window(bounds.max_held));
        let max_ahead = if self.is_window { half.min(bounds.max_ahead) } else { bounds.max_ahead };
        let behind = self.fastest.saturating_sub(self.start);
        let pace = match self.is_window {
            _ if ahead > 0 && ahead >= max_ahead && !self.is_unpaced => Pace::Ahead,
            true if behind > if has_waited { half / 2 } else { half } => Pace::Lagging,
            _ => Pace::GoOn,
        };
        self.is_waiting = pace != Pace::GoOn;
        pace
    }

    /// Ends the readers that are more than a quarter of the window behind.
    pub(super) fn drop_laggards(&mut self, max_held: usize) -> Dropped {
        let keep_from = self.fastest.saturating_sub(half_window(max_held) / 2);
        self.lost = Some(BodyError::Lagged);
        let mut dropped = Dropped::default();
        while self.chunks.front().is_some_and(|front| front.end <= keep_from) {
            self.drop_front(&mut dropped);
        }
        self.trim_into(&mut dropped);
        dropped
    }

    /// Stops waiting for readers, none of which has moved for too long. In a window all of them lose
    /// their place; a body held from the beginning goes on without them.
    pub(super) fn end_waiting(&mut self) -> Dropped {
        if !self.is_window {
            self.is_unpaced = true;
            return Dropped::default();
        }
        self.lost = Some(BodyError::Idle);
        let mut dropped = Dropped::default();
        while !self.chunks.is_empty() {
            self.drop_front(&mut dropped);
        }
        dropped
    }

    /// What [`reclaim`](Self::reclaim) gives up next.
    pub(super) fn reclaimable(&self) -> Option<Reclaim> {
        let held = self.held();
        let slowest = self.chunks.front()?;
        if !self.is_closed {
            return Some(Reclaim::Beginning(held));
        }
        let are_all = self.end.is_none() && slowest.readers == self.readers;
        Some(if are_all { Reclaim::OnlyReaders(held) } else { Reclaim::SlowestReader(held) })
    }

    /// Gives up the beginning kept for newcomers, or else the place of the slowest reader.
    pub(super) fn reclaim(&mut self) -> Dropped {
        if !self.is_closed {
            self.is_window = true;
            return self.close();
        }
        self.lost = Some(BodyError::Lagged);
        let mut dropped = Dropped::default();
        self.drop_front(&mut dropped);
        self.trim_into(&mut dropped);
        dropped
    }

    /// Drops what no reader needs any more.
    fn trim(&mut self) -> Dropped {
        let mut dropped = Dropped::default();
        self.trim_into(&mut dropped);
        dropped
    }

    fn trim_into(&mut self, dropped: &mut Dropped) {
        while self.is_closed && self.chunks.front().is_some_and(|front| front.readers == 0) {
            self.drop_front(dropped);
        }
    }

    fn drop_front(&mut self, dropped: &mut Dropped) {
        let Some(front) = self.chunks.pop_front() else { return };
        self.readers -= front.readers;
        self.note_unread();
        dropped.readers += front.readers;
        dropped.bytes += front.end - self.start;
        dropped.chunks.push(front.chunk);
        self.first += 1;
        self.start = front.end;
        self.fastest = self.fastest.max(self.start);
    }
}

/// How far the fetch may be ahead of the fastest reader, and that reader ahead of the slowest.
fn half_window(max_held: usize) -> u64 {
    (max_held.clamp(2, MAX_WINDOW) / 2) as u64
}
