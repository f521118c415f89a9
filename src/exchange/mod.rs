//! What the layers tell each other, in the extensions of requests and responses.
//!
//! No layer knows another one. Each reads what is there and does without what is not.

pub(crate) mod copy;
pub(crate) mod failures;
pub(crate) mod status;

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header, request::Parts};
use tokio::time::Instant;

use crate::{
    body::Body,
    exchange::copy::RequestCopy,
    exchange::status::{CacheStatus, Forward},
    http::{
        credentials::{CredentialNames, Credentials, Keyed},
        request_fields::RequestFields,
        storing::{Decision, Sharing, Unshareable},
        vary::Selection,
    },
    key::{CacheKey, KeyFacts, may_have_key},
    sequence::{Provenance, PurgeSnapshot, Sequence},
    store::{Part, StoredResponse},
};

/// What a request asks of the cache: in the request's extensions, put there by
/// [`Lookup`](crate::Lookup) on a miss.
///
/// A service below may read it, for example to log the key of what it was asked for.
#[derive(Clone, Debug)]
pub struct CacheRequest {
    pub(crate) key: CacheKey,
    /// What was known of purges when the request arrived. `None`: no layer has looked.
    pub(crate) arrival: Option<PurgeSnapshot>,
    pub(crate) purpose: Purpose,
    /// Only an answer that was fetched after the arrival will do.
    pub(crate) is_forced: bool,
    /// The latest stored response that the request selects. `None` inside: there is none.
    /// `None` outside: no layer has looked.
    pub(crate) stored: Option<Option<Arc<StoredResponse>>>,
    /// A stored part with all that the request asks for, which its directives refuse.
    pub(crate) part: Option<Box<Part>>,
    /// The response is for this client alone, and neither stored nor shared: there is only something
    /// to serve if the fetch fails.
    pub(crate) is_for_client: bool,
    /// The answer was not shareable a moment ago: do not wait for others.
    pub(crate) is_marked: bool,
    /// The selecting fields that answers under this key are known to have.
    pub(crate) selection: Option<Selection>,
    /// What of the request its key holds.
    pub(crate) keyed: Keyed,
    /// Those of the request that its key does not hold.
    pub(crate) credentials: Credentials,
    /// The layer that asks may share the response, and wants to know with which requests.
    pub(crate) is_for_many: bool,
    /// A fetch of these layers has come to them once more: they leave it alone.
    pub(crate) is_passed: bool,
    /// A layer above serves a stale response instead of a failure.
    pub(crate) has_fallback: bool,
    /// How the response will have come about, as far as that is known before it is there.
    pub(crate) why: CacheStatus,
    /// The head of the request as it goes down, kept by the layer that judges the response.
    pub(crate) copy: Option<Arc<RequestCopy>>,
}

/// Who waits for a response, and why what is stored does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A client, for which nothing can be served from the store.
    Client,
    /// A client whose directives refuse what could be served (RFC 9111 §5.2.1).
    Reload,
    /// No client: a stored response is refreshed.
    Refresh,
}

