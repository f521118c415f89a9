//! The state of the origin, and which requests may go to it.
//!
//! `health` says from outcomes whether an origin is up, `queue` and `rate` which goes next and how fast, `core`
//! decides by all of them about each attempt, and `gate` puts that under a lock and hands it out.

mod answered_by;
mod attempts;
mod change;
mod core;
mod gate;
mod health;
mod pause;
mod queue;
mod ramp;
mod rate;
mod sync;
mod tally;
mod wish;

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    hash::BuildHasher,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::request::Parts;
use parking_lot::RwLock;
use quick_cache::DefaultHashBuilder;
use tokio::time::Instant;

pub use self::{answered_by::AnsweredBy, attempts::Latency, change::OriginChange};
pub(crate) use self::{
    attempts::OriginGauges,
    gate::{Answer, Attempt, Entered, Entrance, Gate, Pass, Permit, Place, Waiting},
    health::AttemptOutcome,
    pause::KeyPause,
    wish::{DEFAULT_CLASS, HeldBack, Kind, LOWEST_CLASS, Priority, Refusal},
};
use self::{
    change::{Listener, OnChange},
    core::CoreRules,
    health::{Health, HealthRules},
    pause::{Backoff, Draws},
};
use crate::{build_error::BuildError, reasons::names};

/// Origins beyond so many share one state.
const MAX_ORIGINS: usize = 1024;
/// The origin of a request of which nothing else is known.
const DEFAULT_ORIGIN: &str = "default";
/// What the origins beyond the most share.
const OTHER_ORIGINS: &str = "others";

names! {
    /// What the outcomes of requests say of an origin.
    pub enum OriginState {
        /// It responds.
        Up => "up",
        /// It does not respond, or mostly with failures: it is probed, and what is stored is served.
        Down => "down",
        /// It responds again, and gets more and more of the requests that are for it.
        Recovering => "recovering",
    }
}

impl OriginState {
    /// That of several origins. `Up`: there is none.
    fn of_all(states: impl Iterator<Item = Self>) -> Self {
        let better = |one: Self, other: Self| match (one, other) {
            (Self::Up, _) | (_, Self::Up) => Self::Up,
            (Self::Recovering, _) | (_, Self::Recovering) => Self::Recovering,
            (Self::Down, Self::Down) => Self::Down,
        };
        states.reduce(better).unwrap_or(Self::Up)
    }
}

type Extractor = dyn Fn(&Parts) -> Cow<'_, str> + Send + Sync;

/// The state of the origin, by the outcomes of the requests to it.
///
/// An origin is [`Down`](OriginState::Down) after five failures in a row that last a second or longer, after
/// twenty in a row, when fewer than half of at least 50 outcomes of the last ten seconds are successes, or when
/// five keys wait for [a long time](OriginHealthBuilder::stalled_after) while nothing is answered. A key that
/// fails again and again counts once. 429 is no failure, and neither is a request that was cancelled or that
/// the cache itself refused.
///
/// While it is down, what is stored and may be served is served at once, and one request at a time is sent as a
/// probe, in the background: also HEAD, which stays HEAD, and then only tells whether the origin is back. What
/// has nothing stored goes on, a few requests at a time, unless
/// [`fail_fast`](OriginHealthBuilder::fail_fast) is set. The first success begins a recovery: the origin gets
/// as many requests at the same time as its answers show it to bear, until it has all that are for it.
///
/// Clones share the state, which belongs to one process.
///
/// ```
/// use tower_readthrough::{OriginHealth, OriginState};
///
/// let health = OriginHealth::new();
/// assert_eq!(health.state(), OriginState::Up);
/// ```
#[derive(Clone)]
pub struct OriginHealth {
    /// At least one. Several are origins for the same requests, in the order in which they are asked.
    members: Arc<[Arc<Member>]>,
}

struct Member {
    settings: Settings,
    on_change: Option<OnChange>,
    draws: Arc<Draws>,
    key_pause: KeyPause,
    /// Permits and places in the queue of each origin.
    limit: OnceLock<(usize, usize)>,
    origins: Origins,
}

