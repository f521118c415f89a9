//! What one caller does: join, wait, judge, and take the answer or go another way.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts, response};
use http_body::Body as HttpBody;
use tokio::{sync::oneshot, time::Instant};

use super::{
    drive::Drive,
    flight::{Caller, Flight, Head, Outcome},
    landing::{Delivery, Judge, Landing},
    layer::CoalesceLayer,
    reader::Reader,
    slots::{Joined, Party, Seat, Slot},
};
use crate::{
    body::{Body, BoxError},
    exchange::{Asked, CompletesItself, Refused, Verdict, without_extensions},
    executor::{Executor, Task},
    http::{
        changes::rules_for,
        fields::content_of,
        freshness::after,
        glance::Glance,
        storing::{Unshareable, is_error},
        vary::Selection,
    },
    status::CacheStatus,
    store::Lineage,
};

/// A caller changes slots at most so often before he goes alone.
const MAX_HOPS: u8 = 3;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One request, on its way to an answer.
pub(super) struct Call<N, ReqB> {
    /// Asks what is below, once.
    pub(super) below: N,
    pub(super) head: Parts,
    pub(super) body: ReqB,
    pub(super) slot: Slot,
    pub(super) layer: Arc<CoalesceLayer>,
}

/// What the outcome of a flight means for one follower.
enum Judgement<B, E> {
    Answer(Result<Response<Body<B>>, E>),
    /// Join those with the same selecting values or credentials.
    Rejoin(Slot),
    /// Ask the origin oneself.
    Alone,
}