impl CacheRequest {
    /// What `head` asks on behalf of all: as `Lookup` put it, else by its key alone, else nothing. Fields
    /// that became credentials on the way here, or are so by these names, count as well.
    pub(crate) fn of<'h>(head: &'h Parts, names: &CredentialNames) -> Option<Cow<'h, Self>> {
        Self::with_fallback(head, names).filter(|asked| !asked.is_for_client)
    }

    /// As [`of`](Self::of), and what there is to serve to one client alone if its fetch fails.
    pub(crate) fn with_fallback<'h>(head: &'h Parts, names: &CredentialNames) -> Option<Cow<'h, Self>> {
        let mut glance = RequestFields::of(&head.headers);
        if !may_have_key(head, &glance) {
            return None;
        }
        if let Some(asked) = head.extensions.get::<Self>() {
            if asked.is_passed {
                return None;
            }
            glance.put_under(names, &asked.keyed);
            let credentials = asked.credentials.and(glance.credentials);
            return Some(match credentials == asked.credentials {
                true => Cow::Borrowed(asked),
                false => Cow::Owned(Self { credentials, ..asked.clone() }),
            });
        }
        let key = head.extensions.get::<CacheKey>()?;
        let facts = head.extensions.get::<KeyFacts>().cloned().unwrap_or_default();
        glance.put_under(names, facts.keyed());
        Some(Cow::Owned(Self {
            credentials: facts.credentials().and(glance.credentials),
            keyed: facts.keyed().clone(),
            key: key.clone(),
            arrival: None,
            purpose: Purpose::Client,
            is_forced: false,
            stored: None,
            part: None,
            is_for_client: false,
            is_marked: false,
            selection: None,
            is_for_many: true,
            is_passed: false,
            has_fallback: false,
            why: CacheStatus::forwarded(Forward::Miss),
            copy: None,
        }))
    }

    /// A glance at the request.
    pub(crate) fn glance<'h>(&self, request: &'h HeaderMap) -> RequestFields<'h> {
        RequestFields::of(request).with(self.credentials)
    }

    /// The number of the store's sequence when the request arrived, if that is known.
    pub(crate) fn arrived_at(&self) -> u64 {
        self.arrival.as_ref().map_or(0, |arrival| arrival.number)
    }

    /// Whether something is stored that may be served if the origin fails.
    pub(crate) const fn has_fallback(&self) -> bool {
        matches!(self.stored, Some(Some(_))) || self.part.is_some()
    }

    /// How the response to a request comes about that is for this client alone.
    pub(crate) const fn for_one(&self, why: Unshareable) -> CacheStatus {
        let forwarded = match why {
            // A directive of the request, not what is stored, sends it there (RFC 9211 §2.2).
            Unshareable::NoStore => CacheStatus::forwarded(Forward::Request),
            _ => self.why,
        };
        forwarded.unshared(why)
    }

    /// The key under which the answer would be stored.
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Whether only an answer will do that is fetched after this: for a refresh in the background,
    /// or for a client that asks for more than what is stored.
    pub fn is_forced(&self) -> bool {
        self.is_forced
    }
}

/// Which requests may share a response: in its extensions, put there by `Fill` where
/// [several may](CacheRequest::is_for_many), and passed on by a `Coalesce` that is not the uppermost.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Shareable {
        selection: Option<Selection>,
        audience: Credentials,
        /// When the answer was as old as its head says.
        received_at: Instant,
        fresh_until: Instant,
        /// `None`: it did not come from a layer that numbers its fetches.
        lineage: Option<Provenance>,
        /// Fields that are for the one alone who asked.
        withheld: Vec<HeaderName>,
        /// How large a body may become that is being stored. 0: it is not.
        stored_up_to: u64,
    },
    Unshareable(Unshareable),
    Failed {
        selection: Option<Selection>,
        received_at: Instant,
        for_all: bool,
        lineage: Option<Provenance>,
        withheld: Vec<HeaderName>,
    },
}

impl Verdict {
    /// Of the same answer with an age that is true now.
    pub(crate) fn handed_on(&self) -> Self {
        let mut verdict = self.clone();
        match &mut verdict {
            Self::Shareable { received_at, .. } | Self::Failed { received_at, .. } => {
                *received_at = Instant::now();
            }
            Self::Unshareable(_) => {}
        }
        verdict
    }

    /// Of what is stored.
    pub(crate) fn of(stored: &StoredResponse, now: Instant, sequence: &Arc<Sequence>) -> Self {
        Self::Shareable {
            selection: stored.selection().cloned(),
            audience: stored.terms().audience,
            received_at: now,
            fresh_until: stored.fresh_until(),
            lineage: Some(Provenance::of_stored(sequence, stored)),
            withheld: Vec::new(),
            stored_up_to: 0,
        }
    }

    /// The fields that are for the one alone who asked, of what others get as well.
    pub(crate) fn withheld(&self) -> &[HeaderName] {
        match self {
            Self::Shareable { withheld, .. } | Self::Failed { withheld, .. } => withheld,
            Self::Unshareable(_) => &[],
        }
    }