enum Origins {
    One(Arc<Gate>),
    Named { extractor: Box<Extractor>, gates: RwLock<HashMap<Box<str>, Arc<Gate>>> },
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    fail_fast: bool,
    probe_every: Backoff,
    probe_deadline: Duration,
    key_pause: Backoff,
    stalled_after: Duration,
    count_without_key: bool,
    is_watched: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            fail_fast: false,
            probe_every: Backoff { min: second, max: 10 * second },
            probe_deadline: 5 * second,
            key_pause: Backoff { min: second, max: 30 * second },
            stalled_after: 10 * second,
            count_without_key: false,
            is_watched: true,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<(), BuildError> {
        self.probe_every.check("probe_every")?;
        self.key_pause.check("key_pause")?;
        let zero = |setting, duration: Duration, consequence| match duration.is_zero() {
            true => Err(BuildError::ZeroDuration { setting, consequence }),
            false => Ok(()),
        };
        zero("probe_deadline", self.probe_deadline, "each probe is over before it begins")?;
        zero("stalled_after", self.stalled_after, "an origin hangs as soon as five keys are fetched")
    }

    fn gate(&self, draws: &Arc<Draws>, listener: Option<Listener>) -> Arc<Gate> {
        let Self {
            fail_fast, probe_every, probe_deadline, stalled_after, count_without_key, is_watched, ..
        } = *self;
        let rules = HealthRules { probe_every, probe_deadline, stalled_after, is_watched };
        let health = Health::new(rules, None, Arc::clone(draws), Instant::now());
        let rules = CoreRules { fails_fast: fail_fast, attempt_deadline: probe_deadline };
        Gate::new(rules, health, count_without_key, listener)
    }
}

