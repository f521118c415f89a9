//! What one caller does: join, wait, judge, and take the response or go another way.

use std::{panic::resume_unwind, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderName, HeaderValue, Response, StatusCode, header, request::Parts, response};
use http_body::Body as HttpBody;
use tokio::{sync::oneshot, time::Instant};

use super::{
    drive::FetchTask,
    flight::{Flight, Head, Outcome, Subscriber, Subscription},
    landing::{Delivery, Judge, Landing},
    layer::{CoalesceLayer, Settings},
    leading::lead,
    reader::Reader,
    slots::{self, CredentialClass, FlightGuard, FlightKey, Joined},
};
use crate::{
    body::{Body, BoxError},
    exchange::status::{CacheStatus, Forward},
    exchange::{CacheRequest, CompletesItself, Refused, Verdict, without_extensions},
    executor::{Executor, Task},
    http::{
        credentials::Credentials,
        fields::content_of,
        freshness::after,
        request_fields::RequestFields,
        storing::{Unshareable, is_error},
        vary::{Forms, Selection},
    },
    key::RuleOverrides,
    sequence::Provenance,
};

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// After each round of errors the callers ask in so many parts.
const PARTS: u16 = 16;

/// After an error in this round they ask alone.
const LAST_ROUND: u8 = 3;

/// One request, on its way to a response.
pub(super) struct Call<N, ReqB> {
    /// Asks what is below, once.
    pub(super) below: N,
    pub(super) head: Parts,
    pub(super) body: ReqB,
    pub(super) slot: FlightKey,
    pub(super) credentials: Credentials,
    pub(super) layer: Arc<CoalesceLayer>,
    /// The fetch that had begun last when the request arrived.
    pub(super) arrived: u64,
}

/// What a caller learns of the fetch it waits for.
enum Heard {
    /// This flight has a head, or will have none. The caller can read its body if there is one.
    Outcome(Arc<Flight>, Subscriber),
    /// There is no head yet, and the caller may ask beside the fetch.
    Turn(Subscriber),
    Refused(Refused),
}

/// What the outcome of a flight means for one follower.
enum Judgement<B, E> {
    Answer(Result<Response<Body<B>>, E>),
    /// Join those who want the same, by what is known now.
    Move(FlightKey),
    /// Join the next fetch of the same slot.
    Later,
    /// Join a part of those who want the same, or else ask alone.
    Apart(FlightKey),
    /// Ask the origin for this caller alone.
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
    /// As [`run`](Self::run), for no longer than `limit`.
    pub(super) async fn run_within(self, limit: Duration) -> Result<Response<Body<B>>, E> {
        // Outside a runtime there are no timers.
        if !Executor::is_available() {
            return self.alone().await;
        }
        let why = self.follower().asked().map(|asked| asked.why);
        match tokio::time::timeout(limit, self.run()).await {
            Ok(answer) => answer,
            Err(_) => Ok(refuse(why, Refused::WaitTimeout)),
        }
    }

