//! A content management system on real sockets. Its pages have a lifetime of a day, since each edit
//! purges the pages that it changes.
//!
//! ```text
//! cargo run --release --example cms
//! ```
//!
//! The site has 500 articles in 20 sections that list them, and a home page. Requests follow Zipf's
//! law. After every 250 requests an editor changes an article (popular ones more often) or, one time
//! in twenty, the name of a section, which is on all its pages. Each page names its texts by tags,
//! and an edit purges by tag: a request sent after that must not get the old text. The program
//! counts responses that are older than an edit, and fails if there are any.
//!
//! The site takes two milliseconds to make a page and reads the texts before that, so that edits
//! happen while pages are being made.

mod load;
mod report;
mod site;

use std::{error::Error, process::ExitCode, sync::Arc, thread, time::Duration};

use clap::Parser;
use tokio::{net::TcpListener, runtime};
use tower_readthrough::{MemoryStore, ReadThroughLayer, Rules};

use self::{load::Load, report::Report, site::Site};

/// A site whose pages are purged when they are edited.
#[derive(Parser)]
struct Args {
    /// Requests by visitors.
    #[arg(long, value_name = "N", default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    requests: u64,
    /// Requests from one edit to the next.
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u64).range(1..))]
    edit_every: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(report) => {
            println!("{}", if args.json { report.json() } else { report.table() });
            if report.stale_after_edit == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Report, Box<dyn Error>> {
    let site = Arc::new(Site::new());
    let cache = ReadThroughLayer::builder(MemoryStore::with_capacity_bytes(64 << 20))
        // No page depends on a cookie, and each browser has some.
        .rules(Rules::new().fixed_ttl(Duration::from_secs(24 * 3600)).cookies([]));
    let purge = cache.purge();
    let app = Arc::clone(&site).router().layer(cache.build()?);

    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let server = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        let serve = async { axum::serve(TcpListener::from_std(listener)?, app).await };
        if let Err(error) = server.block_on(serve) {
            eprintln!("error: the server ended: {error}");
        }
    });
    let clients = runtime::Builder::new_current_thread().enable_all().build()?;
    clients.block_on(Load { requests: args.requests, edit_every: args.edit_every }.run(addr, site, purge))
}
