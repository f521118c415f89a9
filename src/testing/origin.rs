//! An origin that responds by a script.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use tower_service::Service;

use super::{
    Answer, Failure, Gate, Matcher, Script, TestBody,
    gate::Barrier,
    script::{Next, Scene},
};
use crate::body::BoxError;

/// How many heads of requests are kept.
const MAX_KEPT: usize = 10_000;

/// How many different unscripted requests are listed.
const MAX_LISTED: usize = 20;

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A service that responds by a script, counts its calls, and records the heads of requests.
///
/// Made [`strict`](Self::strict), with a script for each kind of request that is to come; or with
/// [one function](Self::new) for all requests. Clones share script, counts and record. The body of a request is
/// dropped unread, before the response, unless [`with_future`](Self::with_future) takes it.
pub struct ScriptedOrigin {
    mode: Mode,
    shared: Arc<Shared>,
    /// Whether this is the value that the constructor returned, which verifies the scripts when it is dropped.
    is_first: bool,
}

type ByHead = dyn Fn(usize, &request::Parts) -> Answer + Send + Sync;
type ByRequest = dyn Fn(usize, Request<TestBody>) -> BoxFuture<Answer> + Send + Sync;

#[derive(Clone)]
enum Mode {
    Head(Arc<ByHead>),
    Request(Arc<ByRequest>),
    Strict,
}

struct Shared {
    calls: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    /// `None`: nothing is recorded.
    kept: Option<Mutex<Kept>>,
    barrier: Mutex<Option<Arc<Barrier>>>,
    scenes: Mutex<Vec<Scene>>,
    unscripted: Mutex<BTreeMap<String, usize>>,
}

#[derive(Default)]
struct Kept {
    heads: Vec<request::Parts>,
    /// The last one, if it is not among those.
    last: Option<request::Parts>,
}

impl ScriptedOrigin {
    /// Makes an origin that has no answer but those of the scripts that [`on`](Self::on) adds.
    ///
    /// Another request gets a 500 that says so, and [`verify`](Self::verify) fails.
    pub fn strict() -> Self {
        Self::from_mode(Mode::Strict, true)
    }

    /// Makes an origin that answers all requests by this function, which gets the number of the call, from 1 on,
    /// and the head of the request.
    pub fn new(answer: impl Fn(usize, &request::Parts) -> Answer + Send + Sync + 'static) -> Self {
        Self::from_mode(Mode::Head(Arc::new(answer)), true)
    }

    /// Makes an origin that answers all requests by this function, which gets the number of the call, from 1 on,
    /// and the request with its body, and may wait.
    pub fn with_future<F, Fut>(answer: F) -> Self
    where
        F: Fn(usize, Request<TestBody>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let by_request = move |call, request| -> BoxFuture<Answer> { Box::pin(answer(call, request)) };
        Self::from_mode(Mode::Request(Arc::new(by_request)), true)
    }

    /// Makes an origin that answers every request with what this function returns.
    pub fn always(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self::new(move |_, _| answer())
    }

    /// As [`new`](Self::new), without a record of requests: for very many of them, and where their memory
    /// counts.
    pub fn unrecorded(answer: impl Fn(usize, &request::Parts) -> Answer + Send + Sync + 'static) -> Self {
        Self::from_mode(Mode::Head(Arc::new(answer)), false)
    }

    fn from_mode(mode: Mode, is_recorded: bool) -> Self {
        let shared = Shared {
            calls: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            kept: is_recorded.then(Mutex::default),
            barrier: Mutex::default(),
            scenes: Mutex::default(),
            unscripted: Mutex::default(),
        };
        Self { mode, shared: Arc::new(shared), is_first: true }
    }

    /// Adds a script for the requests that match. Of several scripts that match, the first one that has an
    /// answer left gives it.
    ///
    /// # Panics
    ///
    /// If the pattern is invalid, the script has no answer, or the origin is not [`strict`](Self::strict).
    #[must_use]
    #[track_caller]
    pub fn on(self, requests: impl Into<Matcher>, script: impl Into<Script>) -> Self {
        assert!(
            matches!(self.mode, Mode::Strict),
            "this origin answers all requests by its function: a script needs `ScriptedOrigin::strict()`"
        );
        match Scene::new(requests.into(), script.into()) {
            Ok(scene) => self.shared.scenes.lock().push(scene),
            Err(mistake) => panic!("{mistake}"),
        }
        self
    }

