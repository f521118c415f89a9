//! What one fetch is about, and what its response means for the store and for other requests.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header, request, response};
use http_body::Body as HttpBody;
use tokio::time::Instant;

use crate::{
    body::Body,
    exchange::{self, failures},
    http::{
        conditions, fields,
        request_fields::RequestFields,
        response_fields::ResponseFields,
        rules::{Rules, Spread},
        storing, vary,
    },
    key, sequence,
    store::{self, Store},
    tags::{self, TagFields},
};

/// Has the last word on the [`Rules`] for one response, once its head is there.
///
/// Gets the rules that hold so far, which are the configured ones or those that a middleware
/// put into the request's extensions, and returns those that are to be used. Implemented for
/// closures, and for `()`, which changes nothing.
///
/// ```
/// use std::time::Duration;
/// use http::{request, response};
/// use tower_readthrough::{Policy, Rules};
///
/// let policy = |request: &request::Parts, response: &response::Parts, rules: Rules| {
///     if request.uri.path().starts_with("/search") {
///         rules.fixed_ttl(Duration::from_millis(200))
///     } else if response.headers.contains_key("x-personal") {
///         rules.never_store()
///     } else {
///         rules
///     }
/// };
/// fn takes_policies(_: impl Policy) {}
/// takes_policies(policy);
/// ```
pub trait Policy: Send + Sync + 'static {
    /// Returns the rules for this response to this request.
    ///
    /// The heads are as they came: a request before the cache made it conditional, and a
    /// response with the extensions that the wrapped service gave it. Of a 304 the fields of
    /// the stored response are shown, updated by it.
    fn rules(&self, request: &request::Parts, response: &response::Parts, rules: Rules) -> Rules;

    /// Whether the heads matter at all: if not, less of them is copied.
    #[doc(hidden)]
    fn looks(&self) -> bool {
        true
    }
}

impl Policy for () {
    fn rules(&self, _: &request::Parts, _: &response::Parts, rules: Rules) -> Rules {
        rules
    }

    fn looks(&self) -> bool {
        false
    }
}

impl<F> Policy for F
where
    F: Fn(&request::Parts, &response::Parts, Rules) -> Rules + Send + Sync + 'static,
{
    fn rules(&self, request: &request::Parts, response: &response::Parts, rules: Rules) -> Rules {
        self(request, response, rules)
    }
}

/// What all services of a layer share.
pub(super) struct Shared<St, P> {
    pub(super) store: exchange::ObservedStore<St>,
    pub(super) rules: Rules,
    pub(super) policy: Arc<P>,
    pub(super) targets: Targets,
    pub(super) failures: failures::FailurePolicy,
    /// Whether the service below is a layer of this crate.
    pub(super) is_over_own_layer: bool,
}

impl<St: Clone, P> Clone for Shared<St, P> {
    fn clone(&self) -> Self {
        let Self { store, rules, policy, targets, failures, is_over_own_layer } = self;
        Self {
            store: store.clone(),
            rules: rules.clone(),
            policy: Arc::clone(policy),
            targets: targets.clone(),
            failures: failures.clone(),
            is_over_own_layer: *is_over_own_layer,
        }
    }
}

/// The fields that speak to this cache before `Cache-Control` does (RFC 9213).
#[derive(Clone, Debug)]
pub(super) struct Targets {
    pub(super) names: Arc<[HeaderName]>,
    pub(super) are_stripped: bool,
    /// Those that name tags, beside the two that always do.
    pub(super) tags: TagFields,
    pub(super) tags_are_stripped: bool,
}

impl Targets {
    pub(super) fn stripped_tags(&self) -> Option<TagFields> {
        self.tags_are_stripped.then(|| self.tags.clone())
    }

    pub(super) fn strip(&self, headers: &mut HeaderMap, may_have_tags: bool) {
        if self.are_stripped {
            fields::remove_all(headers, |name| self.names.contains(name));
        }
        if self.tags_are_stripped && may_have_tags {
            tags::strip(headers, &self.tags);
        }
    }