impl<N, F, ReqB, B, E> Call<N, ReqB>
where
    N: FnOnce(Parts, ReqB) -> F + Send + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    E: Clone + Send + Sync + 'static,
    ReqB: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    #[allow(clippy::manual_async_fn, reason = "an `async fn` would take up the room of `self` twice")]
    pub(super) fn run(mut self) -> impl Future<Output = Result<Response<Body<B>>, E>> + Send {
        async move {
            // For all waits together, and only who waits needs a clock.
            let mut deadline = None;
            let check =
                Check { is_head: self.slot.is_head, is_done_below: self.layer.settings.rules.is_none() };
            self.prefer_refresh();
            // Outside a runtime there is nothing that could fetch for several.
            let hops = if Executor::is_available() { MAX_HOPS } else { 0 };
            for _ in 0..hops {
                let CoalesceLayer { slots, settings } = &*self.layer;
                let caller = match slots.join(self.slot.clone(), settings) {
                    Joined::Lead(caller) => {
                        let executor = settings.executor.clone();
                        let (fetch, delivery) = self.begin(Arc::clone(caller.flight()));
                        executor.start(fetch).await;
                        return accept(delivery.await, caller, check);
                    }
                    Joined::Full => return Ok(Refused::TooManyWaiters.to_response(RETRY_AFTER)),
                    Joined::Alone => break,
                    Joined::Follow(caller) => caller,
                };
                let flight = Arc::clone(caller.flight());
                let outcome = match flight.outcome() {
                    Some(outcome) => outcome,
                    None => {
                        let deadline =
                            deadline.get_or_insert_with(|| after(Instant::now(), settings.max_wait));
                        match tokio::time::timeout_at(*deadline, flight.settled()).await {
                            Ok(outcome) => outcome,
                            Err(_) => return Ok(Refused::WaitTimeout.to_response(RETRY_AFTER)),
                        }
                    }
                };
                match self.judge(outcome, caller) {
                    Judgement::Answer(mut answer) => {
                        // Somebody above shares it as well.
                        if let (Ok(response), Outcome::Head(head)) = (&mut answer, outcome)
                            && self.asked().is_some_and(|asked| asked.is_for_many)
                        {
                            response.extensions_mut().insert(head.verdict.handed_on());
                        }
                        return answer;
                    }
                    Judgement::Rejoin(other) => self.slot = other,
                    Judgement::Alone => break,
                }
            }
            let answer = (self.below)(self.head, self.body);
            answer.await.map(|response| check.own(response))
        }
    }

    /// What a refresh under way brings will do for everybody else.
    fn prefer_refresh(&mut self) {
        if !self.slot.is_forced && self.layer.slots.have_forced() {
            let forced = Slot { is_forced: true, ..self.slot.clone() };
            if self.layer.slots.has(&forced) {
                self.slot = forced;
            }
        }
    }

    /// The fetch, which nobody has begun yet, and where its answer will be.
    fn begin(mut self, flight: Arc<Flight>) -> (Task, oneshot::Receiver<Delivery<B, E>>) {
        let asked = self.head.extensions.get_mut::<Asked>();
        let is_for_more = asked.is_some_and(|asked| std::mem::replace(&mut asked.is_for_many, true));
        let (leader, delivery) = oneshot::channel();
        let judge = self.layer.settings.rules.map(|rules| {
            let rules = rules_for(&self.head.extensions, rules);
            Box::new(Judge { request: without_extensions(&self.head), rules })
        });
        let ask = move || (self.below)(self.head, self.body);
        let seat = Seat::take(self.layer, self.slot, flight);
        let landing = Landing { leader: Some(leader), judge, is_for_more };
        let drive = Drive { seat, landing };
        (Box::pin(drive.run(ask)), delivery)
    }

    #[inline(never)]
    fn judge(&self, outcome: &Outcome, caller: Caller) -> Judgement<B, E> {
        match outcome {
            Outcome::Head(head) => self.judge_head(head, caller),
            Outcome::Error(error) => match error.downcast_ref::<E>() {
                Some(error) => Judgement::Answer(Err(error.clone())),
                // One layer round services of different errors, under one key.
                None => Judgement::Alone,
            },
            Outcome::Refused(refused) => Judgement::Answer(Ok(refused.to_response(RETRY_AFTER))),
            Outcome::Aborted if self.slot.round == 0 => {
                Judgement::Rejoin(Slot { round: 1, ..self.slot.clone() })
            }
            Outcome::Aborted => Judgement::Answer(Ok(Refused::FetchAborted.to_response(RETRY_AFTER))),
        }
    }

    /// Whether only a fetch will do that began after this caller came, and this one did not.
    fn is_too_old(&self, lineage: &Option<Lineage>) -> bool {
        let is_newer =
            |asked: &Asked| lineage.as_ref().is_some_and(|lineage| lineage.begun() > asked.arrived_at());
        self.asked().is_some_and(|asked| asked.is_forced && !is_newer(asked))
    }

    /// `None`: by its key alone.
    fn asked(&self) -> Option<&Asked> {
        self.head.extensions.get()
    }

    fn judge_head(&self, head: &Head, caller: Caller) -> Judgement<B, E> {
        let glance = Glance::of(&self.head.headers);
        let mine = glance.credentials;
        let selects = |selection: &Option<Selection>| {
            selection.as_ref().is_none_or(|selection| selection.matches(&glance))
        };
        match &head.verdict {
            Verdict::Unshareable(Unshareable::Cookie) if !mine.cookie => {
                Judgement::Rejoin(Slot { party: Party::Only(mine), ..self.slot.clone() })
            }
            // It may be the fault of that one request: another one is sent.
            Verdict::Unshareable(_) if is_error(head.status) && self.slot.round == 0 => {
                Judgement::Rejoin(Slot { round: 1, ..self.slot.clone() })
            }
            // An origin that says so twice is not asked again for all the others.
            Verdict::Unshareable(_) if head.status == StatusCode::TOO_MANY_REQUESTS => {
                Judgement::Answer(Ok(bare(head)))
            }
            Verdict::Unshareable(_) => Judgement::Alone,
            // Its tags, which nobody knew before, were purged while this caller was on his way.
            Verdict::Shareable { lineage: Some(lineage), .. }
            | Verdict::Failed { lineage: Some(lineage), .. }
                if !lineage.is_for(self.asked().and_then(|asked| asked.arrival.as_ref())) =>
            {
                Judgement::Rejoin(Slot { floor: self.slot.floor.max(lineage.floor()), ..self.slot.clone() })
            }
            Verdict::Failed { selection, for_all, .. } => {
                let whole = *for_all && selects(selection);
                Judgement::Answer(Ok(if whole { share(head, caller) } else { bare(head) }))
            }
            // Begun before this caller came: those in the same position share the next one.
            Verdict::Shareable { lineage, .. } if self.is_too_old(lineage) => {
                Judgement::Rejoin(self.slot.clone())
            }
            Verdict::Shareable { audience, .. } if !mine.admitted_to(*audience) => {
                Judgement::Rejoin(Slot { party: Party::Only(mine), ..self.slot.clone() })
            }
            Verdict::Shareable { selection, .. } if !selects(selection) => {
                let fields = selection.as_ref().map(|selection| selection.fields());
                let selection = fields.map(|fields| Selection::new(fields, &self.head.headers));
                Judgement::Rejoin(Slot { selection, ..self.slot.clone() })
            }
            Verdict::Shareable { .. } => Judgement::Answer(Ok(share(head, caller))),
        }
    }
}