    /// Holds all calls from now on, before they are answered, until the gate is opened or dropped.
    ///
    /// What a call is answered is decided when it arrives. Another call of `hold` makes another gate for calls
    /// from then on.
    ///
    /// ```
    /// use tower_readthrough::{ReadThroughLayer, testing::{Answer, Client, ScriptedOrigin}};
    /// use std::time::Duration;
    /// use tower::Layer;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let origin = ScriptedOrigin::strict().on("/", Answer::ok("one fetch"));
    /// let client = Client::new(ReadThroughLayer::with_ttl(Duration::from_secs(60)).layer(origin.clone()));
    /// let gate = origin.hold();
    /// let clients = tokio::spawn(client.get("/").burst(100));
    /// gate.waiting(1).await;
    /// gate.open();
    /// assert!(clients.await.unwrap().iter().all(|seen| seen.body == "one fetch"));
    /// assert_eq!(origin.calls(), 1);
    /// # }
    /// ```
    #[must_use = "the gate opens when it is dropped"]
    pub fn hold(&self) -> Gate {
        let (gate, barrier) = Gate::new();
        *self.shared.barrier.lock() = Some(barrier);
        gate
    }

    /// Returns how many calls there were.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Returns how many calls the script for this pattern answered, and those that it had no answer left for.
    ///
    /// # Panics
    ///
    /// If there is no script for the pattern, in these very words.
    #[track_caller]
    pub fn calls_of(&self, pattern: &str) -> usize {
        let scenes = self.shared.scenes.lock();
        let calls = |scenes: &[Scene]| {
            let same = scenes.iter().filter(|scene| scene.label() == pattern);
            same.map(Scene::calls).reduce(|all, more| all + more)
        };
        let found = calls(&scenes);
        let labels: Vec<String> = scenes.iter().map(|scene| format!("`{}`", scene.label())).collect();
        drop(scenes);
        let Some(calls) = found else {
            panic!("there is no script for `{pattern}`, but for {}", labels.join(", "));
        };
        calls
    }

    /// Returns how many calls have not returned a head yet.
    pub fn under_way(&self) -> usize {
        self.shared.under_way.load(Ordering::SeqCst)
    }

    /// Returns how many calls were under way at the same time at most.
    pub fn most_under_way(&self) -> usize {
        self.shared.most_under_way.load(Ordering::SeqCst)
    }

    /// Returns the heads of the first 10,000 requests.
    ///
    /// # Panics
    ///
    /// If nothing is recorded.
    #[track_caller]
    pub fn requests(&self) -> Vec<request::Parts> {
        self.kept().lock().heads.clone()
    }

    /// Returns the head of the request of this call, from 1 to 10,000.
    ///
    /// # Panics
    ///
    /// If there was no such call, or nothing is recorded.
    #[track_caller]
    pub fn request(&self, number: usize) -> request::Parts {
        let kept = self.kept().lock();
        let (head, there) =
            (number.checked_sub(1).and_then(|at| kept.heads.get(at)).cloned(), kept.heads.len());
        drop(kept);
        let Some(head) = head else { panic!("request {number} is asked for, of {there}") };
        head
    }

    /// Returns the head of the last request.
    ///
    /// # Panics
    ///
    /// If there was none, or nothing is recorded.
    #[track_caller]
    pub fn last_request(&self) -> request::Parts {
        let kept = self.kept().lock();
        let head = kept.last.as_ref().or(kept.heads.last()).cloned();
        drop(kept);
        let Some(head) = head else { panic!("the last request is asked for, and there was none") };
        head
    }

    #[track_caller]
    fn kept(&self) -> &Mutex<Kept> {
        match &self.shared.kept {
            Some(kept) => kept,
            None => panic!("a request is asked for, and this origin records none"),
        }
    }

