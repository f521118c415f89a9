//! What a client saw, and assertions about it.

use std::{fmt, future::poll_fn, pin::Pin};

use bytes::{Buf, Bytes};
use http::{Extensions, HeaderMap, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};

use crate::{
    exchange::{
        Refused,
        status::{CacheStatus, Forward, Stale},
    },
    http::not_stored::NotStored,
    key::Unkeyed,
};

/// A response with its whole body, or with as much of it as came.
///
/// The assertions return the response again, so that several of them stand in one line. What they say when they
/// fail is one line: the request, what was expected, and the whole decision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The extensions.
    pub extensions: Extensions,
    /// How the response came about. `None`: no layer of this crate had to do with it.
    pub decision: Option<CacheStatus>,
    /// The body, as far as it came.
    pub body: Bytes,
    /// The trailers, if there were any.
    pub trailers: Option<HeaderMap>,
    /// Whether the body ended with an error.
    pub is_cut: bool,
    request: Box<str>,
}

impl Seen {
    /// Reads a response to its end, or to its error.
    pub async fn of<B: HttpBody>(response: Response<B>) -> Self {
        Self::until(response, usize::MAX).await
    }

    /// Reads at least this many bytes, if there are so many, and drops the rest of the body.
    pub(super) async fn until<B: HttpBody>(response: Response<B>, bytes: usize) -> Self {
        let decision = CacheStatus::of(&response);
        let (head, body) = response.into_parts();
        let mut seen = Self {
            status: head.status,
            headers: head.headers,
            extensions: head.extensions,
            decision,
            body: Bytes::new(),
            trailers: None,
            is_cut: false,
            request: "the response".into(),
        };
        seen.read(body, bytes).await;
        seen
    }

    async fn read<B: HttpBody>(&mut self, body: B, bytes: usize) {
        let mut body = std::pin::pin!(body);
        let mut content = Vec::new();
        // As hyper does: a body that says it is at its end is not polled any more.
        while content.len() < bytes
            && !body.is_end_stream()
            && let Some(frame) = poll_fn(|cx| Pin::as_mut(&mut body).poll_frame(cx)).await
        {
            match frame.map(Frame::into_data) {
                Ok(Ok(mut data)) => {
                    while data.has_remaining() {
                        content.extend_from_slice(data.chunk());
                        data.advance(data.chunk().len());
                    }
                }
                Ok(Err(frame)) => self.trailers = frame.into_trailers().ok(),
                Err(_) => {
                    self.is_cut = true;
                    break;
                }
            }
        }
        self.body = content.into();
    }

    pub(super) fn to(self, request: &str) -> Self {
        Self { request: request.into(), ..self }
    }

    /// Returns the first field of this name.
    ///
    /// # Panics
    ///
    /// If the value is not text.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        let Ok(text) = value.to_str() else { panic!("{name}: {value:?} is not text") };
        Some(text)
    }

    /// Returns the value of `Age`, in seconds.
    ///
    /// # Panics
    ///
    /// If the field is not a number.
    #[track_caller]
    pub fn age(&self) -> Option<u64> {
        let age = self.header("age")?;
        let Ok(seconds) = age.parse() else { panic!("age: {age:?} is not a number of seconds") };
        Some(seconds)
    }

    /// Returns the decision in the words of RFC 9211, such as `fwd=uri-miss; stored`; `not asked` without a
    /// cache.
    pub fn cache(&self) -> String {
        self.decision.map_or_else(|| "not asked".into(), |decision| decision.to_string())
    }

    /// Whether it came from the store, fresh or stale, without the origin being asked.
    pub fn is_hit(&self) -> bool {
        self.decision.is_some_and(|decision| decision.is_hit())
    }

    /// Asserts that it is a fresh response from the store.
    #[track_caller]
    pub fn expect_hit(&self) -> &Self {
        self.expect("be a hit", |decision| decision.is_hit() && decision.stale_reason().is_none())
    }

    /// Asserts that a stale response was served, for this reason.
    #[track_caller]
    pub fn expect_stale(&self, why: Stale) -> &Self {
        self.expect(format_args!("be stale, `{why}`"), |decision| decision.stale_reason() == Some(why))
    }

    /// Asserts that the request went to the origin for this reason, and that the response is from there.
    #[track_caller]
    pub fn expect_miss(&self, why: Forward) -> &Self {
        self.expect(format_args!("be a miss, `fwd={why}`"), |decision| {
            decision.forward_reason() == Some(why) && !decision.is_from_store()
        })
    }

    /// Asserts that the response of the origin is for this client alone, for this reason.
    #[track_caller]
    pub fn expect_not_stored(&self, why: NotStored) -> &Self {
        self.expect(format_args!("not be stored, `{why}`"), |decision| {
            decision.not_stored_reason() == Some(why) && !decision.is_stored()
        })
    }

    /// Asserts that the response of the origin is stored, once it is complete.
    #[track_caller]
    pub fn expect_stored(&self) -> &Self {
        self.expect("be stored", CacheStatus::is_stored)
    }

    /// Asserts that the client shared the fetch of another one.
    #[track_caller]
    pub fn expect_collapsed(&self) -> &Self {
        self.expect("be collapsed", CacheStatus::is_collapsed)
    }

    /// Asserts that the request has no key, for this reason.
    #[track_caller]
    pub fn expect_unkeyed(&self, why: Unkeyed) -> &Self {
        self.expect(format_args!("have no key, `{why}`"), |decision| decision.unkeyed_reason() == Some(why))
    }

    /// Asserts that the cache itself responded, with an error, for this reason.
    #[track_caller]
    pub fn expect_refused(&self, why: Refused) -> &Self {
        self.expect(format_args!("be refused, `{why}`"), |decision| decision.refused_reason() == Some(why))
    }

    /// Asserts that the status is this one.
    #[track_caller]
    pub fn expect_status(&self, code: u16) -> &Self {
        assert!(
            self.status.as_u16() == code,
            "{} must have the status {code}, and {}",
            self.request,
            self.found()
        );
        self
    }

    /// Asserts that the body is whole, and this one.
    #[track_caller]
    pub fn expect_body(&self, body: impl AsRef<[u8]>) -> &Self {
        let body = body.as_ref();
        let is_it = !self.is_cut && self.body == body;
        assert!(is_it, "{} must have the body {:?}, and {}", self.request, Shown(body), self.found());
        self
    }

    #[track_caller]
    fn expect(&self, what: impl fmt::Display, holds: impl FnOnce(&CacheStatus) -> bool) -> &Self {
        let holds = self.decision.as_ref().is_some_and(holds);
        assert!(holds, "{} must {what}, and {}", self.request, self.found());
        self
    }

    /// What is there instead, in one line.
    fn found(&self) -> String {
        let end = if self.is_cut { ", which is cut" } else { "" };
        format!("is `{}`: {} with {:?}{end}", self.cache(), self.status.as_u16(), Shown(&self.body))
    }
}

/// The beginning of a body.
struct Shown<'a>(&'a [u8]);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 80;
        let start = &self.0[..self.0.len().min(SHOWN)];
        fmt::Debug::fmt(&String::from_utf8_lossy(start), f)?;
        match self.0.len() > SHOWN {
            true => write!(f, " and {} bytes more", self.0.len() - SHOWN),
            false => Ok(()),
        }
    }
}
