//! Small responses that are held until they are complete.

use std::{future::Future, pin::pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::settings::Settings;
use crate::{
    body::{Body, ResponseBody},
    exchange::CacheRequest,
    http::response_fields,
    layers::service::HttpService,
};

/// A response that is held is in memory once for each attempt.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// In the extensions of the response in place of one whose body did not become complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutOff;

impl Settings {
    /// How long the body of a response to this request may be to be held. `None`: it is passed on as it comes.
    ///
    /// What may change something is not repeated, so that there is nothing to hold it for.
    pub(super) fn holds<B>(&self, request: &Request<B>) -> Option<u64> {
        let limit = self.hold_until_complete?.min(MOST_BYTES) as u64;
        // POST may be a read by its body.
        let is_read = request.method().is_safe() || CacheRequest::has_key(request.extensions());
        (is_read && *request.method() != Method::HEAD).then_some(limit)
    }

    /// As without it, but for the body of a response of at most this length.
    pub(super) async fn call_and_hold<S, ReqB, B>(
        self: Arc<Self>,
        inner: S,
        request: Request<ReqB>,
        limit: u64,
    ) -> Result<Response<Body<B>>, S::Error>
    where
        S: HttpService<ReqB, Response = Response<B>>,
        B: ResponseBody,
    {
        if self.is_idle() {
            return hold(inner.oneshot(request), limit).await;
        }
        let (request, gate, entrance) = self.entrance_of(request);
        let response =
            self.admit(gate, entrance, Body::is_whole, move || hold(inner.oneshot(request), limit)).await?;
        Ok(response.map(Body::flatten))
    }
}

async fn hold<B, E>(
    call: impl Future<Output = Result<Response<B>, E>>,
    limit: u64,
) -> Result<Response<Body<B>>, E>
where
    B: ResponseBody,
{
    let mut response = call.await?;
    response_fields::settle_length(&mut response);
    let declared = response_fields::declared_content(&response).filter(|length| (1..=limit).contains(length));
    let Some(length) = declared else { return Ok(response.map(Body::inner)) };
    let (head, body) = response.into_parts();
    Ok(match read(body, length).await {
        Some((content, trailers)) => {
            Response::from_parts(head, Body::stored(content, trailers.map(Arc::new)))
        }
        None => cut_off(),
    })
}

/// The whole content, and the trailers. `None`: it is not as long as it was declared.
async fn read<B: ResponseBody>(body: B, length: u64) -> Option<(Bytes, Option<HeaderMap>)> {
    let mut body = pin!(body);
    let (mut content, mut trailers) = (Content::None, None);
    while let Some(frame) = body.frame().await {
        match frame.ok()?.into_data() {
            Ok(data) => content = content.and(data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if content.len() as u64 > length {
            return None;
        }
    }
    (content.len() as u64 == length).then(|| (content.into_bytes(), trailers))
}

/// What has come of a body. Most come in one piece, which is not copied.
enum Content {
    None,
    One(Bytes),
    More(BytesMut),
}

impl Content {
    fn and(self, data: Bytes) -> Self {
        let mut all = match self {
            Self::None => return Self::One(data),
            Self::One(first) => BytesMut::from(first),
            Self::More(all) => all,
        };
        all.extend_from_slice(&data);
        Self::More(all)
    }

    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(data) => data.len(),
            Self::More(all) => all.len(),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::One(data) => data,
            Self::More(all) => all.freeze(),
        }
    }
}

/// RFC 9110 §15.6.3: the origin has sent an invalid response.
fn cut_off<B>() -> Response<Body<B>> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.extensions_mut().insert(CutOff);
    response
}