    /// What of the fields of a response decides about storing it.
    pub(super) fn response_fields(&self, headers: &HeaderMap) -> ResponseFields {
        let mut response_fields = ResponseFields::of(headers, SystemTime::now());
        response_fields.has_tags |= self.tags.are_in(headers);
        response_fields
    }
}

impl<St, P: Policy> Shared<St, P> {
    /// Returns the client's head, for judging the response. Without its extensions, if only the key or what
    /// is asked of the cache is in them and no policy looks at them.
    pub(super) fn copy(&self, head: &request::Parts) -> request::Parts {
        match head.extensions.len() {
            ..=1 if !self.policy.looks() => exchange::without_extensions(head),
            _ => head.clone(),
        }
    }
}

/// A fetch for one request.
pub(super) struct Fetch<St, P> {
    pub(super) layer: Arc<Shared<St, P>>,
    /// What the response is judged by.
    pub(super) client: Arc<exchange::RequestCopy>,
    /// The rules that hold for this request.
    pub(super) rules: Rules,
    pub(super) search: Option<key::SearchKey>,
}

impl<St: Store, P: Policy> Fetch<St, P> {
    /// What is stored under the key by now.
    pub(super) fn entry(&self) -> Option<Arc<store::Entry>> {
        self.layer.store.get(self.client.asked().key())
    }

    /// Returns the response, if another fetch has stored it since the request arrived.
    #[inline(never)]
    pub(super) fn stored_meanwhile<B>(&self, entry: &store::Entry) -> Option<Response<Body<B>>> {
        let head = self.client.head();
        let selected = self.selected(entry, head);
        if let Some(stored) = selected.filter(|stored| self.is_stored_meanwhile(stored)) {
            return Some(self.stored_response_to(stored, head));
        }
        self.part_stored_meanwhile(entry, head).map(|part| self.part_response(part, head))
    }

    /// Returns what a second tier had for the request, if it is still fresh. The store may have no room for it.
    pub(super) fn found_fresh<B>(&self) -> Option<Response<Body<B>>> {
        let found = self.found()?;
        found.is_fresh(Instant::now()).then(|| self.stored_response_to(found, self.client.head()))
    }

    /// Returns what a second tier had for the request instead of this failure, if it may be used for that. Where
    /// a layer above had found something before, that covers the failure.
    #[inline(never)]
    pub(super) fn found_instead_of<B, F>(&self, failure: Option<&Response<F>>) -> Option<Response<Body<B>>> {
        let asked = self.client.asked();
        let found = self.found().filter(|_| !asked.has_fallback() && !asked.purpose().is_refresh())?;
        found.is_usable_on_error(Instant::now()).then(|| {
            let response = self.stored_response_to(found, self.client.head());
            exchange::served_instead(asked.why(), failure, found.status()).serve(response)
        })
    }

    /// What a second tier had for the request, if it was not purged since.
    fn found(&self) -> Option<&Arc<store::StoredResponse>> {
        let asked = self.client.asked();
        let found = asked.found()?;
        let may_have_it =
            found.matches(&asked.fields(&self.client.head().headers), &mut vary::Forms::default());
        (may_have_it && self.layer.store.sequence().admits(found)).then_some(found)
    }

    fn is_found(&self, stored: &store::StoredResponse) -> bool {
        self.client.asked().found().is_some_and(|found| stored.is_or_copies(found))
    }

    /// What purges can match of the response before it is there.
    pub(super) fn purge_keys(&self) -> Arc<sequence::PurgeKeys> {
        let client = self.client.head();
        match self.client.asked().arrival() {
            Some(arrival) => Arc::clone(&arrival.keys),
            None => {
                self.layer.store.sequence().keys(&key::DefaultKey::new(), client, self.client.asked().key())
            }
        }
    }

