//! What one caller does: join, wait, judge, and take the answer or go another way.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts, response};
use http_body::Body as HttpBody;
use tokio::{sync::oneshot, time::Instant};
use tower::ServiceExt;
use tower_service::Service;

use super::{
    drive::{Delivery, Drive},
    flight::{Caller, Head, Outcome},
    layer::Settings,
    reader::Reader,
    slots::{Joined, Party, Seat, Slot, Slots},
};
use crate::{
    body::{Body, BoxError},
    exchange::{Asked, CompletesItself, Refused, Verdict, without_extensions},
    http::{
        changes::rules_for,
        fields::remove_hop_by_hop,
        freshness::after,
        glance::Glance,
        storing::{Credentials, Unshareable},
        vary::Selection,
    },
    store::Lineage,
};

/// A caller changes slots at most so often before he goes alone.
const MAX_HOPS: u8 = 3;
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Call<S, ReqB> {
    pub(super) inner: S,
    pub(super) head: Parts,
    pub(super) body: ReqB,
    pub(super) asked: Asked,
    pub(super) slots: Arc<Slots>,
    pub(super) settings: Arc<Settings>,
}

/// What the outcome of a flight means for one follower.
enum Judgement<B, E> {
    Answer(Result<Response<Body<B>>, E>),
    /// Join those with the same selecting values or credentials.
    Rejoin(Slot),
    /// Ask the origin oneself.
    Alone,
}

impl<S, ReqB, B> Call<S, ReqB>
where
    S: Service<Request<ReqB>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Clone + Send + Sync + 'static,
    ReqB: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    pub(super) async fn run(self) -> Result<Response<Body<B>>, S::Error> {
        let deadline = after(Instant::now(), self.settings.max_wait);
        let mut slot = self.first_slot();
        // What a refresh brings will do for everybody else.
        if !slot.is_forced && self.slots.are_taken() {
            let forced = Slot { is_forced: true, ..slot.clone() };
            if self.slots.has(&forced) {
                slot = forced;
            }
        }
        for _ in 0..MAX_HOPS {
            let caller = match self.slots.join(slot.clone(), &self.settings) {
                Joined::Lead(caller, seat) => return self.lead(caller, seat).await,
                Joined::Full => return Ok(Refused::TooManyWaiters.to_response(RETRY_AFTER)),
                Joined::Alone => break,
                Joined::Follow(caller) => caller,
            };
            let flight = Arc::clone(caller.flight());
            let outcome = match flight.outcome() {
                Some(outcome) => outcome,
                None => match tokio::time::timeout_at(deadline, flight.settled()).await {
                    Ok(outcome) => outcome,
                    Err(_) => return Ok(Refused::WaitTimeout.to_response(RETRY_AFTER)),
                },
            };
            match self.judge(outcome, caller, slot) {
                Judgement::Answer(answer) => return answer,
                Judgement::Rejoin(other) => slot = other,
                Judgement::Alone => break,
            }
        }
        let request = Request::from_parts(self.head, self.body);
        self.inner.oneshot(request).await.map(|response| response.map(Body::inner))
    }

    fn first_slot(&self) -> Slot {
        Slot {
            key: self.asked.key.clone(),
            is_head: self.head.method == Method::HEAD,
            is_forced: self.asked.is_forced,
            party: Party::WithOrWithoutCookie {
                authorization: Credentials::of(&self.head.headers).authorization,
            },
            selection: self.asked.selection.clone(),
            range: self.head.headers.get(header::RANGE).cloned(),
            floor: self.asked.arrival.as_ref().map_or(0, |arrival| arrival.floor),
            round: 0,
        }
    }

    async fn lead(self, caller: Caller, seat: Seat) -> Result<Response<Body<B>>, S::Error> {
        let (leader, delivery) = oneshot::channel();
        let (settings, request) = (Arc::clone(&self.settings), without_extensions(&self.head));
        let rules = rules_for(&self.head.extensions, settings.rules);
        let fetch = self.inner.oneshot(Request::from_parts(self.head, self.body));
        let drive = Drive { seat, leader, settings, request, rules };
        self.settings.executor.start(Box::pin(drive.run(fetch))).await;
        match delivery.await {
            Ok(Delivery::Own(response)) => Ok(response.map(Body::inner)),
            Ok(Delivery::Shared(head)) => Ok(share_with_leader(caller, *head)),
            Ok(Delivery::Error(error)) => Err(error),
            Ok(Delivery::Panic(payload)) => resume_unwind(payload),
            Err(_) => {
                let refused = match caller.flight().outcome() {
                    Some(Outcome::Refused(refused)) => *refused,
                    _ => Refused::FetchAborted,
                };
                Ok(refused.to_response(RETRY_AFTER))
            }
        }
    }

    fn judge(&self, outcome: &Outcome, caller: Caller, slot: Slot) -> Judgement<B, S::Error> {
        match outcome {
            Outcome::Head(head) => self.judge_head(head, caller, slot),
            Outcome::Error(error) => match error.downcast_ref::<S::Error>() {
                Some(error) => Judgement::Answer(Err(error.clone())),
                // One layer round services of different errors, under one key.
                None => Judgement::Alone,
            },
            Outcome::Refused(refused) => Judgement::Answer(Ok(refused.to_response(RETRY_AFTER))),
            Outcome::Aborted if slot.round == 0 => Judgement::Rejoin(Slot { round: 1, ..slot }),
            Outcome::Aborted => Judgement::Answer(Ok(Refused::FetchAborted.to_response(RETRY_AFTER))),
        }
    }

    /// Whether a fetch began after this caller came.
    fn is_newer(&self, lineage: &Option<Lineage>) -> bool {
        lineage.as_ref().is_some_and(|lineage| lineage.begun() > self.asked.arrived_at())
    }

    fn judge_head(&self, head: &Head, caller: Caller, slot: Slot) -> Judgement<B, S::Error> {
        let glance = Glance::of(&self.head.headers);
        let mine = glance.credentials;
        let selects = |selection: &Option<Selection>| {
            selection.as_ref().is_none_or(|selection| selection.matches(&glance))
        };
        match &head.verdict {
            Verdict::Unshareable(Unshareable::Cookie) if !mine.cookie => {
                Judgement::Rejoin(Slot { party: Party::Only(mine), ..slot })
            }
            // It may be the fault of the one who asked: somebody else tries. If the origin turns
            // him away as well, it is not asked again for all the others.
            Verdict::Unshareable(Unshareable::Error) if slot.round == 0 => {
                Judgement::Rejoin(Slot { round: 1, ..slot })
            }
            Verdict::Unshareable(Unshareable::Error) if head.status == StatusCode::TOO_MANY_REQUESTS => {
                Judgement::Answer(Ok(bare(head)))
            }
            Verdict::Unshareable(_) => Judgement::Alone,
            // Its tags, which nobody knew before, were purged while this caller was on his way.
            Verdict::Shareable { lineage: Some(lineage), .. }
            | Verdict::Failed { lineage: Some(lineage), .. }
                if !lineage.is_for(self.asked.arrival.as_ref()) =>
            {
                Judgement::Rejoin(Slot { floor: slot.floor.max(lineage.floor()), ..slot })
            }
            Verdict::Failed { selection, for_all, .. } => {
                let whole = *for_all && selects(selection);
                Judgement::Answer(Ok(if whole { share(head, caller) } else { bare(head) }))
            }
            // Begun before this caller came: those in the same position share the next one.
            Verdict::Shareable { lineage, .. } if self.asked.is_forced && !self.is_newer(lineage) => {
                Judgement::Rejoin(slot)
            }
            Verdict::Shareable { audience, .. } if !mine.admitted_to(*audience) => {
                Judgement::Rejoin(Slot { party: Party::Only(mine), ..slot })
            }
            Verdict::Shareable { selection, .. } if !selects(selection) => {
                let fields = selection.as_ref().map(|selection| selection.fields());
                let selection = fields.map(|fields| Selection::new(fields, &self.head.headers));
                Judgement::Rejoin(Slot { selection, ..slot })
            }
            Verdict::Shareable { .. } => Judgement::Answer(Ok(share(head, caller))),
        }
    }
}