impl OriginHealth {
    /// The state of one origin, with the default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Settings::default(), None, None, fastrand::u64(..))
    }

    /// Returns a builder with the default settings.
    pub fn builder() -> OriginHealthBuilder {
        OriginHealthBuilder { settings: Settings::default(), extractor: None, on_change: None, seed: None }
    }

    /// One that is always up, whatever becomes of the requests.
    pub(crate) fn unwatched() -> Self {
        Self::with(Settings { is_watched: false, ..Settings::default() }, None, None, fastrand::u64(..))
    }

    /// Several origins for the same requests, in the order in which they are asked. `None`: there is none.
    pub(crate) fn group(members: &[Self]) -> Option<Self> {
        let members: Arc<[_]> = members.iter().flat_map(|health| health.members.iter().cloned()).collect();
        (!members.is_empty()).then_some(Self { members })
    }

    fn with(
        settings: Settings,
        extractor: Option<Box<Extractor>>,
        on_change: Option<OnChange>,
        seed: u64,
    ) -> Self {
        let draws = Draws::new(seed);
        let listener = on_change.as_ref().map(|on_change| on_change.of(DEFAULT_ORIGIN));
        let origins = match extractor {
            None => Origins::One(settings.gate(&draws, listener)),
            Some(extractor) => Origins::Named { extractor, gates: RwLock::default() },
        };
        let key_pause = KeyPause::new(settings.key_pause, Arc::clone(&draws));
        let member = Member { settings, on_change, draws, key_pause, limit: OnceLock::new(), origins };
        Self { members: Arc::new([Arc::new(member)]) }
    }

    /// Returns the state. Of several origins: `Up` if one of them is, and `Down` only if all are.
    #[must_use]
    pub fn state(&self) -> OriginState {
        OriginState::of_all(self.states().into_iter().map(|(_, state)| state))
    }

    /// The state of the origin that a request is for. Of several: as [`state`](Self::state).
    pub(crate) fn state_for(&self, head: &Parts, now: Instant) -> OriginState {
        OriginState::of_all(self.members.iter().map(|member| member.gate(head).state(now)))
    }

    /// Returns the states of all origins that have been asked, with the names that
    /// [`origin`](OriginHealthBuilder::origin) gives them. Without that there is one, `default`.
    #[must_use]
    pub fn states(&self) -> Vec<(Box<str>, OriginState)> {
        let now = Instant::now();
        let gates = self.members.iter().flat_map(|member| member.gates());
        gates.map(|(name, gate)| (name, gate.state(now))).collect()
    }

    /// All origins that have been asked, each under a name of its own, with its attempts.
    pub(crate) fn gauges(&self) -> Vec<(Box<str>, OriginState, OriginGauges)> {
        let now = Instant::now();
        let places = self.members.iter().enumerate();
        let gates = places.flat_map(|(place, member)| {
            member.gates().into_iter().map(move |(name, gate)| match place {
                0 => (name, gate),
                _ => (format!("{name}-{}", place + 1).into(), gate),
            })
        });
        gates.map(|(name, gate)| (name, gate.state(now), gate.gauges())).collect()
    }

    /// The gate of the origin that a request is for. Of several: of the first.
    pub(crate) fn gate(&self, head: &Parts) -> Arc<Gate> {
        self.members[0].gate(head)
    }

    /// The gate of all requests, if they are for one origin.
    pub(crate) fn only_gate(&self) -> Option<&Arc<Gate>> {
        match &self.members[0].origins {
            Origins::One(gate) => Some(gate),
            Origins::Named { .. } => None,
        }
    }

    /// Whether there are several for the same requests.
    pub(crate) fn is_group(&self) -> bool {
        self.members.len() > 1
    }

    /// Whether it is the same one, and not just one that is alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let (mine, others) = (self.members.iter(), other.members.iter());
        self.members.len() == other.members.len()
            && mine.zip(others).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Whether the outcomes of requests without a key count.
    pub(crate) fn counts_without_key(&self) -> bool {
        self.members.iter().any(|member| member.settings.count_without_key)
    }

    /// Whether an origin that a request is for is up, as of what was last heard of it.
    pub(crate) fn is_up(&self, head: &Parts) -> bool {
        self.members.iter().any(|member| member.gate(head).is_up())
    }

    /// Whether all origins that a request is for are down, as of what was last heard of them.
    pub(crate) fn is_down(&self, head: &Parts) -> bool {
        self.members.iter().all(|member| member.gate(head).is_down())
    }

    /// Why a request with something usable stored would not ask the origin, without asking for it: a request that would
    /// find out whether the origin is back is taken for one that would not. Of several: none that it may ask.
    pub(crate) fn would_hold_back(&self, head: &Parts, now: Instant) -> Option<HeldBack> {
        let reasons = self.members.iter().map(|member| member.gate(head).would_hold_back(now));
        reasons.reduce(|first, next| next.and(first)).flatten()
    }

    /// Whether a request with something usable stored may ask the origin. Of several: the first that it may.
    pub(crate) fn ask_with_stale(&self, head: &Parts, now: Instant) -> Answer {
        let mut held_back = None;
        for member in self.members.iter() {
            match member.gate(head).ask_with_stale(now) {
                Answer::Serve(why) => held_back = held_back.or(Some(why)),
                fetch @ Answer::Fetch(_) => return fetch,
            }
        }
        held_back.map_or(Answer::Fetch(None), Answer::Serve)
    }

    /// How long a key is left alone after fetches that failed.
    pub(crate) fn key_pause(&self) -> &KeyPause {
        &self.members[0].key_pause
    }

    /// Whether a layer limits the attempts under way.
    pub(crate) fn is_limited(&self) -> bool {
        self.members[0].limit.get().is_some()
    }

    /// Limits the attempts under way at each origin, and those that wait for them, before the first attempt.
    ///
    /// Returns whether the limit holds: one that was set before stays.
    pub(crate) fn limit(&self, permits: usize, places: usize) -> bool {
        let refusing = self.members.iter().filter(|member| !member.limit(permits, places));
        refusing.count() == 0
    }
}

impl Default for OriginHealth {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for OriginHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.states()).finish()
    }
}

impl Member {
    fn gate(&self, head: &Parts) -> Arc<Gate> {
        let (extractor, gates) = match &self.origins {
            Origins::One(gate) => return Arc::clone(gate),
            Origins::Named { extractor, gates } => (extractor, gates),
        };
        // Code of the application, which must not take a request down.
        let name = catch_unwind(AssertUnwindSafe(|| extractor(head)));
        let name = name.as_deref().unwrap_or(DEFAULT_ORIGIN);
        if let Some(gate) = gates.read().get(name) {
            return Arc::clone(gate);
        }
        let mut gates = gates.write();
        let is_full = gates.len() >= MAX_ORIGINS && !gates.contains_key(name);
        let name = if is_full { OTHER_ORIGINS } else { name };
        Arc::clone(gates.entry(name.into()).or_insert_with(|| self.new_gate(name)))
    }

