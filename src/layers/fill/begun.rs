//! From the head of the response to its way into the store.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header, request, response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    Policy,
    candidate::Candidate,
    fetch::Fetch,
    recorder::{Content, Pending, record},
};
use crate::{
    body::{Body, ResponseBody},
    exchange::ResponseFacts,
    http::{
        cookies,
        fields::remove_all,
        range::Extent,
        response_fields::ResponseFields,
        storing::{Decision, Sharing, Unshareable},
    },
    key::copy_of_body,
    layers::service::EagerOneshot,
    sequence::{Fetching, Subject, Tagged},
    store::{Applied, HeadBuilder, Origin, Store, selection},
    tags::Tags,
};

/// A fetch whose request is on its way to the origin, and what the response is judged by.
pub(super) struct Begun<St, P> {
    pub(super) fetch: Fetch<St, P>,
    /// What the request is conditional on, if it is by the cache's own doing.
    pub(super) candidate: Option<Candidate>,
    /// Whether this is the repetition without conditions.
    pub(super) is_repeated: bool,
    pub(super) subject: Arc<Subject>,
    pub(super) sent_at: Instant,
}

/// Sends the request once more, without conditions.
pub(super) type Again<F> = Box<dyn FnOnce() -> F + Send>;

pin_project! {
    /// Waits for the origin's response, beside what it will be judged by: that is large, and is not
    /// moved again.
    pub(super) struct Asking<F, St, P> {
        #[pin]
        response: Option<F>,
        begun: Begun<St, P>,
        // Only of a request that is conditional.
        again: Option<Again<F>>,
        // Until the response is there, and then for as long as it may be stored.
        fetching: Option<Fetching>,
    }
}

impl<F, St, P> Asking<F, St, P> {
    // Else it is moved once more.
    #[inline(always)]
    pub(super) fn new(response: F, begun: Begun<St, P>, again: Option<Again<F>>, fetching: Fetching) -> Self {
        Self { response: Some(response), begun, again, fetching: Some(fetching) }
    }
}

impl<F, St: Store, P: Policy, B, E> Future for Asking<F, St, P>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: ResponseBody,
{
    type Output = Result<Response<Body<B>>, E>;

    #[allow(clippy::expect_used)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let response = this.response.as_mut().as_pin_mut().expect("polled after completion");
            let mut response = match ready!(response.poll(cx)) {
                Ok(response) => response,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let fetch = &this.begun.fetch;
            let mut outline =
                fetch.layer.targets.outline(response.headers()).under(fetch.client.asked().keyed());
            outline.settle_length(&this.begun.fetch.client.head().method, &mut response);
            if let Some(again) = this.again.take_if(|_| this.begun.is_misfit(&response, &outline)) {
                // First, with what they hold, such as a place at the origin.
                drop(response);
                this.response.set(None);
                this.begun.repeat();
                this.response.set(Some(again()));
                continue;
            }
            let fetching = this.fetching.take().expect("polled after completion");
            return Poll::Ready(Ok(this.begun.conclude(response, &outline, fetching)));
        }
    }
}

impl<St: Store, P: Policy> Begun<St, P> {
    /// Makes the request conditional, if there is something to confirm, and returns the way to send it
    /// without conditions. What cannot be sent twice stays without.
    pub(super) fn make_conditional<S, ReqB>(
        &mut self,
        head: &mut request::Parts,
        body: &ReqB,
        inner: &S,
    ) -> Option<Again<EagerOneshot<S, Request<ReqB>>>>
    where
        S: Service<Request<ReqB>> + Clone + Send + 'static,
        ReqB: HttpBody + Default + Send + 'static,
    {
        let candidate = self.candidate.take()?;
        let body = copy_of_body(body, &head.extensions)?;
        let mut inner = inner.clone();
        let (client, extensions) = (Arc::clone(&self.fetch.client), head.extensions.clone());
        candidate.make_conditional(&mut head.headers);
        self.candidate = Some(candidate);
        Some(Box::new(move || {
            let head = client.to_head(Some(&extensions));
            EagerOneshot::new(&mut inner, Request::from_parts(head, body))
        }))
    }

    /// Whether the response is due to the cache's own conditions and of no use to the client: a 304 that
    /// does not confirm the candidate, or a 412.
    fn is_misfit<B>(&self, response: &Response<B>, outline: &ResponseFields) -> bool {
        match (&self.candidate, response.status()) {
            (Some(candidate), StatusCode::NOT_MODIFIED) => {
                candidate.confirmed_by(response.headers(), &outline.vary).is_none()
            }
            (Some(_), status) => status == StatusCode::PRECONDITION_FAILED,
            (None, _) => false,
        }
    }

