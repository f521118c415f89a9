//! Nodes of a service with a log of purges and a second tier between them, on a server that goes away and comes back.
//!
//! ```text
//! cargo run --release --example cluster --features redis
//! ```
//!
//! The program starts a `redis-server` on a free port (or takes `--server URL`), two nodes (or `--nodes N`) with a store
//! each, and an origin for all. Clients ask all nodes for pages as long as it runs. It then does this, and prints what
//! happens as it goes:
//!
//! 1. 10,000 pages with one tag are stored on all nodes. One node purges the tag, and once all nodes have
//!    applied that, all pages are asked for on the other ones: none may be the old one.
//! 2. 10,000 callers on each node ask for one page that none has: one node asks the origin, and the others take
//!    the page from the second tier.
//! 3. 500 purges on one node, one after the other, each timed until all nodes have applied it.
//! 4. The server is killed. All nodes go on serving, and a purge on one waits. The server comes back, empty; the
//!    time is taken until the last node does not serve what was purged.
//!
//! The first confirmation takes ten seconds: a server that has just been started may not know all nodes yet.
//!
//! `--json` prints one object for machines instead: `requests` (of the clients), `failed` (requests without a response,
//! of all), `stale_after_purge` (old pages in response to requests after the purge was applied everywhere),
//! `origin_calls_cold` (of the second step), `purge_p50_ms` and `purge_p99_ms` (from the call to applied on all nodes) and
//! `recovered_seconds`. The program fails if `failed` or `stale_after_purge` is not 0.

mod load;
mod node;
mod server;

