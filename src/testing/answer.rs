//! Answers of a scripted origin, written in a line.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::{
    Failure, Script, TestBody,
    body::{Piece, Pieces},
};

/// An answer of a [`ScriptedOrigin`](super::ScriptedOrigin): the response, when its head comes, and how it fails.
///
/// ```
/// use std::time::Duration;
/// use tower_readthrough::testing::Answer;
///
/// let page = Answer::ok("hello").max_age(60).header("etag", "\"1\"");
/// let slow = Answer::ok("late").after(Duration::from_secs(2));
/// let broken = Answer::ok("0123456789").header("content-length", "10").cut_after(4);
/// # drop((page, slow, broken));
/// ```
///
/// # Panics
///
/// All methods panic on what no response can be: an invalid status code, field name or value.
#[derive(Debug)]
pub struct Answer {
    response: Response<()>,
    content: Content,
    outcome: Outcome,
    delay: Duration,
}

#[derive(Debug)]
enum Content {
    Scripted(Scripted),
    Body(TestBody),
}

/// A body that can be made any number of times.
#[derive(Clone, Debug, Default)]
struct Scripted {
    pieces: Vec<Piece>,
    for_ever: Option<(Bytes, Duration)>,
    declared: Option<u64>,
    cut_after: Option<usize>,
    drip: Option<(usize, Duration)>,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Respond,
    Fail,
    Panic,
    Hang,
}

