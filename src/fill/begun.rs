//! From the head of the answer to its way into the store.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, response};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    Policy,
    candidates::Candidates,
    fetch::{Client, Fetch},
    recorder::{Content, Pending, record},
};
use crate::{
    body::{Body, BoxError},
    exchange::AttemptBegan,
    http::{
        fields::remove_all,
        glance::Glance,
        outline::Outline,
        range::Extent,
        storing::{Decision, Sharing, Unshareable},
    },
    store::{Draft, Fetching, Marker, Origin, Store, Subject, selection},
    tags::Tags,
};

/// A fetch whose request is on its way to the origin, and what the answer is judged by.
pub(super) struct Begun<St, P> {
    pub(super) fetch: Fetch<St, P>,
    pub(super) candidates: Candidates,
    pub(super) subject: Arc<Subject>,
    pub(super) sent_at: Instant,
}

/// What is known of a request that goes out, by whoever sends it.
pub(crate) struct Sent {
    pub(crate) at: Instant,
    /// Has a copy of the head, if that goes out as it came.
    pub(crate) client: Option<Arc<Client>>,
}

pin_project! {
    /// Waits for the origin's answer beside what it will be judged by, which is large and stays where
    /// it is.
    pub(super) struct Asking<F, St, P> {
        #[pin]
        pub(super) answer: F,
        pub(super) begun: Begun<St, P>,
        // Until the answer is there, and then for as long as it may be stored.
        pub(super) fetching: Option<Fetching>,
    }
}

impl<F, St: Store, P: Policy, B, E> Future for Asking<F, St, P>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<Body<B>>, E>;

    #[allow(clippy::expect_used)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        let fetching = this.fetching.take().expect("polled after completion");
        Poll::Ready(answer.map(|answer| this.begun.conclude(answer, fetching)))
    }
}

impl<St: Store, P: Policy> Begun<St, P> {
    pub(super) fn sent(&self) -> Sent {
        let is_as_it_came = self.candidates.is_empty();
        Sent { at: self.sent_at, client: is_as_it_came.then(|| Arc::clone(&self.fetch.client)) }
    }

    /// What the client gets of the origin's answer.
    fn conclude<B>(&self, response: Response<B>, fetching: Fetching) -> Response<Body<B>>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let Self { fetch, candidates, .. } = self;
        let client = &fetch.client.head;
        let (head, body) = response.into_parts();
        let outline = Outline::of(&head.headers, SystemTime::now());
        let sent_at = head.extensions.get::<AttemptBegan>().map_or(self.sent_at, |began| began.0);
        let (own, fields) = (head.extensions.get::<Tags>(), (&head.headers, &outline));
        let subject = fetch.layer.store.sequence().tagged(&self.subject, client, fields, own);
        let origin = Origin::new(&outline, sent_at, fetching.number, subject);
        match head.status == StatusCode::NOT_MODIFIED && !candidates.is_empty() {
            true => self.not_modified(head, &origin),
            false => self.fetched((head, body), &outline, &origin, fetching),
        }
    }

    /// Apart, as all that is rare: the way of all others is long enough.
    #[inline(never)]
    fn not_modified<B>(&self, head: response::Parts, origin: &Origin) -> Response<Body<B>> {
        let Self { fetch, candidates, .. } = self;
        let client = &fetch.client.head;
        if candidates.are_too_many_for(&head.headers) {
            fetch.layer.names_tags.store(false, Ordering::Relaxed);
        }
        match candidates.confirmed_by(&head.headers) {
            Some(stored) => fetch.revalidated(client, stored, candidates, head, origin),
            None => fetch.misfit(client, origin),
        }
    }

    fn fetched<B>(
        &self,
        (mut head, body): (response::Parts, B),
        outline: &Outline,
        origin: &Origin,
        fetching: Fetching,
    ) -> Response<Body<B>>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let fetch = &self.fetch;
        let client = &fetch.client.head;
        if client.method == Method::HEAD {
            fetch.learn_from_head(client, &head, origin);
        }
        let glance = Glance::of(&client.headers);
        let extent = Extent::for_all(&client.method, &client.headers, head.status, &head.headers);
        let (mut decision, rules) = fetch.decide((client, &glance), &head, extent, outline, origin);
        if decision.is_storable && fetch.is_too_large(outline, &body) {
            fetch.layer.store.refused();
            decision = Decision::not_stored(Sharing::Unshareable(Unshareable::TooLarge));
        }
        fetch.note((client, &glance), (head.status, &head.headers), &decision, &rules, origin);
        let selection = selection(&outline.vary, &glance);
        fetch.layer.targets.strip(&mut head.headers, outline.has_tags);
        let body = match outline.length {
            Ok(declared) if decision.is_storable => {
                let fields = kept(&head.headers, outline, &decision.withheld);
                let length = declared.or(body.size_hint().exact()).and_then(|n| usize::try_from(n).ok());
                let pending = Pending {
                    content: match extent {
                        Some(extent) => Content::Part(extent, fields.into_owned()),
                        None => Content::Whole(Draft::new(head.status, &fields, length)),
                    },
                    length,
                    withheld: decision.withheld.clone(),
                    selection: selection.clone(),
                    terms: decision.terms,
                    origin: origin.clone(),
                    fetching,
                };
                let marker = Marker::new(&client.method, &glance, origin.received_at, rules.hit_for_miss_for);
                record(fetch.layer.store.clone(), fetch.client.asked.key.clone(), pending, marker, body)
            }
            _ => Body::inner(body),
        };
        let mut response = Response::from_parts(head, body);
        let status = response.status();
        fetch.sign(&mut response, status, decision, selection, origin);
        response
    }
}

/// The fields that may be kept, with a valid `Date` in any case.
fn kept<'a>(headers: &'a HeaderMap, outline: &Outline, withheld: &[HeaderName]) -> Cow<'a, HeaderMap> {
    let mut kept = Cow::Borrowed(headers);
    if outline.date.is_none() || !withheld.is_empty() {
        remove_all(kept.to_mut(), |name| withheld.contains(name));
        outline.give_date(kept.to_mut());
    }
    kept
}