/// The answer as every caller but the first gets it.
fn share<B>(head: &Head, caller: Caller) -> Response<Body<B>> {
    let mut response = answer(head, caller);
    head.came_about.collapsed().mark(&mut response);
    response
}

/// The head as it came, but for what belongs to the connection.
fn share_with_leader<B>(caller: Caller, mut head: response::Parts) -> Response<Body<B>> {
    remove_hop_by_hop(&mut head.headers);
    head.extensions.insert(CompletesItself);
    let size = match caller.flight().outcome() {
        Some(Outcome::Head(shared)) => shared.size,
        _ => None,
    };
    Response::from_parts(head, Body::shared(Reader::new(caller, size)))
}

fn answer<B>(head: &Head, caller: Caller) -> Response<Body<B>> {
    let mut response = Response::new(Body::shared(Reader::new(caller, head.size)));
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers.clone();
    response.extensions_mut().insert(CompletesItself);
    // Who joined a slow body later gets an older answer than the first one did.
    let waited = head.received_at.elapsed().as_secs();
    if waited > 0 {
        let age = response.headers().get(header::AGE).and_then(|age| age.to_str().ok()?.parse().ok());
        let age = HeaderValue::from(age.unwrap_or(0_u64).saturating_add(waited));
        response.headers_mut().insert(header::AGE, age);
    }
    response
}

/// A failure that holds something for another client: its status, and when to come back.
fn bare<B>(head: &Head) -> Response<Body<B>> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = head.status;
    if let Some(retry_after) = head.headers.get(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, retry_after.clone());
    }
    head.came_about.collapsed().mark(&mut response);
    response
}