use std::{error::Error, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use self::{
    load::Load,
    node::{Node, Origin, SLOW},
    server::Server,
};

/// Purges that reach all nodes.
#[derive(Parser)]
struct Args {
    /// A server to use, instead of one that is started and killed. Then the last part is left out.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Nodes with a store each.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=64))]
    nodes: u8,
    /// Pages that have the tag.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pages: u32,
    /// Callers on each node that ask for one page at once.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    callers: u32,
    /// Purges that are timed.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    purges: u32,
    /// Print one JSON object instead of a timeline.
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Report {
    requests: u64,
    failed: u64,
    stale_after_purge: u64,
    origin_calls_cold: u64,
    times: Vec<Duration>,
    recovered: Option<Duration>,
}

impl Report {
    fn quantile(&self, share: f64) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    fn json(&self) -> String {
        let recovered = self.recovered.map_or("null".into(), |time| format!("{:.3}", time.as_secs_f64()));
        format!(
            "{{\"requests\":{},\"failed\":{},\"stale_after_purge\":{},\"origin_calls_cold\":{},\"purge_p50_ms\":{:.3},\"purge_p99_ms\":{:.3},\
             \"recovered_seconds\":{recovered}}}",
            self.requests,
            self.failed,
            self.stale_after_purge,
            self.origin_calls_cold,
            self.quantile(0.5),
            self.quantile(0.99),
        )
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(report) => {
            if args.json {
                println!("{}", report.json());
            }
            match (report.failed, report.stale_after_purge) {
                (0, 0) => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The parts of the run, and what they have found.
struct Run<'a> {
    args: &'a Args,
    began: Instant,
    origin: Origin,
    nodes: Vec<Arc<Node>>,
    load: Load,
    report: Report,
}

async fn run(args: &Args) -> Result<Report, Box<dyn Error>> {
    let mut own = if args.server.is_none() { Some(Server::start()?) } else { None };
    let url = args.server.clone().or_else(|| own.as_ref().map(Server::url)).unwrap_or_default();
    let mut run = Run::start(args, &url).await?;
    run.purge_everything_once().await?;
    run.send_a_crowd().await;
    run.time_purges().await?;
    if let Some(server) = &mut own {
        run.lose_the_server(server).await?;
    }
    Ok(run.end().await)
}

impl<'a> Run<'a> {
    async fn start(args: &'a Args, url: &str) -> Result<Self, Box<dyn Error>> {
        let (began, origin) = (Instant::now(), Origin::default());
        let start = |n: u8| Ok(Arc::new(Node::start(&format!("node-{n}"), url, &origin)?));
        let nodes = (1..=args.nodes).map(start).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        join_all(nodes.iter().map(|node| node.caught_up())).await;
        let load = Load::on(&nodes, args.pages);
        let run = Self { args, began, origin, nodes, load, report: Report::default() };
        run.say(&format!(
            "{} nodes follow the log of {url}, and are asked for pages from now on",
            args.nodes
        ));
        Ok(run)
    }

    fn say(&self, text: &str) {
        if !self.args.json {
            println!("{:>7.3} s  {text}", self.began.elapsed().as_secs_f64());
        }
    }

    /// Changes all pages, and purges them on the first node. Returns once all nodes have confirmed that.
    async fn edit(&self) -> Result<u64, Box<dyn Error>> {
        let newest = self.origin.edit();
        self.nodes[0].purge().tag("all").applied_everywhere(Duration::from_secs(30)).await?;
        self.load.confirm(newest);
        Ok(newest)
    }

    /// The edits that all pages of a node show.
    async fn ask_for_all(&mut self, node: usize, pages: u32) -> Vec<u64> {
        let mut shown = Vec::new();
        for page in 0..pages {
            match self.nodes[node].get(page).await {
                Some(edit) => shown.push(edit),
                None => self.report.failed += 1,
            }
        }
        shown
    }

    async fn purge_everything_once(&mut self) -> Result<(), Box<dyn Error>> {
        for node in 0..self.nodes.len() {
            self.ask_for_all(node, self.args.pages).await;
        }
        let newest = self.edit().await?;
        self.say(&format!("a tag of {} pages was purged, and all nodes have applied that", self.args.pages));
        for node in 1..self.nodes.len() {
            let shown = self.ask_for_all(node, self.args.pages).await;
            self.report.stale_after_purge += shown.iter().filter(|edit| **edit < newest).count() as u64;
        }
        self.say(&format!("the other nodes have served {} old pages since", self.report.stale_after_purge));
        Ok(())
    }

    async fn send_a_crowd(&mut self) {
        let callers = self.nodes.iter().flat_map(|node| (0..self.args.callers).map(|_| node.get(SLOW)));
        let pages = join_all(callers).await;
        self.report.failed += pages.iter().filter(|page| page.is_none()).count() as u64;
        self.report.origin_calls_cold = self.origin.slow_calls();
        self.say(&format!(
            "{} callers on each node asked at once for a page that none had: {} calls of the origin",
            self.args.callers, self.report.origin_calls_cold
        ));
    }

    async fn time_purges(&mut self) -> Result<(), Box<dyn Error>> {
        for _ in 0..self.args.purges {
            let began = Instant::now();
            self.edit().await?;
            self.report.times.push(began.elapsed());
        }
        self.say(&format!(
            "{} purges, from the call to applied on all nodes: median {:.2} ms, 99th percentile {:.2} ms",
            self.args.purges,
            self.report.quantile(0.5),
            self.report.quantile(0.99)
        ));
        Ok(())
    }

    async fn lose_the_server(&mut self, server: &mut Server) -> Result<(), Box<dyn Error>> {
        server.stop();
        let last = self.nodes.len() - 1;
        self.ask_for_all(last, 1).await;
        let newest = self.origin.edit();
        let purged = self.nodes[0].purge().tag("all");
        for node in [0, last] {
            self.ask_for_all(node, self.args.pages.min(1000)).await;
        }
        self.say(&format!("the server is gone; all nodes serve, and a purge is {:?}", purged.state()));
        server.restart()?;
        let began = Instant::now();
        while self.ask_for_all(last, 1).await != [newest] {
            sleep(Duration::from_millis(1)).await;
        }
        self.report.recovered = Some(began.elapsed());
        self.say(&format!(
            "the server is back, and empty; {:.3} s later the last node serves nothing old",
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    async fn end(mut self) -> Report {
        self.report.requests = self.load.requests();
        self.report.failed += self.load.failed();
        self.report.stale_after_purge += self.load.stale();
        self.say(&format!(
            "of {} requests meanwhile {} failed, and {} got an old page",
            self.report.requests,
            self.load.failed(),
            self.load.stale()
        ));
        drop(self.load);
        join_all(self.nodes.iter().map(|node| node.leave())).await;
        self.report
    }
}