    fn new_gate(&self, name: &str) -> Arc<Gate> {
        let listener = self.on_change.as_ref().map(|on_change| on_change.of(name));
        let gate = self.settings.gate(&self.draws, listener);
        if let Some((permits, places)) = self.limit.get() {
            gate.limit(*permits, *places);
        }
        gate
    }

    fn gates(&self) -> Vec<(Box<str>, Arc<Gate>)> {
        match &self.origins {
            Origins::One(gate) => vec![(DEFAULT_ORIGIN.into(), Arc::clone(gate))],
            Origins::Named { gates, .. } => {
                let mut gates: Vec<_> =
                    gates.read().iter().map(|(name, gate)| (name.clone(), Arc::clone(gate))).collect();
                gates.sort_by(|(one, _), (other, _)| one.cmp(other));
                gates
            }
        }
    }

    fn limit(&self, permits: usize, places: usize) -> bool {
        let is_new = self.limit.set((permits, places)).is_ok();
        if is_new {
            self.gates().iter().for_each(|(_, gate)| gate.limit(permits, places));
        }
        is_new || self.limit.get() == Some(&(permits, places))
    }
}

/// Settings of an [`OriginHealth`].
#[must_use]
pub struct OriginHealthBuilder {
    settings: Settings,
    extractor: Option<Box<Extractor>>,
    on_change: Option<OnChange>,
    seed: Option<u64>,
}

impl OriginHealthBuilder {
    /// Whether a request with nothing stored is refused at once while its origin is down: 503 with
    /// `Retry-After`. Default: no.
    ///
    /// Without it such requests go on, at most eight at a time where there is an
    /// [`OriginLimit`](crate::OriginLimit), so that an origin that fails most of the time still answers some, and
    /// a short failure harms none that comes after it. Use it where a failure is better than a wait. Requests
    /// without a key are refused only with [`count_without_key`](Self::count_without_key).
    pub fn fail_fast(mut self, is_on: bool) -> Self {
        self.settings.fail_fast = is_on;
        self
    }

    /// How long an origin that is down is left alone between two probes: `min` before the first, then twice as
    /// long each time, up to `max`. One half of each wait is random. Default: one second to ten.
    ///
    /// A probe is a request that is made anyway, for something that is stored. A longer `max` is a later end of
    /// an outage; a shorter one costs the origin requests.
    pub fn probe_every(mut self, min: Duration, max: Duration) -> Self {
        self.settings.probe_every = Backoff { min, max };
        self
    }

    /// How long a request may take while its origin is down. Default: five seconds.
    ///
    /// A probe that takes longer goes on, and the next one may begin. Where there is an
    /// [`OriginLimit`](crate::OriginLimit), it is given up if all permits are in use by then, and a request with
    /// nothing stored at a random time in the last fifth of it, so that an origin that hangs does not keep all
    /// permits.
    pub fn probe_deadline(mut self, deadline: Duration) -> Self {
        self.settings.probe_deadline = deadline;
        self
    }

    /// How long a key is left alone after a fetch that failed, while something stale can be served for it:
    /// `min` at first, then twice as long each time, up to `max`. One half of each pause is random. A success
    /// ends it. Default: one second to thirty.
    pub fn key_pause(mut self, min: Duration, max: Duration) -> Self {
        self.settings.key_pause = Backoff { min, max };
        self
    }

    /// How long five keys or more have to wait, with no answer to any request meanwhile, until the origin counts
    /// as one that hangs. Default: ten seconds.
    ///
    /// Where a limit is so small that fewer can be under way, as many keys are enough as three of four permits are,
    /// but at least two.
    ///
    /// It should be longer than an answer takes when all is well: an origin that needs longer than this for
    /// everything is down again and again. That it hangs is noticed when the next request is made.
    pub fn stalled_after(mut self, time: Duration) -> Self {
        self.settings.stalled_after = time;
        self
    }

    /// Whether the outcomes of requests without a key count, such as those of each POST. Default: no.
    ///
    /// They are often about one client or one action, and then say little about the origin. Each of their
    /// failures counts, since nothing says which belong together.
    pub fn count_without_key(mut self, is_on: bool) -> Self {
        self.settings.count_without_key = is_on;
        self
    }

