//! Connections to the origin that know whether they have carried a response before.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::Extensions;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        self,
        connect::{self, Connected},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;

/// Whether a connection has carried a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<AtomicBool>);

impl History {
    /// Notes a response of the connection. Returns whether it was not the first one.
    pub(crate) fn note_response(extensions: &mut Extensions) -> bool {
        extensions.remove::<Self>().is_some_and(|history| history.0.swap(true, Ordering::Relaxed))
    }

    /// Whether the failed connection had carried a response before.
    pub(crate) fn has_response(error: &legacy::Error) -> bool {
        let mut extensions = Extensions::new();
        if let Some(connected) = error.connect_info() {
            connected.get_extras(&mut extensions);
        }
        extensions.get::<Self>().is_some_and(|history| history.0.load(Ordering::Relaxed))
    }
}

pub(crate) struct Connection {
    stream: TokioIo<TcpStream>,
    history: History,
}

impl Connection {
    pub(crate) fn new(stream: TokioIo<TcpStream>) -> Self {
        Self { stream, history: History::default() }
    }

    fn stream(&mut self) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(&mut self.stream)
    }
}

impl connect::Connection for Connection {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.history.clone())
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