    #[allow(clippy::manual_async_fn, reason = "an `async fn` would take up the room of `self` twice")]
    pub(super) fn run(mut self) -> impl Future<Output = Result<Response<Body<B>>, E>> + Send {
        async move {
            let mut moves_until = None;
            let (check, wants_newer) = (self.check(), self.slot.is_forced);
            self.prefer_refresh();
            // Outside a runtime there is nothing that could fetch for several.
            while Executor::is_available() {
                let caller = match slots::join(&self.layer, &self.slot, self.credentials, wants_newer) {
                    Joined::Lead(caller, seat) => {
                        let executor = self.layer.settings.executor.clone();
                        let (fetch, delivery) = self.begin(seat);
                        executor.start(fetch).await;
                        return accept(delivery.await, caller, check);
                    }
                    Joined::Full => return Ok(self.follower().refuse(Refused::TooManyWaiters)),
                    Joined::Alone => break,
                    Joined::Follow(caller) => caller,
                };
                let heard = match caller.flight().outcome() {
                    Some(_) => Heard::Outcome(Arc::clone(caller.flight()), caller),
                    None => {
                        let has_fallback = self.follower().has_fallback();
                        wait(&self.layer.settings, caller, has_fallback).await
                    }
                };
                let judgement = match heard {
                    Heard::Outcome(flight, caller) => self.follower().judge(&flight, caller),
                    Heard::Refused(refused) => return Ok(self.follower().refuse(refused)),
                    // Boxed, for it is rare, and all others would have to have room for it.
                    Heard::Turn(slow) => return Box::pin(self.ask_beside(slow)).await,
                };
                let next = match judgement {
                    Judgement::Answer(answer) => return answer,
                    Judgement::Alone => break,
                    Judgement::Move(slot) => self.next_slot(slot, false, &mut moves_until),
                    Judgement::Later => self.next_slot(self.slot.clone(), true, &mut moves_until),
                    Judgement::Apart(slot) => match self.next_slot(slot, false, &mut moves_until) {
                        None => break,
                        some => some,
                    },
                };
                match next {
                    Some(slot) => self.slot = slot,
                    None => return Ok(self.follower().refuse(Refused::FetchAborted)),
                }
            }
            self.alone().await
        }
    }

    fn check(&self) -> Check {
        Check { is_head: self.slot.is_head, is_done_below: self.layer.settings.rules.is_none() }
    }

    fn follower(&self) -> Follower<'_> {
        Follower { head: &self.head, slot: &self.slot, credentials: self.credentials, arrived: self.arrived }
    }

    async fn alone(self) -> Result<Response<Body<B>>, E> {
        let check = self.check();
        let answer = (self.below)(self.head, self.body);
        answer.await.map(|response| check.own(response))
    }

    /// What a refresh under way brings will do for all other callers.
    fn prefer_refresh(&mut self) {
        if !self.slot.is_forced && self.layer.slots.have_forced() {
            let forced = FlightKey { is_forced: true, ..self.slot.clone() };
            if self.layer.slots.takes(&forced, &self.layer.settings) {
                self.slot = forced;
            }
        }
    }

    /// Where the caller goes on. A move to a slot that is not new, or after a time in which moves have
    /// not come to an end, is allowed once: one fetch for all who are there, and none after it.
    fn next_slot(
        &self,
        next: FlightKey,
        is_later: bool,
        moves_until: &mut Option<Instant>,
    ) -> Option<FlightKey> {
        let now = Instant::now();
        let moves_until = *moves_until.get_or_insert_with(|| after(now, self.layer.settings.max_wait));
        if (is_later || next != self.slot) && now < moves_until {
            return Some(next);
        }
        (self.slot.round == 0).then_some(FlightKey { round: 1, ..next })
    }

    /// The fetch, which has not begun yet, and where its response will be.
    fn begin(mut self, seat: FlightGuard) -> (Task, oneshot::Receiver<Delivery<B, E>>) {
        let asked = self.head.extensions.get_mut::<CacheRequest>();
        let is_for_more = asked.is_some_and(|asked| std::mem::replace(&mut asked.is_for_many, true));
        let (leader, delivery) = oneshot::channel();
        let judge = self.layer.settings.rules.as_ref().map(|rules| {
            let rules = RuleOverrides::rules_for(&self.head.extensions, rules);
            let (request, credentials) = (without_extensions(&self.head), self.credentials);
            Box::new(Judge { request, credentials, rules: rules.for_flight() })
        });
        let ask = move || (self.below)(self.head, self.body);
        let landing = Landing { leader: Some(leader), judge, is_for_more };
        let drive = FetchTask { seat, landing };
        (Box::pin(lead(&self.layer.slots, self.slot.key, drive.run(ask))), delivery)
    }

    /// Begins a fetch for this caller, and takes whichever response is there first.
    async fn ask_beside(self, slow: Subscriber) -> Result<Response<Body<B>>, E> {
        let layer = Arc::clone(&self.layer);
        let Some((caller, seat)) = slots::join_beside(&layer, &self.slot, self.credentials, slow.flight())
        else {
            return self.alone().await;
        };
        let (head, slot, check) = (self.head.clone(), self.slot.clone(), self.check());
        let (credentials, arrived) = (self.credentials, self.arrived);
        let (fetch, mut delivery) = self.begin(seat);
        layer.settings.executor.start(fetch).await;
        let heard = {
            let heard = pin!(slow.flight().heard());
            match select(&mut delivery, heard).await {
                Either::Left((delivery, _)) => return accept(delivery, caller, check),
                Either::Right((heard, _)) => heard,
            }
        };
        if !Arc::ptr_eq(&heard, caller.flight())
            && let Ok(Heard::Outcome(flight, other)) = change_over(&layer.settings, slow, heard)
            && let Judgement::Answer(answer) =
                (Follower { head: &head, slot: &slot, credentials, arrived }).judge(&flight, other)
        {
            if matches!(flight.outcome(), Some(Outcome::Head(head)) if head.verdict.is_shareable()) {
                caller.leave_for_another();
            }
            return answer;
        }
        accept(delivery.await, caller, check)
    }
}