    /// Which origin a request is for. Each has a state, and permits of the limit, of its own. Default: all
    /// requests are for one origin.
    ///
    /// The names should be few, and not for a client to choose: beyond 1,024 all further origins share one state,
    /// named `others`. If the extractor panics, the request is for the origin `default`.
    ///
    /// ```
    /// use std::borrow::Cow;
    /// use tower_readthrough::OriginHealth;
    ///
    /// # fn main() -> Result<(), tower_readthrough::BuildError> {
    /// let health = OriginHealth::builder()
    ///     .origin(|head| Cow::from(if head.uri.path().starts_with("/search") { "search" } else { "shop" }))
    ///     .build()?;
    /// assert!(health.states().is_empty(), "none has been asked yet");
    /// # Ok(())
    /// # }
    /// ```
    pub fn origin(mut self, extractor: impl Fn(&Parts) -> Cow<'_, str> + Send + Sync + 'static) -> Self {
        self.extractor = Some(Box::new(extractor));
        self
    }

    /// Calls this when an origin is down that was up, and when it is up again: for a log, or an alarm. Default:
    /// nothing.
    ///
    /// In an outage an origin may begin to recover and go down again many times, which is harmless;
    /// [`OriginChange::relapses`] counts that. A change is noticed by the next request, answer, or call of
    /// [`state`](OriginHealth::state), and the call is made where that is noticed, without a lock. It should be short.
    /// A panic in it changes nothing.
    ///
    /// ```
    /// use tower_readthrough::{OriginHealth, OriginState};
    ///
    /// # fn main() -> Result<(), tower_readthrough::BuildError> {
    /// let health = OriginHealth::builder()
    ///     .on_change(|change| match change.state {
    ///         OriginState::Up => eprintln!("{} is up again after {:?}", change.origin, change.lasted),
    ///         state => eprintln!("{} is {state}", change.origin),
    ///     })
    ///     .build()?;
    /// # drop(health);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_change(mut self, call: impl Fn(&OriginChange) + Send + Sync + 'static) -> Self {
        self.on_change = Some(OnChange::new(call));
        self
    }

    /// Draws all that is random here from this seed, for tests. Default: a random one.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// # Errors
    ///
    /// A duration is zero, or the shorter one of two is the longer.
    pub fn build(self) -> Result<OriginHealth, BuildError> {
        self.settings.check()?;
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        Ok(OriginHealth::with(self.settings, self.extractor, self.on_change, seed))
    }
}

impl fmt::Debug for OriginHealthBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginHealthBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Returns the hash of a key, which is another one in each process.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    static HASHER: OnceLock<DefaultHashBuilder> = OnceLock::new();
    HASHER.get_or_init(DefaultHashBuilder::default).hash_one(key)
}

#[cfg(test)]
impl OriginHealthBuilder {
    /// As the table of [defaults](crate::defaults) has them.
    pub(crate) fn settings(&self) -> Vec<crate::defaults::tests::Setting> {
        use crate::defaults::tests::{option, span, switch};
        let Settings {
            fail_fast,
            probe_every,
            probe_deadline,
            key_pause,
            stalled_after,
            count_without_key,
            is_watched: _,
        } = self.settings;
        let range = |Backoff { min, max }| format!("{}, {}", span(min), span(max));
        vec![
            ("OriginHealthBuilder::fail_fast", switch(fail_fast)),
            ("OriginHealthBuilder::probe_every", range(probe_every)),
            ("OriginHealthBuilder::probe_deadline", span(probe_deadline)),
            ("OriginHealthBuilder::key_pause", range(key_pause)),
            ("OriginHealthBuilder::stalled_after", span(stalled_after)),
            ("OriginHealthBuilder::count_without_key", switch(count_without_key)),
            ("OriginHealthBuilder::origin", option(self.extractor.as_ref(), |_| "some".to_owned())),
            ("OriginHealthBuilder::on_change", option(self.on_change.as_ref(), |_| "some".to_owned())),
        ]
    }
}

#[cfg(test)]
mod gate_model_tests;
#[cfg(test)]
mod gate_tests;
#[cfg(test)]
#[path = "scenario_tests.rs"]
mod scenarios;
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