    fn selected<'a>(
        &self,
        entry: &'a store::Entry,
        head: &request::Parts,
    ) -> Option<&'a Arc<store::StoredResponse>> {
        entry.select(&self.client.asked().fields(&head.headers), self.layer.store.sequence())
    }

    /// Whether another fetch put it into the store since the request arrived.
    fn is_stored_meanwhile(&self, stored: &store::StoredResponse) -> bool {
        let is_for_all = self.client.asked().facts().is_for_all();
        self.is_recent(stored) && stored.is_fresh(Instant::now()) && is_for_all
    }

    fn is_recent(&self, stored: &store::StoredResponse) -> bool {
        let asked = self.client.asked();
        !asked.needs_newer() || stored.fetch_number() > asked.arrived_at() || self.is_found(stored)
    }

    /// What the origin can be asked to confirm.
    pub(super) fn candidate(&self, entry: Option<&store::Entry>) -> Option<Candidate> {
        let head = self.client.head();
        if self.client.asked().facts().is_conditional() || !key::kind_of(head).is_revalidatable() {
            return None;
        }
        let selected = match self.client.asked().candidate() {
            exchange::StaleCandidate::Whole { response, .. } => response,
            exchange::StaleCandidate::None | exchange::StaleCandidate::Part(_) => return None,
            exchange::StaleCandidate::Unknown => self.selected(entry?, head)?,
        };
        Candidate::new(Arc::clone(selected), self.layer.store.sequence())
    }

    fn part_stored_meanwhile<'a>(
        &self,
        entry: &'a store::Entry,
        head: &request::Parts,
    ) -> Option<&'a store::Part> {
        if !self.client.asked().facts().asks_for_one_part() {
            return None;
        }
        let (fields, sequence) = (self.client.asked().fields(&head.headers), self.layer.store.sequence());
        let part = entry.select_part(&fields, sequence, Instant::now())?;
        self.is_recent(part.response()).then_some(part)
    }

    fn stored_response_to<B>(
        &self,
        stored: &store::StoredResponse,
        head: &request::Parts,
    ) -> Response<Body<B>> {
        let (head_only, now) = (head.method == Method::HEAD, Instant::now());
        let mut response = stored.to_hit(head_only, now, |body| body);
        conditions::apply_range(&head.method, &head.headers, &mut response, stored.body());
        self.tell_sharers(&mut response, stored, now);
        match self.is_found(stored) {
            true => self.client.asked().why().hit_in_second_tier().serve(response),
            false => response,
        }
    }

    fn part_response<B>(&self, part: &store::Part, head: &request::Parts) -> Response<Body<B>> {
        let now = Instant::now();
        let mut response = part.to_hit(&head.headers, now);
        self.tell_sharers(&mut response, part.response(), now);
        response
    }

    fn tell_sharers<B>(
        &self,
        response: &mut Response<Body<B>>,
        stored: &store::StoredResponse,
        now: Instant,
    ) {
        if self.client.asked().wants_shareability() {
            let shareability = exchange::Shareability::of_stored(stored, now, self.layer.store.sequence());
            exchange::ResponseFacts::note_shareability(response.extensions_mut(), shareability);
        }
    }

    pub(super) fn decide(
        &self,
        (client, fields): (&request::Parts, &RequestFields<'_>),
        head: &response::Parts,
        extent: Option<conditions::Extent>,
        response_fields: &ResponseFields,
        origin: &store::Origin,
    ) -> (storing::Decision, Rules) {
        let rules = self.layer.policy.rules(client, head, self.rules.clone());
        let (kind, targets) = (key::kind_of(client), &self.layer.targets.names);
        let is_breakdown = self.layer.failures.is_breakdown(head.status, &head.headers);
        let response = storing::ResponseHead::new(head.status, &head.headers, response_fields)
            .with_extent(extent)
            .with_breakdown(is_breakdown);
        let mut decision = storing::judge(kind, fields.credentials, &response, &rules, targets);
        if is_breakdown && decision.is_storable && self.would_displace(client, response_fields) {
            decision = decision.displacing(&rules);
        }
        self.check_search(client, &head.headers, &mut decision);
        if rules.spread != Spread::default() {
            decision.terms = decision.terms.spread(rules.spread, origin.delay, fastrand::f64);
        }
        if origin.purge_keys.is_excessive() && decision.sharing == storing::Sharing::Shareable {
            decision =
                storing::Decision::not_stored(storing::Sharing::Unshareable(storing::NotStored::TooManyTags));
        }
        (decision, rules)
    }

    /// A key may leave out parts of a query only as far as the response itself says so.
    fn check_search(&self, client: &request::Parts, response: &HeaderMap, decision: &mut storing::Decision) {
        let Some(search) = &self.search else { return };
        let is_kept = decision.is_storable || decision.sharing == storing::Sharing::Shareable;
        if is_kept {
            search.learn(client, response);
        }
        if search.agrees(client, response, (self.client.asked().key(), self.client.asked().keyed())) {
            return;
        }
        match &mut decision.sharing {
            storing::Sharing::Failed { for_all } => *for_all = false,
            _ if is_kept => {
                *decision = storing::Decision::not_stored(storing::Sharing::Unshareable(
                    storing::NotStored::NoVarySearch,
                ));
            }
            _ => {}
        }
    }

    /// Whether a stored error would take the place of what may be served instead of it, to this
    /// client or to another. The store knows, also if no layer above has looked.
    fn would_displace(&self, client: &request::Parts, error: &ResponseFields) -> bool {
        let Some(entry) = self.layer.store.get(self.client.asked().key()) else { return false };
        let selection = error.vary.selection(&client.headers);
        let is_kept_apart = |stored: &store::StoredResponse| match (stored.selection(), &selection) {
            (Some(theirs), Some(ours)) => theirs.fields() == ours.fields() && theirs != ours,
            _ => false,
        };
        let (now, sequence) = (Instant::now(), self.layer.store.sequence());
        entry.variants().iter().any(|stored| {
            // First, for it notes what is stale by a soft purge.
            sequence.admits(stored)
                && stored.is_usable_on_error(now)
                && !self.layer.failures.is_breakdown(stored.status(), &stored.headers())
                && !is_kept_apart(stored)
        })
    }

    pub(super) fn is_too_large(&self, response_fields: &ResponseFields, body: &impl HttpBody) -> bool {
        let limit = self.layer.store.max_response_bytes() as u64;
        response_fields.content.unwrap_or(body.size_hint().lower()) > limit
    }

    /// Whether the response of a fetch was purged while its head was awaited.
    pub(super) fn is_purged(&self, origin: &store::Origin) -> bool {
        self.layer.store.sequence().purges().has_removed(&origin.purge_keys, origin.fetch_number)
    }

    /// Leaves a hit-for-miss entry for what cannot be shared, and removes what the response supersedes.
    pub(super) fn note(
        &self,
        (client, fields): (&request::Parts, &RequestFields<'_>),
        (status, headers): (StatusCode, &HeaderMap),
        decision: &storing::Decision,
        rules: &Rules,
        origin: &store::Origin,
    ) {
        let storing::Sharing::Unshareable(why) = decision.sharing else { return };
        // A response to one client's condition or range says nothing about the response for others.
        if why == storing::NotStored::Partial && self.client.asked().facts().is_conditional() {
            return;
        }
        let supersedes = match why {
            storing::NotStored::Authorization
            | storing::NotStored::Cookie
            | storing::NotStored::Token
            | storing::NotStored::Partial
            | storing::NotStored::Framing => false,
            // An error may be the fault of this client, unless it says that nothing is there.
            _ => !storing::is_error(status) || storing::is_gone(status),
        } && key::kind_of(client).is_whole()
            && !decision.is_storable;
        let marker = self.marker((client, fields), status, rules, origin);
        if !supersedes && marker.is_none() {
            return;
        }
        // What is too large leaves the parts that are not.
        let spared = if why == storing::NotStored::TooLarge { conditions::strong_tag(headers) } else { None };
        let change = match (supersedes, marker) {
            (false, Some(marker)) => store::Change::HitForMiss(marker),
            (_, hit_for_miss) => {
                let (request, spared_tag) = (self.client.to_headers(), spared.cloned());
                store::Change::Supersede {
                    request,
                    fetch_number: origin.fetch_number,
                    spared_tag,
                    hit_for_miss,
                }
            }
        };
        self.layer.store.apply(self.client.asked().key(), change);
    }

    /// What a response that cannot be shared leaves for requests like this one.
    ///
    /// Nothing if it is an error, which may be the fault of one client and must not end sharing for
    /// all others, and nothing for HEAD, since the response to GET may well be shareable.
    pub(super) fn marker(
        &self,
        (client, fields): (&request::Parts, &RequestFields<'_>),
        status: StatusCode,
        rules: &Rules,
        origin: &store::Origin,
    ) -> Option<store::HitForMiss> {
        let window = rules.hit_for_miss_for;
        let says_nothing = storing::is_error(status) || client.method == Method::HEAD || window.is_zero();
        (!says_nothing).then(|| store::HitForMiss::new(&client.method, fields, origin.received_at, window))
    }

    /// Tells observers why a response is not to be stored, if it is not.
    pub(super) fn tell(&self, decision: &storing::Decision) {
        if let Some(why) = decision.not_stored_reason() {
            self.layer.store.judged(self.client.asked().key(), why);
        }
    }

    /// Says how a response came about, and which requests may share it. `has_length`: how long it will be is known.
    pub(super) fn sign<B>(
        &self,
        response: &mut Response<Body<B>>,
        from_origin: StatusCode,
        decision: storing::Decision,
        selection: Option<vary::Selection>,
        origin: &store::Origin,
        has_length: bool,
    ) {
        let status = self.client.asked().why().storing(decision.is_storable, has_length);
        let mut status = status.answered(from_origin, response.status());
        let why = decision.not_stored_reason();
        let unshared = match decision.sharing {
            storing::Sharing::Unshareable(why) => Some(why),
            _ => why,
        };
        if let Some(why) = unshared {
            status = status.unshared(why);
        }
        if self.client.asked().wants_shareability() {
            let times = (origin.received_at, origin.fresh_until(&decision.terms));
            let provenance = sequence::Provenance::of_fetch(
                self.layer.store.sequence(),
                &origin.purge_keys,
                origin.fetch_number,
            );
            let limit = if decision.is_storable { self.layer.store.max_response_bytes() } else { 0 };
            let shareability = exchange::Shareability::new(decision, selection, times, Some(provenance));
            exchange::ResponseFacts::note_shareability(
                response.extensions_mut(),
                shareability.stored_up_to(limit),
            );
        }
        status.mark(response);
    }
}

const VALIDATORS: [HeaderName; 2] = [header::ETAG, header::LAST_MODIFIED];

/// The stored response whose validators go into a request: the one that the request selects.
///
/// Validators of other variants are not sent, although §4.3.1 allows it. A tag speaks of the content
/// alone (RFC 9110 §8.8.1), many origins use one tag for all variants, and a 304 does not bring the
/// fields in which variants differ (§15.4.5).
pub(super) struct Candidate(Arc<store::StoredResponse>);

impl Candidate {
    /// `None` if the response cannot be confirmed.
    #[inline(never)]
    pub(super) fn new(selected: Arc<store::StoredResponse>, sequence: &sequence::Sequence) -> Option<Self> {
        let has_validator = || VALIDATORS.iter().any(|name| selected.value(name).is_some());
        // A purged response stays purged even if the origin would confirm it. And a 304 stands for a
        // 200 (RFC 9110 §15.4.5), so it confirms no error or redirection.
        let is_confirmable = sequence.admits(&selected) && selected.status().is_success() && has_validator();
        is_confirmable.then_some(Self(selected))
    }

    pub(super) fn stored(&self) -> &store::StoredResponse {
        &self.0
    }

    /// Makes a request conditional on its validators.
    #[inline(never)]
    pub(super) fn make_conditional(&self, request: &mut HeaderMap) {
        let [tag, modified] = VALIDATORS.map(|name| self.0.value(&name));
        conditions::make_conditional(request, tag, modified);
    }

    /// The stored response, if a 304 with this head and `Vary` confirms it.
    ///
    /// Not if its validator is another one. Nor if it names selecting fields that did not select the
    /// stored response: that was fetched for a request that may have had other values for them.
    pub(super) fn confirmed_by(
        &self,
        not_modified: &HeaderMap,
        vary: &vary::Vary,
    ) -> Option<&Arc<store::StoredResponse>> {
        let Self(stored) = self;
        let is_selected_as_before = vary.is_within(stored.selection());
        let is_same = conditions::confirms(not_modified, &stored.headers()) != Some(false);
        (is_selected_as_before && is_same).then_some(stored)
    }
}
