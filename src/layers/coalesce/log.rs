//! What a fetch has brought so far, and which of its readers still need it.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use smallvec::SmallVec;
use tokio::{sync::Notify, time::Instant};

use super::flight::Flight;
use crate::body::BodyError;

/// What is held of a body that is larger than the limit.
const MAX_WINDOW: usize = 4 << 20;

/// A body of one chunk that is complete and not larger is handed over without a log.
pub(super) const SMALL: usize = 64 << 10;

/// Charged for a chunk beside its bytes.
const CHUNK_OVERHEAD: usize = 64;

#[derive(Clone, Debug)]
pub(super) enum Chunk {
    Data(Bytes),
    Trailers(Arc<HeaderMap>),
}

impl Chunk {
    fn charged_bytes(&self) -> u64 {
        let data = match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        };
        (data + CHUNK_OVERHEAD) as u64
    }
}

/// All positions are in charged bytes from the beginning of the body; a place is the number of a chunk.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The head is known, or the log has grown or ended. Made by the first that waits for it.
    pub(super) changed: Option<Arc<Notify>>,
    chunks: VecDeque<Entry>,
    /// The place of the first chunk that is still held.
    first: usize,
    /// The position of that chunk.
    start: u64,
    /// The position of the end.
    total: u64,
    /// The position of the fastest reader.
    fastest: u64,
    pub(super) end: Option<Result<(), BodyError>>,
    /// Callers that have not lost their place.
    pub(super) callers: usize,
    /// Those of them that have read all there is.
    at_end: usize,
    body_bytes: u64,
    /// The body is not held from its first chunk on, but in a window.
    is_window: bool,
    /// No caller may subscribe any more. Set under the lock, with what makes it so.
    pub(super) is_closed: bool,
    /// The budget knows of what is held.
    pub(super) is_counted: bool,
    /// The fetch waits for a reader.
    is_waiting: bool,
    /// No reader has moved for too long: the fetch does not wait for them any more.
    is_unpaced: bool,
    /// What became of readers that lost their place.
    lost: Option<BodyError>,
    /// When the last caller left, if none has come since.
    pub(super) unread_since: Option<Instant>,
    /// The last caller leaves with the response of another fetch.
    pub(super) is_needless: bool,
    /// A flight for the same that got its head first.
    pub(super) relayed: Option<Arc<Flight>>,
}

#[derive(Debug)]
struct Entry {
    chunk: Chunk,
    /// The position of its end.
    end: u64,
    /// The callers that read it next.
    readers: usize,
}

/// What a log does not hold any more, to be dropped where no lock is held.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) chunks: SmallVec<[Chunk; 2]>,
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
    /// No caller is left, and the body is too large to be stored.
    Stop,
    /// The fetch is far enough ahead of its fastest reader.
    Ahead,
    /// A reader would lose its place, perhaps for the lack of a turn.
    Turn,
}

/// What bounds a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// What may be held from the first chunk on.
    pub(super) max_held: usize,
    /// What is fetched although no caller is left.
    pub(super) unread: u64,
    /// So far a fetch may be ahead of its fastest reader.
    pub(super) allowance: u64,
}

/// What a log can give up, in the order of what is given up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spare {
    /// The only readers of a fetch under way, which stand still.
    Alone(u64),
    /// The beginning of a body, for newcomers.
    Beginning(u64),
    /// A reader that is behind others, or reads what has come in long ago.
    Behind(u64),
}

impl Log {
    pub(super) fn subscribe(&mut self) {
        self.callers += 1;
        (self.unread_since, self.is_needless) = (None, false);
        if let Some(readers) = self.readers_at(0) {
            *readers += 1;
        }
    }

    /// The caller at this place leaves.
    pub(super) fn leave(&mut self, place: usize) -> Dropped {
        let Some(readers) = self.readers_at(place) else { return Dropped::default() };
        *readers -= 1;
        let is_last_here = *readers == 0;
        self.callers -= 1;
        self.note_unread();
        // The next one sets the pace.
        if is_last_here && self.end.is_none() && self.position(place - self.first) >= self.fastest {
            let next = self.chunks.iter().rposition(|entry| entry.readers > 0);
            self.fastest = if self.at_end > 0 { self.total } else { self.position(next.unwrap_or(0)) };
        }
        self.trim()
    }

    /// Notes the time when the last caller leaves or loses its place.
    fn note_unread(&mut self) {
        if self.callers == 0 && self.end.is_none() && self.unread_since.is_none() {
            self.unread_since = Some(Instant::now());
        }
    }

    /// Of the chunk with this index.
    fn position(&self, at: usize) -> u64 {
        at.checked_sub(1).and_then(|before| self.chunks.get(before)).map_or(self.start, |entry| entry.end)
    }

