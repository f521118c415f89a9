//! The load: requests on a schedule, over keep-alive connections.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::LocalSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{origin::Origin, report::Run};

/// Connections, and so requests under way. All other requests wait for their turn, as they would in
/// front of a real shop, and their time counts.
const CONNECTIONS: usize = 256;
/// When a client gives up.
const PATIENCE: Duration = Duration::from_secs(5);
const PRODUCTS: u32 = 20;

/// The number of requests, and their rate per second.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) rate: u32,
    pub(crate) total: u64,
}

/// State that all connections of a run share.
struct Crowd {
    load: Load,
    addr: SocketAddr,
    began: Instant,
    next: Cell<u64>,
    answered: Cell<u64>,
    /// In microseconds.
    latencies: RefCell<Histogram<u64>>,
}

impl Load {
    /// Sends the load to a server, and returns the figures of the clients and of the origin.
    pub(crate) async fn run(self, addr: SocketAddr, origin: &Origin) -> Result<Run, Box<dyn Error>> {
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            connections.push(connect(addr).await?);
        }
        let crowd = Rc::new(Crowd {
            load: self,
            addr,
            began: Instant::now(),
            next: Cell::new(0),
            answered: Cell::new(0),
            latencies: RefCell::new(Histogram::new_with_bounds(1, 60_000_000, 3)?),
        });
        let tasks = LocalSet::new();
        for connection in connections {
            tasks.spawn_local(Rc::clone(&crowd).take_turns(connection));
        }
        tasks.await;
        let latencies = crowd.latencies.borrow();
        Ok(Run {
            offered: self.total,
            ok_share: crowd.answered.get() as f64 / self.total as f64,
            mean_ms: latencies.mean() / 1e3,
            p99_ms: latencies.value_at_quantile(0.99) as f64 / 1e3,
            origin_calls: origin.calls(),
            origin_busy: origin.busy_share(crowd.began.elapsed()),
        })
    }
}

impl Crowd {
    /// One connection: takes the next request of the schedule, waits until it is due, sends it.
    async fn take_turns(self: Rc<Self>, mut connection: SendRequest<Empty<Bytes>>) {
        while let Some(due) = self.next_due() {
            sleep_until(due).await;
            let gives_up = due + PATIENCE;
            // A client that gave up before its turn sends no request.
            if Instant::now() >= gives_up {
                self.failed();
                continue;
            }
            // The page is made and sent even if its client gave up meanwhile, as most shops do,
            // and until then the connection is of no use to the next one.
            let answer = timeout_at(gives_up + PATIENCE, ask(&mut connection)).await.ok().flatten();
            match answer {
                Some(StatusCode::OK) if Instant::now() < gives_up => self.answered(due),
                Some(_) => self.failed(),
                None => {
                    self.failed();
                    let Ok(fresh) = connect(self.addr).await else { return };
                    connection = fresh;
                }
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let number = self.next.get();
        self.next.set(number + 1);
        let after = Duration::from_secs(1) * u32::try_from(number).ok()? / self.load.rate;
        (number < self.load.total).then(|| self.began + after)
    }

    fn answered(&self, due: Instant) {
        self.answered.set(self.answered.get() + 1);
        self.record(due.elapsed());
    }

    fn failed(&self) {
        self.record(PATIENCE);
    }

    fn record(&self, latency: Duration) {
        let micros = latency.as_micros().try_into().unwrap_or(u64::MAX);
        self.latencies.borrow_mut().saturating_record(micros);
    }
}

async fn connect(addr: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, Box<dyn Error>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The status, once the whole page has arrived.
async fn ask(connection: &mut SendRequest<Empty<Bytes>>) -> Option<StatusCode> {
    let (user, product, session) = (fastrand::u32(..), fastrand::u32(..PRODUCTS), fastrand::u64(..));
    let request = Request::get(format!("/get_fprod.php?uid={user}&pid={product}&sid={session:x}"))
        .header(header::HOST, "shop.example")
        .body(Empty::new())
        .ok()?;
    connection.ready().await.ok()?;
    let mut response = connection.send_request(request).await.ok()?;
    while let Some(frame) = response.body_mut().frame().await {
        frame.ok()?;
    }
    Some(response.status())
}