/// The response of a request that the cache does not serve, on its way to the origin for what it asked.
fn refuse<B>(why: Option<CacheStatus>, refused: Refused) -> Response<Body<B>> {
    refused.to_response(RETRY_AFTER, why.unwrap_or(CacheStatus::forwarded(Forward::Miss)))
}

/// Waits for a head, or for this caller's turn to ask beside the fetch.
async fn wait(settings: &Settings, mut caller: Subscriber, has_fallback: bool) -> Heard {
    let flight = Arc::clone(caller.flight());
    let mut turn = None;
    loop {
        let until = turn.unwrap_or_else(|| after(flight.started_at, settings.max_wait));
        match tokio::time::timeout_at(until, flight.heard()).await {
            Ok(heard) => match change_over(settings, caller, heard) {
                Ok(heard) => return heard,
                Err(back) => caller = back,
            },
            Err(_) if has_fallback => return Heard::Refused(Refused::WaitTimeout),
            Err(_) if turn.is_some() => return Heard::Turn(caller),
            Err(_) => turn = Some(flight.next_turn(settings.max_wait)),
        }
    }
}

/// Takes a caller to the flight that has a head. An error if that one takes no callers any more: then
/// the caller is where it was.
fn change_over(settings: &Settings, caller: Subscriber, heard: Arc<Flight>) -> Result<Heard, Subscriber> {
    if Arc::ptr_eq(&heard, caller.flight()) {
        return Ok(Heard::Outcome(heard, caller));
    }
    match heard.subscribe(settings.max_callers()) {
        Subscription::Aboard(caller) => Ok(Heard::Outcome(heard, caller)),
        Subscription::Full => Ok(Heard::Refused(Refused::TooManyWaiters)),
        // There is nothing to be read but the verdict.
        Subscription::Closed if heard.has_no_body() => Ok(Heard::Outcome(heard, caller)),
        Subscription::Closed => {
            caller.flight().forget_relayed(&heard);
            Err(caller)
        }
    }
}

/// A caller that another one's response is judged for.
struct Follower<'a> {
    head: &'a Parts,
    slot: &'a FlightKey,
    credentials: Credentials,
    arrived: u64,
}