    /// Checks that all requests were scripted, and that each answer was given.
    ///
    /// The value that [`strict`](Self::strict) returned does so when it is dropped, unless the thread panics. So
    /// keep it in the test, and give clones to services.
    ///
    /// # Panics
    ///
    /// If not, with a list of both.
    #[track_caller]
    pub fn verify(&self) {
        let faults = self.shared.faults();
        assert!(faults.is_empty(), "the origin was not asked as its script says:\n{}", faults.join("\n"));
    }
}

impl Shared {
    fn enter(self: &Arc<Self>) -> (usize, UnderWay) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        (call, UnderWay(Arc::clone(self)))
    }

    fn keep(&self, head: request::Parts) {
        let Some(kept) = &self.kept else { return };
        let mut kept = kept.lock();
        let replaced = match kept.heads.len() < MAX_KEPT {
            true => {
                kept.heads.push(head);
                None
            }
            false => kept.last.replace(head),
        };
        drop(kept);
        drop(replaced);
    }

    /// Returns once the call may be answered.
    async fn wait(&self) {
        let barrier = self.barrier.lock().clone();
        if let Some(barrier) = barrier.filter(|barrier| !barrier.is_open()) {
            // Boxed, since few calls wait.
            Box::pin(barrier.wait()).await;
        }
    }

    fn answer(&self, head: &request::Parts) -> Answer {
        match self.choose(head) {
            Ok(next) => next.answer(head),
            Err(why) => {
                let path = head.uri.path_and_query().map_or("*", |path| path.as_str());
                let request = format!("{} {path}{why}", head.method);
                let mut unscripted = self.unscripted.lock();
                if unscripted.len() < MAX_LISTED || unscripted.contains_key(&request) {
                    *unscripted.entry(request.clone()).or_default() += 1;
                }
                drop(unscripted);
                Answer::ok(format!("unscripted: {request}")).status(500).header("cache-control", "no-store")
            }
        }
    }

    fn choose(&self, head: &request::Parts) -> Result<Next, &'static str> {
        let tests: Vec<_> = self.scenes.lock().iter().map(Scene::test).collect();
        let matching: Vec<_> = (0..tests.len()).filter(|at| tests[*at](head)).collect();
        let Some(first) = matching.first() else { return Err("") };
        let mut scenes = self.scenes.lock();
        let with_answers = matching.iter().find(|at| scenes[**at].has_next());
        let scene = &mut scenes[*with_answers.unwrap_or(first)];
        scene.enter();
        scene.next().ok_or(", which has no answer left")
    }

    fn faults(&self) -> Vec<String> {
        let listed = self.unscripted.lock().clone();
        let unscripted = listed.into_iter().map(|(request, times)| match times {
            1 => format!("unscripted: {request}"),
            _ => format!("unscripted: {request} ({times} times)"),
        });
        let unmet: Vec<_> = self.scenes.lock().iter().filter_map(Scene::unmet).collect();
        unscripted.chain(unmet).collect()
    }
}

struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Clone for ScriptedOrigin {
    fn clone(&self) -> Self {
        Self { mode: self.mode.clone(), shared: Arc::clone(&self.shared), is_first: false }
    }
}

impl Drop for ScriptedOrigin {
    fn drop(&mut self) {
        if self.is_first && !thread::panicking() {
            self.verify();
        }
    }
}

impl fmt::Debug for ScriptedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedOrigin").field("calls", &self.calls()).finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for ScriptedOrigin
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<TestBody>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<TestBody>, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (call, under_way) = self.shared.enter();
        let (head, body) = request.into_parts();
        let answer = match &self.mode {
            Mode::Head(answer) => answer(call, &head),
            Mode::Strict => self.shared.answer(&head),
            Mode::Request(answer) => {
                if self.shared.kept.is_some() {
                    self.shared.keep(head.clone());
                }
                let answer = answer(call, Request::from_parts(head, TestBody::new(body)));
                return Box::pin(async move {
                    let under_way = under_way;
                    under_way.0.wait().await;
                    answer.await.play(()).await
                });
            }
        };
        self.shared.keep(head);
        Box::pin(async move {
            let under_way = under_way;
            under_way.0.wait().await;
            answer.play(body).await
        })
    }
}