    /// Notes that the request goes out once more now, without conditions. The fetch keeps its number:
    /// what was purged since it began is not to be stored.
    fn repeat(&mut self) {
        (self.candidate, self.is_repeated, self.sent_at) = (None, true, Instant::now());
    }

    /// Returns what the client gets of the origin's response.
    fn conclude<B>(
        &self,
        response: Response<B>,
        outline: &ResponseFields,
        fetching: Fetching,
    ) -> Response<Body<B>>
    where
        B: ResponseBody,
    {
        let Self { fetch, .. } = self;
        let client = fetch.client.head();
        let (head, body) = response.into_parts();
        let sent_at = ResponseFacts::attempt_began(&head.extensions).unwrap_or(self.sent_at);
        let own = head.extensions.get::<Tags>();
        let fields = Tagged { headers: &head.headers, outline, fields: &fetch.layer.targets.tags };
        let subject = fetch.layer.store.sequence().tagged(&self.subject, client, fields, own);
        let origin = Origin::new(outline, sent_at, fetching.number, subject);
        if head.status == StatusCode::NOT_MODIFIED && (self.is_repeated || self.candidate.is_some()) {
            return self.not_modified(head, outline, &origin);
        }
        self.fetched((head, body), outline, &origin, fetching)
    }

    /// Apart, as all that is rare: the way of all others is long enough.
    #[inline(never)]
    fn not_modified<B>(
        &self,
        head: response::Parts,
        outline: &ResponseFields,
        origin: &Origin,
    ) -> Response<Body<B>> {
        let candidate = self.candidate.as_ref();
        match candidate.and_then(|candidate| candidate.confirmed_by(&head.headers, &outline.vary)) {
            Some(stored) => self.fetch.revalidated(self.fetch.client.head(), stored, head, origin),
            None => self.fetch.unasked(origin),
        }
    }

    fn fetched<B>(
        &self,
        (mut head, body): (response::Parts, B),
        outline: &ResponseFields,
        origin: &Origin,
        fetching: Fetching,
    ) -> Response<Body<B>>
    where
        B: ResponseBody,
    {
        let fetch = &self.fetch;
        let client = fetch.client.head();
        if client.method == Method::HEAD {
            fetch.learn_from_head(client, &head, &outline.vary, origin);
        }
        let glance = fetch.client.asked().fields(&client.headers);
        let extent = Extent::for_all(&client.method, &client.headers, head.status, &head.headers);
        let (mut decision, rules) = fetch.decide((client, &glance), &head, extent, outline, origin);
        if decision.is_storable && fetch.is_too_large(outline, &body) {
            fetch.layer.store.not_stored(fetch.client.asked().key(), Applied::TooLarge);
            decision = Decision::not_stored(Sharing::Unshareable(Unshareable::TooLarge));
        }
        fetch.note((client, &glance), (head.status, &head.headers), &decision, &rules, origin);
        let selection = selection(&outline.vary, &glance);
        fetch.layer.targets.strip(&mut head.headers, outline.has_tags);
        let body = match decision.is_storable {
            true => {
                let fields = kept(&head.headers, outline, &decision.withheld);
                let length = outline.content.and_then(|length| usize::try_from(length).ok());
                let pending = Pending {
                    content: match extent {
                        Some(extent) => Content::Part(extent, fields.into_owned()),
                        None => Content::Whole(HeadBuilder::new(head.status, &fields, length)),
                    },
                    length,
                    withheld: decision.withheld.clone(),
                    selection: selection.clone(),
                    terms: decision.terms,
                    origin: origin.clone(),
                    fetching,
                };
                let marker = fetch.marker((client, &glance), head.status, &rules, origin);
                let (store, client) = (fetch.layer.store.clone(), Arc::clone(&fetch.client));
                record(store, client, pending, marker, (body, outline.content))
            }
            false => Body::declared(body, outline.content),
        };
        if rules.store_without.has(&header::SET_COOKIE) {
            cookies::spare_those_of_client(client, &mut head.headers);
        }
        // Said by a stack below of its own body, which nothing reads to its end for the store here.
        ResponseFacts::forget(&mut head.extensions);
        let mut response = Response::from_parts(head, body);
        let status = response.status();
        fetch.sign(&mut response, status, decision, selection, origin);
        response
    }
}

/// The fields that may be kept, with a valid `Date` in any case.
fn kept<'a>(headers: &'a HeaderMap, outline: &ResponseFields, withheld: &[HeaderName]) -> Cow<'a, HeaderMap> {
    let mut kept = Cow::Borrowed(headers);
    if !outline.has_date() || headers.keys().any(|name| withheld.contains(name)) {
        remove_all(kept.to_mut(), |name| withheld.contains(name));
        outline.give_date(kept.to_mut());
    }
    kept
}