impl Follower<'_> {
    fn refuse<B>(&self, refused: Refused) -> Response<Body<B>> {
        refuse(self.asked().map(|asked| asked.why), refused)
    }

    /// What the outcome of this flight means for a caller of it.
    #[inline(never)]
    fn judge<B, E: Clone + 'static>(&self, flight: &Flight, caller: Subscriber) -> Judgement<B, E> {
        let shares_failures = self.slot.round > 0 || self.has_fallback();
        match flight.outcome() {
            Some(Outcome::Head(head)) => match self.judge_head(head, flight, caller) {
                Judgement::Answer(Ok(mut response)) => {
                    // Somebody above shares it as well.
                    if self.asked().is_some_and(|asked| asked.is_for_many) {
                        response.extensions_mut().insert(head.verdict.handed_on());
                    }
                    Judgement::Answer(Ok(response))
                }
                other => other,
            },
            Some(Outcome::Error(error)) if shares_failures => match error.downcast_ref::<E>() {
                Some(error) => Judgement::Answer(Err(error.clone())),
                // One layer round services of different errors, under one key.
                None => Judgement::Answer(Ok(self.refuse(Refused::FetchAborted))),
            },
            Some(Outcome::Aborted) if shares_failures => {
                Judgement::Answer(Ok(self.refuse(Refused::FetchAborted)))
            }
            Some(Outcome::Error(_) | Outcome::Aborted) | None => self.next_round(),
        }
    }

    /// A failure may be the fault of the request that was sent: that of another caller is tried.
    fn next_round<B, E>(&self) -> Judgement<B, E> {
        Judgement::Move(FlightKey { round: 1, ..self.slot.clone() })
    }

    /// After two errors the rest ask in parts, so that those for whom there is none still share.
    fn next_part<B, E>(&self, flight: &Flight) -> Judgement<B, E> {
        let lane = self.slot.lane.saturating_mul(PARTS).saturating_add(flight.next_part(PARTS));
        Judgement::Apart(FlightKey { round: self.slot.round.saturating_add(1), lane, ..self.slot.clone() })
    }

    /// Whether a response may be for one client because its request had a session, and this one has none.
    fn is_of_session(&self, why: Unshareable, head: &Head, asker: Credentials) -> bool {
        use Unshareable::{Cookie, Error, NoStore, NotFresh, Private, SetCookie, Token};
        let (mine, is_sent) = (self.credentials, asker.cookie || asker.token);
        let is_of_session = match why {
            Cookie | Token => true,
            NoStore | Private | SetCookie | NotFresh | Error => {
                is_sent && head.status != StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        };
        is_of_session && !mine.cookie && !mine.token && self.slot.party != CredentialClass::Only(mine)
    }

    /// Whether a failure becomes a stale response above.
    fn has_fallback(&self) -> bool {
        self.asked().is_some_and(|asked| asked.has_fallback)
    }

    /// Whether only a fetch will do that began after this caller came, and this one did not.
    ///
    /// By the number that the store gave it, else by that of its flight.
    fn is_too_old(&self, lineage: &Option<Provenance>, flight: u64) -> bool {
        let is_newer = |asked: &CacheRequest| match lineage {
            Some(lineage) => lineage.begun() > asked.arrived_at(),
            None => flight > self.arrived,
        };
        self.asked().is_some_and(|asked| asked.is_forced && !is_newer(asked))
    }

    /// `None`: by its key alone.
    fn asked(&self) -> Option<&CacheRequest> {
        self.head.extensions.get()
    }

    fn judge_head<B, E>(&self, head: &Head, flight: &Flight, caller: Subscriber) -> Judgement<B, E> {
        let mine = self.credentials;
        let selects = |selection: &Option<Selection>| {
            let request = || RequestFields::of(&self.head.headers);
            selection.as_ref().is_none_or(|selection| selection.matches(&request(), &mut Forms::default()))
        };
        match &head.verdict {
            Verdict::Unshareable(why) if self.is_of_session(*why, head, flight.asker()) => {
                Judgement::Move(FlightKey { party: CredentialClass::Only(mine), ..self.slot.clone() })
            }
            Verdict::Unshareable(_) if is_error(head.status) && self.slot.round == 0 => self.next_round(),
            // An origin that says so twice is not asked again for all the others.
            Verdict::Unshareable(_) if head.status == StatusCode::TOO_MANY_REQUESTS => {
                Judgement::Answer(Ok(bare(head)))
            }
            Verdict::Unshareable(_) if is_error(head.status) && self.slot.round < LAST_ROUND => {
                self.next_part(flight)
            }
            Verdict::Unshareable(_) => Judgement::Alone,
            // Its tags were not known before, and were purged since this request arrived.
            Verdict::Shareable { lineage: Some(lineage), .. }
            | Verdict::Failed { lineage: Some(lineage), .. }
                if !lineage.is_for(self.asked().and_then(|asked| asked.arrival.as_ref())) =>
            {
                Judgement::Move(FlightKey {
                    floor: self.slot.floor.max(lineage.floor()),
                    ..self.slot.clone()
                })
            }
            // But what a layer below refused is no request's fault, and another one makes it worse.
            Verdict::Failed { .. }
                if self.slot.round == 0 && head.refused.is_none() && !self.has_fallback() =>
            {
                self.next_round()
            }
            Verdict::Failed { selection, for_all, .. } => {
                let whole = *for_all && selects(selection);
                Judgement::Answer(Ok(if whole { share(head, caller) } else { bare(head) }))
            }
            // Begun before this caller came: those in the same position share the next one.
            Verdict::Shareable { lineage, .. } if self.is_too_old(lineage, flight.number()) => {
                Judgement::Later
            }
            Verdict::Shareable { audience, .. } if !mine.admitted_to(*audience) => {
                Judgement::Move(FlightKey { party: CredentialClass::Only(mine), ..self.slot.clone() })
            }
            Verdict::Shareable { selection, .. } if !selects(selection) => {
                let known = self.slot.selection.as_ref().map_or(&[][..], |known| known.fields());
                let fields = selection.as_ref().map(|selection| all_fields(known, selection.fields()));
                let selection = fields.map(|fields| Selection::new(&fields, &self.head.headers));
                Judgement::Move(FlightKey { selection, ..self.slot.clone() })
            }
            Verdict::Shareable { .. } => Judgement::Answer(Ok(share(head, caller))),
        }
    }
}