/// How it is known that a response which is not shared is as long as its head says.
#[derive(Clone, Copy)]
struct Check {
    is_head: bool,
    is_done_below: bool,
}

impl Check {
    fn own<B>(self, response: Response<B>) -> Response<Body<B>>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if self.is_done_below {
            return response.map(Body::inner);
        }
        let length = content_of(self.is_head, &response);
        response.map(|body| Body::declared(body, length))
    }
}

/// The answer as the first caller gets it.
fn accept<B, E>(
    delivery: Result<Delivery<B, E>, oneshot::error::RecvError>,
    caller: Caller,
    check: Check,
) -> Result<Response<Body<B>>, E>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    match delivery {
        Ok(Delivery::Own(response)) => Ok(check.own(response)),
        Ok(Delivery::Shared(head)) => Ok(share_with_leader(caller, head)),
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

/// The answer as every caller but the first gets it.
fn share<B>(head: &Head, caller: Caller) -> Response<Body<B>> {
    let mut response = answer(head, caller);
    if let Some(came_about) = head.came_about
        && CacheStatus::of(&response).is_none()
    {
        // As in what the first caller gets: what follows takes its place.
        response.extensions_mut().insert(came_about);
    }
    head.collapsed().mark(&mut response);
    response
}

/// The head as it came, but for what belongs to the connection.
fn share_with_leader<B>(mut caller: Caller, mut head: response::Parts) -> Response<Body<B>> {
    if head.headers.is_empty() {
        head.headers = caller.take_fields();
    }
    head.extensions.insert(CompletesItself);
    let (came_about, size) = match caller.flight().outcome() {
        Some(Outcome::Head(shared)) => (shared.came_about, shared.size),
        _ => (None, None),
    };
    // Where the origin named the field as one of the connection.
    if let Some(came_about) = came_about
        && !head.headers.contains_key(header::CACHE_STATUS)
    {
        head.extensions.insert(came_about);
    }
    Response::from_parts(head, body(caller, size))
}

/// The body as one caller reads it. What is there in one piece needs no reader.
fn body<B>(caller: Caller, size: Option<u64>) -> Body<B> {
    match size.and_then(|size| caller.flight().whole(size)) {
        Some(whole) => Body::stored(whole, None),
        None => Body::shared(Reader::new(caller, size)),
    }
}

fn answer<B>(head: &Head, caller: Caller) -> Response<Body<B>> {
    let mut response = Response::new(body(caller, head.size));
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers.clone();
    // Who joined a slow body later gets an older answer than the first one did.
    let waited = match head.verdict {
        Verdict::Shareable { received_at, .. } | Verdict::Failed { received_at, .. } => {
            received_at.elapsed().as_secs()
        }
        Verdict::Unshareable(_) => 0,
    };
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
    head.collapsed().mark(&mut response);
    response
}