    fn readers_at(&mut self, place: usize) -> Option<&mut usize> {
        let at = place.checked_sub(self.first)?;
        match self.chunks.get_mut(at) {
            Some(entry) => Some(&mut entry.readers),
            None => Some(&mut self.at_end),
        }
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        self.total += chunk.charged_bytes();
        if let Chunk::Data(data) = &chunk {
            self.body_bytes += data.len() as u64;
        }
        let readers = std::mem::take(&mut self.at_end);
        self.chunks.push_back(Entry { chunk, end: self.total, readers });
    }

    /// Moves a reader on by one chunk, if there is one at its place.
    pub(super) fn advance(&mut self, place: usize) -> Option<(Chunk, Dropped)> {
        let at = place.checked_sub(self.first)?;
        let entry = self.chunks.get_mut(at)?;
        let (chunk, end) = (entry.chunk.clone(), entry.end);
        entry.readers -= 1;
        self.fastest = self.fastest.max(end);
        if let Some(readers) = self.readers_at(place + 1) {
            *readers += 1;
        }
        self.is_unpaced = false;
        Some((chunk, self.trim()))
    }

    /// Why there is no chunk at this place. `None`: there will be one, or the end.
    pub(super) fn end_at(&self, place: usize) -> Option<Result<(), BodyError>> {
        if place < self.first {
            return Some(Err(self.lost.clone().unwrap_or(BodyError::Lagged)));
        }
        self.end.clone()
    }

    pub(super) fn is_end(&self, place: usize) -> bool {
        matches!(self.end, Some(Ok(()))) && place == self.first + self.chunks.len()
    }

    /// The body, if all of it is there in one small chunk, and nothing else.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match (&self.end, self.first, self.chunks.len(), self.chunks.front()) {
            (Some(Ok(())), 0, 1, Some(Entry { chunk: Chunk::Data(data), .. })) if data.len() <= SMALL => {
                Some(data)
            }
            _ => None,
        }
    }

    /// Whether a single caller takes all of it out of the log at once.
    pub(super) fn is_handed_over(&self) -> bool {
        self.callers <= 1 && self.whole().is_some()
    }

    pub(super) fn held(&self) -> u64 {
        self.total - self.start
    }

    pub(super) fn close(&mut self) -> Dropped {
        self.is_closed = true;
        self.trim()
    }

    /// Whether the fetch waits for a reader, and has to be told that one has moved.
    pub(super) fn take_waiting(&mut self) -> bool {
        std::mem::take(&mut self.is_waiting)
    }

    /// `has_turn`: whether readers that lag behind are being waited for.
    pub(super) fn pace(&mut self, bounds: &Bounds, has_turn: bool) -> Pace {
        if !self.is_window && self.total > bounds.max_held as u64 {
            (self.is_window, self.is_closed) = (true, true);
            return Pace::Close;
        }
        if self.callers == 0 {
            return if self.body_bytes <= bounds.unread { Pace::GoOn } else { Pace::Stop };
        }
        let (ahead, half) = (self.total - self.fastest, half_window(bounds.max_held));
        let allowance = if self.is_window { half.min(bounds.allowance) } else { bounds.allowance };
        let behind = self.fastest.saturating_sub(self.start);
        let pace = match self.is_window {
            _ if ahead > 0 && ahead >= allowance && !self.is_unpaced => Pace::Ahead,
            true if behind > if has_turn { half / 2 } else { half } => Pace::Turn,
            _ => Pace::GoOn,
        };
        self.is_waiting = pace != Pace::GoOn;
        pace
    }

    /// Takes their place from readers that did not catch up in their turn.
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

    /// No reader has moved for too long. In a window all of them lose their place; what is held from
    /// the beginning does not wait for them.
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

    /// What [`give_way`](Self::give_way) takes next.
    pub(super) fn spare(&self) -> Option<Spare> {
        let held = self.held();
        let slowest = self.chunks.front()?;
        if !self.is_closed {
            return Some(Spare::Beginning(held));
        }
        let is_alone = self.end.is_none() && slowest.readers == self.callers;
        Some(if is_alone { Spare::Alone(held) } else { Spare::Behind(held) })
    }

    /// Gives up the beginning for newcomers, or else the place of the reader that is furthest behind.
    pub(super) fn give_way(&mut self) -> Dropped {
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

    /// Drops what no caller needs any more.
    pub(super) fn trim(&mut self) -> Dropped {
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
        self.callers -= front.readers;
        self.note_unread();
        dropped.readers += front.readers;
        dropped.bytes += front.end - self.start;
        dropped.chunks.push(front.chunk);
        self.first += 1;
        self.start = front.end;
        self.fastest = self.fastest.max(self.start);
    }
}

/// So far the fetch may be ahead of the fastest reader, and the others behind it.
fn half_window(max_held: usize) -> u64 {
    (max_held.clamp(2, MAX_WINDOW) / 2) as u64
}
