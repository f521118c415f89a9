//! Two nodes of a service with a log of purges and a second tier between them, on a server that goes away and comes back.
//!
//! ```text
//! cargo run --release --example cluster --features redis
//! ```
//!
//! The program starts a `redis-server` on a free port (or takes `--server URL`), two nodes with a store each, and
//! an origin for both. It then does this, and prints what happens as it goes:
//!
//! 1. 10,000 pages with one tag are stored on both nodes. One node purges the tag, and once all nodes have
//!    applied that, all pages are asked for on the other one: none may be the old one.
//! 2. 10,000 callers on each node ask for one page that neither has: one node asks the origin, and the other one takes
//!    the page from the second tier.
//! 3. 500 purges on one node, one after the other, each timed until all nodes have applied it.
//! 4. The server is killed. Both nodes go on serving, and a purge on one waits. The server comes back, empty; the
//!    time is taken until the other node does not serve what was purged.
//!
//! The first confirmation takes ten seconds: a server that has just been started may not know all nodes yet.
//!
//! `--json` prints one object for machines instead: `failed` (requests without a response), `stale_after_purge`
//! (old pages after the purge was applied everywhere), `origin_calls_cold` (of the second step), `purge_p50_ms` and `purge_p99_ms` (from the call to
//! applied on all nodes) and `recovered_seconds`. The program fails if one of the first two is not 0.

mod node;
mod server;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use self::{
    node::{Node, Origin, SLOW},
    server::Server,
};

/// Purges that reach two nodes.
#[derive(Parser)]
struct Args {
    /// A server to use, instead of one that is started and killed. Then the last part is left out.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
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
            "{{\"failed\":{},\"stale_after_purge\":{},\"origin_calls_cold\":{},\"purge_p50_ms\":{:.3},\"purge_p99_ms\":{:.3},\
             \"recovered_seconds\":{recovered}}}",
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

/// So many callers ask for one page. Returns how many got none.
async fn crowd(node: &Node, callers: u32) -> u64 {
    let pages = join_all((0..callers).map(|_| node.get(SLOW))).await;
    pages.iter().filter(|page| page.is_none()).count() as u64
}

async fn run(args: &Args) -> Result<Report, Box<dyn Error>> {
    let (mut report, began) = (Report::default(), Instant::now());
    let say = |text: String| {
        if !args.json {
            println!("{:>7.3} s  {text}", began.elapsed().as_secs_f64());
        }
    };
    let mut own = if args.server.is_none() { Some(Server::start()?) } else { None };
    let url = args.server.clone().or_else(|| own.as_ref().map(Server::url)).unwrap_or_default();
    let origin = Origin::default();
    let [here, there] = [Node::start("here", &url, &origin)?, Node::start("there", &url, &origin)?];
    for node in [&here, &there] {
        node.caught_up().await;
    }
    say(format!("two nodes follow the log of {url}"));

    for node in [&here, &there] {
        for page in 0..args.pages {
            report.failed += u64::from(node.get(page).await.is_none());
        }
    }
    let newest = origin.edit();
    here.purge().tag("all").applied_everywhere(Duration::from_secs(30)).await?;
    say(format!("a tag of {} pages was purged, and all nodes have applied that", args.pages));
    for page in 0..args.pages {
        match there.get(page).await {
            Some(version) => report.stale_after_purge += u64::from(version < newest),
            None => report.failed += 1,
        }
    }
    say(format!("the other node has served {} old pages since", report.stale_after_purge));

    let before = origin.calls();
    let (failed_here, failed_there) = tokio::join!(crowd(&here, args.callers), crowd(&there, args.callers));
    report.failed += failed_here + failed_there;
    report.origin_calls_cold = origin.calls() - before;
    say(format!(
        "{} callers on each node asked at once for a page that neither had: {} calls of the origin",
        args.callers, report.origin_calls_cold
    ));

    for _ in 0..args.purges {
        let began = Instant::now();
        here.purge().tag("all").applied_everywhere(Duration::from_secs(30)).await?;
        report.times.push(began.elapsed());
    }
    say(format!(
        "{} purges, from the call to applied on all nodes: median {:.2} ms, 99th percentile {:.2} ms",
        args.purges,
        report.quantile(0.5),
        report.quantile(0.99)
    ));

    if let Some(server) = &mut own {
        server.stop();
        there.get(0).await;
        let newest = origin.edit();
        let purged = here.purge().tag("all");
        for node in [&here, &there] {
            for page in 0..args.pages.min(1000) {
                report.failed += u64::from(node.get(page).await.is_none());
            }
        }
        say(format!("the server is gone; both nodes serve, and a purge is {:?}", purged.state()));
        server.restart()?;
        let began = Instant::now();
        while there.get(0).await.is_some_and(|version| version < newest) {
            sleep(Duration::from_millis(1)).await;
        }
        report.recovered = Some(began.elapsed());
        say(format!(
            "the server is back, and empty; {:.3} s later the other node serves nothing old",
            began.elapsed().as_secs_f64()
        ));
    }
    here.leave().await;
    there.leave().await;
    Ok(report)
}