/// All fields that are known to select a response, so that a caller does not come back to a slot where
/// it has been when responses differ in what they name.
fn all_fields(known: &[HeaderName], named: &Arc<[HeaderName]>) -> Arc<[HeaderName]> {
    if known.iter().all(|field| named.contains(field)) {
        return Arc::clone(named);
    }
    let mut all: Vec<_> = known.iter().chain(&**named).cloned().collect();
    all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    all.dedup();
    all.into()
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
    caller: Subscriber,
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
        Err(_) => Ok(refuse(None, Refused::FetchAborted)),
    }
}

/// The answer as every caller but the first gets it.
fn share<B>(head: &Head, caller: Subscriber) -> Response<Body<B>> {
    let mut response = answer(head, caller);
    if let Some(came_about) = head.came_about
        && CacheStatus::of(&response).is_none()
    {
        // As in what the first caller gets: what follows takes its place.
        response.extensions_mut().insert(came_about);
    }
    if let Some(refused) = head.refused {
        response.extensions_mut().insert(refused);
    }
    head.collapsed().mark(&mut response);
    response
}

/// The head as it came, but for what belongs to the connection.
fn share_with_leader<B>(mut caller: Subscriber, mut head: response::Parts) -> Response<Body<B>> {
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
fn body<B>(caller: Subscriber, size: Option<u64>) -> Body<B> {
    match size.and_then(|size| caller.flight().whole(size)) {
        Some(whole) => Body::stored(whole, None),
        None => Body::shared(Reader::new(caller, size)),
    }
}

fn answer<B>(head: &Head, caller: Subscriber) -> Response<Body<B>> {
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
    if let Some(refused) = head.refused {
        response.extensions_mut().insert(refused);
    }
    head.collapsed().mark(&mut response);
    response
}
