//! Visitors and an editor.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::LocalSet};
use tower_readthrough::Purge;

use crate::{
    report::Report,
    site::{ARTICLES, SECTIONS, Site, name_of, tag},
};

const CONNECTIONS: usize = 16;

/// The number of requests, and of requests between two edits.
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) edit_every: u64,
}

struct Visitors {
    load: Load,
    addr: SocketAddr,
    site: Arc<Site>,
    purge: Purge,
    begun: Cell<u64>,
    random: RefCell<Random>,
    /// The version of each text that visitors must get from now on.
    published: RefCell<Vec<u64>>,
    report: RefCell<Report>,
}

impl Load {
    pub(crate) async fn run(
        self,
        addr: SocketAddr,
        site: Arc<Site>,
        purge: Purge,
    ) -> Result<Report, Box<dyn Error>> {
        let visitors = Rc::new(Visitors {
            load: self,
            addr,
            site,
            purge,
            begun: Cell::new(0),
            random: RefCell::new(Random::new()),
            published: RefCell::new(vec![0; ARTICLES + SECTIONS]),
            report: RefCell::default(),
        });
        let tasks = LocalSet::new();
        for _ in 0..CONNECTIONS {
            let visitors = Rc::clone(&visitors);
            tasks.spawn_local(async move {
                if let Err(error) = visitors.visit().await {
                    eprintln!("error: a connection ended: {error}");
                }
            });
        }
        tasks.await;
        let mut report = visitors.report.take();
        report.origin_calls = visitors.site.pages_made();
        match report.hits + report.misses == visitors.load.requests {
            true => Ok(report),
            false => Err("requests were lost".into()),
        }
    }
}

impl Visitors {
    async fn visit(&self) -> Result<(), Box<dyn Error>> {
        let mut connection = connect(self.addr).await?;
        while self.begun.get() < self.load.requests {
            self.begun.set(self.begun.get() + 1);
            if self.begun.get().is_multiple_of(self.load.edit_every) {
                self.edit();
            }
            self.get(&mut connection).await?;
        }
        Ok(())
    }

    /// Changes a text, and then purges all pages that it is on.
    fn edit(&self) {
        let text = {
            let mut random = self.random.borrow_mut();
            match random.below(20) {
                0 => name_of(random.below(SECTIONS)),
                _ => random.article(),
            }
        };
        let version = self.site.edit(text);
        self.purge.tag(&tag(text));
        self.published.borrow_mut()[text] = version;
        self.report.borrow_mut().edits += 1;
    }

    async fn get(&self, connection: &mut SendRequest<Empty<Bytes>>) -> Result<(), Box<dyn Error>> {
        let path = self.random.borrow_mut().path();
        let request = Request::get(path).header(header::HOST, "site").body(Empty::new())?;
        let at_least = self.published.borrow().clone();
        let response = connection.send_request(request).await?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status()).into());
        }
        let how = response.headers().get("cache-status").and_then(|how| how.to_str().ok()).unwrap_or("");
        let is_hit = how.split(';').any(|parameter| parameter.trim() == "hit");
        let page = response.into_body().collect().await?.to_bytes();
        let mut report = self.report.borrow_mut();
        *(if is_hit { &mut report.hits } else { &mut report.misses }) += 1;
        report.stale_after_edit += u64::from(is_outdated(std::str::from_utf8(&page)?, &at_least)?);
        Ok(())
    }
}

/// Whether a text on the page is older than the version that was published before the request.
fn is_outdated(page: &str, at_least: &[u64]) -> Result<bool, Box<dyn Error>> {
    let mut is_outdated = false;
    for line in page.lines() {
        let (text, version) = line.split_once('=').ok_or("a page without versions")?;
        let (text, version) = (text.parse::<usize>()?, version.parse::<u64>()?);
        is_outdated |= version < *at_least.get(text).ok_or("an unknown text")?;
    }
    Ok(is_outdated)
}

async fn connect(addr: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, Box<dyn Error>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Gives the same numbers in each run.
struct Random {
    generator: fastrand::Rng,
    /// How likely an article up to this one is, by Zipf's law.
    up_to: Vec<f64>,
}

impl Random {
    fn new() -> Self {
        let mut sum = 0.0;
        let up_to = (1..=ARTICLES)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { generator: fastrand::Rng::with_seed(42), up_to }
    }

    fn below(&mut self, n: usize) -> usize {
        self.generator.usize(..n)
    }

    fn article(&mut self) -> usize {
        let at = self.generator.f64() * self.up_to.last().copied().unwrap_or(0.0);
        self.up_to.partition_point(|up_to| *up_to < at).min(ARTICLES - 1)
    }

    fn path(&mut self) -> String {
        match self.below(10) {
            0 => "/".to_owned(),
            1 => format!("/section/{}", self.below(SECTIONS)),
            _ => format!("/article/{}", self.article()),
        }
    }
}
