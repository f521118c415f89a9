//! Responses of a scripted origin, written in a line.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;

use super::{Body, Failure, body::Frames};

/// A response of the origin: what it consists of, when its head comes, and how it fails.
#[derive(Debug)]
pub(crate) struct ScriptedResponse {
    response: Response<()>,
    body: Content,
    outcome: Outcome,
    delay: Duration,
}

#[derive(Debug)]
enum Content {
    Frames(Frames),
    Body(Body),
}

#[derive(Debug)]
enum Outcome {
    Respond,
    Fail,
    Panic,
    Hang,
}

/// A 200 with this body, in one chunk whose length is not declared.
pub(crate) fn ok(body: impl Into<Bytes>) -> ScriptedResponse {
    ScriptedResponse::from_content(Content::Frames(Frames::default())).chunk(body)
}

/// A 200 with these fields, and with any body.
pub(crate) fn response(fields: &[(&str, &str)], body: impl Into<Body>) -> ScriptedResponse {
    let response = ScriptedResponse::from_content(Content::Body(body.into()));
    fields.iter().fold(response, |response, (name, value)| response.header(name, value))
}

/// A response with this status, without a body.
pub(crate) fn status(code: u16) -> ScriptedResponse {
    ok("").status(code)
}

/// The service returns [`Failure`] instead of a response.
pub(crate) fn error() -> ScriptedResponse {
    ScriptedResponse { outcome: Outcome::Fail, ..ok("") }
}

/// The future of the service panics.
pub(crate) fn panics() -> ScriptedResponse {
    ScriptedResponse { outcome: Outcome::Panic, ..ok("") }
}

/// The future of the service never completes.
pub(crate) fn hangs() -> ScriptedResponse {
    ScriptedResponse { outcome: Outcome::Hang, ..ok("") }
}

impl ScriptedResponse {
    fn from_content(body: Content) -> Self {
        Self { response: Response::default(), body, outcome: Outcome::Respond, delay: Duration::ZERO }
    }

    pub(crate) fn status(mut self, code: u16) -> Self {
        let status = StatusCode::from_u16(code);
        *self.response.status_mut() = status.unwrap_or_else(|_| panic!("{code} is not a status code"));
        self
    }

    /// Appends a field. A field of the same name stays.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = field(name, value.as_ref());
        self.response.headers_mut().append(name, value);
        self
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The fields, to replace or remove one.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        self.response.headers_mut()
    }

    /// `Cache-Control: max-age`, in seconds.
    pub(crate) fn max_age(self, seconds: u64) -> Self {
        self.header("cache-control", format!("max-age={seconds}"))
    }

    pub(crate) fn extension<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        self.response.extensions_mut().insert(extension);
        self
    }

    /// Appends a chunk to the body; an empty one is left out.
    pub(crate) fn chunk(self, chunk: impl Into<Bytes>) -> Self {
        let chunk = chunk.into();
        if chunk.is_empty() { self } else { self.frame(Ok(Frame::data(chunk))) }
    }

    /// Breaks the body off at this point, with [`Failure`].
    pub(crate) fn cut(self) -> Self {
        self.frame(Err(Failure))
    }

    pub(crate) fn trailer(self, name: &str, value: &str) -> Self {
        let trailers = [field(name, value.as_bytes())];
        self.frame(Ok(Frame::trailers(trailers.into_iter().collect())))
    }

    /// Sets what the body says about its length by its size hint, true or not.
    pub(crate) fn declares(mut self, length: u64) -> Self {
        self.frames().declare(length);
        self
    }

    /// Delays the head of the response.
    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// The response at once, for a service that is no [`ScriptedOrigin`](super::ScriptedOrigin).
    ///
    /// # Panics
    ///
    /// If the script says something else than to respond at once.
    pub(crate) fn into_response(self) -> Response<Body> {
        assert!(
            matches!(self.outcome, Outcome::Respond) && self.delay.is_zero(),
            "{self:?} is not a response that is there at once"
        );
        self.assemble()
    }

    /// Does what the script says.
    pub(super) async fn play<B>(self, request_body: B) -> Result<Response<Body>, Failure> {
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

    fn assemble(self) -> Response<Body> {
        let body = match self.body {
            Content::Frames(frames) => Body::new(frames),
            Content::Body(body) => body,
        };
        self.response.map(|()| body)
    }

    fn frame(mut self, frame: Result<Frame<Bytes>, Failure>) -> Self {
        self.frames().push(frame);
        self
    }

    fn frames(&mut self) -> &mut Frames {
        match &mut self.body {
            Content::Frames(frames) => frames,
            Content::Body(body) => panic!("frames are asked for beside {body:?}, which is a body already"),
        }
    }
}

fn field(name: &str, value: &[u8]) -> (HeaderName, HeaderValue) {
    let name = HeaderName::try_from(name).unwrap_or_else(|_| panic!("{name:?} is not a field name"));
    let field_value = HeaderValue::from_bytes(value);
    let value = field_value.unwrap_or_else(|_| panic!("{:?} is not a field value", value.escape_ascii()));
    (name, value)
}