impl Answer {
    /// A 200 with this body, in one chunk whose length is not declared.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(Content::Scripted(Scripted::default())).chunk(body)
    }

    /// A 200 with any body. It can be given once; see [`Script::repeat`].
    pub fn with_body(body: impl Into<TestBody>) -> Self {
        Self::new(Content::Body(body.into()))
    }

    /// The service returns [`Failure`] instead of a response.
    pub fn error() -> Self {
        Self { outcome: Outcome::Fail, ..Self::ok("") }
    }

    /// The future of the service panics.
    pub fn panics() -> Self {
        Self { outcome: Outcome::Panic, ..Self::ok("") }
    }

    /// The future of the service never completes.
    pub fn never() -> Self {
        Self { outcome: Outcome::Hang, ..Self::ok("") }
    }

    /// A 200 whose body never ends: this chunk at once, and again after each `every`.
    ///
    /// # Panics
    ///
    /// If `every` is zero, or the chunk empty: whatever reads such a body would never pause.
    #[track_caller]
    pub fn endless(chunk: impl Into<Bytes>, every: Duration) -> Self {
        let chunk = chunk.into();
        assert!(!chunk.is_empty() && !every.is_zero(), "an endless body needs a chunk and a pause after it");
        let scripted = Scripted { for_ever: Some((chunk, every)), ..Scripted::default() };
        Self::new(Content::Scripted(scripted))
    }

    fn new(content: Content) -> Self {
        Self { response: Response::default(), content, outcome: Outcome::Respond, delay: Duration::ZERO }
    }

    /// Sets the status.
    #[must_use]
    #[track_caller]
    pub fn status(mut self, code: u16) -> Self {
        let Ok(status) = StatusCode::from_u16(code) else { panic!("{code} is not a status code") };
        *self.response.status_mut() = status;
        self
    }

    /// Appends a header field. A field of the same name stays.
    #[must_use]
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = field(name, value.as_ref());
        self.response.headers_mut().append(name, value);
        self
    }

    /// Returns the header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns the header fields, to replace or remove one.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.response.headers_mut()
    }

    /// Appends `Cache-Control: max-age`, in seconds.
    #[must_use]
    pub fn max_age(self, seconds: u64) -> Self {
        self.header("cache-control", format!("max-age={seconds}"))
    }

    /// Adds an extension to the response, such as [`Tags`](crate::Tags).
    #[must_use]
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        self.response.extensions_mut().insert(extension);
        self
    }

    /// Appends a chunk to the body; an empty one is left out.
    #[must_use]
    #[track_caller]
    pub fn chunk(self, chunk: impl Into<Bytes>) -> Self {
        let chunk = chunk.into();
        if chunk.is_empty() { self } else { self.piece(Piece::Data(chunk)) }
    }

    /// Appends trailers to the body.
    #[must_use]
    #[track_caller]
    pub fn trailer(self, name: &str, value: &str) -> Self {
        let trailers = [field(name, value.as_bytes())];
        self.piece(Piece::Trailers(trailers.into_iter().collect()))
    }

    /// Breaks the body off at this point, with [`Failure`].
    #[must_use]
    #[track_caller]
    pub fn cut(self) -> Self {
        self.piece(Piece::Fail)
    }

    /// Breaks the body off after this many bytes, or at its end if it is shorter, with [`Failure`].
    #[must_use]
    #[track_caller]
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.scripted().cut_after = Some(bytes);
        self
    }

    /// Sends the body in chunks of this many bytes, with a pause of `every` between two of them.
    ///
    /// # Panics
    ///
    /// If a chunk has no bytes, or the body is [endless](Self::endless), which has its own pace.
    #[must_use]
    #[track_caller]
    pub fn drip(mut self, bytes: usize, every: Duration) -> Self {
        assert!(bytes > 0, "a chunk of a dripping body has at least one byte");
        let scripted = self.scripted();
        assert!(scripted.for_ever.is_none(), "an endless body has its own pace");
        scripted.drip = Some((bytes, every));
        self
    }

    /// Sets what the body says about its length by its size hint, true or not.
    #[must_use]
    #[track_caller]
    pub fn declares(mut self, length: u64) -> Self {
        self.scripted().declared = Some(length);
        self
    }

    /// Delays the head of the response.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// This answer, and then another one.
    pub fn then(self, next: Self) -> Script {
        Script::from(self).then(next)
    }

    /// This answer any number of times; see [`Script::repeat`].
    #[track_caller]
    pub fn repeat(self) -> Script {
        Script::from(self).repeat()
    }

    /// Returns the response at once, for a service that is no [`ScriptedOrigin`](super::ScriptedOrigin).
    ///
    /// # Panics
    ///
    /// If the answer is something else than a response that is there at once.
    #[track_caller]
    pub fn into_response(self) -> Response<TestBody> {
        assert!(
            matches!(self.outcome, Outcome::Respond) && self.delay.is_zero(),
            "{self:?} is not a response that is there at once"
        );
        self.assemble()
    }

    /// The same once more. `None`: it has a body that exists once.
    pub(super) fn again(&self) -> Option<Self> {
        let Content::Scripted(scripted) = &self.content else { return None };
        let content = Content::Scripted(scripted.clone());
        Some(Self { response: self.response.clone(), content, outcome: self.outcome, delay: self.delay })
    }

    /// Does what the script says.
    pub(super) async fn play<B>(self, request_body: B) -> Result<Response<TestBody>, Failure> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        drop(request_body);
        match self.outcome {
            Outcome::Respond => Ok(self.assemble()),
            Outcome::Fail => Err(Failure),
            Outcome::Panic => panic!("the origin panics, as the script says"),
            Outcome::Hang => std::future::pending().await,
        }
    }

    fn assemble(self) -> Response<TestBody> {
        let body = match self.content {
            Content::Scripted(scripted) => TestBody::new(scripted.into_body()),
            Content::Body(body) => body,
        };
        self.response.map(|()| body)
    }

    #[track_caller]
    fn piece(mut self, piece: Piece) -> Self {
        let scripted = self.scripted();
        assert!(scripted.for_ever.is_none(), "nothing comes after an endless body");
        scripted.pieces.push(piece);
        self
    }

    #[track_caller]
    fn scripted(&mut self) -> &mut Scripted {
        match &mut self.content {
            Content::Scripted(scripted) => scripted,
            Content::Body(body) => {
                panic!("a piece of a body is scripted beside {body:?}, which is whole already")
            }
        }
    }
}

impl Scripted {
    fn into_body(self) -> Pieces {
        let pieces = match self.drip {
            Some((bytes, every)) => dripping(self.pieces, bytes, every),
            None => self.pieces,
        };
        let body = Pieces::new(pieces).then_for_ever(self.for_ever);
        body.cut_after(self.cut_after).declaring(self.declared)
    }
}

fn dripping(pieces: Vec<Piece>, bytes: usize, every: Duration) -> Vec<Piece> {
    let mut dripping = Vec::new();
    for piece in pieces {
        let Piece::Data(mut data) = piece else {
            dripping.push(piece);
            continue;
        };
        while !data.is_empty() {
            if !dripping.is_empty() {
                dripping.push(Piece::Wait(every));
            }
            dripping.push(Piece::Data(data.split_to(bytes.min(data.len()))));
        }
    }
    dripping
}

/// A header field out of a test.
#[track_caller]
pub(super) fn field(name: &str, value: &[u8]) -> (HeaderName, HeaderValue) {
    let Ok(field) = HeaderName::try_from(name) else { panic!("{name:?} is not a field name") };
    match HeaderValue::from_bytes(value) {
        Ok(value) => (field, value),
        Err(_) => panic!("{name}: \"{}\" is not a field value", value.escape_ascii()),
    }
}
