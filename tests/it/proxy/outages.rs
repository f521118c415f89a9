//! What the flags about outages do, over real sockets.

use std::sync::{Mutex, atomic::AtomicUsize};

use tokio::sync::Semaphore;

use super::*;

/// What an origin does with a request.
#[derive(Clone, Copy)]
enum Way {
    Good(&'static str),
    Bad,
    /// It responds when the test lets it.
    Held,
}

/// What came to an origin.
struct Seen {
    paths: Mutex<Vec<String>>,
    under_way: AtomicUsize,
    most: AtomicUsize,
    gate: Semaphore,
}

struct Scripted {
    addr: SocketAddr,
    seen: Arc<Seen>,
    _task: JoinSet<()>,
}

impl Scripted {
    /// An origin that does this with a request for a path, by the number of those before it.
    async fn start(way: impl Fn(&str, usize) -> Way + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (paths, under_way, most) = (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let seen = Arc::new(Seen { paths, under_way, most, gate: Semaphore::new(0) });
        let (way, noted) = (Arc::new(way), Arc::clone(&seen));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (way, seen) = (Arc::clone(&way), Arc::clone(&noted));
                let service = service_fn(move |request: Request<Incoming>| {
                    let path = request.uri().path().to_owned();
                    let before = seen.note(&path);
                    Arc::clone(&seen).answer(way(&path, before))
                });
                connections.spawn(async move {
                    _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { addr, seen, _task: task }
    }

    fn calls(&self) -> usize {
        self.seen.paths.lock().unwrap().len()
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Seen {
    fn note(&self, path: &str) -> usize {
        let mut paths = self.paths.lock().unwrap();
        paths.push(path.to_owned());
        paths.len() - 1
    }

    async fn answer(self: Arc<Self>, way: Way) -> Result<Response<Full<Bytes>>, Infallible> {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let response = match way {
            Way::Good(body) => Response::new(Full::from(body)),
            Way::Bad => Response::builder().status(503).body(Full::default()).unwrap(),
            Way::Held => {
                self.gate.acquire().await.unwrap().forget();
                Response::new(Full::from("held"))
            }
        };
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(response)
    }
}

/// As many failures of different keys as bring an origin down at once.
const ENOUGH: usize = 20;

async fn bring_down(proxy: &Proxy) {
    for number in 0..ENOUGH {
        assert_eq!(proxy.get(&format!("/{number}")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

async fn text(response: reqwest::Response) -> String {
    response.text().await.unwrap()
}

#[tokio::test]
async fn the_next_origin_responds_where_the_first_one_fails() {
    let first = Scripted::start(|_, _| Way::Bad).await;
    let second = Scripted::start(|_, _| Way::Good("second")).await;
    let proxy = Proxy::start(first.addr, &["--origin", &second.url()]).await;
    for number in 0..ENOUGH + 5 {
        assert_eq!(text(proxy.get(&format!("/{number}")).await).await, "second");
    }
    assert_eq!(second.calls(), ENOUGH + 5);
    assert!((ENOUGH..=ENOUGH + 2).contains(&first.calls()), "it is down: {} calls", first.calls());
}

#[tokio::test]
async fn a_client_that_can_have_something_stale_waits_no_longer_than_it_is_told_to() {
    let origin = Scripted::start(|_, before| if before == 0 { Way::Good("old") } else { Way::Held }).await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "1ms", "--stale-after", "30ms"]).await;
    assert_eq!(text(proxy.get("/").await).await, "old");
    let response = proxy.get("/").await;
    assert_eq!(cache_status(&response), "tower-readthrough;fwd=stale;detail=origin-slow");
    assert_eq!((text(response).await, origin.calls()), ("old".into(), 2));
}

#[tokio::test]
async fn what_has_nothing_stored_is_refused_at_once_while_the_origin_is_down() {
    let origin = Scripted::start(|_, _| Way::Bad).await;
    let proxy = Proxy::start(origin.addr, &["--fail-fast", "--origin-limit", "8"]).await;
    bring_down(&proxy).await;
    let calls = origin.calls();
    let responses = [proxy.get("/a").await, proxy.get("/b").await];
    assert!(origin.calls() <= calls + 1, "one of them may be a probe");
    let is_refused = |response: &&reqwest::Response| cache_status(response).ends_with("detail=origin-down");
    assert!(responses.iter().filter(is_refused).count() >= 1);
    for response in &responses {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(!is_refused(&response) || response.headers().contains_key("retry-after"));
    }
}

#[tokio::test]
async fn no_more_requests_than_the_limit_says_are_at_the_origin() {
    let origin = Scripted::start(|_, _| Way::Held).await;
    let proxy = Proxy::start(origin.addr, &["--origin-limit", "2"]).await;
    let mut clients = JoinSet::new();
    for number in 0..6 {
        clients.spawn(reqwest::get(proxy.url(&format!("/{number}"))));
    }
    while origin.calls() < 2 {
        tokio::task::yield_now().await;
    }
    origin.seen.gate.add_permits(6);
    while let Some(response) = clients.join_next().await {
        assert!(response.unwrap().is_ok());
    }
    assert_eq!(origin.seen.most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failure_is_tried_again_as_often_as_the_flag_says() {
    for (retries, status, calls) in [("0", 503, 1), ("1", 503, 2), ("2", 200, 3)] {
        let origin = Scripted::start(|_, before| if before < 2 { Way::Bad } else { Way::Good("x") }).await;
        let proxy = Proxy::start(origin.addr, &["--retries", retries]).await;
        assert_eq!((proxy.get("/").await.status().as_u16(), origin.calls()), (status, calls), "{retries}");
    }
}

#[tokio::test]
async fn a_response_is_refreshed_before_it_expires() {
    let origin = Scripted::start(|_, _| Way::Good("x")).await;
    let proxy = Proxy::start(origin.addr, &["--default-ttl", "20s", "--refresh-ahead", "0.05"]).await;
    // Of many responses some are due soon after the first second, and none is stale for twenty.
    let paths: Vec<_> = (0..100).map(|number| format!("/{number}")).collect();
    let client = reqwest::Client::new();
    let mut is_refreshed = false;
    for round in 0..2_000 {
        for path in &paths {
            let response = client.get(proxy.url(path)).send().await.unwrap();
            assert!(round == 0 || cache_status(&response).contains("hit"), "{}", cache_status(&response));
        }
        is_refreshed = origin.calls() > paths.len();
        if is_refreshed {
            break;
        }
    }
    assert!(is_refreshed);
}

#[tokio::test]
async fn an_origin_that_is_down_is_asked_for_the_path_of_the_probe_without_traffic() {
    let origin = Scripted::start(|path, _| if path == "/healthz" { Way::Good("ok") } else { Way::Bad }).await;
    let args = ["--probe", "/healthz?deep=1", "--fail-fast", "--origin-limit", "8"];
    let proxy = Proxy::start(origin.addr, &args).await;
    bring_down(&proxy).await;
    let is_probed = async {
        while !origin.seen.paths.lock().unwrap().iter().any(|path| path == "/healthz") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), is_probed).await.expect("it is asked every five seconds");
}
