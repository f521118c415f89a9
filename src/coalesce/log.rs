//! What a fetch has brought so far.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::Notify;

use crate::body::BodyError;

/// What is held of a body that is larger than the limit.
const MAX_WINDOW: usize = 4 << 20;

#[derive(Clone, Debug)]
pub(super) enum Chunk {
    Data(Bytes),
    Trailers(Arc<HeaderMap>),
}

#[derive(Debug, Default)]
pub(super) struct Log {
    /// The head is known, or the log has grown or ended. Made by the first who waits for it.
    pub(super) changed: Option<Arc<Notify>>,
    pub(super) chunks: VecDeque<Entry>,
    /// The index of the first chunk that is still there.
    pub(super) first: usize,
    /// Everything so far, in charged bytes.
    pub(super) total: u64,
    /// How far the fastest reader has come, in charged bytes.
    pub(super) fastest: u64,
    pub(super) end: Option<Result<(), BodyError>>,
    pub(super) callers: usize,
    /// What of it is body.
    pub(super) body_bytes: u64,
    pub(super) is_window: bool,
    /// Nobody may board any more. Set under the lock, with what makes it so.
    pub(super) is_closed: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) chunk: Chunk,
    /// Everything up to and with this chunk, in charged bytes.
    pub(super) end: u64,
}

/// The pump's order after each chunk.
pub(super) enum Pace {
    GoOn,
    /// The body is larger than the limit: close the flight to newcomers, then go on.
    Close,
    /// Nobody reads what cannot be stored anyway.
    Stop,
}

impl Log {
    pub(super) fn close_if_empty(&mut self) -> bool {
        self.is_closed |= self.callers == 0;
        self.is_closed && self.callers == 0
    }

    pub(super) fn pace(&mut self, max_held: usize) -> Option<Pace> {
        if !self.is_window {
            if self.total <= max_held as u64 {
                return Some(Pace::GoOn);
            }
            self.is_window = true;
            self.is_closed = true;
            return Some(Pace::Close);
        }
        if self.callers == 0 {
            // Small chunks may have filled the log although the body is not too large for a store.
            return Some(if self.body_bytes <= max_held as u64 { Pace::GoOn } else { Pace::Stop });
        }
        let ahead = self.total - self.fastest;
        (ahead < half_window(max_held)).then_some(Pace::GoOn)
    }

    /// Takes all chunks out.
    pub(super) fn forget(&mut self) -> VecDeque<Entry> {
        self.first += self.chunks.len();
        self.fastest = self.total;
        std::mem::take(&mut self.chunks)
    }

    /// Drops what lies too far behind the fastest reader.
    pub(super) fn trim(&mut self, max_held: usize) -> Vec<Entry> {
        let mut dropped = Vec::new();
        let keep_from = self.fastest.saturating_sub(half_window(max_held));
        while self.chunks.front().is_some_and(|first| first.end <= keep_from) {
            dropped.extend(self.chunks.pop_front());
            self.first += 1;
        }
        dropped
    }
}

/// So far the fetch may be ahead of the fastest reader, and the others behind him.
fn half_window(max_held: usize) -> u64 {
    (max_held.clamp(2, MAX_WINDOW) / 2) as u64
}