    pub(crate) const fn is_shareable(&self) -> bool {
        matches!(self, Self::Shareable { .. })
    }

    /// Says how large the body may become that is being stored.
    pub(crate) fn storing(mut self, limit: usize) -> Self {
        if let Self::Shareable { stored_up_to, .. } = &mut self {
            *stored_up_to = limit as u64;
        }
        self
    }

    pub(crate) fn stored_up_to(&self) -> u64 {
        match self {
            Self::Shareable { stored_up_to, .. } => *stored_up_to,
            _ => 0,
        }
    }

    pub(crate) fn new(
        decision: Decision,
        selection: Option<Selection>,
        (received_at, fresh_until): (Instant, Instant),
        lineage: Option<Provenance>,
    ) -> Self {
        match decision.sharing {
            Sharing::Unshareable(why) => Self::Unshareable(why),
            Sharing::Failed { for_all } => {
                Self::Failed { selection, received_at, for_all, lineage, withheld: decision.withheld }
            }
            Sharing::Shareable => Self::Shareable {
                selection,
                audience: decision.terms.audience,
                received_at,
                fresh_until,
                lineage,
                withheld: decision.withheld,
                stored_up_to: 0,
            },
        }
    }
}

/// The body of this response is read to its end by any caller: in the extensions of what the first
/// caller of a shared fetch gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompletesItself;

/// When the attempt began that led to this response: in its extensions, put there by the
/// layer that let the request wait before. The time before is not part of the response's age.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptBegan(pub(crate) Instant);

/// In the extensions of a response that did not come from the origin but from a layer here
/// which did not let the request through, for the origin's sake.
///
/// [`RetryPolicy`](crate::RetryPolicy) does not try again what was answered so, and
/// [`StaleIfError`](crate::StaleIfError) gives a stale answer instead where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// [`OriginLimit`](crate::OriginLimit): the queue to the origin was full.
    QueueFull,
    /// [`OriginLimit`](crate::OriginLimit): the request waited in the queue for too long.
    QueueTimeout,
    /// [`Coalesce`](crate::Coalesce): too many callers of this fetch already.
    TooManyWaiters,
    /// [`Coalesce`](crate::Coalesce): no response within the time that a caller waits
    /// ([`wait_at_most`](crate::CoalesceLayer::wait_at_most)), or within
    /// [`max_wait`](crate::CoalesceLayer::max_wait) where a stale response can be served.
    WaitTimeout,
    /// [`Coalesce`](crate::Coalesce): the fetch panicked or was cancelled, or its response was not
    /// for this caller, and the same is true of the fetch after it.
    FetchAborted,
    /// [`Lookup`](crate::Lookup): nothing usable is stored, and the client wants nothing else
    /// (`only-if-cached`, RFC 9111 §5.2.1.7).
    NotStored,
}

impl Refused {
    /// Whether it was refused without the origin being asked, also by another request.
    pub(crate) const fn is_before_origin(self) -> bool {
        matches!(self, Self::QueueFull | Self::QueueTimeout | Self::TooManyWaiters | Self::NotStored)
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::TooManyWaiters => "too-many-waiters",
            Self::WaitTimeout => "wait-timeout",
            Self::FetchAborted => "fetch-aborted",
            Self::NotStored => "not-stored",
        }
    }

    /// The response that says so: 504 if time ran out at the origin, else 503 with `Retry-After`. A
    /// request that had been forwarded by then was so for the reason `why`.
    pub(crate) fn to_response<B>(self, retry_after: Duration, why: CacheStatus) -> Response<Body<B>> {
        let status = match self {
            Self::WaitTimeout | Self::NotStored => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = Response::new(Body::default());
        *response.status_mut() = status;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // Whole seconds (RFC 9110 §10.2.3), rounded up.
            let seconds = retry_after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        why.refused(self).mark(&mut response);
        response
    }
}
